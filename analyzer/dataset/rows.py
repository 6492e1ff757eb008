"""A trace as rows: each what the JSON report says of it, so that one fact has one name, and redaction is the same.

A row is the report's own object, with what an analyst would otherwise have to compute; `Cells` takes a table's columns
out of it. Nothing here knows how a table is stored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final

from analyzer.conversation import Conversation
from analyzer.dataset.columns import BYTES, COLUMNS, JSON, SECONDS, TIME, Type
from analyzer.findings import Finding
from analyzer.messages import SparkMessage
from analyzer.report import jsonreport
from analyzer.report.exact import Instant, line
from analyzer.report.redact import Redactor
from analyzer.trace import Trace

Row = dict[str, Any]

SUBJECTS: Final = ("name", "prefix")
"""Values that say what a message is about."""
VALUES: Final = ("data", "value", "argument", "return_value", "time", "on")
"""Values that are what a message is there for; none has two of them."""
LONGEST_NUMBER: Final = 64
"""Characters of text that is tried as a number: a double with all its digits has 25, and padding fits as well."""
_NUMBER: Final = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*", re.ASCII)

EARLIEST_NS: Final = -(1 << 63) + 1
LATEST_NS: Final = (1 << 63) - 1
"""What a timestamp in nanoseconds holds; the lowest number of all stands for null in some readers."""


def conversation_row(c: Conversation, trace: Trace, redactor: Redactor | None) -> Row:
    """Return a conversation, without its messages. Session keys are not even asked for."""
    row = jsonreport.conversation(c, trace, (), show_secrets=False)
    return row if redactor is None else redactor.value(row)


def message_row(m: SparkMessage, c: Conversation, digits: int, redactor: Redactor | None) -> Row:
    """Return a message of ``c``; redacted, what it is about and says is no more than its extent."""
    row: Row = {
        **jsonreport.message(m, digits),
        "conversation": c.number,
        "device": {"ip": c.device.ip, "id": c.device.id},
        "plaintext_bytes": len(m.plaintext),
        "answer_s": None if m.answer_ns is None else Instant(m.answer_ns, digits),
    }
    if redactor is not None:
        row = redactor.value(row)
    values = row["values"]
    row["subject"] = next((values[name] for name in SUBJECTS if name in values), None)
    value = next((values[name] for name in VALUES if name in values), None)
    row["value_text"] = value if value is None or isinstance(value, str) else line(value)
    row["value_number"] = as_number(value)
    return row


def finding_row(f: Finding, trace: Trace, redactor: Redactor | None) -> Row:
    """Return a finding."""
    row = jsonreport.finding(f, trace)
    return row if redactor is None else redactor.value(row)


def as_number(value: object) -> float | None:
    """Return what is a number, or text that says one; None for anything else, and for what is not finite."""
    if isinstance(value, str):
        if len(value) > LONGEST_NUMBER or _NUMBER.fullmatch(value) is None:
            return None
    elif not isinstance(value, int | float):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


class Cells:
    """Takes the cells of one table out of its rows, in the order of its columns."""

    def __init__(self, table: str, *, redacted: bool) -> None:
        convert = {**_CONVERT, BYTES: _nothing} if redacted else _CONVERT
        self._columns = [(*_path(column.path), _converter(column.type, convert)) for column in COLUMNS[table]]

    def of(self, row: Row) -> tuple[object, ...]:
        """Return the cells of one row."""
        cells = []
        for first, rest, convert in self._columns:
            value = row[first]
            for name in rest:
                if value is None:
                    break
                value = value[name]
            cells.append(value if convert is None or value is None else convert(value))
        return tuple(cells)


Convert = Callable[[Any], object]


def _path(path: str) -> tuple[str, tuple[str, ...]]:
    first, *rest = path.split(".")
    return first, tuple(rest)


def _converter(kind: Type, convert: dict[str, Convert]) -> Convert | None:
    """Return what makes a cell of a JSON value; None when it is one already."""
    if isinstance(kind, list):
        inner = _converter(kind[0], convert)
        return None if inner is None else lambda values: [inner(value) for value in values]
    return None if isinstance(kind, dict) else convert.get(kind)


def _time(instant: Instant) -> int | None:
    return instant.time_ns if EARLIEST_NS <= instant.time_ns <= LATEST_NS else None


def _seconds(value: Instant | float) -> float:
    """Return the number that JSON has: with the digits of the capture's clock."""
    return float(str(value)) if isinstance(value, Instant) else value


def _nothing(value: object) -> None:
    """Return what is left of bytes when they are redacted."""


_CONVERT: Final[dict[str, Convert]] = {TIME: _time, SECONDS: _seconds, BYTES: bytes.fromhex, JSON: line}
"""What JSON writes in another form. Records hold none of it."""
