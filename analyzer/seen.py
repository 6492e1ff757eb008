"""What is remembered of a connection: its two ends, the packets worth naming, what each end did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from struct import Struct
from typing import Final

from analyzer.frames import LostBoundary
from analyzer.handshake import Part
from analyzer.misparse.words import NO_ROWS, RowsSeen
from analyzer.network.units import address_text
from analyzer.spread import Spread
from analyzer.streams import Hole, Quality, Sender

Mark = tuple[int, int, int]
"""A packet's number, time (ns) and time to live: what a `Seen` is made of, noted with every packet."""


@dataclass(slots=True)
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


@dataclass(slots=True)
class FrameSeen:
    """What is remembered of one frame: ``size`` in bytes on the wire."""

    sender: Sender
    index: int
    size: int
    packet: int
    time_ns: int
    follows_gap: bool = False
    dead: str | None = None  # what a dead-key frame says, e.g. "Ping"


FIRST_FRAMES: Final = 16
LAST_FRAMES: Final = 12
"""Frames at both ends of a session that are kept with packet and time; those between are only counted."""
_FRAMES: Final = Struct("<BBHQQQI")
FRAME: Final = _FRAMES.pack
"""A `FrameSeen` packed: who sent it, with whether it follows a gap (see `frame_kind`); which of the connection's
dead-key messages it is, counted from 1; size, index, packet, and the time (ns), of which the last field has what is
beyond 64 bits: no file gives such a time, but a program that makes packets may."""
FRAME_SIZE: Final = _FRAMES.size
FIRST: Final = FIRST_FRAMES * FRAME_SIZE
LAST: Final = LAST_FRAMES * FRAME_SIZE
FRAMES_HELD: Final = FIRST + 2 * LAST
"""Bytes of packed frames, beyond which those are let go that are neither first nor last."""
_SENDERS: Final = (Sender.SERVER, Sender.DEVICE)


def frame_kind(sender: Sender, *, follows_gap: bool) -> int:
    """The first field of `FRAME`."""
    return (sender is Sender.DEVICE) + 2 * follows_gap


@lru_cache(maxsize=256)  # rules ask for the frames of one connection many times, one connection after the other
def frames_seen(packed: bytes, dead: tuple[str, ...]) -> tuple[FrameSeen, ...]:
    """Unpack frames; ``dead`` are the connection's dead-key messages."""
    return tuple(
        FrameSeen(
            _SENDERS[kind & 1],
            index,
            size,
            packet,
            time_ns + (beyond << 64),
            kind >= 2,
            dead[which - 1] if which else None,
        )
        for kind, which, size, index, packet, time_ns, beyond in _FRAMES.iter_unpack(packed)
    )


NO_TRIPS: Final = Spread()
"""Of the ends to which no round trip was measured."""


@dataclass(slots=True)
class Side:
    """What one end did."""

    quality: Quality = field(default_factory=Quality)
    round_trips: Spread = field(default_factory=Spread)  # from the capture point to this end and back
    captured: int = 0  # stream bytes in the capture
    sent: int = 0  # stream bytes known to have been sent, in holes or captured
    acked: int = 0  # of these, acknowledged by the peer
    frames: int = 0
    dead: int = 0  # dead-key frames among them
    longest: int = 0  # bytes on the wire of its largest frame
    first_data: Seen | None = None
    first_size: int = 0
    last_data: Seen | None = None
    last_any: Seen | None = None
    unacked_since: Seen | None = None
    unacked_tries: int = 0
    lost: Sequence[LostBoundary] = ()
    skipped: int = 0  # bytes that could not be assigned to frames
    rest: int = 0  # bytes of a message that was not finished
    opening: bytes = b""
    parts: Sequence[Part] = ()
    early: int = 0
    midway: bool = False
    before: int = 0  # bytes of handshake messages that were sent before the capture began

    def kept(self) -> Side:
        """Return what is kept when nothing more comes. Connections that are alike share what they have in common."""
        self.quality = shared_quality(self.quality.counts)
        self.round_trips.pack()
        if self.round_trips.least is None:
            self.round_trips = NO_TRIPS
        return NOTHING if self == NOTHING else self


NOTHING: Final = Side(round_trips=NO_TRIPS)
"""Of the ends that are not heard of."""


@lru_cache(maxsize=1024)
def shared_quality(counts: tuple[int, ...]) -> Quality:
    """Return one object for all that have the same counts; it must not be changed."""
    return Quality(*counts)


NO_FRAMES: Final = bytearray()
"""Of those that have none; it must not be changed."""


@dataclass(slots=True)
class Kept:
    """What is asked about a finished conversation one by one, and can be packed meanwhile (`analyzer.cold`)."""

    closings: Sequence[Closing] = ()
    connected: Seen | None = None
    dead_frames: Sequence[FrameSeen] = ()
    device_side: Side = field(default_factory=lambda: NOTHING)
    framed: bytearray = field(default_factory=bytearray)  # the frames of `first_frames` and `last_frames`, packed
    holes: Sequence[Hole] = ()
    nonce_acked: Seen | None = None
    reply_acked: Seen | None = None  # the device's acknowledgement of all 384 bytes
    rows: RowsSeen = field(default_factory=lambda: NO_ROWS)  # what Wireshark would show as CoAP
    server_hello: FrameSeen | None = None  # the server's first frame, when it is among the first of both
    server_side: Side = field(default_factory=lambda: NOTHING)
    syn_ack: Seen | None = None
    syn_count: int = 0
    syns: Sequence[Seen] = ()
    edges: bytes = b""  # where either end's stream is: what late packets are known by
