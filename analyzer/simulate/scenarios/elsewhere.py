"""Captures with other traffic: other protocols, other ports, nothing of Spark at all."""

from __future__ import annotations

import struct
from typing import Final

from analyzer.catalogue import DTLS_PORT, FALLBACK_ADDRESS, SPARK_PORT
from analyzer.simulate import exchanges
from analyzer.simulate.conversation import Conversation
from analyzer.simulate.messages import CON, CONTENT, GET, message, presence
from analyzer.simulate.scenarios.registry import scenario
from analyzer.simulate.scenarios.steps import HEALTHY, end_well, healthy_session
from analyzer.simulate.tcp import SYN_RETRIES, TcpSession
from analyzer.simulate.wire import Host
from analyzer.simulate.world import World

_OTHER_PORT: Final = 8000
_TLS_ALERT: Final = bytes.fromhex("15030100020228")


@scenario(
    "dns-failed",
    "name lookup fails",
    "SPK101",
    verdict="dns_failed",
    say="The device could not look up the cloud's name and fell back to the address built into its firmware, "
    "which does not answer.",
    near_miss="SPK106",
    story="Three lookups of the cloud's name find nothing; the device dials its built-in address, which is silent.",
)
def _dns_failed(world: World) -> None:
    device = world.add_device()
    if not world.wire.ipv6:
        world.server.host.address = FALLBACK_ADDRESS
    at = 0.0
    for _ in range(3):
        at = world.look_up(device, at, found=False) + 1.0
    c = Conversation(world, device, at=at)
    c.tcp.syn(SYN_RETRIES)
    c.outcome("connect failed: timed out")


@scenario(
    "no-spark",
    "only DNS and web traffic",
    "SPK706",
    verdict="no_spark_traffic",
    say="No packet here belongs to a Spark connection: only name lookups and web traffic.",
    near_miss="SPK101",
    story="Some name lookups and two web pages, nothing else.",
)
def _no_spark(world: World) -> None:
    web(world, 0.0)
    web(world, 1.0)


