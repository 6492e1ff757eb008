"""What became of the attempts that are not drawn: one by one when they are few, as a table of endings when many."""

from __future__ import annotations

import re
from typing import Final

from analyzer.cells import WIDTH
from analyzer.conversation import Conversation
from analyzer.histories import pauses
from analyzer.report.layout import columns
from analyzer.report.story import STEP_NAMES, Story
from analyzer.streams import Sender
from analyzer.wording import clock, duration, moment, number, span, wrap

ALIKE: Final = 1.2
"""Pauses that differ by less than this factor are told as one."""
MOST_ENDINGS: Final = 8
BINS: Final = 36
"""Columns of the line that shows the attempts over time, at 80; the others are for times and rate."""
FEWEST_BINS: Final = 8


def others(story: Story, drawn: Conversation, width: int) -> list[str]:
    """Tell of the attempts that are not drawn, and of the pauses between them."""
    lines = []
    for index, c in enumerate(story.conversations, 1):
        if c is drawn:
            continue
        same = ending(c) == ending(drawn)
        several = "s" if c.last_packet > c.first_packet else ""
        text = f"Attempt {index} (packet{several} {span(c.first_packet, c.last_packet)}): "
        text += f"as attempt {story.conversations.index(drawn) + 1}." if same else f"{ending_text(c)}."
        lines.append(text)
    if waited := pause_text(story):
        lines[-1] += f" {waited}"
    return [part for line in lines for part in wrap(line, width, first="  ", then="    ")]


def pause_text(story: Story) -> str:
    """Say how long the device waited between its attempts; "" of a single one."""
    waited = pauses(story.conversations)
    if not waited:
        return ""
    shortest, longest = min(waited), max(waited)
    alike = longest <= ALIKE * shortest
    told = duration(sorted(waited)[len(waited) // 2]) if alike else f"{duration(shortest)} to {duration(longest)}"
    return f"Pause between attempts: {told}."


def ending(c: Conversation) -> tuple[str, str, bool]:
    """What makes two attempts "the same": how far, closed by whom, with a dead-key message or not."""
    return c.reached, c.closed_by, bool(c.dead_frames)


def ending_text(c: Conversation) -> str:
    """Say how an attempt ended, in a few words."""
    if c.reached == "established":
        return "logged in"
    if not c.closings:
        return (
            "no answer" if c.reached == "syn" else f"open at the end of the capture, after the {STEP_NAMES[c.reached]}"
        )
    end = c.closings[0]
    part = next((p for p in (c.part(k) for k in ("session", "identity", "nonce")) if p is not None), None)
    verb = "cut off" if end.how == "rst" else "closed"
    if part is None:
        if c.connected is None:
            return f"{end.sender} refused"
        return f"{end.sender} {verb} after {duration(end.time_ns - c.connected.time_ns)} without a greeting"
    waited = end.time_ns - part.time_ns
    if end.sender is Sender.SERVER and waited >= 2_000_000_000:
        return f"server gave up after {duration(waited)}"
    return f"{end.sender} {verb} {duration(waited)} after packet {number(part.packet)}"


def ending_groups(story: Story) -> list[tuple[str, list[Conversation]]]:
    """Return the attempts that ended the same way together, with how that was; the largest group first."""
    groups: dict[tuple[str, str, bool], list[Conversation]] = {}
    for c in story.conversations:
        groups.setdefault(ending(c), []).append(c)
    # Where the first of them ended says nothing about the others; how soon after the last step does.
    return [
        (re.sub(r" (\S+ \S+) after packet [\d,]+", r" after \1", ending_text(members[0])), members)
        for members in sorted(groups.values(), key=len, reverse=True)
    ]


def endings(story: Story, width: int) -> list[str]:
    """The table of endings, and the attempts over time."""
    rows = []
    for text, members in ending_groups(story)[:MOST_ENDINGS]:
        last = number(max(c.last_packet for c in members))
        rows.append((number(len(members)), text[:34], number(members[0].first_packet), last))
    headers = ("attempts", "end", "first packet", "last packet")
    lines = columns(headers, rows, ("right", "left", "right", "right"), width)
    starts = [c.start_ns for c in story.conversations]
    begun, ended = min(starts), max(starts)  # a clock that was set back puts them out of order
    if ended > begun:
        count = max(FEWEST_BINS, BINS + width - WIDTH)
        bins = [0] * count
        for start in starts:
            bins[min(count - 1, (start - begun) * count // (ended - begun))] += 1
        bar = "".join("▇" if n else " " for n in bins)
        rate = (len(story.conversations) - 1) * 3600e9 / (ended - begun)
        pace = f"{rate:,.0f} an hour" if rate < 7200 else f"{rate / 3600:,.1f} a second"
        line = f"  {_when(begun, ended)} {bar} {_when(ended, begun)}"
        lines += [f"{line}   {pace}"] if len(line) + 3 + len(pace) <= width else [line, f"  {pace}"]
    return lines


def _when(time_ns: int, other_ns: int) -> str:
    """Return the time of day, behind month and day where the other moment is on another one."""
    date, other = moment(time_ns)[:10], moment(other_ns)[:10]
    return clock(time_ns) if date == other else f"{date[5:]} {clock(time_ns)}"
