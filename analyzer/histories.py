"""What became of each device over the whole capture, and what the devices of one server have in common.

An attempt that the capture cannot judge breaks nothing and proves nothing, so changes are claimed between judged
attempts only: some time after the last sign of the state before, and by the first sign of the new one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby, pairwise, takewhile
from typing import Final

from analyzer.causes import causes_first, look_of
from analyzer.conversation import Conversation
from analyzer.devices import OVERLAP, Device
from analyzer.findings import BAD, Finding
from analyzer.streams import Sender
from analyzer.trace import Trace

NS: Final = 1_000_000_000
OF_THE_DEVICE: Final = ("SPK507", "SPK508")
"""Faults that are told of a device, not of each of its attempts."""
STEADY: Final = 3
"""After changes to and fro, a state that lasts for fewer attempts than this is one more of them."""
LASTS: Final = 2
"""How much longer than ever before the last state must have lasted, after changes to and fro."""
ALIKE: Final = (0.75, 1.33)
"""Ratios of pauses that are the same pause: with a name lookup before the attempt, or without."""
DOUBLED: Final = (1.5, 2.6)
"""Ratios of pauses where the later one is twice the earlier, and some lookups or busy moments more."""
PAUSES: Final = 3
"""From so many pauses on something can be said about them."""
PAUSES_GROWING: Final = 6
"""The firmware waits five times before it doubles its pause (PROTOCOL 2.6): fewer cannot show that."""
OUT_OF_LINE: Final = 0.1
"""The share of pauses that may differ: a device that is switched off and on, or has no Wi-Fi for a while."""
OUTLIVES: Final = 30 * NS
"""A session that goes on this long after others began to fail does not have what they have: a device pings after
15 s and gives up 10 s later."""
AT_ONE_TIME: Final = 120 * NS
"""Devices whose attempts begin to fail within this time may have one reason for it although they fail differently:
their pauses grow to 128 s."""
COMMON: Final = 2
"""Devices of one server that fail alike since one moment: from so many on it is no accident."""
COMMON_FROM_START: Final = 3
"""So many are needed where nobody has been seen working, or only one of them."""
AT_THE_SERVER: Final = (
    "SPK101",
    "SPK102",
    "SPK103",
    "SPK104",
    "SPK201",
    "SPK204",
    "SPK205",
    "SPK206",
    "SPK208",
    "SPK503",
    "SPK505",
    "SPK506",
)
"""Looks that a server, or the way to it, can give to all its devices at once; others are the devices' own doing."""


class Outcome(StrEnum):
    """What became of an attempt."""

    WORKED = "worked"
    FAILED = "failed"
    UNJUDGED = "unjudged"


class Course(StrEnum):
    """What became of a device."""

    WORKS = "works"
    NEVER_WORKED = "never-worked"
    FAILS_SINCE = "fails-since"
    WORKS_SINCE = "works-since"
    NOW_AND_THEN = "now-and-then"
    SEVERAL_AT_ONCE = "several-at-once"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Attempt:
    """One connection and what became of it. A login fails from its first packet on, a session when it ends."""

    conversation: Conversation
    outcome: Outcome
    codes: tuple[str, ...] = ()  # the faults seen on it, cause first
    time_ns: int = 0  # the first sign of the outcome
    packet: int = 0

    @property
    def code(self) -> str | None:
        """The fault to show first."""
        return self.codes[0] if self.codes else None

    @property
    def look(self) -> str | None:
        """How the failure looks on the wire, whatever its cause."""
        return look_of(self.codes) if self.codes else None


@dataclass(frozen=True, slots=True)
class Change:
    """From one state to another: after ``before``, and by ``time_ns`` (packets likewise)."""

    was: Outcome
    became: Outcome
    code: str | None
    before_ns: int
    before_packet: int
    time_ns: int
    packet: int


@dataclass(frozen=True, slots=True)
class Pattern:
    """The pauses (ns) between a failed attempt and the next one: ``fixed``, ``doubling`` or ``irregular``."""

    kind: str
    count: int
    first_ns: int
    shortest_ns: int
    median_ns: int
    longest_ns: int


@dataclass(slots=True)
class History:
    """One device over the whole capture."""

    device: Device
    attempts: list[Attempt]
    course: Course
    changes: list[Change]
    pattern: Pattern | None
    findings: list[Finding] = field(default_factory=list)  # of this device

    @property
    def judged(self) -> list[Attempt]:
        """The attempts that the capture can judge."""
        return [a for a in self.attempts if a.outcome is not Outcome.UNJUDGED]

    @property
    def since(self) -> Attempt:
        """The first of the judged attempts that ended as the last one did, without a break."""
        judged = self.judged
        *_, first = takewhile(lambda a: a.outcome is judged[-1].outcome, reversed(judged))
        return first

    def count(self, outcome: Outcome) -> int:
        """How many attempts ended so."""
        return sum(a.outcome is outcome for a in self.attempts)


