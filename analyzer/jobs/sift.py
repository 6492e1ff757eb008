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

from analyzer.background import HEARD_PORTS, Background, Held, answer_span, is_dns_answer
from analyzer.catalogue import DNS_PORT
from analyzer.frames import chain
from analyzer.jobs.blobs import packed
from analyzer.network import Decoder
from analyzer.network.sieve import Sieve
from analyzer.network.units import ACK, FIN, RST, SYN, Datagram, Other, Segment
from analyzer.share import owner

if TYPE_CHECKING:
    from analyzer.capture import Packet

FRAGMENT: Final = "fragment"
LONG: Final = 256
"""Bytes of payload up to which a segment of another protocol is kept whole, with padding or checksums behind it."""
MACHINES: Final = 65_536
"""Machines whose answered lookups are told apart; those of any more are all kept."""


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
    """Sifts the packets of one range, in their order; ``sieve`` is for the reader. ``names`` as for `Background`."""

    def __init__(self, ports: Iterable[int], names: Iterable[str], shares: int) -> None:
        self.sieve = Sieve(HEARD_PORTS)
        self.sieve.skips.tells = self._tells
        self._ports = frozenset(ports)
        self._background = Background(names, self.sieve)
        self._decoder = Decoder()
        self._shares: list[list[bytes]] = [[] for _ in range(shares if shares > 1 else 0)]
        self._around: list[bytes] = []
        self._held: Counter[int] = Counter()
        self._kept_tcp: Counter[int] = Counter()
        self._lookups = 0
        self._answered: dict[bytes, int] = {}  # the latest span of time in which a machine got a name lookup answered

    def take(self, packet: Packet) -> None:
        """Keep a packet, or count it."""
        before = self._decoder.put_together
        unit = self._decoder.decode(packet)
        if self._decoder.put_together != before or (type(unit) is Other and unit.kind == FRAGMENT):
            # Pieces of a datagram: what it is may depend on others, ahead of this range.
            for pieces in self._shares:
                pieces.extend(packed(packet))
        elif type(unit) is Segment:
            if unit.source_port in self._ports or unit.target_port in self._ports:
                self._keep(packet, unit)
                return
            self._background.take(unit)
            if not unit.length and unit.flags & (SYN | ACK | FIN | RST) == ACK:
                # An acknowledgement alone tells nothing that is not told by what it acknowledges.
                self._held[packet.link_type] += 1
                return
            port = min(unit.source_port, unit.target_port)
            self._kept_tcp[port] += 1
            if len(unit.payload) > LONG and port != DNS_PORT and not chain(unit.payload)[0]:
                # It is no run of frames, and its beginning shows that, too. Its length is in its headers.
                packet.data = packet.data[: LONG - len(unit.payload)]
        elif type(unit) is Datagram and DNS_PORT in (unit.source_port, unit.target_port):
            if not self._tells(unit.payload, unit.target, unit.time_ns):
                self._held[packet.link_type] += 1
                self._lookups += 1
                return
            if is_dns_answer(unit.payload) and (len(self._answered) < MACHINES or unit.target in self._answered):
                span = answer_span(unit.time_ns)
                self._answered[unit.target] = max(span, self._answered.get(unit.target, span))
        self._around += packed(packet)

    def _keep(self, packet: Packet, segment: Segment) -> None:
        """Keep a packet of a conversation for the share that follows it."""
        if not self._shares:
            self._around += packed(packet)
            return
        self._shares[owner(segment, self._ports, len(self._shares))] += packed(packet)
        self._held[packet.link_type] += 1

    def _tells(self, payload: bytes, target: bytes, time_ns: int) -> bool:
        """Whether a DNS message may tell more than that there is one: for the asker alone, or of a name of ours."""
        if is_dns_answer(payload) and answer_span(time_ns) > self._answered.get(target, -1):
            return True
        return self._background.may_be_of_ours(payload)

    def done(self) -> Sifted:
        """Return what was kept and counted."""
        self._background.count_held()
        tcp = Counter(self._background.tcp_packets)
        tcp.subtract(self._kept_tcp)
        shares = tuple(b"".join(pieces) for pieces in self._shares)
        held = Held(
            self._held + self.sieve.held_by_link, +tcp, self._lookups + self.sieve.lookups, self.sieve.datagrams
        )
        return Sifted(shares, b"".join(self._around), held)
