"""The rules on captures that nobody tuned them to: random networks, random captures of them, random cuts.

Over a working session nothing critical or major may be said, whatever the capture lost; over a failing one the
right code, or nothing. False alarms are worse than misses.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from judging import BAD, NAMES, alarms, captured, cut_short, one_direction, shipped, truth, verdict

from analyzer.simulate import FIRMWARES, LINK_TYPES, Packet, Simulation, SimulationError, TcpSession, damage
from analyzer.simulate import simulate as play

REFUSED, NOT_USED = {"SPK204"}, {"SPK206", "SPK207"}
UPDATE = {"SPK601", "SPK602"}

# What may be called critical or major, by what is true. Codes that need a key have their keyless form here.
WORKING = (
    *(
        "healthy",
        "healthy-idle",
        "keepalive-slow",
        "id-wraps",
        "ota-complete",
        "ota-chunk-again",
        "split-identity-fine",
    ),
    *("slow-hello", "slow-handshake", "planned-reconnects", "seq-wrap", "port-reuse", "background"),
    *("coap-tcp", "tls-client", "dns-fallback-works"),
)
FAILING: tuple[tuple[set[str], tuple[str, ...]], ...] = (
    (NOT_USED, ("key-mismatch", "bad-signature", "dead-key", "old-session-key", "short-integer")),
    (REFUSED, ("wrong-server-key", "unknown-device", "worked-then-fails", "server-closes-late")),
    ({"SPK101"}, ("port-blocked", "blocked-icmp")),
    ({"SPK101"}, ("dns-second-try", "local-server-blocked", "cloud-unreachable", "no-internet")),
    ({"SPK101", "SPK105"}, ("dns-failed", "dns-unanswered")),
    ({"SPK101", "SPK106"}, ("server-moved", "name-astray", "other-than-looked-up")),
    ({"SPK102"}, ("refused", "reset-after-accept")),
    ({"SPK103"}, ("http-portal", "ssh-banner", "tls-service")),
    ({"SPK104"}, ("closed-after-accept", "no-nonce", "no-nonce-ping", "late-nonce")),
    ({"SPK201"}, ("short-nonce", "long-nonce")),
    ({"SPK202"}, ("device-silent",)),
    ({"SPK203", "SPK204"}, ("split-identity", "wrong-identity-size")),
    ({"SPK205"}, ("wrong-reply-size",)),
    ({"SPK208"}, ("hello-unanswered",)),
    ({"SPK501"}, ("framing-lost",)),
    ({"SPK503"}, ("keepalive-lost",)),
    ({"SPK505"}, ("reply-lost",)),
    (UPDATE, ("ota-gives-up", "ota-stalls")),
)
STORIES: dict[str, set[str]] = {name: set() for name in WORKING}
STORIES |= {name: codes for codes, names in FAILING for name in names}
BY_VERDICT: dict[str, set[str]] = {
    "device_key_mismatch": NOT_USED,
    "bad_server_signature": NOT_USED,
    "mixed": NOT_USED,
    "wrong_server_key_on_device": REFUSED,
    "unknown_device": REFUSED,
    "no_nonce": {"SPK104"},
    "not_a_spark_cloud": {"SPK103"},
    "port_blocked": {"SPK101"},
    "keepalive_lost": {"SPK503"},
    "ota_failed": UPDATE,
}


def allowed(name: str) -> set[str]:
    return BY_VERDICT.get(truth(name)["correct_analysis"]["verdict"], set())


# -- a network that loses and cuts packets ----------------------------------------------------------------------


@contextmanager
def bad_network(chance: random.Random, *, loss: float, split: float) -> Iterator[None]:
    """Let segments get lost (on either side of the capture point) and be sent again, or come in two pieces."""
    honest = TcpSession.send

    def send(self: TcpSession, sender: Any, data: bytes, **options: Any) -> float:
        label = options.get("label", "data")
        if label not in ("nonce", "identity") and len(data) > 1 and chance.random() < split:
            options["cut"] = [chance.randrange(1, len(data))]  # pieces of message 2 mean something (SPK203)
        if not options.get("delivered", True) or chance.random() >= loss or len(data) > self.mss or options.get("cut"):
            return honest(self, sender, data, **options)
        unseen = chance.random() < 0.5
        honest(self, sender, data, **{**options, "delivered": False, "label": "unseen" if unseen else label})
        tries = 1 if chance.random() < 0.8 else 2
        gaps = [max(0.25, 1.5 * sum(end.host.distance for end in self.ends.values())) * 2**n for n in range(tries)]
        self.retransmit(sender, len(data), gaps, delivered=True, label=label)
        return self.now

    with patch.object(TcpSession, "send", send):
        yield


def story(chance: random.Random, name: str) -> Simulation | None:
    """Play a story with random parties, on a random network; None where these do not go together."""
    loss, split = chance.choice(((0.0, 0.0), (0.02, 0.1), (0.05, 0.3)))
    if name == "reply-lost":
        loss = 0.0
    with bad_network(chance, loss=loss, split=split):
        try:
            return play(
                name,
                seed=1,
                firmware=chance.choice(tuple(FIRMWARES)),
                server=chance.choice(("legacy", "community", None)),
                link=chance.choice(tuple(LINK_TYPES)),
                rtt=chance.choice((0.001, 0.02, 0.05, 0.2, 0.6)),
                isn=chance.choice((None, None, (0xFFFFFF80, 0xFFFFFFF0), (0xFFFFFE00, 0xFFFFFE80))),
            )
        except (SimulationError, ValueError):
            return None  # not a story of this firmware, or its timers leave no room for so slow a network


def capture(chance: random.Random, packets: Sequence[Packet]) -> tuple[list[Packet], list[str]]:
    """What a random capture holds of it, and what was done to it."""
    kept = [p for p in packets if p.label != "unseen"]
    done = chance.sample(
        ("copies", "interfaces", "reorder", "lose", "cut", "front", "back", "way"), chance.choice((0, 1, 1, 2))
    )
    for what in done:
        moment = chance.randrange(kept[0].time_ns, kept[-1].time_ns + 1) if kept else 0
        side = chance.choice(("device", "server"))
        if what == "copies":
            kept = damage.duplicate(kept, chance.choice(("same", "routed")))
        elif what == "interfaces":
            kept = damage.two_interfaces(kept, delay=chance.choice((0.0004, 0.01)))
        elif what == "reorder":
            kept = damage.reorder(kept)
        elif what == "lose":
            kept = [p for p in kept if chance.random() > chance.choice((0.01, 0.05))]
        elif what == "cut":
            kept = damage.snaplen(kept, chance.randrange(54, 400))
        elif what == "front":
            kept = [p for p in kept if p.time_ns >= moment]
        elif what == "back":
            kept = [p for p in kept if p.time_ns <= moment]
        else:
            kept = [p for p in kept if p.sender in {side, ""}]
    return kept, done


def wrong_claims(seed: int, name: str) -> list[str]:
    """Critical and major findings that are not true of this story."""
    chance = random.Random(f"campaign/{seed}/{name}")
    told = story(chance, name)
    if told is None:
        return []
    packets, done = capture(chance, told.packets)
    trace = verdict(captured(packets, told.link_type))
    return [
        f"{f.code} ({f.confidence}) in {name} {told.truth['device_implementation']}, seed {seed}, {done}: {f.summary}"
        for f in trace.findings
        if f.severity in BAD and f.code not in STORIES[name]
    ]


@pytest.mark.parametrize("name", sorted(STORIES))
def test_no_random_capture_of_a_story_leads_to_a_wrong_claim(name: str) -> None:
    assert [claim for seed in range(2) for claim in wrong_claims(seed, name)] == []


# -- the shipped captures, cut anywhere ------------------------------------------------------------------------


def steps(name: str, most: int) -> range:
    """Places in a shipped capture, spread over it."""
    return range(1, len(shipped(name)), max(1, len(shipped(name)) // most))


@pytest.mark.parametrize("name", NAMES)
def test_a_capture_that_begins_or_ends_anywhere_leads_to_no_wrong_claim(name: str) -> None:
    packets = shipped(name)
    for place in steps(name, 30):
        assert alarms(verdict(packets[place:])) <= allowed(name), f"begins after packet {place}"
        assert alarms(verdict(packets[:place])) <= allowed(name), f"ends after packet {place}"


@pytest.mark.parametrize("name", NAMES)
def test_a_packet_that_was_not_captured_leads_to_no_wrong_claim(name: str) -> None:
    packets = shipped(name)
    for place in steps(name, 60):
        trace = verdict((*packets[: place - 1], *packets[place:]))
        assert alarms(trace) <= allowed(name), f"without packet {place}"


@pytest.mark.parametrize("name", NAMES)
def test_packets_that_were_cut_short_lead_to_no_wrong_claim(name: str) -> None:
    for limit in (54, 56, 62, 68, 72, 90, 94, 96, 128, 200, 300, 310, 400):
        assert alarms(verdict(cut_short(shipped(name), limit))) <= allowed(name), f"snaplen {limit}"


@pytest.mark.parametrize("from_server", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_one_direction_alone_leads_to_no_wrong_claim(name: str, from_server: bool) -> None:
    kept = one_direction(shipped(name), from_server=from_server)
    for place in range(0, len(kept), max(1, len(kept) // 8)):
        assert alarms(verdict(kept[place:])) <= allowed(name), f"begins after packet {place}"
