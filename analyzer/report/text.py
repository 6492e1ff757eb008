"""The report for people: state, sentence, how sure, what to do, and then the proof, fitted to a width.

Built as plain lines; colour repeats a word and is added last, so that it can never change the layout.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import zip_longest
from typing import Final

from analyzer.background import WEB_PORTS
from analyzer.cells import NARROW, WIDTH, cells, cut_front, right
from analyzer.findings import Evidence, Finding, NotChecked
from analyzer.report.attempts import endings, others
from analyzer.report.figures import figures
from analyzer.report.ladder import WITH_ROWS, draw, ladder
from analyzer.report.layout import LABEL, beside, block, columns, labelled, numbered
from analyzer.report.past import Times
from analyzer.report.recognised import recognised_line
from analyzer.report.story import STEP_NAMES, UNSAID, Mark, Story
from analyzer.report.style import Style
from analyzer.report.verdict import Verdict, histories_in_words, verdict_of
from analyzer.trace import Trace
from analyzer.wording import duration, endpoint, listing, moment, number, plain, plural, printable, span, wrap

RULED_OUT_NAMES: Final = 23
MANY_ATTEMPTS: Final = 4
"""Attempts that are told one by one; more become a table of endings."""
SHORTEST_NAME: Final = 16
"""Columns for the capture's name beside the state; with fewer it gets a line of its own."""
LISTED_DEVICES: Final = 20
DEVICE_NAME: Final = 18
"""Columns for an address in the table of devices, at 80; of a longer one the end is shown."""
NAMED_DEVICES: Final = 3
REASONS: Final = 8
REASONS_EACH: Final = 4
UNCHECKED: Final = 4
DRAWN_STORIES: Final = 3
LISTED_HISTORIES: Final = 5
SHARED: Final = "The same in "
MISREAD: Final = "SPK401"
HEALTHY: Final = "SPK001"
"""Its evidence tells of the pings already."""
COUNTED_FROM: Final = 10
"""From this count on the footer says how often a finding was made."""

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
    for story in _one_of_each_cause(verdict):
        if story.steps:
            lines += block("" if lines else "Do this", f"For {_sharing(story, verdict)}:", width)
            lines += numbered("", story.steps, width)
    idle = [story.address for story in verdict.stories if story.mark is Mark.WORKS and not story.steps]
    if 0 < len(idle) <= NAMED_DEVICES:
        lines += block("", f"For {listing(idle)}: nothing.", width)
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


def _sharing(story: Story, verdict: Verdict) -> str:
    """Name the devices that the cause of ``story`` is told of."""
    names = [s.address for s in verdict.stories if _cause(s) == _cause(story)]
    return listing(names) if len(names) <= NAMED_DEVICES else f"{names[0]} and {number(len(names) - 1)} others"


def _cause(story: Story) -> tuple[str, str]:
    if story.together is not None:
        return str(story.mark), f"shared {id(story.together)}"
    return story.state, story.lead.code if story.lead else ""


def _one_of_each_cause(verdict: Verdict) -> list[Story]:
    """The devices to draw and to tell of: one for each cause, worst first; those that work only if all do."""
    failing = [s for s in verdict.stories if s.mark in (Mark.FAILS, Mark.WARNS)]
    chosen: dict[tuple[str, str], Story] = {}
    for story in failing or verdict.stories:
        chosen.setdefault(_cause(story), story)
    return list(chosen.values())[:DRAWN_STORIES]


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
        last = story.conversations[-1]
        reached = max((c.reached for c in story.conversations), key=list(STEP_NAMES).index)
        first = story.conversations[0].first_packet
        packets = span(first, max(c.last_packet for c in story.conversations))
        name = story.address if len(story.address) <= longest else "…" + story.address[1 - longest :]
        step = STEP_NAMES[reached] if last.kind in ("spark", "empty") else "not Spark"
        rows.append((name, story.state, number(len(story.conversations)), step, packets))
    headers = ("device", "state", "attempts", "last step reached", "packets")
    lines = ["", *columns(headers, rows, ("left", "left", "right", "left", "left"), width)]
    if len(stories) > LISTED_DEVICES:
        more = plural(len(stories) - LISTED_DEVICES, "more device")
        lines += wrap(f"… {more}: --format jsonl lists all", width, first="  ", then="    ")
    return lines


