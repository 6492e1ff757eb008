"""What the analyzer makes of a capture when every TCP conversation in it is taken for a device's, whatever its port."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from analyzer.capture import Capture, CaptureFile
from analyzer.conversation import Conversation
from analyzer.network import Decoder
from analyzer.network.units import Segment
from analyzer.pipeline import Analysis
from analyzer.streams import Hole, Sender
from analyzer.trace import Trace
from zoo.shark import Address, Pieces, joined

ALL_PORTS: Final = range(65_536)


@dataclass(slots=True)
class Talk:
    """One TCP conversation: its two ends, what each of them sent, and the packets that brought it."""

    conversation: Conversation
    ends: tuple[Address, Address]
    sent: tuple[Pieces, Pieces] = field(default_factory=lambda: ([], []))
    packets: set[int] = field(default_factory=set)

    def receive(self, sender: Sender, data: bytes, packet: int, time_ns: int) -> None:
        """Take the next bytes of one direction."""
        self.sent[sender is Sender.SERVER].append(data)
        self.packets.add(packet)

    def skip(self, sender: Sender, hole: Hole) -> None:
        """Take note of missing bytes."""
        self.sent[sender is Sender.SERVER].append(hole.length)


@dataclass(slots=True)
class Seen:
    """One packet: when, how long, of which link layer, and what it said if it was one of TCP's.

    ``said`` is sequence number, acknowledgement, flags and length; ``sender`` who said it.
    """

    time_ns: int
    captured: int
    length: int
    link_type: int
    said: tuple[int, int, int, int] | None
    sender: Address | None


@dataclass(slots=True)
class Ours:
    """All that the analyzer makes of one capture."""

    packets: dict[int, Seen]
    talks: list[Talk]
    trace: Trace
    file: CaptureFile
    put_together: int
    """Datagrams that came in fragments."""


def look(path: Path) -> Ours:
    """Analyse a capture as the product does, with a tap on each conversation. Raises CaptureError."""
    talks: list[Talk] = []

    def begun(conversation: Conversation) -> None:
        device, server = conversation.device, conversation.server
        talk = Talk(conversation, ((device.address, device.port), (server.address, server.port)))
        conversation.tap = talk
        talks.append(talk)

    analysis = Analysis(ports=ALL_PORTS, begun=begun)
    decoder, packets = Decoder(), {}
    capture = Capture([path])
    analysis.trace.captures = capture.files
    for packet in capture:
        unit = decoder.decode(packet)
        said = sender = None
        if isinstance(unit, Segment):
            said = unit.seq, unit.ack, unit.flags, unit.length
            sender = unit.source, unit.source_port
        seen = Seen(packet.time_ns, len(packet.data), packet.original_length, packet.link_type, said, sender)
        packets[packet.number] = seen
        analysis.take(packet)
    trace = analysis.finish()
    for talk in talks:
        talk.sent = joined(talk.sent[0]), joined(talk.sent[1])
    return Ours(packets, talks, trace, capture.files[0], decoder.put_together)
