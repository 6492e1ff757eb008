"""The plugin's verdict on a whole capture: state, sentence, certainty and steps of the report on the same packets."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

import pytest
from judging import NAMES, captured, shipped, simulate, verdict
from keyed import right_keys, unlock
from test_lua_analysis import STORIES, Plugin, keys_of, lua, segments

from analyzer.capture.packet import Packet
from analyzer.catalogue import SPARK_PORT
from analyzer.network import Decoder
from analyzer.network.units import Segment
from analyzer.report.story import TOO_LITTLE
from analyzer.report.verdict import Verdict, verdict_of
from analyzer.simulate import Conversation, World, damage, exchanges, finish, make_world
from analyzer.simulate.parties import Device
from analyzer.simulate.scenarios.steps import refused

ON_THE_COMMAND_LINE: Final = "Certain with --device-key FILE."
IN_THE_WINDOW: Final = "Certain with the device's private key."
UNKNOWN_TO_THE_PLUGIN: Final = re.compile(r" \((?:MAC address [0-9a-f:]+|[0-9a-f]{8}|step 1 checks that)\)")
"""Addresses of the radio, key fingerprints, and steps that need a key file's neighbours."""
ON_THE_COMMAND_LINE_ALONE: Final = {
    "timed-out": ("SPK504",),
    "forgotten": ("SPK506",),
    "clone": ("SPK507",),
    "crash-loop": ("SPK508",),
    "same-nonce-again": ("SPK210",),
    "reply-played-back": ("SPK210",),
    "ota-not-started": ("SPK601",),
    "ota-too-slow": ("SPK603",),
}
"""Stories of which the plugin tells a part: it does not look at several sessions together."""


def told(plugin: Plugin, packets: list[Packet], keys: Any = None) -> Any:
    """What the plugin sums up."""
    fed = plugin.feed(segments(packets), keys)
    return plugin.spark[b"verdict_of"](fed.analysis, keys is not None)[0]


def agree(ours: Any, report: Verdict) -> None:
    """State and sentence are the same."""
    assert ours[b"state"].decode() == report.state
    sentence, wanted = ours[b"sentence"].decode(), report.sentence
    assert sentence == wanted or (sentence == TOO_LITTLE and wanted.startswith(TOO_LITTLE))


def agree_on_certainty(ours: Any, report: Verdict) -> None:
    """So is how sure it is, apart from what the plugin cannot know."""
    assert ours[b"sure"].decode().replace(IN_THE_WINDOW, ON_THE_COMMAND_LINE) == known(report.sure)


def agree_on_steps(ours: Any, report: Verdict) -> None:
    """So is what to do."""
    steps = ours[b"stories"][1][b"steps"]
    assert [step.decode() for step in steps.values()] == [known(step) for step in report.steps]


def known(sentence: str) -> str:
    return UNKNOWN_TO_THE_PLUGIN.sub("", sentence)


def seen_by_the_plugin(packets: list[Packet]) -> list[Packet]:
    """The same, with all but those of the server's TCP port emptied: name lookups, ARP and ICMP around them are for
    the command line."""
    decoder = Decoder()
    units = ((packet, decoder.decode(packet)) for packet in packets)
    return [
        packet
        if isinstance(unit, Segment) and SPARK_PORT in (unit.source_port, unit.target_port)
        else replace(packet, data=bytes(len(packet.data)))
        for packet, unit in units
    ]


@pytest.mark.parametrize("keyed", [False, True], ids=["no-keys", "keys"])
@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_capture(name: str, keyed: bool) -> None:
    plugin, packets = lua("lua52"), list(shipped(name))
    ours = told(plugin, packets, keys_of(plugin, name) if keyed else None)
    report = verdict_of(unlock(packets, right_keys(name) if keyed else None))
    agree(ours, report)
    agree_on_certainty(ours, report)
    if not keyed:
        agree_on_steps(ours, report)


