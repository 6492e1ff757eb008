"""The rows that an unpatched Wireshark shows for one direction of a TCP connection on port 5683."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from analyzer.misparse import names
from analyzer.misparse.message import Head, read_head, read_message

LARGEST_MESSAGE_KEPT: Final = 128 * 1024
"""Bytes of an unfinished message that are kept. It holds every message with a one- or two-byte length (at
most 65,823 bytes) whole. Of the longer ones (a random first segment claims one in 1 of 32 cases, typically of
1 GiB, and never sees its end) the text is made from the kept part; what is past it is only counted."""


@dataclass(slots=True)
class Reading:
    """One message that Wireshark believed to see, and the bytes that made it.

    Offsets count bytes of the direction, 0 being the first one; `code` is None only for the rare message that
    ends before its code byte. `used` is the number of bytes the message claims for itself (at least its
    head), `first` its bytes up to and including the token (at most 21).
    """

    text: str
    offset: int
    used: int
    code_offset: int
    code: int | None
    token: bytes
    malformed: bool
    first: bytes


@dataclass(slots=True)
class Row:
    """One row of the packet list. `text` is the Info column, None when the row stays a TCP row.

    TCP's own remarks before the text ("[TCP Previous segment not captured] , ") are not part of it. Where a
    message with a hole ends inside the segment, Wireshark leaves the row to TCP and puts the text behind it.

    `swallowed`: the segment's first bytes were taken for the rest of a message begun in an earlier packet.
    `waiting`: Wireshark waits for more bytes after this segment (the row, or its tail, is unfinished).
    """

    packet: int
    text: str | None
    readings: tuple[Reading, ...] = ()
    malformed: bool = False
    swallowed: bool = False
    waiting: bool = False


class CoapTcpReader:
    """What Wireshark 3.2 and later make of one direction of a connection (rules and texts of 4.0).

    3.6 and 4.2 to 4.6 print another text in fewer than 1 % of rows. Not known here: when the device's port
    belongs to another protocol (1080, 1099 ...), Wireshark asks that one's dissector first.

    Feed it exactly the segments that Wireshark's TCP hands to subdissectors with default preferences: with
    payload, in order of their sequence numbers. Retransmissions, segments that come late, keep-alive probes
    and segments cut off by the snapshot length are never handed on, so leave them out; a segment that follows
    a hole is handed on. One object for each direction and connection.

    With `desegment` False it does what Wireshark does with `tcp.desegment_tcp_streams` switched off: no state
    at all, a message longer than its segment stays a TCP row. (TCP then also hands on retransmissions of what
    was already acknowledged.)

    Bounded: holds at most `LARGEST_MESSAGE_KEPT` bytes, whatever length a message claims. Never raises on
    bytes.
    """

    __slots__ = ("_begun", "_desegment", "_head", "_hole", "_kept", "_received", "missing", "offset")

    def __init__(self, *, desegment: bool = True) -> None:
        self._desegment = desegment
        self.offset = 0
        """Where the next byte stands in the direction's stream."""
        self._begun = 0
        self._kept = bytearray()
        self._received = 0
        self.missing = 0
        """Bytes that the unfinished message still lacks; -1: one more segment is wanted, of any size."""
        self._head: Head | None = None
        self._hole = False

    @property
    def kept(self) -> int:
        """Bytes held for an unfinished message."""
        return len(self._kept)

    def receive(self, payload: bytes, packet: int, offset: int | None = None) -> Row:
        """Take one segment's payload; return the row that Wireshark shows for `packet`.

        `offset` is the payload's place in the direction's stream, to be given when bytes may be missing
        before it (a segment lost, or late and so never handed on): a message with such a hole never
        completes, and what follows its claimed end is read afresh.
        """
        if offset is not None and offset > self.offset:
            self._skip(offset - self.offset)
        start, self.offset = self.offset, self.offset + len(payload)
        if not payload:
            return Row(packet, None)
        if not self.missing:
            reading = self._parse(payload, start)
            return self._row(packet, [reading] if reading else [], swallowed=False)

        taken = len(payload) if self.missing < 0 else min(self.missing, len(payload))
        self._keep(payload[:taken])
        if self.missing > 0:
            return Row(packet, None, swallowed=True, waiting=True)
        first = self._finish()
        readings = [first] if first else []
        rest = payload[taken:]
        if rest and not (first and first.malformed):
            following = self._parse(rest, start + taken)
            if following:
                readings.append(following)
        return self._row(packet, readings, swallowed=True)

    def swallow(self, payload: bytes) -> None:
        """Take a segment that the unfinished message swallows without becoming whole (``missing`` says what it lacks).

        Its row says nothing.
        """
        self.offset += len(payload)
        self._received += len(payload)
        self.missing -= len(payload)
        if len(self._kept) < LARGEST_MESSAGE_KEPT:
            self._kept += payload[: LARGEST_MESSAGE_KEPT - len(self._kept)]

    def _row(self, packet: int, readings: list[Reading], *, swallowed: bool) -> Row:
        return Row(
            packet,
            _joined(readings) if readings else None,
            tuple(readings),
            any(reading.malformed for reading in readings),
            swallowed,
            self.missing != 0,
        )

    def _parse(self, data: bytes, offset: int) -> Reading | None:
        """Read the one message at the start of `data`, or begin to wait for the rest of it."""
        head = read_head(data)
        if head is not None and head.total <= len(data):
            mark = names.MALFORMED if self._desegment else names.MALFORMED_ALONE
            return _reading(data, head, offset, mark)
        if self._desegment:
            self._begun, self._head, self._hole = offset, head, False
            self._kept = bytearray(data[:LARGEST_MESSAGE_KEPT])
            self._received = len(data)
            self.missing = head.total - len(data) if head else -1
        return None

    def _keep(self, data: bytes) -> None:
        self._kept += data[: LARGEST_MESSAGE_KEPT - len(self._kept)]
        self._received += len(data)
        if self.missing > 0:
            self.missing -= len(data)
            return
        # The head was incomplete; now it is there, or one more segment is wanted again.
        self._head = read_head(self._kept)
        if self._head:
            self.missing = max(0, self._head.total - self._received)

    def _finish(self) -> Reading | None:
        if self.missing < 0:
            return None
        data, head = bytes(self._kept), self._head
        hole = self._hole
        self._kept, self._head, self.missing = bytearray(), None, 0
        if hole or head is None:
            return None
        reading = _reading(data, head, self._begun, names.MALFORMED)
        if reading.malformed and reading.code is not None and len(data) < self._received:
            # Only what was kept has ended here, not the message: its name is all that is certain.
            reading.text, reading.malformed = names.code_name(reading.code), False
        return reading

    def _skip(self, length: int) -> None:
        """Pass over bytes that TCP never handed on: they stay missing inside the message that spans them."""
        self.offset += length
        if not self.missing:
            return
        self._hole = True
        if self.missing < 0 or length >= self.missing:
            self._kept, self._head, self.missing = bytearray(), None, 0
        else:
            self.missing -= length


def _reading(data: bytes, head: Head, offset: int, malformed_mark: str) -> Reading:
    text = read_message(data, head, malformed_mark=malformed_mark)
    return Reading(
        text=text.text,
        offset=offset,
        used=max(head.total, head.code_at),
        code_offset=offset + head.code_at,
        code=text.code,
        token=text.token,
        malformed=text.malformed,
        first=data[: head.code_at + 1 + head.token_length],
    )


def _joined(readings: list[Reading]) -> str:
    """Texts of one row: Wireshark puts the comma before a code name, so a bare "Malformed" gets none."""
    first, *others = readings
    return first.text + "".join(text.text if text.code is None else f", {text.text}" for text in others)
