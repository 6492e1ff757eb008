"""Fragments of IP datagrams, until they are whole again (RFC 791 3.2, RFC 8200 4.5).

Of bytes that come twice the first copy counts. Everything that waits is bounded, in number, bytes and
time of the capture, so that a file made of fragments without an end costs no more than these bounds.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

LARGEST_DATAGRAM: Final = 65535
"""What a datagram can hold: the length field of IPv4 and IPv6 has 16 bits."""
MAX_AGE_NS: Final = 60 * 10**9
"""Linux gives up after 30 s, RFC 8200 after 60 s; later than that no receiver completed it either."""
MAX_WAITING: Final = 1024
"""IP datagrams in pieces that wait for the rest: far more than a network that works ever has open at once."""
MAX_WAITING_BYTES: Final = 16 * 2**20
"""Bytes of them all together."""
MAX_HOLES: Final = 256
"""Pieces of the smallest allowed size in the worst order leave hundreds; each piece looks at every hole."""

Key = tuple[bytes, bytes, int, int]


class Datagram:
    """The pieces of one datagram so far, and the ranges (from, to) in bytes that are still missing."""

    __slots__ = ("data", "holes", "protocol", "size", "time_ns")

    def __init__(self, time_ns: int) -> None:
        self.time_ns = time_ns
        self.data = bytearray()
        self.holes: list[tuple[int, int]] = [(0, LARGEST_DATAGRAM)]
        self.size: int | None = None  # once the last piece has come
        self.protocol = 0

    def add(self, offset: int, piece: bytes, *, more: bool) -> None:
        """Fill what ``piece`` brings that is not there yet."""
        end = offset + len(piece)
        if not more and self.size is None and end >= len(self.data):
            self.size = end
            self.holes = [(start, min(stop, end)) for start, stop in self.holes if start < end]
        if len(self.data) < end:
            self.data.extend(bytes(end - len(self.data)))
        holes = []
        for start, stop in self.holes:
            if end <= start or stop <= offset:
                holes.append((start, stop))
                continue
            first, last = max(start, offset), min(stop, end)
            self.data[first:last] = piece[first - offset : last - offset]
            if start < first:
                holes.append((start, first))
            if last < stop:
                holes.append((last, stop))
        self.holes = holes

    @property
    def whole(self) -> bool:
        """Whether nothing is missing any more."""
        return not self.holes


class Fragments:
    """Puts IP datagrams together. ``given_up`` counts those whose other pieces never came, ``crowded_out`` those of
    them for which there was no room any more.
    """

    def __init__(self) -> None:
        self.given_up = self.crowded_out = 0
        self._datagrams: OrderedDict[Key, Datagram] = OrderedDict()
        self._bytes = 0

    @property
    def waiting(self) -> int:
        """How many datagrams still lack pieces."""
        return sum(not datagram.whole for datagram in self._datagrams.values())

    def add(
        self, key: Key, protocol: int, offset: int, piece: bytes | None, time_ns: int, *, more: bool
    ) -> tuple[int, bytes] | None:
        """Take in a piece at ``offset`` bytes; return protocol and bytes of the datagram that it completes.

        ``piece`` is None when the capture cut it: its datagram can never be whole. ``protocol`` counts of the
        first piece alone, since in IPv6 only that one's need be right.
        """
        self._forget_old(time_ns)
        datagram = self._datagrams.get(key)
        if datagram is not None and datagram.whole:
            # A second copy of the same packet is no news; other bytes mean that the number is in use again.
            if piece is None or datagram.data[offset : offset + len(piece)] == piece:
                return None
            self._forget(key)
            datagram = None
        if datagram is None:
            datagram = self._datagrams[key] = Datagram(time_ns)
        if piece is None or not piece or offset + len(piece) > LARGEST_DATAGRAM:
            return None
        if offset == 0:
            datagram.protocol = protocol
        before = len(datagram.data)
        datagram.add(offset, piece, more=more)
        self._bytes += len(datagram.data) - before
        if datagram.whole:
            return datagram.protocol, bytes(datagram.data[: datagram.size])
        if len(datagram.holes) > MAX_HOLES:
            self.crowded_out += 1
            self._forget(key)
        return None

    def _forget_old(self, time_ns: int) -> None:
        """Make room for one more, oldest first."""
        while self._datagrams:
            key, oldest = next(iter(self._datagrams.items()))
            crowded = len(self._datagrams) >= MAX_WAITING or self._bytes >= MAX_WAITING_BYTES
            if time_ns - oldest.time_ns <= MAX_AGE_NS:
                if not crowded:
                    return
                self.crowded_out += not oldest.whole
            self._forget(key)

    def _forget(self, key: Key) -> None:
        datagram = self._datagrams.pop(key)
        self._bytes -= len(datagram.data)
        if not datagram.whole:
            self.given_up += 1
