"""The messages of the protocol, as data: one row each. It imports nothing of ours.

Decoder, Lua plugin and the documentation's table are views of `MESSAGES`. A row is found by its sender and
either by what a request looks like (type, code, first letter of the path) or, for an answer, by the request
that it answers: answers carry no path. Section numbers refer to the protocol reference.
"""
# ruff: noqa: S106 - a CoAP token is no secret

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DEVICE: Final = "device"
SERVER: Final = "server"


@dataclass(frozen=True, slots=True)
class MessageSpec:
    """One message.

    ``senders``: ``device``, ``server`` or both. ``types``: CoAP types it is seen with. ``codes``: as
    ``"2.05"``; other error codes in its place are still this message. ``path``: the letters of the first
    Uri-Path, each of which is this message; empty for answers. ``query``, ``token`` and ``payload`` are for
    people, ``payload_sizes`` (least and most bytes; None: no limit) for telling apart answers whose request
    is not in the capture. ``answered_by``: names of the rows that answer it, in the order of arrival.
    ``repeats``: an answer that may come twice. ``generations``: who sends it (1.2), and dialects.
    """

    name: str
    senders: tuple[str, ...]
    types: tuple[str, ...]
    codes: tuple[str, ...]
    path: str = ""
    query: str = ""
    token: str = ""
    payload: str = ""
    payload_sizes: tuple[int, int | None] = (0, None)
    answered_by: tuple[str, ...] = ()
    repeats: bool = False
    generations: str = "all"
    section: str = ""
    meaning: str = ""


