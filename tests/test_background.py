"""What else is in a capture: names looked up, questions, complaints, announcements, and connections of our shape."""

from __future__ import annotations

import random
import struct
from dataclasses import replace

import dpkt.dns
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tcp_talk import DEVICE, DEVICE_END, SERVER, SERVER_END, Talk

from analyzer.background import (
    ANSWERS,
    COMPLAINTS,
    JOINS,
    LOOKUP_PACKETS,
    LOOKUPS,
    MACHINES,
    MIDWAY_SEGMENTS,
    PORTS,
    PROBES,
    QUESTIONS,
    Background,
)
from analyzer.catalogue import PRESENCE_PREFIX
from analyzer.network.units import FIN, Arp, Datagram, IcmpError, Other, Segment
from analyzer.streams import Sender

DEVICE_IP, SERVER_IP = DEVICE_END[0], SERVER_END[0]
ROUTER_IP = bytes((192, 168, 1, 1))
MAC = bytes.fromhex("6c0b841f720d")


def datagram(payload: bytes, *, source: int = 5000, target: int = 53, number: int = 1, back: bool = False) -> Datagram:
    ends = [(DEVICE_IP, source), (ROUTER_IP, target)]
    near, far = reversed(ends) if back else ends
    return Datagram(number, 1000 * number, near[0], near[1], far[0], far[1], len(payload), payload, MAC)


def question(name: str) -> bytes:
    return bytes(dpkt.dns.DNS(qd=[dpkt.dns.DNS.Q(name=name)]))


def answer(name: str, *addresses: bytes, code: int = 0) -> bytes:
    records = [dpkt.dns.DNS.RR(name=name, type=dpkt.dns.DNS_A, rdata=address) for address in addresses]
    message = dpkt.dns.DNS(qr=dpkt.dns.DNS_R, qd=[dpkt.dns.DNS.Q(name=name)], an=records)
    message.rcode = code
    return bytes(message)


def arp(operation: int, sender: bytes, target: bytes, number: int = 1) -> Arp:
    return Arp(number, 1000 * number, operation, MAC, sender, target)


def complaint(number: int = 1) -> IcmpError:
    return IcmpError(number, 1000 * number, ROUTER_IP, 4, 3, 13, DEVICE_IP, 1988, SERVER_IP, 5683)


def see(segments: list[Segment]) -> Background:
    return see_into(Background(), segments)


def see_into(background: Background, segments: list[Segment]) -> Background:
    for segment in segments:
        background.take(segment)
    return background


# --- Names and neighbours --------------------------------------------------------------------------------------


def test_lookups_of_the_cloud_are_remembered_with_their_answers() -> None:
    background = Background()
    name = "device.spark.io"
    background.take(datagram(question(name), number=4))
    background.take(datagram(question(name), number=5))
    background.take(datagram(answer(name, SERVER_IP), number=6, back=True))
    background.take(datagram(question("www.example.org"), number=7))
    [lookup] = background.lookups.values()
    assert (lookup.asker, lookup.name, lookup.first_packet) == ("192.168.1.104", name, 4)
    assert (lookup.asked, lookup.answered, lookup.failed) == (2, 1, 0)
    assert [(p.packet, p.time_ns, p.found) for p in lookup.packets] == [
        (4, 4000, None),
        (5, 5000, None),
        (6, 6000, ("54.208.229.4",)),
    ]
    assert lookup.complete
    assert background.kinds["DNS"] == 4


def test_a_lookup_that_fails_is_one() -> None:
    background = Background()
    background.take(datagram(question("device.particle.io")))
    background.take(datagram(answer("device.particle.io", code=3), back=True))
    [lookup] = background.lookups.values()
    assert (lookup.asked, lookup.answered, lookup.failed) == (1, 0, 1)
    assert [p.found for p in lookup.packets] == [None, ()]


def test_a_name_without_an_ipv6_address_is_no_failure() -> None:
    background = Background()
    record = dpkt.dns.DNS.Q(name="device.spark.io", type=dpkt.dns.DNS_AAAA)
    background.take(datagram(bytes(dpkt.dns.DNS(qr=dpkt.dns.DNS_R, qd=[record])), back=True))
    [lookup] = background.lookups.values()
    assert lookup.failed == 0
    assert [(p.kind, p.found) for p in lookup.packets] == [("AAAA", ())]


