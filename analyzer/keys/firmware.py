"""The firmware's own way of reading keys, replayed: fixed steps where ASN.1 has lengths (PROTOCOL 8.4).

About one correct key in a hundred has a number a byte shorter than usual; the steps then fall out of time
with the file, and a device with a perfectly good key cannot open anything (DIAGNOSES, SPK306).
"""

from __future__ import annotations

from typing import Final

from analyzer.keys import der
from analyzer.keys.model import DEVICE_BITS, EXPONENT, SERVER_BITS, FirmwareReading
from analyzer.keys.structures import Found, read_structure
from analyzer.rsa import PrivateNumbers, PublicNumbers

PRIVATE_SLOT: Final = 612
"""Bytes of the private-key slot that any firmware looks at."""
MODULUS_AT: Final = 33
"""Where the firmware finds the server's modulus in the slot, whatever the bytes before it say."""

NUMBER_NAMES: Final = ("n", "d", "p", "q", "dP", "dQ", "qInv")
NUMBER_SIZES: Final = (128, 128, 64, 64, 64, 64, 64)
FIRST_STEP: Final = 9
STEPS: Final = (135, 129, 65, 65, 65, 65, 0)

WRONG_BITS: Final = "the key has {bits} bits, not {wanted}"
WRONG_EXPONENT: Final = "e is {e}, and the firmware assumes {wanted}"
SHORT_NUMBER: Final = "{name} is {short} bytes, not {size}"
WRONG_PLACES: Final = "{names} lie where the firmware does not look"
CONTRADICTION: Final = "its numbers contradict each other"


def firmware_reads(data: bytes) -> FirmwareReading:
    """Say whether a device would read these bytes, written to its slot as they are, as the key they hold.

    Which slot follows from the content: a device's private key goes to the private slot, anything else that
    holds a 2048-bit key to the server slot (PROTOCOL 8.4). Never raises.
    """
    found = read_structure(data)
    if found is None:
        return FirmwareReading(False, (_not_a_slot_key(data),))
    return slot_reading(data, found)


def _not_a_slot_key(data: bytes) -> str:
    if not data.strip(b"\xff"):
        return "the slot is erased"
    if b"-----BEGIN " in data[:64]:
        return "PEM text, where the firmware wants DER"
    return "no key in a form that the firmware knows"


def slot_reading(slot: bytes, found: Found) -> FirmwareReading:
    """As `firmware_reads`, for bytes whose structure is known already."""
    if found.what == "elliptic-curve":
        return FirmwareReading(False, ("an elliptic-curve key, where RSA is needed",))
    if found.what == "encrypted":
        return FirmwareReading(False, ("the key is encrypted",))
    if found.public is None:
        return FirmwareReading(False, ("cut short",) if found.truncated else ("no RSA key inside",))
    if found.what == "pkcs1" and found.secret is not None:
        return reads_private(slot, found.secret)
    if found.what in ("pkcs1", "pkcs8") and found.truncated:
        return FirmwareReading(False, ("cut short",))
    if found.what == "pkcs8":
        return FirmwareReading(False, ("PKCS#8, and the firmware takes the modulus from the wrong place",))
    if found.what == "pkcs1":
        return FirmwareReading(False, ("its numbers do not fit each other",))
    if found.public.n.bit_length() == DEVICE_BITS:
        return FirmwareReading(False, ("a public key, where the device needs its private one",))
    return reads_server(slot, found.public)


def walk_private_slot(slot: bytes) -> dict[str, int]:
    """Return n, d, p, q, dP, dQ, qInv as the firmware takes them out of its slot.

    It looks at the byte where an INTEGER's length should be, takes an odd one to mean a leading zero, copies
    128 or 64 bytes and jumps on by a constant. What lies behind the file is erased flash, FF.
    """
    flash = slot[:PRIVATE_SLOT].ljust(PRIVATE_SLOT + 16, b"\xff")
    numbers, at = {}, FIRST_STEP
    for name, size, step in zip(NUMBER_NAMES, NUMBER_SIZES, STEPS, strict=True):
        at += 2 if flash[at] & 1 else 1
        numbers[name] = int.from_bytes(flash[at : at + size], "big")
        at += step
    return numbers


def reads_private(slot: bytes, numbers: PrivateNumbers) -> FirmwareReading:
    """Compare the walk over a device's PKCS#1 key with what a real ASN.1 reader finds (``numbers``)."""
    if numbers.n.bit_length() != DEVICE_BITS:
        return FirmwareReading(False, (WRONG_BITS.format(bits=numbers.n.bit_length(), wanted=DEVICE_BITS),))
    differences = []
    if numbers.e != EXPONENT:
        differences.append(WRONG_EXPONENT.format(e=numbers.e, wanted=EXPONENT))
    widths = _content_widths(slot)
    for name, size in zip(NUMBER_NAMES, NUMBER_SIZES, strict=True):
        width = widths.get(name, size)
        if width not in (size, size + 1):
            differences.append(SHORT_NUMBER.format(name=name, short=_significant(numbers, name), size=size))
    walked = walk_private_slot(slot)
    truth = _truth(numbers)
    wrong = [name for name in NUMBER_NAMES if walked[name] != truth[name]]
    if wrong and not differences:
        differences.append(WRONG_PLACES.format(names=", ".join(wrong)))
    if not numbers.consistent:
        differences.append(CONTRADICTION)
    return FirmwareReading(not differences, tuple(differences))


def reads_server(slot: bytes, key: PublicNumbers) -> FirmwareReading:
    """Compare bytes 33 to 288 of the server-key slot with the modulus that is really in it."""
    if key.n.bit_length() != SERVER_BITS:
        return FirmwareReading(False, (WRONG_BITS.format(bits=key.n.bit_length(), wanted=SERVER_BITS),))
    differences = []
    if int.from_bytes(slot[MODULUS_AT : MODULUS_AT + SERVER_BITS // 8], "big") != key.n:
        differences.append(f"the modulus is not at byte {MODULUS_AT}, where the device takes it from")
    if key.e != EXPONENT:
        differences.append(WRONG_EXPONENT.format(e=key.e, wanted=EXPONENT))
    return FirmwareReading(not differences, tuple(differences))


def _content_widths(slot: bytes) -> dict[str, int]:
    """Content length of each INTEGER, as written in the file."""
    sequence = der.read_element(slot)
    if sequence is None:
        return {}
    members = der.children(sequence)
    names = ("version", "n", "e", *NUMBER_NAMES[1:])
    return {name: member.width for name, member in zip(names, members, strict=False)}


def _significant(numbers: PrivateNumbers, name: str) -> int:
    return (_truth(numbers)[name].bit_length() + 7) // 8


def _truth(numbers: PrivateNumbers) -> dict[str, int]:
    values = (numbers.n, numbers.d, numbers.p, numbers.q, numbers.dp, numbers.dq, numbers.qinv)
    return dict(zip(NUMBER_NAMES, values, strict=True))
