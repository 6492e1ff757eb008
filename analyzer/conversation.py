"""One TCP connection of a device: what was seen of it, as facts. Judgement comes later.

A `Conversation` is fed segments while its packets arrive and is finished once; after that it only holds what the
rules and the reports ask for, and its size no longer depends on how long the connection was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from analyzer.catalogue import HELLO_FRAMES, IDENTITY_SIZE, NONCE_SIZE, SESSION_SIZE, SMALLEST_FRAME_ON_WIRE
from analyzer.copies import COPY_NS, Headers
from analyzer.frames import Frame
from analyzer.handshake import Part, TurnReader
from analyzer.misparse.reader import CoapTcpReader
from analyzer.misparse.words import RowWords
from analyzer.network.units import ACK, FIN, RST, SYN, Segment
from analyzer.seen import Closing, Endpoint, FrameSeen, Seen, Side
from analyzer.sessionwatch import SessionWatch
from analyzer.streams import (
    ASIDE_PIECES,
    PATIENCE_NS,
    SEQUENCE_SPACE,
    Hole,
    HoleReason,
    Quality,
    Sender,
    Stream,
    offset_near,
)

if TYPE_CHECKING:
    from analyzer.messages import SparkMessage
    from analyzer.opened import Secrets
    from analyzer.recognition import Recognition

_DEVICE, _SERVER = Sender.DEVICE, Sender.SERVER  # looking up a member costs more than the comparison with it
SYNS: Final = 32
"""Requests to connect that are listed; further ones are counted."""
CLOSINGS: Final = 8
"""FINs and RSTs that are listed."""
OVERTAKEN: Final = 65_536
"""Bytes by which the first packets of a capture may have overtaken the SYN: a window without scaling."""
EARLY_ACKS: Final = 64
"""Acknowledgements remembered until it is clear how the server's bytes begin; that takes a second at most."""
HOLES: Final = 1000
"""Holes that are listed per conversation; further ones are counted."""
FIRST_FRAMES: Final = 16
LAST_FRAMES: Final = 12
"""Frames at both ends of a session that are kept with packet and time; those between are counted by size."""
DEAD_FRAMES: Final = 1000
"""Dead-key frames that are listed per conversation; further ones are counted. A device sends three a minute."""
SIZES: Final = 80
"""Distinct frame sizes counted; there are 64 legal ones."""


@dataclass(slots=True)
class _Edge:
    """What stays of a stream when its conversation is finished, to know late packets by."""

    base: int | None
    end: int
    fin_offset: int | None


class StreamTap(Protocol):
    """Somebody who wants the bytes of both directions as TCP delivered them."""

    def receive(self, sender: Sender, data: bytes, packet: int, time_ns: int) -> None:
        """Take the next bytes of one direction, all from one packet."""

    def skip(self, sender: Sender, hole: Hole) -> None:
        """Take note of missing bytes."""


