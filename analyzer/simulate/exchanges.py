"""What a device and its server say to each other once the session is up (PROTOCOL 2.8, 5.4, 5.5)."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from typing import Final

from analyzer.catalogue import PING_AFTER
from analyzer.simulate import messages
from analyzer.simulate.conversation import Conversation

SLOW_CHUNK: Final = 256
"""Bytes of a chunk that the legacy server sends; also fine for the community server."""
_FLASH_WRITE: Final = 0.006
"""Seconds a device takes to store a chunk."""
_MISSES_TOLERATED: Final = 10
"""The legacy server gives an update up at the next one (PROTOCOL 5.5)."""
_MISS_INTERVAL: Final = 3.0


def ask_time(c: Conversation, *, after: float = 0.1) -> None:
    """Let the device ask for the time."""
    number, token = c.device.next_message_id(), c.device.next_token()
    c.device_says(messages.time_request(number, token), after=after)
    c.server_says(messages.time_answer(number, token, int(c.world.unix_time(c.now))), after=0.002)


def publish(c: Conversation, name: str, data: str, *, ttl: int = 60, private: bool = False, after: float = 0.2) -> None:
    """Let the device publish an event; the server acknowledges it in its way."""
    number = c.device.next_message_id()
    c.device_says(messages.event(number, name, data, ttl=ttl, private=private), after=after)
    c.server_says(messages.event_ack(c.dialect, number, name), after=0.003)


def subscribe(c: Conversation, prefix: str, *, mine: bool = False, after: float = 0.1) -> None:
    """Let the device subscribe to events."""
    number = c.device.next_message_id()
    c.device_says(messages.subscribe(number, prefix, mine=mine), after=after)
    c.server_says(messages.server_ack(c.dialect, number), after=0.003)


def send_event(c: Conversation, name: str, data: str, *, after: float = 0.3) -> None:
    """Let the server pass an event on; nobody answers."""
    c.server_says(messages.server_event(c.dialect, c.next_server_id(), name, data), after=after)


def describe(c: Conversation, *, after: float = 0.05) -> None:
    """Let the server ask what functions and variables there are (PROTOCOL 5.4.9, 7.2)."""
    number, token = c.next_server_id(), c.next_server_token()
    c.server_says(messages.describe_request(number, token), after=after)
    firmware = c.device.firmware
    description: dict[str, object] = {"f": ["led"], "v": {"count": 2, "temperature": 9, "name": 4}}
    if firmware.platform is not None:
        description |= {"p": firmware.platform, "m": []}
    payload = json.dumps(description, separators=(",", ":")).encode()
    if firmware.separate_values:
        own = c.device.next_message_id()
        c.device_says(messages.empty_ack(number), messages.separate_describe(own, token, payload), after=0.01)
        c.server_says(messages.server_ack(c.dialect, own), after=0.003)
        return
    c.device_says(messages.answer(number, token, payload), after=0.01)
    if firmware.describes_twice:
        # The buffer has been encrypted in place by then, so the id is what the ciphertext begins with.
        stray = int.from_bytes(c.device.cipher.iv[:2], "big")
        c.device_says(messages.answer(stray, token, payload), after=0.0005)


def read_variable(c: Conversation, name: str, value: bytes, *, after: float = 0.25) -> None:
    """Let the server read a variable (PROTOCOL 5.4.11)."""
    number, token = c.next_server_id(), c.next_server_token()
    c.server_says(messages.variable_request(number, token, name), after=after)
    if c.device.firmware.separate_values:
        own = c.device.next_message_id()
        c.device_says(messages.empty_ack(number), messages.separate_value(own, token, value), after=0.01)
    else:
        c.device_says(messages.answer(number, token, value), after=0.01)


def call(c: Conversation, name: str, argument: str, result: int, *, after: float = 0.3) -> None:
    """Let the server call a function: acknowledged at once, then the result (PROTOCOL 5.4.10)."""
    number, token = c.next_server_id(), c.next_server_token()
    c.server_says(messages.function_call(number, token, name, argument), after=after)
    own = c.device.next_message_id()
    c.device_says(messages.empty_ack(number), messages.function_return(own, token, result), after=0.01)


def signal(c: Conversation, *, on: bool, after: float = 0.3) -> None:
    """Let the server make the LED show a rainbow, or stop it (PROTOCOL 5.4.12)."""
    number, token = c.next_server_id(), c.next_server_token()
    c.server_says(messages.signal(number, token, on=on), after=after)
    c.device_says(messages.changed(number, token), after=0.01)


def ping(c: Conversation, *, answered_after: float | None = 0.002) -> None:
    """One keep-alive round, 15 s after the last message; None: nobody answers."""
    number = c.device.next_message_id()
    c.device_says(messages.ping(number), after=PING_AFTER, label="ping")
    if answered_after is not None:
        c.server_says(messages.server_ack(c.dialect, number), after=answered_after, label="ping answer")


def after_hello(c: Conversation) -> None:
    """Begin as every session does: describe, time, system event, subscription (PROTOCOL 2.8)."""
    c.announce()
    if c.dialect == "community":
        describe(c)
    if c.device.firmware.platform is None:
        ask_time(c, after=0.05)
        publish(c, "spark/cc3000-patch-version", "1.29", private=True)
        subscribe(c, "greet")
    else:
        publish(c, "spark/device/last_reset", "power_down", ttl=3600, private=True, after=0.08)
        subscribe(c, "spark", mine=True)
        ask_time(c)
    if c.dialect == "legacy":
        describe(c)


def everyday(c: Conversation) -> None:
    """Exchange the mixture of messages that a session of some seconds shows."""
    after_hello(c)
    if not (c.dialect == "legacy" and c.device.firmware.leaves_on_error):
        # This pair would end here: the answer to every user event is 4.00 (PROTOCOL 5.4.6).
        publish(c, "temp", "21.5", private=True)
        publish(c, "status", "ok", ttl=3600)
    read_variable(c, "count", struct.pack(">i", 21))
    read_variable(c, "temperature", struct.pack("<d", 23.4375))
    read_variable(c, "name", b"greenhouse")
    call(c, "led", "on", 1)
    send_event(c, "greet/all", "hi")
    signal(c, on=True)
    signal(c, on=False, after=1.5)
    ping(c)


def begin_update(c: Conversation, length: int, *, after: float = 0.5) -> int:
    """UpdateBegin and the device's two answers (PROTOCOL 5.5); returns the token of the transfer."""
    number, token = c.next_server_id(), c.next_server_token()
    begin = messages.update_begin(c.dialect, number, token, chunk_size=SLOW_CHUNK, length=length)
    c.server_says(begin, after=after, label="update begin")
    ready = messages.update_ready(c.device.firmware, c.device.next_message_id(), token)
    c.device_says(messages.empty_ack(number), ready, after=0.2)
    return token


