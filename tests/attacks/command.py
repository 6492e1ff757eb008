"""Attacks on time and memory:  python -m tests.attacks [--list] [NAME ...] [--scale N]

Each attack is built in a temporary folder, the real command runs on it in a process of its own, at a quarter of its
size and at all of it, and what that costs is compared: processor time has to grow with the size and no faster, memory
not at all or by what each unit is known to take, and a healthy session in the same capture has to be called healthy.
All of them at full scale take an hour of processor time and 10 GB of disk, and write tests/attempts/bounds.json.
"""

from __future__ import annotations

import argparse
import json
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from attempts import record

from attacks import around, files, keyfiles, opened, outputs, tcp  # noqa: F401 - they enter their attacks into the list
from attacks.model import ATTACKS
from attacks.run import Result, tried

RESULTS: Final = record.record_of("bounds")
FOUND: Final = Path(__file__).with_name("found.json")
LIBRARIES: Final = ("cryptography", "dpkt", "zstandard", "lz4", "pyarrow")
COMMAND: Final = "python -m tests.attacks"
COLUMNS: Final = [
    "attack",
    "size",
    "CPU s",
    "peak MiB",
    "CPU for twice the size",
    "memory for twice the size",
    "bound that held",
]
ABOUT: Final = (
    "Captures, key files and pipes made to cost much. Each is tried at a quarter of its size and at all of it:"
    " processor time grows with the size and no faster; memory does not grow, or by what is known of each connection"
    " or message; and a healthy session in the same capture is still called healthy."
)


def main() -> int:
    """Try the attacks that are named, or all of them."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help="which attacks (default: all)")
    parser.add_argument("--list", action="store_true", help="say which there are")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the attacks (default 1)")
    parser.add_argument("-o", dest="output", type=Path, help="where the results go (at scale 1: tests/attempts)")
    arguments = parser.parse_args()
    if arguments.list:
        for attack in ATTACKS.values():
            print(f"{attack.name:<20} {attack.size:>9,} {attack.unit:<14} {attack.says}")
        return 0
    unknown = [name for name in arguments.names if name not in ATTACKS]
    if unknown:
        parser.error(f"{unknown[0]}: no such attack. All: --list")
    output = arguments.output or (RESULTS if arguments.scale == 1 else None)
    failed = False
    for name in arguments.names or ATTACKS:
        result = tried(ATTACKS[name], arguments.scale)
        print("  ".join(str(cell) for cell in result.row), *result.wrong, sep="\n    ", flush=True)
        failed = failed or bool(result.wrong)
        if output is not None:
            write(output, result)
    return int(failed)


def write(path: Path, result: Result) -> None:
    """Enter one result into the file, in the place of an earlier one of the same attack."""
    old: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = {row[0]: row for row in old.get("rows", [])}
    rows[result.attack.name] = [*result.row]
    if result.wrong:
        rows[result.attack.name][-1] = "; ".join(result.wrong)
    told = {
        "title": "Attacks on time and memory",
        "order": 20,
        "about": ABOUT,
        "command": COMMAND,
        "columns": COLUMNS,
        "rows": [rows[name] for name in ATTACKS if name in rows],
        "found": json.loads(FOUND.read_text(encoding="utf-8")),
        "ran": record.ran(**{name: metadata.version(name) for name in LIBRARIES}),
    }
    path.parent.mkdir(exist_ok=True)
    record.keep(path, told)
