"""The report for people: state, sentence, how sure, what to do, and then the proof, fitted to a width.

Built as plain lines; colour repeats a word and is added last, so that it can never change the layout.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import zip_longest
from typing import Final

from analyzer.cells import NARROW, WIDTH, cells, cut_front, right
from analyzer.findings import Finding
from analyzer.report.attempts import endings, others
from analyzer.report.ladder import WITH_ROWS, draw, ladder
from analyzer.report.layout import LABEL, beside, block, columns, labelled, numbered
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
from analyzer.report.style import Style
from analyzer.report.verdict import Verdict, histories_in_words, verdict_of
from analyzer.trace import Trace
from analyzer.wording import endpoint, number, plain, plural, printable, wrap

RULED_OUT_NAMES: Final = 23
MANY_ATTEMPTS: Final = 4
"""Attempts that are told one by one; more become a table of endings."""
SHORTEST_NAME: Final = 16
"""Columns for the capture's name beside the state; with fewer it gets a line of its own."""
LISTED_DEVICES: Final = 20
DEVICE_NAME: Final = 18
"""Columns for an address in the table of devices, at 80; of a longer one the end is shown."""
REASONS: Final = 8
REASONS_EACH: Final = 4
UNCHECKED: Final = 4
LISTED_HISTORIES: Final = 5

RESET: Final = "\x1b[0m"
BOLD, RED, GREEN, YELLOW, CYAN, MAGENTA = (f"\x1b[{code}m" for code in (1, 31, 32, 33, 36, 35))
COLOURS: Final = {
    sign: colour
    for mark, colour in ((Mark.FAILS, RED), (Mark.WARNS, YELLOW), (Mark.WORKS, GREEN), (Mark.UNKNOWN, BOLD))
    for sign in (str(mark), plain(str(mark)))
}
"""Of each mark and its ASCII stand-in. "Cannot tell" has no colour: grey is the background itself in some themes."""
VERDICT: Final = re.compile(r"(✕|~|✓|\?|x|ok)(?: ([A-Z0-9][A-Z0-9 ]*[A-Z])(?=$|  ))?(?= )(.*)")
TO_SERVER: Final = re.compile(r"(.{14,}?)([│✕|x](?:─+|-+))( .+? )((?:─+|-+)[▶>](?=[│|]))(.*)")
TO_DEVICE: Final = re.compile(r"(.{14,}?[│|])([◀<](?:─+|-+))( .+? )((?:─+|-+)[│✕|x])(.*)")


def text_report(trace: Trace, name: str, style: Style | None = None) -> str:
    """Return the report on a capture called ``name``."""
    style = style or Style()
    verdict = verdict_of(trace)
    lines = _headline(verdict, name, style)
    lines += wrap(verdict.sentence, style.width)
    if len(verdict.stories) > 1:
        lines += _table(verdict.stories, style.width)
    if style.quiet:
        lines += _first_step(verdict, style)
    else:
        lines += _body(trace, verdict, style)
    return finish(lines, style, _commands(verdict))


def _commands(verdict: Verdict) -> set[str]:
    steps = [*verdict.steps, *(step for story in verdict.stories for step in story.steps)]
    return {step.strip() for step in steps if step.startswith("  ")}


def finish(lines: list[str], style: Style, bold: Collection[str] = ()) -> str:
    """Join lines, add colour where wanted, and reduce to ASCII where the output can take no more.

    ``bold`` are lines, without their indent, that are commands wherever they stand.
    """
    # Foreign text is escaped where it is quoted; escaping it once more here is the net below that.
    lines = [printable(line.rstrip()) for line in lines]
    if not style.unicode:
        lines = [part for line in lines for part in _in_ascii(line, style.width)]
    if style.colour:
        lines = [f"{BOLD}{line}{RESET}" if line.strip() in bold else _coloured(line) for line in lines]
    return "\n".join(lines) + "\n"


def _in_ascii(line: str, width: int) -> list[str]:
    """Return the line with stand-ins for our marks; some are longer, so that it may need a second line."""
    text = plain(line)
    if len(text) <= width:
        return [text]
    indent = len(line) - len(line.lstrip(" "))
    beside = width >= NARROW and line.startswith((" " * LABEL, "Why", "In Wire"))
    return wrap(text, width, then=" " * (LABEL if beside else max(2, indent)))


