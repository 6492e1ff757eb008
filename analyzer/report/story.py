"""One device's story: a state, a sentence, how sure, what to do; with what its findings and its history tell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from analyzer.causes import causes_first
from analyzer.conversation import Conversation
from analyzer.findings import (
    BAD,
    CONFIDENCE_WORDS,
    FINDINGS,
    STATE_OF_GROUP,
    Evidence,
    Finding,
    NotChecked,
    RuledOut,
    Severity,
)
from analyzer.histories import OF_THE_DEVICE, Course, History, Outcome, Together
from analyzer.streams import HoleReason
from analyzer.wording import duration, number, plural, size

UNSAID: Final = ("SPK401", "SPK704")
"""Remarks about the capture that are no reasons for a verdict."""
SIDE_REMARKS: Final = ("SPK105", "SPK106", "SPK209", "SPK210", "SPK505", "SPK703", "SPK704", "SPK207", "SPK401")
"""Remarks that are never a device's state, in the order in which they are told."""
ALL_THE_SAME: Final = ("SPK106", "SPK210")
"""What its owner wants to know of a device that works, too: the user named a server, or its login is no secret."""
CAUSES: Final = ("SPK105", "SPK106")
"""What may be the reason why nobody, or somebody else, answers: that is told together with it."""
CANNOT_TELL: Final = "CANNOT TELL"
NOT_ANSWERING: Final = "NOT ANSWERING"
"""One request of a session that goes on (SPK503)."""
CONNECTED: Final = "CONNECTED"
NO_TRAFFIC: Final = "NO SPARK TRAFFIC"
TOO_LITTLE: Final = "What the capture shows is too little for a verdict."
LOGS_IN_NOW: Final = "The device logs in now (from packet {packet} on). Before that, {attempts} failed: {summary}"
FAILS_NOW: Final = " It worked until packet {until}, and fails since packet {since}."
AT_TIMES: Final = " It fails now and then: {failed} of {attempts}."
AT_TIMES_NOT_NOW: Final = "The last attempt worked, but {failed} of {attempts} failed, now and then: {summary}"
BESIDE_OTHERS: Final = " At the same time {worked} from this address: more than one device seems to use it."
NO_SUCCESS: Final = " {attempts} in {span}, no success."
ONE_WAY_WORKS: Final = (
    "The device seems to log in and to stay connected, as far as one direction can show it: only packets"
    " from the {sender} are in the capture."
)
WORKS_DESPITE: Final = "The device logs in and stays connected. {missing}"
CUT_SHORT: Final = "The capture cut packets short, so {size} are missing in it; the connection had them."
MISSES: Final = "The capture misses {size}; the connection does not."
LOOKS_HEALTHY: Final = "; what follows it looks healthy."
REPEATED: Final = 9
"""From more attempts than this on, the sentence tells how many there were."""
CAPTURE_AGAIN: Final = (
    "Start the capture first, then press reset on the device, and wait 60 seconds. How to capture:",
    "  sparkshark explain capture",
)
IF_IT_FAILS_AGAIN: Final = "Nothing, as long as it works. If it fails again:"
STEP_NAMES: Final = {
    "syn": "no answer",
    "connected": "connected",
    "nonce": "greeting",
    "identity": "who I am",
    "session": "reply",
    "hello": "hello",
    "established": "logged in",
}
"""How far a connection got, for people."""


class Mark(StrEnum):
    """How the state reads at a glance."""

    FAILS = "✕"
    WARNS = "~"
    WORKS = "✓"
    UNKNOWN = "?"


