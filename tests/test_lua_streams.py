"""The plugin's TCP streams, frames and handshake messages, in Lua, against the analyzer's own.

The plugin waits for milliseconds where the analyzer waits for up to two seconds, so that a message is shown in its own
packet. The analyzer with as little patience is therefore the measure for each step, and the patient one for what comes
out of whole captures. Besides, the plugin gives up on what nobody will acknowledge, for which the analyzer waits until
the capture ends.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import NAMES, captured, shipped
from lua_engine import INSIDE_WIRESHARK, VERSIONS, engine, plugin
from tcp_talk import DEVICE, MS, SECOND, SERVER, SPACE, START, Talk, copy_of, frame, healthy

from analyzer import conversation as conversations
from analyzer import streams
from analyzer.capture import Packet
from analyzer.catalogue import SPARK_PORT
from analyzer.conversation import Conversation
from analyzer.copies import COPIES, Headers
from analyzer.frames import Frame, FrameReader, chain
from analyzer.handshake import STEPS, TurnReader
from analyzer.network import Decoder
from analyzer.network.units import ACK, FIN, RST, SYN, Segment
from analyzer.seen import Endpoint, Seen
from analyzer.sessionwatch import CHUNKS_OF_AN_UPDATE, SessionWatch
from analyzer.simulate import damage, simulate
from analyzer.streams import PENDING_BYTES, PENDING_PIECES, Hole, HoleReason, Sender
from analyzer.tracker import Flow, Tracker

PATIENCE_NS = 10 * MS  # how long the plugin waits for bytes that were acknowledged
REPAIR_NS = 3 * SECOND  # how long it waits for bytes while nothing is heard of the peer

HARNESS = b"""
local spark = ...
local PEER = { device = "server", server = "device" }
local yes = { [true] = "yes", [false] = "no" }

local function show(value)
  if value == nil then return "-" end
  if type(value) == "number" then return string.format("%d", value) end
  return yes[value] or value
end

