"""The Wireshark plugin: its parts in Lua beside their twins in Python, and the whole of it in a real tshark.

What guides the search are the branches of the Python twin; what both say of an input must be the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import test_lua_analysis
import test_lua_keys
import test_lua_messages
import test_lua_rules
import test_lua_streams
from dissected import differing_values, dissect, expected_messages, messages_of
from judging import verdict
from tcp_talk import listen
from wireshark import OWN, tsharks

from analyzer.network.units import ACK, FIN, RST, SYN
from analyzer.pipeline import Analysis
from analyzer.seen import Endpoint
from analyzer.streams import Sender
from fuzz import mutate
from fuzz.base import KEYS, ring
from fuzz.keyfiles import content_of, key_files, key_logs
from fuzz.script import Script
from fuzz.sealed import sessions_of_messages, talk_of
from fuzz.spoken import SENDERS, conversations, line_of
from fuzz.target import target
from fuzz.tcp import ENDS, Wire, talks
from fuzz.whole import changes, file_of

STEP_NS: Final = 1_500_000
"""From packet to packet: no bound in either twin is a multiple of it, which a float of Lua might miss by a hair."""
LUA: Final = "lua52"
"""What the Wireshark of Debian 12 is built with."""


@target("the plugin's reader of messages in Lua beside the Python one", conversations)
def twin_messages(data: bytes) -> None:
    """Messages of both directions: names, values, pairs and words are the same."""
    script = Script(data)
    lines: list[tuple[str, bytes, int]] = []
    while script and len(lines) < 200:
        head, _ = script.number(), script.number()
        plain = line_of(script, head, [plain for _, plain, _ in lines])
        lines.append((SENDERS[head & 1], plain, 16 if head & 2 else 0))
    test_lua_messages.same_reader(test_lua_messages.plugin(LUA), lines, b"\x12\x34\x56\x78\x9a\xbc\xde\xf0")


def _key_files() -> Iterator[bytes]:
    yield from (b"\0" + seed for seed in key_files())
    yield from (b"\1" + seed for seed in key_logs())


@target("the plugin's reader of key files and key logs in Lua beside the Python one", _key_files)
def twin_keys(data: bytes) -> None:
    """A key file, or with an odd first byte a key log."""
    if data[:1] and data[0] & 1:
        test_lua_keys.check_key_log(LUA, bytes(byte & 0x7F for byte in data[1:]))
    else:
        test_lua_keys.check_same(LUA, content_of(Script(data[1:])))


@target("the plugin's TCP reassembly, handshake and frames in Lua beside the Python ones", talks)
def twin_streams(data: bytes) -> None:
    """One connection, segment by segment; all that is known after each is the same."""
    wire, segments = Wire(Script(data)), []
    while wire.script and wire.count < 100:
        segments.append(wire.segment())
    begun = [number for number, segment in enumerate(segments) if segment.flags & SYN]
    segments = segments[: begun[2] if len(begun) > 2 else len(segments)]
    segments = [
        # Of the flags the plugin has no more than these four.
        replace(
            segment,
            number=number,
            time_ns=1_700_000_000_000_000_000 + number * STEP_NS,
            flags=segment.flags & (FIN | SYN | RST | ACK),
        )
        for number, segment in enumerate(segments, 1)
    ]
    if segments:
        test_lua_streams.run_both(LUA, segments, *(Endpoint(*ENDS[sender]) for sender in Sender))


@target("the plugin's tracker and verdict in Lua on any segments", talks)
def twin_segments(data: bytes) -> None:
    """Any segments: nothing on the wire is an error, and questions may be asked at any time."""
    wire, segments = Wire(Script(data)), []
    while wire.script and wire.count < 100:
        segments.append(wire.segment())
    listen(segments)  # for the branches that it reaches
    fed = test_lua_analysis.lua(LUA).feed(segments, asking=True)
    for conversation in fed.conversations:
        fed.analysis[b"judge"](fed.analysis, conversation)
    assert {one for listed in fed.verdicts.values() for _, one in listed} <= {"spark", "coap", "later"}


@target("the plugin's rules in Lua beside the Python ones, on captures changed packet by packet", changes, longest=400,
        seconds=20)  # fmt: skip
def twin_rules(data: bytes) -> None:
    """Both judge the same facts, with keys and without."""
    script = Script(data)
    head = script.number()
    packets = mutate.mutated(script)
    if not head & 1:
        test_lua_rules.compare(verdict(packets), LUA)
        return
    analysis = Analysis(keys=ring())
    for packet in packets:
        analysis.take(packet)
    test_lua_rules.compare(analysis.finish(), LUA)


# --- in tshark ---------------------------------------------------------------------------------------------------


def _captures() -> Iterator[bytes]:
    yield from (b"\0" + seed[1:] for seed in changes())
    yield from (b"\1" + seed for seed in sessions_of_messages())


@target("the plugin in tshark: captures changed packet by packet, and sessions of any messages under the right key",
        _captures, longest=600, seconds=60)  # fmt: skip
def plugin(data: bytes) -> None:
    """tshark ends well, says nothing of Lua, and shows the messages that the command opens."""
    script = Script(data)
    spoken = script.below(2) == 1
    packets = talk_of(script) if spoken else mutate.mutated(script)
    if not packets:
        return
    own = tsharks()[OWN]
    place = own.write("fuzzed.pcapng", file_of(packets))
    run = dissect.__wrapped__(own, place, "-o", "spark.device_key:" + own.share(KEYS))
    assert run.packets == len(packets)
    if not spoken:
        return
    analysis = Analysis(keys=ring())
    for packet in packets:
        analysis.take(packet)
    trace = analysis.finish()
    assert sorted(run.messages) == sorted(expected_messages(trace))
    shown = sorted(((row, item) for row, item in run.items if item.get("message")), key=lambda one: one[0].number)
    for (_, item), message in zip(shown, sorted(messages_of(trace), key=lambda one: one.packet), strict=True):
        if item.get("plaintext") == message.plaintext.hex(":"):
            assert not differing_values(item, message)
