"""What stands on the page, in order: the facts of the text report as data, bounded, ready for the template.

Nothing here decides anything and hardly a sentence is made here: state, reasons and steps are those of the verdict.
A capture may hold ten thousand conversations, so every list has a bound, and what is left out is counted and said.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from analyzer.conversation import Conversation
from analyzer.findings import BAD, CONFIDENCE_WORDS, FINDINGS, Finding, FindingSpec
from analyzer.histories import Attempt, Outcome
from analyzer.report.attempts import ending_groups, ending_text, pause_text
from analyzer.report.figures import Figures, figures_table
from analyzer.report.html.ladderpicture import Drawn, drawn
from analyzer.report.html.lanes import lanes, note_on
from analyzer.report.html.picture import Picture
from analyzer.report.html.plots import Plot, plots_of, repeats_of
from analyzer.report.layout import ASIDE_FOR_ALL
from analyzer.report.messagetable import headline, since, table_rows
from analyzer.report.past import Times
from analyzer.report.reasons import (
    MISREAD,
    codes_of,
    device_row,
    extent,
    figures_of,
    idle,
    joined,
    not_spark,
    one_of_each_cause,
    recognised_of,
    sharing,
    unchecked_of,
    wireshark_of,
)
from analyzer.report.story import UNSAID, Mark, Story
from analyzer.report.verdict import Verdict, histories_in_words, verdict_of
from analyzer.trace import Trace
from analyzer.wording import duration, endpoint, moment, number, plural, size, span

LANES: Final = 20
"""The worst devices, each with a lane of its own, its attempts and their drawings."""
DEVICES: Final = 100
"""Rows of the table of devices; the others are one row of counts."""
ONE_BY_ONE: Final = 12
"""Attempts of a device that are listed one by one; more are grouped by how they ended."""
GROUPS: Final = 8
"""Ways to end of one device; the rarer ones are counted."""
MEMBERS: Final = 3
"""Of a group, so many of the first and of the last are listed."""
DRAWINGS: Final = 60
"""Drawings on one page: with two widths and its table each takes some 12 kB."""
HISTORIES: Final = 20
FEW: Final = 5
"""Histories that stand open; the others are folded."""
REASONS: Final = 12
UNCHECKED: Final = 8
MESSAGES: Final = 500
"""Messages of one conversation that are listed, one row each; see `ALL_MESSAGES`."""
ALL_MESSAGES: Final = 2000
"""Messages on one page: a row takes 300 bytes, and a page of 2 MB still opens at once on a phone."""
PLOTTED: Final = 6
"""Conversations that are plotted, those with most messages: each is read once from its first message to its last."""
REPEATED: Final = 6
"""Devices of which it is shown what was sent again."""
FINDINGS_EACH: Final = 3
"""Of each kind of finding so many are told with their evidence."""
FILES: Final = 50
DAMAGES: Final = 5
KEYS: Final = 100
WARNINGS: Final = 20
CLASSES: Final = {Mark.FAILS: "fails", Mark.WARNS: "warns", Mark.WORKS: "works", Mark.UNKNOWN: "unknown"}
OUTCOMES: Final = {Outcome.WORKED: Mark.WORKS, Outcome.FAILED: Mark.FAILS, Outcome.UNJUDGED: Mark.UNKNOWN}


@dataclass(slots=True)
class Step:
    """One thing to do: what is said about it and the commands, in order."""

    parts: list[tuple[bool, str]]  # whether it is a command, and the text


@dataclass(slots=True)
class Task:
    """What to do, and for which devices: "" where there is only one cause."""

    whose: str
    steps: list[Step]
    beside: list[Step]  # what belongs to all the steps


@dataclass(slots=True)
class DeviceRow:
    """One device in the table."""

    name: str
    mark: Mark
    state: str
    attempts: str
    step: str
    packets: str
    anchor: str  # "": it has no section of its own


@dataclass(slots=True)
class Entry:
    """One attempt, or several that ended the same way."""

    mark: Mark
    title: str
    details: str
    drawing: Drawn | None = None
    drawn_as: str = ""  # which attempt a group's drawing shows
    members: list[str] = field(default_factory=list)
    elsewhere: str = ""  # the anchor of its drawing further up


@dataclass(slots=True)
class Device:
    """One device's attempts."""

    anchor: str
    name: str
    mark: Mark
    state: str
    sentence: str
    pauses: str
    entries: list[Entry]
    left_out: str


