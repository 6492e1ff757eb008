"""The command line: arguments, exit status, and the one place where errors become lines for people.

Every command is a module in `analyzer.commands` with ``add`` (its options) and ``run``; it is imported only when
it is asked for.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import difflib
import errno
import importlib
import io
import os
import re
import shlex
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Final, NoReturn, TextIO

from analyzer.cells import WIDTH
from analyzer.report.style import NARROWEST, WIDEST
from analyzer.secrecy import forget
from analyzer.wording import ASCII, printable, wrap

EXIT_DONE: Final = 0
EXIT_FINDINGS: Final = 1
EXIT_UNUSABLE: Final = 2
EXIT_INTERNAL: Final = 70
EXIT_INTERRUPTED: Final = 130
EXIT_BY_SIGNAL: Final = 128
"""With the signal's number added, what shells call the status of a process that was asked to end."""

COMMANDS: Final = {
    "analyze": "verdict, next step, drawing of the login",
    "decrypt": "every message in the clear, with keys; exports",
    "follow": "the bytes of one connection",
    "keys": "what each key file is, and which ones pair",
    "redact": "a capture that can be posted",
    "explain": "a finding (SPK206) or a row seen in Wireshark",
    "watch": "the same verdict while packets arrive",
    "install-plugin": "the same inside Wireshark",
    "simulate": "make a practice capture",
    "completion": "completion for your shell; the manual page",
}
"""Command names and their one line in the help, in the order of the help."""

TOP: Final = """\
Says why a Spark Core or Photon does not connect to its cloud, from a packet
capture. No keys needed; nothing is sent anywhere.

Start here:  sparkshark analyze CAPTURE

{commands}

How to make a capture: sparkshark explain capture   All options: COMMAND --help
Exit status: 0 done, 1 findings reached --fail-on, 2 wrong usage or unreadable
"""

LONGEST_SUBJECT: Final = 60
"""Characters of an argument that an error line repeats."""
KEY_DIGITS: Final = re.compile(
    rf"(?<![\w./\\-])(?=\d*[A-Fa-f])(?:[0-9A-Fa-f]{{80}}|[0-9A-Fa-f]{{{LONGEST_SUBJECT}}}\.\.\.|[0-9A-Fa-f]{{32}})(?![\w/\\]|\.\w)"
)
"""A word of as many digits as a session key has, whole or shortened: one whose option was left out, perhaps."""
DIGITS: Final = "(hex digits)"
DEBUG: Final = "SPARKSHARK_DEBUG"
"""Variable with which an internal error shows its traceback; that may quote what was read."""
PLAIN: Final = "sparkshark.plain"
"""Name under which the codecs know how to write our marks where only ASCII is taken."""

NO_MEMORY: Final = (
    "the memory does not suffice. Nothing more was done. Try: fewer captures at once, --jobs 1, or a higher limit, if"
    " there is one (ulimit -v)"
)
MORE_FILES: Final = "Try: ulimit -n 1024"
INSTALL: Final = (
    "If memory and open files are not limited (ulimit -v, ulimit -n), try: pip install --force-reinstall sparkshark"
)

