"""One table as a list of rows, for pandas, polars, `csv` and plain Python; needs none of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, TypeAlias, get_args

from analyzer.dataset.columns import COLUMNS, TIME
from analyzer.dataset.rows import Cells, Row, conversation_row, finding_row, message_row
from analyzer.report.redact import Redactor
from analyzer.trace import Trace

TableName: TypeAlias = Literal["conversations", "messages", "findings"]
NAMES: Final = get_args(TableName)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class TableError(ValueError):
    """There is no such table; the message says which there are."""


def table(trace: Trace, name: TableName, *, redact: bool = False, exact_times: bool = False) -> list[dict[str, Any]]:
    """Return a table of a trace: one row for each conversation, message or finding, in the order of the capture.

    A row is a dict whose keys are the columns of `COLUMNS` (described in ``COLUMNS.md``), the same in every row and in
    the same order; what is not known is None. Durations are seconds as float, sizes bytes as int. Times are
    `datetime` in UTC, which has microseconds; with ``exact_times`` they are nanoseconds since 1970 as int. A few
    columns hold lists (``evidence``, ``gaps``), ``values`` is JSON text, ``payload`` and ``plaintext`` are bytes.
    ``redact`` shortens addresses and IDs and leaves out what messages say, as ``--redact`` does. Text that a device
    chose is as it was sent: escape it before a terminal or a spreadsheet sees it.

    Messages are there when keys opened them. Raises `TableError` when there is no such table.

    >>> from analyzer import KeyRing, analyze, table
    >>> trace = analyze("captures/healthy-full.pcap", keys=KeyRing.load("captures/keys/core-a.der"))
    >>> [row["name"] for row in table(trace, "messages")][:3]
    ['Hello', 'Hello', 'Subscribe']
    >>> [(row["code"], row["severity"]) for row in table(trace, "findings")]
    [('SPK401', 'info'), ('SPK001', 'ok')]
    """
    if name not in NAMES:
        raise TableError(f"{name}: no such table. There are {', '.join(NAMES)}.")
    cells = Cells(name, redacted=redact)
    columns = [column.name for column in COLUMNS[name]]
    times = [] if exact_times else [column.name for column in COLUMNS[name] if column.type == TIME]
    found = []
    for row in _rows(trace, name, Redactor(trace) if redact else None):
        flat = dict(zip(columns, cells.of(row), strict=True))
        for column in times:
            flat[column] = _moment(flat[column])
        found.append(flat)
    return found


def _rows(trace: Trace, name: str, redactor: Redactor | None) -> Iterator[Row]:
    if name == "findings":
        yield from (finding_row(f, trace, redactor) for f in trace.findings)
        return
    for c in trace.conversations:
        if name == "conversations":
            yield conversation_row(c, trace, redactor)
        else:
            yield from (message_row(m, c, trace.time_digits, redactor) for m in c.messages)


def _moment(time_ns: Any) -> datetime | None:
    """Return nanoseconds since 1970, of a range that a timestamp holds, as a date and time."""
    return None if time_ns is None else _EPOCH + timedelta(microseconds=time_ns // 1000)
