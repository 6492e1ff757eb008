"""What Wireshark up to 3.0 made of the same bytes: it read each TCP segment on port 5683 as a datagram."""

from __future__ import annotations

from enum import Enum
from typing import Final

from analyzer.misparse import names
from analyzer.misparse.message import datagram_suffix

DATAGRAM_HEAD: Final = 4
"""Version, type and token length; code; message id in two bytes (RFC 7252 3)."""


class Generation(Enum):
    """Three ways in which Wireshark has read TCP port 5683; the value says when."""

    IN_2014 = "2013–14"
    UNTIL_3_0 = "1.12 to 3.0"
    SINCE_3_2 = "3.2 and later"


DATAGRAM_GENERATIONS: Final = (Generation.IN_2014, Generation.UNTIL_3_0)


def old_view(first: bytes, generation: Generation = Generation.IN_2014) -> str | None:
    """Text that an old Wireshark shows for a segment that begins with `first`; None when it stays a TCP row.

    2013–14: the label in the packet's details, "Reset, 5.05 Proxying Not Supported, TID:24199"; it needs the
    first four bytes only. 1.12 to 3.0: the Info column, "RST, MID:24199, 5.05 Proxying Not Supported"; give
    the whole segment, since that parser prints nothing when an option is wrong (9 of 10 random segments).
    ValueError for `Generation.SINCE_3_2`, which does not read datagrams: that is `CoapTcpReader`.
    """
    if generation not in DATAGRAM_GENERATIONS:
        raise ValueError(f"Wireshark {generation.value} does not read TCP 5683 datagram by datagram")
    if len(first) < DATAGRAM_HEAD:
        return None
    kind, code = first[0] >> 4 & 3, first[1]
    message_id = int.from_bytes(first[2:DATAGRAM_HEAD], "big")
    if generation is Generation.IN_2014:
        return f"{names.TYPE_WORDS[kind]}, {_name(code, names.NAMED_IN_2014)}, TID:{message_id}"
    suffix = datagram_suffix(first)
    if suffix is None:
        return None
    return f"{names.TYPE_SHORT[kind]}, MID:{message_id}, {_name(code, names.NAMED_UNTIL_3_0)}{suffix}"


def _name(code: int, known: frozenset[int]) -> str:
    return names.CODE_NAMES[code] if code in known else f"Unknown {code}"
