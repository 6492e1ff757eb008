"""The record of what was tried to find secrets, and other packages: tests/attempts/secrets.json, and who writes it."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

RECORD: Final = Path(__file__).resolve().parent / "attempts" / "secrets.json"


def note(what: str, count: int, how: str) -> None:
    """Write one row anew: what was tried, how often, and with what."""
    record: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    rows = [row for row in record["rows"] if row[0] != what]
    record["rows"] = [*rows, [what, count, how]]
    record["ran"] = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "cryptography": version("cryptography"),
    }
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
