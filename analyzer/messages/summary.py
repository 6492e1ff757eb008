"""One line about each message, for the column ``content`` of the decrypt screen.

Names and data were chosen by strangers: whatever is not plain is quoted, escaped and cut.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from analyzer.messages.reader import SparkMessage
from analyzer.wording import size

LONGEST_QUOTE: Final = 60
"""Characters of peer text that are shown, before escaping."""

_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_./:-]{1,60}")
_INDEXES_SHOWN: Final = 4


def quote(text: str, limit: int = LONGEST_QUOTE) -> str:
    """Return ``text`` in double quotes, at most ``limit`` characters of it, with nothing in it that acts.

    Control characters, direction marks and whatever else does not print come out as hexadecimal escapes.
    """
    shown = "".join(_escape(character) for character in text[:limit])
    return f'"{shown}"' + ("..." if len(text) > limit else "")


def _escape(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def name_text(name: str | None) -> str:
    """Return a name as it is when it is plain, otherwise quoted; ``?`` when it is not known."""
    if name is None:
        return "?"
    return name if _PLAIN_NAME.fullmatch(name) else quote(name)


def label(message: SparkMessage) -> str:
    """Return the name for the column ``message``: with the code behind it when that is a refusal.

    Without a name: what can be said of the CoAP message, or that its front is lost.
    """
    if message.name is not None:
        return f"{message.name} {message.values['error']}" if "error" in message.values else message.name
    if message.coap is None:
        return "(front lost)"
    return f"{message.type} {message.code}"


def summary(message: SparkMessage) -> str:
    """Return what the message says, in one line of printable text; empty when its name says it all."""
    if message.coap is None:
        left = "nothing is left" if not message.plaintext else f"{size(len(message.plaintext))} left"
        tail = message.values.get("tail_text")
        return f"first {message.missing} bytes lost, {left}" + (f": {quote(tail)}" if tail else "")
    if message.name is None:
        return _unnamed(message)
    if "error" in message.values:
        return _refusal(message)
    write = _WRITERS.get(message.name)
    return write(message.values) if write is not None and message.values else ""


def _unnamed(message: SparkMessage) -> str:
    if "anomalies" in message.values:
        return "not readable as CoAP: " + ", ".join(message.values["anomalies"])
    payload = message.payload or b""
    parts = [name_text(message.path)] if message.path else []
    parts += [size(len(payload))] if payload else []
    return ", ".join(parts)


def _refusal(message: SparkMessage) -> str:
    values = message.values
    if values.get("habit"):
        return "this server's habit, " + ("harmless" if values["harmless"] else "some firmware hangs up on it")
    texts = {
        "ChunkReceived": "not accepted, its CRC did not fit",
        "UpdateDoneAck": "chunks are missing",
        "UpdateAbort": f"reason {values.get('reason')}",
    }
    text = texts.get(message.name or "", "refused")
    return text if message.code == values["error"] else f"{text}, miscoded as {message.code}"


def _hello(values: dict[str, Any]) -> str:
    if values["product_id"] is None:
        return ""
    parts = [f"product {values['product_id']}"]
    if values["firmware_version"] is not None:
        parts.append(f"firmware {values['firmware_version']}")
    if values["platform_id"]:
        parts.append(values["platform"] or f"platform {values['platform_id']}")
    return ", ".join(parts)


def _event(values: dict[str, Any]) -> str:
    data = "" if values["data"] is None else f" = {quote(values['data'])}"
    return f"{name_text(values['name'])}{data}, {values['scope']}, {values['ttl']} s"


def _subscribe(values: dict[str, Any]) -> str:
    whose = "own devices' events" if values["scope"] == "mine" else "everyone's events"
    if values["device_id"] is not None:
        whose = name_text(values["device_id"])
    return f"{name_text(values['prefix'])}, {whose}"


def _describe(values: dict[str, Any]) -> str:
    if values["metrics"]:
        return "metrics"
    if values["problem"]:
        return f"not readable: {values['problem']}"
    counted = (
        ("function", values["functions"]),
        ("variable", values["variables"]),
        ("module", values["modules"]),
    )
    parts = [f"{len(items)} {noun}" + ("" if len(items) == 1 else "s") for noun, items in counted if items is not None]
    return ", ".join(parts) + (", said again" if values.get("repeat") else "")


def _call(values: dict[str, Any]) -> str:
    return f"{name_text(values['name'])}({quote('&'.join(values['arguments']))})"


def _variable(values: dict[str, Any]) -> str:
    value = values["value"]
    if isinstance(value, bool):
        shown = "true" if value else "false"
    elif value is None:
        shown = f"no readable {values['type']}"
    else:
        shown = quote(value) if values["type"] == "string" else str(value)
    guessed = values["type_source"] == "length"
    return f"{name_text(values['name'])} = {shown}" + (f" ({values['type']} by its length)" if guessed else "")


def _time(values: dict[str, Any]) -> str:
    seconds = values["time"]
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _update(values: dict[str, Any]) -> str:
    if values["file_length"] is None:
        return "without particulars"
    pace = ", fast if the device can" if values["fast_offered"] else ""
    return f"{size(values['file_length'])} in chunks of {size(values['chunk_size'])}{pace}"


def _chunk(values: dict[str, Any]) -> str:
    index = "" if values["index"] is None else f"number {values['index']}, "
    crc = {None: "no CRC", True: "CRC right", False: "CRC wrong"}[values["crc_ok"]]
    return f"{index}{size(values['size'])}, {crc}"


def _missed(values: dict[str, Any]) -> str:
    indexes, count = values["indexes"], values["count"]
    listed = ", ".join(str(index) for index in indexes[:_INDEXES_SHOWN])
    more = f" and {count - _INDEXES_SHOWN} more" if count > _INDEXES_SHOWN else ""
    return f"{'chunk' if count == 1 else 'chunks'} {listed}{more}" if count else "no index"


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
    "FunctionReturn": lambda values: f"{name_text(values['name'])} = {values['return_value']}",
    "VariableRequest": lambda values: name_text(values["name"]),
    "VariableValue": _variable,
    "Signal": lambda values: {True: "on", False: "off", None: ""}[values["on"]],
    "UpdateBegin": _update,
    "SaveBegin": _update,
    "UpdateReady": lambda values: "fast" if values["fast"] else "one chunk at a time",
    "UpdateAbort": lambda values: f"reason {values['reason']}",
    "Chunk": _chunk,
    "ChunkReceived": lambda values: "" if values["index"] is None else f"number {values['index']}",
    "ChunkMissed": _missed,
    "Goodbye": _goodbye,
}
"""Names whose messages say more than their name."""
