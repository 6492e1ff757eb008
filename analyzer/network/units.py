"""What one captured packet turns out to be, once link layer, IP and transport are read.

Addresses stay packed bytes (4 or 16) because they are dictionary keys on the hot path; `address_text` is for
output. Objects made once a packet are plain slots classes, not frozen ones, for speed.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

FIN, SYN, RST, PSH, ACK, URG = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20

IPV4_SIZE: Final = 4
LOCAL: Final = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16")))
LOCAL_IPV6: Final = (IPv6Network("fc00::/7"), IPv6Network("fe80::/10"))

TCP_PROTOCOL = 6  # its number in the IP header, and in the sum of the TCP checksum


def is_local(address: bytes) -> bool:
    """Whether an address belongs to somebody's own network (RFC 1918, 3927, 4193), not to the internet."""
    there = ip_address(address)
    return any(there in network for network in (LOCAL if there.version == 4 else LOCAL_IPV6))


def address_text(address: bytes) -> str:
    """Return the usual spelling of a packed IPv4 (4 bytes) or IPv6 (16 bytes) address."""
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


@dataclass(slots=True)
class Segment:
    """One TCP segment, or what the capture kept of it.

    ``length`` is the payload's length by the IP header; ``payload`` may be shorter (snaplen) but never longer
    (Ethernet padding is cut off). ``seq``/``ack`` are the raw 32-bit numbers, ``flags`` all twelve bits that
    the header has for them. ``ip_id`` is None for IPv6. The MAC addresses are None where the link layer has
    none. ``tcp`` is the captured TCP header and payload: `checksum_good` needs nothing more, so the sum is
    only worked out for the segments that somebody asks about.
    """

    number: int
    time_ns: int
    interface: int
    source: bytes
    source_port: int
    target: bytes
    target_port: int
    seq: int
    ack: int
    flags: int
    window: int
    length: int
    payload: bytes
    ttl: int
    ip_id: int | None
    source_mac: bytes | None
    target_mac: bytes | None
    tcp: bytes
    whole: bool  # False when the capture cut it: no checksum can be judged

    @property
    def header_sum(self) -> int:
        """The ones' complement sum of the pseudo-header (RFC 9293 3.1), 16 bits, of a whole segment."""
        # 2**16 is 1 modulo 65535, so the remainder of a long number is the sum of its 16-bit words. A sum of
        # words that are not all zero is never 0 but 0xFFFF.
        return (int.from_bytes(self.source + self.target, "big") + TCP_PROTOCOL + len(self.tcp)) % 0xFFFF or 0xFFFF

    @property
    def flow(self) -> tuple[bytes, int, bytes, int]:
        """Both ends, address and port, in an order that is the same for both directions."""
        near, far = (self.source, self.source_port), (self.target, self.target_port)
        return (*near, *far) if near <= far else (*far, *near)

    @property
    def ends(self) -> bytes:
        """Both ends as the headers have them: addresses, then ports."""
        return self.source + self.target + self.source_port.to_bytes(2) + self.target_port.to_bytes(2)

    def checksum_good(self) -> bool | None:
        """Return True or False, or None when it cannot be judged.

        None for a cut segment, and for the two marks of checksum offload: a zero field, and the bare
        pseudo-header sum that the sending host leaves for its network card to complete.
        """
        if not self.whole or len(self.tcp) < 18:
            return None
        field = self.tcp[16] << 8 | self.tcp[17]
        header_sum = self.header_sum
        if field in (0, header_sum):
            return None
        data = self.tcp if len(self.tcp) % 2 == 0 else self.tcp + b"\0"
        return (int.from_bytes(data, "big") + header_sum) % 0xFFFF == 0


@dataclass(slots=True)
class Datagram:
    """One UDP datagram: ``payload`` as far as captured, ``length`` the payload's length by the UDP header."""

    number: int
    time_ns: int
    source: bytes
    source_port: int
    target: bytes
    target_port: int
    length: int
    payload: bytes
    source_mac: bytes | None


@dataclass(slots=True)
class Arp:
    """An ARP packet for IPv4, or its counterpart for IPv6 (neighbour discovery): ``operation`` 1 asks, 2 answers.

    ``sender`` is who asks, or whose address is told; ``target`` whose address is asked for, or who is told.
    ``sender_mac`` is that of the link layer for IPv6, None where it has none.
    """

    number: int
    time_ns: int
    operation: int
    sender_mac: bytes | None
    sender: bytes
    target: bytes


@dataclass(slots=True)
class IcmpError:
    """An ICMP or ICMPv6 error, with the start of the packet that it is about.

    ``reporter`` is the machine that sent it; ``version`` 4 or 6 says how ``type`` and ``code`` are to be
    read. The ``quoted_*`` fields describe the packet complained of; ports are None when it was neither TCP
    nor UDP.
    """

    number: int
    time_ns: int
    reporter: bytes
    version: int
    type: int
    code: int
    quoted_source: bytes
    quoted_source_port: int | None
    quoted_target: bytes
    quoted_target_port: int | None


@dataclass(slots=True)
class Other:
    """A packet that is none of the above. ``kind`` is one short, fixed word for counting.

    Kinds: ``encrypted-wifi`` (802.11 data that is protected), ``wifi-management`` (beacons, probes, control),
    ``fragment`` (an IP fragment kept until the rest comes), ``icmp``, ``ip`` (another IP protocol, or an IP,
    TCP or UDP header that contradicts itself), ``non-ip``, ``cut`` (too little captured to read),
    ``nested`` (more layers than are read), ``link-type`` (an unknown link layer).
    """

    number: int
    time_ns: int
    kind: str


Unit = Segment | Datagram | Arp | IcmpError | Other
