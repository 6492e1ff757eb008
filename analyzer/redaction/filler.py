"""What stands in the place of bytes that nobody may read: as many of them, of the same rough kind.

Text becomes text, everything else a byte that is neither text nor the start of a frame's length; the marks by which a
protocol is told stay. So whoever judges by sizes and by the kind of the bytes judges the same.
"""

from __future__ import annotations

import math
import re
from typing import Final

from analyzer.kinds import CODE_CLASSES, EXTENDED, LONGEST_TOKEN, MARKS, REQUESTS, is_text
from analyzer.rules.words import LOGIN_MARKS

LETTER, BYTE = ord("x"), 0x80
"""Two in a row, of either or of both, are no length that a frame has."""
LINE_ENDS: Final = b"\r\n"
POINTS: Final = b" ./:"
"""What stays of the first lines of a text: by it an address or a version is still told for one."""
TEXT: Final = bytes((*range(32, 127), 9))
BLANK: Final = bytes(code if code in LINE_ENDS else LETTER if code in TEXT else BYTE for code in range(256))

TOLD_BY: Final = re.compile(
    rb"\AHTTP/\d\.\d \d{3}|\A(?:%s)|(?i:%s)|\r\n(?:Location|Server):"
    % (
        b"|".join(re.escape(mark) for mark in (*(mark for mark, _ in MARKS), *REQUESTS)),
        b"|".join(map(re.escape, LOGIN_MARKS)),
    )
)
"""Words of a protocol, not of its user: its first ones, and by which a login page is known."""
TLS_START: Final = 6
"""Bytes that tell TLS: a record's header and the type of its first message."""

LETTERS_OF_NOISE: Final = len(TEXT) / 256
SIGMAS: Final = 6.5
"""So many standard deviations more printable bytes than random ones have: once in 10^10 messages by chance."""
RUN: Final = re.compile(rb"[\x20-\x7e]{24}")
"""Printable bytes in a row that no message has by chance: once in 10^8 of the longest."""
OFTEN: Final = 6
"""So often a byte may stand in a short message by chance, beyond what is to be expected."""
FEWEST: Final = 16
"""Bytes that are printable throughout once in 10^7 times, if they are random."""


def blank(data: bytes) -> bytes:
    """Return as many bytes that say nothing."""
    return data.translate(BLANK)


def blank_opening(kind: str, opening: bytes) -> bytes:
    """Return the first bytes of one end of a connection with its protocol's marks left in them."""
    if kind == "coap-tcp":
        return _blank_coap(opening)
    filler = bytearray(blank(opening))
    if kind == "tls":
        filler[:TLS_START] = opening[:TLS_START]
    else:
        for at, code in enumerate(opening if is_text(opening) else b""):
            filler[at] = code if code in POINTS else filler[at]
        for mark in TOLD_BY.finditer(opening):
            filler[mark.start() : mark.end()] = mark[0]
    return bytes(filler)


def _blank_coap(opening: bytes) -> bytes:
    """Keep lengths and codes of RFC 8323 messages."""
    filler, at = bytearray(blank(opening)), 0
    while at < len(opening):
        length, token = opening[at] >> 4, opening[at] & 15
        extra, beyond = EXTENDED.get(length, (0, 0))
        head = at + 1 + extra
        if token > LONGEST_TOKEN or head >= len(opening) or opening[head] >> 5 not in CODE_CLASSES:
            break  # no message begins here: it is unknown what does
        filler[at : head + 1] = opening[at : head + 1]
        if extra:
            length = int.from_bytes(opening[at + 1 : head], "big") + beyond
        at = head + 1 + token + length
    return bytes(filler)


def is_noise(data: bytes) -> bool:
    """Whether bytes can be sealed ones: nothing in them is to be read, or repeats itself."""
    size = len(data)
    letters = size - len(data.translate(None, TEXT))
    if letters > noise_limit(size) or (letters == size and size >= FEWEST) or RUN.search(data):
        return False
    often = OFTEN + size / 256 + SIGMAS * math.sqrt(size / 256)
    # Padding, terminators, spaces and whatever text ends with are what repeats itself most.
    return max(map(data.count, (0, LETTER, 32, *data[-1:]))) <= often


def noise_limit(size: int) -> float:
    """Return how many of ``size`` random bytes may be printable."""
    return size * LETTERS_OF_NOISE + SIGMAS * math.sqrt(size * LETTERS_OF_NOISE * (1 - LETTERS_OF_NOISE))
