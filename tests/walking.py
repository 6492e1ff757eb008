"""Whether a capture goes the way that a ladder of the table draws: read from the packets, not by the rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from analyzer.capture.packet import Packet
from analyzer.findings.model import Act, LadderStep
from analyzer.findings.steps import LOGIN
from analyzer.network import Decoder
from analyzer.network.units import ACK, FIN, RST, SYN, Datagram, Segment
from analyzer.streams import Sender

NS = 1_000_000_000
TIMER = 0.06
"""How far a timer may seem off, in parts of itself."""
ROUND_TRIP = 0.5
"""Seconds that a round trip may add."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing on the wire, in the words of a ladder; ``device`` is the address it is to or from."""

    act: Act
    sender: Sender | None
    seconds: float
    size: int = 0
    device: bytes = b""


def events_of(packets: Iterable[Packet], ports: Sequence[int]) -> list[Event]:
    """Everything that the packets show, of all connections together, in order."""
    decoder = Decoder()
    found: list[Event] = []
    due: dict[tuple[bytes, int, bytes, int], int] = {}
    for packet in packets:
        unit, at = decoder.decode(packet), packet.time_ns / NS
        if isinstance(unit, Segment):
            found += _of_segment(unit, at, ports, due)
        elif isinstance(unit, Datagram):
            if unit.target_port == 53:
                found.append(Event(Act.LOOKUP, Sender.DEVICE, at, 0, unit.source))
            elif unit.target_port in ports:
                found.append(Event(Act.ANNOUNCE, Sender.DEVICE, at, unit.length, unit.source))
        else:
            found.append(Event(Act.SEALED, None, at))
    return found


def _of_segment(
    unit: Segment, at: float, ports: Sequence[int], due: dict[tuple[bytes, int, bytes, int], int]
) -> Iterable[Event]:
    if not {unit.source_port, unit.target_port} & set(ports):
        return []
    sender = Sender.SERVER if unit.source_port in ports else Sender.DEVICE
    device = unit.source if sender is Sender.DEVICE else unit.target
    way = (unit.source, unit.source_port, unit.target, unit.target_port)
    end = unit.seq + unit.length + bool(unit.flags & SYN)
    told: list[tuple[Act, int]] = []
    if unit.flags & SYN:
        told.append((Act.CONNECTED if unit.flags & ACK else Act.CONNECT, 0))
    elif unit.length and (unit.seq > due.get(way, unit.seq) or len(unit.payload) < unit.length):
        told.append((Act.HOLE, 0))
    due[way] = max(end, due.get(way, end))
    # A probe that a connection still lives repeats one byte at most.
    if unit.length > 1:
        told += [(Act.BYTES, size) for size in _frames(unit.payload) or [unit.length]]
    if unit.flags & (RST | FIN):
        told.append((Act.RESET if unit.flags & RST else Act.CLOSE, 0))
    return [Event(act, sender, at, size, device) for act, size in told]


def _frames(data: bytes) -> list[int]:
    """The sizes of the messages that fill a packet, when several do."""
    sizes, at = [], 0
    while at < len(data):
        sizes.append(2 + int.from_bytes(data[at : at + 2], "big"))
        at += sizes[-1]
    return sizes if at == len(data) and all(size % 16 == 2 and size > 2 for size in sizes) else []


def walk(ladder: Sequence[LadderStep], events: Sequence[Event]) -> frozenset[int] | None:
    """Return the places of the steps that are there, in their order, or None when one is missing that must be.

    The steps are those of one device, or else of all together. As many as possible of those that need not be there
    are found.
    """
    own = [[event for event in events if event.device == device] for device in {event.device for event in events}]
    found = [steps for some in (events, *own) if (steps := _walk(ladder, some)) is not None]
    return max(found, key=len, default=None)


def _walk(ladder: Sequence[LadderStep], events: Sequence[Event]) -> frozenset[int] | None:
    steps = [(place, step) for place, whole in enumerate(ladder) for step in _in_full(whole)]
    end = events[-1].seconds if events else 0.0
    # In a login each byte has its row; in a session any number of messages may stand between two rows.
    in_login = not {step.act for step in ladder} & {Act.LOGGED_IN, Act.MESSAGES}

    @cache
    def rest(at: int, last: int, silent: Sender | str | None) -> frozenset[int] | None:
        """What can be found of the steps from ``at`` on, behind event ``last``, with the silence that must reign."""
        if at == len(steps):
            return frozenset() if _quiet(events[last + 1 :], silent) else None
        place, step = steps[at]
        found = []
        if step.sometimes and (without := rest(at + 1, last, silent)) is not None:
            found.append(without)
        if step.act is Act.SILENCE:
            if step.wait is not None and at + 1 == len(steps) and end - events[last].seconds < step.wait[0]:
                return None
            after = rest(at + 1, last, step.sender or "both")
            return None if after is None else max([*found, after | {place}], key=len)
        since = events[last].seconds if last >= 0 else None
        before = steps[at - 1][1] if at else None
        wait = before.wait if before is not None and before.act is Act.SILENCE and before.wait else step.wait
        for index in range(last + 1, len(events)):
            event = events[index]
            if _is(step, event) and _in_time(wait, since, event):
                after = rest(at + 1, index, None)
                if after is not None:
                    found.append(after | {place})
                    break
            if not _quiet([event], "both" if in_login and last >= 0 else silent):
                break
        return max(found, key=len) if found else None

    return rest(0, -1, None)


def _in_full(step: LadderStep) -> Sequence[LadderStep]:
    if step.act is Act.LOGGED_IN:
        return LOGIN
    if step.act is Act.MESSAGES:
        return [LadderStep(Act.BYTES, sender, sometimes=step.sometimes) for sender in (Sender.DEVICE, Sender.SERVER)]
    return [step]


def _is(step: LadderStep, event: Event) -> bool:
    return (
        step.act is event.act and step.sender in (None, event.sender) and (not step.sizes or event.size in step.sizes)
    )


def _in_time(wait: tuple[float, float] | None, since: float | None, event: Event) -> bool:
    if wait is None or since is None:
        return True
    least, most = wait
    return least * (1 - TIMER) <= event.seconds - since <= most * (1 + TIMER) + ROUND_TRIP


def _quiet(events: Iterable[Event], silent: Sender | str | None) -> bool:
    return silent is None or not any(event.act is Act.BYTES and silent in ("both", event.sender) for event in events)
