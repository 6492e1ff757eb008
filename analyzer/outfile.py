"""Files that we write: one stands under its name only when it is whole, and nothing else is ever replaced by one."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, Final

try:
    import fcntl
except ImportError:  # Windows: there, what is left of a process that was killed stays until somebody removes it
    fcntl = None  # type: ignore[assignment]

FOR_OWNER: Final = 0o600
OWN_FOLDERS: Final = ("XDG_CONFIG_HOME", "XDG_CACHE_HOME")
"""By these names of the environment libraries know where to put what is theirs."""
PASSING: Final = "sparkshark-"
"""How the name of a file begins that is there for a moment only, where it must have one."""
UNFINISHED: Final = re.compile(r"(.*)\.[0-9]+\.part", re.DOTALL)
"""What a file is called while it is written."""
DEVICES: Final = "/dev/"
"""Folder of names that no file may take the place of, whatever they stand for at the moment."""


class NoFolderError(ValueError):
    """There is no folder to write in. The text is one line for the user."""


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
    that takes a stream go there at once. What processes left unfinished that were killed at the same file is removed.
    Raises OSError, whose ``filename`` is `unfinished` as long as nothing has been written.
    """
    if takes_stream(path):
        with open(path, "wb") as stream:
            yield stream
        return
    _remove_abandoned(path)
    part, mine = unfinished(path), True
    try:
        with open(part, "xb", opener=_for_owner if private else None) as file:
            hold(file.fileno())
            yield file
        os.replace(part, path)
    except FileExistsError as error:
        mine = error.filename != part  # of a process with our number, in another container or on another machine
        raise
    finally:
        if mine and os.path.lexists(part):
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


def hold(descriptor: int) -> None:
    """Let others see, by a lock that ends with this process, that somebody is at work on an open file or folder."""
    if fcntl is not None:
        with suppress(OSError):  # not every storage has locks: then nobody takes it for abandoned either
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def abandoned(path: str) -> bool:
    """Tell whether whoever was at work on a file or folder, and held it, has ended without taking it away.

    A process number would not tell: another process may have it, and in a container it is always the same.
    """
    if fcntl is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def _remove_abandoned(path: str | os.PathLike[str]) -> None:
    folder, name = os.path.split(os.fspath(path))
    with suppress(OSError):
        for entry in list(os.scandir(folder or ".")):
            ours = UNFINISHED.fullmatch(entry.name)
            if ours and ours[1] == name and entry.is_file(follow_symlinks=False) and abandoned(entry.path):
                os.unlink(entry.path)


@contextmanager
def passing_file() -> Iterator[BinaryIO]:
    """Give a file for the time of the block that its owner alone can read, and that can be opened by its ``name``.

    Where the system can do that, it is in no folder, so nothing is left of it however the process ends.
    """
    with tempfile.TemporaryFile(dir=temporary_folder()) as nameless:
        name = f"/proc/self/fd/{nameless.fileno()}"
        if os.path.exists(name):
            with open(name, "w+b") as file:
                yield file
            return
    with tempfile.NamedTemporaryFile(prefix=PASSING) as named:
        yield named.file  # type: ignore[misc]  # typed as what it wraps


def temporary_folder() -> str:
    """Return where files for a moment go. Raises `NoFolderError` when that is nowhere."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        raise NoFolderError("no folder for temporary files can be written. Name one: TMPDIR=FOLDER") from error


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, FOR_OWNER)
