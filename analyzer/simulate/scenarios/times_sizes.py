"""Logins with a step of the wrong size, in pieces, late or missing; and some that only look like it."""

from __future__ import annotations

from analyzer.catalogue import DEVICE_READ_LIMIT, SERVER_IDENTITY_LIMITS
from analyzer.simulate import exchanges
from analyzer.simulate.conversation import Conversation
from analyzer.simulate.scenarios.registry import scenario
from analyzer.simulate.scenarios.steps import (
    COMMUNITY_LIMIT,
    FAILED_LED,
    HEALTHY,
    LEGACY_HELLO_LIMIT,
    NO_ANSWER,
    REFUSED,
    end_well,
    refused,
    repeat,
    until_offer,
)
from analyzer.simulate.world import World


@scenario(
    "server-closes-late",
    "server hangs up after 30 s",
    "SPK204",
    verdict="refused_late",
    say="The server got the identity, looked for the device's key until one of its timers ended, and hung up.",
    near_miss="SPK206",
    story="The server gets the 256 bytes, answers nothing, and closes 10, 30 and 120 s later. The "
    "device gives up after 20 s but a Core of 2014 keeps the socket.",
)
def _server_closes_late(world: World) -> None:
    device = world.add_device(registered=False)
    limits = iter(SERVER_IDENTITY_LIMITS * 100)

    def story(c: Conversation) -> None:
        limit = next(limits)
        c.connect()
        c.nonce()
        c.identity()
        sent = c.now
        if limit > DEVICE_READ_LIMIT and device.firmware.ends_failed_handshake:
            c.close("device", at=sent + DEVICE_READ_LIMIT)
            c.outcome("no answer in 20 s", "disconnect: socket close")
        else:
            c.close("server", at=sent + limit)
            c.outcome(REFUSED, "handshake failed: timed out")
        c.result(NO_ANSWER)

    repeat(world, device, story)


@scenario(
    "split-identity",
    "identity in two pieces",
    "SPK203",
    verdict="identity_split",
    say="The device's answer arrived in pieces; this server reads once, decrypts what is there and hangs up.",
    near_miss="SPK302",
    story="The 256 bytes come as 200 and 56; the server decrypts the first piece alone, fails and "
    "closes. All keys are right.",
)
def _split_identity(world: World) -> None:
    device = world.add_device()

    def story(c: Conversation) -> None:
        c.connect()
        c.nonce()
        c.identity(cut=(200,))
        refused(c, "decryption failed", after=0.001)

    repeat(world, device, story)


@scenario(
    "split-identity-fine",
    "in two pieces, but works",
    "SPK001",
    verdict="healthy",
    say=HEALTHY,
    near_miss="SPK203",
    story="Nonce, identity and offer each come in two segments, and the server copes: a healthy session.",
)
def _split_identity_fine(world: World) -> None:
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.connect()
    c.nonce(cut=(17,))
    c.identity(cut=(200,))
    c.offer(cut=(128,))
    c.device_hello()
    c.server_hello()
    exchanges.after_hello(c)
    end_well(c)


@scenario(
    "short-nonce",
    "nonce is cut short",
    "SPK201",
    verdict="short_nonce",
    say="The server sent fewer than 40 bytes and closed: it does not speak this protocol correctly.",
    near_miss="SPK103",
    story="The server sends 23 of 40 random bytes and closes half a second later.",
)
def _short_nonce(world: World) -> None:
    device = world.add_device()

    def story(c: Conversation) -> None:
        c.connect()
        c.record["nonce"] = c.nonce_bytes[:23].hex()
        c.tcp.send("server", c.nonce_bytes[:23], after=0.006, label="nonce")
        c.close("server", after=0.5)
        c.result(NO_ANSWER)
        c.outcome(REFUSED, "crashed")

    repeat(world, device, story)


@scenario(
    "long-nonce",
    "nonce is too long",
    "SPK201",
    verdict="long_nonce",
    say="The server sent more than 40 bytes before the device answered: it does not speak this protocol.",
    near_miss="SPK103",
    story="The server greets with 64 random bytes. The device takes 40, answers, and reads the rest as "
    "the beginning of the 384 bytes; the server closes after 30 s.",
)
def _long_nonce(world: World) -> None:
    device = world.add_device()

    def story(c: Conversation) -> None:
        c.connect()
        greeting = c.nonce_bytes + world.random("long", device.attempts).randbytes(24)
        c.record["nonce"] = c.nonce_bytes.hex()
        c.tcp.send("server", greeting, after=0.006, label="nonce")
        c.identity()
        sent = c.now
        who = "device" if device.firmware.ends_failed_handshake else "server"
        limit = DEVICE_READ_LIMIT if who == "device" else LEGACY_HELLO_LIMIT
        c.tcp.close("device" if who == "device" else "server", at=sent + limit)
        c.result(NO_ANSWER)
        c.outcome("no answer in 20 s", "disconnect: socket close")

    repeat(world, device, story, default=2)


