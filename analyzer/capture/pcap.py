"""Classic pcap: a header of 24 bytes, then records, each with a header of its own.

Written in either byte order, with microseconds or nanoseconds; a variant that once came with patched Linux
systems has 8 more bytes in each record header. Between records there is no mark, so one bad length hides
everything after it: the way back is a chain of headers that fit each other.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from math import inf
from struct import Struct
from typing import Final, NamedTuple

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
from analyzer.capture.source import GUESS_WITHIN, Source, Window

FILE_HEADER: Final = 24
RECORD_HEADER: Final = 16
PATCHED_RECORD_HEADER: Final = 24

NS_PER_SECOND: Final = 1_000_000_000
CHAIN: Final = 3
"""Record headers in a row that prove the feet to be found again; each alone fits one random place in 10^9."""
GUESS_CHAIN: Final = 12
"""The same for a place from which a second reader begins: it has to be right nearly always."""
CHAIN_AT_END: Final = 2
"""The same where the file ends before a third."""
LONGEST_PAUSE: Final = 30 * 86_400
"""Seconds between two records of such a chain: idle networks pause for days, damage jumps by decades."""
LARGEST_ON_WIRE: Final = 1 << 24
"""Bytes that a packet of such a chain may have had on the wire; offloading makes them larger than an MTU."""


class Variant(NamedTuple):
    """What a magic number says: byte order for `struct`, ticks in a second, bytes of a record header."""

    order: str
    ticks: int
    record_header: int = RECORD_HEADER


VARIANTS: Final = {
    bytes.fromhex("d4c3b2a1"): Variant("<", 1_000_000),
    bytes.fromhex("a1b2c3d4"): Variant(">", 1_000_000),
    bytes.fromhex("4d3cb2a1"): Variant("<", NS_PER_SECOND),
    bytes.fromhex("a1b23c4d"): Variant(">", NS_PER_SECOND),
    bytes.fromhex("34cdb2a1"): Variant("<", 1_000_000, PATCHED_RECORD_HEADER),
    bytes.fromhex("a1b2cd34"): Variant(">", 1_000_000, PATCHED_RECORD_HEADER),
}


def is_pcap(head: bytes) -> bool:
    """Tell whether a file that begins with ``head`` (4 bytes or more) is a pcap file."""
    return head[:4] in VARIANTS


def read_pcap(
    source: Source, head: bytes, ledger: Ledger, skips: Skips = NO_SKIPS, *, begin: int = 0, until: float = inf
) -> Generator[Packet, None, None]:
    """Yield the packets of a file that begins with ``head`` and goes on in ``source``, less those to skip.

    Never raises on bytes; what is damaged is skipped and booked in ``ledger``. Records are read from byte ``begin`` on,
    if that lies behind the file header; the last one is the last that begins before byte ``until``.
    """
    window = Window(source, head)
    window.fetch(0, FILE_HEADER)
    variant = VARIANTS[head[:4]]
    ledger.file.time_digits = 9 if variant.ticks == NS_PER_SECOND else 6
    if window.end < FILE_HEADER:
        ledger.seen(0, 0, 0)
        ledger.ended(window.end, "the file header")
        return
    # The upper half of this field tells about checksums behind the packet (FCS), not about the link.
    link_type = Struct(variant.order + "I").unpack_from(window.buffer, 20)[0] & 0xFFFF
    at = FILE_HEADER
    if begin > FILE_HEADER:
        window.jump(begin)
        at = 0
    yield from _records(window, at, variant, link_type, ledger, skips, until)


def guess_record(source: Source, head: bytes, offset: int) -> int | None:
    """Return where at or behind byte ``offset`` a record seems to begin; None if none does within `GUESS_WITHIN`."""
    window = Window(source, head)
    window.jump(offset, GUESS_WITHIN)
    at, found = _next_record(window, 0, VARIANTS[head[:4]], GUESS_CHAIN)
    return window.start + at if found else None


def _records(  # noqa: PLR0917
    window: Window, at: int, variant: Variant, link_type: int, ledger: Ledger, skips: Skips, until: float
) -> Generator[Packet, None, None]:
    file = ledger.file
    order, ticks, record_header = variant
    tick = NS_PER_SECOND // ticks
    header = Struct(order + "IIII").unpack_from
    unpack = Struct(f"{order}IIII{record_header - RECORD_HEADER}x{PLAIN}").unpack_from
    test, cell_of, heard = skips.tests.get(link_type), skips.connections.get, skips.heard
    ipv4, intact, impossible_udp, least_of = usual_values(order)
    if test is None or link_type != ETHERNET:
        ipv4 = -1

    number = booked = ledger.number - 1
    passed = 0
    first_ns, last_ns = LATEST_NS, -1
    # Times rise nearly always: only where they begin to do so, and where they cease, there can be a first or last one.
    second, before = -1, 0
    try:
        while True:
            buffer, view, available = window.buffer, window.view, window.end
            last_header = min(available - record_header, until - window.start - 1)
            # The loop for gigabytes: a record that is not as usual leaves it and is looked at below.
            while at <= last_header:
                (
                    seconds,
                    fraction,
                    captured,
                    original,
                    kind,
                    version_size,
                    total_high,
                    total_low,
                    fragment,
                    protocol,
                    ends,
                    udp_size,
                    flags,
                ) = unpack(buffer, at)
                begin = at + record_header
                end = begin + captured
                if not (
                    end <= available
                    and captured <= original
                    and captured <= LARGEST_PACKET
                    and 0 < original <= LARGEST_ON_WIRE
                    and fraction < ticks
                ):
                    break
                if fraction < before or seconds != second:
                    last_ns = max(last_ns, second * NS_PER_SECOND + before * tick)
                    first_ns = min(first_ns, seconds * NS_PER_SECOND + fraction * tick)
                    second = seconds
                before = fraction
                number += 1
                at = end
                if kind == ipv4 and version_size == VERSION_4 and fragment in intact and captured >= PLAIN_SIZE:
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
                        time_ns = seconds * NS_PER_SECOND + fraction * tick
                        if skips.is_dull_lookup(buffer, begin, end, ends, time_ns):
                            continue
                elif test is not None and test(buffer, begin, captured):
                    continue
                passed += 1
                time_ns = seconds * NS_PER_SECOND + fraction * tick
                yield Packet(number, time_ns, link_type, bytes(view[begin:end]), original)

            last_ns = max(last_ns, second * NS_PER_SECOND + before * tick)
            skips.hold(link_type, number - booked - passed)
            booked, passed = number, 0
            ledger.number = number + 1
            ledger.seen(number - file.first_number + 1, first_ns, last_ns)
            if last_ns >= 0:
                file.link_types.add(link_type)
            if window.start + at >= until:
                ledger.reached = window.start + at
                return
            # Bytes are moved only when more are needed: some files consist of odd records.
            if window.end - at < record_header:
                window.fetch(at, record_header)
                at = 0
            if window.end - at < record_header:
                ledger.ended(window.start + window.end, "packet" if window.end > at else "")
                return
            seconds, fraction, captured, original = header(window.buffer, at)
            if captured > LARGEST_PACKET:
                whole, what = False, f"a captured length of {captured:,} in a packet's header"
            else:
                usual = captured <= original and 0 < original <= LARGEST_ON_WIRE and fraction < ticks
                needed = record_header + captured + (0 if usual else record_header)
                if window.end - at < needed:
                    window.fetch(at, needed)
                    at = 0
                begin = at + record_header
                end = begin + captured
                whole, what = window.end >= end, "a packet's header that makes no sense"
                if whole and usual:
                    continue
                if whole and _goes_on(window, end, variant, seconds):
                    time_ns = seconds * NS_PER_SECOND + fraction * tick
                    first_ns, last_ns = min(first_ns, time_ns), max(last_ns, time_ns)
                    number += 1
                    passed += 1
                    at = end
                    yield Packet(number, time_ns, link_type, bytes(window.view[begin:end]), original)
                    continue
            bad = window.start + at
            at, found = _next_record(window, at + 1, variant)
            if not found and not whole and captured <= LARGEST_PACKET:
                ledger.ended(window.start + at, "packet")
                return
            ledger.skipped(bad, what, window.start + at - bad, to_the_end=not found)
    finally:
        last_ns = max(last_ns, second * NS_PER_SECOND + before * tick)
        skips.hold(link_type, number - booked - passed)
        ledger.number = number + 1
        ledger.seen(number - file.first_number + 1, first_ns, last_ns)
        if last_ns >= 0:
            file.link_types.add(link_type)


def _goes_on(window: Window, at: int, variant: Variant, seconds: int) -> bool:
    """Tell whether the file ends at ``at``, or a record begins there that is near ``seconds`` in time.

    This is what saves a record that is odd in itself: some writers leave the original length 0.
    """
    left = window.end - at
    if left < 4:
        return True
    later = Struct(variant.order + "I").unpack_from(window.buffer, at)[0]
    if abs(later - seconds) > LONGEST_PAUSE:
        return False
    if left < variant.record_header:
        return True
    _, fraction, captured, original = Struct(variant.order + "IIII").unpack_from(window.buffer, at)
    return bool(captured <= LARGEST_PACKET and fraction < variant.ticks and (captured or original or later))


def _next_record(window: Window, at: int, variant: Variant, chain: int = CHAIN) -> tuple[int, bool]:
    """Search the next record from ``at`` on.

    Return where in the window it (or the end) is, and whether there is one.
    """
    search = _candidates(variant).search
    while True:
        candidate = search(window.buffer, at, window.end)
        if candidate is None:
            if window.source.exhausted:
                return window.end, False
            window.fetch(max(at, window.end - variant.record_header + 1), variant.record_header)
            at = 0
            continue
        at = candidate.start()
        proven, wanted = _is_chain(window, at, variant, chain)
        if proven:
            return at, True
        if proven is None:
            window.fetch(at, wanted - at)
            at = 0
        else:
            at += 1


def _is_chain(window: Window, start: int, variant: Variant, chain: int) -> tuple[bool | None, int]:
    """Tell whether records follow each other from ``start`` on.

    None where that takes a longer window; up to where, is the second value (in bytes).
    """
    unpack = Struct(variant.order + "IIII").unpack_from
    at, before = start, None
    for found in range(chain):
        if window.end - at < variant.record_header:
            if not window.source.exhausted:
                return None, at + variant.record_header
            return found >= CHAIN_AT_END or (found > 0 and at == window.end), at
        seconds, fraction, captured, original = unpack(window.buffer, at)
        if not (0 < captured <= min(original, LARGEST_PACKET) and original <= LARGEST_ON_WIRE):
            return False, at
        if fraction >= variant.ticks or (before is not None and abs(seconds - before) > LONGEST_PAUSE):
            return False, at
        at, before = at + variant.record_header + captured, seconds
    return True, at


def _candidates(variant: Variant) -> re.Pattern[bytes]:
    """Match what can be a record header: the bytes that are small in every plausible one.

    Damage can be gigabytes long, and only a regular expression goes through it at the speed of the disk.
    """
    most_ticks = (variant.ticks - 1).to_bytes(4, "big")
    fraction = [
        b"[\\x00-\\x%02x]" % most_ticks[0],
        b"." if most_ticks[0] else b"[\\x00-\\x%02x]" % most_ticks[1],
    ]
    captured = [b"\\x00", b"[\\x00-\\x%02x]" % (LARGEST_PACKET >> 16)]
    original = [b"[\\x00-\\x%02x]" % (LARGEST_ON_WIRE >> 24), b"."]
    fields = [[*high, b".", b"."] for high in (fraction, captured, original)]
    if variant.order == "<":
        fields = [field[::-1] for field in fields]
    wanted = [b"".join(field) for field in fields]
    return re.compile(b"....%s(?!\\x00{4})%s%s" % (*wanted,), re.DOTALL)
