"""The straight way of a packet: what nearly every one of them goes through, in one function.

In a healthy session a packet brings the bytes that come next, or acknowledges bytes for the first time, and nothing
waits for anything. `Lane.take` takes such a packet with the same result as `Conversation.take`, in a fraction of the
time; it says False to any other, before anything has changed. Whether a lane may be used at all (`calm`) is told anew
after every packet that went the long way.
"""

from __future__ import annotations

from array import array
from struct import error as struct_error
from typing import TYPE_CHECKING, Final

from analyzer.catalogue import BLOCK, LENGTH_PREFIX, SMALLEST_FRAME_ON_WIRE
from analyzer.copies import ENTRY, FULL, Headers
from analyzer.frames import WHOLE, Frame
from analyzer.handshake import OPENING, TurnReader
from analyzer.misparse.reader import CoapTcpReader
from analyzer.misparse.words import PLAIN, RowWords
from analyzer.network.units import ACK, PSH, Segment
from analyzer.seen import FIRST, FRAME, FRAMES_HELD, LAST, FrameSeen, Mark, Seen, Side
from analyzer.sessionwatch import EARLIEST_PING_NS, OPENS_SOMETHING
from analyzer.spread import LONGEST, MANY
from analyzer.streams import RECENT_BYTES, SEQUENCE_SPACE, Sender, Stream

if TYPE_CHECKING:
    from analyzer.conversation import Conversation

_DEVICE: Final = Sender.DEVICE  # looking up a member costs more than the comparison with it
_PLAIN_FLAGS: Final = ACK | PSH


