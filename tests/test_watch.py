"""``sparkshark watch`` as a user meets it: real pipes, real sockets, real signals, a real terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path

import pytest
from judging import judged
from screens import CAPTURES, ROOT, sparkshark

from analyzer.simulate import Simulation, simulate

MISMATCH = CAPTURES / "key-mismatch-retries.pcap"
HEALTHY = CAPTURES / "healthy-full.pcap"
LONG = 30
"""Seconds after which a test has failed."""


class Watch:
    """A running ``sparkshark watch`` whose lines are read as they come."""

    def __init__(self, *words: str, stdin: int = subprocess.PIPE, **options: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "analyzer", "watch", *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "NO_COLOR": "1"},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,  # type: ignore[call-overload]
        )
        self.seen = ""
        self.errors = ""

    def feed(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def until(self, text: str, *, errors: bool = False) -> None:
        """Wait until it has written this."""
        end = time.monotonic() + LONG
        out, err = self.process.stdout, self.process.stderr
        assert out is not None
        assert err is not None
        while text not in (self.errors if errors else self.seen):
            ready, _, _ = select.select([out, err], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{text!r} did not come; {self.seen!r} {self.errors!r}"
            for stream in ready:
                piece = os.read(stream.fileno(), 65_536).decode()
                assert piece, f"ended before {text!r}: {self.seen!r} {self.errors!r}"
                if stream is out:
                    self.seen += piece
                else:
                    self.errors += piece

    def end(self, which: int | None = None) -> tuple[int, str, str]:
        """Send a signal, or close the pipe; return the status and all that was written."""
        if which is not None:
            self.process.send_signal(which)
            out, err = self._rest()
        else:
            out, err = self.process.communicate(timeout=LONG)
        return self.process.returncode, self.seen + out.decode(), self.errors + err.decode()

    def _rest(self) -> tuple[bytes, bytes]:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        out, err = self.process.stdout.read(), self.process.stderr.read()
        self.process.wait(LONG)
        return out, err


@contextlib.contextmanager
def watching(*words: str, **options: object) -> Iterator[Watch]:
    """Start it, and make sure that it ends."""
    watch = Watch(*words, **options)  # type: ignore[arg-type]
    try:
        yield watch
    finally:
        watch.process.kill()
        for stream in (watch.process.stdin, watch.process.stdout, watch.process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        watch.process.wait()


def records(capture: bytes) -> tuple[bytes, list[bytes]]:
    """The header of a pcap file, and its packets one by one."""
    found, place = [], 24
    while place < len(capture):
        (length,) = struct.unpack_from("<I", capture, place + 8)
        found.append(capture[place : place + 16 + length])
        place += 16 + length
    return capture[:24], found


def report_of(output: str) -> str:
    """The report, from its headline's state on, without the name in it."""
    lines = output.splitlines()
    start = max(n for n, line in enumerate(lines) if line[:2] in ("✕ ", "✓ ", "? ", "~ "))
    return "\n".join([lines[start].split("  ")[0], *lines[start + 1 :]])


def analyzed(*words: str, stdin: bytes | None = None) -> str:
    return report_of(sparkshark("analyze", *words, stdin=stdin).stdout.decode())


# -- a pipe ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["key-mismatch-retries", "healthy-full", "two-devices-background", "capture-gap"])
def test_the_last_thing_is_the_report_of_analyze(name: str) -> None:
    capture = (CAPTURES / f"{name}.pcap").read_bytes()
    run = sparkshark("watch", "-", stdin=capture)
    assert run.returncode == 0
    assert run.stderr == b"Watching standard input, TCP 5683. Ctrl-C ends with the verdict. Times are UTC.\n"
    assert report_of(run.stdout.decode()) == analyzed(str(CAPTURES / f"{name}.pcap"))


