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
    BAD,
    CONFIDENCE_WORDS,
    FINDINGS,
    STATE_OF_GROUP,
    Evidence,
    Finding,
    Group,
    NotChecked,
    RuledOut,
    Severity,
)
from analyzer.streams import HoleReason
from analyzer.trace import Trace
from analyzer.wording import duration, listing, number, plural, size

UNSAID: Final = ("SPK401", "SPK704")
"""Remarks about the capture that are no reasons for a verdict."""
SIDE_REMARKS: Final = ("SPK105", "SPK209", "SPK505", "SPK703", "SPK704", "SPK207", "SPK401")
"""Remarks that are never a device's state, in the order in which they are told."""
CAUSES: Final = ("SPK105", "SPK106")
"""What may be the reason why nobody, or somebody else, answers: told, and mended, together with that."""
CANNOT_TELL: Final = "CANNOT TELL"
NOT_ANSWERING: Final = "NOT ANSWERING"
"""One request of a session that goes on (SPK503)."""
CONNECTED: Final = "CONNECTED"
NO_TRAFFIC: Final = "NO SPARK TRAFFIC"
FAILING: Final = "FAILING"
"""What devices have in common that fail in different ways."""
TOO_LITTLE: Final = "What the capture shows is too little for a verdict."
LOGS_IN_NOW: Final = "The device logs in now (from packet {packet} on). Before that, {attempts} failed: {summary}"
EARLIER_WORKED: Final = " {connections} worked."
NO_SUCCESS: Final = " {attempts} in {span}, no success."
ONE_WAY_WORKS: Final = (
    "The device seems to log in and to stay connected, as far as one direction can show it: only packets"
    " from the {sender} are in the capture."
)
WORKS_DESPITE: Final = "The device logs in and stays connected. {missing}"
CUT_SHORT: Final = "The capture cut packets short, so {size} are missing in it; the connection had them."
MISSES: Final = "The capture misses {size}; the connection does not."
LOOKS_HEALTHY: Final = "; what follows it looks healthy."
THE_SAME: Final = "The same for {names}."
OTHER_WAYS: Final = "{devices} fail in other ways."
SAME_SERVER: Final = "{names} {works} with the same server, so network and server are fine."
WORKS: Final = ("logs in and stays connected", "log in and stay connected")
"""Of one device, and of several."""
REPEATED: Final = 9
"""From more attempts than this on, the sentence tells how many there were."""
COMMON_PORTS: Final = 4
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

    address: str
    conversations: list[Conversation]
    findings: list[Finding]  # worst first
    unchecked: list[NotChecked]
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
        return list(_distinct(item for finding in self.said for item in finding.evidence))

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
    steps: tuple[str, ...] = ()

    @property
    def evidence(self) -> list[Evidence]:
        """What the findings about the capture itself rest on, each once."""
        return list(_distinct(item for f in self.findings if f.code != "SPK704" for item in f.evidence))

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
        verdict = Verdict(NO_TRAFFIC, Mark.UNKNOWN, _nothing_of_ours(trace, general), "")
        verdict.steps = _where_to_look(trace) or (lead.fix if lead else ())
    elif len(stories) == 1:
        only = stories[0]
        verdict = Verdict(only.state, only.mark, only.sentence, only.sure, steps=only.steps)
    else:
        verdict = _several(stories)
        verdict.steps = stories[0].steps
    verdict.stories, verdict.findings = stories, general
    verdict.codes = _codes([*(f for story in stories for f in story.findings), *general])
    verdict.unchecked = [item for item in trace.not_checked if not item.conversations]
    return verdict


def _nothing_of_ours(trace: Trace, general: list[Finding]) -> str:
    """Say that there is no conversation, and what looks like one elsewhere."""
    if not trace.packets:
        return "The capture holds no packet: only its header has been written."
    if not general:
        return "The capture holds no packet that could be read."
    said = [general[0].summary]
    ports = _ports_alike(trace)
    if len(ports) == 1:
        said.append(f"TCP port {ports[0]} carries traffic that looks like Spark.")
    elif ports:
        said.append(f"TCP ports {listing(ports)} carry traffic that looks like Spark.")
    said += [finding.summary for finding in general[1:] if finding.code == "SPK801"]
    return " ".join(said)


def _where_to_look(trace: Trace) -> tuple[str, ...]:
    ports = _ports_alike(trace)
    return ("Look there:", f"  sparkshark analyze FILE{''.join(f' --port {port}' for port in ports)}") if ports else ()


def _ports_alike(trace: Trace) -> list[str]:
    alike = sorted(trace.background.lookalikes.values(), key=lambda a: (-a.count, a.port))
    return [str(a.port) for a in alike[:COMMON_PORTS]]


def _stories(trace: Trace) -> Iterable[Story]:
    by_address: dict[str, list[Conversation]] = {}
    for conversation in trace.conversations:
        by_address.setdefault(conversation.device.ip, []).append(conversation)
    findings: dict[str | None, list[Finding]] = {}
    for finding in trace.findings:
        findings.setdefault(finding.device, []).append(finding)
    unchecked: dict[int, list[NotChecked]] = {}
    for item in trace.not_checked:
        for number_ in item.conversations:
            unchecked.setdefault(number_, []).append(item)
    for address, conversations in by_address.items():
        own = {id(item): item for c in conversations for item in unchecked.get(c.number, ())}
        yield Story(address, conversations, _in_order(findings.get(address, ())), list(own.values()))


