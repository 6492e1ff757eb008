"""Whose work a conversation is when several share the work on one capture.

By the device's address: everything that connections tell of each other (a port used again, keys of an earlier
session, who dials again) stays with one worker, and who that is does not depend on how the work is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

from analyzer.network.units import Segment


@dataclass(frozen=True, slots=True)
class Share:
    """Share number ``index`` of ``of`` equal ones; the number ``of`` itself is of nobody.

    One of all workers takes note of what is in the capture besides conversations.
    """

    index: int
    of: int
    takes_note: bool

    def holds(self, segment: Segment, ports: frozenset[int]) -> bool:
        """Whether a segment to or from one of the server's ``ports`` is for this share."""
        return owner(segment, ports, self.of) == self.index


def owner(segment: Segment, ports: frozenset[int], shares: int) -> int:
    """Return which of so many shares a segment is for; the same for both directions of a connection."""
    if segment.source_port not in ports:
        device = segment.source
    elif segment.target_port not in ports:
        device = segment.target
    else:
        device = min(segment.source, segment.target)
    return crc32(device) % shares
