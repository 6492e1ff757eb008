"""What stands in the frames once they are open: CoAP, messages, descriptions, firmware; and rows that a user pastes."""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Final

from decrypted import Talk
from inert import is_inert

from analyzer import coap as coap_module
from analyzer.coap import ACK, CODES, CON, NON, RST, decode, decode_tail, encode, encode_message
from analyzer.export import collect_images, write_csv
from analyzer.export.transfer import LARGEST_IMAGE
from analyzer.messages import MessageLog, MessageReader, SparkMessage, label, summary
from analyzer.messages.describe import DEEPEST_DESCRIPTION, read_description
from analyzer.messages.extent import extents
from analyzer.misparse.quoted import find_row, read_quoted_row
from analyzer.report.exact import dumps
from analyzer.report.jsonreport import message as message_json
from fuzz.base import ring, shipped
from fuzz.script import Script, written
from fuzz.target import target

SENDERS: Final = ("device", "server")
PATH, QUERY = 11, 15


@cache
def spoken() -> list[tuple[str, bytes]]:
    """Every different message of the shipped captures, without what only its numbers make different."""
    from analyzer import pipeline  # noqa: PLC0415

    met: dict[tuple[object, ...], tuple[str, bytes]] = {}
    for name in ("healthy-full", "photon-fast-ota", "ota-server-gives-up", "mid-session"):
        analysis = pipeline.Analysis(keys=ring())
        for packet in shipped(name)[:400]:
            analysis.take(packet)
        for conversation in analysis.finish().conversations:
            for m in conversation.messages:
                met.setdefault((m.direction, m.name, m.plaintext[:1], m.code), (m.direction, m.plaintext))
    return list(met.values())


def _datagrams() -> Iterator[bytes]:
    yield from (plain for _, plain in spoken())
    yield b"\x48\x02\x00\x01tokentok\xbd\x01x\xff\xff"
    yield encode(CON, 2, 7, token=b"12", options=[(1, b""), (11, b"a" * 300), (300, b"x" * 14)], payload=b"\xff")


@target("CoAP, both ways", _datagrams, longest=2048)
def coap(data: bytes) -> None:
    """What is read can be written, and is the same when it is read again; the memory for options changes nothing."""
    message = decode(data)
    assert decode(data) == message
    coap_module._runs.clear()
    assert decode(data) == message
    message.path.encode()
    if message.well_formed and message.version == 1:
        again = encode_message(message)
        assert decode(again) == message
    tail = decode_tail(data)
    assert tail.before is None or tail.before + b"\xff" + (tail.after or b"") == data
    assert tail.text is None or isinstance(tail.text, str)


def conversations() -> Iterator[bytes]:
    said = spoken()
    for sender, plain in said:
        yield bytes((SENDERS.index(sender), 0)) + written(plain[:255])
    small = [(sender, plain) for sender, plain in said if len(plain) < 100]
    for at in range(0, len(small), 6):
        yield b"".join(bytes((SENDERS.index(s), 0)) + written(plain) for s, plain in small[at : at + 6])


@target("decrypted messages in both directions: names, values, pairs, and all that is said of them", conversations)
def messages(data: bytes) -> None:
    """Messages one after another, in the reader, in the log, and in each output."""
    script = Script(data)
    reader, log = MessageReader(b"\x12\x34\x56\x78\x9a\xbc\xde\xf0"), MessageLog(b"\x12\x34\x56\x78\x9a\xbc\xde\xf0")
    told: list[SparkMessage] = []
    number, latest = 0, 0
    while script:
        head, back = script.number(), script.number()
        plain = line_of(script, head, [m.plaintext for m in told])
        sender = SENDERS[head & 1]
        missing = 16 if head & 2 else 0
        number += 1
        packet = max(1, number - back % 8) if head & 4 else number
        in_order = packet >= latest
        latest = max(latest, packet)
        log.append(sender, plain, packet, number * 1_000_000, missing)
        if in_order:
            told.append(reader.read(sender, plain, packet, number * 1_000_000, missing))
        else:
            told.append(reader.read(sender, plain, number, number * 1_000_000, missing))
    log.close()
    assert len(log) == number
    again = list(log)
    assert sorted(m.plaintext for m in again) == sorted(m.plaintext for m in told)
    for m in (*told, *again):
        _say(m)
    for sender in SENDERS:
        assert len(reader.unanswered(sender)) <= 1024
    table = io.StringIO()
    assert write_csv(table, [Talk(messages=again)]) == number
    is_inert(table.getvalue(), "\r\n")


