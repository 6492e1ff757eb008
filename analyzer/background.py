"""What else is in the capture: the packets around the conversations, counted and, where they matter, remembered.

Names looked up, ARP and neighbour questions, ICMP complaints, announcements of devices, DHCP, TCP connections on
other ports that have the shape of ours. All of it bounded; all of it is evidence, none of it judgement.
"""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from analyzer.catalogue import (
    DEVICE_ID_SIZE,
    DEVICE_READ_LIMIT,
    DNS_PORT,
    DTLS_PORT,
    IDENTITY_SIZE,
    NONCE_SIZE,
    PRESENCE_PREFIX,
    PRESENCE_SIZE,
    PROBE_ADDRESS,
    PROBE_PORT,
    SPARK_PORT,
)
from analyzer.frames import chain
from analyzer.network.ip import VXLAN_PORT
from analyzer.network.sieve import Sieve
from analyzer.network.units import (
    ACK,
    FIN,
    IPV4_SIZE,
    RST,
    SYN,
    Arp,
    Datagram,
    IcmpError,
    Other,
    Segment,
    Unit,
    address_text,
)

FLOWS: Final = 65_536
"""TCP connections on other ports that are looked at for our shape; each is forgotten once it is decided."""
LOOKUPS: Final = 256
"""Askers and names of the cloud that are remembered."""
LOOKUP_PACKETS: Final = 16_384
"""Questions and answers about those names that are kept one by one, all together."""
ANNOUNCERS: Final = 4096
"""Addresses whose announcements are kept: only those of a local network are heard, which has some hundreds."""
ANNOUNCEMENTS: Final = 64
"""Announcements of one address that are kept: those behind its first twenty logins, at least."""
MACHINES: Final = 4096
"""Machines of which it is remembered what else they were answered."""
ANSWERS: Final = 64
"""Answers of one kind that are kept for a machine."""
ANSWER_SPAN: Final = 10_000_000_000
"""Spans of time (ns) of which one answer is kept: it is enough to show that the network worked then."""
PROBES: Final = 64
"""Tests of the internet connection that are kept for a machine."""
COMPLAINTS: Final = 64
"""ICMP errors about our ports that are kept."""
QUESTIONS: Final = 1024
"""ARP questions that are remembered, neighbour solicitations included."""
ARP_AGAIN: Final = (500_000_000, 5_000_000_000)
"""How soon (ns) an ARP question is asked again that got no answer: each second, or some seconds later. What comes
sooner is a copy of the packet, what comes later may have been answered in between.
"""
PORTS: Final = 1024
"""Server ports whose packets and connections are counted apart: four of them are told of."""
MIDWAY_SEGMENTS: Final = 8
"""Packets in a row that are exact runs of frames, for a connection whose start was not captured."""
CLOUD_NAMES: Final = ("spark.io", "particle.io")
DHCP_PORT: Final = 67
HEARD_PORTS: Final = (DNS_PORT, DHCP_PORT, SPARK_PORT, DTLS_PORT, VXLAN_PORT)
"""UDP ports on which something may be said that matters here, or inside which there may be connections."""
WEB_PORTS: Final = frozenset((80, 443, 8080))
DNS_HEADER: Final = 12
DNS_LENGTH: Final = 2
"""Bytes in front of each message over TCP that say how long it is (RFC 1035 4.2.2)."""
DHCP_ASKS: Final = b"\x01\x01\x06"
"""A client's message, from a network whose addresses have six bytes, as Ethernet and Wi-Fi have."""
DHCP_OWN_ADDRESS: Final = slice(12, 16)
DHCP_MAC: Final = slice(28, 34)
DHCP_COOKIE_AT: Final = 236
DHCP_COOKIE: Final = bytes((99, 130, 83, 99))
JOINS: Final = 256
"""Questions for an address that are kept for a machine; one start makes two."""
DNS_TYPES: Final = {1: "A", 28: "AAAA"}
TRUNCATED: Final = 0x02
"""The bit in the third byte of a DNS answer that says: not all of it is here."""
NAME: Final = re.compile(rb"[a-z0-9_.-]+")
_PROBED: Final = (socket.inet_aton(PROBE_ADDRESS), PROBE_PORT)
MUTE: Final = (round((DEVICE_READ_LIMIT - 1) * 1e9), round((DEVICE_READ_LIMIT + 3) * 1e9))
"""How long (ns) a connection is open in which a device waits in vain for a greeting: 20 s, and what it needs to
close."""


