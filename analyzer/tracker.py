"""Segments to conversations: which TCP connection does a segment belong to?

Ports are used again, copies of packets and late packets turn up, SYNs are missing: this page decides, and
everything after it sees one connection at a time.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from analyzer.conversation import Conversation, Endpoint
from analyzer.network.units import ACK, RST, SYN, Segment

WINDOW: Final = 1 << 20
"""Sequence numbers further apart than this belong to another connection. Sixteen times the largest window these
devices have; a new connection lands inside it by chance once in 2,048 times."""
LINGER_NS: Final = 30_000_000_000
"""A closed conversation is kept open this long (capture time) for late packets."""
LIVE: Final = 65_536
"""Conversations that are open at the same time; beyond it the one silent for longest is closed."""
SENDERS: Final = 65_536
"""Addresses whose checksums are counted."""

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
        self.stragglers = 0  # packets of conversations that were already closed and let go
        self.evicted = 0  # conversations closed for want of room
        self._begun = begun
        self._ended = ended
        self._live: OrderedDict[Flow, list[Conversation]] = OrderedDict()
        self._closing: deque[tuple[int, Flow, Conversation]] = deque()
        self._checksums: dict[bytes, _Checksums] = {}

    def wants(self, segment: Segment) -> bool:
        """Whether the segment runs to or from one of the ports."""
        return segment.source_port in self.ports or segment.target_port in self.ports

    def take(self, segment: Segment) -> None:
        """Take the next segment of one of the ports, in capture order."""
        self._let_go(segment.time_ns)
        flow = _flow(segment)
        damaged = self._is_damaged(segment)
        conversation = self._find(flow, segment, damaged=damaged)
        if conversation is None:
            return
        if damaged:
            conversation.take_damaged(segment)
            return
        was_closed = conversation.closed
        conversation.take(segment)
        if conversation.closed and not was_closed:
            self._closing.append((segment.time_ns, flow, conversation))

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
        for conversations in self._live.values():
            for conversation in conversations:
                self._end(conversation)
        self._live.clear()
        self._closing.clear()

    # -- inside --------------------------------------------------------------------------------------------

    def _find(self, flow: Flow, segment: Segment, *, damaged: bool) -> Conversation | None:
        """Return the conversation of this segment, a new one if it begins one, None if it belongs nowhere."""
        known = self._live.get(flow)
        if known is None:
            return None if damaged else self._begin(flow, segment)
        self._live.move_to_end(flow)
        current = known[-1]
        if segment.flags & SYN and not segment.flags & ACK:
            match = next((c for c in reversed(known) if c.accepts_syn(segment, WINDOW)), None)
            if match is None and not damaged:
                return self._begin(flow, segment)
            return match
        if current.continues(segment, WINDOW):
            return None if current.finished else current
        earlier = next((c for c in known[:-1] if not c.finished and c.continues(segment, WINDOW)), None)
        if earlier is not None:
            return earlier
        if damaged or segment.flags & RST:
            return current
        return self._begin(flow, segment)

    def _begin(self, flow: Flow, segment: Segment) -> Conversation:
        from_server = (segment.flags & SYN and segment.flags & ACK) or (
            not segment.flags & SYN and segment.source_port in self.ports and segment.target_port not in self.ports
        )
        near = Endpoint(segment.source, segment.source_port, segment.source_mac)
        far = Endpoint(segment.target, segment.target_port, segment.target_mac)
        device, server = (far, near) if from_server else (near, far)
        conversation = Conversation(len(self.conversations) + 1, device, server, segment)
        self.conversations.append(conversation)
        known = self._live.setdefault(flow, [])
        known.append(conversation)
        if len(known) > 2:
            self._end(known.pop(0))
        if len(self._live) > LIVE:
            _, oldest = self._live.popitem(last=False)
            self.evicted += 1
            for forgotten in oldest:
                self._end(forgotten)
        self._begun(conversation)
        return conversation

    def _let_go(self, now_ns: int) -> None:
        while self._closing and now_ns - self._closing[0][0] > LINGER_NS:
            _, flow, conversation = self._closing.popleft()
            if now_ns - conversation.end_ns <= LINGER_NS:
                self._closing.append((conversation.end_ns, flow, conversation))
                continue
            self._end(conversation)
            known = self._live.get(flow)
            if known and all(c.finished for c in known):
                del self._live[flow]

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


def _flow(segment: Segment) -> Flow:
    near, far = (segment.source, segment.source_port), (segment.target, segment.target_port)
    return (*near, *far) if near <= far else (*far, *near)
