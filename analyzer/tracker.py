"""Segments to conversations: which TCP connection does a segment belong to?

Ports are used again, copies of packets and late packets turn up, SYNs are missing: this page decides, and
everything after it sees one connection at a time.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from analyzer.catalogue import IDENTITY_SIZE, NONCE_SIZE
from analyzer.conversation import Conversation
from analyzer.network.units import ACK, SYN, Segment
from analyzer.seen import Endpoint
from analyzer.streams import SEQUENCE_SPACE

WINDOW: Final = 1 << 20
"""Sequence numbers further apart than this belong to another connection. Sixteen times the largest window these
devices have; a new connection lands inside it by chance once in 2,048 times."""
LINGER_NS: Final = 30_000_000_000
"""A closed conversation is kept open this long (capture time) for late packets."""
LIVE: Final = 65_536
"""Conversations that are open at the same time; beyond it the one silent for longest is closed."""
SENDERS: Final = 65_536
"""Addresses whose checksums are counted."""
HELD: Final = 8
"""Packets between a nonce and the device's answer to it: repeats, and acknowledgements."""

Flow = tuple[bytes, int, bytes, int]


@dataclass(slots=True)
class _Checksums:
    good: int = 0
    bad: int = 0
    unfinished: int = 0  # left for the network card to fill in


