"""``sparkshark explain``: a finding, a row that Wireshark showed, or how to make a capture."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from analyzer.cli import EXIT_DONE, UsageError
from analyzer.commands import common
from analyzer.findings import FINDINGS, FindingSpec
from analyzer.handshake import STEPS
from analyzer.report.ladder import draw, drawing_of
from analyzer.report.style import Style
from analyzer.report.text import LABEL as IN_REPORTS
from analyzer.report.text import finish, numbered
from analyzer.streams import Hole, Sender
from analyzer.wording import number, wrap

if TYPE_CHECKING:
    from analyzer.conversation import Conversation
    from analyzer.misparse.quoted import QuotedRow, Sighting

WIDTH: Final = 80
LABEL: Final = 9
KEY_NAMES: Final = 16
SIGHTINGS: Final = 5
BYTES_SHOWN: Final = 8
MOST_SEGMENTS: Final = 500_000
"""Packets with data that are searched: they are held in memory, and a row is looked for near the start anyway."""
ROLES: Final = {
    "nonce": "the server's greeting",
    "identity": 'the device\'s "who I am"',
    "session": "the server's reply",
}

DESCRIPTION: Final = """\
A finding by its code, a row that Wireshark showed (with a CAPTURE: which packet
and which bytes made it), or "capture": how to make one. Alone: all findings."""
ANY_SERVER: Final = {"server": "SERVER", "port": "5683", "mac": ""}
"""What stands in the steps of a finding where no capture is at hand."""
LED_TELLS_NOTHING: Final = "It tells nothing of this."
IN_BRACKETS: Final = "In brackets: not on every such connection."
WITH_KEYS: Final = "sparkshark analyze CAPTURE --keys FILE_OR_FOLDER"
NO_KEY_HELPS: Final = "None is needed, and none would tell more."
EXAMPLES: Final = """\
examples
  sparkshark explain SPK206
  sparkshark explain 'Reset, 5.05 Proxying Not Supported, TID:24199' seed.pcap
  sparkshark explain --wireshark 'Malformed Packet'
  sparkshark explain capture
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
    parser.add_argument("what", metavar="CODE | 'ROW TEXT' | capture", nargs="?", help="what to explain")
    parser.add_argument("capture", metavar="CAPTURE", nargs="?", help="where the row was seen")
    parser.add_argument("--wireshark", metavar="TEXT", help="a row that Wireshark showed, whatever it looks like")
    parser.add_argument("--port", type=common.port, action="append", metavar="N", help="server port (default 5683)")
    parser.add_argument("--no-color", action="store_true", help="no colour (also: NO_COLOR=1)")


def run(arguments: argparse.Namespace) -> int:
    """Print the explanation."""
    style = common.style_of(arguments, sys.stdout)
    if arguments.wireshark is not None:
        if arguments.what is not None and arguments.capture is not None:
            raise UsageError(f"{arguments.capture}: one argument too many beside --wireshark TEXT.")
        capture = arguments.capture or arguments.what
        sys.stdout.write(finish(list(_row(arguments.wireshark, capture, arguments)), style))
        return EXIT_DONE
    what = arguments.what
    if what is None:
        lines = [f"{spec.code}  {spec.severity:<9} {spec.title}" for spec in FINDINGS.values()]
        sys.stdout.write(finish([*lines, "", "One of them: sparkshark explain CODE"], style))
    elif what == "capture" and arguments.capture is None:
        sys.stdout.write(finish(CAPTURE_GUIDE.splitlines(), style))
    elif what.upper() in FINDINGS:
        sys.stdout.write(page(FINDINGS[what.upper()], style))
    elif re.fullmatch(r"(?i)spk ?-?\d*", what):
        near = _nearest(what.upper())
        hint = f"Did you mean {near}? " if near else ""
        raise UsageError(f"{what}: no such finding. {hint}All: sparkshark explain")
    else:
        sys.stdout.write(finish(list(_row(what, arguments.capture, arguments)), style))
    return EXIT_DONE


def page(spec: FindingSpec, style: Style) -> str:
    """Return the page of one finding as it is put on a screen."""
    return finish(explanation(spec), style, bold=_commands_of(spec))


def explanation(spec: FindingSpec) -> list[str]:
    """Return the lines of that page: what it is and what to do, how it looks, what would settle it, and the rest."""
    lines = [f"{spec.code}  {spec.title}".ljust(WIDTH - len(spec.severity)) + spec.severity]
    for group in (
        _what_it_is(spec),
        _on_the_wire(spec),
        _how_to_be_sure(spec),
        _in_other_words(spec),
        _where_from(spec),
    ):
        if group:
            lines += ["", *group] if len(lines) > 1 else group
    return lines


def _what_it_is(spec: FindingSpec) -> list[str]:
    lines = _paragraph("Means", spec.means)
    lines += _paragraph("LED", spec.led or LED_TELLS_NOTHING)
    lines += _paragraph("Causes", " · ".join(spec.causes))
    if not spec.fix:
        return lines + _paragraph("Fix", spec.no_fix)
    steps = numbered("Fix", tuple(_filled(step) for step in spec.fix), WIDTH + IN_REPORTS - LABEL)
    shift = slice(LABEL, IN_REPORTS)
    return lines + [line[: shift.start] + line[shift.stop :] for line in steps]


def _filled(text: str) -> str:
    """Put what stands for a name where no capture gives it."""
    return re.sub(r"\{(\w+)\}", lambda found: ANY_SERVER.get(found[1], found[1].upper()), text)


