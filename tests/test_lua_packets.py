"""How the plugin finds the TCP segment in a frame: the same that the analyzer decodes, whatever lies under IP."""

from __future__ import annotations

import random
import struct
from functools import cache
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import NAMES, captured, shipped
from lua_engine import INSIDE_WIRESHARK, VERSIONS, engine
from test_wireshark_campaign import DEVICE_6, LINKS, SERVER_6, ethernet, ip4, ip6, segments_of

from analyzer.network import Decoder
from analyzer.network.units import ACK, FIN, RST, SYN, Segment
from analyzer.simulate import simulate
from analyzer.simulate.wire import Link
from analyzer.tracker import SENDERS

FIELDS: Final = ("source", "target", "source_port", "target_port", "seq", "ack", "length", "payload", "window", "ttl")


@cache
def lua(version: str) -> Any:
    """The engine's part alone."""
    return engine(version)[1]


def read(version: str, data: bytes, source_port: int, target_port: int, reported: int | None = None) -> Any:
    """The segment and the place of its payload, or None."""
    found = lua(version)[b"packets"][b"read_segment"](
        data, len(data) if reported is None else reported, source_port, target_port
    )
    return None if found is None else found


def check(version: str, data: bytes, segment: Segment, reported: int | None = None) -> None:
    """Assert that the plugin reads what the analyzer reads."""
    found, place = read(version, data, segment.source_port, segment.target_port, reported)
    for name in FIELDS:
        assert found[name.encode()] == getattr(segment, name), name
    for name, flag in (("syn", SYN), ("fin", FIN), ("rst", RST), ("acks", ACK)):
        assert found[name.encode()] == bool(segment.flags & flag)
    if ":" not in str(segment.source) and len(segment.source) == 4:
        assert found[b"ip_id"] == segment.ip_id
    assert data[place : place + len(segment.payload)] == segment.payload


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
@pytest.mark.parametrize("name", NAMES)
def test_every_segment_of_the_shipped_captures(version: str, name: str) -> None:
    decode = Decoder().decode
    for packet in shipped(name):
        unit = decode(packet)
        if isinstance(unit, Segment) and unit.whole:
            check(version, packet.data, unit, packet.original_length)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("link", LINKS)
def test_every_link_layer(version: str, link: str) -> None:
    _, framed = LINKS[link]
    for segment in segments_of("healthy-full")[:20]:
        found, place = read(version, framed(segment), segment.source_port, segment.target_port)
        assert found[b"payload"] == segment.payload
        assert found[b"length"] == segment.length
        assert found[b"seq"] == segment.seq
        assert framed(segment)[place : place + segment.length] == segment.payload


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
def test_links_that_change_from_packet_to_packet(version: str) -> None:
    """What was learnt from the last frame is no more than a guess for the next."""
    rng = random.Random(3)
    segments = segments_of("healthy-full")
    for _ in range(300):
        segment = rng.choice(segments)
        _, framed = LINKS[rng.choice(sorted(LINKS))]
        found, _ = read(version, framed(segment), segment.source_port, segment.target_port)
        assert found[b"payload"] == segment.payload


def first_data() -> Segment:
    return next(segment for segment in segments_of("healthy-full") if segment.length)


def icmp_about(segment: Segment) -> bytes:
    """A router's complaint, with the head of the packet that it is about."""
    quoted = ip4(segment)[:60]
    head = struct.pack(">BBHHHBBH", 0x45, 0, 28 + len(quoted), 1, 0, 64, 1, 0) + bytes((10, 0, 0, 1)) + segment.source
    return ethernet(head + bytes.fromhex("0301000000000000") + quoted)


def icmp6_about(segment: Segment) -> bytes:
    quoted = ip6(segment)[:80]
    head = struct.pack(">IHBB", 0x60000000, 8 + len(quoted), 58, 64) + DEVICE_6 + DEVICE_6
    return ethernet(head + bytes.fromhex("0100000000000000") + quoted, 0x86DD)


def fragment(segment: Segment) -> bytes:
    data = bytearray(ethernet(ip4(segment)))
    data[20] = 0x20  # more fragments follow
    return bytes(data)


