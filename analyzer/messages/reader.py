"""Decrypted bytes to named messages: finds each one's row in the table, and pairs answers with requests.

A request is known by code and the first letter of its path, as its receiver knows it (PROTOCOL 5.2). Answers
have no path: an ACK belongs to the other side's request of that id, a separate response to that of its token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from analyzer.coap import ACK, CODE_TEXTS, CON, EMPTY, NON, TYPE_NAMES, CoapMessage, CoapTail, decode, decode_tail
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
    generic_name,
    is_error,
    request_route,
)
from analyzer.messages.values import Values, variable_value

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

    @property
    def name(self) -> str | None:
        """The request's name in the table."""
        return self.route.name or None


@dataclass(slots=True)
class SparkMessage:
    """One message, named and explained. Not frozen: one is made per frame, and freezing is slow.

    ``index`` counts the conversation's messages from 0; ``packet`` and ``time_ns`` (since 1970) are those of
    the packet that completed it; ``direction`` is the sender. ``name`` is None when no row of the table fits
    or the front is lost. ``answers`` is the index of the request, ``answers_packet`` its packet and
    ``answer_ns`` the time between the two. When ``missing`` bytes at the front are lost, ``coap`` and all
    that is read from it is None, and ``tail`` says what is left.
    """

    index: int
    packet: int
    time_ns: int
    direction: str
    name: str | None
    coap: CoapMessage | None
    plaintext: bytes
    values: Values
    answers: int | None = None
    answers_packet: int | None = None
    answer_ns: int | None = None
    missing: int = 0
    tail: CoapTail | None = None

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
    a message has told them. ``forgotten`` counts requests dropped at `MOST_OUTSTANDING`.
    """

    def __init__(self, salt: bytes | None = None) -> None:
        self.generation: str | None = None
        self.firmware: str | None = None
        self.server_dialect: str | None = None
        self.id_order: str | None = None
        self.forgotten = 0
        self._salt = salt
        self._count = 0
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
        index = self._count
        self._count = index + 1
        if missing:
            tail = decode_tail(plaintext, missing)
            values: Values = {"tail_text": tail.text}
            return SparkMessage(
                index, packet, time_ns, sender, None, None, plaintext, values, missing=missing, tail=tail
            )
        coap = decode(plaintext)
        if coap.anomalies and not coap.well_formed:
            anomalies = {"anomalies": [str(anomaly) for anomaly in coap.anomalies]}
            return SparkMessage(index, packet, time_ns, sender, None, coap, plaintext, anomalies)

        kind, code = coap.type, coap.code
        request: Request | None = None
        route: Route | None
        if kind < ACK and code < FIRST_RESPONSE:
            route = request_route(sender, coap)
            name = None if route is None else route.name
            values = route.read(coap) if route is not None and route.read is not None else {}
        else:
            request = self._find_request(sender, coap)
            route = answer_route(sender, coap, None if request is None else request.route)
            name = generic_name(coap) if route is None else route.name
            # Half of all messages are bare acknowledgements, which say nothing more.
            values = {} if code == EMPTY else self._answer_values(coap, route, request)

        if request is None:
            message = SparkMessage(index, packet, time_ns, sender, name, coap, plaintext, values)
        else:
            message = SparkMessage(
                index,
                packet,
                time_ns,
                sender,
                name,
                coap,
                plaintext,
                values,
                request.index,
                request.packet,
                time_ns - request.time_ns,
            )
            self._settle(sender, coap, route, request)
        if kind == CON or (kind == NON and route is not None and route.by_id):
            self._remember(sender, message, coap, route or UNNAMED)
        if sender == SERVER:
            if self.server_dialect is None:
                self.server_dialect = server_dialect_of(coap, name, request is not None)
        elif name == "Hello" and not self._hello_seen:
            self._hello_seen = True
            self._learn_from_hello(coap, values)
        elif name in DESCRIPTIONS:
            self._variable_types = values["variables"] or self._variable_types
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

    def _find_request(self, sender: str, coap: CoapMessage) -> Request | None:
        asked = self._sides[OTHER_SIDE[sender]]
        if coap.type < ACK:
            return asked.by_token.get(coap.token)
        request = asked.by_id.get(coap.message_id)
        if coap.token and coap.code >= FIRST_RESPONSE and (request is None or request.token != coap.token):
            # The second of two Describe answers has an id from nowhere, perhaps even that of another request.
            return asked.by_token.get(coap.token, request)
        return request

    def _settle(self, sender: str, coap: CoapMessage, route: Route | None, request: Request) -> None:
        """Stop waiting for what has come, and no earlier: a refused call may still return (5.4.10)."""
        asked = self._sides[OTHER_SIDE[sender]]
        if coap.type >= ACK and asked.by_id.get(request.message_id) is request:
            del asked.by_id[request.message_id]
        if not request.route.by_token:
            request.answered = True
        elif route is not None and route.has_content:
            request.answered = True
            if not route.repeats and asked.by_token.get(request.token) is request:
                del asked.by_token[request.token]
        elif is_error(coap):
            request.answered = True

    def _remember(self, sender: str, message: SparkMessage, coap: CoapMessage, route: Route) -> None:
        values = message.values
        request = Request(
            message.index,
            message.packet,
            message.time_ns,
            coap.message_id,
            coap.token,
            route,
            values.get("name", values.get("index")),
            coap.type == CON,
        )
        side = self._sides[sender]
        self.forgotten += _put(side.by_id, coap.message_id, request)
        if route.by_token:
            _put(side.by_token, coap.token, request)

    def _answer_values(self, coap: CoapMessage, route: Route | None, request: Request | None) -> Values:
        code = coap.code
        failed = is_error(coap)
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
