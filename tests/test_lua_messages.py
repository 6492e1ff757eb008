"""Messages read by the plugin's Lua: named, explained, paired and put in words as the Python does it."""

from __future__ import annotations

import json
import math
import os
import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from lua_engine import INSIDE_WIRESHARK, VERSIONS, engine

from analyzer import KeyRing, analyze
from analyzer.coap import ACK, CON, NON, RST, Anomaly, decode, decode_tail, encode
from analyzer.deadkey import is_whole_coap, without_padding
from analyzer.message_table import DEVICE, MESSAGES, SERVER
from analyzer.messages import MessageReader, SparkMessage, label, quote, summary
from analyzer.messages.describe import DEEPEST_DESCRIPTION, LARGEST_DESCRIPTION, MOST_DIGITS, read_description
from analyzer.messages.peers import LAST_SEPARATE_PHOTON
from analyzer.messages.reader import MOST_OUTSTANDING

ROOT = Path(__file__).parent.parent
CAPTURES = ROOT / "captures"
GOLDEN = Path(__file__).parent / "golden" / "wireshark-info.txt"
VECTORS = json.loads((ROOT / "tests/vectors/vectors.json").read_text())
NAMES = sorted(path.name.removesuffix(".pcap") for path in CAPTURES.glob("*.pcap"))
fuzz = settings(max_examples=100, deadline=None)

Line = tuple[str, bytes, int]
"""Sender, plaintext, bytes lost at its front."""


class Plugin:
    """The parts in one Lua, asked in Python's terms."""

    def __init__(self, version: str) -> None:
        self.lua, self.spark = engine(version)
        self.null = self.spark[b"NULL"]
        self.same = self.lua.eval(b"rawequal")
        self.length = self.lua.eval(b"function(list) return #list end")

    def text(self, name: str, *arguments: Any) -> str:
        found: str = self.spark[name.encode()](*arguments).decode("utf-8")
        return found

    def read(self, lines: Iterable[Line], salt: bytes | None = None) -> tuple[Any, list[Any]]:
        """Feed lines to a new reader, a packet and a quarter of a second each."""
        reader = self.spark[b"MessageReader"][b"new"](salt)
        return reader, [
            reader[b"read"](reader, sender.encode(), plain, packet, packet / 4, missing)
            for packet, (sender, plain, missing) in enumerate(lines, 1)
        ]

    def raw_list(self, table: Any) -> list[Any]:
        return [table[place] for place in range(1, self.length(table) + 1)]

    def plain(self, value: Any) -> Any:
        """A value as Python has it: text, numbers, lists and dictionaries in order."""
        if isinstance(value, bytes):
            return value.decode("utf-8")
        if value is None or isinstance(value, bool | int | float):
            return value
        if self.same(value, self.null):
            return None
        if value[b"digits"] is not None:
            return int(value[b"digits"])
        if value[b"order"] is not None:
            return {key.decode("utf-8"): self.plain(value[b"fields"][key]) for key in self.raw_list(value[b"order"])}
        return [self.plain(item) for item in self.raw_list(value)]

    def values(self, message: Any) -> dict[str, Any]:
        """All values in their order."""
        order = self.raw_list(message[b"value_order"])
        known = {key for key in message[b"values"] if message[b"values"][key] is not None}
        assert known <= set(order)
        return {key.decode(): self.plain(message[b"values"][key]) for key in order}

    def told(self, table: Any, order: Any) -> dict[str, Any]:
        return {key.decode(): self.plain(table[key]) for key in self.raw_list(order)}

    def coap(self, raw: bytes) -> dict[str, Any]:
        read = self.spark[b"coap"][b"decode"](raw)
        fields = {name: read[name.encode()] for name in ("version", "type", "code", "message_id", "token", "payload")}
        options = read[b"options"]
        return fields | {
            "options": [(option[1], option[2]) for option in self.raw_list(options)],
            "path": options[b"path"].decode("utf-8"),
            "queries": self.raw_list(options[b"queries"]),
            "anomalies": [text.decode() for text in self.raw_list(read[b"anomalies"])],
            "well_formed": self.spark[b"coap"][b"well_formed"](read),
        }

    def shown(self, text: str) -> str:
        """A line of Python's as the plugin writes it: what its ranges of characters do not have is escaped."""
        return "".join(
            character if character.isascii() or self.spark[b"is_printable"](ord(character)) else escape(character)
            for character in text
        )


@cache
def plugin(version: str) -> Plugin:
    return Plugin(version)


every_lua = pytest.mark.parametrize("version", VERSIONS)
wireshark_lua = pytest.mark.parametrize("version", INSIDE_WIRESHARK)


def escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def coap_of(raw: bytes) -> dict[str, Any]:
    read = decode(raw)
    fields = {name: getattr(read, name) for name in ("version", "type", "code", "message_id", "token", "payload")}
    return fields | {
        "options": list(read.options),
        "path": read.path,
        "queries": read.queries,
        "anomalies": [str(anomaly) for anomaly in read.anomalies],
        "well_formed": read.well_formed,
    }


LARGEST_NUMBER = 0xFFFFFFFF
FROM_OPTIONS = {"ttl", "crc", "index", "flags", "cloud_reason", "reset_reason", "sleep_seconds", "network_reason"}
"""Values that a stranger can make larger than a field of Wireshark's holds: text in the plugin, then."""


