"""Makes ``COLUMNS.md``, the description of the tables, from `COLUMNS`:  python -m analyzer.dataset.document"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from analyzer.dataset.columns import COLUMNS, DATE, NO_DATE, TYPES, Type
from analyzer.report.jsonreport import SCHEMA

DOCUMENT: Final = Path(__file__).with_name("COLUMNS.md")

TOP: Final = f"""\
# The tables of `--format parquet`

Made by `python -m analyzer.dataset.document`. Schema {SCHEMA}: within a schema, columns are added and never renamed.
Each file has `schema`, `version` (of sparkshark), `table` and, after `--redact`, `redacted` among its metadata.

A column's name is its place in the [JSON report](../../README.md#json), with `_` between the names; columns marked
with a star are not in that report. What is not known is null. Each table is a folder with one file for each day;
`{DATE}` is the day on which the conversation began (UTC), in `findings` that on which the finding was first seen.
`{NO_DATE}` stands for no date, and is the only one of a table without rows. Times that do not fit into 64 bits of
nanoseconds (before 1677 or after 2262) are null. DuckDB has most of its functions of time for microseconds only:
`time::TIMESTAMPTZ`.

`--redact` changes the same as in JSON: addresses and IDs are shortened, of what messages say only the extent is left
in text, and binary columns are null.
"""


def document() -> str:
    """Return the text of the file."""
    return "\n".join([TOP, *(line for table in COLUMNS for line in _table(table))])


def _table(table: str) -> Iterator[str]:
    yield from (f"## {table}", "", "| column | type | meaning |", "|---|---|---|")
    for column in COLUMNS[table]:
        yield f"| `{column.name}`{' *' if column.own else ''} | {_type(column.type)} | {column.says} |"
    yield f"| `{DATE}` * | date, from the folder's name | see above |"
    yield ""


def _type(kind: Type) -> str:
    if isinstance(kind, list):
        return f"list of {_type(kind[0])}"
    if isinstance(kind, dict):
        return f"struct({', '.join(f'{name} {_type(inner)}' for name, inner in kind.items())})"
    return TYPES[kind]


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
