"""Decrypted bytes to named messages: finds each one's row in the table, and pairs answers with requests.

A request is known by code and the first letter of its path, as its receiver knows it (PROTOCOL 5.2). Answers
have no path: an ACK belongs to the other side's request of that id, a separate response to that of its token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from analyzer.coap import (
    ACK,
    CODE_TEXTS,
    CON,
    EMPTY,
    HEADER_SIZE,
    NON,
    PAYLOAD_MARKER,
    RST,
    TYPE_NAMES,
    CoapMessage,
    CoapTail,
    decode,
    decode_tail,
)
from analyzer.message_table import DEVICE, MISCODED_ERRORS, SERVER, SYSTEM_EVENT_PREFIX
from analyzer.messages.peers import (
    G2B_OR_G2C,
    IGNORES_REFUSALS,
    LAST_SEPARATE_PHOTON,
    LEGACY,
    generation_of,
    id_order_of,
    server_dialect_of,
)
from analyzer.messages.routes import (
    FIRST_RESPONSE,
    OTHER_SIDE,
    UNNAMED,
    Route,
    answer_route,
)
from analyzer.messages.shapes import SHAPES, Shape, shape_of
from analyzer.messages.values import Values, variable_value
from analyzer.secrecy import forgetful

MOST_OUTSTANDING: Final = 512
"""Requests of one side that wait for an answer. Tokens have one byte, so 256 can be told apart by them; a
fast update sends a few hundred chunks before the first answer comes back."""

_ABOUT_SUBJECT: Final = frozenset({"VariableValue", "FunctionReturn", "ChunkReceived"})
"""Answers whose values repeat what the request was about."""
DESCRIPTIONS: Final = frozenset({"DescribeResponse", "DescribePost"})


@dataclass(slots=True)
class Request:
    """A message that waits for an answer. ``subject`` is the name or chunk index that it is about."""

    index: int
    packet: int
    time_ns: int
    message_id: int
    token: bytes
    route: Route
    subject: Any
    confirmable: bool
    answered: bool = False
    heard: bool = False
    """Something came in answer, be it only an acknowledgement."""

    @property
    def name(self) -> str | None:
        """The request's name in the table."""
        return self.route.name or None


