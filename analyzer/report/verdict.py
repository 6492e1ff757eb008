"""What a report says first: a state, a sentence, how sure, what to do. The text, Markdown and HTML forms share it.

A `Story` is one device's conversations and findings; a `Verdict` is all of them, worst first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from analyzer.conversation import Conversation
from analyzer.findings import (
    CONFIDENCE_WORDS,
    FINDINGS,
    STATE_OF_GROUP,
    Evidence,
    Finding,
    NotChecked,
    RuledOut,
    Severity,
)
from analyzer.trace import Trace
from analyzer.wording import listing, number, plural

BAD: Final = (Severity.CRITICAL, Severity.MAJOR)
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

    address: str
    conversations: list[Conversation]
    findings: list[Finding]  # worst first
    unchecked: list[NotChecked]
    state: str = ""
    mark: Mark = Mark.UNKNOWN
    sentence: str = ""
    sure: str = ""
    exemplar: Conversation | None = None

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
        return [f for f in self.findings if f.code not in ("SPK401", "SPK704")]

    @property
    def evidence(self) -> list[Evidence]:
        """The reasons, each once."""
        seen: dict[str, Evidence] = {}
        for finding in self.said:
            for item in finding.evidence:
                seen.setdefault(item.text, item)
        return list(seen.values())

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


@dataclass(slots=True)
class Verdict:
    """The answer to the whole capture."""

    state: str
    mark: Mark
    sentence: str
    sure: str
    stories: list[Story] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)  # about the capture, not about one device
    unchecked: list[NotChecked] = field(default_factory=list)
    codes: list[tuple[str, int]] = field(default_factory=list)

    @property
    def lead(self) -> Finding | None:
        """The finding to explain first."""
        if self.stories and self.stories[0].lead is not None:
            return self.stories[0].lead
        return self.findings[0] if self.findings else None


def verdict_of(trace: Trace) -> Verdict:
    """Tell the stories of all devices and sum them up."""
    stories = [_tell(story, trace) for story in _stories(trace)]
    order = {Mark.FAILS: 0, Mark.WARNS: 1, Mark.UNKNOWN: 2, Mark.WORKS: 3}
    stories.sort(key=lambda s: (order[s.mark], s.lead.rank if s.lead else (9, 9, 9), s.conversations[0].number))
    general = [f for f in trace.findings if f.device is None]
    if not stories:
        lead = general[0] if general else None
        sentence = lead.summary if lead else "The capture holds no packet that could be read."
        verdict = Verdict("NO SPARK TRAFFIC", Mark.UNKNOWN, sentence, "")
    elif len(stories) == 1:
        only = stories[0]
        verdict = Verdict(only.state, only.mark, only.sentence, only.sure)
    else:
        verdict = _several(stories)
    verdict.stories, verdict.findings = stories, general
    verdict.codes = _codes([*(f for story in stories for f in story.findings), *general])
    verdict.unchecked = [item for item in trace.not_checked if not item.conversations]
    return verdict


def _stories(trace: Trace) -> Iterable[Story]:
    by_address: dict[str, list[Conversation]] = {}
    for conversation in trace.conversations:
        by_address.setdefault(conversation.device.ip, []).append(conversation)
    for address, conversations in by_address.items():
        numbers = {c.number for c in conversations}
        yield Story(
            address,
            conversations,
            _in_order(f for f in trace.findings if f.device == address),
            [item for item in trace.not_checked if numbers & set(item.conversations)],
        )


def _in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Faults first, then what works, then remarks; remarks that are never a device's state come last."""
    side_remarks = ("SPK209", "SPK505", "SPK703", "SPK704", "SPK207", "SPK401")

    def place(finding: Finding) -> tuple[int, tuple[int, int, int]]:
        if finding.severity in BAD:
            return 0, finding.rank
        if finding.severity is Severity.OK:
            return 1, finding.rank
        return (3 + side_remarks.index(finding.code) if finding.code in side_remarks else 2), finding.rank

    return sorted(findings, key=place)


