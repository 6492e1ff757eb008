"""Packets that the capture holds twice: seen on two interfaces, behind a bridge or by a mirror port (DIAGNOSES 704).

A copy is not a retransmission: the sender sent it once. It is dropped before anything is counted.
"""

from __future__ import annotations

from typing import Final

from analyzer.network.units import Segment

COPIES: Final = 64
"""Headers remembered per direction, at least, to know a packet that the capture holds twice."""
COPY_NS: Final = 1_000_000
"""A packet without an IP identification seen again within this time is the same packet captured twice."""
COPY_WITH_ID_NS: Final = 1_000_000_000
"""One with the same IP identification is a copy within this time: a packet sent again has a new one, but hosts
that put the same into every packet repeat a SYN with it after a second and more."""


class Headers:
    """TCP headers of the last packets of one direction, to know a packet that the capture holds twice.

    Two generations: when the younger is full it becomes the older, so that nothing is ever moved.
    """

    __slots__ = ("_last_id", "_older", "_younger", "numbered")

    def __init__(self) -> None:
        self.numbered = True  # False when different packets have the same IP identification: then it says nothing
        self._last_id: int | None = None
        self._younger: dict[tuple[int | None, int, int, int, int], tuple[int, int]] = {}
        self._older = self._younger

    def repeats(self, segment: Segment) -> bool:
        """Whether this packet was seen before; if not, remember it.

        On another interface it may come at any time: capture points see a packet many milliseconds apart, and
        their clocks differ. On the same one, the IP identification must be the same, or it must come at once.
        """
        ip_id = segment.ip_id
        header = (ip_id, segment.seq, segment.ack, segment.flags, segment.length)
        known = self._younger.get(header) or self._older.get(header)
        if known is not None:
            apart = abs(segment.time_ns - known[0])
            if known[1] != segment.interface or apart <= (COPY_WITH_ID_NS if ip_id and self.numbered else COPY_NS):
                return True
        elif ip_id == self._last_id:
            self.numbered = False
        self._last_id = ip_id
        if len(self._younger) >= COPIES:
            self._older, self._younger = self._younger, {}
        self._younger[header] = segment.time_ns, segment.interface
        return False

    def knows(self, segment: Segment) -> bool:
        """Whether this may be a copy of a packet seen before; nothing is remembered."""
        header = (segment.ip_id, segment.seq, segment.ack, segment.flags, segment.length)
        known = self._younger.get(header) or self._older.get(header)
        return known is not None and (known[1] != segment.interface or bool(segment.ip_id and self.numbered))