def _on_the_wire(spec: FindingSpec) -> list[str]:
    lines = _paragraph("Looks", spec.looks)
    if spec.ladder:
        lines += draw(drawing_of(spec.ladder), WIDTH, "Wire")
    if any(step.sometimes for step in spec.ladder):
        lines += _paragraph(" ", IN_BRACKETS)
    return lines


def _how_to_be_sure(spec: FindingSpec) -> list[str]:
    lines = _paragraph("Settle", spec.settle)
    for index, (key, proves) in enumerate(spec.keys):
        lead = f"{'Keys' if index == 0 else '':<{LABEL}}{key:<{KEY_NAMES}}"
        wrapped = wrap(proves, WIDTH - len(lead))
        lines += [f"{lead if n == 0 else '':<{len(lead)}}{line}" for n, line in enumerate(wrapped)]
    if not spec.keys:
        lines += _paragraph("Keys", NO_KEY_HELPS)
    elif spec.ladder:
        lines.append(f"{'':<{LABEL}}  {WITH_KEYS}")
    for index, (code, how) in enumerate(spec.not_it):
        lines += _paragraph("" if index else "Not it", f"{code} {FINDINGS[code].short}: {how}", deeper=7)
    return lines


def _in_other_words(spec: FindingSpec) -> list[str]:
    """The commands for each board and each generation of the command line."""
    lines: list[str] = []
    for recipe in spec.recipes:
        lines += _paragraph("" if lines else "Commands", recipe.goal)
        lines += [f"{'':<{LABEL}}  {_filled(command)}" for command in recipe.commands]
    return lines


def _where_from(spec: FindingSpec) -> list[str]:
    lines = _paragraph("Engineer", spec.engineer)
    lines += _paragraph("Source", spec.source)
    return lines + _paragraph("Seen in", " · ".join(spec.seen_in))


def _commands_of(spec: FindingSpec) -> frozenset[str]:
    """What stands in the page to be pasted: bold on a terminal."""
    steps = [step for step in spec.fix if step.startswith("  ")]
    return frozenset(
        _filled(line).strip() for line in (WITH_KEYS, *steps, *(c for r in spec.recipes for c in r.commands))
    )


def _nearest(code: str) -> str | None:
    """Return the code that was probably meant: two digits swapped first, then anything close."""
    swapped = [code[:i] + code[i + 1] + code[i] + code[i + 2 :] for i in range(len(code) - 1)]
    near = [c for c in swapped if c in FINDINGS] or [c for c in FINDINGS if c.startswith(code)]
    near = near or difflib.get_close_matches(code, FINDINGS, n=1)
    return near[0] if near else None


def _paragraph(label: str, text: str, deeper: int = 0) -> list[str]:
    if not text:
        return []
    wrapped = wrap(text, WIDTH - LABEL, then=" " * deeper)
    return [f"{label if index == 0 else '':<{LABEL}}{line}" for index, line in enumerate(wrapped)]


# -- a row that Wireshark showed ------------------------------------------------------------------------------


def _row(text: str, capture: str | None, arguments: argparse.Namespace) -> Iterator[str]:
    from analyzer.misparse.quoted import read_quoted_row

    quoted = read_quoted_row(text)
    if quoted is None:
        raise UsageError(
            f'"{text[:60]}": not a row that Wireshark writes for CoAP, and no finding. Copy it from the Info column,'
            " or: sparkshark explain"
        )
    yield "That is no message. Wireshark read random bytes as CoAP. Ignore it."
    rows = quoted.bytes_explained()
    if rows:
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        for where, why, what in rows:
            head = f"  {where:<{widths[0]}}   {why:<{widths[1]}}   "
            if len(head) + len(what) <= WIDTH:
                yield head + what
            else:
                yield from wrap(f"{head.rstrip()}: {what}", WIDTH, then="    ")
    if capture is None:
        yield "On port 5683 every greeting, locked block and message length is read that way."
        yield "Which packet: add a CAPTURE."
        return
    yield from _sightings(quoted, capture, arguments)


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
        yield f"No packet of {capture} makes such a row (tried each of {number(len(segments))} with data)."
        return
    for sighting in found:
        first = sighting.first[:BYTES_SHOWN].hex(" ")
        yield f"  {capture}, packet {number(sighting.packet)}: {first} ..., {sighting.role}"
    if count > len(found):
        yield f"  and {number(count - len(found))} more packets"
    lead = next((f for f in trace.findings if f.severity in ("critical", "major")), None)
    if lead is not None:
        yield f"The real trouble is {lead.code}: sparkshark analyze {capture}"


class _Collector:
    """Keeps the delivered pieces of every conversation with the words for what they are."""

    def __init__(self, segments: list[tuple[int, str, bytes, str]]) -> None:
        self._segments = segments

    def begin(self, conversation: Conversation) -> None:
        """Listen to one more conversation."""
        conversation.tap = _Tap(conversation.number, self._segments)


class _Tap:
    def __init__(self, conversation: int, segments: list[tuple[int, str, bytes, str]]) -> None:
        self._conversation = conversation
        self._segments = segments
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
        if len(self._segments) == MOST_SEGMENTS:
            return
        self._segments.append((packet, f"{self._conversation}-{sender}", data, role))
        self._offset[sender] = offset + len(data)

    def skip(self, sender: Sender, hole: Hole) -> None:
        self._offset[sender] += hole.length


__all__ = ["Style", "add", "explanation", "page", "run"]
