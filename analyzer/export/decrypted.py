"""What the exports need of a conversation; `analyzer.conversation.Conversation` has all of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from analyzer.messages import SparkMessage


class End(Protocol):
    """One end: ``address`` is packed, 4 or 16 bytes; ``id`` is the device's id where it is known."""

    @property
    def address(self) -> bytes: ...  # noqa: D102

    @property
    def port(self) -> int: ...  # noqa: D102

    @property
    def ip(self) -> str: ...  # noqa: D102

    @property
    def id(self) -> str | None: ...  # noqa: D102


class Ends(Protocol):
    """A conversation as far as its number and its two ends go."""

    @property
    def number(self) -> int: ...  # noqa: D102

    @property
    def device(self) -> End: ...  # noqa: D102

    @property
    def server(self) -> End: ...  # noqa: D102


class Decrypted(Ends, Protocol):
    """A conversation with its messages in the clear, in the order of the capture."""

    @property
    def messages(self) -> Sequence[SparkMessage]: ...  # noqa: D102
