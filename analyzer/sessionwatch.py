"""What can be said of a running session from frame sizes and times alone: pings, and firmware updates.

It sees every frame of a conversation once and keeps counts and a few places, so its size does not depend on
how long the session was. What a frame says is not known here; what it probably is follows from the timers of
the firmware (PROTOCOL 6) and the sizes of the messages (DIAGNOSES 0.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from analyzer.catalogue import (
    CHUNK_FRAMES,
    CHUNK_SILENCE,
    PING_AFTER,
    SMALLEST_FRAME_ON_WIRE,
    UPDATE_OFFER_EVERY,
    UPDATE_OFFERS,
)
from analyzer.spread import Spread
from analyzer.streams import Sender

NS: Final = 1_000_000_000
UPDATE_BEGIN_FRAME: Final = 34
"""Bytes on the wire of an UpdateBegin with its payload (DIAGNOSES 0.2)."""
TOLERANCE: Final = 0.1
"""Timers of the firmware are polled between other work; a tenth covers what the captures show."""
POLLED: Final = 0.1
"""Seconds that such a timer may be late besides."""
EARLIEST_PING_NS: Final = int(PING_AFTER * (1 - TOLERANCE) * NS) - 1
"""After a shorter silence of the server nothing is taken for a ping."""
QUIET_NS: Final = 1 * NS
"""A ping is sent into silence: the device itself has said nothing for this long."""
STALL: Final = 12 * NS
"""After this time without a chunk an update has stopped: the device has asked three times by then. What comes
later in the same size is something new."""
BEGIN: Final = 30 * NS
"""UpdateBegin comes at most this long before the first chunk: the device erases its flash in between."""
OPENS_SOMETHING: Final = frozenset((*CHUNK_FRAMES, UPDATE_BEGIN_FRAME))
"""Sizes of the server's frames that may begin an update, or offer one."""
CHUNKS_OF_AN_UPDATE: Final = 3
"""Frames of one chunk size in a row, without which it is not called an update: events and Describe answers can
have such a size too."""


OFFER_SLACK: Final = round(0.3 * NS)
"""By how much the pauses between the offers of an update may differ from the server's timer."""


@dataclass(slots=True)
class Ping:
    """A probable ping: the device's 18-byte frame after about 15 s without a word from the server."""

    packet: int
    time_ns: int
    answer_packet: int | None = None
    answer_ns: int | None = None


@dataclass(slots=True)
class Update:
    """A probable firmware update: a run of server frames of one chunk size.

    ``chunks`` counts frames of that size, ``answered`` the device's 18-byte frames between them, ``asked`` those at
    the 3 s rhythm of a chunk that is missed, since the last chunk. ``server_since`` and ``device_since`` count all
    other frames since then. ``begun_packet`` is a server frame of UpdateBegin's size shortly before the first chunk.
    """

    size: int
    begun_packet: int | None
    first_packet: int
    first_ns: int
    last_packet: int
    last_ns: int
    chunks: int = 1
    answered: int = 0
    asked: int = 0
    first_asked: int | None = None
    last_asked: int | None = None
    last_asked_ns: int = 0
    server_since: int = 0
    device_since: int = 0
    small_since: int = 0
    acknowledged: int = 0  # the server's 18-byte frames between chunks: it acknowledged reports of missing ones
    begun_ns: int | None = None  # time of ``begun_packet``


class Framed(Protocol):
    """What there is to know of a frame here: who sent it, its size in bytes on the wire, when it was whole."""

    @property
    def sender(self) -> Sender:
        """Who sent it."""

    @property
    def size(self) -> int:
        """Bytes on the wire."""

    @property
    def packet(self) -> int:
        """The packet that completed it."""

    @property
    def time_ns(self) -> int:
        """That packet's time."""

    @property
    def follows_gap(self) -> bool:
        """Whether something is missing before it."""


