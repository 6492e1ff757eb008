"""Why something that the user named is no capture: one line each, with one fact and what to do next."""

from __future__ import annotations

import os
import shlex
import string
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from analyzer.capture.packet import CaptureError
from analyzer.wording import printable

STANDARD_INPUT: Final = "-"
CAPTURE_COMMAND: Final = "tcpdump -U -w - port 5683 | sparkshark analyze -"
LONGEST_QUOTE: Final = 24
"""Characters of a file's beginning that are quoted: enough to recognise it."""
MOST_NAMES: Final = 10_000
"""Directory entries that are compared with a mistyped name; more would take seconds."""

OTHER_FORMATS: Final = (
    (b"PK\x03\x04", "a zip archive", "Unpack it first, then name the capture in it."),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it first, then name the capture in it."),
    (b"Rar!\x1a\x07", "a rar archive", "Unpack it first, then name the capture in it."),
    (b"\x7fELF", "a program (ELF)", "Name a file that tcpdump, dumpcap or Wireshark has written."),
    (b"%PDF-", "a PDF", "Name a file that tcpdump, dumpcap or Wireshark has written."),
    (b"\x89PNG", "a picture (PNG)", "Name a file that tcpdump, dumpcap or Wireshark has written."),
    (b"snoop\x00\x00\x00", "a snoop file", "Convert it: editcap -F pcapng {path} capture.pcapng"),
    (b"GMBU", "a Network Monitor file", "Convert it: editcap -F pcapng {path} capture.pcapng"),
    (b"RTSS", "a Network Monitor file", "Convert it: editcap -F pcapng {path} capture.pcapng"),
)
"""What people have at hand in place of a capture: how it begins, its name, and what helps."""

RSA_PUBLIC_OID: Final = bytes.fromhex("06092a864886f70d010101")


def shown(path: str) -> str:
    """Return a file name as typed, with everything escaped that would not stay on one line."""
    if path == STANDARD_INPUT:
        return "standard input"
    return printable(path)


def missing(path: str) -> CaptureError:
    """Say that there is no such file, and which similar name there is."""
    folder, name = os.path.split(path)
    if not path:
        return CaptureError('"": no file name. Name a file, a folder, or - for standard input.')
    try:
        with os.scandir(folder or ".") as entries:
            there = [entry.name for _, entry in zip(range(MOST_NAMES), entries, strict=False)]
    except (OSError, ValueError):
        return CaptureError(f"{shown(path)}: no such file; the folder {shown(folder)} cannot be listed either.")
    if near := get_close_matches(name, there, n=1):
        return CaptureError(f"{shown(path)}: no such file. Did you mean {shown(os.path.join(folder, near[0]))}?")
    return CaptureError(f"{shown(path)}: no such file. See what is there: ls {shlex.quote(folder or '.')}")


def cannot_read(path: str, error: OSError | ValueError) -> CaptureError:
    """Say why the operating system does not give the file out."""
    if isinstance(error, FileNotFoundError):
        return missing(path)
    if isinstance(error, PermissionError):
        owner = _owner(path)
        return CaptureError(
            f"{shown(path)}: no permission to read{owner and f' (owner {owner})'}. "
            f"Try: sudo chown $USER {shlex.quote(path)}"
        )
    reason = (isinstance(error, OSError) and error.strerror) or str(error)
    return CaptureError(f"{shown(path)}: cannot be read ({reason}). Try a copy on another disk.")


def empty(path: str, size: int = 0) -> CaptureError:
    """Say that there is nothing, or (``size`` bytes) not enough for the beginning of any capture."""
    extent = "empty (0 bytes)" if not size else f"almost empty ({size} byte{'s' * (size != 1)})"
    return CaptureError(f"{shown(path)}: {extent}. The capture program has not written anything yet; stop it first.")


def unreadable(path: str, why: str) -> CaptureError:
    """Say that the bytes stop before a capture has begun; ``why`` is a phrase about them."""
    return CaptureError(f"{shown(path)}: {why} before the first packet. Copy the file once more.")


