"""The record of one campaign: where it is kept, and when it was run with what."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent


def record_of(name: str) -> Path:
    """Return the file of a campaign's record."""
    return HERE / f"{name}.json"


def keep(path: Path, told: dict[str, Any]) -> None:
    """Keep a record, in the one form that all have, so that a change of it shows line by line."""
    path.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def ran(**versions: str) -> dict[str, str]:
    """Return when a campaign was run: today, with this Python, and with the versions that matter to it."""
    return {"date": datetime.now(UTC).date().isoformat(), "python": platform.python_version(), **versions}
