"""Which lines of the plugin no test has entered:  python -m tests.lua_coverage [PYTEST ARGUMENTS]

Runs the tests of the plugin (or those named) with a line hook in every Lua they use, in lupa and inside the machine's
own tshark, and prints the lines that were never entered, by part of ``lua/src``. Needs luac of some Lua.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from analyzer.wireshark.generate import PARTS, WIRESHARK_PARTS, generate

FOLDER: Final = "SPARKSHARK_LUA_COVERAGE"
"""Names the folder into which each process writes the lines that it has entered, while this is set."""
CHUNK: Final = "sparkshark.lua"
HOOK: Final = """\
local seen, getinfo, sub = {}, debug.getinfo, string.sub
_G.SPARKSHARK_SEEN = seen
debug.sethook(function(_, line)
  if not seen[line] and sub(getinfo(2, "S").source, -14) == "sparkshark.lua" then seen[line] = true end
end, "l")
"""
AT_END: Final = """\
local file_name = os.tmpname()
_G.SPARKSHARK_AT_END = setmetatable({}, { __gc = function()
  local out = io.open(%r .. "/" .. string.gsub(file_name, "[^%%w]", "_"), "w")
  for line in pairs(_G.SPARKSHARK_SEEN) do out:write(string.format("%%d\\n", line)) end
  out:close()
end })
"""
TESTS: Final = "tests"
_ENTERED: set[int] = set()
_RUNTIMES: list[Any] = []


def folder() -> str | None:
    """Where lines are written to, while they are."""
    return os.environ.get(FOLDER)


def load(lua: Any, text: bytes) -> Any:
    """Run the plugin in a Lua of lupa, and watch it."""
    if not _RUNTIMES:
        atexit.register(_write)
    lua.execute(HOOK.encode())
    _RUNTIMES.append(lua)
    return lua.eval(f"function(text) return assert((loadstring or load)(text, '@{CHUNK}'))() end".encode())(text)


def prelude() -> bytes:
    """What watches the plugin inside tshark; to be loaded before it."""
    return (HOOK + AT_END % folder()).replace("'", '"').encode()


def _write() -> None:
    for lua in _RUNTIMES:
        _ENTERED.update(int(line) for line in lua.globals()[b"SPARKSHARK_SEEN"])
    Path(folder() or ".", f"python-{os.getpid()}").write_text("".join(f"{line}\n" for line in sorted(_ENTERED)))


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


def main(arguments: list[str]) -> int:
    """Run tests, then print what they left out."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        tests = arguments or [
            str(path) for pattern in ("lua", "wireshark") for path in Path(TESTS).glob(f"test_{pattern}*.py")
        ]
        subprocess.run([sys.executable, "-m", "pytest", "-q", *tests], env={**os.environ, FOLDER: name}, check=False)
        entered = {int(line) for path in Path(name).iterdir() for line in path.read_text().split()}
    text = generate()
    where = places(text)
    lines = text.splitlines()
    # Compilers disagree about which ends of blocks are code.
    wanted = {n for n in executable_lines(text) if n in where and not re.fullmatch(r"\s*end[ ,;)}]*", lines[n - 1])}
    missed = sorted(wanted - entered)
    for line in missed:
        part, number = where[line]
        print(f"{part}.lua:{number}: {lines[line - 1].strip()}")
    print(f"{len(wanted) - len(missed):,} of {len(wanted):,} lines entered, {len(missed):,} not")
    return bool(missed)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
