"""Packets of every variant of pcap and pcapng come out as Wireshark shows them."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import struct
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import lz4.frame
import pytest
import zstandard
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
    wireshark,
)

from analyzer.capture import Capture, CaptureError, Packet
from analyzer.capture.ledger import LATEST_NS

CAPTURES = Path(__file__).parent.parent / "captures"
TEN = payloads(10)
RESOLUTION, OFFSET = 9, 14


def read(tmp_path: Path, content: bytes, name: str = "seed.pcap") -> tuple[Capture, list[Packet]]:
    path = tmp_path / name
    path.write_bytes(content)
    capture = Capture([path])
    return capture, list(capture)


def as_wireshark(packet: Packet) -> list[str]:
    seconds, nanoseconds = divmod(packet.time_ns, 1_000_000_000)
    return [
        str(packet.number),
        f"{seconds}.{nanoseconds:09d}",
        str(packet.original_length),
        str(len(packet.data)),
    ]


def pcap_variant(magic: int, order: str, fraction: int, extra: bytes = b"") -> bytes:
    records = (record(data, START + i, fraction + i, 90, order) for i, data in enumerate(TEN))
    return pcap_header(order, magic) + b"".join(r[:16] + extra + r[16:] for r in records)


def clock(resolution: int, ticks_per_second: int, order: str = "<") -> bytes:
    """A file whose interface counts so many ticks in a second; with times between the ticks of others."""
    head = section(order) + interface(order, options=option(RESOLUTION, bytes([resolution]), order))
    start = min(START, (1 << 63) // ticks_per_second)
    times = (start * ticks_per_second + ticks_per_second * i // 7 for i in range(10))
    return head + b"".join(enhanced(d, t, order=order) for d, t in zip(TEN, times, strict=True))


def many_sections() -> bytes:
    little = section() + interface() + interface(link_type=113, options=option(RESOLUTION, b"\x09"))
    big = section(">", length=0) + interface(">", options=option(OFFSET, struct.pack(">q", 3600), ">"))
    return b"".join(
        [
            little,
            enhanced(TEN[0], START * 1_000_000 + 1),
            enhanced(TEN[1], START * 1_000_000_000 + 1, 1),
            block(4, bytes(4)),  # names
            block(5, struct.pack("<III", 0, 0, 0)),  # statistics
            block(0x7777, b"unknown!"),
            big,
            enhanced(TEN[2], START * 1_000_000 + 2, order=">"),
            old(TEN[3], START * 1_000_000 + 3, order=">"),
            section(),
            interface(link_type=101),
            enhanced(TEN[4], START * 1_000_000 + 4, original=1500),
        ]
    )


VARIANTS = {
    "pcap µs": pcap_variant(0xA1B2C3D4, "<", 999_980),
    "pcap µs big": pcap_variant(0xA1B2C3D4, ">", 999_980),
    "pcap ns": pcap_variant(0xA1B23C4D, "<", 999_999_980),
    "pcap ns big": pcap_variant(0xA1B23C4D, ">", 999_999_980),
    "patched pcap": pcap_variant(0xA1B2CD34, "<", 7, struct.pack("<IHBB", 1, 8, 0, 0)),
    "pcap, time running back": pcap(TEN, step=-60),
    "pcap, packets without a byte": pcap([b"", *TEN, b""]),
    "pcap, no original lengths": pcap_header() + b"".join(record(d, START, 0, 0) for d in TEN),
    "pcapng": pcapng(TEN),
    "pcapng ns": clock(9, 10**9),
    "pcapng ns big": clock(9, 10**9, ">"),
    "pcapng seconds": clock(0, 1),
    "pcapng 10^-10": clock(10, 10**10),
    "pcapng 2^-10": clock(0x80 | 10, 1 << 10),
    "pcapng 2^-30": clock(0x80 | 30, 1 << 30, ">"),
    "pcapng sections": many_sections(),
    "pcapng offset": section()
    + interface(options=option(OFFSET, struct.pack("<q", -7200)))
    + b"".join(enhanced(d, START * 1_000_000 + i) for i, d in enumerate(TEN)),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_numbers_times_and_lengths_are_those_of_wireshark(tmp_path: Path, name: str) -> None:
    capture, packets = read(tmp_path, VARIANTS[name])
    fields = ("frame.number", "frame.time_epoch", "frame.len", "frame.cap_len")
    assert [as_wireshark(packet) for packet in packets] == wireshark(tmp_path / "seed.pcap", *fields)
    assert len(packets) >= 5
    assert capture.warnings == []


@pytest.mark.parametrize("path", sorted(CAPTURES.glob("*.pcap*")), ids=lambda path: path.name)
def test_the_captures_of_this_project_are_those_of_wireshark(path: Path) -> None:
    capture = Capture([path])
    fields = ("frame.number", "frame.time_epoch", "frame.len", "frame.cap_len")
    packets = list(capture)
    assert [as_wireshark(packet) for packet in packets] == wireshark(path, *fields)
    (file,) = capture.files
    assert (file.packets, file.bytes, file.damage) == (len(packets), path.stat().st_size, [])
    times = [packet.time_ns for packet in packets]
    assert (file.first_ns, file.last_ns) == (min(times), max(times))
    assert file.link_types == {packet.link_type for packet in packets}


def test_times_finer_than_nanoseconds_are_cut_without_rounding(tmp_path: Path) -> None:
    """Not compared with Wireshark: its arithmetic overflows here (64 bits)."""
    content = section() + interface(options=option(RESOLUTION, b"\x0c")) + enhanced(TEN[0], 5_123_456_789_999)
    assert [packet.time_ns for packet in read(tmp_path, content)[1]] == [5_123_456_789]
    content = section() + interface(options=option(RESOLUTION, b"\xbe")) + enhanced(TEN[0], (7 << 61) + 3)
    assert [packet.time_ns for packet in read(tmp_path, content)[1]] == [3_500_000_000]


def test_data_is_what_was_captured(tmp_path: Path) -> None:
    for content in (pcap(TEN), pcapng(TEN)):
        assert [packet.data for packet in read(tmp_path, content)[1]] == TEN


def test_simple_packets_take_the_time_of_the_packet_before_and_are_cut_to_the_snap_length(tmp_path: Path) -> None:
    content = section() + interface(snap_length=50)
    content += enhanced(TEN[0], START * 1_000_000 + 5) + simple(TEN[1][:50], original=1400)
    packets = read(tmp_path, content)[1]
    assert [(p.time_ns, len(p.data), p.original_length) for p in packets] == [
        (START * 10**9 + 5000, 60, 60),
        (START * 10**9 + 5000, 50, 1400),
    ]
    assert [[str(p.number), str(p.original_length), str(len(p.data))] for p in packets] == wireshark(
        tmp_path / "seed.pcap", "frame.number", "frame.len", "frame.cap_len"
    )


@pytest.mark.parametrize("kind", [9, 0x0BAD, 0x4000_0BAD])
def test_blocks_that_wireshark_numbers_take_a_number_here_too(tmp_path: Path, kind: int) -> None:
    between = block(kind, b"__REALTIME_TIMESTAMP=1700000000000000\nMESSAGE=x\n")
    content = section() + interface() + enhanced(TEN[0], 1) + between + enhanced(TEN[1], 2)
    packets = read(tmp_path, content)[1]
    frames = wireshark(tmp_path / "seed.pcap", "frame.number", "frame.len")
    assert [[str(p.number), str(p.original_length)] for p in packets] == [frames[0], frames[2]]


def test_the_link_type_is_the_lower_half_of_its_field(tmp_path: Path) -> None:
    content = pcap_header(link_type=0x1400_0000 | 113) + record(TEN[0], START)
    assert [packet.link_type for packet in read(tmp_path, content)[1]] == [113]


def test_the_account_names_interfaces_link_types_and_the_digits_of_the_clock(tmp_path: Path) -> None:
    capture, packets = read(tmp_path, many_sections())
    assert [packet.link_type for packet in packets] == [1, 113, 1, 1, 101]
    (file,) = capture.files
    assert (file.format, file.time_digits, file.link_types) == ("pcapng", 9, {1, 101, 113})
    assert file.interfaces == len({packet.interface for packet in packets}) == 2
    assert read(tmp_path, pcap(TEN))[0].files[0].time_digits == 6


def test_an_interface_keeps_its_number_from_file_to_file(tmp_path: Path) -> None:
    for i, name in enumerate([b"eth0", b"wlan0", b"eth0"]):
        (tmp_path / f"{i}.pcapng").write_bytes(pcapng(TEN[:1], start=START + 10 * i, name=name))
    assert [packet.interface for packet in Capture([tmp_path])] == [0, 1, 0]


def test_times_that_no_calendar_has_are_kept_within_it(tmp_path: Path) -> None:
    head = section() + interface() + interface(options=option(OFFSET, struct.pack("<q", -(1 << 63))))
    content = head + enhanced(TEN[0], (1 << 64) - 1) + enhanced(TEN[1], 5, 1) + enhanced(TEN[2], 7)
    capture, packets = read(tmp_path, content)
    assert [packet.time_ns for packet in packets] == [LATEST_NS, 0, 7000]
    assert (capture.files[0].first_ns, capture.files[0].last_ns) == (0, LATEST_NS)


@pytest.mark.parametrize(
    ("options", "digits"),
    [(b"\x09\x00\x01", 6), (option(RESOLUTION, b""), 6), (option(2, b"x" * 300) + option(RESOLUTION, b"\x09"), 9)],
)
def test_options_that_are_cut_or_empty_are_passed_over(tmp_path: Path, options: bytes, digits: int) -> None:
    content = section() + interface(options=options) + enhanced(TEN[0], START)
    capture, packets = read(tmp_path, content)
    assert (len(packets), capture.files[0].time_digits) == (1, digits)


# Compression.

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    ".lz4": lz4.frame.compress,
}


def noise() -> list[bytes]:
    """More than two blocks of the compression with the largest ones (bzip2, 900 kB), hard to pack."""
    return [random.Random(i).randbytes(200) for i in range(10_000)]


NAMES = {".gz": "gzip", ".xz": "xz", ".bz2": "bzip2", ".zst": "zstd", ".lz4": "lz4"}
MANY = pcap(payloads(3000, 500))


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("content", [MANY, pcapng(payloads(2000, 700))], ids=["pcap", "pcapng"])
def test_a_packed_capture_is_read_as_the_plain_one(tmp_path: Path, suffix: str, content: bytes) -> None:
    plain = read(tmp_path, content)[1]
    capture, packets = read(tmp_path, PACKERS[suffix](content), "any.name")
    assert packets == plain
    (file,) = capture.files
    assert (file.format, file.bytes) == (("pcap" if content is MANY else "pcapng") + suffix, len(content))
    assert capture.position[:2] == ((tmp_path / "any.name").stat().st_size,) * 2


@pytest.mark.parametrize("suffix", PACKERS)
def test_packed_files_put_together_are_one(tmp_path: Path, suffix: str) -> None:
    pack = PACKERS[suffix]
    capture, packets = read(tmp_path, pack(MANY[:5000]) + pack(MANY[5000:]))
    assert (len(packets), capture.warnings) == (3000, [])


@pytest.mark.parametrize("suffix", PACKERS)
def test_cut_packed_data_costs_only_the_tail(tmp_path: Path, suffix: str) -> None:
    whole = pcap(noise())
    packed = PACKERS[suffix](whole)
    capture, packets = read(tmp_path, packed[: len(packed) * 3 // 4], "seed" + suffix)
    assert packets == read(tmp_path, whole)[1][: len(packets)]
    assert len(packets) > 100
    size = capture.files[0].bytes
    assert capture.warnings == [
        f"{tmp_path}/seed{suffix}: the {NAMES[suffix]} data ends early, after {size:,} bytes unpacked; "
        "analysed up to there."
    ]
    assert [(d.offset, d.what) for d in capture.files[0].damage] == [(size, f"the {NAMES[suffix]} data ends early")]


@pytest.mark.parametrize("suffix", PACKERS)
def test_damaged_packed_data_is_said_and_never_raises(tmp_path: Path, suffix: str) -> None:
    whole = pcap(noise())
    packed = bytearray(PACKERS[suffix](whole))
    middle = len(packed) * 3 // 4
    packed[middle : middle + 4096] = b"\xff" * 4096
    capture, packets = read(tmp_path, bytes(packed), "seed" + suffix)
    assert packets[:4000] == read(tmp_path, whole)[1][:4000]
    assert f"the {NAMES[suffix]} data is damaged, after " in capture.warnings[-1]


def test_packed_data_that_ends_before_the_first_packet_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="the gzip data ends early before the first packet"):
        read(tmp_path, gzip.compress(MANY)[:12], "seed.pcap.gz")


@pytest.mark.parametrize(("suffix", "modules"), [(".zst", ["zstandard", "compression.zstd"]), (".lz4", ["lz4.frame"])])
def test_a_missing_unpacker_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, modules: list[str]
) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(CaptureError) as error:
        read(tmp_path, PACKERS[suffix](MANY), "seed" + suffix)
    assert str(error.value) == (
        f"{tmp_path}/seed{suffix}: packed with {NAMES[suffix]}, which needs one more package. "
        'Try: pip install "sparkshark[compression]"'
    )


@pytest.mark.parametrize("suffix", PACKERS)
def test_what_unpacks_to_far_more_than_it_is_comes_piece_by_piece(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(PACKERS[suffix](pcap([bytes(200_000)] * 500)))
    capture = Capture([path])
    assert len(list(islice(capture, 3))) == 3
    assert capture.files[0].bytes < 48 << 20
