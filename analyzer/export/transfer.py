"""One firmware update as it goes on: every chunk checked and put where it belongs (PROTOCOL 5.5).

The fast form numbers its chunks. The slow form does not: the server sends the next one when the device has
accepted the last, the same again when it was refused, and goes back when a chunk is reported as missed. So the
offset of a slow chunk follows from the device's answers; where those are not in the capture, from the message
ids, and then an image only counts as complete if it ends where it was announced to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from analyzer.coap import CODES, CON, NON, CoapMessage
from analyzer.message_table import RESPONSE_TO_UNKNOWN
from analyzer.messages import SparkMessage

LARGEST_IMAGE: Final = 16 << 20
"""Bytes of one image that are kept; the flash of these devices has 1 or 2 MiB. Chunks beyond are counted and
left out, so the image is incomplete and says why."""
MOST_CHUNKS: Final = 1 << 16
"""Chunks of one image that are kept: an index has 16 bits."""
_MOST_LOST_AT_FIRST: Final = 256
"""Message ids that may be missing before a server has shown that it counts them up by one."""
_MOST_RESTARTS: Final = 64
"""ChunkMissed of the slow form that wait for the server's acknowledgement."""
_IDS: Final = 1 << 16

Range = tuple[int, int]
"""First byte and the byte behind the last one."""


@dataclass(frozen=True, slots=True)
class FirmwareImage:
    """What one update transferred. Sizes and offsets in bytes; a refused update without chunks is no image.

    ``size`` is the announced length; without one (``length_announced`` False) that of all chunks with their
    padding. ``complete`` means that every byte is there, its offset beyond doubt and its CRC right (where one
    was sent: see ``notes``, phrases for people); ``missing`` lists the ranges that are not there. ``sha256``
    (hex) is None unless complete. ``accepted`` is the device's last answer to UpdateDone, None when there is
    none. ``chunks`` counts distinct offsets, ``repeated`` copies of what was there already, ``refused`` 4.00
    answers to a chunk, ``missed`` requests to send chunks again. ``chunk_size``, ``store`` (0 firmware, 1
    system storage, 128 application) and ``address`` are as announced, the first also as seen. ``stored_file``
    is True for SaveBegin.
    """

    number: int
    size: int
    sha256: str | None
    complete: bool
    chunks: int
    missing: tuple[Range, ...]
    crc_failures: int
    repeated: int
    refused: int
    missed: int
    chunk_size: int | None
    store: int | None
    address: int | None
    length_announced: bool
    fast: bool
    stored_file: bool
    accepted: bool | None
    first_packet: int
    last_packet: int
    notes: tuple[str, ...]
    pieces: tuple[tuple[int, bytes], ...] = field(repr=False)

    @property
    def data(self) -> bytes:
        """The image up to the last byte that is there; what is missing before it is filled with zeros."""
        return _joined(self.pieces, self.size)


@dataclass(slots=True)
class _Sent:
    """The latest chunk of the slow form, until the device has answered it."""

    index: int
    offset: int
    end: int