MESSAGES: Final = (
    # Login and keep-alive
    MessageSpec(
        name="Hello",
        senders=(DEVICE,),
        types=("NON",),
        codes=("0.02",),
        path="h",
        payload="product, firmware version, flags, platform; 13 more bytes in 3.x",
        section="7.1",
        meaning="the device has the session key and says what it is",
    ),
    MessageSpec(
        name="Hello",
        senders=(SERVER,),
        types=("NON",),
        codes=("0.02",),
        path="h",
        token="legacy server 01, community server none",
        payload_sizes=(0, 0),
        section="5.4.1",
        meaning="the server has understood the device's hello: logged in",
    ),
    MessageSpec(
        name="Ping",
        senders=(DEVICE, SERVER),
        types=("CON",),
        codes=("0.00",),
        payload_sizes=(0, 0),
        answered_by=("PingAck",),
        generations="all; servers answer pings and are not known to send any",
        section="5.4.3",
        meaning="is the other side still there?",
    ),
    MessageSpec(
        name="PingAck",
        senders=(SERVER, DEVICE),
        types=("ACK",),
        codes=("0.00",),
        token="legacy server 00 (5.4.2)",
        payload_sizes=(0, 0),
        section="5.4.3",
        meaning="yes, still here",
    ),
    MessageSpec(
        name="Goodbye",
        senders=(DEVICE,),
        types=("NON",),
        codes=("0.02",),
        path="x",
        payload="varints: flags, then a reason for each",
        generations="2.x and later",
        section="5.4.15",
        meaning="the device hangs up on purpose and says why",
    ),
    # Time
    MessageSpec(
        name="TimeRequest",
        senders=(DEVICE,),
        types=("CON",),
        codes=("0.01",),
        path="t",
        token="1 byte",
        payload_sizes=(0, 0),
        answered_by=("TimeResponse",),
        section="5.4.4",
        meaning="the device asks for the time",
    ),
    MessageSpec(
        name="TimeResponse",
        senders=(SERVER,),
        types=("ACK",),
        codes=("2.05",),
        token="the request's",
        payload="seconds since 1970, 4 bytes",
        payload_sizes=(4, 4),
        section="5.4.4",
        meaning="the time",
    ),
    # Events
    MessageSpec(
        name="Event",
        senders=(DEVICE,),
        types=("NON", "CON"),
        codes=("0.02",),
        path="eE",
        payload="data, or none",
        answered_by=("EventAck",),
        generations="all; CON only with acknowledgement on request, 0.6 and later",
        section="5.4.5",
        meaning="the device publishes: e public, E private",
    ),
    MessageSpec(
        name="Event",
        senders=(SERVER,),
        types=("NON",),
        codes=("0.02",),
        path="eE",
        payload="data, or none",
        generations="all; the name split at slashes, Max-Age always: legacy shortest, community 4 bytes",
        section="5.4.7",
        meaning="an event that the device has subscribed to",
    ),
    MessageSpec(
        name="EventAck",
        senders=(SERVER,),
        types=("ACK",),
        codes=("0.00", "4.00", "0.04"),
        token="legacy server 00",
        payload_sizes=(0, 0),
        generations="legacy server: 4.00 to every user event (9.7); community server: 0.04 refuses (9.5)",
        section="5.4.6",
        meaning="the server has the event",
    ),
    MessageSpec(
        name="Subscribe",
        senders=(DEVICE,),
        types=("CON",),
        codes=("0.01",),
        path="e",
        query="u: only the owner's devices",
        payload="one device's id as text, or none",
        payload_sizes=(0, 24),
        answered_by=("SubscribeAck",),
        section="5.4.8",
        meaning="the device wants events whose name begins so",
    ),
    MessageSpec(
        name="SubscribeAck",
        senders=(SERVER,),
        types=("ACK",),
        codes=("0.00", "4.00", "0.04"),
        token="legacy server 00",
        payload_sizes=(0, 0),
        generations="community server: 0.04 is its refusal (9.5)",
        section="5.4.8",
        meaning="the subscription stands",
    ),
    # What the device offers: describe, functions, variables, signal
    MessageSpec(
        name="Describe",
        senders=(SERVER,),
        types=("CON",),
        codes=("0.01",),
        path="d",
        query="from 0.6.1 on flags: 1 system, 2 application, 4 metrics",
        token="1 byte",
        payload_sizes=(0, 0),
        answered_by=("DescribeAck", "DescribeResponse"),
        section="5.4.9",
        meaning="the server asks for functions, variables and modules",
    ),
    MessageSpec(
        name="DescribeAck",
        senders=(DEVICE,),
        types=("ACK",),
        codes=("0.00",),
        payload_sizes=(0, 0),
        generations="2.x and later",
        section="5.4.9",
        meaning="the description follows",
    ),
    MessageSpec(
        name="DescribeResponse",
        senders=(DEVICE,),
        types=("ACK", "CON"),
        codes=("2.05",),
        token="the request's",
        payload="JSON; metrics are binary and begin 00 04 00",
        answered_by=("DescribeResponseAck",),
        repeats=True,
        generations="ACK to 1.x, twice from 0.4.4 to 0.6.0 (9.11); CON from 2.x on",
        section="7.2",
        meaning="functions, variables and modules of the device",
    ),
    MessageSpec(
        name="DescribeResponseAck",
        senders=(SERVER,),
        types=("ACK",),
        codes=("0.00",),
        payload_sizes=(0, 0),
        generations="2.x and later",
        section="5.4.9",
        meaning="the server has the description",
    ),
    MessageSpec(
        name="DescribePost",
        senders=(DEVICE,),
        types=("CON",),
        codes=("0.02",),
        path="d",
        query="flags: 1 system, 2 application, 4 metrics",
        payload="JSON",
        answered_by=("DescribePostAck",),
        generations="2.x and later, on demand",
        section="5.3",
        meaning="the device describes itself unasked",
    ),
    MessageSpec(
        name="DescribePostAck",
        senders=(SERVER,),
        types=("ACK",),
        codes=("0.00", "2.04"),
        payload_sizes=(0, 0),
        generations="2.x and later",
        section="5.3",
        meaning="the server has the description",
    ),
    MessageSpec(
        name="FunctionCall",
        senders=(SERVER,),
        types=("CON",),
        codes=("0.02",),
        path="f",
        query="the argument; the legacy server splits it at every &",
        token="1 byte",
        payload_sizes=(0, 0),
        answered_by=("FunctionCallAck", "FunctionReturn"),
        section="5.4.10",
        meaning="the server calls a function of the user's program",
    ),
    MessageSpec(
        name="FunctionCallAck",
        senders=(DEVICE,),
        types=("ACK",),
        codes=("0.00", "0.01", "4.00"),
        payload_sizes=(0, 0),
        generations="refusal: 0.01 in 0.4.0-0.4.8-rc.1 (9.3), 4.00 later (9.4)",
        section="5.4.10",
        meaning="the device has the call and runs the function",
    ),
    MessageSpec(
        name="FunctionReturn",
        senders=(DEVICE,),
        types=("NON",),
        codes=("2.04",),
        token="the call's",
        payload="4 bytes, signed, big-endian",
        payload_sizes=(4, 4),
        section="5.4.10",
        meaning="what the function returned",
    ),
    MessageSpec(
        name="VariableRequest",
        senders=(SERVER,),
        types=("CON",),
        codes=("0.01",),
        path="v",
        token="1 byte",
        payload_sizes=(0, 0),
        answered_by=("VariableRequestAck", "VariableValue"),
        section="5.4.11",
        meaning="the server reads a variable of the user's program",
    ),
    MessageSpec(
        name="VariableRequestAck",
        senders=(DEVICE,),
        types=("ACK",),
        codes=("0.00", "4.04"),
        payload_sizes=(0, 0),
        generations="1.5 and later",
        section="5.4.11",
        meaning="the value follows",
    ),
    MessageSpec(
        name="VariableValue",
        senders=(DEVICE,),
        types=("ACK", "NON"),
        codes=("2.05",),
        token="the request's",
        payload="by type: bool 1 byte, int 4 big-endian, double 8 little-endian, or text",
        generations="in the ACK to 1.4, separate from 1.5 on",
        section="5.4.11",
        meaning="the variable's value",
    ),
    MessageSpec(
        name="Signal",
        senders=(SERVER,),
        types=("CON",),
        codes=("0.03",),
        path="s",
        query="01 on, 00 off",
        token="1 byte",
        payload_sizes=(0, 0),
        answered_by=("SignalAck",),
        section="5.4.12",
        meaning="the LED shall shout rainbows, or stop",
    ),
    MessageSpec(
        name="SignalAck",
        senders=(DEVICE,),
        types=("ACK",),
        codes=("2.04",),
        token="the request's",
        payload_sizes=(0, 0),
        section="5.4.12",
        meaning="done",
    ),
    # Firmware update
    MessageSpec(
        name="UpdateBegin",
        senders=(SERVER,),
        types=("CON",),
        codes=("0.02",),
        path="u",
        token="1 byte",
        payload="flags, chunk size, file length, store, address: 12 bytes, or none",
        payload_sizes=(0, 12),
        answered_by=("UpdateBeginAck", "UpdateReady", "UpdateAbort"),
        section="5.5",
        meaning="the server wants to send new firmware",
    ),
    MessageSpec(
        name="UpdateBeginAck",
        senders=(DEVICE,),
        types=("ACK",),
        codes=("0.00", "0.01", "4.00", "5.03"),
        payload_sizes=(0, 0),
        generations="refusal: 0.01 in 0.4.0-0.4.8-rc.1 (9.3), 4.00 later, 5.03 on Photon by 1.2.1",
        section="5.5",
        meaning="the device has the announcement",
    ),
    MessageSpec(
        name="SaveBegin",
        senders=(SERVER,),
        types=("CON",),
        codes=("0.02",),
        path="s",
        token="1 byte",
        payload="as UpdateBegin",
        payload_sizes=(0, 12),
        answered_by=("SaveBeginAck", "UpdateReady", "UpdateAbort"),
        generations="understood from 0.4 on",
        section="5.2",
        meaning="the server wants to store a file",
    ),
    MessageSpec(
        name="SaveBeginAck",
        senders=(DEVICE,),
        types=("ACK",),
        codes=("0.00", "0.01", "4.00", "5.03"),
        payload_sizes=(0, 0),
        generations="understood from 0.4 on",
        section="5.2",
        meaning="the device has the announcement",
    ),
    MessageSpec(
        name="UpdateReady",
        senders=(DEVICE,),
        types=("NON",),
        codes=("2.04",),
        token="the announcement's",
        payload="none from early Cores; then 00 slow or 01 fast update",
        payload_sizes=(0, 1),
        section="5.5",
        meaning="the device is ready for chunks",
    ),
    MessageSpec(
        name="UpdateAbort",
        senders=(DEVICE,),
        types=("NON",),
        codes=("4.00",),
        token="the announcement's",
        payload="reason, 1 byte",
        payload_sizes=(1, 1),
        generations="servers listen for it; no known device sends it",
        section="5.3",
        meaning="the device gives the update up",
    ),
    MessageSpec(
        name="Chunk",
        senders=(SERVER,),
        types=("CON",),
        codes=("0.02",),
        path="c",
        query="CRC-32 of the data, 4 bytes; fast update: then the index, 2 bytes",
        token="1 byte",
        payload="data; the last chunk is filled up with zeros",
        answered_by=("ChunkAck", "ChunkReceived"),
        section="5.5",
        meaning="a piece of the firmware",
    ),
    MessageSpec(
        name="ChunkAck",
        senders=(DEVICE,),
        types=("ACK",),
        codes=("0.00",),
        payload_sizes=(0, 0),
        generations="fast update: not from 0.7 on",
        section="5.5",
        meaning="the chunk has arrived",
    ),
    MessageSpec(
        name="ChunkReceived",
        senders=(DEVICE,),
        types=("NON",),
        codes=("2.04", "4.00"),
        token="the chunk's",
        payload_sizes=(0, 0),
        generations="fast update: not from 0.7 on",
        section="5.5",
        meaning="2.04: the chunk is stored; 4.00: its CRC is wrong",
    ),
    MessageSpec(
        name="ChunkMissed",
        senders=(DEVICE,),
        types=("CON", "NON"),
        codes=("0.01",),
        path="c",
        payload="indexes, 2 bytes each",
        answered_by=("ChunkMissedAck",),
        generations="CON; NON from 2.x on",
        section="5.5",
        meaning="the device asks for chunks again",
    ),
    MessageSpec(
        name="ChunkMissedAck",
        senders=(SERVER,),
        types=("ACK",),
        codes=("0.00",),
        payload_sizes=(0, 0),
        section="5.5",
        meaning="the server has the list",
    ),
    MessageSpec(
        name="UpdateDone",
        senders=(SERVER,),
        types=("CON",),
        codes=("0.03",),
        path="u",
        token="1 byte",
        payload_sizes=(0, 0),
        answered_by=("UpdateDoneAck",),
        section="5.5",
        meaning="all chunks are sent",
    ),
    MessageSpec(
        name="UpdateDoneAck",
        senders=(DEVICE,),
        types=("ACK",),
        codes=("2.04", "4.00"),
        token="the request's",
        payload="none; from 0.7 on the new modules as JSON",
        section="5.5",
        meaning="2.04: all there, the device restarts; 4.00: chunks are missing",
    ),
    MessageSpec(
        name="UpdateDone",
        senders=(DEVICE,),
        types=("NON",),
        codes=("0.03",),
        path="u",
        payload="none, or the new modules as JSON",
        generations="Core from 0.4 on, Photon to early 0.8",
        section="5.5",
        meaning="the last missing chunk has arrived; the device restarts",
    ),
    # Known from firmware or servers, hardly ever seen
    MessageSpec(
        name="KeyChange",
        senders=(SERVER,),
        types=("CON",),
        codes=("0.03",),
        path="k",
        token="1 byte",
        answered_by=("KeyChangeAck",),
        generations="no known server sends it",
        section="5.4.14",
        meaning="change the session key",
    ),
    MessageSpec(
        name="KeyChangeAck",
        senders=(DEVICE,),
        types=("ACK",),
        codes=("0.00", "2.04"),
        payload_sizes=(0, 0),
        generations="Photon from 0.8 on, with a fresh id in place of the request's",
        section="5.4.14",
        meaning="taken note of",
    ),
    MessageSpec(
        name="ServerMoved",
        senders=(SERVER,),
        types=("CON",),
        codes=("0.02",),
        path="M",
        answered_by=("ServerMovedAck",),
        generations="later than this protocol",
        section="5.2",
        meaning="connect to another server",
    ),
    MessageSpec(
        name="ServerMovedAck",
        senders=(DEVICE,),
        types=("ACK",),
        codes=("0.00", "2.04"),
        payload_sizes=(0, 0),
        generations="later than this protocol",
        section="5.2",
        meaning="taken note of",
    ),
    MessageSpec(
        name="OtaStart",
        senders=(SERVER,),
        types=("CON",),
        codes=("0.02",),
        path="S",
        answered_by=("OtaStartAck",),
        generations="later than this protocol",
        section="5.2",
        meaning="begin of an update, third edition",
    ),
    MessageSpec(
        name="OtaStartAck",
        senders=(DEVICE,),
        types=("ACK",),
        codes=("0.00", "2.04"),
        payload_sizes=(0, 0),
        generations="later than this protocol",
        section="5.2",
        meaning="ready",
    ),
    MessageSpec(
        name="OtaChunk",
        senders=(SERVER,),
        types=("CON", "NON"),
        codes=("0.02",),
        path="C",
        generations="later than this protocol",
        section="5.2",
        meaning="a piece of the firmware, third edition",
    ),
    MessageSpec(
        name="OtaFinish",
        senders=(SERVER,),
        types=("CON",),
        codes=("0.02",),
        path="F",
        answered_by=("OtaFinishAck",),
        generations="later than this protocol",
        section="5.2",
        meaning="end of an update, third edition",
    ),
    MessageSpec(
        name="OtaFinishAck",
        senders=(DEVICE,),
        types=("ACK",),
        codes=("0.00", "2.04"),
        payload_sizes=(0, 0),
        generations="later than this protocol",
        section="5.2",
        meaning="finished",
    ),
    MessageSpec(
        name="Reset",
        senders=(DEVICE, SERVER),
        types=("RST",),
        codes=("0.00",),
        payload_sizes=(0, 0),
        generations="Photon from 0.8 on can write it, none does over TCP",
        section="5.4.13",
        meaning="the message was not understood",
    ),
)
"""All rows. A name is unique for each sender."""


