"""From a captured packet to what it is.

Nearly every packet of nearly every capture is TCP or UDP over IPv4 over plain Ethernet. `Decoder.decode` reads that
shape at once; all others go header by header through `analyzer.network.link` and `analyzer.network.ip`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from struct import Struct
from typing import Final

from analyzer.capture.packet import Packet
from analyzer.network.fragments import Fragments
from analyzer.network.frame import Frame, Stop
from analyzer.network.ip import ICMP, ICMP6, TCP, UDP, VXLAN_PORT, Ip, read_extensions, read_ip, read_tunnel
from analyzer.network.link import ARP, IPV4, IPV6, LINKS
from analyzer.network.units import Arp, Datagram, IcmpError, Other, Segment, Unit

# Ethernet, IPv4 without options and TCP without options, end to end: addresses and EtherType; version and
# header size, total length, identification, fragment, time to live, protocol, addresses; ports, numbers, data
# offset with flags, window.
PLAIN: Final = Struct("!6s6sH BxHHHBBxx4s4s HHIIHH4x").unpack_from
PLAIN_SIZE: Final = 54
# Of the same headers: EtherType, version and header size, fragment, protocol, ports.
PLAIN_PORTS: Final = Struct("!12xHB5xHxB10xHH").unpack_from
ETHERNET: Final = 1
# The same without Ethernet, for the link layers in front of it that need more than a glance.
PLAIN_IP: Final = Struct("!BxHHHBBxx4s4s HHIIHH4x").unpack_from
PLAIN_IP_SIZE: Final = 40
UDP_HEADER: Final = 8
SMALLEST_UDP: Final = 20 + UDP_HEADER
"""Bytes of the headers of a datagram, IP's included."""
TCP_HEADER: Final = Struct("!HHIIHH4x").unpack

# Types of ICMP and ICMPv6 that complain about a packet and quote it. A redirect quotes one as well, but
# tells of a better way for a packet that was delivered.
ICMP_ERRORS: Final = {
    4: frozenset((3, 4, 11, 12)),  # unreachable, source quench, time exceeded, parameter problem
    6: frozenset((1, 2, 3, 4)),  # unreachable, too big, time exceeded, parameter problem
}

NEIGHBOUR_MESSAGES: Final = {135: 1, 136: 2}
"""Types of ICMPv6 by which a neighbour is asked for and answers (RFC 4861), as the operations of ARP."""
NEIGHBOUR_HOPS: Final = 255
"""They come from the same network: no router has handled them (RFC 4861 7.1.1)."""
MULTICAST: Final = 0xFF


def tcp_ports(packet: Packet) -> tuple[int, int] | None:
    """Return source and target port of a TCP segment of the usual shape, at a quarter of `decode`'s cost.

    None says nothing about the packet: it is TCP in some other wrapping, or no TCP. Only `Decoder` can tell.
    """
    if packet.link_type == ETHERNET and len(packet.data) >= PLAIN_SIZE:
        kind, version_size, fragment, protocol, source_port, target_port = PLAIN_PORTS(packet.data)
        if version_size == 0x45 and protocol == TCP and kind == IPV4 and not fragment & 0x3FFF:
            return source_port, target_port
    return None


