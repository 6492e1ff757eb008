"""Files that we write: one stands under its name only when it is whole, and nothing else is ever replaced by one."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final

FOR_OWNER: Final = 0o600
OWN_FOLDERS: Final = ("XDG_CONFIG_HOME", "XDG_CACHE_HOME")
"""By these names of the environment libraries know where to put what is theirs."""
DEVICES: Final = "/dev/"
"""Folder of names that no file may take the place of, whatever they stand for at the moment."""


def takes_stream(path: str | os.PathLike[str]) -> bool:
    """Tell whether bytes written to ``path`` go somewhere else: a terminal, a pipe, ``/dev/null``.

    As root a file could take the place of such a thing, and then the machine would lack it.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return (
        stat.S_ISCHR(mode) or stat.S_ISFIFO(mode) or (os.path.abspath(path).startswith(DEVICES) and not is_disk(path))
    )


def is_disk(path: str | os.PathLike[str]) -> bool:
    """Tell whether ``path`` is a disk, or a part of one: what is there would be lost."""
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


@contextmanager
def new_file(path: str | os.PathLike[str], *, private: bool = False) -> Iterator[BinaryIO]:
    """Give a file for bytes, which gets its name, that of an older one perhaps, when all is written.

    A link of that name is replaced, not followed. One that is ``private`` only its owner can read. Bytes for something
    that takes a stream go there at once. Raises OSError, whose ``filename`` is `unfinished` as long as nothing has been
    written.
    """
    if takes_stream(path):
        with open(path, "wb") as stream:
            yield stream
        return
    part = unfinished(path)
    if os.path.lexists(part):  # of another machine, perhaps, which shares this disk: not ours to take away
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), part)
    try:
        with open(part, "xb", opener=_for_owner if private else None) as file:
            yield file
        os.replace(part, path)
    finally:
        if os.path.lexists(part):
            os.unlink(part)


@contextmanager
def no_folders_at_home() -> Iterator[None]:
    """Load a library that would make folders for its settings and caches (scapy does, or fails where it may not)."""
    if os.name != "posix":
        yield
        return
    before = {name: os.environ.get(name) for name in OWN_FOLDERS}
    os.environ |= dict.fromkeys(OWN_FOLDERS, os.devnull)  # it is there, and nothing can be put into it
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


def unfinished(path: str | os.PathLike[str]) -> str:
    """Return the name of a file while it is written: beside its own, and of this process alone."""
    return f"{os.fspath(path)}.{os.getpid()}.part"


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, FOR_OWNER)
