"""Steps that several scenarios share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from analyzer.catalogue import DEVICE_READ_LIMIT
from analyzer.simulate import exchanges, messages
from analyzer.simulate.conversation import Conversation
from analyzer.simulate.keys import DEVICE_BITS
from analyzer.simulate.parties import Device
from analyzer.simulate.world import World

HEALTHY: Final = (
    "Handshake complete (nonce, 256 bytes, 384 bytes, both hellos); the session works; every frame "
    "decrypts with the session key. Nothing to fix."
)
LEGACY_HELLO_LIMIT: Final = 30.0
COMMUNITY_LIMIT: Final = 10.0
"""The community server's limit for the whole handshake, from the connection on (PROTOCOL 2.5)."""
FAILED_LED: Final = 0.25
"""Seconds that later firmware shows a colour before it closes after a failed handshake."""

WRONG_KEY: Final = 1
BAD_SIGNATURE: Final = 2
NO_ANSWER: Final = -1
REFUSED: Final = "connection lost: peer closed (FIN)"


def repeat(world: World, device: Device, story: Callable[[Conversation], None], default: int = 3) -> None:
    """Let a device dial again and again, at the pace of its generation."""
    at = 0.0
    for _ in range(world.attempts or default):
        c = Conversation(world, device, at=world.look_up(device, at) + 0.01)
        story(c)
        at = c.now + device.pause()


def until_offer(c: Conversation) -> None:
    """Everything up to and with the 384 bytes."""
    c.connect()
    c.nonce()
    c.identity()
    c.offer()


def cannot_use_offer(c: Conversation, code: int) -> None:
    """Go on as after 384 bytes that the device cannot use (PROTOCOL 2.6, 9.2)."""
    offered = c.now
    if not c.device.firmware.ends_failed_handshake:
        c.announce()  # later firmware does so after a good login alone (PROTOCOL 2.7)
    c.result(code)
    if c.device.firmware.ends_failed_handshake:
        c.close("device", after=FAILED_LED)
        c.outcome("handshake failed", "disconnect: socket close")
        return
    if c.device.unanswered_ping:
        # The keep-alive of the connection before is still waiting: its limit is long over.
        c.device.unanswered_ping = False
        c.close("device", after=0.003)
        c.outcome("event loop ended: ping not answered", "disconnect: socket close")
        return
    c.tcp.keepalive("server", at=offered + 15.1)
    c.dead_ping(at=offered + DEVICE_READ_LIMIT)
    c.result(NO_ANSWER)
    c.close("server", at=offered + LEGACY_HELLO_LIMIT)
    c.outcome(REFUSED, "handshake failed: get_hello timed out")


def refused(c: Conversation, log: str, after: float = 0.004) -> None:
    """Let the server close after the 256 bytes."""
    c.tcp.acknowledge("server")
    c.close("server", after=after)
    c.result(NO_ANSWER)
    c.outcome(REFUSED, f"handshake failed: {log}")


def give_stale_key(world: World, device: Device) -> None:
    """Put a key on file that this device does not hold (any more).

    Only the legacy server goes on to the 384 bytes then: the community server compares the key on file with
    the one in the identity, and refuses (PROTOCOL 2.5).
    """
    name = f"{device.name}-stale"
    world.server.registry[device.device_id] = (name, world.public_key(name, DEVICE_BITS))


def healthy_session(world: World, at: float = 0.0) -> Conversation:
    """One device with an everyday session that it ends itself."""
    device = world.add_device()
    c = Conversation(world, device, at=world.look_up(device, at) + 0.01)
    c.handshake()
    exchanges.everyday(c)
    end_well(c)
    return c


def end_well(c: Conversation) -> None:
    """Let the device end the session because it wants to."""
    if c.device.firmware.long_hello:
        c.device_says(messages.goodbye(c.device.next_message_id()), after=1.0)
    c.close("device", after=0.0 if c.device.firmware.long_hello else 1.0)
    c.outcome("planned", "disconnect: socket close")
