"""RSA with integers, and the PKCS#1 v1.5 block checks that a crypto library no longer lets its callers see.

Current OpenSSL answers a wrong PKCS#1 v1.5 key with random bytes instead of an error (PROTOCOL 3.2), so "no
exception" proves nothing. Here the private operation is bare arithmetic and every byte of the block is looked
at. It decrypts traffic that was captured; it is not constant-time and must never serve as somebody's live
key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

LEAST_PADDING: Final = 8
"""Nonzero bytes that PKCS#1 v1.5 demands between `00 02` and the next `00` (RFC 8017, 7.2.1)."""

SMALLEST_MODULUS_BITS: Final = 256
"""Below this a modulus is rubbish that only looks like a key; none of this protocol is below 1024."""

LARGEST_MODULUS_BITS: Final = 8192
"""No key of this protocol exceeds 2048 bits; beyond this the arithmetic would only burn time on rubbish."""


@dataclass(frozen=True, slots=True)
class PublicNumbers:
    """Modulus ``n`` and exponent ``e`` of an RSA public key."""

    n: int
    e: int

    @property
    def size(self) -> int:
        """Length of the modulus, and so of each block, in bytes."""
        return (self.n.bit_length() + 7) // 8


@dataclass(frozen=True, slots=True)
class PrivateNumbers:
    """The eight integers of a PKCS#1 private key. ``p`` and ``q`` may be 0 when only ``d`` is known."""

    n: int
    e: int
    d: int = field(repr=False)
    p: int = field(default=0, repr=False)
    q: int = field(default=0, repr=False)
    dp: int = field(default=0, repr=False)
    dq: int = field(default=0, repr=False)
    qinv: int = field(default=0, repr=False)

    @property
    def consistent(self) -> bool:
        """Whether all eight numbers fit each other, as they do in every undamaged key file."""
        if self.p < 3 or self.q < 3 or self.p * self.q != self.n:
            return False
        return (
            self.e * self.dp % (self.p - 1) == 1
            and self.e * self.dq % (self.q - 1) == 1
            and self.d % (self.p - 1) == self.dp
            and self.d % (self.q - 1) == self.dq
            and self.qinv * self.q % self.p == 1
        )

    @property
    def public(self) -> PublicNumbers:
        """The public half."""
        return PublicNumbers(self.n, self.e)

    @property
    def size(self) -> int:
        """Length of the modulus, and so of each block, in bytes."""
        return (self.n.bit_length() + 7) // 8


def open_block(key: PrivateNumbers, ciphertext: bytes) -> bytes | None:
    """Open an RSAES-PKCS1-v1_5 block: return the message (0 to size - 11 bytes), or None for a wrong key.

    None as well when the block has another length than the modulus or is not below it, when the key's numbers
    contradict each other, and when any byte of the block `00 02 | 8 or more nonzero bytes | 00 | message` is
    not as it must be. A wrong key still passes about once in 10^5, so the caller must judge the message too.
    """
    block = _private_block(key, ciphertext)
    if block is None or block[:2] != b"\x00\x02":
        return None
    end = block.find(0, 2)
    if end < 2 + LEAST_PADDING:
        return None
    return block[end + 1 :]


def open_signature(key: PublicNumbers, signature: bytes) -> bytes | None:
    """Open a signature block with the signer's public key: return what was signed, or None.

    The block must be `00 01 | FF, 8 or more | 00 | content` (PROTOCOL 2.3: the content is a bare HMAC-SHA1 of
    20 bytes). For a wrong key that passes in less than one of 2^80 cases, and with a 20-byte content never.
    """
    if not _usable(key.n) or len(signature) != key.size or not 1 < key.e < key.n:
        return None
    value = int.from_bytes(signature, "big")
    if value >= key.n:
        return None
    block = pow(value, key.e, key.n).to_bytes(key.size, "big")
    if block[:2] != b"\x00\x01":
        return None
    end = block.find(0, 2)
    if end < 2 + LEAST_PADDING or block[2:end].strip(b"\xff"):
        return None
    return block[end + 1 :]


def seal_block(key: PublicNumbers, message: bytes, padding: bytes) -> bytes:
    """Make an RSAES-PKCS1-v1_5 block with the given padding, which must be nonzero bytes of the right number.

    Raises ValueError when it does not fit. For synthetic captures and tests.
    """
    if len(padding) != key.size - 3 - len(message) or len(padding) < LEAST_PADDING or 0 in padding:
        raise ValueError(f"{key.size - 3 - len(message)} nonzero padding bytes are needed, not {len(padding)}")
    value = int.from_bytes(b"\x00\x02" + padding + b"\x00" + message, "big")
    return pow(value, key.e, key.n).to_bytes(key.size, "big")


def sign_block(key: PrivateNumbers, content: bytes) -> bytes:
    """Make the signature block over the bare content, as the servers do (PROTOCOL 2.3).

    Raises ValueError when the content does not fit or the key's numbers contradict each other.
    """
    filler = key.size - 3 - len(content)
    if filler < LEAST_PADDING:
        raise ValueError(f"{len(content)} bytes do not fit a signature block of {key.size}")
    block = b"\x00\x01" + b"\xff" * filler + b"\x00" + content
    signature = _private_block(key, block)
    if signature is None:
        raise ValueError("the numbers of this private key contradict each other")
    return signature


def _private_block(key: PrivateNumbers, block: bytes) -> bytes | None:
    if not _usable(key.n) or len(block) != key.size or not 1 < key.e < key.n:
        return None
    value = int.from_bytes(block, "big")
    if value >= key.n:
        return None
    for private_operation in (_by_remainders, _by_exponent):
        result = private_operation(key, value)
        # Raising to e again costs 2 % of the work and catches every damaged number in the key file.
        if result is not None and pow(result, key.e, key.n) == value:
            return result.to_bytes(key.size, "big")
    return None


def _by_remainders(key: PrivateNumbers, value: int) -> int | None:
    """Work modulo p and q and join the halves (RFC 8017, 5.1.2): four times as fast as with d."""
    if key.p < 3 or key.q < 3 or key.p * key.q != key.n or not (0 < key.dp < key.p and 0 < key.dq < key.q):
        return None
    at_q = pow(value % key.q, key.dq, key.q)
    at_p = pow(value % key.p, key.dp, key.p)
    return at_q + key.q * ((at_p - at_q) * key.qinv % key.p)


def _by_exponent(key: PrivateNumbers, value: int) -> int | None:
    return pow(value, key.d, key.n) if 0 < key.d < key.n else None


def _usable(n: int) -> bool:
    return n & 1 == 1 and SMALLEST_MODULUS_BITS <= n.bit_length() <= LARGEST_MODULUS_BITS
