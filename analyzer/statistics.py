"""What can be measured of connections: round trips, the steps of the login, repeats, pings, rates, session lengths.

The times were counted while the packets came (`Spread`); here they are put together, for one connection or for all
of a device. Facts only, no judgement. What a capture cannot tell is None, never 0: one direction alone shows no round
trip, a connection already under way no step of its login, one still open no length.

All times are those of the capture point. It divides the round trip: the device's side is from a packet of the
server, as it passes, to the device's acknowledgement, the server's side the other way about, and the least of both
added is the least time of the whole way. Acknowledgements may be held back on purpose (RFC 9293 3.8.6.3), so the
median says more about the two programs than about the way; the least does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from analyzer.conversation import Conversation
from analyzer.handshake import Part
from analyzer.seen import FrameSeen
from analyzer.spread import Spread
from analyzer.streams import Sender

if TYPE_CHECKING:
    from analyzer.opened import Secrets

NS: Final = 1_000_000_000

STEPS: Final = ("nonce_wait", "device_rsa", "server_lookup", "device_decrypt", "hello_answered")
"""The steps of a login (DIAGNOSES 209): until the nonce, the identity, the session offer, the hello, and the hello of
the server. Each ends when the message is whole, and has the way to its sender and back in it."""

RATE_OVER: Final = 1 * NS
"""A rate over less time than this says nothing."""
HARDLY_MISSING: Final = 0.01
"""Share of a direction's bytes that a capture may lack while its messages still count as counted."""

ALIKE: Final = 0.05
ALIKE_NS: Final = NS // 2
"""Sessions whose lengths differ by no more (the larger of the two) are neighbours: timers that are polled between
other work end within a few percent, and a way there and back is shorter than half a second."""
MEMBERS: Final = 3
"""Two lengths that are alike may be so by chance."""
WIDEST: Final = 2
"""How many times that difference a whole cluster may span. Where every length has a neighbour, all of them are one
chain, which says nothing."""


@dataclass(slots=True)
class Repeats:
    """What one end sent more than once: packets with data and their bytes, and out of how many.

    Keep-alive probes, copies of a packet and empty packets are counted in neither.
    """

    segments: int = 0
    of_segments: int = 0
    size: int = 0
    of_size: int = 0

    @property
    def share(self) -> float | None:
        """Repeated packets as a part of all with data (0 to 1); None when there are none."""
        return self.segments / self.of_segments if self.of_segments else None


@dataclass(slots=True)
class Pings:
    """The device's pings. ``exact``: they were decrypted; else they are known by size and the silence before them."""

    sent: int = 0
    answered: int = 0
    times: Spread = field(default_factory=Spread)  # until the answer
    exact: bool = True


@dataclass(slots=True)
class Rate:
    """A count and the time (ns) in which it was made."""

    count: int = 0
    over_ns: int = 0

    @property
    def per_minute(self) -> float:
        """As a rate."""
        return self.count * 60 * NS / self.over_ns

    def add(self, count: int, over_ns: int) -> None:
        """Count in more of it."""
        self.count += count
        self.over_ns += over_ns


@dataclass(frozen=True, slots=True)
class Cluster:
    """Sessions of about one length: how many, and their lengths (ns)."""

    count: int
    shortest: int
    median: int
    longest: int


@dataclass(slots=True)
class Statistics:
    """What was measured of one or several connections. A name or sender that is missing could not be measured.

    ``lengths`` (ns, ascending) are those of sessions that came up, begin and end in the capture; ``came_up`` counts
    all that came up. ``events`` is None without a key; ``event_names`` counts the events by sender and name.
    """

    round_trips: dict[Sender, Spread] = field(default_factory=dict)
    steps: dict[str, Spread] = field(default_factory=dict)
    repeats: dict[Sender, Repeats] = field(default_factory=dict)
    pings: Pings | None = None
    frames: dict[Sender, Rate] = field(default_factory=dict)
    events: dict[Sender, Rate] | None = None
    event_names: Counter[tuple[Sender, str]] = field(default_factory=Counter)
    came_up: int = 0
    lengths: list[int] = field(default_factory=list)

    @property
    def path_ns(self) -> int | None:
        """The least time (ns) from device to server and back; None unless both sides of it were measured."""
        least = [spread.least for spread in self.round_trips.values()]
        return sum(time_ns for time_ns in least if time_ns is not None) if len(least) == len(Sender) else None

    @property
    def busiest_event(self) -> tuple[Sender, str, int] | None:
        """Sender, name and count of the event that was sent most often."""
        if not self.event_names:
            return None
        (sender, name), count = self.event_names.most_common(1)[0]
        return sender, name, count


def measure(conversations: Iterable[Conversation]) -> Statistics:
    """Return the statistics of finished conversations: one, or all of a device."""
    told = Statistics()
    trips: dict[Sender, list[Spread]] = {sender: [] for sender in Sender}
    for c in conversations:
        for sender, side in c.sides.items():
            trips[sender].append(side.round_trips)
        _count_repeats(c, told)
        if c.kind != "spark":
            continue
        for name, time_ns in login_steps(c).items():
            told.steps.setdefault(name, Spread()).add(time_ns)
        if c.reached == "established":
            told.came_up += 1
            _count_pings(c, told)
            _count_rates(c, told)
            length = session_length(c)
            if length is not None:
                told.lengths.append(length)
    told.lengths.sort()
    together = {sender: Spread.together(spreads) for sender, spreads in trips.items()}
    told.round_trips = {sender: spread for sender, spread in together.items() if spread}
    return told