def large(values: dict[str, Any]) -> dict[str, int]:
    return {
        key: value
        for key, value in values.items()
        if key in FROM_OPTIONS and isinstance(value, int) and value > LARGEST_NUMBER
    }


def expected_values(message: SparkMessage) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(message.values))
    return values | {key: hex(value) for key, value in large(message.values).items()}


def expected_summary(lua: Plugin, message: SparkMessage) -> str:
    line = summary(message)
    for value in large(message.values).values():
        line = re.sub(rf"\b{value}\b", hex(value), line)
    return lua.shown(line)


def same_reader(lua: Plugin, lines: Sequence[Line], salt: bytes | None = None) -> list[Any]:
    """Read lines with both, and compare everything that either says of a message."""
    reader = MessageReader(salt)
    lua_reader, found = lua.read(lines, salt)
    for packet, ((sender, plain, missing), read) in enumerate(zip(lines, found, strict=True), 1):
        message = reader.read(sender, plain, packet, packet * 250_000_000, missing)
        for name in ("name", "direction", "type", "code", "path"):
            value = read[name.encode()]
            assert (value if value is None else value.decode("utf-8")) == getattr(message, name), (name, message)
        for name in ("index", "packet", "message_id", "token", "payload", "plaintext", "missing", "answers"):
            assert read[name.encode()] == getattr(message, name), (name, message)
        query = read[b"query"]
        assert (query if query is None else lua.raw_list(query)) == message.query
        assert read[b"answers_packet"] == message.answers_packet
        assert read[b"answer_time"] == (None if message.answer_ns is None else message.answer_ns / 1e9)
        values, expected = lua.values(read), expected_values(message)
        if message.missing:
            text = expected["tail_text"]
            expected["tail_text"] = text if text and lua.shown(text) == text else None
            if expected["tail_text"] != text:
                message.values = expected
        assert values == expected
        assert list(values) == list(expected)
        assert lua.text("label", read) == lua.shown(label(message))
        assert lua.text("summary", read) == expected_summary(lua, message)
        info = lua.text("info", read)
        assert 0 < len(info) <= 80
        assert info.isprintable()
    for name in ("generation", "firmware", "server_dialect", "id_order"):
        value = lua_reader[name.encode()]
        assert (value if value is None else value.decode()) == getattr(reader, name)
    assert lua_reader[b"forgotten"] == reader.forgotten
    return found


# Genuine traffic


@cache
def shipped(name: str) -> list[list[SparkMessage]]:
    """The messages of each conversation of a shipped capture."""
    trace = analyze(CAPTURES / f"{name}.pcap", keys=KeyRing.load(CAPTURES / "keys"))
    return [conversation.messages for conversation in trace.conversations if conversation.messages]


def lines_of(messages: Iterable[SparkMessage]) -> list[Line]:
    return [(message.direction, message.plaintext, message.missing) for message in messages]


@every_lua
def test_every_message_of_the_captures_is_read_as_python_reads_it(version: str) -> None:
    seen = sum(len(same_reader(plugin(version), lines_of(messages))) for name in NAMES for messages in shipped(name))
    assert seen > 1000


@every_lua
@pytest.mark.parametrize("session", VECTORS["sessions"], ids=lambda session: session["name"])
def test_every_vector_is_read_as_python_reads_it(version: str, session: dict[str, Any]) -> None:
    lines = [(frame["dir"].split("->")[0], bytes.fromhex(frame["coap"]), 0) for frame in session["frames"]]
    lua = plugin(version)
    found = same_reader(lua, lines, bytes.fromhex(session["session"]["salt"]))
    assert found[0][b"name"] == b"Hello"


def sessions() -> list[list[Line]]:
    """Sessions as both ends recorded them, unknown to any stream or key."""
    talks: list[list[Line]] = []
    for path in sorted(CAPTURES.glob("*.truth.json")):
        for session in json.loads(path.read_text()).get("sessions", []):
            sent = [(line["t"], DEVICE, line["hex"]) for line in session["c2s"]]
            sent += [(line["t"], SERVER, line["hex"]) for line in session["s2c"]]
            talks.append([(sender, bytes.fromhex(raw), 0) for _, sender, raw in sorted(sent)])
    return [talk for talk in talks if talk]


@wireshark_lua
def test_every_session_that_was_recorded_is_read_as_python_reads_it(version: str) -> None:
    for talk in sessions():
        same_reader(plugin(version), talk, bytes(range(8)))


def info_lines(lua: Plugin) -> str:
    """What the Info column says, capture by capture; of a run of chunks only what begins it."""
    lines: list[str] = []
    for name in NAMES:
        for number, messages in enumerate(shipped(name), 1):
            lines.append(f"{name}, session {number}")
            _, found = lua.read(lines_of(messages))
            told = [
                (message.direction == DEVICE, lua.text("info", read))
                for message, read in zip(messages, found, strict=True)
            ]
            shown = [f"  {'>' if device else '<'} {info}" for device, info in told]
            bare = [re.sub(r"\d+", "0", line) for line in shown]
            lines += [line for at, line in enumerate(shown) if "Chunk" not in line or bare[at] not in bare[:at]]
    return "\n".join(lines) + "\n"


