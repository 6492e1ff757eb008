"""Runs the stages in order: packets in, `Trace` out. It knows neither files by name nor output."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, BinaryIO, Final

from analyzer.background import Background
from analyzer.capture import Capture, Packet
from analyzer.catalogue import SPARK_PORT
from analyzer.conversation import Conversation
from analyzer.frames import Frame
from analyzer.kinds import kind_of
from analyzer.network import KNOWN_LINK_TYPES, Decoder
from analyzer.network.units import Segment
from analyzer.rules import judge
from analyzer.streams import Sender
from analyzer.trace import Trace
from analyzer.tracker import Tracker

if TYPE_CHECKING:
    from analyzer.deadkey import DeadKeys
    from analyzer.decryption import Decryption
    from analyzer.keys import KeyRing, SessionKey

PROGRESS_EVERY: Final = 8192
"""Packets between two reports of progress."""

DEAD_KEYS: Final = {"zero key": "an all-zero key", "key of an earlier session": "the key of an earlier session"}

Progress = Callable[[Capture, Trace], None]


class Analysis:
    """One analysis in progress: feed it packets, then `finish` it."""

    def __init__(
        self,
        *,
        keys: KeyRing | None = None,
        ports: Iterable[int] = (SPARK_PORT,),
        begun: Callable[[Conversation], None] | None = None,
    ) -> None:
        self._begun = begun
        self._decryption: Decryption | None = None
        if keys:
            from analyzer.decryption import Decryption  # noqa: PLC0415 - without keys there is nothing to open

            self._decryption = Decryption(keys)
        self._decoder = Decoder()
        self._background = Background()
        self._tracker = Tracker(ports, self._begin, self._end)
        self._dead_keys: DeadKeys | None = None
        self.trace = Trace([], self._tracker.conversations, self._background, self._tracker.ports)
        self.trace.keys = keys or None
        self._links: Counter[int] = Counter()

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
            trace.spark_packets += 1
            self._tracker.take(unit)
            return
        self._background.take(unit)

    def finish(self) -> Trace:
        """Close everything, judge, and return the result."""
        trace = self.trace
        self._tracker.finish()
        trace.evicted = self._tracker.evicted
        trace.offloaded = self._tracker.unfinished_checksums
        trace.link_types = dict(self._links)
        trace.unknown_links = {link: n for link, n in self._links.items() if link not in KNOWN_LINK_TYPES}
        for conversation in trace.conversations:
            told = self._background.announcements.get(conversation.device.address)
            if told is not None and conversation.device.id is None:
                conversation.device.id = told.device_id
        judge(trace)
        return trace

    # -- conversations as they come and go ------------------------------------------------------------------

    def _begin(self, conversation: Conversation) -> None:
        conversation.on_frame = self._look_at
        if self._decryption is not None:
            self._decryption.begin(conversation)
        if self._begun is not None:
            self._begun(conversation)

    def _end(self, conversation: Conversation) -> None:
        conversation.kind = kind_of(conversation)
        if conversation.kind == "spark":
            for side in conversation.sides.values():
                side.opening = b""  # random bytes that nobody quotes
        if self._decryption is None:
            return
        self._remember(conversation, self._decryption.end(conversation))

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


def analyze(
    captures: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    keys: KeyRing | None = None,
    ports: Iterable[int] = (SPARK_PORT,),
    stdin: BinaryIO | None = None,
    progress: Progress | None = None,
    begun: Callable[[Conversation], None] | None = None,
) -> Trace:
    """Analyse capture files (or directories, or ``-``) as one capture in time order.

    ``keys`` open what they fit. ``ports`` are the server's TCP ports.
    ``begun`` is called with each conversation when its first packet comes
    (to set its `tap`, say). ``progress`` is called now and then with the capture and the trace so
    far. Raises `CaptureError` (a `ValueError`) when nothing can be read; damage inside a file is a finding.
    """
    paths = [captures] if isinstance(captures, str | os.PathLike) else list(captures)
    capture = Capture(paths, stdin=stdin)
    analysis = Analysis(keys=keys, ports=ports, begun=begun)
    analysis.trace.captures = capture.files
    take = analysis.take
    for count, packet in enumerate(capture):
        take(packet)
        if progress is not None and count % PROGRESS_EVERY == 0:
            progress(capture, analysis.trace)
    analysis.trace.warnings = list(capture.warnings)
    return analysis.finish()
