"""Byte streams of any capture of a conversation: in order, whole, and with holes of the right size."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tcp_talk import (
    DEVICE,
    MS,
    SECOND,
    SERVER,
    SPACE,
    Heard,
    Talk,
    assert_all_heard,
    captured,
    copy_of,
    healthy,
    lines_run,
    listen_to_one,
    sent_by,
)

from analyzer.network.units import ACK, FIN, PSH, RST, SYN, Segment
from analyzer.streams import (
    PENDING_BYTES,
    PENDING_PIECES,
    RECENT,
    RECENT_BYTES,
    Hole,
    HoleReason,
    Sender,
    Stream,
)

seeds = st.integers(0, 2**32 - 1)
near_the_end = st.integers(SPACE - 1200, SPACE - 1)
anywhere = st.integers(0, SPACE - 1)


def cut_anew(talk: Talk, rng: random.Random, largest: int) -> list[Segment]:
    """The same conversation with its data cut into other segments."""
    cut = []
    for segment in talk.segments:
        begin = 0
        while True:
            end = min(segment.length, begin + rng.randint(1, largest))
            fin = segment.flags & FIN if end == segment.length else 0
            piece = segment.payload[begin:end]
            flags = segment.flags & ~FIN | fin
            cut.append(
                replace(segment, seq=(segment.seq + begin) % SPACE, payload=piece, length=len(piece), flags=flags)
            )
            if end == segment.length:
                break
            begin = end
    return respaced(cut)


def respaced(segments: list[Segment]) -> list[Segment]:
    """Two milliseconds from one to the next, each a packet of its own."""
    start = segments[0].time_ns
    return [replace(s, time_ns=start + 2 * MS * i, ip_id=1 + i % 65_535) for i, s in enumerate(segments)]


def disturbed(segments: list[Segment], rng: random.Random) -> list[Segment]:
    """What a bad place to capture makes of it: swapped, twice, and sent again with other cuts."""
    seen = list(segments)
    for segment in segments:
        lot = rng.random()
        if lot < 0.1:
            seen.append(copy_of(segment, later_ns=rng.randrange(MS)))
        elif lot < 0.2:
            seen.append(copy_of(segment, later_ns=rng.randrange(60 * MS), interface=1))
        elif lot < 0.3 and segment.length > 1:
            begin = rng.randrange(segment.length - 1)
            again = segment.payload[begin : begin + rng.randint(1, segment.length)]
            seen.append(
                replace(
                    segment,
                    seq=(segment.seq + begin) % SPACE,
                    payload=again,
                    length=len(again),
                    flags=segment.flags & ~FIN,
                    ip_id=60_000 + rng.randrange(5000),
                    time_ns=segment.time_ns + rng.randrange(600 * MS),
                )
            )
    return captured(replace(segment, time_ns=segment.time_ns + rng.randrange(40 * MS)) for segment in seen)


# --- Nothing is missing ----------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(seeds, st.sampled_from((1, 7, 60, 400)))
def test_any_cutting_reordering_and_repeating_gives_the_same(seed: int, largest: int) -> None:
    rng = random.Random(seed)
    talk = healthy(seed=seed)
    heard = listen_to_one(disturbed(cut_anew(talk, rng, largest), rng))
    assert_all_heard(talk, heard)
    assert heard.conversation.reached == "established"
    assert not any(side.quality.mismatches for side in heard.conversation.sides.values())


@settings(max_examples=100, deadline=None)
@given(seeds, near_the_end, near_the_end)
def test_sequence_numbers_that_begin_again_change_nothing(seed: int, device_isn: int, server_isn: int) -> None:
    rng = random.Random(seed)
    talk = healthy(seed=seed, device_isn=device_isn, server_isn=server_isn)
    assert_all_heard(talk, listen_to_one(disturbed(cut_anew(talk, rng, 90), rng)))


@settings(max_examples=60, deadline=None)
@given(seeds, anywhere, anywhere)
def test_a_missing_syn_loses_no_byte(seed: int, device_isn: int, server_isn: int) -> None:
    rng = random.Random(seed)
    talk = healthy(seed=seed, device_isn=device_isn, server_isn=server_isn)
    heard = listen_to_one([s for s in talk.segments if not s.flags & SYN])
    assert_all_heard(talk, heard)
    assert heard.conversation.midway
    assert not heard.conversation.sides[SERVER].midway
    both_missing = listen_to_one(talk.segments[3 + rng.randrange(2) :])
    assert both_missing.stream(DEVICE) == talk.sent[DEVICE]


def test_segments_are_joined_across_the_end_of_the_sequence_numbers() -> None:
    talk = Talk(server_isn=SPACE - 21).open().handshake()
    heard = listen_to_one(talk.segments)
    assert heard.part("nonce") == talk.part("nonce")
    assert heard.stream(SERVER) == talk.sent[SERVER]


def test_the_first_data_are_not_late_where_an_acknowledgement_overtook_the_syn() -> None:
    talk = Talk()
    talk.packet(DEVICE, ack=700_041)
    heard = listen_to_one(talk.open().handshake().hello().close().segments)
    assert heard.stream(SERVER)[:40] == talk.part("nonce")
    assert heard.conversation.sides[SERVER].quality.out_of_order == 0
    assert heard.conversation.rows.packets[0] == next(s.number for s in talk.segments if s.payload)


# --- Repeats, keep-alives, overlaps ------------------------------------------------------------------------------


def test_the_first_copy_of_a_byte_wins_and_a_difference_is_noted() -> None:
    talk = Talk().open()
    nonce = talk.rng.randbytes(40)
    talk.send(SERVER, nonce)
    forged = bytes(40)
    talk.packet(SERVER, ACK | PSH, forged, seq=talk.isn[SERVER] + 1)
    heard = listen_to_one(talk.segments)
    assert heard.part("nonce") == nonce
    quality = heard.conversation.sides[SERVER].quality
    assert (quality.mismatches, quality.retransmitted, quality.retransmitted_bytes) == (1, 1, 40)


def test_a_difference_in_a_part_of_an_overlap_is_noted() -> None:
    talk = Talk().open()
    first, other = talk.rng.randbytes(30), talk.rng.randbytes(20)
    talk.send(SERVER, first, acked=False)
    talk.packet(SERVER, ACK | PSH, other, seq=talk.isn[SERVER] + 1 + 20)
    heard = listen_to_one(talk.segments)
    assert heard.stream(SERVER) == first + other[10:]
    assert heard.conversation.sides[SERVER].quality.mismatches == 1


def test_the_first_copy_wins_among_bytes_that_wait_too() -> None:
    talk = Talk().open()
    base, data = talk.isn[SERVER] + 1, talk.rng.randbytes(40)
    talk.packet(SERVER, ACK, data[10:20], seq=base + 10)
    talk.packet(SERVER, ACK, data[5:8] + b"\0\0" + bytes(20), seq=base + 5)
    talk.packet(SERVER, ACK, data[30:], seq=base + 30)
    talk.packet(SERVER, ACK, data, seq=base)
    heard = listen_to_one(talk.segments)
    assert heard.stream(SERVER) == data[:8] + b"\0\0" + data[10:20] + bytes(10) + data[30:]
    assert heard.conversation.sides[SERVER].quality.mismatches == 2


def test_repeats_differ_from_packets_that_were_overtaken() -> None:
    talk = Talk().open()
    pieces = [talk.rng.randbytes(10) for _ in range(4)]
    base = talk.isn[SERVER] + 1
    for index in (1, 0):
        talk.packet(SERVER, ACK, pieces[index], seq=base + 10 * index)
    talk.packet(SERVER, ACK, pieces[3], seq=base + 30)
    talk.wait(SECOND)
    talk.packet(SERVER, ACK, pieces[2], seq=base + 20)
    talk.packet(SERVER, ACK, pieces[2], seq=base + 20)
    heard = listen_to_one(talk.segments)
    quality = heard.conversation.sides[SERVER].quality
    assert heard.stream(SERVER) == b"".join(pieces)
    assert (quality.out_of_order, quality.retransmitted, quality.data_segments) == (1, 2, 5)


@pytest.mark.parametrize("probe", [b"", b"\0"])
def test_keepalives_are_counted_and_are_no_data(probe: bytes) -> None:
    talk = Talk().open().handshake().hello()
    for _ in range(3):
        talk.wait(15 * SECOND)
        talk.packet(SERVER, ACK, probe, seq=talk.next[SERVER] - 1)
        talk.packet(DEVICE)
    talk.close()
    heard = listen_to_one(talk.segments)
    assert_all_heard(talk, heard)
    quality = heard.conversation.sides[SERVER].quality
    assert (quality.keepalives, quality.retransmitted, quality.mismatches) == (3, 0, 0)


def test_a_keepalive_does_not_fill_the_end_of_a_hole() -> None:
    talk = Talk().open().handshake().hello()
    talk.send_frames(SERVER, 1)
    lost = talk.segments[-2]
    talk.wait(15 * SECOND)
    talk.packet(SERVER, ACK, b"\0", seq=talk.next[SERVER] - 1)
    talk.packet(DEVICE)
    heard = listen_to_one([s for s in talk.segments if s is not lost])
    assert heard.gaps(SERVER) == [(442, 18)]


def test_a_capture_that_begins_with_a_keepalive_begins_with_the_next_byte() -> None:
    talk = Talk().open().handshake().hello()
    begin = len(talk.segments)
    talk.packet(SERVER, ACK, seq=talk.next[SERVER] - 1)
    talk.packet(DEVICE)
    for _ in range(3):
        talk.send_frames(SERVER, 1)
        talk.send_frames(DEVICE, 1)
    heard = listen_to_one(talk.segments[begin:])
    assert not heard.conversation.holes
    assert heard.ciphertexts(SERVER) == talk.frames[SERVER][1:]


def test_words_in_a_reset_are_no_data() -> None:
    talk = Talk().open().handshake()
    talk.packet(SERVER, RST | ACK, b"No route to host")
    heard = listen_to_one(talk.segments)
    assert heard.stream(SERVER) == talk.sent[SERVER]
    assert heard.conversation.closed_by == "server-rst"


# --- Holes -----------------------------------------------------------------------------------------------------


def ranges(segments: list[Segment], talk: Talk, sender: Sender) -> list[tuple[int, int]]:
    """Offset and length of the bytes in these segments, joined where nothing lies between."""
    joined: list[tuple[int, int]] = []
    for segment in sorted(
        (s for s in segments if sent_by(s) is sender and s.length), key=lambda s: (s.seq - talk.isn[sender]) % SPACE
    ):
        offset = (segment.seq - talk.isn[sender] - 1) % SPACE
        if joined and sum(joined[-1]) == offset:
            joined[-1] = (joined[-1][0], joined[-1][1] + segment.length)
        else:
            joined.append((offset, segment.length))
    return joined


def assert_frames_survive(talk: Talk, heard: Heard, sender: Sender, gaps: list[tuple[int, int]]) -> None:
    """No frame is invented; every whole one is there up to the first hole, and after three in a row."""
    begin = {DEVICE: 256, SERVER: 424}[sender]
    offsets = {}
    for ciphertext in talk.frames[sender]:
        offsets[begin] = ciphertext
        begin += 2 + len(ciphertext)
    delivered = {one.offset: one for one in heard.frames if one.sender is sender}
    for offset, one in delivered.items():
        assert one.length == len(offsets[offset])
        assert one.ciphertext in (None, offsets[offset])
    edges = [0, *(edge for gap in gaps for edge in (gap[0], sum(gap))), len(talk.sent[sender])]
    for index in range(0, len(edges), 2):
        whole = [o for o, c in offsets.items() if edges[index] <= o and o + 2 + len(c) <= edges[index + 1]]
        if index == 0 or len(whole) >= 3:
            assert all(delivered[o].ciphertext == offsets[o] for o in whole)
    side = heard.conversation.sides[sender]
    framed = sum(one.size for one in delivered.values())
    assert framed + side.skipped + side.rest <= side.sent


@settings(max_examples=150, deadline=None)
@given(seeds, st.sampled_from((9, 18, 60, 400)), st.floats(0.02, 0.5), st.booleans())
def test_what_is_missing_is_told_to_the_byte(seed: int, largest: int, share: float, fin_missing: bool) -> None:
    rng = random.Random(seed)
    talk = healthy(seed=seed)
    segments = cut_anew(talk, rng, largest)
    missing = [s for s in segments if s.length and rng.random() < share]
    kept = [s for s in segments if s not in missing and not (fin_missing and s.flags & FIN and sent_by(s) is SERVER)]
    heard = listen_to_one(captured(kept))
    for sender in Sender:
        side = heard.conversation.sides[sender]
        gaps = ranges(missing, talk, sender)
        assert heard.gaps(sender) == gaps
        assert side.sent == len(talk.sent[sender])
        assert side.captured + sum(length for _, length in gaps) == side.sent
        assert {hole.reason for hole in heard.holes[sender]} <= {HoleReason.NOT_CAPTURED}
        for offset, data in heard.data[sender]:
            assert talk.sent[sender][offset : offset + len(data)] == data
        assert_frames_survive(talk, heard, sender, gaps)


@settings(max_examples=100, deadline=None)
@given(seeds, st.sampled_from((18, 60, 400)), st.integers(0, 60))
def test_packets_cut_by_the_capture_are_holes_to_the_byte(seed: int, largest: int, kept: int) -> None:
    rng = random.Random(seed)
    talk = healthy(seed=seed)
    segments = [replace(s, payload=s.payload[:kept]) for s in cut_anew(talk, rng, largest)]
    heard = listen_to_one(segments)
    for sender in Sender:
        side = heard.conversation.sides[sender]
        assert side.sent == len(talk.sent[sender])
        assert side.captured == sum(len(s.payload) for s in segments if sent_by(s) is sender)
        assert side.captured + sum(length for _, length in heard.gaps(sender)) == side.sent
        assert {hole.reason for hole in heard.holes[sender]} <= {HoleReason.CUT}
        for offset, data in heard.data[sender]:
            assert talk.sent[sender][offset : offset + len(data)] == data
    parts = [heard.conversation.part(kind) for kind in ("nonce", "identity", "session")]
    assert all(part is not None and part.complete for part in parts)


def test_a_whole_copy_is_better_than_one_cut_by_the_capture() -> None:
    talk = Talk().open()
    nonce = talk.rng.randbytes(40)
    talk.send(SERVER, nonce, (20,))
    first, second = talk.segments[3:5]
    cut = replace(second, payload=b"")
    heard = listen_to_one([*talk.segments[:3], cut, replace(second, ip_id=99), first, talk.segments[5]])
    assert heard.part("nonce") == nonce
    assert not heard.conversation.holes


def test_bytes_that_nobody_acknowledged_are_lost() -> None:
    talk = Talk().open()
    data = talk.rng.randbytes(60)
    talk.send(SERVER, data, (20, 40), acked=False)
    del talk.segments[4]
    heard = listen_to_one(talk.segments)
    [hole] = heard.holes[SERVER]
    assert (hole.offset, hole.length, hole.reason, hole.before, hole.packet) == (20, 20, HoleReason.LOST, 4, 5)


def test_a_hole_waits_for_a_late_copy_and_no_longer() -> None:
    talk = Talk().open().handshake()
    talk.send_frames(SERVER, 2)
    talk.send_frames(SERVER, 1)
    late = talk.segments.pop(-4)
    for wait_ns, gaps in ((SECOND, []), (3 * SECOND, [(424, 34)])):
        segments = [*talk.segments, replace(talk.segments[-1], time_ns=late.time_ns + wait_ns - MS, ip_id=7)]
        heard = listen_to_one([*segments, replace(late, time_ns=late.time_ns + wait_ns)])
        assert heard.gaps(SERVER) == gaps


@pytest.mark.parametrize("later_ns", [0, 5 * SECOND])
def test_a_fin_that_was_not_captured_is_no_byte(later_ns: int) -> None:
    talk = Talk().open().handshake().hello()
    lost = talk.fin(SERVER)
    talk.packet(DEVICE)
    talk.wait(later_ns)
    talk.packet(DEVICE)
    talk.fin(DEVICE)
    talk.packet(SERVER)
    heard = listen_to_one([s for s in talk.segments if s is not lost])
    assert not heard.conversation.holes
    assert heard.conversation.sides[SERVER].sent == 442
    assert heard.conversation.closed_by == "device-fin"


def test_a_fin_acknowledged_before_it_was_captured_is_no_byte() -> None:
    talk = Talk().open().handshake().hello()
    fin = talk.fin(SERVER)
    acknowledgement = talk.packet(DEVICE)
    early = replace(acknowledgement, time_ns=fin.time_ns - 1)
    heard = listen_to_one(captured([*talk.segments[:-1], early]))
    assert not heard.conversation.holes
    assert heard.conversation.sides[SERVER].acked == 442


def test_an_absurd_acknowledgement_says_nothing() -> None:
    talk = Talk().open().handshake()
    talk.packet(DEVICE, ack=talk.next[SERVER] + (1 << 29))
    talk.wait(5 * SECOND)
    talk.hello()
    heard = listen_to_one(talk.segments)
    assert not heard.conversation.holes
    assert heard.ciphertexts(SERVER) == talk.frames[SERVER]


# --- Whatever comes --------------------------------------------------------------------------------------------


class Counting:
    """A reader that adds up."""

    def __init__(self) -> None:
        self.length = 0

    def receive(self, data: bytes, packet: int, time_ns: int) -> None:
        assert data
        self.length += len(data)

    def skip(self, hole: Hole) -> None:
        assert hole.length > 0
        assert hole.offset == self.length
        self.length += hole.length


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from((0, 1, 5, SPACE - 3, 70_000, 1 << 31, 12_345_678)),
            st.integers(-40, 40),
            st.sampled_from((0, 0, 0, SYN, FIN, FIN | SYN, RST)),
            st.binary(max_size=30),
            st.integers(0, 30),
            st.sampled_from((0, MS, 3 * SECOND, -SECOND)),
            st.sampled_from(("take", "take", "take", "ack", "aside", "certain", "poll")),
        ),
        max_size=60,
    )
)
def test_any_segments_leave_an_account_that_adds_up(
    steps: list[tuple[int, int, int, bytes, int, int, str]],
) -> None:
    reader = Counting()
    stream = Stream(SERVER, reader)
    talk = Talk()
    for near, by, flags, payload, missing, wait_ns, what in steps:
        talk.now += wait_ns
        segment = talk.packet(SERVER, flags, payload, seq=near + by)
        segment.length += missing
        if what == "take":
            stream.take(segment)
        elif what == "ack":
            stream.acknowledge((near + by) % SPACE, segment.number, segment.time_ns)
        elif what == "aside":
            stream.set_aside(segment)
        elif what == "certain":
            stream.start_at(near + by, certain=True)
        else:
            stream.poll(segment.number, segment.time_ns)
        assert stream.next == reader.length
    stream.finish(1, talk.now)
    assert stream.next == reader.length
    assert stream.acked <= max(stream.next, stream.highest, 0) or stream.acked <= stream.next


def test_what_waits_behind_a_hole_is_bounded() -> None:
    for size, count in ((1, 3 * PENDING_PIECES), (1400, 3 * PENDING_BYTES // 1400)):
        reader = Counting()
        stream = Stream(SERVER, reader)
        talk = Talk()
        stream.start_at(0, certain=True)
        most = 0
        for index in range(count):
            stream.take(talk.packet(SERVER, ACK, bytes(size), seq=100 + 2 * size * index))
            most = max(most, len(stream._pending), stream._pending_bytes // 1400)
        assert most <= PENDING_PIECES
        assert stream._pending_bytes <= PENDING_BYTES
        assert len(list(stream.recent)) <= RECENT
        assert all(len(data) <= RECENT_BYTES for _, data in stream.recent)
        stream.finish(1, talk.now)
        assert stream.next == reader.length == 100 + 2 * size * (count - 1) + size


@pytest.mark.parametrize("claim", [0, 60_000])
@pytest.mark.parametrize("direction", [1, -1])
def test_no_packet_costs_much_whatever_waits(claim: int, direction: int) -> None:
    stream = Stream(SERVER, Counting())
    stream.start_at(0, certain=True)
    talk = Talk()
    for index in range(900):
        stream.take(talk.packet(SERVER, ACK, b"x", seq=30_000 + 3 * index * direction))
    assert len(stream._pending) == 900
    segment = talk.packet(SERVER, ACK, b"y", seq=26_000)
    segment.length += claim
    assert lines_run(lambda: stream.take(segment)) < 400


def test_bytes_cut_off_are_told_apart_from_bytes_that_wait() -> None:
    talk = Talk().open()
    base, data = talk.isn[SERVER] + 1, talk.rng.randbytes(40)
    talk.packet(SERVER, ACK, data[20:30], seq=base + 20)
    talk.packet(SERVER, ACK, data[:10], seq=base).length = 40
    heard = listen_to_one(talk.segments)
    assert heard.data[SERVER] == [(0, data[:10]), (20, data[20:30])]
    assert [(hole.offset, hole.length, hole.reason) for hole in heard.holes[SERVER]] == [
        (10, 10, HoleReason.CUT),
        (30, 10, HoleReason.CUT),
    ]


# --- Small things that no other test would notice ----------------------------------------------------------------


class Fed:
    """One stream, fed directly; offsets count from its first byte, times in milliseconds."""

    def __init__(self, *, certain: bool = True) -> None:
        self.holes: list[tuple[int, int, HoleReason]] = []
        self.data = b""
        self.stream = Stream(SERVER, self)
        self.talk = Talk()
        if certain:
            self.stream.start_at(1000, certain=True)

    def receive(self, data: bytes, packet: int, time_ns: int) -> None:
        self.data += data

    def skip(self, hole: Hole) -> None:
        self.holes.append((hole.offset, hole.length, hole.reason))

    def segment(self, offset: int, data: bytes = b"", flags: int = ACK, at: int = 0) -> Segment:
        return replace(self.talk.packet(SERVER, flags, data, seq=1000 + offset), time_ns=at * MS)

    def take(self, offset: int, data: bytes = b"", flags: int = ACK, at: int = 0) -> None:
        self.stream.take(self.segment(offset, data, flags, at))

    def ack(self, offset: int, at: int = 0) -> int | None:
        return self.stream.acknowledge((1000 + offset) % SPACE, 99, at * MS)

    def finish(self) -> None:
        self.stream.finish(100, 100 * SECOND)


def test_what_was_acknowledged_moves_with_the_beginning() -> None:
    fed = Fed(certain=False)
    fed.take(20, b"b" * 20)
    fed.ack(40)
    fed.take(0, b"a" * 20)
    assert fed.stream.acked == 40
    fed.finish()
    assert (fed.data, fed.holes) == (b"a" * 20 + b"b" * 20, [])


def test_an_acknowledgement_before_the_syn_acknowledges_nothing() -> None:
    fed = Fed(certain=False)
    fed.ack(5)
    fed.stream.start_at(1005, certain=True)
    fed.stream.start_at(1005, certain=True)
    fed = Fed(certain=False)
    fed.ack(0)
    fed.stream.start_at(1001, certain=True)
    assert fed.stream.acked == 0


def test_an_acknowledgement_of_all_that_was_sent_in_silence_is_believed() -> None:
    fed = Fed()
    for place in range(30):
        fed.take(50_000 * place, bytes(50_000))
    fed.ack(1_500_000)
    assert (fed.stream.acked, fed.stream.strange_ack) == (1_500_000, False)


def test_an_acknowledgement_that_is_said_again_tells_no_round_trip_of_what_came_since() -> None:
    fed = Fed()
    fed.take(0, b"a" * 20)
    assert fed.ack(20, at=50) == 50 * MS
    fed.take(20, b"b" * 20, at=60)
    assert fed.ack(10, at=70) is None
    assert fed.ack(20, at=80) is None
    assert fed.ack(40, at=110) == 50 * MS


def test_a_damaged_packet_without_data_does_not_cut_a_hole_in_two() -> None:
    fed = Fed()
    fed.take(0, b"a" * 10)
    fed.take(30, b"b" * 10)
    fed.stream.set_aside(fed.segment(20))
    fed.finish()
    assert fed.holes == [(10, 20, HoleReason.LOST)]


def test_each_damaged_packet_in_a_hole_is_told() -> None:
    fed = Fed()
    fed.take(0, b"a" * 10)
    fed.take(50, b"b" * 10)
    for offset in (30, 10):
        fed.stream.set_aside(fed.segment(offset, b"?" * 10))
    fed.finish()
    damaged, lost = HoleReason.DAMAGED, HoleReason.LOST
    assert fed.holes == [(10, 10, damaged), (20, 10, lost), (30, 10, damaged), (40, 10, lost)]


def test_the_last_byte_before_a_fin_that_was_captured_is_a_byte() -> None:
    fed = Fed()
    fed.take(0, b"a" * 10)
    fed.take(11, flags=ACK | FIN)
    fed.ack(12)
    fed.finish()
    assert fed.holes == [(10, 1, HoleReason.NOT_CAPTURED)]
    assert fed.stream.acked == 11


def test_a_fin_proves_what_was_sent_before_it() -> None:
    fed = Fed()
    fed.take(0, b"a" * 10)
    fed.take(15, flags=ACK | FIN)
    fed.finish()
    assert fed.holes == [(10, 5, HoleReason.LOST)]


def test_a_repeat_further_on_is_compared_at_its_own_place() -> None:
    fed = Fed()
    for place in range(4):
        fed.take(10 * place, bytes(range(10 * place, 10 * place + 10)))
    fed.take(20, bytes(range(20, 30)))
    fed.take(15, bytes(range(15, 25)))
    assert fed.stream.quality.mismatches == 0
    fed.take(20, bytes(10))
    assert fed.stream.quality.mismatches == 1


def test_overtaken_is_not_sent_again() -> None:
    fed = Fed()
    fed.take(0, b"a" * 10, at=0)
    fed.take(20, b"c" * 10, at=10)
    fed.take(10, b"b" * 10, at=20)
    fed.take(40, b"e" * 10, at=30)
    fed.take(30, b"d" * 10, at=500)
    quality = fed.stream.quality
    assert (quality.out_of_order, quality.retransmitted) == (1, 1)
