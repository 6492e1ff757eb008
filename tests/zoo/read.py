"""What people found out who looked: captures that were read by hand, and bugs that this campaign found."""

from __future__ import annotations

from typing import Final

READ: Final[dict[str, str]] = {}
"""By the beginning of its SHA-256: what a capture is in which something is called ours, or which cannot be read."""

FOUND: Final = (
    (
        "An instant messenger on our port was a login that failed, very likely for a key of the wrong size: among its"
        " bytes were two runs that look like frames.",
        "A client that speaks first, in packets that are none of a login's, is another protocol, whatever its bytes"
        " look like.",
        "tests/test_kinds.py::test_a_client_that_speaks_first_has_no_frames_but_by_chance",
    ),
    (
        "A screen sharing server on our port was a device that is logged in and works: only its first line is text.",
        "A first packet that is a line of text is a greeting of another service, whatever follows it.",
        "tests/test_kinds.py::test_a_line_of_text_is_a_greeting_whatever_follows_it",
    ),
    (
        "Of a connection that was refused at first and accepted when the same request was made again, everything after"
        " half a minute of silence was left out.",
        "A refusal is no end of a connection that is accepted later.",
        "tests/test_tracker.py::test_a_connection_that_was_refused_at_first_is_not_let_go_in_a_long_silence",
    ),
)
"""What went wrong, what happens now, and which test holds it."""
