"""SPK501, the proofs of SPK001 and SPK208, and what stays closed: what the keys say about the messages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from analyzer.findings import Confidence, Evidence, Finding, NotChecked, RuledOut, Severity
from analyzer.messages import label
from analyzer.messages.peers import G1A, IGNORES_REFUSALS
from analyzer.rules import words
from analyzer.rules.facts import NS, Facts
from analyzer.rules.keys.places import Places, names
from analyzer.streams import Sender
from analyzer.wording import duration, number, plural, printable

if TYPE_CHECKING:
    from analyzer.keys import KeyRing
    from analyzer.opened import Secrets

HANGS_UP: Final = round(0.3 * NS)
"""A device that hangs up on a message does so within milliseconds; the rest is the way to the capture point."""
LONG_ARGUMENT: Final = 64
Said = Iterator[Finding | NotChecked]


def source(secrets: Secrets) -> str:
    """Name what opened the session."""
    return printable(os.path.basename(secrets.key_source or "a session key"))


def hello_checked(facts: Facts, keys: KeyRing, secrets: Secrets, places: Places, own: list[Finding]) -> Said:
    """SPK208: is what the server did not answer a hello? If it opens, the fault is at the server."""
    found = next((finding for finding in own if finding.code == "SPK208"), None)
    session, first = (
        facts.session,
        next((f for f in facts.conversation.first_frames if f.sender is Sender.DEVICE), None),
    )
    if found is None or session is None or first is None:
        return
    at = number(first.packet)
    if secrets.session_key is None:
        which = f" of device {facts.conversation.device.id}" if facts.conversation.device.id is not None else ""
        yield facts.not_checked(
            "SPK208", f"Whether packet {at} is a hello: only the device's private key{which} opens this session."
        )
    elif Sender.DEVICE in secrets.hellos:
        found.confidence = Confidence.CERTAIN
        found.because = words.BECAUSE_HELLO_OPENS.format(source=source(secrets))
        found.evidence = (*found.evidence, Evidence(f"Packet {at}, the hello, opens with {source(secrets)}."))
    elif not secrets.opened and any(bad.sender is Sender.DEVICE for bad in secrets.bad_frames):
        own.remove(found)
        yield facts.finding(
            "SPK206",
            Confidence.STRONG,
            Evidence(
                f"Packet {at} does not open under the key of this session ({source(secrets)}): it is no hello.",
                (first.packet,),
            ),
            because=words.BECAUSE_CANNOT_USE_IT,
            ruled_out=(RuledOut("SPK208", words.RULED_NO_HELLO.format(packet=at)),),
        )


def hung_up_on_answer(facts: Facts, keys: KeyRing, secrets: Secrets, places: Places, own: list[Finding]) -> Said:
    """SPK509: the device hangs up on a message that its firmware is known not to bear (PROTOCOL 5.2, 5.4.10).

    Strong: message and generation of the firmware are read, and the close follows within a round trip. A planned close
    (SPK508) has no such message before it, a firmware that ignores refusals is excluded by its generation.
    """
    end, reader = facts.first_closing, secrets.reader
    if end is None or end.sender is not Sender.DEVICE or facts.reached != "established" or reader is None:
        return
    last = secrets.gist.last
    if last is None or reader.generation is None:
        return
    waited = end.time_ns - last.time_ns
    if not 0 <= waited <= HANGS_UP + facts.round_trip:
        return
    if last.code is not None and last.code[0] in "45" and reader.generation not in IGNORES_REFUSALS:
        why = words.HANGS_UP_ON_REFUSAL.format(firmware=reader.firmware, code=last.code)
    elif last.name == "FunctionCall" and len(str(last.values.get("argument", ""))) >= LONG_ARGUMENT:
        if reader.generation != G1A:
            return
        why = words.HANGS_UP_ON_LONG.format(firmware=reader.firmware, limit=LONG_ARGUMENT)
    else:
        return
    yield facts.finding(
        "SPK509",
        Confidence.STRONG,
        Evidence(
            f"Packet {number(last.packet)} is {label(last)} from the server; the device hangs up"
            f" {duration(waited)} later (packet {number(end.packet)}).",
            (last.packet, end.packet),
        ),
        because=f": {why}.",
        message=label(last),
    )


def frames_do_not_open(facts: Facts, keys: KeyRing, secrets: Secrets, places: Places, own: list[Finding]) -> Said:
    """SPK501: frames under a right key that are no messages, without a hole to explain it.

    Certain when others of that end open under the same key, else strong. What lies behind a hole (SPK703) is excluded;
    minor when both ends went on as if nothing had happened.
    """
    if not secrets.bad_frames or secrets.session_key is None or facts.conversation.reached != "established":
        return
    from analyzer.session import Trouble  # noqa: PLC0415 - only with keys

    for sender, pattern in secrets.patterns.items():
        for run, trouble in pattern.troubles():
            first = next(
                (b for b in secrets.bad_frames if b.sender is sender and b.position >= run.first and not b.behind_gap),
                None,
            )
            if first is None or first.position >= run.first + run.count:
                continue
            found = facts.finding(
                "SPK501",
                Confidence.CERTAIN if pattern.opened else Confidence.STRONG,
                Evidence(
                    f"Packet {number(first.packet)}: message {number(first.position + 1)} from the {sender} does not"
                    f" open under the session key ({trouble.value}); {number(pattern.opened)} of"
                    f" {plural(pattern.frames, 'message')} from it do.",
                    (first.packet,),
                ),
                summary=words.SAYS_OUT_OF_STEP.format(sender=sender, packet=number(first.packet))
                if trouble is not Trouble.WRONG_KEY
                else words.SAYS_NONE_OPENS.format(sender=sender),
                because=words.BECAUSE_OTHERS_OPEN.format(source=source(secrets)) if pattern.opened else "",
                packet=number(first.packet),
            )
            if run.recovered and not _ended_by(facts, first.packet):
                found.severity = Severity.MINOR  # both ends went on as if nothing had happened
            yield found
            break


def _ended_by(facts: Facts, packet: int) -> bool:
    """Whether neither end sent another message after this one."""
    return not any(
        side.last_data is not None and side.last_data.packet > packet for side in facts.conversation.sides.values()
    )


def not_opened(facts: Facts, keys: KeyRing, secrets: Secrets, places: Places, own: list[Finding]) -> Said:
    """Say of a session that works why its messages stay closed, and which key would open them."""
    c, session = facts.conversation, facts.session
    if c.kind != "spark" or c.reached != "established":
        return
    offer = secrets.offer
    which = f" of device {c.device.id}" if c.device.id is not None else ""
    tried = " The session keys given do not fit." if keys.session_keys or keys.loose_session_keys else ""
    if secrets.session_key is not None:
        pass
    elif session is None or session.data is None:
        what = "whole in the capture" if session is not None else "in the capture"
        yield facts.not_checked(
            "SPK501",
            f"Content. No RSA key can open it: the session key travels only in the login, which is not {what}."
            f" --session-key or --keylog would.{tried}",
        )
    elif offer is not None and offer.opened is False and not offer.untried:
        one = len(keys.device_private) == 1
        yield facts.not_checked(
            "SPK501",
            f"Content: packet {number(session.packet)} does not open with {names(keys.device_private, 'device key')},"
            f" so {'that is not the key' if one else 'none of them is the key'} inside this device. The private"
            f" key{which} would open it: --device-key FILE.{tried}",
        )
    else:
        yield facts.not_checked(
            "SPK501",
            f"Content: packet {number(session.packet)} opens with the device's private key{which} only:"
            f" --device-key FILE.{tried}",
        )
    if offer is not None and offer.signature_block_ok is False and offer.signed_by is None:
        yield facts.not_checked(
            "SPK303",
            f"The signature on the reply: it is not by {names(keys.server_keys, 'server key')}. The device accepted it,"
            " so it is by the server that this device trusts.",
        )


def proof_of_health(facts: Facts, secrets: Secrets, finding: Finding) -> None:
    """Raise SPK001 to certain when both hellos open."""
    if len(secrets.hellos) == 2:
        finding.confidence = Confidence.CERTAIN
        finding.because = words.BECAUSE_BOTH_HELLOS.format(source=source(secrets))
        total = facts.device.frames + facts.server.frames
        finding.evidence = (
            *finding.evidence,
            Evidence(f"{number(secrets.opened)} of {plural(total, 'message')} open."),
        )