class Tracker:
    """Sorts the segments of the given server ports into conversations."""

    def __init__(
        self,
        ports: Iterable[int],
        begun: Callable[[Conversation], None],
        ended: Callable[[Conversation], None],
    ) -> None:
        self.ports = frozenset(ports)
        self.conversations: list[Conversation] = []
        self.stragglers = 0  # packets of no use: of conversations that were let go, or that fit nowhere
        self.evicted = 0  # conversations closed for want of room
        self._begun = begun
        self._ended = ended
        self._live: OrderedDict[Flow, list[Conversation]] = OrderedDict()
        self._past: OrderedDict[Flow, Conversation] = OrderedDict()
        self._closing: deque[tuple[int, Flow, Conversation]] = deque()
        self._checksums: dict[bytes, _Checksums] = {}
        self._doubted: dict[Flow, tuple[Conversation, list[Segment]]] = {}

    def wants(self, segment: Segment) -> bool:
        """Whether the segment runs to or from one of the ports."""
        return segment.source_port in self.ports or segment.target_port in self.ports

    def take(self, segment: Segment) -> None:
        """Take the next segment of one of the ports, in capture order."""
        if self._closing:
            self._let_go(segment.time_ns)
        flow = segment.flow
        damaged = self._is_damaged(segment)
        conversation = self._find(flow, segment, damaged=damaged)
        if conversation is not None and conversation.damaged and self._mostly_wrong(segment.source):
            conversation.trust_damaged(segment.source)
        if conversation is None:
            self.stragglers += 1
        elif damaged:
            conversation.take_damaged(segment)
        elif flow in self._doubted:
            self._settle_doubt(flow, segment, conversation)
        elif segment.length == NONCE_SIZE and conversation.is_out_of_place(segment):
            self._doubted[flow] = conversation, [segment]
        else:
            self._feed(flow, segment, conversation)

    @property
    def unfinished_checksums(self) -> list[tuple[bytes, int, int]]:
        """Senders most of whose checksums are not those of the wire: (address, such packets, others)."""
        return [
            (address, count.unfinished + count.bad, count.good)
            for address, count in self._checksums.items()
            if count.unfinished + count.bad > count.good
        ]

    def finish(self) -> None:
        """Close all conversations: the capture has ended."""
        for flow in list(self._doubted):
            self._believe(flow)
        for conversations in self._live.values():
            for conversation in conversations:
                self._end(conversation)
        self._live.clear()
        self._past.clear()
        self._closing.clear()

    # -- which conversation --------------------------------------------------------------------------------

    def _find(self, flow: Flow, segment: Segment, *, damaged: bool) -> Conversation | None:
        """Return the conversation of this segment, a new one if it begins one, None if it belongs nowhere."""
        known = self._live.get(flow)
        if known is None:
            past = self._past.get(flow)
            late = past is not None and not segment.flags & SYN and self._is_late(segment, past)
            return None if damaged or late else self._begin(flow, segment)
        self._live.move_to_end(flow)
        if segment.flags & SYN:
            match = next((c for c in reversed(known) if c.accepts_syn(segment)), None)
            return match or (None if damaged else self._begin(flow, segment))
        current = known[-1]
        if len(known) > 1:
            distances = [(d, -i) for i, c in enumerate(known) if (d := c.distance(segment, WINDOW)) is not None]
            if distances:
                current = known[-min(distances)[1]]
        if current.continues(segment, WINDOW):
            return None if current.finished else current
        if damaged or not segment.length:
            # Nothing begins with a packet that says nothing: it is late, or somebody else's.
            return None
        return self._begin(flow, segment)

    @staticmethod
    def _is_late(segment: Segment, past: Conversation) -> bool:
        """Whether it is of a conversation that was let go: then there is nothing more to learn from it."""
        return not segment.length or past.distance(segment, WINDOW) is not None

    def _begin(self, flow: Flow, segment: Segment) -> Conversation:
        from_server = (segment.flags & SYN and segment.flags & ACK) or (
            not segment.flags & SYN and segment.source_port in self.ports and segment.target_port not in self.ports
        )
        near = Endpoint(segment.source, segment.source_port, segment.source_mac)
        far = Endpoint(segment.target, segment.target_port, segment.target_mac)
        device, server = (far, near) if from_server else (near, far)
        conversation = Conversation(len(self.conversations) + 1, device, server, segment)
        self.conversations.append(conversation)
        self._past.pop(flow, None)
        known = self._live.setdefault(flow, [])
        known.append(conversation)
        if len(known) > 2:
            self._believe(flow)
            self._end(known.pop(0))
        if len(self._live) > LIVE:
            full, oldest = self._live.popitem(last=False)
            self._believe(full)
            self.evicted += 1
            for forgotten in oldest:
                self._end(forgotten)
        self._begun(conversation)
        return conversation

    # -- a port used again whose SYN is missing --------------------------------------------------------------

    def _settle_doubt(self, flow: Flow, segment: Segment, conversation: Conversation) -> None:
        """Hold what follows a possible nonce in the place of frames until an answer to it shows what it is."""
        doubted, held = self._doubted[flow]
        nonce = held[0]
        again = segment.seq == nonce.seq and segment.length == nonce.length
        answers = segment.ack == (nonce.seq + nonce.length) % SEQUENCE_SPACE
        if segment.source == nonce.target and segment.length == IDENTITY_SIZE and answers:
            del self._doubted[flow]
            begun = self._begin(flow, nonce)
            for late in (*held, segment):
                self._feed(flow, late, begun)
        elif conversation is doubted and (not segment.length or again) and len(held) < HELD:
            held.append(segment)
        else:
            self._believe(flow)
            self._feed(flow, segment, conversation)

    def _believe(self, flow: Flow) -> None:
        """It was no nonce: give what was held to where it seemed to belong."""
        if flow in self._doubted:
            conversation, held = self._doubted.pop(flow)
            for segment in held:
                self._feed(flow, segment, conversation)

    # -- inside --------------------------------------------------------------------------------------------

    def _feed(self, flow: Flow, segment: Segment, conversation: Conversation) -> None:
        conversation.take(segment)
        if conversation.closings and conversation.closed and not conversation.lingering:
            conversation.lingering = True
            self._closing.append((segment.time_ns, flow, conversation))

    def _let_go(self, now_ns: int) -> None:
        while self._closing and now_ns - self._closing[0][0] > LINGER_NS:
            _, flow, conversation = self._closing.popleft()
            if now_ns - conversation.end_ns <= LINGER_NS:
                self._closing.append((conversation.end_ns, flow, conversation))
                continue
            self._believe(flow)
            self._end(conversation)
            known = self._live.get(flow)
            if known and all(c.finished for c in known):
                del self._live[flow]
                self._past[flow] = known[-1]
                if len(self._past) > LIVE:
                    self._past.popitem(last=False)

    def _end(self, conversation: Conversation) -> None:
        if not conversation.finished:
            conversation.finish()
            self._ended(conversation)

    def _is_damaged(self, segment: Segment) -> bool:
        """Whether the checksum is wrong while most of this sender's are right. Otherwise checksums say nothing:
        the capturing host's own packets leave it unfinished.
        """
        good = segment.checksum_good()
        if good is None and not segment.whole:
            return False
        count = self._checksums.get(segment.source)
        if count is None:
            if len(self._checksums) >= SENDERS:
                return False
            count = self._checksums[segment.source] = _Checksums()
        if good is None:
            count.unfinished += 1
            return False
        if good:
            count.good += 1
            return False
        count.bad += 1
        return count.good >= count.bad

    def _mostly_wrong(self, source: bytes) -> bool:
        count = self._checksums.get(source)
        return count is not None and count.bad > count.good
