"""The CoAP messages of both ends, byte for byte (PROTOCOL 5.3 and 5.4). Ids and tokens are the caller's."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final, Literal

from analyzer.catalogue import PRESENCE_PREFIX

Dialect = Literal["legacy", "community"]
FirmwareName = Literal["core-2014", "core-0.5", "photon-0.5", "photon-1.4", "photon-3"]

CON: Final = 0x40
NON: Final = 0x50
ACK: Final = 0x60
EMPTY: Final = 0x00
GET: Final = 0x01
POST: Final = 0x02
PUT: Final = 0x03
CHANGED: Final = 0x44
CONTENT: Final = 0x45
BAD_REQUEST: Final = 0x80

_URI_PATH: Final = 11
_MAX_AGE: Final = 14
_URI_QUERY: Final = 15
_NO_RESPONSE: Final = 258
_DEFAULT_TTL: Final = 60


@dataclass(frozen=True, slots=True)
class Firmware:
    """What differs between the generations of device code (PROTOCOL 1.2, 2.4, 4.2, 7.1)."""

    name: FirmwareName
    described: str
    device: str
    """Name of the device in truth files and of its key files."""
    device_id: bytes
    key_in_identity: bool
    """Build the 256 bytes carry the device's public key: 214 bytes inside instead of 52."""
    platform: int | None
    hello_flags: int
    long_hello: bool
    seed_low_byte_first: bool
    post_increment_token: bool
    hello_limit: float | None
    """Seconds that it waits for the server's hello; None: for ever."""
    ends_failed_handshake: bool
    """It closes after a failed handshake and waits ever longer; else it goes on with dead keys."""
    announcements: int
    """Copies of the presence datagram."""
    describes_twice: bool
    separate_values: bool
    """Answers a variable request with an empty ACK and a message of its own."""
    leaves_on_error: bool
    """Drops the connection on any 4.xx answer (PROTOCOL 5.2)."""


_CORE_ID: Final = bytes.fromhex("48ff6d06507b573081350e87")
_PHOTON_ID: Final = bytes.fromhex("23003a001747343433313338")

FIRMWARES: Final[dict[FirmwareName, Firmware]] = {
    firmware.name: firmware
    for firmware in (
        Firmware(
            "core-2014",
            "Spark Core firmware of 2014",
            "core-a",
            _CORE_ID,
            key_in_identity=False,
            platform=None,
            hello_flags=0,
            long_hello=False,
            seed_low_byte_first=False,
            post_increment_token=False,
            hello_limit=None,
            ends_failed_handshake=False,
            announcements=3,
            describes_twice=False,
            separate_values=False,
            leaves_on_error=False,
        ),
        Firmware(
            "core-0.5",
            "Spark Core, system firmware 0.5",
            "core-a",
            _CORE_ID,
            key_in_identity=True,
            platform=0,
            hello_flags=0,
            long_hello=False,
            seed_low_byte_first=False,
            post_increment_token=False,
            hello_limit=2.0,
            ends_failed_handshake=True,
            announcements=1,
            describes_twice=True,
            separate_values=False,
            leaves_on_error=True,
        ),
        Firmware(
            "photon-0.5",
            "Photon, system firmware 0.5",
            "photon-a",
            _PHOTON_ID,
            key_in_identity=True,
            platform=6,
            hello_flags=0,
            long_hello=False,
            seed_low_byte_first=False,
            post_increment_token=False,
            hello_limit=2.0,
            ends_failed_handshake=True,
            announcements=1,
            describes_twice=True,
            separate_values=False,
            leaves_on_error=True,
        ),
        Firmware(
            "photon-1.4",
            "Photon, Device OS 1.4",
            "photon-a",
            _PHOTON_ID,
            key_in_identity=True,
            platform=6,
            hello_flags=0x06,
            long_hello=False,
            seed_low_byte_first=True,
            post_increment_token=True,
            hello_limit=4.0,
            ends_failed_handshake=True,
            announcements=0,
            describes_twice=False,
            separate_values=False,
            leaves_on_error=False,
        ),
        Firmware(
            "photon-3",
            "Photon, Device OS 3",
            "photon-a",
            _PHOTON_ID,
            key_in_identity=True,
            platform=6,
            hello_flags=0x16,
            long_hello=True,
            seed_low_byte_first=True,
            post_increment_token=True,
            hello_limit=4.0,
            ends_failed_handshake=True,
            announcements=0,
            describes_twice=False,
            separate_values=True,
            leaves_on_error=False,
        ),
    )
}


