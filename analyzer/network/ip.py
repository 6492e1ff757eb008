"""IPv4 and IPv6 headers, extension headers, and the tunnels that carry IP or Ethernet in IP.

Checksums of IPv4 headers are not looked at: a wrong one is what checksum offload leaves in a capture made on
the sending host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from analyzer.network.frame import Frame, Stop
from analyzer.network.link import IPV4, IPV6, PPP_IN_GRE, TRANSPARENT_ETHERNET, ethernet, ppp, untagged

# Protocol numbers (IANA).
ICMP, IP_IN_IP, TCP, UDP, IP6_IN_IP, GRE, AUTHENTICATION, ICMP6 = 1, 4, 6, 17, 41, 47, 51, 58
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION, MOBILITY, HIP, SHIM6 = 0, 43, 44, 60, 135, 139, 140
SKIPPED_HEADERS: Final = frozenset((HOP_BY_HOP, ROUTING, DESTINATION, MOBILITY, HIP, SHIM6))
MAX_EXTENSION_HEADERS: Final = 16
"""RFC 8200 4.1 recommends each header once, seven in all; the rest is for those who repeat them."""

GRE_CHECKSUM, GRE_ROUTING, GRE_KEY, GRE_SEQUENCE, GRE_ACKNOWLEDGEMENT = 0x8000, 0x4000, 0x2000, 0x1000, 0x0080
ERSPAN_2, ERSPAN_3 = 0x88BE, 0x22EB
ERSPAN_3_SUBHEADER: Final = 0x1  # the last bit of its header: eight more bytes follow
VXLAN_PORT: Final = 4789
VXLAN_HEADER_SIZE: Final = 8
VXLAN_VALID: Final = 0x08


@dataclass(slots=True)
class Ip:
    """What an IP header says, with its extension headers once `read_extensions` has read them.

    ``identification`` is the IPv4 field, or None. ``length`` is the size in bytes of what follows the basic
    header, None where segmentation offload left the field at zero. ``fragment`` is None for a whole datagram,
    else identification, offset in bytes, and whether more follow.
    """

    version: int
    source: bytes
    target: bytes
    ttl: int
    identification: int | None
    protocol: int
    length: int | None
    fragment: tuple[int, int, bool] | None = None
    extensions: int = 0


def read_ip(frame: Frame, kind: int) -> Ip:
    """Read the basic header of the IP version that an EtherType names, options included."""
    return ipv4(frame) if kind == IPV4 else ipv6(frame)


def ipv4(frame: Frame) -> Ip:
    """RFC 791 3.1."""
    first = frame.peek()
    size = (first & 0xF) * 4
    if first >> 4 != 4 or size < 20:
        raise Stop("ip")
    header = frame.take(size)
    total = int.from_bytes(header[2:4], "big")
    if 0 < total < size:
        raise Stop("ip")
    identification = int.from_bytes(header[4:6], "big")
    place = int.from_bytes(header[6:8], "big")
    more, offset = bool(place & 0x2000), (place & 0x1FFF) * 8
    return Ip(
        version=4,
        source=header[12:16],
        target=header[16:20],
        ttl=header[8],
        identification=identification,
        protocol=header[9],
        length=total - size if total else None,
        fragment=(identification, offset, more) if more or offset else None,
    )


def ipv6(frame: Frame) -> Ip:
    """RFC 8200 3."""
    if frame.peek() >> 4 != 6:
        raise Stop("ip")
    header = frame.take(40)
    return Ip(
        version=6,
        source=header[8:24],
        target=header[24:40],
        ttl=header[7],
        identification=None,
        protocol=header[6],
        length=int.from_bytes(header[4:6], "big") or None,
    )


def read_extensions(frame: Frame, ip: Ip) -> None:
    """Move behind the extension headers, as far as the first fragment header that says anything.

    Sets ``protocol`` to what comes next, ``fragment`` if that is a fragment, and ``target`` to the last
    address of a routing header that is not used up: checksums are made with that one (RFC 8200 8.1).
    """
    while ip.protocol == AUTHENTICATION or (
        ip.version == 6 and (ip.protocol in SKIPPED_HEADERS or ip.protocol == FRAGMENT)
    ):
        ip.extensions += 1
        if ip.extensions > MAX_EXTENSION_HEADERS:
            raise Stop("ip")
        header = ip.protocol
        ip.protocol = frame.number(1)
        size = frame.number(1)
        if header == FRAGMENT:
            place = frame.number(2)
            identification = frame.number(4)
            if place & 0xFFF9:
                ip.fragment = (identification, place & 0xFFF8, bool(place & 1))
                return
        elif header == AUTHENTICATION:
            frame.skip(size * 4 + 6)
        else:
            rest = frame.take(size * 8 + 6)
            if header == ROUTING and size >= 2 and rest[1]:
                ip.target = final_target(rest, ip.target)


def final_target(routing: bytes, target: bytes) -> bytes:
    """Return where a packet with this routing header goes in the end."""
    if routing[0] in (0, 2):  # source routing (RFC 2460 4.4), mobility (RFC 6275 6.4)
        return routing[-16:]
    return routing[6:22] if routing[0] == 4 else target  # segment routing (RFC 8754 2) lists them from the end


def read_tunnel(frame: Frame, ip: Ip) -> int | None:
    """Return the EtherType of the packet that this one carries, or None where it is no tunnel.

    Moves to the inner packet. IP in IP, 6in4, GRE (RFC 2784, 2890, 2637), ERSPAN and VXLAN (RFC 7348).
    """
    if ip.protocol == UDP:
        return vxlan(frame)
    if ip.protocol not in (IP_IN_IP, IP6_IN_IP, GRE):
        return None
    frame.enter()
    if ip.protocol != GRE:
        return IPV4 if ip.protocol == IP_IN_IP else IPV6
    flags = frame.number(2)
    kind = frame.number(2)
    if flags & GRE_ROUTING or flags & 7 > 1:
        raise Stop("ip")
    if flags & GRE_CHECKSUM:
        frame.skip(4)
    if flags & GRE_KEY:
        frame.skip(4)
    if flags & GRE_SEQUENCE:
        frame.skip(4)
    if flags & 7 == 1 and flags & GRE_ACKNOWLEDGEMENT:
        frame.skip(4)
    if kind == PPP_IN_GRE:
        return ppp(frame)
    if kind == ERSPAN_2:
        if flags & GRE_SEQUENCE:  # the first version has no header of its own, and no sequence number
            frame.skip(8)
        kind = TRANSPARENT_ETHERNET
    elif kind == ERSPAN_3:
        frame.skip(11)
        if frame.number(1) & ERSPAN_3_SUBHEADER:
            frame.skip(8)
        kind = TRANSPARENT_ETHERNET
    return untagged(frame, kind)


def vxlan(frame: Frame) -> int | None:
    """Return the EtherType inside a VXLAN datagram: clouds hand out mirrored traffic in it."""
    at = frame.at
    inner = at + 8 + VXLAN_HEADER_SIZE
    if (
        inner > frame.end
        or frame.data[at + 2] << 8 | frame.data[at + 3] != VXLAN_PORT
        or not frame.data[at + 8] & VXLAN_VALID
    ):
        return None
    frame.enter()
    frame.skip(inner - at)
    return ethernet(frame)
