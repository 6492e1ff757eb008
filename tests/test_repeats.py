"""SPK210: random bytes of a login that come a second time; and what only looks like that."""

from __future__ import annotations

from dataclasses import replace

import pytest
from judging import alarms, codes, judged, the

from analyzer.findings import Confidence, Severity
from analyzer.report.verdict import verdict_of
from analyzer.simulate import Conversation, Packet, Simulation, World, damage, exchanges, finish, make_world, simulate
from analyzer.simulate.scenarios.steps import end_well
from analyzer.simulate.wire import Link

NS = 1_000_000_000


def test_a_greeting_that_comes_twice_is_a_remark_on_sessions_that_work() -> None:
    story = simulate("same-nonce-again")
    trace = judged(story)
    finding = the(trace, "SPK210")
    assert (finding.severity, finding.confidence) == (Severity.MINOR, Confidence.CERTAIN)
    assert finding.packets == tuple(n for n, p in enumerate(story.packets, 1) if p.label == "nonce")
    assert finding.summary.startswith("The greeting of this login came on another connection before")
    assert not alarms(trace)
    assert finding.summary in verdict_of(trace).sentence


def test_a_login_that_is_played_back_and_fails_is_major() -> None:
    finding = the(judged(simulate("reply-played-back")), "SPK210")
    assert finding.severity is Severity.MAJOR
    assert finding.summary.startswith("The greeting and the reply of this login")
    assert finding.conversations == (2,)
    assert len(finding.evidence) == 2


@pytest.mark.parametrize("name", ["healthy", "planned-reconnects", "retries", "port-reuse", "two-devices", "clone"])
def test_logins_of_their_own_repeat_nothing(name: str) -> None:
    assert "SPK210" not in codes(judged(simulate(name, attempts=5 if name == "retries" else None)))


def shifted(packets: list[Packet], seconds: float, interface: int = 0) -> list[Packet]:
    return [replace(p, time_ns=p.time_ns + round(seconds * 1e9), interface=interface) for p in packets]


def translated(packet: Packet) -> Packet:
    """The same packet beyond a router that puts its own address into it."""
    if packet.sender not in ("device", "server"):
        return packet
    place = packet.network + (12 if packet.sender == "device" else 16)
    data = packet.data[:place] + bytes((203, 0, 113, 7)) + packet.data[place + 4 :]
    return replace(packet, data=data)


@pytest.mark.parametrize("seconds", [0.0005, 3.0, 90.0, 4000.0])
def test_one_connection_seen_on_both_sides_of_a_router_is_one(seconds: float) -> None:
    """However far the clocks of the two capture programs are apart."""
    story = simulate("healthy", link="raw")
    twice = sorted([*story.packets, *shifted([translated(p) for p in story.packets], seconds)], key=lambda p: p.time_ns)
    trace = judged(story, twice)
    assert len(trace.conversations) == 2
    assert "SPK210" not in codes(trace)


@pytest.mark.parametrize("seconds", [0.0, 0.01, 500.0])
def test_one_capture_given_twice_is_one(seconds: float) -> None:
    story = simulate("healthy")
    assert "SPK210" not in codes(judged(story, sorted([*story.packets, *shifted(story.packets, seconds)], key=time_of)))


def time_of(packet: Packet) -> int:
    return packet.time_ns


def at_once(*, same_device: bool) -> Simulation:
    """Two sessions side by side, of one greeting; or one session twice, behind something that renumbers TCP."""
    world: World = make_world()
    first = Conversation(world, world.add_device(), at=0.0)
    second = Conversation(world, world.add_device(), at=0.3)
    second.nonce_bytes = first.nonce_bytes
    same = first.identity_bytes()
    for c in (first, second):
        c.connect()
        c.nonce()
        c.tcp.send("device", same if same_device else c.identity_bytes(), after=0.1, label="identity")
        c.offer()
        c.device_hello()
        c.server_hello()
        exchanges.ping(c)
        end_well(c)
    return finish(world)


@pytest.mark.parametrize("same", [False, True])
def test_side_by_side_only_logins_that_differ_are_two(same: bool) -> None:
    assert ("SPK210" in codes(judged(at_once(same_device=same)))) is not same


@pytest.mark.parametrize("link", ["ethernet", "ipv6", "sll"])
def test_it_is_told_in_every_encapsulation(link: Link) -> None:
    assert "SPK210" in codes(judged(simulate("same-nonce-again", link=link)))


def test_without_any_initial_sequence_number_it_is_not_told() -> None:
    story = simulate("same-nonce-again")
    kept = damage.drop(story.packets, lambda p: p.label in ("syn", "syn-ack"))
    assert "SPK210" not in codes(judged(story, kept))
