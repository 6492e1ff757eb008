"""Simulated populations: stories with random parties on random networks, random captures of them, and keys.

Everything comes from one source of randomness that the caller seeds, so a number names a capture.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from true_findings import KeySet

from analyzer.keys import KeyRing
from analyzer.simulate import FIRMWARES, LINK_TYPES, Packet, Simulation, SimulationError, TcpSession, damage
from analyzer.simulate import simulate as play

NETWORKS: Final = ((0.0, 0.0), (0.02, 0.1), (0.05, 0.3))
"""Share of segments that get lost, and of those that come in two pieces."""
DAMAGE: Final = ("copies", "interfaces", "reorder", "lose", "cut", "front", "back", "way")
STRANGER: Final = 99
"""Seed of the keys that nobody in any story holds."""


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


def story(chance: random.Random, name: str, *, seed: int = 1) -> Simulation | None:
    """Play a story with random parties, on a random network; None where these do not go together."""
    loss, split = chance.choice(NETWORKS)
    if name == "reply-lost":
        loss = 0.0
    with bad_network(chance, loss=loss, split=split):
        try:
            return play(
                name,
                seed=seed,
                firmware=chance.choice(tuple(FIRMWARES)),
                server=chance.choice(("legacy", "community", None)),
                link=chance.choice(tuple(LINK_TYPES)),
                rtt=chance.choice((0.001, 0.02, 0.05, 0.2, 0.6)),
                isn=chance.choice((None, None, (0xFFFFFF80, 0xFFFFFFF0), (0xFFFFFE00, 0xFFFFFE80))),
                attempts=TRIES if name == "retries" else None,
            )
        except (SimulationError, ValueError):
            return None  # not a story of this firmware, or its timers leave no room for so slow a network


TRIES: Final = 30
"""Attempts in the story of a device that dials for hours; 300 of them say no more."""


def capture(chance: random.Random, packets: Sequence[Packet]) -> tuple[list[Packet], list[str]]:
    """What a random capture holds of it, and what was done to it."""
    kept = [p for p in packets if p.label != "unseen"]
    done = chance.sample(DAMAGE, chance.choice((0, 1, 1, 2)))
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


@cache
def strangers(role: str) -> bytes:
    """The private key of a device or a server that plays in no story."""
    return play("healthy", seed=STRANGER).keys["server.pem" if role == "server" else "core-a.pem"]


def key_files(told: Simulation, keys: KeySet) -> dict[str, bytes]:
    """The key files that an analysis of this story is given, by name."""
    named: dict[str, Any] = told.truth["keys"]
    files: dict[str, bytes] = {}
    if keys == "other device's":
        return {"another.pem": strangers("device")}
    if keys == "other server's":
        return {"elsewhere.pem": strangers("server")}
    if not named or keys == "none":
        return files
    server = Path(named["server_private"]).name
    if keys in ("device", "all"):
        owned = sorted({Path(device["device_private"]).name for device in named["devices"].values()})
        files |= {name: told.keys[name] for name in owned if name in told.keys}
    if keys == "server public":
        public = server.replace(".pem", ".pub.pem")
        files[public] = told.keys[public]
    if keys in ("server private", "registry", "all"):
        files[server] = told.keys[server]
    if keys == "registry":
        on_file = named["server_registry"].items()
        files |= {f"{device_id}.pub.pem": told.keys[Path(path).name] for device_id, path in on_file}
    return files


def key_ring(files: dict[str, bytes], folder: Path) -> KeyRing | None:
    """Write key files into an empty folder, and read them as a user's; None without any."""
    if not files:
        return None
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return KeyRing.load(folder)
