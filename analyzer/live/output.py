"""What a watch writes: events as lines, on a terminal above a block that shows how things stand; then the report."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, TextIO

from analyzer.live.event import Event, Kind
from analyzer.live.lines import JsonLines, TextLines
from analyzer.live.screen import Screen, status_block
from analyzer.live.watcher import Watcher
from analyzer.report.style import Style
from analyzer.wording import duration, listing, plain, printable, wrap

if TYPE_CHECKING:
    from analyzer.report.redact import Redactor
    from analyzer.report.story import Mark

JSON: Final = "jsonl"
WELCOME: Final = "Watching {name}, TCP {ports}. {reset}Ctrl-C ends with the verdict. Times are UTC."
RESET_NOW: Final = "Reset the device now. "
SILENCE: Final = "Counted: nothing came for {waited} after the last packet. The packets alone do not show that."


class Output:
    """Writes to ``stream`` in the form ``text`` or ``jsonl``."""

    def __init__(self, stream: TextIO, style: Style, *, form: str) -> None:
        self._stream, self._style, self._form = stream, style, form
        self._notices: list[str] = []  # from other threads
        self._lock = threading.Lock()
        self._screen: Screen | None = None
        self._shorten: Redactor | None = None
        self._watcher: Watcher | None = None
        self._begun_ns: int | None = None
        self._now_ns = 0
        self._text = TextLines(style, states=True)
        self._json = JsonLines(digits=lambda: 9)

    def begin(self, watcher: Watcher, shorten: Redactor | None, name: str) -> None:
        """Say what is watched."""
        trace = watcher.trace
        self._watcher, self._shorten = watcher, shorten
        terminal = self._stream.isatty() and self._form != JSON and not self._style.quiet
        if terminal and self._style.moves:
            self._screen = Screen(self._stream, self._style, shorten=self._shown)
        self._text = TextLines(self._style, states=self._screen is None, shorten=shorten)
        self._json = JsonLines(digits=lambda: trace.time_digits, shorten=shorten)
        ports = sorted(trace.ports)
        if self._form == JSON:
            self._write([JsonLines.begin(name, ports)])
        elif not self._style.quiet:
            told = listing([str(port) for port in ports])
            live = RESET_NOW if any(file.format == "live" for file in trace.captures) else ""
            text = WELCOME.format(name=printable(name), ports=told, reset=live)
            lines = wrap(text, self._style.width)
            print("\n".join(lines), file=sys.stderr, flush=True)  # of the talk, not of the answer

    def tell(self, event: Event) -> None:
        """Write one event."""
        if event.kind is Kind.NOTICE and self._form != JSON:
            self.notice(event.text)
            self._flush_notices()
            return
        if self._shorten is not None and self._watcher is not None and event.kind is not Kind.MESSAGE:
            said = (event.text, str(event.details.get("summary", "")))
            self._shorten.meet_quotes(said, self._watcher.trace.conversations)
        self._write((self._json if self._form == JSON else self._text)(event))

    def notice(self, text: str) -> None:
        """Have something told that is not about a device. Other threads may call this."""
        with self._lock:
            self._notices.append(text)

    def refresh(self, now_ns: int | None) -> None:
        """Show how things stand at this time (ns), and what other threads had to tell."""
        if now_ns is not None:
            self._begun_ns = now_ns if self._begun_ns is None else self._begun_ns
            self._now_ns = now_ns
        self._flush_notices()
        if self._screen is not None:
            self._screen.refresh(self._block)

    def end(self) -> None:
        """Take away what was for the time of watching only."""
        self._flush_notices()
        if self._screen is not None:
            self._screen.wipe()
            self._screen = None

    def report(self, pieces: Iterable[str]) -> None:
        """Write the report."""
        if self._form == JSON:
            self._write([JsonLines.REPORT])
        elif not self._style.quiet:
            self._stream.write("\n")
        for piece in pieces:
            self._stream.write(piece)
        self._stream.flush()

    def silence(self, waited_ns: int) -> None:
        """Write that the report counts a silence behind the last packet, which went on for so long (ns)."""
        if self._form != JSON:  # a program has been told with the events
            lines = wrap(SILENCE.format(waited=duration(waited_ns)), self._style.width)
            self._write(["", *lines] if not self._style.quiet else lines)

    def _shown(self, text: str) -> str:
        return text if self._shorten is None else self._shorten.shorten(text)

    def _block(self) -> list[tuple[str, Mark | None]]:
        watcher, screen = self._watcher, self._screen
        if watcher is None or screen is None or self._begun_ns is None:
            return []
        return status_block(
            watcher.devices.values(),
            packets=watcher.trace.packets,
            spark=watcher.trace.spark_packets,
            now_ns=self._now_ns,
            begun_ns=self._begun_ns,
            rows=screen.size()[1],
        )

    def _write(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        if self._screen is not None:
            self._screen.write(lines, self._block())
            return
        shown = lines if self._style.unicode or self._form == JSON else [plain(line) for line in lines]
        self._stream.write("".join(f"{line}\n" for line in shown))
        self._stream.flush()

    def _flush_notices(self) -> None:
        with self._lock:
            notices, self._notices = self._notices, []
        if not notices:
            return
        if self._form == JSON:
            for text in notices:
                self._write(self._json(Event(Kind.NOTICE, self._now_ns, text)))
            return
        if self._screen is not None:
            self._screen.wipe()
        for text in notices:
            print(f"sparkshark: warning: {printable(text)}", file=sys.stderr, flush=True)
