"""What an attack is, and the list of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final


@dataclass(slots=True)
class Run:
    """A command to be run on what was built: its words, and what it is to say.

    ``says`` are texts that standard output or standard error must hold, ``status`` the exit statuses that are right.
    ``feed`` is given to standard input. ``grow`` is called while the command runs, until it returns False.
    """

    words: list[str]
    says: tuple[str, ...] = ()
    status: tuple[int, ...] = (0, 1)
    feed: Path | None = None
    grow: Callable[[], bool] | None = None
    bystander: bool = True
    """Whether the verdict on the healthy session is looked for in JSON lines on standard output."""


Build = Callable[[Path, int], Run]


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack: ``size`` is how many ``unit`` at full scale, ``bound`` the constant that holds it.

    ``each`` is how many bytes of memory one unit may take: 0 where memory does not grow.
    """

    name: str
    says: str
    size: int
    unit: str
    bound: str
    each: int
    build: Build = field(repr=False)


ATTACKS: Final[dict[str, Attack]] = {}


def attack(name: str, says: str, *, size: int, unit: str, bound: str, each: int = 0) -> Callable[[Build], Build]:
    """Enter a builder into the list."""

    def enter(build: Build) -> Build:
        ATTACKS[name] = Attack(name, says, size, unit, bound, each, build)
        return build

    return enter


def analyzed(path: Path, *more: str) -> Run:
    """The usual run: all that is found in a capture, as JSON lines."""
    return Run(["analyze", str(path), "--format", "jsonl", "--jobs", "1", *more])
