"""The plugin's engine as a whole: conversations, what each packet completes, and whose the bytes are.

The same packets go through the Python stages and through the plugin's; what both know must be the same. On purpose the
plugin differs in little: it waits for late copies of acknowledged bytes for milliseconds only, gives up on others when
nothing is heard of the peer, and verifies no checksums.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import lua_coverage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import CAPTURES, NAMES, captured, shipped, simulate, truth
from keyed import right_keys, unlock
from lua_engine import INSIDE_WIRESHARK, VERSIONS, engine, plugin, runtime
from tcp_talk import (
    DEVICE,
    DEVICE_END,
    MS,
    SECOND,
    SERVER,
    SERVER_END,
    Heard,
    Talk,
    copy_of,
    frame,
    healthy,
    listen,
)
from tcp_talk import captured as in_time_order
from test_lua_rules import said_by_python, without_what_is_unknown

from analyzer.capture.packet import Packet
from analyzer.catalogue import IDENTITY_SIZE, NONCE_SIZE, SPARK_PORT
from analyzer.conversation import DEAD_FRAMES
from analyzer.network import Decoder
from analyzer.network.units import ACK, FIN, PSH, RST, SYN, Segment
from analyzer.seen import LAST_FRAMES
from analyzer.simulate import SCENARIOS, damage
from analyzer.streams import Sender
from analyzer.trace import Trace
from analyzer.tracker import HELD, LINGER_NS

CHECKSUMS_TELL: Final = "damaged-copy"
"""A story told by checksums alone: the plugin takes the damaged copy for the packet."""
ACKNOWLEDGED_BEFORE: Final = "lossy"
"""A story in which acknowledgements come long before the bytes they are of: the plugin has given these up by then."""
STORIES: Final = sorted(SCENARIOS.keys() - {CHECKSUMS_TELL, ACKNOWLEDGED_BEFORE})
TELLING: Final = (
    *("healthy", "no-nonce-ping", "port-reuse", "missing-syn", "dead-key", "old-session-key", "coap-tcp", "ssh-banner"),
    *("tls-client", "ota-chunk-again", "split-identity", "short-nonce", "seq-wrap", "two-devices", "two-interfaces"),
)


@dataclass
class Fed:
    """What the plugin made of a capture."""

    analysis: Any
    conversations: list[Any]
    items: list[tuple[int, Any]]  # packet, item
    start_ns: int = 0
    verdicts: dict[int, list[tuple[str, str]]] = field(default_factory=dict)  # by port of the client: sender, verdict

    def of(self, what: str, number: int = 1) -> list[Any]:
        """The things of one sort that were completed in a conversation, in order."""
        return [
            item[what.encode()]
            for _, item in self.items
            if item[b"what"] == what.encode() and item[b"conversation"][b"number"] == number
        ]

    def messages(self, number: int, sender: str) -> list[tuple[str | None, bytes, int, int]]:
        """Name, plaintext, bytes lost at its front, and packet of one end's messages."""
        found = (item[b"message"] for _, item in self.items if item[b"conversation"][b"number"] == number)
        return [
            (text(m[b"name"]), m[b"plaintext"], m[b"missing"], m[b"packet"])
            for m in found
            if m is not None and m[b"direction"] == sender.encode()
        ]


def text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


class Plugin:
    """The engine in one Lua."""

    def __init__(self, version: str) -> None:
        self.lua, self.spark = engine(version)
        self._names = {"fin": FIN, "syn": SYN, "rst": RST, "acks": ACK}

    def segment(self, segment: Segment, start_ns: int) -> Any:
        """A segment as the plugin's front takes it."""
        table: dict[bytes, object] = {name.encode(): bool(segment.flags & flag) for name, flag in self._names.items()}
        for name in ("number", "source", "target", "source_port", "target_port", "seq", "ack", "length", "payload"):
            table[name.encode()] = getattr(segment, name)
        table |= {b"time": (segment.time_ns - start_ns) / 1e9, b"window": segment.window, b"ttl": segment.ttl}
        if segment.ip_id is not None:
            table[b"ip_id"] = segment.ip_id
        return self.lua.table_from(table)

    def ring(self, *paths: Path, keylog: Path | None = None) -> Any:
        """Keys from files."""
        folder = str(paths[0].parent).encode() if paths else b""
        self.spark[b"files"][b"list"] = self.lua.execute(  # outside Wireshark no folder can be listed
            b"local folder, names = ... return function(path) if path == folder then return names end end",
            folder,
            self.lua.table_from([path.name.encode() for path in paths]),
        )
        ring = {b"device_key": folder, b"server_key": b"", b"keylog": b"" if keylog is None else str(keylog).encode()}
        return self.spark[b"KeyRing"][b"load"](self.lua.table_from(ring))

    def analysis(self, keys: Any = None, ports: Iterable[int] = (SPARK_PORT,), *, in_order: bool = True) -> Any:
        options = {b"ports": self.lua.table_from(dict.fromkeys(ports, True)), b"in_order": in_order}
        if keys is not None:
            options[b"keys"] = keys
        analysis = self.spark[b"Analysis"][b"new"](self.lua.table_from(options))
        if keys is not None:
            analysis[b"late"] = self.lua.execute(b"""
              return function(_, frame, opened, message)
                frame.item.opened, frame.item.message = opened, message
              end""")
        return analysis

    def feed(self, segments: Iterable[Segment], keys: Any = None, *, asking: bool = False) -> Fed:
        """Feed segments; when ``asking``, ask before each payload whose it is, as Wireshark's side does."""
        analysis = self.analysis(keys)
        fed = Fed(analysis, [], [])
        for segment in segments:
            fed.start_ns = fed.start_ns or segment.time_ns
            if asking and segment.payload:
                self._ask(fed, segment)
            table = self.segment(segment, fed.start_ns)
            _, items = analysis[b"take"](analysis, table)
            for item in items.values():
                fed.items.append((segment.number, item))
                if item[b"frame"] is not None:
                    item[b"frame"][b"item"] = item
        fed.conversations = list(analysis[b"trace"][b"conversations"].values())
        for conversation in fed.conversations:
            conversation[b"refresh"](conversation)
        return fed

    def _ask(self, fed: Fed, segment: Segment) -> None:
        analysis, from_server = fed.analysis, segment.source_port == SPARK_PORT
        ends = segment.source, segment.source_port, segment.target, segment.target_port
        conversation = analysis[b"conversation_of"](analysis, *ends)
        verdict = analysis[b"verdict"](analysis, segment.payload, from_server, conversation)
        port = segment.target_port if from_server else segment.source_port
        sender = "server" if from_server else "device"
        fed.verdicts.setdefault(port, []).append((sender, verdict.decode()))


