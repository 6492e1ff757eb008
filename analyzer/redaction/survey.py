"""The first reading: the analysis, and beside it which bytes of each packet are known to be sealed ones.

A byte may be copied when two things are known of it: TCP delivered it (so it is what the device or the server took,
not what somebody else sent in their name), and it is part of a login or of a message. Everything else, down to the
repeat that differs from the first copy, is unknown, and unknown bytes are not copied.
"""

from __future__ import annotations

import re
from array import array
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from struct import Struct
from typing import IO, TYPE_CHECKING, Final

from analyzer.catalogue import LENGTH_PREFIX
from analyzer.conversation import Conversation
from analyzer.frames import Frame
from analyzer.handshake import OPENING
from analyzer.network import Arp, Datagram, Decoder, IcmpError, Segment, Unit, tcp_ports
from analyzer.network.units import SYN
from analyzer.pipeline import DEAD_KEYS, Analysis
from analyzer.redaction.filler import blank, blank_opening, is_noise, noise_limit
from analyzer.streams import Hole, Sender, offset_near

if TYPE_CHECKING:
    from analyzer.capture import Packet
    from analyzer.keys import KeyRing

RECENT: Final = 1 << 16
"""Bytes of a direction that repeats are compared with: as many as the analysis compares them with."""
MOST_RECENT: Final = 32 << 20
"""The same of all directions together; those silent for longest go first."""
WAITING_BYTES: Final = 16 << 20
"""Payloads that wait for TCP to deliver them: more than one direction can hold back, and those of many."""
MOST_WAITING: Final = 256
"""Packets of one direction that wait so: four times what a window without scaling has room for, in whole packets."""
RANGES: Final = 4096
"""Runs of known bytes that are listed of one direction. A run ends at a hole, or where something else was sent; what
follows so many is not copied.
"""
UNDER_ZERO_KEY: Final = "zero key"
SAYS_NOTHING: Final = ("ping", "time request")
"""Messages under a dead key that hold no words of anybody: anyone can read them."""
EARLY: Final = 16
"""Frames in the place of a handshake message behind which that message may still follow."""
WORD: Final = re.compile(rb"[A-Za-z0-9_.-]{8,64}")
WORDS: Final = 256
"""Words of strangers that the result is searched for."""
MOST_MET: Final = 1 << 20
"""Addresses that are remembered so that no machine is given another's. Each is kept in some 100 bytes."""
NOTE: Final = Struct("<IQ")
"""Of each packet of a wanted port: number of the conversation, and where in its direction the payload lies; 0 for
bytes that are not to be copied.
"""

Flow = tuple[bytes, int, bytes, int]


class Way:
    """One direction of a conversation while its packets come."""

    __slots__ = ("early", "end", "known", "letters", "opening", "recent", "sealed")

    def __init__(self) -> None:
        self.end = 0  # stream offset of the next byte
        self.recent = bytearray()  # the bytes before it; zeros where they are missing
        self.opening = bytearray()  # the first of them, up to the first hole
        self.known = array("Q")  # from, to, from, to ...
        self.early: list[int] = []  # where the first frames end
        self.sealed = self.letters = 0  # bytes of frames, and the printable ones among them

    def take(self, data: bytes) -> int:
        """Take delivered bytes; return by how many more are remembered now."""
        before = len(self.recent)
        if len(self.opening) == self.end < OPENING:
            self.opening += data[: OPENING - self.end]
        self.recent += data
        self.end += len(data)
        if len(self.recent) > 2 * RECENT:
            del self.recent[:-RECENT]
        return len(self.recent) - before

    def says(self, offset: int, data: bytes) -> bool:
        """Whether these bytes were delivered at that place."""
        start = offset - (self.end - len(self.recent))
        return start >= 0 and offset + len(data) <= self.end and self.recent[start : start + len(data)] == data

    def know(self, start: int, stop: int) -> None:
        """List bytes as known; those of one direction come in order."""
        known = self.known
        if known and known[-1] >= start:
            known[-1] = max(known[-1], stop)
        elif len(known) < 2 * RANGES:
            known.extend((start, stop))


