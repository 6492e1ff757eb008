"""Packets that a reader of captures need not hand on: counted and numbered, they stay where they lie in the file.

In a capture of a busy network these are nearly all packets, and a call for each would cost as much as reading the
file. So this is the one place where the readers know of TCP: their loops look at it in the shape that is most common,
Ethernet with IPv4 and no options, and ask a function about every other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from functools import cache
from typing import Final, Literal, NamedTuple

from analyzer.catalogue import DNS_PORT

Skip = Callable[[bytearray, int, int], bool]
"""Tells of a packet, by the buffer that it lies in, its place there and its size in bytes, that it need not be handed
on, and counts it then if it is of TCP. It may look at `SPARE` bytes behind the packet."""

Tells = Callable[[bytes, bytes, int], bool]
"""Whether a DNS message, perhaps with something behind it, tells anything if it comes to this address at this time
(ns)."""

ETHERNET: Final = 1
PLAIN_SIZE: Final = 54
"""Bytes of the headers of a TCP segment in the common shape."""
PLAIN: Final = "12xHBxBB2xHxB2x12sH6xH"
"""For `struct`: EtherType; version and header size, total length in two halves, fragment, protocol; addresses and ports
in one; length of a UDP datagram; data offset of a TCP segment with its flags. It is read in the byte order of the file,
so what has two bytes is compared with `Usual` values."""
IPV4: Final = 0x0800
VERSION_4: Final = 0x45
DONT_FRAGMENT: Final = 0x4000
TCP: Final = 6
UDP: Final = 17
SYN: Final = 0x02
UDP_HEADER: Final = 8
DNS: Final = DNS_PORT.to_bytes(2)
PLAIN_DATAGRAM: Final = 42
"""Bytes of the headers of a UDP datagram in the common shape."""
SMALLEST_UDP: Final = 20 + UDP_HEADER


class Skips:
    """What is known of such packets. A reader consults it, whoever decodes the packets fills it.

    ``connections`` are directions of TCP connections by source, target, source port and target port as the
    header has them (12 bytes, 36 with IPv6), each with the cell of a list in which its segments are counted. UDP
    datagrams are of interest if one of their ports is in ``heard`` (2 bytes each); of those with name lookups in them
    ``tells`` is asked, if it is set, and ``lookups`` counts what was not handed on. ``tests`` has a function for each
    link type whose packets can be told at all. ``held_by_link`` counts all that was not handed on.
    """

    def __init__(self, heard: Collection[int] = ()) -> None:
        self.connections: dict[bytes, list[int]] = {}
        self.heard = frozenset(port.to_bytes(2) for port in heard)
        self.tests: dict[int, Skip] = {}
        self.tells: Tells | None = None
        self.lookups = 0
        self.held_by_link: Counter[int] = Counter()

    def hold(self, link_type: int, packets: int) -> None:
        """Count packets that were not handed on."""
        if packets:
            self.held_by_link[link_type] += packets

    def is_dull_lookup(self, buffer: bytearray, begin: int, end: int, ends: bytes, time_ns: int) -> bool:
        """Tell whether a plain datagram on a port in ``heard`` is a name lookup that tells nothing, and count it then.

        The packet lies in ``buffer`` from ``begin`` to ``end``; ``ends`` as in ``connections``.
        """
        if self.tells is None or DNS not in (ends[8:10], ends[10:]):
            return False
        if self.tells(bytes(buffer[begin + PLAIN_DATAGRAM : end]), ends[4:8], time_ns):
            return False
        self.lookups += 1
        return True


class Usual(NamedTuple):
    """Values of fields in network byte order, as they read in the byte order of a file."""

    ipv4: int
    intact: frozenset[int]
    """Of a datagram that is no fragment."""
    impossible_udp: frozenset[int]
    """Lengths that no datagram has."""
    least_of: dict[int, int]
    """Total length (bytes) that a TCP segment has at least, by data offset and flags; those of a SYN are not there."""


@cache
def usual_values(order: str) -> Usual:
    """Return them for an order as `struct` calls it."""
    byteorder: Literal["little", "big"] = "little" if order == "<" else "big"

    def read(value: int) -> int:
        return int.from_bytes(value.to_bytes(2), byteorder)

    return Usual(
        read(IPV4),
        frozenset((0, read(DONT_FRAGMENT))),
        frozenset(map(read, range(1, UDP_HEADER))),
        {
            read(words << 12 | flags): 20 + 4 * words
            for words in range(5, 16)
            for flags in range(256)
            if not flags & SYN
        },
    )


NO_SKIPS: Final = Skips()