@dataclass(slots=True)
class Drawing:
    """The attempt that shows a cause most clearly."""

    anchor: str
    title: str
    drawing: Drawn


@dataclass(slots=True)
class Reasons:
    """What a cause rests on; ``whose`` is "" where there is only one."""

    whose: str
    texts: list[str]


@dataclass(slots=True)
class Told:
    """One finding as it was made on one device."""

    device: str
    summary: str
    sure: str
    evidence: list[str]


@dataclass(slots=True)
class Explained:
    """All findings of one kind, and what the kind means."""

    spec: FindingSpec
    severity: str
    count: int
    told: list[Told]
    left_out: int
    steps: Task


@dataclass(slots=True)
class Message:
    """One row of the table of messages."""

    connection: int
    packets: str
    time: str
    sender: str
    name: str
    text: str
    answers: str


@dataclass(slots=True)
class Messages:
    """The messages of all conversations that opened, as far as there is room."""

    headlines: list[str]
    rows: list[Message]
    names: list[str]
    several: bool
    left_out: str


@dataclass(slots=True)
class Plotted:
    """The plots of one conversation or device."""

    title: str
    plots: list[Plot]


@dataclass(slots=True)
class Page:
    """The whole page."""

    name: str
    mark: Mark
    state: str
    sentence: str
    sure: str
    tasks: list[Task]
    idle: str
    facts: list[str]
    lead: str  # code of the leading finding
    history: list[str]
    devices: list[DeviceRow]
    more_devices: str
    lanes: tuple[Picture, Picture] | None
    lanes_note: str
    lanes_left_out: str
    drawings: list[Drawing]
    sections: list[Device]
    why: list[Reasons]
    ruled_out: list[tuple[str, str]]
    unchecked: list[str]
    recognised: list[str]
    figures: str
    wireshark: str
    findings: list[Explained]
    messages: Messages | None
    plots: list[Plotted]
    table: Figures | None
    keys: list[tuple[str, str, str, str]]
    keys_left_out: int
    files: list[tuple[str, str, str, str, str]]
    files_left_out: int
    damage: list[str]
    around: list[str]
    codes: list[str]
    extent: str


def page_of(trace: Trace, name: str, *, redacted: bool, every: bool) -> Page:
    """Return the page on a capture called ``name``.

    ``redacted``: of messages only their extent is told; ``every``: each chunk of an update has a row of its own.
    """
    verdict = verdict_of(trace)
    drawings = _Drawings({n for f in trace.findings if f.code == MISREAD for n in f.conversations})
    lead = verdict.lead
    drawn_first = list(drawings.of_causes(verdict))
    anchors = {id(story): f"device-{place}" for place, story in enumerate(verdict.stories[:LANES], 1)}
    worst = verdict.stories[:LANES]
    opened = [c for story in verdict.stories for c in story.conversations if c.messages]
    return Page(
        name=name,
        mark=verdict.mark,
        state=verdict.state,
        sentence=verdict.sentence,
        sure=verdict.sure,
        tasks=_tasks(verdict),
        idle=idle(verdict) if len(verdict.stories) > 1 and any(s.steps for s in verdict.stories) else "",
        facts=_facts(trace, verdict),
        lead=lead.code if lead is not None and lead.code not in UNSAID else "",
        history=_bounded(histories_in_words(verdict, Times.of(trace)), HISTORIES, "more device"),
        devices=_devices(verdict, anchors) if len(verdict.stories) > 1 else [],
        more_devices=_counted(verdict.stories[DEVICES:]),
        lanes=lanes(worst, Times.of(trace), "Attempts over time") if worst else None,
        lanes_note=note_on(worst),
        lanes_left_out=_left_out(len(worst), len(verdict.stories), "device"),
        drawings=drawn_first,
        sections=[_section(story, anchors[id(story)], drawings) for story in worst],
        why=_why(verdict),
        ruled_out=verdict.stories[0].ruled_out if verdict.stories else [],
        unchecked=unchecked_of(verdict)[:UNCHECKED],
        recognised=recognised_of(verdict),
        figures=figures_of(verdict),
        wireshark=wireshark_of(verdict) or "",
        findings=list(_explained(trace, verdict)),
        messages=_messages(opened, redacted=redacted, every=every) if opened else None,
        plots=[*_plots(opened), *_repeats(worst)],
        table=figures_table(trace),
        keys=list(islice(_keys(trace), KEYS)),
        keys_left_out=max(0, sum(1 for _ in _keys(trace)) - KEYS),
        files=[_file(trace, place) for place in range(min(FILES, len(trace.captures)))],
        files_left_out=max(0, len(trace.captures) - FILES),
        damage=_damage(trace),
        around=_around(trace, verdict),
        codes=codes_of(verdict),
        extent=extent(trace),
    )


