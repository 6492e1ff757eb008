"""Named messages, their values, and which answer belongs to which request."""

from __future__ import annotations

import json
import pickle
import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.coap import ACK, CON, NON, encode
from analyzer.message_table import DEVICE, MESSAGES, SERVER
from analyzer.messages import MessageReader, SparkMessage, label, quote, summary
from analyzer.messages.describe import DEEPEST_DESCRIPTION, LARGEST_DESCRIPTION, read_description
from analyzer.messages.reader import MOST_OUTSTANDING
from analyzer.messages.routes import ROUTES, UNNAMED

ROOT = Path(__file__).parent.parent
VECTORS = json.loads((ROOT / "tests/vectors/vectors.json").read_text())
fuzz = settings(max_examples=200, deadline=None)


class Talk:
    """A conversation under test: messages go in as hex, packets count from 1, one millisecond each."""

    def __init__(self, salt: bytes | None = None) -> None:
        self.reader = MessageReader(salt)
        self.packet = 0

    def says(self, sender: str, raw: str | bytes) -> SparkMessage:
        self.packet += 1
        plain = bytes.fromhex(raw) if isinstance(raw, str) else raw
        return self.reader.read(sender, plain, self.packet, self.packet * 1_000_000)

    def device(self, raw: str | bytes) -> SparkMessage:
        return self.says(DEVICE, raw)

    def server(self, raw: str | bytes) -> SparkMessage:
        return self.says(SERVER, raw)


def talked(*turns: tuple[str, str]) -> list[SparkMessage]:
    talk = Talk()
    return [talk.says(sender, raw) for sender, raw in turns]


def of_capture(name: str, session: int = 0) -> tuple[MessageReader, list[SparkMessage], dict[str, Any]]:
    """Read one session of a truth file; each message's packet is its place in the order of time."""
    truth = json.loads((ROOT / f"captures/{name}.truth.json").read_text())["sessions"][session]
    sent = [(item["t"], DEVICE, item["hex"]) for item in truth["c2s"] if "note" not in item]
    # The server's clock was cut to milliseconds, the device's was not: half of one on average.
    sent += [(item["t"] + 0.0005, SERVER, item["hex"]) for item in truth["s2c"]]
    key = truth["session_key"]
    reader = MessageReader(bytes.fromhex(key["salt"]) if key else None)
    messages = [
        reader.read(sender, bytes.fromhex(raw), packet, int(when * 1e9))
        for packet, (when, sender, raw) in enumerate(sorted(sent, key=lambda item: item[0]))
    ]
    return reader, messages, truth


SESSIONS = [
    (path.name.removesuffix(".truth.json"), number)
    for path in sorted((ROOT / "captures").glob("*.truth.json"))
    for number, session in enumerate(json.loads(path.read_text()).get("sessions", []))
    if any("note" not in item for item in session["c2s"])
]


# The table


def test_a_name_is_unique_for_each_sender_and_every_answer_exists() -> None:
    names = Counter((sender, spec.name) for spec in MESSAGES for sender in spec.senders)
    assert set(names.values()) == {1}
    other = {DEVICE: SERVER, SERVER: DEVICE}
    for spec in MESSAGES:
        for sender in spec.senders:
            for answer in spec.answered_by:
                assert (other[sender], answer) in names


def test_no_two_requests_of_a_sender_look_the_same() -> None:
    looks = Counter(
        (sender, code, letter)
        for spec in MESSAGES
        for sender in spec.senders
        for code in spec.codes
        for letter in spec.path
    )
    assert set(looks.values()) == {1}


# Genuine traffic

VECTOR_NAMES = {
    "core-2014": "Hello Hello TimeRequest TimeResponse Event EventAck Describe DescribeResponse FunctionCall"
    " FunctionCallAck FunctionReturn VariableRequest VariableValue Ping PingAck",
    "photon-1.4": "Hello Hello Event EventAck Subscribe SubscribeAck TimeRequest TimeResponse UpdateBegin"
    " UpdateBeginAck UpdateReady Chunk ChunkAck ChunkReceived Chunk ChunkAck ChunkReceived ChunkMissed"
    " ChunkMissedAck Chunk UpdateDone UpdateDoneAck Ping PingAck",
    "photon-3.x": "Hello Hello VariableRequest VariableRequestAck VariableValue Goodbye",
}


@pytest.mark.parametrize("session", VECTORS["sessions"], ids=lambda session: session["name"])
def test_every_vector_has_the_name_its_note_gives(session: dict[str, Any]) -> None:
    talk = Talk(bytes.fromhex(session["session"]["salt"]))
    frames = session["frames"]
    messages = [talk.says(frame["dir"].split("->")[0], frame["coap"]) for frame in frames]
    assert [message.name for message in messages] == VECTOR_NAMES[session["name"]].split()
    for message, frame in zip(messages, frames, strict=True):
        word = frame["note"].split()[0].rstrip(",:")
        if word[0].isupper():
            assert str(message.name).startswith(word)


