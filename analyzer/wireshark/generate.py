"""Makes ``lua/sparkshark.lua``, the Wireshark plugin, from the parts in ``lua/src`` and the tables of this package.

A part asks for a fact by the name it has in Python: ``constants.catalogue.NONCE_SIZE`` in a part puts
`analyzer.catalogue.NONCE_SIZE` into the file, in that place. So nothing is typed twice, a name that does not exist
is an error here and not a surprise in Wireshark, and the file holds what it needs and nothing more.

    python -m analyzer.wireshark.generate          write the file
    python -m analyzer.wireshark.generate --check  exit status 1 if the committed file is not what would be written
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import math
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

FILE_NAME: Final = "sparkshark.lua"
"""No dot inside the base name: Wireshark 4.4 and later load plugins as modules (a dot would name a folder)."""
MARK: Final = "-- sparkshark.lua: "
"""How the file begins, so that a copy of it is recognised."""

_REPOSITORY: Final = Path(__file__).resolve().parents[2]
SOURCES: Final = _REPOSITORY / "lua" / "src"
GENERATED: Final = _REPOSITORY / "lua" / FILE_NAME

PARTS: Final = (
    "packets",
    "bits",
    "aes",
    "hashes",
    "rsa",
    "wording",
    "der",
    "keys",
    "keylog",
    "coap",
    "describe",
    "messages",
    "summary",
    "streams",
    "copies",
    "frames",
    "handshake",
    "sessionwatch",
    "conversation",
    "kinds",
    "tracker",
    "deadkey",
    "session",
    "opening",
    "decryption",
    "rules_facts",
    "rules_login",
    "rules_reply",
    "rules_session",
    "rules_capture",
    "rules_places",
    "rules_identity",
    "rules_keys",
    "rules",
    "analysis",
    "stories",
)
"""The parts that know nothing of Wireshark, in the order in which they need each other."""
WIRESHARK_PARTS: Final = ("fields", "rows", "dissector", "verdict")
"""The parts that are Wireshark's side of it; outside Wireshark the file ends before them."""

_ASKED: Final = re.compile(r"\bconstants((?:\.[a-z_0-9]+)+)\.([A-Z][A-Z_0-9]*)\b")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_LUA_WORDS: Final = frozenset(
    (
        *("and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in"),
        *("local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while"),
    )
)
_PER_LINE: Final = 112

HEAD: Final = """\
{mark}Wireshark plugin for the Spark Core and Particle Photon cloud protocol, version {version}
-- Made by sparkshark from its own tables. Do not edit: change lua/src and generate it again.
-- Licence: GPL-2.0-or-later. Wireshark 3.6 to 4.6; Lua 5.1 to 5.4.
"""


class GenerateError(ValueError):
    """A part asks for something that the tables do not have."""


