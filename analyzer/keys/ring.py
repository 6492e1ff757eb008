"""All the keys a user gave, sorted by what they are: each RSA key once, however many files hold it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from analyzer.capture.complaints import cannot_read
from analyzer.keys.devicetable import DEVICE_TABLE, read_device_table
from analyzer.keys.inspect import REMARKS, Password, inspect_key_file
from analyzer.keys.keylog import LARGEST_KEY_LOG, SessionKey, parse_session_key, read_key_log
from analyzer.keys.model import FirmwareReading, Key, KeyFile, KeyFileError, KeyPart, Role
from analyzer.secrecy import forgetful

LARGEST_KEY_FILE: Final = 4 << 20
"""Twice the largest flash there is; what is bigger is no key file and is not read."""
MOST_FILES: Final = 50_000
"""Files looked at in one folder. Measured at 0.14 ms each, so a wrong folder costs seconds, not minutes."""
ROLE_SWAPPED: Final = "{name}: {option} was given a {bits}-bit key, a {role}'s; it is used as that."
PUBLIC_GIVEN: Final = "{name}: the public half of a device key opens nothing. The private key is wanted."
LONG_LOG: Final = "{name}: longer than {most} MiB; the rest was not read."
BAD_LINE: Final = "{name}: line {number}: {reason}; passed over."

Paths = Iterable[str | os.PathLike[str]]

_STEM = re.compile(r"(?:[._-]?pub(?:lic)?|_handshake)?(?:\.(?:pem|der|key|bin|cer|crt|txt))+$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class NamedPair:
    """Two files whose names say that they are one pair, and whose keys are not."""

    private_file: str
    public_file: str
    private: Key
    public: Key


class KeyRing:
    """Keys by role. Empty when made without arguments, which is the usual case: no key at all.

    ``device_keys``, ``server_keys`` and ``other_keys`` (neither 1024 nor 2048 bits) hold each modulus once,
    the private half where any file had it. ``files`` are the files with keys, ``skipped`` those without and
    why, ``warnings`` lines for standard error. Nothing in here shows a secret when printed.
    """

    def __init__(self) -> None:
        self.files: tuple[KeyFile, ...] = ()
        self.skipped: tuple[KeyFile, ...] = ()
        self.warnings: tuple[str, ...] = ()
        self.device_keys: tuple[Key, ...] = ()
        self.server_keys: tuple[Key, ...] = ()
        self.other_keys: tuple[Key, ...] = ()
        self.session_keys: dict[bytes, tuple[SessionKey, ...]] = {}
        self.loose_session_keys: tuple[SessionKey, ...] = ()
        self._by_modulus: dict[int, Key] = {}
        self._by_device: dict[str, tuple[Key, ...]] = {}
        self._in_table: dict[bytes, Key] = {}
        self._parts: dict[int, list[KeyPart]] | None = None

    @classmethod
    @forgetful
    def load(
        cls,
        *paths: str | os.PathLike[str],
        password: Password = None,
        device_keys: Paths = (),
        server_keys: Paths = (),
        keylogs: Paths = (),
        session_keys: Iterable[str] = (),
    ) -> KeyRing:
        """Read key files and folders (``paths``: any role), key logs, and session keys given as digits.

        ``device_keys`` and ``server_keys`` are read like ``paths``; they only add a warning when the content is
        of the other role. Files in a folder that are no keys are passed over; folders inside it are not
        searched. A ``devices.csv`` in a folder tells which device has which of its keys. Raises `KeyFileError`
        for a path that cannot be read, a wrong password, digits that are no session key, and when nothing of
        all that was named is usable.
        """
        loader = _Loader(password)
        for path in paths:
            loader.add(path, "--keys")
        for path in device_keys:
            loader.add(path, "--device-key", "device")
        for path in server_keys:
            loader.add(path, "--server-key", "server")
        for path in keylogs:
            loader.add_key_log(path)
        for digits in session_keys:
            loader.loose.append(parse_session_key(digits))
        return loader.ring()

    def __repr__(self) -> str:
        sessions = len(self.session_keys) + len(self.loose_session_keys)
        return (
            f"<KeyRing: {len(self.device_keys)} device keys, {len(self.server_keys)} server keys, "
            f"{sessions} session keys>"
        )

    def __bool__(self) -> bool:
        """Whether there is anything to try."""
        return bool(self._by_modulus or self.session_keys or self.loose_session_keys)

    @property
    def device_private(self) -> tuple[Key, ...]:
        """Device keys that open session offers."""
        return tuple(key for key in self.device_keys if key.private)

    @property
    def server_private(self) -> tuple[Key, ...]:
        """Server keys that open identities."""
        return tuple(key for key in self.server_keys if key.private)

    def key_with_modulus(self, n: int) -> Key | None:
        """Return the key with this modulus, the private half if it is here."""
        return self._by_modulus.get(n)

    def keys_of_device(self, device_id: str) -> tuple[Key, ...]:
        """Return the keys in files whose names carry this device id (24 hex digits), as servers name them."""
        return self._by_device.get(device_id.lower(), ())

    def likely_keys(self, device_id: str) -> tuple[Key, ...]:
        """Return the keys to try first on a device (24 hex digits): by file name, then by a table of devices.

        Tables go out of date, so what one says is good for the order of trying alone.
        """
        named = self.keys_of_device(device_id)
        listed = self._in_table.get(bytes.fromhex(device_id)) if self._in_table else None
        return named if listed is None else (*named, listed)

    def session_keys_for(self, nonce: bytes | None) -> tuple[SessionKey, ...]:
        """Return the session keys worth trying for a conversation, those logged with its nonce first."""
        logged = self.session_keys.get(nonce, ()) if nonce is not None else ()
        return logged + self.loose_session_keys

    def firmware_reading(self, key: Key) -> FirmwareReading | None:
        """Return how the firmware reads this private key, by the file most like its slot (SPK306).

        None without a private half. What the device itself holds may be another file: only a fresh dump is sure.
        """
        if self._parts is None:  # asked for of each of the keys, of which there may be thousands
            self._parts = {}
            for part in (part for file in self.files for part in file.parts if part.key.private):
                self._parts.setdefault(part.key.n, []).append(part)
        parts = self._parts.get(key.n)
        if not parts:
            return None
        best = min(parts, key=lambda part: (part.encoding != "pkcs1", part.pem))
        return best.converted or best.firmware

    def pairs(self) -> dict[int, tuple[list[str], list[str]]]:
        """Return, by modulus, the files with the private half and with the public one, where both are."""
        halves: dict[int, tuple[list[str], list[str]]] = {}
        for file in self.files:
            for key in file.keys:
                halves.setdefault(key.n, ([], []))[0 if key.private else 1].append(file.name)
        return {n: both for n, both in halves.items() if both[0] and both[1]}

    def mismatched_pairs(self) -> tuple[NamedPair, ...]:
        """Return files that are named as a pair (`x.der`, `x.pub.pem`) and hold different keys (SPK307)."""
        private: dict[str, tuple[str, Key]] = {}
        for file in self.files:
            for key in file.keys:
                if key.private:
                    private.setdefault(pair_name(file.name), (file.name, key))
        found = []
        for file in self.files:
            key = file.keys[0]
            name, partner = private.get(pair_name(file.name), ("", None))
            if not key.private and partner is not None and key.bits == partner.bits and key.n != partner.n:
                found.append(NamedPair(name, file.name, partner, key))
        return tuple(found)


def pair_name(path: str) -> str:
    """Return the part of a file's name that a private key and its public half have in common."""
    folder, name = os.path.split(path)
    return os.path.join(folder, _STEM.sub("", name).lower())


