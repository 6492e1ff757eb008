"""Updates that the device refuses, as a whole or part by part; only the opened messages tell."""

from __future__ import annotations

import struct
import zlib
from typing import Final

from analyzer.simulate import exchanges, messages
from analyzer.simulate.conversation import Conversation
from analyzer.simulate.scenarios.registry import LATER, scenario
from analyzer.simulate.scenarios.steps import end_well
from analyzer.simulate.world import World

IMAGE: Final = 3_000
"""Bytes of the firmware image: 12 chunks, the last one filled up."""
TRIES: Final = 4
"""How often a chunk is sent until the server gives up, in these stories."""


def _session(world: World) -> Conversation:
    c = Conversation(world, world.add_device(), at=0.0)
    c.handshake()
    exchanges.after_hello(c)
    return c


def _pieces(world: World) -> list[bytes]:
    image = world.random("image").randbytes(IMAGE)
    return [image[at : at + exchanges.SLOW_CHUNK] for at in range(0, IMAGE, exchanges.SLOW_CHUNK)]


def _offer(c: Conversation) -> int:
    """Send UpdateBegin; returns its message number."""
    number, token = c.next_server_id(), c.next_server_token()
    begin = messages.update_begin(c.dialect, number, token, chunk_size=exchanges.SLOW_CHUNK, length=IMAGE)
    c.server_says(begin, after=0.5, label="update begin")
    return number


@scenario(
    "ota-refused",
    "update refused",
    "SPK601",
    verdict="ota_refused",
    say="The session is healthy; the device refused the update at once with 4.00.",
    near_miss="SPK602",
    without_keys="SPK001",
    firmwares=LATER,
    story="The server offers an update; the device answers with an error, and the session goes on.",
)
def _ota_refused(world: World) -> None:
    c = _session(world)
    c.device_says(messages.refusal(_offer(c)), after=0.05)
    exchanges.ping(c)
    end_well(c)


@scenario(
    "ota-refused-once",
    "update refused, then taken",
    "SPK001",
    verdict="healthy",
    say="The session is healthy; the device refused the update once, then took it.",
    near_miss="SPK601",
    firmwares=LATER,
    story="The device answers the first offer of an update with an error and takes the second one, which completes.",
)
def _ota_refused_once(world: World) -> None:
    c = _session(world)
    c.device_says(messages.refusal(_offer(c)), after=0.05)
    exchanges.update(c, b"".join(_pieces(world)))
    c.close("device", after=0.5)
    c.outcome("restarts into the new firmware", "disconnect: socket close")


def _refused_chunks(world: World, *, right: bool) -> None:
    """The device refuses one chunk again and again: its checksum is wrong, or right and its flash is not."""
    c = _session(world)
    pieces = _pieces(world)
    exchanges.begin_update(c, IMAGE)
    for piece in pieces[:5]:
        exchanges.send_chunk(c, piece)
    crc = struct.pack(">I", zlib.crc32(pieces[5]) ^ (not right))
    for _ in range(TRIES):
        number, token = c.next_server_id(), c.next_server_token()
        c.server_says(messages.chunk(number, token, pieces[5], crc=crc), after=0.01, label="chunk")
        received = messages.chunk_received(c.device.next_message_id(), token, good=False)
        c.device_says(messages.empty_ack(number), received, after=0.02)
    exchanges.ping(c)
    end_well(c)


@scenario(
    "ota-crc-wrong",
    "server's checksums are wrong",
    "SPK602",
    verdict="ota_failed",
    say="The server's checksum of a chunk did not fit its own data; the device refused it each time.",
    near_miss="SPK601",
    without_keys="SPK001",
    story="From chunk 5 on the server sends a checksum that is not that of the data; the device refuses it four times.",
)
def _ota_crc_wrong(world: World) -> None:
    _refused_chunks(world, right=False)


@scenario(
    "ota-flash-fault",
    "device cannot store a chunk",
    "SPK602",
    verdict="ota_failed",
    say="The device refused a chunk whose checksum was right, each time: its flash or memory is at fault.",
    near_miss="SPK601",
    without_keys="SPK001",
    story="The device answers chunk 5 with 4.00 four times, although its checksum is right; the server gives up.",
)
def _ota_flash_fault(world: World) -> None:
    _refused_chunks(world, right=True)


@scenario(
    "ota-not-taken",
    "end of update refused",
    "SPK602",
    verdict="ota_failed",
    say="The device refused the end of the update because parts were missing, and they were never sent again.",
    near_miss="SPK601",
    without_keys="SPK001",
    firmwares=LATER,
    story="Two chunks are not stored; the device answers UpdateDone with 4.00 and asks for them once, in vain.",
)
def _ota_not_taken(world: World) -> None:
    c = _session(world)
    exchanges.begin_update(c, IMAGE)
    for index, piece in enumerate(_pieces(world)):
        exchanges.send_chunk(c, piece, stored=index not in (3, 8))
    number = c.next_server_id()
    c.server_says(messages.update_done(number, c.next_server_token()), after=0.008, label="update done")
    c.device_says(messages.refusal(number), after=0.05)
    own = c.device.next_message_id()
    c.device_says(messages.chunk_missed(own, (3, 8)), after=0.01, label="chunk missed")
    c.server_says(messages.server_ack(c.dialect, own), after=0.002)
    exchanges.ping(c)
    end_well(c)
