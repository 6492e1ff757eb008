"""One line on who the two ends of a device's connections are, where that says more than everybody knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from analyzer.conversation import Conversation
from analyzer.findings import CONFIDENCE_WORDS
from analyzer.recognition import Recognised, described
from analyzer.recognition.model import PHOTONS
from analyzer.wording import packets

FEW: Final = 2
"""More candidates than this are no help, unless one word fits them all."""
PLACES: Final = 2
"""Packets that are named for each end."""


def recognised_line(conversations: Sequence[Conversation]) -> str:
    """Return what is recognised on these connections of one device, the latest of them first; "" when nothing is."""
    known = [c.recognised for c in reversed(conversations) if c.recognised is not None]
    firmware = next((r.firmware for r in known if r.firmware is not None and _says_enough(r.firmware)), None)
    server = next((r.server for r in known if r.server is not None and r.server.only), None)
    return " ".join(_told(found) for found in (firmware, server) if found is not None)


def _says_enough(found: Recognised) -> bool:
    return found.name is not None or len(found.candidates) <= FEW or set(found.candidates) < set(PHOTONS)


def _told(found: Recognised) -> str:
    """Name the one that is left, or the few, how sure that is, and by which packets."""
    name = found.name or described(found.candidates)
    places = [n for item in found.evidence for n in item.packets[-1:]][-PLACES:]
    sure = CONFIDENCE_WORDS[found.confidence].lower()
    return f"{name[0].upper()}{name[1:]} ({sure}{', ' + packets(sorted(set(places))) if places else ''})."
