"""Throw-away RSA keys that come from a seed, and the three RSA operations of the handshake (PROTOCOL 2).

A key generator of the operating system cannot be seeded, and a simulation must give the same bytes for the
same seed. So primes are searched here, from a seeded source. That makes these keys worthless as secrets,
which is what keys for practice captures should be.
"""

from __future__ import annotations

import base64
import random
import textwrap
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

DEVICE_BITS: Final = 1024
SERVER_BITS: Final = 2048
PUBLIC_EXPONENT: Final = 65537
"""The firmware's parser takes it for granted (PROTOCOL 8.4)."""

_SIEVE_LIMIT: Final = 4000
"""Trial division up to here rejects about 93 % of odd candidates, at a fraction of the cost of one pow()."""
_MILLER_RABIN_ROUNDS: Final = 8
"""For random candidates of 512 bits and more, the chance that a composite survives is below 2^-100."""


class SealingError(ValueError):
    """The message does not fit the key."""


@dataclass(frozen=True, slots=True)
class RsaKey:
    """One RSA key pair, e = 65537."""

    p: int = field(repr=False)
    q: int = field(repr=False)

    @property
    def n(self) -> int:
        """The modulus."""
        return self.p * self.q

    @property
    def d(self) -> int:
        """The private exponent, modulo (p-1)(q-1) as the tools of 2014 wrote it."""
        return pow(PUBLIC_EXPONENT, -1, (self.p - 1) * (self.q - 1))

    @property
    def size(self) -> int:
        """Bytes of the modulus, which is the size of everything sealed or signed with this key."""
        return (self.n.bit_length() + 7) // 8

    def seal(self, message: bytes, randomness: random.Random) -> bytes:
        """RSAES-PKCS1-v1_5 with the public half: ``00 02 | non-zero bytes | 00 | message`` (PROTOCOL 2.2)."""
        fill = self.size - 3 - len(message)
        if fill < 8:
            raise SealingError(f"{len(message)} bytes do not fit a key of {self.size} bytes")
        padding = bytes(randomness.randint(1, 255) for _ in range(fill))
        return self._public(b"\x00\x02" + padding + b"\x00" + message)

    def sign(self, digest: bytes) -> bytes:
        """Sign with the private half: a type-1 block with the bare digest, no DigestInfo (PROTOCOL 2.3)."""
        fill = self.size - 3 - len(digest)
        if fill < 8:
            raise SealingError(f"{len(digest)} bytes do not fit a key of {self.size} bytes")
        return self._private(b"\x00\x01" + b"\xff" * fill + b"\x00" + digest)

    def _public(self, block: bytes) -> bytes:
        return pow(int.from_bytes(block, "big"), PUBLIC_EXPONENT, self.n).to_bytes(self.size, "big")

    def _private(self, block: bytes) -> bytes:
        return pow(int.from_bytes(block, "big"), self.d, self.n).to_bytes(self.size, "big")

    def private_der(self) -> bytes:
        """PKCS#1, the form in a device's flash (PROTOCOL 8.1)."""
        p, q, d = self.p, self.q, self.d
        return _sequence(
            *(
                _integer(value)
                for value in (0, self.n, PUBLIC_EXPONENT, d, p, q, d % (p - 1), d % (q - 1), pow(q, -1, p))
            )
        )

    def private_pem(self) -> bytes:
        """PKCS#1 in PEM, as a server keeps it."""
        return _pem("RSA PRIVATE KEY", self.private_der())

    def public_der(self) -> bytes:
        """SubjectPublicKeyInfo: 162 bytes for a device, 294 for a server (PROTOCOL 8.1)."""
        rsa_encryption = bytes.fromhex("300d06092a864886f70d0101010500")
        inner = _sequence(_integer(self.n), _integer(PUBLIC_EXPONENT))
        return _sequence(rsa_encryption, _tagged(0x03, b"\x00" + inner))

    def public_pem(self) -> bytes:
        """SubjectPublicKeyInfo in PEM, as a server's registry keeps it."""
        return _pem("PUBLIC KEY", self.public_der())


@lru_cache(maxsize=64)
def make_key(seed: int, name: str, bits: int, *, short_integer: bool = False) -> RsaKey:
    """Return the key pair that belongs to this seed and name; the same one each time.

    Keys with a short INTEGER are passed over: the firmware cannot read them (PROTOCOL 8.4), and about one key
    in a hundred would quietly turn a healthy scenario into that other fault. With `short_integer` it is one of
    those.
    """
    randomness = random.Random(f"{seed}/key/{name}/{bits}")
    p = _prime(bits // 2, randomness)
    while True:
        q = _prime(bits // 2, randomness)
        if p != q and _full_width(RsaKey(p, q), bits) is not short_integer:
            return RsaKey(p, q)


def _full_width(key: RsaKey, bits: int) -> bool:
    half = bits // 2
    shortest_half = min(key.d % (key.p - 1), key.d % (key.q - 1), pow(key.q, -1, key.p))
    return key.d.bit_length() >= bits - 8 and shortest_half.bit_length() >= half - 8


def _prime(bits: int, randomness: random.Random) -> int:
    """Find a prime with its two top bits set, so that the product of two has twice the size."""
    while True:
        candidate = randomness.getrandbits(bits) | (0b11 << (bits - 2)) | 1
        if any(candidate % prime == 0 for prime in _small_primes()):
            continue
        if candidate % PUBLIC_EXPONENT != 1 and _passes_miller_rabin(candidate, randomness):
            return candidate


@lru_cache(maxsize=1)
def _small_primes() -> tuple[int, ...]:
    return tuple(n for n in range(3, _SIEVE_LIMIT, 2) if all(n % k for k in range(3, int(n**0.5) + 1, 2)))


def _passes_miller_rabin(candidate: int, randomness: random.Random) -> bool:
    twos = ((candidate - 1) & -(candidate - 1)).bit_length() - 1
    odd = (candidate - 1) >> twos
    for _ in range(_MILLER_RABIN_ROUNDS):
        power = pow(randomness.randrange(2, candidate - 1), odd, candidate)
        if power in {1, candidate - 1}:
            continue
        for _ in range(twos - 1):
            power = power * power % candidate
            if power == candidate - 1:
                break
        else:
            return False
    return True


def _integer(value: int) -> bytes:
    return _tagged(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _sequence(*parts: bytes) -> bytes:
    return _tagged(0x30, b"".join(parts))


def _tagged(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + length.to_bytes(size, "big") + content


def _pem(label: str, der: bytes) -> bytes:
    body = "\n".join(textwrap.wrap(base64.b64encode(der).decode("ascii"), 64))
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n".encode("ascii")
