"""CoAP decoding: genuine messages exactly, hostile bytes without harm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.coap import (
    ACK,
    CON,
    HARMLESS,
    NON,
    OPTION_NAMES,
    OPTION_NUMBERS,
    Anomaly,
    CoapMessage,
    decode,
    decode_tail,
    encode,
    encode_message,
)

ROOT = Path(__file__).parent.parent
VECTORS = json.loads((ROOT / "tests/vectors/vectors.json").read_text())
FRAMES = [frame for session in VECTORS["sessions"] for frame in session["frames"]] + VECTORS["zero_key_frames"]
TRUTHS = sorted((ROOT / "captures").glob("*.truth.json"))
fuzz = settings(max_examples=200, deadline=None)


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame["note"][:50])
def test_every_vector_is_read_whole_and_written_again_byte_for_byte(frame: dict[str, str]) -> None:
    raw = bytes.fromhex(frame["coap"])
    message = decode(raw)
    assert message.well_formed
    assert encode_message(message) == raw


def test_every_message_of_the_captures_is_read_whole_and_written_again() -> None:
    seen = 0
    for truth in TRUTHS:
        for session in json.loads(truth.read_text()).get("sessions", []):
            for sent in session.get("c2s", []) + session.get("s2c", []):
                raw = bytes.fromhex(sent["hex"])
                message = decode(raw)
                assert message.well_formed, sent["hex"]
                assert encode_message(message) == raw
                seen += 1
    assert seen > 1000


def test_reads_an_event_field_by_field() -> None:
    message = decode(bytes.fromhex("50021237b1450474656d703300012cff32312e35"))
    assert message == CoapMessage(1, NON, 0x02, 0x1237, b"", ((11, b"E"), (11, b"temp"), (14, b"\0\1\x2c")), b"21.5")
    assert (message.type_text, message.code_text, message.path) == ("NON", "0.02", "E/temp")


def test_a_zero_delta_after_a_query_is_another_query() -> None:
    message = decode(bytes.fromhex("4102000204b1634491267e8a020001ff00"))
    assert message.queries == [bytes.fromhex("91267e8a"), b"\0\1"]
    assert message.path_segments == [b"c"]


def test_an_ff_inside_an_option_is_not_the_payload_marker() -> None:
    for _ in range(2):  # the second time the memo could answer
        message = decode(bytes.fromhex("4102000204b16344ffffffff020001ffff"))
        assert message.queries == [b"\xff\xff\xff\xff", b"\0\1"]
        assert message.payload == b"\xff"


def test_no_response_option_of_a_goodbye() -> None:
    message = decode(bytes.fromhex("50020002b178d0eaff0102"))
    assert message.options[1] == (OPTION_NUMBERS["No-Response"], b"")
    assert message.payload == b"\1\2"


def test_empty_ack_with_token_is_noted_and_still_well_formed() -> None:
    message = decode(bytes.fromhex("6100123700"))
    assert message.anomalies == (Anomaly.EMPTY_ACK_WITH_TOKEN,)
    assert message.well_formed
    assert (message.type, message.token) == (ACK, b"\0")


def test_empty_string_as_payload_is_noted_and_kept_apart_from_none() -> None:
    assert decode(bytes.fromhex("614512365 7ff".replace(" ", ""))).anomalies == (Anomaly.EMPTY_PAYLOAD,)
    assert decode(bytes.fromhex("6145123657")).anomalies == ()


def test_path_is_text_whatever_its_bytes_are() -> None:
    message = decode(encode(CON, 2, 1, options=[(11, b"e"), (11, b"\xff\xfe")]))
    assert message.path == "e/��"
    assert message.path_segments == [b"e", b"\xff\xfe"]


@pytest.mark.parametrize(
    ("raw", "anomaly"),
    [
        ("", Anomaly.TRUNCATED),
        ("40", Anomaly.TRUNCATED),
        ("400212", Anomaly.TRUNCATED),
        ("4102123", Anomaly.TRUNCATED),
        ("42021234aa", Anomaly.TRUNCATED),
        ("80021234", Anomaly.BAD_VERSION),
        ("00021234b168", Anomaly.BAD_VERSION),
        ("4902123401020304050607080910", Anomaly.RESERVED_TOKEN_LENGTH),
        ("40021234f1", Anomaly.RESERVED_OPTION_NIBBLE),
        ("400212341f", Anomaly.RESERVED_OPTION_NIBBLE),
        ("40021234b568", Anomaly.OPTION_PAST_END),
        ("40021234bd", Anomaly.OPTION_PAST_END),
        ("40021234be00", Anomaly.OPTION_PAST_END),
        ("40021234d0", Anomaly.OPTION_PAST_END),
        ("40021234e0ffffe0ffff", Anomaly.OPTION_NUMBER_TOO_LARGE),
        ("40001234aa", Anomaly.EMPTY_WITH_BYTES),
        ("6200123400aa", Anomaly.EMPTY_WITH_BYTES),
    ],
)
def test_each_anomaly_has_its_name(raw: str, anomaly: Anomaly) -> None:
    message = decode(bytes.fromhex(raw if len(raw) % 2 == 0 else raw[:-1]))
    assert anomaly in message.anomalies
    assert anomaly not in HARMLESS
    assert not message.well_formed


@given(st.binary(max_size=300))
@fuzz
def test_any_bytes_give_a_message_and_good_ones_come_back_exactly(data: bytes) -> None:
    message = decode(data)
    assert message.well_formed == (not set(message.anomalies) - HARMLESS)
    assert 0 <= message.type <= 3
    if message.well_formed:
        assert encode_message(message) == data
    assert decode(data) == message  # with and without the memo


options_strategy = st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=300)), max_size=12)


@given(
    st.integers(0, 3),
    st.integers(1, 255),
    st.integers(0, 0xFFFF),
    st.binary(max_size=8),
    options_strategy,
    st.none() | st.binary(max_size=80),
)
@fuzz
def test_what_is_written_is_read_again(  # noqa: PLR0917 - one argument for each field
    kind: int,
    code: int,
    message_id: int,
    token: bytes,
    options: list[tuple[int, bytes]],
    payload: bytes | None,
) -> None:
    message = decode(encode(kind, code, message_id, token=token, options=options, payload=payload))
    assert message.well_formed
    assert (message.type, message.code, message.message_id, message.token) == (kind, code, message_id, token)
    assert list(message.options) == sorted(options, key=lambda option: option[0])
    assert message.payload == (payload or b"")


def test_a_bomb_of_options_is_read_to_its_end() -> None:
    bomb = bytes.fromhex("40021234") + bytes(65_000)
    message = decode(bomb)
    assert len(message.options) == 65_000
    assert encode_message(message) == bomb


def test_the_memo_of_option_runs_changes_no_answer() -> None:
    raws = [
        encode(CON, 2, 7, options=[(11, b"c"), (15, number.to_bytes(4, "big"))], payload=b"x") for number in range(5000)
    ]
    assert [decode(raw).queries[0] for raw in raws + raws[:10]] == [raw[7:11] for raw in raws + raws[:10]]


def test_option_names_are_the_same_table_in_both_directions() -> None:
    assert {number: name for name, number in OPTION_NUMBERS.items()} == OPTION_NAMES


@pytest.mark.parametrize(
    "wrong",
    [
        {"token": bytes(9)},
        {"options": [(11, bytes(70_000))]},
        {"options": [(70_000, b"")]},
        {"options": [(-1, b"")]},
    ],
)
def test_what_coap_cannot_write_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="CoAP"):
        encode(CON, 2, 1, **wrong)  # type: ignore[arg-type]


def test_a_tail_says_what_may_be_and_claims_nothing() -> None:
    rest = bytes.fromhex(VECTORS["gap_recovery"]["next_blocks_1_plaintext"])[:-5]
    tail = decode_tail(rest)
    assert (tail.missing, tail.payload, tail.possible_marker) == (16, None, None)
    assert (tail.before, tail.after) == (None, None)
    assert tail.text == 'italwrite"],"v":{"temp":9}}'


def test_a_tail_with_an_ff_offers_both_sides_of_it() -> None:
    tail = decode_tail(b"midity3\x01\x51\x80\xff{}")
    assert (tail.before, tail.after, tail.payload) == (b"midity3\x01\x51\x80", b"{}", None)
    assert tail.text is None


@given(st.binary(max_size=100))
@fuzz
def test_any_tail_is_kept_whole(data: bytes) -> None:
    tail = decode_tail(data)
    assert tail.data == data
    if tail.before is not None and tail.after is not None:
        assert tail.before + b"\xff" + tail.after == data
