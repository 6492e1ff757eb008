"""The private operation over many keys: a crypto library refuses quickly, the integers of `analyzer.rsa` decide.

The library's answer to a wrong key is random bytes (PROTOCOL 3.2), so by itself it is never believed: it tells which
keys are not worth the exact arithmetic. An answer that holds what only the right key can give needs none. Measured
for 1024 and 2048 bits: 0.3 and 0.5 ms against 1.2 and 6.3.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPrivateNumbers, RSAPublicNumbers

from analyzer import rsa
from analyzer.rsa import PrivateNumbers

KEYS_PREPARED: Final = 2_048
"""Keys kept in the library's form, about 10 kB each."""


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
            answer = key.decrypt(block, PKCS1v15())
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
