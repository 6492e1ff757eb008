"""How measured times spread, in little memory: exact number, least and greatest; percentiles from a histogram.

A connection that lasts for weeks is measured a million times, so the times themselves are not kept. The histogram
has steps of equal width on a logarithmic scale: each power of two is cut into 32, which makes every percentile right
within one part in 64, and at most two thousand counters of all the times that 64 bits can hold.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from math import ceil
from struct import Struct
from typing import Final

STEP_BITS: Final = 6
"""Leading bits of a time that tell its step of the histogram; the first of them is always 1."""
ERROR: Final = 1 / 64
"""How far a percentile may be from the true one, as a part of it: half a step."""
LONGEST: Final = 1 << 63
"""More than any time but those of damaged captures: a clock of nanoseconds in 64 bits."""
MANY: Final = 64
"""Times that may wait to be counted."""
_NONE_WAITING: Final = array("Q")
_COUNTED: Final = Struct("<QI")
"""A step of the histogram and its count, packed."""


class Spread:
    """Times in whole nanoseconds, counted. A negative one is left out: the clock was set back in between."""

    __slots__ = ("_counts", "_greatest", "_least", "waiting")

    def __init__(self, times: Iterable[int] = ()) -> None:
        self._counts: dict[int, int] | bytes = b""  # by the lower edge of the step; or packed, once nothing more comes
        self._least, self._greatest = LONGEST, -1
        self.waiting = _NONE_WAITING
        """Times that are not counted yet, none negative nor above `LONGEST`: `add` without the call, for who adds one
        with every packet. Give it an array of its own first, and `count` when there are `MANY`."""
        for time_ns in times:
            self.add(time_ns)

    def add(self, time_ns: int) -> None:
        """Count one more time."""
        if time_ns < 0:
            return
        if time_ns < self._least:  # noqa: PLR1730 - once for each acknowledgement: a call costs more
            self._least = time_ns
        if time_ns > self._greatest:  # noqa: PLR1730
            self._greatest = time_ns
        shift = time_ns.bit_length() - STEP_BITS
        step = time_ns >> shift << shift if shift > 0 else time_ns
        counts = self._counts
        if type(counts) is not dict:
            counts = self._counts = self._unpacked()
        counts[step] = counts.get(step, 0) + 1

    def count(self) -> None:
        """Count what waits."""
        waiting = self.waiting
        if not waiting:
            return
        self._least, self._greatest = min(self._least, *waiting), max(self._greatest, *waiting)
        counts = self._counts = self._counts if type(self._counts) is dict else self._unpacked()
        for time_ns in waiting:
            shift = time_ns.bit_length() - STEP_BITS
            step = time_ns >> shift << shift if shift > 0 else time_ns
            counts[step] = counts.get(step, 0) + 1
        del waiting[:]

    def pack(self) -> None:
        """Say that nothing more comes: it then takes a quarter of the room, and each question some microseconds."""
        self.count()
        self.waiting = _NONE_WAITING
        if type(self._counts) is dict and self._greatest < LONGEST:
            self._counts = b"".join(_COUNTED.pack(*item) for item in self._counts.items())

    def packed(self) -> tuple[int, int, dict[int, int] | bytes]:
        """Return all of it as plain values, after `pack`."""
        return self._least, self._greatest, self._counts

    @classmethod
    def of_packed(cls, values: tuple[int, int, dict[int, int] | bytes]) -> Spread:
        """Return what `packed` gave these values of."""
        spread = cls()
        spread._least, spread._greatest, spread._counts = values
        return spread

    @property
    def counts(self) -> dict[int, int]:
        """How many times there are by the lower edge of the step of the histogram."""
        self.count()
        return self._counts if type(self._counts) is dict else self._unpacked()

    def _unpacked(self) -> dict[int, int]:
        return dict(_COUNTED.iter_unpack(bytes(self._counts)))

    def __len__(self) -> int:
        return sum(self.counts.values())

    @property
    def least(self) -> int | None:
        """The shortest time, in nanoseconds; None when there is none."""
        self.count()
        return self._least if self._least <= self._greatest else None

    @property
    def greatest(self) -> int | None:
        """The longest time, in nanoseconds; None when there is none."""
        self.count()
        return self._greatest if self._least <= self._greatest else None

    @property
    def median(self) -> int | None:
        """The time in the middle, in nanoseconds; None when there is none."""
        return self.percentile(0.5)

    def percentile(self, share: float) -> int | None:
        """Return the time (ns) that the given share of all (0 to 1) does not exceed; None when there is none.

        It stands for one of the times that were counted, not for a mean of two, and is right within `ERROR`.
        """
        counts = self.counts
        below, rank = 0, max(1, ceil(share * sum(counts.values())))
        for edge, count in sorted(counts.items()):
            below += count
            if below >= rank:
                middle = edge + (1 << max(0, edge.bit_length() - STEP_BITS)) // 2
                return min(max(middle, self._least), self._greatest)
        return None

    @classmethod
    def together(cls, spreads: Iterable[Spread]) -> Spread:
        """Return what one would be that had counted the times of all."""
        whole = cls()
        counts: dict[int, int] = {}
        for spread in spreads:
            for edge, count in spread.counts.items():
                counts[edge] = counts.get(edge, 0) + count
            whole._least = min(whole._least, spread._least)
            whole._greatest = max(whole._greatest, spread._greatest)
        whole._counts = counts
        return whole
