"""A trace to a data set: its conversations day by day, each with its messages, then the findings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar

from analyzer.dataset.columns import COLUMNS, NO_DATE
from analyzer.dataset.folder import DatasetError, new_tables
from analyzer.dataset.rows import EARLIEST_NS, LATEST_NS, Cells, conversation_row, finding_row, message_row
from analyzer.report.jsonreport import SCHEMA
from analyzer.trace import Trace
from analyzer.version import version
from analyzer.wording import plural

if TYPE_CHECKING:
    from analyzer.report.redact import Redactor

MOST_DAYS: Final = 3_660
"""Days of a table that get a folder, ten years of them; what comes later goes to that without a date. A forged clock
can give each connection a day of its own, and each file costs ten or twenty kilobytes."""
HOLE_BYTES: Final = 200
"""What one of a conversation's holes takes while its row waits."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Written:
    """How many rows each table got."""

    conversations: int
    messages: int
    findings: int

    def __str__(self) -> str:
        return ", ".join(plural(getattr(self, table), table.removesuffix("s")) for table in COLUMNS)


def check_pyarrow() -> None:
    """Complain when pyarrow is not there."""
    try:
        import pyarrow.parquet  # noqa: F401, PLC0415 - heavy, and nothing else needs it
    except ImportError as error:
        raise DatasetError('Parquet needs one more package. Try: pip install "sparkshark[parquet]"') from error


def write_dataset(folder: str, trace: Trace, *, redactor: Redactor | None = None, force: bool = False) -> Written:
    """Write the three tables into ``folder``, which is made if need be; return how many rows they have.

    With ``redactor``, what points at a person's network is shortened as in the JSON report. ``force`` replaces tables
    of an earlier time, and leaves all else in the folder alone. Nothing stands under a table's name until all is
    written. Raises `DatasetError` when pyarrow is missing, when the folder is not empty and ``force`` is not given, or
    when it cannot be written.
    """
    check_pyarrow()
    from analyzer.dataset.tables import TableWriter  # noqa: PLC0415 - loads pyarrow

    redacted = redactor is not None
    metadata = {"schema": str(SCHEMA), "version": version(), **({"redacted": "true"} if redacted else {})}
    cells = {table: Cells(table, redacted=redacted) for table in COLUMNS}
    with new_tables(folder, force=force) as place, ExitStack() as closing:
        writers = {
            table: closing.enter_context(TableWriter(os.path.join(place, table), table, metadata)) for table in COLUMNS
        }
        conversations, messages, findings = (writers[table].write for table in COLUMNS)
        for day, c in by_day(trace.conversations, lambda c: c.start_ns):
            row = conversation_row(c, trace, redactor)
            conversations(day, cells["conversations"].of(row), HOLE_BYTES * len(c.holes))
            for m in c.messages:
                row = message_row(m, c, trace.time_digits, redactor)
                messages(day, cells["messages"].of(row), row["plaintext_bytes"])
        for day, f in by_day(trace.findings, lambda f: f.first_ns):
            findings(day, cells["findings"].of(finding_row(f, trace, redactor)))
    return Written(*(writers[table].rows for table in COLUMNS))


def by_day(items: Iterable[T], time_ns: Callable[[T], int | None]) -> list[tuple[str, T]]:
    """Return the items, each with its day (``2026-11-23``, UTC), ordered by that and otherwise as they were."""
    dated = [(day_of(time_ns(item)), item) for item in items]
    kept = frozenset(sorted({day for day, _ in dated} - {NO_DATE})[:MOST_DAYS])
    return sorted(((day if day in kept else NO_DATE, item) for day, item in dated), key=lambda pair: pair[0])


def day_of(time_ns: int | None) -> str:
    """Return the day of a time, `NO_DATE` when that is none that a timestamp can hold."""
    if time_ns is None or not EARLIEST_NS <= time_ns <= LATEST_NS:
        return NO_DATE
    return f"{datetime.fromtimestamp(time_ns // 1_000_000_000, UTC):%Y-%m-%d}"
