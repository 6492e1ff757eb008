"""What the keys open: the handshake's sealed parts and the frames behind it (PROTOCOL 3 and 4)."""

from analyzer.session.frames import (
    FailedRun,
    FailurePattern,
    FrameDecryptor,
    Obstacle,
    OpenedFrame,
    Trouble,
    fitting_session_key,
)
from analyzer.session.opening import Identity, Offer, SessionOpener, open_identity, open_offer
from analyzer.session.range_test import RangeTest

__all__ = [
    "FailedRun",
    "FailurePattern",
    "FrameDecryptor",
    "Identity",
    "Obstacle",
    "Offer",
    "OpenedFrame",
    "RangeTest",
    "SessionOpener",
    "Trouble",
    "fitting_session_key",
    "open_identity",
    "open_offer",
]
