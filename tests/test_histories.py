"""What became of each device over time, and of all devices of one server: changes, pauses, common causes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import pytest
from fleets import MINUTE, Step, cut_off, hangs, no_entry, no_use, nobody, refused, row, works
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import captured, judged, simulate, verdict
from keyed import key_folder, play
from screens import shown, story
from test_lua_analysis import lua
from test_lua_stories import agree, agree_on_certainty, agree_on_steps, told

from analyzer.histories import Course, History, Outcome, ServerHistory, course_of, histories, servers
from analyzer.report.past import Times
from analyzer.report.redact import Redactor
from analyzer.report.text import text_report
from analyzer.report.verdict import verdict_of
from analyzer.simulate import Conversation, World, finish, make_world
from analyzer.simulate.keys import SERVER_BITS
from analyzer.trace import Trace

WORKED, FAILED, UNJUDGED = Outcome.WORKED, Outcome.FAILED, Outcome.UNJUDGED
START = 1_700_000_000.0  # 22:13:20 UTC
STEPS: dict[str, Step] = {"w": works, "f": refused, "n": no_use, "s": hangs}


def world(*, firmware: str = "photon-1.4", devices: int = 1) -> World:
    made = make_world(firmware=firmware, start=START)  # type: ignore[arg-type]
    for _ in range(devices):
        made.add_device()
    return made


def only(trace: Trace) -> History:
    (history,) = histories(trace)
    return history


def outcomes(history: History) -> str:
    letters = {WORKED: "w", FAILED: "f", UNJUDGED: "u"}
    return "".join(letters[attempt.outcome] for attempt in history.attempts)


def played(letters: str, every: float = MINUTE) -> World:
    """One device whose attempts go as the letters say."""
    made = world()
    at = 0.0
    for letter in letters:
        STEPS[letter](made, made.devices[0], at)
        at += every
    return made


def seconds(time_ns: int) -> float:
    return round(time_ns / 1e9 - START, 3)


# -- one device ----------------------------------------------------------------------------------------------------


def test_a_device_that_stopped_working_has_the_moment_between_two_packets() -> None:
    trace = judged(played("wwff"))
    history = only(trace)
    (change,) = history.changes
    last_good, first_bad = trace.conversations[1:3]
    assert (history.course, outcomes(history)) == (Course.FAILS_SINCE, "wwff")
    assert (change.was, change.became, change.code) == (WORKED, FAILED, "SPK204")
    assert (change.before_packet, change.packet) == (last_good.last_packet, first_bad.first_packet)
    assert (seconds(change.before_ns), seconds(change.time_ns)) == (62.05, 120.0)
    said = verdict_of(trace)
    assert said.sentence.endswith(
        f"It worked until packet {last_good.last_packet}, and fails since packet {first_bad.first_packet}."
    )
    assert (
        f"Worked until 22:14:22 (packet {last_good.last_packet}); fails since 22:15:20 (packet"
        f" {first_bad.first_packet}), 2 attempts."
    ) in flat(trace)


def flat(trace: Trace) -> str:
    return " ".join(text_report(trace, "x.pcap").split())


def test_a_device_that_works_again_has_the_moment_too() -> None:
    trace = judged(played("ffww"))
    history = only(trace)
    assert history.course is Course.WORKS_SINCE
    assert history.since.packet == trace.conversations[2].first_packet
    said = verdict_of(trace)
    assert (said.state, str(said.mark)) == ("WORKING", "~")
    assert said.sentence.startswith(
        f"The device logs in now (from packet {trace.conversations[2].first_packet} on). Before that, 2 attempts"
        " failed: the server reads"
    )


def test_failures_now_and_then_are_counted_and_no_moment_is_claimed() -> None:
    letters = ("w" * 5 + "f") * 3 + "w" * 2
    trace = judged(played(letters, 10.0))
    assert only(trace).course is Course.NOW_AND_THEN
    said = verdict_of(trace)
    assert said.sentence.startswith("The last attempt worked, but 3 of 20 attempts failed, now and then: the server")
    assert said.steps[0].startswith("Find out which")
    assert "3 of 20 attempts failed, now and then, from 22:13:20 to 22:16:30" in flat(trace)
    again = verdict_of(judged(played(letters[:-2], 10.0)))
    assert again.sentence.endswith("It fails now and then: 3 of 18 attempts.")
    assert again.state == "NOT CONNECTING"


@pytest.mark.parametrize(
    ("letters", "course"),
    [
        ("", Course.UNKNOWN),
        ("www", Course.WORKS),
        ("f", Course.NEVER_WORKED),
        ("wf", Course.FAILS_SINCE),
        ("fw", Course.WORKS_SINCE),
        ("wwwwffffw", Course.WORKS_SINCE),  # an outage with two ends
        ("ffwwf", Course.FAILS_SINCE),
        ("wwwwfwwww", Course.NOW_AND_THEN),  # one failure is no outage
        ("ffffwffff", Course.NOW_AND_THEN),
        ("wfwfwf", Course.NOW_AND_THEN),
        ("wfwfwffffffff", Course.FAILS_SINCE),
        ("wfffwfwfff", Course.NOW_AND_THEN),  # it has failed for as long before
        ("wfwfwff", Course.NOW_AND_THEN),
        ("fwfwwfwwww", Course.WORKS_SINCE),
    ],
)
def test_the_course_of_attempts(letters: str, course: Course) -> None:
    assert course_of([WORKED if letter == "w" else FAILED for letter in letters]) is course


def test_a_capture_that_begins_in_a_working_session_has_seen_it_work() -> None:
    simulation = finish(played("wff"))
    trace = judged(simulation, simulation.packets[12:])
    assert trace.conversations[0].midway
    assert (outcomes(only(trace)), only(trace).course) == ("wff", Course.FAILS_SINCE)


@pytest.mark.parametrize("firmware", ["core-2014", "photon-1.4"])
def test_an_attempt_at_the_end_of_the_capture_proves_nothing(firmware: str) -> None:
    made = world(firmware=firmware)
    works(made, made.devices[0], 0.0)
    cut_off(made, made.devices[0], 30.0)
    trace = judged(made)
    assert (outcomes(only(trace)), only(trace).course) == ("wu", Course.WORKS)
    assert only(trace).changes == []
    assert verdict_of(trace).state == "WORKING"


def test_attempts_that_cannot_be_judged_break_nothing_and_move_no_moment() -> None:
    trace = judged(played("wwff"))
    whole = only(trace)
    spoilt = finish(played("wwff"))
    second = [p for p in spoilt.packets if not 60e9 <= p.time_ns - START * 1e9 < 120e9 or p.label == "fin"]
    history = only(judged(spoilt, second))
    assert outcomes(history) == "wuff"
    assert (history.course, history.count(UNJUDGED)) == (Course.FAILS_SINCE, 1)
    (change,) = history.changes
    assert seconds(change.before_ns) < 10.0, "the state is known until the end of the first attempt only"
    assert change.time_ns == whole.changes[0].time_ns
    assert "1 attempt cannot be judged" in flat(judged(spoilt, second))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([WORKED, FAILED]), max_size=30),
    st.lists(st.integers(0, 30), max_size=5),
)
def test_unjudged_attempts_anywhere_change_no_course(judged_ones: list[Outcome], places: list[int]) -> None:
    every = list(judged_ones)
    for place in places:
        every.insert(min(place, len(every)), UNJUDGED)
    assert course_of([o for o in every if o is not UNJUDGED]) is course_of(judged_ones)
    course = course_of(judged_ones)
    assert (course is Course.UNKNOWN) is (not judged_ones)
    if course in (Course.FAILS_SINCE, Course.WORKS_SINCE):
        assert judged_ones[-1] is (FAILED if course is Course.FAILS_SINCE else WORKED)
        assert set(judged_ones) == {WORKED, FAILED}


def test_a_session_fails_when_it_ends_and_not_when_it_began() -> None:
    made = world()
    works(made, made.devices[0], 0.0)
    hangs(made, made.devices[0], 30.0, 60.0)
    trace = judged(made)
    history = only(trace)
    (change,) = history.changes
    assert (change.code, history.attempts[1].packet) == ("SPK503", trace.conversations[1].closings[0].packet)
    assert seconds(change.time_ns) > 90.0


def test_another_failure_is_a_change_too() -> None:
    trace = judged(played("fffnnn"))
    history = only(trace)
    assert history.course is Course.NEVER_WORKED
    assert [(c.was, c.became, c.code) for c in history.changes] == [(FAILED, FAILED, "SPK206")]
    assert "; fails in another way (SPK206) from 22:16:20 (packet 25) on" in flat(trace)


def test_a_key_that_only_proves_more_is_no_change() -> None:
    history = only(judged(simulate("key-mismatch")))
    assert {"SPK206", "SPK207"} <= {code for attempt in history.attempts for code in attempt.codes}
    assert history.changes == []


@settings(max_examples=100, deadline=None)
@given(st.integers(), st.integers(), st.integers())
def test_any_time_can_be_told(first: int, last: int, then: int) -> None:
    assert Times(first, last).at(then)


def test_days_are_told_where_the_capture_has_several() -> None:
    trace = judged(played("wf", 90_000.0))
    assert "Worked until 2023-11-14 22:13 (packet 25); fails since 2023-11-15 23:13 (packet 26)" in flat(trace)


# -- pauses --------------------------------------------------------------------------------------------------------


def with_pauses(waits: Iterable[float]) -> History:
    made = world()
    c = refused(made, made.devices[0], 0.0)
    for wait in waits:
        c = refused(made, made.devices[0], c.now + wait)
    return only(judged(made))


def test_the_firmwares_back_off_is_recognised() -> None:
    made = world()
    device = made.devices[0]
    at = 0.0
    for _ in range(28):
        at = refused(made, device, at).now + device.pause()
    trace = judged(made)
    pattern = only(trace).pattern
    assert pattern is not None
    assert (pattern.kind, round(pattern.first_ns / 1e9), round(pattern.longest_ns / 1e9)) == ("doubling", 1, 32)
    assert "28 attempts from 22:13:20 to 22:17:05, not one without a fault, pause 1.0 s growing to 32.0 s." in flat(
        trace
    )
    assert "SPK508" not in {finding.code for finding in trace.findings}


@pytest.mark.parametrize(
    ("waits", "kind"),
    [
        ([1.2] * 8, "fixed"),
        ([1.2, 1.3, 1.2, 1.1, 1.25, 1.2, 1.2, 1.3, 1.2, 60.0, 1.2, 1.2], "fixed"),
        ([1.3, 1.3, 1.2, 1.3, 1.3, 2.3, 2.2, 2.3, 2.3, 2.3, 4.3], "doubling"),
        ([1.0, 7.0, 2.0, 31.0, 3.0, 0.5, 12.0], "irregular"),
        ([8.0, 8.0, 4.0, 4.0, 2.0, 2.0, 1.0], "irregular"),
        ([1.0, 2.0, 4.0, 8.0], "irregular"),  # too few to tell
    ],
)
def test_pauses_have_a_pattern(waits: Sequence[float], kind: str) -> None:
    pattern = with_pauses(waits).pattern
    assert pattern is not None
    assert (pattern.kind, pattern.count) == (kind, len(waits))


def test_two_pauses_are_no_pattern() -> None:
    assert with_pauses([1.0, 1.0]).pattern is None


def test_the_pause_after_a_session_that_worked_is_no_retry() -> None:
    history = only(judged(played("fwfwfwfff", 100.0)))
    assert history.pattern is not None
    assert history.pattern.count == 5


# -- who is who ----------------------------------------------------------------------------------------------------


def with_server_key(made: World, folder: Path) -> Trace:
    simulation = finish(made)
    return play(simulation, key_folder(simulation, folder, "server.pem"))


def test_devices_behind_one_address_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    made = world(devices=3)
    for device in made.devices:
        device.host.address = "203.0.113.7"
    for place, device in enumerate(made.devices):
        works(made, device, 3.0 * place, 100.0)
    row(made, made.devices[1], 110.0, refused, times=3)
    trace = with_server_key(made, tmp_path)
    found = {h.device.name: (outcomes(h), h.course) for h in histories(trace)}
    ids = [device.device_id.hex() for device in made.devices]
    assert found == {
        ids[0]: ("w", Course.WORKS),
        ids[1]: ("wfff", Course.FAILS_SINCE),
        ids[2]: ("w", Course.WORKS),
    }
    said = verdict_of(trace)
    assert said.sentence.startswith(f"{ids[1]} is not known to the server.")
    assert [f.count for f in said.stories[0].findings if f.code == "SPK204"] == [3]
    assert not any(ids[0] in step or ids[2] in step for step in said.steps)
    redacted = Redactor(trace).text(text_report(trace, "x.pcap"))
    assert not any(device_id in redacted for device_id in ids)


def test_without_ids_nothing_is_said_of_one_device_where_several_are_at_work() -> None:
    made = world(devices=2)
    made.devices[1].host.address = made.devices[0].host.address
    works(made, made.devices[0], 0.0, 400.0)
    row(made, made.devices[1], 30.0, refused, times=5)
    trace = judged(made)
    assert (only(trace).course, only(trace).changes) == (Course.SEVERAL_AT_ONCE, [])
    said = verdict_of(trace)
    assert said.state == "NOT CONNECTING"
    assert said.sentence.endswith(
        "At the same time 1 connection works from this address: more than one device seems to use it."
    )
    assert "1 connection worked and 5 failed, some at the same time" in flat(trace)


def test_a_device_that_dials_again_before_the_old_connection_is_quite_closed_is_one_device() -> None:
    made = world()
    first = works(made, made.devices[0], 0.0, 20.0)
    refused(made, made.devices[0], first.now - 1.0)
    assert only(judged(made)).course is Course.FAILS_SINCE


def test_one_id_at_two_addresses_is_a_device_that_moved(tmp_path: Path) -> None:
    made = world()
    device = made.devices[0]
    works(made, device, 0.0)
    device.host.address = "192.168.1.130"
    row(made, device, 60.0, refused, times=2)
    trace = with_server_key(made, tmp_path)
    history = only(trace)
    assert (history.device.addresses, history.device.name) == (["192.168.1.104", "192.168.1.130"], "192.168.1.130")
    assert (outcomes(history), history.course) == ("wff", Course.FAILS_SINCE)
    assert "The device's address was 192.168.1.104 then 192.168.1.130." in flat(trace)
    assert len(histories(judged(made))) == 2, "without a key they are two addresses"


def test_two_units_with_one_id_are_two_devices(tmp_path: Path) -> None:
    clone = simulate("clone")
    trace = play(clone, key_folder(clone, tmp_path))
    assert "SPK507" in {finding.code for finding in trace.findings}
    found = histories(trace)
    assert len(found) == 2
    assert len({h.device.id for h in found}) == 1
    assert len({h.device.name for h in found}) == 2
    assert all(attempt.codes != ("SPK507",) for history in found for attempt in history.attempts)


@pytest.mark.parametrize("between", [False, True])
def test_a_unit_that_took_anothers_place_is_another_device(between: bool, tmp_path: Path) -> None:
    made = world(devices=2)
    old, new = made.devices
    new.host.address = old.host.address
    works(made, old, 0.0)
    nobody(made, old, 60.0)
    refused(made, old, 120.0)
    if between:
        nobody(made, new, 180.0)  # nothing tells whose attempt this is
    works(made, new, 240.0)
    nobody(made, new, 300.0)
    trace = with_server_key(made, tmp_path)
    found = {h.device.name: outcomes(h) for h in histories(trace)}
    named = {old.device_id.hex(): "wff", new.device_id.hex(): "wf"}
    unnamed = {"192.168.1.104 (ID not known)": "f"} if between else {}
    assert found == named | unnamed


def test_an_announcement_tells_the_id() -> None:
    made = world(firmware="core-2014")
    works(made, made.devices[0], 0.0)
    refused(made, made.devices[0], 60.0)
    assert only(judged(made)).device.id == made.devices[0].device_id.hex()


def test_a_unit_that_took_anothers_place_is_known_by_its_own_announcements() -> None:
    made = world(firmware="core-2014", devices=2)
    old, new = made.devices
    new.host.address = old.host.address
    works(made, old, 0.0)
    refused(made, old, 60.0)
    works(made, new, 120.0)
    refused(made, new, 180.0)
    found = {h.device.name: outcomes(h) for h in histories(judged(made))}
    assert found == {old.device_id.hex(): "wf", new.device_id.hex(): "wf"}


# -- the devices of one server ---------------------------------------------------------------------------------------


def the_server(trace: Trace) -> ServerHistory:
    (server,) = servers(histories(trace))
    return server


def fleet(step: Step, *, devices: int = 5, firmware: str = "photon-1.4") -> World:
    """All work for some minutes; ten minutes later the same befalls them all, within half a minute."""
    made = world(devices=devices, firmware=firmware)
    for place, device in enumerate(made.devices):
        works(made, device, 20.0 * place, 300.0)
        row(made, device, 600.0 + 7 * place, step, times=4)
    return made


@cache
def fallen(step: Step, devices: int = 5) -> Trace:
    return judged(fleet(step, devices=devices))


@pytest.mark.parametrize(
    ("step", "what", "who"),
    [
        (refused, 'each is refused by the server after "who I am"', "it is the server that changed, not"),
        (no_use, "none can use the server's reply", "it is the server that changed, not"),
        (nobody, "each gets no answer from 198.51.100.20", "it is the server, or the way to it, that changed, not"),
        (no_entry, "each is refused by 198.51.100.20", "it is the server, or the way to it, that changed, not"),
    ],
)
def test_what_befalls_all_devices_at_once_is_the_servers(step: Step, what: str, who: str) -> None:
    trace = fallen(step)
    together = the_server(trace).together
    assert together is not None
    assert (len(together.members), together.worked_before, together.certain) == (5, 5, True)
    assert seconds(together.since.time_ns) == 600.0
    said = verdict_of(trace)
    packet = f"{together.since.packet:,}"
    assert said.state == "NOT CONNECTING"
    assert said.sentence == (
        f"All 5 devices that called 198.51.100.20 since 22:23:20 (packet {packet}) fail: {what}. Until then they"
        f" worked. So {who} the devices."
    )
    assert said.sure.startswith("Very likely that the cause is common to them: 5 devices fail since one moment.")
    text = flat(trace)
    assert "Last login of any device that worked: 22:14:40" in text
    assert "first failures of the 5 devices: 22:23:20 to 22:23:48" in text
    assert text.count("Do this") == 1
    assert text.count("Attempt 2 of 5") == 1, "one drawing for one cause"


def test_the_remedy_is_at_the_server() -> None:
    refused_ones = verdict_of(fallen(refused))
    assert refused_ones.steps[0].startswith("Look at what was changed at the server by 22:23:20")
    assert not any("particle keys" in step for step in refused_ones.steps)
    assert {story.steps for story in refused_ones.stories} == {refused_ones.steps}
    assert "SPK303" in " ".join(verdict_of(fallen(no_use)).steps)
    assert "nc -vz" in " ".join(verdict_of(fallen(nobody)).steps)


def test_a_server_program_that_can_read_no_more_is_named_with_its_key(tmp_path: Path) -> None:
    trace = with_server_key(fleet(refused), tmp_path)
    assert {f.caused_by for f in trace.findings if f.code == "SPK204"} == {"SPK308"}
    said = verdict_of(trace)
    assert said.lead is not None
    assert said.lead.code == "SPK308"
    assert said.sentence.startswith("All 5 devices that called 198.51.100.20 since 22:23:20")
    assert said.steps == said.stories[0].findings[0].fix


def test_devices_behind_one_address_are_several_devices_to_their_server(tmp_path: Path) -> None:
    made = world(devices=3)
    for place, device in enumerate(made.devices):
        device.host.address = "203.0.113.7"
        row(made, device, 5.0 * place, refused, times=2)
    trace = with_server_key(made, tmp_path)
    assert {"SPK308", "SPK304"} & {finding.code for finding in trace.findings} == {"SPK308"}
    assert verdict_of(trace).sentence.startswith("All 3 devices that called 198.51.100.20 fail alike: each")


def test_a_server_with_a_new_key_is_named_with_that_key(tmp_path: Path) -> None:
    made = world(devices=5)
    for place, device in enumerate(made.devices):
        works(made, device, 20.0 * place, 300.0)
    made.server.key = made.private_key("new", SERVER_BITS)
    for place, device in enumerate(made.devices):
        row(made, device, 600.0 + 7 * place, refused, times=4)
    simulation = finish(made)
    trace = play(simulation, key_folder(simulation, tmp_path, "new.pem"))
    said = verdict_of(trace)
    assert said.lead is not None
    assert said.lead.code == "SPK302"
    assert said.sentence.startswith("All 5 devices that called 198.51.100.20 since 22:23:20")
    assert said.steps[0].startswith("Put the server's former key file back")


def test_the_servers_hang_is_one_cause_for_all_its_sessions() -> None:
    made = world(devices=4)
    for place, device in enumerate(made.devices):
        hangs(made, device, 10.0 * place, 300.0 - 10.0 * place)
    trace = judged(made)
    together = the_server(trace).together
    assert together is not None
    assert (together.look, len(together.members), together.worked_before) == ("SPK503", 4, 4)
    assert verdict_of(trace).state in ("KEEPS DROPPING", "NOT ANSWERING")


def test_a_device_that_is_not_there_any_more_is_not_counted() -> None:
    made = fleet(refused, devices=4)
    works(made, made.add_device(), 100.0)
    trace = judged(made)
    together = the_server(trace).together
    assert together is not None
    assert (len(together.members), together.others, together.outlived) == (4, 0, [])
    assert verdict_of(trace).sentence.startswith("All 4 devices that called")
    assert verdict_of(trace).state == "4 OF 5 NOT CONNECTING"


def test_a_session_that_goes_on_is_told_of_and_disproves_nothing() -> None:
    made = fleet(refused, devices=3)
    works(made, made.add_device(), 100.0, 800.0)
    trace = judged(made)
    together = the_server(trace).together
    assert together is not None
    assert len(together.outlived) == 1
    assert verdict_of(trace).sentence.endswith("192.168.1.107 logged in before that and works on.")


def test_one_login_that_works_later_leaves_each_device_its_own_verdict() -> None:
    made = fleet(refused, devices=3)
    works(made, made.add_device(), 1000.0)
    trace = judged(made)
    assert the_server(trace).together is None
    said = verdict_of(trace).sentence
    assert said.startswith("192.168.1.104 is refused by the server")
    assert said.endswith("192.168.1.107 works with the same server, so network and server are fine.")


def test_two_of_five_that_fail_for_other_reasons_at_other_times_have_nothing_in_common() -> None:
    made = world(devices=5)
    one, other, *fine = made.devices
    for place, device in enumerate(fine):
        row(made, device, 10.0 + place, works, times=8, every=300.0)
    works(made, one, 0.0)
    row(made, one, 400.0, refused, times=6)
    works(made, other, 5.0, 1000.0)
    row(made, other, 1500.0, no_use, times=4)
    trace = judged(made)
    assert the_server(trace).together is None
    said = verdict_of(trace)
    assert said.state == "2 OF 5 NOT CONNECTING"
    assert said.sentence.endswith("and 192.168.1.108 work with the same server, so network and server are fine.")


def test_two_that_fail_in_different_ways_long_after_another_have_nothing_in_common_though_nobody_works() -> None:
    made = world(devices=5)
    one, other, *absent = made.devices
    for place, device in enumerate((*absent, one, other)):
        works(made, device, 10.0 * place)
    row(made, one, 300.0, refused, times=6)
    row(made, other, 2400.0, no_use, times=3)
    trace = judged(made)
    assert the_server(trace).together is None
    assert "192.168.1.106" not in verdict_of(trace).sentence, "what worked before proves nothing about now"


def test_a_device_that_never_worked_is_no_proof_that_another_ones_trouble_is_the_servers() -> None:
    made = world(devices=2)
    works(made, made.devices[0], 0.0)
    row(made, made.devices[0], 300.0, refused, times=3)
    row(made, made.devices[1], 310.0, refused, times=3)
    assert the_server(judged(made)).together is None


def test_two_devices_that_fell_together_are_likely_and_no_more() -> None:
    said = verdict_of(fallen(refused, 2))
    assert said.sentence.startswith("Both devices that called 198.51.100.20 since 22:23:20")
    assert said.sure.startswith("Likely that the cause is common to them")


def test_devices_that_failed_from_the_start_are_told_together_without_a_moment() -> None:
    made = world(devices=3)
    for place, device in enumerate(made.devices):
        row(made, device, 5.0 * place, refused, times=3)
    trace = judged(made)
    said = verdict_of(trace)
    assert said.sentence.startswith("All 3 devices that called 198.51.100.20 fail alike: each is refused")
    assert "since" not in said.sentence
    assert said.sure.startswith("Likely")


def test_one_failing_on_its_own_before_the_server_fell_is_told_apart() -> None:
    made = fleet(refused, devices=4)
    row(made, made.add_device(), 0.0, no_use, times=12)
    trace = judged(made)
    together = the_server(trace).together
    assert together is not None
    assert len(together.members) == 4
    assert together.others == 1
    said = verdict_of(trace)
    assert said.sentence.startswith("4 of the 5 devices that called 198.51.100.20 since 22:23:20")
    assert said.sentence.endswith("1 other device fails in another way.")
    assert "cannot use the server's reply" not in said.sentence


def test_devices_of_different_servers_are_not_lumped_together() -> None:
    made = world(devices=2)
    elsewhere = make_world(firmware="photon-1.4", start=START)
    one, other = made.devices
    far = made.add_server("community", "far")
    far.host.address = "198.51.100.77"
    far.registry.update(made.server.registry)
    works(made, one, 0.0)
    row(made, one, 300.0, refused, times=3)
    works(made, other, 10.0, server=far)
    for at in (310.0, 370.0):
        refused(made, other, at, server=far)
    assert elsewhere.server.host.address == made.server.host.address
    trace = judged(made)
    assert [server.ip for server in servers(histories(trace))] == ["198.51.100.20", "198.51.100.77"]
    assert all(server.together is None for server in servers(histories(trace)))


# -- cause before symptom --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cause", "effect"),
    [("server-moved", "SPK106", "SPK101"), ("dns-failed", "SPK105", "SPK101")],
)
def test_the_cause_leads_and_both_stay_in_the_document(name: str, cause: str, effect: str, tmp_path: Path) -> None:
    trace = judged(simulate(name))
    found = {finding.code: finding.caused_by for finding in trace.findings}
    assert (found[effect], found[cause]) == (cause, None)
    said = verdict_of(trace)
    assert said.lead is not None
    assert said.lead.code == cause
    assert [finding.code for finding in said.stories[0].said][:2] == [cause, effect]


def test_a_key_proven_wrong_leads_over_the_silence_that_it_causes(tmp_path: Path) -> None:
    mismatch = simulate("key-mismatch")
    trace = play(mismatch, key_folder(mismatch, tmp_path))
    assert {f.code: f.caused_by for f in trace.findings if f.code in ("SPK206", "SPK207")} == {
        "SPK206": "SPK301",
        "SPK207": "SPK301",
    }
    assert verdict_of(trace).stories[0].findings[0].code == "SPK301"


# -- the reports -----------------------------------------------------------------------------------------------------


@pytest.fixture
def fleet_file(tmp_path: Path) -> str:
    path = tmp_path / "fleet.pcap"
    path.write_bytes(finish(fleet(refused, devices=3)).capture())
    return str(path)


def test_the_document_lists_devices_and_servers(fleet_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(shown(capsys, "analyze", "--format", "json", fleet_file))
    first = document["devices"][0]
    assert first["device"].keys() == {"ip", "mac", "id", "ips"}
    assert (first["state"], first["leads"]) == ("fails-since", "SPK204")
    assert [first[name] for name in ("attempts", "worked", "failed", "unjudged")] == [5, 1, 4, 0]
    assert first["conversations"] == [1, 4, 7, 10, 13]
    (change,) = first["changes"]
    assert (change["from"], change["to"], change["finding"]) == ("worked", "failed", "SPK204")
    assert change["after"]["packet"] < change["packet"]
    assert change["after"]["time"] < change["time"] == START + 600
    assert (first["pattern"]["kind"], first["pattern"]["pauses"]) == ("fixed", 3)
    assert first["statistics"].keys() >= {"pings", "sessions"}
    (server,) = document["servers"]
    assert (server["ip"], server["port"], server["devices"], server["failing"]) == ("198.51.100.20", 5683, 3, 3)
    assert server["since"]["time"] == START + 600
    assert server["together"]["worked_before"] == 3
    assert [d["ip"] for d in server["together"]["devices"]] == ["192.168.1.104", "192.168.1.105", "192.168.1.106"]
    assert {finding["caused_by"] for finding in document["findings"]} == {None}


def test_the_lines_say_the_same_as_the_document(fleet_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(shown(capsys, "analyze", "--format", "json", fleet_file))
    lines = [json.loads(line) for line in shown(capsys, "analyze", "--format", "jsonl", fleet_file).splitlines()]
    for kind, name in (("device", "devices"), ("server", "servers")):
        assert [{k: v for k, v in line.items() if k != "kind"} for line in lines if line["kind"] == kind] == document[
            name
        ]


@pytest.mark.parametrize("words", [("--redact",), ("--redact", "--format", "json"), ("--format", "markdown")])
def test_a_redacted_report_names_none_of_them(
    words: tuple[str, ...], fleet_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = shown(capsys, "analyze", *words, fleet_file)
    assert "192.168.1." not in report
    assert "02:00:00:00:01" not in report
    assert "Device A" in report


def test_markdown_tells_the_history(fleet_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = shown(capsys, "analyze", "--format", "markdown", fleet_file)
    assert report.startswith("**Not connecting: All 3 devices that called Server A since 22:23:20")
    assert "first failures of the 3 devices" in report
    assert len(report.splitlines()) <= 30


def test_one_capture_in_several_files_has_one_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    simulation = finish(played("wwwfff"))
    half = len(simulation.packets) // 2
    parts = (simulation.packets[:half], simulation.packets[half:])
    for name, packets in zip(("a.pcap", "b.pcap"), parts, strict=True):
        simulation.packets = list(packets)
        (tmp_path / name).write_bytes(simulation.capture())
    document = json.loads(shown(capsys, "analyze", "--format", "json", str(tmp_path)))
    (change,) = document["devices"][0]["changes"]
    assert change["packet"] == change["after"]["packet"] + 1 > half


@pytest.mark.parametrize("name", ["worked-then-fails", "fixed"])
def test_the_stories_of_change_say_so(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = shown(capsys, "analyze", str(story(name, tmp_path)))
    assert "\nHistory      " in report
    assert max(map(len, report.splitlines())) <= 80


# -- the window in Wireshark -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "letters", ["wwff", "ffww", "wwffw", "fwf", "wfwfwf", "wfwfwfw", "wfwfwfwwww", "wfwfwffff", "wfwfwff", "ws", "sw"]
)
def test_the_window_tells_the_same_course(letters: str) -> None:
    simulation = finish(played(letters))
    packets = captured(simulation.packets, simulation.link_type)
    ours, report = told(lua("lua54"), packets), verdict_of(verdict(packets))
    agree(ours, report)
    agree_on_steps(ours, report)
    agree_on_certainty(ours, report)


def test_the_window_too_does_not_call_a_device_working_that_worked_before() -> None:
    made = world(devices=3)
    one, absent, fine = made.devices
    works(made, absent, 0.0)
    row(made, one, 300.0, refused, times=3)
    works(made, fine, 310.0)
    simulation = finish(made)
    packets = captured(simulation.packets, simulation.link_type)
    report = verdict_of(verdict(packets))
    agree(told(lua("lua52"), packets), report)
    assert report.sentence.endswith("192.168.1.106 works with the same server, so network and server are fine.")


@pytest.mark.parametrize(
    ("steps", "end"),
    [
        ((refused, no_use), "1 other device fails in another way."),
        ((refused, no_use, no_entry), "2 other devices fail in other ways."),
    ],
)
def test_the_window_counts_those_that_fail_in_other_ways(steps: tuple[Step, ...], end: str) -> None:
    made = world(devices=len(steps))
    for device, step in zip(made.devices, steps, strict=True):
        row(made, device, 0.0, step, times=2)
    simulation = finish(made)
    packets = captured(simulation.packets, simulation.link_type)
    report = verdict_of(verdict(packets))
    agree(told(lua("lua51"), packets), report)
    assert report.sentence.endswith(end)


def test_a_remark_on_rows_is_not_what_is_said_of_a_device_among_several() -> None:
    made = world(devices=2)
    works(made, made.devices[0], 0.0, 30.0)
    c = Conversation(made, made.devices[1], at=29.0)
    c.connect()
    c.nonce()
    said = verdict_of(judged(made))
    assert said.state == "1 OF 2 WORKING"
    assert said.sentence.startswith("192.168.1.105: What the capture shows is too little for a verdict.")
    assert "CoAP" not in said.sentence
