"""The plugin against what networks, captures and users do: the same session in every shape, and what is no session.

The measure is the analyzer on the same file, or the same plugin on the untouched one.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import struct
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

import pytest
from capture_files import pcap_header, record
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from dissected import (
    TITLE,
    Run,
    differing_values,
    dissect,
    expected_messages,
    expected_statistics,
    listed_statistics,
    messages_of,
    write_capture,
)
from judging import shipped
from tcp_talk import DEVICE, SERVER, Talk
from test_wireshark import EACH_TSHARK, KEYS, TWO_PASSES
from wireshark import OWN, Tshark

from analyzer import KeyRing, analyze
from analyzer.capture import Capture
from analyzer.network import Decoder
from analyzer.network.units import FIN, RST, SYN, Segment
from analyzer.simulate import Conversation, finish, make_world, simulate
from analyzer.wireshark.generate import FILE_NAME, generate

PASSES: Final = ((), (TWO_PASSES,))


def keys_of(tshark: Tshark) -> tuple[str, ...]:
    """The preference that names the shipped keys."""
    return ("-o", "spark.device_key:" + tshark.share(KEYS))


@lru_cache(maxsize=1)
def ring() -> KeyRing:
    """The shipped keys, for the analyzer."""
    return KeyRing.load(str(KEYS))


# -- writing a session anew ------------------------------------------------------------------------------------

DEVICE_ADDRESS: Final = bytes((192, 168, 1, 104))
SERVER_ADDRESS: Final = bytes((54, 208, 229, 4))
DEVICE_6: Final = bytes.fromhex("20010db8000000000000000000000104")
SERVER_6: Final = bytes.fromhex("20010db8000000000000000000005683")
ETHERNET: Final = bytes.fromhex("001d7ea0115e 080028573ac1")
WIFI_MAC: Final = bytes.fromhex("001d7ea0115e")


def tcp_header(segment: Segment) -> bytes:
    """Twenty bytes; nobody checks the sum."""
    return struct.pack(
        ">HHIIBBHHH",
        segment.source_port,
        segment.target_port,
        segment.seq % 2**32,
        segment.ack % 2**32,
        0x50,
        segment.flags,
        segment.window,
        0,
        0,
    )


def ip4(segment: Segment) -> bytes:
    """An IPv4 packet."""
    total = 40 + segment.length
    head = struct.pack(">BBHHHBBH", 0x45, 0, total, segment.ip_id or 0, 0x4000, segment.ttl, 6, 0)
    return head + segment.source + segment.target + tcp_header(segment) + segment.payload


def ip6(segment: Segment, extensions: bytes = b"") -> bytes:
    """An IPv6 packet between two made-up addresses, with destination options where asked for."""
    from_device = segment.source == DEVICE_ADDRESS
    ends = DEVICE_6 + SERVER_6 if from_device else SERVER_6 + DEVICE_6
    size = len(extensions) + 20 + segment.length
    head = struct.pack(">IHBB", 0x60000000, size, 60 if extensions else 6, segment.ttl)
    return head + ends + extensions + tcp_header(segment) + segment.payload


def ethernet(network: bytes, kind: int = 0x0800) -> bytes:
    return ETHERNET + struct.pack(">H", kind) + network


LINKS: Final[dict[str, tuple[int, Callable[[Segment], bytes]]]] = {
    "ethernet": (1, lambda s: ethernet(ip4(s))),
    "padded": (1, lambda s: ethernet(ip4(s)).ljust(60, b"\0")),
    "vlan": (1, lambda s: ethernet(struct.pack(">HH", 7, 0x0800) + ip4(s), 0x8100)),
    "qinq": (1, lambda s: ethernet(struct.pack(">HHHH", 7, 0x8100, 8, 0x0800) + ip4(s), 0x88A8)),
    "pppoe": (1, lambda s: ethernet(struct.pack(">BBHHH", 0x11, 0, 9, 42 + s.length, 0x0021) + ip4(s), 0x8864)),
    "mpls": (1, lambda s: ethernet(bytes.fromhex("00064140") + ip4(s), 0x8847)),
    "ipv6": (1, lambda s: ethernet(ip6(s), 0x86DD)),
    "ipv6-options": (1, lambda s: ethernet(ip6(s, bytes.fromhex("0600010400000000")), 0x86DD)),
    "6in4": (1, lambda s: ethernet(_inside_ip4(ip6(s), 41))),
    "gre": (1, lambda s: ethernet(_inside_ip4(bytes.fromhex("00000800") + ip4(s), 47))),
    "sll": (113, lambda s: bytes.fromhex("0000 0001 0006 001d7ea0115e 0000 0800") + ip4(s)),
    "sll2": (276, lambda s: bytes.fromhex("0800 0000 00000002 0001 00 06 001d7ea0115e 0000") + ip4(s)),
    "raw": (101, ip4),
    "raw-ipv6": (101, ip6),
    "null": (0, lambda s: bytes.fromhex("02000000") + ip4(s)),
    "loop": (108, lambda s: bytes.fromhex("00000002") + ip4(s)),
    "ppp": (9, lambda s: bytes.fromhex("ff030021") + ip4(s)),
    "wifi": (105, lambda s: _wifi(s)),  # noqa: PLW0108 - it is defined below
    "radiotap": (127, lambda s: bytes.fromhex("0000 0800 00000000") + _wifi(s)),
}


def _inside_ip4(inner: bytes, protocol: int) -> bytes:
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(inner), 1, 0, 64, protocol, 0)
    return head + bytes((10, 0, 0, 1, 10, 0, 0, 2)) + inner


def _wifi(segment: Segment) -> bytes:
    """A data frame from or to the access point, not encrypted."""
    direction = 1 if segment.source == DEVICE_ADDRESS else 2
    head = bytes((0x08, direction, 0, 0)) + WIFI_MAC * 3 + struct.pack("<H", (segment.number % 4096) << 4)
    return head + bytes.fromhex("aaaa030000000800") + ip4(segment)


@cache
def segments_of(name: str) -> tuple[Segment, ...]:
    """The TCP segments of a shipped capture."""
    decode = Decoder().decode
    units = [decode(packet) for packet in shipped(name)]
    return tuple(unit for unit in units if isinstance(unit, Segment))


def written(
    segments: Iterable[Segment],
    link: str = "ethernet",
    *,
    snaplen: int = 65535,
    frame: Callable[[Segment], bytes] | None = None,
) -> bytes:
    """A capture file of these segments, in this order."""
    link_type, framed = LINKS[link]
    framed = frame or framed
    out = [pcap_header(link_type=link_type)]
    for segment in segments:
        data = framed(segment)
        seconds, rest = divmod(segment.time_ns, 10**9)
        out.append(record(data[:snaplen], seconds, rest // 1000, original=len(data)))
    return b"".join(out)


def from_device(segment: Segment) -> bool:
    """Whether the device sent it."""
    return segment.target_port == 5683


def piece(segment: Segment, start: int, stop: int, *, later_ns: int = 0) -> Segment:
    """Some of the bytes of a segment."""
    flags = segment.flags if stop >= segment.length else segment.flags & ~FIN
    return replace(
        segment,
        seq=(segment.seq + start) % 2**32,
        payload=segment.payload[start:stop],
        length=min(stop, segment.length) - start,
        flags=flags,
        time_ns=segment.time_ns + later_ns,
        ip_id=((segment.ip_id or 0) * 7 + start + 1) % 65536,
    )


# -- shapes of the same session: each takes the segments and returns others ------------------------------------


def split(segments: Sequence[Segment], *, seed: int = 1) -> list[Segment]:
    """Each message in several segments, cut anywhere."""
    rng, out = random.Random(seed), []
    for segment in segments:
        if segment.length < 2:
            out.append(segment)
            continue
        cuts = sorted({0, segment.length, *(rng.randrange(segment.length) for _ in range(3))})
        for place, (start, stop) in enumerate(itertools.pairwise(cuts)):
            out.append(piece(segment, start, stop, later_ns=place * 2000))
    return out


def byte_by_byte(segments: Sequence[Segment]) -> list[Segment]:
    """Every byte of the first frames in a segment of its own."""
    out = []
    for segment in segments:
        if 0 < segment.length < 60:
            out += [piece(segment, at, at + 1, later_ns=at * 1000) for at in range(segment.length)]
        else:
            out.append(segment)
    return out


def coalesced(segments: Sequence[Segment], largest: int = 1400) -> list[Segment]:
    """Several messages in a segment: what one end sends in a row comes together with the last of it."""
    out: list[Segment] = []
    for segment in segments:
        last = out[-1] if out else None
        if (
            last is not None
            and segment.length
            and last.length
            and from_device(last) == from_device(segment)
            and (last.seq + last.length) % 2**32 == segment.seq
            and last.length + segment.length <= largest
        ):
            joined = last.payload + segment.payload
            out[-1] = replace(last, payload=joined, length=len(joined), flags=last.flags | segment.flags)
        elif segment.length or segment.flags & (SYN | FIN | RST):
            out.append(segment)
    return out


def swapped(segments: Sequence[Segment]) -> list[Segment]:
    """The two halves of a message in the wrong order."""
    out = []
    for segment in segments:
        if segment.length < 8:
            out.append(segment)
        else:
            half = segment.length // 2
            out += [piece(segment, half, segment.length), piece(segment, 0, half, later_ns=1000)]
    return out


def doubled(segments: Sequence[Segment]) -> list[Segment]:
    """Each packet twice."""
    return [one for segment in segments for one in (segment, replace(segment, time_ns=segment.time_ns + 20_000))]


def extended(segments: Sequence[Segment]) -> list[Segment]:
    """The first half, and then a retransmission that has all of it."""
    out = []
    for segment in segments:
        if segment.length >= 8:
            out.append(piece(segment, 0, segment.length // 2))
            out.append(replace(segment, time_ns=segment.time_ns + 300_000, ip_id=(segment.ip_id or 0) ^ 0x5555))
        else:
            out.append(segment)
    return out


def resent(segments: Sequence[Segment]) -> list[Segment]:
    """Each third segment with data again, later."""
    out, count = [], 0
    for segment in segments:
        out.append(segment)
        if segment.length:
            count += 1
            if count % 3 == 0:
                out.append(replace(segment, time_ns=segment.time_ns + 900, ip_id=(segment.ip_id or 0) ^ 0x3333))
    return out


SAME_SESSION: Final[dict[str, Callable[[Sequence[Segment]], list[Segment]]]] = {
    "split": split,
    "byte by byte": byte_by_byte,
    "coalesced": coalesced,
    "swapped": swapped,
    "doubled": doubled,
    "extended": extended,
    "resent": resent,
    "split and doubled": lambda segments: doubled(split(segments)),
}


SHAPED: Final = {OWN: "healthy-full"}
"""Which session each tshark gets: one each, as all shapes of all in all are a minute's work."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the captures of these tests go."""
    return tmp_path_factory.mktemp("campaign")


