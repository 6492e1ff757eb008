"""One TCP connection of a device: what was seen of it, as facts. Judgement comes later.

A `Conversation` is fed segments while its packets arrive and is finished once; after that it only holds what the
rules and the reports ask for, and its size no longer depends on how long the connection was.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from analyzer.catalogue import HELLO_FRAMES, NONCE_SIZE, SESSION_SIZE, SMALLEST_FRAME_ON_WIRE
from analyzer.frames import Frame, LostBoundary
from analyzer.handshake import Part, TurnReader
from analyzer.misparse import CoapTcpReader, RowWords
from analyzer.network.units import ACK, FIN, RST, SYN, Segment, address_text
from analyzer.sessionwatch import SessionWatch
from analyzer.streams import COPY_NS, Hole, Quality, Sender, Stream

COPIES: Final = 64
"""Headers remembered per direction to know a packet that the capture holds twice."""
SYNS: Final = 32
"""Requests to connect that are listed; further ones are counted."""
CLOSINGS: Final = 8
"""FINs and RSTs that are listed."""
HOLES: Final = 1000
"""Holes that are listed per conversation; further ones are counted."""
FIRST_FRAMES: Final = 16
LAST_FRAMES: Final = 64
"""Frames at both ends of a session that are kept with packet and time; those between are counted by size."""
SIZES: Final = 80
"""Distinct frame sizes counted; there are 64 legal ones."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A packet worth naming: number, time (ns since 1970) and, where it matters, its time to live."""

    packet: int
    time_ns: int
    ttl: int = 0


@dataclass(frozen=True, slots=True)
class Closing:
    """A FIN or RST."""

    sender: Sender
    how: str  # "fin" or "rst"
    packet: int
    time_ns: int
    ttl: int

    def __str__(self) -> str:
        return f"{self.sender}-{self.how}"


@dataclass(slots=True)
class Endpoint:
    """One end of a conversation. ``mac`` is known only on the device's own network; ``id`` needs a key or an
    announcement."""

    address: bytes
    port: int
    mac: bytes | None = None
    id: str | None = None

    @property
    def ip(self) -> str:
        """The address as text."""
        return address_text(self.address)


@dataclass(frozen=True, slots=True)
class FrameSeen:
    """What is remembered of one frame: ``size`` in bytes on the wire."""

    sender: Sender
    index: int
    size: int
    packet: int
    time_ns: int
    follows_gap: bool = False
    dead: str | None = None  # what a dead-key frame says, e.g. "Ping"