@pytest.mark.parametrize("name", STORIES)
def test_a_story(name: str) -> None:
    simulation = simulate(name)
    packets = captured(simulation.packets, simulation.link_type)
    trace = verdict(seen_by_the_plugin(packets))
    trace.findings = [f for f in trace.findings if f.code not in ON_THE_COMMAND_LINE_ALONE.get(name, ())]
    if trace.conversations:
        ours, report = told(lua("lua54"), packets), verdict_of(trace)
        agree(ours, report)
        agree_on_steps(ours, report)
        agree_on_certainty(ours, report)


# -- several connections, several devices ------------------------------------------------------------------------------


def attempt(device: Device, world: World, at: float, end: str = "works") -> float:
    """One connection of a device; returns when it is over."""
    c = Conversation(world, device, at=at)
    c.connect()
    c.nonce()
    if end == "is slow":
        c.close("device", after=20.0)
        return c.now
    c.identity()
    if end == "gets no reply":
        c.close("device", after=20.0)
    elif end == "is refused":
        refused(c, "no key")
    elif end == "cannot use the reply":
        c.offer()
        c.close("device", after=0.25)
    else:
        c.offer()
        c.device_hello()
        c.server_hello()
        exchanges.after_hello(c)
        exchanges.ping(c, answered_after=0.002 if end == "works" else None)
        c.close("device", after=10.0)
    return c.now


def one_after_the_other(*ends: str) -> World:
    """One device that dials again each time."""
    world, at = make_world(firmware="photon-1.4"), 0.0
    device = world.add_device()
    for end in ends:
        at = attempt(device, world, at, end) + 2.0
    return world


def beside_each_other(*ends: str, pause: float = 0.5) -> World:
    """Several devices, each of which dials when the one before it is done and the pause is over."""
    world, at = make_world(firmware="photon-1.4"), 0.0
    for end in ends:
        at = attempt(world.add_device(), world, at, end) + pause
    return world


WORLDS: Final = {
    "clearer the second time": lambda: one_after_the_other("gets no reply", "is refused"),
    "drops since": lambda: one_after_the_other("works", "works", "stays without an answer"),
    "fails now and then": lambda: one_after_the_other("works", "is refused", "works", "is refused"),
    "failed now and then": lambda: one_after_the_other("is refused", "works", "is refused", "works"),
    "another one worked before": lambda: beside_each_other("works", "is refused", pause=60.0),
    "in two ways": lambda: beside_each_other("is refused", "cannot use the reply"),
    "in three ways": lambda: beside_each_other("is refused", "cannot use the reply", "is slow"),
}


@pytest.mark.parametrize("name", WORLDS)
def test_what_several_connections_come_to(name: str) -> None:
    simulation = finish(WORLDS[name]())
    packets = captured(simulation.packets, simulation.link_type)
    ours, report = told(lua("lua54"), packets), verdict_of(verdict(seen_by_the_plugin(packets)))
    agree(ours, report)
    agree_on_steps(ours, report)
    agree_on_certainty(ours, report)
    assert addresses(ours) == [story.address for story in report.stories]


def addresses(ours: Any) -> list[str]:
    """The devices, in the order in which they are told of."""
    return [story[b"address"].decode() for story in ours[b"stories"].values()]


def test_a_device_of_which_nothing_is_known_comes_behind_others() -> None:
    """The capture begins within a session of one device, just when another one gets its greeting."""
    world = make_world(firmware="photon-1.4")
    connected, other = world.add_device(), world.add_device()
    attempt(connected, world, 0.0)
    c = Conversation(world, other, at=10.0)
    c.connect()
    c.nonce()
    simulation = finish(world)
    packets = captured(damage.start_after(simulation.packets, 9.0), simulation.link_type)
    ours = told(lua("lua54"), packets)
    assert [story[b"lead"] is None for story in ours[b"stories"].values()] == [False, True]
    assert addresses(ours) == [connected.host.address, other.host.address]
