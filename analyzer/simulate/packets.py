"""Layers of one packet, put together with scapy; the only module of the simulator that imports it.

Importing scapy costs a third of a second, so `analyzer.simulate.wire` imports this module when a wire is
made and not before: listing the scenarios must stay instant.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any, Final, Literal

from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.dot11 import Dot11, Dot11CCMP
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, CookedLinux, CookedLinuxV2, Dot1Q, Ether, Loopback
from scapy.packet import Raw

from analyzer.simulate.wire import Link

_ETHERTYPE: Final = {4: 0x0800, 6: 0x86DD}
_ARP: Final = 0x0806
_ADDRESS_FAMILY: Final = {4: 2, 6: 24}
"""AF_INET and AF_INET6 as BSD systems number them, which is what a null header carries."""
_VLAN: Final = 42
_OUTER_VLAN: Final = 7


def tcp(
    source_port: int,
    target_port: int,
    *,
    flags: str,
    seq: int,
    ack: int,
    window: int,
    payload: bytes = b"",
    mss: int | None = None,
) -> Any:
    """Build a TCP segment; `mss` in bytes makes the one option that every SYN here has."""
    segment = TCP(
        sport=source_port,
        dport=target_port,
        flags=flags,
        seq=seq,
        ack=ack,
        window=window,
        options=[] if mss is None else [("MSS", mss)],
    )
    return segment / Raw(payload) if payload else segment


def udp(source_port: int, target_port: int, payload: bytes) -> Any:
    """Build a UDP datagram."""
    return UDP(sport=source_port, dport=target_port) / Raw(payload)


def dns_question(identifier: int, name: str, kind: Literal["A", "AAAA"]) -> bytes:
    """Build the payload of a name lookup."""
    return bytes(DNS(id=identifier, rd=1, qd=[DNSQR(qname=name, qtype=kind)]))


def dns_answer(identifier: int, name: str, kind: Literal["A", "AAAA"], address: str | None) -> bytes:
    """Build the payload of its answer; without an address: no such name."""
    question = [DNSQR(qname=name, qtype=kind)]
    if address is None:
        return bytes(DNS(id=identifier, qr=1, rd=1, ra=1, rcode=3, qd=question))
    answer = [DNSRR(rrname=name, type=kind, ttl=300, rdata=address)]
    return bytes(DNS(id=identifier, qr=1, rd=1, ra=1, qd=question, an=answer))


def unreachable(original: bytes, *, prohibited: bool) -> Any:
    """ICMP about the packet whose network layer is given: "administratively prohibited", or nobody is there."""
    if original[0] >> 4 == 6:
        return ICMPv6DestUnreach(code=1 if prohibited else 3) / Raw(original)
    return ICMP(type=3, code=13 if prohibited else 1) / Raw(original[:28])


def arp(mac: str, sender: str, target: str, *, target_mac: str | None = None) -> bytes:
    """Build an ARP frame on Ethernet: a question to all or, with the MAC address of who asked, the answer."""
    to, operation = ("ff:ff:ff:ff:ff:ff", 1) if target_mac is None else (target_mac, 2)
    asked = "00:00:00:00:00:00" if target_mac is None else target_mac
    inside = ARP(op=operation, hwsrc=mac, psrc=sender, hwdst=asked, pdst=target)
    return bytes(Ether(src=mac, dst=to, type=_ARP) / inside)


def neighbour(mac: str, sender: str, target: str, *, target_mac: str | None = None) -> bytes:
    """Build the IPv6 counterpart on Ethernet: a solicitation or, with the MAC address of who asked, its answer."""
    to = "33:33:ff:00:00:01" if target_mac is None else target_mac
    inside: Any
    if target_mac is None:
        inside = IPv6(src=sender, dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt=target)
        inside /= ICMPv6NDOptSrcLLAddr(lladdr=mac)
    else:
        inside = IPv6(src=sender, dst=target, hlim=255) / ICMPv6ND_NA(tgt=sender, R=0, S=1, O=1)
        inside /= ICMPv6NDOptDstLLAddr(lladdr=mac)
    return bytes(Ether(src=mac, dst=to, type=_ETHERTYPE[6]) / inside)


def ip(source: str, target: str, above: Any, *, ttl: int, identification: int) -> bytes:
    """Build the network layer with everything above it."""
    network: Any
    if ip_address(source).version == 6:
        network = IPv6(src=source, dst=target, hlim=ttl)
    else:
        network = IP(src=source, dst=target, ttl=ttl, id=identification, flags="DF")
    return bytes(network / above)


def framed(link: Link, network: bytes, *, source_mac: str, target_mac: str, outgoing: bool) -> bytes:
    """Put the link layer in front; `outgoing`: sent by the capturing host (cooked captures)."""
    version = network[0] >> 4
    ethertype = _ETHERTYPE[version]
    header: Any
    if link in {"raw", "raw-ipv6"}:
        return network
    if link == "null":
        header = Loopback(type=_ADDRESS_FAMILY[version])
    elif link == "sll":
        header = CookedLinux(
            pkttype=4 if outgoing else 0, lladdrtype=1, lladdrlen=6, src=_cooked(source_mac), proto=ethertype
        )
    elif link == "sll2":
        header = CookedLinuxV2(
            proto=ethertype,
            ifindex=2,
            lladdrtype=1,
            pkttype=4 if outgoing else 0,
            lladdrlen=6,
            src=_cooked(source_mac),
        )
    elif link == "vlan":
        header = Ether(src=source_mac, dst=target_mac, type=0x8100) / Dot1Q(vlan=_VLAN, type=ethertype)
    elif link == "qinq":
        header = (
            Ether(src=source_mac, dst=target_mac, type=0x88A8)
            / Dot1Q(vlan=_OUTER_VLAN, type=0x8100)
            / Dot1Q(vlan=_VLAN, type=ethertype)
        )
    else:
        header = Ether(src=source_mac, dst=target_mac, type=ethertype)
    return bytes(header) + network


def _cooked(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", "")) + b"\x00\x00"


def protected_80211(source_mac: str, target_mac: str, access_point: str, number: int, sealed: bytes) -> bytes:
    """One WPA2 data frame as monitor mode sees it: addresses in clear, everything else encrypted."""
    header = Dot11(type=2, subtype=0, FCfield=0x41, addr1=access_point, addr2=source_mac, addr3=target_mac)
    header.SC = (number & 0xFFF) << 4
    return bytes(header / Dot11CCMP(PN0=number & 0xFF, PN1=(number >> 8) & 0xFF, ext_iv=1)) + sealed
