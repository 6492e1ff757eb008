"""What one connection tells of the device's firmware, without a key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import Final

from analyzer.background import Announcement
from analyzer.catalogue import (
    FAST_CHUNK_FRAMES,
    HELLO_FRAMES,
    LARGEST_FROM_CORE,
    LARGEST_FROM_EARLY_PHOTON,
    LARGEST_FROM_PHOTON,
    LENGTH_PREFIX,
    NONCE_SIZE,
    RETRIES_EACH,
    RETRY_DOUBLINGS,
    RETRY_PAUSE,
    SERVER_HELLO_WAITS,
    SESSION_SIZE,
    SMALLEST_FRAME_ON_WIRE,
)
from analyzer.conversation import Conversation
from analyzer.findings import Confidence
from analyzer.recognition.model import G1A, G1B, G2A, G2B, G2C, G2D, PHOTONS, Clue, all_but, fits, holes_of
from analyzer.seen import FrameSeen
from analyzer.sessionwatch import Update
from analyzer.streams import Sender
from analyzer.wording import duration, number, packets, plural, with_article

NS: Final = 1_000_000_000
REPLY_ENDS: Final = NONCE_SIZE + SESSION_SIZE
OLD_CODE: Final = fits(G1A, G1B, G2A)
"""What came before Photon 0.8, and had another code base."""
HELLO_IN_TIME: Final = round(1.5 * NS)
"""A hello that comes sooner after the reply was not sent twice: a repeat takes a second, and the device's clock runs
from the first one."""
WAIT_EARLY, WAIT_LATE = round(0.1 * NS), round(0.8 * NS)
"""A device polls its clock, and shows its LED for 0.25 s before it closes."""
PATIENT: Final = round((max(SERVER_HELLO_WAITS) + 1.5) * NS)
LATE_TALK: Final = 10 * NS
"""Later firmware has said hello or closed long before."""
ANNOUNCES: Final = 2 * NS
"""The announcement comes right behind the login, be it good or bad."""
PAUSE_ROOM: Final = 0.9
"""What a device needs between two attempts beside its pause: the LED, a name lookup, the connection (s)."""
RETRIES: Final = RETRIES_EACH + 3
"""So many equal pauses are more than later firmware makes."""
LEVELS: Final = tuple(RETRY_PAUSE * 2**n for n in range(RETRY_DOUBLINGS + 1))
CHUNKS: Final = 16
ANSWERED: Final = 1.5
"""Short answers of the device for each chunk, from which it answers every one: it acknowledges it, and reports."""
CHUNK_PACE: Final = NS
AFTER_UPDATE: Final = 30 * NS
"""So long after the last chunk no more than a few of its short messages can be others."""

SINCE_APRIL: Final = "Spark Core with firmware of April 2014 to early 2015"
BEFORE_APRIL: Final = "Spark Core with firmware of 2013 or early 2014"


def clues_of(c: Conversation) -> Iterator[Clue]:
    """Yield what one connection tells by itself."""
    if c.kind not in ("spark", "empty"):
        return
    for clue in (_dead(c), _hello_size(c), _hello_wait(c), _talks_on(c), _frame_size(c), _fast_update(c)):
        if clue is not None:
            yield clue


def _dead(c: Conversation) -> Clue | None:
    """Frames under a key nobody agreed on (PROTOCOL 9.2); which of them tells when the firmware was made."""
    if not c.dead_frames:
        return None
    from analyzer.deadkey import PING  # noqa: PLC0415 - loaded already where there is such a frame

    first, name = c.dead_frames[0], None
    talks = [f for f in c.dead_frames if not (f.dead or "").startswith(PING)]
    if talks:
        name, first = SINCE_APRIL, talks[0]
    elif not holes_of(c) and not first.index:
        name = BEFORE_APRIL  # later it asks for the time first
    return Clue(
        "dead",
        fits(G1A),
        Confidence.CERTAIN,
        f"Packet {number(first.packet)} is {with_article(first.dead or '')}: later firmware closes instead.",
        (first.packet,),
        name,
    )


def _login(c: Conversation) -> tuple[FrameSeen, int] | None:
    """The device's hello and when the reply was whole (ns), where nothing is missing that could come between."""
    session, hello = c.part("session"), c.hello
    if session is None or not session.complete or session.missing or hello is None or c.dead_frames or holes_of(c):
        return None
    return hello, session.time_ns


