"""TCP reassembly, and what is cut out of the bytes without a key: handshake, frames, other protocols."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

from inert import is_inert
from tcp_talk import MS, SPACE, Heard, Listener

from analyzer.frames import Frame, FrameReader
from analyzer.handshake import TurnReader
from analyzer.kinds import kind_of
from analyzer.misparse.message import datagram_suffix
from analyzer.misparse.old import DATAGRAM_GENERATIONS, old_view
from analyzer.misparse.reader import CoapTcpReader
from analyzer.misparse.words import RowWords
from analyzer.network.units import ACK, FIN, PSH, RST, SYN, Segment
from analyzer.streams import Hole, HoleReason, Sender
from fuzz.script import Script, written
from fuzz.target import target

PERIOD: Final = 65_521
"""A prime near what a sequence number's lower half counts, so that no shift by a round number goes unseen."""
CONTENT: Final = random.Random(5683).randbytes(PERIOD)
ENDS: Final = {
    Sender.DEVICE: (bytes((192, 168, 1, 104)), 49_152),
    Sender.SERVER: (bytes((54, 208, 229, 4)), 5683),
}
STARTS: Final = (1000, SPACE - 300, 0, 0x7FFFFF00, 0x80000000)
WAITS_NS: Final = (0, MS, 20 * MS, 250 * MS, 1_100 * MS, 2_100 * MS, 31_000 * MS, -5 * MS)


def content(sequence: int, size: int) -> bytes:
    """What stands at a sequence number: the same whenever it is sent."""
    begin = sequence % PERIOD
    return (CONTENT[begin:] + CONTENT)[:size]