@dataclass(frozen=True, slots=True)
class LookupPacket:
    """A question for a name of the cloud, or what came back."""

    packet: int
    time_ns: int
    identifier: int
    kind: str  # of address: "A" or "AAAA"
    found: tuple[str, ...] | None = None  # None for a question; () when there is no such name or address
    unread: bool = False  # an answer that the capture cut or that cannot be read


@dataclass(slots=True)
class Lookup:
    """Questions of one machine for one name of the cloud."""

    asker: str
    name: str
    first_packet: int
    asked: int = 0
    answered: int = 0
    failed: int = 0
    packets: list[LookupPacket] = field(default_factory=list)
    complete: bool = True  # whether `packets` holds all of them
    places: set[str] = field(default_factory=set)  # addresses that any answer in `packets` gives
    unread: bool = False  # whether one of those answers could not be read


@dataclass(frozen=True, slots=True)
class Answer:
    """Something else that a machine was answered: a sign that its network works."""

    packet: int
    time_ns: int
    source: bytes
    port: int


@dataclass(slots=True)
class Question:
    """An ARP question, or for IPv6 a neighbour solicitation."""

    packet: int
    time_ns: int
    asker: bytes
    target: bytes
    last_ns: int = 0
    tries: int = 1
    insisted: int = 0  # tries that came as soon after the one before as those of a machine that gets no answer
    answer_packet: int | None = None
    answer_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Announcement:
    """A device's presence datagram: the only place where its ID is in clear."""

    packet: int
    address: bytes
    mac: bytes | None
    device_id: str
    time_ns: int = 0


@dataclass(slots=True)
class Lookalike:
    """Connections on another port that have the shape of this protocol."""

    port: int
    first_packet: int
    count: int = 1


@dataclass(slots=True)
class Mute:
    """Connections to a web port in which nobody said a word until the connecting side left after 20 s."""

    port: int
    first_packet: int
    count: int = 1


@dataclass(slots=True)
class _Flow:
    server: bytes
    server_port: int
    packet: int
    midway: bool = False
    accepted_ns: int | None = None  # None as well once somebody has said something
    nonce: bool = False
    runs: int = 0


@dataclass(slots=True)
class Held:
    """Packets that were counted, not looked at: all by link type; TCP segments among them by the lower port, name
    lookups, other datagrams.
    """

    links: Counter[int] = field(default_factory=Counter)
    tcp: Counter[int] = field(default_factory=Counter)
    lookups: int = 0
    datagrams: int = 0


