"""Events as lines: for people, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from analyzer.cells import cells, left
from analyzer.findings import BAD
from analyzer.live.event import Event, Kind
from analyzer.report.exact import Instant, line
from analyzer.report.jsonreport import SCHEMA
from analyzer.report.story import Mark
from analyzer.report.style import Style
from analyzer.report.text import BOLD, COLOURS, RESET
from analyzer.wording import plain, printable, span, wrap

if TYPE_CHECKING:
    from analyzer.messages import SparkMessage
    from analyzer.report.redact import Redactor

TIME: Final = 12
"""Columns of the time and the two blanks behind it."""
DEVICE: Final = 13
"""Columns of a device; a longer address takes more."""
NARROW_INDENT: Final = 2
"""Of further lines where there is no room for columns."""
GAP: Final = 2
"""Blanks at least before what stands at the right: packets, or the code of a finding."""


def text_of_day(time_ns: int) -> str:
    """Return a time as ``03:08:23.1`` (UTC)."""
    tenths = time_ns // 100_000_000
    try:
        told = datetime.fromtimestamp(tenths // 10, UTC).strftime("%H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return "--:--:--.-"
    return f"{told}.{tenths % 10}"


class TextLines:
    """Writes events for people. A device is named where it is another one than in the line above."""

    def __init__(self, style: Style, *, states: bool, shorten: Redactor | None = None) -> None:
        """``states`` says that changes of a device's state are lines, too."""
        self._style = style
        self._states = states
        self._shorten = shorten
        self._last: tuple[str, int | None] = ("", None)

    def __call__(self, event: Event) -> list[str]:
        """Return the lines of one event, none if it is not for this style."""
        if event.kind is Kind.NOTICE:
            return []  # of the talk, not of the answer: see `watch`
        if event.kind is Kind.STATE and not self._states:
            return []
        if self._style.quiet and not (event.kind is Kind.STATE or (event.severity in BAD and event.code)):
            return []
        known = (event.device, event.conversation) == self._last
        self._last = (event.device, event.conversation)
        device = self._shown("" if known else event.device)
        text, place = self._shown(self._text(event)), _place(event)
        width = self._style.width
        if self._style.narrow:
            head, then = f"{text_of_day(event.time_ns)} {device}{' ' if device else ''}", " " * NARROW_INDENT
        else:
            head, then = f"{text_of_day(event.time_ns):<{TIME}}{left(device, DEVICE)}  ", " " * (TIME + DEVICE + 2)
        lines = wrap(text, width, first=head, then=then)
        if place:
            room = width - GAP - len(place)
            columns = width
            while cells(lines[-1]) > room and columns > room:
                columns -= 1
                lines = wrap(text, columns, first=head, then=then)
            lines[-1] += place.rjust(width - cells(lines[-1]))
        lines = [printable(part.rstrip()) for part in lines]
        if not self._style.unicode:
            lines = [plain(part) for part in lines]
        return [self._coloured(part, event) for part in lines]

    def _text(self, event: Event) -> str:
        if event.kind is Kind.STATE:
            return f"{event.mark} {event.state}"
        if event.kind is Kind.MESSAGE:
            return self._message(event)
        if event.code is not None:
            return f"{Mark.UNKNOWN if event.kind is Kind.WITHDRAWN else event.mark} {event.text}"
        return event.text

    def _message(self, event: Event) -> str:
        from analyzer.messages import label, summary  # noqa: PLC0415 - only with keys

        message: SparkMessage = event.details["message"]  # type: ignore[assignment]  # as the watcher makes it
        arrow = "→" if message.direction == "device" else "←"
        said = "" if self._shorten is not None else summary(message)
        return f"{arrow} {label(message)}  {said}".rstrip()

    def _shown(self, text: str) -> str:
        return text if self._shorten is None else self._shorten.shorten(text)

    def _coloured(self, part: str, event: Event) -> str:
        if not self._style.colour or event.mark is None or event.kind is Kind.WITHDRAWN:
            return part
        mark = str(event.mark)
        if event.kind is Kind.STATE:
            return part.replace(f"{mark} {event.state}", f"{COLOURS[event.mark]}{BOLD}{mark} {event.state}{RESET}", 1)
        return part.replace(f"{mark} ", f"{COLOURS[event.mark]}{mark}{RESET} ", 1)


def _place(event: Event) -> str:
    if event.code is not None:
        return event.code
    if event.packets is None or event.kind is Kind.STATE:
        return ""
    first, last = event.packets
    return f"packet{'s' if last > first else ''} {span(first, last)}"


class JsonLines:
    """Writes each event as one line of JSON. ``digits`` is how many digits behind the point the times have."""

    def __init__(self, *, digits: Callable[[], int], shorten: Redactor | None = None) -> None:
        self._digits = digits
        self._shorten = shorten

    REPORT: Final = line({"kind": "report"})
    """What stands before the report in the same form."""

    @staticmethod
    def begin(name: str, ports: list[int]) -> str:
        """Return the first line: what is watched, and the version of what the lines say."""
        return line({"kind": "watching", "schema": SCHEMA, "what": name, "ports": ports})

    def __call__(self, event: Event) -> list[str]:
        """Return the line of one event."""
        data: dict[str, object] = {"kind": str(event.kind), "time": Instant(event.time_ns, self._digits())}
        if event.kind is Kind.NOTICE:
            return [line({**data, "text": event.text})]
        data |= {"device": event.device, "conversation": event.conversation, "attempt": event.attempt}
        if event.kind is Kind.MESSAGE:
            from analyzer.report.jsonreport import message  # noqa: PLC0415 - only with keys

            told: SparkMessage = event.details["message"]  # type: ignore[assignment]  # as the watcher makes it
            data["message"] = message(told, self._digits())
        elif event.kind is Kind.STEP:
            data |= {"steps": list(event.steps), "packets": list(event.packets or ()), "text": event.text}
        elif event.kind is Kind.STATE:
            data |= {"state": event.state, "code": event.code, "sentence": event.text}
        else:
            data |= {
                "code": event.code,
                "severity": event.severity and str(event.severity),
                "confidence": event.confidence and str(event.confidence),
                "packets": list(event.packets or ()),
                "summary": event.details.get("summary"),
            }
        return [line(data if self._shorten is None else self._shorten.value(data))]
