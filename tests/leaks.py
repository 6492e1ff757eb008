"""Looks for keys in everything that the program writes, thoroughly:  python -m tests.leaks [PART...]

What `test_secrecy` does with less of everything, and besides: all functions fail in turn while each report is made, the
system itself tells of each file that is opened and of each connection, a cluster's logs and disk are searched, and what
the Wireshark plugin shows. Takes some ten minutes; the result is noted in tests/attempts/secrets.json.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent))  # where pytest finds them, and a program does not

from attempted import note
from audited import run
from canaries import WAYS, contents, leaks
from failing import AT_KEYS, OURS, PlantedError, failing, having, report, shown
from planted import PASSWORD, Asked, Planted, everything
from wireshark import tsharks

from analyzer import KeyRing, analyze
from analyzer.cli import main as command
from analyzer.jobs.cluster import LOCAL, cluster, on_cluster
from analyzer.jobs.sealed import Envelope

TRACED: Final = ("strace", "-f", "-qq", "-s", "300", "-e", "trace=file,socket,connect,bind,sendto,sendmsg")
CHANGES: Final = re.compile(
    r"(?:O_WRONLY|O_RDWR|O_CREAT)|^\S*\s*(?:mkdir|rename|unlink|rmdir|symlink|link|chmod|chown|truncate|mknod)"
)
NAMED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')


NEAR: Final = (
    *AT_KEYS,
    *(f"{OURS}{name}" for name in ("export", "commands", "opened", "pipeline", "cli", "report.json")),
)
"""Modules whose functions are looked at: those that have keys in hand, and those that call them."""
CALLS: Final = re.compile(r"\b(?:connect|bind|sendto|sendmsg|socket)\(")
QUESTION: Final = re.compile(r"\b(?:sendto|sendmsg)\(\d+, (?:\[\{nlmsg|\{msg_name=\{sa_family=AF_NETLINK)")
"""To the kernel: which interfaces and routes there are."""
SHARED: Final = ("/dev/shm/",)  # noqa: S108 - semaphores between processes of ours


class LeakError(Exception):
    """Something was found: what, and where."""


def main() -> None:
    """Do all of it."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        planted = Planted(place)
        told = f"{len(planted.secrets)} secrets in {len(WAYS)} ways of writing"
        wanted = sys.argv[1:]
        for what, work in (
            ("Commands: streams, and all files that they leave", commands),
            ("Commands, as the system sees them (strace)", traced),
            ("Objects of all classes of ours, printed", printed),
            ("Functions that fail with a key in hand; all variables of all frames", failures),
            ("Cluster: logs, the workers' disks, what fails there", clustered),
            ("Wireshark's tree and verdict, with keys; layers of scapy", dissected),
        ):
            if wanted and work.__name__ not in wanted:
                continue
            folder = place / work.__name__
            folder.mkdir()
            count = 0
            for where, output in work(planted, folder):
                count += 1
                if found := leaks(output, planted.secrets):
                    raise LeakError(f"{what}: {where}: {found}")
            note(what, count, told)
            print(f"{what}: {count}", flush=True)


