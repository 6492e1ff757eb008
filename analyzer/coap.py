"""Bytes to CoAP messages and back: RFC 7252 alone, without a word of what Spark means by them.

Bytes from the network never raise here. What cannot be read is left empty, and an `Anomaly` says why; raw
numbers stay numbers, because an unknown code is something to report and no reason to stop.

One deliberate limit: a message whose version is not 1 or whose token length is reserved is not read any
further, since nothing says where its options would begin.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

CON, NON, ACK, RST = range(4)
TYPE_NAMES: Final = ("CON", "NON", "ACK", "RST")

EMPTY, GET, POST, PUT, DELETE = range(5)

HEADER_SIZE: Final = 4
LONGEST_TOKEN: Final = 8
PAYLOAD_MARKER: Final = 0xFF
LARGEST_OPTION_NUMBER: Final = 0xFFFF

OPTION_NAMES: Final = {
    1: "If-Match",
    3: "Uri-Host",
    4: "ETag",
    5: "If-None-Match",
    6: "Observe",
    7: "Uri-Port",
    8: "Location-Path",
    11: "Uri-Path",
    12: "Content-Format",
    14: "Max-Age",
    15: "Uri-Query",
    17: "Accept",
    20: "Location-Query",
    23: "Block2",
    27: "Block1",
    28: "Size2",
    35: "Proxy-Uri",
    39: "Proxy-Scheme",
    60: "Size1",
    258: "No-Response",
}
"""Option number to its registered name; `OPTION_NUMBERS` is the same the other way round."""
OPTION_NUMBERS: Final = {name: number for number, name in OPTION_NAMES.items()}
URI_PATH: Final = OPTION_NUMBERS["Uri-Path"]
MAX_AGE: Final = OPTION_NUMBERS["Max-Age"]
URI_QUERY: Final = OPTION_NUMBERS["Uri-Query"]

CODE_TEXTS: Final = tuple(f"{code >> 5}.{code & 31:02d}" for code in range(256))
CODES: Final = {text: code for code, text in enumerate(CODE_TEXTS)}

Option = tuple[int, bytes]
"""An option's number and its raw value."""

REMEMBERED_RUNS: Final = 2048
"""How many option runs `decode` remembers: the names in use in a capture are few, CRCs are not, so the memo
is emptied when full. Together with the next bound it stays below 1 MB."""
LONGEST_REMEMBERED_RUN: Final = 64
"""Bytes of a run that is remembered: names in use are shorter."""
_runs: dict[bytes, tuple[Option, ...]] = {b"": ()}


class Anomaly(StrEnum):
    """What is not as RFC 7252 has it. The text is a phrase for people; `HARMLESS` ones break nothing."""

    TRUNCATED = "ends inside the header or the token"
    BAD_VERSION = "version is not 1"
    RESERVED_TOKEN_LENGTH = "token length above 8"  # noqa: S105 - a CoAP token is no secret
    RESERVED_OPTION_NIBBLE = "option delta or length 15"
    OPTION_PAST_END = "an option runs past the end"
    OPTION_NUMBER_TOO_LARGE = "option number above 65535"
    EMPTY_WITH_BYTES = "code 0.00 with more than a header"
    EMPTY_ACK_WITH_TOKEN = "empty ACK with a token"  # noqa: S105
    EMPTY_PAYLOAD = "payload marker without a payload"


ANOMALIES: Final = {anomaly.name: anomaly.value for anomaly in Anomaly}
"""Name to phrase: the same for the Lua plugin, which has no enumerations."""
HARMLESS: Final = frozenset({Anomaly.EMPTY_ACK_WITH_TOKEN, Anomaly.EMPTY_PAYLOAD})
"""Against the RFC, but written by genuine peers: the legacy server's acknowledgements (PROTOCOL 5.4.2), and
devices that publish or return an empty string."""