def _tell(story: Story, trace: Trace) -> Story:
    """Fill in state, sentence, confidence and the conversation to draw."""
    first = story.lead
    by_number = {c.number: c for c in story.conversations}
    story.exemplar = by_number.get(first.exemplar or 0) if first else None
    story.exemplar = story.exemplar or story.conversations[0]
    healthy = {n for f in story.findings if f.code == "SPK001" for n in f.conversations}
    last = story.conversations[-1].number
    if first is None or first.code == "SPK702":
        story.state, story.mark = "CANNOT TELL", Mark.UNKNOWN
        story.sentence = _why_unknown(story)
    elif first.severity in BAD:
        story.state, story.mark = STATE_OF_GROUP[first.spec.group], Mark.FAILS
        story.sentence = first.summary
        failed = [n for n in by_number if n not in healthy]
        if last in healthy and len(story.conversations) > 1:
            story.state, story.mark = "WORKING", Mark.WARNS
            story.sentence = (
                f"The device logs in now (packet {number(by_number[last].first_packet)} on)."
                f" {plural(len(failed), 'attempt')} before it failed: {first.summary[0].lower()}{first.summary[1:]}"
            )
        elif healthy:
            story.sentence += f" {plural(len(healthy), 'earlier connection')} worked."
        elif len(story.conversations) > 9:
            from analyzer.wording import duration  # noqa: PLC0415

            span = story.conversations[-1].end_ns - story.conversations[0].start_ns
            story.sentence += f" {plural(len(story.conversations), 'attempt')} in {duration(span)}, no success."
    elif first.code == "SPK001":
        story.state, story.mark, story.sentence = "WORKING", Mark.WORKS, first.summary
        hole = next((f for f in story.findings if f.code == "SPK703"), None)
        if hole is not None:
            story.sentence = (
                "The device logs in and stays connected. The capture misses bytes; the connection does not."
            )
    elif first.code == "SPK701":
        story.state, story.mark = "CONNECTED", Mark.UNKNOWN
        story.sentence = first.summary
        if story.exemplar.reached == "established":
            story.sentence = first.summary.removesuffix(".") + "; what follows it looks healthy."
    elif first.code == "SPK801":
        story.state, story.mark, story.sentence = "NO SPARK TRAFFIC", Mark.UNKNOWN, first.summary
    else:
        story.state, story.mark, story.sentence = "CANNOT TELL", Mark.UNKNOWN, _why_unknown(story)
    story.sure = _how_sure(story, first)
    return story


def _why_unknown(story: Story) -> str:
    one_way = next((f for f in story.findings if f.code == "SPK702"), None)
    if one_way is not None:
        return one_way.summary
    if story.unchecked:
        return "What the capture shows is too little for a verdict. " + story.unchecked[0].because
    return "What the capture shows is too little for a verdict."


def _how_sure(story: Story, first: Finding | None) -> str:
    if first is None or first.severity not in (*BAD, Severity.OK):
        return ""
    words = []
    for finding in story.said:
        if finding.severity != first.severity or not finding.because:
            continue
        word, because = CONFIDENCE_WORDS[finding.confidence], finding.because
        joint = "" if because[0] in ",:" else " " if because.startswith(("that ", "because ")) else ": "
        words.append(f"{word}{joint}{because}")
    if not words:
        words.append(f"{CONFIDENCE_WORDS[first.confidence]}.")
        if first.code == "SPK001":
            words.append("Certain with --device-key FILE.")
    return " ".join(words[:2])


def _several(stories: list[Story]) -> Verdict:
    failing = [s for s in stories if s.mark is Mark.FAILS]
    working = [s for s in stories if s.mark is Mark.WORKS]
    worst = stories[0]
    if not failing:
        state = worst.state if len({s.state for s in stories}) == 1 else f"{len(working)} OF {len(stories)} WORKING"
        sentences = [_of(s) for s in stories if s.mark is not Mark.WORKS][:2]
        if working:
            sentences.append(
                f"{_names(working)} log{'s' if len(working) == 1 else ''} in and stay{'s' if len(working) == 1 else ''} connected."
            )
        return Verdict(state, worst.mark, " ".join(sentences), worst.sure)
    states = {s.state for s in failing}
    what = failing[0].state if len(states) == 1 else "FAILING"
    state = what if len(failing) == len(stories) else f"{len(failing)} OF {len(stories)} {what}"
    sentences = [_of(failing[0])]
    same = [s for s in failing[1:] if s.lead and failing[0].lead and s.lead.code == failing[0].lead.code]
    if same:
        sentences.append(f"The same for {_names(same)}.")
    if len(failing) - len(same) > 1:
        sentences.append(f"{plural(len(failing) - len(same) - 1, 'other device')} fail in other ways.")
    here = {c.server.address for c in failing[0].conversations}
    beside = [s for s in working if here & {c.server.address for c in s.conversations}]
    if beside:
        verb = "works" if len(beside) == 1 else "work"
        sentences.append(f"{_names(beside)} {verb} with the same server, so network and server are fine.")
    return Verdict(state, Mark.FAILS, " ".join(sentences), failing[0].sure)


def _of(story: Story) -> str:
    """One sentence about one device among several."""
    lead = story.lead
    return (
        f"{story.address} {lead.predicate}."
        if lead is not None and lead.predicate
        else f"{story.address}: {story.sentence}"
    )


def _names(stories: list[Story]) -> str:
    if len(stories) > 3:
        return f"{number(len(stories))} devices"
    return listing([s.address for s in stories])


def _codes(findings: Iterable[Finding]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.code] = counts.get(finding.code, 0) + finding.count
    return list(counts.items())


def _unique(items: Iterable[RuledOut]) -> list[RuledOut]:
    seen: dict[str, RuledOut] = {}
    for item in items:
        seen.setdefault(item.code, item)
    return list(seen.values())
