"""Cause before symptom: which finding explains which other one of the same connections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from analyzer.findings import BAD, FINDINGS, Confidence, Finding, Group

EFFECTS: Final = {
    "SPK105": ("SPK101", "SPK102", "SPK103", "SPK104"),  # somebody else's address
    "SPK106": ("SPK101", "SPK102", "SPK103", "SPK104"),
    "SPK203": ("SPK204",),
    "SPK301": ("SPK206", "SPK207"),
    "SPK302": ("SPK204",),
    "SPK303": ("SPK206", "SPK207"),
    "SPK304": ("SPK204",),
    "SPK305": ("SPK206", "SPK207", "SPK204"),
    "SPK306": ("SPK206", "SPK207"),
    "SPK308": ("SPK204",),
    "SPK501": ("SPK503", "SPK508", "SPK509"),
    "SPK502": ("SPK508", "SPK509"),
    "SPK504": ("SPK503", "SPK508"),
    "SPK505": ("SPK503", "SPK508", "SPK601"),
    "SPK506": ("SPK503", "SPK505", "SPK508"),
    "SPK507": ("SPK508",),
    "SPK509": ("SPK508",),
}
"""What each may cause. Nothing is in this table that only accompanies, or proves, another (SPK207 and SPK206)."""
SAME_LOOK: Final = {"SPK207": "SPK206"}
"""Findings that tell of one failure, with more or less in the capture to prove it."""


def look_of(codes: Sequence[str]) -> str:
    """Return how a failure looks on the wire, by the codes of its findings, worst first: the same for all causes
    that look alike.
    """
    of_its_own = (code for code in codes if code not in EFFECTS or FINDINGS[code].group is Group.SESSION)
    code = next(of_its_own, None) or EFFECTS[codes[0]][0]
    return SAME_LOOK.get(code, code)


def explain(findings: Iterable[Finding]) -> None:
    """Enter into each finding what caused it: the first, in the order given, of the causes that were seen on at
    least half of its connections.
    """
    every = list(findings)
    effects = {code for codes in EFFECTS.values() for code in codes}
    seen = {(f.code, n): f for f in every if f.code in effects for n in f.conversations}
    for cause in every:
        if cause.severity not in BAD or cause.confidence is Confidence.HINT:
            continue  # what harms nobody, or is no more than a hint, explains nothing
        for code in EFFECTS.get(cause.code, ()):
            for effect in {id(f): f for n in cause.conversations if (f := seen.get((code, n))) is not None}.values():
                shared = len(set(cause.conversations).intersection(effect.conversations))
                if effect.caused_by is None and 2 * shared >= len(effect.conversations):
                    effect.caused_by = cause.code


def causes_first(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings of one device in their order, but each cause before what it caused."""
    by_code: dict[str, list[Finding]] = {}
    for finding in findings:
        by_code.setdefault(finding.code, []).append(finding)
    ordered: dict[int, Finding] = {}

    def place(finding: Finding) -> None:
        for cause in by_code.get(finding.caused_by or "", ()):
            place(cause)
        ordered.setdefault(id(finding), finding)

    for finding in findings:
        place(finding)
    return list(ordered.values())
