"""What is remembered of a connection: its two ends, the packets worth naming, what each end did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from analyzer.frames import LostBoundary
from analyzer.handshake import Part
from analyzer.network.units import address_text
from analyzer.spread import Spread
from analyzer.streams import Quality, Sender


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
    before: int = 0  # bytes of handshake messages that were sent before the capture began
