"""SPK205–209: the server has replied. Can the device use it, and does it come in time?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from analyzer import catalogue
from analyzer.catalogue import (
    DEVICE_READ_LIMIT,
    HELLO_FRAMES,
    HELLO_WAIT,
    IDENTITY_SIZE,
    NONCE_SIZE,
    SESSION_SIZE,
)
from analyzer.findings import Confidence, Evidence, Finding, NotChecked, RuledOut, Severity
from analyzer.rules import words
from analyzer.rules.facts import AT_ONCE, NS, Facts
from analyzer.seen import FrameSeen
from analyzer.streams import Sender
from analyzer.wording import duration, number, packets, size, with_article

LATE_HELLO: Final = HELLO_WAIT * NS
ROUND_TRIP: Final = 1.5 * NS
"""An answer may take this long on the worst links that still work; a device waits 2 s for the server's hello."""
NEARLY: Final = 0.9
"""A device's wait may seem this much shorter: its hello comes late at the capture point, or it polls its clock."""
DEAD_TOLD: Final = 3
REPLY_ENDS: Final = NONCE_SIZE + SESSION_SIZE
"""Offset in the server's stream at which its first message begins."""
SLOW_DEVICE: Final = round(catalogue.SLOW_DEVICE * NS)
SLOW_SERVER: Final = round(catalogue.SLOW_SERVER * NS)
SLOW_LOGIN: Final = round(catalogue.SLOW_LOGIN * NS)
TIMER_SLACK: Final = 0.06
"""How far, in parts of itself, a server's timer may seem off: it starts at the server, and rounds."""
"""The community server cuts a login off at 10 s, a device any step at 20 s (PROTOCOL 2.4, 2.5)."""


