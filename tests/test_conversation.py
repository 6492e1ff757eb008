"""What is known of one connection: the same bytes as Wireshark's, the frames of the truth files, and the milestones."""

from __future__ import annotations

import json
import random
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tcp_talk import (
    DEVICE,
    MS,
    SECOND,
    SERVER,
    Heard,
    Listener,
    Talk,
    captured,
    frame,
    healthy,
    listen,
    listen_to_one,
    sent_by,
)

from analyzer.capture import Capture
from analyzer.conversation import CLOSINGS, HOLES, SYNS
from analyzer.copies import COPIES
from analyzer.network import Decoder, Segment
from analyzer.network.units import ACK, FIN, RST
from analyzer.seen import FIRST_FRAMES, LAST_FRAMES
from analyzer.streams import Sender

CAPTURES = Path(__file__).parent.parent / "captures"
NAMES = sorted(path.stem for path in CAPTURES.glob("*.pcap"))


def heard_in(name: str) -> list[Heard]:
    """All conversations of a capture."""
    listener, decoder = Listener(), Decoder()
    for packet in Capture([CAPTURES / f"{name}.pcap"]):
        unit = decoder.decode(packet)
        if isinstance(unit, Segment) and listener.tracker.wants(unit):
            listener.tracker.take(unit)
    listener.tracker.finish()
    return listener.heard


def truth(name: str) -> dict[str, Any]:
    known: dict[str, Any] = json.loads((CAPTURES / f"{name}.truth.json").read_text())
    return known


# --- Against Wireshark, and against what both ends wrote down ---------------------------------------------------


def tshark(*arguments: str) -> str:
    return subprocess.run(["tshark", "-n", *arguments], capture_output=True, text=True, check=True).stdout


def followed(name: str, streams: list[int]) -> dict[int, dict[tuple[str, int], bytes]]:
    """What Wireshark's "Follow TCP stream" shows of each stream: the bytes of each end."""
    wanted = [part for stream in streams for part in ("-z", f"follow,tcp,raw,{stream}")]
    found: dict[int, dict[tuple[str, int], bytes]] = {}
    for block in tshark("-r", str(CAPTURES / f"{name}.pcap"), "-q", *wanted).split("Follow: tcp,raw\n")[1:]:
        number = int(re.findall(r"tcp.stream eq (\d+)", block)[0])
        ends = [(ip, int(port)) for ip, port in re.findall(r"Node \d: (.+):(\d+)\n", block)]
        data = found[number] = dict.fromkeys(ends, b"")
        for line in re.findall(r"^\t?[0-9a-f]+$", block, re.MULTILINE):
            data[ends[line.startswith("\t")]] += bytes.fromhex(line)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_stream_is_what_wireshark_follows(name: str) -> None:
    fields = tshark("-r", str(CAPTURES / f"{name}.pcap"), "-T", "fields", "-e", "frame.number", "-e", "tcp.stream")
    stream_of = {int(line.split("\t")[0]): line.split("\t")[1] for line in fields.splitlines()}
    heard = heard_in(name)
    assert heard
    numbers = [int(stream_of[one.conversation.first_packet]) for one in heard]
    shown = followed(name, numbers)
    for number, one in zip(numbers, heard, strict=True):
        ends = {DEVICE: one.conversation.device, SERVER: one.conversation.server}
        for sender, end in ends.items():
            pieces = [*one.data[sender]]
            for offset, length in one.gaps(sender):
                pieces.append((offset, b"[%d bytes missing in capture file]\0" % length))
            ours = b"".join(data for _, data in sorted(pieces))
            assert shown[number][end.ip, end.port] == ours


