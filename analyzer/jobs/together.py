"""The analysis of captures, with as many processes as are wanted and help."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from typing import TYPE_CHECKING, BinaryIO, Final

from analyzer import pipeline
from analyzer.capture import Capture, CaptureError
from analyzer.catalogue import SPARK_PORT
from analyzer.expected import ExpectedServer
from analyzer.jobs.plan import Plan, plan
from analyzer.pipeline import Progress

if TYPE_CHECKING:
    from analyzer.conversation import Conversation
    from analyzer.keys import KeyRing
    from analyzer.trace import Trace

MOST_JOBS: Final = 256
"""Processes that are started at most, however many are asked for: each goes through all of a dense capture."""


def cores() -> int:
    """How many processors this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def analyze(
    captures: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    keys: KeyRing | None = None,
    ports: Iterable[int] = (SPARK_PORT,),
    stdin: BinaryIO | None = None,
    progress: Progress | None = None,
    begun: Callable[[Conversation], None] | None = None,
    expect_servers: Iterable[str | ExpectedServer] = (),
    jobs: int | None = 1,
    executor: Executor | None = None,
    scheduler: str | None = None,
) -> Trace:
    """Analyse capture files (or directories, or ``-``) as one capture in time order.

    ``keys`` open what they fit. ``ports`` are the server's TCP ports. ``progress`` is called now and then with the
    capture and the trace so far. ``begun`` is called with each conversation when its first packet comes (to set its
    `tap`, say); then one process does everything. ``expect_servers`` (``HOST`` or ``HOST:PORT``) are where devices
    should call: who calls elsewhere is a finding.
    ``jobs`` is how many processes work on it, None for one on each processor; what comes through a pipe, and what is
    small, is read by one. ``executor`` works in place of processes of our own. ``scheduler`` is the address of a Dask
    cluster (``tcp://HOST:8786``, or ``dask:`` for one of this machine's own). Such workers must find ``captures`` under
    the same names. The result is the same with any number.
    Raises `CaptureError` (a `ValueError`) when nothing can be read, `ExpectedServerError` for what is no host,
    `ClusterError` for a scheduler that does not answer; damage inside a file is a finding.
    """
    paths = [os.fspath(path) for path in ([captures] if isinstance(captures, str | os.PathLike) else captures)]
    ports = tuple(ports)
    jobs = min(cores() if jobs is None else jobs, MOST_JOBS)
    if scheduler is not None and begun is None:
        from analyzer.jobs.cluster import cluster, files_of, on_cluster  # noqa: PLC0415 - an extra that few need

        named = files_of(paths)
        with cluster(scheduler, jobs) as client:
            return on_cluster(client, named, keys=keys, ports=ports, expect_servers=expect_servers, progress=progress)
    files = sizes(paths) if jobs > 1 and begun is None else None
    how = plan(files, ports) if files else Plan.ALONE
    alone: str | None = None
    if how is not Plan.ALONE and files is not None:
        from analyzer.jobs.hands import Hands  # noqa: PLC0415 - most captures are small, and need no workers
        from analyzer.jobs.inranges import in_ranges  # noqa: PLC0415
        from analyzer.jobs.shares import in_shares  # noqa: PLC0415
        from analyzer.jobs.workers import NoWorkersError, workers  # noqa: PLC0415

        work, processes = (in_shares, jobs - 1) if how is Plan.SHARES else (in_ranges, jobs)
        try:
            with workers(processes) if executor is None else nullcontext(executor) as pool:
                return work(
                    Hands(pool), files, jobs, keys=keys, ports=ports, expect_servers=expect_servers, progress=progress
                )
        except NoWorkersError as error:
            alone = f"no process can be started to work along ({error}); one does everything."
    trace = pipeline.analyze(
        paths, keys=keys, ports=ports, stdin=stdin, progress=progress, begun=begun, expect_servers=expect_servers
    )
    if alone is not None:
        trace.warnings.append(alone)
    return trace


def sizes(paths: Sequence[str]) -> dict[str, int] | None:
    """Return the files that the user named, patterns and folders resolved, with their sizes in bytes.

    None when there is a pipe among them, and when something is wrong with a name: who reads them in turn will say what.
    """
    try:
        return Capture(paths).sizes
    except CaptureError:
        return None
