"""JSON with exact times: seconds since 1970 as numbers with every digit that the capture has.

A float has 15 to 17 digits, a nanosecond time needs 19. The standard encoder cannot write anything longer, so
the containers are walked here; strings and plain numbers still go through `json`. What a report has thousands of
stands on a line of its own, which the standard encoder writes; the times in it are put in afterwards.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class Instant:
    """A time, written as seconds with ``digits`` (6 or 9) digits after the point."""

    time_ns: int
    digits: int = 6

    def __str__(self) -> str:
        sign, whole = ("-", -self.time_ns) if self.time_ns < 0 else ("", self.time_ns)
        seconds, fraction = divmod(whole, 1_000_000_000)
        return f"{sign}{seconds}.{fraction:09d}"[: None if self.digits == 9 else self.digits - 9]


class Digits(str):
    """A number that is written with the digits it was read with."""

    __slots__ = ()


class Written(str):
    """JSON text that stands for itself."""

    __slots__ = ()


def line(value: object) -> Written:
    """Return ``value`` as JSON text on one line. It may hold `Instant`, but no `Digits`."""
    mark, marked = _mark()
    text = json.dumps(value, default=lambda other: f"{mark}{other}" if isinstance(other, Instant) else list(other))
    return Written(_inert(marked.sub(r"\1", text) if mark in text else text))


def _inert(text: str) -> str:
    """Escape the one control character that the standard encoder writes as it is."""
    return text.replace("\x7f", r"\u007f")


@cache
def _mark() -> tuple[str, re.Pattern[str]]:
    """What stands before a time until it is put in: nothing that a stranger could have written."""
    mark = secrets.token_hex(16)
    return mark, re.compile(f'"{mark}([-0-9.]+)"')


def pieces(value: object, indent: int | None = None, level: int = 0) -> Iterator[str]:
    """Yield the JSON text of ``value`` piece by piece, so that a long report never stands in memory whole."""
    if isinstance(value, Instant | Digits | Written):
        yield str(value)
    elif isinstance(value, Mapping):
        yield from _container(((_inert(json.dumps(str(k))) + ": ", v) for k, v in value.items()), "{}", indent, level)
    elif isinstance(value, str | int | float | bool) or value is None:
        yield _inert(json.dumps(value))
    else:
        yield from _container((("", v) for v in value), "[]", indent, level)  # type: ignore[attr-defined]


def _container(items: Iterator[tuple[str, object]], marks: str, indent: int | None, level: int) -> Iterator[str]:
    empty = True
    for key, value in items:
        yield marks[0] if empty else "," if indent is not None else ", "
        if indent is not None:
            yield "\n" + " " * (indent * (level + 1))
        yield key
        yield from pieces(value, indent, level + 1)
        empty = False
    if empty:
        yield marks
        return
    if indent is not None:
        yield "\n" + " " * (indent * level)
    yield marks[1]


def dumps(value: object, indent: int | None = None) -> str:
    """Return ``value`` as JSON text."""
    return "".join(pieces(value, indent))
