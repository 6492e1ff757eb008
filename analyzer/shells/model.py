"""What can be typed: commands, their options and arguments, and what each of these takes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Kind(Enum):
    """What a shell offers for a value."""

    NOTHING = "nothing"
    WORDS = "words"
    CAPTURE = "capture"
    FILE = "file"
    FOLDER = "folder"
    CODE = "code"
    SCENARIO = "scenario"
    INTERFACE = "interface"


CAPTURES: Final = ("pcap", "pcapng", "cap")
PACKED: Final = ("gz", "zst", "xz", "lz4")
"""How the names of captures end, and those of compressed ones behind that."""
KINDS: Final = {
    "CAPTURE": Kind.CAPTURE,
    "IN": Kind.CAPTURE,
    "OUT": Kind.CAPTURE,
    "FILE": Kind.FILE,
    "FILE.pcapng": Kind.FILE,
    "PATH": Kind.FILE,
    "DIR": Kind.FOLDER,
    "CODE": Kind.CODE,
    "SCENARIO": Kind.SCENARIO,
    "IFACE": Kind.INTERFACE,
}
"""What stands for a value in the help, and what that is. Whatever is not listed cannot be completed: numbers, hosts."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option. ``value`` is its name in the help, "" of one without; ``words`` are its choices."""

    names: tuple[str, ...]
    help: str
    value: str = ""
    kind: Kind = Kind.NOTHING
    words: tuple[str, ...] = ()
    again: bool = False  # may be given more than once


@dataclass(frozen=True, slots=True)
class Argument:
    """A positional argument; the last one of a command may stand for many. ``words`` are possible besides."""

    name: str
    help: str
    kind: Kind
    words: tuple[str, ...] = ()
    many: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its line in the help, its page's text and examples, and what it takes."""

    name: str
    summary: str
    description: str
    usage: str
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """All of it. ``codes`` and ``scenarios`` are words with what they mean."""

    version: str
    description: str
    commands: tuple[Command, ...]
    codes: tuple[tuple[str, str], ...]
    scenarios: tuple[tuple[str, str], ...]
    statuses: str
