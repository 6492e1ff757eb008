"""Logins that fail because of a key, and what becomes of such devices."""

from __future__ import annotations

from analyzer.catalogue import DEVICE_READ_LIMIT
from analyzer.simulate import exchanges, messages
from analyzer.simulate.conversation import Conversation
from analyzer.simulate.keys import DEVICE_BITS, SERVER_BITS
from analyzer.simulate.scenarios.registry import LATER, scenario
from analyzer.simulate.scenarios.steps import (
    BAD_SIGNATURE,
    LEGACY_HELLO_LIMIT,
    REFUSED,
    WRONG_KEY,
    cannot_use_offer,
    end_well,
    give_stale_key,
    refused,
    repeat,
    until_offer,
)
from analyzer.simulate.world import World


@scenario(
    "key-mismatch",
    "reply cannot be used",
    "SPK301",
    without_keys="SPK206",
    server="legacy",
    verdict="device_key_mismatch",
    say="The server accepted the device and sent the 384 bytes, but the device could not open the "
    "first 128: the public key on file for it does not belong to the private key in it. Send the "
    "device's own public key again.",
    near_miss="SPK303",
    story="The server holds another public key for this device than the device's own. A Core of 2014 "
    "then says nothing and sends one ping under a dead key 20 s later; the server closes after 30 "
    "s; on the next attempt the ping is still unanswered and the device closes at once. Later "
    "firmware closes 250 ms later and retries, ever slower.",
)
def key_mismatch(world: World) -> None:
    """Play the scenario of this name."""
    device = world.add_device()
    give_stale_key(world, device)

    def story(c: Conversation) -> None:
        until_offer(c)
        cannot_use_offer(c, WRONG_KEY)

    repeat(world, device, story)


@scenario(
    "bad-signature",
    "signed by another server",
    "SPK303",
    without_keys="SPK206",
    verdict="bad_server_signature",
    say="The device could open the session key, but the signature over it does not verify with the "
    "server key that the device holds.",
    near_miss="SPK301",
    story="The server opens the identity with the key the device knows, but signs with another one; the "
    "device finds the signature wrong and gives up.",
)
def _bad_signature(world: World) -> None:
    device = world.add_device()
    world.server.signer_name = "other-server"
    world.server.signer = world.private_key("other-server", SERVER_BITS)

    def story(c: Conversation) -> None:
        until_offer(c)
        c.record["device_recovered_session_key"] = True
        cannot_use_offer(c, BAD_SIGNATURE)

    repeat(world, device, story)


@scenario(
    "wrong-server-key",
    "server hangs up at once",
    "SPK302",
    without_keys="SPK204",
    verdict="wrong_server_key_on_device",
    say="The device encrypted its answer for another server: this one could not open it and closed at once, "
    "without sending the 384 bytes. Write this server's public key to the device.",
    near_miss="SPK304",
    story="The device holds the public key of another server; this one cannot open its answer and closes at once.",
)
def _wrong_server_key(world: World) -> None:
    device = world.add_device()
    device.trusts_name = "other-server"
    device.trusts = world.public_key("other-server", SERVER_BITS)

    def story(c: Conversation) -> None:
        c.connect()
        c.nonce()
        c.identity()
        refused(c, "decryption failed")

    repeat(world, device, story)


@scenario(
    "unknown-device",
    "not registered",
    "SPK304",
    without_keys="SPK204",
    verdict="unknown_device",
    say="The device's answer was fine, but the server has no public key for this device id and closed "
    "at once. Register the device's public key under this id.",
    near_miss="SPK302",
    story="The server opens the answer but has no key on file for this device, and closes at once.",
)
def _unknown_device(world: World) -> None:
    device = world.add_device(registered=False)

    def story(c: Conversation) -> None:
        c.connect()
        c.nonce()
        c.identity()
        refused(c, f"couldn't find key for core: {device.device_id.hex()}")

    repeat(world, device, story)


@scenario(
    "dead-key",
    "frames under a dead key",
    "SPK301",
    firmwares=("core-2014",),
    without_keys="SPK207",
    verdict="device_key_mismatch",
    say="The device gave up on the handshake but kept talking under an empty key: it could not use the 384 bytes.",
    near_miss="SPK208",
    story="The key mismatch on a Core of mid-2014: at once after the 384 bytes it sends a time request "
    "and an event under the all-zero key, 20 s later a ping; chain and numbers go on over the "
    "reconnect.",
)
def _dead_key(world: World) -> None:
    device = world.add_device()
    give_stale_key(world, device)

    def story(c: Conversation) -> None:
        until_offer(c)
        offered = c.now
        c.result(WRONG_KEY)
        c.announce(after=0.001)
        c.dead_time_request(after=0.01)
        version = messages.event(device.next_message_id(), "spark/cc3000-patch-version", "1.29", private=True)
        c.device_says(version, note="sent under a dead key", label="dead frame", after=0.001)
        c.dead_ping(at=offered + DEVICE_READ_LIMIT)
        c.close("server", at=offered + LEGACY_HELLO_LIMIT)
        c.outcome(REFUSED, "handshake failed: get_hello timed out")

    repeat(world, device, story, default=2)


@scenario(
    "old-session-key",
    "frames under yesterday's key",
    "SPK301",
    firmwares=("core-2014",),
    without_keys="SPK206",
    verdict="device_key_mismatch",
    say="The first session worked; then the key on file was replaced, and the device went on under "
    "the key of the session before.",
    near_miss="SPK208",
    story="A session works; the server's key for the device is then replaced. On reconnecting, a Core "
    "of 2014 cannot use the offer and 20 s later pings under the key of the session before, with "
    "its IV chain continued.",
)
def _old_session_key(world: World) -> None:
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.handshake()
    exchanges.after_hello(c)
    c.close("device", after=2.0)
    c.outcome("planned", "disconnect: socket close")
    give_stale_key(world, device)
    again = Conversation(world, device, at=c.now + 2.0)
    until_offer(again)
    cannot_use_offer(again, WRONG_KEY)


