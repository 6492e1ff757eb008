"""Which connection a packet belongs to: ports used again, late packets, missing SYNs, damaged copies."""

from __future__ import annotations

import pickle
import random
import struct
from dataclasses import replace
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tcp_talk import (
    DEVICE,
    DEVICE_END,
    MS,
    SECOND,
    SERVER,
    SERVER_END,
    SPACE,
    START,
    Heard,
    Listener,
    Talk,
    assert_all_heard,
    captured,
    copy_of,
    healthy,
    listen,
    listen_to_one,
    sent_by,
)

from analyzer import tracker as tracking
from analyzer.capture.packet import Packet
from analyzer.conversation import Conversation
from analyzer.copies import FULL
from analyzer.lane import Lane
from analyzer.network import Decoder, Segment
from analyzer.network.units import ACK, FIN, RST, SYN
from analyzer.seen import FRAMES_HELD, NO_TRIPS, Side
from analyzer.streams import RECENT, HoleReason, Sender
from analyzer.tracker import LINGER_NS, Tracker


def one_after_the_other(*talks: Talk, pause_ns: int = SECOND) -> list[Segment]:
    """Their segments, each conversation after the end of the one before."""
    segments: list[Segment] = []
    for talk in talks:
        begin = segments[-1].time_ns + pause_ns if segments else START
        shift = begin - talk.segments[0].time_ns
        segments += [
            replace(s, time_ns=s.time_ns + shift, ip_id=len(segments) + i) for i, s in enumerate(talk.segments, 1)
        ]
    return segments


def assert_apart(talks: list[Talk], heard: list[Heard]) -> None:
    assert len(heard) == len(talks)
    for talk, one in zip(talks, heard, strict=True):
        assert_all_heard(talk, one)


# --- A port used again -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pause_ns", [0, SECOND, 2 * LINGER_NS])
@pytest.mark.parametrize(("device_isn", "server_isn"), [(2000, 700_900), (0x8000_0000, 0x9000_0000), (1000, 5)])
def test_a_new_syn_is_a_new_conversation(pause_ns: int, device_isn: int, server_isn: int) -> None:
    talks = [healthy(), healthy(seed=2, device_isn=device_isn, server_isn=server_isn)]
    heard = listen(one_after_the_other(*talks, pause_ns=pause_ns))
    assert_apart(talks, heard)
    assert [one.conversation.number for one in heard] == [1, 2]


def test_a_new_syn_is_a_new_conversation_although_the_old_one_never_ended() -> None:
    first, second = Talk().open().handshake().hello(), healthy(seed=2, device_isn=90_000, server_isn=90_000)
    heard = listen(one_after_the_other(first, second))
    assert_apart([first, second], heard)
    assert heard[0].conversation.closed_by == "none"


def test_a_repeated_syn_is_none() -> None:
    talk = Talk()
    for wait in (1, 2, 4):
        talk.wait(wait * SECOND)
        talk.syn()
    talk.syn_ack()
    talk.wait(SECOND)
    talk.syn_ack()
    talk.packet(DEVICE)
    talk.handshake().hello().close()
    heard = listen_to_one(talk.segments)
    assert_all_heard(talk, heard)
    assert heard.conversation.syn_count == 3
    assert [seen.packet for seen in heard.conversation.syns] == [1, 2, 3]


