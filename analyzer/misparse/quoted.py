"""A row or label copied out of any Wireshark: which bytes it stands for, and where in a capture they are."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from analyzer.misparse import names
from analyzer.misparse.message import Head, read_head, read_message
from analyzer.misparse.old import DATAGRAM_GENERATIONS, DATAGRAM_HEAD, Generation
from analyzer.misparse.reader import CoapTcpReader
from analyzer.wording import printable

LONGEST_QUOTE: Final = 500
"""Characters of a pasted text that are looked at; Wireshark's own Info column is not much longer."""
LONGEST_TOKEN: Final = 15
"""A token length is four bits."""
MOST_DIRECTIONS: Final = 1024
"""Directions of connections followed at once in a search (each may hold `LARGEST_MESSAGE_KEPT` bytes); beyond
that the one silent for longest is forgotten, so one message that spans its packets may be missed."""

# In groups of four, each in the order of the type values.
_SPELLINGS: Final = (*names.TYPE_WORDS, *names.TYPE_SHORT, *names.TYPE_WORDS[:2], "Acknowledgment", "Reset")
_TYPE_OF: Final = {word.casefold(): index % 4 for index, word in enumerate(_SPELLINGS)}
_SHORT_TYPES: Final = {word.casefold() for word in names.TYPE_SHORT}
_CODE_OF: Final = {re.sub(r"^\d\.\d\d ", "", name).casefold(): code for code, name in names.CODE_NAMES.items()} | {
    "empty": 0,
    "unsupported media type": 143,
}


def _any_of(words: Iterable[str]) -> str:
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))


# A packet list line: everything up to the protocol and the length is columns of its own.
_COLUMNS: Final = re.compile(r"^.*?\bcoap(?:/\w+)?\s+\d+\s+(?=\S)", re.I)
# Preceded by "[" it is a TCP flag: [RST, ACK].
_TYPE: Final = re.compile(rf"(?<![\w\[-])({_any_of(_TYPE_OF)})(?![\w-])(?=\s*(?:,|$))", re.I)
_DOTTED: Final = re.compile(r"(?<![\w./-])([0-7])\.(\d\d)(?=\s+[a-z]|\s*(?:,|\[|\(|$))", re.I)
_UNKNOWN: Final = re.compile(r"\bunknown\s+(?:code\s+)?(\d{1,3})(?!\d)", re.I)
_NAMED: Final = re.compile(rf"(?:^|[,\]]\s*)({_any_of(_CODE_OF)})(?=\s*(?:,|\[|\(|\?|$))", re.I)
_ID: Final = re.compile(r"\b(tid|mid|message id|transaction id)\s*[:=]?\s*(\d{1,5})(?!\d)", re.I)
_TOKEN: Final = re.compile(r"\b(?:tkn|token)\s*[:=]\s*([0-9a-z][0-9a-z :]*)", re.I)
_LENGTH: Final = re.compile(r"\blength\s*[:=]\s*(\d{1,5})(?!\d)", re.I)
_MALFORMED: Final = re.compile(r"malformed packet|bounderrorunreassembled", re.I)
_TCP_ROW: Final = re.compile(r"\bseq=\d|\[tcp segment of", re.I)

_BITS: Final = (
    "its bits 5 and 4 are 0",
    "its bit 5 is 0, bit 4 is 1",
    "its bit 5 is 1, bit 4 is 0",
    "its bits 5 and 4 are 1",
)


