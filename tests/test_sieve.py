"""What is held back before it is decoded must make no difference to anything but the time."""

from __future__ import annotations

import random
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from capture_files import START, enhanced, interface, pcap, pcap_header, record, section
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.background import HEARD_PORTS
from analyzer.capture import Capture, Packet
from analyzer.capture.skips import ETHERNET
from analyzer.network import Decoder
from analyzer.network.sieve import MOST_CONNECTIONS, Sieve
from analyzer.network.units import ACK, FIN, PSH, RST, SYN, Datagram, Segment
from analyzer.pipeline import Analysis, analyze
from analyzer.report.jsonreport import json_text
from analyzer.simulate import simulate

CAPTURES = sorted(Path("captures").glob("*.pcap*"))
DEVICE, SERVER = bytes((192, 168, 1, 104)), bytes((198, 51, 100, 20))
DEVICE_6, SERVER_6 = bytes.fromhex("20010db8") + bytes(11) + b"\x04", bytes.fromhex("20010db8") + bytes(11) + b"\x14"
MAC = bytes.fromhex("020000000001")


def ipv4(protocol: int, body: bytes, *, backwards: bool = False, total: int = 0, fragment: int = 0) -> bytes:
    """A header without options."""
    total = total or 20 + len(body)
    source, target = (SERVER, DEVICE) if backwards else (DEVICE, SERVER)
    header = bytes((0x45, 0)) + total.to_bytes(2) + bytes(2) + fragment.to_bytes(2) + bytes((64, protocol, 0, 0))
    return header + source + target + body


def ipv6(protocol: int, body: bytes, *, backwards: bool = False, total: int = 0, fragment: int = 0) -> bytes:
    """A header, with a fragment header behind it for what IPv4 would call a fragment."""
    fragment &= 0x3FFF
    if fragment:
        body = bytes((protocol, 0, fragment >> 8, 9)) + bytes(4) + body
    source, target = (SERVER_6, DEVICE_6) if backwards else (DEVICE_6, SERVER_6)
    length = (total or len(body)).to_bytes(2)
    return b"\x60\0\0\0" + length + bytes((44 if fragment else protocol, 64)) + source + target + body


def kind_of(packet: bytes) -> bytes:
    return b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00"


def ethernet(packet: bytes) -> bytes:
    return MAC + MAC + kind_of(packet) + packet


def tagged(packet: bytes) -> bytes:
    return MAC + MAC + b"\x81\x00\x00\x07" + kind_of(packet) + packet


def twice_tagged(packet: bytes) -> bytes:
    return MAC + MAC + b"\x88\xa8\x00\x09\x81\x00\x00\x07" + kind_of(packet) + packet


def cooked(packet: bytes) -> bytes:
    return b"\0\0\0\x01\0\x06" + MAC + b"\0\0" + kind_of(packet) + packet


def cooked_2(packet: bytes) -> bytes:
    return kind_of(packet) + b"\0\0\0\0\0\x02\0\x01\0\x06" + MAC + b"\0\0" + packet


def bare(packet: bytes) -> bytes:
    return packet


LINKS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "ethernet": (1, ethernet),
    "tagged": (1, tagged),
    "twice tagged": (1, twice_tagged),
    "cooked": (113, cooked),
    "cooked 2": (276, cooked_2),
    "raw": (101, bare),
    "raw 4 or 6": (228, bare),
}


def tcp(source_port: int, target_port: int, payload: bytes = b"", *, flags: int = ACK, offset: int = 5) -> bytes:
    """A TCP header with its payload."""
    ports = source_port.to_bytes(2) + target_port.to_bytes(2)
    return ports + bytes(8) + bytes((offset << 4, flags)) + bytes(6) + payload


def udp(source_port: int, target_port: int, payload: bytes = bytes(20), size: int | None = None) -> bytes:
    """A UDP header with its payload."""
    ports = source_port.to_bytes(2) + target_port.to_bytes(2)
    return ports + (8 + len(payload) if size is None else size).to_bytes(2) + bytes(2) + payload


def capture_of(
    frames: list[bytes], link_type: int, kind: str, order: str, *, cut: int = 1 << 20, step: int = 1
) -> bytes:
    """A file of them, each cut to so many bytes; one each ``step`` seconds, less than 0 for falling times."""
    times = [START + 10_000 + i * step for i in range(len(frames))]
    if kind == "pcap":
        return pcap_header(order, link_type=link_type) + b"".join(
            record(frame[:cut], time, 7, len(frame), order) for frame, time in zip(frames, times, strict=True)
        )
    return b"".join(
        [
            section(order),
            interface(order, link_type=link_type),
            *(
                enhanced(frame[:cut], time * 1_000_000 + 7, original=len(frame), order=order)
                for frame, time in zip(frames, times, strict=True)
            ),
        ]
    )


