"""Keeps the packets of a watch in files of limited size and number, as pcapng.

Each packet is in its file as soon as it was taken, so a process that is killed leaves files that can be read. The
files are the user's alone (mode 0600), are new each time, and of all files in the folder only those that this very
ring has written are ever deleted.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from analyzer.capture import Packet, writing
from analyzer.outfile import FOR_OWNER
from analyzer.wording import printable

NAME: Final = "sparkshark"
SIZE_MB: Final = 10
"""Wireshark opens so much at once; of one device it is some weeks of messages, or a day with a busy network's
background."""
FILES: Final = 100
"""With `SIZE_MB` 1 GB, which small computers have to spare."""
RETRY_NS: Final = 60_000_000_000
"""After the disk was full, it is tried again so much later (time of the packets)."""
NUMBER: Final = 5
"""Digits of a file's number, as dumpcap has them."""
NUMBERED: Final = re.compile(rf"{NAME}_(\d{{{NUMBER},9}})_\d{{14}}\.pcapng")
LARGEST_NUMBER: Final = 999_999_999
"""Of a file; the numbers in names that go beyond it are others' own."""


class RingError(ValueError):
    """A folder that no packets can be kept in. The text is one line for the user."""


class Ring:
    """Files in ``folder``, at most ``files`` of ``size`` bytes; the oldest gives way to the next.

    ``trouble`` is told when packets cannot be kept, and when they can again. Raises RingError when the folder cannot
    be made or written into.
    """

    def __init__(
        self,
        folder: str,
        *,
        size: int = SIZE_MB * 1_000_000,
        files: int = FILES,
        trouble: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._folder, self._size, self._files, self._trouble = folder, size, files, trouble
        self._written: deque[str] = deque()
        self._file: int | None = None
        self._place = 0
        self._links: dict[tuple[int, int], int] = {}
        self._retry_ns: int | None = None
        self.kept = 0
        """Packets in all files so far, those in files that have given way included."""
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            names = os.listdir(folder)
        except OSError as error:
            raise self._unusable(error) from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise RingError(f"{folder}: no permission to write here. Try: another folder for --ring")
        # Going on with the numbers of an earlier ring keeps the order, and no file is taken for a missing one.
        numbers = [int(found[1]) for name in names if (found := NUMBERED.fullmatch(name))]
        self._number = max(numbers, default=0) % LARGEST_NUMBER

    def take(self, packet: Packet, time_digits: int) -> None:
        """Keep a packet whose time has so many digits. Never raises: what goes wrong is told once."""
        if self._retry_ns is not None:
            if packet.time_ns < self._retry_ns:
                return
            self._retry_ns = None
        try:
            self._write(packet, time_digits)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            self._trouble(f"{self._folder}: packets are not kept any more ({why}); watching goes on.")
            self._retry_ns = packet.time_ns + RETRY_NS
            self.close()

    def close(self) -> None:
        """Close the file that is written."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, packet: Packet, digits: int) -> None:
        room = writing.PACKET_OVERHEAD + len(packet.data) + 3
        if self._file is None or (self._links and self._place + room > self._size):
            self._begin(packet.time_ns)
        link = (packet.link_type, packet.interface)
        block = b""
        if link not in self._links:
            self._links[link] = len(self._links)
            block = writing.interface(packet.link_type, digits)
        place = self._links[link]
        self._append(block + writing.packet(place, packet.time_ns, digits, packet.data, packet.original_length))
        self.kept += 1

    def _append(self, block: bytes) -> None:
        """Write a whole block at once, or nothing of it."""
        assert self._file is not None  # noqa: S101 - `_write` has begun one
        if os.write(self._file, block) != len(block):
            os.ftruncate(self._file, self._place)
            os.lseek(self._file, self._place, os.SEEK_SET)
            raise OSError(28, "no space left on device")
        self._place += len(block)

    def _begin(self, time_ns: int) -> None:
        self.close()
        while len(self._written) >= self._files:
            oldest = self._written.popleft()
            with contextlib.suppress(FileNotFoundError):  # its owner may have taken it away
                os.unlink(oldest)
        self._number += 1
        try:
            when = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y%m%d%H%M%S")
        except (OverflowError, OSError, ValueError):
            when = "0" * 14
        path = os.path.join(self._folder, f"{NAME}_{self._number:0{NUMBER}d}_{when}.pcapng")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        self._file = os.open(path, flags | getattr(os, "O_BINARY", 0), FOR_OWNER)
        self._written.append(path)
        self._place, self._links = 0, {}
        try:
            self._append(writing.section())
        except OSError:
            os.unlink(self._written.pop())  # an empty file is no capture
            raise

    def _unusable(self, error: OSError) -> RingError:
        why = (error.strerror or str(error)).lower()
        return RingError(
            f"{printable(self._folder)}: packets cannot be kept here ({why}). Try: another folder for --ring"
        )
