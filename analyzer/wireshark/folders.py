"""Which Wiresharks this user has, and where each looks for plugins and profiles.

A `tshark` that can be run is asked itself (``-G folders``, ``--version``). Without one, the folders are those that
Wireshark's own documentation names. Nothing here writes. What is read from the system goes through a `Machine`, so
that every system's places can be looked at from any other.
"""

from __future__ import annotations

import ntpath
import os
import posixpath
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import ModuleType
from typing import Final

OLDEST: Final = (3, 6)
NEWEST: Final = (4, 6)
"""The releases that the plugin was tried with, first and last."""
ROOT_IGNORED_FROM: Final = (4, 2)
"""From this release on Wireshark runs no personal plugin, and says nothing of it, when it runs as root."""
PATIENCE_S: Final = 30.0
"""How long a program may take to tell about itself: a Flatpak that starts for the first time needs seconds."""

FLATPAK: Final = "org.wireshark.Wireshark"
SNAP: Final = "wireshark"
PROGRAM_FOLDERS: Final = {
    "linux": ("/usr/local/bin", "/usr/bin"),
    "darwin": (
        "/Applications/Wireshark.app/Contents/MacOS",
        "{home}/Applications/Wireshark.app/Contents/MacOS",
        "/opt/homebrew/bin",
        "/opt/local/bin",
        "/usr/local/bin",
        "/usr/bin",
    ),
    "win32": (
        "{PROGRAMFILES}\\Wireshark",
        "{PROGRAMW6432}\\Wireshark",
        "{PROGRAMFILES(X86)}\\Wireshark",
    ),
}
"""Where installers put Wireshark, beside what PATH names. (Python has the names of Windows' variables in capitals.)"""
SNAP_PROGRAMS: Final = "/snap/bin"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program wrote when it was asked."""

    output: str
    complaints: str = ""


def run(command: Sequence[str], variables: Mapping[str, str]) -> Answer | None:
    """Run a program that only tells about itself; None when it cannot be run or reports a failure."""
    try:
        done = subprocess.run(  # noqa: S603 - a program found at an absolute path, with options of ours
            command,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=PATIENCE_S,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return Answer(*(text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr)))


@dataclass(frozen=True, slots=True)
class Machine:
    """What finding depends on: ``system`` as `sys.platform` has it, the home folder, the environment, and the few
    questions that are put to the system.
    """

    system: str
    home: str
    variables: Mapping[str, str]
    superuser: bool = False
    is_file: Callable[[str], bool] = os.path.isfile
    is_folder: Callable[[str], bool] = os.path.isdir
    real: Callable[[str], str] = os.path.realpath
    run: Callable[[Sequence[str], Mapping[str, str]], Answer | None] = run

    @classmethod
    def here(cls) -> Machine:
        """Return this machine, as this user sees it."""
        system = sys.platform if sys.platform in PROGRAM_FOLDERS else "linux"  # the BSDs keep their files as Linux does
        superuser = getattr(os, "geteuid", lambda: 1)() == 0
        return cls(system, os.path.expanduser("~"), dict(os.environ), superuser)

    @property
    def paths(self) -> ModuleType:
        """The rules for paths of this system."""
        return ntpath if self.system == "win32" else posixpath

    def join(self, *parts: str) -> str:
        """Return one path of several parts."""
        return str(self.paths.join(*parts))

    def shown(self, path: str) -> str:
        """Return a path as people read it: the home folder as ``~`` where the shell would understand that."""
        inside = path.removeprefix(self.home.rstrip("/") + "/")
        return path if self.system == "win32" or inside == path or self.home == "/" else f"~/{inside}"


class Kind(StrEnum):
    """How a Wireshark came onto the machine."""

    INSTALLED = "installed"
    FLATPAK = "Flatpak"
    SNAP = "Snap"


@dataclass(frozen=True, slots=True)
class Folders:
    """Where one Wireshark looks. ``shared`` are its global plugins, None when that is not known."""

    plugins: str
    configuration: str
    shared: str | None = None


@dataclass(frozen=True, slots=True)
class Wireshark:
    """One Wireshark of this user. ``tshark`` is the command that answers questions, empty when there is none;
    ``folders`` is None when they do not exist before its first start; ``version`` is None when nothing tells it.
    """

    kind: Kind
    place: str
    version: str | None
    folders: Folders | None
    tshark: tuple[str, ...] = ()
    has_lua: bool = True

    @property
    def release(self) -> tuple[int, int] | None:
        """The first two numbers of the version."""
        found = re.match(r"(\d+)\.(\d+)", self.version or "")
        return (int(found[1]), int(found[2])) if found else None

    @property
    def name(self) -> str:
        """What people call it: ``Wireshark 4.0.17``."""
        return f"Wireshark {self.version}" if self.version else "Wireshark"


def documented(machine: Machine) -> Folders:
    """Return the folders that Wireshark's documentation names for this system."""
    join, variables = machine.join, machine.variables
    chosen = variables.get("WIRESHARK_CONFIG_DIR")
    if machine.system == "win32":
        roaming = variables.get("APPDATA") or join(machine.home, "AppData", "Roaming")
        configuration = chosen or join(roaming, "Wireshark")
        return Folders(join(configuration, "plugins"), configuration)
    plugins = join(machine.home, ".local", "lib", "wireshark", "plugins")
    if chosen:
        return Folders(plugins, chosen)
    return Folders(plugins, join(variables.get("XDG_CONFIG_HOME") or join(machine.home, ".config"), "wireshark"))