def histories(trace: Trace) -> list[History]:
    """Return the history of each device, in the order in which they appear. Linear in the number of conversations."""
    owners = {c.number: place for place, device in enumerate(trace.devices) for c in device.conversations}
    findings: list[list[Finding]] = [[] for _ in trace.devices]
    for finding in trace.findings:
        if finding.conversations and finding.conversations[0] in owners:
            findings[owners[finding.conversations[0]]].append(finding)
    return [_history(device, own) for device, own in zip(trace.devices, findings, strict=True)]


def _history(device: Device, findings: list[Finding]) -> History:
    faults: dict[int, list[str]] = {}
    worked = {n for f in findings if f.code == "SPK001" for n in f.conversations}
    for finding in causes_first(findings):
        if finding.severity in BAD and finding.code not in OF_THE_DEVICE:
            for n in finding.conversations:
                faults.setdefault(n, []).append(finding.code)
    attempts = [_attempt(c, tuple(faults.get(c.number, ())), c.number in worked) for c in device.conversations]
    judged = [a for a in attempts if a.outcome is not Outcome.UNJUDGED]
    course = Course.SEVERAL_AT_ONCE if _several_at_once(attempts) else course_of([a.outcome for a in judged])
    changes = [] if course is Course.SEVERAL_AT_ONCE else _changes(judged)
    return History(device, attempts, course, changes, _pattern(attempts), findings)


def _attempt(c: Conversation, codes: tuple[str, ...], worked: bool) -> Attempt:
    if codes:
        if c.reached == "established":
            end = c.first_closing
            time_ns, packet = (c.end_ns, c.last_packet) if end is None else (end.time_ns, end.packet)
            return Attempt(c, Outcome.FAILED, codes, time_ns, packet)
        return Attempt(c, Outcome.FAILED, codes, c.start_ns, c.first_packet)
    # A session that was under way when the capture began: its login is not in it, but both ends go on talking.
    goes_on = c.midway and c.kind == "spark" and all(map(c.live_frames, Sender))
    outcome = Outcome.WORKED if worked or goes_on else Outcome.UNJUDGED
    return Attempt(c, outcome, (), c.start_ns, c.first_packet)


# -- the course of things ------------------------------------------------------------------------------------------


def course_of(outcomes: Sequence[Outcome]) -> Course:
    """Say what a row of judged attempts amounts to."""
    runs = [(outcome, len(list(group))) for outcome, group in groupby(outcomes)]
    if not runs:
        return Course.UNKNOWN
    last, length = runs[-1]
    works = last is Outcome.WORKED
    if len(runs) == 1:
        return Course.WORKS if works else Course.NEVER_WORKED
    earlier = [count for outcome, count in runs[:-1] if outcome is last]
    if len(runs) == 2 or (len(runs) == 3 and runs[1][1] > 1):
        steady = True
    else:
        steady = length >= STEADY and length >= LASTS * max(earlier)
    if not steady:
        return Course.NOW_AND_THEN
    return Course.WORKS_SINCE if works else Course.FAILS_SINCE


def _several_at_once(attempts: Sequence[Attempt]) -> bool:
    """Whether a session of this address went on while other connections of it came and went."""
    until = 0
    for attempt in attempts:
        c = attempt.conversation
        if c.start_ns < until:
            return True
        if attempt.outcome is Outcome.WORKED:
            # Messages count, not packets: what nobody acknowledges is repeated long after the device has dialled anew.
            said = [frame.time_ns for frame in c.last_frames if frame.sender is Sender.DEVICE]
            until = max([until, *(time_ns - OVERLAP for time_ns in said)])
    return False


def _changes(judged: Sequence[Attempt]) -> list[Change]:
    changes = []
    for earlier, later in pairwise(judged):
        if earlier.outcome is not later.outcome or earlier.look != later.look:
            c = earlier.conversation
            until, packet = (c.end_ns, c.last_packet) if c.end_ns < later.time_ns else (later.time_ns, later.packet)
            changes.append(
                Change(
                    earlier.outcome,
                    later.outcome,
                    later.code,
                    until,
                    min(packet, later.packet),
                    later.time_ns,
                    later.packet,
                )
            )
    return changes


# -- the pauses ----------------------------------------------------------------------------------------------------


def pauses(conversations: Sequence[Conversation]) -> list[int]:
    """Return the time (ns) from the end of each connection to the begin of the next."""
    found = []
    for earlier, later in pairwise(conversations):
        found.append(max(0, later.start_ns - earlier.end_ns))
    return found