def terminal() -> CaptureError:
    """Say that standard input is a keyboard."""
    return CaptureError(
        f'"-" reads a capture from a pipe, but nothing is piped. Try: {CAPTURE_COMMAND}',
    )


def no_captures(path: str, names: list[str]) -> CaptureError:
    """Say that a directory holds nothing that can be analysed."""
    if not names:
        return CaptureError(f"{shown(path)}: an empty folder. Name one with captures in it.")
    files = "1 file" if len(names) == 1 else f"{len(names):,} files"
    return CaptureError(
        f"{shown(path)}: {files}, none of them a capture (first: {shown(names[0])}). "
        f"Name a file that tcpdump, dumpcap or Wireshark has written."
    )


def foreign(path: str, head: bytes, size: int | None) -> CaptureError:
    """Say what a file is that begins with ``head`` and is no capture; ``size`` in bytes, None if unknown."""
    extent = "" if size is None else f", {size:,} bytes"
    quoted = shlex.quote(path)
    if key := _key(head):
        return CaptureError(
            f"{shown(path)}: not a capture but {key}{extent}). Try: sparkshark keys {quoted}".replace("(, ", "(")
        )
    for magic, name, help_text in OTHER_FORMATS:
        if head.startswith(magic):
            return CaptureError(f"{shown(path)}: not a capture but {name}. {help_text.format(path=quoted)}")
    advice = "Name a file that tcpdump, dumpcap or Wireshark has written."
    if text := _text(head):
        start = text.lstrip()
        if start[:1] == "<":
            return CaptureError(f"{shown(path)}: not a capture but a web page (HTML). Download the file itself.")
        kind = "JSON" if start[:1] in "{[" and start else "text"
        return CaptureError(f'{shown(path)}: not a capture but {kind} (starts "{_quote(text)}"). {advice}')
    return CaptureError(f"{shown(path)}: not a capture (starts with {head[:4].hex(' ')}). {advice}")


def _key(head: bytes) -> str:
    """Return what kind of key or certificate begins so, up to the open bracket that the size goes into."""
    start = head.lstrip()
    if start.startswith(b"-----BEGIN "):
        label = start[11:].partition(b"-----")[0]
        if b"CERTIFICATE" in label:
            return "a certificate ("
        kind = "RSA " if label.startswith(b"RSA ") else "EC " if label.startswith(b"EC ") else ""
        return f"a key ({kind}{'private' if b'PRIVATE' in label else 'public'}"
    # DER: a SEQUENCE with its length in one to four bytes more, which any key of 1024 bits or above has.
    if len(head) < 16 or head[0] != 0x30 or not 0x81 <= head[1] <= 0x84:
        return ""
    body = head[2 + (head[1] & 0x0F) :]
    if body[:3] == b"\x02\x01\x00":
        return "a key (RSA private" if body[3:4] == b"\x02" or RSA_PUBLIC_OID in body[:24] else "a key (private"
    if body[:1] == b"\x30":
        return "a key (RSA public" if RSA_PUBLIC_OID in body[:16] else "a certificate ("
    return "a key (RSA public" if body[:1] == b"\x02" else ""


def _text(head: bytes) -> str:
    """Return the beginning as text, or nothing when it is none."""
    for encoding in ("utf-8-sig", "utf-16") if head[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig",):
        # The last characters may be cut in two, so they are left out of the judgement.
        text = head[:-4].decode(encoding, "replace") if len(head) > 64 else head.decode(encoding, "replace")
        if text and all(c.isprintable() or c in string.whitespace for c in text) and "\ufffd" not in text:
            return text
    return ""


def _quote(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_QUOTE else line[:LONGEST_QUOTE] + "..."


def _owner(path: str) -> str:
    try:
        return Path(path).owner()
    except (
        OSError,
        KeyError,
        ValueError,
        NotImplementedError,
    ):  # no such right, no such user, no such system
        return ""
