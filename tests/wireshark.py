"""Runs the real tshark with the plugin, as a user who is not root.

As root, Wireshark 4.2 and later skip Lua scripts without a word, so a test that ran as root would test nothing. The
machine's own tshark is always there; a second one, of another Lua, lives in a folder made by debootstrap, which
``SPARKSHARK_SECOND_WIRESHARK`` names (``.ci/run`` makes it).
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import lua_coverage

from analyzer.wireshark.generate import FILE_NAME

SECOND: Final = "SPARKSHARK_SECOND_WIRESHARK"
OWN: Final = "own"
NOBODY: Final = 65534
LIMIT: Final = 120
"""Seconds. A hang must not hold up all tests."""


@dataclass(eq=False)
class Tshark:
    """One tshark, and a folder that it can read: everything it is given is copied there."""

    name: str
    command: tuple[str, ...]
    root: Path
    workspace: Path
    _copies: dict[Path, str] = field(default_factory=dict)

    def share(self, path: Path) -> str:
        """Copy a file or folder to where this tshark can read it; return its path there."""
        path = path.resolve()
        if path not in self._copies:
            target = self.workspace / f"{len(self._copies)}-{path.name}"
            if path.is_dir():
                shutil.copytree(path, target)
            else:
                shutil.copy(path, target)
            _let_read(target)
            self._copies[path] = "/" + str(target.relative_to(self.root)) if str(self.root) != "/" else str(target)
        return self._copies[path]

    def write(self, name: str, content: bytes) -> str:
        """Write a file for this tshark; return its path there."""
        target = self.workspace / name
        target.write_bytes(content)
        _let_read(target)
        return "/" + str(target.relative_to(self.root)) if str(self.root) != "/" else str(target)

    def run(self, *arguments: str, plugin: bool = True) -> subprocess.CompletedProcess[str]:
        """Run it, with the plugin as it would be generated now."""
        script: tuple[str, ...] = ("-X", "lua_script:" + self.write(FILE_NAME, _plugin())) if plugin else ()
        if plugin and lua_coverage.folder() and self.name == OWN:
            script = ("-X", "lua_script:" + self.write("coverage.lua", lua_coverage.prelude()), *script)
        return subprocess.run(
            [*self.command, "tshark", *script, *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=LIMIT,
            check=False,
        )

    def rows(self, fields: Iterable[str], *arguments: str) -> list[list[str]]:
        """Run it over a capture; return the fields of each packet. Nothing may go wrong on the way."""
        asked = [word for name in fields for word in ("-e", name)]
        done = self.run(*arguments, "-T", "fields", *asked)
        assert done.returncode == 0, done.stderr
        assert not done.stderr, done.stderr
        return [line.split("\t") for line in done.stdout.splitlines()]


@functools.lru_cache(maxsize=1)
def _plugin() -> bytes:
    return lua_coverage.plugin()


def _let_read(path: Path) -> None:
    for each in (path, *path.rglob("*")) if path.is_dir() else (path,):
        each.chmod(0o755 if each.is_dir() else 0o644)


def _workspace(inside: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="sparkshark-", dir=inside))
    folder.chmod(0o755)
    home = folder / "home"
    home.mkdir()
    if os.geteuid() == 0:
        os.chown(home, NOBODY, NOBODY)
    return folder


def _environment(home: str) -> tuple[str, ...]:
    return ("env", "-i", f"HOME={home}", "PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC")


@functools.lru_cache(maxsize=1)
def tsharks() -> dict[str, Tshark]:
    """Every tshark there is to test with, by name."""
    workspace = _workspace(Path(tempfile.gettempdir()))
    drop = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups") if os.geteuid() == 0 else ()
    found = {OWN: Tshark(OWN, (*drop, *_environment(f"{workspace}/home")), Path("/"), workspace)}
    second = os.environ.get(SECOND)
    if second:
        root = Path(second)
        inside = _workspace(root / "tmp")
        home = "/" + str((inside / "home").relative_to(root))
        chroot = ("chroot", f"--userspec={NOBODY}:{NOBODY}", str(root))
        found["second"] = Tshark("second", (*chroot, *_environment(home)), root, inside)
    return found
