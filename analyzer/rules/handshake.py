"""SPK201–209: where the login stops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from analyzer.catalogue import (
    DEVICE_READ_LIMIT,
    HELLO_FRAMES,
    HELLO_WAIT,
    IDENTITY_SIZE,
    NONCE_SIZE,
    SESSION_SIZE,
)
from analyzer.findings import Confidence, Evidence, Finding, NotChecked, RuledOut, Severity
from analyzer.rules.facts import NS, Facts
from analyzer.streams import Sender
from analyzer.wording import duration, number, packets, size

AT_ONCE: Final = NS
"""A close within this time of a message is an answer to it."""
LATE_HELLO: Final = HELLO_WAIT * NS
SLOW_DEVICE: Final = 5 * NS
SLOW_SERVER: Final = 2 * NS
SLOW_LOGIN: Final = 8 * NS

NETWORK_FINE: Final = "SPK101"
PORTAL: Final = "SPK103"


def _passed(facts: Facts) -> tuple[RuledOut, ...]:
    """What a login that got as far as the identity excludes."""
    done = [p for p in (facts.nonce, facts.identity, facts.session) if p is not None and p.complete and p.received]
    ruled = []
    if len(done) > 1:
        whole = done[-1].time_ns - done[0].first_ns
        ruled.append(RuledOut(NETWORK_FINE, f"{packets([p.packet for p in done])} came within {duration(whole)}"))
    if facts.nonce is not None and facts.nonce.data is not None:
        ruled.append(RuledOut(PORTAL, f"packet {number(facts.nonce.packet)} is random, not text"))
    return tuple(ruled)


def _ended(facts: Facts) -> str:
    """How the attempt ended, as a sentence."""
    end = facts.first_closing
    if end is None:
        return "The capture ends before either side closes."
    how = "cut the connection off" if end.how == "rst" else "closed"
    return f"The {end.sender} {how} in {packets([end.packet])}."


def wrong_nonce(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK201: 1–39 bytes, or more than 40 before the device has answered."""
    nonce = facts.nonce
    if nonce is None or not facts.is_spark or facts.server.midway or facts.unseen is Sender.SERVER:
        return
    if not nonce.complete:
        waited = facts.watched_until - nonce.time_ns
        if not facts.conversation.closings and waited < DEVICE_READ_LIMIT * NS:
            yield NotChecked(
                "SPK201",
                f"Only {size(nonce.sent)} of the greeting are there, and the capture ends {duration(waited)} later.",
                (facts.conversation.number,),
            )
            return
        yield facts.finding(
            "SPK201",
            Confidence.STRONG,
            Evidence(
                f"{size(nonce.sent)} of the greeting came in packet {number(nonce.packet)}, and no more.",
                (nonce.packet,),
            ),
            Evidence(_ended(facts), tuple(c.packet for c in facts.conversation.closings[:1])),
            because="that the greeting is not whole.",
            silence=True,
            size=nonce.sent,
        )
        return
    answer = facts.device.first_data
    session = facts.session
    early = session is not None and session.received and (answer is None or session.first_ns < answer.time_ns)
    if early and session is not None and facts.unseen is None and not nonce.missing:
        total = NONCE_SIZE + sum(n for p, n in session.cuts if answer is None or p < answer.packet)
        yield facts.finding(
            "SPK201",
            Confidence.STRONG,
            Evidence(
                f"The server sent {size(total)} (packets {number(nonce.first_packet)} to {number(session.first_packet)})"
                " before the device answered.",
                (nonce.first_packet, session.first_packet),
            ),
            because="that the greeting is too long.",
            size=total,
        )