def commands(planted: Planted, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Run all commands; give what they write."""
    asked, work = _ready(planted, folder)
    reads = {number: one.reads for number, one in enumerate(asked) if one.reads is not None}
    done = run([one.words for one in asked], work, stdin=reads, HOME=str(folder), TMPDIR=str(folder))
    for one, happened in zip(asked, done, strict=True):
        if happened.status != one.status:
            raise LeakError(f"{one.words}: {happened.out.decode()}")
        yield " ".join(one.words), happened.out
    telling = {work / one.tells for one in asked if one.tells is not None}
    for path, content in contents(folder):
        if path not in telling:
            yield str(path), content


def traced(planted: Planted, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Run them again, and have the system itself tell what they touch: nothing elsewhere may change."""
    asked, work = _ready(planted, folder)
    reads = {number: one.reads for number, one in enumerate(asked) if one.reads is not None}
    trace = folder.parent / "trace"
    run(
        [one.words for one in asked if not one.starts],
        work,
        stdin=reads,
        program=(*TRACED, "-o", str(trace)),
        HOME=str(folder),
        TMPDIR=str(folder),
    )
    for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
        if "ENOENT" in line or "= -1" in line:
            continue
        if CALLS.search(line):
            if "NETLINK" not in line and not QUESTION.search(line):
                raise LeakError(f"a connection: {line}")
            continue
        if CHANGES.search(line):
            for path in NAMED.findall(line):
                if path.startswith("/") and not path.startswith((str(folder), os.devnull, *SHARED)):
                    raise LeakError(f"a change elsewhere: {line}")
        yield line, line.encode()


def printed(planted: Planted, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Print some of all objects that pass through any function of ours."""
    _, objects = having(planted.secrets, lambda: _opening(planted, folder), NEAR)
    for kind, some in objects.items():
        for one in some:
            yield kind.__qualname__, shown(one) + str(one).encode("utf-8", "surrogateescape")


def failures(planted: Planted, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Have each function fail that has a key in hand, wherever it is."""
    functions, _ = having(planted.secrets, lambda: _opening(planted, folder), NEAR)
    for code in functions:
        error = failing(code, lambda: _opening(planted, folder))
        if error is not None and not code.co_filename.endswith(("cli.py", "argparse.py")):
            yield f"{code.co_filename}: {code.co_qualname}", report(error)


def clustered(planted: Planted, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Have a cluster open captures, and fail; give its logs and what is on its disk."""
    import dask  # noqa: PLC0415 - an extra

    ring = KeyRing.load(planted.keys)
    dask.config.set({"temporary-directory": str(folder), "distributed.worker.memory.target": 0.0001})
    with cluster(LOCAL, 2) as client:
        files = {str(path): path.stat().st_size for path in planted.captures.iterdir()}
        trace = on_cluster(client, files, keys=ring, ports=(5683,), expect_servers=(), progress=None)
        if not any(c.messages for c in trace.conversations):
            raise LeakError("the cluster opened nothing")
        failed = client.submit(_fail, Envelope(ring), pure=False)
        with contextlib.suppress(PlantedError):
            failed.result()
        yield "log of the scheduler", repr(client.get_scheduler_logs()).encode()
        yield "logs of the workers", repr(client.get_worker_logs()).encode()
        yield "the error that came back", repr((failed.exception(), failed.traceback())).encode()
        for pid in client.run(os.getpid).values():
            for told in ("cmdline", "environ"):
                yield f"{told} of a worker", Path(f"/proc/{pid}/{told}").read_bytes()
        for path, content in contents(folder):
            yield str(path), content
    for path, content in contents(folder):
        yield str(path), content


def dissected(planted: Planted, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Have the plugin, and scapy, show all that they can."""
    from scapy.utils import rdpcap  # noqa: PLC0415 - it takes long to load

    from analyzer.scapy_layers import spark_session  # noqa: PLC0415 - likewise

    own = tsharks()["own"]
    for path in sorted(planted.captures.iterdir()):
        for preference, given in (("device_key", planted.keys), ("keylog", planted.log)):
            words = ("-r", own.share(path), "-o", f"spark.{preference}:{own.share(given)}")
            for more in (("-V",), ("-T", "json"), ("-T", "pdml"), ("-q", "-z", "spark")):
                done = own.run(*words, *more)
                yield f"{path.name}, {preference}, {more}", (done.stdout + done.stderr).encode("utf-8", "replace")
        for heard in spark_session(rdpcap(str(path)), keys=KeyRing.load(planted.keys)):
            yield f"{path.name}, {heard.packet}", repr((heard, heard.layer.show(dump=True))).encode()


def _ready(planted: Planted, folder: Path) -> tuple[list[Asked], Path]:
    work = folder / "work"
    for made in (work, work / "images", work / "made"):
        made.mkdir()
    return list(everything(planted, thorough=True)), work


def _opening(planted: Planted, folder: Path) -> None:
    """Read each kind of key, and write what can be written with them."""
    work = Path(tempfile.mkdtemp(dir=folder))
    (work / "images").mkdir()
    ring = KeyRing.load(
        planted.keys, planted.locked, password=PASSWORD, keylogs=[planted.log], session_keys=[planted.session]
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            os.environ["SPARKSHARK_DEBUG"] = "1"
            with_keys = [
                str(planted.captures / "photon-fast-ota.pcap"),
                "--keys",
                str(planted.keys),
                "--keylog",
                str(planted.log),
            ]
            exports = ["-w", str(work / "w"), "--keylog-out", str(work / "log"), "--firmware", str(work / "images")]
            command(["decrypt", *with_keys, "--format", "json", "-o", str(work / "json"), *exports])
            command(["keys", str(planted.keys)])
            analyze(planted.captures / "healthy-full.pcap", keys=ring)
    finally:
        shutil.rmtree(work)


def _fail(envelope: Envelope) -> None:
    raise PlantedError(f"with {envelope}")


if __name__ == "__main__":
    main()
