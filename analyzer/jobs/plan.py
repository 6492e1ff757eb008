"""How the work on captures is best divided: by what is in them, which a few samples show.

Where nearly everything is other traffic, going through the file is the work, so each worker takes a range of it. Where
much is of this protocol, following the conversations is the work, so each takes those of some devices.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from itertools import islice
from typing import Final

from analyzer.capture import Capture, CaptureError
from analyzer.network.decoder import Decoder
from analyzer.network.units import Segment

SMALL: Final = 2 << 20
"""Bytes that one process has read before another one has started."""
SMALL_AND_SPARSE: Final = 64 << 20
"""The same where packets are only stepped over."""
SAMPLE: Final = 2000
"""Packets that are looked at in one file: the first ones."""
SAMPLED_FILES: Final = 4
DENSE: Final = 0.05
"""Share of the packets from which on following conversations costs more than stepping over the rest."""


class Plan(Enum):
    """Who does what."""

    ALONE = "one process does everything"
    SHARES = "each process follows the conversations of some devices"
    RANGES = "each process goes through a range of the files"


def plan(files: Mapping[str, int], ports: Collection[int]) -> Plan:
    """Return how to divide the work on files (with their sizes in bytes) among several processes."""
    size = sum(files.values())
    if size < SMALL:
        return Plan.ALONE
    if _density(list(files), ports) >= DENSE:
        return Plan.SHARES
    return Plan.RANGES if size >= SMALL_AND_SPARSE else Plan.ALONE


def _density(files: Sequence[str], ports: Collection[int]) -> float:
    """Return the share of packets to or from the ports among the first ones of some files."""
    seen = ours = 0
    for path in files[:: max(1, len(files) // SAMPLED_FILES)]:
        decoder = Decoder()
        try:
            for packet in islice(Capture([path]), SAMPLE):
                unit = decoder.decode(packet)
                seen += 1
                ours += isinstance(unit, Segment) and (unit.source_port in ports or unit.target_port in ports)
        except CaptureError:
            continue
    return ours / seen if seen else 0.0
