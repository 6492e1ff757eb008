"""Files that one capture program wrote one after another: which of them are missing, by their numbers.

Ring buffers and rotated files are numbered: ``NAME_00007_20150101120000.pcapng`` (dumpcap, Wireshark, tshark),
``NAME``, ``NAME1``, ``NAME2`` or ``NAME07`` (``tcpdump -C``, ``-W``), ``NAME.pcap.7.gz`` (logrotate, the highest number
being the oldest). A number that is skipped between two files, when time goes on from the one to the other, is a file
that is missing.

A number that is missing at either end proves nothing, since rings overwrite and people stop. Nor do names that tell
a time (``tcpdump -G``): the program begins no file while the network is quiet.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

from analyzer.capture.packet import CaptureFile

PACKED: Final = (".gz", ".zst", ".xz", ".lz4", ".bz2")
"""Endings that rotated files get when they are packed, some of a series often before others."""
TIMED: Final = (
    re.compile(r"(?P<head>.+)_(?P<number>\d{5,9})_\d{14}(?P<tail>\.\w+|)"),
    re.compile(r"(?P<head>.+)_\d{14}_(?P<number>\d{5,9})(?P<tail>\.\w+|)"),
)
"""dumpcap's two forms (``-b nametimenum``). Nobody names files so by hand."""
PLAIN: Final = (
    re.compile(r"(?P<head>.*?)(?<!\d)(?P<number>\d{1,7})(?P<tail>)"),
    re.compile(r"(?P<head>.*?)(?<!\d)(?P<number>\d{1,7})(?P<tail>\.[A-Za-z]\w*)"),
)
"""A number at the end, or ahead of the ending. Longer ones are dates, or seconds since 1970."""
DATED: Final = re.compile(r".*(?<!\d)(19|20)\d\d[-_.]?\d\d[-_.]?(\d\d[-_.T]?(\d\d[-_.h]?){0,2})?")
DATED_DIGITS: Final = (2, 4, 6)
"""What stands ahead of a number that goes on with a date or a time, such as ``2015-01-`` or ``20150101_12-``, and the
digits that it has then."""
OVERLAP_NS: Final = 1_000_000_000
"""The first packets of a file may be older by this than the last of the file before: interfaces wait for each other."""
PAUSE_NS: Final = 60_000_000_000
"""Files of one run follow each other within this time, or within the time that one of them spans."""
SAMPLED: Final = 16
"""Files whose numbers are compared with the time of day."""
ZONES: Final = range(-12 * 4, 14 * 4 + 1)
"""Quarters of an hour between local times and UTC."""
CLOCKS: Final = ("%H", "%M", "%S", "%d", "%m", "%j", "%H%M", "%m%d", "%H%M%S", "%y%m%d")


@dataclass(frozen=True, slots=True)
class Absent:
    """Files that are missing between two that are there. ``first`` and ``last`` are their names (the same for one)."""

    before: CaptureFile
    after: CaptureFile
    count: int
    first: str
    last: str
    series: tuple[CaptureFile, ...]  # all files of it, oldest first

    @property
    def names(self) -> str:
        """What is missing, for people."""
        return self.first if self.count == 1 else f"{self.first} to {self.last}"


@dataclass(frozen=True, slots=True)
class _Numbered:
    file: CaptureFile
    number: int
    digits: int
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class _Form:
    """What the names of one series have in common."""

    folder: str
    head: str
    tail: str
    timed: int | None = None  # which of `TIMED`

    def name(self, number: int, digits: int) -> str:
        shown = f"{number:0{digits}}"
        if self.timed is not None:
            shown = f"_*_{shown}" if self.timed else f"_{shown}_*"
        return f"{self.head}{shown}{self.tail}"


