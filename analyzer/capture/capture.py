"""One capture out of one or several files: which files, in which order, with which packet numbers.

Files are sorted by their first packet. Those that overlap in time are merged packet by packet; the others are
read one after another with one of them open, so that a ring buffer may have thousands.
"""

from __future__ import annotations

import math
import os
import stat
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from glob import glob
from heapq import heappop, heappush
from itertools import islice
from typing import BinaryIO, Final, NamedTuple

from analyzer.capture import complaints
from analyzer.capture.gonethrough import Bytes, GoneThrough
from analyzer.capture.ledger import Ledger
from analyzer.capture.packet import CaptureError, CaptureFile, Packet
from analyzer.capture.pcap import is_pcap, read_pcap
from analyzer.capture.pcapng import InterfaceNumbers, is_pcapng, read_pcapng
from analyzer.capture.remote import files_at, is_url
from analyzer.capture.skips import NO_SKIPS, Skips
from analyzer.capture.source import BLOCK, SMALL_BLOCK, Source

MAGIC: Final = 4
WILD: Final = frozenset("*?[")
"""Characters that make a name a pattern."""
RECOGNISED: Final = 12
"""Bytes by which a capture is recognised: those up to the byte order mark of pcapng."""
DESCRIBED: Final = 64
"""Bytes by which people are told what else it is; a pipe is not waited for any longer."""
MOST_OPEN: Final = 16
"""Overlapping files that stay open while they are merged; more are opened anew for each block."""


class Position(NamedTuple):
    """How far reading has come: bytes of the files as they lie there, and the file that is read now, the
    ``place``-th of ``files`` (0 before the first).

    ``total`` is None when a pipe is among them.
    """

    done: int
    total: int | None
    path: str
    place: int
    files: int


@dataclass(slots=True)
class _Entry:
    """One file of the run: its name as typed, and what the run has to know before it is read.

    ``size`` in bytes and ``identity`` (device and inode) are None for a pipe, ``first_ns`` as long as nobody has
    looked.
    """

    path: str
    size: int | None = None
    identity: tuple[int, int] | None = None
    stream: BinaryIO | None = None
    first_ns: int | None = None

    @property
    def place(self) -> int | float:
        """Sorts files by their first packet; pipes stay behind."""
        return math.inf if self.first_ns is None else self.first_ns


class _Opened(NamedTuple):
    """A file that has been recognised: its bytes, of which ``head`` are the first, and its format."""

    source: Source
    head: bytes
    form: str


@dataclass(slots=True)
class Reading:
    """One file that is being read."""

    entry: _Entry
    source: Bytes
    ledger: Ledger
    packets: Generator[Packet, None, None]