@pytest.mark.parametrize(("name", "session"), SESSIONS)
def test_every_genuine_message_has_a_name_and_every_answer_a_request(name: str, session: int) -> None:
    reader, messages, _ = of_capture(name, session)
    for message in messages:
        assert message.name is not None
        assert message.whole
        if message.type == "ACK" or message.name in {"FunctionReturn", "ChunkReceived", "UpdateReady"}:
            assert message.answers is not None
            request = messages[message.answers]
            assert request.direction != message.direction
            assert message.answers_packet == request.packet
            assert message.answer_ns == message.time_ns - request.time_ns
            assert request.token == message.token or request.message_id == message.message_id
        else:
            assert message.answers is None or message.name == "DescribeResponse"
        assert "error" not in message.values or message.values.get("habit")
        assert message.values.get("crc_ok", True)
        assert summary(message).isprintable()
        assert json.loads(json.dumps(message.values, allow_nan=False)) == message.values
    assert reader.forgotten == 0


@pytest.mark.parametrize(
    ("capture", "generation", "firmware", "dialect"),
    [
        ("healthy-full", "G1a", "up to 0.3", "legacy"),
        ("photon-fast-ota", "G2a", "0.4 to 0.7", "community"),
    ],
)
def test_says_which_firmware_and_which_server_talk(capture: str, generation: str, firmware: str, dialect: str) -> None:
    reader, _, _ = of_capture(capture)
    assert (reader.generation, reader.firmware) == (generation, firmware)
    assert reader.server_dialect == dialect
    assert reader.id_order == "high-first"


@pytest.mark.parametrize("capture", ["healthy-full", "photon-fast-ota"])
def test_values_are_those_that_both_ends_recorded(capture: str) -> None:
    _, messages, truth = of_capture(capture)
    got: dict[str, list[SparkMessage]] = {}
    for message in messages:
        got.setdefault(str(message.name), []).append(message)

    calls = [event for event in truth["device_events"] if event["ev"] == "function_called"]
    assert [(m.values["name"], m.values["argument"]) for m in got["FunctionCall"]] == [
        (event["name"], event["arg"]) for event in calls
    ]
    received = [event for event in truth["device_events"] if event["ev"] == "event_handler"]
    heard = [m for m in got["Event"] if m.direction == SERVER]
    assert [(m.values["name"], m.values["data"]) for m in heard] == [(e["name"], e["data"]) for e in received]
    signals = [event["on"] for event in truth["device_events"] if event["ev"] == "signal"]
    assert [m.values["on"] for m in got["Signal"]] == signals
    clock = [event["value"] for event in truth["device_events"] if event["ev"] == "set_time"]
    assert [m.values["time"] for m in got["TimeResponse"]] == clock

    results = [event for event in truth["server_events"] if event["ev"] == "api_result"]
    outcome = {"GetVar": [], "CallFn": []}  # type: dict[str, list[tuple[str, Any]]]
    for event in results:
        command = {"getvar": "GetVar", "callfn": "CallFn"}.get(event["cmd"], event["cmd"])
        result = (
            event["result"]["result"]
            if isinstance(event["result"], dict) and "result" in event["result"]
            else event["result"]
        )
        if command in outcome:
            outcome[command].append((event["name"], result))
    values = {m.values["name"]: m.values for m in got["VariableValue"]}
    assert len(outcome["GetVar"]) >= 6
    for variable, result in outcome["GetVar"]:
        assert values[variable]["value"] == result
        assert values[variable]["type_source"] == "describe"
        assert values[variable]["in_describe"]
    returned = [(m.values["name"], m.values["return_value"]) for m in got["FunctionReturn"]]
    assert returned == outcome["CallFn"]


def test_a_variable_that_the_device_does_not_offer_is_marked() -> None:
    _, messages, _ = of_capture("healthy-full")
    (value,) = [m.values for m in messages if m.values.get("name") == "nosuch" and m.name == "VariableValue"]
    assert value == {
        "name": "nosuch",
        "type": "int32",
        "type_source": "length",
        "value": 0,
        "in_describe": False,
    }


def test_an_update_is_followed_chunk_by_chunk() -> None:
    _, messages, _ = of_capture("ota-complete")
    names = Counter(message.name for message in messages)
    assert (names["Chunk"], names["ChunkAck"], names["ChunkReceived"]) == (243, 243, 243)
    (begin,) = [message.values for message in messages if message.name == "UpdateBegin"]
    assert (begin["file_length"], begin["chunk_size"], begin["fast_offered"]) == (62_000, 256, False)
    assert begin["store_name"] == "firmware"


def test_a_fast_update_says_which_chunk_each_answer_means() -> None:
    _, messages, _ = of_capture("photon-fast-ota")
    assert [m.values["index"] for m in messages if m.name == "Chunk"] == list(range(63))
    assert [m.values["index"] for m in messages if m.name == "ChunkReceived"] == list(range(63))
    (ready,) = [message.values for message in messages if message.name == "UpdateReady"]
    assert ready == {"flags": 1, "fast": True}