@dataclass(slots=True)
class CoapMessage:
    """One CoAP message. Not frozen: one is made per frame, and freezing costs four times as much.

    ``type`` is 0 CON, 1 NON, 2 ACK, 3 RST; ``code`` the whole byte (0x45 is 2.05); ``options`` the (number,
    value) pairs in wire order; ``payload`` is empty both without a marker and with an empty payload (then
    ``anomalies`` has `EMPTY_PAYLOAD`). Fields behind the point where reading stopped are 0 or empty.
    """

    version: int
    type: int
    code: int
    message_id: int
    token: bytes = b""
    options: tuple[Option, ...] = ()
    payload: bytes = b""
    anomalies: tuple[Anomaly, ...] = ()

    @property
    def well_formed(self) -> bool:
        """True when everything was read to the end; harmless deviations of genuine peers do not count."""
        return not self.anomalies or HARMLESS.issuperset(self.anomalies)

    @property
    def type_text(self) -> str:
        """``CON``, ``NON``, ``ACK`` or ``RST``."""
        return TYPE_NAMES[self.type]

    @property
    def code_text(self) -> str:
        """The code in the usual spelling, ``2.05``."""
        return CODE_TEXTS[self.code]

    @property
    def path_segments(self) -> list[bytes]:
        """The raw Uri-Path options, in order."""
        return [value for number, value in self.options if number == URI_PATH]

    @property
    def path(self) -> str:
        """The Uri-Path options joined with ``/``; bytes that are not UTF-8 become U+FFFD."""
        segments = [value for number, value in self.options if number == URI_PATH]
        return b"/".join(segments).decode("utf-8", "replace")

    @property
    def queries(self) -> list[bytes]:
        """The Uri-Query options as raw bytes: this protocol writes binary numbers there."""
        return [value for number, value in self.options if number == URI_QUERY]


def decode(data: bytes) -> CoapMessage:
    """Read one whole CoAP message from ``data``. Never raises; see `CoapMessage.anomalies`."""
    size = len(data)
    if size < HEADER_SIZE:
        first = data[0] if data else 0
        code = data[1] if size > 1 else 0
        return CoapMessage(first >> 6, first >> 4 & 3, code, 0, anomalies=(Anomaly.TRUNCATED,))
    first = data[0]
    code = data[1]
    message_id = data[2] << 8 | data[3]
    token_end = HEADER_SIZE + (first & 15)
    if first >> 6 != 1 or token_end > HEADER_SIZE + LONGEST_TOKEN or token_end > size:
        return CoapMessage(
            first >> 6, first >> 4 & 3, code, message_id, anomalies=(_unreadable(first, token_end, size),)
        )
    # The bytes up to the first FF are a whole run of options, or that FF lies inside an option's value. Only
    # runs that were read to their exact end are remembered, so a hit settles which of the two it is.
    end = data.find(PAYLOAD_MARKER, token_end)
    if end < 0:
        end = size
    run = data[token_end:end]
    options = _runs.get(run)
    anomalies: tuple[Anomaly, ...] = ()
    if options is None:
        options, read_to, anomaly = _read_options(data, token_end)
        if anomaly is not None:
            anomalies = (anomaly,)
        elif read_to == end and len(run) <= LONGEST_REMEMBERED_RUN:
            if len(_runs) >= REMEMBERED_RUNS:
                _runs.clear()
            _runs[run] = options
        end = read_to
    if end == size - 1:
        anomalies += (Anomaly.EMPTY_PAYLOAD,)
    if code == EMPTY and size > HEADER_SIZE:
        lone_token = first >> 4 & 3 == ACK and size == token_end == HEADER_SIZE + 1
        anomalies += (Anomaly.EMPTY_ACK_WITH_TOKEN if lone_token else Anomaly.EMPTY_WITH_BYTES,)
    return CoapMessage(
        1, first >> 4 & 3, code, message_id, data[HEADER_SIZE:token_end], options, data[end + 1 :], anomalies
    )


def _unreadable(first: int, token_end: int, size: int) -> Anomaly:
    if first >> 6 != 1:
        return Anomaly.BAD_VERSION
    if token_end > HEADER_SIZE + LONGEST_TOKEN:
        return Anomaly.RESERVED_TOKEN_LENGTH
    assert token_end > size  # noqa: S101 - the only caller asks about one of these three
    return Anomaly.TRUNCATED


