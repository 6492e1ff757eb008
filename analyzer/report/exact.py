"""JSON with exact times: seconds since 1970 as numbers with every digit that the capture has.

A float has 15 to 17 digits, a nanosecond time needs 19. The standard encoder cannot write anything longer, so
the containers are walked here; strings and plain numbers still go through `json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


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


def pieces(value: object, indent: int | None = None, level: int = 0) -> Iterator[str]:
    """Yield the JSON text of ``value`` piece by piece, so that a long report never stands in memory whole."""
    if isinstance(value, Instant | Digits):
        yield str(value)
    elif isinstance(value, Mapping):
        yield from _container(((json.dumps(str(k)) + ": ", v) for k, v in value.items()), "{}", indent, level)
    elif isinstance(value, str | int | float | bool) or value is None:
        yield json.dumps(value)
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
