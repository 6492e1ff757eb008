"""Damage in a capture costs what is damaged, is reported with its place, and never stops the rest."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from capture_files import (
    START,
    block,
    enhanced,
    interface,
    old,
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

from analyzer.capture import Capture, CaptureError, Packet

TEN = payloads(10)
RECORD = 16 + 60
HEAD = 24
Writer = Callable[[list[bytes]], bytes]


def read(tmp_path: Path, content: bytes) -> tuple[Capture, list[Packet]]:
    path = tmp_path / "seed.pcap"
    path.write_bytes(content)
    capture = Capture([path])
    return capture, list(capture)


def mixed(data: list[bytes]) -> bytes:
    """Three kinds of packet blocks in two sections."""
    first = section() + interface() + enhanced(data[0], START * 1_000_000) + simple(data[1])
    second = section(">") + interface(">") + old(data[2], START * 1_000_000, order=">")
    return first + second + enhanced(data[3], START * 1_000_000 + 9, order=">")


@pytest.mark.parametrize("writer", [pcap, pcapng, mixed])
def test_a_cut_at_any_byte_costs_only_what_is_behind_it(tmp_path: Path, writer: Writer) -> None:
    data = payloads(4, 9)
    whole = writer(data)
    ends = [len(whole[: whole.index(d)]) for d in data]
    packets = read(tmp_path, whole)[1]
    assert len(packets) == 4
    complete = {len(whole)} | set(_boundaries(whole, writer is pcap))
    for cut in range(4, len(whole)):
        capture, before = read(tmp_path, whole[:cut])
        count = len(before)
        assert before == packets[:count]
        # Each packet whose last byte is there has come, and none that begins behind the cut.
        assert count >= sum(1 for end in _ends(whole, writer is pcap) if end <= cut)
        assert count <= sum(1 for begin in ends if begin <= cut)
        if cut in complete:
            assert capture.warnings == []
        else:
            assert [d.offset for d in capture.files[0].damage] == [cut]
            assert re.fullmatch(
                rf".*/seed\.pcap: ends inside (packet {count + 1}|a block|the file header), at byte {cut}; "
                r"(packets? .* analysed|no packet could be read)\.",
                capture.warnings[0],
            )


def _boundaries(whole: bytes, records: bool) -> list[int]:
    """Where a record or block ends, so that a cut there goes unnoticed."""
    at, found, order = HEAD if records else 0, [], "<"
    while at < len(whole):
        if not records and whole[at : at + 4] == b"\n\r\r\n":
            order = "<" if whole[at + 8] == 0x4D else ">"
        if records:
            at += 16 + struct.unpack_from("<I", whole, at + 8)[0]
        else:
            at += struct.unpack_from(order + "I", whole, at + 4)[0]
        found.append(at)
    return [HEAD, *found] if records else found


def _ends(whole: bytes, records: bool) -> list[int]:
    """Where each packet's record or block ends."""
    ends = _boundaries(whole, records)
    if records:
        return ends[1:]
    kinds = {bytes(order) for kind in (2, 3, 6) for order in ((kind, 0, 0, 0), (0, 0, 0, kind))}
    return [end for begin, end in pairwise([0, *ends]) if whole[begin : begin + 4] in kinds]


def test_a_cut_is_told_with_packet_and_byte(tmp_path: Path) -> None:
    content = pcap(TEN)
    capture, packets = read(tmp_path, content[:-5])
    assert len(packets) == 9
    end = len(content) - 5
    assert capture.warnings == [
        f"{tmp_path}/seed.pcap: ends inside packet 10, at byte {end}; packets 1–9 are analysed."
    ]
    assert [(d.offset, d.packet) for d in capture.files[0].damage] == [(end, 10)]


DAMAGED_HEADERS = {
    "absurd captured length": struct.pack("<IIII", START, 0, 0xFFFF_FFF0, 60),
    "one byte above the largest packet": struct.pack("<IIII", START, 0, 262_145, 262_145),
    "length to behind the end": struct.pack("<IIII", START, 0, 200_000, 200_000),
    "captured more than sent": struct.pack("<IIII", START, 0, 130, 60),
    "noise": bytes.fromhex("9e3779b97f4a7c15f39cc0605cedc834"),
    "zeros": bytes(16),
}


