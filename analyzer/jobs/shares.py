"""Each worker follows the conversations of some devices through all of the files; the first share is done here.

Stepping over the packets of the other shares costs little, handing packets from one process to another would cost
more. What a worker sends back are its finished conversations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from analyzer.expected import ExpectedServer
from analyzer.jobs.hands import Hands
from analyzer.part import Part
from analyzer.pipeline import Analysis, Progress, feed
from analyzer.share import Share

if TYPE_CHECKING:
    from analyzer.keys import KeyRing
    from analyzer.trace import Trace


def in_shares(
    hands: Hands,
    files: Mapping[str, int],
    shares: int,
    *,
    keys: KeyRing | None,
    ports: tuple[int, ...],
    expect_servers: Iterable[str | ExpectedServer],
    progress: Progress | None,
) -> Trace:
    """Analyse files in so many shares."""
    paths = list(files)
    elsewhere = [
        hands.do(follow, Share(index, shares, takes_note=False), paths, keys, ports) for index in range(1, shares)
    ]
    own = Analysis(keys=keys, ports=ports, expect_servers=expect_servers, share=Share(0, shares, takes_note=True))
    feed(own, paths, progress=progress)
    return own.finish(part.result() for part in elsewhere)


def follow(share: Share, paths: Sequence[str], keys: KeyRing | None, ports: tuple[int, ...]) -> Part:
    """Return the conversations of one share."""
    analysis = Analysis(keys=keys, ports=ports, share=share)
    feed(analysis, paths)
    return analysis.close()
