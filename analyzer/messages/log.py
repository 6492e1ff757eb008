"""All messages of a conversation in little memory: the bytes and where they came from, read anew when asked for.

A message as an object takes some hundred bytes, as a record about 50, and a long conversation's records are packed
away. What follows from its bytes follows from them every time, so nothing else need be kept; what the rules ask of
every conversation is noted while the messages pass (`Gist`), so that few ever read them again.
"""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from copy import deepcopy
from itertools import islice
from struct import Struct
from typing import Final, overload

from analyzer.message_table import DEVICE, SERVER
from analyzer.messages.gist import Gist
from analyzer.messages.reader import MessageReader, SparkMessage
from analyzer.secrecy import forgetful

REORDERED: Final = 256
"""Messages held back so that both directions come out in the order of the capture, although one may have
waited for a hole."""
CHUNK: Final = 32_768
"""Bytes of records that are packed together: more gain nothing. Records are packed from twice as many on."""
PACKING: Final = 1
"""How hard zlib tries: the highest of its 9 levels saves another tenth, and takes three times as long."""

_RECORD: Final = Struct("<BHQQ")
"""Before each plaintext: twice the bytes missing at its front plus 1 for a device's, its length, packet, time (ns)."""
_FROM_DEVICE: Final = 1


class MessageLog(Sequence[SparkMessage]):
    """The messages of one conversation, oldest first. Each access reads them anew, from the first on.

    ``reader`` has read all that can no longer change its place, and ``gist`` is what it noted; both know all messages
    once the log is closed. ``salt`` as for `MessageReader`.
    """

    __slots__ = (
        "_kept",
        "_later",
        "_open",
        "_packed",
        "_places",
        "_salt",
        "_settled",
        "_sizes",
        "_sooner",
        "gist",
        "reader",
    )

    @forgetful
    def __init__(self, salt: bytes | None = None) -> None:
        self.reader = MessageReader(salt)
        self.gist = Gist()
        self._salt = salt
        self._kept = True
        self._packed: list[bytes] = []  # by zlib, each of whole records; before the next two
        self._settled = bytearray()  # records that are read
        self._open = bytearray()  # records that may still get others between them
        self._places = array("Q")  # of each open record, the packet that it is sorted by
        self._sizes = array("I")
        self._sooner = self._later = 0  # packet of the latest message of the device, and of the server

    def append(self, direction: str, plaintext: bytes, packet: int, time_ns: int, missing: int = 0) -> None:
        """Take the next message of its direction; where it belongs among those of the other is told by ``packet``.

        A message that was lost and sent again comes in a later packet than the one behind it: its place is before
        that one all the same, so a packet counts as no earlier than those before it in its own direction.
        """
        if direction == DEVICE:
            flags = missing << 1 | _FROM_DEVICE
            place = self._sooner = packet if packet > self._sooner else self._sooner
        else:
            flags = missing << 1
            place = self._later = packet if packet > self._later else self._later
        record = _RECORD.pack(flags, len(plaintext), packet, time_ns) + plaintext
        places = self._places
        if not places or place >= places[-1]:
            places.append(place)
            self._sizes.append(len(record))
            self._open += record
        else:
            at = bisect_right(places, place, max(len(places) - REORDERED, 0))
            behind = sum(self._sizes[at:])
            places.insert(at, place)
            self._sizes.insert(at, len(record))
            start = len(self._open) - behind
            self._open[start:start] = record
        if len(places) >= 2 * REORDERED:
            self._settle(REORDERED)

    def close(self) -> None:
        """Read what is still open; no more is coming."""
        self._settle(len(self._places))
        self.reader.forget()
        self.gist.close()
        if self._packed and self._settled:
            self._pack(len(self._settled))
        # A copy has no room to grow.
        self._settled, self._open = bytearray(bytes(self._settled)), bytearray()
        self._places, self._sizes = array("Q"), array("I")

    def let_go(self) -> None:
        """List no messages any more, neither those that came nor those that follow; what is noted of them stays."""
        self._kept = False
        self._packed.clear()
        self._settled.clear()

    def so_far(self) -> MessageLog:
        """Return a log that is closed with what is there by now; this one stays open."""
        copy = MessageLog(self._salt)
        copy.reader, copy.gist = deepcopy((self.reader, self.gist))
        copy._kept = self._kept
        copy._packed = list(self._packed)
        copy._settled, copy._open = bytearray(self._settled), bytearray(self._open)
        copy._places, copy._sizes = array("Q", self._places), array("I", self._sizes)
        copy.close()
        return copy

    def _settle(self, count: int) -> None:
        """Read the first open records."""
        end = sum(self._sizes[:count])
        records = bytes(self._open[:end])
        reader, take = self.reader, self.gist.take
        for message in _read(reader, records):
            take(message, known=reader.generation is not None)
        if self._kept:
            self._settled += records
        del self._open[:end], self._places[:count], self._sizes[:count]
        if len(self._settled) >= 2 * CHUNK:
            self._pack(_whole_records(self._settled, CHUNK))

    def _pack(self, size: int) -> None:
        self._packed.append(zlib.compress(self._settled[:size], PACKING))
        del self._settled[:size]

    # -- as a sequence -------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[SparkMessage]:
        if not self._kept:
            return
        reader = MessageReader(self._salt)
        for packed in tuple(self._packed):
            yield from _read(reader, zlib.decompress(packed))
        yield from _read(reader, bytes(self._settled))
        yield from _read(reader, bytes(self._open))

    def __len__(self) -> int:
        return self.reader.count + len(self._places) if self._kept else 0

    @overload
    def __getitem__(self, index: int) -> SparkMessage: ...

    @overload
    def __getitem__(self, index: slice) -> list[SparkMessage]: ...

    def __getitem__(self, index: int | slice) -> SparkMessage | list[SparkMessage]:
        if isinstance(index, slice):
            wanted = range(*index.indices(len(self)))
            if not wanted:
                return []
            first, last = min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1])
            found = list(islice(self, first, last + 1, abs(wanted.step)))
            return found if wanted.step > 0 else found[::-1]
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(f"message {index} of {len(self)}")
        return next(islice(self, at, None))

    def __reversed__(self) -> Iterator[SparkMessage]:
        return reversed(list(self))

    def __repr__(self) -> str:
        return f"<MessageLog: {len(self)} messages>"


def _read(reader: MessageReader, records: bytes) -> Iterator[SparkMessage]:
    read, head, size = reader.read, _RECORD.unpack_from, _RECORD.size
    at, end = 0, len(records)
    while at < end:
        flags, length, packet, time_ns = head(records, at)
        at += size + length
        yield read(DEVICE if flags & _FROM_DEVICE else SERVER, records[at - length : at], packet, time_ns, flags >> 1)


def _whole_records(records: bytearray, least: int) -> int:
    """Return the size of the first records that come to ``least`` bytes together."""
    at = 0
    while at < least:
        at += _RECORD.size + int.from_bytes(records[at + 1 : at + 3], "little")
    return at
