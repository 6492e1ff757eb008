"""Segments to conversations: which TCP connection does a segment belong to?

Ports are used again, copies of packets and late packets turn up, SYNs are missing: this page decides, and
everything after it sees one connection at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from analyzer.catalogue import IDENTITY_SIZE, NONCE_SIZE
from analyzer.conversation import Conversation
from analyzer.lane import Lane
from analyzer.network.units import ACK, SYN, TCP_PROTOCOL, Segment
from analyzer.seen import Endpoint
from analyzer.streams import SEQUENCE_SPACE, Sender

WINDOW: Final = 1 << 20
"""Sequence numbers further apart than this belong to another connection. Sixteen times the largest window these
devices have; a new connection lands inside it by chance once in 2,048 times."""
LINGER_NS: Final = 30_000_000_000
"""A closed conversation is kept open this long (capture time) for late packets."""
LIVE: Final = 65_536
"""Conversations that the Wireshark plugin keeps open at the same time, of which it stores none: beyond it the one
silent for longest is closed."""
READY: Final = 16_384
"""Open conversations that are held ready for their next packet, at some 15 kB each. Beyond it those silent for longest
are stored in a fraction of that until they go on, which most of so many never do."""
ROOM: Final = 1_024
"""Open conversations that are held ready however silent they are."""
SILENT_NS: Final = 60_000_000_000
"""Of more than these, those are stored that are silent for longer than this (capture time). No living session is: its
device pings after 15 s, and gives up 10 s later."""
SENDERS: Final = 65_536
"""Addresses whose checksums the plugin counts, for the same reason."""
DOUBTS: Final = 1024
"""Connections with a nonce out of place for whose answer is waited, at the same time; an answer comes within seconds.
They are held ready meanwhile. Of more, the one that waits for longest goes on as if it was no nonce.
"""
HELD: Final = 8
"""Packets between a nonce and the device's answer to it: repeats, and acknowledgements."""

Flow = tuple[bytes, int, bytes, int]


@dataclass(slots=True)
class Checksums:
    """Segments of one sender by their checksum. ``since`` is the number of the first that was looked at."""

    since: int
    good: int = 0
    bad: int = 0
    unfinished: int = 0  # left for the network card to fill in

    def add(self, other: Checksums) -> None:
        """Count the other's as well."""
        self.since = min(self.since, other.since)
        self.good += other.good
        self.bad += other.bad
        self.unfinished += other.unfinished


