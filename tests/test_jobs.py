"""However many work on a capture, the result is the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from canaries import contents, leaks
from capture_files import START, pcap, pcapng
from distributed import Client, LocalCluster, Security
from planted import Planted
from test_sieve import ethernet, mixture, tcp, udp

from analyzer import pipeline
from analyzer.capture import CaptureError
from analyzer.jobs import analyze, plan
from analyzer.jobs.cluster import LOCAL, cluster
from analyzer.jobs.cluster import on_cluster as run_on_cluster
from analyzer.jobs.plan import Plan
from analyzer.jobs.sealed import Envelope
from analyzer.keys import KeyRing
from analyzer.part import Part
from analyzer.report.jsonreport import json_text
from analyzer.simulate import simulate
from analyzer.trace import Trace

CAPTURES = sorted(Path("captures").glob("*.pcap*"))
KEYS = Path("captures/keys")
ROOT = Path(__file__).resolve().parents[1]
SAID = "background", "two-devices", "port-reuse", "old-session-key", "blocked-icmp", "other-port", "gap-in-handshake"


class Here(Executor):
    """Does all work at once and in this process, so that a test can do it a hundred times."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture(params=[Plan.SHARES, Plan.RANGES], ids=["shares", "ranges"])
def divided(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Have the smallest captures divided, too, in the one way and in the other."""
    divide(monkeypatch, request.param)
    how: Plan = request.param
    return how


def divide(monkeypatch: pytest.MonkeyPatch, how: Plan) -> None:
    monkeypatch.setattr(plan, "SMALL", 0)
    monkeypatch.setattr(plan, "SMALL_AND_SPARSE", 0)
    monkeypatch.setattr(plan, "DENSE", 0.0 if how is Plan.SHARES else 2.0)


def known(trace: Trace) -> list[Any]:
    """Everything that an analysis found."""
    around = {name: value for name, value in vars(trace.background).items() if name not in ("_sieve", "_flows")}
    counted = [trace.packets, trace.spark_packets, trace.first_ns, trace.last_ns, trace.link_types, trace.unknown_links]
    return [around, counted, trace.offloaded, trace.warnings, "".join(json_text(trace))]


@pytest.mark.usefixtures("divided")
@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_a_shipped_capture_gives_the_same(path: Path) -> None:
    keys = KeyRing.load(KEYS)
    alone = known(pipeline.analyze(path, keys=keys))
    assert known(analyze(path, keys=keys, jobs=3, executor=Here())) == alone


@pytest.mark.usefixtures("divided")
@pytest.mark.parametrize("story", SAID)
def test_a_story_gives_the_same(story: str, tmp_path: Path) -> None:
    path = tmp_path / "story.pcap"
    simulate(story).write(path)
    assert known(analyze(path, jobs=4, executor=Here())) == known(pipeline.analyze(path))


def chatter(chance: random.Random, count: int) -> list[bytes]:
    """Packets of few connections that are opened and used again, with payloads that begin to look like ours."""
    payloads = [b"", b"", bytes(6), bytes(40), bytes(256), b"\x00\x10" + bytes(16), b"\x00\x20" + bytes(32)]
    frames = []
    for _ in range(count):
        near = bytes((192, 168, 1, chance.randrange(4))), chance.choice((40000, 40001, 40002))
        far = bytes((198, 51, 100, chance.randrange(3))), chance.choice((80, 443, 443, 5683, 9999, 53))
        (source, source_port), (target, target_port) = (near, far)[:: chance.choice((1, -1))]
        payload = chance.choice([*payloads, chance.randbytes(30), chance.randbytes(chance.choice((300, 900)))])
        if chance.random() < 0.85:
            flags = chance.choice((0x10, 0x10, 0x10, 0x18, 0x18, 0x11, 0x04, 0x02, 0x12))
            protocol, body = 6, tcp(source_port, target_port, payload, flags=flags)
        else:
            protocol, body = 17, udp(source_port, target_port, payload)
        header = bytes((0x45, 0)) + (20 + len(body)).to_bytes(2) + bytes((0, 1, 0, 0, 64, protocol, 0, 0))
        frames.append(ethernet(header + source + target + body))
    return frames


def odd_packets(seed: int, count: int) -> list[bytes]:
    """Such packets, or a mixture of all shapes."""
    chance = random.Random(seed)
    return mixture(chance, count, ethernet) if seed % 2 else chatter(chance, count)


@pytest.mark.usefixtures("divided")
@pytest.mark.parametrize("seed", range(40))
def test_odd_packets_in_several_files_give_the_same(seed: int, tmp_path: Path) -> None:
    """Each file is gone through by somebody who has not seen those before it."""
    chance = random.Random(seed)
    frames = odd_packets(seed, chance.choice((60, 200, 600)))
    cuts = [0, *sorted(chance.sample(range(1, len(frames)), 3)), len(frames)]
    paths = []
    for number, (begin, end) in enumerate(pairwise(cuts)):
        paths.append(tmp_path / f"{number}")
        # One third overlap in time, so that they are merged packet by packet.
        writer = chance.choice((pcap, pcapng))
        paths[-1].write_bytes(writer(frames[begin:end], start=START + (begin if seed % 3 else 0)))
    assert known(analyze(paths, jobs=3, executor=Here())) == known(pipeline.analyze(paths))


@pytest.mark.parametrize("seed", range(40))
def test_ranges_of_one_file_give_the_same(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    divide(monkeypatch, Plan.RANGES)
    monkeypatch.setattr("analyzer.jobs.gothrough.SMALLEST_RANGE", 1000)
    chance = random.Random(seed)
    content = chance.choice((pcap, pcapng))(odd_packets(seed, 600))
    if seed % 3 == 0:  # damaged somewhere, which may be where a range begins
        at = chance.randrange(300, len(content))
        content = content[:at] + chance.randbytes(40) + content[at + chance.choice((40, 40, 0)) :]
    path = tmp_path / "capture"
    path.write_bytes(content[: len(content) - chance.choice((0, 0, 5, 300))])
    alone, together = pipeline.analyze(path), analyze(path, jobs=5, executor=Here())
    assert [vars_of(file) for file in together.captures] == [vars_of(file) for file in alone.captures]
    assert known(together) == known(alone)


@pytest.mark.usefixtures("divided")
def test_a_damaged_file_gives_the_same_account(tmp_path: Path) -> None:
    whole = Path("captures/lossy-link.pcap").read_bytes()
    paths = [tmp_path / "first.pcap", tmp_path / "second.pcap"]
    middle = len(whole) // 2
    paths[0].write_bytes(whole[:middle] + b"\xff" * 50 + whole[middle + 50 :])
    paths[1].write_bytes(whole[: middle + 7])
    alone = pipeline.analyze(paths)
    together = analyze(paths, jobs=2, executor=Here())
    assert len(alone.warnings) > 1
    assert [vars_of(file) for file in together.captures] == [vars_of(file) for file in alone.captures]
    assert known(together) == known(alone)


def vars_of(file: Any) -> dict[str, Any]:
    return {name: getattr(file, name) for name in file.__slots__}


@pytest.mark.usefixtures("divided")
def test_a_file_that_is_no_capture_is_said_and_the_others_are_analysed(tmp_path: Path) -> None:
    folder = tmp_path / "several"
    folder.mkdir()
    good, bad = folder / "good.pcap", folder / "bad.pcap"
    good.write_bytes(Path("captures/healthy-full.pcap").read_bytes())
    bad.write_text("no capture")
    assert known(analyze([bad, good], jobs=2, executor=Here())) == known(pipeline.analyze([bad, good]))
    with pytest.raises(CaptureError, match=r"bad\.pcap"):
        analyze([bad], jobs=2, executor=Here())


@pytest.mark.usefixtures("divided")
def test_real_processes_give_the_same() -> None:
    path = "captures/two-devices-background.pcap"
    keys = KeyRing.load(KEYS)
    assert known(analyze(path, keys=keys, jobs=2)) == known(pipeline.analyze(path, keys=keys))


class Dying(Executor):
    """Workers that the system kills with the work in hand."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        with ProcessPoolExecutor(1) as pool:
            future = pool.submit(os.kill, 0, 0)
            future.result()
            killed = pool.submit(os._exit, 9)
            assert isinstance(killed.exception(), BrokenProcessPool)
            return killed


@pytest.mark.usefixtures("divided")
def test_what_a_killed_worker_leaves_undone_is_done_all_the_same() -> None:
    path = "captures/key-mismatch-retries.pcap"
    assert known(analyze(path, jobs=2, executor=Dying())) == known(pipeline.analyze(path))


def test_ctrl_c_leaves_no_process_behind(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"""
import os, time
from analyzer.jobs.workers import workers
with workers(2) as pool:
    futures = [pool.submit(time.sleep, 60) for _ in range(2)]
    time.sleep(0.2)
    import multiprocessing
    open({str(pids)!r}, "w").write(" ".join(str(p.pid) for p in multiprocessing.active_children()))
    futures[0].result()
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.PIPE) as process:
        until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    for pid in pids.read_text().split():
        until(lambda pid=pid: not running(int(pid)))  # type: ignore[misc]


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds
        time.sleep(0.02)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_small_captures_and_pipes_need_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("analyzer.jobs.workers.ProcessPoolExecutor", refuse)
    analyze("captures/healthy-full.pcap", jobs=8)
    divide(monkeypatch, Plan.SHARES)
    with open("captures/healthy-full.pcap", "rb") as stream:
        assert analyze("-", stdin=stream, jobs=8).conversations


# -- a cluster -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A real scheduler with two worker processes."""
    with cluster(LOCAL, 2) as connected:
        yield connected


def on_cluster(client: Any, paths: list[Path], keys: KeyRing | None = None) -> Trace:
    files = {str(path): path.stat().st_size for path in paths}
    return run_on_cluster(client, files, keys=keys, ports=(5683,), expect_servers=(), progress=None)


@pytest.mark.parametrize("name", ["two-devices-background", "key-mismatch-retries", "ota-complete", "capture-gap"])
def test_a_cluster_gives_the_same(name: str, client: Any) -> None:
    path, keys = Path(f"captures/{name}.pcap"), KeyRing.load(KEYS)
    assert known(on_cluster(client, [path], keys)) == known(pipeline.analyze(path, keys=keys))


@pytest.mark.parametrize("seed", range(8))
def test_a_cluster_puts_several_files_together(seed: int, client: Any, tmp_path: Path) -> None:
    frames = odd_packets(seed, 300)
    paths = [tmp_path / "first", tmp_path / "second"]
    paths[0].write_bytes(pcap(frames[:140]))
    paths[1].write_bytes(pcapng(frames[140:], start=START + (140 if seed % 3 else 20)))
    assert known(on_cluster(client, paths)) == known(pipeline.analyze(paths))


def test_a_worker_that_is_killed_costs_its_work_and_not_the_run(tmp_path: Path) -> None:
    """One of two processes dies with work in hand; the scheduler starts another one and has it done again."""
    paths = []
    for number in range(12):
        paths.append(tmp_path / f"{number:02}" / "healthy.pcap")
        paths[-1].parent.mkdir()
        simulate("healthy", seed=number).write(paths[-1])
    killed: list[int] = []
    with cluster(LOCAL, 2) as client:
        before = set(client.run(os.getpid).values())

        def kill() -> None:
            until(lambda: any(client.processing().values()))
            [address] = [a for a, keys in client.processing().items() if keys][:1]
            [pid] = client.run(os.getpid, workers=[address]).values()
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

        killer = threading.Thread(target=kill)
        killer.start()
        together = known(on_cluster(client, paths))
        killer.join()
        until(lambda: len(client.run(os.getpid)) == 2)
        assert killed[0] in before
        assert killed[0] not in client.run(os.getpid).values()
    assert together == known(pipeline.analyze(paths))


def test_what_travels_shows_no_key(tmp_path: Path) -> None:
    """A scheduler logs what it hands out, and a worker may put by on disk what it gives back."""
    ring = KeyRing.load(KEYS)
    envelope = Envelope(ring)
    assert repr(envelope) == "<keys>"
    trace = pipeline.analyze("captures/healthy-full.pcap", keys=ring)
    part = Part(trace.conversations)
    closed = envelope.closed(part)
    secrets = trace.conversations[0].secrets
    assert secrets is not None
    assert secrets.session_key is not None
    assert secrets.session_key.key not in closed
    opened = envelope.opened(closed)
    assert opened.conversations[0].secrets is not None
    assert opened.conversations[0].secrets.session_key == secrets.session_key


def test_a_cluster_has_no_key_in_a_log_or_on_a_disk(client: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nor may anybody else on this machine talk to it: that takes the certificate of this very run."""
    planted = Planted(tmp_path_factory.mktemp("planted"))
    ring = KeyRing.load(planted.keys)
    assert any(c.messages for c in on_cluster(client, [planted.captures / "healthy-full.pcap"], ring).conversations)
    failed = client.submit(fails, Envelope(ring), pure=False)
    assert isinstance(failed.exception(), ZeroDivisionError)
    logs = repr((client.get_scheduler_logs(), client.get_worker_logs(), failed.traceback())).encode()
    assert b"division by zero" in logs
    assert leaks(logs, planted.secrets) == []
    for folder in client.run(lambda dask_worker: dask_worker.local_directory).values():
        assert [str(path) for path, content in contents(Path(folder)) if leaks(content, planted.secrets)] == []
    address = client.scheduler.address
    assert address.startswith("tls://")
    with pytest.raises(OSError, match=r"(?i)tls|timed out"):
        Client(address, security=Security.temporary(), timeout="1s")  # type: ignore[no-untyped-call]


def fails(envelope: Envelope) -> float:
    return 1 / (len(repr(envelope)) - len("<keys>"))


def test_a_cluster_that_somebody_else_has_started_gives_the_same() -> None:
    path = "captures/key-mismatch-retries.pcap"
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "protocol": "tcp"}
    with LocalCluster(**options, dashboard_address=None) as others:  # type: ignore[no-untyped-call]
        trace = analyze([path], jobs=2, scheduler=others.scheduler_address)
    assert known(trace) == known(pipeline.analyze(path))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["captures/healthy-full.pcap", "--scheduler", "tcp://127.0.0.1:9"], "no Dask scheduler answers there"),
        (["captures/healthy-full.pcap", "--scheduler", "nowhere"], "no Dask scheduler answers there"),
        (["captures/healthy-full.pcap", "--scheduler", "tls://127.0.0.1:9"], "Dask has no certificates for tls://"),
        (["-", "--scheduler", "dask:"], "cannot read from a pipe"),
        (["captures/healthy-full.pcap", "--jobs", "0"], "--jobs 0: a whole number from 1 on is wanted"),
    ],
)
def test_a_cluster_that_cannot_be_used_is_one_line(words: list[str], says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "analyzer", "analyze", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=b"",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    [line] = done.stderr.decode().splitlines()
    assert says in line