@pytest.mark.parametrize("spoil", ["cut", "truncated", "broken"])
def test_an_answer_that_is_not_all_there_is_neither_found_nor_failed(spoil: str) -> None:
    whole = answer("device.spark.io", SERVER_IP)
    unit = datagram(whole, back=True)
    if spoil == "cut":
        unit = replace(unit, payload=whole[:-6])
    elif spoil == "truncated":
        unit = replace(unit, payload=whole[:2] + bytes([whole[2] | 2]) + whole[3:])
    else:
        unit = datagram(whole[:6] + b"\x00\x09" + whole[8:], back=True)
    background = Background()
    background.take(unit)
    [lookup] = background.lookups.values()
    assert (lookup.answered, lookup.failed) == (0, 0)
    assert [(p.found, p.unread) for p in lookup.packets] == [(None, True)]


@pytest.mark.parametrize("name", ["de\x1bvice.spark.io", "spark.io.example", "x spark.io"])
def test_names_that_are_none_of_the_clouds_are_left_alone(name: str) -> None:
    background = Background()
    background.take(datagram(question(name)))
    assert not background.lookups


def over_tcp(payload: bytes, *, back: bool = False, size: int | None = None, number: int = 1) -> Segment:
    """A DNS message behind its length, in one segment."""
    talk = Talk(device_end=(DEVICE_IP, 5000), server_end=(ROUTER_IP, 53))
    sender = SERVER if back else DEVICE
    talk.send(sender, (len(payload) if size is None else size).to_bytes(2, "big") + payload)
    return replace(next(s for s in talk.segments if s.length), number=number, time_ns=1000 * number)


def test_lookups_over_tcp_are_read_where_one_segment_holds_a_message_whole() -> None:
    background = Background()
    background.take(over_tcp(question("device.spark.io"), number=4))
    background.take(over_tcp(answer("device.spark.io", SERVER_IP), back=True, number=6))
    [lookup] = background.lookups.values()
    assert (lookup.asker, lookup.asked, lookup.answered) == ("192.168.1.104", 1, 1)
    assert [(p.packet, p.found) for p in lookup.packets] == [(4, None), (6, ("54.208.229.4",))]
    assert [a.packet for a in background.resolved[DEVICE_IP]] == [6]
    assert background.kinds["TCP"] == 2


def test_a_message_in_several_segments_or_cut_is_left_unread() -> None:
    whole = answer("device.spark.io", SERVER_IP)
    background = Background()
    background.take(over_tcp(whole[:30], back=True, size=len(whole)))
    cut = over_tcp(whole, back=True)
    background.take(replace(cut, payload=cut.payload[:40]))
    background.take(over_tcp(b"", back=True))
    background.take(over_tcp(whole[:11], back=True))
    assert not background.lookups
    assert not background.resolved


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=90), st.booleans(), st.booleans())
def test_any_bytes_on_the_dns_port_over_tcp_are_survived(payload: bytes, back: bool, right: bool) -> None:
    background = Background()
    background.take(over_tcp(payload, back=back, size=len(payload) if right else len(payload) ^ 1))
    assert background.kinds["TCP"] == 1
    assert len(background.lookups) <= 1


def test_names_that_somebody_asks_about_are_remembered_like_the_clouds() -> None:
    background = Background(["my.server"])
    for name in ("My.Server", "device.spark.io", "other.server", "not.my.server"):
        background.take(datagram(question(name)))
    assert [lookup.name for lookup in background.lookups.values()] == ["my.server", "device.spark.io"]


# --- Who asks for an address -----------------------------------------------------------------------------------


def dhcp(mac: bytes = MAC, *, own: bytes = bytes(4), back: bool = False) -> bytes:
    """A client's DISCOVER, or with ``own`` its request for more time with the address it has."""
    head = bytes((2 if back else 1, 1, 6, 0)) + bytes(8) + own + bytes(12) + mac.ljust(16, b"\x00") + bytes(192)
    return head + bytes((99, 130, 83, 99)) + b"\x35\x01\x01\xff"


