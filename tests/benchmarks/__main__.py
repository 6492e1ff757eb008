"""Measures, and writes RESULTS.md:  python -m tests.benchmarks [--scale 0.1]

Takes about three minutes at full scale. Peers (tcpdump, tshark) are measured where they are installed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from . import rules
from .measure import ROOT, Cost, cost_of, in_turns, machine, seconds
from .workload import Truth, write

RESULTS: Final = Path(__file__).with_name("RESULTS.md")
STARTS: Final = 15
"""Runs of each start; they are short, so more of them are disturbed."""
TURNS: Final = 3
PEERS: Final = {
    "tcpdump, keeping port 5683": ("tcpdump", "-r", "{capture}", "-w", "/dev/null", "tcp port 5683"),
    "tshark, showing port 5683": ("tshark", "-n", "-r", "{capture}", "-Y", "tcp.port==5683"),
}
GROWTH: Final = 4


class Work(NamedTuple):
    """A workload: ``packets`` in its smaller size; the larger has `GROWTH` times as many."""

    says: str
    packets: int
    sessions: int
    spark: float
    more_sessions: bool


WORKLOADS: Final = {
    "needle": Work("few sessions in much other traffic", 75_000, 20, 0.02, more_sessions=False),
    "long": Work("long sessions, nothing else", 50_000, 4, 1.0, more_sessions=False),
    "fleet": Work("short sessions, 40 packets each", 20_000, 500, 1.0, more_sessions=True),
}


def main() -> None:
    """Measure everything, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="size of the workloads (default 1)")
    parser.add_argument("-o", dest="output", type=Path, default=RESULTS, help="default: tests/benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        lines = list(page(Path(name), arguments.scale))
    arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def page(folder: Path, scale: float) -> Iterator[str]:
    """Yield the lines of the page."""
    yield "# What `sparkshark analyze` takes"
    yield ""
    yield f"Written by `python -m tests.benchmarks` on {datetime.now(UTC):%Y-%m-%d}. {machine()}"
    yield "Each time is the best of several runs, as what else the machine does only adds. Times of different days do"
    yield "not compare: only ratios within this page mean anything."
    yield ""
    yield from throughput(folder, scale)
    yield ""
    yield from rules.table(folder, scale)
    yield ""
    yield from start(folder)


def throughput(folder: Path, scale: float) -> Iterator[str]:
    """Yield the table of speed and memory, each workload at two sizes."""
    yield "## Speed and memory"
    yield ""
    yield f"The larger size has {GROWTH} times the packets; in *fleet*, {GROWTH} times the sessions, too: the report"
    yield "tells of each, so memory grows with them there."
    yield ""
    yield "| workload | packets | of Spark | sessions | file | time | packets/s | peak memory | larger / smaller |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    peers = []
    for name, work in WORKLOADS.items():
        smaller: Cost | None = None
        for growth in (1, GROWTH):
            capture = folder / f"{name}.pcap"
            sessions = work.sessions * (growth if work.more_sessions else 1)
            packets = int(work.packets * growth * scale)
            truth = write(capture, packets=packets, sessions=max(1, int(sessions * scale)), spark=work.spark)
            costs = [cost_of(["analyze", str(capture)], folder) for _ in range(TURNS)]
            cost = min(costs)
            yield _row(f"{name}: {work.says}", truth, capture, cost, smaller)
            smaller = cost
        if name == "needle":
            peers = list(_peers(capture, folder))
        capture.unlink()
    yield from peers


def _row(name: str, truth: Truth, capture: Path, cost: Cost, smaller: Cost | None) -> str:
    ratio = "" if smaller is None else f"{cost.peak / smaller.peak:.2f} × memory"
    return (
        f"| {name} | {truth.packets:,} | {truth.spark_packets:,} | {truth.sessions:,} |"
        f" {capture.stat().st_size / 1e6:.1f} MB | {cost.wall:.2f} s | {truth.packets / cost.wall:,.0f} |"
        f" {cost.peak / 1024:.1f} MiB | {ratio} |"
    )


def _peers(capture: Path, folder: Path) -> Iterator[str]:
    """Yield how long others take for the larger *needle*."""
    runs = {"sparkshark analyze": lambda: cost_of(["analyze", str(capture)], folder).wall}
    for name, command in PEERS.items():
        if shutil.which(command[0]):
            runs[name] = partial(seconds, [word.format(capture=capture) for word in command])
    taken = in_turns(runs, TURNS)
    yield ""
    yield "Others on the larger *needle*, for comparison:"
    yield ""
    yield "| | time | sparkshark takes |"
    yield "|---|---:|---:|"
    for name, wall in taken.items():
        yield f"| {name} | {wall:.2f} s | {taken['sparkshark analyze'] / wall:.2f} × |"


def start(folder: Path) -> Iterator[str]:
    """Yield the table of start-up times."""
    small = ROOT / "captures" / "capture-gap.pcap"
    ours = [sys.executable, "-m", "analyzer"]
    runs = {
        "python, nothing else": [sys.executable, "-c", "pass"],
        "python, importing AES from cryptography": [
            sys.executable,
            "-c",
            "import cryptography.hazmat.primitives.ciphers",
        ],
        "sparkshark --help": [*ours, "--help"],
        "sparkshark explain SPK206": [*ours, "explain", "SPK206"],
        "sparkshark analyze, 1 kB without frames": [*ours, "analyze", str(ROOT / "captures" / "port-blocked.pcap")],
        "sparkshark analyze, 10 kB": [*ours, "analyze", str(small)],
    }
    taken = in_turns({name: partial(seconds, command) for name, command in runs.items()}, STARTS)
    bare = taken["python, nothing else"]
    yield "## Start"
    yield ""
    yield "| | time | more than bare Python |"
    yield "|---|---:|---:|"
    for name, wall in taken.items():
        yield f"| {name} | {wall * 1000:.0f} ms | {(wall - bare) * 1000:.0f} ms |"


if __name__ == "__main__":
    main()