class Lane:
    """One direction of a live conversation: all that one of its packets touches."""

    __slots__ = (
        "acked",
        "calm",
        "coap",
        "conversation",
        "expected",
        "headers",
        "is_device",
        "last_any",
        "last_data",
        "peer",
        "rows",
        "sender",
        "side",
        "stream",
        "turn",
    )

    def __init__(self, conversation: Conversation, rows: RowWords, turn: TurnReader, stream: Stream) -> None:
        self.conversation = conversation
        self.rows = rows  # of both directions
        self.sender = stream.sender
        self.is_device = stream.sender is _DEVICE
        self.side = Side()
        self.side.round_trips.waiting = array("Q")
        self.turn = turn
        self.stream = stream
        self.peer = stream  # until the other lane is there
        self.coap = CoapTcpReader()
        self.headers = Headers()
        self.last_any: Mark | None = None
        self.last_data: Mark | None = None
        self.calm = False
        self.expected = 0  # sequence number of the next byte
        self.acked = 0  # sequence number of the first byte of the peer that this end has not acknowledged

    def take(self, segment: Segment) -> bool:
        """Take a segment of this direction if it is an ordinary one; else return False, and nothing has been done.

        To be called only while the lane is `calm`.
        """
        payload, length, ack, peer = segment.payload, segment.length, segment.ack, self.peer
        newly = (ack - self.acked) % SEQUENCE_SPACE
        if (
            segment.seq != self.expected
            or segment.flags | PSH != _PLAIN_FLAGS
            or len(payload) != length
            or length > RECENT_BYTES
            or newly > peer.next - peer.acked  # it acknowledges what was not captured, or comes late
            or not (length or newly)  # it says nothing new: a repeat, or a probe
        ):
            return False
        number, time_ns, ip_id, headers = segment.number, segment.time_ns, segment.ip_id, self.headers
        try:
            # It says something new, so it cannot be a copy of a packet before it; but there may be copies of it.
            entry = ENTRY(
                -1 if ip_id is None else ip_id, segment.seq, ack, segment.flags, length, time_ns, segment.interface
            )
        except struct_error:
            return False  # a time beyond 64 bits
        if ip_id == headers.last_id:
            headers.numbered = False
        headers.last_id = ip_id
        if len(headers.younger) >= FULL:
            headers.turn_over()
        headers.younger += entry

        conversation, side, stream = self.conversation, self.side, self.stream
        if number > conversation.last_packet:  # noqa: PLR1730 - a call costs more than the comparison
            conversation.last_packet = number
        if time_ns > conversation.end_ns:  # noqa: PLR1730
            conversation.end_ns = time_ns
        stream.quality.packets += 1
        mark = self.last_any = number, time_ns, segment.ttl
        if newly:
            oldest = peer.first_unacked
            peer.acked += newly
            peer.first_unacked = None
            peer.unacked_tries = 0
            self.acked = ack
            if oldest is not None and oldest[0] >= peer.untimed:
                rtt = time_ns - oldest[2]
                if 0 <= rtt <= LONGEST:
                    waiting = side.round_trips.waiting
                    waiting.append(rtt)
                    if len(waiting) >= MANY:
                        side.round_trips.count()
                else:
                    side.round_trips.add(rtt)
        peer.last_ack = ack
        if self.is_device and conversation.kept.reply_acked is None:
            conversation.note_milestones(segment, Seen(*mark))
        if not length:
            return True

        self.last_data = mark
        if side.first_data is None:
            side.first_data, side.first_size = Seen(*mark), length
            if conversation.kept.connected is None:
                conversation.kept.connected = side.first_data
        offset = stream.next
        stream.quality.data_segments += 1
        if offset == stream.acked:
            stream.unacked_tries += 1
            if stream.first_unacked is None:
                stream.first_unacked = offset, number, time_ns
        if len(stream.run) > stream.run_room:
            stream.trim_run()
        stream.run += payload
        stream.run_sizes.append(length)
        stream.next = stream.highest = offset + length
        stream.bytes += length
        stream.last_packet = number
        self.expected = (segment.seq + length) % SEQUENCE_SPACE

        if conversation.tap is not None:
            conversation.tap.receive(self.sender, payload, number, time_ns)
        turn, frames = self.turn, self.turn.frames
        if (
            frames is None
            or not turn.in_frames
            or frames.buffer
            or frames.searching
            or length not in WHOLE
            or payload[0] << 8 | payload[1] != length - LENGTH_PREFIX
        ):
            turn.receive(payload, number, time_ns)
        else:  # nearly always: one whole frame
            if len(turn.opening) < OPENING:
                turn.opening += payload[: OPENING - len(turn.opening)]
            self._take_frame(payload, length, mark)

        # What Wireshark shows of it.
        coap, rows = self.coap, self.rows
        if payload[0] < PLAIN and length >= 2 + payload[0] and coap.offset == offset and not coap.missing:
            coap.offset += length
            count = rows.counts.get(payload[1], 0)
            if count > 1 and rows.many:
                rows.counts[payload[1]] = count + 1
            else:
                rows.take_plain(payload, number)
        elif coap.missing > length and coap.offset == offset:
            coap.swallow(payload)
        else:
            rows.take(coap.receive(payload, number, offset))
        return True

    def _take_frame(self, payload: bytes, size: int, mark: Mark) -> None:
        """Take one whole frame, all of it from one packet."""
        frames, conversation, side = self.turn.frames, self.conversation, self.side
        assert frames is not None  # noqa: S101 - the caller has looked
        index, follows_gap = frames.count, frames.after_gap
        offset, on_frame = frames.offset, conversation.on_frame
        number, time_ns, _ = mark
        frames.offset = offset + size
        frames.count = index + 1
        frames.after_gap = False
        side.frames += 1
        if size > side.longest:  # noqa: PLR1730
            side.longest = size
        if on_frame is not None:
            body = payload[LENGTH_PREFIX:]
            head = body[:BLOCK]
            dead = on_frame(
                conversation,
                Frame(
                    self.sender, index, offset, size - LENGTH_PREFIX, body, head, number, number, time_ns, follows_gap
                ),
            )
            if dead is not None:
                conversation.note_frame(FrameSeen(self.sender, index, size, number, time_ns, follows_gap, dead))
                return
        framed = conversation.kept.framed
        if not self.is_device and len(framed) < FIRST and conversation.server_hello is None:
            conversation.kept.server_hello = FrameSeen(self.sender, index, size, number, time_ns, follows_gap)
        if len(framed) >= FRAMES_HELD:
            del framed[FIRST:-LAST]
        framed += FRAME(self.is_device + 2 * follows_gap, 0, size, index, number, time_ns, 0)
        watch = conversation.watch
        if self.is_device:
            if watch.busy or (
                size == SMALLEST_FRAME_ON_WIRE
                and watch.last_server_ns is not None
                and time_ns - watch.last_server_ns >= EARLIEST_PING_NS
            ):
                watch.take(FrameSeen(self.sender, index, size, number, time_ns, follows_gap))
            else:
                watch.last_device_ns = time_ns
        elif watch.busy or size in OPENS_SOMETHING:
            watch.take(FrameSeen(self.sender, index, size, number, time_ns, follows_gap))
        else:
            watch.last_server_ns = time_ns

    def look(self, *, calm: bool) -> None:
        """Take note of where the streams now are; ``calm`` when nothing waits in either of them."""
        stream, peer = self.stream, self.peer
        base, peer_base = stream.base, peer.base
        if (
            not calm
            or base is None
            or peer_base is None
            or not stream.settled
            or stream.next != stream.highest
            or stream.acked > stream.next
        ):
            self.calm = False
            return
        self.calm = True
        self.expected = (base + stream.next) % SEQUENCE_SPACE
        self.acked = (peer_base + peer.acked) % SEQUENCE_SPACE

    def finish(self) -> None:
        """Copy what was seen of this end to its `Side`; both streams are finished."""
        stream, turn, side = self.stream, self.turn, self.side
        side.quality = stream.quality
        side.captured, side.sent, side.acked = stream.bytes, stream.next, stream.acked
        if self.last_any is not None:
            side.last_any = Seen(*self.last_any)
        if self.last_data is not None:
            latest = Seen(*self.last_data)
            side.last_data = next((seen for seen in (side.first_data, side.last_any) if seen == latest), latest)
        if stream.first_unacked is not None:
            side.unacked_since = Seen(*stream.first_unacked[1:])
        side.unacked_tries = stream.unacked_tries
        side.opening = bytes(turn.opening)
        side.parts = tuple(turn.parts)
        side.early = turn.early
        side.midway = turn.started == "midway"
        side.before = turn.before
        if turn.frames is not None:
            side.lost, side.skipped, side.rest = tuple(turn.frames.lost), turn.frames.skipped, turn.frames.pending
