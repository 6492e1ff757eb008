"""The protocol's messages as scapy layers, for people who work in a scapy shell.

    >>> from analyzer.scapy_layers import *
    >>> SparkMessage(type="CON", code="0.01", message_id=7, token=b"1", options=[("Uri-Path", b"t")])
    >>> bind()                            # from now on scapy shows TCP port 5683 with these layers
    >>> for heard in spark_session(rdpcap("ota.pcap"), keys=KeyRing.load("keys")): heard.layer.show()

Importing this module changes nothing in what scapy decodes until `bind` is called, and `unbind` takes it back.
A layer sees one segment; what TCP cut, lost or sent twice is put together by `spark_session` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, Final, NamedTuple

from scapy.config import conf
from scapy.fields import (
    BitEnumField,
    BitField,
    BitFieldLenField,
    ByteEnumField,
    Field,
    FieldLenField,
    PacketListField,
    ShortField,
    StrFixedLenField,
    StrLenField,
)
from scapy.layers.inet import TCP
from scapy.packet import Packet, Raw, bind_bottom_up, split_bottom_up
from scapy.utils import EDecimal

from analyzer.capture import Packet as CapturedPacket
from analyzer.catalogue import (
    IDENTITY_SIZE,
    LENGTH_PREFIX,
    NONCE_SIZE,
    SEALED_KEY_SIZE,
    SESSION_SIZE,
    SIGNATURE_SIZE,
    SMALLEST_FRAME_ON_WIRE,
    SPARK_PORT,
)
from analyzer.coap import (
    CODE_TEXTS,
    CON,
    GET,
    HEADER_SIZE,
    LONGEST_TOKEN,
    OPTION_NAMES,
    OPTION_NUMBERS,
    PAYLOAD_MARKER,
    TYPE_NAMES,
    URI_PATH,
    Anomaly,
    Option,
    decode,
    encode,
)
from analyzer.conversation import Conversation
from analyzer.frames import Frame, chain
from analyzer.keys import KeyRing
from analyzer.messages import quote
from analyzer.pipeline import Analysis

__all__ = [
    "Heard",
    "KeyRing",
    "SparkFrame",
    "SparkFrames",
    "SparkIdentity",
    "SparkMessage",
    "SparkNonce",
    "SparkSegment",
    "SparkSessionOffer",
    "bind",
    "spark_session",
    "unbind",
]

MOST_FRAMES: Final = 0x10000 // SMALLEST_FRAME_ON_WIRE
"""Frames that fit into the largest segment."""

_NANOSECONDS: Final = 1_000_000_000
_ANY_HEADER: Final = encode(CON, GET, 0)
"""Put before options so that `analyzer.coap` reads them: there is one reader of options in this project."""


class SparkNonce(Packet):
    """Message 1: 40 random bytes of the server (PROTOCOL 2.1)."""

    name = "Spark nonce"
    fields_desc = [StrFixedLenField("nonce", bytes(NONCE_SIZE), NONCE_SIZE)]  # noqa: RUF012 - as scapy has it


class SparkIdentity(Packet):
    """Message 2: nonce, device id and perhaps a public key, sealed for the server (PROTOCOL 2.2)."""

    name = "Spark identity"
    fields_desc = [StrFixedLenField("sealed", bytes(IDENTITY_SIZE), IDENTITY_SIZE)]  # noqa: RUF012


class SparkSessionOffer(Packet):
    """Message 3: the session key, sealed for the device, and the server's signature (PROTOCOL 2.3)."""

    name = "Spark session offer"
    fields_desc = [  # noqa: RUF012
        StrFixedLenField("sealed_key", bytes(SEALED_KEY_SIZE), SEALED_KEY_SIZE),
        StrFixedLenField("signature", bytes(SIGNATURE_SIZE), SIGNATURE_SIZE),
    ]


class SparkFrame(Packet):
    """One frame after the handshake: a length, then that many bytes of ciphertext (PROTOCOL 4.3)."""

    name = "Spark frame"
    fields_desc = [  # noqa: RUF012
        FieldLenField("length", None, fmt="H", length_of="ciphertext"),
        StrLenField("ciphertext", b"", length_from=lambda frame: frame.length),
    ]

    @classmethod
    def dispatch_hook(cls, _pkt: bytes | None = None, *_: Any, **__: Any) -> type[Packet]:
        """Leave what is too short for a length as bytes."""
        return Raw if _pkt and len(_pkt) < LENGTH_PREFIX else cls

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        """What follows is not inside of this frame."""
        return b"", s


