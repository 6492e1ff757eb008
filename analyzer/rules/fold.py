"""Many identical endings are one finding with a count: 300 failed attempts are one story, not 300.

They are joined as they come. Of each finding that is not the clearest of its group so little is kept that a hundred
thousand of them do no harm.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Final

from analyzer.findings import Evidence, Finding, NotChecked
from analyzer.wording import number, plural

PACKETS: Final = 64
"""Packet numbers kept per folded finding: those of the first and the last attempts."""
EVIDENCE: Final = 6
"""Places of other attempts, and reasons for one code, that are listed."""
_MANY: Final = 1024
"""Packet numbers gathered before those are let go that cannot be among the first or the last."""
_UNKNOWN: Final = -1

_Group = tuple[str, str, int | str | None]


class Folding:
    """Joins findings of one code, severity and device into one each, in order of appearance.

    ``owners`` tells whose each conversation is; one of which it does not tell is of its address. ``each`` is given a
    copy of every finding.
    """

    def __init__(self, owners: Mapping[int, int], each: list[Finding] | None = None) -> None:
        self._owners, self._each = owners, each
        self._groups: dict[_Group, _Joined] = {}
        self._known: set[tuple[str, str | None]] = set()

    def add(self, findings: Iterable[Finding]) -> None:
        """Take the next findings. They must not change any more."""
        for finding in findings:
            if self._each is not None:
                self._each.append(replace(finding))
            self._known.add((finding.code, finding.device))
            owner = self._owners.get(finding.conversations[0]) if finding.conversations else None
            group = finding.code, finding.severity, finding.device if owner is None else owner
            if (joined := self._groups.get(group)) is not None:
                joined.add(finding)
            else:
                self._groups[group] = _Joined(finding)

    def knows(self, finding: Finding) -> bool:
        """Whether something of this code was said of this device."""
        return (finding.code, finding.device) in self._known

    def folded(self) -> list[Finding]:
        """Return one finding of each group."""
        return [joined.whole() for joined in self._groups.values()]


class _Joined:
    """Findings of one group: the clearest, and of all of them what the whole tells. Most groups have only one."""

    __slots__ = ("best", "conversations", "packets", "places", "starts", "texts", "thinned")

    def __init__(self, first: Finding) -> None:
        self.best = first
        self.starts: array[int] | None = None  # None while there is only the first

    def add(self, finding: Finding) -> None:
        if self.starts is None:
            self._begin()
            self._note(self.best)
        self._note(finding)
        # The clearest attempt speaks for all of them; they are ordered, so the first of equals wins.
        if finding.rank < self.best.rank:
            self.best = finding

    def _begin(self) -> None:
        self.starts, self.conversations = array("q"), array("Q")
        self.packets: set[int] = set()
        self.thinned = False
        # Of each finding the hash of its evidence, and the packet of the first (`_UNKNOWN` without one).
        self.texts, self.places = array("q"), array("q")

    def _note(self, f: Finding) -> None:
        assert self.starts is not None  # noqa: S101 - the caller has begun
        if f.first_ns is not None:
            self.starts.append(f.first_ns)
        self.conversations.extend(f.conversations)
        self.packets.update(f.packets)
        if len(self.packets) > _MANY:
            self.packets, self.thinned = set(_ends(sorted(self.packets))), True
        self.texts.append(_hash(f))
        self.places.append(f.evidence[0].packets[0] if f.evidence and f.evidence[0].packets else _UNKNOWN)

    def whole(self) -> Finding:
        best = self.best
        if self.starts is None:
            return best
        starts = sorted(self.starts)
        gaps = sorted(later - earlier for earlier, later in pairwise(starts))
        best.count = len(self.texts)
        best.conversations = tuple(sorted(set(self.conversations)))
        numbers = sorted(self.packets)
        best.packets = tuple(_ends(numbers) if self.thinned or len(numbers) > PACKETS else numbers)
        best.first_ns, best.last_ns = (starts[0], starts[-1]) if starts else (None, None)
        best.cadence_s = gaps[len(gaps) // 2] / 1e9 if gaps else None
        own = _hash(best)
        also = [place for text, place in zip(self.texts, self.places, strict=True) if text != own]
        places = [place for place in also if place != _UNKNOWN]
        if places:
            listed = ", ".join(number(n) for n in places[:EVIDENCE])
            more = f" and {number(len(places) - EVIDENCE)} more" if len(places) > EVIDENCE else ""
            best.evidence = (
                *best.evidence,
                Evidence(
                    f"The same in {plural(len(also), 'other attempt')} ({'packet' if len(places) == 1 else 'packets'}"
                    f" {listed}{more}).",
                    tuple(places[:EVIDENCE]),
                ),
            )
        return best


def _ends(numbers: list[int]) -> list[int]:
    """The first and the last of sorted numbers."""
    return numbers[: PACKETS // 2] + numbers[-PACKETS // 2 :]


def _hash(f: Finding) -> int:
    return hash(tuple(item.text for item in f.evidence))


class UncheckedFolding:
    """Joins equal reasons; where a code has several reasons, each distinct text stays (a few per code)."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], set[int]] = {}
        self._counts: dict[str, int] = {}

    def add(self, items: Iterable[NotChecked]) -> None:
        """Take the next checks that could not be made."""
        for item in items:
            known = self._seen.get((item.code, item.because))
            if known is None:
                count = self._counts[item.code] = self._counts.get(item.code, 0) + 1
                if count > EVIDENCE:
                    continue
                known = self._seen[item.code, item.because] = set()
            known.update(item.conversations)

    def folded(self) -> list[NotChecked]:
        """Return one for each reason."""
        return [
            NotChecked(code, because, tuple(sorted(conversations)))
            for (code, because), conversations in self._seen.items()
        ]