class SparkMessage:
    """One message, named and explained.

    ``index`` counts the conversation's messages from 0; ``packet`` and ``time_ns`` (since 1970) are those of
    the packet that completed it; ``direction`` is the sender. ``name`` is None when no row of the table fits
    or the front is lost. ``answers`` is the index of the request, ``answers_packet`` its packet and
    ``answer_ns`` the time between the two. When ``missing`` bytes at the front are lost, ``coap`` and all
    that is read from it is None, and ``tail`` says what is left.

    One is made per frame, and most are never asked for more than their name: what the bytes say is read when somebody
    wants it.
    """

    __slots__ = (
        "_coap",
        "_values",
        "answer_ns",
        "answers",
        "answers_packet",
        "direction",
        "index",
        "missing",
        "name",
        "packet",
        "plaintext",
        "shape",
        "tail",
        "time_ns",
    )

    def __init__(  # noqa: PLR0917 - only `MessageReader` makes them, by the thousand, and names cost a third more
        self,
        index: int,
        packet: int,
        time_ns: int,
        direction: str,
        name: str | None,
        shape: Shape | None,
        coap: CoapMessage | None,
        plaintext: bytes,
        values: Values | None,
        answers: int | None = None,
        answers_packet: int | None = None,
        answer_ns: int | None = None,
        missing: int = 0,
        tail: CoapTail | None = None,
    ) -> None:
        self.index = index
        self.packet = packet
        self.time_ns = time_ns
        self.direction = direction
        self.name = name
        self.shape = shape
        self._coap = coap
        self.plaintext = plaintext
        self._values = values
        self.answers = answers
        self.answers_packet = answers_packet
        self.answer_ns = answer_ns
        self.missing = missing
        self.tail = tail

    def __repr__(self) -> str:
        return f"<SparkMessage {self.index}: {self.name} from the {self.direction}, packet {self.packet}>"

    def __reduce__(self) -> tuple[Callable[..., SparkMessage], tuple[Any, ...]]:
        told = (self.index, self.packet, self.time_ns, self.direction, self.name, self.shape is not None, self.coap)
        answered = (self.answers, self.answers_packet, self.answer_ns, self.missing, self.tail)
        return _from_another_process, (*told, self.plaintext, self.values, *answered)

    @property
    def coap(self) -> CoapMessage | None:
        """The message as CoAP; None when its front is lost."""
        shape = self.shape
        return self._coap if self._coap is not None or shape is None else self.decoded(shape)

    def decoded(self, shape: Shape) -> CoapMessage:
        """Return the message as CoAP, its ``shape`` being known."""
        if self._coap is None:
            data, body = self.plaintext, shape.body
            marker = data.find(PAYLOAD_MARKER, body)
            self._coap = CoapMessage(
                1,
                shape.kind,
                shape.code,
                data[2] << 8 | data[3],
                data[HEADER_SIZE:body],
                shape.options,
                b"" if marker < 0 else data[marker + 1 :],
                shape.anomalies,
            )
        return self._coap

    @property
    def values(self) -> Values:
        """What it says, as named fields that JSON can hold."""
        values = self._values
        if values is None:
            shape = self.shape
            values = {} if shape is None or shape.read is None else shape.read(self.decoded(shape))
            self._values = values
        return values

    @values.setter
    def values(self, values: Values) -> None:
        self._values = values

    def slim(self) -> None:
        """Let go of what can be read again."""
        if self.shape is not None and self.shape.read is not None:
            self._values = None

    @property
    def whole(self) -> bool:
        """False when the front of the message is lost."""
        return self.missing == 0

    @property
    def type(self) -> str | None:
        """``CON``, ``NON``, ``ACK`` or ``RST``."""
        return None if self.coap is None else TYPE_NAMES[self.coap.type]

    @property
    def code(self) -> str | None:
        """The code as ``"2.05"``."""
        return None if self.coap is None else CODE_TEXTS[self.coap.code]

    @property
    def message_id(self) -> int | None:
        """The CoAP message id."""
        return None if self.coap is None else self.coap.message_id

    @property
    def token(self) -> bytes | None:
        """The token; empty when the message has none."""
        return None if self.coap is None else self.coap.token

    @property
    def path(self) -> str | None:
        """The Uri-Path joined with ``/``; empty when the message has none."""
        return None if self.coap is None else self.coap.path

    @property
    def query(self) -> list[bytes] | None:
        """The Uri-Query options, raw."""
        return None if self.coap is None else self.coap.queries

    @property
    def payload(self) -> bytes | None:
        """The payload; empty when the message has none."""
        return None if self.coap is None else self.coap.payload


def _from_another_process(  # noqa: PLR0917 - as `SparkMessage` takes them
    index: int,
    packet: int,
    time_ns: int,
    direction: str,
    name: str | None,
    shaped: bool,
    coap: CoapMessage | None,
    plaintext: bytes,
    *rest: Any,
) -> SparkMessage:
    """Make a message anew; shapes are each process's own."""
    shape = shape_of(direction, plaintext, coap) if shaped and coap is not None else None
    return SparkMessage(index, packet, time_ns, direction, name, shape, coap, plaintext, *rest)


@dataclass(slots=True)
class _Outstanding:
    """What one side has asked and not been answered, oldest first."""

    by_id: dict[int, Request] = field(default_factory=dict)
    by_token: dict[bytes, Request] = field(default_factory=dict)


