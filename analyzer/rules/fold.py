"""Many identical endings are one finding with a count: 300 failed attempts are one story, not 300."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Final

from analyzer.findings import Evidence, Finding, NotChecked
from analyzer.wording import number, plural

PACKETS: Final = 64
"""Packet numbers kept per folded finding: those of the first and the last attempts."""
EVIDENCE: Final = 6
"""Places of other attempts, and reasons for one code, that are listed."""


def fold(findings: Iterable[Finding], owners: Mapping[int, int] | None = None) -> list[Finding]:
    """Join findings of one code, severity and device into one each, in order of appearance.

    ``owners`` tells whose each conversation is; without it a device is an address.
    """
    groups: dict[tuple[str, str, int | str | None], list[Finding]] = {}
    for finding in findings:
        owner = owners.get(finding.conversations[0]) if owners and finding.conversations else None
        groups.setdefault((finding.code, finding.severity, finding.device if owner is None else owner), []).append(
            finding
        )
    return [_join(group) for group in groups.values()]


def _join(group: list[Finding]) -> Finding:
    # The clearest attempt speaks for all of them; they are ordered, so the first of equals wins.
    best = min(group, key=lambda finding: finding.rank)
    if len(group) == 1:
        return best
    starts = sorted(f.first_ns for f in group if f.first_ns is not None)
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    best.count = len(group)
    best.conversations = tuple(sorted({n for f in group for n in f.conversations}))
    numbers = sorted({n for f in group for n in f.packets})
    best.packets = tuple(numbers if len(numbers) <= PACKETS else numbers[: PACKETS // 2] + numbers[-PACKETS // 2 :])
    best.first_ns, best.last_ns = (starts[0], starts[-1]) if starts else (None, None)
    best.cadence_s = sorted(gaps)[len(gaps) // 2] / 1e9 if gaps else None
    texts = [item.text for item in best.evidence]
    also = [f for f in group if f is not best and [item.text for item in f.evidence] != texts]
    if also:
        places = [f.evidence[0].packets[0] for f in also if f.evidence and f.evidence[0].packets]
        listed = ", ".join(number(n) for n in places[:EVIDENCE])
        more = f" and {number(len(places) - EVIDENCE)} more" if len(places) > EVIDENCE else ""
        if places:
            best.evidence = (
                *best.evidence,
                Evidence(
                    f"The same in {plural(len(also), 'other attempt')} ({'packet' if len(places) == 1 else 'packets'}"
                    f" {listed}{more}).",
                    tuple(places[:EVIDENCE]),
                ),
            )
    return best


def fold_unchecked(items: Iterable[NotChecked]) -> list[NotChecked]:
    """Join equal reasons; where a code has several reasons, each distinct text stays (a few per code)."""
    seen: dict[tuple[str, str], list[int]] = {}
    for item in items:
        seen.setdefault((item.code, item.because), []).extend(item.conversations)
    counts: dict[str, int] = {}
    folded = []
    for (code, because), conversations in seen.items():
        counts[code] = counts.get(code, 0) + 1
        if counts[code] <= EVIDENCE:
            folded.append(NotChecked(code, because, tuple(sorted(set(conversations)))))
    return folded
