"""Runs a command in a process of its own and says what it took, and on what it ran."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]

# The process tells of itself: what getrusage says begins at the size of the process that started it, so the
# kernel's own mark for this program is preferred where there is one.
CHILD: Final = """
import json, re, resource, sys
from analyzer.cli import main
status = main(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_SELF)
peak = used.ru_maxrss if sys.platform != "darwin" else used.ru_maxrss // 1024
try:
    peak = int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
except OSError:
    pass
with open(sys.argv[1], "w") as told:
    json.dump([status, peak, used.ru_utime + used.ru_stime], told)
"""


class Cost(NamedTuple):
    """What a run took: wall time and processor time in seconds, peak memory in KiB."""

    wall: float
    processor: float
    peak: int


def cost_of(words: Sequence[str], folder: Path) -> Cost:
    """Run ``sparkshark WORDS``; ``folder`` is for scratch. Raises `RuntimeError` when it fails."""
    told = folder / "cost.json"
    begun = time.perf_counter()
    command = [sys.executable, "-c", CHILD, str(told), *words]
    done = subprocess.run(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    wall = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    status, peak, processor = json.loads(told.read_text())
    if status:
        raise RuntimeError(f"sparkshark {' '.join(words)}: exit status {status}: {done.stderr.decode()}")
    return Cost(wall, processor, peak)


def environment() -> dict[str, str]:
    """Where the package of this checkout is found."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def seconds(command: Sequence[str]) -> float:
    """Wall time of any command."""
    begun = time.perf_counter()
    subprocess.run(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def in_turns(runs: dict[str, Callable[[], float]], times: int) -> dict[str, float]:
    """Return the best of each, run in turns: what else the machine does only adds, and hits all of them alike."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(times):
        for name, run in runs.items():
            taken[name].append(run())
    return {name: min(each) for name, each in taken.items()}


def machine() -> str:
    """Return what it ran on."""
    model = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("cryptography", "dpkt"))
    return f"{model}, {platform.system()}, Python {platform.python_version()}, {versions}."


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