class MessageReader:
    """Reads one conversation's messages, in the order of the capture.

    ``salt`` is the last 8 bytes of the session key, where it is known: it ties the Hello to the session.

    ``generation`` (``G1a`` to ``G2d``, or ``G2b or G2c``), ``firmware`` (the range of releases),
    ``server_dialect`` (``legacy`` or ``community``) and ``id_order`` (see `peers.id_order_of`) are None until
    a message has told them. ``forgotten`` counts requests dropped at `MOST_OUTSTANDING`, ``unheard`` the confirmable
    messages, by name ("" for those without), to which nothing came in answer yet, ``count`` all messages.
    """

    __slots__ = (
        "_hello_seen",
        "_salt",
        "_sides",
        "_variable_types",
        "count",
        "firmware",
        "forgotten",
        "generation",
        "id_order",
        "server_dialect",
        "unheard",
    )

    @forgetful
    def __init__(self, salt: bytes | None = None) -> None:
        self.generation: str | None = None
        self.firmware: str | None = None
        self.server_dialect: str | None = None
        self.id_order: str | None = None
        self.forgotten = 0
        self.unheard: Counter[str] = Counter()
        self._salt = salt
        self.count = 0
        self._hello_seen = False
        self._variable_types: dict[str, Any] = {}
        self._sides = {DEVICE: _Outstanding(), SERVER: _Outstanding()}

    def read(
        self,
        sender: str,
        plaintext: bytes,
        packet: int,
        time_ns: int,
        missing: int = 0,
    ) -> SparkMessage:
        """Read one message without its padding. Never raises on bytes.

        ``sender`` is ``device`` or ``server``; ``missing`` the number of bytes lost at the message's front,
        ``plaintext`` then being the rest of it.
        """
        index = self.count
        self.count = index + 1
        if missing:
            tail = decode_tail(plaintext, missing)
            values: Values = {"tail_text": tail.text}
            return SparkMessage(
                index, packet, time_ns, sender, None, None, None, plaintext, values, None, None, None, missing, tail
            )
        shape: Shape | None = None
        coap: CoapMessage | None = None
        size = len(plaintext)
        if size >= HEADER_SIZE:
            start = HEADER_SIZE + (plaintext[0] & 15)
            end = plaintext.find(PAYLOAD_MARKER, start)
            if end < 0:
                end = size
            # Of a message without a code there is no shape unless it ends where its options would begin.
            if start <= end and (plaintext[1] or size == start):
                shape = SHAPES[sender].get(plaintext[:2] + plaintext[start:end])
                if end == size - 1 and shape is not None:
                    coap = decode(plaintext)  # a marker with nothing behind it is not in the shape
        if shape is None:
            coap = decode(plaintext)
            if coap.anomalies and not coap.well_formed:
                if coap.type == CON:
                    self.unheard[UNNAMED.name] += 1
                anomalies: Values = {"anomalies": [str(anomaly) for anomaly in coap.anomalies]}
                return SparkMessage(index, packet, time_ns, sender, None, None, coap, plaintext, anomalies)
            shape = shape_of(sender, plaintext, coap)

        request: Request | None = None
        name, route = shape.name, shape.route
        if shape.is_request:
            message = SparkMessage(index, packet, time_ns, sender, name, shape, coap, plaintext, None)
        else:
            request = self._find_request(sender, shape, plaintext)
            if request is None:
                message = SparkMessage(index, packet, time_ns, sender, name, shape, coap, plaintext, None)
                # A bare acknowledgement can be that of a dozen messages, and it is the most frequent message of all.
                if shape.code != EMPTY:
                    route = answer_route(sender, message.decoded(shape))
                    if route is not None:
                        message.name = name = route.name
            else:
                if shape.kind != RST:
                    route = request.route.answered_with(shape.key)
                    if route is not None:
                        name = route.name
                message = SparkMessage(
                    index,
                    packet,
                    time_ns,
                    sender,
                    name,
                    shape,
                    coap,
                    plaintext,
                    None,
                    request.index,
                    request.packet,
                    time_ns - request.time_ns,
                )
            # Half of all messages are bare acknowledgements, which say nothing more.
            if shape.code != EMPTY:
                message.values = self._answer_values(message.decoded(shape), shape, route, request)
            if request is not None:
                self._settle(sender, shape, route, request)
        if shape.kind == CON or (shape.kind == NON and route is not None and route.by_id):
            self._remember(sender, message, shape, route or UNNAMED)
        if sender == SERVER:
            if self.server_dialect is None:
                self.server_dialect = server_dialect_of(message.decoded(shape), name, request is not None)
        elif name == "Hello" and not self._hello_seen:
            self._hello_seen = True
            self._learn_from_hello(message.decoded(shape), message.values)
        elif name in DESCRIPTIONS:
            self._variable_types = message.values["variables"] or self._variable_types
        return message

    def unanswered(self, sender: str) -> list[Request]:
        """Return the confirmable requests of ``sender`` that still wait, oldest first.

        That is: for an acknowledgement, or after it for the return, value or description that it promises.
        """
        side = self._sides[sender]
        waiting = {
            request.index: request
            for requests in (side.by_id, side.by_token)
            for request in requests.values()
            if request.confirmable and not request.answered
        }
        return [waiting[index] for index in sorted(waiting)]

    def forget(self) -> None:
        """Let go of the requests that wait: the conversation has ended, and only what was learnt stays."""
        self._sides, self._variable_types = _NO_SIDES, _NO_TYPES

    def _find_request(self, sender: str, shape: Shape, plaintext: bytes) -> Request | None:
        asked = self._sides[OTHER_SIDE[sender]]
        if shape.kind < ACK:
            return asked.by_token.get(plaintext[HEADER_SIZE : shape.body])
        request = asked.by_id.get(plaintext[2] << 8 | plaintext[3])
        if shape.body > HEADER_SIZE and shape.code >= FIRST_RESPONSE:
            token = plaintext[HEADER_SIZE : shape.body]
            if request is None or request.token != token:
                # The second of two Describe answers has an id from nowhere, perhaps even that of another request.
                return asked.by_token.get(token, request)
        return request

    def _settle(self, sender: str, shape: Shape, route: Route | None, request: Request) -> None:
        """Stop waiting for what has come, and no earlier: a refused call may still return (5.4.10)."""
        asked = self._sides[OTHER_SIDE[sender]]
        if not request.heard:
            request.heard = True
            if request.confirmable:
                self.unheard[request.route.name] -= 1
        if shape.kind >= ACK and asked.by_id.get(request.message_id) is request:
            del asked.by_id[request.message_id]
        if not request.route.by_token:
            request.answered = True
        elif route is not None and route.has_content:
            request.answered = True
            if not route.repeats and asked.by_token.get(request.token) is request:
                del asked.by_token[request.token]
        elif shape.is_error:
            request.answered = True

    def _remember(self, sender: str, message: SparkMessage, shape: Shape, route: Route) -> None:
        data = message.plaintext
        subject = shape.subject
        if not shape.is_request:
            subject = message.values.get("name", message.values.get("index"))
        confirmable = shape.kind == CON
        if confirmable:
            self.unheard[route.name] += 1
        request = Request(
            message.index,
            message.packet,
            message.time_ns,
            data[2] << 8 | data[3],
            data[HEADER_SIZE : shape.body],
            route,
            subject,
            confirmable,
        )
        side = self._sides[sender]
        self.forgotten += _put(side.by_id, request.message_id, request)
        if route.by_token:
            _put(side.by_token, request.token, request)

    def _answer_values(self, coap: CoapMessage, shape: Shape, route: Route | None, request: Request | None) -> Values:
        code, failed = shape.code, shape.is_error
        values: Values = {}
        if route is not None:
            if route.name in _ABOUT_SUBJECT:
                values["index" if route.name == "ChunkReceived" else "name"] = request and request.subject
            if route.name == "VariableValue" and not failed:
                values |= self._variable(coap, values["name"])
            elif route.name == "ChunkReceived":
                values["accepted"] = not failed
            elif route.read is not None:
                values |= route.read(coap)
            if route.repeats:
                values["repeat"] = None if request is None else request.answered
        if failed:
            values["error"] = MISCODED_ERRORS.get(CODE_TEXTS[code], CODE_TEXTS[code])
            if route is not None and route.name == "EventAck" and request is not None:
                values |= self._refused_event(request)
        return values

    def _variable(self, coap: CoapMessage, name: str | None) -> Values:
        known = self._variable_types
        declared = known.get(name) if name is not None else None
        values = variable_value(coap.payload, declared if isinstance(declared, str) else None)
        # Reading a name that the device does not offer gives whatever 5.4.11 says, so that is worth knowing.
        values["in_describe"] = name in known if known and name is not None else None
        if coap.type == NON and self.generation == G2B_OR_G2C:
            self.generation, self.firmware = LAST_SEPARATE_PHOTON
        return values

    def _refused_event(self, request: Request) -> Values:
        """Tell whether this refusal is the legacy server's habit (9.7), and whether this device minds it."""
        system = str(request.subject).lower().startswith(SYSTEM_EVENT_PREFIX)
        if self.server_dialect != LEGACY or system:
            return {"habit": False}
        return {"habit": True, "harmless": True if self.generation in IGNORES_REFUSALS else None}

    def _learn_from_hello(self, coap: CoapMessage, values: Values) -> None:
        if self._salt is not None:
            self.id_order = id_order_of(coap.message_id, self._salt)
        self.generation, self.firmware = generation_of(len(coap.payload), values, self.id_order)


_NO_SIDES: Final[dict[str, _Outstanding]] = {}
_NO_TYPES: Final[dict[str, Any]] = {}


def _put(requests: dict[Any, Request], key: object, request: Request) -> int:
    """Add the newest request and return how many were dropped for it: the oldest one, or none."""
    dropped = 0
    if key in requests:
        del requests[key]  # so that the order stays that of arrival
    elif len(requests) >= MOST_OUTSTANDING:
        del requests[next(iter(requests))]
        dropped = 1
    requests[key] = request
    return dropped