def _in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Faults first, then what works, then remarks; remarks that are never a device's state come last."""

    def place(finding: Finding) -> tuple[int, tuple[int, int, int]]:
        if finding.severity in BAD:
            return 0, finding.rank
        if finding.severity is Severity.OK:
            return 1, finding.rank
        return (3 + SIDE_REMARKS.index(finding.code) if finding.code in SIDE_REMARKS else 2), finding.rank

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
        story.state, story.mark = CANNOT_TELL, Mark.UNKNOWN
        story.sentence = _why_unknown(story)
    elif first.severity in BAD:
        story.state, story.mark = STATE_OF_GROUP[first.spec.group], Mark.FAILS
        if not any(by_number[n].reached == "established" for n in first.conversations if n in by_number):
            story.state = "NOT CONNECTING"  # what never came up cannot drop
        elif first.code == "SPK503" and healthy.issuperset(first.conversations):
            story.state = NOT_ANSWERING
        story.sentence = " ".join(finding.summary for finding in (first, _cause(story)) if finding is not None)
        healthy -= {n for f in story.findings if f.severity in BAD for n in f.conversations}
        failed = [n for n in by_number if n not in healthy]
        if last in healthy and len(story.conversations) > 1:
            story.state, story.mark = "WORKING", Mark.WARNS
            story.sentence = LOGS_IN_NOW.format(
                packet=number(by_number[last].first_packet),
                attempts=plural(len(failed), "attempt"),
                summary=first.summary[0].lower() + first.summary[1:],
            )
        elif healthy:
            story.sentence += EARLIER_WORKED.format(connections=plural(len(healthy), "earlier connection"))
        elif len(story.conversations) > REPEATED:
            span = story.conversations[-1].end_ns - story.conversations[0].start_ns
            attempts = plural(len(story.conversations), "attempt")
            story.sentence += NO_SUCCESS.format(attempts=attempts, span=duration(span))
    elif first.code == "SPK001":
        story.state, story.mark, story.sentence = "WORKING", Mark.WORKS, first.summary
        hole = next((f for f in story.findings if f.code == "SPK703"), None)
        if any(f.code == "SPK702" for f in story.findings):
            seen = next(f for f in story.findings if f.code == "SPK702").details.get("sender", "one end")
            story.sentence = ONE_WAY_WORKS.format(sender=seen)
        elif hole is not None:
            story.sentence = WORKS_DESPITE.format(missing=_missing(story))
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


def _cause(story: Story) -> Finding | None:
    """What explains the leading finding, if that is about the connection alone."""
    lead = story.lead
    if lead is None or lead.spec.group is not Group.CONNECTIVITY or lead.code in CAUSES:
        return None
    return next((f for f in story.said if f.code in CAUSES and f.exemplar in lead.conversations), None)


def _missing(story: Story) -> str:
    holes = [hole for c in story.conversations for hole in c.holes]
    total = size(sum(hole.length for hole in holes))
    if all(hole.reason is HoleReason.CUT for hole in holes):
        return CUT_SHORT.format(size=total)
    return MISSES.format(size=total)


def _steps(story: Story) -> tuple[str, ...]:
    """What to do: about the fault, about the capture, or nothing."""
    lead = story.lead
    if story.mark is Mark.FAILS:
        cause = _cause(story)
        return cause.fix if cause is not None else next((f.fix for f in story.said if f.fix), ())
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
    cause = _cause(story)
    words: list[str] = []
    given: set[str] = set()
    for finding in story.said:
        if (
            (finding.severity != first.severity and finding is not cause)
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


def _several(stories: list[Story]) -> Verdict:
    failing = [s for s in stories if s.mark is Mark.FAILS]
    working = [s for s in stories if s.mark is Mark.WORKS]
    worst = stories[0]
    if not failing:
        state = worst.state if len({s.state for s in stories}) == 1 else f"{len(working)} OF {len(stories)} WORKING"
        sentences = [_of(s) for s in stories if s.mark is not Mark.WORKS][:2]
        if working:
            sentences.append(f"{_names(working)} {WORKS[len(working) > 1]}.")
        return Verdict(state, worst.mark, " ".join(sentences), worst.sure)
    states = {s.state for s in failing}
    what = failing[0].state if len(states) == 1 else FAILING
    state = what if len(failing) == len(stories) else f"{len(failing)} OF {len(stories)} {what}"
    sentences = [_of(failing[0])]
    same = [s for s in failing[1:] if s.lead and failing[0].lead and s.lead.code == failing[0].lead.code]
    if same:
        sentences.append(THE_SAME.format(names=_names(same)))
    if len(failing) - len(same) > 1:
        sentences.append(OTHER_WAYS.format(devices=plural(len(failing) - len(same) - 1, "other device")))
    here = {c.server.address for c in failing[0].conversations}
    beside = [s for s in working if here & {c.server.address for c in s.conversations}]
    if beside:
        works = "works" if len(beside) == 1 else "work"
        sentences.append(SAME_SERVER.format(names=_names(beside), works=works))
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


def _distinct(items: Iterable[Evidence]) -> Iterable[Evidence]:
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
