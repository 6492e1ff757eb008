"""Finds what must not be in an output, however it is written there."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq

PIECE: Final = 12
"""Bytes of a secret that are looked for by themselves: whatever shows 23 bytes in a row of one shows such a piece."""
LEAST_DIGITS: Final = 18
"""Decimal digits of a number that are no accident."""
WAYS: Final = (
    "raw",
    "UTF-8 of Latin-1",
    "hex, either case, with or without separators",
    "\\x, \\u00, % and &#x escapes",
    "base64 and its form for URLs, at each of three alignments, also cut into lines",
    "numbers of bytes",
    "one decimal number",
    "what Python, JSON and HTML make of it",
)
"""Ways of writing bytes that are recognised, for people."""


def spelled(canary: str | bytes) -> Iterator[bytes]:
    """A canary as it is, in hex digits, and in the three ways in which base64 can have it; all in lower case."""
    raw = canary.encode() if isinstance(canary, str) else canary
    if isinstance(canary, str):
        yield raw.lower()
    yield raw.hex().encode()
    yield raw.hex(" ").encode()
    yield from (inside.lower() for inside in in_base64(raw) if len(inside) > 6)


def in_base64(raw: bytes) -> Iterator[bytes]:
    """The characters of base64 that depend on ``raw`` alone, at each of three alignments."""
    for front in range(3):
        yield base64.b64encode(bytes(front) + raw)[4 if front else 0 :].rstrip(b"=")[:-1]


class Secret:
    """Bytes that must not be seen: ``name`` is what they are."""

    def __init__(self, name: str, raw: bytes) -> None:
        self.name = name
        self.raw = raw
        self.pieces = [raw[at : at + PIECE] for at in range(0, max(1, len(raw) - PIECE + 1), PIECE)]

    @cached_property
    def shown(self) -> set[bytes]:
        """Its pieces as they are, and as programs escape them."""
        found = set()
        for piece in self.pieces:
            text = piece.decode("latin-1")
            found |= {piece, text.encode(), repr(piece)[2:-1].encode(), repr(text)[1:-1].encode()}
            found |= {repr(bytearray(piece))[12:-2].encode(), html.escape(text).encode()}
            found |= {json.dumps(text, ensure_ascii=alone)[1:-1].encode() for alone in (True, False)}
        return found

    @cached_property
    def digits(self) -> set[bytes]:
        """Its pieces in hex digits."""
        return {piece.hex().encode() for piece in self.pieces}

    @cached_property
    def encoded(self) -> set[bytes]:
        """Its pieces in base64."""
        return {text for piece in self.pieces for text in in_base64(piece)}

    @cached_property
    def numbers(self) -> set[bytes]:
        """Its pieces as lists of numbers; itself, in parts, as one number with either end first."""
        found = {",".join(map(str, piece)).encode() for piece in self.pieces}
        for order in ("big", "little"):
            whole = str(int.from_bytes(self.raw, order)).encode()
            found |= {
                whole[at : at + LEAST_DIGITS]
                for at in range(0, max(1, len(whole) - LEAST_DIGITS + 1), LEAST_DIGITS)
                if len(whole) >= LEAST_DIGITS
            }
        return found


def leaks(output: bytes, secrets: Iterable[Secret]) -> list[str]:
    """Return the names of the secrets that an output shows, wholly or in part."""
    digits = re.sub(rb"\\u00|0x|[^0-9a-f]", b"", output.lower())
    encoded = re.sub(rb"\\n|[^A-Za-z0-9+/]", b"", output.replace(b"-", b"+").replace(b"_", b"/"))
    numbers = re.sub(rb"[^0-9,]", b"", output)
    alone = re.sub(rb"[^0-9]", b"", output)
    return [
        secret.name
        for secret in secrets
        if any(piece in output for piece in secret.shown)
        or any(piece in digits for piece in secret.digits)
        or any(piece in encoded for piece in secret.encoded)
        or any(piece in (numbers if b"," in piece else alone) for piece in secret.numbers)
    ]


def contents(place: Path) -> Iterator[tuple[Path, bytes]]:
    """All files below a folder: what is in them, and what is in tables when they are unpacked."""
    for root, _, files in os.walk(place):
        for name in files:
            path = Path(root) / name
            yield path, path.read_bytes()
            if path.suffix == ".parquet":
                yield path, repr(pq.ParquetFile(io.BytesIO(path.read_bytes())).read().to_pylist()).encode()


def ways_to_write(raw: bytes) -> Mapping[str, bytes]:
    """The same bytes in every way that `leaks` knows: what it has to be tested with."""
    text, number = raw.decode("latin-1"), int.from_bytes(raw, "big")
    lines = base64.b64encode(b"\x00" + raw)
    return {
        "raw": raw,
        "latin-1": text.encode(),
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "hex with blanks": raw.hex(" ").encode(),
        "hex with colons": raw.hex(":", 2).encode(),
        "rows of hex": b"\n".join(raw[at : at + 16].hex(" ").encode() for at in range(0, len(raw), 16)),
        "C": ", ".join(f"0x{byte:02X}" for byte in raw).encode(),
        "backslash x": "".join(f"\\x{byte:02x}" for byte in raw).encode(),
        "backslash u": "".join(f"\\u{byte:04x}" for byte in raw).encode(),
        "percent": "".join(f"%{byte:02X}" for byte in raw).encode(),
        "entities": "".join(f"&#x{byte:02x};" for byte in raw).encode(),
        "repr of bytes": repr(raw).encode(),
        "repr of text": repr(text).encode(),
        "ascii": ascii(text).encode(),
        "JSON": json.dumps(text).encode(),
        "JSON in UTF-8": json.dumps(text, ensure_ascii=False).encode(),
        "HTML": html.escape(text).encode(),
        "repr of bytearray": repr(bytearray(raw)).encode(),
        "list": str(list(raw)).encode(),
        "tuple in lines": json.dumps(list(raw), indent=1).encode(),
        "integer": str(number).encode(),
        "integer with separators": f"{number:,}".encode(),
        "integer in hex": hex(number).encode(),
        "integer, other end first": str(int.from_bytes(raw, "little")).encode(),
        "base64": base64.b64encode(raw),
        "base64, one behind": base64.b64encode(b"x" + raw),
        "base64, two behind": base64.b64encode(b"xx" + raw),
        "base64 for URLs": base64.urlsafe_b64encode(raw),
        "base64 in lines": b"\n".join(lines[at : at + 20] for at in range(0, len(lines), 20)),
        "base64 in lines, escaped": b"\\n".join(lines[at : at + 64] for at in range(0, len(lines), 64)),
    }
