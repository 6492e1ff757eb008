"""``sparkshark explain``: a finding, a row that Wireshark showed, or how to make a capture."""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from analyzer.cells import NARROW, WIDTH
from analyzer.cli import EXIT_DONE, UsageError
from analyzer.commands import common
from analyzer.findings import FINDINGS, FindingSpec
from analyzer.handshake import STEPS
from analyzer.report.explained import NO_KEY_HELPS, filled, led_of
from analyzer.report.ladder import draw, drawing_of
from analyzer.report.layout import beside, block, labelled, numbered
from analyzer.report.style import Style
from analyzer.report.text import finish
from analyzer.streams import Hole, Sender
from analyzer.wording import number, wrap

if TYPE_CHECKING:
    from analyzer.conversation import Conversation
    from analyzer.misparse.quoted import QuotedRow, Sighting

LABEL: Final = 9
KEY_NAMES: Final = 16
SIGHTINGS: Final = 5
BYTES_SHOWN: Final = 8
MOST_SEGMENTS: Final = 500_000
"""Packets with data that are searched: they are held in memory, and a row is looked for near the start anyway."""
MOST_SEARCHED: Final = 512 << 20
"""Bytes of them all together."""
ROLES: Final = {
    "nonce": "the server's greeting",
    "identity": 'the device\'s "who I am"',
    "session": "the server's reply",
}

