"""The drawing of one connection, to time: who sent what when, who was silent, who closed.

Time runs downwards, and a step is drawn longer the longer it took: by the logarithm of its milliseconds, so that a
tenth of a millisecond and a quarter of a second both have their place. From a second on the axis is broken, with the
time that passed written into the break. The rows are those of `analyzer.report.ladder`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from math import log10
from typing import Final

from analyzer.conversation import Conversation
from analyzer.report.html.picture import LETTER, NARROW, WIDE, Picture, cross, short
from analyzer.report.ladder import Row, ladder
from analyzer.streams import Sender
from analyzer.wording import duration

BREAK_NS: Final = 1_000_000_000
"""From here on the axis is broken (ns)."""
STEP: Final = (18, 14, 60)
"""Of a step: the least height, what each power of ten adds, and the greatest."""
BREAK: Final = 56
"""Height of a broken step."""
LINE: Final = 15
MOST_ROWS: Final = 60
"""Rows of one drawing: a login has ten, and dead-key pings are three at most."""
NOTE: Final = "Time runs downwards, by its logarithm; not to scale at breaks."
DAGGER: Final = "†"
MISREAD: Final = "Wireshark shows this as CoAP"
"""What the dagger stands for: where there is no room for what Wireshark writes."""
SHOWS: Final = "Wireshark: {text}"
SILENT: Final = "silent"
NOTHING: Final[Mapping[int, str]] = {}


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things stand. ``beside``: what a row means stands right of the server, else below its arrow."""

    width: int
    device: int
    server: int
    packet: int  # right edge of the packet numbers
    waited: int  # right edge of the waiting times
    beside: bool

    @property
    def letters(self) -> int:
        """How many letters of a meaning fit into a line."""
        room = self.width - self.server - 14 if self.beside else self.server - self.device - 12
        return int(room / LETTER)


WIDE_LAYOUT: Final = Layout(WIDE, 150, 490, 66, 138, beside=True)
NARROW_LAYOUT: Final = Layout(NARROW, 74, 328, 62, 62, beside=False)


@dataclass(frozen=True, slots=True)
class LadderRow:
    """One row as a table has it, for people who do not see the drawing."""

    packets: str
    waited: str
    sender: str
    what: str
    meaning: str
    shows: str  # what Wireshark writes about the packet, "" when that is not wrong


@dataclass(frozen=True, slots=True)
class Drawn:
    """One connection: its drawing in two widths, and the same as a table."""

    pictures: tuple[Picture, Picture]
    rows: tuple[LadderRow, ...]
    misread: bool


def drawn(c: Conversation, title: str, *, misread: bool) -> Drawn | None:
    """Return the drawing of a connection; None when the capture has nothing of it that could be drawn.

    ``misread``: what Wireshark makes of its packets is not what they are.
    """
    rows = ladder(c)[:MOST_ROWS]
    if not rows or (c.midway and c.part("nonce") is None):
        return None
    shows = dict(c.rows.few) if misread else {}
    table = tuple(_told(row, shows) for row in rows)
    about = f"Device on the left, server on the right. {NOTE} The table below says the same."
    pictures = (
        picture(rows, WIDE_LAYOUT, title, about, shows),
        picture(rows, NARROW_LAYOUT, title, about, shows),
    )
    return Drawn(pictures, table, any(row.shows for row in table))


def _told(row: Row, shows: Mapping[int, str]) -> LadderRow:
    waited = duration(row.waited_ns) if row.waited_ns is not None and not row.silence else ""
    who = "both" if row.sender is None else f"{row.sender}, {SILENT}" if row.silence else str(row.sender)
    return LadderRow(row.packets, waited, who, row.label, row.meaning, _shown(row, shows))


def _shown(row: Row, shows: Mapping[int, str]) -> str:
    """What Wireshark makes of a row that is one message; a connection or a run is drawn as a whole."""
    return shows.get(row.number, "") if row.sender is not None and row.packets else ""


def picture(rows: list[Row], layout: Layout, title: str, about: str, shows: Mapping[int, str] = NOTHING) -> Picture:
    """Return the drawing of some rows; ``shows`` is what Wireshark writes about packets by their number."""
    p = Picture(layout.width, title, about)
    _Drawing(p, layout, shows).draw(rows)
    return p


