"""What each message says: its options and payload as named fields (PROTOCOL 5.4, 5.5, 7).

One small function for each kind of message; `READERS` says which is whose. All values can be written as JSON.
Text is UTF-8 with U+FFFD for what is not: the raw bytes stay in the message. A payload of another length than
its layout has leaves the fields behind its end None.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable
from typing import Any, Final

from analyzer.coap import MAX_AGE, URI_PATH, URI_QUERY, CoapMessage
from analyzer.message_table import (
    DEFAULT_TTL,
    DESCRIBE_FLAGS,
    DEVICE,
    FAST_UPDATE,
    GOODBYE_FIELDS,
    HELLO_FLAGS,
    PLATFORMS,
    SERVER,
    UPDATE_STORES,
    VARIABLE_SIZES,
)
from analyzer.messages.describe import read_description

Values = dict[str, Any]

HELLO_3X_SIZE: Final = 20
"""Bytes of a Hello's payload from 3.x on (7.1)."""

MOST_CHUNK_INDEXES: Final = 512
"""Indexes listed from one ChunkMissed; devices write at most 50, and a frame of 1,024 bytes holds fewer."""

LONGEST_VARINT: Final = 10
"""Bytes of a 64-bit LEB128 number; a longer one is no number of this protocol."""


def text(raw: bytes) -> str:
    """Return ``raw`` as text, with U+FFFD for what is not UTF-8."""
    return raw.decode("utf-8", "replace")


def name_in_path(coap: CoapMessage) -> str:
    """Return what stands behind the path's first letter: the name of an event, function or variable."""
    options = coap.options
    if len(options) > 1 and options[1][0] == URI_PATH:
        if len(options) == 2 or options[2][0] != URI_PATH:
            return options[1][1].decode("utf-8", "replace")
        return text(b"/".join([value for number, value in options[1:] if number == URI_PATH]))
    return ""


def flag_names(flags: int, names: dict[int, str]) -> list[str]:
    """Return the names of the bits set in ``flags``."""
    return [name for bit, name in names.items() if flags & bit]


def _number(payload: bytes, at: int, size: int) -> int | None:
    """Return the big-endian number at ``at``, or None when the payload ends before it does."""
    return int.from_bytes(payload[at : at + size], "big") if at + size <= len(payload) else None


def device_hello(coap: CoapMessage) -> Values:
    """Read a device's Hello (7.1). Fields that its generation does not send are None."""
    payload = coap.payload
    flags = _number(payload, 5, 1)
    if flags is not None and len(payload) >= HELLO_3X_SIZE:
        flags |= payload[4] << 8
    platform = _number(payload, 6, 2)
    return {
        "product_id": _number(payload, 0, 2),
        "firmware_version": _number(payload, 2, 2),
        "flags": flags,
        "flag_names": None if flags is None else flag_names(flags, HELLO_FLAGS),
        "platform_id": platform,
        "platform": None if platform is None else PLATFORMS.get(platform),
        "device_id_length": _number(payload, 9, 1),
        "system_version": _number(payload, 10, 2),
        "largest_message": _number(payload, 12, 2),
        "largest_binary": _number(payload, 14, 4),
        "ota_chunk_size": _number(payload, 18, 2),
    }


def event(coap: CoapMessage) -> Values:
    """Read an event of either side (5.4.5, 5.4.7). ``data`` is None when the event has none."""
    ttl = DEFAULT_TTL
    for number, value in coap.options:
        if number == MAX_AGE:
            ttl = int.from_bytes(value, "big")
    return {
        "name": name_in_path(coap),
        "data": coap.payload.decode("utf-8", "replace") if coap.payload or coap.anomalies else None,
        "ttl": ttl,
        "scope": "private" if coap.options[0][1] == b"E" else "public",
    }


def subscribe(coap: CoapMessage) -> Values:
    """Read a subscription (5.4.8): by prefix, to all devices, the owner's, or one."""
    return {
        "prefix": name_in_path(coap),
        "scope": "mine" if b"u" in coap.queries else "all",
        "device_id": text(coap.payload) if coap.payload else None,
    }


def name_alone(coap: CoapMessage) -> Values:
    """Read a request that only names something (5.4.11)."""
    return {"name": name_in_path(coap)}


def function_call(coap: CoapMessage) -> Values:
    """Read a call (5.4.10). The device reads the first argument only; the legacy server splits at ``&``."""
    arguments = [text(value) for value in coap.queries]
    return {
        "name": name_in_path(coap),
        "argument": arguments[0] if arguments else "",
        "arguments": arguments,
    }


def describe_request(coap: CoapMessage) -> Values:
    """Read a Describe request or post: the flags of its query, None when it has none (5.4.9)."""
    query = next((value for number, value in coap.options if number == URI_QUERY), None)
    flags = None if query is None else int.from_bytes(query[:1], "big")
    return {"flags": flags, "flag_names": None if flags is None else flag_names(flags, DESCRIBE_FLAGS)}


def describe_post(coap: CoapMessage) -> Values:
    """Read a description that the device sends unasked."""
    return describe_request(coap) | read_description(coap.payload)


def signal(coap: CoapMessage) -> Values:
    """Read a Signal: on unless the query is a zero byte, as the device takes it (5.2)."""
    query = next(iter(coap.queries), b"")
    return {"on": query[:1] != b"\0" if query else None}


def time_response(coap: CoapMessage) -> Values:
    """Read the time: seconds since 1970 UTC (5.4.4)."""
    return {"time": _number(coap.payload, 0, 4)}