def _pattern(attempts: Sequence[Attempt]) -> Pattern | None:
    between = pauses([a.conversation for a in attempts])
    waited = [pause for a, pause in zip(attempts, between, strict=False) if a.outcome is Outcome.FAILED]
    if len(waited) < PAUSES:
        return None
    in_order = sorted(waited)
    return Pattern(_kind(waited), len(waited), waited[0], in_order[0], in_order[len(in_order) // 2], in_order[-1])


def _kind(waited: Sequence[int]) -> str:
    """Name what the pauses do. Some out of line are forgiven: the rest must still tell the same."""
    middle = sorted(waited)[len(waited) // 2]
    if sum(not ALIKE[0] * middle <= pause <= ALIKE[1] * middle for pause in waited) <= OUT_OF_LINE * len(waited):
        return "fixed"
    ratios = [later / max(1, earlier) for earlier, later in pairwise(waited)]
    doubled = sum(DOUBLED[0] <= ratio <= DOUBLED[1] for ratio in ratios)
    alike = sum(ALIKE[0] <= ratio <= ALIKE[1] for ratio in ratios)
    others = len(ratios) - doubled - alike
    if len(waited) >= PAUSES_GROWING and doubled and others <= OUT_OF_LINE * len(ratios) and doubled >= others:
        return "doubling"
    return "irregular"


# -- the devices of one server -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Member:
    """One device's attempts with one server."""

    history: History
    attempts: list[Attempt] = field(default_factory=list)
    failing: Attempt | None = None  # the first of the failures that are still going on
    worked: Attempt | None = None  # the last that worked before these, or at all

    @property
    def had_worked(self) -> bool:
        """Whether it was seen working before; a session that drops has worked until then."""
        return self.worked is not None or (self.failing is not None and _in_session(self.failing))


@dataclass(slots=True)
class Together:
    """Devices of one server that fail for one reason, as far as their attempts show it."""

    members: list[Member]
    others: int  # devices that called this server afterwards too, and were not seen to fail with these
    outlived: list[Member]  # devices whose sessions, begun before, go on
    since: Attempt
    last_success: Attempt | None
    look: str

    @property
    def worked_before(self) -> int:
        """How many of them had worked."""
        return sum(m.had_worked for m in self.members)

    @property
    def certain(self) -> bool:
        """Whether so many are no accident."""
        return len(self.members) >= COMMON_FROM_START


@dataclass(slots=True)
class ServerHistory:
    """One server, by address and port, and how the devices fare that call it."""

    address: bytes
    ip: str
    port: int
    members: list[Member]
    together: Together | None

    @property
    def failing(self) -> list[Member]:
        """The devices whose last judged attempt failed."""
        return [m for m in self.members if m.failing is not None]


def servers(every: Iterable[History]) -> list[ServerHistory]:
    """Return the servers in the order in which they were called. Linear in the number of attempts."""
    by_server: dict[tuple[bytes, int], dict[int, Member]] = {}
    names: dict[tuple[bytes, int], str] = {}
    for place, history in enumerate(every):
        for attempt in history.attempts:
            end = attempt.conversation.server
            key = (end.address, end.port)
            names[key] = end.ip
            by_server.setdefault(key, {}).setdefault(place, Member(history)).attempts.append(attempt)
    told = []
    for (address, port), members in by_server.items():
        own = list(members.values())
        for member in own:
            _last_state(member)
        told.append(ServerHistory(address, names[address, port], port, own, _together(own)))
    return told


def _last_state(member: Member) -> None:
    for attempt in member.attempts:
        if attempt.outcome is Outcome.WORKED:
            member.worked, member.failing = attempt, None
        elif attempt.outcome is Outcome.FAILED and member.failing is None:
            member.failing = attempt


def _together(members: Sequence[Member]) -> Together | None:
    """The devices that began to fail after the server's last success, if they have one reason."""
    successes = [m.worked for m in members if m.worked is not None]
    last = max(successes, key=lambda a: a.time_ns, default=None)
    after = [m for m in members if m.failing is not None and (last is None or m.failing.time_ns > last.time_ns)]
    firsts = [m.failing for m in after if m.failing is not None]
    if len(firsts) < COMMON:
        return None
    since = min(a.time_ns for a in firsts)
    ((look, _),) = Counter(a.look or "" for a in firsts).most_common(1)
    group = []
    for member, first in zip(after, firsts, strict=True):
        at_once = member.had_worked and first.time_ns - since <= AT_ONE_TIME
        if at_once or (first.look == look and not _in_session(first)):
            group.append(member)
    fell = sum(m.had_worked for m in group)
    if look not in AT_THE_SERVER or len(group) < (COMMON if fell >= COMMON else COMMON_FROM_START):
        return None
    begun = min((m.failing for m in group if m.failing is not None), key=lambda a: a.time_ns)
    inside = {id(m) for m in group}
    beside = [m for m in members if id(m) not in inside]
    others = sum(m.attempts[-1].conversation.start_ns > begun.time_ns for m in beside)
    outlived = [m for m in beside if m.failing is None and _outlives(m, begun)]
    return Together(group, others, outlived, begun, last, look)


def _in_session(attempt: Attempt) -> bool:
    return attempt.conversation.reached == "established"


def _outlives(member: Member, begun: Attempt) -> bool:
    """Whether the last session that worked goes on long after others began to fail."""
    return member.worked is not None and member.worked.conversation.end_ns > begun.time_ns + OUTLIVES