class SessionWatch:
    """Watches one session. Feed it frames in the order they are cut."""

    __slots__ = (
        "_announced",
        "_offered",
        "busy",
        "last_device_ns",
        "last_server_ns",
        "offers",
        "ping_rtt_ns",
        "ping_times",
        "pings",
        "pings_answered",
        "unanswered",
        "update",
    )

    def __init__(self) -> None:
        self.busy = False
        """Whether the next frame may belong to something that has begun. If not, and if it is none that begins
        something (`OPENS_SOMETHING`, `EARLIEST_PING_NS`), its time is all that matters of it: set ``last_server_ns``
        or ``last_device_ns``."""
        self.pings = 0
        self.pings_answered = 0
        self.ping_rtt_ns: tuple[int, ...] = ()  # shortest and longest
        self.ping_times = _NO_TIMES  # until the answer, where that has the size of one
        self.unanswered: Ping | None = None
        self.update: Update | None = None
        self.last_server_ns: int | None = None
        self.last_device_ns: int | None = None
        self.offers: tuple[tuple[int, int], ...] = ()  # packets and times of what looks like offers nobody answered
        self._announced: tuple[int, int] | None = None  # packet and time of the server's last frame of that size
        self._offered: tuple[tuple[int, int], ...] = ()  # such frames so far, at the pace of offers of an update

    def take(self, frame: Framed) -> None:
        """Take the next frame."""
        if frame.sender is Sender.SERVER:
            self._take_server(frame)
            self.last_server_ns = frame.time_ns
        else:
            self._take_device(frame)
            self.last_device_ns = frame.time_ns
        self.busy = bool(self.update is not None or self.unanswered is not None or self.offers or self._offered)

    def finish(self) -> SessionWatch:
        """Forget a run of frames that was too short to be an update; return what was seen, which is often nothing."""
        if self.update is not None and self.update.chunks < CHUNKS_OF_AN_UPDATE:
            self.update = None
        self.ping_times.pack()
        return self if self.pings or self.update is not None or self.offers else NOTHING_SEEN

    def _take_server(self, frame: Framed) -> None:
        ping = self.unanswered
        if ping is not None and frame.time_ns >= ping.time_ns:
            self.pings_answered += 1
            rtt = frame.time_ns - ping.time_ns
            self.ping_rtt_ns = min([rtt, *self.ping_rtt_ns]), max([rtt, *self.ping_rtt_ns])
            self.unanswered = None
            if frame.size == SMALLEST_FRAME_ON_WIRE and not frame.follows_gap:
                if self.ping_times is _NO_TIMES:
                    self.ping_times = Spread()
                self.ping_times.add(rtt)
        if frame.size in CHUNK_FRAMES:
            self._take_chunk(frame)
        elif self.update is not None:
            self.update.server_since += 1
            self.update.small_since += frame.size == SMALLEST_FRAME_ON_WIRE
        if frame.size == UPDATE_BEGIN_FRAME:
            self._announced = frame.packet, frame.time_ns
        if self._offered or frame.size == UPDATE_BEGIN_FRAME:
            self._take_offer(frame)

    def _take_offer(self, frame: Framed) -> None:
        """Follow the legacy server's offers of an update: three of one size, and a short one, each 6 s later."""
        offered, now = self._offered, (frame.packet, frame.time_ns)
        due = offered and abs(frame.time_ns - offered[-1][1] - round(UPDATE_OFFER_EVERY * NS)) <= OFFER_SLACK
        if due and frame.size == SMALLEST_FRAME_ON_WIRE and len(offered) == UPDATE_OFFERS:
            self.offers, self._offered = (*offered, now), ()
        elif frame.size == UPDATE_BEGIN_FRAME:
            self._offered = (*offered, now)[-UPDATE_OFFERS - 1 :] if due else (now,)
        else:
            self._offered = ()

    def _take_chunk(self, frame: Framed) -> None:
        update = self.update
        if update is None or not _goes_on(update, frame):
            begun = self._announced
            known = begun is not None and frame.time_ns - begun[1] <= BEGIN
            self.update = Update(
                frame.size,
                begun[0] if begun is not None and known else None,
                frame.packet,
                frame.time_ns,
                frame.packet,
                frame.time_ns,
                begun_ns=begun[1] if begun is not None and known else None,
            )
        elif update.size == frame.size:
            update.chunks += 1
            update.acknowledged += update.small_since
            update.small_since = 0
            update.last_packet, update.last_ns = frame.packet, frame.time_ns
            update.asked = update.server_since = update.device_since = 0
            update.first_asked = update.last_asked = None

    def _take_device(self, frame: Framed) -> None:
        small = frame.size == SMALLEST_FRAME_ON_WIRE
        self._offered = ()
        if self.offers and frame.time_ns - self.offers[-1][1] < PING_AFTER * (1 - TOLERANCE) * NS:
            self.offers = ()  # too early for a ping, so it may be the answer
        heard = max(self.last_server_ns or 0, self.last_device_ns or 0)
        if small and self.last_server_ns is not None and self.unanswered is None:
            silence = (frame.time_ns - self.last_server_ns) / NS
            if silence >= PING_AFTER * (1 - TOLERANCE) and frame.time_ns - heard >= QUIET_NS:
                self.pings += 1
                self.unanswered = Ping(frame.packet, frame.time_ns)
        update = self.update
        if update is None:
            return
        update.device_since += 1
        update.answered += small
        since = (frame.time_ns - max(update.last_ns, update.last_asked_ns)) / NS
        if small and abs(since - CHUNK_SILENCE) <= CHUNK_SILENCE * TOLERANCE + POLLED:
            update.asked += 1
            update.first_asked = update.first_asked or frame.packet
            update.last_asked, update.last_asked_ns = frame.packet, frame.time_ns


_NO_TIMES: Final = Spread()
NOTHING_SEEN: Final = SessionWatch()
"""Of all the sessions in which nothing was seen."""


def _goes_on(update: Update, frame: Framed) -> bool:
    """Whether a frame of a chunk's size belongs to the same run as those before it."""
    last = max(update.last_ns, update.last_asked_ns)
    same = update.size == frame.size and frame.time_ns - last <= STALL
    return same or (update.size != frame.size and update.chunks >= CHUNKS_OF_AN_UPDATE)
