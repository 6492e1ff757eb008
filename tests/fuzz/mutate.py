"""Real captures, changed as networks, capture tools and attackers change them: packet by packet, checksums mended."""

from __future__ import annotations

from functools import cache
from typing import Final

from analyzer.capture.packet import Packet
from fuzz.base import shipped, story
from fuzz.script import Script

MOST: Final = 160
"""Packets of one base: enough for a login and the beginning of a session, or some attempts."""
SHIPPED: Final = (
    "healthy-full",
    "key-mismatch-retries",
    "bad-signature",
    "capture-gap",
    "coap-over-tcp",
    "encap-sll2",
    "lossy-link",
    "mid-session",
    "no-nonce",
    "nonce-looks-like-coap",
    "ota-server-gives-up",
    "photon-fast-ota",
    "port-blocked",
    "two-devices-background",
    "unknown-device",
    "wrong-server-key",
    "wrong-service-http302",
)
STORIES: Final = (
    "blocked-icmp",
    "crash-loop",
    "dead-key",
    "dns-failed",
    "dns-fallback-works",
    "http-portal",
    "keepalive-lost",
    "name-astray",
    "ota-gives-up",
    "port-reuse",
    "server-moved",
    "snaplen",
    "split-identity",
    "tls-client",
    "two-interfaces",
)
COUNT: Final = len(SHIPPED) + len(STORIES)
CLOCKS_NS: Final = (
    -1_000_000,
    1_000_000,
    -2_000_000_000,
    3_000_000_000,
    40_000_000_000,
    -3_600_000_000_000,
    86_400_000_000_000,
    -(10**18),
    3 * 10**18,
)
IPV4, TCP, ETHERNET = 0x0800, 6, 1
STEP: Final = 6
"""Bytes that one change takes from the script, but for those that it puts in."""


@cache
def base(number: int) -> tuple[Packet, ...]:
    """One of the captures, shortened."""
    if number < len(SHIPPED):
        return shipped(SHIPPED[number])[:MOST]
    return story(STORIES[number - len(SHIPPED)])[:MOST]


def mutated(script: Script, most: int = 48) -> list[Packet]:
    """A capture, changed as the script says, and numbered anew."""
    packets = list(base(script.below(COUNT)))
    for _ in range(most):
        if not script or not packets:
            break
        change, place, more = script.number(), script.number() % len(packets), script.number()
        CHANGES[change % len(CHANGES)](packets, place, more, script)
        del packets[4 * MOST :]
    for number, packet in enumerate(packets, 1):
        packets[number - 1] = changed(packet, number=number)
    return packets


def changed(
    packet: Packet,
    *,
    number: int | None = None,
    time_ns: int | None = None,
    data: bytes | None = None,
    original_length: int | None = None,
    interface: int | None = None,
) -> Packet:
    """The same packet, but for what is given."""
    size = packet.original_length if data is None else max(packet.original_length, len(data))
    return Packet(
        packet.number if number is None else number,
        packet.time_ns if time_ns is None else max(0, min(time_ns, (1 << 63) - 1)),
        packet.link_type,
        packet.data if data is None else data,
        size if original_length is None else original_length,
        packet.interface if interface is None else interface,
    )


def network_at(packet: Packet) -> int | None:
    """Where IPv4 begins, if it does."""
    for at in {1: (14, 18), 113: (16,), 276: (20,), 101: (0,), 12: (0,), 0: (4,)}.get(packet.link_type, ()):
        if len(packet.data) >= at + 40 and packet.data[at] == 0x45 and packet.data[at + 9] == TCP:
            return at
    return None


def mended(data: bytes, at: int) -> bytes:
    """An IPv4 packet with TCP whose lengths and checksums are right again."""
    frame = bytearray(data)
    frame[at + 2 : at + 4] = (min(len(frame) - at, 0xFFFF)).to_bytes(2)
    frame[at + 10 : at + 12] = b"\0\0"
    frame[at + 10 : at + 12] = _sum(bytes(frame[at : at + 20]))
    tcp = at + 20
    frame[tcp + 16 : tcp + 18] = b"\0\0"
    segment = bytes(frame[tcp:])
    pseudo = bytes(frame[at + 12 : at + 20]) + b"\0\x06" + (len(segment) & 0xFFFF).to_bytes(2)
    frame[tcp + 16 : tcp + 18] = _sum(pseudo + segment)
    return bytes(frame)


def _sum(data: bytes) -> bytes:
    total = int.from_bytes(data + bytes(len(data) % 2)) % 0xFFFF
    return (0xFFFF - total).to_bytes(2)


# --- changes: packets, place, one number, and what follows in the script ------------------------------------------

Packets = list[Packet]


def _drop(packets: Packets, place: int, more: int, _: Script) -> None:
    del packets[place : place + 1 + more % 8]