def _hello_size(c: Conversation) -> Clue | None:
    """18 bytes, and 34 from 3.x on (7.1). The server's answer proves that it was a hello."""
    login, answer = _login(c), c.server_hello
    if login is None or answer is None:
        return None
    hello = login[0]
    return Clue(
        "hello size",
        fits(G2D) if hello.size == HELLO_FRAMES[1] else all_but(G2D),
        Confidence.STRONG,
        f"Packet {number(hello.packet)}: the hello has {hello.size} bytes.",
        (hello.packet,),
    )


def _hello_wait(c: Conversation) -> Clue | None:
    """How long the device waits for a server that does not say hello (2.4, D5)."""
    login, left = _login(c), next((one for one in c.closings if one.sender is Sender.DEVICE), None)
    if login is None or c.sides[Sender.SERVER].sent > REPLY_ENDS or any(q.retransmitted for q in c.quality):
        return None
    hello, replied_ns = login
    if hello.time_ns - replied_ns > HELLO_IN_TIME:
        return None
    if left is not None and left is c.closings[0]:
        waited = left.time_ns - hello.time_ns
        for wait, able in zip(SERVER_HELLO_WAITS, (fits(G1B, G2A), fits(G2B, G2C, G2D)), strict=True):
            if -WAIT_EARLY <= waited - round(wait * NS) <= WAIT_LATE:
                return Clue(
                    "hello wait",
                    able,
                    Confidence.LIKELY,
                    f"Packet {number(left.packet)}: without a hello from the server, the device leaves after"
                    f" {duration(waited)}.",
                    (hello.packet, left.packet),
                )
    last = c.sides[Sender.DEVICE].last_any
    stayed = min(one.time_ns for one in (last, left) if one is not None) - hello.time_ns if last is not None else 0
    if last is None or stayed < PATIENT:
        return None
    return Clue(
        "hello wait",
        OLD_CODE,
        Confidence.LIKELY,
        f"Packet {number(last.packet)}: without a hello from the server, the device is still there after"
        f" {duration(stayed)}.",
        (hello.packet, last.packet),
    )


def _talks_on(c: Conversation) -> Clue | None:
    """A short message long after a reply that got no hello: a dead key that cannot be told."""
    session, device = c.part("session"), c.sides[Sender.DEVICE]
    if session is None or not session.complete or c.sides[Sender.SERVER].sent > REPLY_ENDS or holes_of(c):
        return None
    first = next((f for f in c.first_frames if f.sender is Sender.DEVICE), None)
    if first is None or first.size != SMALLEST_FRAME_ON_WIRE or device.quality.retransmitted:
        return None
    waited = first.time_ns - session.time_ns
    if waited < LATE_TALK or first.dead:
        return None
    return Clue(
        "talks on",
        fits(G1A),
        Confidence.LIKELY,
        f"Packet {number(first.packet)}: the first message of the device, {duration(waited)} after the reply.",
        (first.packet,),
    )


def _frame_size(c: Conversation) -> Clue | None:
    """A message longer than what a Core, or a Photon of that time, has room for (4.3)."""
    device = c.sides[Sender.DEVICE]
    if holes_of(c, server=False) or device.frames == device.dead:
        return None
    longest = device.longest - LENGTH_PREFIX
    if longest <= LARGEST_FROM_CORE:
        return None
    able = fits(*PHOTONS)
    if longest > LARGEST_FROM_EARLY_PHOTON:
        able = fits(G2D)
    elif longest > LARGEST_FROM_PHOTON:
        able = fits(G2A, G2D)
    return Clue(
        "frame size",
        able,
        Confidence.STRONG,
        f"The device sends a message of {number(longest + LENGTH_PREFIX)} bytes; a Core has room for"
        f" {LARGEST_FROM_CORE + LENGTH_PREFIX}.",
        (),
    )


def is_fast(c: Conversation, update: Update | None) -> bool:
    """Whether chunks came in the fast form, each of them answered: calls have no such pace, and events no answers."""
    if update is None or update.size not in FAST_CHUNK_FRAMES or update.begun_packet is None or holes_of(c):
        return False
    pace = (update.last_ns - update.first_ns) // max(1, update.chunks - 1)
    return (
        update.chunks >= CHUNKS
        and pace <= CHUNK_PACE
        and update.answered >= ANSWERED * update.chunks
        and c.end_ns - update.last_ns <= AFTER_UPDATE
    )