@dataclass(slots=True)
class Side:
    """Of one direction: what of it may be copied (from, to, from, to ...), and what its first bytes become."""

    known: array[int] = field(default_factory=lambda: array("Q"))
    opening: bytes = b""
    original: bytes = b""

    def redacted(self, offset: int, payload: bytes) -> bytes:
        """Return a payload with nothing in it that is unknown."""
        made, stop = bytearray(blank(payload)), offset + len(payload)
        known = self.known
        for i in range(self._first(offset), len(known), 2):
            if known[i] >= stop:
                break
            first, last = max(known[i], offset) - offset, min(known[i + 1], stop) - offset
            made[first:last] = payload[first:last]
        if offset < len(self.opening) and payload.startswith(self.original[offset:stop]):
            filled = self.opening[offset:stop]
            made[: len(filled)] = filled
        return bytes(made)

    def _first(self, offset: int) -> int:
        """Return the place of the first run that ends behind ``offset``."""
        low, high = 0, len(self.known) // 2
        while low < high:
            middle = (low + high) // 2
            if self.known[2 * middle + 1] <= offset:
                low = middle + 1
            else:
                high = middle
        return 2 * low


@dataclass(slots=True)
class Plan:
    """What becomes of the payloads of one conversation."""

    kind: str
    device: tuple[bytes, int]
    sides: dict[Sender, Side]


UNKNOWN: Final = Plan("empty", (b"", 0), {sender: Side() for sender in Sender})
"""Of a conversation that the survey has not seen: nothing of it is copied."""


@dataclass(slots=True)
class _Waiting:
    place: int
    segment: Segment