@pytest.mark.parametrize("name", [name for name in NAMES if truth(name)["sessions"]])
def test_frames_and_nonces_are_those_of_the_truth_files(name: str) -> None:
    known = truth(name)
    heard = {one.conversation.device.port: one for one in heard_in(name)}
    removed = known.get("frames_removed_from_capture", [])
    gone = {way: sum(frame["dir"] == way for frame in removed) for way in ("c2s", "s2c")}
    assert sorted(heard) == sorted(session["client"]["port"] for session in known["sessions"])
    for session in known["sessions"]:
        one = heard[session["client"]["port"]]
        for sender, way in ((DEVICE, "c2s"), (SERVER, "s2c")):
            frames = one.ciphertexts(sender)
            sent = session["counts"][way] - gone[way]
            # The middle of a session has the last frames of it.
            assert len(frames) == sent or (name == "mid-session" and 0 < len(frames) < sent)
            texts = [bytes.fromhex(message["hex"]) for message in session[way]]
            padded = [len(text) + 16 - len(text) % 16 for text in texts][-len(frames) or len(texts) :]
            if not removed:
                assert [len(ciphertext or b"") for ciphertext in frames] == padded
            assert one.conversation.sides[sender].skipped == 0
            assert not one.conversation.sides[sender].lost
        nonce = one.part("nonce")
        if name == "mid-session":
            assert nonce is None
        elif nonce is not None and one.conversation.kind == "spark":
            assert session["nonce"] in (nonce.hex(), None)


def test_the_gap_is_told_with_place_and_size() -> None:
    removed = truth("capture-gap")["frames_removed_from_capture"]
    [heard] = heard_in("capture-gap")
    for sender, way in ((DEVICE, "c2s"), (SERVER, "s2c")):
        sizes = [frame["payload_len"] for frame in removed if frame["dir"] == way]
        assert [length for _, length in heard.gaps(sender)] == [sum(sizes)]
        index = next(frame["data_frame_index"] for frame in removed if frame["dir"] == way)
        after = next(one for one in heard.frames if one.sender is sender and one.follows_gap)
        assert after.offset == sum(heard.gaps(sender)[0])
        assert after.ciphertext is not None
        assert index >= 1


# --- How it ended ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sender", Sender)
def test_closed_by_is_the_first_to_say_so(sender: Sender) -> None:
    talk = Talk().open().handshake()
    talk.fin(sender)
    talk.packet(sender.peer)
    talk.rst(sender.peer)
    conversation = listen_to_one(talk.segments).conversation
    assert conversation.closed_by == f"{sender}-fin"
    assert [str(closing) for closing in conversation.closings] == [f"{sender}-fin", f"{sender.peer}-rst"]
    talk = Talk().open().handshake()
    talk.rst(sender)
    conversation = listen_to_one(talk.segments).conversation
    assert (conversation.closed_by, conversation.closed) == (f"{sender}-rst", True)


def test_simultaneous_close_and_repeated_fins() -> None:
    talk = Talk().open().handshake().hello()
    fins = {sender: talk.packet(sender, FIN | ACK) for sender in Sender}
    for sender in Sender:
        talk.next[sender] += 1
    for sender in Sender:
        talk.packet(sender)
    talk.wait(SECOND)
    talk.packet(DEVICE, FIN | ACK, seq=fins[DEVICE].seq)
    conversation = listen_to_one(talk.segments).conversation
    assert [(str(c), c.packet) for c in conversation.closings] == [
        ("device-fin", fins[DEVICE].number),
        ("server-fin", fins[SERVER].number),
    ]
    assert conversation.closed
    assert not conversation.holes


def test_data_in_the_packet_of_the_fin_counts() -> None:
    talk = Talk().open()
    nonce = talk.rng.randbytes(40)
    talk.packet(SERVER, FIN | ACK, nonce)
    talk.next[SERVER] += 41
    talk.packet(DEVICE)
    heard = listen_to_one(talk.segments)
    assert heard.part("nonce") == nonce
    assert heard.conversation.sides[SERVER].acked == heard.conversation.sides[SERVER].sent == 40


def test_a_connection_closed_on_one_side_only_is_open() -> None:
    talk = Talk().open().handshake()
    talk.fin(SERVER)
    assert not listen_to_one(talk.segments).conversation.closed


# --- Milestones --------------------------------------------------------------------------------------------------


def test_acknowledgements_of_the_handshake_are_noted() -> None:
    talk = healthy()
    conversation = listen_to_one(talk.segments).conversation
    acks = [s for s in talk.segments if sent_by(s) is DEVICE and s.flags & ACK]
    for seen, size in ((conversation.nonce_acked, 40), (conversation.reply_acked, 424)):
        assert seen is not None
        assert seen.packet == next(s.number for s in acks if s.ack - talk.isn[SERVER] - 1 >= size)
    assert conversation.connected is not None
    assert conversation.connected.packet == 3
    assert conversation.syn_ack is not None
    assert conversation.syn_ack.packet == 2
    assert (conversation.first_packet, conversation.last_packet) == (1, len(talk.segments))
    assert (conversation.start_ns, conversation.end_ns) == (talk.segments[0].time_ns, talk.segments[-1].time_ns)


