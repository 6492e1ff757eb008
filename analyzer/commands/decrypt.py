"""``sparkshark decrypt``: every message in the clear, and the exports made of them."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from analyzer.cli import EXIT_DONE, EXIT_FINDINGS, UsageError
from analyzer.commands import common
from analyzer.commands.analyze import keep_only
from analyzer.conversation import Conversation
from analyzer.pipeline import analyze
from analyzer.report.text import finish
from analyzer.wording import listing, number, plural

if TYPE_CHECKING:
    from analyzer.keys import KeyRing
    from analyzer.report.text import Style
    from analyzer.trace import Trace

FORMATS: Final = ("text", "json", "jsonl", "csv")
NAMED: Final = 4

DESCRIPTION: Final = f"""\
Every message of CAPTURE in the clear: {common.CAPTURES}.
The device's private key opens all its sessions; the server's key adds the device's
ID and checks the signature. A session key or key log opens single sessions."""
EXAMPLES: Final = """\
examples
  sparkshark decrypt capture.pcap --keys my-keys/
  sparkshark decrypt capture.pcap --device-key core.der -w plain.pcapng
  sparkshark decrypt update.pcap --keys my-keys/ --firmware images/
exit status: 1 when nothing opened
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    common.add_capture(parser)
    common.add_keys(parser)
    look = parser.get_default("look")
    look.add_argument(
        "--conversation", type=common.whole_number("--conversation"), metavar="N", help="only this connection"
    )
    out = parser.add_argument_group("output")
    out.add_argument("--format", choices=FORMATS, default="text", metavar="FORMAT", help=", ".join(FORMATS))
    out.add_argument("--all", action="store_true", help="each chunk of an update in a row of its own")
    out.add_argument("-o", dest="output", metavar="FILE", help="write there instead of standard output")
    out.add_argument(
        "-w", dest="plain", metavar="FILE.pcapng", help="plain CoAP that any Wireshark reads without a plugin"
    )
    out.add_argument("--keylog-out", metavar="FILE", help="session keys, readable by you alone (mode 0600)")
    out.add_argument("--firmware", metavar="DIR", help="images of over-the-air updates, checked, with SHA-256")
    out.add_argument("--force", action="store_true", help="overwrite files")
    out.add_argument("--show-secrets", action="store_true", help="session keys in JSON")
    out.add_argument("--quiet", action="store_true", help="no table, only how much opened")
    out.add_argument("--no-color", action="store_true", help="no colour (also: NO_COLOR=1)")


def run(arguments: argparse.Namespace) -> int:
    """Decrypt, print, export."""
    for path in (arguments.output, arguments.plain, arguments.keylog_out):
        if path is not None:
            common.refuse_existing(path, force=arguments.force)
    if arguments.firmware is not None and not os.path.isdir(arguments.firmware):
        raise UsageError(
            f"{arguments.firmware}: the folder does not exist. Make it first: mkdir -p {arguments.firmware}"
        )
    keys = common.keys(arguments)
    if keys is None:
        raise UsageError(
            "decrypt: no key was given. Try: --keys FOLDER, --device-key FILE, --keylog FILE or --session-key HEX."
            " Without keys there is still a verdict: sparkshark analyze"
        )
    progress = common.Progress(arguments)
    stdin = sys.stdin.buffer if "-" in arguments.capture else None
    try:
        trace = analyze(arguments.capture, keys=keys, ports=common.ports(arguments), stdin=stdin, progress=progress)
    finally:
        progress.wipe()
    common.warn(trace.warnings)
    if arguments.conversation is not None:
        keep_only(trace, arguments.conversation)
    opened = [c for c in trace.conversations if c.messages]
    _unopened(trace, keys, arguments)
    with common.output(arguments.output, force=arguments.force) as stream:
        style = common.style_of(arguments, stream)
        for piece in _rendered(trace, opened, arguments, style):
            stream.write(piece)
    _export(opened, arguments)
    return EXIT_DONE if opened else EXIT_FINDINGS


