"""DER bytes → RSA numbers, for each of the five structures in which such keys come (PROTOCOL 8.1, 8.5).

The structure is told from its members, never from a file's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from analyzer.keys import der
from analyzer.keys.der import Element
from analyzer.rsa import LARGEST_MODULUS_BITS, PrivateNumbers, PublicNumbers

SMALLEST_MODULUS_BITS: Final = 512
EC_POINT_SIZES: Final = (32, 48, 66)


@dataclass(slots=True)
class Found:
    """What one DER structure is.

    ``what`` is pkcs1, pkcs8, spki, pkcs1-public, certificate, elliptic-curve or encrypted. ``length`` is the
    whole structure's by its own header; ``truncated`` when the data ends before. A cut-off private key may
    still show its modulus: then ``public`` is set and ``secret`` is not.
    """

    what: str
    length: int
    truncated: bool
    public: PublicNumbers | None = None
    secret: PrivateNumbers | None = None
    pkcs1_at: int = 0
    """Where the bare PKCS#1 structure lies inside a PKCS#8 one."""


def read_structure(data: bytes, at: int = 0) -> Found | None:
    """Read the key structure that starts at ``at``; None when there is none."""
    outer = der.read_element(data, at)
    if outer is None or outer.tag != der.SEQUENCE:
        return None
    found = _by_members(outer, der.children(outer))
    if found is None:
        return None
    declared = _declared_length(data, at)
    found.length, found.truncated = declared, at + declared > len(data)
    return found


def _declared_length(data: bytes, at: int) -> int:
    first = data[at + 1]
    if first < 0x80:
        return 2 + first
    count = first - 0x80
    return 2 + count + int.from_bytes(data[at + 2 : at + 2 + count], "big")


def _by_members(outer: Element, members: list[Element]) -> Found | None:
    tags = [member.tag for member in members]
    if tags[:2] == [der.INTEGER, der.INTEGER]:
        if members[0].number == 0 and members[0].width <= 1:
            return _pkcs1_private(outer, members)
        return _pkcs1_public(members) if len(tags) == 2 else None
    if tags[:2] == [der.INTEGER, der.SEQUENCE]:
        return _pkcs8(members)
    if tags[:2] == [der.INTEGER, der.OCTET_STRING] and members[0].number == 1:
        return Found("elliptic-curve", 0, False) if members[1].width in EC_POINT_SIZES else None
    if tags[:2] == [der.SEQUENCE, der.BIT_STRING]:
        return _spki(members)
    if tags[:2] == [der.SEQUENCE, der.OCTET_STRING]:
        scheme = der.children(members[0])
        encrypted = bool(scheme) and scheme[0].value.startswith(der.PBES_IDS)
        return Found("encrypted", 0, False) if encrypted else None
    if tags[:2] == [der.SEQUENCE, der.SEQUENCE]:
        return _certificate(members[0])
    return None


def _pkcs1_private(outer: Element, members: list[Element]) -> Found | None:
    numbers = [member.number for member in members[1:9] if member.tag == der.INTEGER and not member.cut]
    if not numbers and outer.cut:
        return Found("pkcs1", 0, True)
    if not numbers or not _plausible(numbers[0]):
        return None
    e = numbers[1] if len(numbers) > 1 else 65537
    found = Found("pkcs1", 0, False, PublicNumbers(numbers[0], e))
    # Eight numbers, none wider than the modulus: an absurd exponent in a damaged file must not cost seconds.
    if len(numbers) == 8 and max(numbers[1:]) < numbers[0] and not outer.cut:
        n, e, d, p, q, dp, dq, qinv = numbers
        found.secret = PrivateNumbers(n, e, d, p, q, dp, dq, qinv)
    elif len(numbers) < 8:
        found.truncated = True
    return found


def _pkcs1_public(members: list[Element]) -> Found | None:
    n, e = members[0].number, members[1].number
    if not _plausible(n) or members[0].cut or members[1].cut or not 1 < e < n:
        return None
    return Found("pkcs1-public", 0, False, PublicNumbers(n, e))


def _pkcs8(members: list[Element]) -> Found | None:
    algorithm = der.children(members[1])
    if not algorithm or algorithm[0].tag != der.OBJECT_ID:
        return None
    if algorithm[0].value == der.EC_ID:
        return Found("elliptic-curve", 0, False)
    if algorithm[0].value != der.RSA_ID or len(members) < 3 or members[2].tag != der.OCTET_STRING:
        return None
    inner = der.read_element(members[2].data, members[2].start, members[2].end)
    if inner is None or inner.tag != der.SEQUENCE:
        return None
    found = _pkcs1_private(inner, der.children(inner))
    if found is not None:
        found.what, found.pkcs1_at = "pkcs8", inner.at
    return found


def _spki(members: list[Element]) -> Found | None:
    if len(members) < 2:
        return None
    algorithm = der.children(members[0])
    if not algorithm or algorithm[0].tag != der.OBJECT_ID:
        return None
    if algorithm[0].value == der.EC_ID:
        return Found("elliptic-curve", 0, False)
    if algorithm[0].value != der.RSA_ID:
        return None
    # The first byte of a BIT STRING counts unused bits; the key follows it.
    inner = der.read_element(members[1].data, members[1].start + 1, members[1].end)
    if inner is None or inner.tag != der.SEQUENCE:
        return None
    numbers = der.children(inner)
    if inner.cut:
        return Found("spki", 0, True)
    if [number.tag for number in numbers[:2]] == [der.INTEGER, der.INTEGER]:
        found = _pkcs1_public(numbers[:2])
        if found is not None:
            found.what = "spki"
        return found
    return None


def _certificate(signed: Element) -> Found | None:
    """Find the public key in a certificate: version (explicit), serial, four SEQUENCEs, then the key."""
    members = der.children(signed)
    if members and members[0].tag == der.EXPLICIT_0:
        members = members[1:]
    if len(members) < 6 or members[0].tag != der.INTEGER or members[5].tag != der.SEQUENCE:
        return None
    found = _spki(der.children(members[5]))
    if found is None:
        return Found("certificate", 0, False)
    if found.what == "spki":
        found.what = "certificate"
    return found


def _plausible(n: int) -> bool:
    return n & 1 == 1 and SMALLEST_MODULUS_BITS <= n.bit_length() <= LARGEST_MODULUS_BITS
