"""What protocol a conversation speaks, told from its first bytes and from who spoke first."""

from __future__ import annotations

from typing import Final

from analyzer.catalogue import IDENTITY_SIZE, NONCE_SIZE, SMALLEST_FRAME_ON_WIRE
from analyzer.conversation import Conversation
from analyzer.frames import chain
from analyzer.handshake import OPENING
from analyzer.streams import HoleReason, Sender

PRINTABLE_SHARE: Final = 0.95
FEWEST_LETTERS: Final = 8
"""Bytes below which text cannot be told from chance. Of 40 random bytes, 38 printable ones are seen in fewer
than one nonce in 10^13 (DIAGNOSES 103)."""
LETTERS_WHEN_CUT: Final = 16
"""The same when the capture lacks bytes of the greeting: 8 printable ones begin one nonce in 2,000."""
PLENTY: Final = 4096
"""Bytes of one direction without a frame in them, from which a connection begun before the capture is called
another protocol: four of the largest frames."""
TLS_RECORDS: Final = (b"\x16\x03", b"\x15\x03")
CLIENT_HELLO: Final = b"\x01"
"""The type of the message in a TLS client's first record."""
LARGEST_RECORD: Final = 16_640
"""Bytes that a TLS record may have."""
COAP_MESSAGES: Final = 3
"""RFC 8323 messages in a row that end exactly with the data, both directions together."""
CSM: Final = 0xE1
EXTENDED: Final = {13: (1, 13), 14: (2, 269), 15: (4, 65_805)}
"""Length nibbles of RFC 8323 that say: so many more bytes tell the length, beyond so much."""
LONGEST_TOKEN: Final = 8
CODE_CLASSES: Final = (0, 2, 4, 5, 7)
"""Requests, three kinds of answers, signals: the classes of code that there are (RFC 8323 5, RFC 7252 12.1)."""
MARKS: Final = (
    (b"SSH-", "ssh"),
    (b"HTTP/", "http"),
    (b"<!DOCTYPE", "http"),
    (b"<html", "http"),
    (b"<HTML", "http"),
)
REQUESTS: Final = (b"GET ", b"POST ", b"PUT ", b"HEAD ", b"OPTIONS ", b"CONNECT ", b"DELETE ", b"PATCH ")


def is_text(data: bytes) -> bool:
    """Whether the first 40 bytes (8 at least) are text, and so no nonce."""
    head = data[:NONCE_SIZE]
    if len(head) < FEWEST_LETTERS:
        return False
    printable = sum(1 for byte in head if 32 <= byte < 127 or byte in (9, 10, 13))
    return printable >= PRINTABLE_SHARE * len(head)


def kind_of(conversation: Conversation) -> str:
    """Return ``spark``, ``coap-tcp``, ``tls``, ``http``, ``ssh``, ``other`` or ``empty``."""
    device, server = conversation.device_side, conversation.server_side
    if not device.captured and not server.captured:
        return _kind_by_sizes(conversation)
    opening = server.opening
    if server.captured and not server.midway:
        whole = not _starts_with_hole(conversation, Sender.SERVER) and server.first_size <= len(opening)
        named = _service(opening, server.first_size if whole else None)
        if named is not None:
            return named
    asked = request_kind(device.opening) if device.first_size != IDENTITY_SIZE else None
    if asked is not None:
        return asked
    greeting_alone = not device.captured and server.captured <= NONCE_SIZE
    if not greeting_alone and _is_coap(
        *(side.opening for sender, side in conversation.sides.items() if not _starts_with_hole(conversation, sender))
    ):
        return "coap-tcp"
    if conversation.dead_frames:
        return "spark"
    if _is_out_of_turn(conversation):
        return "other"
    if device.frames >= 2 or server.frames >= 2:
        return "spark"
    if _client_first(conversation):
        return "spark" if device.frames or server.frames else "other"
    return "other" if _nothing_of_ours(conversation) else "spark"


def _kind_by_sizes(conversation: Conversation) -> str:
    """Tell from sizes alone: the capture has no byte of what was sent (or it was sent in its absence)."""
    device, server = conversation.device_side, conversation.server_side
    if server.sent < NONCE_SIZE and device.sent < IDENTITY_SIZE:
        return "empty"
    client_first = _client_first(conversation) and device.first_size != SMALLEST_FRAME_ON_WIRE
    return "other" if client_first or server.first_size > NONCE_SIZE else "spark"


