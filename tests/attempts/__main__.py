"""Makes ATTEMPTS.md of the records beside this file:  python -m tests.attempts

Each campaign writes one record, when it runs: what it tried, how much of it, what it found. No number on the page is
typed by hand; nothing is run here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tabulate import tabulate

HERE: Final = Path(__file__).parent
PAGE: Final = HERE.with_name("ATTEMPTS.md")

OPENING: Final = """# What was tried to make it crash, hang, leak or lie

Made by `.venv/bin/python -m tests.attempts` of the records that the campaigns below wrote into
[tests/attempts](attempts). What a campaign found is mended, and the test that is named fails where it comes back.
"""


def records() -> list[dict[str, Any]]:
    """Return all records in the order of the page."""
    return sorted(
        (json.loads(path.read_text(encoding="utf-8")) for path in HERE.glob("*.json")),
        key=lambda record: (record["order"], record["title"]),
    )


def page() -> str:
    """Return the page on all records, in Markdown."""
    return "\n".join([OPENING, *map(_section, records())])


def _section(record: dict[str, Any]) -> str:
    parts = [f"## {record['title']}", record["about"], f"`.venv/bin/{record['command']}`"]
    if record["rows"]:
        parts.append(tabulate(map(_cells, record["rows"]), record["columns"], "pipe", disable_numparse=True))
    ran = ", ".join(f"{name} {value}" for name, value in record["ran"].items() if name != "date")
    parts.append(f"Last run {record['ran']['date']}{f', with {ran}' if ran else ''}.")
    if found := record["found"]:
        rows = [(what["what"], what["now"], f"`{what['test']}`") for what in found]
        parts.append(f"Found and mended: {len(found)}.")
        parts.append(tabulate(rows, ("what went wrong", "what happens now", "test"), "pipe", disable_numparse=True))
    else:
        parts.append("Nothing was found.")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _cells(row: list[Any]) -> list[str]:
    """Return the cells of ``row`` as text: numbers with separators, so that a million is seen as one."""
    return [f"{cell:,}" if isinstance(cell, int | float) and not isinstance(cell, bool) else str(cell) for cell in row]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
