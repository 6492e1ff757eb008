"""Packets of which it is known before they are decoded that nobody will learn anything from them.

In a capture of a busy network nearly all packets are of connections that have nothing to do with this protocol.
The first packets of a connection show that (`analyzer.background`); the others are told by their addresses and
ports where they lie in the file's buffer, and only counted. What passes the sieve is decoded as if there were none.

The readers of captures tell the most common shape themselves (`analyzer.capture.skips`) and ask here about all others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from struct import Struct
from typing import Any, Final

from analyzer.capture.skips import ETHERNET, Skip, Skips
from analyzer.network.decoder import UDP_HEADER
from analyzer.network.ip import TCP, UDP
from analyzer.network.link import COOKED_WIFI, IPV4, IPV6, VLAN_TAGS
from analyzer.network.units import SYN

MOST_CONNECTIONS: Final = 131_072
"""Directions of connections that are held back at the same time; some 100 bytes each. With more, all begin anew."""
# IPv4 without options, and what follows: version and header size, total length, protocol; addresses and ports in one;
# length of a UDP datagram; data offset of a TCP segment, its flags.
SHAPE_4: Final = Struct("!BxH5xB2x 12s H6xBB").unpack_from
SIZE_4: Final = 40
# The same of IPv6 without extension headers.
SHAPE_6: Final = Struct("!B3xHBx 36s H6xBB").unpack_from
SIZE_6: Final = 60
RAW_IP: Final = (12, 14, 101, 228, 229)
LINUX_COOKED: Final = 113
LINUX_COOKED_2: Final = 276


class Sieve:
    """Keeps what was found out about connections, and counts what it holds back.

    Segments of a connection that `hold` has not been told of pass, and so does every SYN. UDP datagrams are held back
    unless one of their ports is in ``heard``; name lookups, which the readers tell in the most common shape alone, if
    ``skips.tells`` says that they tell nothing.
    """

    def __init__(self, heard: Collection[int]) -> None:
        self.skips = Skips(heard)
        """For the readers of captures."""
        self._connections = self.skips.connections
        self._heard = self.skips.heard
        self._by_port: dict[int, list[int]] = {}
        self._elsewhere = [0]
        self.skips.tests.update(dict.fromkeys(RAW_IP, self._raw_ip()))
        self.skips.tests.update(
            {
                ETHERNET: self._framed(14, 12),
                LINUX_COOKED: self._framed(16, 14, 2),
                LINUX_COOKED_2: self._framed(20, 0, 8),
            }
        )

    @property
    def held_by_link(self) -> Counter[int]:
        """How many packets were held back, by link type."""
        return self.skips.held_by_link

    @property
    def held(self) -> int:
        """How many packets were held back."""
        return self.skips.held_by_link.total()

    @property
    def segments(self) -> dict[int, int]:
        """How many of them were of TCP, by the lower port."""
        return {port: cell[0] for port, cell in self._by_port.items() if cell[0]}

    @property
    def datagrams(self) -> int:
        """How many of them were of UDP, and no name lookups."""
        return self.held - sum(self.segments.values()) - self.elsewhere - self.lookups

    @property
    def lookups(self) -> int:
        """How many of them were name lookups."""
        return self.skips.lookups

    @property
    def elsewhere(self) -> int:
        """How many of them were for other workers."""
        return self._elsewhere[0]

    def hold(self, ends: bytes) -> None:
        """Hold back the segments of these ends from now on: addresses, then ports, as a header has them."""
        port = min(int.from_bytes(ends[-4:-2]), int.from_bytes(ends[-2:]))
        self._hold(ends, self._by_port.setdefault(port, [0]))

    def pass_by(self, ends: bytes) -> None:
        """Hold back the segments of these ends because another worker takes them."""
        self._hold(ends, self._elsewhere)

    def _hold(self, ends: bytes, cell: list[int]) -> None:
        connections = self._connections
        if ends not in connections:
            if len(connections) >= MOST_CONNECTIONS:
                connections.clear()
            connections[ends] = cell

    def wake(self, ends: bytes) -> None:
        """Let the segments of these ends pass again."""
        self._connections.pop(ends, None)

    def _framed(self, header: int, kind_at: int, hardware_at: int | None = None) -> Skip:
        """Return the test for a link layer of ``header`` bytes, with the places of EtherType and kind of hardware."""
        test_4, test_6 = self._ip(SHAPE_4, SIZE_4, 20), self._ip(SHAPE_6, SIZE_6, 0)

        def test(buffer: bytearray, at: int, size: int) -> bool:
            kind = buffer[at + kind_at] << 8 | buffer[at + kind_at + 1]
            if hardware_at is not None and buffer[at + hardware_at] << 8 | buffer[at + hardware_at + 1] in COOKED_WIFI:
                return False
            skipped = header
            if kind in VLAN_TAGS:
                kind = buffer[at + header + 2] << 8 | buffer[at + header + 3]
                skipped += 4
            if kind == IPV4:
                return test_4(buffer, at + skipped, size - skipped)
            return kind == IPV6 and test_6(buffer, at + skipped, size - skipped)

        return test

    def _raw_ip(self) -> Skip:
        test_4, test_6 = self._ip(SHAPE_4, SIZE_4, 20), self._ip(SHAPE_6, SIZE_6, 0)

        def test(buffer: bytearray, at: int, size: int) -> bool:
            return (test_6 if buffer[at] >> 4 == 6 else test_4)(buffer, at, size)

        return test

    def _ip(self, shape: Callable[[bytearray, int], tuple[Any, ...]], smallest: int, header: int) -> Skip:
        """Return the test for one version of IP, which counts ``header`` bytes of its own to the length it tells."""
        cell_of, heard = self._connections.get, self._heard
        version, mask = (0x45, 0xFF) if header else (0x60, 0xF0)

        def test(buffer: bytearray, at: int, size: int) -> bool:
            if size < smallest:
                return False
            first, length, protocol, ends, udp_size, offset, flags = shape(buffer, at)
            if first & mask != version or (header and (buffer[at + 6] & 0x3F or buffer[at + 7])):
                return False  # not plain, or a fragment
            length -= header
            if protocol == TCP:
                cell = cell_of(ends)
                if cell is None or flags & SYN or not 20 <= offset >> 2 & 0x3C <= length:
                    return False
                cell[0] += 1
                return True
            return (
                protocol == UDP
                and length >= UDP_HEADER
                and not 0 < udp_size < UDP_HEADER
                and ends[-4:-2] not in heard
                and ends[-2:] not in heard
            )

        return test
