"""``sparkshark follow``: the bytes of one connection, as TCP delivered them."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final, TextIO

from analyzer.cells import NARROW
from analyzer.cli import EXIT_DONE, UsageError
from analyzer.commands import common
from analyzer.conversation import Conversation
from analyzer.frames import is_length
from analyzer.handshake import STEPS
from analyzer.pipeline import analyze
from analyzer.report.style import Style
from analyzer.report.text import finish
from analyzer.streams import Hole, Sender
from analyzer.wording import number, plural, size

if TYPE_CHECKING:
    from analyzer.redaction import Plan

PER_LINE: Final = 16
NARROW_LINE: Final = 8
"""Bytes in a line, and in one of a screen on which the others do not fit."""
NAMES: Final = {"nonce": "greeting", "identity": "who I am", "session": "reply"}

DESCRIPTION: Final = """\
The bytes of connection N (numbers as in analyze), put in order and without
repeats. A hole in the capture is announced with its size and never filled."""
EXAMPLES: Final = """\
examples
  sparkshark follow capture.pcap 1
  sparkshark follow capture.pcap 1 --direction device --raw -o device.bin
  sparkshark follow capture.pcap 1 --port 80
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    common.add_capture(parser, many=False)
    parser.add_argument("number", metavar="N", type=common.whole_number("N"), help="which connection, from 1")
    out = parser.add_argument_group("output")
    out.add_argument("--direction", choices=[str(s) for s in Sender], help="only what that end sent")
    out.add_argument("--raw", action="store_true", help="the bytes alone (into a pipe or -o)")
    out.add_argument("--hex", action="store_true", help="hex digits, one line for each packet")
    out.add_argument(
        "--redact", action="store_true", help="filler for all that is neither login nor message, as redact writes it"
    )
    out.add_argument("-o", dest="output", metavar="FILE", help="write there instead of standard output")
    out.add_argument("--force", action="store_true", help="overwrite FILE")
    common.add_screen(out, quiet="the bytes without the lines that name them")


def run(arguments: argparse.Namespace) -> int:
    """Write the bytes of one conversation."""
    if arguments.raw and arguments.hex:
        raise UsageError("--raw and --hex exclude each other; leave out both for the readable form.")
    if arguments.raw and arguments.output is None and sys.stdout.isatty():
        raise UsageError("--raw: these bytes would upset a terminal. Try: -o FILE, or a pipe")
    with ExitStack() as stack:
        capture, plans = arguments.capture, None
        if arguments.redact:
            from analyzer.redaction import plans_of

            if capture == "-":
                capture = stack.enter_context(common.spooled())
            plans = plans_of(capture, common.ports(arguments))
        return _follow(arguments, capture, plans)


def _follow(arguments: argparse.Namespace, capture: str, plans: Mapping[int, Plan] | None) -> int:
    wanted = Sender(arguments.direction) if arguments.direction else None
    total = 0
    found = False

    def plan(conversation: Conversation) -> Plan | None:
        if plans is None:
            return None
        from analyzer.redaction import UNKNOWN

        return plans.get(conversation.number, UNKNOWN)

    with _writer(arguments, wanted) as writer:

        def begun(conversation: Conversation) -> None:
            nonlocal found, total
            total = conversation.number
            if conversation.number == arguments.number:
                found = True
                writer.begin(conversation, plan(conversation))
                conversation.tap = writer

        stdin = common.standard_input([capture])
        trace = analyze(capture, ports=common.ports(arguments), stdin=stdin, begun=begun)
        common.refuse_unknown_links(trace, arguments.capture)
        common.warn(common.without_folders(trace.warnings, arguments))
        if not found:
            if not total:
                look = f"sparkshark analyze {shlex.quote(arguments.capture)}"
                raise UsageError(f"{arguments.capture}: no connection on this port. Other port: --port N. Look: {look}")
            which = f"this capture has {number(total)}" + (f" (1–{number(total)})" if total > 1 else "")
            raise UsageError(
                f"connection {number(arguments.number)}: {which}. List them: sparkshark analyze FILE --format json"
            )
    return EXIT_DONE


