"""The bytes of one capture, unpacked, in the order they lie there: a file, a pipe or standard input.

Knows compression and how a file ends; knows no capture format. Whatever stops the bytes early (a cut or
damaged compressed file, a disk error) becomes a phrase in `Source.ended_early`, never an exception.
"""

from __future__ import annotations

import bz2
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from io import RawIOBase
from typing import IO, Any, Final, NamedTuple, Protocol

from analyzer.capture.complaints import cannot_read, shown
from analyzer.capture.packet import CaptureError
from analyzer.capture.remote import is_url, open_url

BLOCK: Final = 1 << 18
"""Bytes asked for at once: large enough that the calls cost nothing, small enough to stay in the cache."""
SMALL_BLOCK: Final = 1 << 16
"""The same for files of which only the beginning is wanted, or of which many are read at the same time."""
FEED: Final = 4096
"""Packed bytes given to an unpacker at once. It bounds what a damaged place costs."""
ZSTD_FEED: Final = 1024
"""The same where the zstd library does not bound its output: 4 bytes can become 128 KiB, 1024 then 32 MiB."""
LARGEST_DICTIONARY: Final = 256 << 20
"""Memory that unpacking xz may take; `xz -9` needs 65 MiB."""
MOST_TIMES: Final = 2_000
"""A packed file may become so many times as large. Captures become ten times as large, one of nothing but repeats of
one packet three hundred; gzip cannot do more than a thousand. Who packs zeros well makes a terabyte of 30 MB."""
ALWAYS_UNPACKED: Final = 1 << 30
"""Bytes that are unpacked whatever they came from: they take half a minute."""
LONGEST_MAGIC: Final = 6
GUESS_WITHIN: Final = 8 << 20
"""Bytes in which a record is searched from which a second reader can begin: some chains of the largest packets."""


class Unpacker(Protocol):
    """One packed stream; `bz2`, `lzma`, `lz4` and `compression.zstd` have these names."""

    @property
    def eof(self) -> bool: ...  # noqa: D102
    @property
    def needs_input(self) -> bool: ...  # noqa: D102
    @property
    def unused_data(self) -> bytes: ...  # noqa: D102
    def decompress(self, data: bytes, max_length: int) -> bytes: ...  # noqa: D102


class _Gzip:
    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflater.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        unpacked = self._inflater.decompress(self._inflater.unconsumed_tail + data, max_length)
        # A full answer may have more behind it although zlib has swallowed all of its input.
        self.needs_input = not self._inflater.unconsumed_tail and len(unpacked) < max_length
        return unpacked


class _Zstandard:
    needs_input = True

    def __init__(self, library: Any) -> None:
        self._stream = library.ZstdDecompressor().decompressobj()

    @property
    def eof(self) -> bool:
        return bool(self._stream.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._stream.unused_data)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return bytes(self._stream.decompress(data))


def _zstd() -> Callable[[], Unpacker]:
    try:
        own: Any = import_module("compression.zstd")
    except ImportError:
        library = import_module("zstandard")
        return lambda: _Zstandard(library)
    start: Callable[[], Unpacker] = own.ZstdDecompressor
    return start


def _lz4() -> Callable[[], Unpacker]:
    start: Callable[[], Unpacker] = import_module("lz4.frame").LZ4FrameDecompressor
    return start


class Compression(NamedTuple):
    """How a packed file begins, what people call it, and how a fresh unpacker for it is made."""

    magic: bytes
    name: str
    suffix: str
    load: Callable[[], Callable[[], Unpacker]]
    feed: int = FEED


COMPRESSIONS: Final = (
    Compression(b"\x1f\x8b", "gzip", ".gz", lambda: _Gzip),
    Compression(
        b"\xfd7zXZ\x00",
        "xz",
        ".xz",
        lambda: lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LARGEST_DICTIONARY),
    ),
    Compression(b"BZh", "bzip2", ".bz2", lambda: bz2.BZ2Decompressor),
    Compression(b"\x28\xb5\x2f\xfd", "zstd", ".zst", _zstd, ZSTD_FEED),
    Compression(b"\x04\x22\x4d\x18", "lz4", ".lz4", _lz4),
)