def wrong_reply(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK205: another number of bytes than 384.

    Strong when they were acknowledged and nothing is missing before them; the rest may be lost otherwise.
    """
    session, identity = facts.session, facts.identity
    if session is None or identity is None or not facts.is_spark or facts.server.midway or facts.unseen is not None:
        return
    if session.first_ns < identity.first_ns or identity.missing or facts.nonce is None or not facts.nonce.received:
        return  # it is not known where the reply begins
    if session.complete and not _too_long(facts):
        return
    waited = facts.watched_until - session.time_ns
    if not session.complete and not facts.conversation.closings and waited < DEVICE_READ_LIMIT * NS:
        yield facts.not_checked(
            "SPK205",
            f"{size(session.sent)} of the reply are there, and the capture {facts.stops} {duration(waited)} later.",
        )
        return
    if not session.complete and not facts.delivered(Sender.SERVER):
        yield facts.not_checked(
            "SPK205",
            f"{size(session.sent)} of the reply were sent (packet {number(session.packet)}), and not all were"
            " acknowledged: the rest may be lost.",
        )
        return
    total = facts.server.sent - NONCE_SIZE
    yield facts.finding(
        "SPK205",
        Confidence.STRONG,
        Evidence(f"The reply in packet {number(session.packet)} has {size(total)}.", (session.packet,)),
        facts.ending,
        because=words.BECAUSE_SIZE_OF_KEY,
        ruled_out=facts.passed,
        silence=not session.complete,
        size=number(total),
    )


def _too_long(facts: Facts) -> bool:
    """Whether the bytes after the 384 came with them and are no message, so that they belong to the reply."""
    session, lost = facts.session, _reply_goes_on(facts)
    return session is not None and lost is not None and not facts.device.frames and lost - session.time_ns <= AT_ONCE


def _reply_goes_on(facts: Facts) -> int | None:
    """When (ns) bytes followed the 384 that cannot begin a message, None without such bytes."""
    return next((lost.time_ns for lost in facts.server.lost if lost.offset == REPLY_ENDS), None)


def silent_after_reply(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK206 and SPK207: the device cannot use the reply.

    A message under a dead key is proof (certain). Silence is strong when an end closed or 20 s passed, else likely.
    A late hello (SPK209), a reply that never arrived and a server that went on talking are excluded.
    """
    session, server = facts.session, facts.server
    if session is None or not session.complete or not facts.is_spark:
        return
    if server.sent > REPLY_ENDS and (server.frames or not server.lost):
        return  # the server goes on talking: it has had a hello, seen or not
    if _reply_goes_on(facts) is not None:
        return  # SPK205
    dead, live = _frames_after_reply(facts)
    if dead:
        yield _dead_key(facts, dead)
    elif (doubt := _doubt(facts, live)) is not None:
        if doubt:
            yield facts.not_checked("SPK206", doubt)
        return
    yield facts.finding(
        "SPK206",
        Confidence.STRONG
        if dead or facts.first_closing or _watched(facts) >= DEVICE_READ_LIMIT * NS
        else Confidence.LIKELY,
        Evidence(
            f'Packet {number(session.packet)}: the server replied to "who I am", so it could read it and found this'
            " device on file.",
            (session.packet,),
        ),
        _no_hello(facts, [*dead, *live]),
        because=words.BECAUSE_OTHER_KEY,
        ruled_out=_server_took_it(facts),
        silence=True,
        waited=_watched(facts),
    )
    yield facts.not_checked(
        "SPK301",
        "Which key is wrong, and the signature on the reply: no key was given. Add --device-key FILE --server-key"
        " FILE.",
    )


def _frames_after_reply(facts: Facts) -> tuple[list[FrameSeen], list[FrameSeen]]:
    """The device's frames since the reply: those under a dead key, and those that may be genuine."""
    c, session = facts.conversation, facts.session
    since = session.first_ns if session is not None else 0
    dead = [f for f in c.dead_frames if f.time_ns >= since]
    live = [f for f in c.first_frames if f.sender is Sender.DEVICE and not f.dead and f.time_ns >= since]
    return dead, live


def _watched(facts: Facts) -> int:
    return facts.watched_until - facts.session.time_ns if facts.session is not None else 0


def _doubt(facts: Facts, live: list[FrameSeen]) -> str | None:
    """Why the device's silence may mean nothing; empty when another rule has the word, None without a doubt."""
    c, session, device = facts.conversation, facts.session, facts.device
    assert session is not None  # noqa: S101 - the caller has looked
    if device.skipped or (device.sent > IDENTITY_SIZE and not live):
        return ""  # something came from the device that was not captured whole
    if live and live[0].time_ns - session.time_ns < LATE_HELLO:
        return ""  # SPK208
    if facts.unseen is Sender.SERVER and c.reply_acked is None:
        return ""
    if facts.unseen is Sender.DEVICE and c.midway:
        return "The device's packets and the beginning of the connection are not in the capture."
    reply = f"the reply (packet {number(session.packet)})"
    if c.reply_acked is None and not (facts.unseen is Sender.DEVICE and facts.delivered(Sender.SERVER)):
        return f"The device never acknowledged {reply}: it may not have arrived."
    end = facts.first_closing
    server_left = end is not None and end.sender is Sender.SERVER
    if live:
        waited = facts.watched_until - live[0].time_ns
        if end is None and waited < LATE_HELLO:
            return (
                f"The capture {facts.stops} {duration(waited)} after a late message of the device (packet"
                f" {number(live[0].packet)}), which the server may still answer."
            )
    elif (end is None or server_left) and _watched(facts) < LATE_HELLO:
        stops = "The server closed" if server_left else f"The capture {facts.stops}"
        return f"{stops} {duration(_watched(facts))} after {reply}; a device may take 5 s for its hello."
    return None


def _dead_key(facts: Facts, dead: list[FrameSeen]) -> Finding:
    return facts.finding(
        "SPK207",
        Confidence.CERTAIN,
        *(
            Evidence(
                f"Packet {number(f.packet)} is {with_article(f.dead or '')}: "
                + (
                    "the device has no key, because its login failed."
                    if "zero" in (f.dead or "")
                    else "the device did not take the new key."
                ),
                (f.packet,),
            )
            for f in dead[:DEAD_TOLD]
        ),
        because=words.BECAUSE_CANNOT_USE_IT,
        ruled_out=_server_took_it(facts),
        dead=len(dead),
    )


def _server_took_it(facts: Facts) -> tuple[RuledOut, ...]:
    packet = facts.session.packet if facts.session is not None else 0
    because = words.RULED_SERVER_TOOK_IT.format(packet=number(packet))
    return (*facts.passed, RuledOut("SPK302", because), RuledOut("SPK304", because))


def _no_hello(facts: Facts, frames: list[FrameSeen]) -> Evidence:
    end = facts.first_closing
    if end is not None and end.sender is Sender.DEVICE and not frames:
        return Evidence(
            f"Instead of a hello the device closed, {duration(_watched(facts))} after the reply"
            f" ({packets([end.packet])}).",
            (end.packet,),
        )
    ending = facts.ending
    return Evidence(f"No hello from the device in {duration(_watched(facts))}. {ending.text}", ending.packets)


def dead_without_reply(facts: Facts) -> Iterator[Finding]:
    """SPK207 where no reply ever came: it proves that the device is not logged in, not why."""
    c = facts.conversation
    if not c.dead_frames or (facts.session is not None and facts.session.complete):
        return
    frame = c.dead_frames[0]
    yield facts.finding(
        "SPK207",
        Confidence.CERTAIN,
        Evidence(f"Packet {number(frame.packet)} is {with_article(frame.dead or '')}.", (frame.packet,)),
        summary=words.SAYS_NOT_LOGGED_IN,
        severity=Severity.INFO,
    )


def hello_not_answered(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK208: a hello in time, and nothing from the server.

    Strong: a message under a dead key (SPK207) has been tried and is none, and the hello was acknowledged, or answered
    by a close; a device that hangs up by itself before an answer can come is excluded.
    """
    c, session, hello = facts.conversation, facts.session, facts.conversation.hello
    if session is None or not session.complete or hello is None or not facts.is_spark or c.dead_frames:
        return
    if facts.server.sent > REPLY_ENDS or facts.unseen is Sender.SERVER or hello.follows_gap:
        return
    if hello.time_ns - session.time_ns >= LATE_HELLO or hello.size not in HELLO_FRAMES:
        return
    if (doubt := _hello_doubt(facts, hello)) is not None:
        yield facts.not_checked("SPK208", doubt)
        return
    yield facts.finding(
        "SPK208",
        Confidence.STRONG,
        Evidence(
            f"Packet {number(hello.packet)}: hello from the device, {duration(hello.time_ns - session.time_ns)} after"
            f" the reply; no message from the server in {duration(facts.watched_until - hello.time_ns)}.",
            (hello.packet,),
        ),
        facts.ending,
        because=words.BECAUSE_SERVER_AT_FAULT,
        ruled_out=(*facts.passed, RuledOut("SPK207", words.RULED_NOT_DEAD)),
        silence=True,
    )


def _hello_doubt(facts: Facts, hello: FrameSeen) -> str | None:
    """Why the server's silence after a hello may mean nothing."""
    end = facts.first_closing
    waited = facts.watched_until - hello.time_ns
    if facts.session is not None and not facts.session.received:
        return (
            "The server's reply is not in the capture: when it came, and so what the device's message is, is not known."
        )
    at_packet = f"the device's hello (packet {number(hello.packet)})"
    if end is None and waited < LATE_HELLO:
        return f"The capture {facts.stops} {duration(waited)} after {at_packet}: too soon to call it unanswered."
    if end is not None and end.sender is Sender.DEVICE and waited < _patience(facts):
        return f"The device itself hung up {duration(waited)} after its hello, before the server could answer."
    server_left = end is not None and end.sender is Sender.SERVER and waited <= AT_ONCE
    if not server_left and facts.device.acked < facts.device.sent:
        return f"The server never acknowledged {at_packet}: it may not have arrived."
    return None


def _patience(facts: Facts) -> float:
    """How long (ns) this device waits for the server's hello, at least."""
    wait = facts.timers.hello_wait
    return ROUND_TRIP if wait is None else max(ROUND_TRIP, wait * NS * NEARLY)


def slow(facts: Facts) -> Iterator[Finding]:
    """SPK209: it works, but a timer is near; or the server's timer has cut the login in a slow step."""
    steps = _steps(facts)
    limit = cut_by_limit(facts)
    if not steps or (facts.reached != "established" and limit is None):
        return
    total = sum(took for took, *_ in steps)
    slowest = max(steps, key=lambda step: step[0] / step[1])
    if slowest[0] <= slowest[1] and total <= SLOW_LOGIN:
        return
    repeats = facts.device.quality.retransmitted + facts.server.quality.retransmitted
    evidence = [
        Evidence(f"{text[0].upper()}{text[1:].format(duration(took))}.", (packet,))
        for took, slow_from, text, packet in steps
        if took > slow_from
    ]
    if repeats:
        evidence.append(Evidence("Packets were sent again on this connection: the time may be lost on the way."))
    step = slowest[2].format(duration(slowest[0]))
    if limit is not None:
        evidence.append(facts.ending)
    if limit in facts.timers.learnt:
        evidence.append(Evidence(f"This server gives up a login after {limit:.1f} s on other connections, too."))
    yield facts.finding(
        "SPK209",
        Confidence.LIKELY if repeats or limit is not None else Confidence.STRONG,
        *evidence,
        summary=None if limit is None else words.SAYS_CUT_BY_LIMIT.format(limit=f"{limit:.0f}", step=step),
        because="" if limit is None else words.BECAUSE_CUT_BY_LIMIT.format(limit=f"{limit:.0f}"),
        severity=None if limit is None else Severity.MAJOR,
        total=duration(total),
        step=step,
    )


def cut_by_limit(facts: Facts) -> float | None:
    """Return the server's limit for a whole login (s) when it ended this attempt and a slow step is the reason."""
    c, end = facts.conversation, facts.first_closing
    if end is None or end.sender is not Sender.SERVER or c.connected is None or facts.reached == "established":
        return None
    if not any(took > slow_from for took, slow_from, *_ in _steps(facts)):
        return None
    lasted = (end.time_ns - c.connected.time_ns) / NS
    return next((limit for limit in facts.timers.login if abs(lasted - limit) <= TIMER_SLACK * limit), None)


def _steps(facts: Facts) -> list[tuple[int, int, str, int]]:
    """The steps of the login that were seen: how long (ns), from when on it is slow, in words, and the packet."""
    nonce, identity, session, hello = facts.nonce, facts.identity, facts.session, facts.conversation.hello
    steps: list[tuple[int, int, str, int]] = []
    if nonce is None or identity is None or not (nonce.received and identity.received and identity.complete):
        return steps
    steps.append((identity.time_ns - nonce.time_ns, SLOW_DEVICE, words.STEP_IDENTITY, identity.packet))
    if session is None or not session.received or not session.complete:
        return steps
    steps.append((session.time_ns - identity.time_ns, SLOW_SERVER, words.STEP_REPLY, session.packet))
    if hello is not None:
        steps.append((hello.time_ns - session.time_ns, SLOW_DEVICE, words.STEP_HELLO, hello.packet))
    return steps
