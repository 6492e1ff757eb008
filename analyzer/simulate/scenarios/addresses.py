"""No login because of where the device calls: names that are not found, servers that moved, ports of web servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from analyzer.catalogue import DEVICE_READ_LIMIT, FALLBACK_ADDRESS, PROBE_ADDRESS, PROBE_PORT
from analyzer.simulate import exchanges
from analyzer.simulate.conversation import Conversation
from analyzer.simulate.parties import Device
from analyzer.simulate.scenarios.registry import LATER, scenario
from analyzer.simulate.scenarios.steps import HEALTHY, end_well, repeat
from analyzer.simulate.tcp import SYN_RETRIES, TcpSession
from analyzer.simulate.wire import Host
from analyzer.simulate.world import World

_ASK_AGAIN: Final = 5.0
"""Seconds that a device waits for the answer to a name lookup."""
_TIMED_OUT: Final = "connect failed: timed out"
_WEB_PORT: Final = 8080


def _at(world: World, address: str) -> None:
    """Give the server another address; where the network is IPv6, it keeps the one it has."""
    if not world.wire.ipv6:
        world.server.host.address = address


def _beside(world: World) -> Host:
    """Put the server into the device's own network."""
    server = world.server.host
    server.address = "fd00:1::50" if world.wire.ipv6 else "192.168.1.50"
    server.mac, server.ttl, server.distance = "02:00:00:00:01:32", 64, 0.001
    return server


def _give_up(c: Conversation) -> None:
    c.tcp.silence(1.0)
    c.outcome(_TIMED_OUT)


def _again(world: World, story: Callable[[Device, float], Conversation], default: int = 2) -> None:
    """Let a device that calls a stored address, without looking up a name, try again and again."""
    device, at = world.add_device(), 0.1
    for _ in range(world.attempts or default):
        c = story(device, at)
        at = c.now + device.pause()


# -- names -----------------------------------------------------------------------------------------------------------


@scenario(
    "dns-unanswered",
    "name lookups stay unanswered",
    "SPK105",
    verdict="dns_failed",
    say="No DNS server answered the device, so it dialled the address built into its firmware; that is silent.",
    near_miss="SPK106",
    story="Three lookups of the cloud's name stay without any answer; the device dials its built-in address in vain.",
)
def _dns_unanswered(world: World) -> None:
    device = world.add_device()
    _at(world, FALLBACK_ADDRESS)
    at = 0.0
    for _ in range(3):
        at = world.look_up(device, at, answered=False) + _ASK_AGAIN
    c = Conversation(world, device, at=at)
    c.tcp.syn(SYN_RETRIES)
    _give_up(c)


@scenario(
    "dns-fallback-works",
    "name not found, works anyway",
    "SPK001",
    verdict="healthy",
    say=f"{HEALTHY} The cloud's name was not found, and the address built into the firmware served.",
    near_miss="SPK101",
    story="Three lookups find nothing; the device dials its built-in address, where the cloud still answers.",
)
def _dns_fallback_works(world: World) -> None:
    device = world.add_device()
    _at(world, FALLBACK_ADDRESS)
    at = 0.0
    for _ in range(3):
        at = world.look_up(device, at, found=False) + 1.0
    c = Conversation(world, device, at=at)
    c.handshake()
    exchanges.everyday(c)
    end_well(c)


@scenario(
    "dns-second-try",
    "name found at second try",
    "SPK101",
    verdict="port_blocked",
    say="The name was found at the second try, at the very address that is built into the firmware; it is silent.",
    near_miss="SPK105",
    story="One lookup is not answered, the next is; its answer is the address that firmware has built in as well.",
)
def _dns_second_try(world: World) -> None:
    device = world.add_device()
    _at(world, FALLBACK_ADDRESS)
    world.look_up(device, 0.0, answered=False)
    c = Conversation(world, device, at=world.look_up(device, _ASK_AGAIN) + 0.01)
    c.tcp.syn(SYN_RETRIES)
    _give_up(c)


@scenario(
    "name-astray",
    "name leads to the router",
    "SPK106",
    verdict="wrong_address",
    say="The network's DNS server answers the cloud's name with the router's address, where nothing answers.",
    near_miss="SPK105",
    firmwares=LATER,
    story="A filter answers the lookup of the cloud's name with the router's own address, which drops port 5683.",
)
def _name_astray(world: World) -> None:
    device = world.add_device()
    world.server.host.address = "fd00:1::1" if world.wire.ipv6 else world.router.address
    if world.wire.ipv6:
        device.host.address = "fd00:1::68"

    def story(c: Conversation) -> None:
        c.tcp.syn(SYN_RETRIES)
        _give_up(c)

    repeat(world, device, story, default=2)


