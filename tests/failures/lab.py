"""Runs of the commands against one failure after the other, with what each came to."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from failures.commands import BY_NAME, COMMANDS, inputs
from failures.desk import Command, Desk, Run, complaints

TRACED: Final = "read,write,openat,rename,unlink,mkdir,rmdir,flock,close,ftruncate,clone,clone3,fork,vfork"
"""System calls that are counted, so that one of them can be made to fail."""
CALL: Final = re.compile(r"(\d+) +(\w+)\((.*)")


@dataclass(slots=True)
class Case:
    """One row of the record: what failed, what must hold, how often it was tried, and what did not hold."""

    title: str
    holds: str
    tried: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Call:
    """The n-th call of one kind by the main process, with whether it is about what the command writes."""

    name: str
    number: int
    ours: bool


class Lab:
    """A folder for the runs, and what undisturbed runs come to."""

    def __init__(self, folder: Path, only: str = "", share: float = 1.0) -> None:
        """``only`` is what the names of the commands have in them that are tried, ``share`` how many of these."""
        self.folder = folder
        self._all, self._share = [command for command in COMMANDS if only in command.name], share
        self.commands, self.writing = self._all, [command for command in self._all if command.writes]
        self.inputs = inputs(folder / "inputs")
        self._whole: dict[str, Run] = {}
        self._calls: dict[str, list[Call]] = {}

    def choose(self, chance: random.Random) -> None:
        """Choose the commands that are tried next."""
        writing = [command for command in self._all if command.writes]
        chosen, chosen_writing = (
            chance.sample(commands, min(len(commands), max(1, round(self._share * len(commands)))))
            for commands in (self._all, writing)
        )
        self.commands = [command for command in self._all if command in chosen]
        self.writing = [command for command in writing if command in chosen_writing]

    def desk(self) -> Desk:
        return Desk(self.folder / "desk", self.inputs)

    def whole(self, command: Command) -> Run:
        """Return what comes of a run in which nothing fails."""
        if command.name not in self._whole:
            run = self.desk().run(command)
            assert run.status == 0, (command.name, run.err)
            assert not run.left, (command.name, run.left)
            self._whole[command.name] = run
        return self._whole[command.name]

    def calls(self, command: Command) -> list[Call]:
        """Return the system calls of a run, from where the first file of ours is opened."""
        if command.name not in self._calls:
            desk = self.desk()
            log = self.folder / "calls"
            desk.run(command, before=("strace", "-f", "-y", "-o", str(log), "-e", f"trace={TRACED}"))
            self._calls[command.name] = list(_calls(log.read_text(errors="replace").splitlines(), desk.folder))
        return self._calls[command.name]

    def again(self, command: Command, desk: Desk) -> list[str]:
        """Run the command once more in the same folder; return what is wrong with it then."""
        force = ("--force",) if command.force and command.writes else ()
        run = desk.run(command, words=force)
        if command.adds is not None:
            run.files = {name: content for name, content in run.files.items() if not name.startswith(command.adds)}
        whole = self.whole(command)
        wrong = complaints(run, whole, statuses=(0,), same=command.same)
        wrong += [f"{name} is not there" for name in whole.files if command.same and name not in run.files]
        return [f"run again: {text}" for text in wrong]


def _calls(lines: Sequence[str], folder: Path) -> Iterator[Call]:
    main, begun, counts = "", False, dict[str, int]()
    for line in lines:
        if not (found := CALL.match(line)):
            continue
        pid, name, rest = found.groups()
        main = main or pid
        if pid != main:
            continue
        counts[name] = counts.get(name, 0) + 1
        begun = begun or "analyzer/cli" in rest
        if begun:
            yield Call(name, counts[name], f"{folder}/out" in rest or '"out' in rest)


def some(*names: str) -> list[Command]:
    """Some commands."""
    return [BY_NAME[name] for name in names]


def moved(command: Command, changes: Mapping[str, str]) -> Command:
    """The same command with other file names."""

    def change(word: str) -> str:
        for old, new in changes.items():
            word = word.replace(old, new)
        return word

    return replace(
        command,
        words=tuple(change(word) for word in command.words),
        stdin=None if command.stdin is None else change(command.stdin),
    )


def has(program: str) -> bool:
    """Whether a program is there."""
    return shutil.which(program) is not None


def may_mount() -> bool:
    """Whether file systems can be put somewhere, seen by one run alone."""
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False) if has("unshare") else None
    return done is not None and done.returncode == 0
