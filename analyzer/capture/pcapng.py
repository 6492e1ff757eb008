"""pcapng: blocks, each with its length in front and behind; sections, each with its own byte order.

Interfaces are described before their packets: link type, clock resolution and offset, longest capture. Blocks
of other kinds are stepped over.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass
from struct import Struct
from typing import Final, Literal

from analyzer.capture.ledger import LARGEST_PACKET, LATEST_NS, Ledger
from analyzer.capture.packet import NO_SKIPS, Packet, Skips
from analyzer.capture.source import Source

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
INTERFACE_BODY: Final = 8
PACKET_FIELDS: Final = 28
"""From a packet block's first byte to its data."""
PACKET_OVERHEAD: Final = PACKET_FIELDS + 4
SIMPLE_OVERHEAD: Final = 16
LARGEST_BLOCK: Final = 16 << 20
"""Bytes; Wireshark's bound, too. The largest blocks are lists of names and secrets of a few MiB."""
FARTHEST_BLOCK: Final = 1 << 20
"""Longest block by which the feet are found again: no packet needs more, and it is held in memory whole."""
MOST_INTERFACES: Final = 65_536
"""Interfaces of one section, and of a whole run; an old packet block can name no more."""

OPTION_END: Final = 0
OPTION_NAME: Final = 2
OPTION_RESOLUTION: Final = 9
OPTION_OFFSET: Final = 14
NS_PER_SECOND: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Interface:
    """How one capturing interface counts time: nanoseconds are ``ticks * multiplier // divisor + offset_ns``.

    ``number`` is its index in the whole run, ``snap_length`` 0 for no limit, ``time_digits`` 6 or 9.
    """

    number: int
    link_type: int
    snap_length: int
    multiplier: int = 1_000
    divisor: int = 1
    offset_ns: int = 0
    time_digits: int = 6


class InterfaceNumbers:
    """Numbers interfaces through several files: the same name in the same place is the same interface."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, bytes], int] = {}

    def number(self, place: int, name: bytes) -> int:
        """Return the number of the interface ``name`` that its section describes as number ``place``."""
        if len(self._numbers) >= MOST_INTERFACES:
            return self._numbers.get((place, name), 0)
        return self._numbers.setdefault((place, name), len(self._numbers))


def is_pcapng(head: bytes) -> bool:
    """Tell whether a file that begins with ``head`` (12 bytes, if it has them) is a pcapng file."""
    mark = head[8:12]
    return head[:4] == SECTION_HEADER.to_bytes(4) and any(known.startswith(mark) for known in BYTE_ORDERS)


class _Section:
    """Byte order, and the interfaces described so far."""

    def __init__(self, order: str) -> None:
        self.order = order
        self.interfaces: list[Interface] = []
        self.used: set[int] = set()
        """Interfaces that packets of this section named, and that are in the file's account therefore."""
        self.undescribed: set[int] = set()
        """Interfaces that packets named and nobody described; each is booked once."""
        self.word = Struct(order + "I").unpack_from
        self.enhanced = Struct(order + "IIIIIII").unpack_from
        self.old = Struct(order + "IIHHIIII").unpack_from