def test_a_stuck_update_leaves_the_last_requests_unanswered() -> None:
    reader, messages, _ = of_capture("ota-server-gives-up")
    assert [m.values["indexes"] for m in messages if m.name == "ChunkMissed"] == [[30]] * 14
    assert [request.name for request in reader.unanswered(DEVICE)] == ["ChunkMissed"] * 4


def test_a_lost_keep_alive_is_the_one_unanswered_request() -> None:
    reader, messages, _ = of_capture("keepalive-lost")
    (ping,) = reader.unanswered(DEVICE)
    assert (ping.name, ping.index) == ("Ping", messages[-1].index)


def test_two_descriptions_answer_the_same_request_by_its_token() -> None:
    _, messages, _ = of_capture("photon-fast-ota")
    first, second = [message for message in messages if message.name == "DescribeResponse"]
    assert first.answers == second.answers
    assert first.message_id != second.message_id
    assert (first.values["repeat"], second.values["repeat"]) == (False, True)
    assert first.values["platform"] == "Photon"
    assert [module["function"] for module in first.values["modules"]]
    assert second.values["platform"] is None


# The decrypt screen, word for word


def test_the_decrypt_screen_reads_as_promised() -> None:
    _, messages, _ = of_capture("healthy-full")
    rows = [(label(message), summary(message)) for message in messages]
    assert rows[:14] == [
        ("Hello", "product 0, firmware 65535"),
        ("Hello", ""),
        ("Subscribe", "greet, everyone's events"),
        ("SubscribeAck", ""),
        ("Describe", ""),
        ("Subscribe", "alarm, own devices' events"),
        ("DescribeResponse", "5 functions, 6 variables"),
        ("SubscribeAck", ""),
        ("Subscribe", "peer/door, 53ff6c065067544835331287"),
        ("SubscribeAck", ""),
        ("VariableRequest", "armed"),
        ("VariableValue", "armed = true"),
        ("Event", 'temp = "21.5", public, 60 s'),
        ("EventAck 4.00", "this server's habit, harmless"),
    ]
    assert ("FunctionCall", 'led("on")') in rows
    assert ("FunctionReturn", "led = 3002") in rows
    assert ("VariableValue", "temperature = 23.4375") in rows
    assert ("VariableValue", "nosuch = 0 (int32 by its length)") in rows
    assert ("Event", "button, public, 60 s") in rows


def test_an_update_reads_as_promised() -> None:
    _, messages, _ = of_capture("ota-complete")
    rows = {message.name: summary(message) for message in messages}
    assert rows["UpdateBegin"] == "62.0 kB in chunks of 256 bytes"
    assert rows["Chunk"] == "256 bytes, CRC right"


# Message by message, with the examples of PROTOCOL 5.4 and 5.5


@pytest.mark.parametrize(
    ("sender", "raw", "name", "content"),
    [
        (SERVER, "5102700201b168", "Hello", ""),
        (SERVER, "50027002b168", "Hello", ""),
        (DEVICE, "40001239", "Ping", ""),
        (DEVICE, "4101123657b174", "TimeRequest", ""),
        (DEVICE, "50021237b1450474656d703300012cff32312e35", "Event", 'temp = "21.5", private, 300 s'),
        (DEVICE, "40021237b16504 74656d70", "Event", "temp, public, 60 s"),
        (SERVER, "50027002b16501610162313cff6869", "Event", 'a/b = "hi", public, 60 s'),
        (DEVICE, "40011238b16505737061726b", "Subscribe", "spark, everyone's events"),
        (DEVICE, "40011238b16505737061726b4175", "Subscribe", "spark, own devices' events"),
        (SERVER, "4101700202b164", "Describe", ""),
        (SERVER, "4101700202b1644103", "Describe", "system, application"),
        (
            SERVER,
            "4102700204b1660c6469676974616c77726974654744372c48494748",
            "FunctionCall",
            'digitalwrite("D7,HIGH")',
        ),
        (SERVER, "4102700204b166016641610162 0163", "FunctionCall", 'f("a&b&c")'),
        (SERVER, "4102700204b16604 6661696c40", "FunctionCall", 'fail("")'),
        (SERVER, "4101700202b1760474656d70", "VariableRequest", "temp"),
        (SERVER, "4103700202b1734101", "Signal", "on"),
        (SERVER, "4103700202b1734100", "Signal", "off"),
        (DEVICE, "70001234", "Reset", ""),
        (DEVICE, "50021235b168", "Hello", ""),
        (DEVICE, "50020002b178d0eaff01ffffffffffffffffffff01", "Goodbye", ""),
        (DEVICE, "50020002b178d0eaff03028080", "Goodbye", "cloud reason 2"),
        (SERVER, "4103700202b16b", "KeyChange", ""),
        (DEVICE, "50020002b178d0eaff0102", "Goodbye", "cloud reason 2"),
        (
            DEVICE,
            "50020002b178d0eaff070203e807",
            "Goodbye",
            "cloud reason 2, reset reason 3, sleep seconds 1000",
        ),
        (
            SERVER,
            "4102700206b175ff00010000013880 0000000000",
            "UpdateBegin",
            "80.0 kB in chunks of 256 bytes",
        ),
        (SERVER, "4102700206b175", "UpdateBegin", "without particulars"),
        (SERVER, "4102700206b173ff00010000013880 8000000000", "SaveBegin", "80.0 kB in chunks of 256 bytes"),
        (SERVER, "4102000204b163443610a686020001ff68656c6c6f", "Chunk", "number 1, 5 bytes, CRC right"),
        (SERVER, "4102000204b163443610a687ff68656c6c6f", "Chunk", "5 bytes, CRC wrong"),
        (SERVER, "4103700206b175", "UpdateDone", ""),
        (DEVICE, "50031234b175", "UpdateDone", ""),
        (DEVICE, "40011234b163ff001e", "ChunkMissed", "chunk 30"),
        (DEVICE, "40011234b163ff00010002000300040005", "ChunkMissed", "chunks 1, 2, 3, 4 and 1 more"),
        (DEVICE, "40021234b1644101ff7b2266223a5b5d7d", "DescribePost", "0 functions"),
        (SERVER, "40021234b14d", "ServerMoved", ""),
    ],
)
def test_a_message_alone_has_name_and_content(sender: str, raw: str, name: str, content: str) -> None:
    message = Talk().says(sender, raw)
    assert message.name == name
    assert summary(message) == content
    assert label(message) == name