def nonce_not_answered(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK202: the device never says who it is."""
    c, nonce = facts.conversation, facts.nonce
    if nonce is None or not nonce.complete or not facts.is_spark or facts.device.sent or facts.unseen is Sender.DEVICE:
        return
    gave_up = facts.closing(Sender.DEVICE)
    if gave_up is not None and gave_up.time_ns < nonce.first_ns:
        return  # SPK104: the greeting came too late
    if facts.session is not None and facts.session.received:
        return  # SPK201: the server did not wait
    waited = facts.watched_until - nonce.time_ns
    if not c.closings and waited < DEVICE_READ_LIMIT * NS:
        yield NotChecked(
            "SPK202",
            f"The capture ends {duration(waited)} after the greeting (packet {number(nonce.packet)}): too soon to"
            " call the device silent.",
            (c.number,),
        )
        return
    server_left = facts.first_closing is not None and facts.first_closing.sender is Sender.SERVER
    if server_left and waited < 5 * NS:
        yield NotChecked(
            "SPK202",
            f"The server closed {duration(waited)} after its own greeting, before the device had time to answer.",
            (c.number,),
        )
        return
    evidence = [
        Evidence(
            f"The greeting came in packet {number(nonce.packet)}; no byte from the device in {duration(waited)}.",
            (nonce.packet,),
        ),
        Evidence(_ended(facts), tuple(x.packet for x in c.closings[:1])),
    ]
    confidence = Confidence.STRONG
    if c.nonce_acked is None:
        confidence = Confidence.LIKELY
        evidence.append(Evidence("The device never acknowledged the greeting: it may have lost its Wi-Fi."))
    else:
        evidence.append(
            Evidence(f"It did arrive: {packets([c.nonce_acked.packet])} acknowledges it.", (c.nonce_acked.packet,))
        )
    yield facts.finding(
        "SPK202",
        confidence,
        *evidence,
        because="that the device hangs, or cannot use the server key stored in it.",
        ruled_out=_passed(facts),
        silence=True,
    )


def identity_in_pieces(facts: Facts) -> Iterator[Finding]:
    """SPK203: the 256 bytes in several packets, or another size, and the server hangs up."""
    identity, c = facts.identity, facts.conversation
    if identity is None or facts.nonce is None or not facts.is_spark or facts.session is not None:
        return
    end = facts.closing(Sender.SERVER)
    if facts.unseen is not None:
        return
    total = facts.device.sent
    if identity.missing and not identity.complete:
        return
    if not identity.complete or total > IDENTITY_SIZE:
        if end is None or (end.time_ns - identity.first_ns > 40 * NS and not identity.complete):
            return
        how = f"has {number(total)} bytes instead of {IDENTITY_SIZE}"
        if identity.complete:
            because = "that the server key stored in the device has another size than the server's."
        else:
            because = "that the server did not wait for the rest."
            how = f"comes in pieces: {number(total)} of {IDENTITY_SIZE} bytes had been sent"
    elif len(identity.cuts) > 1 and end is not None and end.time_ns - identity.time_ns < AT_ONCE:
        how = f"comes in {len(identity.cuts)} pieces"
        because = "that the pieces are the cause: both open servers read only once."
    else:
        return
    assert end is not None  # noqa: S101 - each branch above has asked for it
    pieces = ", ".join(f"{n} bytes in packet {number(p)}" for p, n in identity.cuts[:4])
    yield facts.finding(
        "SPK203",
        Confidence.LIKELY,
        Evidence(f'"Who I am": {pieces}.', tuple(p for p, _ in identity.cuts)),
        Evidence(
            f"The server closed in {packets([end.packet])}, {duration(abs(end.time_ns - identity.time_ns))}"
            f" {'after' if end.time_ns >= identity.time_ns else 'before'} the last piece, without a reply.",
            (end.packet,),
        ),
        because=because,
        ruled_out=_passed(facts),
        how=how,
        total=total,
        conversation=c.number,
    )


def refused_identity(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK204: the server closes after 256 bytes without a reply."""
    identity, c = facts.identity, facts.conversation
    if identity is None or not identity.complete or facts.session is not None or not facts.is_spark:
        return
    if facts.unseen is Sender.SERVER or facts.device.sent > IDENTITY_SIZE or facts.nonce is None:
        return
    end = facts.closing(Sender.SERVER)
    waited = facts.watched_until - identity.time_ns
    if end is None or end.time_ns - identity.time_ns > DEVICE_READ_LIMIT * NS * 10:
        yield from _no_reply(facts, waited)
        return
    first = facts.first_closing
    if first is not None and first.sender is Sender.DEVICE and first.time_ns - identity.time_ns < AT_ONCE:
        yield NotChecked("SPK204", "The device hung up before the server could reply.", (c.number,))
        return
    if len(identity.cuts) > 1 and end.time_ns - identity.time_ns < AT_ONCE:
        return  # SPK203
    waited = end.time_ns - identity.time_ns
    at_once = waited <= AT_ONCE
    yield facts.finding(
        "SPK204",
        Confidence.STRONG if at_once else Confidence.LIKELY,
        Evidence(
            f'"Who I am" was whole in packet {number(identity.packet)}; the server closed in {packets([end.packet])},'
            f" {duration(waited)} later, and sent nothing.",
            (identity.packet, end.packet),
        ),
        because=(
            'that the server refused "who I am"; which of the causes it is cannot be seen without a key.'
            if at_once
            else "that the server could not find or use this device's key."
        ),
        ruled_out=(*_passed(facts), RuledOut("SPK301", "the server never came to use the device's key")),
        silence=True,
        at_once=at_once,
    )


def _no_reply(facts: Facts, waited: int) -> Iterator[Finding | NotChecked]:
    """The server neither replies nor closes: it looks for the device's key, or hangs."""
    identity = facts.identity
    assert identity is not None  # noqa: S101 - the caller has looked
    if waited < DEVICE_READ_LIMIT * NS * 0.95:
        yield NotChecked(
            "SPK204",
            f'{_ended(facts)} That is {duration(waited)} after "who I am" (packet {number(identity.packet)}): too'
            " soon to call the server silent.",
            (facts.conversation.number,),
        )
        return
    yield facts.finding(
        "SPK204",
        Confidence.LIKELY,
        Evidence(
            f'"Who I am" was whole in packet {number(identity.packet)}; nothing from the server in {duration(waited)}.',
            (identity.packet,),
        ),
        Evidence(_ended(facts), tuple(x.packet for x in facts.conversation.closings[:1])),
        summary='The server greets the device, takes its "who I am" and never replies: its look-up of the device\'s key'
        " hangs, as old servers do when the key is not on file.",
        because="that the server waits for a key that is not on file.",
        ruled_out=_passed(facts),
        silence=True,
        at_once=False,
    )


def wrong_reply(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK205: another number of bytes than 384."""
    session, c = facts.session, facts.conversation
    if session is None or facts.server.midway or facts.unseen is not None or not facts.is_spark:
        return
    if facts.identity is None or session.first_ns < facts.identity.first_ns:
        return
    total = facts.server.sent - NONCE_SIZE
    if not session.complete:
        waited = facts.watched_until - session.time_ns
        if not c.closings and waited < DEVICE_READ_LIMIT * NS:
            yield NotChecked(
                "SPK205",
                f"{size(session.sent)} of the reply are there, and the capture ends {duration(waited)} later.",
                (c.number,),
            )
            return
    else:
        lost = [x for x in facts.server.lost if x.offset == NONCE_SIZE + SESSION_SIZE]
        if not lost or facts.device.frames or lost[0].time_ns - session.time_ns > AT_ONCE:
            return
    yield facts.finding(
        "SPK205",
        Confidence.STRONG,
        Evidence(f"The reply in packet {number(session.packet)} has {size(total)}.", (session.packet,)),
        Evidence(_ended(facts), tuple(x.packet for x in c.closings[:1])),
        because="that a key of the wrong size is on file at the server.",
        ruled_out=_passed(facts),
        silence=not session.complete,
        size=number(total),
    )


def silent_after_reply(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK206 and SPK207: the device cannot use the reply."""
    c, session = facts.conversation, facts.session
    if session is None or not session.complete or not facts.is_spark:
        return
    if facts.server.sent > NONCE_SIZE + SESSION_SIZE and (facts.server.frames or not facts.server.lost):
        return
    if any(x.offset == NONCE_SIZE + SESSION_SIZE for x in facts.server.lost):
        return  # SPK205
    if facts.unseen is Sender.SERVER and c.reply_acked is None:
        return
    dead = [f for f in c.dead_frames if f.time_ns >= session.first_ns]
    live = [f for f in c.first_frames if f.sender is Sender.DEVICE and not f.dead and f.time_ns >= session.first_ns]
    prompt = [f for f in live if f.time_ns - session.time_ns < LATE_HELLO]
    if prompt or (facts.device.skipped and not dead):
        return  # SPK208
    if facts.device.sent > IDENTITY_SIZE and not dead and not live:
        return  # something came from the device that was not captured whole
    end = facts.first_closing
    waited = (dead or live)[0].time_ns - session.time_ns if dead or live else facts.watched_until - session.time_ns
    device_closed = end is not None and end.sender is Sender.DEVICE
    if not dead and c.reply_acked is None and facts.unseen is not Sender.DEVICE and not device_closed:
        yield NotChecked(
            "SPK206",
            f"The device never acknowledged the reply (packet {number(session.packet)}): it may not have arrived.",
            (c.number,),
        )
        return
    if not dead and not live and not device_closed and waited < LATE_HELLO:
        how = "The server closed" if end is not None else "The capture ends"
        yield NotChecked(
            "SPK206",
            f"{how} {duration(waited)} after the reply (packet {number(session.packet)}); a device may take 5 s for"
            " its hello.",
            (c.number,),
        )
        return
    replied = Evidence(
        f'Packet {number(session.packet)}: the server replied to "who I am", so it could read it and found this'
        " device on file.",
        (session.packet,),
    )
    ruled_out = (
        *_passed(facts),
        RuledOut("SPK302", f"the server would have hung up instead of sending packet {number(session.packet)}"),
        RuledOut("SPK304", f"the server would have hung up instead of sending packet {number(session.packet)}"),
    )
    if device_closed and end is not None and not dead and not live:
        silent = Evidence(
            f"Instead of a hello the device closed, {duration(end.time_ns - session.time_ns)} after the reply"
            f" ({packets([end.packet])}).",
            (end.packet,),
        )
    else:
        silent = Evidence(
            f"No hello from the device in {duration(waited)}. {_ended(facts)}",
            tuple(x.packet for x in c.closings[:1]),
        )
    if dead:
        yield facts.finding(
            "SPK207",
            Confidence.CERTAIN,
            *(
                Evidence(
                    f"Packet {number(f.packet)} is a {f.dead}: the device has no key, because its login failed."
                    if "zero" in (f.dead or "")
                    else f"Packet {number(f.packet)} is a {f.dead}: the device did not take the new key.",
                    (f.packet,),
                )
                for f in dead[:3]
            ),
            because="that it cannot use the reply.",
            ruled_out=ruled_out,
            dead=len(dead),
        )
    yield facts.finding(
        "SPK206",
        Confidence.STRONG,
        replied,
        silent,
        because="because the key on file at the server is not the key inside this device.",
        ruled_out=ruled_out,
        silence=True,
        waited=waited,
    )
    yield NotChecked(
        "SPK301",
        "Which key is wrong, and the signature on the reply: no key was given. Add --device-key FILE --server-key"
        " FILE.",
        (c.number,),
    )


def dead_without_reply(facts: Facts) -> Iterator[Finding]:
    """SPK207 where no reply ever came: it proves that the device is not logged in, not why."""
    c = facts.conversation
    if not c.dead_frames or (facts.session is not None and facts.session.complete):
        return
    frame = c.dead_frames[0]
    finding = facts.finding(
        "SPK207",
        Confidence.CERTAIN,
        Evidence(f"Packet {number(frame.packet)} is a {frame.dead}.", (frame.packet,)),
        summary="The device sends a message under a key that nobody agreed on: it is not logged in.",
    )
    finding.severity = Severity.INFO
    yield finding


def hello_not_answered(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK208: a hello in time, and nothing from the server."""
    c, session, hello = facts.conversation, facts.session, facts.conversation.hello
    if session is None or not session.complete or hello is None or not facts.is_spark or hello.dead:
        return
    if facts.server.sent > NONCE_SIZE + SESSION_SIZE or facts.server.frames or facts.unseen is Sender.SERVER:
        return
    if hello.time_ns - session.time_ns >= LATE_HELLO or hello.size not in HELLO_FRAMES:
        return
    waited = facts.watched_until - hello.time_ns
    if not c.closings and waited < LATE_HELLO:
        yield NotChecked(
            "SPK208",
            f"The capture ends {duration(waited)} after the device's hello (packet {number(hello.packet)}): too soon"
            " to call it unanswered.",
            (c.number,),
        )
        return
    acked = facts.device.acked >= facts.device.sent
    yield facts.finding(
        "SPK208",
        Confidence.STRONG if acked else Confidence.LIKELY,
        Evidence(
            f"Packet {number(hello.packet)}: hello from the device, {duration(hello.time_ns - session.time_ns)} after the"
            f" reply; no message from the server in {duration(waited)}.",
            (hello.packet,),
        ),
        Evidence(_ended(facts), tuple(x.packet for x in c.closings[:1])),
        because="that the fault is at the server: the device has just checked its reply.",
        ruled_out=(*_passed(facts), RuledOut("SPK207", "the frame is none that a dead key makes")),
        silence=True,
    )


def slow(facts: Facts) -> Iterator[Finding]:
    """SPK209: it works, but a timer is near."""
    if facts.conversation.reached != "established" or facts.nonce is None or facts.identity is None:
        return
    session, hello = facts.session, facts.conversation.hello
    if session is None or hello is None or not (facts.nonce.packet and facts.identity.packet and session.packet):
        return
    steps = (
        (
            facts.identity.time_ns - facts.nonce.time_ns,
            SLOW_DEVICE,
            'the device takes {} for its "who I am"',
            facts.identity.packet,
        ),
        (
            session.time_ns - facts.identity.time_ns,
            SLOW_SERVER,
            "the server takes {} for its reply",
            session.packet,
        ),
        (hello.time_ns - session.time_ns, SLOW_DEVICE, "the device takes {} for its hello", hello.packet),
    )
    total = hello.time_ns - facts.nonce.first_ns
    slowest = max(steps, key=lambda step: step[0] / step[1])
    if slowest[0] <= slowest[1] and total <= SLOW_LOGIN:
        return
    yield facts.finding(
        "SPK209",
        Confidence.STRONG,
        *(
            Evidence(text.format(duration(took)).capitalize() + ".", (packet,))
            for took, limit, text, packet in steps
            if took > limit
        ),
        total=duration(total),
        step=slowest[2].format(duration(slowest[0])),
    )
