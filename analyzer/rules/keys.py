"""SPK301–306, SPK308: what the given keys prove, and the stronger form that they give to other findings.

A key that does not open a block proves that this very key was not used, no more. What it means for the device
rests on a premise ("if core-a.der is the key in this device"), which is printed with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from analyzer.catalogue import IDENTITY_SIZE, SEALED_KEY_SIZE
from analyzer.findings import Confidence, Evidence, Finding, NotChecked, RuledOut
from analyzer.rules.facts import Facts
from analyzer.streams import Sender
from analyzer.wording import listing, number, packets, plural

if TYPE_CHECKING:
    from analyzer.decryption import Secrets
    from analyzer.keys import Key, KeyRing

NAMED_KEYS: Final = 3


def name(key: Key) -> str:
    """Name a key by its file and its fingerprint."""
    return f"{os.path.basename(key.name)} ({key.fingerprint})"


def names(keys: tuple[Key, ...], noun: str) -> str:
    """Name a few keys, or count many."""
    if len(keys) <= NAMED_KEYS:
        return listing([name(key) for key in keys], "or")
    return f"any of {plural(len(keys), noun)}"


# -- the device could not use the reply (SPK206) -------------------------------------------------------------


def reply_not_used(facts: Facts, keys: KeyRing, secrets: Secrets) -> Iterator[Finding | NotChecked]:
    """SPK301, SPK303, SPK306: why the device could not use the reply."""
    session, offer = facts.session, secrets.offer
    if session is None or not session.complete or facts.conversation.reached not in ("session", "hello"):
        return
    if facts.conversation.reached == "hello" and not facts.conversation.dead_frames:
        return
    if offer is None:
        yield NotChecked(
            "SPK301",
            f"The reply (packet {number(session.packet)}) is not whole in the capture, so no key can be tried on it.",
            (facts.conversation.number,),
        )
        return
    if offer.opened:
        yield from _opened_yet_not_used(facts, keys, secrets)
    elif offer.opened is False:
        yield _not_opened(facts, keys, secrets)
    else:
        yield from _without_device_key(facts, secrets)


def _signature(facts: Facts, secrets: Secrets) -> list[Evidence]:
    offer, session = secrets.offer, facts.session
    if offer is None or session is None or offer.signature_block_ok is None:
        return []
    if offer.signed_by is not None and offer.signature != "invalid":
        text = f"Packet {number(session.packet)}: the other 256 bytes are signed by {name(offer.signed_by)}."
    else:
        note = f": {offer.signature_note}" if offer.signature_note else ""
        text = f"Packet {number(session.packet)}: the other 256 bytes are not signed by a server key given here{note}."
    return [Evidence(text, (session.packet,))]


def _not_opened(facts: Facts, keys: KeyRing, secrets: Secrets) -> Finding:
    offer, session, identity = secrets.offer, facts.session, secrets.identity
    assert offer is not None  # noqa: S101 - the caller has looked
    assert session is not None  # noqa: S101
    tried = keys.device_private
    evidence = [
        Evidence(
            f"Packet {number(session.packet)}: the first {SEALED_KEY_SIZE} bytes do not open with"
            f" {names(tried, 'device key')}.",
            (session.packet,),
        ),
        *_signature(facts, secrets),
    ]
    ruled_out = []
    if offer.signature == "valid" and offer.signed_by is not None:
        ruled_out.append(RuledOut("SPK303", f"the signature opens with {name(offer.signed_by)}"))
    unlucky = [key for key in tried if (reading := keys.firmware_reading(key)) is not None and not reading.ok]
    if not unlucky:
        ruled_out.append(RuledOut("SPK306", f"the firmware can read {names(tried, 'device key')}"))
    mine = identity.device_key if identity is not None else None
    if mine is not None and keys.key_with_modulus(mine.n) in tried:
        confidence = Confidence.CERTAIN
        because = (
            f': the device itself says in "who I am" that its key is {name(keys.key_with_modulus(mine.n) or mine)}.'
        )
    else:
        confidence = Confidence.CERTAIN if not offer.untried else Confidence.STRONG
        premise = (
            f"{os.path.basename(tried[0].name)} is the key inside this device"
            if len(tried) == 1
            else "this device's key is among those given"
        )
        because = f", if {premise}. Check: read it out of the device, and compare with sparkshark keys."
    return facts.finding(
        "SPK301", confidence, *evidence, because=because, ruled_out=tuple(ruled_out), tried=offer.tried
    )


def _opened_yet_not_used(facts: Facts, keys: KeyRing, secrets: Secrets) -> Iterator[Finding]:
    """The device key opens the reply here; yet the device did not go on."""
    offer, session = secrets.offer, facts.session
    assert offer is not None  # noqa: S101 - the caller has looked
    assert session is not None  # noqa: S101
    assert offer.opened_by is not None  # noqa: S101
    opened = Evidence(
        f"Packet {number(session.packet)}: the first {SEALED_KEY_SIZE} bytes open with {name(offer.opened_by)}.",
        (session.packet,),
    )
    if offer.signature == "invalid":
        yield facts.finding(
            "SPK303",
            Confidence.CERTAIN,
            opened,
            *_signature(facts, secrets),
            because=", if the server key given here is the one in the device.",
            ruled_out=(RuledOut("SPK301", f"{name(offer.opened_by)} opens the reply"),),
        )
        return
    reading = keys.firmware_reading(offer.opened_by)
    if reading is not None and not reading.ok:
        odd = listing(list(reading.differences)) or "the firmware reads other numbers than are in it"
        yield facts.finding(
            "SPK306",
            Confidence.CERTAIN,
            opened,
            Evidence(f"The firmware misreads {name(offer.opened_by)}: {odd}."),
            because=", if this file is what the device holds.",
            ruled_out=(RuledOut("SPK301", "the two keys are a pair"),),
        )
        return
    differs = offer.identity_key_differs
    evidence = [opened, *_signature(facts, secrets)]
    if differs:
        evidence.append(Evidence('In "who I am" the device itself offers another key than that one.'))
    yield facts.finding(
        "SPK301",
        Confidence.CERTAIN if differs else Confidence.LIKELY,
        *evidence,
        summary=f"The server locks its reply for {os.path.basename(offer.opened_by.name)}; the device has another key.",
        because=", by what the device itself offers."
        if differs
        else f"that the device holds another key than {os.path.basename(offer.opened_by.name)}: this file opens the reply, and the device"
        " cannot. If it was read out of this very device just now, the device hangs.",
        ruled_out=(RuledOut("SPK306", f"the firmware can read {name(offer.opened_by)}"),)
        if reading is not None
        else (),
    )


def _without_device_key(facts: Facts, secrets: Secrets) -> Iterator[Finding | NotChecked]:
    offer, session, identity = secrets.offer, facts.session, secrets.identity
    assert offer is not None  # noqa: S101 - the caller has looked
    assert session is not None  # noqa: S101
    if offer.signature_block_ok is False:
        yield facts.finding(
            "SPK303",
            Confidence.STRONG,
            *_signature(facts, secrets),
            because="that another server answers. Certain with --device-key FILE, which tells whether the device can open"
            " the reply at all.",
        )
        return
    which = f" of device {identity.device_id}" if identity is not None and identity.device_id else ""
    yield NotChecked(
        "SPK301",
        f"Which key is wrong: only the device's private key{which} opens the reply. Add --device-key FILE.",
        (facts.conversation.number,),
    )


# -- the server refused the identity (SPK204, SPK203) -----------------------------------------------------------


def identity_refused(facts: Facts, keys: KeyRing, secrets: Secrets) -> Iterator[Finding | NotChecked]:
    """SPK302, SPK304, SPK305: why the server hung up after "who I am"."""
    identity = facts.identity
    if identity is None or not identity.complete or facts.session is not None or not facts.is_spark:
        return
    if facts.closing(Sender.SERVER) is None and not facts.conversation.closings:
        return
    if identity.data is None:
        yield NotChecked(
            "SPK302",
            f'"Who I am" (packet {number(identity.packet)}) is not whole in the capture, so no key can be tried on it.',
            (facts.conversation.number,),
        )
        return
    if not keys.server_private:
        yield from _by_range(facts, keys)
        return
    if secrets.identity is None:
        yield facts.finding(
            "SPK302",
            Confidence.CERTAIN,
            Evidence(
                f"Packet {number(identity.packet)}: the {IDENTITY_SIZE} bytes do not open with"
                f" {names(keys.server_private, 'server key')}.",
                (identity.packet,),
            ),
            because=f", if {names(keys.server_private, 'server key')} is the key of the server that was called.",
            ruled_out=(RuledOut("SPK304", "the server cannot even read the device's ID"),),
        )
        return
    yield from _readable(facts, keys, secrets)


def _by_range(facts: Facts, keys: KeyRing) -> Iterator[Finding | NotChecked]:
    """Public server keys exclude themselves when a block is not below their modulus."""
    from analyzer.session import RangeTest  # noqa: PLC0415 - only with keys

    identity = facts.identity
    if identity is None or not keys.server_keys:
        return
    blocks = [
        part.data
        for c in facts.trace.conversations
        if c.device.address == facts.conversation.device.address
        and (part := c.part("identity")) is not None
        and part.data is not None
    ]
    excluded = []
    for key in keys.server_keys:
        test = RangeTest(key.n)
        for block in blocks:
            test.add(block)
        if test.excluded:
            excluded.append((key, Confidence.CERTAIN, "one of them is larger than this key allows"))
        elif test.unlikely:
            excluded.append(
                (key, Confidence.STRONG, f"numbers so small have a chance of {test.p_value:.1g} with this key")
            )
    if len(excluded) < len(keys.server_keys):
        yield NotChecked(
            "SPK302",
            "Whether the device has the right server key: a public key can only exclude itself, and it did not. The"
            " server's private key would tell: --server-key FILE.",
            (facts.conversation.number,),
        )
        return
    key, confidence, why = excluded[0]
    yield facts.finding(
        "SPK302",
        confidence,
        Evidence(
            f'{plural(len(blocks), "attempt")} of this device: {why}, so "who I am" was not locked with {name(key)}.',
            (identity.packet,),
        ),
        because=f'that "who I am" was not locked with {name(key)}.',
    )


def _readable(facts: Facts, keys: KeyRing, secrets: Secrets) -> Iterator[Finding | NotChecked]:
    """The server's key opens it, so the server could read it as well."""
    identity, found, c = facts.identity, secrets.identity, facts.conversation
    assert identity is not None  # noqa: S101 - the caller has looked
    assert found is not None  # noqa: S101
    opened = Evidence(
        f"Packet {number(identity.packet)} opens with {name(found.opened_by)}: device {found.device_id or 'without ID'},"
        f" {'the right' if found.nonce_matches else 'not the right'} greeting, {found.plaintext_length} bytes.",
        (identity.packet,),
    )
    not_302 = RuledOut("SPK302", f'{name(found.opened_by)} opens "who I am"')
    if found.nonce_matches is False:
        return  # a replay, or two connections taken for one: SPK204 stands with what it has
    if len(identity.cuts) > 1:
        finding = facts.finding(
            "SPK203",
            Confidence.STRONG,
            opened,
            Evidence(f"It came in {len(identity.cuts)} pieces.", tuple(p for p, _ in identity.cuts)),
            because="that the pieces are the cause: the keys are right.",
            ruled_out=(not_302,),
            how=f"comes in {len(identity.cuts)} pieces",
        )
        yield finding
        return
    if found.key_trouble is not None:
        yield facts.finding(
            "SPK305",
            Confidence.CERTAIN,
            opened,
            Evidence(f"The public key that the device offers is {found.key_trouble}."),
            because=': the device shows it in "who I am".',
            ruled_out=(not_302,),
        )
        return
    registered = [key for key in keys.keys_of_device(found.device_id or "") if key.bits == SEALED_KEY_SIZE * 8]
    offered = found.device_key
    confidence, because, more = Confidence.STRONG, "that the server has no key, or another one, on file for it.", []
    if offered is not None and registered and all(key.n != offered.n for key in registered):
        confidence, because = Confidence.CERTAIN, f": the key on file is {name(registered[0])}."
        more = [Evidence(f"The device offers key {offered.fingerprint}; on file is {name(registered[0])}.")]
    elif offered is None:
        more = [
            Evidence(
                "Also possible: a server program too new for this encryption (then every device fails), or the"
                " community server, which takes no original Cores."
            )
        ]
    failing = {x.device.address for x in facts.trace.conversations if x.reached == "identity"}
    working = {x.device.address for x in facts.trace.conversations if x.reached == "established"}
    if len(failing) > 1 and not working:
        yield facts.finding(
            "SPK308",
            Confidence.LIKELY,
            opened,
            Evidence(f"All {number(len(failing))} devices in the capture are refused in the same way."),
            because="that the server's program is the cause: all devices fail alike.",
            ruled_out=(not_302,),
        )
        confidence = Confidence.LIKELY
    yield facts.finding(
        "SPK304",
        confidence,
        opened,
        Evidence("The server closed all the same.", tuple(x.packet for x in c.closings[:1])),
        *more,
        because=because,
        ruled_out=(not_302,),
    )