@pytest.mark.parametrize(
    ("request_", "answer", "name", "content"),
    [
        ("d 40001239", "s 6100123900", "PingAck", ""),
        ("d 40001239", "s 60001239", "PingAck", ""),
        ("s 40001239", "d 60001239", "PingAck", ""),
        ("d 4101123657b174", "s 6145123657ff54667200", "TimeResponse", "2014-11-14 21:20:00 UTC"),
        ("d 50021237b16501 61", "s 60041237", "EventAck 4.00", "refused, miscoded as 0.04"),
        ("d 50021237b16501 61", "s 60801237", "EventAck 4.00", "refused"),
        ("d 40011238b16505737061726b", "s 61801238 00", "SubscribeAck 4.00", "refused"),
        (
            "s 4101700202b164",
            "d 61457002 02ff7b2266223a5b5d2c2276223a7b7d7d",
            "DescribeResponse",
            "0 functions, 0 variables",
        ),
        ("s 4101700202b164", "d 6145700202ff00040001", "DescribeResponse", "metrics"),
        ("s 4101700202b164", "d 6145700202ff7b", "DescribeResponse", "not readable: not JSON"),
        ("s 4101700202b164", "d 60007002", "DescribeAck", ""),
        ("s 4102700202b16601 66", "d 60807002", "FunctionCallAck 4.00", "refused"),
        ("s 4102700202b16601 66", "d 60017002", "FunctionCallAck 4.00", "refused, miscoded as 0.01"),
        ("s 4102700202b16601 66", "d 5144000102ffffffffff", "FunctionReturn", "f = -1"),
        ("s 4101700202b17601 61", "d 6145700202ff00", "VariableValue", "a = false (bool by its length)"),
        ("s 4101700202b17601 61", "d 6145700202ff02", "VariableValue", 'a = "\\x02" (string by its length)'),
        (
            "s 4101700202b17601 61",
            "d 6145700202ff0000000000803540",
            "VariableValue",
            "a = 21.5 (double by its length)",
        ),
        ("s 4101700202b17601 61", "d 5145000102fffffffff6", "VariableValue", "a = -10 (int32 by its length)"),
        ("s 4101700202b17601 61", "d 5184000102", "VariableValue 4.04", "refused"),
        ("s 4101700202b17601 61", "d 60847002", "VariableRequestAck 4.04", "refused"),
        ("s 4103700202b1734101", "d 6144700202", "SignalAck", ""),
        ("s 4102700206b175", "d 60007002", "UpdateBeginAck", ""),
        ("s 4102700206b175", "d 61a3700206", "UpdateBeginAck 5.03", "refused"),
        ("s 4102700206b175", "d 5144000106", "UpdateReady", "one chunk at a time"),
        ("s 4102700206b175", "d 5144000106ff00", "UpdateReady", "one chunk at a time"),
        ("s 4102700206b175", "d 5144000106ff01", "UpdateReady", "fast"),
        ("s 4102700206b175", "d 5180000106ff07", "UpdateAbort 4.00", "reason 7"),
        (
            "s 4102700206b163443610a687ff00",
            "d 5180000106",
            "ChunkReceived 4.00",
            "not accepted, its CRC did not fit",
        ),
        ("s 4103700206b175", "d 6180700206", "UpdateDoneAck 4.00", "chunks are missing"),
        ("d 40011234b163ff001e", "s 60001234", "ChunkMissedAck", ""),
        ("d 40021234b144", "s 60001234", "Ack", ""),
        ("s 4103700202b1734101", "d 70007002", "Reset", ""),
    ],
)
def test_an_answer_finds_its_request(request_: str, answer: str, name: str, content: str) -> None:
    sides = {"d": DEVICE, "s": SERVER}
    first, second = talked((sides[request_[0]], request_[2:]), (sides[answer[0]], answer[2:]))
    assert second.answers == first.index
    assert (second.answers_packet, second.answer_ns) == (1, 1_000_000)
    assert label(second) == name
    assert summary(second) == content


