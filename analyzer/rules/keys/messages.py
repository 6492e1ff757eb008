"""SPK502, SPK503, SPK601: what the opened messages say that sizes and times do not.

Each of these rests on something that was not said. That is proof only where nothing of that direction is missing
from the capture, all of it opens, and its sender was heard again later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

from analyzer.findings import Confidence, Evidence, Finding, NotChecked
from analyzer.messages import label, quote
from analyzer.rules.facts import NS, Facts
from analyzer.rules.keys.session import HANGS_UP, source
from analyzer.rules.update import BEGIN_AGAIN, NEVER_BEGINS, SAYS_NEVER_BEGINS
from analyzer.sessionwatch import STALL
from analyzer.streams import Sender
from analyzer.wording import duration, number, packets, plural

if TYPE_CHECKING:
    from analyzer.messages import SparkMessage

OVERDUE: Final = 5 * NS
"""Both ends answer within a round trip; what has waited this long was not answered."""
NEVER_ANSWERED: Final = ("Ping", "KeyChange", "ChunkMissed")
"""Requests of which other rules tell (SPK503 without keys, SPK602), and one that Cores ignore."""
OF_AN_UPDATE: Final = ("UpdateBegin", "SaveBegin", "Chunk", "OtaStart", "OtaChunk")
"""While an update runs, servers hold everything else back."""
CALL: Final = "FunctionCall"
LISTED: Final = 16
"""Requests without an answer that are looked at; more of them say no more."""

AROUND_AN_OFFER: Final = 30 * NS
MANY_EVENTS: Final = 10
"""One each 6 s; a device that published each 2.5 s could not be updated (DIAGNOSES SPK601)."""

SAYS_DEVICE_SILENT: Final = "The device works, but it never answers a request of the server: {what}."
SAYS_SERVER_SILENT: Final = "The server works, but it never answers a request of the device: {what}."
BECAUSE_PROGRAM: Final = "that the function takes too long, or that the program on the device is busy elsewhere."
BECAUSE_LOST_INSIDE: Final = "that it was lost inside the {sender}: its other messages came."
BECAUSE_COUNTS: Final = "that the server hung up because of it: the open servers count these numbers."
BECAUSE_HANGS: Final = "that the device is busy, or hangs while it makes room for the update."
BECAUSE_BUSY: Final = "that the program on the device keeps it too busy to take the update."
SHORTER_FUNCTION: Final = (
    "Keep functions that the cloud calls short: note what to do, return at once, and do it in loop().",
    "Start in safe mode, to see whether the device answers without its program.",
)


def number_jumped(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK502: a message number of the device that is not the next one, and the server hangs up at once.

    Strong: all that the device sent is in the capture and opens, so no hole makes the jump. A ping's number, which no
    server checks, and a message that was answered all the same are excluded.
    """
    c, end = facts.conversation, facts.first_closing
    if end is None or end.sender is not Sender.SERVER or facts.reached != "established":
        return
    if c.secrets is None or c.secrets.reader is None or not complete(facts, Sender.DEVICE):
        return
    jump = c.secrets.gist.jump
    if jump is None:
        return
    message, due = jump
    answered = any(m.answers == message.index for m in c.messages)
    if answered or not 0 <= end.time_ns - message.time_ns <= HANGS_UP + facts.round_trip:
        return
    yield facts.finding(
        "SPK502",
        Confidence.STRONG,
        Evidence(
            f"Packet {number(message.packet)}, {label(message)}, has message number {message.message_id}; the next one"
            f" was {due}.",
            (message.packet,),
        ),
        Evidence(
            f"The server hangs up {duration(end.time_ns - message.time_ns)} later (packet {number(end.packet)}),"
            " without an answer.",
            (end.packet,),
        ),
        Evidence(f"All messages of the device are in the capture and open with {source(c.secrets)}."),
        because=BECAUSE_COUNTS,
        packet=number(message.packet),
    )