def _nothing_of_ours(conversation: Conversation) -> bool:
    """Whether a conversation begun before the capture shows plenty of bytes and nothing of this protocol in them."""
    device, server = conversation.device_side, conversation.server_side
    if not (device.midway and server.midway) or any(hole.reason is HoleReason.CUT for hole in conversation.holes):
        return False
    ours = device.frames or server.frames or any(part.received for part in (*device.parts, *server.parts))
    return not ours and max(device.captured, server.captured) > PLENTY


def _starts_with_hole(conversation: Conversation, sender: Sender) -> bool:
    """Whether the first bytes of that direction are not in the capture."""
    return any(hole.sender is sender and hole.offset == 0 for hole in conversation.holes)


def _service(opening: bytes, first: int | None) -> str | None:
    """Name the service that greets with these bytes, None when they may be a nonce.

    ``first`` is how many of them came in the first packet, which is all there; None when it is not, and then more text
    is asked for. A line of text is a greeting whatever follows it.
    """
    for mark, kind in MARKS:
        if opening.startswith(mark):
            return kind
    if opening.startswith(TLS_RECORDS) and _tls_record(opening):
        return "tls"
    if first is None and len(opening) < LETTERS_WHEN_CUT:
        return None
    line = opening[:first]
    return "other" if is_text(opening) or (line.endswith(b"\n") and is_text(line)) else None


def request_kind(opening: bytes) -> str | None:
    """Name the protocol that a client begins with these bytes, None when they may be a device's."""
    if opening.startswith(TLS_RECORDS[0]) and _tls_record(opening) and opening[5:6] == CLIENT_HELLO:
        return "tls"
    return "http" if opening.startswith(REQUESTS) else None


def _tls_record(opening: bytes) -> bool:
    """Whether a TLS record header starts here: version 3.0-3.4 and a length that TLS allows."""
    return len(opening) >= 5 and opening[2] <= 4 and 0 < (opening[3] << 8 | opening[4]) <= LARGEST_RECORD


def _client_first(conversation: Conversation) -> bool:
    """Whether the device spoke before the server did (or the server never did)."""
    device, server = conversation.device_side, conversation.server_side
    if device.midway or server.midway or device.first_data is None:
        return False
    if not server.sent:
        return True
    unseen = next((hole for hole in conversation.holes if hole.sender is Sender.SERVER and hole.offset == 0), None)
    if unseen is not None and unseen.reason is HoleReason.NOT_CAPTURED:
        return device.first_data.packet < unseen.packet  # the device spoke before it acknowledged anything
    return server.first_data is None or device.first_data.time_ns < server.first_data.time_ns


def _is_out_of_turn(conversation: Conversation) -> bool:
    """Whether both ends begin with more than a login has there, the client before the server: then frames behind that
    are chance. A login may be seen in the wrong order, in pieces; but neither end has more to send unanswered.
    """
    device, server = conversation.device_side, conversation.server_side
    more = device.first_size > IDENTITY_SIZE and server.first_size > NONCE_SIZE
    holes = any(_starts_with_hole(conversation, sender) for sender in Sender)
    return more and not holes and _client_first(conversation)


def _is_coap(*openings: bytes) -> bool:
    """Whether genuine CoAP over TCP (RFC 8323) is spoken: whole messages in each direction given, a CSM first.

    Where one end alone was heard, its messages must end exactly with what there is: random bytes often parse that far.
    """
    spoken = [opening for opening in openings if opening]
    messages = 0
    for opening in spoken:
        if chain(opening)[0]:
            return False
        count, first, whole = _coap_messages(opening)
        if not count or first != CSM or not (whole or len(spoken) > 1 or len(opening) >= OPENING):
            return False
        messages += count
    return messages >= COAP_MESSAGES


def _coap_messages(data: bytes) -> tuple[int, int, bool]:
    """Count whole RFC 8323 messages from the start; return the count (0 if one is impossible), the first
    message's code, and whether they end exactly with the data. A message that runs beyond the data is left out.
    """
    position, count, first = 0, 0, 0
    while position < len(data):
        length, token = data[position] >> 4, data[position] & 15
        extra, beyond = EXTENDED.get(length, (0, 0))
        if token > LONGEST_TOKEN:
            return 0, 0, False
        head = position + 1 + extra
        if head >= len(data):
            return count, first, False
        if data[head] >> 5 not in CODE_CLASSES:
            return 0, 0, False
        if extra:
            length = int.from_bytes(data[position + 1 : head], "big") + beyond
        if not count:
            first = data[head]
        position = head + 1 + token + length
        if position <= len(data):
            count += 1
    return count, first, position == len(data)
