"""Runs the stages in order: packets in, `Trace` out. It knows neither files by name nor output."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from analyzer.background import HEARD_PORTS, Background, Held
from analyzer.capture import Capture, Packet
from analyzer.capture.gonethrough import GoneThrough
from analyzer.catalogue import SPARK_PORT
from analyzer.conversation import Conversation
from analyzer.devices import devices_of
from analyzer.expected import ExpectedServer, parse_all, stored_servers
from analyzer.fault import note_reading
from analyzer.findings import Finding
from analyzer.frames import Frame
from analyzer.gaps import find_gaps
from analyzer.kinds import kind_of
from analyzer.network import KNOWN_LINK_TYPES, Decoder
from analyzer.network.frame import NESTED
from analyzer.network.sieve import Sieve
from analyzer.network.units import Segment
from analyzer.part import Part
from analyzer.recognition import recognise
from analyzer.rules import judge
from analyzer.share import Share
from analyzer.streams import Sender
from analyzer.trace import Trace
from analyzer.tracker import ToldTracker, Tracker

if TYPE_CHECKING:
    from analyzer.deadkey import DeadKeys
    from analyzer.decryption import Decryption, OpenedMessage
    from analyzer.keys import KeyRing, SessionKey

DEAD_KEYS: Final = {"zero key": "an all-zero key", "key of an earlier session": "the key of an earlier session"}

Progress = Callable[[Capture, Trace], None]


class Live(Protocol):
    """Somebody who follows an analysis packet by packet."""

    def heard(self, conversations: list[Conversation]) -> None:
        """Take note of a packet that may belong to one of these; its number is that of what the last has heard."""

    def ended(self, conversation: Conversation) -> None:
        """Take note that nothing more comes of a conversation."""

    def opened(self, c: Conversation, message: OpenedMessage) -> None:
        """Take note of a message that a key has opened."""


class Analysis:
    """One analysis in progress: feed it packets, then `finish` it."""

    def __init__(
        self,
        *,
        keys: KeyRing | None = None,
        ports: Iterable[int] = (SPARK_PORT,),
        begun: Callable[[Conversation], None] | None = None,
        expect_servers: Iterable[str | ExpectedServer] = (),
        share: Share | None = None,
        live: Live | None = None,
    ) -> None:
        """``share`` is which conversations are taken; None for all. ``live`` wants to be told what happens."""
        expected = parse_all(expect_servers)
        self._begun = begun
        self._decryption: Decryption | None = None
        if keys:
            from analyzer.decryption import Decryption  # noqa: PLC0415 - without keys there is nothing to open

            self._decryption = Decryption(keys, live.opened if live is not None else None)
        self._decoder = Decoder()
        stored = tuple(stored_servers(keys)) if keys else ()
        self.sieve = Sieve(HEARD_PORTS)
        """What need not come through `take`, told while it still lies in the file's buffer."""
        places = (*expected, *(place for _, place in stored))
        self.names = frozenset(place.name for place in places if place.name is not None)
        """Names that lookups are remembered of, besides the cloud's."""
        self._background = Background(self.names, self.sieve)
        self.sieve.skips.tells = self._background.lookup_tells
        self._tracker = (
            Tracker(ports, self._begin, self._end)
            if live is None
            else ToldTracker(ports, self._begin, self._end, live.heard)
        )
        self._live = live
        self._dead_keys: DeadKeys | None = None
        self.trace = Trace([], self._tracker.conversations, self._background, self._tracker.ports)
        self.trace.keys = keys or None
        self.trace.expected, self.trace.stored = expected, stored
        self._links: Counter[int] = Counter()
        self._share = share
        self._now = 0  # number of the packet that is looked at
        self._begins: list[int] = []  # at which packet each conversation began

    def take(self, packet: Packet) -> None:
        """Take the next packet of the capture."""
        trace = self.trace
        trace.packets += 1
        time_ns = packet.time_ns
        if trace.first_ns is None or time_ns < trace.first_ns:
            trace.first_ns = time_ns
        if trace.last_ns is None or time_ns > trace.last_ns:
            trace.last_ns = time_ns
        self._links[packet.link_type] += 1
        unit = self._decoder.decode(packet)
        if type(unit) is Segment and self._tracker.wants(unit):
            if self._share is None or self._share.holds(unit, self._tracker.ports):
                trace.spark_packets += 1
                self._now = unit.number
                self._tracker.take(unit)
            else:
                self.sieve.pass_by(unit.ends)
        elif self._share is None or self._share.takes_note:
            self._background.take(unit)
        elif type(unit) is Segment:
            self.sieve.pass_by(unit.ends)

    def count(self, held: Held) -> None:
        """Count packets that others held back."""
        self.trace.packets += held.links.total()
        self._links.update(held.links)
        self._background.count(held)

    def so_far(self, conversations: Iterable[Conversation], now_ns: int) -> tuple[Trace, list[Finding]]:
        """Return the verdict on these conversations (finished, or from `as_if_ended`) if the capture ended at
        ``now_ns``, and what was found in each of them, not folded. The analysis goes on.
        """
        whole = self.trace
        trace = Trace(
            whole.captures, list(conversations), self._background, whole.ports, whole.packets, whole.first_ns, now_ns
        )
        trace.keys, trace.expected, trace.stored = whole.keys, whole.expected, whole.stored
        trace.devices = devices_of(trace.conversations, ())
        recognise(trace)
        each: list[Finding] = []
        judge(trace, each)
        return trace, each

    def as_if_ended(self, c: Conversation) -> Conversation:
        """Return what a conversation would be if nothing more came; itself if nothing does."""
        if c.finished:
            return c
        finished = c.so_far()
        _name_kind(finished)
        if self._decryption is not None:
            self._decryption.so_far(c, finished)
        if finished.device.id is None:
            finished.device.id = self._announced(finished)
        return finished

    def forget(self, count: int, since_ns: int) -> int:
        """Let go of ``count`` of the oldest conversations that nothing was heard of since then. Return how many."""
        trace = self.trace
        begun = {c.number: at for c, at in zip(trace.conversations, self._begins, strict=True)}
        gone = self._tracker.forget(count, since_ns)
        self._begins = [begun[c.number] for c in trace.conversations]
        return gone

    def close(self) -> Part:
        """Close all conversations: no packet follows. Return what was found in them."""
        self._tracker.finish()
        trace = self.trace
        return Part(trace.conversations, self._begins, trace.spark_packets, self._tracker.checksums)

    def finish(self, others: Iterable[Part] = ()) -> Trace:
        """Close everything, take in what others found in their shares, judge, and return the result."""
        trace = self.trace
        if held := self.sieve.held:
            trace.packets += held
            self._links.update(self.sieve.held_by_link)
            self._background.count_held()
        trace.left_out["fragments"] = self._decoder.fragments_crowded_out
        trace.left_out["layers"] = self._decoder.kinds[NESTED]
        whole = self.close()
        whole.add(others)
        trace.conversations, trace.spark_packets = whole.conversations, whole.spark_packets
        trace.offloaded = whole.offloaded
        trace.link_types = dict(self._links)
        trace.unknown_links = {link: n for link, n in self._links.items() if link not in KNOWN_LINK_TYPES}
        for conversation in trace.conversations:
            if conversation.device.id is None:
                conversation.device.id = self._announced(conversation)
        trace.gaps = find_gaps(trace.captures, trace.conversations)
        trace.warnings += trace.gaps.sentences
        trace.devices = devices_of(trace.conversations, ())
        recognise(trace)
        judge(trace)
        return trace

    def _announced(self, c: Conversation) -> str | None:
        """Return the ID announced from this device's address. Where one unit took another's place, its own: by the
        network card, else by an announcement in this very connection.
        """
        heard = self._background.heard.get(c.device.address, ())
        if len({told.device_id for told in heard}) > 1:
            own = [told for told in heard if told.mac is not None and told.mac == c.device.mac]
            heard = own or [told for told in heard if c.first_packet <= told.packet <= c.last_packet]
        return heard[0].device_id if heard else None

    # -- conversations as they come and go ------------------------------------------------------------------

    def _begin(self, conversation: Conversation) -> None:
        self._begins.append(self._now)
        conversation.on_frame = self._look_at
        if self._decryption is not None:
            self._decryption.begin(conversation)
        if self._begun is not None:
            self._begun(conversation)

    def _end(self, conversation: Conversation) -> None:
        _name_kind(conversation)
        if self._decryption is not None:
            self._remember(conversation, self._decryption.end(conversation))
        conversation.settle()
        if self._live is not None:
            self._live.ended(conversation)

    def _remember(self, conversation: Conversation, goes_on_with: tuple[SessionKey, bytes] | None) -> None:
        if goes_on_with is not None:
            session_key, next_iv = goes_on_with
            self._dead().remember_session(conversation.device.address, session_key.key, next_iv)

    def _dead(self) -> DeadKeys:
        if self._dead_keys is None:
            from analyzer.deadkey import DeadKeys  # noqa: PLC0415 - captures without such frames need no AES

            self._dead_keys = DeadKeys()
        return self._dead_keys

    def _look_at(self, conversation: Conversation, frame: Frame) -> str | None:
        """Return what a dead-key frame says. Only a device that never logged in can send one, so nothing is
        tried once the server has answered.
        """
        dead = None
        if frame.sender is Sender.DEVICE and frame.ciphertext is not None and not conversation.server_hello:
            if self._decryption is not None:
                self._remember(conversation, self._decryption.left_behind(conversation))
            dead = self._dead().recognise(conversation.device.address, frame.ciphertext)
        if dead is not None:
            return f"{dead.message} under {DEAD_KEYS[dead.under]}"
        if self._decryption is not None:
            self._decryption.frame(conversation, frame)
        return None