# -- the blocks, in order --------------------------------------------------------------------------------------


def _headline(verdict: Verdict, name: str, style: Style) -> list[str]:
    left, shown = f"{verdict.mark} {verdict.state}", printable(name)
    cut = "…"
    if not style.unicode:
        left, shown, cut = plain(left), plain(shown), plain(cut)
    room = style.width - len(left) - 2
    if room < cells(shown) and room < SHORTEST_NAME:  # a line of its own says more than its last letters
        whole = style.width - 2
        return [left, *wrap(shown if cells(shown) <= whole else cut + cut_front(shown, whole - len(cut)), style.width)]
    shown = shown if cells(shown) <= room else cut + cut_front(shown, room - len(cut))
    return [left + right(shown, style.width - len(left))]


def _body(trace: Trace, verdict: Verdict, style: Style) -> list[str]:
    lines: list[str] = []
    groups = [
        _sure_and_do(verdict, style),
        _history(trace, verdict, style),
        *_drawings(verdict, style),
        _reasons(trace, verdict, style),
    ]
    for group in groups:
        if group:
            lines += ["", *group]
    return [*lines, "", *_footer(trace, verdict, style)]


def _sure_and_do(verdict: Verdict, style: Style) -> list[str]:
    lines = block("How sure", verdict.sure, style.width) if verdict.sure else []
    return [*lines, *_do_this(verdict, style)]


def _do_this(verdict: Verdict, style: Style) -> list[str]:
    """The steps; with several devices, those for each cause, and which devices need none."""
    width = style.width
    if len(verdict.stories) < 2 or not any(s.steps for s in verdict.stories):
        return numbered("Do this", verdict.steps, width) if verdict.steps else []
    lines: list[str] = []
    for story in one_of_each_cause(verdict):
        if story.steps:
            lines += block("" if lines else "Do this", f"For {sharing(story, verdict)}:", width)
            lines += numbered("", story.steps, width)
    if names := idle(verdict):
        lines += block("", f"For {names}: nothing.", width)
    return lines


def _history(trace: Trace, verdict: Verdict, style: Style) -> list[str]:
    """What became of the devices over time, where there is something to tell; a few of them."""
    times = Times.of(trace)
    lines: list[str] = []
    past = histories_in_words(verdict, times)
    for text in past[:LISTED_HISTORIES]:
        lines += block("" if lines else "History", text, style.width)
    if len(past) > LISTED_HISTORIES:
        more = plural(len(past) - LISTED_HISTORIES, "more device")
        lines += block("", f"… {more}: --format json lists all", style.width)
    return lines


def _first_step(verdict: Verdict, style: Style) -> list[str]:
    steps = verdict.steps
    chosen: list[str] = []
    for step in steps:
        if chosen and not step.startswith("  "):
            break
        chosen.append(step)
    return numbered("Do this", tuple(chosen), style.width) if chosen else []


def _table(stories: list[Story], width: int) -> list[str]:
    rows = []
    longest = DEVICE_NAME + max(0, width - WIDTH)
    for story in stories[:LISTED_DEVICES]:
        name = story.address if len(story.address) <= longest else "…" + story.address[1 - longest :]
        rows.append((name, *device_row(story)))
    headers = ("device", "state", "attempts", "last step reached", "packets")
    lines = ["", *columns(headers, rows, ("left", "left", "right", "left", "left"), width)]
    if len(stories) > LISTED_DEVICES:
        more = plural(len(stories) - LISTED_DEVICES, "more device")
        lines += wrap(f"… {more}: --format jsonl lists all", width, first="  ", then="    ")
    return lines


def _drawings(verdict: Verdict, style: Style) -> list[list[str]]:
    """One drawing per cause, worst first; devices that work are drawn only when nothing fails."""
    return [drawing for story in one_of_each_cause(verdict) if (drawing := _drawing(story, style))]


