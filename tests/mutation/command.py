"""Which small faults in the code no test notices:

    python -m tests.mutation [MODULE...] [--sample N] [--minutes N] [--budget SECONDS] [--again [TEXT]] [--report]

Puts one small fault at a time into the modules that everything else rests on (the handshake, the session, the streams
and the rules, or the MODULEs named, as in ``'analyzer/rules/*.py'``), and runs the tests that enter the changed code
until one fails. What was tried is kept in ``.mutation``, so that the command goes on where it stopped; a fault is tried
anew when the function it is in has changed. ``--sample`` takes at most N faults of each module, always the same ones,
``--minutes`` stops after a while. ``--budget`` is how long the tests may take (by what they took when nothing was
wrong) for one fault that none of them notices. ``--again`` tries those once more that were not noticed, all of them or
those with TEXT in their name: after a test was written. ``--report`` writes tests/mutation/SURVIVORS.md and the record
of the campaign. Slow; best run under ``nice``, without other tests beside it.

Why the code is not left to mutmut (3.8) or cosmic-ray (8.7): mutmut passes over properties and all else that has a
decorator, and over what a module does when it is imported, and it collects the tests once for each fault; cosmic-ray
starts Python anew for each, two seconds with these tests. Here a fault takes 0.1 to 0.2 s of a processor.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from typing import Final

import pytest

from mutation.mutants import Mutant, mutants_of
from mutation.report import write
from mutation.worker import KEEP, MODULES, OPTIONS, ROOT, Campaign, Result, as_line, digest_of, prepare

STREAMS: Final = (
    *("streams", "handshake", "frames", "conversation", "session", "sessionwatch", "decryption", "tracker", "rsa"),
    *("kinds", "restarts"),
)
RULES: Final = (
    *("rules", "rules_campaign", "rules_connectivity", "rules_device", "rules_edges", "rules_keys", "rules_session"),
    *("rules_updates", "every_finding", "repeats", "expected", "deadkey", "firmware", "kinds"),
)
"""Test files that bear on the modules, those on the rules apart; which of their tests are run is told by what they
enter."""
BUDGET: Final = 10.0
KEPT: Final = KEEP / "results.jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    first, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=first, epilog=rest)
    parser.add_argument("modules", nargs="*", metavar="MODULE")
    parser.add_argument("--sample", type=int, metavar="N")
    parser.add_argument("--minutes", type=float, default=float("inf"), metavar="N")
    parser.add_argument("--budget", type=float, default=BUDGET, metavar="SECONDS")
    parser.add_argument("--again", nargs="?", const="", metavar="TEXT")
    parser.add_argument("--tests", nargs="+", default=(), metavar="FILE", help="instead of those usually chosen")
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args(arguments)
    mutants = {module: _mutants(module) for module in _modules(args.modules or MODULES)}
    known = _known()
    if args.report:
        write(mutants, known)
        return 0
    chosen = [mutant for found in mutants.values() for mutant in found[: args.sample]]
    # Wherever it is stopped, about the same share of each module has been tried.
    todo = sorted((mutant for mutant in chosen if _is_open(mutant, known, args.again)), key=_lot)
    for rules in (False, True):
        part = [mutant for mutant in todo if ("/rules/" in mutant.module) is rules]
        if part:
            tests = args.tests or [f"tests/test_{name}.py" for name in (RULES if rules else STREAMS)]
            _try(part, tests, args.budget, args.minutes, known)
    return 0


def _modules(patterns: Iterable[str]) -> list[str]:
    return [str(path.relative_to(ROOT)) for pattern in patterns for path in sorted(ROOT.glob(pattern))]


def _mutants(module: str) -> list[Mutant]:
    """All mutants of a module, in an order that has nothing to do with that of the text."""
    found = mutants_of(module, (ROOT / module).read_text(encoding="utf-8"))
    return sorted(found, key=_lot)


def _lot(mutant: Mutant) -> bytes:
    return hashlib.sha256(mutant.name.encode()).digest()


def _known() -> dict[tuple[str, str], Result]:
    """What was found so far, by name and digest of the code."""
    lines = KEPT.read_text(encoding="utf-8").splitlines() if KEPT.exists() else []
    results = (Result(**json.loads(line)) for line in lines)
    return {(result.name, result.code): result for result in results}


def _is_open(mutant: Mutant, known: dict[tuple[str, str], Result], again: str | None) -> bool:
    result = known.get((mutant.name, digest_of(mutant)))
    if again is not None:
        return result is not None and result.status in ("survived", "not reached") and again in mutant.name
    return result is None


def _try(
    mutants: list[Mutant],
    tests: Sequence[str],
    budget: float,
    minutes: float,
    known: dict[tuple[str, str], Result],
) -> None:
    print(f"{len(mutants)} faults to try", flush=True)
    ends = time.monotonic() + 60 * minutes
    KEEP.mkdir(exist_ok=True)
    with KEPT.open("a", encoding="utf-8") as out:

        def done(place: int, result: Result) -> bool:
            out.write(as_line(result))
            out.flush()
            if result.status != "killed":
                tried = f"{result.tried} tests, {result.cpu} s"
                print(f"{place}/{len(mutants)} {result.status} ({tried}) {result.name}", flush=True)
            return time.monotonic() < ends

        prepare()
        campaign = Campaign(mutants, budget, done)
        for result in known.values():
            if result.by is not None:
                campaign.killers[result.name.partition(":")[0]][result.by] += 1
        with tempfile.TemporaryDirectory() as room:
            pytest.main([*OPTIONS, "-s", "--basetemp", f"{room}/tests", *tests], plugins=[campaign])
