"""What a report tells of several devices and attempts: which stand for all, what they share, each reason once.

The forms of the report lay it out; what is told, and of whom, is decided here, so that all of them tell the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from analyzer.background import WEB_PORTS
from analyzer.findings import Evidence, NotChecked
from analyzer.report.figures import figures
from analyzer.report.recognised import recognised_line
from analyzer.report.story import STEP_NAMES, Mark, Story
from analyzer.report.verdict import Verdict
from analyzer.trace import Trace
from analyzer.wording import duration, listing, moment, number, plural, span

DRAWN_STORIES: Final = 3
"""Causes that are drawn and told of in full."""
NAMED_DEVICES: Final = 3
SHARED: Final = "The same in "
HEALTHY: Final = "SPK001"
"""Its evidence tells of the pings already."""
MISREAD: Final = "SPK401"
"""Made of connections that Wireshark shows as something else; genuine CoAP it shows rightly."""
COUNTED_FROM: Final = 10
"""From this count on it is said how often a finding was made."""
NOT_SPARK: Final = "not Spark"


def one_of_each_cause(verdict: Verdict) -> list[Story]:
    """The devices to draw and to tell of: one for each cause, worst first; those that work only if all do."""
    failing = [s for s in verdict.stories if s.mark in (Mark.FAILS, Mark.WARNS)]
    chosen: dict[tuple[str, str], Story] = {}
    for story in failing or verdict.stories:
        chosen.setdefault(_cause(story), story)
    return list(chosen.values())[:DRAWN_STORIES]


def sharing(story: Story, verdict: Verdict) -> str:
    """Name the devices that the cause of ``story`` is told of."""
    names = [s.address for s in verdict.stories if _cause(s) == _cause(story)]
    return listing(names) if len(names) <= NAMED_DEVICES else f"{names[0]} and {number(len(names) - 1)} others"


def _cause(story: Story) -> tuple[str, str]:
    if story.together is not None:
        return str(story.mark), f"shared {id(story.together)}"
    return story.state, story.lead.code if story.lead else ""


def idle(verdict: Verdict) -> str:
    """Name the devices for which there is nothing to do, "" when there are none or too many to be named."""
    names = [story.address for story in verdict.stories if story.mark is Mark.WORKS and not story.steps]
    return listing(names) if len(names) <= NAMED_DEVICES else ""


def joined(evidence: Iterable[Evidence]) -> list[str]:
    """Put what other attempts share behind what they share it with."""
    texts: list[str] = []
    for item in evidence:
        if texts and item.text.startswith(SHARED):
            texts[-1] += f" {item.text}"
        else:
            texts.append(item.text)
    return texts


def unchecked_of(verdict: Verdict) -> list[str]:
    """What could not be checked and is not told already."""
    told = " ".join((verdict.sentence, verdict.sure))
    own = (item for s in verdict.stories[:DRAWN_STORIES] for item in s.unchecked)
    return _alike_once(item for item in (*verdict.unchecked, *own) if item.because not in told)


def _alike_once(unchecked: Iterable[NotChecked]) -> list[str]:
    """Tell reasons that differ in their numbers alone once, with how many more there are."""
    alike: dict[str, list[str]] = {}
    for item in unchecked:
        alike.setdefault(re.sub(r"\d[\d,.]*( [µm]?s)?", "", item.because), []).append(item.because)
    return [
        texts[0] + (f" So in {plural(len(set(texts)) - 1, 'other attempt')}." if len(set(texts)) > 1 else "")
        for texts in alike.values()
    ]


def figures_of(verdict: Verdict) -> str:
    """What was measured of the device that is told of first."""
    if not verdict.stories:
        return ""
    story = verdict.stories[0]
    told = figures(story.conversations, pings=HEALTHY not in [finding.code for finding in story.said])
    return f"{story.address}: {told}" if told and len(verdict.stories) > 1 else told


def recognised_of(verdict: Verdict) -> list[str]:
    """Which firmware and which server it is, of one device for each cause."""
    told = [(story, recognised_line(story.conversations)) for story in one_of_each_cause(verdict)]
    several = len(verdict.stories) > 1
    return [f"{story.address}: {text}" if several else text for story, text in told if text]


def wireshark_of(verdict: Verdict) -> str | None:
    """What Wireshark makes of it, of the first device of which there is something to tell."""
    return next((s.wireshark_shows for s in verdict.stories if s.wireshark_shows), None)


def device_row(story: Story) -> tuple[str, str, str, str]:
    """Return what a table has of a device behind its name: state, attempts, the last step it reached, packets."""
    last = story.conversations[-1]
    reached = max((c.reached for c in story.conversations), key=list(STEP_NAMES).index)
    first = story.conversations[0].first_packet
    packets = span(first, max(c.last_packet for c in story.conversations))
    step = STEP_NAMES[reached] if last.kind in ("spark", "empty") else NOT_SPARK
    return story.state, number(len(story.conversations)), step, packets


def codes_of(verdict: Verdict) -> list[str]:
    """Return the codes of all findings, with how often where that is often."""
    return [code if count < COUNTED_FROM else f"{code} ×{number(count)}" for code, count in verdict.codes]


def extent(trace: Trace) -> str:
    """Say how much the capture holds: packets, how long, and since when."""
    what = plural(trace.packets, "packet")
    return what if trace.first_ns is None else f"{what}, {duration(trace.duration_ns)} from {moment(trace.first_ns)}"


def not_spark(trace: Trace) -> str:
    """Say in a sentence what else the capture holds, "" when there is nothing but ARP and the like."""
    around = trace.background
    told = []
    web = sum(around.tcp_connections[port] for port in WEB_PORTS)
    if web:
        told.append(plural(web, "web connection"))
    for port, count in around.tcp_connections.most_common(3):
        if port not in WEB_PORTS:
            told.append(f"{number(count)} on port {port}")
    for kind in ("DNS", "UDP 5684", "UDP 5683", "UDP"):
        if around.kinds[kind]:
            told.append(f"{number(around.kinds[kind])} {kind}")
    if not told:
        return ""
    return f"{number(around.packets)} of {plural(trace.packets, 'packet')}: {listing(told)}."