class Background:
    """Takes every packet that belongs to no conversation of the wanted ports."""

    def __init__(self, names: Iterable[str] = (), sieve: Sieve | None = None) -> None:
        """``names`` (lower case) are remembered like the cloud's. ``sieve`` is told which connections are of no
        interest, and asked in the end what it has held back.
        """
        self._names = frozenset(names)
        # Every name that is looked for has one of these in it, which is sooner seen than what name it is.
        self._parts = tuple({_longest_label(name) for name in (*CLOUD_NAMES, *self._names)})
        self._sieve = sieve or Sieve(HEARD_PORTS)
        self.packets = 0
        self.kinds: Counter[str] = Counter()  # packets by rough kind
        self.tcp_connections: Counter[int] = Counter()  # connections by server port
        self.tcp_packets: Counter[int] = Counter()
        self.lookups: dict[tuple[str, str], Lookup] = {}
        self.connected: dict[bytes, list[Answer]] = {}  # who got a connection on another port accepted
        self.resolved: dict[bytes, list[Answer]] = {}  # who got a name lookup answered, whatever the name
        self.probes: dict[bytes, list[tuple[int, int]]] = {}  # who tested the internet: packets and times (ns)
        self.joined: dict[bytes, list[tuple[int, int]]] = {}  # who asked for an address, by MAC: packets and times (ns)
        self.mute: dict[int, Mute] = {}
        self.heard: dict[bytes, list[Announcement]] = {}  # announcements by address, oldest first
        self.questions: dict[tuple[bytes, bytes], Question] = {}
        self.complaints: list[IcmpError] = []
        self.lookalikes: dict[int, Lookalike] = {}
        self.coap_datagrams = 0
        self.first_coap_datagram: int | None = None
        self.dtls_datagrams = 0
        self._lookup_packets = 0
        self.left_out: Counter[str] = Counter()  # packets that a bound kept from being remembered, by its name
        self.first_dtls_datagram: int | None = None
        self._flows: dict[tuple[bytes, int, bytes, int], _Flow] = {}

    @property
    def announcements(self) -> dict[bytes, Announcement]:
        """The first announcement of each address."""
        return {address: told[0] for address, told in self.heard.items()}

    def take(self, unit: Unit) -> None:
        """Take the next packet."""
        self.packets += 1
        if isinstance(unit, Segment):
            self._take_segment(unit)
        elif isinstance(unit, Datagram):
            self._take_datagram(unit)
        elif isinstance(unit, Arp):
            self.kinds["ARP" if len(unit.target) == IPV4_SIZE else "neighbour discovery"] += 1
            self._take_arp(unit)
        elif isinstance(unit, IcmpError):
            self.kinds["ICMP"] += 1
            if len(self.complaints) < COMPLAINTS:
                self.complaints.append(unit)
            else:
                self.left_out["complaints"] += 1
        elif isinstance(unit, Other):
            self.kinds[unit.kind] += 1

    def count_held(self) -> None:
        """Count what the sieve has held back; once, when everything has been taken."""
        self.packets += self._sieve.held - self._sieve.elsewhere
        if self._sieve.datagrams:
            self.kinds["UDP"] += self._sieve.datagrams
        if self._sieve.lookups:
            self.kinds["DNS"] += self._sieve.lookups
        for port, count in self._sieve.segments.items():
            self._count(port, count)

    def count(self, held: Held) -> None:
        """Count what others held back."""
        self.packets += held.tcp.total() + held.lookups + held.datagrams
        for kind, packets in (("DNS", held.lookups), ("UDP", held.datagrams)):
            if packets:
                self.kinds[kind] += packets
        for port, packets in held.tcp.items():
            self._count(port, packets)

    # -- TCP on other ports ---------------------------------------------------------------------------------

    def _take_segment(self, segment: Segment) -> None:
        port = min(segment.source_port, segment.target_port)
        self._count(port, 1)
        if port == DNS_PORT and segment.length > DNS_HEADER:
            self._take_dns_over_tcp(segment)
        near, far = (segment.source, segment.source_port), (segment.target, segment.target_port)
        key = segment.flow
        flow = self._flows.get(key)
        if segment.flags & SYN:
            if segment.flags & ACK:
                _keep(self.connected, segment)
                if flow is not None and flow.server_port in WEB_PORTS:
                    flow.accepted_ns = segment.time_ns
                    self._wake(near, far)
                return
            if far == _PROBED and not (near[0] in self.probes or len(self.probes) < MACHINES):
                self.left_out["machines"] += 1
            elif far == _PROBED:
                probes = self.probes.setdefault(near[0], [])
                if len(probes) < PROBES:
                    probes.append((segment.number, segment.time_ns))
            if flow is None or flow.midway:
                self._wake(near, far)
                if len(self.tcp_connections) < PORTS or far[1] in self.tcp_connections:
                    self.tcp_connections[far[1]] += 1
                if len(self._flows) < FLOWS:
                    self._flows[key] = _Flow(*far, segment.number)
                else:
                    self.left_out["flows"] += 1
            return
        if flow is not None and flow.accepted_ns is not None and (segment.length or segment.flags & (FIN | RST)):
            self._end_of_silence(flow, segment, segment.time_ns - flow.accepted_ns)
        if flow is None and len(self._flows) < FLOWS:
            if not segment.length:
                return
            server = near if near[1] < far[1] else far
            flow = self._flows[key] = _Flow(*server, segment.number, midway=True)
        if flow is not None and flow.runs >= 0:
            if segment.length:
                self._compare(flow, segment)
        elif (flow is None or flow.accepted_ns is None) and port != DNS_PORT:
            self._sieve.hold(_ends(near, far))

    def _wake(self, near: tuple[bytes, int], far: tuple[bytes, int]) -> None:
        self._sieve.wake(_ends(near, far))
        self._sieve.wake(_ends(far, near))

    def _count(self, port: int, packets: int) -> None:
        self.kinds["TCP"] += packets
        if len(self.tcp_packets) < PORTS or port in self.tcp_packets:
            self.tcp_packets[port] += packets

    def _end_of_silence(self, flow: _Flow, segment: Segment, waited: int) -> None:
        """Count a connection to a web port that ended as a device ends it that waits there for a greeting."""
        flow.accepted_ns = None
        left = (segment.target, segment.target_port) == (flow.server, flow.server_port)
        if segment.length or not left or not MUTE[0] <= waited <= MUTE[1]:
            return
        known = self.mute.get(flow.server_port)
        if known is None:
            self.mute[flow.server_port] = Mute(flow.server_port, flow.packet)
        else:
            known.count += 1

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
            if datagram.source in self.heard or len(self.heard) < ANNOUNCERS:
                told = Announcement(
                    datagram.number,
                    datagram.source,
                    datagram.source_mac,
                    payload[-DEVICE_ID_SIZE:].hex(),
                    datagram.time_ns,
                )
                heard = self.heard.setdefault(datagram.source, [])
                another = bool(heard) and heard[-1].device_id != told.device_id
                if len(heard) < (2 * ANNOUNCEMENTS if another else ANNOUNCEMENTS):  # another unit is always news
                    heard.append(told)
                else:
                    self.left_out["announcements"] += 1
            else:
                self.left_out["announcers"] += 1
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
            if datagram.target_port == DHCP_PORT:
                self._take_dhcp(datagram)

    def _take_dns(self, datagram: Datagram) -> None:
        payload = datagram.payload
        if len(payload) < DNS_HEADER:
            return
        is_answer = is_dns_answer(payload)
        if is_answer:
            _keep(self.resolved, datagram)
        if not self.may_be_of_ours(payload):
            return
        name, kind = _question(payload)
        if not name.endswith(CLOUD_NAMES) and name not in self._names:
            return
        asker = address_text(datagram.target if is_answer else datagram.source)
        lookup = self.lookups.get((asker, name))
        if lookup is None:
            if len(self.lookups) >= LOOKUPS:
                self.left_out["lookups"] += 1
                return
            lookup = self.lookups[asker, name] = Lookup(asker, name, datagram.number)
        found = _addresses(datagram) if is_answer else None
        unread = is_answer and found is None
        if not is_answer:
            lookup.asked += 1
        elif found:
            lookup.answered += 1
        elif found is not None and kind == "A":
            lookup.failed += 1  # a name without an IPv6 address is no failure
        if self._lookup_packets >= LOOKUP_PACKETS:
            lookup.complete = False
            self.left_out["lookup packets"] += 1
            return
        self._lookup_packets += 1
        identifier = int.from_bytes(payload[:2], "big")
        lookup.packets.append(LookupPacket(datagram.number, datagram.time_ns, identifier, kind, found, unread))
        lookup.places.update(found or ())
        lookup.unread = lookup.unread or unread

    def may_be_of_ours(self, payload: bytes) -> bool:
        """Whether a DNS message can be about a name that is remembered, at a glance."""
        end = payload.find(0, DNS_HEADER)  # no name that is looked for has such a byte in it
        asked = payload[DNS_HEADER : end if end > 0 else None].lower()
        for part in self._parts:  # noqa: SIM110 - a generator costs three times as much, for each of many lookups
            if part in asked:
                return True
        return False

    def lookup_tells(self, payload: bytes, target: bytes, time_ns: int) -> bool:
        """Whether `take` would learn more from a DNS message, perhaps with something behind it, than that there is one.

        ``target`` is who it comes to, ``time_ns`` when.
        """
        if is_dns_answer(payload):
            kept = self.resolved.get(target)
            if _is_news(kept, time_ns) and (kept or len(self.resolved) < MACHINES):
                return True
        return self.may_be_of_ours(payload)

    def _take_dhcp(self, datagram: Datagram) -> None:
        """Remember a machine that asks for an address because it has none (RFC 2131 2, 4.3.2); who only extends its
        lease names the one it has.
        """
        payload = datagram.payload
        if payload[:3] != DHCP_ASKS or payload[DHCP_COOKIE_AT : DHCP_COOKIE_AT + 4] != DHCP_COOKIE:
            return
        mac = payload[DHCP_MAC]
        if any(payload[DHCP_OWN_ADDRESS]):
            return
        if mac not in self.joined and len(self.joined) >= MACHINES:
            self.left_out["machines"] += 1
            return
        times = self.joined.setdefault(mac, [])
        if len(times) < JOINS:
            times.append((datagram.number, datagram.time_ns))

    def _take_dns_over_tcp(self, segment: Segment) -> None:
        """Take a message that one segment holds whole, behind its length (RFC 7766 8). Others are left unread."""
        size = int.from_bytes(segment.payload[:DNS_LENGTH], "big")
        if len(segment.payload) == segment.length == DNS_LENGTH + size and size >= DNS_HEADER:
            self._take_dns(
                Datagram(
                    segment.number,
                    segment.time_ns,
                    segment.source,
                    segment.source_port,
                    segment.target,
                    segment.target_port,
                    size,
                    segment.payload[DNS_LENGTH:],
                    segment.source_mac,
                )
            )

    # -- ARP ------------------------------------------------------------------------------------------------

    def _take_arp(self, arp: Arp) -> None:
        if arp.operation == 1:
            known = self.questions.get((arp.sender, arp.target))
            if known is not None and known.answer_packet is None:
                known.tries += 1
                known.insisted += ARP_AGAIN[0] <= arp.time_ns - known.last_ns <= ARP_AGAIN[1]
                known.last_ns = arp.time_ns
            elif known is None and len(self.questions) < QUESTIONS:
                self.questions[arp.sender, arp.target] = Question(
                    arp.number, arp.time_ns, arp.sender, arp.target, arp.time_ns
                )
            elif known is None:
                self.left_out["questions"] += 1
        elif arp.operation == 2:
            known = self.questions.get((arp.target, arp.sender))
            if known is not None and known.answer_packet is None:
                known.answer_packet, known.answer_ns = arp.number, arp.time_ns


