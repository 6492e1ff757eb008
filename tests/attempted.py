"""The record of what was tried to find secrets, and other packages: tests/attempts/secrets.json, and who writes it."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any, Final

from attempts.record import keep, ran, record_of

RECORD: Final = record_of("secrets")


def note(what: str, count: int, how: str) -> None:
    """Write one row anew: what was tried, how often, and with what."""
    record: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    rows = [row for row in record["rows"] if row[0] != what]
    record["rows"] = [*rows, [what, count, how]]
    record["ran"] = ran(cryptography=version("cryptography"))
    keep(RECORD, record)
