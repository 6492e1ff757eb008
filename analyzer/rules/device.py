"""SPK505, SPK508: what one device's connections tell together: one that was never closed, and what came after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final

from analyzer.catalogue import PING_AFTER, PING_ANSWER_LIMIT
from analyzer.conversation import Conversation
from analyzer.devices import OVERLAP
from analyzer.findings import Confidence, Evidence, Finding, Severity
from analyzer.rules import words
from analyzer.rules.facts import NS, Facts
from analyzer.streams import Sender
from analyzer.trace import Trace
from analyzer.wording import duration, number, packets

DEAD_SILENCE: Final = round((PING_AFTER + PING_ANSWER_LIMIT + 15.0) * NS)
"""A living session is never this quiet: the device pings after 15 s and closes 10 s later if nothing answers; the
rest is room for a busy device."""
GONE: Final = round((PING_AFTER + 5.0) * NS)
"""Longer than a living device is silent, and longer than a living server lets its TCP keep-alive rest (15 s)."""
ANSWERS_A_FIN: Final = 5 * NS
"""The capture must go on this long behind the FIN before a missing answer to it means anything."""
BECAUSE_JOINED_AGAIN: Final = "that the device restarted, or had lost its Wi-Fi: it asks for an address again."
BECAUSE_SAME_LINK: Final = "that the device gave up the connection only, and did not restart."
SAYS_LOOP: Final = (
    "The device restarts, or loses its link, again and again: it comes back without having closed its connections."
)
LOOP: Final = 4
"""Returns from which a device is caught in them, and the time in which they must come (DIAGNOSES SPK508)."""
LOOP_WITHIN: Final = 600 * NS
COMES_BACK: Final = 20 * NS
"""A device that starts and joins its Wi-Fi is back sooner; one that sleeps is not worth waking so often."""


def left_open(trace: Trace) -> Iterator[Finding]:
    """Sessions that came up and were never closed: the device restarted, lost power or lost its link."""
    by_device: dict[bytes, list[Conversation]] = defaultdict(list)
    for c in trace.conversations:
        by_device[c.device.address].append(c)
    for conversations in by_device.values():
        for earlier, later in pairwise([*conversations, None]):
            if earlier is None or earlier.reached != "established" or earlier.kind != "spark":
                continue
            facts = Facts(earlier, trace)
            heard = min((side.last_any.packet for side in earlier.sides.values() if side.last_any), default=0)
            if facts.unseen is not None or trace.gaps.within(earlier, heard, earlier.last_packet) is not None:
                continue  # where one end is heard no more it may have been closed: unseen, or in a gap
            if earlier.closings:
                yield from _closed_on_nobody(facts)
            elif later is not None and later.syns:
                if later.start_ns - earlier.end_ns > -OVERLAP:
                    yield _came_back(facts, later)
            elif later is None:
                yield from _went_silent(facts)


def tell_restarts(trace: Trace, findings: Iterable[Finding]) -> None:
    """Add to each SPK508 whether the device asked for an address before it came back.

    That needs a capture in the device's own network. A device with a fixed address never asks, so that it did not
    means something only where it does at other times.
    """
    latest: dict[bytes, Conversation] = {}
    pairs: dict[int, tuple[Conversation, Conversation]] = {}
    for c in trace.conversations:
        if c.device.address in latest:
            earlier = latest[c.device.address]
            pairs[earlier.number] = earlier, c
        latest[c.device.address] = c
    for finding in findings:
        if finding.code != "SPK508" or finding.conversations[0] not in pairs:
            continue
        earlier, later = pairs[finding.conversations[0]]
        joined = trace.background.joined.get(earlier.device.mac or b"")
        heard = earlier.sides[Sender.DEVICE].last_any
        if not joined or heard is None:
            continue
        between = [packet for packet, time_ns in joined if heard.time_ns < time_ns <= later.start_ns]
        if between:
            finding.confidence, finding.because = Confidence.STRONG, BECAUSE_JOINED_AGAIN
            seen = Evidence(
                f"Before that it asks for an address again (DHCP, {packets([between[0]])}), as after a start.",
                (between[0],),
            )
        else:
            finding.because = BECAUSE_SAME_LINK
            seen = Evidence(
                f"Before that it asks for no address, as it does after a start (DHCP, {packets([joined[0][0]])}).",
                (joined[0][0],),
            )
        finding.evidence = (*finding.evidence, seen)


def tell_loops(findings: Iterable[Finding]) -> None:
    """Raise SPK508 to major where a device comes back again and again (DIAGNOSES SPK508).

    One restart harms little. Who sleeps between two reports, without power for its radio, stays away for longer; and
    that a capture loses both ends' closes of several connections in a row is not to be expected.
    """
    by_device: dict[str | None, list[Finding]] = defaultdict(list)
    for finding in findings:
        if finding.code == "SPK508":
            by_device[finding.device].append(finding)
    for returns in by_device.values():
        returns.sort(key=lambda finding: finding.first_ns or 0)
        for place in range(len(returns) - LOOP + 1):
            loop = returns[place : place + LOOP]
            span = (loop[-1].first_ns or 0) - (loop[0].first_ns or 0)
            if span <= LOOP_WITHIN and all(int(str(finding.details["away"])) <= COMES_BACK for finding in loop):
                for finding in loop:
                    finding.severity, finding.summary = Severity.MAJOR, SAYS_LOOP


def _closed_on_nobody(facts: Facts) -> Iterator[Finding]:
    """One end closes after a long silence of the other, which never answers that either: it was gone."""
    c, end = facts.conversation, facts.first_closing
    if end is None or end.how != "fin":
        return
    last = c.sides[end.sender.peer].last_any
    watched = facts.capture_ends - end.time_ns
    if last is None or end.time_ns - last.time_ns < GONE or watched < ANSWERS_A_FIN:
        return
    yield facts.finding(
        "SPK505",
        Confidence.LIKELY,
        Evidence(
            f"The {end.sender} closes in packet {number(end.packet)}, {duration(end.time_ns - last.time_ns)} after the"
            f" last packet from the {end.sender.peer} ({packets([last.packet])}); the {end.sender.peer} does not answer"
            " that either.",
            (last.packet, end.packet),
        ),
        summary=words.SAYS_GOES_DEAD.format(sender=end.sender.peer),
        because=words.BECAUSE_LOST_LINK.format(sender=end.sender.peer),
        sender=end.sender.peer,
    )


def _came_back(facts: Facts, later: Conversation) -> Finding:
    c = facts.conversation
    finding = facts.finding(
        "SPK508",
        Confidence.LIKELY,
        Evidence(
            f"The connection of packets {number(c.first_packet)} to {number(c.last_packet)} was never closed;"
            f" {duration(max(0, later.start_ns - c.end_ns))} after its last packet the device connects anew"
            f" ({packets([later.first_packet])}).",
            (c.last_packet, later.first_packet),
        ),
        summary=words.SAYS_CAME_BACK,
        away=max(0, later.start_ns - c.end_ns),
    )
    finding.severity = Severity.MINOR
    return finding


def _went_silent(facts: Facts) -> Iterator[Finding]:
    c = facts.conversation
    quiet = facts.capture_ends - c.end_ns
    update = c.watch.update
    if quiet < DEAD_SILENCE or (update is not None and update.server_since):
        return  # too short to tell, or the restart after an update
    last = c.sides[Sender.DEVICE].last_any
    gap = facts.trace.gaps.behind(c)
    until = f"in the last {duration(quiet)} of the capture" if gap is None else f"in {duration(quiet)} before its gap"
    yield facts.finding(
        "SPK505",
        Confidence.LIKELY,
        Evidence(
            f"Nobody closed the connection, and no packet of it comes {until}; a living device pings after 15 s.",
            (last.packet,) if last is not None else (),
        ),
        summary=words.SAYS_NEVER_CLOSED,
        because=words.BECAUSE_LOST_LINK.format(sender="device"),
        sender="device",
    )