def test_the_reply_is_acknowledged_although_the_nonce_was_not_captured() -> None:
    talk = healthy()
    offer = next(s for s in talk.segments if s.length == 384)
    conversation = listen_to_one(talk.segments[offer.number - 1 :]).conversation
    assert conversation.reply_acked is not None
    assert conversation.reply_acked.packet == 2


def test_data_that_is_never_acknowledged_is_counted() -> None:
    talk = Talk().open().handshake()
    first = len(talk.segments) + 1
    data = frame(talk.rng)
    for wait in (0, 1, 2, 4):
        talk.wait(wait * SECOND)
        talk.packet(DEVICE, ACK, data)
    side = listen_to_one(talk.segments).conversation.sides[DEVICE]
    assert side.unacked_tries == 4
    assert side.unacked_since is not None
    assert side.unacked_since.packet == first
    assert (side.sent, side.acked) == (274, 256)
    assert (side.quality.data_segments, side.quality.retransmitted) == (5, 3)
    talk.next[DEVICE] += len(data)
    talk.packet(SERVER)
    side = listen_to_one(talk.segments).conversation.sides[DEVICE]
    assert (side.unacked_tries, side.unacked_since) == (0, None)


@pytest.mark.parametrize(
    ("steps", "reached"),
    [
        ((), "connected"),
        ((40,), "nonce"),
        ((40, 256), "identity"),
        ((40, 255), "nonce"),
        ((40, 256, 383), "identity"),
        ((40, 256, 384), "session"),
    ],
)
def test_reached_is_what_the_bytes_prove(steps: tuple[int, ...], reached: str) -> None:
    talk = Talk().open()
    for sender, size in zip((SERVER, DEVICE, SERVER), steps, strict=False):
        talk.send(sender, talk.rng.randbytes(size))
    assert listen_to_one(talk.close().segments).conversation.reached == reached


@pytest.mark.parametrize(
    ("blocks", "reached"), [((1,), "hello"), ((2,), "hello"), ((3,), "session"), ((3, 1), "session")]
)
def test_only_a_frame_that_can_be_a_hello_is_one(blocks: tuple[int, ...], reached: str) -> None:
    talk = Talk().open().handshake()
    for count in blocks:
        talk.send_frames(DEVICE, count)
    assert listen_to_one(talk.segments).conversation.reached == reached
    talk.send_frames(SERVER, 1)
    assert listen_to_one(talk.segments).conversation.reached == "established"


def test_a_dead_key_frame_moves_nothing() -> None:
    for before, reached in ((0, "connected"), (3, "session")):
        talk = Talk().open()
        for sender, size in ((SERVER, 40), (DEVICE, 256), (SERVER, 384))[:before]:
            talk.send(sender, talk.rng.randbytes(size))
        talk.send_frames(DEVICE, 1)
        talk.close()
        listener = Listener()
        for segment in talk.segments:
            listener.tracker.take(segment)
            if segment.number == 1:
                listener.heard[0].conversation.on_frame = lambda *_: "Ping"
        listener.tracker.finish()
        conversation = listener.heard[0].conversation
        assert conversation.reached == reached
        assert [seen.dead for seen in conversation.dead_frames] == ["Ping"]
        assert conversation.sides[DEVICE].frames == 1
        assert conversation.live_frames(DEVICE) == 0
        assert conversation.hello is None


def test_missing_bytes_that_were_acknowledged_count_as_sent() -> None:
    talk = healthy()
    for kind, length in (("nonce", 40), ("identity", 256), ("session", 384)):
        heard = listen_to_one([s for s in talk.segments if s.length != length])
        part = heard.conversation.part(kind)
        assert part is not None
        assert (part.complete, part.missing, part.data) == (True, length, None)
        assert heard.conversation.reached == "established"
        assert heard.conversation.hole_count == 1
    silent = Talk().open().handshake()
    silent.send_frames(DEVICE, 1)
    assert listen_to_one([s for s in silent.segments if s.length != 18]).conversation.reached == "hello"


