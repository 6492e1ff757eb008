"""Keys where devices keep them: slots, server images with an address, whole flash chips (PROTOCOL 8.2)."""

from __future__ import annotations

import re
from typing import Final

from analyzer.catalogue import BOARD_SLOTS, READ_SLOT
from analyzer.keys import firmware
from analyzer.keys.model import Key, KeyFile, KeyPart, ServerAddress
from analyzer.keys.structures import Found, read_structure
from analyzer.rsa import PublicNumbers

FLASH_SIZE: Final = 2_097_152
DCT_SIZE: Final = 16_384
SERVER_SLOT: Final = 2_048
BLANK_PROBE: Final = 512
"""Bytes of a slot that must all be FF for it to be called erased."""

CORE_PLACES: Final = {0x2000: "device's private key", 0x1000: "server's public key"}
DCT_PLACES: Final = {34: "device's private key", 2082: "server's public key"}
DCT_ELLIPTIC_PLACES: Final = (3106, 3298)
ELLIPTIC_AT: Final = "an elliptic-curve key at {at}, for UDP only"
ERASED_SLOT: Final = "the slot of the {what} is erased"
MOST_KEYS: Final = 16
"""Keys listed of one file; a flash chip holds three or four."""

READ_CORE_KEY: Final = READ_SLOT.format(usb=BOARD_SLOTS["Core"][0], slot=BOARD_SLOTS["Core"][1], file="FILE")

ADDRESS_AT: Final = 384
PORT_AT: Final = 450
ADDRESS_IPV4: Final = 0
ADDRESS_DOMAIN: Final = 1
UNSET_PORTS: Final = (0, 0xFFFF)

_HOST = re.compile(r"[A-Za-z0-9._-]{1,126}")
_DEVICE_ID = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{24}(?![0-9a-fA-F])")
_KEY_HEADS = re.compile(
    rb"\x30\x82..\x02\x01\x00\x02\x81[\x80\x81]"  # PKCS#1, private
    rb"|\x30\x82..\x02\x01\x00\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01"  # PKCS#8
    rb"|\x30(?:\x81\x9f|\x82\x01\x22)\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01",  # SPKI
    re.DOTALL,
)


def part_at(
    data: bytes,
    offset: int,
    name: str,
    found: Found,
    *,
    base: int | None = None,
    address: ServerAddress | None = None,
) -> KeyPart:
    """Describe the key that ``found`` says lies at ``offset``; ``base`` is the flash address of byte 0."""
    ids = tuple(match.lower() for match in _DEVICE_ID.findall(re.split(r"[/\\]", name)[-1]))
    key = Key(found.public or PublicNumbers(0, 0), found.secret, (name,), ids)
    reading = firmware.slot_reading(data[offset : offset + firmware.PRIVATE_SLOT], found)
    converted = None
    if found.what == "pkcs8" and found.secret is not None:
        converted = firmware.reads_private(data[found.pkcs1_at : found.pkcs1_at + firmware.PRIVATE_SLOT], found.secret)
    place = None if base is None else base + offset
    return KeyPart(key, offset, found.what, False, place, found.length, reading, converted, address)


def server_address(slot: bytes) -> ServerAddress | None:
    """Read host and port stored behind a server key (PROTOCOL 8.3); None when none is stored."""
    kind, length = (slot[ADDRESS_AT : ADDRESS_AT + 2] + b"\xff\xff")[:2]
    value = slot[ADDRESS_AT + 2 : ADDRESS_AT + 2 + length]
    if len(value) != length:
        return None
    if kind == ADDRESS_IPV4 and length == 4:
        host = ".".join(str(byte) for byte in value)
    elif kind == ADDRESS_DOMAIN and _HOST.fullmatch(value.rstrip(b"\x00").decode("latin-1")):
        host = value.rstrip(b"\x00").decode("latin-1")
    else:
        return None
    stored = slot[PORT_AT : PORT_AT + 2]
    port = int.from_bytes(stored, "big") if len(stored) == 2 else 0
    return ServerAddress(host, None if port in UNSET_PORTS else port)


def carved(data: bytes, name: str) -> KeyFile | None:
    """Find the keys in a dump, at the places known for its size first; None when there are none."""
    kind, base, places = _layout(len(data))
    starts = [at - (base or 0) for at in places if at >= (base or 0)]
    starts += [match.start() for match, _ in zip(_KEY_HEADS.finditer(data), range(MOST_KEYS), strict=False)]
    parts: list[KeyPart] = []
    for start in starts:
        # A PKCS#1 structure also stands inside each PKCS#8 one, and known places are found twice.
        if any(part.offset <= start < part.offset + part.length for part in parts):
            continue
        found = read_structure(data, start)
        if found is None or found.public is None:
            continue
        address = server_address(data[start : start + SERVER_SLOT]) if found.what == "spki" else None
        parts.append(part_at(data, start, name, found, base=base, address=address))
    remarks = _empty_slots(data, base or 0, places)
    if kind == "dct-dump":
        remarks += _elliptic_keys(data)
    if not parts and not remarks:
        return None
    advice = "Next time:" if kind == "flash-dump" else None
    commands = (READ_CORE_KEY,) if kind == "flash-dump" else ()
    reason = "slot_dump" if kind == "slot-dump" else "flash_dump"
    return KeyFile(name, len(data), kind, tuple(parts), (reason,), "; ".join(remarks), advice, commands)


def _layout(size: int) -> tuple[str, int | None, dict[int, str]]:
    """Return kind, flash address of byte 0 (None: not known) and the places to look at, by a dump's size."""
    if size == DCT_SIZE:
        return "dct-dump", 0, DCT_PLACES
    start = FLASH_SIZE - size
    if 0 <= start <= max(CORE_PLACES):
        # Left without a length, dfu-util reads from the given address to the end of the flash.
        return "flash-dump", start, CORE_PLACES
    return ("flash-dump" if size > SERVER_SLOT else "slot-dump"), None, {}


def _empty_slots(data: bytes, base: int, places: dict[int, str]) -> list[str]:
    return [
        ERASED_SLOT.format(what=what)
        for at, what in places.items()
        if at >= base and not data[at - base : at - base + BLANK_PROBE].strip(b"\xff")
    ]


def _elliptic_keys(data: bytes) -> list[str]:
    structures = [(at, read_structure(data, at)) for at in DCT_ELLIPTIC_PLACES]
    return [
        ELLIPTIC_AT.format(at=at) for at, found in structures if found is not None and found.what == "elliptic-curve"
    ]