def with_byte(place: int, value: int) -> bytes:
    data = bytearray(ethernet(ip4(first_data())))
    data[place] = value
    return bytes(data)


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
@pytest.mark.parametrize(
    "data",
    [
        icmp_about(first_data()),
        icmp6_about(first_data()),
        fragment(first_data()),
        with_byte(21, 9),  # a later fragment
        with_byte(23, 17),  # not TCP
        with_byte(46, 0x10),  # a TCP header of 16 bytes
        with_byte(16, 0) and with_byte(17, 30),  # an IP packet that ends inside the TCP header
        ethernet(ip4(first_data()))[:48],
        ethernet(ip6(first_data(), bytes.fromhex("110001040000000 0".replace(" ", ""))), 0x86DD),
        bytes(1100) + ip4(first_data()),  # too far into the frame
        b"",
        b"\x16\x33",
    ],
    ids=[
        *("quoted", "quoted in ICMPv6", "fragment", "later fragment", "UDP", "short header", "short packet", "cut"),
        *("unknown extension", "far", "empty", "ports alone"),
    ],
)
def test_frames_without_a_segment(version: str, data: bytes) -> None:
    segment = first_data()
    assert read(version, data, segment.source_port, segment.target_port) is None
    # The frame after it is read as ever, and the same frame again is none again.
    check(version, ethernet(ip4(segment)), segment)
    assert read(version, data, segment.source_port, segment.target_port) is None


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
@pytest.mark.parametrize("link", ["ethernet", "ipv6"])
def test_a_length_left_for_the_network_card(version: str, link: str) -> None:
    segment = first_data()
    data = bytearray(LINKS[link][1](segment))
    place = 16 if link == "ethernet" else 18
    data[place : place + 2] = b"\0\0"
    found, _ = read(version, bytes(data), segment.source_port, segment.target_port)
    assert found[b"payload"] == segment.payload
    assert found[b"length"] == segment.length


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(LINKS)))
def test_damage_is_read_without_harm(version: str, seed: int, link: str) -> None:
    rng = random.Random(seed)
    segment = rng.choice(segments_of("healthy-full"))
    data = bytearray(LINKS[link][1](segment))
    for _ in range(rng.randrange(4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    del data[rng.choice((len(data), rng.randrange(len(data) + 1))) :]
    found = read(version, bytes(data), segment.source_port, segment.target_port, rng.choice((len(data), 1500)))
    if found is not None:
        part, place = found
        assert len(part[b"payload"]) <= max(part[b"length"], 0)
        assert data[place : place + len(part[b"payload"])] == part[b"payload"]


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 65535), st.integers(0, 65535))
def test_any_bytes_are_read_without_harm(version: str, data: bytes, source_port: int, target_port: int) -> None:
    read(version, data, source_port, target_port)
    read(version, data + struct.pack(">HH", source_port, target_port) + data, source_port, target_port)


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
@pytest.mark.parametrize("link", ["ethernet", "ipv6"])
def test_a_packet_damaged_on_its_way_is_known_by_its_checksum(version: str, link: Link) -> None:
    """Where most of a sender's checksums are right, a wrong one tells of damage; where none is, it tells nothing."""
    packets = lua(version)[b"packets"]
    decode = Decoder().decode
    story = simulate("healthy", link=link)
    packets[b"forget"]()
    damaged = 0
    for place, packet in enumerate(captured(story.packets, story.link_type)):
        segment = decode(packet)
        if not isinstance(segment, Segment):
            continue
        data, spoil = bytearray(packet.data), place > 20 and segment.length > 0 and place % 5 == 0
        if spoil:
            data[-1] ^= 4
        found, _ = read(version, bytes(data), segment.source_port, segment.target_port)
        assert packets[b"is_damaged"](found) == spoil
        damaged += spoil
    assert damaged > 3
    packets[b"forget"]()
    for segment in segments_of("healthy-full"):
        found, _ = read(version, LINKS[link][1](segment), segment.source_port, segment.target_port)
        assert not packets[b"is_damaged"](found)


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
@pytest.mark.parametrize("link", ["ipv6", "ipv6-options", "raw"])
def test_what_stands_between_the_addresses_and_the_tcp_header_is_not_summed_up(version: str, link: str) -> None:
    packets = lua(version)[b"packets"]
    packets[b"forget"]()
    for place, segment in enumerate(
        [s for s in segments_of("healthy-full") if s.length and s.target_port == 5683][:12]
    ):
        data = bytearray(LINKS[link][1](segment))
        tcp = len(data) - segment.length - 20
        addresses = DEVICE_6 + SERVER_6 if "ipv6" in link else segment.source + segment.target
        summed = addresses + struct.pack(">HH", 6, 20 + segment.length) + data[tcp:] + bytes(segment.length % 2)
        data[tcp + 16 : tcp + 18] = (0xFFFF - int.from_bytes(summed, "big") % 0xFFFF).to_bytes(2, "big")
        spoil = place > 8
        data[-1] ^= 16 if spoil else 0
        found, _ = read(version, bytes(data), segment.source_port, segment.target_port)
        assert packets[b"is_damaged"](found) == spoil


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
def test_made_up_senders_do_not_pile_up(version: str) -> None:
    """All that was learnt is forgotten when it gets too much: then a wrong checksum is believed again."""
    packets = lua(version)[b"packets"]
    story = simulate("healthy")
    decode = Decoder().decode
    packet, segment = next(
        (packet, unit)
        for packet in captured(story.packets, story.link_type)
        if isinstance(unit := decode(packet), Segment) and unit.length
    )
    spoilt = packet.data[:-1] + bytes((packet.data[-1] ^ 4,))
    for made_up, told in ((0, True), (SENDERS - 2, True), (SENDERS, False)):
        packets[b"forget"]()
        found, _ = read(version, packet.data, segment.source_port, segment.target_port)
        for _ in range(3):
            assert not packets[b"is_damaged"](found)
        for number in range(made_up):
            found[b"source"] = b"\x0a" + number.to_bytes(3, "big")
            packets[b"is_damaged"](found)
        found, _ = read(version, spoilt, segment.source_port, segment.target_port)
        assert packets[b"is_damaged"](found) == told


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
def test_of_a_packet_that_was_cut_the_checksum_tells_nothing(version: str) -> None:
    packets = lua(version)[b"packets"]
    segment = first_data()
    data = LINKS["ethernet"][1](segment)
    for size in (len(data) - 1, 60):
        packets[b"forget"]()
        for _ in range(3):
            found, _ = read(version, data[:size], segment.source_port, segment.target_port, len(data))
            assert not packets[b"is_damaged"](found)
