"""Processes of this machine that work along, and how they end."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager

from analyzer.pipeline import collect_rarely


@contextmanager
def workers(count: int) -> Iterator[Executor]:
    """Give so many processes. Whatever ends the block early (Ctrl-C, say) ends them, too."""
    # A forked process starts in milliseconds. Elsewhere forking is not safe, or not there.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin)
    before = set(multiprocessing.active_children())
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise
    pool.shutdown()


def _begin() -> None:
    """Leave Ctrl-C to the process that started this one: a worker has nothing to say to the user."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    collect_rarely()
