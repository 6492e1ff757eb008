"""The keys of a workload: all from its seed, and quick enough for tens of thousands of logins."""

from __future__ import annotations

import csv
import hashlib
import hmac
import random
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from analyzer.simulate.keys import DEVICE_BITS, PUBLIC_EXPONENT, SERVER_BITS, RsaKey, make_key

DEVICE_KEYS: Final = 16
"""So few that every key belongs to many devices, as in a fleet that was provisioned from one image."""
CREDENTIALS: Final = 40
"""Bytes of a nonce, and of session credentials (PROTOCOL 2.1)."""
DEVICE_ID: Final = 12


class Key:
    """One of the simulator's keys with its numbers worked out."""

    def __init__(self, key: RsaKey) -> None:
        self.pair = key
        self._modulus, self._size = key.n, key.size
        private = load_pem_private_key(key.private_pem(), None)
        assert isinstance(private, RSAPrivateKey)
        self._private = private

    def seal(self, message: bytes, rng: random.Random) -> bytes:
        """RSAES-PKCS1-v1_5 with the public half (PROTOCOL 2.2)."""
        padding = rng.randbytes(self._size - 3 - len(message)).replace(b"\0", b"\1")
        block = b"\x00\x02" + padding + b"\x00" + message
        return pow(int.from_bytes(block, "big"), PUBLIC_EXPONENT, self._modulus).to_bytes(self._size, "big")

    def sign(self, digest: bytes) -> bytes:
        """A type-1 block with the bare digest (PROTOCOL 2.3)."""
        return self._private.sign(digest, PKCS1v15(), NoDigestInfo())


class KeySet:
    """The server's key, the devices' keys, and two that belong to nobody here; knows which device has which."""

    def __init__(self, seed: int) -> None:
        self.server = Key(make_key(seed, "server", SERVER_BITS))
        self.devices = [Key(make_key(seed, f"device-{number}", DEVICE_BITS)) for number in range(DEVICE_KEYS)]
        self.another_server = Key(make_key(seed, "another-server", SERVER_BITS))
        self.another_device = Key(make_key(seed, "another-device", DEVICE_BITS))
        self._owners: dict[bytes, int] = {}

    def device(self, number: int) -> tuple[bytes, int]:
        """Return the ID of a device and the number of its key, and list it in ``devices.csv``."""
        identity = hashlib.sha1(b"device %d" % number, usedforsecurity=False).digest()[:DEVICE_ID]
        return identity, self._owners.setdefault(identity, number % DEVICE_KEYS)

    def reply(self, credentials: bytes, sealed_for: Key, signed_by: Key, rng: random.Random) -> bytes:
        """The server's 384 bytes: session credentials for the device, and the signature of them (PROTOCOL 2.3)."""
        sealed = sealed_for.seal(credentials, rng)
        return sealed + signed_by.sign(hmac.digest(credentials, sealed, "sha1"))

    def write(self, folder: Path) -> None:
        """Write all private and public keys that fit, and ``devices.csv``, which says whose is which."""
        folder.mkdir(parents=True, exist_ok=True)
        _write_pair(self.server, folder / "server_private.pem", folder / "server_public.pem")
        for number, key in enumerate(self.devices):
            _write_pair(key, folder / _file_name(number), folder / f"core_{number:02}.pub.pem")
        with (folder / "devices.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["device_id", "core_key"])
            table.writerows((identity.hex(), _file_name(number)) for identity, number in self._owners.items())


def _file_name(number: int) -> str:
    return f"core_{number:02}.pem"


def _write_pair(key: Key, private: Path, public: Path) -> None:
    private.write_bytes(key.pair.private_pem())
    public.write_bytes(key.pair.public_pem())
