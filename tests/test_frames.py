"""Frames from a stream of bytes: cut anywhere, with holes, garbage, and no beginning."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tcp_talk import SERVER, frame, lines_run

from analyzer.frames import SEARCH_WINDOW, Frame, FrameReader, chain
from analyzer.streams import Hole, HoleReason


def reader(*, searching: bool = False, offset: int = 424) -> tuple[FrameReader, list[Frame]]:
    frames: list[Frame] = []
    return FrameReader(SERVER, frames.append, offset=offset, searching=searching), frames


def feed(cutter: FrameReader, pieces: Iterable[bytes], first: int = 1) -> None:
    for number, piece in enumerate(pieces, first):
        cutter.receive(piece, number, 1000 * number)


def hole(length: int, packet: int = 50) -> Hole:
    return Hole(SERVER, 0, length, None, packet, 1000 * packet, HoleReason.NOT_CAPTURED)


def some_frames(seed: int, *blocks: int) -> list[bytes]:
    rng = random.Random(seed)
    return [frame(rng, count) for count in blocks]


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 64), min_size=1, max_size=8), st.lists(st.integers(0, 9000)))
def test_any_cutting_gives_the_same_frames(seed: int, blocks: list[int], places: list[int]) -> None:
    sent = some_frames(seed, *blocks)
    cutter, frames = reader()
    pieces = cut(b"".join(sent), places)
    feed(cutter, pieces)
    cutter.finish()
    assert [one.ciphertext for one in frames] == [one[2:] for one in sent]
    assert [one.index for one in frames] == list(range(len(sent)))
    assert [one.size for one in frames] == [len(one) for one in sent]
    assert not any(one.follows_gap for one in frames)
    ends = [sum(len(piece) for piece in pieces[:n]) for n in range(1, len(pieces) + 1)]
    position = 0
    for one in frames:
        assert one.offset == 424 + position
        assert one.head == (one.ciphertext or b"")[:16]
        assert one.first_packet == next(n for n, end in enumerate(ends, 1) if end > position)
        position += one.size
        assert one.packet == next(n for n, end in enumerate(ends, 1) if end >= position)
        assert one.time_ns == 1000 * one.packet
    assert (cutter.pending, cutter.skipped, cutter.lost) == (0, 0, [])


def test_the_packet_that_completes_a_frame_is_the_latest_one() -> None:
    [sent] = some_frames(1, 2)
    cutter, frames = reader()
    cutter.receive(sent[:20], 9, 9000)  # captured behind its second half
    cutter.receive(sent[20:], 8, 8000)
    assert (frames[0].first_packet, frames[0].packet, frames[0].time_ns) == (9, 9, 9000)


@pytest.mark.parametrize(("begin", "head"), [(2, 0), (10, 8), (18, 16), (30, 16)])
def test_a_hole_inside_a_frame_costs_that_frame(begin: int, head: int) -> None:
    one, two, three = some_frames(2, 2, 1, 1)
    cutter, frames = reader()
    feed(cutter, [one[:begin]])
    cutter.skip(hole(4))
    feed(cutter, [one[begin + 4 :] + two, three], first=60)
    assert [f.ciphertext for f in frames] == [None, two[2:], three[2:]]
    assert frames[0].length == 32
    assert frames[0].head == one[2 : 2 + head]
    assert [f.follows_gap for f in frames] == [True, True, False]
    assert [f.offset for f in frames] == [424, 458, 476]


def test_a_hole_to_the_end_of_a_frame_keeps_the_boundary() -> None:
    one, two = some_frames(3, 2, 3)
    cutter, frames = reader()
    feed(cutter, [one[:20]])
    cutter.skip(hole(len(one) - 20))
    feed(cutter, [two[:5], two[5:]], first=60)
    assert [(f.ciphertext, f.head) for f in frames] == [(None, one[2:18]), (two[2:], two[2:18])]


def test_behind_a_hole_a_packet_of_whole_frames_is_believed() -> None:
    one, two, three, four = some_frames(4, 1, 1, 2, 1)
    cutter, frames = reader()
    feed(cutter, [one])
    cutter.skip(hole(len(two)))
    feed(cutter, [three, four], first=60)
    assert [f.ciphertext for f in frames] == [one[2:], three[2:], four[2:]]
    assert [f.follows_gap for f in frames] == [False, True, False]
    assert [f.offset for f in frames] == [424, 460, 494]
    assert cutter.skipped == 0


def test_a_boundary_is_found_where_three_lengths_chain() -> None:
    sent = some_frames(5, 3, 1, 20, 2, 7)
    data = b"".join(sent)
    cutter, frames = reader()
    cutter.skip(hole(1000))
    feed(cutter, cut(data[11:], range(0, 900, 13)), first=60)
    assert [f.ciphertext for f in frames] == [one[2:] for one in sent[1:]]
    assert cutter.skipped == len(sent[0]) - 11
    assert frames[0].offset == 424 + 1000 + len(sent[0]) - 11
    assert frames[0].follows_gap


def test_one_frame_that_begins_a_packet_is_kept_when_the_next_hole_comes() -> None:
    one, two, three = some_frames(6, 1, 2, 2)
    cutter, frames = reader()
    cutter.skip(hole(30))
    feed(cutter, [one + two + three[:20]], first=60)
    cutter.skip(hole(5))
    feed(cutter, [three[25:]], first=80)
    assert [f.ciphertext for f in frames] == [one[2:], two[2:], None]
    assert frames[2].head == three[2:18]
    assert cutter.skipped == 0


def test_a_stream_joined_in_the_middle_of_a_frame() -> None:
    sent = some_frames(7, 2, 1, 1)
    cutter, frames = reader(searching=True, offset=0)
    feed(cutter, [sent[0][9:] + sent[1], sent[2]])
    cutter.finish()
    assert [f.ciphertext for f in frames] == [sent[1][2:], sent[2][2:]]
    assert frames[0].follows_gap
    assert cutter.skipped == len(sent[0]) - 9


@pytest.mark.parametrize("field", [0, 8, 17, 1040, 0xFFFF])
def test_a_length_that_cannot_be_one_loses_the_boundary_until_it_is_found_again(field: int) -> None:
    one, *more = some_frames(8, 1, 2, 3, 1)
    garbage = field.to_bytes(2, "big") + random.Random(9).randbytes(50)
    cutter, frames = reader()
    feed(cutter, [one, garbage, *more])
    assert [f.ciphertext for f in frames] == [f[2:] for f in (one, *more)]
    assert [(x.offset, x.packet, x.field) for x in cutter.lost] == [(442, 2, field)]
    assert cutter.skipped == len(garbage)


def test_what_is_no_frame_is_counted_and_not_kept() -> None:
    cutter, frames = reader()
    rng = random.Random(10)
    for number in range(1, 400):
        cutter.receive(b"\xff" + rng.randbytes(99), number, number)
        assert cutter.pending <= SEARCH_WINDOW
    cutter.finish()
    assert not frames
    assert cutter.skipped + cutter.pending == 399 * 100
    assert len(cutter.lost) == 1


def test_an_unfinished_frame_waits() -> None:
    [sent] = some_frames(11, 3)
    cutter, frames = reader()
    feed(cutter, [sent[:1], sent[1:30]], first=4)
    cutter.finish()
    assert not frames
    assert (cutter.pending, cutter.pending_since) == (30, (4, 4000))


@pytest.mark.parametrize(
    ("data", "start", "expected"),
    [
        (b"", 0, (0, False)),
        (b"\x00\x10" + bytes(16), 0, (1, True)),
        (b"\x00\x10" + bytes(17), 0, (1, False)),
        (b"\x00\x10" + bytes(18), 0, (0, False)),
        (b"\x00\x10" + bytes(15), 0, (0, False)),
        (b"x\x00\x10" + bytes(16), 1, (1, True)),
        (2 * (b"\x00\x20" + bytes(32)), 0, (2, True)),
    ],
)
def test_chain_follows_lengths(data: bytes, start: int, expected: tuple[int, bool]) -> None:
    assert chain(data, start) == expected


pieces = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.sampled_from((b"\x00\x10", b"\x04\x00", b"\x00", b"\x10", b"\x00\x20" + bytes(32), b"\x00\x10" * 9, bytes(700))),
    st.integers(1, 1200),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(pieces, max_size=60), st.booleans())
def test_any_bytes_and_holes_leave_an_account_that_adds_up(steps: list[bytes | int], searching: bool) -> None:
    cutter, frames = reader(searching=searching, offset=0)
    received = missing = 0
    for number, step in enumerate(steps, 1):
        if isinstance(step, int):
            cutter.skip(hole(step, number))
            missing += step
        else:
            cutter.receive(step, number, number)
            received += len(step)
        assert cutter.pending <= SEARCH_WINDOW
        assert cutter.offset + cutter.pending == received + missing
    cutter.finish()
    framed = sum(one.size for one in frames)
    holes_in_frames = framed + cutter.skipped + cutter.pending - received
    assert 0 <= holes_in_frames <= missing
    ends = [0, *(one.offset + one.size for one in frames)]
    assert all(one.offset >= end for one, end in zip(frames, ends, strict=False))


NOISE = random.Random(12).randbytes(20_000)
RUN = (b"\x00\x10" + b"\xee" * 16) * 3
HOSTILE = {
    "noise byte by byte": [bytes((b,)) for b in NOISE],
    "lengths everywhere byte by byte": [bytes((b,)) for b in b"\x04\x00" * 10_000],
    "lengths everywhere in one packet": [b"\x04\x00" * 10_000],
    "framing lost in every packet": [RUN + b"\xff\xff"] * 350,
    "framing lost again and again in one packet": [(RUN + b"\xff\xff") * 1100],
    "small frames byte by byte": [bytes((b,)) for b in RUN * 370],
}


def work_of(packets: list[bytes], *, searching: bool) -> int:
    """What it costs to read these packets."""
    cutter, _ = reader(searching=searching)

    def read() -> None:
        feed(cutter, packets)
        cutter.finish()

    return lines_run(read)


@pytest.mark.parametrize("searching", [True, False])
@pytest.mark.parametrize("name", HOSTILE)
def test_work_grows_with_the_bytes_and_no_faster(name: str, searching: bool) -> None:
    packets = HOSTILE[name]
    half = packets[: len(packets) // 2] if len(packets) > 1 else [packets[0][: len(packets[0]) // 2]]
    size = sum(map(len, packets))
    work = work_of(packets, searching=searching)
    assert work <= 2.3 * work_of(half, searching=searching) + 1000
    assert work <= 100 * size
