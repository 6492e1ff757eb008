"""Logins whose random bytes came before: played back, or made by a server without a source of random numbers."""

from __future__ import annotations

from analyzer.simulate import exchanges
from analyzer.simulate.conversation import Conversation
from analyzer.simulate.scenarios.registry import scenario
from analyzer.simulate.scenarios.steps import HEALTHY, end_well
from analyzer.simulate.world import World


@scenario(
    "same-nonce-again",
    "greeting comes twice",
    "SPK210",
    verdict="repeated_login_bytes",
    say=f"{HEALTHY} But the server greeted two connections with the same number: its random numbers are none.",
    near_miss="SPK704",
    story="A server whose random numbers begin anew with each start greets two connections, a minute apart, alike.",
)
def _same_nonce_again(world: World) -> None:
    device = world.add_device()
    greeting = None
    for at in (0.0, 60.0):
        c = Conversation(world, device, at=at)
        c.nonce_bytes = greeting = greeting or c.nonce_bytes
        c.handshake()
        exchanges.after_hello(c)
        end_well(c)


@scenario(
    "reply-played-back",
    "login played back",
    "SPK210",
    verdict="repeated_login_bytes",
    say="Greeting and reply of the second login are those of the first: a recording is played back to the device.",
    near_miss="SPK704",
    story="A healthy session; a minute later something in the server's place sends its greeting and reply once more.",
)
def _reply_played_back(world: World) -> None:
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.connect()
    c.nonce()
    c.identity()
    offer = c.offer_bytes()
    c.tcp.send("server", offer, after=0.007, label="offer")
    c.device_hello()
    c.server_hello()
    exchanges.after_hello(c)
    end_well(c)
    again = Conversation(world, device, at=60.0)
    again.nonce_bytes, again.blob = c.nonce_bytes, c.blob
    again.connect()
    again.nonce()
    again.identity()
    again.record["session_key"] = c.record["session_key"]
    again.tcp.send("server", offer, after=0.007, label="offer")
    again.device_hello()
    again.close("device", after=device.firmware.hello_limit or 10.0)
    again.outcome("no hello in time", "a recording has ended")
