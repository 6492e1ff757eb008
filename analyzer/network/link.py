"""Link layers: from the first byte of a captured frame to the packet of the network layer in it.

Each reader leaves the `Frame` at the first byte behind its headers and returns the EtherType of what comes
there, whatever the link layer's own way of saying it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Final

from analyzer.network.frame import Frame, Stop
from analyzer.network.wifi import avs_header, ppi_header, prism_header, radiotap_header, wifi_header

# EtherTypes (IEEE registry).
IPV4: Final = 0x0800
ARP: Final = 0x0806
IPV6: Final = 0x86DD
TRANSPARENT_ETHERNET: Final = 0x6558
PPP_IN_GRE: Final = 0x880B
PPPOE_SESSION: Final = 0x8864
MPLS: Final = frozenset((0x8847, 0x8848))
# 802.1Q, 802.1ad, and the numbers that switches used for stacked tags before it.
VLAN_TAGS: Final = frozenset((0x8100, 0x88A8, 0x9100, 0x9200, 0x9300))
LARGEST_8023_LENGTH: Final = 1500
"""Type fields up to here are lengths (IEEE 802.3 3.2.6)."""
LINUX_8022: Final = 0x0004
"""Linux marks bare 802.2 frames with it."""

# What `AF_INET6` is depends on the system that captured: NetBSD and OpenBSD, FreeBSD, Darwin, Linux, Windows.
LOOPBACK_FAMILIES: Final = {2: IPV4, 24: IPV6, 28: IPV6, 30: IPV6, 10: IPV6, 23: IPV6}
PPP_PROTOCOLS: Final = {0x0021: IPV4, 0x0057: IPV6, 0x0281: 0x8847, 0x0283: 0x8848}
SNAP: Final = b"\xaa\xaa\x03"
# SNAP's "organisation" under which plain EtherTypes stand: none, and RFC 1042's bridged variant.
ETHERTYPE_ORGANISATIONS: Final = frozenset((b"\x00\x00\x00", b"\x00\x00\xf8"))

ETHERNET: Final = Struct("!6s6sH").unpack
COOKED: Final = Struct("!2xHH8sH").unpack
COOKED_2: Final = Struct("!H6xHxB8s").unpack

Reader = Callable[[Frame], int]


def ethernet(frame: Frame) -> int:
    """Ethernet II and IEEE 802.3, with whatever tags."""
    frame.target_mac, frame.source_mac, kind = ETHERNET(frame.take(14))
    return untagged(frame, kind)


def untagged(frame: Frame, kind: int) -> int:
    """Return the EtherType behind VLAN tags, PPPoE, MPLS labels and LLC/SNAP."""
    while kind in VLAN_TAGS:
        frame.enter()
        frame.skip(2)
        kind = frame.number(2)
    if kind <= LARGEST_8023_LENGTH:
        if kind != LINUX_8022:
            frame.limit(kind)
        return logical_link(frame)
    if kind == PPPOE_SESSION:
        return pppoe(frame)
    if kind in MPLS:
        return mpls(frame)
    if kind == TRANSPARENT_ETHERNET:
        frame.enter()
        return ethernet(frame)
    return kind


def logical_link(frame: Frame) -> int:
    """Read an IEEE 802.2 header: only SNAP carries the protocols that matter here."""
    frame.enter()
    if frame.take(3) != SNAP or frame.take(3) not in ETHERTYPE_ORGANISATIONS:
        raise Stop("non-ip")
    kind = frame.number(2)
    if kind <= LARGEST_8023_LENGTH:
        raise Stop("non-ip")
    return untagged(frame, kind)


def pppoe(frame: Frame) -> int:
    """PPPoE session packet (RFC 2516): version and type 1, code 0, session, length, then PPP."""
    frame.enter()
    if frame.number(2) != 0x1100:
        raise Stop("non-ip")
    frame.skip(2)
    frame.limit(frame.number(2))
    return ppp(frame)


def ppp(frame: Frame) -> int:
    """PPP (RFC 1661), with or without HDLC address and control, protocol field of two bytes or one."""
    if frame.peek() in (0xFF, 0x0F, 0x8F):
        address = frame.number(1)
        frame.skip(1)
        if address != 0xFF:
            return untagged(frame, frame.number(2))  # Cisco HDLC has an EtherType where PPP has its own
    protocol = frame.number(1)
    if protocol % 2 == 0:
        protocol = protocol << 8 | frame.number(1)
    kind = PPP_PROTOCOLS.get(protocol)
    if kind is None:
        raise Stop("non-ip")
    return mpls(frame) if kind in MPLS else kind


def mpls(frame: Frame) -> int:
    """MPLS labels (RFC 3032). Nothing says what they carry: as routers do, look at its first four bits."""
    frame.enter()
    while not frame.number(4) & 0x100:
        pass
    version = frame.peek() >> 4
    if version == 0:  # the control word of an Ethernet pseudowire (RFC 4385)
        frame.skip(4)
        return ethernet(frame)
    return bare_ip(frame)


def bare_ip(frame: Frame) -> int:
    """IP without any link layer: the version field tells."""
    version = frame.peek() >> 4
    if version not in (4, 6):
        raise Stop("non-ip")
    return IPV4 if version == 4 else IPV6


def loopback(frame: Frame) -> int:
    """BSD loopback: the address family in the byte order of the machine that captured."""
    family = frame.take(4)
    kind = LOOPBACK_FAMILIES.get(int.from_bytes(family, "little"))
    if kind is None:
        kind = LOOPBACK_FAMILIES.get(int.from_bytes(family, "big"))
    if kind is None:
        raise Stop("non-ip")
    return kind


def linux_cooked(frame: Frame) -> int:
    """Linux "any" interface, first version: packet type, hardware type, address, protocol (16 bytes)."""
    hardware, size, address, protocol = COOKED(frame.take(16))
    return cooked_payload(frame, hardware, address[:size], protocol)


def linux_cooked_2(frame: Frame) -> int:
    """Linux "any" interface, second version: protocol, interface, hardware type, address (20 bytes)."""
    protocol, hardware, size, address = COOKED_2(frame.take(20))
    return cooked_payload(frame, hardware, address[:size], protocol)


def cooked_payload(frame: Frame, hardware: int, address: bytes, protocol: int) -> int:
    """Return the EtherType of a cooked packet, whose ``protocol`` is one unless ``hardware`` is special."""
    if len(address) == 6:
        frame.source_mac = address
    if hardware in COOKED_WIFI:
        return COOKED_WIFI[hardware](frame)
    if protocol <= LARGEST_8023_LENGTH and protocol != LINUX_8022:
        raise Stop("non-ip")  # Linux's own numbers for frames of other networks
    return untagged(frame, protocol)


def wifi(frame: Frame) -> int:
    """IEEE 802.11 data, which always carries LLC."""
    wifi_header(frame)
    return logical_link(frame)


def radiotap(frame: Frame) -> int:
    """802.11 behind a radiotap header."""
    wifi_header(frame, padded=radiotap_header(frame))
    return logical_link(frame)


def ppi(frame: Frame) -> int:
    """Per-Packet Information: its header names the link type that follows."""
    frame.enter()
    inner = LINKS.get(ppi_header(frame))
    if inner is None:
        raise Stop("link-type")
    return inner(frame)


def avs(frame: Frame) -> int:
    """802.11 behind an AVS header."""
    avs_header(frame)
    return wifi(frame)


def prism(frame: Frame) -> int:
    """802.11 behind a Prism header, or behind the AVS header that some drivers write in its place."""
    prism_header(frame)
    return wifi(frame)


# ARPHRD_ numbers of Linux.
COOKED_WIFI: Final[Mapping[int, Reader]] = {801: wifi, 802: prism, 803: radiotap}

LINKS: Final[Mapping[int, Reader]] = {
    0: loopback,
    1: ethernet,
    9: ppp,
    12: bare_ip,
    14: bare_ip,
    50: ppp,
    51: pppoe,
    101: bare_ip,
    104: ppp,
    105: wifi,
    108: loopback,
    113: linux_cooked,
    119: prism,
    127: radiotap,
    163: avs,
    192: ppi,
    228: bare_ip,
    229: bare_ip,
    276: linux_cooked_2,
}

LINK_TYPE_NAMES: Final[Mapping[int, str]] = {
    0: "BSD loopback",
    1: "Ethernet",
    6: "Token Ring",
    7: "ARCNET",
    8: "SLIP",
    9: "PPP",
    10: "FDDI",
    12: "raw IP",
    14: "raw IP",
    50: "PPP in HDLC",
    51: "PPPoE",
    100: "ATM",
    101: "raw IP",
    104: "Cisco HDLC",
    105: "802.11",
    107: "Frame Relay",
    108: "OpenBSD loopback",
    109: "OpenBSD IPsec",
    113: "Linux cooked",
    117: "OpenBSD firewall log",
    119: "802.11 with Prism header",
    122: "IP over Fibre Channel",
    127: "802.11 with radiotap header",
    129: "ARCNET (Linux)",
    138: "Apple IP over FireWire",
    143: "DOCSIS",
    163: "802.11 with AVS header",
    187: "Bluetooth HCI",
    189: "USB (Linux)",
    192: "per-packet information",
    195: "802.15.4",
    201: "Bluetooth HCI with direction",
    203: "LAPD",
    220: "USB (Linux, padded)",
    227: "CAN bus",
    228: "raw IPv4",
    229: "raw IPv6",
    230: "802.15.4 without checksum",
    231: "D-Bus",
    239: "Linux netfilter log",
    247: "InfiniBand",
    249: "USB (Windows)",
    251: "Bluetooth Low Energy",
    252: "Wireshark upper PDU",
    253: "Linux netlink",
    254: "Bluetooth monitor (Linux)",
    256: "Bluetooth Low Energy with radio header",
    266: "USB (macOS)",
    276: "Linux cooked v2",
    283: "802.15.4 with TAP header",
    288: "USB 2.0",
}
PRIVATE_USE: Final = range(147, 163)  # LINKTYPE_USER0 to LINKTYPE_USER15

KNOWN_LINK_TYPES: Final[Mapping[int, str]] = {number: LINK_TYPE_NAMES[number] for number in LINKS}


def link_type_name(number: int) -> str:
    """Return a short name of a LINKTYPE_ number, whether it can be read or not."""
    if number in PRIVATE_USE:
        return "private use"
    return LINK_TYPE_NAMES.get(number, f"link type {number}")
