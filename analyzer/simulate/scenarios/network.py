"""No login at all: blocked ports, and other services that answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from analyzer.catalogue import DEVICE_READ_LIMIT
from analyzer.simulate.conversation import Conversation
from analyzer.simulate.scenarios.registry import LATER, scenario
from analyzer.simulate.scenarios.steps import LEGACY_HELLO_LIMIT, repeat
from analyzer.simulate.tcp import SYN_RETRIES
from analyzer.simulate.world import World

_PORTAL: Final = (
    b"HTTP/1.1 302 Found\r\nLocation: http://login.hotel.example/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)
_BAD_REQUEST: Final = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_SSH: Final = b"SSH-2.0-OpenSSH_6.6.1p1 Ubuntu-2ubuntu2\r\n"
_TLS_ALERT: Final = bytes.fromhex("15030100020228")
"""Fatal, handshake failure: what a TLS server says when nobody starts a handshake."""
_GAVE_UP: Final = "no nonce in 20 s"


def _give_up(c: Conversation) -> None:
    """Close as a device that has waited 20 s for bytes that did not come."""
    c.close("device", at=c.tcp.start + _nonce_wait(c))
    c.result(-1)
    c.outcome(_GAVE_UP)


def _nonce_wait(c: Conversation) -> float:
    """Seconds from the SYN until a device gives up the wait for the nonce."""
    return DEVICE_READ_LIMIT + c.world.rtt


@scenario(
    "port-blocked",
    "no answer at all",
    "SPK101",
    verdict="port_blocked",
    say="No SYN was ever answered: outgoing TCP 5683 is blocked, or the host is down. Nothing to decrypt.",
    near_miss="SPK102",
    story="The name is found, but every SYN to port 5683 is dropped by a firewall: repeated, several attempts.",
)
def _port_blocked(world: World) -> None:
    device = world.add_device()

    def story(c: Conversation) -> None:
        c.tcp.syn(SYN_RETRIES)
        c.tcp.silence(1.0)
        c.outcome("connect failed: timed out")

    repeat(world, device, story, default=2)


@scenario(
    "blocked-icmp",
    "router forbids the port",
    "SPK101",
    verdict="port_blocked",
    say="The router says itself, by ICMP, that it must not forward to this port.",
    near_miss="SPK102",
    story='The router answers each SYN with ICMP "communication administratively prohibited".',
)
def _blocked_icmp(world: World) -> None:
    device = world.add_device()

    def story(c: Conversation) -> None:
        packet = c.tcp.syn()
        world.wire.prohibit(c.now + 0.001, world.router, packet, device.host)
        c.tcp.silence(0.5)
        c.outcome("connect failed: administratively prohibited")

    repeat(world, device, story)


@scenario(
    "refused",
    "connection refused",
    "SPK102",
    verdict="connection_refused",
    say="The address is right but nothing listens there: each SYN was answered by RST.",
    near_miss="SPK101",
    story="Nothing listens on the server's port: each SYN is answered by RST.",
)
def _refused(world: World) -> None:
    device = world.add_device()

    def story(c: Conversation) -> None:
        c.tcp.refuse()
        c.tcp.silence(0.01)
        c.outcome("connect failed: refused")

    repeat(world, device, story)


@scenario(
    "reset-after-accept",
    "reset right after connecting",
    "SPK102",
    verdict="connection_reset",
    say="A box on the way reset the connection right after it was accepted: its TTL is not the server's.",
    near_miss="SPK204",
    story="The server accepts, and a firewall (one hop away, with a TTL of its own) resets the "
    "connection before any data.",
)
def _reset_after_accept(world: World) -> None:
    device = world.add_device()

    def story(c: Conversation) -> None:
        c.connect()
        c.tcp.rst("server", at=c.now + world.rtt / 5, ttl=63)
        c.outcome("connection lost: reset")

    repeat(world, device, story)


@scenario(
    "closed-after-accept",
    "accepted, then closed",
    "SPK104",
    verdict="no_nonce",
    say="The connection was accepted and closed again at once, without a byte: a dead service behind a balancer.",
    near_miss="SPK102",
    story="The server accepts and closes with a FIN at once, without sending anything.",
)
def _closed_after_accept(world: World) -> None:
    device = world.add_device()

    def story(c: Conversation) -> None:
        c.connect()
        c.close("server", after=0.002)
        c.result(-1)
        c.outcome("connection lost: peer closed (FIN)")

    repeat(world, device, story)


@scenario(
    "no-nonce",
    "connected, then silence",
    "SPK104",
    verdict="no_nonce",
    say="TCP connected, but the other side never sent the 40-byte nonce. The service behind the port hangs.",
    near_miss="SPK101",
    firmwares=LATER,
    story="The server accepts and never sends anything; the device gives up after 20 s and tries again.",
)
def _no_nonce(world: World) -> None:
    device = world.add_device()

    def story(c: Conversation) -> None:
        c.connect()
        _give_up(c)

    repeat(world, device, story)


@scenario(
    "no-nonce-ping",
    "silence, then a dead-key frame",
    "SPK104",
    verdict="no_nonce",
    say="TCP connected, but no nonce ever came; after 20 s the device sent a ping under an empty key.",
    near_miss="SPK801",
    firmwares=("core-2014",),
    story="The server accepts and never sends anything. A Core of 2014 sends an 18-byte ping under the "
    "all-zero key after 20 s, which so are the first bytes of the connection; the server closes "
    "after 30 s.",
)
def _no_nonce_ping(world: World) -> None:
    device = world.add_device()

    def story(c: Conversation) -> None:
        c.connect()
        c.result(-1)
        c.dead_ping(at=c.tcp.start + _nonce_wait(c))
        c.announce()
        c.close("server", at=c.tcp.start + LEGACY_HELLO_LIMIT + world.rtt)
        c.outcome("connection lost: peer closed (FIN)")

    repeat(world, device, story, default=2)


@scenario(
    "late-nonce",
    "nonce comes too late",
    "SPK104",
    verdict="no_nonce",
    say="The nonce came, but after the device had given up its wait of 20 s.",
    near_miss="SPK202",
    firmwares=LATER,
    story="The server is so slow that its nonce comes 21.5 s after the connection; the device has "
    "closed by then and resets.",
)
def _late_nonce(world: World) -> None:
    device = world.add_device()

    def story(c: Conversation) -> None:
        c.connect()
        c.tcp.fin("device", at=c.tcp.start + _nonce_wait(c))
        c.result(-1)
        c.nonce(at=c.tcp.start + 21.5)
        c.tcp.rst("device")
        c.outcome(_GAVE_UP)

    repeat(world, device, story, default=2)


def _talks(greeting: bytes) -> Callable[[Conversation], None]:
    """Another service that speaks first, ignores what it gets, and closes."""

    def story(c: Conversation) -> None:
        c.connect()
        c.tcp.send("server", greeting, after=0.004, label="greeting")
        if len(greeting) >= 40:
            c.identity()
            c.record["device_id"] = None
        if c.device.firmware.ends_failed_handshake:
            c.close("device", after=DEVICE_READ_LIMIT)
        else:
            c.close("server", after=15.0)
        c.result(-1)
        c.outcome("no 384 bytes")

    return story


@scenario(
    "http-portal",
    "a login page answered",
    "SPK103",
    verdict="not_a_spark_cloud",
    say="What answered on port 5683 is not the Spark cloud but HTTP: a redirect to a login page.",
    near_miss="SPK201",
    story="A captive portal answers every connection with an HTTP redirect; the device takes 40 bytes "
    "of it as nonce and sends its 256 bytes.",
)
def _http_portal(world: World) -> None:
    repeat(world, world.add_device(), _talks(_PORTAL), default=2)


@scenario(
    "ssh-banner",
    "an SSH server answered",
    "SPK103",
    verdict="not_a_spark_cloud",
    say="What answered on port 5683 is an SSH server.",
    near_miss="SPK201",
    story="An SSH server greets with its version, 41 bytes.",
)
def _ssh_banner(world: World) -> None:
    repeat(world, world.add_device(), _talks(_SSH), default=2)


@scenario(
    "tls-service",
    "a TLS server answered",
    "SPK103",
    verdict="not_a_spark_cloud",
    say="What answered on port 5683 is a TLS server: it ended the connection with a TLS alert.",
    near_miss="SPK201",
    story="A TLS server waits 5 s for a ClientHello, then sends an alert of 7 bytes and closes.",
)
def _tls_service(world: World) -> None:

    def story(c: Conversation) -> None:
        c.connect()
        c.tcp.send("server", _TLS_ALERT, after=5.0, label="greeting")
        c.close("server", after=0.001)
        c.result(-1)
        c.outcome("connection lost: peer closed (FIN)")

    repeat(world, world.add_device(), story, default=2)


@scenario(
    "http-late",
    "text after the device gave up",
    "SPK103",
    verdict="not_a_spark_cloud",
    say="A web server waited for a request; when the device gave up, it answered with an HTTP error.",
    near_miss="SPK104",
    firmwares=LATER,
    story="A web server listens on the port and waits for a request. The device gives up after 20 s and "
    'closes; only then the server says "400 Bad Request".',
)
def _http_late(world: World) -> None:

    def story(c: Conversation) -> None:
        c.connect()
        c.tcp.fin("device", at=c.tcp.start + _nonce_wait(c))
        c.tcp.send("server", _BAD_REQUEST, after=0.001, label="greeting")
        c.tcp.rst("device")
        c.result(-1)
        c.outcome(_GAVE_UP)

    repeat(world, world.add_device(), story, default=2)
