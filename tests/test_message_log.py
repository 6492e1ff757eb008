"""Messages kept as bytes: what comes out is what went in, in the order of the capture, and its gist is true."""

from __future__ import annotations

import pickle
from collections import Counter
from heapq import heappop, heappush, heappushpop
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keyed import right_keys

from analyzer.coap import CON, NON, encode
from analyzer.message_table import DEVICE, SERVER
from analyzer.messages import MessageLog, MessageReader, SparkMessage
from analyzer.messages.gist import IDS, MOST_EVENT_NAMES, MOST_MANNERS
from analyzer.messages.log import CHUNK, REORDERED
from analyzer.messages.peers import server_dialect_of
from analyzer.pipeline import analyze
from analyzer.report.exact import line
from analyzer.report.jsonreport import message as message_json
from analyzer.report.messageline import fields

ROOT = Path(__file__).parent.parent
SALT = b"12345678"
fuzz = settings(max_examples=120, deadline=None)

Line = tuple[str, bytes, int, int, int]

letters = st.sampled_from([b"e", b"E", b"h", b"f", b"u", b"c", b"s", b"v", b"d", b"t", b"x", b"k", b"z", b"M"])
values = st.sampled_from([b"", b"a", b"temp", b"x/y", b"\xff", b"a\xffb", b"\0", b"\1", b"\0\0\0\x3c", b'"\\'])
payloads = st.sampled_from([None, b"", b"\0\0\0\1", b'{"f":["a"],"v":{"a":1}}', b"\xff\xff", b'{"a":"\\ud800"}', b"hi"])
lifelike = st.builds(
    lambda kind, code, number, token, letter, rest, payload: encode(
        kind,
        code,
        number,
        token=token,
        options=[(11, letter), *rest] if code in range(1, 4) else [],
        payload=payload if code else None,
    ),
    st.integers(0, 3),
    st.sampled_from([0, 0, 1, 2, 2, 3, 4, 0x44, 0x45, 0x80, 0x84, 0xA3]),
    st.integers(0, 6),
    st.sampled_from([b"", b"\0", b"\1", b"\2\3"]),
    letters,
    st.lists(st.tuples(st.sampled_from([11, 14, 15, 258]), values), max_size=4),
    payloads,
)
plaintexts = lifelike | lifelike | st.binary(max_size=60)
lines = st.lists(
    st.tuples(
        st.sampled_from([DEVICE, SERVER]),
        plaintexts,
        st.integers(1, 40),
        st.integers(0, (1 << 64) - 1),
        st.sampled_from([0, 0, 0, 16]),
    ),
    max_size=40,
)


def told(m: SparkMessage) -> tuple[object, ...]:
    """All that a message says."""
    coap = None if m.coap is None else (m.coap, m.coap.payload, m.coap.anomalies)
    place = (m.index, m.packet, m.time_ns, m.direction, m.answers, m.answers_packet, m.answer_ns)
    return *place, m.name, m.plaintext, m.missing, repr(m.values), repr(coap), repr(m.tail), m.payload, m.token


def filled(given_lines: list[Line]) -> MessageLog:
    log = MessageLog(SALT)
    for sender, plaintext, packet, time_ns, missing in given_lines:
        log.append(sender, plaintext, packet, time_ns, missing)
    return log


def in_order(given_lines: list[Line]) -> list[Line]:
    """What a heap of the messages held back would let go of, one after the other."""
    held: list[tuple[int, int, Line]] = []
    latest = {DEVICE: 0, SERVER: 0}
    out: list[Line] = []
    for number, item in enumerate(given_lines):
        place = latest[item[0]] = max(latest[item[0]], item[2])
        if len(held) < REORDERED:
            heappush(held, (place, number, item))
        else:
            out.append(heappushpop(held, (place, number, item))[2])
    while held:
        out.append(heappop(held)[2])
    return out


def read(given_lines: list[Line]) -> tuple[MessageReader, list[SparkMessage]]:
    reader = MessageReader(SALT)
    return reader, [reader.read(*item) for item in given_lines]