def absent_files(files: Iterable[CaptureFile]) -> list[Absent]:
    """Return what is missing between files of one series, in the order of the files."""
    series: dict[_Form, list[tuple[CaptureFile, int, int]]] = {}
    unnumbered: dict[tuple[str, str], CaptureFile] = {}
    for file in files:
        folder, name = os.path.split(file.path)
        bare = name[: -len(ending)] if (ending := os.path.splitext(name)[1]) in PACKED else name
        if (read := _read(folder, bare)) is None:
            unnumbered[folder, bare] = file
        else:
            form, digits = read
            series.setdefault(form, []).append((file, int(digits), len(digits)))
    for form, members in series.items():
        for bare in (form.head, form.head.removesuffix(".")):  # `tcpdump -C` and logrotate: the first has no number
            if not form.tail and (first := unnumbered.get((form.folder, bare))) is not None:
                members.append((first, 0, 1))
                break
    found = [absent for form, members in series.items() for absent in _skipped(form, members)]
    return sorted(found, key=lambda absent: absent.after.first_number)


def _read(folder: str, name: str) -> tuple[_Form, str] | None:
    """Return the form of a name and its number, None for one that has none."""
    for index, pattern in enumerate(TIMED):
        if match := pattern.fullmatch(name):
            return _Form(folder, match["head"], match["tail"], index), match["number"]
    for pattern in PLAIN:
        if match := pattern.fullmatch(name):
            dated = len(match["number"]) in DATED_DIGITS and DATED.fullmatch(match["head"])
            return None if dated else (_Form(folder, match["head"], match["tail"]), match["number"])
    return None


def _skipped(form: _Form, members: Sequence[tuple[CaptureFile, int, int]]) -> list[Absent]:
    """Return what one series lacks. The time it takes is linear in its files, once they are sorted."""
    filled = [
        _Numbered(file, number, digits, file.first_ns, file.last_ns)
        for file, number, digits in members
        if file.first_ns is not None and file.last_ns is not None
    ]
    there = {number for _, number, _ in members}  # also those in which no packet came
    filled.sort(key=lambda one: (one.first_ns, one.number))
    steps = [(one, other, other.number - one.number) for one, other in pairwise(filled)]
    if all(-1 <= step <= 1 for *_, step in steps):
        return []  # nearly always
    upwards = sum(step == 1 and _follows(one, other) for one, other, step in steps)
    downwards = sum(step == -1 and _follows(one, other) for one, other, step in steps)
    way = 1 if form.timed is not None or upwards > downwards else -1
    skips = [(one, other) for one, other, step in steps if step * way > 1]
    if form.timed is None and (max(upwards, downwards) < max(1, len(skips)) or _tell_time(filled)):
        return []  # numbers that people gave to captures of their own, or times of the day
    series = tuple(one.file for one in filled)
    found = []
    for one, other in skips:
        missing = [number for number in range(one.number + way, other.number, way) if number not in there]
        if missing and one.last_ns <= other.first_ns + OVERLAP_NS:
            digits = min(one.digits, other.digits)
            first, last = form.name(missing[0], digits), form.name(missing[-1], digits)
            found.append(Absent(one.file, other.file, len(missing), first, last, series))
    return found


def _follows(one: _Numbered, other: _Numbered) -> bool:
    """Whether the second goes on where the first ends, as files of one run do."""
    span = max(one.last_ns - one.first_ns, other.last_ns - other.first_ns, PAUSE_NS)
    return -OVERLAP_NS <= other.first_ns - one.last_ns <= span


def _tell_time(numbered: Sequence[_Numbered]) -> bool:
    """Whether all numbers are the hour, the day or the like of their file's first packet, in some time zone."""
    sample = numbered[:: max(1, len(numbered) // SAMPLED)]
    try:
        times = [datetime.fromtimestamp(one.first_ns // 1_000_000_000, UTC) for one in sample]
        for zone in ZONES:
            local = [time + timedelta(minutes=15 * zone) for time in times]
            for clock in CLOCKS:
                pairs = zip(sample, local, strict=True)
                if all(one.number == int(time.strftime(clock)) for one, time in pairs):
                    return True
    except (OverflowError, OSError, ValueError):
        return False  # a damaged clock, in no year of a calendar
    return False
