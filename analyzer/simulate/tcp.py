"""TCP as it passes one capture point: sequence numbers, acknowledgements and times that fit together.

A `TcpSession` says what the two ends do, step by step. The capture point has a distance (a round-trip time) to each
end, and no packet can acknowledge what has not had the time to arrive: an analyzer that reasons about times must
find true ones.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from analyzer.catalogue import SPARK_PORT
from analyzer.simulate.wire import Host, Packet, Sender, Wire

DELAYED_ACK: Final = 0.04
"""Seconds that an end waits for data to send along before it acknowledges with an empty segment."""
SYN_RETRIES: Final = (1.0, 2.0, 4.0)
"""Gaps in seconds between the repetitions of an unanswered SYN: doubling, as everywhere."""
RETRANSMISSIONS: Final = (0.3, 0.6, 1.2, 2.4)
"""Gaps in seconds between the repetitions of data that nobody acknowledges."""

_SEQUENCE_SPACE: Final = 1 << 32
_IP_AND_TCP: Final = {4: 40, 6: 60}
_ETHERNET_PAYLOAD: Final = 1500


@dataclass(slots=True)
class _End:
    host: Host
    port: int
    next: int
    """Sequence number of the next byte to send."""
    stream: bytearray = field(default_factory=bytearray)
    heard: int = 0
    """Highest acknowledgement number that this end has sent."""
    coming: list[tuple[float, int]] = field(default_factory=list)
    """(time from which a packet of this end can acknowledge it, acknowledgement number)."""
    ready: float = 0.0
    """When everything that the peer has sent can have been answered."""
    last: float = 0.0
    """When this end sent last."""
    hole: int | None = None
    """First sequence number of this end that did not get through."""


class TcpSession:
    """One TCP connection, told step by step.

    Each step takes `after`, the seconds that the sender waits after it has received all there is and sent
    its last segment (so 0 is "at once"), or `at`, a moment of the simulation. Pending acknowledgements go
    out by themselves.
    """

    def __init__(
        self,
        wire: Wire,
        device: Host,
        server: Host,
        *,
        start: float,
        device_port: int,
        server_port: int = SPARK_PORT,
        isn: tuple[int, int] = (1000, 2000),
        mss: int | None = None,
    ) -> None:
        self.wire = wire
        self.now = start
        self.start = start
        version = 6 if wire.ipv6 else 4
        self.mss = mss or _ETHERNET_PAYLOAD - _IP_AND_TCP[version]
        self.ends: dict[Sender, _End] = {
            "device": _End(device, device_port, isn[0] % _SEQUENCE_SPACE, ready=start, last=start),
            "server": _End(server, server_port, isn[1] % _SEQUENCE_SPACE, ready=start, last=start),
        }
        wire.endings.append(self.settle)

    # -- opening -----------------------------------------------------------------------------------

    def connect(self) -> None:
        """SYN, SYN-ACK, ACK."""
        device, server = self.ends["device"], self.ends["server"]
        self.syn()
        self._emit("server", self.now + server.host.distance, "SA", label="syn-ack", advance=1)
        self._hear("device", self.now, server.next)
        self._emit("device", self.now + device.host.distance, "A", label="ack")
        server.ready = self.now + server.host.distance

    def syn(self, retries: Iterable[float] = ()) -> Packet:
        """Send the SYN, and its repetitions after the given gaps in seconds."""
        device, server = self.ends["device"], self.ends["server"]
        packet = self._emit("device", self.now, "S", label="syn", advance=1)
        self._hear("server", self.now, device.next)
        server.heard = device.next
        server.coming.clear()
        for gap in retries:
            self._emit("device", self.now + gap, "S", seq=device.next - 1, label="syn")
        return packet

    def refuse(self, ttl: int | None = None) -> None:
        """SYN, answered by RST: nothing listens there."""
        self.syn()
        server = self.ends["server"]
        self._emit("server", self.now + server.host.distance, "RA", seq=0, label="rst", ttl=ttl)

    # -- data --------------------------------------------------------------------------------------

    def send(
        self,
        sender: Sender,
        data: bytes,
        *,
        after: float = 0.0,
        at: float | None = None,
        cut: Sequence[int] = (),
        spacing: float = 0.0002,
        delivered: bool = True,
        label: str = "data",
    ) -> float:
        """Send data, in segments cut at the given offsets (and at the MSS), `spacing` seconds apart.

        With `delivered=False` it passes the capture point but never arrives. Returns the time of the last
        segment.
        """
        end = self.ends[sender]
        moment = self._moment(sender, after, at)
        borders = sorted({0, len(data), *(c for c in cut if 0 < c < len(data))})
        pieces = [data[a:b] for a, b in itertools.pairwise(borders)]
        for piece in pieces:
            for offset in range(0, len(piece), self.mss):
                segment = piece[offset : offset + self.mss]
                first = end.next
                end.stream += segment
                self._emit(sender, moment, "PA", segment, label=label, advance=len(segment))
                self._arrive(sender, moment, first, delivered)
                moment += spacing
        return self.now

    def retransmit(
        self,
        sender: Sender,
        count: int,
        gaps: Iterable[float] = RETRANSMISSIONS,
        *,
        delivered: bool = False,
        label: str = "retransmission",
    ) -> None:
        """Send the last `count` bytes again after each gap in seconds; `delivered`: the last copy arrives."""
        end = self.ends[sender]
        payload = bytes(end.stream[-count:])
        first = (end.next - count) % _SEQUENCE_SPACE
        gaps = list(gaps)
        for number, gap in enumerate(gaps):
            moment = self._moment(sender, 0.0, max(self.now, end.last + gap))
            self._emit(sender, moment, "PA", payload, seq=first, label=label)
            if delivered and number == len(gaps) - 1:
                end.hole = None
                self._arrive(sender, moment, first, True)

    def overlap(self, sender: Sender, old: int, data: bytes, *, after: float = 0.0, label: str = "data") -> None:
        """One segment that repeats the last `old` bytes and goes on with new ones."""
        end = self.ends[sender]
        moment = self._moment(sender, after, None)
        first = (end.next - old) % _SEQUENCE_SPACE
        payload = bytes(end.stream[-old:]) + data
        end.stream += data
        self._emit(sender, moment, "PA", payload, seq=first, label=label)
        end.next = (end.next + len(data)) % _SEQUENCE_SPACE
        self._arrive(sender, moment, first, True)

    def keepalive(self, sender: Sender, *, after: float = 0.0, at: float | None = None) -> None:
        """Send a TCP keep-alive probe: no data, sequence number one too low; the peer answers at once."""
        end, peer = self.ends[sender], self._peer(sender)
        moment = self._moment(sender, after, at)
        self._emit(sender, moment, "A", seq=end.next - 1, label="keep-alive")
        other: Sender = "server" if sender == "device" else "device"
        self._emit(other, moment + peer.host.distance, "A", label="ack")

    def acknowledge(self, sender: Sender) -> None:
        """Acknowledge now what has arrived, not when the delay is over."""
        end = self.ends[sender]
        if end.coming:
            self._emit(sender, max(self.now, end.coming[-1][0]), "A", label="ack")

    def forget(self, sender: Sender) -> None:
        """Leave unacknowledged what this end still had to acknowledge: it is gone."""
        self.ends[sender].coming.clear()

    # -- ending ------------------------------------------------------------------------------------

    def fin(self, sender: Sender, *, after: float = 0.0, at: float | None = None) -> None:
        """One FIN."""
        end = self.ends[sender]
        moment = self._moment(sender, after, at)
        first = end.next
        self._emit(sender, moment, "FA", label="fin", advance=1)
        self._arrive(sender, moment, first, True)

    def rst(self, sender: Sender, *, after: float = 0.0, at: float | None = None, ttl: int | None = None) -> None:
        """One RST; with a `ttl` of its own it comes from a box in between."""
        moment = self._moment(sender, after, at)
        self._emit(sender, moment, "RA", label="rst", ttl=ttl)
        for end in self.ends.values():
            end.coming.clear()

    def close(self, first: Sender, *, after: float = 0.0, at: float | None = None, answer: float = 0.0) -> None:
        """FIN, the other end's FIN `answer` seconds after it has that, and the last acknowledgement."""
        second: Sender = "server" if first == "device" else "device"
        self.fin(first, after=after, at=at)
        self.fin(second, after=answer)
        self.acknowledge(first)

    def silence(self, seconds: float) -> None:
        """Nobody sends anything new for this long; what is owed is still acknowledged."""
        until = self.now + seconds
        self._acknowledge_until(until)
        self.now = until

    def settle(self) -> None:
        """Send the acknowledgements that are still owed."""
        self._acknowledge_until(float("inf"))

    # -- the rules of TCP --------------------------------------------------------------------------

    def _peer(self, sender: Sender) -> _End:
        return self.ends["server" if sender == "device" else "device"]

    def _moment(self, sender: Sender, after: float, at: float | None) -> float:
        end = self.ends[sender]
        moment = max(self.now, max(end.ready, end.last) + after) if at is None else at
        if moment < self.now:
            raise ValueError(f"{moment:.6f} s is before the last packet of the connection, {self.now:.6f} s")
        self._acknowledge_until(moment)
        return moment

    def _arrive(self, sender: Sender, moment: float, first: int, delivered: bool) -> None:
        """Note what the peer can acknowledge, and from when on: nothing behind a hole."""
        end = self.ends[sender]
        if not delivered:
            end.hole = first if end.hole is None else end.hole
            return
        other: Sender = "server" if sender == "device" else "device"
        self._hear(other, moment, end.next if end.hole is None else end.hole)

    def _hear(self, listener: Sender, moment: float, acknowledgement: int) -> None:
        end = self.ends[listener]
        from_when = moment + end.host.distance
        end.coming.append((from_when, acknowledgement))
        end.ready = max(end.ready, from_when)

    def _acknowledge_until(self, until: float) -> None:
        while True:
            owing = [
                (end.coming[0][0] + DELAYED_ACK, sender)
                for sender, end in self.ends.items()
                if end.coming and end.coming[0][0] + DELAYED_ACK < until
            ]
            if not owing:
                return
            moment, sender = min(owing)
            self._emit(sender, max(self.now, moment), "A", label="ack")

    def _emit(
        self,
        sender: Sender,
        moment: float,
        flags: str,
        payload: bytes = b"",
        *,
        seq: int | None = None,
        label: str,
        advance: int = 0,
        ttl: int | None = None,
    ) -> Packet:
        end, peer = self.ends[sender], self._peer(sender)
        while end.coming and end.coming[0][0] <= moment + 1e-9:
            end.heard = end.coming.pop(0)[1]
        opening = "S" in flags
        segment = self.wire.layers.tcp(
            end.port,
            peer.port,
            flags=flags,
            seq=(end.next if seq is None else seq) % _SEQUENCE_SPACE,
            ack=end.heard % _SEQUENCE_SPACE if "A" in flags else 0,
            window=end.host.window,
            payload=payload,
            mss=self.mss if opening else None,
        )
        packet = self.wire.send(moment, end.host, peer.host, segment, sender=sender, label=label, ttl=ttl)
        end.next = (end.next + advance) % _SEQUENCE_SPACE
        end.last = self.now = moment
        return packet


def initial_sequence_numbers(randomness: random.Random) -> tuple[int, int]:
    """One for each end."""
    return randomness.getrandbits(32), randomness.getrandbits(32)
