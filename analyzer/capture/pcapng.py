"""pcapng: blocks, each with its length in front and behind; sections, each with its own byte order.

Interfaces are described before their packets: link type, clock resolution and offset, longest capture. Blocks
of other kinds are stepped over.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from math import inf
from struct import Struct
from typing import Final

from analyzer.capture.blocks import (
    BYTE_ORDERS,
    ENHANCED_PACKET,
    INTERFACE,
    NUMBERED_BLOCKS,
    OLD_PACKET,
    PACKET_BLOCKS,
    SECTION_HEADER,
    SIMPLE_PACKET,
    SMALLEST_BLOCK,
    next_block,
    read_block,
)
from analyzer.capture.ledger import LARGEST_PACKET, LATEST_NS, Ledger
from analyzer.capture.packet import Packet
from analyzer.capture.skips import (
    ETHERNET,
    NO_SKIPS,
    PLAIN,
    PLAIN_SIZE,
    SMALLEST_UDP,
    TCP,
    UDP,
    VERSION_4,
    Skips,
    usual_values,
)
from analyzer.capture.source import Source, Window

INTERFACE_BODY: Final = 8
PACKET_FIELDS: Final = 28
"""From a packet block's first byte to its data."""
PACKET_OVERHEAD: Final = PACKET_FIELDS + 4
SIMPLE_OVERHEAD: Final = 16
MOST_INTERFACES: Final = 65_536
"""Interfaces of one section, and of a whole run; an old packet block can name no more."""
LONGEST_NAME: Final = 256
"""Bytes of an interface's name that are remembered: Linux has 15, Windows 50, and an option can have 65,535."""

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
        self.left_out = 0
        """Descriptions of further ones than `MOST_INTERFACES`; they count as the first of all."""

    def number(self, place: int, name: bytes) -> int:
        """Return the number of the interface ``name`` that its section describes as number ``place``."""
        if len(self._numbers) >= MOST_INTERFACES and (place, name) not in self._numbers:
            self.left_out += 1
            return 0
        return self._numbers.setdefault((place, name), len(self._numbers))

    @property
    def known(self) -> list[tuple[int, bytes]]:
        """Place and name of each interface, in the order of their numbers."""
        return list(self._numbers)


def is_pcapng(head: bytes) -> bool:
    """Tell whether a file that begins with ``head`` (12 bytes, if it has them) is a pcapng file."""
    mark = head[8:12]
    return head[:4] == SECTION_HEADER.to_bytes(4) and any(known.startswith(mark) for known in BYTE_ORDERS)