@pytest.mark.parametrize("header", DAMAGED_HEADERS.values(), ids=DAMAGED_HEADERS)
@pytest.mark.parametrize("victim", [0, 4, 8])
def test_after_a_damaged_record_the_next_one_is_found(tmp_path: Path, header: bytes, victim: int) -> None:
    content = bytearray(pcap(TEN))
    offset = HEAD + victim * RECORD
    content[offset : offset + 16] = header
    capture, packets = read(tmp_path, bytes(content))
    assert [packet.data for packet in packets] == TEN[:victim] + TEN[victim + 1 :]
    assert [packet.number for packet in packets] == list(range(1, 10))
    (damage,) = capture.files[0].damage
    assert (damage.offset, damage.packet) == (offset, None)
    assert damage.what.endswith("; 76 bytes skipped")
    (warning,) = capture.warnings
    assert f": damaged at byte {offset} (" in warning
    assert warning.endswith(f": 76 bytes skipped before packet {victim + 1}; the rest is analysed.")


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("magic", "fraction"), [(0xA1B2C3D4, 999_999), (0xA1B23C4D, 999_999_999)])
def test_a_hole_of_any_content_is_stepped_over(tmp_path: Path, order: str, magic: int, fraction: int) -> None:
    good = [record(data, START + i, fraction, order=order) for i, data in enumerate(TEN)]
    for hole in (b"\xff" * 3_000_000, bytes(2_000_003), bytes(range(256)) * 5000):
        content = pcap_header(order, magic) + b"".join(good[:5]) + hole + b"".join(good[5:])
        capture, packets = read(tmp_path, content)
        assert [packet.data for packet in packets] == TEN
        assert [d.offset for d in capture.files[0].damage] == [HEAD + 5 * RECORD]
        assert f"{len(hole):,} bytes skipped before packet 6" in capture.warnings[0]


def test_damage_up_to_the_end_is_told(tmp_path: Path) -> None:
    capture, packets = read(tmp_path, pcap(TEN) + b"\xee" * 1000)
    assert len(packets) == 10
    assert capture.warnings == [
        f"{tmp_path}/seed.pcap: damaged at byte 784 (a captured length of 4,008,636,142 in a packet's header): "
        "nothing readable follows, 1,000 bytes lost; packets 1–10 are analysed."
    ]


def damaged_block(what: str) -> bytes:
    good = bytearray(enhanced(TEN[4], START * 1_000_000 + 4))
    length = len(good)
    if what == "length behind":
        good[-4:] = struct.pack("<I", length + 4)
    elif what == "length in front":
        good[4:8] = struct.pack("<I", length + 8)
    elif what == "not a multiple of 4":
        good[4:8] = good[-4:] = struct.pack("<I", length - 1)
    elif what == "less than a block":
        good[4:8] = good[-4:] = struct.pack("<I", 8)
    elif what == "larger than any block":
        good[4:8] = struct.pack("<I", 0x7FFF_FFF0)
    elif what == "to behind the end":
        good[4:8] = struct.pack("<I", 100_000)
    elif what == "captured length":
        good[20:24] = struct.pack("<I", 2_000)
    elif what == "unknown interface":
        good[8:12] = struct.pack("<I", 7)
    elif what == "section header":
        good[:12] = b"\n\r\r\n" + good[4:8] + b"xxxx"
    return bytes(good)


@pytest.mark.parametrize(
    "what",
    [
        "length behind",
        "length in front",
        "not a multiple of 4",
        "less than a block",
        "larger than any block",
        "to behind the end",
        "captured length",
        "unknown interface",
        "section header",
    ],
)
def test_after_a_damaged_block_the_next_one_is_found(tmp_path: Path, what: str) -> None:
    head, block_length = len(section() + interface()), len(enhanced(TEN[0], 0))
    blocks = [enhanced(data, START * 1_000_000 + i) for i, data in enumerate(TEN)]
    bad = damaged_block(what)
    content = section() + interface() + b"".join([*blocks[:4], bad, *blocks[5:]])
    capture, packets = read(tmp_path, content)
    assert [packet.data for packet in packets] == TEN[:4] + TEN[5:]
    (damage,) = capture.files[0].damage
    assert (damage.offset, damage.packet) == (head + 4 * block_length, None)
    assert damage.what.endswith(f"; {block_length} bytes skipped")
    assert len(capture.warnings) == 1