@dataclass(slots=True)
class Transfer:
    """One update while it goes on, from its announcement or the first chunk that the capture has."""

    first_packet: int
    announced: bool
    absolute: bool = True
    """False when the update began before the capture and nothing has told an offset yet."""
    chunk_size: int | None = None
    length: int | None = None
    store: int | None = None
    address: int | None = None
    stored_file: bool = False
    announcement: tuple[int, bytes] | None = None
    pieces: dict[int, bytes] = field(default_factory=dict)
    full: bool = False
    beyond: int = 0
    chunk_messages: int = 0
    first_size: int = 0
    fast: bool = False
    by_order: bool = False
    """A chunk came without an index."""
    crc_failures: int = 0
    unchecked: int = 0
    repeated: int = 0
    refused: int = 0
    missed: int = 0
    conflicts: int = 0
    accepted: bool | None = None
    gave_up: bool = False
    last_packet: int = 0
    # The slow form: where the next chunk belongs, and how sure that is.
    at: int = 0
    waiting: _Sent | None = None
    offsets: dict[int, int] = field(default_factory=dict)
    restarts: dict[int, int] = field(default_factory=dict)
    answers_alone: int = 0
    last_answer: int | None = None
    ended: bool = False
    counts_up: bool = False
    unanswered: bool = False
    """An answer is not in the capture. Taking it for the usual one can only put later chunks too far on."""
    unsure: bool = False
    """Messages are not in the capture, or an answer was not before a restart: the end proves nothing."""

    @property
    def stride(self) -> int:
        """Bytes from one chunk to the next: as announced, unless the chunks themselves are larger."""
        return max(self.chunk_size or 0, self.first_size)

    # -- the server's side ----------------------------------------------------------------------------------

    def is_announced_again_by(self, coap: CoapMessage) -> bool:
        """Tell whether this UpdateBegin is a further try, or the very message again, and no other update."""
        return not self.chunk_messages or self.announcement == (coap.message_id, coap.token)

    def announce(self, message: SparkMessage, coap: CoapMessage) -> None:
        """Take the particulars. The legacy server's last try has none: then those of the tries before hold."""
        self.announcement = coap.message_id, coap.token
        self.stored_file = message.name == "SaveBegin"
        self.last_packet = message.packet
        values = message.values
        if coap.payload:
            self.chunk_size, self.length = values["chunk_size"] or None, values["file_length"] or None
            self.store, self.address = values["store"], values["address"]

    def take_chunk(self, message: SparkMessage, coap: CoapMessage, last_id: int | None) -> None:
        """Put a chunk where it belongs, if its CRC is right. ``last_id`` is that of the server's message before."""
        self.chunk_messages += 1
        if self.accepted:
            self.repeated += 1  # asked for twice, and on its way when the device had all
            return
        self.last_packet = message.packet
        self.first_size = self.first_size or len(coap.payload)
        index = message.values["index"]
        if index is not None:
            self.fast = True
            offset = index * self.stride
        elif coap.message_id in self.offsets:
            offset = self.offsets[coap.message_id]
        else:
            self.by_order = True
            self._settle(coap.message_id, last_id)
            offset = self.at
            if len(self.offsets) < MOST_CHUNKS:
                self.offsets[coap.message_id] = offset
            self.waiting = _Sent(message.index, offset, offset + len(coap.payload))
        self._place(offset, coap.payload, message.values["crc_ok"])

    def restart(self, index: int) -> None:
        """Go back (or on) to the chunk with that index: the server has acknowledged a ChunkMissed."""
        self.at = index * self.stride
        self.waiting = None
        self.answers_alone = 0
        self.unsure |= self.unanswered

    def take_end(self, coap: CoapMessage, last_id: int | None) -> None:
        """Take the server's UpdateDone; a repeat of it tells nothing new."""
        self.ended = True
        if coap.message_id != last_id:
            self._settle(coap.message_id, last_id)

    def _settle(self, message_id: int, last_id: int | None) -> None:
        """Account for what happened since the last chunk and is not in the capture."""
        if self.waiting is not None:
            self.unanswered = True
            self.at = self.waiting.end
            self.waiting = None
            if self.restarts:
                # The answer was a ChunkMissed; only that the server heard of it is not in the capture.
                self.restart(self.restarts.popitem()[1])
        lost = 0
        if last_id is not None and (self.announced or self.chunk_messages > 1):
            step = (message_id - last_id) % _IDS
            if step == 1:
                self.counts_up = True
            elif self.counts_up or 1 < step <= _MOST_LOST_AT_FIRST:
                self.unsure = True
                lost = step - 1 if 1 < step < _IDS // 2 else 0
        lost = max(lost, self.answers_alone)
        self.answers_alone = 0
        if lost:
            self.unsure = True
            self.at += lost * self.stride

    def _place(self, offset: int, data: bytes, crc_ok: bool | None) -> None:
        if crc_ok is False:
            self.crc_failures += 1
            return
        known = self.pieces.get(offset)
        if known is not None:
            self.repeated += 1
            self.conflicts += known != data
        elif self.full or len(self.pieces) >= MOST_CHUNKS or offset + len(data) > LARGEST_IMAGE:
            self.beyond += 1
            return
        self.unchecked += crc_ok is None
        self.pieces[offset] = data

    # -- the device's side ----------------------------------------------------------------------------------

    def take_answer(self, message: SparkMessage, coap: CoapMessage) -> None:
        """Take what the device says to the update."""
        name = message.name
        if name == "ChunkReceived":
            self._take_received(message)
            self.last_answer = coap.message_id
        elif name == "ChunkMissed":
            self._take_missed(message, coap)
        elif name == "UpdateDoneAck":
            self.accepted = "error" not in message.values
        elif name == "UpdateDone":
            self.accepted = True
        elif name == "UpdateAbort":
            self.gave_up = True
        elif name == RESPONSE_TO_UNKNOWN.name and message.answers is None:
            # Nothing else is 2.04 without a payload during an update: a chunk that the capture does not have.
            if coap.type == NON and coap.code == CODES["2.04"] and not coap.payload and self.chunk_messages:
                self.answers_alone += coap.message_id != self.last_answer
                self.last_answer = coap.message_id
            return
        else:
            return
        self.last_packet = message.packet

    def _take_received(self, message: SparkMessage) -> None:
        accepted = message.values["accepted"]
        self.refused += not accepted
        waiting = self.waiting
        if waiting is not None and message.answers == waiting.index:
            self.at = waiting.end if accepted else waiting.offset
            self.waiting = None

    def _take_missed(self, message: SparkMessage, coap: CoapMessage) -> None:
        self.missed += 1
        indexes = message.values["indexes"]
        if self.fast or not indexes:
            return
        # What is on its way was sent before the server heard of it, so going back waits for its answer.
        if coap.type == CON:
            if len(self.restarts) >= _MOST_RESTARTS:
                del self.restarts[next(iter(self.restarts))]
            self.restarts[message.index] = indexes[0]
        elif self.absolute:
            self.restart(indexes[0])

    # -- the result -----------------------------------------------------------------------------------------

    def image(self, number: int) -> FirmwareImage:
        """Return what has come of it."""
        pieces = tuple(sorted(self.pieces.items()))
        covered = pieces[-1][0] + len(pieces[-1][1]) if pieces else 0
        end = max(covered, self.at) if self.by_order else covered
        size = end if self.length is None else self.length
        missing = tuple(_missing(pieces, size))
        complete = self.absolute and not missing and not self.conflicts and size > 0 and self._ends_well(end)
        return FirmwareImage(
            number,
            size,
            hashlib.sha256(_joined(pieces, size)).hexdigest() if complete else None,
            complete,
            len(pieces),
            missing,
            self.crc_failures,
            self.repeated,
            self.refused,
            self.missed,
            self.chunk_size or self.first_size or None,
            self.store,
            self.address,
            self.length is not None,
            self.fast,
            self.stored_file,
            self.accepted,
            self.first_packet,
            self.last_packet,
            tuple(self._notes(end)),
            pieces,
        )

    def _ends_well(self, end: int) -> bool:
        """Tell whether nothing can have been there that the capture has not, or not here."""
        if self.length is None:
            return self.announced and self.accepted is True and not self._uncertain(end)
        return not self.by_order or (self.ended and not self._uncertain(end))

    def _uncertain(self, end: int) -> bool:
        """Tell whether offsets of the slow form, or an end that was not announced, are in doubt."""
        if self.unsure or not self.by_order:
            return self.unsure and (self.by_order or self.length is None)
        # Errors can only have moved chunks too far on, so an end at the right place rules all of them out.
        too_far = self.length is not None and end - self.length >= self.stride
        return too_far or (self.unanswered and not (self.length is not None and self.ended and end == self.at))

    def _notes(self, end: int) -> Iterator[str]:
        if not self.absolute:
            yield "the update began before the capture: offsets count from the first chunk in it"
        elif not self.announced:
            yield "the announcement of the update is not in the capture"
        if self.length is None:
            yield "the length was not announced: zeros that fill up the last chunk are still there"
        elif end - self.length >= max(self.stride, 1):
            yield f"{end - self.length} bytes more than announced were left out"
        if self._uncertain(end):
            yield "some chunks or answers are not in the capture: offsets behind them are not certain"
        if self.conflicts:
            yield f"data came again with other contents for the same offset ({self.conflicts} times): the last was kept"
        if self.unchecked:
            yield f"{self.unchecked} chunks had no CRC to check"
        if self.beyond:
            yield f"{self.beyond} chunks were left out: more than {LARGEST_IMAGE >> 20} MiB, or too many"
        if self.gave_up:
            yield "the device gave up"
        elif self.accepted is False:
            yield "the device did not accept it: chunks were missing"


def _joined(pieces: Iterable[tuple[int, bytes]], size: int) -> bytes:
    """Return the pieces at their offsets, cut at ``size``; what is missing between them is zero."""
    data = bytearray()
    for offset, piece in pieces:
        if offset > len(data):
            data += bytes(offset - len(data))
        data[offset : offset + len(piece)] = piece
    del data[size:]
    return bytes(data)


def _missing(pieces: Iterable[tuple[int, bytes]], size: int) -> Iterator[Range]:
    reached = 0
    for offset, piece in pieces:
        if reached >= size:
            return
        if offset > reached:
            yield reached, min(offset, size)
        reached = max(reached, offset + len(piece))
    if reached < size:
        yield reached, size
