"""A clock that tells the end of the calendar, or its beginning, stops no command."""

from __future__ import annotations

from pathlib import Path

import pytest
from capture_files import enhanced, interface, section
from judging import CAPTURES, shipped

from analyzer.capture import Capture
from analyzer.capture.ledger import LATEST_NS
from analyzer.cli import main

COMMANDS = (
    ("analyze",),
    ("analyze", "--format", "html", "-o", "out"),
    ("analyze", "--format", "parquet", "-o", "out"),
    ("decrypt",),
    ("decrypt", "--format", "csv"),
    ("decrypt", "-w", "out"),
    ("redact", "out"),
    ("redact", "out", "--shift-time"),
)


def moved(name: str, start_ns: int) -> bytes:
    """A shipped capture as a pcapng file with microseconds, begun at another time."""
    packets = shipped(name)
    times = (max(0, start_ns + packet.time_ns - packets[0].time_ns) // 1000 for packet in packets)
    blocks = (enhanced(p.data, at, 0, p.original_length) for p, at in zip(packets, times, strict=True))
    return section() + interface(link_type=packets[0].link_type) + b"".join(blocks)


@pytest.mark.parametrize("start_ns", [0, LATEST_NS - 10**10, 1 << 63, 253_402_300_700 * 10**9], ids=str)
@pytest.mark.parametrize("name", ["healthy-full", "key-mismatch-retries"])
def test_every_command_takes_a_capture_of_any_time(
    name: str, start_ns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("capture.pcapng").write_bytes(moved(name, start_ns))
    assert all(0 <= packet.time_ns <= LATEST_NS for packet in Capture(["capture.pcapng"]))
    for number, (command, *words) in enumerate(COMMANDS):
        keys = ("--keys", str(CAPTURES / "keys")) if command == "decrypt" else ()
        named = [word.replace("out", f"out-{number}") for word in words]
        assert main([command, "capture.pcapng", *named, *keys]) in (0, 1), capsys.readouterr().err
