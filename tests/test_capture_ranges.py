"""Ranges of a file that are read apart and joined say the same as one reading."""

from __future__ import annotations

import gzip
import pickle
import random
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from capture_files import (
    START,
    block,
    enhanced,
    interface,
    old,
    option,
    payloads,
    pcap,
    pcap_header,
    pcapng,
    record,
    section,
    simple,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.capture import Capture, CaptureError, CaptureFile, Packet
from analyzer.capture.ledger import Entry, Ledger
from analyzer.capture.ranges import RangeReader, split

Reading = tuple[list[Packet], CaptureFile, list[str]]


def at_once(path: Path) -> Reading:
    capture = Capture([str(path)])
    packets = list(capture)
    return packets, capture.files[0], capture.warnings


def joined(path: Path, ranges: list[tuple[int, int | None]]) -> tuple[Reading, int]:
    """What ranges say together, and how many had to be read again."""
    file = CaptureFile(str(path), packets=0)
    warnings: list[str] = []
    packets: list[Packet] = []
    used: set[int] = set()
    ledger: Ledger | None = None
    again, before = 0, None
    for begin, end in ranges:
        if before is not None and end is not None and before.offset >= end:
            continue
        entries: list[Entry] = []
        reader = RangeReader(str(path), begin, end)
        reader.ledger.told = entries.append
        found = list(reader.packets)
        if before is not None and not reader.goes_on_from(before):
            again += 1
            reader.close()
            entries.clear()
            reader = RangeReader(str(path), pickle.loads(pickle.dumps(before)), end)  # noqa: S301
            reader.ledger.told = entries.append
            found = list(reader.packets)
        ledger = ledger or Ledger(file, reader.source, warnings)
        first = ledger.number - 1
        packets += [replace(packet, number=first + packet.number) for packet in found]
        for entry in entries:
            ledger.again(entry, first)
        ledger.number = first + reader.ledger.number
        used |= reader.ledger.interfaces
        own = reader.file
        file.format, file.time_digits = own.format, max(file.time_digits, own.time_digits)
        file.packets += own.packets
        file.bytes += own.bytes
        file.link_types |= own.link_types
        if own.first_ns is not None and own.last_ns is not None:
            file.first_ns = own.first_ns if file.first_ns is None else min(file.first_ns, own.first_ns)
            file.last_ns = own.last_ns if file.last_ns is None else max(file.last_ns, own.last_ns)
        reader.close()
        before = reader.end
    file.interfaces = max(1, len(used))
    return (packets, file, warnings), again


def ordinary(kind: str, chance: random.Random) -> bytes:
    """Thousands of packets of all sizes."""
    sizes = (60, 60, 60, 200, 600, 1500, 9000)
    contents = [chance.randbytes(chance.choice(sizes)) for _ in range(1500)]
    order = "<>"[kind.endswith("big")]
    if kind.startswith("pcapng"):
        blocks = [enhanced(data, (START + i // 9) * 1_000_000 + i, order=order) for i, data in enumerate(contents)]
        return section(order) + interface(order) + b"".join(blocks)
    return pcap_header(order) + b"".join(
        record(data, START + i // 9, i, None, order) for i, data in enumerate(contents)
    )


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
@pytest.mark.parametrize("kind", ["pcap", "pcap big", "pcapng", "pcapng big"])
def test_the_ranges_of_an_ordinary_file_fit_at_once(kind: str, parts: int, tmp_path: Path) -> None:
    path = tmp_path / "ordinary"
    path.write_bytes(ordinary(kind, random.Random(parts)))
    ranges = split(str(path), parts)
    size = path.stat().st_size
    assert len(ranges) == parts
    assert all(abs(begin - size * part // parts) < 200_000 for part, (begin, _) in enumerate(ranges))
    read, again = joined(path, ranges)
    assert read == at_once(path)
    assert again == 0


def test_a_capture_inside_a_packet_is_not_taken_for_the_capture(tmp_path: Path) -> None:
    """Someone sent a capture, and the packets in it lie there as they lie in the file that it is."""
    sent = pcap(payloads(3000))[24:]
    pieces = [sent[at : at + 200_000] for at in range(0, len(sent), 200_000)]
    path = tmp_path / "sent.pcap"
    path.write_bytes(pcap([bytes(60), *pieces, bytes(60)]))
    read, _ = joined(path, split(str(path), 4))
    assert read == at_once(path)


def odd(kind: str, chance: random.Random) -> bytes:
    """A small file in which anything may come at any place, and damage too."""
    order = chance.choice("<>")
    time = START

    def stamp() -> int:
        nonlocal time
        time += chance.choice((0, 0, 1, -3, 5))
        return time

    if kind == "pcap":
        pieces = [pcap_header(order, chance.choice((0xA1B2C3D4, 0xA1B23C4D)))]
        pieces += [
            record(
                chance.randbytes(size), stamp(), chance.randrange(10**6), chance.choice((None, 9000, 9000, 0)), order
            )
            for size in (chance.choice((1, 60, 60, 400)) for _ in range(150))
        ]
    else:
        pieces = [section(order), interface(order), interface(order, link_type=101)]
        for _ in range(150):
            data = chance.randbytes(chance.choice((0, 1, 60, 400)))
            what = chance.random()
            if what < 0.7:
                pieces.append(enhanced(data, stamp() * 1_000_000, chance.choice((0, 0, 1)), order=order))
            elif what < 0.8:
                pieces.append(simple(data, order=order))
            elif what < 0.86:
                pieces.append(old(data, stamp() * 1_000_000, chance.choice((0, 1, 7)), order=order))
            elif what < 0.9:
                pieces.append(block(chance.choice((4, 9, 0x0BAD, 77)), bytes(8), order))
            elif what < 0.93:
                pieces.append(interface(order, link_type=113, options=option(9, b"\x09", order)))
            elif what < 0.95:
                order = chance.choice("<>")
                pieces += [section(order), interface(order, options=option(2, b"wlan0", order))]
            else:
                pieces.append(enhanced(data, stamp() * 1_000_000, chance.choice((5, 6)), order=order))
    content = bytearray(b"".join(pieces))
    for _ in range(chance.choice((0, 0, 1, 3))):
        place = chance.randrange(24, len(content))
        content[place : place + 4] = chance.choice((b"", b"\xff\xff\xff\x7f", bytes(300), chance.randbytes(4)))
    return bytes(content[: chance.choice((None, None, -1, -30, len(content) // 2))])


@settings(max_examples=200, deadline=None)
@given(kind=st.sampled_from(["pcap", "pcapng"]), seed=st.integers(0, 10**9), parts=st.integers(2, 6))
def test_whatever_is_in_a_file_its_ranges_say_the_same(
    kind: str, seed: int, parts: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"odd.{kind}"
    content = odd(kind, random.Random(seed))
    path.write_bytes(content)
    whole = at_once(path)
    assert joined(path, split(str(path), parts))[0] == whole
    places = sorted(random.Random(seed).sample(range(1, len(content)), parts - 1))
    assert joined(path, list(zip([0, *places], [*places, None], strict=True)))[0] == whole


def test_interfaces_that_are_described_later_are_known_to_the_ranges_behind(tmp_path: Path) -> None:
    first = b"".join(enhanced(bytes(400), (START + i) * 1_000_000) for i in range(300))
    fine = interface(link_type=113, options=option(9, b"\x09"))
    then = b"".join(enhanced(bytes(400), (START + i) * 1_000_000_000, 1) for i in range(300))
    path = tmp_path / "later.pcapng"
    path.write_bytes(section() + interface() + first + fine + then)
    ranges = split(str(path), 3)
    assert len(ranges) == 3
    read, again = joined(path, ranges)
    assert read == at_once(path)
    assert again == 1


def test_simple_packets_take_the_time_of_the_packet_in_the_range_before(tmp_path: Path) -> None:
    path = tmp_path / "simple.pcapng"
    path.write_bytes(pcapng(payloads(20)) + b"".join(map(simple, payloads(2000))))
    ranges = split(str(path), 2)
    assert len(ranges) == 2
    read, again = joined(path, ranges)
    assert read == at_once(path)
    assert again == 1


@pytest.mark.parametrize("content", [gzip.compress(pcap(payloads(200))), b"", b"no capture at all", pcap_header()])
def test_what_has_no_ranges_is_one(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.write_bytes(content)
    assert split(str(path), 4) == [(0, None)]


def test_a_packed_file_is_read_as_one_range(tmp_path: Path) -> None:
    path = tmp_path / "one.pcap.gz"
    path.write_bytes(gzip.compress(pcap(payloads(200))))
    read, _ = joined(path, split(str(path), 4))
    assert read == (at_once(path)[0], replace(at_once(path)[1], bytes=read[1].bytes), [])


def test_a_range_of_a_file_that_is_no_capture_any_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gone.pcap"
    path.write_bytes(bytes(100))
    with pytest.raises(CaptureError, match="no longer the capture"):
        RangeReader(str(path), 24)
    with pytest.raises(CaptureError):
        split(str(tmp_path / "missing.pcap"), 2)


def test_a_range_ends_with_the_packet_that_begins_in_it(tmp_path: Path) -> None:
    content = pcap(payloads(10))
    size = struct.calcsize("IIII") + 60
    path = tmp_path / "ten.pcap"
    path.write_bytes(content)
    for end, expected in ((24, 0), (25, 1), (24 + size, 1), (24 + size + 1, 2), (10_000, 10)):
        reader = RangeReader(str(path), 0, end)
        assert [packet.number for packet in reader.packets] == list(range(1, expected + 1))
        assert reader.end.offset == 24 + size * expected
        reader.close()