def asks_for_an_address(payload: bytes, number: int = 1) -> Datagram:
    return datagram(payload, source=68, target=67, number=number)


def test_who_asks_for_an_address_is_remembered_but_not_who_keeps_one() -> None:
    background = Background()
    background.take(asks_for_an_address(dhcp(), number=3))
    background.take(asks_for_an_address(dhcp(own=DEVICE_IP), number=4))
    background.take(asks_for_an_address(dhcp(back=True), number=5))
    background.take(asks_for_an_address(dhcp()[:200], number=6))
    background.take(asks_for_an_address(dhcp(), number=7))
    assert background.joined == {MAC: [(3, 3000), (7, 7000)]}
    assert background.kinds["UDP"] == 5


def test_no_number_of_machines_that_ask_for_an_address_grows_without_bound() -> None:
    background = Background()
    for number in range(MACHINES + 3):
        background.take(asks_for_an_address(dhcp(number.to_bytes(6, "big"))))
    for number in range(JOINS + 3):
        background.take(asks_for_an_address(dhcp(bytes(6)), number=number + 1))
    assert len(background.joined) == MACHINES
    assert len(background.joined[bytes(6)]) == JOINS


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 300))
def test_any_damage_to_a_question_for_an_address_is_survived(seed: int, size: int) -> None:
    rng = random.Random(seed)
    whole = bytearray(dhcp())
    for _ in range(rng.randint(0, 6)):
        whole[rng.randrange(len(whole))] = rng.randrange(256)
    background = Background()
    background.take(asks_for_an_address(bytes(whole[:size])))
    assert all(len(mac) == 6 for mac in background.joined)


def test_what_else_a_machine_is_answered_is_remembered_now_and_then() -> None:
    background = Background()
    for second in (0, 1, 9, 10, 11, 25):
        unit = datagram(answer("www.example.org", SERVER_IP), number=second + 1, back=True)
        background.take(replace(unit, time_ns=second * 10**9))
    assert [a.packet for a in background.resolved[DEVICE_IP]] == [1, 11, 26]
    background.take(elsewhere(80).syn())
    assert not background.connected
    see_into(background, elsewhere(80).open().segments)
    [accepted] = background.connected[DEVICE_IP]
    assert (accepted.source, accepted.port) == (SERVER_IP, 80)


def test_a_devices_tests_of_the_internet_are_remembered() -> None:
    talk = Talk(server_end=(bytes((8, 8, 8, 8)), 53), device_end=(DEVICE_IP, 50_000))
    background = see([talk.syn(), talk.syn(), elsewhere(53).syn()])
    assert [packet for packet, _ in background.probes[DEVICE_IP]] == [talk.segments[0].number, talk.segments[1].number]


@pytest.mark.parametrize(
    ("port", "waited", "says", "counted"),
    [
        (8080, 20.0, None, True),
        (80, 20.1, None, True),
        (8081, 20.0, None, False),
        (8080, 5.0, None, False),
        (8080, 60.0, None, False),
        (8080, 20.0, DEVICE, False),
        (8080, 20.0, SERVER, False),
    ],
)
def test_a_device_that_waits_at_a_web_server_is_noticed(
    port: int, waited: float, says: Sender | None, counted: bool
) -> None:
    background = Background()
    for seed in (1, 2):
        talk = elsewhere(port, seed).open()
        if says is not None:
            talk.send(says, b"GET / HTTP/1.0")
        talk.close()
        last = next(s for s in talk.segments if s.flags & FIN)
        late = [replace(s, time_ns=s.time_ns + round(waited * 1e9) * (s.number >= last.number)) for s in talk.segments]
        see_into(background, late)
    assert {p: m.count for p, m in background.mute.items()} == ({port: 2} if counted else {})


