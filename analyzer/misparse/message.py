"""One message as Wireshark's CoAP dissector reads it: a frame head, a code, a token, options, and a text.

The bytes are random numbers and ciphertext, so nothing here is CoAP; it is what the dissector of 4.0 makes
of them, byte for byte, measured against it. Left out because a Spark stream practically never meets them: a
payload whose option 12 names a format that Wireshark hands to another dissector (JSON, CBOR), blocks that it
puts together from several messages, and the path of an earlier request that it repeats after an answer with
the same token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from analyzer.misparse import names

LONGEST_BLOCK_OPTION: Final = 4
"""A block option longer than this is an error to the dissector, which then prints no block number."""
UNREADABLE_NUMBER: Final = 0xFFFFFFFF
"""What the dissector takes for a number that does not fit its 32 bits (an option of over 4 bytes)."""

_CONTROLS: Final = {7: r"\a", 8: r"\b", 9: r"\t", 10: r"\n", 11: r"\v", 12: r"\f", 13: r"\r"}


class Head(NamedTuple):
    """The RFC 8323 head that the first bytes spell: where the code byte stands, and two lengths in bytes."""

    code_at: int
    token_length: int
    total: int
    """Bytes of the whole message from its first byte on; may be negative, see `read_head`."""


@dataclass(slots=True)
class Text:
    """What the dissector prints for one whole message."""

    text: str
    code: int | None
    token: bytes
    malformed: bool


class _PastTheEndError(Exception):
    """The dissector read beyond the bytes it has: Wireshark then says "Malformed Packet"."""


def read_head(data: bytes | bytearray) -> Head | None:
    """Read the frame head (RFC 8323 3.2) at the start of `data`; None when it is not there in full.

    The sum is kept in a signed 32-bit number, so half of all four-byte lengths come out negative; such a
    message counts as complete at once. Token lengths 9 to 15 are not refused.
    """
    if not data:
        return None
    length, token_length = data[0] >> 4, data[0] & 15
    extension = {13: 1, 14: 2, 15: 4}.get(length, 0)
    code_at = 1 + extension
    if len(data) < code_at:
        return None
    if extension:
        length = int.from_bytes(data[1:code_at], "big") + {1: 13, 2: 269, 4: 65805}[extension]
    total = (length % 2**32 + 1 + token_length + code_at) % 2**32
    return Head(code_at, token_length, total - 2**32 if total >= 2**31 else total)


def read_message(data: bytes, head: Head, *, malformed_mark: str = names.MALFORMED) -> Text:
    """Text for a message whose head is `head`; `data` holds every byte the dissector can see.

    A read past the end of `data` ends the text with `malformed_mark`. Takes linear time and never raises.
    """
    if head.code_at >= len(data):
        return Text(malformed_mark, None, b"", malformed=True)
    code = data[head.code_at]
    options_at = head.code_at + 1 + head.token_length
    token = data[head.code_at + 1 : options_at]
    name = names.code_name(code)
    if not token and head.total <= options_at <= len(data):
        # Nearly every encrypted message: 00 10 is an empty body and code 16.
        return Text(name, code, token, malformed=False)
    try:
        if options_at > len(data):
            raise _PastTheEndError
        options = _Options(data, options_at, head.total, code)
    except _PastTheEndError:
        return Text(name + malformed_mark, code, token, malformed=True)
    if not options.good:
        return Text(name, code, token, malformed=False)
    return Text(name + options.suffix(token), code, token, malformed=False)


def datagram_suffix(data: bytes) -> str | None:
    """Return what the datagram-style dissector (RFC 7252 3) adds after the code name; None when it gives up.

    `data` is one segment, of 4 bytes or more; it gives up at the first option that does not fit.
    """
    options_at = 4 + (data[0] & 15)
    try:
        if options_at > len(data):
            raise _PastTheEndError
        options = _Options(data, options_at, len(data), data[1])
    except _PastTheEndError:
        return names.MALFORMED
    return options.suffix(data[4:options_at]) if options.good else None


class _Options:
    """The options of one message, and what they add to the row."""

    def __init__(self, data: bytes, at: int, end: int, code: int) -> None:
        self.data, self.end, self.code = data, end, code
        self.uri: list[str] = []
        self.query: list[str] = []
        self.block: tuple[int, int, bool] | None = None
        """Option number, block number, more blocks follow."""
        self.content_format: int | None = None
        self.has_payload = False
        self.good = self._read(at)

    def _byte(self, at: int) -> int:
        if at >= len(self.data):
            raise _PastTheEndError
        return self.data[at]

    def _extended(self, nibble: int, at: int) -> tuple[int, int]:
        if nibble == 13:
            return self._byte(at) + 13, at + 1
        if nibble == 14:
            return ((self._byte(at) << 8) | self._byte(at + 1)) + 269, at + 2
        return nibble, at

    def _read(self, at: int) -> bool:
        """Read all options; False at the first that the dissector gives up on."""
        number = 0
        while at < self.end:
            first = self._byte(at)
            at += 1
            if first == 0xFF:
                self.has_payload = at < self.end
                return True
            delta, length = first >> 4, first & 15
            if 15 in {delta, length}:
                # The extension of the delta is read before the length is looked at: it may lie past the end.
                self._extended(delta, at)
                return False
            delta, at = self._extended(delta, at)
            length, at = self._extended(length, at)
            number += delta
            if at + length > self.end:
                return False
            self._note(number, self.data[at : at + length], at)
            at += length
        return True

    def _note(self, number: int, value: bytes, at: int) -> None:
        if number == names.URI_HOST:
            host = printable_string(value)
            self.uri.append(f"coap://[{host}]" if ":" in host else f"coap://{host}")
        elif number == names.URI_PORT:
            self.uri.append(f":{_number(value)}")
        elif number == names.URI_PATH:
            self.uri.append("/" + printable_string(value))
        elif number == names.URI_QUERY:
            self.query.append(("&" if self.query else "?") + printable_string(value))
        elif number == names.CONTENT_FORMAT:
            content_format = _number(value)
            self.content_format = None if content_format == UNREADABLE_NUMBER else content_format
        elif number in {names.BLOCK1, names.BLOCK2}:
            self._block(number, value)
        elif number == names.OSCORE:
            self._oscore(at, len(value))

    def _block(self, option: int, value: bytes) -> None:
        """Of several block options the last counts; one that is too long takes the number away again."""
        # The shift is an arithmetic one on 32 signed bits; what comes out as -1 stands for "no block number".
        block = int.from_bytes(value, "big", signed=len(value) == 4) >> 4
        if len(value) > LONGEST_BLOCK_OPTION or block == -1:
            self.block = None
        else:
            self.block = (option, block % 2**32, bool(value and value[-1] & 8))

    def _oscore(self, at: int, length: int) -> None:
        """Follow the lengths inside an OSCORE option (RFC 8613 6.1), which the dissector does not check."""
        if not length:
            return
        flags = self._byte(at)
        at, length = at + 1, length - 1
        id_length = flags & 7
        if id_length:
            self._need(at, id_length)
            at, length = at + id_length, length - id_length
        if flags & 0x10:
            context_length = self._byte(at)
            at, length = at + 1, length - 1
            self._need(at, context_length)
            at, length = at + context_length, length - context_length
        if flags & 8:
            # What is left for the key id is kept in eight bits, so "one too few" reads as 255.
            self._need(at, length % 256)

    def _need(self, at: int, length: int) -> None:
        if at + length > len(self.data):
            raise _PastTheEndError

    def suffix(self, token: bytes) -> str:
        parts = []
        error_answer = self.content_format is None and self.code >> 5 in {4, 5}
        # A block number holds the payload back until all blocks are there; the only block is all of them.
        whole = self.block is None or self.block[1:] == (0, False)
        if self.has_payload and whole and (error_answer or self.content_format == 0):
            parts.append(" (text/plain)")
        if token:
            parts.append(f", TKN:{token.hex(' ')}")
        if self.block is not None:
            option, block, more = self.block
            code_class = self.code >> 5
            last = not more and (code_class == 0 if option == names.BLOCK1 else 2 <= code_class <= 5)
            parts.append(f", {'End of ' if last else ''}Block #{block}")
        if self.uri:
            parts.append(", " + "".join(self.uri))
        parts += self.query
        return "".join(parts)


def _number(value: bytes) -> int:
    return int.from_bytes(value, "big") if len(value) <= 4 else UNREADABLE_NUMBER


def printable_string(value: bytes) -> str:
    r"""Render a string option as Wireshark does: cut at NUL, U+FFFD above 127, `\a` or `\ooo`."""
    text = value.split(b"\0", 1)[0]
    return "".join(
        "\ufffd" if byte >= 0x80 else _CONTROLS.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}")
        for byte in text
    )