class Conversation:
    """One TCP connection, from its SYN (or the first packet in the capture) to its end."""

    def __init__(self, number: int, device: Endpoint, server: Endpoint, segment: Segment) -> None:
        self.number = number
        self.device = device
        self.server = server
        self.first_packet = self.last_packet = segment.number
        self.start_ns = self.end_ns = segment.time_ns
        self.syns: list[Seen] = []
        self.syn_count = 0
        self.syn_ack: Seen | None = None
        self.connected: Seen | None = None
        self.closings: list[Closing] = []
        self.holes: list[Hole] = []
        self.hole_count = 0
        self.sides = {Sender.DEVICE: Side(), Sender.SERVER: Side()}
        self.reply_acked: Seen | None = None  # the device's acknowledgement of all 384 bytes
        self.nonce_acked: Seen | None = None
        self.first_frames: list[FrameSeen] = []
        self.last_frames: deque[FrameSeen] = deque(maxlen=LAST_FRAMES)
        self.dead_frames: list[FrameSeen] = []
        self.watch = SessionWatch()
        self.rows = RowWords()  # what Wireshark would show as CoAP
        self.kind = "empty"
        self.finished = False
        self.lingering = False  # closed, but open for late packets
        self.on_frame: Callable[[Conversation, Frame], str | None] | None = None
        self.tap: StreamTap | None = None
        self.secrets: Secrets | None = None  # what keys told, when there were any
        self.messages: list[SparkMessage] = []
        self.recognised: Recognition | None = None  # what its two ends can be
        self._isn: dict[Sender, int] = {}
        self._opening_untimed = False  # which SYN, or where it was captured, is uncertain
        self._turns = {sender: TurnReader(sender, self._take_frame) for sender in Sender}
        self._streams = {sender: Stream(sender, _Recorder(self, sender, self._turns[sender])) for sender in Sender}
        self._readers = {sender: CoapTcpReader() for sender in Sender}
        self._headers: dict[Sender, Headers] = {sender: Headers() for sender in Sender}
        self._edges: dict[Sender, _Edge] = {}
        self.damaged: deque[Segment] = deque(maxlen=ASIDE_PIECES)
        self._last_hole: dict[Sender, Hole] = {}
        self._early_acks: list[tuple[int, Seen]] = []

    # -- what the tracker asks ------------------------------------------------------------------------------

    def sender_of(self, segment: Segment) -> Sender:
        """Which end sent this segment."""
        device = self.device
        same = segment.source == device.address and segment.source_port == device.port
        return _DEVICE if same else _SERVER

    def distance(self, segment: Segment, window: int) -> int | None:
        """How far sequence and acknowledgement numbers lie from what was seen so far, in bytes.

        None when they belong to another connection: both beyond ``window``, or more data after a FIN.
        """
        sender = self.sender_of(segment)
        own, peer = self._edge(sender), self._edge(sender.peer)
        apart = acked = None
        if own.base is not None:
            offset = offset_near(own.base, own.end, segment.seq)
            if own.fin_offset is not None and segment.length > 1 and offset >= own.fin_offset:
                return None
            apart = abs(offset - own.end)
        if segment.flags & ACK and peer.base is not None:
            acked = abs(offset_near(peer.base, peer.end, segment.ack) - peer.end)
        if apart is None or (apart > window and not segment.flags & RST):
            # An endpoint takes no reset whose sequence number does not fit, so the other number counts for nothing.
            return acked if acked is None or acked <= window else None
        return apart if apart <= window else None

    def continues(self, segment: Segment, window: int) -> bool:
        """Whether the numbers of a segment fit what was seen so far, or nothing is known to compare them with."""
        sender = self.sender_of(segment)
        if not self.finished:
            own = self._streams[sender]
            if own.base is not None and own.fin_offset is None:
                ahead = (segment.seq - own.base - own.next) % SEQUENCE_SPACE
                if ahead <= window:  # nearly always
                    return True
        if self.distance(segment, window) is not None:
            return True
        return self._edge(sender).base is None and (not segment.flags & ACK or self._edge(sender.peer).base is None)

    def accepts_syn(self, segment: Segment) -> bool:
        """Whether this SYN (or SYN-ACK) belongs here: a repeat, or the first one, captured behind a later packet."""
        if self.finished:
            return False
        sender = self.sender_of(segment)
        own, peer = self._streams[sender], self._streams[sender.peer]
        if segment.flags & ACK and sender.peer in self._isn and not _follows(segment.ack, self._isn[sender.peer]):
            return False
        if sender in self._isn:
            if self._isn[sender] != segment.seq:
                return False
            # The same number again, long after the handshake, on a connection that has ended: used again. A
            # connection that was refused is tried again with the same number by some systems.
            return not (self.closed and own.highest and not self._headers[sender].knows(segment))
        if segment.flags & ACK and sender.peer in self._isn:
            return own.base is None or _may_begin(own, segment.seq + 1)
        if own.base_certain:
            return _may_begin(own, segment.seq + 1)
        young = segment.time_ns - self.start_ns <= PATIENCE_NS
        answers = not segment.flags & ACK or _may_begin(peer, segment.ack)
        return young and answers and _may_begin(own, segment.seq + 1)

    def is_out_of_place(self, segment: Segment) -> bool:
        """Whether new data of the server of a nonce's size come when the nonce is past.

        No run of frames has 40 bytes, so it is a piece of something longer, or another connection's nonce.
        """
        if self.finished or self.sender_of(segment) is not Sender.SERVER:
            return False
        nonce = self._turns[Sender.SERVER].part("nonce")
        if nonce is None or not nonce.complete:
            return False
        stream = self._streams[Sender.SERVER]
        return stream.offset_of(segment.seq) >= stream.highest

    def _edge(self, sender: Sender) -> _Edge:
        if self.finished:
            return self._edges[sender]
        stream = self._streams[sender]
        return _Edge(stream.base, max(stream.next, stream.highest), stream.fin_offset)

    @property
    def closed(self) -> bool:
        """Whether both ends have closed, or one has reset the connection."""
        return any(c.how == "rst" for c in self.closings) or len({c.sender for c in self.closings}) == 2

    # -- feeding --------------------------------------------------------------------------------------------

    def take(self, segment: Segment) -> None:
        """Take the next segment of this connection, in capture order."""
        sender = self.sender_of(segment)
        side, stream, peer = self.sides[sender], self._streams[sender], self._streams[sender.peer]
        number, time_ns, flags = segment.number, segment.time_ns, segment.flags
        self.last_packet = max(self.last_packet, number)
        self.end_ns = max(self.end_ns, time_ns)
        if self._headers[sender].repeats(segment):
            # The capture already holds this very packet: seen on two interfaces, or by a mirror port.
            stream.quality.copies += 1
            stream.compare(segment)
            if flags & SYN:
                first = self.syn_ack if flags & ACK else self.syns[0] if self.syns else None
                self._opening_untimed |= first is not None and abs(time_ns - first.time_ns) > COPY_NS
            return
        stream.quality.packets += 1
        seen = side.last_any = Seen(number, time_ns, segment.ttl)
        if flags & SYN:
            self._take_syn(segment, sender, seen)
        elif stream.base is None:
            self._start_without_syn(sender)
        if flags & ACK and not flags & RST:
            if peer.base is None:
                self._start_without_syn(sender.peer)
            rtt = peer.acknowledge(segment.ack, number, time_ns)
            # One that comes out of turn has itself been late, or those before it are missing.
            if rtt is not None and (
                stream.base is None or (segment.seq - stream.base - stream.next) % SEQUENCE_SPACE == 0
            ):
                side.round_trips.add(rtt)
            if sender is _DEVICE and self.reply_acked is None:
                self._note_milestones(segment, seen)
        # Before the segment is taken: a keep-alive probe repeats the last byte, which may be one to give up on.
        stream.poll(number, time_ns)
        peer.poll(number, time_ns)
        if segment.length and not flags & RST:
            if self.connected is None:
                self.connected = seen
            if side.first_data is None:
                side.first_data, side.first_size = seen, segment.length
            side.last_data = seen
        fresh = stream.take(segment)
        if fresh is not None:
            self.rows.take(self._readers[sender].receive(segment.payload, number, max(0, fresh)))
        if flags & (FIN | RST):
            self._close(sender, "rst" if flags & RST else "fin", seen)

    def take_damaged(self, segment: Segment) -> None:
        """Set aside a segment whose checksum is wrong although its sender's are right; its place is remembered."""
        sender = self.sender_of(segment)
        self._streams[sender].set_aside(segment)
        self._streams[sender.peer].untime()  # its acknowledgement is lost
        self.damaged.append(segment)
        self.last_packet = max(self.last_packet, segment.number)

    def trust_damaged(self, source: bytes) -> None:
        """Take back what was set aside of that sender: most of its checksums are wrong after all."""
        aside = list(self.damaged)
        self.damaged.clear()
        for segment in aside:
            if segment.source == source:
                self._streams[self.sender_of(segment)].quality.set_aside -= 1
                self.take(segment)
            else:
                self.damaged.append(segment)

    def _take_syn(self, segment: Segment, sender: Sender, seen: Seen) -> None:
        self._isn.setdefault(sender, segment.seq)
        self._streams[sender].start_at(segment.seq + 1, certain=True)
        self._turns[sender].begin()
        if segment.flags & ACK:
            self._streams[sender.peer].start_at(segment.ack, certain=True)
            self._turns[sender.peer].begin()
            if self.syn_ack is None:
                self.syn_ack = seen
                if self.syn_count == 1 and not self._opening_untimed:
                    self.sides[sender].round_trips.add(seen.time_ns - self.syns[0].time_ns)
            else:
                self._opening_untimed = True
            return
        self.syn_count += 1
        if len(self.syns) < SYNS:
            self.syns.append(seen)

    def _start_without_syn(self, sender: Sender) -> None:
        """The first number of a direction comes from something else than its SYN: how it begins is to be seen."""
        self._turns[sender].begin_midway(likely=not self.midway)

    def _note_milestones(self, segment: Segment, seen: Seen) -> None:
        """Note when the device acknowledged what."""
        if segment.flags & SYN:
            return
        if self.connected is None and not self.midway:
            self.connected = seen  # only who has the SYN-ACK can acknowledge anything
            if self.syn_ack is not None and not self._opening_untimed and not segment.length:
                self.sides[Sender.DEVICE].round_trips.add(seen.time_ns - self.syn_ack.time_ns)
        if len(self._early_acks) < EARLY_ACKS:
            self._early_acks.append((segment.ack, seen))
        if self._turns[Sender.SERVER].started is not None:
            self._weigh_acks()

    def _weigh_acks(self) -> None:
        """Tell what the acknowledgements were of, now that it is known how the server's bytes begin."""
        stream, before = self._streams[Sender.SERVER], self._turns[Sender.SERVER].before
        for ack, seen in self._early_acks:
            acked = before + min(stream.offset_of(ack), stream.acked)
            if self.nonce_acked is None and acked >= NONCE_SIZE:
                self.nonce_acked = seen
            if self.reply_acked is None and acked >= NONCE_SIZE + SESSION_SIZE:
                self.reply_acked = seen
        self._early_acks.clear()

    def _close(self, sender: Sender, how: str, seen: Seen) -> None:
        known = any(c.sender is sender and c.how == how for c in self.closings)
        if not known and len(self.closings) < CLOSINGS:
            self.closings.append(Closing(sender, how, seen.packet, seen.time_ns, seen.ttl))

    def _take_hole(self, hole: Hole) -> None:
        """List a hole. What was acknowledged in steps is one hole if nothing was captured between them."""
        last = self._last_hole.get(hole.sender)
        joins = last is not None and last.reason is hole.reason and last.offset + last.length == hole.offset
        if last is not None and joins and hole.reason is not HoleReason.CUT:  # of cut packets each is told
            last.length += hole.length
            return
        self._last_hole[hole.sender] = hole = replace(hole)
        self.hole_count += 1
        if len(self.holes) < HOLES:
            self.holes.append(hole)

    def _take_frame(self, frame: Frame) -> None:
        side = self.sides[frame.sender]
        side.frames += 1
        dead = self.on_frame(self, frame) if self.on_frame else None
        seen = FrameSeen(frame.sender, frame.index, frame.size, frame.packet, frame.time_ns, frame.follows_gap, dead)
        if len(side.sizes) < SIZES or frame.size in side.sizes:
            side.sizes[frame.size] += 1
        if len(self.first_frames) < FIRST_FRAMES:
            self.first_frames.append(seen)
        self.last_frames.append(seen)
        if dead:
            side.dead += 1
            if len(self.dead_frames) < DEAD_FRAMES:
                self.dead_frames.append(seen)
        else:
            self.watch.take(frame)

    def finish(self) -> None:
        """Close the books: deliver what waited, copy the results, let the buffers go."""
        if self.finished:
            return
        for stream in self._streams.values():
            stream.finish(self.last_packet, self.end_ns)
        for sender, turn in self._turns.items():
            turn.finish()
            stream, side = self._streams[sender], self.sides[sender]
            side.quality = stream.quality
            side.captured, side.sent, side.acked = stream.bytes, stream.next, stream.acked
            if stream.first_unacked is not None:
                side.unacked_since = Seen(*stream.first_unacked[1:])
            side.unacked_tries = stream.unacked_tries
            side.opening = bytes(turn.opening)
            side.parts = turn.parts
            side.early = turn.early
            side.midway = turn.started == "midway"
            side.before = turn.before
            if turn.frames is not None:
                side.lost, side.skipped, side.rest = (
                    turn.frames.lost,
                    turn.frames.skipped,
                    turn.frames.pending,
                )
        self.watch.finish()
        self._weigh_acks()
        self._edges = {sender: self._edge(sender) for sender in Sender}
        self.finished = True
        self.damaged.clear()
        del self._streams, self._turns, self._readers, self._headers
        self.on_frame = None

    # -- what the rules and reports ask ---------------------------------------------------------------------

    def part(self, kind: str) -> Part | None:
        """Return a handshake message of which anything is known, or None. Before `finish` too."""
        sender = Sender.DEVICE if kind == "identity" else Sender.SERVER
        parts = self.sides[sender].parts if self.finished else self._turns[sender].parts
        found = next((part for part in parts if part.kind == kind), None)
        return found if found is not None and found.first_packet else None

    @property
    def midway(self) -> bool:
        """Whether the capture began when this connection was already under way."""
        return not self.syns and self.syn_ack is None

    @property
    def initial_numbers(self) -> dict[Sender, int]:
        """The TCP sequence numbers of the SYNs in the capture, by end."""
        return dict(self._isn)

    @property
    def first_closing(self) -> Closing | None:
        """The first FIN or RST of either end, None when there is none in the capture."""
        return self.closings[0] if self.closings else None

    @property
    def closed_by(self) -> str:
        """The first FIN or RST in the capture as ``device-fin`` and so on, else ``none``."""
        return str(self.closings[0]) if self.closings else "none"

    @property
    def quality(self) -> tuple[Quality, Quality]:
        """What happened to the packets of the device and of the server."""
        return self.sides[Sender.DEVICE].quality, self.sides[Sender.SERVER].quality

    def live_frames(self, sender: Sender) -> int:
        """Complete frames of that sender, without dead-key frames."""
        return self.sides[sender].frames - self.sides[sender].dead

    @property
    def hello(self) -> FrameSeen | None:
        """The device's first frame after the session offer, when it can be a hello."""
        for frame in self.first_frames:
            if frame.sender is Sender.DEVICE and not frame.dead:
                return frame if frame.size in HELLO_FRAMES and frame.index == self.sides[Sender.DEVICE].early else None
        return None

    @property
    def server_hello(self) -> FrameSeen | None:
        """The server's first frame, or None."""
        for frame in self.first_frames:  # asked with each frame of the device: a generator would cost more
            if frame.sender is _SERVER:
                return frame
        return None

    @property
    def reached(self) -> str:
        """How far the connection got, by what the bytes prove (missing ones included when acknowledged)."""
        if self.kind not in ("spark", "empty"):
            return "connected"
        device, server = self.sides[Sender.DEVICE], self.sides[Sender.SERVER]
        nonce, identity, session = (self.part(kind) for kind in ("nonce", "identity", "session"))
        if session is not None and session.complete:
            return self._reached_after_session(device, server)
        if self.midway and (device.midway or server.midway) and any(map(self.live_frames, Sender)):
            return "established"
        greeted = self.midway or (nonce is not None and nonce.complete)
        if identity is not None and identity.complete and greeted:
            return "identity"
        if nonce is not None and nonce.complete:
            return "nonce"
        return "connected" if self.connected is not None or self.syn_ack is not None or self.midway else "syn"

    def _reached_after_session(self, device: Side, server: Side) -> str:
        """How far beyond the 384 bytes. What is missing counts as sent, but a hole cannot be told to be dead keys."""
        answered = server.before + server.sent >= NONCE_SIZE + SESSION_SIZE + SMALLEST_FRAME_ON_WIRE
        unseen = device.sent > device.captured and device.before + device.sent >= IDENTITY_SIZE + SMALLEST_FRAME_ON_WIRE
        garbled = device.skipped and not device.lost
        if self.live_frames(Sender.DEVICE) or ((unseen or garbled) and not self.dead_frames):
            if self.live_frames(Sender.SERVER) or answered:
                return "established"
            return "hello" if self.hello or not self.live_frames(Sender.DEVICE) else "session"
        return "session"


def _follows(sequence: int, earlier: int) -> bool:
    return (sequence - earlier) % SEQUENCE_SPACE == 1


def _may_begin(stream: Stream, first: int) -> bool:
    """Whether the byte with this sequence number can be the first of the stream, as far as it is known."""
    if stream.base is None:
        return True
    offset = stream.offset_of(first)
    return not offset if stream.base_certain else -OVERTAKEN <= offset <= 0


class _Recorder:
    """Passes a stream's bytes to the turn reader, and its holes to the conversation as well."""

    __slots__ = ("_conversation", "_sender", "_turn")

    def __init__(self, conversation: Conversation, sender: Sender, turn: TurnReader) -> None:
        self._conversation = conversation
        self._sender = sender
        self._turn = turn

    def receive(self, data: bytes, packet: int, time_ns: int) -> None:
        if self._conversation.tap is not None:
            self._conversation.tap.receive(self._sender, data, packet, time_ns)
        self._turn.receive(data, packet, time_ns)

    def skip(self, hole: Hole) -> None:
        if self._conversation.tap is not None:
            self._conversation.tap.skip(self._sender, hole)
        self._conversation._take_hole(hole)
        self._turn.skip(hole)
