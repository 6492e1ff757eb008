"""What protocol a conversation speaks: told from few bytes, and never wrongly for a nonce."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import cut_short, judged, one_direction, shipped, simulate, verdict
from tcp_talk import DEVICE, SERVER, Talk, frame, listen_to_one

from analyzer.kinds import is_text
from analyzer.simulate import damage


def kinds(trace: object) -> set[str]:
    return {c.kind for c in trace.conversations}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("healthy", "spark"),
        ("mid-session", "spark"),
        ("no-nonce-ping", "spark"),
        ("port-blocked", "empty"),
        ("no-nonce", "empty"),
        ("http-portal", "http"),
        ("ssh-banner", "ssh"),
        ("tls-service", "tls"),
        ("tls-client", "tls"),
        ("coap-tcp", "coap-tcp"),
    ],
)
def test_names_what_is_spoken(name: str, kind: str) -> None:
    assert kinds(judged(simulate(name))) == {kind}


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=40, max_size=40))
def test_a_nonce_is_text_only_if_nearly_all_of_it_is_printable(data: bytes) -> None:
    printable = sum(32 <= byte < 127 or byte in b"\t\r\n" for byte in data)
    assert is_text(data) == (printable >= 38)


def test_seven_letters_are_too_few_to_be_called_text() -> None:
    assert not is_text(b"220 abc")
    assert is_text(b"220 abcd")


@pytest.mark.parametrize("limit", [54, 60, 62, 64])
def test_a_few_printable_bytes_of_a_nonce_that_was_cut_are_no_text(limit: int) -> None:
    """Eight printable bytes begin one nonce in 2,000; the packet's true length says that more followed."""
    told = simulate("healthy")
    readable = [
        packet
        if packet.label != "nonce"
        else type(packet)(
            packet.time_ns,
            packet.data[: packet.network + 40] + b"abcdefgh" + packet.data[packet.network + 48 :],
            packet.original_length,
            packet.sender,
            packet.label,
            packet.network,
        )
        for packet in told.packets
    ]
    assert kinds(judged(told, damage.snaplen(readable, limit))) == {"spark"}


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("nonce", [bytes((0x00, 0xE1)) * 20, b"\x00\xe1\x00\x01\x00\x45" + bytes(34)])
def test_a_nonce_that_parses_as_coap_is_still_a_nonce(nonce: bytes, answered: bool) -> None:
    """One in 2,500 does: it begins with a CSM by chance, and messages without anything in them follow."""
    told = simulate("healthy" if answered else "device-silent")
    packets = [
        packet
        if packet.label != "nonce"
        else type(packet)(
            packet.time_ns,
            packet.data[: packet.network + 40] + nonce + packet.data[packet.network + 80 :],
            packet.original_length,
            packet.sender,
            packet.label,
            packet.network,
        )
        for packet in told.packets
    ]
    assert kinds(judged(told, packets)) == {"spark"}


def test_sizes_alone_tell_a_spark_login_from_coap() -> None:
    assert kinds(verdict(cut_short(shipped("healthy-full"), 54))) == {"spark"}
    assert kinds(verdict(cut_short(shipped("coap-over-tcp"), 54))) == {"other"}


@pytest.mark.parametrize("from_server", [True, False])
def test_one_direction_of_a_session_is_still_known(from_server: bool) -> None:
    assert kinds(verdict(one_direction(shipped("healthy-full"), from_server=from_server))) == {"spark"}


def test_a_stream_of_something_else_begun_before_the_capture_is_not_called_spark() -> None:
    told = simulate("tls-client")
    started = [p for p in told.packets if p.label not in ("syn", "syn-ack", "ack")]
    assert kinds(judged(told, started)) == {"tls"}


def test_a_client_that_speaks_first_has_no_frames_but_by_chance() -> None:
    """An instant messenger's session was called a login with a reply of the wrong size: among its bytes were two runs
    that looked like frames.
    """
    talk = Talk().open()
    talk.send(DEVICE, talk.rng.randbytes(315))
    talk.send(SERVER, talk.rng.randbytes(107))
    for _ in range(3):
        talk.send(DEVICE, frame(talk.rng, 2))
        talk.send(SERVER, frame(talk.rng, 1) + frame(talk.rng, 4))
    assert listen_to_one(talk.segments).conversation.kind == "other"


def test_a_login_whose_greeting_was_captured_late_is_still_one() -> None:
    """Two places capture into one file, and one of them sees the device's packets first."""
    talk = Talk().open().handshake().hello()
    greeting = next(index for index, segment in enumerate(talk.segments) if segment.length == 40)
    talk.segments[greeting], talk.segments[greeting + 2] = talk.segments[greeting + 2], talk.segments[greeting]
    assert listen_to_one(talk.segments).conversation.kind == "spark"


def test_a_line_of_text_is_a_greeting_whatever_follows_it() -> None:
    """A screen sharing server says its version and then talks binary; it was called a session of ours."""
    talk = Talk().open()
    talk.send(SERVER, b"RFB 004.001\n")
    talk.send(DEVICE, b"RFB 004.001\n")
    talk.send(SERVER, bytes(range(1, 9)) + talk.rng.randbytes(60))
    for _ in range(3):
        talk.send(DEVICE, frame(talk.rng, 2))
        talk.send(SERVER, frame(talk.rng, 1))
    assert listen_to_one(talk.segments).conversation.kind == "other"
