"""What several commands share: capture arguments, output files, warnings, progress, the style of a terminal."""

from __future__ import annotations

import argparse
import errno
import io
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final, TextIO

from analyzer.catalogue import LARGEST_PORT, SPARK_PORT
from analyzer.cells import WIDTH
from analyzer.cli import UsageError, screen_width, shortened
from analyzer.commands.progress import Progress
from analyzer.outfile import is_disk, new_file, passing_file, takes_stream, temporary_folder, unfinished
from analyzer.report.style import NARROWEST, WIDEST, Style
from analyzer.secrecy import Hidden, leave_no_core
from analyzer.wording import plural, printable

if TYPE_CHECKING:
    from analyzer.expected import ExpectedServer
    from analyzer.keys import KeyRing
    from analyzer.report.redact import Redactor
    from analyzer.trace import Trace

LONGEST_NUMBER: Final = 18
"""Digits that are read: more would be no conversation that anybody can have."""
LONGEST: Final = 1000
"""Columns that can be asked for: wider than any screen."""
DISK_ERRORS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What can go wrong while a file is written; what can go wrong before that names the file itself."""
STANDARD_INPUT: Final = "standard input"
CAPTURES: Final = (
    "pcap, pcapng (also .gz .zst .xz .lz4), a pattern ('cap_*.pcapng') or a directory (read in time order), or - for"
    " standard input"
)


def add_capture(
    parser: argparse.ArgumentParser, *, many: bool = True, shared: bool = True, metavar: str = "CAPTURE"
) -> None:
    """Declare the capture argument and what to look at in it; ``shared`` when several processes can do the work."""
    parser.add_argument("capture", metavar=metavar, nargs="+" if many else None, help=CAPTURES)
    look = parser.add_argument_group("what to look at")
    look.add_argument(
        "--port", type=port, action="append", metavar="N", help=f"server port, repeatable (default {SPARK_PORT})"
    )
    if many and shared:
        parser.add_argument(
            "--jobs",
            type=whole_number("--jobs"),
            metavar="N",
            help="processes to use on large captures (default: one for each processor)",
        )
        parser.add_argument(
            "--scheduler",
            metavar="ADDRESS",
            help="have a Dask cluster do it, whose machines find CAPTURE by that name (tcp://HOST:8786), or dask:"
            " for one of this machine",
        )
    parser.set_defaults(look=look)


def add_conversation(parser: argparse.ArgumentParser) -> None:
    """Declare the choice of one connection."""
    parser.get_default("look").add_argument(
        "--conversation",
        type=whole_number("--conversation"),
        metavar="N",
        help="only this connection (numbers as in --format json)",
    )


def standard_input(captures: Sequence[str]) -> BinaryIO | None:
    """Return standard input's bytes when ``-`` is among the captures."""
    return sys.stdin.buffer if "-" in captures else None


def read(arguments: argparse.Namespace, keys: KeyRing | None) -> Trace:
    """Analyse the captures named, with progress and warnings, reduced to ``--conversation`` if that was asked for."""
    from analyzer.jobs import analyze
    from analyzer.pipeline import collect_rarely

    collect_rarely()
    if keys is not None and arguments.scheduler is not None:
        _warn_of_listeners(arguments.scheduler)
    progress = Progress(arguments)
    try:
        trace = analyze(
            arguments.capture,
            keys=keys,
            ports=ports(arguments),
            stdin=standard_input(arguments.capture),
            progress=progress,
            expect_servers=getattr(arguments, "expect_server", None) or (),
            jobs=arguments.jobs,
            scheduler=arguments.scheduler,
        )
    finally:
        progress.wipe()
    refuse_unknown_links(trace, arguments.capture[0])
    warn(without_folders(trace.warnings, arguments))
    if arguments.conversation is not None:
        keep_only(trace, arguments.conversation)
    return trace


def _warn_of_listeners(scheduler: str) -> None:
    from analyzer.jobs.cluster import in_the_clear

    if in_the_clear(scheduler):
        warn(
            [f"--scheduler {scheduler}: the keys are sent there unencrypted. A scheduler at tls:// has them encrypted."]
        )