def _name_kind(conversation: Conversation) -> None:
    conversation.kind = kind_of(conversation)
    if conversation.kind == "spark":
        for side in conversation.sides.values():
            side.opening = b""  # random bytes that nobody quotes


def collect_rarely() -> None:
    """Have Python look for cycles among objects less often: for processes that do nothing but analyse.

    What is kept of a capture has none, and looking for them among so much took a fifth of the time.
    """
    gc.set_threshold(100_000, 50, 1000)


def analyze(
    captures: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    keys: KeyRing | None = None,
    ports: Iterable[int] = (SPARK_PORT,),
    stdin: BinaryIO | None = None,
    progress: Progress | None = None,
    begun: Callable[[Conversation], None] | None = None,
    expect_servers: Iterable[str | ExpectedServer] = (),
) -> Trace:
    """Analyse captures with this process alone; `analyzer.jobs.analyze` tells of the arguments and the errors."""
    analysis = Analysis(keys=keys, ports=ports, begun=begun, expect_servers=expect_servers)
    feed(analysis, captures, stdin=stdin, progress=progress)
    return analysis.finish()


def feed(
    analysis: Analysis,
    captures: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    stdin: BinaryIO | None = None,
    progress: Progress | None = None,
    gone_through: Mapping[str, GoneThrough] | None = None,
) -> None:
    """Give an analysis all packets of the captures that may matter to it, and what is known of their files.

    Of the files in ``gone_through`` (by path) others have kept what matters.
    """
    trace = analysis.trace
    paths = [captures] if isinstance(captures, str | os.PathLike) else list(captures)

    def between() -> None:
        if progress is not None:
            progress(capture, trace)

    capture = Capture(paths, stdin=stdin, skips=analysis.sieve.skips, between=between, gone_through=gone_through)
    trace.captures = capture.files
    take, packet = analysis.take, None
    try:
        for packet in capture:
            take(packet)
    except Exception as error:
        note_reading(error, capture, packet)
        raise
    for file in capture.files:  # the first and the last packet may be among those that were held back
        if file.first_ns is not None and file.last_ns is not None:
            trace.first_ns = min(file.first_ns, file.first_ns if trace.first_ns is None else trace.first_ns)
            trace.last_ns = max(file.last_ns, file.last_ns if trace.last_ns is None else trace.last_ns)
    trace.left_out["interfaces"] = capture.interfaces_left_out
    trace.warnings = list(capture.warnings)
