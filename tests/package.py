"""Builds the source archive and the wheel, with the same bytes from the same sources:  python -m tests.package [-o DIR]

Whoever builds, wherever, whenever: setuptools alone would put the times and rights of files, the name of the user and
leftovers of earlier builds into them. So all is copied first, and what only tells whose it is, is set. Times are
SOURCE_DATE_EPOCH (seconds since 1970), or the first that a zip file can have. Another setuptools, or another zlib, may
write other bytes.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
FIRST: Final = 315_532_800
"""1980-01-01 00:00 UTC."""
LEFT_BEHIND: Final = re.compile(r"^(?:__pycache__|build|dist|\.(?!ci$|gitignore$).*|.*\.egg-info|.*\.py[cod])$")
"""What is no source: it is made, or belongs to one machine."""
ALL: Final = "graft .\nprune build\nprune *.egg-info\nglobal-exclude __pycache__ *.py[cod]\n"
"""Tells setuptools that the source archive has all that was copied: everything that its tests need. The wheel takes
nothing of this.
"""
BUILD: Final = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"


def build(into: Path, source: Path = ROOT) -> tuple[Path, Path]:
    """Build both from ``source`` into a folder; return the source archive and the wheel."""
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        copied = place / "source"
        copy(source, copied)
        (copied / "MANIFEST.in").write_text(ALL)
        archive = into / _built("build_sdist", copied, place / "archive").name
        _pack(place / "archive" / archive.name, archive)
        # The wheel is built of the archive, as whoever downloads that will do.
        with tarfile.open(archive) as tar:
            tar.extractall(place / "unpacked", filter="data")
        (unpacked,) = (place / "unpacked").iterdir()
        copy(unpacked, place / "again")
        wheel = _built("build_wheel", place / "again", place / "wheel")
        return archive, Path(shutil.copy(wheel, into))


def sources(folder: Path) -> list[str]:
    """Return what belongs to the project, as paths below ``folder``."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not LEFT_BEHIND.match(name)]
        found += [os.path.relpath(os.path.join(place, name), folder) for name in files if not LEFT_BEHIND.match(name)]
    return sorted(found)


def copy(source: Path, target: Path) -> None:
    """Copy sources, with rights and times that say nothing of this machine."""
    for name in sources(source):
        file = target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, file)
        file.chmod(0o755 if os.access(source / name, os.X_OK) else 0o644)
        os.utime(file, (epoch(), epoch()))


def epoch() -> int:
    """Return the time that files have, in seconds since 1970."""
    return max(FIRST, int(os.environ.get("SOURCE_DATE_EPOCH", FIRST)))


def _built(what: str, source: Path, into: Path) -> Path:
    into.mkdir()
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch()), "LC_ALL": "C", "TZ": "UTC", "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", BUILD, what, str(into)],
        cwd=source,
        env=environment,
        umask=0o022,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        sys.stderr.buffer.write(done.stdout)
        raise SystemExit(f"{what}: setuptools failed")
    (made,) = into.iterdir()
    return made


def _pack(made: Path, archive: Path) -> None:
    """Pack an archive anew: by name, of nobody, at one time."""
    with (
        tarfile.open(made) as old,
        open(archive, "wb") as file,
        gzip.GzipFile("", "wb", 9, file, mtime=epoch()) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda one: one.name):
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = epoch()
            member.pax_headers = {}
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            new.addfile(member, old.extractfile(member))


def main() -> None:
    """Build, and say what."""
    parser = argparse.ArgumentParser(prog="python -m tests.package", description=__doc__)
    parser.add_argument("-o", dest="folder", default="dist", type=Path, help="where to (default: dist)")
    for made in build(parser.parse_args().folder):
        print(made)


if __name__ == "__main__":
    main()
