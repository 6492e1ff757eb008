"""One range of a file, gone through for what the analysis must see: everything of this protocol, and little else.

Where other traffic goes on that began before the range, it cannot be known here how it began. So of each connection
so much is kept as matters in the worst case: all segments up to the second one with data behind any beginning, and
all that open or close it. The analysis finds what it needs among them and counts the rest, as if it had read the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from analyzer.background import HEARD_PORTS, Background, Held
from analyzer.jobs.blobs import packed
from analyzer.network import Decoder
from analyzer.network.sieve import Sieve
from analyzer.network.units import ACK, FIN, RST, SYN, Other, Segment
from analyzer.share import owner

if TYPE_CHECKING:
    from analyzer.capture import Packet

FRAGMENT: Final = "fragment"


@dataclass(slots=True)
class Sifted:
    """What is left of a range. ``shares`` are the packets of each share's conversations, ``around`` all the others.

    With one share everything is in ``around``, in its order. Pieces of datagrams are in all of them: whose they are,
    is only known when they are put together. ``held`` counts the packets that are not in ``around``; those of the
    shares are nothing but packets there.
    """

    shares: tuple[bytes, ...]
    around: bytes
    held: Held = field(default_factory=Held)


class Sifter:
    """Sifts the packets of one range, in their order; ``sieve`` is for the reader."""

    def __init__(self, ports: Iterable[int], shares: int) -> None:
        self.sieve = Sieve(HEARD_PORTS)
        self._ports = frozenset(ports)
        self._background = Background((), self.sieve)
        self._decoder = Decoder()
        self._shares: list[list[bytes]] = [[] for _ in range(shares if shares > 1 else 0)]
        self._around: list[bytes] = []
        self._held: Counter[int] = Counter()
        self._kept_tcp: Counter[int] = Counter()

    def take(self, packet: Packet) -> None:
        """Keep a packet, or count it."""
        unit = self._decoder.decode(packet)
        if type(unit) is Segment:
            if unit.source_port in self._ports or unit.target_port in self._ports:
                if not self._shares:
                    self._around += packed(packet)
                    return
                self._shares[owner(unit, self._ports, len(self._shares))] += packed(packet)
                self._held[packet.link_type] += 1
                return
            self._background.take(unit)
            if not unit.length and unit.flags & (SYN | ACK | FIN | RST) == ACK:
                # An acknowledgement alone tells nothing that is not told by what it acknowledges.
                self._held[packet.link_type] += 1
                return
            self._kept_tcp[min(unit.source_port, unit.target_port)] += 1
        elif type(unit) is Other and unit.kind == FRAGMENT:
            for pieces in self._shares:
                pieces.extend(packed(packet))
        self._around += packed(packet)

    def done(self) -> Sifted:
        """Return what was kept and counted."""
        self._background.count_held()
        tcp = Counter(self._background.tcp_packets)
        tcp.subtract(self._kept_tcp)
        shares = tuple(b"".join(pieces) for pieces in self._shares)
        held = Held(self._held + self.sieve.held_by_link, +tcp, self.sieve.datagrams)
        return Sifted(shares, b"".join(self._around), held)
