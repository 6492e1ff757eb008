"""What became of the verdict, and whether anything of the network is left: asked of the file that was written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from analyzer.capture import Capture
from analyzer.findings import Finding
from analyzer.network import Arp, Datagram, Decoder, IcmpError, Segment, Unit, address_text
from analyzer.network.units import IPV4_SIZE
from analyzer.redaction.disguise import BROADCAST, KEPT, NO_MAC, Disguise

if TYPE_CHECKING:
    from analyzer.trace import Trace

MAC_SIZE: Final = 6
SEARCHED: Final = 64
"""Names that are searched for as bytes in all payloads: sealed bytes spell none of four bytes but by chance, and with
thousands of machines the search would take longer than all the rest.
"""
TEXTS: Final = re.compile(
    rb"(?<![0-9A-Za-z.])(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}"
    rb"|(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}"
    rb"|[0-9A-Fa-f]{24}"
    rb"|[0-9A-Fa-f]{12}"
    rb"|[0-9A-Fa-f]{8})(?![0-9A-Za-z])"
)
"""What an address, a hardware address or a device ID looks like in text or in hex digits."""


@dataclass(slots=True)
class Same:
    """Codes of findings, with how often each was made: in both captures, in the first alone, in the second alone."""

    kept: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    gained: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether nothing became of any of them."""
        return not self.lost and not self.gained


def compare(before: Trace, after: Trace) -> Same:
    """Return which findings two analyses share; a finding of another severity or confidence is another one."""
    one, other = Counter(map(_key, before.findings)), Counter(map(_key, after.findings))
    shared = one & other
    return Same(*(list(dict.fromkeys(key[0] for key in keys)) for keys in (shared, one - shared, other - shared)))


def _key(finding: Finding) -> tuple[str, str, str, int]:
    return finding.code, finding.severity, finding.confidence, finding.count


def leaks(path: str, disguise: Disguise, names: Collection[bytes] = (), ids: Iterable[bytes] = ()) -> Iterator[str]:
    """Yield what is found in the capture at ``path`` that should not be there: addresses in its packets that nobody
    was given, and in what they carry whatever spells a name that was replaced, one of the device ``ids``, or is one of
    the words in ``names``.
    """
    given, hardware = disguise.given, {NO_MAC, BROADCAST, *disguise.hardware.values()}
    originals = [old for table in (disguise.addresses, disguise.hardware, disguise.ids) for old in table]
    hidden = {*originals, *ids} - KEPT - {NO_MAC, BROADCAST}
    told = {text for old in hidden for text in spellings(old)}
    raw = sorted(old for old in hidden if len(old) >= MAC_SIZE)[:SEARCHED]
    words = re.compile(b"|".join(re.escape(name) for name in sorted(names)), re.IGNORECASE) if names else None
    decoder = Decoder()
    for packet in Capture([path]):
        unit = decoder.decode(packet)
        for part in _parts(unit):
            if part not in (hardware if len(part) == MAC_SIZE else given):
                yield f"packet {packet.number}: {part.hex()}"
        own = getattr(unit, "payload", b"")
        for old in raw if type(unit) is Segment else ():  # all else is made here, and zeros in it are no address
            if old in own:
                yield f"packet {packet.number}: {old.hex()}"
        for found in TEXTS.finditer(own):
            if found[0].lower() in told:
                yield f"packet {packet.number}: {found[0].decode()}"
        if words is not None and (word := words.search(own)):
            yield f"packet {packet.number}: {word[0].decode('ascii', 'replace')}"


def spellings(name: bytes) -> Iterator[bytes]:
    """Yield the ways in which an address, a hardware address or an ID is written as text, in lower case."""
    yield name.hex().encode()
    if len(name) == MAC_SIZE:
        yield name.hex(":").encode()
        yield name.hex("-").encode()
    elif len(name) == IPV4_SIZE:
        yield address_text(name).encode()
        yield address_text(name[::-1]).encode()


def _parts(unit: Unit) -> Iterator[bytes]:
    """Yield every address and hardware address that a unit names."""
    if type(unit) is Segment:
        yield from (unit.source, unit.target, *filter(None, (unit.source_mac, unit.target_mac)))
    elif type(unit) is Datagram:
        yield from (unit.source, unit.target, *filter(None, (unit.source_mac,)))
    elif type(unit) is Arp:
        yield from (unit.sender, unit.target, *filter(None, (unit.sender_mac,)))
    elif type(unit) is IcmpError:
        yield from (unit.reporter, unit.quoted_source, unit.quoted_target)
