"""Attacks by the file itself: blocks, interfaces, options, clocks, compression, growth."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import struct
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from attacks.model import Run, analyzed, attack
from attacks.scene import PCAP, SYN, address, from_device, read_bystander, scene

SECTION = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
START, HEALTHY = read_bystander()
NOISE = random.Random(2).randbytes(1 << 16)
MIB = 1 << 20
LARGEST_GROWN = 8 << 30


def block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack("<II", kind, 12 + len(body)) + body + struct.pack("<I", 12 + len(body))


def option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def interface(options: bytes = b"") -> bytes:
    return block(1, struct.pack("<HHI", 1, 0, 0) + options)


def packet(data: bytes, ticks: int, place: int = 0, options: bytes = b"") -> bytes:
    fields = struct.pack("<IIIII", place, ticks >> 32 & 0xFFFFFFFF, ticks & 0xFFFFFFFF, len(data), len(data))
    return block(6, fields + data + bytes(-len(data) % 4) + options)


def healthy(part: int = 0, parts: int = 1, place: int = 0) -> bytes:
    """The healthy session's packets, or a part of them."""
    share = len(HEALTHY) // parts
    some = HEALTHY[part * share : None if part == parts - 1 else (part + 1) * share]
    return b"".join(packet(data, START + at, place) for at, data in some)


def pcapng(folder: Path, pieces: Iterable[bytes], *, between: bool = True) -> Run:
    """A section with one interface and the first half of the healthy session, ``pieces``, and the other half."""
    path = folder / "a.pcapng"
    with path.open("wb", buffering=MIB) as file:
        file.write(SECTION + interface() + healthy(0, 2))
        for piece in pieces:
            file.write(piece)
        if between:
            file.write(healthy(1, 2))
    return analyzed(path)


@attack(
    "interfaces",
    "a file with so many interfaces, each with a name of its own and a packet",
    size=1_000_000,
    unit="interfaces",
    bound="capture.pcapng.MOST_INTERFACES",
)
def interfaces(folder: Path, n: int) -> Run:
    frame = HEALTHY[0][1][:60]
    return pcapng(
        folder,
        (interface(option(2, b"eth%d" % i)) + packet(b"\xff" * 14 + frame[14:], START, 1 + i) for i in range(n)),
    )


@attack(
    "interface-names",
    "interfaces whose names are as long as an option can be",
    size=10_000,
    unit="interfaces",
    bound="capture.pcapng.LONGEST_NAME",
)
def interface_names(folder: Path, n: int) -> Run:
    return pcapng(folder, (interface(option(2, b"%08d" % i + NOISE[:65_000])) for i in range(n)))


@attack(
    "sections",
    "a section for each packet",
    size=200_000,
    unit="sections",
    bound="capture.pcapng.MOST_INTERFACES",
)
def sections(folder: Path, n: int) -> Run:
    frame = b"\xff" * 14 + HEALTHY[0][1][14:60]

    def pieces() -> Iterable[bytes]:
        for i in range(n):
            yield SECTION + interface(option(2, b"eth%d" % i)) + packet(frame, START)
        yield SECTION + interface()

    return pcapng(folder, pieces())


@attack(
    "declared-4-gb",
    "blocks that declare 4 GB, one behind the other",
    size=200_000,
    unit="blocks",
    bound="capture.blocks.LARGEST_BLOCK",
)
def declared(folder: Path, n: int) -> Run:
    return pcapng(folder, (struct.pack("<II", 6, 0xFFFFFFFC) + bytes(24) for _ in range(n)))


@attack(
    "declared-16-mb",
    "blocks that declare the most that is believed, one inside the other, whose second length is wrong",
    size=600_000,
    unit="blocks",
    bound="capture.blocks.FARTHEST_BLOCK",
)
def lying(folder: Path, n: int) -> Run:
    return pcapng(folder, (struct.pack("<II", 6, 16 * MIB) + bytes(56) for _ in range(n)))


@attack(
    "declared-1-mb",
    "the same with the most that is believed behind damage",
    size=600_000,
    unit="blocks",
    bound="capture.blocks.FARTHEST_BLOCK",
)
def lying_less(folder: Path, n: int) -> Run:
    return pcapng(folder, (struct.pack("<II", 6, MIB) + bytes(56) for _ in range(n)))