def test_blocks_are_found_again_after_a_hole_and_in_the_other_byte_order(tmp_path: Path) -> None:
    hole = b"\x06\x00\x00\x00" * 300_000 + b"\xff" * 1_000_001
    later = section(">") + interface(">") + enhanced(TEN[5], START * 1_000_000, order=">")
    for rest, data in ((enhanced(TEN[5], START * 1_000_000), TEN[5]), (later, TEN[5])):
        capture, packets = read(tmp_path, pcapng(TEN[:5]) + hole + rest)
        assert [packet.data for packet in packets] == [*TEN[:5], data]
        assert f"{len(hole):,} bytes skipped" in capture.warnings[0]


def test_packets_before_their_interface_are_left_out_and_told_once(tmp_path: Path) -> None:
    content = section() + simple(TEN[0]) + enhanced(TEN[1], 1) + old(TEN[2], 1)
    content += interface() + enhanced(TEN[3], 5)
    capture, packets = read(tmp_path, content)
    assert [packet.data for packet in packets] == [TEN[3]]
    assert [d.offset for d in capture.files[0].damage] == [len(section())]
    assert "a packet of interface 0, which is not described" in capture.warnings[0]


def test_an_interface_without_a_body_is_damage(tmp_path: Path) -> None:
    capture, packets = read(tmp_path, section() + block(1, b"\0\0\0\0") + interface() + enhanced(TEN[0], 5))
    assert len(packets) == 1
    assert "an interface description that cannot be read" in capture.warnings[0]


def test_the_list_of_damaged_places_does_not_grow_with_the_file(tmp_path: Path) -> None:
    noise = b"\xee" * 20
    content = pcap_header() + b"".join(
        record(d, START + i) + (noise if i % 4 == 3 else b"") for i, d in enumerate(payloads(400))
    )
    capture, packets = read(tmp_path, content)
    assert len(packets) == 400
    assert len(capture.files[0].damage) == len(capture.warnings) == 21
    assert capture.files[0].damage[-1].what == "damaged at more places than are listed"


PIECES = st.one_of(
    st.binary(max_size=64),
    st.sampled_from([pcap_header(), pcap_header(">"), section(), section(">"), interface(), interface(">")]),
    st.builds(record, st.binary(max_size=40), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    st.builds(enhanced, st.binary(max_size=40), st.integers(0, 2**64 - 1), st.integers(0, 3)),
    st.builds(old, st.binary(max_size=40), st.integers(0, 2**64 - 1), st.integers(0, 3)),
    st.builds(simple, st.binary(max_size=40), st.integers(0, 2**32 - 1)),
    st.builds(block, st.sampled_from([1, 2, 3, 4, 6, 9, 0x0A0D0D0A]), st.binary(max_size=48)),
)
BEGINNINGS = st.sampled_from(
    [
        b"",
        pcap_header(),
        pcap_header(">", 0xA1B23C4D),
        pcap_header(magic=0xA1B2CD34),
        section() + interface(),
        section(">") + interface(">"),
        b"\x1f\x8b\x08\x00",
        b"\xfd7zXZ\x00",
        b"BZh9",
        b"\x28\xb5\x2f\xfd",
        b"\x04\x22\x4d\x18",
    ]
)


@settings(max_examples=400, deadline=None)
@given(BEGINNINGS, st.lists(PIECES, max_size=12), st.integers(0, 60))
def test_any_bytes_are_packets_with_an_account_or_one_error(start: bytes, pieces: list[bytes], cut: int) -> None:
    content = start + b"".join(pieces)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "seed.pcap"
        path.write_bytes(content[: len(content) - cut])
        capture = Capture([path])
        try:
            packets = list(capture)
        except CaptureError as error:
            refusal = str(error)
        else:
            refusal = ""
    if refusal:
        assert len(refusal.splitlines()) == 1
        assert capture.files == []
        return
    (file,) = capture.files
    assert file.packets == len(packets)
    assert [p.number for p in packets] == sorted({p.number for p in packets})
    assert all(len(packet.data) <= 262_144 and packet.time_ns >= 0 for packet in packets)
    assert sum(len(packet.data) for packet in packets) <= file.bytes
    times = [packet.time_ns for packet in packets]
    assert (file.first_ns, file.last_ns) == ((min(times), max(times)) if times else (None, None))
    assert len(capture.warnings) == len(file.damage)
    assert all(0 <= damage.offset <= file.bytes for damage in file.damage)
