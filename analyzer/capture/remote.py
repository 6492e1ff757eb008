"""Captures that have a URL in place of a path: whatever storage fsspec knows (S3, SSH, HTTP ...)."""

from __future__ import annotations

import re
from typing import IO, Any, Final

from analyzer.capture.complaints import shown
from analyzer.capture.packet import CaptureError

URL: Final = re.compile(r"(?:\w+::)*[A-Za-z][A-Za-z0-9+.-]+://")
"""One letter alone would be a drive of Windows. Before ``::`` stands what is put around it (``simplecache``, say)."""


def is_url(path: str) -> bool:
    """Tell whether a name is a URL."""
    return URL.match(path) is not None


def files_at(url: str) -> list[tuple[str, int]]:
    """Return URL and size (bytes) of each file there: one, or all that fit a pattern or lie in a folder.

    Raises CaptureError when there is none.
    """
    files, path = _reached(url)
    try:
        names = sorted(files.glob(path)) if "*" in path else [path]
        found = []
        for name in names:
            if files.isdir(name):
                found += [
                    (entry["name"], entry["size"]) for entry in files.ls(name, detail=True) if entry["type"] == "file"
                ]
            else:
                found.append((name, files.size(name)))
    except Exception as error:  # each kind of storage has errors of its own
        raise _failed(url, error) from error
    if not found:
        raise CaptureError(f"{shown(url)}: no file there. See what there is: fsspec.open_files({url!r})")
    if len(found) == 1 and found[0][0] == path:
        return [(url, found[0][1] or 0)]
    return [(str(files.unstrip_protocol(name)), size or 0) for name, size in sorted(found)]


def open_url(url: str) -> IO[bytes]:
    """Open a file to be read. Raises CaptureError when that fails."""
    files, path = _reached(url)
    try:
        stream: IO[bytes] = files.open(path, "rb")
    except Exception as error:
        raise _failed(url, error) from error
    return stream


def _reached(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415 - an extra that few need
    except ImportError as error:
        raise CaptureError(
            f'{shown(url)}: a URL needs one more package. Try: pip install "sparkshark[cluster]"'
        ) from error
    try:
        files, path = url_to_fs(url)
    except Exception as error:
        raise _failed(url, error) from error
    return files, path


def _failed(url: str, error: Exception) -> CaptureError:
    why = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, FileNotFoundError):
        return CaptureError(f"{shown(url)}: no such file. Look at the spelling of the URL")
    if isinstance(error, ImportError):
        return CaptureError(f"{shown(url)}: this kind of storage needs one more package ({why})")
    return CaptureError(f"{shown(url)}: cannot be read ({why}). Look at the URL, and at the rights for this storage")
