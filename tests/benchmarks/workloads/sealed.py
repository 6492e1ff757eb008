"""Frames: messages under AES-128-CBC, each direction a chain of its own (PROTOCOL 4.4)."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

BLOCK = 16


class Sealer:
    """Makes the frames of one session, both directions."""

    def __init__(self, credentials: bytes) -> None:
        self._aes = algorithms.AES(credentials[:16])
        self._vectors = [credentials[16:32], credentials[16:32]]

    def frame(self, sender: int, plaintext: bytes) -> bytes:
        """Length and ciphertext of the sender's next message."""
        missing = BLOCK - len(plaintext) % BLOCK
        encryptor = Cipher(self._aes, modes.CBC(self._vectors[sender])).encryptor()
        ciphertext = encryptor.update(plaintext + bytes([missing]) * missing)
        self._vectors[sender] = ciphertext[:BLOCK]
        return len(ciphertext).to_bytes(2, "big") + ciphertext