@dataclass(frozen=True, slots=True)
class GenericSpec:
    """A name for an answer whose request is not in the capture, so that several rows of `MESSAGES` fit."""

    name: str
    meaning: str


ACK_OF_UNKNOWN: Final = GenericSpec("Ack", "acknowledges a message that is not in the capture")
ERROR_ACK_OF_UNKNOWN: Final = GenericSpec("ErrorAck", "refuses a message that is not in the capture")
RESPONSE_TO_UNKNOWN: Final = GenericSpec("Response", "answers a request that is not in the capture")
ERROR_RESPONSE_TO_UNKNOWN: Final = GenericSpec("ErrorResponse", "refuses a request that is not in the capture")

MISCODED_ERRORS: Final = {"0.01": "4.00", "0.04": "4.00"}
"""Codes that an ACK carries by mistake, and what was meant (9.3 device, 9.5 community server)."""

VARIABLE_TYPES: Final = {1: "bool", 2: "int32", 4: "string", 9: "double"}
"""Type numbers in a Describe (5.4.11)."""

VARIABLE_SIZES: Final = {1: "bool", 4: "int32", 8: "double"}
"""What the length of a value suggests when no Describe tells its type; any other length is a string."""

HELLO_FLAGS: Final = {
    0x01: "update_applied",
    0x02: "diagnostics",
    0x04: "immediate_updates",
    0x08: "handshake_complete",
    0x10: "goodbye",
    0x20: "device_initiated_describe",
    0x40: "compressed_ota",
    0x80: "ota_v3",
}
"""Bits of the Hello's flags (7.1)."""

PLATFORMS: Final = {0: "Core", 3: "virtual device", 6: "Photon", 8: "P1", 10: "Electron"}
"""Platform ids of devices that can speak this protocol (1.2, 1.3)."""

DESCRIBE_FLAGS: Final = {1: "system", 2: "application", 4: "metrics"}
METRICS_PREFIX: Final = bytes.fromhex("000400")
"""How a binary metrics answer to Describe begins (7.2)."""

UPDATE_STORES: Final = {0: "firmware", 1: "system storage", 128: "application"}
FAST_UPDATE: Final = 0x01
"""Bit 0 of UpdateBegin's flags: offered; of UpdateReady's flags: accepted (5.5)."""

GOODBYE_FIELDS: Final = {1: "cloud_reason", 2: "reset_reason", 4: "sleep_seconds", 8: "network_reason"}
"""Bits of a Goodbye's flags, in the order in which their values follow (5.4.15)."""

DEFAULT_TTL: Final = 60
"""Seconds an event lives when a device writes no Max-Age (5.4.5)."""

SYSTEM_EVENT_PREFIX: Final = "spark"
"""Events whose names begin so, in any case, are acknowledged without a refusal by both servers (5.4.6)."""
