"""``sparkshark decrypt``: every message in the clear, and the exports made of them."""

from __future__ import annotations

import argparse
import io
import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from analyzer.cells import WIDTH
from analyzer.cli import EXIT_DONE, EXIT_FINDINGS, EXIT_UNUSABLE, UsageError, in_one_line
from analyzer.commands import common
from analyzer.conversation import Conversation
from analyzer.report.text import finish
from analyzer.wording import listing, number, plain, plural, printable, size, wrap

if TYPE_CHECKING:
    from analyzer.keys import KeyRing
    from analyzer.report.redact import Redactor
    from analyzer.report.style import Style
    from analyzer.trace import Trace

FORMATS: Final = ("text", "json", "jsonl", "csv", "html", "parquet")
NAMED: Final = 4
NUMBERED: Final = 8
"""Connections that are named by number; more are counted."""

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
    common.add_conversation(parser)
    out = parser.add_argument_group("output")
    out.add_argument("--format", choices=FORMATS, default="text", metavar="FORMAT", help=", ".join(FORMATS))
    out.add_argument("--all", action="store_true", help="each chunk of an update in a row of its own")
    out.add_argument(
        "-o", dest="output", metavar="FILE", help="write there instead of standard output; for parquet a folder"
    )
    out.add_argument(
        "-w",
        dest="plain",
        metavar="FILE.pcapng",
        help="plain CoAP that any Wireshark reads without a plugin (mode 0600)",
    )
    out.add_argument("--keylog-out", metavar="FILE", help="session keys, readable by you alone (mode 0600)")
    out.add_argument("--firmware", metavar="DIR", help="images of over-the-air updates, checked, with SHA-256")
    out.add_argument("--force", action="store_true", help="overwrite files")
    out.add_argument("--redact", action="store_true", help=common.REDACT)
    out.add_argument("--show-secrets", action="store_true", help="session keys in JSON")
    common.add_screen(out, quiet="no table, only how much opened")


def run(arguments: argparse.Namespace) -> int:
    """Decrypt, print, export."""
    _refuse_secrets(arguments)
    tables = arguments.format == "parquet"
    if tables:
        common.check_dataset(arguments)
    for path in (None if tables else arguments.output, arguments.plain, arguments.keylog_out):
        if path is not None:
            common.refuse_existing(path, force=arguments.force)
    if arguments.format == "html" and arguments.output is None:
        common.refuse_terminal()
    if arguments.firmware is not None and not os.path.isdir(arguments.firmware):
        make = f"mkdir -p {shlex.quote(arguments.firmware)}"
        raise UsageError(f"{arguments.firmware}: the folder does not exist. Make it first: {make}")
    keys = common.keys(arguments)
    if keys is None:
        raise UsageError(
            "decrypt: no key was given. Try: --keys FOLDER, --device-key FILE, --keylog FILE or --session-key HEX."
            " Without keys there is still a verdict: sparkshark analyze"
        )
    trace = common.read(arguments, keys)
    opened = [c for c in trace.conversations if c.messages]
    shorten = common.redactor(trace, arguments) if arguments.redact else None
    # The files come first: a reader who closes the pipe after a few rows still gets them.
    failed = _export(opened, arguments)
    if tables:
        common.write_dataset(trace, arguments, shorten)
    else:
        encoding = "utf-8" if arguments.format == "html" else None
        with common.output(
            arguments.output, force=arguments.force, encoding=encoding, private=arguments.show_secrets
        ) as stream:
            style = common.style_of(arguments, stream, widest=common.LONGEST)
            for piece in _rendered(trace, opened, arguments, style, shorten):
                stream.write(piece)
            stream.flush()
    _say_what_stays_closed(trace, keys, arguments)
    if failed:
        return EXIT_UNUSABLE
    return EXIT_DONE if opened else EXIT_FINDINGS


def _refuse_secrets(arguments: argparse.Namespace) -> None:
    """Complain of exports that hold the very thing that is to be left out."""
    for option, wanted, what in (
        ("-w", arguments.plain, "the messages"),
        ("--keylog-out", arguments.keylog_out, "session keys"),
        ("--firmware", arguments.firmware, "the firmware itself"),
    ):
        if arguments.redact and wanted is not None:
            raise UsageError(f"{option} and --redact exclude each other: that file holds {what}. Leave out one.")


