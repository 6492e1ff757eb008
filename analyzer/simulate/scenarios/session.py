"""Sessions that come up: healthy ones, and those that end badly later."""

from __future__ import annotations

from typing import Final

from analyzer.catalogue import BLOCK, PING_ANSWER_LIMIT
from analyzer.simulate import exchanges, messages
from analyzer.simulate.conversation import Conversation
from analyzer.simulate.scenarios.registry import scenario
from analyzer.simulate.scenarios.steps import HEALTHY, end_well, healthy_session
from analyzer.simulate.world import World

_IMAGE: Final = 12_000
"""Bytes of the firmware image in the update scenarios: 47 chunks, the last one filled up."""


@scenario(
    "healthy",
    "everything works",
    "SPK001",
    verdict="healthy",
    say=HEALTHY,
    near_miss="SPK206",
    story=(
        "A healthy session: describe, variables, a function call, events both ways, a subscription, "
        "the time, the signal on and off, one keep-alive ping; the device ends it."
    ),
)
def _healthy(world: World) -> None:
    healthy_session(world)


@scenario(
    "healthy-idle",
    "works, only pings",
    "SPK001",
    verdict="healthy",
    say=HEALTHY,
    near_miss="SPK503",
    story="A healthy session that is idle for two minutes: a ping and its answer every 15 seconds.",
)
def _healthy_idle(world: World) -> None:
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.handshake()
    exchanges.after_hello(c)
    for _ in range(8):
        exchanges.ping(c)
    end_well(c)


@scenario(
    "keepalive-lost",
    "server stops answering",
    "SPK503",
    verdict="keepalive_lost",
    say="Healthy session until the server stopped answering: a ping got no answer within 10 s, so the device "
    "closed and reconnected. Server or path trouble, not keys.",
    near_miss="SPK206",
    story="The server process hangs some seconds into the session; its TCP still acknowledges. The "
    "device pings 15 s after the last message, gets no answer for 10 s, closes, and reconnects "
    "with success.",
)
def _keepalive_lost(world: World) -> None:
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.handshake()
    exchanges.after_hello(c)
    exchanges.ping(c)
    exchanges.ping(c, answered_after=None)
    c.tcp.fin("device", at=c.now + PING_ANSWER_LIMIT)
    c.outcome("ping not answered in 10 s", "disconnect: socket close")
    again = Conversation(world, device, at=c.now + 1.0)
    again.handshake()
    exchanges.after_hello(again)
    end_well(again)


@scenario(
    "keepalive-slow",
    "ping answered after 9.5 s",
    "SPK001",
    verdict="healthy",
    say=HEALTHY,
    near_miss="SPK503",
    story="A ping is answered only after 9.5 s, half a second before the device would have given up; all is well.",
)
def _keepalive_slow(world: World) -> None:
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.handshake()
    exchanges.after_hello(c)
    exchanges.ping(c, answered_after=9.5 - world.rtt)
    exchanges.ping(c)
    end_well(c)


@scenario(
    "call-unanswered",
    "function call not answered",
    "SPK503",
    verdict="request_unanswered",
    say="The session works, but the device never answered one function call; user code kept it too long.",
    near_miss="SPK206",
    without_keys="SPK001",
    story="The server calls a function; the device's TCP acknowledges it, but no answer ever comes. Pings go on.",
)
def _call_unanswered(world: World) -> None:
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.handshake()
    exchanges.after_hello(c)
    call = messages.function_call(c.next_server_id(), c.next_server_token(), "brew", "coffee")
    c.server_says(call, after=0.5, note="never answered")
    exchanges.ping(c)
    exchanges.ping(c)
    end_well(c)


@scenario(
    "bad-counter",
    "message number jumps",
    "SPK502",
    verdict="bad_counter",
    say="A message number of the device jumped; the server counts them, logged Bad Counter and hung up.",
    near_miss="SPK501",
    without_keys="SPK001",
    story="In a good session the device skips one message number; the server closes at once.",
)
def _bad_counter(world: World) -> None:
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.handshake()
    exchanges.after_hello(c)
    device.next_message_id()
    jumped = messages.event(device.next_message_id(), "spark/device/random", "x")
    c.device_says(jumped, after=0.5, note="the number before was never used")
    c.close("server", after=0.004)
    c.outcome("connection lost: peer closed (FIN)", "Bad Counter")


@scenario(
    "id-wraps",
    "message numbers wrap around",
    "SPK001",
    verdict="healthy",
    say=HEALTHY,
    near_miss="SPK502",
    story="A healthy session whose message numbers pass 65535 and go on at 0 on both sides.",
)
def _id_wraps(world: World) -> None:
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.blob = c.blob[:32] + b"\xff\xff" + c.blob[34:]
    c.server_message_id = 0xFFFD
    c.handshake()
    exchanges.everyday(c)
    end_well(c)