def test_a_refused_syn_tried_again_with_the_same_number_is_a_repeat() -> None:
    talk = Talk()
    for _ in range(3):
        talk.syn()
        talk.packet(SERVER, RST | ACK, seq=0)
        talk.wait(SECOND // 2)
    heard = listen_to_one(talk.segments)
    assert heard.conversation.syn_count == 3
    assert heard.conversation.closed_by == "server-rst"
    assert heard.conversation.reached == "syn"


def test_a_connection_that_was_refused_at_first_is_not_let_go_in_a_long_silence() -> None:
    """What it said after half a minute of silence was taken for late packets of a connection that had ended."""
    talk = Talk()
    talk.syn()
    talk.packet(SERVER, RST | ACK, seq=0)
    talk.wait(SECOND // 2)
    talk.open().handshake().hello()
    talk.wait(60 * SECOND)
    other = Talk(device_end=(DEVICE_END[0], 1989), start_ns=talk.now - 20 * SECOND).open()
    talk.send_frames(DEVICE, 1)
    talk.send_frames(SERVER, 1)
    heard = next(one for one in listen(captured([*talk.segments, *other.segments])) if one.conversation.syn_count == 2)
    assert_all_heard(talk, heard)


def test_the_same_initial_number_after_the_end_is_another_connection() -> None:
    talks = [healthy(), healthy(seed=2)]
    assert_apart(talks, listen(one_after_the_other(*talks)))


@pytest.mark.parametrize("interface", [0, 1])
def test_a_late_copy_of_the_syn_is_none(interface: int) -> None:
    talk = healthy()
    late = copy_of(talk.segments[0], later_ns=500 * MS, interface=interface)
    heard = listen_to_one(captured([*talk.segments, late]))
    assert_all_heard(talk, heard)
    assert heard.conversation.syn_count == 1
    assert heard.conversation.sides[DEVICE].quality.copies == 1


def test_late_packets_of_the_old_connection_stay_with_it() -> None:
    first, second = healthy(), healthy(seed=2, device_isn=300_000, server_isn=900_000)
    segments = one_after_the_other(first, second, pause_ns=5 * MS)
    data = next(s for s in segments if s.length == 384)
    again = [
        replace(data, time_ns=segments[-30].time_ns, ip_id=60_001),
        replace(first.segments[-1], time_ns=segments[-28].time_ns, ip_id=60_002),
        replace(first.segments[-2], flags=RST, time_ns=segments[-26].time_ns, ip_id=60_003),
    ]
    heard = listen(captured([*segments, *again]))
    assert_apart([first, second], heard)
    assert [str(closing) for closing in heard[1].conversation.closings] == ["device-fin", "server-fin"]
    assert heard[0].conversation.sides[SERVER].quality.retransmitted == 1


def test_an_old_packet_before_the_new_connection_is_answered() -> None:
    first, second = healthy(), Talk(seed=2, device_isn=3_000_000, server_isn=90_000_000)
    second.syn()
    old = replace(next(s for s in first.segments if s.length == 384), ip_id=60_001)
    segments = one_after_the_other(first, second)
    segments.append(replace(old, time_ns=segments[-1].time_ns + MS))
    second.syn_ack()
    second.handshake()
    last = segments[-1].time_ns
    shift = last + SECOND - second.segments[1].time_ns
    segments += [replace(s, time_ns=s.time_ns + shift, ip_id=30_000 + i) for i, s in enumerate(second.segments[1:])]
    heard = listen(segments)
    assert len(heard) == 2
    assert heard[1].part("nonce") == second.part("nonce")
    assert heard[1].part("session") == second.part("session")
    assert heard[0].conversation.sides[SERVER].quality.retransmitted == 1


@pytest.mark.parametrize(("device_isn", "server_isn"), [(1 << 30, 1 << 31), (5000, 705_000), (None, None)])
@pytest.mark.parametrize("ended", [True, False])
def test_a_handshake_in_the_place_of_frames_is_another_connection(
    device_isn: int | None, server_isn: int | None, ended: bool
) -> None:
    """Its SYN and SYN-ACK are missing, and its numbers may be near those of the old one, or even go on from them."""
    first = healthy()
    if not ended:
        del first.segments[-4:]
        first.next = {sender: number - 1 for sender, number in first.next.items()}
    second = Talk(
        seed=2,
        device_isn=first.next[DEVICE] - 1 if device_isn is None else device_isn,
        server_isn=first.next[SERVER] - 1 if server_isn is None else server_isn,
    )
    second.open().handshake().hello()
    for _ in range(4):
        second.send_frames(DEVICE, 2)
        second.send_frames(SERVER, 1)
    del second.segments[:3]
    heard = listen(one_after_the_other(first, second))
    assert_apart([first, second], heard)
    assert heard[1].conversation.midway
    assert heard[1].conversation.reached == "established"


@pytest.mark.parametrize("first_missing", [1, 3, 20])
def test_a_syn_soon_after_a_connection_whose_syn_is_missing_is_another_one(first_missing: int) -> None:
    talks = [healthy(), healthy(seed=2, device_isn=1000 + 64_000, server_isn=700_000 + 64_000)]
    for keep in (0, 1):
        segments = one_after_the_other(*talks, pause_ns=3 * SECOND)[first_missing:]
        if keep:
            segments = [s for s in segments if s.flags != SYN]
        heard = listen(segments)
        assert len(heard) == 2
        assert_all_heard(talks[1], heard[1])
        assert heard[1].conversation.syn_ack is not None


def test_a_late_first_syn_is_of_the_connection_that_it_began() -> None:
    talk = healthy()
    syn = replace(talk.segments[0], time_ns=talk.segments[20].time_ns + 1)
    heard = listen_to_one(captured([*talk.segments[2:], syn]))
    assert_all_heard(talk, heard)
    assert heard.conversation.syn_count == 1


def test_a_frame_of_which_forty_bytes_come_first_is_no_new_connection() -> None:
    talk = Talk().open().handshake().hello()
    for cuts in ((40,), (10, 50), (40, 80)):
        talk.send_frames(SERVER, 16, cuts=cuts)
        talk.send_frames(DEVICE, 15)
    talk.send_frames(SERVER, 4, cuts=(40,))
    assert_all_heard(talk, listen_to_one(talk.segments))
    assert_all_heard(talk, listen_to_one(talk.segments[:-2] + talk.segments[-1:] + talk.segments[-2:-1]))


# --- After the end, and before the beginning -------------------------------------------------------------------


def test_late_packets_of_a_connection_that_was_let_go_begin_none() -> None:
    talk = healthy()
    other = healthy(seed=2)
    for segment in other.segments:
        segment.source_port = 2000 if segment.source_port == DEVICE_END[1] else segment.source_port
        segment.target_port = 2000 if segment.target_port == DEVICE_END[1] else segment.target_port
    segments = one_after_the_other(talk, other, pause_ns=2 * LINGER_NS)
    last = segments[-1].time_ns
    late = [
        replace(talk.segments[-1], time_ns=last + MS, ip_id=60_000),
        replace(talk.segments[-1], flags=RST, time_ns=last + 2 * MS, ip_id=60_001),
        replace(next(s for s in talk.segments if s.length == 384), time_ns=last + 3 * MS, ip_id=60_002),
    ]
    listener = Listener()
    for number, segment in enumerate([*segments, *late], 1):
        segment.number = number
        listener.tracker.take(segment)
    assert [conversation.number for conversation in listener.ended] == [1]
    listener.tracker.finish()
    assert len(listener.heard) == 2
    assert listener.tracker.stragglers == 3


def test_a_closed_conversation_is_let_go_and_the_others_stay() -> None:
    listener = Listener()
    talk = healthy()
    for segment in talk.segments:
        listener.tracker.take(segment)
    assert not listener.ended
    stranger = Talk(device_end=(bytes((192, 168, 1, 105)), 40_000), start_ns=talk.now + LINGER_NS + SECOND)
    listener.tracker.take(stranger.syn())
    assert [conversation.number for conversation in listener.ended] == [1]
    assert listener.ended[0].kind == "spark"
    listener.tracker.finish()
    assert [conversation.number for conversation in listener.ended] == [1, 2]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_more_conversations_than_are_held_ready_change_nothing(seed: int, held: int) -> None:
    """Whatever is stored while it is silent goes on as if nothing had been."""
    rng = random.Random(seed)
    talks = [healthy(seed=n, device_isn=rng.randrange(SPACE), server_isn=rng.randrange(SPACE)) for n in range(4)]
    left = [list(dialled(talk, 5000 + n).segments) for n, talk in enumerate(talks)]
    for segments in left:
        del segments[rng.randrange(len(segments))]
    mixed = []
    while any(left):
        mixed.append(rng.choice([segments for segments in left if segments]).pop(0))
        strange = Talk(device_end=(bytes((10, *rng.randbytes(3))), rng.randrange(1, 5000)))
        mixed += [strange.syn() for _ in range(rng.randrange(3))]
    mixed = captured([replace(segment, time_ns=START + i * MS) for i, segment in enumerate(mixed)])
    whole = [state_of(heard.conversation) for heard in listen(mixed)]
    with patch.object(tracking, "READY", held):
        assert [state_of(heard.conversation) for heard in listen(mixed)] == whole


def dialled(talk: Talk, port: int) -> Talk:
    """The same conversation from another port of the device."""
    for segment in talk.segments:
        segment.source_port = port if segment.source_port == DEVICE_END[1] else segment.source_port
        segment.target_port = port if segment.target_port == DEVICE_END[1] else segment.target_port
    return talk


def state_of(conversation: Conversation) -> list[object]:
    """All that is known of a conversation at its end."""
    names = "device server sides syns syn_count syn_ack connected closings holes reply_acked nonce_acked server_hello"
    more = "first_frames last_frames dead_frames first_packet last_packet start_ns end_ns kind reached initial_numbers"
    found: list[object] = [getattr(conversation, name) for name in f"{names} {more}".split()]
    trips = [
        (side.round_trips.counts, side.round_trips.least, side.round_trips.greatest) for side in sides(conversation)
    ]
    watch = conversation.watch
    seen = (watch.pings, watch.pings_answered, watch.ping_rtt_ns, watch.unanswered, watch.update, watch.offers)
    rows = conversation.rows
    found[2] = [replace(side, round_trips=NO_TRIPS) for side in sides(conversation)]
    return [*found, trips, seen, (rows.total, rows.packets, rows.words())]


def sides(conversation: Conversation) -> list[Side]:
    return list(conversation.sides.values())


def test_silent_connections_take_little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "READY", 10)
    listener = Listener()
    for number in range(200):
        listener.tracker.take(Talk(device_end=(DEVICE_END[0], 1000 + number), device_isn=number << 20).syn())
    assert not listener.ended
    assert sum(heard.conversation.stored_size == 0 for heard in listener.heard) <= 10
    assert max(heard.conversation.stored_size for heard in listener.heard) < 1000


def test_late_packets_are_known_however_many_connections_came_between() -> None:
    first = healthy()
    others = [Talk(device_end=(DEVICE_END[0], port), start_ns=first.now + 2 * LINGER_NS) for port in range(5000, 5300)]
    late = replace(next(s for s in first.segments if s.length == 384), time_ns=first.now + 3 * LINGER_NS, ip_id=60_000)
    listener = Listener()
    for number, segment in enumerate([*first.segments, *(talk.syn() for talk in others), late], 1):
        segment.number = number
        listener.tracker.take(segment)
    assert len(listener.heard) == 301
    assert listener.tracker.stragglers == 1


# --- The straight way --------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.sampled_from((None, 0, 0xDEAD)))
def test_the_straight_way_leads_to_the_same_place(seed: int, counted: bool, checksum: int | None) -> None:
    """Ordinary packets between all that can happen to them: lost, late, sent again, copied, cut, damaged, joined."""
    rng = random.Random(seed)
    talk = Talk(seed=seed, device_isn=rng.choice((5, SPACE - 700)), server_isn=rng.choice((9, SPACE - 500)))
    talk.open().handshake().hello()
    for _ in range(rng.randrange(20, 120)):
        sender = rng.choice(list(Sender))
        blocks = [rng.choice((1, 1, 2, 5, 33, 40)) for _ in range(rng.choice((1, 1, 1, 2)))]
        talk.send_frames(sender, *blocks, cuts=rng.choice(((), (), (7,))))
        talk.wait(rng.choice((0, MS, SECOND, 16 * SECOND)))
    packets = talk.close().segments
    del packets[rng.choice((len(packets), rng.randrange(10, len(packets)))) :]
    for _ in range(rng.choice((0, 0, 1, 4))):
        place = rng.randrange(3, len(packets))
        one = packets[place]
        late = replace(one, time_ns=one.time_ns + rng.choice((0, MS, 300 * MS)), interface=rng.randrange(2))
        packets[place : place + 1] = rng.choice(([], [one, late], [one, replace(late, ip_id=rng.randrange(9))]))
        packets.insert(min(place + rng.randrange(6), len(packets)), rng.choice((one, late)))
    if not counted:
        packets = [replace(one, ip_id=7) for one in packets]
    wrong = rng.randrange(len(packets)) if rng.random() < 0.3 else -1
    segments = decoded(
        *(
            on_the_wire(one, damage=0 if n == wrong and one.payload else None, checksum=checksum)
            for n, one in enumerate(packets)
        )
    )
    assert state_of(listen_to_one(segments).conversation) == state_of(listen_the_long_way(segments))


def listen_the_long_way(segments: list[Segment]) -> Conversation:
    with patch.object(Lane, "take", lambda *_: False):
        return listen_to_one(segments).conversation


def test_the_straight_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk().open().handshake().hello()
    for _ in range(50):
        talk.send_frames(DEVICE, 1)
        talk.send_frames(SERVER, 2)
    segments = decoded(*(on_the_wire(one) for one in captured(talk.segments)))
    long_way: list[Segment] = []
    honest = Conversation.take

    def noting(self: Conversation, segment: Segment) -> None:
        long_way.append(segment)
        honest(self, segment)

    monkeypatch.setattr(Conversation, "take", noting)
    listen(segments)
    assert len(long_way) < 10
    assert len(segments) > 150


@pytest.mark.parametrize("first", [0, 1, 2, 3, 4, 6, 8, 10, 12])
def test_the_straight_way_begins_anywhere(first: int) -> None:
    """A capture that begins in the middle, and goes on for longer than all is kept of it."""
    talk = Talk(seed=first).open().handshake().hello()
    for place in range(120 if first else 400):
        talk.send_frames(SERVER if place % 3 else DEVICE, 1 + place % 4, cuts=(7,) if place % 7 == first % 7 else ())
        talk.wait((place % 5) * SECOND)
    segments = decoded(*(on_the_wire(one) for one in talk.segments[first:]))
    assert state_of(listen_to_one(segments).conversation) == state_of(listen_the_long_way(segments))


@pytest.mark.parametrize(("says", "has"), [(19, 19), (20, 16), (12, 16), (0, 16)])
def test_the_straight_way_takes_no_wrong_length_for_a_frame(says: int, has: int) -> None:
    talk = Talk().open().handshake().hello()
    talk.send_frames(DEVICE, 1)
    talk.send(SERVER, says.to_bytes(2, "big") + bytes(has))
    for _ in range(10):
        talk.send_frames(SERVER, 2)
    segments = decoded(*(on_the_wire(one) for one in talk.segments))
    conversation = listen_to_one(segments).conversation
    assert [lost.field for lost in conversation.sides[SERVER].lost] == [says]
    assert state_of(conversation) == state_of(listen_the_long_way(segments))


def test_the_straight_way_keeps_few_bytes() -> None:
    talk = Talk().open().handshake().hello()
    for _ in range(300):
        talk.send_frames(SERVER, 4)
    listener = Listener()
    for segment in decoded(*(on_the_wire(one) for one in talk.segments)):
        listener.tracker.take(segment)
    conversation = listener.heard[0].conversation
    lanes = conversation.lanes
    assert len(conversation.framed) <= FRAMES_HELD
    assert max(len(lane.stream.run) for lane in lanes) < 2 * RECENT * 66
    assert all(len(lane.headers.younger) <= FULL for lane in lanes)


@pytest.mark.parametrize("numbered", [True, False])
def test_the_straight_way_sees_whether_identifications_change(numbered: bool) -> None:
    """Where all packets have the same one, what comes again a moment later was sent again, and is no copy."""
    talk = Talk().open().handshake().hello()
    for _ in range(10):
        talk.send_frames(DEVICE, 1)
    packets = [one if numbered or n < 12 else replace(one, ip_id=7) for n, one in enumerate(talk.segments)]
    last = packets[-1] if packets[-1].length else packets[-2]
    again = replace(last, time_ns=packets[-1].time_ns + 300 * MS)
    for way in (lambda segments: listen_to_one(segments).conversation, listen_the_long_way):
        quality = way(decoded(*map(on_the_wire, captured([*packets, again])))).sides[DEVICE].quality
        assert (quality.copies, quality.retransmitted) == ((1, 0) if numbered else (0, 1))


def test_what_is_kept_can_be_sent_to_another_process() -> None:
    conversation = listen_to_one(healthy().segments).conversation
    assert state_of(pickle.loads(pickle.dumps(conversation))) == state_of(conversation)  # noqa: S301 - our own


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(6)))
def test_the_first_packets_in_any_order_are_one_conversation(order: list[int]) -> None:
    """SYN, SYN-ACK, acknowledgement, nonce, acknowledgement, identity."""
    talk = healthy()
    first = [replace(talk.segments[place], time_ns=START + i * MS) for i, place in enumerate(order)]
    heard = listen_to_one([*first, *talk.segments[6:]])
    assert_all_heard(talk, heard)
    conversation = heard.conversation
    assert not conversation.midway
    assert (conversation.device.port, conversation.server.port) == (1988, 5683)
    assert conversation.connected is not None
    assert conversation.reached == "established"


