"""Each bound, hit: the run ends, says so, and a healthy session beside the attack is still called healthy.

The attacks are those of `attacks`, small; the bounds are lowered to meet them. Work is counted in calls and bytes.
"""

from __future__ import annotations

import ast
import cProfile
import pstats
import re
import struct
import zlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from attacks import around, files, keyfiles, opened, outputs, scene, tcp
from attacks.model import ATTACKS
from attacks.run import bound_of

from analyzer import KeyRing, analyze
from analyzer.capture import ledger as ledgers
from analyzer.capture import source as sources
from analyzer.capture.source import Source, Window
from analyzer.cli import main
from analyzer.commands import analyze as analyze_command
from analyzer.commands import explain
from analyzer.jobs import analyze as analyze_together
from analyzer.keys import keylog, ring
from analyzer.limits import BY_NAME, COUNTED, TOLD, Limit
from analyzer.report import verdict as verdicts
from analyzer.report.past import Times, past_of_all
from analyzer.trace import Trace

ROOT = Path(__file__).resolve().parents[1]
Build = Callable[[Path, int], object]


def announced_often(folder: Path, n: int) -> None:
    from analyzer.simulate.messages import presence  # noqa: PLC0415

    with scene.scene(folder / "a.pcap", n) as made:
        for _ in range(n):
            made.add(scene.udp(scene.ATTACKER, 5683, bytes((224, 0, 1, 187)), 5683, presence(bytes(12))))


HITS: dict[str, tuple[Build, int, dict[str, int]]] = {
    "lookups": (around.names, 40, {"background.LOOKUPS": 4}),
    "lookup packets": (around.answers, 40, {"background.LOOKUP_PACKETS": 5}),
    "announcers": (around.announcements, 20, {"background.ANNOUNCERS": 3}),
    "announcements": (announced_often, 20, {"background.ANNOUNCEMENTS": 3}),
    "questions": (around.asked_for, 60, {"background.QUESTIONS": 3}),
    "complaints": (around.asked_for, 60, {"background.COMPLAINTS": 3}),
    "machines": (around.asked_for, 60, {"background.MACHINES": 3}),
    "flows": (around.other_ports, 40, {"background.FLOWS": 3}),
    "fragments": (around.fragments, 50, {"network.fragments.MAX_WAITING": 5}),
    "layers": (around.tunnels, 5, {}),
    "interfaces": (files.sections, 20, {"capture.pcapng.MOST_INTERFACES": 5}),
    "clock": (files.clock_extremes, 60, {}),
    "session keys": (keyfiles.log_without_nonces, 20, {"session.frames.MOST_CANDIDATES": 3}),
    "key tries": (tcp.random_logins, 6, {"session.opening.MOST_TRIES": 1}),
}


def lower(monkeypatch: pytest.MonkeyPatch, bounds: dict[str, int]) -> None:
    for constant, value in bounds.items():
        module, _, name = constant.rpartition(".")
        monkeypatch.setattr(import_module(f"analyzer.{module}"), name, value)


def read(folder: Path, name: str) -> Trace:
    """The trace of what was built, with the keys that its attack is about."""
    if name == "session keys":
        return analyze(ROOT / "captures" / "healthy-full.pcap", keys=KeyRing.load(keylogs=[folder / "keys.log"]))
    keys = KeyRing.load(ROOT / "captures" / "keys") if name == "key tries" else None
    (capture,) = folder.glob("a.pcap*")
    return analyze(capture, keys=keys)


def codes_of_bystander(trace: Trace) -> set[str]:
    (own,) = [c.number for c in trace.conversations if c.device.ip == scene.DEVICE]
    return {f.code for f in trace.findings if own in f.conversations}


