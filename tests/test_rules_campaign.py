"""The rules on captures that nobody tuned them to: random networks, random captures of them, random cuts.

Over a working session nothing critical or major may be said, whatever the capture lost; over a failing one the
right code, or nothing. False alarms are worse than misses.
"""

from __future__ import annotations

import random

import pytest
from judging import BAD, NAMES, alarms, captured, cut_short, one_direction, shipped, truth, verdict
from populations import capture, story
from true_findings import BY_VERDICT, TRUE, Truth

# -- stories on random networks, and random captures of them -----------------------------------------------------


def wrong_claims(seed: int, name: str) -> list[str]:
    """Critical and major findings that are not true of this story."""
    chance = random.Random(f"campaign/{seed}/{name}")
    told = story(chance, name)
    if told is None:
        return []
    packets, done = capture(chance, told.packets)
    trace = verdict(captured(packets, told.link_type))
    return [
        f"{f.code} ({f.confidence}) in {name} {told.truth['device_implementation']}, seed {seed}, {done}: {f.summary}"
        for f in trace.findings
        if f.severity in BAD and f.code not in TRUE[name].bare
    ]


@pytest.mark.parametrize("name", sorted(TRUE))
def test_no_random_capture_of_a_story_leads_to_a_wrong_claim(name: str) -> None:
    assert [claim for seed in range(2) for claim in wrong_claims(seed, name)] == []


# -- the shipped captures, cut anywhere ------------------------------------------------------------------------


def allowed(name: str) -> frozenset[str]:
    return BY_VERDICT.get(truth(name)["correct_analysis"]["verdict"], Truth()).bare


def steps(name: str, most: int) -> range:
    """Places in a shipped capture, spread over it."""
    return range(1, len(shipped(name)), max(1, len(shipped(name)) // most))


@pytest.mark.parametrize("name", NAMES)
def test_a_capture_that_begins_or_ends_anywhere_leads_to_no_wrong_claim(name: str) -> None:
    packets = shipped(name)
    for place in steps(name, 30):
        assert alarms(verdict(packets[place:])) <= allowed(name), f"begins after packet {place}"
        assert alarms(verdict(packets[:place])) <= allowed(name), f"ends after packet {place}"


@pytest.mark.parametrize("name", NAMES)
def test_a_packet_that_was_not_captured_leads_to_no_wrong_claim(name: str) -> None:
    packets = shipped(name)
    for place in steps(name, 60):
        trace = verdict((*packets[: place - 1], *packets[place:]))
        assert alarms(trace) <= allowed(name), f"without packet {place}"


@pytest.mark.parametrize("name", NAMES)
def test_packets_that_were_cut_short_lead_to_no_wrong_claim(name: str) -> None:
    for limit in (54, 56, 62, 68, 72, 90, 94, 96, 128, 200, 300, 310, 400):
        assert alarms(verdict(cut_short(shipped(name), limit))) <= allowed(name), f"snaplen {limit}"


@pytest.mark.parametrize("from_server", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_one_direction_alone_leads_to_no_wrong_claim(name: str, from_server: bool) -> None:
    kept = one_direction(shipped(name), from_server=from_server)
    for place in range(0, len(kept), max(1, len(kept) // 8)):
        assert alarms(verdict(kept[place:])) <= allowed(name), f"begins after packet {place}"