class SparkFrames(Packet):
    """All frames of a segment."""

    name = "Spark frames"
    fields_desc = [PacketListField("frames", [], SparkFrame, max_count=MOST_FRAMES)]  # noqa: RUF012


class SparkSegment(Packet):
    """Whatever part of the protocol a TCP segment holds: it turns into the layer that fits, or into `Raw`.

    Only whole messages are recognised. The sizes of the handshake's messages tell them apart, and a chain of
    length fields that ends where the segment does is not met by chance.
    """

    name = "Spark segment"
    fields_desc = []  # noqa: RUF012

    @classmethod
    def dispatch_hook(cls, _pkt: bytes | None = None, *_: Any, **__: Any) -> type[Packet]:
        """Choose the layer for these bytes."""
        if not _pkt:
            return cls
        if chain(_pkt)[1]:
            return SparkFrames
        return _BY_SIZE.get(len(_pkt), Raw)


_BY_SIZE: Final[dict[int, type[Packet]]] = {
    NONCE_SIZE: SparkNonce,
    IDENTITY_SIZE: SparkIdentity,
    SESSION_SIZE: SparkSessionOffer,
}


# -- the message inside a frame -----------------------------------------------------------------------------


class _OptionsField(Field[list[Option], bytes]):
    """CoAP options: (number or name, value) pairs, written in the order of their numbers."""

    islist = 1

    def any2i(self, pkt: Packet | None, x: Any) -> list[Option]:
        return [_option(number, value) for number, value in x or ()]

    def i2repr(self, pkt: Packet | None, x: list[Option]) -> str:
        return "[" + ", ".join(f"{OPTION_NAMES.get(number, number)}: {value!r}" for number, value in x or ()) + "]"

    def addfield(self, pkt: Packet, s: bytes, val: list[Option] | None) -> bytes:
        return s + encode(CON, GET, 0, options=val or ())[HEADER_SIZE:]

    def getfield(self, pkt: Packet, s: bytes) -> tuple[bytes, list[Option]]:
        read = decode(_ANY_HEADER + s) if _has_options(pkt) else None
        if read is None or not read.well_formed:
            return s, []  # nothing tells where the payload begins: all of it stays bytes
        rest = len(read.payload) + 1 if read.payload or Anomaly.EMPTY_PAYLOAD in read.anomalies else 0
        return s[len(s) - rest :], list(read.options)


class _ContentField(Field["bytes | None", bytes]):
    """What follows the payload marker; None when there is no marker, empty when nothing follows it."""

    def any2i(self, pkt: Packet | None, x: Any) -> bytes | None:
        return x.encode() if isinstance(x, str) else x

    def i2repr(self, pkt: Packet | None, x: bytes | None) -> str:
        return repr(x)

    def addfield(self, pkt: Packet, s: bytes, val: bytes | None) -> bytes:
        return s if val is None else s + bytes((PAYLOAD_MARKER,)) + val

    def getfield(self, pkt: Packet, s: bytes) -> tuple[bytes, bytes | None]:
        return (b"", s[1:]) if _has_options(pkt) and s[:1] == bytes((PAYLOAD_MARKER,)) else (s, None)


class SparkMessage(Packet):
    """A decrypted message: CoAP (PROTOCOL 5.1). Bytes that cannot be read stay behind it as `Raw`.

    ``code`` takes a number or a text as ``"2.05"``; ``options`` pairs of a number or a registered name and a
    value; ``content`` is the payload (scapy's own ``payload`` is the next layer), None without a marker.
    """

    name = "Spark message"
    fields_desc = [  # noqa: RUF012
        BitField("version", 1, 2),
        BitEnumField("type", 0, 2, dict(enumerate(TYPE_NAMES))),
        BitFieldLenField("token_length", None, 4, length_of="token"),
        ByteEnumField("code", 0, dict(enumerate(CODE_TEXTS))),
        ShortField("message_id", 0),
        StrLenField("token", b"", length_from=lambda message: message.token_length),
        _OptionsField("options", []),
        _ContentField("content", None),
    ]

    @classmethod
    def dispatch_hook(cls, _pkt: bytes | None = None, *_: Any, **__: Any) -> type[Packet]:
        """Leave what is too short for a header as bytes."""
        return Raw if _pkt and len(_pkt) < HEADER_SIZE else cls

    def mysummary(self) -> str:
        """Type, code and path in one line, with nothing in it that acts on a terminal."""
        path = b"/".join(value for number, value in self.options if number == URI_PATH).decode("utf-8", "replace")
        return self.sprintf("SparkMessage %SparkMessage.type% %SparkMessage.code%") + (
            f" {quote(path)}" if path else ""
        )


