"""A pcapng file with nothing in it but packets: no comments, no names of interfaces, of files or of machines.

Three link layers are written, and all of them anew: Ethernet where both hardware addresses are known, Linux "cooked"
where only the sender's is, bare IP where there is none.
"""

from __future__ import annotations

from struct import Struct
from typing import BinaryIO, Final

from analyzer.capture import writing
from analyzer.network.link import ARP, IPV4, IPV6

ETHERNET, RAW_IP, LINUX_COOKED = 1, 101, 113
ETHERNET_HEADER: Final = Struct("!6s6sH").pack
COOKED_HEADER: Final = Struct("!HHH6s2xH").pack
ARPHRD_ETHER: Final = 1


class PcapngWriter:
    """Writes packets to ``stream``, which needs nothing but ``write``. ``digits`` (6 or 9) are those of the clock."""

    def __init__(self, stream: BinaryIO, *, digits: int = 9) -> None:
        self._stream = stream
        self._digits = digits
        self._interfaces: dict[tuple[int, int], int] = {}
        self.packets = 0
        self.bytes = 0
        self._write(writing.section())

    def ip(
        self,
        time_ns: int,
        interface: int,
        packet: tuple[bytes, int],
        macs: tuple[bytes | None, bytes | None] = (None, None),
    ) -> None:
        """Write an IP packet and its size on the wire, with the hardware addresses of its source and target."""
        data, size = packet
        source, target = macs
        kind = IPV4 if data[0] >> 4 == 4 else IPV6
        if source is not None and target is not None:
            self._packet(time_ns, (interface, ETHERNET), ETHERNET_HEADER(target, source, kind), data, size)
        elif source is not None:
            header = COOKED_HEADER(0, ARPHRD_ETHER, len(source), source, kind)
            self._packet(time_ns, (interface, LINUX_COOKED), header, data, size)
        else:
            self._packet(time_ns, (interface, RAW_IP), b"", data, size)

    def arp(self, time_ns: int, interface: int, packet: bytes, source: bytes, target: bytes) -> None:
        """Write an ARP packet."""
        self._packet(time_ns, (interface, ETHERNET), ETHERNET_HEADER(target, source, ARP), packet, len(packet))

    def _packet(self, time_ns: int, interface: tuple[int, int], header: bytes, data: bytes, size: int) -> None:
        """Write one packet; ``size`` is that of ``data`` on the wire, ``interface`` its number and link type."""
        place = self._interfaces.get(interface)
        if place is None:
            place = self._interfaces[interface] = len(self._interfaces)
            self._write(writing.interface(interface[1], self._digits))
        self._write(writing.packet(place, time_ns, self._digits, header + data, len(header) + size))
        self.packets += 1

    def _write(self, block: bytes) -> None:
        self._stream.write(block)
        self.bytes += len(block)
