"""Single packets: link layers, IP with its extensions, tunnels and fragments, TCP, UDP, ICMP, ARP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from inert import is_inert

from analyzer.capture.packet import Packet
from analyzer.network import Decoder, tcp_ports
from analyzer.network.decoder import ETHERNET
from analyzer.network.frame import Frame
from analyzer.network.link import LINKS
from analyzer.network.units import Arp, Datagram, IcmpError, Other, Segment, address_text
from analyzer.pipeline import Analysis
from analyzer.report import jsonreport
from fuzz.base import first_packets, story
from fuzz.script import Script, written
from fuzz.target import target

LINK_TYPES: Final = (*LINKS, 147, 6)


def _packets() -> Iterator[bytes]:
    chosen = [*first_packets("healthy-full", 6), *first_packets("encap-sll2", 4)]
    chosen += story("port-blocked")[:6]
    for link in ("vlan", "qinq", "sll", "sll2", "raw", "null", "ipv6", "raw-ipv6"):
        chosen += story("healthy", link=link)[:8]
    for packet in chosen:
        yield written(LINK_TYPES.index(packet.link_type), 0) + len(packet.data).to_bytes(2) + packet.data
    for name, made in _shapes():
        yield written(LINK_TYPES.index(ETHERNET if name != "raw" else 101)) + b"".join(
            b"\0" + len(data).to_bytes(2) + data for data in made
        )


def _shapes() -> Iterator[tuple[str, list[bytes]]]:
    """Packets of shapes that no capture here has, as scapy makes them."""
    from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment  # noqa: PLC0415 - slow to import
    from scapy.layers.inet6 import (  # noqa: PLC0415
        ICMPv6DestUnreach,
        ICMPv6ND_NA,
        IPv6,
        IPv6ExtHdrDestOpt,
        IPv6ExtHdrFragment,
        IPv6ExtHdrHopByHop,
    )
    from scapy.layers.l2 import ARP, GRE, Dot1Q, Ether  # noqa: PLC0415
    from scapy.layers.ppp import PPP, PPPoE  # noqa: PLC0415
    from scapy.layers.vxlan import VXLAN  # noqa: PLC0415

    ether = Ether(src="6c:0b:84:1f:72:0d", dst="00:1d:7e:a0:11:5e")
    four, six = IP(src="192.168.1.104", dst="54.208.229.4"), IPv6(src="2001:db8::104", dst="2001:db8::4")
    tcp = TCP(sport=49909, dport=5683, flags="PA") / (b"0123456789" * 3)
    udp = UDP(sport=53, dport=4000) / b"0123456789"
    pieces: list[Any] = fragment(four / (TCP(dport=5683) / (b"x" * 60)), fragsize=24)  # type: ignore[no-untyped-call]
    yield "ether", [bytes(ether / piece) for piece in pieces]
    yield "raw", [bytes(four / GRE() / four / tcp), bytes(six / GRE(proto=0x86DD) / six / tcp)]
    yield "ether", [bytes(ether / Dot1Q(vlan=3) / Dot1Q(vlan=4) / PPPoE() / PPP() / four / tcp)]
    yield "ether", [bytes(ether / four / UDP(dport=4789) / VXLAN() / ether / four / tcp)]
    yield "ether", [bytes(ether / six / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / tcp), bytes(ether / six / udp)]
    yield (
        "ether",
        [
            bytes(ether / six / IPv6ExtHdrFragment(id=7, m=1) / (b"\xc2\xf5\x16\x33" + bytes(12))),
            bytes(ether / six / IPv6ExtHdrFragment(id=7, offset=2, nh=6) / (b"\x50\x10" + bytes(14))),
        ],
    )
    yield "ether", [bytes(ether / ARP()), bytes(ether / four / ICMP(type=3, code=10) / four / udp)]
    yield "ether", [bytes(ether / six / ICMPv6DestUnreach() / six / udp), bytes(ether / six / ICMPv6ND_NA(tgt="::1"))]


@target("link layers, IP, tunnels, fragments, TCP, UDP, ICMP, ARP", _packets, longest=4096)
def packets(data: bytes) -> None:
    """Some packets one after another, so that fragments can meet."""
    script = Script(data)
    link_type = script.pick(LINK_TYPES)
    decoder, number = Decoder(), 0
    while script:
        more, content = script.number(), script.piece(2)
        number += 1
        packet = Packet(number, 1_000_000 * number, link_type, content, len(content) + more)
        unit = decoder.decode(packet)
        _check(packet, unit)
        if link_type == ETHERNET:
            _agree(packet, unit)
    assert decoder.fragments_given_up <= number
    assert sum(decoder.kinds.values()) <= number


def _check(packet: Packet, unit: object) -> None:
    """What is told of a packet is in it."""
    assert isinstance(unit, Segment | Datagram | Arp | IcmpError | Other)
    assert (unit.number, unit.time_ns) == (packet.number, packet.time_ns)
    if isinstance(unit, Segment | Datagram):
        assert len(unit.payload) <= unit.length <= 0xFFFF
        assert len(unit.source) == len(unit.target)
        address_text(unit.source)
        assert 0 <= unit.source_port <= 0xFFFF
        assert 0 <= unit.target_port <= 0xFFFF
    if isinstance(unit, Segment):
        assert unit.tcp.endswith(unit.payload)
        assert not (unit.whole and len(unit.payload) != unit.length)
        assert unit.checksum_good() in (True, False, None)
        assert unit.flow == unit.flow
        ports = tcp_ports(packet)
        assert ports is None or ports == (unit.source_port, unit.target_port)


def _agree(packet: Packet, unit: object) -> None:
    """The short way through Ethernet and IPv4 gives what the long one gives."""
    if isinstance(unit, Other) or Frame(packet.data, 0).end < 54:
        return
    long = Decoder()._decode_any(packet)
    if not (isinstance(long, Other) and long.kind == "fragment") and not isinstance(unit, Other):
        assert unit == long, (unit, long)


PORTS: Final = (53, 67, 68, 123, 5353, 5683, 5684, 1900, 137, 443)


def _datagrams() -> Iterator[bytes]:
    decoder = Decoder()
    for name in ("two-devices-background", "port-blocked", "wrong-service-http302"):
        for packet in first_packets(name, 400):
            unit = decoder.decode(packet)
            if isinstance(unit, Datagram) and len(unit.payload) < 256:
                ports = [PORTS.index(port) if port in PORTS else 9 for port in (unit.source_port, unit.target_port)]
                yield written(*ports, 0, unit.payload)
    for name in ("dns-failed", "dns-second-try", "name-astray", "server-moved", "announcements-only", "background"):
        for packet in story(name):
            unit = decoder.decode(packet)
            if isinstance(unit, Datagram) and len(unit.payload) < 256 and unit.source_port in PORTS:
                yield written(PORTS.index(unit.source_port), 9, 0, unit.payload)


@target("name lookups, DHCP, announcements and other datagrams around the connections", _datagrams, longest=1024)
def datagrams(data: bytes) -> None:
    """Some datagrams beside a session, through the whole analysis."""
    script = Script(data)
    analysis = Analysis()
    for packet in first_packets("no-nonce", 8):
        analysis.take(packet)
    number = 8
    while script:
        ends = script.pick(PORTS), script.pick(PORTS)
        local = script.below(4)
        payload = script.piece()
        number += 1
        analysis.take(_datagram(number, ends, payload, local))
    trace = analysis.finish()
    text = "".join(jsonreport.json_text(trace))
    is_inert(text)


def _datagram(number: int, ports: tuple[int, int], payload: bytes, local: int) -> Packet:
    ends = bytes((192, 168, 1, 104 + local)), bytes((192, 168, 1, 1)) if local < 2 else bytes((224, 0, 1, 187))
    if local == 1:
        ends = ends[1], ends[0]
    udp = ports[0].to_bytes(2) + ports[1].to_bytes(2) + (8 + len(payload)).to_bytes(2) + b"\0\0" + payload
    header = b"\x45\0" + (20 + len(udp)).to_bytes(2) + b"\0\1\0\0\x40\x11\0\0" + ends[0] + ends[1]
    frame = b"\0\x1d\x7e\xa0\x11\x5e\x6c\x0b\x84\x1f\x72\x0d\x08\0" + header + udp
    return Packet(number, 1_700_000_000_000_000_000 + number * 10_000_000, ETHERNET, frame, len(frame))