def known(path: Path | str, *, sieved: bool) -> tuple[list[Any], str]:
    """Everything that an analysis knows of other traffic, and its report."""
    if sieved:
        trace = analyze(path)
    else:
        capture, analysis = Capture([path]), Analysis()
        analysis.trace.captures = capture.files
        for packet in capture:
            analysis.take(packet)
        analysis.trace.warnings = list(capture.warnings)
        trace = analysis.finish()
    told = {name: value for name, value in vars(trace.background).items() if name != "_sieve"}
    of_the_whole = [trace.packets, trace.first_ns, trace.last_ns, trace.link_types, trace.unknown_links, trace.warnings]
    return [told, of_the_whole], "".join(json_text(trace))


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_a_shipped_capture_gives_the_same_with_and_without(path: Path) -> None:
    assert known(path, sieved=True) == known(path, sieved=False)


@pytest.mark.parametrize("name", ["background", "no-spark", "other-port", "web-port", "port-reuse", "no-internet"])
def test_a_story_gives_the_same_with_and_without(name: str, tmp_path: Path) -> None:
    path = tmp_path / "story.pcap"
    simulate(name).write(path)
    assert known(path, sieved=True) == known(path, sieved=False)


def mixture(chance: random.Random, count: int, link: Callable[[bytes], bytes]) -> list[bytes]:
    """Packets of few ends, so that connections go on, begin anew, and meet odd shapes."""
    frames = []
    for _ in range(count):
        source_port, target_port = chance.sample((80, 443, 5683, 53, 4789, 50000, 50001), 2)
        payload = bytes(chance.choice((0, 0, 6, 18, 20, 40, 256, 600)))
        if chance.random() < 0.7:
            flags = chance.choice((ACK, ACK, ACK | PSH, ACK | PSH, ACK | FIN, RST, SYN, SYN | ACK))
            body = tcp(source_port, target_port, payload, flags=flags, offset=chance.choice((5, 5, 5, 8, 8, 15, 2)))
        else:
            body = udp(source_port, target_port, payload, chance.choice((None, None, None, 0, 7, 8, 300)))
        total = chance.choice((0, 0, 0, 0, 0, 20, 28, 30, 40, 52, 300, 1500))
        fragment = chance.choice((0, 0, 0, 0, 0x4000, 0x2000, 0x0001))
        version = chance.choice((ipv4, ipv4, ipv4, ipv6))
        protocol, backwards = chance.choice((6, 6, 17)), chance.random() < 0.5
        packet = version(protocol, body, backwards=backwards, total=total, fragment=fragment)
        if version is ipv4 and chance.random() < 0.05:  # options
            packet = b"\x46" + packet[1:20] + bytes((1, 1, 1, 0)) + packet[20:]
        frames.append(link(packet).ljust(chance.choice((0, 60, 64)), b"\0"))
    return frames


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("kind", ["pcap", "pcapng"])
def test_a_mixture_of_odd_packets_gives_the_same_with_and_without(
    seed: int, link: str, kind: str, tmp_path: Path
) -> None:
    link_type, wrapped = LINKS[link]
    frames = mixture(random.Random(f"{seed} {link}"), 500, wrapped)
    content = capture_of(
        frames,
        link_type,
        kind,
        "<>"[seed % 2],
        cut=(1 << 20, 1 << 20, 60, 54, 1 << 20, 40, 96, 53)[seed],
        step=(1, 1, 1, 25, -1, 1, 1, 1)[seed],
    )
    path = tmp_path / f"mixture.{kind}"
    path.write_bytes(content[: -13 if seed % 3 == 2 else None])
    assert known(path, sieved=True) == known(path, sieved=False)


@pytest.mark.parametrize("waited", [5, 21])
def test_a_port_that_is_used_again_is_looked_at_again(waited: int, tmp_path: Path) -> None:
    """The second connection is one in which nobody says a word, and which its device leaves after 20 seconds."""
    talk = [tcp(50000, 443, bytes(30), flags=ACK | PSH), tcp(443, 50000, bytes(30), flags=ACK | PSH)] * 3
    opening = [tcp(50000, 443, flags=SYN), tcp(443, 50000, flags=SYN | ACK)]
    packets = [ipv4(6, body, backwards=body[:2] == (443).to_bytes(2)) for body in (*opening, *talk, *opening)]
    records = [record(ethernet(packet), START + i) for i, packet in enumerate(packets)]
    records.append(record(ethernet(ipv4(6, tcp(50000, 443, flags=ACK | FIN))), START + len(packets) - 1 + waited))
    path = tmp_path / "again.pcap"
    path.write_bytes(pcap_header() + b"".join(records))
    assert known(path, sieved=True) == known(path, sieved=False)
    assert bool(analyze(path).background.mute) == (waited == 21)


