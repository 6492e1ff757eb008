"""Ring buffers and archives: thousands of files are one capture, and one that is missing in the middle is told."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import fleets
import lz4.frame
import pytest
import zstandard
from capture_files import START, payloads, pcap, record
from judging import alarms, codes, the, unchecked
from true_findings import TRUE

from analyzer import analyze
from analyzer.capture import CaptureFile
from analyzer.capture.series import absent_files
from analyzer.findings import Confidence
from analyzer.report import jsonreport
from analyzer.simulate import Conversation, Packet, Simulation, finish, make_world, simulate
from analyzer.simulate.simulation import pcap as written
from analyzer.trace import Trace

ROOT = Path(__file__).parent.parent
NS: Final = 1_000_000_000
Name = Callable[[int, int], str]
Pack = Callable[[int, bytes], tuple[str, bytes]]
"""How a file is called by its number, from 1 on, and the time (ns) of its first packet."""


@cache
def fleet(seed: int = 2) -> Simulation:
    """Six devices that all log in well, stay for some time, and come back now and then."""
    chance, world = random.Random(seed), make_world(seed=seed)
    for _ in range(6):
        device, at = world.add_device(), chance.random() * 60
        for _ in range(chance.randrange(1, 4)):
            at = fleets.works(world, device, at, chance.choice((5.0, 60.0, 200.0, 400.0))).now + chance.random() * 40
    return finish(world)


@cache
def crowd() -> Simulation:
    """Eight devices that stay connected for ten minutes."""
    world = make_world(seed=3)
    for place in range(8):
        fleets.works(world, world.add_device(), place * 0.7, 600.0)
    return finish(world)


def dumpcap(number: int, time_ns: int) -> str:
    time = datetime.fromtimestamp(time_ns // NS, UTC)
    return f"cap_{number:05}_{time:%Y%m%d%H%M%S}.pcap"


def unlike(number: int, time_ns: int) -> str:
    return ("harbour", "abbey", "quarry", "forge", "dale", "inn")[number - 1]


def numbered(head: str) -> Name:
    return lambda number, time_ns: f"{head}_{number:04}.pcap"


def parts(story: Simulation, cuts: Iterable[int]) -> list[Sequence[Packet]]:
    places = [0, *cuts, len(story.packets)]
    return [story.packets[one:other] for one, other in pairwise(places)]


def at_times(story: Simulation, *seconds: float) -> list[int]:
    """Where to cut, so that a file begins at each of these times since the first packet."""
    begin = story.packets[0].time_ns
    return [next(i for i, p in enumerate(story.packets) if p.time_ns >= begin + s * NS) for s in seconds]


def unpacked(number: int, data: bytes) -> tuple[str, bytes]:
    return "", data


def later(packets: Iterable[Packet], ns: int) -> list[Packet]:
    """The same packets, this much later."""
    return [replace(packet, time_ns=packet.time_ns + ns) for packet in packets]


def ring(
    folder: Path,
    story: Simulation,
    cuts: Iterable[int],
    *,
    missing: Iterable[int] = (),
    name: Name = dumpcap,
    pack: Pack = unpacked,
) -> None:
    """Write a story into numbered files, some of which are missing."""
    for number, packets in enumerate(parts(story, cuts), 1):
        if number not in set(missing):
            suffix, data = pack(number, written(packets, story.link_type))
            (folder / (name(number, packets[0].time_ns) + suffix)).write_bytes(data)


def account(trace: Trace) -> dict[str, Any]:
    """All that is said of a capture but the files that it came in."""
    told: dict[str, Any] = json.loads("".join(jsonreport.json_text(trace, redacted=False, show_secrets=False)))
    del told["captures"]
    return told


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What `sparkshark` prints."""
    return subprocess.run(
        [sys.executable, "-m", "analyzer", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        check=False,
    )


# Thousands of files.

READ_A_RING = """
import json, os, resource, sys
opened = {}
def seen(event, arguments):
    if event == "open" and str(arguments[0]).startswith(sys.argv[1]):
        opened[arguments[0]] = opened.get(arguments[0], 0) + 1
sys.addaudithook(seen)
limit = len(os.listdir("/proc/self/fd")) + 24
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
from analyzer import analyze
trace = analyze(sys.argv[2:])
print(json.dumps({
    "files": len(trace.captures), "packets": trace.packets, "warnings": trace.warnings, "gaps": len(trace.gaps.all),
    "conversations": [c.reached for c in trace.conversations],
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "opened": max(opened.values()), "known": len(opened),
}))
"""


def read_ring(folder: Path, *paths: str) -> dict[str, Any]:
    """What another process says of a ring that it reads with few files open."""
    run = subprocess.run(
        [sys.executable, "-c", READ_A_RING, str(folder), *paths],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    told: dict[str, Any] = json.loads(run.stdout)
    return told


@pytest.fixture(scope="module")
def thousands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ring of 3,000 files that one session runs through, with other traffic around it."""
    folder = tmp_path_factory.mktemp("thousands")
    story = simulate("healthy")
    files = 3_000
    cuts = [len(story.packets) * n // files for n in range(files + 1)]
    for number in range(files):
        own = [(p.time_ns, p.data) for p in story.packets[cuts[number] : cuts[number + 1]]]
        begin = story.packets[max(0, cuts[number] - 1)].time_ns
        data = pcap([]) + b"".join(
            record(data, time_ns // NS, time_ns % NS // 1000) for time_ns, data in own or [(begin, payloads(1)[0])]
        )
        (folder / dumpcap(number + 1, begin)).write_bytes(data)
    return folder


def test_three_thousand_files_are_one_capture(thousands: Path) -> None:
    story = simulate("healthy")
    for path in (str(thousands), f"{thousands}/cap_*.pcap"):
        told = read_ring(thousands, path)
        assert told["files"] == told["known"] == 3_000
        assert told["packets"] >= len(story.packets)
        assert told["conversations"] == ["established"]
        assert (told["warnings"], told["gaps"]) == ([], 0)
        assert told["opened"] <= 2, "once for the order, once to read it"


def test_memory_does_not_grow_with_the_number_of_files(thousands: Path) -> None:
    few = sorted(str(path) for path in thousands.iterdir())[:100]
    grown = read_ring(thousands, str(thousands))["peak"] - read_ring(thousands, *few)["peak"]
    assert grown < 8_192, f"{grown} KiB for 2,900 files more"


def test_of_thousands_each_missing_one_is_counted(thousands: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(thousands.iterdir()), 1):
        if number % 10:
            (tmp_path / path.name).symlink_to(path)
    trace = analyze([tmp_path])
    assert len(trace.gaps.all) == 299, "the last one lies at the end"
    assert trace.warnings[-1] == "295 further gaps between files of this capture."
    assert len(trace.warnings) == 5
    assert the(trace, "SPK703").evidence[-1].text == "295 further gaps."


# One capture in many files is the same as in one.


def packed(number: int, data: bytes) -> tuple[str, bytes]:
    """As archives are: each file packed in another way, some not yet."""
    zst = zstandard.ZstdCompressor().compress
    ways: Sequence[tuple[str, Callable[[bytes], bytes]]] = (
        ("", bytes),
        (".gz", gzip.compress),
        (".zst", zst),
        (".xz", lzma.compress),
        (".lz4", lz4.frame.compress),
        (".bz2", bz2.compress),
    )
    suffix, way = ways[number % len(ways)]
    return suffix, way(data)


@pytest.mark.parametrize("pack", [unpacked, packed])
def test_conversations_cross_any_number_of_files(tmp_path: Path, pack: Pack) -> None:
    story = fleet()
    (tmp_path / "whole").mkdir()
    ring(tmp_path / "whole", story, [])
    (tmp_path / "ring").mkdir()
    ring(tmp_path / "ring", story, range(20, len(story.packets), 20), pack=pack)
    assert len(os.listdir(tmp_path / "ring")) > 30
    told = analyze([tmp_path / "ring"])
    assert account(told) == account(analyze([tmp_path / "whole"]))
    assert told.warnings == []


def test_two_rings_side_by_side_are_merged(tmp_path: Path) -> None:
    """Two interfaces, each into a ring of its own, with borders at different times."""
    story = fleet()
    ends = sorted({p.data[26:34] for p in story.packets if len(p.data) > 34})
    first = [p for p in story.packets if p.data[26:34] in ends[::2]]
    second = [p for p in story.packets if p.data[26:34] not in ends[::2]]
    for name, packets, step in (("left", first, 23), ("right", second, 37)):
        half = Simulation("half", packets, story.link_type, {})
        ring(tmp_path, half, range(step, len(packets), step), name=numbered(name))
    trace = analyze([tmp_path])
    (tmp_path / "whole").mkdir()
    ring(tmp_path / "whole", story, [])
    whole = analyze([tmp_path / "whole"])
    assert [c.reached for c in trace.conversations] == [c.reached for c in whole.conversations]
    assert (codes(trace), trace.warnings) == (codes(whole), [])


# Which numbers are missing: by names and times alone.


def files(*described: tuple[str, float, float] | str) -> list[CaptureFile]:
    """Files with the seconds that they span, in the order of reading; a name alone is a file without packets."""
    found, number = [], 1
    for one in described:
        if isinstance(one, str):
            found.append(CaptureFile(one))
            continue
        path, first, last = one
        times = (round((START + first) * NS), round((START + last) * NS))
        found.append(CaptureFile(path, first_number=number, packets=5, first_ns=times[0], last_ns=times[1]))
        number += 5
    return found


def minutes(*names: str) -> list[CaptureFile]:
    """Files that are full after a minute, one after another; "" is one that is missing."""
    return files(*((name, 60.0 * place, 60.0 * place + 59) for place, name in enumerate(names) if name))


def said(found: list[CaptureFile]) -> list[tuple[int, str]]:
    return [(absent.count, absent.names) for absent in absent_files(found)]


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (("c_00006_20150101120000.pcapng", "", "c_00008_20150101120200.pcapng"), [(1, "c_00007_*.pcapng")]),
        (("c_20150101120000_00006.pcapng", "", "c_20150101120200_00008.pcapng"), [(1, "c_*_00007.pcapng")]),
        (("d/c_00001_20150101120000", "", "", "d/c_00004_20150101120300"), [(2, "c_00002_* to c_00003_*")]),
        (("a.pcap", "a.pcap1", "", "a.pcap3"), [(1, "a.pcap2")]),
        (("a.pcap", "", "a.pcap2", "a.pcap3"), [(1, "a.pcap1")]),
        (("cap2.pcap8", "cap2.pcap9", "", "cap2.pcap11"), [(1, "cap2.pcap10")]),
        (("a08", "a09", "", "a11"), [(1, "a10")]),
        (("a3", "a4", "a0", "", "a2"), [(1, "a1")]),
        (("a_0001.pcap.gz", "a_0002.pcap.gz", "", "a_0004.pcap"), [(1, "a_0003.pcap")]),
        (("a.pcap.4.gz", "", "a.pcap.2.gz", "a.pcap.1", "a.pcap"), [(1, "a.pcap.3")]),
        (("a.pcap.3.gz", "a.pcap.2.gz", "", "a.pcap"), [(1, "a.pcap.1")]),
        (("a-2015-001", "a-2015-002", "", "a-2015-004"), [(1, "a-2015-003")]),
        (("a1", "a2", "", "a4", "a5", "", "", "a8"), [(1, "a3"), (2, "a6 to a7")]),
        (("eth_1", "eth_2", "", "eth_4", "wlan_1"), [(1, "eth_3")]),
    ],
)
def test_a_number_that_is_skipped_is_a_missing_file(names: tuple[str, ...], missing: list[tuple[int, str]]) -> None:
    assert said(minutes(*names)) == missing


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(minutes(*(f"c_{n:05}_20150101120000.pcapng" for n in range(4, 9))), id="a ring of five"),
        pytest.param(minutes("a3", "a4", "a0", "a1", "a2"), id="numbers that wrap"),
        pytest.param(minutes("", "a2", "a3", ""), id="at the ends"),
        pytest.param(minutes("a3", "a0", "a1", "a2"), id="where it wraps"),
        pytest.param(minutes("x_1", "y_1", "x_2", "y_2", "x_3", "y_3"), id="two series"),
        pytest.param(minutes("a_2015-01-01.pcap", "a_2015-01-02.pcap", "a_2015-01-04.pcap"), id="hand-made, by date"),
        pytest.param(minutes("a_20150101_1201", "a_20150101_1202", "a_20150101_1204"), id="times behind a date"),
        pytest.param(minutes("a_20150101.pcap", "a_20150102.pcap", "a_20150104.pcap"), id="dates"),
        pytest.param(minutes("a_20150101120000", "a_20150101120100", "a_20150101120300"), id="tcpdump -G"),
        pytest.param(minutes("a1", "a3", "a5"), id="every other"),
        pytest.param(minutes("a1", "a2", "a10", "a100", "a500"), id="labels"),
        pytest.param(files(("a1", 0, 9), "a2", ("a3", 120, 129)), id="no packet in it"),
        pytest.param(files(("a1", 0, 9), ("a2", 1, 8), ("a4", 2, 9)), id="at the same time"),
        pytest.param(files(("a1", 0, 9), ("a2", 90_000, 90_009), ("a4", 95_000, 95_009)), id="days apart"),
        pytest.param(files(("c_00001_20150101120000", 50, 90), ("c_00003_20150101120000", 60, 99)), id="overlapping"),
        pytest.param(
            minutes(*(f"c_{n:05}_20150101120000" for n in (1, 2, 3)), *(f"c_{n:05}_20150102120000" for n in (1, 2, 3))),
            id="two runs",
        ),
        pytest.param(
            [
                CaptureFile(f"a_{hour:02}.pcap", "pcap", 1 + hour * 5, 5, first_ns=time, last_ns=time + 3_500 * NS)
                for hour in (7, 8, 9, 12)
                for time in (round(datetime(2015, 1, 1, hour - 1, tzinfo=UTC).timestamp()) * NS,)
            ],
            id="hours of the day, quiet ones left out",
        ),
    ],
)
def test_other_numbers_say_nothing(found: list[CaptureFile]) -> None:
    assert said(found) == []


def test_a_clock_that_is_damaged_is_no_error() -> None:
    late = 253_402_300_799_999_999_999
    found = [
        *minutes("a1", "a2"),
        CaptureFile("a4", "pcap", 11, 5, first_ns=late, last_ns=late),
    ]
    assert said(found) == [(1, "a3")]


# A file that is missing in the middle.


def test_a_missing_file_is_told_everywhere(tmp_path: Path) -> None:
    ring(tmp_path, crowd(), at_times(crowd(), 120, 240, 360, 480), missing=[3])
    run = command("analyze", "cap_*.pcap", cwd=tmp_path)
    before, after = sorted(os.listdir(tmp_path))[1:3]
    line = f"cap_00003_*.pcap: missing between {before} and {after}."
    assert run.stderr.startswith(f"sparkshark: warning: {line} The capture has nothing between packets ")
    assert "all 8 connections open then lack bytes" in run.stderr
    assert run.stdout.startswith("✓ WORKING")
    flat = " ".join(run.stdout.split())
    assert line in flat
    assert "the capture has a gap there" in flat
    markdown = command("analyze", "--format", "markdown", "cap_*.pcap", cwd=tmp_path).stdout
    assert "cap\\_00003\\_\\*.pcap: missing between" in markdown
    told = json.loads(command("analyze", "--format", "json", ".", cwd=tmp_path).stdout)
    (finding,) = (f for f in told["findings"] if f["code"] == "SPK703" and f["device"] is None)
    assert finding["summary"] == "The capture has a gap: 1 file of it is missing."
    assert finding["confidence"] == "certain"
    first, second = finding["packets"]
    assert second == first + 1 == told["captures"][2]["first_number"]


def test_without_packets_of_ours_the_names_alone_tell(tmp_path: Path) -> None:
    for number in (1, 2, 4):
        data = pcap(payloads(10), start=START + 10 * number)
        (tmp_path / dumpcap(number, (START + 10 * number) * NS)).write_bytes(data)
    trace = analyze([tmp_path])
    assert the(trace, "SPK703").confidence is Confidence.STRONG
    assert "lack" not in trace.warnings[0]


def test_files_that_editcap_cut(tmp_path: Path) -> None:
    story = fleet()
    (tmp_path / "whole.pcap").write_bytes(written(story.packets, story.link_type))
    (tmp_path / "ring").mkdir()
    subprocess.run(["editcap", "-c", "100", "whole.pcap", "ring/part.pcap"], cwd=tmp_path, check=True)
    named = sorted((tmp_path / "ring").iterdir())
    assert analyze([tmp_path / "ring"]).gaps.all == []
    named[2].unlink()
    (gap,) = analyze([tmp_path / "ring"]).gaps.all
    assert (gap.files, gap.names, gap.before, gap.packet) == (1, "part_00002_*.pcap", 200, 201)


@pytest.mark.parametrize("seed", range(8))
def test_no_missing_file_makes_a_healthy_fleet_ill(seed: int, tmp_path: Path) -> None:
    story, chance = fleet(seed), random.Random(seed)
    for trial in range(12):
        folder = tmp_path / str(trial)
        folder.mkdir()
        ring(folder, story, sorted(chance.sample(range(1, len(story.packets)), 2)), missing=[2])
        trace = analyze([folder])
        assert len(trace.gaps.all) == 1
        assert not alarms(trace), [(f.code, f.summary, f.evidence) for f in trace.findings]


@pytest.mark.parametrize(
    "name",
    [
        *("healthy-idle", "planned-reconnects", "clone", "keepalive-lost", "dns-second-try", "http-late"),
        *("two-devices", "device-silent", "forgotten", "timed-out", "no-nonce", "ota-stalls", "retries"),
    ],
)
def test_a_gap_makes_nothing_worse_than_it_is(name: str, tmp_path: Path) -> None:
    story, chance = simulate(name, attempts=20 if name == "retries" else None), random.Random(name)
    for trial in range(12):
        folder = tmp_path / str(trial)
        folder.mkdir()
        ring(folder, story, sorted(chance.sample(range(1, len(story.packets)), 2)), missing=[2])
        assert alarms(analyze([folder])) <= TRUE[name].bare


def test_what_a_gap_hides_is_not_checked(tmp_path: Path) -> None:
    """A device that has just dialled, a session that is open, and nothing of either behind the gap."""
    story = fleet()
    (dialled,) = (i for i, p in enumerate(story.packets) if p is next(x for x in story.packets if x.label == "syn-ack"))
    ring(tmp_path, story, [dialled, len(story.packets) - 5], missing=[2])
    trace = analyze([tmp_path])
    assert not alarms(trace)
    assert "SPK101" in unchecked(trace)
    assert any(item.because.startswith("The capture has a gap ") for item in trace.not_checked)


def test_a_login_whose_beginning_is_in_the_gap_is_not_judged(tmp_path: Path) -> None:
    """All that comes of it behind the gap is what the server repeats: greeting and reply in one packet."""
    world = make_world(seed=5)
    fleets.works(world, world.add_device(), 0.0, 20.0)
    c = Conversation(world, world.add_device(), at=30.0)
    c.connect()
    c.nonce()
    c.identity()
    c.offer()
    c.tcp.retransmit("server", 424, [0.4], delivered=True, label="again")
    story = finish(world)
    again = next(i for i, p in enumerate(story.packets) if p.label == "again")
    dialled = max(i for i, p in enumerate(story.packets) if p.label == "syn")
    ring(tmp_path, story, [dialled, again], missing=[2])
    assert not alarms(analyze([tmp_path]))


def test_a_repeat_behind_the_gap_does_not_keep_a_session_alive(tmp_path: Path) -> None:
    """Its end lies in the gap; then comes one packet more, which had been lost on the way."""
    world = make_world(seed=5)
    fleets.works(world, world.add_device(), 0.0, 20.0)
    fleets.works(world, world.add_device(), 30.0, 200.0)
    packets = finish(world).packets
    dialled = max(i for i, p in enumerate(packets) if p.label == "syn")
    last = max(i for i, p in enumerate(packets[:dialled]) if p.label == "ping")
    stray = replace(packets[last], time_ns=packets[dialled].time_ns - 1)
    story = Simulation("stray", [*packets[:dialled], stray, *packets[dialled:]], finish(world).link_type, {})
    ring(tmp_path, story, [last, dialled], missing=[2])
    trace = analyze([tmp_path])
    assert trace.conversations[0].last_packet == trace.gaps.all[0].packet
    assert not alarms(trace)


def test_a_failure_outside_the_gap_is_still_one(tmp_path: Path) -> None:
    story = simulate("retries", attempts=30)
    third = len(story.packets) // 3
    ring(tmp_path, story, [third, 2 * third], missing=[2])
    assert "SPK204" in alarms(analyze([tmp_path]))


def test_a_session_found_behind_a_gap_did_not_begin_before_the_capture(tmp_path: Path) -> None:
    story = fleet()
    packets = story.packets
    logins = [i for i, p in enumerate(packets) if p.label == "syn"]
    ring(tmp_path, story, [logins[5] - 1, logins[5] + 20], missing=[2])
    told = [f.summary for f in analyze([tmp_path]).findings if f.code == "SPK701"]
    assert told
    assert all("went on behind its gap" in summary for summary in told)


def test_another_series_shows_what_went_on_meanwhile(tmp_path: Path) -> None:
    """Only what was captured into the series that lacks a file is hidden by it."""
    story, lost = crowd(), simulate("keepalive-lost")
    ring(tmp_path, story, at_times(story, 30, 200, 400), missing=[2], name=numbered("left"))
    moved = later(lost.packets, story.packets[0].time_ns - lost.packets[0].time_ns)
    ring(tmp_path, Simulation("right", moved, lost.link_type, {}), [5], name=numbered("right"))
    trace = analyze([tmp_path])
    (gap,) = trace.gaps.all
    assert gap.own
    assert "SPK503" in alarms(trace), "it came and went in the other series"


# The same without names: by what all connections lack at one border.


def test_bytes_that_all_connections_lack_at_a_border_are_a_gap(tmp_path: Path) -> None:
    ring(tmp_path, crowd(), at_times(crowd(), 120, 240, 360), missing=[2], name=unlike)
    trace = analyze([tmp_path])
    (gap,) = trace.gaps.all
    assert (gap.files, gap.live, gap.torn) == (0, 8, 8)
    assert trace.warnings[0].startswith("harbour: packets are missing between harbour and quarry.")
    finding = next(f for f in trace.findings if f.code == "SPK703" and f.device is None)
    assert finding.summary == "The capture has a gap, between two of its files."
    assert not alarms(trace)


def test_a_single_connection_that_lacks_bytes_is_no_gap(tmp_path: Path) -> None:
    story = crowd()
    (cut,) = at_times(story, 200)
    near = range(cut - 40, cut + 40)
    one = story.packets[cut].data[26:34]
    ends = {one, one[4:] + one[:4]}
    kept = [p for i, p in enumerate(story.packets) if i not in near or p.data[26:34] not in ends]
    cut -= sum(p.data[26:34] in ends for i, p in enumerate(story.packets) if i in near and i < cut)
    ring(tmp_path, Simulation("lossy", kept, story.link_type, {}), [cut], name=unlike)
    trace = analyze([tmp_path])
    assert sum(bool(c.holes) for c in trace.conversations) == 1
    assert trace.gaps.all == []


def test_a_quiet_network_is_no_gap(tmp_path: Path) -> None:
    story = crowd()
    (cut,) = at_times(story, 200)
    packets = [*story.packets[:cut], *later(story.packets[cut:], 3_600 * NS)]
    ring(tmp_path, Simulation("quiet", packets, story.link_type, {}), [cut])
    trace = analyze([tmp_path])
    assert trace.duration_ns > 3_600 * NS
    assert trace.gaps.all == []
