"""Captures that have a URL: read like files, alone, by pattern and by folder, whole and in ranges."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from analyzer.capture import CaptureError
from analyzer.capture.ranges import split
from analyzer.capture.remote import is_url
from analyzer.pipeline import analyze
from analyzer.report.jsonreport import json_text
from analyzer.trace import Trace

CAPTURES = Path("captures").resolve()
ROOT = Path(__file__).resolve().parents[1]


def told(trace: Trace) -> str:
    """The report, less the names of the files."""
    for file in trace.captures:
        file.path = file.path.rsplit("/", 1)[-1]
    return "".join(json_text(trace))


@pytest.fixture
def storage() -> Iterator[str]:
    """A folder in storage that has no paths."""
    files = fsspec.filesystem("memory")
    for name in ("healthy-full", "key-mismatch-retries"):
        files.pipe(f"/ring/{name}.pcap", (CAPTURES / f"{name}.pcap").read_bytes())
    yield "memory://ring"
    files.rm("/ring", recursive=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s3://bucket/a.pcap", True),
        ("simplecache::https://host/a.pcap", True),
        ("file:///tmp/a.pcap", True),
        ("a.pcap", False),
        ("captures/a:b//c.pcap", False),
        (r"C:\captures\a.pcap", False),
        ("C://captures/a.pcap", False),
        ("-", False),
    ],
)
def test_what_is_a_url(name: str, expected: bool) -> None:
    assert is_url(name) is expected


def test_a_url_is_read_like_a_file(storage: str) -> None:
    assert told(analyze(f"{storage}/healthy-full.pcap")) == told(analyze(CAPTURES / "healthy-full.pcap"))


@pytest.mark.parametrize("form", ["{0}", "{0}/*.pcap"])
def test_a_folder_and_a_pattern_are_their_files(form: str, storage: str) -> None:
    paths = [CAPTURES / "healthy-full.pcap", CAPTURES / "key-mismatch-retries.pcap"]
    assert told(analyze(form.format(storage))) == told(analyze(paths))


def test_a_large_one_can_be_read_in_ranges(storage: str) -> None:
    ranges = split(f"{storage}/key-mismatch-retries.pcap", 3)
    assert ranges == split(str(CAPTURES / "key-mismatch-retries.pcap"), 3)
    assert len(ranges) == 3


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("memory://ring/no-such.pcap", "no such file"),
        ("memory://ring/*.pcapng", "no file there"),
        ("gopher://host/a.pcap", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_said(url: str, says: str, storage: str) -> None:
    assert storage
    with pytest.raises(CaptureError, match=says):
        analyze(url)


def test_the_command_takes_urls() -> None:
    """From its own process, in which nothing is loaded yet."""
    url = f"file://{CAPTURES}/key-mismatch-retries.pcap"
    done = subprocess.run(
        [sys.executable, "-m", "analyzer", "analyze", url, "--fail-on", "critical"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "key-mismatch-retries.pcap" in done.stdout