def lookup(name: bytes, *, answer: bool) -> bytes:
    """A DNS message about a name, with one address in the answer."""
    asked = b"".join(bytes((len(part),)) + part for part in name.split(b".")) + b"\0\0\x01\0\x01"
    found = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc6\x33\x64\x07"
    counts = b"\0\x01" + bytes((0, answer)) + bytes(4)
    return b"\x12\x34" + (b"\x81\x80" if answer else b"\x01\x00") + counts + asked + (found if answer else b"")


@settings(max_examples=150, deadline=None)
@given(st.integers(), st.sampled_from(["pcap", "pcapng"]), st.sampled_from("<>"), st.sampled_from((1, 3, -2)))
def test_name_lookups_give_the_same_with_and_without(seed: int, kind: str, order: str, step: int) -> None:
    chance = random.Random(seed)
    names = (b"device.spark.io", b"Staging-Device.SPARK.io", b"example.org", b"www.particular.example", b"a" * 63, b"")
    frames = []
    for _ in range(60):
        answer = chance.random() < 0.6
        message = lookup(chance.choice(names), answer=answer)
        ports = chance.choice(((53, 40000), (53, 5683), (53, 67), (53, 53)))
        body = udp(*(ports if answer else ports[::-1]), message[: chance.choice((None, None, None, 11, 12, 20))])
        packet = bytearray(ipv4(17, body, backwards=answer))
        packet[19 if answer else 15] = chance.choice((4, 5, 6))  # several machines
        frames.append(ethernet(bytes(packet)).ljust(chance.choice((0, 60, 64)), b"\0"))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "lookups"
        path.write_bytes(capture_of(frames, 1, kind, order, step=step))
        assert known(path, sieved=True) == known(path, sieved=False)


def test_a_lookup_that_tells_nothing_is_held_back_and_still_counted(tmp_path: Path) -> None:
    told = [lookup(b"example.org", answer=True), lookup(b"device.spark.io", answer=False)]
    frames = [ethernet(ipv4(17, udp(53, 40000, message))) for message in (told[0], told[0], told[1], told[0])]
    path = tmp_path / "lookups.pcap"
    path.write_bytes(capture_of(frames, 1, "pcap", "<"))
    analysis = Analysis()
    numbers = []
    for packet in Capture([path], skips=analysis.sieve.skips):
        analysis.take(packet)
        numbers.append(packet.number)
    assert numbers == [1, 3]  # the first answer shows that the network works, the third is of the cloud's name
    background = analysis.finish().background
    assert (background.packets, background.kinds["DNS"]) == (4, 4)


def test_a_connection_of_no_interest_is_held_back_and_still_counted(tmp_path: Path) -> None:
    simulation = simulate("background")
    path = tmp_path / "background.pcap"
    simulation.write(path)
    analysis = Analysis()
    passed = 0
    for packet in Capture([path], skips=analysis.sieve.skips):
        analysis.take(packet)
        passed += 1
    held = analysis.sieve.held
    assert held > 0
    assert analysis.finish().packets == passed + held == len(simulation.packets)


def passed(sieve: Sieve, content: bytes) -> list[Packet]:
    """What comes through."""
    return list(Capture(["-"], stdin=BytesIO(content), skips=sieve.skips))


@pytest.mark.parametrize("version", [ipv4, ipv6])
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["pcap", "pcapng"])
def test_a_new_beginning_is_never_held_back(
    kind: str, order: str, link: str, version: Callable[[int, bytes], bytes]
) -> None:
    link_type, wrapped = LINKS[link]
    sieve = Sieve(heard=(53,))
    ends = (DEVICE + SERVER if version is ipv4 else DEVICE_6 + SERVER_6) + (50000).to_bytes(2) + (443).to_bytes(2)
    sieve.hold(ends)

    def held(body: bytes, protocol: int = 6) -> bool:
        frame = wrapped(version(protocol, body)).ljust(80, b"\0")
        return not passed(sieve, capture_of([frame], link_type, kind, order))

    known_link = link != "twice tagged"
    assert held(tcp(50000, 443)) == known_link
    assert held(tcp(50000, 443, bytes(700), flags=ACK | FIN)) == known_link
    assert held(tcp(50000, 443, bytes(12), flags=ACK | PSH, offset=8)) == known_link
    assert not held(tcp(50000, 443, flags=SYN))
    assert not held(tcp(50000, 443, bytes(12), flags=SYN | ACK, offset=8))
    assert not held(tcp(443, 50000))  # the other direction has not been told of
    assert not held(tcp(50000, 443, offset=4))  # a header that is shorter than any
    assert not held(tcp(50000, 443, offset=8))  # and one that is longer than the packet
    assert not held(udp(50000, 443), 6)
    assert held(udp(50000, 443), 17) == known_link
    assert not held(udp(50000, 443, size=7), 17)
    assert not held(udp(50000, 53), 17)
    assert not held(udp(53, 50000), 17)
    assert sieve.held == (4 if known_link else 0)
    assert sieve.held_by_link.total() == sieve.held_by_link[link_type]
    assert sieve.segments == ({443: 3} if known_link else {})
    assert sieve.datagrams == int(known_link)
    sieve.wake(ends)
    assert not held(tcp(50000, 443))


