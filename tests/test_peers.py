"""The workloads are what they say, sparkshark understands all of them, and the table tells what was measured."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dpkt
import pytest
from benchmarks.measure import ROOT
from benchmarks.peers.correct import Correctness, Share, correctness, of_sparkshark, of_tcpflow
from benchmarks.peers.floors import rsa_of_logins
from benchmarks.peers.goals import FLEET, LONG_OPENED, ONE, TWO, of_memory, of_time
from benchmarks.peers.page import Measured, page
from benchmarks.peers.runs import Held, Setting, Took, held, in_rounds, ratios, setting, took
from benchmarks.peers.tools import FLOOR, FOLLOW, NODE, TCPFLOW, TOOLS, jobs_of
from benchmarks.workloads import FORMATS, LINKS, WORKLOADS, Made, make

SCALES = {"needle": 0.001, "fleet": 0.002, "long": 0.001, "stalls": 0.001, "hostile": 0.03, "dead": 0.0005}


@pytest.fixture(name="where", scope="module")
def _where(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return setting(tmp_path_factory.mktemp("scratch"))


@pytest.fixture(name="all_made", scope="module")
def _all_made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    folder = tmp_path_factory.mktemp("workloads")
    return {name: make(name, folder / name, scale=scale) for name, scale in SCALES.items()}


def totals(made: Made) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(made.totals.read_text())
    return told


def sessions(made: Made) -> list[dict[str, Any]]:
    return [json.loads(line) for line in made.sessions.read_text().splitlines()]


def frames(made: Made) -> Iterator[tuple[float, bytes]]:
    for path in made.captures:
        with path.open("rb") as file:
            yield from dpkt.pcap.UniversalReader(file)


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_same_numbers_give_the_same_bytes(name: str, all_made: dict[str, Made], tmp_path: Path) -> None:
    once = all_made[name].totals.parent
    again = make(name, tmp_path / "again", scale=SCALES[name]).totals.parent
    paths = sorted(path.relative_to(once) for path in once.rglob("*") if path.is_file())
    assert paths == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert [path for path in paths if (once / path).read_bytes() != (again / path).read_bytes()] == []
    other = make(name, tmp_path / "other", scale=SCALES[name], seed=2).totals.parent
    same = {path.name for path in paths if (once / path).read_bytes() == (other / path).read_bytes()}
    assert same <= {"devices.csv"}


@pytest.mark.parametrize("name", WORKLOADS)
def test_sparkshark_understands_all_of_it(name: str, all_made: dict[str, Made], where: Setting) -> None:
    made = all_made[name]
    outcomes = Counter(totals(made)["outcomes"])
    complete, holes = outcomes.pop("complete", 0), outcomes.pop("complete with holes", 0)
    found = of_sparkshark("analyze" if outcomes else "decrypt", made, [], where)
    assert found.complete == Share(complete, complete)
    assert found.holes == Share(holes, holes)
    assert found.verdicts == Share(outcomes.total(), outcomes.total())
    if not holes:
        assert found.frames == sum(totals(made)["frames"].values())


def test_what_is_rare_is_in_there(all_made: dict[str, Made]) -> None:
    assert totals(all_made["hostile"])["outcomes"] == {"complete": 28, "complete with holes": 2}
    assert len(totals(all_made["stalls"])["outcomes"]) == 7
    assert set(totals(all_made["dead"])["outcomes"]) == {"complete", "no answer", "refused", "no nonce", "no identity"}
    assert totals(all_made["dead"])["outcomes"]["complete"] == 4
    addresses = Counter(one["device"].split(":")[0] for one in sessions(all_made["fleet"]))
    assert max(addresses.values()) == 2
    for made in all_made.values():
        devices = [one["device"] for one in sessions(made)]
        assert len(devices) == len(set(devices)) == totals(made)["sessions"]


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_checksum_is_right_and_time_goes_forward(name: str, all_made: dict[str, Made]) -> None:
    before, count = 0.0, 0
    for time, frame in frames(all_made[name]):
        assert time >= before
        before, count = time, count + 1
        ip = dpkt.ethernet.Ethernet(frame).data
        assert ones(bytes(ip)[:20]) == 0
        above = bytes(ip)[20:]
        assert ones(ip.src + ip.dst + bytes([0, ip.p]) + len(above).to_bytes(2, "big") + above) == 0
        assert len(frame) >= 60 or frame[6:12] == bytes.fromhex("02005e10000a") or name == "needle"
    assert count == totals(all_made[name])["packets"]


def ones(data: bytes) -> int:
    """What is left when words are added up, their checksum among them: nothing."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(padded[at : at + 2], "big") for at in range(0, len(padded), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