class _Way:
    """Where segments of one direction go straight to: those of the only conversation between two ends."""

    __slots__ = ("address_sum", "count", "lane")

    def __init__(self, lane: Lane, count: Checksums, address_sum: int) -> None:
        self.lane = lane
        self.count = count
        self.address_sum = address_sum % 0xFFFF  # what the addresses and TCP's number add to each checksum


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
        self._numbers = 0  # of conversations that have begun: some may have been forgotten
        self.stragglers = 0  # packets of no use: of conversations that were let go, or that fit nowhere
        self._begun = begun
        self._ended = ended
        self._live: dict[Flow, list[Conversation]] = {}
        self._awake: dict[int, Conversation] = {}  # those of `_live` that are not frozen, by their numbers
        self._room = min(ROOM, READY)  # beyond so many, the silent ones are looked for
        self._past: dict[int, Conversation] = {}  # the last one of each flow that was let go, by the flow's hash
        self._ways: dict[Flow, _Way] = {}  # of the flows that have one conversation: by source and target
        self._closing: deque[tuple[int, Flow, Conversation]] = deque()
        self._checksums: dict[bytes, Checksums] = {}  # by source and target: what a device does is no other's affair
        self._doubted: dict[Flow, tuple[Conversation, list[Segment]]] = {}

    def wants(self, segment: Segment) -> bool:
        """Whether the segment runs to or from one of the ports."""
        return segment.source_port in self.ports or segment.target_port in self.ports

    def take(self, segment: Segment) -> None:
        """Take the next segment of one of the ports, in capture order."""
        closing = self._closing
        if closing and segment.time_ns - closing[0][0] > LINGER_NS:
            self._let_go(segment.time_ns)
        way = self._ways.get((segment.source, segment.source_port, segment.target, segment.target_port))
        if way is not None and way.lane.calm and segment.length != NONCE_SIZE and segment.whole:
            # Nearly always. The checksum is judged as in `Segment.checksum_good`; the addresses are summed up already.
            tcp, count = segment.tcp, way.count
            size = len(tcp)
            header_sum = (way.address_sum + size) % 0xFFFF or 0xFFFF
            if size < 18 or (field := tcp[16] << 8 | tcp[17]) == header_sum or not field:
                if way.lane.take(segment):
                    count.unfinished += 1
                    return
            elif (
                (int.from_bytes(tcp, "big") << 8 if size & 1 else int.from_bytes(tcp, "big")) + header_sum
            ) % 0xFFFF == 0 and way.lane.take(segment):
                count.good += 1
                return
        self._take(segment)

    def _take(self, segment: Segment) -> None:
        """Take a segment that is not an ordinary one of a conversation that is well known."""
        flow = segment.flow
        damaged = self._is_damaged(segment)
        conversation = self._find(flow, segment, damaged=damaged)
        if conversation is not None and conversation.damaged and self._mostly_wrong(segment):
            conversation.trust_damaged(segment.source)
        if conversation is None:
            self.stragglers += 1
        elif damaged:
            conversation.take_damaged(segment)
        elif flow in self._doubted:
            self._settle_doubt(flow, segment, conversation)
        elif segment.length == NONCE_SIZE and conversation.is_out_of_place(segment):
            if len(self._doubted) >= DOUBTS:
                self._believe(next(iter(self._doubted)))
            self._doubted[flow] = conversation, [segment]
            self._close_ways(conversation)
        else:
            self._feed(flow, segment, conversation)

    @property
    def checksums(self) -> dict[bytes, Checksums]:
        """What is known of each sender's checksums."""
        senders: dict[bytes, Checksums] = {}
        for ends, count in self._checksums.items():
            senders.setdefault(ends[: len(ends) // 2], Checksums(count.since)).add(count)
        return senders

    def finish(self) -> None:
        """Close all conversations: the capture has ended."""
        for flow in list(self._doubted):
            self._believe(flow)
        for conversations in self._live.values():
            for conversation in conversations:
                self._end(conversation)
        self._live.clear()
        self._past.clear()
        self._ways.clear()
        self._closing.clear()

    def open_of(self, segment: Segment) -> list[Conversation]:
        """Return the conversations between the two ends of this segment that are not let go, oldest first."""
        return self._live.get(segment.flow, [])

    def forget(self, count: int, since_ns: int) -> int:
        """Let go of ``count`` of the oldest conversations that nothing was heard of since ``since_ns``, for good.

        Return how many there were; what comes of them later begins a new one. They are the first of their list.
        """
        places = [place for place, c in enumerate(self.conversations) if c.end_ns < since_ns][:count]
        old = {self.conversations[place].number for place in places}
        for flow in [flow for flow, known in self._live.items() if any(c.number in old for c in known)]:
            self._believe(flow)
            for conversation in self._live[flow]:
                if conversation.number in old:
                    self._end(conversation)
            self._live[flow] = [c for c in self._live[flow] if c.number not in old]
            if not self._live[flow]:
                del self._live[flow]
        self._past = {key: c for key, c in self._past.items() if c.number not in old}
        self._closing = deque(item for item in self._closing if item[2].number not in old)
        self.conversations[:] = [c for c in self.conversations if c.number not in old]
        return len(old)

    # -- which conversation --------------------------------------------------------------------------------

    def _find(self, flow: Flow, segment: Segment, *, damaged: bool) -> Conversation | None:
        """Return the conversation of this segment, a new one if it begins one, None if it belongs nowhere."""
        known = self._live.get(flow)
        if known is None:
            past = self._past.get(hash(flow))
            if past is not None and _flow_of(past) != flow:
                past = None  # another one of the same hash
            late = past is not None and not segment.flags & SYN and self._is_late(segment, past)
            return None if damaged or late else self._begin(flow, segment)
        for conversation in known:
            if not conversation.finished and conversation.number not in self._awake:
                conversation.thaw()
                self._hold(conversation)
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
        near = (segment.source, segment.source_port, segment.source_mac)
        far = (segment.target, segment.target_port, segment.target_mac)
        (address, port, mac), there = (far, near) if from_server else (near, far)
        device, server = Endpoint(_one(address), port, mac and _one(mac)), _endpoint(there)
        self._numbers += 1
        conversation = Conversation(self._numbers, device, server, segment)
        self.conversations.append(conversation)
        self._past.pop(hash(flow), None)
        known = self._live.setdefault(flow, [])
        known.append(conversation)
        if len(known) > 1:
            self._close_ways(conversation)
        if len(known) > 2:
            self._believe(flow)
            self._end(known.pop(0))
        self._hold(conversation)
        self._begun(conversation)
        return conversation

    def _hold(self, conversation: Conversation) -> None:
        """Count a conversation among those that are ready. Of many, freeze the silent ones; of too many, the half that
        is silent for longest.
        """
        awake = self._awake
        awake[conversation.number] = conversation
        if len(awake) <= self._room:
            return
        since = conversation.end_ns - SILENT_NS
        silent = [one for one in awake.values() if one.end_ns < since]
        if len(awake) - len(silent) > READY:
            silent = sorted(awake.values(), key=lambda c: c.last_packet)[: (READY + 1) // 2]
        for one in silent:
            if one is not conversation and not self._is_doubted(one):
                self._close_ways(one)
                one.freeze()
                del awake[one.number]
        # Looked for anew when there are twice as many: so it costs each of them the same, however many there are.
        self._room = min(READY, max(ROOM, 2 * len(awake)))

    def _is_doubted(self, conversation: Conversation) -> bool:
        return bool(self._doubted) and _flow_of(conversation) in self._doubted

    # -- the straight way ----------------------------------------------------------------------------------------

    def _open_way(self, segment: Segment, conversation: Conversation) -> None:
        """Let the next segments of this direction go straight to its lane."""
        count = self._checksums.get(segment.source + segment.target)
        key = (segment.source, segment.source_port, segment.target, segment.target_port)
        if count is not None and key not in self._ways:
            lane = conversation.lanes[conversation.sender_of(segment) is Sender.SERVER]
            self._ways[key] = _Way(lane, count, int.from_bytes(segment.source + segment.target, "big") + TCP_PROTOCOL)

    def _close_ways(self, conversation: Conversation) -> None:
        device, server = conversation.device, conversation.server
        self._ways.pop((device.address, device.port, server.address, server.port), None)
        self._ways.pop((server.address, server.port, device.address, device.port), None)

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
        if flow not in self._doubted and len(self._live[flow]) == 1:
            self._open_way(segment, conversation)

    def _let_go(self, now_ns: int) -> None:
        while self._closing and now_ns - self._closing[0][0] > LINGER_NS:
            _, flow, conversation = self._closing.popleft()
            if not conversation.finished and not conversation.closed:
                conversation.lingering = False
                continue
            if now_ns - conversation.end_ns <= LINGER_NS:
                self._closing.append((conversation.end_ns, flow, conversation))
                continue
            self._believe(flow)
            self._end(conversation)
            known = self._live.get(flow)
            if known and all(c.finished for c in known):
                del self._live[flow]
                self._past[hash(flow)] = known[-1]

    def _end(self, conversation: Conversation) -> None:
        if not conversation.finished:
            self._close_ways(conversation)
            self._awake.pop(conversation.number, None)
            conversation.finish()
            self._ended(conversation)

    def _is_damaged(self, segment: Segment) -> bool:
        """Whether the checksum is wrong while most of this sender's are right. Otherwise checksums say nothing:
        the capturing host's own packets leave it unfinished.
        """
        good = segment.checksum_good()
        if good is None and not segment.whole:
            return False
        ends = segment.source + segment.target
        count = self._checksums.get(ends)
        if count is None:
            count = self._checksums[ends] = Checksums(segment.number)
        if good is None:
            count.unfinished += 1
            return False
        if good:
            count.good += 1
            return False
        count.bad += 1
        return count.good >= count.bad

    def _mostly_wrong(self, segment: Segment) -> bool:
        count = self._checksums.get(segment.source + segment.target)
        return count is not None and count.bad > count.good


class ToldTracker(Tracker):
    """A tracker that tells of each segment to which open conversations it may have belonged."""

    def __init__(
        self,
        ports: Iterable[int],
        begun: Callable[[Conversation], None],
        ended: Callable[[Conversation], None],
        heard: Callable[[list[Conversation]], None],
    ) -> None:
        super().__init__(ports, begun, ended)
        self._heard = heard

    def take(self, segment: Segment) -> None:
        """Take the next segment, and tell of it."""
        super().take(segment)
        self._heard(self.open_of(segment))


# Thousands of conversations are with the same server, and from the same devices: one object for each will do.


@lru_cache(maxsize=1024)
def _endpoint(there: tuple[bytes, int, bytes | None]) -> Endpoint:
    return Endpoint(*there)


@lru_cache(maxsize=65_536)
def _one(address: bytes) -> bytes:
    return address


def _flow_of(conversation: Conversation) -> Flow:
    near = (conversation.device.address, conversation.device.port)
    far = (conversation.server.address, conversation.server.port)
    return (*near, *far) if near <= far else (*far, *near)