COMPLAINTS: Final = (
    (r"the following arguments are required: (.+)", "{prog}: {0} is missing. All options: sparkshark {prog} --help"),
    (r"argument (\S+): expected (?:one|at least one) argument", "{0}: its value is missing. {help}"),
    (r"argument (\S+): ignored explicit argument .*", "{0}: takes no value. {help}"),
    (r"argument (\S+): not allowed with argument (\S+)", "{0} and {1} exclude each other. {help}"),
    (r"argument (\S+): invalid int value: '(.*)'", "{0} {1}: a whole number is wanted."),
)
"""What `argparse` says, and how it is said here."""
CHOICE: Final = re.compile(r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", re.DOTALL)


class UsageError(Exception):
    """Wrong usage, told in one line. No ValueError: `argparse` would swallow the line and write its own."""


class Asked(KeyboardInterrupt):
    """Somebody wants this process to end: by Ctrl-C, by ``kill``, by closing its terminal. ``number``: the signal."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line with the nearest right spelling."""

    def error(self, message: str) -> NoReturn:
        """Raise the message as a `UsageError`, in the form of all our error lines."""
        words = {"prog": self.prog.partition(" ")[2], "help": f"All options: {self.prog} --help"}
        if choice := CHOICE.fullmatch(message):
            name, value, listed = choice.groups()
            choices = [word.strip().strip("'") for word in listed.split(",")]
            near = difflib.get_close_matches(value, choices, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise UsageError(f"{name} {shortened(value)}: no such choice. {hint}All: {', '.join(choices)}")
        for pattern, form in COMPLAINTS:
            if found := re.fullmatch(pattern, message, re.DOTALL):
                raise UsageError(form.format(*(shortened(group) for group in found.groups()), **words))
        raise UsageError(f"{words['prog']}: {message}. {words['help']}")

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Parse, and refuse an unknown option with the nearest known one."""
        words = list(sys.argv[1:] if args is None else args)
        # A mistyped option is the likelier fault than what else is then missing, so it is looked for first.
        for word in words[: words.index("--")] if "--" in words else words:
            if word.startswith("--") and word.split("=")[0] not in self._option_string_actions:
                self._unknown(word)
        known, rest = super().parse_known_args(words, namespace)
        if rest:
            self._unknown(rest[0])
        return known, rest

    def _unknown(self, word: str) -> NoReturn:
        name = word.partition("=")[0]
        if not name.startswith("-"):
            raise UsageError(f"{shortened(name)}: one argument too many. All options: {self.prog} --help")
        options = [option for option in self._option_string_actions if option.startswith("--")]
        near = difflib.get_close_matches(name, options, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"All options: {self.prog} --help"
        raise UsageError(f"{shortened(name)}: no such option. {hint}")


def help_width() -> int:
    """Return the columns of a page of help."""
    return max(NARROWEST, min(WIDEST, screen_width(sys.stdout)))


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Pages of help as wide as reports."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=help_width() - 2)  # argparse itself leaves two free


def shortened(text: str) -> str:
    """Return an argument as an error line repeats it."""
    return text if len(text) <= LONGEST_SUBJECT else text[:LONGEST_SUBJECT] + "..."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status. Nothing but `SystemExit` for ``--help`` leaves this function."""
    words = list(sys.argv[1:] if argv is None else argv)
    _prepare_streams()
    try:
        try:
            status = _run(words)
        finally:
            sys.stdout.flush()  # here, and not when the interpreter ends: a reader that has gone is no error
    except BrokenPipeError:
        _give_up_output()  # the reader has gone (head, less): nobody is left to tell
        return EXIT_DONE
    except Asked as asked:
        return EXIT_BY_SIGNAL + asked.number
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except SystemExit:
        raise
    except BaseException as error:  # a panic of a library in Rust is no Exception
        if isinstance(error, OSError) and error.filename is None:
            _give_up_output()
        line = in_one_line(error)
        words, argv = [], None  # a session key may be among them
        return _internal(error) if line is None else _complain(line)
    return status


def _give_up_output() -> None:
    """Let what is still to be written to standard output go nowhere: the interpreter would try it again at its end,
    and complain in words of its own.
    """
    with contextlib.suppress(OSError, ValueError):  # a standard output that is no file has nothing to give up
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def in_one_line(error: BaseException) -> str | None:
    """Return what the user is told of an error that is not our own fault; None when it is."""
    if isinstance(error, UsageError) or (isinstance(error, ValueError) and _is_ours(error)):
        return str(error)
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return NO_MEMORY
    if isinstance(error, OSError):
        name = error.filename or "standard output"
        hint = f" {MORE_FILES}" if error.errno in (errno.EMFILE, errno.ENFILE) else ""
        return f"{name}: {(error.strerror or str(error)).lower()}. Nothing more was done.{hint}"
    if isinstance(error, ImportError) and not (error.name or "").startswith("analyzer"):
        why = " ".join(str(error).split())
        return f"{error.name or 'a library'}: cannot be loaded ({why}). Nothing more was done. {INSTALL}"
    return None


def _prepare_streams() -> None:
    """Make the three streams usable whatever the user's shell has made of them."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    codecs.register_error(PLAIN, _stand_in)
    for stream in (sys.stdout, sys.stderr):
        encoding = (stream.encoding or "ascii").lower().replace("-", "")
        if isinstance(stream, io.TextIOWrapper) and (not encoding.startswith("utf") or _wants_ascii()):
            stream.reconfigure(encoding="ascii", errors=PLAIN)


def screen_width(stream: TextIO) -> int:
    """Return the columns to write on a stream: COLUMNS, as other programs take it, else the terminal's, else 80."""
    told = os.environ.get("COLUMNS", "")
    if told.isascii() and told.isdigit() and 0 < len(told) <= 4 and int(told):
        return int(told)
    try:
        return (os.get_terminal_size(stream.fileno()).columns if stream.isatty() else 0) or WIDTH
    except (OSError, ValueError):
        return WIDTH


def _wants_ascii() -> bool:
    """Whether the user's locale says ASCII. Python itself takes LC_ALL=C for UTF-8."""
    if "PYTHONIOENCODING" in os.environ or os.environ.get("PYTHONUTF8") == "1":
        return False
    locale = next((os.environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(name)), "")
    return locale in ("C", "POSIX")


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """Write our marks by their ASCII stand-ins and everything else escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    bad = error.object[error.start : error.end]
    return bad.translate(ASCII).encode("ascii", "backslashreplace").decode("ascii"), error.end


def _run(words: list[str]) -> int:
    if not words:
        sys.stderr.write(top_page())
        return EXIT_UNUSABLE
    if words[0] == "help" and len(words) > 1:
        words = [words[1], "--help"]
    name = words[0]
    if name in ("-h", "--help", "help"):
        sys.stdout.write(top_page())
        return EXIT_DONE
    if name == "--version":
        from analyzer.version import version  # noqa: PLC0415 - reads the package metadata

        print(f"sparkshark {version()}")
        return EXIT_DONE
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        if near:
            hint = f"Did you mean {near[0]}?"
        elif os.path.exists(name):
            hint = f"To analyse a capture: sparkshark analyze {shlex.quote(name)}"
        else:
            hint = "All: sparkshark --help"
        raise UsageError(f"{shortened(name)}: no such command. {hint}")
    command, parser = command_of(name)
    try:
        arguments = parser.parse_args(words[1:])
    except SystemExit:  # --help has printed its page
        return EXIT_DONE
    status: int = command.run(arguments)
    return status


def command_of(name: str) -> tuple[ModuleType, Parser]:
    """Return the module of a command, and the parser with its options."""
    command = importlib.import_module(f"analyzer.commands.{name.replace('-', '_')}")
    parser = Parser(prog=f"sparkshark {name}", formatter_class=Formatter, allow_abbrev=False)
    command.add(parser)
    parser.description = "\n".join(wrap(" ".join((parser.description or "").split()), help_width()))
    return command, parser


def top_page() -> str:
    """Return what ``sparkshark --help`` prints."""
    return TOP.format(commands="\n".join(f"  {name:<15} {text}" for name, text in COMMANDS.items()))


def _is_ours(error: Exception) -> bool:
    """Whether a ValueError is one of ours, made to be read by the user."""
    return type(error).__module__.startswith("analyzer.")


def _complain(text: str) -> int:
    with contextlib.suppress(OSError):  # whoever listened has gone, or has no room: the status still tells
        print(f"sparkshark: {printable(KEY_DIGITS.sub(DIGITS, text))}", file=sys.stderr)
    return EXIT_UNUSABLE


def _internal(error: BaseException) -> int:
    if os.environ.get(DEBUG):
        forget(error)
        raise error
    from analyzer.fault import told  # noqa: PLC0415 - hardly ever
    from analyzer.version import version  # noqa: PLC0415

    system = f"sparkshark {version()}, Python {sys.version.split()[0]} on {sys.platform}"
    _complain(f"internal error: {told(error)}. {system}. Report this line. To see where it arose: {DEBUG}=1")
    return EXIT_INTERNAL