@scenario(
    "worked-then-fails",
    "worked once, then refused",
    "SPK304",
    without_keys="SPK204",
    verdict="unknown_device",
    say="The first login worked; then the server refused the same device: its registration was removed.",
    near_miss="SPK302",
    story="One healthy session; then the device's registration is deleted and the server refuses it twice.",
)
def _worked_then_fails(world: World) -> None:
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.handshake()
    exchanges.after_hello(c)
    c.close("server", after=2.0)
    c.outcome(REFUSED, "restarted")
    del world.server.registry[device.device_id]
    for _ in range(2):
        c = Conversation(world, device, at=c.now + device.pause())
        c.connect()
        c.nonce()
        c.identity()
        refused(c, f"couldn't find key for core: {device.device_id.hex()}")


@scenario(
    "fixed",
    "failed twice, then works",
    "SPK001",
    server="legacy",
    verdict="healthy",
    say="Two logins failed with a key mismatch, then the right key was registered: now it works.",
    near_miss="SPK204",
    story="Two attempts with a stale key on file fail; the right key is registered; the third attempt works.",
)
def _fixed(world: World) -> None:
    device = world.add_device()
    right = world.server.registry[device.device_id]
    give_stale_key(world, device)
    at = 0.0
    for _ in range(2):
        c = Conversation(world, device, at=at)
        until_offer(c)
        cannot_use_offer(c, WRONG_KEY)
        at = c.now + device.pause()
    world.server.registry[device.device_id] = right
    c = Conversation(world, device, at=at + 5.0)
    c.handshake()
    exchanges.everyday(c)
    end_well(c)


@scenario(
    "two-devices",
    "one works, one does not",
    "SPK301",
    without_keys="SPK206",
    server="legacy",
    verdict="mixed",
    say="One device is healthy, the other has a key mismatch.",
    near_miss="SPK204",
    story="Two devices at the same time: the first healthy, the second with a key mismatch.",
)
def _two_devices(world: World) -> None:
    fine, broken = world.add_device(), world.add_device()
    give_stale_key(world, broken)
    c = Conversation(world, fine, at=0.3)
    c.handshake()
    exchanges.everyday(c)
    end_well(c)

    def story(c: Conversation) -> None:
        until_offer(c)
        cannot_use_offer(c, WRONG_KEY)

    repeat(world, broken, story, default=2)
    world.details["per_device"] = {
        fine.device_id.hex(): "healthy",
        broken.device_id.hex(): "device_key_mismatch",
    }


@scenario(
    "retries",
    "300 failures, all alike",
    "SPK302",
    without_keys="SPK204",
    verdict="wrong_server_key_on_device",
    say="The same failure 300 times: the device holds another server's public key.",
    near_miss="SPK508",
    story="A device with the wrong server key dials 300 times and is refused each time.",
)
def _retries(world: World) -> None:
    device = world.add_device()
    device.trusts_name = "other-server"
    device.trusts = world.public_key("other-server", SERVER_BITS)

    def story(c: Conversation) -> None:
        c.connect()
        c.nonce()
        c.identity()
        refused(c, "decryption failed")

    repeat(world, device, story, default=300)


@scenario(
    "short-integer",
    "key the firmware cannot read",
    "SPK306",
    without_keys="SPK206",
    verdict="short_integer_key",
    say="The keys are a pair, but one INTEGER in the device's key file is short, and the firmware's parser runs "
    "out of step there: make a new key pair.",
    near_miss="SPK301",
    story="The device's own key is on file, but its key file has a short INTEGER; the firmware reads nonsense "
    "and cannot open the 384 bytes, which any proper tool can.",
)
def _short_integer(world: World) -> None:
    device = world.add_device()
    device.key = world.private_key(device.name, DEVICE_BITS, short_integer=True)
    world.server.registry[device.device_id] = (device.name, device.key)

    def story(c: Conversation) -> None:
        until_offer(c)
        cannot_use_offer(c, WRONG_KEY)

    repeat(world, device, story)


@scenario(
    "offers-other-key",
    "another key than on file",
    "SPK304",
    without_keys="SPK204",
    verdict="device_key_differs",
    say="The device offers another public key than the server has on file for it, and the server hung up.",
    near_miss="SPK301",
    firmwares=LATER,
    server="community",
    story="The identity opens and carries the device's public key, which is not the one on file; the server "
    "closes at once.",
)
def _offers_other_key(world: World) -> None:
    device = world.add_device()
    give_stale_key(world, device)

    def story(c: Conversation) -> None:
        c.connect()
        c.nonce()
        c.identity()
        refused(c, "key passed to device during handshake doesn't match saved public key")

    repeat(world, device, story)


@scenario(
    "server-broken",
    "all devices refused",
    "SPK308",
    without_keys="SPK204",
    verdict="server_crypto_broken",
    say="Every device is refused although each identity opens and each device is on file: the server's own "
    "cryptography refuses.",
    near_miss="SPK304",
    story="Two devices, both registered and with the right server key, are refused again and again: the "
    "server's runtime no longer supports its decryption.",
)
def _server_broken(world: World) -> None:
    def story(c: Conversation) -> None:
        c.connect()
        c.nonce()
        c.identity()
        refused(c, "decryption failed")

    for _ in range(2):
        repeat(world, world.add_device(), story)