def _bounded(texts: Sequence[str], most: int, what: str) -> list[str]:
    more = len(texts) - most
    return [*texts[:most], *([f"… {plural(more, what)}: --format json lists all"] if more > 0 else [])]


def _left_out(shown: int, every: int, what: str, where: str = "--format jsonl lists all") -> str:
    """State a bound of the page: ``20 of 10,000 devices shown; --format jsonl lists all.``"""
    return f"{number(shown)} of {plural(every, what)} shown; {where}." if every > shown else ""


# -- the verdict ---------------------------------------------------------------------------------------------------


def _tasks(verdict: Verdict) -> list[Task]:
    if len(verdict.stories) < 2 or not any(s.steps for s in verdict.stories):
        return [task("", verdict.steps)] if verdict.steps else []
    stories = [s for s in one_of_each_cause(verdict) if s.steps]
    return [task(f"For {sharing(story, verdict)}:", story.steps) for story in stories]


def task(whose: str, lines: Sequence[str]) -> Task:
    """Put lines as a finding has them into steps: a command belongs to what is said before it, and an aside, too."""
    told = Task(whose, [], [])
    place = told.steps
    for line in lines:
        if line.startswith("  "):
            if not place:
                place.append(Step([]))
            place[-1].parts.append((True, line.strip()))
        elif line.startswith(ASIDE_FOR_ALL):
            place = told.beside
            place.append(Step([(False, line[2:])]))
        elif line.startswith("· ") and place:
            place[-1].parts.append((False, line[2:]))
        else:
            place.append(Step([(False, line.removeprefix("· "))]))
    return told


def _facts(trace: Trace, verdict: Verdict) -> list[str]:
    if not verdict.stories:
        return [extent(trace)]
    attempts = sum(len(story.conversations) for story in verdict.stories)
    devices = [plural(len(verdict.stories), "device")] if len(verdict.stories) > 1 else []
    return [*devices, plural(attempts, "attempt"), duration(trace.duration_ns)]


def _devices(verdict: Verdict, anchors: dict[int, str]) -> list[DeviceRow]:
    return [
        DeviceRow(story.address, story.mark, *device_row(story), anchors.get(id(story), ""))
        for story in verdict.stories[:DEVICES]
    ]


def _counted(stories: Sequence[Story]) -> str:
    """Say of the devices that have no row how many there are of each state."""
    if not stories:
        return ""
    states: dict[str, int] = {}
    for story in stories:
        states[story.state] = states.get(story.state, 0) + 1
    each = ", ".join(f"{number(count)} {state}" for state, count in states.items())
    return f"… {plural(len(stories), 'more device')}: {each}. --format jsonl lists all."


def _why(verdict: Verdict) -> list[Reasons]:
    stories = one_of_each_cause(verdict)
    several = len(stories) > 1
    told = [
        Reasons(f"{sharing(story, verdict)}:" if several else "", joined(story.evidence)[:REASONS]) for story in stories
    ]
    return [reasons for reasons in (*told, Reasons("", joined(verdict.evidence)[:REASONS])) if reasons.texts]


# -- attempts ------------------------------------------------------------------------------------------------------


class _Drawings:
    """Makes the drawings of the page, no more than there is room for."""

    def __init__(self, misread: Collection[int]) -> None:
        self.misread = misread  # conversations
        self.left = DRAWINGS
        self.anchors: dict[int, str] = {}  # by conversation, of those drawn at the top

    def of_causes(self, verdict: Verdict) -> Iterator[Drawing]:
        """Yield one drawing for each cause, as the text report has them."""
        for place, story in enumerate(one_of_each_cause(verdict), 1):
            c = story.exemplar
            if c is None:
                continue
            many = len(story.conversations)
            where = f"{story.address} to {endpoint(c.server.ip, c.server.port)}"
            at = story.conversations.index(c) + 1
            title = f"Attempt {number(at)} of {number(many)}, {where}" if many > 1 else f"1 attempt, {where}"
            drawing = self.of(c, title)
            if drawing is not None:
                self.anchors[c.number] = f"drawing-{place}"
                yield Drawing(f"drawing-{place}", title, drawing)

    def of(self, c: Conversation, title: str) -> Drawn | None:
        """Return the drawing of one conversation while there is room."""
        if not self.left:
            return None
        drawing = drawn(c, title, misread=c.number in self.misread)
        self.left -= drawing is not None
        return drawing


