"""Which lines of the analyzer no test runs, and why not:

    python -m tests.uncovered [--data FILE[@COMMIT] ...] [--keep FILE] [--write] [PYTEST OPTIONS]

Runs the whole suite, the processes that it starts included, and complains of each line that was not run and has no
reason in tests/uncovered/reasons.toml (exit status 1). ``--data`` takes what was measured before instead; where that
was at another commit, lines that have moved since are found again, and lines that have changed count as not run.
``--write`` keeps the numbers and the page on the lines that are left.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import coverage
from attempts.record import keep, ran, record_of

from uncovered import measured
from uncovered.places import Place, places

HERE: Final = Path(__file__).parent
REASONS: Final = HERE / "reasons.toml"
PAGE: Final = HERE.with_name("UNCOVERED.md")
RECORD: Final = record_of("coverage")
FOUND: Final = HERE / "found.json"
COMMAND: Final = "python -m tests.uncovered --write"

OPENING: Final = """# Lines that no test runs

Made by `.venv/bin/python -m tests.uncovered --write`; the reasons are those in
[uncovered/reasons.toml](uncovered/reasons.toml). A place is named by its function, and by what opens the block and
its first line.
"""

Reasons = Mapping[str, Mapping[str, Mapping[str, str]]]
"""By file, function and text of a place."""


@dataclass(slots=True)
class File:
    """What was measured of one file."""

    name: str
    statements: int
    places: list[Place]

    @property
    def missing(self) -> int:
        """How many lines were not run."""
        return sum(len(place.lines) for place in self.places)

    @property
    def package(self) -> str:
        """The package that the file belongs to."""
        return ".".join(Path(self.name).parent.parts)


def reasons() -> Reasons:
    """Return why places are not run. What begins with ``@`` is the name of a reason that several have."""
    told: dict[str, Any] = tomllib.loads(REASONS.read_text(encoding="utf-8"))
    shared = told.pop("shared", {})
    return {
        file: {
            function: {text: shared[why[1:]] if why.startswith("@") else why for text, why in texts.items()}
            for function, texts in functions.items()
        }
        for file, functions in told.items()
    }


def reason(told: Reasons, file: str, place: Place) -> str | None:
    """Return why a place is not run, None when nobody has said."""
    return told.get(file, {}).get(place.function, {}).get(place.text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, tell, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.uncovered", description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", nargs="+", metavar="FILE[@COMMIT]", help="take what was measured before")
    parser.add_argument("--keep", metavar="FILE", help="keep what the suite ran, for --data")
    parser.add_argument("--write", action="store_true", help=f"write {RECORD.name} and {PAGE.name}")
    given, options = parser.parse_known_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.data:
            data = [(Path(path), commit or None) for path, _, commit in (each.partition("@") for each in given.data)]
            failed = 0
        else:
            failed, files = measured.run_suite(folder, options or ["-q", "-n", "2"])
            data = [(path, None) for path in files]
        run, damaged = measured.lines_run(data)
        found = [
            File(name, len(present), places((measured.ROOT / name).read_text(encoding="utf-8"), missing))
            for name, (present, missing) in measured.statements(run, folder).items()
        ]
        if given.keep:
            shutil.copy(folder / "combined", given.keep)
    if damaged:
        print(f"{damaged} files of data of processes that were killed are left out.")
    told = reasons()
    unexplained = [(file.name, place) for file in found for place in file.places if not reason(told, file.name, place)]
    idle = list(_idle(told, found))
    _tell(found, unexplained, idle)
    if given.write:
        commits = sorted({commit for _, commit in data if commit}) or [measured.commit_of_tree()]
        later = any(commit is None for _, commit in data) and given.data
        taken = ", ".join(commits) + (", and tests added since" if later else "")
        keep(RECORD, record(found, told, taken))
        PAGE.write_text(page(found, told), "utf-8")
    return 1 if unexplained or failed else 0


def _tell(found: list[File], unexplained: list[tuple[str, Place]], idle: list[str]) -> None:
    statements, missing = sum(file.statements for file in found), sum(file.missing for file in found)
    print(f"{statements - missing:,} of {statements:,} lines run ({_share(statements, missing)} %).")
    for line in idle:
        print(f"{REASONS.name}: no such place that is not run (any more): {line}")
    if not unexplained:
        print(f"Each of the other {missing:,} has a reason.")
        return
    print(
        f"{sum(len(place.lines) for _, place in unexplained):,} lines have no reason; give them one in {REASONS.name}:"
    )
    last = ("", "")
    for file, place in unexplained:
        if last != (file, place.function):
            print(f'\n["{file}"."{place.function}"]')
        last = (file, place.function)
        print(f'{_key(place.text)} = ""  # line{"s" if len(place.lines) > 1 else ""} {spans(place.lines)}')


def _key(text: str) -> str:
    return f"'{text}'" if "'" not in text else json.dumps(text, ensure_ascii=False)


def _idle(told: Reasons, found: list[File]) -> Iterator[str]:
    """Yield the reasons that no place needs."""
    needed = {(file.name, place.function, place.text) for file in found for place in file.places}
    for file, functions in told.items():
        for function, texts in functions.items():
            yield from (f"{file}, {function}: {text}" for text in texts if (file, function, text) not in needed)


def _share(statements: int, missing: int) -> float:
    """Return the share of lines that are run in per cent, never rounded up to all."""
    return (1000 * (statements - missing) // statements) / 10 if statements else 100.0


def spans(lines: Sequence[int]) -> str:
    """Return line numbers with runs of them shortened."""
    runs: list[list[int]] = []
    for line in lines:
        if runs and line == runs[-1][-1] + 1:
            runs[-1].append(line)
        else:
            runs.append([line])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def record(found: list[File], told: Reasons, taken: str) -> dict[str, Any]:
    """Return the numbers by package, as the page of all campaigns takes them."""
    rows: list[list[object]] = []
    for package in [*sorted({file.package for file in found}), None]:
        files = [file for file in found if package in (file.package, None)]
        statements, missing = sum(file.statements for file in files), sum(file.missing for file in files)
        why = sum(len(p.lines) for file in files for p in file.places if reason(told, file.name, p))
        share = _share(statements, missing)
        rows.append([package or "all", statements, statements - missing, share, missing, why])
    return {
        "title": "Line coverage",
        "order": 90,
        "about": (
            "Lines of the analyzer that the tests run, the commands that they start included. Each line that is not run"
            f" has its reason in [{PAGE.name}]({PAGE.name})."
        ),
        "command": COMMAND,
        "columns": ["package", "lines", "run", "%", "not run", "of these with a reason"],
        "rows": rows,
        "found": json.loads(FOUND.read_text(encoding="utf-8")),
        "ran": ran(commit=taken, coverage=coverage.__version__),
    }


def page(found: list[File], told: Reasons) -> str:
    """Return the page on the lines that are not run, in Markdown."""
    parts = [OPENING]
    for file in found:
        if not file.places:
            continue
        parts.append(f"## {file.name}\n")
        for place in file.places:
            why = reason(told, file.name, place) or "**No reason has been given.**"
            count = f"{len(place.lines)} line{'s' if len(place.lines) > 1 else ''}"
            fence = "``" if "`" in place.text else "`"
            parts.append(f"- {place.function}: {fence}{place.text}{fence} ({count}). {why}")
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"
