"""The layers for scapy shells: what they build, what they read, and that they keep out of the way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from decrypted import CAPTURES, truth
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.packet import Packet, Raw
from scapy.utils import rdpcap

from analyzer.coap import decode, encode
from analyzer.scapy_layers import (
    Heard,
    KeyRing,
    SparkFrame,
    SparkFrames,
    SparkIdentity,
    SparkMessage,
    SparkNonce,
    SparkSegment,
    SparkSessionOffer,
    bind,
    spark_session,
    unbind,
)

RECORDED = [
    bytes.fromhex(line["hex"])
    for name in ("healthy-full", "photon-fast-ota", "ota-complete")
    for way in ("c2s", "s2c")
    for line in truth(name)["sessions"][0][way]
]


@pytest.fixture
def bound() -> Iterator[None]:
    bind()
    yield
    unbind()


def built(layer: Packet) -> bytes:
    """The bytes that scapy makes of the fields, not those it remembers having read."""
    layer.clear_cache()
    return bytes(layer)


def payload_of(packet: Packet) -> Any:
    """What scapy reads behind the TCP header of a packet on port 5683."""
    again = IP(bytes(IP() / TCP(sport=5683, dport=40000) / packet))
    return again[TCP].payload


# -- messages -----------------------------------------------------------------------------------------------


def test_recorded_messages_are_read_as_coap_and_built_again() -> None:
    assert len(RECORDED) > 1000
    for plaintext in RECORDED:
        layer, wanted = SparkMessage(plaintext), decode(plaintext)
        assert (layer.type, layer.code, layer.message_id) == (wanted.type, wanted.code, wanted.message_id)
        assert (layer.token, tuple(layer.options)) == (wanted.token, wanted.options)
        assert (layer.content or b"") == wanted.payload
        assert not layer.payload
        assert built(layer) == plaintext


def test_a_message_is_built_from_names() -> None:
    layer = SparkMessage(
        type="NON", code="0.02", message_id=7, options=[("Max-Age", b"\x3c"), ("Uri-Path", "e"), (11, b"x" * 300)]
    )
    layer.content = "21.5"
    wanted = encode(1, 2, 7, options=[(11, b"e"), (11, b"x" * 300), (14, b"\x3c")], payload=b"21.5")
    assert bytes(layer) == wanted
    shown = str(SparkMessage(wanted).show(dump=True))
    assert "code      = 0.02" in shown
    assert "Uri-Path: b'e'" in shown


def test_an_empty_payload_is_not_the_same_as_none() -> None:
    assert SparkMessage(encode(0, 2, 1, payload=b"")).content == b""
    assert SparkMessage(encode(0, 2, 1)).content is None
    assert built(SparkMessage(encode(0, 2, 1, payload=b""))) == encode(0, 2, 1, payload=b"")


def test_options_that_cannot_be_read_stay_bytes() -> None:
    layer = SparkMessage(bytes.fromhex("40020007") + b"\xf1abc\xffdata")  # the reserved nibble 15
    assert (layer.options, layer.content) == ([], None)
    assert layer[Raw].load == b"\xf1abc\xffdata"


def test_a_summary_has_nothing_in_it_that_acts_on_a_terminal() -> None:
    layer = SparkMessage(encode(0, 1, 1, options=[(11, b"v"), (11, b"\x1b[2Jtemp")]))
    assert layer.summary() == 'SparkMessage CON 0.01 "v/\\x1b[2Jtemp"'


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=80), st.sampled_from([SparkMessage, SparkFrame, SparkFrames, SparkSegment]))
def test_any_bytes_are_read_without_an_error_and_given_back(data: bytes, layer: type[Packet]) -> None:
    assert built(layer(data)) == data


# -- what a segment holds -----------------------------------------------------------------------------------


def test_several_frames_of_a_segment() -> None:
    frames = [SparkFrame(ciphertext=bytes((n,)) * 16 * n) for n in range(1, 5)]
    data = b"".join(map(bytes, frames))
    assert data[:2] == b"\0\x10"
    layer = SparkSegment(data)
    assert isinstance(layer, SparkFrames)
    assert [frame.ciphertext for frame in layer.frames] == [frame.ciphertext for frame in frames]
    assert built(layer) == data


def test_the_largest_segment_of_frames_is_read_whole() -> None:
    data = (b"\0\x10" + bytes(16)) * 3600
    assert len(SparkSegment(data).frames) == 3600


@pytest.mark.parametrize(("size", "layer"), [(40, SparkNonce), (256, SparkIdentity), (384, SparkSessionOffer)])
def test_handshake_messages_are_known_by_their_size(size: int, layer: type[Packet]) -> None:
    data = bytes(range(7, 247)) * 2
    found = SparkSegment(data[:size])
    assert type(found) is layer
    assert built(found) == data[:size]


def test_parts_of_messages_stay_bytes() -> None:
    assert isinstance(SparkSegment(b"\0\x10" + bytes(15)), Raw)
    assert isinstance(SparkSegment(bytes(39)), Raw)


# -- binding ------------------------------------------------------------------------------------------------


def test_importing_changes_nothing_until_bound() -> None:
    script = """
