"""The pure parts of the Wireshark plugin in a Lua of choice: what the tests of those parts load.

The text is generated anew from ``lua/src``, so that these tests see a change before the file is generated.
Bytes go in as `bytes` and come out as `bytes`: no string of Lua is decoded.
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any, Final

import lua_coverage

VERSIONS: Final = ("lua51", "lua52", "lua53", "lua54")
INSIDE_WIRESHARK: Final = ("lua52", "lua54")
"""What Wireshark 3.6 to 4.2, and 4.4 to 4.6, are built with."""


@lru_cache(maxsize=1)
def plugin() -> bytes:
    """The plugin's text."""
    return lua_coverage.plugin()


def runtime(version: str) -> Any:
    """A fresh Lua without anything of ours in it."""
    return importlib.import_module(f"lupa.{version}").LuaRuntime(encoding=None, unpack_returned_tuples=True)


def engine(version: str, before: bytes = b"") -> tuple[Any, Any]:
    """Load the parts into a fresh Lua; return the Lua and the namespace. ``before`` is run first (to put in a
    `bit` that this Lua lacks, say).
    """
    lua = runtime(version)
    if before:
        lua.execute(before)
    return lua, lua_coverage.load(lua, plugin())
