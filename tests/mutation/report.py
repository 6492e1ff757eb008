"""What the campaign comes to: the record for the page on what was tried, and the list of faults no test noticed.

Each fault on the list has a reason in ``reasons.json``, by its name or by a pattern; those without one stand first.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attempts.record import keep, ran, record_of

from mutation.mutants import Mutant
from mutation.worker import Result, digest_of

HERE: Final = Path(__file__).parent
REASONS: Final = HERE / "reasons.json"
"""``patterns`` (a regular expression for the whole name, and the reason), ``faults`` (the name, and the reason)."""
PAGE: Final = HERE / "SURVIVORS.md"
RECORD: Final = record_of("mutation")
FOUND: Final = HERE / "found.json"
LIBRARIES: Final = ("pytest", "hypothesis")
OPENING: Final = """# Faults that no test notices

Made by `python -m tests.mutation --report`. Each line is a small change of the code: what stood there, and what was put
in its place. Where one is listed, the tests that enter the changed code all passed with it. The reason says why that is
right: the program does the same, or the difference is none that anybody could notice.
"""
OPEN_HEAD: Final = "## Open: a test is missing, or the fault has not been tried again since one was written"
NO_OPEN: Final = "None."


class Reasons:
    """Why a fault need not be noticed."""

    def __init__(self, path: Path = REASONS) -> None:
        held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        self.faults: dict[str, str] = held["faults"]
        self.patterns = [(re.compile(pattern), reason) for pattern, reason in held["patterns"]]

    def of(self, name: str) -> str | None:
        """Return the reason for the fault of this name, or None."""
        if name in self.faults:
            return self.faults[name]
        return next((reason for pattern, reason in self.patterns if pattern.fullmatch(name)), None)


def write(mutants: Mapping[str, Sequence[Mutant]], known: Mapping[tuple[str, str], Result]) -> None:
    """Write the record and the list."""
    reasons = Reasons()
    rows, accepted, missing = list[list[Any]](), list[tuple[str, str]](), list[str]()
    for module, found in mutants.items():
        results = [known[place] for mutant in found if (place := (mutant.name, digest_of(mutant))) in known]
        if not found:
            continue
        count = Counter(result.status for result in results)
        left = [result.name for result in results if result.status in ("survived", "not reached")]
        told = {name: reason for name in left if (reason := reasons.of(name)) is not None}
        accepted += sorted(told.items())
        missing += sorted(set(left) - set(told))
        hours = round(sum(result.cpu for result in results) / 3600, 3)
        rows.append(
            [
                module,
                len(found),
                len(results),
                count["killed"],
                count["timed out"],
                len(told),
                len(left) - len(told),
                hours,
            ]
        )
    totals = [sum(row[column] for row in rows) for column in range(1, 7)]
    rows.append(["all", *totals, round(sum(row[7] for row in rows), 2)])
    record = {
        "title": "Faults put in on purpose",
        "order": 60,
        "about": (
            "One small fault at a time is put into the code (a comparison turned round, a condition or a step left out,"
            f" a number one larger), and the tests that enter this code should notice. Tried: {totals[1]:,} of"
            f" {totals[0]:,} possible faults, chosen by their digest. Those that no test notices were read one by one:"
            " [the list](mutation/SURVIVORS.md) says why they make no difference, or that it is open."
        ),
        "command": "python -m tests.mutation",
        "columns": [
            *("module", "faults", "tried", "noticed", "never ended", "no difference", "open", "CPU hours"),
        ],
        "rows": rows,
        "found": json.loads(FOUND.read_text(encoding="utf-8")),
        "ran": ran(**{name: importlib.metadata.version(name) for name in LIBRARIES}),
    }
    keep(RECORD, record)
    PAGE.write_text(_page(accepted, missing), encoding="utf-8")


def _page(accepted: Sequence[tuple[str, str]], missing: Sequence[str]) -> str:
    lines = [OPENING, OPEN_HEAD, "", *(_line(name) for name in missing)]
    if not missing:
        lines.append(NO_OPEN)
    grouped: dict[str, dict[str, list[str]]] = {}
    for name, reason in accepted:
        grouped.setdefault(name.partition(" ")[0], {}).setdefault(reason, []).append(name)
    for module, reasons in grouped.items():
        lines += ["", f"## {module}", ""]
        for reason, names in reasons.items():
            lines += [reason, "", *(_line(name.partition(" ")[2]) for name in names), ""]
    return "\n".join(lines).rstrip() + "\n"


def _line(name: str) -> str:
    return f"- `{name}`" if "`" not in name else f"- ``{name}``"
