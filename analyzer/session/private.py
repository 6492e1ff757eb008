"""The RSA operations, over many keys: a crypto library answers quickly, the integers of `analyzer.rsa` decide.

The library's answer to a wrong private key is random bytes (PROTOCOL 3.2), so by itself it is never believed: it
tells which keys are not worth the exact arithmetic. An answer that holds what only the right key can give needs none.
Measured for 1024 and 2048 bits: 0.3 and 0.5 ms against 1.2 and 6.3. A signature is the other way about: the library
checks every byte of its block, so what it opens is open, and only its refusal is looked into (0.03 against 0.3 ms).

Nowhere else does the analysis of a capture compute with RSA.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPrivateNumbers,
    RSAPublicKey,
    RSAPublicNumbers,
)

from analyzer import rsa
from analyzer.rsa import PrivateNumbers, PublicNumbers

KEYS_PREPARED: Final = 2_048
"""Keys kept in the library's form, about 10 kB each."""
_PADDING: Final = PKCS1v15()


def open_if_plausible(
    secret: PrivateNumbers,
    block: bytes,
    plausible: Callable[[bytes], bool],
    proven: Callable[[bytes], bool],
) -> bytes | None:
    """Open an encryption block as `rsa.open_block` does, provided that ``plausible`` accepts the message.

    ``proven`` tells of a plausible message that it holds what a wrong key cannot give: as many bytes as a key has
    that are known from elsewhere, or that the message itself authenticates.
    """
    key = _prepared(secret)
    if key is not None:
        try:
            answer = key.decrypt(block, _PADDING)
        # Old libraries raise for a wrong key, all of them for a block that is not below the modulus.
        except ValueError:
            return None
        # For the right key the answer is the message itself; so an implausible one rules this key out.
        if not plausible(answer):
            return None
        if proven(answer):
            return answer
    message = rsa.open_block(secret, block)
    return message if message is not None and plausible(message) else None


def open_signature(public: PublicNumbers, signature: bytes) -> bytes | None:
    """Open a signature block as `rsa.open_signature` does: return what was signed, or None."""
    key = _prepared_public(public)
    if key is not None and len(signature) == public.size:
        try:
            return key.recover_data_from_signature(signature, _PADDING, None)
        except InvalidSignature:
            pass
    return rsa.open_signature(public, signature)


@lru_cache(maxsize=KEYS_PREPARED)
def _prepared_public(public: PublicNumbers) -> RSAPublicKey | None:
    """Return the library's form of a public key; None when the library will not have it."""
    try:
        return RSAPublicNumbers(public.e, public.n).public_key()
    except ValueError:
        return None


@lru_cache(maxsize=KEYS_PREPARED)
def _prepared(secret: PrivateNumbers) -> RSAPrivateKey | None:
    """Return the library's form of a key; None when the key is damaged or the library will not have it."""
    if not secret.consistent:
        return None
    public = RSAPublicNumbers(secret.e, secret.n)
    numbers = RSAPrivateNumbers(secret.p, secret.q, secret.d, secret.dp, secret.dq, secret.qinv, public)
    try:
        return numbers.private_key(unsafe_skip_rsa_key_validation=True)
    except ValueError:
        return None
