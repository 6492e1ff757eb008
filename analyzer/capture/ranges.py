"""One capture file read in several ranges at the same time, each by a reader of its own.

Where a range may begin is guessed: at records that fit each other. That the range before it ends exactly there, with
the same things known, proves it; otherwise what follows has to be read again from where that one ended.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from math import inf
from typing import Final, NamedTuple

from analyzer.capture.blocks import guess_block
from analyzer.capture.complaints import shown
from analyzer.capture.ledger import Ledger
from analyzer.capture.packet import CaptureError, CaptureFile, Packet
from analyzer.capture.pcap import guess_record, is_pcap, read_pcap
from analyzer.capture.pcapng import Interface, InterfaceNumbers, Section, is_pcapng, read_pcapng
from analyzer.capture.skips import NO_SKIPS, Skips
from analyzer.capture.source import Source

RECOGNISED: Final = 12
"""Bytes by which a capture is recognised."""


class Place(NamedTuple):
    """Where in a file a record begins (bytes), and what a reader knows there that goes on reading.

    The rest is empty in pcap files, where the file header says everything: byte order and interfaces of the section,
    the interfaces that packets named although nobody described them, what was numbered as `InterfaceNumbers.known` has
    it, and the time of the packet before.
    """

    offset: int
    order: str = "<"
    interfaces: tuple[Interface, ...] = ()
    undescribed: frozenset[int] = frozenset()
    numbered: tuple[tuple[int, bytes], ...] = ()
    time_ns: int = 0


class RangeReader:
    """Reads the records of a file that begin from ``begin`` on and before byte ``end`` (None: all that follow).

    ``begin`` is a `Place`, or a place that `split` has guessed (0 for the beginning of the file). ``packets`` are
    numbered from 1 and less those to skip; ``file`` and ``ledger`` tell of this range as if it were the file. When they
    have been read, ``end`` is where the next range has to begin. ``numbers`` has numbered the interfaces of the file.
    Raises CaptureError when the file cannot be opened or is no capture.
    """

    def __init__(
        self,
        path: str,
        begin: int | Place = 0,
        end: int | None = None,
        *,
        skips: Skips = NO_SKIPS,
    ) -> None:
        self._until = inf if end is None else end
        self.warnings: list[str] = []
        """Sentences for the user, with numbers of packets as they are in this range."""
        self.source = Source(path)
        head = self.source.extend(b"", RECOGNISED)
        if not (is_pcap(head) or is_pcapng(head)):
            self.source.close()
            raise CaptureError(f"{shown(path)}: no longer the capture that it was. Try again")
        form = "pcap" if is_pcap(head) else "pcapng"
        suffix = self.source.compression.suffix if self.source.compression else ""
        self.file = CaptureFile(path, form + suffix)
        self.ledger = Ledger(self.file, self.source, self.warnings)
        if isinstance(begin, int):
            begin = Place(begin) if form == "pcap" else _guessed(path, begin)
        self.begin = self.end = begin
        self.numbers = InterfaceNumbers()
        for place, name in begin.numbered:
            self.numbers.number(place, name)
        self._section = Section(begin.order)
        self._section.interfaces, self._section.undescribed = list(begin.interfaces), set(begin.undescribed)
        self._section.time_ns = begin.time_ns
        self.packets = self._read(head, skips)

    @property
    def borrowed(self) -> bool:
        """Whether the first packet took the time of the one before it."""
        return self._section.borrowed

    def goes_on_from(self, before: Place) -> bool:
        """Tell whether this range began where another one ended, with what was known there."""
        return goes_on(before, self.begin, borrowed=self.borrowed)

    def close(self) -> None:
        """Close the file."""
        self.packets.close()
        self.source.close()

    def _read(self, head: bytes, skips: Skips) -> Generator[Packet, None, None]:
        begin, until, ledger = self.begin.offset, self._until, self.ledger
        if is_pcap(head):
            yield from read_pcap(self.source, head, ledger, skips, begin=begin, until=until)
        else:
            section, numbers = self._section, self.numbers
            yield from read_pcapng(self.source, head, ledger, numbers, skips, begin=begin, section=section, until=until)
        self.end = _place(ledger.reached, self._section, self.numbers)
        self.file.bytes = self.end.offset - begin


def _place(offset: int, section: Section, numbers: InterfaceNumbers) -> Place:
    interfaces, undescribed = tuple(section.interfaces), frozenset(section.undescribed)
    return Place(offset, section.order, interfaces, undescribed, tuple(numbers.known), section.time_ns)


def _guessed(path: str, offset: int) -> Place:
    """Return what is known at the first packet of a pcapng file, as if nothing changed from there up to ``offset``."""
    section, numbers = Section(), InterfaceNumbers()
    if not offset:
        return _place(offset, section, numbers)
    with closing(Source(path)) as source:
        ledger = Ledger(CaptureFile(path), source, [])
        with closing(read_pcapng(source, source.extend(b"", RECOGNISED), ledger, numbers, section=section)) as packets:
            next(packets, None)
    return _place(offset, section, numbers)


def goes_on(before: Place, begin: Place, *, borrowed: bool) -> bool:
    """Tell whether a range that ended at ``before`` is followed by one that began at ``begin``.

    ``borrowed`` is what that one's reader tells.
    """
    same_time = not borrowed or before.time_ns == begin.time_ns
    return same_time and before._replace(time_ns=begin.time_ns) == begin


def split(path: str, parts: int) -> list[tuple[int, int | None]]:
    """Return where ranges of about the same size seem to begin and end in a file (bytes; None for its end).

    They are fewer than ``parts`` where no record is found, and one for a file that is packed or no regular one. Raises
    CaptureError when the file cannot be opened.
    """
    begins = [0]
    with closing(Source(path)) as source:
        head = source.extend(b"", RECOGNISED)
        if source.size is not None and source.compression is None and (is_pcap(head) or is_pcapng(head)):
            order = "" if is_pcap(head) else _guessed(path, len(head)).order
            size = source.size
            for part in range(1, parts):
                offset = size * part // parts
                at = guess_block(source, head, offset, order) if order else guess_record(source, head, offset)
                if at is not None and begins[-1] < at < size:
                    begins.append(at)
    return list(zip(begins, [*begins[1:], None], strict=True))