def update_begin(coap: CoapMessage) -> Values:
    """Read the announcement of an update (5.5); all None in the legacy server's last try, which is empty."""
    payload = coap.payload
    flags, store = _number(payload, 0, 1), _number(payload, 7, 1)
    return {
        "flags": flags,
        "fast_offered": None if flags is None else bool(flags & FAST_UPDATE),
        "chunk_size": _number(payload, 1, 2),
        "file_length": _number(payload, 3, 4),
        "store": store,
        "store_name": None if store is None else UPDATE_STORES.get(store),
        "address": _number(payload, 8, 4),
    }


def update_ready(coap: CoapMessage) -> Values:
    """Read the flags of a device that is ready; early Cores send none and know only the slow form (5.5)."""
    flags = _number(coap.payload, 0, 1)
    return {"flags": flags, "fast": bool(flags & FAST_UPDATE) if flags is not None else False}


def update_abort(coap: CoapMessage) -> Values:
    """Read the reason of a device that gives up."""
    return {"reason": _number(coap.payload, 0, 1)}


def chunk(coap: CoapMessage) -> Values:
    """Read a chunk (5.5): the CRC it announces, whether its data has it, and in the fast form its index."""
    crc, index = None, None
    for number, value in coap.options:
        if number == URI_QUERY:
            if crc is None:
                crc = int.from_bytes(value, "big")
            elif index is None:
                index = int.from_bytes(value, "big")
    payload = coap.payload
    return {
        "crc": crc,
        "crc_ok": None if crc is None else zlib.crc32(payload) == crc,
        "index": index,
        "size": len(payload),
    }


def chunk_missed(coap: CoapMessage) -> Values:
    """Read the indexes that a device asks for again; half an index at the end is left out."""
    payload = coap.payload
    count = len(payload) // 2
    listed = min(count, MOST_CHUNK_INDEXES)
    return {"indexes": list(struct.unpack_from(f">{listed}H", payload)), "count": count}


def update_done(coap: CoapMessage) -> Values:
    """Read the end of an update, with the new modules where the device sends them (5.5)."""
    return {"modules": read_description(coap.payload)["modules"] if coap.payload else None}


def goodbye(coap: CoapMessage) -> Values:
    """Read a Goodbye's reasons (5.4.15); those that its flags do not announce are None."""
    told: Values = {"flags": None, **dict.fromkeys(GOODBYE_FIELDS.values())}
    flags, at = _varint(coap.payload, 0)
    told["flags"] = flags
    for bit, name in GOODBYE_FIELDS.items():
        if flags is not None and flags & bit:
            told[name], at = _varint(coap.payload, at)
    return told


def _varint(payload: bytes, at: int) -> tuple[int | None, int]:
    """Read an unsigned LEB128 number; None when it is cut or longer than 64 bits need."""
    value = 0
    for position, byte in enumerate(payload[at : at + LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return value, at + position + 1
    return None, len(payload)


def variable_value(payload: bytes, declared: str | None) -> Values:
    """Read a variable's value (5.4.11).

    ``declared`` is the type that a Describe gave it, or None. ``type_source`` says what ``type`` rests on:
    ``describe``, or ``length``, which cannot tell four bytes of text from an int. ``value`` is None when the
    payload does not have the length of a declared type, and text ("nan", "inf") where JSON has no number.
    """
    kind = declared or VARIABLE_SIZES.get(len(payload), "string")
    if declared is None and kind == "bool" and payload not in (b"\0", b"\1"):
        kind = "string"
    value: bool | int | float | str | None = None
    if kind == "bool" and len(payload) == 1:
        value = payload != b"\0"
    elif kind == "int32" and len(payload) == 4:
        value = int.from_bytes(payload, "big", signed=True)
    elif kind == "double" and len(payload) == 8:
        (number,) = struct.unpack("<d", payload)
        value = number if math.isfinite(number) else str(number)
    elif kind == "string":
        value = text(payload)
    return {"type": kind, "type_source": "length" if declared is None else "describe", "value": value}


def function_return(coap: CoapMessage) -> Values:
    """Read what a function returned: a signed 32-bit number (5.4.10)."""
    payload = coap.payload
    return {"return_value": int.from_bytes(payload, "big", signed=True) if len(payload) == 4 else None}


READERS: Final[dict[tuple[str, str], Callable[[CoapMessage], Values]]] = {
    (DEVICE, "Hello"): device_hello,
    (DEVICE, "Goodbye"): goodbye,
    (SERVER, "TimeResponse"): time_response,
    (DEVICE, "Event"): event,
    (SERVER, "Event"): event,
    (DEVICE, "Subscribe"): subscribe,
    (SERVER, "Describe"): describe_request,
    (DEVICE, "DescribeResponse"): lambda coap: read_description(coap.payload),
    (DEVICE, "DescribePost"): describe_post,
    (SERVER, "FunctionCall"): function_call,
    (DEVICE, "FunctionReturn"): function_return,
    (SERVER, "VariableRequest"): name_alone,
    (SERVER, "Signal"): signal,
    (SERVER, "UpdateBegin"): update_begin,
    (SERVER, "SaveBegin"): update_begin,
    (DEVICE, "UpdateReady"): update_ready,
    (DEVICE, "UpdateAbort"): update_abort,
    (SERVER, "Chunk"): chunk,
    (DEVICE, "ChunkMissed"): chunk_missed,
    (DEVICE, "UpdateDone"): update_done,
    (DEVICE, "UpdateDoneAck"): update_done,
}
"""Sender and name to the function that reads its fields. A VariableValue needs what a Describe said before;
messages that are not listed say nothing beyond their name."""