@forgetful
def read_key_path(path: str | os.PathLike[str]) -> bytes:
    """Read a key file, up to `LARGEST_KEY_FILE` bytes and one more.

    Raises `KeyFileError` when it is missing or may not be read.
    """
    try:
        with open(path, "rb") as stream:
            return stream.read(LARGEST_KEY_FILE + 1)
    except OSError as error:
        raise KeyFileError(_unreadable(os.fspath(path), error)) from None


@forgetful
def inspect_path(path: str | os.PathLike[str], password: Password = None) -> KeyFile:
    """Inspect one file by its path. Raises `KeyFileError` when it cannot be read or the password is wrong."""
    data = read_key_path(path)
    if len(data) > LARGEST_KEY_FILE:
        return KeyFile(os.fspath(path), len(data), "unknown", remark=REMARKS["large"])
    return inspect_key_file(data, os.fspath(path), password)


def files_in(folder: str | os.PathLike[str]) -> list[str]:
    """Return the regular files of a folder by name, `MOST_FILES` at most. Raises `KeyFileError` as above."""
    try:
        with os.scandir(folder) as entries:
            files = list(islice((entry.path for entry in entries if entry.is_file()), MOST_FILES))
    except OSError as error:
        raise KeyFileError(_unreadable(os.fspath(folder), error)) from None
    return sorted(files)


