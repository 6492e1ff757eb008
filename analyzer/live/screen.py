"""A terminal whose last lines show how things stand, while what happens scrolls by above them.

Only three things are asked of the terminal: that the cursor goes up, that the rest of the screen is cleared, and
colours where they are wanted. Nothing is hidden, so nothing has to be put back if the process is killed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TextIO

from analyzer.cells import WIDTH
from analyzer.live.watcher import DeviceNow
from analyzer.report.story import CANNOT_TELL, Mark
from analyzer.report.style import Style
from analyzer.report.text import COLOURS, RESET
from analyzer.wording import duration, number, plain, plural, printable

EACH_S: Final = 0.5
"""The lines are drawn anew so often at most, to tell how long it has been quiet; and whenever something happens."""
SHARE: Final = 3
"""The part of the screen, a third, that the lines of devices may take."""
MOST: Final = 12
HEIGHT: Final = 24
"""Of a terminal that does not tell."""
ORDER: Final = (Mark.FAILS, Mark.WARNS, Mark.UNKNOWN, Mark.WORKS)
LOGGING_IN: Final = "LOGGING IN"
QUIET_S: Final = 5
"""From so many seconds on a line tells for how long nothing came."""


class Screen:
    """Writes lines above a block of lines that is drawn in place. ``stream`` is a terminal."""

    def __init__(
        self,
        stream: TextIO,
        style: Style,
        *,
        shorten: Callable[[str], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream, self._style, self._shorten, self._clock = stream, style, shorten, clock
        self._drawn = 0
        self._next = 0.0

    def write(self, lines: Iterable[str], block: Sequence[tuple[str, Mark | None]]) -> None:
        """Write lines, and the block below them."""
        self._clear()
        self._stream.write("".join(f"{line}\n" for line in lines))
        self._draw(block)

    def refresh(self, block: Callable[[], Sequence[tuple[str, Mark | None]]]) -> None:
        """Draw the block anew if it was not drawn for a while."""
        if self._clock() >= self._next:
            self._clear()
            self._draw(block())

    def wipe(self) -> None:
        """Take the block away."""
        self._clear()
        self._stream.flush()

    def size(self) -> tuple[int, int]:
        """Return columns and rows of the terminal as it is now."""
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return WIDTH, HEIGHT
        return size.columns or WIDTH, size.lines or HEIGHT

    def _clear(self) -> None:
        if self._drawn:
            self._stream.write(f"\r\x1b[{self._drawn}A\x1b[J")
            self._drawn = 0

    def _draw(self, block: Sequence[tuple[str, Mark | None]]) -> None:
        columns, rows = self.size()
        for text, mark in block[-(rows - 1) :]:
            shown = printable(self._shorten(text))
            shown = (shown if self._style.unicode else plain(shown))[: columns - 1]  # a full line would become two
            if self._style.colour and mark is not None:
                shown = f"{COLOURS[mark]}{shown}{RESET}"
            self._stream.write(f"{shown}\n")
            self._drawn += 1
        self._stream.flush()
        self._next = self._clock() + EACH_S


def status_block(
    devices: Iterable[DeviceNow], *, packets: int, spark: int, now_ns: int, begun_ns: int, rows: int
) -> list[tuple[str, Mark | None]]:
    """Return the lines that tell how things stand, each with the mark that gives it its colour."""
    every = sorted(devices, key=lambda device: (ORDER.index(device.mark), -device.heard_ns))
    room = max(1, min(MOST, rows // SHARE))
    shown = every if len(every) <= room else every[: room - 1]
    watched = f"{duration(max(0, now_ns - begun_ns))} · {plural(packets, 'packet')}, {number(spark)} of them Spark"
    lines: list[tuple[str, Mark | None]] = [(f"── {watched} · Ctrl-C: the verdict ──", None)]
    width = max((len(device.address) for device in shown), default=0)
    lines += [(device_line(device, now_ns, width), device.mark) for device in shown]
    if len(shown) < len(every):
        lines.append((f"  and {plural(len(every) - len(shown), 'device')} more", None))
    return lines


def device_line(device: DeviceNow, now_ns: int, width: int = 0) -> str:
    """Return one device's line: state, attempts, the last step, and for how long it has been quiet."""
    state = device.state
    if state in ("", CANNOT_TELL):
        state = LOGGING_IN if device.live and device.step != "logged in" else CANNOT_TELL
    parts = [plural(device.attempts, "attempt")]
    if device.worked and device.attempts > 1:
        parts.append(f"{number(device.worked)} logged in")
    parts.append(f"{'now' if device.live else 'last'}: {device.step}")
    if device.code and device.mark is not Mark.WORKS:
        parts.append(device.code)
    quiet = (now_ns - device.heard_ns) // 1_000_000_000
    if quiet >= QUIET_S:
        parts.append(f"quiet {quiet} s" if quiet < 100 else f"quiet {duration(quiet * 1_000_000_000)}")
    return f"{device.mark} {device.address:<{width}}  {state:<14}  {' · '.join(parts)}"
