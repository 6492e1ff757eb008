"""Packets made anew from what was read of them: every byte of their headers is set here.

Checksums keep their meaning, not their value: right, wrong, and left for the network card to fill in stay what they
were. Of TCP's options those stay that the stream itself needs; the others (the clock of a machine, cookies, whatever
nobody here knows) become as many bytes that say nothing.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from analyzer.catalogue import DEVICE_ID_SIZE, PRESENCE_PREFIX
from analyzer.network.ip import ICMP, ICMP6, TCP, UDP
from analyzer.network.units import IPV4_SIZE, TCP_PROTOCOL, Segment

IP4: Final = Struct("!BBHHHBBH4s4s")
IP6: Final = Struct("!IHBB16s16s")
TCP_START: Final = Struct("!HHIIHHHH")
UDP_START: Final = Struct("!HHHH")
DNS_START: Final = Struct("!HHHHHH")
LARGEST_LENGTH: Final = 0xFFFF
"""What the length fields of IP can say; segmentation offload leaves 0 where there was more."""

NO_OPERATION: Final = 1
OPTION_START: Final = 2
END_OF_OPTIONS: Final = 0
NEEDED_OPTIONS: Final = {2: 4, 3: 3, 4: 2}
"""Largest segment, window scale, whether selective acknowledgements are understood: kind and length (RFC 9293 3.1,
7323 2.2, 2018 2).
"""
WRONG_BY: Final = 0x0101
"""What is added to a checksum that was wrong before."""
HOPS: Final = 64
NEIGHBOUR_HOPS: Final = 255
QUOTED: Final = 8
"""Bytes behind the IP header that an ICMP error quotes at least (RFC 792)."""
DNS_INTERNET: Final = 1
DNS_TYPES: Final = {"A": 1, "AAAA": 28}
DNS_ANSWER, DNS_CUT = 0x8180, 0x8380
DNS_ASKED: Final = 0x0100
DNS_NAME_ABOVE: Final = 0xC00C
DNS_SECONDS: Final = 60
DHCP_CLIENT, DHCP_SERVER = 68, 67
DHCP_SIZE: Final = 236
DHCP_COOKIE_AND_DISCOVER: Final = bytes((99, 130, 83, 99, 53, 1, 1, 255))


def tcp_packet(segment: Segment, source: bytes, target: bytes, payload: bytes) -> tuple[bytes, int]:
    """Return a segment's IP packet under other addresses, as far as it was captured, and its size on the wire."""
    old = segment.tcp
    header = (old[12] >> 4) * 4
    urgent = 0  # a pointer into bytes that are not these any more
    flags = (header // 4) << 12 | segment.flags & 0xFFF
    start = (segment.source_port, segment.target_port, segment.seq, segment.ack, flags, segment.window)
    behind = _options(old[20:header]) + payload
    size = header + segment.length
    unsummed = TCP_START.pack(*start, 0, urgent) + behind
    made = TCP_START.pack(*start, _tcp_sum(segment, source + target, unsummed), urgent) + behind
    return ip_packet(source, target, TCP, made, size, hops=segment.ttl, identification=segment.ip_id or 0)


def ip_packet(
    source: bytes,
    target: bytes,
    protocol: int,
    data: bytes,
    size: int | None = None,
    *,
    hops: int = HOPS,
    identification: int = 0,
) -> tuple[bytes, int]:
    """Put ``data`` (of ``size`` bytes on the wire) behind an IP header; return both, and their size on the wire."""
    size = len(data) if size is None else size
    if len(source) != IPV4_SIZE:
        header = IP6.pack(6 << 28, size if size <= LARGEST_LENGTH else 0, protocol, hops, source, target)
        return header + data, len(header) + size
    total = IP4.size + size
    fields = [0x45, 0, total if total <= LARGEST_LENGTH else 0, identification, 0, hops, protocol, 0, source, target]
    fields[7] = _finished(_sum(IP4.pack(*fields)))
    return IP4.pack(*fields) + data, total


def icmp_error(
    reporter: bytes, kind: int, code: int, source: tuple[bytes, int], target: tuple[bytes, int]
) -> tuple[bytes, int]:
    """Return an ICMP error about a TCP segment between the two ends (address, port)."""
    start = source[1].to_bytes(2) + target[1].to_bytes(2) + bytes(QUOTED - 4)
    quoted, _ = ip_packet(source[0], target[0], TCP, start)
    body = bytes((kind, code, 0, 0)) + bytes(4) + quoted
    four = len(reporter) == IPV4_SIZE
    pseudo = b"" if four else reporter + source[0] + len(body).to_bytes(4) + ICMP6.to_bytes(4)
    body = body[:2] + _finished(_sum(pseudo + body)).to_bytes(2) + body[4:]
    return ip_packet(reporter, source[0], ICMP if four else ICMP6, body)


def udp_packet(source: tuple[bytes, int], target: tuple[bytes, int], payload: bytes) -> tuple[bytes, int]:
    """Return a datagram between two ends (address, port)."""
    size = UDP_START.size + len(payload)
    pseudo = source[0] + target[0] + UDP.to_bytes(2) + size.to_bytes(2)
    data = UDP_START.pack(source[1], target[1], size, 0) + payload
    checksum = _finished(_sum(pseudo + data)) or 0xFFFF  # 0 stands for none
    return ip_packet(source[0], target[0], UDP, data[:6] + checksum.to_bytes(2) + payload)


def presence(device_id: bytes) -> bytes:
    """Return what a device announces itself with."""
    assert len(device_id) == DEVICE_ID_SIZE  # noqa: S101 - the reader has cut it
    return PRESENCE_PREFIX + device_id


def dns_message(identifier: int, name: str, kind: str, found: list[bytes] | None, *, unread: bool = False) -> bytes:
    """Return a question for a name, or with ``found`` (addresses) the answer to it; ``unread`` is one cut short."""
    labels = b"".join(bytes((len(label),)) + label for label in name.encode("ascii").split(b"."))
    question = labels + b"\0" + DNS_TYPES[kind].to_bytes(2) + DNS_INTERNET.to_bytes(2)
    if found is None and not unread:
        return DNS_START.pack(identifier, DNS_ASKED, 1, 0, 0, 0) + question
    given = found or []
    flags = DNS_CUT if unread else DNS_ANSWER if given else DNS_ANSWER | 3
    records = b"".join(
        DNS_NAME_ABOVE.to_bytes(2)
        + DNS_TYPES["A" if len(a) == IPV4_SIZE else "AAAA"].to_bytes(2)
        + DNS_INTERNET.to_bytes(2)
        + DNS_SECONDS.to_bytes(4)
        + len(a).to_bytes(2)
        + a
        for a in given
    )
    return DNS_START.pack(identifier, flags, 1, len(given), 0, 0) + question + records


def dhcp_discover(mac: bytes) -> tuple[bytes, int]:
    """Return the question of a machine that has no address yet."""
    message = bytearray(DHCP_SIZE)
    message[:3] = b"\x01\x01\x06"
    message[28:34] = mac
    return udp_packet((bytes(4), DHCP_CLIENT), (b"\xff" * 4, DHCP_SERVER), bytes(message) + DHCP_COOKIE_AND_DISCOVER)


def arp_packet(operation: int, sender_mac: bytes, sender: bytes, target: bytes) -> bytes:
    """Return an ARP packet for IPv4, without its link layer."""
    return b"\0\x01\x08\0\x06\x04" + operation.to_bytes(2) + sender_mac + sender + bytes(6) + target


def neighbour(operation: int, sender: bytes, target: bytes) -> tuple[bytes, int]:
    """Return a neighbour solicitation (1) or advertisement (2): who asks, and of or to whom."""
    about = target if operation == 1 else sender
    kind = 135 if operation == 1 else 136
    body = bytes((kind, 0, 0, 0)) + bytes(4) + about
    pseudo = sender + target + len(body).to_bytes(4) + ICMP6.to_bytes(4)
    body = body[:2] + _finished(_sum(pseudo + body)).to_bytes(2) + body[4:]
    return ip_packet(sender, target, ICMP6, body, hops=NEIGHBOUR_HOPS)


def _options(old: bytes) -> bytes:
    """Return options of the same length, those that tell of the machine replaced by nothing."""
    made, at = bytearray((NO_OPERATION,)) * len(old), 0
    while at < len(old) and old[at] != END_OF_OPTIONS:
        kind, size = old[at], old[at + 1] if at + 1 < len(old) else 0
        if kind == NO_OPERATION:
            size = 1
        elif size < OPTION_START or at + size > len(old):
            break
        elif size == NEEDED_OPTIONS.get(kind):
            made[at : at + size] = old[at : at + size]
        at += size
    return bytes(made)


def _tcp_sum(segment: Segment, addresses: bytes, made: bytes) -> int:
    """Return the checksum field: as right, wrong or unfinished as it was; 0 where that cannot be told."""
    if not segment.whole:
        return 0
    old = segment.tcp[16] << 8 | segment.tcp[17]
    pseudo = (int.from_bytes(addresses) + TCP_PROTOCOL + len(made)) % 0xFFFF or 0xFFFF
    good = segment.checksum_good()
    if good is None:
        return pseudo if old else 0
    right = 0xFFFF - (pseudo + _sum(made)) % 0xFFFF
    if good:
        return right
    wrong = right
    while wrong in (0, pseudo) or (wrong - right) % 0xFFFF == 0:
        wrong = (wrong + WRONG_BY) & 0xFFFF
    return wrong


def _sum(data: bytes) -> int:
    return int.from_bytes(data if len(data) % 2 == 0 else data + b"\0") % 0xFFFF


def _finished(total: int) -> int:
    return ~total & 0xFFFF
