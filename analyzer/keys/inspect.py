"""One file's bytes → what it is as a key, told from the content (PROTOCOL 8; DIAGNOSES 0.8, SPK305 to 307).

Read top to bottom: what is no key at all, text with a key in it, a locked key, and DER at last, alone or with
whatever a slot or a whole flash chip has around it.
"""

from __future__ import annotations

import binascii
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from analyzer.keys.dumps import carved, part_at, server_address
from analyzer.keys.model import EXPONENT, SERVER_BITS, KeyFile, KeyFileError, KeyPart
from analyzer.keys.structures import Found, read_structure
from analyzer.secrecy import forgetful

Password = str | bytes | Callable[[str], str | bytes | None] | None
"""A password, or what asks for one given the file's name and returns None when there is none."""

MOST_PEM_BLOCKS: Final = 16
"""Blocks read of one PEM file: room for a key, its public half and a chain of certificates."""
SMALLEST_DUMP: Final = 2_049
"""A server-key slot is read with 2048 bytes; from here on the file holds more than one slot."""
LONGEST_PEM_BLOCK: Final = 65_536
"""Forty times a 2048-bit private key; a certificate with many names stays below it too."""
LONGEST_PEM_LABEL: Final = 64
TEXT_PROBE: Final = 512
"""Bytes looked at to tell text from binary: any DER key shows a byte that is no text in its first ten."""
CERTIFICATE_NAMES: Final = (".cer", ".crt")
HTML_STARTS: Final = (b"<!doctype html", b"<html", b"<head", b"<?xml", b"http/1.")
ENCRYPTED_LABEL: Final = b"ENCRYPTED PRIVATE KEY"
ENCRYPTED_HEADER: Final = b"Proc-Type: 4,ENCRYPTED"
PARAMETERS_LABEL: Final = b" PARAMETERS"
UTF16_MARKS: Final = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}
UTF16_PROBE: Final = 4_096
"""Bytes in which the first PEM line of a UTF-16 file must show."""
UTF8_MARK: Final = b"\xef\xbb\xbf"

REMARKS: Final = {
    "empty": "empty (0 bytes)",
    "blank": "an erased slot: {size} bytes without a key",
    "cut": "cut short: {size} of {length} bytes",
    "html": "a web page, not a key: the download went wrong",
    "capture": "a packet capture, not a key",
    "pem": "PEM text without a readable key in it",
    "pem-cut": "PEM text that is cut short",
    "encrypted": "a private key locked with a password",
    "certificate": "a certificate without an RSA key",
    "elliptic-curve": (
        "an elliptic-curve key, as the UDP devices use (Electron, Argon and later); this protocol needs RSA"
    ),
    "text": "text, not a key",
    "unknown": "no key in it",
    "large": "larger than any key file or flash dump",
}
"""What is said of a file without a key in it."""

PEM_START = b"-----BEGIN "
_TEXT_BYTES = b"\t\n\r" + bytes(range(32, 127))
NOT_PEM_CONTENT = ("empty", "text", "unknown")
_REASONS_IN_PEM = ("truncated", "pkcs8", "certificate", "exponent", "damaged")
_LEGACY_CIPHER = re.compile(rb"DEK-Info: *([A-Z0-9-]+),([0-9A-Fa-f]+)\s")
CAPTURE_MAGICS = (
    b"\xd4\xc3\xb2\xa1",
    b"\xa1\xb2\xc3\xd4",
    b"\x4d\x3c\xb2\xa1",
    b"\xa1\xb2\x3c\x4d",
    b"\x0a\x0d\x0d\x0a",
)


@forgetful
def inspect_key_file(data: bytes, name: str, password: Password = None) -> KeyFile:
    """Say what a file is as a key, whatever it is.

    ``name`` is used in what is said, and for a device id it may carry; the role never comes from it. An
    encrypted key without a fitting ``password`` is reported as one (kind "encrypted"), not raised. Raises
    `KeyFileError` only when a ``password`` was given and does not open the key.
    """
    if not data:
        return KeyFile(name, 0, "empty", remark=REMARKS["empty"])
    text = _as_text(data)
    if text[:TEXT_PROBE].lstrip().lower().startswith(HTML_STARTS):
        return _unusable(data, name, "html", REMARKS["html"], "Download it again.")
    if data.startswith(CAPTURE_MAGICS):
        return KeyFile(name, len(data), "capture", remark=REMARKS["capture"])
    if not data.strip(b"\xff") or not data.strip(b"\x00"):
        return _unusable(data, name, "blank", REMARKS["blank"].format(size=f"{len(data):,}"))
    if not text[:TEXT_PROBE].translate(None, _TEXT_BYTES) and PEM_START in text:
        return _from_pem(text, data, name, password)
    found = _from_der(data, name, password)
    # PEM text that somebody wrote into a slot: looked for last, because firmware images hold PEM text too.
    if not found.parts and PEM_START in data and found.kind in ("unknown", "dct-dump", "flash-dump"):
        return _from_pem(data, data, name, password)
    return found


