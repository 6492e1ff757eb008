"""Firmware images out of a conversation's messages: one for each over-the-air update (PROTOCOL 5.5)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from analyzer.coap import ACK, CoapMessage
from analyzer.export.imagefiles import ExportError, save_images
from analyzer.export.transfer import FirmwareImage, Transfer
from analyzer.message_table import SERVER
from analyzer.messages import SparkMessage

__all__ = ["MOST_UPDATES", "ExportError", "FirmwareCollector", "FirmwareImage", "collect_images", "save_images"]

MOST_UPDATES: Final = 32
"""Updates of one conversation that are kept. A device restarts after each that succeeds, so one is usual."""


class FirmwareCollector:
    """Takes the messages of one conversation, in the order of the capture, and puts its updates together.

    ``dropped`` counts updates beyond `MOST_UPDATES`.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._transfers: list[Transfer] = []
        self._current: Transfer | None = None
        self._last_id: int | None = None

    def take(self, message: SparkMessage) -> None:
        """Take the next message; those that have no part in an update are ignored."""
        coap = message.coap
        if coap is None:
            return
        if message.direction == SERVER:
            self._take_from_server(message, coap)
            if coap.type < ACK:
                self._last_id = coap.message_id
        elif self._current is not None:
            self._current.take_answer(message, coap)

    def images(self) -> list[FirmwareImage]:
        """Return what has been put together so far, the update in progress included."""
        return [transfer.image(number) for number, transfer in enumerate(self._transfers, 1)]

    def _take_from_server(self, message: SparkMessage, coap: CoapMessage) -> None:
        name, current = message.name, self._current
        if name in ("UpdateBegin", "SaveBegin"):
            if current is None or not current.is_announced_again_by(coap):
                current = self._current = Transfer(message.packet, announced=True)
            current.announce(message, coap)
        elif name == "Chunk":
            indexed = message.values["index"] is not None
            if current is None or (indexed and not current.absolute):
                current = self._begin_unannounced(message, absolute=indexed)
            if not current.chunk_messages:
                self._keep(current)
            current.take_chunk(message, coap, self._last_id)
        elif current is None:
            return
        elif name == "ChunkMissedAck" and message.answers is not None:
            index = current.restarts.pop(message.answers, None)
            if index is not None:
                if not current.absolute:
                    current = self._begin_unannounced(message, absolute=True, chunk_size=current.stride)
                current.restart(index)
        elif name == "UpdateDone":
            current.take_end(coap, self._last_id)

    def _begin_unannounced(self, message: SparkMessage, *, absolute: bool, chunk_size: int | None = None) -> Transfer:
        """Begin with a chunk whose announcement is not in the capture; ``absolute`` when its offset is known."""
        self._current = Transfer(message.packet, announced=False, absolute=absolute, chunk_size=chunk_size)
        return self._current

    def _keep(self, transfer: Transfer) -> None:
        if len(self._transfers) < MOST_UPDATES:
            self._transfers.append(transfer)
        else:
            self.dropped += 1
            transfer.full = True


def collect_images(messages: Iterable[SparkMessage]) -> list[FirmwareImage]:
    """Return the images that one conversation's messages carry."""
    collector = FirmwareCollector()
    for message in messages:
        collector.take(message)
    return collector.images()