@given(lines)
@fuzz
def test_a_log_gives_back_what_a_reader_of_the_ordered_messages_says(given_lines: list[Line]) -> None:
    log = filled(given_lines)
    reader, expected = read(in_order(given_lines))
    for _ in range(2):
        assert [told(m) for m in log] == [told(m) for m in expected]
        assert len(log) == len(expected)
        log.close()
    assert (log.reader.generation, log.reader.forgotten) == (reader.generation, reader.forgotten)
    assert +log.reader.unheard == +reader.unheard
    assert [told(m) for m in reversed(log)] == [told(m) for m in reversed(expected)]


@given(lines, st.integers(-45, 45), st.integers(-45, 45), st.sampled_from([1, 2, -1, -3]))
@fuzz
def test_a_log_is_indexed_like_a_list(given_lines: list[Line], first: int, last: int, step: int) -> None:
    log = filled(given_lines)
    expected = list(log)
    assert [told(m) for m in log[first:last:step]] == [told(m) for m in expected[first:last:step]]
    if -len(expected) <= first < len(expected):
        assert told(log[first]) == told(expected[first])
    else:
        with pytest.raises(IndexError):
            log[first]


@pytest.mark.parametrize("count", [REORDERED, 2 * REORDERED, 2 * REORDERED + 1, 3_000])
def test_a_long_log_is_in_the_same_order_as_with_a_heap(count: int) -> None:
    # Runs of the server that come late, as after a hole: some by more than is held back.
    given_lines: list[Line] = []
    for number in range(count):
        late = 900 if number % 700 < 40 else 0
        sender = SERVER if number % 3 == 0 else DEVICE
        plaintext = encode(NON, 2, number % 65536, options=[(11, b"e"), (11, b"n%d" % (number % 7))], payload=b"x" * 40)
        given_lines.append((sender, plaintext, max(number - late, 1), number * 1000, 0))
    log = filled(given_lines)
    log.close()
    assert [told(m) for m in log] == [told(m) for m in read(in_order(given_lines))[1]]


def test_a_long_log_is_packed_and_takes_little_memory() -> None:
    log = MessageLog(SALT)
    for number in range(40_000):
        sender, kind = (DEVICE, 0) if number % 2 else (SERVER, 2)
        log.append(sender, bytes([0x40 | kind << 4, 0, number >> 8 & 255, number & 255]), number, number * 1_000_000)
    log.close()
    kept = sum(map(len, log._packed)) + len(log._settled)
    assert kept < 40_000 * 12
    assert len(log._settled) < 2 * CHUNK
    assert [m.packet for m in log] == list(range(40_000))


# -- gist ----------------------------------------------------------------------------------------------------------


@given(lines)
@fuzz
def test_the_gist_is_what_reading_all_messages_tells(given_lines: list[Line]) -> None:
    log = filled(given_lines)
    log.close()
    gist, messages = log.gist, list(log)
    for sender in (DEVICE, SERVER):
        own = [m for m in messages if m.direction == sender]
        assert gist.counts[sender] == Counter(m.name for m in own)
        assert gist.latest[sender] == max((m.time_ns for m in own), default=0)
    answers = [m.answer_ns for m in messages if m.name == "PingAck" and m.direction == SERVER]
    assert gist.pings_answered == sum(time is not None for time in answers)
    assert len(gist.ping_times) == sum(time is not None and time >= 0 for time in answers)
    assert gist.event_names == Counter((m.direction, m.values["name"]) for m in messages if m.name == "Event")
    hello = next((m for m in messages if m.name == "Hello" and m.direction == DEVICE), None)
    assert (gist.hello and told(gist.hello)) == (hello and told(hello))
    last = next((m for m in reversed(messages) if m.direction == SERVER), None)
    assert (gist.last and told(gist.last)) == (last and told(last))
    jump = first_jump(messages)
    assert (gist.jump and (told(gist.jump[0]), gist.jump[1])) == (jump and (told(jump[0]), jump[1]))


