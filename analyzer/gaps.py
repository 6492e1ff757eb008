"""Where a capture of several files has a gap between two of them, by their names or by what TCP shows.

A file that is missing hides how each connection went on meanwhile: what seems to be lacking there may be in it. The
rules ask here what a gap hides of a connection.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final

from analyzer.capture.complaints import shown
from analyzer.capture.packet import CaptureFile
from analyzer.capture.series import Absent, absent_files
from analyzer.streams import HoleReason
from analyzer.wording import duration, moment, number, plural

if TYPE_CHECKING:
    from analyzer.conversation import Conversation

TOGETHER: Final = 3
"""Connections that lack bytes at one place; fewer may have lost them by themselves."""
SHARE: Final = 0.5
"""Part of the connections that are open there which must lack bytes; the rest may have been idle."""
TOLD: Final = 4
"""Gaps that are told one by one."""


@dataclass(slots=True)
class Gap:
    """A stretch of time between two files of which the capture has nothing.

    ``before`` is the last packet ahead of it, ``packet`` the first behind it, ``from_ns`` and ``to_ns`` their times.
    ``files`` are missing, as far as names tell (0: none); ``live`` connections have packets on both sides, of which
    ``torn`` lack bytes there. ``own`` are the first packets of the files of this series, and the last, where other
    files show what went on meanwhile; empty where none do.
    """

    before: int
    packet: int
    from_ns: int
    to_ns: int
    paths: tuple[str, str]
    files: int = 0
    names: str = ""
    live: int = 0
    torn: int = 0
    own: tuple[tuple[int, int], ...] = field(default=(), repr=False)

    def concerns(self, first_packet: int) -> bool:
        """Whether a connection that begins with this packet was captured into this series of files."""
        if not self.own:
            return True
        place = bisect_right(self.own, (first_packet, first_packet))
        return any(first <= first_packet <= last for first, last in self.own[max(0, place - 1) : place + 1])

    def __str__(self) -> str:
        one, other = (shown(os.path.basename(path)) for path in self.paths)
        between = f"between {one} and {other}"
        what = f"{self.names}: missing {between}" if self.files else f"{one}: packets are missing {between}"
        torn = f"; {_of(self.torn, self.live)} bytes" if self.torn else ""
        return f"{what}. The capture has nothing {self.span}{torn}."

    @property
    def span(self) -> str:
        """Where it lies, for people."""
        time = max(0, self.to_ns - self.from_ns)
        where = f"between packets {number(self.before)} and {number(self.packet)}"
        return f"{where} ({duration(time)} from {moment(self.from_ns)})"


def _of(torn: int, live: int) -> str:
    lack = "lacks" if torn == 1 else "lack"
    if torn == live:
        return f"{'the one connection' if live == 1 else f'all {number(live)} connections'} open then {lack}"
    return f"{number(torn)} of {number(live)} connections open then {lack}"


class Gaps:
    """The gaps of a capture, in the order of the packets behind them."""

    def __init__(self, gaps: Iterable[Gap] = ()) -> None:
        self.all = sorted(gaps, key=lambda gap: gap.packet)
        self._packets = [gap.packet for gap in self.all]

    def within(self, c: Conversation, first: int, last: int) -> Gap | None:
        """Return the first gap that lies behind packet ``first`` and up to packet ``last`` and concerns ``c``."""
        if not self.all:
            return None
        places = range(bisect_right(self._packets, first), bisect_right(self._packets, last))
        return next((self.all[place] for place in places if self.all[place].concerns(c.first_packet)), None)

    def behind(self, c: Conversation, until_ns: int | None = None) -> Gap | None:
        """Return the gap behind the last packet of ``c``, if it begins before ``until_ns``."""
        if not self.all:
            return None
        places = range(bisect_right(self._packets, c.last_packet), len(self.all))
        gap = next((self.all[place] for place in places if self.all[place].concerns(c.first_packet)), None)
        return gap if gap is not None and (until_ns is None or gap.from_ns < until_ns) else None

    @property
    def files(self) -> int:
        """Files that are missing, as far as their names tell."""
        return sum(gap.files for gap in self.all)

    @property
    def sentences(self) -> list[str]:
        """What to tell the user, each of the first few gaps by itself."""
        more = len(self.all) - TOLD
        lines = [str(gap) for gap in self.all[:TOLD]]
        return [*lines, f"{plural(more, 'further gap')} between files of this capture."] if more > 0 else lines


def find_gaps(captures: Sequence[CaptureFile], conversations: Iterable[Conversation]) -> Gaps:
    """Return the gaps between the files, by their names and by the connections that lack bytes between them."""
    if len(captures) < 2:
        return Gaps()
    by_name = {absent.after.first_number: _missing(absent, captures) for absent in absent_files(captures)}
    filled = [file for file in captures if file.packets]
    # Between files that overlap there is no border in time.
    borders = [
        (one, other)
        for one, other in pairwise(filled)
        if one.first_number + one.packets == other.first_number and (one.last_ns or 0) <= (other.first_ns or 0)
    ]
    found = dict(by_name)
    places = [other.first_number for _, other in borders]
    for (one, other), (live, torn) in zip(borders, _torn(places, conversations), strict=True):
        gap = found.get(other.first_number)
        if gap is None and torn >= TOGETHER and torn >= SHARE * live:
            gap = found[other.first_number] = _between(one, other)
        if gap is not None:
            gap.live, gap.torn = live, torn
    return Gaps(found.values())


def _between(one: CaptureFile, other: CaptureFile) -> Gap:
    from_ns, to_ns = one.last_ns or 0, other.first_ns or 0
    last = one.first_number + one.packets - 1
    return Gap(last, other.first_number, min(from_ns, to_ns), to_ns, (one.path, other.path))


def _missing(absent: Absent, captures: Sequence[CaptureFile]) -> Gap:
    gap = _between(absent.before, absent.after)
    gap.files, gap.names = absent.count, absent.names
    if len(absent.series) < len(captures):
        mine = {file.first_number for file in absent.series}
        meanwhile = any(
            file.first_number not in mine and (file.first_ns or 0) < gap.to_ns and (file.last_ns or 0) > gap.from_ns
            for file in captures
            if file.packets
        )
        if meanwhile:
            gap.own = tuple(sorted((file.first_number, file.first_number + file.packets - 1) for file in absent.series))
    return gap


def _torn(places: Sequence[int], conversations: Iterable[Conversation]) -> list[tuple[int, int]]:
    """Return for each place, the number of the first packet behind it, the connections that have packets on both
    sides of it, and those of them that lack bytes there which arrived.

    A hole that spans several places does not tell at which of them the bytes were.
    """
    changes, torn = [0] * (len(places) + 1), [0] * len(places)
    for c in conversations:
        first, last = bisect_right(places, c.first_packet), bisect_right(places, c.last_packet)
        if first == last:
            continue
        changes[first] += 1
        changes[last] -= 1
        lacking = set()
        for hole in c.holes:
            if hole.reason is HoleReason.NOT_CAPTURED and hole.before is not None:
                place = bisect_right(places, hole.before)
                if bisect_right(places, hole.packet) == place + 1:
                    lacking.add(place)
        for place in lacking:
            torn[place] += 1
    return list(zip(accumulate(changes[:-1]), torn, strict=True))
