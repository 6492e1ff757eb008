"""The CSV table of messages, as a spreadsheet would read it."""

from __future__ import annotations

import csv
import io

import pytest
from decrypted import START_NS, Line, Talk, read, session
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.coap import encode
from analyzer.export.csvtable import FORMULA_STARTS, HEADER, row, rows, time_text, write_csv
from analyzer.messages import label, summary


def event(name: bytes, data: bytes = b"x") -> Line:
    return "device", encode(1, 2, 7, options=[(11, b"e"), (11, name)], payload=data)


def table(*talks: Talk) -> list[dict[str, str]]:
    stream = io.StringIO(newline="")
    write_csv(stream, talks)
    stream.seek(0)
    return list(csv.DictReader(stream))


def test_every_message_is_a_row_with_all_that_is_known_of_it() -> None:
    talk = session("healthy-full", 4)
    read_back = table(talk, Talk(5))
    assert tuple(read_back[0]) == HEADER
    assert len(read_back) == len(talk.messages)
    for cells, message in zip(read_back, talk.messages, strict=True):
        assert cells["conversation"] == "4"
        assert (int(cells["index"]), int(cells["packet"])) == (message.index, message.packet)
        assert (cells["direction"], cells["name"]) == (message.direction, label(message))
        assert (cells["type"], cells["code"]) == (message.type, message.code)
        assert int(cells["message_id"]) == message.message_id
        assert bytes.fromhex(cells["token"]) == message.token
        assert (cells["path"], cells["content"]) == (message.path, summary(message))
        assert cells["answers"] == ("" if message.answers is None else str(message.answers))
        assert bytes.fromhex(cells["plaintext"]) == message.plaintext


def test_the_count_is_that_of_the_messages() -> None:
    assert write_csv(io.StringIO(), [session("healthy-full"), Talk(2)]) == 67


@pytest.mark.parametrize(
    ("prefix", "shown"),
    [
        (b"=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        (b"+1", "'+1"),
        (b"-1+2", "'-1+2"),
        (b"@SUM(A1)", "'@SUM(A1)"),
        ("\uff1dSUM(A1)".encode(), "'\uff1dSUM(A1)"),
        (b"\t=1", '"\\x09=1"'),
        (b"\r\n=1", '"\\x0d\\x0a=1"'),
    ],
)
def test_a_name_that_would_be_a_formula_is_disarmed(prefix: bytes, shown: str) -> None:
    line = encode(1, 2, 7, options=[(11, prefix)], payload=b"x")
    (message,) = read([("device", line)])
    assert row(1, message)[HEADER.index("path")] == shown
    (prefixed,) = read([("device", encode(0, 1, 7, options=[(11, b"e"), (11, prefix)]))])
    assert not row(1, prefixed)[HEADER.index("content")].startswith(FORMULA_STARTS)


@settings(max_examples=150, deadline=None)
@given(st.text(), st.binary(max_size=60), st.binary(max_size=40), st.sampled_from([0, 16]))
def test_no_cell_is_a_formula_or_breaks_its_row(name: str, data: bytes, raw: bytes, missing: int) -> None:
    talk = Talk(messages=read([event(name.encode("utf-8", "replace")[:60], data), ("server", raw, missing)]))
    for cells in rows(talk):
        assert len(cells) == len(HEADER)
        for cell in cells:
            assert cell.isprintable()
            assert not cell.startswith(FORMULA_STARTS)
    stream = io.StringIO()
    write_csv(stream, [talk])
    assert stream.getvalue().count("\n") == 3


def test_a_message_without_its_front_has_what_is_left() -> None:
    (message,) = read([("device", b"left", 16)])
    cells = dict(zip(HEADER, row(2, message), strict=True))
    assert (cells["name"], cells["type"], cells["code"], cells["message_id"]) == ("(front lost)", "", "", "")
    assert cells["plaintext"] == b"left".hex()
    assert cells["time"] == time_text(START_NS + 1)


def test_times_keep_every_digit() -> None:
    assert time_text(START_NS) == "2023-11-14T22:13:20.123456789Z"
    assert time_text(0) == "1970-01-01T00:00:00.000000000Z"
    assert time_text(10**30 + 5) == f"{10**21}.000000005"
