"""Packets on their way from one worker to another: bytes, because those travel at the speed of memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct

from analyzer.capture import Packet

# Number within its range, time (ns), link type, original length, interface within its range, captured bytes.
_HEADER = Struct("<QQIIII")


def packed(packet: Packet) -> tuple[bytes, bytes]:
    """Return a packet as two pieces that belong one behind the other."""
    data = packet.data
    header = _HEADER.pack(
        packet.number, packet.time_ns, packet.link_type, packet.original_length, packet.interface, len(data)
    )
    return header, data


def unpacked(blob: bytes, before: int, interfaces: Sequence[int]) -> Iterator[Packet]:
    """Yield the packets of a range again.

    ``before`` is how many numbers lie ahead of the range, ``interfaces`` are the numbers of its interfaces in the
    whole run; one that it does not name keeps its number.
    """
    at, size, known = 0, _HEADER.size, len(interfaces)
    while at < len(blob):
        number, time_ns, link_type, original, interface, captured = _HEADER.unpack_from(blob, at)
        at += size
        place = interfaces[interface] if interface < known else interface
        yield Packet(before + number, time_ns, link_type, blob[at : at + captured], original, place)
        at += captured
