"""Every finding of the table: a capture that has it, a near miss that has not, and the same capture damaged.

Damage lowers the confidence or takes the claim back, and never makes another one. Where a finding is about files, or
about the capture itself, there is nothing that damage could take back; the table says why.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from judging import alarms, captured, codes
from keyed import KEYS, key_folder, unlock
from true_findings import TRUE

from analyzer.findings import CONFIDENCE_ORDER, FINDINGS
from analyzer.keys import KeyRing, inspect_key_file
from analyzer.simulate import Conversation, Packet, Simulation, damage, finish, make_world, simulate
from analyzer.simulate.scenarios.steps import WRONG_KEY, cannot_use_offer
from analyzer.trace import Trace

Spoil = Callable[[Sequence[Packet]], Sequence[Packet]]


def without(*labels: str) -> Spoil:
    """The capture program lost these packets."""
    return lambda packets: damage.drop(packets, lambda p: p.label in labels)


def lost(label: str, number: int) -> Spoil:
    """It lost the packet of this label with this place among them, counted from 0; a negative one from the end."""

    def spoil(packets: Sequence[Packet]) -> Sequence[Packet]:
        places = [place for place, packet in enumerate(packets) if packet.label == label]
        return damage.drop_packets(packets, {places[number]})

    return spoil


def until(label: str, seconds: float, number: int = 0) -> Spoil:
    """The capture ends some seconds after a packet with this label."""

    def spoil(packets: Sequence[Packet]) -> Sequence[Packet]:
        last = [p.time_ns for p in packets if p.label == label][number] + round(seconds * 1e9)
        return [p for p in packets if p.time_ns <= last]

    return spoil


def only(sender: str) -> Spoil:
    """Only packets of one end passed the capture point."""
    return lambda packets: damage.one_direction(packets, sender)  # type: ignore[arg-type]


def snaplen(limit: int) -> Spoil:
    """`tcpdump -s LIMIT`."""
    return lambda packets: damage.snaplen(packets, limit)


def from_second(seconds: float) -> Spoil:
    """The capture was begun late."""
    return lambda packets: damage.start_after(packets, seconds)


CUT: Final = {"headers only": snaplen(68), "large packets cut": snaplen(150)}
ONE_WAY: Final = {"device only": only("device"), "server only": only("server")}


@dataclass(frozen=True, slots=True)
class Row:
    """``trigger`` and ``near_miss`` are scenarios; ``damage`` tells what to do to the first, or why nothing can be."""

    trigger: str
    near_miss: str
    damage: dict[str, Spoil] | str
    keys: bool = False


OF_THE_CAPTURE: Final = "it tells of damage: more of it takes nothing back"
CONTENTS: Final = "it is about all of the capture's packets; a smaller capture is another one, not a damaged one"

ROWS: Final[dict[str, tuple[Row, ...]]] = {
    "SPK001": (
        Row("healthy", "key-mismatch", {**ONE_WAY, **CUT}),
        Row("healthy", "key-mismatch", {"no hello": without("device hello"), "no reply": without("offer")}, keys=True),
    ),
    "SPK101": (
        Row("port-blocked", "refused", {"ends soon": until("syn", 0.5)}),
        Row("blocked-icmp", "no-nonce", {"complaint lost": without("icmp")}),
    ),
    "SPK102": (Row("refused", "port-blocked", {"refusal lost": without("rst"), "device only": only("device")}),),
    "SPK103": (Row("http-portal", "short-nonce", {"device only": only("device")}),),
    "SPK104": (Row("no-nonce", "http-late", {"server only": only("server"), "ends soon": until("syn-ack", 8.0)}),),
    "SPK105": (
        Row("dns-failed", "dns-second-try", {"refusals cut": snaplen(68), "lookups lost": without("dns")}),
        Row("dns-unanswered", "dns-second-try", {"begun late": from_second(12.0)}),
    ),
    "SPK106": (
        Row("name-astray", "dns-failed", {"answer cut": snaplen(68), "answer lost": without("dns")}),
        Row("server-moved", "local-server-blocked", {"neighbours lost": without("arp", "icmp")}),
        Row("other-than-looked-up", "cloud-unreachable", {"lookup lost": without("dns")}),
    ),
    "SPK201": (
        Row("short-nonce", "http-portal", {"headers only": snaplen(68), **ONE_WAY, "end lost": without("fin")}),
    ),
    "SPK202": (Row("device-silent", "late-nonce", {**ONE_WAY, "ends soon": until("nonce", 4.0)}),),
    "SPK203": (Row("split-identity", "split-identity-fine", {**ONE_WAY, "end lost": without("fin")}),),
    "SPK204": (Row("wrong-server-key", "reset-after-accept", {**ONE_WAY, **CUT, "end lost": without("fin")}),),
    "SPK205": (Row("wrong-reply-size", "snaplen", {**ONE_WAY, **CUT}),),
    "SPK206": (Row("bad-signature", "slow-hello", {**ONE_WAY, **CUT}),),
    "SPK207": (Row("dead-key", "hello-unanswered", {"server only": only("server"), "headers only": snaplen(68)}),),
    "SPK208": (
        Row("hello-unanswered", "dead-key", {**ONE_WAY, **CUT}),
        Row("hello-unanswered", "dead-key", {"no reply": without("offer"), **CUT}, keys=True),
    ),
    "SPK209": (Row("slow-handshake", "slow-hello", {**ONE_WAY, "greeting lost": without("nonce")}),),
    "SPK210": (
        Row("same-nonce-again", "two-interfaces", {"device only": only("device"), "headers only": snaplen(68)}),
        Row("reply-played-back", "port-reuse", {"device only": only("device"), "no SYNs": without("syn", "syn-ack")}),
    ),
    "SPK301": (Row("key-mismatch", "bad-signature", {**ONE_WAY, **CUT, "no reply": without("offer")}, keys=True),),
    "SPK302": (Row("wrong-server-key", "unknown-device", {**ONE_WAY, **CUT, "no end": without("fin")}, keys=True),),
    "SPK303": (Row("bad-signature", "key-mismatch", {**ONE_WAY, **CUT, "no reply": without("offer")}, keys=True),),
    "SPK304": (Row("unknown-device", "wrong-server-key", {**ONE_WAY, **CUT, "no end": without("fin")}, keys=True),),
    "SPK305": (Row("elliptic", "offers-other-key", {**ONE_WAY, **CUT, "lost": without("identity")}, keys=True),),
    "SPK306": (Row("short-integer", "key-mismatch", {**ONE_WAY, **CUT, "no reply": without("offer")}, keys=True),),
    "SPK307": (),  # about files: no capture is read, see below
    "SPK308": (Row("server-broken", "wrong-server-key", {**ONE_WAY, **CUT, "no end": without("fin")}, keys=True),),
    "SPK401": (Row("healthy", "coap-tcp", {"headers only": snaplen(68)}),),
    "SPK501": (
        Row("framing-lost", "gap", {"device only": only("device"), **CUT, "gap before": without("server hello")}),
        Row("wrong-cipher", "bad-counter", {"device only": only("device"), **CUT}, keys=True),
    ),
    "SPK502": (Row("bad-counter", "id-wraps", {**ONE_WAY, **CUT, "gap": lost("frame", 2)}, keys=True),),
    "SPK503": (
        Row("keepalive-lost", "keepalive-slow", {**ONE_WAY, **CUT, "ends soon": until("ping", 5.0, -1)}),
        Row("call-unanswered", "healthy-idle", {**ONE_WAY, **CUT, "ping lost": lost("ping", 0)}, keys=True),
    ),
    "SPK504": (Row("timed-out", "crash-loop", {**ONE_WAY, **CUT, "closes lost": without("fin")}),),
    "SPK505": (Row("reply-lost", "duplicates", {**ONE_WAY, "repeats lost": without("retransmission")}),),
    "SPK506": (Row("forgotten", "timed-out", {**ONE_WAY, **CUT}),),
    "SPK507": (
        Row("clone", "planned-reconnects", {"announcements and logins lost": without("presence", "offer")}),
        Row("clone", "two-devices", CUT, keys=True),
    ),
    "SPK508": (Row("crash-loop", "planned-reconnects", {**ONE_WAY, "SYNs lost": without("syn")}),),
    "SPK509": (Row("event-refused", "planned-reconnects", {**ONE_WAY, **CUT, "no end": without("fin")}, keys=True),),
    "SPK601": (
        Row("ota-stalls", "ota-too-slow", {**ONE_WAY, **CUT}),
        Row(
            "ota-not-started", "ota-complete", {**ONE_WAY, "headers only": snaplen(68), "ends soon": until("ping", -1)}
        ),
        Row("ota-refused", "ota-refused-once", {**ONE_WAY, **CUT, "begun late": from_second(0.3)}, keys=True),
    ),
    "SPK602": (
        Row("ota-gives-up", "ota-stalls", {**ONE_WAY, **CUT}),
        Row("ota-crc-wrong", "ota-chunk-again", {**ONE_WAY, **CUT, "ends soon": until("chunk", 1.0, -1)}, keys=True),
        Row("ota-flash-fault", "ota-refused", {"a frame lost": lost("frame", -1), **CUT}, keys=True),
        Row("ota-not-taken", "ota-complete", {"ends soon": until("update done", 1.0), **CUT}, keys=True),
    ),
    "SPK603": (Row("ota-too-slow", "ota-complete", {**ONE_WAY, **CUT, "no end": without("fin")}),),
    "SPK701": (Row("mid-session", "healthy", OF_THE_CAPTURE),),
    "SPK702": (Row("one-way-device", "port-blocked", OF_THE_CAPTURE),),
    "SPK703": (Row("gap", "offload", OF_THE_CAPTURE),),
    "SPK704": (Row("duplicates", "lossy", OF_THE_CAPTURE),),
    "SPK705": (Row("encrypted-wifi", "no-spark", OF_THE_CAPTURE),),
    "SPK706": (Row("announcements-only", "background", CONTENTS),),
    "SPK801": (Row("tls-client", "no-nonce-ping", {"server only": only("server"), "begun late": from_second(0.3)}),),
}
EVERY: Final = [
    pytest.param(code, row, id=f"{code}-{row.trigger}{'-keys' * row.keys}")
    for code, rows in ROWS.items()
    for row in rows
]
DAMAGED: Final = [
    pytest.param(code, row, name, id=f"{code}-{row.trigger}{'-keys' * row.keys}-{name}")
    for code, rows in ROWS.items()
    for row in rows
    if isinstance(row.damage, dict)
    for name in row.damage
]


def _elliptic() -> Simulation:
    """A Photon that was given a key for UDP: it copies a part of that out of its slot."""
    world = make_world(firmware="photon-1.4", server="legacy")
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.connect()
    c.nonce()
    header = bytes.fromhex("30819f300d06092a864886f70d010101050003818d0030818902818100")
    offered = b"\x77\x02\x01\x01\x04\x20" + bytes(122)
    inside = c.nonce_bytes + device.device_id + header + offered + b"\x02\x03\x01\x00\x01"
    c.tcp.send("device", device.trusts.seal(inside, c.random), after=0.001, label="identity")
    c.offer()
    cannot_use_offer(c, WRONG_KEY)
    return finish(world)


@cache
def played(name: str) -> Simulation:
    return _elliptic() if name == "elliptic" else simulate(name)


@cache
def keys_of(name: str) -> KeyRing:
    story = played(name)
    with tempfile.TemporaryDirectory() as folder:
        return key_folder(story, Path(folder))


@cache
def said(name: str, *, keys: bool) -> Trace:
    """The verdict on a story."""
    return said_of(name, played(name).packets, keys=keys)


def said_of(name: str, packets: Sequence[Packet], *, keys: bool) -> Trace:
    """The verdict on what a capture has of it."""
    story = played(name)
    return unlock(captured(packets, story.link_type), keys_of(name) if keys and story.keys else None)


def doubt(trace: Trace, code: str) -> int:
    """How unsure this code is: 0 certain, and one more than a hint when it is not said at all."""
    told = (CONFIDENCE_ORDER.index(f.confidence) for f in trace.findings if f.code == code)
    return min(told, default=len(CONFIDENCE_ORDER))


def true_of(name: str) -> frozenset[str]:
    if name == "elliptic":
        return frozenset(("SPK206", "SPK301", "SPK305"))
    truth = TRUE.get(name)
    return truth.bare | truth.keyed if truth is not None else frozenset()


def test_no_code_is_missing_from_the_table() -> None:
    assert set(ROWS) == set(FINDINGS)
    assert [code for code, rows in ROWS.items() if not rows] == ["SPK307"], "it has tests of its own, below"


def test_only_findings_about_files_or_the_capture_have_no_damage() -> None:
    spared: Iterable[str] = {code for code, rows in ROWS.items() for row in rows if isinstance(row.damage, str)}
    assert all(code.startswith("SPK7") for code in spared)


@pytest.mark.parametrize(("code", "row"), EVERY)
def test_the_capture_that_has_it(code: str, row: Row) -> None:
    assert code in codes(said(row.trigger, keys=row.keys))


@pytest.mark.parametrize(("code", "row"), EVERY)
def test_the_near_miss_that_has_not(code: str, row: Row) -> None:
    assert code not in codes(said(row.near_miss, keys=row.keys))


@pytest.mark.parametrize(("code", "row", "name"), DAMAGED)
def test_damage_makes_it_less_sure_and_nothing_else_of_it(code: str, row: Row, name: str) -> None:
    assert isinstance(row.damage, dict)
    spoiled = row.damage[name](played(row.trigger).packets)
    assert spoiled != played(row.trigger).packets
    whole, less = said(row.trigger, keys=row.keys), said_of(row.trigger, spoiled, keys=row.keys)
    assert doubt(less, code) > doubt(whole, code)
    assert alarms(less) <= alarms(whole) | true_of(row.trigger)


@pytest.mark.parametrize(
    ("name", "spoil", "reasons"),
    [
        ("core-a.der", lambda data: data, ()),
        ("core-a.der", lambda data: data[:400], ("truncated",)),
        ("core-a.der", lambda data: b"\xff" * 612, ("blank",)),
        ("server.pub.pem", lambda data: b"<html><body>404</body></html>", ("html",)),
    ],
    ids=["whole", "cut", "erased", "web page"],
)
def test_307_is_about_files(name: str, spoil: Callable[[bytes], bytes], reasons: tuple[str, ...]) -> None:
    assert inspect_key_file(spoil((KEYS / name).read_bytes()), name).reasons == reasons