def test_questions_who_has_an_address_and_their_answers() -> None:
    background = Background()
    for number in (1, 2):
        background.take(arp(1, DEVICE_IP, ROUTER_IP, number))
    background.take(arp(1, DEVICE_IP, SERVER_IP, 3))
    background.take(arp(2, ROUTER_IP, DEVICE_IP, 4))
    answered, open_one = background.questions.values()
    assert (answered.packet, answered.tries, answered.answer_packet, answered.answer_ns) == (1, 2, 4, 4000)
    assert (open_one.target, open_one.tries, open_one.answer_packet) == (SERVER_IP, 1, None)


@pytest.mark.parametrize(("gap", "insisted"), [(1.0, 2), (4.0, 2), (0.01, 0), (30.0, 0)])
def test_who_asks_again_soon_has_got_no_answer(gap: float, insisted: int) -> None:
    background = Background()
    for number in range(3):
        background.take(replace(arp(1, ROUTER_IP, SERVER_IP, number + 1), time_ns=round(number * gap * 1e9)))
    [asked] = background.questions.values()
    assert (asked.tries, asked.insisted) == (3, insisted)


def test_an_announcement_tells_the_device_id() -> None:
    background = Background()
    device_id = bytes.fromhex("48ff6d06507b573081350e87")
    background.take(datagram(PRESENCE_PREFIX + device_id, target=5683, number=9))
    background.take(datagram(PRESENCE_PREFIX + device_id[:-1], target=5683))
    announcement = background.announcements[DEVICE_IP]
    assert (announcement.packet, announcement.mac, announcement.device_id) == (9, MAC, device_id.hex())
    assert len(background.announcements) == 1


@pytest.mark.parametrize(
    ("payload", "port", "coap", "dtls"),
    [
        (b"\x40\x01\x00\x01", 5683, 1, 0),
        (b"\x4f\x01\x00\x01", 5683, 0, 0),
        (b"\x80\x01\x00\x01", 5683, 0, 0),
        (b"", 5683, 0, 0),
        (b"\x16\xfe\xfd", 5684, 0, 1),
        (b"\x40\x01\x00\x01", 7000, 0, 0),
    ],
)
def test_later_devices_and_genuine_coap_are_counted(payload: bytes, port: int, coap: int, dtls: int) -> None:
    background = Background()
    background.take(datagram(payload, target=port, number=3))
    background.take(datagram(payload, target=port, number=4))
    assert (background.coap_datagrams, background.dtls_datagrams) == (2 * coap, 2 * dtls)
    assert background.first_coap_datagram == (3 if coap else None)
    assert background.first_dtls_datagram == (3 if dtls else None)


# --- Connections on other ports ----------------------------------------------------------------------------------


def elsewhere(port: int = 8001, seed: int = 1) -> Talk:
    return Talk(seed=seed, server_end=(SERVER_IP, port), device_end=(DEVICE_IP, 49_152 + seed))


def test_a_connection_of_our_shape_on_another_port_is_noticed() -> None:
    segments = elsewhere().open().handshake().hello().close().segments
    segments += elsewhere(seed=2).open().handshake().segments
    background = see(segments)
    [found] = background.lookalikes.values()
    assert (found.port, found.first_packet, found.count) == (8001, 1, 2)
    assert background.tcp_connections == {8001: 2}


def test_a_session_already_under_way_on_another_port_is_noticed() -> None:
    talk = elsewhere()
    for _ in range(MIDWAY_SEGMENTS):
        talk.send_frames(SERVER, 1)
        talk.send_frames(DEVICE, 2)
    assert list(see(talk.segments).lookalikes) == [8001]
    assert not see(talk.segments[: 2 * MIDWAY_SEGMENTS - 4]).lookalikes


@pytest.mark.parametrize("said", [(39,), (40, 255), (100,), ()])
def test_other_connections_are_only_counted(said: tuple[int, ...]) -> None:
    talk = elsewhere().open()
    for sender, size in zip((SERVER, DEVICE), said, strict=False):
        talk.send(sender, talk.rng.randbytes(size))
    talk.send(DEVICE, talk.rng.randbytes(256))
    background = see(talk.segments)
    assert not background.lookalikes
    assert background.tcp_connections == {8001: 1}
    assert background.kinds["TCP"] == len(talk.segments)


