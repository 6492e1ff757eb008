"""The attempts of each device over time: one lane per device, true linear time, one bar per attempt.

What became of an attempt is told by the height and the place of its bar as well as by its colour, and by a mark at
its end where there is room. Of more attempts than can be told apart, the lane shows how many there were in each bin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from analyzer.histories import Attempt, Outcome
from analyzer.report.html.picture import NARROW, WIDE, Picture, count_marks, cross, question, short, tick, time_marks
from analyzer.report.past import Times
from analyzer.report.story import Story
from analyzer.wording import listing, number, plural

MOST_BARS: Final = 120
"""From more attempts than these on a lane shows counts: bars would lie over each other."""
SHORTEST: Final = 3
"""Width of the bar of an attempt that takes no time at this scale."""
APART: Final = 11
"""Marks stand at least so far apart; an attempt whose mark has no room has its bar all the same."""
MARGIN: Final = 8
LANE: Final = 46
BAR: Final = 14
LETTERS: Final = {WIDE: 70, NARROW: 34}
"""Of a device's name and what is said behind it, as many as a lane has room for."""
NAMES: Final = {Outcome.WORKED: "works", Outcome.FAILED: "fails", Outcome.UNJUDGED: "unknown"}
BARS: Final = {
    Outcome.WORKED: "high and ticked, it worked",
    Outcome.FAILED: "low and crossed, it failed",
    Outcome.UNJUDGED: "thin and ringed, it cannot be judged",
}
WORDS: Final = {Outcome.WORKED: "worked", Outcome.FAILED: "failed", Outcome.UNJUDGED: "cannot be judged"}


def lanes(stories: Sequence[Story], times: Times, title: str) -> tuple[Picture, Picture]:
    """Return the picture of some devices in two widths."""
    about = "One lane per device, linear time. " + " ".join(f"{s.address}: {counts(s)}." for s in stories)
    wide, narrow = (_draw(stories, times, Picture(width, title, about)) for width in (WIDE, NARROW))
    return wide, narrow


def note_on(stories: Sequence[Story]) -> str:
    """Say how to read the picture: what there is in it, and no more."""
    attempts = [s.history.attempts for s in stories]
    outcomes = {a.outcome for own in attempts for a in own}
    notes = []
    if any(len(own) <= MOST_BARS for own in attempts):
        shapes = [BARS[outcome] for outcome in Outcome if outcome in outcomes]
        notes.append(f"One bar per attempt, as long as it lasted: {', '.join(shapes)}.")
    if any(len(own) > MOST_BARS for own in attempts):
        notes.append("Where there are very many, columns count them: upwards those that worked, downwards the others.")
    return " ".join(notes)


def counts(story: Story) -> str:
    """Say what became of a device's attempts: ``3 attempts: 1 worked and 2 failed``."""
    attempts = story.history.attempts
    each = [f"{number(n)} {WORDS[o]}" for o in Outcome if (n := story.history.count(o))]
    if len(each) == 1:
        return f"{plural(len(attempts), 'attempt')}, {WORDS[attempts[0].outcome]}"
    return f"{plural(len(attempts), 'attempt')}: {listing(each)}"


def _draw(stories: Sequence[Story], times: Times, p: Picture) -> Picture:
    every = [a.conversation for s in stories for a in s.history.attempts]
    begun, ended = min(c.start_ns for c in every), max(c.end_ns for c in every)
    span = max(ended - begun, 1)
    scale = (p.width - 2 * MARGIN) / span
    bottom = LANE * len(stories)
    marks = list(time_marks(span, 6 if p.width == WIDE else 3))
    grid = "".join(f"M{short(MARGIN + mark * scale)} 0V{bottom}" for mark in marks)
    p.path("grid", grid)
    for index, story in enumerate(stories):
        y = index * LANE + 28
        name = story.address if len(story.address) <= 24 else f"…{story.address[-23:]}"
        p.text("lane start halo", MARGIN + 4, y - 14, f"{name} · {counts(story)}"[: LETTERS[p.width]])
        p.path("grid", f"M{MARGIN} {y + BAR / 2}H{p.width - MARGIN}")
        attempts = story.history.attempts
        if len(attempts) > MOST_BARS:
            _bins(p, attempts, begun, scale, y)
        else:
            _bars(p, attempts, begun, scale, y)
    said = ""
    for index, mark in enumerate(marks):
        if times.at(begun + mark) == said:
            continue  # marks less than a second apart, or less than a minute where seconds are not told
        said = times.at(begun + mark)
        x = MARGIN + mark * scale
        at = "start" if not index else "end" if x > p.width - 60 else "middle"
        p.text(f"small {at}", x, bottom + 14, said)
    p.height = bottom + 20
    return p


def _bars(p: Picture, attempts: Sequence[Attempt], begun: int, scale: float, y: float) -> None:
    """What worked is a high bar, what failed a low one, what cannot be told a line."""
    bars: dict[Outcome, list[str]] = {}
    signs: dict[Outcome, list[str]] = {}
    free = -APART
    for attempt in attempts:
        c = attempt.conversation
        x = MARGIN + (c.start_ns - begun) * scale
        width = max(SHORTEST, (max(c.end_ns, c.start_ns) - c.start_ns) * scale)
        x = min(x, p.width - MARGIN - width)
        height = {Outcome.WORKED: BAR, Outcome.FAILED: BAR / 2, Outcome.UNJUDGED: 3}[attempt.outcome]
        top = y + (BAR - height) / 2
        box = f"M{short(x)} {short(top)}h{short(width)}v{short(height)}h-{short(width)}z"
        bars.setdefault(attempt.outcome, []).append(box)
        end = min(x + width, p.width - MARGIN - 2)
        if end >= free + APART:
            free = int(end)
            sign = {Outcome.WORKED: tick, Outcome.FAILED: cross, Outcome.UNJUDGED: question}[attempt.outcome]
            signs.setdefault(attempt.outcome, []).append(sign(end, y - 6))
    for outcome, boxes in bars.items():
        p.path(f"bar {NAMES[outcome]}", "".join(boxes))
    for outcome, drawn in signs.items():
        p.path(f"sign {NAMES[outcome]}", "".join(drawn))


def _bins(p: Picture, attempts: Sequence[Attempt], begun: int, scale: float, y: float) -> None:
    """Columns of how many began in each bin: upwards those that worked, downwards the others."""
    size = 6
    up: dict[int, int] = {}
    down: dict[int, int] = {}
    for attempt in attempts:
        place = int((attempt.conversation.start_ns - begun) * scale) // size
        side = up if attempt.outcome is Outcome.WORKED else down
        side[place] = side.get(place, 0) + 1
    most = max(*up.values(), *down.values(), 1)
    middle = y + BAR / 2
    for side, name, direction in ((up, "works", -1), (down, "fails", 1)):
        if not side:
            continue
        boxes = []
        for place, count in side.items():
            height = max(1.0, count / most * 13) * direction
            boxes.append(f"M{MARGIN + place * size} {short(middle)}h{size - 1}v{short(height)}h-{size - 1}z")
        p.path(f"bar {name}", "".join(boxes))
    p.text(
        "small end halo",
        p.width - MARGIN,
        y - 14,
        f"up to {number(count_marks(most, 1)[-1] if most > 9 else most)} each",
    )
