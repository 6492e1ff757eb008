"""SPK210: bytes of a login that are random each time, and come a second time on another connection.

One connection may be in a capture twice: seen at two places, on both sides of a router that translates addresses, with
clocks that differ. Its sequence numbers are the same then, or the two run side by side, login parts and all.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from analyzer.findings import Confidence, Evidence, Finding, Severity
from analyzer.handshake import Part
from analyzer.rules.facts import AllFacts, Facts
from analyzer.streams import Sender
from analyzer.wording import duration, listing, number

WHAT: Final = {"nonce": "the greeting", "identity": '"who I am"', "session": "the reply"}
BECAUSE_REPEATED: Final = "that these bytes come twice: played back, made by an imitation, or not random."


class Repeats:
    """Compares the parts of each login with all those before it.

    What is kept of each is a hash and a place, so both time and memory are linear.
    """

    def __init__(self, every: AllFacts) -> None:
        self._every = every
        self._hashes, self._places = array("q"), array("L")

    def take(self, place: int, facts: Facts) -> None:
        """Look at the next connection, the one with this place among all."""
        for part in _parts(facts) if facts.is_spark else ():
            self._hashes.append(hash(part.data))
            self._places.append(place)

    def found(self) -> Iterator[Finding]:
        """Yield what was told by connections whose parts came a second time."""
        twice = {one for one, other in pairwise(sorted(self._hashes)) if one == other}
        first: dict[bytes | None, int] = {}
        places = (place for one, place in zip(self._hashes, self._places, strict=True) if one in twice)
        for place in dict.fromkeys(places):
            facts, again = self._every[place], []
            for part in _parts(facts):
                earlier = self._every[first.setdefault(part.data, place)]
                if earlier.conversation is not facts.conversation and _are_two(earlier, facts):
                    again.append((part, earlier))
            if again:
                yield _told(facts, again)


def _parts(facts: Facts) -> Iterator[Part]:
    """The parts of a login of which all bytes are there."""
    return (p for p in (facts.nonce, facts.identity, facts.session) if p is not None and p.data is not None)


def _are_two(earlier: Facts, later: Facts) -> bool:
    """Whether these are two connections for certain, not one that the capture holds twice."""
    one, other = earlier.conversation, later.conversation
    numbers, others = one.initial_numbers, other.initial_numbers
    known = [sender for sender in Sender if sender in numbers and sender in others]
    if not known or any(numbers[sender] == others[sender] for sender in known):
        return False
    apart = other.start_ns > one.end_ns
    different = earlier.identity is not None and later.identity is not None
    return apart or (different and _data(earlier.identity) != _data(later.identity))


def _data(part: Part | None) -> bytes | None:
    return part.data if part is not None else None


def _told(facts: Facts, again: list[tuple[Part, Facts]]) -> Finding:
    what = listing([WHAT[part.kind] for part, _ in again])
    evidence = []
    for part, earlier in again:
        parts = (earlier.nonce, earlier.identity, earlier.session)
        there = next(p for p in parts if p is not None and p.data == part.data)
        before = duration(max(0, part.time_ns - there.time_ns))
        evidence.append(
            Evidence(
                f"Packet {number(part.packet)}, {WHAT[part.kind]}, is byte for byte packet {number(there.packet)} of"
                f" {earlier.conversation.device.ip}, {before} before; by their TCP sequence numbers these are two"
                " connections.",
                (there.packet, part.packet),
            )
        )
    return facts.finding(
        "SPK210",
        Confidence.CERTAIN,
        *evidence,
        because=BECAUSE_REPEATED,
        severity=Severity.MAJOR if facts.came_up is False else None,
        what=f"{what[0].upper()}{what[1:]}",
    )
