"""The table of decrypted messages: when, who, what it is, what it says, what it answers.

A firmware update is hundreds of alike rows, so a run of them is one row unless all are asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from analyzer.conversation import Conversation
from analyzer.messages import SparkMessage, label, summary
from analyzer.wording import duration, number, plural, size, span

NARROW: Final = 80
HEAD: Final = 21
NAME: Final = 18
ANSWERS: Final = 13
FOLDED: Final = ("Chunk", "ChunkReceived", "ChunkAck")
"""Messages of an update that a run is made of."""
FEWEST_FOLDED: Final = 6


@dataclass(slots=True)
class _Run:
    """Consecutive messages of an update, told in one row."""

    messages: list[SparkMessage] = field(default_factory=list)

    @property
    def chunks(self) -> list[SparkMessage]:
        return [m for m in self.messages if m.name == "Chunk"]


def table(c: Conversation, *, width: int = NARROW, every: bool = False) -> Iterator[str]:
    """Yield the lines of one conversation's table; ``every`` lists each chunk of an update."""
    content = width - HEAD - NAME - ANSWERS - 1
    yield f"{'packet':>7} {'time':>9}    {'message':<{NAME}}{'content':<{content}} answers"
    run = _Run()
    for message in c.messages:
        if not every and message.name in FOLDED:
            run.messages.append(message)
            continue
        yield from _told(run, c, content)
        run = _Run()
        yield _row(message, c, content)
    yield from _told(run, c, content)


def _told(run: _Run, c: Conversation, content: int) -> Iterator[str]:
    if len(run.messages) < FEWEST_FOLDED or not run.chunks:
        for message in run.messages:
            yield _row(message, c, content)
        return
    chunks = run.chunks
    first, last = run.messages[0], run.messages[-1]
    good = sum(1 for m in chunks if m.values.get("crc_ok"))
    refused = sum(1 for m in run.messages if "error" in m.values)
    total = sum(int(m.values.get("size", 0)) for m in chunks)
    took = last.time_ns - first.time_ns
    rate = f", {size(round(total * 1e9 / took))}/s" if took else ""
    text = f"{number(refused)} refused, CRC {number(good)} of {number(len(chunks))}{rate}"
    yield (
        f"{span(first.packet, last.packet):>7} {_time(first, c):>9} ←  {f'{number(len(chunks))} × Chunk':<{NAME}}{text}"
    ).rstrip()


def _row(message: SparkMessage, c: Conversation, content: int) -> str:
    arrow = "→" if message.direction == "device" else "←"
    told = summary(message)
    answers = ""
    if message.answers_packet is not None:
        answers = number(message.answers_packet)
        if message.answer_ns is not None:
            answers += f", {duration(message.answer_ns)}"
    room = content if answers else content + ANSWERS
    cut = told if len(told) <= room else told[: room - 3] + "..."
    head = f"{number(message.packet):>7} {_time(message, c):>9} {arrow}  {label(message):<{NAME}}"
    return f"{head}{cut:<{content}} {answers}".rstrip()


def _time(message: SparkMessage, c: Conversation) -> str:
    return f"{(message.time_ns - c.start_ns) / 1e9:.3f} s"


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
        parts.append(os.path.basename(secrets.key_source))
    return " · ".join(parts)
