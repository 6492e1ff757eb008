"""Writes hostile captures of any size, a packet at a time, with a healthy session in the midst of them.

It shares nothing with what reads them but `analyzer.catalogue` and the simulator.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from benchmarks.workload import ethernet

ROOT: Final = Path(__file__).resolve().parents[2]
BYSTANDER: Final = ROOT / "captures" / "healthy-full.pcap"
"""A session that works, of `DEVICE`; whatever stands around it, its verdict has to stay the same."""
DEVICE: Final = "192.168.1.104"
SPAN_US: Final = 43_000_000
"""How long that session takes, and so each attack that does not choose its own times."""
SERVER: Final = bytes((54, 208, 229, 4))
ATTACKER: Final = bytes((10, 66, 6, 6))
PORT: Final = 5683
SYN, SYN_ACK, FIN, RST, ACK, DATA = 0x02, 0x12, 0x11, 0x14, 0x10, 0x18
PCAP: Final = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1)
IPV4, UDP_PROTOCOL = 0x0800, 17


def read_bystander() -> tuple[int, list[tuple[int, bytes]]]:
    """Return when the healthy session begins (µs since 1970), and its packets: µs since then, bytes."""
    data = BYSTANDER.read_bytes()
    packets, at = [], 24
    while at < len(data):
        seconds, micros, captured, _ = struct.unpack_from("<IIII", data, at)
        packets.append((seconds * 1_000_000 + micros, data[at + 16 : at + 16 + captured]))
        at += 16 + captured
    start = packets[0][0]
    return start, [(time - start, packet) for time, packet in packets]


class Scene:
    """A pcap file that is being written: ``count`` hostile packets, with the healthy session's between them."""

    def __init__(self, file: BinaryIO, count: int) -> None:
        self.file = file
        self.count = max(1, count)
        self.done = 0
        self.start, self._waiting = read_bystander()
        self._waiting.reverse()
        file.write(PCAP)

    def add(self, packet: bytes, at_us: int | None = None) -> None:
        """Write the next hostile packet; ``at_us`` since 1970, else in its turn."""
        now = SPAN_US * self.done // self.count
        while self._waiting and self._waiting[-1][0] <= now:
            self._healthy()
        self.done += 1
        self._record(self.start + now if at_us is None else at_us, packet)

    def close(self) -> None:
        """Write what is left of the healthy session."""
        while self._waiting:
            self._healthy()

    def _healthy(self) -> None:
        at, packet = self._waiting.pop()
        self._record(self.start + at, packet)

    def _record(self, at_us: int, packet: bytes) -> None:
        seconds, micros = divmod(at_us, 1_000_000)
        self.file.write(struct.pack("<IIII", seconds & 0xFFFFFFFF, micros, len(packet), len(packet)) + packet)


@contextmanager
def scene(path: Path, count: int) -> Iterator[Scene]:
    """Write one capture."""
    with path.open("wb", buffering=1 << 20) as file:
        made = Scene(file, count)
        yield made
        made.close()


def address(number: int) -> bytes:
    """The ``number``-th machine of a network with 16 million of them."""
    return bytes((10,)) + (1 + number).to_bytes(3, "big")


def from_device(  # noqa: PLR0917 - in the order of the header
    device: bytes, port: int, seq: int, ack: int, flags: int, payload: bytes = b""
) -> bytes:
    """A TCP segment to the server, with checksums."""
    return ethernet((device, port), (SERVER, PORT), (seq & 0xFFFFFFFF, ack & 0xFFFFFFFF), flags, payload)


def from_server(  # noqa: PLR0917 - in the order of the header
    device: bytes, port: int, seq: int, ack: int, flags: int, payload: bytes = b""
) -> bytes:
    """A TCP segment from the server, with checksums."""
    return ethernet((SERVER, PORT), (device, port), (seq & 0xFFFFFFFF, ack & 0xFFFFFFFF), flags, payload)


def ip(source: bytes, target: bytes, protocol: int, payload: bytes, *, number: int = 0, place: int = 0) -> bytes:
    """An IPv4 packet; ``place`` is the field of flags and fragment offset. Its checksum is not filled in."""
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), number & 0xFFFF, place, 64, protocol, 0)
    return head + source + target + payload


def framed(packet: bytes, source: bytes = ATTACKER, kind: int = IPV4) -> bytes:
    """An Ethernet frame around it."""
    return b"\x02\0\0\0\0\1\x02\0" + source + kind.to_bytes(2, "big") + packet


def udp(source: bytes, source_port: int, target: bytes, target_port: int, payload: bytes) -> bytes:
    """An Ethernet frame with a datagram; checksum zero: none."""
    head = struct.pack(">HHHH", source_port, target_port, 8 + len(payload), 0)
    return framed(ip(source, target, UDP_PROTOCOL, head + payload), source)
