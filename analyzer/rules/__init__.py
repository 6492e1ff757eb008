"""From facts to findings. Each rule is one small function; `judge` runs them in the order of the catalogue.

Precision comes before recall: a rule that cannot tell says so as a `NotChecked`, and a silence that the capture
is too short or too one-sided to prove is not claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from analyzer.causes import explain
from analyzer.devices import devices_of
from analyzer.fault import note
from analyzer.findings import BAD, Finding, NotChecked
from analyzer.rules import (
    address,
    capture,
    connectivity,
    device,
    handshake,
    lifetime,
    limits,
    repeats,
    reply,
    session,
    update,
)
from analyzer.rules.facts import AllFacts, Facts
from analyzer.rules.fold import Folding, UncheckedFolding
from analyzer.rules.gap import withdraw, withdraw_each

if TYPE_CHECKING:
    from analyzer.rules.keys import Places
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
    address.fallback,
    address.wrong_address,
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

BESIDE: Final[tuple[Rule, ...]] = (
    update.never_begins,
    update.overran,
)
"""Rules that stand beside the others: a session may work and still not do all that it should. They leave it to
the others what they say of the same connection, and the Wireshark plugin has none of them."""

SETTLED_BY_KEYS: Final = ("SPK301", "SPK302")
"""What is not checked for want of a key; with keys their own rules say what is still open."""


def judge(trace: Trace, each: list[Finding] | None = None) -> None:
    """Run every rule and put the folded findings, worst first, into the trace. ``each`` is given all of them as they
    were before.

    Each conversation is looked at once, by all rules that need no other, and its facts are let go: those of all of
    them together would take more room than what they tell of.
    """
    places, beside = None, BESIDE
    if trace.keys:
        from analyzer.rules import keys as keyed  # noqa: PLC0415 - most captures come without keys

        places, beside = keyed.Places(trace), (*BESIDE, *keyed.BESIDE)
    every = AllFacts(trace)
    ends = lifetime.by_ends(every)
    same = list(lifetime.same_identity(every, ends))
    if same or not trace.devices:
        trace.devices = devices_of(trace.conversations, same)
    owners = {c.number: place for place, device in enumerate(trace.devices) for c in device.conversations}
    findings, unchecked, repeated = Folding(owners, each), UncheckedFolding(), repeats.Repeats(every)
    aside: list[tuple[Facts, Finding | NotChecked]] = []
    for place, facts in enumerate(every):
        open_: list[NotChecked] = []
        try:
            own = judge_alone(facts, places, open_)
        except Exception as error:
            c = facts.conversation
            note(error, f"connection {c.number}, packets {c.first_packet} to {c.last_packet}")
            raise
        if places is not None:
            keyed.explain_stops(facts, own)
        findings.add(own)
        unchecked.add(open_)
        repeated.take(place, facts)
        aside += [(facts, said) for rule in beside for said in rule(facts)]
    # What is told already of the same device would be folded into that.
    aside = [(facts, said) for facts, said in aside if isinstance(said, NotChecked) or not findings.knows(said)]
    open_ = []
    findings.add(withdraw_each(every, lifetime.timed_out(every, ends), open_))
    findings.add(withdraw_each(every, lifetime.forgotten(every, ends), open_))
    findings.add(same)
    findings.add(repeated.found())
    for facts, said in aside:
        if isinstance(said, NotChecked):
            open_.append(said)
        else:
            findings.add(withdraw(facts, [said], open_))
    left = withdraw_each(every, device.left_open(trace), open_)
    device.tell_restarts(trace, left)
    device.tell_loops(left)
    findings.add(left)
    unchecked.add(open_)
    for rule_of_all in (capture.capture_damage, capture.offload, capture.no_spark, capture.coap_over_udp):
        findings.add(rule_of_all(trace))
    trace.findings = sorted(findings.folded(), key=lambda finding: finding.rank)
    explain(trace.findings)
    unchecked.add(limits.reached(trace))
    trace.not_checked = unchecked.folded()


def judge_alone(facts: Facts, places: Places | None, unchecked: list[NotChecked]) -> list[Finding]:
    """Return what one conversation shows; what it leaves open is added to ``unchecked``."""
    secrets, own = facts.conversation.secrets, list[Finding]()
    for rule in RULES:
        for said in rule(facts):
            if isinstance(said, Finding):
                own.append(said)
            elif not (facts.trace.keys and said.code in SETTLED_BY_KEYS):
                unchecked.append(said)
    if places is not None:
        from analyzer.rules.keys import add_proofs, proof_of_health  # noqa: PLC0415 - loaded by `judge`

        add_proofs(facts, places, own, unchecked)
    own = withdraw(facts, own, unchecked)
    if not any(finding.severity in BAD for finding in own):
        own += session.healthy(facts)
        if places is not None and secrets is not None:
            for finding in own:
                if finding.code == "SPK001":
                    proof_of_health(facts, secrets, finding)
    return own