def find(machine: Machine) -> list[Wireshark]:
    """Return every Wireshark of this user, the one that PATH names first."""
    return [*_installed(machine), *_flatpak(machine), *_snap(machine)]


def _installed(machine: Machine) -> Iterator[Wireshark]:
    """Those that are ordinary programs: ``tshark`` if it is there, which answers, else the program with windows."""
    seen = set()
    ending = ".exe" if machine.system == "win32" else ""
    windowed = ("Wireshark", "wireshark") if machine.system == "darwin" else (f"wireshark{ending}",)
    for folder in _program_folders(machine):
        tshark = machine.join(folder, f"tshark{ending}")
        place = next((p for name in windowed if machine.is_file(p := machine.join(folder, name))), None)
        if machine.is_file(tshark):
            place = tshark
        if place is None or machine.real(place) in seen:
            continue
        seen.add(machine.real(place))
        if place == tshark:
            yield _asked(machine, Kind.INSTALLED, place, (tshark,), documented(machine))
        else:
            # Windows' own program would open a window instead of answering.
            answer = None if ending else machine.run((place, "--version"), machine.variables)
            yield Wireshark(Kind.INSTALLED, place, _version(answer), documented(machine))


def _program_folders(machine: Machine) -> Iterator[str]:
    """PATH, then the usual places. A relative entry of PATH could be anybody's folder, so nothing is run from there."""
    separator = ";" if machine.system == "win32" else ":"
    for folder in machine.variables.get("PATH", "").split(separator):
        if machine.paths.isabs(folder) and folder.rstrip("/") != SNAP_PROGRAMS:
            yield folder
    known = {"home": machine.home, **machine.variables}
    for pattern in PROGRAM_FOLDERS[machine.system]:
        name = re.search(r"\{(.+)\}", pattern)
        if name is None:
            yield pattern
        elif name[1] in known:
            yield pattern.replace(name[0], known[name[1]])


def _flatpak(machine: Machine) -> Iterator[Wireshark]:
    """The Flatpak keeps its configuration apart, but its home is the user's own, which it may read: so it loads
    plugins from where an ordinary Wireshark does.
    """
    data = machine.variables.get("XDG_DATA_HOME") or machine.join(machine.home, ".local", "share")
    for root in ("/var/lib/flatpak", machine.join(data, "flatpak")):
        place = machine.join(root, "app", FLATPAK)
        if machine.system != "linux" or not machine.is_folder(place):
            continue
        plugins = machine.join(machine.home, ".local", "lib", "wireshark", "plugins")
        configuration = machine.join(machine.home, ".var", "app", FLATPAK, "config", "wireshark")
        launcher = next(
            (p for f in _program_folders(machine) if machine.is_file(p := machine.join(f, "flatpak"))), None
        )
        command = (launcher, "run", "--command=tshark", FLATPAK) if launcher else ()
        yield _asked(machine, Kind.FLATPAK, place, command, Folders(plugins, configuration))
        return


def _snap(machine: Machine) -> Iterator[Wireshark]:
    """The Snap has a home of its own inside the user's, which snapd makes when it is first started."""
    place = machine.join(SNAP_PROGRAMS, SNAP)
    if machine.system != "linux" or not machine.is_file(place):
        return
    home = machine.join(machine.home, "snap", SNAP, "current")
    folders = None
    if machine.is_folder(home):
        # Not what it says itself: that names the revision, which the next update leaves behind.
        folders = Folders(
            machine.join(home, ".local", "lib", "wireshark", "plugins"), machine.join(home, ".config", "wireshark")
        )
    programs = (machine.join(SNAP_PROGRAMS, name) for name in (f"{SNAP}.tshark", "tshark"))
    tshark = next(((program,) for program in programs if machine.is_file(program)), ())
    answer = machine.run((*tshark, "--version"), machine.variables) if tshark else None
    yield Wireshark(Kind.SNAP, place, _version(answer), folders, tshark if answer else ())


def _asked(machine: Machine, kind: Kind, place: str, tshark: tuple[str, ...], usual: Folders) -> Wireshark:
    """Return what a tshark says of itself; where it cannot be run, ``usual``."""
    if not tshark:
        return Wireshark(kind, place, None, usual)
    version = _version(machine.run((*tshark, "--version"), machine.variables))
    answer = machine.run((*tshark, "-G", "folders"), machine.variables)
    if answer is None:
        return Wireshark(kind, place, version, usual)
    told = {name: path for name, _, path in (_pair(line) for line in answer.output.splitlines()) if path}
    folders = Folders(
        told.get("Personal Lua Plugins", usual.plugins),
        told.get("Personal configuration", usual.configuration),
        told.get("Global Lua Plugins"),
    )
    return Wireshark(kind, place, version, folders, tshark, "Personal Lua Plugins" in told)


def _pair(line: str) -> tuple[str, str, str]:
    name, colon, path = line.partition(":")
    return name.strip(), colon, path.strip()


def _version(answer: Answer | None) -> str | None:
    """Return the version in the first line of ``--version``: ``TShark (Wireshark) 4.0.17 (Git ...)``."""
    found = re.search(r"^.*?(\d+\.\d+(?:\.\d+)?)", answer.output) if answer else None
    return found[1] if found else None
