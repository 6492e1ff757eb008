"""Opens a handshake's sealed parts: the identity with the server's key, the offer with the device's.

PROTOCOL 3 says what each key opens and how sure that is. An opened part is believed for its length, the
echoed nonce or the HMAC, never because nothing raised.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Final, Literal

from analyzer.catalogue import (
    DEVICE_ID_SIZE,
    IDENTITY_SIZE,
    NONCE_SIZE,
    SEALED_KEY_SIZE,
    SESSION_KEY_SIZE,
    SESSION_SIZE,
)
from analyzer.keys.keylog import SessionKey
from analyzer.keys.model import Key
from analyzer.keys.ring import KeyRing
from analyzer.keys.structures import read_structure
from analyzer.secrecy import forgetful
from analyzer.session.private import open_if_plausible, open_signature

DEVICE_SPKI_SIZE: Final = 162
CORE_IDENTITY: Final = NONCE_SIZE + DEVICE_ID_SIZE
PHOTON_IDENTITY: Final = CORE_IDENTITY + DEVICE_SPKI_SIZE
HMAC_SIZE: Final = 20
MODULUS_IN_SPKI: Final = (29, 157)
"""From and to: the 128 bytes that the firmware copies blindly out of its private-key slot (PROTOCOL 2.2)."""

MOST_TRIES: Final = 20_000
"""RSA private operations spent on one capture for keys that nothing points to: 6 s with device keys, 10 s with
server keys. Keys that the identity, a file name or the last success points to are
always tried."""
SERVER_KEYS_ALWAYS: Final = 8
"""Server keys tried on each identity even when that share is spent; nobody runs more servers than this."""
MOST_DEVICES: Final = 4_096
"""Devices whose last good key is remembered."""

EC_MARKS: Final = (b"\x2a\x86\x48\xce\x3d", b"\x77")
"""Part of the object id of elliptic-curve keys anywhere, or the first byte that the walk finds in such a key."""
SMALL_PRIMES: Final = (3, 5, 7, 11, 13, 17, 19)
ERASED_END: Final = b"\xff" * 8

KEY_TROUBLE: Final = {
    "elliptic-curve": "part of an elliptic-curve key",
    "erased": "an erased slot",
    "ends-erased": "a slot that ends in erased flash",
    "text": "text",
    "even": "an even number",
    "none": "no RSA key",
    "top-bit": "a number with its top bit clear",
    "small-factors": "a number with small factors",
}
"""What a device offers in the place of its public key (DIAGNOSES, SPK305)."""
SOURCE_IDENTITY: Final = "the identity"

NOTE_LENGTH: Final = "it holds {length} bytes, not a bare HMAC of {wanted}"
NOTE_HMAC: Final = "its HMAC is not that of the first 128 bytes"
NOTE_OTHER_SIGNER: Final = "signed by another server than the one the device trusts"

SignatureState = Literal["valid", "invalid", "not-checked"]


# --- message 2: the identity ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Identity:
    """Message 2, opened (PROTOCOL 2.2).

    ``nonce_matches`` is None when the nonce is not known. ``device_key`` is the public key that the device
    offers (only when ``plaintext_length`` is 214), None when the 162 bytes are no usable RSA key; then
    ``key_trouble`` says what they look like (DIAGNOSES, SPK305). ``offered`` holds them as they are.
    """

    opened_by: Key
    plaintext_length: int
    nonce: bytes
    nonce_matches: bool | None
    device_id: str | None
    offered: bytes | None = None
    device_key: Key | None = None
    key_trouble: str | None = None


@forgetful
def open_identity(block: bytes, server_keys: Iterable[Key], nonce: bytes | None) -> Identity | None:
    """Open message 2 (256 bytes) with the first of the server's private keys that fits; None when none does.

    It counts as opened when the plaintext has the length of an identity (52 or 214 bytes: a wrong key does
    that in one of 10^7 cases) or begins with ``nonce``. Keys without their private half are passed over.
    """
    if len(block) != IDENTITY_SIZE:
        return None

    def echoes(plaintext: bytes) -> bool:
        return plaintext[:NONCE_SIZE] == nonce

    def plausible(plaintext: bytes) -> bool:
        return echoes(plaintext) or len(plaintext) in (CORE_IDENTITY, PHOTON_IDENTITY)

    for key in server_keys:
        plaintext = open_if_plausible(key.secret, block, plausible, echoes) if key.secret else None
        if plaintext is not None:
            return _identity(key, plaintext, None if nonce is None else plaintext[:NONCE_SIZE] == nonce)
    return None


def _identity(key: Key, plaintext: bytes, nonce_matches: bool | None) -> Identity:
    device_id = plaintext[NONCE_SIZE:CORE_IDENTITY]
    offered = plaintext[CORE_IDENTITY:] or None
    device_key, trouble = _offered_key(offered) if offered is not None else (None, None)
    return Identity(
        key,
        len(plaintext),
        plaintext[:NONCE_SIZE],
        nonce_matches,
        device_id.hex() if len(device_id) == DEVICE_ID_SIZE else None,
        offered,
        device_key,
        trouble,
    )


def _offered_key(spki: bytes) -> tuple[Key | None, str | None]:
    """Read the public key behind the device id, or say what the device copied there in its place."""
    modulus = spki[slice(*MODULUS_IN_SPKI)]
    found = read_structure(spki)
    if EC_MARKS[0] in modulus or modulus[:1] == EC_MARKS[1]:
        return None, KEY_TROUBLE["elliptic-curve"]
    if not modulus.strip(b"\xff") or not modulus.strip(b"\x00"):
        return None, KEY_TROUBLE["erased"]
    if modulus.endswith(ERASED_END):
        return None, KEY_TROUBLE["ends-erased"]
    if not modulus.translate(None, b"\r\n" + bytes(range(32, 127))):
        return None, KEY_TROUBLE["text"]
    if found is None or found.public is None:
        return None, KEY_TROUBLE["even" if modulus and not modulus[-1] & 1 else "none"]
    if not modulus[0] & 0x80:
        return None, KEY_TROUBLE["top-bit"]
    if any(found.public.n % prime == 0 for prime in SMALL_PRIMES):
        return None, KEY_TROUBLE["small-factors"]
    return Key(found.public, None, (SOURCE_IDENTITY,)), None


# --- message 3: the session offer -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Offer:
    """Message 3, as far as the keys at hand go (PROTOCOL 2.3, 3.1).

    ``opened`` is None when there was no device key to try; False says that each of ``tried`` keys fails, and
    only with ``untried`` 0 that all do. ``signature`` is "valid" when the server expected to sign did sign,
    "invalid" when none of the server keys at hand did, another one did, or the HMAC is wrong.
    ``signature_block_ok`` is the same question without the HMAC, so without a device key. ``signed_by`` is
    whose key opens the signature, even when another's was expected. ``signature_note`` words what is odd
    about it.
    """

    opened: bool | None = None
    opened_by: Key | None = None
    credentials: SessionKey | None = None
    tried: int = 0
    untried: int = 0
    signature: SignatureState = "not-checked"
    signature_block_ok: bool | None = None
    signed_by: Key | None = None
    signature_note: str | None = None
    identity_key_differs: bool | None = None
    """True when the key that opens it is not the one the identity carried: the server's record is stale."""


