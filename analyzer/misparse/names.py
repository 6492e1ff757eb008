"""Wireshark's own words for CoAP, as data: code names, type words, option numbers. It imports nothing."""

from __future__ import annotations

from typing import Final

CODE_NAMES: Final[dict[int, str]] = {
    0: "Empty Message",
    1: "GET",
    2: "POST",
    3: "PUT",
    4: "DELETE",
    5: "FETCH",
    6: "PATCH",
    7: "iPATCH",
    65: "2.01 Created",
    66: "2.02 Deleted",
    67: "2.03 Valid",
    68: "2.04 Changed",
    69: "2.05 Content",
    95: "2.31 Continue",
    128: "4.00 Bad Request",
    129: "4.01 Unauthorized",
    130: "4.02 Bad Option",
    131: "4.03 Forbidden",
    132: "4.04 Not Found",
    133: "4.05 Method Not Allowed",
    134: "4.06 Not Acceptable",
    136: "4.08 Request Entity Incomplete",
    137: "4.09 Conflict",
    140: "4.12 Precondition Failed",
    141: "4.13 Request Entity Too Large",
    143: "4.15 Unsupported Content-Format",
    150: "4.22 Unprocessable Entity",
    157: "4.29 Too Many Requests",
    160: "5.00 Internal Server Error",
    161: "5.01 Not Implemented",
    162: "5.02 Bad Gateway",
    163: "5.03 Service Unavailable",
    164: "5.04 Gateway Timeout",
    165: "5.05 Proxying Not Supported",
    168: "5.08 Hop Limit Reached",
    225: "7.01 CSM",
    226: "7.02 Ping",
    227: "7.03 Pong",
    228: "7.04 Release",
    229: "7.05 Abort",
}
"""Code byte → the name Wireshark 4.0 prints; every other code is "Unknown" and its decimal value."""

NAMED_UNTIL_3_0: Final = frozenset({*range(5), *range(65, 70), *range(128, 135), 136, 140, 141, 143, *range(160, 166)})
"""Codes that Wireshark 1.12 named (27); the one before it lacked 136."""
NAMED_IN_2014: Final = NAMED_UNTIL_3_0 - {136}

TYPE_WORDS: Final = ("Confirmable", "Non-Confirmable", "Acknowledgement", "Reset")
"""Message types in long form, by the value of bits 5 and 4 of the first byte (UDP-style CoAP only)."""
TYPE_SHORT: Final = ("CON", "NON", "ACK", "RST")
"""The same as the packet list of Wireshark 1.12 to 3.0 shortens them."""

URI_HOST: Final = 3
URI_PORT: Final = 7
OSCORE: Final = 9
URI_PATH: Final = 11
CONTENT_FORMAT: Final = 12
URI_QUERY: Final = 15
BLOCK2: Final = 23
BLOCK1: Final = 27

MALFORMED: Final = "[Malformed Packet]"
"""Appended when the dissector reads past the end of its bytes."""
MALFORMED_ALONE: Final = "[BoundErrorUnreassembled Packet]"
"""What stands in its place when TCP's desegmentation is switched off."""


def code_name(code: int) -> str:
    """Wireshark's text for a CoAP code byte (0 to 255): "5.05 Proxying Not Supported", "Unknown 178"."""
    return CODE_NAMES.get(code, f"Unknown {code}")