def web(world: World, at: float) -> None:
    """Show a lookup and one HTTP exchange of a computer on the same network."""
    desk = Host("desk", "02:00:00:00:01:f0", world.addresses["device"].format(200), distance=0.001)
    randomness = world.random("web", at)
    layers = world.wire.layers
    ports = (randomness.randrange(49152, 65535), 53)
    kind = "AAAA" if world.wire.ipv6 else "A"
    number = randomness.randrange(0x10000)
    question = layers.dns_question(number, "www.example.com", kind)
    address = "2001:db8:8::80" if world.wire.ipv6 else "203.0.113.80"
    reply = layers.dns_answer(number, "www.example.com", kind, address)
    world.wire.udp(at, desk, world.router, ports=ports, payload=question, label="dns")
    world.wire.udp(at + 0.02, world.router, desk, ports=ports[::-1], payload=reply, label="dns")
    site = Host("site", world.router.mac, address, ttl=55, distance=0.03)
    tcp = TcpSession(
        world.wire,
        desk,
        site,
        start=at + 0.03,
        device_port=randomness.randrange(49152, 65535),
        server_port=80,
    )
    tcp.connect()
    tcp.send("device", b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n", label="web")
    tcp.send("server", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", after=0.01, label="web")
    tcp.close("device", after=0.2)


@scenario(
    "background",
    "works, amid other traffic",
    "SPK001",
    verdict="healthy",
    say=HEALTHY,
    near_miss="SPK706",
    story="A healthy session while a computer on the same network surfs.",
)
def _background(world: World) -> None:
    web(world, 0.05)
    healthy_session(world)
    web(world, 3.0)


@scenario(
    "announcements-only",
    "device seen, no connection",
    "SPK706",
    verdict="no_spark_traffic",
    say="No Spark connection in the capture, only announcements of a device: wrong place to capture.",
    near_miss="SPK101",
    story="A computer beside the path: only the device's multicast announcement and the lookups of others are seen.",
)
def _announcements_only(world: World) -> None:
    device = world.add_device()
    for number in range(3):
        world.wire.announce(0.1 + 0.004 * number, device.host, presence(device.device_id))
    web(world, 1.0)


@scenario(
    "other-port",
    "works, but on port 8000",
    "SPK706",
    verdict="other_port",
    say="No traffic on port 5683, but TCP port 8000 carries traffic that looks like Spark.",
    near_miss="SPK801",
    story="A healthy session with a local server on port 8000.",
)
def _other_port(world: World) -> None:
    device = world.add_device()
    c = Conversation(world, device, at=0.0, server_port=_OTHER_PORT)
    c.handshake()
    exchanges.everyday(c)
    end_well(c)


@scenario(
    "coap-tcp",
    "genuine CoAP over TCP",
    "SPK801",
    verdict="not_spark",
    say="This is genuine CoAP over TCP (RFC 8323), not the Spark protocol, although the port is 5683.",
    near_miss="SPK401",
    story="CoAP over TCP as in RFC 8323: both sides' settings, three requests, a ping, a release.",
)
def _coap_tcp(world: World) -> None:
    client = Host("client", "02:00:00:00:01:f1", world.addresses["device"].format(201), distance=0.001)
    tcp = TcpSession(world.wire, client, world.server.host, start=0.0, device_port=49900)
    settings = bytes.fromhex("30e1220480")
    tcp.connect()
    tcp.send("device", settings, after=0.001)
    tcp.send("server", settings, after=0.001)
    for token in range(1, 4):
        tcp.send("device", bytes([0x51, GET, token]) + b"\xb4temp", after=0.5)
        tcp.send("server", bytes([0x51, CONTENT, token]) + b"\xff21.5", after=0.003)
    tcp.send("device", bytes.fromhex("00e2"), after=1.0)
    tcp.send("server", bytes.fromhex("00e3"), after=0.001)
    tcp.send("device", bytes.fromhex("00e4"), after=1.0)
    tcp.close("device", after=0.01)


@scenario(
    "tls-client",
    "a TLS client on port 5683",
    "SPK801",
    verdict="not_spark",
    say="The client speaks first, and it speaks TLS: another service on this port.",
    near_miss="SPK103",
    story="A TLS client says hello on port 5683; the server answers with an alert and closes.",
)
def _tls_client(world: World) -> None:
    client = Host("client", "02:00:00:00:01:f1", world.addresses["device"].format(201), distance=0.001)
    tcp = TcpSession(world.wire, client, world.server.host, start=0.0, device_port=49901)
    random = world.random("tls").randbytes(32)
    body = b"\x03\x03" + random + b"\x00" + bytes.fromhex("0004c02fc0300100")
    hello = b"\x01" + len(body).to_bytes(3, "big") + body
    tcp.connect()
    tcp.send("device", b"\x16\x03\x01" + struct.pack(">H", len(hello)) + hello, after=0.002)
    tcp.send("server", _TLS_ALERT, after=0.002)
    tcp.close("server", after=0.001)


@scenario(
    "udp-coap",
    "genuine CoAP over UDP",
    "SPK801",
    verdict="not_spark",
    say="Genuine CoAP over UDP on port 5683, not the Spark protocol.",
    near_miss="SPK101",
    story="Ordinary CoAP requests and answers over UDP 5683.",
)
def _udp_coap(world: World) -> None:
    client = Host("client", "02:00:00:00:01:f1", world.addresses["device"].format(201))
    for number in range(4):
        ports = (49902, SPARK_PORT)
        request = message(CON, GET, 100 + number, token=number, options=((11, b"temp"),))
        reply = message(0x60, CONTENT, 100 + number, token=number, payload=b"21.5")
        at = 0.5 * number
        world.wire.udp(at, client, world.server.host, ports=ports, payload=request)
        world.wire.udp(at + world.rtt, world.server.host, client, ports=ports[::-1], payload=reply)


@scenario(
    "dtls",
    "newer device, DTLS on UDP 5684",
    "SPK706",
    verdict="not_spark",
    say="A newer Particle device that uses DTLS on UDP 5684, which is another protocol.",
    near_miss="SPK101",
    story="A device of a later family looks up its own name and sends DTLS records to UDP 5684.",
)
def _dtls(world: World) -> None:
    client = Host("boron", "02:00:00:00:01:f2", world.addresses["device"].format(202))
    randomness = world.random("dtls")
    world.look_up(world.add_device(), 0.0, "e00fce680000000000000000.udp.particle.io")
    for number in range(6):
        ports = (49903, DTLS_PORT)
        kind, epoch = (22, 0) if number < 3 else (23, 1)
        for at, forth in ((0.5 * number, True), (0.5 * number + world.rtt, False)):
            body = randomness.randbytes(60 + 7 * number)
            record = struct.pack(">BHHHIH", kind, 0xFEFD, epoch, 0, number, len(body)) + body
            ends = (client, world.server.host) if forth else (world.server.host, client)
            world.wire.udp(at, *ends, ports=ports if forth else ports[::-1], payload=record)


@scenario(
    "not-enough-time",
    "one SYN, capture ends",
    None,
    verdict="cannot_tell",
    say="One SYN and nothing else: the capture ends too early to say anything.",
    near_miss="SPK101",
    story="The capture is stopped half a second after the SYN of the first login.",
)
def _not_enough_time(world: World) -> None:
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.tcp.syn()
    c.outcome("connecting")
    web(world, 0.2)
