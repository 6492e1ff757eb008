"""What an unpatched Wireshark shows for this protocol's bytes, and which bytes made it."""

from analyzer.misparse.names import CODE_NAMES
from analyzer.misparse.old import Generation, old_view
from analyzer.misparse.quoted import QuotedRow, Sighting, find_row, read_quoted_row
from analyzer.misparse.reader import LARGEST_MESSAGE_KEPT, CoapTcpReader, Reading, Row
from analyzer.misparse.words import RowWords, rows_in_words, summary

__all__ = [
    "CODE_NAMES",
    "LARGEST_MESSAGE_KEPT",
    "CoapTcpReader",
    "Generation",
    "QuotedRow",
    "Reading",
    "Row",
    "RowWords",
    "Sighting",
    "find_row",
    "old_view",
    "read_quoted_row",
    "rows_in_words",
    "summary",
]
