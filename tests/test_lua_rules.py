"""The plugin's verdicts: on the same facts they are the command line's, code by code and sentence by sentence.

The facts are made by the Python stages and handed to the rules in Lua, so that a difference is the rules' own. What
the plugin never knows (ICMP, ARP, checksums, differing copies) is taken away from the facts first.
"""

from __future__ import annotations

import enum
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import NAMES, captured, shipped
from keyed import KEYS, key_folder, play, right_keys, ring, unlock
from lua_engine import INSIDE_WIRESHARK, VERSIONS, engine

from analyzer import wording
from analyzer.background import Background
from analyzer.capture.packet import Packet as CapturedPacket
from analyzer.catalogue import SPARK_PORT
from analyzer.conversation import Conversation
from analyzer.findings import FINDINGS, JUDGED_IN_WIRESHARK, Finding
from analyzer.keys import Key, KeyRing
from analyzer.messages import SparkMessage
from analyzer.network import Decoder
from analyzer.network.units import ACK, FIN, RST, SYN, Segment
from analyzer.rules import device, judge_alone
from analyzer.rules.facts import Facts, dialled_again
from analyzer.rules.keys import Places
from analyzer.simulate import SCENARIOS, Packet, Simulation, damage, exchanges, finish, make_world, simulate
from analyzer.simulate import Conversation as Attempt
from analyzer.simulate.keys import SERVER_BITS
from analyzer.simulate.scenarios.steps import WRONG_KEY, cannot_use_offer, refused
from analyzer.trace import Trace

TIMES: Final = {"time_ns": "time", "ping_rtt_ns": "ping_rtt"}
SKIPPED: Final = frozenset(
    {"plaintext", "coap", "tail", "rows", "patterns", "reader", "gist", "session_key", "credentials"}
)
MESSAGE: Final = (
    "index",
    "packet",
    "time_ns",
    "direction",
    "name",
    "values",
    "answers",
    "answers_packet",
    "answer_ns",
    "missing",
)
LEFT_OUT: Final = re.compile(r" \([0-9a-f]{8}\)| \(step 1 checks that\)| With --device-key FILE .*")
"""The plugin names keys by their files alone, and has neither numbered steps nor options."""


# -- facts for Lua ----------------------------------------------------------------------------------------------


