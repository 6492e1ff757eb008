"""Finished conversations, packed to a few hundred bytes until somebody asks for more than when and between whom.

Of a capture with a million connections most are looked at twice or three times after their end. In between, what was
seen of one is bytes: its times, places and counts as `marshal` writes them, deflated against what all have in common,
and the random bytes of its login as they are. `Warm` says which of them are objects at the moment.
"""

from __future__ import annotations

import marshal
import pickle
import zlib
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from analyzer.frames import LostBoundary
from analyzer.handshake import STEPS, Part
from analyzer.misparse.words import NO_ROWS, RowsSeen
from analyzer.seen import NO_FRAMES, NO_TRIPS, NOTHING, Closing, FrameSeen, Kept, Seen, Side, shared_quality
from analyzer.spread import Spread
from analyzer.streams import Sender

if TYPE_CHECKING:
    from analyzer.conversation import Conversation

WARM: Final = 1024
"""Connections that came to nothing and are objects at the same time, at some 4 kB each: all of them in nearly every
capture."""
WARM_SESSIONS: Final = 16_384
"""The same of sessions. More is asked of them, their messages are objects all the same, and of so many, those that are
still open take ten times as much."""
MARSHAL: Final = 2
"""The version of `marshal`'s format: later ones look for what occurs twice, which takes longer and saves little."""
LEVEL: Final = 1
"""How hard zlib tries: more saves 20 bytes in a hundred, and takes half as long again."""
RAW: Final = -12
"""No checksum, and a window of 4 KiB: nothing here is larger."""
MEMORY: Final = 5
"""Of zlib's 9 steps of memory: what has to be got ready for each conversation."""

_DEVICE, _SERVER = Sender
SIZE: Final = 3
"""Bytes that tell how long the deflated part is."""
_Values = tuple[Any, ...]


class Warm:
    """The finished conversations that are objects now. Of too many, the one that was so first becomes bytes again."""

    __slots__ = ("_others", "_sessions")

    def __init__(self) -> None:
        self._sessions: deque[ref[Conversation]] = deque()
        self._others: deque[ref[Conversation]] = deque()

    def hold(self, conversation: Conversation) -> None:
        """Count one in that has just finished, or was just unpacked."""
        if conversation.reached == "established":
            held, most = self._sessions, WARM_SESSIONS
        else:
            held, most = self._others, WARM
        held.append(ref(conversation))
        if len(held) > most and (first := held.popleft()()) is not None:
            first.cool()


WARM_ONES: Final = Warm()
"""Those of this process: what was unpacked last is likely to be asked for next, whichever capture it is from."""


def packed(c: Conversation) -> bytes:
    """Return all that is `Kept` of a conversation."""
    zero, raw = (c.first_packet, c.start_ns), list[bytes]()
    rare = c.dead_frames, c.holes, c.device_side.lost, c.server_side.lost
    values = (
        c.kept.edges,
        tuple([_closing(one, *zero) for one in c.closings]),
        _seen(c.connected, *zero),
        bytes(c.framed),
        _seen(c.nonce_acked, *zero),
        _seen(c.reply_acked, *zero),
        (c.rows.total, c.rows.few, c.rows.line) if c.rows is not NO_ROWS else None,
        None if c.server_hello is None else _frame(c.server_hello),
        _seen(c.syn_ack, *zero),
        c.syn_count,
        tuple([_seen(syn, *zero) for syn in c.syns]),
        _side(c.device_side, *zero, raw),
        _side(c.server_side, *zero, raw),
        pickle.dumps(rare, pickle.HIGHEST_PROTOCOL) if any(rare) else None,
    )
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, RAW, MEMORY, zdict=_pattern())
    plain = packer.compress(marshal.dumps(values, MARSHAL)) + packer.flush()
    return b"".join((len(plain).to_bytes(SIZE, "little"), plain, *raw))


def unpacked(blob: bytes, packet: int, time_ns: int) -> Kept:
    """Return what was packed. ``packet`` and ``time_ns`` are those with which the conversation began."""
    at = SIZE + int.from_bytes(blob[:SIZE], "little")
    plain = zlib.decompressobj(RAW, zdict=_pattern()).decompress(blob[SIZE:at])
    edges, closings, connected, framed, nonce, reply, rows, hello, syn_ack, count, syns, device, server, rare = (
        marshal.loads(plain)  # noqa: S302 - this process, or a worker of ours, has written it
    )
    dead, holes, lost, others = pickle.loads(rare) if rare is not None else ((), (), (), ())  # noqa: S301 - likewise
    again = _Unpacking(blob, at, packet, time_ns)
    seen = again.seen
    return Kept(
        tuple([again.closing(*told) for told in closings]),
        seen(connected),
        dead,
        again.side(device, _DEVICE, lost),
        bytearray(framed) if framed else NO_FRAMES,
        holes,
        seen(nonce),
        seen(reply),
        RowsSeen(*rows) if rows is not None else NO_ROWS,
        None if hello is None else FrameSeen(_SERVER, *hello),
        again.side(server, _SERVER, others),
        seen(syn_ack),
        count,
        tuple([again.packet(syn) for syn in syns]),
        edges,
    )


