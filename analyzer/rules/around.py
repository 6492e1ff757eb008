"""What the packets around a conversation say about it: complaints, neighbours, and what else the device was answered.

The plugin does not see these packets, so what is told here may add evidence and change how sure a statement is, and
what it is put down to, but never make a finding of its own.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

from analyzer.background import Answer
from analyzer.catalogue import PROBE_ADDRESS, PROBE_PORT
from analyzer.findings import Evidence
from analyzer.network.units import IcmpError, address_text, is_local
from analyzer.rules.facts import NS, Facts
from analyzer.wording import duration, endpoint, packets, plural, with_article

ICMP_UNREACHABLE: Final = {4: 3, 6: 1}
PROHIBITED: Final = frozenset((9, 10, 13))
NEARBY: Final = 60 * NS
"""What was answered this long before or after an attempt says that the network worked during it."""
PROBE_AFTER: Final = 120 * NS
"""A device tests the internet connection after a failed attempt: its connect gives up after a minute or two."""
PROBE_LIMIT: Final = 3 * NS
"""One such test must stay unanswered this long to count; its first repeat comes after 1 to 3 s."""
NEXT_DOOR: Final = 3_000_000
"""Nobody beyond the local network answers within 3 ms (DIAGNOSES SPK104)."""
FRESH_TTLS: Final = frozenset((64, 128, 255))
"""The times to live that systems begin with: no router has handled such a packet."""


def complaint(facts: Facts) -> IcmpError | None:
    """An ICMP error about this very connection."""
    c = facts.conversation
    for error in facts.trace.background.complaints:
        if (
            error.type == ICMP_UNREACHABLE[error.version]
            and error.quoted_target == c.server.address
            and error.quoted_target_port == c.server.port
            and error.quoted_source == c.device.address
            and error.quoted_source_port in (c.device.port, None)
        ):
            return error
    return None


def complaint_told(error: IcmpError) -> Evidence:
    """What an ICMP error says, and who says so."""
    what = "says that it is not allowed" if error.code in PROHIBITED else "says that it cannot be reached"
    return Evidence(
        f"{address_text(error.reporter)} {what} ({packets([error.number])}, ICMP type {error.type} code {error.code}).",
        (error.number,),
    )


def question_kind(address: bytes) -> str:
    """How a machine's neighbours ask who has this address."""
    return "ARP" if ip_address(address).version == 4 else "neighbour discovery"


def answered_arp(facts: Facts) -> Evidence | None:
    """The device's Wi-Fi works: it asked for a neighbour and got an answer."""
    for question in facts.trace.background.questions.values():
        if question.asker == facts.conversation.device.address and question.answer_ns is not None:
            assert question.answer_packet is not None  # noqa: S101 - set together with its time
            return Evidence(
                f"Wi-Fi is up: {with_article(question_kind(question.asker))} question was answered in"
                f" {duration(question.answer_ns - question.time_ns)}"
                f" ({packets([question.answer_packet])}).",
                (question.answer_packet,),
            )
    return None


def accepted_elsewhere(facts: Facts) -> Evidence | None:
    """The device's way to the internet works: about the same time a connection to somewhere else was accepted."""
    c = facts.conversation
    accepted = facts.trace.background.connected.get(c.device.address, [])
    answer = _nearby(facts, [a for a in accepted if not is_local(a.source)])
    if answer is None:
        return None
    return Evidence(
        f"Another connection of the device, to {endpoint(address_text(answer.source), answer.port)}, is accepted"
        f" ({packets([answer.packet])}).",
        (answer.packet,),
    )


def looked_up(facts: Facts) -> Evidence | None:
    """The device's own network works: about the same time a name lookup was answered, whatever it said."""
    answer = _nearby(facts, facts.trace.background.resolved.get(facts.conversation.device.address, []))
    if answer is None:
        return None
    return Evidence(
        f"{address_text(answer.source)} answers the device's name lookup ({packets([answer.packet])}).",
        (answer.packet,),
    )


def _nearby(facts: Facts, answers: list[Answer]) -> Answer | None:
    c = facts.conversation
    return next((a for a in answers if c.start_ns - NEARBY <= a.time_ns <= c.end_ns + NEARBY), None)


def no_internet(facts: Facts) -> Evidence | None:
    """The device's own test of the internet connection, after the failed attempt, gets no answer either."""
    c, trace = facts.conversation, facts.trace
    tests = [
        (packet, time_ns)
        for packet, time_ns in trace.background.probes.get(c.device.address, [])
        if c.start_ns <= time_ns <= c.end_ns + PROBE_AFTER
    ]
    if not tests or (len(tests) == 1 and (trace.last_ns or 0) - tests[0][1] < PROBE_LIMIT):
        return None
    return Evidence(
        f"The device's test of the internet connection, {PROBE_ADDRESS} port {PROBE_PORT}, gets no answer either"
        f" ({plural(len(tests), 'request')}, first: {packets([tests[0][0]])}).",
        tuple(packet for packet, _ in tests),
    )


def answers_for_everyone(facts: Facts) -> Evidence | None:
    """What accepted the connection is no server far away but a machine of the device's own network."""
    c = facts.conversation
    if c.syn_ack is None or not c.syns or is_local(c.server.address) or not is_local(c.device.address):
        return None
    took = c.syn_ack.time_ns - c.syns[-1].time_ns
    if not 0 <= took < NEXT_DOOR or not {c.syn_ack.ttl, c.syns[-1].ttl} <= FRESH_TTLS:
        return None
    return Evidence(
        f"{packets([c.syn_ack.packet]).capitalize()} accepts after {duration(took)}, and no router has handled it"
        f" (time to live {c.syn_ack.ttl}): a machine in the device's own network answers for {c.server.ip}, a proxy"
        " or a login page.",
        (c.syns[-1].packet, c.syn_ack.packet),
    )
