"""Rows to Parquet files, one for each day; the only user of pyarrow.

Rows are turned into Arrow's columns in small batches, because as Python objects they take ten times the room, and
these are written as soon as there are enough for one row group. So memory does not depend on their number.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Final

import pyarrow as pa
from pyarrow import parquet

from analyzer.dataset.columns import (
    BYTES,
    COLUMNS,
    JSON,
    NO_DATE,
    NUMBER,
    SECONDS,
    TEXT,
    TIME,
    UINT16,
    UINT32,
    UINT64,
    WORD,
    YES_NO,
    Type,
)
from analyzer.dataset.folder import FILE, day_folder

BATCH_ROWS: Final = 2_048
BATCH_BYTES: Final = 1 << 20
"""Rows and bytes of messages that wait as Python objects; one message has 65,535 bytes at most."""
GROUP_ROWS: Final = 32_768
GROUP_BYTES: Final = 16 << 20
"""Rows and bytes of a row group: what a reader skips or takes as a whole, and what waits here to be written."""

_SIMPLE: Final = {
    TEXT: pa.string(),
    WORD: pa.dictionary(pa.int32(), pa.string()),
    JSON: pa.string(),
    BYTES: pa.binary(),
    TIME: pa.timestamp("ns", "UTC"),
    SECONDS: pa.float64(),
    NUMBER: pa.float64(),
    YES_NO: pa.bool_(),
    UINT16: pa.uint16(),
    UINT32: pa.uint32(),
    UINT64: pa.uint64(),
}


def arrow_type(kind: Type) -> Any:
    """Return Arrow's name of a type."""
    if isinstance(kind, list):
        return pa.list_(arrow_type(kind[0]))
    if isinstance(kind, dict):
        return pa.struct([(name, arrow_type(inner)) for name, inner in kind.items()])
    return _SIMPLE[kind]


def arrow_schema(table: str, metadata: Mapping[str, str]) -> Any:
    """Return the schema of a table, with ``metadata`` in it."""
    fields = [(column.name, arrow_type(column.type)) for column in COLUMNS[table]]
    return pa.schema(fields, metadata={**metadata, "table": table})


class TableWriter:
    """Writes one table into ``folder``, which is there and empty. Rows come ordered by day, and one file is open.

    Use it as a context manager: it closes its file whatever happens, and writes what is still waiting when all went
    well. A table without rows gets a file without rows, so that it can be opened like any other.
    """

    def __init__(self, folder: str, table: str, metadata: Mapping[str, str]) -> None:
        self.rows = 0
        self._folder = folder
        self._schema = arrow_schema(table, metadata)
        self._day: str | None = None
        self._waiting: list[tuple[object, ...]] = []
        self._waiting_bytes = 0
        self._batches: list[Any] = []
        self._group_rows = self._group_bytes = 0
        self._open = ExitStack()
        self._writer: Any = None

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        with self._open:
            if kind is None:
                if self._day is None:
                    self._begin(NO_DATE)
                self._finish_day()

    def write(self, day: str, cells: tuple[object, ...], size: int = 0) -> None:
        """Take one row of about ``size`` bytes."""
        if day != self._day:
            if self._day is not None:
                self._finish_day()
            self._begin(day)
        self.rows += 1
        self._waiting.append(cells)
        self._waiting_bytes += size
        if len(self._waiting) >= BATCH_ROWS or self._waiting_bytes >= BATCH_BYTES:
            self._pack()

    def _begin(self, day: str) -> None:
        self._day = day
        folder = os.path.join(self._folder, day_folder(day))
        os.mkdir(folder)
        stream = self._open.enter_context(open(os.path.join(folder, FILE), "xb"))  # noqa: SIM115 - closed by the stack
        self._writer = self._open.enter_context(parquet.ParquetWriter(stream, self._schema, compression="zstd"))

    def _finish_day(self) -> None:
        self._pack()
        self._write_group()
        self._open.close()

    def _pack(self) -> None:
        """Turn the waiting rows into columns."""
        if not self._waiting:
            return
        columns = zip(*self._waiting, strict=True)
        arrays = [_array(list(column), field.type) for column, field in zip(columns, self._schema, strict=True)]
        batch = pa.record_batch(arrays, schema=self._schema)
        self._batches.append(batch)
        self._group_rows += len(self._waiting)
        self._group_bytes += batch.nbytes
        self._waiting, self._waiting_bytes = [], 0
        if self._group_rows >= GROUP_ROWS or self._group_bytes >= GROUP_BYTES:
            self._write_group()

    def _write_group(self) -> None:
        if self._batches:
            # Each batch has numbered its words by itself; a row group has them once.
            table = pa.Table.from_batches(self._batches, self._schema).unify_dictionaries()
            self._writer.write_table(table, row_group_size=GROUP_ROWS)
            self._batches, self._group_rows, self._group_bytes = [], 0, 0


def _array(values: list[Any], kind: Any) -> Any:
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        return pa.array(_encodable(values), kind)


def _encodable(value: Any) -> Any:
    """Return ``value`` with ``?`` for half characters, which a file's name may hold and UTF-8 has no bytes for."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {name: _encodable(inner) for name, inner in value.items()}
    return [_encodable(inner) for inner in value] if isinstance(value, list | tuple) else value
