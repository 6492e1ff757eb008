"""The table of messages made ready for looking up the row of a message."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from analyzer.coap import ACK, CODES, CON, EMPTY, RST, TYPE_NAMES, URI_PATH, CoapMessage
from analyzer.message_table import (
    ACK_OF_UNKNOWN,
    DEVICE,
    ERROR_ACK_OF_UNKNOWN,
    ERROR_RESPONSE_TO_UNKNOWN,
    MESSAGES,
    METRICS_PREFIX,
    MISCODED_ERRORS,
    RESPONSE_TO_UNKNOWN,
    SERVER,
    MessageSpec,
)
from analyzer.messages.describe import read_description
from analyzer.messages.values import READERS, Values

OTHER_SIDE: Final = {DEVICE: SERVER, SERVER: DEVICE}

# Codes by class: 2.xx success, 4.xx and 5.xx errors.
FIRST_RESPONSE, BEHIND_SUCCESS = CODES["2.00"], CODES["3.00"]
FIRST_ERROR, BEHIND_ERRORS = CODES["4.00"], CODES["6.00"]
CHANGED: Final = CODES["2.04"]
MISCODED: Final = frozenset(CODES[text] for text in MISCODED_ERRORS)


class Route:
    """A row of the table as one sender uses it, with everything that is looked up per message."""

    __slots__ = (
        "_found",
        "ack",
        "answers",
        "by_id",
        "by_token",
        "has_content",
        "name",
        "read",
        "repeats",
        "sender",
        "separate",
        "spec",
    )

    def __init__(self, spec: MessageSpec, sender: str) -> None:
        self.spec = spec
        self.sender = sender
        self.name = spec.name
        self.repeats = spec.repeats
        self.read: Callable[[CoapMessage], Values] | None = READERS.get((sender, spec.name))
        self.answers: dict[int, Route] = {}
        self.ack: Route | None = None
        self.separate: Route | None = None
        self.has_content = spec.types != ("ACK",)
        self.by_id = False
        self.by_token = False
        self._found: dict[int, Route | None] = {}

    def __reduce__(self) -> tuple[Callable[[str, str], Route], tuple[str, str]]:
        return _route_named, (self.sender, self.name)  # another process has its own, linked like these

    def link(self, answers: Iterable[Route]) -> None:
        """Learn which rows answer this one, and by what an answer will be recognised."""
        for route in answers:
            for key in route.looks():
                self.answers.setdefault(key, route)
            if "ACK" in route.spec.types:
                self.ack = self.ack or route
            if route.has_content:
                self.separate = self.separate or route
        self.by_id = self.ack is not None
        self.by_token = self.separate is not None

    def answered_with(self, looks: int) -> Route | None:
        """Return the row of an answer to this one, by its type and code in one number; None when there is none."""
        if looks not in self._found:
            kind, code = looks >> 8, looks & 0xFF
            route = self.answers.get(looks)
            if route is None and kind == ACK:
                route = self.ack
            elif route is None and is_error(kind, code):
                route = self.separate
            self._found[looks] = route
        return self._found[looks]

    def looks(self) -> list[int]:
        """Return type and code in one number, for each pair that the row has."""
        return [TYPE_NAMES.index(kind) << 8 | CODES[code] for kind in self.spec.types for code in self.spec.codes]

    def fits(self, payload_size: int) -> bool:
        """Tell whether the row's payload can have this many bytes."""
        least, most = self.spec.payload_sizes
        return least <= payload_size and (most is None or payload_size <= most)


ROUTES: Final = {(sender, spec.name): Route(spec, sender) for spec in MESSAGES for sender in spec.senders}
UNNAMED: Final = Route(MessageSpec("", (), (), ()), "")
"""Stands in for a confirmable message that is in no row, so that its acknowledgement still finds it."""


def _route_named(sender: str, name: str) -> Route:
    return ROUTES[sender, name] if name else UNNAMED


_BY_PATH: Final[dict[str, dict[int, Route]]] = {DEVICE: {}, SERVER: {}}
"""Sender, then code and path letter in one number, to the row of a request."""
_ANSWERS: Final[dict[str, dict[int, list[Route]]]] = {DEVICE: {}, SERVER: {}}
"""Sender, then type and code in one number, to every row that is an answer of such looks."""


def _fill_tables() -> None:
    for (sender, _), route in ROUTES.items():
        answers = [ROUTES[OTHER_SIDE[sender], name] for name in route.spec.answered_by]
        route.link(answers)
        for code in route.spec.codes:
            for letter in route.spec.path:
                _BY_PATH[sender][CODES[code] << 8 | ord(letter)] = route
        for answer in answers:
            for key in answer.looks():
                fitting = _ANSWERS[OTHER_SIDE[sender]].setdefault(key, [])
                if answer not in fitting:
                    fitting.append(answer)


_fill_tables()


def is_error(kind: int, code: int) -> bool:
    """Tell whether an answer refuses: by its code, or by one that says so by mistake (9.3, 9.5)."""
    return FIRST_ERROR <= code < BEHIND_ERRORS or (code in MISCODED and kind == ACK)


def request_route(sender: str, coap: CoapMessage) -> Route | None:
    """Return the row of a request (or any message that is not an answer), None when there is none."""
    if coap.options:
        number, letter = coap.options[0]
        if number == URI_PATH and len(letter) == 1:
            return _BY_PATH[sender].get(coap.code << 8 | letter[0])
    elif coap.code == EMPTY and coap.type == CON:
        return ROUTES[sender, "Ping"]
    return None


def answer_route(sender: str, coap: CoapMessage) -> Route | None:
    """Return the row of an answer whose request is not known, by its looks alone. It has a code or is a Reset."""
    if coap.type == RST:
        return None
    key = coap.type << 8 | coap.code
    size = len(coap.payload)
    fitting = [route for route in _ANSWERS[sender].get(key, ()) if route.fits(size)]
    if len(fitting) > 1 and size:
        # Two rows are 2.05 with any payload, a description and a variable; only the first is always JSON.
        described = coap.payload.startswith(METRICS_PREFIX) or _describes(coap.payload)
        if described or not coap.payload.startswith(b"{"):
            wanted = "DescribeResponse" if described else "VariableValue"
            fitting = [route for route in fitting if route.name == wanted]
    return fitting[0] if len(fitting) == 1 else None


def _describes(payload: bytes) -> bool:
    told = read_description(payload)
    return told["functions"] is not None and told["variables"] is not None


def generic_name(kind: int, code: int) -> str | None:
    """Name an answer of which only the kind can be told; None for codes that the protocol does not have."""
    if kind == RST:
        return None
    if is_error(kind, code):
        return (ERROR_ACK_OF_UNKNOWN if kind == ACK else ERROR_RESPONSE_TO_UNKNOWN).name
    if kind == ACK and code in (EMPTY, CHANGED):
        return ACK_OF_UNKNOWN.name
    return RESPONSE_TO_UNKNOWN.name if FIRST_RESPONSE <= code < BEHIND_SUCCESS else None