class _Loader:
    """Collects files while a `KeyRing` is loaded."""

    def __init__(self, password: Password) -> None:
        self.password = password
        self.files: dict[str, KeyFile] = {}
        self.skipped: dict[str, KeyFile] = {}
        self.warnings: list[str] = []
        self.problems: list[str] = []
        self.logged: dict[bytes, tuple[SessionKey, ...]] = {}
        self.loose: list[SessionKey] = []
        self.asked = False
        self.tables: list[str] = []
        self.named: dict[int, str] = {}  # private keys of files named one by one, and which file had it first

    def add(self, path: str | os.PathLike[str], option: str, wanted: Role | None = None) -> None:
        self.asked = True
        if os.path.isdir(path):
            self._add_folder(os.fspath(path), option)
            return
        file = inspect_path(path, self.password)
        if not file.parts:
            self.skipped[file.name] = file
            self.problems.append(_not_usable(file))
            return
        if wanted is not None:
            file = self._checked(file, wanted, option)
        self._note_twins(file)
        self.files[file.name] = file

    def _note_twins(self, file: KeyFile) -> None:
        """Say when two files that were named one by one both fit, because they hold the same key."""
        for key in file.keys:
            first = self.named.setdefault(key.n, file.name) if key.private else file.name
            if first != file.name:
                self.warnings.append(f"{file.name}: the same private key as {first} ({key.fingerprint}); used once.")

    def _add_folder(self, folder: str, option: str) -> None:
        paths = files_in(folder)
        if len(paths) == MOST_FILES:
            self.warnings.append(f"{folder}: more than {MOST_FILES:,} files; the rest was not looked at.")
        found = 0
        for path in paths:
            try:
                file = inspect_path(path, self.password)
            except KeyFileError as error:
                # One password seldom fits a whole folder, and one unreadable file must not hide the rest.
                self.warnings.append(str(error))
                file = KeyFile(path, 0, "encrypted" if "password" in str(error) else "unreadable")
            if file.parts:
                found += 1
                self.files[path] = file
            else:
                self.skipped[path] = file
                if os.path.basename(path).lower() == DEVICE_TABLE:
                    self.tables.append(path)
        if found:
            return
        if not paths:
            what = "no files in it"
        elif len(paths) == 1:
            what = f"1 file, and it is no key ({os.path.basename(paths[0])})"
        else:
            what = f"{len(paths):,} files, none of them a key (first: {os.path.basename(paths[0])})"
        self.problems.append(f"{option} {folder}: {what}. Without {option} there is still a verdict.")

    def _checked(self, file: KeyFile, wanted: Role, option: str) -> KeyFile:
        """Warn when the option named another role, or the private half where only that opens anything."""
        roles = {key.role for key in file.keys}
        key = file.keys[0]
        if wanted not in roles:
            self.warnings.append(ROLE_SWAPPED.format(name=file.name, option=option, bits=key.bits, role=key.role))
            return replace(file, reasons=(*file.reasons, "role_swapped"))
        if wanted == "device" and not any(key.private for key in file.keys):
            self.warnings.append(PUBLIC_GIVEN.format(name=file.name))
            return replace(file, reasons=(*file.reasons, "public_given_private_wanted"))
        return file

    def add_key_log(self, path: str | os.PathLike[str]) -> None:
        self.asked = True
        try:
            with open(path, "rb") as stream:
                text = stream.read(LARGEST_KEY_LOG).decode("utf-8-sig", "replace")  # editors put a mark before it
                more = bool(stream.read(1))
        except OSError as error:
            raise KeyFileError(_unreadable(os.fspath(path), error)) from None
        log = read_key_log(text)
        for nonce, keys in log.by_nonce.items():
            self.logged[nonce] = tuple(dict.fromkeys((*self.logged.get(nonce, ()), *keys)))
        self.loose = list(dict.fromkeys((*self.loose, *log.without_nonce)))
        name = os.fspath(path)
        if more:
            self.warnings.append(LONG_LOG.format(name=name, most=LARGEST_KEY_LOG >> 20))
        self.warnings += [BAD_LINE.format(name=name, number=number, reason=reason) for number, reason in log.bad_lines]
        if not log.by_nonce and not log.without_nonce:
            self.problems.append(f"{name}: no session key in it. Make one: sparkshark decrypt --keylog-out FILE")

    def ring(self) -> KeyRing:
        ring = KeyRing()
        finds: dict[int, list[Key]] = {}
        for file in self.files.values():
            for key in file.keys:
                finds.setdefault(key.n, []).append(key)
        merged = {n: _merged(keys) for n, keys in finds.items()}
        ring._by_modulus = merged
        ring.files, ring.skipped = tuple(self.files.values()), tuple(self.skipped.values())
        ring.device_keys = tuple(key for key in merged.values() if key.role == "device")
        ring.server_keys = tuple(key for key in merged.values() if key.role == "server")
        ring.other_keys = tuple(key for key in merged.values() if key.role == "other")
        ring.session_keys, ring.loose_session_keys = self.logged, tuple(self.loose)
        for key in merged.values():
            for device_id in key.device_ids:
                ring._by_device[device_id] = (*ring._by_device.get(device_id, ()), key)
        self._read_tables(ring)
        if self.asked and not ring:
            raise KeyFileError(self.problems[0] if self.problems else "no key in what was given")
        ring.warnings = tuple(self.warnings + self.problems)
        return ring

    def _read_tables(self, ring: KeyRing) -> None:
        """Read which device has which key; only now, because the private half may lie in another file."""
        if not self.tables:
            return
        by_path = {
            os.path.normpath(path): ring._by_modulus[file.keys[0].n] for path, file in self.files.items() if file.keys
        }
        for path in self.tables:
            try:
                with open(path, "rb") as stream:
                    found, warnings = read_device_table(stream, path, by_path)
            except OSError as error:
                self.warnings.append(_unreadable(path, error))
                continue
            ring._in_table |= found
            self.warnings += warnings


def _merged(finds: list[Key]) -> Key:
    """Join all finds of one modulus; the private half wins, and names the key."""
    finds = sorted(finds, key=lambda key: not key.private)
    sources = dict.fromkeys(source for key in finds for source in key.sources)
    device_ids = dict.fromkeys(device_id for key in finds for device_id in key.device_ids)
    return replace(finds[0], sources=tuple(sources), device_ids=tuple(device_ids))


def _not_usable(file: KeyFile) -> str:
    if file.kind == "encrypted":
        return f"{file.name}: locked with a password. Try: --password-file FILE, or: {file.commands[0]}"
    return f"{file.name}: {file.remark}. Try: sparkshark keys {shlex.quote(file.name)}"


def _unreadable(path: str, error: OSError) -> str:
    return str(cannot_read(path, error))
