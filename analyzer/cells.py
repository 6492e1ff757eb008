"""How many columns of a terminal a text takes: East Asian characters take two, combining ones none.

Our own marks and everything up to U+02FF take one each, so that the tables of `wcwidth` are loaded only when a
capture holds text that needs them.
"""

from __future__ import annotations

import re
from typing import Final

WIDTH: Final = 80
"""Columns where nobody looks: pipes, files."""
NARROW: Final = 70
"""Below this width labels and meanings stand on lines of their own, and tables become lists."""
MARKS: Final = "✕✓│┊─▶◀●–−·…µ×▇→←≥’“”"
"""What our reports draw with."""
_UNSURE: Final = re.compile(f"[^\x00-\u02ff{MARKS}]")


def even(text: str) -> bool:
    """Whether each character is known to take one column."""
    return text.isascii() or _UNSURE.search(text) is None


def cells(text: str) -> int:
    """Return the columns of printable text."""
    if even(text):
        return len(text)
    return sum(map(_cells, text))


def _cells(char: str) -> int:
    from wcwidth import wcwidth  # noqa: PLC0415 - only foreign text needs it

    return max(0, wcwidth(char)) if char > "\u02ff" and char not in MARKS else 1


def cut(text: str, most: int) -> str:
    """Return the beginning of text that fits into ``most`` columns; a combining character stays with its base."""
    if even(text):
        return text[: max(0, most)]
    taken = 0
    for place, char in enumerate(text):
        taken += _cells(char)
        if taken > most:
            return text[:place]
    return text


def cut_front(text: str, most: int) -> str:
    """Return the end of text that fits into ``most`` columns."""
    place, taken = len(text), 0
    while place and (taken := taken + _cells(text[place - 1])) <= most:
        place -= 1
    while place < len(text) and not _cells(text[place]):
        place += 1  # its base is gone
    return text[place:]


def left(text: str, width: int) -> str:
    """Return text filled up with blanks behind it, as ``str.ljust``, in columns."""
    return text + " " * (width - cells(text))


def right(text: str, width: int) -> str:
    """Return text with blanks before it, as ``str.rjust``, in columns."""
    return " " * (width - cells(text)) + text


def fold(text: str, width: int, first: str = "", then: str = "") -> list[str]:
    """Return text in lines of ``width`` columns, broken at blanks, and inside words that are wider than a line."""
    lines: list[str] = []
    line = first
    for word in text.split(" "):
        gap = " " if line not in (first, then) or len(line.strip()) else ""
        if cells(line) + len(gap) + cells(word) <= width:
            line += gap + word
            continue
        if line.strip():
            lines.append(line)
            line = then
        while cells(line) + cells(word) > width:
            part = cut(word, max(2, width - cells(line)))
            lines.append(line + part)
            line, word = then, word[len(part) :]  # noqa: PLW2901 - the rest of the same word
        line += word
    return [*lines, line] if line.strip() else lines