def _rendered(trace: Trace, opened: list[Conversation], arguments: argparse.Namespace, style: Style) -> Iterable[str]:
    """Yield the messages in the format asked for."""
    if arguments.format == "csv":
        from analyzer.export.csvtable import csv_lines

        return csv_lines(opened, trace.time_digits)
    if arguments.format in ("json", "jsonl"):
        from analyzer.report import jsonreport

        write = jsonreport.json_text if arguments.format == "json" else jsonreport.json_lines
        return write(trace, show_secrets=arguments.show_secrets)
    return _text(opened, arguments, style)


def _text(opened: list[Conversation], arguments: argparse.Namespace, style: Style) -> Iterator[str]:
    from analyzer.report.messagetable import headline, table

    wide = shutil.get_terminal_size().columns if sys.stdout.isatty() else 80
    for index, c in enumerate(opened):
        lines = [""] if index else []
        total = sum(side.frames for side in c.sides.values())
        whole = c.secrets is not None and c.secrets.opened == total
        many = f"connection {c.number}: " if len(opened) > 1 else ""
        lines.append(f"{'✓' if whole else '~'} {many}{headline(c)}")
        yield finish(lines, style)
        if arguments.quiet:
            continue
        for line in table(c, width=max(80, wide), every=arguments.all):
            yield finish([line], style)


def _unopened(trace: Trace, keys: KeyRing, arguments: argparse.Namespace) -> None:
    """Say on standard error which conversations stay closed, what was tried, and what would open them."""
    tried = [os.path.basename(k.name) for k in keys.device_private]
    names = listing(tried[:NAMED]) + (f" and {number(len(tried) - NAMED)} more" if len(tried) > NAMED else "")
    if not trace.conversations:
        print("sparkshark: no Spark connection in this capture; nothing to open.", file=sys.stderr)
    for c in trace.conversations:
        total = sum(side.frames for side in c.sides.values())
        if c.messages or c.kind != "spark":
            continue
        session = c.part("session")
        if session is None or session.data is None:
            if not total:
                continue
            why = "its login is not in the capture whole, so no RSA key can open it; only --session-key or --keylog can"
        elif c.secrets is not None and c.secrets.offer is not None and c.secrets.offer.opened:
            if not total:
                continue
            why = "its reply opens, but no message follows that belongs to this session"
        elif not tried:
            why = f"to open packet {number(session.packet)} the device's private key is needed: --device-key FILE"
        else:
            why = f"{names} {'does' if len(tried) == 1 else 'do'} not open packet {number(session.packet)}"
            why += ". It is another device's key, or the server used another key for this device"
        print(
            f"sparkshark: connection {c.number} ({c.device.ip}): 0 of {plural(total, 'message')} opened; {why}."
            f" More: sparkshark analyze {arguments.capture[0]} with the same keys",
            file=sys.stderr,
        )


def _export(opened: list[Conversation], arguments: argparse.Namespace) -> None:
    """Write the files that were asked for, and say on standard error what is in them."""
    if arguments.plain is not None:
        from analyzer.export.plain import write_plain

        with common.binary_output(arguments.plain, force=arguments.force) as stream:
            count = write_plain(stream, opened)
        print(f"sparkshark: {arguments.plain}: {plural(int(count), 'message')} as plain CoAP.", file=sys.stderr)
    if arguments.keylog_out is not None:
        from analyzer.keys import write_key_log

        sessions = []
        for c in opened:
            nonce = c.part("nonce")
            if c.secrets is not None and c.secrets.session_key is not None:
                sessions.append((nonce.data if nonce is not None else None, c.secrets.session_key))
        write_key_log(arguments.keylog_out, sessions, force=arguments.force)
        print(f"sparkshark: {arguments.keylog_out}: {plural(len(sessions), 'session key')}.", file=sys.stderr)
    if arguments.firmware is not None:
        from analyzer.export.firmware import FirmwareCollector, save_images

        for c in opened:
            collector = FirmwareCollector()
            for message in c.messages:
                collector.take(message)
            for line in save_images(collector.images(), arguments.firmware, c.number, force=arguments.force):
                print(f"sparkshark: {line}", file=sys.stderr)


__all__ = ["add", "run"]