def line_of(script: Script, head: int, told: list[bytes]) -> bytes:
    """Bytes as they are; or an answer to one of the messages before, by its id or its token."""
    if not head & 8 or not told:
        return script.piece(2 if head & 16 else 1)
    asked = told[-1 - script.below(min(len(told), 16))]
    kind = script.pick((ACK, ACK, NON, CON, RST))
    token = asked[4 : 4 + (asked[0] & 15)] if asked else b""
    number = int.from_bytes(asked[2:4], "big") if kind in (ACK, RST) else script.number(2)
    payload = script.piece() if head & 32 else b""
    return encode(kind, script.number() if head & 64 else 0x44, number, token=token[:8], payload=payload)


def _say(m: SparkMessage) -> None:
    """All that is ever said of one message."""
    is_inert(summary(m), "")
    is_inert(label(m), "")
    is_inert(extents(m), "")
    text = dumps(message_json(m, 6))
    assert text.isascii()
    json.loads(text)
    repr(m)


DESCRIPTIONS: Final = (
    b'{"f":["a","b"],"v":{"t":1,"u":2,"n":4},"p":6,"m":[{"s":1,"l":"m","vc":30,"vv":30,"u":"00","f":"s","n":"1","v":1,'
    b'"d":[{"f":"b","n":"0","v":2}]}]}',
    b'{"f":[],"v":{}}',
    b'{"a":{"b":[[[[[[[{}]]]]]]]},"x":"\\ud800\\u0000","p":1e400,"q":-0,"n":NaN}',
    b"[" * 20 + b"]" * 20,
    b"\x00\x00\x01metrics",
    b'{"p":' + b"9" * 4400 + b"}",
)


@target("descriptions: JSON from a device", lambda: DESCRIPTIONS, longest=1 << 14)
def describe(data: bytes) -> None:
    """Whatever stands in it can be written as JSON and as UTF-8, and is not deep."""
    told = read_description(data)
    text = dumps(told)
    text.encode()
    assert text.isascii()
    json.loads(text)
    assert _depth(told) <= DEEPEST_DESCRIPTION + 2
    payload = encode(ACK, CODES["2.05"], 7, token=b"1", payload=data)
    reader = MessageReader()
    reader.read("server", encode(CON, CODES["0.01"], 7, token=b"1", options=[(PATH, b"d")]), 1, 1)
    _say(reader.read("device", payload, 2, 2))


def _depth(value: object) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inside), default=-1)


# --- firmware ------------------------------------------------------------------------------------------------------


def _updates() -> Iterator[bytes]:
    slow = b"".join(bytes((1, 0, 20, 2, 0)) for _ in range(4))
    fast = b"".join(bytes((1, 129, at, 20)) for at in range(4))
    yield bytes((0, 0, 80, 20)) + slow + bytes((5,))
    yield bytes((0, 1, 80, 20)) + fast + bytes((5,))
    yield (
        bytes((0, 0, 80, 20))
        + bytes((1, 0, 20, 3, 1, 0, 20, 2, 0, 4, 0, 4, 1))
        + slow
        + bytes((5, 0, 0, 40, 20))
        + slow
    )