@cache
def lua(version: str) -> Plugin:
    return Plugin(version)


def segments(packets: Iterable[Packet]) -> Iterator[Segment]:
    """The TCP segments of the port, numbered as in the capture."""
    decode = Decoder().decode
    for number, packet in enumerate(packets, 1):
        unit = decode(packet)
        if isinstance(unit, Segment) and SPARK_PORT in (unit.source_port, unit.target_port):
            unit.number = number
            yield unit


def keys_of(plugin: Plugin, name: str) -> Any:
    """The keys that played in a shipped capture."""
    told = truth(name)["keys"]
    named = {told.get("server_private", "keys/server.pem")}
    named |= {device["device_private"] for device in told.get("devices", {}).values()}
    return plugin.ring(*(CAPTURES / path for path in sorted(named)))


def told_by_python(trace: Trace) -> list[tuple[object, ...]]:
    return [
        (
            *(c.device.ip, c.device.port, c.server.ip, c.server.port, c.kind, c.reached, c.closed_by),
            *(c.sides[Sender.DEVICE].frames, c.sides[Sender.SERVER].frames, c.secrets.opened if c.secrets else 0),
        )
        for c in trace.conversations
    ]


def told_by_plugin(fed: Fed) -> list[tuple[object, ...]]:
    told: list[tuple[object, ...]] = []
    for c in fed.conversations:
        ends = (text(c[b"device"][b"ip"]), c[b"device"][b"port"], text(c[b"server"][b"ip"]), c[b"server"][b"port"])
        sides, secrets = c[b"sides"], c[b"secrets"]
        counts = (sides[b"device"][b"frames"], sides[b"server"][b"frames"])
        opened = 0 if secrets is None else secrets[b"opened"]
        told.append((*ends, text(c[b"kind"]), text(c[b"reached"]), text(c[b"closed_by"]), *counts, opened))
    return told


def assert_same(fed: Fed, trace: Trace) -> None:
    assert told_by_plugin(fed) == told_by_python(trace)


# --- Shipped captures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_capture_without_keys(version: str, name: str) -> None:
    fed = lua(version).feed(segments(shipped(name)))
    trace = unlock(shipped(name), None)
    assert_same(fed, trace)
    for conversation, c in zip(fed.conversations, trace.conversations, strict=True):
        parts = {part[b"kind"].decode(): part for part in fed.of("part", c.number)}
        for kind in ("nonce", "identity", "session"):
            known = c.part(kind)
            told = known is not None and known.complete
            assert (kind in parts) == told
            if known is not None and told:
                assert (parts[kind][b"data"], parts[kind][b"packet"]) == (known.data, known.packet)
        if not c.holes and not c.midway:  # where one direction waits, the order of both is another
            heads = [(f.sender.encode(), f.index, f.size, f.packet, f.dead) for f in c.first_frames]
            assert seen(conversation[b"first_frames"]) == heads
            tails = [(f.sender.encode(), f.index, f.size, f.packet, f.dead) for f in c.last_frames]
            assert seen(conversation[b"last_frames"]) == tails