@pytest.mark.parametrize(
    ("sender", "raw", "name"),
    [
        (SERVER, "60001234", "Ack"),
        (SERVER, "6100123400", "Ack"),
        (SERVER, "6180123400", "ErrorAck"),
        (SERVER, "60041234", "ErrorAck"),
        (SERVER, "6145123657ff54667200", "TimeResponse"),
        (DEVICE, "60001234", "Ack"),
        (DEVICE, "60011234", "ErrorAck"),
        (DEVICE, "6144123402", "Ack"),
        (DEVICE, "6144123402ff7b7d", "UpdateDoneAck"),
        (DEVICE, "5144123402", "Response"),
        (DEVICE, "5144123402ff01", "UpdateReady"),
        (DEVICE, "5144123402ff00000001", "FunctionReturn"),
        (DEVICE, "5180123402", "ChunkReceived"),
        (DEVICE, "51a0123402", "ErrorResponse"),
        (DEVICE, "6145123402ff00000001", "VariableValue"),
        (DEVICE, "6145123402ff7b2266223a5b5d2c2276223a7b7d7d", "DescribeResponse"),
        (DEVICE, "6145123402ff7b2261223a317d", "Response"),
    ],
)
def test_an_answer_without_its_request_is_named_only_as_far_as_it_shows(sender: str, raw: str, name: str) -> None:
    message = Talk().says(sender, raw)
    assert message.name == name
    assert message.answers is None


@pytest.mark.parametrize(
    ("sender", "raw"),
    [
        (DEVICE, "50021234b17a"),
        (DEVICE, "40051234"),
        (SERVER, "50021234b17a"),
        (DEVICE, "4102123402b16601 66"),
        (DEVICE, "50001234"),
        (DEVICE, "51e1123402"),
    ],
)
def test_what_is_not_in_the_table_has_no_name_but_can_be_shown(sender: str, raw: str) -> None:
    message = Talk().says(sender, raw)
    assert message.name is None
    assert label(message) == f"{message.type} {message.code}"


def test_bytes_that_are_no_coap_say_so() -> None:
    message = Talk().device("c0021234")
    assert message.name is None
    assert summary(message) == "not readable as CoAP: version is not 1"


def test_the_odd_id_of_a_second_description_does_not_catch_another_request() -> None:
    talk = Talk()
    describe = talk.server("4101700202b164")
    variable = talk.server("4101700303b17601 61")
    talk.device("6145700202ff7b2266223a5b5d2c2276223a7b7d7d")
    second = talk.device("6145700302ff7b2266223a5b5d2c2276223a7b7d7d")
    value = talk.device("6145700303ff01")
    assert (second.name, second.answers) == ("DescribeResponse", describe.index)
    assert (value.name, value.answers) == ("VariableValue", variable.index)


def test_a_separate_description_is_acknowledged_by_the_server() -> None:
    messages = talked(
        (SERVER, "4101700202b164"),
        (DEVICE, "60007002"),
        (DEVICE, "4145000102ff7b2266223a5b5d7d"),
        (SERVER, "60000001"),
    )
    assert [m.name for m in messages] == [
        "Describe",
        "DescribeAck",
        "DescribeResponse",
        "DescribeResponseAck",
    ]
    assert [m.answers for m in messages] == [None, 0, 0, 2]


def test_a_refused_call_that_returns_all_the_same_is_still_paired() -> None:
    messages = talked((SERVER, "4102700202b16601 66"), (DEVICE, "60807002"), (DEVICE, "5144000102ff00000001"))
    assert [m.answers for m in messages] == [None, 0, 0]


def test_a_token_used_again_means_the_newer_request() -> None:
    talk = Talk()
    for identifier in ("7002", "7003"):
        talk.server(f"4102{identifier}02b16601 66")
        talk.device(f"6000{identifier}")
    returned = talk.device("5144000102ff00000001")
    assert returned.answers == 2
    assert talk.device("5144000202ff00000001").answers is None


def test_an_unknown_confirmable_message_and_its_answer_belong_together() -> None:
    asked, answered = talked((DEVICE, "40021234b17a"), (SERVER, "60001234"))
    assert asked.name is None
    assert (answered.name, answered.answers) == ("Ack", asked.index)


def test_events_with_and_without_data_differ() -> None:
    none, empty = talked((DEVICE, "50021234b1650161"), (DEVICE, "50021234b1650161ff"))
    assert none.values["data"] is None
    assert empty.values["data"] == ""


# Variables


def described(types: str) -> Talk:
    talk = Talk()
    talk.server("4101700101b164")
    talk.device(encode(ACK, 0x45, 0x7001, token=b"\1", payload=f'{{"f":[],"v":{types}}}'.encode()))
    return talk


