"""Captures with all keys that open them, and every secret among these by name."""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

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


class Asked(NamedTuple):
    """A command to run: ``outputs`` are what it may write, ``tells`` is where secrets are meant to go.

    ``reads`` is its standard input, ``starts`` whether it may start other programs.
    """

    words: list[str]
    outputs: tuple[str, ...] = ()
    tells: str | None = None
    reads: Path | None = None
    starts: bool = False
    status: int = 0


def everything(planted: Planted, *, thorough: bool) -> Iterator[Asked]:
    """Every command in every form that could tell a secret, or write where nobody asked for it.

    Outputs are named below the folder to work in. What is not ``thorough`` leaves out what is much like another.
    """
    captures, keys, one = map(str, (planted.captures, planted.keys, planted.captures / "healthy-full.pcap"))
    with_keys = ["--keys", keys]
    locked = ["--device-key", str(planted.locked), "--password-file", str(planted.password)]
    for number, given in enumerate((with_keys, locked, ["--keylog", str(planted.log)])):
        for form in ("text", "json", "jsonl", "markdown", "html") if thorough or not number else ("text",):
            name = f"report-{number}.{form}"
            yield Asked(["analyze", captures, *given, "--format", form, "-o", name], (name,))
    yield Asked(["analyze", captures, *with_keys, "--statistics", "--redact"])
    yield Asked(["analyze", captures, *with_keys, "--format", "parquet", "-o", "tables"], ("tables",))
    yield Asked(["analyze", one, *with_keys, "--show-secrets", "--format", "json", "-o", "s"], ("s",), "s")
    yield Asked(["analyze", one, *with_keys, "--show-secrets", "--redact", "--format", "json"])
    yield Asked(["analyze", one, *with_keys, "--show-secrets", "--format", "html", "-o", "s.html"], ("s.html",))
    for form in ("text", "json", "jsonl", "csv", "html"):
        what = captures if thorough else one
        yield Asked(["decrypt", what, *with_keys, "--all", "--format", form, "-o", f"d.{form}"], (f"d.{form}",))
    yield Asked(["decrypt", captures, *with_keys, "--format", "parquet", "-o", "opened"], ("opened",))
    yield Asked(["decrypt", one, "--session-key", planted.session, "--format", "json"])
    yield Asked(["decrypt", one, "--session-key", planted.session[:32], "-w", "plain.pcapng"], ("plain.pcapng",))
    yield Asked(["decrypt", captures, *with_keys, "-w", "all.pcapng"], ("all.pcapng",))
    yield Asked(["decrypt", captures, *with_keys, "--keylog-out", "log"], ("log",), "log")
    yield Asked(["decrypt", captures, *with_keys, "--firmware", "images"], ("images",))
    yield Asked(["follow", one, "1", "--raw", "-o", "raw"], ("raw",))
    yield Asked(["keys", keys, str(planted.locked), "--password-file", str(planted.password)])
    yield Asked(["keys", keys, str(planted.locked), "--format", "json"])
    yield Asked(["redact", captures, "posted.pcapng", *with_keys], ("posted.pcapng",))
    yield Asked(["redact", "-", "piped.pcapng", *with_keys], ("piped.pcapng",), reads=Path(one))
    for form in ("text", "jsonl"):
        words = ["watch", "-", *with_keys, "--messages", "--format", form, "--ring", f"ring-{form}"]
        yield Asked(words, (f"ring-{form}",), reads=Path(one))
    yield Asked(["explain", "SPK301"])
    yield Asked(["explain", "Reset, 5.05 Proxying Not Supported, TID:24199", one])
    yield Asked(["install-plugin", "--directory", "plugins"], ("plugins",), starts=True)
    yield Asked(["install-plugin", "--print"])
    yield Asked(["simulate", "healthy", "-o", "made/a.pcap"], ("made",))
    yield Asked(["completion", "bash"])
    # What is wrong with a secret is said without it.
    yield Asked(["decrypt", one, "--session-key", planted.session + "00"], status=2)
    yield Asked(["decrypt", one, "--session-key", planted.session[:-1] + "x"], status=2)
    yield Asked(["decrypt", one, planted.session], status=2)
    yield Asked(["decrypt", planted.session, *with_keys], status=2)
    yield Asked(["decrypt", one, "--keys", planted.session], status=2)
    yield Asked(["decrypt", one, f"--sesion-key={planted.session}"], status=2)
    yield Asked(["decrypt", one, "--device-key", str(planted.locked), "--password-file", str(planted.log)], status=2)
    yield Asked(["decrypt", one, "--keylog", str(planted.keys / "server.pem")], status=2)
    yield Asked(["decrypt", one, "--keylog", str(planted.password)], status=2)
    yield Asked(["decrypt", str(planted.keys / "server.pem"), *with_keys], status=2)
