"""Other names for machines: addresses, hardware addresses and device IDs, the same for the same machine.

What an address says by itself stays: private stays private, public stays public (as addresses reserved for
documentation), and those that mean the same everywhere stay as they are. A new name is never one that some machine of
the capture has, so whoever finds an address of the capture in the result has found a leak.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterator
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from analyzer.catalogue import DEVICE_ID_SIZE, FALLBACK_ADDRESS, PRESENCE_GROUP
from analyzer.network.units import IPV4_SIZE, LOCAL, LOCAL_IPV6


class Role(StrEnum):
    """What a machine is in the capture; devices, servers and others have ranges of their own."""

    DEVICE = "device"
    SERVER = "server"
    OTHER = "other"


KEPT: Final = frozenset(
    (
        *map(socket.inet_aton, (FALLBACK_ADDRESS, PRESENCE_GROUP, "127.0.0.1", "255.255.255.255")),
        bytes(4),
        bytes(16),
        bytes(15) + b"\x01",
    )
)
"""Addresses that are the same for everybody: constants of the firmware, nobody, oneself, everybody."""
BROADCAST: Final = b"\xff" * 6
NO_MAC: Final = bytes(6)
GROUP, LOCALLY_ADMINISTERED = 0x01, 0x02
VENDOR: Final = 3
MADE_UP: Final = bytes((LOCALLY_ADMINISTERED, 0, 0))
"""The vendor half of a hardware address that tells none."""
SHOWN_OF_ID: Final = 2
"""Bytes of a device ID that stay at either end, as in a report."""

LOOPBACK: Final = IPv4Network("127.0.0.0/8")
LINK_LOCAL: Final = IPv4Network("169.254.0.0/16")
SHARED: Final = IPv4Network("100.64.0.0/10")
MULTICAST: Final = IPv4Network("224.0.0.0/4")
PRIVATE_FOR: Final = {
    Role.DEVICE: IPv4Network("10.0.0.0/10"),
    Role.SERVER: IPv4Network("10.64.0.0/10"),
    Role.OTHER: IPv4Network("10.128.0.0/9"),
}
PUBLIC_FOR: Final = {
    Role.DEVICE: IPv4Network("192.0.2.0/24"),
    Role.SERVER: IPv4Network("198.51.100.0/24"),
    Role.OTHER: IPv4Network("203.0.113.0/24"),
}
"""Reserved for documentation (RFC 5737)."""
MORE_PUBLIC: Final = IPv4Network("240.0.0.0/4")
"""Reserved and used by nobody, for captures with more machines than those hold."""
MULTICAST_IN_TEXTS: Final = IPv4Network("233.252.0.0/24")
IN_FOUR: Final = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
"""IPv6 addresses that hold one of IPv4 (RFC 4291 2.5.5.2, RFC 6052)."""
DOCUMENTATION: Final = IPv6Network("2001:db8::/32")
BLOCK_FOR: Final = {Role.DEVICE: 0, Role.SERVER: 1 << 32, Role.OTHER: 2 << 32}
"""Where in a range of IPv6 those of a role begin."""


class Disguise:
    """Gives names as they are asked for; the first asked for is the first of its range."""

    def __init__(self, taken: Collection[bytes] = ()) -> None:
        """``taken`` are addresses (4 or 16 bytes) and hardware addresses (6 bytes) that must not be given."""
        self.addresses: dict[bytes, bytes] = {}
        self.hardware: dict[bytes, bytes] = {}
        self.ids: dict[bytes, bytes] = {}
        self._taken = set(taken)
        self._ranges: dict[object, Iterator[bytes]] = {}

    def address(self, address: bytes, role: Role = Role.OTHER) -> bytes:
        """Return the other name of a packed IPv4 or IPv6 address."""
        known = self.addresses.get(address)
        if known is None:
            known = self._other_4(address, role) if len(address) == IPV4_SIZE else self._other_6(address, role)
            self.addresses[address] = known
        return known

    def mac(self, mac: bytes, *, vendor: bool = False) -> bytes:
        """Return the other name of a hardware address; ``vendor`` keeps the half that names who made the device."""
        if mac in (NO_MAC, BROADCAST):
            return mac
        if mac[0] & GROUP:
            return BROADCAST  # a group's address is made of the group's IP address, or tells a protocol of the network
        known = self.hardware.get(mac)
        if known is None:
            front = mac[:VENDOR] if vendor and not mac[0] & LOCALLY_ADMINISTERED else MADE_UP
            known = self._next(front, lambda: (front + n.to_bytes(6 - VENDOR) for n in range(1, 1 << 24)))
            self.hardware[mac] = known
        return known

    def device_id(self, device_id: bytes) -> bytes:
        """Return an ID that a report shortens to the same."""
        known = self.ids.get(device_id)
        if known is None:
            front, back = device_id[:SHOWN_OF_ID], device_id[-SHOWN_OF_ID:]
            room = DEVICE_ID_SIZE - 2 * SHOWN_OF_ID
            known = self._next(
                (front, back), lambda: (front + n.to_bytes(room) + back for n in range(1 << 32)), {device_id}
            )
            self.ids[device_id] = known
        return known

    @property
    def given(self) -> frozenset[bytes]:
        """All addresses that may stand in the result."""
        return KEPT | frozenset(self.addresses.values())

    def _other_4(self, address: bytes, role: Role) -> bytes:
        if address in KEPT:
            return address
        there = IPv4Address(address)
        for same in (LINK_LOCAL, SHARED, LOOPBACK):
            if there in same:
                return self._from(same)
        if there in MULTICAST:
            return self._from(MULTICAST_IN_TEXTS, MULTICAST)
        if any(there in network for network in LOCAL):
            return self._from(PRIVATE_FOR[role])
        return self._from(PUBLIC_FOR[role], MORE_PUBLIC)

    def _other_6(self, address: bytes, role: Role) -> bytes:
        if address in KEPT:
            return address
        there = IPv6Address(address)
        for holds_four in IN_FOUR:
            if there in holds_four:
                return address[:-IPV4_SIZE] + self.address(address[-IPV4_SIZE:], role)
        unique, link = LOCAL_IPV6
        if there in link:
            network = IPv6Network("fe80::/64")
        elif there in unique:
            network = IPv6Network("fd00::/64")
        elif there.is_multicast:
            network = IPv6Network("ff0e::db8:0:0/96")
        else:
            network = DOCUMENTATION
        start = int(network.network_address) + BLOCK_FOR[role] % network.num_addresses
        return self._next((network, role), lambda: ((start + n).to_bytes(16) for n in range(1, 1 << 32)))

    def _from(self, *networks: IPv4Network) -> bytes:
        def hosts() -> Iterator[bytes]:
            for network in networks:
                first = int(network.network_address)
                for n in range(network.num_addresses):
                    if 0 < n & 0xFF < 0xFF:  # no address that some network takes for its own, or for everybody's
                        yield (first + n).to_bytes(IPV4_SIZE)

        return self._next(networks, hosts)

    def _next(self, key: object, make: Callable[[], Iterator[bytes]], taken: Collection[bytes] = ()) -> bytes:
        if key not in self._ranges:
            self._ranges[key] = make()
        for name in self._ranges[key]:
            if name not in self._taken and name not in KEPT and name not in taken:
                self._taken.add(name)  # where one range is full, those of other roles go on in the same
                return name
        raise AssertionError("more machines than there are addresses")
