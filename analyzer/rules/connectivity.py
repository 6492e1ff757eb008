"""SPK101–104: does a connection come about, and does a Spark server answer on it?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from analyzer.catalogue import DEVICE_READ_LIMIT, IDENTITY_SIZE, NONCE_SIZE, PING_AFTER, SMALLEST_FRAME_ON_WIRE
from analyzer.findings import Confidence, Evidence, Finding, NotChecked, RuledOut
from analyzer.kinds import request_kind
from analyzer.rules import around, words
from analyzer.rules.capture import service_name
from analyzer.rules.facts import AT_ONCE, NS, Facts
from analyzer.streams import Sender
from analyzer.wording import duration, number, packets, plural, quote, span, with_article

ENOUGH_SYNS: Final = 2
LONE_SYN: Final = 3 * NS
"""One request to connect must stay unanswered this long to count: the first repeat comes after 1 to 3 s."""
LOST_PATIENCE: Final = DEVICE_READ_LIMIT * NS / 2
"""Who hangs up sooner than this without a greeting was no device that waited in vain: it waits 20 s."""
DEAD_PING_AFTER: Final = PING_AFTER * NS * 0.9
"""A lone message this long after the connection, to a server that never greeted, is an early Core's ping."""
MIDDLEBOX_HOPS: Final = 2
BECAUSE_NO_INTERNET: Final = (
    "that this network has no way to the internet at all: the device's own test of it is not answered either."
)


