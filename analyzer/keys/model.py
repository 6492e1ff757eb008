"""What a key is, wherever it was found: numbers, role, fingerprint. Secrets never show in a repr."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

from analyzer.keys import der
from analyzer.rsa import PrivateNumbers, PublicNumbers

DEVICE_BITS: Final = 1024
SERVER_BITS: Final = 2048
EXPONENT: Final = 65537
"""The firmware assumes it and never reads it (PROTOCOL 8.4)."""
FINGERPRINT_DIGITS: Final = 8

PRODUCTION_SPKI_SHA256: Final = "aa8aba3c973ed4b668999047a09597948f36eefde525352e705fe8ef98c1677e"
"""The hosted cloud's server key (PROTOCOL 1.4)."""

Role = Literal["device", "server", "other"]
ROLES: Final[dict[int, Role]] = {DEVICE_BITS: "device", SERVER_BITS: "server"}


class KeyFileError(ValueError):
    """A key file, key log or session key that the user named cannot be used: one line, with what to do."""


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """One RSA key. ``secret`` holds the private numbers, or None for a public key.

    ``sources`` are the files it was found in, ``device_ids`` the ids (24 hex digits) their names carry.
    """

    public: PublicNumbers
    secret: PrivateNumbers | None = None
    sources: tuple[str, ...] = ()
    device_ids: tuple[str, ...] = ()

    def __repr__(self) -> str:
        half = "private" if self.secret else "public"
        return f"<{self.role} {half} key {self.fingerprint}, {self.bits} bits, from {', '.join(self.sources)}>"

    @property
    def private(self) -> bool:
        """Whether the private half is here."""
        return self.secret is not None

    @property
    def n(self) -> int:
        """The modulus."""
        return self.public.n

    @property
    def e(self) -> int:
        """The public exponent."""
        return self.public.e

    @property
    def bits(self) -> int:
        """Size of the modulus in bits."""
        return self.public.n.bit_length()

    @property
    def role(self) -> Role:
        """Whose key it is: the protocol fixes 1024 bits for a device, 2048 for a server (PROTOCOL 2.1)."""
        return ROLES.get(self.bits, "other")

    @property
    def spki(self) -> bytes:
        """The public half as SubjectPublicKeyInfo, DER."""
        return der.spki(self.n, self.e)

    @property
    def sha256(self) -> str:
        """SHA-256 of `spki`, hex."""
        return hashlib.sha256(self.spki).hexdigest()

    @property
    def fingerprint(self) -> str:
        """First 8 hex digits of `sha256`: enough to tell the keys of one bench apart."""
        return self.sha256[:FINGERPRINT_DIGITS]

    @property
    def is_production(self) -> bool:
        """Whether this is the hosted cloud's own server key (PROTOCOL 1.4)."""
        return self.role == "server" and self.sha256 == PRODUCTION_SPKI_SHA256

    @property
    def name(self) -> str:
        """The file to name when speaking of this key."""
        return self.sources[0] if self.sources else self.fingerprint


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a device with this server-key image really goes (PROTOCOL 8.3). Port None means 5683."""

    host: str
    port: int | None


@dataclass(frozen=True, slots=True)
class FirmwareReading:
    """What the firmware's own fixed-step reader makes of a file (PROTOCOL 8.4).

    ``differences`` says, number by number, where it goes wrong; empty when ``ok``.
    """

    ok: bool
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyPart:
    """One key as it lies in a file: where, in which encoding, and how the firmware would read it there.

    ``offset`` counts in the file, ``address`` in the flash the file is a dump of (None when it is not a
    dump). ``encoding`` is pkcs1, pkcs8, spki, pkcs1-public, certificate; ``pem`` when it is text. ``converted`` is,
    for PKCS#8, how the firmware reads the key once it is converted to the form a device wants.
    """

    key: Key
    offset: int
    encoding: str
    pem: bool = False
    address: int | None = None
    length: int = 0
    firmware: FirmwareReading | None = None
    converted: FirmwareReading | None = None
    server_address: ServerAddress | None = None


@dataclass(frozen=True, slots=True)
class KeyFile:
    """Everything that can be said about one file given as a key (DIAGNOSES, SPK307).

    ``kind`` is key, slot-dump, flash-dump, dct-dump, server-image, blank, truncated, encrypted,
    elliptic-curve, html, capture, text, empty, unknown. ``reasons`` are SPK307's codes; ``remark`` says
    what is special in words, ``advice`` what to do, followed by ``commands`` to type.
    """

    name: str
    size: int
    kind: str
    parts: tuple[KeyPart, ...] = ()
    reasons: tuple[str, ...] = ()
    remark: str = ""
    advice: str | None = None
    commands: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[Key, ...]:
        """The RSA keys in it."""
        return tuple(part.key for part in self.parts)

    @property
    def firmware(self) -> FirmwareReading | None:
        """How the firmware reads the file's first key; None when there is none."""
        return self.parts[0].firmware if self.parts else None
