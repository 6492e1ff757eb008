"""SPK504, SPK506, SPK507: what several connections tell together about how each of them ended.

One silence proves little; the same silence at the end of each connection has a reason.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Final

from analyzer.catalogue import PING_AFTER
from analyzer.findings import Confidence, Evidence, Finding
from analyzer.network.units import address_text
from analyzer.rules.device import GONE
from analyzer.rules.facts import AT_ONCE, NS, AllFacts, Facts
from analyzer.rules.session import GIVEN_UP_AFTER, GIVEN_UP_TRIES
from analyzer.seen import Closing
from analyzer.streams import Sender
from analyzer.wording import duration, number, packets, plural

TIMER_SLACK: Final = 2 * NS
"""Two runs of one timer differ by the way there and back, and by how busy the server is."""
STILL_THERE: Final = 10 * NS
"""A device whose network still confirms packets this long after its last message is on and connected."""
AFTER_AN_UPDATE: Final = 120 * NS
"""A device that has been updated restarts, and says nothing meanwhile."""
IDLE: Final = 10 * NS
"""A shorter silence is no reason to forget a connection."""
PINGED: Final = round((PING_AFTER + 2.0) * NS)
"""A silence up to this long is one that an answered ping has survived."""
TIMES: Final = 2
"""What happens so often in the same way is no accident."""
HANDOVERS: Final = 3
PLACES: Final = 8
"""Addresses of one ID that are compared: those that logged in last."""
LOGINS_AT_ONCE: Final = 16
"""Logins within one second that are looked at; a server that starts has hundreds, which mean nothing."""

BECAUSE_TOO_BUSY: Final = (
    "that the program on the device keeps it too busy: its network still answers, and it does not ping."
)
BECAUSE_FORGOTTEN: Final = (
    "that a router or firewall has dropped the quiet connection: it happens {times} after a silence."
)
BECAUSE_CUT: Final = (
    "that a router or firewall has dropped the quiet connection: the reset does not come from the server."
)
BECAUSE_SAME_ID: Final = ": both log in with ID {id}."
BECAUSE_SAME_ANNOUNCED: Final = "that two devices have ID {id}: both announce it, from different hardware."
BECAUSE_IN_TURN: Final = "that the two share an ID: at each login of one the server closes the session of the other."

Ends = tuple[bytes, bytes, int]


@dataclass(slots=True)
class Session:
    """What is asked of each session that came up, told by one look at it. ``place`` is its place among all.

    ``quiet`` is how long the device had said nothing when the server closed for that, ``login_ns`` when the reply was
    whole, ``closed`` says that the server closed while the device was still there.
    """

    place: int
    quiet: int | None
    cut: _Cut | None
    pinged: bool
    login_ns: int | None
    closed: bool


ByEnds = Mapping[Ends, list[Session]]
"""The sessions of each device with each server."""


def by_ends(every: AllFacts) -> ByEnds:
    """Return the sessions that came up."""
    groups: dict[Ends, list[Session]] = {}
    for place, facts in enumerate(every):
        c = facts.conversation
        if facts.is_spark and facts.reached == "established" and facts.unseen is None:
            end, alive = facts.first_closing, facts.device.last_any
            closed = end is not None and end.sender is Sender.SERVER and alive is not None
            session = Session(
                place,
                _quiet(facts),
                _cut_off(facts, place),
                c.watch.pings_answered > 0,
                facts.session.time_ns if facts.session is not None else None,
                closed and end is not None and alive is not None and alive.time_ns >= end.time_ns,
            )
            groups.setdefault((c.device.address, c.server.address, c.server.port), []).append(session)
    return groups


# -- the device says nothing ---------------------------------------------------------------------------------------


def timed_out(every: AllFacts, ends: ByEnds) -> Iterator[Finding]:
    """SPK504: the server closes after a silence of the device in which a ping was due.

    Likely when the silence is as long as a limit of the server; strong when the same silence ends several
    connections. A dead path (SPK506) is excluded by the device's TCP, which goes on confirming; holes, an update
    that has just ended, and a device that has dialled again forbid the claim.
    """
    for sessions in ends.values():
        quiet = [(session.place, session.quiet) for session in sessions if session.quiet is not None]
        for place, silence in quiet:
            facts = every[place]
            alike = sum(abs(other - silence) <= TIMER_SLACK for _, other in quiet)
            at_limit = any(abs(silence - limit * NS) <= TIMER_SLACK for limit in facts.timers.idle)
            if alike >= TIMES or at_limit:
                yield _too_busy(facts, silence, alike)


def _quiet(facts: Facts) -> int | None:
    """How long (ns) the device had said nothing when the server closed; None where that was not the reason."""
    c, end, device, server = facts.conversation, facts.first_closing, facts.device, facts.server
    if end is None or end.sender is not Sender.SERVER or end.how != "fin":
        return None
    said = [f for f in c.last_frames if f.time_ns <= end.time_ns]
    last = max((f.time_ns for f in said if f.sender is Sender.DEVICE), default=None)
    if last is None or end.time_ns - max(f.time_ns for f in said) < GONE:
        return None
    if device.acked < device.sent or device.last_any is None or device.last_any.time_ns - last < STILL_THERE:
        return None
    if not server.frames:
        return None  # without a word from it, what the device sends may be a hello that gets no answer (SPK208)
    broken = device.lost or device.rest or device.skipped or server.lost or server.skipped
    if broken or _missing_since(facts, last):
        return None  # what is missing may be what it said
    left = facts.dialled_again is not None and facts.dialled_again < end.time_ns
    update = c.watch.update
    if left or (update is not None and end.time_ns - update.last_ns < AFTER_AN_UPDATE):
        return None
    return end.time_ns - last


def _too_busy(facts: Facts, silence: int, alike: int) -> Finding:
    c, end, alive = facts.conversation, facts.first_closing, facts.device.last_any
    assert end is not None  # noqa: S101 - it is what `_quiet` measured to
    assert alive is not None  # noqa: S101 - so is this
    last = max((f for f in c.last_frames if f.sender is Sender.DEVICE), key=lambda f: f.time_ns)
    evidence = [
        Evidence(
            f"The device's last message is packet {number(last.packet)}; {duration(silence)} later the server closes"
            f" ({packets([end.packet])}). A ping was due after 15 s.",
            (last.packet, end.packet),
        ),
        Evidence(f"The device's network still confirms packets ({packets([alive.packet])}).", (alive.packet,)),
    ]
    if alike >= TIMES:
        evidence.append(Evidence(f"The same silence ends {plural(alike, 'connection')} of this device."))
    return facts.finding(
        "SPK504",
        Confidence.STRONG if alike >= TIMES else Confidence.LIKELY,
        *evidence,
        because=BECAUSE_TOO_BUSY,
        silence=True,
        quiet=duration(silence),
    )


# -- the way between them is gone ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cut:
    """A message behind a silence that got no answer but, perhaps, a reset by a third party."""

    place: int
    silence: int
    packet: int
    reset: int | None  # packet


def forgotten(every: AllFacts, ends: ByEnds) -> Iterator[Finding]:
    """SPK506: what the device says after a silence gets nowhere, on each connection.

    Likely for one reset that has not the server's time-to-live; strong when it is the same on several connections. A
    bad link (SPK505) is excluded by the silence before, a server that hangs (SPK503) by its missing
    acknowledgements, and any limit by a ping that survived as long a silence.
    """
    found: list[tuple[bytes, int, list[_Cut]]] = []
    answered: set[bytes] = set()
    for (_, server, _), sessions in ends.items():
        if any(session.pinged for session in sessions):
            answered.add(server)
        if cut := [session.cut for session in sessions if session.cut is not None]:
            found.append((server, len(sessions), cut))
    for server, count, every_cut in found:
        cut = [one for one in every_cut if one.silence > PINGED or server not in answered]
        resets = [one for one in cut if one.reset is not None]
        repeated = len(cut) >= TIMES and 2 * len(cut) >= count
        for one in cut if repeated else resets:
            yield _dropped(every[one.place], one, len(cut))


def _cut_off(facts: Facts, place: int) -> _Cut | None:
    c, device, server, end = facts.conversation, facts.device, facts.server, facts.first_closing
    tried = [f for f in c.last_frames if f.sender is Sender.DEVICE]
    if not tried or _missing_since(facts, tried[-1].time_ns - IDLE):
        return None
    if end is not None and end.sender is Sender.SERVER:
        frame, other_end = tried[-1], c.syn_ack is not None and end.how == "rst" and end.ttl != c.syn_ack.ttl
        silence = _silence_before(facts, frame.time_ns)
        if not other_end or silence < IDLE or not 0 <= end.time_ns - frame.time_ns <= AT_ONCE:
            return None
        return _Cut(place, silence, frame.packet, end.packet)
    since = device.unacked_since
    if since is None or device.acked >= device.sent or device.unacked_tries < GIVEN_UP_TRIES:
        return None
    if server.last_any is None or server.last_any.time_ns >= since.time_ns:
        return None
    waited = (c.closings[-1].time_ns if c.closings else facts.watched_until) - since.time_ns
    silence = _silence_before(facts, since.time_ns)
    return _Cut(place, silence, since.packet, None) if silence >= IDLE and waited >= 0.9 * GIVEN_UP_AFTER else None


def _missing_since(facts: Facts, time_ns: int) -> bool:
    """Whether something may be missing from the capture that either end said from that time on.

    One hole may last long, since what was acknowledged in steps is one; only what was captured behind it ends it.
    """
    c = facts.conversation
    latest = {sender: max((f.time_ns for f in c.last_frames if f.sender is sender), default=0) for sender in Sender}
    return c.hole_count > len(c.holes) or any(hole.time_ns >= min(time_ns, latest[hole.sender]) for hole in c.holes)


def _silence_before(facts: Facts, time_ns: int) -> int:
    """How long (ns) neither end had said anything."""
    before = [f.time_ns for f in facts.conversation.last_frames if f.time_ns < time_ns]
    return time_ns - max(before) if before else 0


def _dropped(facts: Facts, one: _Cut, times: int) -> Finding:
    tries = facts.device.unacked_tries
    evidence = [
        Evidence(
            f"Packet {number(one.packet)} from the device, after {duration(one.silence)} of silence on both sides,"
            + (
                f" is answered by a reset (packet {number(one.reset)}) that has not the server's time-to-live."
                if one.reset is not None
                else f" is sent {plural(tries, 'time')} and never acknowledged; nothing comes from the server any more."
            ),
            (one.packet,) if one.reset is None else (one.packet, one.reset),
        )
    ]
    if times >= TIMES:
        evidence.append(
            Evidence(f"It is the same on {plural(times, 'connection')}, and no silence of this length survives.")
        )
    return facts.finding(
        "SPK506",
        Confidence.STRONG if times >= TIMES else Confidence.LIKELY,
        *evidence,
        because=BECAUSE_CUT if one.reset is not None else BECAUSE_FORGOTTEN.format(times=plural(times, "time")),
        silence=one.reset is None,
        quiet=duration(one.silence),
    )


# -- two of them ---------------------------------------------------------------------------------------------------


def same_identity(every: AllFacts, ends: ByEnds) -> Iterator[Finding]:
    """SPK507: one ID at two addresses that are alive at the same time.

    Certain by the IDs in two logins that a key opens, strong by announcements from two network cards, likely by logins
    that take turns in throwing the other out. One device that moved is excluded: it no longer answers from where it
    was.
    """
    told: dict[frozenset[bytes], Told] = {}
    for one in (*_same_in_logins(every), *_same_announced(every), *_in_turn(every, ends)):
        told.setdefault(one[0], one)
    if not told:
        return
    by_address: dict[bytes, list[Facts]] = {address: [] for pair in told for address in pair}
    for facts in every:
        if facts.is_spark and facts.conversation.device.address in by_address:
            by_address[facts.conversation.device.address].append(facts)
    for pair, confidence, because, evidence in told.values():
        yield from _both(by_address, pair, confidence, because, evidence)


Told = tuple[frozenset[bytes], Confidence, str, tuple[Evidence, ...]]


def _both(
    by_address: dict[bytes, list[Facts]],
    pair: frozenset[bytes],
    confidence: Confidence,
    because: str,
    evidence: tuple[Evidence, ...],
) -> Iterator[Finding]:
    """One finding for each of the two, so that each device's story has it."""
    for address in sorted(pair):
        (other,) = pair - {address}
        own = by_address.get(address, [])
        if own:
            finding = own[0].finding(
                "SPK507",
                confidence,
                *evidence,
                because=because,
                here=address_text(address),
                there=address_text(other),
            )
            finding.conversations = tuple(facts.conversation.number for facts in own)
            yield finding


