"""Nonce, identity and session offer, however TCP cut them and wherever the capture begins."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tcp_talk import DEVICE, SECOND, SERVER, Talk, frame, healthy, listen_to_one, sent_by

from analyzer.frames import Frame
from analyzer.handshake import OPENING, TurnReader
from analyzer.network.units import SYN
from analyzer.streams import Hole, HoleReason, Sender

RNG = random.Random(3)
NONCE, IDENTITY, SESSION = RNG.randbytes(40), RNG.randbytes(256), RNG.randbytes(384)
FRAMES = [frame(RNG, blocks) for blocks in (1, 2, 1, 4)]


def turn(sender: Sender) -> tuple[TurnReader, list[Frame]]:
    frames: list[Frame] = []
    return TurnReader(sender, frames.append), frames


def feed(reader: TurnReader, *pieces: bytes | int) -> TurnReader:
    """Bytes are received, numbers are holes of that length."""
    offset = 0
    for number, piece in enumerate(pieces, 1):
        if isinstance(piece, int):
            reader.skip(Hole(reader.sender, offset, piece, None, number, 1000 * number, HoleReason.NOT_CAPTURED))
            offset += piece
        else:
            reader.receive(piece, number, 1000 * number)
            offset += len(piece)
    reader.finish()
    return reader


def parts(reader: TurnReader) -> list[tuple[str, int, int]]:
    return [(part.kind, part.received, part.missing) for part in reader.parts]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(Sender), st.lists(st.integers(1, 700), max_size=12))
def test_any_cutting_gives_the_same_parts_and_frames(sender: Sender, places: list[int]) -> None:
    opening = IDENTITY if sender is DEVICE else NONCE + SESSION
    data = opening + b"".join(FRAMES)
    edges = sorted({0, len(data), *(place for place in places if place < len(data))})
    reader, frames = turn(sender)
    feed(reader, *(data[edges[i] : edges[i + 1]] for i in range(len(edges) - 1)))
    expected = [IDENTITY] if sender is DEVICE else [NONCE, SESSION]
    assert [part.data for part in reader.parts] == expected
    assert [one.ciphertext for one in frames] == [one[2:] for one in FRAMES]
    assert reader.opening == data[:OPENING]
    assert reader.started == "beginning"
    for part in reader.parts:
        assert sum(length for _, length in part.cuts) == part.size
        assert part.packet == part.cuts[-1][0]


def test_a_message_tells_in_which_pieces_it_came() -> None:
    reader, _ = turn(DEVICE)
    feed(reader, IDENTITY[:100], IDENTITY[100:])
    [identity] = reader.parts
    assert identity.cuts == ((1, 100), (2, 156))
    assert (identity.first_packet, identity.packet, identity.time_ns) == (1, 2, 2000)


def test_an_unfinished_message_has_no_data() -> None:
    reader, frames = turn(SERVER)
    feed(reader, NONCE, SESSION[:200])
    assert parts(reader) == [("nonce", 40, 0), ("session", 200, 0)]
    assert reader.parts[1].data is None
    assert not reader.parts[1].complete
    assert not frames


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ((40, SESSION), [("nonce", 0, 40), ("session", 384, 0)]),
        ((424, FRAMES[0]), [("nonce", 0, 40), ("session", 0, 384)]),
        ((NONCE[:10], 30, SESSION), [("nonce", 10, 30), ("session", 384, 0)]),
        ((NONCE[:10], 130, SESSION[100:]), [("nonce", 10, 30), ("session", 284, 100)]),
        ((NONCE, 384, FRAMES[0]), [("nonce", 40, 0), ("session", 0, 384)]),
        ((NONCE, 402, FRAMES[0]), [("nonce", 40, 0), ("session", 0, 384)]),
    ],
)
def test_a_hole_counts_like_the_bytes_it_stands_for(
    pieces: tuple[bytes | int, ...], expected: list[tuple[str, int, int]]
) -> None:
    reader, frames = turn(SERVER)
    feed(reader, *pieces)
    assert parts(reader) == expected
    assert all(part.complete for part in reader.parts)
    assert all((part.data is None) == bool(part.missing) for part in reader.parts)
    assert [one.ciphertext for one in frames] == [one[2:] for one in FRAMES[:1] if pieces[-1] == one]


def test_frames_in_the_place_of_the_identity_are_counted_apart() -> None:
    reader, frames = turn(DEVICE)
    feed(reader, FRAMES[0], IDENTITY, FRAMES[1])
    assert reader.early == 1
    assert [part.data for part in reader.parts] == [IDENTITY]
    assert [(one.ciphertext, one.offset) for one in frames] == [(FRAMES[0][2:], 0), (FRAMES[1][2:], 18 + 256)]


# --- A stream whose beginning may be missing -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sender", "pieces", "started", "before"),
    [
        (SERVER, (NONCE, SESSION), "beginning", 0),
        (SERVER, (NONCE[:7], NONCE[7:], SESSION), "beginning", 0),
        (SERVER, (NONCE + SESSION,), "beginning", 0),
        (SERVER, (40, 384), "beginning", 0),
        (SERVER, (424,), "beginning", 0),
        (SERVER, (SESSION,), "midway", 40),
        (SERVER, (SESSION[:128], SESSION[128:]), "midway", 40),
        (SERVER, (384,), "midway", 40),
        (SERVER, (), "midway", 424),
        (DEVICE, (IDENTITY,), "beginning", 0),
        (DEVICE, (256,), "beginning", 0),
        (DEVICE, (IDENTITY[:1], IDENTITY[1:]), "beginning", 0),
        (DEVICE, (), "midway", 256),
    ],
)
def test_handshake_messages_are_known_by_their_sizes(
    sender: Sender, pieces: tuple[bytes | int, ...], started: str, before: int
) -> None:
    reader, frames = turn(sender)
    reader.begin_midway(likely=False)
    feed(reader, *pieces, *FRAMES)
    assert (reader.started, reader.before) == (started, before)
    assert [one.ciphertext for one in frames] == [one[2:] for one in FRAMES]
    assert all(part.complete for part in reader.parts)
    assert [part.kind for part in reader.parts if part.first_packet] == {
        0: ["identity"] if sender is DEVICE else ["nonce", "session"],
        40: ["session"],
    }.get(before, [])


@pytest.mark.parametrize("cut", [1, 2, 17, 22, 40])
def test_a_capture_begun_inside_a_frame_begins_with_the_next_one(cut: int) -> None:
    rest = FRAMES[3][-cut:]
    for pieces in ((rest, *FRAMES), (rest + FRAMES[0] + FRAMES[1], FRAMES[2], FRAMES[3])):
        reader, frames = turn(SERVER)
        reader.begin_midway(likely=False)
        feed(reader, *pieces)
        if cut == 40 and pieces[0] == rest:
            continue  # cannot be told from a nonce
        assert reader.started == "midway"
        assert [one.ciphertext for one in frames] == [one[2:] for one in FRAMES]
        assert frames[0].follows_gap
        assert reader.frames is not None
        assert reader.frames.skipped == cut


def test_frames_byte_by_byte_are_recognised_without_a_beginning() -> None:
    rng = random.Random(4)
    many = [frame(rng, 3) for _ in range(60)]
    reader, frames = turn(DEVICE)
    reader.begin_midway(likely=False)
    data = b"".join(many)[5:]
    feed(reader, *(data[i : i + 1] for i in range(len(data))))
    assert [one.ciphertext for one in frames] == [one[2:] for one in many[1:]]


def test_a_start_that_is_likely_is_believed_unless_frames_deny_it() -> None:
    reader, _ = turn(SERVER)
    reader.begin_midway(likely=True)
    feed(reader, NONCE[:20])
    assert parts(reader) == [("nonce", 20, 0)]
    reader, _ = turn(SERVER)
    reader.begin_midway(likely=True)
    feed(reader, 10, NONCE[10:])
    assert parts(reader) == [("nonce", 30, 10)]
    reader, frames = turn(SERVER)
    reader.begin_midway(likely=True)
    feed(reader, *FRAMES)
    assert len(frames) == len(FRAMES)


# --- The same in whole conversations ----------------------------------------------------------------------------


def test_with_only_the_syn_missing_the_handshake_is_read_in_full() -> None:
    talk = healthy()
    for first in (1, 2, 3):
        heard = listen_to_one(talk.segments[first:])
        conversation = heard.conversation
        assert [heard.part(kind) for kind in ("nonce", "identity", "session")] == [
            talk.part(kind) for kind in ("nonce", "identity", "session")
        ]
        assert conversation.reached == "established"
        assert not conversation.sides[SERVER].midway
        assert not conversation.sides[DEVICE].midway
        assert heard.ciphertexts(SERVER) == talk.frames[SERVER]


def test_with_the_nonce_missing_the_rest_of_the_handshake_is_read() -> None:
    talk = healthy()
    first = next(i for i, s in enumerate(talk.segments) if s.length == 256)
    heard = listen_to_one(talk.segments[first:])
    assert heard.part("nonce") is None
    assert heard.part("identity") == talk.part("identity")
    assert heard.part("session") == talk.part("session")
    assert heard.conversation.reached == "established"
    assert heard.ciphertexts(DEVICE) == talk.frames[DEVICE]
    assert heard.ciphertexts(SERVER) == talk.frames[SERVER]


def test_with_nonce_and_identity_missing_the_session_offer_is_read() -> None:
    talk = healthy()
    first = next(i for i, s in enumerate(talk.segments) if s.length == 384)
    heard = listen_to_one(talk.segments[first:])
    assert heard.part("nonce") is heard.part("identity") is None
    assert heard.part("session") == talk.part("session")
    assert heard.ciphertexts(DEVICE) == talk.frames[DEVICE]
    assert heard.ciphertexts(SERVER) == talk.frames[SERVER]


@pytest.mark.parametrize(("last", "reached"), [("identity", "identity"), ("session", "session"), ("hello", "hello")])
def test_how_far_it_got_is_known_without_the_beginning(last: str, reached: str) -> None:
    talk = Talk().open().handshake()
    first = 5
    assert talk.segments[first].length == 256
    if last == "identity":
        del talk.segments[-2:]
        talk.next[SERVER] -= 384
    if last == "hello":
        talk.send_frames(DEVICE, 1)
    talk.wait(3 * SECOND)
    talk.close()
    heard = listen_to_one(talk.segments[first:])
    assert heard.conversation.reached == reached


@pytest.mark.parametrize("syn_seen", [True, False])
def test_of_a_direction_that_was_not_captured_the_acknowledgements_tell_the_parts(syn_seen: bool) -> None:
    talk = healthy()
    segments = talk.segments if syn_seen else [s for s in talk.segments if not s.flags & SYN]
    only_device = listen_to_one([s for s in segments if sent_by(s) is DEVICE])
    conversation = only_device.conversation
    assert [(p.kind, p.received, p.missing, p.complete) for p in conversation.sides[SERVER].parts] == [
        ("nonce", 0, 40, True),
        ("session", 0, 384, True),
    ]
    assert conversation.sides[SERVER].sent == len(talk.sent[SERVER])
    assert only_device.part("identity") == talk.part("identity")
    assert only_device.ciphertexts(DEVICE) == talk.frames[DEVICE]
    assert conversation.reached == "established"

    only_server = listen_to_one([s for s in segments if sent_by(s) is SERVER])
    conversation = only_server.conversation
    [identity] = conversation.sides[DEVICE].parts
    assert (identity.received, identity.missing, identity.complete) == (0, 256, True)
    assert only_server.part("nonce") == talk.part("nonce")
    assert only_server.part("session") == talk.part("session")
    assert only_server.ciphertexts(SERVER) == talk.frames[SERVER]
    assert conversation.sides[DEVICE].sent == len(talk.sent[DEVICE])
    assert conversation.reached == "established"


@pytest.mark.parametrize("side", Sender)
@pytest.mark.parametrize(("until", "reached"), [(1, "nonce"), (2, "identity"), (3, "session"), (4, "hello")])
def test_one_direction_is_enough_to_see_where_it_stopped(side: Sender, until: int, reached: str) -> None:
    talk = Talk().open()
    for sender, size in ((SERVER, 40), (DEVICE, 256), (SERVER, 384))[:until]:
        talk.send(sender, talk.rng.randbytes(size))
    if until == 4:
        talk.send_frames(DEVICE, 1)
    talk.wait(10 * SECOND)
    talk.close(SERVER)
    heard = listen_to_one([s for s in talk.segments if sent_by(s) is side])
    assert heard.conversation.reached == reached
    assert sum(s.length for s in talk.segments) == heard.offset[DEVICE] + heard.offset[SERVER]


# --- Small things that no other test would notice ----------------------------------------------------------------


def test_frames_after_missing_messages_have_their_place_in_the_stream() -> None:
    reader, frames = turn(SERVER)
    feed(reader, NONCE[:10], 30, 384, *FRAMES[:2])
    assert [one.offset for one in frames] == [424, 424 + 18]


def test_each_early_frame_of_one_packet_counts() -> None:
    reader, frames = turn(DEVICE)
    feed(reader, FRAMES[0] + FRAMES[1], IDENTITY)
    assert (reader.early, len(frames)) == (2, 2)
    assert [part.data for part in reader.parts] == [IDENTITY]


def test_a_beginning_that_is_told_too_late_loses_nothing() -> None:
    reader, _ = turn(SERVER)
    reader.begin_midway(likely=True)
    reader.receive(NONCE[:10], 1, 1000)
    reader.begin()
    reader.receive(NONCE[10:], 2, 2000)
    reader.finish()
    assert [part.data for part in reader.parts] == [NONCE]


@pytest.mark.parametrize("rest", [4, 22])
def test_frames_cut_anyhow_are_no_nonce_though_they_have_its_size(rest: int) -> None:
    """The end of a frame and one more that begins a packet, or two more: 40 bytes in small packets."""
    whole = FRAMES[0] + (FRAMES[2] if rest == 4 else b"")
    data = FRAMES[3][-rest:] + whole
    first = rest if rest == 22 else rest + 10
    reader, frames = turn(SERVER)
    reader.begin_midway(likely=False)
    feed(reader, data[:first], data[first : first + 9], data[first + 9 :], FRAMES[1])
    assert reader.started == "midway"
    assert [one.ciphertext for one in frames][-1] == FRAMES[1][2:]
    assert len(frames) == (3 if rest == 4 else 2)
