"""A fleet of machines: Dask's scheduler hands out ranges of files, and then the devices.

First the ranges are gone through by whoever has time. What each finds is put by for the workers who then follow the
devices, so that it travels from worker to worker and not through here. A worker that dies costs the work it had in
hand and what it held for others: the scheduler has that done again elsewhere.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from analyzer.capture import Capture, CaptureError
from analyzer.expected import ExpectedServer
from analyzer.jobs.gothrough import go_through, pieces_of
from analyzer.jobs.ranges import Piece, RangedFile, RangeResult, in_order
from analyzer.jobs.sealed import Envelope
from analyzer.jobs.sift import Sifted
from analyzer.jobs.workers import HANGS_UP, held_off
from analyzer.pipeline import Analysis, Progress, feed
from analyzer.share import Share
from analyzer.version import version

if TYPE_CHECKING:
    from analyzer.keys import KeyRing
    from analyzer.trace import Trace

LOCAL: Final = "dask:"
"""In place of an address: a cluster of this machine's own, for as long as it takes."""
SHARES_PER_WORKER: Final = 2
"""Devices are not all alike; smaller shares even that out."""
ANYWHERE: Final = "127.0.0.1:0"
"""Where Dask shows what goes on: a port that is free, for this machine alone."""
HERE: Final = ("127.", "localhost:", "[::1]")
"""How addresses of this machine begin."""
PATIENCE: Final = "10s"
"""How long to wait for a scheduler: it answers at once, or is not there."""


class ClusterError(ValueError):
    """The cluster that the user named cannot be used: one line, with what to do."""


@contextmanager
def cluster(address: str, workers: int) -> Iterator[Any]:
    """Connect with Dask's scheduler at ``address``, or start one with so many processes for ``dask:``."""
    try:
        from distributed import Client, LocalCluster  # noqa: PLC0415 - an extra that few need
        from distributed.utils import LoopRunner  # noqa: PLC0415
    except ImportError as error:
        raise ClusterError('--scheduler: needs one more package. Try: pip install "sparkshark[cluster]"') from error
    if address == LOCAL:
        # The thread that starts the processes, and so these, are left in peace when a terminal asks all to end.
        with ExitStack() as stack:
            with held_off((signal.SIGINT, *HANGS_UP)):
                starter = LoopRunner()
                starter.start()  # type: ignore[no-untyped-call]
                stack.callback(starter.stop)
            local = LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=workers,
                threads_per_worker=1,
                dashboard_address=ANYWHERE,
                loop=starter.loop,
                silence_logs=logging.ERROR,
                # A port of this machine is open to all who are on it, and who may talk to a scheduler may run programs
                # and ask for what it has. So only processes with a certificate that is made for this run may.
                security=True,
            )
            stack.enter_context(local)
            yield stack.enter_context(Client(local))  # type: ignore[no-untyped-call]
        return
    try:
        client = Client(address, timeout=PATIENCE)  # type: ignore[no-untyped-call]
    except TypeError as error:
        raise ClusterError(
            f"--scheduler {address}: Dask has no certificates for tls://. They are settings of its own: comm.tls"
        ) from error
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"--scheduler {address}: no Dask scheduler answers there. Try: tcp://HOST:8786, or dask: for processes"
            " of this machine"
        ) from error
    with client:
        _same_everywhere(client, address)
        yield client


def in_the_clear(address: str) -> bool:
    """Tell whether others on the way to the scheduler at ``address`` can read what is sent."""
    scheme, _, rest = address.rpartition("://")
    return address != LOCAL and scheme in ("", "tcp") and not rest.startswith(HERE)


def _same_everywhere(client: Any, address: str) -> None:
    """Complain of workers that cannot do the work, before it is handed out."""
    if not client.ncores():
        raise ClusterError(f"--scheduler {address}: no worker has joined it. Start one: dask worker {address}")
    try:
        # A function without a name travels whole; one of ours would be looked up there.
        there = client.run(lambda: __import__("analyzer.version", fromlist=["version"]).version())
    except ImportError as error:
        raise ClusterError(
            f'--scheduler {address}: a worker lacks sparkshark. On its machine: pip install "sparkshark[cluster]"'
        ) from error
    for worker, own in there.items():
        if own != version():
            raise ClusterError(
                f"--scheduler {address}: {worker} has sparkshark {own}, and this is {version()}. Install the same there"
            )