@attack(
    "real-4-gb",
    "a block that really is as large as it says, of zeros, with packets behind it",
    size=4096,
    unit="MiB",
    bound="capture.blocks.LARGEST_BLOCK",
)
def real(folder: Path, n: int) -> Run:
    path = folder / "a.pcapng"
    length = min(n * MIB, 0xFFFFFFFC)
    with path.open("wb") as file:
        file.write(SECTION + interface() + struct.pack("<II", 6, length))
        file.seek(length - 12, 1)  # nothing is written: the file is as large, the disk is not
        file.write(struct.pack("<I", length) + healthy())
    return analyzed(path)


@attack(
    "options",
    "interface descriptions and packets made of empty options, 1 MiB each",
    size=100,
    unit="MiB",
    bound="capture.blocks.LARGEST_BLOCK",
)
def options(folder: Path, n: int) -> Run:
    many = struct.pack("<HH", 1, 0) * (MIB // 4 - 20)
    frame = b"\xff" * 14 + HEALTHY[0][1][14:60]
    return pcapng(folder, (interface(many) if i % 2 else packet(frame, START, 0, many) for i in range(n)))


@attack(
    "unknown-blocks",
    "empty blocks of kinds that nobody knows",
    size=1_000_000,
    unit="blocks",
    bound="capture.source.BLOCK",
)
def unknown_blocks(folder: Path, n: int) -> Run:
    return pcapng(folder, (struct.pack("<III", 0x77, 12, 12) * 1000 for _ in range(n // 1000)))


@attack(
    "damage",
    "a damaged place behind each packet",
    size=100_000,
    unit="places",
    bound="capture.ledger.MOST_DAMAGE",
)
def damage(folder: Path, n: int) -> Run:
    frame = b"\xff" * 14 + HEALTHY[0][1][14:60]
    one = packet(frame, START) + NOISE[:64]
    return pcapng(folder, (one for _ in range(n)))


@attack(
    "pcap-damage",
    "a pcap file with a damaged record behind each packet",
    size=50_000,
    unit="places",
    bound="capture.ledger.MOST_DAMAGE",
)
def pcap_damage(folder: Path, n: int) -> Run:
    path = folder / "a.pcap"
    with path.open("wb", buffering=MIB) as file:
        file.write(PCAP)
        for at, data in HEALTHY:
            file.write(struct.pack("<IIII", (START + at) // 10**6, (START + at) % 10**6, len(data), len(data)) + data)
        for i in range(n):
            for _ in range(4):
                file.write(struct.pack("<IIII", START // 10**6 + i % 50, 0, 20, 20) + b"\xff" * 20)
            file.write(struct.pack("<IIII", 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0) + NOISE[:50])
    return analyzed(path)


# -- clocks ---------------------------------------------------------------------------------------------------


def clocked(folder: Path, n: int, ticks: Callable[[int], int], unit: bytes = b"\x09") -> Run:
    """Connection requests and logins at these times (ticks of ``unit``, by default ns)."""
    frames = [data for _, data in HEALTHY]

    def pieces() -> Iterable[bytes]:
        yield interface(option(9, unit))
        for i in range(n):
            own = address(i // len(frames) % 1000)
            data = frames[i % len(frames)]
            ends = data[26:30], data[30:34]
            # The same session from another address: its checksums are wrong then, so they are left out.
            ip = (own if ends[0] == bytes((192, 168, 1, 104)) else ends[0]) + (
                own if ends[1] == bytes((192, 168, 1, 104)) else ends[1]
            )
            yield packet(data[:26] + ip + data[34:50] + b"\0\0" + data[52:], ticks(i) & 0xFFFFFFFFFFFFFFFF, 1)

    return pcapng(folder, pieces())


@attack(
    "clock-jumps",
    "a clock that jumps anywhere within 64 bits at each packet",
    size=100_000,
    unit="packets",
    bound="capture.ledger.LATEST_NS",
    each=400,
)
def clock_jumps(folder: Path, n: int) -> Run:
    rng = random.Random(3)
    return clocked(folder, n, lambda i: rng.getrandbits(64))


@attack(
    "clock-backwards",
    "a clock that runs backwards, an hour with each packet",
    size=100_000,
    unit="packets",
    bound="tracker.LINGER_NS",
    each=400,
)
def clock_backwards(folder: Path, n: int) -> Run:
    return clocked(folder, n, lambda i: START * 1000 - i * 3_600_000_000_000)


@attack(
    "clock-extremes",
    "a clock that stands at zero and at the largest number by turns, of ticks of a picosecond and of a second",
    size=100_000,
    unit="packets",
    bound="capture.ledger.LATEST_NS",
    each=400,
)
def clock_extremes(folder: Path, n: int) -> Run:
    return clocked(folder, n, lambda i: (1 << 64) - 1 if i % 2 else 0, b"\0")


# -- compression ----------------------------------------------------------------------------------------------


def _pack(file: BinaryIO, writer: Any, n: int) -> None:
    """The healthy session, then ``n`` MiB of zeros, which are empty packets of 1970."""
    healthy_part = PCAP + b"".join(
        struct.pack("<IIII", (START + at) // 10**6, (START + at) % 10**6, len(data), len(data)) + data
        for at, data in HEALTHY
    )
    file.write(writer.compress(healthy_part))
    zeros = bytes(MIB)
    for _ in range(n):
        file.write(writer.compress(zeros))
    file.write(writer.flush())


def bomb(folder: Path, suffix: str, writer: Any, n: int) -> Run:
    path = folder / f"a.pcap.{suffix}"
    with path.open("wb") as file:
        if hasattr(writer, "begin"):
            file.write(writer.begin())
        _pack(file, writer, n)
    return analyzed(path)


BOMBS = "a packed capture that becomes so much: the healthy session, then zeros"


@attack("bomb-gzip", BOMBS, size=200, unit="MiB", bound="capture.source.BLOCK")
def bomb_gzip(folder: Path, n: int) -> Run:
    import zlib  # noqa: PLC0415

    return bomb(folder, "gz", zlib.compressobj(9, zlib.DEFLATED, 31), n)


@attack("bomb-xz", BOMBS, size=200, unit="MiB", bound="capture.source.LARGEST_DICTIONARY")
def bomb_xz(folder: Path, n: int) -> Run:
    return bomb(folder, "xz", lzma.LZMACompressor(preset=6), n)


@attack("bomb-bzip2", BOMBS, size=200, unit="MiB", bound="capture.source.BLOCK")
def bomb_bzip2(folder: Path, n: int) -> Run:
    return bomb(folder, "bz2", bz2.BZ2Compressor(9), n)


@attack("bomb-zstd", BOMBS, size=1200, unit="MiB", bound="capture.source.MOST_TIMES")
def bomb_zstd(folder: Path, n: int) -> Run:
    import zstandard  # noqa: PLC0415

    return bomb(folder, "zst", zstandard.ZstdCompressor(level=3).compressobj(), n)


@attack("bomb-lz4", BOMBS, size=200, unit="MiB", bound="capture.source.BLOCK")
def bomb_lz4(folder: Path, n: int) -> Run:
    import lz4.frame  # noqa: PLC0415

    return bomb(folder, "lz4", lz4.frame.LZ4FrameCompressor(), n)


@attack(
    "bomb-nested",
    "a packed capture inside packed files: only the outermost is unpacked",
    size=400,
    unit="MiB",
    bound="capture.source.BLOCK",
)
def bomb_nested(folder: Path, n: int) -> Run:
    run = bomb_gzip(folder, n)
    path = Path(run.words[1])
    for _ in range(3):
        path.write_bytes(gzip.compress(path.read_bytes()))
    return Run(run.words, says=("",), status=(2,), bystander=False)


@attack(
    "members",
    "a packed capture made of members that hold nothing",
    size=200_000,
    unit="members",
    bound="capture.source.FEED",
)
def members(folder: Path, n: int) -> Run:
    path = folder / "a.pcap.gz"
    empty = gzip.compress(b"", mtime=0)
    healthy_part = PCAP + b"".join(
        struct.pack("<IIII", (START + at) // 10**6, (START + at) % 10**6, len(data), len(data)) + data
        for at, data in HEALTHY
    )
    with path.open("wb", buffering=MIB) as file:
        file.write(gzip.compress(healthy_part, mtime=0))
        for _ in range(n // 100):
            file.write(empty * 100)
    return analyzed(path)


@attack(
    "growing",
    "a file to which more is written than is read, as long as it is read",
    size=100_000,
    unit="packets at first",
    bound="capture.source.BLOCK",
)
def growing(folder: Path, n: int) -> Run:
    path = folder / "a.pcap"
    frame = from_device(address(1), 4000, 1, 0, SYN)
    with scene(path, n) as made:
        for _ in range(n):
            made.add(frame)
    more = (struct.pack("<IIII", START // 10**6 + 60, 0, len(frame), len(frame)) + frame) * 5_000
    run = analyzed(path)
    run.says = ("grew while it was read",)
    run.grow = partial(_append, path, more)
    return run


def _append(path: Path, more: bytes) -> bool:
    """Let the file grow, until it has the size at which the disk of whoever tries this is in danger."""
    if path.stat().st_size > LARGEST_GROWN:
        return False
    with path.open("ab", buffering=0) as file:
        file.write(more)
    return True
