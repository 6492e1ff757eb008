"""What the suite runs of the analyzer: taken anew, or from data that were taken before, also of an earlier commit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import Final

from coverage import Coverage, CoverageData
from coverage.exceptions import CoverageException

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = "analyzer"

CONFIGURATION: Final = f"""[run]
source = {ROOT / PACKAGE}
parallel = true
# The commands that tests start are counted as well, and so are the processes that those start.
patch = subprocess
concurrency = multiprocessing,thread
data_file = {{folder}}/data
"""


def run_suite(folder: Path, options: Iterable[str]) -> tuple[int, list[Path]]:
    """Run the tests, and return pytest's exit status and the files of data that came of it."""
    configuration = folder / "coveragerc"
    configuration.write_text(CONFIGURATION.format(folder=folder), encoding="utf-8")
    words = [sys.executable, "-m", "coverage", "run", f"--rcfile={configuration}", "-m", "pytest", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    status = subprocess.run(words, cwd=ROOT, env=environment, check=False).returncode
    return status, sorted(folder.glob("data.*"))


def lines_run(data: Iterable[tuple[Path, str | None]]) -> tuple[dict[str, set[int]], int]:
    """Return the lines that were run, by file of the present tree, and how many files of data were damaged.

    Each file of data comes with the commit that it was taken of, None for the present tree. What was killed in the
    middle (and tests do kill) leaves a file that is none; such are left out.
    """
    taken_of: dict[tuple[str, str | None], set[int]] = {}
    damaged = 0
    for path, commit in data:
        taken = CoverageData(str(path))
        try:
            taken.read()
            found = {name: set(taken.lines(name) or ()) for name in taken.measured_files()}
        except CoverageException:
            damaged += 1
            continue
        for name, lines in found.items():
            own = f"{PACKAGE}/{name.rpartition(f'/{PACKAGE}/')[2]}"
            if (ROOT / own).is_file():
                taken_of.setdefault((own, commit), set()).update(lines)
    every: dict[str, set[int]] = {}
    for (own, commit), lines in taken_of.items():  # once for each commit: comparing takes longer than all the rest
        every.setdefault(own, set()).update(lines if commit is None else _moved(own, lines, commit))
    return every, damaged


def _moved(name: str, lines: set[int], commit: str) -> Iterable[int]:
    """Return where ``lines`` of a file as it was at ``commit`` are now. Lines that were changed since were not run."""
    before = git("show", f"{commit}:{name}").splitlines()
    matcher = SequenceMatcher(None, before, (ROOT / name).read_text(encoding="utf-8").splitlines(), autojunk=False)
    for there, here, size in matcher.get_matching_blocks():
        yield from (line - there + here for line in range(there + 1, there + size + 1) if line in lines)


def statements(run: Mapping[str, set[int]], folder: Path) -> dict[str, tuple[list[int], list[int]]]:
    """Return the statements of each file of the analyzer, and those of them that were not run."""
    path = folder / "combined"
    combined = CoverageData(str(path))
    combined.add_lines({str(ROOT / name): lines for name, lines in run.items()})
    files = sorted((ROOT / PACKAGE).rglob("*.py"))
    combined.touch_files([str(file) for file in files])
    combined.write()
    report = Coverage(data_file=str(path), config_file=False)
    report.load()
    found = {}
    for file in files:
        _, present, _, missing, _ = report.analysis2(str(file))
        found[str(file.relative_to(ROOT))] = (present, missing)
    return found


def git(*words: str) -> str:
    """Return what git prints."""
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def commit_of_tree() -> str:
    """Return the commit of the present tree, in short."""
    return re.sub(r"\s", "", git("rev-parse", "--short", "HEAD"))