class Decoder:
    """Decodes the packets of one run in their order, since fragments wait here for each other.

    ``kinds`` counts the packets that were none of the protocols read here, by `Other.kind`;
    ``unknown_link_types`` those that came with a link layer nobody here reads, by LINKTYPE_ number.
    ``put_together`` counts datagrams that came in fragments; ``aggregated_unread`` counts 802.11 frames of which only
    the first packet was read (A-MSDU).
    """

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.unknown_link_types: Counter[int] = Counter()
        self.aggregated_unread = 0
        self.put_together = 0
        self._fragments = Fragments()

    @property
    def encrypted_wifi(self) -> int:
        """How many 802.11 data frames were protected, so that nothing in them could be read."""
        return self.kinds["encrypted-wifi"]

    @property
    def fragments_given_up(self) -> int:
        """How many IP datagrams came in fragments of which some are missing, up to now."""
        return self._fragments.given_up + self._fragments.waiting

    @property
    def fragments_crowded_out(self) -> int:
        """How many of them were given up because there was no room for more."""
        return self._fragments.crowded_out

    def decode(self, packet: Packet) -> Unit:
        """Return what ``packet`` is. Never raises, whatever its bytes are."""
        data = packet.data
        if packet.link_type == ETHERNET and len(data) >= PLAIN_SIZE:
            (
                target_mac,
                source_mac,
                kind,
                version_size,
                total,
                identification,
                fragment,
                ttl,
                protocol,
                source,
                target,
                source_port,
                target_port,
                seq,
                ack,
                offset_flags,
                window,
            ) = PLAIN(data)
            if version_size == 0x45 and protocol == TCP and kind == IPV4 and not fragment & 0x3FFF:
                header = offset_flags >> 10 & 0x3C
                length = total - 20 - header
                if header >= 20 and length >= 0:
                    end = 14 + total
                    return Segment(
                        packet.number,
                        packet.time_ns,
                        packet.interface,
                        source,
                        source_port,
                        target,
                        target_port,
                        seq,
                        ack,
                        offset_flags & 0xFFF,
                        window,
                        length,
                        data[34 + header : end],
                        ttl,
                        identification,
                        source_mac,
                        target_mac,
                        data[34:end],
                        len(data) >= end,
                    )
            elif version_size == 0x45 and protocol == UDP and kind == IPV4 and not fragment & 0x3FFF:
                size = seq >> 16  # that is where a datagram has its length
                length = (total if total - 20 < size else size + 20) - SMALLEST_UDP
                if length >= 0 and VXLAN_PORT not in (source_port, target_port):
                    end = 14 + SMALLEST_UDP + length
                    return Datagram(
                        packet.number,
                        packet.time_ns,
                        source,
                        source_port,
                        target,
                        target_port,
                        length,
                        data[14 + SMALLEST_UDP : end],
                        source_mac,
                    )
        return self._decode_any(packet)

    def _decode_any(self, packet: Packet) -> Unit:
        """Decode a packet of any shape."""
        frame = Frame(packet.data, packet.original_length)
        try:
            link = LINKS.get(packet.link_type)
            if link is None:
                raise Stop("link-type")
            kind = link(frame)
            segment = plain_segment(packet, frame) if kind == IPV4 else None
            return segment or self._network(packet, frame, kind)
        except Stop as stop:
            self.kinds[stop.kind] += 1
            if stop.kind == "link-type":
                self.unknown_link_types[packet.link_type] += 1
            return Other(packet.number, packet.time_ns, stop.kind)
        finally:
            self.aggregated_unread += frame.more_in_frame

    def _network(self, packet: Packet, frame: Frame, kind: int) -> Unit:
        """Decode from the network layer on, through whatever tunnels."""
        inner: int | None = kind
        while inner is not None:
            if inner == ARP:
                return arp(packet, frame)
            if inner not in (IPV4, IPV6):
                raise Stop("non-ip")
            ip = read_ip(frame, inner)
            if ip.length is not None:
                frame.claim(ip.length)
            read_extensions(frame, ip)
            while ip.fragment is not None:
                frame = self._reassemble(packet, frame, ip, ip.fragment)
                read_extensions(frame, ip)
            inner = read_tunnel(frame, ip)
        reader = TRANSPORTS.get((ip.version, ip.protocol))
        if reader is None:
            raise Stop("ip")
        return reader(packet, frame, ip)

    def _reassemble(self, packet: Packet, frame: Frame, ip: Ip, fragment: tuple[int, int, bool]) -> Frame:
        """Return the datagram that this fragment completes."""
        identification, offset, more = fragment
        piece = None if frame.end < frame.wire_end else frame.data[frame.at : frame.end]
        # IPv4 numbers its datagrams apart for each protocol; IPv6 does not (RFC 8200 4.5).
        key = (ip.source, ip.target, identification, ip.protocol if ip.version == 4 else -1)
        complete = self._fragments.add(key, ip.protocol, offset, piece, packet.time_ns, more=more)
        if complete is None:
            raise Stop("fragment")
        self.put_together += 1
        ip.protocol, data = complete
        ip.fragment = None
        whole = Frame(data, len(data))
        whole.source_mac, whole.target_mac, whole.layers = frame.source_mac, frame.target_mac, frame.layers
        return whole


def plain_segment(packet: Packet, frame: Frame) -> Segment | None:
    """Return a TCP segment over IPv4 without options, or None for everything else, not having moved."""
    start = frame.at
    if frame.end - start < PLAIN_IP_SIZE:
        return None
    (
        version_size,
        total,
        identification,
        fragment,
        ttl,
        protocol,
        source,
        target,
        source_port,
        target_port,
        seq,
        ack,
        offset_flags,
        window,
    ) = PLAIN_IP(frame.data, start)
    header = offset_flags >> 10 & 0x3C
    length = total - 20 - header
    if version_size != 0x45 or protocol != TCP or fragment & 0x3FFF or header < 20 or length < 0:
        return None
    end = min(start + total, frame.end)
    return Segment(
        packet.number,
        packet.time_ns,
        packet.interface,
        source,
        source_port,
        target,
        target_port,
        seq,
        ack,
        offset_flags & 0xFFF,
        window,
        length,
        frame.data[start + 20 + header : end],
        ttl,
        identification,
        frame.source_mac,
        frame.target_mac,
        frame.data[start + 20 : end],
        end == start + total,
    )


