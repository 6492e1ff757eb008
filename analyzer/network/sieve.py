"""Packets of which it is known before they are decoded that nobody will learn anything from them.

In a capture of a busy network nearly all packets are of connections that have nothing to do with this protocol.
The first packets of a connection show that (`analyzer.background`); the others are told by their addresses and
ports where they lie in the file's buffer, and only counted. What passes the sieve is decoded as if there were none.
"""

from __future__ import annotations

from collections.abc import Collection
from struct import Struct
from typing import Final

from analyzer.capture.packet import Skip, Skips
from analyzer.network.decoder import ETHERNET, PLAIN_SIZE, SMALLEST_UDP, UDP_HEADER
from analyzer.network.ip import TCP, UDP
from analyzer.network.link import IPV4
from analyzer.network.units import SYN

# Ethernet, IPv4 without options, and what follows: EtherType; version and header size, total length, fragment,
# protocol; addresses and ports in one; length of a UDP datagram; data offset of a TCP segment, its flags.
SHAPE: Final = Struct("!12xH BxH2xHxB2x 12s H6xBB").unpack_from


class Sieve:
    """Keeps what was found out about connections, and counts what it holds back.

    ``dull`` counts TCP segments by source, target, source port and target port, as the header has them (12 bytes);
    those of a connection that is not in it pass, and so does every SYN. UDP datagrams are held back and counted in
    ``datagrams`` unless one of their ports is in ``heard``.
    """

    def __init__(self, heard: Collection[int]) -> None:
        self.dull: dict[bytes, int] = {}
        self.datagrams = 0
        self._woken = 0
        self._heard = frozenset(port.to_bytes(2) for port in heard)

    @property
    def skips(self) -> Skips:
        """The test for each link type that there is one for."""
        return {ETHERNET: self._ethernet()}

    @property
    def held(self) -> int:
        """How many packets were held back."""
        return self.datagrams + self._woken + sum(self.dull.values())

    def wake(self, ends: bytes) -> int:
        """Let the segments of these ends pass again; return how many were held back."""
        held = self.dull.pop(ends, 0)
        self._woken += held
        return held

    def _ethernet(self) -> Skip:
        dull, heard = self.dull, self._heard  # a closure, because each packet of the capture comes through here

        def skip(buffer: bytes, at: int, size: int) -> bool:
            if size < PLAIN_SIZE:
                return False
            kind, version_size, total, fragment, protocol, ends, udp_size, offset, flags = SHAPE(buffer, at)
            if version_size != 0x45 or kind != IPV4 or fragment & 0x3FFF:
                return False
            if protocol == TCP:
                count = dull.get(ends)
                if count is None or flags & SYN or not 20 <= offset >> 2 & 0x3C <= total - 20:
                    return False
                dull[ends] = count + 1
                return True
            if protocol != UDP or total < SMALLEST_UDP or 0 < udp_size < UDP_HEADER:
                return False
            if ends[8:10] in heard or ends[10:] in heard:
                return False
            self.datagrams += 1
            return True

        return skip
