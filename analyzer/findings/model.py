"""What a row of the table consists of: severity, confidence, group, and the words that a person reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from analyzer.streams import Sender


class Severity(StrEnum):
    """How bad it is for the device's connection."""

    CRITICAL = "critical"  # cannot connect
    MAJOR = "major"  # drops, or loses data
    MINOR = "minor"
    INFO = "info"
    OK = "ok"


class Confidence(StrEnum):
    """How sure the statement is."""

    CERTAIN = "certain"
    STRONG = "strong"
    LIKELY = "likely"
    HINT = "hint"


BAD: Final = (Severity.CRITICAL, Severity.MAJOR)
"""What harms the connection; the rest are remarks."""
SEVERITY_ORDER: Final = tuple(Severity)
CONFIDENCE_ORDER: Final = tuple(Confidence)
CONFIDENCE_WORDS: Final = {
    Confidence.CERTAIN: "Certain",
    Confidence.STRONG: "Very likely",
    Confidence.LIKELY: "Likely",
    Confidence.HINT: "Only a hint",
}


def weaker(one: Confidence, other: Confidence) -> Confidence:
    """Return the less sure of two confidences."""
    return max(one, other, key=CONFIDENCE_ORDER.index)


class Group(StrEnum):
    """What a finding is about."""

    HEALTHY = "healthy"
    CONNECTIVITY = "connectivity"
    HANDSHAKE = "handshake"
    KEYS = "keys"
    MISPARSE = "misparse"
    SESSION = "session"
    UPDATE = "update"
    CAPTURE = "capture"
    NOT_SPARK = "not Spark"


STATE_OF_GROUP: Final = {
    Group.HEALTHY: "WORKING",
    Group.CONNECTIVITY: "NOT CONNECTING",
    Group.HANDSHAKE: "NOT CONNECTING",
    Group.KEYS: "NOT CONNECTING",
    Group.SESSION: "KEEPS DROPPING",
    Group.UPDATE: "UPDATE FAILS",
}
"""The word in capitals that a report begins with when a critical or major finding of this group leads."""


class Act(StrEnum):
    """What a step of a ladder is: one packet that matters, or a stretch of time."""

    CONNECT = "connect"  # asks to connect
    CONNECTED = "connected"  # was answered
    LOGGED_IN = "logged in"  # all of the login in one row
    MESSAGES = "messages"  # both ways
    BYTES = "bytes"
    SILENCE = "silence"
    CLOSE = "close"
    RESET = "reset"
    LOOKUP = "name lookup"
    ANNOUNCE = "announcement"  # to everyone in the device's own network
    SEALED = "encrypted Wi-Fi"  # frames of which not even the addresses of the connection can be read
    HOLE = "not captured"


@dataclass(frozen=True, slots=True)
class LadderStep:
    """One row of the drawing that shows what a finding looks like on the wire.

    ``sender`` None: both ends, and of a silence: neither end speaks. ``sizes`` in bytes on the wire, one of which it
    is; none given: any. ``wait`` is what passes since the row above, at least and at most, in seconds.
    """

    act: Act
    sender: Sender | None = None
    note: str = ""
    sizes: Sequence[int] = ()
    wait: tuple[float, float] | None = None
    sometimes: bool = False  # not on every connection of this kind
    label: str = ""  # in place of the sizes


class Key(StrEnum):
    """A key that can be given to the analysis, by what is in the file."""

    DEVICE_PRIVATE = "device private"
    DEVICE_PUBLIC = "device public"
    SERVER_PRIVATE = "server private"
    SERVER_PUBLIC = "server public"
    SESSION = "session key"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Commands for one purpose: for each board and each generation of the command line where these differ.

    A command can be pasted as it stands; what tells it from the others is a shell's comment behind it.
    """

    goal: str
    commands: tuple[str, ...] = ()


FOR_EXPLAIN: Final = {"plugin": False}
"""Marks what only the page of a finding shows: the Wireshark plugin has no use for it."""


@dataclass(frozen=True, slots=True)
class FindingSpec:
    """One diagnosis. Texts are plain English of the vocabulary in which device and server are the two ends."""

    code: str
    name: str
    severity: Severity
    group: Group
    title: str  # headline of `explain`
    short: str  # what the report calls it when it is ruled out
    says: str  # the sentence for the owner
    of: str  # the same as a predicate, for "192.168.1.104 ..." where several devices are told of
    means: str
    looks: str
    led: str = ""  # "": it tells nothing of this
    fix: tuple[str, ...] = ()  # numbered steps; one that begins with two blanks is a command, one with "· " an aside
    causes: tuple[str, ...] = ()
    settle: str = ""
    not_it: tuple[tuple[str, str], ...] = ()  # look-alikes: code, and how it differs
    engineer: str = ""
    specific: int = 0  # among equals, the more specific finding is shown first
    source: str = ""
    ladder: tuple[LadderStep, ...] = field(default=(), metadata=FOR_EXPLAIN)  # (): nothing of it is on the wire
    keys: tuple[tuple[Key, str], ...] = field(default=(), metadata=FOR_EXPLAIN)  # what each would prove; (): none helps
    no_fix: str = field(default="", metadata=FOR_EXPLAIN)  # why there is nothing to do, where ``fix`` is empty
    recipes: tuple[Recipe, ...] = field(default=(), metadata=FOR_EXPLAIN)
    seen_in: tuple[str, ...] = field(default=(), metadata=FOR_EXPLAIN)  # threads and issues where it was met
