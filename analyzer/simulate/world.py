"""Where a story plays: seed and clock, the network, the devices and the server, and what is written down."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from analyzer.catalogue import CLOUD_NAME, SPARK_PORT
from analyzer.simulate.keys import DEVICE_BITS, SERVER_BITS, RsaKey, make_key
from analyzer.simulate.messages import Dialect, Firmware
from analyzer.simulate.parties import Device, Server
from analyzer.simulate.wire import LINK_TYPES, Host, Link, Packet, Wire

TO_DEVICE: Final = 0.002
"""Round-trip time in seconds between the capture point, a home router, and a device on its Wi-Fi."""
SERVER_TTL: Final = 64 - 12
"""A server twelve hops away."""

_IPV4: Final = {"device": "192.168.1.{}", "router": "192.168.1.1", "server": "198.51.100.20"}
_IPV6: Final = {"device": "2001:db8:1::{}", "router": "2001:db8:1::1", "server": "2001:db8:5::20"}
_FIRST_DEVICE: Final = 104
_LETTERS: Final = 26


class World:
    """One simulation: seed, clock, wire, and everybody in it."""

    def __init__(
        self,
        *,
        seed: int,
        firmware: Firmware,
        dialect: Dialect,
        link: Link,
        rtt: float,
        start_ns: int,
        port: int = SPARK_PORT,
        attempts: int | None = None,
        isn: tuple[int, int] | None = None,
    ) -> None:
        self.seed = seed
        self.firmware = firmware
        self.wire = Wire(link, start_ns)
        self.rtt = rtt
        self.port = port
        self.attempts = attempts
        self.isn = isn
        self.files: dict[str, bytes] = {}
        self.records: list[dict[str, Any]] = []
        self.devices: list[Device] = []
        self.servers: list[Server] = []
        self.notes = ""
        self.details: dict[str, Any] = {}
        self.damage: list[Callable[[list[Packet]], list[Packet]]] = []
        """What the capture suffers afterwards (`analyzer.simulate.damage`)."""
        self.link_type = LINK_TYPES[link]
        self.addresses = _IPV6 if self.wire.ipv6 else _IPV4
        self.router = Host("router", "02:00:00:00:00:01", self.addresses["router"])
        self.server = self.add_server(dialect)

    def random(self, *what: object) -> random.Random:
        """Make a source of randomness for one purpose: what one part draws leaves the others as they are."""
        return random.Random("/".join(map(str, (self.seed, *what))))

    def unix_time(self, time: float) -> float:
        """Convert a moment of the simulation to seconds since 1970."""
        return round(self.wire.nanoseconds(time) / 1e9, 6)

    # -- who is there ------------------------------------------------------------------------------

    def private_key(self, name: str, bits: int, *, short_integer: bool = False) -> RsaKey:
        """Make a key pair and put all four forms of it among the files."""
        key = self.public_key(name, bits, short_integer=short_integer)
        self.files[f"{name}.pem"] = key.private_pem()
        self.files[f"{name}.der"] = key.private_der()
        return key

    def public_key(self, name: str, bits: int, *, short_integer: bool = False) -> RsaKey:
        """Make a key pair of which only the public half is among the files: nobody here has the other."""
        key = make_key(self.seed, name, bits, short_integer=short_integer)
        self.files[f"{name}.pub.pem"] = key.public_pem()
        self.files[f"{name}.pub.der"] = key.public_der()
        return key

    def add_server(self, dialect: Dialect, name: str = "server") -> Server:
        """Add a server some way off on the internet."""
        key = self.private_key(name, SERVER_BITS)
        host = Host(
            name,
            self.router.mac,
            self.addresses["server"],
            ttl=SERVER_TTL,
            distance=max(0.0, self.rtt - TO_DEVICE),
            identification=self.random("identification", name).randrange(1, 0xFFFF),
            window=14600,
        )
        server = Server(name, dialect, key, host, key, name)
        self.servers.append(server)
        return server

    def add_device(
        self,
        firmware: Firmware | None = None,
        *,
        registered: bool = True,
        clone_of: Device | None = None,
    ) -> Device:
        """Add a device to the local network, at most 140; by default the server has its key on file.

        A clone has id, key and name of another device, and an address of its own.
        """
        firmware = firmware or self.firmware
        number = len(self.devices)
        suffix = chr(ord("a") + number) if number < _LETTERS else str(number)
        name = firmware.device[:-1] + suffix
        host = Host(
            name,
            f"02:00:00:00:01:{_FIRST_DEVICE + number:02x}",
            self.addresses["device"].format(_FIRST_DEVICE + number),
            distance=TO_DEVICE,
            identification=self.random("identification", name).randrange(1, 0xFFFF),
        )
        port = 49152 + self.random("port", name).randrange(4000)
        if clone_of is None:
            base = firmware.device_id
            device_id = base[:2] + bytes([(base[2] + number) % 256]) + base[3:]
            key = self.private_key(name, DEVICE_BITS)
        else:
            name, device_id, key = clone_of.name, clone_of.device_id, clone_of.key
        device = Device(name, firmware, device_id, key, self.server.key, self.server.name, host, port)
        self.devices.append(device)
        if registered:
            self.server.registry[device_id] = (name, key)
        return device

    # -- what is not the protocol ------------------------------------------------------------------

    def look_up(
        self,
        device: Device,
        at: float,
        name: str = CLOUD_NAME,
        *,
        found: bool = True,
        answered: bool = True,
        address: str | None = None,
    ) -> float:
        """Look a name up at the router; returns when its answer is back.

        It is the server's unless an `address` is given; with `found=False` there is no such name, with
        `answered=False` no answer comes.
        """
        randomness = self.random("dns", device.host.name, round(at * 1e6), name)
        ports = (randomness.randrange(49152, 65535), 53)
        identifier = randomness.randrange(0x10000)
        kind = "AAAA" if self.wire.ipv6 else "A"
        layers = self.wire.layers
        question = layers.dns_question(identifier, name, kind)
        self.wire.udp(at, device.host, self.router, ports=ports, payload=question, label="dns")
        if answered:
            there = (address or self.server.host.address) if found else None
            reply = layers.dns_answer(identifier, name, kind, there)
            self.wire.udp(at + 0.012, self.router, device.host, ports=ports[::-1], payload=reply, label="dns")
        return at + 0.012 + device.host.distance
