"""What else is in the capture: the packets around the conversations, counted and, where they matter, remembered.

Names looked up, ARP questions, ICMP complaints, announcements of devices, and TCP connections on other ports
that have the shape of ours. All of it bounded; all of it is evidence, none of it judgement.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from analyzer.catalogue import (
    DEVICE_ID_SIZE,
    DTLS_PORT,
    IDENTITY_SIZE,
    NONCE_SIZE,
    PRESENCE_PREFIX,
    PRESENCE_SIZE,
    SPARK_PORT,
)
from analyzer.frames import chain
from analyzer.network.units import ACK, SYN, Arp, Datagram, IcmpError, Other, Segment, Unit, address_text

FLOWS: Final = 65_536
"""TCP connections on other ports that are looked at for our shape; each is forgotten once it is decided."""
LOOKUPS: Final = 256
"""Askers and names of the cloud that are remembered."""
ANNOUNCERS: Final = 4096
COMPLAINTS: Final = 64
"""ICMP errors about our ports that are kept."""
QUESTIONS: Final = 1024
"""ARP questions that are remembered."""
PORTS: Final = 1024
MIDWAY_SEGMENTS: Final = 8
"""Packets in a row that are exact runs of frames, for a connection whose start was not captured."""
CLOUD_NAMES: Final = ("spark.io", "particle.io")
WEB_PORTS: Final = frozenset((80, 443, 8080))
DNS_PORT: Final = 53


@dataclass(slots=True)
class Lookup:
    """Questions of one machine for one name of the cloud."""

    asker: str
    name: str
    first_packet: int
    asked: int = 0
    answered: int = 0
    failed: int = 0
    addresses: set[str] = field(default_factory=set)
    questions_ns: list[int] = field(default_factory=list)  # at most the first 16


@dataclass(slots=True)
class Question:
    """An ARP question."""

    packet: int
    time_ns: int
    asker: bytes
    target: bytes
    tries: int = 1
    answer_packet: int | None = None
    answer_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Announcement:
    """A device's presence datagram: the only place where its ID is in clear."""

    packet: int
    address: bytes
    mac: bytes | None
    device_id: str


@dataclass(slots=True)
class Lookalike:
    """Connections on another port that have the shape of this protocol."""

    port: int
    first_packet: int
    count: int = 1


@dataclass(slots=True)
class _Flow:
    server: bytes
    server_port: int
    packet: int
    midway: bool = False
    nonce: bool = False
    runs: int = 0


