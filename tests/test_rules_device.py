"""SPK209, SPK505, SPK508 and SPK509: logins cut by a timer, sessions that end without a word or by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from judging import codes, judged, the
from keyed import key_folder, play

from analyzer.findings import Confidence, Severity
from analyzer.report.verdict import verdict_of
from analyzer.simulate import Conversation, Packet, Simulation, damage, exchanges, make_world, simulate


def evidence(simulation: Simulation, packets: list[Packet], code: str) -> str:
    trace = judged(simulation, packets)
    found = [finding for finding in trace.findings if finding.code == code]
    return " ".join(item.text for finding in found for item in finding.evidence)


def later_traffic(simulation: Simulation, seconds: float) -> Packet:
    """A stray packet of somebody else, so that the capture goes on after the session."""
    stray = simulate("no-spark").packets[0]
    return replace(stray, time_ns=simulation.packets[-1].time_ns + round(seconds * 1e9))


def unclosed(simulation: Simulation, seconds: float) -> list[Packet]:
    """The first seconds of a session, and then nothing more of it."""
    return [p for p in damage.stop_after(simulation.packets, seconds) if p.label != "fin"]


@pytest.mark.parametrize(("seconds", "dead"), [(60.0, True), (20.0, False)])
def test_a_session_without_an_end_is_dead_when_the_capture_goes_on_long_enough(seconds: float, dead: bool) -> None:
    idle = simulate("healthy-idle")
    begun = unclosed(idle, 5.0)
    stray = replace(later_traffic(idle, 0), time_ns=begun[-1].time_ns + round(seconds * 1e9))
    told = evidence(idle, [*begun, stray], "SPK505")
    assert ("Nobody closed the connection" in told) is dead


def test_the_end_of_the_capture_is_no_end_of_the_session() -> None:
    idle = simulate("healthy-idle")
    assert codes(judged(idle, unclosed(idle, 5.0))) & {"SPK505", "SPK508"} == set()


def test_a_close_that_nobody_answers_after_a_long_silence_means_that_the_other_end_was_gone() -> None:
    idle = simulate("healthy-idle")
    begun = unclosed(idle, 5.0)
    fin = next(p for p in idle.packets if p.sender == "device" and p.label == "fin")
    late = replace(fin, time_ns=begun[-1].time_ns + 31_000_000_000)
    stray = replace(later_traffic(idle, 0), time_ns=late.time_ns + 10_000_000_000)
    trace = judged(idle, [*begun, late, stray])
    assert [c.closed_by for c in trace.conversations] == ["device-fin"]
    found = [f for f in trace.findings if f.code == "SPK505"]
    assert [f.confidence for f in found] == [Confidence.LIKELY]
    assert "does not answer that either" in found[0].evidence[0].text
    assert "SPK505" not in codes(judged(idle, [*begun, late])), "the capture ends before an answer is due"


def test_a_device_that_comes_back_without_having_closed_is_told_of() -> None:
    trace = judged(simulate("crash-loop", attempts=4))
    found = the(trace, "SPK508")
    assert (found.severity, found.count) == (Severity.MINOR, 3)
    assert "SPK508" not in codes(judged(simulate("planned-reconnects")))


def test_a_device_that_comes_back_again_and_again_is_caught_in_a_loop() -> None:
    trace = judged(simulate("crash-loop"))
    found = the(trace, "SPK508")
    assert (found.severity, found.confidence, found.count) == (Severity.MAJOR, Confidence.LIKELY, 5)
    assert "again and again" in found.summary
    assert verdict_of(trace).state == "KEEPS DROPPING"


@pytest.mark.parametrize("away", [25.0, 300.0])
def test_a_device_that_sleeps_between_its_reports_is_in_no_loop(away: float) -> None:
    world = make_world()
    device, at = world.add_device(), 0.0
    for _ in range(8):
        c = Conversation(world, device, at=at)
        c.handshake()
        exchanges.after_hello(c)
        device.reset()
        at = c.now + away
    found = the(judged(world), "SPK508")
    assert (found.severity, found.count) == (Severity.MINOR, 7)


@pytest.mark.parametrize("firmware", ["core-0.5", "photon-0.5"])
def test_firmware_that_bears_no_refusal_is_named_with_the_message(firmware: str, tmp_path: Path) -> None:
    story = simulate("event-refused", firmware=firmware)  # type: ignore[arg-type]
    trace = play(story, key_folder(story, tmp_path))
    found = next(f for f in trace.findings if f.code == "SPK509")
    assert (found.severity, found.confidence) == (Severity.MAJOR, Confidence.STRONG)
    assert found.summary == "Each time the server sends EventAck 4.00, the device hangs up."
    assert "SPK509" not in codes(judged(story)), "without a key the message is not known"


@pytest.mark.parametrize("firmware", ["core-2014", "core-0.5", "photon-1.4"])
def test_a_planned_end_is_nobodys_fault(firmware: str, tmp_path: Path) -> None:
    story = simulate("healthy", firmware=firmware, server="legacy")  # type: ignore[arg-type]
    assert "SPK509" not in codes(play(story, key_folder(story, tmp_path)))


@pytest.mark.parametrize(("took", "cut"), [(9.7, True), (2.0, False)])
def test_a_login_that_the_servers_limit_cuts_in_a_slow_step_was_not_refused(took: float, cut: bool) -> None:
    world = make_world(firmware="photon-1.4", server="community")
    c = Conversation(world, world.add_device(), at=0.0)
    c.connect()
    c.nonce()
    c.identity(after=took)
    c.close("server", after=max(0.05, 10.0 - c.now) if cut else 0.05)
    trace = judged(world)
    assert ("SPK209" in codes(trace)) is cut
    assert ("SPK204" in codes(trace)) is not cut
    if cut:
        found = next(f for f in trace.findings if f.code == "SPK209")
        assert (found.severity, found.confidence) == (Severity.MAJOR, Confidence.LIKELY)
        assert found.summary.startswith("The login takes too long: the server allows 10 s, and the device takes 9.")
