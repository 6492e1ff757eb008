"""The report for people: state, sentence, how sure, what to do, and then the proof. Always 80 columns.

Built as plain lines; colour repeats a word and is added last, so that it can never change the layout.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from analyzer.background import WEB_PORTS
from analyzer.findings import Evidence, Finding, NotChecked
from analyzer.report.attempts import endings, others
from analyzer.report.figures import figures
from analyzer.report.ladder import draw, ladder
from analyzer.report.past import Times
from analyzer.report.recognised import recognised_line
from analyzer.report.story import STEP_NAMES, UNSAID, Mark, Story
from analyzer.report.style import WIDTH, Style, columns
from analyzer.report.verdict import Verdict, histories_in_words, verdict_of
from analyzer.trace import Trace
from analyzer.wording import duration, endpoint, listing, moment, number, plain, plural, printable, span, wrap

LABEL: Final = 13
RULED_OUT_NAMES: Final = 23
MANY_ATTEMPTS: Final = 4
"""Attempts that are told one by one; more become a table of endings."""
LISTED_DEVICES: Final = 20
NAMED_DEVICES: Final = 3
ASIDE_FOR_ALL: Final = "· Own server"
"""An aside that belongs to all the steps above it, not to the last one."""
REASONS: Final = 8
REASONS_EACH: Final = 4
UNCHECKED: Final = 4
DRAWN_STORIES: Final = 3
LISTED_HISTORIES: Final = 5
SHARED: Final = "The same in "
HEALTHY: Final = "SPK001"
"""Its evidence tells of the pings already."""
COUNTED_FROM: Final = 10
"""From this count on the footer says how often a finding was made."""

RESET: Final = "\x1b[0m"
COLOURS: Final = {Mark.FAILS: "\x1b[31m", Mark.WARNS: "\x1b[33m", Mark.WORKS: "\x1b[32m", Mark.UNKNOWN: "\x1b[90m"}
BOLD, CYAN, MAGENTA = "\x1b[1m", "\x1b[36m", "\x1b[35m"


def text_report(trace: Trace, name: str, style: Style | None = None) -> str:
    """Return the report on a capture called ``name``."""
    style = style or Style()
    verdict = verdict_of(trace)
    lines = [_headline(verdict, name, style)]
    lines += wrap(verdict.sentence, style.width)
    if len(verdict.stories) > 1:
        lines += _table(verdict.stories)
    if style.quiet:
        lines += _first_step(verdict, style)
    else:
        lines += _body(trace, verdict, style)
    return finish(lines, style)


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
    return wrap(text, width, then=" " * (LABEL if line.startswith((" " * LABEL, "Why", "In Wire")) else 2))


def block(label: str, text: str, width: int = WIDTH) -> list[str]:
    """Return a paragraph with its label in the first 13 columns."""
    lines = wrap(text, width - LABEL) or [""]
    return [f"{label if index == 0 else '':<{LABEL}}{line}" for index, line in enumerate(lines)]


# -- the blocks, in order --------------------------------------------------------------------------------------


def _headline(verdict: Verdict, name: str, style: Style) -> str:
    left, shown = f"{verdict.mark} {verdict.state}", printable(name)
    cut = "…"
    if not style.unicode:
        left, shown, cut = plain(left), plain(shown), plain(cut)
    room = style.width - len(left) - 2
    shown = shown if len(shown) <= room else cut + shown[len(cut) - room :]
    return left + shown.rjust(style.width - len(left))


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


def numbered(label: str, steps: tuple[str, ...], width: int = WIDTH) -> list[str]:
    """Return steps with numbers, commands alone on their line, asides without a number."""
    count = sum(1 for step in steps if not step.startswith(("  ", "· ")))
    lines: list[str] = []
    index = 0
    for step in steps:
        head = label if not lines else ""
        if step.startswith("  "):
            lines.append(_command(head, step.strip(), 5 if count > 1 else 2, width))
            continue
        text, mark = step, ""
        if step.startswith("· "):
            text, mark = step[2:], "   " if count > 1 and not step.startswith(ASIDE_FOR_ALL) else ""
        elif count > 1:
            index += 1
            mark = f"{index}. "
        wrapped = wrap(text, width - LABEL - len(mark)) or [""]
        lines += [
            f"{head if n == 0 else '':<{LABEL}}{mark if n == 0 else ' ' * len(mark)}{line}"
            for n, line in enumerate(wrapped)
        ]
    return lines


def _command(head: str, command: str, indent: int, width: int) -> str:
    """Return a command alone on its line, in one piece so that it can be pasted: a long one stands further left."""
    room = max(0, width - len(command) - len(head))
    return f"{head}{' ' * min(LABEL + indent - len(head), room)}{command}"


def _first_step(verdict: Verdict, style: Style) -> list[str]:
    steps = verdict.steps
    chosen: list[str] = []
    for step in steps:
        if chosen and not step.startswith("  "):
            break
        chosen.append(step)
    return numbered("Do this", tuple(chosen), style.width) if chosen else []


def _table(stories: list[Story]) -> list[str]:
    rows = []
    for story in stories[:LISTED_DEVICES]:
        last = story.conversations[-1]
        reached = max((c.reached for c in story.conversations), key=list(STEP_NAMES).index)
        first = story.conversations[0].first_packet
        packets = span(first, max(c.last_packet for c in story.conversations))
        name = story.address if len(story.address) <= 18 else "…" + story.address[-17:]
        step = STEP_NAMES[reached] if last.kind in ("spark", "empty") else "not Spark"
        rows.append((name, story.state, number(len(story.conversations)), step, packets))
    headers = ("device", "state", "attempts", "last step reached", "packets")
    lines = ["", *columns(headers, rows, ("left", "left", "right", "left", "left"))]
    if len(stories) > LISTED_DEVICES:
        lines.append(f"  … {plural(len(stories) - LISTED_DEVICES, 'more device')}: --format jsonl lists all")
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
        lines += [*endings(story), ""]
    lines.append(f"Attempt {number(place)} of {number(many)}, {where}" if many > 1 else f"1 attempt, {where}")
    lines += draw(rows, style.width)
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
    if shows:
        lines += block("In Wireshark", shows, width)
    if trace.conversations:
        around = not_spark(trace)
        if around:
            lines += block("Not Spark", around, width)
    return lines


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
    for index, (names, because) in enumerate(story.ruled_out):
        left = wrap(names, RULED_OUT_NAMES - 1)
        right = wrap(because, width - LABEL - RULED_OUT_NAMES)
        for row in range(max(len(left), len(right))):
            label = "Ruled out" if index == 0 and row == 0 else ""
            name = left[row] if row < len(left) else ""
            why = right[row] if row < len(right) else ""
            lines.append(f"{label:<{LABEL}}{name:<{RULED_OUT_NAMES}}{why}")
    return lines


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
    for mark, colour in COLOURS.items():
        if line.startswith(f"{mark} "):
            return f"{colour}{line}{RESET}"
    if re.match(r"^\s{18,}\S", line) and line.strip().split(" ")[0] in (
        "particle",
        "nc",
        "sparkshark",
        "ss",
        "tcpdump",
        "openssl",
        "dfu-util",
        "tshark",
    ):
        return f"{BOLD}{line}{RESET}"
    if "▶" in line:
        return re.sub(r"[│✕]─.*▶", lambda m: f"{CYAN}{m[0]}{RESET}", line)
    if "◀" in line:
        return re.sub(r"◀─.*?[│✕]", lambda m: f"{MAGENTA}{m[0]}{RESET}", line)
    return line