# -- the session ---------------------------------------------------------------------------------------------------


def frames_do_not_open(facts: Facts, keys: KeyRing, secrets: Secrets) -> Iterator[Finding]:
    """SPK501: frames under a right key that are no messages, without a hole to explain it."""
    if not secrets.bad_frames or secrets.session_key is None or facts.conversation.reached != "established":
        return
    from analyzer.session import Trouble  # noqa: PLC0415 - only with keys

    for sender, pattern in secrets.patterns.items():
        for run, trouble in pattern.troubles():
            bad = [b for b in secrets.bad_frames if b.sender is sender]
            first = next((b for b in bad if b.index >= run.first), bad[0] if bad else None)
            if first is None or any(h.sender is sender and h.packet <= first.packet for h in facts.conversation.holes):
                continue
            yield facts.finding(
                "SPK501",
                Confidence.CERTAIN if pattern.opened else Confidence.STRONG,
                Evidence(
                    f"Packet {number(first.packet)}: message {number(first.index + 1)} from the {sender} does not open"
                    f" under the session key ({trouble.value}); {number(pattern.opened)} of"
                    f" {plural(pattern.frames, 'message')} from it do.",
                    (first.packet,),
                ),
                summary=f"A message from the {sender} is damaged or out of step (packet {number(first.packet)})."
                if trouble is not Trouble.WRONG_KEY
                else f"No message from the {sender} opens under the session key.",
                packet=number(first.packet),
            )
            break


def proof_of_health(facts: Facts, secrets: Secrets, finding: Finding) -> None:
    """Raise SPK001 to certain when both hellos open."""
    device, server = secrets.hello_opened
    if secrets.opened and device and server:
        finding.confidence = Confidence.CERTAIN
        finding.because = f": both hellos open with {secrets.key_source}."
        total = facts.device.frames + facts.server.frames
        finding.evidence = (
            *finding.evidence,
            Evidence(f"{number(secrets.opened)} of {plural(total, 'message')} open."),
        )


def proof_of_hello(facts: Facts, secrets: Secrets, finding: Finding) -> None:
    """Raise SPK208 to certain when the hello opens: the fault is at the server."""
    if secrets.hello_opened[0] and secrets.opened:
        finding.confidence = Confidence.CERTAIN
        finding.evidence = (*finding.evidence, Evidence(f"The hello opens with {secrets.key_source}."))


__all__ = [
    "frames_do_not_open",
    "identity_refused",
    "packets",
    "proof_of_health",
    "proof_of_hello",
    "reply_not_used",
]
