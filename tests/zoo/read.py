"""What people found out who looked: captures that were read by hand, and bugs that this campaign found."""

from __future__ import annotations

from typing import Final

READ: Final[dict[str, str]] = {}
"""By the beginning of its SHA-256: what a capture is, in which something is called ours or which cannot be read."""

FOUND: Final[tuple[tuple[str, str, str], ...]] = ()
"""What went wrong, what happens now, and which test holds it."""
