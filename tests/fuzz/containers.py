"""Capture files: their formats, packed or not, whole or not."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from io import BytesIO, RawIOBase
from pathlib import Path
from typing import Final

import capture_files
import lz4.frame
import test_capture_ranges
import zstandard
from inert import is_inert

from analyzer.capture import Capture, CaptureError
from analyzer.capture.packet import CaptureFile, Packet
from analyzer.capture.ranges import split
from fuzz.base import CAPTURES, first_packets
from fuzz.script import Script, written
from fuzz.target import target

PACKERS: Final[tuple[Callable[[bytes], bytes], ...]] = (
    lambda data: data,
    lambda data: gzip.compress(data, 6, mtime=0),
    bz2.compress,
    lambda data: lzma.compress(data, preset=1),
    lambda data: bytes(zstandard.ZstdCompressor(level=3).compress(data)),
    lambda data: bytes(lz4.frame.compress(data)),
)
UNPACKED: Final = 64 << 20
"""Bytes after which a bomb has shown that it is one, and that it is read piece by piece."""


class Dribble(RawIOBase):
    """A pipe that gives a few bytes at a time."""

    def __init__(self, data: bytes, step: int) -> None:
        self.data, self.at, self.step = data, 0, step

    def readable(self) -> bool:
        return True

    def readinto(self, room: object) -> int:
        view = memoryview(room)  # type: ignore[arg-type]
        piece = self.data[self.at : self.at + min(self.step, len(view))]
        view[: len(piece)] = piece
        self.at += len(piece)
        return len(piece)


class Bomb(Exception):  # noqa: N818 - no fault: there is enough of it
    """More was unpacked than anybody wants to see here."""


def read(stream: object) -> tuple[list[Packet], list[CaptureFile], list[str]] | None:
    """All that a capture gives; None when it is none, told in one line."""

    def between() -> None:
        if sum(one.bytes for one in file.files) > UNPACKED:
            raise Bomb

    try:
        file = Capture(["-"], stdin=stream, between=between)  # type: ignore[arg-type]
        packets: list[Packet] = []
        for packet in file:
            packets.append(packet)
            if len(packets) > 1 << 16:
                raise Bomb
    except CaptureError as error:
        is_inert(str(error), "")
        return None
    for sentence in file.warnings:
        is_inert(sentence, "")
    return packets, file.files, list(file.warnings)


def check(data: bytes) -> None:
    """Read a file at once and piece by piece: both give the same, and what they give is possible."""
    try:
        told = read(BytesIO(data))
    except Bomb:
        return
    step = 1 + len(data) % 97
    dribbled = read(Dribble(data, step if len(data) < 1 << 14 else 4096))
    if told != dribbled:  # damage costs the piece of packed bytes that it lies in, which is smaller from a pipe
        assert dribbled is not None
        assert dribbled[1][0].format not in ("pcap", "pcapng")
        assert any("data is damaged" in damage.what for damage in dribbled[1][0].damage)
        assert told is None or told[0] == dribbled[0][: len(told[0])]
    if told is None:
        return
    packets, (file,), _ = told
    numbers = [packet.number for packet in packets]
    assert numbers == sorted(set(numbers))
    assert file.packets == len(packets)
    assert sum(len(packet.data) for packet in packets) <= file.bytes
    for packet in packets:
        assert packet.original_length >= 0
        assert packet.interface >= 0
        assert isinstance(packet.time_ns, int)
    if packets:
        assert len({packet.interface for packet in packets}) == file.interfaces
        assert {packet.link_type for packet in packets} == file.link_types
        times = [packet.time_ns for packet in packets]
        assert (file.first_ns, file.last_ns) == (min(times), max(times))


def _files() -> Iterator[bytes]:
    frames = [packet.data[:60] for packet in first_packets("healthy-full", 4)]
    for order in "<>":
        for magic in (0xA1B2C3D4, 0xA1B23C4D):
            records = b"".join(capture_files.record(data, 1_700_000_000, 7, order=order) for data in frames)
            yield capture_files.pcap_header(order, magic) + records
        blocks = [capture_files.enhanced(data, 1 << 50, order=order) for data in frames]
        blocks += [capture_files.old(frames[0], 1 << 50, order=order), capture_files.simple(frames[0], order=order)]
        options = capture_files.option(9, b"\x09", order) + capture_files.option(14, bytes(8), order)
        head = capture_files.section(order) + capture_files.interface(order, options=options, snap_length=60)
        yield head + b"".join(blocks)
        yield head + capture_files.block(0x0BAD, b"custom", order) + head + b"".join(blocks)
    for name in ("no-nonce", "port-blocked"):
        yield (CAPTURES / f"{name}.pcap").read_bytes()[:3000]


@target("capture files as they come", _files, longest=1 << 16)
def capture(data: bytes) -> None:
    """Any bytes as a capture."""
    check(data)


def _packed() -> Iterator[bytes]:
    plain = list(_files())
    for number in range(len(PACKERS)):
        for file in plain[:: 1 + number % 3]:
            yield written(number, 0, 0, 0) + file
    for number in range(1, len(PACKERS)):
        yield written(number, 1, 0, 40, 1, number, 2, 3) + plain[0]
        yield written(number, 0, 9, 0) + bytes(3000)


@target("capture files, packed by gzip, bzip2, xz, zstd and lz4, then damaged", _packed, longest=1 << 14)
def packed(data: bytes) -> None:
    """Pack what the input holds, then spoil the packed bytes: the formats' checksums keep others out."""
    script = Script(data)
    packer = script.pick(PACKERS)
    spoilt = [(script.number(2), script.number()) for _ in range(script.below(4))]
    zeros, cut, twice = script.below(32) * 2048, script.number(), script.below(4)
    content = script.rest()
    file = bytearray(packer(content + bytes(zeros)) + b"".join(script.pick(PACKERS)(content) for _ in range(twice)))
    for place, value in spoilt:
        if file:
            file[place % len(file)] ^= value
    if cut > 128 and file:
        del file[-(cut % len(file)) :]
    check(bytes(file))


