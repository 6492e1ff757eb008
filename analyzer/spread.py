"""How measured times spread, in little memory: exact number, least and greatest; percentiles from a histogram.

A connection that lasts for weeks is measured a million times, so the times themselves are not kept. The histogram
has steps of equal width on a logarithmic scale: each power of two is cut into 32, which makes every percentile right
within one part in 64, and at most two thousand counters of all the times that 64 bits can hold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from math import ceil
from typing import Final

STEP_BITS: Final = 6
"""Leading bits of a time that tell its step of the histogram; the first of them is always 1."""
ERROR: Final = 1 / 64
"""How far a percentile may be from the true one, as a part of it: half a step."""
_BEYOND: Final = 1 << 63
"""More than any time: a clock of nanoseconds in 64 bits."""


class Spread:
    """Times in whole nanoseconds, counted. A negative one is left out: the clock was set back in between."""

    __slots__ = ("_counts", "_greatest", "_least")

    def __init__(self, times: Iterable[int] = ()) -> None:
        self._counts: defaultdict[int, int] = defaultdict(int)  # by the lower edge of the step
        self._least, self._greatest = _BEYOND, -1
        for time_ns in times:
            self.add(time_ns)

    def add(self, time_ns: int) -> None:
        """Count one more time."""
        if time_ns < self._least:
            if time_ns < 0:
                return
            self._least = time_ns
        if time_ns > self._greatest:  # noqa: PLR1730 - once for each acknowledgement: a call costs more
            self._greatest = time_ns
        shift = time_ns.bit_length() - STEP_BITS
        self._counts[time_ns >> shift << shift if shift > 0 else time_ns] += 1

    def __len__(self) -> int:
        return sum(self._counts.values())

    @property
    def least(self) -> int | None:
        """The shortest time, in nanoseconds; None when there is none."""
        return self._least if self._counts else None

    @property
    def greatest(self) -> int | None:
        """The longest time, in nanoseconds; None when there is none."""
        return self._greatest if self._counts else None

    @property
    def median(self) -> int | None:
        """The time in the middle, in nanoseconds; None when there is none."""
        return self.percentile(0.5)

    def percentile(self, share: float) -> int | None:
        """Return the time (ns) that the given share of all (0 to 1) does not exceed; None when there is none.

        It stands for one of the times that were counted, not for a mean of two, and is right within `ERROR`.
        """
        below, rank = 0, max(1, ceil(share * len(self)))
        for edge, count in sorted(self._counts.items()):
            below += count
            if below >= rank:
                middle = edge + (1 << max(0, edge.bit_length() - STEP_BITS)) // 2
                return min(max(middle, self._least), self._greatest)
        return None

    @classmethod
    def together(cls, spreads: Iterable[Spread]) -> Spread:
        """Return what one would be that had counted the times of all."""
        whole = cls()
        for spread in spreads:
            for edge, count in spread._counts.items():
                whole._counts[edge] += count
            whole._least = min(whole._least, spread._least)
            whole._greatest = max(whole._greatest, spread._greatest)
        return whole
