"""SPK601 and SPK602 with keys: updates that the device refuses, and what is behind parts asked for again."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import alarms, codes, shipped, the, unchecked
from keyed import key_folder, play, right_keys, unlock

from analyzer.findings import Confidence, Finding, Severity
from analyzer.simulate import Conversation, damage, exchanges, finish, make_world, messages, simulate
from analyzer.simulate.scenarios.steps import end_well
from analyzer.trace import Trace


def told(name: str, folder: Path, firmware: str | None = None) -> Trace:
    story = simulate(name, firmware=firmware)  # type: ignore[arg-type]
    return play(story, key_folder(story, folder))


def evidence(finding: Finding) -> str:
    return " ".join(item.text for item in finding.evidence)


@pytest.mark.parametrize("firmware", ["core-0.5", "photon-0.5", "photon-1.4"])
def test_an_update_that_the_device_refuses_is_named_with_its_answer(firmware: str, tmp_path: Path) -> None:
    trace = told("ota-refused", tmp_path, firmware)
    finding = the(trace, "SPK601")
    assert (finding.severity, finding.confidence) == (Severity.MAJOR, Confidence.CERTAIN)
    assert finding.summary == "The device refuses a firmware update."
    assert "offers an update of 3,000 bytes" in evidence(finding)
    assert "refuses it: 4.00" in evidence(finding)
    assert alarms(trace) == {"SPK601"}
    assert "SPK001" in codes(trace), "the session itself works"


def test_an_update_that_is_taken_at_the_second_offer_is_none_of_these(tmp_path: Path) -> None:
    assert not alarms(told("ota-refused-once", tmp_path))


def test_refused_again_and_again_is_told_once(tmp_path: Path) -> None:
    world = make_world(firmware="photon-0.5")
    c = Conversation(world, world.add_device(), at=0.0)
    c.handshake()
    exchanges.after_hello(c)
    for _ in range(3):
        number = c.next_server_id()
        begin = messages.update_begin(c.dialect, number, c.next_server_token(), chunk_size=256, length=3_000)
        c.server_says(begin, after=2.0)
        c.device_says(messages.refusal(number), after=0.05)
    end_well(c)
    story = finish(world)
    finding = the(play(story, key_folder(story, tmp_path)), "SPK601")
    assert "So it does 2 times before." in evidence(finding)


@pytest.mark.parametrize(
    ("name", "because", "text"),
    [
        ("ota-crc-wrong", "the server's program is the cause", "does not fit the data beside it"),
        ("ota-flash-fault", "the device's flash or memory is the cause", "4 of them have the right checksum"),
        ("ota-not-taken", "the server gave up", "chunk 3 (1 time) and 8 (1 time), counted from 0"),
        ("ota-gives-up", "the server has given up", "chunk 12 (14 times), counted from 0. The radio would lose others"),
    ],
)
def test_what_is_behind_missing_parts(name: str, because: str, text: str, tmp_path: Path) -> None:
    finding = the(told(name, tmp_path), "SPK602")
    assert finding.severity is Severity.MAJOR
    assert because in finding.because
    assert text in evidence(finding)


def test_the_shipped_capture_says_which_part_it_was() -> None:
    finding = the(unlock(shipped("ota-server-gives-up"), right_keys("ota-server-gives-up")), "SPK602")
    assert "30 of 79 chunks were stored (37 %)." in evidence(finding)
    assert "chunk 30 (14 times)" in evidence(finding)
    assert "The radio would lose others" in evidence(finding)


def test_a_stopped_update_says_how_far_it_came_and_keeps_its_cause(tmp_path: Path) -> None:
    finding = the(told("ota-stalls", tmp_path), "SPK601")
    assert "20 of 47 chunks were stored (42 %)." in evidence(finding)
    assert "the server stopped" in finding.because


@pytest.mark.parametrize("name", ["ota-complete", "ota-chunk-again"])
def test_an_update_that_is_taken_is_no_failure(name: str, tmp_path: Path) -> None:
    assert not alarms(told(name, tmp_path))


def test_what_may_have_come_after_the_capture_is_not_denied(tmp_path: Path) -> None:
    story = simulate("ota-not-taken")
    keys = key_folder(story, tmp_path)
    done = next(p for p in story.packets if p.label == "update done")
    for packets in (
        [p for p in story.packets if p.time_ns <= done.time_ns + 10**9],
        damage.drop_packets(story.packets, {next(n for n, p in enumerate(story.packets) if p.label == "device hello")}),
    ):
        trace = play(story, keys, packets)
        assert "SPK602" not in codes(trace)
        assert "SPK602" in unchecked(trace)


@pytest.mark.parametrize(("events", "busy"), [(12, True), (3, False)])
def test_a_device_that_publishes_all_the_time_is_busy(events: int, busy: bool, tmp_path: Path) -> None:
    world = make_world(firmware="photon-0.5")
    c = Conversation(world, world.add_device(), at=0.0)
    c.handshake()
    exchanges.after_hello(c)
    offer = messages.update_begin(c.dialect, c.next_server_id(), c.next_server_token(), chunk_size=256, length=3_000)
    for number in range(events):
        if number == events // 2:
            c.server_says(offer, after=0.5)
        exchanges.publish(c, "spark/x", str(number), private=True, after=2.0)
    exchanges.ping(c)
    end_well(c)
    story = finish(world)
    finding = the(play(story, key_folder(story, tmp_path)), "SPK601")
    assert ("In the minute around the offer the device publishes 1" in evidence(finding)) is busy