@pytest.mark.parametrize(
    ("number", "payload", "kind", "value"),
    [
        (1, b"\1", "bool", True),
        (2, struct.pack(">i", -40), "int32", -40),
        (4, b"abcd", "string", "abcd"),
        (4, b"", "string", ""),
        (9, struct.pack("<d", 23.4375), "double", 23.4375),
        (9, struct.pack("<d", float("nan")), "double", "nan"),
        (9, struct.pack("<d", float("-inf")), "double", "-inf"),
        (2, b"\1\2", "int32", None),
    ],
)
def test_a_description_settles_the_type_of_a_variable(number: int, payload: bytes, kind: str, value: object) -> None:
    talk = described(f'{{"x":{number}}}')
    talk.server("4101700202b1760178")
    message = talk.device(encode(ACK, 0x45, 0x7002, token=b"\2", payload=payload))
    assert message.values == {
        "name": "x",
        "type": kind,
        "type_source": "describe",
        "value": value,
        "in_describe": True,
    }


def test_a_value_of_the_wrong_length_is_not_guessed_at() -> None:
    talk = described('{"x":2}')
    talk.server("4101700202b1760178")
    assert summary(talk.device("6145700202ff0001")) == "x = no readable int32"


def test_a_type_that_nobody_knows_falls_back_to_the_length() -> None:
    talk = described('{"x":77}')
    talk.server("4101700202b1760178")
    message = talk.device("6145700202ff00000001")
    assert (message.values["type"], message.values["type_source"]) == ("int32", "length")


# Descriptions


def test_modules_are_spelled_out() -> None:
    told = read_description(
        b'{"p":6,"m":[{"s":49152,"l":"m","vc":30,"vv":26,"u":"ab","f":"s","n":"1","v":108,'
        b'"d":[{"f":"b","n":"0","v":7,"_":""}]}],"imei":"1"}'
    )
    assert told["platform"] == "Photon"
    assert told["modules"] == [
        {
            "size": 49152,
            "location": "main",
            "checks_made": 30,
            "checks_passed": 26,
            "sha256": "ab",
            "function": "system",
            "name": "1",
            "version": 108,
            "dependencies": [{"function": "bootloader", "name": "0", "version": 7, "_": ""}],
        }
    ]
    assert told["other"] == {"imei": "1"}


def test_a_metrics_answer_is_recognised() -> None:
    assert read_description(bytes.fromhex("00040001ff"))["metrics"] is True


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"[" * 60_000, f"nested deeper than {DEEPEST_DESCRIPTION}"),
        (b'{"a":' * 10_000, f"nested deeper than {DEEPEST_DESCRIPTION}"),
        (b'{"f":["' + b"x" * LARGEST_DESCRIPTION + b'"]}', f"longer than {LARGEST_DESCRIPTION} bytes"),
        (b'{"p":' + b"9" * 50_000 + b"}", "not JSON"),
        (b'{"f":["led"', "not JSON"),
        (b'"text"', "not a JSON object"),
        (b"17", "not a JSON object"),
        (b"", "not JSON"),
    ],
)
def test_a_bad_description_is_a_problem_and_nothing_more(payload: bytes, problem: str) -> None:
    told = read_description(payload)
    assert told["problem"] == problem
    assert told["functions"] is None


def test_brackets_inside_strings_do_not_count_as_depth() -> None:
    assert read_description(b'{"f":["' + b"[{" * 100 + b'"]}')["functions"] == ["[{" * 100]


def test_a_lone_surrogate_cannot_reach_any_output() -> None:
    told = read_description(b'{"f":["a\\ud800b"],"v":{"\\udfff":2}}')
    json.dumps(told, ensure_ascii=False).encode()
    assert told["functions"] == ["a?b"]


def test_strange_values_of_a_description_stay_harmless() -> None:
    told = read_description(
        b'{"f":[1,{},"ok"],"v":{"x":[[]],"y":true,"z":1e999,"n":NaN},"p":"six","m":[3,{"d":7,"l":4}]}'
    )
    assert told["functions"] == ["ok"]
    assert told["variables"] == {"x": [[]], "y": True, "z": "1e999", "n": "NaN"}
    assert told["platform_id"] is None
    json.dumps(told, allow_nan=False)


@given(st.binary(max_size=200) | st.text(alphabet='{}[]"\\:,fvpm0123. ', max_size=200).map(str.encode))
@fuzz
def test_any_description_gives_the_same_fields(payload: bytes) -> None:
    told = read_description(payload)
    assert set(told) == set(read_description(b"{}"))
    json.dumps(told, allow_nan=False, ensure_ascii=False).encode()


# Who is talking


@pytest.mark.parametrize(
    ("payload", "generation", "firmware"),
    [
        ("", "G1a", "up to 0.3"),
        ("ff0000ffff0000", "G1a", "up to 0.3"),
        ("ff0000ffff00010000", "G1b", "0.4 to 1.4"),
        ("ff0006ffff00010006", "G2a", "0.4 to 0.7"),
        ("ff0006ffff00020006", "G2b", "0.8 to 1.1"),
        ("ff0006ffff00070008", "G2b or G2c", "1.2 to 1.5"),
        ("ff0006ffff00160006", "G2c", "2.x"),
        ("ff0006ffff0016000600000c1c03c00001e8480200", "G2d", "3.x"),
        ("ff0006ffff00000063", None, None),
    ],
)
def test_a_hello_tells_the_generation(payload: str, generation: str | None, firmware: str | None) -> None:
    talk = Talk()
    assert talk.reader.generation is None
    assert talk.device("50021235b168" + payload).name == "Hello"
    assert (talk.reader.generation, talk.reader.firmware) == (generation, firmware)


