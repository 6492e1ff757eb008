"""The tables for analysts: what is in them, who can open them, and what happens to the folder they are written to."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas
import pyarrow as pa
import pytest
from decrypted import CAPTURES, START_NS, Line, read
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from analyzer import KeyRing, analyze
from analyzer.cli import main
from analyzer.coap import encode
from analyzer.dataset import COLUMNS, Column, DatasetError, tables, write, write_dataset
from analyzer.dataset.columns import BYTES, NO_DATE, SECONDS, TIME, Type
from analyzer.dataset.document import DOCUMENT, document
from analyzer.dataset.folder import FILE, new_tables
from analyzer.dataset.rows import LATEST_NS, LONGEST_NUMBER, as_number
from analyzer.dataset.tables import arrow_schema
from analyzer.findings import Evidence
from analyzer.report.jsonreport import SCHEMA
from analyzer.simulate import simulate
from analyzer.trace import Trace
from analyzer.version import version

ROOT = CAPTURES.parent
KEYS = ["--keys", str(CAPTURES / "keys")]
DAY_NS = 86_400 * 10**9
TABLES = tuple(COLUMNS)
Screen = pytest.CaptureFixture[str]
Row = dict[str, Any]


def run(screen: Screen, *words: str | Path) -> tuple[int, str, str]:
    status = main([str(word) for word in words])
    out, err = screen.readouterr()
    return status, out, err


def rows(folder: Path, table: str) -> list[Row]:
    """The rows of a table as pyarrow reads the whole folder, with times as nanoseconds."""
    read = parquet.read_table(folder / table, partitioning=None)
    for place, field in enumerate(read.schema):
        if pa.types.is_timestamp(field.type):
            read = read.set_column(place, field.name, read.column(place).cast(pa.int64()))
    found: list[Row] = read.to_pylist()
    return found


def ask(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """What DuckDB answers about the tables, each opened in the one way that the README shows."""
    places = re.sub(rf"\b(FROM|JOIN) ({'|'.join(TABLES)})\b", rf"\1 '{folder}/\2/*/*.parquet'", query)
    answer = duckdb.sql(places)
    assert answer is not None
    return answer.fetchall()


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def opened(name: str = "healthy-full", keys: str = ".") -> Trace:
    return analyze(CAPTURES / f"{name}.pcap", keys=KeyRing.load(CAPTURES / "keys" / keys))


def with_messages(*lines: Line) -> Trace:
    """A trace whose one conversation says this."""
    trace = opened()
    trace.conversations[0].messages = read(lines)
    return trace


# -- the same as in JSON -------------------------------------------------------------------------------------------

SAMPLES = (
    "healthy-full",
    "ota-complete",
    "capture-gap",
    "key-mismatch-retries",
    "two-devices-background",
    "bad-signature",
)


def as_cell(kind: Type, value: Any, *, redacted: bool) -> Any:
    """A value of the JSON report as the cell of a table."""
    if value is None:
        return None
    if isinstance(kind, list):
        return [as_cell(kind[0], inner, redacted=redacted) for inner in value]
    if isinstance(kind, dict):
        return {name: as_cell(inner, value[name], redacted=redacted) for name, inner in kind.items()}
    if kind == TIME:
        return int(value * 10**9)
    if kind == SECONDS:
        return float(value)
    if kind == BYTES:
        return None if redacted else bytes.fromhex(value)
    return float(value) if isinstance(value, Decimal) else value


def at(value: Any, column: Column) -> Any:
    for name in column.path.split("."):
        value = None if value is None else value[name]
    return value


def json_rows(document: Any) -> dict[str, list[Row]]:
    conversations = document["conversations"]
    messages = [{"conversation": c["number"], **m} for c in conversations for m in c["messages"]]
    return {"conversations": conversations, "messages": messages, "findings": document["findings"]}


@pytest.mark.parametrize("redact", [[], ["--redact"]], ids=["open", "redacted"])
@pytest.mark.parametrize("name", SAMPLES)
def test_a_table_says_what_the_json_report_says(name: str, redact: list[str], tmp_path: Path, capsys: Screen) -> None:
    words = ["analyze", f"{CAPTURES}/{name}.pcap", *KEYS, *redact, "--format"]
    _, text, _ = run(capsys, *words, "json")
    told = json_rows(json.loads(text, parse_float=Decimal))
    status, out, err = run(capsys, *words, "parquet", "-o", tmp_path / "t")
    assert (status, out) == (0, "")
    for table in TABLES:
        written = rows(tmp_path / "t", table)
        assert len(written) == len(told[table])
        for row, said in zip(written, told[table], strict=True):
            assert list(row) == [column.name for column in COLUMNS[table]]
            for column in COLUMNS[table]:
                if column.name == "values":
                    assert json.loads(row["values"], parse_float=Decimal) == said["values"]
                elif not column.own:
                    assert row[column.name] == as_cell(column.type, at(said, column), redacted=bool(redact)), column
    assert re.search(rf": {len(told['conversations'])} conversations?, {len(told['messages'])} messages, ", err)


def test_a_message_carries_its_device_and_what_it_says_in_one_cell(tmp_path: Path) -> None:
    trace = opened()
    write_dataset(str(tmp_path / "t"), trace)
    written = rows(tmp_path / "t", "messages")
    assert {(row["device_ip"], row["device_id"]) for row in written} == {("192.168.1.104", "48ff6d06507b573081350e87")}
    said = {(row["name"], row["subject"], row["value_text"], row["value_number"]) for row in written}
    assert ("Event", "temp", "21.5", 21.5) in said
    assert ("VariableValue", "armed", "true", 1.0) in said
    assert ("Subscribe", "greet", None, None) in said
    assert ("FunctionCall", "led", "on", None) in said
    assert ("Hello", None, None, None) in said
    for row, message in zip(written, trace.conversations[0].messages, strict=True):
        assert (row["plaintext"], row["payload"], row["token"]) == (message.plaintext, message.payload, message.token)
        assert (row["time"], row["plaintext_bytes"]) == (message.time_ns, len(message.plaintext))
        assert row["answer_s"] == (None if message.answer_ns is None else message.answer_ns / 1e9)


def test_what_a_hole_took_is_null_and_its_size_is_told(tmp_path: Path) -> None:
    write_dataset(str(tmp_path / "t"), with_messages(("device", b"what is left", 16)))
    (row,) = rows(tmp_path / "t", "messages")
    assert (row["whole"], row["missing"], row["plaintext"]) == (False, 16, b"what is left")
    assert [row[name] for name in ("name", "type", "code", "message_id", "token", "path", "query", "payload")] == [
        None
    ] * 8


@given(
    st.one_of(
        st.text(max_size=80), st.floats().map(str), st.integers().map(str), st.from_regex(r"\s?[-+]?\d*\.?\d*e?\d*")
    )
)
@settings(max_examples=200, deadline=None)
@example("1_000")
@example("١٢")
@example("1e999")
@example("nan")
@example("0x10")
@example(" 21.50 ")
@example("9" * 70)
def test_only_text_that_every_reader_takes_for_a_number_is_one(text: str) -> None:
    number = as_number(text)
    plain = re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", text.strip(" \t\n\r\f\v"), re.ASCII | re.IGNORECASE)
    if plain is None or len(text) > LONGEST_NUMBER or abs(float(text)) == float("inf"):
        assert number is None
    else:
        assert number == float(text)


# -- schema and metadata -------------------------------------------------------------------------------------------


def test_the_columns_are_documented() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "python -m analyzer.dataset.document makes it anew"


@pytest.mark.parametrize("table", TABLES)
def test_every_file_has_the_types_that_are_documented(table: str, tmp_path: Path) -> None:
    write_dataset(str(tmp_path / "t"), opened())
    (file,) = (tmp_path / "t" / table).rglob("*.parquet")
    schema = parquet.read_schema(file)
    assert schema == arrow_schema(table, {})
    heading = f"## {table}\n"
    text = document()
    section = text[text.index(heading) :].split("\n\n")[1]
    listed = dict(re.findall(r"^\| `(\w+)`(?: \*)? \| (.+?) \| .+ \|$", section, re.MULTILINE))
    assert listed.pop("date").startswith("date")
    assert list(listed) == schema.names
    words = {"dictionary<values=string, indices=int32, ordered=0>": "dictionary(string)", "double": "float64"}
    for field in schema:
        shown = words.get(str(field.type), str(field.type).replace("tz=", ""))
        assert listed[field.name] == shown or listed[field.name].startswith(("list of", "string of JSON")), field


def test_types_are_those_that_analysts_count_on() -> None:
    kinds = {table: {f.name: str(f.type) for f in arrow_schema(table, {})} for table in TABLES}
    assert kinds["conversations"]["start"] == kinds["messages"]["time"] == "timestamp[ns, tz=UTC]"
    assert kinds["conversations"]["device_port"] == kinds["messages"]["message_id"] == "uint16"
    assert kinds["conversations"]["number"] == kinds["messages"]["conversation"] == "uint32"
    assert kinds["findings"]["conversations"].startswith("list<")
    assert kinds["messages"]["direction"].startswith("dictionary<values=string")
    assert kinds["messages"]["plaintext"] == "binary"


def test_each_file_says_what_it_is(tmp_path: Path, capsys: Screen) -> None:
    words = ("analyze", f"{CAPTURES}/healthy-full.pcap", *KEYS, "--format", "parquet", "-o")
    run(capsys, *words, tmp_path / "open")
    run(capsys, *words, tmp_path / "redacted", "--redact")
    for table in TABLES:
        for name, redacted in (("open", None), ("redacted", b"true")):
            (file,) = (tmp_path / name / table).rglob("*.parquet")
            metadata = parquet.read_metadata(file).metadata
            assert (metadata[b"schema"], metadata[b"version"]) == (str(SCHEMA).encode(), version().encode())
            assert (metadata[b"table"], metadata.get(b"redacted")) == (table.encode(), redacted)


def test_the_same_capture_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_dataset(str(tmp_path / name), opened())
    assert files(tmp_path / "one") == files(tmp_path / "two")


# -- days ----------------------------------------------------------------------------------------------------------


def over_days(*days: int | None) -> Trace:
    """Conversations with messages that begin on these days of 2023 from 14 November on; None: beyond any calendar."""
    trace = analyze(CAPTURES / "key-mismatch-retries.pcap")
    messages = list(opened().conversations[0].messages)[:3]
    trace.conversations = trace.conversations[: len(days)]
    assert len(trace.conversations) == len(days)
    for c, day in zip(trace.conversations, days, strict=True):
        c.start_ns = LATEST_NS + 1 if day is None else START_NS + day * DAY_NS
        c.messages = messages
    return trace


def test_each_day_is_one_file_and_a_conversation_is_never_parted(tmp_path: Path) -> None:
    trace = over_days(1, 0, 1)
    list(trace.conversations[1].messages)[2].time_ns += 3 * DAY_NS
    write_dataset(str(tmp_path / "t"), trace)
    for table in ("conversations", "messages"):
        assert sorted(files(tmp_path / "t" / table)) == [f"date=2023-11-{day}/{FILE}" for day in (14, 15)]
    found = ask(tmp_path / "t", "SELECT date::VARCHAR, conversation, count(*) FROM messages GROUP BY ALL ORDER BY ALL")
    assert found == [("2023-11-14", 2, 3), ("2023-11-15", 1, 3), ("2023-11-15", 3, 3)]


def test_what_has_no_date_keeps_the_column_a_date(tmp_path: Path) -> None:
    write_dataset(str(tmp_path / "t"), over_days(0, None))
    found = ask(tmp_path / "t", "SELECT date, typeof(date), number, start IS NULL FROM conversations ORDER BY number")
    assert [(str(day), *rest) for day, *rest in found] == [
        ("2023-11-14", "DATE", 1, False),
        (NO_DATE, "DATE", 2, True),
    ]
    frame = pandas.read_parquet(tmp_path / "t" / "conversations")
    assert sorted(frame["date"]) == [NO_DATE, "2023-11-14"]


def test_forged_clocks_do_not_make_folders_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "MOST_DAYS", 2)
    write_dataset(str(tmp_path / "t"), over_days(5, 3, 4))
    assert sorted(files(tmp_path / "t" / "messages")) == [
        f"date={day}/{FILE}" for day in (NO_DATE, "2023-11-17", "2023-11-18")
    ]
    assert len(rows(tmp_path / "t", "messages")) == 9


def test_row_groups_are_bounded_and_nothing_is_lost_between_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(str(tmp_path / "whole"), opened())
    for name, limits in {
        "rows": {"BATCH_ROWS": 5, "GROUP_ROWS": 20},
        "bytes": {"BATCH_BYTES": 100, "GROUP_BYTES": 1500},
    }.items():
        with monkeypatch.context() as patch:
            for limit, value in limits.items():
                patch.setattr(tables, limit, value)
            write_dataset(str(tmp_path / name), opened())
        assert rows(tmp_path / name, "messages") == rows(tmp_path / "whole", "messages")
        (file,) = (tmp_path / name / "messages").rglob("*.parquet")
        metadata = parquet.read_metadata(file)
        groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        assert len(groups) >= 4
        assert name == "bytes" or groups == [20, 20, 20, 7]


# -- who opens it --------------------------------------------------------------------------------------------------


def test_the_lines_in_the_readme_open_it(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```sh\n(sparkshark decrypt .*? --format parquet .*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "spark.pcap").symlink_to(CAPTURES / "healthy-full.pcap")
    (tmp_path / "my-keys").symlink_to(CAPTURES / "keys")
    program = {"sparkshark": [sys.executable, "-P", "-m", "analyzer"], "python": [sys.executable]}
    shown = []
    for line in block.splitlines():
        first, *rest = shlex.split(line)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
        done = subprocess.run(
            [*program[first], *rest], cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=True
        )
        shown.append(done.stdout)
    assert len(shown) == 3
    assert re.search(r"\bEvent\s+│\s+12\s", shown[1])
    assert re.search(r"^Event\s+12$", shown[2], re.MULTILINE)


def test_tables_join_and_times_compare(tmp_path: Path) -> None:
    write_dataset(str(tmp_path / "t"), opened("two-devices-background"))
    found = ask(
        tmp_path / "t",
        "SELECT c.device_ip, c.reached, count(*), max(m.time::TIMESTAMPTZ) < max(c.start::TIMESTAMPTZ) + INTERVAL 1 DAY"
        " FROM messages m JOIN conversations c ON m.conversation = c.number AND m.date = c.date GROUP BY ALL",
    )
    assert found == [("192.168.1.105", "established", 25, True)]
    (lead,) = ask(tmp_path / "t", "SELECT severity, len(conversations) FROM findings WHERE code = 'SPK206'")
    assert lead == ("critical", 3)
    frame = pandas.read_parquet(tmp_path / "t" / "messages")
    assert str(frame["time"].dtype) == "datetime64[ns, UTC]"
    assert frame["time"].is_monotonic_increasing
    assert str(frame["name"].dtype) == "category"


@pytest.mark.parametrize("name", ["key-mismatch-retries", "empty"])
def test_tables_without_rows_open_like_any_other(name: str, tmp_path: Path, capsys: Screen) -> None:
    capture = CAPTURES / f"{name}.pcap"
    if name == "empty":
        capture = tmp_path / "empty.pcap"
        capture.write_bytes((CAPTURES / "healthy-full.pcap").read_bytes()[:24])
    status, out, err = run(capsys, "analyze", capture, "--format", "parquet", "-o", tmp_path / "t")
    assert (status, out) == (0, "")
    assert err.endswith(", as Parquet.\n")
    assert " 0 messages, " in err
    for table in TABLES:
        frame = pandas.read_parquet(tmp_path / "t" / table)
        wanted = [*(column.name for column in COLUMNS[table]), "date"]
        assert list(frame.columns) == wanted
        described = ask(tmp_path / "t", f"DESCRIBE FROM {table}")
        assert [row[0] for row in described] == wanted
        assert described[-1][1] == "DATE"
        assert len(frame) == len(rows(tmp_path / "t", table)) == (0 if table == "messages" else len(frame))


# -- what strangers wrote ------------------------------------------------------------------------------------------


def event(name: bytes, data: bytes) -> Line:
    return "device", encode(1, 2, 7, options=[(11, b"e"), (11, name)], payload=data)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (b"nul\0nul", b"\0"),
        ("\u202egpj.exe\u2066".encode(), "\u200f漢\U0001f4a9".encode()),
        (b"x" * 64_000, b"y" * 1_000),
        (b"\xff\xfe\xc3", b"\xed\xa0\x80"),
        (b"'; DROP TABLE messages; --", b'"},{"'),
        (b"a/b\n\r\x1b[2J", b"=cmd()"),
    ],
    ids=["nul", "direction", "long", "not-utf-8", "quotes", "control"],
)
def test_what_a_stranger_wrote_comes_back_as_it_was(name: bytes, data: bytes, tmp_path: Path) -> None:
    trace = with_messages(event(name, data))
    write_dataset(str(tmp_path / "t"), trace)
    (message,) = trace.conversations[0].messages
    (row,) = rows(tmp_path / "t", "messages")
    wanted = (name.decode("utf-8", "replace"), data.decode("utf-8", "replace"), data, message.plaintext)
    assert (row["subject"], row["value_text"], row["payload"], row["plaintext"]) == wanted
    assert row["path"] == f"e/{wanted[0]}"
    assert json.loads(row["values"]) == message.values
    assert ask(tmp_path / "t", "SELECT subject, value_text, payload, plaintext FROM messages") == [wanted]
    frame = pandas.read_parquet(tmp_path / "t" / "messages")
    assert tuple(frame.loc[0, ["subject", "value_text", "payload", "plaintext"]]) == wanted


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=40), st.sampled_from([0, 16])), max_size=8))
def test_no_bytes_keep_the_tables_from_being_written(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[bytes, bytes, int]]
) -> None:
    lines: list[Line] = [line for name, raw, missing in said for line in (event(name, raw), ("server", raw, missing))]
    trace = with_messages(*lines)
    folder = tmp_path_factory.mktemp("any")
    written = write_dataset(str(folder), trace)
    assert written.messages == len(lines)
    assert [row["plaintext"] for row in rows(folder, "messages")] == [line[1] for line in lines]


def test_half_characters_cost_themselves_alone(tmp_path: Path) -> None:
    trace = opened()
    trace.conversations[0].device.id = "half \ud800 \udcff"
    trace.findings[0].fix = ("open caf\udce9.der",)
    trace.findings[0].evidence = (Evidence("caf\udce9.der fits", (8,)),)
    write_dataset(str(tmp_path / "t"), trace)
    assert {row["device_id"] for row in rows(tmp_path / "t", "messages")} == {"half ? ?"}
    finding = rows(tmp_path / "t", "findings")[0]
    assert (finding["fix"], finding["evidence"]) == (["open caf?.der"], [{"text": "caf?.der fits", "packets": [8]}])


# -- what must not be in it ----------------------------------------------------------------------------------------


def cells(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from cells(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from cells(inner)
    else:
        yield value


def everything(folder: Path) -> bytes:
    """All cells and all metadata, in whatever form a secret may have."""
    found: list[Any] = [cell for table in TABLES for cell in cells(rows(folder, table))]
    for file in folder.rglob("*.parquet"):
        found += [part for pair in parquet.read_metadata(file).metadata.items() for part in pair]
    return b"\n".join(cell if isinstance(cell, bytes) else str(cell).encode() for cell in found)


@pytest.mark.parametrize("more", [[], ["--show-secrets"]], ids=["plain", "asked-for"])
@pytest.mark.parametrize("command", ["analyze", "decrypt"])
def test_no_key_is_in_it(command: str, more: list[str], tmp_path: Path, capsys: Screen) -> None:
    status, _, _ = run(
        capsys, command, CAPTURES / "healthy-full.pcap", *KEYS, *more, "--format", "parquet", "-o", tmp_path / "t"
    )
    assert status == 0
    told = everything(tmp_path / "t")
    session = json.loads((CAPTURES / "healthy-full.truth.json").read_text())["sessions"][0]["session_key"]["hex"]
    for key in (bytes.fromhex(session), (CAPTURES / "keys" / "core-a.der").read_bytes()):
        for start in range(0, len(key) - 16, 8):
            part = key[start : start + 16]
            assert part not in told
            assert part.hex().encode() not in told


def test_redacted_tables_name_nobody(tmp_path: Path, capsys: Screen) -> None:
    words = ("analyze", f"{CAPTURES}/healthy-full.pcap", *KEYS, "--format", "parquet", "-o")
    run(capsys, *words, tmp_path / "open")
    run(capsys, *words, tmp_path / "redacted", "--redact")
    private = (b"192.168.1.104", b"48ff6d06507b573081350e87", b"08:00:28:57:3a:c1", b"21.5", b"greet")
    told, kept = everything(tmp_path / "open"), everything(tmp_path / "redacted")
    assert [part for part in private if part not in told] == []
    assert [part for part in private if part in kept] == []
    for before, after in zip(rows(tmp_path / "open", "messages"), rows(tmp_path / "redacted", "messages"), strict=True):
        for name in ("name", "time", "packet", "direction", "plaintext_bytes", "answers", "answer_s"):
            assert before[name] == after[name]
        assert after["device_ip"] == "Device A"
        assert after["plaintext"] is after["payload"] is after["token"] is None
    temperature = next(row for row in rows(tmp_path / "redacted", "messages") if row["name"] == "Event")
    assert (temperature["value_text"], temperature["value_number"]) == ("4 characters", None)


# -- the command ---------------------------------------------------------------------------------------------------


def test_one_conversation_and_several_files(tmp_path: Path, capsys: Screen) -> None:
    capture = CAPTURES / "two-devices-background.pcap"
    words = ("--format", "parquet", "-o")
    status, _, _ = run(capsys, "decrypt", capture, *KEYS, "--conversation", "1", *words, tmp_path / "one")
    assert status == 0
    assert [row["number"] for row in rows(tmp_path / "one", "conversations")] == [1]
    assert {row["conversation"] for row in rows(tmp_path / "one", "messages")} == {1}
    other = CAPTURES / "healthy-full.pcap"
    run(capsys, "decrypt", capture, other, *KEYS, *words, tmp_path / "both")
    numbers = [row["number"] for row in rows(tmp_path / "both", "conversations")]
    assert numbers == list(range(1, 6))
    assert len(rows(tmp_path / "both", "messages")) == 67 + 25


def test_exit_status_is_that_of_the_command(tmp_path: Path, capsys: Screen) -> None:
    words = (CAPTURES / "key-mismatch-retries.pcap", "--format", "parquet", "-o")
    status, _, err = run(capsys, "analyze", *words, tmp_path / "a", "--fail-on", "major")
    assert status == 1
    assert "at or above major" in err
    status, _, err = run(capsys, "decrypt", *words, tmp_path / "d", "--keys", CAPTURES / "keys" / "core-b.der")
    assert status == 1
    assert "0 of" in err or "no login" in err
    assert len(rows(tmp_path / "d", "conversations")) == 3


def test_every_story_fits_the_tables(tmp_path: Path) -> None:
    for name in ("http-portal", "dtls", "announcements-only", "other-port", "gap", "clone"):
        story = simulate(name)
        capture = tmp_path / f"{name}.pcap"
        capture.write_bytes(story.capture())
        trace = analyze(capture)
        written = write_dataset(str(tmp_path / name), trace)
        assert (written.conversations, written.findings) == (len(trace.conversations), len(trace.findings))
        assert [row["code"] for row in rows(tmp_path / name, "findings")] == [f.code for f in trace.findings]


@pytest.mark.parametrize("command", [["analyze"], ["decrypt", *KEYS]], ids=["analyze", "decrypt"])
def test_it_wants_a_folder(command: list[str], capsys: Screen) -> None:
    status, out, err = run(capsys, *command, "no-such-file.pcap", "--format", "parquet")
    assert (status, out) == (2, "")
    assert err == "sparkshark: --format parquet: it makes a folder of tables. Say which: -o DIR\n"


@pytest.mark.parametrize("command", [["analyze"], ["decrypt", *KEYS]], ids=["analyze", "decrypt"])
def test_without_pyarrow_one_line_says_how_to_get_it(command: list[str], tmp_path: Path) -> None:
    program = "import sys; sys.modules['pyarrow'] = None; from analyzer.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [*command, "no-such-file.pcap", "--format", "parquet", "-o", str(tmp_path / "t")]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    wanted = 'sparkshark: Parquet needs one more package. Try: pip install "sparkshark[parquet]"\n'
    assert done.stderr == wanted
    assert not (tmp_path / "t").exists()


# -- the folder ----------------------------------------------------------------------------------------------------


def analysed(screen: Screen, folder: str | Path, *more: str) -> tuple[int, str]:
    capture = CAPTURES / "key-mismatch-retries.pcap"
    status, out, err = run(screen, "analyze", capture, "--format", "parquet", "-o", folder, *more)
    assert out == ""
    return status, err


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path, capsys: Screen) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert analysed(capsys, tmp_path) == (
        2,
        f"sparkshark: {tmp_path}: is not empty. Nothing was written. Try: another folder, or --force\n",
    )
    assert files(tmp_path) == {"mine.txt": b"mine"}


def test_force_replaces_the_tables_and_nothing_else(tmp_path: Path, capsys: Screen) -> None:
    write_dataset(str(tmp_path), over_days(0, 1))
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "messages-of-mine").mkdir()
    assert analysed(capsys, tmp_path, "--force")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*TABLES, "messages-of-mine", "mine.txt"])
    assert sorted(files(tmp_path / "conversations")) == [f"date=2026-11-23/{FILE}"], "no day of the old ones is left"
    assert [row["number"] for row in rows(tmp_path, "conversations")] == [1, 2, 3]


def foreign_file(folder: Path) -> Path:
    path = folder / "messages"
    path.write_text("letters")
    return path


def foreign_link(folder: Path) -> Path:
    (folder.parent / "elsewhere").mkdir()
    (folder / "messages").symlink_to(folder.parent / "elsewhere")
    return folder / "messages"


def foreign_inside(folder: Path) -> Path:
    path = folder / "messages" / "date=2026-11-23" / "part-0.parquet"
    path.parent.mkdir(parents=True)
    path.write_text("somebody else's")
    return path


def foreign_beside(folder: Path) -> Path:
    path = folder / "findings" / "notes.txt"
    path.parent.mkdir()
    path.write_text("mine")
    return path


def foreign_day(folder: Path) -> Path:
    (folder / "findings").mkdir()
    (folder.parent / "elsewhere").mkdir()
    (folder.parent / "elsewhere" / FILE).write_text("mine")
    (folder / "findings" / "date=2026-11-23").symlink_to(folder.parent / "elsewhere")
    return folder / "findings" / "date=2026-11-23"


@pytest.mark.parametrize("make", [foreign_file, foreign_link, foreign_inside, foreign_beside, foreign_day])
def test_what_only_has_the_name_of_a_table_is_never_replaced(make: Any, tmp_path: Path, capsys: Screen) -> None:
    folder = tmp_path / "t"
    folder.mkdir()
    path = make(folder)
    before = files(tmp_path)
    status, err = analysed(capsys, folder, "--force")
    assert status == 2
    assert err == f"sparkshark: {path}: was not written by sparkshark. Nothing was written. Try: another folder\n"
    assert files(tmp_path) == before


def test_a_folder_is_made_and_a_link_to_one_is_followed(tmp_path: Path, capsys: Screen) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert analysed(capsys, tmp_path / "link")[0] == 0
    assert sorted(path.name for path in (tmp_path / "real").iterdir()) == sorted(TABLES)
    assert analysed(capsys, f"{tmp_path / 'new'}/")[0] == 0
    assert files(tmp_path / "new") == files(tmp_path / "real")


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path, capsys: Screen) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    for name in ("file", "nowhere", "round"):
        status, err = analysed(capsys, tmp_path / name, "--force")
        assert (status, err.count("\n")) == (2, 1)
        assert err.startswith(f"sparkshark: {tmp_path / name}: exists already and is no folder.")
    status, err = analysed(capsys, tmp_path / "a b" / "c")
    assert (status, err.count("\n")) == (2, 1)
    assert f"the folder {tmp_path / 'a b'} does not exist. Make it first: mkdir -p '{tmp_path / 'a b'}'" in err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_takes_nothing_is_told_of_in_one_line(capsys: Screen) -> None:
    # Nobody can make a folder there, not even root; it is said before a capture is read.
    status, _, err = run(capsys, "analyze", "no-such-file.pcap", "--format", "parquet", "-o", "/proc/tables")
    assert (status, err.count("\n")) == (2, 1)
    assert re.match(
        r"sparkshark: /proc/tables: cannot be written \(.+\)\. Nothing was written\. Try: another folder", err
    )


@pytest.mark.parametrize("before", [True, False], ids=["replacing", "new"])
def test_a_full_disk_leaves_everything_as_it_was(before: bool, tmp_path: Path) -> None:
    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    folder = tmp_path / "t"
    if before:
        write_dataset(str(folder), over_days(0, 1))
    there = files(tmp_path)
    words = ["analyze", str(CAPTURES / "healthy-full.pcap"), "--format", "parquet", "-o", str(folder), "--force"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "analyzer", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=little_room,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"sparkshark: {folder}: cannot be written (file too large). Nothing was written. Try: another folder\n"
    )
    assert files(tmp_path) == there
    assert folder.exists() == before
    assert not before or sorted(path.name for path in folder.iterdir()) == sorted(TABLES)


def test_when_one_table_cannot_take_its_place_the_others_give_theirs_back(tmp_path: Path) -> None:
    folder = tmp_path / "t"

    def somebody_comes_first() -> None:
        with new_tables(str(folder), force=False):
            (folder / "findings").mkdir()
            (folder / "findings" / "mine.txt").write_text("mine")

    with pytest.raises(DatasetError, match="cannot be written"):
        somebody_comes_first()
    assert files(tmp_path) == {"t/findings/mine.txt": b"mine"}
    assert [path.name for path in folder.iterdir()] == ["findings"]
    write_dataset(str(tmp_path / "old"), over_days(0, 1))
    there = files(tmp_path / "old")

    def somebody_adds_to_it() -> None:
        with new_tables(str(tmp_path / "old"), force=True):
            (tmp_path / "old" / "findings" / "mine.txt").write_text("mine")

    with pytest.raises(DatasetError, match=r"mine\.txt: was not written by sparkshark"):
        somebody_adds_to_it()
    assert files(tmp_path / "old") == {**there, "findings/mine.txt": b"mine"}


def test_whatever_goes_wrong_leaves_no_half_data_set(tmp_path: Path) -> None:
    trace = opened()
    messages = list(trace.conversations[0].messages)
    messages[60].packet = -1  # no column takes this
    trace.conversations[0].messages = messages
    with pytest.raises(OverflowError):
        write_dataset(str(tmp_path / "t"), trace)
    assert list(tmp_path.iterdir()) == []
