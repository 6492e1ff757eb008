"""Many connections, one beside the other, in the order of time; only those that are going on are held."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

Packet = tuple[int, bytes]
"""Microseconds since 1970, and the packet's bytes."""
Connection = tuple[int, Iterator[Packet]]
"""When it starts, at the latest, and its packets in the order of time."""


def interleave(connections: Iterable[Connection]) -> Iterator[Packet]:
    """Yield the packets of all; the connections themselves come in the order in which they start."""
    going: list[tuple[int, int, bytes, Iterator[Packet]]] = []
    for number, (start, packets) in enumerate(connections):
        while going and going[0][0] <= start:
            yield _step(going)
        first = next(packets, None)
        if first is not None:
            heapq.heappush(going, (first[0], number, first[1], packets))
    while going:
        yield _step(going)


def _step(going: list[tuple[int, int, bytes, Iterator[Packet]]]) -> Packet:
    time, number, packet, rest = going[0]
    following = next(rest, None)
    if following is None:
        heapq.heappop(going)
    else:
        heapq.heapreplace(going, (following[0], number, following[1], rest))
    return time, packet