def arp(packet: Packet, frame: Frame) -> Arp:
    """RFC 826, for IPv4 on whatever network has addresses of six bytes."""
    frame.skip(2)
    if frame.take(4) != b"\x08\x00\x06\x04":  # protocol, address sizes
        raise Stop("non-ip")
    operation = frame.number(2)
    sender_mac, sender = frame.take(6), frame.take(4)
    frame.skip(6)
    return Arp(packet.number, packet.time_ns, operation, sender_mac, sender, frame.take(4))


def tcp(packet: Packet, frame: Frame, ip: Ip) -> Segment:
    """RFC 9293 3.1."""
    start, size = frame.at, frame.left
    if size < 20:
        raise Stop("ip")
    source_port, target_port, seq, ack, offset_flags, window = TCP_HEADER(frame.take(20))
    header = offset_flags >> 10 & 0x3C
    if not 20 <= header <= size:
        raise Stop("ip")
    return Segment(
        packet.number,
        packet.time_ns,
        packet.interface,
        ip.source,
        source_port,
        ip.target,
        target_port,
        seq,
        ack,
        offset_flags & 0xFFF,
        window,
        size - header,
        frame.data[start + header : frame.end],
        ip.ttl,
        ip.identification,
        frame.source_mac,
        frame.target_mac,
        frame.data[start : frame.end],
        frame.end == frame.wire_end,
    )


def udp(packet: Packet, frame: Frame, ip: Ip) -> Datagram:
    """RFC 768."""
    source_port, target_port, size = frame.number(2), frame.number(2), frame.number(2)
    frame.skip(2)
    if 0 < size < UDP_HEADER:
        raise Stop("ip")
    if size:  # zero is left by segmentation offload
        frame.limit(size - UDP_HEADER)
    return Datagram(
        packet.number,
        packet.time_ns,
        ip.source,
        source_port,
        ip.target,
        target_port,
        frame.left,
        frame.data[frame.at : frame.end],
        frame.source_mac,
    )


def icmp(packet: Packet, frame: Frame, ip: Ip) -> IcmpError | Arp:
    """RFC 792 and RFC 4443: type, code, checksum and four bytes more, then the packet complained of."""
    kind, code = frame.number(1), frame.number(1)
    if ip.version == 6 and kind in NEIGHBOUR_MESSAGES:
        return neighbour(packet, frame, ip, NEIGHBOUR_MESSAGES[kind])
    if kind not in ICMP_ERRORS[ip.version]:
        raise Stop("icmp")
    source_port = target_port = None
    try:
        frame.skip(6)
        # Lengths in the quoted header are not believed: routers change them, and quote less than they say.
        quoted = read_ip(frame, IPV4 if ip.version == 4 else IPV6)
        read_extensions(frame, quoted)
    except Stop:
        raise Stop("icmp") from None
    first_piece = quoted.fragment is None or quoted.fragment[1] == 0
    if quoted.protocol in (TCP, UDP) and first_piece and frame.end - frame.at >= 4:
        source_port, target_port = frame.number(2), frame.number(2)
    return IcmpError(
        packet.number,
        packet.time_ns,
        ip.source,
        ip.version,
        kind,
        code,
        quoted.source,
        source_port,
        quoted.target,
        target_port,
    )


def neighbour(packet: Packet, frame: Frame, ip: Ip, operation: int) -> Arp:
    """RFC 4861 4.3 and 4.4: who has this address, and the answer.

    A machine that tries an address out before it takes it (RFC 4862 5.4) asks from no address, and an announcement
    to all is no answer to anybody.
    """
    try:
        frame.skip(6)
        about = frame.take(16)
    except Stop:
        raise Stop("icmp") from None
    asker = ip.source if operation == 1 else ip.target
    if ip.ttl != NEIGHBOUR_HOPS or asker == bytes(16) or asker[0] == MULTICAST:
        raise Stop("icmp")
    ends = (ip.source, about) if operation == 1 else (about, ip.target)
    return Arp(packet.number, packet.time_ns, operation, frame.source_mac, *ends)


TRANSPORTS: Final[Mapping[tuple[int, int], Callable[[Packet, Frame, Ip], Unit]]] = {
    (4, TCP): tcp,
    (6, TCP): tcp,
    (4, UDP): udp,
    (6, UDP): udp,
    (4, ICMP): icmp,
    (6, ICMP6): icmp,
}
