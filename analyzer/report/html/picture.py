"""Drawings as plain data: shapes with a class and coordinates, and axes with round numbers.

What a shape looks like says the style sheet; a template writes it down. Attributes are our own numbers and names;
whatever a stranger chose is only ever the text of a shape, which is escaped there. Each drawing comes in two widths,
because a picture that is made smaller takes its letters along: one for a screen, one for a phone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from analyzer.wording import duration

WIDE: Final = 760
NARROW: Final = 340
"""Widths of a drawing, in the units of its coordinates: CSS pixels where there is room for them."""
LETTER: Final = 6.7
"""What a letter of the labels takes on average, rounded up: proportional fonts differ."""
NS: Final = 1_000_000_000
MINUTE: Final = 60 * NS
HOUR: Final = 60 * MINUTE
_STEPS_NS: Final = (
    *(factor * 10**power for power in range(3, 9) for factor in (1, 2, 5)),
    *(factor * NS for factor in (1, 2, 5, 10, 15, 30)),
    *(factor * MINUTE for factor in (1, 2, 5, 10, 15, 30)),
    *(factor * HOUR for factor in (1, 2, 3, 6, 12, 24, 48, 96, 168, 336, 672)),
)
"""Round times, in ns: what the marks of an axis may be apart."""


@dataclass(slots=True)
class Shape:
    """One element: ``rect``, ``path``, ``circle`` or ``text``. ``name`` is its class."""

    tag: str
    name: str
    at: dict[str, float | str]
    text: str | None = None


@dataclass(slots=True)
class Picture:
    """One drawing. ``title`` says what it is and ``about`` what it shows, for people who do not see it."""

    width: int
    title: str
    about: str
    height: float = 0
    shapes: list[Shape] = field(default_factory=list)

    @property
    def size(self) -> str:
        """Which of the two widths it is made for."""
        return "wide" if self.width > NARROW else "narrow"

    def path(self, name: str, d: str) -> None:
        """Add a line or an outline."""
        self.shapes.append(Shape("path", name, {"d": d}))

    def rect(self, name: str, x: float, y: float, width: float, height: float, *, corner: float = 0) -> None:
        """Add a box; ``corner`` is the radius of its corners."""
        at: dict[str, float | str] = {"x": short(x), "y": short(y), "width": short(width), "height": short(height)}
        if corner:
            at["rx"] = short(corner)
        self.shapes.append(Shape("rect", name, at))

    def dot(self, name: str, x: float, y: float, radius: float) -> None:
        """Add a dot."""
        self.shapes.append(Shape("circle", name, {"cx": short(x), "cy": short(y), "r": short(radius)}))

    def text(self, name: str, x: float, y: float, text: str) -> None:
        """Add a line of text; its class says on which side of ``x`` it stands."""
        self.shapes.append(Shape("text", name, {"x": short(x), "y": short(y)}, text))


def short(value: float) -> str:
    """Return a coordinate with one digit behind the point at most."""
    return f"{value:.1f}".removesuffix(".0")


def cross(x: float, y: float, radius: float = 4) -> str:
    """Return the path of the mark for what fails or closes."""
    left, top, right, bottom = (short(value) for value in (x - radius, y - radius, x + radius, y + radius))
    return f"M{left} {top}L{right} {bottom}M{right} {top}L{left} {bottom}"


def tick(x: float, y: float) -> str:
    """Return the path of the mark for what works."""
    return f"M{short(x - 4)} {short(y)}l3 3.5l5-7"


def question(x: float, y: float) -> str:
    """Return the path of the mark for what cannot be told: an open ring."""
    return f"M{short(x - 3.5)} {short(y)}a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0"


def time_marks(span_ns: int, most: int) -> Iterator[int]:
    """Yield the round times (ns) from 0 to ``span_ns`` at which an axis is marked, ``most`` at most behind the 0."""
    step = _STEPS_NS[min(bisect_left(_STEPS_NS, span_ns / most), len(_STEPS_NS) - 1)]
    step *= max(1, -(-span_ns // (step * most)))  # of a clock that jumps by years
    for index in count():
        if index * step > span_ns:
            return
        yield index * step


def count_marks(greatest: int, most: int) -> list[int]:
    """Return the round numbers from 0 on at which an axis of counts is marked; the last is not below ``greatest``."""
    raw = max(1, -(-greatest // most))
    power = 10 ** (len(str(raw)) - 1)
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    return list(range(0, greatest + step, step))


def round_time(time_ns: int) -> str:
    """Return a round time as it stands at an axis: ``0``, ``20 ms``, ``1 min``."""
    text = duration(time_ns) if time_ns else "0"
    return text.replace(".0 ", " ").removesuffix(" 0 s").removesuffix(" 0 min").removesuffix(" 0 h")