class Capture:
    """Packets from ``paths``: files, patterns such as ``cap_*.pcapng``, folders with captures in them, ``-`` for
    standard input (or ``stdin``).

    ``files`` is filled while packets are read, in the order of their numbers; ``warnings`` are sentences for
    the user, each beginning with the file's name. What comes from a pipe cannot be sorted before it has come,
    so it is read after all files. Packets that ``skips`` tells are counted and numbered, and not handed on.
    ``between`` is called whenever more bytes have been read. Files in ``gone_through`` (by path) are not opened: what
    others kept of them stands for them. Raises CaptureError at once for a name that does
    not exist, a folder without captures or a standard input that is a terminal, and while packets are read if
    none can be had.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        stdin: BinaryIO | None = None,
        skips: Skips = NO_SKIPS,
        between: Callable[[], None] | None = None,
        gone_through: Mapping[str, GoneThrough] | None = None,
    ) -> None:
        self._skips = skips
        self._gone_through = gone_through or {}
        self._between = between
        self.files: list[CaptureFile] = []
        self.warnings: list[str] = []
        # The same file twice, by two names or once more as part of a folder, is still one file.
        entries: dict[tuple[int, int] | int, _Entry] = {}
        for path in paths:
            for entry in self._entries(os.fspath(path), stdin):
                entries.setdefault(entry.identity or len(entries), entry)
        self._all = list(entries.values())
        sizes = [entry.size for entry in self._all]
        self._total = None if None in sizes else sum(size or 0 for size in sizes)
        self._interfaces = InterfaceNumbers()
        self._readings: list[Reading] = []
        self._bytes_done = 0
        self._early_warnings = len(self.warnings)

    @property
    def sizes(self) -> dict[str, int] | None:
        """The files that are to be read, and their sizes (bytes); None when one of them is a pipe: that can be read
        only once.
        """
        sizes = {entry.path: entry.size for entry in self._all if entry.size is not None}
        return sizes if len(sizes) == len(self._all) else None

    @property
    def interfaces_left_out(self) -> int:
        """How many descriptions of interfaces there were beyond those that are told apart."""
        return self._interfaces.left_out

    @property
    def position(self) -> Position:
        """How far reading has come, for showing progress."""
        done = self._bytes_done + sum(reading.source.packed_bytes for reading in self._readings)
        path = self._readings[-1].entry.path if self._readings else ""
        return Position(done, self._total, path, len(self.files), len(self._all))

    def __iter__(self) -> Iterator[Packet]:
        """Yield all packets in order of time, those of one file in the order of the file.

        Each time from the beginning; raises CaptureError if no file can be read.
        """
        self.files.clear()
        del self.warnings[self._early_warnings :]
        self._bytes_done = 0
        interfaces = self._interfaces = InterfaceNumbers()
        errors: list[CaptureError] = []
        waiting = deque(self._in_order(errors))
        running: list[tuple[int, int, Packet, Reading]] = []  # a heap, by the time of the next packet
        newest: Reading | None = None
        try:
            while waiting or running:
                limit = waiting[0].place if waiting else math.inf
                if not running or running[0][0] > limit:
                    entry, number = waiting.popleft(), self._number_after(newest)
                    alone = not running
                    try:
                        newest = self._begin(entry, number, interfaces, alone=alone)
                    except CaptureError as error:
                        errors.append(error)
                        continue
                    self._push(running, newest)
                    continue
                _, _, packet, reading = heappop(running)
                yield packet
                if running:
                    self._push(running, reading)
                elif waiting:
                    for packet in reading.packets:
                        if packet.time_ns > limit:
                            heappush(running, (packet.time_ns, reading.ledger.file.first_number, packet, reading))
                            break
                        yield packet
                    else:
                        self._end(reading)
                else:
                    yield from reading.packets
                    self._end(reading)
        finally:
            for reading in self._readings[:]:
                self._end(reading)
        if not self.files and errors:
            raise errors[0]
        self.warnings += [str(error) for error in errors]

    def _entries(self, path: str, stdin: BinaryIO | None) -> Iterator[_Entry]:
        if path in self._gone_through:
            yield _Entry(path, self._gone_through[path].size)
            return
        if is_url(path):
            for url, size in files_at(path):
                yield _Entry(url, size)
            return
        if path == complaints.STANDARD_INPUT:
            stream = sys.stdin.buffer if stdin is None else stdin
            if stream.isatty():
                raise complaints.terminal()
            yield _Entry(path, stream=stream)
            return
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:
            # A pattern that no shell has replaced by the names that it fits.
            fitting = sorted(glob(path)) if WILD.intersection(path) else []
            if not fitting:
                raise complaints.missing(path) from error
            for name in fitting:
                yield from self._entries(name, stdin)
            return
        except OSError:
            yield _Entry(path)  # opening it will say why
            return
        if stat.S_ISDIR(status.st_mode):
            yield from self._folder(path)
        elif stat.S_ISREG(status.st_mode):
            yield _Entry(path, status.st_size, (status.st_dev, status.st_ino))
        else:
            yield _Entry(path)

    def _folder(self, path: str) -> Iterator[_Entry]:
        """Yield the captures in a folder; other files in it are none of our business."""
        try:
            names = sorted(entry.name for entry in os.scandir(path) if entry.is_file())
        except OSError as error:
            raise complaints.cannot_read(path, error) from error
        errors: list[CaptureError] = []
        captures = 0
        for name in names:
            entry = _Entry(os.path.join(path, name))
            try:
                status = os.stat(entry.path)
                entry.size, entry.identity = status.st_size, (status.st_dev, status.st_ino)
                source, head, form = _recognise(entry, block=SMALL_BLOCK)
                if form is None:
                    source.close()
                    continue
                # What the file begins with is at hand: the first packet is looked up here, not once more later.
                entry.first_ns = self._count(_reading(entry, _Opened(source, head, form), 1), 1)[1]
            except CaptureError as error:
                errors.append(error)
                continue
            except OSError as error:
                errors.append(complaints.cannot_read(entry.path, error))
                continue
            captures += 1
            yield entry
        if not captures:
            raise errors[0] if errors else complaints.no_captures(path, names)
        self.warnings += [str(error) for error in errors]

    def _in_order(self, errors: list[CaptureError]) -> list[_Entry]:
        """Sort the files by their first packet; pipes stay behind. What cannot be read is left out."""
        if len(self._all) == 1:
            return self._all
        readable = []
        for entry in self._all:
            if entry.size is not None and entry.first_ns is None:
                try:
                    entry.first_ns = self._look(entry, SMALL_BLOCK, packets=1)[1]
                except CaptureError as error:
                    errors.append(error)
                    continue
            readable.append(entry)
        return sorted(readable, key=lambda entry: entry.place)

    def _number_after(self, reading: Reading | None) -> int:
        """Return the number of the first packet behind a file, which may not have been read to its end."""
        if reading is None:
            return 1
        if reading not in self._readings:
            return reading.ledger.number
        # It overlaps with the next, whose numbers begin behind its own: count them first.
        return reading.ledger.file.first_number + self._look(reading.entry, BLOCK)[0]

    def _look(self, entry: _Entry, block: int, *, packets: int | None = None) -> tuple[int, int]:
        """Read some packets or all of them, and leave no trace.

        Return how many numbers they take, and the time of the first.
        """
        if entry.path in self._gone_through:
            known = self._gone_through[entry.path]
            return packets or known.numbers, known.first_ns
        return Capture._count(_open(entry, 1, block=block), packets)

    @staticmethod
    def _count(reading: Reading, packets: int | None) -> tuple[int, int]:
        with closing(reading.source), closing(reading.packets):
            first = next(reading.packets, None)
            deque(islice(reading.packets, packets and packets - 1), maxlen=0)
            return reading.ledger.number - 1, first.time_ns if first else 0

    def _begin(self, entry: _Entry, number: int, interfaces: InterfaceNumbers, *, alone: bool) -> Reading:
        if entry.path in self._gone_through:
            known = self._gone_through[entry.path]
            ledger = Ledger(CaptureFile(entry.path, known.form, first_number=number), known.source, self.warnings)
            reading = Reading(entry, known.source, ledger, known.packets(ledger, interfaces))
        else:
            reading = _open(
                entry,
                number,
                interfaces,
                self.warnings,
                block=BLOCK if alone else SMALL_BLOCK,
                keep_open=len(self._readings) < MOST_OPEN,
                skips=self._skips,
            )
        reading.source.between = self._between
        self._readings.append(reading)
        self.files.append(reading.ledger.file)
        return reading

    def _push(self, running: list[tuple[int, int, Packet, Reading]], reading: Reading) -> None:
        if (packet := next(reading.packets, None)) is None:
            self._end(reading)
        else:
            heappush(running, (packet.time_ns, reading.ledger.file.first_number, packet, reading))

    def _end(self, reading: Reading) -> None:
        reading.packets.close()
        reading.source.close()
        self._bytes_done += reading.source.packed_bytes
        self._readings.remove(reading)


def _open(
    entry: _Entry,
    number: int,
    interfaces: InterfaceNumbers | None = None,
    warnings: list[str] | None = None,
    *,
    block: int,
    keep_open: bool = True,
    skips: Skips = NO_SKIPS,
) -> Reading:
    """Open one file. Raises CaptureError when it is no capture."""
    source, head, form = _recognise(entry, block=block, keep_open=keep_open)
    if form is None:
        head = source.extend(head, DESCRIBED)
        source.close()
        raise _not_a_capture(entry, source, head)
    return _reading(entry, _Opened(source, head, form), number, interfaces, warnings, skips=skips)


def first_time(path: str) -> int:
    """Return the time (ns) of a file's first packet, 0 when it has none. Raises CaptureError if it is no capture."""
    return Capture._count(_open(_Entry(path), 1, block=SMALL_BLOCK), 1)[1]


