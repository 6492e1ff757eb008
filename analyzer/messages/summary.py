"""One line about each message, for the column ``content`` of the decrypt screen.

Names and data were chosen by strangers: whatever is not plain is quoted, escaped and cut.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from analyzer.messages.reader import SparkMessage
from analyzer.wording import judged, size

LONGEST_QUOTE: Final = 60
"""Characters of peer text that are shown, before escaping."""

PLAIN_CHARACTERS: Final = "A-Za-z0-9_./:-"
"""What a name may consist of to be shown without quotes: the inside of a bracket, for patterns of any make."""
_PLAIN_NAME: Final = re.compile(f"[{PLAIN_CHARACTERS}]{{1,{LONGEST_QUOTE}}}")
INDEXES_SHOWN: Final = 4
NOT_KNOWN: Final = "?"
TIME_FORMAT: Final = "%Y-%m-%d %H:%M:%S UTC"

PHRASES: Final = {
    "front_lost": "(front lost)",
    "lost": "first {} bytes lost, {}",
    "nothing_left": "nothing is left",
    "left": "{} left",
    "not_coap": "not readable as CoAP: {}",
    "habit_harmless": "this server's habit, harmless",
    "habit": "this server's habit, some firmware hangs up on it",
    "refused": "refused",
    "miscoded": "{}, miscoded as {}",
    "reason": "reason {}",
    "product": "product {}",
    "firmware": "firmware {}",
    "platform": "platform {}",
    "event": "{}, {}, {} s",
    "subscribe": "{}, {}",
    "own_events": "own devices' events",
    "all_events": "everyone's events",
    "metrics": "metrics",
    "not_readable": "not readable: {}",
    "repeated": ", said again",
    "no_value": "no readable {}",
    "guessed": " ({} by its length)",
    "no_particulars": "without particulars",
    "update": "{} in chunks of {}{}",
    "fast_offered": ", fast if the device can",
    "fast": "fast",
    "slow": "one chunk at a time",
    "chunk_index": "number {}",
    "no_crc": "no CRC",
    "crc_right": "CRC right",
    "crc_wrong": "CRC wrong",
    "chunk": "chunk {}",
    "chunks": "chunks {}",
    "more": " and {} more",
    "no_index": "no index",
    "on": "on",
    "off": "off",
}
"""What the lines below are made of, in one place for this module and the Lua plugin."""

REFUSALS: Final = {
    "ChunkReceived": "not accepted, its CRC did not fit",
    "UpdateDoneAck": "chunks are missing",
}
"""Refusals that say more than that they refuse."""
COUNTED: Final = (("function", "functions"), ("variable", "variables"), ("module", "modules"))
"""What is counted in a description: the word for one, and the value's name, which is the word for many."""


def quote(text: str, limit: int = LONGEST_QUOTE) -> str:
    """Return ``text`` in double quotes, at most ``limit`` characters of it, with nothing in it that acts.

    Control characters, direction marks and whatever else does not print come out as hexadecimal escapes.
    """
    shown = "".join(_escape(character, harmless) for character, harmless in judged(text[:limit]))
    return f'"{shown}"' + ("..." if len(text) > limit else "")


def _escape(character: str, harmless: bool) -> str:
    if character in '"\\':
        return "\\" + character
    if harmless:
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def name_text(name: str | None) -> str:
    """Return a name as it is when it is plain, otherwise quoted; ``?`` when it is not known."""
    if name is None:
        return NOT_KNOWN
    return name if _PLAIN_NAME.fullmatch(name) else quote(name)


def label(message: SparkMessage) -> str:
    """Return the name for the column ``message``: with the code behind it when that is a refusal.

    Without a name: what can be said of the CoAP message, or that its front is lost.
    """
    if message.name is not None:
        return f"{message.name} {message.values['error']}" if "error" in message.values else message.name
    if message.coap is None:
        return PHRASES["front_lost"]
    return f"{message.type} {message.code}"


def summary(message: SparkMessage) -> str:
    """Return what the message says, in one line of printable text; empty when its name says it all."""
    if message.coap is None:
        count = len(message.plaintext)
        left = PHRASES["left"].format(size(count)) if count else PHRASES["nothing_left"]
        tail = message.values.get("tail_text")
        return PHRASES["lost"].format(message.missing, left) + (f": {quote(tail)}" if tail else "")
    if message.name is None:
        return _unnamed(message)
    if "error" in message.values:
        return _refusal(message)
    write = _WRITERS.get(message.name)
    return write(message.values) if write is not None and message.values else ""


def _unnamed(message: SparkMessage) -> str:
    if "anomalies" in message.values:
        return PHRASES["not_coap"].format(", ".join(message.values["anomalies"]))
    payload = message.payload or b""
    parts = [name_text(message.path)] if message.path else []
    parts += [size(len(payload))] if payload else []
    return ", ".join(parts)


