"""Captures to measure with, of any size, and what is in them. The same numbers give the same bytes.

Only bytes and `struct`: what makes them must cost little, and must share nothing with what reads them.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

START: Final = 1_700_000_000
STEP_US: Final = 200
"""Time between two packets."""
PORT: Final = 5683
SERVER: Final = bytes((54, 208, 229, 4))
SYN, FIN, ACK, PUSH_ACK = 0x02, 0x11, 0x10, 0x18
NOISE: Final = random.Random(5683).randbytes(1 << 16)
"""Where payloads are cut from: all that counts about them is that they look like ciphertext."""
WEB_SIZES: Final = (0, 0, 0, 90, 300, 1400, 1400, 1400)
"""Bytes of payload in other traffic: acknowledgements, questions, and what comes back."""


class Step(NamedTuple):
    """A packet of a session: who sends it, TCP flags, payload."""

    device: bool
    flags: int
    payload: bytes


@dataclass(slots=True)
class Truth:
    """What a workload holds."""

    packets: int = 0
    spark_packets: int = 0
    sessions: int = 0
    device_frames: int = 0
    server_frames: int = 0


def write(path: Path, *, packets: int, sessions: int, spark: float) -> Truth:
    """Write a pcap of about ``packets`` packets, the share ``spark`` of which belong to Spark ``sessions``.

    The sessions are of equal length and run one beside the other; each goes through a whole login.
    """
    truth = Truth(sessions=sessions)
    rng = random.Random(packets)
    exchanges = max(1, int(packets * spark / sessions) - 14) // 4
    talks = [_Talk(number, _session(rng, exchanges, truth)) for number in range(sessions)]
    with path.open("wb", buffering=1 << 20) as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1))
        while talks:
            # All sessions are worked on in turn, some at a time, so that they overlap but do not all end at once.
            for talk in talks[:64]:
                frame = talk.next()
                if frame is None:
                    talks.remove(talk)
                    continue
                _record(file.write, truth, frame)
                truth.spark_packets += 1
                while truth.spark_packets > truth.packets * spark:
                    _record(file.write, truth, _web(rng))
    return truth


def _record(write, truth: Truth, frame: bytes) -> None:  # type: ignore[no-untyped-def]
    seconds, micros = divmod(truth.packets * STEP_US, 1_000_000)
    write(struct.pack("<IIII", START + seconds, micros, len(frame), len(frame)) + frame)
    truth.packets += 1


def _session(rng: random.Random, exchanges: int, truth: Truth) -> Iterator[Step]:
    """A login, then messages: the device sends one, the server answers, both acknowledge."""
    yield Step(True, SYN, b"")
    yield Step(False, SYN | ACK, b"")
    yield Step(True, ACK, b"")
    yield Step(False, PUSH_ACK, _noise(rng, 40))
    yield Step(True, PUSH_ACK, _noise(rng, 256))
    yield Step(False, PUSH_ACK, _noise(rng, 384))
    for exchange in range(1 + exchanges):
        size = 16 if exchange == 0 else 16 * rng.choice((1, 1, 2, 3, 17))
        yield Step(True, PUSH_ACK, struct.pack(">H", size) + _noise(rng, size))
        truth.device_frames += 1
        yield Step(False, ACK, b"")
        yield Step(False, PUSH_ACK, struct.pack(">H", 16) + _noise(rng, 16))
        truth.server_frames += 1
        yield Step(True, ACK, b"")
    yield Step(True, FIN, b"")
    yield Step(False, FIN, b"")
    yield Step(True, ACK, b"")


def _noise(rng: random.Random, size: int) -> bytes:
    at = rng.randrange(len(NOISE) - size)
    return NOISE[at : at + size]


class _Talk:
    """Puts TCP around the steps of one session."""

    def __init__(self, number: int, steps: Iterator[Step]) -> None:
        self._steps = steps
        self._device = struct.pack(">HH", 0x0A01, 1 + number % 60_000)
        self._port = 32_768 + number // 60_000 + number % 20_000
        self._next = [1_000 + number, 2_000 + number]  # sequence numbers: device, server

    def next(self) -> bytes | None:
        step = next(self._steps, None)
        if step is None:
            return None
        own, peer = (0, 1) if step.device else (1, 0)
        numbers = self._next[own], self._next[peer] if step.flags & ACK else 0
        self._next[own] += len(step.payload) + bool(step.flags & 0x03)
        ends = (self._device, self._port), (SERVER, PORT)
        return ethernet(*(ends if step.device else ends[::-1]), numbers, step.flags, step.payload)


def _web(rng: random.Random) -> bytes:
    """A packet of other traffic."""
    flow = rng.randrange(4096)
    inside, outside = struct.pack(">HH", 0x0A02, flow), struct.pack(">HH", 0x5DB8, flow)
    payload = _noise(rng, rng.choice(WEB_SIZES))
    numbers = rng.getrandbits(32), rng.getrandbits(32)
    return ethernet((outside, 443), (inside, 40_000 + flow), numbers, ACK, payload)


def ethernet(
    sender: tuple[bytes, int], receiver: tuple[bytes, int], numbers: tuple[int, int], flags: int, payload: bytes
) -> bytes:
    """A frame with IPv4 and TCP headers, checksums and all; ``numbers`` are sequence and acknowledgement."""
    (source, source_port), (target, target_port) = sender, receiver
    length = 20 + len(payload)
    ip = struct.pack(">BBHHHBB", 0x45, 0, 20 + length, numbers[0] & 0xFFFF, 0x4000, 64, 6)
    ip += _checksum(ip + source + target) + source + target
    ports = struct.pack(">HHIIBBH", source_port, target_port, *numbers, 0x50, flags, 8192)
    summed = _checksum(source + target + struct.pack(">HH", 6, length) + ports + b"\0\0" + payload)
    mac = b"\x02\0" + source + b"\x02\0" + target + b"\x08\0"
    return mac + ip + ports + summed + b"\0\0" + payload


def _checksum(data: bytes) -> bytes:
    """The internet checksum: the sum of 16-bit words, carries added back in, is the number modulo 65,535."""
    total = int.from_bytes(data + b"\0" * (len(data) % 2), "big") % 0xFFFF
    return struct.pack(">H", 0xFFFF - total)
