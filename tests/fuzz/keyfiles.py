"""Key files, key logs, tables of devices, and what is typed: all that a user hands over beside the capture."""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Final

from inert import is_inert

from analyzer.expected import ExpectedServer, ExpectedServerError
from analyzer.keys import (
    KeyFile,
    KeyFileError,
    SessionKey,
    inspect_key_file,
    key_log_line,
    parse_session_key,
    read_key_log,
)
from analyzer.keys.devicetable import read_device_table
from analyzer.keys.report import keys_report, render_keys
from fuzz.base import KEYS
from fuzz.script import Script, written
from fuzz.target import target

WRAPS: Final = (b"RSA PRIVATE KEY", b"PRIVATE KEY", b"PUBLIC KEY", b"CERTIFICATE", b"ENCRYPTED PRIVATE KEY", b"EC KEY")


@cache
def _desk() -> Path:
    """A folder for the file that is looked at."""
    return Path(tempfile.mkdtemp(prefix="sparkshark-fuzz-"))


def key_files() -> Iterator[bytes]:
    for name in ("core-a", "server", "photon-b"):
        for suffix in ("der", "pem", "pub.der", "pub.pem"):
            yield b"\0" + (KEYS / f"{name}.{suffix}").read_bytes()
        private, public = (KEYS / f"{name}.der").read_bytes(), (KEYS / f"{name}.pub.der").read_bytes()
        yield b"\1\0" + private
        yield b"\1\2" + public
        yield b"\2\1\0" + private
    server = (KEYS / "server.pub.der").read_bytes()
    yield b"\0" + server + bytes(384 - len(server)) + b"\0\x04\x36\xd0\xe5\x04" + b"\xff" * 100
    yield b"\0" + server + bytes(384 - len(server)) + b"\1\x0bexample.com\0" + b"\xff" * 100
    yield b"\0" + b"\xff\xfe" + (KEYS / "core-a.pem").read_text().encode("utf-16-le")[:600]
    yield b"\0" + b"\xff" * 512
    yield b"\0" + b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END"


@target("key files: PEM, DER, dumps of the device's memory, and whatever else", key_files, longest=8192)
def keyfile(data: bytes) -> None:
    """Any bytes as a key file, as they are or in a wrapping that lets the search get past it."""
    content = content_of(Script(data))
    file = inspect_key_file(content, "key")
    _check(content, file)


def content_of(script: Script) -> bytes:
    """The file that a script makes."""
    how = script.below(4)
    if how == 1:
        label = script.pick(WRAPS)
        body = base64.encodebytes(script.rest())
        return b"-----BEGIN " + label + b"-----\n" + body + b"-----END " + label + b"-----\n"
    if how == 2:
        before, after = script.number() * 16, script.number() * 64
        return b"\xff" * before + script.rest() + b"\xff" * after
    return script.rest()


def _check(content: bytes, file: KeyFile) -> None:
    """What is said of it is possible, holds no secret, and can be shown."""
    assert file.size == len(content)
    for part in file.parts:
        assert part.key.n > 0
        assert part.key.bits == part.key.n.bit_length()
        assert part.key.spki
        assert part.key.role in ("device", "server", "other")
        secret = part.key.secret
        if secret is not None:
            shown = repr(file) + repr(part) + repr(part.key)
            for number in (secret.d, secret.p, secret.q):
                assert number < 1 << 64 or (str(number) not in shown and f"{number:x}" not in shown)
    try:
        inspect_key_file(content, "key", b"password")
    except KeyFileError as error:
        is_inert(str(error), "")
    place = _desk() / "key"
    place.write_bytes(content)
    rows = keys_report([os.fspath(place)])
    for width in (40, 80):
        is_inert(render_keys(rows, width))
    for row in rows:
        repr(row.as_dict())


LOG: Final = key_log_line(bytes(40), SessionKey.from_blob(bytes(range(40))))
ID: Final = b"53ff6f065067544840551187"
TABLE: Final = b"device,key\r\n" + ID + b",core-a.der\r\n" + ID + b';"core-b.der"\n\t' + ID + b"\tnone\n"


def key_logs() -> Iterator[bytes]:
    yield LOG.encode()
    yield LOG.replace("00" * 40, "-").encode() + b" # mine\nother line\n" + LOG.encode()[:70]


def _texts() -> Iterator[bytes]:
    yield from (written(0) + log for log in key_logs())
    yield written(1) + bytes(range(40)).hex().encode()
    yield written(1) + bytes(range(16)).hex(":").encode()
    yield written(2) + TABLE
    yield written(3) + b"[fd00::50]:5683"
    for name in (b"192.168.1.50", b"my.server:5683", b"::ffff:1.2.3.4", b"x" * 70 + b".example", b"[::1%eth0]"):
        yield written(3) + name


@target("key logs, session keys as digits, tables of devices, expected servers", _texts, longest=4096)
def texts(data: bytes) -> None:
    """Lines that a user wrote, or a spreadsheet."""
    script = Script(data)
    kind = script.below(4)
    rest = script.rest()
    text = rest.decode("utf-8", "replace")
    if kind == 0:
        log = read_key_log(text)
        lines = [key_log_line(nonce, key) for nonce, keys in log.by_nonce.items() for key in keys]
        lines += [key_log_line(None, key) for key in log.without_nonce]
        again = read_key_log("\n".join(lines))
        assert (again.by_nonce, again.without_nonce) == (log.by_nonce, log.without_nonce)
        assert not again.bad_lines
        for _, reason in log.bad_lines:
            is_inert(reason, "")
    elif kind == 1:
        try:
            key = parse_session_key(text)
        except KeyFileError as error:
            is_inert(str(error), "")
        else:
            assert key.key.hex() in text.lower().translate({ord(char): None for char in " \t\r\n:-"})
            assert key.key.hex() not in repr(key)
    elif kind == 2:
        found, warnings = read_device_table(BytesIO(rest), "keys/devices.csv", {"keys/core-a.der": 1, "keys/b.der": 2})
        assert all(len(device) == 12 and device.hex() in text.lower() for device in found)
        for warning in warnings:
            is_inert(warning, "")
    else:
        try:
            server = ExpectedServer.parse(text)
        except ExpectedServerError as error:
            is_inert(str(error), "")
        else:
            assert ExpectedServer.parse(str(server)) == server
            is_inert(str(server), "")
