"""The packets that pass one capture point, and the hosts they come from. Times are seconds since the start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from analyzer.catalogue import PRESENCE_GROUP, SPARK_PORT
from analyzer.outfile import no_folders_at_home

Link = Literal["ethernet", "vlan", "qinq", "sll", "sll2", "raw", "null", "ipv6", "raw-ipv6"]

LINK_TYPES: Final[dict[Link, int]] = {
    "ethernet": 1,
    "vlan": 1,
    "qinq": 1,
    "sll": 113,
    "sll2": 276,
    "raw": 101,
    "null": 0,
    "ipv6": 1,
    "raw-ipv6": 101,
}
"""Link type numbers as in the header of a pcap file."""
IEEE_802_11: Final = 105
"""Link type of Wi-Fi frames as monitor mode sees them."""
NO_IP: Final = -1
"""Where IP begins in a packet in which none is to be seen."""

Sender = Literal["device", "server"]


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet of a simulated capture.

    `time_ns` counts from the Unix epoch, `data` is what the file holds, `original_length` what was on the
    wire. `sender` ("device", "server" or "" for anybody else) and `label` ("nonce", "identity", "offer",
    "frame", "syn", "ack", "fin", "rst", ...) are for those who want to damage a certain packet; `network`
    is where IP begins, `NO_IP` where none is to be seen.
    """

    time_ns: int
    data: bytes
    original_length: int
    sender: str = ""
    label: str = ""
    network: int = NO_IP
    interface: int = 0


@dataclass(slots=True)
class Host:
    """One end, or a bystander such as the router."""

    name: str
    mac: str
    address: str
    ttl: int = 64
    """As it is at the capture point."""
    distance: float = 0.0
    """Round-trip time between this host and the capture point, in seconds."""
    identification: int = 1
    """IP identification of the next packet."""
    window: int = 5840

    def next_identification(self) -> int:
        """Count up by one for each packet, never 0, which some systems use for "no number"."""
        number = self.identification
        self.identification = number % 0xFFFF + 1
        return number


class Wire:
    """The packets that pass the capture point."""

    def __init__(self, link: Link, start_ns: int) -> None:
        # scapy is slow to import and nobody who only lists scenarios needs it.
        with no_folders_at_home():
            from analyzer.simulate import packets  # noqa: PLC0415

        self.layers = packets
        self.link = link
        self.start_ns = start_ns
        self.packets: list[Packet] = []
        self.endings: list[Callable[[], None]] = []
        """What is still to be done when the story is over: acknowledgements that are owed."""

    @property
    def ipv6(self) -> bool:
        """Whether the network layer is IPv6."""
        return self.link in {"ipv6", "raw-ipv6"}

    def nanoseconds(self, time: float) -> int:
        """Seconds of the simulation as a time stamp in whole microseconds, as most capture files have."""
        return self.start_ns + round(time * 1e6) * 1000

    def send(
        self,
        time: float,
        source: Host,
        target: Host,
        above: Any,
        *,
        sender: str = "",
        label: str = "",
        ttl: int | None = None,
    ) -> Packet:
        """Put one packet on the wire at this time (as seen at the capture point)."""
        network = self.layers.ip(
            source.address,
            target.address,
            above,
            ttl=source.ttl if ttl is None else ttl,
            identification=source.next_identification(),
        )
        frame = self.layers.framed(
            self.link,
            network,
            source_mac=source.mac,
            target_mac=target.mac,
            outgoing=sender == "device",
        )
        packet = Packet(self.nanoseconds(time), frame, len(frame), sender, label, network=len(frame) - len(network))
        self.packets.append(packet)
        return packet

    def udp(
        self,
        time: float,
        source: Host,
        target: Host,
        *,
        ports: tuple[int, int],
        payload: bytes,
        label: str = "udp",
    ) -> Packet:
        """Put one datagram on the wire; `ports` are source and target."""
        return self.send(time, source, target, self.layers.udp(*ports, payload), label=label)

    def announce(self, time: float, device: Host, datagram: bytes) -> None:
        """Send the presence datagram (PROTOCOL 2.7); IPv4 only, as the firmware has it."""
        if not self.ipv6:
            group = Host("group", "01:00:5e:00:01:bb", PRESENCE_GROUP)
            ports = (SPARK_PORT, SPARK_PORT)
            self.udp(time, device, group, ports=ports, payload=datagram, label="presence")

    def prohibit(self, time: float, router: Host, packet: Packet, blamed: Host) -> None:
        """Let the router say with ICMP that it must not forward this packet."""
        self._complain(time, router, packet, blamed, prohibited=True)

    def nobody_there(self, time: float, router: Host, packet: Packet, blamed: Host) -> None:
        """Let the router say with ICMP that no machine has the address of this packet."""
        self._complain(time, router, packet, blamed, prohibited=False)

    def _complain(self, time: float, router: Host, packet: Packet, blamed: Host, *, prohibited: bool) -> None:
        complaint = self.layers.unreachable(packet.data[packet.network :], prohibited=prohibited)
        self.send(time, router, blamed, complaint, label="icmp")

    def who_has(self, time: float, asker: Host, target: Host, *, answer_after: float | None = None) -> None:
        """Ask who has an address, and let its owner answer if there is one: ARP, or neighbour discovery for IPv6; on
        plain Ethernet only.
        """
        if self.link not in {"ethernet", "ipv6"}:
            return
        build = self.layers.neighbour if self.ipv6 else self.layers.arp
        frames = [(time, build(asker.mac, asker.address, target.address))]
        if answer_after is not None:
            answer = build(target.mac, target.address, asker.address, target_mac=asker.mac)
            frames.append((time + answer_after, answer))
        for moment, frame in frames:
            self.packets.append(Packet(self.nanoseconds(moment), frame, len(frame), label="arp"))

    def finished(self) -> list[Packet]:
        """Everything in time order, after the acknowledgements that were still owed."""
        for ending in self.endings:
            ending()
        return sorted(self.packets, key=lambda packet: packet.time_ns)