def generate(sources: Path = SOURCES) -> str:
    """Return the text of the plugin. The same tables and parts give the same text, byte for byte."""
    texts = {name: (sources / f"{name}.lua").read_text(encoding="utf-8") for name in (*PARTS, *WIRESHARK_PARTS)}
    version = tomllib.loads((_REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    out = [HEAD.format(mark=MARK, version=version), "\n"]
    out.append("local spark = { version = " + _text(version) + " }\n\n")
    out.append("-- What follows up to the first part is data of the analyzer, by the name it has there.\n")
    out.append("spark.constants = " + "".join(_table(_tree("".join(texts.values())), 0)) + "\n")
    for name in PARTS:
        out.append(_wrapped(name, texts[name]))
    out.append("\n-- Outside Wireshark this file is a library of the parts above.\n")
    out.append('if rawget(_G, "Proto") == nil then\n  return spark\nend\n')
    for name in WIRESHARK_PARTS:
        out.append(_wrapped(name, texts[name]))
    return "".join(out)


def plugin_text() -> str:
    """Return the plugin as it is shipped with this package (generated when the package was made)."""
    if GENERATED.is_file():
        return GENERATED.read_text(encoding="utf-8")
    from importlib.resources import files  # noqa: PLC0415 - an installed package keeps it among its data

    return (files("analyzer.lua") / FILE_NAME).read_text(encoding="utf-8")


def _wrapped(name: str, text: str) -> str:
    """A part in its own scope: Lua allows 200 local names in one."""
    rule = "-" * (_PER_LINE - len(name) - 6)
    return f"\n-- {name} {rule}\ndo\n{text.rstrip()}\nend\n"


# -- the tables ------------------------------------------------------------------------------------------------


def _tree(text: str) -> dict[str, object]:
    """Collect every constant that the parts ask for, nested by module."""
    tree: dict[str, object] = {}
    for path, name in sorted(set(_ASKED.findall(text))):
        module = importlib.import_module("analyzer" + path)
        if not hasattr(module, name):
            raise GenerateError(f"analyzer{path} has no {name}, which a part in lua/src asks for.")
        place = tree
        for step in path.strip(".").split("."):
            place = place.setdefault(step, {})  # type: ignore[assignment]
        place[name] = getattr(module, name)
    return tree


def _plain(value: object) -> object:
    """Python's kinds of tables, reduced to mappings and sequences."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        wanted = (field.name for field in dataclasses.fields(value) if field.metadata.get("plugin", True))
        return {name: getattr(value, name) for name in wanted}
    if isinstance(value, frozenset | set):
        return dict.fromkeys(sorted(value, key=repr), True)
    return value


def _lua(value: object, depth: int) -> Iterator[str]:
    """Write one value in pieces."""
    value = _plain(value)
    if value is None:
        yield "nil"
    elif isinstance(value, enum.Enum):
        yield from _lua(value.value, depth)
    elif isinstance(value, bool):
        yield "true" if value else "false"
    elif isinstance(value, int):
        yield str(value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise GenerateError(f"{value} has no place in the plugin.")
        yield repr(value)
    elif isinstance(value, str):
        yield _text(value)
    elif isinstance(value, bytes):
        yield _bytes(value)
    elif isinstance(value, Mapping | tuple | list):
        yield from _table(value, depth)
    else:
        raise GenerateError(f"a {type(value).__name__} has no place in the plugin: {value!r}")


def _table(value: object, depth: int) -> Iterator[str]:
    """Write a table: on one line if it fits, else one entry a line."""
    entries = list(_entries(value, depth + 1))
    if not entries:
        yield "{}"
        return
    flat = "{ " + ", ".join(entries) + " }"
    if len(flat) + 2 * depth <= _PER_LINE and "\n" not in flat:
        yield flat
        return
    indent = "  " * (depth + 1)
    yield "{\n"
    for entry in entries:
        yield f"{indent}{entry},\n"
    yield "  " * depth + "}"


def _entries(value: object, depth: int) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if item is None:
                continue  # as in any Lua table
            yield f"{_key(key)} = " + "".join(_lua(item, depth))
        return
    assert isinstance(value, tuple | list)  # noqa: S101 - `_lua` has looked
    for item in value:
        yield "".join(_lua(item, depth))


def _key(key: object) -> str:
    if isinstance(key, enum.Enum):
        key = key.value
    if isinstance(key, str) and _NAME.fullmatch(key) and key not in _LUA_WORDS:
        return key
    return "[" + "".join(_lua(key, 0)) + "]"


def _text(value: str) -> str:
    """A string literal that means the same in every Lua: UTF-8, decimal escapes only."""
    return _bytes(value.encode("utf-8"))


def _bytes(value: bytes) -> str:
    escaped = []
    for byte in value:
        if byte in b'"\\':
            escaped.append("\\" + chr(byte))
        elif 0x20 <= byte < 0x7F:
            escaped.append(chr(byte))
        else:
            escaped.append(f"\\{byte:03d}")
    return '"' + "".join(escaped) + '"'


def main(arguments: list[str]) -> int:
    """Write the file, or compare it; return the exit status."""
    text = generate()
    current = GENERATED.read_text(encoding="utf-8") if GENERATED.is_file() else None
    if "--check" in arguments:
        if current != text:
            print(f"{GENERATED.name} is not what the tables make: python -m analyzer.wireshark.generate")
            return 1
        return 0
    if current != text:
        GENERATED.write_text(text, encoding="utf-8")
    print(f"{GENERATED.name}: {len(text):,} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
