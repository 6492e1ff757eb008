"""The process that fuzzes one target with atheris; `fuzz.command` starts it and reads what it prints.

A bug does not end it: the first input of each (by the place where it was raised; a shorter one replaces it) is kept
with its traceback, and the search goes on around it.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any, Final

import atheris

OURS = ("analyzer", "fuzz")


HANGS: Final = 10
"""Times the CPU time that an input may take, after which it is interrupted."""


class TooSlowError(AssertionError):
    """One input took more time than any input of its size can need."""


def _interrupt(*_: object) -> None:
    raise TooSlowError("it does not come back")


def place_of(error: BaseException) -> str:
    """Where an error was raised: its kind, and the last lines of ours on the way there."""
    frames = [
        f"{Path(frame.filename).name}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if any(f"/{ours}/" in frame.filename for ours in OURS) and not frame.filename.endswith("engine.py")
    ]
    return " ".join([type(error).__name__, *frames[-2:]])


def main(name: str, bugs: str, seconds: str, *options: str) -> None:
    """Fuzz for so much CPU time. ``options`` are libFuzzer's own, the folder of the corpus among them."""
    hook: Any = atheris.instrument_imports(include=["analyzer"])
    hook.__enter__()  # for good: much is imported only when it is needed
    from fuzz.targets import TARGETS  # noqa: PLC0415 - instrumented

    target = TARGETS[name]
    folder = Path(bugs)
    folder.mkdir(parents=True, exist_ok=True)
    known: dict[str, int] = {}
    enough = float(seconds)
    unraisable: list[BaseException] = []
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", module="scapy")
    signal.signal(signal.SIGPROF, _interrupt)
    sys.unraisablehook = lambda args: unraisable.append(args.exc_value or RuntimeError(args.err_msg))

    def once(data: bytes) -> None:
        begun = time.process_time()
        target.run(data)
        if unraisable:
            raise unraisable.pop()
        if time.process_time() - begun > target.seconds:
            # Once may be the collector's work, or an import.
            begun = time.process_time()
            target.run(data)
            if (took := time.process_time() - begun) > target.seconds:
                raise TooSlowError(f"{took:.1f} s for {len(data)} bytes")

    def try_one(data: bytes) -> None:
        try:
            signal.setitimer(signal.ITIMER_PROF, HANGS * target.seconds)
            once(data)
            signal.setitimer(signal.ITIMER_PROF, 0)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            place = place_of(error)
            if len(data) < known.get(place, 1 << 30):
                known[place] = len(data)
                stem = folder / hashlib.sha256(place.encode()).hexdigest()[:12]
                stem.with_suffix(".bin").write_bytes(data)
                told = "".join(traceback.format_exception(error))
                stem.with_suffix(".txt").write_text(f"{place}\n\n{told}", encoding="utf-8", errors="replace")
                print(f"BUG {place}", file=sys.stderr, flush=True)
        if time.process_time() > enough:
            os.kill(os.getpid(), signal.SIGTERM)  # libFuzzer says what it has, and ends

    atheris.Setup([sys.argv[0], f"-max_len={target.longest}", *options], try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