# -- one connection ------------------------------------------------------------------------------------------------


def login_steps(c: Conversation) -> dict[str, int]:
    """Return the times (ns) of the steps of a login that the capture has both ends of, by their names in `STEPS`."""
    nonce, identity, session = (_seen_whole(c.part(kind)) for kind in ("nonce", "identity", "session"))
    hello, answer = (None, None) if session is None else (_seen_in_turn(c.hello), _seen_in_turn(c.server_hello))
    # Where the nonce is the first sign of the connection, the capture lacks the packet that opened it.
    opened = c.connected if nonce is not None and c.connected and c.connected.packet < nonce.first_packet else None
    ends = (opened if c.syns else None, nonce, identity, session, hello, answer)
    times = {
        name: later.time_ns - earlier.time_ns
        for name, earlier, later in zip(STEPS, ends, ends[1:], strict=False)
        if earlier is not None and later is not None
    }
    return {name: time_ns for name, time_ns in times.items() if time_ns >= 0}


def _seen_whole(part: Part | None) -> Part | None:
    return part if part is not None and part.received == part.size else None


def _seen_in_turn(frame: FrameSeen | None) -> FrameSeen | None:
    return frame if frame is not None and not frame.follows_gap else None


def session_length(c: Conversation) -> int | None:
    """Return the time (ns) from the first request to connect to the first close; None unless both were captured."""
    return c.closings[0].time_ns - c.syns[0].time_ns if c.syns and c.closings else None


def _count_repeats(c: Conversation, told: Statistics) -> None:
    for sender, side in c.sides.items():
        quality = side.quality
        if not quality.packets:
            continue  # a direction that was not captured
        repeats = told.repeats.setdefault(sender, Repeats())
        repeats.segments += quality.retransmitted
        repeats.of_segments += quality.data_segments
        repeats.size += quality.retransmitted_bytes
        repeats.of_size += side.sent + quality.retransmitted_bytes


def _count_pings(c: Conversation, told: Statistics) -> None:
    if not all(side.quality.packets for side in c.sides.values()):
        return
    pings = told.pings = told.pings or Pings()
    if c.secrets is None or not _is_open(c):
        watch = c.watch
        pings.exact = False
        pings.sent += watch.pings
        pings.answered += watch.pings_answered
        pings.times = Spread.together((pings.times, watch.ping_times))
        return
    gist = c.secrets.gist
    pings.sent += gist.counts[Sender.DEVICE].get("Ping", 0)
    pings.answered += gist.pings_answered
    pings.times = Spread.together((pings.times, gist.ping_times))


def _count_rates(c: Conversation, told: Statistics) -> None:
    if not c.first_frames:
        return
    over = (c.closings[0].time_ns if c.closings else c.end_ns) - c.first_frames[0].time_ns
    if over < RATE_OVER:
        return
    counted = Counter[Sender]()
    if c.secrets is not None and _is_open(c):
        told.events = told.events or {}
        for (direction, name), count in _event_names(c, c.secrets).items():
            sender = Sender(direction)
            counted[sender] += count
            told.event_names[sender, name] += count
    for sender, side in c.sides.items():
        if side.sent - side.captured > HARDLY_MISSING * side.sent or not side.quality.packets:
            continue
        told.frames.setdefault(sender, Rate()).add(c.live_frames(sender), over)
        if told.events is not None and _is_open(c):
            told.events.setdefault(sender, Rate()).add(counted[sender], over)


def _event_names(c: Conversation, secrets: Secrets) -> Mapping[tuple[str, str], int]:
    """Return how many events each name has, by sender and name."""
    if secrets.gist.event_names is not None:
        return secrets.gist.event_names
    return Counter((m.direction, str(m.values.get("name"))) for m in c.messages if m.name == "Event")


def _is_open(c: Conversation) -> bool:
    """Whether a key opened this session, so that its messages can be counted by what they are."""
    return c.secrets is not None and c.secrets.opened > 0


# -- many connections ----------------------------------------------------------------------------------------------


def clusters(lengths: Sequence[int]) -> list[Cluster]:
    """Return the groups of at least `MEMBERS` sessions that lasted about equally long, the largest first.

    The lengths (ns) are put in order and parted wherever two neighbours are more than `ALIKE` apart, or `ALIKE_NS` if
    that is more. A group that then spans more than `WIDEST` times that is no cluster but a continuum. So a single odd
    length never moves a cluster, and evenly spread lengths give none.
    """
    groups: list[list[int]] = []
    for length in sorted(lengths):
        if groups and length - groups[-1][-1] <= _alike(groups[-1][-1]):
            groups[-1].append(length)
        else:
            groups.append([length])
    close = [g for g in groups if len(g) >= MEMBERS and g[-1] - g[0] <= WIDEST * _alike(g[0])]
    found = [Cluster(len(g), g[0], g[(len(g) - 1) // 2], g[-1]) for g in close]
    return sorted(found, key=lambda cluster: -cluster.count)


def _alike(length: int) -> int:
    return max(ALIKE_NS, round(ALIKE * length))
