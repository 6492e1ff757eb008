"""The faults that mutation testing puts in are what they are called, and each reason is that of a fault that exists."""

from __future__ import annotations

import ast
import re

from mutation.mutants import mutants_of, mutated
from mutation.report import Reasons
from mutation.worker import MODULES
from screens import ROOT

SOURCE = '''
"""What it does."""

LIMIT: Final = 10


class Door:
    width: int = 2

    @property
    def open(self) -> bool:
        """Whether it is."""
        if not self.width or self.width > LIMIT and self.hinge:
            return False
        self.seen += 1
        print("a text", self.seen)
        return self.seen - 1 < self.width
'''
FAULTS = [
    "(module): 10 => 11",
    "Door: 2 => 3",
    "Door.open: not self.width or (self.width > LIMIT and self.hinge) => self.width > LIMIT and self.hinge",
    "Door.open: not self.width or (self.width > LIMIT and self.hinge) => not self.width",
    "Door.open: not self.width or (self.width > LIMIT and self.hinge) =>"
    " self.width or (self.width > LIMIT and self.hinge)",
    "Door.open: not self.width or (self.width > LIMIT and self.hinge) => not self.width or self.hinge",
    "Door.open: not self.width or (self.width > LIMIT and self.hinge) => not self.width or self.width > LIMIT",
    "Door.open: self.width > LIMIT and self.hinge => self.width <= LIMIT and self.hinge",
    "Door.open: False => True",
    "Door.open: self.seen += 1 => self.seen -= 1",
    "Door.open: self.seen += 1 => pass",
    "Door.open: 1 => 2",
    "Door.open: print('a text', self.seen) => pass",
    "Door.open: return self.seen - 1 < self.width => return None",
    "Door.open: self.seen - 1 < self.width => self.seen - 1 <= self.width",
    "Door.open: self.seen - 1 < self.width => self.seen + 1 < self.width",
    "Door.open: self.seen - 1 => self.seen - 2",
]


def test_faults_are_found_and_named() -> None:
    assert [mutant.key for mutant in mutants_of("door.py", SOURCE)] == FAULTS


def test_each_fault_changes_one_place() -> None:
    whole = ast.unparse(ast.parse(SOURCE)).splitlines()
    for mutant in mutants_of("door.py", SOURCE):
        changed = ast.unparse(mutated(SOURCE, mutant)).splitlines()
        assert len(changed) == len(whole)
        assert sum(one != other for one, other in zip(whole, changed, strict=True)) == 1


def test_names_stay_when_lines_move() -> None:
    moved = SOURCE.replace("LIMIT:", "\n\n# Why.\nLIMIT:").replace("    width:", "    height: str\n    width:")
    assert [mutant.key for mutant in mutants_of("door.py", moved)] == FAULTS


def test_each_reason_is_that_of_a_fault() -> None:
    reasons = Reasons()
    names = {
        mutant.name
        for pattern in MODULES
        for path in ROOT.glob(pattern)
        for mutant in mutants_of(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
    }
    assert set(reasons.faults) <= names
    assert all(any(re.fullmatch(pattern, name) for name in names) for pattern, _ in reasons.patterns)