def _recognise(entry: _Entry, *, block: int, keep_open: bool = True) -> tuple[Source, bytes, str | None]:
    """Open one file and return how it begins, and its format if it is a capture."""
    source = Source(entry.path, entry.stream, block=block, keep_open=keep_open)
    head = source.extend(b"", RECOGNISED)
    return source, head, _format(head)


def _reading(
    entry: _Entry,
    opened: _Opened,
    number: int,
    interfaces: InterfaceNumbers | None = None,
    warnings: list[str] | None = None,
    *,
    skips: Skips = NO_SKIPS,
) -> Reading:
    """Begin to read a file; without ``interfaces`` and ``warnings`` it leaves no trace."""
    source, head, form = opened
    interfaces = InterfaceNumbers() if interfaces is None else interfaces
    suffix = source.compression.suffix if source.compression else ""
    file = CaptureFile(entry.path, form + suffix, first_number=number)
    ledger = Ledger(file, source, [] if warnings is None else warnings)
    if form == "pcap":
        return Reading(entry, source, ledger, read_pcap(source, head, ledger, skips))
    return Reading(entry, source, ledger, read_pcapng(source, head, ledger, interfaces, skips))


def _format(head: bytes) -> str | None:
    if len(head) < MAGIC:
        return None
    return "pcap" if is_pcap(head) else "pcapng" if is_pcapng(head) else None


def _not_a_capture(entry: _Entry, source: Source, head: bytes) -> CaptureError:
    if source.ended_early and len(head) < MAGIC:
        return complaints.unreadable(entry.path, source.ended_early)
    if len(head) < MAGIC:
        return complaints.empty(entry.path, len(head))
    return complaints.foreign(entry.path, head, None if source.compression else entry.size)