@contextmanager
def _writer(arguments: argparse.Namespace, wanted: Sender | None) -> Iterator[_Writer]:
    if arguments.raw and arguments.output is None:
        yield _Raw(sys.stdout.buffer, wanted)
    elif arguments.raw:
        with common.binary_output(arguments.output, force=arguments.force) as stream:
            yield _Raw(stream, wanted)
    else:
        with common.output(arguments.output, force=arguments.force) as stream:
            style = common.style_of(arguments, stream)
            yield (_Hex if arguments.hex else _Readable)(stream, wanted, style)


class _Writer:
    """Takes what the streams deliver, of the directions that are wanted."""

    def __init__(self, wanted: Sender | None) -> None:
        self.wanted = wanted
        self.offset = dict.fromkeys(Sender, 0)
        self.start_ns = 0
        self._conversation: Conversation | None = None
        self._plan: Plan | None = None

    def begin(self, conversation: Conversation, plan: Plan | None) -> None:
        self.start_ns = conversation.start_ns
        self._plan = plan
        self._conversation = conversation

    @property
    def midway(self) -> bool:
        """Whether the login was over when the capture began: then offsets do not name its messages."""
        return self._conversation is None or self._conversation.midway

    def receive(self, sender: Sender, data: bytes, packet: int, time_ns: int) -> None:
        if self._plan is not None:
            data = self._plan.sides[sender].redacted(self.offset[sender], bytes(data))
        if self.wanted in (None, sender):
            self.write(sender, self.offset[sender], data, packet, time_ns)
        self.offset[sender] += len(data)

    def skip(self, sender: Sender, hole: Hole) -> None:
        if self.wanted in (None, sender):
            print(
                f"sparkshark: {size(hole.length)} from the {sender} are missing at offset {number(hole.offset)}"
                f" ({hole.reason}; seen at packet {number(hole.packet)}); not filled.",
                file=sys.stderr,
            )
        self.offset[sender] += hole.length

    def write(self, sender: Sender, offset: int, data: bytes, packet: int, time_ns: int) -> None:
        raise NotImplementedError


class _Raw(_Writer):
    def __init__(self, stream: BinaryIO, wanted: Sender | None) -> None:
        super().__init__(wanted)
        self._stream = stream

    def write(self, sender: Sender, offset: int, data: bytes, packet: int, time_ns: int) -> None:
        self._stream.write(data)


class _Text(_Writer):
    def __init__(self, stream: TextIO, wanted: Sender | None, style: Style) -> None:
        super().__init__(wanted)
        self._stream = stream
        self._style = style
        self._frames = dict.fromkeys(Sender, 0)

    def line(self, text: str) -> None:
        self._stream.write(finish([text], self._style))


class _Hex(_Text):
    def write(self, sender: Sender, offset: int, data: bytes, packet: int, time_ns: int) -> None:
        self.line(f"{sender} {data.hex()}")


class _Readable(_Text):
    def write(self, sender: Sender, offset: int, data: bytes, packet: int, time_ns: int) -> None:
        width = self._style.width
        what = self._what(sender, offset, data)
        if not self._style.quiet:
            head = f"packet {number(packet)}  {(time_ns - self.start_ns) / 1e9:.3f} s  {sender}"
            for line in [f"{head}  {what}"] if len(head) + 2 + len(what) <= width else [head, f" {what}"]:
                self.line(line)
        wide = width >= NARROW + 6
        step, indent = (PER_LINE, "  ") if wide else (NARROW_LINE, " ")
        for start in range(0, len(data), step):
            row = data[start : start + step]
            halves = f"{row[:8].hex(' '):<23}" + (f"  {row[8:].hex(' '):<23}" if wide else "")
            letters = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
            self.line(f"{indent}{offset + start:04x}  {halves}  {letters}")

    def _what(self, sender: Sender, offset: int, data: bytes) -> str:
        """Name what begins here, where sizes and offsets tell it."""
        position = 0
        for kind, length in STEPS[sender]:
            if offset == position and len(data) == length and not self.midway:
                return f"{NAMES[kind]}, {plural(length, 'byte')}"
            position += length
        field = data[0] << 8 | data[1] if len(data) > 1 else 0
        if (offset >= position or self.midway) and is_length(field) and len(data) >= 2 + field:
            self._frames[sender] += 1
            more = len(data) - 2 - field
            behind = f", and {plural(more, 'byte')} behind it" if more else ""
            return f"frame {self._frames[sender]}: length {data[:2].hex()}, then {plural(field, 'byte')}{behind}"
        return plural(len(data), "byte")
