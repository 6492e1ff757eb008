"""Fuzzing, target by target; what it came to is added up in tests/attempts/fuzz.json:

    python -m tests.fuzz TARGET... [--minutes N]    fuzz these, N minutes of CPU each (5)
    python -m tests.fuzz --all [--minutes N]        all, those first that had the least CPU time up to now
    python -m tests.fuzz --list                     the targets, and what they had
    python -m tests.fuzz TARGET --reproduce FILE    run one input, or all inputs of a folder, without atheris
    python -m tests.fuzz --add FILE                 add what another machine has counted: its tests/attempts/fuzz.json

Needs atheris (`pip install -e '.[fuzz]'`), but for the last three. The corpora grow in .fuzz/ (--folder DIR), a folder
for each target, and the next run goes on with them; what breaks a target is kept in bugs/ there, with its traceback.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fuzz import tally

if TYPE_CHECKING:
    from fuzz.target import Target

ROOT: Final = Path(__file__).resolve().parent.parent.parent
FOLDER: Final = ROOT / ".fuzz"
MINUTES: Final = 5.0
EXECUTED: Final = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
STOPPED: Final = 72
"""How libFuzzer ends when it is told to."""
SLICE: Final = 600
"""Seconds of CPU time after which libFuzzer is begun anew: what a long run leaves behind in memory is let go."""
SHORTEST: Final = 20
"""Seconds: for less it is not worth the time in which the instrumented modules are imported."""
HANG: Final = 1200
"""Seconds by the clock after which libFuzzer ends an input that does not come back. The engine does that by CPU time,
but for what hangs outside Python.
"""
MEMORY: Final = 3000
"""MB that an input may make a target take."""
STATUS: Final = re.compile(r"#(\d+)\s.*?cov: (\d+) ft: (\d+) corp: (\d+)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 1 when there is something to look at."""
    options = _options(arguments)
    from fuzz.targets import TARGETS  # noqa: PLC0415 - `--help` needs none of it

    if options.add:
        tally.add_all(options.add)
        return 0
    if options.list:
        for one in TARGETS.values():
            print(f"{one.name:16}{tally.told(one.name):36}{one.about}")
        return 0
    unknown = [name for name in options.targets if name not in TARGETS]
    if unknown or not (options.targets or options.all):
        print(f"{', '.join(unknown) or 'no target'}. There are: {' '.join(TARGETS)}", file=sys.stderr)
        return 2
    chosen = [TARGETS[name] for name in options.targets or tally.least_first(TARGETS)]
    if options.reproduce:
        return reproduce(chosen[0], options.reproduce)
    if find_spec("atheris") is None:
        print("atheris is not installed. Try: pip install -e '.[fuzz]'", file=sys.stderr)
        return 2
    folder = Path(options.folder)
    return max(campaign(one, folder, options.minutes * 60) for one in chosen)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--reproduce", type=Path, metavar="FILE")
    parser.add_argument("--add", type=Path, metavar="FILE")
    parser.add_argument("--folder", default=FOLDER, metavar="DIR")
    return parser.parse_args(arguments)


def reproduce(target: Target, path: Path) -> int:
    """Run inputs in this very process, so that a debugger can be put on it."""
    files = sorted(path.glob("*.bin")) or sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        begun = time.process_time()
        target.run(file.read_bytes())
        print(f"{file}: nothing wrong, {time.process_time() - begun:.2f} s")
    return 0


def campaign(target: Target, folder: Path, seconds: float) -> int:
    """Fuzz one target for so much CPU time, and add up what it came to."""
    corpus, bugs = folder / target.name, folder / "bugs" / target.name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        place = corpus / hashlib.sha1(seed, usedforsecurity=False).hexdigest()
        if not place.exists():
            place.write_bytes(seed[: target.longest])
    spent = 0.0
    while seconds - spent >= SHORTEST or not spent:
        run = _slice(target, corpus, bugs, min(SLICE, seconds - spent))
        spent += max(run.cpu_s, 1.0)
        tally.add(target.name, run)
        print(f"{target.name}: {run.told}", flush=True)
        if run.broken:
            print(f"{target.name}: ended early: {run.broken}", file=sys.stderr)
            break
    left = len(list(bugs.glob("*.bin"))) + len(list(bugs.glob("*-*")))
    if left:
        print(f"{target.name}: {left} inputs to look at in {bugs}", file=sys.stderr)
    return int(left > 0)


def _slice(target: Target, corpus: Path, bugs: Path, seconds: float) -> tally.Run:
    """Run the engine once."""
    bugs.mkdir(parents=True, exist_ok=True)
    options = (
        f"-timeout={HANG}",
        f"-report_slow_units={HANG}",
        f"-rss_limit_mb={MEMORY}",
        f"-artifact_prefix={bugs}/",
        "-print_final_stats=1",
        "-reload=0",
        "-len_control=20",
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}
    command = [sys.executable, "-m", "fuzz.engine", target.name, str(bugs), str(seconds), *options, str(corpus)]
    with tempfile.TemporaryFile() as log:
        engine = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            _, status, usage = os.wait4(engine.pid, 0)
        except KeyboardInterrupt:
            engine.terminate()
            raise
        engine.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        lines = log.read().decode("utf-8", "replace").splitlines()
    run = tally.Run(cpu_s=usage.ru_utime + usage.ru_stime)
    for line in lines:
        if found := STATUS.search(line):
            run.inputs, run.edges, run.features, run.corpus = map(int, found.groups())
        if found := EXECUTED.search(line):
            run.inputs = int(found[1])
        if line.startswith("BUG "):
            print(f"{target.name}: {line}", file=sys.stderr, flush=True)
    run.broken = "" if engine.returncode == STOPPED else "\n".join(_end_of(lines))
    return run


def _end_of(lines: Sequence[str]) -> Iterator[str]:
    """What a log says last, without libFuzzer's status."""
    yield from [line for line in lines if not STATUS.search(line)][-12:]
