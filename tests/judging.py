"""What the tests of the rules share: packets in, verdict out, without files in between."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from analyzer.capture import Capture
from analyzer.capture.packet import Packet
from analyzer.catalogue import SPARK_PORT
from analyzer.findings import Finding, Severity
from analyzer.network import Decoder
from analyzer.network.units import Segment
from analyzer.pipeline import Analysis
from analyzer.simulate import Packet as SimulatedPacket
from analyzer.simulate import Simulation, World, damage, finish, simulate
from analyzer.trace import Trace

CAPTURES = Path(__file__).parent.parent / "captures"
NAMES = sorted(path.name.removesuffix(".truth.json") for path in CAPTURES.glob("*.truth.json"))
BAD = (Severity.CRITICAL, Severity.MAJOR)


def truth(name: str) -> dict[str, Any]:
    """The truth file of a shipped capture."""
    told: dict[str, Any] = json.loads((CAPTURES / f"{name}.truth.json").read_text())
    return told


@cache
def shipped(name: str) -> tuple[Packet, ...]:
    """The packets of a shipped capture."""
    return tuple(Capture([CAPTURES / truth(name)["capture"]]))


def verdict(packets: Iterable[Packet], *, ports: Iterable[int] = (SPARK_PORT,)) -> Trace:
    """Analyse packets as if they were a capture file of their own: they are numbered anew."""
    analysis = Analysis(ports=ports)
    for number, packet in enumerate(packets, 1):
        analysis.take(
            Packet(number, packet.time_ns, packet.link_type, packet.data, packet.original_length, packet.interface)
        )
    return analysis.finish()


def captured(packets: Sequence[SimulatedPacket], link_type: int) -> list[Packet]:
    """Simulated packets as a capture file would hold them."""
    return [
        Packet(number, p.time_ns, link_type, p.data, p.original_length, p.interface)
        for number, p in enumerate(packets, 1)
    ]


def judged(simulation: Simulation | World, packets: Sequence[SimulatedPacket] | None = None) -> Trace:
    """The verdict on a story, or on what a damaged capture holds of it."""
    told = finish(simulation) if isinstance(simulation, World) else simulation
    return verdict(captured(told.packets if packets is None else packets, told.link_type))


def cut_short(packets: Iterable[Packet], limit: int) -> list[Packet]:
    """What `tcpdump -s LIMIT` would have kept."""
    return [Packet(p.number, p.time_ns, p.link_type, p.data[:limit], p.original_length, p.interface) for p in packets]


def one_direction(packets: Iterable[Packet], *, from_server: bool, port: int = SPARK_PORT) -> list[Packet]:
    """What a capture point holds where only one end's packets pass; other traffic stays."""
    decode, kept = Decoder().decode, []
    for packet in packets:
        unit = decode(packet)
        ours = isinstance(unit, Segment) and port in (unit.source_port, unit.target_port)
        if not ours or (isinstance(unit, Segment) and (unit.source_port == port) == from_server):
            kept.append(packet)
    return kept


def codes(trace: Trace) -> set[str]:
    """The codes of all findings."""
    return {finding.code for finding in trace.findings}


def alarms(trace: Trace) -> set[str]:
    """The codes of the critical and major findings."""
    return {finding.code for finding in trace.findings if finding.severity in BAD}


def unchecked(trace: Trace) -> set[str]:
    """The codes that could not be checked."""
    return {item.code for item in trace.not_checked}


def the(trace: Trace, code: str) -> Finding:
    """The one finding of this code."""
    (found,) = (finding for finding in trace.findings if finding.code == code)
    return found


__all__ = [
    "BAD",
    "CAPTURES",
    "NAMES",
    "alarms",
    "captured",
    "codes",
    "cut_short",
    "damage",
    "judged",
    "one_direction",
    "shipped",
    "simulate",
    "the",
    "truth",
    "unchecked",
    "verdict",
]
