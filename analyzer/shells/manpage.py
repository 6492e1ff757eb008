"""The manual page, ``sparkshark(1)``, in the macros of man(7) that every system formats."""

from __future__ import annotations

import re
import textwrap
from typing import Final

from analyzer.shells.model import Command, Option, Program

EDITION: Final = "2026-11-23"
"""The date in the page's foot: that of this page's last change of substance, so that it is made the same every day."""
ENVIRONMENT: Final = (
    ("COLUMNS", "Columns to write, in place of the terminal's. 80 where there is neither."),
    ("NO_COLOR", "When set and not empty: no colour."),
    ("LC_ALL, LC_CTYPE, LANG", "Where these do not say UTF-8, drawings are made of ASCII."),
    ("SPARKSHARK_DEBUG", "When set, an internal error shows its traceback, which may quote what was read."),
)
LINE: Final = 72
HELD: Final = re.compile(r"\[[^][]*\]")
"""An option and its value, which stay together."""
SEE_ALSO: Final = "tcpdump(8), tshark(1), wireshark(1)"


def manpage(program: Program) -> str:
    """Return the page."""
    lines = [
        f'.TH SPARKSHARK 1 {EDITION} "sparkshark {program.version}" "User Commands"',
        ".SH NAME",
        r"sparkshark \- why a Spark Core or Photon does not connect",
        ".SH SYNOPSIS",
        ".B sparkshark",
        r"\fICOMMAND\fR [\fIoptions\fR] \fIARGUMENT\fR ...",
        ".SH DESCRIPTION",
        _text(program.description),
        ".PP",
        "Start here:",
        *_verbatim(("sparkshark analyze CAPTURE",)),
        ".SH COMMANDS",
    ]
    for command in program.commands:
        lines += _command(command)
    lines += [".SH EXIT STATUS", _text(program.statuses), ".SH ENVIRONMENT"]
    for name, meaning in ENVIRONMENT:
        lines += [".TP", f".B {_line(name)}", _text(meaning)]
    return "\n".join([*lines, ".SH SEE ALSO", _text(SEE_ALSO)]) + "\n"


def _command(command: Command) -> list[str]:
    lines = [f".SS {_line(command.name)}", ".nf", *_synopsis(command.usage), ".fi", ".PP", _text(command.description)]
    for argument in command.arguments:
        lines += [".TP", f".I {_line(argument.name)}", _text(argument.help)]
    for option in command.options:
        lines += [".TP", _names(option), _text(option.help)]
    if command.examples:
        lines += [".PP", "Examples:", *_verbatim(command.examples)]
    return lines


def _synopsis(usage: str) -> list[str]:
    """The command with all it takes, folded below itself."""
    lines = textwrap.wrap(
        HELD.sub(lambda group: group[0].replace(" ", "\0"), usage), LINE - 8, subsequent_indent="    "
    )
    return [_line(line.replace("\0", " ")) for line in lines]


def _names(option: Option) -> str:
    names = ", ".join(rf"\fB{_line(name)}\fR" for name in option.names)
    return names + (rf" \fI{_line(option.value)}\fR" if option.value else "")


def _verbatim(examples: tuple[str, ...]) -> list[str]:
    return [".RS 4", ".nf", *map(_line, examples), ".fi", ".RE"]


def _text(text: str) -> str:
    """Return running text in lines that are not too long for the tools that look at such files."""
    return "\n".join(map(_line, textwrap.wrap(text, LINE, break_on_hyphens=False, break_long_words=False)))


def _line(text: str) -> str:
    r"""Return a line that the formatter changes nothing of: ``-`` stays as typed, a dot begins no request."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    text = re.sub(r"^([.'])", r"\\&\1", text)
    return "".join(char if char.isascii() else f"\\[u{ord(char):04X}]" for char in text)
