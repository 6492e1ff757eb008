"""What ends sessions, told from several of them or from their messages: SPK502, SPK503, SPK504, SPK506, SPK507, SPK601
and SPK603. For each what triggers it, what nearly does, and what a poor capture leaves of it."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from judging import NAMES, alarms, codes, judged, shipped, the, truth, unchecked
from keyed import key_folder, play, right_keys, unlock

from analyzer.catalogue import PING_AFTER, PING_ANSWER_LIMIT
from analyzer.findings import BAD, Confidence, Finding, Severity
from analyzer.keys import KeyRing
from analyzer.report.verdict import verdict_of
from analyzer.simulate import (
    SCENARIOS,
    Conversation,
    Packet,
    Simulation,
    World,
    damage,
    exchanges,
    finish,
    make_world,
    messages,
    simulate,
)
from analyzer.simulate.scenarios.steps import end_well
from analyzer.trace import Trace

CERTAIN, STRONG, LIKELY = Confidence.CERTAIN, Confidence.STRONG, Confidence.LIKELY
NEW = {"SPK502", "SPK504", "SPK506", "SPK507", "SPK603"}
WITHOUT_KEYS = {
    "timed-out": ("SPK504", STRONG),
    "forgotten": ("SPK506", STRONG),
    "clone": ("SPK507", STRONG),
    "ota-not-started": ("SPK601", LIKELY),
    "ota-too-slow": ("SPK603", STRONG),
}
WITH_KEYS = {
    **WITHOUT_KEYS,
    "clone": ("SPK507", CERTAIN),
    "ota-not-started": ("SPK601", STRONG),
    "bad-counter": ("SPK502", STRONG),
    "call-unanswered": ("SPK503", STRONG),
}
HEALTHY = sorted(name for name, scenario in SCENARIOS.items() if scenario.code == "SPK001")


@cache
def played(name: str, firmware: str | None = None) -> Simulation:
    return simulate(name, firmware=firmware)  # type: ignore[arg-type]


def keys_of(told: Simulation) -> KeyRing:
    with tempfile.TemporaryDirectory() as folder:
        return key_folder(told, Path(folder))


def opened(told: Simulation | World, packets: Sequence[Packet] | None = None) -> Trace:
    """The verdict with all keys."""
    simulation = finish(told) if isinstance(told, World) else told
    return play(simulation, keys_of(simulation), packets)


def said(trace: Trace, code: str) -> list[Finding]:
    return [finding for finding in trace.findings if finding.code == code]


def evidence(trace: Trace, code: str) -> str:
    return " ".join(item.text for finding in said(trace, code) for item in finding.evidence)


def session(world: World, device: object = None, at: float = 0.0) -> Conversation:
    """A login, and what follows it at once."""
    c = Conversation(world, device or world.add_device(), at=at)  # type: ignore[arg-type]
    c.handshake()
    exchanges.after_hello(c)
    return c


def later_traffic(packets: Sequence[Packet], seconds: float) -> list[Packet]:
    """The same capture, going on with a packet of somebody else."""
    stray = played("no-spark").packets[0]
    return [*packets, replace(stray, time_ns=packets[-1].time_ns + round(seconds * 1e9))]


# -- what triggers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITHOUT_KEYS)
def test_says_what_the_story_is_without_keys(name: str) -> None:
    code, confidence = WITHOUT_KEYS[name]
    found = said(judged(played(name)), code)
    assert {(f.severity, f.confidence) for f in found} == {(Severity.MAJOR, confidence)}


@pytest.mark.parametrize("name", WITH_KEYS)
def test_says_what_the_story_is_with_keys(name: str) -> None:
    code, confidence = WITH_KEYS[name]
    trace = opened(played(name))
    assert {(f.severity, f.confidence) for f in said(trace, code)} == {(Severity.MAJOR, confidence)}
    assert trace.findings[0].code == code, "the most specific finding leads"


@pytest.mark.parametrize("name", WITH_KEYS)
def test_a_session_with_such_a_fault_is_not_called_working(name: str) -> None:
    report = verdict_of(opened(played(name)))
    assert "WORKING" not in report.state
    assert report.steps


@pytest.mark.parametrize("name", sorted(set(SCENARIOS) - set(WITH_KEYS) - {"retries"}))
def test_no_other_story_has_one_of_these(name: str) -> None:
    told = played(name)
    assert not codes(judged(told)) & NEW
    if told.keys:
        assert not codes(opened(told)) & NEW


# -- SPK502 --------------------------------------------------------------------------------------------------------


def test_the_two_numbers_are_named() -> None:
    trace = opened(played("bad-counter"))
    (jump,) = (m for m in trace.conversations[0].messages if m.packet == the(trace, "SPK502").packets[0])
    assert f"has message number {jump.message_id}" in evidence(trace, "SPK502")
    assert "SPK502" not in codes(judged(played("bad-counter"))), "only a key shows the numbers"


def test_a_server_that_does_not_mind_makes_no_fault_of_a_jump() -> None:
    world = make_world()
    c = session(world)
    c.device.next_message_id()
    exchanges.publish(c, "spark/device/random", "x")
    c.close("server", after=0.004)
    assert "SPK502" not in codes(opened(world)), "the server acknowledged the message"
    world = make_world()
    c = session(world)
    c.device.next_message_id()
    c.device_says(messages.event(c.device.next_message_id(), "spark/x", "x"), after=0.5)
    c.close("server", after=5.0)
    assert "SPK502" not in codes(opened(world)), "it went on for 5 s"


def test_a_jump_in_a_ping_is_not_compared() -> None:
    world = make_world()
    c = session(world)
    c.device_says(messages.ping(c.device.message_id + 7), after=PING_AFTER)
    c.close("server", after=0.004)
    assert "SPK502" not in codes(opened(world))


def test_a_message_that_was_not_captured_is_no_jump() -> None:
    told = played("healthy")
    assert told.packets[-1].label == "fin" or any(p.label == "fin" for p in told.packets)
    frames = [i for i, p in enumerate(told.packets) if p.sender == "device" and p.label == "frame"]
    for index in frames:
        assert "SPK502" not in codes(opened(told, damage.drop_packets(told.packets, {index})))
    jumps = played("bad-counter")
    frames = [i for i, p in enumerate(jumps.packets) if p.sender == "device" and p.label == "frame"]
    assert "SPK502" not in codes(opened(jumps, damage.drop_packets(jumps.packets, {frames[0]})))


# -- SPK503 with keys ----------------------------------------------------------------------------------------------


def unanswered_call(*, patience: float, pings: int = 1) -> Trace:
    world = make_world()
    c = session(world)
    call = messages.function_call(c.next_server_id(), c.next_server_token(), "brew", "coffee")
    c.server_says(call, after=0.5)
    c.device_says(messages.event(c.device.next_message_id(), "spark/x", "x"), after=patience)
    for _ in range(pings - 1):
        exchanges.ping(c)
    end_well(c)
    return opened(world)


def test_a_call_without_an_answer_is_named() -> None:
    trace = opened(played("call-unanswered"))
    found = the(trace, "SPK503")
    assert found.summary.endswith('FunctionCall "brew".')
    assert "loop()" in found.fix[0]
    assert verdict_of(trace).state == "NOT ANSWERING"
    assert "SPK503" not in codes(judged(played("call-unanswered")))


def test_a_call_must_have_waited_five_seconds_and_the_device_spoken_since() -> None:
    assert "SPK503" in codes(unanswered_call(patience=6.0))
    assert "SPK503" not in codes(unanswered_call(patience=2.0))


def test_an_answer_that_was_not_captured_is_no_silence() -> None:
    told = played("healthy")
    for index, packet in enumerate(told.packets):
        if packet.label == "frame":
            trace = opened(told, damage.drop_packets(told.packets, {index}))
            assert "SPK503" not in codes(trace), f"without packet {index + 1}"


def test_a_request_of_the_device_without_an_answer_is_told_as_well() -> None:
    world = make_world()
    c = session(world)
    c.device_says(messages.subscribe(c.device.next_message_id(), "door"), after=0.5)
    exchanges.ping(c)
    end_well(c)
    found = the(opened(world), "SPK503")
    assert found.summary.startswith("The server works, but it never answers a request of the device: Subscribe")


def test_a_ping_that_hangs_the_session_is_told_as_without_keys() -> None:
    told = played("keepalive-lost")
    assert the(opened(told), "SPK503").summary == the(judged(told), "SPK503").summary


# -- SPK504 --------------------------------------------------------------------------------------------------------


def quiet_device(*silences: float, alive: bool = True, closer: str = "server") -> World:
    """Sessions that end after a silence of the device."""
    world = make_world(firmware="photon-1.4", server="community")
    device, at = world.add_device(), 0.0
    for silence in silences:
        c = session(world, device, at)
        quiet = c.now
        if alive:
            c.tcp.keepalive("server", at=quiet + PING_AFTER)
        c.close(closer, at=quiet + silence)  # type: ignore[arg-type]
        at = c.now + 1.0
    return world


def test_one_silence_of_the_servers_limit_is_likely_and_two_are_very_likely() -> None:
    assert the(judged(quiet_device(31.0)), "SPK504").confidence is LIKELY
    twice = the(judged(quiet_device(31.0, 31.0)), "SPK504")
    assert (twice.confidence, twice.count) == (STRONG, 2)
    assert "for 31" in twice.summary


def test_the_limit_of_an_unknown_server_is_learnt_from_its_repeats() -> None:
    assert the(judged(quiet_device(40.0, 40.0)), "SPK504").confidence is STRONG
    assert "SPK504" not in codes(judged(quiet_device(40.0)))
    assert "SPK504" not in codes(judged(quiet_device(40.0, 50.0)))


def test_a_silence_in_which_no_ping_was_due_is_no_fault() -> None:
    assert "SPK504" not in codes(judged(quiet_device(12.0, 12.0, alive=False)))
    assert "SPK504" not in codes(judged(quiet_device(31.0, 31.0, closer="device")))


def test_a_device_that_the_server_keeps_busy_need_not_ping() -> None:
    world = make_world(firmware="photon-1.4", server="community")
    c = session(world)
    for _ in range(3):
        exchanges.send_event(c, "greet/all", "hi", after=10.0)
    c.close("server", after=1.0)
    assert "SPK504" not in codes(judged(world))


def test_a_message_of_the_device_that_was_not_captured_is_no_silence() -> None:
    world = quiet_device(31.0)
    told = finish(world)
    silent = played("healthy-idle")
    pings = [i for i, p in enumerate(silent.packets) if p.label in ("ping", "ping answer")]
    assert "SPK504" not in codes(judged(silent, damage.drop_packets(silent.packets, set(pings))))
    frames = [i for i, p in enumerate(told.packets) if p.sender == "device" and p.label == "frame"]
    assert "SPK504" not in codes(judged(told, damage.drop_packets(told.packets, {frames[-1]})))


# -- SPK506 --------------------------------------------------------------------------------------------------------


def forgetful(times: int, *, survives: bool = False, idle: float = PING_AFTER) -> World:
    """Sessions whose first message behind a silence gets nowhere."""
    world = make_world(firmware="photon-1.4", server="legacy")
    device, at = world.add_device(), 0.0
    for _ in range(times):
        c = session(world, device, at)
        if survives:
            exchanges.ping(c)
        c.device_says(messages.ping(c.device.next_message_id()), after=idle, delivered=False, label="ping")
        pinged = c.now
        c.tcp.retransmit("device", 18, (0.3, 0.6, 1.2, 2.4, 4.8))
        c.tcp.fin("device", at=pinged + PING_ANSWER_LIMIT)
        c.tcp.forget("server")
        at = c.now + 1.0
    return world


def test_a_silence_that_kills_each_session_is_a_router_that_forgets() -> None:
    found = the(judged(forgetful(2)), "SPK506")
    assert (found.confidence, found.count) == (STRONG, 2)
    assert "After 15.0 s of silence" in found.summary


def test_once_is_an_accident() -> None:
    trace = judged(forgetful(1))
    assert "SPK506" not in codes(trace)
    assert "SPK505" in codes(trace)


def test_a_silence_that_is_survived_elsewhere_is_not_the_reason() -> None:
    assert "SPK506" not in codes(judged(forgetful(3, survives=True)))
    assert "SPK506" not in codes(judged(forgetful(3, idle=2.0)))


def test_506_leads_where_505_says_less() -> None:
    trace = judged(forgetful(3))
    assert [f.code for f in trace.findings if f.severity in BAD] == ["SPK506", "SPK505"]


def reset_behind_a_silence(ttl: int | None) -> Trace:
    """The ping is answered by a reset, perhaps with a time-to-live that is not the server's."""
    world = make_world(firmware="photon-1.4", server="legacy")
    c = session(world)
    c.device_says(messages.ping(c.device.next_message_id()), after=PING_AFTER, delivered=False, label="ping")
    c.tcp.rst("server", after=0.001)
    told = finish(world)
    packets = [_with_ttl(p, ttl) if p.label == "rst" and ttl is not None else p for p in told.packets]
    return judged(told, packets)


