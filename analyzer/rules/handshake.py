"""SPK201–204: where the login stops before the server has replied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from analyzer.catalogue import DEVICE_READ_LIMIT, IDENTITY_SIZE, NONCE_SIZE, SERVER_IDENTITY_LIMITS
from analyzer.findings import Confidence, Evidence, Finding, NotChecked, RuledOut
from analyzer.rules import words
from analyzer.rules.facts import AT_ONCE, NS, Facts
from analyzer.rules.reply import cut_by_limit
from analyzer.streams import Sender
from analyzer.wording import duration, number, packets, size

PROBE: Final = NS // 5
"""Who hangs up this soon after the greeting only looked whether the port is open: a device that cannot answer
shows it with its LED for 0.25 s first."""
SERVER_PATIENCE: Final = 5 * NS
"""A server that closes sooner after its own greeting has not waited for a device: the quickest limit is 10 s."""
ENOUGH_SILENCE: Final = DEVICE_READ_LIMIT * NS * 0.95
"""Silence of the server after which a device gives up; a twentieth covers the way between it and the capture."""
PIECES_TOLD: Final = 4
IDENTITY_WAIT: Final = (max(SERVER_IDENTITY_LIMITS[:2]) + 10) * NS
"""A server that closes within this time of a piece was waiting for the rest; its own limit, and room for the way."""


def wrong_nonce(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK201: 1–39 bytes, or more than 40 before the device has answered.

    Strong when all that the server sent was acknowledged. A rest that is lost or not in the capture is none of this,
    nor is a reply behind which a second capture point shows the device's answer.
    """
    nonce = facts.nonce
    if nonce is None or not facts.is_spark or facts.server.midway or facts.unseen is Sender.SERVER:
        return
    yield from _long_nonce(facts) if nonce.complete else _short_nonce(facts)


def _short_nonce(facts: Facts) -> Iterator[Finding | NotChecked]:
    nonce = facts.nonce
    assert nonce is not None  # noqa: S101 - the caller has looked
    waited = facts.watched_until - nonce.time_ns
    if not facts.conversation.closings and waited < DEVICE_READ_LIMIT * NS:
        yield facts.not_checked(
            "SPK201",
            f"Only {size(nonce.sent)} of the greeting are there, and the capture {facts.stops} {duration(waited)}"
            " later.",
        )
        return
    if nonce.missing and not facts.cut:
        yield facts.not_checked("SPK201", f"{size(nonce.missing)} at the start of the server's greeting are missing.")
        return
    if not facts.delivered(Sender.SERVER):
        yield facts.not_checked(
            "SPK201",
            f"{size(nonce.sent)} of the greeting were sent (packet {number(nonce.packet)}), and not all were"
            " acknowledged: the rest may be lost.",
        )
        return
    yield facts.finding(
        "SPK201",
        Confidence.STRONG,
        Evidence(
            f"{size(nonce.sent)} of the greeting came in packet {number(nonce.packet)}, and no more.", (nonce.packet,)
        ),
        facts.ending,
        because=words.BECAUSE_NOT_WHOLE,
        silence=True,
        size=nonce.sent,
    )


def _long_nonce(facts: Facts) -> Iterator[Finding]:
    nonce, session, answer = facts.nonce, facts.session, facts.device.first_data
    if nonce is None or nonce.missing or session is None or not session.received or facts.unseen is not None:
        return
    if facts.identity is not None and facts.identity.missing:
        return  # the device did answer, in a packet that is not in the capture: nobody knows when
    if answer is not None and answer.time_ns <= session.first_ns:
        return
    if session.first_packet != nonce.packet and (
        session.complete or session.first_ns - nonce.time_ns >= facts.round_trip
    ):
        return  # a reply: two capture points whose clocks differ show the device's answer, before it, too late
    total = NONCE_SIZE + sum(n for p, n in session.cuts if answer is None or p < answer.packet)
    yield facts.finding(
        "SPK201",
        Confidence.STRONG,
        Evidence(
            f"The server sent {size(total)} ({packets([nonce.first_packet, session.first_packet])}) before the device"
            " answered.",
            (nonce.first_packet, session.first_packet),
        ),
        because=words.BECAUSE_TOO_LONG,
        size=total,
    )


