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
from analyzer.report.verdict import TOO_LITTLE, Verdict, verdict_of

ON_THE_COMMAND_LINE: Final = "Certain with --device-key FILE."
IN_THE_WINDOW: Final = "Certain with the device's private key."
UNKNOWN_TO_THE_PLUGIN: Final = re.compile(r" \((?:MAC address [0-9a-f:]+|[0-9a-f]{8}|step 1 checks that)\)")
"""Addresses of the radio, key fingerprints, and steps that need a key file's neighbours."""
ON_THE_COMMAND_LINE_ALONE: Final = {
    "timed-out": ("SPK504",),
    "forgotten": ("SPK506",),
    "clone": ("SPK507",),
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