-- Everything that can be read of a turn reader, as text.
local function read(turn)
  local out = {
    "started", show(turn.started), "before", show(turn.before), "early", show(turn.early), "opening", turn.opening,
    show(turn:part("session") and turn:part("session").first_packet),
  }
  for _, part in ipairs(turn.parts) do
    for _, name in ipairs({ "kind", "size", "received", "missing", "sent", "complete", "first_packet", "packet" }) do
      out[#out + 1] = show(part[name])
    end
    for _, cut in ipairs(part.cuts) do out[#out + 1] = show(cut[1]) .. ":" .. show(cut[2]) end
    out[#out + 1] = part.data or "-"
  end
  local frames = turn.frames
  if frames then
    for _, value in ipairs({ frames.count, frames.offset, frames.skipped, frames:pending(), #frames.lost }) do
      out[#out + 1] = show(value)
    end
  end
  return table.concat(out, " ")
end

local function told_of(frame)
  return table.concat({
    frame.sender, show(frame.index), show(frame.offset), show(frame.length), show(frame.size),
    show(frame.first_packet), show(frame.packet), show(frame.follows_gap), frame.ciphertext or "-", frame.head,
  }, " ")
end

-- One connection: what a conversation does with each segment, and no more.
local Ends = {}
Ends.__index = Ends

function Ends.new()
  local self = setmetatable({ frames = {}, watch = spark.SessionWatch.new(), seen = 0, midway = true }, Ends)
  for sender in pairs(PEER) do
    local ours = { holes = {}, data = {}, heads = spark.Headers.new() }
    local turn = spark.TurnReader.new(sender, function(frame)
      self.frames[#self.frames + 1] = frame
      self.watch:take(frame)
    end)
    local reader = {}
    function reader:receive(data, packet, time)
      ours.data[#ours.data + 1] = { offset = ours.stream.next - #data, data = data }
      turn:receive(data, packet, time)
    end
    function reader:skip(hole)
      ours.holes[#ours.holes + 1] = hole
      turn:skip(hole)
    end
    ours.turn, ours.stream = turn, spark.Stream.new(sender, reader)
    self[sender] = ours
  end
  return self
end

local function segment_of(number, time, seq, ack, syn, fin, rst, acks, length, payload, ip_id)
  return {
    number = number, time = time, seq = seq, ack = ack, syn = syn, fin = fin, rst = rst, acks = acks,
    length = length, payload = payload, ip_id = ip_id,
  }
end

function Ends:see(sender, size, packet, time)
  self.watch:take({ sender = sender, size = size, packet = packet, time = time })
end

function Ends:take(sender, ...)
  local segment = segment_of(...)
  local number, time, seq, ack, syn, acks =
    segment.number, segment.time, segment.seq, segment.ack, segment.syn, segment.acks
  local own, peer = self[sender], self[PEER[sender]]
  if own.heads:repeats(segment) then
    own.stream.quality.copies = own.stream.quality.copies + 1
    return
  end
  own.stream.quality.packets = own.stream.quality.packets + 1
  if syn then
    self.midway = false
    own.stream:start_at(seq + 1, true)
    own.turn:begin()
    if acks then
      peer.stream:start_at(ack, true)
      peer.turn:begin()
    end
  elseif own.stream.base == nil then
    own.turn:begin_midway(not self.midway)
  end
  if acks and not segment.rst then
    if peer.stream.base == nil then peer.turn:begin_midway(not self.midway) end
    peer.stream:acknowledge(ack, number, time)
  end
  for _, stream in ipairs({ own.stream, peer.stream }) do
    if stream.acks[1] or stream.pending[1] then stream:poll(time) end
  end
  own.stream:take(segment)
  if segment.rst then
    own.stream:finish()
    peer.stream:finish()
  end
end

-- Everything that can be read of one end, as text.
function Ends:state(sender)
  local stream, turn = self[sender].stream, self[sender].turn
  local quality = stream.quality
  local out = {
    "base", show(stream.base), "certain", show(stream.base_certain), "next", show(stream.next),
    "highest", show(stream.highest), "acked", show(stream.acked), "bytes", show(stream.bytes),
    "fin", show(stream.fin_offset), "last", show(stream.last_packet), "tries", show(stream.unacked_tries),
    "unacked", show(stream.first_unacked_packet), "packets", show(quality.packets), "copies", show(quality.copies),
    "data", show(quality.data_segments), "again", show(quality.retransmitted), show(quality.retransmitted_bytes),
    "disorder", show(quality.out_of_order), "keepalives", show(quality.keepalives), "cut", show(quality.cut),
    "place", show(stream:offset_of(4242424242)), read(turn),
  }
  return table.concat(out, " ")
end

-- The frames and holes that came since the last call, as text.
function Ends:news()
  local out = {}
  for index = self.seen + 1, #self.frames do
    out[#out + 1] = told_of(self.frames[index])
  end
  self.seen = #self.frames
  return table.concat(out, "\\n")
end

function Ends:watched()
  local watch = self.watch
  local out = { show(watch.pings), show(watch.pings_answered), show(watch.unanswered and watch.unanswered.packet) }
  for _, rtt in ipairs(watch.ping_rtt) do out[#out + 1] = string.format("%.6f", rtt) end
  if watch.update then
    for _, name in ipairs({
      "size", "begun_packet", "first_packet", "last_packet", "chunks", "answered", "asked", "first_asked",
      "last_asked", "server_since", "device_since", "small_since", "acknowledged",
    }) do out[#out + 1] = show(watch.update[name]) end
  end
  return table.concat(out, " ")
end

-- A stream alone, with somebody who writes down what it delivers.
local function listen(first, in_order)
  local heard = { data = {}, holes = {} }
  local reader = {}
  local stream = spark.Stream.new("device", reader, in_order)
  function reader:receive(data, packet)
    heard.data[#heard.data + 1] = { offset = stream.next - #data, data = data, packet = packet }
  end
  function reader:skip(hole) heard.holes[#heard.holes + 1] = hole end
  if first then stream:start_at(first, true) end
  local function take(number, time, seq, length, payload, fin)
    stream:poll(time)
    stream:take({ number = number, time = time, seq = seq, length = length, payload = payload, fin = fin })
  end
  return stream, take, heard
end

-- A frame reader alone.
local function cutter(searching)
  local frames = {}
  local reader = spark.FrameReader.new("server", function(frame) frames[#frames + 1] = frame end, 424, searching)
  return reader, frames, function(length, packet, time)
    reader:skip({ length = length, packet = packet, time = time })
  end
end

-- A turn reader alone.
local function turner(sender)
  local frames = {}
  local turn = spark.TurnReader.new(sender, function(frame) frames[#frames + 1] = told_of(frame) end)
  local function skip(offset, length, packet, time)
    turn:skip({ offset = offset, length = length, packet = packet, time = time })
  end
  return turn, skip, function() return read(turn) .. table.concat(frames, "\\n") end
end

return { ends = Ends.new, turner = turner, listen = listen, cutter = cutter, chain = spark.chain,
  headers = spark.Headers.new, segment = segment_of }
"""


@cache
def harness(version: str) -> Any:
    lua, spark = engine(version)
    return lua.eval(b"function(text, spark) return (loadstring or load)(text)(spark) end")(HARNESS, spark)


def plain(value: Any) -> Any:
    """A Lua value as Python has it: arrays as lists, other tables as dictionaries."""
    if not hasattr(value, "items"):
        return value
    items = dict(value.items())
    if set(items) == set(range(1, len(items) + 1)):
        return [plain(items[index]) for index in range(1, len(items) + 1)]
    return {key.decode(): plain(item) for key, item in items.items()}


# -- both, side by side ----------------------------------------------------------------------------------------


def show(value: object) -> bytes:
    if value is None:
        return b"-"
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return b"yes" if value else b"no"
    return str(value).encode()


def state_of(conversation: Conversation, sender: Sender) -> bytes:
    """What the Lua answers for one end, from the analyzer's own."""
    lane = conversation.lanes[sender is SERVER]
    stream = lane.stream
    quality = stream.quality
    unacked = None if stream.first_unacked is None else stream.first_unacked[1]
    out: list[object] = ["base", stream.base, "certain", stream.base_certain, "next", stream.next]
    out += ["highest", stream.highest, "acked", stream.acked]
    out += ["bytes", stream.bytes + stream._pending_bytes]
    out += ["fin", stream.fin_offset, "last", stream.last_packet, "tries", stream.unacked_tries]
    out += ["unacked", unacked, "packets", quality.packets, "copies", quality.copies]
    out += ["data", quality.data_segments, "again", quality.retransmitted, quality.retransmitted_bytes]
    out += ["disorder", quality.out_of_order, "keepalives", quality.keepalives, "cut", quality.cut]
    out += ["place", stream.offset_of(4242424242)]
    return b" ".join(map(show, out)) + b" " + read(lane.turn)


def read(turn: TurnReader) -> bytes:
    out: list[object] = ["started", turn.started, "before", turn.before, "early", turn.early]
    session, frames = turn.part("session"), turn.frames
    out += ["opening", bytes(turn.opening), None if session is None else session.first_packet]
    for part in turn.parts:
        out += [part.kind, part.size, part.received, part.missing, part.sent, part.complete]
        out += [part.first_packet, part.packet, *(f"{packet}:{size}" for packet, size in part.cuts)]
        out.append(part.data)
    if frames is not None:
        out += [frames.count, frames.offset, frames.skipped, frames.pending, len(frames.lost)]
    return b" ".join(map(show, out))


def text_of(one: Frame) -> bytes:
    head = (one.sender, one.index, one.offset, one.length, one.size, one.first_packet, one.packet, one.follows_gap)
    return b" ".join((*map(show, head), one.ciphertext or b"-", one.head))


def watched(watch: SessionWatch) -> bytes:
    out: list[object] = [watch.pings, watch.pings_answered, watch.unanswered and watch.unanswered.packet]
    out += [f"{rtt / SECOND:.6f}" for rtt in watch.ping_rtt_ns]
    update = watch.update
    if update is not None and update.chunks >= CHUNKS_OF_AN_UPDATE:
        out += [update.size, update.begun_packet, update.first_packet, update.last_packet, update.chunks]
        out += [update.answered, update.asked, update.first_asked, update.last_asked, update.server_since]
        out += [update.device_since, update.small_since, update.acknowledged]
    return b" ".join(map(show, out))


def arguments(segment: Segment) -> tuple[object, ...]:
    """The fields of a segment in the harness's order."""
    flags, time = segment.flags, (segment.time_ns - START) / SECOND
    bits = (bool(flags & bit) for bit in (SYN, FIN, RST, ACK))
    numbers = (segment.number, time, segment.seq, segment.ack)
    return (*numbers, *bits, segment.length, segment.payload, segment.ip_id)


class Ends:
    """A connection in Lua."""

    def __init__(self, version: str) -> None:
        self.lua = harness(version)[b"ends"]()

    def take(self, sender: Sender, segment: Segment) -> None:
        self.lua[b"take"](self.lua, sender.encode(), *arguments(segment))

    def state(self, sender: Sender) -> bytes:
        return bytes(self.lua[b"state"](self.lua, sender.encode()))

    def news(self) -> bytes:
        return bytes(self.lua[b"news"](self.lua))

    def watched(self) -> bytes:
        return bytes(self.lua[b"watched"](self.lua))

    def listed(self, sender: Sender, what: bytes) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = plain(self.lua[sender.encode()][what])
        return listed

    def frames(self) -> list[dict[str, Any]]:
        frames: list[dict[str, Any]] = plain(self.lua[b"frames"])
        return frames

    def totals(self, sender: Sender) -> tuple[int, int, int]:
        """Bytes captured, sent and acknowledged."""
        stream = self.lua[sender.encode()][b"stream"]
        return stream[b"bytes"], stream[b"sent"](stream), stream[b"acknowledged"](stream)


class Hasty(streams.Stream):
    """The analyzer's stream, which gives up on bytes for which the plugin does not wait either."""

    __slots__ = ("heard_ns",)

    def acknowledge(self, ack: int, packet: int, time_ns: int) -> None:
        super().acknowledge(ack, packet, time_ns)
        self.heard_ns = time_ns

    def _advance(self, packet: int, time_ns: int) -> None:
        super()._advance(packet, time_ns)
        while self._pending and not self._acks and time_ns - self._pending[0].time_ns > REPAIR_NS:
            if getattr(self, "heard_ns", -1) >= self._pending[0].time_ns:
                return
            self._give_up(packet, time_ns)

    def reset(self, packet: int, time_ns: int) -> None:
        self._run()
        while self._pending or (self._acks and not self._may_be_fin()):
            self._give_up(packet, time_ns)


def close(self: Conversation, sender: Sender, how: str, seen: Seen) -> None:
    for own in (sender, sender.peer) if how == "rst" else ():
        stream = self.lanes[own is SERVER].stream
        assert isinstance(stream, Hasty)
        stream.reset(seen.packet, seen.time_ns)
    closed(self, sender, how, seen)


closed = Conversation._close


@contextmanager
def hasty() -> Iterator[None]:
    """The analyzer with the plugin's patience."""
    plugin()  # made once for all tests, of constants that nobody has changed
    with (
        patch.object(streams, "PATIENCE_NS", PATIENCE_NS),
        patch.object(streams, "SETTLE_NS", 0),
        patch.object(conversations, "Stream", Hasty),
        patch.object(Conversation, "_close", close),
    ):
        yield


def conversation_of(segments: Sequence[Segment], device: Endpoint, server: Endpoint) -> Conversation:
    return Conversation(1, device, server, segments[0])


def holes_of(holes: Iterable[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Holes that join on to each other as one, but for those of cut packets."""
    merged: list[tuple[int, int, str]] = []
    for offset, length, reason in holes:
        if merged and reason != "cut" and merged[-1][2] == reason and merged[-1][0] + merged[-1][1] == offset:
            merged[-1] = merged[-1][0], merged[-1][1] + length, reason
        else:
            merged.append((offset, length, reason))
    return merged


def run_both(version: str, segments: Sequence[Segment], device: Endpoint, server: Endpoint) -> Ends:
    """Feed a connection to both and compare all that is known of it after every packet."""
    segments = [replace(segment, interface=0) for segment in segments]
    with hasty():
        conversation, ends = conversation_of(segments, device, server), Ends(version)
    frames: list[bytes] = []

    def emitted(_: Conversation, one: Frame) -> None:
        frames.append(text_of(one))

    conversation.on_frame = emitted
    with hasty():
        for segment in segments:
            sender = conversation.sender_of(segment)
            ends.take(sender, segment)
            conversation.take(segment)
            assert ends.news() == b"\n".join(frames)
            frames.clear()
            for end in Sender:
                assert ends.state(end) == state_of(conversation, end), segment.number
        for sender in Sender:
            listed = [
                (h.offset, h.length, h.reason, h.before, h.packet) for h in conversation.holes if h.sender is sender
            ]
            found = [(h["offset"], h["length"], h["reason"].decode()) for h in ends.listed(sender, b"holes")]
            assert holes_of(found) == [(offset, length, reason) for offset, length, reason, *_ in listed]
        assert ends.watched() == watched(conversation.watch)
        conversation.finish()
    for sender in Sender:
        side = conversation.sides[sender]
        assert ends.totals(sender) == (side.captured, side.sent, side.acked)
    return ends


# -- whole captures ----------------------------------------------------------------------------------------------


class Sorter(Tracker):
    """A tracker that writes down which segments belong together."""

    def __init__(self) -> None:
        super().__init__((SPARK_PORT,), lambda _: None, lambda _: None)
        self.sorted: dict[int, tuple[Conversation, list[Segment]]] = {}

    def _feed(self, flow: Flow, segment: Segment, conversation: Conversation) -> None:
        self.sorted.setdefault(conversation.number, (conversation, []))[1].append(segment)
        super()._feed(flow, segment, conversation)

    def _open_way(self, *_: object) -> None:
        """No segment goes straight to its lane, or it would not come by here."""


def connections(packets: Iterable[Packet]) -> list[tuple[Conversation, list[Segment]]]:
    """The connections of a capture as the (patient) analyzer has them, with their segments."""
    sorter, decoder = Sorter(), Decoder()
    for number, packet in enumerate(packets, 1):
        unit = decoder.decode(packet)
        if isinstance(unit, Segment) and sorter.wants(unit):
            sorter.take(replace(unit, number=number))
    sorter.finish()
    return list(sorter.sorted.values())


def story(name: str, how: str = "", seed: int = 1) -> list[Packet]:
    """A simulated capture, or what is left of it."""
    told = simulate(name, seed=seed)
    packets = told.packets
    if how == "reorder":
        packets = damage.reorder(packets)
    elif how == "two interfaces":
        packets = damage.two_interfaces(packets)
    elif how == "duplicate":
        packets = damage.duplicate(packets)
    elif how == "snaplen":
        packets = damage.snaplen(packets, 100)
    elif how == "middle":
        packets = damage.start_after(packets, 0.3)
    elif how == "later":
        packets = damage.start_after(packets, 3)
    elif how == "lossy":
        rng = random.Random(seed)
        packets = damage.drop_packets(packets, {i for i in range(len(packets)) if rng.random() < 0.1})
    return captured(packets, told.link_type)


STORIES = ("healthy", "dead-key", "ota-chunk-again", "split-identity", "reply-lost", "seq-wrap", "no-nonce-ping")
HOW = ("", "reorder", "two interfaces", "duplicate", "snaplen", "middle", "later", "lossy")


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
@pytest.mark.parametrize("name", NAMES)
def test_shipped_captures_packet_by_packet(version: str, name: str) -> None:
    for conversation, segments in connections(shipped(name)):
        run_both(version, segments, conversation.device, conversation.server)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", STORIES)
def test_stories_packet_by_packet(name: str, how: str) -> None:
    for conversation, segments in connections(story(name, how)):
        run_both("lua52", segments, conversation.device, conversation.server)


def test_frames_of_healthy_stories_are_the_patient_analyzers_own() -> None:
    for name in ("healthy", "ota-complete", "healthy-idle"):
        [(conversation, segments)] = connections(story(name))
        ends = run_both("lua54", segments, conversation.device, conversation.server)
        assert {frame["sender"].decode(): 1 for frame in ends.frames()} == {"device": 1, "server": 1}
        for sender in Sender:
            side = conversation.sides[sender]
            mine = [frame for frame in ends.frames() if frame["sender"] == sender.encode()]
            assert len(mine) == side.frames > 0
            assert ends.totals(sender) == (side.captured, side.sent, side.acked)


@pytest.mark.parametrize("name", STORIES)
def test_impatience_costs_bytes_only_where_an_acknowledgement_overtook_them(name: str) -> None:
    """Swapped packets and two capture points: what the analyzer would have waited for is a hole, and nothing else."""
    for how in ("reorder", "two interfaces", "lossy", "duplicate"):
        for conversation, segments in connections(story(name, how)):
            ends = Ends("lua54")
            for segment in segments:
                ends.take(conversation.sender_of(segment), segment)
            for sender in Sender:
                side = conversation.sides[sender]
                got, sent, _ = ends.totals(sender)
                assert sent == side.sent
                assert got <= side.captured
                if how == "duplicate":
                    assert got == side.captured


def listed_holes(ends: Ends, sender: Sender) -> list[tuple[int, int, str]]:
    holes = ends.listed(sender, b"holes")
    return holes_of((hole["offset"], hole["length"], hole["reason"].decode()) for hole in holes)


# -- any packets at all --------------------------------------------------------------------------------------------

seeds = st.integers(0, 2**32 - 1)
anywhere = st.integers(0, SPACE - 1)
ENDS = Endpoint(bytes((192, 168, 1, 104)), 1988), Endpoint(bytes((54, 208, 229, 4)), 5683)


def mangled(talk: Talk, rng: random.Random) -> list[Segment]:
    """A conversation as no network would show it: lost, cut, swapped, repeated, with flags and numbers of its own."""
    out: list[Segment] = []
    for segment in talk.segments[rng.choice((0, 0, 0, 1, 3, 5)) :]:
        lot = rng.random()
        if lot < 0.12:
            continue
        if lot < 0.2 and segment.length > 2:
            kept = rng.randrange(segment.length)
            out.append(replace(segment, payload=segment.payload[:kept]))
            if lot < 0.16:
                out.append(replace(segment, ip_id=8))
        elif lot < 0.3 and segment.length > 2:
            begin = rng.randrange(1, segment.length)
            tail = segment.payload[begin:]
            out += [
                segment,
                replace(segment, seq=(segment.seq + begin) % SPACE, payload=tail, length=len(tail), ip_id=7),
            ]
        elif lot < 0.36:
            out += [segment, copy_of(segment, later_ns=rng.choice((0, 10, 2000)) * MS)]
        elif lot < 0.4:
            out += [segment, replace(segment, flags=rng.randrange(64), ip_id=None)]
        elif lot < 0.45:
            shift = rng.choice((-1, 1, 2, -40, 300, 1 << 21, 1 << 31))
            out += [segment, replace(segment, seq=(segment.seq + shift) % SPACE, ip_id=0)]
        elif lot < 0.5:
            shift = rng.choice((-1, 1, 2, -40, 300, 1 << 21, 1 << 31))
            out += [segment, replace(segment, ack=(segment.ack + shift) % SPACE, ip_id=rng.randrange(9))]
        else:
            out.append(segment)
    for place in range(len(out) - 1):
        if rng.random() < 0.15:
            out[place], out[place + 1] = out[place + 1], out[place]
    start = out[0].time_ns if out else 0
    step = rng.choice((3 * MS, 300 * MS))
    return [replace(one, number=i, time_ns=start + step * i) for i, one in enumerate(out, 1)]


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
@settings(max_examples=150, deadline=None)
@given(seeds, anywhere, anywhere)
def test_any_packets_leave_both_in_the_same_state(version: str, seed: int, device_isn: int, server_isn: int) -> None:
    rng = random.Random(seed)
    talk = healthy(seed=seed, device_isn=device_isn, server_isn=server_isn)
    if rng.random() < 0.3:  # no acknowledgements of their own, so that more has to wait
        talk.segments = [segment for segment in talk.segments if segment.length or rng.random() < 0.1]
    segments = mangled(talk, rng)
    if segments:
        run_both(version, segments, *ENDS)


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(SPACE - 3000, SPACE - 1), st.lists(st.integers(1, 500), min_size=1, max_size=30))
def test_bytes_come_at_their_offsets_and_holes_are_what_is_missing(
    version: str, seed: int, first: int, sizes: list[int]
) -> None:
    """Segments in any order, some twice, some never, acknowledged at any time; numbers that begin again."""
    rng = random.Random(seed)
    sent = rng.randbytes(2 * sum(sizes))
    edges = [0]
    for size in sizes:
        edges.append(edges[-1] + 2 * size)
    spans = list(itertools.pairwise(edges))
    events = [(place + rng.choice((0, 0, 3)) * rng.random(), span) for place, span in enumerate(spans)]
    events += [(place + 3 * rng.random(), span) for place, span in enumerate(spans) if rng.random() < 0.2]
    events = [event for event in events if rng.random() > 0.15]
    acks = [(place + 1 + 2 * rng.random(), (stop, stop)) for place, (_, stop) in enumerate(spans) if rng.random() < 0.4]
    stream, take, heard = harness(version)[b"listen"](first)
    known = bytearray(len(sent))  # 1: delivered or waiting, 2: given up
    for number, (_, (start, stop)) in enumerate(sorted([*events, *acks]), 1):
        if start == stop:
            stream[b"poll"](stream, number / 50)
            stream[b"acknowledge"](stream, (first + stop) % SPACE, number, number / 50)
            known[:stop] = bytes(state or 2 for state in known[:stop])
        else:
            take(number, number / 50, (first + start) % SPACE, stop - start, sent[start:stop])
            known[start:stop] = bytes(state or 1 for state in known[start:stop])
    stream[b"acknowledge"](stream, (first + len(sent)) % SPACE, 1000, 2.5)
    stream[b"poll"](stream, 2.6)
    known[:] = bytes(state or 2 for state in known)
    position = 0
    delivered = {piece["offset"]: piece["data"] for piece in plain(heard[b"data"])}
    holes = {hole["offset"]: hole["length"] for hole in plain(heard[b"holes"])}
    while position < len(sent):
        data = delivered.get(position)
        if data is None:
            length = holes.pop(position)
            assert known[position : position + length] == b"\2" * length
            position += length
        else:
            assert data == sent[position : position + len(data)]
            assert known[position : position + len(data)] == b"\1" * len(data)
            position += len(data)
    assert not holes
    assert stream[b"next"] == stream[b"acked"] == len(sent)
    assert stream[b"bytes"] == known.count(1)


# -- what waits, and for how long ----------------------------------------------------------------------------------


def offsets(heard: Any) -> list[int]:
    """Where the pieces began that a stream delivered."""
    return [piece["offset"] for piece in plain(heard[b"data"])]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_acknowledgement_captured_ahead_of_its_data_loses_nothing(version: str) -> None:
    stream, take, heard = harness(version)[b"listen"](1000)
    take(1, 0.0, 1000, 5, b"first")
    for start in (1, 2, 3):
        stream[b"acknowledge"](stream, 1005 + 5 * start, 2 * start, start + 0.001)
        take(2 * start + 1, start + 0.009, 1000 + 5 * start, 5, b"later")
    assert offsets(heard) == [0, 5, 10, 15]
    assert not plain(heard[b"holes"])


@pytest.mark.parametrize("version", VERSIONS)
def test_an_acknowledged_hole_is_given_up_before_the_next_data(version: str) -> None:
    stream, take, heard = harness(version)[b"listen"](1000)
    take(1, 0.0, 1000, 5, b"first")
    take(2, 0.1, 1010, 5, b"third")
    stream[b"acknowledge"](stream, 1015, 3, 0.2)
    stream[b"poll"](stream, 0.209)
    assert offsets(heard) == [0]
    take(4, 0.211, 1015, 5, b"forth")
    assert offsets(heard) == [0, 10, 15]
    [hole] = plain(heard[b"holes"])
    assert (hole["offset"], hole["length"], hole["before"], hole["packet"]) == (5, 5, 1, 3)
    assert hole["reason"].decode() == HoleReason.NOT_CAPTURED
    take(5, 0.3, 1005, 5, b"later")
    assert stream[b"bytes"] == 15
    assert stream[b"quality"][b"retransmitted"] == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_the_steps_of_unseen_bytes_are_remembered_within_bounds(version: str) -> None:
    stream, _, heard = harness(version)[b"listen"](0)
    for step in range(1, 3 * streams.STEPS):
        stream[b"acknowledge"](stream, 10 * step, step, 0.0)
    assert len(stream[b"acks"]) == streams.STEPS
    assert (stream[b"sent"](stream), stream[b"acknowledged"](stream)) == (10 * step, 10 * step)
    stream[b"poll"](stream, 1.0)
    assert sum(hole["length"] for hole in plain(heard[b"holes"])) == 10 * step


@pytest.mark.parametrize("version", VERSIONS)
def test_a_hole_is_not_waited_for_when_nothing_is_heard_of_the_peer(version: str) -> None:
    stream, take, heard = harness(version)[b"listen"](100)
    stream[b"acknowledge"](stream, 100, 1, 0.0)  # all that the capture has of the peer
    take(2, 0.1, 100, 10, b"a" * 10)
    take(3, 1.0, 120, 10, b"b" * 10)  # ten bytes are missing before it
    take(4, 3.9, 130, 10, b"c" * 10)
    assert offsets(heard) == [0]
    take(5, 4.1, 140, 10, b"d" * 10)
    assert offsets(heard) == [0, 20, 30, 40]
    [hole] = plain(heard[b"holes"])
    assert (hole["offset"], hole["length"], hole["reason"].decode()) == (10, 10, HoleReason.LOST)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_segment_sent_again_is_in_time_when_nothing_is_heard_of_the_peer(version: str) -> None:
    _, take, heard = harness(version)[b"listen"](100)
    take(1, 1.0, 110, 10, b"b" * 10)
    take(2, 4.0, 100, 10, b"a" * 10)
    assert offsets(heard) == [0, 10]
    assert not plain(heard[b"holes"])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_hole_is_waited_for_when_the_peer_still_wants_its_bytes(version: str) -> None:
    """What came behind it makes the peer say so at once; TCP may then need minutes to bring them."""
    stream, take, heard = harness(version)[b"listen"](100)
    take(1, 0.0, 100, 10, b"a" * 10)
    take(2, 1.0, 120, 10, b"b" * 10)
    stream[b"acknowledge"](stream, 110, 3, 1.1)
    take(4, 60.0, 130, 10, b"c" * 10)
    assert offsets(heard) == [0]
    take(5, 90.0, 110, 10, b"d" * 10)
    assert offsets(heard) == [0, 10, 20, 30]
    assert not plain(heard[b"holes"])


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_waits_for_what_a_reset_connection_will_not_bring(version: str) -> None:
    talk = healthy()
    start, other = talk.next[DEVICE], talk.next[SERVER]
    late, lost = frame(talk.rng), frame(talk.rng)
    talk.packet(DEVICE, ACK, late, seq=start + 18)
    talk.packet(SERVER, ACK, ack=start)  # it still wants what comes before
    talk.packet(SERVER, ACK, lost, seq=other + 18)
    talk.packet(DEVICE, ACK, ack=other + 18, seq=start + 18 + len(late))
    talk.rst(SERVER)
    ends = run_both(version, talk.segments, *ENDS)
    assert [hole["reason"].decode() for hole in ends.listed(DEVICE, b"holes")] == [HoleReason.LOST]
    assert [hole["reason"].decode() for hole in ends.listed(SERVER, b"holes")] == [HoleReason.NOT_CAPTURED]
    assert [one["ciphertext"] for one in ends.frames()[-2:]] == [lost[2:], late[2:]]


@pytest.mark.parametrize("version", VERSIONS)
def test_without_order_nothing_is_held_back(version: str) -> None:
    _, take, heard = harness(version)[b"listen"](100, False)
    take(1, 0.0, 100, 10, b"a" * 10)
    take(2, 0.001, 120, 10, b"b" * 10)
    assert offsets(heard) == [0, 20]
    [hole] = plain(heard[b"holes"])
    assert (hole["offset"], hole["length"], hole["packet"]) == (10, 10, 2)
    assert hole["reason"] == b"not waited for: 'Put late segments in their place' is off"
    take(3, 0.002, 110, 10, b"c" * 10)  # too late
    take(4, 0.003, 130, 10, b"d" * 10)
    assert offsets(heard) == [0, 20, 30]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_hole_that_nobody_acknowledged_is_waited_for_within_bounds(version: str) -> None:
    stream, take, heard = harness(version)[b"listen"](0)
    for number in range(1, PENDING_PIECES + 1):
        take(number, 0.0, 10 * number, 9, b"too early")
    assert (stream[b"next"], stream[b"sent"](stream)) == (0, 10 * PENDING_PIECES + 9)
    take(PENDING_PIECES + 1, 0.0, 10 * PENDING_PIECES + 10, 9, b"too early")
    holes = plain(heard[b"holes"])
    assert [(hole["offset"], hole["length"], hole["reason"].decode()) for hole in holes] == [(0, 10, HoleReason.LOST)]
    assert stream[b"next"] == 19
    stream, take, heard = harness(version)[b"listen"](0)
    size = PENDING_BYTES // 4
    for number in range(1, 5):
        take(number, 0.0, number * size, size, bytes(size))
    assert not plain(heard[b"holes"])
    take(5, 0.0, 5 * size, size, bytes(size))
    assert (stream[b"next"], stream[b"bytes"]) == (6 * size, 5 * size)


@pytest.mark.parametrize("version", VERSIONS)
def test_one_byte_beyond_the_data_may_be_a_fin_that_was_not_captured(version: str) -> None:
    stream, take, heard = harness(version)[b"listen"](0)
    take(1, 0.0, 0, 4, b"data")
    stream[b"acknowledge"](stream, 5, 2, 0.1)
    assert not plain(heard[b"holes"])
    assert (stream[b"sent"](stream), stream[b"acknowledged"](stream)) == (4, 4)
    take(3, 0.2, 4, 0, b"", True)
    assert not plain(heard[b"holes"])
    stream, take, heard = harness(version)[b"listen"](0)
    take(1, 0.0, 0, 4, b"data")
    stream[b"acknowledge"](stream, 5, 2, 0.1)
    take(3, 0.2, 9, 0, b"", True)
    stream[b"poll"](stream, 0.3)
    [hole] = plain(heard[b"holes"])
    assert (hole["offset"], hole["length"], hole["packet"]) == (4, 1, 2)
    assert (stream[b"sent"](stream), stream[b"acknowledged"](stream)) == (9, 5)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_syn_captured_behind_an_acknowledgement_still_tells_the_beginning(version: str) -> None:
    talk = Talk()
    talk.packet(SERVER, ACK, seq=700_041, ack=1001 + 324)
    ends = run_both(version, talk.open().handshake().segments, *ENDS)
    [hole] = ends.listed(DEVICE, b"holes")
    assert (hole["offset"], hole["length"], hole["packet"]) == (0, 324, 1)
    assert ends.lua[b"device"][b"turn"][b"started"] == b"beginning"


@pytest.mark.parametrize("version", VERSIONS)
def test_data_in_a_syn_that_comes_behind_its_acknowledgement_are_not_late(version: str) -> None:
    talk = Talk()
    talk.packet(DEVICE, ACK, seq=1001, ack=700_001 + 146)
    talk.packet(SERVER, SYN, bytes(84), seq=700_000)
    ends = run_both(version, talk.segments, *ENDS)
    assert b"highest 84 acked 146" in ends.state(SERVER)
    assert b"disorder 0" in ends.state(SERVER)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_cut_off_fills_only_what_nothing_else_does(version: str) -> None:
    talk = Talk().open()
    first = talk.next[DEVICE]
    for offset, size in ((100, 10), (120, 10)):
        talk.packet(DEVICE, ACK, talk.rng.randbytes(size), seq=first + offset)
    cut = talk.packet(DEVICE, ACK, talk.rng.randbytes(60), seq=first + 90)
    cut.payload = cut.payload[:4]
    talk.packet(SERVER, ACK, ack=first + 150)
    talk.wait(PATIENCE_NS)
    talk.packet(DEVICE, ACK, seq=first + 150)
    ends = run_both(version, talk.segments, *ENDS)
    holes = [(hole["offset"], hole["length"], hole["reason"].decode()) for hole in ends.listed(DEVICE, b"holes")]
    assert holes == [(0, 90, "not captured"), (94, 6, "cut"), (110, 10, "not captured"), (130, 20, "cut")]


@pytest.mark.parametrize("version", VERSIONS)
def test_bytes_that_a_retransmission_brings_win_over_the_same_bytes_cut_off(version: str) -> None:
    """Before, within and behind what was cut off, while all of it waits behind a hole."""
    talk = Talk().open()
    first, data = talk.next[DEVICE], talk.rng.randbytes(200)
    for start, stop, kept in ((50, 150, 0), (70, 90, 20), (40, 60, 20), (140, 160, 20), (0, 50, 50)):
        packet = talk.packet(DEVICE, ACK, data[start:stop], seq=first + start)
        packet.payload = packet.payload[:kept]
    talk.packet(SERVER, ACK, ack=first + 160)
    talk.wait(PATIENCE_NS)
    talk.packet(DEVICE, ACK, seq=first + 160)
    ends = run_both(version, talk.segments, *ENDS)
    holes = [(hole["offset"], hole["length"], hole["reason"].decode()) for hole in ends.listed(DEVICE, b"holes")]
    assert holes == [(60, 10, "cut"), (90, 50, "cut")]


# -- frames alone --------------------------------------------------------------------------------------------------

some_bytes = st.one_of(
    st.binary(min_size=1, max_size=40),
    st.integers(1, 6000).map(lambda size: random.Random(size).randbytes(size)),
    st.sampled_from((b"\x00\x10", b"\x04\x00", b"\x00", b"\x10", b"\x00\x20" + bytes(32), b"\x00\x10" * 9, bytes(700))),
    st.integers(1, 70).map(lambda blocks: frame(random.Random(blocks), blocks)),
    st.lists(st.integers(1, 12), min_size=1, max_size=9).map(
        lambda sizes: b"".join(frame(random.Random(7), size) for size in sizes)
    ),
)
bytes_or_holes = st.one_of(some_bytes, st.integers(1, 1200))


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=100, deadline=None)
@given(st.lists(bytes_or_holes, max_size=60), st.booleans(), seeds)
def test_any_bytes_and_holes_give_the_same_frames(
    version: str, steps: list[bytes | int], searching: bool, seed: int
) -> None:
    made: list[Frame] = []
    theirs = FrameReader(SERVER, made.append, offset=424, searching=searching)
    ours, frames, skip = harness(version)[b"cutter"](searching)
    rng = random.Random(seed)
    for step in steps:
        number = rng.randrange(1, 50)
        if isinstance(step, int):
            theirs.skip(Hole(SERVER, 0, step, None, number, number * SECOND, HoleReason.NOT_CAPTURED))
            skip(step, number, float(number))
        else:
            theirs.receive(step, number, number * SECOND)
            ours[b"receive"](ours, step, number, float(number))
        assert ours[b"pending"](ours) == theirs.pending
        for name in ("offset", "skipped", "count"):
            assert ours[name.encode()] == getattr(theirs, name), name
    found = plain(frames)
    assert len(found) == len(made)
    for one, other in zip(found, made, strict=True):
        for name in ("index", "offset", "length", "size", "head", "first_packet", "packet", "follows_gap"):
            assert one[name] == getattr(other, name), name
        assert one.get("ciphertext") == other.ciphertext
        assert one["time"] * SECOND == other.time_ns
    lost = [(x["offset"], x["packet"], x["time"] * SECOND, x["field"]) for x in plain(ours[b"lost"])]
    assert lost == [(x.offset, x.packet, x.time_ns, x.field) for x in theirs.lost]


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=100, deadline=None)
@given(some_bytes, st.integers(0, 60))
def test_lengths_chain_alike(version: str, data: bytes, start: int) -> None:
    assert harness(version)[b"chain"](data, start) == chain(data, start)


# -- handshake messages alone --------------------------------------------------------------------------------------

handshake_bytes = st.sampled_from((1, 20, 39, 40, 41, 216, 255, 256, 257, 383, 384, 385, 424)).map(
    lambda size: random.Random(size).randbytes(size)
)


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(Sender),
    st.sampled_from(("known", "likely", "unlikely", "known later")),
    st.lists(
        st.one_of(handshake_bytes, some_bytes, st.sampled_from((1, 40, 216, 256, 384, 424)), st.integers(1, 999)),
        max_size=12,
    ),
    seeds,
)
def test_any_beginning_is_read_alike(
    version: str, sender: Sender, begins: str, steps: list[bytes | int], seed: int
) -> None:
    rng = random.Random(seed)
    small = rng.random() < 0.5
    made: list[Frame] = []
    theirs = TurnReader(sender, made.append)
    ours, skip, told = harness(version)[b"turner"](sender.encode())
    if begins != "known":
        likely = begins != "unlikely"
        theirs.begin_midway(likely=likely)
        ours[b"begin_midway"](ours, likely)
    if begins == "known later":
        theirs.begin()
        ours[b"begin"](ours)
    offset = 0
    for step in steps:
        number = rng.randrange(1, 50)
        if isinstance(step, int):
            theirs.skip(Hole(sender, offset, step, None, number, number * SECOND, HoleReason.NOT_CAPTURED))
            skip(offset, step, number, float(number))
            offset += step
        else:
            places = sorted(rng.sample(range(len(step) + 1), min(3, len(step)))) if small else []
            for begin, end in itertools.pairwise(sorted({0, *places, len(step)})):
                theirs.receive(step[begin:end], number, number * SECOND)
                ours[b"receive"](ours, step[begin:end], number, float(number))
            offset += len(step)
        assert told() == read(theirs) + b"\n".join(map(text_of, made))
    assert len(theirs.parts) <= len(STEPS[sender])


@pytest.mark.parametrize("version", VERSIONS)
def test_frames_in_the_place_of_an_identity_do_not_hide_it(version: str) -> None:
    turn, _, told = harness(version)[b"turner"](b"device")
    made: list[Frame] = []
    theirs = TurnReader(DEVICE, made.append)
    early, late = frame(random.Random(1)), frame(random.Random(2), 3)
    for number, data in enumerate((early, random.Random(3).randbytes(256), late), 1):
        turn[b"receive"](turn, data, number, float(number))
        theirs.receive(data, number, number * SECOND)
    assert told() == read(theirs) + b"\n".join(map(text_of, made))
    assert turn[b"early"] == 1
    assert [one.offset for one in made] == [0, len(early) + 256]


# -- copies, and what a session's sizes and times say --------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=60, deadline=None)
@given(seeds)
def test_copies_are_known_alike(version: str, seed: int) -> None:
    rng = random.Random(seed)
    theirs, ours = Headers(), harness(version)[b"headers"]()
    seen: list[Segment] = []
    now = START
    ids = rng.choice(((None,), (0,), tuple(range(40)), (1, 2, 3)))  # IPv6, and what hosts do with IPv4
    for _ in range(2 * COPIES):
        now += rng.choice((0, 1, 20, 900, 1100)) * MS // rng.choice((1, 1000)) + rng.randrange(1, 1000)
        if seen and rng.random() < 0.4:
            segment = replace(rng.choice(seen[-COPIES // 2 :]), time_ns=now)
        else:
            talk = Talk(seed=rng.randrange(99))
            payload = bytes(rng.choice((0, 0, 18, 40)))
            flags = rng.choice((ACK, SYN, FIN | ACK, RST))
            segment = talk.packet(DEVICE, flags, payload, seq=rng.choice((5, 6, SPACE - 1)), ack=rng.choice((7, 8)))
            segment = replace(segment, time_ns=now, ip_id=rng.choice(ids))
        seen.append(segment)
        lua = lua_segment(version, segment)
        assert ours[b"knows"](ours, lua) == theirs.knows(segment)
        assert ours[b"repeats"](ours, lua) == theirs.repeats(segment)
    assert ours[b"numbered"] == theirs.numbered


def lua_segment(version: str, segment: Segment) -> Any:
    return harness(version)[b"segment"](*arguments(segment))


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from((DEVICE, SERVER, SERVER)),
            st.sampled_from((18, 18, 34, 50, 290, 290, 290, 546)),
            st.sampled_from((0, 10, 50, 400, 2900, 3300, 5000, 12500, 15100, 31000)),
        ),
        max_size=60,
    )
)
def test_pings_and_updates_are_seen_alike(version: str, steps: list[tuple[Sender, int, int]]) -> None:
    theirs, ends = SessionWatch(), Ends(version)
    now = 0
    for number, (sender, size, wait) in enumerate(steps, 1):
        now += wait * MS
        theirs.take(Frame(sender, 0, 0, size - 2, None, b"", number, number, START + now, False))
        ends.lua[b"see"](ends.lua, sender.encode(), size, number, now / SECOND)
        assert ends.watched() == watched(theirs)