# --- Bounds ----------------------------------------------------------------------------------------------------


def test_lists_are_bounded_and_counts_go_on() -> None:
    talk = Talk(gap_ns=MS)
    for _ in range(SYNS + 10):
        talk.wait(SECOND)
        talk.syn()
    talk.syn_ack()
    talk.handshake()
    kept = len(talk.segments)
    rounds = HOLES + 50
    for _ in range(rounds):
        talk.send_frames(SERVER, 1, 1, cuts=(18,))
    talk.segments = talk.segments[:kept] + [s for i, s in enumerate(talk.segments[kept:]) if i % 3 != 1]
    for _ in range(CLOSINGS + 5):
        talk.rst(DEVICE)
        talk.packet(SERVER, RST, seq=talk.next[SERVER])
    heard = listen_to_one(talk.segments)
    conversation = heard.conversation
    assert (len(conversation.syns), conversation.syn_count) == (SYNS, SYNS + 10)
    assert (len(conversation.holes), conversation.hole_count) == (HOLES, rounds)
    assert len(conversation.closings) == 2
    assert (len(conversation.first_frames), len(conversation.last_frames)) == (FIRST_FRAMES, LAST_FRAMES)
    assert conversation.sides[SERVER].frames == rounds
    assert conversation.sides[SERVER].longest == 18
    assert conversation.last_frames[-1].packet == heard.frames[-1].packet


def test_a_copy_is_known_among_many_packets() -> None:
    talk = Talk().open().handshake()
    for _ in range(COPIES // 2):
        talk.send_frames(SERVER, 1)
    again = replace(talk.segments[5], time_ns=talk.now, interface=1)
    heard = listen_to_one([*talk.segments, again])
    assert heard.conversation.sides[DEVICE].quality.copies == 1


def test_what_is_missing_in_a_row_is_one_hole() -> None:
    talk = healthy()
    data = [s for s in talk.segments if s.length and sent_by(s) is SERVER]
    heard = listen_to_one([s for s in talk.segments if s not in data[2:5]])
    assert heard.gaps(SERVER) == [(424, sum(s.length for s in data[2:5]))]
    assert heard.conversation.holes[0].before == data[1].number
    assert heard.conversation.holes[0].packet == heard.holes[SERVER][0].packet  # the first that shows it
    assert heard.conversation.hole_count == 1
    assert len(heard.holes[SERVER]) == 3  # it was acknowledged in three steps


# --- Whatever is said on the port ---------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(Sender), st.binary(min_size=1, max_size=600)), max_size=12), st.booleans())
def test_any_payload_is_passed_on_as_it_is(said: list[tuple[Sender, bytes]], syn_seen: bool) -> None:
    talk = Talk().open()
    for sender, data in said:
        talk.send(sender, data)
    talk.close()
    for one in listen(talk.segments if syn_seen else talk.segments[3:]):
        for sender in Sender:
            assert one.stream(sender) in talk.sent[sender]
            if len(talk.sent[sender]) == one.offset[sender]:
                assert one.stream(sender) == talk.sent[sender]
            side = one.conversation.sides[sender]
            framed = sum(seen.size for seen in one.frames if seen.sender is sender)
            handshake = sum(part.received for part in side.parts)
            assert framed + handshake + side.skipped + side.rest == side.captured


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_a_capture_joined_at_any_packet_accounts_for_every_byte(seed: int) -> None:
    rng = random.Random(seed)
    talk = healthy(seed=seed)
    for _ in range(10):
        talk.packet(DEVICE)
    first = rng.randrange(len(talk.segments))
    rest = captured(talk.segments[first:])
    for one in listen(rest):
        for sender in Sender:
            side = one.conversation.sides[sender]
            assert side.captured == sum(s.length for s in rest if sent_by(s) is sender)
            assert side.captured == side.sent
            assert side.skipped == 0
            begins = len(talk.frames[sender]) - len(one.ciphertexts(sender))
            assert one.ciphertexts(sender) == talk.frames[sender][begins:]
