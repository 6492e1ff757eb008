"""SPK001, SPK501, SPK503, SPK505, SPK601, SPK602: how a session goes on, and what ends it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from analyzer.catalogue import NONCE_SIZE, PING_ANSWER_LIMIT, SESSION_SIZE
from analyzer.findings import Confidence, Evidence, Finding, NotChecked, Severity
from analyzer.rules import words
from analyzer.rules.facts import NS, Facts
from analyzer.sessionwatch import STALL, Ping, Update
from analyzer.streams import Sender
from analyzer.wording import duration, number, packets, plural

STORM_SHARE: Final = 0.05
"""Share of repeated bytes from which a link is called lossy."""
STORM_SEGMENTS: Final = 20
GIVEN_UP_TRIES: Final = 3
GIVEN_UP_AFTER: Final = 10 * NS
"""Data that the capture's end leaves unacknowledged must have waited this long: two or three lost in a row are not
rare on a bad link, and their repeats come within 1 to 4 s."""
ASKS: Final = 2
"""Reports of a missing chunk in a row, at the 3 s timer and without a chunk in answer."""
REPORTS: Final = 3
"""Reports of missing chunks that the server acknowledged, from which parts were missed again and again."""
ANSWER_SLACK: Final = 0.95
PATIENT: Final = 1.25
"""A device that still talks this much later than its 10 s has not asked, or was answered."""
CARRIES_ON: Final = 3
"""Messages of the receiver after a broken length: who has lost the framing waits for the rest and says nothing."""


def healthy(facts: Facts) -> Iterator[Finding]:
    """SPK001: login complete, and messages after it."""
    c = facts.conversation
    if facts.reached != "established" or not facts.is_spark or facts.device.midway or facts.server.midway:
        return
    evidence = []
    answer = c.server_hello
    if answer is not None:
        evidence.append(
            Evidence(
                f"Packet {number(answer.packet)}: a server says hello only after it has opened a hello.",
                (answer.packet,),
            )
        )
    total = facts.device.frames + facts.server.frames
    legal = "All" if not facts.device.lost and not facts.server.lost else "Not all of the"
    evidence.append(Evidence(f"{legal} {plural(total, 'message')} have legal lengths."))
    watch = c.watch
    if watch.pings_answered:
        evidence.append(
            Evidence(
                f"When idle, the device pings and is answered in {duration(watch.ping_rtt_ns[0])}"
                + (f" to {duration(watch.ping_rtt_ns[1])}" if watch.ping_rtt_ns[1] > 1.5 * watch.ping_rtt_ns[0] else "")
                + f" ({plural(watch.pings_answered, 'time')})."
            )
        )
    yield facts.finding("SPK001", Confidence.STRONG, *evidence, silence=True)


def framing_lost(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK501: a length that cannot be one, without a hole before it.

    Strong; a receiver that carries on has got other bytes than the capture holds, so then nothing is claimed.
    """
    c = facts.conversation
    if facts.reached != "established" or facts.device.midway or facts.server.midway or not facts.is_spark:
        return
    for sender, side in c.sides.items():
        lost = next(iter(side.lost), None)
        holes = (hole.offset for hole in c.holes if hole.sender is sender)
        if lost is None or lost.offset == NONCE_SIZE + SESSION_SIZE or any(offset <= lost.offset for offset in holes):
            continue
        if sum(f.sender is sender.peer and f.time_ns > lost.time_ns for f in c.last_frames) >= CARRIES_ON:
            yield facts.not_checked(
                "SPK501",
                f"A length in packet {number(lost.packet)} cannot be one, yet the {sender.peer} carries on: what it"
                " received is not what the capture holds.",
            )
            continue
        yield facts.finding(
            "SPK501",
            Confidence.STRONG,
            Evidence(
                f"Packet {number(lost.packet)}: a length of {number(lost.field)} from the {sender}, where a message"
                " should begin.",
                (lost.packet,),
            ),
            packet=number(lost.packet),
        )


