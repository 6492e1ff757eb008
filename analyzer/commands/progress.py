"""How far a long read has come: one line on a terminal, with rate and time left, wiped before the answer."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TextIO

from analyzer.wording import duration, number, plain, plural, printable, size

if TYPE_CHECKING:
    from analyzer.capture import Capture
    from analyzer.capture.capture import Position
    from analyzer.trace import Trace

AFTER_S: Final = 1.0
"""What is done sooner needs no progress."""
STEP_S: Final = 0.2
"""Redrawn at most five times a second: more cannot be read, and costs time on a slow line."""
WINDOW_S: Final = 10.0
"""The rate is that of the last seconds: a file that is packed, or on another disk, is another matter."""
STEADY_S: Final = 3.0
"""Time left is told when the reading has been watched this long, and was as fast in both halves of it ..."""
STEADY: Final = 1.5
"""... up to this factor; a guess that jumps is worse than none."""
WIDTH: Final = 80
"""Columns of a terminal that does not tell."""
NAME: Final = 16
"""Characters of a file's name that stay where room is scarce: its end, where rotated files have their numbers."""


class Pace:
    """How fast bytes come, from what was `seen` in the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def see(self, seconds: float, done: int) -> None:
        """Take note that ``done`` bytes have been read at this time."""
        self._seen.append((seconds, done))
        while len(self._seen) > 2 and seconds - self._seen[1][0] >= WINDOW_S:
            self._seen.popleft()

    @property
    def rate(self) -> float | None:
        """Bytes a second, None as long as too little was seen."""
        (begun, before), (now, done) = self._seen[0], self._seen[-1]
        return (done - before) / (now - begun) if now - begun >= AFTER_S and done > before else None

    def left(self, missing: int) -> float | None:
        """Return in how many seconds ``missing`` bytes will have been read, None while the rate is not steady."""
        (begun, before), (now, done) = self._seen[0], self._seen[-1]
        rate = self.rate
        if rate is None or now - begun < STEADY_S:
            return None
        middle, half = min(self._seen, key=lambda seen: abs(seen[0] - (begun + now) / 2))
        if not before < half < done or not begun < middle < now:
            return None
        early, late = (half - before) / (middle - begun), (done - half) / (now - middle)
        return missing / rate if 1 / STEADY <= early / late <= STEADY else None


def progress_line(position: Position, pace: Pace, attempts: int, width: int) -> str:
    """Return the line, ``width`` characters at most: what matters least goes first."""
    name = printable(os.path.basename(position.path))
    done, total, rate = position.done, position.total, pace.rate
    left = pace.left(total - done) if total is not None else None
    several = position.files > 1
    parts = {
        "name": f"Reading {name}",
        "place": f"file {number(position.place)} of {number(position.files)}" if several else "",
        "share": f"{100 * done // total} %" if total else "",
        "bytes": f"{size(done)} of {size(total)}" if total else size(done),
        "rate": f"{size(round(rate))}/s" if rate is not None else "",
        "left": f"{_seconds(left)} left" if left is not None else "",
        "attempts": plural(attempts, "attempt"),
    }
    spare = ["bytes", "attempts", "short name", "place", "rate", "name", "left"]
    if not total:
        spare = ["attempts", "short name", "place", "rate", "name"]
    while len(text := " · ".join(part for part in parts.values() if part)) > width and spare:
        least = spare.pop(0)
        if least == "short name" and len(name) > NAME:
            parts["name"] = f"Reading …{name[1 - NAME :]}"
        elif least in parts:
            parts[least] = ""
    return text[:width]


def _seconds(seconds: float) -> str:
    whole = math.ceil(seconds)
    return f"{whole} s" if whole < 100 else duration(whole * 1_000_000_000)


class Progress:
    """A line on a terminal's stderr from the second second on. Called between two blocks of a file."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._on = self._stream.isatty() and not getattr(arguments, "quiet", False)
        self._clock = clock
        self._begun = self._next = clock()
        self._pace = Pace()
        self._shown = 0

    def __call__(self, capture: Capture, trace: Trace) -> None:
        """Show how far reading has come."""
        if not self._on or (now := self._clock()) < self._next:
            return
        self._next = now + STEP_S
        position = capture.position
        self._pace.see(now, position.done)
        if now - self._begun < AFTER_S:
            return
        width = self._width()
        text = progress_line(position, self._pace, len(trace.conversations), width)
        if not (self._stream.encoding or "ascii").lower().startswith("utf"):
            text = plain(text)[:width]
        self._stream.write("\r" + text.ljust(min(self._shown, width)))
        self._stream.flush()
        self._shown = len(text)

    def wipe(self) -> None:
        """Take the line away."""
        if self._shown:
            self._stream.write("\r" + " " * min(self._shown, self._width()) + "\r")
            self._stream.flush()
            self._shown = 0

    def _width(self) -> int:
        """How many characters fit on a line: in the last column the cursor would go on to the next."""
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except OSError:
            columns = 0
        return (columns or WIDTH) - 1
