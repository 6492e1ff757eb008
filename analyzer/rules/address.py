"""SPK105, SPK106: does the device call the right address, and how did it come by it?

Both rest on packets around the conversation: name lookups, ARP, ICMP. Where these are not in the capture, nothing is
said; where a Spark server greeted the device, the address was right (SPK106).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from analyzer.background import MUTE, WEB_PORTS, Lookup, LookupPacket, Question
from analyzer.catalogue import CLOUD_NAME, FALLBACK_ADDRESS, IDENTITY_SIZE, SPARK_PORT
from analyzer.conversation import Conversation
from analyzer.findings import Confidence, Evidence, Finding, NotChecked, RuledOut, Severity, weaker
from analyzer.network.units import address_text, is_local
from analyzer.rules import around, expected
from analyzer.rules.connectivity import failed, unanswered, waited_enough
from analyzer.rules.facts import NS, Facts
from analyzer.streams import Sender
from analyzer.wording import duration, listing, number, packets, plural

LOOKED_UP_BEFORE: Final = 120 * NS
"""A device looks the name up before each attempt; nine tries of a Core take a minute or more (PROTOCOL 1.4)."""
A_COPY: Final = NS
"""The same question within this time is a copy of the packet: a device waits longer before it asks again."""
OUT_OF_ORDER: Final = NS
"""Two capture points in one file show packets in another order than they were sent, by less than this."""
ENOUGH_QUESTIONS: Final = 2
"""One question without answer may be a hole in the capture; who asks again has got no answer."""
WAITS: Final = NS
"""Who asks again, or dials, sooner than this has not waited in vain: the answer may be missing in the capture."""
ASKED_NEARBY: Final = 60 * NS
"""An ARP question this long before or after an attempt belongs to it."""
HOST_UNREACHABLE: Final = {4: 1, 6: 3}
"""The codes by which a router says that no machine answers its own questions for the address."""

BECAUSE_NOT_FOUND: Final = "that the lookup finds nothing: the cause is the network's DNS server, or the name is gone."
BECAUSE_NOT_ANSWERED: Final = "that no DNS server answers the device."
BECAUSE_GONE: Final = "that the server has moved to another address. A server that is switched off looks the same."
BECAUSE_WEB_PORT: Final = "that the port stored in the device is a web server's."
BECAUSE_STORED: Final = "that an address of its own is stored in the device."
BECAUSE_LED_ASTRAY: Final = "that this network's DNS server sends the device astray: a login page, or a filter."
SAYS_GONE: Final = "The device calls {server}, an address in its own network at which no machine answers."
SAYS_WEB_PORT: Final = (
    f"The device calls {{server}} on port {{port}}, a web server's port; Spark servers listen on {SPARK_PORT}."
)
SAYS_ELSEWHERE: Final = "The device calls {server}, but its name lookup gave {found}; no Spark server answers there."
SAYS_LED_ASTRAY: Final = (
    "The name lookup sends the device to {server}, an address inside a local network, and no Spark server answers"
    " there."
)
COMPARE_NAMES: Final = (
    "On a computer in the same Wi-Fi, compare what the network's own DNS server and a public one say:",
    f"  nslookup {CLOUD_NAME}",
    f"  nslookup {CLOUD_NAME} 9.9.9.9",
    "They differ: finish the Wi-Fi's login page, or take the name off the filter (Pi-hole, router).",
)


# -- the name lookup -------------------------------------------------------------------------------------------------


def fallback(facts: Facts) -> Iterator[Finding]:
    """SPK105: the lookup of the cloud's name fails, and the device dials the address built into its firmware.

    Certain when an answer says that there is no such name, strong when the device waits, asks again and waits in vain.
    A name that leads to this very address is excluded by the answers in the capture; the address alone is nothing.
    """
    c = facts.conversation
    lookup = facts.trace.background.lookups.get((c.device.ip, CLOUD_NAME))
    if c.server.ip != FALLBACK_ADDRESS or lookup is None or not c.syns:
        return
    if c.server.ip in lookup.places or not lookup.complete:
        return  # the name leads to this very address, so to dial it proves nothing
    asked, answers = _before(facts, lookup)
    if any(p.found or p.unread for p in answers):
        return
    refusals = [p for p in answers if p.kind == "A"]
    if not refusals and not _waited_in_vain(asked, c.syns[0].time_ns):
        return
    severity = None if failed(facts) else Severity.INFO if facts.came_up else Severity.MINOR
    yield facts.finding(
        "SPK105",
        Confidence.CERTAIN if refusals else Confidence.STRONG,
        *_failed_lookup(facts, asked, refusals),
        because=BECAUSE_NOT_FOUND if refusals else BECAUSE_NOT_ANSWERED,
        silence=not refusals,
        severity=severity,
        questions=len(asked),
    )


def _waited_in_vain(asked: list[LookupPacket], dialled: int) -> bool:
    """Whether the device itself behaved as one that gets no answer: it waited, asked again, waited, and dialled."""
    times = [*(p.time_ns for p in asked), dialled]
    waits = [later - earlier for earlier, later in pairwise(times)]
    return len(waits) >= ENOUGH_QUESTIONS and min(waits) >= WAITS


def _time(p: LookupPacket) -> int:
    return p.time_ns


def _number(c: Conversation) -> int:
    return c.number


def _before(facts: Facts, lookup: Lookup) -> tuple[list[LookupPacket], list[LookupPacket]]:
    """The questions that led to this attempt, and what came back before it; copies of a packet count once.

    What the device asked before its attempt before this one led to that one.
    """
    c, trace = facts.conversation, facts.trace
    dialled = c.syns[0].time_ns
    since = dialled - LOOKED_UP_BEFORE
    # Not all conversations need be there: one was chosen, or the oldest have been let go.
    for index in range(bisect_left(trace.conversations, c.number, key=_number) - 1, -1, -1):
        earlier = trace.conversations[index]
        if earlier.start_ns < since:
            break
        if earlier.device.address == c.device.address:
            since = earlier.start_ns
            break
    asked: list[LookupPacket] = []
    answers = []
    # A device that dials for hours asks as often: only the questions around this attempt are looked at.
    first = bisect_left(lookup.packets, since - OUT_OF_ORDER, key=_time)
    for p in lookup.packets[first : bisect_right(lookup.packets, dialled + OUT_OF_ORDER, key=_time)]:
        if not since <= p.time_ns <= dialled:
            continue
        if p.found is not None or p.unread:
            answers.append(p)
        elif not (asked and asked[-1].identifier == p.identifier and p.time_ns - asked[-1].time_ns < A_COPY):
            asked.append(p)
    return [p for p in asked if p.kind == "A"], answers


def _failed_lookup(facts: Facts, asked: list[LookupPacket], refusals: list[LookupPacket]) -> Iterator[Evidence]:
    c = facts.conversation
    if asked:
        fate = "" if refusals else f", not one answer in {duration(c.syns[0].time_ns - asked[0].time_ns)}"
        yield Evidence(
            f"{plural(len(asked), 'question')} for {CLOUD_NAME} ({packets([p.packet for p in asked[:4]])}"
            f"{' and on' if len(asked) > 4 else ''}){fate}.",
            tuple(p.packet for p in asked),
        )
    if refusals:
        where = "packet" if len(refusals) == 1 else "packets"
        listed = listing([number(p.packet) for p in refusals[:4]])
        yield Evidence(
            f"The answer is that there is no such name or address ({where} {listed}).",
            tuple(p.packet for p in refusals),
        )
    yield Evidence(
        f"{packets([c.syns[0].packet]).capitalize()} then dials {FALLBACK_ADDRESS}, which firmware of 2013 to 2016"
        " keeps for this case.",
        (c.syns[0].packet,),
    )


# -- the wrong address or port ---------------------------------------------------------------------------------------


def wrong_address(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK106: not the server that the user named; nobody there; not what the lookup gave; a web server's port.

    Certain for an address that the user named; strong when a router says that nobody has it, when nobody answers to
    ARP while others are answered, or when a web server is told a login; otherwise likely. A blocked port (SPK101) is
    excluded by the machine that has the address; whoever greets as a Spark server is one.
    """
    found = [*expected.elsewhere(facts), *_no_spark_server(facts)]
    findings = [one for one in found if isinstance(one, Finding)]
    yield from (one for one in found if not isinstance(one, Finding))
    if findings:
        first, *others = findings  # one connection, one finding: what the user knows, and why nobody answers there
        for other in others:
            first.evidence += other.evidence
            first.ruled_out += other.ruled_out
            first.packets = tuple(sorted({*first.packets, *other.packets}))
            first.because, first.fix = other.because, other.fix
            first.confidence = weaker(first.confidence, other.confidence)
        yield first


