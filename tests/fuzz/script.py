"""Bytes as a list of decisions: how a fuzzer that knows nothing but bytes plays a story.

A decision takes the bytes that it needs from the front; when none are left, each is 0. So every input is a story, a
small change of the bytes is a small change of the story, and a shorter input is a shorter one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Script:
    """Takes decisions from the front of ``data``."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def __bool__(self) -> bool:
        """Whether there is anything left to decide with."""
        return self.at < len(self.data)

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer at the end."""
        taken = self.data[self.at : self.at + size]
        self.at += size
        return taken

    def number(self, size: int = 1) -> int:
        """A number of ``size`` bytes."""
        return int.from_bytes(self.take(size), "big")

    def below(self, limit: int) -> int:
        """A number from 0 to ``limit`` - 1."""
        return self.number(1 if limit <= 1 << 8 else 2 if limit <= 1 << 16 else 4) % limit

    def pick(self, choices: Sequence[T]) -> T:
        """One of several."""
        return choices[self.below(len(choices))]

    def piece(self, size: int = 1) -> bytes:
        """Some bytes, their length (of ``size`` bytes) in front."""
        return self.take(self.number(size))

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(max(0, len(self.data) - self.at))


def written(*decisions: int | bytes) -> bytes:
    """The bytes of a script: numbers of one byte, and pieces with their length of one byte in front."""
    return b"".join(bytes((one,)) if isinstance(one, int) else bytes((len(one),)) + one for one in decisions)
