"""A place inside a captured frame, and how reading it ends early.

Every reader of a header moves one `Frame` forward. None of them needs to check lengths: asking for bytes that
are not there ends the reading of the packet with `Stop`, which only `Decoder.decode` catches.
"""

from __future__ import annotations

from typing import Final

MAX_LAYERS: Final = 32
"""Tags, label stacks and tunnels one inside the other. Real networks nest a handful (VLAN in VLAN, PPPoE, MPLS, one
tunnel); a hostile frame of 64 KB could nest thousands.
"""
NESTED: Final = "nested"
"""The kind of a packet that has more of them."""


class Stop(Exception):  # noqa: N818 - not an error: it is how the reading of an uninteresting packet ends
    """The packet is ``kind`` of `analyzer.network.units.Other`, and nothing more can be read."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Frame:
    """What remains to be read of a packet.

    ``at`` and ``end`` are positions in ``data``: the next byte, and the end of what was captured.
    ``wire_end`` is where the bytes ended on the wire, on the same scale; it lies beyond ``end`` in a cut
    packet. The MAC addresses (6 bytes) are set by the link layers that have them. ``more_in_frame`` says that
    the frame holds further packets, which are not read.
    """

    __slots__ = ("at", "data", "end", "layers", "more_in_frame", "source_mac", "target_mac", "wire_end")

    def __init__(self, data: bytes, wire_end: int) -> None:
        self.data = data
        self.at = 0
        self.end = len(data)
        self.wire_end = max(wire_end, self.end)
        self.layers = 0
        self.more_in_frame = False
        self.source_mac: bytes | None = None
        self.target_mac: bytes | None = None

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes and move behind them."""
        start = self.at
        self.skip(size)
        return self.data[start : self.at]

    def number(self, size: int) -> int:
        """Return the next ``size`` bytes as a number in network byte order."""
        return int.from_bytes(self.take(size), "big")

    def little(self, size: int) -> int:
        """Return the next ``size`` bytes as a number, low byte first (802.11 and its capture headers)."""
        return int.from_bytes(self.take(size), "little")

    def skip(self, size: int) -> None:
        """Move ``size`` bytes forward."""
        self.at += size
        if self.at > self.end:
            raise Stop("cut")

    def peek(self) -> int:
        """Return the next byte without moving."""
        if self.at >= self.end:
            raise Stop("cut")
        return self.data[self.at]

    def limit(self, size: int) -> None:
        """Say that what is being read has ``size`` more bytes: what follows is padding or a trailer."""
        self.wire_end = min(self.wire_end, self.at + size)
        self.end = min(self.end, self.wire_end)

    def claim(self, size: int) -> None:
        """Say that an IP header claims ``size`` more bytes, even if the wire is said to have had fewer."""
        self.wire_end = self.at + size
        self.end = min(self.end, self.wire_end)

    def enter(self) -> None:
        """Count one more layer of encapsulation."""
        self.layers += 1
        if self.layers > MAX_LAYERS:
            raise Stop(NESTED)

    @property
    def left(self) -> int:
        """Bytes that there were still to come on the wire, captured or not."""
        return self.wire_end - self.at