@EACH_TSHARK
@pytest.mark.parametrize("shape", SAME_SESSION)
def test_the_same_session_in_another_shape(tshark: Tshark, shape: str, folder: Path) -> None:
    name = SHAPED.get(tshark.name, "photon-fast-ota")
    content = written(SAME_SESSION[shape](segments_of(name)))
    path, shared = write_capture(tshark, f"{name}-{shape}.pcap".replace(" ", "-"), content, folder)
    expected = expected_messages(analyze(Path(f"captures/{name}.pcap"), keys=ring()))
    assert sorted(expected_messages(analyze(path, keys=ring()))) == sorted(expected)
    for options in (*PASSES, ("-o", "tcp.desegment_tcp_streams:FALSE", "-o", "tcp.check_checksum:TRUE")):
        run = dissect(tshark, shared, *options, *keys_of(tshark))
        assert sorted(run.messages) == sorted(expected)
        assert {"SPK001"} <= run.codes


@EACH_TSHARK
@pytest.mark.parametrize("link", LINKS)
def test_every_link_layer(tshark: Tshark, link: str, folder: Path) -> None:
    segments = segments_of("healthy-full")
    path, shared = write_capture(tshark, f"link-{link}.pcap", written(segments, link), folder)
    expected = expected_messages(analyze(Path("captures/healthy-full.pcap"), keys=ring()))
    run = dissect(tshark, shared, TWO_PASSES, *keys_of(tshark))
    assert sorted(run.messages) == sorted(expected)
    assert listed_statistics(run) == expected_statistics(analyze(path, keys=ring()))