def _no_spark_server(facts: Facts) -> Iterator[Finding | NotChecked]:
    """Nobody has the address, it is not what the name lookup gave, or the port is a web server's."""
    c = facts.conversation
    if c.midway or (facts.nonce is not None and facts.is_spark) or facts.unseen is Sender.SERVER or not c.syns:
        return  # whoever greets as a Spark server is one
    said = [*_web_port(facts), *_name_leads_elsewhere(facts)]
    yield from said
    if not said and unanswered(facts) and is_local(c.server.address):
        yield from _nobody_there(facts)


def _nobody_there(facts: Facts) -> Iterator[Finding | NotChecked]:
    c = facts.conversation
    error = around.complaint(facts)
    if error is not None and error.code == HOST_UNREACHABLE[error.version]:
        yield _gone(facts, Confidence.STRONG, around.complaint_told(error))
        return
    if error is not None or not waited_enough(facts):
        return
    questions = facts.trace.background.questions
    about = [q for q in questions.values() if q.target == c.server.address]
    kind = around.question_kind(c.server.address)
    if not about:
        yield facts.not_checked(
            "SPK106",
            f"Whether a machine still has the address {c.server.ip}: no {kind} question for it is in the capture.",
        )
    lives = any(q.answer_packet for q in about) or any(q.asker == c.server.address for q in questions.values())
    near = [q for q in about if _belongs(facts, q) and q.insisted]
    if lives or not near:
        return
    tries = sum(q.tries for q in near)
    asker = address_text(near[0].asker)
    others = any(q.answer_packet for q in questions.values())
    yield _gone(
        facts,
        Confidence.STRONG if others else Confidence.LIKELY,
        Evidence(
            f"{asker if asker != c.device.ip else 'The device'} asks {plural(tries, 'time')} who has {c.server.ip}"
            f" ({kind}, first: {packets([near[0].packet])}): nobody answers"
            + (", though other such questions are answered." if others else "."),
            tuple(q.packet for q in near),
        ),
    )


