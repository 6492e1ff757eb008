"""The report to paste into a forum: at most 30 lines, shortened unless asked otherwise."""

from __future__ import annotations

import re
from typing import Final

from analyzer.findings import CONFIDENCE_WORDS
from analyzer.report.figures import figures
from analyzer.report.ladder import ladder
from analyzer.report.past import Times
from analyzer.report.recognised import recognised_line
from analyzer.report.redact import Redactor
from analyzer.report.story import Story
from analyzer.report.verdict import histories_in_words, verdict_of
from analyzer.trace import Trace
from analyzer.wording import duration, endpoint, plural, printable

ROWS: Final = 12
STORIES: Final = 3
HISTORIES: Final = 2
GAPS: Final = 2
ACTIVE: Final = re.compile(r"\S*(?:@|://|www\.)\S*")
"""What a forum would turn into a link, or into a message to somebody."""


def markdown_report(trace: Trace, redactor: Redactor | None) -> str:
    """Return the report; ``redactor`` None leaves addresses as they are."""
    verdict = verdict_of(trace)
    lead = verdict.lead
    code = f" ({lead.code}, {CONFIDENCE_WORDS[lead.confidence].lower()})" if lead else ""
    lines = [f"**{_state(verdict.state)}: {_escape(verdict.sentence)}**{code}", ""]
    for story in verdict.stories[:STORIES]:
        lines.append(f"- {_story(story, trace)}")
    if len(verdict.stories) > STORIES:
        lines.append(f"- {plural(len(verdict.stories) - STORIES, 'more device')}")
    if verdict.sure:
        lines.append(f"- {_escape(verdict.sure)}")
    lines += [f"- {_escape(text)}" for text in trace.gaps.sentences[:GAPS]]
    first = verdict.stories[0] if verdict.stories else None
    if first is not None and first.ruled_out:
        names = [n[0].lower() + n[1:] for n, _ in first.ruled_out]
        lines.append(f"- Ruled out: {_escape('; '.join(names))}")
    lines += [f"- {_escape(text)}" for text in histories_in_words(verdict, Times.of(trace))[:HISTORIES]]
    if first is not None and (measured := figures(first.conversations)):
        lines.append(f"- {measured}")
    told_of = recognised_line(first.conversations) if first is not None else ""
    if told_of:
        lines.append(f"- Recognised: {_escape(told_of)}")
    if first is not None:
        lines += ["", *_table(first)]
    else:
        lines += [f"- {_escape(item.text)}" for item in verdict.evidence[:ROWS]]
    lines += _next(verdict.steps)
    told = " ".join((verdict.sentence, verdict.sure))
    own = [item for item in first.unchecked if item.because not in told] if first is not None else []
    for item in (*own[:1], *verdict.unchecked[:1]):
        lines += ["", f"Not checked: {_escape(item.because)}"]
    text = "\n".join(lines) + "\n"
    if redactor is None:
        return text
    text = redactor.shorten(text)
    return text + (f"\n{closing}\n" if (closing := redactor.closing()) else "")


def _state(state: str) -> str:
    """Return the state as a sentence begins."""
    return state.capitalize().replace("spark", "Spark")


def _next(steps: tuple[str, ...]) -> list[str]:
    """The first thing to do, and the first command with what is said about it."""
    if not steps:
        return []
    place = next((index for index, step in enumerate(steps) if index and step.startswith("  ")), None)
    if place is None:
        return ["", f"**Next:** {_escape(steps[0].strip())}"]
    said = list(dict.fromkeys((steps[0], steps[place - 1])))
    return ["", f"**Next:** {_escape(' '.join(step.strip() for step in said))} `{steps[place].strip()}`"]


def _story(story: Story, trace: Trace) -> str:
    c = story.conversations[0]
    packets = sum(s.quality.packets for x in story.conversations for s in x.sides.values())
    span = story.conversations[-1].end_ns - c.start_ns
    return (
        f"{story.address} to {endpoint(c.server.ip, c.server.port)}, {plural(len(story.conversations), 'attempt')} in"
        f" {duration(span)}, {packets:,} of {plural(trace.packets, 'packet')}: {story.state.lower()}"
    )


def _table(story: Story) -> list[str]:
    if story.exemplar is None:
        return []
    lines = ["| packet | after | from | bytes | what |", "|---:|---:|---|---:|---|"]
    rows = [row for row in ladder(story.exemplar) if not row.silence]
    for row in rows[:ROWS]:
        waited = duration(row.waited_ns) if row.waited_ns is not None else ""
        size = row.label.removesuffix(" bytes").removesuffix(" byte")
        lines.append(f"| {row.packets} | {waited} | {row.sender or 'both'} | {size} | {_escape(row.meaning)} |")
    if len(rows) > ROWS:
        lines.append(f"| … | | | | {len(rows) - ROWS} more rows |")
    return lines


def _escape(text: str) -> str:
    """Keep foreign text from acting as Markdown or HTML, or from calling people and becoming a link."""
    return " ".join(_inert(word) for word in printable(text).split(" "))


def _inert(word: str) -> str:
    if ACTIVE.fullmatch(word):
        bare = word.replace("`", "'").replace("|", "/")
        return f"`{bare}`"
    word = word.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for char in "\\`*_[]|#~":
        word = word.replace(char, "\\" + char)
    return word