@scenario(
    "other-than-looked-up",
    "dials another address",
    "SPK106",
    verdict="wrong_address",
    say="The name was found at one address, and the device dialled another, where nobody answers.",
    near_miss="SPK105",
    story="The lookup of the cloud's name is answered; the device dials an address of its own, which is silent.",
)
def _other_than_looked_up(world: World) -> None:
    device = world.add_device()
    device.host.address = "fd00:1::68" if world.wire.ipv6 else device.host.address
    found = "2001:db8:5::77" if world.wire.ipv6 else "198.51.100.77"
    c = Conversation(world, device, at=world.look_up(device, 0.0, address=found) + 0.01)
    c.tcp.syn(SYN_RETRIES)
    _give_up(c)


# -- places ----------------------------------------------------------------------------------------------------------


@scenario(
    "server-moved",
    "local server has moved",
    "SPK106",
    verdict="wrong_address",
    say="The device calls a local address that no machine has any more: the server has moved.",
    near_miss="SPK102",
    story="The own server got a new address. The router asks in vain who has the old one, and says so by ICMP.",
)
def _server_moved(world: World) -> None:
    server = _beside(world)

    def story(device: Device, at: float) -> Conversation:
        world.wire.who_has(at - 0.05, device.host, world.router, answer_after=0.001)
        c = Conversation(world, device, at=at)
        packet = c.tcp.syn()
        for number in range(3):
            world.wire.who_has(at + 0.001 + number, world.router, server)
        world.wire.nobody_there(at + 3.0, world.router, packet, device.host)
        c.tcp.silence(3.5)
        c.outcome("connect failed: host unreachable")
        return c

    _again(world, story)


@scenario(
    "local-server-blocked",
    "local server, port blocked",
    "SPK101",
    verdict="port_blocked",
    say="The local server's computer is there, but its firewall drops port 5683.",
    near_miss="SPK106",
    story="The own server's computer answers ARP; its firewall drops every request to connect.",
)
def _local_server_blocked(world: World) -> None:
    server = _beside(world)

    def story(device: Device, at: float) -> Conversation:
        world.wire.who_has(at - 0.05, device.host, server, answer_after=0.001)
        c = Conversation(world, device, at=at)
        c.tcp.syn(SYN_RETRIES)
        _give_up(c)
        return c

    _again(world, story)


@scenario(
    "web-port",
    "calls a web server's port",
    "SPK706",
    verdict="wrong_port",
    say="The device calls port 8080, where a web server waits for a request; no Spark server listens there.",
    near_miss="SPK801",
    firmwares=LATER,
    story="The port of the own server's web interface is stored in the device: it waits 20 s there for a greeting.",
)
def _web_port(world: World) -> None:
    def story(device: Device, at: float) -> Conversation:
        c = Conversation(world, device, at=at, server_port=_WEB_PORT)
        c.connect()
        c.close("device", at=c.tcp.start + DEVICE_READ_LIMIT + world.rtt)
        c.result(-1)
        c.outcome("no nonce in 20 s")
        return c

    _again(world, story)


# -- the device's own test -------------------------------------------------------------------------------------------


def _probe(world: World, device: Device, at: float, *, answered: bool) -> float:
    """Test the internet connection as a device does after a failed attempt; returns when that is over."""
    there = Host("probe", world.router.mac, "2001:db8::8" if world.wire.ipv6 else PROBE_ADDRESS, ttl=118, distance=0.01)
    tcp = TcpSession(world.wire, device.host, there, start=at, device_port=device.next_port, server_port=PROBE_PORT)
    device.next_port += 1
    if not answered:
        tcp.syn(SYN_RETRIES)
        return tcp.now + 1.0
    tcp.connect()
    tcp.close("device")
    return tcp.now


def _unreachable(world: World, *, internet: bool) -> None:
    device, at = world.add_device(), 0.0
    for _ in range(world.attempts or 2):
        c = Conversation(world, device, at=world.look_up(device, at) + 0.01)
        c.tcp.syn(SYN_RETRIES)
        _give_up(c)
        at = _probe(world, device, c.now + 0.1, answered=internet) + device.pause()


@scenario(
    "cloud-unreachable",
    "internet works, cloud silent",
    "SPK101",
    verdict="port_blocked",
    say="No SYN to port 5683 was answered, while the device's own test of the internet was: the port is blocked.",
    near_miss="SPK106",
    story="Every SYN to port 5683 is dropped; the device then tests the internet each time, which works (3 blinks).",
)
def _cloud_unreachable(world: World) -> None:
    _unreachable(world, internet=True)


@scenario(
    "no-internet",
    "no way to the internet",
    "SPK101",
    verdict="port_blocked",
    say="Neither the cloud nor the device's own test of the internet was answered: the network has no way out.",
    near_miss="SPK106",
    story="The router answers name lookups, but nothing beyond it does, the device's test included (2 blinks).",
)
def _no_internet(world: World) -> None:
    _unreachable(world, internet=False)
