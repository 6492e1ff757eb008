"""The account of one file while it is read: its packets' numbers, and what is wrong with it where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

from analyzer.capture.complaints import shown
from analyzer.capture.gonethrough import Bytes
from analyzer.capture.packet import CaptureFile, Damage

MOST_DAMAGE: Final = 20
"""Damaged places that are listed for one file. A file with more is rubble; the list must not grow with it."""
LATEST_NS: Final = (1 << 63) - 1
"""In the year 2262. Later times, which only a damaged clock has, are set to it, and times before 1970 to 1970: every
calendar can write what lies between, and 64 bits hold it, wherever times are kept by the thousand."""
LATEST_YEAR: Final = 1970 + LATEST_NS // 31_556_952_000_000_000
"""The year of that: a year has so many nanoseconds on average."""
LARGEST_PACKET: Final = 262_144
"""Captured bytes that one packet can have; the bound of libpcap and Wireshark for ordinary link types."""


class Entry(NamedTuple):
    """What a reader booked: by which method of `Ledger`, and which packet would have been the next."""

    number: int
    method: Literal["skipped", "ended"]
    arguments: tuple[Any, ...]


class Ledger:
    """What the readers of both formats write down about one file.

    ``number`` is what the next packet gets. ``file`` is brought up to date whenever more bytes are fetched,
    so it is right whenever the reader waits for more. Warnings are whole sentences for the user.
    """

    def __init__(self, file: CaptureFile, source: Bytes, warnings: list[str]) -> None:
        self.file = file
        self.number = file.first_number
        self.interfaces: set[int] = set()
        """Numbers of the interfaces that packets named."""
        self.reached = 0
        """Where in the file (bytes) reading has ended: there, or where the first record begins that is not wanted."""
        self._source = source
        self._warnings = warnings
        self._places = 0
        self.told: Callable[[Entry], None] | None = None
        """Told of each entry as it was made, for the ledger of a file that is read in ranges."""

    def seen(self, packets: int, first_ns: int, last_ns: int) -> None:
        """Book ``packets`` packets so far, between these times."""
        self.file.bytes = self._source.bytes
        if packets:
            self.file.packets, self.file.first_ns, self.file.last_ns = packets, first_ns, last_ns

    def skipped(self, offset: int, what: str, length: int, *, to_the_end: bool = False) -> None:
        """Book a damaged place at ``offset`` that costs ``length`` bytes."""
        self._tell("skipped", offset, what, length, to_the_end)
        lost = f"{length:,} byte{'s' * (length != 1)}"
        if not to_the_end:
            then = f"{lost} skipped before packet {self.number:,}; the rest is analysed"
        else:
            then = f"nothing readable follows, {lost} lost; {self._analysed()}"
        if self._book(Damage(offset, None, f"{what}; {lost} {'lost' if to_the_end else 'skipped'}")):
            self._warn(f"damaged at byte {offset:,} ({what}): {then}.")

    def ended(self, offset: int, cut: str = "") -> None:
        """Book the end of the file at ``offset``, which lies inside ``cut`` (``packet``, ``a block`` ...)."""
        self._tell("ended", offset, cut)
        self.reached = offset
        packet = self.number if cut == "packet" else None
        if early := self._source.ended_early:
            self._book(Damage(offset, packet, early))
            unpacked = " unpacked" if self._source.compression else ""
            self._warn(f"{early}, after {offset:,} bytes{unpacked}; analysed up to there.")
        elif self._source.grew:  # its last packet was being written then, so where it ends is no damage
            self._warn(f"grew while it was read; analysed as far as it went at first, {offset:,} bytes.")
        elif cut:
            inside = f"packet {packet:,}" if packet else cut
            self._book(Damage(offset, packet, f"ends inside {inside}"))
            self._warn(f"ends inside {inside}, at byte {offset:,}; {self._analysed()}.")

    def again(self, entry: Entry, before: int) -> None:
        """Book what a ledger of a range has booked, that has ``before`` packets ahead of it."""
        self.number = before + entry.number
        if entry.method == "skipped":
            offset, what, length, to_the_end = entry.arguments
            self.skipped(offset, what, length, to_the_end=to_the_end)
        else:
            self.ended(*entry.arguments)

    def _tell(self, method: Literal["skipped", "ended"], *arguments: Any) -> None:
        if self.told is not None:
            self.told(Entry(self.number, method, arguments))

    def _analysed(self) -> str:
        first, last = self.file.first_number, self.number - 1
        if last < first:
            return "no packet could be read"
        return f"packet {first:,} is analysed" if first == last else f"packets {first:,}–{last:,} are analysed"

    def _book(self, damage: Damage) -> bool:
        self._places += 1
        if self._places > MOST_DAMAGE:
            if self._places == MOST_DAMAGE + 1:
                self.file.damage.append(Damage(damage.offset, None, "damaged at more places than are listed"))
                self._warn(f"damaged at more places, from byte {damage.offset:,} on, that are not listed.")
            return False
        self.file.damage.append(damage)
        return True

    def _warn(self, text: str) -> None:
        self._warnings.append(f"{shown(self.file.path)}: {text}")