class Section:
    """What a reader knows of the section that it is in: byte order, and the interfaces described so far."""

    def __init__(self, order: str = "<") -> None:
        self.time_ns = 0
        """Of the packet before. Simple packets, which have none, are taken to be of the same time."""
        self.borrowed = False
        """Whether the first packet that was read took the time of the one before."""
        self.begin(order)

    def begin(self, order: str) -> None:
        """Begin anew, with another section."""
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
    source: Source,
    head: bytes,
    ledger: Ledger,
    numbers: InterfaceNumbers,
    skips: Skips = NO_SKIPS,
    *,
    begin: int = 0,
    section: Section | None = None,
    until: float = inf,
) -> Generator[Packet, None, None]:
    """Yield the packets of a file that begins with ``head`` and goes on in ``source``, less those to skip.

    ``numbers`` numbers the interfaces through the run. Times are kept from 1970 to `LATEST_NS`. Never
    raises on bytes; what is damaged is skipped and booked in ``ledger``. Blocks are read from byte ``begin`` on, where
    ``section`` goes on; it is kept up to date. The last one is the last that begins before byte ``until``.
    """
    window = Window(source, head)
    section = section or Section()
    if begin:
        window.jump(begin)
    at = 0
    number = ledger.number - 1
    packets, first_ns, last_ns = 0, LATEST_NS, 0
    current, upper_ticks, before = -1, 0, 0  # the interface and the half of its clock that the next locals hold
    link_type = run_number = multiplier = upper = 0
    divisor = 1
    ipv4 = -1
    booked = passed = timed = 0  # of `packets`
    order, test, cell_of, heard = "", None, skips.connections.get, skips.heard
    try:
        while True:
            buffer, view, available = window.buffer, window.view, window.end
            last_header = min(available - PACKET_OVERHEAD, until - window.start - 1)
            word, interfaces = section.word, section.interfaces
            if section.order != order:
                order = section.order
                unpack = Struct(f"{order}IIIIIII{PLAIN}").unpack_from
                plain_ipv4, intact, impossible_udp, least_of = usual_values(order)
            # The loop for gigabytes: any other block, or one not as usual, leaves it and is looked at below.
            while at <= last_header:
                (
                    kind,
                    length,
                    interface,
                    high,
                    low,
                    captured,
                    original,
                    ether_type,
                    version_size,
                    total_high,
                    total_low,
                    fragment,
                    protocol,
                    ends,
                    udp_size,
                    flags,
                ) = unpack(buffer, at)
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
                if low < before or interface != current or high != upper_ticks:
                    # Times rise nearly always: only where they begin to, and where they cease, is a first or last one.
                    last_ns = max(last_ns, _time(upper + before * multiplier, divisor))
                    if interface != current or high != upper_ticks:
                        if interface >= len(interfaces):
                            break
                        current, upper_ticks, described = interface, high, interfaces[interface]
                        if described.link_type != link_type:
                            skips.hold(link_type, packets - booked - passed)
                            booked, passed = packets, 0
                        link_type, run_number = described.link_type, described.number
                        test = skips.tests.get(link_type)
                        ipv4 = -1 if test is None or link_type != ETHERNET else plain_ipv4
                        multiplier, divisor = described.multiplier, described.divisor
                        upper = (high << 32) * multiplier + described.offset_ns * divisor
                        if interface not in section.used:
                            section.used.add(interface)
                            _use(described, ledger)
                    first_ns = min(first_ns, _time(upper + low * multiplier, divisor))
                before = low
                number += 1
                packets += 1
                begin, at = at + PACKET_FIELDS, end
                if ether_type == ipv4 and version_size == VERSION_4 and fragment in intact and captured >= PLAIN_SIZE:
                    if protocol == TCP:
                        cell = cell_of(ends)
                        if cell is not None and flags in least_of and (total_low >= least_of[flags] or total_high):
                            cell[0] += 1
                            continue
                    elif (
                        protocol == UDP and (total_low >= SMALLEST_UDP or total_high) and udp_size not in impossible_udp
                    ):
                        if ends[8:10] not in heard and ends[10:] not in heard:
                            continue
                        time_ns = _time(upper + low * multiplier, divisor)
                        if skips.is_dull_lookup(buffer, begin, begin + captured, ends, time_ns):
                            continue
                elif test is not None and test(buffer, begin, captured):
                    continue
                passed += 1
                time_ns = upper + low * multiplier
                if divisor != 1 or not 0 <= time_ns <= LATEST_NS:
                    time_ns = _time(time_ns, divisor)
                yield Packet(number, time_ns, link_type, bytes(view[begin : begin + captured]), original, run_number)

            last_ns = max(last_ns, _time(upper + before * multiplier, divisor))
            if packets != timed:
                section.time_ns, timed = _time(upper + before * multiplier, divisor), packets
            skips.hold(link_type, packets - booked - passed)
            booked, passed = packets, 0
            ledger.number = number + 1
            ledger.seen(packets, first_ns, last_ns)
            if window.start + at >= until:
                ledger.reached = window.start + at
                return
            # Bytes are moved only when more are needed: some files have none but blocks of the other kinds.
            if window.end - at < SMALLEST_BLOCK:
                window.fetch(at, SMALLEST_BLOCK)
                at = 0
            if window.end == at:
                ledger.ended(window.start + at)
                return
            beginning = bytes(window.view[at : min(at + SMALLEST_BLOCK, window.end)])
            found_order, kind, length, trouble = read_block(beginning, order)
            if not trouble:
                if window.end - at < length:
                    window.fetch(at, length)
                    at = 0
                end = at + length
                whole = window.end >= end
                if whole and Struct(found_order + "I").unpack_from(window.buffer, end - 4)[0] != length:
                    trouble = "a block whose two lengths differ"
            if trouble or not whole:
                bad = window.start + at
                at, found = next_block(window, at + 1, order)
                if not found and not trouble:
                    ledger.ended(window.start + at, "packet" if kind in PACKET_BLOCKS else "a block")
                    return
                trouble = trouble or "a block that is longer than the file"
                ledger.skipped(bad, trouble, window.start + at - bad, to_the_end=not found)
                continue

            place_in_file = window.start + at
            if kind == SECTION_HEADER:
                section.begin(found_order)
                current = -1
            elif kind == INTERFACE:
                if (new := _interface(bytes(window.view[at + 8 : end - 4]), section, numbers)) is None:
                    ledger.skipped(place_in_file, "an interface description that cannot be read", length)
                else:
                    section.interfaces.append(new)
            elif kind in NUMBERED_BLOCKS:
                number += 1
            elif kind in PACKET_BLOCKS:
                place, ticks, begin, captured, original = _packet_fields(window.buffer, at, kind, length, section)
                if place >= len(section.interfaces):
                    if place not in section.undescribed and len(section.undescribed) < MOST_INTERFACES:
                        section.undescribed.add(place)
                        what = f"a packet of interface {place:,}, which is not described"
                        ledger.skipped(place_in_file, what, length)
                elif captured > end - 4 - begin or captured > LARGEST_PACKET:
                    what = f"a captured length of {captured:,} in a packet's block"
                    ledger.skipped(place_in_file, what, length)
                elif kind == ENHANCED_PACKET:
                    continue  # nothing is odd with it: it was not all there
                else:
                    described = section.interfaces[place]
                    if ticks is not None:
                        time_ns = ticks * described.multiplier // described.divisor + described.offset_ns
                        section.time_ns = min(max(time_ns, 0), LATEST_NS)
                    elif not packets:
                        section.borrowed = True
                    time_ns = section.time_ns
                    _use(described, ledger)
                    first_ns, last_ns = min(first_ns, time_ns), max(last_ns, time_ns)
                    number += 1
                    packets += 1
                    passed += 1
                    timed = packets
                    at = end
                    data = bytes(window.view[begin : begin + captured])
                    yield Packet(number, time_ns, described.link_type, data, original, described.number)
                    continue
            at = end
    finally:
        last_ns = max(last_ns, _time(upper + before * multiplier, divisor))
        skips.hold(link_type, packets - booked - passed)
        ledger.number = number + 1
        ledger.seen(packets, first_ns, last_ns)


def _time(ticks: int, divisor: int) -> int:
    """Return a time in nanoseconds that a calendar can write."""
    return min(max(ticks // divisor, 0), LATEST_NS)


def _use(interface: Interface, ledger: Ledger) -> None:
    """Book an interface that a packet names."""
    ledger.interfaces.add(interface.number)
    ledger.file.interfaces = len(ledger.interfaces)
    ledger.file.link_types.add(interface.link_type)
    ledger.file.time_digits = max(ledger.file.time_digits, interface.time_digits)


def _packet_fields(
    buffer: bytearray, at: int, kind: int, length: int, section: Section
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


def _interface(body: bytes, section: Section, numbers: InterfaceNumbers) -> Interface | None:
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
            name = value[:LONGEST_NAME]
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
