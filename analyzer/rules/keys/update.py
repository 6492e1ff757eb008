"""SPK601, SPK602 with keys: updates that the device refuses, and what is behind parts that it asks for again.

A refusal is a message and stands for itself. That nothing better came after it counts only where nothing of the
device is missing from the capture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from analyzer.findings import Confidence, Evidence, Finding, NotChecked
from analyzer.rules.facts import Facts
from analyzer.rules.keys.messages import complete
from analyzer.rules.session import REPORTS
from analyzer.rules.update import BEGIN_AGAIN
from analyzer.sessionwatch import STALL
from analyzer.streams import Sender
from analyzer.wording import listing, number, packets, plural, size

if TYPE_CHECKING:
    from analyzer.messages import SparkMessage

BEGINS: Final = ("UpdateBegin", "SaveBegin")
LISTED: Final = 8
"""Indexes of missing parts that are named; more are counted."""

SAYS_REFUSED: Final = "The device refuses a firmware update."
SAYS_NOT_TAKEN: Final = "The device does not take a firmware update: parts of it are missing or damaged to the end."
REFUSES: Final = "refuses an update"
NOT_TAKEN: Final = "does not take an update to its end"
BECAUSE_REFUSED: Final = (
    ": it says so, but not why. An update may be too large, or made for another board, or switched off by the program."
)
BECAUSE_SERVERS_CHECKSUM: Final = (
    "that the server's program is the cause: it sends checksums that do not fit its own data."
)
BECAUSE_DEVICES_MEMORY: Final = (
    "that the device's flash or memory is the cause: the parts that it refuses have the right checksum."
)
BECAUSE_GIVEN_UP: Final = "that the server gave up before the device had all parts."
CHECK_THE_IMAGE: Final = (
    "Compare size and kind of the image with the board: it must have been made for this very one.",
    *BEGIN_AGAIN,
)


def update_refused(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK601: the answer to UpdateBegin is an error, and no later offer is taken.

    Certain: the message says so. A later offer that is taken excludes it.
    """
    c = facts.conversation
    if c.secrets is None or not c.secrets.gist.count(*BEGINS) or facts.reached != "established":
        return
    offers = {m.index: m for m in c.messages if m.name in BEGINS}
    refusals = [m for m in c.messages if m.answers in offers and _refuses(m)]
    if not refusals:
        return
    last = refusals[-1]
    if any(m.index > last.index and m.name in ("UpdateReady", "Chunk") for m in c.messages):
        return  # taken in the end
    offer = offers[last.answers or 0]
    length = offer.values.get("file_length")
    what = f"an update of {size(length)}" if length else "an update"
    finding = facts.finding(
        "SPK601",
        Confidence.CERTAIN,
        Evidence(
            f"Packet {number(offer.packet)} offers {what}; packet {number(last.packet)} refuses it:"
            f" {last.values.get('error', last.code)}."
            + (f" So it does {plural(len(refusals) - 1, 'time')} before." if len(refusals) > 1 else ""),
            (offer.packet, *(m.packet for m in refusals)),
        ),
        summary=SAYS_REFUSED,
        because=BECAUSE_REFUSED,
        chunks=0,
    )
    finding.predicate, finding.fix = REFUSES, CHECK_THE_IMAGE
    yield finding


def _refuses(message: SparkMessage) -> bool:
    return message.direction == "device" and ("error" in message.values or message.name == "UpdateAbort")


def update_not_taken(facts: Facts) -> Iterator[Finding | NotChecked]:
    """SPK602: the device refuses UpdateDone, or chunk after chunk, and has not taken the update when it ends.

    Strong when the connection ended or went quiet with all of the device's messages in the capture; else it is not
    checked. Parts sent again and then taken are no fault.
    """
    c = facts.conversation
    if c.secrets is None or not c.secrets.gist.count("Chunk"):
        return
    if facts.unseen is not None or facts.reached != "established":
        return
    story = _Story(c.messages)
    if not story.chunks or story.taken:
        return
    if not story.done_refused and len(story.refused) < REPORTS:
        return
    last = story.done_refused[-1] if story.done_refused else story.refused[-1]
    ended = bool(c.closings) or facts.watched_until - story.last_ns >= STALL
    if not ended or not complete(facts, Sender.DEVICE):
        yield facts.not_checked(
            "SPK602",
            f"Whether the update succeeds after packet {number(last.packet)}: what follows is not all in the capture.",
        )
        return
    evidence = []
    if story.done_refused:
        evidence.append(
            Evidence(
                f"Packet {number(last.packet)} answers the end of the update with {last.values['error']}: parts of it"
                " are missing, and no later answer takes it.",
                (last.packet,),
            )
        )
    finding = facts.finding(
        "SPK602",
        Confidence.STRONG,
        *evidence,
        *story.told(),
        summary=SAYS_NOT_TAKEN,
        because=story.because or BECAUSE_GIVEN_UP,
        silence=True,
        chunks=len(story.chunks),
    )
    finding.predicate = NOT_TAKEN
    yield finding