# --- text -------------------------------------------------------------------------------------------------


def _as_text(data: bytes) -> bytes:
    """Return the bytes with the marks that editors and PowerShell's `>` leave taken away."""
    for encoding, mark in UTF16_MARKS.items():
        if data.startswith(mark) and PEM_START.decode().encode(encoding) in data[:UTF16_PROBE]:
            return data[len(mark) :].decode(encoding, "replace").encode("ascii", "replace")
    return data.removeprefix(UTF8_MARK)


def _from_pem(text: bytes, data: bytes, name: str, password: Password) -> KeyFile:
    parts: list[KeyPart] = []
    others: list[KeyFile] = []
    reasons: list[str] = []
    for start, label, block in _pem_blocks(text):
        if label == ENCRYPTED_LABEL or ENCRYPTED_HEADER in block:
            opened = _decrypted(block, name, password, pem=True)
            file = _encrypted(data, name) if opened is None else _from_der(opened, name, None)
            reasons.append("encrypted_pem")
        elif label.endswith(PARAMETERS_LABEL):
            continue
        else:
            file = _from_der(_base64_content(block), name, password)
        if not file.parts:
            others.append(file)
        parts += [replace(part, offset=start, pem=True) for part in file.parts]
        reasons += [reason for reason in file.reasons if reason in _REASONS_IN_PEM]
    if not parts and others and others[0].kind in NOT_PEM_CONTENT:
        return KeyFile(name, len(data), "unknown", remark=REMARKS["pem"])
    if not parts and others:
        return replace(others[0], size=len(data))
    if not parts:
        return _unusable(data, name, "truncated", REMARKS["pem-cut"], "Copy it again.")
    # A slot's filler around it: somebody wrote the text into a slot, or it was read back from one.
    if name.lower().endswith(".der") or b"\xff" in text or b"\x00" in text:
        reasons.append("pem_in_der")
    return KeyFile(name, len(data), "key", tuple(parts), tuple(dict.fromkeys(reasons)))


