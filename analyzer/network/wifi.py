"""IEEE 802.11 frames, and the headers that capturing drivers put in front of them.

Only unencrypted data frames have anything to read. All fields are little-endian, except those of AVS.
"""

from __future__ import annotations

from typing import Final

from analyzer.network.frame import Frame, Stop

DATA: Final = 2  # frame type: the others are management, control and extension

# Bits of a data frame's subtype and of the flags byte (IEEE 802.11 9.2.4.1).
SUBTYPE_NO_DATA, SUBTYPE_QOS = 0x4, 0x8
TO_DS, FROM_DS, PROTECTED, ORDER = 0x01, 0x02, 0x40, 0x80
AGGREGATED: Final = 0x80  # in QoS control: the body is an A-MSDU
AGGREGATE_PADDING: Final = 3  # at most, behind each packet of an A-MSDU

FCS_SIZE: Final = 4
# Flags field of radiotap; PPI's 802.11-Common field has its own bit for the first.
RADIOTAP_FCS, RADIOTAP_PADDED = 0x10, 0x20
RADIOTAP_MORE: Final = 1 << 31
PPI_COMMON, PPI_FCS = 2, 0x1
AVS_MAGIC: Final = frozenset((0x80211001, 0x80211002))
PRISM_HEADER_SIZE: Final = 144


def wifi_header(frame: Frame, *, padded: bool = False) -> None:
    """Move to the LLC header in a data frame and set the MAC addresses of its two ends.

    ``padded`` says that the driver filled the header up to a multiple of four bytes. Of an A-MSDU, the first
    packet is taken, and ``frame.more_in_frame`` says whether others follow.
    """
    start = frame.at
    control = frame.number(1)
    flags = frame.number(1)
    subtype = control >> 4
    if control >> 2 & 3 != DATA or subtype & SUBTYPE_NO_DATA:
        raise Stop("wifi-management")
    frame.skip(2)
    first, second, third = frame.take(6), frame.take(6), frame.take(6)
    piece = frame.little(2) & 0xF
    fourth = frame.take(6) if flags & TO_DS and flags & FROM_DS else second
    frame.target_mac = third if flags & TO_DS else first
    frame.source_mac = fourth if flags & TO_DS or not flags & FROM_DS else third
    if flags & PROTECTED:
        raise Stop("encrypted-wifi")
    if piece:
        raise Stop("fragment")
    aggregated = False
    if subtype & SUBTYPE_QOS:
        aggregated = bool(frame.little(2) & AGGREGATED)
        if flags & ORDER:
            frame.skip(4)
    if padded:
        frame.skip((start - frame.at) % 4)
    if aggregated:
        frame.target_mac, frame.source_mac = frame.take(6), frame.take(6)
        size = frame.number(2)
        frame.more_in_frame = frame.left > size + AGGREGATE_PADDING
        frame.limit(size)


def radiotap_header(frame: Frame) -> bool:
    """Skip a radiotap header and the FCS that it announces; return whether the 802.11 header is padded."""
    start = frame.at
    frame.skip(2)
    size = frame.little(2)
    after = start + size
    present = more = frame.little(4)
    while more & RADIOTAP_MORE:
        more = frame.little(4)
    flags = 0
    if present & 0x1:  # a 64-bit timestamp, aligned to its size, comes before the flags
        frame.skip((start - frame.at) % 8 + 8)
    if present & 0x2:
        flags = frame.number(1)
    jump(frame, after)
    if flags & RADIOTAP_FCS:
        frame.limit(max(frame.left - FCS_SIZE, 0))
    return bool(flags & RADIOTAP_PADDED)


def ppi_header(frame: Frame) -> int:
    """Skip a PPI header and the FCS that it announces; return the link type of what follows."""
    start = frame.at
    frame.skip(2)
    after = start + frame.little(2)
    link_type = frame.little(4)
    fcs = False
    while frame.at + 4 <= after:
        kind, size = frame.little(2), frame.little(2)
        field = frame.take(min(size, after - frame.at))
        if kind == PPI_COMMON and len(field) >= 10:
            fcs = bool(field[8] & PPI_FCS)
    jump(frame, after)
    if fcs:
        frame.limit(max(frame.left - FCS_SIZE, 0))
    return link_type


def avs_header(frame: Frame) -> None:
    """Skip an AVS header: magic, then its own size, both big-endian."""
    start = frame.at
    frame.skip(4)
    jump(frame, start + frame.number(4))


def prism_header(frame: Frame) -> None:
    """Skip a Prism header, which is always as large as the structure of the driver that invented it."""
    start = frame.at
    if frame.number(4) in AVS_MAGIC:
        frame.at = start
        avs_header(frame)
    else:
        jump(frame, start + PRISM_HEADER_SIZE)


def jump(frame: Frame, position: int) -> None:
    """Move forward to ``position``; a header whose size ends before its own fields contradicts itself."""
    if position < frame.at:
        raise Stop("non-ip")
    frame.skip(position - frame.at)