def seen(frames: Any) -> list[tuple[bytes, int, int, int, str | None]]:
    return [(f[b"sender"], f[b"index"], f[b"size"], f[b"packet"], text(f[b"dead"])) for f in frames.values()]


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_capture_with_keys(version: str, name: str) -> None:
    fed = lua(version).feed(segments(shipped(name)), keys_of(lua(version), name))
    trace = unlock(shipped(name), right_keys(name))
    assert_same(fed, trace)
    for c, conversation in zip(trace.conversations, fed.conversations, strict=True):
        for sender in ("device", "server"):
            expected = [(m.name, m.plaintext, m.missing, m.packet) for m in c.messages if m.direction == sender]
            # The plugin tells a message in the packet at which it is delivered, late or not.
            assert sorted(fed.messages(c.number, sender), key=str) == sorted(expected, key=str)
        assert conversation[b"message_count"] == len(c.messages)
        assert text(conversation[b"device"][b"id"]) == c.device.id


@pytest.mark.parametrize("version", sorted(set(VERSIONS) - set(INSIDE_WIRESHARK)))
def test_the_other_lua_versions(version: str) -> None:
    fed = lua(version).feed(segments(shipped("healthy-full")), keys_of(lua(version), "healthy-full"), asking=True)
    assert_same(fed, unlock(shipped("healthy-full"), right_keys("healthy-full")))
    assert {verdict for told in fed.verdicts.values() for _, verdict in told} == {"spark"}


def test_a_session_key_opens_a_capture_begun_midway_and_frames_that_had_to_wait(tmp_path: Path) -> None:
    """Frames wait until it is sure that the key fits; their items are filled in later."""
    (c,) = unlock(shipped("healthy-full"), right_keys("healthy-full")).conversations
    assert c.secrets is not None
    assert c.secrets.session_key is not None
    assert c.secrets.session_key.blob is not None
    log = tmp_path / "session.keylog"
    log.write_text(f"SPARK_SESSION - {c.secrets.session_key.blob.hex()}\n")
    packets = list(shipped("healthy-full"))[12:]
    fed = lua("lua52").feed(segments(packets), lua("lua52").ring(keylog=log))
    (conversation,) = fed.conversations
    assert conversation[b"secrets"][b"opened"] > 50
    waited = [item for _, item in fed.items if item[b"frame"] is not None and item[b"opened"] is None]
    assert not waited


# --- Stories and damage ----------------------------------------------------------------------------------------


@cache
def story(name: str) -> Any:
    return simulate(name, attempts=20 if name == "retries" else None)


@pytest.mark.parametrize("name", STORIES)
def test_a_story(name: str) -> None:
    told = story(name)
    packets = captured(told.packets, told.link_type)
    fed, trace = lua("lua52").feed(segments(packets), asking=True), unlock(packets, None)
    assert_same(fed, trace)
    assert said_by_plugin(fed, packets) == said_by_python(without_what_is_unknown(trace))


def said_by_plugin(fed: Fed, packets: Sequence[Packet]) -> list[Counter[tuple[str | None, ...]]]:
    """The verdict on each conversation, in the form of `said_by_python`."""
    times = [packet.time_ns for packet in packets]
    if fed.conversations:
        fed.analysis[b"trace"][b"last"] = (max(times) - fed.start_ns) / 1e9
    names = (b"code", b"severity", b"confidence", b"summary", b"because")
    return [
        Counter(
            tuple(text(finding[name]) for name in names)
            for finding in fed.analysis[b"judge"](fed.analysis, conversation).values()
        )
        for conversation in fed.conversations
    ]