class Survey(Analysis):
    """An analysis that takes notes for the second reading."""

    def __init__(self, notes: IO[bytes], *, keys: KeyRing | None = None, ports: Iterable[int]) -> None:
        """``notes`` is an empty file that can be read and written at any place."""
        super().__init__(keys=keys, ports=ports, begun=self._begun_here)
        self.plans: dict[int, Plan] = {}
        self.met: set[bytes] = set()
        """Addresses and hardware addresses of the packets that the second reading may write."""
        self.segments = 0
        self._notes = notes
        self._own = Decoder()
        self._ports = self.trace.ports
        self._ways: dict[int, dict[Sender, Way]] = {}
        self._flows: dict[Flow, list[Conversation]] = {}
        self._recent: OrderedDict[int, Way] = OrderedDict()
        self._recent_bytes = 0
        self._waiting: dict[Flow, deque[_Waiting]] = {}  # by source and target
        self._waiting_bytes = 0

    def take(self, packet: Packet) -> None:
        """Take the next packet of the capture."""
        super().take(packet)
        unit = wanted(self._own, packet, self._ports)
        if unit is not None and len(self.met) < MOST_MET:
            self.met.update(met_in(unit))
        if type(unit) is Segment:
            self._notes.write(NOTE.pack(*self._placed(unit)))
            self.segments += 1

    def said(self) -> frozenset[bytes]:
        """Return words that strangers said in their first bytes and that must not be in the result."""
        sides = [side for plan in self.plans.values() for side in plan.sides.values() if side.original]
        words: dict[bytes, None] = {}
        for side in sides[:WORDS]:
            words.update(dict.fromkeys(WORD.findall(side.original.lower())))
        # Some are words of a protocol elsewhere, which stay.
        stays = b" ".join({side.opening.lower() for side in sides})
        return frozenset(islice((word for word in words if word not in stays), WORDS))

    def _placed(self, segment: Segment) -> tuple[int, int]:
        """Return the conversation of a payload and its place there, as far as TCP has delivered it by now."""
        if not segment.payload:
            return 0, 0
        found = self._delivered(segment)
        if found is None:
            self._wait(segment)
        return found or (0, 0)

    def _delivered(self, segment: Segment) -> tuple[int, int] | None:
        for c in reversed(self._flows.get(segment.flow, ())):
            if c.finished or c.stored_size:
                continue
            sender = c.sender_of(segment)
            stream = c.lanes[sender is Sender.SERVER].stream
            offset = stream.offset_of(segment.seq) + bool(segment.flags & SYN)
            if offset >= 0 and self._ways[c.number][sender].says(offset, segment.payload):
                return c.number, offset
        return None

    def _wait(self, segment: Segment) -> None:
        """Remember a payload until the bytes before it have come, or the same bytes in another packet."""
        ends = (segment.source, segment.source_port, segment.target, segment.target_port)
        waiting = self._waiting.setdefault(ends, deque())
        waiting.append(_Waiting(self.segments, segment))
        self._waiting_bytes += len(segment.payload)
        if len(waiting) > MOST_WAITING:
            self._waiting_bytes -= len(waiting.popleft().segment.payload)
        while self._waiting_bytes > WAITING_BYTES:
            self._let_go(next(iter(self._waiting)))

    def _let_go(self, ends: Flow) -> None:
        for late in self._waiting.pop(ends, ()):
            self._waiting_bytes -= len(late.segment.payload)

    def _settle(self, c: Conversation, sender: Sender, way: Way) -> None:
        """Look which of the payloads that wait are among the bytes that have been delivered by now."""
        ends = _ends_of(c, sender)
        waiting = self._waiting.get(ends)
        if not waiting:
            return
        base = c.lanes[sender is Sender.SERVER].stream.base or 0
        left: deque[_Waiting] = deque()
        for late in waiting:
            offset = offset_near(base, way.end, late.segment.seq) + bool(late.segment.flags & SYN)
            if offset + len(late.segment.payload) > way.end:
                left.append(late)
                continue
            self._waiting_bytes -= len(late.segment.payload)
            if offset >= 0 and way.says(offset, late.segment.payload):
                self._notes.seek(late.place * NOTE.size)
                self._notes.write(NOTE.pack(c.number, offset))
                self._notes.seek(0, 2)
        self._waiting[ends] = left

    # -- conversations as they come and go ------------------------------------------------------------------

    def _begun_here(self, conversation: Conversation) -> None:
        self._ways[conversation.number] = {sender: Way() for sender in Sender}
        self._flows.setdefault(_flow_of(conversation), []).append(conversation)
        conversation.tap = _Tap(self, conversation)
        look = conversation.on_frame

        def on_frame(c: Conversation, frame: Frame) -> str | None:
            dead = look(c, frame) if look is not None else None
            know_frame(self._ways[c.number][frame.sender], frame, dead)
            return dead

        conversation.on_frame = on_frame

    def delivered(self, c: Conversation, sender: Sender, data: bytes) -> None:
        """Take note of bytes that TCP delivers."""
        way = self._ways[c.number][sender]
        self._recent_bytes += way.take(data)
        self._recent[id(way)] = way
        self._recent.move_to_end(id(way))
        while self._recent_bytes > MOST_RECENT:
            _, silent = self._recent.popitem(last=False)
            self._recent_bytes -= len(silent.recent)
            silent.recent.clear()
        if self._waiting:
            self._settle(c, sender, way)

    def missing(self, c: Conversation, sender: Sender, length: int) -> None:
        """Take note of a hole."""
        way = self._ways[c.number][sender]
        self._recent_bytes -= len(way.recent)
        if length < RECENT:
            way.recent += bytes(length)
        else:
            way.recent.clear()
        self._recent_bytes += len(way.recent)
        way.end += length

    def _end(self, conversation: Conversation) -> None:
        super()._end(conversation)
        ways = self._ways.pop(conversation.number)
        flow = _flow_of(conversation)
        others = [c for c in self._flows.get(flow, ()) if c is not conversation]
        if others:
            self._flows[flow] = others
        else:
            self._flows.pop(flow, None)
        for sender, way in ways.items():
            if not others:
                self._let_go(_ends_of(conversation, sender))
            if self._recent.pop(id(way), None) is not None:
                self._recent_bytes -= len(way.recent)
        device = conversation.device
        sides = {sender: _side(conversation, sender, ways[sender]) for sender in Sender}
        self.plans[conversation.number] = Plan(conversation.kind, (device.address, device.port), sides)