def explain_stops(facts: Facts, own: Iterable[Finding]) -> None:
    """Add to a finding about an update, made from sizes and times, what the opened messages say about it."""
    for finding in [f for f in own if f.code in ("SPK601", "SPK602")][-1:]:
        story = _Story(facts.conversation.messages)
        if story.chunks:
            finding.evidence = (*finding.evidence, *story.told())
            if finding.code == "SPK602":
                finding.because = story.because or finding.because


class _Story:
    """One connection's last update, as its messages tell it."""

    def __init__(self, messages: Iterable[SparkMessage]) -> None:
        self._begin()
        for m in messages:
            self._take(m)

    def _begin(self) -> None:
        self.chunks: dict[int, SparkMessage] = {}
        self.stored = self.total = 0
        self.missed: Counter[int] = Counter()
        self.refused: list[SparkMessage] = []
        self.done_refused: list[SparkMessage] = []
        self.taken = False
        self.last_ns = 0

    def _take(self, m: SparkMessage) -> None:
        if m.name in BEGINS:
            if self.chunks:
                self._begin()
            if m.values.get("chunk_size") and m.values.get("file_length"):
                self.total = -(-int(m.values["file_length"]) // int(m.values["chunk_size"]))
        elif m.name == "Chunk":
            self.chunks[m.index] = m
        elif m.name == "ChunkReceived":
            if m.values["accepted"]:
                self.stored += 1
            else:
                self.refused.append(m)
        elif m.name == "ChunkMissed":
            self.missed.update(m.values["indexes"])
        elif m.name == "UpdateDoneAck" and "error" in m.values:
            self.done_refused.append(m)
        elif m.name == "UpdateDoneAck" or (m.name == "UpdateDone" and m.direction == "device"):
            self.taken = True
        else:
            return
        self.last_ns = m.time_ns

    @property
    def _wrong(self) -> list[SparkMessage]:
        """Chunks whose checksum, as the server sends it, does not fit their data."""
        return [m for m in self.chunks.values() if m.values.get("crc_ok") is False]

    @property
    def _refused_though_right(self) -> list[SparkMessage]:
        asked = (self.chunks.get(m.answers) for m in self.refused if m.answers is not None)
        return [m for m in asked if m is not None and m.values.get("crc_ok")]

    @property
    def because(self) -> str:
        """What it is put down to, "" where the messages do not tell."""
        if self._wrong:
            return BECAUSE_SERVERS_CHECKSUM
        if len(self._refused_though_right) >= REPORTS:
            return BECAUSE_DEVICES_MEMORY
        return ""

    def told(self) -> Iterator[Evidence]:
        """How far it got, and which parts did not."""
        if self.total and self.stored:
            share = 100 * min(self.stored, self.total) // self.total
            yield Evidence(f"{number(self.stored)} of {plural(self.total, 'chunk')} were stored ({share} %).")
        if self.missed:
            named = [
                f"{number(index)} ({plural(times, 'time')})" for index, times in sorted(self.missed.items())[:LISTED]
            ]
            more = f", and {number(len(self.missed) - LISTED)} more" if len(self.missed) > LISTED else ""
            same = len(self.missed) == 1 and self.missed.total() >= REPORTS
            yield Evidence(
                f"Asked for again: chunk {listing(named)}{more}, counted from 0."
                + (" The radio would lose others, too." if same else "")
            )
        if self._wrong:
            places = [m.packet for m in self._wrong]
            yield Evidence(
                f"In {packets(places[:LISTED])} the checksum that the server sends does not fit the data beside it.",
                tuple(places[:LISTED]),
            )
        if self.refused:
            places = [m.packet for m in self.refused]
            right = len(self._refused_though_right)
            yield Evidence(
                f"The device refuses {plural(len(places), 'chunk')} as damaged ({packets(places[:LISTED])});"
                f" {number(right)} of them {'has' if right == 1 else 'have'} the right checksum.",
                tuple(places[:LISTED]),
            )