def _with_ttl(packet: Packet, ttl: int) -> Packet:
    data, at = bytearray(packet.data), packet.network + 8
    word = int.from_bytes(data[packet.network + 10 : packet.network + 12], "big") + ((data[at] - ttl) << 8)
    data[at] = ttl
    word = word % 0xFFFF if word % 0xFFFF else 0xFFFF
    data[packet.network + 10 : packet.network + 12] = word.to_bytes(2, "big")
    return replace(packet, data=bytes(data))


def test_a_reset_by_somebody_else_behind_a_silence_is_likely_at_once() -> None:
    assert the(reset_behind_a_silence(255), "SPK506").confidence is LIKELY
    assert "SPK506" not in codes(reset_behind_a_silence(None)), "the server itself, after a restart"


# -- SPK507 --------------------------------------------------------------------------------------------------------


def test_both_devices_are_told_of_and_neither_works() -> None:
    for trace in (opened(played("clone")), judged(played("clone"))):
        found = said(trace, "SPK507")
        assert {f.device for f in found} == {"192.168.1.104", "192.168.1.105"}
        assert verdict_of(trace).state == "KEEPS DROPPING"


def without_announcements(told: Simulation) -> list[Packet]:
    return damage.drop(told.packets, lambda packet: packet.label == "presence")