def test_a_separate_variable_value_proves_1_5() -> None:
    talk = Talk()
    talk.device("50021235b168ff0006ffff00070006")
    talk.server("4101700202b1760178")
    talk.device("60007002")
    talk.device("5145123602ff01")
    assert talk.reader.generation == "G2c"


def test_all_fields_of_a_long_hello_are_read() -> None:
    hello = Talk().device("50020000b168ff0006ffff0016000600000c1c03c00001e8480200")
    assert hello.values == {
        "product_id": 6,
        "firmware_version": 65535,
        "flags": 0x16,
        "flag_names": ["diagnostics", "immediate_updates", "goodbye"],
        "platform_id": 6,
        "platform": "Photon",
        "device_id_length": 0,
        "system_version": 3100,
        "largest_message": 960,
        "largest_binary": 125000,
        "ota_chunk_size": 512,
    }
    assert summary(hello) == "product 6, firmware 65535, Photon"


@pytest.mark.parametrize(
    ("salt", "order"),
    [("1234", "high-first"), ("3412", "low-first"), ("9999", "neither")],
)
def test_the_first_id_tells_in_which_order_the_device_read_its_seed(salt: str, order: str) -> None:
    talk = Talk(bytes.fromhex(salt) + bytes(6))
    talk.device("50021235b168ff0006ffff00000006")
    assert talk.reader.id_order == order
    assert talk.reader.generation == ("G2b" if order == "low-first" else "G2a")


def test_equal_seed_bytes_tell_no_order_and_the_id_may_wrap() -> None:
    talk = Talk(b"\xff\xff" + bytes(6))
    talk.device("50020000b168ff0006ffff00000006")
    assert talk.reader.id_order == "either"


@pytest.mark.parametrize(
    ("turns", "dialect"),
    [
        (["s 5102700201b168"], "legacy"),
        (["s 50027002b168"], "community"),
        (["d 40001239", "s 6100123900"], "legacy"),
        (["d 40001239", "s 60001239"], "community"),
        (["d 40011234b163ff001e", "s 60001234"], None),
        (["s 60001234"], None),
        (["d 50021237b1650161", "s 6180123700"], "legacy"),
        (["d 50021237b1650161", "s 60041237"], "community"),
        (["s 50027002b1650161313cff6869"], "legacy"),
        (["s 50027002b1650161340000003cff6869"], "community"),
    ],
)
def test_the_way_a_server_writes_tells_its_dialect(turns: list[str], dialect: str | None) -> None:
    talk = Talk()
    for turn in turns:
        talk.says(DEVICE if turn[0] == "d" else SERVER, turn[2:])
    assert talk.reader.server_dialect == dialect


def test_the_habit_of_refusing_events_is_not_called_harmless_where_devices_hang_up() -> None:
    talk = Talk()
    talk.device("50021235b168ff0000ffff00010000")  # a Core of 0.4 or later
    talk.server("5102700201b168")
    talk.device("50021236b1650161")
    refused = talk.server("6180123600")
    assert refused.values == {"error": "4.00", "habit": True, "harmless": None}
    assert summary(refused) == "this server's habit, some firmware hangs up on it"


def test_a_refused_system_event_is_no_habit() -> None:
    talk = Talk()
    talk.server("5102700201b168")
    talk.device("50021236b16505537061726b")
    assert talk.server("6180123600").values == {"error": "4.00", "habit": False}


# Holes in the capture


def test_a_message_without_its_front_claims_nothing() -> None:
    gap = VECTORS["gap_recovery"]
    rest = bytes.fromhex(gap["next_blocks_1_plaintext"])[:-5]
    message = MessageReader().read(DEVICE, rest, 34, 0, missing=16)
    assert (message.whole, message.missing, message.plaintext) == (False, 16, rest)
    unknown = (message.name, message.type, message.code, message.message_id, message.token)
    assert unknown == (None,) * 5
    assert [message.path, message.query, message.payload, message.answers] == [None] * 4
    assert message.tail is not None
    assert message.values == {"tail_text": 'italwrite"],"v":{"temp":9}}'}
    assert label(message) == "(front lost)"
    assert summary(message) == 'first 16 bytes lost, 27 bytes left: "italwrite\\"],\\"v\\":{\\"temp\\":9}}"'


def test_a_short_message_behind_a_hole_is_lost_whole() -> None:
    message = MessageReader().read(DEVICE, b"", 34, 0, missing=16)
    assert summary(message) == "first 16 bytes lost, nothing is left"


def test_indexes_go_on_behind_a_hole() -> None:
    reader = MessageReader()
    reader.read(SERVER, b"rest", 1, 0, missing=16)
    assert reader.read(DEVICE, bytes.fromhex("40001239"), 2, 0).index == 1