@pytest.mark.parametrize("name", HITS)
def test_a_bound_that_was_reached_is_told_and_the_healthy_session_stays_healthy(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build, n, bounds = HITS[name]
    build(tmp_path, n)
    before = read(tmp_path, name)
    lower(monkeypatch, bounds)
    trace = read(tmp_path, name)
    limit = BY_NAME[name]
    start = limit.says.split("{")[0]
    told = [item for item in trace.not_checked if item.because.startswith(start)]
    assert [item.code for item in told] == [limit.code]
    assert re.search(r"[1-9]", told[0].because)
    assert not bounds or not [item for item in before.not_checked if item.because.startswith(start)]
    assert "SPK001" in codes_of_bystander(trace)
    if name not in ("session keys", "key tries"):
        (capture,) = tmp_path.glob("a.pcap*")
        assert main(["analyze", str(capture)]) == 0
        assert start[:30] in capsys.readouterr().out


def test_every_bound_that_is_counted_has_such_a_test() -> None:
    assert set(HITS) == {limit.name for limit in COUNTED}


def test_what_is_left_out_has_a_sentence() -> None:
    sources_ = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "analyzer").rglob("*.py"))
    counted = re.findall(r'(?:left_out|counts)\["([\w ]+)"\]', sources_)
    assert set(counted) == {limit.name for limit in COUNTED}


def test_several_processes_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from analyzer.jobs import plan  # noqa: PLC0415

    around.names(tmp_path, 900)
    monkeypatch.setattr(plan, "SMALL", 0)
    monkeypatch.setattr(plan, "SMALL_AND_SPARSE", 0)
    one, two = (analyze_together(tmp_path / "a.pcap", jobs=jobs) for jobs in (1, 2))
    assert one.not_checked == two.not_checked
    assert any(item.because.startswith("Further name lookups: 644 packets") for item in one.not_checked)


def test_a_small_capture_reaches_no_bound() -> None:
    starts = tuple(limit.says.split("{")[0] for limit in COUNTED)
    for capture in sorted((ROOT / "captures").glob("*.pcap")):
        trace = analyze(capture, keys=KeyRing.load(ROOT / "captures" / "keys"))
        assert not [item for item in trace.not_checked if item.because.startswith(starts)]


# -- the page of them -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", BY_NAME.values(), ids=BY_NAME)
def test_explain_tells_value_and_reason_of_each(limit: Limit, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "limits", "--width", "120"]) == 0
    page = capsys.readouterr().out
    assert f"\n{limit.name}: {limit.value:,}\n" in page
    assert len(limit.reason) > 15
    assert limit.reason[:60].rsplit(" ", 1)[0] in " ".join(page.split())
    assert (limit.says and "{" in limit.says) or limit in TOLD or limit.name == "clock"


BOUND = re.compile(r"_?(MOST|LARGEST|LONGEST|MAX(?!_AGE$)|DEEPEST|FARTHEST|PENDING|REMEMBERED)_")


