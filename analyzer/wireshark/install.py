"""Puts the plugin where Wireshark looks, tells what lies there, proves that it is loaded, and takes it away again.

Only files that sparkshark wrote are ever replaced or removed; they are known by how they begin.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from analyzer.outfile import new_file, unfinished
from analyzer.wireshark.folders import Machine, Wireshark
from analyzer.wireshark.generate import FILE_NAME, MARK

MODE: Final = 0o644
"""A plugin holds no secret, and is of use to other users too when it lies in a shared folder."""
LARGEST: Final = 16_000_000
"""Bytes that are read of a file of the plugin's name: many times the plugin."""
MOST_FOLDERS: Final = 2_000
"""Folders that are searched for copies: a plugin folder has a handful, but somebody may have linked a disk there."""


REMEDY: Final = "This user needs the right to write there"


class InstallError(ValueError):
    """A place where the plugin or the profile cannot be put, or must not be."""


class Condition(StrEnum):
    """What lies where something of ours belongs."""

    MISSING = "missing"
    CURRENT = "current"
    OLDER = "older"
    NEWER = "newer"
    CHANGED = "changed"  # only a profile: a plugin is not for editing
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Copy:
    """A file of the plugin's name; ``version`` is that of the sparkshark that wrote it."""

    path: str
    condition: Condition
    version: str | None = None


class Done(StrEnum):
    """What putting something there came to."""

    INSTALLED = "installed"
    UPDATED = "updated"
    REPLACED = "replaced"
    NOTHING = "nothing"


# -- the plugin's file -----------------------------------------------------------------------------------------


def look(path: str, text: str) -> Copy:
    """Return what lies at ``path``, compared with the plugin as this sparkshark has it."""
    content = content_of(path)
    if content is None:
        return Copy(path, Condition.FOREIGN if os.path.lexists(path) else Condition.MISSING)
    if content == text.encode():
        return Copy(path, Condition.CURRENT, version_in(text.encode()))
    # What is a link was put there by somebody else, whatever it leads to.
    if not content.startswith(MARK.encode()) or os.path.islink(path):
        return Copy(path, Condition.FOREIGN)
    theirs, ours = version_in(content), version_in(text.encode())
    newer = theirs is not None and ours is not None and comparable(theirs) > comparable(ours)
    return Copy(path, Condition.NEWER if newer else Condition.OLDER, theirs)


def put(path: str, text: str, *, force: bool = False) -> Done:
    """Write the plugin to ``path``. `InstallError` when somebody else's file is there, or it cannot be written."""
    there = look(path, text)
    if there.condition is Condition.CURRENT:
        return Done.NOTHING
    if there.condition is Condition.FOREIGN:
        refuse_folder(path)
        if not force:
            raise InstallError(f"{path}: not written by sparkshark; left alone. Replace it: --force")
    make_folder(os.path.dirname(path))
    write(path, text.encode())
    known = {Condition.MISSING: Done.INSTALLED, Condition.FOREIGN: Done.REPLACED}
    return known.get(there.condition, Done.UPDATED)


def remove(path: str, text: str) -> bool:
    """Remove the plugin at ``path`` if sparkshark wrote it; return whether it did."""
    if os.path.islink(path) or look(path, text).condition in (Condition.MISSING, Condition.FOREIGN):
        return False
    unlink(path)
    return True


def copies(folders: Iterable[str]) -> list[str]:
    """Return every file of the plugin's name below these folders, as Wireshark would come upon them."""
    found: dict[str, str] = {}
    for folder in folders:
        for searched, (place, inner, names) in enumerate(os.walk(folder)):
            if searched == MOST_FOLDERS:
                break
            inner.sort()
            if FILE_NAME in names:
                path = os.path.join(place, FILE_NAME)
                found.setdefault(spot(path), path)
    return list(found.values())


def spot(path: str) -> str:
    """Return a file's path with links resolved in its folder only: a link and what it leads to are two files."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


# -- whether it is loaded --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loading:
    """What Wireshark made of the plugin: the file that it loaded, or why it loaded none."""

    path: str | None
    complaint: str | None = None


def loading(machine: Machine, wireshark: Wireshark) -> Loading | None:
    """Ask Wireshark which file of the plugin's name it loads; None when it cannot be asked.

    ``tshark -G plugins`` runs every plugin and lists those that ran to their end.
    """
    answer = machine.run((*wireshark.tshark, "-G", "plugins"), machine.variables) if wireshark.tshark else None
    if answer is None:
        return None
    for line in answer.output.splitlines():
        name, *_, path = line.split("\t")
        if name == FILE_NAME:
            return Loading(path.strip())
    return Loading(None, _complaint(answer.complaints))


def _complaint(text: str) -> str | None:
    """Return what Wireshark says against the plugin, from the file's name on."""
    found = re.search(rf"{re.escape(FILE_NAME)}:.*", text)
    return found[0].strip() if found else None


# -- files, with errors in one line ----------------------------------------------------------------------------


def content_of(path: str) -> bytes | None:
    """Return what an ordinary file holds; None for anything else, and when it cannot be read."""
    with contextlib.suppress(OSError):
        # Asked first: a named pipe would wait for a writer.
        if stat.S_ISREG(os.stat(path).st_mode):
            with open(path, "rb") as stream:
                return stream.read(LARGEST)
    return None


def refuse_folder(path: str) -> None:
    """Complain when a folder has the name of a file of ours: no option replaces that."""
    if os.path.isdir(path) and not os.path.islink(path):
        raise InstallError(f"{path}: a folder has this name. Nothing was written. Remove or rename it first")


def make_folder(folder: str) -> None:
    """Make a folder and those above it."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise InstallError(f"{folder}: cannot be made ({_why(error)}). Nothing was written. {REMEDY}") from error


def write(path: str, data: bytes) -> None:
    """Write a file that stands under its name only when it is whole; a link of that name is replaced, not followed."""
    # Unfinished, it does not end in .lua: a Wireshark that starts in this moment must not load it.
    try:
        with new_file(path) as stream:
            stream.write(data)
            os.chmod(unfinished(path), MODE)  # whatever the umask
    except OSError as error:
        raise InstallError(f"{path}: cannot be written ({_why(error)}). Nothing was written. {REMEDY}") from error


def unlink(path: str) -> None:
    """Remove one file."""
    try:
        os.unlink(path)
    except OSError as error:
        raise InstallError(f"{path}: cannot be removed ({_why(error)}). Remove it as the user it belongs to") from error


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


# -- versions --------------------------------------------------------------------------------------------------


def version_in(content: bytes) -> str | None:
    """Return the version in a plugin's first line."""
    found = re.search(rb"\bversion (\d[\w.+!-]{0,40})", content.partition(b"\n")[0])
    return found[1].decode("ascii") if found else None


def comparable(version: str) -> tuple[int, ...]:
    """Return a version's numbers, so that 0.10 comes after 0.9."""
    return tuple(int(digits) for digits in re.findall(r"\d{1,9}", version)[:4])
