"""Classic pcap: a header of 24 bytes, then records, each with a header of its own.

Written in either byte order, with microseconds or nanoseconds; a variant that once came with patched Linux
systems has 8 more bytes in each record header. Between records there is no mark, so one bad length hides
everything after it: the way back is a chain of headers that fit each other.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from struct import Struct
from typing import Final, NamedTuple

from analyzer.capture.ledger import LARGEST_PACKET, LATEST_NS, Ledger
from analyzer.capture.packet import NO_SKIPS, Packet, Skips
from analyzer.capture.source import Source

FILE_HEADER: Final = 24
RECORD_HEADER: Final = 16
PATCHED_RECORD_HEADER: Final = 24

NS_PER_SECOND: Final = 1_000_000_000
CHAIN: Final = 3
"""Record headers in a row that prove the feet to be found again; each alone fits one random place in 10^9."""
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


def read_pcap(source: Source, head: bytes, ledger: Ledger, skips: Skips = NO_SKIPS) -> Generator[Packet, None, None]:
    """Yield the packets of a file that begins with ``head`` and goes on in ``source``, less those to skip.

    Never raises on bytes; what is damaged is skipped and booked in ``ledger``.
    """
    file = ledger.file
    buffer = source.extend(head, FILE_HEADER)
    variant = VARIANTS[buffer[:4]]
    order, ticks, record_header = variant
    tick = NS_PER_SECOND // ticks
    file.time_digits = 9 if tick == 1 else 6
    if len(buffer) < FILE_HEADER:
        ledger.seen(0, 0, 0)
        ledger.ended(len(buffer), "the file header")
        return
    # The upper half of this field tells about checksums behind the packet (FCS), not about the link.
    link_type = Struct(order + "I").unpack_from(buffer, 20)[0] & 0xFFFF
    unpack = Struct(order + "IIII").unpack_from
    skip = skips.get(link_type)

    number = ledger.number - 1
    first_ns, last_ns = LATEST_NS, -1
    at, dropped = FILE_HEADER, 0  # `dropped` bytes lie before the buffer
    try:
        while True:
            available = len(buffer)
            last_header = available - record_header
            # The loop for gigabytes: a record that is not as usual leaves it and is looked at below.
            while at <= last_header:
                seconds, fraction, captured, original = unpack(buffer, at)
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
                time_ns = seconds * NS_PER_SECOND + fraction * tick
                if time_ns > last_ns:  # noqa: PLR1730  a call to max() costs more than the comparison
                    last_ns = time_ns
                if time_ns < first_ns:  # noqa: PLR1730
                    first_ns = time_ns
                number += 1
                at = end
                if skip is None or not skip(buffer, begin, captured):
                    yield Packet(number, time_ns, link_type, buffer[begin:end], original)

            ledger.number = number + 1
            ledger.seen(number - file.first_number + 1, first_ns, last_ns)
            if last_ns >= 0:
                file.link_types.add(link_type)
            # Bytes are moved only when more are needed: some files consist of odd records.
            if len(buffer) - at < record_header:
                dropped, at, buffer = dropped + at, 0, source.extend(buffer[at:], record_header)
            if len(buffer) - at < record_header:
                ledger.ended(dropped + len(buffer), "packet" if len(buffer) > at else "")
                return
            seconds, fraction, captured, original = unpack(buffer, at)
            if captured > LARGEST_PACKET:
                whole, what = False, f"a captured length of {captured:,} in a packet's header"
            else:
                usual = captured <= original and 0 < original <= LARGEST_ON_WIRE and fraction < ticks
                needed = record_header + captured + (0 if usual else record_header)
                if len(buffer) - at < needed:
                    dropped, at, buffer = dropped + at, 0, source.extend(buffer[at:], needed)
                begin = at + record_header
                end = begin + captured
                whole, what = len(buffer) >= end, "a packet's header that makes no sense"
                if whole and usual:
                    continue
                if whole and _goes_on(buffer, end, variant, seconds):
                    time_ns = seconds * NS_PER_SECOND + fraction * tick
                    first_ns, last_ns = min(first_ns, time_ns), max(last_ns, time_ns)
                    number += 1
                    at = end
                    yield Packet(number, time_ns, link_type, buffer[begin:end], original)
                    continue
            bad = dropped + at
            buffer, at, moved, found = _next_record(source, buffer, at + 1, variant)
            dropped += moved
            if not found and not whole and captured <= LARGEST_PACKET:
                ledger.ended(dropped + at, "packet")
                return
            ledger.skipped(bad, what, dropped + at - bad, to_the_end=not found)
    finally:
        ledger.number = number + 1
        ledger.seen(number - file.first_number + 1, first_ns, last_ns)
        if last_ns >= 0:
            file.link_types.add(link_type)


def _goes_on(buffer: bytes, at: int, variant: Variant, seconds: int) -> bool:
    """Tell whether the file ends at ``at``, or a record begins there that is near ``seconds`` in time.

    This is what saves a record that is odd in itself: some writers leave the original length 0.
    """
    if len(buffer) - at < 4:
        return True
    later = Struct(variant.order + "I").unpack_from(buffer, at)[0]
    if abs(later - seconds) > LONGEST_PAUSE:
        return False
    if len(buffer) - at < variant.record_header:
        return True
    _, fraction, captured, original = Struct(variant.order + "IIII").unpack_from(buffer, at)
    return bool(captured <= LARGEST_PACKET and fraction < variant.ticks and (captured or original or later))


def _next_record(source: Source, buffer: bytes, at: int, variant: Variant) -> tuple[bytes, int, int, bool]:
    """Search the next record from ``at`` on.

    Return a buffer, where in it the record (or the end) is, how many bytes it has lost in front, and whether
    there is a record.
    """
    search = _candidates(variant).search
    moved = 0
    while True:
        candidate = search(buffer, at)
        if candidate is None:
            if source.exhausted:
                return buffer, len(buffer), moved, False
            keep = max(at, len(buffer) - variant.record_header + 1)
            moved, at, buffer = moved + keep, 0, source.extend(buffer[keep:], len(buffer) - keep + 1)
            continue
        at = candidate.start()
        proven, wanted = _is_chain(buffer, at, variant, at_end=source.exhausted)
        if proven:
            return buffer, at, moved, True
        if proven is None:
            moved, at, buffer = moved + at, 0, source.extend(buffer[at:], wanted - at)
        else:
            at += 1


def _is_chain(buffer: bytes, start: int, variant: Variant, *, at_end: bool) -> tuple[bool | None, int]:
    """Tell whether records follow each other from ``start`` on.

    None where that takes a longer buffer; how long, is the second value (in bytes).
    """
    unpack = Struct(variant.order + "IIII").unpack_from
    at, before = start, None
    for found in range(CHAIN):
        if len(buffer) - at < variant.record_header:
            if not at_end:
                return None, at + variant.record_header
            return found >= CHAIN_AT_END or (found > 0 and at == len(buffer)), at
        seconds, fraction, captured, original = unpack(buffer, at)
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
