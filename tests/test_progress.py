"""Progress on a terminal: how far, how fast, how long still; and nothing of it left behind."""

from __future__ import annotations

import argparse
import io
import os
import pty
import struct
import sys
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest
from capture_files import payloads, pcap

from analyzer.capture.capture import Position
from analyzer.commands.progress import Pace, Progress, progress_line

ROOT = Path(__file__).parent.parent
MB: Final = 1_000_000
GB: Final = 1000 * MB


def paced(*seen: tuple[float, int]) -> Pace:
    pace = Pace()
    for seconds, done in seen:
        pace.see(seconds, done)
    return pace


def steady(seconds: float, rate: int) -> Pace:
    """A read at one rate, looked at five times a second."""
    return paced(*((n / 5, n * rate // 5) for n in range(int(seconds * 5) + 1)))


def line(
    done: int, total: int | None, pace: Pace, *, place: int = 1, files: int = 1, width: int = 200, name: str = "a.pcap"
) -> str:
    return progress_line(Position(done, total, f"ring/{name}", place, files), pace, 3, width)


# What the line says of bytes and seconds.


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Reading a.pcap · 1 % · 40.0 MB of 4.0 GB · 3 attempts"),
        (2.0, "Reading a.pcap · 5 % · 200.0 MB of 4.0 GB · 100.0 MB/s · 3 attempts"),
        (4.0, "Reading a.pcap · 10 % · 400.0 MB of 4.0 GB · 100.0 MB/s · 36 s left · 3 attempts"),
        (39.0, "Reading a.pcap · 97 % · 3.9 GB of 4.0 GB · 100.0 MB/s · 1 s left · 3 attempts"),
    ],
)
def test_rate_and_time_left_come_when_they_are_known(seconds: float, text: str) -> None:
    assert line(round(seconds * 100 * MB), 4 * GB, steady(seconds, 100 * MB)) == text


def test_a_long_time_is_told_in_minutes_and_hours() -> None:
    pace = steady(5.0, MB)
    assert " · 3 min 15 s left · " in line(5 * MB, 200 * MB, pace)
    assert " · 2 h 47 min left · " in line(5 * MB, 10 * GB, pace)


def test_a_rate_that_jumps_tells_no_time() -> None:
    slow_first = paced(*((n / 5, n * MB) for n in range(10)), *((n / 5, (n - 9) * 40 * MB) for n in range(10, 20)))
    text = line(400 * MB, 4 * GB, slow_first)
    assert "MB/s" in text
    assert "left" not in text


def test_a_read_that_stands_still_tells_neither() -> None:
    text = line(5 * MB, GB, paced(*((n / 5, 5 * MB) for n in range(100))))
    assert text == "Reading a.pcap · 0 % · 5.0 MB of 1.0 GB · 3 attempts"


def test_the_rate_is_that_of_the_last_seconds() -> None:
    fast_first = paced(
        *((n / 5, n * 100 * MB) for n in range(25)), *((5 + n / 5, 2500 * MB + n * MB) for n in range(75))
    )
    assert fast_first.rate == pytest.approx(5 * MB, rel=0.05)
    assert fast_first.left(100 * MB) == pytest.approx(20.0, rel=0.05)


def test_a_pipe_has_no_end_that_is_known() -> None:
    assert line(400 * MB, None, steady(4.0, 100 * MB)) == "Reading a.pcap · 400.0 MB · 100.0 MB/s · 3 attempts"


def test_many_files_are_counted() -> None:
    text = line(400 * MB, 4 * GB, steady(4.0, 100 * MB), place=12, files=3000)
    assert text.startswith("Reading a.pcap · file 12 of 3,000 · 10 % · ")


def test_what_matters_least_goes_first_where_room_is_scarce() -> None:
    name = "capture-of-the-router_00012_20240101120000.pcapng"
    told = [
        line(400 * MB, 4 * GB, steady(4.0, 100 * MB), place=12, files=3000, width=width, name=name)
        for width in range(200, 0, -1)
    ]
    assert all(len(text) <= width for text, width in zip(told, range(200, 0, -1), strict=True))
    assert told[200 - 79] == "Reading …01120000.pcapng · file 12 of 3,000 · 10 % · 100.0 MB/s · 36 s left"
    assert (told[200 - 16], told[200 - 15]) == ("10 % · 36 s left", "10 %")


def test_a_name_cannot_act_on_the_terminal() -> None:
    assert "\x1b" not in line(1, 2, steady(0.2, 5), name="a\x1b[31m.pcap")


# When it is drawn, and that it goes away.


class Terminal(io.StringIO):
    """Takes down what a program draws."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    @property
    def rows(self) -> list[str]:
        return self.getvalue().split("\r")


def reading(seconds: float, *, stream: Terminal, quiet: bool = False, calls: int = 20) -> Progress:
    """Read 10 MB a second for so long, asking for progress so many times a second."""
    now = [100.0]
    progress = Progress(argparse.Namespace(quiet=quiet), stream=stream, clock=lambda: now[0])
    trace: Any = SimpleNamespace(conversations=[1, 2])
    for n in range(round(seconds * calls) + 1):
        now[0] = 100.0 + n / calls
        capture = SimpleNamespace(position=Position(round((now[0] - 100.0) * 10 * MB), 100 * MB, "a.pcap", 1, 1))
        progress(cast("Any", capture), trace)
    return progress


def test_what_is_soon_done_shows_nothing() -> None:
    stream = Terminal()
    reading(0.9, stream=stream).wipe()
    assert stream.getvalue() == ""


def test_it_is_redrawn_five_times_a_second_at_most() -> None:
    stream = Terminal()
    reading(6.0, stream=stream, calls=200)
    assert 20 <= len(stream.rows) - 1 <= 26
    assert stream.rows[-1].startswith("Reading a.pcap · 5")
    assert " · 10.0 MB/s · 5 s left · 2 attempts" in stream.rows[-1]


def test_it_is_wiped_at_the_end() -> None:
    stream = Terminal()
    progress = reading(3.0, stream=stream)
    longest = max(len(row) for row in stream.rows)
    progress.wipe()
    assert stream.rows[-1] == ""
    assert stream.rows[-2] == " " * longest
    drawn = len(stream.rows)
    progress.wipe()
    assert len(stream.rows) == drawn


def test_a_shorter_line_leaves_nothing_of_the_longer_one() -> None:
    stream, trace = Terminal(), cast("Any", SimpleNamespace(conversations=[]))
    now = [0.0]
    progress = Progress(argparse.Namespace(), stream=stream, clock=lambda: now[0])
    for now[0], name in ((0.0, "a"), (2.0, "a-long-name.pcap"), (3.0, "b")):
        progress(cast("Any", SimpleNamespace(position=Position(1, 100, name, 1, 1))), trace)
    assert len(stream.rows[-1]) >= len(stream.rows[-2].rstrip())


def test_none_is_drawn_where_nobody_looks() -> None:
    quiet, file = Terminal(), Terminal()
    file.isatty = lambda: False  # type: ignore[method-assign]
    reading(3.0, stream=quiet, quiet=True).wipe()
    reading(3.0, stream=file).wipe()
    assert quiet.getvalue() == file.getvalue() == ""


def test_a_terminal_without_our_marks_gets_plain_ones() -> None:
    stream = Terminal()
    stream.encoding = "ascii"
    reading(3.0, stream=stream)
    assert stream.getvalue().isascii()


# On a real terminal.


def on_a_terminal(columns: int, pace_s: float, *arguments: str, cwd: Path) -> str:
    """What a command writes to a terminal that is its stderr, while a pipe brings a capture at its own pace."""
    controller, terminal = pty.openpty()
    ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    data = pcap(payloads(2000, 1000))
    program = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-m', 'analyzer', *{arguments!r}], stdin=subprocess.PIPE,"
        " stdout=subprocess.DEVNULL)\n"
        f"data = open({str(cwd / 'whole.pcap')!r}, 'rb').read()\n"
        "for n in range(8):\n"
        "    child.stdin.write(data[len(data) * n // 8 : len(data) * (n + 1) // 8]); child.stdin.flush()\n"
        f"    time.sleep({pace_s})\n"
        "child.stdin.close()\n"
        "sys.exit(child.wait())\n"
    )
    (cwd / "whole.pcap").write_bytes(data)
    pid = os.fork()
    if not pid:
        os.dup2(terminal, 2)
        os.execve(  # noqa: S606
            sys.executable,
            [sys.executable, "-c", program],
            {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"},
        )
    os.close(terminal)
    written = b""
    try:
        while block := os.read(controller, 65536):
            written += block
    except OSError:
        pass  # Linux says so when the last one has hung up
    os.close(controller)
    assert os.waitpid(pid, 0)[1] == 0
    return written.decode()


def test_a_real_terminal_is_clean_afterwards(tmp_path: Path) -> None:
    written = on_a_terminal(40, 0.4, "analyze", "-", cwd=tmp_path)
    rows = written.split("\r")
    drawn = [row for row in rows if row.startswith("Reading -")]
    assert drawn
    assert all(len(row) <= 39 for row in drawn)
    assert any("MB/s" in row or "kB/s" in row for row in drawn)
    assert "left" not in written
    assert "\n" not in written, "it stays on one line"
    assert rows[-1] == ""
    assert not rows[-2].strip()


def test_a_real_terminal_stays_empty_with_quiet(tmp_path: Path) -> None:
    assert on_a_terminal(80, 0.2, "analyze", "--quiet", "-", cwd=tmp_path) == ""