def _fast_update(c: Conversation) -> Clue | None:
    """Fast updates came with 0.4; from 0.7 on a chunk is not answered any more (5.5)."""
    update = c.watch.update
    if update is None or not is_fast(c, update):
        return None
    return Clue(
        "fast update",
        fits(G1B, G2A),
        Confidence.LIKELY,
        f"Packets {number(update.first_packet)} to {number(update.last_packet)}: chunks of {update.size} bytes, an"
        " update in the fast form, and the device answers each.",
        (update.first_packet, update.last_packet),
    )


# -- several connections of one device ------------------------------------------------------------------------------


def announced(run: Sequence[Conversation], told: Sequence[Announcement]) -> Iterator[Clue]:
    """Yield what the device's announcements tell (2.7): Photons from 0.8 on make none, and only early Cores make
    them when the login has failed.
    """
    for announcement in told:
        around = [c for c in run if c.start_ns - ANNOUNCES <= announcement.time_ns <= c.end_ns + ANNOUNCES]
        if not around:
            continue
        ended = _failed_at(around[0]) if len(around) == 1 else None
        failed = ended is not None and 0 <= announcement.time_ns - ended <= ANNOUNCES
        yield Clue(
            "announces",
            fits(G1A) if failed else OLD_CODE,
            Confidence.STRONG,
            f"Packet {number(announcement.packet)}: the device announces itself in its network"
            + (", although its login has failed." if failed else "."),
            (announcement.packet,),
        )


def _failed_at(c: Conversation) -> int | None:
    """When the device knew that its login had failed (ns): by the last that it had of the server."""
    session, end = c.part("session"), c.first_closing
    if end is None or holes_of(c):
        return None
    if c.reached == "session" and session is not None:
        return session.time_ns
    return end.time_ns if c.reached == "identity" and end.sender is Sender.SERVER else None


def pace(run: Sequence[Conversation]) -> Iterator[Clue]:
    """Yield what the pauses between failed logins tell (2.6): none on early Cores, ever longer ones later."""
    for failed, group in groupby(run, key=_has_failed):
        if not failed:
            continue
        attempts = list(group)
        pauses = [(later.start_ns - earlier.closings[0].time_ns) / NS for earlier, later in pairwise(attempts)]
        if len(pauses) < RETRIES or min(pauses) < 0:
            continue
        where = tuple(c.first_packet for c in (attempts[0], attempts[-1]))
        said = f"{plural(len(attempts), 'failed login')} from {packets(where[:1])} on"
        if max(pauses) <= RETRY_PAUSE + PAUSE_ROOM:
            yield Clue(
                "pace",
                fits(G1A),
                Confidence.LIKELY,
                f"{said}, with never more than {duration(round(max(pauses) * NS))} between them.",
                where,
            )
        elif _backs_off(pauses):
            yield Clue(
                "pace",
                all_but(G1A),
                Confidence.STRONG,
                f"{said}: after each five the pause is twice as long.",
                where,
            )


def _has_failed(c: Conversation) -> bool:
    """Whether the device took part in a login that failed: one that never answered may have been restarted."""
    return c.reached in ("identity", "session", "hello") and bool(c.closings) and not holes_of(c)


def _backs_off(pauses: Sequence[float]) -> bool:
    """Whether each pause is one of later firmware, and each of these comes five times but the first and last."""
    levels = [next((level for level in LEVELS if level - 0.05 <= p <= level + PAUSE_ROOM), None) for p in pauses]
    steps = [(level, len(list(same))) for level, same in groupby(levels)]
    if len(steps) < 2 or any(level is None for level, _ in steps):
        return False
    doubled = all(later == 2 * (earlier or 0) for (earlier, _), (later, _) in pairwise(steps))
    full = all(count == RETRIES_EACH for _, count in steps[1:-1])
    ends = steps[0][1] <= RETRIES_EACH and (steps[-1][1] <= RETRIES_EACH or steps[-1][0] == LEVELS[-1])
    return doubled and full and ends
