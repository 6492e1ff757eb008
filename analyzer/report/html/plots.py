"""Plots where they help: answers to pings, messages over time, an update on its way, packets sent twice.

Each comes with a sentence that says what it shows and with a table of the same. A conversation's messages may be a
million, so they are read once and counted into bins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from analyzer.conversation import Conversation
from analyzer.message_table import DEVICE, SERVER
from analyzer.messages import SparkMessage
from analyzer.report.figures import percent
from analyzer.report.html.picture import (
    NARROW,
    NS,
    WIDE,
    Picture,
    count_marks,
    cross,
    round_time,
    short,
    time_marks,
)
from analyzer.statistics import Repeats, measure
from analyzer.streams import Sender
from analyzer.wording import duration, number, plural, size, span

BINS: Final = 100
"""Columns of a plot over time; pings beyond so many share a column, which shows the slowest of each."""
LISTED: Final = 12
"""Rows of the table below a plot: the slowest answers, the bins with most messages."""
MOST_INDEXES: Final = 1 << 16
"""An index of a chunk has 16 bits."""
OF_UPDATES: Final = frozenset({"UpdateBegin", "SaveBegin", "Chunk", "ChunkMissed"})
HEIGHT: Final = 150
LEFT: Final = 58
TOP: Final = 10
RIGHT: Final = 10


@dataclass(slots=True)
class Plot:
    """One plot: its title, the sentence, the picture in two widths, the table."""

    title: str
    sentence: str
    pictures: tuple[Picture, Picture]
    headers: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    caption: str = ""


@dataclass(slots=True)
class _Ping:
    time_ns: int
    packet: int
    answer_ns: int | None  # None: no answer in the capture


@dataclass(slots=True)
class _Update:
    """An update as it goes on: (time, bytes so far) of each chunk, and when chunks were asked for again."""

    begun_ns: int
    packet: int
    announced: int | None
    points: list[tuple[int, int]] = field(default_factory=list)
    missed: list[tuple[int, int]] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    bytes: int = 0
    chunks: int = 0
    again: int = 0
    last_packet: int = 0


@dataclass(slots=True)
class _Course:
    """What the messages of one conversation come to over time."""

    start_ns: int
    end_ns: int
    counts: dict[str, list[int]]
    pings: list[_Ping]
    unanswered: dict[int, _Ping]
    updates: list[_Update]
    total: int = 0
    answered: int = 0
    last_ns: int | None = None
    pause: tuple[int, int] = (0, 0)  # the longest between two messages, and the packet after it


def plots_of(c: Conversation) -> list[Plot]:
    """Return the plots of one conversation that opened."""
    course = _read(c)
    found = [_pings(course), *(_progress(update, course) for update in course.updates), _messages(course)]
    return [plot for plot in found if plot is not None]


def _read(c: Conversation) -> _Course:
    end = max(c.end_ns, c.start_ns + 1)
    course = _Course(c.start_ns, end, {DEVICE: [0] * BINS, SERVER: [0] * BINS}, [], {}, [])
    slowest: list[_Ping | None] = [None] * BINS
    for m in c.messages:
        course.total += 1
        at = min(BINS - 1, max(0, (m.time_ns - c.start_ns) * BINS // (end - c.start_ns)))
        course.counts[m.direction][at] += 1
        if course.last_ns is not None and m.time_ns - course.last_ns > course.pause[0]:
            course.pause = (m.time_ns - course.last_ns, m.packet)
        course.last_ns = m.time_ns
        if m.name == "Ping" and m.direction == DEVICE:
            course.unanswered[m.index] = _Ping(m.time_ns, m.packet, None)
            if len(course.unanswered) > BINS:  # long over: of these the first few are enough
                course.unanswered.pop(next(reversed(course.unanswered)))
        elif m.name == "PingAck" and m.answers is not None and m.answer_ns is not None:
            asked = course.unanswered.pop(m.answers, None)
            course.answered += 1
            ping = _Ping(m.time_ns - m.answer_ns, asked.packet if asked else m.packet, m.answer_ns)
            before = slowest[at]
            if before is None or (before.answer_ns or 0) < m.answer_ns:
                slowest[at] = ping
            if course.answered <= BINS:
                course.pings.append(ping)
        else:
            _follow_update(course, m)
    if course.answered > BINS:
        course.pings = [ping for ping in slowest if ping is not None]
    return course


def _follow_update(course: _Course, m: SparkMessage) -> None:
    name, time_ns, packet = m.name, m.time_ns, m.packet
    if name not in OF_UPDATES:
        return  # what the others say need not be read
    values = m.values
    update = course.updates[-1] if course.updates else None
    if name in ("UpdateBegin", "SaveBegin"):
        if update is None or update.points:
            course.updates.append(_Update(time_ns, packet, values.get("file_length")))
    elif name == "Chunk":
        if update is None:
            update = _Update(time_ns, packet, None)
            course.updates.append(update)
        index = values.get("index")
        if index is not None and index in update.seen:
            update.again += 1
            return
        if index is not None and len(update.seen) < MOST_INDEXES:
            update.seen.add(index)
        update.chunks += 1
        update.bytes += int(values.get("size", 0))
        update.last_packet = packet
        if update.announced:
            update.bytes = min(update.bytes, update.announced)  # the last chunk is filled up
        update.points.append((time_ns, update.bytes))
    elif name == "ChunkMissed" and update is not None:
        update.missed.append((time_ns, update.bytes))


# -- one plot each -------------------------------------------------------------------------------------------------


def _pings(course: _Course) -> Plot | None:
    pings, unanswered = course.pings, list(course.unanswered.values())
    if len(pings) + len(unanswered) < 2 or not pings:
        return None
    times = sorted(p.answer_ns for p in pings if p.answer_ns is not None)
    worst = max(pings, key=lambda p: p.answer_ns or 0)
    shortest, longest = duration(times[0]), duration(times[-1])
    sentence = f"{plural(course.answered, 'ping')} answered in {shortest}"
    if longest != shortest:
        sentence += f" to {longest}; the slowest answer is that to packet {number(worst.packet)}"
    sentence += "."
    if unanswered:
        sentence += f" Without an answer: {plural(len(unanswered), 'ping')}, at the top."
    if course.answered > BINS:
        sentence += f" Of each {duration((course.end_ns - course.start_ns) // BINS)} the slowest is drawn."
    title = "Answers to pings"

    def draw(p: Picture) -> Picture:
        plane = _Plane(p, course.start_ns, course.end_ns, 1.1 * times[-1])
        plane.time_axis()
        plane.value_axis([(mark, round_time(mark)) for mark in time_marks(times[-1], 4)])
        for ping in pings:
            p.dot("point server", plane.x(ping.time_ns), plane.y(ping.answer_ns or 0), 3)
        if unanswered:
            p.path("sign fails", "".join(cross(plane.x(ping.time_ns), TOP + 2) for ping in unanswered))
        return p

    slow = sorted(pings, key=lambda p: -(p.answer_ns or 0))[:LISTED]
    rows = [(number(p.packet), duration(p.time_ns - course.start_ns), duration(p.answer_ns or 0)) for p in slow]
    rows += [(number(p.packet), duration(p.time_ns - course.start_ns), "no answer") for p in unanswered[:LISTED]]
    headers = ("packet", "after", "answered in")
    return Plot(title, sentence, _both(title, sentence, draw), headers, rows, "The slowest answers")


def _progress(update: _Update, course: _Course) -> Plot | None:
    if len(update.points) < 3:
        return None
    first, last = update.points[0][0], update.points[-1][0]
    of = f" of {size(update.announced)}" if update.announced else ""
    took = last - update.begun_ns
    rate = f", {size(round(update.bytes * NS / (last - first)))}/s" if last > first else ""
    sentence = (
        f"Firmware update: {size(update.bytes)}{of} in {plural(update.chunks, 'chunk')}, in {duration(took)}{rate}."
    )
    if update.missed or update.again:
        sentence += (
            f" Asked for again {plural(len(update.missed), 'time')}, sent again {plural(update.again, 'chunk')}."
        )
    top = max(update.announced or 0, update.bytes, 1)
    title = f"Update, packets {span(update.packet, update.last_packet)}"

    def draw(p: Picture) -> Picture:
        plane = _Plane(p, update.begun_ns, max(last, update.begun_ns + 1), top)
        plane.time_axis()
        plane.value_axis([(mark, size(mark) if mark else "0") for mark in count_marks(top, 3) if mark <= top])
        if update.announced:
            p.path("limit", f"M{LEFT} {short(plane.y(update.announced))}H{p.width - RIGHT}")
        shown = [*update.points[:: max(1, len(update.points) // 300)], update.points[-1]]
        line = f"M{short(plane.x(update.begun_ns))} {short(plane.y(0))}"
        line += "".join(f"L{short(plane.x(time))} {short(plane.y(amount))}" for time, amount in shown)
        p.path("line server", line)
        if update.missed:
            marks = update.missed[:: max(1, len(update.missed) // 100)]
            p.path("sign fails", "".join(cross(plane.x(time), plane.y(amount) - 8, 3) for time, amount in marks))
        return p

    picked = update.points[:: max(1, len(update.points) // LISTED)]
    rows = [(duration(time - update.begun_ns), size(amount)) for time, amount in picked]
    rows.append((duration(last - update.begun_ns), size(update.bytes)))
    return Plot(title, sentence, _both(title, sentence, draw), ("after", "transferred"), rows)


def _messages(course: _Course) -> Plot | None:
    if course.total < 4:
        return None
    sent, received = (course.counts[name] for name in (DEVICE, SERVER))
    most = max(*sent, *received)
    width = (course.end_ns - course.start_ns) // BINS
    sentence = (
        f"{plural(course.total, 'message')}: {number(sum(sent))} sent (upwards), {number(sum(received))} received"
        f" (downwards)."
    )
    if course.pause[0]:
        sentence += f" The longest pause, {duration(course.pause[0])}, ends with packet {number(course.pause[1])}."
    title = "Messages over time"

    def draw(p: Picture) -> Picture:
        plane = _Plane(p, course.start_ns, course.end_ns, 2 * most)
        plane.time_axis()
        middle = plane.y(most)
        plane.value_axis(
            [
                (most + sign * mark, number(mark))
                for mark in count_marks(most, 2)
                if mark <= most
                for sign in ((1, -1) if mark else (1,))
            ]
        )
        column = (p.width - LEFT - RIGHT) / BINS
        for counted, name, up in ((sent, "device", 1), (received, "server", -1)):
            boxes = [
                f"M{short(LEFT + index * column)} {short(middle)}h{short(column * 0.8)}"
                f"V{short(plane.y(most + up * count))}h-{short(column * 0.8)}z"
                for index, count in enumerate(counted)
                if count
            ]
            p.path(f"bar {name}", "".join(boxes))
        return p

    busiest = sorted(range(BINS), key=lambda i: -(sent[i] + received[i]))[:LISTED]
    rows = [
        (duration(i * width), number(sent[i]), number(received[i])) for i in sorted(busiest) if sent[i] + received[i]
    ]
    headers = ("after", "sent", "received")
    caption = f"The busiest stretches of {duration(width)} each"
    return Plot(title, sentence, _both(title, sentence, draw), headers, rows, caption)


def repeats_of(conversations: Sequence[Conversation]) -> Plot | None:
    """Return how much each end sent again; None when that is nothing."""
    told = measure(conversations).repeats
    if not any(repeats.segments for repeats in told.values()):
        return None
    parts = [
        f"{percent(repeats.share)} of the {sender}'s packets with data ({number(repeats.segments)} of"
        f" {number(repeats.of_segments)})"
        for sender, repeats in told.items()
        if repeats.of_segments
    ]
    sentence = f"Sent again, because no confirmation came in time: {', '.join(parts)}."
    title = "Packets sent again"
    each = _each(conversations) if len(conversations) > 2 else []

    def draw(p: Picture) -> Picture:
        return _over_attempts(p, each) if each else _two_bars(p, told)

    rows = [(str(sender), number(r.of_segments), number(r.segments), percent(r.share)) for sender, r in told.items()]
    return Plot(title, sentence, _both(title, sentence, draw), ("sender", "packets", "sent again", "share"), rows)


def _each(conversations: Iterable[Conversation]) -> list[tuple[int, Sender, float]]:
    """The share of each attempt and sender, with the time it began."""
    return [
        (c.start_ns, sender, repeats.share)
        for c in conversations
        for sender, repeats in measure([c]).repeats.items()
        if repeats.share is not None
    ][: 4 * BINS]


def _two_bars(p: Picture, told: dict[Sender, Repeats]) -> Picture:
    most = max(repeats.of_segments for repeats in told.values()) or 1
    room = p.width - LEFT - RIGHT
    y = 0.0
    for sender, repeats in told.items():
        y += 26
        p.text("small end", LEFT - 8, y - 4, str(sender))
        p.rect(f"bar {sender}", LEFT, y - 16, room * repeats.of_segments / most, 16)
        p.rect("bar fails edge", LEFT, y - 16, max(2, room * repeats.segments / most) if repeats.segments else 0, 16)
    p.height = y + 8
    return p


def _over_attempts(p: Picture, each: list[tuple[int, Sender, float]]) -> Picture:
    most = max(share for _, _, share in each)
    first, last = min(time for time, _, _ in each), max(time for time, _, _ in each)
    plane = _Plane(p, first, max(last, first + 1), most)
    plane.time_axis()
    plane.value_axis([(0, "0"), (most / 2, percent(most / 2)), (most, percent(most))])
    for time, sender, share in each:
        x, y = plane.x(time), plane.y(share)
        if sender is Sender.DEVICE:
            p.dot("point device", x, y, 3)
        else:
            p.rect("point server", x - 3, y - 3, 6, 6)
    return p


# -- the plane -----------------------------------------------------------------------------------------------------


class _Plane:
    """Time to the right, a value upwards."""

    def __init__(self, p: Picture, begun: int, ended: int, greatest: float) -> None:
        self.p, self.begun, self.span, self.greatest = p, begun, max(1, ended - begun), greatest or 1
        p.height = HEIGHT + 24

    def x(self, time_ns: int) -> float:
        return LEFT + (self.p.width - LEFT - RIGHT) * min(1.0, max(0.0, (time_ns - self.begun) / self.span))

    def y(self, value: float) -> float:
        return HEIGHT - (HEIGHT - TOP) * min(1.0, value / self.greatest)

    def time_axis(self) -> None:
        p = self.p
        p.path("rail", f"M{LEFT} {HEIGHT}H{p.width - RIGHT}")
        for mark in time_marks(self.span, 8 if p.width == WIDE else 4):
            x = self.x(self.begun + mark)
            p.path("rail", f"M{short(x)} {HEIGHT}v4")
            at = "end" if x > p.width - RIGHT - 20 else "middle"
            p.text(f"small {at}", x, HEIGHT + 17, round_time(mark))

    def value_axis(self, marks: Iterable[tuple[float, str]]) -> None:
        p = self.p
        for value, text in marks:
            y = self.y(value)
            p.path("grid", f"M{LEFT} {short(y)}H{p.width - RIGHT}")
            p.text("small end", LEFT - 6, y + 4, text)


def _both(title: str, sentence: str, draw: Callable[[Picture], Picture]) -> tuple[Picture, Picture]:
    wide, narrow = (draw(Picture(width, title, sentence)) for width in (WIDE, NARROW))
    return wide, narrow