class _Drawing:
    """Puts rows below each other."""

    def __init__(self, p: Picture, layout: Layout, shows: Mapping[int, str]) -> None:
        self.p, self.layout, self.shows = p, layout, shows
        self.y = 30.0
        self.below = 6.0  # what the row above takes below its line
        self.solid_from = 20.0  # where the rails go on behind the last break
        self.lines: list[str] = []
        self.dotted: list[str] = []

    def draw(self, rows: list[Row]) -> None:
        p, layout = self.p, self.layout
        p.text("head start", layout.device + 6, 12, "DEVICE")
        p.text("head end", layout.server - 6, 12, "SERVER")
        if layout.beside:
            p.text("small end", layout.packet, 12, "packet")
            p.text("small end", layout.waited, 12, "waited")
        above, p.shapes = p.shapes, []
        silence: Row | None = None
        for row in rows:
            if row.silence:
                silence = row
                continue
            self._row(row, silence)
            silence = None
        self._rails(self.solid_from, self.y + self.below + 6)
        p.height = self.y + self.below + 10
        rows_drawn, p.shapes = p.shapes, above
        p.path("rail", "".join(self.lines))
        if self.dotted:
            p.path("rail dotted", "".join(self.dotted))
        p.shapes += rows_drawn  # the rails lie below what happens between them

    def _row(self, row: Row, silence: Row | None) -> None:
        layout = self.layout
        shows = _shown(row, self.shows)
        dagger = f" {DAGGER}" if shows and not layout.beside else ""
        meaning = [("meaning", line) for line in textwrap.wrap(f"{row.meaning}{dagger}", layout.letters)]
        if shows and layout.beside:
            meaning.append(("shows", textwrap.shorten(SHOWS.format(text=shows), layout.letters, placeholder=" …")))
        lines = len(meaning)
        run = row.sender is None and row.end_ns is not None
        half = 16.0 if run else 9.0
        if layout.beside:
            above = below = max(half, lines * LINE / 2 + 1)
        else:
            above, below = half, half + lines * LINE + 6
        waited = row.waited_ns or 0
        if waited >= BREAK_NS or silence is not None:
            self._break(waited, silence, above)
        else:
            step = min(STEP[2], STEP[0] + STEP[1] * log10(1 + waited / 1e6))
            self.y += max(step if self.y > 30 else 0, self.below + above)
        self.below = below
        self._gutter(row)
        self._arrow(row, run=run)
        self._meaning(meaning, half)

    def _break(self, waited: int, silence: Row | None, above: float) -> None:
        """A time too long to be drawn: both rails dotted and cut, and the time between them."""
        p, layout = self.p, self.layout
        meaning = textwrap.wrap(silence.meaning, layout.letters) if silence is not None else []
        inside = 0 if layout.beside else len(meaning) * LINE
        top = self.y + self.below
        height = max(BREAK - self.below - above, 34.0, len(meaning) * LINE + 4) + inside
        middle = top + (height - inside) / 2
        p.rect("silence", layout.device - 12, top + 2, layout.server - layout.device + 24, height - 4, corner=3)
        self._rails(self.solid_from, top)
        self.solid_from = top + height
        for x in (layout.device, layout.server):
            self.dotted.append(f"M{x} {short(top)}V{short(top + height)}")
            for off in (-3, 3):
                p.path("zigzag", f"M{x - 7} {short(middle + off)}l4-4l6 8l4-4")
        p.text("label middle", (layout.device + layout.server) / 2, middle + 4.5, duration(waited))
        if silence is not None:
            if silence.sender is Sender.DEVICE:
                p.text("small start", layout.device + 16, middle + 4, SILENT)
            elif silence.sender is Sender.SERVER:
                p.text("small end", layout.server - 16, middle + 4, SILENT)
            for index, line in enumerate(meaning):
                if layout.beside:
                    y = middle + 4.5 + (index - (len(meaning) - 1) / 2) * LINE
                    p.text("meaning start strong", layout.server + 18, y, line)
                else:
                    y = middle + 4.5 + (index + 1) * LINE
                    p.text("meaning middle strong", (layout.device + layout.server) / 2, y, line)
        self.y = top + height + above

    def _rails(self, top: float, bottom: float) -> None:
        for x in (self.layout.device, self.layout.server):
            self.lines.append(f"M{x} {short(top)}V{short(bottom)}")

    def _gutter(self, row: Row) -> None:
        p, layout = self.p, self.layout
        waited = duration(row.waited_ns) if row.waited_ns is not None and row.waited_ns < BREAK_NS else ""
        if layout.beside:
            p.text("packet end", layout.packet, self.y + 4, row.packets)
            if waited:
                p.text("small end", layout.waited, self.y + 4, waited)
            return
        p.text("packet end", layout.packet, self.y + (4 if not waited else -2), row.packets)
        if waited:
            p.text("small end", layout.waited, self.y + 11, waited)

    def _arrow(self, row: Row, *, run: bool) -> None:
        p, layout, y = self.p, self.layout, self.y
        left, right = layout.device, layout.server
        middle = (left + right) / 2
        if run:
            p.rect("run", left + 8, y - 14, right - left - 16, 28, corner=4)
            if row.end_ns is not None and row.time_ns is not None and row.end_ns - row.time_ns >= BREAK_NS:
                for x in (left, right):
                    self.dotted.append(f"M{x} {short(y - 14)}V{short(y + 14)}")
                self._rails(self.solid_from, y - 14)
                self.solid_from = y + 14
                for x in (left, right):
                    p.path("zigzag", f"M{x - 7} {short(y - 3)}l4-4l6 8l4-4M{x - 7} {short(y + 3)}l4-4l6 8l4-4")
            p.text("label middle", middle, y + 4.5, row.label)
            return
        if row.sender is None:
            p.path("both", f"M{left} {short(y)}H{right}")
            if row.closes:
                p.path("cross", cross(left, y) + cross(right, y))
            else:
                p.dot("both-end", left, y, 4)
                p.dot("both-end", right, y, 4)
            p.text("label middle halo", middle, y + 4.5, row.label)
            return
        name = str(row.sender)
        from_x, to_x, back = (left, right, -9) if row.sender is Sender.DEVICE else (right, left, 9)
        inset = 1 if back < 0 else -1
        many = " repeated" if row.end_ns is not None else ""
        p.path(f"arrow {name}{many}", f"M{from_x + 2 * inset} {short(y)}H{to_x + back}")
        p.path(
            f"head {name}", f"M{to_x + back} {short(y - 4.5)}L{to_x - inset} {short(y)}L{to_x + back} {short(y + 4.5)}z"
        )
        if row.closes:
            p.path("cross", cross(from_x, y, 5))
        p.text(f"label middle halo {name}", middle, y + 4.5, row.label)

    def _meaning(self, meaning: list[tuple[str, str]], half: float) -> None:
        p, layout = self.p, self.layout
        for index, (name, line) in enumerate(meaning):
            if layout.beside:
                y = self.y + 4.5 + (index - (len(meaning) - 1) / 2) * LINE
                p.text(f"{name} start", layout.server + 14, y, line)
            else:
                y = self.y + half + 3 + (index + 0.75) * LINE
                p.text(f"{name} middle", (layout.device + layout.server) / 2, y, line)
