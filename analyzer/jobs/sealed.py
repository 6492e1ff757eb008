"""Secrets on their way to other machines and back.

What a scheduler holds for a while it may log, and what a worker holds it may move to its disk when memory gets short.
So the keys travel as arguments alone, which are not moved there, inside something that shows nothing of itself; and
what comes back, with session keys and messages in it, is encrypted with a key that exists for one run.
"""

from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if TYPE_CHECKING:
    from analyzer.keys import KeyRing
    from analyzer.part import Part

NONCE: Final = 12
"""Bytes; each message of a run has one of its own."""


class Envelope:
    """The key ring for those who need it (None when there is none), and what closes their answers."""

    __slots__ = ("_key", "keys")

    def __init__(self, keys: KeyRing | None) -> None:
        self.keys = keys
        self._key = AESGCM.generate_key(bit_length=128)

    def __repr__(self) -> str:
        return "<keys>"

    def __getstate__(self) -> tuple[KeyRing | None, bytes]:
        return self.keys, self._key

    def __setstate__(self, state: tuple[KeyRing | None, bytes]) -> None:
        self.keys, self._key = state

    def closed(self, part: Part) -> bytes:
        """Return what only the holder of this envelope can open."""
        nonce = os.urandom(NONCE)
        return nonce + AESGCM(self._key).encrypt(nonce, pickle.dumps(part, pickle.HIGHEST_PROTOCOL), None)

    def opened(self, closed: bytes) -> Part:
        """Return what a worker has closed."""
        part: Part = pickle.loads(AESGCM(self._key).decrypt(closed[:NONCE], closed[NONCE:], None))  # noqa: S301
        return part