GENERIC = {"Ack", "ErrorAck", "Response", "ErrorResponse"}


@pytest.mark.parametrize("capture", ["healthy-full", "photon-fast-ota", "ota-server-gives-up"])
def test_a_message_that_the_capture_lacks_never_makes_another_name_or_pair_wrong(capture: str) -> None:
    _, messages, _ = of_capture(capture)
    for lost in messages:
        reader = MessageReader()
        for message in messages:
            if message is lost:
                continue
            again = reader.read(message.direction, message.plaintext, message.packet, message.time_ns)
            assert again.name == message.name or again.name in GENERIC
            if message.answers == lost.index:
                assert again.answers is None
            else:
                assert again.name == message.name
                assert again.answers_packet == message.answers_packet


# Hostile peers


def test_outstanding_requests_are_bounded_and_the_loss_is_counted() -> None:
    talk = Talk()
    for number in range(MOST_OUTSTANDING + 100):
        talk.device(encode(CON, 0, number))
    assert len(talk.reader.unanswered(DEVICE)) == MOST_OUTSTANDING
    assert talk.reader.forgotten == 100
    assert talk.server(encode(ACK, 0, 0)).answers is None
    assert talk.server(encode(ACK, 0, MOST_OUTSTANDING + 99)).answers == MOST_OUTSTANDING + 99


def test_peer_text_is_escaped_and_cut() -> None:
    assert quote('a"\\\x1b[31m\u202eb') == '"a\\"\\\\\\x1b[31m\\u202eb"'
    assert quote("x" * 61) == f'"{"x" * 60}"...'
    assert quote("\U000e0001é") == '"\\U000e0001é"'


def test_a_hostile_event_name_cannot_move_the_cursor() -> None:
    message = Talk().device(encode(NON, 2, 1, options=[(11, b"e"), (11, b"\x1b[2J\n")], payload=b"\x07"))
    assert summary(message) == '"\\x1b[2J\\n" = "\\x07", public, 60 s'.replace("\\n", "\\x0a")


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=60), st.sampled_from([0, 0, 0, 16])), max_size=20))
@fuzz
def test_any_bytes_give_messages_that_can_be_shown_and_written(turns: list[tuple[bool, bytes, int]]) -> None:
    reader = MessageReader(b"12345678")
    for number, (device, raw, missing) in enumerate(turns):
        message = reader.read(DEVICE if device else SERVER, raw, number, number, missing)
        assert message.index == number
        check_presentable(message)


letters = st.sampled_from([b"e", b"E", b"h", b"f", b"u", b"c", b"s", b"v", b"d", b"t", b"x", b"k", b"z", b"M"])
lifelike = st.builds(
    lambda kind, code, number, token, letter, rest, payload: encode(
        kind,
        code,
        number,
        token=token,
        options=[(11, letter), *rest] if code in range(1, 4) else [],
        payload=payload,
    ),
    st.integers(0, 3),
    st.sampled_from([0, 1, 2, 3, 4, 0x44, 0x45, 0x80, 0x84, 0xA3]),
    st.integers(0, 6),
    st.sampled_from([b"", b"\0", b"\1", b"\2"]),
    letters,
    st.lists(st.tuples(st.sampled_from([11, 14, 15, 258]), st.binary(max_size=6)), max_size=4),
    st.none() | st.binary(max_size=24) | st.just(b'{"f":[],"v":{"a":1}}'),
)


@given(st.lists(st.tuples(st.booleans(), lifelike), max_size=30))
@fuzz
def test_any_lifelike_conversation_is_paired_backwards_only(turns: list[tuple[bool, bytes]]) -> None:
    reader = MessageReader(b"12345678")
    messages: list[SparkMessage] = []
    for number, (device, raw) in enumerate(turns):
        message = reader.read(DEVICE if device else SERVER, raw, number, number)
        messages.append(message)
        check_presentable(message)
        if message.answers is not None:
            assert message.answers < message.index
            assert messages[message.answers].direction != message.direction
    for side in (DEVICE, SERVER):
        for request in reader.unanswered(side):
            assert messages[request.index].direction == side


def check_presentable(message: SparkMessage) -> None:
    assert summary(message).isprintable()
    assert label(message).isprintable()
    json.dumps(message.values, allow_nan=False, ensure_ascii=False).encode()


@given(st.binary(max_size=300), st.integers(0, 0xFFFF))
@fuzz
def test_a_chunk_is_judged_by_its_own_bytes(data: bytes, index: int) -> None:
    options = [(11, b"c"), (15, zlib.crc32(data).to_bytes(4, "big")), (15, index.to_bytes(2, "big"))]
    values = Talk().server(encode(CON, 2, 1, token=b"\1", options=options, payload=data)).values
    assert values == {"crc": zlib.crc32(data), "crc_ok": True, "index": index, "size": len(data)}


def test_a_row_of_the_table_is_the_same_one_in_another_process() -> None:
    for route in (*ROUTES.values(), UNNAMED):
        assert pickle.loads(pickle.dumps(route)) is route  # noqa: S301 - our own