class Source:
    """The bytes of one capture, piece by piece; close it when done.

    ``path`` is the name as typed; ``stream`` replaces opening it (standard input). ``block`` is how many
    bytes are asked for at once. ``keep_open`` False opens the file anew for each block, so that any number of
    files can be read side by side. Raises CaptureError when the file cannot be opened or its
    unpacker is missing.
    """

    def __init__(
        self, path: str, stream: IO[bytes] | None = None, *, block: int = BLOCK, keep_open: bool = True
    ) -> None:
        self.path = path
        self.packed_bytes = 0
        """How much of the file itself has been read."""
        self.bytes = 0
        """How much has been handed out, unpacked."""
        self.compression: Compression | None = None
        self.ended_early: str | None = None
        """Why there are no more bytes than these, as a phrase; None if it just ended."""
        self.exhausted = False
        """Whether everything has been handed out."""
        self.between: Callable[[], None] | None = None
        """Called whenever bytes have come."""
        self.size: int | None = None
        """How many bytes a file had when it was opened, whose bytes can be had in any order; None for any other. No
        more are read, if there were any: a file to which others write faster than it is read would have no end."""
        self.grew = False
        """Whether there were more than these by the time they had been read."""
        self.block = block
        self._keep_open = keep_open
        self._owned = stream is None
        self._stream = self._open() if stream is None else stream
        # `read1` and an unbuffered `read` give what has come so far; a buffered `read` would wait for all.
        self._read: Callable[[int], bytes | None] = getattr(self._stream, "read1", self._stream.read)
        # What is not packed is read to where it is wanted, if the stream can do that.
        self._readinto: Callable[[memoryview], int | None] | None = getattr(self._stream, "readinto1", None)
        if isinstance(self._stream, RawIOBase):
            self._readinto = self._stream.readinto
        head = self._head()
        self._pieces = self._unpacked(head, self.compression) if self.compression else self._raw(b"")
        # What has been read, and not been handed out.
        self._rest: bytes | memoryview = b"" if self.compression else head
        self._limit: int | None = None

    def more(self) -> bytes:
        """Return the next piece, as soon as there is one; empty at the end."""
        piece, self._rest = bytes(self._rest or next(self._pieces, b"")), b""
        self._come(len(piece))
        return piece

    def into(self, room: memoryview) -> int:
        """Put the next bytes into ``room``, which is not empty, as soon as there are some.

        Return how many; 0 at the end.
        """
        if self._rest or self.compression or self._readinto is None:
            piece = memoryview(self._rest or next(self._pieces, b""))  # 32 MiB, in the worst case: not to be copied
            size = min(len(piece), len(room))
            room[:size] = piece[:size]
            self._rest = piece[size:]
        else:
            left = self._left()
            if self._limit is not None:
                left = min(left, self._limit - self.packed_bytes)
            size = self._next_into(room[:left]) if left > 0 else 0
        self._come(size)
        return size

    def jump(self, offset: int, length: int | None = None) -> None:
        """Go on at byte ``offset`` of a regular file that is not packed, and end ``length`` bytes behind it."""
        self._stream.seek(offset)
        self.packed_bytes = self.bytes = offset
        self.exhausted = False
        self._rest = b""
        self._limit = None if length is None else offset + length

    def extend(self, kept: bytes, length: int) -> bytes:
        """Return ``kept`` with what follows it, ``length`` bytes or more; fewer only at the end."""
        pieces, missing = [kept] if kept else [], length - len(kept)
        while missing > 0 and (piece := self.more()):
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Close the file, unless it is somebody else's stream."""
        if self._owned:
            self._stream.close()

    def _come(self, size: int) -> None:
        self.bytes += size
        self.exhausted = not size
        if self.between is not None:
            self.between()

    def _open(self) -> IO[bytes]:
        if is_url(self.path):
            self._keep_open = True
            remote = open_url(self.path)
            self.size = remote.seek(0, os.SEEK_END) if remote.seekable() else None
            if self.size is not None:
                remote.seek(0)
            return remote
        try:
            stream = open(self.path, "rb", buffering=0)  # noqa: SIM115
        except (OSError, ValueError) as error:
            raise cannot_read(self.path, error) from error
        # What is no regular file (a named pipe) would not give its bytes a second time.
        status = os.fstat(stream.fileno())
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
        self._keep_open |= self.size is None
        return stream

    def _head(self) -> bytes:
        head = b""
        while len(head) < LONGEST_MAGIC and (piece := self._next_block()):
            head += piece
        for compression in COMPRESSIONS:
            if head.startswith(compression.magic):
                try:
                    self._start = compression.load()
                except ImportError as error:
                    self.close()
                    raise CaptureError(
                        f"{shown(self.path)}: packed with {compression.name}, which needs one more package. "
                        f'Try: pip install "sparkshark[compression]"'
                    ) from error
                self.compression = compression
        return head

    def _left(self) -> int:
        """Return how many bytes to ask for: none at the end that the file had when it was opened."""
        if not self.size:  # files of the kernel say 0 and have bytes all the same
            return self.block
        left = min(self.block, max(0, self.size - self.packed_bytes))
        if not left and self._owned and not is_url(self.path):
            with suppress(OSError):
                self.grew = os.stat(self.path).st_size > self.size
        return left

    def _next_block(self) -> bytes:
        try:
            left = self._left()
            if self._keep_open:
                block = (self._read(left) or b"") if left else b""
            else:
                with open(self.path, "rb", buffering=0) as stream:
                    stream.seek(self.packed_bytes)
                    block = stream.read(left) or b""
        except Exception as error:
            self._cannot_go_on(error)
            return b""
        self.packed_bytes += len(block)
        if not self._keep_open:
            self.close()
        return block

    def _next_into(self, room: memoryview) -> int:
        try:
            if self._keep_open and self._readinto is not None:
                size = self._readinto(room) or 0
            else:
                with open(self.path, "rb", buffering=0) as stream:
                    stream.seek(self.packed_bytes)
                    size = stream.readinto(room) or 0
        except Exception as error:
            self._cannot_go_on(error)
            return 0
        self.packed_bytes += size
        if not self._keep_open:
            self.close()
        return size

    def _cannot_go_on(self, error: Exception) -> None:
        """Let the bytes end here. Each kind of storage that has URLs has errors of its own."""
        if not isinstance(error, OSError) and (isinstance(error, MemoryError) or not is_url(self.path)):
            raise error
        why = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        self.ended_early = f"cannot be read any further ({why})"

    def _raw(self, head: bytes) -> Iterator[bytes]:
        if head:
            yield head
        while block := self._next_block():
            yield block

    def _packed(self, head: bytes, size: int) -> Iterator[bytes]:
        for block in self._raw(head):
            for at in range(0, len(block), size):
                yield block[at : at + size]

    def _unpacked(self, head: bytes, compression: Compression) -> Iterator[bytes]:
        unpacker: Unpacker | None = None  # None between two members of a file made with `cat a.gz b.gz`
        unpacked = 0
        try:
            for packed in self._packed(head, compression.feed):
                data = packed
                while data or not (unpacker is None or unpacker.needs_input):
                    if unpacker is None:
                        data = data.lstrip(b"\x00")  # tapes and xz fill up with zeros between members
                        if not data:
                            break
                        unpacker = self._start()
                    piece, data = unpacker.decompress(data, self.block), b""
                    if unpacker.eof:
                        data, unpacker = unpacker.unused_data or b"", None  # lz4 says None
                    unpacked += len(piece)
                    if piece:
                        yield piece
                    if unpacked > max(ALWAYS_UNPACKED, MOST_TIMES * self.packed_bytes):
                        self.ended_early = f"the {compression.name} data unpacks to {MOST_TIMES:,} times its size"
                        return
        except Exception:  # five libraries, each with its own errors; all mean the same
            self.ended_early = f"the {compression.name} data is damaged"
        if unpacker is not None and self.ended_early is None:
            self.ended_early = f"the {compression.name} data ends early"