def read_pcapng(
    source: Source, head: bytes, ledger: Ledger, numbers: InterfaceNumbers, skips: Skips = NO_SKIPS
) -> Generator[Packet, None, None]:
    """Yield the packets of a file that begins with ``head`` and goes on in ``source``, less those to skip.

    ``numbers`` numbers the interfaces through the run. Times are kept within the years 1970 to 9999. Never
    raises on bytes; what is damaged is skipped and booked in ``ledger``.
    """
    section = _Section("<")
    used: set[int] = set()
    number = ledger.number - 1
    packets, first_ns, last_ns, time_ns = 0, LATEST_NS, 0, 0
    at, dropped, buffer = 0, 0, head  # `dropped` bytes lie before the buffer
    current, upper_ticks = -1, 0  # the interface and the half of its clock that the next locals hold
    link_type = run_number = multiplier = upper = 0
    divisor = 1
    skip = None
    try:
        while True:
            available = len(buffer)
            last_header = available - PACKET_OVERHEAD
            unpack, word, interfaces = section.enhanced, section.word, section.interfaces
            # The loop for gigabytes: any other block, or one not as usual, leaves it and is looked at below.
            while at <= last_header:
                kind, length, interface, high, low, captured, original = unpack(buffer, at)
                end = at + length
                if not (
                    kind == ENHANCED_PACKET
                    and end <= available
                    and captured + PACKET_OVERHEAD <= length
                    and captured <= LARGEST_PACKET
                    and not length & 3
                    and word(buffer, end - 4)[0] == length
                ):
                    break
                if interface != current or high != upper_ticks:
                    if interface >= len(interfaces):
                        break
                    current, upper_ticks, described = interface, high, interfaces[interface]
                    link_type, run_number = described.link_type, described.number
                    skip = skips.get(link_type)
                    multiplier, divisor = described.multiplier, described.divisor
                    upper = (high << 32) * multiplier + described.offset_ns * divisor
                    if interface not in section.used:
                        section.used.add(interface)
                        _use(described, used, ledger)
                time_ns = upper + low * multiplier
                if divisor != 1:
                    time_ns //= divisor
                if time_ns > last_ns:
                    if time_ns > LATEST_NS:  # noqa: PLR1730  a call to min() costs more than the comparison
                        time_ns = LATEST_NS
                    last_ns = time_ns
                if time_ns < first_ns:
                    if time_ns < 0:  # noqa: PLR1730
                        time_ns = 0
                    first_ns = time_ns
                number += 1
                packets += 1
                begin, at = at + PACKET_FIELDS, end
                if skip is None or not skip(buffer, begin, captured):
                    yield Packet(number, time_ns, link_type, buffer[begin : begin + captured], original, run_number)

            ledger.number = number + 1
            ledger.seen(packets, first_ns, last_ns)
            # Bytes are moved only when more are needed: some files have none but blocks of the other kinds.
            if len(buffer) - at < SMALLEST_BLOCK:
                dropped, at, buffer = dropped + at, 0, source.extend(buffer[at:], SMALLEST_BLOCK)
            if len(buffer) == at:
                ledger.ended(dropped + at)
                return
            order, kind, length, trouble = _block(buffer[at : at + SMALLEST_BLOCK], section.order)
            if not trouble:
                if len(buffer) - at < length:
                    dropped, at, buffer = dropped + at, 0, source.extend(buffer[at:], length)
                end = at + length
                whole = len(buffer) >= end
                if whole and Struct(order + "I").unpack_from(buffer, end - 4)[0] != length:
                    trouble = "a block whose two lengths differ"
            if trouble or not whole:
                bad = dropped + at
                buffer, at, moved, found = _next_block(source, buffer, at + 1, section.order)
                dropped += moved
                if not found and not trouble:
                    ledger.ended(dropped + at, "packet" if kind in PACKET_BLOCKS else "a block")
                    return
                trouble = trouble or "a block that is longer than the file"
                ledger.skipped(bad, trouble, dropped + at - bad, to_the_end=not found)
                continue

            if kind == SECTION_HEADER:
                section, current = _Section(order), -1
            elif kind == INTERFACE:
                if (new := _interface(buffer[at + 8 : end - 4], section, numbers)) is None:
                    ledger.skipped(dropped + at, "an interface description that cannot be read", length)
                else:
                    section.interfaces.append(new)
            elif kind in NUMBERED_BLOCKS:
                number += 1
            elif kind in PACKET_BLOCKS:
                place, ticks, begin, captured, original = _packet_fields(buffer, at, kind, length, section)
                if place >= len(section.interfaces):
                    if place not in section.undescribed and len(section.undescribed) < MOST_INTERFACES:
                        section.undescribed.add(place)
                        what = f"a packet of interface {place:,}, which is not described"
                        ledger.skipped(dropped + at, what, length)
                elif captured > end - 4 - begin or captured > LARGEST_PACKET:
                    what = f"a captured length of {captured:,} in a packet's block"
                    ledger.skipped(dropped + at, what, length)
                elif kind == ENHANCED_PACKET:
                    continue  # nothing is odd with it: it was not all there
                else:
                    described = section.interfaces[place]
                    if ticks is not None:
                        time_ns = ticks * described.multiplier // described.divisor + described.offset_ns
                        time_ns = min(max(time_ns, 0), LATEST_NS)
                    _use(described, used, ledger)
                    first_ns, last_ns = min(first_ns, time_ns), max(last_ns, time_ns)
                    number += 1
                    packets += 1
                    at = end
                    data = buffer[begin : begin + captured]
                    yield Packet(number, time_ns, described.link_type, data, original, described.number)
                    continue
            at = end
    finally:
        ledger.number = number + 1
        ledger.seen(packets, first_ns, last_ns)


