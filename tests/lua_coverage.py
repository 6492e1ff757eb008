"""Which lines of the plugin no test has entered:

    python -m tests.lua_coverage [--part NAME] [--keep FILE] [PYTEST ARGUMENTS]

Runs the tests of the plugin (or those named) with a line hook in every Lua they use, in lupa, inside the machine's own
tshark and in its window, and prints the lines that were never entered, by part of ``lua/src``. Needs luac of some Lua.

``--part lupa``, ``--part tshark`` and ``--part window`` run some of the tests. ``--keep`` adds what they entered to a
file, and counts what is in there already, as far as the part of ``lua/src`` is still the same.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import hypothesis

from analyzer.wireshark.generate import PARTS, WIRESHARK_PARTS, generate

FOLDER: Final = "SPARKSHARK_LUA_COVERAGE"
"""Names the folder into which each Lua writes the lines that it has entered, while this is set."""
CHUNK: Final = "sparkshark.lua"
HOOK: Final = """\
local seen, getinfo, sub = {}, debug.getinfo, string.sub
local unique = os.tmpname()
os.remove(unique)
-- Unbuffered: a window is ended without warning.
local out = assert(io.open("%s/" .. string.gsub(unique, "[^%%w]", "_"), "w"))
out:setvbuf("no")
debug.sethook(function(_, line)
  if not seen[line] and sub(getinfo(2, "S").source, -14) == "sparkshark.lua" then
    seen[line] = true
    out:write(string.format("%%d\\n", line))
  end
end, "l")
"""
TESTS: Final = Path(__file__).resolve().parent
JUDGING: Final = (
    "test_rules",
    "test_rules_keys",
    "test_rules_device",
    "test_rules_session",
    "test_rules_connectivity",
    "test_rules_edges",
    "test_every_finding",
)
"""Modules whose captures the plugin's rules judge as well (see conftest)."""
RUNS: Final = {
    "lupa": ("test_lua_*.py", *(f"{name}.py" for name in JUDGING)),
    "tshark": ("test_wireshark.py", "test_wireshark_campaign.py"),
    "window": ("test_wireshark_gui.py",),
}
FEW: Final = 25
"""Examples of each property: the hook makes Lua slow, and the properties hold or fail elsewhere."""
LEFT_OUT: Final = "not nonsense and not (shape and byte) and not large_keys"
"""Minutes with a hook each, and they enter nothing that others do not."""


def folder() -> str | None:
    """Where lines are written to, while they are."""
    return os.environ.get(FOLDER)


def plugin() -> bytes:
    """The plugin's text, generated anew; while lines are written, the one that they are lines of."""
    where = folder()
    return generate().encode() if where is None else (Path(where) / CHUNK).read_bytes()


def load(lua: Any, text: bytes) -> Any:
    """Run the plugin in a Lua of lupa; watch it where lines are written."""
    if folder() is None:
        return lua.execute(text)
    lua.execute(prelude())
    return lua.eval(f"function(text) return assert((loadstring or load)(text, '@{CHUNK}'))() end".encode())(text)


def prelude() -> bytes:
    """What watches the plugin; to be run before it. Nothing where nobody watches."""
    where = folder()
    return (HOOK % where).encode() if where else b""


def pytest_configure() -> None:
    """Try each property with few examples, whatever it asks for: in the runs below this module is a pytest plugin."""
    whole = hypothesis.settings.__init__

    @functools.wraps(whole)
    def fewer(self: hypothesis.settings, *given: Any, **asked: Any) -> None:
        whole(self, *given, **{**asked, "max_examples": min(FEW, asked.get("max_examples", FEW))})

    hypothesis.settings.__init__ = fewer  # type: ignore[method-assign]


def executable_lines(text: str) -> set[int]:
    """The lines that have code, as a Lua compiler lists them."""
    luac = next(found for name in ("luac5.4", "luac5.3", "luac5.2", "luac") if (found := shutil.which(name)))
    listing = subprocess.run([luac, "-l", "-p", "-"], input=text, capture_output=True, text=True, check=True).stdout
    return {
        int(line) for line in re.findall(r"^\t\d+\t\[(\d+)\]\t(?!RETURN|CLOSURE|JMP|VARARG)", listing, re.MULTILINE)
    }


def places(text: str) -> dict[int, tuple[str, int]]:
    """For each line of the plugin, the part it is from and the line there."""
    found: dict[int, tuple[str, int]] = {}
    part, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        heading = re.fullmatch(r"-- (\w+) -{20,}", line)
        if heading and heading[1] in {*PARTS, *WIRESHARK_PARTS}:
            part, start = heading[1], number + 1  # the part begins behind its "do"
        elif part:
            found[number] = part, number - start
    return found


def run(tests: list[str], text: str) -> set[int]:
    """Run tests; return the lines of the plugin that they entered."""
    with tempfile.TemporaryDirectory() as name:
        where = Path(name)
        where.chmod(0o777)
        (where / CHUNK).write_text(text, encoding="utf-8")
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "lua_coverage", *tests],
            env={**os.environ, FOLDER: name, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"},
            cwd=TESTS.parent,
            check=False,
        )
        return {
            int(line) for path in where.iterdir() if path.name != CHUNK for line in path.read_text().split("\n")[:-1]
        }


def united(entered: set[tuple[str, int]], where: dict[int, tuple[str, int]], text: str, file: Path) -> None:
    """Add what a file has, as far as it is still true, and write all of it to the file."""
    lines = text.splitlines()
    contents: dict[str, list[str]] = {}
    for number, (part, _) in where.items():
        contents.setdefault(part, []).append(lines[number - 1])
    digests = {part: hashlib.sha256("\n".join(content).encode()).hexdigest() for part, content in contents.items()}
    for part, kept in (json.loads(file.read_text()) if file.exists() else {}).items():
        if kept["sha256"] == digests.get(part):
            entered |= {(part, line) for line in kept["lines"]}
    kept = {
        part: {"sha256": digest, "lines": sorted(line for of, line in entered if of == part)}
        for part, digest in digests.items()
    }
    file.write_text(json.dumps(kept))


def main(arguments: list[str]) -> int:
    """Run tests, then print what they left out."""
    parser = argparse.ArgumentParser(prog="python -m tests.lua_coverage", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--part", choices=[*RUNS], action="append")
    parser.add_argument("--keep", type=Path, metavar="FILE")
    asked, tests = parser.parse_known_args(arguments)
    if asked.part or not any(Path(word.partition("::")[0]).exists() for word in tests):
        patterns = [pattern for part in asked.part or RUNS for pattern in RUNS[part]]
        tests += [str(path) for pattern in patterns for path in sorted(TESTS.glob(pattern))]
        tests += [] if "-k" in tests else ["-k", LEFT_OUT]
    text = generate()
    where = places(text)
    entered = {where[line] for line in run(tests, text) if line in where}
    if asked.keep:
        united(entered, where, text, asked.keep)
    lines = text.splitlines()
    # Compilers disagree about which ends of blocks are code.
    wanted = {n for n in executable_lines(text) if n in where and not re.fullmatch(r"\s*end[ ,;)}]*", lines[n - 1])}
    missed = sorted(n for n in wanted if where[n] not in entered)
    for line in missed:
        part, number = where[line]
        print(f"{part}.lua:{number}: {lines[line - 1].strip()}")
    print(f"{len(wanted) - len(missed):,} of {len(wanted):,} lines entered, {len(missed):,} not")
    return bool(missed)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
