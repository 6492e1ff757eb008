"""The bounds that change what a user is told, and what is said when one was reached.

Each is a constant where it is used, with its reason below it; here stands only which of them matter to people, and the
sentence. Value and reason are read from there.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from inspect import getsource
from itertools import pairwise
from typing import Final, NamedTuple

from analyzer.capture.ledger import LATEST_YEAR


class Limit(NamedTuple):
    """A bound: ``constant`` by module and name, ``code`` the finding that may be missing where it was reached, ``says``
    what is said then of ``count`` things.
    """

    name: str
    constant: str
    code: str
    says: str
    also: str = ""
    """What else is said where: by a warning, or by a finding of its own."""

    @property
    def value(self) -> int:
        """The constant's value."""
        module, _, name = self.constant.rpartition(".")
        value: int = getattr(import_module(f"analyzer.{module}"), name)
        return value

    @property
    def reason(self) -> str:
        """What the constant's own text says, in one line; "" where Python has come without the sources."""
        module, _, name = self.constant.rpartition(".")
        return _reasons(module).get(name, "")

    def sentence(self, count: int) -> str:
        """Return what is said when it was reached."""
        return self.says.format(count=f"{count:,}", most=f"{self.value:,}")


@cache
def _reasons(module: str) -> dict[str, str]:
    """Return the texts below the constants of a module."""
    try:
        body = ast.parse(getsource(import_module(f"analyzer.{module}"))).body
    except OSError:
        return {}
    found = {}
    for constant, text in pairwise(body):
        if (
            isinstance(constant, ast.AnnAssign)
            and isinstance(constant.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        ):
            found[constant.target.id] = " ".join(text.value.value.split())
    return found


COUNTED: Final = (
    Limit(
        "lookups",
        "background.LOOKUPS",
        "SPK105",
        "Further name lookups: {count} packets are of others than the first {most} askers and names.",
    ),
    Limit(
        "lookup packets",
        "background.LOOKUP_PACKETS",
        "SPK105",
        "Further name lookups: {count} packets behind the first {most} were counted, not looked at.",
    ),
    Limit(
        "announcers",
        "background.ANNOUNCERS",
        "SPK502",
        "Further announcements: {count} came from other addresses than the first {most}; their IDs are not known.",
    ),
    Limit(
        "announcements",
        "background.ANNOUNCEMENTS",
        "SPK502",
        "Further announcements: {count} came behind the first {most} of their address.",
    ),
    Limit(
        "questions",
        "background.QUESTIONS",
        "SPK106",
        "Further ARP questions: {count} packets are of others than the first {most} pairs of addresses.",
    ),
    Limit(
        "complaints",
        "background.COMPLAINTS",
        "SPK106",
        "Further ICMP errors: {count} came behind the first {most}.",
    ),
    Limit(
        "machines",
        "background.MACHINES",
        "SPK102",
        "What else machines were answered: {count} packets are of others than the first {most} machines.",
    ),
    Limit(
        "flows",
        "background.FLOWS",
        "SPK706",
        "Connections on other ports: {count} packets are of others than the first {most} that were undecided.",
    ),
    Limit(
        "fragments",
        "network.fragments.MAX_WAITING",
        "SPK703",
        "IP datagrams in pieces: {count} were given up incomplete because more than {most}, or too many bytes, waited.",
    ),
    Limit(
        "layers",
        "network.frame.MAX_LAYERS",
        "SPK706",
        "Packets inside packets: in {count} there are more than {most} layers, and the innermost were not read.",
    ),
    Limit(
        "interfaces",
        "capture.pcapng.MOST_INTERFACES",
        "SPK704",
        "Which interface: {count} came behind the first {most}, so packets captured twice may count twice.",
    ),
    Limit(
        "clock",
        "capture.ledger.LATEST_NS",
        "SPK703",
        f"Times: some lie behind the year {LATEST_YEAR} and were set to the latest that can be told, so waits around"
        " them are not known.",
    ),
    Limit(
        "session keys",
        "session.frames.MOST_CANDIDATES",
        "SPK301",
        "Further session keys: only the first {most} that may be meant were tried on each of {count} conversations.",
    ),
    Limit(
        "key tries",
        "session.opening.MOST_TRIES",
        "SPK301",
        "Further keys: on {count} replies not all were tried, after {most} tries in vain. Name the right one alone.",
    ),
)
"""Reported as a check that could not be made, with how often."""

TOLD: Final = (
    Limit("damage", "capture.ledger.MOST_DAMAGE", "SPK703", "", "a warning, and a place in the list that says so"),
    Limit("block", "capture.blocks.LARGEST_BLOCK", "SPK703", "", "a damaged place, with the length that was declared"),
    Limit(
        "packet", "capture.ledger.LARGEST_PACKET", "SPK703", "", "a damaged place, with the length that was declared"
    ),
    Limit("unpacked", "capture.source.MOST_TIMES", "SPK703", "", "a damaged place, from which on nothing is read"),
    Limit("waiting bytes", "streams.PENDING_BYTES", "SPK703", "", "a hole, as if what is missing had never come"),
    Limit("holes", "conversation.HOLES", "SPK703", "", "how many further ones there are"),
    Limit("description", "messages.describe.DEEPEST_DESCRIPTION", "", "", "the message's problem: nested too deep"),
    Limit("image", "export.transfer.LARGEST_IMAGE", "", "", "the image's notes: incomplete, and why"),
    Limit("updates", "export.firmware.MOST_UPDATES", "", "", "a line with how many more there are"),
    Limit("key file", "keys.ring.LARGEST_KEY_FILE", "", "", "a warning: too large for a key file"),
    Limit("key files", "keys.ring.MOST_FILES", "", "", "a warning: the rest was not looked at"),
    Limit("key log", "keys.keylog.LARGEST_KEY_LOG", "", "", "a warning: the rest was not read"),
    Limit("device table", "keys.devicetable.MOST_ROWS", "", "", "a warning: the rest was not looked at"),
    Limit("searched rows", "commands.explain.MOST_SEGMENTS", "", "", "a line that says where the search ended"),
    Limit("watched", "live.watcher.KEPT", "", "", "the report: the oldest connections are not in it"),
)
"""Reported in another way."""

BY_NAME: Final[Mapping[str, Limit]] = {limit.name: limit for limit in (*COUNTED, *TOLD)}
