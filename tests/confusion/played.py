"""One capture of a population: what is true of it, and what is said about it."""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from judging import captured, shipped, truth
from keyed import KEYS, right_keys, unlock
from populations import capture, key_files, key_ring, story
from true_findings import (
    BY_VERDICT,
    KEY_SETS,
    NOT_OURS,
    STRANGERS,
    TRUE,
    WORKING,
    KeySet,
    Truth,
    may_claim,
    true_code,
)

from analyzer.findings import BAD, FINDINGS, Finding, Severity
from analyzer.keys import KeyRing
from analyzer.report.story import Story
from analyzer.report.verdict import verdict_of
from analyzer.trace import Trace

CANNOT_TELL: Final = "cannot tell"
NO_CLAIM: Final = "nothing claimed"
HEALTHY: Final = "healthy"
UNKNOWABLE: Final = "too short to tell"
SHORT: Final = ("short-capture", "not-enough-time")
NO_SPARK: Final = "no Spark connection"
FINE: Final = ("SPK001", "SPK701", "SPK705", "SPK706", "SPK801")
"""What a report may lead with when it names no fault."""
ONE_WAY: Final = "SPK702"
"""Leads where nothing but its own summary can be told: one end's packets are not in the capture."""
WORLDS: Final = 4
"""Sets of keys that populations are played with; making them takes longer than all the rest."""


@dataclass(slots=True)
class Claim:
    """A critical or major finding, or one that says that it works."""

    code: str
    confidence: str
    right: bool
    healthy: bool  # whether nothing is wrong with this device
    works: bool  # whether the claim is that it works
    premise: bool  # whether it rests on a key of the user's that is not the story's
    says: str


@dataclass(slots=True)
class Row:
    """A device in the confusion table."""

    cause: str
    verdict: str  # a code, or one of the two ways of saying none
    outcome: str  # one of `OUTCOMES`


RIGHT: Final = "right"
WRONG: Final = "another cause"
PREMISE: Final = "by a stranger's key"
MISSED: Final = "called fine"
OUTCOMES: Final = (RIGHT, WRONG, PREMISE, MISSED, CANNOT_TELL, NO_CLAIM)


@dataclass(slots=True)
class Played:
    """A capture with its rows of the confusion table and its claims."""

    name: str
    how: str
    keys: KeySet
    rows: list[Row] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)


def row_of(name: str) -> str:
    """The row of the confusion table in which a story is counted."""
    if name in SHORT:
        return UNKNOWABLE
    if name in WORKING:
        return HEALTHY
    if name in NOT_OURS:
        return NO_SPARK
    code = true_code(name) or ""
    if code == "SPK001":
        return f"{max(TRUE[name].keyed)} {FINDINGS[max(TRUE[name].keyed)].name}, then mended"
    return f"{code} {FINDINGS[code].name}"


def play(name: str, seed: int) -> Played | None:
    """Play one story of a population; None where the drawn parties do not go together."""
    chance = random.Random(f"confusion/{seed}/{name}")
    keys = chance.choice(KEY_SETS)
    told = story(chance, name, seed=1 + seed % WORLDS)
    if told is None:
        return None
    packets, done = capture(chance, told.packets)
    with tempfile.TemporaryDirectory() as folder:
        ring = key_ring(key_files(told, keys), Path(folder))
    trace = unlock(captured(packets, told.link_type), ring)
    how = f"seed {seed}, {told.truth['device_implementation']}, {told.truth['server_implementation']}, {done}, {keys}"
    return count(Played(name, how, keys), trace, TRUE[name], told.truth, row_of(name))


def play_shipped(name: str, keys: KeySet) -> Played:
    """Analyse a shipped capture, with or without its keys."""
    told = truth(name)
    verdict = told["correct_analysis"]["verdict"]
    true = BY_VERDICT.get(verdict, Truth())
    ring: KeyRing | None = None
    if keys == "all":
        ring = right_keys(name)
    elif keys != "none":
        ring = KeyRing.load(KEYS / STRANGE[keys])
    trace = unlock(shipped(name), ring)
    row = HEALTHY if true.healthy else f"{FINDINGS[max(true.keyed or true.bare)].code} {verdict}"
    if true.healthy and not told["sessions"]:
        row = NO_SPARK
    return count(Played(name, f"shipped, {keys}", keys), trace, true, told, f"{row} (shipped)")