def _section(story: Story, anchor: str, drawings: _Drawings) -> Device:
    attempts = story.history.attempts
    left_out = ""
    if len(attempts) <= ONE_BY_ONE:
        entries = [_one(a, place, len(attempts), drawings) for place, a in enumerate(attempts, 1)]
    else:
        groups = ending_groups(story)
        outcomes = {a.conversation.number: a for a in attempts}
        places = {c.number: place for place, c in enumerate(story.conversations, 1)}
        entries = [_group(text, members, outcomes, places, drawings) for text, members in groups[:GROUPS]]
        left_out = _left_out(len(entries), len(groups), "way to end", "--format jsonl lists all attempts")
    pauses = pause_text(story)
    return Device(anchor, story.address, story.mark, story.state, story.sentence, pauses, entries, left_out)


def _one(attempt: Attempt, place: int, many: int, drawings: _Drawings) -> Entry:
    c = attempt.conversation
    title = f"Attempt {number(place)} of {number(many)}" if many > 1 else "The attempt"
    entry = Entry(OUTCOMES[attempt.outcome], title, _details(attempt))
    entry.elsewhere = drawings.anchors.get(c.number, "")
    if not entry.elsewhere:
        entry.drawing = drawings.of(c, f"{title}, {_packets(c)}")
    return entry


def _details(attempt: Attempt) -> str:
    c = attempt.conversation
    lasted = duration(max(0, c.end_ns - c.start_ns))
    return " · ".join([_packets(c), lasted, ending_text(c), *attempt.codes[:1]])


def _packets(c: Conversation) -> str:
    return f"packet{'s' if c.last_packet > c.first_packet else ''} {span(c.first_packet, c.last_packet)}"


def _group(
    text: str,
    members: Sequence[Conversation],
    outcomes: dict[int, Attempt],
    places: dict[int, int],
    drawings: _Drawings,
) -> Entry:
    """Many attempts that ended the same way: how many, one drawing, and the first and last of them."""
    first = members[0]
    marks = {OUTCOMES[outcomes[c.number].outcome] for c in members}
    entry = Entry(marks.pop() if len(marks) == 1 else Mark.UNKNOWN, plural(len(members), "attempt"), text)
    known = next((c for c in members if c.number in drawings.anchors), None)
    if known is not None:
        entry.elsewhere = drawings.anchors[known.number]
    else:
        entry.drawn_as = f"Attempt {number(places[first.number])}, {_packets(first)}"
        entry.drawing = drawings.of(first, entry.drawn_as)
    if len(members) > 2 * MEMBERS + 1:
        gap = [f"… {number(len(members) - 2 * MEMBERS)} more"]
        listed = [*_listed(members[:MEMBERS], outcomes, places), *gap, *_listed(members[-MEMBERS:], outcomes, places)]
    else:
        listed = _listed(members, outcomes, places)
    entry.members = listed
    return entry


def _listed(members: Iterable[Conversation], outcomes: dict[int, Attempt], places: dict[int, int]) -> list[str]:
    return [f"Attempt {number(places[c.number])}: {_details(outcomes[c.number])}" for c in members]


# -- findings ------------------------------------------------------------------------------------------------------


def _explained(trace: Trace, verdict: Verdict) -> Iterator[Explained]:
    """Yield the kinds of findings in the order of the verdict, each with a few of its findings."""
    by_code: dict[str, list[Finding]] = {}
    for finding in (*(f for story in verdict.stories for f in story.findings), *verdict.findings):
        by_code.setdefault(finding.code, []).append(finding)
    names = {c.number: story.address for story in verdict.stories for c in story.conversations}
    several = len(verdict.stories) > 1
    for code, found in by_code.items():
        told = [_told(finding, names if several else {}) for finding in found[:FINDINGS_EACH]]
        count = sum(finding.count for finding in found)
        spec = FINDINGS[code]
        worst = next((f.severity for f in found if f.severity in BAD), found[0].severity)
        fix = next((f.fix for f in found if f.fix), ())
        yield Explained(spec, str(worst), count, told, len(found) - len(told), task("", fix))


def _told(finding: Finding, names: dict[int, str]) -> Told:
    device = next((names[n] for n in finding.conversations if n in names), "")
    sure = CONFIDENCE_WORDS[finding.confidence]
    return Told(device, finding.summary, sure, joined(finding.evidence)[:REASONS])