@forgetful
def open_offer(
    block: bytes,
    device_keys: Iterable[Key],
    server_keys: Iterable[Key],
    *,
    expected_signer: Key | None = None,
    untried: int = 0,
) -> Offer:
    """Open message 3 (384 bytes) with the first device key that fits, and check its signature.

    ``device_keys`` are tried in order (those with their private half); ``server_keys`` need only their public
    half. ``expected_signer`` is the server key this device is known to trust, because it encrypted its
    identity to it: another key's signature, however good, is then invalid. A wrong device key passes for
    right once in 2.5 * 10^7 cases (PROTOCOL 3.2). Another length than 384 leaves everything unknown.
    """
    if len(block) != SESSION_SIZE:
        return Offer(untried=untried)
    sealed, signature = block[:SEALED_KEY_SIZE], block[SEALED_KEY_SIZE:]
    signers = _signers(signature, server_keys, expected_signer)
    signed = {content for _, content in signers if content is not None}

    def is_signed(plaintext: bytes) -> bool:
        return hmac.digest(plaintext, sealed, hashlib.sha1) in signed

    tried, opened_by, blob = 0, None, None
    for key in device_keys:
        if key.secret is None:
            continue
        tried += 1
        blob = open_if_plausible(key.secret, sealed, lambda plaintext: len(plaintext) == SESSION_KEY_SIZE, is_signed)
        if blob is not None:
            opened_by = key
            break

    checked = _check_signature(sealed, blob, signers, expected_signer)
    return Offer(
        None if not tried else opened_by is not None,
        opened_by,
        None if blob is None else SessionKey.from_blob(blob),
        tried,
        untried,
        *checked,
    )


