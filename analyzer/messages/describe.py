"""What a device says about itself in a Describe answer (PROTOCOL 7.2): JSON made by a stranger.

Size and depth are checked before the JSON reader sees a byte, so that no text can make it slow or fail.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any, Final

from analyzer.message_table import METRICS_PREFIX, PLATFORMS, VARIABLE_TYPES

LARGEST_DESCRIPTION: Final = 0x10000
"""A frame's length field cannot announce more; genuine descriptions stay below 1 kB."""
DEEPEST_DESCRIPTION: Final = 16
"""Genuine ones are 5 deep: description, modules, module, dependencies, dependency."""
MOST_DIGITS: Final = sys.int_info.default_max_str_digits
"""Digits of a whole number that is still read. Genuine ones have at most 10."""

PROBLEMS: Final = {
    "too_long": f"longer than {LARGEST_DESCRIPTION} bytes",
    "too_deep": f"nested deeper than {DEEPEST_DESCRIPTION}",
    "not_json": "not JSON",
    "no_object": "not a JSON object",
}
"""Why there is nothing to tell."""

_DECODER: Final = json.JSONDecoder(parse_float=str, parse_constant=str)
"""Fractions and NaN have no place in a description; as text they can do no harm further on."""
ESCAPE: Final = b"\\u"
_STRING_OR_BRACKET: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]|[\]}]', re.DOTALL)

MODULE_KEYS: Final = {
    "s": "size",
    "l": "location",
    "vc": "checks_made",
    "vv": "checks_passed",
    "u": "sha256",
    "f": "function",
    "n": "name",
    "v": "version",
    "d": "dependencies",
}
LOCATIONS: Final = {"m": "main", "b": "backup", "f": "factory", "t": "scratch"}
FUNCTIONS: Final = {
    "n": "none",
    "r": "resource",
    "b": "bootloader",
    "m": "mono",
    "s": "system",
    "u": "user",
    "c": "NCP",
    "a": "radio",
}


def read_description(payload: bytes) -> dict[str, Any]:
    """Return what a Describe answer tells: always the same keys, None where it tells nothing.

    ``functions`` (names), ``variables`` (name to ``bool``, ``int32``, ``double``, ``string``, or what stood
    in place of these), ``platform_id``, ``platform``, ``modules`` (with readable keys), ``other`` (further
    key-value pairs), ``metrics`` (True for a binary metrics answer) and ``problem`` (why the rest is None).
    """
    told: dict[str, Any] = dict.fromkeys(
        ("functions", "variables", "platform_id", "platform", "modules", "other", "problem")
    )
    told["metrics"] = payload.startswith(METRICS_PREFIX)
    if told["metrics"]:
        return told
    content = _read_object(payload)
    if isinstance(content, str):
        told["problem"] = content
        return told
    functions = content.pop("f", None)
    if isinstance(functions, list):
        told["functions"] = [name for name in functions if isinstance(name, str)]
    variables = content.pop("v", None)
    if isinstance(variables, dict):
        told["variables"] = {name: _variable_type(number) for name, number in variables.items()}
    platform = content.pop("p", None)
    if type(platform) is int:
        told["platform_id"] = platform
        told["platform"] = PLATFORMS.get(platform)
    modules = content.pop("m", None)
    if isinstance(modules, list):
        told["modules"] = [_module(module) for module in modules if isinstance(module, dict)]
    told["other"] = content or None
    return told


def _read_object(payload: bytes) -> dict[str, Any] | str:
    """Return the JSON object in ``payload``, or a phrase that says why there is none."""
    if len(payload) > LARGEST_DESCRIPTION:
        return PROBLEMS["too_long"]
    # Few brackets cannot nest deeply, wherever they stand.
    few = payload.count(b"[") + payload.count(b"{") <= DEEPEST_DESCRIPTION
    depth = 0
    for match in () if few else _STRING_OR_BRACKET.finditer(payload):
        found = match.group()
        if found in (b"[", b"{"):
            depth += 1
            if depth > DEEPEST_DESCRIPTION:
                return PROBLEMS["too_deep"]
        elif found in (b"]", b"}"):
            depth -= 1
    try:
        value = _DECODER.decode(payload.decode("utf-8", "replace"))
    except ValueError:
        return PROBLEMS["not_json"]
    if not isinstance(value, dict):
        return PROBLEMS["no_object"]
    if ESCAPE not in payload:
        return value
    # A lone surrogate ("\ud800") is legal JSON, but no text that could be written anywhere.
    written: dict[str, Any] = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    return written


def _variable_type(number: object) -> object:
    return VARIABLE_TYPES.get(number, number) if type(number) is int else number


def _module(raw: dict[str, Any]) -> dict[str, Any]:
    """Spell out a module's or a dependency's one-letter keys; unknown keys stay as they are."""
    module = {MODULE_KEYS.get(key, key): value for key, value in raw.items()}
    for key, names in (("location", LOCATIONS), ("function", FUNCTIONS)):
        code = module.get(key)
        if isinstance(code, str):
            module[key] = names.get(code, code)
    dependencies = module.get("dependencies")
    if isinstance(dependencies, list):
        module["dependencies"] = [_module(item) for item in dependencies if isinstance(item, dict)]
    return module
