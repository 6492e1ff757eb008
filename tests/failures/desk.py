"""A folder of its own for each run of the command, and what must hold of it whatever went wrong.

A run that fails says so in one line and with its status; it leaves no process, no half file under the name that was
asked for, and nothing that a second run trips over.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PATIENCE_S: Final = 60
"""A run that takes longer hangs."""
GONE_S: Final = 5.0
"""How long a process that was left behind has to find that out."""
UNFINISHED: Final = re.compile(r".*\.part(/.*)?")
"""What a file or folder is called while it is written."""
NEVER: Final = ("Traceback", "Exception ignored", "internal error", "Warning:", "Fatal Python error", "Segmentation")
"""What no user should ever read."""
LONGEST_LINE: Final = 1000


@dataclass(frozen=True, slots=True)
class Command:
    """A command as it is tried: its words, run in a folder where ``in/`` has captures and ``out/`` is empty.

    ``stdin`` is a file that is piped into it. ``same`` is whether two runs write the same bytes.
    """

    name: str
    words: tuple[str, ...]
    stdin: str | None = None
    same: bool = True
    force: bool = True
    """Whether ``--force`` lets it replace what is there."""
    adds: str | None = None
    """What the names of files begin with of which each run makes others."""
    home: str = "home"
    """The user's home, in the folder of the run."""

    @property
    def writes(self) -> bool:
        """Whether it makes files."""
        return any("out" in word for word in self.words)


@dataclass(slots=True)
class Run:
    """What came of a run."""

    status: int
    out: bytes
    err: str
    files: dict[str, bytes]
    left: list[str] = field(default_factory=list)
    """What was wrong besides: processes left behind, no end."""


def environment(**changed: str | None) -> dict[str, str]:
    """Return the variables of a run: those of a user with a UTF-8 terminal, and ``changed`` ones."""
    lacks = ("LC_ALL", "LC_CTYPE", "LANG", "NO_COLOR", "COLUMNS", "SPARKSHARK_DEBUG", "PYTHONWARNINGS")
    given = {name: value for name, value in os.environ.items() if name not in lacks}
    given |= {"PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "TERM": "xterm"}
    for name, value in changed.items():
        given.pop(name, None)
        if value is not None:
            given[name] = value
    return given


class Desk:
    """The folder of one run."""

    def __init__(self, folder: Path, inputs: Path) -> None:
        self.folder, self.inputs = folder, inputs
        self.out = folder / "out"
        self.home = folder / "home"
        shutil.rmtree(folder, ignore_errors=True)
        for place in (folder, self.out, self.home):
            place.mkdir()
        (folder / "in").symlink_to(inputs)

    def run(
        self,
        command: Command,
        *,
        before: Sequence[str] = (),
        options: Sequence[str] = (),
        words: Sequence[str] = (),
        env: Mapping[str, str | None] | None = None,
        stdout: int | None = None,
        during: Callable[[subprocess.Popen[bytes]], None] | None = None,
        line: str = '"$@"',
    ) -> Run:
        """Run the command, with ``before`` as the words before Python, ``options`` of Python, and ``words`` behind.

        ``line`` is one for the shell in which ``"$@"`` is the command; ``during`` is called while it runs.
        """
        shell = ["sh", "-c", line, "sh"] if line != '"$@"' else []
        whole = [*shell, *before, sys.executable, "-P", *options, "-m", "analyzer", *command.words, *words]
        settings = {"HOME": str(self.folder / command.home), "PYTHONPATH": str(ROOT), **(env or {})}
        source = (self.folder / command.stdin).open("rb") if command.stdin else subprocess.DEVNULL
        process = subprocess.Popen(
            whole,
            cwd=self.folder,
            env=environment(**settings),
            stdin=source,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        if not isinstance(source, int):
            source.close()
        left = []
        try:
            if during is not None:
                during(process)
            out, err = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            left.append("does not end")
        if not left and others_left(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
            left.append("leaves processes behind")
        return Run(process.returncode, out or b"", err.decode("utf-8", "replace"), files_in(self.out), left)


def others_left(group: int) -> bool:
    """Whether processes of this group are still there after a while."""
    until = time.monotonic() + GONE_S
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        if all(zombie(pid) for pid in members(group)):
            return False
        if time.monotonic() > until:
            return True
        time.sleep(0.02)


def members(group: int) -> list[int]:
    """Return the processes of a group."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[2]) == group:
                found.append(int(entry))
    return found


def zombie(pid: int) -> bool:
    """Whether a process has ended, and only nobody has asked for its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except OSError:
        return True


def files_in(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder with their content; empty folders count as files with none."""
    found = {}
    for place, folders, names in os.walk(folder):
        here = os.path.relpath(place, folder)
        if not folders and not names and here != ".":
            found[f"{here}/"] = b""
        for name in names:
            path = os.path.join(place, name)
            found[os.path.normpath(os.path.join(here, name))] = b"" if os.path.islink(path) else Path(path).read_bytes()
    return found


def complaints(
    run: Run,
    whole: Run,
    *,
    statuses: Sequence[int],
    killed: bool = False,
    same: bool = True,
    lines: int | None = None,
    earlier: Mapping[str, bytes] | None = None,
) -> list[str]:
    """Return what is wrong with a run.

    ``whole`` is a run in which nothing failed: what stands under a name is what it has there, or what was there
    ``earlier``. One that was ``killed`` cannot take away what is unfinished, but that must be called so. ``lines``
    is how many it may say on standard error besides what the undisturbed one says.
    """
    wrong = list(run.left)
    wrong += [f"says {word!r}: {run.err[-400:]}" for word in NEVER if word in run.err]
    if run.status not in statuses:
        wrong.append(f"status {run.status}: {run.err[-300:]}")
    said = [line for line in run.err.splitlines() if line not in whole.err.splitlines()]
    if lines is not None and len(said) > lines:
        wrong.append(f"{len(said)} lines: {run.err[-400:]}")
    if run.status == 2 and not said:
        wrong.append("status 2 without a word")
    for name, content in run.files.items():
        if UNFINISHED.fullmatch(name) or name.startswith(".sparkshark-"):
            if not killed:
                wrong.append(f"leaves {name}")
        elif (earlier or {}).get(name) == content:
            continue
        elif name not in whole.files:
            if not name.endswith("/"):
                wrong.append(f"leaves {name}")
        elif same and content != whole.files[name]:
            wrong.append(f"half a file: {name}, {len(content)} of {len(whole.files[name])} bytes")
    return wrong
