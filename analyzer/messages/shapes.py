"""What a message shows before anybody looks at its numbers: type, code and options, of which a capture has few.

Everything that follows from these alone (the row of the table, the name in the path, how its values are read, how
the report writes it) is found out once and remembered, by the bytes themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from analyzer.coap import (
    ACK,
    EMPTY,
    HEADER_SIZE,
    MAX_AGE,
    PAYLOAD_MARKER,
    RST,
    URI_QUERY,
    Anomaly,
    CoapMessage,
    Option,
)
from analyzer.message_table import DEVICE, SERVER
from analyzer.messages.routes import FIRST_RESPONSE, ROUTES, Route, generic_name, is_error, request_route
from analyzer.messages.values import Values, name_in_path

REMEMBERED_SHAPES: Final = 2_048
"""How many are remembered of each side: the names in use in a capture are few. The memo is emptied when full; together
with the next two bounds it stays below 2 MB."""
LONGEST_REMEMBERED_RUN: Final = 64
"""Bytes of the options of a shape that is remembered."""
LONGEST_REMEMBERED_QUERY: Final = 1
"""Bytes of a query in such a shape. A longer one is an argument or a CRC, which seldom comes again."""
LONE_TOKEN: Final = (Anomaly.EMPTY_ACK_WITH_TOKEN,)
NAMING: Final = frozenset({"Event", "FunctionCall", "VariableRequest"})
"""Requests about something that their path names."""


class Shape:
    """Type, code and options of a message of one sender, and all that follows from them.

    ``is_request``: it is no answer. ``route`` is the row of a request or a Reset, None for other answers: theirs is
    that of the request. ``name`` is that of a request, and of an answer whose row is not known. ``subject`` is the name
    or chunk index that a request is about, None without one; ``body`` the offset of the options.
    """

    __slots__ = (
        "anomalies",
        "body",
        "code",
        "is_error",
        "is_request",
        "is_singular",
        "key",
        "kind",
        "max_age_size",
        "name",
        "options",
        "read",
        "route",
        "subject",
        "written",
    )

    def __init__(self, sender: str, coap: CoapMessage) -> None:
        self.kind, self.code = coap.type, coap.code
        self.key = self.kind << 8 | self.code
        self.options: tuple[Option, ...] = coap.options
        self.anomalies = LONE_TOKEN if Anomaly.EMPTY_ACK_WITH_TOKEN in coap.anomalies else ()
        self.body = HEADER_SIZE + len(coap.token)
        self.is_error = is_error(self.kind, self.code)
        self.is_request = self.kind < ACK and self.code < FIRST_RESPONSE
        self.route: Route | None = None
        self.read: Callable[[CoapMessage], Values] | None = None
        self.subject: str | int | None = None
        self.name: str | None = None
        queries: list[bytes] = []
        self.max_age_size = 0
        for number, value in self.options:
            if number == URI_QUERY:
                queries.append(value)
            elif number == MAX_AGE and not self.max_age_size:
                self.max_age_size = len(value)
        self.is_singular = any(len(query) > LONGEST_REMEMBERED_QUERY for query in queries)
        if self.is_request:
            route = self.route = request_route(sender, coap)
            if route is not None:
                self.read, self.name = route.read, route.name
                if route.name in NAMING:
                    self.subject = name_in_path(coap)
                elif route.name == "Chunk" and len(queries) > 1:
                    self.subject = int.from_bytes(queries[1], "big")
        elif self.kind == RST and self.code == EMPTY:
            self.route = ROUTES[sender, "Reset"]
            self.name = self.route.name
        else:
            self.name = generic_name(self.kind, self.code)
        self.written: tuple[str, str, str, str] | None = None
        """What never changes in the line that a report writes about such a message; the report puts it here."""


SHAPES: Final[dict[str, dict[bytes, Shape]]] = {DEVICE: {}, SERVER: {}}
"""By sender, and by type, code, length of the token and options as they stand in the message."""


def shape_of(sender: str, data: bytes, coap: CoapMessage) -> Shape:
    """Return the shape of a well-formed message, remembered if the bytes up to its first FF are all it follows from."""
    shape = Shape(sender, coap)
    end, size = data.find(PAYLOAD_MARKER, shape.body), len(data)
    run = data[shape.body : size if end < 0 else end]
    # Elsewhere the first FF lies inside an option, and the same bytes may be something else in another message.
    marked = bool(coap.payload) or Anomaly.EMPTY_PAYLOAD in coap.anomalies
    ends_there = (marked and len(coap.payload) == size - end - 1) if end >= 0 else True
    if ends_there and len(run) <= LONGEST_REMEMBERED_RUN and not shape.is_singular:
        shapes = SHAPES[sender]
        if len(shapes) >= REMEMBERED_SHAPES:
            shapes.clear()
        shapes[data[:2] + run] = shape
    return shape