def capture_name(paths: list[str], trace: Trace) -> str:
    """Return how the headline names what was read."""
    first = STANDARD_INPUT if paths[0] == "-" else paths[0]
    if len(trace.captures) > 1:
        return f"{first} ({plural(len(trace.captures), 'file')})" if len(paths) == 1 else plural(len(paths), "file")
    return os.path.basename(first.rstrip("/")) or first


def keep_only(trace: Trace, number: int) -> None:
    """Reduce the trace to one conversation and judge it alone."""
    from analyzer.rules import judge

    chosen = [c for c in trace.conversations if c.number == number]
    if not chosen:
        total = len(trace.conversations)
        which = f"this capture has {total}" + (f" (1–{total})" if total > 1 else "")
        raise UsageError(f"--conversation {number}: {which}. List them: sparkshark analyze FILE --format json")
    trace.conversations, trace.devices = chosen, []
    judge(trace)


def add_keys(parser: argparse.ArgumentParser) -> None:
    """Declare the key options; all optional, all repeatable."""
    group = parser.add_argument_group("keys (all optional, repeatable)")
    group.add_argument(
        "--keys", action="append", default=[], metavar="PATH", help="key file or folder; its role is found by content"
    )
    group.add_argument(
        "--device-key",
        "--core-key",
        action="append",
        default=[],
        metavar="FILE",
        help="the device's private key (also: --core-key)",
    )
    group.add_argument(
        "--server-key", action="append", default=[], metavar="FILE", help="the server's public or private key"
    )
    group.add_argument(
        "--keylog", action="append", default=[], metavar="FILE", help="session keys saved by decrypt --keylog-out"
    )
    group.add_argument(
        "--session-key",
        type=Hidden,
        action="append",
        default=[],
        metavar="HEX",
        help="80 hex digits, or 32 for the AES key alone; a list of processes shows them, and no key log",
    )
    group.add_argument("--password-file", metavar="FILE", help="password of an encrypted key, in the first line")


def keys(arguments: argparse.Namespace) -> KeyRing | None:
    """Read the keys that were named; None when there were none."""
    named = (arguments.keys, arguments.device_key, arguments.server_key, arguments.keylog, arguments.session_key)
    if not any(named):
        return None
    from analyzer.keys import KeyRing

    leave_no_core()
    ring = KeyRing.load(
        *arguments.keys,
        password=password(arguments),
        device_keys=arguments.device_key,
        server_keys=arguments.server_key,
        keylogs=arguments.keylog,
        session_keys=arguments.session_key,
    )
    warn(without_folders(ring.warnings, arguments))
    return ring


REDACT: Final = "shorten device IDs, addresses and names, leave out what messages say: for posting"


def redactor(trace: Trace | None, arguments: argparse.Namespace) -> Redactor:
    """Return what shortens a report. What strangers wrote is taken out of the trace itself."""
    from analyzer.report.redact import Redactor

    made = Redactor(trace, named_paths(arguments))
    return made if trace is None else made.withhold(trace)


def named_paths(arguments: argparse.Namespace) -> list[str]:
    """Return the files and folders that the user named."""
    paths = []
    for option in (
        "capture",
        "files",
        "keys",
        "device_key",
        "server_key",
        "keylog",
        "output",
        "plain",
        "password_file",
        "ring",
    ):
        named: str | list[str] = getattr(arguments, option, None) or []
        paths += [named] if isinstance(named, str) else named
    return paths


def without_folders(lines: Iterable[str], arguments: argparse.Namespace) -> Iterable[str]:
    """Return what is said of files, with their base names alone where the report is to be posted."""
    if not getattr(arguments, "redact", None):
        return lines
    shorten = redactor(None, arguments)
    return [shorten.shorten(line) for line in lines]


def password(arguments: argparse.Namespace) -> Callable[[str], bytes | None] | None:
    """Return where the password of an encrypted key comes from: a file, else a terminal, else nowhere."""
    if arguments.password_file is not None:
        from analyzer.capture.complaints import cannot_read

        try:
            with open(arguments.password_file, "rb") as stream:
                line = stream.readline(4096).rstrip(b"\r\n")
        except OSError as error:
            raise cannot_read(arguments.password_file, error) from error
        return lambda name: line
    if not sys.stdin.isatty():
        return None

    def ask(name: str) -> bytes | None:
        from getpass import getpass

        return getpass(f"Password of {name}: ").encode()

    return ask


