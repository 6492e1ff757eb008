"""Stream bytes to frames: two bytes of length, then that much ciphertext (PROTOCOL 4.3).

`FrameReader` needs no key. It survives holes: a hole inside one frame costs that frame, a larger one costs the
boundary, which is found again where lengths chain (PROTOCOL 4.5). What is skipped is counted, never hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from analyzer.catalogue import BLOCK, LARGEST_FRAME, LENGTH_PREFIX
from analyzer.streams import Hole, Sender

CHAIN: Final = 3
"""Lengths that must follow one another before a boundary found by searching is believed: a random offset
passes one test 64 times in 65,536."""
SEARCH_WINDOW: Final = 4 * (LENGTH_PREFIX + LARGEST_FRAME)
"""Bytes kept while searching for a boundary: room for `CHAIN` frames of the largest size, and one more."""

LOST_LISTED: Final = 16
"""Places of lost framing that are listed, per direction; the first is what matters."""


@dataclass(slots=True)
class Frame:
    """One frame as it was on the wire, still encrypted.

    ``index`` counts the frames of one direction from 0; ``offset`` is the stream offset of its length field;
    ``length`` its ciphertext in bytes. ``ciphertext`` is None when a hole took part of it; then ``head`` still
    holds what was captured of its first block (the next frame's IV, if it is a whole block). ``follows_gap``
    says that the frame before it (or a part of it) is missing.
    """

    sender: Sender
    index: int
    offset: int
    length: int
    ciphertext: bytes | None
    head: bytes
    first_packet: int
    packet: int
    time_ns: int
    follows_gap: bool

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return LENGTH_PREFIX + self.length


@dataclass(frozen=True, slots=True)
class LostBoundary:
    """A place where the length field cannot be one: framing is lost there."""

    sender: Sender
    offset: int
    packet: int
    time_ns: int
    field: int


def is_length(field: int) -> bool:
    """Whether a 16-bit length field can belong to a frame: whole AES blocks, at least one."""
    return BLOCK <= field <= LARGEST_FRAME and field % BLOCK == 0


def chain(data: bytes | bytearray, start: int = 0) -> tuple[int, bool]:
    """Follow length fields from ``start``: return how many whole frames follow, and whether they end exactly
    at the end of ``data``. A field that cannot be a length makes the count 0.
    """
    count, position, end = 0, start, len(data)
    while position + LENGTH_PREFIX <= end:
        field = data[position] << 8 | data[position + 1]
        if not is_length(field):
            return 0, False
        if position + LENGTH_PREFIX + field > end:
            return count, False
        position += LENGTH_PREFIX + field
        count += 1
    return count, position == end and count > 0


class FrameReader:
    """Cuts one direction's stream into frames, from a given offset on."""

    __slots__ = (
        "_after_gap",
        "_buffer",
        "_emit",
        "_frame_hole",
        "_marks",
        "_searching",
        "count",
        "lost",
        "offset",
        "sender",
        "skipped",
    )

    def __init__(
        self,
        sender: Sender,
        emit: Callable[[Frame], None],
        *,
        offset: int,
        count: int = 0,
        searching: bool = False,
    ) -> None:
        self.sender = sender
        self.offset = offset  # stream offset of the first byte in the buffer
        self.count = count
        self.skipped = 0  # bytes that could not be assigned to a frame
        self.lost: list[LostBoundary] = []
        self._emit = emit
        self._buffer = bytearray()
        self._marks: list[tuple[int, int, int]] = []  # (offset, packet, time) where each packet's bytes begin
        self._searching = searching
        self._after_gap = searching
        self._frame_hole = 0  # bytes of the current frame that are missing and stand as zeros in the buffer

    @property
    def pending(self) -> int:
        """Bytes received that do not make a whole frame yet."""
        return len(self._buffer)

    @property
    def pending_since(self) -> tuple[int, int] | None:
        """Packet and time (ns) of the first byte that waits, or None."""
        return self._marks[0][1:] if self._marks and self._buffer else None

    def receive(self, data: bytes, packet: int, time_ns: int) -> None:
        """Take the next bytes of the stream, all from one packet."""
        self._marks.append((self.offset + len(self._buffer), packet, time_ns))
        self._buffer += data
        if self._searching and not self._search(len(self._buffer) - len(data)):
            return
        self._cut()

    def skip(self, hole: Hole) -> None:
        """Take note of missing bytes. They cost the frame they lie in, or the boundary if they reach further."""
        need = self._need()
        self._after_gap = True
        if not self._searching and need is not None and hole.length <= need:
            self._marks.append((self.offset + len(self._buffer), hole.packet, hole.time_ns))
            self._frame_hole = self._frame_hole or len(self._buffer)
            self._buffer += bytes(hole.length)
            self._cut()
            return
        self.skipped += len(self._buffer)
        self.offset += len(self._buffer) + hole.length
        self._clear()
        self._searching = True

    def finish(self) -> None:
        """Nothing more comes: accept a boundary that the end of the stream confirms."""
        if self._searching and self._search(0, final=True):
            self._cut()

    # -- inside --------------------------------------------------------------------------------------------

    def _need(self) -> int | None:
        """Bytes still missing of the frame at the front, None when its length is not known."""
        if len(self._buffer) < LENGTH_PREFIX:
            return None
        return LENGTH_PREFIX + (self._buffer[0] << 8 | self._buffer[1]) - len(self._buffer)

    def _clear(self) -> None:
        self._buffer.clear()
        self._marks.clear()
        self._frame_hole = 0

    def _cut(self) -> None:
        buffer, position, end = self._buffer, 0, len(self._buffer)
        while position + LENGTH_PREFIX <= end:
            field = buffer[position] << 8 | buffer[position + 1]
            if not is_length(field):
                self._drop(position)
                _, packet, time_ns = self._marks[0]
                if len(self.lost) < LOST_LISTED:
                    self.lost.append(LostBoundary(self.sender, self.offset, packet, time_ns, field))
                self._searching = self._after_gap = True
                if self._search(0):
                    self._cut()
                return
            stop = position + LENGTH_PREFIX + field
            if stop > end:
                break
            self._make(position, field)
            position = stop
        self._drop(position)

    def _make(self, position: int, length: int) -> None:
        start = self.offset + position
        stop = start + LENGTH_PREFIX + length
        first = last = self._marks[0]
        for mark in self._marks:
            if mark[0] <= start:
                first = mark
            if mark[0] >= stop:
                break
            # The packet that completed it is the latest one that holds any of its bytes.
            last = mark if mark[0] <= start or mark[1] > last[1] else last
        body = bytes(self._buffer[position + LENGTH_PREFIX : position + LENGTH_PREFIX + length])
        hole = self._frame_hole
        self._frame_hole = 0
        self._emit(
            Frame(
                self.sender,
                self.count,
                start,
                length,
                None if hole else body,
                body[: min(BLOCK, max(0, hole - LENGTH_PREFIX))] if hole else body[:BLOCK],
                first[1],
                last[1],
                last[2],
                self._after_gap,
            )
        )
        self.count += 1
        self._after_gap = bool(hole)

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self.offset += count
        keep = 0
        while keep + 1 < len(self._marks) and self._marks[keep + 1][0] <= self.offset:
            keep += 1
        del self._marks[:keep]

    def _search(self, segment_start: int, *, final: bool = False) -> bool:
        """Look for a boundary. A packet that is exactly a run of whole frames is believed at its start;
        elsewhere `CHAIN` frames must follow one another, or two that end exactly with the data.
        """
        buffer = self._buffer
        for start in range(len(buffer) - LENGTH_PREFIX + 1):
            if not is_length(buffer[start] << 8 | buffer[start + 1]):
                continue
            count, exact = chain(buffer, start)
            at_packet = start in (0, segment_start)
            if count >= CHAIN or (exact and (at_packet or count > 1)) or (final and at_packet and count):
                self.skipped += start
                self._drop(start)
                self._searching = False
                return True
        if len(buffer) > SEARCH_WINDOW:
            excess = len(buffer) - SEARCH_WINDOW
            self.skipped += excess
            self._drop(excess)
        return False
