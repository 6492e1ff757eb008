"""Runs attacks at two sizes in processes of their own, and says how what they cost grows."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.measure import CHILD, environment

from attacks.model import Attack, Run
from attacks.scene import DEVICE

APART: Final = 4
"""The larger size is so many times the smaller: start and noise count for less than with twice as many."""
DOUBLINGS: Final = 2
STEEPEST: Final = 2.4
"""Processor time for twice the size, of what is linear: twice, and a fifth for caches that no longer hold it all."""
ROOM_MIB: Final = 24
ROOM: Final = 1.25
"""What a peak may vary by although nothing grows."""
PATIENCE_S: Final = 3_600
HEALTHY: Final = "SPK001"


class Cost(NamedTuple):
    """What one run took: processor seconds, peak memory in MiB; and what was not as it should be."""

    processor: float
    peak: float
    wrong: tuple[str, ...]


class Result(NamedTuple):
    """An attack at its larger size, and how that compares with the smaller one."""

    attack: Attack
    size: int
    cost: Cost
    times: float
    more_mib: float
    wrong: tuple[str, ...]

    @property
    def row(self) -> list[str | int | float]:
        """What is written down of it."""
        name, value = bound_of(self.attack.bound)
        return [
            self.attack.name,
            f"{self.size:,} {self.attack.unit}",
            round(self.cost.processor, 1),
            round(self.cost.peak),
            f"{self.times:.2f} ×",
            f"{self.more_mib:+.0f} MiB",
            f"{name} = {value}",
        ]


def bound_of(path: str) -> tuple[str, str]:
    """Return a constant's name, and its value as it stands in the program now."""
    module, _, name = path.rpartition(".")
    value = getattr(importlib.import_module(f"analyzer.{module}"), name)
    return path, f"{value:,}" if isinstance(value, int) else str(value)


def tried(attack: Attack, scale: float) -> Result:
    """Run an attack at a quarter of its size, then at all of it."""
    start = start_cost()
    size = max(APART * 25, round(attack.size * scale))
    small, large = (_cost(attack, n) for n in (size // APART, size))
    ratio = max(large.processor - start, 0.05) / max(small.processor - start, 0.05)
    times = ratio ** (1 / DOUBLINGS)
    more = (large.peak - small.peak) * 2 / (APART - 1)  # from half the larger size to all of it
    wrong = [*small.wrong, *large.wrong]
    if times > STEEPEST:
        wrong.append(f"{times:.1f} times the processor time for twice the size")
    allowed = attack.each * (size - size // APART) / (1 << 20) + ROOM_MIB + small.peak * (ROOM - 1)
    if large.peak - small.peak > allowed:
        wrong.append(f"{large.peak - small.peak:.0f} MiB more, {allowed:.0f} allowed")
    return Result(attack, size, large, times, more, tuple(wrong))


_START: dict[str, float] = {}


def start_cost() -> float:
    """Return the processor seconds of a command with next to nothing to do."""
    if not _START:
        with tempfile.TemporaryDirectory(prefix="attack-") as name:
            _START["start"] = _run(Run(["explain", "SPK001"], bystander=False), Path(name)).processor
    return _START["start"]


def _cost(attack: Attack, n: int) -> Cost:
    with tempfile.TemporaryDirectory(prefix="attack-") as name:
        return _run(attack.build(Path(name), n), Path(name))


def _run(run: Run, folder: Path) -> Cost:
    told, out, err = (folder / name for name in ("cost.json", "out", "err"))
    command = [sys.executable, "-c", CHILD, str(told), *run.words]
    wrong: list[str] = []
    with out.open("wb") as output, err.open("wb") as errors, open(run.feed or "/dev/null", "rb") as feed:
        child = subprocess.Popen(command, env=environment(), cwd=folder, stdin=feed, stdout=output, stderr=errors)
        begun, grows = time.monotonic(), run.grow is not None
        while child.poll() is None:
            grows = grows and run.grow is not None and run.grow()
            with suppress(subprocess.TimeoutExpired):
                child.wait(0.01 if grows else 5)
            if time.monotonic() - begun > PATIENCE_S:
                child.kill()
                child.wait()
                return Cost(PATIENCE_S, 0, ("it did not end",))
    errors_text = err.read_text(errors="replace")
    if not told.exists():
        return Cost(0, 0, (f"it died: {errors_text[-300:]}",))
    status, peak, processor = json.loads(told.read_text())
    if status not in run.status:
        wrong.append(f"exit status {status}: {errors_text[-300:]}")
    said = errors_text
    if run.says:
        said += out.read_text(errors="replace")
    wrong += [f'"{text}" was not said' for text in run.says if text not in said]
    if run.bystander and not _is_healthy(out):
        wrong.append("the healthy session beside it is not called healthy")
    return Cost(processor, peak / 1024, tuple(wrong))


def _is_healthy(out: Path) -> bool:
    """Whether the session beside the attack works, by the JSON lines."""
    conversations: list[int] = []
    for record in _records(out):
        if record["kind"] == "conversation" and record["device"]["ip"] == DEVICE and record["protocol"] == "spark":
            conversations.append(record["number"])
        elif record["kind"] == "finding" and record["code"] == HEALTHY and conversations:
            return any(number in record["conversations"] for number in conversations)
    return False


def _records(out: Path) -> Iterator[dict[str, Any]]:
    with out.open(encoding="utf-8") as lines:
        for line in lines:
            if '"kind": "conversation"' in line[:40] or '"kind": "finding"' in line[:40]:
                yield json.loads(line)