class _Unpacking:
    """Makes objects again of what was packed; the random bytes are taken from ``at`` on, in the order of packing."""

    __slots__ = ("_at", "_blob", "_packet", "_time_ns")

    def __init__(self, blob: bytes, at: int, packet: int, time_ns: int) -> None:
        self._blob, self._at = blob, at
        self._packet, self._time_ns = packet, time_ns

    def seen(self, values: _Values | None) -> Seen | None:
        return None if values is None else self.packet(values)

    def packet(self, values: _Values) -> Seen:
        return Seen(self._packet + values[0], self._time_ns + values[1], values[2])

    def closing(self, is_device: bool, how: str, after: int, later: int, ttl: int) -> Closing:
        return Closing(_DEVICE if is_device else _SERVER, how, self._packet + after, self._time_ns + later, ttl)

    def side(self, values: _Values | None, sender: Sender, lost: Sequence[LostBoundary]) -> Side:
        if values is None:
            return NOTHING
        counts, trips, (captured, sent, acked, frames, dead, longest, first_size), seen, numbers, opening, own = values
        first, last, latest, unacked = map(self.seen, seen)
        tries, skipped, rest, early, midway, before = numbers
        return Side(
            shared_quality(counts),
            NO_TRIPS if trips is None else Spread.of_packed(trips),
            captured,
            sent,
            acked,
            frames,
            dead,
            longest,
            first,
            first_size,
            last,
            latest,
            unacked,
            tries,
            lost,
            skipped,
            rest,
            self._raw(opening),
            tuple([self._part(sender, step, *told) for step, told in zip(STEPS[sender], own, strict=False)]),
            early,
            midway,
            before,
        )

    def _part(self, sender: Sender, step: tuple[str, int], *told: Any) -> Part:
        kind, size = step
        has_data, pieces, received, missing, *places = told
        data = self._raw(size) if has_data else None
        if not places:
            return Part(kind, sender, size, received, missing, data, pieces=pieces)
        first, first_ns = self._packet + places[0], self._time_ns + places[1]
        last, last_ns = first + places[2], first_ns + places[3]
        return Part(kind, sender, size, received, missing, data, first, first_ns, last, last_ns, pieces)

    def _raw(self, size: int) -> bytes:
        begin = self._at
        self._at = begin + size
        return self._blob[begin : self._at]


def _seen(seen: Seen | None, packet: int, time_ns: int) -> _Values | None:
    """Places and times are told from the beginning on: small numbers take less room."""
    return None if seen is None else (seen.packet - packet, seen.time_ns - time_ns, seen.ttl)


def _closing(one: Closing, packet: int, time_ns: int) -> _Values:
    return one.sender is _DEVICE, one.how, one.packet - packet, one.time_ns - time_ns, one.ttl


def _frame(frame: FrameSeen) -> _Values:
    """A frame of the server."""
    return frame.index, frame.size, frame.packet, frame.time_ns, frame.follows_gap, frame.dead


def _side(side: Side, packet: int, time_ns: int, raw: list[bytes]) -> _Values | None:
    if side is NOTHING:
        return None
    raw += (side.opening, *(part.data for part in side.parts if part.data is not None))
    seen = side.first_data, side.last_data, side.last_any, side.unacked_since
    return (
        side.quality.counts,
        None if side.round_trips is NO_TRIPS else side.round_trips.packed(),
        (side.captured, side.sent, side.acked, side.frames, side.dead, side.longest, side.first_size),
        tuple([_seen(one, packet, time_ns) for one in seen]),
        (side.unacked_tries, side.skipped, side.rest, side.early, side.midway, side.before),
        len(side.opening),
        tuple([_part(part, packet, time_ns) for part in side.parts]),
    )


def _part(part: Part, packet: int, time_ns: int) -> _Values:
    """A handshake message; which one, is told by its place. One that came before the capture has no packet."""
    if not part.first_packet:
        return part.data is not None, part.pieces, part.received, part.missing
    began = part.first_packet - packet, part.first_ns - time_ns
    ended = part.packet - part.first_packet, part.time_ns - part.first_ns
    return part.data is not None, part.pieces, part.received, part.missing, *began, *ended


@lru_cache(maxsize=1)
def _pattern() -> bytes:
    """What the packed have in common: a call that nobody answers, and a login that fails."""
    counts, seen, closing = (0,) * 10, (1, 1 << 26, 64), (True, "fin", 1, 1 << 26, 64)
    part = True, None, 256, 0, 1, 1 << 26, 0, 0
    trips = 1 << 24, 1 << 24, bytes(12)
    numbers = 0, 0, 0, False, False, 0
    called = counts, None, (0,) * 7, (None, None, seen, None), numbers, 0, ()
    login = counts, trips, (256, 256, 256, 0, 0, 0, 256), (seen, seen, seen, None), numbers, 0, (part, part)
    one = bytes(64), (), None, b"", None, None, None, None, None, 1, (seen,), called, None, None
    other = bytes(64), (closing, closing), seen, b"", seen, seen, None, None, seen, 1, (seen,), login, login, None
    return b"".join(marshal.dumps(values, MARSHAL) for values in (one, other))
