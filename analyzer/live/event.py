"""What there is to tell while packets arrive."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from analyzer.findings import Confidence, Severity
from analyzer.report.story import Mark


class Kind(StrEnum):
    """What an event is. The names are those of the JSON lines."""

    STEP = "step"  # something happened
    VERDICT = "verdict"  # can be said now
    RAISED = "raised"  # is surer now
    WITHDRAWN = "withdrawn"  # does not hold any more
    STATE = "state"  # of a device has changed
    MESSAGE = "message"  # was opened
    NOTICE = "notice"  # about the watching itself


@dataclass(frozen=True, slots=True)
class Event:
    """One thing to tell. ``time_ns`` is by the clock of the packets, ``device`` an address as text or an ID.

    ``steps`` names them for programs; ``packets`` are the first and the last that it rests on; ``attempt`` counts the
    device's connections from 1. ``code``, ``confidence`` and ``severity`` are those of a finding.
    """

    kind: Kind
    time_ns: int
    text: str
    device: str = ""
    conversation: int | None = None
    attempt: int | None = None
    steps: tuple[str, ...] = ()
    packets: tuple[int, int] | None = None
    code: str | None = None
    confidence: Confidence | None = None
    severity: Severity | None = None
    state: str = ""
    mark: Mark | None = None
    details: dict[str, object] = field(default_factory=dict)
