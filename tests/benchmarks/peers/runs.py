"""Runs any command in a process of its own: what it took, and how much memory it and its helpers held."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from ..measure import ROOT

POLL: Final = 0.005
"""Seconds between two looks at a process's memory. The kernel keeps the peak; only the last moments can be missed."""


class Took(NamedTuple):
    """Seconds of wall time, and of processor time with that of all child processes."""

    wall: float
    processor: float


class Held(NamedTuple):
    """Peak memory in KiB: of the largest process, and of all together (shared pages counted once)."""

    largest: int
    together: int


class Setting(NamedTuple):
    """Where commands run: a folder for scratch, and their environment."""

    scratch: Path
    environment: dict[str, str]


def setting(scratch: Path) -> Setting:
    """Return a setting as a user has it: this checkout, installed, its byte code compiled once and kept."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(scratch / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return Setting(scratch, environment)


def sparkshark(*words: str) -> list[str]:
    """Return the command line of ``sparkshark WORDS``."""
    return [sys.executable, "-m", "analyzer", *words]


def took(command: Sequence[str], where: Setting) -> Took:
    """Run a command to its end. Raises `RuntimeError` when it fails."""
    begun = time.perf_counter()
    with _started(command, where) as (process, complaints):
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        _check(process, complaints)
    return Took(wall, used.ru_utime + used.ru_stime)


def held(command: Sequence[str], where: Setting) -> Held | None:
    """Run a command and watch its memory; None where there is no ``/proc``. Raises `RuntimeError` when it fails."""
    if not Path("/proc/self/smaps_rollup").exists():
        return None
    largest = together = 0
    with _started(command, where) as (process, complaints):
        while process.poll() is None:
            now = 0
            for number in _family(process.pid):
                largest = max(largest, _kib(f"/proc/{number}/status", "VmHWM:"))
                now += _kib(f"/proc/{number}/smaps_rollup", "Pss:")
            together = max(together, now)
            time.sleep(POLL)
        _check(process, complaints)
    return Held(largest, max(largest, together))


class _started:  # noqa: N801 -- reads as what it is: with _started(...)
    """A command whose output goes nowhere and whose complaints are kept, ended with the block."""

    def __init__(self, command: Sequence[str], where: Setting) -> None:
        self._complaints = where.scratch / "stderr"
        with self._complaints.open("wb") as file:
            self._process = subprocess.Popen(command, env=where.environment, stdout=subprocess.DEVNULL, stderr=file)

    def __enter__(self) -> tuple[subprocess.Popen[bytes], Path]:
        return self._process, self._complaints

    def __exit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()


def _check(process: subprocess.Popen[bytes], complaints: Path) -> None:
    if process.returncode:
        said = complaints.read_text(errors="replace").strip()[-500:]
        raise RuntimeError(f"exit status {process.returncode}: {said}")


def _family(process: int) -> Iterator[int]:
    """Yield a process, and all that it and its children have started."""
    yield process
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        for child in _text(str(task)).split():
            yield from _family(int(child))


def _kib(path: str, name: str) -> int:
    for line in _text(path).splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:  # it has ended meanwhile
        return ""


def in_rounds(runs: dict[str, Callable[[], Took]], rounds: int) -> dict[str, list[Took]]:
    """Run all in turn, A B C A B C …: what the machine does meanwhile hits the runs of one round alike."""
    taken: dict[str, list[Took]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            taken[name].append(run())
    return taken


def ratios(ours: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, the least and the greatest of what each round says."""
    each = [one / other for one, other in zip(ours, others, strict=True)]
    return median(each), min(each), max(each)
