"""pcapng blocks as everything here writes them: little-endian, with clocks of micro- or nanoseconds."""

from __future__ import annotations

from struct import Struct
from typing import Final

from analyzer.capture.blocks import BYTE_ORDERS, ENHANCED_PACKET, INTERFACE, SECTION_HEADER

COMMENT, NAME, DESCRIPTION, APPLICATION, RESOLUTION = 1, 2, 3, 4, 9
"""Codes of options: a comment, name and description of an interface, what wrote a section, digits of a clock."""
PACKET_OVERHEAD: Final = 32
"""Bytes of a packet's block besides its data, which is filled up to a multiple of 4."""
LATEST_TICK: Final = (1 << 64) - 1

_FRAME: Final = Struct("<II").pack
_END: Final = Struct("<I").pack
_OPTION: Final = Struct("<HH").pack
_LITTLE: Final = next(mark for mark, order in BYTE_ORDERS.items() if order == "<")
_SECTION: Final = _LITTLE + Struct("<HHq").pack(1, 0, -1)  # version 1.0, of unknown length
_INTERFACE: Final = Struct("<HHI").pack
_PACKET: Final = Struct("<IIIII").pack


def section(options: bytes = b"") -> bytes:
    """Return the block that a file begins with; ``options`` are ended by `option` 0, if there are any."""
    return _block(SECTION_HEADER, _SECTION + options)


def interface(link_type: int, digits: int, options: bytes = b"") -> bytes:
    """Return the block of an interface whose times have 6 or 9 ``digits``; ``options`` are not ended."""
    return _block(INTERFACE, _INTERFACE(link_type, 0, 0) + options + option(RESOLUTION, bytes((digits,))) + option(0))


def packet(place: int, time_ns: int, digits: int, data: bytes, original: int, *, options: bytes = b"") -> bytes:
    """Return the block of a packet on the interface that was described as number ``place`` (from 0), with ``digits``.

    ``original`` is its size on the wire (bytes); ``options`` are ended by `option` 0, if there are any.
    """
    # The format counts from 1970 on, in 64 bits; a damaged clock may be outside.
    ticks = min(max(time_ns, 0) // 10 ** (9 - digits), LATEST_TICK)
    fields = _PACKET(place, ticks >> 32, ticks & 0xFFFF_FFFF, len(data), original)
    return _block(ENHANCED_PACKET, fields + _padded(data) + options)


def option(code: int, value: bytes = b"") -> bytes:
    """Return one option of a block; code 0 ends them."""
    return _OPTION(code, len(value)) + _padded(value)


def _block(kind: int, body: bytes) -> bytes:
    size = len(body) + 12
    return _FRAME(kind, size) + body + _END(size)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
