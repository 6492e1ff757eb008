"""What judging costs beside reading:  python -m tests.benchmarks.rules [--scale 0.1]

Reading is everything up to the last packet of a capture, from bytes to conversations; judging is every rule over all
conversations, folding included. Both are processor time of one process, the best of a few runs. The page of
`tests.benchmarks` has this table, too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest.mock import patch

from analyzer import analyze, pipeline
from analyzer.simulate import simulate
from analyzer.trace import Trace

from .workload import write

TURNS: Final = 3
Writes = Callable[[Path, float], object]


class Judged(NamedTuple):
    """What one analysis took, in seconds of processor time."""

    reading: float
    judging: float
    packets: int
    conversations: int


def _sessions(path: Path, scale: float, *, packets: int, sessions: int, spark: float) -> None:
    many = max(1, round(sessions * scale))
    write(path, packets=round(packets * scale), sessions=many, spark=spark)


def _attempts(path: Path, scale: float, *, name: str, attempts: int) -> None:
    path.write_bytes(simulate(name, attempts=max(1, round(attempts * scale))).capture())


WORKLOADS: Final[dict[str, Writes]] = {
    "needle: few sessions in much other traffic": partial(_sessions, packets=75_000, sessions=20, spark=0.02),
    "long: long sessions, nothing else": partial(_sessions, packets=50_000, sessions=4, spark=1.0),
    "fleet: 2,000 short sessions": partial(_sessions, packets=80_000, sessions=2_000, spark=1.0),
    "refused: 1,500 attempts of one device": partial(_attempts, name="wrong-server-key", attempts=1_500),
    "mismatch: 1,500 attempts of one device": partial(_attempts, name="key-mismatch", attempts=1_500),
    "blocked: 1,500 attempts, each with a name lookup": partial(_attempts, name="port-blocked", attempts=1_500),
}


def cost(path: Path) -> Judged:
    """Analyse a capture, and tell the two costs apart."""
    took: list[float] = []
    real: Any = vars(pipeline)["judge"]

    def judge(trace: Trace) -> None:
        begun = time.process_time()
        real(trace)
        took.append(time.process_time() - begun)

    with patch.object(pipeline, "judge", judge):
        begun = time.process_time()
        trace = analyze(path)
        whole = time.process_time() - begun
    return Judged(whole - took[0], took[0], trace.packets, len(trace.conversations))


def table(folder: Path, scale: float) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "## The rules"
    yield ""
    yield "Processor time of reading a capture, and of all rules over what was read."
    yield ""
    yield "| workload | packets | conversations | reading | judging | judging / reading |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name, prepare in WORKLOADS.items():
        capture = folder / "rules.pcap"
        prepare(capture, scale)
        best = min((cost(capture) for _ in range(TURNS)), key=lambda one: one.reading + one.judging)
        yield (
            f"| {name} | {best.packets:,} | {best.conversations:,} | {best.reading:.2f} s | {best.judging:.3f} s |"
            f" {best.judging / best.reading:.2f} |"
        )
        capture.unlink()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.rules", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="size of the workloads (default 1)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for line in table(Path(name), arguments.scale):
            print(line)


if __name__ == "__main__":
    main()