def _drawings(verdict: Verdict, style: Style) -> list[list[str]]:
    """One drawing per cause, worst first; devices that work are drawn only when nothing fails."""
    return [drawing for story in _one_of_each_cause(verdict) if (drawing := _drawing(story, style))]


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
    told = " ".join((verdict.sentence, verdict.sure))
    unchecked = [item for s in verdict.stories[:DRAWN_STORIES] for item in s.unchecked if item.because not in told]
    for index, because in enumerate(_alike_once(unchecked)[:UNCHECKED]):
        lines += block("" if index else "Not checked", because, width)
    measured = _figures(verdict)
    if measured:
        lines += block("Figures", measured, width)
    lines += _recognised(verdict, width)
    shows = next((s.wireshark_shows for s in verdict.stories if s.wireshark_shows), None)
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


def _recognised(verdict: Verdict, width: int) -> list[str]:
    """Which firmware and which server it is, of one device for each cause."""
    lines: list[str] = []
    stories = _one_of_each_cause(verdict)
    for story in stories:
        if told := recognised_line(story.conversations):
            whose = f"{story.address}: " if len(verdict.stories) > 1 else ""
            lines += block("" if lines else "Recognised", whose + told, width)
    return lines


def _why(verdict: Verdict, width: int) -> list[str]:
    """The reasons, of each cause where several devices fail in different ways."""
    lines: list[str] = []
    stories = _one_of_each_cause(verdict)
    for story in stories:
        if len(stories) > 1:
            lines += block("" if lines else "Why", f"{_sharing(story, verdict)}:", width)
        for text in _joined(story.evidence)[: REASONS_EACH if len(stories) > 1 else REASONS]:
            lines += block("" if lines else "Why", text, width)
    for text in _joined(verdict.evidence)[:REASONS]:
        lines += block("" if lines else "Why" if stories else "Seen", text, width)
    return lines


def _figures(verdict: Verdict) -> str:
    """What was measured of the device that is told of first."""
    if not verdict.stories:
        return ""
    story = verdict.stories[0]
    told = figures(story.conversations, pings=HEALTHY not in [finding.code for finding in story.said])
    return f"{story.address}: {told}" if told and len(verdict.stories) > 1 else told


def _joined(evidence: list[Evidence]) -> list[str]:
    """Put what other attempts share behind what they share it with."""
    texts: list[str] = []
    for item in evidence:
        if texts and item.text.startswith(SHARED):
            texts[-1] += f" {item.text}"
        else:
            texts.append(item.text)
    return texts


def _alike_once(unchecked: list[NotChecked]) -> list[str]:
    """Tell reasons that differ in their numbers alone once, with how many more there are."""
    alike: dict[str, list[str]] = {}
    for item in unchecked:
        alike.setdefault(re.sub(r"\d[\d,.]*( [µm]?s)?", "", item.because), []).append(item.because)
    return [
        texts[0] + (f" So in {plural(len(set(texts)) - 1, 'other attempt')}." if len(set(texts)) > 1 else "")
        for texts in alike.values()
    ]


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


def _footer(trace: Trace, verdict: Verdict, style: Style) -> list[str]:
    codes = [code if count < COUNTED_FROM else f"{code} ×{number(count)}" for code, count in verdict.codes]
    what = f"{plural(trace.packets, 'packet')}"
    if trace.first_ns is not None:
        what += f", {duration(trace.duration_ns)} from {moment(trace.first_ns)}"
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