@dataclass(slots=True)
class Side:
    """What one end did."""

    quality: Quality = field(default_factory=Quality)
    captured: int = 0  # stream bytes in the capture
    sent: int = 0  # stream bytes known to have been sent, in holes or captured
    acked: int = 0  # of these, acknowledged by the peer
    frames: int = 0
    sizes: Counter[int] = field(default_factory=Counter)
    first_data: Seen | None = None
    first_size: int = 0
    last_data: Seen | None = None
    last_any: Seen | None = None
    unacked_since: Seen | None = None
    unacked_tries: int = 0
    lost: list[LostBoundary] = field(default_factory=list)
    skipped: int = 0  # bytes that could not be assigned to frames
    rest: int = 0  # bytes of a message that was not finished
    opening: bytes = b""
    parts: list[Part] = field(default_factory=list)
    early: int = 0
    midway: bool = False


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
        self.on_frame: Callable[[Conversation, Frame], str | None] | None = None
        self.tap: StreamTap | None = None
        self._isn: dict[Sender, int] = {}
        self._turns = {sender: TurnReader(sender, self._take_frame) for sender in Sender}
        self._streams = {sender: Stream(sender, _Recorder(self, sender, self._turns[sender])) for sender in Sender}
        self._readers = {sender: CoapTcpReader() for sender in Sender}
        self._headers: dict[Sender, deque[tuple[tuple[int | None, int, int, int, int], int, int]]] = {
            sender: deque(maxlen=COPIES) for sender in Sender
        }

    # -- what the tracker asks ------------------------------------------------------------------------------

    def sender_of(self, segment: Segment) -> Sender:
        """Which end sent this segment."""
        device = self.device
        same = segment.source == device.address and segment.source_port == device.port
        return Sender.DEVICE if same else Sender.SERVER

    def continues(self, segment: Segment, window: int) -> bool:
        """Whether sequence and acknowledgement numbers fit what was seen so far (within ``window`` bytes)."""
        sender = self.sender_of(segment)
        own, peer = self._streams[sender], self._streams[sender.peer]
        if own.base is None or abs(own.offset_of(segment.seq) - max(own.next, own.highest)) <= window:
            return True
        if not segment.flags & ACK or peer.base is None:
            return bool(segment.flags & RST)
        return abs(peer.offset_of(segment.ack) - max(peer.next, peer.highest)) <= window

    def accepts_syn(self, segment: Segment, window: int) -> bool:
        """Whether this SYN belongs here: a repeat, or the first one, captured behind a later packet."""
        sender = self.sender_of(segment)
        if sender in self._isn:
            return self._isn[sender] == segment.seq
        stream = self._streams[sender]
        if self.finished or stream.base is None:
            return not self.finished
        return abs(stream.offset_of(segment.seq + 1)) <= window and not stream.base_certain

    @property
    def closed(self) -> bool:
        """Whether both ends have closed, or one has reset the connection."""
        return any(c.how == "rst" for c in self.closings) or len({c.sender for c in self.closings}) == 2

    # -- feeding --------------------------------------------------------------------------------------------

    def copy_of_earlier(self, segment: Segment, sender: Sender) -> bool:
        """Whether the capture already holds this very packet (seen on two interfaces, or by a mirror port)."""
        header = (segment.ip_id or None, segment.seq, segment.ack, segment.flags, segment.length)
        seen = self._headers[sender]
        for earlier, time_ns, interface in seen:
            if earlier == header and (
                segment.ip_id or interface != segment.interface or abs(segment.time_ns - time_ns) <= COPY_NS
            ):
                return True
        seen.append((header, segment.time_ns, segment.interface))
        return False

    def take(self, segment: Segment) -> None:
        """Take the next segment of this connection, in capture order."""
        sender = self.sender_of(segment)
        side, stream, peer = self.sides[sender], self._streams[sender], self._streams[sender.peer]
        self.last_packet = max(self.last_packet, segment.number)
        self.end_ns = max(self.end_ns, segment.time_ns)
        if self.copy_of_earlier(segment, sender):
            stream.quality.copies += 1
            return
        stream.quality.packets += 1
        seen = Seen(segment.number, segment.time_ns, segment.ttl)
        side.last_any = seen
        flags = segment.flags
        if flags & SYN:
            self._take_syn(segment, sender, seen)
        elif stream.base is None:
            self._start_without_syn(segment, sender)
        if flags & ACK and not flags & RST:
            peer.acknowledge(segment.ack, segment.number, segment.time_ns)
            self._note_milestones(sender, seen)
        if segment.length:
            if self.connected is None:
                self.connected = seen
            if side.first_data is None:
                side.first_data, side.first_size = seen, segment.length
            side.last_data = seen
        fresh = stream.take(segment)
        if fresh is not None:
            self._show(sender, segment, fresh)
        if flags & (FIN | RST):
            self._close(sender, "rst" if flags & RST else "fin", seen)
        stream.poll(segment.number, segment.time_ns)
        peer.poll(segment.number, segment.time_ns)

    def take_damaged(self, segment: Segment) -> None:
        """Take a segment whose checksum is wrong although its sender's are right: the last resort for a hole."""
        self._streams[self.sender_of(segment)].set_aside(segment)
        self.last_packet = max(self.last_packet, segment.number)

    def _take_syn(self, segment: Segment, sender: Sender, seen: Seen) -> None:
        self._isn.setdefault(sender, segment.seq)
        self._streams[sender].start_at(segment.seq + 1, certain=True)
        if segment.flags & ACK:
            self._streams[sender.peer].start_at(segment.ack, certain=True)
            if self.syn_ack is None:
                self.syn_ack = seen
            return
        self.syn_count += 1
        if len(self.syns) < SYNS:
            self.syns.append(seen)

    def _start_without_syn(self, segment: Segment, sender: Sender) -> None:
        self._streams[sender].start_at(segment.seq, certain=False)
        if not self.syns and self.syn_ack is None:
            self._turns[sender].begin_midway()

    def _note_milestones(self, sender: Sender, seen: Seen) -> None:
        if sender is not Sender.DEVICE:
            return
        if self.connected is None and self.syn_ack is not None:
            self.connected = seen
        if self.reply_acked is None:
            acked = self._streams[Sender.SERVER].acked
            if self.nonce_acked is None and acked >= NONCE_SIZE:
                self.nonce_acked = seen
            if acked >= NONCE_SIZE + SESSION_SIZE:
                self.reply_acked = seen

    def _close(self, sender: Sender, how: str, seen: Seen) -> None:
        known = any(c.sender is sender and c.how == how for c in self.closings)
        if not known and len(self.closings) < CLOSINGS:
            self.closings.append(Closing(sender, how, seen.packet, seen.time_ns, seen.ttl))

    def _show(self, sender: Sender, segment: Segment, offset: int) -> None:
        self.rows.take(self._readers[sender].receive(segment.payload, segment.number, max(0, offset)))

    def _take_hole(self, hole: Hole) -> None:
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
            if turn.frames is not None:
                side.lost, side.skipped, side.rest = (
                    turn.frames.lost,
                    turn.frames.skipped,
                    turn.frames.pending,
                )
        self.watch.finish()
        self.finished = True
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
    def closed_by(self) -> str:
        """The first FIN or RST in the capture as ``device-fin`` and so on, else ``none``."""
        return str(self.closings[0]) if self.closings else "none"

    @property
    def quality(self) -> tuple[Quality, Quality]:
        """What happened to the packets of the device and of the server."""
        return self.sides[Sender.DEVICE].quality, self.sides[Sender.SERVER].quality

    def live_frames(self, sender: Sender) -> int:
        """Complete frames of that sender, without dead-key frames."""
        return self.sides[sender].frames - sum(1 for f in self.dead_frames if f.sender is sender)

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
        return next((f for f in self.first_frames if f.sender is Sender.SERVER), None)

    @property
    def reached(self) -> str:
        """How far the connection got, by what the bytes prove (missing ones included when acknowledged)."""
        device, server = self.sides[Sender.DEVICE], self.sides[Sender.SERVER]
        frames = self.live_frames(Sender.DEVICE), self.live_frames(Sender.SERVER)
        if self.midway and (device.midway or server.midway) and any(frames):
            return "established"
        if self.kind not in ("spark", "empty"):
            return "connected"
        nonce, identity, session = (self.part(kind) for kind in ("nonce", "identity", "session"))
        if session is not None and session.complete:
            beyond = NONCE_SIZE + SESSION_SIZE + SMALLEST_FRAME_ON_WIRE
            if frames[0] or device.skipped:
                if frames[1] or server.sent >= beyond:
                    return "established"
                return "hello" if self.hello or device.skipped else "session"
            if server.sent >= beyond and device.sent >= 256 + SMALLEST_FRAME_ON_WIRE and not self.dead_frames:
                return "established"
            return "session"
        if identity is not None and identity.complete and nonce is not None and nonce.complete:
            return "identity"
        if nonce is not None and nonce.complete:
            return "nonce"
        return "connected" if self.connected is not None or self.midway else "syn"


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