def wanted(decoder: Decoder, packet: Packet, ports: frozenset[int]) -> Unit | None:
    """Decode a packet that either reading may be interested in; None for TCP of other ports, told at a glance."""
    glance = tcp_ports(packet)
    if glance is not None and not ports.intersection(glance):
        return None
    unit = decoder.decode(packet)
    if type(unit) is Segment and unit.source_port not in ports and unit.target_port not in ports:
        return None
    return unit


def met_in(unit: Unit) -> Iterable[bytes]:
    """Return the addresses and hardware addresses that a unit names."""
    if type(unit) is Segment:
        return filter(None, (unit.source, unit.target, unit.source_mac, unit.target_mac))
    if type(unit) is Arp:
        return filter(None, (unit.sender, unit.target, unit.sender_mac))
    if type(unit) is IcmpError:
        return (unit.reporter, unit.quoted_source, unit.quoted_target)
    return (unit.source, unit.target) if type(unit) is Datagram else ()


def know_frame(way: Way, frame: Frame, dead: str | None) -> None:
    """List a frame as known, if it can be a sealed one; else its length alone, so that those behind it are found.

    ``dead`` is what it says when it is sealed with a key that everybody knows: then it must say nothing of its owner.
    """
    sealed = frame.ciphertext if frame.ciphertext is not None else frame.head
    if frame.index < EARLY:
        way.early.append(frame.offset + frame.size)
    telling = dead is not None and dead.endswith(DEAD_KEYS[UNDER_ZERO_KEY]) and not dead.startswith(SAYS_NOTHING)
    if telling or not is_noise(sealed):
        sealed = b""
    way.sealed += len(sealed)
    way.letters += _letters(sealed)
    way.know(frame.offset, frame.offset + LENGTH_PREFIX + len(sealed))


def _letters(data: bytes) -> int:
    return blank(data).count(b"x")


def _side(c: Conversation, sender: Sender, way: Way) -> Side:
    """Return what of a direction may be copied, now that all of it is known."""
    if c.kind != "spark":
        original = bytes(way.opening)
        return Side(opening=blank_opening(c.kind, original), original=original)
    side = c.sides[sender]
    known = array("Q")
    if way.letters <= noise_limit(way.sealed):  # else it is something that merely has lengths like ours
        known = way.known
    if side.rest >= LENGTH_PREFIX:
        way.know(way.end - side.rest, way.end - side.rest + LENGTH_PREFIX)
    login = array("Q")
    if side.early <= len(way.early):
        at = way.early[side.early - 1] if side.early else 0
        for part in side.parts:
            if not part.first_packet:
                continue  # it was sent before the capture began
            if part.data is not None and is_noise(part.data):
                login.extend((at, at + part.size))
            at += part.sent
    return Side(known=_merged(login, known))


def _merged(*several: array[int]) -> array[int]:
    """Put runs of bytes in order, and those that touch together."""
    runs = sorted((each[i], each[i + 1]) for each in several for i in range(0, len(each), 2))
    merged = array("Q")
    for start, stop in runs:
        if merged and merged[-1] >= start:
            merged[-1] = max(merged[-1], stop)
        else:
            merged.extend((start, stop))
    return merged


class _Tap:
    """Passes on what TCP delivers in one conversation."""

    __slots__ = ("_conversation", "_survey")

    def __init__(self, survey: Survey, conversation: Conversation) -> None:
        self._survey = survey
        self._conversation = conversation

    def receive(self, sender: Sender, data: bytes, packet: int, time_ns: int) -> None:
        self._survey.delivered(self._conversation, sender, bytes(data))

    def skip(self, sender: Sender, hole: Hole) -> None:
        self._survey.missing(self._conversation, sender, hole.length)


def _ends_of(c: Conversation, sender: Sender) -> Flow:
    near, far = (c.device, c.server) if sender is Sender.DEVICE else (c.server, c.device)
    return near.address, near.port, far.address, far.port


def _flow_of(c: Conversation) -> Flow:
    near, far = (c.device.address, c.device.port), (c.server.address, c.server.port)
    return (*near, *far) if near <= far else (*far, *near)
