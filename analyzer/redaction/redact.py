"""The whole way from captures to one that can be posted: two readings, then the proof."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import IO, TYPE_CHECKING, BinaryIO, Final

from analyzer.capture import Capture
from analyzer.catalogue import SPARK_PORT
from analyzer.fault import note_reading
from analyzer.outfile import temporary_folder
from analyzer.pipeline import analyze, feed
from analyzer.redaction.check import Same, compare, leaks
from analyzer.redaction.disguise import Disguise
from analyzer.redaction.pcapng import PcapngWriter
from analyzer.redaction.rewrite import Rewriter, notes_of
from analyzer.redaction.survey import Plan, Survey
from analyzer.wording import listing

if TYPE_CHECKING:
    from analyzer.keys import KeyRing
    from analyzer.trace import Trace

MOST_LEAKS: Final = 8
"""Leaks that are listed; one is too many."""
SHIFTED_TO_NS: Final = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000_000
"""When a capture begins whose times of day are hidden: a day on which there was no such device."""

Progress = Callable[[Capture, "Trace"], None]


class LeakError(RuntimeError):
    """The result holds what it must not hold: a fault of this program, and nobody gets the file."""


@dataclass(slots=True)
class Redacted:
    """What was written, and what of it is known.

    ``before`` is the analysis of the original with the ports asked for, ``after`` that of the result. ``written``
    counts packets other than TCP by what they are; ``blanked`` are TCP packets of which bytes were replaced.
    ``bytes`` is the size of the result.
    """

    before: Trace
    after: Trace
    same: Same
    disguise: Disguise
    conversations: int = 0
    segments: int = 0
    blanked: int = 0
    bytes: int = 0
    written: dict[str, int] = field(default_factory=dict)
    ports: tuple[int, ...] = ()

    @property
    def packets(self) -> int:
        """Packets in the result."""
        return self.segments + sum(self.written.values())


def redact(
    captures: Sequence[str | os.PathLike[str]],
    out: BinaryIO,
    *,
    keys: KeyRing | None = None,
    ports: Iterable[int] = (SPARK_PORT,),
    lookups: bool = False,
    shift_time: bool = False,
    progress: Progress | None = None,
) -> Redacted:
    """Write the Spark conversations of ``captures`` (files, folders, patterns; no pipes) to the open file ``out``.

    ``keys`` only let the verdicts with keys be compared. ``lookups`` also writes what the devices asked the network,
    ``shift_time`` hides the wall clock. Raises CaptureError for captures that cannot be read, `LeakError` if the
    proof fails.
    """
    captures = _files(captures)
    ports = tuple(dict.fromkeys(ports))
    with tempfile.TemporaryFile(dir=temporary_folder()) as notes:
        survey = _survey(captures, notes, keys, ports, progress)
        before = survey.trace
        if alike := sorted(before.background.lookalikes):
            notes.seek(0)
            notes.truncate()
            survey = _survey(captures, notes, keys, (*ports, *alike), progress)
        shift = SHIFTED_TO_NS - (before.first_ns or 0) if shift_time else 0
        writer = PcapngWriter(out, digits=before.time_digits)
        rewriter = Rewriter(survey, writer, ports=ports, lookups=lookups, shift_ns=shift)
        _rewrite(captures, rewriter, notes, survey, progress)
    out.flush()
    ids = {bytes.fromhex(c.device.id) for c in before.conversations if c.device.id}
    # The places alone: what was found there would leak with the line that reports it.
    found = (text.partition(":")[0] for text in leaks(out.name, rewriter.disguise, survey.said(), ids))
    if places := list(dict.fromkeys(islice(found, MOST_LEAKS))):
        raise LeakError(listing(places))
    after = analyze(out.name, keys=keys, ports=ports)
    return Redacted(
        before,
        after,
        compare(before, after),
        rewriter.disguise,
        conversations=len(rewriter.kept),
        segments=rewriter.segments,
        blanked=rewriter.blanked,
        bytes=writer.bytes,
        written=dict(rewriter.written),
        ports=ports,
    )


def plans_of(capture: str, ports: Iterable[int]) -> dict[int, Plan]:
    """Return what of each conversation of a capture (by its number) may be shown, without writing anything."""
    with tempfile.TemporaryFile(dir=temporary_folder()) as notes:
        return _survey([capture], notes, None, ports, None).plans


def _files(captures: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return the files behind patterns and folders, looked up once: the result may come to lie among them."""
    named = [os.fspath(path) for path in captures]
    return list(Capture(named).sizes or named)


def _survey(
    captures: Sequence[str],
    notes: IO[bytes],
    keys: KeyRing | None,
    ports: Iterable[int],
    progress: Progress | None,
) -> Survey:
    survey = Survey(notes, keys=keys, ports=ports)
    feed(survey, captures, progress=progress)
    survey.finish()
    return survey


def _rewrite(
    captures: Sequence[str],
    rewriter: Rewriter,
    notes: IO[bytes],
    survey: Survey,
    progress: Progress | None,
) -> None:
    def between() -> None:
        if progress is not None:
            progress(capture, survey.trace)

    every = iter(notes_of(notes))
    note = next(every, b"")
    capture = Capture(captures, between=between)
    packet = None
    try:
        for packet in capture:
            if rewriter.take(packet, note):
                note = next(every, b"")
    except Exception as error:
        note_reading(error, capture, packet)
        raise
