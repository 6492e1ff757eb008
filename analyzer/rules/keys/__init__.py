"""SPK301–306, SPK308: what the given keys prove, and the stronger form that they give to other findings.

A key that does not open a block proves that this very key was not used, no more. What it means for the device
rests on a premise ("if core-a.der is the key inside this device"), which is printed with it, unless the capture
itself proves it (`Places`). Keys explain what was seen, they never make a fault of it: nothing here speaks of a
login that the rules without keys do not call failed.
"""

from __future__ import annotations

from dataclasses import replace

from analyzer.findings import Finding, NotChecked
from analyzer.rules import words
from analyzer.rules.facts import Facts
from analyzer.rules.keys.identity import identity_refused
from analyzer.rules.keys.messages import number_jumped, request_unanswered, update_not_begun
from analyzer.rules.keys.places import Places
from analyzer.rules.keys.reply import SILENT, reply_not_used
from analyzer.rules.keys.session import (
    frames_do_not_open,
    hello_checked,
    hung_up_on_answer,
    not_opened,
    proof_of_health,
)
from analyzer.rules.keys.update import explain_stops, update_not_taken, update_refused

BESIDE = (number_jumped, request_unanswered, update_not_begun, update_refused, update_not_taken)
"""Rules on opened messages that stand beside the others, as those of `analyzer.rules.BESIDE` do."""
EXPLAIN_SILENCE = ("SPK301", "SPK303", "SPK305", "SPK306")


def add_proofs(facts: Facts, places: Places, own: list[Finding], unchecked: list[NotChecked]) -> None:
    """Add what the keys prove about one conversation to what was found without them (``own``)."""
    ring, secrets = facts.trace.keys, facts.conversation.secrets
    if ring is None or secrets is None:
        return
    for rule in (hello_checked, reply_not_used, identity_refused, frames_do_not_open, hung_up_on_answer, not_opened):
        for said in list(rule(facts, ring, secrets, places, own)):
            if isinstance(said, NotChecked):
                unchecked.append(said)
            else:
                _join(own, said)
    if any(finding.code in EXPLAIN_SILENCE for finding in own):
        for finding in own:
            if finding.code in SILENT:
                # Which key it is, is now told by a finding that has tried them.
                finding.because = words.BECAUSE_CANNOT_USE_IT
    _name_device(facts, own)


def _join(own: list[Finding], said: Finding) -> None:
    """Add a finding; one of the same code says the same with less, and its reasons go into the new one."""
    for index, earlier in enumerate(own):
        if earlier.code == said.code:
            texts = {item.text for item in said.evidence}
            evidence = (*said.evidence, *(item for item in earlier.evidence if item.text not in texts))
            ruled = {item.code for item in said.ruled_out}
            ruled_out = (*said.ruled_out, *(item for item in earlier.ruled_out if item.code not in ruled))
            packets = tuple(sorted({*said.packets, *earlier.packets}))
            own[index] = replace(said, evidence=evidence, ruled_out=ruled_out, packets=packets)
            return
    own.append(said)


def _name_device(facts: Facts, own: list[Finding]) -> None:
    """Put the device's ID into the commands, once it is known."""
    device_id = facts.conversation.device.id
    if device_id is None:
        return
    for finding in own:
        finding.fix = tuple(step.replace("DEVICE_ID", device_id) for step in finding.fix)


__all__ = ["BESIDE", "Places", "add_proofs", "explain_stops", "proof_of_health"]
