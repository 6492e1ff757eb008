"""SPK106: the device calls another server than the user named, or than a dump of its key slot has stored.

That it does is a fact: the address is in the packets. Whether it is why a login fails is another question, and stays
one. Names are followed as far as answers in the capture lead, never on the network.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from analyzer.expected import ExpectedServer, plain
from analyzer.findings import Confidence, Evidence, Finding, NotChecked, Severity
from analyzer.network.units import address_text
from analyzer.rules.connectivity import failed
from analyzer.rules.facts import Facts
from analyzer.wording import endpoint, listing, number, packets, plural, printable

LISTED: Final = 3
"""Servers, addresses or files that are named; more are counted."""

OTHER_SERVER: Final = "another server"

SAYS_CALLS_OTHER: Final = "The device calls {called}; the server expected is {expected}."
SAYS_STORED_OTHER: Final = "The device calls {called}; {file} has {expected} stored."
CALLS_OTHER: Final = "calls {called}, not {expected}"
BECAUSE_CALLS_OTHER: Final = "that it calls another server."
BECAUSE_CALLS_OTHER_AND_FAILS: Final = (
    "that it calls another server; whether this is why it does not log in, this alone does not say."
)
BECAUSE_IF_READ_NOW: Final = "that they differ: {file} was not read from this device, or not since it was last written."
NO_ANSWER_FOR: Final = (
    "Whether {called} is {names}: the capture has no answer to a lookup of that name, and none is made now. An address"
    " would do: --expect-server ADDRESS"
)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one server is, as far as it is known. ``packet`` is the DNS answer that says so."""

    server: ExpectedServer
    addresses: frozenset[bytes]
    packet: int | None = None

    def is_called(self, address: bytes, port: int) -> bool:
        return address in self.addresses and self.server.port in (None, port)

    def __str__(self) -> str:
        if self.packet is None:
            return str(self.server)
        listed = sorted(map(address_text, self.addresses))
        more = f" and {number(len(listed) - LISTED)} more" if len(listed) > LISTED else ""
        return f"{self.server} ({listing(listed[:LISTED], 'or')}{more})"


def elsewhere(facts: Facts) -> Iterator[Finding | NotChecked]:
    """Say where the device calls, if that is not where it should."""
    expected = facts.trace.expected
    if not _dials(facts):
        return
    if expected:
        yield from _other_than_expected(facts, expected)
    elif facts.trace.stored:
        yield from _other_than_stored(facts)


def _dials(facts: Facts) -> bool:
    """Whether this is a device's connection, as far as can be told: some other program says the first word."""
    first, answer = facts.device.first_data, facts.server.first_data
    return facts.is_spark or first is None or (answer is not None and answer.packet < first.packet)


def _other_than_expected(facts: Facts, expected: tuple[ExpectedServer, ...]) -> Iterator[Finding | NotChecked]:
    places = [_place(facts, server) for server in expected]
    if any(place.is_called(*_called(facts)) for place in places):
        return
    unknown = [str(place.server.name) for place in places if not place.addresses]
    if unknown:  # any of these may be what the device calls
        names = _some(unknown)
        yield facts.not_checked("SPK106", NO_ANSWER_FOR.format(called=_told(facts, places), names=names))
        return
    by_name = [place.packet for place in places if place.packet is not None]
    told, wanted = _told(facts, places), _some(map(str, places))
    finding = _finding(
        facts,
        # A name may have more addresses than those that were asked for in this capture.
        Confidence.STRONG if by_name else Confidence.CERTAIN,
        Evidence(
            f"{_sent(facts).capitalize()} {told}; expected is {wanted}"
            + (f", by {packets(by_name[:LISTED])}." if by_name else "."),
            (facts.conversation.first_packet, *by_name[:LISTED]),
        ),
        SAYS_CALLS_OTHER.format(called=told, expected=wanted),
    )
    finding.because = BECAUSE_CALLS_OTHER if finding.severity is Severity.MINOR else BECAUSE_CALLS_OTHER_AND_FAILS
    finding.predicate = CALLS_OTHER.format(called=told, expected=wanted)
    yield finding


def _other_than_stored(facts: Facts) -> Iterator[Finding]:
    """The dump of a server-key slot has an address behind the key: the device that it was read from calls that one."""
    stored = facts.trace.stored
    places = [_place(facts, server) for _, server in stored]
    if any(not place.addresses or place.is_called(*_called(facts)) for place in places):
        return
    files = _some(dict.fromkeys(printable(os.path.basename(name)) for name, _ in stored))
    told, wanted = _told(facts, places), _some(dict.fromkeys(map(str, places)))
    finding = _finding(
        facts,
        Confidence.CERTAIN,
        Evidence(
            f"{files} has {wanted} stored behind the server key; {_sent(facts)} {told}.",
            (facts.conversation.first_packet,),
        ),
        SAYS_STORED_OTHER.format(called=told, file=files, expected=wanted),
    )
    finding.because = BECAUSE_IF_READ_NOW.format(file=files)
    finding.predicate = CALLS_OTHER.format(called=told, expected=wanted)
    yield finding


def _finding(facts: Facts, confidence: Confidence, seen: Evidence, summary: str) -> Finding:
    return facts.finding(
        "SPK106",
        confidence,
        seen,
        summary=summary,
        severity=Severity.MAJOR if failed(facts) else Severity.MINOR,
        why=OTHER_SERVER,
    )


def _place(facts: Facts, server: ExpectedServer) -> _Place:
    """Follow a name to the addresses that any machine was told for it in this capture."""
    if server.address is not None:
        return _Place(server, frozenset((server.address,)))
    found: set[bytes] = set()
    packet = None
    for lookup in facts.trace.background.lookups.values():
        if lookup.name == server.name and lookup.places:
            first = next(told.packet for told in lookup.packets if told.found)
            packet = first if packet is None else min(packet, first)
            found.update(address for one in lookup.places if (address := ExpectedServer.of(one, None, one).address))
    return _Place(server, frozenset(found), packet)


def _called(facts: Facts) -> tuple[bytes, int]:
    server = facts.conversation.server
    return plain(server.address), server.port


def _sent(facts: Facts) -> str:
    c = facts.conversation
    return f"{packets([c.first_packet])} {'goes to' if c.syns else 'is of a connection with'}"


def _told(facts: Facts, places: Iterable[_Place]) -> str:
    """The server that the device calls; with its port where a port was expected too."""
    server = facts.conversation.server
    ports = any(place.server.port is not None for place in places)
    return endpoint(server.ip, server.port) if ports else server.ip


def _some(texts: Iterable[str]) -> str:
    every = list(texts)
    if len(every) <= LISTED:
        return listing(every, "or")
    return f"{', '.join(every[:LISTED])} or one of {plural(len(every) - LISTED, 'other')}"