def is_dns_answer(payload: bytes) -> bool:
    """Whether a DNS message is an answer; without a header it is nothing."""
    return len(payload) >= DNS_HEADER and payload[2] & 0x80 != 0


def answer_span(time_ns: int) -> int:
    """Return the number of the span of time that an answer falls into. Such spans begin at the same times for all who
    go through a part of the capture.
    """
    return time_ns // ANSWER_SPAN


def _ends(near: tuple[bytes, int], far: tuple[bytes, int]) -> bytes:
    """Both ends of a connection as a header has them: addresses, then ports."""
    return near[0] + far[0] + near[1].to_bytes(2) + far[1].to_bytes(2)


def _keep(machines: dict[bytes, list[Answer]], unit: Segment | Datagram) -> None:
    """Remember an answer that shows that a machine's network works, if none nearby does so already."""
    kept = machines.get(unit.target)
    if kept is None:
        if len(machines) >= MACHINES:
            return
        kept = machines[unit.target] = []
    if _is_news(kept, unit.time_ns):
        kept.append(Answer(unit.number, unit.time_ns, unit.source, unit.source_port))


def _is_news(kept: list[Answer] | None, time_ns: int) -> bool:
    return not kept or (len(kept) < ANSWERS and answer_span(time_ns) > answer_span(kept[-1].time_ns))


