"""What a report says first: a state, a sentence, how sure, what to do. The text, Markdown and HTML forms share it.

A `Story` is one device's conversations and findings; a `Verdict` is all of them, worst first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from analyzer.findings import Evidence, Finding, NotChecked
from analyzer.histories import Together, histories, servers
from analyzer.report.past import Times, past_of, past_of_all
from analyzer.report.several import common_steps, sum_up
from analyzer.report.story import NO_TRAFFIC, Mark, Story, distinct, in_order, tell
from analyzer.rules.expected import OTHER_SERVER
from analyzer.trace import Trace
from analyzer.wording import listing, number, plural

COMMON_PORTS: Final = 4
ORDER: Final = (Mark.FAILS, Mark.WARNS, Mark.UNKNOWN, Mark.WORKS)
"""Worst first."""


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
        return list(distinct(item for f in self.findings if f.code != "SPK704" for item in f.evidence))

    @property
    def lead(self) -> Finding | None:
        """The finding to explain first."""
        if self.stories and self.stories[0].lead is not None:
            return self.stories[0].lead
        return self.findings[0] if self.findings else None


def stories_of(trace: Trace) -> list[Story]:
    """Tell the stories of all devices, each by itself."""
    return [tell(story) for story in _stories(trace)]


def verdict_of(trace: Trace) -> Verdict:
    """Tell the stories of all devices and sum them up."""
    stories = stories_of(trace)
    called, times = servers([s.history for s in stories]), Times.of(trace)
    _share(stories, [server.together for server in called if server.together is not None], times)
    stories.sort(key=_place)
    general = [f for f in trace.findings if f.device is None]
    if not stories:
        lead = general[0] if general else None
        verdict = Verdict(NO_TRAFFIC, Mark.UNKNOWN, _nothing_of_ours(trace, general), "")
        verdict.steps = _where_to_look(trace) or (lead.fix if lead else ())
    elif len(stories) == 1:
        only = stories[0]
        verdict = Verdict(only.state, only.mark, only.sentence, only.sure, steps=only.steps)
    else:
        summary = sum_up(stories, called, times)
        sentence = summary.sentence + _calling_elsewhere(stories)
        verdict = Verdict(summary.state, summary.mark, sentence, summary.sure, steps=summary.steps)
    verdict.stories, verdict.findings = stories, general
    verdict.codes = _codes([*(f for story in stories for f in story.findings), *general])
    verdict.unchecked = [item for item in trace.not_checked if not item.conversations]
    return verdict


def histories_in_words(verdict: Verdict, times: Times) -> list[str]:
    """Return what became of the devices over time, where there is something to tell: of those together that fail
    for one reason, of the others one by one.
    """
    told: dict[int, str] = {}
    for story in verdict.stories:
        together = story.together
        key = id(story if together is None else together)
        if key in told:
            continue  # that walks through all its devices: once, and not for each of them
        text = past_of(story.history, times) if together is None else past_of_all(together, times)
        if text and (together is not None or len(verdict.stories) == 1):
            told[key] = text[0].upper() + text[1:]
        elif text:
            told[key] = f"{story.address}: {text}"
    return list(told.values())


def _share(stories: list[Story], groups: list[Together], times: Times) -> None:
    """Enter into each story what its device shares with others that fail; of several groups the largest."""
    by_history = {id(story.history): story for story in stories}
    for together in sorted(groups, key=lambda group: len(group.members)):
        for member in together.members:
            story = by_history[id(member.history)]
            if story.mark is Mark.FAILS:
                story.together = together
    for story in stories:
        if story.together is not None:
            story.steps = common_steps(story, story.together, times)


def _place(story: Story) -> tuple[int, int, tuple[int, int, int], int]:
    """Worst first; what many share before what one has."""
    shared = -len(story.together.members) if story.together is not None else 0
    rank = story.lead.rank if story.lead else (9, 9, 9)
    return ORDER.index(story.mark), shared, rank, story.conversations[0].number


def _calling_elsewhere(stories: list[Story]) -> str:
    """Say which devices call another server than the user named."""
    others = [s.address for s in stories if any(f.details.get("why") == OTHER_SERVER for f in s.findings)]
    if not others:
        return ""
    named = listing(others[:COMMON_PORTS])
    more = f", {number(len(others) - COMMON_PORTS)} more" if len(others) > COMMON_PORTS else ""
    call = "call" if len(others) > 1 else "calls"
    count = f"{number(len(others))} of {plural(len(stories), 'device')}"
    return f" {count} {call} another server than expected: {named}{more}."


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
    unchecked: dict[int, list[NotChecked]] = {}
    for item in trace.not_checked:
        for number_ in item.conversations:
            unchecked.setdefault(number_, []).append(item)
    for history in histories(trace):
        device = history.device
        own = {id(item): item for c in device.conversations for item in unchecked.get(c.number, ())}
        yield Story(device.name, device.conversations, in_order(history.findings), list(own.values()), history)


def _codes(findings: Iterable[Finding]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.code] = counts.get(finding.code, 0) + finding.count
    return list(counts.items())
