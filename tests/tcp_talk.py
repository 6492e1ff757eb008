"""A believable TCP conversation, segment by segment, and what the analyzer makes of any capture of it."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

from analyzer.conversation import Conversation
from analyzer.frames import Frame
from analyzer.kinds import kind_of
from analyzer.network.units import ACK, FIN, PSH, RST, SYN, Segment
from analyzer.streams import Hole, Sender
from analyzer.tracker import Tracker

DEVICE, SERVER = Sender.DEVICE, Sender.SERVER
DEVICE_END = (bytes((192, 168, 1, 104)), 1988)
SERVER_END = (bytes((54, 208, 229, 4)), 5683)
MS = 1_000_000
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
SPACE = 1 << 32


def frame(rng: random.Random, blocks: int = 1) -> bytes:
    """One frame as it is on the wire; its contents mean nothing."""
    return (16 * blocks).to_bytes(2, "big") + rng.randbytes(16 * blocks)


class Talk:
    """Writes down what two ends send. The clock stands still unless told to `wait`; numbers come at the end."""

    def __init__(
        self,
        *,
        device_isn: int = 1000,
        server_isn: int = 700_000,
        seed: int = 1,
        gap_ns: int = 5 * MS,
        device_end: tuple[bytes, int] = DEVICE_END,
        server_end: tuple[bytes, int] = SERVER_END,
        start_ns: int = START,
    ) -> None:
        self.rng = random.Random(seed)
        self.now = start_ns
        self.gap_ns = gap_ns
        self.ends = {DEVICE: device_end, SERVER: server_end}
        self.isn = {DEVICE: device_isn, SERVER: server_isn}
        self.next = {DEVICE: device_isn, SERVER: server_isn}
        self.sent = {DEVICE: b"", SERVER: b""}
        self.frames: dict[Sender, list[bytes]] = {DEVICE: [], SERVER: []}  # ciphertexts
        self.segments: list[Segment] = []
        self._id = 0

    def wait(self, ns: int) -> None:
        self.now += ns

    def packet(
        self, sender: Sender, flags: int = ACK, payload: bytes = b"", *, seq: int | None = None, ack: int | None = None
    ) -> Segment:
        """Any packet, without moving on what the sender has sent."""
        self.now += self.gap_ns
        self._id += 1
        source, target = self.ends[sender], self.ends[sender.peer]
        segment = Segment(
            number=len(self.segments) + 1,
            time_ns=self.now,
            interface=0,
            source=source[0],
            source_port=source[1],
            target=target[0],
            target_port=target[1],
            seq=(self.next[sender] if seq is None else seq) % SPACE,
            ack=((self.next[sender.peer] if ack is None else ack) if flags & ACK else 0) % SPACE,
            flags=flags,
            window=5840,
            length=len(payload),
            payload=payload,
            ttl=64,
            ip_id=self._id,
            source_mac=None,
            target_mac=None,
            tcp=b"",
            whole=False,
        )
        self.segments.append(segment)
        return segment

    def open(self) -> Talk:
        self.syn()
        self.syn_ack()
        self.packet(DEVICE)
        return self

    def syn(self) -> Segment:
        segment = self.packet(DEVICE, SYN, seq=self.isn[DEVICE])
        self.next[DEVICE] = self.isn[DEVICE] + 1
        return segment

    def syn_ack(self) -> Segment:
        segment = self.packet(SERVER, SYN | ACK, seq=self.isn[SERVER])
        self.next[SERVER] = self.isn[SERVER] + 1
        return segment

    def send(self, sender: Sender, data: bytes, cuts: Sequence[int] = (), *, acked: bool = True) -> None:
        """Send data in one segment, or in several cut at these places; the peer acknowledges the last."""
        places = sorted({0, len(data), *(cut for cut in cuts if 0 < cut < len(data))})
        for begin, end in itertools.pairwise(places):
            self.packet(sender, ACK | PSH, data[begin:end])
            self.next[sender] += end - begin
        self.sent[sender] += data
        if acked:
            self.packet(sender.peer)

    def send_frames(self, sender: Sender, *blocks: int, cuts: Sequence[int] = ()) -> None:
        """Send frames of these many blocks together."""
        frames = [frame(self.rng, count) for count in blocks]
        self.frames[sender] += [one[2:] for one in frames]
        self.send(sender, b"".join(frames), cuts)

    def handshake(self) -> Talk:
        """The three messages that open every connection."""
        self.send(SERVER, self.rng.randbytes(40))
        self.send(DEVICE, self.rng.randbytes(256))
        self.send(SERVER, self.rng.randbytes(384))
        return self

    def hello(self) -> Talk:
        self.send_frames(DEVICE, 1)
        self.send_frames(SERVER, 1)
        return self

    def fin(self, sender: Sender) -> Segment:
        segment = self.packet(sender, FIN | ACK)
        self.next[sender] += 1
        return segment

    def rst(self, sender: Sender) -> Segment:
        return self.packet(sender, RST | ACK)

    def close(self, first: Sender = DEVICE) -> Talk:
        self.fin(first)
        self.packet(first.peer)
        self.fin(first.peer)
        self.packet(first)
        return self

    def part(self, kind: str) -> bytes:
        begin, end = {"nonce": (0, 40), "identity": (0, 256), "session": (40, 424)}[kind]
        return self.sent[DEVICE if kind == "identity" else SERVER][begin:end]


def healthy(*, seed: int = 1, device_isn: int = 1000, server_isn: int = 700_000) -> Talk:
    """A whole session: both hellos, some frames each way in one or several packets, and the end."""
    talk = Talk(seed=seed, device_isn=device_isn, server_isn=server_isn).open().handshake().hello()
    for blocks in (1, 3, 2):
        talk.send_frames(DEVICE, blocks, 1)
        talk.send_frames(SERVER, 4, blocks)
    talk.send_frames(SERVER, 33, cuts=(200,))
    return talk.close()


def sent_by(segment: Segment) -> Sender:
    return DEVICE if segment.target_port == 5683 else SERVER


def copy_of(segment: Segment, *, later_ns: int = 0, interface: int = 0) -> Segment:
    """The same packet captured once more."""
    return replace(segment, time_ns=segment.time_ns + later_ns, interface=interface)


def captured(segments: Iterable[Segment]) -> list[Segment]:
    """The segments in the order of their times, numbered."""
    ordered = sorted(segments, key=lambda segment: segment.time_ns)
    return [replace(segment, number=number) for number, segment in enumerate(ordered, 1)]


@dataclass
class Heard:
    """What the analyzer delivered of one conversation."""

    conversation: Conversation
    frames: list[Frame] = field(default_factory=list)
    data: dict[Sender, list[tuple[int, bytes]]] = field(default_factory=lambda: {DEVICE: [], SERVER: []})
    holes: dict[Sender, list[Hole]] = field(default_factory=lambda: {DEVICE: [], SERVER: []})
    offset: dict[Sender, int] = field(default_factory=lambda: {DEVICE: 0, SERVER: 0})

    def receive(self, sender: Sender, data: bytes, packet: int, time_ns: int) -> None:
        self.data[sender].append((self.offset[sender], data))
        self.offset[sender] += len(data)

    def skip(self, sender: Sender, hole: Hole) -> None:
        assert hole.offset == self.offset[sender]
        assert hole.length > 0
        self.holes[sender].append(hole)
        self.offset[sender] += hole.length

    def stream(self, sender: Sender) -> bytes:
        """All bytes, with zeros for the holes."""
        whole = bytearray(self.offset[sender])
        for offset, data in self.data[sender]:
            whole[offset : offset + len(data)] = data
        return bytes(whole)

    def ciphertexts(self, sender: Sender) -> list[bytes | None]:
        return [one.ciphertext for one in self.frames if one.sender is sender]

    def part(self, kind: str) -> bytes | None:
        part = self.conversation.part(kind)
        return None if part is None else part.data

    def gaps(self, sender: Sender) -> list[tuple[int, int]]:
        """Offset and length of the listed holes."""
        return [(hole.offset, hole.length) for hole in self.conversation.holes if hole.sender is sender]


class Listener:
    """A tracker with somebody who writes down all that comes out."""

    def __init__(self, ports: Iterable[int] = (5683,)) -> None:
        self.heard: list[Heard] = []
        self.ended: list[Conversation] = []
        self.tracker = Tracker(ports, self._begun, self._ended)

    def _begun(self, conversation: Conversation) -> None:
        heard = Heard(conversation)
        self.heard.append(heard)
        conversation.tap = heard
        conversation.on_frame = lambda _, one: heard.frames.append(one)

    def _ended(self, conversation: Conversation) -> None:
        conversation.kind = kind_of(conversation)
        self.ended.append(conversation)


def listen(segments: Iterable[Segment], ports: Iterable[int] = (5683,)) -> list[Heard]:
    """Track the segments, as captured in the given order."""
    listener = Listener(ports)
    for number, segment in enumerate(segments, 1):
        segment.number = number
        listener.tracker.take(segment)
    listener.tracker.finish()
    return listener.heard


def listen_to_one(segments: Iterable[Segment], ports: Iterable[int] = (5683,)) -> Heard:
    """The same, when all of it must be one conversation."""
    heard = listen(segments, ports)
    assert len(heard) == 1
    return heard[0]


def assert_all_heard(talk: Talk, heard: Heard) -> None:
    """Nothing is missing, and everything is what it was."""
    assert heard.gaps(DEVICE) == heard.gaps(SERVER) == []
    for kind in ("nonce", "identity", "session"):
        assert heard.part(kind) == talk.part(kind)
    for sender in Sender:
        assert heard.stream(sender) == talk.sent[sender]
        assert heard.ciphertexts(sender) == talk.frames[sender]
        side = heard.conversation.sides[sender]
        assert side.captured == side.sent == side.acked == len(talk.sent[sender])
        assert side.skipped == side.rest == 0
        assert not side.lost


def lines_run(work: Callable[[], object]) -> int:
    """How many lines of code it takes: a measure that a busy machine does not change."""
    lines = 0

    def count(_: FrameType, event: str, __: object) -> Callable[..., Any]:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines
