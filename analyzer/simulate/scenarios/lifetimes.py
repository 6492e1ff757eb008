"""How connections end and come again: time-outs, forgotten connections, clones, crash loops, slow updates."""

from __future__ import annotations

from typing import Final

from analyzer.catalogue import PING_AFTER, PING_ANSWER_LIMIT
from analyzer.simulate import exchanges, messages
from analyzer.simulate.conversation import Conversation
from analyzer.simulate.parties import Device
from analyzer.simulate.scenarios.registry import LATER, scenario
from analyzer.simulate.scenarios.steps import HEALTHY, REFUSED, end_well
from analyzer.simulate.tcp import RETRANSMISSIONS
from analyzer.simulate.world import World

_IDLE_LIMIT: Final = 31.0
"""Seconds that the community server tolerates a device that says nothing (PROTOCOL 2.5)."""
_UPDATE_LIMIT: Final = 60.0
"""Seconds that the community server allows for a whole update (PROTOCOL 5.5)."""


def _session(world: World, device: Device, at: float) -> Conversation:
    """Log in, and do what follows at once."""
    c = Conversation(world, device, at=at)
    c.handshake()
    exchanges.after_hello(c)
    return c


@scenario(
    "timed-out",
    "device too busy, timed out",
    "SPK504",
    verdict="device_quiet",
    say="The device said nothing for 31 s, each time; the server timed it out. The user's program is too busy.",
    near_miss="SPK506",
    firmwares=LATER,
    server="community",
    story="Three sessions: after some seconds the device says nothing more, not even a ping, while its TCP "
    "still acknowledges; 31 s later the server closes.",
)
def _timed_out(world: World) -> None:
    device = world.add_device()
    at = 0.0
    for _ in range(world.attempts or 3):
        c = _session(world, device, at)
        quiet = c.now
        c.tcp.keepalive("server", at=quiet + PING_AFTER)
        c.close("server", at=quiet + _IDLE_LIMIT)
        c.outcome(REFUSED, "idle for 31 s")
        at = c.now + 1.0


@scenario(
    "forgotten",
    "router forgot the connection",
    "SPK506",
    verdict="connection_forgotten",
    say="After 15 s of silence nothing of the device gets through: a router dropped the quiet connection.",
    near_miss="SPK503",
    story="The router forgets connections that are quiet for 10 s: the ping after 15 s is retransmitted and "
    "never acknowledged; 10 s later the device dials anew, and it happens again.",
)
def _forgotten(world: World) -> None:
    device = world.add_device()
    at = 0.0
    for _ in range(world.attempts or 3):
        c = _session(world, device, at)
        ping = messages.ping(device.next_message_id())
        c.device_says(ping, after=PING_AFTER, delivered=False, label="ping", note="never arrived")
        pinged = c.now
        c.tcp.retransmit("device", 18, (*RETRANSMISSIONS, 4.8))
        c.tcp.fin("device", at=pinged + PING_ANSWER_LIMIT)
        c.tcp.forget("server")
        c.outcome("ping not answered in 10 s", "not known")
        at = c.now + 1.0


@scenario(
    "clone",
    "same identity from two places",
    "SPK507",
    without_keys="SPK001",
    verdict="same_device_twice",
    say="Two devices claim to be the same one: each login of one ends the session of the other.",
    near_miss="SPK504",
    firmwares=LATER,
    server="community",
    story="Two devices with the same id and key log in by turns; at each login the server closes the other's session.",
)
def _clone(world: World) -> None:
    first = world.add_device()
    second = world.add_device(clone_of=first)
    at = 0.0
    before: Conversation | None = None
    for turn in range(world.attempts or 6):
        c = Conversation(world, (first, second)[turn % 2], at=at)
        c.handshake()
        if before is not None:
            before.close("server", at=c.now)
            before.outcome(REFUSED, "already connected")
        exchanges.after_hello(c)
        before = c
        at = c.now + 2.0
    if before is not None:
        end_well(before)


@scenario(
    "crash-loop",
    "restarts again and again",
    "SPK508",
    verdict="crash_loop",
    say="The device restarts every few seconds: its sessions come up and stop without an end.",
    near_miss="SPK504",
    story="Six sessions: each comes up, and some seconds later the device is simply gone, does not acknowledge "
    "an event, and dials anew.",
)
def _crash_loop(world: World) -> None:
    device = world.add_device()
    at = 0.0
    for _ in range(world.attempts or 6):
        c = _session(world, device, at)
        gone = c.now
        exchanges.send_event(c, "greet/all", "anybody there?", after=5.0)
        c.tcp.forget("device")
        c.tcp.retransmit("server", 34, RETRANSMISSIONS[:2])
        c.outcome("crashed", "connection lost: timed out")
        device.reset()
        at = gone + 12.0


@scenario(
    "planned-reconnects",
    "reconnects as planned",
    "SPK001",
    verdict="healthy",
    say=HEALTHY,
    near_miss="SPK508",
    story="Six short sessions in two minutes, each ended by the device in good order.",
)
def _planned_reconnects(world: World) -> None:
    device = world.add_device()
    at = 0.0
    for _ in range(world.attempts or 6):
        c = _session(world, device, at)
        end_well(c)
        at = c.now + 18.0


@scenario(
    "event-refused",
    "hangs up at each answer",
    "SPK509",
    verdict="hangs_up_on_answer",
    say="Each time the server answers an event with 4.00, which it always does, this firmware hangs up.",
    near_miss="SPK508",
    firmwares=("core-0.5", "photon-0.5"),
    server="legacy",
    story="The legacy server answers every user event with 4.00; firmware 0.4.9 to 0.7 drops the connection on "
    "it: login, publish, drop, again and again.",
)
def _event_refused(world: World) -> None:
    device = world.add_device()
    at = 0.0
    for _ in range(world.attempts or 4):
        c = _session(world, device, at)
        exchanges.publish(c, "temp", "21.5", private=True, after=1.0)
        c.close("device", after=0.003)
        c.outcome("protocol error", "disconnect: socket close")
        at = c.now + 1.0


@scenario(
    "ota-too-slow",
    "update overruns its limit",
    "SPK603",
    verdict="ota_too_slow",
    say="The update went on steadily but too slowly: the server allows 60 s and gave up in the middle.",
    near_miss="SPK601",
    firmwares=LATER,
    server="community",
    story="Over a slow link each chunk takes 2 s; after 60 s the server gives the update up, although none was lost.",
)
def _ota_too_slow(world: World) -> None:
    device = world.add_device()
    c = _session(world, device, 0.0)
    image = world.random("image").randbytes(12_000)
    started = c.now
    exchanges.begin_update(c, len(image))
    offset = 0
    while c.now + 2.0 < started + _UPDATE_LIMIT:
        exchanges.send_chunk(c, image[offset : offset + exchanges.SLOW_CHUNK], after=1.95)
        offset += exchanges.SLOW_CHUNK
    c.close("server", at=max(c.now, started + _UPDATE_LIMIT))
    c.outcome(REFUSED, "update timed out")
