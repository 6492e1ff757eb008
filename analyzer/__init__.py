"""sparkshark: why a Spark Core or Photon does not connect to its cloud, from a packet capture.

>>> from analyzer import KeyRing, analyze, table
>>> trace = analyze("captures/key-mismatch-retries.pcap", keys=KeyRing.load("captures/keys/core-a.der"))
>>> for finding in trace.findings:
...     print(finding.code, finding.severity, finding.confidence, finding.conversations)
SPK301 critical certain (1, 2, 3)
SPK207 critical certain (1, 3)
SPK206 critical strong (1, 2, 3)
SPK401 info certain (1, 2, 3)
>>> [row["closed_by"] for row in table(trace, "conversations")]
['server-fin', 'device-fin', 'server-fin']

``analyze(captures, keys=..., ports=..., jobs=...)`` reads and judges, and returns a `Trace`: its ``conversations`` with
their ``messages``, its ``findings``, and what was ``not_checked``. ``table`` makes rows of it for pandas and the like.
`Analysis` takes packets one at a time. `CaptureError`, `KeyFileError` and `TableError` are each a `ValueError` with
one line that names the next step; bytes from a capture never raise.

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analyzer.capture import CaptureError, Packet
    from analyzer.conversation import Conversation
    from analyzer.dataset import TableError, TableName, table
    from analyzer.findings import FINDINGS, Confidence, Finding, NotChecked, Severity
    from analyzer.jobs import analyze
    from analyzer.keys import KeyFileError, KeyRing
    from analyzer.messages import SparkMessage
    from analyzer.pipeline import Analysis
    from analyzer.trace import Trace

__all__ = [
    "FINDINGS",
    "Analysis",
    "CaptureError",
    "Confidence",
    "Conversation",
    "Finding",
    "KeyFileError",
    "KeyRing",
    "NotChecked",
    "Packet",
    "Severity",
    "SparkMessage",
    "TableError",
    "TableName",
    "Trace",
    "analyze",
    "table",
]

_HOMES = {
    "FINDINGS": "findings",
    "Analysis": "pipeline",
    "CaptureError": "capture",
    "Confidence": "findings",
    "Conversation": "conversation",
    "Finding": "findings",
    "KeyFileError": "keys",
    "KeyRing": "keys",
    "NotChecked": "findings",
    "Packet": "capture",
    "Severity": "findings",
    "SparkMessage": "messages",
    "TableError": "dataset",
    "TableName": "dataset",
    "Trace": "trace",
    "analyze": "jobs",
    "table": "dataset",
}


def __getattr__(name: str) -> object:
    """Load a public name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