def test_a_slow_pipe_is_told_as_it_comes_and_a_silence_when_its_time_is_out_by_the_clock() -> None:
    header, packets = records(MISMATCH.read_bytes())
    with watching("-") as watch:
        watch.until("Watching standard input", errors=True)
        watch.feed(header + packets[0])
        watch.until("attempt 1: connecting to 54.208.229.4")
        for packet in packets[1:6]:
            watch.feed(packet)
            time.sleep(0.01)
        watch.feed(packets[6][:30])  # and a half
        watch.until("greeting, who I am")
        watch.feed(packets[6][30:] + b"".join(packets[7:9]))
        begun = time.monotonic()
        watch.until("reply")
        watch.until("SPK206")  # nothing more comes: it is the clock that says so
        assert time.monotonic() - begun >= 5
        status, out, _ = watch.end(signal.SIGINT)
    assert status == 0
    assert "✕ Likely: cannot use the server's reply        SPK206" in out
    report = report_of(out)
    assert report.startswith("✕ NOT CONNECTING")
    assert "How sure     Likely" in report
    assert re.search(r"Counted: nothing came for [56]\.[0-9] s after the last packet\.", report)


def test_a_pipe_that_ends_in_the_middle_of_a_packet_has_its_verdict() -> None:
    run = sparkshark("watch", "-", stdin=MISMATCH.read_bytes()[:4000])
    assert run.returncode == 0
    assert b"standard input: ends inside packet" in run.stderr
    assert "NOT CONNECTING" in run.stdout.decode()


def test_ctrl_c_and_a_request_to_end_give_the_report_of_what_came() -> None:
    header, packets = records(HEALTHY.read_bytes())
    for which in (signal.SIGINT, signal.SIGTERM):
        with watching("-", "--fail-on", "critical") as watch:
            watch.feed(header + b"".join(packets[:60]))
            watch.until("WORKING")
            time.sleep(0.3)
            status, out, _ = watch.end(which)
        assert status == 0
        assert report_of(out) == analyzed("-", stdin=header + b"".join(packets[:60]))


def test_a_second_ctrl_c_ends_at_once() -> None:
    with watching("-", "--format", "jsonl", "--messages", "--keys", str(CAPTURES / "keys")) as watch:
        watch.feed((CAPTURES / "ota-complete.pcap").read_bytes())
        assert watch.process.stdout is not None
        os.read(watch.process.stdout.fileno(), 1)
        time.sleep(1)  # nobody reads on: it is stuck in the middle of its output
        watch.process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert watch.process.poll() is None
        watch.process.send_signal(signal.SIGINT)
        assert watch.process.wait(LONG) == 130


def test_it_stops_by_itself_when_asked_to() -> None:
    capture = MISMATCH.read_bytes()
    run = sparkshark("watch", "-", "--count", "9", "--quiet", stdin=capture)
    assert "? CANNOT TELL" in run.stdout.decode()
    header, packets = records(capture)
    with watching("-", "--duration", "0.5", "--fail-on", "critical") as watch:
        watch.feed(header + b"".join(packets))
        watch.until("SPK207 SPK206 SPK401")
        status, _, err = watch.end()
    assert status == 1
    assert err.endswith("sparkshark: 2 findings at or above critical (--fail-on).\n")


def test_lines_of_json_for_programs() -> None:
    run = sparkshark("watch", "-", "--format", "jsonl", stdin=MISMATCH.read_bytes())
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.stderr == b""
    assert lines[0] == {"kind": "watching", "schema": 1, "what": "standard input", "ports": [5683]}
    kinds = [line["kind"] for line in lines]
    report = kinds.index("report")
    assert set(kinds[1:report]) == {"step", "verdict", "raised", "state"}
    assert kinds[report + 1 :] == [
        json.loads(line)["kind"]
        for line in sparkshark("analyze", str(MISMATCH), "--format", "jsonl").stdout.splitlines()
    ]
    certain = next(line for line in lines if line["kind"] == "verdict" and line["confidence"] == "certain")
    assert (certain["code"], certain["severity"], certain["attempt"], certain["packets"]) == (
        *("SPK207", "critical"),
        *(1, [12, 12]),
    )


