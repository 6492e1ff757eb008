"""Each worker goes through ranges of the files; what is left of them is analysed here, in their order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from analyzer.expected import ExpectedServer
from analyzer.jobs.gothrough import go_through, pieces_of
from analyzer.jobs.hands import Hands, Pending
from analyzer.jobs.ranges import Piece, RangedFile, RangeResult, in_order
from analyzer.pipeline import Analysis, Progress, feed

if TYPE_CHECKING:
    from analyzer.keys import KeyRing
    from analyzer.trace import Trace

PER_WORKER: Final = 2
"""Ranges of one file for each worker: while the later ones are gone through, the earlier ones are analysed here."""
AHEAD: Final = 2
"""Ranges that wait, done or not, for each worker: so many that nobody is idle, and so few that memory stays flat."""


def in_ranges(
    hands: Hands,
    files: Mapping[str, int],
    jobs: int,
    *,
    keys: KeyRing | None,
    ports: tuple[int, ...],
    expect_servers: Iterable[str | ExpectedServer],
    progress: Progress | None,
) -> Trace:
    """Analyse files, gone through by so many workers."""
    analysis = Analysis(keys=keys, ports=ports, expect_servers=expect_servers)
    ranges = pieces_of(files, PER_WORKER * jobs)
    queue = _Queue(
        hands, [piece for pieces in ranges.values() for piece in pieces], ports, analysis.names, AHEAD * jobs
    )
    gone = {
        path: RangedFile(pieces[0].size, in_order(pieces, queue.result, queue.again), analysis.count)
        for path, pieces in ranges.items()
    }
    feed(analysis, list(files), progress=progress, gone_through=gone)
    return analysis.finish()


class _Queue:
    """Ranges in the order in which they will be asked for; some of them are always under way."""

    def __init__(
        self, hands: Hands, pieces: Sequence[Piece], ports: tuple[int, ...], names: frozenset[str], ahead: int
    ) -> None:
        self._hands, self._pieces, self._ahead = hands, pieces, ahead
        self._wanted = ports, names, 1
        self._place = {piece: place for place, piece in enumerate(pieces)}
        self._begun = 0
        self._pending: dict[Piece, Pending[RangeResult]] = {}
        self._go_on(ahead)

    def result(self, piece: Piece) -> RangeResult:
        """Wait for what came of a range."""
        self._go_on(self._place[piece] + 1)
        came = self._pending.pop(piece).result()
        self._go_on(self._begun + 1 if len(self._pending) < self._ahead else self._begun)
        return came

    def again(self, piece: Piece) -> RangeResult:
        """Go through a range that was begun at a wrong place."""
        return go_through(piece, *self._wanted)

    def _go_on(self, until: int) -> None:
        for piece in self._pieces[self._begun : until]:
            self._pending[piece] = self._hands.do(go_through, piece, *self._wanted)
        self._begun = max(self._begun, min(until, len(self._pieces)))