def test_every_bound_has_its_reason_below_it() -> None:
    lacking = []
    for path in (ROOT / "analyzer").rglob("*.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for place, constant in enumerate(body):
            if not isinstance(constant, ast.AnnAssign) or not isinstance(constant.target, ast.Name):
                continue
            if not BOUND.match(constant.target.id) or not isinstance(constant.value, ast.Constant | ast.BinOp):
                continue
            following = next((other for other in body[place:] if not isinstance(other, ast.AnnAssign)), None)
            if not isinstance(following, ast.Expr):
                lacking.append(f"{path.name}: {constant.target.id}")
    assert lacking == []


def test_every_attack_names_a_bound_that_there_is() -> None:
    assert all(bound_of(attack.bound)[1] for attack in ATTACKS.values())
    assert {f"analyze-{form}" for form in analyze_command.FORMATS} <= set(ATTACKS)
    assert ATTACKS["redact"].says == outputs.SAYS


# -- the bounds that are told in other ways -------------------------------------------------------------------


def test_a_file_that_grows_is_read_as_far_as_it_went_at_first(tmp_path: Path) -> None:
    capture = tmp_path / "a.pcap"
    tcp.out_of_order(tmp_path, 6_000)
    data = capture.read_bytes()
    capture.write_bytes(data[:-20])  # its last packet is being written

    def grow(*_: object) -> None:
        with capture.open("ab") as file:
            file.write(data[-20:] + data[24:])

    trace = analyze(capture, progress=grow)
    assert trace.captures[0].bytes == len(data) - 20
    assert codes_of_bystander(trace) >= {"SPK001"}
    assert trace.captures[0].damage == []
    assert any("grew while it was read; analysed as far as it went at first" in line for line in trace.warnings)


@pytest.mark.parametrize("suffix", ["gz", "xz", "bz2", "zst", "lz4"])
def test_what_is_packed_may_become_only_so_much(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = {"gz": "gzip", "bz2": "bzip2", "zst": "zstd"}.get(suffix, suffix)
    monkeypatch.setattr(sources, "ALWAYS_UNPACKED", 2 << 20)
    monkeypatch.setattr(sources, "MOST_TIMES", 20)
    builds = {"gz": files.bomb_gzip, "xz": files.bomb_xz, "bz2": files.bomb_bzip2}
    build = {**builds, "zst": files.bomb_zstd, "lz4": files.bomb_lz4}[suffix]
    build(tmp_path, 6)
    trace = analyze(tmp_path / f"a.pcap.{suffix}")
    assert trace.captures[0].damage[-1].what == f"the {name} data unpacks to 20 times its size"
    if suffix != "zst":  # whose library gives it all at once
        assert trace.captures[0].bytes <= (2 << 20) + (1 << 18)
    assert codes_of_bystander(trace) >= {"SPK001"}


def test_holes_that_are_not_listed_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tcp.holes(tmp_path, 60)
    told = analyze(tmp_path / "a.pcap")
    lower(monkeypatch, {"conversation.HOLES": 5})
    assert [e.text for f in analyze(tmp_path / "a.pcap").findings if f.code == "SPK703" for e in f.evidence][-1] == [
        e.text for f in told.findings if f.code == "SPK703" for e in f.evidence
    ][-1]


def test_a_key_log_that_is_too_long_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "LARGEST_KEY_LOG", 1 << 20)
    keyfiles.key_log(tmp_path, 6_000, "SPARK_SESSION {number} {number}\n")
    keys = KeyRing.load(keylogs=[tmp_path / "keys.log"])
    assert any("keys.log: longer than 1 MiB; the rest was not read." in line for line in keys.warnings)
    assert len(keys.session_keys) == (1 << 20) // 176


def test_a_line_of_a_key_log_is_read_as_far_as_it_can_make_sense() -> None:
    nonce, key = "11" * 40, "22" * 40
    text = f"SPARK_SESSION {nonce} {key} # {'x' * 100_000}\r\n" + "x " * 100_000 + f"\rSPARK_SESSION - {key}\n"
    log = keylog.read_key_log(text)
    assert list(log.by_nonce) == [bytes.fromhex(nonce)]
    assert len(log.without_nonce) == 1
    assert [number for number, _ in log.bad_lines] == [2]


def test_a_search_for_a_row_says_where_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    capture = str(ROOT / "captures" / "healthy-full.pcap")
    for bound in ({"MOST_SEGMENTS": 20}, {"MOST_SEARCHED": 900}):
        with monkeypatch.context() as patch:
            for name, value in bound.items():
                patch.setattr(explain, name, value)
            assert main(["explain", "--wireshark", "Unknown 16", capture]) == 0
            assert re.search(r"Searched: the first \d+ packets with data|tried the first \d+", capsys.readouterr().out)
    assert main(["explain", "--wireshark", "Unknown 16", capture]) == 0
    assert "Searched" not in capsys.readouterr().out


def test_names_of_interfaces_are_remembered_in_part(tmp_path: Path) -> None:
    from analyzer.capture.pcapng import LONGEST_NAME, InterfaceNumbers, Section, _interface  # noqa: PLC0415

    numbers = InterfaceNumbers()
    body = struct.pack("<HHI", 1, 0, 0) + files.option(2, b"x" * 65_000)
    assert _interface(body, Section(), numbers) is not None
    assert [len(name) for _, name in numbers.known] == [LONGEST_NAME]


def test_damage_is_listed_so_far_and_no_farther(tmp_path: Path) -> None:
    files.damage(tmp_path, 50)
    trace = analyze(tmp_path / "a.pcapng")
    assert len(trace.captures[0].damage) == ledgers.MOST_DAMAGE + 1
    assert "SPK001" in codes_of_bystander(trace)


# -- work grows with the size, and no faster ------------------------------------------------------------------


def calls(what: Callable[[], object]) -> int:
    """How many functions are called, those of C included."""
    profile = cProfile.Profile()
    profile.runcall(what)
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


def growth(build: Build, folder: Path, n: int) -> float:
    """How many times the calls that four times the size takes."""
    counts = []
    for size in (n, 4 * n):
        build(folder, size)
        counts.append(calls(lambda: analyze(folder / "a.pcap")))
    return counts[1] / counts[0]


@pytest.mark.parametrize("build", [tcp.doubted, tcp.by_turns, tcp.same_port], ids=["doubted", "by turns", "one port"])
def test_more_connections_than_are_held_ready(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lower(monkeypatch, {"tracker.READY": 20, "tracker.ROOM": 4, "tracker.DOUBTS": 5})
    assert growth(build, tmp_path, 30) < 5


def test_connections_in_doubt_are_stored_like_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from analyzer.conversation import Conversation  # noqa: PLC0415
    from analyzer.tracker import Tracker  # noqa: PLC0415

    lower(monkeypatch, {"tracker.READY": 20, "tracker.ROOM": 4, "tracker.DOUBTS": 5})
    most = 0

    def hold(self: Tracker, conversation: Conversation) -> None:
        nonlocal most
        whole(self, conversation)
        most = max(most, len(self._awake))

    whole = Tracker._hold
    monkeypatch.setattr(Tracker, "_hold", hold)
    tcp.doubted(tmp_path, 100)
    trace = analyze(tmp_path / "a.pcap")
    assert most <= 20 + 5
    assert len(trace.conversations) == 101
    assert "SPK001" in codes_of_bystander(trace)


def test_what_many_devices_share_is_put_into_words_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tcp.doubted(tmp_path, 40)
    trace = analyze(tmp_path / "a.pcap")
    told = []

    def past(*arguments: object) -> str:
        told.append(arguments)
        return past_of_all(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(verdicts, "past_of_all", past)
    verdict = verdicts.verdict_of(trace)
    assert len({id(s.together) for s in verdict.stories if s.together is not None}) == 1
    lines = verdicts.histories_in_words(verdict, Times.of(trace))
    assert len(told) == 1
    assert sum("devices" in line for line in lines) == 1


def test_blocks_inside_each_other_are_not_moved_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = tmp_path / "a.pcapng"
    capture.write_bytes(
        files.SECTION + files.interface() + (struct.pack("<II", 6, 1 << 20) + bytes(56)) * 30_000 + files.healthy()
    )
    moved, whole = 0, Window.fetch

    def fetch(self: Window, at: int, length: int) -> None:
        nonlocal moved
        moved += self.end - at
        whole(self, at, length)

    monkeypatch.setattr(Window, "fetch", fetch)
    trace = analyze(capture)
    assert moved < 30 * capture.stat().st_size
    assert "SPK001" in codes_of_bystander(trace)


def test_many_keys_of_one_nonce_are_compared_once_each() -> None:
    line = "SPARK_SESSION " + "11" * 40 + " {:080x}\n"
    counts = [calls(lambda n=n: keylog.read_key_log("".join(map(line.format, range(n))))) for n in (100, 400)]  # type: ignore[misc]
    assert counts[1] < 4.2 * counts[0]


def test_whether_the_firmware_reads_a_key_is_looked_up_and_not_searched(tmp_path: Path) -> None:
    counts = []
    for n in (40, 160):
        folder = tmp_path / str(n)
        folder.mkdir()
        keyfiles.key_files(folder, n)
        keys = KeyRing.load(folder / "keys")
        counts.append(calls(lambda keys=keys: [keys.firmware_reading(key) for key in keys.device_keys]))  # type: ignore[misc]
    assert counts[1] < 4.5 * counts[0]


def test_a_piece_that_unpacks_to_very_much_is_handed_out_without_copying_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    path.write_bytes(packer.compress(bytes(1 << 20)) + packer.flush())
    source = Source(str(path), block=1 << 18)
    room = memoryview(bytearray(1000))
    assert source.into(room) == 1000
    assert isinstance(source._rest, memoryview)
    assert source._rest.obj is not None
    assert sum(iter(lambda: source.into(room), 0)) == (1 << 20) - 1000
    source.close()


def test_descriptions_without_end_are_no_trouble(tmp_path: Path) -> None:
    opened.descriptions(tmp_path, 12)
    trace = analyze(tmp_path / "a.pcap", keys=KeyRing.load(tmp_path / "keys"))
    problems = {
        m.values.get("problem") for c in trace.conversations for m in c.messages if m.name == "DescribeResponse"
    }
    assert {"not JSON", "nested deeper than 16"} <= problems
