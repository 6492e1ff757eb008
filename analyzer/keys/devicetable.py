"""A table of which device has which key file: ``devices.csv`` in a key folder, as whoever runs many devices has one.

It saves trying every key on every device, and no more: it may be out of date, so what it says is tried first and
proves nothing.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import BinaryIO, Final, TypeVar

DEVICE_TABLE: Final = "devices.csv"
"""The table's name, in any case."""
MOST_ROWS: Final = 250_000
"""Rows read; each costs about 170 bytes. Devices beyond them have their keys looked for like those of no table."""
LONGEST_ROW: Final = 4_096
"""Bytes of a row that are read: an ID and a file's name need 300, and there may be remarks beside them."""
BAD_ROWS: Final = "{name}: {count} without a device ID and a key file of this folder (first: line {line}); passed over."
TOO_MANY_ROWS: Final = "{name}: more than {most:,} rows; the rest was not looked at."

_DEVICE_ID: Final = re.compile(r"[0-9A-Fa-f]{24}")
_SEPARATORS: Final = ",;\t"

_T = TypeVar("_T")


def read_device_table(stream: BinaryIO, name: str, keys: Mapping[str, _T]) -> tuple[dict[bytes, _T], list[str]]:
    """Read a table: return what ``keys`` has for each device (its ID, 12 bytes), and warnings.

    ``keys`` are by path, with the table's own folder in front as in ``name``. Columns are known by what is in them: in
    a row that counts, one cell is a device ID (24 hex digits) and another the name of a key file of the folder. The
    first row may have headings. Of two rows about one device the later counts. Never raises on bytes.
    """
    folder = os.path.dirname(name)
    found: dict[bytes, _T] = {}
    bad = first_bad = number = 0
    for number, cells in enumerate(_rows(islice(_lines(stream), MOST_ROWS)), 1):
        device = next((cell for cell in cells if _DEVICE_ID.fullmatch(cell)), None)
        files = (os.path.join(folder, cell) for cell in cells if cell and cell != device)
        key = next((keys[path] for path in map(os.path.normpath, files) if path in keys), None)
        if device is not None and key is not None:
            found[bytes.fromhex(device)] = key
        elif (device is not None or number > 1) and any(cells):
            bad, first_bad = bad + 1, first_bad or number
    warnings = []
    if bad:
        count = "1 row" if bad == 1 else f"{bad:,} rows"
        warnings.append(BAD_ROWS.format(name=name, count=count, line=f"{first_bad:,}"))
    if number == MOST_ROWS and stream.read(1):
        warnings.append(TOO_MANY_ROWS.format(name=name, most=MOST_ROWS))
    return found, warnings


def _lines(stream: BinaryIO) -> Iterator[str]:
    encoding = "utf-8-sig"  # spreadsheets put a mark before the first line
    while line := stream.readline(LONGEST_ROW):
        yield line.decode(encoding, "replace").replace("\r", " ")  # inside a row it would upset the reader of cells
        encoding = "utf-8"


def _rows(lines: Iterator[str]) -> Iterator[list[str]]:
    """Yield the cells of each line. A quoted cell ends with its line, so that one stray quote costs one row."""
    for line in lines:
        separator = max(_SEPARATORS, key=line.count)
        yield [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]