def request_unanswered(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK503: a confirmable request that the other side never acknowledges, though it goes on talking.

    Strong: all that the other side sent until long after it is in the capture and opens. A dead path (SPK505, SPK506)
    is excluded by what it still says, requests that nobody answers by their names, updates by their own findings.
    """
    c, secrets = facts.conversation, facts.conversation.secrets
    if secrets is None or secrets.reader is None or secrets.reader.forgotten or facts.reached != "established":
        return
    if facts.unseen is not None or secrets.gist.count(*OF_AN_UPDATE):
        return
    if not any(count for name, count in secrets.reader.unheard.items() if name not in NEVER_ANSWERED):
        return  # as nearly always; to find nothing takes several times as long as to decrypt
    answered = {m.answers for m in c.messages}
    # A capture may hold an answer before its request.
    early = {(m.direction, m.message_id) for m in c.messages if m.type == "ACK" and m.answers is None}
    for asker in Sender:
        heard = _heard_until(facts, asker.peer)
        unanswered = (
            m
            for m in c.messages
            if m.direction == asker.value
            and m.type == "CON"
            and m.name not in NEVER_ANSWERED
            and m.index not in answered
            and (asker.peer.value, m.message_id) not in early
            and _arrived(facts, asker, m)
        )
        waiting = [m for m in islice(unanswered, LISTED) if heard >= m.time_ns + OVERDUE]
        if waiting:
            yield _not_answered(facts, asker, waiting)


def _not_answered(facts: Facts, asker: Sender, waiting: list[SparkMessage]) -> Finding:
    first = waiting[0]
    what = label(first) if first.values.get("name") is None else f"{label(first)} {quote(str(first.values['name']))}"
    waited = duration(facts.watched_until - first.time_ns)
    called = any(m.name == CALL for m in waiting)
    more = (
        f" So {'does' if len(waiting) == 2 else 'do'} {plural(len(waiting) - 1, 'other')}." if len(waiting) > 1 else ""
    )
    finding = facts.finding(
        "SPK503",
        Confidence.STRONG,
        Evidence(
            f"Packet {number(first.packet)} is {what} from the {asker}; {waited} later the {asker.peer} has still not"
            f" acknowledged it.{more}",
            tuple(m.packet for m in waiting),
        ),
        Evidence(f"The {asker.peer} sends other messages after it, and all of them are in the capture and open."),
        summary=(SAYS_DEVICE_SILENT if asker is Sender.SERVER else SAYS_SERVER_SILENT).format(what=what),
        because=BECAUSE_PROGRAM if called else BECAUSE_LOST_INSIDE.format(sender=asker.peer),
        silence=True,
    )
    finding.predicate = f"gets no answer to {what}" if asker is Sender.DEVICE else f"never answers {what}"
    if called:
        finding.fix = SHORTER_FUNCTION
    return finding


def update_not_begun(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK601: UpdateBegin, and the device never says that it is ready.

    Strong: what the device says after it is all in the capture and opens. A refusal has its own rule, and chunks show
    that it began.
    """
    c = facts.conversation
    if c.secrets is None or not c.secrets.gist.count("UpdateBegin"):
        return
    if facts.unseen is not None or facts.reached != "established":
        return
    offers = [m for m in c.messages if m.name == "UpdateBegin"]
    first = offers[0]
    places = {m.index for m in offers}
    answers = [m for m in c.messages if m.answers in places]
    if any(m.name not in (None, "UpdateBeginAck") or "error" in m.values for m in answers):
        return  # ready, or refused
    if c.secrets.gist.count("Chunk") or _heard_until(facts, Sender.DEVICE) < first.time_ns + STALL:
        return
    finding = facts.finding(
        "SPK601",
        Confidence.STRONG,
        Evidence(
            f"The server offers an update {plural(len(offers), 'time')} ({packets([m.packet for m in offers])});"
            + (" the device acknowledges it, and is never ready." if answers else " the device does not answer."),
            tuple(m.packet for m in offers),
        ),
        Evidence("The device sends other messages after that, and all of them are in the capture and open."),
        *_busy(c.messages, first),
        summary=SAYS_NEVER_BEGINS.format(times=plural(len(offers), "time")),
        because=BECAUSE_HANGS if answers else BECAUSE_BUSY,
        silence=True,
        chunks=0,
    )
    finding.predicate, finding.fix = NEVER_BEGINS, BEGIN_AGAIN
    yield finding


def _busy(messages: Iterable[SparkMessage], offer: SparkMessage) -> Iterator[Evidence]:
    """SPK601b: what the device publishes all the time while an update is to begin."""
    events = [
        m.packet
        for m in messages
        if m.name == "Event" and m.direction == "device" and abs(m.time_ns - offer.time_ns) <= AROUND_AN_OFFER
    ]
    if len(events) >= MANY_EVENTS:
        yield Evidence(
            f"In the minute around the offer the device publishes {plural(len(events), 'event')} (packets"
            f" {number(events[0])} to {number(events[-1])}): its program keeps it busy.",
            (events[0], events[-1]),
        )


def complete(facts: Facts, sender: Sender) -> bool:
    """Whether all that this end ever said is in the capture, and opens.

    What is missing long before a request counts as well: a capture that lost packets may hold a request's repeat
    alone, behind its answer.
    """
    c = facts.conversation
    side, pattern = c.sides[sender], c.secrets.patterns.get(sender) if c.secrets is not None else None
    if pattern is None or pattern.opened < pattern.frames or side.lost or side.skipped or side.rest:
        return False
    return c.hole_count == len(c.holes) and not any(hole.sender is sender for hole in c.holes)


def _heard_until(facts: Facts, sender: Sender) -> int:
    """When (ns) this end was last heard, with nothing of it missing before; 0 where something is.

    Its close counts as well: the number in it tells that there was nothing before.
    """
    secrets = facts.conversation.secrets
    if secrets is None or not complete(facts, sender):
        return 0
    heard = secrets.gist.latest[sender]
    end = facts.closing(sender)
    if end is not None and end.how == "fin":
        heard = max(heard, end.time_ns)
    return min(heard, facts.watched_until)


def _arrived(facts: Facts, sender: Sender, message: SparkMessage) -> bool:
    """Whether TCP delivered this message."""
    waiting = facts.conversation.sides[sender].unacked_since
    return facts.delivered(sender) or (waiting is not None and waiting.time_ns > message.time_ns)
