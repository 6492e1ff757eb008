"""What a clue is, and what several of them leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from analyzer.catalogue import GENERATIONS, SERVERS
from analyzer.findings import CONFIDENCE_ORDER, Confidence, Evidence
from analyzer.recognition.timers import Timers
from analyzer.streams import Sender
from analyzer.wording import listing

if TYPE_CHECKING:
    from analyzer.conversation import Conversation

G1A, G1B, G2A, G2B, G2C, G2D = GENERATIONS
LEGACY, COMMUNITY = SERVERS
OTHER: Final = "other"
"""A server that is neither of the two open ones, the hosted cloud among them."""
ANY_SERVER: Final = (*SERVERS, OTHER)
PHOTONS: Final = (G2A, G2B, G2C, G2D)
RELEASES: Final = {G2A: ("0.4", "0.7"), G2B: ("0.8", "1.4"), G2C: ("1.5", "2"), G2D: ("3", "")}
"""The first and the last release of each of the Photon's generations; the last one goes on (PROTOCOL 1.2)."""
SERVER_NAMES: Final = {
    LEGACY: "legacy spark-server",
    COMMUNITY: "community spark-server (Brewskey)",
    OTHER: "another server",
}
FIRMWARE_OF: Final = "{product} with firmware {releases}"
MOST_STEPS: Final = 2
EXAMPLES: Final = 2
"""Observations of one kind that are told: two of them weigh more than one."""


@dataclass(frozen=True, slots=True)
class Clue:
    """One observation: ``fits`` are those that can have done it, ``name`` what says more than that, if anything does.

    Of one ``kind`` two weigh more than one; a hint counts for nothing until it is repeated.
    """

    kind: str
    fits: frozenset[str]
    confidence: Confidence
    text: str
    packets: tuple[int, ...]
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Recognised:
    """What is left of all candidates, oldest first. ``name`` is None when that is more than one, unless a word fits
    them all. ``confidence`` is that of the weakest clue that was needed.
    """

    name: str | None
    candidates: tuple[str, ...]
    confidence: Confidence
    evidence: tuple[Evidence, ...]

    @property
    def only(self) -> str | None:
        """The one candidate, or None."""
        return self.candidates[0] if len(self.candidates) == 1 else None


@dataclass(slots=True)
class Recognition:
    """What was recognised on one connection, and the timers that follow from it."""

    firmware: Recognised | None = None
    server: Recognised | None = None
    timers: Timers = field(default_factory=Timers)


def fits(*names: str) -> frozenset[str]:
    """Return the candidates of these names."""
    return frozenset(names)


def all_but(*names: str) -> frozenset[str]:
    """Return all generations but these."""
    return frozenset(GENERATIONS) - set(names)


def holes_of(c: Conversation, *, server: bool = True) -> bool:
    """Whether anything that the device said, or the ``server``, may be missing from the capture or out of order."""
    if c.midway or c.hole_count > len(c.holes):
        return True
    for sender, side in c.sides.items():
        if sender is Sender.DEVICE or server:
            if not side.quality.packets or side.lost or side.skipped or side.midway:
                return True
            if any(hole.sender is sender for hole in c.holes):
                return True
    return False


class Clues:
    """Clues as they come, of which those are kept that can matter: of equal ones the first few, and the last."""

    __slots__ = ("_alike", "_count", "_kept")

    def __init__(self, clues: Iterable[Clue] = ()) -> None:
        self._count = 0
        self._alike: Counter[tuple[str, frozenset[str]]] = Counter()
        self._kept: dict[tuple[object, ...], list[tuple[int, int, Clue]]] = {}
        for clue in clues:
            self.add(clue)

    def add(self, clue: Clue, place: int = 0) -> None:
        """Take a clue. Of those with one ``place`` the one that comes first is the first."""
        alike = clue.kind, clue.fits
        self._alike[alike] += 1
        kept = self._kept.setdefault((*alike, clue.confidence, clue.name), [])
        self._count += 1
        kept.append((place, self._count, clue))
        if len(kept) > 1 and place < kept[-2][0]:
            kept.sort(key=_order)
        # Two of them are told. The last one may contradict what came after these.
        del kept[EXAMPLES:-1]

    def without(self, kind: str, candidate: str) -> Clues:
        """Return the same but those of one kind that fit a candidate."""
        left = Clues()
        left._kept = {
            key: kept for key, kept in self._kept.items() if key[0] != kind or candidate not in kept[0][2].fits
        }
        left._alike = self._alike
        return left

    def strengthened(self) -> list[Clue]:
        """Return the clues, surest first: each is surer by a step when it comes twice in the same way, by two when
        three times. A hint that stays alone is none.
        """
        known = []
        for _, _, clue in sorted((one for kept in self._kept.values() for one in kept), key=_order):
            sure = _surer(clue.confidence, min(MOST_STEPS, self._alike[clue.kind, clue.fits] - 1))
            if sure is not Confidence.HINT:
                known.append(clue if sure is clue.confidence else replace(clue, confidence=sure))
        return sorted(known, key=lambda clue: CONFIDENCE_ORDER.index(clue.confidence))


def _order(one: tuple[int, int, Clue]) -> tuple[int, int]:
    return one[:2]


def settle(clues: Clues | Iterable[Clue], names: Sequence[str]) -> Recognised | None:
    """Return what the clues leave of all ``names``; None when that is all of them, or when they contradict."""
    known = (clues if isinstance(clues, Clues) else Clues(clues)).strengthened()
    left, needed = frozenset(names), list[Clue]()
    for clue in known:
        both = left & clue.fits
        if both and both != left:
            left = both
            needed.append(clue)
        elif not both and clue.confidence is needed[-1].confidence:
            return None  # of two that contradict, the surer has the word
    if not needed:
        return None
    candidates = tuple(name for name in names if name in left)
    words = next((clue.name for clue in known if clue.name is not None and clue.fits == left), None)
    if words is None and len(candidates) == 1:
        words = described(candidates)
    evidence = tuple(
        Evidence(clue.text, clue.packets)
        for one in needed
        for clue in islice((c for c in known if (c.kind, c.fits) == (one.kind, one.fits)), EXAMPLES)
    )
    return Recognised(words, candidates, needed[-1].confidence, evidence)


def _surer(confidence: Confidence, steps: int) -> Confidence:
    """What repeats is very likely at most: the same cause may be behind it each time."""
    if confidence in (Confidence.CERTAIN, Confidence.STRONG):
        return confidence
    place = CONFIDENCE_ORDER.index(confidence) - steps
    return CONFIDENCE_ORDER[max(place, CONFIDENCE_ORDER.index(Confidence.STRONG))]


def described(candidates: Sequence[str]) -> str:
    """Return the candidates in words, generations of one product as one range."""
    if any(name in SERVER_NAMES for name in candidates):
        return listing([SERVER_NAMES[name] for name in candidates], last="or")
    words = []
    if cores := [name for name in candidates if name in (G1A, G1B)]:
        releases = "" if len(cores) > 1 else "up to 0.3" if cores == [G1A] else "0.4 to 1.4"
        words.append(FIRMWARE_OF.format(product="Spark Core", releases=releases) if releases else "Spark Core")
    photons = [name for name in candidates if name in PHOTONS]
    if photons == list(PHOTONS):
        words.append("Photon or P1")
    elif photons:
        first, last = RELEASES[photons[0]][0], RELEASES[photons[-1]][1]
        words.append(
            FIRMWARE_OF.format(product="Photon or P1", releases=f"{first} to {last}" if last else f"{first} or later")
        )
    return ", or ".join(words)