STRANGE: Final[dict[KeySet, str]] = {"other device's": "core-e.der", "other server's": "other-server.pem"}
"""Keys that play in none of the shipped captures, for all but those in which they do."""


def count(played: Played, trace: Trace, true: Truth, told: dict[str, Any], row: str) -> Played:
    """Compare what is said about each device with what is true of it."""
    keys = played.keys
    healthy = _healthy_devices(told)
    works = _sessions_that_came_up(told)
    for finding in trace.findings:
        bad = finding.severity in BAD
        if bad or finding.severity is Severity.OK:
            fine = true.healthy or finding.device in healthy
            right = _bad_is_right(finding, keys, Truth() if fine else true) if bad else _came_up(trace, finding, works)
            premise = bad and not right and keys in STRANGERS and _on_a_premise(finding) and not fine
            played.claims.append(
                Claim(
                    finding.code, finding.confidence, right, fine, not bad, premise, f"{finding.summary} {played.how}"
                )
            )
    verdict = verdict_of(trace)
    for told_of in verdict.stories:
        fine = true.healthy or told_of.conversations[0].device.ip in healthy
        cause = HEALTHY if fine and not true.healthy else row
        played.rows.append(_row(cause, told_of, keys, Truth() if fine else true))
    if not verdict.stories:
        column = verdict.lead.code if verdict.lead is not None else NO_CLAIM
        played.rows.append(Row(row, column, RIGHT if row.startswith((NO_SPARK, UNKNOWABLE)) else MISSED))
    return played


def _row(cause: str, told_of: Story, keys: KeySet, true: Truth) -> Row:
    lead, claimable = told_of.lead, may_claim(true, keys)
    if lead is not None and lead.severity in BAD:
        premise = keys in STRANGERS and _on_a_premise(lead) and not true.healthy
        return Row(cause, lead.code, RIGHT if lead.code in claimable else PREMISE if premise else WRONG)
    if lead is not None and lead.code in FINE:
        return Row(cause, lead.code, MISSED if claimable else RIGHT)
    told_why = told_of.unchecked or (lead is not None and lead.code == ONE_WAY)
    silent = CANNOT_TELL if told_why else NO_CLAIM
    return Row(cause, silent, silent)


def _bad_is_right(finding: Finding, keys: KeySet, true: Truth) -> bool:
    return finding.code in may_claim(true, keys)


def _on_a_premise(finding: Finding) -> bool:
    """Whether a finding says itself which key it takes for whose."""
    return " if " in f" {finding.because}"


def _healthy_devices(told: dict[str, Any]) -> set[str]:
    """Addresses of those devices that are well although the story is about a fault."""
    per_device = told["correct_analysis"].get("per_device", {})
    return {record["client"]["ip"] for record in told["sessions"] if per_device.get(record["device_id"]) == "healthy"}


def _sessions_that_came_up(told: dict[str, Any]) -> dict[tuple[str, int], list[float]]:
    """When connections began in which the server has said hello, by the device's end."""
    starts: dict[tuple[str, int], list[float]] = {}
    for record in told["sessions"]:
        if record["counts"]["s2c"]:
            starts.setdefault((record["client"]["ip"], record["client"]["port"]), []).append(record["t_start"])
    return starts


def _came_up(trace: Trace, finding: Finding, works: dict[tuple[str, int], list[float]]) -> bool:
    """Whether every connection of which it is said came up."""
    ends = ((c.device.ip, c.device.port, c.end_ns / 1e9) for c in map(_by_number(trace), finding.conversations))
    return all(any(start <= end for start in works.get((ip, port), ())) for ip, port, end in ends)


def _by_number(trace: Trace) -> Any:
    return {c.number: c for c in trace.conversations}.__getitem__
