"""A file that others have gone through already, and what `Capture` has to know of it to read that in its place."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from analyzer.capture.ledger import Ledger
    from analyzer.capture.packet import Packet
    from analyzer.capture.pcapng import InterfaceNumbers
    from analyzer.capture.source import Compression


class Bytes(Protocol):
    """Where the bytes of a file come from, and how far they have come; `Source` is one.

    ``packed_bytes`` of the file itself have been read, ``bytes`` handed out. ``ended_early`` says why there are no
    more, ``grew`` whether there are, of a file that was shorter when it was opened. ``between`` is called whenever
    bytes have come.
    """

    packed_bytes: int
    bytes: int
    compression: Compression | None
    ended_early: str | None
    grew: bool
    between: Callable[[], None] | None

    def close(self) -> None:
        """Let go of the file."""


class GoneThrough(Protocol):
    """What others kept of a file of ``size`` bytes."""

    size: int

    @property
    def form(self) -> str:
        """Format and compression, as in `CaptureFile`."""

    @property
    def first_ns(self) -> int:
        """The time of its first packet; 0 without packets."""

    @property
    def numbers(self) -> int:
        """How many packet numbers the file takes."""

    @property
    def source(self) -> Bytes:
        """How far this has been read again."""

    def packets(self, ledger: Ledger, interfaces: InterfaceNumbers) -> Generator[Packet, None, None]:
        """Yield the packets that were kept, and book in the ledger what was found wrong with the file."""