def _identity(facts: Facts) -> str | None:
    """The ID in the login, where a key opens it and it belongs to this connection."""
    secrets = facts.conversation.secrets
    identity = secrets.identity if secrets is not None else None
    return identity.device_id if identity is not None and identity.nonce_matches is not False else None


def _same_in_logins(every: AllFacts) -> Iterator[Told]:
    """With the server's private key: the same ID in both, and the earlier device still there when the later logs in.

    A device that moved to another network has left its old address; it cannot answer there any more.
    """
    by_id: dict[str, array[int]] = {}
    addresses: dict[str, bytes | None] = {}  # of each ID: the only one, None when there are several
    for place, facts in enumerate(every if every.trace.keys else ()):
        if (device_id := _identity(facts)) is not None:
            by_id.setdefault(device_id, array("L")).append(place)
            address = facts.conversation.device.address
            if addresses.setdefault(device_id, address) != address:
                addresses[device_id] = None
    for device_id, logins in by_id.items():
        if addresses[device_id] is not None:
            continue
        latest: dict[bytes, Facts] = {}  # of each address
        for later in map(every.__getitem__, logins):
            c = later.conversation
            for address, earlier in latest.items():
                alive = earlier.device.last_any
                if address == c.device.address or later.identity is None or alive is None:
                    continue
                if alive.time_ns > later.identity.time_ns and earlier.identity is not None:
                    yield (
                        frozenset((address, c.device.address)),
                        Confidence.CERTAIN,
                        BECAUSE_SAME_ID.format(id=device_id),
                        (
                            Evidence(
                                f"Packets {number(earlier.identity.packet)} and {number(later.identity.packet)}: logins"
                                f" with ID {device_id}, from {earlier.conversation.device.ip} and {c.device.ip}.",
                                (earlier.identity.packet, later.identity.packet),
                            ),
                            Evidence(
                                f"{earlier.conversation.device.ip} still answers after the other's login"
                                f" ({packets([alive.packet])}).",
                                (alive.packet,),
                            ),
                        ),
                    )
            latest.pop(c.device.address, None)
            latest[c.device.address] = later
            if len(latest) > PLACES:
                del latest[next(iter(latest))]


