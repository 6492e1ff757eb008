"""Processes of this machine that work along, and how they end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Final

from analyzer.pipeline import collect_rarely

HANGS_UP: Final = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()
ENDS: Final = (signal.SIGINT, signal.SIGTERM, *HANGS_UP)
"""Signals by which a process is asked to end."""


class NoWorkersError(Exception):
    """No process can be started on this machine. The text is why."""


@contextmanager
def workers(count: int) -> Iterator[Executor]:
    """Give so many processes. Whatever ends the block early (Ctrl-C, say) ends them, too.

    Raises `NoWorkersError` when there can be none.
    """
    before = set(multiprocessing.active_children())
    try:
        pool = _started(count)
    except (OSError, RuntimeError, ImportError, NotImplementedError) as error:
        # Limits on processes, threads, open files; no memory that processes can share (/dev/shm).
        _end(before)
        raise NoWorkersError((getattr(error, "strerror", None) or str(error)).lower()) from error
    try:
        yield pool
    except BaseException:
        # The rest of what a worker was sending when it was ended would be waited for, for ever, as long as somebody
        # could still send it: this process, too, has that end of the pipe open. Python closes all others itself.
        results = getattr(getattr(pool, "_result_queue", None), "_writer", None)
        pool.shutdown(wait=False, cancel_futures=True)
        _end(before)
        if results is not None:
            results.close()
        raise
    pool.shutdown()


def _started(count: int) -> ProcessPoolExecutor:
    """Start the processes, all of them where they are forked."""
    # A forked process starts in milliseconds. Elsewhere forking is not safe, or not there.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin)
    with held_off(ENDS):  # a process that is asked to end before it has begun would do so with words of its own
        pool.submit(os.getpid)
    return pool


@contextmanager
def held_off(signals: Iterable[signal.Signals]) -> Iterator[None]:
    """Let signals wait until the end of the block; for threads and processes that begin in it, until they say so."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _end(before: set[BaseProcess]) -> None:
    """End all processes that this one has started since."""
    for process in set(multiprocessing.active_children()) - before:
        process.terminate()


def _begin() -> None:
    """Leave Ctrl-C to the process that started this one: a worker has nothing to say to the user. And end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for which in ENDS[1:]:
        signal.signal(which, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
    collect_rarely()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End when the process has gone that wants this one's work: killed, it could not say so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
