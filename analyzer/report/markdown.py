"""The report to paste into a forum: at most 30 lines, shortened unless asked otherwise."""

from __future__ import annotations

from typing import Final

from analyzer.findings import CONFIDENCE_WORDS
from analyzer.report.ladder import ladder
from analyzer.report.redact import Redactor
from analyzer.report.verdict import Story, verdict_of
from analyzer.trace import Trace
from analyzer.wording import duration, listing, plural

ROWS: Final = 14
STORIES: Final = 3


def markdown_report(trace: Trace, redactor: Redactor | None) -> str:
    """Return the report; ``redactor`` None leaves addresses as they are."""
    verdict = verdict_of(trace)
    lead = verdict.lead
    code = f" ({lead.code}, {CONFIDENCE_WORDS[lead.confidence].lower()})" if lead else ""
    lines = [f"**{verdict.state.capitalize()}: {_escape(verdict.sentence)}**{code}", ""]
    for story in verdict.stories[:STORIES]:
        lines.append(f"- {_story(story, trace)}")
    if len(verdict.stories) > STORIES:
        lines.append(f"- {plural(len(verdict.stories) - STORIES, 'more device')}")
    if verdict.sure:
        lines.append(f"- {_escape(verdict.sure)}")
    first = verdict.stories[0] if verdict.stories else None
    if first is not None and first.ruled_out:
        names = [n[0].lower() + n[1:] for n, _ in first.ruled_out]
        lines.append(f"- Ruled out: {_escape('; '.join(names))}")
    if first is not None:
        lines += ["", *_table(first)]
    steps = lead.fix if lead is not None else ()
    todo = [step.strip() for step in steps if step.startswith("  ")]
    if todo:
        lines += ["", f"**Next:** `{todo[0]}`"]
    for item in (first.unchecked if first is not None else verdict.unchecked)[:1]:
        lines += ["", f"Not checked: {_escape(item.because)}"]
    if redactor is not None and redactor.told:
        lines += ["", f"Shortened: {listing(redactor.told)}."]
    text = "\n".join(lines) + "\n"
    return redactor.text(text) if redactor is not None else text


def _story(story: Story, trace: Trace) -> str:
    c = story.conversations[0]
    packets = sum(s.quality.packets for x in story.conversations for s in x.sides.values())
    span = story.conversations[-1].end_ns - c.start_ns
    return (
        f"{story.address} to {c.server.ip}:{c.server.port}, {plural(len(story.conversations), 'attempt')} in"
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
    """Keep foreign text from acting as Markdown or HTML."""
    for char in "\\`*_[]|":
        text = text.replace(char, "\\" + char)
    return text.replace("<", "&lt;").replace(">", "&gt;")