def _blocks() -> Iterator[bytes]:
    frame = first_packets("healthy-full", 1)[0].data[:54]
    enhanced = written(5, frame) + bytes(8) + written(0, 0, 54, 1)
    yield written(0, 1, 1, 0, 1, 0, 1, 1) + enhanced * 3
    yield written(1, 1, 1, 1, 1, 1, b"\x09", 0, 1) + enhanced + written(3, frame, 0, 54, 1, 2, frame) + bytes(9) + b"\1"
    yield written(0, 0, 0, 1) + written(1, frame, 0, 9, 0, 54, 1) * 3
    yield written(0, 1, 1, 0, 1, 0, 1, 0, 4, 3) + enhanced * 2


@target("pcap and pcapng, record by record, with lengths that are wrong", _blocks, longest=2048)
def blocks(data: bytes) -> None:
    """Well-formed files, but for what the script spoils in them."""
    check(file_of(Script(data)))


@cache
def _desk() -> Path:
    return Path(tempfile.mkdtemp(prefix="sparkshark-fuzz-"))


def _ranges() -> Iterator[bytes]:
    for number, seed in enumerate(_blocks()):
        yield bytes((number, 60, 120, 200)) + seed * 3


@target("one file read in ranges at the same time, cut anywhere", _ranges, longest=2048)
def ranges(data: bytes) -> None:
    """Ranges joined say what one reader of the whole file says, wherever they begin."""
    script = Script(data)
    parts, places = 2 + script.below(4), {script.number(2) for _ in range(2)}
    content = file_of(script)
    path = _desk() / "ranges"
    path.write_bytes(content)
    try:
        whole = test_capture_ranges.at_once(path)
    except CaptureError:
        return
    begins = [0, *sorted(1 + place % len(content) for place in places)]
    for some in (split(str(path), parts), list(zip(begins, [*begins[1:], None], strict=True))):
        if some[-1][0] < len(content):
            assert test_capture_ranges.joined(path, some)[0] == whole


def file_of(script: Script) -> bytes:
    """A capture file, record by record."""
    order = script.pick("<>")
    file = bytearray()
    if script.below(4) == 0:
        magic = script.pick((0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34, 0xD4C3B2A1))
        file += capture_files.pcap_header(order, magic, link_type=script.number())
        while script:
            seconds = script.pick((0, 1_700_000_000, 0x7FFFFFFF, 0xFFFFFFFF))
            record = bytearray(capture_files.record(script.piece(), seconds, script.number(2), script.number(2)))
            _spoil(record, script, 16)
            file += record
        return bytes(file)
    file += capture_files.section(order)
    while script:
        kind = script.below(8)
        if kind == 0:
            order = script.pick("<>")
            one = capture_files.section(order, script.pick((-1, 0, 28, 1 << 62)))
        elif kind == 1:
            options = b"".join(
                capture_files.option(script.pick((2, 9, 14, 1, 0, 0xFFFF)), script.piece(), order)
                for _ in range(script.below(4))
            )
            one = capture_files.interface(order, script.number(), script.pick((0, 10, 1 << 18)), options)
        elif kind == 2:
            one = capture_files.old(script.piece(), script.number(8), script.below(3), order)
        elif kind == 3:
            one = capture_files.simple(script.piece(), script.number(2), order)
        elif kind == 4:
            one = capture_files.block(script.number(4), script.piece(), order)
        else:
            one = capture_files.enhanced(script.piece(), script.number(8), script.below(3), script.number(2), order)
        spoilt = bytearray(one)
        _spoil(spoilt, script, 32)
        file += spoilt
    return bytes(file)


def _spoil(block: bytearray, script: Script, head: int) -> None:
    """Perhaps set one field of a block to a number that is wrong in an interesting way."""
    if script.below(4):
        return
    place = script.below(head) % max(1, len(block))
    value = script.pick((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x0c", b"\x0d\0\0\0", b"\x40"))
    block[place : place + len(value)] = value
