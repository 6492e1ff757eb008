"""Where the device calls, and what answers around it: SPK101 to SPK106 by names, ARP, ICMP, the device's own test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import pytest
from judging import alarms, captured, codes, judged, shipped, the, unchecked, verdict

from analyzer.capture.packet import Packet as CapturedPacket
from analyzer.catalogue import DEVICE_READ_LIMIT, FALLBACK_ADDRESS
from analyzer.findings import Confidence, Severity
from analyzer.network import Decoder
from analyzer.network.units import Arp, Datagram, IcmpError, Segment, Unit
from analyzer.report.verdict import verdict_of as told
from analyzer.simulate import Conversation, Packet, Simulation, World, damage, exchanges, finish, make_world, simulate
from analyzer.simulate.scenarios.steps import end_well, refused
from analyzer.simulate.wire import Link
from analyzer.trace import Trace

NEW = {"SPK105", "SPK106"}


@cache
def played(name: str) -> Simulation:
    return simulate(name)


def units(story: Simulation) -> list[tuple[Packet, Unit]]:
    decode = Decoder().decode
    return [
        (packet, decode(seen))
        for packet, seen in zip(story.packets, captured(story.packets, story.link_type), strict=True)
    ]


def without(story: Simulation, unwanted: Callable[[Unit], bool]) -> list[Packet]:
    """What a capture holds that lacks some packets."""
    return [packet for packet, unit in units(story) if not unwanted(unit)]


def is_dns_answer(unit: Unit) -> bool:
    return isinstance(unit, Datagram) and unit.source_port == 53


def is_dns(unit: Unit) -> bool:
    return isinstance(unit, Datagram) and 53 in (unit.source_port, unit.target_port)


def is_arp_answer(unit: Unit) -> bool:
    return isinstance(unit, Arp) and unit.operation == 2


def on_port(port: int, story: Simulation | World) -> Trace:
    whole = finish(story) if isinstance(story, World) else story
    return verdict(captured(whole.packets, whole.link_type), ports=(port,))


def first_syn(packets: Sequence[Packet]) -> Packet:
    return next(p for p in packets if p.label == "syn")


# -- SPK105: the name is not found ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "severity", "confidence"),
    [
        ("dns-failed", Severity.MAJOR, Confidence.CERTAIN),
        ("dns-unanswered", Severity.MAJOR, Confidence.STRONG),
        ("dns-fallback-works", Severity.INFO, Confidence.CERTAIN),
    ],
)
def test_a_failed_lookup_and_the_built_in_address(name: str, severity: Severity, confidence: Confidence) -> None:
    trace = judged(played(name))
    finding = the(trace, "SPK105")
    assert (finding.severity, finding.confidence) == (severity, confidence)
    assert finding.details["questions"] == 3
    assert first_number(played(name), "syn") in finding.packets
    assert alarms(trace) == ({"SPK101", "SPK105"} if severity is Severity.MAJOR else set())
    assert ("SPK001" in codes(trace)) == (severity is Severity.INFO)


def first_number(story: Simulation, label: str) -> int:
    return 1 + next(n for n, p in enumerate(story.packets) if p.label == label)


def test_the_built_in_address_alone_proves_nothing() -> None:
    story = played("dns-failed")
    assert codes(judged(story, without(story, is_dns))) == {"SPK101"}
    assert not NEW & codes(verdict(shipped("port-blocked")))


def test_a_lookup_that_is_answered_in_the_end_did_not_fail() -> None:
    assert not NEW & codes(judged(played("dns-second-try")))


def test_answers_that_the_capture_lost_leave_the_questions() -> None:
    story = played("dns-failed")
    finding = the(judged(story, without(story, is_dns_answer)), "SPK105")
    assert finding.confidence is Confidence.STRONG
    assert "not one answer" in finding.evidence[0].text


def questions_kept(story: Simulation, count: int) -> list[Packet]:
    """What a capture holds that lacks all answers and all but some of the questions."""
    asked = [p for p, unit in units(story) if is_dns(unit) and not is_dns_answer(unit)]
    return [p for p in without(story, is_dns_answer) if p not in asked[count:]]


@pytest.mark.parametrize("count", [0, 1])
def test_one_question_without_answer_is_no_failure(count: int) -> None:
    story = played("dns-failed")
    assert "SPK105" not in codes(judged(story, questions_kept(story, count)))


def test_a_question_that_is_captured_twice_was_asked_once() -> None:
    story = played("dns-failed")
    packets = damage.duplicate(questions_kept(story, 1))
    assert "SPK105" not in codes(judged(story, packets))
    assert the(judged(story, damage.duplicate(story.packets)), "SPK105").details["questions"] == 3


@pytest.mark.parametrize("limit", [60, 70])
def test_answers_that_the_capture_cut_are_not_read(limit: int) -> None:
    story = played("dns-failed")
    assert "SPK105" not in codes(judged(story, damage.snaplen(story.packets, limit)))


def test_a_device_that_dials_at_once_got_its_answer() -> None:
    """The capture lost all answers; the name leads to that very address, and the device does not wait."""
    decode, kept = Decoder().decode, list[CapturedPacket]()
    for packet in shipped("two-devices-background"):
        if not is_dns_answer(decode(packet)):
            kept.append(packet)
    trace = verdict(kept)
    assert trace.background.lookups
    assert not NEW & codes(trace)


def test_a_name_that_leads_to_the_built_in_address_explains_it() -> None:
    world = make_world()
    device = world.add_device()
    world.server.host.address = FALLBACK_ADDRESS
    at = world.look_up(device, 0.0)
    for _ in range(3):
        at = world.look_up(device, at + 30.0, answered=False)
    c = Conversation(world, device, at=at + 5.0)
    c.tcp.refuse()
    assert codes(judged(world)) == {"SPK102"}


def test_failed_lookups_long_before_are_another_story() -> None:
    world = make_world()
    device = world.add_device()
    world.server.host.address = FALLBACK_ADDRESS
    for second in range(3):
        world.look_up(device, float(second), found=False)
    c = Conversation(world, device, at=300.0)
    c.tcp.refuse()
    assert codes(judged(world)) == {"SPK102"}


def test_another_machines_failed_lookups_are_not_the_devices() -> None:
    world = make_world()
    device, other = world.add_device(), world.add_device()
    world.server.host.address = FALLBACK_ADDRESS
    for second in range(3):
        world.look_up(other, float(second), found=False)
    Conversation(world, device, at=4.0).tcp.refuse()
    assert codes(judged(world)) == {"SPK102"}


def test_a_capture_that_ends_with_the_request_to_connect_knows_no_harm() -> None:
    story = played("dns-failed")
    syn = first_syn(story.packets)
    trace = judged(story, [p for p in story.packets if p.time_ns <= syn.time_ns])
    assert not alarms(trace)
    assert the(trace, "SPK105").severity is Severity.MINOR


def test_one_direction_makes_missing_answers_less_sure() -> None:
    world = make_world()
    device = world.add_device()
    world.server.host.address = FALLBACK_ADDRESS
    for second in range(3):
        world.look_up(device, 5.0 * second, answered=False)
    c = Conversation(world, device, at=15.0)
    c.handshake()
    exchanges.everyday(c)
    end_well(c)
    story = finish(world)
    trace = judged(story, damage.one_direction(story.packets, "device"))
    assert not alarms(trace)
    finding = the(trace, "SPK105")
    assert finding.confidence is Confidence.LIKELY
    assert the(judged(story), "SPK105").confidence is Confidence.STRONG


@pytest.mark.parametrize(
    ("found", "answered", "fate"),
    [
        (True, True, "and was answered"),
        (False, True, "and was told that there is no such name"),
        (True, False, "and got no answer"),
    ],
)
def test_without_a_connection_the_lookup_is_what_there_is_to_tell(found: bool, answered: bool, fate: str) -> None:
    world = make_world()
    world.look_up(world.add_device(), 0.0, found=found, answered=answered)
    told_of = the(judged(world), "SPK706").evidence
    assert any(f"looked up device.spark.io 1 time (first: packet 1) {fate}" in item.text for item in told_of)


# -- SPK106: nobody there ---------------------------------------------------------------------------------------------


def test_a_router_says_that_nobody_has_the_servers_address() -> None:
    trace = judged(played("server-moved"))
    finding = the(trace, "SPK106")
    assert (finding.severity, finding.confidence, finding.count) == (Severity.MAJOR, Confidence.STRONG, 2)
    assert "192.168.1.50" in finding.summary
    assert "ICMP type 3 code 1" in finding.evidence[0].text
    assert alarms(trace) == {"SPK101", "SPK106"}


@pytest.mark.parametrize(
    ("lost", "confidence"),
    [
        (lambda unit: isinstance(unit, IcmpError), Confidence.STRONG),
        (lambda unit: isinstance(unit, IcmpError) or is_arp_answer(unit), Confidence.LIKELY),
    ],
)
def test_nobody_answers_for_the_servers_address(lost: Callable[[Unit], bool], confidence: Confidence) -> None:
    story = played("server-moved")
    finding = the(judged(story, without(story, lost)), "SPK106")
    assert finding.confidence is confidence
    assert "192.168.1.1 asks 6 times who has 192.168.1.50" in finding.evidence[0].text


@pytest.mark.parametrize(("answered", "code"), [(False, "SPK106"), (True, "SPK101")])
def test_in_an_ipv6_network_neighbours_are_asked_otherwise(answered: bool, code: str) -> None:
    """The same as with ARP: who asks again and again, and gets no answer, where others do."""
    world = make_world(link="ipv6")
    device, server = world.add_device(), world.server.host
    device.host.address, server.address, server.mac = "fd00:1::68", "fd00:1::50", "02:00:00:00:01:32"
    world.router.address = "fd00:1::1"
    world.wire.who_has(0.0, device.host, world.router, answer_after=0.001)
    c = Conversation(world, device, at=0.05)
    c.tcp.syn((1.0, 2.0))
    for number in range(3):
        world.wire.who_has(0.06 + number, device.host, server, answer_after=0.001 if answered else None)
    trace = judged(world)
    assert ("SPK106" in codes(trace)) is (code == "SPK106")
    assert any("neighbour discovery question was answered in 1.0 ms" in e.text for e in the(trace, "SPK101").evidence)
    if not answered:
        finding = the(trace, "SPK106")
        assert finding.confidence is Confidence.STRONG
        assert "asks 3 times who has fd00:1::50 (neighbour discovery, first: packet 4)" in finding.evidence[0].text


def test_without_any_question_for_an_ipv6_neighbour_it_is_not_known_who_has_the_address() -> None:
    story = simulate("server-moved", link="ipv6")
    trace = judged(story, without(story, lambda unit: isinstance(unit, IcmpError | Arp)))
    assert "SPK106" not in codes(trace)
    (item,) = (item for item in trace.not_checked if item.code == "SPK106")
    assert "no neighbour discovery question for it" in item.because


def test_without_arp_it_is_not_known_who_has_the_address() -> None:
    story = played("server-moved")
    trace = judged(story, without(story, lambda unit: isinstance(unit, IcmpError | Arp)))
    assert codes(trace) == {"SPK101"}
    assert "SPK106" in unchecked(trace)


def test_one_arp_question_may_have_had_an_answer() -> None:
    story = played("server-moved")
    asked = [p for p, unit in units(story) if isinstance(unit, Arp) and unit.target == bytes((192, 168, 1, 50))]
    spoilt = [p for p in without(story, lambda unit: isinstance(unit, IcmpError)) if p not in asked[1:]]
    assert codes(judged(story, spoilt)) == {"SPK101"}


@pytest.mark.parametrize("name", ["local-server-blocked", "port-blocked", "blocked-icmp", "refused"])
def test_an_address_that_somebody_has_is_no_wrong_address(name: str) -> None:
    assert not NEW & codes(judged(played(name)))


def test_a_server_that_asks_for_others_lives() -> None:
    world = make_world()
    device, server = world.add_device(), world.server.host
    server.address, server.mac, server.ttl = "192.168.1.50", "02:00:00:00:01:32", 64
    c = Conversation(world, device, at=1.0)
    c.tcp.syn((1.0, 2.0))
    for second in range(3):
        world.wire.who_has(1.5 + second, world.router, server)
    assert "SPK106" in codes(judged(finish(world)))
    world.wire.who_has(5.0, server, world.router)
    assert codes(judged(finish(world))) == {"SPK101"}


def test_arp_questions_of_another_time_say_nothing() -> None:
    world = make_world()
    device, server = world.add_device(), world.server.host
    server.address = "192.168.1.50"
    for second in range(3):
        world.wire.who_has(float(second), world.router, server)
    Conversation(world, device, at=200.0).tcp.syn((1.0, 2.0))
    assert codes(judged(world)) == {"SPK101"}


# -- SPK106: a web server's port --------------------------------------------------------------------------------------


def test_a_device_that_waits_at_a_web_servers_port() -> None:
    story = played("web-port")
    trace = on_port(8080, story)
    finding = the(trace, "SPK106")
    assert (finding.severity, finding.confidence) == (Severity.MAJOR, Confidence.LIKELY)
    assert "port 8080" in finding.summary
    assert alarms(trace) == {"SPK104", "SPK106"}
    without_the_port = the(judged(story), "SPK706")
    assert any("Try: --port 8080" in item.text for item in without_the_port.evidence)


def test_a_device_that_takes_a_web_page_for_a_greeting() -> None:
    world = make_world()
    c = Conversation(world, world.add_device(), at=0.0, server_port=8080)
    c.connect()
    c.tcp.send("server", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", after=0.1)
    c.identity()
    c.close("server", after=1.0)
    trace = on_port(8080, world)
    assert the(trace, "SPK106").confidence is Confidence.STRONG
    assert alarms(trace) == {"SPK103", "SPK106"}


@pytest.mark.parametrize("waited", [5.0, 11.0, 60.0])
def test_who_leaves_sooner_or_later_is_no_device_that_waits(waited: float) -> None:
    world = make_world()
    c = Conversation(world, world.add_device(), at=0.0, server_port=8080)
    c.connect()
    c.close("device", at=waited)
    assert "SPK106" not in codes(on_port(8080, world))


@pytest.mark.parametrize("port", [80, 443, 8080])
def test_a_spark_server_may_listen_wherever_it_likes(port: int) -> None:
    world = make_world()
    c = Conversation(world, world.add_device(), at=0.0, server_port=port)
    c.handshake()
    exchanges.everyday(c)
    end_well(c)
    trace = on_port(port, world)
    assert "SPK001" in codes(trace)
    assert not NEW & codes(trace)


def test_silence_on_the_right_port_is_no_wrong_port() -> None:
    assert codes(judged(played("no-nonce"))) == {"SPK104"}


# -- SPK106: the name leads elsewhere ---------------------------------------------------------------------------------


def test_a_name_that_leads_into_the_local_network() -> None:
    trace = judged(played("name-astray"))
    finding = the(trace, "SPK106")
    assert (finding.severity, finding.confidence) == (Severity.MAJOR, Confidence.LIKELY)
    assert "  nslookup device.spark.io 9.9.9.9" in finding.fix
    assert alarms(trace) == {"SPK101", "SPK106"}


@pytest.mark.parametrize("works", [True, False])
def test_a_spark_server_in_the_local_network_may_have_the_clouds_name(works: bool) -> None:
    world = make_world()
    device = world.add_device()
    world.server.host.address = "192.168.1.50"
    c = Conversation(world, device, at=world.look_up(device, 0.0) + 0.01)
    if works:
        c.handshake()
        exchanges.everyday(c)
        end_well(c)
    else:
        c.connect()
        c.nonce()
        c.identity()
        refused(c, "decryption failed")
    assert "SPK106" not in codes(judged(world))


def test_a_device_that_dials_another_address_than_it_looked_up() -> None:
    trace = judged(played("other-than-looked-up"))
    finding = the(trace, "SPK106")
    assert (finding.severity, finding.confidence) == (Severity.MAJOR, Confidence.LIKELY)
    assert "198.51.100.20" in finding.summary
    assert "198.51.100.77" in finding.summary


def test_an_address_that_was_looked_up_before_is_not_another_one() -> None:
    world = make_world()
    device = world.add_device()
    world.look_up(device, 0.0)
    c = Conversation(world, device, at=world.look_up(device, 5.0, address="198.51.100.77") + 0.01)
    c.tcp.syn((1.0, 2.0))
    assert codes(judged(world)) == {"SPK101"}


def test_whose_lookup_it_was_is_not_known_behind_a_router() -> None:
    world = make_world()
    device = world.add_device()
    device.host.address = "203.0.113.9"
    c = Conversation(world, device, at=world.look_up(device, 0.0, address="198.51.100.77") + 0.01)
    c.tcp.syn((1.0, 2.0))
    assert codes(judged(world)) == {"SPK101"}


@pytest.mark.parametrize("link", ["vlan", "sll", "raw", "null", "ipv6"])
@pytest.mark.parametrize("name", ["name-astray", "other-than-looked-up"])
def test_it_is_told_on_every_kind_of_link(name: str, link: Link) -> None:
    assert "SPK106" in codes(judged(simulate(name, link=link)))


# -- SPK101 and SPK104: what else the device was answered -------------------------------------------------------------


def lone_syn(*, look_up: bool) -> Trace:
    world = make_world()
    device = world.add_device()
    at = world.look_up(device, 0.0) if look_up else 0.0
    Conversation(world, device, at=at + 0.01).tcp.syn()
    other = world.add_device()
    world.wire.udp(at + 4.0, other.host, world.router, ports=(50_000, 9), payload=b"later")
    return judged(world)


def test_one_unanswered_request_counts_for_more_when_the_network_works() -> None:
    assert the(lone_syn(look_up=False), "SPK101").confidence is Confidence.LIKELY
    finding = the(lone_syn(look_up=True), "SPK101")
    assert finding.confidence is Confidence.STRONG
    assert any("name lookup" in item.text for item in finding.evidence)


def test_a_device_whose_test_of_the_internet_works_is_blocked() -> None:
    finding = the(judged(played("cloud-unreachable")), "SPK101")
    assert any("8.8.8.8:53, is accepted" in item.text for item in finding.evidence)
    assert "drops TCP port 5683" in finding.because


def test_a_device_whose_test_fails_as_well_has_no_internet() -> None:
    finding = the(judged(played("no-internet")), "SPK101")
    assert "no way to the internet" in finding.because
    assert any("8 requests" in item.text or "4 requests" in item.text for item in finding.evidence)


def test_a_test_that_the_capture_does_not_see_the_end_of_says_nothing() -> None:
    story = played("no-internet")
    probe = next(p for p, unit in units(story) if isinstance(unit, Segment) and unit.target_port == 53)
    finding = the(judged(story, [p for p in story.packets if p.time_ns <= probe.time_ns]), "SPK101")
    assert "drops TCP port 5683" in finding.because
    assert not any("8.8.8.8" in item.text for item in finding.evidence)


def accepted(distance: float, ttl: int) -> Trace:
    world = make_world(rtt=0.05)
    device = world.add_device()
    world.server.host.distance, world.server.host.ttl = distance, ttl
    c = Conversation(world, device, at=0.0)
    c.connect()
    c.close("device", at=DEVICE_READ_LIMIT + 0.1)
    return judged(world)


@pytest.mark.parametrize(
    ("distance", "ttl", "proxy"), [(0.001, 64, True), (0.03, 64, False), (0.001, 63, False), (0.05, 52, False)]
)
def test_who_accepts_next_door_is_no_server_far_away(distance: float, ttl: int, proxy: bool) -> None:
    finding = the(accepted(distance, ttl), "SPK104")
    assert any("answers for 198.51.100.20" in item.text for item in finding.evidence) == proxy


# -- what a person reads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sentence", "step"),
    [
        ("server-moved", "at which no machine answers", "  particle keys address"),
        ("dns-failed", "could not look up the cloud's name", "  nslookup device.spark.io"),
        ("port-blocked", "No key can cause this.", "On a computer in the same Wi-Fi:  nc -vz 198.51.100.20 5683"),
    ],
)
def test_the_cause_is_told_and_mended_with_the_failure(name: str, sentence: str, step: str) -> None:
    said = told(judged(played(name)))
    place = said.sentence.index("Nothing answers at ")
    assert (said.sentence.index(sentence) < place) is (name != "port-blocked"), "the cause comes first"
    assert sentence in said.sentence
    assert step in said.steps


def test_a_session_that_works_stays_a_working_one() -> None:
    said = told(judged(played("dns-fallback-works")))
    assert said.state == "WORKING"


def test_who_dials_anew_without_repeating_itself_may_have_been_refused() -> None:
    """SPK102 in a capture without the server's packets, but with the answers of the router to name lookups."""
    story = simulate("refused", firmware="photon-3", attempts=8)
    one_sided = [packet for packet in story.packets if packet.sender != "server"]
    assert the(judged(story, one_sided), "SPK101").confidence is Confidence.LIKELY
    assert the(judged(simulate("port-blocked")), "SPK101").confidence is Confidence.STRONG
