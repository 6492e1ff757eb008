"""The second reading: each packet of the conversations is written anew, and whatever else is understood and wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import IO, TYPE_CHECKING, Final

from analyzer.background import CLOUD_NAMES, LookupPacket
from analyzer.catalogue import CLOUD_NAME, SPARK_PORT
from analyzer.network import Arp, Datagram, Decoder, IcmpError, Segment, Unit
from analyzer.network.units import IPV4_SIZE
from analyzer.redaction import made
from analyzer.redaction.disguise import BROADCAST, NO_MAC, Disguise, Role
from analyzer.redaction.filler import blank
from analyzer.redaction.pcapng import PcapngWriter
from analyzer.redaction.survey import NOTE, Survey, wanted
from analyzer.streams import Sender

if TYPE_CHECKING:
    from analyzer.capture import Packet
    from analyzer.conversation import Conversation
    from analyzer.seen import Endpoint

RECOGNISED: Final = ("identity", "session", "hello", "established")
"""How far a connection must have come to be one of ours on a port of others: beyond what chance makes of it."""
ICMP_ABOUT: Final = "error messages about them"
LOOKUPS: Final = "name lookups"
ARP_QUESTIONS: Final = "ARP questions"
ANNOUNCEMENTS: Final = "announcements"
JOINS: Final = "DHCP questions"


class Rewriter:
    """Writes what the survey found out about the packets of the same capture, in the same order.

    ``written`` counts packets other than TCP by what they are, ``blanked`` TCP packets with bytes that were replaced.
    """

    def __init__(
        self, survey: Survey, writer: PcapngWriter, *, ports: Iterable[int], lookups: bool = False, shift_ns: int = 0
    ) -> None:
        """``ports`` are those of which everything is kept; of the survey's others only Spark conversations are.
        ``shift_ns`` is added to every time.
        """
        self.written: Counter[str] = Counter()
        self.blanked = 0
        self.segments = 0
        self._survey = survey
        self._writer = writer
        self._ports = frozenset(ports)
        self._shift = shift_ns
        self._lookups = lookups
        self._decoder = Decoder()
        trace = survey.trace
        self.kept = list(_ours(trace.conversations, self._ports))
        self._flows = {(*_end(c.device), *_end(c.server)) for c in self.kept}
        self._devices = {c.device.address for c in self.kept} | (set(trace.background.heard) if lookups else set())
        self._ends = self._devices | {c.server.address for c in self.kept}
        self._asked: dict[int, tuple[str, LookupPacket]] = {}
        self._announced: dict[int, bytes] = {}
        self._joined: dict[int, bytes] = {}
        if lookups:
            self._gather()
        self.disguise = self._named()

    def take(self, packet: Packet, note: bytes) -> bool:
        """Take the next packet. Return whether it was one that has a note, which is then ``note``; b"" when there are
        no more, because the file has grown since the first reading.
        """
        unit = wanted(self._decoder, packet, self._survey.trace.ports)
        if type(unit) is Segment:
            if not note:
                return False
            self._take_segment(packet, unit, note)
            return True
        if type(unit) is IcmpError:
            self._take_error(packet, unit)
        elif unit is not None and self._lookups:
            self._take_other(packet, unit)
        return False

    # -- TCP ------------------------------------------------------------------------------------------------

    def _take_segment(self, packet: Packet, segment: Segment, note: bytes) -> None:
        near, far = (segment.source, segment.source_port), (segment.target, segment.target_port)
        flows = self._flows
        # On a wanted port also what belongs to no conversation; on another one only the conversations that are ours.
        if (
            not self._ports.intersection((near[1], far[1]))
            and (*near, *far) not in flows
            and (*far, *near) not in flows
        ):
            return
        payload = self._payload(segment, note)
        self.blanked += payload != segment.payload
        name, mac = self.disguise.address, self.disguise.mac
        macs = tuple(None if own is None else mac(own) for own in (segment.source_mac, segment.target_mac))
        data = made.tcp_packet(segment, name(segment.source), name(segment.target), payload)
        self._writer.ip(self._time(packet), packet.interface, data, (macs[0], macs[1]))
        self.segments += 1

    def _payload(self, segment: Segment, note: bytes) -> bytes:
        number, offset = NOTE.unpack(note)
        plan = self._survey.plans.get(number)
        if plan is None:
            return blank(segment.payload)
        sender = Sender.DEVICE if plan.device == (segment.source, segment.source_port) else Sender.SERVER
        return plan.sides[sender].redacted(offset, segment.payload)

    # -- around them ----------------------------------------------------------------------------------------

    def _take_error(self, packet: Packet, error: IcmpError) -> None:
        if error.quoted_source_port is None or error.quoted_target_port is None:
            return
        near = (error.quoted_source, error.quoted_source_port)
        far = (error.quoted_target, error.quoted_target_port)
        if not self._flows & {(*near, *far), (*far, *near)}:
            return
        name = self.disguise.address
        ends = (name(near[0]), near[1]), (name(far[0]), far[1])
        data = made.icmp_error(name(error.reporter), error.type, error.code, *ends)
        self._write(ICMP_ABOUT, packet, data)

    def _take_other(self, packet: Packet, unit: Unit) -> None:
        name, number = self.disguise.address, packet.number
        if type(unit) is Arp:
            if unit.sender in self._ends or unit.target in self._ends:
                self._take_arp(packet, unit)
        elif type(unit) is not Datagram:
            return
        elif number in self._asked:
            asked, told = self._asked[number]
            near, far = (name(unit.source), unit.source_port), (name(unit.target), unit.target_port)
            found = None if told.found is None else [name(ip_address(a).packed, Role.SERVER) for a in told.found]
            message = made.dns_message(told.identifier, asked, told.kind, found, unread=told.unread)
            self._write(LOOKUPS, packet, made.udp_packet(near, far, message))
        elif number in self._announced:
            payload = made.presence(self.disguise.device_id(self._announced[number]))
            near, far = (name(unit.source), unit.source_port), (name(unit.target), SPARK_PORT)
            self._write(ANNOUNCEMENTS, packet, made.udp_packet(near, far, payload), unit.source_mac)
        elif number in self._joined:
            mac = self.disguise.mac(self._joined[number], vendor=True)
            self._write(JOINS, packet, made.dhcp_discover(mac))

    def _take_arp(self, packet: Packet, unit: Arp) -> None:
        sender, target = self.disguise.address(unit.sender), self.disguise.address(unit.target)
        if len(unit.sender) != IPV4_SIZE or len(unit.target) != IPV4_SIZE:
            self._write(ARP_QUESTIONS, packet, made.neighbour(unit.operation, sender, target), unit.sender_mac)
            return
        mac = self.disguise.mac(unit.sender_mac or NO_MAC)
        data = made.arp_packet(unit.operation & 3, mac, sender, target)
        self._writer.arp(self._time(packet), packet.interface, data, mac, BROADCAST)
        self.written[ARP_QUESTIONS] += 1

    def _write(self, kind: str, packet: Packet, data: tuple[bytes, int], mac: bytes | None = None) -> None:
        macs = (None, None) if mac is None else (self.disguise.mac(mac), BROADCAST)
        self._writer.ip(self._time(packet), packet.interface, data, macs)
        self.written[kind] += 1

    def _time(self, packet: Packet) -> int:
        return packet.time_ns + self._shift

    # -- what is known beforehand ---------------------------------------------------------------------------

    def _gather(self) -> None:
        """List the packets that the analysis remembers of what devices ask the network."""
        around = self._survey.trace.background
        for lookup in around.lookups.values():
            asker = ip_address(lookup.asker).packed
            if lookup.name == CLOUD_NAME or asker in self._devices:
                shown = _without_own_part(lookup.name)
                for told in lookup.packets:
                    self._asked[told.packet] = shown, told
        for heard in around.heard.values():
            for announcement in heard:
                self._announced[announcement.packet] = bytes.fromhex(announcement.device_id)
        macs = {c.device.mac for c in self.kept}
        for mac, times in around.joined.items():
            if mac in macs:
                self._joined.update((packet, mac) for packet, _ in times)

    def _named(self) -> Disguise:
        """Name devices first, then servers, each in the order of their connections: so does a redacted report."""
        trace = self._survey.trace
        asked = (ip_address(place).packed for lookup in trace.background.lookups.values() for place in lookup.places)
        ends = (end for c in trace.conversations for end in (c.device, c.server))
        met = {part for end in ends for part in (end.address, end.mac) if part is not None}
        met.update(self._survey.met, asked, trace.background.joined)
        ids = {bytes.fromhex(told.device_id) for heard in trace.background.heard.values() for told in heard}
        disguise = Disguise(met | ids)
        for c in self.kept:
            disguise.address(c.device.address, Role.DEVICE)
            if c.device.mac is not None:
                disguise.mac(c.device.mac, vendor=True)
        for c in self.kept:
            disguise.address(c.server.address, Role.SERVER)
        for address in trace.background.heard if self._lookups else ():
            disguise.address(address, Role.DEVICE)
        for asker, name in trace.background.lookups if self._lookups else ():
            if name == CLOUD_NAME:
                disguise.address(ip_address(asker).packed, Role.DEVICE)
        return disguise


def _ours(conversations: Iterable[Conversation], ports: frozenset[int]) -> Iterator[Conversation]:
    """Yield all conversations of the wanted ports, and of others those with servers that did speak our protocol."""
    logins = {_end(c.server) for c in conversations if c.kind == "spark" and c.reached in RECOGNISED}
    for c in conversations:
        if c.server.port in ports or (_end(c.server) in logins and c.kind in ("spark", "empty")):
            yield c


def notes_of(stream: IO[bytes]) -> Iterable[bytes]:
    """Yield the notes of a survey, one by one."""
    stream.seek(0)
    while block := stream.read(NOTE.size * 4096):
        for at in range(0, len(block), NOTE.size):
            yield block[at : at + NOTE.size]


def _without_own_part(name: str) -> str:
    """Return a name of the cloud with the labels in front of it replaced: in some a device has its ID."""
    if name == CLOUD_NAME:
        return name
    cloud = next((own for own in CLOUD_NAMES if name.endswith(own)), "")
    own = name.removesuffix(cloud)
    return "".join("." if char == "." else "x" for char in own) + cloud


def _end(end: Endpoint) -> tuple[bytes, int]:
    return end.address, end.port
