"""Segments to byte streams: what each end of a TCP conversation sent, in order, with its holes.

One `Stream` is one direction. It is fed every segment of that sender and every acknowledgement of the peer,
and it tells a `StreamReader` three things, in stream order: bytes, holes, and nothing else. A hole is a value
with a size and a reason; bytes are never moved together across it. What a stream cannot know yet (is the
missing segment late, or was it never captured?) it waits for, within named bounds.

It knows TCP and nothing of Spark.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from struct import Struct
from typing import Final, Protocol

from analyzer.copies import COPY_NS
from analyzer.network.units import FIN, RST, SYN, Segment

SEQUENCE_SPACE: Final = 1 << 32
HALF_SPACE: Final = 1 << 31

PATIENCE_NS: Final = 2_000_000_000
"""How long (capture time) a hole that the peer has acknowledged stays open for a late copy. Two capture points
in one file were seen some tens of milliseconds apart; two seconds is far beyond any of them."""
SETTLE_NS: Final = 1_000_000_000
SETTLE_PIECES: Final = 32
"""Without a SYN the first byte is not known. The first pieces are kept this long, or until there are this many,
so that a swapped pair at the very start of a capture does not lose its first half."""
FIN_REACH: Final = 64 * 1024
"""A FIN this far behind the last byte seen still belongs to it: the largest window without scaling."""
PENDING_PIECES: Final = 1024
PENDING_BYTES: Final = 256 * 1024
"""What may wait behind a hole, per direction. Four times the largest window without scaling."""
REACH: Final = 1 << 20
"""An acknowledgement of more than this many bytes (16 of the largest windows without scaling) beyond all that
is known was damaged, or made up: it says nothing."""
ASIDE_PIECES: Final = 16
"""Segments with a wrong checksum whose place is remembered in case no good copy ever comes."""
RECENT: Final = 32
RECENT_BYTES: Final = 2048
"""Segments remembered per direction, and bytes of each, to compare a second copy of a byte with the first."""
RESENT_NS: Final = 200_000_000
"""Bytes that fill a hole this long after their successors were sent again: the shortest retransmission timer in
use. Earlier they were overtaken on the way."""
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
        return _PEERS[self]


_PEERS: Final = {Sender.DEVICE: Sender.SERVER, Sender.SERVER: Sender.DEVICE}


class HoleReason(StrEnum):
    """Why bytes are missing."""

    NOT_CAPTURED = "not captured"  # the peer acknowledged them
    CUT = "cut"  # the capture kept only the start of the packet (snaplen)
    DAMAGED = "damaged"  # the only copy in the capture has a wrong checksum
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
    set_aside: int = 0
    cut: int = 0
    mismatches: int = 0

    @property
    def counts(self) -> tuple[int, ...]:
        """All of them, in the order above."""
        return (
            *(self.packets, self.copies, self.data_segments, self.retransmitted, self.retransmitted_bytes),
            *(self.out_of_order, self.keepalives, self.set_aside, self.cut, self.mismatches),
        )


@dataclass(slots=True)
class _Piece:
    offset: int
    end: int
    data: bytes | None  # None: cut off by the capture
    packet: int
    time_ns: int

    def part(self, start: int, stop: int) -> _Piece:
        """The bytes from one stream offset to another, both clipped to what there is."""
        start = min(max(start, self.offset), self.end)
        stop = max(start, min(stop, self.end))
        data = None if self.data is None else self.data[start - self.offset : stop - self.offset]
        return _Piece(start, stop, data, self.packet, self.time_ns)


class Stream:
    """One direction of a conversation."""

    __slots__ = (
        "_acks",
        "_aside",
        "_base_ack",
        "_fin_seen",
        "_pending",
        "_pending_bytes",
        "_recent",
        "_recent_count",
        "acked",
        "base",
        "base_certain",
        "bytes",
        "fin_offset",
        "first_unacked",
        "highest",
        "last_ack",
        "last_packet",
        "mismatch_packets",
        "next",
        "quality",
        "reader",
        "run",
        "run_room",
        "run_sizes",
        "sender",
        "settled",
        "strange_ack",
        "unacked_tries",
        "untimed",
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
        self._fin_seen: tuple[int, int] | None = None  # packet and time of the FIN
        self.last_packet: int | None = None  # the packet that delivered last
        self.quality = Quality()
        self.mismatch_packets: list[int] = []
        self.strange_ack = False  # whether an acknowledgement was left out of account (see `REACH`)
        self.first_unacked: tuple[int, int, int] | None = None  # offset, packet, time of the oldest such data
        self.unacked_tries = 0
        self.settled = False  # whether offset 0 can no longer move
        self.untimed = 0  # acknowledgements of what lies before this offset tell no round trip
        self._pending: list[_Piece] = []  # what waits behind a hole: apart from each other, in order
        self._pending_bytes = 0
        # Nearly every stream has none of these, so they are made when they are needed.
        self._aside: Sequence[_Piece] = ()
        self._acks = _NO_ACKS  # offset, packet, time
        self.last_ack = -1
        self._base_ack: tuple[int, int] | None = None  # packet and time of the acknowledgement that told the base
        self._recent = _NO_BYTES  # offset, size and bytes of the last segments, one behind the other
        self._recent_count = 0
        # The same of those after them that came one by one, each at its place: bytes up to the next one expected, and
        # how many were in each segment. When there are more than ``run_room``, `trim_run` is due.
        self.run, self.run_sizes, self.run_room = _NO_BYTES, _NO_SIZES, -1

    # -- where a sequence number lies -----------------------------------------------------------------------

    def start_at(self, first: int, *, certain: bool) -> None:
        """Take ``first`` as the sequence number of the first byte, unless a surer one is known."""
        first %= SEQUENCE_SPACE
        if self.base is None:
            self.base = first
        elif certain and not self.settled:
            self._rebase(first)
        if certain and self.base == first:
            self.base_certain = self.settled = True

    def offset_of(self, sequence: int) -> int:
        """Return the stream offset of a raw sequence number: the one nearest to the bytes expected next."""
        if self.base is None:
            return 0
        return offset_near(self.base, self.next, sequence)

    def _rebase(self, first: int) -> None:
        shift = -offset_near(self.base or 0, 0, first)
        self.base = first
        if self.highest:  # else nothing was seen yet, wherever it begins
            self.highest = max(0, self.highest + shift)
        if self.acked or self._base_ack:
            self.acked = max(0, self.acked + shift)
        if self.fin_offset is not None:
            self.fin_offset += shift
        if self.first_unacked is not None:
            self.first_unacked = (self.first_unacked[0] + shift, *self.first_unacked[1:])
        for piece in (*self._pending, *self._aside):
            piece.offset += shift
            piece.end += shift
        acks = list(self._acks)
        if self._base_ack and not acks:
            acks.append((0, *self._base_ack))
        self.untimed += shift
        self._acks = deque((offset + shift, packet, time) for offset, packet, time in acks)
        recent = list(self.recent)
        self._recent, self._recent_count = _NO_BYTES, 0
        for offset, data in recent:
            self.remember(offset + shift, data)
        waiting, self._pending, self._pending_bytes = self._pending, [], 0
        for piece in waiting:  # what now lies before the first byte goes
            self._keep(piece)

    # -- what the sender sent -------------------------------------------------------------------------------

    def take(self, segment: Segment) -> int | None:
        """Take the payload of one segment of this sender (not a copy).

        Return its stream offset when Wireshark's TCP would hand it to a dissector (it is whole, neither seen
        before nor out of order), else None.
        """
        flags, length = segment.flags, segment.length
        if flags & RST:
            return None  # some stacks put a remark into it (RFC 9293 3.5.3); it has no place in the stream
        if self.base is None:
            if not length and not flags & (SYN | FIN):
                return None  # a bare acknowledgement, or a keep-alive, which is one short of the next byte
            self.base = segment.seq
        offset = self.offset_of(segment.seq)
        if flags & SYN:  # data in a SYN starts one behind its sequence number
            offset += 1
        end = offset + length
        if flags & FIN:
            self._close_at(end, segment)
        if length <= self.settled and offset == self.next - 1 and not flags & (SYN | FIN):
            self.quality.keepalives += 1
            return None
        if not length:
            return None
        quality, payload = self.quality, segment.payload
        quality.data_segments += 1
        if offset <= self.acked < end:
            self.unacked_tries += 1
            if self.first_unacked is None:
                self.first_unacked = (self.acked, segment.number, segment.time_ns)
        whole = len(payload) == length
        ahead = offset >= self.highest
        if not ahead:
            self._compare(offset, segment)
        self.remember(offset, payload)
        if whole and offset == self.next and self.settled and not self._pending:
            self.next = self.highest = end
            self.bytes += length
            self.last_packet = segment.number
            self.reader.receive(payload, segment.number, segment.time_ns)
            return offset if ahead else None
        self._take_slowly(offset, segment, ahead=ahead)
        return offset if whole and ahead else None

    def remember(self, offset: int, payload: bytes | bytearray) -> None:
        """Keep the bytes of a segment to compare a second copy with."""
        self._fold()
        self._remember(offset, payload)

    def _remember(self, offset: int, payload: bytes | bytearray) -> None:
        if self._recent is _NO_BYTES:
            self._recent = bytearray()
        elif self._recent_count == RECENT:
            del self._recent[: _PLACE.size + _PLACE.unpack_from(self._recent)[1]]
            self._recent_count -= 1
        self._recent += _PLACE.pack(offset, min(len(payload), RECENT_BYTES))
        self._recent += payload[:RECENT_BYTES]
        self._recent_count += 1

    def _fold(self) -> None:
        """Put the segments of ``run`` with the others that are remembered."""
        if not self.run_sizes:
            return
        sizes = self.run_sizes[-RECENT:]
        size = sum(sizes)
        at, offset = len(self.run) - size, self.next - size
        for size in sizes:
            self._remember(offset, self.run[at : at + size])
            at, offset = at + size, offset + size
        self._drop_run()

    def _drop_run(self) -> None:
        self.run, self.run_sizes, self.run_room = _NO_BYTES, _NO_SIZES, -1

    def trim_run(self) -> None:
        """Let go of all of the ``run`` that is older than the last segments."""
        if self.run is _NO_BYTES:
            self.run, self.run_sizes = bytearray(), array("H")
        old = self.run_sizes[:-RECENT]
        del self.run[: sum(old)]
        del self.run_sizes[: len(old)]
        self.run_room = len(self.run) + _RUN_ROOM

    @property
    def recent(self) -> Iterator[tuple[int, bytearray]]:
        """Offsets and bytes of the last segments, oldest first."""
        self._fold()
        at = 0
        while at < len(self._recent):
            offset, size = _PLACE.unpack_from(self._recent, at)
            yield offset, self._recent[(at := at + _PLACE.size + size) - size : at]

    @property
    def waits(self) -> bool:
        """Whether something waits here, or is known to be missing."""
        return bool(self._pending or self._acks)

    def _take_slowly(self, offset: int, segment: Segment, *, ahead: bool) -> None:
        """Take a segment that is not simply the next one, or not whole."""
        quality, data = self.quality, segment.payload
        number, time_ns = segment.number, segment.time_ns
        if offset < 0 and not self.settled:
            self._rebase(segment.seq)
            offset = 0
        # Until it is settled where the stream begins, pieces wait that this one has not been overtaken by.
        first = 0 if self.settled else bisect_left(self._pending, offset, key=_start)
        overtaken = self._pending[first].time_ns if first < len(self._pending) else time_ns
        new = self._keep(_Piece(offset, offset + len(data), data, number, time_ns))
        if len(data) < segment.length:
            quality.cut += 1
            self._keep_cut(_Piece(offset + len(data), offset + segment.length, None, number, time_ns))
        if not ahead:
            self.untimed = max(self.untimed, offset + segment.length)  # which copy is acknowledged? (RFC 6298 3)
            if not new or time_ns - overtaken >= RESENT_NS:
                quality.retransmitted += 1
                quality.retransmitted_bytes += segment.length
            else:
                quality.out_of_order += 1
        self.highest = max(self.highest, offset + segment.length)
        self._advance(number, time_ns)

    def compare(self, segment: Segment) -> None:
        """Note it when a further copy of a packet differs from the first."""
        if not segment.length or self.base is None:
            return
        offset, oldest = self.offset_of(segment.seq), self.first_unacked
        self._compare(offset, segment)
        is_timed = oldest is not None and offset <= oldest[0] < offset + segment.length
        if oldest is not None and is_timed and abs(segment.time_ns - oldest[2]) > COPY_NS:
            self.untime()  # captured at two places, and the acknowledgement may be seen first at the other

    def untime(self) -> None:
        """Take no round trip from what is on its way: its acknowledgement may come, or be captured, late."""
        self.untimed = max(self.untimed, self.highest)

    def set_aside(self, segment: Segment) -> None:
        """Remember the place of a segment with a wrong checksum, in case no good copy ever comes."""
        self.quality.set_aside += 1
        if segment.length and self.base is not None:
            offset = self.offset_of(segment.seq)
            piece = _Piece(offset, offset + segment.length, None, segment.number, segment.time_ns)
            self._aside = (*self._aside, piece)[-ASIDE_PIECES:]
            self.untimed = max(self.untimed, offset + segment.length)

    def _compare(self, offset: int, segment: Segment) -> None:
        data = segment.payload
        end = offset + len(data)
        for seen, known in self.recent:
            start, stop = max(offset, seen), min(end, seen + len(known))
            if start < stop and data[start - offset : stop - offset] != known[start - seen : stop - seen]:
                self.quality.mismatches += 1
                if len(self.mismatch_packets) < MISMATCHES:
                    self.mismatch_packets.append(segment.number)
                return

    def _close_at(self, end: int, segment: Segment) -> None:
        if end < self.highest:
            return  # bytes beyond it were seen: it belongs to something else
        self.fin_offset = end
        self._fin_seen = (segment.number, segment.time_ns)
        if self.acked == end + 1:  # its acknowledgement was captured first
            self.acked = end
            while self._acks and self._acks[-1][0] > end:
                self._acks.pop()

    # -- what the peer acknowledged -------------------------------------------------------------------------

    def acknowledge(self, ack: int, packet: int, time_ns: int) -> int | None:
        """Take note that the peer has everything before the raw number ``ack``.

        Return how long (ns) the oldest of it took to the peer and back, None where that cannot be told: nothing of
        a repeated, late or damaged segment (Karn's rule, RFC 6298 3), nothing of bytes that were not captured.
        """
        if ack == self.last_ack:
            return None
        self.last_ack = ack
        if self.base is None:
            self.base = ack
            self._base_ack = packet, time_ns
            return None
        offset = self.offset_of(ack)
        if self.fin_offset is not None and offset == self.fin_offset + 1:
            offset = self.fin_offset  # the FIN has a number but is no byte
        if offset <= self.acked:
            return None
        if offset - max(self.next, self.highest, self.acked) > REACH:
            self.last_ack = -1  # said again when more is known, it may be right
            self.strange_ack = True
            return None
        oldest = self.first_unacked
        self.acked = offset
        self.first_unacked = None
        self.unacked_tries = 0
        if offset > self.next:
            if self._acks.maxlen == 0:  # the one for all that have none, or what was stored of it
                self._acks = deque()
            if len(self._acks) == STEPS:
                self._acks.pop()
            self._acks.append((offset, packet, time_ns))
            return None
        return None if oldest is None or oldest[0] < self.untimed else time_ns - oldest[2]

    def poll(self, packet: int, time_ns: int) -> None:
        """Give up on what has been waited for long enough; call with every packet of the conversation."""
        if self._acks or self._pending:
            self._advance(packet, time_ns)

    def finish(self, packet: int, time_ns: int) -> None:
        """Deliver all that can be delivered: nothing more will come."""
        self.settled = True
        self._run()
        while self._pending or (self._acks and not self._may_be_fin()):
            self._give_up(packet, time_ns)
        if self._acks:
            self._acks = _NO_ACKS
            self.acked = self.next
        if self.fin_offset is not None and self.next < self.fin_offset <= self.next + FIN_REACH:
            # Nobody acknowledged them in this capture, but the FIN's number proves that they were sent.
            self._skip(self.fin_offset - self.next, *(self._fin_seen or (packet, time_ns)), HoleReason.LOST)
        self._aside, self._recent, self._recent_count = (), _NO_BYTES, 0
        self._drop_run()

    # -- waiting and delivering -----------------------------------------------------------------------------

    def _keep(self, piece: _Piece) -> int:
        """File a piece by its offset and return how many of its bytes are new.

        The first copy of a byte wins; but bytes win over the same bytes cut off by the capture.
        """
        pending, new = self._pending, 0
        if piece.offset < self.next:
            piece = piece.part(self.next, piece.end)
        index = bisect_left(pending, piece.offset, key=_end)
        while piece.offset < piece.end:
            neighbour = pending[index] if index < len(pending) else None
            if neighbour is None or piece.offset < neighbour.offset:
                stop = piece.end if neighbour is None else neighbour.offset
                new += self._insert(index, piece.part(piece.offset, stop))
                index += 1
                piece = piece.part(stop, piece.end)
                continue
            if neighbour.data is None and piece.data is not None and piece.offset < neighbour.end:
                del pending[index]
                for left in (
                    neighbour.part(neighbour.offset, piece.offset),
                    piece.part(piece.offset, neighbour.end),
                    neighbour.part(piece.end, neighbour.end),
                ):
                    index += bool(self._insert(index, left))
                new += min(piece.end, neighbour.end) - piece.offset
            else:
                index += 1
            piece = piece.part(neighbour.end, piece.end)
        return new

    def _keep_cut(self, piece: _Piece) -> None:
        """File what the capture cut off a segment, as far as it lies before or behind all that waits there.

        It costs the sender of a packet nothing to claim 64 KiB, so it must not cost us a walk through them.
        """
        piece = piece.part(self.next, piece.end)
        first = bisect_right(self._pending, piece.offset, key=_end)
        last = bisect_left(self._pending, piece.end, key=_start)
        if first < last:
            self._insert(last, piece.part(self._pending[last - 1].end, piece.end))
            piece = piece.part(piece.offset, self._pending[first].offset)
        self._insert(first, piece)

    def _insert(self, index: int, piece: _Piece) -> int:
        if piece.offset < piece.end:
            self._pending.insert(index, piece)
            self._pending_bytes += len(piece.data or b"")
        return piece.end - piece.offset

    def _advance(self, packet: int, time_ns: int) -> None:
        if not self.settled and self._pending:
            first = min(piece.time_ns for piece in self._pending[:SETTLE_PIECES])
            if len(self._pending) < SETTLE_PIECES and time_ns - first < SETTLE_NS:
                return
            self.settled = True
        self._run()
        while self._acks and time_ns - self._acks[0][2] > PATIENCE_NS and not self._may_be_fin():
            self._give_up(packet, time_ns)
        while len(self._pending) > PENDING_PIECES or self._pending_bytes > PENDING_BYTES:
            self._give_up(packet, time_ns)

    def _may_be_fin(self) -> bool:
        """Whether all that is missing is one last byte: a FIN that was not captured is acknowledged like one."""
        return (
            len(self._acks) == 1 and self._acks[0][0] == self.next + 1 and not self._pending and self.fin_offset is None
        )

    def _run(self) -> None:
        """Deliver the pieces that join on to what was delivered."""
        done = 0
        pending = self._pending
        while done < len(pending) and pending[done].offset <= self.next:
            piece = pending[done]
            done += 1
            self._pending_bytes -= len(piece.data or b"")
            self._deliver(piece)
        if done:
            del pending[:done]
        while self._acks and self._acks[0][0] <= self.next:
            self._acks.popleft()

    def _give_up(self, packet: int, time_ns: int) -> None:
        """Declare the bytes from ``next`` on missing, up to the next ones there are, one ACK step at a time."""
        start = self.next
        beyond = self._pending[0] if self._pending else None
        if self._acks:
            end, packet, time_ns = self._acks[0]
            end = min(end, beyond.offset) if beyond else end
            reason = HoleReason.NOT_CAPTURED
        else:
            assert beyond is not None  # noqa: S101 - callers ask only when there is something beyond the hole
            end, packet, time_ns = beyond.offset, beyond.packet, beyond.time_ns
            reason = HoleReason.NOT_CAPTURED if self.acked >= end else HoleReason.LOST
        damaged = min(
            (p for p in self._aside if p.offset < end and p.end > start), key=lambda p: p.offset, default=None
        )
        if damaged is not None and damaged.offset > start:
            end = damaged.offset
        elif damaged is not None:
            end, packet, time_ns = min(end, damaged.end), damaged.packet, damaged.time_ns
            reason = HoleReason.DAMAGED
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
        self._fold()
        self.settled = True
        hole = Hole(self.sender, self.next, length, self.last_packet, packet, time_ns, reason)
        self.next += length
        self.reader.skip(hole)


_NO_BYTES: Final = bytearray()
_NO_SIZES: Final = array("H")
_RUN_ROOM: Final = 1024
"""Bytes of a run beyond the last segments: those of `RECENT` ordinary frames."""
_PLACE: Final = Struct("<qH")
_NO_ACKS: Final[deque[tuple[int, int, int]]] = deque(maxlen=0)


def offset_near(base: int, expected: int, sequence: int) -> int:
    """Return the stream offset of a raw sequence number, ``base`` being that of offset 0: of all that it can
    be (the numbers begin again every 4 GiB) the one nearest to the offset ``expected``.
    """
    delta = (sequence - base - expected) % SEQUENCE_SPACE
    return expected + (delta - SEQUENCE_SPACE if delta >= HALF_SPACE else delta)


def _start(piece: _Piece) -> int:
    return piece.offset


def _end(piece: _Piece) -> int:
    return piece.end