def _use(interface: Interface, used: set[int], ledger: Ledger) -> None:
    """Book an interface that a packet names."""
    used.add(interface.number)
    ledger.file.interfaces = len(used)
    ledger.file.link_types.add(interface.link_type)
    ledger.file.time_digits = max(ledger.file.time_digits, interface.time_digits)


def _block(buffer: bytes, order: str) -> tuple[str, int, int, str]:
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


def _packet_fields(
    buffer: bytes, at: int, kind: int, length: int, section: _Section
) -> tuple[int, int | None, int, int, int]:
    """Return interface, ticks, place and length of the data, and length on the wire, of one packet block.

    A block that is too short for these has a length of its data that is too large for it.
    """
    if length < (SIMPLE_OVERHEAD if kind == SIMPLE_PACKET else PACKET_OVERHEAD):
        return 0, None, at + length, LARGEST_PACKET, 0
    if kind == SIMPLE_PACKET:
        original = section.word(buffer, at + 8)[0]
        snap_length = section.interfaces[0].snap_length if section.interfaces else 0
        return 0, None, at + 12, min(original, length - SIMPLE_OVERHEAD, snap_length or original), original
    if kind == OLD_PACKET:
        _, _, place, _, high, low, captured, original = section.old(buffer, at)
    else:
        _, _, place, high, low, captured, original = section.enhanced(buffer, at)
    return place, high << 32 | low, at + PACKET_FIELDS, captured, original


def _interface(body: bytes, section: _Section, numbers: InterfaceNumbers) -> Interface | None:
    """Read an interface description; None when it is too short or one too many."""
    place = len(section.interfaces)
    if len(body) < INTERFACE_BODY or place >= MOST_INTERFACES:
        return None
    link_type, _, snap_length = Struct(section.order + "HHI").unpack_from(body)
    name, resolution, offset_s = b"", 6, 0
    option = Struct(section.order + "HH")
    at = INTERFACE_BODY
    while at + option.size <= len(body):
        code, size = option.unpack_from(body, at)
        value = body[at + option.size : at + option.size + size]
        if code == OPTION_END or len(value) < size:
            break
        if code == OPTION_NAME:
            name = value
        elif code == OPTION_RESOLUTION and size == 1:
            resolution = value[0]
        elif code == OPTION_OFFSET and size == 8:
            offset_s = Struct(section.order + "q").unpack(value)[0]
        at += option.size + size + (-size & 3)
    ticks = 1 << (resolution & 0x7F) if resolution & 0x80 else 10**resolution
    multiplier, divisor = (1, ticks // NS_PER_SECOND) if not ticks % NS_PER_SECOND else (NS_PER_SECOND, ticks)
    if not multiplier % divisor:
        multiplier, divisor = multiplier // divisor, 1
    digits = 9 if ticks > 1_000_000 else 6
    number = numbers.number(place, name)
    return Interface(number, link_type, snap_length, multiplier, divisor, offset_s * NS_PER_SECOND, digits)


def _next_block(source: Source, buffer: bytes, at: int, order: str) -> tuple[bytes, int, int, bool]:
    """Search the next block from ``at`` on: of a known type, with two equal lengths.

    Return a buffer, where in it the block (or the end) is, how many bytes it has lost in front, and whether
    there is a block.
    """
    search = _candidates(order).search
    moved = 0
    while True:
        candidate = search(buffer, at)
        if candidate is None or len(buffer) - candidate.start() < SMALLEST_BLOCK:
            if source.exhausted:
                return buffer, len(buffer), moved, False
            keep = candidate.start() if candidate else max(at, len(buffer) - 8)
            wanted = len(buffer) - keep + SMALLEST_BLOCK
            moved, at, buffer = moved + keep, 0, source.extend(buffer[keep:], wanted)
            continue
        at = candidate.start()
        found_order, _, length, trouble = _block(buffer[at : at + SMALLEST_BLOCK], order)
        if not trouble and length <= FARTHEST_BLOCK:
            if len(buffer) - at < length and not source.exhausted:
                moved, at, buffer = moved + at, 0, source.extend(buffer[at:], length)
            end = at + length
            if end <= len(buffer) and Struct(found_order + "I").unpack_from(buffer, end - 4)[0] == length:
                return buffer, at, moved, True
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
