"""Statistics: what is measured is what was simulated and what tshark measures; what cannot be measured is not 0."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import CAPTURES, captured, judged, shipped, verdict
from keyed import key_folder, play, right_keys, unlock
from screens import SHIPPED, shown
from tcp_talk import DEVICE, MS, SECOND, SERVER, Talk, copy_of, healthy, listen_to_one
from tcp_talk import captured as in_order

from analyzer.catalogue import SPARK_PORT
from analyzer.network import Decoder
from analyzer.network.units import ACK, PSH, Segment
from analyzer.report.exact import dumps
from analyzer.report.figures import conversation_json, device_json, figures, statistics_table
from analyzer.report.text import text_report
from analyzer.simulate import damage, exchanges, finish, make_world, simulate
from analyzer.simulate.conversation import Conversation as Played
from analyzer.simulate.simulation import Simulation
from analyzer.simulate.world import TO_DEVICE
from analyzer.spread import ERROR, Spread
from analyzer.statistics import ALIKE, ALIKE_NS, MEMBERS, WIDEST, Statistics, clusters, login_steps, measure
from analyzer.streams import Sender

TIMES = st.lists(st.integers(0, 1 << 40) | st.integers(0, 1 << 10), min_size=1, max_size=60)
SLACK = 2_000  # ns: the clock of a capture has microseconds


def measured(simulation: Simulation) -> Statistics:
    return measure(judged(simulation).conversations)


def least(told: Statistics) -> dict[Sender, int | None]:
    return {sender: spread.least for sender, spread in told.round_trips.items()}


# -- times, counted ------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(times=TIMES, share=st.floats(0, 1))
def test_a_percentile_is_right_within_the_error_stated(times: list[int], share: float) -> None:
    spread = Spread(times)
    true = sorted(times)[max(1, math.ceil(share * len(times))) - 1]
    told = spread.percentile(share)
    assert told is not None
    assert abs(told - true) <= ERROR * true
    assert (len(spread), spread.least, spread.greatest) == (len(times), min(times), max(times))


@settings(max_examples=100, deadline=None)
@given(times=TIMES, cut=st.integers(0, 60))
def test_spreads_put_together_are_as_if_one_had_counted_all(times: list[int], cut: int) -> None:
    together = Spread.together([Spread(times[:cut]), Spread(), Spread(times[cut:])])
    whole = Spread(times)
    assert [together.percentile(n / 8) for n in range(9)] == [whole.percentile(n / 8) for n in range(9)]
    assert (len(together), together.least, together.greatest) == (len(whole), whole.least, whole.greatest)


def test_a_spread_of_every_time_there_is_stays_small() -> None:
    spread = Spread(n << shift for shift in range(56) for n in range(128))
    assert len(spread.counts) < 2000


def test_no_times_are_no_percentile_and_a_clock_set_back_is_no_time() -> None:
    spread = Spread([-1])
    assert (len(spread), spread.least, spread.median, spread.greatest) == (0, None, None, None)


# -- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rtt", [0.01, 0.05, 0.4])
@pytest.mark.parametrize("name", ["healthy-idle", "lossy", "key-mismatch", "ota-complete", "duplicates", "offload"])
def test_the_shortest_round_trips_are_those_of_the_network(name: str, rtt: float) -> None:
    told = measured(simulate(name, rtt=rtt))
    to_device, to_server = least(told)[DEVICE], least(told)[SERVER]
    assert to_device == pytest.approx(TO_DEVICE * SECOND, abs=SLACK)
    assert to_server == pytest.approx((rtt - TO_DEVICE) * SECOND, abs=SLACK)
    assert told.path_ns == pytest.approx(rtt * SECOND, abs=2 * SLACK)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_the_capture_lost_never_makes_a_round_trip_too_short(data: st.DataObject) -> None:
    simulation = LOSSY
    lost = data.draw(st.sets(st.integers(0, len(simulation.packets) - 1), max_size=12))
    packets = damage.drop_packets(simulation.packets, lost)
    for sender, shortest in least(measure(judged(simulation, packets).conversations)).items():
        true = TO_DEVICE if sender is DEVICE else 0.05 - TO_DEVICE
        assert shortest is not None
        assert shortest >= true * SECOND - SLACK


LOSSY = simulate("lossy", rtt=0.05)


def trips(segments: list[Segment]) -> dict[Sender, list[int | None]]:
    """How many round trips were measured, and the shortest and the longest."""
    c = listen_to_one(segments).conversation
    return {
        sender: [len(side.round_trips), side.round_trips.least, side.round_trips.greatest]
        for sender, side in c.sides.items()
    }


def a_message(talk: Talk, *, answered_after: int) -> None:
    """The device sends 18 bytes; the server acknowledges them that much later."""
    talk.wait(1000 * MS)
    talk.send(DEVICE, bytes(18), acked=False)
    talk.wait(answered_after - talk.gap_ns)
    talk.packet(SERVER)


def test_a_message_and_its_acknowledgement_are_a_round_trip() -> None:
    talk = Talk(gap_ns=5 * MS).open()
    a_message(talk, answered_after=48 * MS)
    assert trips(talk.segments) == {DEVICE: [1, 5 * MS, 5 * MS], SERVER: [2, 5 * MS, 48 * MS]}


def test_a_repeated_message_gives_no_round_trip() -> None:
    talk = Talk(gap_ns=5 * MS).open()
    talk.send(DEVICE, bytes(18), acked=False)
    talk.wait(300 * MS)
    talk.packet(DEVICE, ACK | PSH, bytes(18), seq=talk.next[DEVICE] - 18)
    talk.packet(SERVER)
    assert trips(talk.segments)[SERVER] == [1, 5 * MS, 5 * MS]  # that of the SYN


def test_neither_does_one_whose_first_copy_was_lost_before_the_capture() -> None:
    talk = Talk(gap_ns=5 * MS).open()
    first = talk.next[DEVICE]
    talk.next[DEVICE] += 18  # not captured
    talk.send(DEVICE, bytes(34), acked=False)
    talk.wait(300 * MS)
    talk.packet(DEVICE, ACK | PSH, bytes(18), seq=first)
    talk.packet(SERVER)
    assert trips(talk.segments)[SERVER] == [1, 5 * MS, 5 * MS]


def test_a_repeated_request_to_connect_gives_no_round_trip() -> None:
    talk = Talk(gap_ns=5 * MS)
    talk.syn()
    talk.wait(1000 * MS)
    talk.syn()
    talk.syn_ack()
    talk.wait(300 * MS)
    talk.syn_ack()
    talk.packet(DEVICE)
    assert trips(talk.segments) == {DEVICE: [0, None, None], SERVER: [0, None, None]}


def test_a_keep_alive_probe_gives_no_round_trip() -> None:
    talk = Talk(gap_ns=5 * MS).open()
    a_message(talk, answered_after=40 * MS)
    before = trips(talk.segments)
    talk.wait(20 * SECOND)
    talk.packet(DEVICE, ACK, b"\0", seq=talk.next[DEVICE] - 1)
    talk.wait(SECOND)
    talk.packet(SERVER)
    assert trips(talk.segments) == before


def test_a_late_acknowledgement_that_was_not_captured_gives_no_round_trip() -> None:
    """The next packet acknowledges as well, but the missing one did so earlier."""
    talk = Talk(gap_ns=5 * MS).open()
    a_message(talk, answered_after=40 * MS)
    before = trips(talk.segments)
    talk.send(DEVICE, bytes(18), acked=False)
    talk.next[SERVER] += 18  # the answer, not captured
    talk.wait(5 * SECOND)
    talk.send(SERVER, bytes(18), acked=False)
    assert trips(talk.segments)[SERVER] == before[SERVER]


def test_bytes_that_were_not_captured_give_no_round_trip() -> None:
    talk = Talk(gap_ns=5 * MS).open()
    talk.send(DEVICE, bytes(18), acked=False)
    talk.next[DEVICE] += 18
    talk.wait(400 * MS)
    talk.packet(SERVER)
    assert trips(talk.segments)[SERVER] == [1, 5 * MS, 5 * MS]


def test_a_damaged_packet_takes_the_round_trip_that_it_may_belong_to() -> None:
    simulation = simulate("damaged-copy")
    told, whole = measured(simulation), measured(simulate("healthy"))
    for sender in Sender:
        assert len(told.round_trips[sender]) < len(whole.round_trips[sender])
    assert least(told) == least(whole)


def test_two_capture_points_give_no_round_trip_of_either() -> None:
    """A packet is first seen at one of them and its answer at the other."""
    told = measured(simulate("two-interfaces"))
    assert told.round_trips == {}
    assert told.path_ns is None


def test_copies_made_at_one_point_change_nothing() -> None:
    talk = healthy()
    doubled = in_order([s for segment in talk.segments for s in (segment, copy_of(segment, later_ns=20_000))])
    assert trips(doubled) == trips(talk.segments)


def tshark(path: Path, *fields: str) -> list[list[str]]:
    """The fields of each packet of the protocol's port, as the real tshark tells them."""
    wanted = [part for field in fields for part in ("-e", field)]
    done = subprocess.run(
        ["tshark", "-n", "-r", str(path), "-Y", "tcp.port == 5683", "-T", "fields", *wanted],
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", SHIPPED)
def test_round_trips_and_repeats_are_those_of_tshark(name: str) -> None:
    """tshark takes one of each acknowledgement, we one of each exchange: few of many may differ, and only upwards."""
    theirs: dict[Sender, list[float]] = defaultdict(list)
    repeats: dict[Sender, int] = defaultdict(int)
    rows = tshark(
        CAPTURES / f"{name}.pcap", "tcp.dstport", "tcp.len", "tcp.analysis.ack_rtt", "tcp.analysis.retransmission"
    )
    for target, length, rtt, repeated in rows:
        sender = DEVICE if target == "5683" else SERVER
        theirs[sender] += [float(rtt)] if rtt else []
        repeats[sender] += bool(repeated) and int(length) > 0
    conversations = verdict(shipped(name)).conversations
    told = measure(conversations)
    for sender in Sender:
        ours = told.round_trips.get(sender)
        assert bool(ours) is bool(theirs[sender])
        if ours is not None and ours.least is not None and ours.median is not None:
            shortest, middle = min(theirs[sender]) * SECOND, sorted(theirs[sender])[(len(theirs[sender]) - 1) // 2]
            assert shortest - SLACK <= ours.least <= shortest + 0.5 * MS
            few = len(ours) < 10  # then one more or less moves the middle
            assert ours.median == pytest.approx(middle * SECOND, rel=0.05, abs=(15 if few else 0.5) * MS)
        counted = told.repeats[sender].segments if sender in told.repeats else 0
        disorder = sum(c.sides[sender].quality.out_of_order + c.sides[sender].quality.copies for c in conversations)
        assert counted <= repeats[sender] <= counted + disorder


# -- repeats -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lossy", "reply-lost", "forgotten", "crash-loop"])
def test_repeats_are_those_that_were_sent_again(name: str) -> None:
    simulation = simulate(name)
    sent_up_to: dict[tuple[int, int], int] = {}
    sent: dict[Sender, int] = defaultdict(int)
    for packet in captured(simulation.packets, simulation.link_type):
        segment = Decoder().decode(packet)
        if isinstance(segment, Segment) and segment.length:
            ports, end = (segment.source_port, segment.target_port), segment.seq + segment.length
            sent[SERVER if segment.source_port == SPARK_PORT else DEVICE] += segment.seq < sent_up_to.get(ports, 0)
            sent_up_to[ports] = max(end, sent_up_to.get(ports, 0))
    conversations = judged(simulation).conversations
    told = measure(conversations).repeats
    for sender in Sender:
        overtaken = sum(c.sides[sender].quality.out_of_order for c in conversations)
        assert told[sender].segments + overtaken == sent[sender]
        assert overtaken <= 2


def test_of_a_direction_that_was_not_captured_no_repeats_are_told() -> None:
    told = measured(simulate("one-way-device"))
    assert set(told.repeats) == {DEVICE}


# -- login, pings, rates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rtt", [0.05, 0.3])
def test_the_steps_of_a_login_take_what_they_were_made_to_take(rtt: float) -> None:
    (c,) = judged(simulate("healthy", rtt=rtt)).conversations
    far = rtt - TO_DEVICE
    assert login_steps(c) == pytest.approx(
        {
            "nonce_wait": (0.006 + far) * SECOND,
            "device_rsa": (0.12 + TO_DEVICE) * SECOND,
            "server_lookup": (0.007 + far) * SECOND,
            "device_decrypt": (0.9 + TO_DEVICE) * SECOND,
            "hello_answered": (0.004 + far) * SECOND,
        },
        abs=SLACK,
    )


def test_only_the_steps_that_the_capture_has_both_ends_of_are_told() -> None:
    simulation = simulate("healthy")
    for label, lost in (
        ("syn", {"nonce_wait"}),
        ("nonce", {"nonce_wait", "device_rsa"}),
        ("identity", {"device_rsa", "server_lookup"}),
        ("offer", {"server_lookup", "device_decrypt", "hello_answered"}),
    ):
        packets = [packet for packet in simulation.packets if packet.label != label]
        (c,) = judged(simulation, packets).conversations
        assert lost.isdisjoint(login_steps(c)), label
    assert login_steps(judged(simulate("mid-session")).conversations[0]) == {}


def test_pings_are_counted_and_timed_without_a_key_as_with_it(tmp_path: Path) -> None:
    simulation = simulate("healthy-idle")
    by_size = measured(simulation).pings
    by_content = measure(play(simulation, key_folder(simulation, tmp_path)).conversations).pings
    assert by_size is not None
    assert by_content is not None
    assert (by_size.exact, by_content.exact) == (False, True)
    assert (by_size.sent, by_size.answered) == (by_content.sent, by_content.answered) == (8, 8)
    for pings in (by_size, by_content):
        assert pings.times.least == pings.times.greatest == pytest.approx(50 * MS, abs=SLACK)


def test_a_slow_answer_to_a_ping_is_seen() -> None:
    pings = measured(simulate("keepalive-slow")).pings
    assert pings is not None
    assert pings.times.greatest == pytest.approx(9.5 * SECOND, abs=100 * MS)


def test_a_ping_without_answer_is_counted_and_not_timed() -> None:
    pings = measured(simulate("keepalive-lost")).pings
    assert pings is not None
    assert pings.sent == pings.answered + 1 == len(pings.times) + 1


def test_rates_are_per_minute_and_events_need_a_key(tmp_path: Path) -> None:
    world = make_world(seed=3)
    c = Played(world, world.add_device(), at=0.0)
    c.handshake()
    for number in range(30):
        exchanges.publish(c, "often" if number % 3 else "rare", "1", after=2.0)
    exchanges.send_event(c, "answer", "2", after=0.1)
    c.close("device", after=1.0)
    simulation = finish(world)
    over = 30 * 2.055 / 60  # minutes
    blind = measured(simulation)
    assert blind.events is None
    assert blind.busiest_event is None
    assert blind.frames[DEVICE].per_minute == pytest.approx(31 / over, rel=0.05)
    told = measure(play(simulation, key_folder(simulation, tmp_path)).conversations)
    assert told.events is not None
    assert told.events[DEVICE].per_minute == pytest.approx(30 / over, rel=0.05)
    assert told.events[SERVER].per_minute == pytest.approx(1 / over, rel=0.05)
    assert told.busiest_event == (DEVICE, "often", 20)


# -- how long sessions last ----------------------------------------------------------------------------------------


def test_sessions_that_the_server_times_out_last_equally_long() -> None:
    told = measured(simulate("timed-out", attempts=6))
    (cluster,) = clusters(told.lengths)
    assert (told.came_up, cluster.count) == (6, 6)
    assert cluster.shortest <= cluster.median <= cluster.longest
    assert cluster.median == pytest.approx(33 * SECOND, rel=0.1)


def test_sessions_without_begin_or_end_in_the_capture_have_no_length() -> None:
    simulation = simulate("healthy-idle")
    end = simulation.packets[-1].time_ns - simulation.packets[0].time_ns
    cut = damage.stop_after(simulation.packets, end / SECOND - 20)
    for told in (measure(judged(simulation, cut).conversations), measured(simulate("mid-session"))):
        assert told.came_up == 1
        assert told.lengths == []


def test_an_odd_length_moves_no_cluster_and_a_continuum_is_none() -> None:
    regular = [round((46 + 0.1 * n) * SECOND) for n in range(-6, 6)]
    odd = [3 * SECOND, 20 * SECOND, 900 * SECOND]
    (cluster,) = clusters(odd + regular)
    assert (cluster.count, cluster.shortest, cluster.longest) == (12, regular[0], regular[-1])
    assert clusters([n * SECOND for n in range(10, 100)]) == []
    assert clusters([5 * SECOND, 5 * SECOND]) == []


@settings(max_examples=200, deadline=None)
@given(lengths=st.lists(st.integers(0, 100) | st.integers(0, 100_000), max_size=60))
def test_clusters_are_narrow_apart_and_never_of_two(lengths: list[int]) -> None:
    times = [length * 100 * MS for length in lengths]
    found = clusters(times)
    for cluster in found:
        inside = [time for time in times if cluster.shortest <= time <= cluster.longest]
        assert len(inside) == cluster.count >= MEMBERS
        assert cluster.median in inside
        near = max(ALIKE_NS, round(ALIKE * cluster.shortest))
        assert cluster.longest - cluster.shortest <= WIDEST * near
        assert not [t for t in times if cluster.longest < t <= cluster.longest + near]
    assert [cluster.count for cluster in found] == sorted((cluster.count for cluster in found), reverse=True)


# -- JSON ----------------------------------------------------------------------------------------------------------


def test_json_has_what_was_measured_in_seconds_with_the_digits_of_the_capture() -> None:
    (c,) = verdict(shipped("healthy-full")).conversations
    told = json.loads(dumps(conversation_json(c, 9)), parse_float=Decimal)
    assert told["rtt_s"]["server"]["min"] == Decimal("0.046124000")
    assert told["rtt_s"]["path"] == told["rtt_s"]["server"]["min"] + told["rtt_s"]["device"]["min"]
    assert list(told["steps_s"]) == ["nonce_wait", "device_rsa", "server_lookup", "device_decrypt", "hello_answered"]
    assert told["retransmitted"]["device"] == {
        "segments": 0, "of_segments": 35, "bytes": 0, "of_bytes": 1684, "share": 0
    }  # fmt: skip
    assert told["pings"]["sent"] == told["pings"]["answered"] == 2
    assert told["pings"]["known_by"] == "size"
    assert told["rates"]["events_per_minute"] is None
    assert "sessions" not in told


def nothing_measured(name: str) -> object:
    return json.loads(dumps(conversation_json(judged(simulate(name)).conversations[0])))


def test_what_a_capture_cannot_tell_is_null() -> None:
    one_way = nothing_measured("one-way-server")
    assert one_way == {
        "rtt_s": {"device": None, "server": None, "path": None},
        "steps_s": {
            "nonce_wait": None,
            "device_rsa": None,
            "server_lookup": None,
            "device_decrypt": None,
            "hello_answered": None,
        },
        "retransmitted": {
            "device": None,
            "server": {"segments": 0, "of_segments": 17, "bytes": 0, "of_bytes": 726, "share": 0},
        },
        "pings": None,
        "rates": {
            "frames_per_minute": {"device": None, "server": pytest.approx(43.6, abs=1)},
            "events_per_minute": None,
            "busiest_event": None,
        },
    }
    blocked = nothing_measured("port-blocked")
    assert isinstance(blocked, dict)
    assert blocked["retransmitted"]["device"]["share"] is None
    assert blocked["retransmitted"]["server"] is None
    gap = nothing_measured("gap")
    assert isinstance(gap, dict)
    assert gap["rates"]["frames_per_minute"] == {"device": None, "server": None}


def test_a_device_has_its_connections_together_and_how_long_they_lasted() -> None:
    trace = judged(simulate("timed-out", attempts=4))
    told = json.loads(dumps(device_json(trace.conversations)))
    each = [json.loads(dumps(conversation_json(c))) for c in trace.conversations]
    assert told["rtt_s"]["server"]["count"] == sum(one["rtt_s"]["server"]["count"] for one in each)
    assert told["rtt_s"]["server"]["min"] == min(one["rtt_s"]["server"]["min"] for one in each)
    assert told["steps_s"]["device_rsa"]["count"] == 4
    assert (told["sessions"]["came_up"], told["sessions"]["measured"]) == (4, 4)
    (cluster,) = told["sessions"]["clusters"]
    assert cluster["count"] == 4
    assert cluster["min"] <= cluster["median"] <= cluster["max"]


@pytest.mark.parametrize("format_", ["json", "jsonl"])
def test_the_documents_have_the_statistics_and_redaction_takes_the_name_of_the_event(
    format_: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--format", format_, "--keys", str(CAPTURES / "keys"), str(CAPTURES / "healthy-full.pcap"))

    def busiest(*more: str) -> object:
        text = shown(capsys, "analyze", *options, *more)
        if format_ == "json":
            return json.loads(text)["conversations"][0]["statistics"]["rates"]["busiest_event"]
        lines = [json.loads(line) for line in text.splitlines()]
        return next(line for line in lines if line["kind"] == "conversation")["statistics"]["rates"]["busiest_event"]

    assert busiest() == {"direction": "device", "name": "burst", "count": 4}
    assert busiest("--redact") == {"direction": "device", "name": "5 characters", "count": 4}


def test_a_key_that_opens_the_session_counts_its_events() -> None:
    told = measure(unlock(shipped("healthy-full"), right_keys("healthy-full")).conversations)
    assert told.events is not None
    assert told.pings is not None
    assert told.pings.exact


# -- for people ------------------------------------------------------------------------------------------------------


def test_the_report_tells_the_figures_in_a_sentence_each() -> None:
    told = figures(judged(simulate("timed-out", attempts=6)).conversations)
    assert told == "Shortest round trip 48 ms to the server, 2.0 ms to the device. All 6 sessions last 32.7 s."
    lossy = figures(judged(LOSSY).conversations)
    assert "41% of the device's packets and 32% of the server's packets repeated." in lossy
    assert figures(judged(simulate("keepalive-lost")).conversations).count("1 of 2 pings answered in 50 ms.") == 1
    assert figures(judged(simulate("keepalive-slow")).conversations).endswith("2 pings answered in 50 ms to 9.5 s.")


def test_sessions_of_various_lengths_are_told_by_the_shortest_and_the_longest() -> None:
    world = make_world(seed=5)
    device, at = world.add_device(), 0.0
    for seconds in (20, 60, 200):
        c = Played(world, device, at=at)
        c.handshake()
        c.close("device", after=seconds)
        at = c.now + 1
    told = figures(judged(world).conversations)
    assert re.search(r"3 sessions last 21\.\d s to 3 min 21 s\.$", told), told


def test_the_report_says_it_before_what_wireshark_shows_and_not_when_quiet(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = shown(capsys, "analyze", str(CAPTURES / "lossy-link.pcap"))
    assert (
        "\nFigures      Shortest round trip 40 ms to the server. 2.9% of the packets\n"
        "             repeated.\nIn Wireshark " in report
    )
    assert "Figures" not in shown(capsys, "analyze", "--quiet", str(CAPTURES / "lossy-link.pcap"))
    assert "Figures" not in text_report(judged(simulate("port-blocked")), "blocked.pcap")


def test_a_round_trip_that_the_drawing_shows_is_not_told_once_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Figures" not in shown(capsys, "analyze", str(CAPTURES / "key-mismatch-retries.pcap"))
    report = shown(capsys, "analyze", str(CAPTURES / "mid-session.pcap"))
    assert "\nFigures      Shortest round trip 40 ms to the server.\n" in report


def test_of_several_devices_the_one_told_of_first_has_its_figures() -> None:
    report = text_report(judged(simulate("two-devices")), "two.pcap")
    assert [line for line in report.splitlines() if line.startswith("Figures")] == [
        "Figures      192.168.1.105: Shortest round trip 48 ms to the server, 2.0 ms to"
    ]


def test_markdown_has_them_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    report = shown(capsys, "analyze", "--format", "markdown", str(CAPTURES / "lossy-link.pcap"))
    assert "- Shortest round trip 40 ms to the server. 2.9% of the packets repeated.\n" in report


def test_the_table_has_a_row_for_each_attempt_and_one_for_all(capsys: pytest.CaptureFixture[str]) -> None:
    report = shown(capsys, "analyze", "--statistics", str(CAPTURES / "two-devices-background.pcap"))
    assert report.endswith(TABLE)
    assert max(map(len, report.splitlines())) <= 80


TABLE = """
Figures of each attempt. Round trips begin and end where the capture was made:
shortest/median. Repeats are a share of the packets with data. Messages per
minute are those of both sides.

       device         lasted  to server  to device  repeats  pings  per min
    1  192.168.1.105   7.1 s   30/32 ms   33/48 µs        0    0/0      214
    2  192.168.1.104   1.6 s      30 ms   41/63 µs        0      –        –
    3  192.168.1.104   1.6 s   30/31 ms   41/46 µs        0      –        –
    4  192.168.1.104   1.6 s   30/31 ms      39 µs        0      –        –
  all                          30/31 ms   33/48 µs        0    0/0      214

Login, step by step, as seen where the capture was made:

       greeting  who I am  reply   hello  hello back
    1     35 ms    0.3 ms  36 ms  0.5 ms       40 ms
    2     32 ms    0.2 ms  37 ms       –           –
    3     33 ms    0.3 ms  34 ms       –           –
    4     31 ms    0.2 ms  34 ms       –           –
  all     32 ms    0.2 ms  34 ms  0.5 ms       40 ms
"""


def test_of_many_attempts_the_table_has_the_first_the_last_and_all() -> None:
    lines = statistics_table(judged(simulate("retries", attempts=40)))
    numbers = [line.split()[0] for line in lines if line.startswith("  ")]
    rows = [*map(str, range(1, 11)), "…", *map(str, range(31, 41)), "all"]
    assert numbers == ["lasted", *rows, "greeting", *rows]
    assert lines[-1] == "… 20 more attempts: --format jsonl lists all"


@pytest.mark.parametrize("name", ["port-blocked", "one-way-device", "coap-tcp"])
def test_the_table_shows_what_is_unknown_as_such(name: str) -> None:
    lines = statistics_table(judged(simulate(name)))
    row = next(line for line in lines if line.split()[:1] == ["1"])
    assert "–" in row
    assert "Login" not in "\n".join(lines)


def test_a_capture_without_connections_has_no_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert statistics_table(judged(simulate("no-spark"))) == []
    path = tmp_path / "none.pcap"
    simulate("no-spark").write(path)
    report = shown(capsys, "analyze", "--statistics", str(path))
    assert report == shown(capsys, "analyze", str(path))


def test_a_device_with_a_long_address_keeps_the_table_narrow() -> None:
    lines = statistics_table(judged(simulate("two-devices", link="ipv6")))
    assert max(map(len, lines)) <= 80
