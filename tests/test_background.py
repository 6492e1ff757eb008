"""What else is in a capture: names looked up, questions, complaints, announcements, and connections of our shape."""

from __future__ import annotations

import random
import struct

import dpkt.dns
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tcp_talk import DEVICE, DEVICE_END, SERVER, SERVER_END, Talk

from analyzer.background import COMPLAINTS, LOOKUPS, MIDWAY_SEGMENTS, PORTS, QUESTIONS, Background
from analyzer.catalogue import PRESENCE_PREFIX
from analyzer.network.units import Arp, Datagram, IcmpError, Other, Segment

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
    background = Background()
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
    assert lookup.addresses == {"54.208.229.4"}
    assert lookup.questions_ns == [4000, 5000]
    assert background.kinds["DNS"] == 4


def test_a_lookup_that_fails_is_one() -> None:
    background = Background()
    background.take(datagram(question("device.particle.io")))
    background.take(datagram(answer("device.particle.io", code=3), back=True))
    [lookup] = background.lookups.values()
    assert (lookup.asked, lookup.answered, lookup.failed) == (1, 0, 1)


def test_questions_who_has_an_address_and_their_answers() -> None:
    background = Background()
    for number in (1, 2):
        background.take(arp(1, DEVICE_IP, ROUTER_IP, number))
    background.take(arp(1, DEVICE_IP, SERVER_IP, 3))
    background.take(arp(2, ROUTER_IP, DEVICE_IP, 4))
    answered, open_one = background.questions.values()
    assert (answered.packet, answered.tries, answered.answer_packet, answered.answer_ns) == (1, 2, 4, 4000)
    assert (open_one.target, open_one.tries, open_one.answer_packet) == (SERVER_IP, 1, None)


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
    assert all(isinstance(ip, str) for lookup in background.lookups.values() for ip in lookup.addresses)


def test_a_name_that_points_at_itself_ends() -> None:
    header = struct.pack("!6H", 1, 0x8180, 1, 1, 0, 0)
    loop = header + b"\x05spark\x02io\xc0\x0c\x00\x01\x00\x01" + b"\xc0\x14\x00\x01\x00\x01" + bytes(10)
    background = Background()
    background.take(datagram(loop, back=True))
    assert background.kinds["DNS"] == 1