class Background:
    """Takes every packet that belongs to no conversation of the wanted ports."""

    def __init__(self) -> None:
        self.packets = 0
        self.kinds: Counter[str] = Counter()  # packets by rough kind
        self.tcp_connections: Counter[int] = Counter()  # connections by server port
        self.tcp_packets: Counter[int] = Counter()
        self.lookups: dict[tuple[str, str], Lookup] = {}
        self.announcements: dict[bytes, Announcement] = {}
        self.questions: dict[tuple[bytes, bytes], Question] = {}
        self.complaints: list[IcmpError] = []
        self.lookalikes: dict[int, Lookalike] = {}
        self.coap_datagrams = 0
        self.first_coap_datagram: int | None = None
        self.dtls_datagrams = 0
        self.first_dtls_datagram: int | None = None
        self._flows: dict[tuple[bytes, int, bytes, int], _Flow] = {}

    def take(self, unit: Unit) -> None:
        """Take the next packet."""
        self.packets += 1
        if isinstance(unit, Segment):
            self._take_segment(unit)
        elif isinstance(unit, Datagram):
            self._take_datagram(unit)
        elif isinstance(unit, Arp):
            self.kinds["ARP"] += 1
            self._take_arp(unit)
        elif isinstance(unit, IcmpError):
            self.kinds["ICMP"] += 1
            if len(self.complaints) < COMPLAINTS:
                self.complaints.append(unit)
        elif isinstance(unit, Other):
            self.kinds[unit.kind] += 1

    # -- TCP on other ports ---------------------------------------------------------------------------------

    def _take_segment(self, segment: Segment) -> None:
        self.kinds["TCP"] += 1
        port = min(segment.source_port, segment.target_port)
        if len(self.tcp_packets) < PORTS or port in self.tcp_packets:
            self.tcp_packets[port] += 1
        near, far = (segment.source, segment.source_port), (segment.target, segment.target_port)
        key = segment.flow
        flow = self._flows.get(key)
        if segment.flags & SYN:
            if not segment.flags & ACK and (flow is None or flow.midway):
                if len(self.tcp_connections) < PORTS or far[1] in self.tcp_connections:
                    self.tcp_connections[far[1]] += 1
                if len(self._flows) < FLOWS:
                    self._flows[key] = _Flow(*far, segment.number)
            return
        if not segment.length:
            return
        if flow is None:
            if len(self._flows) < FLOWS:
                server = near if near[1] < far[1] else far
                flow = self._flows[key] = _Flow(*server, segment.number, midway=True)
            else:
                return
        if flow.runs >= 0:
            self._compare(flow, segment)

    def _compare(self, flow: _Flow, segment: Segment) -> None:
        """Follow one connection until it is plain that it has, or has not, the shape of this protocol."""
        from_server = (segment.source, segment.source_port) == (flow.server, flow.server_port)
        if flow.midway:
            count, exact = chain(segment.payload)
            flow.runs = flow.runs + 1 if count and exact else -1
            if flow.runs < MIDWAY_SEGMENTS:
                return
        elif not flow.nonce:
            flow.nonce = from_server and segment.length == NONCE_SIZE
            if not flow.nonce:
                flow.runs = -1
            return
        elif from_server or segment.length != IDENTITY_SIZE:
            flow.runs = -1
            return
        flow.runs = -1
        known = self.lookalikes.get(flow.server_port)
        if known is not None:
            known.count += 1
        elif len(self.lookalikes) < PORTS:
            self.lookalikes[flow.server_port] = Lookalike(flow.server_port, flow.packet)

    # -- UDP ------------------------------------------------------------------------------------------------

    def _take_datagram(self, datagram: Datagram) -> None:
        ports = (datagram.source_port, datagram.target_port)
        payload = datagram.payload
        if DNS_PORT in ports:
            self.kinds["DNS"] += 1
            self._take_dns(datagram)
        elif (
            datagram.target_port == SPARK_PORT and len(payload) == PRESENCE_SIZE and payload.startswith(PRESENCE_PREFIX)
        ):
            self.kinds["announcement"] += 1
            if len(self.announcements) < ANNOUNCERS:
                self.announcements.setdefault(
                    datagram.source,
                    Announcement(
                        datagram.number, datagram.source, datagram.source_mac, payload[-DEVICE_ID_SIZE:].hex()
                    ),
                )
        elif DTLS_PORT in ports:
            self.kinds["UDP 5684"] += 1
            self.dtls_datagrams += 1
            self.first_dtls_datagram = self.first_dtls_datagram or datagram.number
        elif SPARK_PORT in ports:
            self.kinds["UDP 5683"] += 1
            if payload and payload[0] >> 6 == 1 and payload[0] & 15 <= 8:
                self.coap_datagrams += 1
                self.first_coap_datagram = self.first_coap_datagram or datagram.number
        else:
            self.kinds["UDP"] += 1

    def _take_dns(self, datagram: Datagram) -> None:
        if b"spark\x02io" not in datagram.payload and b"particle\x02io" not in datagram.payload:
            return
        import dpkt.dns  # noqa: PLC0415 - only captures with such a question pay for it

        try:
            message = dpkt.dns.DNS(datagram.payload)
            names = [question.name.lower() for question in message.qd]
            answers = [
                address_text(record.ip if record.type == dpkt.dns.DNS_A else record.ip6)
                for record in message.an
                if record.type in (dpkt.dns.DNS_A, dpkt.dns.DNS_AAAA)
            ]
        except Exception:
            return
        name = next((n for n in names if n.endswith(CLOUD_NAMES)), None)
        if name is None:
            return
        asker = address_text(datagram.source if message.qr == dpkt.dns.DNS_Q else datagram.target)
        lookup = self.lookups.get((asker, name))
        if lookup is None:
            if len(self.lookups) >= LOOKUPS:
                return
            lookup = self.lookups[asker, name] = Lookup(asker, name, datagram.number)
        if message.qr == dpkt.dns.DNS_Q:
            lookup.asked += 1
            if len(lookup.questions_ns) < 16:
                lookup.questions_ns.append(datagram.time_ns)
        elif answers:
            lookup.answered += 1
            lookup.addresses.update(answers[:8])
        else:
            lookup.failed += 1

    # -- ARP ------------------------------------------------------------------------------------------------

    def _take_arp(self, arp: Arp) -> None:
        if arp.operation == 1:
            known = self.questions.get((arp.sender, arp.target))
            if known is not None and known.answer_packet is None:
                known.tries += 1
            elif known is None and len(self.questions) < QUESTIONS:
                self.questions[arp.sender, arp.target] = Question(arp.number, arp.time_ns, arp.sender, arp.target)
        elif arp.operation == 2:
            known = self.questions.get((arp.target, arp.sender))
            if known is not None and known.answer_packet is None:
                known.answer_packet, known.answer_ns = arp.number, arp.time_ns
