"""The README's outputs and tables are made, not written:  python -m tests.readme

In a block that begins with ```` ```console ````, each ``$ sparkshark ...`` (and ``$ tshark ...``, with the plugin) is
followed by what it prints (``| head -N`` keeps N lines of that, ``< FILE`` is what it reads). Between
``<!-- NAME -->`` and ``<!-- end -->`` stands the table of that name.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Final

from analyzer.findings import FINDINGS, FindingSpec, Group

ROOT: Final = Path(__file__).resolve().parent.parent
README: Final = ROOT / "README.md"

_BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"\bsparkshark (?P<words>.*?)(?: < (?P<input>\S+))?(?: \| head -(?P<lines>\d+))?$")
_TSHARK = re.compile(r"^\$ tshark (?P<words>.*?)(?: \| head -(?P<lines>\d+))?$")
_REQUIRED = re.compile(r'^    "([\w-]+)>=[\d.]+", # (.+)$', re.MULTILINE)
_TABLE = re.compile(r"(?P<begin><!-- (?P<name>\w+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)


def refreshed(text: str) -> str:
    """Return the README with every output and table as the program makes it now."""
    with tempfile.TemporaryDirectory() as folder:
        # Examples name the captures as they lie in the repository, and write beside them.
        (Path(folder) / "captures").symlink_to(ROOT / "captures")
        text = _BLOCK.sub(lambda block: _session(block[0], folder), text)
    return _TABLE.sub(lambda table: f"{table['begin']}\n{TABLES[table['name']]()}\n{table['end']}", text)


def _session(block: str, folder: str) -> str:
    commands = [line for line in block.splitlines() if line.startswith("$ ")]
    return "\n".join(f"{line}\n{_output(line, folder)}" for line in commands)


def _output(line: str, folder: str) -> str:
    if (tshark := _TSHARK.match(line)) is not None:
        return _shown(_dissected(shlex.split(tshark["words"])), tshark["lines"])
    command = _COMMAND.search(line)
    if command is None:
        raise ValueError(f"README.md: {line}: not a sparkshark command")
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1"}
    words = [sys.executable, "-m", "analyzer", *shlex.split(command["words"])]
    with open(Path(folder, command["input"] or os.devnull), "rb") as given:
        done = subprocess.run(words, cwd=folder, env=environment, stdin=given, capture_output=True, check=True)
    return _shown(done.stdout.decode(), command["lines"])


def _shown(text: str, count: str | None) -> str:
    lines = text.splitlines()
    return "".join(f"{line}\n" for line in lines[: int(count or len(lines))])


def _dissected(words: list[str]) -> str:
    """Run tshark with the plugin as generated now, on files of this repository."""
    sys.path.insert(0, str(ROOT / "tests"))  # where pytest finds it; ``python -m tests.readme`` does not
    from wireshark import tsharks  # noqa: PLC0415 - only for this

    own = tsharks()["own"]
    given = [re.sub(r"captures/\S+", lambda path: own.share(ROOT / path[0]), word) for word in words]
    return own.run(*given).stdout


def findings_table() -> str:
    """Return the findings as a Markdown table: what it is, how bad, and whether a key is needed to say so."""
    rows = ["| code | what is the matter | severity | without a key |", "|---|---|---|---|"]
    rows += [f"| {spec.code} | {spec.title} | {spec.severity} | {_without_key(spec)} |" for spec in FINDINGS.values()]
    return "\n".join(rows) + "\n"


def _without_key(spec: FindingSpec) -> str:
    if spec.group is not Group.KEYS:
        return "yes"
    suspects = [other.code for other in FINDINGS.values() if any(spec.code in cause for cause in other.causes)]
    return f"as a cause of {', '.join(suspects)}" if suspects else "no"


def reasons() -> dict[str, str]:
    """Return what each package is for that the project needs, as pyproject.toml tells it; the first time counts."""
    told: dict[str, str] = {}
    for name, why in _REQUIRED.findall((ROOT / "pyproject.toml").read_text(encoding="utf-8")):
        told.setdefault(name, why)
    return told


def packages_table() -> str:
    """Return what the project stands on as a Markdown table; what only an extra brings is optional."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    always = [requirement.partition(">=")[0] for requirement in project["dependencies"]]
    extras = {extra: wanted for extra, wanted in project["optional-dependencies"].items() if extra != "test"}
    rows = ["| package | for | installed |", "|---|---|---|"]
    rows += [f"| {name} | {reasons()[name]} | always |" for name in always]
    for extra, wanted in extras.items():
        for name in (requirement.partition(">=")[0] for requirement in wanted):
            rows.append(f"| {name} | {reasons()[name]} | with `[{extra}]` |")
    return "\n".join(rows) + "\n"


TABLES: Final = {"findings": findings_table, "packages": packages_table}


if __name__ == "__main__":
    README.write_text(refreshed(README.read_text(encoding="utf-8")), encoding="utf-8")
