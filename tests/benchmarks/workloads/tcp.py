"""TCP around what both ends write: the segments of one connection, in order, and what a bad path does to them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Final, Literal, NamedTuple

from .packets import ACK, FIN, PUSH, RST, SYN, Segment
from .talk import DEVICE, SERVER

MODULUS: Final = 1 << 32
MSS: Final = b"\x02\x04\x05\xb4"
ROUND_TRIP: Final = 30_000
"""Microseconds from the capture point to the device and back."""
Ending = Literal["device", "server", "reset", "none"]
"""Who closes first; ``none``: the capture ends before the connection does."""


class Write(NamedTuple):
    """What an end hands to TCP, ``wait`` microseconds after what was before."""

    wait: int
    sender: int
    data: bytes


def segments(writes: Iterable[Write], start: int, first: tuple[int, int], ending: Ending) -> Iterator[Segment]:
    """Yield the segments of a connection with the given first sequence numbers, from SYN to the ``ending``."""
    device, server = first
    yield Segment(start, DEVICE, device, 0, SYN, b"", MSS)
    after = [(device + 1) % MODULUS, (server + 1) % MODULUS]
    time = start + ROUND_TRIP
    yield Segment(start + 400, SERVER, server, after[DEVICE], SYN | ACK, b"", MSS)
    yield Segment(time, DEVICE, after[DEVICE], after[SERVER], ACK)
    unacknowledged: int | None = None
    for wait, sender, data in writes:
        if unacknowledged is not None and (unacknowledged == sender or wait > ROUND_TRIP + 10_000):
            # Data going the other way acknowledges by itself, if it comes soon; else an empty segment does.
            receiver = 1 - unacknowledged
            yield Segment(time + 400, receiver, after[receiver], after[unacknowledged], ACK)
        time += 500 + wait
        yield Segment(time, sender, after[sender], after[1 - sender], PUSH | ACK, data)
        after[sender] = (after[sender] + len(data)) % MODULUS
        unacknowledged = sender
    if unacknowledged is not None:
        receiver = 1 - unacknowledged
        yield Segment(time + 400, receiver, after[receiver], after[unacknowledged], ACK)
    yield from _close(time, after, ending)


def _close(time: int, after: list[int], ending: Ending) -> Iterator[Segment]:
    if ending == "none":
        return
    if ending == "reset":
        yield Segment(time + 900_000, DEVICE, after[DEVICE], after[SERVER], RST | ACK)
        return
    one = DEVICE if ending == "device" else SERVER
    other = 1 - one
    yield Segment(time + 500_000, one, after[one], after[other], FIN | ACK)
    past = [(number + 1) % MODULUS for number in after]
    yield Segment(time + 509_000, other, after[other], past[one], FIN | ACK)
    yield Segment(time + 518_000, one, past[one], past[other], ACK)


# Shares of the data segments of a bad path.
_LATE, _TWICE, _SWAPPED, _MERGED, _OVERLAPPING = 0.05, 0.05, 0.05, 0.03, 0.02
LOGIN: Final = 12
"""Segments at the start from which none is taken out for good: a session without its login cannot be opened."""
HOLES: Final = 2


def damaged(whole: Iterable[Segment], rng: random.Random, *, holes: bool) -> tuple[list[Segment], int]:
    """Return what a capture near a bad path has of a connection, and how many segments it never saw.

    Data is late by more than a second, comes twice, comes after what follows it, comes again merged with what
    follows it, or in two pieces that overlap. With ``holes``, some of it is missing although the other end got it.
    """
    sent = list(whole)
    data = [at for at, segment in enumerate(sent) if segment.data and at >= LOGIN]
    missing = set(rng.sample(data, min(HOLES, len(data)))) if holes else set()
    seen: list[Segment] = []
    before: dict[int, Segment] = {}
    for at, segment in enumerate(sent):
        if at in missing:
            continue
        seen += _on_its_way(segment, before.get(segment.sender), rng) if segment.data else [segment]
        if segment.data:
            before[segment.sender] = segment
    return sorted(seen, key=lambda segment: segment.time), len(missing)


def _on_its_way(segment: Segment, before: Segment | None, rng: random.Random) -> list[Segment]:
    luck = rng.random()
    if luck < (edge := _LATE):
        return [_later(segment, 1_200_000)]
    if luck < (edge := edge + _TWICE):
        return [segment, _later(segment, 700_000)]
    if luck < (edge := edge + _SWAPPED):
        return [_later(segment, 450_000)]
    if luck < (edge := edge + _MERGED):
        if before is None or (before.seq + len(before.data)) % MODULUS != segment.seq:
            return [segment]
        return [segment._replace(time=segment.time + 300_000, seq=before.seq, data=before.data + segment.data)]
    if luck < edge + _OVERLAPPING and len(segment.data) > 8:
        middle = len(segment.data) // 2
        second = (segment.seq + middle - 2) % MODULUS
        return [
            segment._replace(data=segment.data[: middle + 2]),
            segment._replace(time=segment.time + 200_000, seq=second, data=segment.data[middle - 2 :]),
        ]
    return [segment]


def _later(segment: Segment, by: int) -> Segment:
    return segment._replace(time=segment.time + by)