class Window:
    """The part of a source's bytes that is in memory: ``buffer`` as far as ``end``, where byte ``start`` is the first.

    The buffer is used again and again: memory that is fresh for each block costs more than reading it. So what is to
    last has to be copied out of ``view``. It goes on for `SPARE` bytes, of whatever content, behind ``end``.
    """

    SPARE: Final = 64

    def __init__(self, source: Source, head: bytes = b"") -> None:
        """``head`` has been taken from ``source`` already."""
        self.source = source
        self.start = 0
        self.end = len(head)
        self._block = source.block
        self._make(max(self._block, len(head)))
        self.view[: self.end] = head

    def fetch(self, at: int, length: int) -> None:
        """Let go of what lies before ``at``; have ``length`` bytes from there on, fewer only at the end.

        What was at ``at`` lies at 0 then.
        """
        kept, old = self.end - at, self.view
        # With room for a block behind it: where each of many blocks ends a little later than the one before, as much as
        # is kept would be moved for each of them.
        wanted = max(length + self._block if length > self._block else self._block, kept)
        if wanted > self.room or self.room > self._block >= wanted:
            self._make(wanted)
        self.view[:kept] = old[at : self.end]
        self.start += at
        self.end = kept
        while self.end < length and (size := self.source.into(self.view[self.end : self.room])):
            self.end += size

    def jump(self, offset: int, length: int | None = None) -> None:
        """Go on at byte ``offset`` of a regular file, and end ``length`` bytes behind it."""
        self.source.jump(offset, length)
        self.start, self.end = offset, 0

    def _make(self, room: int) -> None:
        self.room = room
        self.buffer = bytearray(room + self.SPARE)
        self.view = memoryview(self.buffer)
