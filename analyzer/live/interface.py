"""Packets of a network interface of this machine, as bytes: scapy opens it and has the kernel filter, no more.

What scapy would make of each packet is not asked for: the bytes go the same way as those of a capture file.
"""

from __future__ import annotations

import difflib
import errno
import logging
import select
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from analyzer.background import DHCP_PORT, HEARD_PORTS
from analyzer.capture import Packet
from analyzer.capture.packet import CaptureFile
from analyzer.catalogue import DNS_PORT
from analyzer.network import KNOWN_LINK_TYPES
from analyzer.outfile import no_folders_at_home
from analyzer.wording import listing, plural, printable

if TYPE_CHECKING:
    from scapy.supersocket import SuperSocket

SNAPLEN: Final = 262_144
"""Bytes of a packet that are taken, libpcap's largest: network cards join segments to far more than a frame."""
KERNEL_BUFFER: Final = 8 << 20
"""Bytes that the kernel keeps for us while a verdict is made: seconds of a busy home network."""
POLL_S: Final = 0.5
"""How often it is looked whether the interface is still wanted, and whether the kernel has dropped packets."""
ETHERNET, RAW_IP = 1, 101
BSD_RAW: Final = 12
"""What libpcap calls raw IP while it runs; in files it is `RAW_IP`."""
TUNNELS: Final = frozenset((519, 768, 769, 776, 778, 823, 65_534))
"""Kinds of interface, as Linux counts them, whose packets begin with an IP header."""
SOL_PACKET, PACKET_STATISTICS, PACKET_AUXDATA = 263, 6, 8
TIMESTAMPS: Final = (35, 64)
"""SO_TIMESTAMPNS, old and new."""
VLAN_VALID, VLAN_TPID_VALID = 0x10, 0x40
AUXDATA: Final = struct.Struct("=IIIHHHH")
DOT1Q: Final = 0x8100
OUTGOING: Final = 4
_GONE: Final = (errno.ENODEV, errno.ENXIO, errno.EBADF)
_NOT_ALLOWED: Final = (errno.EPERM, errno.EACCES)


class InterfaceError(ValueError):
    """An interface that cannot be captured on. The text is one line for the user."""


def interfaces() -> list[str]:
    """Return the names of this machine's interfaces."""
    try:
        return [name for _, name in socket.if_nameindex()]
    except OSError:
        return []


def packet_filter(ports: Iterable[int]) -> str:
    """Return what the kernel lets through, in libpcap's words: the connections, and what tells about them.

    Names looked up, addresses asked for and announced, refusals of routers, whether the network works at all (who else
    is connected), what is wrapped in tunnels, and the later parts of what was sent in fragments. The content of other
    connections stays out.
    """
    wanted = [f"tcp port {port}" for port in sorted(set(ports))]
    wanted += [f"tcp port {DNS_PORT}", "tcp[tcpflags] & tcp-syn != 0"]
    wanted += [f"udp port {port}" for port in sorted({*HEARD_PORTS, DHCP_PORT + 1})]
    wanted += ["arp", "icmp", "icmp6", "ip proto 4", "ip proto 41", "ip proto 47", "ip[6:2] & 0x1fff != 0"]
    return " or ".join(f"({one})" for one in wanted)