def _rendered(
    trace: Trace, opened: list[Conversation], arguments: argparse.Namespace, style: Style, shorten: Redactor | None
) -> Iterable[str]:
    """Yield the messages in the format asked for."""
    if arguments.format == "csv":
        return _csv(opened, redacted=shorten is not None)
    if arguments.format == "html":
        from analyzer.report.html import html_report

        name = common.capture_name(arguments.capture, trace)
        return html_report(
            trace,
            name if shorten is None else os.path.basename(name),
            shorten,
            messages_first=True,
            every=arguments.all,
        )
    if arguments.format in ("json", "jsonl"):
        from analyzer.report import jsonreport

        write = jsonreport.json_text if arguments.format == "json" else jsonreport.json_lines
        if shorten is None:
            return write(trace, show_secrets=arguments.show_secrets)
        return (shorten.text("".join(write(trace, redacted=True))),)
    return _text(opened, arguments, style, shorten)


def _csv(opened: list[Conversation], *, redacted: bool) -> Iterator[str]:
    from analyzer.export.csvtable import write_csv

    table = io.StringIO()
    write_csv(table, opened, redacted=redacted)
    yield table.getvalue()


def _text(
    opened: list[Conversation], arguments: argparse.Namespace, style: Style, shorten: Redactor | None
) -> Iterator[str]:
    from analyzer.report.messagetable import headline, table

    for index, c in enumerate(opened):
        lines = [""] if index else []
        total = sum(side.frames for side in c.sides.values())
        whole = c.secrets is not None and c.secrets.opened == total
        many = f"connection {c.number}: " if len(opened) > 1 else ""
        head = f"{'✓' if whole else '~'} {many}{headline(c)}"
        if shorten is not None:
            head = shorten.shorten(head)
        lines += wrap(head, style.width, then="  ") if style.width < WIDTH else [head]
        yield finish(lines, style)
        if arguments.quiet:
            continue
        for line in table(c, width=style.width, every=arguments.all, redacted=shorten is not None):
            yield finish((line if shorten is None else shorten.shorten(line)).splitlines(), style)
    if shorten is not None:
        yield finish(["", *wrap(shorten.closing(contents=bool(opened)), style.width)], style)


# -- what stays closed -------------------------------------------------------------------------------------------


def _say_what_stays_closed(trace: Trace, keys: KeyRing, arguments: argparse.Namespace) -> None:
    """Say on standard error which connections stay closed, what was tried, and what would open them."""
    alike: dict[tuple[str, ...], list[Conversation]] = {}
    for c in trace.conversations:
        if c.kind == "spark" and not c.messages:
            alike.setdefault(_why_closed(c, keys, alone=len(trace.conversations) == 1), []).append(c)
    opened = any(c.messages for c in trace.conversations)
    if not alike and not opened:
        print("sparkshark: no Spark connection in this capture; nothing to open.", file=sys.stderr)
    mark = "~" if opened else "✕"
    for why, closed in alike.items():
        # Messages under a dead key are none of a session's.
        total = sum(side.frames for c in closed for side in c.sides.values()) - sum(len(c.dead_frames) for c in closed)
        which = "" if len(trace.conversations) == 1 else f"{_connections(closed)}: "
        head = f"0 of {plural(total, 'message')} opened" if total > 0 else "no login, so no message to open"
        said = [f"{mark} {which}{head}: {why[0]}.", *(f"  {line}" for line in why[1:])]
        for line in common.without_folders(said, arguments):
            _print(line)
    if alike:
        for line in common.without_folders([f"  Which: {_same_with_analyze(arguments)}"], arguments):
            _print(line)


def _why_closed(c: Conversation, keys: KeyRing, *, alone: bool) -> tuple[str, ...]:
    """Return why one connection stays closed, then what to do about it. ``alone``: packets can be named."""
    session, offer = c.part("session"), c.secrets.offer if c.secrets is not None else None
    packet = f"packet {number(session.packet)}" if session is not None and alone else "the server's reply"
    tried = keys.device_private
    names = [f"{printable(os.path.basename(key.name))} ({key.fingerprint})" for key in tried[:NAMED]]
    if len(tried) > NAMED:
        names.append(f"{number(len(tried) - NAMED)} more")
    given = " The session keys given do not fit either." if keys.session_keys or keys.loose_session_keys else ""
    if session is None and not c.midway and c.reached not in ("hello", "established"):
        return ("the login stopped before the server's reply",)
    if session is None or session.data is None:
        what = "begins after the login" if c.midway else "has not all of the login"
        return (
            f"the capture {what}, and the session key travels only there",
            f"No RSA key can open it. Only --session-key HEX or --keylog FILE can.{given}",
        )
    if offer is not None and offer.opened:
        return (f"{packet} opens, but no message of this session follows",)
    if not tried:
        return (
            f"{packet} opens with the device's private key only",
            f"To open it: --device-key FILE, --keylog FILE or --session-key HEX.{given}",
        )
    one = len(tried) == 1
    return (
        f"{listing(names)} {'does' if one else 'do'} not open {packet}",
        f"{'It is another device' if one else 'They are other devices'}'{'s key' if one else ' keys'}, or the server"
        f" used another key for this device.{given}",
    )


