"""Where lines lie that no test runs: named by what they say, so that a reason stays with them when lines move.

A place is a run of statements of one block none of which is run, with all that they hold. Its name is the function, and
the first of them behind what opens the block, in the words of the source.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

MODULE: Final = "(module)"


@dataclass(frozen=True, slots=True)
class Place:
    """A piece of a file that no test runs."""

    function: str
    """The qualified name of the function, `MODULE` outside of all."""
    text: str
    """What opens the block, and the first statement of the run."""
    lines: tuple[int, ...] = field(compare=False)


@dataclass(slots=True)
class _Block:
    """Statements that are entered together."""

    function: str
    header: int
    """The line that opens it; 0 for the module, and for a function, which is a whole by itself."""
    opening: str
    body: Sequence[ast.stmt]
    around: _Block | None


def places(source: str, missing: Iterable[int]) -> list[Place]:
    """Return the places of all ``missing`` lines of a file, in its order."""
    lines, never = source.splitlines(), set(missing)
    blocks: dict[int, _Block] = {}
    module = ast.parse(source)
    _enter(_Block(MODULE, 0, "", module.body, None), lines, blocks)
    found: dict[tuple[str, str], list[int]] = {}
    for line in sorted(never):
        found.setdefault(_name(line, never, blocks[line], lines), []).append(line)
    return [Place(function, text, tuple(at)) for (function, text), at in found.items()]


def _name(line: int, never: set[int], block: _Block, lines: list[str]) -> tuple[str, str]:
    function, text = block.function, lines[line - 1].strip()
    while True:
        body = [statement for statement in block.body if not _is_docstring(statement)]
        place = next((i for i, each in enumerate(body) if line <= (each.end_lineno or 0)), 0)
        if _start(body[place]) not in never:
            return function, text
        while place and _start(body[place - 1]) in never:
            place -= 1
        text = lines[_start(body[place]) - 1].strip()
        if place:
            return block.function, text
        function, text = block.function, f"{block.opening} {text}".strip()
        if block.header not in never or block.around is None:
            return function, text
        line, block = block.header, block.around


def _enter(block: _Block, lines: list[str], blocks: dict[int, _Block]) -> None:
    for statement in block.body:
        for line in range(_start(statement), (statement.end_lineno or 0) + 1):
            blocks[line] = block
        for inner in _inside(statement, block, lines):
            if (
                inner.header > statement.lineno
            ):  # an "except" or a "case"; what opens an "if" belongs to the block around
                blocks |= dict.fromkeys(range(inner.header, inner.body[0].lineno), inner)
            _enter(inner, lines, blocks)


def _inside(statement: ast.stmt, around: _Block, lines: list[str]) -> Iterator[_Block]:
    opening = lines[statement.lineno - 1].strip()
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        outer = "" if around.function == MODULE else f"{around.function}."
        yield _Block(f"{outer}{statement.name}", 0, "", statement.body, around)
        return
    for name in ("body", "orelse", "finalbody"):
        if body := getattr(statement, name, None):
            what = opening if name == "body" else f"else of {opening}"
            yield _Block(around.function, statement.lineno, what, body, around)
    for part in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
        header = part.lineno if isinstance(part, ast.ExceptHandler) else part.pattern.lineno
        yield _Block(around.function, header, lines[header - 1].strip(), part.body, around)


def _start(statement: ast.stmt) -> int:
    """The first line, which is that of a decorator where there is one."""
    return min((each.lineno for each in getattr(statement, "decorator_list", ())), default=statement.lineno)


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
