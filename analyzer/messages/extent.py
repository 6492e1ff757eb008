"""What a message holds without what it says: for reports that are posted."""

from __future__ import annotations

from typing import Final

from analyzer.messages.reader import SparkMessage
from analyzer.messages.summary import summary
from analyzer.wording import plural, size

CHOSEN: Final = (
    "name",
    "prefix",
    "device_id",
    "data",
    "argument",
    "functions",
    "variables",
    "modules",
    "other",
    "tail_text",
)
"""Values that somebody chose, in the order in which they are told; the others are words and numbers of the protocol."""
SAID: Final = ("value", "return_value")
"""Values that are what a message is there for, even where they are mere numbers."""
WITHHELD: Final = "withheld"


def extents(message: SparkMessage) -> str:
    """Return one line as `summary` does, with the lengths of names and data, in characters, in their place."""
    values, parts = message.values, []
    if message.name is None and message.path:
        parts.append(f"path ({len(message.path)})")
    for key in CHOSEN:
        value = values.get(key)
        if isinstance(value, str):
            parts.append(f"{_word(key)} ({len(value)})")
        elif value:
            parts.append(f"{len(value)} {_word(key)}")
    parts += [f"{_word(key)} {WITHHELD}" for key in SAID if values.get(key) is not None]
    if message.name is None and message.payload:
        parts.append(size(len(message.payload)))
    return ", ".join(parts) or summary(message)


def extent(value: object) -> object:
    """Return a value of a message with no more of it than how much there was; what may be left as it is stays."""
    if isinstance(value, dict):
        return plural(len(value), "entry", "entries")  # whoever sends it chooses the names in it as well
    if isinstance(value, list):
        return [extent(inner) for inner in value]
    # A number with all its digits is a `str` of another kind when it comes out of JSON.
    return plural(len(value), "character") if type(value) is str else value


def values_extent(values: dict[str, object]) -> dict[str, object]:
    """Return all values of a message so."""
    return {
        key: WITHHELD if key in SAID and value is not None and type(value) is not str else extent(value)
        for key, value in values.items()
    }


def _word(key: str) -> str:
    return key.replace("_", " ")