@target("firmware put together from the chunks of an update, in both forms", _updates, longest=2048)
def firmware(data: bytes) -> None:
    """An update as the script plays it; an image that counts as complete is what was sent."""
    script, reader = Script(data), MessageReader()
    told: list[SparkMessage] = []
    server_id, device_id, token, at = 0x7000, 0x1000, 0, 0
    last = 0, b""
    image = hashlib.shake_256(b"firmware").digest(1 << 12)

    def say(sender: str, plain: bytes) -> None:
        told.append(reader.read(sender, plain, len(told) + 1, len(told) * 1_000_000))

    def ask(code: str, letter: bytes, *queries: bytes, payload: bytes | None = None) -> tuple[int, bytes]:
        nonlocal server_id, token
        server_id, token = server_id + 1 & 0xFFFF, token + 1 & 0xFF
        options = [(PATH, letter), *((QUERY, query) for query in queries)]
        say("server", encode(CON, CODES[code], server_id, token=bytes((token,)), options=options, payload=payload))
        return server_id, bytes((token,))

    while script and len(told) < 600:
        kind = script.below(8)
        if kind == 0:
            fast, length, size = script.number(), script.number() * 16, script.number()
            particulars = bytes((fast & 1,)) + size.to_bytes(2) + length.to_bytes(4) + b"\x80\0\1\2\3"
            last = ask("0.02", script.pick((b"u", b"u", b"s")), payload=particulars if fast < 200 else None)
        elif kind == 1:
            head = script.number()
            index = script.number() if head & 1 else None
            size = script.number()
            begin = at if index is None else index * size
            chunk = image[begin % 4096 : begin % 4096 + size]
            at += size if index is None else 0
            crc = zlib.crc32(chunk) ^ (head >> 1 & 1)
            queries = [crc.to_bytes(4)] + ([] if index is None else [(index << (head >> 6)).to_bytes(2)])
            last = ask("0.02", b"c", *queries[: 1 + (head >> 2 & 1) or 2], payload=chunk)
        elif kind == 2:
            say("device", encode(ACK, 0, last[0]))
            code = script.pick(("2.04", "4.00", "4.04", "5.00"))
            say("device", encode(NON, CODES[code], device_id, token=last[1]))
        elif kind == 3:
            say("device", encode(ACK, CODES[script.pick(("0.00", "2.04", "4.00"))], last[0], token=last[1]))
        elif kind == 4:
            device_id = device_id + 1 & 0xFFFF
            missed = b"".join(script.number().to_bytes(2) for _ in range(script.below(5)))
            say("device", encode(CON, CODES["0.01"], device_id, options=[(PATH, b"c")], payload=missed))
        elif kind == 5:
            last = ask("0.03", b"u")
        elif kind == 6:
            at = script.number()
            server_id = server_id + script.number() & 0xFFFF
        else:
            say(script.pick(SENDERS), script.piece())
    for found in collect_images(told):
        assert len(found.data) <= LARGEST_IMAGE
        assert found.size >= 0
        if found.complete:
            assert found.missing == ()
            assert found.sha256 == hashlib.sha256(found.data[: found.size]).hexdigest()
        end = 0
        for begin, stop in found.missing:
            assert end <= begin < stop <= max(found.size, stop)
            end = stop
        for note in found.notes:
            is_inert(note, "")


# --- what users paste ----------------------------------------------------------------------------------------------

ROWS: Final = (
    b"Reset, 5.05 Proxying Not Supported, TID:24199",
    b"CON, MID:4660, POST, TKN:0a 0b, /e/temp",
    b"54.208.229.4 192.168.1.104 CoAP 310 Unknown 204 [Malformed Packet]",
    b"ACK, MID:1, 2.05 Content, TKN:01 (text/plain)",
    b"Unknown 178, End of Block #3[Malformed Packet]",
    b"Non-Confirmable, Unknown 103, TID:7",
)


@target(
    "rows of Wireshark as users paste them, looked for in segments",
    lambda: (written(row, 0, b"\x70\xa5\x5e\x87" + bytes(36), 1, b"\x00\x45") for row in ROWS),
    longest=1024,
)
def rows(data: bytes) -> None:
    """Any text as a row; what it is taken for can be looked for."""
    script = Script(data)
    row = read_quoted_row(script.piece().decode("utf-8", "replace"))
    if row is None:
        return
    for three in row.bytes_explained():
        for part in three:
            is_inert(part, "")
    segments: list[tuple[int, int, bytes, str]] = []
    while script:
        segments.append((len(segments) + 1, script.below(3), script.piece(), "a message"))
    for sighting in find_row(row, segments):
        assert sighting.first == segments[sighting.packet - 1][2][: len(sighting.first)] or len(segments) > 1
        assert row.matches(sighting.first) in (True, False)


LAYERS: Final = ("SparkMessage", "SparkFrame", "SparkFrames", "SparkSegment")


def _layers() -> Iterator[bytes]:
    for _, plain in spoken()[::2]:
        yield b"\0" + plain
        sealed = len(plain) + 16 - len(plain) % 16
        yield b"\3" + sealed.to_bytes(2) + plain.ljust(sealed, b"x")


@target("the layers for a scapy shell", _layers, longest=512)
def layers(data: bytes) -> None:
    """Any bytes are read without an error, shown, and given back."""
    from analyzer import scapy_layers  # noqa: PLC0415 - scapy is slow to import

    script = Script(data)
    layer = getattr(scapy_layers, script.pick(LAYERS))
    content = script.rest()
    if not content:
        return  # for scapy that asks for a packet of the usual values
    packet = layer(content)
    packet.show(dump=True)
    packet.clear_cache()
    assert bytes(packet) == content
