"""The machine fails the command: killed, asked to end, no room, no right, no memory, nobody to talk to.

Here is one of each; `python -m tests.failures` tries every command and output against everything that can fail.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pytest
from failures.commands import BY_NAME, COMMANDS
from failures.desk import ROOT, Command, Desk, complaints, environment, files_in, others_left

from analyzer import analyze, cli
from analyzer.cli import main
from analyzer.fault import told
from analyzer.outfile import new_file
from analyzer.wireshark import profile
from analyzer.wireshark.install import Condition, Done

CAPTURE, KEYS = f"{ROOT}/captures/healthy-full.pcap", f"{ROOT}/captures/keys"
FOLLOW = Command("follow - -o", ("follow", "-", "1", "-o", "out/bytes"))
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A folder to run commands in, with the captures of the project."""
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for name, source in (("healthy.pcap", CAPTURE), ("update.pcap", f"{ROOT}/captures/ota-complete.pcap")):
        (inputs / name).symlink_to(source)
    (inputs / "keys").symlink_to(KEYS)
    return Desk(tmp_path / "desk", inputs)


def until(true: Callable[[], object], seconds: float = 30) -> None:
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds
        time.sleep(0.01)


def child(code: str, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run some lines in a process of their own."""
    command = [sys.executable, "-P", "-c", code, *words]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )


def one_line(err: str) -> str:
    [line] = err.splitlines()
    assert line.startswith("sparkshark: ")
    return line


# -- ended -----------------------------------------------------------------------------------------------------------


def half_written(desk: Desk) -> Iterator[subprocess.Popen[bytes]]:
    """Give a process that has begun to write and waits for more of its capture."""
    command = [sys.executable, "-P", "-m", "analyzer", *FOLLOW.words]
    with subprocess.Popen(
        command,
        cwd=desk.folder,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        until(lambda: files_in(desk.out))
        yield process


@pytest.mark.parametrize("which", ENDS, ids=lambda which: which.name)
def test_asked_to_end_it_takes_away_what_is_unfinished(which: signal.Signals, desk: Desk) -> None:
    for process in half_written(desk):
        process.send_signal(which)
        assert process.communicate(timeout=30) == (b"", b"")
        assert process.returncode == 128 + which
        assert files_in(desk.out) == {}


def test_what_is_ignored_from_the_start_stays_ignored(desk: Desk) -> None:
    done = desk.run(BY_NAME["--version"], line='trap "" HUP INT; exec "$@"')
    code = "import signal; print(signal.getsignal(1) == signal.getsignal(2) == signal.SIG_IGN)"
    script = f"import sys, analyzer.cli, analyzer.__main__ as m; analyzer.cli.main = lambda: exec({code!r}); m.main()"
    ignored = ["sh", "-c", 'trap "" HUP INT; exec "$@"', "sh", sys.executable, "-c", script]
    said = subprocess.run(ignored, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True).stdout
    assert (done.status, said) == (0, "True\n")


def test_killed_it_leaves_nothing_that_the_next_run_trips_over(desk: Desk) -> None:
    for process in half_written(desk):
        process.kill()
        process.communicate(timeout=30)
        [left] = files_in(desk.out)
        assert left == f"bytes.{process.pid}.part"
    run = desk.run(Command("follow -o", ("follow", "in/healthy.pcap", "1", "-o", "out/bytes")))
    assert (run.status, list(run.files), run.err) == (0, ["bytes"], "")


def test_what_a_killed_process_of_the_same_number_left_is_no_obstacle(tmp_path: Path) -> None:
    """In a container the number is the same each time."""
    path = tmp_path / "report"
    (tmp_path / f"report.{os.getpid()}.part").write_bytes(b"half")
    others = {f"report.{os.getpid()}.parts", "report.x.part", "other.7.part"}
    for name in others:
        (tmp_path / name).write_bytes(b"of somebody else")
    with new_file(path) as stream:
        stream.write(b"whole")
    assert path.read_bytes() == b"whole"
    assert set(files_in(tmp_path)) == {"report", *others}


def test_what_somebody_is_still_writing_is_left_alone(desk: Desk) -> None:
    for process in half_written(desk):
        with new_file(desk.out / "bytes") as stream:
            stream.write(b"mine")
        assert set(files_in(desk.out)) == {"bytes", f"bytes.{process.pid}.part"}
        process.communicate(Path(CAPTURE).read_bytes(), timeout=30)
        assert process.returncode == 0
        assert list(files_in(desk.out)) == ["bytes"]
        assert files_in(desk.out)["bytes"] != b"mine"


KILLED_DATASET = """
import os, sys
from analyzer.dataset import folder
rename = os.rename
def kill(*paths):
    rename(*paths)
    os.kill(os.getpid(), 9)
with folder.new_tables(sys.argv[1], force=True):
    os.rename = kill
"""


def test_tables_that_were_about_to_be_replaced_come_back(desk: Desk) -> None:
    parquet = BY_NAME["analyze --format parquet"]
    whole = desk.run(parquet)
    assert child(KILLED_DATASET, str(desk.out / "tables"), folder=ROOT).returncode == -9
    left = files_in(desk.out)
    assert any("old-conversations" in name for name in left)
    assert left.keys() != whole.files.keys()
    refused = desk.run(parquet)
    assert "is not empty" in one_line(refused.err)
    assert refused.files == whole.files
    assert desk.run(parquet, words=("--force",)).files == whole.files


def test_a_profile_that_was_half_written_is_finished(tmp_path: Path) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    profile.put(str(whole))
    names = sorted(path.name for path in whole.iterdir())
    half.mkdir()
    assert profile.look(str(half)) is Condition.MISSING
    for name in names[:2]:
        (half / name).write_bytes((whole / name).read_bytes())
    (half / "preferences.7.part").write_bytes(b"half")
    assert profile.put(str(half)) is Done.UPDATED
    assert profile.look(str(half)) is Condition.CURRENT
    (half / names[0]).write_text("changed by its owner")
    assert profile.look(str(half)) is Condition.CHANGED


def test_asked_to_end_while_it_is_loaded_it_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "difflib.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    command = [sys.executable, "-P", "-m", "analyzer", "--version"]
    run = subprocess.run(command, env=environment(PYTHONPATH=path), capture_output=True, timeout=30, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (-signal.SIGINT, b"", b"")


SWALLOWED = """
import os, signal, sys, time
import analyzer.cli
from analyzer.__main__ import main
class Cleaned:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
def command():
    try:
        Cleaned()
        time.sleep(60)
    except analyzer.cli.Asked as asked:
        return 128 + asked.number
analyzer.cli.main = command
sys.exit(main())
"""


def test_a_request_to_end_is_not_lost_where_python_drops_exceptions(tmp_path: Path) -> None:
    done = child(SWALLOWED, folder=ROOT)
    assert (done.returncode, done.stderr) == (130, "")


WORKING = """
import sys, time
from analyzer.jobs.workers import workers
import analyzer.cli
from analyzer.__main__ import main
def command():
    with workers(3) as pool:
        pool.submit(time.sleep, 60)
        pool.submit(time.sleep, 0).result()
        print("begun", flush=True)
        time.sleep(60)
analyzer.cli.main = command
sys.exit(main())
"""


@pytest.mark.parametrize("which", [signal.SIGKILL, signal.SIGTERM], ids=lambda which: which.name)
def test_workers_end_with_the_process_that_wants_their_work(which: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WORKING],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(which)
        process.wait(timeout=30)
    assert not others_left(process.pid)


INTERRUPTED = """
import os, struct, sys, time
from analyzer.jobs.workers import workers
def half_a_result():
    frame = sys._getframe()
    while "result_queue" not in frame.f_locals:
        frame = frame.f_back
    os.write(frame.f_locals["result_queue"]._writer.fileno(), struct.pack("!i", 1000) + b"half")
    time.sleep(60)
try:
    with workers(1) as pool:
        pool.submit(half_a_result)
        time.sleep(0.5)
        raise ValueError
except ValueError:
    sys.exit(7)
"""


def test_half_a_result_of_a_worker_is_not_waited_for() -> None:
    assert child(INTERRUPTED, folder=ROOT).returncode == 7


# -- no room, no right, no memory ------------------------------------------------------------------------------------


def test_a_simulation_that_finds_no_room_leaves_nothing(desk: Desk) -> None:
    run = desk.run(BY_NAME["simulate"], before=("prlimit", "--fsize=3000"))
    assert (run.status, run.files) == (2, {})
    assert "file too large" in one_line(run.err)


@pytest.mark.parametrize("name", ["analyze --format html -o", "decrypt -w", "redact"])
def test_output_that_finds_no_room_leaves_nothing(name: str, desk: Desk) -> None:
    run = desk.run(BY_NAME[name], before=("prlimit", "--fsize=4096"))
    assert (run.status, run.files) == (2, {})
    assert "file too large" in one_line(run.err)


LIMITED = """
import resource, sys
from analyzer.cli import main
from analyzer.jobs import plan
{before}
resource.setrlimit(resource.{limit}, (int({value}), int({value})))
sys.exit(main(sys.argv[1:]))
"""


def limited(limit: str, value: str, *words: str, before: str = "") -> subprocess.CompletedProcess[str]:
    return child(LIMITED.format(limit=limit, value=value, before=before), *words, folder=ROOT)


def test_too_little_memory_is_one_line() -> None:
    now = "open('/proc/self/statm').read().split()[0]"
    run = limited("RLIMIT_AS", f"int({now}) * resource.getpagesize() + (1 << 20)", "decrypt", CAPTURE, "--keys", KEYS)
    assert run.returncode == 2
    assert "memory" in one_line(run.stderr)


def test_too_few_open_files_is_one_line_that_names_the_limit() -> None:
    run = limited("RLIMIT_NOFILE", "3", "decrypt", CAPTURE, "--keys", KEYS)
    assert run.returncode == 2
    assert "ulimit -n" in one_line(run.stderr)


def test_where_no_process_can_be_started_one_does_the_work_and_says_so() -> None:
    words = ("analyze", CAPTURE, "--jobs", "4")
    run = limited("RLIMIT_NOFILE", "10", *words, before="plan.SMALL = 0")
    assert "WORKING" in run.stdout
    assert "no process can be started to work along (too many open files)" in one_line(run.stderr)
    assert run.returncode == 0


def test_no_room_for_what_is_read_twice_names_the_folder(desk: Desk) -> None:
    command = BY_NAME["follow --redact"]
    run = desk.run(command, before=("prlimit", "--fsize=1000"), env={"TMPDIR": str(desk.home)})
    assert run.status == 2
    assert one_line(run.err) == f"sparkshark: {desk.home}: file too large. Nothing more was done."
    code = "import tempfile as t, sys; t._candidate_tempdir_list = lambda: ['/proc']; import analyzer.cli as c;"
    done = child(f"{code} sys.exit(c.main(sys.argv[1:]))", "redact", CAPTURE, str(desk.out / "x"), folder=ROOT)
    assert done.returncode == 2
    assert "TMPDIR=" in one_line(done.stderr)
    assert files_in(desk.out) == {}


def test_standard_error_without_room_changes_no_status(desk: Desk) -> None:
    run = desk.run(Command("wrong", ("analyze", "nowhere.pcap")), line='"$@" 2>/dev/full')
    assert (run.status, run.out, run.err) == (2, b"", "")


@pytest.mark.parametrize("library", ["dpkt", "cryptography"])
def test_a_library_that_cannot_be_loaded_is_one_line(library: str, desk: Desk, tmp_path: Path) -> None:
    text = f"raise ImportError('lib{library}.so: cannot open shared object file', name='{library}')"
    (tmp_path / f"{library}.py").write_text(text)
    (desk.folder / "in" / "two.pcap").symlink_to(f"{ROOT}/captures/two-devices-background.pcap")
    command = Command("analyze", ("analyze", "in/two.pcap"))
    run = desk.run(command, env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"})
    assert run.status == 2
    assert f"{library}: cannot be loaded" in one_line(run.err)


# -- reading ---------------------------------------------------------------------------------------------------------


class Breaking(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """Storage whose connection breaks in the middle of a file, with an error of its own kind."""

    protocol = "breaking"

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return {"name": path, "size": os.path.getsize(CAPTURE), "type": "file"}

    def _open(self, path: str, *_: Any, **__: Any) -> Any:
        stream = open(CAPTURE, "rb")  # noqa: SIM115 - whoever has asked for it closes it
        whole = stream.read

        def read(size: int = -1) -> bytes:
            if stream.tell():
                raise RuntimeError("the connection is gone")
            return whole(5000)

        stream = _Stream(stream, read)  # type: ignore[assignment]
        return stream


class _Stream:
    def __init__(self, stream: Any, read: Callable[..., bytes]) -> None:
        self._stream, self.read = stream, read

    def __getattr__(self, name: str) -> Any:
        if name in ("read1", "readinto1"):
            raise AttributeError(name)
        return getattr(self._stream, name)


def test_remote_storage_that_fails_in_mid_file_ends_the_file_there() -> None:
    fsspec.register_implementation("breaking", Breaking, clobber=True)
    trace = analyze("breaking://bucket/healthy.pcap")
    assert 0 < trace.packets < 131
    assert any("cannot be read any further (the connection is gone)" in text for text in trace.warnings)


def test_what_is_wrong_with_standard_input_is_told_of_that(desk: Desk) -> None:
    for words in (("redact", "-", "out/posted.pcapng"), ("follow", "-", "1", "--redact")):
        run = desk.run(Command("empty", words))
        assert (run.status, run.files) == (2, {})
        assert one_line(run.err).startswith("sparkshark: standard input: empty (0 bytes)")


# -- nobody there ----------------------------------------------------------------------------------------------------

STDOUT = ("analyze", "decrypt", "keys", "explain", "simulate", "completion man", "watch -")


@pytest.mark.parametrize("name", STDOUT)
def test_no_stream_at_all_is_no_accident(name: str, desk: Desk) -> None:
    command = BY_NAME[name]
    run = desk.run(command, line='"$@" 0<&- 1>&- 2>&-' if command.stdin is None else '"$@" 1>&- 2>&-')
    assert (run.status, run.out, run.err, run.left) == (0, b"", "", [])


@pytest.mark.parametrize("options", [("-O",), ("-X", "dev", "-W", "error")], ids=" ".join)
def test_python_with_other_options_says_no_more(options: Sequence[str], desk: Desk) -> None:
    for name in ("analyze -o", "decrypt -w", "redact - -"):
        whole = Desk(desk.folder, desk.inputs).run(BY_NAME[name])
        run = Desk(desk.folder, desk.inputs).run(BY_NAME[name], options=options)
        assert complaints(run, whole, statuses=(0,), lines=0) == []
        assert run.files == whole.files


# -- faults of our own -----------------------------------------------------------------------------------------------


def test_a_fault_names_the_packet_and_the_line_and_nothing_of_the_capture(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def break_down(*_: object) -> None:
        raise ValueError("b'a secret of the peer'")

    monkeypatch.setattr("analyzer.conversation.Conversation.settle", break_down)
    assert main(["analyze", CAPTURE]) == 70
    line = one_line(capsys.readouterr().err)
    assert "internal error: ValueError in analyzer/pipeline.py:" in line
    assert "secret" not in line
    monkeypatch.setattr("analyzer.pipeline.Decoder.decode", break_down)
    assert main(["analyze", CAPTURE, f"{ROOT}/captures/capture-gap.pcap"]) == 70
    line = one_line(capsys.readouterr().err)
    assert "near packet 1, file 1 of 2, " in line
    assert "healthy" not in line


def test_a_fault_in_a_rule_names_the_connection(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("analyzer.rules.withdraw", lambda *_: 1 // 0)
    assert main(["analyze", CAPTURE]) == 70
    assert "near connection 1, packets 1 to 131. " in one_line(capsys.readouterr().err)


def test_a_fault_in_another_process_names_the_line_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analyzer.jobs.plan.SMALL", 0)
    monkeypatch.setattr("analyzer.jobs.shares.feed", lambda *_, **__: 1 // 0)
    with pytest.raises(ZeroDivisionError) as caught:
        analyze(CAPTURE, jobs=2)
    assert told(caught.value).startswith("ZeroDivisionError in analyzer/jobs/shares.py:")


def test_what_was_found_in_a_redacted_capture_is_not_told_with_the_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = ["packet 3: c0a80168", "packet 3: 192.168.1.104", "packet 7: aunt-mary"]
    monkeypatch.setattr(importlib.import_module("analyzer.redaction.redact"), "leaks", lambda *_: iter(found))
    assert main(["redact", CAPTURE, str(tmp_path / "posted.pcapng")]) == 70
    line = one_line(capsys.readouterr().err)
    assert "(packet 3 and packet 7)" in line
    assert not any(word in line for word in ("c0a8", "192.168", "mary"))
    assert files_in(tmp_path) == {}


def test_every_command_is_tried_by_the_campaign() -> None:
    assert {command.words[0] for command in COMMANDS if not command.words[0].startswith("-")} == set(cli.COMMANDS)