def _read_options(data: bytes, at: int) -> tuple[tuple[Option, ...], int, Anomaly | None]:
    """Read options from offset ``at``; return them, the offset of the marker or the end, and what stopped it.

    Each turn of the loop consumes at least a byte, so the time is linear in the size. Behind an anomaly
    nothing can be told apart, so the offset returned then is the end: there is no payload.
    """
    size = len(data)
    number = 0
    options: list[Option] = []
    while at < size:
        head = data[at]
        if head == PAYLOAD_MARKER:
            return tuple(options), at, None
        at += 1
        delta, length = head >> 4, head & 15
        if delta == 15 or length == 15:
            return tuple(options), size, Anomaly.RESERVED_OPTION_NIBBLE
        if delta == 13:
            delta, at = 13 + int.from_bytes(data[at : at + 1], "big"), at + 1
        elif delta == 14:
            delta, at = 269 + int.from_bytes(data[at : at + 2], "big"), at + 2
        if length == 13:
            length, at = 13 + int.from_bytes(data[at : at + 1], "big"), at + 1
        elif length == 14:
            length, at = 269 + int.from_bytes(data[at : at + 2], "big"), at + 2
        # A cut extension reads too short above, but then `at` is already past the end.
        if at + length > size:
            return tuple(options), size, Anomaly.OPTION_PAST_END
        number += delta
        if number > LARGEST_OPTION_NUMBER:
            return tuple(options), size, Anomaly.OPTION_NUMBER_TOO_LARGE
        options.append((number, data[at : at + length]))
        at += length
    return tuple(options), size, None


@dataclass(slots=True)
class CoapTail:
    """What is left of a message whose first bytes could not be decrypted (PROTOCOL 4.5).

    Header, token, id and the first option are gone, so type and code are not known, and by the RFC alone not
    even where the payload begins: ``data`` may be all payload, all option, or both. ``possible_marker`` is
    the offset in ``data`` of the first FF, or None. If that is the marker, `before` ends the options and
    `after` is the payload; without any FF the message is payload from somewhere after its start on, or has
    none. ``payload`` is therefore always None, so that nobody takes a reading for a fact.
    """

    missing: int
    data: bytes
    possible_marker: int | None
    payload: None = None

    @property
    def before(self) -> bytes | None:
        """The end of the options, if the first FF is the payload marker."""
        return None if self.possible_marker is None else self.data[: self.possible_marker]

    @property
    def after(self) -> bytes | None:
        """The whole payload, if the first FF is the payload marker."""
        return None if self.possible_marker is None else self.data[self.possible_marker + 1 :]

    @property
    def text(self) -> str | None:
        """``data`` as text when all of it is printable UTF-8 (a lost marker leaves JSON or event data)."""
        try:
            text = self.data.decode("utf-8")
        except UnicodeDecodeError:
            return None
        return text if text and text.isprintable() else None


def decode_tail(data: bytes, missing: int = 16) -> CoapTail:
    """Describe ``data``, the rest of a message whose first ``missing`` bytes are lost. Never raises."""
    marker = data.find(PAYLOAD_MARKER)
    return CoapTail(missing, data, None if marker < 0 else marker)


def encode(
    kind: int,
    code: int,
    message_id: int,
    *,
    token: bytes = b"",
    options: Iterable[Option] = (),
    payload: bytes | None = None,
) -> bytes:
    """Write one message. ``kind`` is the type; a ``payload`` of ``b""`` writes a marker and nothing behind.

    Options are put in order of their numbers, equal numbers as given. Raises ValueError for a token of more
    than 8 bytes or an option number or length that CoAP cannot write.
    """
    if len(token) > LONGEST_TOKEN:
        raise ValueError(f"a CoAP token has at most {LONGEST_TOKEN} bytes, not {len(token)}")
    message = bytearray((0x40 | kind << 4 | len(token), code))
    message += message_id.to_bytes(2, "big") + token
    previous = 0
    for number, value in sorted(options, key=lambda option: option[0]):
        delta, delta_more = _nibble(number - previous)
        length, length_more = _nibble(len(value))
        message.append(delta << 4 | length)
        message += delta_more + length_more + value
        previous = number
    if payload is not None:
        message.append(PAYLOAD_MARKER)
        message += payload
    return bytes(message)


def encode_message(message: CoapMessage) -> bytes:
    """Write a decoded message again; for a well-formed one, exactly the bytes it was read from."""
    marked = message.payload or Anomaly.EMPTY_PAYLOAD in message.anomalies
    return encode(
        message.type,
        message.code,
        message.message_id,
        token=message.token,
        options=message.options,
        payload=message.payload if marked else None,
    )


def _nibble(value: int) -> tuple[int, bytes]:
    if not 0 <= value <= 0xFFFF + 269:
        raise ValueError(f"a CoAP option delta or length cannot be {value}")
    if value < 13:
        return value, b""
    if value < 269:
        return 13, bytes((value - 13,))
    return 14, (value - 269).to_bytes(2, "big")
