"""Rows predicted for an unpatched Wireshark, compared with tshark's own; and rows that people quote."""

from __future__ import annotations

import os
import random
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import dpkt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.misparse.names import CODE_NAMES
from analyzer.misparse.old import Generation, old_view
from analyzer.misparse.quoted import QuotedRow, find_row, read_quoted_row
from analyzer.misparse.reader import LARGEST_MESSAGE_KEPT, CoapTcpReader, Reading, Row
from analyzer.misparse.words import rows_in_words, summary

CAPTURES = sorted((Path(__file__).parent.parent / "captures").glob("*.pcap*"))
SEED_CASE = "Reset, 5.05 Proxying Not Supported, TID:24199"
WITHOUT_DESEGMENTATION = ("-o", "tcp.desegment_tcp_streams:FALSE")


class Segment(NamedTuple):
    packet: int
    direction: tuple[bytes, int, bytes, int]
    offset: int
    payload: bytes


def capture_named(name: str) -> Path:
    (path,) = (path for path in CAPTURES if path.name.startswith(name + "."))
    return path


def tshark_rows(path: Path, *options: str) -> dict[int, tuple[str, str]]:
    """Packet number → Protocol and Info column."""
    fields = ("-T", "fields", "-e", "frame.number", "-e", "_ws.col.Protocol", "-e", "_ws.col.Info")
    run = subprocess.run(
        ["tshark", "-n", "-r", str(path), *options, *fields],
        capture_output=True,
        check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    rows = (line.split("\t", 2) for line in run.stdout.decode().splitlines())
    return {int(number): (protocol, info) for number, protocol, info in rows}


def coap_text(protocol: str, info: str) -> str | None:
    """The dissector's part of an Info column; None for a TCP row."""
    # A message that ends in a hole leaves the row to TCP and puts the text of what follows at its end.
    after_hole = info.partition("[TCP segment of a reassembled PDU], ")[2]
    if protocol == "TCP":
        return after_hole or None
    # TCP's own remarks stand before the text.
    return re.sub(r"^(\[TCP [^]]*\] , )+", "", info)


def segments_of(path: Path) -> Iterator[Segment]:
    """What TCP hands to its subdissectors: new data only, and nothing that comes late."""
    expected: dict[tuple[bytes, int, bytes, int], int] = {}
    first: dict[tuple[bytes, int, bytes, int], int] = {}
    with path.open("rb") as file:
        reader = dpkt.pcap.UniversalReader(file)
        link = dpkt.sll2.SLL2 if reader.datalink() == dpkt.pcap.DLT_LINUX_SLL2 else dpkt.ethernet.Ethernet
        for number, (_, data) in enumerate(reader, 1):
            ip = link(data).data
            if not isinstance(ip, dpkt.ip.IP) or not isinstance(ip.data, dpkt.tcp.TCP):
                continue
            tcp = ip.data
            direction = (ip.src, tcp.sport, ip.dst, tcp.dport)
            if 5683 not in {tcp.sport, tcp.dport}:
                continue
            if tcp.flags & dpkt.tcp.TH_SYN:
                first[direction] = expected[direction] = tcp.seq + 1
            if not tcp.data or tcp.seq < expected.setdefault(direction, tcp.seq):
                continue
            expected[direction] = tcp.seq + len(tcp.data)
            yield Segment(number, direction, tcp.seq - first.setdefault(direction, tcp.seq), tcp.data)


def predicted(segments: Iterator[Segment], *, desegment: bool = True) -> dict[int, Row]:
    readers: dict[tuple[bytes, int, bytes, int], CoapTcpReader] = {}
    rows = {}
    for segment in segments:
        reader = readers.setdefault(segment.direction, CoapTcpReader(desegment=desegment))
        rows[segment.packet] = reader.receive(segment.payload, segment.packet, segment.offset)
    return rows


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_every_row_of_the_captures_is_what_tshark_shows(path: Path) -> None:
    shown = tshark_rows(path, "-Y", "tcp.port == 5683 && tcp.len > 0")
    rows = predicted(segments_of(path))
    for packet, (protocol, info) in shown.items():
        text = rows[packet].text if packet in rows else None
        expected = coap_text(protocol, info)
        if path.name.startswith("coap-over-tcp") and expected is not None:
            # Genuine CoAP: Wireshark repeats the request's path after the answer to it.
            assert text is not None
            assert expected.startswith(text)
        else:
            assert text == expected, packet


@pytest.mark.parametrize("name", ["key-mismatch-retries", "two-devices-background", "wrong-service-http302"])
def test_rows_with_desegmentation_switched_off(name: str) -> None:
    path = capture_named(name)
    shown = tshark_rows(path, *WITHOUT_DESEGMENTATION, "-Y", "tcp.port == 5683 && tcp.len > 0")
    rows = predicted(segments_of(path), desegment=False)
    assert shown
    assert {packet: rows[packet].text for packet in shown} == {packet: coap_text(*row) for packet, row in shown.items()}


# Fresh data: connections of our own making, one tshark run for all of them.


def write_segments(path: Path, segments: list[tuple[int, int, bytes]]) -> None:
    """Raw-IP capture of (connection, sequence number, payload). The ports are nobody else's: Wireshark would
    ask another dissector first if the device's port were, say, 1080."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101))
        for index, (connection, sequence, payload) in enumerate(segments):
            device = bytes([10, 1, connection >> 8 & 255, connection & 255])
            server = bytes([54, 208, 229, 4])
            total = 40 + len(payload)
            ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, total, index & 0xFFFF, 0, 64, 6, 0, server, device)
            tcp = struct.pack(">HHIIBBHHH", 5683, 49152 + connection % 8000, sequence, 1, 0x50, 0x18, 60000, 0, 0)
            data = ip + tcp + payload
            file.write(struct.pack("<IIII", 1_700_000_000 + index, 0, len(data), len(data)) + data)


def option(delta: int, value: bytes) -> bytes:
    def nibble(number: int) -> tuple[int, bytes]:
        if number < 13:
            return number, b""
        return (13, bytes([number - 13])) if number < 269 else (14, struct.pack(">H", number - 269))

    (high, delta_bytes), (low, length_bytes) = nibble(delta), nibble(len(value))
    return bytes([high << 4 | low]) + delta_bytes + length_bytes + value


def crafted_message(rng: random.Random) -> bytes:
    """A message that enters the branches of the option parser far more often than random bytes do."""
    body, number = b"", 0
    for wanted in sorted(rng.choices([3, 7, 9, 11, 12, 15, 23, 27, 60, 300], k=rng.randrange(5))):
        length = rng.choice([0, 0, 1, 1, 2, 3, 4, 5, 13, 20])
        value = rng.choice([rng.randbytes(length), rng.randbytes(length).hex().encode()[:length], bytes(length)])
        # A format that Wireshark knows goes to another dissector, which is not what this is about.
        value = rng.choice([b"", b"\0", bytes(5)]) if wanted == 12 else value
        body += option(wanted - number, value)
        number = wanted
    body += b"\xff" + rng.randbytes(rng.randrange(4)) if rng.random() < 0.4 else b""
    body = body[: rng.randrange(len(body) + 1)] if rng.random() < 0.2 else body
    claimed = max(0, len(body) + rng.choice([0, 0, 0, 0, -1, 1, 3]))
    token = rng.choice([0, 0, 1, 2, 8, 15])
    if rng.random() < 0.05:
        # Four bytes of length overflow 32 bits: the total comes out small, or negative.
        head = bytes([0xF0 | token]) + struct.pack(">I", (claimed - 65805) % 2**32 if rng.random() < 0.5 else 2**31)
    elif claimed < 13:
        head = bytes([claimed << 4 | token])
    else:
        head = bytes([0xD0 | token, claimed - 13]) if claimed < 269 else bytes([0xE0 | token, 0, claimed - 269])
    code = rng.choice([rng.randrange(256), *CODE_NAMES])
    return head + bytes([code]) + rng.randbytes(token) + body


def frame(rng: random.Random) -> bytes:
    size = rng.choice([16, 16, 32, 64, 128, 160, 256, 272, 512, 528])
    return struct.pack(">H", size) + rng.randbytes(size)


def nonce(rng: random.Random) -> bytes:
    return rng.randbytes(40)


def in_pieces(rng: random.Random, stream: bytes, lost: float) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(stream):
        piece = stream[at : at + rng.choice([1, 1, 2, 3, 7, 18, 40, 100])]
        if at == 0 or rng.random() >= lost:
            yield at, piece
        at += len(piece)


def connections(seed: int) -> Iterator[list[tuple[int, bytes]]]:
    """Payloads and their offsets for one direction of each of many connections."""
    rng = random.Random(seed)
    for _ in range(300):
        offset, pieces = 0, []
        for payload in (nonce(rng), rng.randbytes(384), *(frame(rng) for _ in range(8))):
            pieces.append((offset, payload))
            offset += len(payload)
        yield pieces
    for _ in range(1200):
        yield [(0, crafted_message(rng))]
    for index in range(300):
        parts = [rng.choice([crafted_message, frame, nonce])(rng) for _ in range(4)]
        yield list(in_pieces(rng, b"".join(parts), lost=0.2 if index % 2 else 0.0))


@pytest.mark.parametrize("desegment", [True, False])
def test_fresh_random_rows_are_what_tshark_shows(tmp_path: Path, desegment: bool) -> None:
    path = tmp_path / "random.pcap"
    rows, segments = [], []
    for connection, pieces in enumerate(connections(seed=20261123)):
        reader = CoapTcpReader(desegment=desegment)
        for offset, payload in pieces:
            # The sequence numbers of every third connection pass 2^32 on the way.
            start = 2**32 - 30 if connection % 3 == 0 else 1000
            segments.append((connection, (start + offset) % 2**32, payload))
            rows.append(reader.receive(payload, len(segments), offset))
    write_segments(path, segments)
    shown = tshark_rows(path, *(() if desegment else WITHOUT_DESEGMENTATION))
    assert len(shown) == len(rows) > 5000
    wrong = [
        (row, shown[row.packet], segments[row.packet - 1]) for row in rows if row.text != coap_text(*shown[row.packet])
    ]
    assert wrong == []
    assert sum(row.malformed for row in rows) > 20
    assert sum(len(row.readings) > 1 for row in rows) > (20 if desegment else -1)


# Which bytes made a row.


def test_a_row_says_where_its_bytes_are() -> None:
    reader = CoapTcpReader()
    greeting = bytes.fromhex("13b25e876e") + bytes([0xF0] * 35)
    row = reader.receive(greeting, 4)
    assert row == Row(
        4,
        "Unknown 178",
        (Reading("Unknown 178", 0, 6, 1, 178, bytes.fromhex("5e876e"), False, bytes.fromhex("13b25e876e")),),
    )
    (reading,) = reader.receive(bytes.fromhex("0010") + bytes(16), 10).readings
    assert (reading.offset, reading.code_offset, reading.code, reading.used) == (40, 41, 16, 2)


def test_a_greeting_can_swallow_what_follows() -> None:
    reader = CoapTcpReader()
    # d5: one byte of length, 13 + 0x40 = 77 bytes, and 5 of token: 85 in all.
    assert reader.receive(b"\xd5\x40\xa5" + bytes(37), 4) == Row(4, None, waiting=True)
    assert reader.receive(bytes(18), 6) == Row(6, None, swallowed=True, waiting=True)
    row = reader.receive(bytes(27) + bytes.fromhex("00b2") + bytes(40), 8)
    assert row.text == "5.05 Proxying Not Supported, TKN:00 00 00 00 00, Unknown 178"
    assert row.swallowed
    assert not row.waiting
    assert [(part.offset, part.code_offset) for part in row.readings] == [(0, 2), (85, 86)]


def test_a_hole_in_a_waiting_message_leaves_it_unfinished() -> None:
    reader = CoapTcpReader()
    reader.receive(b"\xd5\x40\xa5" + bytes(37), 4, 0)
    row = reader.receive(bytes(35) + bytes.fromhex("00b2"), 8, 50)
    assert row.text == "Unknown 178"
    assert row.readings[0].code_offset == 86


def test_a_gigantic_claim_is_counted_not_kept() -> None:
    reader = CoapTcpReader()
    assert reader.receive(bytes.fromhex("f040000000") + bytes(35), 1).waiting
    for packet in range(2, 400):
        assert reader.receive(bytes(1000), packet).text is None
        assert reader.kept <= LARGEST_MESSAGE_KEPT
    assert reader.kept == LARGEST_MESSAGE_KEPT


@pytest.mark.parametrize("size", [65_804 + 1000, 200_000])
def test_a_message_beyond_64_kib_still_gets_its_name(size: int) -> None:
    # Options that are all empty and all option 0, so that only the end of the bytes ends them.
    message = b"\xf0" + struct.pack(">I", size - 65805) + b"\xa2" + bytes(size)
    reader = CoapTcpReader()
    rows = [reader.receive(message[at : at + 1400], at // 1400) for at in range(0, len(message), 1400)]
    assert {row.text for row in rows[:-1]} == {None}
    assert rows[-1].text == "5.02 Bad Gateway"
    assert not rows[-1].malformed
    assert reader.kept == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=80), st.integers(0, 60))), st.booleans())
def test_any_bytes_give_rows_whose_bytes_are_in_the_stream(
    pieces: list[tuple[bytes, int]],
    desegment: bool,
) -> None:
    reader = CoapTcpReader(desegment=desegment)
    stream = bytearray()
    for packet, (payload, lost) in enumerate(pieces, 1):
        stream += bytes(lost) + payload
        row = reader.receive(payload, packet, len(stream) - len(payload))
        assert reader.kept <= len(stream)
        assert reader.offset == len(stream)
        assert (row.text is None) == (not row.readings)
        for reading in row.readings:
            assert stream[reading.offset :].startswith(reading.first)
            if reading.code is not None:
                assert stream[reading.code_offset] == reading.code
                assert stream[reading.code_offset + 1 :].startswith(reading.token)
                assert reading.text.startswith(CODE_NAMES.get(reading.code, f"Unknown {reading.code}"))


# Older releases.


def test_the_rows_of_older_releases() -> None:
    nonce = bytes.fromhex("73a55e876e0102ff00")
    assert old_view(nonce) == SEED_CASE
    assert old_view(bytes.fromhex("44885e87")) == "Confirmable, Unknown 136, TID:24199"
    assert old_view(nonce, Generation.UNTIL_3_0) == (
        "RST, MID:24199, 5.05 Proxying Not Supported (text/plain), TKN:6e 01 02"
    )
    # 02: an option of two bytes, of which one is there.
    assert old_view(bytes.fromhex("70a55e870200"), Generation.UNTIL_3_0) is None
    assert old_view(b"\x70\xa5\x5e") is None
    with pytest.raises(ValueError, match="datagram by datagram"):
        old_view(nonce, Generation.SINCE_3_2)


# Quoted rows.


def quoted(text: str) -> QuotedRow:
    row = read_quoted_row(text)
    assert row is not None
    return row


@pytest.mark.parametrize(
    ("text", "generation", "found"),
    [
        (SEED_CASE, Generation.IN_2014, (3, 165, 24199, None, False)),
        (
            "  reset ,  5.05 proxying not  supported, tid: 24199 ",
            Generation.IN_2014,
            (3, 165, 24199, None, False),
        ),
        (
            "Constrained Application Protocol, Reset, 5.05 Proxying Not Supported, TID: 24199, Length: 40",
            Generation.IN_2014,
            (3, 165, 24199, None, False),
        ),
        (
            "RST, MID:24199, 5.05 Proxying Not Supported, TKN:..",
            Generation.UNTIL_3_0,
            (3, 165, 24199, None, False),
        ),
        ("CON, MID:1, POST, TKN:ab, /E", Generation.UNTIL_3_0, (0, 2, 1, b"\xab", False)),
        ("Acknowledgement, 2.31 Continue, MID:7", Generation.UNTIL_3_0, (2, 95, 7, None, False)),
        (
            "5.05 Proxying Not Supported, TKN:5e 87 6e",
            Generation.SINCE_3_2,
            (None, 165, None, b"\x5e\x87\x6e", False),
        ),
        ("5.05 x, Token: 5e876e", Generation.SINCE_3_2, (None, 165, None, b"\x5e\x87\x6e", False)),
        ("Unknown 178", Generation.SINCE_3_2, (None, 178, None, None, False)),
        ('"Unknown 16"', Generation.SINCE_3_2, (None, 16, None, None, False)),
        ("4.04 Not Found[Malformed Packet]", Generation.SINCE_3_2, (None, 132, None, None, True)),
        ("Unknown 178[BoundErrorUnreassembled Packet]", Generation.SINCE_3_2, (None, 178, None, None, True)),
        ("malformed packet", Generation.SINCE_3_2, (None, None, None, None, True)),
        ("CoAP 54 5.02 Bad Gateway", Generation.SINCE_3_2, (None, 162, None, None, False)),
        (
            "    8   3.07 54.208.229.4 → 192.168.1.104 CoAP 438 5.02 Bad Gateway",
            Generation.SINCE_3_2,
            (None, 162, None, None, False),
        ),
        (
            "[TCP Previous segment not captured] , Unknown 16",
            Generation.SINCE_3_2,
            (None, 16, None, None, False),
        ),
        ("not found", Generation.SINCE_3_2, (None, 132, None, None, False)),
        ("Empty Message, TKN:d1 c8", Generation.SINCE_3_2, (None, 0, None, b"\xd1\xc8", False)),
        ("ipatch", Generation.SINCE_3_2, (None, 7, None, None, False)),
    ],
)
def test_rows_of_any_release_are_understood(
    text: str, generation: Generation, found: tuple[int | None, int | None, int | None, bytes | None, bool]
) -> None:
    row = quoted(text)
    assert generation in row.generations
    assert (row.type, row.code, row.message_id, row.token, row.malformed) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SPK206",
        "capture",
        "Reset",
        "Unknown 300",
        "TID:70000",
        "[RST, ACK] Seq=1 Ack=1 Win=0",
        "5683 → 40000 [PSH, ACK] Seq=1 Ack=1 Win=512 Len=40 [TCP segment of a reassembled PDU]",
        "captures/4.04 old.pcap",
    ],
)
def test_other_texts_are_not_taken_for_rows(text: str) -> None:
    assert read_quoted_row(text) is None


def test_the_bytes_of_the_seed_case_are_explained() -> None:
    assert quoted(SEED_CASE).bytes_explained() == [
        ("first byte 3?, 7?, b? or f?", "its bits 5 and 4 are 1", '"Reset"'),
        ("then a5", "165 = 5 × 32 + 5", '"5.05"'),
        ("then 5e 87", "24199 in decimal", '"TID:24199"'),
    ]


def test_the_bytes_of_todays_rows_are_explained() -> None:
    assert quoted("Unknown 178, TKN:5e 87").bytes_explained() == [
        ("second byte b2", "178 in decimal", '"Unknown 178"'),
        ("or third, fourth, sixth", "when the first is d?, e?, f?", '"Unknown 178"'),
        ("then 5e 87", "taken for a token", '"TKN:5e 87"'),
    ]
    assert quoted("unknown 16").bytes_explained()[0] == (
        "often 00 10",
        "length field: 16 bytes follow",
        '"Unknown 16"',
    )
    assert quoted("Malformed Packet").bytes_explained() == [
        ("bytes after these", "a random length leads past the end of the packet", '"Malformed Packet"')
    ]


def test_which_bytes_match_a_quoted_row() -> None:
    seed = quoted(SEED_CASE)
    assert [first for first in range(256) if seed.matches(bytes([first, 0xA5, 0x5E, 0x87]))] == [
        high << 4 | low for high in (3, 7, 11, 15) for low in range(16)
    ]
    assert not seed.matches(bytes.fromhex("70a55e88"))
    assert not seed.matches(bytes.fromhex("70a55e"))
    assert not quoted(SEED_CASE + ", Length: 40").matches(bytes.fromhex("70a55e87"))
    todays = quoted("5.05 Proxying Not Supported, TKN:5e 87")
    assert todays.matches(bytes.fromhex("13a55e876e") + bytes(35))
    assert todays.matches(bytes.fromhex("d300a55e876e") + bytes(34))
    assert not todays.matches(bytes.fromhex("11a55e876e") + bytes(35))
    # Option 9 whose first length (7) leads past the end.
    assert quoted("Malformed Packet").matches(bytes.fromhex("30b2920708"))
    assert not quoted("Malformed Packet").matches(bytes.fromhex("30b2920008"))


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=4, max_size=60))
def test_what_a_segment_shows_is_found_in_it_again(segment: bytes) -> None:
    for generation in (Generation.IN_2014, Generation.UNTIL_3_0):
        text = old_view(segment, generation)
        if text is not None:
            assert quoted(text).matches(segment)
    row = CoapTcpReader().receive(segment, 1)
    if row.text is not None and row.readings[0].code is not None:
        assert quoted(row.text).matches(segment)
        assert [found.packet for found in find_row(quoted(row.text), [(1, "server", segment, "")])] == [1]


@settings(max_examples=200, deadline=None)
@given(
    st.text()
    | st.lists(
        st.sampled_from(
            [
                *CODE_NAMES.values(),
                "Reset",
                "CoAP",
                "MID:",
                "TKN:",
                "4",
                "ff",
                "[",
                "Unknown",
                ",",
                " ",
                "\x1b",
            ]
        )
    ).map("".join)
)
def test_any_text_is_read_or_refused(text: str) -> None:
    row = read_quoted_row(text)
    if row is not None:
        row.matches(b"\x70\xa5\x5e\x87")
        assert all(cell.isprintable() for cells in row.bytes_explained() for cell in cells)
        assert row.text.isprintable()


def with_roles(name: str) -> Iterator[tuple[int, tuple[bytes, int, bytes, int], bytes, str]]:
    for segment in segments_of(capture_named(name)):
        by_server = segment.direction[1] == 5683
        yield segment.packet, segment.direction, segment.payload, "server" if by_server else "device"


@pytest.mark.parametrize(("text", "first"), [(SEED_CASE, "70a55e87"), ("5.05 Proxying Not Supported", "70a5")])
def test_the_quoted_row_is_found_in_its_capture(text: str, first: str) -> None:
    (found,) = find_row(quoted(text), with_roles("nonce-looks-like-coap"))
    assert (found.packet, found.role, found.first.hex()) == (4, "server", first)


def test_a_row_of_several_packets_is_found_in_the_last_of_them() -> None:
    segments = [
        (4, 0, b"\xd5\x40\xa5" + bytes(37), "greeting"),
        (5, 1, b"\x00\x10", ""),
        (8, 0, bytes(60), "reply"),
    ]
    (found,) = find_row(quoted("5.05 Proxying Not Supported"), segments)
    assert (found.packet, found.role, found.first) == (8, "reply", b"\xd5\x40\xa5" + bytes(5))


# The few words of a report.


def words_of(name: str, port: int | None = None) -> str | None:
    segments = [segment for segment in segments_of(capture_named(name)) if port is None or port in segment.direction]
    return summary(predicted(iter(segments)).values())


def test_few_rows_are_listed_and_many_are_grouped() -> None:
    ports = {port for segment in segments_of(capture_named("key-mismatch-retries")) for port in segment.direction[1::2]}
    texts = {words_of("key-mismatch-retries", int(port)) for port in ports - {5683}}
    assert (
        'packets 4, 6, 8, 12 read "Unknown 178", "Unknown 204", "Unknown 40", "Unknown 16": random bytes shown as CoAP'
    ) in texts
    assert words_of("healthy-full") == (
        '"5.02 Bad Gateway" (packet 8) and 53 times "Unknown 16": random bytes shown as CoAP'
    )
    assert words_of("wrong-service-http302") == (
        'packets 4, 6 read "Unknown 84, TKN:54 50 2f 31 2e 31 20 33, coap://", "Unknown 215": '
        "random bytes shown as CoAP"
    )


def row_of(packet: int, payload: bytes) -> Row:
    return CoapTcpReader().receive(payload, packet)


def test_words_for_malformed_and_unprintable_rows() -> None:
    malformed = [row_of(packet, bytes.fromhex("30b2920708")) for packet in range(5)]
    assert rows_in_words([*malformed, row_of(9, b"\0\x10")]) == '5 times "Unknown 178[Malformed Packet]"'
    errors = [row_of(packet, bytes([0, code])) for packet, code in enumerate((128, 129, 130, 131), 10)]
    assert rows_in_words([*errors, malformed[0]]) == (
        '"Unknown 178[Malformed Packet]" (packet 0) and "4.00 Bad Request" (packet 10)'
    )
    assert rows_in_words([]) is None
    assert rows_in_words([Row(1, None)]) is None
    assert rows_in_words([row_of(7, b"\0\x10")]) == 'packet 7 reads "Unknown 16"'
    hostile = Row(3, "GET, coap://\u202e\x1b[2J" + "x" * 500)
    words = rows_in_words([hostile])
    assert words is not None
    assert words.isprintable()
    assert len(words) < 100


def test_words_stay_short_however_many_rows_there_are() -> None:
    rng = random.Random(1)
    words = rows_in_words(row_of(packet, rng.randbytes(40)) for packet in range(20_000))
    assert words is not None
    assert len(words) < 500
