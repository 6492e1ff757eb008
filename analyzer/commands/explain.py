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
from analyzer.report.style import Style
from analyzer.report.text import finish, numbered
from analyzer.streams import Hole, Sender
from analyzer.wording import number, wrap

if TYPE_CHECKING:
    from analyzer.conversation import Conversation
    from analyzer.misparse.quoted import QuotedRow, Sighting

WIDTH: Final = 80
LABEL: Final = 9
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
        sys.stdout.write(finish(explanation(FINDINGS[what.upper()]), style))
    elif re.fullmatch(r"(?i)spk ?-?\d*", what):
        near = _nearest(what.upper())
        hint = f"Did you mean {near}? " if near else ""
        raise UsageError(f"{what}: no such finding. {hint}All: sparkshark explain")
    else:
        sys.stdout.write(finish(list(_row(what, arguments.capture, arguments)), style))
    return EXIT_DONE


def explanation(spec: FindingSpec) -> list[str]:
    """Return the page of one finding."""
    lines = [f"{spec.code}  {spec.title}".ljust(WIDTH - len(spec.severity)) + spec.severity]
    for label, text in (
        ("Means", spec.means),
        ("Looks", spec.looks),
        ("LED", spec.led),
        ("Causes", " · ".join(spec.causes)),
        ("Settle", spec.settle),
    ):
        lines += _paragraph(label, text)
    if spec.fix:
        steps = tuple(re.sub(r"\{(\w+)\}", lambda m: ANY_SERVER.get(m[1], m[1].upper()), step) for step in spec.fix)
        shifted = numbered("Fix", steps)
        lines += [f"{line[:LABEL]}{line[13:]}" if line[:13].strip() in ("", "Fix") else line for line in shifted]
    if spec.not_it:
        others = [f"{FINDINGS[code].short} ({code}): {how}" for code, how in spec.not_it]
        lines += _paragraph("Not it", " · ".join(others))
    lines += _paragraph("Engineer", spec.engineer)
    return [*lines, *_paragraph("Source", spec.source)]


def _nearest(code: str) -> str | None:
    """Return the code that was probably meant: two digits swapped first, then anything close."""
    swapped = [code[:i] + code[i + 1] + code[i] + code[i + 2 :] for i in range(len(code) - 1)]
    near = [c for c in swapped if c in FINDINGS] or [c for c in FINDINGS if c.startswith(code)]
    near = near or difflib.get_close_matches(code, FINDINGS, n=1)
    return near[0] if near else None


def _paragraph(label: str, text: str) -> list[str]:
    if not text:
        return []
    wrapped = wrap(text, WIDTH - LABEL)
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


__all__ = ["Style", "add", "explanation", "run"]