# -- payloads whose TCP header is not in the frame ---------------------------------------------------------------


def fragments(segment: Segment, size: int) -> list[bytes]:
    """The IPv4 packet of a segment in pieces of this many bytes, a multiple of 8."""
    whole = ip4(segment)
    data = whole[20:]
    out = []
    for at in range(0, len(data), size):
        part = data[at : at + size]
        place = at // 8 | (0x2000 if at + size < len(data) else 0)
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(part), segment.ip_id or 0, place, segment.ttl, 6, 0)
        out.append(ethernet(head + whole[12:20] + part))
    return out


@EACH_TSHARK
@pytest.mark.parametrize("name", ["healthy-full", "photon-fast-ota"])
@pytest.mark.parametrize("size", [16, 128, 400], ids=["every packet", "many packets", "large packets"])
def test_ip_fragments(tshark: Tshark, name: str, size: int, folder: Path) -> None:
    out = [pcap_header()]
    for segment in segments_of(name):
        seconds, rest = divmod(segment.time_ns, 10**9)
        out += [record(piece_of_it, seconds, rest // 1000) for piece_of_it in fragments(segment, size)]
    path, shared = write_capture(tshark, f"fragments-{name}-{size}.pcap", b"".join(out), folder)
    trace = analyze(path, keys=ring())
    expected = expected_messages(analyze(Path(f"captures/{name}.pcap"), keys=ring()))
    assert sorted(expected_messages(trace)) == sorted(expected)
    for passes in PASSES:
        run = dissect(tshark, shared, "-o", "ip.defragment:TRUE", *passes, *keys_of(tshark))
        assert sorted(run.messages) == sorted(expected)
        assert listed_statistics(run) == expected_statistics(trace)
        whole = {message.packet for message in messages_of(trace)}
        assert {row.number for row, item in run.items if item.get("message")} == whole


TEMPORAL_KEY: Final = bytes(range(16))
STATION: Final = bytes.fromhex("001d7ea0115e")
ACCESS_POINT: Final = bytes.fromhex("0211223344aa")


def sealed_wifi(segment: Segment) -> bytes:
    """A data frame as WPA2 seals it (IEEE 802.11, CCMP)."""
    to_ap = from_device(segment)
    control = bytes((0x08, 0x41 if to_ap else 0x42))
    addresses = ACCESS_POINT + STATION + ACCESS_POINT if to_ap else STATION + ACCESS_POINT + ACCESS_POINT
    count = (segment.number + 1).to_bytes(6, "big")
    head = control + bytes(2) + addresses + struct.pack("<H", segment.number % 4096 << 4)
    shown = bytes((count[5], count[4], 0, 0x20, count[3], count[2], count[1], count[0]))
    plain = bytes.fromhex("aaaa030000000800") + ip4(segment)
    nonce = b"\0" + addresses[6:12] + count
    return head + shown + AESCCM(TEMPORAL_KEY, tag_length=8).encrypt(nonce, plain, control + addresses + bytes(2))


@EACH_TSHARK
@pytest.mark.parametrize("name", ["healthy-full", "photon-fast-ota"])
def test_radio_that_wireshark_decrypts(tshark: Tshark, name: str, folder: Path) -> None:
    """Of such frames only the payloads are handed on: neither SYN nor acknowledgements are to be had."""
    content = written(segments_of(name), "wifi", frame=sealed_wifi)
    _, shared = write_capture(tshark, f"sealed-{name}.pcap", content, folder)
    expected = expected_messages(analyze(Path(f"captures/{name}.pcap"), keys=ring()))
    radio = ("-o", "wlan.enable_decryption:TRUE", "-o", f'uat:80211_keys:"tk","{TEMPORAL_KEY.hex()}"')
    assert dissect(tshark, shared, *keys_of(tshark)).messages == []
    for passes in PASSES:
        run = dissect(tshark, shared, *radio, *passes, *keys_of(tshark))
        assert sorted(run.messages) == sorted(expected)
        assert run.codes == {"SPK001"}


# -- damaged captures: the analyzer on the same file is the measure --------------------------------------------


def without(segments: Sequence[Segment], unwanted: Callable[[int, Segment], bool]) -> list[Segment]:
    """All but some of the segments that carry data, told by their number among those."""
    out, count = [], -1
    for segment in segments:
        count += bool(segment.length)
        if not (segment.length and unwanted(count, segment)):
            out.append(segment)
    return out


def never_acknowledged(segments: Sequence[Segment]) -> list[Segment]:
    """A message of the server that is lost on the way; what it sends later comes through, and nobody has the rest."""
    lost = [s for s in segments if s.length and not from_device(s)][12]
    out = []
    for segment in segments:
        if from_device(segment) and (segment.ack - lost.seq) % 2**32 < 2**31:
            out.append(replace(segment, ack=lost.seq))
        elif segment is not lost:
            out.append(segment)
    return out


def reused(segments: Sequence[Segment], *, syn: bool, shift: int = 77_777_777) -> list[Segment]:
    """The same ports again an hour later, with other numbers."""
    again = [
        replace(
            s,
            seq=(s.seq + shift) % 2**32,
            ack=(s.ack + shift) % 2**32,
            time_ns=s.time_ns + 3600 * 10**9,
        )
        for s in segments
        if syn or not s.flags & SYN
    ]
    return [*segments, *again]


DAMAGED: Final[dict[str, Callable[[Sequence[Segment]], list[Segment]]]] = {
    "a lost segment": lambda s: without(s, lambda number, _: number == 9),
    "many lost segments": lambda s: without(s, lambda number, _: number % 7 == 5),
    "lost nonce": lambda s: without(s, lambda number, _: number == 0),
    "lost identity": lambda s: without(s, lambda number, _: number == 1),
    "lost offer": lambda s: without(s, lambda number, _: number == 2),
    "half a lost offer": lambda s: [piece(x, 0, 200) if x.length == 384 else x for x in s],
    "lost hello": lambda s: without(s, lambda number, _: number == 3),
    "no SYN": lambda s: [x for x in s if not x.flags & SYN],
    "no SYN and swapped": lambda s: swapped([x for x in s if not x.flags & SYN]),
    "no end": lambda s: [x for x in s if not x.flags & (FIN | RST)],
    "only data": lambda s: [x for x in s if x.length],
    "midway": lambda s: list(s[len(s) // 2 :]),
    "ports used again": lambda s: reused(s, syn=True),
    "ports used again without SYN": lambda s: reused(s, syn=False),
    "ports used again without end or SYN": lambda s: reused(DAMAGED["no end"](s), syn=False, shift=40_000),
    "from the device": lambda s: [x for x in s if from_device(x)],
    "from the server": lambda s: [x for x in s if not from_device(x)],
}


@EACH_TSHARK
@pytest.mark.parametrize("damage_done", DAMAGED)
def test_what_is_missing(tshark: Tshark, damage_done: str, folder: Path) -> None:
    content = written(DAMAGED[damage_done](segments_of("healthy-full")))
    path, shared = write_capture(tshark, f"damage-{damage_done}.pcap".replace(" ", "-"), content, folder)
    trace = analyze(path, keys=ring())
    for passes in PASSES:
        run = dissect(tshark, shared, *passes, *keys_of(tshark))
        unseen = Counter(expected_messages(trace)) - Counter(run.messages)
        assert not Counter(run.messages) - Counter(expected_messages(trace))
        # Without a SYN it takes some packets to know whose they are. The first pass leaves these to Wireshark's CoAP.
        assert unseen.total() <= (2 if "no SYN" in damage_done and not passes else 0)
        assert listed_statistics(run) == expected_statistics(trace)


@EACH_TSHARK
@pytest.mark.parametrize("limit", [68, 90, 120, 200, 400])
def test_snapped_packets(tshark: Tshark, limit: int, folder: Path) -> None:
    content = written(segments_of("healthy-full"), snaplen=limit)
    path, shared = write_capture(tshark, f"snap-{limit}.pcap", content, folder)
    trace = analyze(path, keys=ring())
    run = dissect(tshark, shared, TWO_PASSES, *keys_of(tshark))
    assert sorted(run.messages) == sorted(expected_messages(trace))
    assert listed_statistics(run) == expected_statistics(trace)


@EACH_TSHARK
def test_a_loss_that_nobody_acknowledges_does_not_hold_up_the_rest(tshark: Tshark, folder: Path) -> None:
    """The server's later messages wait as long as the device asks for the lost one, and no longer."""
    segments = never_acknowledged(segments_of("healthy-full"))
    one_way = [segment for segment in segments if not from_device(segment)]
    _, shared = write_capture(tshark, "one-way-hole.pcap", written(one_way), folder)
    run = dissect(tshark, shared, TWO_PASSES)
    frames = [row.number for row, item in run.items if item.get("stage") == "message"]
    last = max(number for number, segment in enumerate(one_way, 1) if segment.length)
    assert last in frames
    assert len([s for s in one_way if s.length]) - len(frames) <= 4  # the handshake, the hello and the lost one


ORDER_OFF: Final = ("-o", "spark.reassemble_out_of_order:FALSE")


@EACH_TSHARK
def test_without_order_a_late_segment_is_lost_and_said_so(tshark: Tshark, folder: Path) -> None:
    segments = list(segments_of("healthy-full"))
    place = [index for index, segment in enumerate(segments) if segment.length][9]
    halves = swapped([segments[place]])
    segments[place : place + 1] = halves
    _, shared = write_capture(tshark, "late.pcap", written(segments), folder)
    whole = dissect(tshark, shared, *keys_of(tshark))
    assert sorted(whole.messages) == sorted(expected_messages(analyze(Path("captures/healthy-full.pcap"), keys=ring())))
    for passes in PASSES:
        run = dissect(tshark, shared, *passes, *ORDER_OFF, *keys_of(tshark))
        assert len(whole.messages) - 2 <= len(run.messages) < len(whole.messages)
        (hole,) = [
            row for row in run.rows if any("bytes missing" in note for note in row.notes + [i.text for i in row.items])
        ]
        assert hole.number == place + 1


@EACH_TSHARK
def test_a_login_without_syn_is_ours_as_soon_as_that_is_known(tshark: Tshark, folder: Path) -> None:
    """A nonce alone may be CoAP's; the second pass knows better."""
    segments = DAMAGED["no SYN"](segments_of("healthy-full"))
    nonce = next(number for number, segment in enumerate(segments, 1) if segment.length)
    _, shared = write_capture(tshark, "no-syn.pcap", written(segments), folder)
    for passes, told in (((), False), ((TWO_PASSES,), True)):
        run = dissect(tshark, shared, *passes)
        assert (nonce in {row.number for row, item in run.items if item.get("stage") == "nonce"}) == told


@EACH_TSHARK
def test_copies_damaged_on_their_way_are_left_out_and_said_so(tshark: Tshark, folder: Path) -> None:
    simulation = simulate("damaged-copy")
    path, shared = write_capture(tshark, "damaged-copy.pcap", simulation.capture(), folder)
    keys = key_folder(tshark, "damaged-copy-keys", simulation.keys)
    trace = analyze(path, keys=KeyRing.load(str(tshark.workspace / "damaged-copy-keys")))
    decode = Decoder().decode
    units = [decode(packet) for packet in Capture([path])]
    damaged = {unit.number for unit in units if isinstance(unit, Segment) and unit.checksum_good() is False}
    assert len(damaged) > 20
    for passes in PASSES:
        run = dissect(tshark, shared, "-o", f"spark.device_key:{keys}", *passes)
        assert sorted(run.messages) == sorted(expected_messages(trace))
        assert {row.number for row in run.rows if "damaged on its way" in row.text} == damaged
        # That the capture holds copies is no finding of the plugin: what is damaged never gets as far.
        (expected,), (listed,) = expected_statistics(trace), listed_statistics(run)
        assert expected.pop("findings") == {"SPK001", "SPK704"}
        assert listed.pop("findings") == {"SPK001"}
        assert listed == expected


@EACH_TSHARK
def test_a_length_that_cannot_be_one_is_said(tshark: Tshark, folder: Path) -> None:
    segments = list(segments_of("healthy-full"))
    place = [index for index, segment in enumerate(segments) if segment.length and from_device(segment)][20]
    segments[place] = replace(segments[place], payload=b"\0\5" + segments[place].payload[2:])
    path, shared = write_capture(tshark, "bad-length.pcap", written(segments), folder)
    trace = analyze(path, keys=ring())
    for passes in PASSES:
        run = dissect(tshark, shared, *passes, *keys_of(tshark))
        assert sorted(run.messages) == sorted(expected_messages(trace))
        told = [row.number for row, item in run.items if item.get("note") == "No message can begin here: length 5"]
        assert told == [place + 1]


@EACH_TSHARK
def test_more_messages_in_a_packet_than_its_line_has_room_for(tshark: Tshark, folder: Path) -> None:
    content = written(coalesced(segments_of("photon-fast-ota"), 60_000))
    _, shared = write_capture(tshark, "many-in-one.pcap", content, folder)
    run = dissect(tshark, shared, *keys_of(tshark))
    crowded = [row for row in run.rows if len(row.items) > 3]
    assert crowded
    for row in crowded:
        shown = [item.text for item in row.items[:3]]
        assert row.text.startswith(f"{TITLE}{' | '.join(shown)} | +{len(row.items) - 3} more")
    expected = expected_messages(analyze(Path("captures/photon-fast-ota.pcap"), keys=ring()))
    assert sorted(run.messages) == sorted(expected)


@EACH_TSHARK
def test_what_a_key_does_not_open_is_said(tshark: Tshark) -> None:
    capture, key = tshark.share(Path("captures/key-mismatch-retries.pcap")), tshark.share(KEYS / "core-a.pem")
    run = dissect(tshark, capture, "-o", f"spark.device_key:{key}", TWO_PASSES)
    offers = [(row, item) for row, item in run.items if item.get("stage") == "session"]
    assert len(offers) == 3
    for _, item in offers:
        assert item.text.endswith(", does not open with the device keys given")
    options = ("-r", capture, "-o", f"spark.device_key:{key}", "-Y", "spark.expert.undecrypted")
    said = tshark.rows(["frame.number"], *options)
    assert {row.number for row, _ in offers} == {int(number) for (number,) in said}


@EACH_TSHARK
def test_the_server_s_key_opens_what_the_device_says_first(tshark: Tshark) -> None:
    key = tshark.share(KEYS / "server.pem")
    capture = Path("captures/healthy-full.pcap")
    run = dissect(tshark, tshark.share(capture), "-o", f"spark.server_key:{key}", TWO_PASSES)
    (identity,) = [item for _, item in run.items if item.get("stage") == "identity"]
    assert identity.get("key_source") == key
    assert identity.get("identity.nonce_matches") in {"1", "True"}
    (session,) = json.loads(capture.with_suffix(".truth.json").read_text())["sessions"]
    assert run.statistics[0]["id"] == session["device_id"]
    assert run.messages == []


# -- other ports -----------------------------------------------------------------------------------------------


@EACH_TSHARK
def test_another_port(tshark: Tshark, folder: Path) -> None:
    swap = {5683: 9999}
    moved = [
        replace(
            s, source_port=swap.get(s.source_port, s.source_port), target_port=swap.get(s.target_port, s.target_port)
        )
        for s in segments_of("healthy-full")
    ]
    _, shared = write_capture(tshark, "port-9999.pcap", written(moved), folder)
    expected = sorted(expected_messages(analyze(Path("captures/healthy-full.pcap"), keys=ring())))
    assert dissect(tshark, shared, *keys_of(tshark)).messages == []
    for options in (("-o", "spark.ports:5683,9999"), ("-o", "spark.ports:9000-10000"), ("-d", "tcp.port==9999,spark")):
        for passes in PASSES:
            run = dissect(tshark, shared, *options, *passes, *keys_of(tshark))
            assert sorted(run.messages) == expected
            assert {row.get("direction") for row in run.rows} == {"device", "server"}
            assert [one["server"] for one in run.statistics] == ["54.208.229.4:9999"]


# -- a session begun midway, with a key log --------------------------------------------------------------------


@lru_cache(maxsize=1)
def logged() -> tuple[bytes, str]:
    """The nonce of mid-session.pcap's session (not in the capture), and its session key."""
    session = json.loads(Path("captures/mid-session.truth.json").read_text())["sessions"][0]
    return bytes.fromhex(session["nonce"]), session["session_key"]["hex"]


@EACH_TSHARK
@pytest.mark.parametrize("known", ["without nonce", "with nonce"])
def test_begun_midway_with_a_key_log(tshark: Tshark, known: str, folder: Path) -> None:
    nonce, key = logged()
    text = f"SPARK_SESSION {'-' if known == 'without nonce' else nonce.hex()} {key}\n".encode()
    log = folder / f"{known.replace(' ', '-')}.log"
    log.write_bytes(text)
    capture = Path("captures/mid-session.pcap")
    trace = analyze(capture, keys=KeyRing.load(keylogs=[str(log)]))
    for passes in PASSES:
        run = dissect(tshark, tshark.share(capture), "-o", "spark.keylog:" + tshark.write(log.name, text), *passes)
        assert listed_statistics(run) == expected_statistics(trace)
    # Frames that come before the key is sure are opened later: the second pass has them.
    assert sorted(run.messages) == sorted(expected_messages(trace))
    if known == "without nonce":
        assert len(run.messages) == 19


@EACH_TSHARK
@pytest.mark.parametrize("lost", [1, 3, 8])
def test_begun_midway_with_a_key_log_and_a_gap(tshark: Tshark, lost: int, folder: Path) -> None:
    text = f"SPARK_SESSION - {logged()[1]}\n".encode()
    log = folder / "gap.log"
    log.write_bytes(text)
    content = written(without(segments_of("mid-session"), lambda number, _: number == lost))
    path, shared = write_capture(tshark, f"midway-gap-{lost}.pcap", content, folder)
    trace = analyze(path, keys=KeyRing.load(keylogs=[str(log)]))
    run = dissect(tshark, shared, "-o", "spark.keylog:" + tshark.write(log.name, text), TWO_PASSES)
    assert listed_statistics(run) == expected_statistics(trace)
    assert sorted(run.messages) == sorted(expected_messages(trace))


# -- genuine CoAP over TCP ---------------------------------------------------------------------------------------

CSM: Final = bytes.fromhex("30e1") + bytes.fromhex("220480")[:3]
GET: Final = bytes.fromhex("7101aa") + b"\xb4temp" + b"\x51x"[:2]
CONTENT: Final = bytes.fromhex("5145aa") + b"\xff21.5"


def coap_session(*turns: tuple[bool, bytes], version: int = 4, midway: bool = False) -> bytes:
    """A capture of a TCP connection to 5683 in which (from the client, bytes) follow each other."""
    talk = Talk(device_end=(DEVICE_ADDRESS, 40123))
    talk.open()
    for client, data in turns:
        talk.send(DEVICE if client else SERVER, data)
    talk.close()
    segments = talk.segments[3:] if midway else talk.segments
    return written(segments, "ipv6" if version == 6 else "ethernet")


COAP: Final = {
    "server's CSM first": lambda: coap_session((False, CSM), (True, CSM), (True, GET), (False, CONTENT)),
    "client's CSM first": lambda: coap_session((True, CSM), (False, CSM), (True, GET), (False, CONTENT)),
    "request first": lambda: coap_session((True, GET), (False, CONTENT), (True, GET), (False, CONTENT)),
    "all in one segment": lambda: coap_session((True, CSM + GET), (False, CSM + CONTENT)),
    "split CSM": lambda: coap_session((True, CSM[:1]), (True, CSM[1:]), (False, CSM), (True, GET), (False, CONTENT)),
    "IPv6": lambda: coap_session((True, CSM), (False, CSM), (True, GET), (False, CONTENT), version=6),
    "midway": lambda: coap_session((True, GET), (False, CONTENT), (True, GET), (False, CONTENT), midway=True),
    "shipped": lambda: Path("captures/coap-over-tcp.pcap").read_bytes(),
}


@EACH_TSHARK
@pytest.mark.parametrize("story", COAP)
def test_genuine_coap_is_left_exactly_as_it_was(tshark: Tshark, story: str) -> None:
    shared = tshark.write("coap.pcap", COAP[story]())
    for options in (("-P", "-V"), ("-P", "-V", "-2"), ("-T", "json")):
        plain = tshark.run("-r", shared, *options, plugin=False)
        ours = tshark.run("-r", shared, *options)
        assert plain.returncode == ours.returncode == 0
        assert not ours.stderr
        assert without_traces(ours.stdout) == without_traces(plain.stdout), options


def without_traces(text: str) -> list[str]:
    """What tshark printed, without the two things that Wireshark itself adds wherever a Lua dissector is asked: its
    name among the protocols of a frame, and an empty item in JSON.
    """
    lines = text.replace(":tcp:spark", ":tcp").splitlines()
    return [line.rstrip(",") for line in lines if '"_ws.lua.fake"' not in line]


# -- keys that are none ------------------------------------------------------------------------------------------


def notes_of(run: Run) -> list[str]:
    """What the plugin says about the keys it was given."""
    return [note for row in run.rows for note in row.expert_notes]


def key_folder(tshark: Tshark, name: str, files: dict[str, bytes]) -> str:
    """A folder of files, and of folders where a name has a slash; returns its path for tshark."""
    folder = tshark.workspace / name
    for place, content in files.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    for each in (folder, *folder.rglob("*")):
        each.chmod(0o755 if each.is_dir() else 0o644)
    return "/" + str(folder.relative_to(tshark.root)) if str(tshark.root) != "/" else str(folder)


PEM: Final = (KEYS / "core-a.pem").read_bytes()
NO_KEYS: Final = {
    "device_key": {
        "random.bin": random.Random(4).randbytes(3000),
        "some.txt": b"hello\nworld\n",
        "empty": b"",
        "half.pem": PEM[:300],
        "zeros": bytes(4096),
        "lines": b"-----BEGIN RSA PRIVATE KEY-----\n" * 500,
    },
    "server_key": {"random.bin": random.Random(5).randbytes(500), "empty": b""},
    "keylog": {"empty": b"", "pem": PEM},
}


@EACH_TSHARK
@pytest.mark.parametrize(
    ("preference", "name"), [(preference, name) for preference, files in NO_KEYS.items() for name in files]
)
def test_a_file_without_a_key_gives_one_note(tshark: Tshark, preference: str, name: str) -> None:
    path = tshark.write(name, NO_KEYS[preference][name])
    run = dissect(tshark, tshark.share(Path("captures/key-mismatch-retries.pcap")), "-o", f"spark.{preference}:{path}")
    (note,) = notes_of(run)
    assert note.startswith(f"spark.{preference}: {path}: ")
    assert {"SPK206"} <= run.codes


@EACH_TSHARK
@pytest.mark.parametrize("preference", ["device_key", "server_key", "keylog"])
def test_a_path_that_leads_nowhere_gives_one_note(tshark: Tshark, preference: str) -> None:
    capture = tshark.share(Path("captures/key-mismatch-retries.pcap"))
    for path in ("/nowhere/at all", "nowhere", "/etc/shadow", "/proc/1/mem"):
        run = dissect(tshark, capture, "-o", f"spark.{preference}:{path}")
        (note,) = notes_of(run)
        assert note.startswith(f"spark.{preference}: {path}: ")
        assert {"SPK206"} <= run.codes


@EACH_TSHARK
def test_a_garbage_key_log_is_said_to_be_one_and_not_line_by_line(tshark: Tshark) -> None:
    path = tshark.write("garbage.log", b"\n".join(random.Random(9).randbytes(40).hex().encode() for _ in range(5000)))
    run = dissect(tshark, tshark.share(Path("captures/healthy-full.pcap")), "-o", f"spark.keylog:{path}")
    (note,) = notes_of(run)
    assert note.startswith(f"spark.keylog: {path}: line 1: ")
    assert re.search(r" \| \+\d more", note)
    # What is wrong stands in the verdict in full.
    for line in range(1, 6):
        assert f"line {line}:" in run.report
    assert "no session key in it" in " ".join(run.report.split())
    assert run.codes >= {"SPK001"}


@EACH_TSHARK
def test_paths_as_people_type_them(tshark: Tshark) -> None:
    folder = key_folder(tshark, "my keys", {"core a.pem": PEM, "deeper/core-b.pem": PEM, "notes.txt": b"mine"})
    home = key_folder(tshark, "home", {"typed key.pem": PEM})
    capture = tshark.share(Path("captures/healthy-full.pcap"))
    typed = (
        folder,
        f"{folder}/",
        f'"{folder}"',
        f"'{folder}/core a.pem'",
        f"  {folder}/core a.pem ",
        "~/typed key.pem",
    )
    for path in typed:
        run = dissect(tshark, capture, "-o", f"spark.device_key:{path}")
        assert len(run.messages) == 67, (path, home)
        assert notes_of(run) == []


@EACH_TSHARK
def test_a_folder_with_a_thousand_files(tshark: Tshark) -> None:
    rng = random.Random(11)
    files = {f"{number:04}.bin": rng.randbytes(600) for number in range(1000)}
    folder = key_folder(tshark, "thousand", {**files, "0500.pem": PEM})
    run = dissect(tshark, tshark.share(Path("captures/healthy-full.pcap")), "-o", f"spark.device_key:{folder}")
    assert notes_of(run) == []
    assert "1 of 1001 files hold keys" in " ".join(run.report.split())
    assert len(run.messages) == 67
    (tshark.workspace / "thousand" / "0500.pem").unlink()
    without = dissect(tshark, tshark.share(Path("captures/healthy-full.pcap")), "-o", f"spark.device_key:{folder}/")
    (note,) = notes_of(without)
    assert "0 of 1000 files hold keys" in note
    assert without.messages == []


# -- damage without sense ------------------------------------------------------------------------------------------


def moved(segments: Sequence[Segment], number: int) -> list[Segment]:
    """The same session from another device, so that many fit into one capture."""
    address = bytes((10, 1 + number // 200, number % 200, 9))
    port = 20_000 + number
    out = []
    for segment in segments:
        if from_device(segment):
            out.append(replace(segment, source=address, source_port=port))
        else:
            out.append(replace(segment, target=address, target_port=port))
    return out


def mutated(segments: Sequence[Segment], rng: random.Random) -> list[bytes]:
    """Frames of a session of which some are damaged anywhere, lost, repeated or out of place."""
    frames = []
    for segment in segments:
        payload = bytearray(segment.payload)
        chance = rng.random()
        if payload and chance < 0.12:
            for _ in range(rng.choice((1, 1, 2, 20))):
                payload[rng.randrange(len(payload))] = rng.randrange(256)
        elif payload and chance < 0.2:
            payload[:2] = rng.choice((b"\0\0", b"\xff\xff", b"\0\x11", b"\x04\x10", b"\0\x10", rng.randbytes(2)))
        elif payload and chance < 0.24:
            del payload[rng.randrange(len(payload)) :]
        elif chance < 0.28:
            payload += rng.randbytes(rng.randrange(1, 900))
        seq, ack, flags = segment.seq, segment.ack, segment.flags
        if rng.random() < 0.04:
            flags = rng.randrange(64)
        if rng.random() < 0.06:
            seq = rng.choice((rng.randrange(2**32), seq + rng.randrange(-3000, 3000))) % 2**32
        if rng.random() < 0.03:
            ack = (ack + rng.randrange(-3000, 70000)) % 2**32
        strange = replace(segment, payload=bytes(payload), length=len(payload), seq=seq, ack=ack, flags=flags)
        data = bytearray(ethernet(ip4(strange)))
        if rng.random() < 0.03:
            data[rng.randrange(14, 54)] = rng.randrange(256)
        if rng.random() < 0.02:
            del data[rng.randrange(1, len(data)) :]
        frames += [bytes(data)] * rng.choice((1, 1, 1, 1, 1, 1, 1, 0, 2))
    for _ in range(rng.choice((0, 1, 5))):
        a, b = rng.randrange(len(frames)), rng.randrange(len(frames))
        frames[a], frames[b] = frames[b], frames[a]
    return frames


FUZZED: Final = (
    "healthy-full",
    "key-mismatch-retries",
    "mid-session",
    "no-nonce",
    "lossy-link",
    "coap-over-tcp",
    "wrong-service-http302",
    "bad-signature",
)


def fuzzed(seed: int, sessions: int) -> bytes:
    """A capture of many mutated sessions at once."""
    rng = random.Random(seed)
    lanes = []
    for number in range(sessions):
        name = rng.choice(FUZZED)
        segments = list(segments_of(name))
        if len(segments) > 150:
            start = rng.randrange(len(segments) - 149)
            segments = segments[start : start + 150]
        lanes.append(mutated(moved(segments, number), rng))
    out, time = [pcap_header()], 1_700_000_000_000_000
    while lanes:
        lane = rng.choice(lanes)
        frame = lane.pop(0)
        if not lane:
            lanes.remove(lane)
        time += rng.choice((100, 100, 2000, 40_000))
        out.append(record(frame, time // 10**6, time % 10**6, original=max(len(frame), rng.choice((0, 0, 0, 1500)))))
    return b"".join(out)


@EACH_TSHARK
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("options", [(), ("-o", "spark.reassemble_out_of_order:FALSE")], ids=["ordered", "unordered"])
def test_nonsense_never_stops_it(tshark: Tshark, seed: int, options: tuple[str, ...]) -> None:
    shared = tshark.write("fuzzed.pcap", fuzzed(seed, 12))
    keys = keys_of(tshark)
    one = dissect.__wrapped__(tshark, shared, *options, *keys)
    two = dissect.__wrapped__(tshark, shared, TWO_PASSES, *options, *keys)
    assert one.packets == two.packets
    # A key is sure only after some frames; then the second pass opens those too. Nothing else differs.
    assert one.report == two.report


def bombs(rng: random.Random) -> Iterable[bytes]:
    """Messages that a peer with the right key could send: options without end, numbers out of range, deep JSON."""
    yield b""
    yield b"\x40"
    yield b"\x4f\x02\0\1" + bytes(15)
    yield b"\x40\x02\0\1" + b"\x11a" * 300
    yield b"\x40\x02\0\1" + b"\xb1E" + b"\x01a" * 300
    yield b"\x40\x02\0\1" + b"\xee\xff\xff\xff\xff" * 20
    yield b"\x40\x02\0\1" + b"\xb1h\xff" + bytes(range(200))
    yield b"\x40\x02\0\1" + b"\xb1E\x0d\xff" + b"n" * 268 + b"\xff" + b"\xf0\x9f\x92\x80" * 40
    yield b"\x40\x02\0\1" + b"\xb1d\xff" + b"[" * 700
    yield b"\x61\x45\0\1\1\xff" + b'{"f":' + b'{"a":' * 150
    yield b"\x61\x45\0\1\1\xff" + b'{"v":{"x":1e999,"y":-0,"z":123456789012345678901234567890},"p":-5,"m":[1,null,[]]}'
    yield b"\x51\x45\0\1\1\xff" + b"\xff" * 8
    yield b"\x41\x01\0\2\2" + b"\xb1v" + b"\x0c" + b"temperature1"[:12]
    for _ in range(40):
        yield rng.randbytes(rng.randrange(4, 300))
    for letter in b"hedfvtscuEGz":
        body = rng.randbytes(rng.randrange(0, 60))
        for first in (b"\x40\x01", b"\x50\x02", b"\x40\x03", b"\x41\x02", b"\x61\x44", b"\x40\x45"):
            token = rng.randbytes(1) if first[0] & 15 else b""
            yield first + rng.randbytes(2) + token + bytes((0xB1, letter)) + (b"\xff" + body if body else b"")


@EACH_TSHARK
@pytest.mark.parametrize("firmware", ["core-2014", "photon-1.4"])
def test_messages_under_the_right_key_may_hold_anything(tshark: Tshark, firmware: str, folder: Path) -> None:
    world = make_world(seed=7, firmware=firmware)  # type: ignore[arg-type]
    device = world.add_device()
    conversation = Conversation(world, device, at=0.0)
    conversation.handshake()
    rng = random.Random(7)
    for number, coap in enumerate(bombs(rng)):
        says = conversation.device_says if number % 3 else conversation.server_says
        says(coap, after=0.02)
    simulation = finish(world)
    path, shared = write_capture(tshark, f"bombs-{firmware}.pcap", simulation.capture(), folder)
    keys = key_folder(tshark, f"bomb-keys-{firmware}", simulation.keys)
    names = [str(tshark.workspace / f"bomb-keys-{firmware}")]
    trace = analyze(path, keys=KeyRing.load(*names))
    for passes in PASSES:
        run = dissect(tshark, shared, "-o", f"spark.device_key:{keys}", *passes)
        assert sorted(run.messages) == sorted(expected_messages(trace))
        for (row, item), message in zip(
            sorted(((r, i) for r, i in run.items if i.get("message")), key=lambda one: one[0].number),
            sorted((m for c in trace.conversations for m in c.messages), key=lambda one: one.packet),
            strict=True,
        ):
            assert row.number == message.packet
            assert not differing_values(item, message), (row.number, differing_values(item, message))


# -- live ----------------------------------------------------------------------------------------------------------


@EACH_TSHARK
def test_live_every_message_comes_as_it_arrives(tshark: Tshark) -> None:
    """What tshark has been given is answered before the next packet is there. It looks for more twice a second."""
    content = Path("captures/healthy-full.pcap").read_bytes()
    expected = dissect(tshark, tshark.share(Path("captures/healthy-full.pcap")), *keys_of(tshark))
    told = [row.number for row in expected.rows if any(item.get("stage") for item in row.items)][:25]
    script = "lua_script:" + tshark.write(FILE_NAME, generate().encode())
    command = [*tshark.command, "tshark", "-l", "-X", script, *keys_of(tshark), "-i", "-", "-Y", "spark.stage"]
    with subprocess.Popen(
        [*command, "-T", "fields", "-e", "frame.number"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        process.stdin.write(content[:24])
        at, number = 24, 0
        while number < told[-1]:
            size = 16 + int.from_bytes(content[at + 8 : at + 12], "little")
            process.stdin.write(content[at : at + size])
            process.stdin.flush()
            at, number = at + size, number + 1
            if number in told:
                assert process.stdout.readline().strip() == str(number).encode()
        process.stdin.close()
        assert process.stdout.read() == b""
        watchdog.cancel()
