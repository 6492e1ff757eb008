"""The plugin's verdict on a whole capture: state, sentence, certainty and steps of the report on the same packets."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest
from judging import NAMES, captured, shipped, simulate, verdict
from keyed import right_keys, unlock
from test_lua_analysis import STORIES, Plugin, keys_of, lua, segments

from analyzer.capture.packet import Packet
from analyzer.report.verdict import TOO_LITTLE, Verdict, verdict_of

ON_THE_COMMAND_LINE: Final = "Certain with --device-key FILE."
IN_THE_WINDOW: Final = "Certain with the device's private key."
UNKNOWN_TO_THE_PLUGIN: Final = re.compile(r" \((?:MAC address [0-9a-f:]+|[0-9a-f]{8}|step 1 checks that)\)")
"""Addresses of the radio, key fingerprints, and steps that need a key file's neighbours."""
TOLD_BY_ICMP: Final = "blocked-icmp"
"""A story of which the plugin sees only the TCP packets, and so is less sure."""


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
    trace = verdict(packets)
    if trace.conversations:
        ours, report = told(lua("lua54"), packets), verdict_of(trace)
        agree(ours, report)
        agree_on_steps(ours, report)
        if name != TOLD_BY_ICMP:
            agree_on_certainty(ours, report)