def test_many_connections_are_held_back_in_bounded_memory() -> None:
    sieve = Sieve(heard=())
    for number in range(MOST_CONNECTIONS + 1):
        sieve.hold(number.to_bytes(8) + bytes((200, 0, 1, 187)))
    assert len(sieve.skips.connections) <= MOST_CONNECTIONS
    frame = ethernet(b"\x45\0\0\x28" + bytes(5) + b"\x06\0\0" + MOST_CONNECTIONS.to_bytes(8) + tcp(51200, 443))
    assert not passed(sieve, pcap([frame]))


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(LINKS)),
    st.sampled_from(["pcap", "pcapng"]),
    st.sampled_from("<>"),
    st.booleans(),
    st.sampled_from((6, 17, 1)),
    st.sampled_from((53, 67, 80, 4789, 5683, 40000)),
    st.sampled_from((0, 4, 5, 6, 8, 15)),
    st.integers(0, 255),
    st.binary(max_size=60),
    st.sampled_from((0, 0, 19, 20, 27, 28, 39, 40, 47, 48, 60, 79, 80, 300)),
    st.sampled_from((None, 0, 1, 7, 8, 30, 260)),
    st.lists(st.tuples(st.integers(0, 70), st.integers(0, 255)), max_size=2),
    st.integers(0, 100),
)
def test_what_is_held_back_is_what_a_decoder_calls_it(  # noqa: PLR0917
    link: str,
    kind: str,
    order: str,
    sixth: bool,
    protocol: int,
    port: int,
    offset: int,
    flags: int,
    payload: bytes,
    total: int,
    size: int | None,
    changes: list[tuple[int, int]],
    cut: int,
) -> None:
    link_type, wrapped = LINKS[link]
    body = tcp(port, 5000, payload, flags=flags, offset=offset) if protocol == 6 else udp(port, 5000, payload, size)
    frame = bytearray(wrapped((ipv6 if sixth else ipv4)(protocol, body, total=total)))
    for place, value in changes:
        if place < len(frame):
            frame[place] = value
    frame = frame[: max(1, len(frame) - max(0, cut - 70))]
    sieve = Sieve(HEARD_PORTS)
    ends = port.to_bytes(2) + (5000).to_bytes(2)
    sieve.hold(DEVICE + SERVER + ends)
    sieve.hold(DEVICE_6 + SERVER_6 + ends)
    if passed(sieve, capture_of([bytes(frame)], link_type, kind, order)):
        return
    unit = Decoder().decode(Packet(1, 0, link_type, bytes(frame), len(frame)))
    assert isinstance(unit, Segment | Datagram)
    ports = (unit.source_port, unit.target_port)
    if isinstance(unit, Segment):
        assert ports == (port, 5000)
        assert (unit.source, unit.target) in {(DEVICE, SERVER), (DEVICE_6, SERVER_6)}
        assert not unit.flags & SYN
        assert sieve.segments == {min(ports): 1}
    else:
        assert not set(ports) & set(HEARD_PORTS)
        assert sieve.datagrams == 1


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 120), st.integers(0, 120), st.sampled_from((53, 80, 4789, 5683, 40000)))
def test_a_datagram_is_read_at_once_as_it_is_step_by_step(payload: bytes, total: int, size: int, port: int) -> None:
    body = port.to_bytes(2) + (5683).to_bytes(2) + size.to_bytes(2) + bytes(2) + payload
    data = ethernet(ipv4(17, body, total=total)).ljust(54, b"\0")
    packet = Packet(1, 0, ETHERNET, data, len(data))
    assert Decoder().decode(packet) == vars(Decoder)["_decode_any"](Decoder(), packet)
