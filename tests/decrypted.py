"""Conversations in the clear for the tests of the exports: from what both ends recorded, or made up."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analyzer.messages import MessageReader, SparkMessage

CAPTURES = Path(__file__).parent.parent / "captures"
START_NS = 1_700_000_000_123_456_789


@dataclass
class Place:
    address: bytes
    port: int
    id: str | None = None

    @property
    def ip(self) -> str:
        return socket.inet_ntop(socket.AF_INET if len(self.address) == 4 else socket.AF_INET6, self.address)


def place(address: str, port: int, id: str | None = None) -> Place:  # noqa: A002
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return Place(socket.inet_pton(family, address), port, id)


@dataclass
class Talk:
    """A conversation, as far as an export looks at one."""

    number: int = 1
    device: Place = field(default_factory=lambda: place("192.168.1.104", 40000))
    server: Place = field(default_factory=lambda: place("54.208.229.4", 5683))
    messages: list[SparkMessage] = field(default_factory=list)


def truth(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CAPTURES / f"{name}.truth.json").read_text())
    return loaded


def session(name: str, number: int = 1) -> Talk:
    """The first session of a capture, from the plaintexts that its two ends recorded."""
    told = truth(name)["sessions"][0]
    lines = [(line["t"], "device", line["hex"]) for line in told["c2s"]]
    lines += [(line["t"], "server", line["hex"]) for line in told["s2c"]]
    lines.sort(key=lambda line: float(line[0]))
    reader = MessageReader()
    device = place(told["client"]["ip"], told["client"]["port"], told["device_id"])
    server = place(told["server"]["ip"], told["server"]["port"])
    talk = Talk(number, device, server)
    for packet, (when, sender, plaintext) in enumerate(lines, 1):
        # The odd nanoseconds are ours: they must survive.
        time_ns = round(when * 1_000_000) * 1000 + packet % 1000
        talk.messages.append(reader.read(sender, bytes.fromhex(plaintext), packet, time_ns))
    return talk


Line = tuple[str, bytes] | tuple[str, bytes, int]


def read(lines: Iterable[Line]) -> list[SparkMessage]:
    """Messages from (sender, plaintext[, bytes lost at its front])."""
    reader = MessageReader()
    return [
        reader.read(line[0], line[1], packet, START_NS + packet, line[2] if len(line) == 3 else 0)
        for packet, line in enumerate(lines, 1)
    ]


def again(messages: Sequence[SparkMessage]) -> list[Line]:
    """The lines that give these messages."""
    return [(message.direction, message.plaintext, message.missing) for message in messages]
