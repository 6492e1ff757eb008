"""Firmware images as files: whole ones ready to use, incomplete ones under a name that says so.

Names consist of our own words and numbers, never of text that a peer chose. A file is written under a temporary
name in the same folder and renamed when it is whole; only its owner may read it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from analyzer.export.transfer import FirmwareImage
from analyzer.outfile import new_file


class ExportError(ValueError):
    """A folder or file that the user named cannot be written. The text is one line: what, and why."""


def save_images(
    images: Iterable[FirmwareImage], folder: str | os.PathLike[str], conversation_number: int, *, force: bool = False
) -> list[str]:
    """Write the images of a conversation into ``folder`` and return the paths of the files.

    ``firmware-1-2.bin`` is the second update of conversation 1. An incomplete image is ``.bin.partial``, with
    zeros where bytes are missing, and a ``.bin.partial.txt`` beside it lists these ranges. Raises `ExportError`
    when the folder does not exist, when a file does and ``force`` is not given (then nothing is written), or
    when writing fails.
    """
    place = Path(folder)
    if not place.is_dir():
        raise ExportError(f"{place}: no such folder. Make it first: mkdir -p {shlex.quote(str(place))}")
    images = list(images)
    planned = [place / name for image in images for name in _names(image, conversation_number)]
    for path in planned:
        if os.path.lexists(path) and not force:
            raise ExportError(f"{path}: exists already. Nothing was written. Try: another folder, or --force")
    for image in images:
        for name, content in zip(_names(image, conversation_number), _contents(image), strict=True):
            _write(place / name, content)
    return [str(path) for path in planned]


def _names(image: FirmwareImage, conversation_number: int) -> tuple[str, ...]:
    name = f"firmware-{conversation_number}-{image.number}.bin"
    return (name,) if image.complete else (f"{name}.partial", f"{name}.partial.txt")


def _contents(image: FirmwareImage) -> Iterator[bytes]:
    yield image.data
    if not image.complete:
        yield "".join(f"{line}\n" for line in account(image)).encode()


def account(image: FirmwareImage) -> Iterator[str]:
    """Yield the lines that say what is there of an image and what is not."""
    kind = "announced" if image.length_announced else "seen"
    there = image.size - sum(end - start for start, end in image.missing)
    yield f"{there} of {image.size} bytes {kind}, in {image.chunks} chunks, packets {_packets(image)}"
    for start, end in image.missing:
        yield f"missing: bytes {start} to {end - 1} ({end - start})"
    if image.crc_failures:
        yield f"chunks left out because their CRC does not fit: {image.crc_failures}"
    yield from image.notes


def _packets(image: FirmwareImage) -> str:
    return f"{image.first_packet} to {image.last_packet}"


def _write(path: Path, content: bytes) -> None:
    try:
        with new_file(path, private=True) as stream:
            stream.write(content)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise ExportError(f"{path}: cannot be written ({why}). Try: another folder") from error