# -- messages and plots --------------------------------------------------------------------------------------------


def _messages(opened: Sequence[Conversation], *, redacted: bool, every: bool) -> Messages:
    rows: list[Message] = []
    total, cut = 0, False
    for c in opened:
        total += len(c.messages)
        rest = table_rows(c, every=every, redacted=redacted)
        for row in islice(rest, max(0, min(MESSAGES, ALL_MESSAGES - len(rows)))):
            m = row.message
            when = since(m, c.start_ns)
            rows.append(Message(c.number, row.packets, when, m.direction, row.name, row.text, row.answers))
        cut = cut or next(rest, None) is not None
    several = len(opened) > 1
    heads = [f"Connection {number(c.number)}: {headline(c)}" if several else headline(c) for c in opened[:LANES]]
    heads += [f"… {plural(len(opened) - LANES, 'more connection')}"] if len(opened) > LANES else []
    shown = f"{plural(len(rows), 'row')} shown, of {plural(total, 'message')}; all: sparkshark decrypt."
    return Messages(heads, rows, sorted({row.name for row in rows}), several, shown if cut else "")


def _plots(opened: Sequence[Conversation]) -> Iterator[Plotted]:
    several = len(opened) > 1
    for c in sorted(opened, key=lambda c: -len(c.messages))[:PLOTTED]:
        plots = plots_of(c)
        if plots:
            title = f"Connection {number(c.number)}, {_packets(c)}" if several else ""
            yield Plotted(title, plots)


def _repeats(worst: Sequence[Story]) -> Iterator[Plotted]:
    several = len(worst) > 1
    found = ((story, repeats_of(story.conversations)) for story in worst)
    for story, plot in islice(((story, plot) for story, plot in found if plot is not None), REPEATED):
        yield Plotted(story.address if several else "", [plot])


# -- keys, capture -------------------------------------------------------------------------------------------------


def _keys(trace: Trace) -> Iterator[tuple[str, str, str, str]]:
    """Yield of each key the file, what it is, its fingerprint, and how many sessions it opened."""
    if trace.keys is None:
        return
    opened: dict[str, int] = {}
    for c in trace.conversations:
        if c.secrets is not None and c.secrets.key_source and c.secrets.opened:
            opened[c.secrets.key_source] = opened.get(c.secrets.key_source, 0) + 1
    for key in (*trace.keys.device_keys, *trace.keys.server_keys, *trace.keys.other_keys):
        name = os.path.basename(key.sources[0]) if key.sources else ""
        if len(key.sources) > 1:
            name += f" and {plural(len(key.sources) - 1, 'other file')}"
        sessions = sum(opened.pop(source, 0) for source in key.sources)
        half = "private" if key.private else "public"
        told = plural(sessions, "session") if sessions else "–"
        yield name, f"{key.role} {half} key, {number(key.bits)} bits", key.fingerprint, told
    for source, sessions in opened.items():
        yield os.path.basename(source), "session key", "", plural(sessions, "session")


def _file(trace: Trace, place: int) -> tuple[str, str, str, str, str]:
    file = trace.captures[place]
    name = "standard input" if file.path == "-" else os.path.basename(file.path)
    begun = moment(file.first_ns) if file.first_ns is not None else "–"
    lasted = duration(file.last_ns - file.first_ns) if file.first_ns is not None and file.last_ns is not None else "–"
    return name, file.format, number(file.packets), size(file.bytes), f"{begun}, {lasted}"


def _damage(trace: Trace) -> list[str]:
    """Return the places where files are damaged, a few of each."""
    told = []
    for file in trace.captures[:FILES]:
        for damage in file.damage[:DAMAGES]:
            where = f"packet {number(damage.packet)}" if damage.packet is not None else f"byte {number(damage.offset)}"
            told.append(f"{os.path.basename(file.path)}, {where}: {damage.what}")
        if len(file.damage) > DAMAGES:
            told.append(f"{os.path.basename(file.path)}: {plural(len(file.damage) - DAMAGES, 'further place')}")
    return told[:FILES]


def _around(trace: Trace, verdict: Verdict) -> list[str]:
    """What else is to be said about the capture: its gaps, what the reader had to say, what is not Spark."""
    told = [*trace.gaps.sentences, *(finding.summary for finding in verdict.findings), *trace.warnings[:WARNINGS]]
    around = not_spark(trace)
    if around:
        told.append(f"Not Spark: {around}")
    return list(dict.fromkeys(told))
