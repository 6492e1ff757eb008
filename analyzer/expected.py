"""The server that a user says a device should call: ``HOST`` or ``HOST:PORT``, a name or an address.

A name is never looked up here: nothing is sent to the network. Where it leads is taken from answers in the capture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

from analyzer.catalogue import LARGEST_PORT, SPARK_PORT
from analyzer.wording import endpoint, judged

if TYPE_CHECKING:
    from analyzer.keys import KeyRing

LONGEST_NAME: Final = 253
"""Characters of a host name (RFC 1123 2.1, RFC 1035 2.3.4)."""
WANTED: Final = "wanted is an address or a name, with or without a port: 192.168.1.50, [fd00::50]:5683, my.server:5683."
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PARTS: Final = re.compile(r"\[(?P<six>[^\[\]]*)\](?::(?P<port6>[^:]*))?|(?P<host>[^:\[\]]*)(?::(?P<port>[^:]*))?")
_NUMBERS: Final = re.compile(r"[0-9.]+")


class ExpectedServerError(ValueError):
    """Not a host with or without a port. The message is one line."""


@dataclass(frozen=True, slots=True)
class ExpectedServer:
    """Where a device should call. ``address`` (4 or 16 bytes) or ``name`` (lower case) is set; ``port`` None: any."""

    address: bytes | None
    name: str | None
    port: int | None

    def __str__(self) -> str:
        host = self.name if self.address is None else str(ip_address(self.address))
        return str(host) if self.port is None else endpoint(str(host), self.port)

    @classmethod
    def parse(cls, text: str) -> ExpectedServer:
        """Read what a user typed. Raises `ExpectedServerError`."""
        return cls.of(*_split(text), text)

    @classmethod
    def of(cls, host: str, port: int | None, text: str) -> ExpectedServer:
        """Tell an address from a name. ``text`` is what an error repeats."""
        try:
            return cls(plain(ip_address(host).packed), None, port)
        except ValueError:
            name = host.lower().removesuffix(".")
        if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME or _NUMBERS.fullmatch(name):
            raise ExpectedServerError(f"{shown(text)}: no server; {WANTED}")
        return cls(None, name, port)


def plain(address: bytes) -> bytes:
    """Return an IPv4 address that is written as an IPv6 one (RFC 4291 2.5.5.2) as what it is."""
    four = IPv6Address(address).ipv4_mapped if len(address) == 16 else None
    return address if four is None else four.packed


def parse_all(servers: Iterable[str | ExpectedServer]) -> tuple[ExpectedServer, ...]:
    """Read several. Raises `ExpectedServerError` at the first that is none."""
    return tuple(one if isinstance(one, ExpectedServer) else ExpectedServer.parse(one) for one in servers)


def stored_servers(keys: KeyRing) -> list[tuple[str, ExpectedServer]]:
    """Return what the dumps among the key files have stored: file, and where a device with it calls (PROTOCOL 8.3)."""
    stored: dict[tuple[str, ExpectedServer], None] = {}
    for file in keys.files:
        for part in file.parts:
            if part.server_address is not None:
                host, port = part.server_address.host, part.server_address.port or SPARK_PORT
                with suppress(ExpectedServerError):  # a name that no server can have
                    stored[file.name, ExpectedServer.of(host, port, host)] = None
    return list(stored)


def shown(text: str) -> str:
    """Return what was typed, short enough and printable for one line."""
    seen = "".join(char if harmless else "?" for char, harmless in judged(text[:60]))
    return repr(seen) if not seen or " " in seen else seen


def _split(text: str) -> tuple[str, int | None]:
    if text.count(":") > 1 and not text.startswith("["):
        return text, None  # a bare IPv6 address
    parts = _PARTS.fullmatch(text)
    if parts is None:
        raise ExpectedServerError(f"{shown(text)}: no server; {WANTED}")
    six, host, digits = parts["six"], parts["host"], parts["port6"] if parts["six"] is not None else parts["port"]
    if six is not None and ":" not in six:
        raise ExpectedServerError(f"{shown(text)}: no server; {WANTED}")
    port = int(digits) if digits is not None and re.fullmatch(r"[0-9]{1,5}", digits, re.ASCII) else None
    if digits is not None and port is None:
        raise ExpectedServerError(f"{shown(text)}: no server; {WANTED}")
    if port is not None and not 1 <= port <= LARGEST_PORT:
        raise ExpectedServerError(f"{shown(text)}: ports run from 1 to {LARGEST_PORT}.")
    return (host if six is None else six), port
