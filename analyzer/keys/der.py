"""The little of ASN.1 that key files need, read leniently: a Photon's own keys are not minimal DER.

A crypto library refuses INTEGERs with needless leading zeros and bytes behind the key (PROTOCOL 8.2, 8.4),
both of which are normal in flash dumps. So lengths are followed, values are taken as unsigned, and what is
cut off is reported as far as it goes. Nothing here raises on bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OBJECT_ID: Final = 0x06
SEQUENCE: Final = 0x30
EXPLICIT_0: Final = 0xA0

RSA_ID: Final = bytes.fromhex("2a864886f70d010101")
EC_ID: Final = bytes.fromhex("2a8648ce3d0201")
PBES_IDS: Final = (bytes.fromhex("2a864886f70d01050d"), bytes.fromhex("2a864886f70d010c01"))
"""PBES2, and the prefix of the older PKCS#12 schemes: the key inside is encrypted."""

MOST_CHILDREN: Final = 16
"""A key structure has at most nine members, a certificate's inner part ten."""
LONGEST_LENGTH: Final = 3
"""Length bytes: three reach 16 MiB, far beyond any file that is looked at."""


@dataclass(slots=True)
class Element:
    """One tag-length-value: its value is ``data[start:end]``; ``cut`` when the data ends before it does."""

    data: bytes = field(repr=False)
    tag: int
    at: int
    start: int
    end: int
    cut: bool

    @property
    def value(self) -> bytes:
        """The content bytes, as far as the data has them."""
        return self.data[self.start : self.end]

    @property
    def number(self) -> int:
        """The content as an unsigned integer, whatever its top bit."""
        return int.from_bytes(self.value, "big")

    @property
    def width(self) -> int:
        """Content length in bytes as its length field says."""
        return self.end - self.start


def read_element(data: bytes, at: int = 0, limit: int | None = None) -> Element | None:
    """Read the element that starts at ``at``; None when not even its header is there."""
    limit = len(data) if limit is None else limit
    if at + 2 > limit:
        return None
    length, start = data[at + 1], at + 2
    if length >= 0x80:
        count = length - 0x80
        if not 1 <= count <= LONGEST_LENGTH or start + count > limit:
            return None
        length, start = int.from_bytes(data[start : start + count], "big"), start + count
    return Element(data, data[at], at, start, min(start + length, limit), start + length > limit)


def children(parent: Element) -> list[Element]:
    """Return the elements inside a constructed one, as far as they can be read."""
    found: list[Element] = []
    at = parent.start
    while at < parent.end and len(found) < MOST_CHILDREN:
        element = read_element(parent.data, at, parent.end)
        if element is None:
            break
        found.append(element)
        at = element.end
    return found


def encode(tag: int, value: bytes) -> bytes:
    """Encode one element in DER."""
    size = len(value)
    if size < 0x80:
        return bytes([tag, size]) + value
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + value


def encode_integer(value: int) -> bytes:
    """Encode a non-negative INTEGER in DER."""
    return encode(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def spki(n: int, e: int) -> bytes:
    """Return the SubjectPublicKeyInfo of an RSA key: 162 bytes for a device's, 294 for a server's."""
    numbers = encode(SEQUENCE, encode_integer(n) + encode_integer(e))
    algorithm = encode(SEQUENCE, encode(OBJECT_ID, RSA_ID) + b"\x05\x00")
    return encode(SEQUENCE, algorithm + encode(BIT_STRING, b"\x00" + numbers))