def _same_announced(every: AllFacts) -> Iterator[Told]:
    """Announcements in the device's own network: one ID from two addresses and two network cards."""
    by_id = defaultdict(list)
    for told in every.trace.background.announcements.values():
        if told.mac is not None:
            by_id[told.device_id].append(told)
    for device_id, tellers in by_id.items():
        for one, other in combinations(tellers[:HANDOVERS], 2):
            if one.mac != other.mac:
                yield (
                    frozenset((one.address, other.address)),
                    Confidence.STRONG,
                    BECAUSE_SAME_ANNOUNCED.format(id=device_id),
                    (
                        Evidence(
                            f"ID {device_id} is announced from {address_text(one.address)} (packet"
                            f" {number(one.packet)}) and from {address_text(other.address)} (packet"
                            f" {number(other.packet)}), by different network cards.",
                            (one.packet, other.packet),
                        ),
                    ),
                )


def _in_turn(every: AllFacts, ends: ByEnds) -> Iterator[Told]:
    """Without keys: each login of one is followed at once by the server's close of the other's session."""
    sessions = list(chain.from_iterable(ends.values()))
    ended = [session.place for session in sessions if session.closed]
    logins = sorted((s.login_ns, order, s.place) for order, s in enumerate(sessions) if s.login_ns is not None)
    times = [time_ns for time_ns, _, _ in logins] if ended else []
    thrown_out: dict[bytes, int] = defaultdict(int)
    closed: dict[frozenset[bytes], list[tuple[bytes, Closing]]] = defaultdict(list)
    for place in ended:
        facts = every[place]
        c, end = facts.conversation, facts.conversation.closings[0]
        thrown_out[c.device.address] += 1
        window = slice(bisect_left(times, end.time_ns - AT_ONCE), bisect_right(times, end.time_ns))
        for _, _, beside in logins[window][-LOGINS_AT_ONCE:]:
            later = every[beside]
            other = later.conversation
            ours = (other.server.address, other.server.port) == (c.server.address, c.server.port)
            if ours and other.device.address != c.device.address and _may_be_one(facts, later):
                closed[frozenset((c.device.address, other.device.address))].append((c.device.address, end))
    for pair, turns in closed.items():
        if len(turns) < HANDOVERS or {address for address, _ in turns} != pair:
            continue
        if len(turns) < sum(thrown_out[address] for address in pair):
            continue  # the server has other reasons as well
        told = [end.packet for _, end in turns]
        more = f" and {number(len(told) - HANDOVERS)} more" if len(told) > HANDOVERS else ""
        yield (
            pair,
            Confidence.LIKELY,
            BECAUSE_IN_TURN,
            (
                Evidence(
                    f"{plural(len(turns), 'time')} the server closes a session of one within 1 s of a login of the"
                    f" other ({packets(told[:HANDOVERS])}{more}).",
                    tuple(told[:HANDOVERS]),
                ),
            ),
        )


def _may_be_one(one: Facts, other: Facts) -> bool:
    """Whether nothing says that these have different IDs."""
    ids = one.conversation.device.id, other.conversation.device.id
    return None in ids or ids[0] == ids[1]
