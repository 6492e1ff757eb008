"""What a worker does with a range of a file: read it, keep what matters, write down what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Final

from analyzer.capture import CaptureError
from analyzer.capture.capture import first_time
from analyzer.capture.ledger import MOST_DAMAGE, Entry
from analyzer.capture.ranges import RangeReader, split
from analyzer.fault import note
from analyzer.jobs.ranges import Piece, RangeResult
from analyzer.jobs.sift import Sifter

SMALLEST_RANGE: Final = 32 << 20
"""Bytes. Each range has to find out anew which connections are of no interest."""


def pieces_of(files: Mapping[str, int], parts: int) -> dict[str, list[Piece]]:
    """Return each file (with its size in bytes) in ranges: so many of the same size if it is large."""
    return {path: _pieces(path, size, max(1, min(parts, size // SMALLEST_RANGE))) for path, size in files.items()}


def _pieces(path: str, size: int, parts: int) -> list[Piece]:
    try:
        ranges = split(path, parts) if parts > 1 else [(0, None)]
    except CaptureError:  # who reads it will say what is wrong
        ranges = [(0, None)]
    return [Piece(path, size, begin, end) for begin, end in ranges]


def go_through(piece: Piece, ports: Iterable[int], names: Iterable[str], shares: int) -> RangeResult:
    """Read one range and return what the analysis must see of it.

    Raises CaptureError when it cannot be opened; what is damaged is in the result's entries.
    """
    first_ns = first_time(piece.path) if piece.first else 0
    sifter = Sifter(ports, names, shares)
    reader = RangeReader(piece.path, piece.begin, piece.end, skips=sifter.sieve.skips)
    ledger, source = reader.ledger, reader.source
    entries: list[Entry] = []
    ledger.told = lambda entry: _note(entries, entry)
    with closing(reader):
        try:
            for packet in reader.packets:
                sifter.take(packet)
        except Exception as error:
            note(error, f"packet {ledger.number - 1} from byte {reader.begin} on")
            raise
    return RangeResult(
        numbers=ledger.number - 1,
        first_ns=first_ns,
        begin=reader.begin,
        end=reader.end,
        borrowed=reader.borrowed,
        file=reader.file,
        interfaces=frozenset(ledger.interfaces),
        compression=source.compression.name if source.compression else None,
        entries=entries,
        ended_early=source.ended_early,
        grew=source.grew,
        sifted=sifter.done(),
    )


def _note(entries: list[Entry], entry: Entry) -> None:
    """Keep as many damaged places as a file may list, and the end."""
    if len(entries) <= MOST_DAMAGE or entry.method == "ended":
        entries.append(entry)