@dataclass(frozen=True, slots=True)
class QuotedRow:
    """What a row's text says about the bytes that made it; None where it says nothing.

    `generations`: the Wireshark releases that write such a text. `type` 0 to 3, `code` 0 to 255, `message_id`
    0 to 65535, `token` the bytes quoted (perhaps cut short), `length` the bytes of the segment.
    """

    text: str
    generations: tuple[Generation, ...]
    type: int | None = None
    type_word: str = ""
    code: int | None = None
    code_word: str = ""
    message_id: int | None = None
    id_word: str = ""
    token: bytes | None = None
    length: int | None = None
    malformed: bool = False

    @property
    def datagram(self) -> bool:
        """The text is of the releases that read a segment as a datagram (up to 3.0)."""
        return Generation.SINCE_3_2 not in self.generations

    def bytes_explained(self) -> list[tuple[str, str, str]]:
        """Rows of (which bytes, how Wireshark reads them, what it prints), in the order of the bytes."""
        rows = self._datagram_rows() if self.datagram else self._stream_rows()
        if self.token:
            where = "then" if self.code is not None and not self.datagram else "from byte 5 on"
            rows.append((f"{where} {self.token.hex(' ')}", "taken for a token", f'"TKN:{self.token.hex(" ")}"'))
        if self.length is not None:
            rows.append((f"{self.length} bytes in all", "the size of the segment", f'"Length: {self.length}"'))
        if self.malformed:
            rows.append(
                (
                    "bytes after these",
                    "a random length leads past the end of the packet",
                    '"Malformed Packet"',
                )
            )
        return rows

    def _datagram_rows(self) -> list[tuple[str, str, str]]:
        rows: list[tuple[str, str, str]] = []
        if self.type is not None:
            a, b, c, d = (f"{high + self.type:x}?" for high in (0, 4, 8, 12))
            rows.append((f"first byte {a}, {b}, {c} or {d}", _BITS[self.type], f'"{self.type_word}"'))
        if self.code is not None:
            rows.append((f"{'then' if rows else 'second byte'} {self.code:02x}", *self._code_read()))
        if self.message_id is not None:
            value = self.message_id.to_bytes(2, "big").hex(" ")
            where = "then" if self.code is not None else "third and fourth byte"
            rows.append((f"{where} {value}", f"{self.message_id} in decimal", f'"{self.id_word}"'))
        return rows

    def _stream_rows(self) -> list[tuple[str, str, str]]:
        if self.code is None:
            return []
        read, printed = self._code_read()
        rows = [
            (f"second byte {self.code:02x}", read, printed),
            ("or third, fourth, sixth", "when the first is d?, e?, f?", printed),
        ]
        if self.code and self.code % 16 == 0:
            rows.insert(0, (f"often 00 {self.code:02x}", f"length field: {self.code} bytes follow", printed))
        return rows

    def _code_read(self) -> tuple[str, str]:
        code = self.code or 0
        if self.code_word.casefold().startswith("unknown"):
            return f"{code} in decimal", f'"{self.code_word}"'
        return f"{code} = {code >> 5} × 32 + {code & 31}", f'"{self.code_word}"'

    def matches(self, message: bytes) -> bool:
        """Whether a segment that begins with `message` can have produced this row. Never raises."""
        return any(self.first_bytes(message, generation) is not None for generation in self.generations)

    def first_bytes(self, message: bytes, generation: Generation) -> bytes | None:
        """Return the bytes at the start of `message` that made this row in that generation, or None."""
        if generation in DATAGRAM_GENERATIONS:
            return self._as_datagram(message)
        head = read_head(message)
        if head is None or not self._fits(message, head):
            return None
        return message[: head.code_at + 1 + len(self.token or b"")]

    def _as_datagram(self, message: bytes) -> bytes | None:
        if len(message) < DATAGRAM_HEAD or (self.type, self.code, self.message_id) == (None, None, None):
            return None
        token_end = DATAGRAM_HEAD + (message[0] & 15)
        fits = (
            self.type in {None, message[0] >> 4 & 3}
            and self.code in {None, message[1]}
            and self.message_id in {None, int.from_bytes(message[2:DATAGRAM_HEAD], "big")}
            and self.length in {None, len(message)}
            and message[DATAGRAM_HEAD:token_end].startswith(self.token or b"")
        )
        return message[: DATAGRAM_HEAD + len(self.token or b"")] if fits else None

    def _fits(self, message: bytes, head: Head) -> bool:
        if self.malformed and not (head.total <= len(message) and read_message(message, head).malformed):
            return False
        after = message[head.code_at + 1 : head.code_at + 1 + head.token_length]
        return self.code in {None, *message[head.code_at : head.code_at + 1]} and after.startswith(self.token or b"")


def read_quoted_row(text: str) -> QuotedRow | None:
    """Read a row, column or label text from any Wireshark; None when it is no text of its CoAP dissector.

    Case and extra spaces do not matter; leading columns of the packet list, and a "[TCP ...]" before the
    text, are skipped. Plain TCP rows ("[PSH, ACK] Seq=1 ...") are None.
    """
    text = printable(" ".join(text[:LONGEST_QUOTE].split()))
    # The copy may carry the quotation marks of the report or of the shell.
    text = _COLUMNS.sub("", text, count=1).strip("\"'“”«» ")
    if _TCP_ROW.search(text):
        return None
    code, code_word = _read_code(text)
    type_found, id_found = _TYPE.search(text), _ID.search(text)
    message_id = int(id_found[2]) if id_found else None
    malformed = _MALFORMED.search(text) is not None
    if (message_id or 0) > 0xFFFF or (code is None and message_id is None and not malformed):
        return None
    type_word = type_found[1] if type_found else ""
    token = _read_token(text)
    length = _LENGTH.search(text)
    return QuotedRow(
        text=text,
        generations=_generations(type_word, id_found[1] if id_found else "", code),
        type=_TYPE_OF[type_word.casefold()] if type_word else None,
        type_word=_as_wireshark_writes(type_word),
        code=code,
        code_word=code_word,
        message_id=message_id,
        id_word=_id_word(id_found[1], id_found[2]) if id_found else "",
        token=token,
        length=int(length[1]) if length else None,
        malformed=malformed,
    )


