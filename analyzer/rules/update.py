"""SPK601, SPK603: an update that never begins, and one that is too slow for the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from analyzer.findings import Confidence, Evidence, Finding, NotChecked
from analyzer.rules.facts import NS, Facts
from analyzer.rules.session import ASKS, REPORTS
from analyzer.sessionwatch import UPDATE_BEGIN_FRAME, Update
from analyzer.streams import Sender
from analyzer.wording import duration, number, plural

LIMIT_SLACK: Final = 2 * NS
"""The server's clock runs from its first message of the update to its close; the way there and back is in between."""
STEADY: Final = 3
"""The last chunk came at most this many of its usual intervals before the server stopped."""
SHORTEST_PAUSE: Final = 2 * NS
"""... or this time: intervals of milliseconds are not kept so evenly."""

SAYS_NEVER_BEGINS: Final = (
    "A firmware update never begins: the server offers it {times}, and the device does not answer."
)
NEVER_BEGINS: Final = "does not begin an update"
BEGIN_AGAIN: Final = (
    "Press reset, and update again while the program on the device has little to do: without publishing in loop(), or"
    " in safe mode.",
    "Or update over USB:",
    "  particle flash --usb FILE",
)
BECAUSE_LOOKS_LIKE_OFFERS: Final = (
    "that these are offers of an update: their sizes and times are those of the old server."
)
LIMIT_LEARNT: Final = "On other connections, too, this server ends an update after {limit} s."
BECAUSE_LIMIT: Final = "that the server's limit of {limit} s for an update cut it."
BECAUSE_NEEDS: Final = "that the update is too slow: at this pace it needs {needs}, and the server allows {limit} s."


def never_begins(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK601: three frames of an UpdateBegin's size at the old server's pace, a shorter one, and no answer.

    Likely, by sizes and times alone; a key that opens the messages decides (`update_not_begun`). Holes among what the
    device sent forbid the claim, and a device that is heard no more may have gone.
    """
    c = facts.conversation
    offers, readable = c.watch.offers, c.secrets is not None and c.secrets.session_key is not None
    if not offers or readable or c.watch.update is not None or not facts.is_spark or facts.unseen is not None:
        return
    (first, first_ns), (last, last_ns) = offers[0], offers[-1]
    device = facts.device
    before = [
        f.time_ns for f in (*c.first_frames, *c.last_frames) if f.sender is Sender.DEVICE and f.time_ns <= first_ns
    ]
    missing = any(h.sender is Sender.DEVICE and h.time_ns >= max(before, default=0) for h in c.holes)
    later = any(f.sender is Sender.DEVICE and f.time_ns > last_ns for f in c.last_frames)
    closed = facts.closing(Sender.DEVICE)
    if missing or device.lost or device.rest or device.skipped or not (later or closed) or facts.server.lost:
        yield facts.not_checked(
            "SPK601",
            f"Packets {number(first)} to {number(last)} may offer an update; whether the device answers is not in the"
            " capture.",
        )
        return
    finding = facts.finding(
        "SPK601",
        Confidence.LIKELY,
        Evidence(
            f"Packets {number(first)} to {number(last)}: three frames of {UPDATE_BEGIN_FRAME} bytes from the server,"
            " 6 s apart, then a short one, as the old server offers an update.",
            tuple(packet for packet, _ in offers),
        ),
        Evidence("The device sends nothing between them, and goes on later as if nothing had been asked."),
        summary=SAYS_NEVER_BEGINS.format(times=plural(len(offers), "time")),
        because=BECAUSE_LOOKS_LIKE_OFFERS,
        silence=True,
        chunks=0,
    )
    finding.predicate, finding.fix = NEVER_BEGINS, BEGIN_AGAIN
    yield finding


def overran(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK603: chunks at a steady pace until the server's time for the whole update is over.

    Strong: begin, pace and the stop at a known or learnt limit are all seen. Chunks sent again and again (SPK602), an
    update that stalls first (SPK601), and with a key one that had all its chunks, are excluded.
    """
    c, update = facts.conversation, facts.conversation.watch.update
    if update is None or not facts.is_spark or facts.unseen is not None or facts.reached != "established":
        return
    begun = _begun(facts, update)
    if begun is None or update.chunks < REPORTS or update.acknowledged >= REPORTS or update.server_since:
        return  # SPK602: chunks had to be sent again and again
    if any(h.time_ns >= update.first_ns and h.time_ns > update.last_ns for h in c.holes):
        return
    packet, begun_ns = begun
    interval = (update.last_ns - update.first_ns) // (update.chunks - 1)
    pause = max(STEADY * interval, SHORTEST_PAUSE)
    limit = next((one for one in facts.timers.update if _stopped_at(facts, update, begun_ns, pause, one)), None)
    if limit is None:
        return
    total, needs = _needs(facts, update, interval)
    if total is not None and (update.chunks >= total or needs <= limit * NS):
        return
    took = f"{plural(update.chunks, 'chunk')} of {update.size} bytes in {duration(update.last_ns - update.first_ns)}"
    of = f", of {number(total)}" if total is not None else ""
    end = facts.first_closing
    if end is not None and end.sender is Sender.SERVER:
        stop = Evidence(
            f"The server hangs up in packet {number(end.packet)}, {duration(end.time_ns - begun_ns)} after the update"
            f" began (packet {number(packet)}).",
            (packet, end.packet),
        )
    else:
        stop = Evidence(
            f"No chunk comes after packet {number(update.last_packet)}, {duration(update.last_ns - begun_ns)} after the"
            f" update began (packet {number(packet)}), although the device asks for it.",
            (packet, update.last_packet),
        )
    learnt = [Evidence(LIMIT_LEARNT.format(limit=round(limit)))] if limit in facts.timers.learnt else []
    yield facts.finding(
        "SPK603",
        Confidence.STRONG,
        Evidence(
            f"{took}{of}, one each {duration(interval)}: the update goes on steadily.",
            (update.first_packet, update.last_packet),
        ),
        stop,
        *learnt,
        because=BECAUSE_LIMIT.format(limit=round(limit))
        if total is None
        else BECAUSE_NEEDS.format(needs=duration(needs), limit=round(limit)),
        silence=True,
        limit=round(limit),
    )


def _begun(facts: Facts, update: Update) -> tuple[int, int] | None:
    """Packet and time of the server's first message of this update."""
    told = [m for m in facts.conversation.messages if m.name == "UpdateBegin" and m.time_ns <= update.first_ns]
    if told:
        first = next(m for m in told if m.token == told[-1].token)
        return first.packet, first.time_ns
    if update.begun_packet is None or update.begun_ns is None:
        return None
    return update.begun_packet, update.begun_ns


def _stopped_at(facts: Facts, update: Update, begun_ns: int, pause: int, limit: float) -> bool:
    """Whether the server stopped when this limit was over, and not before."""
    over, end = begun_ns + round(limit * NS), facts.first_closing
    if end is not None and end.sender is Sender.SERVER and not update.asked:
        return abs(end.time_ns - over) <= LIMIT_SLACK and end.time_ns - update.last_ns <= pause
    return update.asked >= ASKS and -LIMIT_SLACK <= over - update.last_ns <= pause


def _needs(facts: Facts, update: Update, interval: int) -> tuple[int | None, int]:
    """How many chunks the update has, and the time (ns) for all of them; (None, 0) without a key."""
    for m in facts.conversation.messages:
        if m.name == "UpdateBegin" and m.time_ns <= update.first_ns and m.values.get("chunk_size"):
            total = -(-int(m.values["file_length"] or 0) // int(m.values["chunk_size"]))
            return total, total * interval
    return None, 0
