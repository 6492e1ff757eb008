"""One TCP connection of a device: what was seen of it, as facts. Judgement comes later.

A `Conversation` is fed segments while its packets arrive and is finished once; after that it only holds what the
rules and the reports ask for, and its size no longer depends on how long the connection was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import lru_cache
from io import BytesIO
from operator import attrgetter
from pickle import HIGHEST_PROTOCOL, Pickler, Unpickler
from struct import Struct
from typing import TYPE_CHECKING, Final, Protocol
from zlib import compressobj, decompressobj

from analyzer.catalogue import HELLO_FRAMES, IDENTITY_SIZE, NONCE_SIZE, SESSION_SIZE, SMALLEST_FRAME_ON_WIRE
from analyzer.cold import WARM_ONES, packed, unpacked
from analyzer.copies import COPY_NS
from analyzer.frames import Frame
from analyzer.handshake import Part, TurnReader
from analyzer.lane import Lane
from analyzer.misparse.words import RowsSeen, RowWords
from analyzer.network.units import ACK, FIN, RST, SYN, Segment
from analyzer.seen import (
    FIRST,
    FIRST_FRAMES,
    FRAME,
    FRAME_SIZE,
    FRAMES_HELD,
    LAST,
    LAST_FRAMES,
    NO_FRAMES,
    Closing,
    Endpoint,
    FrameSeen,
    Kept,
    Seen,
    Side,
    frame_kind,
    frames_seen,
)
from analyzer.sessionwatch import NOTHING_SEEN, SessionWatch
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
DEAD_FRAMES: Final = 1000
"""Dead-key frames that are listed per conversation; further ones are counted. A device sends three a minute."""

KEPT: Final = tuple(field.name for field in fields(Kept) if field.name != "edges")

Edge = tuple[int | None, int, int | None]
"""Of one direction: sequence number of the first byte, offset behind the furthest byte, offset of the FIN."""
_NEVER: Final = -(1 << 63)
_EDGES: Final = Struct("<8q")
"""The initial number (-1 for none) and the edge of either end: what late packets are known by."""


def _of_kept(name: str) -> property:
    """Return what stands for an attribute of `Kept` on its conversation."""
    return property(attrgetter(f"kept.{name}"))


class StreamTap(Protocol):
    """Somebody who wants the bytes of both directions as TCP delivered them."""

    def receive(self, sender: Sender, data: bytes, packet: int, time_ns: int) -> None:
        """Take the next bytes of one direction, all from one packet."""

    def skip(self, sender: Sender, hole: Hole) -> None:
        """Take note of missing bytes."""


class _Reading:
    """What a conversation has only while its packets come."""

    __slots__ = ("damaged", "device", "early_acks", "isn", "last_hole", "opening_untimed", "rows", "server")

    def __init__(self, conversation: Conversation) -> None:
        self.rows = RowWords()
        self.device, self.server = (_lane(conversation, sender, self.rows) for sender in Sender)
        self.device.peer, self.server.peer = self.server.stream, self.device.stream
        self.isn: dict[Sender, int] = {}
        self.opening_untimed = False  # which SYN, or where it was captured, is uncertain
        self.damaged: tuple[Segment, ...] = ()  # set aside, the last `ASIDE_PIECES`
        self.last_hole: dict[Sender, Hole] = {}
        self.early_acks: list[tuple[int, Seen]] = []

    def lane(self, sender: Sender) -> Lane:
        return self.device if sender is _DEVICE else self.server


class Conversation:
    """One TCP connection, from its SYN (or the first packet in the capture) to its end."""

    __slots__ = (
        "__weakref__",
        "_frozen",
        "_packed",
        "_reached",
        "_reading",
        "dead_words",
        "device",
        "end_ns",
        "finished",
        "first_packet",
        "hole_count",
        "kept",
        "kind",
        "last_packet",
        "lingering",
        "messages",
        "number",
        "on_frame",
        "recognised",
        "secrets",
        "server",
        "start_ns",
        "tap",
        "watch",
    )

    def __init__(self, number: int, device: Endpoint, server: Endpoint, segment: Segment) -> None:
        self.number = number
        self.device = device
        self.server = server
        self.first_packet = self.last_packet = segment.number
        self.start_ns = self.end_ns = segment.time_ns
        self.kept = Kept()
        self.hole_count = 0
        self.dead_words: tuple[str, ...] = ()
        self.watch = SessionWatch()
        self.kind = "empty"
        self.finished = False
        self.lingering = False  # closed, but open for late packets
        self.on_frame: Callable[[Conversation, Frame], str | None] | None = None
        self.tap: StreamTap | None = None
        self.secrets: Secrets | None = None  # what keys told, when there were any
        self.messages: list[SparkMessage] = ()  # type: ignore[assignment]  # a sequence is all that anybody needs
        self.recognised: Recognition | None = None  # what its two ends can be
        self._frozen: bytes | None = None
        self._packed: bytes | None = None
        self._reached: str | None = None  # once nothing more comes
        self._reading: _Reading | None = (reading := _Reading(self))
        self.kept.device_side, self.kept.server_side = reading.device.side, reading.server.side

    if TYPE_CHECKING:
        closings: Sequence[Closing]
        connected: Seen | None
        dead_frames: Sequence[FrameSeen]
        device_side: Side
        framed: bytearray
        holes: Sequence[Hole]
        nonce_acked: Seen | None
        reply_acked: Seen | None
        rows: RowsSeen
        server_hello: FrameSeen | None
        server_side: Side
        syn_ack: Seen | None
        syn_count: int
        syns: Sequence[Seen]
    else:
        closings, connected, dead_frames, device_side, framed, holes, nonce_acked = map(_of_kept, KEPT[:7])
        reply_acked, rows, server_hello, server_side, syn_ack, syn_count, syns = map(_of_kept, KEPT[7:])

    @property
    def sides(self) -> dict[Sender, Side]:
        """What each end did."""
        return {_DEVICE: self.device_side, _SERVER: self.server_side}

    # -- a long silence ---------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Shrink to a fraction while nothing comes. It is the tracker that must `thaw` it before anything else."""
        if self._reading is not None:
            packer = compressobj(1, zdict=_pattern())
            frozen = packer.compress(self._stored()) + packer.flush()
            if self._has_no_more_to_tell:
                on_frame = self.on_frame
                self.finish()
                self._packed, self.on_frame, self.finished = packed(self), on_frame, False
            self._frozen, self._reading, self.watch = frozen, None, NOTHING_SEEN
            del self.kept

    def thaw(self) -> None:
        """Be again what it was before `freeze`."""
        if self._frozen is not None:
            self._reading, self.watch, self.kept = self._thawed(self._frozen)
            self._frozen = self._packed = None

    @property
    def _has_no_more_to_tell(self) -> bool:
        """Whether it brought no data so far: then it can be known already what it will be if nothing comes any more,
        as it is with nearly all that are silent, and it need not be thawed for that.
        """
        streams = [lane.stream for lane in self.lanes]
        return self.tap is None and not any(stream.highest or stream.acked or stream.waits for stream in streams)

    def _thawed(self, frozen: bytes) -> tuple[_Reading, SessionWatch, Kept]:
        stored = decompressobj(zdict=_pattern()).decompress(frozen)
        what: tuple[_Reading, SessionWatch, Kept] = _Thawer(BytesIO(stored), self).load()
        return what

    @property
    def incomplete(self) -> bool:
        """Whether bytes are missing by now before others that have come: they may still be on their way."""
        reading = self._reading
        return reading is not None and (reading.device.stream.waits or reading.server.stream.waits)

    def so_far(self) -> Conversation:
        """Return what this conversation would be, finished, if no packet followed; this one goes on as it is."""
        copy: Conversation = object.__new__(Conversation)
        for name in self._travels:
            setattr(copy, name, getattr(self, name))
        copy.device = replace(self.device)
        copy.on_frame = copy.tap = None
        if self._reading is not None:
            copy._reading, copy.watch, copy.kept = _Thawer(BytesIO(self._stored()), copy).load()
        copy.finish()
        return copy

    @property
    def stored_size(self) -> int:
        """Bytes in which it is stored, 0 while it is not."""
        return len(self._frozen or b"")

    # -- the long time after its end --------------------------------------------------------------------------

    def settle(self) -> None:
        """Say that all is known of it: it is finished, and of which kind. It must not be changed any more."""
        self._reached = self.reached
        WARM_ONES.hold(self)

    def has_changed(self) -> None:
        """Say that something of what it keeps was just changed after all, so that it is packed anew."""
        with suppress(AttributeError):
            object.__getattribute__(self, "kept")
            self._packed = None

    def cool(self) -> None:
        """Shrink to a fraction, until somebody asks for more than is at hand then."""
        if self._reached is None:
            return
        if self._packed is None:
            self._packed = packed(self)
        with suppress(AttributeError):  # it has shrunk already
            del self.kept

    if not TYPE_CHECKING:  # which would take any name for an attribute

        def __getattr__(self, name: str) -> Kept:
            """Be whole again: something is asked for that `cool` has packed."""
            if name == "kept" and self._frozen is not None:  # for as long as it takes to look
                return self._thawed(self._frozen)[2]
            if name != "kept" or self._packed is None:
                raise AttributeError(name)
            self.kept = kept = unpacked(self._packed, self.first_packet, self.start_ns)
            WARM_ONES.hold(self)
            return kept

    def __getstate__(self) -> tuple[None, dict[str, object]]:
        """Travel packed."""
        if self._reached is not None:
            self.cool()
        return None, {name: getattr(self, name) for name in self._travels}

    @property
    def _travels(self) -> list[str]:
        """The names of what there is of it at the moment."""
        packed = self._packed is not None or self._frozen is not None
        return [name for name in self.__slots__[1:] if name != "kept" or not packed]

    def _stored(self) -> bytes:
        file = BytesIO()
        pickler = Pickler(file, HIGHEST_PROTOCOL)
        pickler.dispatch_table = {Conversation: lambda _: (_whose, ())}
        pickler.dump((self._reading, self.watch, self.kept))
        return file.getvalue()

    # -- what the tracker asks ------------------------------------------------------------------------------

    def sender_of(self, segment: Segment) -> Sender:
        """Which end sent this segment."""
        device = self.device
        same = segment.source == device.address and segment.source_port == device.port
        return _DEVICE if same else _SERVER

    @property
    def lanes(self) -> tuple[Lane, Lane]:
        """The directions of the device and of the server, while packets come."""
        return self._live.device, self._live.server

    @property
    def damaged(self) -> bool:
        """Whether segments with a wrong checksum are set aside here."""
        return self._reading is not None and bool(self._reading.damaged)

    def distance(self, segment: Segment, window: int) -> int | None:
        """How far sequence and acknowledgement numbers lie from what was seen so far, in bytes.

        None when they belong to another connection: both beyond ``window``, or more data after a FIN.
        """
        sender = self.sender_of(segment)
        base, end, fin_offset = self._edge(sender)
        peer_base, peer_end, _ = self._edge(sender.peer)
        apart = acked = None
        if base is not None:
            offset = offset_near(base, end, segment.seq)
            if fin_offset is not None and segment.length > 1 and offset >= fin_offset:
                return None
            apart = abs(offset - end)
        if segment.flags & ACK and peer_base is not None:
            acked = abs(offset_near(peer_base, peer_end, segment.ack) - peer_end)
        if apart is None or (apart > window and not segment.flags & RST):
            # An endpoint takes no reset whose sequence number does not fit, so the other number counts for nothing.
            return acked if acked is None or acked <= window else None
        return apart if apart <= window else None

    def continues(self, segment: Segment, window: int) -> bool:
        """Whether the numbers of a segment fit what was seen so far, or nothing is known to compare them with."""
        sender = self.sender_of(segment)
        if self._reading is not None:
            own = self._reading.lane(sender).stream
            if own.base is not None and own.fin_offset is None:
                ahead = (segment.seq - own.base - own.next) % SEQUENCE_SPACE
                if ahead <= window:  # nearly always
                    return True
        if self.distance(segment, window) is not None:
            return True
        return self._edge(sender)[0] is None and (not segment.flags & ACK or self._edge(sender.peer)[0] is None)

    def accepts_syn(self, segment: Segment) -> bool:
        """Whether this SYN (or SYN-ACK) belongs here: a repeat, or the first one, captured behind a later packet."""
        reading = self._reading
        if reading is None:
            return False
        sender = self.sender_of(segment)
        own, peer, isn = reading.lane(sender).stream, reading.lane(sender.peer).stream, reading.isn
        if segment.flags & ACK and sender.peer in isn and not _follows(segment.ack, isn[sender.peer]):
            return False
        if sender in isn:
            if isn[sender] != segment.seq:
                return False
            # The same number again, long after the handshake, on a connection that has ended: used again. A
            # connection that was refused is tried again with the same number by some systems.
            return not (self.closed and own.highest and not reading.lane(sender).headers.knows(segment))
        if segment.flags & ACK and sender.peer in isn:
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
        if self._reading is None or self.sender_of(segment) is not Sender.SERVER:
            return False
        nonce = self._reading.server.turn.part("nonce")
        if nonce is None or not nonce.complete:
            return False
        stream = self._reading.server.stream
        return stream.offset_of(segment.seq) >= stream.highest

    def _edge(self, sender: Sender) -> Edge:
        if self._reading is None:
            base, end, fin_offset = _EDGES.unpack(self.kept.edges)[1 + 4 * (sender is _SERVER) :][:3]
            return (None if base < 0 else base), end, (None if fin_offset == _NEVER else fin_offset)
        stream = self._reading.lane(sender).stream
        return stream.base, max(stream.next, stream.highest), stream.fin_offset

    @property
    def closed(self) -> bool:
        """Whether both ends have closed, or one has reset the connection. A refusal is no end of it any more once the
        same request was made again and accepted.
        """
        accepted = 0 if self.syn_ack is None else self.syn_ack.packet
        over = [c for c in self.closings if c.packet > accepted]
        return any(c.how == "rst" for c in over) or len({c.sender for c in over}) == 2

    # -- feeding --------------------------------------------------------------------------------------------

    def take(self, segment: Segment) -> None:
        """Take the next segment of this connection, in capture order."""
        self._take(segment)
        self._look()

    def _take(self, segment: Segment) -> None:
        reading = self._live
        sender = self.sender_of(segment)
        lane = reading.lane(sender)
        side, stream, peer = lane.side, lane.stream, lane.peer
        number, time_ns, flags = segment.number, segment.time_ns, segment.flags
        self.last_packet = max(self.last_packet, number)
        self.end_ns = max(self.end_ns, time_ns)
        if lane.headers.repeats(segment):
            # The capture already holds this very packet: seen on two interfaces, or by a mirror port.
            stream.quality.copies += 1
            stream.compare(segment)
            if flags & SYN:
                first = self.kept.syn_ack if flags & ACK else self.kept.syns[0] if self.kept.syns else None
                reading.opening_untimed |= first is not None and abs(time_ns - first.time_ns) > COPY_NS
            return
        stream.quality.packets += 1
        mark = lane.last_any = number, time_ns, segment.ttl
        seen = Seen(*mark)
        if flags & SYN:
            self._take_syn(segment, sender, seen)
        elif stream.base is None:
            self._start_without_syn(lane)
        if flags & ACK and not flags & RST:
            if peer.base is None:
                self._start_without_syn(reading.lane(sender.peer))
            rtt = peer.acknowledge(segment.ack, number, time_ns)
            # One that comes out of turn has itself been late, or those before it are missing.
            if rtt is not None and (
                stream.base is None or (segment.seq - stream.base - stream.next) % SEQUENCE_SPACE == 0
            ):
                side.round_trips.add(rtt)
            if sender is _DEVICE and self.kept.reply_acked is None:
                self.note_milestones(segment, seen)
        # Before the segment is taken: a keep-alive probe repeats the last byte, which may be one to give up on.
        stream.poll(number, time_ns)
        peer.poll(number, time_ns)
        if segment.length and not flags & RST:
            if self.kept.connected is None:
                self.kept.connected = seen
            if side.first_data is None:
                side.first_data, side.first_size = seen, segment.length
            lane.last_data = mark
        fresh = stream.take(segment)
        if fresh is not None:
            reading.rows.take(lane.coap.receive(segment.payload, number, max(0, fresh)))
        if flags & (FIN | RST):
            self._close(sender, "rst" if flags & RST else "fin", seen)

    def take_damaged(self, segment: Segment) -> None:
        """Set aside a segment whose checksum is wrong although its sender's are right; its place is remembered."""
        reading = self._live
        lane = reading.lane(self.sender_of(segment))
        lane.stream.set_aside(segment)
        lane.peer.untime()  # its acknowledgement is lost
        reading.damaged = (*reading.damaged, segment)[-ASIDE_PIECES:]
        self.last_packet = max(self.last_packet, segment.number)
        self._look()

    def trust_damaged(self, source: bytes) -> None:
        """Take back what was set aside of that sender: most of its checksums are wrong after all."""
        reading = self._live
        aside, reading.damaged = reading.damaged, ()
        for segment in aside:
            if segment.source == source:
                reading.lane(self.sender_of(segment)).stream.quality.set_aside -= 1
                self._take(segment)
            else:
                reading.damaged += (segment,)
        self._look()

    def _look(self) -> None:
        """Tell whether the next packet may go the straight way."""
        reading = self._live
        one, other = reading.device, reading.server
        device, server = one.stream, other.stream
        calm = (
            device.fin_offset is None
            and server.fin_offset is None
            and not device.waits
            and not server.waits
            and not reading.damaged
            and not device.strange_ack
            and not server.strange_ack
        )
        one.look(calm=calm)
        other.look(calm=calm)

    def _take_syn(self, segment: Segment, sender: Sender, seen: Seen) -> None:
        reading = self._live
        own, other = reading.lane(sender), reading.lane(sender.peer)
        reading.isn.setdefault(sender, segment.seq)
        own.stream.start_at(segment.seq + 1, certain=True)
        own.turn.begin()
        if segment.flags & ACK:
            other.stream.start_at(segment.ack, certain=True)
            other.turn.begin()
            if self.kept.syn_ack is None:
                self.kept.syn_ack = seen
                if self.kept.syn_count == 1 and not reading.opening_untimed:
                    own.side.round_trips.add(seen.time_ns - self.kept.syns[0].time_ns)
            else:
                reading.opening_untimed = True
            return
        self.kept.syn_count += 1
        if len(self.kept.syns) < SYNS:
            self.kept.syns = (*self.kept.syns, seen)

    def _start_without_syn(self, lane: Lane) -> None:
        """The first number of a direction comes from something else than its SYN: how it begins is to be seen."""
        lane.turn.begin_midway(likely=not self.midway)

    def note_milestones(self, segment: Segment, seen: Seen) -> None:
        """Note when the device acknowledged what; the segment is one of its acknowledgements."""
        if segment.flags & SYN:
            return
        reading = self._live
        if self.kept.connected is None and not self.midway:
            self.kept.connected = seen  # only who has the SYN-ACK can acknowledge anything
            if self.kept.syn_ack is not None and not reading.opening_untimed and not segment.length:
                self.kept.device_side.round_trips.add(seen.time_ns - self.kept.syn_ack.time_ns)
        if len(reading.early_acks) < EARLY_ACKS:
            reading.early_acks.append((segment.ack, seen))
        if reading.server.turn.started is not None:
            self._weigh_acks(reading)

    def _weigh_acks(self, reading: _Reading) -> None:
        """Tell what the acknowledgements were of, now that it is known how the server's bytes begin."""
        stream, before = reading.server.stream, reading.server.turn.before
        for ack, seen in reading.early_acks:
            acked = before + min(stream.offset_of(ack), stream.acked)
            if self.kept.nonce_acked is None and acked >= NONCE_SIZE:
                self.kept.nonce_acked = seen
            if self.kept.reply_acked is None and acked >= NONCE_SIZE + SESSION_SIZE:
                self.kept.reply_acked = seen
        reading.early_acks.clear()

    def _close(self, sender: Sender, how: str, seen: Seen) -> None:
        known = any(c.sender is sender and c.how == how for c in self.kept.closings)
        if not known and len(self.kept.closings) < CLOSINGS:
            self.kept.closings = (*self.kept.closings, Closing(sender, how, seen.packet, seen.time_ns, seen.ttl))

    def take_hole(self, hole: Hole) -> None:
        """List a hole. What was acknowledged in steps is one hole if nothing was captured between them."""
        last_hole = self._live.last_hole
        last = last_hole.get(hole.sender)
        joins = last is not None and last.reason is hole.reason and last.offset + last.length == hole.offset
        if last is not None and joins and hole.reason is not HoleReason.CUT:  # of cut packets each is told
            last.length += hole.length
            return
        last_hole[hole.sender] = hole = replace(hole)
        self.hole_count += 1
        if len(self.kept.holes) < HOLES:
            self.kept.holes = (*self.kept.holes, hole)

    def take_frame(self, frame: Frame) -> None:
        """Take the next frame of a sender, as it is cut."""
        side = self.kept.device_side if frame.sender is _DEVICE else self.kept.server_side
        side.frames += 1
        side.longest = max(side.longest, frame.size)
        dead = self.on_frame(self, frame) if self.on_frame else None
        self.note_frame(
            FrameSeen(frame.sender, frame.index, frame.size, frame.packet, frame.time_ns, frame.follows_gap, dead)
        )

    def note_frame(self, seen: FrameSeen) -> None:
        """Remember a frame that is already counted among its sender's."""
        framed, dead = self.kept.framed, seen.dead
        if len(framed) < FIRST and self.kept.server_hello is None and seen.sender is _SERVER:
            self.kept.server_hello = seen
        if len(framed) >= FRAMES_HELD:
            del framed[FIRST:-LAST]
        if dead and dead not in self.dead_words:
            self.dead_words = (*self.dead_words, dead)
        kind = frame_kind(seen.sender, follows_gap=seen.follows_gap)
        which = self.dead_words.index(dead) + 1 if dead else 0
        beyond, time_ns = divmod(seen.time_ns, 1 << 64)
        framed += FRAME(kind, which, seen.size, seen.index, seen.packet, time_ns, beyond)
        if not dead:
            self.watch.take(seen)
            return
        (self.kept.device_side if seen.sender is _DEVICE else self.kept.server_side).dead += 1
        if len(self.kept.dead_frames) < DEAD_FRAMES:
            self.kept.dead_frames = (*self.kept.dead_frames, seen)

    def finish(self) -> None:
        """Close the books: deliver what waited, keep the results as small as they get, let all else go."""
        if self._packed is not None and not self.finished:
            self._frozen, self.finished, self.on_frame = None, True, None
            return
        self.thaw()
        reading = self._reading
        if reading is None:
            return
        for lane in self.lanes:
            lane.stream.finish(self.last_packet, self.end_ns)
        for lane in self.lanes:
            lane.turn.finish()
        self._weigh_acks(reading)
        edges: list[int] = []
        for lane in self.lanes:
            lane.finish()
            base, end, fin_offset = self._edge(lane.sender)
            isn = reading.isn.get(lane.sender)
            edges += (-1 if isn is None else isn, -1 if base is None else base, end)
            edges.append(_NEVER if fin_offset is None else fin_offset)
        self.kept.edges = _EDGES.pack(*edges)
        self.kept.device_side, self.kept.server_side = reading.device.side.kept(), reading.server.side.kept()
        framed = self.framed
        if len(framed) > FIRST + LAST:
            del framed[FIRST:-LAST]
        self.kept.framed = bytearray(framed) if framed else NO_FRAMES  # without the room for more
        self.watch = self.watch.finish()
        self.kept.rows = reading.rows.finish()
        self.finished = True
        self._reading = None
        self.on_frame = self.tap = None

    @property
    def _live(self) -> _Reading:
        assert self._reading is not None  # noqa: S101 - the tracker asks before it gives more
        return self._reading

    # -- what the rules and reports ask ---------------------------------------------------------------------

    def part(self, kind: str) -> Part | None:
        """Return a handshake message of which anything is known, or None. Before `finish` too."""
        reading = self._reading
        if reading is None:
            parts = self.device_side.parts if kind == "identity" else self.server_side.parts
        else:
            parts = reading.device.turn.parts if kind == "identity" else reading.server.turn.parts
        for part in parts:  # asked with each frame that waits for a key: a generator would cost more
            if part.kind == kind:
                return part if part.first_packet else None
        return None

    @property
    def midway(self) -> bool:
        """Whether the capture began when this connection was already under way."""
        return not self.syns and self.syn_ack is None

    @property
    def initial_numbers(self) -> dict[Sender, int]:
        """The TCP sequence numbers of the SYNs in the capture, by end."""
        if self._reading is not None:
            return dict(self._reading.isn)
        known = _EDGES.unpack(self.kept.edges)
        return {sender: number for sender, number in ((_DEVICE, known[0]), (_SERVER, known[4])) if number >= 0}

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
        return self.device_side.quality, self.server_side.quality

    def live_frames(self, sender: Sender) -> int:
        """Complete frames of that sender, without dead-key frames."""
        side = self.device_side if sender is _DEVICE else self.server_side
        return side.frames - side.dead

    @property
    def hello(self) -> FrameSeen | None:
        """The device's first frame after the session offer, when it can be a hello."""
        for frame in self.first_frames:
            if frame.sender is Sender.DEVICE and not frame.dead:
                return frame if frame.size in HELLO_FRAMES and frame.index == self.device_side.early else None
        return None

    @property
    def first_frames(self) -> tuple[FrameSeen, ...]:
        """The first frames of both ends."""
        return frames_seen(bytes(self.framed[: FIRST_FRAMES * FRAME_SIZE]), self.dead_words)

    @property
    def last_frames(self) -> tuple[FrameSeen, ...]:
        """The last frames of both ends, which may be among the first as well."""
        return frames_seen(bytes(self.framed[-LAST_FRAMES * FRAME_SIZE :]), self.dead_words)

    @property
    def reached(self) -> str:
        """How far the connection got, by what the bytes prove (missing ones included when acknowledged)."""
        if self._reached is not None:
            return self._reached
        if self.kind not in ("spark", "empty"):
            return "connected"
        device, server = self.device_side, self.server_side
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


