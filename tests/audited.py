"""Runs commands in a process of their own in which Python tells of all that is opened, made, sent or started.

`run` is for tests; as a program this file is the process: it takes a plan on standard input, and writes what happened
to descriptor 3.
"""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
REPORT: Final = 3
WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES: Final = frozenset(
    ["mkdir", "rename", "remove", "rmdir", "symlink", "link", "chmod", "chown", "truncate", "utime", "mkfifo"]
)
"""What is done to files by name; Python calls ``os.replace`` a rename."""
REACHES: Final = tuple(
    f"socket.{what}"
    for what in ("bind", "connect", "sendto", "sendmsg", "getaddrinfo", "gethostbyname", "gethostbyaddr", "getnameinfo")
)
STARTS: Final = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile")


class Happened(NamedTuple):
    """What one command did: its status, what it wrote to its two streams, and to which files; whom it asked.

    ``kernel`` are questions about this machine's interfaces, which leave it no more than any other.
    """

    status: int
    out: bytes
    written: list[str]
    network: list[str]
    kernel: list[str]
    started: list[str]
    unpickled: list[str]


def run(
    commands: Sequence[Sequence[str | Path]],
    folder: Path,
    *,
    stdin: Mapping[int, Path] | None = None,
    program: Sequence[str] = (),
    **environment: str,
) -> list[Happened]:
    """Run commands one after the other, with ``folder`` as the folder to work in; ``stdin`` is what each reads."""
    plan = [
        {"words": [str(word) for word in words], "stdin": str((stdin or {}).get(number, Path(os.devnull)).resolve())}
        for number, words in enumerate(commands)
    ]
    report, into = os.pipe()
    with subprocess.Popen(
        [*program, sys.executable, "-B", "-c", START.format(path=str(Path(__file__)), fd=into, to=REPORT)],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", **environment},
        stdin=subprocess.PIPE,
        pass_fds=[into],
    ) as process:
        os.close(into)
        assert process.stdin is not None
        process.stdin.write(json.dumps(plan).encode())
        process.stdin.close()
        with os.fdopen(report, "rb") as stream:
            lines = [json.loads(line) for line in stream]
    assert process.returncode == 0
    happened = [Happened(0, b"", [], [], [], [], []) for _ in commands]
    for number, kind, what in lines:
        one = happened[number]
        if kind == "done":
            happened[number] = one._replace(status=what[0], out=what[1].encode("latin-1"))
        else:
            getattr(one, kind).append(what)
    return happened


START: Final = """
import os, runpy
if {fd} != {to}:
    os.dup2({fd}, {to})
    os.close({fd})
runpy.run_path({path!r}, run_name="__main__")
"""


def main() -> None:
    """Carry out the plan."""
    plan = json.load(sys.stdin)
    number = 0

    def tell(kind: str, what: Any) -> None:
        os.write(REPORT, json.dumps([number, kind, what]).encode() + b"\n")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = any(letter in mode for letter in "wax+") if mode else bool((flags or 0) & WRITING)
            if writes and isinstance(path, str | bytes):
                tell("written", os.path.abspath(os.fsdecode(path)))
        elif event in REACHES:
            kernel = isinstance(arguments[0], socket.socket) and arguments[0].family == socket.AF_NETLINK
            tell("kernel" if kernel else "network", f"{event} {arguments}")
        elif event.startswith("os.") and event[3:] in CHANGES:
            for path in arguments[: 2 if event == "os.rename" else 1]:
                tell("written", os.path.abspath(os.fsdecode(path)))
        elif event.startswith(STARTS):
            tell("started", f"{event} {arguments!r}")
        elif event == "pickle.find_class":
            tell("unpickled", ".".join(arguments))

    from analyzer.cli import main as command  # noqa: PLC0415

    sys.addaudithook(hook)
    for step in plan:
        text = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="surrogateescape", write_through=True)
        streams = sys.stdin, sys.stdout, sys.stderr
        try:
            with open(step["stdin"], encoding="utf-8") as sys.stdin:
                sys.stdout = sys.stderr = text
                status = command(step["words"])
                text.flush()
        finally:
            sys.stdin, sys.stdout, sys.stderr = streams
        tell("done", (status, text.buffer.getvalue().decode("latin-1")))
        number += 1


if __name__ == "__main__":
    main()