@wireshark_lua
def test_the_info_column_of_the_captures_reads_as_reviewed(version: str) -> None:
    """To write the file anew: SPARKSHARK_REGENERATE=1 python -m pytest tests/test_lua_messages.py"""
    found = info_lines(plugin(version))
    if os.environ.get("SPARKSHARK_REGENERATE"):
        GOLDEN.write_text(found, encoding="utf-8")
    assert found == GOLDEN.read_text(encoding="utf-8")


# CoAP

PLAINTEXTS = sorted({line[1] for talk in sessions() for line in talk}, key=lambda raw: (len(raw), raw))
PLAINTEXTS += [bytes.fromhex(frame["coap"]) for session in VECTORS["sessions"] for frame in session["frames"]]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A genuine plaintext with some bytes changed, put in, or cut off."""
    raw = bytearray(draw(st.sampled_from(PLAINTEXTS)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, min(len(raw), 40) - 1)))
        kind = draw(st.integers(0, 3))
        some = draw(st.sampled_from([0, 1, 12, 13, 14, 15, 0x40, 0xB1, 0xD0, 0xDD, 0xE0, 0xEE, 0xF0, 0xFF]))
        if kind == 0:
            raw[at : at + 1] = bytes((some,))
        elif kind == 1:
            raw[at:at] = bytes((some,))
        elif kind == 2:
            del raw[at : at + 1]
        else:
            del raw[at + 4 :]
    return bytes(raw)


option_numbers = st.sampled_from([1, 3, 6, 11, 11, 11, 12, 14, 15, 15, 60, 258, 2048, 65535])
option_values = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([b"e", b"E", b"h", b"u", b"c", b"v", b"f", b"d", b"\0", b"\1", bytes(9), b"x" * 13, b"y" * 270]),
)


@st.composite
def made_up(draw: st.DrawFn) -> bytes:
    """A message that this protocol could have, or nearly."""
    letter = draw(st.sampled_from([b"e", b"E", b"h", b"u", b"c", b"v", b"f", b"d", b"s", b"t", b"x", b"k", b"z", b""]))
    options = [(11, letter)] if letter else []
    options += draw(st.lists(st.tuples(option_numbers, option_values), max_size=4))
    payload = draw(st.one_of(st.none(), st.binary(max_size=24), descriptions))
    code = draw(st.sampled_from([0, 1, 2, 3, 4, 0x44, 0x45, 0x80, 0x84, 0xA0, 0xA3, 0x40, 0xC1, 0xFF]))
    return encode(
        draw(st.sampled_from([CON, NON, ACK, RST])),
        code,
        draw(st.sampled_from([0, 1, 2, 0x1236, 0xFFFF])),
        token=draw(st.sampled_from([b"", b"\0", b"\1", b"\2", b"12345678"])),
        options=options,
        payload=payload,
    )


json_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-10, 300),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(["\ud800", "\udfff", "\x7f", "é", "𝒳", '"', "\\", "m", "b"]),
)
json_keys = st.one_of(
    st.sampled_from(["f", "v", "p", "m", "s", "l", "vc", "vv", "u", "n", "d", "location", "_", "name", "\ud800", "?"]),
    st.text(max_size=3),
)
json_values = st.recursive(
    json_leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(json_keys, inner, max_size=5)),
    max_leaves=20,
)
module = st.dictionaries(json_keys, json_values, max_size=5)
described = st.fixed_dictionaries(
    {},
    optional={
        "f": st.lists(st.one_of(st.text(max_size=12), json_leaves), max_size=4),
        "v": st.dictionaries(
            st.text(max_size=5), st.one_of(st.sampled_from([1, 2, 4, 9, "bool", "odd"]), json_leaves), max_size=4
        ),
        "p": st.one_of(st.sampled_from([0, 6, 8, 10]), json_leaves),
        "m": st.lists(st.one_of(module, json_leaves), max_size=3),
        "x": json_values,
    },
)


PIECES = [b"", b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"0", b"-", b".5", b"e9", b"1", b"\xff", b"\x01"]
PIECES += [b"\\u", b"\\ud83d", b"\\udc00", b"\\x", b" ", b"\n", b"NaN", b"-Infinity", b"true", b"null", b"\x7f"]


@st.composite
def json_texts(draw: st.DrawFn) -> bytes:
    """JSON of a device, or text that is nearly that."""
    value = draw(st.one_of(described, json_values))
    written = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, None, 1])))
    raw = written.encode("utf-8", "surrogatepass")
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(raw)))
        put = draw(st.sampled_from(PIECES))
        raw = raw[:at] + put + raw[at + draw(st.integers(0, 1)) :]
    return raw


descriptions = st.one_of(json_texts(), st.just(b"\0\4\0metrics"))
plaintexts = st.one_of(mutated(), made_up(), st.binary(max_size=60))


@wireshark_lua
@fuzz
@given(raw=plaintexts)
@example(raw=b"")
@example(raw=b"\x40\x02\0\0\xff")
@example(raw=b"\x48\x02\0\0token")
@example(raw=b"\x40\x02\0\0\x0f")
@example(raw=b"\x40\x02\0\0\xf0")
@example(raw=bytes.fromhex("4102000204b16344ffffffff020001ffff"))
@example(raw=b"\x40\x02\0\0\xee\xff\xf2\xff\xff" + bytes(0xFFFF + 269))
@example(raw=b"\x40\x02\0\0\xe0\xff\xf0\x10" + b"\xe0\xff\xff" * 3)
def test_any_bytes_are_the_same_coap_to_both(version: str, raw: bytes) -> None:
    for _ in range(2):  # the second time the memo of options may answer
        assert plugin(version).coap(raw) == coap_of(raw)
    assert plugin(version).spark[b"is_whole_coap"](raw) is is_whole_coap(raw)


@every_lua
def test_every_kind_of_anomaly_has_the_same_words(version: str) -> None:
    broken = {
        Anomaly.TRUNCATED: "410100",
        Anomaly.BAD_VERSION: "80010001",
        Anomaly.RESERVED_TOKEN_LENGTH: "49010001" + "00" * 9,
        Anomaly.RESERVED_OPTION_NIBBLE: "40010001f0",
        Anomaly.OPTION_PAST_END: "40010001b5",
        Anomaly.OPTION_NUMBER_TOO_LARGE: "40010001e0ffffe00000",
        Anomaly.EMPTY_WITH_BYTES: "40000001b161",
        Anomaly.EMPTY_ACK_WITH_TOKEN: "6100000100",
        Anomaly.EMPTY_PAYLOAD: "40010001b161ff",
    }
    assert set(broken) == set(Anomaly)
    for anomaly, raw in broken.items():
        found = plugin(version).coap(bytes.fromhex(raw))
        assert found["anomalies"] == [str(anomaly)]
        assert found == coap_of(bytes.fromhex(raw))


@every_lua
def test_more_runs_of_options_than_are_remembered_do_no_harm(version: str) -> None:
    lua = plugin(version)
    for number in range(2500):
        raw = encode(CON, 1, number, options=[(11, b"v"), (11, b"%d" % number)])
        assert lua.spark[b"coap"][b"decode"](raw)[b"options"][b"name"] == b"%d" % number


@wireshark_lua
def test_a_bomb_of_options_is_read_to_its_end(version: str) -> None:
    raw = b"\x40\x02\0\1\xb0" + b"\0" * 65_000
    lua = plugin(version)
    read = lua.spark[b"coap"][b"decode"](raw)
    assert lua.length(read[b"options"]) == 65_001
    assert read[b"options"][b"path"] == b"/" * 65_000


@every_lua
@pytest.mark.parametrize(
    "data",
    [b"", b'"temp":9}}', b"abc\xff123", "größer".encode(), b"\x1b[31m", "\u202eevil".encode(), b"\xc3(", b"\xff"],
)
def test_a_tail_says_what_is_left(version: str, data: bytes) -> None:
    found = plugin(version).spark[b"coap"][b"decode_tail"](data, 16)
    tail = decode_tail(data)
    assert (found[b"missing"], found[b"data"]) == (tail.missing, tail.data)
    assert found[b"possible_marker"] == tail.possible_marker
    assert found[b"text"] == (None if tail.text is None else data)


@wireshark_lua
@fuzz
@given(opened=st.one_of(st.binary(max_size=40), st.integers(0, 20).map(lambda n: b"x" * 7 + bytes((n,)) * n)))
def test_padding_is_right_or_wrong_as_python_says(version: str, opened: bytes) -> None:
    assert plugin(version).spark[b"without_padding"](opened) == without_padding(opened)


# Text


@wireshark_lua
@fuzz
@given(
    raw=st.one_of(
        st.binary(max_size=12),
        st.text(max_size=5)
        .map(str.encode)
        .flatmap(lambda text: st.integers(0, max(len(text), 1)).map(lambda cut: text[:cut] + b"!" + text[cut + 1 :])),
    )
)
@example(raw=b"\xf0\x90\x80\xed\xa0\x80\xc0\xaf\xf4\x90\x80\x80\xe0\x9f\xf0\x8f\xf4\x8f\xbf\xbf\xe1\x80")
def test_bytes_become_the_same_text(version: str, raw: bytes) -> None:
    assert plugin(version).text("to_text", raw) == raw.decode("utf-8", "replace")


@wireshark_lua
def test_what_is_shown_as_it_is_prints_and_the_scripts_most_in_use_are(version: str) -> None:
    lua = plugin(version)
    printable = lua.lua.eval(b"""function(is_printable)
        local codes = {}
        for code = 0, 0x10FFFF do if is_printable(code) then codes[#codes + 1] = code end end
        return table.concat(codes, " ")
    end""")(lua.spark[b"is_printable"])
    shown = {chr(int(code)) for code in printable.split()}
    assert not [character for character in shown if not character.isprintable()]
    assert {chr(code) for code in range(32, 127)} <= shown
    assert set("äßéñçøŁčşğ°µ€“”–…→αβΩЖяёあカ漢字한글，\ufffd😀") <= shown
    assert not set("\x7f\x85\xa0\xad\u061c\u200b\u200e\u2028\u202e\u2066\u3000\ufeff\ue000\uffff\U000e0001") & shown


@wireshark_lua
@fuzz
@given(text=st.text(max_size=90), limit=st.sampled_from([60, 5]))
@example(text='say "hi"\\\x1b[31m\u202e\x85', limit=60)
def test_foreign_text_is_quoted_as_python_quotes_it(version: str, text: str, limit: int) -> None:
    lua = plugin(version)
    assert lua.text("quote", text.encode(), limit) == lua.shown(quote(text, limit))
    assert lua.text("visible", text.encode()).isprintable()


@every_lua
def test_bytes_that_are_no_text_are_escaped_one_by_one(version: str) -> None:
    assert plugin(version).text("visible", b"caf\xe9 \xc3\xa9 \x07") == "caf\\xe9 é \\x07"


# Descriptions


def description(lua: Plugin, payload: bytes) -> dict[str, Any]:
    return lua.told(*lua.spark[b"read_description"](payload))


@wireshark_lua
@fuzz
@given(payload=st.one_of(descriptions, st.binary(max_size=20)))
@example(payload=b'{"\\ud800":1,"?":2,"\\ud800":3}')
@example(payload=b'{"p":36893488147419103232,"f":[36893488147419103232,"a",1.5,NaN],"v":{"a":-0,"b":1E5}}')
@example(payload=b'{"x":[01]}')
@example(payload=b"\0\4\0metrics")
@example(payload=b'{"x":"\\u00e9 \\u00zz"}')
@example(payload=b'{"x":"\\u00e9 \\u20ac"}')
@example(payload=b'{"x":"a\tb"}')
@example(payload=b'{"x":["a" "b"]}')
@example(payload=b'{"x":["a",}')
@example(payload=b'{"x" 1}')
@example(payload=b'{"x":1 "y":2}')
@example(payload=b"{x:1}")
@example(payload=b'{"x":"\\ud83d\\ude00 \\ud83d\\u0041 \\u0000"}')
@example(payload=b'\xef\xbb\xbf{"f":[]}')
@example(payload=b'{"m":[{"d":[{"f":"b"},7],"l":"m","location":"b"}],"m":[{"f":{},"l":null}]}')
def test_any_description_tells_both_the_same(version: str, payload: bytes) -> None:
    found, expected = description(plugin(version), payload), read_description(payload)
    assert json.dumps(found) == json.dumps(expected)


@wireshark_lua
@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 100_000 + b"]" * 100_000,
        b'{"x":' * 12_000 + b"1" + b"}" * 12_000 + b" " * 5_500,
        b'{"x":' * DEEPEST_DESCRIPTION + b"1" + b"}" * DEEPEST_DESCRIPTION,
        b'{"x":' * (DEEPEST_DESCRIPTION + 1) + b"1" + b"}" * (DEEPEST_DESCRIPTION + 1),
        b'{"x":"' + b"[" * 50_000 + b'"}',
        b'{"x":"' + b"\\" * 60_000,
        b'{"x":"' + b"\\" * 60_000 + b'"}',
        b'{"x":' + b" " * 60_000 + b"1}",
        b'{"x":' + b"9" * MOST_DIGITS + b"}",
        b'{"x":' + b"9" * (MOST_DIGITS + 1) + b"}",
        b'{"x":' + b"9" * 60_000 + b".5}",
        b'{"x":"' + b"\xff" * 30_000 + b'"}',
        b"{" + b",".join(b'"%d":%d' % (number, number) for number in range(5_000)) + b"}",
        b'{"f":["' + b"x" * (LARGEST_DESCRIPTION - 10) + b'"]}',
    ],
    ids=lambda payload: f"{payload[:7]!r}... {len(payload)}",
)
def test_no_description_is_too_deep_or_too_long_to_be_judged(version: str, payload: bytes) -> None:
    assert description(plugin(version), payload) == read_description(payload)


# Values and pairing


@wireshark_lua
@fuzz
@given(
    lines=st.lists(
        st.tuples(st.sampled_from([DEVICE, SERVER]), plaintexts, st.sampled_from([0] * 9 + [16])), max_size=12
    ),
    salt=st.one_of(st.none(), st.sampled_from([bytes(8), b"\0\1" + bytes(6), b"\x12\x35" + bytes(6)])),
)
def test_any_talk_is_read_as_python_reads_it(version: str, lines: list[Line], salt: bytes | None) -> None:
    same_reader(plugin(version), lines, salt)


@wireshark_lua
@fuzz
@given(data=st.data())
def test_genuine_talks_with_changes_are_read_as_python_reads_them(version: str, data: st.DataObject) -> None:
    """Lines lost, doubled, changed or in another place: answers then have no request, or the wrong one."""
    talk = data.draw(st.sampled_from(TALKS))
    begin = data.draw(st.integers(0, max(0, len(talk) - 5)))
    lines = list(talk[begin : begin + 30])
    for _ in range(data.draw(st.integers(0, 5))):
        at = data.draw(st.integers(0, len(lines)))
        kind = data.draw(st.integers(0, 2))
        if kind == 0:
            del lines[at : at + 1]
        elif kind == 1:
            lines[at:at] = lines[at : at + 1]
        else:
            lines.insert(at, (data.draw(st.sampled_from([DEVICE, SERVER])), data.draw(plaintexts), 0))
    same_reader(plugin(version), lines, bytes(8))


TALKS = sessions()
TALKS.append(
    [
        (frame["dir"].split("->")[0], bytes.fromhex(frame["coap"]), 0)
        for session in VECTORS["sessions"]
        for frame in session["frames"]
    ]
)


def answer(kind: int, code: int, message_id: int, token: bytes = b"", payload: bytes | None = None) -> bytes:
    return encode(kind, code, message_id, token=token, payload=payload)


def variable(token: bytes, name: bytes, payload: bytes, kind: int = ACK) -> list[Line]:
    return [
        (SERVER, encode(CON, 1, token[0], token=token, options=[(11, b"v"), (11, name)]), 0),
        (DEVICE, answer(kind, 0x45, token[0], token, payload), 0),
    ]


DOUBLES = [0.0, -0.0, 23.4375, 0.1, 1e15, 1e16, 123456789012345680.0, 1e-4, 1.5e-5, 5e-324, 1.7976931348623157e308]
DOUBLES += [2.2250738585072014e-308, 1 / 3, 100.0, -2.5e-10, math.inf, -math.inf, math.nan, 9007199254740993.0]

VARIABLES = [(b"b", b"\1"), (b"b", b"\0"), (b"b", b""), (b"i", b"\xff\xff\xff\xfe"), (b"i", b"\0"), (b"s", b'a"\x07')]
VARIABLES += [(b"odd", b"\1"), (b"real", b"\1"), (b"", b"x"), (b"none", b"\2"), (b"none", b"\1"), (b"none", b"x" * 8)]


@every_lua
def test_variables_of_all_types_are_read_and_written(version: str) -> None:
    types = b'{"f":[],"v":{"b":1,"i":2,"s":4,"d":9,"odd":"\\u001b[31m","real":2.5}}'
    lines: list[Line] = [
        (SERVER, encode(CON, 1, 7, token=b"\7", options=[(11, b"d")]), 0),
        (DEVICE, answer(ACK, 0x45, 7, b"\7", types), 0),
    ]
    for number, value in enumerate(DOUBLES, 20):
        lines += variable(bytes((number,)), b"d", struct.pack("<d", value))
    for number, (name, payload) in enumerate(VARIABLES, 60):
        lines += variable(bytes((number,)), name, payload, (ACK, NON)[number % 2])
    same_reader(plugin(version), lines)


@wireshark_lua
@fuzz
@given(value=st.floats())
def test_any_double_is_written_as_python_writes_it(version: str, value: float) -> None:
    assume(abs(math.frexp(value)[0]) != 0.5)  # powers of two may have a digit more
    lines: list[Line] = [
        (SERVER, encode(CON, 1, 7, token=b"\7", options=[(11, b"d")]), 0),
        (DEVICE, answer(ACK, 0x45, 7, b"\7", b'{"f":[],"v":{"d":9}}'), 0),
        *variable(b"\1", b"d", struct.pack("<d", value)),
    ]
    same_reader(plugin(version), lines)


def each_message() -> list[Line]:
    """One of each kind that the captures do not have, and refusals."""
    path = [(11, b"e"), (11, b"name")]
    code = {spec.name: spec.path for spec in MESSAGES}
    lines: list[Line] = [
        (DEVICE, bytes.fromhex("50020001b168ff0006000100160006"), 0),  # 2.x
        (DEVICE, bytes.fromhex("50020001b178d0eaff0f01028080808010ffffffffffffffffff01"), 0),
        (DEVICE, bytes.fromhex("50020001b178d0eaff05"), 0),
        (DEVICE, bytes.fromhex("50020001b178d0eaff"), 0),
        (DEVICE, bytes.fromhex("50020001b178d0eaff81808080808080808001"), 0),
        (SERVER, encode(NON, 2, 1, options=[(11, b"h")], token=b"\1"), 0),
        (DEVICE, encode(CON, 2, 2, options=path), 0),
        (SERVER, answer(ACK, 0x80, 2, b"\0"), 0),
        (DEVICE, encode(CON, 2, 3, options=[(11, b"E"), (11, b"SPARK/x")]), 0),
        (SERVER, answer(ACK, 4, 3), 0),
        (DEVICE, encode(CON, 2, 4, options=[*path, (14, bytes(3) + b"\1" * 9)]), 0),
        (SERVER, encode(NON, 2, 9, options=[(11, b"e"), (11, b"a"), (11, b"b"), (14, b"\0\0\0\x3c")], payload=b""), 0),
        (SERVER, encode(CON, 1, 10, token=b"\1", options=[(11, b"d"), (15, b"\7")]), 0),
        (DEVICE, answer(ACK, 0, 10), 0),
        (DEVICE, answer(CON, 0x45, 5, b"\1", b'{"f":[],"v":{}}'), 0),
        (SERVER, answer(ACK, 0, 5), 0),
        (DEVICE, encode(CON, 2, 6, options=[(11, b"d"), (15, b"\1")], payload=b"{}"), 0),
        (SERVER, answer(ACK, 0x44, 6), 0),
        (SERVER, encode(CON, 2, 11, token=b"\2", options=[(11, b"f"), (11, b"go"), (15, b"a"), (15, b"b")]), 0),
        (DEVICE, answer(ACK, 1, 11), 0),
        (DEVICE, answer(NON, 0x44, 12, b"\2", b"\0"), 0),
        (SERVER, encode(CON, 1, 12, token=b"\3", options=[(11, b"v"), (11, b"gone")]), 0),
        (DEVICE, answer(ACK, 0x84, 12, b"\3"), 0),
        (DEVICE, answer(NON, 0x84, 13, b"\3"), 0),
        (SERVER, encode(CON, 3, 13, token=b"\4", options=[(11, b"s")]), 0),
        (SERVER, encode(CON, 2, 14, token=b"\5", options=[(11, b"u")]), 0),
        (DEVICE, answer(ACK, 0xA3, 14, b"\5"), 0),
        (DEVICE, answer(NON, 0x80, 15, b"\5", b"\2"), 0),
        (SERVER, encode(CON, 2, 15, token=b"\6", options=[(11, b"s")], payload=bytes(12)), 0),
        (DEVICE, answer(NON, 0x44, 16, b"\6"), 0),
        (SERVER, encode(CON, 2, 16, token=b"\7", options=[(11, b"c"), (15, b"\1\2\3\4"), (15, b"\1\0")]), 0),
        (DEVICE, answer(NON, 0x80, 17, b"\7"), 0),
        (SERVER, encode(CON, 2, 17, token=b"\7", options=[(11, b"c")], payload=b"data"), 0),
        (DEVICE, encode(CON, 1, 18, options=[(11, b"c")], payload=struct.pack(">600H", *range(600))), 0),
        (DEVICE, encode(CON, 1, 19, options=[(11, b"c")]), 0),
        (SERVER, encode(CON, 3, 18, token=b"\x08", options=[(11, b"u")]), 0),
        (DEVICE, answer(ACK, 0x80, 18, b"\x08"), 0),
        (DEVICE, encode(NON, 3, 20, options=[(11, b"u")], payload=b'{"m":[{"f":"s","n":"1"}]}'), 0),
        (DEVICE, encode(NON, 2, 20, options=[(11, b"z"), (11, b"\xff")], payload=b"12"), 0),
        (DEVICE, answer(RST, 0, 18), 0),
        (DEVICE, answer(NON, 0x45, 99, b"\x77", b"\0\4\0m"), 0),
        (SERVER, encode(CON, 1, 21, token=b"\x0b", options=[(11, b"d"), (15, b"\4")]), 0),
        (DEVICE, answer(ACK, 0x45, 21, b"\x0b", b"\0\4\0m"), 0),
        (DEVICE, answer(NON, 0xA0, 99, b"\x77"), 0),
        (DEVICE, answer(ACK, 0xA0, 99, b"\x77"), 0),
        (DEVICE, b"", 16),
        (SERVER, b"lost, but text", 16),
        (SERVER, b"\x1b[31m", 16),
        (SERVER, b"\x80\0\0\0", 0),
    ]
    lines += [(SERVER, encode(CON, 2, 40, options=[(11, code[name].encode())]), 0) for name in ("OtaStart", "OtaChunk")]
    return lines


@wireshark_lua
@pytest.mark.parametrize("kind", [CON, NON, ACK])
@pytest.mark.parametrize("payload", [b"\0\4\0metrics", b'{"f":[],"v":{}}', b"{}", b"\0\0\0\1"])
def test_an_answer_without_a_request_is_told_by_what_it_holds(version: str, kind: int, payload: bytes) -> None:
    same_reader(plugin(version), [(DEVICE, answer(kind, 0x45, 99, b"\x77", payload), 0)])


@wireshark_lua
def test_an_event_without_max_age_tells_nothing_of_the_server(version: str) -> None:
    path = [(11, b"e"), (11, b"name")]
    same_reader(plugin(version), [(SERVER, encode(NON, 2, 22, options=path, payload=b"21"), 0)])


@wireshark_lua
@pytest.mark.parametrize("salt", [b"\0\1" + bytes(6), b"\1\0" + bytes(6), b"\x12\x35" + bytes(6)])
@pytest.mark.parametrize("platform", [0, 6, 8, 10, 14, 0xFFFF])
def test_each_hello_tells_the_same_generation(version: str, platform: int, salt: bytes) -> None:
    for flags in (0, 1, 2, 6, 0x16, 0xFFFF):
        for more in (b"", bytes(2), bytes(14), bytes(40)):
            payload = struct.pack(">4H", 1, 1, flags, platform) + more
            hello = encode(CON, 2, 2, options=[(11, b"h")], payload=payload)
            same_reader(plugin(version), [(DEVICE, hello, 0)], salt)


@wireshark_lua
def test_an_acknowledgement_that_fits_no_answer_is_told_by_its_request(version: str) -> None:
    same_reader(
        plugin(version),
        [
            (SERVER, encode(CON, 1, 12, token=b"\3", options=[(11, b"v"), (11, b"count")]), 0),
            (DEVICE, answer(ACK, 0xA3, 12, b"\3"), 0),
            (DEVICE, encode(CON, 1, 2, token=b"\4", options=[(11, b"t")]), 0),
            (SERVER, answer(ACK, 0x44, 2, b"\4"), 0),
        ],
    )


@wireshark_lua
def test_the_first_value_in_a_message_of_its_own_tells_the_last_photons_apart(version: str) -> None:
    hello = encode(CON, 2, 2, options=[(11, b"h")], payload=struct.pack(">4H", 1, 1, 0x04, 6))
    lines = [(DEVICE, hello, 0), *variable(b"\5", b"count", struct.pack(">i", 21), NON)]
    same_reader(plugin(version), lines)
    reader, _ = plugin(version).read(lines)
    assert (reader[b"generation"].decode(), reader[b"firmware"].decode()) == LAST_SEPARATE_PHOTON


@every_lua
def test_each_kind_of_message_is_read_and_written_as_python_does(version: str) -> None:
    same_reader(plugin(version), each_message())


@wireshark_lua
def test_the_info_column_says_the_essential(version: str) -> None:
    lua = plugin(version)
    lines: list[Line] = [
        (DEVICE, bytes.fromhex("50021237b1450474656d7033000" + "12cff32312e35"), 0),
        (DEVICE, encode(NON, 2, 3, options=[(11, b"e"), (11, b"door")], payload="auf\u202e".encode()), 0),
        (DEVICE, encode(NON, 2, 3, options=[(11, b"e"), (11, "größe".encode())], payload=b"x" * 99), 0),
        (DEVICE, bytes.fromhex("50020001b168ff000100020006"), 0),
        (DEVICE, bytes.fromhex("50020001b168ffffff00010000" + "0000"), 0),
        (DEVICE, bytes.fromhex("50020001b168"), 0),
        (SERVER, encode(CON, 2, 16, token=b"\7", options=[(11, b"c"), (15, b"\0\0\0\0"), (15, b"\0\5")]), 0),
        (SERVER, encode(CON, 2, 17, token=b"\7", options=[(11, b"c")], payload=b"data"), 0),
        (DEVICE, encode(CON, 1, 18, options=[(11, b"c")], payload=struct.pack(">6H", *range(6))), 0),
        (DEVICE, encode(CON, 1, 19, options=[(11, b"c")]), 0),
        (SERVER, encode(CON, 2, 40, options=[(11, b"S")]), 0),
        (SERVER, encode(CON, 2, 41, options=[(11, b"f"), (11, "ü".encode() * 60), (15, b"a" * 99)]), 0),
        (SERVER, encode(NON, 2, 41, options=[(11, b"z"), (11, b"what")], payload=b"??"), 0),
        (SERVER, b"\x80\0\0\0", 0),
        (SERVER, b"rest", 16),
    ]
    _, found = lua.read(lines)
    assert [lua.text("info", message) for message in found] == [
        "Event temp = 21.5 (private, 300 s)",
        'Event door = "auf\\u202e"',
        f'Event "größe" = "{"x" * 30}"...',
        "Hello, product 1, firmware 2",
        "Hello, Core, product 65535, firmware 1",
        "Hello",
        "Chunk 5, 0 bytes, CRC right",
        "Chunk, 4 bytes, no CRC",
        "Chunk missed 0, 1, 2, 3 and 2 more",
        "Chunk missed, no index",
        "OTA start",
        f'Function call "{"ü" * 60}"(...',
        "NON 0.02, z/what, 2 bytes",
        "CON 0.00, not readable as CoAP: version is not 1",
        'First 16 bytes lost, 4 bytes left: "rest"',
    ]


@wireshark_lua
def test_as_many_requests_wait_as_in_python(version: str) -> None:
    """More than are remembered, of which some are answered, some asked again, and the oldest forgotten."""
    lines: list[Line] = [(DEVICE, encode(CON, 1, 1, token=b"\1", options=[(11, b"t")]), 0)]
    for number in range(MOST_OUTSTANDING + 200):
        lines.append((DEVICE, encode(CON, 1, 2 + number, token=bytes((number % 256,)), options=[(11, b"t")]), 0))
        if number % 5 == 0:
            lines.append((SERVER, answer(ACK, 0x45, 2 + number // 2, b"", bytes(4)), 0))
        if number % 7 == 0:
            lines.append((DEVICE, encode(CON, 1, 2 + number // 3, token=b"\0", options=[(11, b"t")]), 0))
    lines += [(SERVER, answer(ACK, 0x45, number, b"", bytes(4)), 0) for number in range(0, MOST_OUTSTANDING + 220, 3)]
    same_reader(plugin(version), lines)
    reader, _ = plugin(version).read([(SERVER, answer(CON, 1, number), 0) for number in range(MOST_OUTSTANDING + 9)])
    assert reader[b"forgotten"] == 9


@every_lua
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 255, 512])
def test_the_crc_of_a_chunk_is_checked(version: str, size: int) -> None:
    data = bytes((7 * n + size) % 256 for n in range(size))
    lua = plugin(version)
    for right in (True, False):
        crc = (zlib.crc32(data) ^ (not right)).to_bytes(4, "big")
        raw = encode(CON, 2, 2, token=b"\1", options=[(11, b"c"), (15, crc)], payload=data or None)
        _, (message,) = lua.read([(SERVER, raw, 0)])
        assert message[b"values"][b"crc_ok"] is right


@every_lua
def test_values_can_be_shown_as_text(version: str) -> None:
    lua = plugin(version)
    told, _ = lua.spark[b"read_description"](
        b'{"f":["a","b\\u0007"],"v":{"x":null,"y":99999999999999999999},"k":[true,{"d":{}}]}'
    )
    assert lua.text("value_text", told[b"functions"]) == "a, b\\x07"
    assert lua.text("value_text", told[b"variables"]) == "{x: null, y: 99999999999999999999}"
    assert lua.text("value_text", told[b"other"]) == "{k: true, {d: {}}}"
    assert [lua.text("value_text", value) for value in (7, 2.5, 1e300, False, b"\xff")] == [
        "7",
        "2.5",
        "1e+300",
        "false",
        "\\xff",
    ]
