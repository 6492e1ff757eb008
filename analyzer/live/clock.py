"""What time it is in a capture that is still going on.

Packets bring the time of the machine that captures them, which may be another one, and an old capture on a pipe brings
an old time. So the clock is that of the packets; between them it goes on as time passes here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

LAG_NS: Final = 300_000_000
"""A packet may come later than it was captured: a pipe through a network holds it back. So much longer is waited."""


class PacketClock:
    """The time of the packets. ``monotonic`` gives nanoseconds that pass here, from any beginning."""

    def __init__(self, begin_ns: int | None = None, *, monotonic: Callable[[], int] = time.monotonic_ns) -> None:
        """``begin_ns`` is the time before any packet came, where it is known."""
        self._monotonic = monotonic
        self._latest = begin_ns
        self._heard = monotonic()

    def see(self, time_ns: int) -> None:
        """Take note of a packet's time; one that is older than another tells nothing."""
        if self._latest is None or time_ns >= self._latest:
            self._latest = time_ns
            self._heard = self._monotonic()

    @property
    def now(self) -> int | None:
        """The time up to which no packet is on its way any more; None before the first one."""
        if self._latest is None:
            return None
        return self._latest + max(0, self._monotonic() - self._heard - LAG_NS)
