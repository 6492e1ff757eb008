"""What the opened messages of one connection tell of its two ends (PROTOCOL 2.2, 4.2, 5.4, 5.5, 7.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from analyzer.catalogue import GENERATIONS
from analyzer.findings import Confidence
from analyzer.message_table import PLATFORMS
from analyzer.recognition.model import (
    COMMUNITY,
    FIRMWARE_OF,
    G1A,
    G1B,
    G2A,
    G2B,
    G2C,
    G2D,
    LEGACY,
    OTHER,
    Clue,
    all_but,
    fits,
)
from analyzer.wording import number

if TYPE_CHECKING:
    from analyzer.conversation import Conversation
    from analyzer.messages import SparkMessage
    from analyzer.opened import Secrets

EARLY_IDENTITY: Final = 52
"""Bytes in "who I am" without the device's public key, which came with 0.4 (2.2)."""
LEGACY_TOKEN: Final = b"\0"
"""What the legacy server alone puts into an empty acknowledgement (5.4.2)."""
COMMUNITY_REFUSAL: Final = "0.04"
MAX_AGE_BYTES: Final = 4
"""What the community server needs for any time to live; others leave the zeros out (5.4.7)."""


def device_clues(c: Conversation) -> Iterator[Clue]:
    """Yield what keys tell of the device."""
    secrets = c.secrets
    if secrets is None:
        return
    identity, part = secrets.identity, c.part("identity")
    if identity is not None and identity.nonce_matches and part is not None:
        early = identity.plaintext_length == EARLY_IDENTITY
        yield Clue(
            "identity",
            fits(G1A) if early else all_but(G1A),
            Confidence.CERTAIN,
            f'Packet {number(part.packet)}: "who I am" is {identity.plaintext_length} bytes long,'
            f" {'without' if early else 'with'} the device's public key.",
            (part.packet,),
        )
    if secrets.reader is None:
        return
    hello = secrets.gist.hello
    clue = _hello(hello, secrets) if hello is not None else None
    if clue is not None:
        yield clue
        return
    seen: set[frozenset[str]] = set()
    for m in _telling(c, secrets):
        clue = _habit(m) if m.direction == "device" and m.coap is not None and m.coap.well_formed else None
        if clue is not None and clue.fits not in seen:
            seen.add(clue.fits)
            yield clue


def _telling(c: Conversation, secrets: Secrets) -> Iterable[SparkMessage]:
    """Messages of both ends, the first of each manner of writing among them."""
    return c.messages if secrets.gist.more_manners else secrets.gist.manners


def _hello(hello: SparkMessage, secrets: Secrets) -> Clue | None:
    """The hello names the platform, and its flags the release (7.1)."""
    from analyzer.messages import peers  # noqa: PLC0415 - only with keys

    reader = secrets.reader
    if reader is None or reader.generation is None:
        return None
    able = fits(G2B, G2C) if reader.generation == peers.G2B_OR_G2C else fits(reader.generation)
    confirmed = reader.id_order not in (None, peers.NEITHER_ORDER)
    product = PLATFORMS.get(hello.values["platform_id"] or 0, "")
    return Clue(
        "hello",
        able,
        Confidence.CERTAIN if confirmed else Confidence.STRONG,
        f"Packet {number(hello.packet)}: its hello is that of a {product or 'device'}"
        + (f", firmware {reader.firmware}." if reader.firmware else ".")
        + _version(hello.values),
        (hello.packet,),
        FIRMWARE_OF.format(product=product.replace("Core", "Spark Core"), releases=reader.firmware)
        if product and reader.firmware
        else None,
    )


def _version(values: dict[str, Any]) -> str:
    """The product and the version of its program, where they are set."""
    product, version = values["product_id"], values["firmware_version"]
    unset = (None, 0xFFFF)
    told = [f"product {product}" if product not in unset else "", f"version {version}" if version not in unset else ""]
    listed = ", ".join(one for one in told if one)
    return f" It names {listed}." if listed else ""