def test_without_announcements_the_turns_make_it_likely() -> None:
    told = played("clone")
    found = said(judged(told, without_announcements(told)), "SPK507")
    assert {f.confidence for f in found} == {LIKELY}
    assert "5 times the server closes a session of one within 1 s of a login of the other" in found[0].evidence[0].text


def by_turns(*, clone: bool, answers: bool = True) -> World:
    """Two devices that log in by turns; the server closes the session of the other each time, or it is gone by then."""
    world = make_world(firmware="photon-1.4", server="community")
    first = world.add_device()
    second = world.add_device(clone_of=first) if clone else world.add_device()
    before: Conversation | None = None
    at = 0.0
    for turn in range(4):
        c = session(world, (first, second)[turn % 2], at)
        if before is not None:
            before.close("server", at=c.now) if answers else before.tcp.forget("device")
        before = c
        at = c.now + 2.0
    return world


def test_two_devices_with_ids_of_their_own_are_two() -> None:
    assert "SPK507" in codes(opened(by_turns(clone=True)))
    trace = opened(by_turns(clone=False))
    assert "SPK507" not in codes(trace)


def test_one_device_that_moves_to_another_address_is_one() -> None:
    """Its old address does not answer any more."""
    world = by_turns(clone=True, answers=False)
    trace = opened(world)
    assert len({c.device.id for c in trace.conversations}) == 1
    assert "SPK507" not in codes(trace)