def _pem_blocks(text: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield offset, label and whole text of each PEM block, `MOST_PEM_BLOCKS` at most."""
    at = 0
    for _ in range(MOST_PEM_BLOCKS):
        start = text.find(PEM_START, at)
        if start < 0:
            return
        at = start + len(PEM_START)
        label = text[at : at + LONGEST_PEM_LABEL].partition(b"-----")[0]
        closing = b"-----END " + label + b"-----"
        end = text.find(closing, at, at + LONGEST_PEM_BLOCK)
        if end >= 0:
            at = end + len(closing)
            yield start, label, text[start:at]


def _base64_content(block: bytes) -> bytes:
    body = [line for line in block.splitlines()[1:] if b":" not in line and not line.startswith(b"-")]
    try:
        return binascii.a2b_base64(b"".join(body))
    except binascii.Error:
        return b""


# --- encrypted keys ---------------------------------------------------------------------------------------


def _decrypted(data: bytes, name: str, password: Password, *, pem: bool) -> bytes | None:
    """Return the plain DER of a locked key; None when no password is at hand."""
    # Only encrypted files need the library, and importing it costs more than reading a folder of plain keys.
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat  # noqa: PLC0415

    given = password(name) if callable(password) else password
    if given is None:
        return None
    load = serialization.load_pem_private_key if pem else serialization.load_der_private_key
    secret = given.encode() if isinstance(given, str) else given
    opened = None
    try:
        if not pem or _legacy_vector_whole(data):
            key = load(data, secret, unsafe_skip_rsa_key_validation=True)
            traditional = isinstance(key, RSAPrivateKey)
            layout = PrivateFormat.TraditionalOpenSSL if traditional else PrivateFormat.PKCS8
            opened = key.private_bytes(Encoding.DER, layout, serialization.NoEncryption())
    except (KeyboardInterrupt, SystemExit):
        raise
    # For damaged and unknown encryptions the library raises many kinds, even one that is no Exception; each means
    # the same to the user. Their texts stay out of ours because they may quote the input.
    except BaseException:
        opened = None
    if opened is None:
        raise KeyFileError(
            f"{name}: the password does not open this key. Try again, or: "
            f"openssl rsa -in {shlex.quote(name)} -out plain.pem"
        )
    return opened


def _legacy_vector_whole(block: bytes) -> bool:
    """Check the initial vector of a traditional PEM encryption: the library aborts on one that is too short."""
    header = _LEGACY_CIPHER.search(block)
    if header is None:
        return b"Proc-Type" not in block
    return len(header[2]) == (32 if header[1].startswith(b"AES") else 16)


def _encrypted(data: bytes, name: str) -> KeyFile:
    return KeyFile(
        name,
        len(data),
        "encrypted",
        (),
        ("encrypted_pem",),
        REMARKS["encrypted"],
        "Give the password with --password-file FILE, or take it off:",
        (f"openssl rsa -in {shlex.quote(name)} -out plain.pem",),
    )


# --- DER --------------------------------------------------------------------------------------------------


def _from_der(data: bytes, name: str, password: Password) -> KeyFile:
    found = read_structure(data)
    if found is None:
        return carved(data, name) or _no_key(data, name)
    if found.what == "elliptic-curve":
        return _elliptic_curve(data, name)
    if found.what == "encrypted":
        opened = _decrypted(data, name, password, pem=False)
        return _encrypted(data, name) if opened is None else _from_der(opened, name, None)
    if len(data) >= SMALLEST_DUMP and len(data) > found.length:
        return carved(data, name) or _single(data, name, found)
    return _single(data, name, found)


def _single(data: bytes, name: str, found: Found) -> KeyFile:
    """Describe a file with one key at its front: the key alone, a slot read back, or a server image."""
    # One 00 behind a key of odd length is the old command line's even padding (PROTOCOL 8.2).
    tail = data[found.length :]
    kind = "key" if tail in (b"", b"\x00") else "slot-dump"
    if kind == "slot-dump" and found.what == "spki" and found.public and found.public.n.bit_length() == SERVER_BITS:
        kind = "server-image"
    suffix = name[-4:].lower()
    reasons = [
        reason
        for reason, applies in (
            ("truncated", found.truncated),
            ("slot_dump", kind != "key"),
            ("pkcs8", found.what == "pkcs8"),
            ("certificate", found.what == "certificate"),
            ("cer_is_der", found.what == "spki" and suffix in CERTIFICATE_NAMES),
            ("der_in_pem", suffix == ".pem"),
            ("exponent", found.public is not None and found.public.e != EXPONENT),
            ("damaged", found.secret is not None and not found.secret.consistent),
        )
        if applies
    ]
    if found.truncated:
        remark = REMARKS["cut"].format(size=f"{len(data):,}", length=f"{found.length:,}")
        parts = (part_at(data, 0, name, found),) if found.public is not None else ()
        return KeyFile(name, len(data), "truncated", parts, tuple(reasons), remark, "Read or download it again.")
    if found.public is None:
        return KeyFile(name, len(data), "certificate", (), tuple(reasons), REMARKS["certificate"])
    part = part_at(data, 0, name, found, address=server_address(data) if found.what == "spki" else None)
    return KeyFile(name, len(data), kind, (part,), tuple(reasons))


def _elliptic_curve(data: bytes, name: str) -> KeyFile:
    return KeyFile(name, len(data), "elliptic-curve", (), ("elliptic_curve",), REMARKS["elliptic-curve"])


def _no_key(data: bytes, name: str) -> KeyFile:
    sample = data[:TEXT_PROBE]
    if not sample.translate(None, _TEXT_BYTES):
        return KeyFile(name, len(data), "text", remark=REMARKS["text"])
    return KeyFile(name, len(data), "unknown", remark=REMARKS["unknown"])


def _unusable(data: bytes, name: str, kind: str, remark: str, advice: str | None = None) -> KeyFile:
    return KeyFile(name, len(data), kind, (), (kind,), remark, advice)
