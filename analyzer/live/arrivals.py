"""Packets as they come, from whatever brings them, with a limit on how long to wait for the next.

Waiting for packets is done by a thread, so that timers run out while none comes.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Final

from analyzer.capture import Packet

QUEUED: Final = 50_000
"""Packets that may wait to be looked at, some 20 MB; then a pipe is left to fill, and an interface loses packets,
which it counts."""
BEHIND: Final = 5_000
"""From so many waiting packets on, the analysis is behind."""
LAST_S: Final = 1.0
"""How long what has come is still taken when it is to end: who asks for that is not to wait."""


class Stopped(Exception):  # noqa: N818 - no error: somebody wants it to end
    """Nothing more is wanted."""


class Arrivals:
    """Runs an endless iterator of packets in a thread and hands them on one by one."""

    def __init__(self, packets: Iterator[Packet], *, queued: int = QUEUED) -> None:
        self._packets = packets
        self._queue: queue.SimpleQueue[Packet | BaseException | None] = queue.SimpleQueue()
        self._stop_at: float | None = None
        self._room = threading.Semaphore(queued)
        self._thread = threading.Thread(target=self._run, daemon=True, name="packets")
        self._thread.start()

    def next(self, timeout_s: float) -> Packet | None:
        """Return the next packet, None when none comes in that time.

        Raises StopIteration at the end, `Stopped` after `stop` when what has come by then is taken, and
        whatever reading the packets raises.
        """
        stop_at = self._stop_at
        try:
            item = self._queue.get(timeout=timeout_s) if stop_at is None else self._queue.get_nowait()
        except queue.Empty:
            if stop_at is not None:
                raise Stopped from None
            return None
        if isinstance(item, Packet):
            self._room.release()
            if stop_at is not None and time.monotonic() > stop_at:
                raise Stopped
            return item
        if isinstance(item, Stopped):
            return None  # it was put there to wake up whoever waits
        raise StopIteration if item is None else item

    def stop(self) -> None:
        """Let whoever waits go when it has what has come; can be called from a signal handler."""
        self._stop_at = time.monotonic() + LAST_S
        self._queue.put(Stopped())

    @property
    def behind(self) -> bool:
        """Whether packets come faster than they are taken."""
        return self._queue.qsize() > BEHIND

    def _run(self) -> None:
        end: BaseException | None = None
        try:
            for packet in self._packets:
                self._room.acquire()
                self._queue.put(packet)
        except BaseException as error:  # it is raised again where packets are asked for
            end = error
        self._queue.put(end)