@pytest.mark.parametrize(
    "options",
    [*({"form": form} for form in FORMATS), *({"link": link} for link in LINKS if link != "ethernet")],
    ids=lambda options: "-".join(options.values()),
)
def test_every_format_and_link_holds_the_same(options: dict[str, Any], tmp_path: Path, where: Setting) -> None:
    plain = make("hostile", tmp_path / "plain", scale=0.005)
    made = make("hostile", tmp_path / "made", scale=0.005, **options)
    assert made.sessions.read_text() == plain.sessions.read_text()
    found = of_sparkshark("decrypt", made, [], where)
    assert (found.complete, found.holes) == (Share(4, 4), Share(1, 1))


@pytest.mark.parametrize(("form", "header"), [("pcap", 24), ("pcapng", 48)])
def test_split_files_are_the_one_file(form: Any, header: int, tmp_path: Path, where: Setting) -> None:
    whole = make("fleet", tmp_path / "whole", scale=0.001, form=form)
    parts = make("fleet", tmp_path / "parts", scale=0.001, form=form, split=5)
    assert [path.name for path in parts.captures] == [f"fleet_{n:05}{whole.captures[0].suffix}" for n in range(1, 6)]
    pieces = [path.read_bytes() for path in parts.captures]
    assert pieces[0][:header] + b"".join(piece[header:] for piece in pieces) == whole.captures[0].read_bytes()
    assert all(piece[:header] == pieces[0][:header] for piece in pieces)
    assert max(map(len, pieces)) < 1.2 * min(map(len, pieces))
    assert list(frames(parts)) == list(frames(whole))
    found = [of_sparkshark("decrypt", made, [], where) for made in (whole, parts)]
    assert found[0][:-1] == found[1][:-1]
    assert found[0].complete == Share(10, 10)


def test_a_long_capture_is_cut_at_packets_too(tmp_path: Path) -> None:
    whole = make("long", tmp_path / "whole", scale=0.006)
    parts = make("long", tmp_path / "parts", scale=0.006, split=3)
    assert totals(whole)["packets"] > 5000
    assert list(frames(parts)) == list(frames(whole))


def test_another_process_makes_the_same_and_memory_does_not_grow(tmp_path: Path, where: Setting) -> None:
    peaks = []
    for scale in (0.002, 0.01):
        words = ["long", "--out", str(tmp_path / "other"), "--scale", str(scale)]
        taken = held([sys.executable, "-m", "tests.benchmarks.workloads", *words], where)
        assert taken is not None
        peaks.append(taken.largest)
        same = make("long", tmp_path / "here", scale=scale).captures[0].read_bytes()
        assert (tmp_path / "other" / "long" / "long.pcap").read_bytes() == same
    assert peaks[1] < peaks[0] * 1.1


Line = dict[str, Any]


def altered(change: Callable[[Line], object], kind: str) -> Callable[[Line], Line]:
    def alter(line: Line) -> Line:
        if line["kind"] == kind:
            change(line)
        return line

    return alter


@pytest.fixture(name="printed", scope="module")
def _printed(all_made: dict[str, Made], where: Setting) -> dict[str, list[Line]]:
    lines = {}
    for name in ("hostile", "stalls"):
        made = all_made[name]
        command = [sys.executable, "-m", "analyzer", "analyze", str(made.captures[0]), "--format", "jsonl"]
        command += ["--keys", str(made.keys)]
        done = subprocess.run(command, env=where.environment, capture_output=True, check=True)
        lines[name] = [json.loads(line) for line in done.stdout.splitlines()]
    return lines


