"""The README's outputs and tables are made, not written:  python -m tests.readme

In a block that begins with ```` ```console ````, each ``$ sparkshark ...`` is followed by what it prints (and
``| head -N`` keeps N lines of that). Between ``<!-- NAME -->`` and ``<!-- end -->`` stands the table of that name.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from analyzer.findings import FINDINGS, FindingSpec, Group

ROOT: Final = Path(__file__).resolve().parent.parent
README: Final = ROOT / "README.md"

_BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"\bsparkshark (?P<words>.*?)(?: \| head -(?P<lines>\d+))?$")
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
    command = _COMMAND.search(line)
    if command is None:
        raise ValueError(f"README.md: {line}: not a sparkshark command")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1"}
    words = [sys.executable, "-m", "analyzer", *shlex.split(command["words"])]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=True)
    lines = done.stdout.splitlines()
    return "".join(f"{shown}\n" for shown in lines[: int(command["lines"] or len(lines))])


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


TABLES: Final = {"findings": findings_table}


if __name__ == "__main__":
    README.write_text(refreshed(README.read_text(encoding="utf-8")), encoding="utf-8")
