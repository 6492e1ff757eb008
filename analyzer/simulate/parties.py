"""A device and a server with their keys, and the cipher of their frames."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from analyzer.catalogue import BLOCK, LENGTH_PREFIX
from analyzer.simulate.keys import RsaKey
from analyzer.simulate.messages import Dialect, Firmware
from analyzer.simulate.wire import Host

RECONNECT: Final = 1.2
"""Seconds that a Core of 2014 takes to dial again; it has no back-off (PROTOCOL 2.6)."""


class FrameCipher:
    """AES-128-CBC of one direction; the next IV is the first block of the frame before (PROTOCOL 4.4)."""

    def __init__(self, key: bytes, iv: bytes) -> None:
        self.key = key
        self.iv = iv

    def seal(self, message: bytes) -> bytes:
        """One frame as it goes over the wire: length, then ciphertext."""
        fill = BLOCK - len(message) % BLOCK
        encryptor = Cipher(algorithms.AES128(self.key), modes.CBC(self.iv)).encryptor()
        ciphertext = encryptor.update(message + bytes([fill]) * fill) + encryptor.finalize()
        self.iv = ciphertext[:BLOCK]
        return len(ciphertext).to_bytes(LENGTH_PREFIX, "big") + ciphertext


@dataclass(slots=True)
class Device:
    """A Core or Photon, with what it keeps from one connection to the next.

    Key, IV chain and counters are all zero after power-up and survive a reconnect: a Core of 2014 uses them
    even after a failed handshake (PROTOCOL 9.2).
    """

    name: str
    firmware: Firmware
    device_id: bytes
    key: RsaKey
    trusts: RsaKey
    """The server key it holds; encrypting for it takes the public half only."""
    trusts_name: str
    host: Host
    next_port: int
    cipher: FrameCipher = field(default_factory=lambda: FrameCipher(bytes(BLOCK), bytes(BLOCK)))
    message_id: int = 0
    token: int = 0
    attempts: int = 0
    failures: int = 0
    unanswered_ping: bool = False

    def next_message_id(self) -> int:
        """Count up by one (PROTOCOL 4.2)."""
        self.message_id = (self.message_id + 1) % 0x10000
        return self.message_id

    def next_token(self) -> int:
        """Count up before or after use, as the generation does (PROTOCOL 4.2)."""
        before = self.token
        self.token = (self.token + 1) % 0x100
        return before if self.firmware.post_increment_token else self.token

    def use(self, blob: bytes, randomness: random.Random) -> None:
        """Take over a session key (PROTOCOL 4.1, 4.2)."""
        self.cipher = FrameCipher(blob[:16], blob[16:32])
        self.message_id = int.from_bytes(blob[32:34], "little" if self.firmware.seed_low_byte_first else "big")
        self.token = randomness.randrange(256) if self.firmware.post_increment_token else blob[34]
        self.unanswered_ping = False

    def reset(self) -> None:
        """Restart: key, IV chain and counters are all zero again."""
        self.cipher = FrameCipher(bytes(BLOCK), bytes(BLOCK))
        self.message_id = self.token = 0
        self.unanswered_ping = False

    def pause(self) -> float:
        """Return the seconds until the next attempt (PROTOCOL 2.6)."""
        if not self.firmware.ends_failed_handshake:
            return RECONNECT
        return float(1 << min(7, max(0, self.failures - 1) // 5))


@dataclass(slots=True)
class Server:
    """A cloud server with its key and its registry of devices."""

    name: str
    dialect: Dialect
    key: RsaKey
    host: Host
    signer: RsaKey
    signer_name: str
    registry: dict[bytes, tuple[str, RsaKey]] = field(default_factory=dict)
    """Device id → name and key on file (only the public half is used)."""
