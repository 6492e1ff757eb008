"""Many rows in few words, for the report: "5.02 Bad Gateway" (packet 8) and 53 times "Unknown 16"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from analyzer.misparse.names import CODE_NAMES, MALFORMED, code_name
from analyzer.misparse.reader import Row
from analyzer.wording import printable

LONGEST_TEXT: Final = 60
"""Characters of one row's text that are quoted, as with everything that comes from the network."""
FEW_ROWS: Final = 4
"""So many rows are listed one by one: greeting, "who I am", reply and first ping of a failed login."""
MOST_ALARMING: Final = 2
"""Beyond that, so many names are told that send people looking for a cause that is not there; then the text
that repeats most. The rest is left out."""


_NO_CODE: Final = 256
_MALFORMED: Final = 512
"""Beyond the codes (0 to 255): a message that ends before its own, and one that is malformed besides."""
PLAIN: Final = 16
"""A first byte below this begins a message that is nothing but a code byte and a token of so many bytes: that is how
the length field of every frame under 4 KiB reads, and so of every frame there is."""


@dataclass(slots=True)
class RowsSeen:
    """What is kept of the CoAP rows of one conversation: how many, the first with their texts, and of more than those
    the line (see `RowWords`).
    """

    total: int
    few: tuple[tuple[int, str], ...]
    line: str | None

    @property
    def packets(self) -> tuple[int, ...]:
        """The first packets that are shown as CoAP."""
        return tuple(packet for packet, _ in self.few)

    def words(self) -> str | None:
        """Return the line, None when every row is a TCP row."""
        return self.line or (_listed(self.few) if self.few else None)


NO_ROWS: Final = RowsSeen(0, (), None)


class RowWords:
    """Collects the CoAP rows of one conversation, in packet order, and says in a line what they read.

    Up to four: 'packets 4, 6 read "Unknown 178", "Unknown 204"'. More: grouped by name, names of errors and
    "Malformed Packet" first. Printable, under 500 characters. Memory is bounded by the number of code names.
    """

    __slots__ = ("_few", "_firsts", "_texts", "counts", "many")

    def __init__(self) -> None:
        self.many = False  # whether the first few are all there
        self.counts: dict[int, int] = {}  # rows by what they are named for: the code, and whether they are malformed
        self._firsts: dict[int, int] = {}  # the first packet of each
        self._texts: dict[int, str] = {}  # and its text, where that is more than the name and there is no second
        self._few: tuple[tuple[int, str], ...] = ()

    @property
    def total(self) -> int:
        """How many packets are shown as CoAP."""
        return sum(self.counts.values())

    @property
    def few(self) -> tuple[tuple[int, str], ...]:
        """The first packets that are shown as CoAP, and as what."""
        return self._few

    @property
    def packets(self) -> tuple[int, ...]:
        """Those packets."""
        return tuple(packet for packet, _ in self._few)

    def finish(self) -> RowsSeen:
        """Return what is kept of it when no more rows come."""
        if not self.counts:
            return NO_ROWS
        return RowsSeen(self.total, self._few, None if self.total <= FEW_ROWS else self.words())

    def take(self, row: Row) -> None:
        """Take the next row; one that stays a TCP row does not count."""
        if row.text is None:
            return
        # The row's name is its first code, so groups are at most the 256 codes, each malformed or not.
        code = row.readings[0].code if row.readings else None
        self._take((_NO_CODE if code is None else code) + _MALFORMED * row.malformed, row.packet, row.text)

    def take_plain(self, payload: bytes, packet: int) -> None:
        """Take the row of a segment that begins with a plain message (see `PLAIN`), and has all of it."""
        code = payload[1]
        count = self.counts.get(code, 0)
        if count and self.many:
            self.counts[code] = count + 1
            self._texts.pop(code, None)
            return
        token = payload[2 : 2 + payload[0]]
        self._take(code, packet, f"{code_name(code)}, TKN:{token.hex(' ')}" if token else code_name(code))

    def _take(self, name: int, packet: int, text: str) -> None:
        if not self.many:
            self._few += ((packet, quotable(text)),)
            self.many = len(self._few) == FEW_ROWS
        count = self.counts[name] = self.counts.get(name, 0) + 1
        if count > 1:
            self._texts.pop(name, None)
            return
        self._firsts[name] = packet
        if text != _name(name):
            self._texts[name] = quotable(text)

    def words(self) -> str | None:
        """Return the line, None when every row is a TCP row."""
        if not self.counts:
            return None
        return _listed(self._few) if self.total <= FEW_ROWS else _grouped(self._groups())

    def _groups(self) -> list[_Group]:
        return [
            _Group(
                self._texts.get(name) or quotable(_name(name)),
                self._firsts[name],
                name >= _MALFORMED,
                name >= _MALFORMED or (name != 0 and name in CODE_NAMES),
                count,
            )
            for name, count in self.counts.items()
        ]


def _name(name: int) -> str:
    code = name % _MALFORMED
    return ("" if code == _NO_CODE else code_name(code)) + (MALFORMED if name >= _MALFORMED else "")


@dataclass(slots=True)
class _Group:
    text: str
    packet: int
    malformed: bool
    alarming: bool
    count: int


def rows_in_words(rows: Iterable[Row]) -> str | None:
    """Say in a line what the rows of one conversation read (see `RowWords`)."""
    collected = RowWords()
    for row in rows:
        collected.take(row)
    return collected.words()


def summary(rows: Iterable[Row]) -> str | None:
    """Like `rows_in_words`, and that none of it means anything; not for text, as of a web page."""
    words = rows_in_words(rows)
    return None if words is None else f"{words}: random bytes shown as CoAP"


def quotable(text: str) -> str:
    """One row's text, cut and with everything that is not printable escaped."""
    return printable(text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 3] + "...")


def _listed(few: Sequence[tuple[int, str]]) -> str:
    packets = ", ".join(str(packet) for packet, _ in few)
    texts = ", ".join(f'"{text}"' for _, text in few)
    return f"packet {packets} reads {texts}" if len(few) == 1 else f"packets {packets} read {texts}"


def _grouped(groups: list[_Group]) -> str:
    alarming = sorted(
        (group for group in groups if group.alarming),
        key=lambda group: (not group.malformed, group.count, group.packet),
    )
    chosen = alarming[:MOST_ALARMING]
    often = sorted(groups, key=lambda group: (-group.count, group.packet))
    if often[0].count > 1 and often[0] not in chosen:
        chosen.append(often[0])
    parts = [
        f'"{group.text}" (packet {group.packet})' if group.count == 1 else f'{group.count} times "{group.text}"'
        for group in chosen or often[:FEW_ROWS]
    ]
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
