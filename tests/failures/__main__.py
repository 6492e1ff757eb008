"""Tries every command and output against everything that can fail:  python -m tests.failures [--samples N]

It takes hours, wants strace, and as root also tries full and read-only disks (mounts that nobody else sees). What is
wrong is printed as it comes. The record is tests/attempts/failures.json; `python -m tests.attempts` makes the page of
it. With --only TEXT the rows of other failures stay as they were.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from attempts.record import keep, ran, record_of

from failures.cases import CASES
from failures.desk import ROOT
from failures.found import FOUND
from failures.lab import Case, Lab

RECORD: Final = record_of("failures")
ABOUT: Final = (
    "Every command with every output that writes, as a process of its own, while the machine fails it. Of each run is"
    " asked: the status, one line at most and no traceback, no file under its name but what is whole, nothing"
    " unfinished, no process left. System calls are made to fail, and signals are sent at them, by strace."
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.failures")
    parser.add_argument("--samples", type=int, default=4, help="random moments, calls and limits for each command")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="failures whose title has this text in it")
    parser.add_argument("--share", type=float, default=1.0, help="of the commands, others for each failure and seed")
    parser.add_argument("--commands", default="", help="commands whose name has this text in it")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix=".failures-", dir=ROOT))
    try:
        lab = Lab(folder, arguments.commands, arguments.share)
        done: list[Case] = []
        for title in CASES:
            if arguments.only in title:
                done.append(tried(lab, title, arguments.samples, arguments.seed))
                if not arguments.commands:  # after each: what takes hours may be cut short
                    keep(RECORD, record(done))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if any(case.wrong for case in done) else 0


def tried(lab: Lab, title: str, samples: int, seed: int) -> Case:
    """Try one kind of failure, and tell what is wrong as it comes."""
    holds, tries = CASES[title]
    case = Case(title, holds)
    lab.choose(random.Random(f"{seed} {title} commands"))
    for label, wrong in tries(lab, random.Random(f"{seed} {title}"), samples):
        case.tried += 1
        case.wrong += [f"{label}: {text}" for text in wrong]
        for text in wrong:
            print(f"{title}: {label}: {text}", flush=True)
    print(f"{title}: {case.tried} runs, {len(case.wrong)} wrong", flush=True)
    return case


def record(done: list[Case]) -> dict[str, Any]:
    """Return the record, with the rows of an earlier one for what was not tried now."""
    old = json.loads(RECORD.read_text(encoding="utf-8"))["rows"] if RECORD.exists() else []
    rows = {row[0]: row for row in old if row[0] in CASES}
    rows |= {case.title: [case.title, case.holds, case.tried, len(case.wrong)] for case in done}
    traced = subprocess.run(["strace", "-V"], capture_output=True, text=True, check=False).stdout.split("\n")[0]
    return {
        "title": "Failing machines",
        "order": 60,
        "about": ABOUT,
        "command": "python -m tests.failures",
        "columns": ["what fails", "what must hold", "runs", "did not hold"],
        "rows": [rows[title] for title in CASES if title in rows],
        "found": FOUND,
        "ran": ran(strace=traced.rpartition(" ")[2], kernel=platform.release().partition("-")[0]),
    }


if __name__ == "__main__":
    sys.exit(main())
