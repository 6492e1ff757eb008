"""sparkshark: why a Spark Core or Photon does not connect to its cloud, from a packet capture.

    from analyzer import KeyRing, analyze
    trace = analyze("capture.pcapng", keys=KeyRing.load("core.der", "server.pub.pem"))
    for finding in trace.findings: ...

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analyzer.capture import CaptureError
    from analyzer.conversation import Conversation
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
    "Severity",
    "SparkMessage",
    "Trace",
    "analyze",
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
    "Severity": "findings",
    "SparkMessage": "messages",
    "Trace": "trace",
    "analyze": "jobs",
}


def __getattr__(name: str) -> object:
    """Load a public name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
