"""Frames under a dead key are recognised without any key, and nothing else is."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import dpkt
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer import deadkey
from analyzer.deadkey import DeadFrame, DeadKeys, is_whole_coap, without_padding

HERE = Path(__file__).parent
CAPTURES = HERE.parent / "captures"
VECTORS: dict[str, Any] = json.loads((HERE / "vectors" / "vectors.json").read_text())
DEAD = [bytes.fromhex(row["wire"])[2:] for row in VECTORS["zero_key_frames"]]
TIME_REQUEST, EVENT, FIRST_PING, SECOND_PING = DEAD
ZERO = bytes(16)


def sealed(key: bytes, iv: bytes, message: bytes) -> bytes:
    count = 16 - len(message) % 16
    context = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return context.update(message + bytes([count]) * count) + context.finalize()


def ping(number: int) -> bytes:
    return b"\x40\x00" + number.to_bytes(2, "big")


@pytest.mark.parametrize("row", VECTORS["zero_key_frames"], ids=lambda row: row["note"][:30])
def test_each_constant_of_the_reference_is_recognised_even_as_the_first_frame_seen(
    row: dict[str, str],
) -> None:
    found = DeadKeys().recognise("device", bytes.fromhex(row["wire"])[2:])
    assert found is not None
    assert found.plaintext.hex() == row["coap"]
    assert (found.under, found.how) == ("zero key", "constant")


@pytest.mark.parametrize(
    ("wire", "message_id"),
    [
        ("1a2a891ad689bcba456268f0d4a110df", 2),  # ping behind the time request
        ("bf67a3148a010f2bc3b7e0321d3b39ea", 3),  # ping behind time request and event
        ("e36227d8e41d80e6a0fb1bb895a88fb5", 3),  # third ping of nothing but pings
    ],
)
def test_pings_from_the_middle_of_each_chain_are_recognised(wire: str, message_id: int) -> None:
    found = DeadKeys().recognise("device", bytes.fromhex(wire))
    assert found == DeadFrame(ping(message_id), "ping", "zero key", "constant")


def test_the_event_is_recognised_with_any_radio_firmware_version() -> None:
    name = b"\xb1E\x0d\x0dspark/cc3000-patch-version"
    for version in (b"1.19", b"1.24", b"10.2.33-beta.long"):
        message = b"\x50\x02\x00\x02" + name + b"\xff" + version
        found = DeadKeys().recognise("device", sealed(ZERO, TIME_REQUEST[:16], message))
        assert found == DeadFrame(message, "event", "zero key", "constant")


def test_a_chain_goes_on_across_reconnects_and_past_the_computed_constants() -> None:
    dead, iv = DeadKeys(), ZERO
    how = []
    for number in range(1, 300):
        frame = sealed(ZERO, iv, ping(number))
        found = dead.recognise("device", frame)
        assert found is not None
        assert found.plaintext == ping(number)
        how.append(found.how)
        iv = frame[:16]
    assert how[0] == "constant"
    assert how[-1] == "chain"


def test_an_event_of_the_users_program_continues_the_chain() -> None:
    dead = DeadKeys()
    assert dead.recognise("device", FIRST_PING)
    message = b"\x50\x02\x00\x02\xb1E\x04temp\xff21.5" + b"x" * 90
    found = dead.recognise("device", sealed(ZERO, FIRST_PING[:16], message))
    assert found == DeadFrame(message, "event", "zero key", "chain")


def test_one_device_s_chain_says_nothing_about_another_device() -> None:
    dead, iv = DeadKeys(), ZERO
    for number in range(1, deadkey.CHAIN_LENGTH + 2):
        frame = sealed(ZERO, iv, ping(number))
        found_elsewhere = dead.recognise("b", frame) if number > deadkey.CHAIN_LENGTH else None
        assert dead.recognise("a", frame)
        iv = frame[:16]
    assert found_elsewhere is None


def test_the_key_of_an_earlier_session_is_tried_with_its_chain_continued() -> None:
    dead, key, last = DeadKeys(), bytes(range(16)), bytes(range(100, 116))
    frame = sealed(key, last, ping(77))
    assert dead.recognise("device", frame) is None
    dead.remember_session("device", key, last)
    assert dead.recognise("other", frame) is None
    assert dead.recognise("device", frame) == DeadFrame(ping(77), "ping", "key of an earlier session", "chain")
    following = dead.recognise("device", sealed(key, frame[:16], ping(78)))
    assert following is not None
    assert following.plaintext == ping(78)


def test_a_reboot_after_a_good_session_starts_the_zero_chain_again() -> None:
    dead = DeadKeys()
    dead.remember_session("device", bytes(range(16)), bytes(range(16)))
    assert dead.recognise("device", FIRST_PING) == DeadFrame(ping(1), "ping", "zero key", "constant")


def test_no_frame_of_a_real_session_is_taken_for_a_dead_one() -> None:
    for session in VECTORS["sessions"]:
        dead = DeadKeys()
        for frame in session["frames"]:
            assert dead.recognise("device", bytes.fromhex(frame["ciphertext"])) is None


def test_random_frames_are_never_taken_for_dead_ones() -> None:
    rng, dead = random.Random(5), DeadKeys()
    dead.recognise("device", FIRST_PING)
    dead.remember_session("device", rng.randbytes(16), rng.randbytes(16))
    assert not any(dead.recognise("device", rng.randbytes(16 * rng.randint(1, 3))) for _ in range(60_000))


def test_a_server_s_answer_under_the_zero_key_is_not_what_a_device_says() -> None:
    hello_back = sealed(ZERO, ZERO, bytes.fromhex("5102700101b168"))
    assert DeadKeys().recognise("device", hello_back) is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.sampled_from([FIRST_PING, EVENT, b""]))
def test_any_bytes_are_only_ever_refused(data: bytes, start: bytes) -> None:
    assert DeadKeys().recognise("device", start[:5] + data) is None


def test_what_is_remembered_does_not_grow_with_the_capture() -> None:
    dead = DeadKeys()
    for number in range(deadkey.MOST_DEVICES + 50):
        dead.recognise(number, FIRST_PING)
    dead.recognise(0, FIRST_PING)
    assert len(dead._devices) == deadkey.MOST_DEVICES


def test_the_capture_with_dead_pings_gives_both_of_them() -> None:
    dead, found = DeadKeys(), {}
    raw = (CAPTURES / "key-mismatch-retries.pcap").read_bytes()
    for number, (_, data) in enumerate(dpkt.pcap.Reader(io.BytesIO(raw)), 1):
        packet = dpkt.ethernet.Ethernet(data).data
        segment = packet.data if isinstance(packet, dpkt.ip.IP) else None
        if isinstance(segment, dpkt.tcp.TCP) and segment.dport == 5683 and len(segment.data) == 18:
            frame = dead.recognise(packet.src, segment.data[2:])
            assert frame is not None
            found[number] = frame.plaintext
    assert found == {12: ping(1), 39: ping(2)}


def test_keys_are_not_in_any_printed_form() -> None:
    dead = DeadKeys()
    key = bytes.fromhex("c0ffee00c0ffee11c0ffee22c0ffee33")
    dead.remember_session("device", key, key)
    printed = repr(dead) + repr(dead.__dict__)
    assert repr(key)[2:-1] not in printed
    assert key.hex() not in printed


@pytest.mark.parametrize(
    ("message", "whole"),
    [
        ("40000001", True),
        ("6100700300", True),  # legacy empty ACK with a token
        ("614512365 7ff".replace(" ", ""), True),  # payload marker, nothing behind it
        ("6145123657ff54667200", True),
        ("410170", False),
        ("80000001", False),  # version 2
        ("49000001" + "00" * 9, False),  # token of nine bytes
        ("4500000100", False),  # token cut off
        ("40010001b2", False),  # option cut off
        ("40010001b174f0", False),  # reserved nibble
        ("40010001bd", False),  # extended length cut off
        ("40010001be", False),
        ("40010001bd0061626364656667686970717273", True),
        ("40010001e0ffff", True),
        ("40010001d0", False),
    ],
)
def test_a_message_is_whole_when_its_options_end_where_they_should(message: str, whole: bool) -> None:
    assert is_whole_coap(bytes.fromhex(message)) is whole


def test_every_message_of_every_vector_is_whole() -> None:
    for session in VECTORS["sessions"]:
        for frame in session["frames"]:
            assert is_whole_coap(bytes.fromhex(frame["coap"])), frame["note"]
            assert without_padding(bytes.fromhex(frame["plaintext_padded"])) == bytes.fromhex(frame["coap"])


def test_padding_counts_only_when_each_of_its_bytes_is_right() -> None:
    assert without_padding(b"a" * 14 + b"\x02\x02") == b"a" * 14
    assert without_padding(b"\x10" * 16) == b""
    for wrong in (b"a" * 14 + b"\x03\x02", b"a" * 15 + b"\x00", b"a" * 15 + b"\x11", b""):
        assert without_padding(wrong) is None
