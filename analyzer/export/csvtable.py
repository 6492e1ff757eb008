"""Messages as rows of a CSV table, safe to open in a spreadsheet.

A spreadsheet runs a cell that begins like a formula. Names and data in these rows were chosen by strangers, so
such a cell gets an apostrophe in front (as OWASP recommends; a program takes it off again), and nothing unprintable
is left in it. The column ``plaintext`` has the bytes themselves.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final, TextIO

from analyzer.export.decrypted import Decrypted
from analyzer.messages import SparkMessage, label, quote, summary
from analyzer.messages.extent import extents
from analyzer.wording import plural, printable

HEADER: Final = (
    "conversation",
    "index",
    "packet",
    "time",
    "direction",
    "name",
    "type",
    "code",
    "message_id",
    "token",
    "path",
    "content",
    "answers",
    "plaintext",
)
"""The columns. ``time`` is UTC to the nanosecond, ``token`` and ``plaintext`` are hexadecimal, ``answers`` is the
index of the request; a cell is empty when there is nothing to say."""

FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a formula begins with in one spreadsheet or another, the full-width forms among them."""

BEHIND_ANOTHER_SEPARATOR: Final = re.compile(f"([;|][\"' ]*)(?=[{re.escape(''.join(FORMULA_STARTS))}])")
"""Where a cell begins in a spreadsheet that takes another sign than the comma for the separator, as in half of Europe,
and splits what is quoted."""

LONGEST_PATH: Final = 1024
"""Characters of a path that are shown; no frame holds a longer one."""

_SECOND: Final = 1_000_000_000


def rows(conversation: Decrypted, *, redacted: bool = False) -> Iterator[list[str]]:
    """Yield a row for each message of ``conversation``, one cell for each column of `HEADER`."""
    for message in conversation.messages:
        yield row(conversation.number, message, redacted=redacted)


def row(conversation_number: int, message: SparkMessage, *, redacted: bool = False) -> list[str]:
    """Return the cells of one message; ``redacted``, what it says is no more than its extent."""
    path, token = message.path or "", message.token or b""
    said = (token.hex(), _disarmed(_printable(path)), _disarmed(summary(message)), message.plaintext.hex())
    if redacted:
        said = (
            plural(len(token), "byte"),
            plural(len(path), "character"),
            extents(message),
            plural(len(message.plaintext), "byte"),
        )
    return [
        str(conversation_number),
        str(message.index),
        str(message.packet),
        time_text(message.time_ns),
        message.direction,
        label(message),
        message.type or "",
        message.code or "",
        "" if message.message_id is None else str(message.message_id),
        *said[:3],
        "" if message.answers is None else str(message.answers),
        said[3],
    ]


def write_csv(stream: TextIO, conversations: Iterable[Decrypted], *, redacted: bool = False) -> int:
    """Write a header and the rows of all ``conversations``; return the number of messages. ``redacted`` leaves out
    what they say.
    """
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(HEADER)
    count = 0
    for conversation in conversations:
        for cells in rows(conversation, redacted=redacted):
            writer.writerow(cells)
            count += 1
    return count


def time_text(time_ns: int) -> str:
    """Return ``time_ns`` since 1970 as ``2026-11-22T18:28:23.124074000Z``; as bare seconds beyond the calendar."""
    seconds, fraction = divmod(time_ns, _SECOND)
    try:
        whole = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return f"{seconds}.{fraction:09d}"
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def _printable(text: str) -> str:
    return text if printable(text) == text else quote(text, LONGEST_PATH)


def _disarmed(cell: str) -> str:
    cell = BEHIND_ANOTHER_SEPARATOR.sub(r"\1'", cell)
    return f"'{cell}" if cell.startswith(FORMULA_STARTS) else cell
