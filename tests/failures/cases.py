"""Everything that is made to fail, and what must hold then: one generator for each row of the record.

Each yields, for one run, a label and what was wrong with it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from failures.desk import ROOT, Command, complaints
from failures.lab import Lab, may_mount, moved, some

Outcome = tuple[str, list[str]]
Try = Callable[[Lab, random.Random, int], Iterator[Outcome]]

CASES: Final[dict[str, tuple[str, Try]]] = {}
"""Title, what must hold, and how it is tried, by a random source and so many samples of each."""
ENDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ONE_LINE: Final = "one line, status 2, nothing under the name, nothing left"


def case(title: str, holds: str) -> Callable[[Try], Try]:
    def keep(tried: Try) -> Try:
        CASES[title] = (holds, tried)
        return tried

    return keep


def failed(lab: Lab, command: Command, **how: object) -> list[str]:
    """Run a command that may succeed or fail; return what is wrong."""
    desk = lab.desk()
    lines = how.pop("lines", 2)
    run = desk.run(command, **how)  # type: ignore[arg-type]
    statuses = (0, 2)
    return complaints(run, lab.whole(command), statuses=statuses, same=command.same, lines=lines)  # type: ignore[arg-type]


# -- no room --------------------------------------------------------------------------------------------------------

MOUNTED: Final = '{mount}; "$@"; status=$?; cp -a out/. kept; exit $status'


@case("disk full", ONE_LINE)
def disk_full(lab: Lab, chance: random.Random, samples: int) -> Iterator[Outcome]:
    if not may_mount():
        return
    for command in lab.writing:
        for room, fill in ((4, "echo > out/filler"), (16, "true"), (40, "true")):
            desk = lab.desk()
            (desk.folder / "kept").mkdir()
            shell = MOUNTED.format(mount=f"mount -t tmpfs -o size={room}k none out && {fill}")
            desk.out = desk.folder / "kept"
            run = desk.run(command, before=("unshare", "-m", "sh", "-c", shell, "sh"))
            run.files.pop("filler", None)
            wrong = complaints(run, lab.whole(command), statuses=(0, 2), same=command.same, lines=2)
            yield f"{command.name}, {room} kB", wrong


@case("file size limit", ONE_LINE)
def size_limit(lab: Lab, chance: random.Random, samples: int) -> Iterator[Outcome]:
    for command in lab.writing:
        for size in (0, 1000, 10_000):
            yield f"{command.name}, {size}", failed(lab, command, before=("prlimit", f"--fsize={size}"))


@case("standard output full", "one line, status 2; files are written")
def output_full(lab: Lab, chance: random.Random, samples: int) -> Iterator[Outcome]:
    for command in lab.commands:
        with open("/dev/full", "wb") as full:
            yield command.name, failed(lab, command, stdout=full.fileno())


@case("standard error full", "no traceback; files are written or status 2")
def error_full(lab: Lab, chance: random.Random, samples: int) -> Iterator[Outcome]:
    for command in lab.commands:
        run = lab.desk().run(command, line='"$@" 2>/dev/full')
        wrong = complaints(run, lab.whole(command), statuses=(0, 2), same=command.same)
        yield command.name, [text for text in wrong if text != "status 2 without a word"]


# -- nobody there ---------------------------------------------------------------------------------------------------


@case("pipe closed by its reader", "silence and status 0; files are written")
def pipe_closed(lab: Lab, chance: random.Random, samples: int) -> Iterator[Outcome]:
    for command in lab.commands:
        read, write = os.pipe()
        os.close(read)
        try:
            run = lab.desk().run(command, stdout=write)
        finally:
            os.close(write)
        wrong = complaints(run, lab.whole(command), statuses=(0,), same=command.same, lines=0)
        yield command.name, wrong + [f"{name} lacks" for name in lab.whole(command).files.keys() - run.files.keys()]
        run = lab.desk().run(command, line='"$@" | head -c 1')
        yield f"{command.name} | head", complaints(run, lab.whole(command), statuses=(0,), same=command.same, lines=0)


@case("standard streams closed", "no traceback; files are written or status 2")
def streams_closed(lab: Lab, chance: random.Random, samples: int) -> Iterator[Outcome]:
    for command in lab.commands:
        for closed in ("0<&-", "1>&-", "2>&-", "0<&- 1>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"):
            run = lab.desk().run(command, line=f'"$@" {closed}')
            wrong = complaints(run, lab.whole(command), statuses=(0, 2), same=command.same)
            yield f"{command.name} {closed}", [w for w in wrong if w != "status 2 without a word" or "2>" not in closed]


# -- places ---------------------------------------------------------------------------------------------------------

LOCALES: Final = {
    "LC_ALL=C": {"LC_ALL": "C"},
    "POSIX": {"LC_ALL": "POSIX"},
    "C without UTF-8": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "ascii:strict": {"PYTHONIOENCODING": "ascii:strict"},
    "utf-16": {"PYTHONIOENCODING": "utf-16"},
}
ODD: Final = {"in/healthy": "in/gerät €", "in/update": "in/aktualisierung-ü", "out/": "out/größe-"}
BYTES: Final = {"in/healthy": "in/not-utf-8-\udcff", "out/": "out/\udcfe-"}


@case("locale is not UTF-8, names are not ASCII", "the same files and status as with ASCII names")
def locales(lab: Lab, chance: random.Random, samples: int) -> Iterator[Outcome]:
    for old, new in (*ODD.items(), *BYTES.items()):
        link = lab.inputs / f"{new.removeprefix('in/')}.pcap"
        if old.startswith("in/") and not os.path.lexists(link):
            os.symlink(lab.inputs / f"{old.removeprefix('in/')}.pcap", link)
    for command in lab.commands:
        whole = lab.whole(command)
        for label, settings in LOCALES.items():
            for changes in (ODD, BYTES):
                odd = moved(command, changes)
                run = lab.desk().run(odd, env=settings)
                wrong = complaints(run, run, statuses=(0,), same=False)
                if not command.name.startswith("install") and len(run.files) != len(whole.files):
                    wrong.append(f"{len(run.files)} files: {list(run.files)}")
                yield f"{command.name}, {label}", wrong


@case("no home, no temporary folder, no current folder", "as usual, or one line and status 2")
def surroundings(lab: Lab, chance: random.Random, samples: int) -> Iterator[Outcome]:
    folder = lab.folder / "desk"
    absolute = {"in/": f"{folder}/in/", "out": f"{folder}/out"}
    for command in lab.commands:
        for label, settings in (
            ("no HOME", {"HOME": None, "XDG_CONFIG_HOME": None}),
            ("HOME is nowhere", {"HOME": "/nonexistent"}),
            ("HOME may not be written", {"HOME": "/proc"}),
            ("TMPDIR is nowhere", {"TMPDIR": "/nonexistent"}),
            ("nothing set", dict.fromkeys(("HOME", "PATH", "TERM", "USER", "LC_ALL", "TMPDIR"))),
        ):
            run = lab.desk().run(command, env=settings)
            same = command.same and not command.home.startswith("out")
            yield f"{command.name}, {label}", complaints(run, lab.whole(command), statuses=(0, 2), same=same, lines=2)
        if command.stdin is None:
            gone = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'
            named = replace(moved(command, absolute), same=False)  # some outputs name the capture
            yield f"{command.name}, no current folder", failed(lab, named, line=gone)
        if may_mount():
            for label, mount in (
                ("no shared memory", "umount /dev/shm"),
                ("shared memory read-only", "mount -t tmpfs -o ro none /dev/shm"),
                (
                    "no place to write but out",
                    "for place in /tmp /var/tmp; do mount --bind $place $place; mount -o remount,ro,bind $place; done; "
                    'cd "$PWD"; mount --bind out out; mount -o remount,rw,bind out; cd "$PWD"',
                ),
                ("out is read-only", "mount --bind out out; mount -o remount,ro,bind out"),
            ):
                shell = f'{mount}; exec "$@"'
                yield (
                    f"{command.name}, {label}",
                    failed(lab, command, before=("unshare", "-m", "sh", "-c", shell, "sh")),
                )


# -- limits ---------------------------------------------------------------------------------------------------------


@case("few open files", "as usual, or one line and status 2")
def few_files(lab: Lab, chance: random.Random, samples: int) -> Iterator[Outcome]:
    for command in lab.commands:
        for limit in (6, 8, 10, 16, 32):
            wrong = failed(lab, command, line=f'ulimit -n {limit}; exec "$@"')
            yield f"{command.name}, {limit}", wrong


@case("little memory", "as usual, or one line and status 2")
def little_memory(lab: Lab, chance: random.Random, samples: int) -> Iterator[Outcome]:
    for command in lab.commands:
        for _ in range(max(1, samples // 2)):
            limit = chance.randrange(32_000, 300_000, 1000)
            wrong = failed(lab, command, line=f'ulimit -v {limit}; exec "$@"')
            # This library ends the process itself, with words of its own, while it is being loaded.
            yield f"{command.name}, {limit} kB", [text for text in wrong if "OpenBLAS" not in text]


@case("no other process or thread", "one process does the work, and says so")
def alone(lab: Lab, chance: random.Random, samples: int) -> Iterator[Outcome]:
    (large,) = some("analyze --jobs 2")
    for number in range(1, 4):
        inject = f"inject=clone,clone3,fork,vfork:error=EAGAIN:when={number}+"
        run = lab.desk().run(large, before=("strace", "-f", "-o", "/dev/null", "-e", inject))
        wrong = complaints(run, lab.whole(large), statuses=(0,), lines=1)
        told = "no process can be started to work along" in run.err
        yield f"from the {number}. on", wrong + ([] if told or number > 1 else ["is not told"])


# -- reading --------------------------------------------------------------------------------------------------------


@case("read error in mid-file", "a report on what could be read that says so, or one line and status 2")
def read_error(lab: Lab, chance: random.Random, samples: int) -> Iterator[Outcome]:
    files = ("healthy.pcap", "update.pcap", "fleet.pcap", "keys/core-a.der", "keys/server.pub.pem")
    places = [f for name in files for f in ("-P", os.path.realpath(lab.inputs / name))]
    for command in lab.commands:
        if not any("in/" in word for word in (*command.words, command.stdin or "")):
            continue
        for error in ("error=EIO", "error=EINTR", "error=ESTALE", "retval=0"):
            for number in (1, 2, 3):
                inject = f"inject=read,pread64:{error}:when={number}" + ("" if error.endswith("EINTR") else "+")
                desk = lab.desk()
                run = desk.run(command, before=("strace", "-f", "-o", "/dev/null", *places, "-e", inject))
                wrong = complaints(run, lab.whole(command), statuses=(0, 1, 2), same=False)
                yield f"{command.name}, {error} at {number}", wrong


@case("a call fails at any moment", "as usual, or one line and status 2; nothing left")
def any_call(lab: Lab, chance: random.Random, samples: int) -> Iterator[Outcome]:
    errors = {
        "write": ("ENOSPC", "EIO", "EDQUOT", "EINTR"),
        "openat": ("EMFILE", "EACCES", "EINTR", "ENOSPC"),
        "rename": ("EACCES", "EIO", "ENOSPC"),
        "mkdir": ("ENOSPC", "EACCES"),
        "close": ("EIO", "ENOSPC"),
        "flock": ("ENOLCK",),
        "ftruncate": ("EIO",),
    }
    for command in lab.writing:
        calls = [call for call in lab.calls(command) if call.ours and call.name in errors]
        for call in chance.sample(calls, min(len(calls), 2 * samples)):
            error = chance.choice(errors[call.name])
            inject = f"inject={call.name}:error={error}:when={call.number}"
            wrong = failed(lab, command, before=("strace", "-o", "/dev/null", "-e", inject))
            yield f"{command.name}, {error} at {call.name} {call.number}", wrong


# -- ended ----------------------------------------------------------------------------------------------------------


def began(err: str) -> bool:
    """Whether a line of ours had run: what Python does before that is its own."""
    return "Traceback" not in err or "/analyzer/" in err


@case("killed while it writes", "nothing under the name but what is whole; the next run finds its way")
def killed(lab: Lab, chance: random.Random, samples: int) -> Iterator[Outcome]:
    for command in lab.writing:
        calls = [call for call in lab.calls(command) if call.ours]
        for call in chance.sample(calls, min(len(calls), samples)):
            inject = f"inject={call.name}:signal=SIGKILL:when={call.number}"
            desk = lab.desk()
            run = desk.run(command, before=("strace", "-o", "/dev/null", "-e", inject))
            wrong = complaints(run, lab.whole(command), statuses=(-9, 137), killed=True, same=command.same)
            yield f"{command.name}, {call.name} {call.number}", wrong + lab.again(command, desk)


@case("asked to end while it writes", "silence, status 128 and the signal, nothing left")
def asked_while_writing(lab: Lab, chance: random.Random, samples: int) -> Iterator[Outcome]:
    for command in lab.writing:
        calls = [call for call in lab.calls(command) if call.ours]
        for call in chance.sample(calls, min(len(calls), samples)):
            which = chance.choice(ENDS)
            inject = f"inject={call.name}:signal={which.name}:when={call.number}"
            run = lab.desk().run(command, before=("strace", "-o", "/dev/null", "-e", inject))
            statuses = (0, 128 + which, -which)
            wrong = complaints(run, lab.whole(command), statuses=statuses, same=command.same, lines=0)
            yield f"{command.name}, {which.name} at {call.name} {call.number}", wrong


@case("asked to end at any moment", "silence, status 128 and the signal, no process and nothing left")
def asked_at_any_moment(lab: Lab, chance: random.Random, samples: int) -> Iterator[Outcome]:
    for command in lab.commands:
        whole = lab.whole(command)
        begun = time.monotonic()
        lab.desk().run(command)
        lasts = time.monotonic() - begun
        for _ in range(samples):
            which, after, group = chance.choice(ENDS), chance.random() * lasts, chance.random() < 0.5

            def ask(
                process: subprocess.Popen[bytes],
                which: signal.Signals = which,
                after: float = after,
                group: bool = group,
            ) -> None:
                time.sleep(after)
                if process.poll() is None:
                    (os.killpg if group else os.kill)(process.pid, which)

            run = lab.desk().run(command, during=ask)
            if not began(run.err):
                continue
            wrong = complaints(run, whole, statuses=(0, 128 + which, -which), same=command.same, lines=0)
            yield f"{command.name}, {which.name} after {after:.3f} s", wrong


# -- Python ---------------------------------------------------------------------------------------------------------


@case("Python with other options", "the same output")
def options(lab: Lab, chance: random.Random, samples: int) -> Iterator[Outcome]:
    for command in lab.commands:
        whole = lab.whole(command)
        for chosen in (("-O",), ("-OO",), ("-W", "error"), ("-X", "dev"), ("-bb",), ("-X", "dev", "-W", "error")):
            run = lab.desk().run(command, options=chosen)
            wrong = complaints(run, whole, statuses=(0,), same=command.same, lines=0)
            yield f"{command.name}, {' '.join(chosen)}", wrong


@case("a library is missing", "as usual, or one line and status 2")
def libraries(lab: Lab, chance: random.Random, samples: int) -> Iterator[Outcome]:
    for library in ("cryptography", "dpkt", "jinja2", "scapy", "tabulate", "wcwidth", "pyarrow", "distributed"):
        folder = lab.folder / "without" / library
        folder.mkdir(parents=True, exist_ok=True)
        text = f"raise ModuleNotFoundError(\"No module named '{library}'\", name='{library}')\n"
        (folder / f"{library}.py").write_text(text)
        for command in lab.commands:
            path = f"{folder}{os.pathsep}{ROOT}"
            run = lab.desk().run(command, env={"PYTHONPATH": path})
            wrong = complaints(run, lab.whole(command), statuses=(0, 2), same=command.same, lines=1)
            yield f"{command.name} without {library}", wrong