def ping_unanswered(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK503: nothing from the server for 10 s after a ping that TCP delivered.

    Strong; a ping that was not delivered (SPK505), bytes of the server that are not in the capture, and a device that
    goes on as if answered are excluded.
    """
    c, ping = facts.conversation, facts.conversation.watch.unanswered
    if ping is None or not facts.is_spark or facts.unseen is not None or facts.reached != "established":
        return
    if c.watch.update is not None and c.watch.update.last_ns > ping.time_ns - STALL:
        return  # SPK601, SPK602: in an update the device asks for chunks
    waited = facts.watched_until - ping.time_ns
    if waited < PING_ANSWER_LIMIT * ANSWER_SLACK * NS:
        stops = "The connection ends" if c.closings else f"The capture {facts.stops}"
        yield facts.not_checked(
            "SPK503",
            f"{stops} {duration(waited)} after the device's ping (packet {number(ping.packet)}); the server has 10 s to"
            " answer it.",
        )
        return
    if facts.device.acked < facts.device.sent:
        return  # SPK505: it was not even delivered
    if _stays_without_answer(facts, ping):
        return
    if facts.server.sent > facts.server.captured or facts.server.rest:
        lost = any(h.sender is Sender.SERVER and h.time_ns >= ping.time_ns for h in c.holes)
        if lost or facts.server.rest:
            yield facts.not_checked(
                "SPK503", f"Bytes from the server after the device's ping (packet {number(ping.packet)}) are missing."
            )
            return
    yield facts.finding(
        "SPK503",
        Confidence.STRONG,
        *_ping_story(facts, ping, waited),
        because=words.BECAUSE_SERVER_HANGS,
        silence=True,
    )


def _stays_without_answer(facts: Facts, ping: Ping) -> bool:
    """Whether the device goes on longer than it waits for an answer to a ping: then it was none."""
    patience = PING_ANSWER_LIMIT * PATIENT * NS
    return any(
        f.sender is Sender.DEVICE and f.time_ns > ping.time_ns + patience for f in facts.conversation.last_frames
    )


def _ping_story(facts: Facts, ping: Ping, waited: int) -> Iterator[Evidence]:
    watch, end = facts.conversation.watch, facts.closing(Sender.DEVICE)
    yield Evidence(
        f"Packet {number(ping.packet)}: 18 bytes from the device after 15 s of silence, a ping. It was acknowledged,"
        f" but no message came in {duration(waited)}.",
        (ping.packet,),
    )
    if watch.pings_answered:
        yield Evidence(f"Before it, {plural(watch.pings_answered, 'ping was', 'pings were')} answered.")
    if end is not None and end is facts.first_closing:
        yield Evidence(f"The device then hung up ({packets([end.packet])}).", (end.packet,))


def packets_lost(facts: Facts) -> Iterator[Finding]:
    """SPK505: data repeated; major only when the connection ended by it.

    Strong: the repeats are counted, copies and keep-alive probes are not among them. Losses that a healthy session
    survives are minor, however many.
    """
    c = facts.conversation
    if facts.unseen is not None or c.kind not in ("spark",):
        return
    for sender in Sender:
        side = c.sides[sender]
        quality = side.quality
        given_up = side.unacked_tries >= GIVEN_UP_TRIES and side.acked < side.sent and side.unacked_since is not None
        share = quality.retransmitted / quality.data_segments if quality.data_segments else 0.0
        if given_up and side.unacked_since is not None and not c.closings:
            given_up = facts.watched_until - side.unacked_since.time_ns >= GIVEN_UP_AFTER
        if given_up and side.unacked_since is not None:
            finding = facts.finding(
                "SPK505",
                Confidence.STRONG,
                Evidence(
                    f"Data of packet {number(side.unacked_since.packet)} from the {sender} was sent"
                    f" {plural(side.unacked_tries, 'time')} and never acknowledged.",
                    (side.unacked_since.packet,),
                ),
                because=words.BECAUSE_NOTHING_ARRIVES.format(sender=sender),
                sender=sender,
            )
            yield finding
        elif share > STORM_SHARE and quality.data_segments >= STORM_SEGMENTS:
            finding = facts.finding(
                "SPK505",
                Confidence.STRONG,
                Evidence(
                    f"{number(quality.retransmitted)} of {plural(quality.data_segments, 'data packet')} from the"
                    f" {sender} are repeats."
                ),
                summary=words.SAYS_SURVIVES.format(sender=sender),
                sender=sender,
            )
            finding.severity = Severity.MINOR
            yield finding


def update_fails(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK601 and SPK602: an update that stops.

    Strong when the device is seen asking for what does not come; its mere silence after a chunk is likely, as it is
    also silent when it restarts into new firmware (then the server has said that the update is done).
    """
    update = facts.conversation.watch.update
    if update is None or not facts.is_spark or facts.unseen is not None:
        return
    if update.asked >= ASKS and update.last_asked is not None:
        yield _chunk_missing(facts, update)
        return
    waited = facts.watched_until - update.last_ns
    looks_real = update.begun_packet is not None or update.answered >= update.chunks - 1
    if not update.device_since and not update.server_since and waited >= STALL and looks_real:
        yield facts.finding(
            "SPK601",
            Confidence.LIKELY,
            Evidence(
                f"The last chunk is in packet {number(update.last_packet)}; the device sends nothing in"
                f" {duration(waited)}.",
                (update.last_packet,),
            ),
            because=words.BECAUSE_DEVICE_STOPPED,
            silence=True,
            chunks=update.chunks,
        )


def _chunk_missing(facts: Facts, update: Update) -> Finding:
    """The device asks for a chunk and gets none: the server gave up (SPK602), or stopped (SPK601)."""
    first, last = update.first_asked or 0, update.last_asked or 0
    evidence = [
        Evidence(
            f"{plural(update.chunks, 'frame')} of {update.size} bytes from the server, the last in packet"
            f" {number(update.last_packet)}: chunks of an update.",
            (update.first_packet, update.last_packet),
        ),
        Evidence(
            f"After it the device asked {plural(update.asked, 'time')} at intervals of 3 s (packets {number(first)} to"
            f" {number(last)}), and no chunk came any more.",
            (first, last),
        ),
    ]
    if update.acknowledged >= REPORTS:
        evidence.append(
            Evidence(
                f"Before that, the server acknowledged {plural(update.acknowledged, 'report')} of a missing chunk and"
                " sent a chunk again."
            )
        )
        return facts.finding(
            "SPK602",
            Confidence.STRONG,
            *evidence,
            because=words.BECAUSE_SERVER_GAVE_UP,
            silence=True,
            chunks=update.chunks,
        )
    return facts.finding(
        "SPK601",
        Confidence.STRONG,
        *evidence,
        summary=words.SAYS_NO_MORE_CHUNKS.format(chunks=plural(update.chunks, "chunk")),
        because=words.BECAUSE_SERVER_STOPPED,
        silence=True,
        chunks=update.chunks,
    )
