"""What is held back before it is decoded must make no difference to anything but the time."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from capture_files import pcap, pcapng
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.capture import Capture, Packet
from analyzer.network import Decoder
from analyzer.network.decoder import ETHERNET
from analyzer.network.sieve import Sieve
from analyzer.network.units import ACK, FIN, PSH, RST, SYN
from analyzer.pipeline import Analysis, analyze
from analyzer.report.jsonreport import json_text
from analyzer.simulate import simulate

CAPTURES = sorted(Path("captures").glob("*.pcap*"))
WRITERS: dict[str, Callable[[list[bytes]], bytes]] = {"pcap": pcap, "pcapng": pcapng}
DEVICE, SERVER = bytes((192, 168, 1, 104)), bytes((198, 51, 100, 20))


def ethernet(protocol: int, body: bytes, *, source: bytes = DEVICE, target: bytes = SERVER, total: int = 0) -> bytes:
    """A frame with an IPv4 header without options."""
    total = total or 20 + len(body)
    header = bytes((0x45, 0)) + total.to_bytes(2) + bytes((0, 1, 0, 0, 64, protocol, 0, 0)) + source + target
    return bytes(12) + b"\x08\x00" + header + body


def tcp(source_port: int, target_port: int, payload: bytes = b"", *, flags: int = ACK, offset: int = 5) -> bytes:
    """A TCP header with its payload."""
    ports = source_port.to_bytes(2) + target_port.to_bytes(2)
    return ports + bytes(8) + bytes((offset << 4, flags)) + bytes(6) + payload


def udp(source_port: int, target_port: int, payload: bytes = bytes(20)) -> bytes:
    """A UDP header with its payload."""
    ports = source_port.to_bytes(2) + target_port.to_bytes(2)
    return ports + (8 + len(payload)).to_bytes(2) + bytes(2) + payload


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


def mixture(chance: random.Random, count: int) -> list[bytes]:
    """Packets of few ends, so that connections go on, begin anew, and meet odd shapes."""
    frames = []
    for _ in range(count):
        ends = [DEVICE, SERVER][:: chance.choice((1, -1))]
        source_port, target_port = chance.sample((80, 443, 5683, 53, 4789, 50000, 50001), 2)
        payload = bytes(chance.choice((0, 0, 6, 18, 20, 40, 256)))
        if chance.random() < 0.7:
            flags = chance.choice((ACK, ACK, ACK | PSH, ACK | PSH, ACK | FIN, RST, SYN, SYN | ACK))
            body = tcp(source_port, target_port, payload, flags=flags, offset=chance.choice((5, 5, 5, 5, 8, 15, 2)))
        else:
            body = udp(source_port, target_port, payload)
        total = chance.choice((0, 0, 0, 0, 0, 20, 28, 30, 40, 1500))
        frames.append(ethernet(chance.choice((6, 17)), body, source=ends[0], target=ends[1], total=total))
    return frames


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("kind", WRITERS)
def test_a_mixture_of_odd_packets_gives_the_same_with_and_without(seed: int, kind: str, tmp_path: Path) -> None:
    frames = mixture(random.Random(seed), 400)
    path = tmp_path / f"mixture.{kind}"
    path.write_bytes(WRITERS[kind](frames))
    assert known(path, sieved=True) == known(path, sieved=False)


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


def test_a_new_beginning_is_never_held_back() -> None:
    sieve = Sieve(heard=(53,))
    skip = sieve.skips[ETHERNET]
    sieve.dull[DEVICE + SERVER + (50000).to_bytes(2) + (443).to_bytes(2)] = 0

    def held(body: bytes, protocol: int = 6) -> bool:
        frame = ethernet(protocol, body).ljust(60, b"\0")
        return skip(b"before" + frame, 6, len(frame))

    assert held(tcp(50000, 443))
    assert held(tcp(50000, 443, b"data", flags=ACK | FIN))
    assert not held(tcp(50000, 443, flags=SYN))
    assert not held(tcp(443, 50000))  # the other direction has not been told of
    assert not held(tcp(50000, 443, offset=4))  # a header that is shorter than any
    assert not held(udp(50000, 443), 6)
    assert held(udp(50000, 443), 17)
    assert not held(udp(50000, 53), 17)
    assert not held(udp(53, 50000), 17)
    assert sieve.held == 3


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 120), st.integers(0, 120), st.sampled_from((53, 80, 4789, 5683, 40000)))
def test_a_datagram_is_read_at_once_as_it_is_step_by_step(payload: bytes, total: int, size: int, port: int) -> None:
    body = port.to_bytes(2) + (5683).to_bytes(2) + size.to_bytes(2) + bytes(2) + payload
    data = ethernet(17, body, total=total).ljust(54, b"\0")
    packet = Packet(1, 0, ETHERNET, data, len(data))
    assert Decoder().decode(packet) == vars(Decoder)["_decode_any"](Decoder(), packet)
