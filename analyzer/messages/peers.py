"""Which firmware and which server wrote this, as far as it shows (PROTOCOL 1.2, 4.2, 5.4, 7.1)."""

from __future__ import annotations

from typing import Any, Final

from analyzer.catalogue import GENERATIONS, SERVERS
from analyzer.coap import ACK, EMPTY, MAX_AGE, CoapMessage
from analyzer.messages.values import HELLO_3X_SIZE
from analyzer.secrecy import forgetful

G1A, G1B, G2A, G2B, G2C, G2D = GENERATIONS
G2B_OR_G2C: Final = "G2b or G2c"
"""Photon 1.2 to 1.5: the Hello is the same on both sides of the 1.5 that parts the two."""

CORE, PHOTON, P1, ELECTRON = 0, 6, 8, 10

LEGACY, COMMUNITY = SERVERS

HIGH_FIRST, LOW_FIRST, EITHER_ORDER, NEITHER_ORDER = "high-first", "low-first", "either", "neither"

IGNORES_REFUSALS: Final = frozenset({G1A, G2B, G2B_OR_G2C, G2C, G2D})
"""Generations that take no notice of a 4.00 acknowledgement; some releases of the others hang up (5.2)."""

WITHOUT_PLATFORM: Final = (G1A, "up to 0.3")
WITH_3X_HELLO: Final = (G2D, "3.x")
LATER_CORE: Final = (G1B, "0.4 to 1.4")
UNFLAGGED_PHOTON: Final = (G2A, "0.4 to 0.7")
DIAGNOSING_PHOTON: Final = (G2B, "0.8 to 1.1")
LAST_SEPARATE_PHOTON: Final = (G2C, "1.5")
"""What the first separate value of a variable makes of `G2B_OR_G2C` (5.4.11)."""
PHOTON_BY_FLAG: Final = (
    (0x10, (G2C, "2.x")),
    (0x04, (G2B_OR_G2C, "1.2 to 1.5")),
    (0x02, DIAGNOSING_PHOTON),
)
"""The latest flag that is set decides: each release kept those of the ones before."""


def generation_of(payload_size: int, hello: dict[str, Any], id_order: str | None) -> tuple[str | None, str | None]:
    """Tell a device's generation and the range of its firmware from its Hello (7.1); None where it is open.

    ``payload_size`` in bytes, ``hello`` the values of the message, ``id_order`` from `id_order_of`.
    """
    platform = hello["platform_id"]
    if platform is None:
        return WITHOUT_PLATFORM
    if payload_size >= HELLO_3X_SIZE:
        return WITH_3X_HELLO
    if platform == CORE:
        return LATER_CORE
    if platform in (PHOTON, P1):
        for flag, answer in PHOTON_BY_FLAG:
            if hello["flags"] & flag:
                return answer
        # The ids come from another code base than the flags suggest; only one of the two can be configured.
        return DIAGNOSING_PHOTON if id_order == LOW_FIRST else UNFLAGGED_PHOTON
    return (G2B, None) if platform == ELECTRON else (None, None)


@forgetful
def id_order_of(message_id: int, salt: bytes) -> str:
    """Tell in which order the device read the first two bytes of the salt as its id seed (4.2).

    ``high-first`` is the old code (Core, Photon to 0.7), ``low-first`` the new one. ``neither`` means that
    this Hello does not belong to this session key, ``either`` that both orders give the same id.
    """
    high = (int.from_bytes(salt[:2], "big") + 1) & 0xFFFF
    low = (int.from_bytes(salt[:2], "little") + 1) & 0xFFFF
    if high == low == message_id:
        return EITHER_ORDER
    if message_id == high:
        return HIGH_FIRST
    return LOW_FIRST if message_id == low else NEITHER_ORDER


def server_dialect_of(coap: CoapMessage, name: str | None, paired: bool) -> str | None:
    """Tell which of the two open servers writes like this (5.4.1, 5.4.2, 5.4.6, 5.4.7), or None.

    Another server, Particle's own among them, may write like either.
    """
    if name == "Hello":
        return {b"": COMMUNITY, b"\1": LEGACY}.get(coap.token)
    if name == "Event":
        size = next((len(value) for number, value in coap.options if number == MAX_AGE), 0)
        return {0: None, 4: COMMUNITY}.get(size, LEGACY)
    if coap.type != ACK:
        return None
    if coap.token == b"\0" and (coap.code == EMPTY or coap.code >= 0x80):
        return LEGACY
    # Both servers write the same bare acknowledgement to a ChunkMissed.
    bare = coap.code in (EMPTY, 0x04) and not coap.token
    return COMMUNITY if bare and paired and name != "ChunkMissedAck" else None
