"""Results for analysts: three tables of Parquet files in one folder, which DuckDB, pandas and others open in one line.

``conversations``, ``messages`` and ``findings`` hold what the JSON report holds, under its names; `COLUMNS` is every
column with its type and meaning, and ``COLUMNS.md`` beside this file is made of it. Files need pyarrow, which nothing
else here does: ``pip install "sparkshark[parquet]"``. `table` gives the same rows to Python, without it.

Each table is a folder with a folder for each day, ``date=2026-11-23``, that holds one file. The day is that on which
a conversation began (UTC), for it and for all its messages, and that on which a finding was first seen. So whoever
asks for a few days reads their files alone, a conversation is never spread over several, and there are as many files
as days, not as devices. Inside a file the rows stand in the order of the capture, in groups with their smallest
and largest values, so that a reader skips what lies outside the time it asks for.

No session key and no private key is in any of this.
"""

from analyzer.dataset.columns import COLUMNS, Column
from analyzer.dataset.flat import TableError, TableName, table
from analyzer.dataset.folder import DatasetError, check_folder
from analyzer.dataset.write import Written, check_pyarrow, write_dataset

__all__ = [
    "COLUMNS",
    "Column",
    "DatasetError",
    "TableError",
    "TableName",
    "Written",
    "check_folder",
    "check_pyarrow",
    "table",
    "write_dataset",
]