def test_a_server_that_speaks_with_its_first_acknowledgement() -> None:
    talk = Talk()
    talk.syn()
    talk.syn_ack()
    talk.segments.pop()
    nonce = talk.rng.randbytes(40)
    talk.packet(SERVER, SYN | ACK, nonce, seq=talk.isn[SERVER])
    talk.next[SERVER] += 40
    talk.sent[SERVER] = nonce
    talk.packet(DEVICE)
    talk.send(DEVICE, talk.rng.randbytes(256))
    talk.send(SERVER, talk.rng.randbytes(384))
    assert_all_heard(talk, listen_to_one(talk.hello().close().segments))


def test_a_half_open_connection() -> None:
    talk = Talk()
    talk.syn()
    for _ in range(3):
        talk.syn_ack()
        talk.wait(SECOND)
    heard = listen_to_one(talk.segments)
    assert heard.conversation.reached == "connected"
    only_syn = listen_to_one(talk.segments[:1])
    assert only_syn.conversation.reached == "syn"
    assert only_syn.conversation.closed_by == "none"


# --- Which end is the device -----------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1, 2, 3, 4])
def test_the_device_is_the_end_without_the_port(first: int) -> None:
    talk = Talk(server_end=(SERVER_END[0], 8001)).open().handshake().hello()
    heard = listen_to_one(talk.segments[first:], ports=(5683, 8001))
    conversation = heard.conversation
    assert (conversation.device.ip, conversation.device.port) == ("192.168.1.104", 1988)
    assert (conversation.server.ip, conversation.server.port) == ("54.208.229.4", 8001)
    assert heard.ciphertexts(DEVICE) == talk.frames[DEVICE]