class Translator:
    """Turns what the Python stages found into the tables that the Lua stages would have made."""

    def __init__(self, lua: Any, trace: Trace) -> None:
        self.lua = lua
        self.first = trace.first_ns or 0
        self.known: dict[int, Any] = {}  # the table of a key is the same one each time
        self.trace = trace
        keys = trace.keys
        conversations = [self.conversation(c) for c in trace.conversations]
        following: dict[bytes, Any] = {}
        for c, table in zip(reversed(trace.conversations), reversed(conversations), strict=True):
            table[b"later"] = following.get(c.device.address)
            following[c.device.address] = table
        self.table = self.of(
            {"last": self.time(trace.last_ns or 0), "conversations": conversations, "keys": keys and self.ring(keys)}
        )

    def time(self, time_ns: int) -> float:
        return (time_ns - self.first) / 1e9

    def of(self, value: Any) -> Any:
        """Return a value as Lua has it."""
        match value:
            case None | bool() | int() | float():
                return value
            case enum.Enum():
                return value.value.encode()
            case str():
                return value.encode()
            case Key():
                return self.key(value)
            case dict():
                return self.lua.table_from({self.of(k): self.of(v) for k, v in value.items() if v is not None})
            case set() | frozenset():
                return self.lua.table_from({self.of(item): True for item in value})
            case list() | tuple() | deque():
                return self.lua.table_from([self.of(item) for item in value])
        return self.record(value) if is_dataclass(value) or isinstance(value, SparkMessage) else value

    def record(self, value: Any, **more: Any) -> Any:
        """Return a dataclass as a table; times (ns since 1970) become seconds since the first packet."""
        made = dict(more)
        names = MESSAGE if isinstance(value, SparkMessage) else [field.name for field in fields(value)]
        for name in names:
            content = getattr(value, name)
            if name in SKIPPED:
                continue
            if name.endswith("_ns"):
                made[TIMES.get(name, name.removesuffix("_ns") + "_time")] = content and self.time(content)
            else:
                made[name] = content
        for name in ("sent", "complete", "cuts"):
            if name not in made and hasattr(value, name):
                made[name] = getattr(value, name)
        return self.of(made)

    def key(self, key: Key) -> Any:
        if id(key) not in self.known:
            made = {
                "name": key.name,
                "n": key.n.to_bytes((key.n.bit_length() + 7) // 8, "big"),
                "private": key.private,
                "role": key.role,
                "device_ids": key.device_ids,
            }
            self.known[id(key)] = self.of(made)
        return self.known[id(key)]

    def ring(self, keys: KeyRing) -> Any:
        names = ("device_keys", "server_keys", "device_private", "server_private")
        made = self.of({name: getattr(keys, name) for name in names})
        made[b"key_with_modulus"] = lambda _, n: self.of(keys.key_with_modulus(int.from_bytes(n, "big")))
        made[b"keys_of_device"] = lambda _, device_id: self.of(keys.keys_of_device(device_id.decode()))
        made[b"firmware_reading"] = lambda _, key: self.of(
            keys.firmware_reading(next(k for k in keys.device_keys if self.key(k)[b"n"] == key[b"n"]))
        )
        return made

    def conversation(self, c: Conversation) -> Any:
        plain = ("number", "first_packet", "last_packet", "syns", "syn_count", "syn_ack", "connected", "closings")
        more = ("holes", "reply_acked", "nonce_acked", "first_frames", "last_frames", "dead_frames", "kind", "reached")
        made = {name: getattr(c, name) for name in (*plain, *more, "midway", "hello", "server_hello", "sides")}
        made |= {"start_time": self.time(c.start_ns), "end_time": self.time(c.end_ns)}
        for end in ("device", "server"):
            there = getattr(c, end)
            made[end] = {"address": there.address, "port": there.port, "ip": there.ip, "id": there.id}
        watch = c.watch
        made["watch"] = {
            "pings_answered": watch.pings_answered,
            "unanswered": watch.unanswered,
            "update": watch.update,
        }
        said = [message for message in c.messages if message.direction == "server"]
        made["last_server_message"] = said[-1] if said else None
        table = self.of(made)
        if said:
            table[b"last_server_message"][b"code"] = self.of(said[-1].code)
        parts = {kind.encode(): self.of(c.part(kind)) for kind in ("nonce", "identity", "session")}
        table[b"part"] = lambda _, kind: parts[kind]
        table[b"refresh"] = lambda _: None
        if c.secrets is not None:
            table[b"secrets"] = self.secrets(c)
        return table

    def secrets(self, c: Conversation) -> Any:
        assert c.secrets is not None
        secrets = c.secrets
        made = self.record(secrets, session_key=secrets.session_key is not None)
        made[b"patterns"] = self.lua.table()
        for sender, pattern in secrets.patterns.items():
            table = self.of({"opened": pattern.opened, "frames": pattern.frames})
            troubles = self.of([{"run": run, "trouble": trouble} for run, trouble in pattern.troubles()])
            table[b"troubles"] = lambda _, troubles=troubles: troubles
            made[b"patterns"][sender.value.encode()] = table
        if secrets.reader is not None:
            made[b"reader"] = self.of({"generation": secrets.reader.generation, "firmware": secrets.reader.firmware})
        return made


def without_what_is_unknown(trace: Trace) -> Trace:
    """Take away what the plugin does not know."""
    trace.background = Background()
    for c in trace.conversations:
        for side in c.sides.values():
            # Conversations that are alike share what was counted.
            side.quality = replace(side.quality, set_aside=0, mismatches=0)
    return trace


# -- what each of the two says ------------------------------------------------------------------------------------

Verdict = tuple[str, str, str, str, str]


def said_by_python(trace: Trace) -> list[Counter[Verdict]]:
    places = Places(trace) if trace.keys else None
    found: list[list[Finding]] = [
        judge_alone(Facts(c, trace, again), places, [])
        for c, again in zip(trace.conversations, dialled_again(trace), strict=True)
    ]
    for finding in device.left_open(trace):
        found[finding.conversations[0] - 1].append(finding)
    return [
        Counter(
            (f.code, f.severity.value, f.confidence.value, f.summary, LEFT_OUT.sub("", f.because))
            for f in findings
            if f.code in JUDGED_IN_WIRESHARK
        )
        for findings in found
    ]


def said_by_lua(lua: Any, spark: Any, trace: Trace) -> list[Counter[Verdict]]:
    translator = Translator(lua, trace)
    found = []
    for table, again in zip(translator.table[b"conversations"].values(), dialled_again(trace), strict=True):
        found.append(told(spark[b"judge"](table, translator.table, again and translator.time(again))))
    return found


def told(findings: Any) -> Counter[Verdict]:
    """What the plugin says of one conversation."""
    listed: Counter[Verdict] = Counter()
    for finding in findings.values():
        code, severity, confidence, summary, because = (
            finding[name].decode() for name in (b"code", b"severity", b"confidence", b"summary", b"because")
        )
        listed[code, severity, confidence, summary, because] += 1
        assert finding[b"packet"] >= 1
        for item in finding[b"evidence"].values():
            assert item[b"text"].endswith(b".")
    return listed


def compare(trace: Trace, version: str) -> None:
    """Assert that both say the same of each conversation."""
    without_what_is_unknown(trace)
    lua, spark = loaded(version)
    wanted, got = said_by_python(trace), said_by_lua(lua, spark, trace)
    for number, (one, other) in enumerate(zip(wanted, got, strict=True), 1):
        assert other == one, f"conversation {number}"


@cache
def loaded(version: str) -> tuple[Any, Any]:
    return engine(version)


@cache
def played(name: str) -> Simulation:
    return simulate(name)


def goes_dead(packets: Sequence[Packet]) -> list[Packet]:
    """The connection stops in its middle, and the capture goes on with something else."""
    kept = list(packets[: 2 * len(packets) // 3])
    last = kept[-1] if kept else packets[-1]
    other = last.data[:12] + b"\x88\xb5" + bytes(46)
    return [*kept, replace(last, data=other, time_ns=last.time_ns + 120 * 10**9)]


def sent_again(packets: Sequence[Packet]) -> list[Packet]:
    """Each fifth packet once more, 300 ms later and with an IP identification of its own."""
    again = []
    for packet in packets[2::5]:
        ip_id = packet.network + 4
        data = packet.data[:ip_id] + b"\xfe\xed" + packet.data[ip_id + 2 :]
        again.append(replace(packet, data=data, time_ns=packet.time_ns + 300_000_000))
    return sorted([*packets, *again], key=lambda packet: packet.time_ns)


DAMAGE: Final[dict[str, Callable[[Sequence[Packet]], Sequence[Packet]]]] = {
    "none": lambda packets: packets,
    "device only": lambda packets: damage.one_direction(packets, "device"),
    "server only": lambda packets: damage.one_direction(packets, "server"),
    "begun late": lambda packets: damage.start_after(packets, 0.3),
    "cut short": lambda packets: damage.snaplen(packets, 150),
    "ended early": lambda packets: damage.stop_after(packets, 12.0),
    "doubled": damage.duplicate,
    "every fifth lost": lambda packets: damage.drop_packets(packets, range(3, len(packets), 5)),
    "goes dead": goes_dead,
    "sent again": sent_again,
}


WITH_KEYS: Final = ("none", "server only", "cut short", "ended early", "every fifth lost")
LONG: Final = "retries"
"""A story of many attempts."""
STORIES: Final = [name for name in SCENARIOS if name != LONG]


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
@pytest.mark.parametrize("name", NAMES)
def test_says_of_a_shipped_capture_what_the_command_line_says(name: str, version: str) -> None:
    compare(unlock(shipped(name), None), version)
    compare(unlock(shipped(name), right_keys(name)), version)


@pytest.mark.parametrize("name", STORIES)
def test_says_of_a_story_what_the_command_line_says(name: str, tmp_path: Path) -> None:
    story = played(name)
    keys = key_folder(story, tmp_path) if story.keys else None
    for variant, spoil in DAMAGE.items():
        packets = captured(list(spoil(story.packets)), story.link_type)
        compare(unlock(packets, None), "lua54")
        if variant in WITH_KEYS:
            compare(unlock(packets, keys), "lua52")


@pytest.mark.parametrize("version", VERSIONS)
def test_tells_many_attempts_one_by_one(version: str, tmp_path: Path) -> None:
    story = simulate(LONG, attempts=60)
    compare(play(story, key_folder(story, tmp_path)), version)


# -- keys that prove less, or something else ----------------------------------------------------------------------

FAILING: Final = {
    "bad-signature": ("core-a.der", "core-b.der", "server.pem", "server.pub.pem", "other-server.pub.pem"),
    "key-mismatch-retries": ("core-a.der", "core-a-stale.der", "core-a.pub.pem", "server.pem", "other-server.pub.pem"),
    "wrong-server-key": ("server.pem", "other-server.pem", "server.pub.pem", "other-server.pub.pem", "core-a.der"),
    "unknown-device": ("server.pem", "other-server.pem", "core-a.der", "core-d.pub.pem"),
    "two-devices-background": ("core-a.der", "core-b.der", "core-c.der", "server.pub.pem"),
}


@pytest.mark.parametrize("name", FAILING)
def test_says_with_any_choice_of_keys_what_the_command_line_says(name: str) -> None:
    for count in (1, 2, 3):
        for chosen in combinations(FAILING[name], count):
            compare(unlock(shipped(name), ring(*chosen)), "lua54")


REFUSED: Final = ("unknown-device", "server-broken", "split-identity", "clone", "offers-other-key")
NOT_USED: Final = (
    "key-mismatch",
    "bad-signature",
    "dead-key",
    "short-integer",
    "worked-then-fails",
    "hello-unanswered",
)


def some_keys(story: Simulation) -> Iterator[tuple[str, ...]]:
    """Choices among the keys of a story: private or public halves of one role or both."""
    by_ending = [[name for name in sorted(story.keys) if name.endswith(ending)] for ending in (".pem", ".pub.pem")]
    private = [name for name in by_ending[0] if name not in by_ending[1]]
    for names in (private, by_ending[1]):
        server, device = [[n for n in names if ("server" in n) is is_server] for is_server in (True, False)]
        yield from (tuple(chosen) for chosen in (server, device, names) if chosen)
    yield tuple(sorted(story.keys))


@pytest.mark.parametrize("firmware", ["core-0.5", "photon-1.4"])
@pytest.mark.parametrize("name", REFUSED + NOT_USED)
def test_says_with_other_keys_what_the_command_line_says(name: str, firmware: Any, tmp_path: Path) -> None:
    if firmware not in SCENARIOS[name].firmwares:
        firmware = SCENARIOS[name].firmwares[0]
    story = simulate(name, firmware=firmware)
    for chosen in some_keys(story):
        compare(play(story, key_folder(story, tmp_path, *chosen)), "lua54")


@pytest.mark.parametrize("stored", ["photon-a.pub.pem", "photon-a-stale.pub.pem", "server.pub.pem"])
@pytest.mark.parametrize("name", ["offers-other-key", "unknown-device", "key-mismatch", "server-broken"])
def test_a_server_folder_says_which_key_is_on_file(name: str, stored: str, tmp_path: Path) -> None:
    story = simulate(name, firmware="photon-1.4")
    if stored not in story.keys:
        stored = "photon-a.pub.pem"
    device_id = next(session["device_id"] for session in story.truth["sessions"])
    (tmp_path / f"{device_id}.pub.pem").write_bytes(story.keys[stored])
    (tmp_path / "server.pem").write_bytes(story.keys["server.pem"])
    compare(play(story, KeyRing.load(tmp_path)), "lua52")


@pytest.mark.parametrize("is_refused", [True, False])
@pytest.mark.parametrize("offered", [b"\xff" * 128, b"\x77\x02\x01\x01\x04\x20" + bytes(122)])
def test_says_of_a_slot_without_a_key_what_the_command_line_says(
    offered: bytes, is_refused: bool, tmp_path: Path
) -> None:
    world = make_world(firmware="photon-1.4", server="community" if is_refused else "legacy")
    c = Attempt(world, world.add_device(), at=0.0)
    c.connect()
    c.nonce()
    key = (
        bytes.fromhex("30819f300d06092a864886f70d010101050003818d0030818902818100") + offered + b"\x02\x03\x01\x00\x01"
    )
    sealed = c.device.trusts.seal(c.nonce_bytes + c.device.device_id + key, c.random)
    c.tcp.send("device", sealed, after=0.001, label="identity")
    if is_refused:
        refused(c, "another key is on file")
    else:
        c.offer()
        cannot_use_offer(c, WRONG_KEY)
    story = finish(world)
    compare(play(story, key_folder(story, tmp_path, "server.pem")), "lua54")


@pytest.mark.parametrize("firmware", ["core-0.5", "photon-1.4"])
def test_another_devices_login_shows_whose_keys_are_where(firmware: Any, tmp_path: Path) -> None:
    world = make_world(firmware=firmware, server="legacy")
    devices = [world.add_device() for _ in range(3)]
    fine, lost, swapped = devices
    lost.trusts_name, lost.trusts = "other-server", world.private_key("other-server", SERVER_BITS)
    registry = world.server.registry
    registry[swapped.device_id] = registry[fine.device_id]
    for start, who in enumerate(devices):
        c = Attempt(world, who, at=float(start))
        if who is fine:
            c.handshake()
            exchanges.after_hello(c)
            continue
        c.connect()
        c.nonce()
        c.identity()
        if who is lost:
            refused(c, "decryption failed")
        else:
            c.offer()
            cannot_use_offer(c, WRONG_KEY)
    story = finish(world)
    private = [name for name in sorted(story.keys) if name.endswith(".der") and ".pub" not in name]
    for count in (1, 2, 3, len(private)):
        for chosen in combinations(private, count):
            compare(play(story, key_folder(story, tmp_path, *chosen, "server.pub.pem")), "lua54")
    compare(play(story, key_folder(story, tmp_path, "server.der", "other-server.pub.pem")), "lua54")


@pytest.mark.parametrize("after", [1.0, 9.4, 9.9, 25.0])
def test_a_login_cut_by_the_servers_limit(after: float) -> None:
    world = make_world()
    c = Attempt(world, world.add_device(), at=0.0)
    c.connect()
    c.nonce()
    c.identity(after=after)
    refused(c, "handshake timed out", after=0.2)
    story = finish(world)
    compare(unlock(captured(story.packets, story.link_type), None), "lua52")


def test_many_attempts_exclude_public_keys(tmp_path: Path) -> None:
    story = simulate(LONG, attempts=60)
    given = [KeyRing.load(path) for path in sorted(KEYS.glob("*server.pub.pem"))]
    for keys in (*given, ring(*(path.name for path in sorted(KEYS.glob("*server.pub.pem"))))):
        compare(play(story, keys), "lua54")
    for owner in ("core-a", "core-b", "core-c"):
        compare(play(simulate("key-mismatch", attempts=40), ring(f"{owner}.pub.pem")), "lua54")


# -- through the engine -------------------------------------------------------------------------------------------

FIELDS: Final = ("source", "target", "source_port", "target_port", "seq", "ack", "length", "payload", "ttl", "ip_id")
FLAGS: Final = {b"fin": FIN, b"syn": SYN, b"rst": RST, b"acks": ACK}


def through_the_engine(packets: Iterable[CapturedPacket], last: float, version: str, keys: Path | None = None) -> Any:
    """Feed the plugin's engine, and return the verdict on each conversation; ``last`` is the time of the capture's last
    packet, of whatever kind.
    """
    lua, spark = loaded(version)
    options = {b"ports": lua.table_from({SPARK_PORT: True})}
    if keys is not None:
        listed = lua.table_from([path.name.encode() for path in sorted(keys.iterdir())])
        spark[b"files"][b"list"] = lua.execute(b"local names = ... return function() return names end", listed)
        paths = {b"device_key": str(keys).encode(), b"server_key": b"", b"keylog": b""}
        options[b"keys"] = spark[b"KeyRing"][b"load"](lua.table_from(paths))
    analysis = spark[b"Analysis"][b"new"](lua.table_from(options))
    decode, first = Decoder().decode, None
    for number, packet in enumerate(packets, 1):
        segment = decode(packet)
        first = packet.time_ns if first is None else min(first, packet.time_ns)
        if isinstance(segment, Segment) and SPARK_PORT in (segment.source_port, segment.target_port):
            table = {name.encode(): getattr(segment, name) for name in FIELDS if getattr(segment, name) is not None}
            table |= {name: bool(segment.flags & flag) for name, flag in FLAGS.items()}
            table |= {b"number": number, b"time": (segment.time_ns - first) / 1e9}
            analysis[b"take"](analysis, lua.table_from(table))
    analysis[b"trace"][b"last"] = last
    conversations = analysis[b"trace"][b"conversations"].values()
    return [told(analysis[b"judge"](analysis, conversation)) for conversation in conversations]


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
@pytest.mark.parametrize("name", NAMES)
def test_says_the_same_from_packets_alone(name: str, version: str, tmp_path: Path) -> None:
    for keys in (None, right_keys(name)):
        trace = without_what_is_unknown(unlock(shipped(name), keys))
        for file in keys.files if keys is not None else ():
            (tmp_path / Path(file.name).name).write_bytes(Path(file.name).read_bytes())
        got = through_the_engine(shipped(name), trace.duration_ns / 1e9, version, None if keys is None else tmp_path)
        assert got == said_by_python(trace)


# -- words ------------------------------------------------------------------------------------------------------------

COUNTS: Final = st.integers(-(10**6), 10**12)


@pytest.mark.parametrize("version", VERSIONS)
@given(count=COUNTS, listed=st.lists(st.integers(1, 10**6), min_size=1, max_size=9), data=st.binary(max_size=70))
@settings(max_examples=150, deadline=None)
def test_words_numbers_as_the_report_does(version: str, count: int, listed: list[int], data: bytes) -> None:
    lua, spark = loaded(version)
    words = spark[b"wording"]
    assert words[b"number"](count).decode() == wording.number(count)
    assert words[b"plural"](count, b"copy", b"copies").decode() == wording.plural(count, "copy", "copies")
    assert words[b"size"](abs(count)).decode() == wording.size(abs(count))
    assert words[b"packets"](lua.table_from(listed)).decode() == wording.packets(listed)
    names = [str(n) for n in listed]
    assert words[b"listing"](lua.table_from([n.encode() for n in names]), b"or").decode() == wording.listing(
        names, "or"
    )
    ascii_text = bytes(byte & 127 for byte in data)
    binary = b"\xff" + data  # no text in UTF-8
    for shown in (ascii_text, binary, b'said "no"'):
        assert words[b"quote"](shown).decode() == wording.quote(shown)


@pytest.mark.parametrize("version", VERSIONS)
@given(exponent=st.floats(0, 16), sign=st.sampled_from((1, -1)))
@settings(max_examples=150, deadline=None)
def test_words_a_time_span_as_the_report_does(version: str, exponent: float, sign: int) -> None:
    nanoseconds = sign * int(10**exponent)
    said = loaded(version)[1][b"wording"][b"duration"](nanoseconds / 1e9).decode()
    assert said == wording.duration(nanoseconds)


def test_what_is_judged_exists() -> None:
    assert set(FINDINGS) >= JUDGED_IN_WIRESHARK
