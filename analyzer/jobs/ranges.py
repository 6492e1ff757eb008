"""Ranges of files that workers have gone through, put together again: what the analysis sees is one capture.

Where a range begins inside a file was guessed; that the range before it ended exactly there proves it. Otherwise the
range is gone through again, from where that one ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from analyzer.background import Held
from analyzer.capture.ledger import Entry, Ledger
from analyzer.capture.packet import CaptureFile, Packet
from analyzer.capture.pcapng import InterfaceNumbers
from analyzer.capture.ranges import Place, goes_on
from analyzer.capture.source import COMPRESSIONS, Compression
from analyzer.jobs.blobs import unpacked
from analyzer.jobs.sift import Sifted

PACKINGS: Final = {compression.name: compression for compression in COMPRESSIONS}


class Piece(NamedTuple):
    """A range of a file of ``size`` bytes, from ``begin`` up to byte ``end``, as `RangeReader` takes it."""

    path: str
    size: int
    begin: int | Place = 0
    end: int | None = None

    @property
    def first(self) -> bool:
        """Whether this is where the file begins."""
        return self.begin == 0


@dataclass(slots=True)
class RangeResult:
    """What a worker sends back of a range. Packet numbers in it count from 1, as if it were a file of its own.

    ``numbers`` is how many the range takes, ``first_ns`` the time of the file's first packet, in its first
    range. It began at ``begin`` and ended at ``end``; with ``borrowed`` these tell what `goes_on` asks.
    """

    numbers: int
    first_ns: int
    begin: Place
    end: Place
    borrowed: bool
    file: CaptureFile
    interfaces: frozenset[int]
    compression: str | None
    entries: list[Entry]
    ended_early: str | None
    grew: bool
    sifted: Sifted


@dataclass(slots=True)
class Replayed:
    """How far a file has been put together; stands for its `Source`."""

    packed_bytes: int = 0
    bytes: int = 0
    compression: Compression | None = None
    ended_early: str | None = None
    grew: bool = False
    between: Callable[[], None] | None = None

    def close(self) -> None:
        """There is nothing to close."""


class RangedFile:
    """A file of ``size`` bytes whose ranges are gone through elsewhere; it can be read once.

    ``results`` are what comes of them, in their order. ``took`` is told what was held back of each when its packets
    have been handed on.
    """

    def __init__(self, size: int, results: Iterator[RangeResult], took: Callable[[Held], None]) -> None:
        self.size = size
        self.source = Replayed()
        self._results, self._took = results, took
        self._fetched: deque[RangeResult] = deque()
        self._numbers = 0  # of the ranges that were fetched
        self._begins: tuple[str, int] | None = None

    @property
    def form(self) -> str:
        """Format and compression."""
        return self._beginning()[0]

    @property
    def first_ns(self) -> int:
        """The time of its first packet; 0 without packets."""
        return self._beginning()[1]

    @property
    def numbers(self) -> int:
        """How many packet numbers the file takes."""
        while self._fetch():
            pass
        return self._numbers

    def packets(self, ledger: Ledger, interfaces: InterfaceNumbers) -> Generator[Packet, None, None]:
        """Yield the packets that were kept, and book in the ledger what was found wrong with the file."""
        source, file = self.source, ledger.file
        used: set[int] = set()
        while self._fetched or self._fetch():
            result = self._fetched.popleft()
            before, own = ledger.number - 1, result.file
            numbers = tuple(interfaces.number(place, name) for place, name in result.end.numbered)
            yield from unpacked(result.sifted.around, before, numbers)
            self._took(result.sifted.held)
            source.compression = PACKINGS.get(result.compression or "")
            source.ended_early, source.grew = result.ended_early, result.grew
            source.bytes += own.bytes
            source.packed_bytes = self.size if result.compression else result.end.offset
            for entry in result.entries:
                ledger.again(entry, before)
            ledger.number = before + result.numbers + 1
            used.update(numbers[at] if at < len(numbers) else at for at in result.interfaces)
            _join(file, own, interfaces=max(1, len(used)))
            if source.between is not None:
                source.between()

    def _beginning(self) -> tuple[str, int]:
        if self._begins is None:
            self._fetch()
            first = self._fetched[0]
            self._begins = first.file.format, first.first_ns
        return self._begins

    def _fetch(self) -> bool:
        result = next(self._results, None)
        if result is None:
            return False
        self._fetched.append(result)
        self._numbers += result.numbers
        return True


def _join(file: CaptureFile, range_: CaptureFile, *, interfaces: int) -> None:
    """Put what is known of a range into the account of its file."""
    file.packets += range_.packets
    file.bytes += range_.bytes
    file.interfaces = interfaces
    file.link_types |= range_.link_types
    file.time_digits = max(file.time_digits, range_.time_digits)
    if range_.first_ns is not None and range_.last_ns is not None:
        file.first_ns = range_.first_ns if file.first_ns is None else min(file.first_ns, range_.first_ns)
        file.last_ns = range_.last_ns if file.last_ns is None else max(file.last_ns, range_.last_ns)


def in_order(
    pieces: Sequence[Piece], result: Callable[[Piece], RangeResult], again: Callable[[Piece], RangeResult]
) -> Iterator[RangeResult]:
    """Yield what came of the pieces of one file, each proven to begin where the one before it ended."""
    before: Place | None = None
    for piece in pieces:
        came = result(piece)
        if before is not None and not goes_on(before, came.begin, borrowed=came.borrowed):
            if piece.end is not None and before.offset >= piece.end:
                continue  # a packet, or damage, that reaches beyond this range
            came = again(Piece(piece.path, piece.size, before, piece.end))
        before = came.end
        yield came