def test_redacted_output_names_no_address() -> None:
    for form in ("text", "jsonl"):
        run = sparkshark("watch", "-", "--redact", "--format", form, stdin=MISMATCH.read_bytes())
        assert run.returncode == 0
        assert b"192.168" not in run.stdout
        assert b"Device A" in run.stdout


def test_quiet_is_verdicts_and_the_first_step() -> None:
    run = sparkshark("watch", "-", "--quiet", stdin=MISMATCH.read_bytes())
    out = run.stdout.decode()
    assert run.stderr == b""
    assert "attempt 1" not in out.split("standard input")[0]
    assert "SPK207" in out
    assert report_of(out) == analyzed(str(MISMATCH), "--quiet")


def test_analyze_reads_a_slow_pipe_as_it_comes() -> None:
    header, packets = records(MISMATCH.read_bytes())
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "analyzer", "analyze", "-"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(header)
    for packet in packets:
        process.stdin.write(packet)
        process.stdin.flush()
        time.sleep(0.005)
    out, _ = process.communicate(timeout=LONG)
    assert report_of(out.decode()) == analyzed(str(MISMATCH))


# -- keeping the packets --------------------------------------------------------------------------------------------


def test_the_report_is_that_of_the_packets_kept(tmp_path: Path) -> None:
    ring = tmp_path / "ring"
    run = sparkshark("watch", "-", "--ring", str(ring), "--ring-size", "1", stdin=HEALTHY.read_bytes())
    assert report_of(run.stdout.decode()) == analyzed(str(ring)) == analyzed(str(HEALTHY))
    assert os.stat(ring).st_mode & 0o777 == 0o700


def test_a_process_that_is_killed_leaves_what_it_has_seen(tmp_path: Path) -> None:
    header, packets = records(HEALTHY.read_bytes())
    with watching("-", "--ring", str(tmp_path)) as watch:
        watch.feed(header + b"".join(packets[:100]))
        watch.until("WORKING")
        time.sleep(0.5)
        watch.process.kill()
        watch.process.wait()
    assert analyzed(str(tmp_path)) == analyzed("-", stdin=header + b"".join(packets[:100]))


def test_a_full_disk_is_one_line_and_watching_goes_on(tmp_path: Path) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    with watching("-", "--ring", str(tmp_path), preexec_fn=small_files) as watch:
        watch.feed(HEALTHY.read_bytes())
        status, out, err = watch.end()
    assert status == 0
    assert err.count("packets are not kept any more (no space left on device); watching goes on.") == 1
    assert report_of(out) == analyzed(str(HEALTHY))
    assert "SPK001 SPK401 · 2" in sparkshark("analyze", str(tmp_path)).stdout.decode()  # what fitted is whole


# -- an interface ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def listening() -> Iterator[tuple[socket.socket, int]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server, server.getsockname()[1]


def test_real_connections_on_a_real_interface_are_watched_and_kept(tmp_path: Path) -> None:
    """A login that the device cannot finish, over the loopback interface, with the bytes of a simulated one."""
    told = simulate("key-mismatch", firmware="core-2014")
    nonce, identity, session = told_parts(told)
    with listening() as (server, port), watching("-i", "lo", "--port", str(port), "--ring", str(tmp_path)) as watch:
        watch.until("Watching lo, TCP", errors=True)
        begun = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(nonce)
                connection.recv(len(identity), socket.MSG_WAITALL)
                connection.sendall(session)
                begun.wait(LONG)

        thread = threading.Thread(target=serve)
        thread.start()
        with socket.create_connection(("127.0.0.1", port)) as device:
            device.recv(len(nonce), socket.MSG_WAITALL)
            device.sendall(identity)
            device.recv(len(session), socket.MSG_WAITALL)
            watch.until("reply")
        begun.set()
        thread.join()
        watch.until("NOT CONNECTING")
        status, out, err = watch.end(signal.SIGINT)
    assert status == 0
    assert "warning" not in err
    assert "SPK206" in out
    assert report_of(out) == analyzed(str(tmp_path), "--port", str(port))
    assert f"127.0.0.1 to 127.0.0.1:{port}" in out