@scenario(
    "framing-lost",
    "framing lost in the session",
    "SPK501",
    verdict="framing_lost",
    say="From one point on the server's bytes are no frames any more; the device hung up.",
    near_miss="SPK703",
    story="The server loses twelve bytes of a frame in its own software; the length after it makes no "
    "sense, and the device closes. TCP saw no loss at all.",
)
def _framing_lost(world: World) -> None:
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.handshake()
    exchanges.after_hello(c)
    long_event = messages.server_event(c.dialect, c.next_server_id(), "greet/all", "h" * 60)
    sealed = c.server_cipher.seal(long_event)
    c.tcp.send("server", sealed[:20] + sealed[32:], after=0.4, label="frame")
    after = messages.server_event(c.dialect, c.next_server_id(), "greet/all", "again")
    c.server_says(after, after=0.4, note="the device could not find this frame")
    c.close("device", after=0.002)
    c.outcome("protocol error: frame too long", "disconnect: socket close")


@scenario(
    "wrong-cipher",
    "frames stop decrypting",
    "SPK501",
    verdict="decryption_lost",
    say="Framing stays right, but from one frame on nothing of the server decrypts any more.",
    near_miss="SPK301",
    without_keys="SPK001",
    story="After some good frames the server encrypts with a broken key; lengths stay right, the contents do not.",
)
def _wrong_cipher(world: World) -> None:
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.handshake()
    exchanges.after_hello(c)
    c.server_cipher.key = world.random("broken key").randbytes(BLOCK)
    for _ in range(3):
        exchanges.send_event(c, "greet/all", "nobody can read this")
    c.close("device", after=0.002)
    c.outcome("protocol error", "disconnect: socket close")


def _image(world: World) -> bytes:
    return world.random("image").randbytes(_IMAGE)


@scenario(
    "ota-complete",
    "update over the air works",
    "SPK001",
    verdict="healthy",
    say="Healthy session with a complete firmware update.",
    near_miss="SPK601",
    story="A firmware update of 12,000 bytes in 256-byte chunks, each acknowledged; then the device restarts.",
)
def _ota_complete(world: World) -> None:
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.handshake()
    exchanges.after_hello(c)
    exchanges.update(c, _image(world))
    c.close("device", after=0.5)
    c.outcome("restarts into the new firmware", "disconnect: socket close")


@scenario(
    "ota-chunk-again",
    "update works, chunk repeated",
    "SPK001",
    verdict="healthy",
    say="Healthy session with a complete firmware update; one chunk was asked for twice.",
    near_miss="SPK602",
    story="An update that completes although chunks 7 and 20 had to be sent twice.",
)
def _ota_chunk_again(world: World) -> None:
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.handshake()
    exchanges.after_hello(c)
    exchanges.update(c, _image(world), missing=(7, 20))
    c.close("device", after=0.5)
    c.outcome("restarts into the new firmware", "disconnect: socket close")


@scenario(
    "ota-gives-up",
    "update fails at one chunk",
    "SPK602",
    server="legacy",
    verdict="ota_failed",
    say="The session itself is healthy; the update failed: the device kept reporting the same chunk "
    "as missed, the server sent it again and gave up after more than 10 misses.",
    near_miss="SPK206",
    story="From chunk 12 on nothing is stored; the device asks for it again and again, the server gives "
    "up at the 11th time, the device goes on asking every 3 s.",
)
def _ota_gives_up(world: World) -> None:
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.handshake()
    exchanges.after_hello(c)
    exchanges.failing_update(c, _image(world), stuck_at=12)
    c.close("device", after=3.0)
    c.outcome("gives up", "disconnect: socket close")


@scenario(
    "ota-stalls",
    "update stops in the middle",
    "SPK601",
    verdict="ota_stalled",
    say="The update stopped: the server sent no more chunks, the device asked every 3 s and got nothing.",
    near_miss="SPK602",
    story="After 20 of 47 chunks the server sends nothing more; the device asks for the next one every "
    "3 s, five times, and restarts.",
)
def _ota_stalls(world: World) -> None:
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.handshake()
    exchanges.after_hello(c)
    image = _image(world)
    exchanges.begin_update(c, len(image))
    for index in range(20):
        exchanges.send_chunk(c, image[index * exchanges.SLOW_CHUNK : (index + 1) * exchanges.SLOW_CHUNK])
    for _ in range(5):
        exchanges.miss_chunk(c, 20, after=3.0, acknowledged=False)
    c.tcp.rst("device", after=3.0)
    c.outcome("restarts", "connection lost: ECONNRESET")


@scenario(
    "ota-not-started",
    "update never starts",
    "SPK601",
    server="legacy",
    verdict="ota_not_started",
    say="The server offered an update four times; the device never answered it.",
    near_miss="SPK602",
    story="UpdateBegin is sent three times, 6 s apart, then once without a payload; the device answers "
    "none of them and only goes on pinging.",
)
def _ota_not_started(world: World) -> None:
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.handshake()
    exchanges.after_hello(c)
    token = c.next_server_token()
    begin = c.now + 0.5
    for attempt in range(3):
        offer = messages.update_begin(c.dialect, c.next_server_id(), token, chunk_size=256, length=_IMAGE)
        c.server_says(offer, at=begin + 6.0 * attempt, label="update begin")
    last = messages.update_begin_bare(c.next_server_id(), token)
    c.server_says(last, at=begin + 18.0, label="update begin")
    exchanges.ping(c)
    exchanges.ping(c)
    c.close("device", after=2.0)
    c.outcome("planned", "disconnect: socket close")