def _connections(closed: list[Conversation]) -> str:
    numbers = [number(c.number) for c in closed[:NUMBERED]]
    if len(closed) > NUMBERED:
        numbers.append(f"{number(len(closed) - NUMBERED)} more")
    return f"connection{'s' if len(closed) > 1 else ''} {listing(numbers)}"


def _same_with_analyze(arguments: argparse.Namespace) -> str:
    """Return the command that judges the same captures with the same keys. Session keys stay out of it."""
    words = ["sparkshark", "analyze", *arguments.capture]
    for option in ("keys", "device_key", "server_key", "keylog"):
        for path in getattr(arguments, option):
            words += [f"--{option.replace('_', '-')}", path]
    return printable(shlex.join(words)) + (" --session-key HEX" if arguments.session_key else "")


def _print(line: str) -> None:
    encoding = (sys.stderr.encoding or "ascii").lower()
    print(line if encoding.startswith("utf") else plain(line), file=sys.stderr)


# -- exports -----------------------------------------------------------------------------------------------------


def _export(opened: list[Conversation], arguments: argparse.Namespace) -> bool:
    """Write the files that were asked for, and say on standard error what is in them; return whether any failed.

    One that cannot be written (a full disk, say) costs itself alone: the others and the table are still delivered.
    """
    failed = False
    exports = (
        (arguments.plain, _write_plain),
        (arguments.keylog_out, _write_key_log),
        (arguments.firmware, _write_firmware),
    )
    for wanted, write in exports:
        if wanted is None:
            continue
        try:
            write(opened, arguments)
        except Exception as error:
            line = in_one_line(error)
            if line is None:
                raise
            print(f"sparkshark: {printable(line)}", file=sys.stderr)
            failed = True
    return failed


def _write_plain(opened: list[Conversation], arguments: argparse.Namespace) -> None:
    from analyzer.export.plain import write_plain

    with common.binary_output(arguments.plain, force=arguments.force, private=True) as stream:
        written = write_plain(stream, opened)
    print(f"sparkshark: {printable(arguments.plain)}: {written}, as plain CoAP.", file=sys.stderr)


def _write_key_log(opened: list[Conversation], arguments: argparse.Namespace) -> None:
    from analyzer.keys import SessionKey, write_key_log

    sessions: list[tuple[bytes | None, SessionKey]] = []
    short = 0
    for c in opened:
        nonce, key = c.part("nonce"), c.secrets.session_key if c.secrets is not None else None
        if key is not None and key.blob is not None:
            sessions.append((nonce.data if nonce is not None else None, key))
        else:
            short += 1
    if not sessions:
        why = "only the AES key is known, and a key log needs all 40 bytes" if short else "nothing opened"
        print(f"sparkshark: {printable(arguments.keylog_out)}: not written: {why}.", file=sys.stderr)
        return
    write_key_log(arguments.keylog_out, sessions, force=arguments.force)
    left_out = f" Left out: {plural(short, 'session')} of which only the AES key is known." if short else ""
    print(
        f"sparkshark: {printable(arguments.keylog_out)}: {plural(len(sessions), 'session key')}, mode 0600.{left_out}",
        file=sys.stderr,
    )


def _write_firmware(opened: list[Conversation], arguments: argparse.Namespace) -> None:
    from analyzer.export.firmware import FirmwareCollector, save_images

    found = 0
    for c in opened:
        collector = FirmwareCollector()
        for message in c.messages:
            collector.take(message)
        images = collector.images()
        found += len(images)
        save_images(images, arguments.firmware, c.number, force=arguments.force)
        for image in images:
            name = f"firmware-{c.number}-{image.number}.bin" + ("" if image.complete else ".partial")
            lacking = sum(end - start for start, end in image.missing)
            state = f"SHA-256 {image.sha256}" if image.complete else f"{size(lacking)} missing, see {name}.txt"
            path = os.path.join(arguments.firmware, name)
            print(
                f"sparkshark: {printable(path)}: {size(image.size)}, {plural(image.chunks, 'chunk')}, {state}.",
                file=sys.stderr,
            )
        if collector.dropped:
            print(
                f"sparkshark: connection {c.number}: {plural(collector.dropped, 'more update')} left out.",
                file=sys.stderr,
            )
    if not found:
        print(f"sparkshark: {printable(arguments.firmware)}: no firmware update in this capture.", file=sys.stderr)


__all__ = ["add", "run"]