def test_a_client_that_speaks_first_has_not_our_shape() -> None:
    talk = elsewhere().open()
    talk.send(DEVICE, talk.rng.randbytes(40))
    talk.send(SERVER, talk.rng.randbytes(256))
    assert not see(talk.segments).lookalikes


# --- Bounds, and whatever comes ----------------------------------------------------------------------------------


def test_everything_remembered_is_bounded() -> None:
    background = Background()
    rng = random.Random(1)
    for number in range(1, 1500):
        background.take(datagram(question(f"{number}.spark.io"), number=number))
        background.take(complaint(number))
        background.take(arp(1, DEVICE_IP, rng.randbytes(4), number))
        background.take(elsewhere(port=2000 + number).syn())
    assert len(background.lookups) == LOOKUPS
    assert len(background.complaints) == COMPLAINTS
    assert len(background.questions) == QUESTIONS
    assert len(background.tcp_connections) == PORTS
    assert len(background.tcp_packets) == PORTS
    assert background.packets == 4 * 1499
    assert background.kinds["ICMP"] == 1499


def test_what_is_kept_of_each_name_and_machine_is_bounded() -> None:
    background = Background()
    name, far = "device.spark.io", bytes((8, 8, 8, 8))
    asked = question(name)
    for number in range(1, LOOKUP_PACKETS + 3):
        background.take(datagram(asked, number=number))
    [lookup] = background.lookups.values()
    assert (lookup.asked, len(lookup.packets), lookup.complete) == (LOOKUP_PACKETS + 2, LOOKUP_PACKETS, False)
    said = answer("www.example.org", SERVER_IP)
    for number in range(1, MACHINES + 10):
        unit = datagram(said, number=number, back=True)
        background.take(replace(unit, target=number.to_bytes(4, "big"), time_ns=0))
        background.take(replace(unit, target=(1).to_bytes(4, "big"), time_ns=number * 10**11))
    assert len(background.resolved) == MACHINES
    assert max(map(len, background.resolved.values())) == ANSWERS
    talk = Talk(server_end=(far, 53), device_end=(DEVICE_IP, 50_000))
    see_into(background, [talk.syn() for _ in range(PROBES + 5)])
    assert len(background.probes[DEVICE_IP]) == PROBES


def test_packets_of_no_known_kind_are_counted_by_kind() -> None:
    background = Background()
    for kind in ("encrypted-wifi", "encrypted-wifi", "non-ip"):
        background.take(Other(1, 1, kind))
    assert background.kinds == {"encrypted-wifi": 2, "non-ip": 1}


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(st.binary(max_size=80), st.binary(max_size=60).map(lambda data: data + b"\x05spark\x02io\x00\x00\x01")),
    st.sampled_from((53, 5683, 5684, 9)),
    st.booleans(),
)
def test_any_datagram_is_counted_once(payload: bytes, port: int, back: bool) -> None:
    background = Background()
    background.take(datagram(payload, target=port, back=back))
    assert background.packets == sum(background.kinds.values()) == 1


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 60))
def test_any_damage_to_a_dns_answer_is_survived(seed: int, size: int) -> None:
    rng = random.Random(seed)
    whole = bytearray(answer("device.spark.io", SERVER_IP, ROUTER_IP))
    for _ in range(rng.randint(0, 4)):
        whole[rng.randrange(len(whole))] = rng.choice((0, 0xC0, 0xFF, rng.randrange(256)))
    background = Background()
    background.take(datagram(bytes(whole[: len(whole) - min(size, rng.randint(0, 60))]), back=True))
    assert all(
        isinstance(ip, str) for lookup in background.lookups.values() for p in lookup.packets for ip in p.found or ()
    )


def test_a_name_that_points_at_itself_ends() -> None:
    header = struct.pack("!6H", 1, 0x8180, 1, 1, 0, 0)
    loop = header + b"\x05spark\x02io\xc0\x0c\x00\x01\x00\x01" + b"\xc0\x14\x00\x01\x00\x01" + bytes(10)
    background = Background()
    background.take(datagram(loop, back=True))
    assert background.kinds["DNS"] == 1