def message(
    kind: int,
    code: int,
    number: int,
    *,
    token: int | None = None,
    options: tuple[tuple[int, bytes], ...] = (),
    payload: bytes | None = None,
) -> bytes:
    """Build a message: header, token of 0 or 1 byte, options in ascending order, payload."""
    head = struct.pack(">BBH", kind | (token is not None), code, number)
    body = b"" if token is None else bytes([token])
    previous = 0
    for option, value in options:
        body += _option(option - previous, value)
        previous = option
    return head + body + (b"" if payload is None else b"\xff" + payload)


def _option(delta: int, value: bytes) -> bytes:
    delta_nibble, delta_more = _nibble(delta)
    length_nibble, length_more = _nibble(len(value))
    return bytes([delta_nibble << 4 | length_nibble]) + delta_more + length_more + value


def _nibble(value: int) -> tuple[int, bytes]:
    if value < 13:
        return value, b""
    if value < 269:
        return 13, bytes([value - 13])
    return 14, struct.pack(">H", value - 269)


def device_hello(firmware: Firmware, number: int, *, just_updated: bool = False) -> bytes:
    """PROTOCOL 7.1: product id and version unset, as a device without a product has them."""
    flags = firmware.hello_flags | just_updated
    product = 6 if firmware.platform == 6 else 0
    payload = struct.pack(">HHBB", product, 0xFFFF, 0, flags)
    if firmware.platform is not None:
        payload += struct.pack(">H", firmware.platform)
    if firmware.long_hello:
        payload += struct.pack(">BBHHIH", 0, 0, 3000, 928, 0x20000, 512)
    return message(NON, POST, number, options=((_URI_PATH, b"h"),), payload=payload)


def server_hello(dialect: Dialect, number: int) -> bytes:
    """PROTOCOL 5.4.1: only the legacy server puts a token into it."""
    return message(NON, POST, number, token=1 if dialect == "legacy" else None, options=((_URI_PATH, b"h"),))


def empty_ack(number: int) -> bytes:
    """Build the form that devices send, and the community server."""
    return message(ACK, EMPTY, number)


def server_ack(dialect: Dialect, number: int) -> bytes:
    """Build an empty ACK; the legacy server adds a zero token to it (PROTOCOL 5.4.2)."""
    return message(ACK, EMPTY, number, token=0 if dialect == "legacy" else None)


def event_ack(dialect: Dialect, number: int, name: str) -> bytes:
    """PROTOCOL 5.4.6: the legacy server refuses every event but those of the system, without meaning it."""
    if dialect == "legacy" and not name.startswith("spark"):
        return message(ACK, BAD_REQUEST, number, token=0)
    return server_ack(dialect, number)


def ping(number: int) -> bytes:
    """PROTOCOL 5.4.3."""
    return message(CON, EMPTY, number)


def time_request(number: int, token: int) -> bytes:
    """PROTOCOL 5.4.4."""
    return message(CON, GET, number, token=token, options=((_URI_PATH, b"t"),))


def time_answer(number: int, token: int, unix_time: int) -> bytes:
    """PROTOCOL 5.4.4: seconds since 1970, big-endian."""
    return message(ACK, CONTENT, number, token=token, payload=struct.pack(">I", unix_time))


def event(number: int, name: str, data: str, *, ttl: int = _DEFAULT_TTL, private: bool = False) -> bytes:
    """Build an event from a device (PROTOCOL 5.4.5): the whole name in one option, the usual TTL left out."""
    options = [(_URI_PATH, b"E" if private else b"e"), (_URI_PATH, name.encode())]
    if ttl != _DEFAULT_TTL:
        options.append((_MAX_AGE, ttl.to_bytes(3, "big")))
    return message(NON, POST, number, options=tuple(options), payload=data.encode() or None)


def server_event(dialect: Dialect, number: int, name: str, data: str, *, ttl: int = _DEFAULT_TTL) -> bytes:
    """To a device (PROTOCOL 5.4.7): the name split at its slashes, the TTL always there."""
    age = ttl.to_bytes(4, "big")
    if dialect == "legacy":
        age = age.lstrip(b"\x00")
    path = tuple((_URI_PATH, part.encode()) for part in ("e", *name.split("/")))
    return message(NON, POST, number, options=(*path, (_MAX_AGE, age)), payload=data.encode() or None)


def subscribe(number: int, prefix: str, *, mine: bool = False) -> bytes:
    """PROTOCOL 5.4.8; `mine`: only events of the owner's devices."""
    query = ((_URI_QUERY, b"u"),) if mine else ()
    return message(CON, GET, number, options=((_URI_PATH, b"e"), (_URI_PATH, prefix.encode()), *query))


def describe_request(number: int, token: int) -> bytes:
    """PROTOCOL 5.4.9."""
    return message(CON, GET, number, token=token, options=((_URI_PATH, b"d"),))