@scenario(
    "device-silent",
    "device never answers nonce",
    "SPK202",
    verdict="device_silent",
    say="The server greeted the device; the device never replied, and the server closed at its limit.",
    near_miss="SPK206",
    story="The nonce arrives and is acknowledged, but the device never answers; the server closes after "
    "30 s (the community server after 10 s).",
)
def _device_silent(world: World) -> None:
    device = world.add_device()
    limit = COMMUNITY_LIMIT if world.server.dialect == "community" else LEGACY_HELLO_LIMIT

    def story(c: Conversation) -> None:
        c.connect()
        c.nonce()
        c.close("server", at=c.now + limit)
        c.outcome(REFUSED, "handshake failed: read_coreid timed out")

    repeat(world, device, story, default=2)


@scenario(
    "wrong-identity-size",
    "identity of 128 or 512 bytes",
    "SPK203",
    verdict="wrong_identity_size",
    say="The device's answer has the wrong size: it was built for a server key of another size.",
    near_miss="SPK204",
    story="The device answers with 128 bytes, on the next attempt with 512; the server closes each time.",
)
def _wrong_identity_size(world: World) -> None:
    device = world.add_device()
    sizes = iter((128, 512) * 100)

    def story(c: Conversation) -> None:
        c.connect()
        c.nonce()
        size = next(sizes)
        identity = world.random("identity", device.attempts).randbytes(size)
        c.tcp.send("device", identity, after=0.1, label="identity")
        refused(c, "decryption failed")

    repeat(world, device, story, default=2)


@scenario(
    "wrong-reply-size",
    "reply is not 384 bytes",
    "SPK205",
    verdict="wrong_reply_size",
    say="The server's reply is not 384 bytes: a key of the wrong size is registered.",
    near_miss="SPK206",
    story="The server replies with 256, then 512, then 128 bytes; the device never says hello, and the "
    "server closes (later firmware closes itself).",
)
def _wrong_reply_size(world: World) -> None:
    device = world.add_device()
    sizes = iter((256, 512, 128) * 100)

    def story(c: Conversation) -> None:
        c.connect()
        c.nonce()
        c.identity()
        size = next(sizes)
        reply = world.random("reply", device.attempts).randbytes(size)
        c.tcp.send("server", reply, after=0.007, label="offer")
        if device.firmware.ends_failed_handshake:
            c.close("device", after=FAILED_LED if size > 384 else DEVICE_READ_LIMIT)
        else:
            c.close("server", at=c.now + LEGACY_HELLO_LIMIT)
        c.result(NO_ANSWER)
        c.outcome("handshake failed", "handshake failed: get_hello timed out")

    repeat(world, device, story)


@scenario(
    "slow-hello",
    "hello after 4.2 s, then works",
    "SPK001",
    verdict="healthy",
    say=HEALTHY,
    near_miss="SPK206",
    story="The device's hello comes 4.2 s after the 384 bytes; then everything works.",
)
def _slow_hello(world: World) -> None:
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    until_offer(c)
    c.device_hello(after=4.2)
    c.server_hello()
    exchanges.after_hello(c)
    end_well(c)


@scenario(
    "slow-handshake",
    "slow, but it works",
    "SPK209",
    verdict="slow_handshake",
    say="The handshake works but slowly: the device took 6 s for its answer, the server 3 s for its own.",
    near_miss="SPK206",
    story="The device answers the nonce after 6 s, the server looks the device up for 3 s; the login succeeds.",
)
def _slow_handshake(world: World) -> None:
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.connect()
    c.nonce()
    c.identity(after=6.0)
    c.offer(after=3.0)
    c.device_hello()
    c.server_hello()
    exchanges.after_hello(c)
    end_well(c)


@scenario(
    "hello-unanswered",
    "server does not say hello",
    "SPK208",
    verdict="hello_unanswered",
    say="The device said hello correctly; the server never said hello back. The keys are not the cause.",
    near_miss="SPK206",
    story="The device's hello arrives in time; the server never answers. The device closes after its "
    "limit of 2 or 4 s; a Core of 2014 has none, there the server closes after 30 s.",
)
def _hello_unanswered(world: World) -> None:
    device = world.add_device()

    def story(c: Conversation) -> None:
        until_offer(c)
        offered = c.now
        c.device_hello()
        limit = device.firmware.hello_limit
        if limit is None:
            c.close("server", at=offered + LEGACY_HELLO_LIMIT)
            c.outcome(REFUSED, "handshake failed: get_hello timed out")
        else:
            c.close("device", at=c.now + limit)
            c.outcome("no server hello in time", "disconnect: socket close")
        c.result(NO_ANSWER)

    repeat(world, device, story)
