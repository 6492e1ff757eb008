"""Runs one piece of work in a process of its own, within limits of time and memory, and tells how it ended."""

from __future__ import annotations

import multiprocessing
import os
import resource
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

MEMORY: Final = 3 << 30
"""Bytes of address space for one piece of work."""
SECONDS: Final = 60.0
SECONDS_PER_MB: Final = 10.0
"""What a capture is given, of the time of the clock: on a machine that has much else to do."""


@dataclass(slots=True)
class Ended:
    """How a piece of work ended: with its result, or with a sentence on what went wrong."""

    result: Any = None
    wrong: str = ""


def seconds_for(size: int) -> float:
    """Return how long the work on a capture of so many bytes may take."""
    return SECONDS + SECONDS_PER_MB * size / 1_000_000


def run(work: Callable[..., Any], *arguments: object, seconds: float) -> Ended:
    """Do ``work(*arguments)`` in a process of its own."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, work, arguments))
    process.start()
    theirs.close()
    ended = Ended(wrong=f"hangs: no end after {seconds:.0f} s")
    try:
        if ours.poll(seconds):
            ended = ours.recv()
    except EOFError:
        process.join()
        ended = Ended(wrong=f"died, with exit code {process.exitcode}")
    finally:
        process.kill()
        process.join()
        ours.close()
    return ended


def _child(answer: Connection, work: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        ended = Ended(work(*arguments))
    except BaseException:
        ended = Ended(wrong=traceback.format_exc())
    answer.send(ended)
    answer.close()
    os._exit(0)
