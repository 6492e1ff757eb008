"""What is handed on: the same bytes whoever builds it, and nothing in it that does not belong there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from package import ROOT, build, sources
from readme import README, packages_table, reasons

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAME = f"sparkshark-{PROJECT['version']}"


class Built(NamedTuple):
    archive: Path
    wheel: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(*build(tmp_path_factory.mktemp("built")))


def test_whoever_builds_gets_the_same_bytes(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Elsewhere and later, from files that were made in another order and are one's own, after an earlier build."""
    other = tmp_path / "elsewhere" / "of another name"
    before = os.umask(0o077)
    try:
        for name in reversed(sources(ROOT)):
            (other / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, other / name)
            (other / name).chmod(0o700 if os.access(ROOT / name, os.X_OK) else 0o600)
        for left in (
            "build/lib/analyzer/old.py",
            "analyzer/__pycache__/x.pyc",
            ".venv/x.py",
            "old.egg-info/SOURCES.txt",
        ):
            (other / left).parent.mkdir(parents=True, exist_ok=True)
            (other / left).write_text("left behind")
        monkeypatch.setenv("LC_ALL", "tr_TR.UTF-8")
        monkeypatch.setenv("TZ", "Asia/Kolkata")
        again = Built(*build(tmp_path / "again", other))
    finally:
        os.umask(before)
    assert [path.name for path in again] == [path.name for path in built]
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in built]
    assert capfd.readouterr() == ("", "")


def test_the_wheel_holds_the_package_alone(built: Built) -> None:
    names = zipfile.ZipFile(built.wheel).namelist()
    package = ROOT / "analyzer"
    wanted = {path.relative_to(ROOT).as_posix() for path in package.rglob("*.py")}
    wanted |= {path.relative_to(ROOT).as_posix() for path in package.glob("report/html/templates/*")}
    wanted |= {"analyzer/py.typed", "analyzer/lua/sparkshark.lua", f"{NAME}.data/data/share/man/man1/sparkshark.1"}
    told = ("METADATA", "WHEEL", "entry_points.txt", "top_level.txt", "RECORD", "licenses/LICENSE")
    wanted |= {f"{NAME}.dist-info/{name}" for name in told}
    assert sorted(names) == sorted(wanted)
    assert built.wheel.name == f"{NAME}-py3-none-any.whl"


def test_the_archive_holds_all_that_it_takes_to_build_and_to_test(built: Built) -> None:
    with tarfile.open(built.archive) as tar:
        members = tar.getmembers()
    files = {member.name.removeprefix(f"{NAME}/") for member in members if member.isfile()}
    made = {
        name
        for name in files
        if name in ("PKG-INFO", "setup.cfg", "MANIFEST.in") or name.startswith("sparkshark.egg-info/")
    }
    assert files - made == set(sources(ROOT))
    assert {"tests/run", "tests/planted.py", "captures/healthy-full.pcap", "lua/src/rules.lua", ".ci/run"} <= files
    assert all(member.isfile() or member.isdir() for member in members)
    runs = {member.name.removeprefix(f"{NAME}/") for member in members if member.isfile() and member.mode & 0o111}
    assert runs == {name for name in sources(ROOT) if os.access(ROOT / name, os.X_OK)}


def test_the_wheel_works_from_anywhere(built: Built, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "analyzer",
        "analyze",
        str(ROOT / "captures/port-blocked.pcap"),
        "--format",
        "json",
    ]
    environment = {**os.environ, "PYTHONPATH": str(built.wheel)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    report = json.loads(done.stdout)
    assert (report["version"], report["findings"][0]["code"]) == (PROJECT["version"], "SPK101")


# -- what it stands on ---------------------------------------------------------------------------------------------


def named(requirements: list[str]) -> list[str]:
    """The packages that are required, each with the lowest version that will do, and no other condition."""
    found = [re.fullmatch(r"([\w-]+)>=[\d.]+", requirement) for requirement in requirements]
    assert None not in found, "a lower bound, which `python -m tests.versions lowest` tries, and nothing else"
    return [match[1] for match in found if match is not None]


def test_each_package_that_is_needed_has_a_reason_and_the_readme_tells_it() -> None:
    extras = PROJECT["optional-dependencies"]
    needed = [*named(PROJECT["dependencies"]), *(name for extra in extras.values() for name in named(extra))]
    assert set(reasons()) == set(needed)
    assert [name for name, why in reasons().items() if len(why.split()) < 2] == []
    table = README.read_text(encoding="utf-8")
    assert packages_table() in table


def test_an_extra_asks_for_no_other_version_than_the_tests_do() -> None:
    extras = PROJECT["optional-dependencies"]
    for name in ("compression", "cluster", "parquet"):
        assert set(extras[name]) <= set(extras["test"])
