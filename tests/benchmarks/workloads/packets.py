"""Packets of one flow, from link layer to payload, checksums and all."""

from __future__ import annotations

import struct
from typing import Final, Literal, NamedTuple

from .talk import DEVICE

Link = Literal["ethernet", "vlan", "sll", "raw"]
LINK_TYPES: Final[dict[Link, int]] = {"ethernet": 1, "vlan": 1, "sll": 113, "raw": 101}
ETHERNET_MINIMUM: Final = 60
"""Shorter frames are padded by their sender. A capture at the server has the padding of what arrives, not of what
the server itself sends: its network card pads after the capture."""
FIN, SYN, RST, PUSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
TCP, UDP = 6, 17
_IP: Final = struct.Struct(">HHHHBBH")
_TCP: Final = struct.Struct(">HHIIBBHHH")
_UDP: Final = struct.Struct(">HHHH")
_WINDOW: Final = 5840


class End(NamedTuple):
    """One end of a flow."""

    mac: bytes
    address: bytes
    port: int

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.address))}:{self.port}"


class Segment(NamedTuple):
    """A TCP segment as it passes the capture point."""

    time: int
    """Microseconds since 1970."""
    sender: int
    seq: int
    ack: int
    flags: int
    data: bytes = b""
    options: bytes = b""
    """A multiple of 4 bytes."""


class Flow:
    """Makes the packets between a device (or any client) and a server."""

    __slots__ = ("_addresses", "_identification", "_links", "_minimum", "_ports", "_sum", "ends")

    def __init__(self, link: Link, device: End, server: End, identification: int = 0) -> None:
        self.ends = (device, server)
        self._links = (_link_header(link, device, server, arrives=True), _link_header(link, server, device))
        self._addresses = (device.address + server.address, server.address + device.address)
        self._ports = ((device.port, server.port), (server.port, device.port))
        self._sum: int = sum(struct.unpack(">4H", self._addresses[0]))
        self._identification = identification
        self._minimum = ETHERNET_MINIMUM if LINK_TYPES[link] == 1 else 0

    def tcp(self, segment: Segment) -> bytes:
        """The packet of a segment."""
        _, sender, seq, ack, flags, payload, options = segment
        offset = 5 + len(options) // 4 << 4
        source, target = self._ports[sender]
        length = 4 * (offset >> 4) + len(payload)
        fixed = _TCP.pack(source, target, seq, ack, offset, flags, _WINDOW, 0, 0)
        summed = self._checksum(TCP, length, fixed, options + payload)
        return self._packet(sender, TCP, length, b"".join((fixed[:16], summed, b"\0\0", options, payload)))

    def udp(self, sender: int, source: int, target: int, payload: bytes) -> bytes:
        """A datagram between the same two hosts."""
        length = 8 + len(payload)
        fixed = _UDP.pack(source, target, length, 0)
        summed = self._checksum(UDP, length, fixed, payload)
        # Zero would say that there is no checksum; all ones are the same number.
        summed = b"\xff\xff" if summed == b"\0\0" else summed
        return self._packet(sender, UDP, length, fixed[:6] + summed + payload)

    def _checksum(self, protocol: int, length: int, header: bytes, rest: bytes) -> bytes:
        # Words added with the carry brought round are the number itself modulo 65,535: 2^16 leaves 1.
        padded = rest + b"\0" if len(rest) & 1 else rest
        total = self._sum + protocol + length + int.from_bytes(header, "big") + int.from_bytes(padded, "big")
        return (-total % 0xFFFF).to_bytes(2, "big")

    def _packet(self, sender: int, protocol: int, length: int, above: bytes) -> bytes:
        self._identification = number = (self._identification + 1) & 0xFFFF
        total = 0x4500 + 20 + length + number + 0x4000 + 0x4000 + protocol + self._sum
        header = _IP.pack(0x4500, 20 + length, number, 0x4000, 64, protocol, -total % 0xFFFF)
        packet: bytes = b"".join((self._links[sender], header, self._addresses[sender], above))
        return packet.ljust(self._minimum, b"\0") if sender == DEVICE else packet


def _link_header(link: Link, sender: End, receiver: End, *, arrives: bool = False) -> bytes:
    if link == "ethernet":
        return receiver.mac + sender.mac + b"\x08\x00"
    if link == "vlan":
        return receiver.mac + sender.mac + b"\x81\x00\x00\x64\x08\x00"
    if link == "sll":
        return struct.pack(">HHH", 0 if arrives else 4, 1, 6) + sender.mac + b"\0\0\x08\x00"
    return b""
