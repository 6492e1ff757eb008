"""Connections of every kind: complete ones, logins that fail, and those that never come to anything."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from .interleave import Packet
from .keyring import CREDENTIALS, DEVICE_ID, KeySet
from .packets import ACK, RST, End, Flow, Link, Segment
from .sealed import Sealer
from .talk import DEVICE, SERVER, Said, Talk
from .tcp import MODULUS, Ending, Write, damaged, segments
from .truth import Session, Truth

SERVER_END: Final = End(bytes.fromhex("02005e10000a"), bytes((203, 0, 113, 10)), 5683)
SHARED_ADDRESS: Final = 16
"""One device in so many has the address of the next one, as behind one router."""
ENDINGS: Final[tuple[Ending, ...]] = ("device", "device", "reset", "none")
TWO_IN_ONE, ONE_IN_TWO = 0.06, 0.03
"""Shares of segments with two frames, and of frames in two segments."""


@dataclass(slots=True)
class Stage:
    """What all connections of a workload have in common."""

    rng: random.Random
    keys: KeySet
    link: Link
    truth: Truth

    def flow(self, number: int, attempt: int = 0) -> Flow:
        """Return the flow of one connection of a device."""
        host = number + 1 if number % SHARED_ADDRESS == SHARED_ADDRESS - 1 else number
        mac = b"\x08\x00\x28" + number.to_bytes(3, "big")
        # Neighbours differ in parity, so two devices behind one address never share a port.
        port = 1024 + (26 * number + 2 * attempt + number % 2) % 64_000
        device = End(mac, bytes((10,)) + (host + 1).to_bytes(3, "big"), port)
        return Flow(self.link, device, SERVER_END, self.rng.getrandbits(16))


def session(
    stage: Stage,
    number: int,
    length: int,
    start: int,
    *,
    events: bool = False,
    ending: Ending | None = None,
    wraps: bool = False,
    bad_path: bool = False,
    holes: bool = False,
) -> Iterator[Packet]:
    """Yield the packets of a session of about ``length`` messages, and tell the truth about it when it is over.

    ``wraps``: the device's sequence numbers pass 2**32. ``bad_path`` and ``holes`` are as in `tcp.damaged`.
    """
    rng = stage.rng
    flow = stage.flow(number)
    told = Session(flow, *stage.keys.device(number))
    credentials = rng.randbytes(CREDENTIALS)
    talk = Talk(credentials, rng)
    said = talk.of_events(length) if events else talk.of_everything(length)
    writes = _cut(_written(stage, told, credentials, said), rng)
    first = ((1 << 32) - 1 - rng.randrange(3000) if wraps else rng.getrandbits(32), rng.getrandbits(32))
    seen: Iterable[Segment] = segments(writes, start, first, rng.choice(ENDINGS) if ending is None else ending)
    if bad_path:
        seen, told.holes = damaged(seen, rng, holes=holes)
        told.outcome = "complete with holes" if told.holes else "complete"
    yield from _packets(flow, seen)
    stage.truth.session(told)


def _packets(flow: Flow, seen: Iterable[Segment]) -> Iterator[Packet]:
    for segment in seen:
        yield segment.time, flow.tcp(segment)


def _written(stage: Stage, told: Session, credentials: bytes, said: Iterable[Said]) -> Iterator[Write]:
    """The login, then each message as a frame."""
    rng, keys = stage.rng, stage.keys
    nonce = rng.randbytes(CREDENTIALS)
    login = (
        Write(20_000, SERVER, nonce),
        Write(900_000, DEVICE, keys.server.seal(nonce + told.device_id, rng)),
        Write(60_000, SERVER, keys.reply(credentials, keys.devices[told.key], keys.server, rng)),
    )
    for write in login:
        told.sent(write.sender, write.data)
        yield write
    sealer = Sealer(credentials)
    for sender, plaintext in said:
        told.message(sender, plaintext)
        frame = sealer.frame(sender, plaintext)
        told.sent(sender, frame)
        yield Write(int(rng.random() * 2_000_000) if sender == DEVICE else 40_000, sender, frame)


def _cut(writes: Iterator[Write], rng: random.Random) -> Iterator[Write]:
    """Let some segments hold two frames, and some frames take two segments; the login stays as it is."""
    for _ in range(3):
        yield next(writes)
    held = next(writes)
    for write in writes:
        if write.sender == held.sender and rng.random() < TWO_IN_ONE:
            held = held._replace(data=held.data + write.data)
            continue
        yield from _halved(held, rng)
        held = write
    yield from _halved(held, rng)


def _halved(write: Write, rng: random.Random) -> Iterator[Write]:
    if rng.random() >= ONE_IN_TWO:
        yield write
        return
    middle = rng.randrange(1, len(write.data))
    yield write._replace(data=write.data[:middle])
    yield Write(3_000, write.sender, write.data[middle:])


FAILURES: Final = (
    "device key mismatch",
    "server key mismatch",
    "unknown device",
    "no nonce",
    "no identity",
    "nonce mismatch",
    "bad signature",
)
"""Why a login fails in *stalls*; the first is nearly half of them."""


def failed_login(stage: Stage, number: int, attempt: int, start: int) -> list[Packet]:
    """Return the packets of a login that fails."""
    rng = stage.rng
    why = FAILURES[0] if rng.random() < 0.4 else rng.choice(FAILURES)
    device_id, key = stage.keys.device(number)
    flow = stage.flow(number, attempt)
    writes, ending = _until(why, stage, device_id, key)
    stage.truth.failed(flow, device_id, why)
    return list(_packets(flow, segments(writes, start, (rng.getrandbits(32), rng.getrandbits(32)), ending)))


def _until(why: str, stage: Stage, device_id: bytes, key: int) -> tuple[list[Write], Ending]:
    """What is written until the login fails, and who closes then."""
    rng, keys = stage.rng, stage.keys
    nonce = rng.randbytes(CREDENTIALS)
    if why == "no nonce":
        return [], "device"
    writes = [Write(20_000, SERVER, nonce)]
    if why == "no identity":
        return writes, "server"
    shown = rng.randbytes(CREDENTIALS) if why == "nonce mismatch" else nonce
    identity = rng.randbytes(DEVICE_ID) if why == "unknown device" else device_id
    lock = keys.another_server if why == "server key mismatch" else keys.server
    writes.append(Write(900_000, DEVICE, lock.seal(shown + identity, rng)))
    if why in {"nonce mismatch", "unknown device", "server key mismatch"}:
        return writes, "server"
    sealed_for = keys.devices[key] if why == "bad signature" else keys.another_device
    signed_by = keys.another_server if why == "bad signature" else keys.server
    writes.append(Write(60_000, SERVER, keys.reply(rng.randbytes(CREDENTIALS), sealed_for, signed_by, rng)))
    return writes, "device"


DEAD: Final = {"no answer": 0.45, "refused": 0.30, "no nonce": 0.10, "no identity": 0.15}
"""How connections of *dead* end, and their shares."""
LATE_RESET: Final = 0.1
"""Share of the silent connections that are reset long after everybody has forgotten them."""
LATE: Final = 1_200_000_000


def dead(stage: Stage, number: int, attempt: int, start: int) -> Iterator[Packet]:
    """Yield the packets of a connection that never comes to anything."""
    rng = stage.rng
    (how,) = rng.choices(tuple(DEAD), tuple(DEAD.values()))
    flow = stage.flow(number, attempt)
    stage.truth.failed(flow, stage.keys.device(number)[0], how)
    first = rng.getrandbits(32), rng.getrandbits(32)
    nonce = [Write(20_000, SERVER, rng.randbytes(CREDENTIALS))] if how == "no identity" else []
    opening = list(segments(nonce, start, first, "none"))
    if how == "no answer":
        waits = (0, 1_000_000, 3_000_000)[: rng.choice((1, 1, 2, 3))]
        opening = [opening[0]._replace(time=start + wait) for wait in waits]
    elif how == "refused":
        opening[1:] = [Segment(start + 400, SERVER, 0, (first[0] + 1) % MODULUS, RST | ACK)]
    elif rng.random() < LATE_RESET:
        opening.append(opening[-1]._replace(time=start + LATE, flags=RST | ACK))
    yield from _packets(flow, opening)