def test_who_sent_the_syn_is_the_device_whatever_the_ports() -> None:
    talk = Talk(device_end=(DEVICE_END[0], 5683), server_end=(SERVER_END[0], 7000)).open()
    conversation = listen_to_one(talk.segments).conversation
    assert (conversation.device.port, conversation.server.port) == (5683, 7000)
    answer_first = listen_to_one(talk.segments[1:]).conversation
    assert (answer_first.device.port, answer_first.server.port) == (5683, 7000)


def test_only_the_named_ports_are_wanted() -> None:
    talk = Talk()
    tracker = Tracker((5683,), lambda _: None, lambda _: None)
    assert tracker.wants(talk.syn())
    assert tracker.wants(talk.syn_ack())
    other = Talk(server_end=(SERVER_END[0], 443)).syn()
    assert not tracker.wants(other)
    assert Tracker((5683, 443), lambda _: None, lambda _: None).wants(other)


# --- Checksums, and the same packet twice --------------------------------------------------------------------


def on_the_wire(segment: Segment, *, damage: int | None = None, checksum: int | None = None) -> Packet:
    """An Ethernet frame with real checksums; ``damage`` flips a byte of the payload behind them."""
    header = struct.pack(
        "!HHIIHHHH",
        segment.source_port,
        segment.target_port,
        segment.seq,
        segment.ack,
        5 << 12 | segment.flags,
        segment.window,
        0,
        0,
    )
    pseudo = segment.source + segment.target + struct.pack("!HH", 6, len(header) + segment.length)
    if checksum is None:
        data = pseudo + header + segment.payload
        data += b"\0" * (len(data) % 2)
        checksum = 0xFFFF - sum(struct.unpack(f"!{len(data) // 2}H", data)) % 0xFFFF
    tcp = bytearray(header[:16] + struct.pack("!HH", checksum, 0) + segment.payload)
    if damage is not None:
        tcp[20 + damage] ^= 0x55
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), segment.ip_id or 0, 0, segment.ttl, 6, 0)
    frame = bytes(12) + b"\x08\x00" + ip + segment.source + segment.target + tcp
    return Packet(segment.number, segment.time_ns, 1, frame, len(frame), segment.interface)