def port(text: str) -> int:
    """Return a TCP port, or complain in one line."""
    if not text.isascii() or not text.isdigit() or len(text) > LONGEST_NUMBER or not 1 <= int(text) <= LARGEST_PORT:
        raise UsageError(
            f"--port {shortened(text)}: ports run from 1 to {LARGEST_PORT}. Spark devices use {SPARK_PORT}."
        )
    return int(text)


def ports(arguments: argparse.Namespace) -> tuple[int, ...]:
    """Return the ports to look at: the usual one, and those given."""
    return (SPARK_PORT, *(arguments.port or ()))


def add_expected(parser: argparse.ArgumentParser) -> None:
    """Declare where devices should call."""
    parser.get_default("look").add_argument(
        "--expect-server",
        type=expected,
        action="append",
        metavar="HOST",
        help="where devices should call, repeatable: address or name, also HOST:PORT; tells who calls elsewhere",
    )


def expected(text: str) -> ExpectedServer:
    """Return a server, or complain in one line."""
    from analyzer.expected import ExpectedServer, ExpectedServerError

    try:
        return ExpectedServer.parse(text)
    except ExpectedServerError as error:
        raise UsageError(f"--expect-server {error}") from error


def whole_number(option: str) -> Callable[[str], int]:
    """Return an argument type for numbers from 1 on."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > LONGEST_NUMBER or int(text) < 1:
            raise UsageError(f"{option} {shortened(text)}: a whole number from 1 on is wanted.")
        return int(text)

    return parse


def add_screen(parser: argparse.ArgumentParser | argparse._ArgumentGroup, *, quiet: str) -> None:
    """Declare how text is put on a screen; ``quiet`` says what is left of it then."""
    parser.add_argument("--quiet", action="store_true", help=quiet)
    parser.add_argument("--width", type=width, metavar="N", help="columns (default: the terminal's, else 80)")
    parser.add_argument("--no-color", action="store_true", help="no colour (also: NO_COLOR=1)")


def width(text: str) -> int:
    """Return a width, or complain in one line."""
    if not text.isascii() or not text.isdigit() or len(text) > LONGEST_NUMBER or not NARROWEST <= int(text) <= LONGEST:
        raise UsageError(f"--width {shortened(text)}: a number of columns from {NARROWEST} to {LONGEST} is wanted.")
    return int(text)


def style_of(arguments: argparse.Namespace, stream: TextIO, *, widest: int = WIDEST) -> Style:
    """Return how text is put on ``stream``: colour on a terminal only, ASCII where it can take no more.

    What the user says about the width counts; then, for standard output, COLUMNS and what the terminal says, within
    bounds.
    """
    terminal = stream.isatty()
    plain = getattr(arguments, "no_color", False) or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "")
    given: int | None = getattr(arguments, "width", None)
    return Style(
        width=given or max(NARROWEST, min(widest, screen_width(stream) if stream is sys.stdout else WIDTH)),
        colour=terminal and not plain,
        unicode=encoding.startswith("utf"),
        quiet=getattr(arguments, "quiet", False),
        moves=os.environ.get("TERM") != "dumb",
    )


def warn(lines: Iterable[str]) -> None:
    """Print conditions that leave an answer possible."""
    for line in lines:
        print(f"sparkshark: warning: {printable(line)}", file=sys.stderr)


def refuse_unknown_links(trace: Trace, name: str) -> None:
    """Complain when no packet at all is of a link type that can be read; warn when only some are not.

    ``name`` is the capture as the user typed it.
    """
    unknown = trace.unknown_links
    if not unknown:
        return
    from analyzer.network import link_type_name

    types = ", ".join(
        f"{link} ({kind})" if (kind := link_type_name(link)) != f"link type {link}" else str(link)
        for link in sorted(unknown)
    )
    which = f"link type {types} is" if len(unknown) == 1 else f"link types {types} are"
    subject = STANDARD_INPUT if name == "-" else name
    if sum(unknown.values()) == trace.packets:
        raise UsageError(
            f"{subject}: {which} not known; no packet can be read. Capture on an ordinary network interface."
        )
    warn([f"{subject}: {which} not known; {plural(sum(unknown.values()), 'packet')} left out."])


def refuse_existing(path: str, *, force: bool) -> None:
    """Complain when an output file is there already, or what is there is no file at all."""
    if is_disk(path):
        raise UsageError(f"{path}: a disk, and not a file. Nothing was written. Try: another name")
    if os.path.lexists(path) and not force and not takes_stream(path):
        raise UsageError(f"{path}: exists already. Nothing was written. Try: another name, or --force")


def refuse_missing_folder(path: str) -> None:
    """Complain when there is no folder to put an output file into."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise UsageError(f"{path}: the folder {folder} does not exist. Make it first: mkdir -p {shlex.quote(folder)}")