@dataclass(slots=True)
class Story:
    """One device: everything that this capture tells about it."""

    address: str  # or its ID, where several devices have one address
    conversations: list[Conversation]
    findings: list[Finding]  # worst first, but each cause before what it caused
    unchecked: list[NotChecked]
    history: History
    together: Together | None = None  # what it shares with other devices that fail
    state: str = ""
    mark: Mark = Mark.UNKNOWN
    sentence: str = ""
    sure: str = ""
    exemplar: Conversation | None = None
    steps: tuple[str, ...] = ()  # what to do about it, in the form of `FindingSpec.fix`

    @property
    def lead(self) -> Finding | None:
        """The finding to show first."""
        return self.findings[0] if self.findings else None

    @property
    def said(self) -> list[Finding]:
        """The findings whose evidence answers "why": those as grave as the leading one."""
        bad = [f for f in self.findings if f.severity in BAD]
        if bad:
            return bad
        return [f for f in self.findings if f.code not in UNSAID]

    @property
    def evidence(self) -> list[Evidence]:
        """The reasons, each once."""
        return list(distinct(item for finding in self.said for item in finding.evidence))

    @property
    def ruled_out(self) -> list[tuple[str, str]]:
        """(names, reason) of the look-alikes; those with one reason together."""
        by_reason: dict[str, list[str]] = {}
        for item in _unique(rule for finding in self.said for rule in finding.ruled_out):
            by_reason.setdefault(item.because, []).append(FINDINGS[item.code].short)
        return [
            (names[0] + "".join(f", {n[0].lower()}{n[1:]}" for n in names[1:]), why) for why, names in by_reason.items()
        ]

    @property
    def wireshark_shows(self) -> str | None:
        """What Wireshark makes of it."""
        return next((f.wireshark_shows for f in self.findings if f.wireshark_shows), None)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Faults first, then what works, then remarks; remarks that are never a device's state come last. Among the
    faults, each cause before what it caused.
    """

    def place(finding: Finding) -> tuple[int, tuple[int, int, int]]:
        if finding.severity in BAD:
            return 0, finding.rank
        if finding.severity is Severity.OK:
            return 1, finding.rank
        return (3 + SIDE_REMARKS.index(finding.code) if finding.code in SIDE_REMARKS else 2), finding.rank

    return causes_first(sorted(findings, key=place))


def tell(story: Story) -> Story:
    """Fill in state, sentence, confidence and the conversation to draw."""
    first = story.lead
    by_number = {c.number: c for c in story.conversations}
    story.exemplar = by_number.get(first.exemplar or 0) if first else None
    story.exemplar = story.exemplar or story.conversations[0]
    if first is None or first.code == "SPK702":
        story.state, story.mark = CANNOT_TELL, Mark.UNKNOWN
        story.sentence = _why_unknown(story)
    elif first.severity in BAD:
        _tell_fault(story, first, by_number)
    elif first.code == "SPK001":
        _tell_health(story, first)
    elif first.code == "SPK701":
        story.state, story.mark = CONNECTED, Mark.UNKNOWN
        story.sentence = first.summary
        if story.exemplar.reached == "established":
            story.sentence = first.summary.removesuffix(".") + LOOKS_HEALTHY
    elif first.code == "SPK801":
        story.state, story.mark, story.sentence = NO_TRAFFIC, Mark.UNKNOWN, first.summary
    else:
        story.state, story.mark, story.sentence = CANNOT_TELL, Mark.UNKNOWN, _why_unknown(story)
    story.sure = _how_sure(story, first)
    story.steps = _steps(story)
    return story


def _tell_fault(story: Story, first: Finding, by_number: dict[int, Conversation]) -> None:
    """Something fails, or did: say what, and since when."""
    history = story.history
    judged, course = history.judged, history.course
    came_up = any(by_number[n].reached == "established" for n in first.conversations if n in by_number)
    story.state, story.mark = STATE_OF_GROUP[first.spec.group], Mark.FAILS
    healthy = {n for f in story.findings if f.code == "SPK001" for n in f.conversations}
    if not came_up:
        story.state = "NOT CONNECTING"  # what never came up cannot drop
    elif first.code == "SPK503" and healthy.issuperset(first.conversations):
        story.state = NOT_ANSWERING
    story.sentence = " ".join(finding.summary for finding in (first, _effect(story)) if finding is not None)
    if first.code in OF_THE_DEVICE:
        return  # the sessions come up; what is wrong is that there are two of them
    failed, attempts = history.count(Outcome.FAILED), plural(len(judged), "attempt")
    summary = first.summary[0].lower() + first.summary[1:]
    if course is Course.SEVERAL_AT_ONCE:
        works = plural(history.count(Outcome.WORKED), "connection works", "connections work")
        story.sentence += BESIDE_OTHERS.format(worked=works)
    elif judged and judged[-1].outcome is Outcome.WORKED:
        story.state, story.mark = "WORKING", Mark.WARNS
        if course is Course.WORKS_SINCE:
            packet = number(history.since.packet)
            story.sentence = LOGS_IN_NOW.format(packet=packet, attempts=plural(failed, "attempt"), summary=summary)
        else:
            story.sentence = AT_TIMES_NOT_NOW.format(failed=number(failed), attempts=attempts, summary=summary)
    elif course is Course.FAILS_SINCE:
        change = next(c for c in reversed(history.changes) if c.was is Outcome.WORKED)
        until, since = number(change.before_packet), number(change.packet)
        story.sentence += FAILS_NOW.format(until=until, since=since)
    elif course is Course.NOW_AND_THEN:
        story.sentence += AT_TIMES.format(failed=number(failed), attempts=attempts)
    elif len(story.conversations) > REPEATED and not came_up:
        span = story.conversations[-1].end_ns - story.conversations[0].start_ns
        attempts = plural(len(story.conversations), "attempt")
        story.sentence += NO_SUCCESS.format(attempts=attempts, span=duration(span))


def _tell_health(story: Story, first: Finding) -> None:
    """It works, as far as the capture shows it."""
    story.state, story.mark, story.sentence = "WORKING", Mark.WORKS, first.summary
    hole, one_way = (next((f for f in story.findings if f.code == code), None) for code in ("SPK703", "SPK702"))
    if one_way is not None:
        story.sentence = ONE_WAY_WORKS.format(sender=one_way.details.get("sender", "one end"))
    elif hole is not None:
        story.sentence = WORKS_DESPITE.format(missing=_missing(story))
    for remark in story.findings:
        if remark.code in ALL_THE_SAME:
            story.sentence += f" {remark.summary}"


def _effect(story: Story) -> Finding | None:
    """What the leading finding explains, where both are needed to see what happens."""
    lead = story.lead
    if lead is None or lead.code not in CAUSES:
        return None
    return next((f for f in story.said if f.caused_by == lead.code), None)


def _missing(story: Story) -> str:
    holes = [hole for c in story.conversations for hole in c.holes]
    total = size(sum(hole.length for hole in holes))
    if all(hole.reason is HoleReason.CUT for hole in holes):
        return CUT_SHORT.format(size=total)
    return MISSES.format(size=total)


def _steps(story: Story) -> tuple[str, ...]:
    """What to do: about the fault, about the capture, or nothing."""
    lead = story.lead
    if story.mark is Mark.FAILS or story.history.course is Course.NOW_AND_THEN:
        return next((f.fix for f in story.said if f.fix), ())
    if story.mark is Mark.WARNS and lead is not None:
        return (IF_IT_FAILS_AGAIN, f"  sparkshark explain {lead.code}")
    if story.mark is Mark.WORKS:
        hindered = (f.fix for f in story.findings if f.code in ("SPK703", "SPK702") and f.fix)
        return (lead.fix if lead is not None else ()) or next(hindered, ())
    return CAPTURE_AGAIN if lead is None or lead.code in UNSAID or not lead.fix else lead.fix


def _why_unknown(story: Story) -> str:
    one_way = next((f for f in story.findings if f.code == "SPK702"), None)
    if one_way is not None:
        return one_way.summary
    for item in story.unchecked:
        return f"{TOO_LITTLE} {item.because}"
    return TOO_LITTLE


def _how_sure(story: Story, first: Finding | None) -> str:
    if first is None or first.severity not in (*BAD, Severity.OK):
        return ""
    effect = _effect(story)
    words: list[str] = []
    given: set[str] = set()
    for finding in story.said:
        if (
            (finding.severity != first.severity and finding is not effect)
            or not finding.because
            or finding.because in given
        ):
            continue
        given.add(finding.because)
        word, because = CONFIDENCE_WORDS[finding.confidence], finding.because
        if not words:
            because = because.removeprefix("because ")
        joint = "" if because[0] in ",:" else " " if because.startswith(("that ", "because ")) else ": "
        words.append(f"{word}{joint}{because}")
    if not words:
        words.append(f"{CONFIDENCE_WORDS[first.confidence]}.")
        if first.code == "SPK001":
            words.append("Certain with --device-key FILE.")
    if story.mark is Mark.WARNS:
        now = next((f.confidence for f in story.findings if f.code == "SPK001"), first.confidence)
        said = words[0][0].lower() + words[0][1:]
        return f"{CONFIDENCE_WORDS[now]} that it works now. Before that: {said}"
    return " ".join(words[:2])


def distinct(items: Iterable[Evidence]) -> Iterable[Evidence]:
    """Leave out what an earlier item says already, in the same words or at its beginning."""
    said: list[str] = []
    for item in items:
        if not any(text.startswith(item.text.removesuffix(".")) for text in said):
            said.append(item.text)
            yield item


def _unique(items: Iterable[RuledOut]) -> list[RuledOut]:
    seen: dict[str, RuledOut] = {}
    for item in items:
        seen.setdefault(item.code, item)
    return list(seen.values())