VARIANTS: Final[dict[str, Callable[[Sequence[Any]], list[Any]]]] = {
    "twice": damage.duplicate,
    "without SYN": lambda packets: damage.drop(packets, lambda p: p.label in ("syn", "syn-ack", "ack")),
    "begun later": lambda packets: damage.start_after(packets, 1.0),
    "ended early": lambda packets: damage.stop_after(packets, 3.0),
    "cut": lambda packets: damage.snaplen(packets, 80),
    "with losses": lambda packets: damage.drop_packets(packets, set(range(5, len(packets), 11))),
    "device alone": lambda packets: damage.one_direction(packets, "device"),
    "server alone": lambda packets: damage.one_direction(packets, "server"),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", TELLING)
def test_a_story_in_a_worse_capture(name: str, variant: str) -> None:
    told = story(name)
    packets = captured(VARIANTS[variant](told.packets), told.link_type)
    assert_same(lua("lua54").feed(segments(packets)), unlock(packets, None))


# --- Which conversation a packet belongs to --------------------------------------------------------------------


def again(segments: Iterable[Segment], begin_ns: int, first_id: int) -> list[Segment]:
    """The segments at another time, as packets of their own."""
    listed = list(segments)
    shift = begin_ns - listed[0].time_ns
    return [replace(s, time_ns=s.time_ns + shift, ip_id=first_id + i) for i, s in enumerate(listed)]


def one_after_the_other(*talks: Talk, pause_ns: int = SECOND) -> list[Segment]:
    told = list(talks[0].segments)
    for place, talk in enumerate(talks[1:], 1):
        told += again(talk.segments, told[-1].time_ns + pause_ns, 10_000 * place)
    return numbered(told)


def numbered(segments: Iterable[Segment]) -> list[Segment]:
    return [replace(segment, number=number) for number, segment in enumerate(segments, 1)]


def without_its_syn(*, second_isn: tuple[int, int] = (1 << 30, 1 << 31), ended: bool = True) -> list[Segment]:
    """A session, and a port used again whose SYN and SYN-ACK are missing."""
    first = healthy() if ended else Talk().open().handshake().hello()
    second = Talk(seed=2, device_isn=second_isn[0], server_isn=second_isn[1])
    second.open().handshake().hello()
    second.send_frames(SERVER, 3)
    del second.segments[:3]
    return one_after_the_other(first, second)


def a_reply_and_nothing_before() -> list[Segment]:
    """The end of a login whose other messages came before the capture began."""
    segments = Talk().open().handshake().segments
    return numbered([segment for segment in segments if segment.length == 384 or segment is segments[-1]])


def forty_bytes_among_frames() -> list[Segment]:
    """Pieces of frames that have a nonce's size."""
    talk = Talk().open().handshake().hello()
    for cuts in ((40,), (10, 50), (40, 80)):
        talk.send_frames(SERVER, 16, cuts=cuts)
        talk.send_frames(DEVICE, 15)
    talk.send_frames(SERVER, 4, cuts=(40,))
    return talk.segments


def a_doubt_that_lasts() -> list[Segment]:
    """The piece with a nonce's size is sent again and acknowledged more often than is waited for."""
    talk = Talk().open().handshake().hello()
    whole = frame(talk.rng, 16)
    talk.frames[SERVER].append(whole[2:])
    talk.send(SERVER, whole[:40], acked=False)
    for _ in range(HELD + 2):
        talk.packet(DEVICE, ACK, ack=talk.next[SERVER] - 40)
    talk.send(SERVER, whole[40:])
    return talk.close().segments


def late_packets() -> list[Segment]:
    """Packets of the old connection among those of the new one, and some when both are over."""
    first, second = healthy(), healthy(seed=2, device_isn=300_000, server_isn=900_000)
    told = one_after_the_other(first, second, pause_ns=5 * MS)
    data = next(s for s in first.segments if s.length == 384)
    old = [
        replace(data, time_ns=told[-30].time_ns, ip_id=60_001),
        replace(first.segments[-1], time_ns=told[-28].time_ns, ip_id=60_002),
        replace(first.segments[-2], flags=RST, time_ns=told[-26].time_ns, ip_id=60_003),
    ]
    told = in_time_order([*told, *old])
    other = Talk(device_end=(DEVICE_END[0], 2000), start_ns=told[-1].time_ns + 3 * LINGER_NS)
    over = other.syn().time_ns
    gone = [
        replace(second.segments[-1], time_ns=over + MS, ip_id=60_004),
        replace(second.segments[-1], flags=RST, time_ns=over + 2 * MS, ip_id=60_005),
        replace(next(s for s in second.segments if s.length == 384), time_ns=over + 3 * MS, ip_id=60_006),
    ]
    return numbered([*told, *other.segments, *gone])


def refused_and_tried_again() -> list[Segment]:
    talk = Talk()
    for _ in range(3):
        talk.syn()
        talk.packet(SERVER, RST | ACK, seq=0)
        talk.wait(SECOND // 2)
    return talk.segments


def closed_but_not_done() -> list[Segment]:
    """A packet that comes long after the end keeps the conversation open."""
    talk = healthy()
    talk.wait(LINGER_NS - SECOND)
    talk.packet(DEVICE)
    talk.wait(2 * SECOND)
    talk.packet(SERVER)
    other = Talk(device_end=(DEVICE_END[0], 2000), start_ns=talk.now + 2 * LINGER_NS)
    other.syn()
    return numbered([*talk.segments, *other.segments])


def a_syn_that_comes_late() -> list[Segment]:
    talk = healthy()
    syn = replace(talk.segments[0], time_ns=talk.segments[20].time_ns + 1)
    return in_time_order([*talk.segments[2:], syn])


def a_late_copy_of_the_syn() -> list[Segment]:
    talk = healthy()
    return in_time_order([*talk.segments, copy_of(talk.segments[0], later_ns=500 * MS)])


def many_attempts() -> list[Segment]:
    """Requests to connect with other numbers, none of which is answered."""
    return numbered(
        s for i in range(5) for s in Talk(device_isn=i << 24, start_ns=i * 3 * SECOND + SECOND).open().segments[:1]
    )


def between_two_known_ports() -> list[Segment]:
    talk = Talk(device_end=(DEVICE_END[0], SPARK_PORT), server_end=(SERVER_END[0], SPARK_PORT)).open()
    return talk.handshake().hello().segments


def over_ipv6() -> list[Segment]:
    ends = (bytes.fromhex("20010db8000000000000000000000001"), 40_000), (bytes(15) + b"\2", SPARK_PORT)
    talk = Talk(device_end=ends[0], server_end=ends[1]).open().handshake().hello()
    third = Talk(
        device_end=(bytes.fromhex("fe80000000000000000a000000000000"), 40_000), server_end=(bytes(16), SPARK_PORT)
    )
    full = Talk(device_end=(bytes(range(16)), 40_000), server_end=(bytes(range(16, 32)), SPARK_PORT))
    return numbered([*talk.segments, third.syn(), full.syn()])


PLACES: Final[dict[str, Callable[[], list[Segment]]]] = {
    "a new SYN": lambda: one_after_the_other(healthy(), healthy(seed=2, device_isn=2000, server_isn=700_900)),
    "a new SYN at once": lambda: one_after_the_other(healthy(), healthy(seed=2, device_isn=5), pause_ns=0),
    "a new SYN much later": lambda: one_after_the_other(healthy(), healthy(seed=2), pause_ns=3 * LINGER_NS),
    "the same number again": lambda: one_after_the_other(healthy(), healthy(seed=2)),
    "three connections": lambda: one_after_the_other(*(healthy(seed=i, device_isn=i << 25) for i in range(3))),
    "no SYN": without_its_syn,
    "no SYN, numbers near": lambda: without_its_syn(second_isn=(5000, 705_000)),
    "no SYN, numbers near, power lost before": lambda: without_its_syn(second_isn=(5000, 705_000), ended=False),
    "a reply alone": a_reply_and_nothing_before,
    "forty bytes": forty_bytes_among_frames,
    "a doubt that lasts": a_doubt_that_lasts,
    "late packets": late_packets,
    "refused": refused_and_tried_again,
    "closed, not done": closed_but_not_done,
    "late SYN": a_syn_that_comes_late,
    "copied SYN": a_late_copy_of_the_syn,
    "many attempts": many_attempts,
    "two known ports": between_two_known_ports,
    "IPv6": over_ipv6,
}


def assert_heard(fed: Fed, heard: Sequence[Heard]) -> None:
    """The same conversations, handshakes and frames."""
    assert len(fed.conversations) == len(heard)
    for conversation, one in zip(fed.conversations, heard, strict=True):
        c = one.conversation
        for end, known in ((conversation[b"device"], c.device), (conversation[b"server"], c.server)):
            assert (text(end[b"ip"]), end[b"port"]) == (known.ip, known.port)
        frames = fed.of("frame", c.number)
        for sender in Sender:
            bodies = [f[b"ciphertext"] for f in frames if f[b"sender"] == sender.value.encode()]
            assert bodies == one.ciphertexts(sender)
        parts = {part[b"kind"].decode(): part[b"data"] for part in fed.of("part", c.number)}
        assert parts == {kind: data for kind in ("nonce", "identity", "session") if (data := one.part(kind))}
        assert (text(conversation[b"kind"]), text(conversation[b"reached"])) == (c.kind, c.reached)
        assert text(conversation[b"closed_by"]) == c.closed_by
        assert (conversation[b"first_packet"], conversation[b"last_packet"]) == (c.first_packet, c.last_packet)
        assert conversation[b"syn_count"] == c.syn_count
        for name in ("syn_ack", "connected", "nonce_acked", "reply_acked"):
            told, fact = conversation[name.encode()], getattr(c, name)
            assert (None if told is None else told[b"packet"]) == (None if fact is None else fact.packet)


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
@pytest.mark.parametrize("name", PLACES)
def test_a_packet_goes_where_the_command_line_puts_it(version: str, name: str) -> None:
    told = PLACES[name]()
    fed = lua(version).feed(told)
    heard = listen([replace(segment) for segment in told])
    assert_heard(fed, heard)


def test_late_packets_of_no_use_are_counted() -> None:
    fed = lua("lua52").feed(late_packets())
    assert fed.analysis[b"tracker"][b"stragglers"] == 3
    assert [c[b"retired"] for c in fed.conversations] == [True, True, False]
    first, second, third = fed.conversations
    assert (first[b"dialled_again"], first[b"later"][b"number"]) == (second[b"start_time"], 2)
    assert third[b"later"] is None
    conversation_of = fed.analysis[b"conversation_of"]
    assert conversation_of(fed.analysis, *SERVER_END, *DEVICE_END) is None
    assert conversation_of(fed.analysis, *SERVER_END, DEVICE_END[0], 2000)[b"number"] == 3
    assert conversation_of(fed.analysis, *SERVER_END, DEVICE_END[0], 2001) is None


def test_conversations_that_are_open_are_bounded() -> None:
    bounded = Plugin("lua52")
    few = plugin().replace(b"LIVE = 65536", b"LIVE = 3")
    assert few != plugin()
    bounded.lua = runtime("lua52")
    bounded.spark = lua_coverage.load(bounded.lua, few)
    talks = [Talk(device_end=(DEVICE_END[0], port)) for port in range(1, 6)]
    told = [talk.syn() for talk in talks[:3]] + [talks[0].syn_ack()] + [talk.syn() for talk in talks[3:]]
    fed = bounded.feed(numbered(told))
    assert fed.analysis[b"tracker"][b"evicted"] == 2
    assert [c[b"retired"] for c in fed.conversations] == [False, True, True, False, False]


# --- What a packet completes -----------------------------------------------------------------------------------


@st.composite
def sessions(draw: st.DrawFn) -> tuple[Talk, list[Segment]]:
    """A session, and a capture of it: segments split, sent again, seen twice, and in another order on the way."""
    talk = Talk(seed=draw(st.integers(0, 1000))).open()
    cut = st.lists(st.integers(1, 383), max_size=3)
    for sender, size in ((SERVER, 40), (DEVICE, 256), (SERVER, 384)):
        talk.send(sender, talk.rng.randbytes(size), draw(cut))
    for _ in range(draw(st.integers(1, 5))):
        talk.send_frames(
            draw(st.sampled_from((DEVICE, SERVER))), *draw(st.lists(st.integers(1, 5), min_size=1)), cuts=draw(cut)
        )
    told: list[Segment] = []
    for segment in talk.close().segments:
        told.append(segment)
        match draw(st.integers(0, 5)) if segment.payload else 0:
            case 1:  # seen twice
                told.append(copy_of(segment, later_ns=20_000))
            case 2:  # sent again
                told.append(replace(segment, ip_id=(segment.ip_id or 0) + 20_000, time_ns=segment.time_ns + MS))
            case 3 if told[-2].payload and told[-2].source == segment.source:  # overtaken
                told[-2:] = [replace(segment, time_ns=told[-2].time_ns), replace(told[-2], time_ns=segment.time_ns)]
    return talk, numbered(told)


@settings(max_examples=40, deadline=None)
@given(sessions())
def test_any_capture_of_a_session_gives_the_same(session: tuple[Talk, list[Segment]]) -> None:
    talk, told = session
    fed = lua("lua54").feed(told, asking=True)
    assert len(fed.conversations) == 1
    assert [part[b"data"] for part in fed.of("part")] == [talk.part(k) for k in ("nonce", "identity", "session")]
    for sender in Sender:
        bodies = [f[b"ciphertext"] for f in fed.of("frame") if f[b"sender"] == sender.value.encode()]
        assert bodies == talk.frames[sender]
    assert not fed.of("hole")
    assert not fed.of("lost")
    assert all(packet >= item[item[b"what"]][b"packet"] for packet, item in fed.items)
    python = listen([replace(segment) for segment in told])
    assert text(fed.conversations[0][b"reached"]) == python[0].conversation.reached


def test_holes_and_lost_framing_are_told_in_their_packet() -> None:
    talk = Talk().open().handshake().hello()
    talk.send_frames(SERVER, 2)
    missing, _ = talk.segments[-2:]
    talk.wait(20 * MS)
    talk.send_frames(SERVER, 1)
    talk.send(DEVICE, b"\xff" * 30)
    talk.segments.remove(missing)
    told = talk.segments
    fed = lua("lua52").feed(told)
    (hole,), (lost,) = fed.of("hole"), fed.of("lost")
    assert (hole[b"length"], hole[b"reason"]) == (missing.length, b"not captured")
    assert (lost[b"sender"], lost[b"field"]) == (b"device", 0xFFFF)
    packets = {item[b"what"]: packet for packet, item in fed.items}
    assert packets[b"hole"] == missing.number + 2  # behind the one that acknowledges it
    assert packets[b"lost"] == told[-2].number
    (listed,) = fed.conversations[0][b"holes"].values()
    assert listed[b"offset"] == hole[b"offset"]


def test_with_the_preference_off_nothing_waits_for_late_segments_and_that_is_said() -> None:
    talk = Talk().open().handshake().hello()
    talk.send(DEVICE, frame(talk.rng), acked=False)
    talk.send(DEVICE, frame(talk.rng), acked=False)
    late, early = talk.segments[-2:]
    talk.segments[-2:] = [replace(early, number=late.number), replace(late, number=early.number)]
    plugin = lua("lua52")
    analysis = plugin.analysis(in_order=False)
    told = [analysis[b"take"](analysis, plugin.segment(one, talk.segments[0].time_ns)) for one in talk.segments]
    conversation, items = told[-2]
    hole, shown = (items[place] for place in (1, 2))
    assert hole[b"hole"][b"reason"] == b"not waited for: 'Put late segments in their place' is off"
    assert shown[b"frame"][b"packet"] == late.number
    assert not list(told[-1][1].values())
    [finding] = (f for f in analysis[b"judge"](analysis, conversation).values() if f[b"code"] == b"SPK703")
    assert b"is off" in finding[b"evidence"][1][b"text"]


def test_what_is_unfinished_is_told() -> None:
    analysis = lua("lua52").analysis()
    talk = Talk().open()
    talk.send(SERVER, bytes(range(40)), (15,), acked=False)
    talk.send(DEVICE, talk.rng.randbytes(256))
    talk.send(SERVER, talk.rng.randbytes(384))
    talk.send(DEVICE, frame(talk.rng, 2), (20,))
    told, offsets = [], []
    for segment in talk.segments:
        table = lua("lua52").segment(segment, talk.segments[0].time_ns)
        conversation, _ = analysis[b"take"](analysis, table)
        told += [conversation[b"waiting"](conversation, sender.value.encode()) for sender in Sender]
        if segment.payload:
            offsets.append((segment.length, conversation[b"offset_of"](conversation, table)))
    assert set(told) - {None} == {b"15 of 40 bytes of the nonce", b"20 bytes of a message that is not whole yet"}
    assert offsets == [(15, 0), (25, 15), (256, 0), (384, 40), (20, 256), (14, 276)]
    conversation[b"retire"](conversation)
    conversation[b"retire"](conversation)
    assert conversation[b"waiting"](conversation, b"device") is None
    assert conversation[b"offset_of"](conversation, table) is None
    assert conversation[b"part"](conversation, b"identity")[b"data"] == talk.part("identity")
    assert not conversation[b"accepts_syn"](conversation, table)


def test_what_a_conversation_keeps_is_bounded() -> None:
    """Dead-key frames without end: each is counted, the first are listed."""
    told = story("no-nonce-ping")
    packets = list(segments(captured(told.packets, told.link_type)))
    ping = next(s for s in packets if s.length == 18)
    talk = Talk().open()
    for _ in range(DEAD_FRAMES + 10):
        talk.send(DEVICE, ping.payload, acked=False)
    fed = lua("lua54").feed(talk.segments)
    (conversation,) = fed.conversations
    device = conversation[b"sides"][b"device"]
    assert (device[b"frames"], device[b"dead"]) == (DEAD_FRAMES + 10, DEAD_FRAMES + 10)
    assert len(conversation[b"dead_frames"]) == DEAD_FRAMES
    assert len(conversation[b"last_frames"]) == LAST_FRAMES
    assert fed.items[0][1][b"dead"] == b"ping under an all-zero key"
    assert fed.verdicts == {}


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_segments_at_all(data: st.DataObject) -> None:
    """Nothing that is on the wire is an error, and questions may be asked at any time."""
    numbers = st.sampled_from((0, 1, 2, 39, 40, 41, 296, 424, 1 << 20, 1 << 31, (1 << 32) - 1))
    flags = st.sampled_from((ACK, ACK, ACK | PSH, SYN, SYN | ACK, FIN | ACK, RST, RST | ACK, 0))
    payloads = st.one_of(
        st.binary(max_size=64),
        st.sampled_from((bytes(40), bytes(256), bytes(384), b"\0\x10" + bytes(16), b"\x50\xe1\x23\x10\0\0\x20")),
    )
    told = []
    for number in range(1, data.draw(st.integers(1, 25)) + 1):
        ends = (DEVICE_END, SERVER_END) if data.draw(st.booleans()) else (SERVER_END, DEVICE_END)
        payload = data.draw(payloads)
        talk = Talk(device_end=ends[0], server_end=ends[1], start_ns=number * data.draw(st.sampled_from((MS, SECOND))))
        segment = talk.packet(DEVICE, data.draw(flags), payload, seq=data.draw(numbers), ack=data.draw(numbers))
        cut = data.draw(st.sampled_from((0, 0, 10)))
        told.append(replace(segment, length=len(payload) + cut, ip_id=data.draw(st.sampled_from((None, 0, number)))))
    told = numbered(told)
    fed = lua("lua52").feed(told, asking=True)
    for conversation in fed.conversations:
        assert conversation[b"reached"] in (
            b"syn",
            b"connected",
            b"nonce",
            b"identity",
            b"session",
            b"hello",
            b"established",
        )
        fed.analysis[b"judge"](fed.analysis, conversation)
    assert {verdict for listed in fed.verdicts.values() for _, verdict in listed} <= {"spark", "coap", "later"}


# --- Whose the bytes are ---------------------------------------------------------------------------------------


def verdicts(told: Iterable[Segment]) -> list[str]:
    """The verdict on each payload, in order."""
    fed = lua("lua52").feed(numbered(told), asking=True)
    return [verdict for listed in fed.verdicts.values() for _, verdict in listed]


def csm(size: int = 5) -> bytes:
    return bytes((size << 4, 0xE1)) + b"\x23\x10\0\0\x20"[:size]


@pytest.mark.parametrize("first", range(28))
def test_genuine_coap_is_left_alone_from_wherever_the_capture_begins(first: int) -> None:
    told = list(segments(shipped("coap-over-tcp")))[first:]
    given_verdicts = verdicts(told)
    assert "spark" not in given_verdicts
    if first < 4:
        assert set(given_verdicts) == {"coap"}


@pytest.mark.parametrize("first", [DEVICE, SERVER])
@pytest.mark.parametrize("cut", range(1, 7))
def test_genuine_coap_whose_first_message_comes_in_two_segments(first: Sender, cut: int) -> None:
    talk = Talk().open()
    talk.send(first, csm(), (cut,))
    talk.send(first.peer, csm())
    talk.send(DEVICE, b"\x52\x01\x50\xcd\xb4time")
    given_verdicts = verdicts(talk.segments)
    assert given_verdicts == ["later", "coap", "coap", "coap"]


def test_genuine_coap_that_says_more_than_a_csm_at_once() -> None:
    whole = csm() + b"\x52\x01\x50\xcd\xb4time"
    talk = Talk().open()
    talk.send(SERVER, whole[:-2])
    assert verdicts(talk.segments) == ["later"]
    talk.send(SERVER, whole[-2:])
    assert verdicts(talk.segments) == ["later", "coap"]
    forty = Talk().open()
    forty.send(SERVER, csm() + b"\xd2\x0f\x45\x50\xcd" + bytes(28))
    assert forty.segments[-2].length == NONCE_SIZE
    assert verdicts(forty.segments) == ["later"]
    forty.send(DEVICE, csm())
    assert verdicts(forty.segments) == ["later", "coap"]


def test_large_messages_of_genuine_coap_begun_midway() -> None:
    """Pieces with the sizes of our handshake, whose messages fill no segment."""
    talk = Talk(seed=3)
    talk.send(SERVER, talk.rng.randbytes(1460))
    talk.send(SERVER, b"\xd2\x13" + b"\x45\x50\xcd\xff" + bytes(34))
    talk.send(DEVICE, b"\xd2\xef\x02\x50\xcd\xff" + bytes(250))
    for _ in range(50):
        talk.send(SERVER, talk.rng.randbytes(1460))
    assert "spark" not in verdicts(talk.segments)


@pytest.mark.parametrize(
    "request_bytes", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x10\x01" + bytes(15), b"\0", b"\x51\xe1" + bytes(6)]
)
def test_a_client_that_speaks_first_and_is_no_device_is_not_ours(request_bytes: bytes) -> None:
    talk = Talk().open()
    talk.send(DEVICE, request_bytes)
    assert verdicts(talk.segments) in (["coap"], ["later"])


@pytest.mark.parametrize("greeting", [b"SSH-2.0-x\r\n", b"HTTP/1.0 302 Found\r\n", b"\x15\x03\x01\0\2\1\0"])
def test_a_server_that_speaks_first_is_ours_to_explain(greeting: bytes) -> None:
    talk = Talk().open()
    talk.send(SERVER, greeting)
    assert verdicts(talk.segments) == ["spark"]


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=38, max_size=38), st.sampled_from((0x00, 0x50, 0xC0, 0xD0, 0x51)), st.integers(1, 39))
def test_a_nonce_that_looks_like_a_csm_is_ours_at_last(rest: bytes, first: int, cut: int) -> None:
    talk = Talk().open()
    talk.send(SERVER, bytes((first, 0xE1)) + rest)
    talk.send(DEVICE, talk.rng.randbytes(IDENTITY_SIZE))
    (greeting, answer) = verdicts(talk.segments)
    assert (greeting, answer) in (("spark", "spark"), ("later", "spark"))
    in_pieces = Talk().open()
    in_pieces.send(SERVER, bytes((first, 0xE0)) + rest, (cut,))
    in_pieces.send(DEVICE, in_pieces.rng.randbytes(IDENTITY_SIZE))
    assert verdicts(in_pieces.segments)[1:] == ["spark", "spark"]