def _option(number: int | str, value: bytes | str) -> Option:
    plain = OPTION_NUMBERS[number] if isinstance(number, str) else number
    return plain, value.encode() if isinstance(value, str) else value


def _has_options(message: Packet) -> bool:
    """Tell whether it is known where the options begin: as in `analyzer.coap`."""
    length = message.token_length
    return bool(message.version == 1 and length <= LONGEST_TOKEN and len(message.token) == length)


# -- binding ------------------------------------------------------------------------------------------------


def bind(port: int = SPARK_PORT) -> None:
    """Let scapy show TCP segments from and to ``port`` with these layers, until `unbind`."""
    unbind(port)
    for end in ("sport", "dport"):
        bind_bottom_up(TCP, SparkSegment, {end: port})


def unbind(port: int = SPARK_PORT) -> None:
    """Let scapy decode ``port`` as before `bind`; without one before, nothing changes."""
    for end in ("sport", "dport"):
        split_bottom_up(TCP, SparkSegment, {end: port})


# -- whole sessions -----------------------------------------------------------------------------------------


class Heard(NamedTuple):
    """A layer out of a session: in which ``conversation`` (counted from 1), who sent it (``device`` or
    ``server``), with which of the packets it was complete (counted from 1), and the layer; its ``time`` is set.
    """

    conversation: int
    sender: str
    packet: int
    layer: Packet


def spark_session(packets: Iterable[Packet], *, keys: KeyRing | None = None, port: int = SPARK_PORT) -> Iterator[Heard]:
    """Yield the protocol's messages in ``packets``, in their order, put together from the TCP streams.

    Without keys: `SparkNonce`, `SparkIdentity`, `SparkSessionOffer` and `SparkFrame`. Conversations that
    ``keys`` open have `SparkMessage` in place of the frames; one whose front is lost is `Raw`. What the
    capture does not have whole is left out. Packets of a link layer that scapy has no number for count, and
    are not read.
    """
    frames: dict[int, list[Frame]] = {}

    def begun(conversation: Conversation) -> None:
        seen = frames.setdefault(conversation.number, [])
        look_at = conversation.on_frame

        def keep(conversation: Conversation, frame: Frame) -> str | None:
            if frame.ciphertext is not None:
                seen.append(frame)
            return look_at(conversation, frame) if look_at is not None else None

        conversation.on_frame = keep

    analysis = Analysis(keys=keys, ports=(port,), begun=begun)
    for number, packet in enumerate(packets, 1):
        link_type = conf.l2types.layer2num.get(type(packet))
        if link_type is not None:
            data = bytes(packet)
            time_ns = int(Decimal(str(packet.time)) * _NANOSECONDS)
            analysis.take(CapturedPacket(number, time_ns, link_type, data, packet.wirelen or len(data)))
    heard: list[tuple[int, int, Heard]] = []
    for conversation in analysis.finish().conversations:
        reached: dict[str, int] = {}
        for found in _layers(conversation, frames[conversation.number]):
            # What TCP held back for a hole is read with what filled it: nothing overtakes within a direction.
            reached[found.sender] = max(reached.get(found.sender, 0), found.packet)
            heard.append((reached[found.sender], len(heard), found))
    heard.sort(key=lambda entry: entry[:2])
    for _, _, found in heard:
        yield found


def _layers(conversation: Conversation, frames: Iterable[Frame]) -> Iterator[Heard]:
    def heard(sender: str, packet: int, time_ns: int, layer: Packet) -> Heard:
        layer.time = EDecimal(time_ns) / _NANOSECONDS
        return Heard(conversation.number, str(sender), packet, layer)

    for kind, layer in (("nonce", SparkNonce), ("identity", SparkIdentity), ("session", SparkSessionOffer)):
        part = conversation.part(kind)
        if part is not None and part.data is not None:
            yield heard(part.sender, part.packet, part.time_ns, layer(part.data))
    if conversation.messages:
        for message in conversation.messages:
            # No bytes at all would be a request for scapy's defaults.
            readable = message.whole and message.plaintext
            inside = SparkMessage(message.plaintext) if readable else Raw(message.plaintext)
            yield heard(message.direction, message.packet, message.time_ns, inside)
        return
    for frame in frames:
        if frame.ciphertext is not None:
            yield heard(frame.sender, frame.packet, frame.time_ns, SparkFrame(ciphertext=frame.ciphertext))
