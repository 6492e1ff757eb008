"""Writers for capture files in every variant, byte by byte, so that the tests say what is in them."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

SECTION, INTERFACE, OLD, SIMPLE, ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6
START = 1_700_000_000


def pcap_header(order: str = "<", magic: int = 0xA1B2C3D4, link_type: int = 1) -> bytes:
    return struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262_144, link_type)


def record(data: bytes, seconds: int, fraction: int = 0, original: int | None = None, order: str = "<") -> bytes:
    length = len(data) if original is None else original
    return struct.pack(order + "IIII", seconds, fraction, len(data), length) + data


def pcap(payloads: Iterable[bytes], *, start: int = START, step: int = 1) -> bytes:
    """An ordinary pcap file: one packet each ``step`` seconds."""
    return pcap_header() + b"".join(record(data, start + i * step, i) for i, data in enumerate(payloads))


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def option(code: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(order: str = "<", length: int = -1) -> bytes:
    return block(SECTION, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, length), order)


def interface(order: str = "<", link_type: int = 1, snap_length: int = 0, options: bytes = b"") -> bytes:
    return block(INTERFACE, struct.pack(order + "HHI", link_type, 0, snap_length) + options, order)


def enhanced(data: bytes, ticks: int, place: int = 0, original: int | None = None, order: str = "<") -> bytes:
    length = len(data) if original is None else original
    fields = struct.pack(order + "IIIII", place, ticks >> 32, ticks & 0xFFFF_FFFF, len(data), length)
    return block(ENHANCED, fields + data + bytes(-len(data) % 4) + option(2, b"\0\0\0\0", order), order)


def old(data: bytes, ticks: int, place: int = 0, order: str = "<") -> bytes:
    fields = struct.pack(order + "HHIIII", place, 7, ticks >> 32, ticks & 0xFFFF_FFFF, len(data), len(data))
    return block(OLD, fields + data, order)


def simple(data: bytes, original: int | None = None, order: str = "<") -> bytes:
    return block(SIMPLE, struct.pack(order + "I", len(data) if original is None else original) + data, order)


def pcapng(payloads: Iterable[bytes], *, start: int = START, name: bytes = b"eth0") -> bytes:
    """An ordinary pcapng file: one packet each second."""
    packets = (enhanced(data, (start + i) * 1_000_000 + i) for i, data in enumerate(payloads))
    return section() + interface(options=option(2, name)) + b"".join(packets)


def payloads(count: int, size: int = 60, first: int = 0) -> list[bytes]:
    """Contents that differ from packet to packet and look like no header."""
    return [bytes((0xA0 + i % 0x50,)) * size for i in range(first, first + count)]


def with_checksum(data: bytes) -> bytes:
    """An Ethernet frame with an IPv4 segment whose TCP checksum is right."""
    tcp = data[34:50] + b"\0\0" + data[52:]
    pseudo = data[26:34] + b"\0\x06" + len(tcp).to_bytes(2)
    total = int.from_bytes(pseudo + tcp + bytes(len(tcp) % 2)) % 0xFFFF
    return data[:50] + (0xFFFF - total).to_bytes(2) + data[52:]


def wireshark(path: Path, *fields: str) -> list[list[str]]:
    """What tshark says about each frame."""
    wanted = [part for name in fields for part in ("-e", name)]
    command: Sequence[str] = ["tshark", "-n", "-r", str(path), "-T", "fields", *wanted]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return [line.split("\t") for line in run.stdout.splitlines()]
