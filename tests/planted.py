"""Captures with all keys that open them, and every secret among these by name."""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from canaries import Secret
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from analyzer import KeyRing, analyze

CAPTURES: Final = Path(__file__).resolve().parent.parent / "captures"
SHOWN: Final = "healthy-full", "bad-signature", "photon-fast-ota"
"""Captures with everything that a key matters to: messages, an offer with a wrong signature, an update."""
KEYS: Final = "core-a", "photon-a", "server", "other-server"
PASSWORD: Final = b"Zwetschgenroester-mit-Zimt-und-Nelke"
NUMBERS: Final = "d", "p", "q", "dp", "dq", "qinv"


class Planted:
    """A folder: ``captures`` (a folder as well), ``keys``, ``locked`` (a key with a password), ``password``, ``log``.

    ``secrets`` are those of all captures and keys; ``session`` are the digits of one session's key.
    """

    def __init__(self, place: Path) -> None:
        self.captures, self.keys = place / "captures", place / "keys"
        self.locked, self.password, self.log = place / "locked.pem", place / "password", place / "sessions.keylog"
        for folder in (self.captures, self.keys):
            folder.mkdir()
        for name in SHOWN:
            shutil.copy(CAPTURES / f"{name}.pcap", self.captures)
        for name in KEYS:
            for suffix in (".pem", ".der", ".pub.pem"):
                shutil.copy(CAPTURES / "keys" / f"{name}{suffix}", self.keys)
        key = load_pem_private_key((self.keys / "core-a.pem").read_bytes(), None)
        locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSWORD))
        self.locked.write_bytes(locked)
        self.password.write_bytes(PASSWORD + b"\n")
        sessions = [session for name in SHOWN for session in _sessions(name)]
        lines = (f"SPARK_SESSION {session['nonce']} {blob(session).hex()}\n" for session in sessions)
        self.log.write_text("".join(lines), encoding="ascii")
        self.session = blob(sessions[0]).hex()
        self.secrets = [Secret("password", PASSWORD), *self._numbers(), *self._of_sessions(sessions)]

    def _numbers(self) -> Iterator[Secret]:
        for key in KeyRing.load(self.keys)._by_modulus.values():
            for name in NUMBERS:
                value: int = getattr(key.secret, name)
                yield Secret(f"{name} of {key.role}", value.to_bytes((value.bit_length() + 7) // 8, "big"))

    def _of_sessions(self, sessions: list[dict[str, Any]]) -> Iterator[Secret]:
        for session in sessions:
            whole = blob(session)
            parts = {"AES key": whole[:16], "IV": whole[16:32], "salt": whole[32:]}
            yield from (Secret(f"{name} of {session['t_start']}", part) for name, part in parts.items())
        for name in SHOWN:
            for c in analyze(self.captures / f"{name}.pcap", keys=KeyRing.load(self.keys)).conversations:
                offer, key = c.part("session"), c.secrets.session_key if c.secrets is not None else None
                if offer is not None and offer.data is not None and key is not None and key.blob is not None:
                    yield Secret(f"HMAC of {name}", hmac.digest(key.blob, offer.data[:128], hashlib.sha1))


def blob(session: dict[str, Any]) -> bytes:
    """The 40 bytes of a session's key, as a truth file has them."""
    return bytes.fromhex(session["session_key"]["hex"])


def _sessions(name: str) -> list[dict[str, Any]]:
    told = json.loads((CAPTURES / f"{name}.truth.json").read_bytes())
    return [session for session in told["sessions"] if session["session_key"]]
