"""Packets that the capture holds twice: seen on two interfaces, behind a bridge or by a mirror port (DIAGNOSES 704).

A copy is not a retransmission: the sender sent it once. It is dropped before anything is counted.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from analyzer.network.units import Segment

COPIES: Final = 64
"""Headers remembered per direction, at least, to know a packet that the capture holds twice."""
COPY_NS: Final = 1_000_000
"""A packet without an IP identification seen again within this time is the same packet captured twice."""
COPY_WITH_ID_NS: Final = 1_000_000_000
"""One with the same IP identification is a copy within this time: a packet sent again has a new one, but hosts
that put the same into every packet repeat a SYN with it after a second and more."""
ENTRY: Final = Struct("<iIIHIQI").pack
"""One header in the log: IP identification (-1 for none), sequence and acknowledgement number, flags, length, then the
lower 64 bits of the time (ns), which begin again after 584 years, and the interface."""
_KEY: Final = Struct("<iIIHI")
_PLACE: Final = Struct("<QI")
_TIMES: Final = 1 << 64
_KEY_SIZE: Final = _KEY.size
ENTRY_SIZE: Final = _KEY.size + _PLACE.size
FULL: Final = COPIES * ENTRY_SIZE


class Headers:
    """TCP headers of the last packets of one direction, to know a packet that the capture holds twice.

    Two generations: when the younger is full it becomes the older, so that nothing is ever moved. Each is one string
    of bytes, which takes a tenth of the room that a dictionary would, and is searched about as fast.
    """

    __slots__ = ("last_id", "numbered", "older", "younger")

    def __init__(self) -> None:
        self.numbered = True  # False when different packets have the same IP identification: then it says nothing
        self.last_id: int | None = None
        self.younger = bytearray()
        self.older = bytearray()

    def repeats(self, segment: Segment) -> bool:
        """Whether this packet was seen before; if not, remember it.

        On another interface it may come at any time: capture points see a packet many milliseconds apart, and
        their clocks differ. On the same one, the IP identification must be the same, or it must come at once.
        """
        ip_id = segment.ip_id
        key = _key(segment)
        known = self._find(key)
        if known is not None:
            apart = (segment.time_ns - known[0]) % _TIMES
            apart = min(apart, _TIMES - apart)
            if known[1] != segment.interface or apart <= (COPY_WITH_ID_NS if ip_id and self.numbered else COPY_NS):
                return True
        elif ip_id == self.last_id:
            self.numbered = False
        self.last_id = ip_id
        if len(self.younger) >= FULL:
            self.turn_over()
        place = _PLACE.pack(segment.time_ns % _TIMES, segment.interface)
        at = _at(self.younger, key) if known is not None else -1
        if at >= 0:
            self.younger[at + _KEY_SIZE : at + ENTRY_SIZE] = place
        else:
            self.younger += key + place
        return False

    def turn_over(self) -> None:
        """Begin a new generation: the younger is full."""
        self.older, self.younger = self.younger, bytearray()

    def knows(self, segment: Segment) -> bool:
        """Whether this may be a copy of a packet seen before; nothing is remembered."""
        known = self._find(_key(segment))
        return known is not None and (known[1] != segment.interface or bool(segment.ip_id and self.numbered))

    def _find(self, key: bytes) -> tuple[int, int] | None:
        """Return time (ns) and interface of the last packet with this header, None where there is none."""
        for generation in (self.younger, self.older):
            at = _at(generation, key)
            if at >= 0:
                time_ns, interface = _PLACE.unpack_from(generation, at + _KEY_SIZE)
                return time_ns, interface
        return None


def _key(segment: Segment) -> bytes:
    ip_id = segment.ip_id
    return _KEY.pack(-1 if ip_id is None else ip_id, segment.seq, segment.ack, segment.flags, segment.length)


def _at(generation: bytearray, key: bytes) -> int:
    at = generation.find(key)
    while at > 0 and at % ENTRY_SIZE:  # across two headers, by chance
        at = generation.find(key, at + 1)
    return at
