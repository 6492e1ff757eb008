"""What the tests of histories share: devices that log in, are refused, find nobody or drop out at given moments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from analyzer.catalogue import PING_AFTER
from analyzer.simulate import Conversation, World, exchanges
from analyzer.simulate.parties import Device
from analyzer.simulate.tcp import SYN_RETRIES

MINUTE: Final = 60.0
Step = Callable[..., Conversation]


def works(world: World, device: Device, at: float, lasts: float = 2.0, **options: Any) -> Conversation:
    """A login, and a session of so many seconds that the device ends."""
    c = Conversation(world, device, at=at, **options)
    c.handshake()
    exchanges.after_hello(c)
    while at + lasts - c.now > PING_AFTER + 1.0:
        exchanges.ping(c)
    c.close("device", at=max(at + lasts, c.now + 0.1))
    return c


def refused(world: World, device: Device, at: float, **options: Any) -> Conversation:
    """The server hangs up after "who I am" (SPK204)."""
    c = Conversation(world, device, at=at, **options)
    c.connect()
    c.nonce()
    c.identity()
    c.close("server", after=0.01)
    device.failures += 1
    return c


def no_use(world: World, device: Device, at: float, **options: Any) -> Conversation:
    """The device cannot use the reply and closes (SPK206)."""
    c = Conversation(world, device, at=at, **options)
    c.connect()
    c.nonce()
    c.identity()
    c.offer()
    c.close("device", at=c.now + 8.0)
    device.failures += 1
    return c


def nobody(world: World, device: Device, at: float, **options: Any) -> Conversation:
    """Nothing answers the request to connect (SPK101)."""
    c = Conversation(world, device, at=at, **options)
    c.tcp.syn(SYN_RETRIES)
    c.tcp.silence(1.0)
    return c


def no_entry(world: World, device: Device, at: float, **options: Any) -> Conversation:
    """The request to connect is refused (SPK102)."""
    c = Conversation(world, device, at=at, **options)
    c.tcp.refuse()
    return c


def cut_off(world: World, device: Device, at: float, **options: Any) -> Conversation:
    """The capture has the beginning only: no verdict can be given."""
    c = Conversation(world, device, at=at, **options)
    c.connect()
    c.nonce()
    return c


def hangs(world: World, device: Device, at: float, lasts: float = 60.0, **options: Any) -> Conversation:
    """A session in which the server answers no ping any more (SPK503)."""
    c = Conversation(world, device, at=at, **options)
    c.handshake()
    exchanges.after_hello(c)
    while at + lasts - c.now > PING_AFTER + 1.0:
        exchanges.ping(c)
    exchanges.ping(c, answered_after=None)
    c.close("device", after=10.0)
    return c


def row(world: World, device: Device, at: float, step: Step, *, times: int, every: float = MINUTE) -> float:
    """Let a device do the same again and again; returns when the next one would be."""
    for _ in range(times):
        step(world, device, at)
        at += every
    return at