def _again(packets: Packets, place: int, more: int, _: Script) -> None:
    packets.insert(min(place + 1 + more % 8, len(packets)), packets[place])


def _swap(packets: Packets, place: int, more: int, _: Script) -> None:
    other = (place + 1 + more % 8) % len(packets)
    packets[place], packets[other] = packets[other], packets[place]


def _cut(packets: Packets, place: int, more: int, _: Script) -> None:
    packet = packets[place]
    packets[place] = changed(packet, data=packet.data[: more or 54], original_length=packet.original_length)


def _cut_all(packets: Packets, place: int, more: int, _: Script) -> None:
    for at in range(place, len(packets)):
        _cut(packets, at, 54 + more, _)


def _flip(packets: Packets, place: int, more: int, script: Script) -> None:
    packet, at = packets[place], script.number(2)
    data = bytearray(packet.data)
    if data:
        data[at % len(data)] ^= more or 1
    packets[place] = changed(packet, data=bytes(data))


def _flip_mended(packets: Packets, place: int, more: int, script: Script) -> None:
    """Change a byte behind the network's addresses, and mend the checksums over it."""
    packet, where = packets[place], script.number(2)
    at = network_at(packet)
    if at is None:
        return
    data = bytearray(packet.data)
    data[at + 20 + where % (len(data) - at - 20)] ^= more or 1
    packets[place] = changed(packet, data=mended(bytes(data), at))


def _clock(packets: Packets, place: int, more: int, _: Script) -> None:
    """From here on the clock is another."""
    for at in range(place, len(packets)):
        packets[at] = changed(packets[at], time_ns=packets[at].time_ns + CLOCKS_NS[more % len(CLOCKS_NS)])


def _late(packets: Packets, place: int, more: int, _: Script) -> None:
    packets[place] = changed(packets[place], time_ns=packets[place].time_ns + CLOCKS_NS[more % len(CLOCKS_NS)])


def _numbers(packets: Packets, place: int, more: int, script: Script) -> None:
    """Shift the sequence number or the acknowledgement, or set the flags."""
    packet, by = packets[place], script.number(2) - (1 << 15)
    at = network_at(packet)
    if at is None:
        return
    data = bytearray(packet.data)
    field = at + 20 + (4, 8)[more & 1]
    if more & 2:
        data[at + 33] = by & 0x3F
    else:
        value = int.from_bytes(data[field : field + 4]) + (by << 16 if more & 4 else by)
        data[field : field + 4] = (value % (1 << 32)).to_bytes(4)
    packets[place] = changed(packet, data=mended(bytes(data), at))


def _payload(packets: Packets, place: int, more: int, script: Script) -> None:
    """Put other bytes into the payload, of any length."""
    packet, piece = packets[place], script.piece()
    at = network_at(packet)
    if at is None:
        return
    start = at + 20 + (packet.data[at + 32] >> 4) * 4
    where = min(len(packet.data), start + more)
    behind = where if more & 1 else where + len(piece)
    packets[place] = changed(
        packet, data=mended(packet.data[:where] + piece + packet.data[behind:], at), original_length=0
    )
    packets[place].original_length = len(packets[place].data)


def _splice(packets: Packets, place: int, more: int, script: Script) -> None:
    """Put packets of another capture between these, at its own times or at this one's."""
    other, begin = base(more % COUNT), script.number()
    some = other[begin % len(other) :][: 1 + script.below(16)]
    now = packets[place].time_ns
    if more & 128:
        some = tuple(changed(one, time_ns=now + at) for at, one in enumerate(some))
    packets[place:place] = some


def _one_way(packets: Packets, place: int, more: int, _: Script) -> None:
    """Only one direction passes here from now on."""
    packets[place:] = [packet for packet in packets[place:] if _from_server(packet) != bool(more & 1)]


def _from_server(packet: Packet) -> bool:
    at = network_at(packet)
    return at is not None and packet.data[at + 20 : at + 22] == (5683).to_bytes(2)


def _head(packets: Packets, place: int, more: int, script: Script) -> None:
    """Another interface, another length on the wire."""
    packet, size = packets[place], script.number(2)
    packets[place] = changed(packet, interface=more % 3, original_length=max(size, len(packet.data)))


def _end(packets: Packets, place: int, more: int, _: Script) -> None:
    del packets[place + 1 + more :]


def _begin(packets: Packets, place: int, _: int, __: Script) -> None:
    del packets[:place]


def _reverse(packets: Packets, place: int, more: int, _: Script) -> None:
    packets[place : place + 2 + more % 16] = reversed(packets[place : place + 2 + more % 16])


CHANGES: Final = (
    _drop, _again, _swap, _cut, _cut_all, _flip, _flip_mended, _clock, _late, _numbers, _payload, _splice, _one_way,
    _head, _end, _begin, _reverse, _flip_mended, _payload, _numbers,
)  # fmt: skip
