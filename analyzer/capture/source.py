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
from importlib import import_module
from typing import IO, Any, Final, NamedTuple, Protocol

from analyzer.capture.complaints import cannot_read, shown
from analyzer.capture.packet import CaptureError

BLOCK: Final = 1 << 20
"""Bytes asked for at once: large enough that the calls cost nothing, small enough to stay in the cache."""
SMALL_BLOCK: Final = 1 << 16
"""The same for files of which only the beginning is wanted, or of which many are read at the same time."""
FEED: Final = 4096
"""Packed bytes given to an unpacker at once. It bounds what a damaged place costs."""
ZSTD_FEED: Final = 1024
"""The same where the zstd library does not bound its output: 4 bytes can become 128 KiB, 1024 then 32 MiB."""
LARGEST_DICTIONARY: Final = 256 << 20
"""Memory that unpacking xz may take; `xz -9` needs 65 MiB."""
LONGEST_MAGIC: Final = 6


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
        self._block = block
        self._keep_open = keep_open
        self._owned = stream is None
        self._stream = self._open() if stream is None else stream
        # `read1` and an unbuffered `read` give what has come so far; a buffered `read` would wait for all.
        self._read: Callable[[int], bytes | None] = getattr(self._stream, "read1", self._stream.read)
        head = self._head()
        self._pieces = self._unpacked(head, self.compression) if self.compression else self._raw(head)

    def more(self) -> bytes:
        """Return the next piece, as soon as there is one; empty at the end."""
        piece = next(self._pieces, b"")
        self.bytes += len(piece)
        self.exhausted = not piece
        if self.between is not None:
            self.between()
        return piece

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

    def _open(self) -> IO[bytes]:
        try:
            stream = open(self.path, "rb", buffering=0)  # noqa: SIM115
        except (OSError, ValueError) as error:
            raise cannot_read(self.path, error) from error
        # What is no regular file (a named pipe) would not give its bytes a second time.
        self._keep_open |= not stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
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

    def _next_block(self) -> bytes:
        try:
            if self._keep_open:
                block = self._read(self._block) or b""
            else:
                with open(self.path, "rb", buffering=0) as stream:
                    stream.seek(self.packed_bytes)
                    block = stream.read(self._block) or b""
        except OSError as error:
            self.ended_early = f"cannot be read any further ({error.strerror})"
            return b""
        self.packed_bytes += len(block)
        if not self._keep_open:
            self.close()
        return block

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
        try:
            for packed in self._packed(head, compression.feed):
                data = packed
                while data or not (unpacker is None or unpacker.needs_input):
                    if unpacker is None:
                        data = data.lstrip(b"\x00")  # tapes and xz fill up with zeros between members
                        if not data:
                            break
                        unpacker = self._start()
                    piece, data = unpacker.decompress(data, self._block), b""
                    if unpacker.eof:
                        data, unpacker = unpacker.unused_data or b"", None  # lz4 says None
                    if piece:
                        yield piece
        except Exception:  # five libraries, each with its own errors; all mean the same
            self.ended_early = f"the {compression.name} data is damaged"
        if unpacker is not None and self.ended_early is None:
            self.ended_early = f"the {compression.name} data ends early"