# -- SPK601: an update that never begins ---------------------------------------------------------------------------


def test_what_never_began_did_not_stop_in_the_middle() -> None:
    for trace in (judged(played("ota-not-started")), opened(played("ota-not-started"))):
        found = the(trace, "SPK601")
        assert found.summary.startswith("A firmware update never begins: the server offers it 4 times")
        assert "  particle flash --usb FILE" in found.fix
        assert verdict_of(trace).state == "UPDATE FAILS"


def test_events_at_that_pace_are_no_offers() -> None:
    world = make_world(server="legacy")
    c = session(world)
    for _ in range(4):
        exchanges.send_event(c, "a", "b", after=6.0)
    end_well(c)
    assert not alarms(judged(world))
    assert not alarms(opened(world))


def test_offers_at_the_captures_end_may_still_be_answered() -> None:
    told = played("ota-not-started")
    last = [p for p in told.packets if p.label == "update begin"][-1]
    trace = judged(told, [p for p in told.packets if p.time_ns <= last.time_ns + 5_000_000_000])
    assert not alarms(trace)
    assert "SPK601" in unchecked(trace)


def test_an_update_that_the_device_takes_late_has_begun() -> None:
    world = make_world(server="legacy")
    c = session(world)
    number, token = c.next_server_id(), c.next_server_token()
    for _ in range(2):
        c.server_says(messages.update_begin("legacy", number, token, chunk_size=256, length=700), after=6.0)
    c.device_says(
        messages.empty_ack(number),
        messages.update_ready(c.device.firmware, c.device.next_message_id(), token),
        after=14.0,
    )
    end_well(c)
    assert "SPK601" not in codes(opened(world))


# -- SPK603 --------------------------------------------------------------------------------------------------------


