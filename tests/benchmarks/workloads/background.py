"""Traffic that has nothing to do with Spark: TCP and UDP of every size, with random payloads."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from typing import Final

from .interleave import Packet
from .packets import ACK, End, Flow, Link, Segment
from .tcp import MODULUS

FLOWS: Final = 3_000
POOL: Final = 1 << 24
"""Random bytes to cut payloads from."""
LARGEST: Final = 1_448
PORTS: Final = (443, 443, 443, 80, 8883, 22, 5222)
UDP_PORTS: Final = (53, 443, 443, 3478)
SPARK_UDP: Final = 0.0025
"""Share of datagrams that go to port 5683: CoAP of others."""


class _Stream:
    """A TCP connection in the middle of its life."""

    __slots__ = ("clock", "flow", "next")

    def __init__(self, link: Link, rng: random.Random) -> None:
        inside = End(rng.randbytes(6), bytes((192, 168)) + rng.randbytes(2), rng.randrange(32_768, 60_999))
        outside = End(rng.randbytes(6), bytes((rng.randrange(11, 200),)) + rng.randbytes(3), rng.choice(PORTS))
        self.flow = Flow(link, inside, outside, rng.getrandbits(16))
        self.next = [rng.getrandbits(32), rng.getrandbits(32)]
        self.clock = rng.getrandbits(31)

    def segment(self, sender: int, payload: bytes) -> bytes:
        """The next segment, with a time stamp option."""
        self.clock += 1
        options = b"\x01\x01\x08\x0a" + struct.pack(">II", self.clock, self.clock - 40)
        seq, ack = self.next[sender], self.next[1 - sender]
        self.next[sender] = (seq + len(payload)) % MODULUS
        return self.flow.tcp(Segment(0, sender, seq, ack, ACK, payload, options))


def background(rng: random.Random, link: Link, packets: int, start: int, span: int) -> Iterator[Packet]:
    """Yield so many packets over ``span`` microseconds."""
    pool = rng.randbytes(POOL)
    streams = [_Stream(link, rng) for _ in range(FLOWS)]
    gap = 2 * span / packets
    chance, time = rng.random, float(start)
    for _ in range(packets):
        time += chance() * gap
        luck = chance()
        size = LARGEST if luck < 0.4 else 0 if luck < 0.72 else 20 + int(chance() * 1_200)
        at = int(chance() * (POOL - size))
        payload = pool[at : at + size]
        stream = streams[int(chance() * FLOWS)]
        sender = 1 if size == LARGEST else int(chance() * 2)
        if size == 0 or chance() < 0.75:
            yield int(time), stream.segment(sender, payload)
            continue
        far = 5683 if chance() < SPARK_UDP else UDP_PORTS[int(chance() * 4)]
        ports = (40_000 + int(chance() * 16_384), far)
        yield int(time), stream.flow.udp(sender, *(ports[::-1] if sender else ports), payload)
