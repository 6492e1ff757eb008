"""How often the verdict is right, and how far its words of confidence can be trusted:

    python -m tests.confusion [--seeds N] [--jobs 2] [--write]

Plays every story with N random combinations of firmware, server dialect, network, link layer, capture damage and keys,
and every shipped capture, and prints the confusion table, the calibration of the words, and the measures. Each wrong
claim is listed with the seed that plays it again. ``--write`` keeps the page as tests/CONFUSION.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from judging import NAMES
from true_findings import TRUE, KeySet

from analyzer.findings import CONFIDENCE_ORDER, CONFIDENCE_WORDS, Confidence
from confusion.played import (
    CANNOT_TELL,
    HEALTHY,
    MISSED,
    NO_CLAIM,
    NO_SPARK,
    OUTCOMES,
    STRANGE,
    UNKNOWABLE,
    Claim,
    Played,
    play,
    play_shipped,
)

PAGE: Final = Path(__file__).resolve().parent.parent / "CONFUSION.md"
SEEDS: Final = 40
PROMISED: Final = {Confidence.CERTAIN: 0.95, Confidence.STRONG: 0.80, Confidence.LIKELY: 0.60}
"""Share of right ones among the claims made with a word (the catalogue's section 2)."""
SURE: Final = (Confidence.CERTAIN, Confidence.STRONG)
SURE_RIGHT: Final = 0.98
"""Share of right causes among the claims that are certain or very likely."""


@dataclass(slots=True)
class Tally:
    """What a population comes to."""

    captures: int = 0
    table: dict[str, Counter[str]] = field(default_factory=dict)
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    words: dict[tuple[bool, str], Counter[bool]] = field(default_factory=dict)
    false_alarms: int = 0
    on_premise: int = 0
    wrong: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def add(self, played: Played) -> None:
        """Count one capture."""
        self.captures += 1
        for row in played.rows:
            self.table.setdefault(row.cause, Counter())[row.verdict] += 1
            self.outcomes.setdefault(row.cause, Counter())[row.outcome] += 1
            if row.outcome in (MISSED, NO_CLAIM, CANNOT_TELL):
                self.missed.append(f"{played.name}: {row.verdict}: {played.how}")
        for claim in played.claims:
            self._claim(claim, played)

    def _claim(self, claim: Claim, played: Played) -> None:
        if claim.premise:
            self.on_premise += 1
            return
        self.words.setdefault((claim.works, claim.confidence), Counter())[claim.right] += 1
        self.false_alarms += claim.healthy and not claim.works
        if not claim.right:
            self.wrong.append(f"{played.name}: {claim.code} ({claim.confidence}): {claim.says}")

    def share(self, words: Iterable[str]) -> tuple[int, int]:
        """Of the critical and major claims made with these words: how many are right, and how many there are."""
        counts = [self.words.get((False, word), Counter()) for word in words]
        return sum(c[True] for c in counts), sum(c.total() for c in counts)


Work = tuple[str, int | KeySet]


def work(seeds: int, first: int = 0) -> list[Work]:
    """List all captures of a run: stories with a number, shipped captures with their keys."""
    played: list[Work] = [(name, seed) for seed in range(first, first + seeds) for name in TRUE]
    for name in NAMES:
        played += [(name, "none"), (name, "all")]
        if name not in ("wrong-server-key", "bad-signature", "multi-attempts-300"):
            played += ((name, keys) for keys in STRANGE)
    return played


def play_one(what: Work) -> Played | None:
    """Play one capture of `work`."""
    name, which = what
    return play(name, which) if isinstance(which, int) else play_shipped(name, which)


def tally(what: Sequence[Work], jobs: int = 1) -> Tally:
    """Play them all; the order of the result does not depend on ``jobs``."""
    result = Tally()
    if jobs == 1:
        for played in map(play_one, what):
            if played is not None:
                result.add(played)
        return result
    with multiprocessing.Pool(jobs) as pool:
        for played in pool.imap(play_one, what, chunksize=8):
            if played is not None:
                result.add(played)
    return result


# -- the page ----------------------------------------------------------------------------------------------------


def page(result: Tally, seeds: int) -> Iterator[str]:
    """Yield the lines of the page."""
    yield "# How often the verdict is right"
    yield ""
    yield f"Written by `python -m tests.confusion --seeds {seeds} --write`:"
    stories = len(TRUE)
    yield f"{result.captures:,} captures, of {stories} stories with {seeds} random combinations each (firmware, server"
    yield "dialect, network, link layer, capture damage, keys; those that do not go together are left out), and the"
    yield "shipped captures. The same seeds give the same page."
    yield ""
    yield from measures(result)
    yield ""
    yield from calibration(result)
    yield ""
    yield from confusion(result)
    yield ""
    yield "## Wrong claims"
    yield ""
    yield from (f"- {claim}" for claim in result.wrong)
    if not result.wrong:
        yield "None."


def measures(result: Tally) -> Iterator[str]:
    """Yield the headline measures."""
    right, claims = result.share(SURE)
    yield "## Measures"
    yield ""
    yield "| | measured | promised |"
    yield "|---|---:|---:|"
    yield f"| critical or major findings on healthy devices | {result.false_alarms} | 0 |"
    yield f"| right cause among claims that are certain or very likely | {_share(right, claims)} | ≥ {SURE_RIGHT:.0%} |"
    yield ""
    yield f"Not counted: {result.on_premise:,} claims that name a stranger's key as their premise (\"if another.pem is"
    yield 'the key inside this device"), where that key was given on purpose.'


def calibration(result: Tally) -> Iterator[str]:
    """Yield the table of the words of confidence."""
    yield "## What the words are worth"
    yield ""
    yield "| word | faults claimed | right | works claimed | right | promised |"
    yield "|---|---:|---:|---:|---:|---:|"
    for word in CONFIDENCE_ORDER:
        faults, works = (result.words.get((what, word), Counter[bool]()) for what in (False, True))
        promise = f"≥ {PROMISED[word]:.0%}" if word in PROMISED else ""
        yield (
            f"| {CONFIDENCE_WORDS[word]} ({word}) | {faults.total():,} | {_share(faults[True], faults.total())} |"
            f" {works.total():,} | {_share(works[True], works.total())} | {promise} |"
        )


def confusion(result: Tally) -> Iterator[str]:
    """Yield the confusion table: what is true, and what the first line of the report says."""
    yield "## Cause and verdict"
    yield ""
    yield "One row a cause, healthy ones first; of each, the devices by what their report leads with. *Right* is what"
    yield "these keys can show, umbrella findings included; where only keys show a cause and none were given, that is"
    yield "that it works. *Cannot tell* comes with a reason, *nothing claimed* without; captures that begin, end or"
    yield "lack packets in the wrong place end there."
    yield ""
    yield f"| cause | devices | {' | '.join(OUTCOMES)} | leading verdicts |"
    yield f"|---|---:|{'---:|' * len(OUTCOMES)}---|"
    for row in sorted(result.table, key=_place):
        columns, outcomes = result.table[row], result.outcomes[row]
        counts = " | ".join(f"{outcomes[what]:,}" for what in OUTCOMES)
        said = ", ".join(f"{code} {n:,}" for code, n in sorted(columns.items()) if code.startswith("SPK"))
        yield f"| {row} | {columns.total():,} | {counts} | {said} |"


def _place(row: str) -> tuple[bool, bool, str]:
    return "shipped" in row, not row.startswith((HEALTHY, UNKNOWABLE, NO_SPARK)), row


def _share(right: int, claims: int) -> str:
    return f"{right / claims:.1%}" if claims else "none"


def main() -> int:
    """Play, and print the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.confusion", description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"combinations of each story (default {SEEDS})")
    parser.add_argument("--first", type=int, default=0, help="number of the first combination (default 0)")
    parser.add_argument("--missed", action="store_true", help="list the captures that no fault was found in, too")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (default 2)")
    parser.add_argument("--write", action="store_true", help="keep the page as tests/CONFUSION.md")
    arguments = parser.parse_args()
    result = tally(work(arguments.seeds, arguments.first), arguments.jobs)
    lines = list(page(result, arguments.seeds))
    print("\n".join(lines))
    if arguments.missed:
        print("\nMissed:")
        print("\n".join(result.missed))
    if arguments.write:
        PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0