@pytest.mark.parametrize(
    ("kind", "change", "right"),
    [
        ("nothing", dict.clear, (28, 2, 50)),
        ("message", lambda line: line.update(plaintext=line["plaintext"][:-2] + "00"), (0, 2, 50)),
        ("message", lambda line: line.update(direction="device"), (0, 2, 50)),
        ("message", lambda line: line.update(whole=False), (0, 2, 50)),
        ("conversation", lambda line: line.update(gaps=[]), (28, 0, 50)),
        ("conversation", lambda line: line.update(gaps=[{}]), (0, 2, 50)),
        ("conversation", lambda line: line["device"].update(port=1), (0, 0, 0)),
        ("conversation", lambda line: line.update(reached="syn", handshake=None), (28, 2, 40)),
        ("finding", lambda line: line.update(code="SPK999"), (28, 2, 10)),
    ],
)
def test_every_mistake_is_counted(
    kind: str,
    change: Callable[[Line], object],
    right: tuple[int, int, int],
    all_made: dict[str, Made],
    printed: dict[str, list[Line]],
) -> None:
    found: dict[str, Correctness] = {}
    for name, lines in printed.items():
        copies = (altered(change, kind)(json.loads(json.dumps(line))) for line in lines)
        found[name] = correctness([json.dumps(line).encode() for line in copies], all_made[name].sessions)
    assert found["hostile"].complete == Share(right[0], 28)
    assert found["hostile"].holes == Share(right[1], 2)
    assert found["stalls"].verdicts == Share(right[2], 50)


def test_an_output_that_breaks_off_is_an_error(all_made: dict[str, Made], where: Setting) -> None:
    with pytest.raises(RuntimeError, match="exit status 2"):
        of_sparkshark("decrypt", all_made["fleet"], ["--no-such-option"], where)
    with pytest.raises(ValueError, match="Unterminated string"):
        correctness([b'{"kind": "mess'], all_made["fleet"].sessions)


def test_streams_of_tcpflow_are_compared_byte_for_byte(all_made: dict[str, Made], tmp_path: Path) -> None:
    """Files as tcpflow names them, from the segments of captures in which nothing is repeated or lost."""
    made = all_made["fleet"]
    for _, frame in frames(made):
        ip = dpkt.ethernet.Ethernet(frame).data
        name = f"{padded(ip.src)}.{ip.data.sport:05}-{padded(ip.dst)}.{ip.data.dport:05}"
        with (tmp_path / name).open("ab") as file:
            file.write(ip.data.data)
    assert of_tcpflow(tmp_path, made.sessions) == {"device": Share(20, 20), "server": Share(20, 20)}
    to_server = sorted(tmp_path.glob("010.*"))
    to_server[0].write_bytes(to_server[0].read_bytes() + b"\0\0")
    to_server[1].unlink()
    assert of_tcpflow(tmp_path, made.sessions) == {"device": Share(18, 20), "server": Share(20, 20)}


def padded(address: bytes) -> str:
    return ".".join(f"{byte:03}" for byte in address)


HOLD = "block = bytearray(60 << 20); import time; time.sleep(0.4)"
BOTH = f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {HOLD!r}]); {HOLD}; child.wait()"


def test_memory_is_that_of_all_processes(where: Setting) -> None:
    alone, both = (held([sys.executable, "-c", script], where) for script in (HOLD, BOTH))
    assert alone is not None
    assert both is not None
    assert 60 < alone.largest / 1024 < 90 > both.largest / 1024 > 60
    assert alone.together < 1.1 * alone.largest
    assert 120 < both.together / 1024 < 180


def test_time_is_that_of_all_processes(where: Setting) -> None:
    spin = "import time\nwhile time.process_time() < 0.3: pass"
    taken = took(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spin!r}])"], where
    )
    assert taken.processor > 0.3
    assert taken.wall > 0.3
    assert rsa_of_logins(20).processor > 0


@pytest.mark.parametrize("run", [took, held])
def test_a_run_that_fails_is_told_with_its_complaint(run: Callable[..., object], where: Setting) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)exit status 1: .*no such thing"):
        run([sys.executable, "-c", "raise SystemExit('no such thing')"], where)


def test_rounds_are_paired() -> None:
    order: list[str] = []

    def run(name: str) -> Took:
        order.append(name)
        return Took(len(order), 0)

    taken = in_rounds({name: partial(run, name) for name in "AB"}, 3)
    assert "".join(order) == "ABABAB"
    assert [one.wall for one in taken["B"]] == [2, 4, 6]
    assert ratios([1, 30, 200], [1, 10, 100]) == (2, 1, 3)