def send_chunk(c: Conversation, data: bytes, *, after: float = 0.006, stored: bool = True) -> None:
    """One chunk, zero-filled to its size, and (if it could be `stored`) the device's two answers."""
    number, token = c.next_server_id(), c.next_server_token()
    chunk = messages.chunk(number, token, data.ljust(SLOW_CHUNK, b"\x00"))
    c.server_says(chunk, after=after, label="chunk")
    if stored:
        received = messages.chunk_received(c.device.next_message_id(), token)
        c.device_says(messages.empty_ack(number), received, after=_FLASH_WRITE)
    else:
        c.device_says(messages.empty_ack(number), after=_FLASH_WRITE)


def miss_chunk(c: Conversation, index: int, *, after: float = 0.0005, acknowledged: bool = True) -> None:
    """Let the device ask for a chunk again."""
    number = c.device.next_message_id()
    c.device_says(messages.chunk_missed(number, (index,)), after=after, label="chunk missed")
    if acknowledged:
        # The one empty ACK that the legacy server sends without a token (PROTOCOL 5.4.2).
        c.server_says(messages.empty_ack(number), after=0.001)


def update(c: Conversation, image: bytes, *, missing: Iterable[int] = ()) -> None:
    """Update with the slow form of chunks; each index in `missing` is asked for once more."""
    begin_update(c, len(image))
    again = set(missing)
    for index, offset in enumerate(range(0, len(image), SLOW_CHUNK)):
        data = image[offset : offset + SLOW_CHUNK]
        if index in again:
            send_chunk(c, data, stored=False)
            miss_chunk(c, index)
        send_chunk(c, data)
    finish_update(c)


def finish_update(c: Conversation) -> None:
    """UpdateDone and its answer."""
    number, token = c.next_server_id(), c.next_server_token()
    c.server_says(messages.update_done(number, token), after=0.008, label="update done")
    c.device_says(messages.changed(number, token), after=0.05)


def failing_update(c: Conversation, image: bytes, *, stuck_at: int, asks_on: int = 3) -> None:
    """From one chunk on nothing is stored; the server gives up, the device goes on asking every 3 s."""
    begin_update(c, len(image))
    for index in range(stuck_at):
        send_chunk(c, image[index * SLOW_CHUNK : (index + 1) * SLOW_CHUNK])
    data = image[stuck_at * SLOW_CHUNK : (stuck_at + 1) * SLOW_CHUNK]
    for _ in range(_MISSES_TOLERATED + 1):
        send_chunk(c, data, stored=False)
        miss_chunk(c, stuck_at)
    for _ in range(asks_on):
        miss_chunk(c, stuck_at, after=_MISS_INTERVAL, acknowledged=False)