DESCRIPTION: Final = """\
A finding by its code, a row that Wireshark showed (with a CAPTURE: which packet
and which bytes made it), "capture": how to make one, or "limits": how much is
looked at. Alone: all findings."""
LIMITS_LEAD: Final = (
    "What a hostile or a very large capture cannot exceed, and what is said when it tries. A report that says nothing"
    " of these reached none of them."
)
IN_BRACKETS: Final = "In brackets: not on every such connection."
WITH_KEYS: Final = "sparkshark analyze CAPTURE --keys FILE_OR_FOLDER"
EXAMPLES: Final = """\
examples
  sparkshark explain SPK206
  sparkshark explain 'Reset, 5.05 Proxying Not Supported, TID:24199' seed.pcap
  sparkshark explain --wireshark 'Malformed Packet'
  sparkshark explain capture
  sparkshark explain limits
"""
CAPTURE_GUIDE: Final = """\
How to make a capture that tells everything
  1. Where: on the router, or on the server's computer. Another computer in the
     Wi-Fi does not see the device's packets.
       on a router with Linux   tcpdump -i any -s 0 -U -w spark.pcap port 5683
       over the network         ssh root@ROUTER tcpdump -i any -s 0 -U -w - \\
                                  port 5683 > spark.pcap
       in Wireshark             capture filter: tcp port 5683
     To see name lookups and announcements too, leave the filter out.
  2. Start the capture first, then press reset on the device.
  3. Wait 60 seconds, so that two or three attempts are in it. Stop.
  4. sparkshark analyze spark.pcap
A PC as access point (Windows: Mobile hotspot; Linux: nmcli device wifi hotspot)
sees all of a device that joins it, if nothing can run on the router.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("what", metavar="CODE | 'ROW TEXT' | capture | limits", nargs="?", help="what to explain")
    parser.add_argument("capture", metavar="CAPTURE", nargs="?", help="where the row was seen")
    parser.add_argument("--wireshark", metavar="TEXT", help="a row that Wireshark showed, whatever it looks like")
    parser.add_argument("--port", type=common.port, action="append", metavar="N", help="server port (default 5683)")
    common.add_screen(parser, quiet="what it is and what to do, no more")


def run(arguments: argparse.Namespace) -> int:
    """Print the explanation."""
    style = common.style_of(arguments, sys.stdout)
    if arguments.wireshark is not None:
        if arguments.what is not None and arguments.capture is not None:
            raise UsageError(f"{arguments.capture}: one argument too many beside --wireshark TEXT.")
        capture = arguments.capture or arguments.what
        sys.stdout.write(finish(list(_row(arguments.wireshark, capture, arguments, style)), style))
        return EXIT_DONE
    what = arguments.what
    if what is None:
        lines = [line for spec in FINDINGS.values() for line in _listed(spec, style.width)]
        more = [] if style.quiet else ["", "One of them: sparkshark explain CODE"]
        sys.stdout.write(finish([*lines, *more], style))
    elif what == "limits" and arguments.capture is None:
        sys.stdout.write(finish(_limits(style), style))
    elif what == "capture" and arguments.capture is None:
        sys.stdout.write(finish(_guide(style.width), style))
    elif what.upper() in FINDINGS:
        sys.stdout.write(page(FINDINGS[what.upper()], style))
    elif re.fullmatch(r"(?i)spk ?-?\d*", what):
        near = _nearest(what.upper())
        hint = f"Did you mean {near}? " if near else ""
        raise UsageError(f"{what}: no such finding. {hint}All: sparkshark explain")
    else:
        sys.stdout.write(finish(list(_row(what, arguments.capture, arguments, style)), style))
    return EXIT_DONE


def _listed(spec: FindingSpec, width: int) -> list[str]:
    return wrap(spec.title, width, first=f"{spec.code}  {spec.severity:<9} ", then=" " * 18)


def _limits(style: Style) -> list[str]:
    """The bounds that change what a user is told: value, reason, and what is said when one was reached."""
    from analyzer.limits import BY_NAME, COUNTED

    lines = wrap(LIMITS_LEAD, style.width)
    for limit in BY_NAME.values():
        head = f"{limit.name}: {limit.value:,}"
        lines += [head] if style.quiet else ["", head]
        if style.quiet:
            continue
        said = limit.says.format(count="N", most=f"{limit.value:,}") if limit in COUNTED else f"{limit.also}."
        for text in (limit.reason, f"Then: {said}", limit.constant):
            lines += wrap(text, style.width, first="  ", then="  ") if text else []
    return lines


def _guide(width: int) -> list[str]:
    """How to make a capture; lines are folded where the screen is too narrow, below where they begin."""
    lines = []
    for line in CAPTURE_GUIDE.splitlines():
        indent = " " * (len(line) - len(line.lstrip()))
        lines += [line] if len(line) <= width else wrap(line.strip(), width, first=indent, then=indent + "  ")
    return lines


def page(spec: FindingSpec, style: Style) -> str:
    """Return the page of one finding as it is put on a screen."""
    lines = summary(spec, style.width) if style.quiet else explanation(spec, style.width)
    return finish(lines, style, bold=_commands_of(spec))


def summary(spec: FindingSpec, width: int = WIDTH) -> list[str]:
    """Return what it is and what to do, no more."""
    return [*_title(spec, width), *_what_it_is(spec, width)]


def explanation(spec: FindingSpec, width: int = WIDTH) -> list[str]:
    """Return the lines of that page: what it is and what to do, how it looks, what would settle it, and the rest."""
    lines = summary(spec, width)
    for group in (
        _on_the_wire(spec, width),
        _how_to_be_sure(spec, width),
        _in_other_words(spec, width),
        _where_from(spec, width),
    ):
        if group:
            lines += ["", *group]
    return lines


def _title(spec: FindingSpec, width: int) -> list[str]:
    title = f"{spec.code}  {spec.title}"
    if len(title) + 2 + len(spec.severity) <= width:
        return [title.ljust(width - len(spec.severity)) + spec.severity]
    return wrap(f"{title} ({spec.severity})", width, then=" " * 8)


def _what_it_is(spec: FindingSpec, width: int) -> list[str]:
    lines = _paragraph("Means", spec.means, width)
    lines += _paragraph("LED", led_of(spec), width)
    lines += _paragraph("Causes", " · ".join(spec.causes), width)
    if not spec.fix:
        return lines + _paragraph("Fix", spec.no_fix, width)
    return lines + numbered("Fix", tuple(filled(step) for step in spec.fix), width, column=LABEL)


def _on_the_wire(spec: FindingSpec, width: int) -> list[str]:
    lines = _paragraph("Looks", spec.looks, width)
    if spec.ladder:
        lines += draw(drawing_of(spec.ladder), width, "Wire")
    if any(step.sometimes for step in spec.ladder):
        lines += _paragraph(" ", IN_BRACKETS, width)
    return lines


def _how_to_be_sure(spec: FindingSpec, width: int) -> list[str]:
    lines = _paragraph("Settle", spec.settle, width)
    for index, (key, proves) in enumerate(spec.keys):
        label = "Keys" if index == 0 else " "
        if width < NARROW:
            lines += _paragraph(label, f"{key}: {proves}", width, deeper=2)
            continue
        wrapped = wrap(proves, beside(width, LABEL) - KEY_NAMES)
        named = [f"{key if n == 0 else '':<{KEY_NAMES}}{line}" for n, line in enumerate(wrapped)]
        lines += labelled(label, named, width, LABEL)
    if not spec.keys:
        lines += _paragraph("Keys", NO_KEY_HELPS, width)
    elif spec.ladder:
        lines += labelled(" ", [f"  {WITH_KEYS}"], width, LABEL)
    for index, (code, how) in enumerate(spec.not_it):
        lines += _paragraph("" if index else "Not it", f"{code} {FINDINGS[code].short}: {how}", width, deeper=7)
    return lines


def _in_other_words(spec: FindingSpec, width: int) -> list[str]:
    """The commands for each board and each generation of the command line."""
    lines: list[str] = []
    for recipe in spec.recipes:
        lines += _paragraph("" if lines else "Commands", recipe.goal, width)
        lines += labelled("", [f"  {filled(command)}" for command in recipe.commands], width, LABEL)
    return lines


def _where_from(spec: FindingSpec, width: int) -> list[str]:
    lines = _paragraph("Engineer", spec.engineer, width)
    lines += _paragraph("Source", spec.source, width)
    return lines + _paragraph("Seen in", " · ".join(spec.seen_in), width)


def _commands_of(spec: FindingSpec) -> frozenset[str]:
    """What stands in the page to be pasted: bold on a terminal."""
    steps = [step for step in spec.fix if step.startswith("  ")]
    return frozenset(
        filled(line).strip() for line in (WITH_KEYS, *steps, *(c for r in spec.recipes for c in r.commands))
    )


def _nearest(code: str) -> str | None:
    """Return the code that was probably meant: two digits swapped first, then anything close."""
    swapped = [code[:i] + code[i + 1] + code[i] + code[i + 2 :] for i in range(len(code) - 1)]
    near = [c for c in swapped if c in FINDINGS] or [c for c in FINDINGS if c.startswith(code)]
    near = near or difflib.get_close_matches(code, FINDINGS, n=1)
    return near[0] if near else None


def _paragraph(label: str, text: str, width: int, deeper: int = 0) -> list[str]:
    return block(label, text, width, column=LABEL, deeper=deeper) if text else []


# -- a row that Wireshark showed ------------------------------------------------------------------------------


def _row(text: str, capture: str | None, arguments: argparse.Namespace, style: Style) -> Iterator[str]:
    from analyzer.misparse.quoted import read_quoted_row

    quoted = read_quoted_row(text)
    if quoted is None:
        raise UsageError(
            f'"{text[:60]}": not a row that Wireshark writes for CoAP, and no finding. Copy it from the Info column,'
            " or: sparkshark explain"
        )
    width = style.width
    yield from wrap("That is no message. Wireshark read random bytes as CoAP. Ignore it.", width)
    rows = quoted.bytes_explained()
    if rows and not style.quiet:
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        for where, why, what in rows:
            head = f"  {where:<{widths[0]}}   {why:<{widths[1]}}   "
            if len(head) + len(what) <= width:
                yield head + what
            else:
                yield from wrap(f"{' '.join(head.split())}: {what}", width, first="  ", then="    ")
    if capture is None:
        if not style.quiet:
            yield from wrap("On port 5683 every greeting, locked block and message length is read that way.", width)
            yield "Which packet: add a CAPTURE."
        return
    for line in _sightings(quoted, capture, arguments):
        yield from wrap(line.strip(), width, first="  " if line.startswith("  ") else "", then="    ")


def _sightings(quoted: QuotedRow, capture: str, arguments: argparse.Namespace) -> Iterator[str]:
    """Point at the packets whose bytes make such a row."""
    from analyzer.misparse.quoted import find_row
    from analyzer.pipeline import analyze

    segments: list[tuple[int, str, bytes, str]] = []
    collector = _Collector(segments)
    trace = analyze(
        capture,
        ports=common.ports(arguments),
        stdin=common.standard_input([capture]),
        begun=collector.begin,
    )
    common.refuse_unknown_links(trace, capture)
    common.warn(trace.warnings)
    found: list[Sighting] = []
    count = 0
    for sighting in find_row(quoted, segments):
        count += 1
        if len(found) < SIGHTINGS:
            found.append(sighting)
    if not found:
        which = "the first" if collector.full else "each of"
        yield f"No packet of {capture} makes such a row (tried {which} {number(len(segments))} with data)."
        return
    for sighting in found:
        first = sighting.first[:BYTES_SHOWN].hex(" ")
        yield f"  {capture}, packet {number(sighting.packet)}: {first} ..., {sighting.role}"
    if count > len(found):
        yield f"  and {number(count - len(found))} more packets"
    if collector.full:
        yield f"Searched: the first {number(len(segments))} packets with data."
    lead = next((f for f in trace.findings if f.severity in ("critical", "major")), None)
    if lead is not None:
        yield f"The real trouble is {lead.code}: sparkshark analyze {shlex.quote(capture)}"


class _Collector:
    """Keeps the delivered pieces of every conversation with the words for what they are."""

    def __init__(self, segments: list[tuple[int, str, bytes, str]]) -> None:
        self._segments = segments
        self._bytes = 0
        self.full = False

    def begin(self, conversation: Conversation) -> None:
        """Listen to one more conversation."""
        conversation.tap = _Tap(conversation.number, self)

    def take(self, packet: int, direction: str, data: bytes, role: str) -> None:
        """Keep one piece, unless there are too many."""
        self._bytes += len(data)
        self.full = self.full or len(self._segments) >= MOST_SEGMENTS or self._bytes > MOST_SEARCHED
        if not self.full:
            self._segments.append((packet, direction, data, role))


class _Tap:
    def __init__(self, conversation: int, collector: _Collector) -> None:
        self._conversation = conversation
        self._collector = collector
        self._offset = dict.fromkeys(Sender, 0)

    def receive(self, sender: Sender, data: bytes, packet: int, time_ns: int) -> None:
        offset = self._offset[sender]
        end = 0
        for kind, length in STEPS[sender]:
            end += length
            if offset < end:
                role = ROLES[kind]
                break
        else:
            role = f"a locked message from the {sender}"
        self._collector.take(packet, f"{self._conversation}-{sender}", data, role)
        self._offset[sender] = offset + len(data)

    def skip(self, sender: Sender, hole: Hole) -> None:
        self._offset[sender] += hole.length


__all__ = ["Style", "add", "explanation", "page", "run", "summary"]