def _signers(signature: bytes, server_keys: Iterable[Key], expected: Key | None) -> list[tuple[Key, bytes | None]]:
    """Return the server keys that may have signed, each with what the signature holds under it.

    The list ends with the first that opens it: no second one does.
    """
    candidates = list(server_keys)
    if expected is not None and expected.n not in {key.n for key in candidates}:
        candidates.insert(0, expected)
    signers: list[tuple[Key, bytes | None]] = []
    for key in candidates:
        content = open_signature(key.public, signature)
        signers.append((key, content))
        if content is not None:
            break
    return signers


def _check_signature(
    sealed: bytes, blob: bytes | None, signers: list[tuple[Key, bytes | None]], expected: Key | None
) -> tuple[SignatureState, bool | None, Key | None, str | None]:
    if not signers:
        return "not-checked", None, None, None
    for key, content in signers:
        if content is None:
            continue
        if len(content) != HMAC_SIZE:
            return "invalid", False, key, NOTE_LENGTH.format(length=len(content), wanted=HMAC_SIZE)
        if blob is not None and not hmac.compare_digest(content, hmac.digest(blob, sealed, hashlib.sha1)):
            return "invalid", True, key, NOTE_HMAC
        if expected is not None and key.n != expected.n:
            return "invalid", True, key, NOTE_OTHER_SIGNER
        return "valid", True, key, None
    return "invalid", False, None, None


# --- which key to try first -------------------------------------------------------------------------------


class SessionOpener:
    """Opens the handshakes of a capture with the keys of a ring, trying the likely ones first.

    Likely are, in this order: the key whose public half the identity carries, keys in files named after the
    device id, the one that a table of devices names, the key that last worked for this device, those that last
    worked for others. All further keys are tried as long as the capture's share of `MOST_TRIES` lasts.
    """

    def __init__(self, keys: KeyRing) -> None:
        self._ring = keys
        self._tries_left = MOST_TRIES
        self._last: OrderedDict[Hashable, Key] = OrderedDict()
        self._recent_device = _Recent(keys.device_private)
        self._recent_server = _Recent(keys.server_private)

    def identity(self, block: bytes, nonce: bytes | None) -> Identity | None:
        """Open message 2; None when no server key opens it."""
        keys = list(islice(self._recent_server, max(self._tries_left, SERVER_KEYS_ALWAYS)))
        found = open_identity(block, keys, nonce)
        if found is None:
            self._tries_left -= len(keys)
        else:
            self._recent_server.note(found.opened_by)
        return found

    def offer(self, block: bytes, identity: Identity | None, device: Hashable = None) -> Offer:
        """Open message 3 of ``device`` (whatever tells devices apart, its IP address say)."""
        pointed_to = {key.n: key for key in self._pointed_to(identity, device)}
        others = len(self._recent_device) - sum(n in self._recent_device for n in pointed_to)
        allowed = min(others, max(self._tries_left, 0))
        rest = (key for key in self._recent_device if key.n not in pointed_to)
        expected = identity.opened_by if identity is not None and identity.nonce_matches else None
        found = open_offer(
            block,
            chain(pointed_to.values(), islice(rest, allowed)),
            self._ring.server_keys,
            expected_signer=expected,
            untried=others - allowed,
        )
        self._tries_left -= max(found.tried - len(pointed_to), 0)
        if found.opened_by is None:
            return found
        self._recent_device.note(found.opened_by)
        self._last[device] = found.opened_by
        self._last.move_to_end(device)
        if len(self._last) > MOST_DEVICES:
            self._last.popitem(last=False)
        return _compared(found, identity)

    def _pointed_to(self, identity: Identity | None, device: Hashable) -> Iterable[Key]:
        if identity is not None and identity.device_key is not None:
            named = self._ring.key_with_modulus(identity.device_key.n)
            if named is not None and named.private:
                yield named
        if identity is not None and identity.device_id is not None:
            yield from (key for key in self._ring.likely_keys(identity.device_id) if key.private)
        if device in self._last:
            yield self._last[device]


def _compared(offer: Offer, identity: Identity | None) -> Offer:
    if identity is None or identity.device_key is None or offer.opened_by is None:
        return offer
    return replace(offer, identity_key_differs=identity.device_key.n != offer.opened_by.n)


class _Recent:
    """Keys in the order in which they last worked, the untested ones behind."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = OrderedDict((key.n, key) for key in keys)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys.values())

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, n: int) -> bool:
        return n in self._keys

    def note(self, key: Key) -> None:
        if key.n in self._keys:
            self._keys.move_to_end(key.n, last=False)