def _read_code(text: str) -> tuple[int | None, str]:
    """Find the code a text names first, and the word that names it, shortened to what the bytes decide."""
    found = []
    if match := _UNKNOWN.search(text):
        found.append((match.start(), int(match[1]), f"Unknown {int(match[1])}"))
    for match in _DOTTED.finditer(text):
        if int(match[2]) < 32:
            found.append((match.start(), int(match[1]) * 32 + int(match[2]), f"{match[1]}.{match[2]}"))
    if match := _NAMED.search(text):
        code = _CODE_OF[match[1].casefold()]
        word = names.CODE_NAMES[code]
        found.append((match.start(1), code, word.split(" ")[0] if word[0].isdigit() else word))
    if not found:
        return None, ""
    _, code, word = min(found)
    return (code, word) if code < 256 else (None, "")


def _read_token(text: str) -> bytes | None:
    """Take the bytes after "TKN:", apart or in one run, up to the first word that is not hexadecimal."""
    match = _TOKEN.search(text)
    if not match:
        return None
    token = b""
    for word in re.split("[ :]", match[1]):
        if len(word) % 2 or not re.fullmatch("[0-9a-f]+", word, re.I):
            break
        token += bytes.fromhex(word)
    return token[:LONGEST_TOKEN] or None


def _generations(type_word: str, id_word: str, code: int | None) -> tuple[Generation, ...]:
    word = id_word.casefold()
    if word in {"tid", "transaction id"}:
        return (Generation.IN_2014,)
    if word:
        return (Generation.UNTIL_3_0,)
    if type_word:
        return DATAGRAM_GENERATIONS if type_word.casefold() not in _SHORT_TYPES else (Generation.UNTIL_3_0,)
    # "Malformed Packet" alone is a label in every release.
    return (Generation.SINCE_3_2,) if code is not None else tuple(Generation)


def _as_wireshark_writes(type_word: str) -> str:
    for words in (names.TYPE_WORDS, names.TYPE_SHORT):
        for word in words:
            if word.casefold() == type_word.casefold():
                return word
    return type_word


def _id_word(word: str, number: str) -> str:
    return f"{word.upper() if len(word) == 3 else word.capitalize()}:{int(number)}"


@dataclass(slots=True)
class Sighting:
    """Where a quoted row was made: the packet whose row it is, and the bytes from the message's first on."""

    packet: int
    direction: Hashable
    role: str
    first: bytes
    generation: Generation


def find_row(
    quoted: QuotedRow, segments: Iterable[tuple[int, Hashable, bytes, str]], *, desegment: bool = True
) -> Iterator[Sighting]:
    """Yield each place that shows `quoted`, in the order of the packets.

    `segments`: (packet number, direction of one connection, payload, words for what it is, as "the server's
    greeting"), as `CoapTcpReader` wants them. A row of several packets is found in the one that completes it.
    """
    readers: OrderedDict[Hashable, CoapTcpReader] = OrderedDict()
    for packet, direction, payload, role in segments:
        for generation in quoted.generations:
            if generation in DATAGRAM_GENERATIONS:
                first = quoted.first_bytes(payload, generation)
                if first is not None:
                    yield Sighting(packet, direction, role, first, generation)
                    break
                continue
            reader = readers.pop(direction, None) or CoapTcpReader(desegment=desegment)
            readers[direction] = reader
            if len(readers) > MOST_DIRECTIONS:
                readers.popitem(last=False)
            for reading in reader.receive(payload, packet).readings:
                if (
                    quoted.code in {None, reading.code}
                    and reading.token.startswith(quoted.token or b"")
                    and reading.malformed >= quoted.malformed
                ):
                    yield Sighting(packet, direction, role, reading.first, generation)