class Interface:
    """An interface that is captured on. Iterate for its packets; other threads may `close` it.

    ``dropped`` counts packets that the kernel had no room for. ``filtered`` tells whether the kernel filters.
    Raises InterfaceError when it does not exist, is down, or may not be captured on.
    """

    def __init__(self, name: str, ports: Iterable[int], *, lost: Callable[[str], None] = lambda text: None) -> None:
        """``lost`` is told, from another thread, what is lost while it runs."""
        self.name = name
        self.dropped = 0
        self.filtered = True
        self.file = CaptureFile(name, "live", time_digits=9)
        self._lost = lost
        self._number = 0
        self._closed = False
        known = interfaces()
        if known and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise InterfaceError(f"{printable(name)}: no such interface. {hint}There are: {listing(known)}.")
        self._socket = self._open(packet_filter(ports))
        if not self.filtered:
            lost(f"{name}: every packet is looked at, since libpcap, which would sort them out, is not installed.")
        self.link_type = self._link_type()

    def _open(self, wanted: str) -> SuperSocket:
        logging.getLogger("scapy.runtime").setLevel(logging.ERROR)  # it warns that it cannot dissect: nobody asks it to
        with no_folders_at_home():
            from scapy import arch  # noqa: F401, PLC0415 - says which socket this system has; scapy takes long to load
            from scapy.config import conf  # noqa: PLC0415
            from scapy.error import Scapy_Exception  # noqa: PLC0415

        try:
            try:
                opened: SuperSocket = conf.L2listen(iface=self.name, filter=wanted)
            except (Scapy_Exception, ImportError):
                # libpcap, which translates the filter, is not there: all packets are taken.
                self.filtered = False
                opened = conf.L2listen(iface=self.name)
        except OSError as error:
            if error.errno in _NOT_ALLOWED:
                raise InterfaceError(
                    f"{self.name}: capturing needs administrator rights. Try: sudo sparkshark watch -i {self.name}, or"
                    " pipe: sudo tcpdump -U -w - port 5683 | sparkshark watch -"
                ) from error
            raise self._unusable(error) from error
        except Exception as error:  # what scapy raises where there is no libpcap, or no right, is no promise
            raise InterfaceError(
                f"{self.name}: cannot be captured on ({printable(str(error))}). Try: sudo tcpdump -i {self.name}"
                " -U -w - port 5683 | sparkshark watch -"
            ) from error
        for option in ("SO_RCVBUFFORCE", "SO_RCVBUF"):
            try:
                opened.ins.setsockopt(socket.SOL_SOCKET, getattr(socket, option, 33), KERNEL_BUFFER)
                break
            except (OSError, AttributeError):
                continue
        return opened

    def _unusable(self, error: OSError) -> InterfaceError:
        if error.errno == errno.ENETDOWN:
            return InterfaceError(f"{self.name}: this interface is down. Try: sudo ip link set {self.name} up")
        why = (error.strerror or str(error)).lower()
        return InterfaceError(f"{self.name}: cannot be captured on ({why}). There are: {listing(interfaces())}.")

    def _link_type(self) -> int:
        if not sys.platform.startswith("linux"):
            return ETHERNET  # the only one that scapy's other sockets promise
        from scapy.data import ARPHRD_TO_DLT  # noqa: PLC0415

        kind = self._socket.ins.getsockname()[3]
        link = RAW_IP if kind in TUNNELS else ARPHRD_TO_DLT.get(kind, -1)
        link = RAW_IP if link == BSD_RAW else link
        if link not in KNOWN_LINK_TYPES:
            raise InterfaceError(
                f"{self.name}: packets of such an interface (Linux type {kind}) cannot be read. Capture on an ordinary"
                " network interface."
            )
        return link

    @property
    def warnings(self) -> list[str]:
        """What a report on the packets has to tell of those that are not among them."""
        if not self.dropped:
            return []
        return [
            f"{self.name}: the kernel dropped {plural(self.dropped, 'packet')} in all; what was in them is not checked."
        ]

    def close(self) -> None:
        """End the iteration soon."""
        self._closed = True

    def __iter__(self) -> Iterator[Packet]:
        receive = self._receive_linux if sys.platform.startswith("linux") else self._receive
        twice = self.name == "lo" or self._socket.ins.getsockname()[3:4] == (772,)
        last_check, down = 0, False
        while not self._closed:
            try:
                ready, _, _ = select.select([self._socket.ins], [], [], POLL_S)
                if not ready or last_check >= 1000:
                    last_check = 0
                    self._count_dropped()
                if not ready:
                    if down and self.name not in interfaces():
                        self._lost(f"{self.name} has gone.")
                        break
                    continue
                last_check += 1
                packet = receive(twice=twice)
            except OSError as error:
                if error.errno == errno.ENETDOWN:
                    if not down:
                        self._lost(f"{self.name} has gone down; packets are taken again when it is up.")
                    down = True
                    continue
                if error.errno in _GONE:
                    self._lost(f"{self.name} has gone.")
                    break
                raise
            if packet is not None:
                down = False
                yield packet
        self._count_dropped()
        self._socket.close()

    def _receive_linux(self, *, twice: bool) -> Packet | None:
        """Take one packet with the kernel's time of it to the nanosecond; scapy's own way has only a float."""
        data, ancillary, _, where = self._socket.ins.recvmsg(SNAPLEN, 512, socket.MSG_TRUNC)
        if twice and where[2] == OUTGOING:
            return None  # of what a machine sends itself, the kernel shows both ends
        time_ns, original = None, len(data)
        for level, kind, value in ancillary:
            if level == SOL_PACKET and kind == PACKET_AUXDATA and len(value) >= AUXDATA.size:
                status, length, _, _, _, tag, tpid = AUXDATA.unpack_from(value)
                original = max(original, length)
                if status & VLAN_VALID or tag:
                    shown = tpid if status & VLAN_TPID_VALID else DOT1Q
                    data = data[:12] + struct.pack("!HH", shown, tag) + data[12:]
                    original += 4
            elif level == socket.SOL_SOCKET and kind in TIMESTAMPS and len(value) == 16:
                seconds, rest = struct.unpack("qq", value)
                time_ns = seconds * 1_000_000_000 + rest
        return self._packet(data, time_ns, original)

    def _receive(self, *, twice: bool) -> Packet | None:
        _, data, seconds = self._socket.recv_raw(SNAPLEN)
        if not data:
            return None
        return self._packet(data, None if seconds is None else round(float(seconds) * 1e9), len(data))

    def _packet(self, data: bytes, time_ns: int | None, original: int) -> Packet:
        import time  # noqa: PLC0415 - hardly ever: the kernel has a time for every packet

        self._number += 1
        now = time.time_ns() if time_ns is None else time_ns
        file = self.file
        file.packets, file.bytes = self._number, file.bytes + len(data)
        file.first_ns = now if file.first_ns is None else min(file.first_ns, now)
        file.last_ns = now if file.last_ns is None else max(file.last_ns, now)
        file.link_types.add(self.link_type)
        return Packet(self._number, now, self.link_type, data, max(original, len(data)))

    def _count_dropped(self) -> None:
        """Ask the kernel how many packets it had no room for since it was asked last."""
        if not sys.platform.startswith("linux"):
            return
        try:
            told: Any = self._socket.ins.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
            _, dropped = struct.unpack("II", told[:8])
        except (OSError, struct.error):
            return
        if dropped:
            self.dropped += dropped
            self._lost(
                f"the kernel dropped {plural(dropped, 'packet')} that came too fast: what was in them is not checked."
            )