from scapy.layers.inet import IP, TCP, UDP
before = {layer: list(layer.payload_guess) for layer in (IP, TCP, UDP)}
import analyzer.scapy_layers as layers
segment = bytes(IP() / TCP(sport=5683) / (b"\\0\\x10" + bytes(16)))
print({layer: list(layer.payload_guess) for layer in before} == before, type(IP(segment)[TCP].payload).__name__)
layers.bind(); layers.bind()
print(type(IP(segment)[TCP].payload).__name__)
layers.unbind()
print({layer: list(layer.payload_guess) for layer in before} == before, type(IP(segment)[TCP].payload).__name__)
"""
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["True Raw", "SparkFrames", "True Raw"]


def test_the_library_does_not_need_scapy() -> None:
    script = "import sys, analyzer, analyzer.export, analyzer.pipeline; print('scapy' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"


@pytest.mark.usefixtures("bound")
def test_bound_layers_show_in_a_recorded_capture() -> None:
    names = [type(packet[TCP].payload).__name__ for packet in rdpcap(str(CAPTURES / "healthy-full.pcap"))]
    told = truth("healthy-full")["sessions"][0]
    assert [name for name in names if name.startswith("Spark")][:3] == [
        "SparkNonce",
        "SparkIdentity",
        "SparkSessionOffer",
    ]
    assert names.count("SparkFrames") > 50
    assert payload_of(Raw(bytes.fromhex(told["nonce"]))).nonce.hex() == told["nonce"]


@pytest.mark.usefixtures("bound")
def test_other_ports_are_left_alone() -> None:
    assert type(IP(bytes(IP() / TCP(sport=5684, dport=80) / Raw(bytes(40))))[TCP].payload) is Raw


# -- whole sessions -----------------------------------------------------------------------------------------


def heard(name: str, keys: Path | None = None) -> list[Heard]:
    packets = rdpcap(str(CAPTURES / name))
    return list(spark_session(packets, keys=KeyRing.load(keys) if keys else None))


@pytest.mark.parametrize("name", ["healthy-full", "lossy-link", "encap-sll2"])
def test_without_keys_a_session_is_its_handshake_and_all_frames(name: str) -> None:
    told = truth(name)["sessions"][0]
    layers = heard(f"{name}.pcap")
    assert [type(each.layer) for each in layers[:3]] == [SparkNonce, SparkIdentity, SparkSessionOffer]
    assert layers[0].layer.nonce.hex() == told["nonce"]
    for way, sender in (("c2s", "device"), ("s2c", "server")):
        frames = [each.layer for each in layers if each.sender == sender and type(each.layer) is SparkFrame]
        # A message of n bytes is padded to whole blocks, with at least one byte.
        sizes = [len(bytes.fromhex(line["hex"])) // 16 * 16 + 16 for line in told[way]]
        assert [len(frame.ciphertext) for frame in frames] == sizes


@pytest.mark.parametrize("name", ["healthy-full", "lossy-link"])
def test_with_keys_it_is_every_message_in_the_clear(name: str) -> None:
    told = truth(name)["sessions"][0]
    layers = heard(f"{name}.pcap", CAPTURES / "keys")
    for way, sender in (("c2s", "device"), ("s2c", "server")):
        messages = [each.layer for each in layers if each.sender == sender and type(each.layer) is SparkMessage]
        assert sorted(bytes(message).hex() for message in messages) == sorted(line["hex"] for line in told[way])
    assert not any(type(each.layer) is SparkFrame for each in layers)


def test_layers_know_their_packet_and_its_exact_time() -> None:
    packets = rdpcap(str(CAPTURES / "healthy-full.pcap"))
    for each in spark_session(packets):
        assert each.layer.time == packets[each.packet - 1].time
        assert each.conversation == 1


def test_packets_of_an_unknown_link_layer_count_and_are_not_read() -> None:
    packets = [Raw(b"nothing"), *rdpcap(str(CAPTURES / "healthy-full.pcap"))]
    assert next(spark_session(packets)).packet == heard("healthy-full.pcap")[0].packet + 1
