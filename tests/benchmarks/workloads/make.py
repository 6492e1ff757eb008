"""The six workloads, each a stream of connections, and the folder that one of them makes."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, get_args

from .background import background
from .captures import FORMATS, Format, Writer
from .interleave import Connection, interleave
from .keyring import KeySet
from .packets import LINK_TYPES, Link
from .sessions import Stage, dead, failed_login, session
from .truth import Truth

__all__ = ["FORMATS", "LINKS", "WORKLOADS", "Made", "make"]

LINKS: Final[tuple[Link, ...]] = get_args(Link)
START: Final = 1_420_070_400_000_000
"""The first of January 2015, when devices spoke so."""
SECOND: Final = 1_000_000
MESSAGES: Final = 60
SPAN: Final = 300 * SECOND
"""How long *needle* lasts."""


class Made(NamedTuple):
    """Where a workload was written."""

    captures: list[Path]
    keys: Path
    totals: Path
    """JSON: packets, sessions, outcomes, frames of each direction."""
    sessions: Path
    """JSON lines: each connection, with SHA-256 of the messages and of the stream of each direction."""


def needle(stage: Stage, scale: float) -> Iterator[Connection]:
    """Twenty sessions in 1.3 million packets of everything else."""
    length = max(12, int(400 * min(1, 10 * scale)))
    yield START, background(stage.rng, stage.link, max(1, int(1_287_000 * scale)), START, SPAN)
    for number in range(20):
        start = START + number * SPAN // 80
        yield start, session(stage, number, length, start)


def fleet(stage: Stage, scale: float) -> Iterator[Connection]:
    """Ten thousand devices that come online within a minute."""
    start = START
    for number in range(max(1, int(10_000 * scale))):
        start += int(stage.rng.random() * 12_000)
        yield start, session(stage, number, MESSAGES, start)


def long(stage: Stage, scale: float) -> Iterator[Connection]:
    """One session of half a million frames."""
    yield START, session(stage, 0, max(20, int(500_000 * scale)), START, events=True, ending="device")


def stalls(stage: Stage, scale: float) -> Iterator[Connection]:
    """Fifty devices that try again five seconds after each failure: fifty thousand times."""
    attempts = max(7, int(50_000 * scale))
    free = [(START + number * SECOND // 10, number, 0) for number in range(min(50, attempts))]
    for _ in range(attempts):
        start, number, attempt = free[0]
        packets = failed_login(stage, number, attempt, start)
        heapq.heapreplace(free, (packets[-1][0] + 5 * SECOND, number, attempt + 1))
        yield start, iter(packets)


def hostile(stage: Stage, scale: float) -> Iterator[Connection]:
    """A thousand sessions over a bad path; one in four wraps around, one in twenty has holes."""
    start = START
    for number in range(max(5, int(1_000 * scale))):
        start += int(stage.rng.random() * 120_000)
        wraps, holes = number % 4 == 0, number % 20 == 3
        damage = {"wraps": wraps, "bad_path": True, "holes": holes}
        yield start, session(stage, number, MESSAGES, start, ending="device", **damage)


def graveyard(stage: Stage, scale: float) -> Iterator[Connection]:
    """A million connections over hours, one in five thousand of them alive."""
    connections = max(100, int(1_000_000 * scale))
    alive = max(1, min(5_000, connections // 4))
    devices = max(2, connections // 200)
    start = START
    for number in range(connections):
        start += int(stage.rng.random() * SECOND / 25)
        if number % alive == alive // 2:
            yield start, session(stage, devices + number // alive, MESSAGES, start)
        else:
            yield start, dead(stage, number % devices, number // devices, start)


WORKLOADS: Final[dict[str, Callable[[Stage, float], Iterator[Connection]]]] = {
    "needle": needle,
    "fleet": fleet,
    "long": long,
    "stalls": stalls,
    "hostile": hostile,
    "dead": graveyard,
}


def make(
    name: str,
    folder: Path,
    *,
    scale: float = 1.0,
    seed: int = 1,
    form: Format = "pcap",
    link: Link = "ethernet",
    split: int = 1,
) -> Made:
    """Write a workload, its keys and the truth about it into ``folder``; return where they are.

    Memory holds the connections that go on at one time, whatever the size of the whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keys, truth = KeySet(seed), Truth(folder, name)
    stage = Stage(random.Random(f"{name}/{seed}"), keys, link, truth)
    writer = Writer(folder / f"{name}.{'pcapng' if form == 'pcapng' else 'pcap'}", form, LINK_TYPES[link])
    for time, packet in interleave(WORKLOADS[name](stage, scale)):
        writer.write(time, packet)
    captures = writer.close(split)
    keys.write(folder / "keys")
    totals = {"workload": name, "scale": scale, "seed": seed, "format": form, "link": link}
    truth.close({**totals, "captures": [path.name for path in captures], "packets": writer.packets})
    return Made(captures, folder / "keys", folder / f"{name}.truth.json", folder / f"{name}.sessions.jsonl")