def _drawing(story: Story, style: Style) -> list[str]:
    c = story.exemplar
    if c is None:
        return []
    rows = ladder(c)
    if not rows or (c.midway and c.part("nonce") is None):
        return []
    many = len(story.conversations)
    where = f"{story.address} to {endpoint(c.server.ip, c.server.port)}"
    place = story.conversations.index(c) + 1
    lines = []
    if many > MANY_ATTEMPTS:
        lines += [*endings(story, style.width), ""]
    lines += wrap(
        f"Attempt {number(place)} of {number(many)}, {where}" if many > 1 else f"1 attempt, {where}", style.width
    )
    # Genuine CoAP is shown rightly, and not to be ignored.
    misread = any(f.code == MISREAD and c.number in f.conversations for f in story.findings)
    shows = dict(c.rows.few) if misread and style.width >= WITH_ROWS else None
    lines += draw(rows, style.width, shows=shows)
    if 1 < many <= MANY_ATTEMPTS:
        lines += others(story, c, style.width)
    return lines


def _reasons(trace: Trace, verdict: Verdict, style: Style) -> list[str]:
    width = style.width
    lines = _why(verdict, width)
    if verdict.stories:
        lines += _ruled_out(verdict.stories[0], width)
    for index, because in enumerate(unchecked_of(verdict)[:UNCHECKED]):
        lines += block("" if index else "Not checked", because, width)
    measured = figures_of(verdict)
    if measured:
        lines += block("Figures", measured, width)
    for index, text in enumerate(recognised_of(verdict)):
        lines += block("" if index else "Recognised", text, width)
    shows = wireshark_of(verdict)
    if shows and not (width >= WITH_ROWS and _shown_beside(verdict)):
        lines += block("In Wireshark", shows, width)
    if trace.conversations:
        around = not_spark(trace)
        if around:
            lines += block("Not Spark", around, width)
    return lines


def _shown_beside(verdict: Verdict) -> bool:
    """Whether the drawing has beside it all that Wireshark shows of every connection like it."""
    drawn = [story.exemplar for story in verdict.stories if story.exemplar is not None]
    return len(verdict.stories) == len(drawn) == 1 and drawn[0].rows.total == len(drawn[0].rows.few)


def _why(verdict: Verdict, width: int) -> list[str]:
    """The reasons, of each cause where several devices fail in different ways."""
    lines: list[str] = []
    stories = one_of_each_cause(verdict)
    for story in stories:
        if len(stories) > 1:
            lines += block("" if lines else "Why", f"{sharing(story, verdict)}:", width)
        for text in joined(story.evidence)[: REASONS_EACH if len(stories) > 1 else REASONS]:
            lines += block("" if lines else "Why", text, width)
    for text in joined(verdict.evidence)[:REASONS]:
        lines += block("" if lines else "Why" if stories else "Seen", text, width)
    return lines


def _ruled_out(story: Story, width: int) -> list[str]:
    lines: list[str] = []
    for names, because in story.ruled_out:
        if width < NARROW:
            lines += wrap(f"{names}: {because}", beside(width), then="  ")
            continue
        left = wrap(names, RULED_OUT_NAMES - 1)
        why = wrap(because, beside(width) - RULED_OUT_NAMES)
        pairs = zip_longest(left, why, fillvalue="")
        lines += [f"{name:<{RULED_OUT_NAMES}}{reason}" for name, reason in pairs]
    return labelled("Ruled out", lines, width) if lines else []


def _footer(trace: Trace, verdict: Verdict, style: Style) -> list[str]:
    codes, what = codes_of(verdict), extent(trace)
    joint = "  " if any("×" in code for code in codes) else " "
    found = joint.join(codes)
    whole = f"{found} · {what}" if found else what
    lines = [whole] if len(whole) <= style.width else [*wrap(found, style.width), *wrap(what, style.width)]
    lead: Finding | None = verdict.lead
    if lead is not None and lead.code not in UNSAID:
        lines.append(f"More: sparkshark explain {lead.code}")
    return lines


# -- colour ------------------------------------------------------------------------------------------------------


def _coloured(line: str) -> str:
    """Colour the mark and the arrows, never the words: on white and on black those are readable in any theme."""
    if found := VERDICT.match(line):
        mark, state, rest = found.groups()
        return f"{COLOURS[mark]}{mark}{RESET}" + (f" {BOLD}{state}{RESET}" if state else "") + rest
    if found := TO_SERVER.match(line):
        return "{0}{c}{1}{r}{2}{c}{3}{r}{4}".format(*found.groups(), c=CYAN, r=RESET)
    if found := TO_DEVICE.match(line):
        return "{0}{c}{1}{r}{2}{c}{3}{r}{4}".format(*found.groups(), c=MAGENTA, r=RESET)
    return line
