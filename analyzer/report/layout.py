"""Paragraphs with a label, numbered steps and tables, fitted to a width; below `NARROW` columns they are stacked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from analyzer.cells import NARROW, WIDTH, cells
from analyzer.wording import wrap

LABEL: Final = 13
"""Columns of the labels of a report."""
INDENT: Final = 2
"""Of what stands below its label."""
ASIDE_FOR_ALL: Final = "· Own server"
"""An aside that belongs to all the steps above it, not to the last one."""


def labelled(label: str, lines: Sequence[str], width: int, column: int = LABEL) -> list[str]:
    """Put a label in front of lines, or above them where there is no room beside.

    A line that is too long is a command, which stays in one piece so that it can be pasted: it stands further left.
    """
    if width < NARROW:
        return [*([label] if label.strip() else []), *(_put("", line, width, INDENT) for line in lines)]
    return [_put(label if index == 0 else "", line, width, column) for index, line in enumerate(lines)]


def _put(label: str, line: str, width: int, column: int) -> str:
    text = line.lstrip(" ")
    room = max(len(label), width - cells(text))
    return f"{label:<{min(column + len(line) - len(text), room)}}{text}"


def block(label: str, text: str, width: int = WIDTH, *, column: int = LABEL, deeper: int = 0) -> list[str]:
    """Return a paragraph with its label in the first columns; ``deeper`` indents what follows its first line."""
    return labelled(label, wrap(text, beside(width, column), then=" " * deeper) or [""], width, column)


def beside(width: int, column: int = LABEL) -> int:
    """Return the columns that are left beside a label."""
    return width - (INDENT if width < NARROW else column)


def numbered(label: str, steps: Sequence[str], width: int = WIDTH, *, column: int = LABEL) -> list[str]:
    """Return steps with numbers, commands alone on their line, asides without a number."""
    count = sum(1 for step in steps if not step.startswith(("  ", "· ")))
    room = beside(width, column)
    lines: list[str] = []
    index = 0
    for step in steps:
        if step.startswith("  "):
            lines.append(f"{'':{5 if count > 1 else 2}}{step.strip()}")
            continue
        text, mark = step, ""
        if step.startswith("· "):
            text, mark = step[2:], "   " if count > 1 and not step.startswith(ASIDE_FOR_ALL) else ""
        elif count > 1:
            index += 1
            mark = f"{index}. "
        lines += wrap(text, room, first=mark, then=" " * len(mark)) or [""]
    return labelled(label, lines, width, column)


def columns(
    headers: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[str], width: int = WIDTH
) -> list[str]:
    """Return a table as lines, indented by two; one that is wider than ``width`` becomes a list of its rows.

    ``align`` is ``left`` or ``right`` for each column. Without headers the first row stands for them.
    """
    from tabulate import tabulate  # noqa: PLC0415 - most reports have no table

    table = tabulate(rows, headers, tablefmt="plain", colalign=align, disable_numparse=True)
    lines = [f"  {line.rstrip()}" for line in table.splitlines()]
    if max(map(cells, lines), default=0) <= width:
        return lines
    names, *entries = rows if not headers else (headers, *rows)
    return [line for entry in entries for line in _listed(names, entry, width)]


def _listed(names: Sequence[str], entry: Sequence[str], width: int) -> list[str]:
    """One row of a table below its first cell."""
    told = " · ".join(f"{name} {cell}" for name, cell in zip(names[1:], entry[1:], strict=True) if cell)
    indent = " " * 2 * INDENT
    return [*wrap(entry[0], width, first="  ", then=indent), *wrap(told, width, first=indent, then=indent)]
