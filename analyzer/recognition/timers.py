"""The limits that the two ends of one connection have: those of the pair at hand, learnt, or of all known ones.

The Wireshark plugin judges a connection while the later ones are still to come, so it has the limits of everybody;
only how long the device waits for a hello it knows from the device's own one. What it says less often for that is
said by the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from analyzer.catalogue import SERVER_IDLE_LIMIT, SERVER_LOGIN_LIMITS, SERVER_UPDATE_LIMITS

REPEATS: Final = 3
"""Connections on which the same time must show before it is taken for a timer: two may be alike by accident."""
SPREAD: Final = 0.02
SPREAD_LEAST: Final = 0.25
"""How far apart (in parts of themselves, and at least in seconds) runs of one timer are: it is started by one packet
and ended by another, both of which a busy server sends late."""


@dataclass(frozen=True, slots=True)
class Timers:
    """What may have ended a connection, in seconds. The defaults are those of everybody that is known.

    ``login``, ``update``: limits the server may have for the whole of it. ``idle``: how long it may bear a silent
    device. ``hello_wait``: a device that leaves sooner after its hello did not leave for want of an answer; None
    where that is not known. ``learnt`` are those of them that are this capture's own.
    """

    login: tuple[float, ...] = SERVER_LOGIN_LIMITS
    idle: tuple[float, ...] = (SERVER_IDLE_LIMIT,)
    update: tuple[float, ...] = SERVER_UPDATE_LIMITS
    hello_wait: float | None = None
    learnt: tuple[float, ...] = ()


def repeated(seconds: Sequence[float]) -> float | None:
    """Return the middle of the times that are alike, when they are at least `REPEATS`; None when nothing repeats."""
    ordered = sorted(seconds)
    best: Sequence[float] = ()
    first = 0
    for last, longest in enumerate(ordered):
        while longest - ordered[first] > max(SPREAD_LEAST, SPREAD * longest):
            first += 1
        if last + 1 - first > len(best):
            best = ordered[first : last + 1]
    return best[len(best) // 2] if len(best) >= REPEATS else None