def first_jump(messages: list[SparkMessage]) -> tuple[SparkMessage, int] | None:
    """The first message of the device that the servers would refuse for its number, and the number due."""
    due: int | None = None
    for m in messages:
        if m.direction != DEVICE:
            continue
        if m.coap is None or not m.coap.well_formed or m.message_id is None:
            return None
        if m.type in ("CON", "NON"):
            if due is not None and m.message_id != due and m.name != "Ping":
                return m, due
            due = ((m.message_id if due is None else due) + 1) % IDS
    return None


@given(lines)
@fuzz
def test_a_log_and_its_gist_can_be_handed_to_another_process(given_lines: list[Line]) -> None:
    log = filled(given_lines)
    for _ in range(2):
        again = pickle.loads(pickle.dumps(log))  # noqa: S301 - made in this very line
        assert [told(m) for m in again] == [told(m) for m in log]
        kept = [log.gist.hello, log.gist.last, *(log.gist.jump or ())[:1], *log.gist.manners]
        same = [again.gist.hello, again.gist.last, *(again.gist.jump or ())[:1], *again.gist.manners]
        assert [m and told(m) for m in same] == [m and told(m) for m in kept]
        log.close()


@given(lines)
@fuzz
def test_all_ways_of_writing_are_among_the_manners(given_lines: list[Line]) -> None:
    log = filled(given_lines)
    log.close()
    assert not log.gist.more_manners

    def dialects(messages: list[SparkMessage]) -> list[object]:
        """Each way to write like a server, by the first message that shows it."""
        seen: dict[object, int] = {}
        for m in messages:
            if m.direction == SERVER and m.coap is not None and m.coap.well_formed:
                who = server_dialect_of(m.coap, m.name, m.answers is not None)
                key = (who, m.name == "Event", m.values.get("habit"), m.token == b"\0", m.code == "0.04", bool(m.token))
                if who is not None:
                    seen.setdefault(key, m.index)
        return list(seen.items())

    assert dialects(log.gist.manners) == dialects(list(log))


@given(lines)
@fuzz
def test_a_request_that_nobody_heard_is_counted_by_name(given_lines: list[Line]) -> None:
    log = filled(given_lines)
    log.close()
    messages = list(log)
    answered = {m.answers for m in messages}
    waiting = Counter(m.name or "" for m in messages if m.type == "CON" and m.index not in answered)
    # An answer that is confirmable itself waits under the name of its row, which may be none.
    assert sum((+log.reader.unheard).values()) == waiting.total()


def test_names_and_manners_without_end_are_bounded() -> None:
    log = MessageLog()
    for number in range(MOST_EVENT_NAMES + 600):
        event = encode(NON, 2, number, options=[(11, b"e"), (11, b"%d" % number), (14, bytes(number % 100))])
        log.append(SERVER, event, number + 1, number)
    log.close()
    assert log.gist.event_names is None
    assert log.gist.more_manners
    assert len(log.gist.manners) <= MOST_MANNERS + 1


# -- the line in the report ----------------------------------------------------------------------------------------


@given(lines, st.sampled_from([6, 9]))
@fuzz
def test_the_quick_line_is_the_one_written_field_by_field(given_lines: list[Line], digits: int) -> None:
    for m in read(given_lines)[1]:
        quick = fields(m, digits)
        assert quick is None or "{" + quick == line(message_json(m, digits))
        assert (quick is None) == (m.shape is None)


def test_a_time_before_1970_is_written_as_ever() -> None:
    m = MessageReader().read(DEVICE, encode(CON, 0, 7), 1, -1_500)
    quick = fields(m, 6)
    assert quick is not None
    assert "{" + quick == line(message_json(m, 6))


def test_the_messages_of_a_conversation_are_such_a_log() -> None:
    trace = analyze(ROOT / "captures" / "healthy-full.pcap", keys=right_keys("healthy-full"))
    (c,) = (c for c in trace.conversations if c.messages)
    assert isinstance(c.messages, MessageLog)
    assert c.secrets is not None
    assert c.secrets.gist.count("Hello") == 2
    assert repr(c.messages) == f"<MessageLog: {len(c.messages)} messages>"
    assert repr(c.messages[0]).startswith("<SparkMessage 0: Hello from the device")