def _belongs(facts: Facts, question: Question) -> bool:
    c = facts.conversation
    return question.last_ns >= c.start_ns - ASKED_NEARBY and question.time_ns <= c.end_ns + ASKED_NEARBY


def _gone(facts: Facts, confidence: Confidence, seen: Evidence) -> Finding:
    return facts.finding(
        "SPK106",
        confidence,
        seen,
        summary=SAYS_GONE.format(server=facts.address),
        because=BECAUSE_GONE,
        ruled_out=(RuledOut("SPK102", "nobody is there who could refuse"),),
        silence=True,
        why="nobody there",
    )


def _web_port(facts: Facts) -> Iterator[Finding]:
    """A device that waits for a greeting, or answers one that is none, on a port of web servers."""
    c = facts.conversation
    first = facts.server.first_data
    if c.server.port not in WEB_PORTS or c.connected is None:
        return
    leaves = facts.closing(Sender.DEVICE)
    until = min((seen.time_ns for seen in (first, leaves) if seen is not None), default=facts.watched_until)
    mute = not facts.device.sent and leaves is not None and until == leaves.time_ns
    if facts.identity is not None and facts.device.sent == IDENTITY_SIZE and first is not None:
        yield facts.finding(
            "SPK106",
            Confidence.STRONG,
            Evidence(
                f"{packets([first.packet]).capitalize()} is no greeting; the device answers it with the"
                f" {IDENTITY_SIZE} bytes of its login ({packets([facts.identity.packet])}), as only a Spark device"
                " does.",
                (first.packet, facts.identity.packet),
            ),
            summary=SAYS_WEB_PORT.format(server=facts.address, port=c.server.port),
            because=BECAUSE_WEB_PORT,
            why="web port",
        )
    elif mute and leaves is not None and MUTE[0] <= until - c.connected.time_ns <= MUTE[1]:
        yield facts.finding(
            "SPK106",
            Confidence.LIKELY,
            Evidence(
                f"Connected in {packets([c.connected.packet])}; nobody says a word, and the device closes after"
                f" {duration(until - c.connected.time_ns)} ({packets([leaves.packet])}): a Spark device waits 20 s for"
                " a greeting, a web server for a request.",
                (c.connected.packet, leaves.packet),
            ),
            summary=SAYS_WEB_PORT.format(server=facts.address, port=c.server.port),
            because=BECAUSE_WEB_PORT,
            silence=True,
            why="web port",
        )


def _name_leads_elsewhere(facts: Facts) -> Iterator[Finding]:
    """The device dials an address that its lookup did not give, or the lookup gave one inside a local network."""
    c = facts.conversation
    lookup = facts.trace.background.lookups.get((c.device.ip, CLOUD_NAME))
    if lookup is None or not lookup.complete or not failed(facts) or not is_local(c.device.address):
        return  # behind a router's address there may be many devices: whose lookup it was cannot be told
    found = [p for p in _before(facts, lookup)[1] if p.found]
    if not found or lookup.unread:
        return
    last = found[-1]
    if c.server.ip in lookup.places:
        if c.server.ip in (last.found or ()) and is_local(c.server.address):
            yield _misled(facts, last)
        return
    given = sorted(lookup.places)
    yield facts.finding(
        "SPK106",
        Confidence.LIKELY,
        Evidence(
            f"{packets([last.packet]).capitalize()} says that {CLOUD_NAME} is {listing(given[:3], 'or')};"
            f" {packets([c.syns[0].packet])} dials {c.server.ip}, {duration(c.syns[0].time_ns - last.time_ns)} later.",
            (last.packet, c.syns[0].packet),
        ),
        summary=SAYS_ELSEWHERE.format(server=facts.address, found=listing(given[:3], "or")),
        because=BECAUSE_STORED,
        why="not what the lookup gave",
    )


def _misled(facts: Facts, answer: LookupPacket) -> Finding:
    c = facts.conversation
    finding = facts.finding(
        "SPK106",
        Confidence.LIKELY,
        Evidence(
            f"{packets([answer.packet]).capitalize()} says that {CLOUD_NAME} is {c.server.ip}; the cloud is on the"
            " internet, this address is not.",
            (answer.packet,),
        ),
        summary=SAYS_LED_ASTRAY.format(server=facts.address),
        because=BECAUSE_LED_ASTRAY,
        why="name leads into a local network",
    )
    finding.fix = COMPARE_NAMES
    return finding
