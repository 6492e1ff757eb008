"""From facts to findings. Each rule is one small function; `judge` runs them in the order of the catalogue.

Precision comes before recall: a rule that cannot tell says so as a `NotChecked`, and a silence that the capture
is too short or too one-sided to prove is not claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from analyzer.findings import BAD, Finding, NotChecked
from analyzer.rules import capture, connectivity, device, handshake, reply, session
from analyzer.rules import keys as keyed
from analyzer.rules.facts import Facts
from analyzer.rules.fold import fold, fold_unchecked

if TYPE_CHECKING:
    from analyzer.trace import Trace

Rule = Callable[[Facts], Iterator[Finding | NotChecked]]

RULES: Final[tuple[Rule, ...]] = (
    capture.begun_midway,
    capture.one_way,
    capture.bytes_missing,
    capture.artefacts,
    connectivity.never_answers,
    connectivity.refused,
    connectivity.something_else,
    connectivity.silence,
    capture.other_protocol,
    handshake.wrong_nonce,
    handshake.nonce_not_answered,
    handshake.identity_in_pieces,
    handshake.refused_identity,
    reply.wrong_reply,
    reply.silent_after_reply,
    reply.dead_without_reply,
    reply.hello_not_answered,
    reply.slow,
    session.framing_lost,
    session.ping_unanswered,
    session.packets_lost,
    session.update_fails,
    capture.misread,
)
"""The rules about one conversation, in the order of DIAGNOSES section 1."""

SETTLED_BY_KEYS: Final = ("SPK301", "SPK302")
"""What is not checked for want of a key; with keys their own rules say what is still open."""


def judge(trace: Trace) -> None:
    """Run every rule and put the folded findings, worst first, into the trace."""
    findings: list[Finding] = []
    unchecked: list[NotChecked] = []
    places = keyed.Places(trace) if trace.keys else None
    for conversation, again in zip(trace.conversations, dialled_again(trace), strict=True):
        findings += judge_alone(Facts(conversation, trace, again), places, unchecked)
    findings += [
        *device.left_open(trace),
        *capture.capture_damage(trace),
        *capture.offload(trace),
        *capture.no_spark(trace),
        *capture.coap_over_udp(trace),
    ]
    trace.findings = sorted(fold(findings), key=lambda finding: finding.rank)
    trace.not_checked = fold_unchecked(unchecked)


def judge_alone(facts: Facts, places: keyed.Places | None, unchecked: list[NotChecked]) -> list[Finding]:
    """Return what one conversation shows; what it leaves open is added to ``unchecked``."""
    secrets, own = facts.conversation.secrets, list[Finding]()
    for rule in RULES:
        for said in rule(facts):
            if isinstance(said, Finding):
                own.append(said)
            elif not (facts.trace.keys and said.code in SETTLED_BY_KEYS):
                unchecked.append(said)
    if places is not None:
        keyed.add_proofs(facts, places, own, unchecked)
    if not any(finding.severity in BAD for finding in own):
        own += session.healthy(facts)
        if places is not None and secrets is not None:
            for finding in own:
                if finding.code == "SPK001":
                    keyed.proof_of_health(facts, secrets, finding)
    return own


def dialled_again(trace: Trace) -> list[int | None]:
    """When (ns) each conversation's device began its next one with the same server."""
    later: dict[tuple[bytes, bytes, int], int] = {}
    times: list[int | None] = []
    for c in reversed(trace.conversations):
        ends = c.device.address, c.server.address, c.server.port
        times.append(later.get(ends))
        later[ends] = c.start_ns
    return times[::-1]
