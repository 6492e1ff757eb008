"""Histories in words: what became of a device, since when, and at what pace it tries again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from analyzer.histories import Change, Course, History, Outcome, Pattern, Together
from analyzer.trace import Trace
from analyzer.wording import clock, duration, listing, moment, number, plural

SECONDS_SHOWN: Final = 3600 * 1_000_000_000
"""In captures shorter than this (ns), times of the day are told with their seconds."""
TOLD_FROM: Final = 4
"""From more attempts than this on, their number and pace are told although nothing changed."""


@dataclass(frozen=True, slots=True)
class Times:
    """How moments of one capture read: with a date where it spans several days, with seconds where it is short."""

    first_ns: int
    last_ns: int

    @classmethod
    def of(cls, trace: Trace) -> Times:
        """The times of a capture."""
        return cls(trace.first_ns or 0, trace.last_ns or 0)

    def at(self, time_ns: int) -> str:
        """Return ``10:29``, ``10:29:05`` or ``2026-11-23 10:29``."""
        day, time = moment(time_ns).removesuffix(" UTC").split(" ", 1)
        if moment(self.first_ns)[: len(day)] != moment(self.last_ns)[: len(day)]:
            return f"{day} {clock(time_ns)}"
        return time if self.last_ns - self.first_ns < SECONDS_SHOWN else clock(time_ns)

    def place(self, time_ns: int, packet: int) -> str:
        """Return a moment with the packet that shows it."""
        return f"{self.at(time_ns)} (packet {number(packet)})"


def past_of(history: History, times: Times) -> str:
    """Say what became of a device, "" where one glance at its attempts tells as much."""
    course, judged = history.course, history.judged
    worked, failed = history.count(Outcome.WORKED), history.count(Outcome.FAILED)
    pace = f", {pace_of(history.pattern)}" if history.pattern is not None else ""
    attempts = plural(failed, "attempt")
    if course is Course.FAILS_SINCE:
        change = _last(history, Outcome.WORKED)
        before = times.place(change.before_ns, change.before_packet)
        run = plural(sum(a.conversation.number >= history.since.conversation.number for a in judged), "attempt")
        text = f"worked until {before}; fails since {times.place(change.time_ns, change.packet)}, {run}{pace}"
    elif course is Course.WORKS_SINCE:
        change = _last(history, Outcome.FAILED)
        before = times.place(change.before_ns, change.before_packet)
        since = times.place(change.time_ns, change.packet)
        text = f"failed until {before}, {attempts}{pace}; works since {since}"
    elif course is Course.NOW_AND_THEN:
        first, last = judged[0].conversation.start_ns, judged[-1].conversation.start_ns
        text = (
            f"{number(failed)} of {plural(len(judged), 'attempt')} failed, now and then, from {times.at(first)} to"
            f" {times.at(last)}{pace}"
        )
    elif course is Course.SEVERAL_AT_ONCE:
        text = f"{plural(worked, 'connection')} worked and {number(failed)} failed, some at the same time"
    elif course is Course.NEVER_WORKED and len(judged) > TOLD_FROM:
        first, last = judged[0].conversation.start_ns, judged[-1].conversation.start_ns
        text = f"{attempts} from {times.at(first)} to {times.at(last)}, not one without a fault{pace}"
    else:
        return ""
    differently = _differently(history, times)
    unjudged = len(history.attempts) - len(judged)
    unknown = f"; {plural(unjudged, 'attempt')} cannot be judged" if unjudged else ""
    moved = f" The device's address was {listing(history.device.addresses, 'then')}." if history.device.moved else ""
    return f"{text}{differently}{unknown}.{moved}"


def past_of_all(together: Together, times: Times) -> str:
    """Say what became of devices that fail for one reason."""
    firsts = sorted((m.failing for m in together.members if m.failing is not None), key=lambda a: a.time_ns)
    first, last = times.at(firsts[0].time_ns), times.at(firsts[-1].time_ns)
    packets_ = f"packets {number(firsts[0].packet)} to {number(max(a.packet for a in firsts))}"
    since = f"{first} to {last} ({packets_})" if first != last else f"{first} ({packets_})"
    text = f"first failures of the {number(len(firsts))} devices: {since}."
    if together.last_success is None:
        return text
    success = times.place(together.last_success.time_ns, together.last_success.packet)
    return f"last login of any device that worked: {success}; {text}"


def _last(history: History, was: Outcome) -> Change:
    return next(c for c in reversed(history.changes) if c.was is was and c.became is not was)


def _differently(history: History, times: Times) -> str:
    """Where the failure itself changed, once: since when it is another one."""
    others = [c for c in history.changes if c.was is c.became]
    if len(others) != 1:
        return ""
    (change,) = others
    return f"; fails in another way ({change.code}) from {times.place(change.time_ns, change.packet)} on"


def pace_of(pattern: Pattern) -> str:
    """Say how long a device waits before it tries again."""
    if pattern.kind == "fixed":
        return f"pause {duration(pattern.median_ns)}"
    if pattern.kind == "doubling":
        return f"pause {duration(pattern.first_ns)} growing to {duration(pattern.longest_ns)}"
    return f"pauses of {duration(pattern.shortest_ns)} to {duration(pattern.longest_ns)}"
