"""Which bytes are which: nonce, identity, session offer, then frames (PROTOCOL 2.1).

Each direction is read by itself, because every size is fixed: the server sends 40 bytes, then 384, then frames;
the device 256, then frames. A hole counts like the bytes it stands for, so that a message the peer acknowledged
but the capture missed is known to have been sent. Knows sizes and turns only: no keys, no cryptography.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from analyzer.catalogue import IDENTITY_SIZE, NONCE_SIZE, SESSION_SIZE
from analyzer.frames import SEARCH_WINDOW, Frame, FrameReader, chain
from analyzer.streams import Hole, Sender

STEPS: Final = {
    Sender.SERVER: (("nonce", NONCE_SIZE), ("session", SESSION_SIZE)),
    Sender.DEVICE: (("identity", IDENTITY_SIZE),),
}
"""The handshake messages of each sender, in order, with their sizes in bytes."""

OPENING: Final = 1024
"""First bytes of a direction that are kept until it is clear what protocol they belong to."""
HELD: Final = SEARCH_WINDOW // 2
"""Bytes that are held until it is clear how the capture of a direction begins; more than the handshake has."""
CUTS: Final = 16
"""Pieces that are listed when one handshake message came in several packets."""


@dataclass(slots=True)
class Part:
    """One handshake message, whole or as far as it got.

    ``received`` counts captured bytes, ``missing`` those in holes; both together reach ``size`` when the
    message was sent whole. ``data`` is None unless every byte was captured. ``packet``/``time_ns`` are those of the
    latest piece. ``pieces`` are those it came in, None while there are not two: see ``cuts``.
    """

    kind: str
    sender: Sender
    size: int
    received: int = 0
    missing: int = 0
    data: bytes | None = None
    first_packet: int = 0
    first_ns: int = 0
    packet: int = 0
    time_ns: int = 0
    pieces: tuple[tuple[int, int], ...] | None = None

    @property
    def cuts(self) -> tuple[tuple[int, int], ...]:
        """(packet, bytes) of the pieces it came in."""
        if self.pieces is not None:
            return self.pieces
        return ((self.packet, self.sent),) if self.first_packet else ()

    @property
    def sent(self) -> int:
        """Bytes that are known to have been sent."""
        return self.received + self.missing

    @property
    def complete(self) -> bool:
        """Whether all of it was sent, seen or not."""
        return self.sent >= self.size


class TurnReader:
    """Reads one direction of a conversation: its handshake messages, then its frames.

    ``before`` counts the bytes of handshake messages that were sent before the capture began: stream offset 0
    is that far into the conversation.
    """

    __slots__ = (
        "_begins_likely",
        "_emit",
        "_held",
        "_held_size",
        "_unfinished",
        "before",
        "early",
        "frames",
        "in_frames",
        "opening",
        "parts",
        "position",
        "sender",
        "started",
    )

    def __init__(self, sender: Sender, emit: Callable[[Frame], None]) -> None:
        self.sender = sender
        self.parts: list[Part] = []  # in order; the last one may be unfinished
        self.frames: FrameReader | None = None
        self.early = 0  # frames that came in the place of a handshake message
        self.opening = bytearray()  # first captured bytes
        self.started: str | None = "beginning"  # or "midway"; None while that is still open
        self.before = 0
        self.position = 0  # stream offset of the next byte, until the frames begin
        self._emit = emit
        self._begins_likely = True
        self.in_frames = False
        self._unfinished = bytearray()
        self._held: list[tuple[bytes, int, int]] = []  # data, packet, time
        self._held_size = 0

    def begin(self) -> None:
        """Say that the stream's first byte is the conversation's first after all."""
        if self.started is None and not self._held:
            self.started = "beginning"

    def begin_midway(self, *, likely: bool) -> None:
        """Say that the stream's first byte may not be the conversation's first; ``likely`` when it may well be.

        Then the first bytes decide whether this is the start of a handshake message or a frame.
        """
        if not self.position:
            self.started = None
            self._begins_likely = likely

    def part(self, kind: str) -> Part | None:
        """Return the handshake message of that kind, whole or not, or None."""
        return next((part for part in self.parts if part.kind == kind), None)

    # -- StreamReader ---------------------------------------------------------------------------------------

    def receive(self, data: bytes, packet: int, time_ns: int) -> None:
        """Take the next bytes, all from one packet."""
        if len(self.opening) < OPENING:
            self.opening += data[: OPENING - len(self.opening)]
        if self.in_frames and self.frames is not None:
            self.frames.receive(data, packet, time_ns)
        elif self.started is None:
            self._guess_start(data, packet, time_ns)
        else:
            self._take(data, packet, time_ns)

    def skip(self, hole: Hole) -> None:
        """Take note of missing bytes."""
        if self.started is None:
            self._guess_start_at_hole(hole)
        length = hole.length
        while length and (part := self._current(hole.packet, hole.time_ns)):
            room = min(length, part.size - part.sent)
            part.missing += room
            self._stamp(part, hole.packet, hole.time_ns, room)
            self._unfinished = bytearray()
            self.position += room
            length -= room
        if length:
            self._frame_reader().skip(replace(hole, offset=hole.offset + hole.length - length, length=length))

    def finish(self) -> None:
        """Nothing more comes."""
        if self.started is None:
            self._settle()
        if self.frames is not None:
            self.frames.finish()

    # -- inside ---------------------------------------------------------------------------------------------

    def _take(self, data: bytes, packet: int, time_ns: int) -> None:
        while data and (part := self._current(packet, time_ns, data)):
            room = part.size - part.sent
            piece, data = data[:room], data[room:]
            part.received += len(piece)
            self._stamp(part, packet, time_ns, len(piece))
            self.position += len(piece)
            if part.received == part.size:
                part.data = bytes(self._unfinished + piece) if self._unfinished else bytes(piece)
            if part.complete:
                self._unfinished = bytearray()
            else:
                self._unfinished += piece
        if data:
            self._frame_reader().receive(data, packet, time_ns)
            self.position += len(data)

    def _current(self, packet: int, time_ns: int, data: bytes = b"") -> Part | None:
        """Return the handshake message that the next byte belongs to, None when frames have begun.

        A device that never got a nonce, or could not use it, may send frames in the place of its identity
        (PROTOCOL 9.2): a packet that is exactly a run of frames is one.
        """
        if self.parts and not self.parts[-1].complete:
            return self.parts[-1]
        steps = STEPS[self.sender]
        done = len(self.parts)
        if done == len(steps) or (self.frames is not None and self.frames.pending):
            return None
        if self.sender is Sender.DEVICE and chain(data)[1]:
            self.early += chain(data)[0]
            return None
        kind, size = steps[done]
        part = Part(kind, self.sender, size, first_packet=packet, first_ns=time_ns, packet=packet, time_ns=time_ns)
        self.parts.append(part)
        return part

    @staticmethod
    def _stamp(part: Part, packet: int, time_ns: int, length: int) -> None:
        if part.sent > length:
            pieces = part.cuts if part.pieces is not None else ((part.packet, part.sent - length),)
            if len(pieces) < CUTS:
                pieces = (*pieces, (packet, length))
            part.pieces = pieces
        if packet >= part.packet:
            part.packet, part.time_ns = packet, time_ns
        if packet < part.first_packet:
            part.first_packet, part.first_ns = packet, time_ns

    def _frame_reader(self, *, searching: bool = False) -> FrameReader:
        if self.frames is None:
            self.frames = FrameReader(self.sender, self._emit, offset=self.position, searching=searching)
        elif not self.in_frames and not self.frames.pending:
            self.frames.offset = self.position  # a handshake message may lie between early frames and the rest
        self.in_frames = len(self.parts) == len(STEPS[self.sender])
        return self.frames

    # -- a stream whose first byte may not be the conversation's ---------------------------------------------

    def _guess_start(self, data: bytes, packet: int, time_ns: int) -> None:
        """Decide by the first packets: an exact run of frames, or exactly a handshake message's size.

        In a single packet the sizes cannot be mistaken: no run of frames has 40 bytes, and one of 384 or 256 has
        eight frames.
        """
        self._held.append((data, packet, time_ns))
        self._held_size += len(data)
        if chain(data)[1]:
            self._settle_on_frames(searching=len(self._held) > 1)
        elif (unseen := self._parts_before(self._held_size)) is not None and not self._holds_frames():
            self._replay(unseen)
        elif self._held_size > HELD:
            self._settle()

    def _holds_frames(self) -> bool:
        """Whether several small packets, that together have the size looked for, are frames cut anyhow."""
        if len(self._held) == 1:
            return False
        data, begins, position = b"".join(piece for piece, _, _ in self._held), set(), 0
        for piece, _, _ in self._held:
            begins.add(position)
            position += len(piece)
        runs = ((start, *chain(data, start)) for start in range(len(data)))
        return any(count > 1 or (exact and start in begins) for start, count, exact in runs)

    def _guess_start_at_hole(self, hole: Hole) -> None:
        """Bytes that were acknowledged but not captured: their number may still be a handshake message's size."""
        unseen = None if self._held else self._parts_before(hole.length)
        if unseen is not None:
            self._replay(unseen)
        else:
            self._settle()

    def _parts_before(self, length: int) -> int | None:
        """Return how many handshake messages must be missing for this many bytes to end with one."""
        sizes = [size for _, size in STEPS[self.sender]]
        for unseen in range(len(sizes)):
            if length in (sizes[unseen], sum(sizes[unseen:])):
                return unseen
        return None

    def _settle(self) -> None:
        if self._begins_likely:
            self._replay(0)
        else:
            self._settle_on_frames(searching=True)

    def _settle_on_frames(self, *, searching: bool) -> None:
        """No handshake message begins here: all are past."""
        self._pass_over(len(STEPS[self.sender]))
        self.started = "midway"
        self._frame_reader(searching=searching)
        self._release()

    def _replay(self, unseen: int) -> None:
        """Take what was held as handshake messages, of which the first ``unseen`` are past."""
        self._pass_over(unseen)
        self.started = "beginning" if unseen == 0 else "midway"
        self._release()

    def _pass_over(self, unseen: int) -> None:
        for kind, size in STEPS[self.sender][:unseen]:
            # Stands for a message sent before the capture began: no packet of it was seen.
            self.parts.append(Part(kind, self.sender, size, missing=size))
            self.before += size

    def _release(self) -> None:
        held, self._held, self._held_size = self._held, [], 0
        for data, packet, time_ns in held:
            self._take(data, packet, time_ns)
