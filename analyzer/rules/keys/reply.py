"""SPK301, SPK303, SPK305, SPK306: the device could not use the reply (SPK206, SPK207). Why?"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from analyzer.catalogue import SEALED_KEY_SIZE
from analyzer.findings import (
    DOCTOR,
    DOCTOR_SENDS,
    Confidence,
    Evidence,
    Finding,
    NotChecked,
    RuledOut,
    Severity,
)
from analyzer.findings.commands import read_key
from analyzer.rules import words
from analyzer.rules.facts import Facts
from analyzer.rules.keys.places import MOST_TESTED, Places, file_of, name, named_in_registry, names
from analyzer.wording import listing, number, plural

if TYPE_CHECKING:
    from analyzer.keys import Key, KeyRing
    from analyzer.opened import Secrets

SILENT: Final = ("SPK206", "SPK207")
DUMP: Final = f"  {read_key('Core', 'now.der')}"
PHOTON_DUMP: Final = read_key("Photon", "now.der").removeprefix("dfu-util ").removesuffix(" -U now.der")

Said = Iterator[Finding | NotChecked]


def reply_not_used(facts: Facts, keys: KeyRing, secrets: Secrets, places: Places, own: list[Finding]) -> Said:
    """Say why, where the rules without keys have found that the device could not use the reply."""
    silent = [f for f in own if f.code in SILENT and f.severity is Severity.CRITICAL]
    session, offer = facts.session, secrets.offer
    if not silent or session is None:
        return
    if offer is None:
        yield facts.not_checked(
            "SPK301",
            f"The reply (packet {number(session.packet)}) is not whole in the capture, so no key can be tried on it.",
        )
        return
    case = _Reply(facts, keys, secrets, places)
    if secrets.identity is not None and secrets.identity.key_trouble is not None:
        yield case.no_rsa_key()
        return
    if offer.opened:
        yield from case.opened()
    elif offer.opened is False:
        yield from case.not_opened()
    else:
        yield from case.without_device_key()
    if offer.opened:
        for finding in silent:
            # The key that opens it is on file; whether it is the device's is just what is in question.
            finding.because = words.BECAUSE_CANNOT_USE_IT


class _Reply:
    """One reply that a device could not use, with the keys at hand."""

    def __init__(self, facts: Facts, keys: KeyRing, secrets: Secrets, places: Places) -> None:
        assert facts.session is not None  # noqa: S101 - the caller has looked
        assert secrets.offer is not None  # noqa: S101
        self.facts, self.keys, self.places = facts, keys, places
        self.offer, self.identity = secrets.offer, secrets.identity
        self.packet = facts.session.packet
        self.c = facts.conversation
        self.trusted = places.trusted(self.c)

    # -- the signature -------------------------------------------------------------------------------------------

    def signature(self) -> str | None:
        """Say whose signature it is, in words that follow "the other 256 bytes"; None when there is no key."""
        offer = self.offer
        if offer.signature_block_ok is None:
            return None
        if offer.signed_by is not None and offer.signature_block_ok and not self.forged():
            return f"are signed by {name(offer.signed_by)}"
        if offer.signed_by is not None:
            return f"open with {name(offer.signed_by)}, but {offer.signature_note}"
        return f"are not signed by {names(self.keys.server_keys, 'server key')}"

    def forged(self) -> bool:
        """Whether the signature opens and yet is not one over these 128 bytes."""
        note = self.offer.signature_note
        return (
            self.offer.signature == "invalid"
            and self.offer.signed_by is not None
            and note is not None
            and (self.offer.signature_block_ok is False or "HMAC" in note)
        )

    def not_the_trusted_server(self) -> str | None:
        """Say what proves that the signature is not that of the server which the device trusts."""
        offer = self.offer
        if offer.signature_block_ok is None:
            return None
        if self.forged() and (not self.trusted or (offer.signed_by and offer.signed_by.n in self.trusted)):
            return f"{offer.signature_note}."
        if self.trusted:
            if offer.signed_by is not None and offer.signed_by.n in self.trusted:
                return None
            n, how = next(iter(self.trusted.items()))
            key = self.keys.key_with_modulus(n)
            return words.BECAUSE_TRUSTS.format(key=name(key), how=how) if key is not None else None
        sealed = self.facts.identity.data if self.facts.identity is not None else None
        if offer.signed_by is not None and sealed is not None and int.from_bytes(sealed, "big") >= offer.signed_by.n:
            return words.BECAUSE_NOT_LOCKED.format(key=name(offer.signed_by))
        return None

    def impostor(self, confidence: Confidence, because: str, *evidence: Evidence) -> Finding:
        return self.facts.finding(
            "SPK303",
            confidence,
            *(evidence or (self.blocks("not tried"),)),
            because=because,
            ruled_out=(RuledOut("SPK301", words.RULED_REPLY_OPENS.format(key=name(self.offer.opened_by))),)
            if self.offer.opened_by is not None
            else (),
        )

    # -- what each case says -------------------------------------------------------------------------------------

    def blocks(self, opens: str) -> Evidence:
        """What became of the two blocks of the reply."""
        told = [] if opens == "not tried" else [f"the first {SEALED_KEY_SIZE} bytes {opens}"]
        signature = self.signature()
        if signature is not None:
            told.append(f"the {'other' if told else 'last'} 256 {signature}")
        return Evidence(f"Packet {number(self.packet)}: {'; '.join(told)}.", (self.packet,))

    def no_rsa_key(self) -> Finding:
        found, identity = self.identity, self.facts.identity
        assert found is not None  # noqa: S101 - the caller has looked
        at = (identity.packet,) if identity is not None else ()
        return self.facts.finding(
            "SPK305",
            Confidence.CERTAIN,
            Evidence(
                f'The public key that the device offers in "who I am" (packet {number(at[0]) if at else "?"}) is'
                f" {found.key_trouble}.",
                at,
            ),
            because=words.BECAUSE_SHOWN,
        )

    def opened(self) -> Said:
        """The device key opens the reply here; yet the device did not go on."""
        offer, key = self.offer, self.offer.opened_by
        assert key is not None  # noqa: S101 - the caller has looked
        seen = self.blocks(f"open with {name(key)}")
        if self.identity is not None and offer.identity_key_differs:
            yield self._records_other_key(seen, key)
            return
        proof = self.not_the_trusted_server()
        if proof is not None:
            yield self.impostor(Confidence.CERTAIN, f": {proof}", seen)
            return
        if offer.signature_block_ok is False:
            premise = (
                words.PREMISE_ONE_SERVER_KEY.format(file=file_of(self.keys.server_keys[0]))
                if len(self.keys.server_keys) == 1
                else words.PREMISE_AMONG_SERVER_KEYS
            )
            yield self.impostor(Confidence.CERTAIN, premise, seen)
            return
        reading = self.keys.firmware_reading(key)
        if reading is not None and not reading.ok:
            yield self._unlucky(seen, key, reading.differences)
            return
        yield from self._all_is_well(seen, key, readable=reading is not None)

    def _records_other_key(self, seen: Evidence, key: Key) -> Finding:
        return self.facts.finding(
            "SPK301",
            Confidence.CERTAIN,
            seen,
            Evidence('In "who I am" the device itself offers another key than that one.'),
            summary=words.SAYS_LOCKED_FOR_OTHER.format(file=file_of(key)),
            because=words.BECAUSE_OFFERS_OTHER,
        )

    def _unlucky(self, seen: Evidence, key: Key, differences: tuple[str, ...]) -> Finding:
        odd = listing(list(differences)) or "the firmware reads other numbers than are in it"
        offered = self.identity.device_key if self.identity is not None else None
        proven = offered is not None and offered.n == key.n
        return self.facts.finding(
            "SPK306",
            Confidence.CERTAIN,
            seen,
            Evidence(f"The firmware misreads {name(key)}: {odd}."),
            because=words.BECAUSE_OFFERS_THIS if proven else words.BECAUSE_IF_HELD.format(file=file_of(key)),
            ruled_out=(RuledOut("SPK301", words.RULED_PAIR),),
        )

    def _all_is_well(self, seen: Evidence, key: Key, *, readable: bool) -> Said:
        """Nothing is wrong with this key and this reply; so this key may not be the device's."""
        offer, file = self.offer, file_of(key)
        read = f"{name(key)} opens packet {number(self.packet)}, so its pair is on file at the server."
        if offer.signature_block_ok is None:
            yield self.facts.not_checked(
                "SPK303",
                f"The signature: {read} The device holds another key than this file, or refuses the signature."
                " The server's key tells: --server-key FILE (public is enough).",
            )
            return
        signer = offer.signed_by
        if signer is not None and signer.n not in self.trusted and len(self.keys.server_keys) > 1:
            yield self.facts.not_checked(
                "SPK303",
                f"Which server key this device trusts: {read} It is signed by {name(signer)}, one of"
                f" {number(len(self.keys.server_keys))} server keys given. The server's private key tells:"
                " --server-key FILE.",
            )
            return
        yield self.facts.finding(
            "SPK301",
            Confidence.LIKELY,
            seen,
            *(
                ()
                if signer is None or signer.n in self.trusted
                else (
                    Evidence(
                        f"A device that trusts another server key than {name(signer)} would do the same (SPK303)."
                    ),
                )
            ),
            summary=words.SAYS_LOCKED_FOR_OTHER.format(file=file),
            because=words.BECAUSE_HOLDS_OTHER.format(file=file),
            ruled_out=(RuledOut("SPK306", words.RULED_READABLE.format(keys=name(key))),) if readable else (),
        )

    def not_opened(self) -> Said:
        """No device key given opens the reply."""
        proof = self.not_the_trusted_server()
        own_words = self.identity.device_key if self.identity is not None else None
        tried = self.keys.device_private
        candidates = self.places.candidates(tried, self.c, own_words)
        if proof is not None:
            yield self.impostor(
                Confidence.CERTAIN, f": {proof}", self.blocks(f"do not open with {names(tried, 'device key')}")
            )
        if not candidates:
            yield from self._range(own_words)
            other = "another device's key" if len(tried) == 1 else "keys of other devices"
            which = f" of device {self.c.device.id}" if self.c.device.id is not None else ""
            offers = f" It offers key {own_words.fingerprint}." if own_words is not None else ""
            yield self.facts.not_checked(
                "SPK301",
                f"Which key is wrong: {names(tried, 'device key')} {'is' if len(tried) == 1 else 'are'} {other}; only"
                f" the private key{which} opens packet {number(self.packet)}.{offers} Add --device-key FILE.",
            )
            return
        sure = own_words is not None or any(self.places.used_by(key, self.c) for key in candidates)
        if proof is not None and not sure:
            # The signature alone explains it; whether this is the device's key is then anybody's guess.
            yield self.facts.not_checked(
                "SPK301",
                f"Whether the device could open packet {number(self.packet)} at all:"
                f" {names(candidates, 'device key')} does not, if it is the device's.",
            )
            return
        yield self._mismatch(candidates, own_words)
        if self.c.device.id is None:
            at = self.facts.identity
            if at is not None:
                yield self.facts.not_checked(
                    "SPK304", f"The device's ID: only the server's private key opens packet {number(at.packet)}."
                )

    def _mismatch(self, candidates: tuple[Key, ...], own_words: Key | None) -> Finding:
        key = candidates[0]
        used = self.places.used_by(key, self.c)
        unsure = bool(self.offer.untried) and own_words is None
        premise = ""
        if own_words is not None:
            because = words.BECAUSE_SAYS_ITSELF.format(key=name(key))
        elif used is not None:
            because = words.BECAUSE_LOGGED_IN_WITH.format(file=file_of(key), packet=number(used.first_packet))
        elif len(candidates) == 1:
            premise = file_of(key)
            because = words.BECAUSE_IF_INSIDE.format(file=premise, check=" (step 1 checks that)")
        else:
            because = words.BECAUSE_IF_AMONG
        ruled_out = []
        if self.offer.signed_by is not None and self.offer.signature == "valid":
            ruled_out.append(RuledOut("SPK303", words.RULED_SIGNATURE.format(key=name(self.offer.signed_by))))
        readings = [self.keys.firmware_reading(candidate) for candidate in candidates]
        if all(reading is not None and reading.ok for reading in readings):
            ruled_out.append(RuledOut("SPK306", words.RULED_READABLE.format(keys=names(candidates, "device key"))))
        finding = self.facts.finding(
            "SPK301",
            Confidence.STRONG if unsure else Confidence.CERTAIN,
            self.blocks(f"do not open with {names(candidates, 'device key')}"),
            because=because,
            ruled_out=tuple(ruled_out),
        )
        finding.fix = (
            *self._check_first(key if premise else None),
            *self._rekey(key if len(candidates) == 1 else None),
        )
        return finding

    def _check_first(self, key: Key | None) -> tuple[str, ...]:
        """The look before the write: is this file what the device holds?"""
        if key is None:
            return ("Put the device in DFU mode (blinking yellow) on USB, and type", DOCTOR, DOCTOR_SENDS)
        return (
            f"Check that {file_of(key)} is the key inside this device. In DFU mode (blinking yellow) on USB (Core; a"
            f" Photon: {PHOTON_DUMP}):",
            DUMP,
            f"  sparkshark keys now.der {shlex.quote(file_of(key))}",
            "One key in both: make a new pair and send it, still in DFU mode.",
            DOCTOR,
            f"· {DOCTOR_SENDS}",
        )

    def _rekey(self, key: Key | None) -> tuple[str, ...]:
        """What the runner of a server can do instead: take the device's own public half."""
        part = self._file_part(key) if key is not None else None
        if key is None or part is None:
            return ()
        form = "" if part == "pem" else "-inform DER "
        return (
            "· Own server: give it this device's public key as DEVICE_ID.pub.pem instead:",
            f"  openssl rsa {form}-in {shlex.quote(file_of(key))} -pubout",
        )

    def _file_part(self, key: Key) -> str | None:
        for file in self.keys.files:
            for part in file.parts:
                if file.name == key.name and part.key.n == key.n and not part.offset:
                    return "pem" if part.pem else "der"
        return None

    def without_device_key(self) -> Said:
        """No private device key was given."""
        proof = self.not_the_trusted_server()
        if proof is not None:
            yield self.impostor(Confidence.CERTAIN, f": {proof}")
        own_words = self.identity.device_key if self.identity is not None else None
        on_file = named_in_registry(self.keys, self.c.device.id)
        if own_words is not None and on_file and all(key.n != own_words.n for key in on_file):
            yield self.facts.finding(
                "SPK301",
                Confidence.CERTAIN,
                Evidence(
                    f'In "who I am" the device offers key {own_words.fingerprint}; on file is {name(on_file[0])}.',
                    (self.packet,),
                ),
                because=words.BECAUSE_IF_ON_FILE.format(file=file_of(on_file[0])),
            )
            return
        ranged = list(self._range(own_words))
        yield from ranged
        if proof is None and self.offer.signature_block_ok is False:
            yield self.impostor(
                Confidence.LIKELY,
                words.BECAUSE_OTHER_SERVER.format(keys=names(self.keys.server_keys, "server key"))
                + " With --device-key FILE it shows whether the device can open the reply at all.",
            )
        if not ranged:
            which = f" of device {self.c.device.id}" if self.c.device.id is not None else ""
            offers = f" The device offers key {own_words.fingerprint}." if own_words is not None else ""
            yield self.facts.not_checked(
                "SPK301",
                f"Which key is wrong: only the device's private key{which} opens packet {number(self.packet)}.{offers}"
                " Add --device-key FILE.",
            )

    def _range(self, own_words: Key | None) -> Iterator[Finding]:
        """Public device keys exclude themselves when a reply is not below their modulus (PROTOCOL 3.3)."""
        if own_words is not None:
            keys: tuple[Key, ...] = (own_words,)
        else:
            public = tuple(key for key in self.keys.device_keys if not key.private)
            keys = self.places.candidates(public, self.c, None)
        if not keys or len(keys) > MOST_TESTED:
            return
        tests = [self.places.reply_test(self.c, key) for key in keys]
        if not all(test.excluded or test.unlikely for test in tests):
            return
        sure = all(test.excluded for test in tests)
        count = max(test.count for test in tests)
        whose = words.OWN_KEY if own_words is not None else names(keys, "device key")
        premise = (
            words.PREMISE_OFFERED.format(key=f" ({own_words.fingerprint})")
            if own_words is not None
            else words.PREMISE_PUBLIC_HALF.format(file=file_of(keys[0]))
            if len(keys) == 1
            else words.BECAUSE_IF_AMONG
        )
        yield self.facts.finding(
            "SPK301",
            Confidence.CERTAIN if sure else Confidence.STRONG,
            Evidence(
                f"{plural(count, 'reply', 'replies')} to this device: "
                + (
                    f"one is too large a number for {whose}, so it was not locked with it."
                    if sure
                    else f"numbers so small have a chance of {max(test.p_value for test in tests):.1g} with {whose}."
                ),
                (self.packet,),
            ),
            because=premise if sure else words.BECAUSE_REPLY_UNLIKELY.format(keys=whose, premise=premise),
        )
