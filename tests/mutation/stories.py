"""Keeps the stories that the tests play, and the keys in them, so that no copy of the process makes them again.

They come from `analyzer.simulate`, which has nothing to do with the code under test.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from analyzer import simulate
from analyzer.simulate import keys, world

KEPT_IN: Final = ((simulate, "simulate"), (keys, "make_key"), (world, "make_key"))


class Remembered:
    """A function whose answers are kept."""

    def __init__(self, function: Callable[..., Any], answers: dict[Any, Any]) -> None:
        self.function = function
        self.answers = answers

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Return what the function does; the same object each time."""
        question = given, tuple(sorted(named.items()))
        if question not in self.answers:
            self.answers[question] = self.function(*given, **named)
        return self.answers[question]


class Stories:
    """What is kept in one file. To be used before any test is imported, since tests take the functions by name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        held = pickle.loads(path.read_bytes()) if path.exists() else {}  # noqa: S301 - this program wrote it
        self._answers: dict[str, dict[Any, Any]] = {name: held.get(name, {}) for _, name in KEPT_IN}
        self._known = self._count()
        originals = {name: vars(module)[name] for module, name in KEPT_IN}
        for module, name in KEPT_IN:
            setattr(module, name, Remembered(originals[name], self._answers[name]))

    def save(self) -> None:
        """Write what is new."""
        if self._count() > self._known:
            self._path.write_bytes(pickle.dumps(self._answers))
            self._known = self._count()

    def _count(self) -> int:
        return sum(map(len, self._answers.values()))
