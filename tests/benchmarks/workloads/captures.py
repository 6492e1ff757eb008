"""Capture files: four formats, and one capture cut into several files."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

Format = Literal["pcap", "pcap-ns", "pcap-be", "pcapng"]
FORMATS: Final[tuple[Format, ...]] = ("pcap", "pcap-ns", "pcap-be", "pcapng")
SNAPLEN: Final = 262_144
COPIED: Final = 1 << 20
PLACES: Final = 4096
"""Packet boundaries remembered at most, as places to cut the file."""
Record = Callable[[int, bytes], bytes]


class Writer:
    """Writes packets in the order in which they come; times are microseconds since 1970."""

    def __init__(self, path: Path, form: Format, link_type: int) -> None:
        self.path = path
        self.packets = 0
        self._header, self._record = _pcapng(link_type) if form == "pcapng" else _pcap(form, link_type)
        self._file = path.open("wb", buffering=1 << 20)
        self._file.write(self._header)
        self._at = len(self._header)
        self._places: list[int] = []
        self._every = 1

    def write(self, time: int, packet: bytes) -> None:
        """Add a packet."""
        if self.packets % self._every == 0:
            self._remember()
        self.packets += 1
        self._at += self._file.write(self._record(time, packet))

    def _remember(self) -> None:
        if len(self._places) == PLACES:
            del self._places[1::2]
            self._every *= 2
            if self.packets % self._every:
                return
        self._places.append(self._at)

    def close(self, files: int = 1) -> list[Path]:
        """Finish; with more than one of ``files``, cut at packets, as a ring buffer leaves them."""
        self._file.close()
        if files == 1:
            return [self.path]
        size = self._at - len(self._header)
        wanted = [len(self._header) + size * part // files for part in range(1, files)]
        cuts = [min(self._places, key=lambda place: abs(place - at)) for at in wanted]
        paths = []
        with self.path.open("rb") as whole:
            for part, (begin, end) in enumerate(zip([len(self._header), *cuts], [*cuts, self._at], strict=True), 1):
                paths.append(self.path.with_stem(f"{self.path.stem}_{part:05}"))
                with paths[-1].open("wb") as file:
                    file.write(self._header)
                    whole.seek(begin)
                    _copy(whole.read, file.write, end - begin)
        self.path.unlink()
        return paths


def _copy(read: Callable[[int], bytes], write: Callable[[bytes], object], length: int) -> None:
    while length:
        piece = read(min(length, COPIED))
        write(piece)
        length -= len(piece)


def _pcap(form: Format, link_type: int) -> tuple[bytes, Record]:
    order = ">" if form == "pcap-be" else "<"
    magic, fraction = (0xA1B23C4D, 1000) if form == "pcap-ns" else (0xA1B2C3D4, 1)
    pack = struct.Struct(f"{order}IIII").pack

    def record(time: int, packet: bytes) -> bytes:
        seconds, micros = divmod(time, 1_000_000)
        return pack(seconds, micros * fraction, len(packet), len(packet)) + packet

    return struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, SNAPLEN, link_type), record


def _pcapng(link_type: int) -> tuple[bytes, Record]:
    section = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
    interface = struct.pack("<IIHHII", 1, 20, link_type, 0, SNAPLEN, 20)
    pack = struct.Struct("<IIIIIII").pack

    def record(time: int, packet: bytes) -> bytes:
        padding = -len(packet) % 4
        length = 32 + len(packet) + padding
        head = pack(6, length, 0, time >> 32, time & 0xFFFFFFFF, len(packet), len(packet))
        return b"".join((head, packet, bytes(padding), length.to_bytes(4, "little")))

    return section + interface, record
