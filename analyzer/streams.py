"""Segments to byte streams: what each end of a TCP conversation sent, in order, with its holes.

One `Stream` is one direction. It is fed every segment of that sender and every acknowledgement of the peer,
and it tells a `StreamReader` three things, in stream order: bytes, holes, and nothing else. A hole is a value
with a size and a reason; bytes are never moved together across it. What a stream cannot know yet (is the
missing segment late, or was it never captured?) it waits for, within named bounds.

It knows TCP and nothing of Spark.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from analyzer.network.units import Segment

SEQUENCE_SPACE: Final = 1 << 32
HALF_SPACE: Final = 1 << 31

PATIENCE_NS: Final = 2_000_000_000
"""How long (capture time) a hole that the peer has acknowledged stays open for a late copy. Two capture points
in one file were seen some tens of milliseconds apart; two seconds is far beyond any of them."""
SETTLE_NS: Final = 1_000_000_000
SETTLE_PIECES: Final = 8
"""Without a SYN the first byte is not known. The first pieces are kept this long, or until there are this many,
so that a swapped pair at the very start of a capture does not lose its first half."""
PENDING_PIECES: Final = 1024
PENDING_BYTES: Final = 256 * 1024
"""What may wait behind a hole, per direction. Four times the largest window without scaling."""
ASIDE_PIECES: Final = 16
"""Segments with a wrong checksum that are kept in case no good copy ever comes."""
RECENT: Final = 32
"""Segments remembered per direction, to know a second copy and to compare a retransmission with its original."""
COPY_NS: Final = 1_000_000
"""A packet without an IP identification seen again within this time is the same packet captured twice."""
STEPS: Final = 64
"""Acknowledgements remembered beyond what was captured: they are the steps in which the unseen bytes came."""
MISMATCHES: Final = 16
"""Differing overlaps that are listed, per direction; further ones are counted."""


class Sender(StrEnum):
    """Who sent it. A direction is always named by its sender."""

    DEVICE = "device"
    SERVER = "server"

    @property
    def peer(self) -> Sender:
        """The other end."""
        return Sender.SERVER if self is Sender.DEVICE else Sender.DEVICE


class HoleReason(StrEnum):
    """Why bytes are missing."""

    NOT_CAPTURED = "not captured"  # the peer acknowledged them
    CUT = "cut"  # the capture kept only the start of the packet (snaplen)
    LOST = "lost"  # later bytes were seen, these never, and nobody acknowledged them


@dataclass(slots=True)
class Hole:
    """Bytes of a stream that the capture does not have.

    ``offset`` counts from the sender's first byte, ``length`` is in bytes. ``before`` is the last packet that
    delivered bytes of this direction ahead of the hole (None at its start), ``packet``/``time_ns`` the packet
    that shows that the bytes existed.
    """

    sender: Sender
    offset: int
    length: int
    before: int | None
    packet: int
    time_ns: int
    reason: HoleReason


class StreamReader(Protocol):
    """Who is told what a stream delivers. Calls come in stream order."""

    def receive(self, data: bytes, packet: int, time_ns: int) -> None:
        """Take the next bytes, all from one packet."""

    def skip(self, hole: Hole) -> None:
        """Take note that the next ``hole.length`` bytes are missing."""


@dataclass(slots=True)
class Quality:
    """What happened to the packets of one direction; counts, and sizes in bytes."""

    packets: int = 0
    copies: int = 0
    data_segments: int = 0
    retransmitted: int = 0
    retransmitted_bytes: int = 0
    out_of_order: int = 0
    keepalives: int = 0
    good_checksums: int = 0
    bad_checksums: int = 0
    set_aside: int = 0
    cut: int = 0
    mismatches: int = 0


@dataclass(slots=True)
class _Piece:
    offset: int
    end: int
    data: bytes | None  # None: cut off by the capture
    packet: int
    time_ns: int


class Stream:
    """One direction of a conversation."""

    __slots__ = (
        "_acks",
        "_aside",
        "_pending",
        "_pending_bytes",
        "_recent",
        "_settled",
        "_waiting_since",
        "acked",
        "base",
        "base_certain",
        "bytes",
        "fin_offset",
        "first_unacked",
        "highest",
        "last_packet",
        "mismatch_packets",
        "next",
        "quality",
        "reader",
        "sender",
        "unacked_tries",
    )

    def __init__(self, sender: Sender, reader: StreamReader) -> None:
        self.sender = sender
        self.reader = reader
        self.base: int | None = None  # sequence number of offset 0
        self.base_certain = False  # True when a SYN, or the answer to one, told it
        self.next = 0  # offset of the next byte to deliver
        self.highest = 0  # end of the furthest byte seen: Wireshark hands on only what starts here or later
        self.acked = 0  # furthest byte the peer has acknowledged
        self.bytes = 0  # stream bytes that were captured
        self.fin_offset: int | None = None
        self.last_packet: int | None = None  # the packet that delivered last
        self.quality = Quality()
        self.mismatch_packets: list[int] = []
        self.first_unacked: tuple[int, int, int] | None = None  # offset, packet, time of the oldest such data
        self.unacked_tries = 0
        self._settled = False
        self._pending: list[_Piece] = []
        self._pending_bytes = 0
        self._aside: list[_Piece] = []
        self._acks: deque[tuple[int, int, int]] = deque()
        self._recent: deque[tuple[int, int, int]] = deque(maxlen=RECENT)
        self._waiting_since: int | None = None

    # -- where a sequence number lies -----------------------------------------------------------------------

    def start_at(self, first: int, *, certain: bool) -> None:
        """Take ``first`` as the sequence number of the first byte, unless a surer one is known."""
        first %= SEQUENCE_SPACE
        if self.base is None:
            self.base = first
        elif certain and not self.base_certain and not self._settled:
            self._rebase(first)
        self.base_certain = self.base_certain or (certain and self.base == first)
        if self.base_certain:
            self._settled = True

    def offset_of(self, sequence: int) -> int:
        """Return the stream offset of a raw sequence number: the one nearest to the bytes expected next."""
        if self.base is None:
            return 0
        delta = (sequence - self.base - self.next) % SEQUENCE_SPACE
        if delta >= HALF_SPACE:
            delta -= SEQUENCE_SPACE
        return self.next + delta

    def _rebase(self, first: int) -> None:
        shift = (self.base - first) % SEQUENCE_SPACE if self.base is not None else 0
        if shift >= HALF_SPACE:
            shift -= SEQUENCE_SPACE
        self.base = first
        self.highest += shift
        self.acked = max(0, self.acked + shift)
        if self.fin_offset is not None:
            self.fin_offset += shift
        if self.first_unacked is not None:
            self.first_unacked = (self.first_unacked[0] + shift, *self.first_unacked[1:])
        for piece in (*self._pending, *self._aside):
            piece.offset += shift
            piece.end += shift
        self._acks = deque((offset + shift, packet, time) for offset, packet, time in self._acks)

    # -- what the sender sent -------------------------------------------------------------------------------

    def take(self, segment: Segment) -> int | None:
        """Take the payload of one segment of this sender (not a copy).

        Return its stream offset when Wireshark's TCP would hand it to a dissector (it is whole, neither seen
        before nor out of order), else None.
        """
        length = segment.length
        if self.base is None:
            self.base = segment.seq
        offset = self.offset_of(segment.seq)
        if segment.flags & 0x02:  # data in a SYN starts one behind its sequence number
            offset += 1
        end = offset + length
        if segment.flags & 0x01:
            self.fin_offset = end
        if not length:
            return None
        quality = self.quality
        if length <= 1 and end <= self.next and offset >= self.next - 1:
            quality.keepalives += 1
            return None
        quality.data_segments += 1
        fresh = offset if offset >= self.highest and len(segment.payload) == length else None
        self._remember(segment, offset)
        data = segment.payload
        if len(data) < length:
            quality.cut += 1
        if offset < self.highest:
            if end <= self.next or any(p.offset <= offset and end <= p.end for p in self._pending):
                quality.retransmitted += 1
                quality.retransmitted_bytes += length
            else:
                quality.out_of_order += 1
        self.highest = max(self.highest, end)
        self._track_unacked(offset, end, segment)
        if self._settled and offset == self.next and not self._pending and len(data) == length:
            self._deliver(_Piece(offset, end, data, segment.number, segment.time_ns))
            return fresh
        if not self._settled and offset < 0 and self.base is not None and self.next == 0:
            self._rebase(segment.seq % SEQUENCE_SPACE)
            offset, end = 0, length
        self._keep(_Piece(offset, offset + len(data), data, segment.number, segment.time_ns))
        if len(data) < length:
            self._keep(_Piece(offset + len(data), end, None, segment.number, segment.time_ns))
        self._advance(segment.number, segment.time_ns)
        return fresh

    def set_aside(self, segment: Segment) -> None:
        """Keep a segment with a wrong checksum, in case no good copy ever comes."""
        self.quality.set_aside += 1
        offset = self.offset_of(segment.seq)
        if segment.payload and len(self._aside) < ASIDE_PIECES:
            self._aside.append(
                _Piece(offset, offset + len(segment.payload), segment.payload, segment.number, segment.time_ns)
            )

    def _remember(self, segment: Segment, offset: int) -> None:
        digest = zlib.crc32(segment.payload)
        if offset < self.highest:
            for seen_offset, seen_length, seen_digest in self._recent:
                if seen_offset == offset and seen_length == len(segment.payload):
                    if seen_digest != digest:
                        self.quality.mismatches += 1
                        if len(self.mismatch_packets) < MISMATCHES:
                            self.mismatch_packets.append(segment.number)
                    break
        self._recent.append((offset, len(segment.payload), digest))

    def _track_unacked(self, offset: int, end: int, segment: Segment) -> None:
        if offset <= self.acked < end:
            if self.first_unacked is None:
                self.first_unacked = (self.acked, segment.number, segment.time_ns)
            self.unacked_tries += 1

    # -- what the peer acknowledged -------------------------------------------------------------------------

    def acknowledge(self, ack: int, packet: int, time_ns: int) -> None:
        """Take note that the peer has everything before the raw number ``ack``."""
        if self.base is None:
            self.base = ack % SEQUENCE_SPACE
            return
        offset = self.offset_of(ack)
        if self.fin_offset is not None and offset == self.fin_offset + 1:
            offset = self.fin_offset  # the FIN has a number but is no byte
        if offset <= self.acked:
            return
        self.acked = offset
        self.first_unacked = None
        self.unacked_tries = 0
        if offset > self.next:
            if len(self._acks) == STEPS:
                self._acks.pop()
            self._acks.append((offset, packet, time_ns))

    def poll(self, packet: int, time_ns: int) -> None:
        """Give up on what has been waited for long enough; call with every packet of the conversation."""
        if self._acks or self._pending:
            self._advance(packet, time_ns)

    def finish(self, packet: int, time_ns: int) -> None:
        """Deliver all that can be delivered: nothing more will come."""
        self._settled = True
        self._run()
        if self.fin_offset is None and len(self._acks) > 0:
            # A FIN that was not captured is acknowledged like a byte, but is none.
            before = self._acks[-2][0] if len(self._acks) > 1 else max(self.next, self.highest)
            if self._acks[-1][0] == before + 1:
                self._acks.pop()
                self.acked = before
        while self._pending or (self.acked > self.next and self._acks):
            self._give_up(packet, time_ns)

    # -- waiting and delivering -----------------------------------------------------------------------------

    def _keep(self, piece: _Piece) -> None:
        """File a piece by its offset, without the parts that an earlier piece already has."""
        if piece.offset < self.next:
            piece = self._tail(piece, self.next)
        index = bisect_left(self._pending, piece.offset, key=lambda kept: kept.end)
        while piece.offset < piece.end:
            neighbour = self._pending[index] if index < len(self._pending) else None
            if neighbour is None or piece.end <= neighbour.offset:
                self._insert(index, piece)
                return
            if piece.offset < neighbour.offset:
                data = None if piece.data is None else piece.data[: neighbour.offset - piece.offset]
                self._insert(index, _Piece(piece.offset, neighbour.offset, data, piece.packet, piece.time_ns))
                index += 1
            piece = self._tail(piece, max(neighbour.end, piece.offset))
            index += 1

    def _insert(self, index: int, piece: _Piece) -> None:
        if piece.offset < piece.end:
            self._pending.insert(index, piece)
            self._pending_bytes += len(piece.data or b"")

    @staticmethod
    def _tail(piece: _Piece, offset: int) -> _Piece:
        data = None if piece.data is None else piece.data[max(0, offset - piece.offset) :]
        return _Piece(min(max(offset, piece.offset), piece.end), piece.end, data, piece.packet, piece.time_ns)

    def _advance(self, packet: int, time_ns: int) -> None:
        if not self._settled and self._pending:
            first = min(piece.time_ns for piece in self._pending[:SETTLE_PIECES])
            if len(self._pending) < SETTLE_PIECES and time_ns - first < SETTLE_NS:
                return
            self._settled = True
        self._run()
        while self._acks and time_ns - self._acks[0][2] > PATIENCE_NS:
            self._give_up(packet, time_ns)
        while len(self._pending) > PENDING_PIECES or self._pending_bytes > PENDING_BYTES:
            self._give_up(packet, time_ns)

    def _run(self) -> None:
        """Deliver the pieces that join on to what was delivered."""
        done = 0
        pending = self._pending
        while done < len(pending) and pending[done].offset <= self.next:
            piece = pending[done]
            done += 1
            self._pending_bytes -= len(piece.data or b"")
            if piece.end > self.next:
                self._deliver(self._tail(piece, self.next) if piece.offset < self.next else piece)
        if done:
            del pending[:done]
        while self._acks and self._acks[0][0] <= self.next:
            self._acks.popleft()

    def _give_up(self, packet: int, time_ns: int) -> None:
        """Declare the bytes from ``next`` on missing, up to the next ones there are, one ACK step at a time."""
        start = self.next
        limit = self._pending[0].offset if self._pending else None
        if self._acks:
            end, packet, time_ns = self._acks[0]
            if limit is not None and limit < end:
                end = limit
            reason = HoleReason.NOT_CAPTURED
        else:
            assert limit is not None  # noqa: S101 - callers ask only when there is something beyond the hole
            end = limit
            packet, time_ns = self._pending[0].packet, self._pending[0].time_ns
            reason = HoleReason.NOT_CAPTURED if self.acked >= end else HoleReason.LOST
        rescue = next((p for p in self._aside if p.offset <= start < p.end), None)
        if rescue is not None:
            self._aside.remove(rescue)
            usable = self._tail(rescue, start)
            if usable.data is not None and usable.end > end:
                usable = _Piece(start, end, usable.data[: end - start], usable.packet, usable.time_ns)
            self._deliver(usable)
        elif end > start:
            self._skip(end - start, packet, time_ns, reason)
        self._run()

    def _deliver(self, piece: _Piece) -> None:
        if piece.data is None:
            self._skip(piece.end - piece.offset, piece.packet, piece.time_ns, HoleReason.CUT)
            self.last_packet = piece.packet
            return
        self.next = piece.end
        self.bytes += len(piece.data)
        self.last_packet = piece.packet
        self.reader.receive(piece.data, piece.packet, piece.time_ns)

    def _skip(self, length: int, packet: int, time_ns: int, reason: HoleReason) -> None:
        hole = Hole(self.sender, self.next, length, self.last_packet, packet, time_ns, reason)
        self.next += length
        self.reader.skip(hole)
