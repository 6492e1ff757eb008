"""The page: goals first, then everything that was measured."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median

from tabulate import tabulate

from analyzer.version import version

from ..measure import machine
from .correct import Correctness, Share
from .goals import ONE, TWO, Peaks, Taken, of_memory, of_time
from .tools import NODE, installed


@dataclass(slots=True)
class Measured:
    """Everything that the page tells; a workload that was not asked for is missing."""

    taken: Taken = field(default_factory=dict)
    peaks: Peaks = field(default_factory=dict)
    correct: dict[str, dict[str, Correctness]] = field(default_factory=dict)
    """By workload and run."""
    flows: dict[str, dict[str, Share]] = field(default_factory=dict)
    """tcpflow's files that are right, by workload and sender."""
    frames: dict[str, int] = field(default_factory=dict)
    """Encrypted frames, by workload."""
    failed: list[str] = field(default_factory=list)
    """Sentences about what ended with an error."""


def page(measured: Measured) -> Iterator[str]:
    """Yield the lines."""
    command = shlex.join(["python", "-m", "tests.benchmarks.peers", *sys.argv[1:]])
    tools = ", ".join(f"{name} {version}" for name, version in installed().items())
    yield "# sparkshark beside other tools"
    yield ""
    yield f"Written by `{command}` on {datetime.now(UTC):%Y-%m-%d}."
    yield f"sparkshark {version()}; {machine()}"
    yield f"{os.cpu_count()} processors; {tools or 'no other tool is installed'}."
    yield "What was tried on the way, and what did not help, is in [TRIED.md](TRIED.md)."
    yield ""
    yield "Runs are paired: in each round all of them run once, one after the other, and a ratio is the median of the"
    yield "rounds' ratios, the least and the greatest beside it. Only ratios mean anything: machines differ, and one"
    yield "machine differs from hour to hour. The goals are for scale 1; in less, starting up counts for more."
    yield "Files are in the page cache, output goes nowhere. The workloads: `python -m tests.benchmarks.workloads -h`."
    yield ""
    yield from (f"**Failed:** {sentence}\n" for sentence in measured.failed)
    yield "## Goals"
    yield ""
    rows = [*of_time(measured.taken), *of_memory(measured.peaks)]
    yield from table(["work", "ours", "compared with", "goal", "measured", ""], rows)
    yield ""
    yield "## Correctness"
    yield ""
    yield from _correctness(measured.correct, measured.flows)
    yield ""
    yield "## Time"
    yield ""
    header = ["work", "what ran", "wall time", "processor time", "frames opened/s"]
    yield from table(header, _times(measured.taken, measured.frames), right=3)
    yield ""
    yield "## Memory"
    yield ""
    yield "`analyze` with keys. *Together*: all processes of the run, pages that they share counted once."
    yield ""
    yield from table(["workload", "what ran", "largest process", "together"], _memory(measured.peaks), right=2)


def table(header: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]], right: int = 0) -> list[str]:
    """Return a Markdown table, the last ``right`` columns aligned to the right."""
    align = ["left"] * (len(header) - right) + ["right"] * right
    return tabulate(list(rows), header, "pipe", colalign=align, disable_numparse=True).splitlines()


def _times(taken: Taken, frames: dict[str, int]) -> Iterator[Sequence[str]]:
    for work, runs in taken.items():
        for name, each in runs.items():
            wall, processor = median(one.wall for one in each), median(one.processor for one in each)
            opens = work.verb == "decrypt" and name in (ONE, TWO, NODE)
            rate = f"{frames[work.workload] / wall:,.0f}" if opens else "–"
            yield str(work), name, f"{wall:.2f} s", f"{processor:.2f} s", rate


def _memory(peaks: Peaks) -> Iterator[Sequence[str]]:
    for (workload, whole, name), held in peaks.items():
        size = workload if whole else f"{workload}, a quarter"
        yield f"*{size}*", name, f"{held.largest / 1024:.1f} MiB", f"{held.together / 1024:.1f} MiB"


def _correctness(correct: dict[str, dict[str, Correctness]], flows: dict[str, dict[str, Share]]) -> Iterator[str]:
    yield "*Right*: SHA-256 over all messages of each direction is that of what was sent, and no hole is claimed."
    yield "*Holes*: sessions of which packets are missing, said to be so. *Failures*: connections that came to nothing,"
    yield "told to have failed for the reason for which they did."
    yield ""
    header = ["workload", "what ran", "sessions right", "holes said", "failures told", "messages", "output"]
    rows = []
    for workload, runs in correct.items():
        same = len({one.output for one in runs.values()}) == 1
        for name, one in runs.items():
            output = ("the same bytes" if same else "**differs**") if len(runs) > 1 else "–"
            told = [str(share) for share in (one.complete, one.holes, one.verdicts)]
            rows.append([f"*{workload}*", name, *told, f"{one.frames:,}", output])
    yield from table(header, rows)
    if flows:
        yield ""
        yield "tcpflow's files of the same sessions, compared with the bytes of each TCP stream:"
        yield ""
        sides = [[f"*{name}*", str(both["device"]), str(both["server"])] for name, both in flows.items()]
        yield from table(["workload", "device to server", "server to device"], sides)
