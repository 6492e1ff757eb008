"""The statistics in the reports: as JSON, as a line or three for people, and as a table of all connections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from analyzer.conversation import Conversation
from analyzer.report.exact import Instant
from analyzer.report.layout import columns
from analyzer.report.style import Style
from analyzer.spread import Spread
from analyzer.statistics import STEPS, Rate, Statistics, clusters, measure
from analyzer.streams import Sender
from analyzer.trace import Trace
from analyzer.wording import duration, listing, number, plural, wrap

Json = dict[str, object]

UNKNOWN: Final = "–"
"""What could not be measured, in a table."""
MANY_ROWS: Final = 30
ROWS_EACH: Final = 10
"""Of more connections than that, so many of the first and of the last are listed."""
NAME: Final = 13
"""Columns for a device; of a longer address the end is shown."""
NEAR: Final = 0.01
"""The capture was made beside an end to which it has not even this part of the way."""
HEADING: Final = (
    "Figures of each attempt. Round trips begin and end where the capture was made: shortest/median. Repeats are a"
    " share of the packets with data. Messages per minute are those of both sides."
)
HEADERS: Final = ("lasted", "to server", "to device", "repeats", "pings", "per min")
LOGIN: Final = "Login, step by step, as seen where the capture was made:"
LEFT_OUT: Final = "… {attempts}: --format jsonl lists all"
STEP_HEADERS: Final = ("greeting", "who I am", "reply", "hello", "hello back")


# -- JSON ----------------------------------------------------------------------------------------------------------


def conversation_json(c: Conversation, digits: int = 6) -> Json:
    """Return what was measured of one conversation; ``digits`` after the point of a time: 6 or 9."""
    told = measure([c])
    steps = {name: _seconds(told.steps[name].least, digits) if name in told.steps else None for name in STEPS}
    return _json(told, steps, digits)


def device_json(conversations: Iterable[Conversation], digits: int = 6) -> Json:
    """Return what was measured of all conversations of a device, and how long its sessions lasted."""
    told = measure(conversations)
    steps = {name: _spread(told.steps.get(name), digits) for name in STEPS}
    sessions = {
        "came_up": told.came_up,
        "measured": len(told.lengths),
        "length_s": _spread(Spread(told.lengths), digits),
        "clusters": [
            {
                "count": cluster.count,
                "min": _seconds(cluster.shortest, digits),
                "median": _seconds(cluster.median, digits),
                "max": _seconds(cluster.longest, digits),
            }
            for cluster in clusters(told.lengths)
        ],
    }
    return {**_json(told, steps, digits), "sessions": sessions}


def _json(told: Statistics, steps: Mapping[str, object], digits: int) -> Json:
    pings, busiest = told.pings, told.busiest_event
    return {
        "rtt_s": {
            **{str(sender): _spread(told.round_trips.get(sender), digits) for sender in Sender},
            "path": _seconds(told.path_ns, digits),
        },
        "steps_s": steps,
        "retransmitted": {str(sender): _repeats(told, sender) for sender in Sender},
        "pings": pings
        and {
            "sent": pings.sent,
            "answered": pings.answered,
            "answer_s": _spread(pings.times, digits),
            "known_by": "content" if pings.exact else "size",
        },
        "rates": {
            "frames_per_minute": {str(sender): _rate(told.frames.get(sender)) for sender in Sender},
            "events_per_minute": None
            if told.events is None
            else {str(sender): _rate(told.events.get(sender)) for sender in Sender},
            "busiest_event": busiest and {"direction": str(busiest[0]), "name": busiest[1], "count": busiest[2]},
        },
    }


def _seconds(time_ns: int | None, digits: int) -> Instant | None:
    return None if time_ns is None else Instant(time_ns, digits)


def _spread(spread: Spread | None, digits: int) -> Json | None:
    if not spread:
        return None
    return {
        "count": len(spread),
        "min": _seconds(spread.least, digits),
        "median": _seconds(spread.median, digits),
        "p95": _seconds(spread.percentile(0.95), digits),
        "max": _seconds(spread.greatest, digits),
    }


def _repeats(told: Statistics, sender: Sender) -> Json | None:
    repeats = told.repeats.get(sender)
    if repeats is None:
        return None
    return {
        "segments": repeats.segments,
        "of_segments": repeats.of_segments,
        "bytes": repeats.size,
        "of_bytes": repeats.of_size,
        "share": None if repeats.share is None else round(repeats.share, 4),
    }


def _rate(rate: Rate | None) -> float | None:
    return None if rate is None else round(rate.per_minute, 2)


# -- a line or three -------------------------------------------------------------------------------------------------


def figures(conversations: Sequence[Conversation], *, pings: bool = True) -> str:
    """Return in a line or three what was measured of a device; "" when that is nothing.

    ``pings`` False: what they took is told elsewhere.
    """
    told = measure(conversations)
    others = [fact for fact in (_repeated(told), _pings(told) if pings else "", _sessions(told)) if fact]
    drawn = any(c.syns for c in conversations) and not others
    facts = [fact for fact in (_round_trip(told, drawn=drawn), *others) if fact]
    return " ".join(f"{fact[0].upper()}{fact[1:]}." for fact in facts)


def _round_trip(told: Statistics, *, drawn: bool) -> str:
    """The shortest one: it is the network's, whatever the two ends took for their answers.

    Where nothing else is told and the drawing shows how long it took to connect, that is it already, unless the
    capture was made between the ends and divides it.
    """
    times = [
        f"{duration(spread.least)} to the {sender}"
        for sender in (Sender.SERVER, Sender.DEVICE)
        if (spread := told.round_trips.get(sender)) and spread.least is not None
        if spread.least >= NEAR * (told.path_ns or 0)
    ]
    return f"shortest round trip {', '.join(times)}" if len(times) > drawn else ""


def _repeated(told: Statistics) -> str:
    each = {sender: percent(repeats.share) for sender, repeats in told.repeats.items() if repeats.segments}
    if len(each) == len(Sender) and len(set(each.values())) == 1:
        return f"{each[Sender.DEVICE]} of the packets repeated"
    shares = listing([f"{share} of the {sender}'s packets" for sender, share in each.items()])
    return f"{shares} repeated" if shares else ""


def _pings(told: Statistics) -> str:
    pings = told.pings
    if pings is None or not pings.sent:
        return ""
    of = "" if pings.answered == pings.sent else f" of {number(pings.sent)}"
    within = ""
    if pings.times.least is not None and pings.times.greatest is not None:
        shortest, longest = duration(pings.times.least), duration(pings.times.greatest)
        within = f" in {shortest}" + ("" if shortest == longest else f" to {longest}")
    return f"{number(pings.answered)}{of} {plural(pings.sent, 'ping')[len(number(pings.sent)) + 1 :]} answered{within}"


def _sessions(told: Statistics) -> str:
    """How long they last, when there are several; the length of one is in its drawing."""
    lengths = told.lengths
    if len(lengths) < 2:
        return ""
    groups = clusters(lengths)
    if groups and 2 * groups[0].count > len(lengths):
        group, many = groups[0], number(len(lengths))
        count = f"all {many}" if group.count == len(lengths) else f"{number(group.count)} of {many}"
        off = max(group.longest - group.median, group.median - group.shortest)
        more = f", give or take {duration(off)}" if 100 * off > group.median else ""
        return f"{count} sessions last {duration(group.median)}{more}"
    return f"{number(len(lengths))} sessions last {duration(lengths[0])} to {duration(lengths[-1])}"


def percent(share: float | None) -> str:
    """Return a share (0 to 1) as ``3.1%``."""
    if share is None:
        return UNKNOWN
    return "0" if not share else "<0.1%" if share < 0.001 else f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


# -- the table -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figures:
    """The table of all connections, and that of the steps of their logins; () without any login."""

    headers: tuple[str, ...]
    rows: list[list[str]]
    steps: list[list[str]]
    several: bool  # devices: then there is a column for them
    left_out: int


def figures_table(trace: Trace) -> Figures | None:
    """Return the figures of each attempt; None without connections."""
    every = trace.conversations
    if not every:
        return None
    listed = every if len(every) <= MANY_ROWS else every[:ROWS_EACH] + every[-ROWS_EACH:]
    left_out = len(every) - len(listed)
    measured = [(c, measure([c])) for c in listed]
    several = len({c.device.address for c in every}) > 1
    rows = [_row(c, told, several=several) for c, told in measured]
    steps = [[number(c.number), *_steps(told)] for c, told in measured]
    if left_out:
        gap = "…"
        rows.insert(ROWS_EACH, [gap] + [""] * (len(rows[0]) - 1))
        steps.insert(ROWS_EACH, [gap] + [""] * len(STEPS))
    if len(every) > 1:
        whole = measure(every)
        rows.append(["all", *([""] * several), "", *_measures(whole)])
        steps.append(["all", *_steps(whole)])
    if not any(told.steps for _, told in measured):
        steps = []
    return Figures(("", *(["device"] * several), *HEADERS), rows, steps, several, left_out)


def statistics_table(trace: Trace, style: Style | None = None) -> list[str]:
    """Return the lines of these tables; [] without connections."""
    style = style or Style()
    told = figures_table(trace)
    if told is None:
        return []
    align = ["right", *(["left"] * told.several), *["right"] * 6]
    # The headers are a row like any other: as headers they would widen the columns beyond the line.
    lines = [*wrap(HEADING, style.width), "", *columns((), [told.headers, *told.rows], align, style.width)]
    if told.steps:
        steps = [("", *STEP_HEADERS), *told.steps]
        login = columns((), steps, ["right"] * (1 + len(STEPS)), style.width)
        lines += ["", *wrap(LOGIN, style.width), "", *login]
    if told.left_out:
        lines += ["", LEFT_OUT.format(attempts=plural(told.left_out, "more attempt"))]
    return lines


def _row(c: Conversation, told: Statistics, *, several: bool) -> list[str]:
    name = c.device.ip if len(c.device.ip) <= NAME else "…" + c.device.ip[1 - NAME :]
    return [number(c.number), *([name] * several), duration(c.end_ns - c.start_ns), *_measures(told)]


def _measures(told: Statistics) -> list[str]:
    segments = sum(repeats.segments for repeats in told.repeats.values())
    of_segments = sum(repeats.of_segments for repeats in told.repeats.values())
    pings = told.pings
    return [
        _both(told.round_trips.get(Sender.SERVER)),
        _both(told.round_trips.get(Sender.DEVICE)),
        percent(segments / of_segments if of_segments else None),
        UNKNOWN if pings is None else f"{number(pings.answered)}/{number(pings.sent)}",
        f"{sum(rate.per_minute for rate in told.frames.values()):,.0f}" if len(told.frames) == len(Sender) else UNKNOWN,
    ]


def _both(spread: Spread | None) -> str:
    """Shortest and median."""
    if spread is None or spread.least is None or spread.median is None:
        return UNKNOWN
    least, median = duration(spread.least), duration(spread.median)
    amount, _, unit = least.rpartition(" ")
    return least if least == median else f"{amount}/{median}" if median.endswith(f" {unit}") else f"{least}/{median}"


def _steps(told: Statistics) -> list[str]:
    """Each step's time; of several connections the median."""
    times = [told.steps[name].median if name in told.steps else None for name in STEPS]
    return [UNKNOWN if time_ns is None else duration(time_ns) for time_ns in times]