def nonce_not_answered(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK202: the device never says who it is.

    Strong when the greeting was acknowledged and the silence lasted; likely when it may not have arrived. A test of
    the port, a server that does not wait, and a greeting behind the device's own close (SPK104) are excluded by times.
    """
    c, nonce = facts.conversation, facts.nonce
    if nonce is None or not nonce.complete or not facts.is_spark or facts.device.sent or facts.unseen is Sender.DEVICE:
        return
    if facts.session is not None and facts.session.sent:
        return  # SPK201: the server did not wait, or the device's answer is missing from the capture
    end = facts.first_closing
    device_left = end is not None and end.sender is Sender.DEVICE
    waited = facts.watched_until - nonce.time_ns
    if waited < 0:
        return  # SPK104: the greeting came when the device had given up
    too_soon = None
    if end is None and waited < DEVICE_READ_LIMIT * NS:
        too_soon = f"The capture {facts.stops} {duration(waited)} after the greeting (packet {number(nonce.packet)})"
    elif device_left and waited < PROBE:
        too_soon = f"The device's side hung up {duration(waited)} after the greeting, as a test of the port does"
    elif end is not None and not device_left and waited < SERVER_PATIENCE:
        too_soon = f"The server closed {duration(waited)} after its own greeting"
    if too_soon is not None:
        yield facts.not_checked("SPK202", f"{too_soon}: too soon to call the device silent.")
        return
    if c.nonce_acked is None:
        arrived = Evidence("The device never acknowledged the greeting: it may have lost its Wi-Fi.")
    else:
        arrived = Evidence(
            f"It did arrive: {packets([c.nonce_acked.packet])} acknowledges it.", (c.nonce_acked.packet,)
        )
    certain_enough = c.nonce_acked is not None and (not device_left or waited >= ENOUGH_SILENCE)
    yield facts.finding(
        "SPK202",
        Confidence.STRONG if certain_enough else Confidence.LIKELY,
        Evidence(
            f"The greeting came in packet {number(nonce.packet)}; no byte from the device in {duration(waited)}.",
            (nonce.packet,),
        ),
        facts.ending,
        arrived,
        because=words.BECAUSE_DEVICE_HANGS,
        ruled_out=facts.passed,
        silence=True,
    )


def identity_in_pieces(facts: Facts) -> Iterator[Finding]:
    """SPK203: the 256 bytes in several packets, or another size, and the server hangs up.

    Only likely: a server that refuses who is there (SPK204) looks the same. A key that opens the pieces makes it
    strong.
    """
    identity, end = facts.identity, facts.closing(Sender.SERVER)
    if identity is None or facts.nonce is None or not facts.is_spark or facts.session is not None:
        return
    if facts.unseen is not None or end is None or (identity.missing and not identity.complete):
        return
    pieces, total = _pieces(facts), identity_total(facts)
    after = end.time_ns - identity.time_ns
    if identity.complete and total > IDENTITY_SIZE:
        how = words.HOW_OTHER_SIZE.format(total=number(total), size=IDENTITY_SIZE)
        because = words.BECAUSE_OTHER_SIZE
    elif not identity.complete and after <= IDENTITY_WAIT:
        how = words.HOW_UNFINISHED.format(total=number(total), size=IDENTITY_SIZE)
        because = words.BECAUSE_NOT_WAITED
    elif identity.complete and len(pieces) > 1 and after < AT_ONCE:
        how = words.HOW_IN_PIECES.format(pieces=len(pieces))
        because = words.BECAUSE_PIECES
    else:
        return
    listed = ", ".join(f"{n} bytes in packet {number(p)}" for p, n in pieces[:PIECES_TOLD])
    yield facts.finding(
        "SPK203",
        Confidence.LIKELY,
        Evidence(f'"Who I am": {listed}.', tuple(p for p, _ in pieces)),
        Evidence(
            f"The server closed in {packets([end.packet])}, {duration(abs(after))}"
            f" {'after' if after >= 0 else 'before'} the last piece, without a reply.",
            (end.packet,),
        ),
        because=because,
        ruled_out=facts.passed,
        how=how,
        total=total,
        conversation=facts.conversation.number,
    )


def _pieces(facts: Facts) -> list[tuple[int, int]]:
    """The packets that brought the identity, with the bytes of each; one that was cut by snaplen is one piece."""
    pieces: dict[int, int] = {}
    for packet, length in facts.identity.cuts if facts.identity is not None else ():
        pieces[packet] = pieces.get(packet, 0) + length
    return list(pieces.items())


def identity_total(facts: Facts) -> int:
    """Bytes of the device's answer. A message long after it, to a server that does not reply, is none of it:
    an early Core pings under a key of its own (PROTOCOL 9.2).
    """
    identity = facts.identity
    assert identity is not None  # noqa: S101 - the caller has looked
    strays = (
        frame.size
        for frame in facts.conversation.first_frames
        if frame.sender is Sender.DEVICE and (frame.dead or frame.time_ns - identity.time_ns > AT_ONCE)
    )
    return facts.device.sent - sum(strays)


def refused_identity(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK204: the server closes after 256 bytes without a reply, or never says anything more.

    Strong when it closes at once and the 256 bytes are in the capture; later, a timer may have ended it, so likely.
    Pieces (SPK203), a server's limit for slow logins (SPK209) and bytes that never arrived are excluded.
    """
    identity = facts.identity
    if identity is None or not identity.complete or facts.session is not None or not facts.is_spark:
        return
    if facts.unseen is Sender.SERVER or facts.nonce is None or identity_total(facts) > IDENTITY_SIZE:
        return
    end = facts.first_closing
    if end is None or end.sender is Sender.DEVICE:
        yield from _no_reply(facts)
        return
    if cut_by_limit(facts) is not None:
        return  # SPK209: it was not "who I am" that the server refused
    waited = end.time_ns - identity.time_ns
    at_once = waited <= AT_ONCE
    if at_once and len(_pieces(facts)) > 1:
        return  # SPK203
    if not at_once and facts.device.acked < facts.device.sent:
        yield facts.not_checked("SPK204", _never_arrived(facts))
        return
    yield facts.finding(
        "SPK204",
        Confidence.STRONG if at_once and identity.received else Confidence.LIKELY,
        Evidence(
            f'"Who I am" was whole in packet {number(identity.packet)}; the server closed in {packets([end.packet])},'
            f" {duration(waited)} later, and sent nothing.",
            (identity.packet, end.packet),
        ),
        because=words.BECAUSE_REFUSED_IDENTITY if at_once else words.BECAUSE_KEY_NOT_USABLE,
        ruled_out=(*facts.passed, RuledOut("SPK301", words.RULED_KEY_NOT_REACHED)),
        silence=True,
        at_once=at_once,
    )


def _no_reply(facts: Facts) -> Iterator[Finding | NotChecked]:
    """The server neither replies nor closes first: it looks for the device's key, or hangs."""
    identity = facts.identity
    assert identity is not None  # noqa: S101 - the caller has looked
    waited = facts.watched_until - identity.time_ns
    if waited < ENOUGH_SILENCE:
        yield facts.not_checked(
            "SPK204",
            f'{facts.ending.text} That is {duration(waited)} after "who I am" (packet {number(identity.packet)}): too'
            " soon to call the server silent.",
        )
        return
    if facts.device.acked < IDENTITY_SIZE:
        yield facts.not_checked("SPK204", _never_arrived(facts))
        return
    yield facts.finding(
        "SPK204",
        Confidence.LIKELY,
        Evidence(
            f'"Who I am" was whole in packet {number(identity.packet)}; nothing from the server in {duration(waited)}.',
            (identity.packet,),
        ),
        facts.ending,
        summary=words.SAYS_NO_REPLY,
        because=words.BECAUSE_KEY_NOT_ON_FILE,
        ruled_out=facts.passed,
        silence=True,
        at_once=False,
    )


def _never_arrived(facts: Facts) -> str:
    packet = facts.identity.packet if facts.identity is not None else 0
    return f'The server never acknowledged "who I am" (packet {number(packet)}): it may not have arrived.'
