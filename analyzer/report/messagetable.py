"""The table of decrypted messages: when, who, what it is, what it says, what it answers.

A firmware update is hundreds of alike rows, so a run of them is one row unless all are asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from analyzer.cells import NARROW, WIDTH, cells, cut, left
from analyzer.conversation import Conversation
from analyzer.export.firmware import FirmwareImage, collect_images
from analyzer.messages import SparkMessage, label, summary
from analyzer.messages.extent import extents
from analyzer.wording import duration, number, plural, printable, size, wrap

PACKET: Final = 7
TIME: Final = 8
NAME: Final = 18
ANSWERS: Final = 10
"""Columns for the packet and the delay of an answer. A longer one takes them from the content in its row."""
GAP: Final = 2
FOLDED: Final = ("Chunk", "ChunkReceived", "ChunkAck")
"""Messages of an update that a run is made of."""
FEWEST_FOLDED: Final = 6
HASH_SHOWN: Final = 8

Says = Callable[[SparkMessage], str]
"""Puts what a message says into a line."""


@dataclass(slots=True)
class _Run:
    """Consecutive messages of an update, told in one row."""

    messages: list[SparkMessage] = field(default_factory=list)

    @property
    def chunks(self) -> list[SparkMessage]:
        return [m for m in self.messages if m.name == "Chunk"]


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row: its packets, the message it begins with, its name, what it says, and what it answers."""

    packets: str
    message: SparkMessage
    name: str
    text: str
    answers: str = ""


class _Layout:
    """The columns of one conversation's table: as wide as its longest packet number and time need them."""

    def __init__(self, c: Conversation, width: int) -> None:
        self.start_ns = c.start_ns
        self.width = width
        latest, first_chunk, last_chunk, last = 0, 0, 0, None
        for last in c.messages:
            latest = max(latest, last.packet)
            if last.name in FOLDED:
                first_chunk, last_chunk = first_chunk or last.packet, last.packet
        self.packet = max(PACKET, len(str(latest)), len(_span(first_chunk, last_chunk)))
        self.time = max(TIME, 0 if last is None else len(self._when(last)))
        self.content = self.packet + self.time + NAME + 6

    def header(self) -> str:
        """The names of the columns."""
        head = f"{'packet':>{self.packet}} {'time':>{self.time}}     {'message':<{NAME}}"
        if self.width < NARROW:
            return head.rstrip()
        return f"{head + 'content':<{self.width - ANSWERS}}answers"

    def row(self, packets: str, message: SparkMessage, name: str, text: str, answers: str = "") -> str:
        """One row; content that does not fit is cut. On a narrow screen it has a line of its own, and may have two."""
        arrow = "→" if message.direction == "device" else "←"
        head = f"{packets:>{self.packet}} {self._when(message):>{self.time}}  {arrow}  {name:<{NAME}}"
        if self.width < NARROW:
            told = " ".join(part for part in (text, f"(answers {answers})" if answers else "") if part)
            indent = " " * (self.packet + 3)
            told = _fitted(told, 2 * (self.width - len(indent)) - len(indent))
            return "\n".join([cut(head.rstrip(), self.width), *wrap(told, self.width, first=indent, then=indent)])
        if len(name) >= NAME:
            head += " "
        end = self.width - (max(ANSWERS, len(answers)) + GAP if answers else 0)
        line = head + _fitted(text, end - cells(head))
        return (f"{left(line, end + GAP)}{answers}" if answers else line).rstrip()

    def _when(self, message: SparkMessage) -> str:
        return since(message, self.start_ns)


def _fitted(text: str, room: int) -> str:
    """Cut text that does not fit, and say that it was cut."""
    return text if cells(text) <= room else cut(text, max(room - 3, 0)) + "..."


def table(c: Conversation, *, width: int = WIDTH, every: bool = False, redacted: bool = False) -> Iterator[str]:
    """Yield the lines of one conversation's table; ``every`` lists each chunk of an update, ``redacted`` leaves out
    what messages say.
    """
    layout = _Layout(c, width)
    yield layout.header()
    for row in table_rows(c, every=every, redacted=redacted):
        yield layout.row(row.packets, row.message, row.name, row.text, row.answers)


def table_rows(c: Conversation, *, every: bool = False, redacted: bool = False) -> Iterator[TableRow]:
    """Yield the rows of that table."""
    says = extents if redacted else summary
    updated = c.secrets is not None and c.secrets.gist.count("Chunk")
    images = collect_images(c.messages) if updated else []
    run = _Run()
    for message in c.messages:
        if not every and message.name in FOLDED:
            run.messages.append(message)
            continue
        yield from _told(run, images, says)
        run = _Run()
        yield _row(message, images, says)
    yield from _told(run, images, says)


def _told(run: _Run, images: list[FirmwareImage], says: Says) -> Iterator[TableRow]:
    if len(run.messages) < FEWEST_FOLDED or not run.chunks:
        for message in run.messages:
            yield _row(message, images, says)
        return
    chunks = run.chunks
    first, last = run.messages[0], run.messages[-1]
    good = sum(1 for m in chunks if m.values.get("crc_ok"))
    refused = sum(1 for m in run.messages if "error" in m.values)
    total = sum(int(m.values.get("size", 0)) for m in chunks)
    image = next((i for i in images if i.first_packet <= chunks[-1].packet and chunks[0].packet <= i.last_packet), None)
    if image is not None and len(chunks) == image.chunks:
        total = min(total, image.size)  # the last chunk is filled up
    took = last.time_ns - first.time_ns
    rate = f", {size(round(total * 1e9 / took))}/s" if took else ""
    text = f"{number(refused)} missed, CRC {number(good)} of {number(len(chunks))}{rate}"
    yield TableRow(_span(first.packet, last.packet), chunks[0], f"{number(len(chunks))} × Chunk", text)


def since(message: SparkMessage, start_ns: int) -> str:
    """Return when a message came, counted from ``start_ns``."""
    return f"{(message.time_ns - start_ns) / 1e9:.3f} s"


def _span(first: int, last: int) -> str:
    """Packets as the column has them: bare digits, which one can search for."""
    return str(first) if first == last else f"{first}–{last}"


def _row(message: SparkMessage, images: list[FirmwareImage], says: Says) -> TableRow:
    text = says(message)
    if message.name == "UpdateDone" and message.direction == "server":
        text = _hash(message, images) or text
    answers = ""
    if message.answers_packet is not None:
        answers = str(message.answers_packet)
        if message.answer_ns is not None:
            answers += f", {duration(message.answer_ns)}"
    return TableRow(str(message.packet), message, label(message), text, answers)


def _hash(done: SparkMessage, images: list[FirmwareImage]) -> str | None:
    """Say which image a transfer has just ended, when all of it is there."""
    before = [image for image in images if image.first_packet < done.packet]
    if not before or before[-1].sha256 is None:
        return None
    return f"SHA-256 {before[-1].sha256[:HASH_SHOWN]}...{before[-1].sha256[-HASH_SHOWN:]}"


def headline(c: Conversation) -> str:
    """Say how much of one conversation opened, whose it is, and with which key."""
    secrets = c.secrets
    total = sum(side.frames for side in c.sides.values())
    opened = secrets.opened if secrets is not None else 0
    parts = [f"{number(opened)} of {plural(total, 'message')} opened"]
    if secrets is not None and secrets.partly:
        parts[0] += f", {number(secrets.partly)} in part"
    if c.device.id:
        parts.append(f"device {c.device.id}")
    if secrets is not None and secrets.key_source:
        parts.append(printable(os.path.basename(secrets.key_source)))
    return " · ".join(parts)
