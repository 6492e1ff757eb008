"""What the targets begin with: packets of the shipped captures and of a few simulated stories, and their keys."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from judging import captured, shipped

from analyzer.capture.packet import Packet
from analyzer.keys import Key, KeyRing
from analyzer.simulate import simulate

__all__ = ["CAPTURES", "KEYS", "ROOT", "first_packets", "key", "ring", "shipped", "story"]
ROOT: Final = Path(__file__).resolve().parent.parent.parent
CAPTURES: Final = ROOT / "captures"
KEYS: Final = CAPTURES / "keys"


def first_packets(name: str, count: int) -> tuple[Packet, ...]:
    """The first packets of a shipped capture."""
    return shipped(name)[:count]


@cache
def story(name: str, **options: object) -> tuple[Packet, ...]:
    """The packets of a simulated story."""
    told = simulate(name, **options)  # type: ignore[arg-type]
    return tuple(captured(told.packets, told.link_type))


@cache
def ring() -> KeyRing:
    """All keys of the shipped captures."""
    return KeyRing.load(KEYS)


@cache
def key(name: str) -> Key:
    """One of them, by its file."""
    return KeyRing.load(KEYS / name).files[0].parts[0].key
