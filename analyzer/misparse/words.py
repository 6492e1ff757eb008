"""Many rows in few words, for the report: "5.02 Bad Gateway" (packet 8) and 53 times "Unknown 16"."""

from __future__ import annotations

from collections.abc import Iterable
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


@dataclass(slots=True)
class _Group:
    text: str
    packet: int
    malformed: bool
    alarming: bool
    count: int = 0


class RowWords:
    """Collects the CoAP rows of one conversation, in packet order, and says in a line what they read.

    Up to four: 'packets 4, 6 read "Unknown 178", "Unknown 204"'. More: grouped by name, names of errors and
    "Malformed Packet" first. Printable, under 500 characters. Memory is bounded by the number of code names.
    """

    __slots__ = ("_few", "_groups", "total")

    def __init__(self) -> None:
        self.total = 0
        self._few: list[tuple[int, str]] = []
        self._groups: dict[str, _Group] = {}

    @property
    def packets(self) -> tuple[int, ...]:
        """The first packets that are shown as CoAP."""
        return tuple(packet for packet, _ in self._few)

    def take(self, row: Row) -> None:
        """Take the next row; one that stays a TCP row does not count."""
        if row.text is None:
            return
        self.total += 1
        if self.total <= FEW_ROWS:
            self._few.append((row.packet, quotable(row.text)))
        # The row's name is its first code, so groups are at most the 256 codes, each malformed or not.
        code = row.readings[0].code if row.readings else None
        name = ("" if code is None else code_name(code)) + (MALFORMED if row.malformed else "")
        group = self._groups.get(name)
        if group is None:
            alarming = row.malformed or (code not in {0, None} and code in CODE_NAMES)
            group = self._groups[name] = _Group(quotable(row.text), row.packet, row.malformed, alarming)
        elif group.count == 1:
            group.text = quotable(name)
        group.count += 1

    def words(self) -> str | None:
        """Return the line, None when every row is a TCP row."""
        if not self.total:
            return None
        return _listed(self._few) if self.total <= FEW_ROWS else _grouped(list(self._groups.values()))


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


def _listed(few: list[tuple[int, str]]) -> str:
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
