"""Synthetic captures of known stories, with their keys and the truth about them.

They are the demonstration for people without a capture, and the tests' source of near misses. The same
scenario, seed and options give the same bytes on every machine: keys, numbers and times come from the seed
alone.

    simulation = simulate("key-mismatch", firmware="photon-1.4")
    simulation.write("mismatch.pcap")

Own stories are made of the same parts: a `World`, `Conversation`s in it (each step can be left out or
spoilt), and the functions of `analyzer.simulate.damage` for what captures suffer.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, get_args

from analyzer.catalogue import SPARK_PORT
from analyzer.simulate import damage, exchanges, messages
from analyzer.simulate.conversation import Conversation
from analyzer.simulate.messages import FIRMWARES, Dialect, FirmwareName
from analyzer.simulate.scenarios import SCENARIOS, Scenario
from analyzer.simulate.simulation import Simulation, truth
from analyzer.simulate.tcp import TcpSession
from analyzer.simulate.wire import LINK_TYPES, Link, Packet
from analyzer.simulate.world import World

__all__ = [
    "FIRMWARES",
    "LINK_TYPES",
    "SCENARIOS",
    "Conversation",
    "Packet",
    "Scenario",
    "Simulation",
    "SimulationError",
    "TcpSession",
    "World",
    "damage",
    "exchanges",
    "finish",
    "make_world",
    "messages",
    "simulate",
]

_FIRST_START: Final = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())
"""Captures begin here plus the seed in seconds: no clock is ever asked."""


class SimulationError(ValueError):
    """A name or option that does not exist, or options that do not go together."""


def simulate(
    name: str,
    *,
    seed: int = 1,
    firmware: FirmwareName | None = None,
    server: Dialect | None = None,
    link: Link = "ethernet",
    attempts: int | None = None,
    rtt: float = 0.05,
    port: int = SPARK_PORT,
    isn: tuple[int, int] | None = None,
    start: float | None = None,
) -> Simulation:
    """Play one scenario.

    Without `firmware` it is the scenario's own, a Core of 2014 where any will do; without `server` it is
    the one that this firmware works with. `attempts` replaces the scenario's own number of logins where it
    repeats them. `rtt` is the round trip between device and server in seconds, `isn` the initial sequence
    numbers of device and server, `start` the first moment in seconds since 1970. Raises SimulationError for
    a name or a combination that does not exist.
    """
    if name not in SCENARIOS:
        raise SimulationError(f"{name}: no such scenario. All: {', '.join(SCENARIOS)}")
    able = SCENARIOS[name].firmwares
    firmware = firmware or able[0]
    if firmware in FIRMWARES and firmware not in able:
        raise SimulationError(f"{name}: not a story of {firmware}. It is one of {', '.join(able)}.")
    own_server = SCENARIOS[name].server
    if own_server is not None and server not in {None, own_server}:
        raise SimulationError(f"{name}: not a story of this server. It is one of the {own_server} server.")
    server = own_server or server
    world = make_world(
        seed=seed,
        firmware=firmware,
        server=server,
        link=link,
        attempts=attempts,
        rtt=rtt,
        port=port,
        isn=isn,
        start=start,
    )
    SCENARIOS[name].build(world)
    return finish(world, SCENARIOS[name])


def make_world(
    *,
    seed: int = 1,
    firmware: FirmwareName = "core-2014",
    server: Dialect | None = None,
    link: Link = "ethernet",
    attempts: int | None = None,
    rtt: float = 0.05,
    port: int = SPARK_PORT,
    isn: tuple[int, int] | None = None,
    start: float | None = None,
) -> World:
    """Set up a world for a story of one's own; the options are those of `simulate`."""
    if firmware not in FIRMWARES:
        raise SimulationError(f"{firmware}: no such firmware. There are {', '.join(FIRMWARES)}.")
    dialect = server or ("legacy" if firmware == "core-2014" else "community")
    if dialect not in get_args(Dialect):
        raise SimulationError(f"{server}: no such server. There are {', '.join(get_args(Dialect))}.")
    if firmware == "core-2014" and dialect == "community":
        raise SimulationError(
            'community: this server takes no core-2014 (it wants the device\'s key in "who I am"). Try: another'
            " firmware, or the legacy server"
        )
    if link not in LINK_TYPES:
        raise SimulationError(f"{link}: no such link. There are {', '.join(LINK_TYPES)}.")
    if rtt < 0 or (attempts is not None and attempts < 1):
        raise SimulationError("rtt cannot be negative and attempts not less than 1")
    first = _FIRST_START + seed if start is None else start
    return World(
        seed=seed,
        firmware=FIRMWARES[firmware],
        dialect=dialect,
        link=link,
        rtt=rtt,
        start_ns=round(first * 1e6) * 1000,
        port=port,
        attempts=attempts,
        isn=isn,
    )


def finish(world: World, scenario: Scenario | None = None, name: str = "own") -> Simulation:
    """Turn what happened in a world into a simulation; without a scenario the truth names no verdict."""
    packets = world.wire.finished()
    for spoil in world.damage:
        packets = spoil(packets)
    analysis: dict[str, object] = {}
    if scenario is not None:
        analysis = {
            "verdict": scenario.verdict,
            "say": scenario.say,
            "finding": scenario.code,
            "finding_without_keys": scenario.without_keys,
            "not_finding": scenario.near_miss,
            **world.details,
        }
    story = truth(
        world,
        name if scenario is None else scenario.name,
        what_happened="" if scenario is None else scenario.story,
        correct_analysis=analysis,
    )
    keys = world.files if world.records else {}
    return Simulation(story["name"], packets, world.link_type, story, dict(keys))