def _describes(m: SparkMessage) -> tuple[frozenset[str], str] | None:
    values = m.values
    if values.get("repeat"):
        return fits(G1B, G2A), "the description comes a second time"
    if m.type == "CON":
        return fits(G2C, G2D), "the description comes in a message of its own"
    if values.get("platform_id") is not None:
        return all_but(G1A, G2D), "the description names a platform, and comes with the acknowledgement"
    if values.get("variables") is not None:  # the second of two descriptions has none either
        return fits(G1A, G1B, G2A), "the description names no platform"
    return None


def _value(m: SparkMessage) -> tuple[frozenset[str], str] | None:
    if "error" in m.values:
        return None
    if m.type == "ACK":
        return all_but(G2C, G2D), "a variable's value comes with the acknowledgement"
    return fits(G2C, G2D), "a variable's value comes in a message of its own"


def _ready(m: SparkMessage) -> tuple[frozenset[str], str] | None:
    early = not m.payload
    return fits(G1A) if early else all_but(G1A), f"ready for an update, {'without' if early else 'with'} flags"


def _goodbye(_: SparkMessage) -> tuple[frozenset[str], str] | None:
    return fits(G2C, G2D), "it says goodbye"


HABITS: Final[dict[str, Callable[[SparkMessage], tuple[frozenset[str], str] | None]]] = {
    "DescribeResponse": _describes,
    "VariableValue": _value,
    "UpdateReady": _ready,
    "Goodbye": _goodbye,
}
"""Messages that the generations write differently."""


def _habit(m: SparkMessage) -> Clue | None:
    told = HABITS[m.name](m) if m.name in HABITS else None
    if told is None or told[0] == frozenset(GENERATIONS):
        return None
    able, text = told
    return Clue("habit", able, Confidence.STRONG, f"Packet {number(m.packet)}: {text}.", (m.packet,))


# -- the server -----------------------------------------------------------------------------------------------------


def server_clues(c: Conversation) -> Iterator[Clue]:
    """Yield what keys tell of the server: how it writes. What RFC 7252 asks for may be anybody's."""
    if c.secrets is None or c.secrets.reader is None:
        return
    seen: set[tuple[str, Confidence]] = set()
    for m in _telling(c, c.secrets):
        clue = _dialect(m) if m.direction == "server" and m.coap is not None and m.coap.well_formed else None
        if clue is not None and (clue.kind, clue.confidence) not in seen:
            seen.add((clue.kind, clue.confidence))
            yield clue


def _dialect(m: SparkMessage) -> Clue | None:
    """One message in the manner of one of the two open servers (5.4.1, 5.4.2, 5.4.6, 5.4.7)."""
    from analyzer.messages.peers import server_dialect_of  # noqa: PLC0415 - only with keys

    assert m.coap is not None  # noqa: S101 - the caller has looked
    who = server_dialect_of(m.coap, m.name, m.answers is not None)
    if who is None:
        return None
    where = f"Packet {number(m.packet)}: "
    if m.name == "Event" and who == COMMUNITY:
        return Clue(who, fits(who), Confidence.LIKELY, f"{where}a time to live of {MAX_AGE_BYTES} bytes.", (m.packet,))
    if m.values.get("habit"):
        return Clue(who, fits(who), Confidence.CERTAIN, f"{where}the server refuses an event as a habit.", (m.packet,))
    if m.token == LEGACY_TOKEN and who == LEGACY:
        return Clue(who, fits(who), Confidence.STRONG, f"{where}an acknowledgement with a zero token.", (m.packet,))
    if m.code == COMMUNITY_REFUSAL:
        return Clue(who, fits(who), Confidence.STRONG, f"{where}a refusal with code {m.code}.", (m.packet,))
    how = "of the shortest form" if m.name == "Event" else "with a token" if m.token else "without a token"
    return Clue(
        f"plain {who}",
        fits(who, OTHER),
        Confidence.STRONG,
        f"{where}{m.name or 'an acknowledgement'} {how}.",
        (m.packet,),
    )