def answer(number: int, token: int, payload: bytes) -> bytes:
    """Build a piggy-backed 2.05 with content: describe, variable (PROTOCOL 5.4.9, 5.4.11)."""
    return message(ACK, CONTENT, number, token=token, payload=payload)


def separate_value(number: int, token: int, value: bytes) -> bytes:
    """Build a variable's value in a message of its own, from 1.5 on (PROTOCOL 5.4.11)."""
    return message(NON, CONTENT, number, token=token, payload=value)


def separate_describe(number: int, token: int, payload: bytes) -> bytes:
    """Build the describe answer in a message of its own, from 2.x on (PROTOCOL 5.4.9)."""
    return message(CON, CONTENT, number, token=token, payload=payload)


def variable_request(number: int, token: int, name: str) -> bytes:
    """PROTOCOL 5.4.11."""
    return message(CON, GET, number, token=token, options=((_URI_PATH, b"v"), (_URI_PATH, name.encode())))


def function_call(number: int, token: int, name: str, argument: str) -> bytes:
    """PROTOCOL 5.4.10."""
    path = ((_URI_PATH, b"f"), (_URI_PATH, name.encode()))
    return message(CON, POST, number, token=token, options=(*path, (_URI_QUERY, argument.encode())))


def function_return(number: int, token: int, value: int) -> bytes:
    """PROTOCOL 5.4.10: a signed 32-bit number, big-endian."""
    return message(NON, CHANGED, number, token=token, payload=struct.pack(">i", value))


def signal(number: int, token: int, *, on: bool) -> bytes:
    """PROTOCOL 5.4.12."""
    return message(CON, PUT, number, token=token, options=((_URI_PATH, b"s"), (_URI_QUERY, bytes([on]))))


def changed(number: int, token: int) -> bytes:
    """Build a piggy-backed 2.04 without content: signal, update done."""
    return message(ACK, CHANGED, number, token=token)


def update_begin(dialect: Dialect, number: int, token: int, *, chunk_size: int, length: int) -> bytes:
    """PROTOCOL 5.5: the slow form from the legacy server, fast update offered by the community server."""
    payload = struct.pack(">BHIBI", dialect == "community", chunk_size, length, 0, 0)
    return message(CON, POST, number, token=token, options=((_URI_PATH, b"u"),), payload=payload)


def update_begin_bare(number: int, token: int) -> bytes:
    """Build the legacy server's last try, which has no payload (PROTOCOL 5.5)."""
    return message(CON, POST, number, token=token, options=((_URI_PATH, b"u"),))


def update_ready(firmware: Firmware, number: int, token: int) -> bytes:
    """PROTOCOL 5.5: from 0.4 on with a byte that says whether fast chunks will do; here: slow."""
    payload = b"\x00" if firmware.platform is not None else None
    return message(NON, CHANGED, number, token=token, payload=payload)


def chunk(number: int, token: int, data: bytes, *, crc: bytes | None = None) -> bytes:
    """PROTOCOL 5.5, slow form: CRC-32 of the data, raw, in a query; another one where a server gets it wrong."""
    crc = crc or struct.pack(">I", zlib.crc32(data))
    return message(CON, POST, number, token=token, options=((_URI_PATH, b"c"), (_URI_QUERY, crc)), payload=data)


def chunk_received(number: int, token: int, *, good: bool = True) -> bytes:
    """PROTOCOL 5.5: 2.04, or 4.00 when the CRC did not match."""
    return message(NON, CHANGED if good else BAD_REQUEST, number, token=token)


def chunk_missed(number: int, indexes: tuple[int, ...]) -> bytes:
    """PROTOCOL 5.5: the chunks that should come again."""
    payload = struct.pack(f">{len(indexes)}H", *indexes)
    return message(CON, GET, number, options=((_URI_PATH, b"c"),), payload=payload)


def update_done(number: int, token: int) -> bytes:
    """PROTOCOL 5.5, from the server."""
    return message(CON, PUT, number, token=token, options=((_URI_PATH, b"u"),))


def refusal(number: int) -> bytes:
    """PROTOCOL 5.5: an update is not taken, or not taken as whole; without a token from 0.4.9 on."""
    return message(ACK, BAD_REQUEST, number)


def goodbye(number: int) -> bytes:
    """Build the farewell of 2.x and later: no answer wanted, no reasons given (PROTOCOL 5.4.15)."""
    options = ((_URI_PATH, b"x"), (_NO_RESPONSE, b""))
    return message(NON, POST, number, options=options, payload=b"\x00")


def presence(device_id: bytes) -> bytes:
    """Build the datagram of PROTOCOL 2.7, the only place where a device id goes over the wire in clear."""
    return PRESENCE_PREFIX + device_id