def _refusal(message: SparkMessage) -> str:
    values = message.values
    if values.get("habit"):
        return PHRASES["habit_harmless" if values["harmless"] else "habit"]
    text = _abort(values) if message.name == "UpdateAbort" else REFUSALS.get(message.name or "", PHRASES["refused"])
    return text if message.code == values["error"] else PHRASES["miscoded"].format(text, message.code)


def _abort(values: dict[str, Any]) -> str:
    return PHRASES["reason"].format(_known(values["reason"]))


def _known(value: object) -> object:
    return NOT_KNOWN if value is None else value


def _hello(values: dict[str, Any]) -> str:
    if values["product_id"] is None:
        return ""
    parts = [PHRASES["product"].format(values["product_id"])]
    if values["firmware_version"] is not None:
        parts.append(PHRASES["firmware"].format(values["firmware_version"]))
    if values["platform_id"]:
        parts.append(values["platform"] or PHRASES["platform"].format(values["platform_id"]))
    return ", ".join(parts)


def _event(values: dict[str, Any]) -> str:
    data = "" if values["data"] is None else f" = {quote(values['data'])}"
    return PHRASES["event"].format(name_text(values["name"]) + data, values["scope"], values["ttl"])


def _subscribe(values: dict[str, Any]) -> str:
    whose = PHRASES["own_events" if values["scope"] == "mine" else "all_events"]
    if values["device_id"] is not None:
        whose = name_text(values["device_id"])
    return PHRASES["subscribe"].format(name_text(values["prefix"]), whose)


def _describe(values: dict[str, Any]) -> str:
    if values["metrics"]:
        return PHRASES["metrics"]
    if values["problem"]:
        return PHRASES["not_readable"].format(values["problem"])
    counts = [(len(values[many]), one, many) for one, many in COUNTED if values[many] is not None]
    parts = [f"{count} {one if count == 1 else many}" for count, one, many in counts]
    return ", ".join(parts) + (PHRASES["repeated"] if values.get("repeat") else "")


def _call(values: dict[str, Any]) -> str:
    return f"{name_text(values['name'])}({quote('&'.join(values['arguments']))})"


def _variable(values: dict[str, Any]) -> str:
    value = values["value"]
    if isinstance(value, bool):
        shown = "true" if value else "false"
    elif value is None:
        shown = PHRASES["no_value"].format(name_text(values["type"]))
    else:
        shown = quote(value) if values["type"] == "string" else str(value)
    guessed = values["type_source"] == "length"
    return f"{name_text(values['name'])} = {shown}" + (PHRASES["guessed"].format(values["type"]) if guessed else "")


def _time(values: dict[str, Any]) -> str:
    seconds = values["time"]
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime(TIME_FORMAT)


def _update(values: dict[str, Any]) -> str:
    if values["file_length"] is None:
        return PHRASES["no_particulars"]
    pace = PHRASES["fast_offered"] if values["fast_offered"] else ""
    return PHRASES["update"].format(size(values["file_length"]), size(values["chunk_size"]), pace)


def _chunk(values: dict[str, Any]) -> str:
    crc = {None: "no_crc", True: "crc_right", False: "crc_wrong"}[values["crc_ok"]]
    return ", ".join([*_chunk_index(values), size(values["size"]), PHRASES[crc]])


def _chunk_index(values: dict[str, Any]) -> list[str]:
    return [] if values["index"] is None else [PHRASES["chunk_index"].format(values["index"])]


def _missed(values: dict[str, Any]) -> str:
    indexes, count = values["indexes"], values["count"]
    listed = ", ".join(str(index) for index in indexes[:INDEXES_SHOWN])
    more = PHRASES["more"].format(count - INDEXES_SHOWN) if count > INDEXES_SHOWN else ""
    return PHRASES["chunk" if count == 1 else "chunks"].format(listed + more) if count else PHRASES["no_index"]


def _goodbye(values: dict[str, Any]) -> str:
    reasons = {key: value for key, value in values.items() if key != "flags" and value is not None}
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in reasons.items())


_WRITERS: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "Hello": _hello,
    "TimeResponse": _time,
    "Event": _event,
    "Subscribe": _subscribe,
    "Describe": lambda values: ", ".join(values["flag_names"] or ()),
    "DescribeResponse": _describe,
    "DescribePost": _describe,
    "FunctionCall": _call,
    "FunctionReturn": lambda values: f"{name_text(values['name'])} = {_known(values['return_value'])}",
    "VariableRequest": lambda values: name_text(values["name"]),
    "VariableValue": _variable,
    "Signal": lambda values: "" if values["on"] is None else PHRASES["on" if values["on"] else "off"],
    "UpdateBegin": _update,
    "SaveBegin": _update,
    "UpdateReady": lambda values: PHRASES["fast" if values["fast"] else "slow"],
    "UpdateAbort": _abort,
    "Chunk": _chunk,
    "ChunkReceived": lambda values: "".join(_chunk_index(values)),
    "ChunkMissed": _missed,
    "Goodbye": _goodbye,
}
"""Names whose messages say more than their name."""
