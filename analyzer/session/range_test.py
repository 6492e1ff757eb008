"""Excludes wrong keys with public keys alone: an RSA block is a number below its modulus (PROTOCOL 3.3)."""

from __future__ import annotations

import hashlib
from typing import Final

MOST_RANGE_VALUES: Final = 4_096
"""Blocks that one test counts; its power is spent long before."""
UNLIKELY: Final = 0.01
"""Below this a key was probably not used (DIAGNOSES 0.6)."""


class RangeTest:
    """Asks whether a public key can be the one that a series of RSA blocks was made for (PROTOCOL 3.3).

    A block is a number below its modulus, so one that is not below ``n`` excludes this key for certain.
    Without such a block it only grows unlikely: were the key right, all blocks would stay as far below ``n``
    as they do with probability ``p_value``. "Not excluded" never means that the key fits.
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self._size = (n.bit_length() + 7) // 8
        self._largest = 0
        self._seen: set[bytes] = set()

    def add(self, block: bytes) -> None:
        """Add one handshake's block. Repeats of the same block and blocks of another length do not count."""
        digest = hashlib.sha256(block).digest()
        if len(block) != self._size or digest in self._seen or len(self._seen) >= MOST_RANGE_VALUES:
            return
        self._seen.add(digest)
        self._largest = max(self._largest, int.from_bytes(block, "big"))

    @property
    def count(self) -> int:
        """Independent blocks seen."""
        return len(self._seen)

    @property
    def excluded(self) -> bool:
        """Whether a block proves that this key was not used."""
        return self.count > 0 and self._largest >= self._n

    @property
    def p_value(self) -> float:
        """Chance of such small blocks if the key were right, (largest / n) ** count; 1 with none seen."""
        if self.excluded:
            return 0.0
        return float((self._largest / self._n) ** self.count) if self.count else 1.0

    @property
    def unlikely(self) -> bool:
        """Whether the key was probably not used: p below `UNLIKELY`."""
        return self.p_value < UNLIKELY