class Wire:
    """Segments as the script sends them, and which bytes of them were captured."""

    def __init__(self, script: Script) -> None:
        self.isn = {sender: script.pick(STARTS) for sender in Sender}
        self.now, self.count = 1_700_000_000_000_000_000, 0
        self.sent: list[Segment] = []
        self.captured: dict[Sender, list[tuple[int, bytes]]] = {sender: [] for sender in Sender}
        self.script = script

    def segment(self) -> Segment:
        """The next one."""
        script = self.script
        head = script.number()
        sender = Sender.SERVER if head & 1 else Sender.DEVICE
        flags = (ACK, ACK | PSH, ACK, SYN, SYN | ACK, FIN | ACK, RST, ACK | FIN | PSH)[head >> 1 & 7]
        at = script.number(2) - 16 if head & 16 else script.number() - 2
        size = script.number(2) % 1461 if head & 32 else script.number()
        if flags & (SYN | RST):
            size, at = size if head & 64 else 0, 0 if flags & SYN else at
        changed = script.number() if head & 64 and not flags & SYN else 0
        cut = head & 128
        clock = script.number()
        self.now += WAITS_NS[clock & 7]
        sequence = (self.isn[sender] + at) % SPACE
        data = content(sequence, size)
        if changed and data:
            data = bytes((data[0] ^ changed,)) + data[1:]
        if cut:
            data = data[: size // 2]
        ack = (self.isn[sender.peer] + script.number(2)) % SPACE if clock & 8 else 0
        begin = (sequence + 1) % SPACE if flags & SYN else sequence
        if flags & SYN:
            data = content(begin, len(data))
        if not flags & RST:
            self.captured[sender].append((begin, data))
        self.count += 1
        (source, port), (target_, target_port) = ENDS[sender], ENDS[sender.peer]
        made = Segment(
            self.count,
            self.now,
            clock >> 7,
            source,
            port,
            target_,
            target_port,
            sequence,
            ack,
            flags if clock & 8 or not flags & ACK else flags & ~ACK,
            5840,
            size,
            data,
            64,
            self.count if clock & 16 else 7,
            None,
            None,
            b"",
            whole=not cut,
        )
        self.sent.append(made)
        return made

    @property
    def opens(self) -> bool:
        """Whether it begins as TCP does, and only once."""
        if len(self.sent) < 2:
            return False
        syn, answer = self.sent[:2]
        return (
            (syn.flags, answer.flags) == (SYN, SYN | ACK)
            and (syn.source, answer.source) == (answer.target, syn.target)
            and answer.ack == (syn.seq + 1) % SPACE
            and not any(segment.flags & SYN for segment in self.sent[2:])
        )


def talks() -> Iterator[bytes]:
    """Two ends that connect, greet and go on: in order, swapped, again, with holes, cut."""
    opening = bytes((6, 2, 0, 0, 9, 2, 0, 8, 0, 1, 2, 0, 8, 0, 1))
    ordered = b"".join(bytes((1, 3 + at, 40, 8 + 1, 0, 1)) for at in (0, 40, 80, 120, 160))
    far = b"".join(bytes((0x31, at >> 8, at & 255, 5, 180, 9, 0, 1)) for at in (17, 1477, 2937, 4397))
    swapped = b"".join(bytes((1, 3 + at, 40, 8, 0, 1)) for at in (40, 0, 120, 80))
    hole = bytes((1, 3, 40, 8, 0, 1, 1, 103, 40, 8, 0, 1, 0, 3, 0, 13, 0, 240, 1, 203, 40, 12, 0, 1))
    closing = bytes((11, 203, 0, 8, 0, 1, 10, 3, 0, 8, 0, 200))
    for starts in (b"\0\0", b"\1\1", b"\3\4"):
        for middle in (ordered, far, swapped, hole, ordered + ordered, swapped + hole + ordered):
            yield starts + opening + middle + closing
    yield b"\0\0" + ordered + swapped
    yield b"\2\2" + opening + ordered + bytes((0xC1, 3, 40, 7, 8, 0, 1)) * 3 + hole


@target("TCP reassembly of two directions: any segments in any order; held against a map of all bytes", talks)
def reassembly(data: bytes) -> None:
    """Every byte that is delivered is one that was captured, in its place, once; and none is delivered by half."""
    script = Script(data)
    wire, listener = Wire(script), Listener()
    while script and wire.count < 400:
        listener.tracker.take(wire.segment())
    listener.tracker.finish()
    for heard in listener.heard:
        kind_of(heard.conversation)
        for sender in Sender:
            _in_place(heard, sender, wire.captured[_end_of(heard, sender)])
            side = heard.conversation.sides[sender]
            assert 0 <= side.captured <= side.sent
            assert side.captured == sum(len(data) for _, data in heard.data[sender])
    _complete(listener, wire)


def _end_of(heard: Heard, sender: Sender) -> Sender:
    """Which of our two ends this one is: who answers to connect is the server, whatever its port is."""
    here = heard.conversation.device.port == ENDS[Sender.DEVICE][1]
    return sender if here else sender.peer


def _in_place(heard: Heard, sender: Sender, captured: list[tuple[int, bytes]]) -> None:
    """All that was delivered fits the captured segments, for one place of the stream's first byte."""
    delivered = heard.data[sender]
    if not delivered:
        return
    offset, data = delivered[0]
    starts = {(begin + inside - offset) % SPACE for begin, known in captured for inside in _places(known, data[:4])}
    assert any(
        all(_was_captured((start + at) % SPACE, piece, captured) for at, piece in delivered) for start in starts
    ), f"{sender}: delivered what was never captured like that"


def _places(known: bytes, piece: bytes) -> Iterator[int]:
    at = known.find(piece[:1]) if len(piece) < 4 else known.find(piece[: len(known)])
    while at >= 0:
        yield at
        at = known.find(piece[:1] if len(piece) < 4 else piece, at + 1)


def _was_captured(sequence: int, piece: bytes, captured: list[tuple[int, bytes]]) -> bool:
    """Whether these bytes stood there in some segments, which may overlap."""
    at = 0
    while at < len(piece):
        reach = 0
        for begin, known in captured:
            inside = (sequence + at - begin) % SPACE
            if inside < len(known):
                same = min(len(known) - inside, len(piece) - at)
                while same and known[inside : inside + same] != piece[at : at + same]:
                    same -= 1
                reach = max(reach, same)
        if not reach:
            return False
        at += reach
    return True


def _complete(listener: Listener, wire: Wire) -> None:
    """What was captured without a hole from the SYN on, within a second, is delivered to the last byte."""
    if not wire.opens or len(listener.heard) != 1 or wire.count > 32 or listener.tracker.stragglers:
        return
    heard = listener.heard[0]
    conversation = heard.conversation
    if conversation.end_ns - conversation.start_ns > 900 * MS or conversation.closings:
        return
    for sender in Sender:
        end = _end_of(heard, sender)
        first = (wire.isn[end] + 1) % SPACE
        known = sorted(((begin - first) % SPACE, len(data)) for begin, data in wire.captured[end] if data)
        reach = 0
        for begin, size in known:
            if begin > reach:
                return
            reach = max(reach, begin + size)
        if not conversation.holes:
            assert sum(len(data) for _, data in heard.data[sender]) == reach, (sender, reach)


# --- frames ------------------------------------------------------------------------------------------------------


def _framings() -> Iterator[bytes]:
    yield bytes((0, 1, 0, 2, 0, 1, 64, 3, 7, 0, 5))
    yield bytes((0, 1, 1, 40, 9, 0, 1, 0, 2, 0, 3, 0, 1))
    yield bytes((0, 3, 2, 20, 0, 1, 0, 1, 0, 1, 1, 5, 0, 9, 0, 9))
    yield bytes((128, 3, 7, 11, 0, 1, 0, 1, 2, 200, 0, 1, 0, 2, 2, 7, 0, 1))


@target("frames cut out of a stream: any cutting, holes and garbage; every byte is accounted for", _framings)
def frames(data: bytes) -> None:
    """Frames, garbage and holes; what comes out plus what is skipped plus what waits is what went in."""
    script = Script(data)
    head = script.number()
    got: list[Frame] = []
    reader = FrameReader(Sender.SERVER, got.append, offset=424, searching=head >= 128)
    stream, step, number = bytearray(), 1 + head % 128 * 9, 0
    holes, pending = 0, bytearray()

    def flush() -> None:
        nonlocal number
        for at in range(0, len(pending), step):
            number += 1
            reader.receive(bytes(pending[at : at + step]), number, number)
        pending.clear()

    while script and len(stream) < 1 << 15:
        kind = script.below(4)
        if kind == 0:
            blocks = script.number()
            piece = (16 * blocks).to_bytes(2) + content(len(stream), 16 * blocks)
        elif kind == 1:
            piece = script.piece()
        elif kind == 2:
            flush()
            size = 1 + script.number() * (1 + 31 * script.below(2))
            reader.skip(Hole(Sender.SERVER, 424 + len(stream), size, None, number, number, HoleReason.NOT_CAPTURED))
            stream += bytes(size)
            holes += size
            continue
        else:
            piece = content(len(stream), script.number())
        pending += piece
        stream += piece
        if script.at % 3 == 0:
            flush()
    flush()
    reader.finish()
    _account(reader, got, stream, whole=not holes)


def _account(reader: FrameReader, got: list[Frame], stream: bytearray, *, whole: bool) -> None:
    end, index = 424, 0
    for frame in got:
        assert frame.offset >= end
        assert frame.index == index
        assert frame.length % 16 == 0
        assert frame.length
        if frame.ciphertext is not None:
            begin = frame.offset - 424
            assert bytes(stream[begin : begin + frame.size]) == frame.length.to_bytes(2) + frame.ciphertext
        assert len(frame.head) <= 16
        end, index = frame.offset + frame.size, index + 1
    total = sum(frame.size for frame in got) + reader.skipped + reader.pending
    assert total <= len(stream)
    if whole:
        assert total == len(stream)
    assert reader.pending <= 1 << 16


# --- handshake, other protocols, what Wireshark makes of it --------------------------------------------------------


def _turns() -> Iterator[bytes]:
    for sizes in ((40, 0, 200, 184, 18), (40, 255, 129, 18, 18), (18, 18, 50), (255, 1, 18)):
        for head in (0, 1, 2, 3, 5):
            yield bytes((head,)) + b"".join(bytes((0, size, 7)) for size in sizes)


@target("the turns of the handshake, one direction, from the beginning or midway, with holes", _turns)
def handshake(data: bytes) -> None:
    """Parts are of the sizes that they must have, and nothing is told twice."""
    script = Script(data)
    head = script.number()
    got: list[Frame] = []
    sender = Sender.SERVER if head & 1 else Sender.DEVICE
    reader = TurnReader(sender, got.append)
    if head & 2:
        reader.begin_midway(likely=bool(head & 4))
    fed = holes = number = 0
    while script:
        kind, size, shift = script.below(8), script.number(), script.number()
        number += 1
        if kind == 7:
            reader.skip(Hole(sender, fed, size + 1, None, number, number, HoleReason.LOST))
            fed, holes = fed + size + 1, holes + size + 1
        elif kind == 6:
            reader.begin()
        else:
            piece = script.take(size) if kind == 5 else content(shift, size)
            if piece:
                reader.receive(piece, number, number)
            fed += len(piece)
    finish = getattr(reader, "finish", None)
    if finish is not None:
        finish()
    for part in reader.parts:
        assert 0 <= part.received + part.missing <= part.size
        assert part.data is None or len(part.data) == part.size
    if reader.frames is not None:
        assert sum(frame.size for frame in got) + reader.frames.skipped + reader.frames.pending <= fed


OPENINGS: Final = (
    b"HTTP/1.1 302 Found\r\nServer: x\r\nLocation: http://login.example/\r\n\r\n<html><title>Log in</title>",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"\x16\x03\x01\x00\x2e\x01\x00\x00\x2a\x03\x03" + bytes(36),
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x00\xe1\x00\xe1" + b"\x00\x45",
    b"220 mail.example ESMTP\r\n",
)


def _openings() -> Iterator[bytes]:
    for first in OPENINGS:
        for second in (b"", OPENINGS[3], b"\x00\x02", bytes(40)):
            yield written(0, first, 1, second)
            yield written(1, first, 0, second)


@target("other protocols on the port, by their first bytes; and what Wireshark's CoAP dissector shows for any bytes",
        _openings)  # fmt: skip
def openings(data: bytes) -> None:
    """Pieces of both directions, as a connection and to the readers of rows."""
    script = Script(data)
    listener = Listener()
    sent = dict.fromkeys(Sender, 0)
    rows = {sender: (CoapTcpReader(), CoapTcpReader(desegment=False)) for sender in Sender}
    words, number = RowWords(), 0

    def say(sender: Sender, flags: int, piece: bytes) -> None:
        nonlocal number
        number += 1
        (source, port), (there, target_port) = ENDS[sender], ENDS[sender.peer]
        listener.tracker.take(
            Segment(
                number, number * MS, 0, source, port, there, target_port, sent[sender], sent[sender.peer], flags, 5840,
                len(piece), piece, 64, number, None, None, b"", whole=True,
            )
        )  # fmt: skip
        sent[sender] += len(piece) + bool(flags & SYN)

    say(Sender.DEVICE, SYN, b"")
    say(Sender.SERVER, SYN | ACK, b"")
    while script:
        head = script.number()
        sender = Sender.SERVER if head & 1 else Sender.DEVICE
        piece = script.piece(2 if head & 2 else 1)
        say(sender, ACK | PSH, piece)
        if not piece:
            continue
        for number_of, reader in enumerate(rows[sender]):
            row = reader.receive(piece, number, sent[sender] - len(piece) if head & 4 else None)
            assert reader.kept <= 1 << 16
            assert row.text is None or isinstance(row.text, str)
            assert row.malformed == any(reading.malformed for reading in row.readings)
            if not number_of:
                words.take(row)
        datagram_suffix(piece)
        for generation in DATAGRAM_GENERATIONS:
            old_view(piece, generation)
    seen = words.finish()
    is_inert(seen.words() or "", "")
    listener.tracker.finish()
    for heard in listener.heard:
        assert kind_of(heard.conversation)