def told_parts(told: Simulation) -> tuple[bytes, ...]:
    """The three messages of a simulated login."""
    conversation = judged(told).conversations[0]
    parts = [conversation.part(kind) for kind in ("nonce", "identity", "session")]
    return tuple(part.data for part in parts if part is not None and part.data is not None)


def test_who_may_not_capture_is_told_how() -> None:
    """Without the right to open raw sockets, even root may not."""
    run = subprocess.run(
        ["setpriv", "--bounding-set", "-net_raw", sys.executable, "-P", "-m", "analyzer", "watch", "-i", "lo"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        timeout=LONG,
    )
    assert run.stderr.decode() == (
        "sparkshark: lo: capturing needs administrator rights. Try: sudo sparkshark watch -i lo, or pipe: sudo tcpdump"
        " -U -w - port 5683 | sparkshark watch -\n"
    )
    assert (run.returncode, run.stdout) == (2, b"")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["-i", "lo0"], "lo0: no such interface. Did you mean lo? There are: "),
        ([], "watch: say what to watch: -i IFACE, or - for a capture on a pipe. There are: "),
        (["-", "-i", "lo"], "-i and - exclude each other; leave out one of them.\n"),
        (["seed.pcap"], "seed.pcap: watch takes what is still coming: -i IFACE, or - for a pipe. Try: sparkshark an"),
        (["-", "--messages"], "--messages: only keys open messages. Try: --keys PATH, or leave out --messages\n"),
        (["-", "--duration", "nan"], "--duration nan: seconds are wanted, such as 60.\n"),
        (["-", "--ring-size", "999999999"], "--ring-size 999999999: at most 100,000 (megabytes).\n"),
        (["-", "--ring", "/proc/nothing"], "/proc/nothing: packets cannot be kept here (no such file or directory). "),
        (["-"], "standard input: empty (0 bytes). "),
    ],
)
def test_mistakes_are_one_line(words: list[str], line: str) -> None:
    run = sparkshark("watch", *words)
    errors = [part for part in run.stderr.decode().splitlines(keepends=True) if not part.startswith("Watching ")]
    assert len(errors) == 1
    assert errors[0].startswith(f"sparkshark: {line}")
    assert (run.returncode, run.stdout) == (2, b"")


# -- a terminal -----------------------------------------------------------------------------------------------------


def test_on_a_terminal_the_last_lines_show_how_things_stand() -> None:
    header, packets = records(HEALTHY.read_bytes())
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 70, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "analyzer", "watch", "-"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "TERM": "xterm"},
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    assert process.stdin is not None
    process.stdin.write(header + b"".join(packets[:60]))
    process.stdin.flush()
    seen = ""
    end = time.monotonic() + LONG
    while "WORKING" not in seen or seen.count("\x1b[2A\x1b[J") < 2:  # drawn again although nothing comes
        assert select.select([ours], [], [], max(0.0, end - time.monotonic()))[0], seen
        seen += os.read(ours, 65_536).decode()
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):  # a terminal that nobody has open any more
        while piece := os.read(ours, 65_536):
            seen += piece.decode()
    process.stdin.close()
    assert process.wait(LONG) == 0
    os.close(ours)
    block, _, report = seen.rpartition("\x1b[J")
    assert "\x1b[32m✓ 192.168.1.104  WORKING " in block
    assert "60 packets" in block
    assert "Ctrl-C: the verdict" in block
    assert "Ctrl-C: the verdict" not in report
    assert "\x1b[1mWORKING" in report
    assert "✓ WORKING   " not in seen.partition("── ")[0]  # the block says it, so no line does
    assert all(len(line) < 90 for line in block.replace("\x1b", "\n").splitlines())