def _lane(conversation: Conversation, sender: Sender, rows: RowWords) -> Lane:
    turn = TurnReader(sender, conversation.take_frame)
    return Lane(conversation, rows, turn, Stream(sender, _Recorder(conversation, sender, turn)))


@lru_cache(maxsize=1)
def _pattern() -> bytes:
    """What all stored conversations have in common: it need not be stored with each."""
    nobody = Endpoint(b"", 0)
    syn = Segment(0, 0, 0, b"", 0, b"", 0, 0, 0, SYN, 0, 0, b"", 0, 0, None, None, b"", True)
    conversation = Conversation(0, nobody, nobody, syn)
    conversation.take(syn)
    return conversation._stored()


def _whose() -> Conversation:
    """Stands for the conversation itself in what is stored of it (see `_Thawer`)."""
    raise AssertionError


class _Thawer(Unpickler):
    """Reads what `Conversation.freeze` has stored."""

    def __init__(self, file: BytesIO, conversation: Conversation) -> None:
        super().__init__(file)
        self._conversation = conversation

    def find_class(self, module: str, name: str) -> object:
        """Return what a stored name stands for."""
        return (lambda: self._conversation) if name == _whose.__name__ else super().find_class(module, name)


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
        self._conversation.take_hole(hole)
        self._turn.skip(hole)
