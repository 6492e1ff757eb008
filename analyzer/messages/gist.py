"""What the rules ask of every conversation's messages, noted while they pass, so that few need to be read twice.

Counts, the few messages that tell something by themselves, and whether there is anything to look into. Where more is
wanted the messages are there (`MessageLog`).
"""

from __future__ import annotations

from typing import Final

from analyzer.coap import ACK, HEADER_SIZE
from analyzer.message_table import DEVICE, SERVER
from analyzer.messages.reader import SparkMessage
from analyzer.messages.shapes import Shape
from analyzer.spread import Spread

IDS: Final = 0x10000
"""Message numbers, one after the other, begin again here."""
MOST_EVENT_NAMES: Final = 1_024
"""Names of events that are counted; a device has a few dozen. With more of them the count is left to who wants it."""
MOST_MANNERS: Final = 64
"""Messages kept for how they are written; there are about a dozen manners."""
HABITS: Final = frozenset({"DescribeResponse", "VariableValue", "UpdateReady", "Goodbye"})
"""Messages of a device that the generations of firmware write differently."""
TELLING_TOKENS: Final = frozenset({b"", b"\0", b"\1"})
TELLING_NAMES: Final = frozenset({"Hello", "Event", "ChunkMissedAck"})
"""Tokens and names by which the two open servers can be told apart; all others are alike in that."""
NOTHING_DUE: Final = -1


class Gist:
    """What the messages of one conversation come to.

    ``counts`` are by name, of each sender. ``pings_answered`` counts the device's, ``ping_times`` are those until
    the answer, in ns. ``event_names`` counts the events by sender and name, in the order in which they first came;
    None when there are more than `MOST_EVENT_NAMES` names. ``hello`` is the device's first, ``last`` the server's
    latest message, ``latest`` the latest time of each sender (0 without any). ``jump`` is the first message of the
    device that has another number than the next one, and the number due. ``manners`` are messages that tell how a
    peer writes, the first of each manner, oldest first; there may be others than these when ``more_manners``.
    """

    __slots__ = (
        "_due",
        "_seen",
        "counts",
        "event_names",
        "hello",
        "jump",
        "last",
        "latest",
        "manners",
        "more_manners",
        "ping_times",
        "pings_answered",
    )

    def __init__(self) -> None:
        self.counts: dict[str, dict[str | None, int]] = {DEVICE: {}, SERVER: {}}
        self.pings_answered = 0
        self.ping_times = Spread()
        self.event_names: dict[tuple[str, str], int] | None = {}
        self.hello: SparkMessage | None = None
        self.last: SparkMessage | None = None
        self.latest: dict[str, int] = {DEVICE: 0, SERVER: 0}
        self.jump: tuple[SparkMessage, int] | None = None
        self.manners: list[SparkMessage] = []
        self.more_manners = False
        self._due: int | None = None  # the device's next number; NOTHING_DUE when there is no more to be told
        self._seen: set[tuple[object, ...]] | None = None  # manners; None of them yet

    def count(self, *names: str) -> int:
        """Return how many messages of either side have one of these names."""
        return sum(counted.get(name, 0) for counted in self.counts.values() for name in names)

    def take(self, message: SparkMessage, *, known: bool) -> None:
        """Note the next message; ``known``: the hello has told the device's generation."""
        sender, name, shape = message.direction, message.name, message.shape
        counts = self.counts[sender]
        counts[name] = counts.get(name, 0) + 1
        if message.time_ns > self.latest[sender]:  # noqa: PLR1730 - once for each message: a call costs more
            self.latest[sender] = message.time_ns
        if sender == DEVICE:
            if self._due != NOTHING_DUE:
                self._follow_number(message, shape)
            if name == "Event":
                self._count_event(message)
            elif name == "Hello":
                self.hello = self.hello or message
            elif name in HABITS and not known:
                self._note_habit(message)
            return
        self.last = message
        if shape is None:
            return
        if shape.kind == ACK:
            if name == "PingAck" and message.answer_ns is not None:
                self.pings_answered += 1
                self.ping_times.add(message.answer_ns)
            self._note_dialect(message, shape)
        elif name == "Event":
            self._count_event(message)
            self._note_dialect(message, shape)
        elif name == "Hello":
            self._note_dialect(message, shape)

    def _follow_number(self, message: SparkMessage, shape: Shape | None) -> None:
        """Compare the device's message number with the one due, as the servers do."""
        if shape is None:
            self._due = NOTHING_DUE  # what number it has is not known
        elif shape.kind < ACK:  # an acknowledgement bears the number of what it answers
            number = message.plaintext[2] << 8 | message.plaintext[3]
            due = number if self._due is None else self._due
            if number != due and message.name != "Ping":
                self.jump, self._due = (message, due), NOTHING_DUE
            else:
                self._due = (due + 1) % IDS

    def _count_event(self, message: SparkMessage) -> None:
        names = self.event_names
        if names is None or message.shape is None:
            return
        key = message.direction, str(message.shape.subject)
        if key not in names and len(names) >= MOST_EVENT_NAMES:
            self.event_names = None
        else:
            names[key] = names.get(key, 0) + 1

    def _note_habit(self, message: SparkMessage) -> None:
        values = message.values
        self._note(
            message,
            message.name,
            message.type,
            "error" in values,
            values.get("repeat"),
            values.get("platform_id") is None,
            values.get("variables") is None,
            not message.payload,
        )

    def _note_dialect(self, message: SparkMessage, shape: Shape) -> None:
        token: object = message.plaintext[HEADER_SIZE : shape.body]
        self._note(
            message,
            shape.key,
            shape.max_age_size,
            token if token in TELLING_TOKENS else None,
            message.name if message.name in TELLING_NAMES else None,
            message.answers is None,
            message.values.get("habit") if shape.is_error else None,
        )

    def _note(self, message: SparkMessage, *manner: object) -> None:
        if self._seen is None:
            self._seen = set()
        elif manner in self._seen or self.more_manners:
            return
        self._seen.add(manner)
        self.manners.append(message)
        self.more_manners = len(self.manners) > MOST_MANNERS

    def close(self) -> None:
        """Let go of what only more messages would need: no more is coming."""
        self._seen = None
        self.ping_times.pack()
        for kept in (self.hello, self.last, *self.manners):
            if kept is not None:
                kept.slim()
