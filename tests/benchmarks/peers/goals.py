"""What is to be reached: each goal compares two runs of one round, or the memory of a run with a bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from .runs import Held, Took, ratios
from .tools import FIELDS, FLOOR, FOLLOW, NODE, TCPDUMP, TCPFLOW, TSHARK, job_name


class Work(NamedTuple):
    """A workload, and the verb that is measured on it."""

    workload: str
    verb: Literal["analyze", "decrypt"]

    def __str__(self) -> str:
        return f"*{self.workload}*, `{self.verb}{' --format jsonl' if self.verb == 'decrypt' else ''}`"


@dataclass(frozen=True, slots=True)
class Goal:
    """``ours`` may take at most ``bound`` times what ``other`` takes; or is to have so many times its speed."""

    work: Work
    ours: str
    other: str
    bound: float
    of: Literal["wall time", "processor time", "speed"] = "wall time"

    def __str__(self) -> str:
        return f"{'≥' if self.of == 'speed' else '≤'} {self.bound:g} × the {self.of}"

    def measured(self, ours: Sequence[Took], others: Sequence[Took]) -> tuple[float, float, float]:
        """Return the median, the least and the greatest ratio of the rounds."""
        if self.of == "processor time":
            return ratios([one.processor for one in ours], [one.processor for one in others])
        walls = [[one.wall for one in runs] for runs in (ours, others)]
        return ratios(*walls[:: -1 if self.of == "speed" else 1])

    def is_met(self, ratio: float) -> bool:
        """Whether such a median is good enough."""
        return ratio >= self.bound if self.of == "speed" else ratio <= self.bound


ONE, TWO = job_name(1), job_name(2)
NEEDLE, FLEET = Work("needle", "analyze"), Work("fleet", "analyze")
FLEET_OPENED, LONG_OPENED = Work("fleet", "decrypt"), Work("long", "decrypt")

GOALS: Final = (
    Goal(NEEDLE, TWO, TCPDUMP.says, 1.25),
    Goal(NEEDLE, ONE, TCPDUMP.says, 1.6),
    Goal(NEEDLE, ONE, TSHARK.says, 0.04),
    Goal(FLEET, TWO, TCPFLOW.says, 0.8),
    Goal(FLEET_OPENED, TWO, FIELDS.says, 0.33),
    Goal(LONG_OPENED, ONE, FOLLOW.says, 0.40),
    Goal(LONG_OPENED, ONE, NODE, 2, "speed"),
    Goal(FLEET, ONE, FLOOR, 2.5, "processor time"),
    Goal(FLEET, TWO, ONE, 1.6, "speed"),
)
MEMORY_GOALS: Final[dict[str, int]] = {"needle": 64, "fleet": 128, "long": 64, "stalls": 64}
"""MiB that the largest process of one job may hold."""
GROWTH: Final = 4
GROWTH_GOAL: Final = 1.1
"""A file of four times the size may take so many times the memory."""

Taken = dict[Work, dict[str, list[Took]]]
Peaks = dict[tuple[str, bool, str], Held]
"""By workload, whether it is the whole one (or a quarter), and the name of the run."""


class Row(NamedTuple):
    """A goal with what was measured."""

    work: str
    ours: str
    other: str
    goal: str
    measured: str
    met: str


def of_time(taken: Taken) -> Iterator[Row]:
    """Yield the goals of wall time and processor time for the works that were done."""
    for goal in GOALS:
        runs = taken.get(goal.work)
        if runs is None:
            continue
        start = (str(goal.work), goal.ours, goal.other, str(goal))
        absent = [name for name in (goal.ours, goal.other) if name not in runs]
        if absent:
            yield Row(*start, f"not measured: no {' and no '.join(absent)} here", "–")
            continue
        middle, least, greatest = goal.measured(runs[goal.ours], runs[goal.other])
        yield Row(*start, f"{middle:.3g} × ({least:.3g}–{greatest:.3g})", verdict(goal.is_met(middle)))


def of_memory(peaks: Peaks) -> Iterator[Row]:
    """Yield the goals of memory for the workloads that were watched."""
    for (workload, whole, name), held in peaks.items():
        if not whole or name != ONE:
            continue
        work, peak = str(Work(workload, "analyze")), held.largest / 1024
        most = MEMORY_GOALS.get(workload)
        if most is not None:
            yield Row(work, name, "–", f"≤ {most} MiB", f"{peak:.1f} MiB", verdict(peak <= most))
        quarter = peaks[workload, False, name].largest / 1024
        said = f"{peak / quarter:.2f} × ({quarter:.1f} → {peak:.1f} MiB)"
        goal = f"≤ {GROWTH_GOAL} × the memory"
        yield Row(work, name, "a quarter of it", goal, said, verdict(peak <= GROWTH_GOAL * quarter))


def verdict(met: bool) -> str:
    """Return the last word of a row."""
    return "met" if met else "**missed**"