def check_dataset(arguments: argparse.Namespace) -> None:
    """Complain when the data set that was asked for cannot be written, before anything is read."""
    from analyzer.dataset import check_folder, check_pyarrow

    if arguments.output is None:
        raise UsageError("--format parquet: it makes a folder of tables. Say which: -o DIR")
    check_pyarrow()
    check_folder(arguments.output, force=arguments.force)


def write_dataset(trace: Trace, arguments: argparse.Namespace, redactor: Redactor | None = None) -> None:
    """Write the data set, and say on standard error what is in it."""
    from analyzer.dataset import write_dataset

    written = write_dataset(arguments.output, trace, redactor=redactor, force=arguments.force)
    (name,) = without_folders([arguments.output], arguments)
    print(f"sparkshark: {printable(name)}: {written}, as Parquet.", file=sys.stderr)


@contextmanager
def spooled() -> Iterator[str]:
    """Give the name of a file, readable by its owner alone, with all that comes from standard input: it is read
    more than once.

    Complaints about that file are told of standard input.
    """
    from analyzer.capture import CaptureError

    if sys.stdin.isatty():
        raise UsageError('"-" reads a capture from a pipe, but nothing is piped. Name a file instead.')
    with passing_file() as file:
        try:
            shutil.copyfileobj(sys.stdin.buffer, file)
            file.flush()
        except OSError as error:
            error.filename = temporary_folder()
            raise
        try:
            yield file.name
        except CaptureError as error:
            raise CaptureError(str(error).replace(file.name, STANDARD_INPUT)) from error


def refuse_terminal() -> None:
    """Complain when a page for a browser would go to a terminal."""
    if sys.stdout.isatty():
        raise UsageError("--format html: it makes a page for a browser. Say where: -o report.html")


@contextmanager
def output(
    path: str | None, *, force: bool = False, encoding: str | None = None, private: bool = False
) -> Iterator[TextIO]:
    """Give standard output, or a new file that stands under its name only when it is whole.

    ``encoding`` is what standard output has to have, whatever the locale says; files are always UTF-8. ``private`` as
    for `binary_output`.
    """
    if path is None:
        if encoding is not None and isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding=encoding)
        yield sys.stdout
        return
    with (
        binary_output(path, force=force, private=private) as raw,
        io.TextIOWrapper(raw, encoding="utf-8", newline="\n") as stream,
    ):
        yield stream


@contextmanager
def binary_output(path: str, *, force: bool = False, private: bool = False) -> Iterator[BinaryIO]:
    """Give a new file for bytes. It gets its name when all is written, so half a file is never found there.

    One that is ``private`` only its owner can read (mode 0600).
    """
    refuse_existing(path, force=force)
    refuse_missing_folder(path)
    try:
        with new_file(path, private=private) as stream:
            yield stream
    except OSError as error:
        if error.filename != unfinished(path) and error.errno not in DISK_ERRORS:
            raise
        why = (error.strerror or str(error)).lower()
        raise UsageError(f"{path}: cannot be written ({why}). Nothing was written. Try: another folder") from error