def slow_update(step: float, limit: float, *, size: int = 12_000, closes: bool = True) -> World:
    """An update at an even pace that the server ends after some time."""
    world = make_world(firmware="photon-1.4", server="community")
    c = session(world)
    image = world.random("image").randbytes(size)
    started = c.now
    exchanges.begin_update(c, len(image))
    offset = 0
    while c.now + step < started + limit and offset < len(image):
        exchanges.send_chunk(c, image[offset : offset + exchanges.SLOW_CHUNK], after=step - 0.05)
        offset += exchanges.SLOW_CHUNK
    if closes:
        c.close("server", at=max(c.now, started + limit))
    else:
        for _ in range(3):
            exchanges.miss_chunk(c, offset // exchanges.SLOW_CHUNK, after=3.0, acknowledged=False)
        c.close("device", after=3.0)
    return world


def test_keys_tell_how_long_it_would_have_taken() -> None:
    found = the(opened(slow_update(2.0, 60.0)), "SPK603")
    assert "the server allows 60 s" in found.because
    assert "of 47" in evidence(opened(slow_update(2.0, 60.0)), "SPK603")
    assert "needs 1 min 3" in found.because or "needs 9" in found.because


def test_a_server_that_only_stops_sending_is_told_beside_the_stall() -> None:
    trace = judged(slow_update(2.0, 60.0, closes=False))
    assert [f.code for f in trace.findings if f.severity in BAD] == ["SPK603", "SPK601"]


@pytest.mark.parametrize("limit", [30.0, 45.0, 75.0])
def test_an_end_at_another_time_is_not_that_limit(limit: float) -> None:
    assert "SPK603" not in codes(judged(slow_update(2.0, limit)))


def test_an_update_that_was_nearly_done_was_not_too_slow() -> None:
    """Without a key its size is not known; with one it is plain that all of it had been sent."""
    world = slow_update(2.0, 60.0, size=27 * 256)
    assert "SPK603" not in codes(opened(world))


def test_an_update_whose_beginning_was_not_captured_has_no_known_age() -> None:
    told = played("ota-too-slow")
    assert "SPK603" not in codes(judged(told, damage.drop(told.packets, lambda p: p.label == "update begin")))


# -- poor captures -------------------------------------------------------------------------------------------------

SPOIL: dict[str, Callable[[Sequence[Packet]], list[Packet]]] = {
    "device alone": lambda packets: damage.one_direction(packets, "device"),
    "server alone": lambda packets: damage.one_direction(packets, "server"),
}


@pytest.mark.parametrize("way", SPOIL)
@pytest.mark.parametrize("name", WITH_KEYS)
def test_one_direction_proves_no_silence(name: str, way: str) -> None:
    told = played(name)
    packets = SPOIL[way](without_announcements(told))
    assert not codes(opened(told, packets)) & (NEW - {"SPK507"})
    assert not alarms(judged(told, packets)) & (NEW | {"SPK503", "SPK601"})


@pytest.mark.parametrize("name", WITHOUT_KEYS)
def test_packets_cut_short_leave_less_certainty(name: str) -> None:
    code, _ = WITHOUT_KEYS[name]
    told = played(name)
    found = said(judged(told, damage.snaplen(without_announcements(told), 96)), code)
    assert all(f.confidence in (LIKELY, Confidence.HINT) for f in found)


@pytest.mark.parametrize("name", HEALTHY)
def test_no_loss_makes_a_fault_of_a_working_session(name: str) -> None:
    told = played(name)
    keys = keys_of(told) if told.keys else None
    wanted = alarms(play(told, keys))
    for seed in range(3):
        chance = random.Random(f"{name}/{seed}")
        lost = {i for i in range(len(told.packets)) if chance.random() < 0.05}
        packets = damage.drop_packets(told.packets, lost)
        assert not (alarms(play(told, keys, packets)) - wanted) & (NEW | {"SPK503", "SPK601"})
        assert not (alarms(judged(told, packets)) - wanted) & (NEW | {"SPK503", "SPK601"})


@pytest.mark.parametrize("name", NAMES)
def test_no_shipped_capture_has_one_of_these(name: str) -> None:
    trace = unlock(shipped(name), right_keys(name))
    assert not codes(trace) & NEW
    verdict_told = truth(name)["correct_analysis"]["verdict"]
    assert "SPK503" not in codes(trace) or verdict_told == "keepalive_lost"


def test_a_hello_that_the_server_never_answers_is_no_last_word_of_a_busy_device() -> None:
    """SPK208 with its beginning missing from the capture: without a word of the server no session is known."""
    packets = simulate("hello-unanswered", firmware="core-2014", attempts=1).packets
    hello = next(place for place, packet in enumerate(packets) if packet.label == "device hello")
    assert alarms(judged(simulate("hello-unanswered", firmware="core-2014"), packets[hello:])) == set()
