"""How numbers and foreign text read in every report: durations, sizes, packet lists, quoted bytes."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from analyzer.cells import MARKS, even, fold

QUOTED: Final = 60
"""Characters of text from the network that are shown."""
LISTED_PACKETS: Final = 6
EXACT_BYTES: Final = 9_999
ASCII: Final = str.maketrans(
    {
        "✕": "x", "✓": "ok", "│": "|", "┊": ":", "─": "-", "▶": ">", "◀": "<", "●": "o", "–": "-", "−": "-",
        "·": "-", "…": "...", "µ": "u", "×": "x", "▇": "#", "→": "->", "←": "<-", "≥": ">=", "’": "'", "“": '"',
        "”": '"',
    }
)  # fmt: skip
"""What stands for our own marks where the output takes ASCII only."""
TOGETHER: Final = re.compile(
    r'"[^" ]+(?: [^" ]+){1,2}"'  # short quotes
    r"|\b(?:[Pp]ackets?|[Aa]ttempts?|port|link type|type|code|--[a-z-]+) (?=[\dA-Z])"
    r"|\d (?=(?:µs|ms|s|min|h|d|bytes?|[kMGT]B)\b)"
    r"|\b(?:min|h|d) (?=\d+ (?:s|min|h)\b)"
    r"|(?<![\w-])-[a-z] (?=\w)"  # an option and its value
    r"|\bsparkshark explain (?=SPK)"
)
"""Spaces at which a line must not end: a number stays with its unit, a packet with its number."""
HELD: Final = "\u00a0"
UNSEEN: Final = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)
"""Characters that count as printable and show nothing: fillers and variation selectors, in which text can be hidden."""
PILED: Final = 3
"""Combining characters on one base that are shown: as many as languages need. A pile of them covers other lines."""
HARMLESS: Final = re.compile(f"[ -~{MARKS}]*")
"""ASCII and our own marks: what nearly every line is made of."""


def number(value: int) -> str:
    """Return 43000 as ``43,000``."""
    return f"{value:,}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return ``1 packet``, ``2 packets``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def size(count: int) -> str:
    """Return bytes exactly up to 9,999, then as ``62.0 kB``, ``1.1 GB``."""
    if count <= EXACT_BYTES:
        return plural(count, "byte")
    value, unit = count / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if value < 999.95:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}"


def duration(nanoseconds: int) -> str:
    """Return a time span with three digits at most: ``42 µs``, ``0.2 ms``, ``59 ms``, ``20.0 s``,
    ``4 min 10 s``, ``17 h 46 min``, ``3 d 4 h``."""
    if nanoseconds < 0:
        return "−" + duration(-nanoseconds)
    if nanoseconds < 99_500:
        return f"{nanoseconds / 1e3:.0f} µs"
    milliseconds = nanoseconds / 1e6
    if milliseconds < 9.95:
        return f"{milliseconds:.1f} ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    seconds = nanoseconds / 1e9
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def moment(time_ns: int) -> str:
    """Return a time as ``2026-11-23 03:08:23 UTC``."""
    try:
        return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, OSError, ValueError):
        return f"{time_ns // 1_000_000_000} s after 1970"


def clock(time_ns: int) -> str:
    """Return the time of day as ``03:08`` (UTC)."""
    try:
        return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%H:%M")
    except (OverflowError, OSError, ValueError):
        return "--:--"


def packets(numbers: Iterable[int], *, most: int = LISTED_PACKETS) -> str:
    """Return ``packet 8`` or ``packets 8, 24, 35``, with the count of those left out."""
    every = sorted(set(numbers))
    listed = ", ".join(number(n) for n in every[:most])
    if len(every) > most:
        listed += f" and {number(len(every) - most)} more"
    return f"{'packet' if len(every) == 1 else 'packets'} {listed}"


def span(first: int, last: int) -> str:
    """Return a run of packets: ``8`` or ``8–14``."""
    return number(first) if first == last else f"{number(first)}–{number(last)}"


def endpoint(address: str, port: int) -> str:
    """Return ``192.168.1.104:5683``, ``[fe80::1]:5683``."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def with_article(words: str) -> str:
    """Return ``a ping``, ``an event``, ``an ARP question``."""
    return f"{'an' if words[:1] in 'aeiouA' else 'a'} {words}"


def listing(words: Sequence[str], last: str = "and") -> str:
    """Join words as a sentence does: ``a, b and c``."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def held_together(text: str) -> str:
    """Return ``text`` with spaces at which no line ends between numbers and their units, packets and their numbers."""
    return TOGETHER.sub(lambda found: found[0].replace(" ", HELD), text)


def wrap(text: str, width: int, *, first: str = "", then: str = "") -> list[str]:
    """Return ``text`` in lines of ``width`` columns at most, indented by ``first`` and ``then``; foreign characters
    that a terminal could act on come out escaped. Numbers are not parted from their units.
    """
    held = held_together(printable(text))
    if even(held):
        lines = textwrap.wrap(held, width, initial_indent=first, subsequent_indent=then, break_on_hyphens=False)
    else:
        lines = fold(held, width, first, then)
    return [line.replace(HELD, " ") for line in lines]


def plain(text: str) -> str:
    """Return ``text`` in ASCII: our own marks by their stand-ins, everything else escaped."""
    return text.translate(ASCII).encode("ascii", "backslashreplace").decode("ascii")


def printable(text: str) -> str:
    """Escape everything in foreign text that a terminal could act on, that changes its direction, or is not seen."""
    return text if HARMLESS.fullmatch(text) else "".join(_shown(text))


def _shown(text: str) -> Iterator[str]:
    for char, harmless in judged(text):
        yield char if harmless else char.encode("unicode_escape").decode("ascii")


def judged(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each character of foreign text, and whether it can be shown as it is."""
    pile = PILED  # a combining character that comes first would change what stands before the text
    for char in text:
        # What is not printable to Python includes controls, direction marks, private and unassigned characters.
        seen = char.isprintable() and char not in UNSEEN
        if char > "\u02ff" and unicodedata.category(char)[0] == "M":
            pile += 1
            seen = seen and pile <= PILED
        else:
            pile = 0 if char.isalnum() else PILED
        yield char, seen


def quote(data: bytes, *, most: int = QUOTED) -> str:
    """Return bytes from the network as quoted, escaped text, cut at ``most`` characters.

    Bytes that are no UTF-8 text are shown by their hex digits.
    """
    try:
        characters = data.decode("utf-8")
    except UnicodeDecodeError:
        characters = ""
    units = list(_shown(characters)) if characters else [_shown_byte(byte) for byte in data]
    text = ""
    for unit in units:
        if len(text) + len(unit) > most:
            return f'"{text}…"'
        text += '\\"' if unit == '"' else unit
    return f'"{text}"'


def _shown_byte(byte: int) -> str:
    return chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}"
