"""Stream bytes to frames: two bytes of length, then that much ciphertext (PROTOCOL 4.3).

`FrameReader` needs no key. It survives holes: a hole inside one frame costs that frame, a larger one costs the
boundary, which is found again where lengths chain (PROTOCOL 4.5). What is skipped is counted, never hidden.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final

from analyzer.catalogue import BLOCK, LARGEST_FRAME, LENGTH_PREFIX
from analyzer.streams import Hole, Sender

CHAIN: Final = 3
"""Lengths that must follow one another before a boundary found by searching is believed: a random offset
passes one test 64 times in 65,536."""
SEARCH_WINDOW: Final = 4 * (LENGTH_PREFIX + LARGEST_FRAME)
"""Bytes kept while searching for a boundary: room for `CHAIN` frames of the largest size, and one more."""

STRIDE: Final = 256
"""Bytes looked at in one go while searching. Where framing is lost again and again inside one large packet, not
many more than these are looked at again each time."""
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


WHOLE: Final = frozenset(range(LENGTH_PREFIX + BLOCK, LENGTH_PREFIX + LARGEST_FRAME + 1, BLOCK))
"""Bytes on the wire that a frame can have."""


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


@dataclass(slots=True, order=True)
class _Candidate:
    """A place where a boundary may be. All offsets are of the stream."""

    needs: int  # the stream must reach this far before more can be said
    start: int
    stop: int = field(compare=False)  # end of the frame it waits for, or of the last one if that one is whole
    count: int = field(compare=False)  # whole frames so far
    begins_packet: bool = field(compare=False, kw_only=True)


class FrameReader:
    """Cuts one direction's stream into frames, from a given offset on."""

    __slots__ = (
        "_candidates",
        "_emit",
        "_frame_hole",
        "_marks",
        "_scanned",
        "after_gap",
        "buffer",
        "count",
        "lost",
        "offset",
        "searching",
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
        self.buffer = bytearray()
        self._marks: list[tuple[int, int, int]] = []  # (offset, packet, time) where each packet's bytes begin
        self.searching = searching
        self.after_gap = searching
        self._frame_hole = 0  # where in the buffer the first missing byte of the front frame stands as a zero
        self._scanned = offset  # offsets before this one are no boundary, or candidates
        self._candidates: list[_Candidate] = []  # a heap

    @property
    def pending(self) -> int:
        """Bytes received that do not make a whole frame yet."""
        return len(self.buffer)

    @property
    def pending_since(self) -> tuple[int, int] | None:
        """Packet and time (ns) of the first byte that waits, or None."""
        return self._marks[0][1:] if self._marks and self.buffer else None

    def receive(self, data: bytes, packet: int, time_ns: int) -> None:
        """Take the next bytes of the stream, all from one packet."""
        if not self.buffer and not self.searching:
            length = len(data) - LENGTH_PREFIX
            if length >= BLOCK and data[0] << 8 | data[1] == length and is_length(length):
                # Nearly every packet is one whole frame.
                body = data[LENGTH_PREFIX:]
                frame = Frame(
                    self.sender,
                    self.count,
                    self.offset,
                    length,
                    body,
                    body[:BLOCK],
                    packet,
                    packet,
                    time_ns,
                    self.after_gap,
                )
                self.offset += len(data)
                self.count += 1
                self.after_gap = False
                self._emit(frame)
                return
        self._marks.append((self.offset + len(self.buffer), packet, time_ns))
        self.buffer += data
        self._work()

    def skip(self, hole: Hole) -> None:
        """Take note of missing bytes. They cost the frame they lie in, or the boundary if they reach further."""
        self.finish()
        need = self._need()
        self.after_gap = True
        if not self.searching and need is not None and hole.length <= need:
            self._marks.append((self.offset + len(self.buffer), hole.packet, hole.time_ns))
            self._frame_hole = self._frame_hole or len(self.buffer)
            self.buffer += bytes(hole.length)
            self._work()
            return
        self.skipped += len(self.buffer)
        self.offset += len(self.buffer) + hole.length
        self.buffer.clear()
        self._marks.clear()
        self._frame_hole = 0
        self._begin_search()

    def finish(self) -> None:
        """Nothing more comes, or nothing that joins on: accept a boundary that the end of the data confirms."""
        while self.searching and self._search(final=True) and not self._cut():
            pass

    # -- cutting -------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (not self.searching or self._search()) and not self._cut():
            pass

    def _need(self) -> int | None:
        """Bytes still missing of the frame at the front, None when its length is not known."""
        if len(self.buffer) < LENGTH_PREFIX:
            return None
        return LENGTH_PREFIX + (self.buffer[0] << 8 | self.buffer[1]) - len(self.buffer)

    def _cut(self) -> bool:
        """Cut off all whole frames. Return False when a length field cannot be one, and the search is on."""
        buffer, position, mark = self.buffer, 0, 0
        end = len(buffer)
        while position + LENGTH_PREFIX <= end:
            length = buffer[position] << 8 | buffer[position + 1]
            if not is_length(length):
                self._drop(position)
                _, packet, time_ns = self._marks[0]
                if len(self.lost) < LOST_LISTED:
                    self.lost.append(LostBoundary(self.sender, self.offset, packet, time_ns, length))
                self._begin_search()
                return False
            stop = position + LENGTH_PREFIX + length
            if stop > end:
                break
            mark = self._make(position, length, mark)
            position = stop
        self._drop(position)
        return True

    def _make(self, position: int, length: int, mark: int) -> int:
        """Make the frame at ``position`` of the buffer; return the index of the last mark at or before its end."""
        marks = self._marks
        start = self.offset + position
        stop = start + LENGTH_PREFIX + length
        while mark + 1 < len(marks) and marks[mark + 1][0] <= start:
            mark += 1
        first = last = marks[mark]
        while mark + 1 < len(marks) and marks[mark + 1][0] < stop:
            mark += 1
            # The packet that completed it is the latest one that holds any of its bytes.
            last = max(last, marks[mark], key=_packet_of)
        body = bytes(self.buffer[position + LENGTH_PREFIX : position + LENGTH_PREFIX + length])
        hole = self._frame_hole
        self._frame_hole = 0
        frame = Frame(
            self.sender,
            self.count,
            start,
            length,
            None if hole else body,
            body[: min(BLOCK, hole - LENGTH_PREFIX)] if hole else body[:BLOCK],
            first[1],
            last[1],
            last[2],
            self.after_gap,
        )
        self.count += 1
        self.after_gap = bool(hole)
        self._emit(frame)
        return mark

    def _drop(self, count: int) -> None:
        if not count:
            return
        if count == len(self.buffer):
            self._marks.clear()
        else:
            last = bisect_right(self._marks, self.offset + count, key=_offset_of) - 1
            del self._marks[: max(0, last)]
        del self.buffer[:count]
        self.offset += count

    # -- finding a boundary again --------------------------------------------------------------------------

    def _begin_search(self) -> None:
        self.searching = self.after_gap = True
        self._scanned = self.offset
        self._candidates.clear()

    def _search(self, *, final: bool = False) -> bool:
        """Look for a boundary, each byte once: go on where the last packet ended.

        `CHAIN` frames must follow one another, or two that end exactly with the data; or one, if it begins
        where a packet begins. When ``final``, one frame that begins a packet will do if another legal length
        follows it.
        """
        found = None
        while found is None and self._scan():
            found = self._follow()
        buffer, base, heap = self.buffer, self.offset, self._candidates
        if found is None and final:
            found = min(
                (
                    c.start
                    for c in heap
                    if c.start >= base and c.count and (c.count > 1 or (c.begins_packet and c.needs == c.stop))
                ),
                default=None,
            )
        if found is not None:
            self.skipped += found - base
            self._drop(found - base)
            self.searching = False
            heap.clear()
            return True
        if len(buffer) > SEARCH_WINDOW:
            excess = len(buffer) - SEARCH_WINDOW
            self.skipped += excess
            self._drop(excess)
        return False

    def _follow(self) -> int | None:
        """Follow the lengths from each candidate as far as the data go; return the first boundary that is sure."""
        buffer, base, heap = self.buffer, self.offset, self._candidates
        end = base + len(buffer)
        found: int | None = None
        while heap and heap[0].needs <= end:
            candidate = heappop(heap)
            if candidate.start < base:
                continue  # it left the window
            if candidate.needs == candidate.stop:
                candidate.count += 1
                enough = 1 if candidate.begins_packet else 2
                if candidate.count >= CHAIN or (candidate.stop == end and candidate.count >= enough):
                    found = candidate.start if found is None else min(found, candidate.start)
                    continue
                candidate.needs += LENGTH_PREFIX
                heappush(heap, candidate)
                continue
            length = buffer[candidate.stop - base] << 8 | buffer[candidate.stop - base + 1]
            if is_length(length):
                candidate.needs = candidate.stop = candidate.needs + length
                heappush(heap, candidate)
        return found

    def _scan(self) -> bool:
        """Note where a length field may stand among the next bytes not looked at before; False without any."""
        buffer, base = self.buffer, self.offset
        first = max(self._scanned, base)
        last = min(first - base + STRIDE, len(buffer) - LENGTH_PREFIX + 1)
        mark = len(self._marks)
        while mark and self._marks[mark - 1][0] >= first:
            mark -= 1
        begins = {offset for offset, _, _ in self._marks[mark:]}
        for position in range(first - base, last):
            if buffer[position] <= LARGEST_FRAME >> 8:
                length = buffer[position] << 8 | buffer[position + 1]
                if is_length(length):
                    start = base + position
                    stop = start + LENGTH_PREFIX + length
                    heappush(self._candidates, _Candidate(stop, start, stop, 0, begins_packet=start in begins))
        self._scanned = max(first, base + last)
        return self._scanned > first


def _packet_of(mark: tuple[int, int, int]) -> int:
    return mark[1]


def _offset_of(mark: tuple[int, int, int]) -> int:
    return mark[0]
