"""Runs sparkshark and other tools in turn, checks what they say, and writes RESULTS-PEERS.md.

At scale 1 this takes most of an hour and 3 GB of disk; at 0.05, a few minutes. Tools that are not installed are left
out, and the page says so.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Final

from ..workloads import WORKLOADS, Made, make
from . import tools
from .correct import of_sparkshark, of_tcpflow
from .goals import FLEET, FLEET_OPENED, GROWTH, LONG_OPENED, NEEDLE, Work
from .page import Measured, page
from .runs import Setting, Took, held, in_rounds, setting, took

RESULTS: Final = Path(__file__).parents[1] / "RESULTS-PEERS.md"
PEERS: Final[dict[Work, tuple[tools.Peer, ...]]] = {
    NEEDLE: (tools.TCPDUMP, tools.TSHARK),
    FLEET: (tools.TCPFLOW,),
    FLEET_OPENED: (tools.FIELDS,),
    LONG_OPENED: (tools.FOLLOW,),
}
WATCHED: Final = ("needle", "fleet", "long", "stalls", "dead")
"""Workloads whose memory is watched."""
CHECKED: Final = {
    "needle": "decrypt",
    "fleet": "decrypt",
    "long": "decrypt",
    "hostile": "decrypt",
    # Nothing opens in these, or nearly so: what counts is what is said about each connection.
    "stalls": "analyze",
    "dead": "analyze",
}
REASSEMBLED: Final = ("fleet", "hostile")
"""Workloads of which tcpflow's files are checked."""


def main() -> None:
    """Measure what was asked for, and write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scale", type=float, default=1.0, help="size of the workloads (default 1)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each command (default 5)")
    parser.add_argument("--workloads", type=_names, default=list(WORKLOADS), metavar="A,B", help="default: all")
    parser.add_argument("--folder", type=Path, help="keep the workloads there; those that are there are not made again")
    parser.add_argument(
        "-o", dest="output", type=Path, default=RESULTS, help="default: tests/benchmarks/RESULTS-PEERS.md"
    )
    wanted = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as scratch,
        nullcontext(wanted.folder) if wanted.folder else tempfile.TemporaryDirectory() as folder,
    ):
        where = setting(Path(scratch))
        bench = Bench(Path(folder), wanted.scale, wanted.rounds, where)
        for name in wanted.workloads:
            bench.workload(name)
        lines = list(page(bench.measured))
    wanted.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in WORKLOADS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no workload {unknown[0]!r}: they are {', '.join(WORKLOADS)}")
    return names


class Bench:
    """Makes workloads and measures, workload by workload."""

    def __init__(self, folder: Path, scale: float, rounds: int, where: Setting) -> None:
        self.measured = Measured()
        self._folder, self._scale, self._rounds, self._where = folder, scale, rounds, where
        self._jobs = {verb: tools.jobs_of(verb, where) for verb in ("analyze", "decrypt")}

    def workload(self, name: str) -> None:
        """Make a workload, and do with it all that there is to do; what fails is told on the page."""
        made = self._made(name, self._scale)
        _say(f"{name}: {made.captures[0].stat().st_size / 1e6:,.1f} MB")
        self.measured.frames[name] = sum(json.loads(made.totals.read_text(encoding="utf-8"))["frames"].values())
        steps: dict[str, Callable[[], None]] = {"correctness": partial(self._check, name, made)}
        for work in PEERS:
            if work.workload == name:
                steps[f"{work.verb}, {self._rounds} rounds"] = partial(self._race, work, made)
        if name in WATCHED:
            steps["memory"] = partial(self._watch, name, made)
        for says, step in steps.items():
            _say(f"{name}: {says}")
            try:
                step()
            except RuntimeError as error:
                _say(str(error))
                self.measured.failed.append(f"*{name}*, {says}: {error}")

    def _made(self, name: str, scale: float) -> Made:
        folder = self._folder / f"{name}-{scale:g}"
        totals = folder / f"{name}.truth.json"
        if totals.exists():
            captures = [folder / capture for capture in json.loads(totals.read_text(encoding="utf-8"))["captures"]]
            return Made(captures, folder / "keys", totals, folder / f"{name}.sessions.jsonl")
        return make(name, folder, scale=scale)

    def _race(self, work: Work, made: Made) -> None:
        took(tools.ours(work.verb, made, []), self._where)  # compiles, and brings the file into the page cache
        self.measured.taken[work] = in_rounds(self._runs(work, made), self._rounds)

    def _runs(self, work: Work, made: Made) -> dict[str, Callable[[], Took]]:
        """Return all that runs in each round of a work."""
        runs: dict[str, Callable[[], Took] | None] = {}
        for peer in PEERS[work]:
            runs[peer.says] = tools.runner(peer, made, self._where)
        for jobs, options in self._jobs[work.verb].items():
            runs[jobs] = partial(took, tools.ours(work.verb, made, options), self._where)
        if work == FLEET:
            runs[tools.FLOOR] = tools.floor(json.loads(made.totals.read_text(encoding="utf-8"))["sessions"])
        if work == LONG_OPENED:
            runs[tools.NODE] = tools.deciphering(self.measured.frames[work.workload])
        return {name: run for name, run in runs.items() if run is not None}

    def _check(self, name: str, made: Made) -> None:
        verb = CHECKED[name]
        self.measured.correct[name] = {
            jobs: of_sparkshark(verb, made, options, self._where) for jobs, options in self._jobs[verb].items()
        }
        tcpflow = tools.runner(tools.TCPFLOW, made, self._where) if name in REASSEMBLED else None
        if tcpflow is not None:
            tcpflow()
            self.measured.flows[name] = of_tcpflow(tools.output_folder(self._where), made.sessions)

    def _watch(self, name: str, made: Made) -> None:
        quarter = self._made(name, self._scale / GROWTH)
        for whole, one in ((False, quarter), (True, made)):
            for jobs, options in self._jobs["analyze"].items():
                peak = held(tools.ours("analyze", one, options), self._where)
                if peak is not None:
                    self.measured.peaks[name, whole, jobs] = peak


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