def decoded(*packets: Packet) -> list[Segment]:
    decoder = Decoder()
    units = [decoder.decode(packet) for packet in packets]
    return [unit for unit in units if isinstance(unit, Segment)]


def test_the_checksums_of_these_packets_are_right() -> None:
    talk = healthy()
    segments = decoded(*(on_the_wire(segment) for segment in talk.segments))
    assert [segment.checksum_good() for segment in segments] == [True] * len(talk.segments)
    assert_all_heard(talk, listen_to_one(segments))


@pytest.mark.parametrize("place", ["before", "behind"])
@pytest.mark.parametrize("later_ns", [MS // 2, 300 * MS])
def test_a_damaged_copy_is_set_aside(place: str, later_ns: int) -> None:
    talk = healthy()
    packets = []
    for segment in talk.segments:
        packets.append(on_the_wire(segment))
        if segment.length:
            late = replace(segment, time_ns=segment.time_ns + later_ns)
            damaged = on_the_wire(late, damage=segment.length // 2)
            packets.insert(len(packets) - (place == "before"), damaged)
    heard = listen_to_one(decoded(*packets))
    assert_all_heard(talk, heard)
    assert not any(side.quality.mismatches for side in heard.conversation.sides.values())
    assert heard.conversation.sides[SERVER].quality.set_aside > 5


def test_a_segment_of_which_only_a_damaged_copy_exists_is_a_hole() -> None:
    talk = healthy()
    packets = [on_the_wire(s, damage=3 if s.length == 384 else None) for s in talk.segments]
    heard = listen_to_one(decoded(*packets))
    assert heard.part("session") is None
    session = heard.conversation.part("session")
    assert session is not None
    assert (session.received, session.missing) == (0, 384)
    assert [(h.offset, h.length, h.reason) for h in heard.conversation.holes] == [(40, 384, HoleReason.DAMAGED)]
    assert heard.ciphertexts(SERVER) == talk.frames[SERVER]
    assert heard.conversation.reached == "established"


def test_a_damaged_part_of_a_larger_hole() -> None:
    talk = Talk().open()
    talk.send(SERVER, talk.rng.randbytes(424), (40, 140, 240))
    packets = [on_the_wire(s, damage=3 if s.length == 100 and s.number == 6 else None) for s in talk.segments]
    del packets[4]
    heard = listen_to_one(decoded(*packets))
    assert [(h.offset, h.length, h.reason) for h in heard.conversation.holes] == [
        (40, 100, HoleReason.NOT_CAPTURED),
        (140, 100, HoleReason.DAMAGED),
    ]


@pytest.mark.parametrize("checksum", [0, 0xDEAD, None])
def test_checksums_left_to_the_network_card_say_nothing(checksum: int | None) -> None:
    talk = healthy()
    packets = []
    for segment in talk.segments:
        value = checksum
        if checksum is None:  # the bare sum of the pseudo-header
            words = struct.unpack("!4H", segment.source + segment.target)
            value = (sum(words) + 6 + 20 + segment.length) % 0xFFFF
        packets.append(on_the_wire(segment, checksum=value if sent_by(segment) is SERVER else None))
    listener = Listener()
    for segment in decoded(*packets):
        listener.tracker.take(segment)
    listener.tracker.finish()
    [heard] = listener.heard
    assert_all_heard(talk, heard)
    assert heard.conversation.sides[SERVER].quality.set_aside == 0
    counted = listener.tracker.checksums
    assert [sender for sender, count in counted.items() if count.unfinished + count.bad > count.good] == [SERVER_END[0]]


@pytest.mark.parametrize("right", [1, 2, 5])
def test_checksums_that_are_right_at_first_lose_nothing_when_most_are_wrong(right: int) -> None:
    talk = healthy()
    server = [s.number for s in talk.segments if sent_by(s) is SERVER]
    packets = [on_the_wire(s, checksum=0xDEAD if s.number in server[right:] else None) for s in talk.segments]
    heard = listen_to_one(decoded(*packets))
    assert_all_heard(talk, heard)
    assert heard.conversation.sides[SERVER].quality.set_aside == 0


@pytest.mark.parametrize("later_ns", [0, 25 * MS, 3 * SECOND])
@pytest.mark.parametrize("numbered", [True, False])
def test_two_interfaces_see_every_packet_once(later_ns: int, numbered: bool) -> None:
    talk = healthy()
    talk.segments = [replace(s, ip_id=s.ip_id if numbered else None) for s in talk.segments]
    copies = [replace(copy_of(s, later_ns=later_ns, interface=1), ttl=63) for s in talk.segments]
    heard = listen_to_one(captured([*talk.segments, *copies]))
    assert_all_heard(talk, heard)
    for sender in Sender:
        quality = heard.conversation.sides[sender].quality
        assert quality.copies == quality.packets == sum(sent_by(s) is sender for s in talk.segments)
        assert quality.retransmitted == quality.out_of_order == 0


def test_what_was_sent_again_is_no_copy() -> None:
    for ip_id in (None, 0, 77):
        talk = Talk().open()
        talk.send(SERVER, talk.rng.randbytes(40), acked=False)
        for wait in (2, 4):
            talk.wait(wait * SECOND)
            talk.segments.append(replace(talk.segments[3], time_ns=talk.now))
        heard = listen_to_one([replace(s, ip_id=ip_id) for s in talk.segments])
        quality = heard.conversation.sides[SERVER].quality
        assert (quality.copies, quality.retransmitted) == (0, 2)
        assert heard.conversation.sides[SERVER].unacked_tries == 3


def test_a_copy_that_differs_is_noted() -> None:
    talk = healthy()
    data = next(s for s in talk.segments if s.length == 256)
    other = replace(copy_of(data, later_ns=100), payload=bytes(256))
    heard = listen_to_one(captured([*talk.segments, other]))
    assert_all_heard(talk, heard)
    quality = heard.conversation.sides[DEVICE].quality
    assert (quality.copies, quality.mismatches) == (1, 1)


# --- Whatever comes --------------------------------------------------------------------------------------------

segments = st.builds(
    lambda sender, flags, seq, ack, payload, missing, wait, ip_id, port: (
        sender,
        flags,
        seq,
        ack,
        payload,
        missing,
        wait,
        ip_id,
        port,
    ),
    st.sampled_from(Sender),
    st.sampled_from((ACK, ACK, ACK, ACK, SYN, SYN | ACK, FIN | ACK, RST, RST | ACK, FIN | SYN | RST, 0, 0xFFF)),
    st.one_of(st.integers(0, 900), st.sampled_from((SPACE - 1, SPACE - 40, 1 << 31, 1 << 20, 3 << 20))),
    st.one_of(st.integers(0, 900), st.sampled_from((SPACE - 1, SPACE - 40, 1 << 31, 1 << 20, 3 << 20))),
    st.one_of(st.just(b""), st.binary(max_size=50), st.sampled_from((40, 256, 384)).map(bytes)),
    st.sampled_from((0, 0, 0, 1, 40, 65_000)),
    st.sampled_from((0, MS, SECOND, 40 * SECOND, -SECOND)),
    st.sampled_from((None, 0, 1, 2)),
    st.sampled_from((1988, 1989)),
)


@settings(max_examples=250, deadline=None)
@given(st.lists(segments, max_size=60))
def test_any_segments_end_in_an_account_that_adds_up(
    steps: list[tuple[Sender, int, int, int, bytes, int, int, int | None, int]],
) -> None:
    talk = Talk()
    for sender, flags, seq, ack, payload, missing, wait, ip_id, port in steps:
        talk.wait(wait)
        talk.ends[DEVICE] = (DEVICE_END[0], port)
        segment = talk.packet(sender, flags, payload, seq=seq, ack=ack)
        segment.length += missing
        segment.ip_id = ip_id
    listener = Listener()
    for segment in talk.segments:
        listener.tracker.take(segment)
    listener.tracker.finish()
    assert listener.ended == sorted(listener.tracker.conversations, key=listener.ended.index)
    for heard in listener.heard:
        conversation = heard.conversation
        assert conversation.finished
        assert conversation.reached in ("syn", "connected", "nonce", "identity", "session", "hello", "established")
        for sender in Sender:
            side = conversation.sides[sender]
            holes = sum(hole.length for hole in heard.holes[sender])
            assert side.captured + holes == side.sent == heard.offset[sender]
            assert side.captured <= sum(len(segment.payload) for segment in talk.segments)
            for one in (one for one in heard.frames if one.sender is sender):
                assert one.offset + one.size <= side.sent