def on_cluster(
    client: Any,
    named: Mapping[str, int],
    *,
    keys: KeyRing | None,
    ports: Iterable[int],
    expect_servers: Iterable[str | ExpectedServer],
    progress: Progress | None,
) -> Trace:
    """Analyse files (with their sizes in bytes) that all workers, and this process, find under these names."""
    ports = tuple(ports)
    workers = max(1, len(client.ncores()))
    shares = SHARES_PER_WORKER * workers
    around = Analysis(
        keys=keys, ports=ports, expect_servers=expect_servers, share=Share(shares, shares, takes_note=True)
    )
    files = [
        _File(client, path, pieces, (ports, around.names, shares)) for path, pieces in pieces_of(named, workers).items()
    ]
    for file in files:
        file.prove()
    readable = [file for file in files if file.error is None]
    envelope = Envelope(keys)
    parts = [
        client.submit(
            _follow,
            Share(index, shares, takes_note=False),
            envelope,
            ports,
            [(file.path, file.size, file.heads) for file in readable],
            [client.submit(_share_of, future, index, pure=False) for file in readable for future in file.futures],
            pure=False,
        )
        for index in range(shares)
    ]
    feed(
        around,
        [file.path for file in files],
        progress=progress,
        gone_through={file.path: file.gone_through(around) for file in files},
    )
    return around.finish(envelope.opened(part.result()) for part in parts)


def files_of(paths: Sequence[str]) -> dict[str, int]:
    """Return the files that the user named, with their sizes in bytes, if others can read them."""
    files = Capture(paths).sizes
    if files is None:
        raise ClusterError("--scheduler: other machines cannot read from a pipe. Save it to a file first")
    return files


class _File:
    """One file, the ranges of which the workers go through."""

    def __init__(
        self,
        client: Any,
        path: str,
        pieces: Sequence[Piece],
        wanted: tuple[tuple[int, ...], frozenset[str], int],
    ) -> None:
        """``wanted`` are ports, names and shares as for `go_through`."""
        self.path = path
        self.size = pieces[0].size
        self.heads: list[RangeResult] = []
        self.futures: list[Any] = []
        self.error: CaptureError | None = None
        self._client, self._wanted = client, wanted
        self._pieces = pieces
        self._begun = {piece: self._submit(piece) for piece in pieces}

    def prove(self) -> None:
        """Wait until all has been gone through, and see that the ranges fit together."""
        try:
            self.heads = list(in_order(self._pieces, lambda piece: self._head(self._begun[piece]), self._again))
        except CaptureError as error:
            self.error = error
        self._begun.clear()

    def gone_through(self, analysis: Analysis) -> RangedFile:
        """What stands for this file where the packets around the conversations are looked at."""
        return RangedFile(self.size, self._around(), analysis.count)

    def _around(self) -> Iterator[RangeResult]:
        if self.error is not None:
            raise self.error
        for future in self.futures:
            yield self._client.submit(_around_of, future, pure=False).result()

    def _submit(self, piece: Piece) -> Any:
        return self._client.submit(go_through, piece, *self._wanted, pure=False)

    def _head(self, future: Any) -> RangeResult:
        head: RangeResult = self._client.submit(_head_of, future, pure=False).result()
        self.futures.append(future)
        return head

    def _again(self, piece: Piece) -> RangeResult:
        self.futures.pop()  # what was gone through from a wrong place
        return self._head(self._submit(piece))


def _head_of(result: RangeResult) -> RangeResult:
    return replace(result, sifted=Sifted((), b""))


def _around_of(result: RangeResult) -> RangeResult:
    return replace(result, sifted=replace(result.sifted, shares=()))


def _share_of(result: RangeResult, index: int) -> bytes:
    return result.sifted.shares[index]


def _follow(
    share: Share,
    envelope: Envelope,
    ports: tuple[int, ...],
    files: Sequence[tuple[str, int, Sequence[RangeResult]]],
    kept: Sequence[bytes],
) -> bytes:
    """Follow the devices of one share through what was kept of all files."""
    analysis = Analysis(keys=envelope.keys, ports=ports, share=share)
    left = iter(kept)
    gone = {}
    for path, size, heads in files:
        results = [replace(head, sifted=Sifted((), next(left))) for head in heads]
        gone[path] = RangedFile(size, iter(results), analysis.count)
    feed(analysis, list(gone), gone_through=gone)
    return envelope.closed(analysis.close())
