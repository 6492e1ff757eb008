"""What fuzzing came to up to now: executions and CPU time of each target, added up over all runs.

The page of what was tried is made of this file. ``totals`` is what the runs add to, ``rows`` the same for people;
``found`` is written by whoever has fixed a bug, with the target that met it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from attempts import record

PLACE: Final = record.record_of("fuzz")
EMPTY: Final[dict[str, Any]] = {
    "title": "Fuzzing",
    "order": 10,
    "about": "Each parser of bytes from strangers, fed with inputs that atheris finds by the branches they reach; each "
    "target also checks what must hold of any input (see tests/fuzz). Executions and CPU time add up over all runs.",
    "command": "python -m tests.fuzz --all --minutes 60",
    "columns": ["target", "inputs", "CPU hours", "branches reached", "features", "inputs kept", "bugs found"],
    "rows": [],
    "found": [],
    "ran": {},
    "totals": {},
}


@dataclass
class Run:
    """One run of the engine, as libFuzzer and the system count it."""

    cpu_s: float = 0.0
    inputs: int = 0
    edges: int = 0
    features: int = 0
    corpus: int = 0
    broken: str = ""

    @property
    def told(self) -> str:
        """One line about it."""
        return (
            f"{self.inputs:,} inputs, {self.cpu_s:.0f} s of CPU, {self.edges} branches, {self.features} features, "
            f"{self.corpus} inputs kept"
        )


def read() -> dict[str, Any]:
    """Return what is there."""
    try:
        return {**EMPTY, **json.loads(PLACE.read_text(encoding="utf-8"))}
    except FileNotFoundError:
        return dict(EMPTY)


def add(name: str, run: Run) -> None:
    """Add one run to its target."""
    page = read()
    totals: dict[str, dict[str, float]] = page["totals"]
    had = totals.get(name, {"inputs": 0, "cpu_s": 0})
    totals[name] = {
        "inputs": had["inputs"] + run.inputs,
        "cpu_s": round(had["cpu_s"] + run.cpu_s, 1),
        "branches": run.edges or had.get("branches", 0),
        "features": run.features or had.get("features", 0),
        "kept": run.corpus or had.get("kept", 0),
    }
    page["ran"] = record.ran(**_versions())
    write(page)


def add_all(place: Path) -> None:
    """Add all that is in another such file."""
    for name, had in json.loads(place.read_text(encoding="utf-8"))["totals"].items():
        run = Run(had["cpu_s"], had["inputs"], had["branches"], had["features"], had["kept"])
        add(name, run)


def write(page: dict[str, Any]) -> None:
    """Keep a page, its rows made anew: one for each target, also for those that never ran."""
    from fuzz.targets import TARGETS  # noqa: PLC0415 - `--help` needs none of them

    totals = page["totals"]
    bugs = [one.get("target") for one in page["found"]]
    page["rows"] = [
        [
            name,
            *(had.get(key, 0) for key in ("inputs", "cpu_s", "branches", "features", "kept")),
            bugs.count(name),
        ]
        for name, had in ((name, totals.get(name, {})) for name in TARGETS)
    ]
    for row in page["rows"]:
        row[2] = round(row[2] / 3600, 3)
    record.keep(PLACE, page)


def told(name: str) -> str:
    """What a target had up to now, in a few words."""
    had = read()["totals"].get(name)
    return f"{had['inputs']:,} inputs, {had['cpu_s'] / 60:.1f} CPU minutes" if had else "never run"


def least_first(names: Iterable[str]) -> list[str]:
    """The targets in the order in which they need CPU time."""
    totals = read()["totals"]
    return sorted(names, key=lambda name: totals.get(name, {}).get("cpu_s", 0.0))


def _versions() -> dict[str, str]:
    try:
        return {"atheris": version("atheris"), "system": sys.platform}
    except PackageNotFoundError:
        return {"system": sys.platform}