def never_answers(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK101: SYNs without SYN-ACK or RST.

    Repeats, or an answer to the device from elsewhere, make it strong, an ICMP error about it certain; a lone SYN is
    likely once its first repeat is overdue. A capture of one direction shows ACKs of the device, so it is none of this.
    """
    c = facts.conversation
    if not unanswered(facts):
        return
    until = facts.capture_ends  # a further attempt from another port does not end the waiting
    complaint = around.complaint(facts)
    if complaint is None and not waited_enough(facts):
        yield NotChecked(
            "SPK101",
            f"The capture {facts.stops} {duration(until - c.syns[0].time_ns)} after {packets([c.syns[0].packet])} asked"
            " to connect; that is too soon to call it unanswered.",
            (c.number,),
        )
        return
    evidence = [
        Evidence(
            f"{plural(c.syn_count, 'request')} to connect"
            + (f" in {duration(c.syns[-1].time_ns - c.syns[0].time_ns)}" if c.syn_count > 1 else "")
            + f" (packet{'s' if c.syn_count > 1 else ''} {span(c.syns[0].packet, c.syns[-1].packet)}): 0 answers, 0"
            + (
                f" refusals, up to {duration(until - c.syns[-1].time_ns)} after the last."
                if until - c.syns[-1].time_ns > AT_ONCE
                else " refusals."
            ),
            tuple(seen.packet for seen in c.syns),
        )
    ]
    ruled_out = [RuledOut("SPK102", words.RULED_NO_REFUSAL)]
    confidence = Confidence.STRONG if c.syn_count >= ENOUGH_SYNS else Confidence.LIKELY
    because = words.BECAUSE_DROPPED
    elsewhere, looked_up = around.accepted_elsewhere(facts), around.looked_up(facts)
    offline = around.no_internet(facts) if elsewhere is None else None
    gave_up_early = c.syn_count < ENOUGH_SYNS and facts.dialled_again is not None
    if (elsewhere is not None or looked_up is not None) and not gave_up_early:
        # It is not the device's own network that swallows everything. Who dials anew without having repeated itself
        # may have been refused, in a packet that is not in the capture.
        confidence = Confidence.STRONG
    if offline is not None:
        because = BECAUSE_NO_INTERNET
    if complaint is not None:
        said = around.complaint_told(complaint)
        confidence, because = Confidence.CERTAIN, said.text
        evidence.append(said)
    evidence += [item for item in (elsewhere or looked_up, offline, around.answered_arp(facts)) if item is not None]
    yield facts.finding(
        "SPK101",
        confidence,
        *evidence,
        because=because.format(port=c.server.port),
        ruled_out=tuple(ruled_out),
        syns=c.syn_count,
    )


def unanswered(facts: Facts) -> bool:
    """Whether the device asked to connect and nobody answered, by as much as the capture holds."""
    c = facts.conversation
    return bool(c.syns) and not (
        c.syn_ack or c.connected or facts.server.quality.packets or facts.closing(Sender.SERVER)
    )


def waited_enough(facts: Facts) -> bool:
    """Whether the missing answer to a request to connect means anything: it was repeated, or is long overdue."""
    c = facts.conversation
    return c.syn_count >= ENOUGH_SYNS or facts.capture_ends - c.syns[0].time_ns >= LONE_SYN


def failed(facts: Facts) -> bool:
    """Whether no session came of this attempt, as far as the capture proves it."""
    return facts.came_up is False or (unanswered(facts) and waited_enough(facts))


def refused(facts: Facts) -> Iterator[Finding]:
    """SPK102: RST to the SYN, or from the server's side before any byte.

    The RST that answers a SYN is certain; after an acceptance something else may have ended it, so that is strong.
    """
    c, reset = facts.conversation, facts.first_closing
    if reset is None or reset.sender is not Sender.SERVER or reset.how != "rst":
        return
    if facts.server.sent or facts.device.sent or not c.syns:
        return
    accepted = c.syn_ack or c.connected
    if accepted is None:
        yield facts.finding(
            "SPK102",
            Confidence.CERTAIN,
            Evidence(
                f"{packets([reset.packet]).capitalize()} refuses the request to connect of"
                f" {packets([c.syns[-1].packet])}, {duration(reset.time_ns - c.syns[-1].time_ns)} later.",
                (c.syns[-1].packet, reset.packet),
            ),
            because=words.BECAUSE_REFUSED,
            ruled_out=(RuledOut("SPK101", words.RULED_IS_ANSWER),),
        )
    elif reset.time_ns - accepted.time_ns <= AT_ONCE:
        evidence = [
            Evidence(
                f"Accepted in {packets([accepted.packet])}, cut off by the server's side in {packets([reset.packet])},"
                f" {duration(reset.time_ns - accepted.time_ns)} later, before a byte was sent.",
                (accepted.packet, reset.packet),
            )
        ]
        if accepted is c.syn_ack and abs(reset.ttl - accepted.ttl) > MIDDLEBOX_HOPS:
            evidence.append(
                Evidence(
                    f"The reset comes from another machine than the acceptance: time-to-live {reset.ttl} against"
                    f" {accepted.ttl}. A firewall in between sent it.",
                    (reset.packet,),
                )
            )
        yield facts.finding("SPK102", Confidence.STRONG, *evidence, because=words.BECAUSE_CUT_OFF)


def something_else(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK103: text or TLS where the nonce belongs.

    Certain: 40 random bytes are never all letters. A client of such a service (SPK801) has spoken first, and where the
    device's first bytes are not in the capture, nobody knows.
    """
    c = facts.conversation
    opening = facts.server.opening
    first = facts.server.first_data
    if c.kind not in ("http", "tls", "ssh", "other") or not opening or first is None or facts.server.midway:
        return
    if request_kind(facts.device.opening) is not None:
        return  # a client of that service: SPK801
    device_first = facts.device.first_data
    if device_first is not None and device_first.time_ns < first.time_ns and not facts.identity:
        return  # the connecting side spoke first, and not as a Spark device: SPK801
    if device_first is not None and device_first.time_ns < first.time_ns and not c.dead_frames:
        return
    blind = facts.unseen is Sender.DEVICE or any(h.sender is Sender.DEVICE and h.offset == 0 for h in c.holes)
    if blind and facts.device.sent != IDENTITY_SIZE:
        yield facts.not_checked(
            "SPK103", "Who spoke first is not in the capture: the device's first bytes are missing."
        )
        return
    line = opening.splitlines()[0] if opening.splitlines() else opening
    what = words.GREETINGS[c.kind]
    seen = words.SEEN_INSTEAD.format(packet=packets([first.packet]), what=what, quoted=quote(line))
    evidence = [Evidence(f"{seen[0].upper()}{seen[1:]}. A greeting is {NONCE_SIZE} random bytes.", (first.packet,))]
    names = _names(opening)
    if names:
        evidence.append(Evidence(names, (first.packet,)))
    gave_up = facts.closing(Sender.DEVICE)
    if gave_up is not None and gave_up.time_ns < first.time_ns:
        evidence.append(
            Evidence(
                f"It came only after the device had given up ({packets([gave_up.packet])}).",
                (gave_up.packet,),
            )
        )
    mac = f" (MAC address {c.device.mac.hex(':')})" if c.device.mac else ""
    yield facts.finding(
        "SPK103",
        Confidence.CERTAIN,
        *evidence,
        because=f"{seen}.",
        ruled_out=(RuledOut("SPK301", words.RULED_NO_SPARK_SERVER),),
        service=service_name(c.kind, opening),
        mac=mac,
    )


def _names(opening: bytes) -> str:
    """What a web answer says about itself: where it sends on to, and its server's name."""
    headers: dict[bytes, bytes] = {}
    for line in opening.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    told = []
    if location := headers.get(b"location"):
        host = location.split(b"//", 1)[-1].split(b"/", 1)[0]
        told.append(f"sends on to {quote(host)}")
    if server := headers.get(b"server"):
        told.append(f"names itself {quote(server)}")
    return f"It {' and '.join(told)}." if told else ""


def silence(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK104: accepted, and no byte from the server (or only after the device had given up).

    Strong when the server ends it, or when the device has waited as long as devices do; who leaves sooner has only
    looked whether the port is open. A capture without the server's packets says nothing of its silence.
    """
    c, end = facts.conversation, facts.first_closing
    if c.connected is None or c.midway or c.kind not in ("empty", "spark") or facts.unseen is Sender.SERVER:
        return
    waited = facts.watched_until - c.connected.time_ns
    device_left = end is not None and end.sender is Sender.DEVICE
    late = device_left and facts.nonce is not None and end is not None and end.time_ns < facts.nonce.first_ns
    if (facts.server.sent and not late) or not _only_pinged(facts):
        return
    if end is not None and end.how == "rst" and end.sender is Sender.SERVER and waited <= AT_ONCE:
        return  # SPK102
    if end is None and waited < DEVICE_READ_LIMIT * NS:
        yield facts.not_checked(
            "SPK104",
            f"The capture {facts.stops} {duration(waited)} after the connection was accepted (packet"
            f" {number(c.connected.packet)}); a device waits 20 s for the greeting.",
        )
        return
    if device_left and waited < LOST_PATIENCE:
        yield facts.not_checked(
            "SPK104",
            f"The device itself closed after {duration(waited)}, before a silence of the server means anything.",
        )
        return
    yield facts.finding(
        "SPK104",
        Confidence.STRONG,
        *_silence(facts, waited, late=late),
        summary=words.SAYS_LATE_GREETING.format(server=facts.address) if late else None,
        because=words.BECAUSE_TOO_SLOW if late else words.BECAUSE_NO_SERVER,
        ruled_out=(
            RuledOut("SPK101", words.RULED_ACCEPTED),
            RuledOut("SPK301", words.RULED_BEFORE_KEYS),
        ),
        silence=True,
        late=late,
    )


def _only_pinged(facts: Facts) -> bool:
    """Whether the device sent nothing, or nothing but what an early Core sends to a server that never greets: a
    ping, 15 s after the connection or later (PROTOCOL 9.2).
    """
    c, first = facts.conversation, facts.device.first_data
    if not facts.device.sent or c.dead_frames:
        return True
    alone = facts.device.first_size == facts.device.sent == SMALLEST_FRAME_ON_WIRE
    return (
        alone
        and first is not None
        and c.connected is not None
        and first.time_ns - c.connected.time_ns > DEAD_PING_AFTER
    )


def _silence(facts: Facts, waited: int, *, late: bool) -> Iterator[Evidence]:
    c, end = facts.conversation, facts.first_closing
    if c.connected is not None:
        yield Evidence(
            f"Connected in {packets([c.connected.packet])}; then not one byte from the server in {duration(waited)}.",
            (c.connected.packet,),
        )
    if (proxy := around.answers_for_everyone(facts)) is not None:
        yield proxy
    if end is not None:
        yield Evidence(f"The {end.sender} closed in {packets([end.packet])}.", (end.packet,))
    if late and facts.nonce is not None and end is not None:
        yield Evidence(
            f"The greeting came in packet {number(facts.nonce.first_packet)},"
            f" {duration(facts.nonce.first_ns - end.time_ns)} after the device had given up.",
            (facts.nonce.first_packet,),
        )
    if c.dead_frames:
        frame = c.dead_frames[0]
        yield Evidence(
            f"Packet {number(frame.packet)} is {with_article(frame.dead or '')}: firmware of 2014 that waits in vain.",
            (frame.packet,),
        )
    elif facts.device.sent and facts.device.first_data is not None:
        ping = facts.device.first_data
        yield Evidence(
            f'Packet {number(ping.packet)} has the size of a ping, in the place of "who I am": firmware of 2014 that'
            " waits in vain.",
            (ping.packet,),
        )
