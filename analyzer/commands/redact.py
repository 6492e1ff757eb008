"""``sparkshark redact``: a capture that can be posted."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final

from analyzer.cli import EXIT_DONE, EXIT_INTERNAL, UsageError
from analyzer.commands import common
from analyzer.commands.progress import Progress
from analyzer.outfile import passing_file, takes_stream
from analyzer.report.layout import block
from analyzer.report.text import finish
from analyzer.wording import listing, number, plural, printable, size, wrap

if TYPE_CHECKING:
    from analyzer.keys import KeyRing
    from analyzer.redaction import Redacted

NAMED: Final = 3
"""Devices whose new addresses are told; a table of hundreds helps nobody."""
LISTED_CODES: Final = 12
PIPE: Final = "-"

CHECKED: Final = (
    "Every address in it is a new one, and no old address, hardware address or ID is spelled out anywhere in it."
)

DESCRIPTION: Final = """\
Writes the Spark connections of IN, and nothing else of the network, as a pcapng file that can be posted: other
addresses and hardware addresses, new headers, no names. What was encrypted stays as it is, so the verdict stays the
same; the result is analysed and searched before it gets its name."""
EXAMPLES: Final = """\
examples
  sparkshark redact capture.pcap posted.pcapng
  sparkshark redact ring/ week.pcapng --with-lookups --shift-time
  sparkshark analyze capture.pcap --format markdown
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.usage = f"{parser.prog} [options] IN... OUT"
    common.add_capture(parser, shared=False, metavar="IN")
    parser.add_argument("output", metavar="OUT", help="capture to write, pcapng; - for standard output")
    out = parser.add_argument_group("output")
    out.add_argument(
        "--with-lookups",
        action="store_true",
        help="also what these devices asked the network: name lookups of the cloud, DHCP, ARP, announcements, made"
        " anew like all the rest",
    )
    out.add_argument(
        "--shift-time", action="store_true", help="let the capture begin in 2000: hides when it was, keeps how long"
    )
    out.add_argument("--force", action="store_true", help="overwrite OUT")
    common.add_screen(out, quiet="say only what became of the verdict")
    common.add_keys(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the capture, and say what is in it."""
    from analyzer.redaction import LeakError

    _refuse(arguments)
    keys = common.keys(arguments)
    try:
        with ExitStack() as stack:
            captures = [stack.enter_context(common.spooled()) if path == PIPE else path for path in arguments.capture]
            out = stack.enter_context(_output(arguments))
            done = _redacted(arguments, captures, keys, out)
    except LeakError as error:
        print(
            f"sparkshark: {printable(arguments.output)}: not written: the check found something of the network left"
            f" ({error}). Report it with the output of: sparkshark --version",
            file=sys.stderr,
        )
        return EXIT_INTERNAL
    common.warn(_nameless(done.before.warnings, set(captures) - set(arguments.capture)))
    stream = sys.stderr if arguments.output == PIPE else sys.stdout
    style = common.style_of(arguments, stream)
    stream.write(finish(list(told(done, arguments, style.width)), style))
    return EXIT_DONE


def _refuse(arguments: argparse.Namespace) -> None:
    """Complain of what cannot work, before anything is read."""
    out = arguments.output
    if out == PIPE:
        if sys.stdout.isatty():
            raise UsageError("-: a capture would upset a terminal. Try: the name of a file, or a pipe")
        return
    if os.path.isdir(out):
        raise UsageError(f"{out}: a folder, and OUT is one file. Try: {os.path.join(out, 'posted.pcapng')}")
    if os.path.exists(out):
        for path in arguments.capture:
            inside = os.path.dirname(out) or "." if os.path.isdir(path) else out
            if path != PIPE and os.path.exists(path) and os.path.samefile(path, inside):
                raise UsageError(f"{out}: is IN as well. The original is never overwritten. Try: another name for OUT")
    common.refuse_existing(out, force=arguments.force)
    common.refuse_missing_folder(out)


def _redacted(arguments: argparse.Namespace, captures: list[str], keys: KeyRing | None, out: BinaryIO) -> Redacted:
    from analyzer.pipeline import collect_rarely
    from analyzer.redaction import redact

    collect_rarely()
    progress = Progress(arguments)
    try:
        done = redact(
            captures,
            out,
            keys=keys,
            ports=common.ports(arguments),
            lookups=arguments.with_lookups,
            shift_time=arguments.shift_time,
            progress=progress,
        )
    finally:
        progress.wipe()
    common.refuse_unknown_links(done.before, arguments.capture[0])
    if not done.packets:
        more = any((*done.before.background.lookups, *done.before.background.heard)) and not arguments.with_lookups
        hint = "--with-lookups writes what devices asked the network" if more else "--port N, for another port"
        name = common.STANDARD_INPUT if arguments.capture[0] == PIPE else arguments.capture[0]
        raise UsageError(f"{name}: no Spark connection in it. Nothing was written. Try: {hint}")
    return done


@contextmanager
def _output(arguments: argparse.Namespace) -> Iterator[BinaryIO]:
    """Give a file that comes to stand under its name, or goes where a stream is wanted, when all has been looked at."""
    streamed = arguments.output == PIPE or takes_stream(arguments.output)
    if not streamed:
        with common.binary_output(arguments.output, force=arguments.force, private=True) as stream:
            yield stream
        return
    with passing_file() as file:
        yield file
        file.seek(0)
        if arguments.output != PIPE:
            with common.binary_output(arguments.output) as stream:
                shutil.copyfileobj(file, stream)
            return
        shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.flush()


def _nameless(warnings: list[str], spooled: set[str]) -> Iterator[str]:
    """Yield warnings with standard input under its usual name."""
    for warning in warnings:
        path = next((path for path in spooled if path in warning), None)
        yield warning if path is None else warning.replace(path, common.STANDARD_INPUT)


# -- what is said of it --------------------------------------------------------------------------------------------


def told(done: Redacted, arguments: argparse.Namespace, width: int) -> Iterator[str]:
    """Yield the lines that say what the result holds, what is lost, and who can still read what."""
    name = "standard output" if arguments.output == PIPE else printable(arguments.output)
    rows: list[tuple[str, str]] = [("Verdict", verdict(done, with_lookups=arguments.with_lookups))]
    if not arguments.quiet:
        kept = plural(done.conversations, "Spark connection") + _around(done)
        yield from wrap(f"{name}: {plural(done.packets, 'packet')} of {kept}, {size(done.bytes)}.", width)
        rows += [
            ("Replaced", replaced(done)),
            ("Left out", left_out(done)),
            ("Still in it", still_there(arguments)),
            ("Checked", CHECKED),
        ]
    for label, text in rows:
        yield from block(label, text, width)


def verdict(done: Redacted, *, with_lookups: bool) -> str:
    """Return what became of the findings."""
    same = done.same
    otherwise = [code for code in same.lost if code in same.gained]
    lost = [code for code in same.lost if code not in otherwise]
    gained = [code for code in same.gained if code not in otherwise]
    said = [f"{'The same' if same.same else 'As before'}: {_codes(same.kept) if same.kept else 'no finding'}."]
    if lost:
        why = "what shows it is" if len(lost) == 1 else "what shows them is"
        said.append(f"Not to be seen any more: {_codes(lost)}, because {why} left out.")
    if otherwise:
        said.append(f"Told in another way: {_codes(otherwise)}, because something that supports it is left out.")
    if gained:
        said.append(f"Not there before: {_codes(gained)}.")
    if (lost or otherwise) and not with_lookups:
        said.append("Perhaps --with-lookups keeps it.")
    return " ".join(said)


def replaced(done: Redacted) -> str:
    """Return what stands under another name now, and how that agrees with a redacted report."""
    from analyzer.catalogue import FALLBACK_ADDRESS
    from analyzer.network import address_text
    from analyzer.redaction.disguise import KEPT
    from analyzer.report.redact import Redactor

    disguise, shorten = done.disguise, Redactor(done.before)
    changed = {old: new for old, new in disguise.addresses.items() if old not in KEPT}
    counts = (
        (len(changed), "address", "addresses"),
        (len(disguise.hardware), "hardware address", "hardware addresses"),
        (len(disguise.ids), "device ID", "device IDs"),
    )
    said = listing([plural(count, one, many) for count, one, many in counts if count]) or "nothing"
    said += "; of a device's hardware address its maker's half stays" if disguise.hardware else ""
    named = []
    for c in done.before.conversations:
        shown = shorten.shorten(c.device.ip)
        new = changed.get(c.device.address)
        if new is not None and shown.startswith("Device") and (text := f"{shown} is {address_text(new)}") not in named:
            named.append(text)
        if len(named) > NAMED:
            break
    said += (
        f". {listing(named[:NAMED])}{' and so on' if len(named) > NAMED else ''}, as in a redacted report."
        if named
        else "."
    )
    if any(address_text(c.server.address) == FALLBACK_ADDRESS for c in done.before.conversations):
        said += f" {FALLBACK_ADDRESS} stays: it is the same for everybody."
    if done.blanked:
        have = "has" if done.blanked == 1 else "have"
        said += (
            f" {plural(done.blanked, 'packet')} {have} filler of the same length for what is neither login nor message."
        )
    return said


def left_out(done: Redacted) -> str:
    """Return what is not in the result."""
    others = done.before.packets - done.packets
    said = [f"{plural(others, 'packet')} of other traffic"] if others > 0 else []
    said.append("link layers, VLAN tags, tunnels and radio headers, in whose place there are new ones")
    said.append("TCP options that tell of a machine; comments and names in the file")
    return f"{'; '.join(said)}."


def still_there(arguments: argparse.Namespace) -> str:
    """Return what a reader of the result can learn."""
    times = "how long everything took" if arguments.shift_time else "times of day (--shift-time hides them)"
    return (
        f"Sizes, ports, TCP numbers, {times}, and the encrypted bytes: whoever has the private key of the device or of"
        " the server can read the messages and the device's ID, as in the original. Post no key with it."
    )


def _around(done: Redacted) -> str:
    return "".join(f", {number(count)} of {kind}" for kind, count in sorted(done.written.items()))


def _codes(codes: list[str]) -> str:
    shown = codes[:LISTED_CODES]
    more = [f"{number(len(codes) - LISTED_CODES)} more"] if len(codes) > LISTED_CODES else []
    return listing([*shown, *more])
