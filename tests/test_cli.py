"""The command as a user meets it: exit status, one line for each mistake, nothing half-written, no traceback."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from screens import CAPTURES, ROOT, sparkshark

from analyzer import cli
from analyzer.cli import COMMANDS, main
from analyzer.commands import common
from analyzer.commands.simulate import FIRMWARES, LINKS, SERVERS
from analyzer.report.style import Style
from analyzer.simulate import simulate
from analyzer.simulate.messages import FIRMWARES as SIMULATED_FIRMWARES
from analyzer.trace import Trace

MISMATCH = CAPTURES / "key-mismatch-retries.pcap"
HEALTHY = CAPTURES / "healthy-full.pcap"


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with what a user may have lying around."""
    shutil.copy(MISMATCH, tmp_path / "seed.pcap")
    shutil.copy(CAPTURES / "keys" / "core-a.der", tmp_path / "core.der")
    (tmp_path / "empty.pcap").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("hello world, this is text\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "notes.txt").write_text("nothing here\n")
    odd = bytearray(MISMATCH.read_bytes())
    odd[20:24] = struct.pack("<I", 147)
    (tmp_path / "odd.pcap").write_bytes(odd)
    (tmp_path / "report.html").write_text("precious")
    return tmp_path


def complains(desk: Path, words: list[str], line: str, status: int = 2) -> None:
    """The command writes exactly this line to stderr, nothing to stdout, and ends with this status."""
    run = sparkshark(*words, cwd=desk)
    assert run.stderr.decode() == f"sparkshark: {line}\n"
    assert run.stdout == b""
    assert run.returncode == status


# -- one line for each mistake --------------------------------------------------------------------------------------

MISTAKES = (
    ("analyze seed.pcpa", "seed.pcpa: no such file. Did you mean seed.pcap?"),
    (
        "analyze empty.pcap",
        "empty.pcap: empty (0 bytes). The capture program has not written anything yet; stop it first.",
    ),
    (
        "analyze core.der",
        "core.der: not a capture but a key (RSA private, 607 bytes). Try: sparkshark keys core.der",
    ),
    (
        "analyze notes.txt",
        'notes.txt: not a capture but text (starts "hello world, this is tex..."). Name a file that tcpdump, dumpcap or'
        " Wireshark has written.",
    ),
    ("analyze folder", "folder: an empty folder. Name one with captures in it."),
    (
        "analyze papers",
        "papers: 1 file, none of them a capture (first: notes.txt). Name a file that tcpdump, dumpcap or Wireshark has"
        " written.",
    ),
    (
        "analyze odd.pcap",
        "odd.pcap: link type 147 (private use) is not known; no packet can be read. Capture on an ordinary network"
        " interface.",
    ),
    (
        "follow odd.pcap 1",
        "odd.pcap: link type 147 (private use) is not known; no packet can be read. Capture on an ordinary network"
        " interface.",
    ),
    ("analyze seed.pcap --port 70000", "--port 70000: ports run from 1 to 65535. Spark devices use 5683."),
    ("analyze seed.pcap --port 0", "--port 0: ports run from 1 to 65535. Spark devices use 5683."),
    ("analyze seed.pcap --port=-1", "--port -1: ports run from 1 to 65535. Spark devices use 5683."),
    ("analyze seed.pcap --port http", "--port http: ports run from 1 to 65535. Spark devices use 5683."),
    (
        "analyze seed.pcap --conversation 4",
        "--conversation 4: this capture has 3 (1–3). List them: sparkshark analyze FILE --format json",
    ),
    ("analyze seed.pcap --conversation 0", "--conversation 0: a whole number from 1 on is wanted."),
    (
        "analyze seed.pcap --conversation " + "9" * 5000,
        f"--conversation {'9' * 60}...: a whole number from 1 on is wanted.",
    ),
    (
        "follow seed.pcap 9",
        "connection 9: this capture has 3 (1–3). List them: sparkshark analyze FILE --format json",
    ),
    ("follow seed.pcap one", "N one: a whole number from 1 on is wanted."),
    ("follow seed.pcap", "follow: N is missing. All options: sparkshark follow --help"),
    (
        "follow seed.pcap 1 --raw --hex",
        "--raw and --hex exclude each other; leave out both for the readable form.",
    ),
    (
        "follow seed.pcap 1 --direction devise",
        "--direction devise: no such choice. Did you mean device? All: device, server",
    ),
    ("analyze", "analyze: CAPTURE is missing. All options: sparkshark analyze --help"),
    ("analyze --prot 80 seed.pcap", "--prot: no such option. Did you mean --port?"),
    ("analyze --qiuet", "--qiuet: no such option. Did you mean --quiet?"),
    ("analyze --zzz seed.pcap", "--zzz: no such option. All options: sparkshark analyze --help"),
    ("analyze seed.pcap --format", "--format: its value is missing. All options: sparkshark analyze --help"),
    (
        "analyze seed.pcap --format jsnl",
        "--format jsnl: no such choice. Did you mean jsonl? All: text, json, jsonl, markdown, html, parquet",
    ),
    ("analyze seed.pcap --width 12", "--width 12: a number of columns from 40 to 1000 is wanted."),
    ("explain SPK206 --width wide", "--width wide: a number of columns from 40 to 1000 is wanted."),
    (
        "analyze seed.pcap --fail-on hgh",
        "--fail-on hgh: no such choice. All: critical, major, minor, never",
    ),
    (
        "analyze seed.pcap --quiet=yes",
        "--quiet: takes no value. All options: sparkshark analyze --help",
    ),
    (
        "analyze seed.pcap -o missing/report.txt",
        "missing/report.txt: the folder missing does not exist. Make it first: mkdir -p missing",
    ),
    (
        "analyze seed.pcap -o report.html",
        "report.html: exists already. Nothing was written. Try: another name, or --force",
    ),
    (
        "analyze seed.pcap -o folder --force",
        "folder: cannot be written (is a directory). Nothing was written. Try: another folder",
    ),
    ("analyse seed.pcap", "analyse: no such command. Did you mean analyze?"),
    ("seed.pcap", "seed.pcap: no such command. To analyse a capture: sparkshark analyze seed.pcap"),
    ("frobnicate", "frobnicate: no such command. All: sparkshark --help"),
    ("explain SPK260", "SPK260: no such finding. Did you mean SPK206? All: sparkshark explain"),
    ("explain SPK206 a b", "b: one argument too many. All options: sparkshark explain --help"),
    ("simulate", "simulate: which SCENARIO? All: sparkshark simulate --list"),
    (
        "simulate helthy -o x.pcap",
        "helthy: no such scenario. Did you mean healthy? All: sparkshark simulate --list",
    ),
    ("simulate healthy", "simulate: where to? Try: sparkshark simulate healthy -o healthy.pcap"),
    (
        "simulate healthy -o missing/x.pcap",
        "missing/x.pcap: the folder missing does not exist. Make it first: mkdir -p missing",
    ),
    (
        "simulate healthy -o seed.pcap",
        "seed.pcap: exists already. Nothing was written. Try: another name, or --force",
    ),
    ("simulate healthy --seed x -o x.pcap", "--seed x: a whole number is wanted."),
)


@pytest.mark.parametrize(("words", "line"), MISTAKES, ids=[words[:40] for words, _ in MISTAKES])
def test_a_mistake_is_one_line_that_says_what_to_do(words: str, line: str, desk: Path) -> None:
    complains(desk, words.split(), line)
    assert sorted(path.name for path in desk.iterdir()) == [
        "core.der",
        "empty.pcap",
        "folder",
        "notes.txt",
        "odd.pcap",
        "papers",
        "report.html",
        "seed.pcap",
    ]
    assert (desk / "report.html").read_text() == "precious"


def test_no_arguments_show_the_top_page_and_fail() -> None:
    run = sparkshark()
    assert (run.returncode, run.stdout) == (2, b"")
    page = run.stderr.decode()
    assert page.startswith("Says why a Spark Core or Photon does not connect")
    assert all(name in page for name in COMMANDS)
    assert sparkshark("--help").stdout.decode() == page
    assert max(map(len, page.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_page_of_help(name: str) -> None:
    run = sparkshark(name, "--help", env={"COLUMNS": "80"})
    page = run.stdout.decode()
    assert (run.returncode, run.stderr) == (0, b"")
    assert page.startswith("usage: sparkshark " + name)
    assert max(map(len, page.splitlines())) <= 80


def test_help_can_be_asked_for_in_three_ways() -> None:
    pages = {sparkshark(*words).stdout for words in (["follow", "--help"], ["follow", "-h"], ["help", "follow"])}
    assert len(pages) == 1


def test_the_version_is_one_line() -> None:
    run = sparkshark("--version")
    assert re.fullmatch(rb"sparkshark \d+\.\d+\.\S+\n", run.stdout)
    assert run.returncode == 0


def test_choices_offered_are_those_that_exist() -> None:
    assert set(FIRMWARES) == set(SIMULATED_FIRMWARES)
    for link in LINKS:
        assert simulate("port-blocked", link=link).packets
    for server in SERVERS:
        assert simulate("port-blocked", firmware="core-0.5", server=server).packets


# -- captures that are damaged, small or of something else are answered ------------------------------------------------


def test_a_cut_file_is_analysed_up_to_the_cut(desk: Path) -> None:
    whole = MISMATCH.read_bytes()
    (desk / "cut.pcap").write_bytes(whole[:-34])
    run = sparkshark("analyze", "cut.pcap", cwd=desk)
    assert run.returncode == 0
    assert re.fullmatch(
        r"sparkshark: warning: cut\.pcap: ends inside packet 43, at byte 5,100; packets 1–42 are analysed\.\n",
        run.stderr.decode(),
    )
    assert "NOT CONNECTING" in run.stdout.decode()


def test_a_truncated_gzip_is_analysed_as_far_as_it_goes(desk: Path) -> None:
    (desk / "seed.pcap.gz").write_bytes(gzip.compress(MISMATCH.read_bytes(), mtime=0)[:3000])
    run = sparkshark("analyze", "seed.pcap.gz", cwd=desk)
    assert run.returncode == 0
    assert re.fullmatch(
        r"sparkshark: warning: seed\.pcap\.gz: the gzip data ends early, after [\d,]+ bytes unpacked; analysed up to"
        r" there\.\n",
        run.stderr.decode(),
    )
    assert "NOT CONNECTING" in run.stdout.decode()


def test_a_capture_without_packets_is_an_answer(desk: Path) -> None:
    (desk / "header.pcap").write_bytes(MISMATCH.read_bytes()[:24])
    run = sparkshark("analyze", "header.pcap", cwd=desk)
    assert (run.returncode, run.stderr) == (0, b"")
    assert "The capture holds no packet: only its header has been written." in run.stdout.decode()


def test_no_spark_traffic_is_an_answer_that_names_ports_which_look_like_it(desk: Path) -> None:
    (desk / "web.pcap").write_bytes(simulate("no-spark").capture())
    (desk / "other.pcap").write_bytes(simulate("other-port").capture())
    nothing = sparkshark("analyze", "web.pcap", cwd=desk)
    assert nothing.returncode == 0
    assert "? NO SPARK TRAFFIC" in nothing.stdout.decode()
    assert "looks like Spark" not in nothing.stdout.decode()
    elsewhere = sparkshark("analyze", "other.pcap", cwd=desk)
    assert elsewhere.returncode == 0
    text = elsewhere.stdout.decode()
    assert "TCP port 8000 carries\ntraffic that looks like Spark." in text
    assert "sparkshark analyze FILE --port 8000" in text
    assert "✓ WORKING" in sparkshark("analyze", "other.pcap", "--port", "8000", cwd=desk).stdout.decode()


def test_some_packets_of_an_unknown_link_type_are_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    trace = Trace([], [], None, frozenset(), packets=5, unknown_links={147: 2})  # type: ignore[arg-type]
    common.refuse_unknown_links(trace, "some.pcapng")
    assert capsys.readouterr().err == (
        "sparkshark: warning: some.pcapng: link type 147 (private use) is not known; 2 packets left out.\n"
    )


def test_standard_input_is_read_like_a_file() -> None:
    run = sparkshark("analyze", "-", stdin=MISMATCH.read_bytes())
    assert run.returncode == 0
    lines = run.stdout.decode().splitlines()
    assert lines[0].endswith("standard input")
    assert lines[1:] == sparkshark("analyze", str(MISMATCH)).stdout.decode().splitlines()[1:]


# -- exit status --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capture", "level", "status", "count"),
    [
        ("key-mismatch-retries", "never", 0, 0),
        ("key-mismatch-retries", "critical", 1, 2),
        ("keepalive-lost", "critical", 0, 0),
        ("keepalive-lost", "major", 1, 1),
        ("healthy-full", "minor", 0, 0),
    ],
)
def test_fail_on_is_told_by_the_status(capture: str, level: str, status: int, count: int) -> None:
    run = sparkshark("analyze", "--fail-on", level, f"captures/{capture}.pcap")
    assert run.returncode == status
    assert run.stdout
    told = f"sparkshark: {count} finding{'s' * (count != 1)} at or above {level} (--fail-on).\n" if count else ""
    assert run.stderr.decode() == told


def test_a_fault_of_our_own_is_one_line_and_status_70(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def break_down(*_: object, **__: object) -> str:
        raise ZeroDivisionError("the devil in the details")

    monkeypatch.setattr("analyzer.report.text.text_report", break_down)
    monkeypatch.delenv("SPARKSHARK_DEBUG", raising=False)
    assert main(["analyze", str(HEALTHY)]) == 70
    output = capsys.readouterr()
    assert output.out == ""
    assert re.fullmatch(
        r"sparkshark: internal error: ZeroDivisionError in analyzer/commands/analyze\.py:\d+\. sparkshark \S+, Python"
        r" \S+ on \w+\. Report this line\. To see where it arose: SPARKSHARK_DEBUG=1\n",
        output.err,
    )
    monkeypatch.setenv("SPARKSHARK_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["analyze", str(HEALTHY)])


def test_ctrl_c_ends_quietly_with_130() -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "analyzer", "analyze", "-"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(HEALTHY.read_bytes())
    process.stdin.flush()
    time.sleep(1)  # until it waits for more
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_a_reader_that_goes_away_is_no_error(desk: Path) -> None:
    for words in (["analyze", "--format", "json", str(HEALTHY)], ["explain"], ["analyze", "--help"]):
        read, write = os.pipe()
        os.close(read)
        run = subprocess.run(
            [sys.executable, "-P", "-m", "analyzer", *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=write,
            stderr=subprocess.PIPE,
            check=False,
        )
        os.close(write)
        assert (run.returncode, run.stderr) == (0, b"")


def test_closed_streams_do_no_harm(desk: Path) -> None:
    for closed, status in ((">&-", 0), ("2>&-", 0), ("<&-", 0)):
        run = subprocess.run(
            ["/bin/sh", "-c", f'exec "$0" -P -m analyzer analyze "$1" {closed}', sys.executable, str(HEALTHY)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=False,
        )
        assert run.returncode == status, closed
        assert b"Traceback" not in run.stderr


# -- output files -------------------------------------------------------------------------------------------------


def test_an_output_file_is_whole_or_not_there(desk: Path) -> None:
    run = sparkshark("analyze", "seed.pcap", "-o", "verdict.txt", cwd=desk)
    assert (run.returncode, run.stdout) == (0, b"")
    assert (desk / "verdict.txt").read_text(encoding="utf-8").startswith("✕ NOT CONNECTING")
    again = sparkshark("analyze", "seed.pcap", "-o", "verdict.txt", "--quiet", "--force", cwd=desk)
    assert again.returncode == 0
    assert len((desk / "verdict.txt").read_text(encoding="utf-8").splitlines()) < 8


def test_a_failure_leaves_no_half_file_and_keeps_the_old_one(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(desk.iterdir())

    def fail() -> None:
        with common.output(str(desk / "report.html"), force=True) as stream:
            stream.write("half of it")
            stream.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert sorted(desk.iterdir()) == before
    assert (desk / "report.html").read_text() == "precious"


@pytest.mark.parametrize("buffered", [True, False])
def test_a_full_disk_is_one_line(desk: Path, buffered: bool) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "" if buffered else "1"}
    with open("/dev/full", "wb") as full:
        run = subprocess.run(
            [sys.executable, "-P", "-m", "analyzer", "analyze", str(HEALTHY)],
            cwd=ROOT,
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert run.returncode == 2
    assert run.stderr == b"sparkshark: standard output: no space left on device. Nothing more was done.\n"


# -- names of files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [b"caf\xe9.pcap", b"bold\x1b[1m.pcap", b"two\nlines.pcap", "zurück\u202egnp.pcap".encode(), b"n" * 240 + b".pcap"],
    ids=["not UTF-8", "escape", "newline", "right to left", "long"],
)
def test_odd_names_are_shown_escaped(name: bytes, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/" + name
    shutil.copy(os.fsencode(HEALTHY), path)
    run = sparkshark("analyze", name, cwd=tmp_path)
    assert (run.returncode, run.stderr) == (0, b"")
    first = run.stdout.decode().splitlines()[0]
    assert len(first) == 80
    assert first.isprintable()
    as_json = sparkshark("analyze", "--format", "json", name, cwd=tmp_path)
    assert json.loads(as_json.stdout)["captures"][0]["path"].encode("utf-8", "surrogateescape") == name
    redacted = sparkshark("analyze", "--format", "json", "--redact", name, cwd=tmp_path)
    assert redacted.returncode == 0
    os.unlink(path)
    os.mkdir(path)
    complaint = sparkshark("analyze", name, cwd=tmp_path)
    assert complaint.returncode == 2
    assert complaint.stderr.count(b"\n") == 1
    assert complaint.stderr.decode().rstrip("\n").isprintable()


# -- terminals and locales ------------------------------------------------------------------------------------------


def on_a_terminal(*words: str, env: dict[str, str] | None = None, columns: int = 80) -> tuple[int, str]:
    """Run the command with standard output on a terminal of its own."""
    settings = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "LC_ALL", "LC_CTYPE", "LANG", "COLUMNS")}
    settings |= {"PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "TERM": "xterm", **(env or {})}
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "analyzer", *words],
        cwd=ROOT,
        env=settings,
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    written = b""
    try:
        while piece := os.read(master, 65536):
            written += piece
    except OSError:  # Linux ends a terminal whose other side is closed like this
        pass
    os.close(master)
    return process.wait(20), written.decode().replace("\r\n", "\n")


def test_colour_on_a_terminal_only_and_nothing_else_changes() -> None:
    piped = sparkshark("analyze", str(MISMATCH)).stdout.decode()
    assert "\x1b" not in piped
    status, coloured = on_a_terminal("analyze", str(MISMATCH))
    assert status == 0
    assert "\x1b[31m✕\x1b[0m \x1b[1mNOT CONNECTING\x1b[0m" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == piped


def test_colour_is_for_marks_and_arrows_so_that_words_are_readable_on_any_background() -> None:
    for locale in ("C.UTF-8", "C"):
        _, coloured = on_a_terminal("analyze", str(MISMATCH), env={"LC_ALL": locale})
        painted = re.findall(r"\x1b\[3\dm(.*?)\x1b\[0m", coloured)
        assert len(painted) > 10
        assert not [text for text in painted if re.search(r"[a-wyz]", text)]
        assert "\x1b[9" not in coloured  # bright black is the background itself in some themes


@pytest.mark.parametrize(
    ("columns", "width"), [(30, 40), (40, 40), (63, 63), (80, 80), (100, 100), (119, 119), (300, 120)]
)
def test_a_report_is_as_wide_as_the_terminal_within_reason(columns: int, width: int) -> None:
    _, shown = on_a_terminal("analyze", str(MISMATCH), columns=columns)
    assert max(map(len, re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines())) == width


@pytest.mark.parametrize(
    ("words", "env", "width"),
    [
        ([], {}, 80),
        ([], {"COLUMNS": "100"}, 100),
        ([], {"COLUMNS": "5"}, 40),
        ([], {"COLUMNS": "0"}, 80),
        ([], {"COLUMNS": "wide"}, 80),
        ([], {"COLUMNS": "9" * 5000}, 80),
        (["--width", "60"], {"COLUMNS": "100"}, 60),
        (["--width", "140"], {}, 140),
    ],
)
def test_off_a_terminal_the_width_is_80_unless_the_user_says_otherwise(
    words: list[str], env: dict[str, str], width: int
) -> None:
    report = sparkshark("analyze", *words, str(MISMATCH), env=env).stdout.decode()
    assert max(map(len, report.splitlines())) == width


def test_a_file_is_80_wide_whatever_the_screen(desk: Path) -> None:
    sparkshark("analyze", "seed.pcap", "-o", "verdict.txt", cwd=desk, env={"COLUMNS": "120"})
    assert max(map(len, (desk / "verdict.txt").read_text(encoding="utf-8").splitlines())) == 80


@pytest.mark.parametrize(
    ("words", "env"),
    [(["--no-color"], {}), ([], {"NO_COLOR": "1"}), ([], {"TERM": "dumb"})],
    ids=["--no-color", "NO_COLOR", "dumb"],
)
def test_colour_can_be_switched_off(words: list[str], env: dict[str, str]) -> None:
    plain = on_a_terminal("analyze", *words, str(MISMATCH), env=env)
    assert plain == (0, sparkshark("analyze", str(MISMATCH)).stdout.decode())


def test_a_keyboard_is_no_capture() -> None:
    status, line = on_a_terminal("analyze", "-")
    assert status == 2
    assert line == (
        'sparkshark: "-" reads a capture from a pipe, but nothing is piped. Try: tcpdump -U -w - port 5683 |'
        " sparkshark analyze -\n"
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["redact", "-", "posted.pcapng"],
            '"-" reads a capture from a pipe, but nothing is piped. Name a file instead.',
        ),
        (["redact", str(MISMATCH), "-"], "-: a capture would upset a terminal. Try: the name of a file, or a pipe"),
        (["analyze", str(MISMATCH), "--format", "html"], "--format html: it makes a page for a browser. Say where: -o"),
        (["watch", "-"], '"-" reads a capture from a pipe, but nothing is piped. Try: tcpdump -U -w - port 5683 |'),
    ],
    ids=["redact from", "redact to", "page", "watch"],
)
def test_what_needs_a_pipe_says_so_on_a_terminal(words: list[str], line: str) -> None:
    status, told = on_a_terminal(*words)
    assert status == 2
    assert told.startswith(f"sparkshark: {line}")


def test_raw_bytes_do_not_go_to_a_terminal() -> None:
    status, line = on_a_terminal("follow", str(MISMATCH), "1", "--raw")
    assert status == 2
    assert line == "sparkshark: --raw: these bytes would upset a terminal. Try: -o FILE, or a pipe\n"


@pytest.mark.parametrize(
    "env",
    [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "latin-1"}],
    ids=["C", "latin-1"],
)
def test_where_the_screen_takes_ascii_all_is_ascii(env: dict[str, str]) -> None:
    for words in (
        ["analyze", str(MISMATCH)],
        ["analyze", "--format", "markdown", str(MISMATCH)],
        ["analyze", "--redact", str(MISMATCH)],
        ["explain", "SPK206"],
        ["follow", str(MISMATCH), "1"],
        ["analyze", "--conversation", "9", str(MISMATCH)],
    ):
        run = sparkshark(*words, env=env)
        assert run.stdout.isascii(), words
        assert run.stderr.isascii(), words
        assert b"\\u" not in run.stdout + run.stderr, words
        assert run.returncode == (2 if "9" in words else 0)
        if words[:2] == ["analyze", str(MISMATCH)]:
            assert run.stdout.startswith(b"x NOT CONNECTING")


def test_style_is_what_the_stream_can_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["sparkshark"])
    style = common.style_of(cli.Parser().parse_args([]), sys.stdout)
    assert style == Style(colour=False, unicode=style.unicode, quiet=False)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["watch", "-", "--duration", "soon"], "--duration soon: seconds are wanted, such as 60."),
        (
            ["explain", "--wireshark", "CoAP", str(MISMATCH), "more.pcap"],
            "more.pcap: one argument too many beside --wireshark TEXT.",
        ),
    ],
    ids=["duration", "explain"],
)
def test_a_word_too_many_or_a_wrong_one_is_one_line(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert " ".join(capsys.readouterr().err.split()) == f"sparkshark: {line}"


def test_a_capture_without_a_connection_has_none_to_follow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.pcap"
    simulate("announcements-only").write(path)
    assert main(["follow", str(path), "1"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert told.endswith(f": no connection on this port. Other port: --port N. Look: sparkshark analyze {path}")
