"""Which small faults no test notices:

    python -m tests.mutation [MODULE...] [--sample N] [--budget SECONDS] [--again] [--report]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from mutation.mutants import Mutant, mutants_of
from mutation.worker import KEEP, OPTIONS, ROOT, Campaign, Result, as_line, digest_of, prepare

MODULES: Final = (
    "analyzer/handshake.py",
    "analyzer/session/**/*.py",
    "analyzer/streams.py",
    "analyzer/lane.py",
    "analyzer/rules/**/*.py",
)
TESTS: Final = tuple(
    f"tests/test_{name}.py"
    for name in (
        "streams", "handshake", "frames", "conversation", "session", "sessionwatch", "decryption", "tracker", "kinds",
        "restarts", "repeats", "expected", "complaints", "rsa", "deadkey", "firmware", "rules", "rules_campaign",
        "rules_connectivity", "rules_device", "rules_edges", "rules_keys", "rules_session", "rules_updates",
        "every_finding", "shipped", "cold", "background", "histories", "confusion", "reports", "peers", "live",
    )
)
KEPT: Final = KEEP / "results.jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE")
    parser.add_argument("--sample", type=int, metavar="N")
    parser.add_argument("--budget", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--tests", nargs="*", default=TESTS)
    parser.add_argument("--minutes", type=float, default=1e9)
    args = parser.parse_args(arguments)
    modules = [str(p.relative_to(ROOT)) for pattern in (args.modules or MODULES) for p in sorted(ROOT.glob(pattern))]
    mutants: list[Mutant] = []
    for module in modules:
        found = mutants_of(module, (ROOT / module).read_text(encoding="utf-8"))
        found.sort(key=lambda mutant: hashlib.sha256(mutant.name.encode()).digest())
        mutants += found[: args.sample]
    known = {}
    if KEPT.exists():
        for line in KEPT.read_text().splitlines():
            result = Result(**json.loads(line))
            known[result.name, result.code] = result
    settled = ("killed", "timed out") if args.again else ("killed", "timed out", "survived", "not reached")
    todo = [
        m for m in mutants
        if not ((r := known.get((m.name, digest_of(m)))) and r.status in settled)
    ]
    print(f"{len(mutants)} mutants, {len(todo)} to try", flush=True)
    ends = time.monotonic() + 60 * args.minutes
    KEEP.mkdir(exist_ok=True)
    count = 0
    with KEPT.open("a") as out:
        def done(result: Result) -> None:
            nonlocal count
            count += 1
            out.write(as_line(result))
            out.flush()
            if result.status != "killed":
                print(f"{count}/{len(todo)} {result.status} ({result.tried} tests, {result.cpu} s) {result.name}", flush=True)
            if time.monotonic() > ends:
                raise KeyboardInterrupt
        prepare()
        campaign = Campaign(modules, todo, done)
        campaign.budget = args.budget
        for result in known.values():
            if result.by:
                module, _, rest = result.name.partition(" ")
                scope = rest.partition(":")[0]
                campaign.killers[f"{module} {scope}"][result.by] += 1
        sys.stdout.flush()
        return int(pytest.main([*OPTIONS, "-s", *args.tests], plugins=[campaign]))