def _longest_label(name: str) -> bytes:
    return max(name.split("."), key=len).encode()


def _question(payload: bytes) -> tuple[str, str]:
    """Return the name that a DNS message is about, in lower case, and the kind of address; "" where there is none.

    A question's name is never compressed (RFC 1035 4.1.4: there is nothing before it to point at).
    """
    labels, offset = [], DNS_HEADER
    while offset < len(payload) and 0 < payload[offset] < 64:
        labels.append(payload[offset + 1 : offset + 1 + payload[offset]])
        offset += 1 + payload[offset]
    name = b".".join(labels).lower()
    kind = DNS_TYPES.get(int.from_bytes(payload[offset + 1 : offset + 3], "big"))
    if kind is None or not NAME.fullmatch(name):
        return "", ""
    return name.decode("ascii"), kind


def _addresses(datagram: Datagram) -> tuple[str, ...] | None:
    """Return the addresses in a DNS answer, at most eight; None for an answer that is not whole."""
    import dpkt.dns  # noqa: PLC0415 - only captures with such an answer pay for it

    if len(datagram.payload) < datagram.length or datagram.payload[2] & TRUNCATED:
        return None
    try:
        found = [
            address_text(record.ip if record.type == dpkt.dns.DNS_A else record.ip6)
            for record in dpkt.dns.DNS(datagram.payload).an
            if record.type in (dpkt.dns.DNS_A, dpkt.dns.DNS_AAAA)
        ]
    except Exception:
        return None
    return tuple(found[:8])
