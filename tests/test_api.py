"""The package as a program uses it: the README's examples run, the docstrings' too, and types are known to mypy."""

from __future__ import annotations

import csv
import doctest
import importlib
import io
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FunctionType

import pandas
import pytest
from pyarrow import parquet
from screens import CAPTURES, ROOT

import analyzer
from analyzer import KeyRing, TableError, Trace, analyze, table
from analyzer.cli import main
from analyzer.dataset import COLUMNS
from analyzer.dataset.flat import NAMES

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
USER = """\
from datetime import datetime

from analyzer import (
    Analysis, CaptureError, Confidence, Conversation, Finding, KeyFileError, KeyRing, Severity, SparkMessage, Trace,
    analyze, table,
)


def worst(path: str) -> Finding | None:
    try:
        trace: Trace = analyze(path, keys=KeyRing.load("core.der"))
    except (CaptureError, KeyFileError) as error:
        print(str(error))
        return None
    first: Conversation = trace.conversations[0]
    message: SparkMessage = first.messages[0]
    name: str | None = message.name
    times: list[int] = [message.time_ns, first.start_ns]
    rows: list[dict[str, object]] = table(trace, "messages")
    print(name, times, rows, Severity.CRITICAL, Confidence.CERTAIN, datetime.now())
    return next(iter(trace.findings), None)


analysis = Analysis()
reveal_type(analysis.finish())
table(analysis.finish(), "massages")
analyze(5)
"""


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def trace() -> Trace:
    return analyze(CAPTURES / "two-devices-background.pcap", keys=KeyRing.load(CAPTURES / "keys"))


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_of_the_readme_runs(example: str, tmp_path: Path) -> None:
    (tmp_path / "captures").symlink_to(CAPTURES)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", example]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert re.search("SPK001|SparkNonce|DescribeResponse|Nothing answers|stops answering", run.stdout)


def test_the_readme_has_examples() -> None:
    assert len(EXAMPLES) >= 4
    assert sum("table(" in example for example in EXAMPLES) == 1


@pytest.mark.parametrize("name", ["analyzer", "analyzer.dataset.flat"])
def test_the_examples_of_a_docstring_run(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried > 2
    assert failed == 0


def test_public_names_are_documented() -> None:
    for name in analyzer.__all__:
        public = getattr(analyzer, name)
        if isinstance(public, type | FunctionType):
            assert public.__doc__, name


@pytest.mark.parametrize("name", NAMES)
def test_each_row_has_the_columns_that_are_documented(name: analyzer.TableName, trace: Trace) -> None:
    rows = table(trace, name)
    assert (
        len(rows)
        == {
            "conversations": len(trace.conversations),
            "messages": sum(len(c.messages) for c in trace.conversations),
            "findings": len(trace.findings),
        }[name]
    )
    for row in rows:
        assert list(row) == [column.name for column in COLUMNS[name]]
    assert table(analyze(CAPTURES / "mid-session.pcap"), "messages") == []


def test_the_rows_are_those_of_parquet_and_of_json(trace: Trace, tmp_path: Path) -> None:
    capture, keys = str(CAPTURES / "two-devices-background.pcap"), str(CAPTURES / "keys")
    assert main(["analyze", capture, "--keys", keys, "--format", "parquet", "-o", str(tmp_path / "t")]) == 0
    for name in NAMES:
        stored = parquet.read_table(tmp_path / "t" / name).to_pylist()
        mine = table(trace, name, exact_times=True)
        assert len(stored) == len(mine)
        for theirs, row in zip(stored, mine, strict=True):
            for column in COLUMNS[name]:
                if column.type != "time":
                    assert row[column.name] == theirs[column.name], (name, column.name)
    start = trace.conversations[0].start_ns
    assert table(trace, "conversations", exact_times=True)[0]["start"] == start
    assert table(trace, "conversations")[0]["start"] == datetime.fromtimestamp(start // 10**9, UTC).replace(
        microsecond=start // 1000 % 10**6
    )


def test_pandas_takes_it_with_times_and_numbers(trace: Trace) -> None:
    frame = pandas.DataFrame(table(trace, "messages"))
    assert len(frame) == sum(len(c.messages) for c in trace.conversations)
    assert str(frame["time"].dtype).startswith("datetime64[")
    assert frame["answer_s"].dropna().between(0, 60).all()
    by_device = frame.groupby("device_ip").size()
    assert by_device.sum() == len(frame)


def test_csv_takes_it(trace: Trace) -> None:
    rows = table(trace, "findings")
    stream = io.StringIO()
    writer = csv.DictWriter(stream, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    again = list(csv.DictReader(io.StringIO(stream.getvalue())))
    assert [row["code"] for row in again] == [finding.code for finding in trace.findings]


def test_redacted_rows_tell_nobody_where_it_was(trace: Trace) -> None:
    told = json.dumps([table(trace, name, redact=True) for name in NAMES], default=repr)
    for device in trace.devices:
        for c in device.conversations:
            assert c.device.ip not in told
            assert c.device.id is None or c.device.id not in told
    assert all(row["plaintext"] is None for row in table(trace, "messages", redact=True))


def test_another_name_is_refused_with_those_there_are(trace: Trace) -> None:
    with pytest.raises(TableError) as refused:
        table(trace, "massages")  # type: ignore[arg-type]
    assert str(refused.value) == "massages: no such table. There are conversations, messages, findings."


def test_a_table_needs_no_library(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom analyzer import analyze, table\n"
        "table(analyze('captures/port-blocked.pcap'), 'conversations')\n"
        "print({'pyarrow', 'pandas', 'polars'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_a_users_program_is_checked_by_mypy(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(USER)
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = true\n[mypy-analyzer.*]\nfollow_imports = silent\n")
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(ROOT / ".mypy_cache" / "user"), "program.py"]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    lines = [re.sub(r"^program\.py:\d+: ", "", line) for line in run.stdout.splitlines()]
    assert lines[0] == 'note: Revealed type is "analyzer.trace.Trace"'
    assert [line for line in lines if "error" in line and "[arg-type]" in line] == lines[1:-1]
    assert len(lines[1:-1]) == 2, run.stdout
