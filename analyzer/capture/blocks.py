"""The blocks that a pcapng file consists of: their kinds, and how they are found again behind damage."""

from __future__ import annotations

import re
from struct import Struct
from typing import Final, Literal

from analyzer.capture.source import GUESS_WITHIN, Source, Window

SECTION_HEADER: Final = 0x0A0D0D0A
INTERFACE: Final = 1
OLD_PACKET: Final = 2
SIMPLE_PACKET: Final = 3
ENHANCED_PACKET: Final = 6
PACKET_BLOCKS: Final = frozenset({OLD_PACKET, SIMPLE_PACKET, ENHANCED_PACKET})
NUMBERED_BLOCKS: Final = frozenset({9, 0x0BAD, 0x4000_0BAD})
"""Journal entries and custom blocks: no packets, but Wireshark gives them a `frame.number` all the same."""
KNOWN_BLOCKS: Final = PACKET_BLOCKS | NUMBERED_BLOCKS | {SECTION_HEADER, INTERFACE, 4, 5, 10}
"""Also name resolution (4), interface statistics (5) and decryption secrets (10)."""

BYTE_ORDERS: Final = {bytes.fromhex("4d3c2b1a"): "<", bytes.fromhex("1a2b3c4d"): ">"}
"""The byte order mark of a section header, and what `struct` calls that order."""
SMALLEST_BLOCK: Final = 12
SECTION_BODY: Final = 16
LARGEST_BLOCK: Final = 16 << 20
"""Bytes; Wireshark's bound, too. The largest blocks are lists of names and secrets of a few MiB."""
GUESS_CHAIN: Final = 12
"""Blocks in a row that prove a place from which a second reader begins: it has to be right nearly always."""
FARTHEST_BLOCK: Final = 1 << 20
"""Longest block by which the feet are found again: no packet needs more, and it is held in memory whole."""


def read_block(buffer: bytes, order: str) -> tuple[str, int, int, str]:
    """Return byte order, type and length of the block that ``buffer`` begins with, and what is wrong with it.

    A block of which not even type and length are there (12 bytes) has the length of the smallest block.
    """
    if buffer[:4] == SECTION_HEADER.to_bytes(4):
        kind, mark = SECTION_HEADER, buffer[8:12]
        if len(mark) == 4 and mark not in BYTE_ORDERS:
            return order, kind, SMALLEST_BLOCK, "a section header without a byte order"
        order = BYTE_ORDERS.get(mark, order)
    elif len(buffer) < 4:
        return order, 0, SMALLEST_BLOCK, ""
    else:
        kind = Struct(order + "I").unpack_from(buffer)[0]
    if len(buffer) < SMALLEST_BLOCK:
        return order, kind, SMALLEST_BLOCK, ""
    length = Struct(order + "I").unpack_from(buffer, 4)[0]
    smallest = SMALLEST_BLOCK + (SECTION_BODY if kind == SECTION_HEADER else 0)
    wrong = length & 3 or not smallest <= length <= LARGEST_BLOCK
    return order, kind, length, f"a block with a length of {length:,}" if wrong else ""


def next_block(window: Window, at: int, order: str) -> tuple[int, bool]:
    """Search the next block from ``at`` on: of a known type, with two equal lengths.

    Return where in the window it (or the end) is, and whether there is one.
    """
    search = _candidates(order).search
    while True:
        candidate = search(window.buffer, at, window.end)
        if candidate is None or window.end - candidate.start() < SMALLEST_BLOCK:
            if window.source.exhausted:
                return window.end, False
            window.fetch(candidate.start() if candidate else max(at, window.end - 8), SMALLEST_BLOCK)
            at = 0
            continue
        at = candidate.start()
        found_order, _, length, trouble = read_block(bytes(window.view[at : at + SMALLEST_BLOCK]), order)
        if not trouble and length <= FARTHEST_BLOCK:
            if window.end - at < length and not window.source.exhausted:
                window.fetch(at, length)
                at = 0
            end = at + length
            if end <= window.end and Struct(found_order + "I").unpack_from(window.buffer, end - 4)[0] == length:
                return at, True
        at += 1


def _candidates(order: str) -> re.Pattern[bytes]:
    """Match a known type and a length, a multiple of 4 and up to FARTHEST_BLOCK.

    Damage can be gigabytes long, and only a regular expression goes through it at the speed of the disk.
    """
    byteorder: Literal["little", "big"] = "little" if order == "<" else "big"
    kinds = [re.escape(kind.to_bytes(4, byteorder)) for kind in sorted(KNOWN_BLOCKS - {SECTION_HEADER})]
    length = [b"\\x00", b"[\\x00-\\x10]", b".", b"[%s]" % re.escape(bytes(range(0, 256, 4)))]
    fields = b"|".join(kinds), b"".join(length[::-1] if order == "<" else length)
    return re.compile(b"%s|(?:%s)%s" % (re.escape(SECTION_HEADER.to_bytes(4)), *fields), re.DOTALL)


def guess_block(source: Source, head: bytes, offset: int, order: str) -> int | None:
    """Return where at or behind byte ``offset`` a block seems to begin; None if none does within `GUESS_WITHIN`."""
    window = Window(source, head)
    window.jump(offset, GUESS_WITHIN)
    window.fetch(0, GUESS_WITHIN)
    at, found = next_block(window, 0, order)
    while found and not _is_chain(window, at, order):
        at, found = next_block(window, at + 1, order)
    return window.start + at if found else None


def _is_chain(window: Window, at: int, order: str) -> bool:
    """Tell whether `GUESS_CHAIN` blocks follow each other from ``at`` on, or fewer to the end of the window."""
    for _ in range(GUESS_CHAIN):
        if at == window.end:
            return True
        order, _, length, trouble = read_block(bytes(window.view[at : min(at + SMALLEST_BLOCK, window.end)]), order)
        end = at + length
        if trouble or end > window.end or Struct(order + "I").unpack_from(window.buffer, end - 4)[0] != length:
            return False
        at = end
    return True
