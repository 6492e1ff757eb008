"""How text is put on a screen or into a file; small, because every command asks for it before it reads anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 80


@dataclass(frozen=True, slots=True)
class Style:
    """Width in columns, colour on or off, more than ASCII or not, and whether only the answer is wanted."""

    width: int = WIDTH
    colour: bool = False
    unicode: bool = True
    quiet: bool = False


def columns(headers: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[str]) -> list[str]:
    """Return a table as lines, indented by two; ``align`` is ``left`` or ``right`` for each column."""
    from tabulate import tabulate  # noqa: PLC0415 - most reports have no table

    table = tabulate(rows, headers, tablefmt="plain", colalign=align, disable_numparse=True)
    return [f"  {line.rstrip()}" for line in table.splitlines()]
