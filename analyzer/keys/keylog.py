"""Session keys: the 40-byte blob, the key log that saves them, and the digits given on the command line.

A key log line is `SPARK_SESSION <nonce, 80 hex digits, or - if unknown> <session key, 80 hex digits>`; `#`
starts a comment. It opens one session each, and says nothing about whether two RSA keys fit (DIAGNOSES 0.5).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from analyzer.catalogue import BLOCK, NONCE_SIZE, SESSION_KEY_SIZE
from analyzer.keys.model import KeyFileError
from analyzer.outfile import new_file, takes_stream
from analyzer.secrecy import forgetful
from analyzer.wording import printable

LABEL: Final = "SPARK_SESSION"
LARGEST_KEY_LOG: Final = 64 << 20
"""About 370,000 sessions: a device that reconnects each second for four days."""
LONGEST_LINE: Final = 512
"""Characters of a line that are read: one that makes sense has 175, and there may be blanks between its words."""
MOST_BAD_LINES: Final = 100
"""Complaints kept of one key log; a file with more of them is some other file."""
NOT_LABELLED: Final = "does not begin with {label}"
WRONG_FIELDS: Final = "{label} is followed by {count} fields, not 2"
NOT_HEX: Final = "the {what} has no hex digit at character {at}"
WRONG_DIGITS: Final = "the {what} has {count} hex digits, not {wanted}"
"""What is wrong with a line; it never shows the digits themselves."""
_ENDS: Final = r"\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029"
_LINE: Final = re.compile(rf"([^{_ENDS}]*)(?:\r\n|[{_ENDS}]|\Z)")
"""A line as `str.splitlines` has it."""
_SEPARATORS: Final = " \t\r\n:-"


@dataclass(frozen=True, slots=True)
class SessionKey:
    """What message 3 carries (PROTOCOL 4.1): AES-128 key, first IV of both directions, salt of 8 bytes.

    ``iv`` and ``salt`` are None when only the AES key is known.
    """

    key: bytes = field(repr=False)
    iv: bytes | None = field(default=None, repr=False)
    salt: bytes | None = field(default=None, repr=False)

    @classmethod
    def from_blob(cls, blob: bytes) -> SessionKey:
        """Split the 40-byte blob. Raises ValueError for another length."""
        if len(blob) != SESSION_KEY_SIZE:
            raise ValueError(f"a session key has {SESSION_KEY_SIZE} bytes, not {len(blob)}")
        return cls(blob[:BLOCK], blob[BLOCK : 2 * BLOCK], blob[2 * BLOCK :])

    @property
    def blob(self) -> bytes | None:
        """The 40 bytes as the server made them; None when only the AES key is known."""
        return None if self.iv is None or self.salt is None else self.key + self.iv + self.salt

    @property
    def first_message_ids(self) -> tuple[int, int] | None:
        """The ids a device's hello can have: seed read high byte first, then low byte first (PROTOCOL 4.2).

        The first is that of Cores and Photons to 0.7, the second that of Photons from 0.8 on.
        """
        if self.salt is None:
            return None
        high, low = self.salt[0], self.salt[1]
        return ((high << 8 | low) + 1) & 0xFFFF, ((low << 8 | high) + 1) & 0xFFFF


@dataclass(frozen=True, slots=True)
class KeyLog:
    """A key log that was read: session keys by nonce, those without one, and the lines that made no sense.

    A nonce has several keys when its lines disagree; each is worth a try. ``bad_lines`` are (number, reason).
    """

    by_nonce: dict[bytes, tuple[SessionKey, ...]]
    without_nonce: tuple[SessionKey, ...]
    bad_lines: tuple[tuple[int, str], ...]


@forgetful
def read_key_log(text: str) -> KeyLog:
    """Read a key log. A line that makes no sense is reported with its number; nothing raises."""
    by_nonce: dict[bytes, dict[SessionKey, None]] = {}  # each once, in the order of the log
    without_nonce: list[SessionKey] = []
    bad: list[tuple[int, str]] = []
    for number, line in enumerate(_LINE.finditer(text), 1):  # one by one: each may have a character or all of them
        start, end = line.span(1)
        words = text[start : min(end, start + LONGEST_LINE)].partition("#")[0].split()
        if not words:
            continue
        entry = _entry(words)
        if isinstance(entry, str):
            if len(bad) < MOST_BAD_LINES:
                bad.append((number, entry))
            continue
        nonce, key = entry
        if nonce is None:
            without_nonce.append(key)
        else:
            by_nonce.setdefault(nonce, {})[key] = None
    return KeyLog({nonce: tuple(keys) for nonce, keys in by_nonce.items()}, tuple(without_nonce), tuple(bad))


def _entry(words: list[str]) -> tuple[bytes | None, SessionKey] | str:
    """Return nonce and session key of one line, or what is wrong with it (never the digits themselves)."""
    if words[0] != LABEL:
        return NOT_LABELLED.format(label=LABEL)
    if len(words) != 3:
        return WRONG_FIELDS.format(label=LABEL, count=len(words) - 1)
    nonce = None if words[1] == "-" else _bytes(words[1], NONCE_SIZE, "nonce")
    if isinstance(nonce, str):
        return nonce
    blob = _bytes(words[2], SESSION_KEY_SIZE, "session key")
    if isinstance(blob, str):
        return blob
    return nonce, SessionKey.from_blob(blob)


def _bytes(digits: str, size: int, what: str) -> bytes | str:
    at = _first_non_hex(digits)
    if at is not None:
        return NOT_HEX.format(what=what, at=at + 1)
    if len(digits) != 2 * size:
        return WRONG_DIGITS.format(what=what, count=len(digits), wanted=2 * size)
    return bytes.fromhex(digits)


@forgetful
def key_log_line(nonce: bytes | None, key: SessionKey) -> str:
    """Return one line for a key log. Raises ValueError when only the AES key is known."""
    if key.blob is None:
        raise ValueError("a key log line needs all 40 bytes of the session key")
    return f"{LABEL} {'-' if nonce is None else nonce.hex()} {key.blob.hex()}"


@forgetful
def write_key_log(
    path: str | Path, sessions: Iterable[tuple[bytes | None, SessionKey]], *, force: bool = False
) -> None:
    """Write a key log that only its owner can read (mode 0600).

    Raises `KeyFileError` when the file exists, unless ``force``; OSError when it cannot be written.
    """
    if os.path.lexists(path) and not force and not takes_stream(path):
        raise KeyFileError(f"{path}: exists already. Nothing was written. Try: another name, or --force")
    with new_file(path, private=True) as stream:
        for nonce, key in sessions:
            stream.write(f"{key_log_line(nonce, key)}\n".encode("ascii"))


@forgetful
def parse_session_key(digits: str) -> SessionKey:
    """Read the digits of `--session-key`: 80 for all 40 bytes, 32 for the AES key alone.

    Blanks, colons and hyphens between digits are allowed. Raises `KeyFileError` naming the first wrong
    character.
    """
    wanted = f"{2 * SESSION_KEY_SIZE} digits are wanted (or {2 * BLOCK} for the AES key alone)."
    at = _first_non_hex(digits, _SEPARATORS)
    if at is not None:
        raise KeyFileError(f'--session-key: character {at + 1} is "{printable(digits[at])}", not a hex digit. {wanted}')
    digits = "".join(digit for digit in digits if digit not in _SEPARATORS)
    if len(digits) == 2 * BLOCK:
        return SessionKey(bytes.fromhex(digits))
    if len(digits) != 2 * SESSION_KEY_SIZE:
        raise KeyFileError(f"--session-key: {len(digits)} hex digits. {wanted}")
    return SessionKey.from_blob(bytes.fromhex(digits))


def _first_non_hex(text: str, allowed: str = "") -> int | None:
    digits = "0123456789abcdefABCDEF" + allowed
    return next((at for at, character in enumerate(text) if character not in digits), None)
