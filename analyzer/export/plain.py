"""Decrypted messages as a capture file that any Wireshark shows as CoAP, without a plugin or a key.

A pcapng file whose packets have no network below them: tags say which dissector reads the bytes and between
which addresses they went (link type 252, "upper PDU", as in Wireshark's own Export PDUs). Each conversation is
an interface of its own, each packet has a comment with the message's name, its time is exact to the nanosecond.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from analyzer.capture import writing
from analyzer.capture.writing import APPLICATION, COMMENT, DESCRIPTION, NAME, option
from analyzer.export.decrypted import Decrypted, End, Ends
from analyzer.message_table import DEVICE
from analyzer.messages import SparkMessage, label, summary
from analyzer.messages.summary import name_text
from analyzer.version import version

LINK_TYPE_UPPER_PDU: Final = 252
NANOSECONDS: Final = 9

LONGEST_COMMENT: Final = 1000
"""Characters of a packet's comment. Names and data in it are quoted and cut already; this bounds their sum."""

# Tags of an upper PDU (big-endian). A dissector's name is padded to whole words.
_END_OF_TAGS, _DISSECTOR, _PORT_TYPE, _SOURCE_PORT, _TARGET_PORT, _ORIGINAL_FRAME = 0, 12, 24, 25, 26, 30
_ADDRESS_TAGS: Final = {4: (20, 21), 16: (22, 23)}
"""By the length of an address: the tags for source and target."""
_UDP: Final = 3
"""Wireshark pairs CoAP requests with responses over UDP ports only; with TCP's number every version complains."""
_COAP, _DATA = b"coap", b"data"


@dataclass(slots=True)
class Written:
    """What an export holds: ``messages`` shown as CoAP, and ``tails`` whose front is lost, shown as bytes."""

    messages: int = 0
    tails: int = 0

    def __str__(self) -> str:
        text = f"{self.messages} message" + ("" if self.messages == 1 else "s")
        return f"{text}, {self.tails} more without their first bytes, as data" if self.tails else text


class PlainWriter:
    """Writes messages to ``stream`` as they come; conversations may alternate.

    The stream needs nothing but ``write``. ``written`` counts. Raises what the stream raises.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.written = Written()
        self._stream = stream
        self._interfaces: dict[int, int] = {}
        options = option(COMMENT, b"Messages of the Spark Core cloud protocol, decrypted")
        options += option(APPLICATION, f"sparkshark {version()}".encode())
        stream.write(writing.section(options + option(0)))

    def add(self, ends: Ends, message: SparkMessage) -> None:
        """Write one message of the conversation between ``ends``.

        A message whose front is lost cannot be read as CoAP by anybody, so what is left of it is shown as
        data, with a comment that says so: nothing is missing from the file without a word.
        """
        interface = self._interfaces.get(ends.number)
        if interface is None:
            interface = self._interfaces[ends.number] = self._begin(ends)
        if message.whole:
            self.written.messages += 1
        else:
            self.written.tails += 1
        source, target = (ends.device, ends.server) if message.direction == DEVICE else (ends.server, ends.device)
        data = _upper_pdu(message, source, target)
        options = option(COMMENT, _comment(message)) + option(0)
        self._stream.write(writing.packet(interface, message.time_ns, NANOSECONDS, data, len(data), options=options))

    def _begin(self, ends: Ends) -> int:
        """Write the interface that stands for a conversation, and return its index."""
        device, server = ends.device, ends.server
        known = f" ({name_text(device.id)})" if device.id else ""
        between = f"device {device.ip} port {device.port}{known}, server {server.ip} port {server.port}"
        options = option(NAME, f"conversation {ends.number}".encode()) + option(DESCRIPTION, between.encode())
        self._stream.write(writing.interface(LINK_TYPE_UPPER_PDU, NANOSECONDS, options))
        return len(self._interfaces)


def write_plain(stream: BinaryIO, conversations: Iterable[Decrypted]) -> Written:
    """Write all messages of ``conversations`` to ``stream``, in the order of the capture, and count them."""
    writer = PlainWriter(stream)
    runs = [_with_ends(conversation) for conversation in conversations]
    for conversation, message in heapq.merge(*runs, key=lambda entry: entry[1].packet):
        writer.add(conversation, message)
    return writer.written


def _with_ends(conversation: Decrypted) -> Iterator[tuple[Ends, SparkMessage]]:
    for message in conversation.messages:
        yield conversation, message


def _upper_pdu(message: SparkMessage, source: End, target: End) -> bytes:
    source_tag, target_tag = _ADDRESS_TAGS[len(source.address)]
    tags = (
        (_DISSECTOR, _COAP if message.whole else _DATA),
        (source_tag, source.address),
        (target_tag, target.address),
        (_PORT_TYPE, struct.pack(">I", _UDP)),
        (_SOURCE_PORT, struct.pack(">I", source.port)),
        (_TARGET_PORT, struct.pack(">I", target.port)),
        (_ORIGINAL_FRAME, struct.pack(">I", message.packet & 0xFFFF_FFFF)),
        (_END_OF_TAGS, b""),
    )
    return b"".join(struct.pack(">HH", tag, len(value)) + value for tag, value in tags) + message.plaintext


def _comment(message: SparkMessage) -> bytes:
    said = " ".join(filter(None, (label(message), summary(message))))
    if len(said) > LONGEST_COMMENT:
        said = said[:LONGEST_COMMENT] + "..."
    # Wireshark 4.0 pairs a response with its request only when it comes in the acknowledgement.
    answered = "" if message.answers_packet is None else f", answers packet {message.answers_packet}"
    return f"{said} · packet {message.packet} of the capture{answered}".encode("utf-8", "replace")