def test_goals_are_judged_by_what_they_ask_for() -> None:
    slow, quick = [Took(6, 30)] * 3, [Took(3, 10)] * 3
    taken = {
        FLEET: {TCPFLOW.says: slow, ONE: slow, TWO: quick, FLOOR: quick},
        LONG_OPENED: {ONE: quick, FOLLOW.says: slow},
    }
    rows = {(row.ours, row.other): row[3:] for row in of_time(taken)}
    assert rows == {
        (TWO, TCPFLOW.says): ("≤ 0.8 × the wall time", "0.5 × (0.5–0.5)", "met"),
        (ONE, FLOOR): ("≤ 2.5 × the processor time", "3 × (3–3)", "**missed**"),
        (TWO, ONE): ("≥ 1.6 × the speed", "2 × (2–2)", "met"),
        (ONE, FOLLOW.says): ("≤ 0.4 × the wall time", "0.5 × (0.5–0.5)", "**missed**"),
        (ONE, NODE): ("≥ 2 × the speed", f"not measured: no {NODE} here", "–"),
    }
    peaks = {
        (name, whole, ONE): Held(mib << 10, mib << 10)
        for name, whole, mib in (("fleet", False, 100), ("fleet", True, 120), ("dead", False, 50), ("dead", True, 54))
    }
    assert [row[3:] for row in of_memory(peaks)] == [
        ("≤ 128 MiB", "120.0 MiB", "met"),
        ("≤ 1.1 × the memory", "1.20 × (100.0 → 120.0 MiB)", "**missed**"),
        ("≤ 1.1 × the memory", "1.08 × (50.0 → 54.0 MiB)", "met"),
    ]


def test_the_page_says_what_failed_and_what_differs() -> None:
    measured = Measured(failed=["*dead*, memory: exit status -9"])
    one = Correctness(Share(9_999, 10_000), Share(0, 0), Share(0, 0), 600_000, "aa")
    measured.correct["fleet"] = {ONE: one, TWO: one._replace(output="bb")}
    text = "\n".join(page(measured))
    assert "**Failed:** *dead*, memory: exit status -9" in text
    assert "9,999 of 10,000" in text
    assert text.count("**differs**") == 2
    assert "](TRIED.md)" in text


def run_command(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.benchmarks.peers", *words]
    environment = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_the_command_writes_the_page_and_takes_the_workloads_that_are_there(tmp_path: Path, where: Setting) -> None:
    kept = make("fleet", tmp_path / "kept" / "fleet-0.001", scale=0.001).captures[0]
    written = kept.stat().st_mtime_ns
    words = ["--scale", "0.001", "--rounds", "1", "--workloads", "fleet", "--folder", str(tmp_path / "kept")]
    done = run_command(*words, "-o", str(tmp_path / "page.md"), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "page.md").read_text()
    assert done.stdout == text
    assert kept.stat().st_mtime_ns == written
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "page.md"}
    assert "`python -m tests.benchmarks.peers --scale 0.001 --rounds 1 --workloads fleet" in text
    assert "**Failed" not in text
    for name in TOOLS:
        assert (f"{name} " in text.splitlines()[4]) == (shutil.which(name) is not None)
    for jobs in jobs_of("decrypt", where):
        assert f"| *fleet*    | {jobs}" in text
    assert "| 10 of 10 " in text
    assert FLOOR in text


def test_the_command_knows_the_workloads(tmp_path: Path) -> None:
    done = run_command("--workloads", "fleet,haystack", folder=tmp_path)
    assert done.returncode == 2
    assert "no workload 'haystack': they are needle, fleet, long, stalls, hostile, dead" in done.stderr


def test_the_truth_is_about_the_bytes(all_made: dict[str, Made]) -> None:
    """The digest of a stream is that of the payloads, where nothing is repeated or lost."""
    made = all_made["long"]
    streams = {"device": hashlib.sha256(), "server": hashlib.sha256()}
    for _, frame in frames(made):
        segment = dpkt.ethernet.Ethernet(frame).data.data
        streams["server" if segment.sport == 5683 else "device"].update(segment.data)
    assert {side: digest.hexdigest() for side, digest in streams.items()} == sessions(made)[0]["streams_sha256"]
