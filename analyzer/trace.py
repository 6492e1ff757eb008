"""What was learnt about a whole capture: the files, the conversations, what else was in it, and the verdicts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from analyzer.background import Background
from analyzer.capture.packet import CaptureFile
from analyzer.conversation import Conversation
from analyzer.devices import Device
from analyzer.expected import ExpectedServer
from analyzer.findings import Finding, NotChecked
from analyzer.gaps import Gaps

if TYPE_CHECKING:
    from analyzer.keys import KeyRing


@dataclass(slots=True)
class Trace:
    """The result of one analysis. Conversations are numbered from 1 in the order in which they began."""

    captures: list[CaptureFile]
    conversations: list[Conversation]
    background: Background
    ports: frozenset[int]
    packets: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    spark_packets: int = 0  # packets of the conversations
    unknown_links: dict[int, int] = field(default_factory=dict)  # link type: packets that could not be read
    link_types: dict[int, int] = field(default_factory=dict)
    offloaded: list[tuple[bytes, int, int]] = field(default_factory=list)  # senders with unfinished checksums
    keys: KeyRing | None = None
    expected: tuple[ExpectedServer, ...] = ()  # where the user says devices should call
    stored: tuple[tuple[str, ExpectedServer], ...] = ()  # what dumps among the key files have stored, by file
    devices: list[Device] = field(default_factory=list)  # in the order in which they first appear
    findings: list[Finding] = field(default_factory=list)
    not_checked: list[NotChecked] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    gaps: Gaps = field(default_factory=Gaps)  # between the files
    left_out: Counter[str] = field(default_factory=Counter)  # what a bound kept from being read, by its name

    @property
    def time_digits(self) -> int:
        """Digits after the point that the captures' clocks have: 6 or 9."""
        return max((file.time_digits for file in self.captures), default=6)

    @property
    def duration_ns(self) -> int:
        """From the first to the last packet."""
        return 0 if self.first_ns is None or self.last_ns is None else self.last_ns - self.first_ns