@pytest.mark.parametrize("cut", [1, 2, 128, 255])
def test_a_login_without_its_syn_is_known_by_the_sizes(cut: int) -> None:
    talk = Talk().open().handshake().hello()
    assert verdicts(talk.segments[3:]) == ["later", "spark", "spark", "spark", "spark"]
    assert verdicts(talk.segments[5:]) == ["later", "spark", "spark", "spark"]
    assert verdicts(talk.segments[7:]) == ["later", "spark", "spark"]
    assert verdicts(talk.segments[9:]) == ["spark", "spark"]
    pieces = Talk().open()
    pieces.send(SERVER, pieces.rng.randbytes(40))
    pieces.send(DEVICE, b"\xc3" + pieces.rng.randbytes(255), (cut,))
    assert verdicts(pieces.segments[3:]) == ["later", "later", "spark"]


def test_frames_cut_anyhow_in_a_capture_begun_midway() -> None:
    talk = Talk(seed=4)
    stream = b"".join(frame(talk.rng, blocks) for blocks in (4, 2, 1, 3) * 20)
    talk.send(SERVER, stream, range(11, len(stream), 50))
    given_verdicts = verdicts(talk.segments)
    assert given_verdicts[0] == "later"
    assert given_verdicts[-1] == "spark"


def test_an_answer_whose_greeting_is_missing_from_the_capture() -> None:
    """The device acknowledges forty bytes that nobody captured."""
    talk = Talk().open()
    talk.send(SERVER, bytes(40))
    del talk.segments[3]
    talk.send(DEVICE, talk.rng.randbytes(IDENTITY_SIZE))
    assert verdicts(talk.segments) == ["spark"]
    unseen = Talk().open()
    unseen.send(DEVICE, unseen.rng.randbytes(IDENTITY_SIZE))
    assert verdicts(unseen.segments) == ["spark"]


def test_the_verdict_on_a_first_payload_stays() -> None:
    """It is given before there is a conversation to keep it."""
    talk = Talk()
    talk.send(DEVICE, frame(talk.rng, 2))
    fed = lua("lua52").feed(talk.segments, asking=True)
    assert fed.conversations[0][b"verdict"] == b"spark"
    other = Talk()
    other.send(DEVICE, csm())
    other.send(SERVER, bytes(40))
    assert verdicts(other.segments) == ["coap", "coap"]
