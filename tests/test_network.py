"""The decoder against packets built by scapy and read by tshark, and against bytes that mean nothing."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.contrib.erspan import ERSPAN_II
from scapy.contrib.mpls import MPLS
from scapy.layers.dot11 import Dot11, Dot11QoS
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    IPv6ExtHdrSegmentRouting,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import ARP, GRE, LLC, SNAP, CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Dot3, Ether
from scapy.layers.ppp import HDLC, PPP, PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet as ScapyPacket
from scapy.packet import Raw

from analyzer.capture.packet import Packet
from analyzer.network import (
    KNOWN_LINK_TYPES,
    Arp,
    Datagram,
    Decoder,
    IcmpError,
    Other,
    Segment,
    Unit,
    address_text,
    link_type_name,
    tcp_ports,
)
from analyzer.network import fragments as fragments_module

CAPTURES = Path(__file__).parent.parent / "captures"
DEVICE_MAC, ROUTER_MAC, RELAY_MAC = "6c:0b:84:1f:72:0d", "00:1d:7e:a0:11:5e", "00:1d:7e:a0:11:5f"
DATA = bytes(range(1, 60))  # an odd number of bytes


# --- Packets -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One packet to decode."""

    name: str
    link_type: int
    data: bytes
    missing: int = 0  # bytes that the capture cut off


def ip4(data: bytes = DATA, **fields: Any) -> ScapyPacket:
    return IP(src="192.168.1.104", dst="54.208.229.4", ttl=57, id=0x1234, **fields) / segment(data)


def ip6(data: bytes = DATA, **fields: Any) -> ScapyPacket:
    return IPv6(src="2001:db8::104", dst="2001:db8::4", hlim=58, **fields) / segment(data)


def segment(data: bytes = DATA) -> ScapyPacket:
    options = [("NOP", None), ("NOP", None), ("Timestamp", (7, 9))]
    tcp = TCP(sport=49909, dport=5683, seq=0xFFFFFFF0, ack=77, flags="PA", window=4097, options=options)
    return tcp / Raw(data) if data else tcp


def ethernet(**fields: Any) -> ScapyPacket:
    return Ether(src=DEVICE_MAC, dst=ROUTER_MAC, **fields)


def snap() -> ScapyPacket:
    return LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(code=0x800)


def raw(packet: ScapyPacket) -> bytes:
    return bytes(packet)


def build(packet: ScapyPacket) -> ScapyPacket:
    """The same packet with every computed field filled in, so that it can be changed by hand."""
    return packet.__class__(raw(packet))


WIFI_DIRECTIONS: dict[str, dict[str, Any]] = {
    "within a cell": {"FCfield": 0, "addr1": ROUTER_MAC, "addr2": DEVICE_MAC, "addr3": RELAY_MAC},
    "to the access point": {"FCfield": 1, "addr1": RELAY_MAC, "addr2": DEVICE_MAC, "addr3": ROUTER_MAC},
    "from the access point": {"FCfield": 2, "addr1": ROUTER_MAC, "addr2": RELAY_MAC, "addr3": DEVICE_MAC},
    "four addresses": {
        "FCfield": 3,
        "addr1": RELAY_MAC,
        "addr2": RELAY_MAC,
        "addr3": ROUTER_MAC,
        "addr4": DEVICE_MAC,
    },
}


def wifi(way: str = "to the access point", *, quality: bool = False) -> ScapyPacket:
    return Dot11(type=2, subtype=8 if quality else 0, **WIFI_DIRECTIONS[way])


def aggregated() -> bytes:
    """An A-MSDU of two packets."""
    inner = [raw(snap() / ip4(DATA[:size])) for size in (20, 33)]
    macs = bytes.fromhex(f"{ROUTER_MAC}{DEVICE_MAC}".replace(":", ""))
    first = macs + struct.pack("!H", len(inner[0])) + inner[0]
    second = macs + struct.pack("!H", len(inner[1])) + inner[1]
    header = raw(wifi(quality=True) / Dot11QoS(A_MSDU_Present=1))
    return header + first + bytes(-len(first) % 4) + second


def ppi(link_type: int, field: bytes, body: bytes) -> bytes:
    return struct.pack("<BBHI", 0, 0, 8 + len(field), link_type) + field + body


def high_throughput() -> bytes:
    """A QoS data frame with the HT control field."""
    frame = bytearray(raw(wifi(quality=True) / Dot11QoS()))
    frame[1] |= 0x80
    return bytes(frame) + bytes(4) + raw(snap() / ip4())


def radiotap(present: int, fields: bytes, body: bytes) -> bytes:
    return struct.pack("<BBHI", 0, 0, 8 + len(fields), present) + fields + body


def offloaded(packet: ScapyPacket) -> bytes:
    """The packet as segmentation offload shows it: no length in the IP header."""
    packet = build(packet)
    if isinstance(packet, Ether) and packet.type == 0x800:
        packet[IP].len = 0
    else:
        packet[IPv6].plen = 0
    return raw(packet)


def ah() -> ScapyPacket:
    return AH(nh=6, payloadlen=4, icv=bytes(12))


def outer() -> ScapyPacket:
    return IP(src="10.0.0.1", dst="10.0.0.2", ttl=9)


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def with_checksum(packet: ScapyPacket, field: int) -> bytes:
    packet = build(packet)
    packet[TCP].chksum = field
    return raw(packet)


def pseudo_sum(packet: ScapyPacket) -> int:
    """What a host leaves in the checksum field for its network card to complete, worked out word by word."""
    ip = packet[IP]
    tcp = raw(ip)[20:]
    words: bytes = raw(ip)[12:20] + struct.pack("!HH", 6, len(tcp))
    total: int = sum(struct.unpack(f"!{len(words) // 2}H", words))
    return (total & 0xFFFF) + (total >> 16)


def pseudo_wire(body: ScapyPacket) -> bytes:
    return raw(ethernet(type=0x8847) / MPLS(label=18, s=1)) + bytes(4) + raw(body)


WIFI_OFFLOADED = raw(wifi() / snap()) + offloaded(ethernet() / ip4())[14:]
WIFI_BODY = raw(wifi() / snap() / ip4())
QOS_BODY = raw(wifi("from the access point", quality=True) / Dot11QoS() / snap() / ip4())
FCS = b"\x12\x34\x56\x78"
COOKED_RADIOTAP = struct.pack("!HHH8sH", 4, 803, 6, mac(DEVICE_MAC) + bytes(2), 4)
PPTP_BODY = raw(HDLC() / PPP() / ip4())
ERSPAN_3 = b"\x20\x07\0\x05" + bytes(7) + b"\x01" + bytes(8)  # with the subheader of a platform

SEGMENTS = [
    Case("ethernet", 1, raw(ethernet() / ip4())),
    Case("without payload, padded", 1, raw(ethernet() / ip4(b"")) + bytes(6)),
    Case("one byte, padded", 1, raw(ethernet() / ip4(b"x")) + bytes(30)),
    Case("even length", 1, raw(ethernet() / ip4(DATA[:-1]))),
    Case("cut in payload", 1, raw(ethernet() / ip4())[:80], missing=45),
    Case("cut behind TCP header", 1, raw(ethernet() / ip4())[:66], missing=59),
    Case("cut in TCP options", 1, raw(ethernet() / ip4())[:58], missing=67),
    Case("IPv4 header checksum wrong", 1, raw(ethernet() / ip4(chksum=0x1111))),
    Case("TCP checksum wrong", 1, with_checksum(ethernet() / ip4(), 0x1111)),
    Case("TCP checksum wrong, IPv6", 1, with_checksum(ethernet() / ip6(), 0x1111)),
    Case("segmentation offload", 1, offloaded(ethernet() / ip4())),
    Case("segmentation offload, IPv6", 1, offloaded(ethernet() / ip6())),
    Case("segmentation offload, cut", 1, offloaded(ethernet() / ip4())[:100], missing=25),
    Case("VLAN", 1, raw(ethernet() / Dot1Q(vlan=5) / ip4())),
    Case("VLAN, padded", 1, raw(ethernet() / Dot1Q(vlan=5) / ip4(b"")) + bytes(9)),
    Case("three tags", 1, raw(ethernet() / Dot1AD(vlan=5) / Dot1Q(vlan=6) / Dot1Q(vlan=7) / ip4())),
    Case("old stacked tag", 1, raw(ethernet(type=0x9100) / Dot1Q(vlan=6) / Dot1Q(vlan=7) / ip6())),
    Case("PPPoE", 1, raw(ethernet() / PPPoE(sessionid=3) / PPP(proto=0x21) / ip4())),
    Case("PPPoE in VLAN, IPv6", 1, raw(ethernet() / Dot1Q(vlan=7) / PPPoE() / PPP(proto=0x57) / ip6())),
    Case("MPLS", 1, raw(ethernet(type=0x8847) / MPLS(label=17, s=0) / MPLS(label=18, s=1) / ip4())),
    Case("MPLS, IPv6", 1, raw(ethernet(type=0x8847) / MPLS(label=18, s=1) / ip6())),
    Case("MPLS pseudowire", 1, pseudo_wire(ethernet() / ip4())),
    Case("802.3 with SNAP", 1, raw(Dot3(src=DEVICE_MAC, dst=ROUTER_MAC) / snap() / ip4())),
    Case("802.3 with SNAP, padded", 1, raw(Dot3(src=DEVICE_MAC, dst=ROUTER_MAC) / snap() / ip4(b"")) + b"\0"),
    Case("IPv4 options", 1, raw(ethernet() / ip4(options=[IPOption_RR(routers=["1.2.3.4"])]))),
    Case("IPv6", 1, raw(ethernet() / ip6())),
    Case("IPv6, padded", 1, raw(ethernet() / ip6(b"")) + bytes(4)),
    Case("IPv6, cut", 1, raw(ethernet() / ip6())[:100], missing=45),
    Case(
        "IPv6 extension headers",
        1,
        raw(
            ethernet()
            / IPv6(src="2001:db8::104", dst="2001:db8::4")
            / IPv6ExtHdrHopByHop()
            / IPv6ExtHdrDestOpt()
            / IPv6ExtHdrRouting(addresses=["2001:db8::9"], segleft=0)
            / IPv6ExtHdrFragment(id=9)
            / segment()
        ),
    ),
    Case("authentication header", 1, raw(ethernet() / IP(src="10.0.0.1", dst="10.0.0.2") / ah() / segment())),
    Case("authentication header, IPv6", 1, raw(ethernet() / IPv6(dst="2001:db8::4") / ah() / segment())),
    Case("Linux cooked", 113, raw(CookedLinux(src=mac(DEVICE_MAC), lladdrlen=6) / ip4())),
    Case("Linux cooked, loopback", 113, raw(CookedLinux(src=bytes(6), lladdrlen=6, lladdrtype=772) / ip6())),
    Case("Linux cooked, VLAN", 113, raw(CookedLinux(src=mac(DEVICE_MAC), proto=0x8100) / Dot1Q() / ip4())),
    Case("Linux cooked, PPP", 113, raw(CookedLinux(lladdrlen=0, lladdrtype=512) / ip4())),
    Case("Linux cooked v2", 276, raw(CookedLinuxV2(src=mac(DEVICE_MAC), lladdrlen=6) / ip4())),
    Case("Linux cooked v2, IPv6", 276, raw(CookedLinuxV2(src=mac(DEVICE_MAC), proto=0x86DD) / ip6())),
    Case("loopback, little-endian", 0, b"\2\0\0\0" + raw(ip4())),
    Case("loopback, big-endian", 0, b"\0\0\0\2" + raw(ip4())),
    *(Case(f"loopback, IPv6 as {n}", 0, struct.pack("<I", n) + raw(ip6())) for n in (24, 28, 30)),
    Case("OpenBSD loopback", 108, b"\0\0\0\2" + raw(ip4())),
    Case("OpenBSD loopback, IPv6", 108, b"\0\0\0\x18" + raw(ip6())),
    *(Case(f"raw IP {n}", n, raw(ip4())) for n in (12, 14, 101, 228)),
    *(Case(f"raw IP {n}, IPv6", n, raw(ip6())) for n in (12, 14, 101, 229)),
    Case("PPP", 9, raw(HDLC() / PPP(proto=0x21) / ip4())),
    Case("PPP without address", 9, raw(PPP(proto=0x57) / ip6())),
    Case("PPP, compressed protocol", 9, b"\x21" + raw(ip4())),
    Case("PPP in HDLC", 50, raw(HDLC() / PPP(proto=0x21) / ip4())),
    Case("PPPoE without Ethernet", 51, raw(PPPoE(sessionid=3) / PPP(proto=0x21) / ip4())),
    Case("Cisco HDLC", 104, b"\x0f\0\x08\0" + raw(ip4())),
    *(Case(f"802.11 {way}", 105, raw(wifi(way) / snap() / ip4())) for way in WIFI_DIRECTIONS),
    Case("802.11 QoS", 105, QOS_BODY),
    Case("802.11 HT control", 105, high_throughput()),
    Case("802.11 behind radiotap", 127, radiotap(0, b"", WIFI_BODY)),
    Case("radiotap with FCS", 127, radiotap(2, b"\x10\0", QOS_BODY + FCS)),
    Case("radiotap with time, FCS", 127, radiotap(3, bytes(8) + b"\x10", QOS_BODY + FCS)),
    Case("radiotap, FCS, no IP length", 127, radiotap(2, b"\x10\0", WIFI_OFFLOADED + FCS)),
    Case(
        "radiotap, two antennas",
        127,
        radiotap(0xA0000003, struct.pack("<I", 0) + bytes(4) + bytes(8) + b"\x10", WIFI_BODY + FCS),
    ),
    Case("radiotap, padded", 127, radiotap(2, b"\x20\0", QOS_BODY[:26] + bytes(2) + QOS_BODY[26:])),
    Case("PPI", 192, ppi(105, b"", WIFI_BODY)),
    Case("PPI with FCS", 192, ppi(105, struct.pack("<HHQH8x", 2, 20, 0, 1) + bytes(2), WIFI_BODY + FCS)),
    Case("PPI, Ethernet", 192, ppi(1, b"", raw(ethernet() / ip4()))),
    Case("AVS", 163, struct.pack("!II", 0x80211001, 64) + bytes(56) + WIFI_BODY),
    Case("Prism", 119, struct.pack("<II", 0x44, 144) + bytes(136) + WIFI_BODY),
    Case("Prism as AVS", 119, struct.pack("!II", 0x80211001, 64) + bytes(56) + WIFI_BODY),
    Case("IP in IP", 1, raw(ethernet() / IP(src="10.0.0.1", dst="10.0.0.2", ttl=9) / ip4())),
    Case("IPv6 in IPv4", 101, raw(IP(src="10.0.0.1", dst="10.0.0.2", ttl=9) / ip6())),
    Case("IPv4 in IPv6", 101, raw(IPv6(src="2001:db8::1", dst="2001:db8::2", hlim=9) / ip4())),
    Case("GRE", 101, raw(outer() / GRE() / ip4())),
    Case(
        "GRE with all options",
        101,
        raw(outer() / GRE(chksum_present=1, key_present=1, seqnum_present=1) / ip6()),
    ),
    Case("GRE, Ethernet", 101, raw(outer() / GRE(proto=0x6558) / ethernet() / ip4())),
    Case("ERSPAN", 101, raw(outer() / GRE(proto=0x88BE, seqnum_present=1) / ERSPAN_II() / ethernet() / ip4())),
    Case("ERSPAN III", 101, raw(outer() / GRE(proto=0x22EB, seqnum_present=1) / Raw(ERSPAN_3) / ethernet() / ip4())),
    Case(
        "PPTP",
        101,
        raw(
            IP(src="10.0.0.1", dst="10.0.0.2", ttl=9, proto=47)
            / Raw(struct.pack("!HHHHII", 0x3081, 0x880B, len(PPTP_BODY), 7, 1, 2) + PPTP_BODY)
        ),
    ),
    Case(
        "SLL, Wi-Fi",
        113,
        struct.pack("!HHH8sH", 4, 803, 6, mac(DEVICE_MAC) + bytes(2), 4) + radiotap(0, b"", WIFI_BODY),
    ),
    Case("VXLAN", 1, raw(ethernet() / outer() / UDP(sport=9, dport=4789) / VXLAN(vni=5) / ethernet() / ip4())),
]

SEGMENTS.append(Case("checksum left to the card", 1, with_checksum(ethernet() / ip4(), pseudo_sum(ip4()))))
SEGMENTS.append(Case("checksum zero", 1, with_checksum(ethernet() / ip4(), 0)))


# --- What tshark reads -------------------------------------------------------------------------------------

FIELDS = [
    "ip.src",
    "ip.dst",
    "ip.ttl",
    "ip.id",
    "ipv6.src",
    "ipv6.dst",
    "ipv6.hlim",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.seq_raw",
    "tcp.ack_raw",
    "tcp.flags",
    "tcp.window_size_value",
    "tcp.len",
    "tcp.payload",
    "tcp.checksum.status",
    "udp.srcport",
    "udp.dstport",
    "udp.length",
    "eth.src",
    "eth.dst",
    "wlan.sa",
    "wlan.da",
]


def pcapng(packets: list[Packet]) -> bytes:
    """A capture file of these packets, of any mixture of link types: one interface for each."""

    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        size = struct.pack("<I", len(body) + 12)
        return struct.pack("<I", kind) + size + body + size

    link_types = sorted({packet.link_type for packet in packets})
    nanoseconds = struct.pack("<HHB3x", 9, 1, 9)
    blocks = [block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))]
    blocks += [block(1, struct.pack("<HHI", n, 0, 0) + nanoseconds) for n in link_types]
    for packet in packets:
        interface = link_types.index(packet.link_type)
        high, low = packet.time_ns >> 32, packet.time_ns & 0xFFFFFFFF
        head = struct.pack("<5I", interface, high, low, len(packet.data), packet.original_length)
        blocks.append(block(6, head + packet.data))
    return b"".join(blocks)


def tshark(packets: list[Packet], folder: Path) -> list[dict[str, str]]:
    """Return tshark's fields of each packet; of a field that occurs twice (tunnels), the innermost."""
    path = folder / "packets.pcapng"
    path.write_bytes(pcapng(packets))
    command = [
        "tshark",
        "-n",
        "-r",
        str(path),
        "-o",
        "tcp.check_checksum:TRUE",
        "-o",
        "ipv6.tso_support:TRUE",
    ]
    command += ["-o", "tcp.desegment_tcp_streams:FALSE", "-T", "fields", "-E", "occurrence=l"]
    for field in FIELDS:
        command += ["-e", field]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = [dict(zip(FIELDS, line.split("\t"), strict=True)) for line in output.splitlines()]
    assert len(rows) == len(packets)
    return rows


CHECKSUM_STATUS = {"0": False, "1": True, "2": None, "3": None}


def check_segment(unit: Segment, row: dict[str, str]) -> None:
    """Hold a segment to what tshark says of the same packet."""
    version = "ip" if len(unit.source) == 4 else "ipv6"
    assert address_text(unit.source) == row[f"{version}.src"]
    assert address_text(unit.target) == row[f"{version}.dst"]
    assert unit.ttl == int(row["ip.ttl" if version == "ip" else "ipv6.hlim"])
    assert unit.ip_id == (int(row["ip.id"], 16) if version == "ip" else None)
    assert (unit.source_port, unit.target_port) == (int(row["tcp.srcport"]), int(row["tcp.dstport"]))
    assert (unit.seq, unit.ack) == (int(row["tcp.seq_raw"]), int(row["tcp.ack_raw"]))
    assert (unit.flags, unit.window) == (int(row["tcp.flags"], 16), int(row["tcp.window_size_value"]))
    assert unit.length == int(row["tcp.len"])
    assert unit.payload.hex() == row["tcp.payload"]
    assert len(unit.payload) <= unit.length
    if unit.whole and unit.tcp[16:18] not in (b"\0\0", unit.header_sum.to_bytes(2, "big")):
        assert unit.checksum_good() is CHECKSUM_STATUS[row["tcp.checksum.status"]]
    else:
        assert unit.checksum_good() is None
    if row["wlan.sa"] and not row["eth.src"]:
        assert (unit.source_mac, unit.target_mac) == (mac(row["wlan.sa"]), mac(row["wlan.da"]))
    elif row["eth.src"]:
        assert (unit.source_mac, unit.target_mac) == (mac(row["eth.src"]), mac(row["eth.dst"]))


def packets_of(cases: list[Case]) -> list[Packet]:
    return [
        Packet(number, number * 10**9, case.link_type, case.data, len(case.data) + case.missing, number % 3)
        for number, case in enumerate(cases, 1)
    ]


@pytest.fixture(scope="module")
def segment_rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    return tshark(packets_of(SEGMENTS), tmp_path_factory.mktemp("segments"))


@pytest.mark.parametrize("index", range(len(SEGMENTS)), ids=[case.name for case in SEGMENTS])
def test_every_wrapping_of_tcp_reads_as_in_wireshark(index: int, segment_rows: list[dict[str, str]]) -> None:
    packet = packets_of(SEGMENTS)[index]
    unit = Decoder().decode(packet)
    assert isinstance(unit, Segment)
    assert (unit.number, unit.time_ns, unit.interface) == (packet.number, packet.time_ns, packet.interface)
    assert unit.whole is (SEGMENTS[index].missing == 0)
    check_segment(unit, segment_rows[index])


@pytest.mark.parametrize("family", [10, 23], ids=["Linux", "Windows"])
def test_loopback_knows_ipv6_of_systems_that_wireshark_does_not_expect(family: int) -> None:
    unit = decode(struct.pack("<I", family) + raw(ip6()), 0)
    assert isinstance(unit, Segment)
    assert unit.payload == DATA


def decode(data: bytes, link_type: int = 1) -> Unit:
    """What a decoder that has seen nothing else makes of one packet."""
    return Decoder().decode(Packet(1, 1, link_type, data, len(data)))


def recorded(path: Path) -> list[Packet]:
    """The packets of a pcap file."""
    data = path.read_bytes()
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    (link_type,) = struct.unpack_from(f"{order}I", data, 20)
    packets = []
    at = 24
    while at < len(data):
        seconds, fraction, captured, original = struct.unpack_from(f"{order}4I", data, at)
        time_ns = seconds * 10**9 + fraction
        packets.append(Packet(0, time_ns, link_type, data[at + 16 : at + 16 + captured], original))
        at += 16 + captured
    return packets


def test_every_packet_of_the_captures_reads_as_in_wireshark(tmp_path: Path) -> None:
    packets = [packet for path in sorted(CAPTURES.glob("*.pcap")) for packet in recorded(path)]
    assert len(packets) > 2000
    decoder = Decoder()
    segments = 0
    for packet, row in zip(packets, tshark(packets, tmp_path), strict=True):
        unit = decoder.decode(packet)
        assert isinstance(unit, Segment) is (row["tcp.srcport"] != "")
        if isinstance(unit, Segment):
            segments += 1
            check_segment(unit, row)
        elif isinstance(unit, Datagram):
            assert (unit.source_port, unit.target_port) == (int(row["udp.srcport"]), int(row["udp.dstport"]))
            assert unit.length == int(row["udp.length"]) - 8 == len(unit.payload)
        else:
            assert row["udp.srcport"] == ""
    assert segments > 2000


# --- Addresses that a card has and a wire has not ----------------------------------------------------------


@pytest.mark.parametrize("way", WIFI_DIRECTIONS)
def test_wifi_addresses_are_those_of_the_ends_not_of_the_access_point(way: str) -> None:
    unit = decode(raw(wifi(way) / snap() / ip4()), 105)
    assert isinstance(unit, Segment)
    assert (unit.source_mac, unit.target_mac) == (mac(DEVICE_MAC), mac(ROUTER_MAC))


def test_link_layers_without_addresses_have_none() -> None:
    unit = decode(raw(ip4()), 101)
    assert isinstance(unit, Segment)
    assert (unit.source_mac, unit.target_mac) == (None, None)
    unit = decode(raw(CookedLinux(src=mac(DEVICE_MAC), lladdrlen=6) / ip4()), 113)
    assert isinstance(unit, Segment)
    assert (unit.source_mac, unit.target_mac) == (mac(DEVICE_MAC), None)


# --- What is not TCP ---------------------------------------------------------------------------------------


def test_udp_keeps_what_its_own_length_says() -> None:
    frame = raw(ethernet() / IP(src="192.168.1.104", dst="224.0.1.187") / UDP(sport=9, dport=5683) / b"hi")
    unit = decode(frame + bytes(16))
    assert isinstance(unit, Datagram)
    assert (unit.source_port, unit.target_port, unit.length, unit.payload) == (9, 5683, 2, b"hi")
    assert address_text(unit.target) == "224.0.1.187"
    assert unit.source_mac == mac(DEVICE_MAC)
    cut = Decoder().decode(Packet(1, 1, 1, frame[:-1], len(frame)))
    assert isinstance(cut, Datagram)
    assert (cut.length, cut.payload) == (2, b"h")


def test_arp_tells_who_asks_for_whom() -> None:
    request = ARP(op=1, hwsrc=DEVICE_MAC, psrc="192.168.1.104", pdst="192.168.1.1")
    unit = decode(raw(ethernet() / request) + bytes(18))
    assert isinstance(unit, Arp)
    assert (unit.operation, unit.sender_mac) == (1, mac(DEVICE_MAC))
    assert (address_text(unit.sender), address_text(unit.target)) == ("192.168.1.104", "192.168.1.1")


@pytest.mark.parametrize(("kind", "code"), [(3, 1), (3, 3), (3, 13), (4, 0), (11, 0), (12, 0)])
@pytest.mark.parametrize("quoted", [28, 200])
def test_icmp_errors_quote_the_packet_that_failed(kind: int, code: int, quoted: int) -> None:
    router = IP(src="192.168.1.1", dst="192.168.1.104")
    unit = decode(raw(ethernet() / router / ICMP(type=kind, code=code) / raw(ip4())[:quoted]))
    assert isinstance(unit, IcmpError)
    assert (unit.version, unit.type, unit.code) == (4, kind, code)
    assert address_text(unit.reporter) == "192.168.1.1"
    assert (address_text(unit.quoted_source), unit.quoted_source_port) == ("192.168.1.104", 49909)
    assert (address_text(unit.quoted_target), unit.quoted_target_port) == ("54.208.229.4", 5683)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ICMPv6DestUnreach(), 1),
        (ICMPv6PacketTooBig(), 2),
        (ICMPv6TimeExceeded(), 3),
        (ICMPv6ParamProblem(), 4),
    ],
)
def test_icmpv6_errors_quote_the_packet_that_failed(error: ScapyPacket, kind: int) -> None:
    router = IPv6(src="2001:db8::1", dst="2001:db8::104")
    quoted = IPv6(src="2001:db8::104", dst="2001:db8::4") / IPv6ExtHdrDestOpt() / segment()
    unit = decode(raw(ethernet() / router / error / raw(quoted)))
    assert isinstance(unit, IcmpError)
    assert (unit.version, unit.type) == (6, kind)
    assert (address_text(unit.quoted_target), unit.quoted_target_port) == ("2001:db8::4", 5683)


ASKER, NEIGHBOUR, ROUTER6 = "fe80::1", "fd00::50", "fe80::9"


def solicitation(source: str = ASKER, hops: int = 255) -> bytes:
    return raw(ethernet() / IPv6(src=source, dst="ff02::1:ff00:50", hlim=hops) / ICMPv6ND_NS(tgt=NEIGHBOUR))


def advertisement(target: str = ASKER, hops: int = 255) -> bytes:
    return raw(ethernet() / IPv6(src=ROUTER6, dst=target, hlim=hops) / ICMPv6ND_NA(tgt=NEIGHBOUR))


@pytest.mark.parametrize(
    ("data", "operation", "sender", "target"),
    [(solicitation(), 1, ASKER, NEIGHBOUR), (advertisement(), 2, NEIGHBOUR, ASKER)],
)
def test_ipv6_neighbours_are_asked_for_and_answer_as_with_arp(
    data: bytes, operation: int, sender: str, target: str
) -> None:
    unit = decode(data)
    assert isinstance(unit, Arp)
    ends = address_text(unit.sender), address_text(unit.target)
    assert (unit.operation, *ends) == (operation, sender, target)


@pytest.mark.parametrize(
    "data",
    [
        solicitation(source="::"),
        solicitation(hops=64),
        advertisement(target="ff02::1"),
        advertisement(hops=254),
    ],
    ids=["tries an address out", "from beyond a router", "to all", "answer from beyond a router"],
)
def test_what_is_no_question_or_answer_of_a_neighbour(data: bytes) -> None:
    unit = decode(data)
    assert isinstance(unit, Other)
    assert unit.kind == "icmp"


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60), st.sampled_from((135, 136)), st.integers(0, 90))
def test_any_neighbour_message_is_read_or_counted(body: bytes, kind: int, size: int) -> None:
    above = bytes((kind, 0, 0, 0)) + body
    data = raw(ethernet() / IPv6(src=ASKER, dst=ROUTER6, hlim=255, nh=58) / Raw(above))[: 54 + size]
    unit = decode(data)
    assert isinstance(unit, Arp | Other)
    assert not isinstance(unit, Arp) or {len(unit.sender), len(unit.target)} == {16}


def test_an_icmp_error_about_a_later_fragment_has_no_ports() -> None:
    quoted = raw(IP(src="192.168.1.104", dst="54.208.229.4", frag=5, proto=6) / DATA)
    unit = decode(raw(ethernet() / IP(src="192.168.1.1") / ICMP(type=11) / quoted))
    assert isinstance(unit, IcmpError)
    assert (unit.quoted_source_port, unit.quoted_target_port) == (None, None)


PROTECTED = raw(Dot11(type=2, FCfield=0x41, addr1=ROUTER_MAC, addr2=DEVICE_MAC, addr3=ROUTER_MAC)) + DATA

OTHERS = [
    ("encrypted-wifi", 105, PROTECTED),
    ("encrypted-wifi", 127, radiotap(2, b"\x10\0", PROTECTED)),
    ("wifi-management", 105, raw(Dot11(type=0, subtype=8, addr1=ROUTER_MAC)) + DATA),
    ("wifi-management", 105, raw(Dot11(type=2, subtype=4, addr1=ROUTER_MAC))),
    ("fragment", 1, raw(ethernet() / ip4(flags="MF"))),
    ("icmp", 1, raw(ethernet() / IP() / ICMP(type=8) / DATA)),
    ("icmp", 1, raw(ethernet() / IP() / ICMP(type=3) / DATA[:10])),
    ("icmp", 1, raw(ethernet() / IPv6() / ICMPv6EchoRequest())),
    ("ip", 1, raw(ethernet() / IP(proto=89) / DATA)),
    ("ip", 1, raw(ethernet() / IP() / TCP(dataofs=4) / DATA)),
    ("ip", 1, raw(ethernet() / IP() / TCP(dataofs=15))),
    ("ip", 1, raw(ethernet() / IP(len=10) / TCP())),
    ("ip", 1, raw(ethernet() / IP(ihl=4) / TCP())),
    ("non-ip", 1, raw(ethernet(type=0x88CC)) + DATA),
    ("non-ip", 1, raw(Dot3(src=DEVICE_MAC, dst=ROUTER_MAC) / LLC(dsap=0x42, ssap=0x42, ctrl=3)) + DATA),
    ("non-ip", 1, raw(ethernet(type=0x8863)) + DATA),
    ("non-ip", 9, raw(PPP(proto=0xC021)) + DATA),
    ("fragment", 105, raw(Dot11(type=2, SC=1, **WIFI_DIRECTIONS["to the access point"])) + DATA),
    ("ip", 1, raw(ethernet(type=0x86DD)) + raw(ip4())),
    ("ip", 101, raw(IP(proto=47) / Raw(b"\x40\0\x08\0")) + DATA),
    ("non-ip", 1, raw(ethernet() / ARP(hwlen=8, hwsrc=bytes(8)))),
    ("non-ip", 1, raw(Dot3() / LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(code=0x5DC)) + DATA),
    ("non-ip", 127, struct.pack("<BBHI", 0, 0, 8, 1 << 31) + DATA),
    ("cut", 1, raw(ethernet() / ip4())[:40]),
    ("cut", 1, b""),
    ("link-type", 189, DATA),
]


@pytest.mark.parametrize(("kind", "link_type", "data"), OTHERS)
def test_the_rest_is_counted_by_what_it_is(kind: str, link_type: int, data: bytes) -> None:
    decoder = Decoder()
    unit = decoder.decode(Packet(7, 8, link_type, data, len(data)))
    assert unit == Other(7, 8, kind)
    assert decoder.kinds == {kind: 1}
    assert decoder.encrypted_wifi == (kind == "encrypted-wifi")
    assert decoder.unknown_link_types == ({link_type: 1} if kind == "link-type" else {})


def test_the_first_packet_of_an_aggregate_is_read_and_the_loss_of_the_others_counted() -> None:
    decoder = Decoder()
    unit = decoder.decode(Packet(1, 1, 105, aggregated(), len(aggregated())))
    assert isinstance(unit, Segment)
    assert unit.payload == DATA[:20]
    assert unit.checksum_good() is True
    assert (unit.source_mac, unit.target_mac) == (mac(DEVICE_MAC), mac(ROUTER_MAC))
    assert decoder.aggregated_unread == 1


def test_link_types_have_names_whether_they_can_be_read_or_not() -> None:
    assert link_type_name(1) == KNOWN_LINK_TYPES[1] == "Ethernet"
    assert link_type_name(147) == "private use"
    assert "USB" in link_type_name(189)
    assert 189 not in KNOWN_LINK_TYPES
    assert link_type_name(54321) == "link type 54321"


def test_ports_are_told_without_decoding_only_where_that_is_certain() -> None:
    for case, packet in zip(SEGMENTS, packets_of(SEGMENTS), strict=True):
        assert tcp_ports(packet) in (None, (49909, 5683)), case.name
    assert tcp_ports(packets_of(SEGMENTS)[0]) == (49909, 5683)
    for kind, link_type, data in OTHERS:
        if kind != "ip":  # among those are TCP headers that contradict themselves further on
            assert tcp_ports(Packet(1, 1, link_type, data, len(data))) is None


# --- Fragments ---------------------------------------------------------------------------------------------


def pieces_4(sizes: list[int], identification: int = 7) -> list[bytes]:
    """One segment over IPv4, cut into fragments of these sizes (in units of eight bytes) and a rest."""
    payload = raw(ip4())[20:]
    frames, at = [], 0
    for size in [*sizes, len(payload)]:
        piece = payload[at : at + size * 8]
        last = at + len(piece) == len(payload)
        if piece:
            header = IP(
                src="192.168.1.104",
                dst="54.208.229.4",
                ttl=57,
                id=identification,
                proto=6,
                frag=at // 8,
                flags="" if last else "MF",
            )
            frames.append(raw(ethernet() / header / piece))
        at += len(piece)
    return frames


def pieces_6(sizes: list[int]) -> list[bytes]:
    """The same over IPv6."""
    payload = raw(ip6())[40:]
    frames, at = [], 0
    for size in [*sizes, len(payload)]:
        piece = payload[at : at + size * 8]
        if piece:
            more = at + len(piece) < len(payload)
            header = IPv6ExtHdrFragment(nh=6, offset=at // 8, m=more, id=99)
            base = IPv6(src="2001:db8::104", dst="2001:db8::4", hlim=58)
            frames.append(raw(ethernet() / base / header / piece))
        at += len(piece)
    return frames


def numbered(frames: list[bytes]) -> list[Packet]:
    return [Packet(number, number * 10**6, 1, data, len(data)) for number, data in enumerate(frames, 1)]


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from([pieces_4, pieces_6]), st.lists(st.integers(1, 5), max_size=6))
def test_fragments_in_any_order_and_number_make_the_same_segment(data, cut, sizes) -> None:  # type: ignore[no-untyped-def]
    frames = cut(sizes)
    order = data.draw(st.permutations(frames))
    repeated = data.draw(st.lists(st.sampled_from(frames), max_size=4))
    decoder = Decoder()
    packets = numbered([*order[:-1], *repeated, order[-1]] if order[-1] not in repeated else order)
    units = [decoder.decode(packet) for packet in packets]
    (unit,) = [unit for unit in units if isinstance(unit, Segment)]
    assert unit is units[-1]
    assert (unit.number, unit.time_ns) == (packets[-1].number, packets[-1].time_ns)
    assert (unit.payload, unit.whole, unit.checksum_good()) == (DATA, True, True)
    assert decoder.fragments_given_up == 0
    # Copies of a datagram that is complete already are neither a second segment nor a loss.
    assert all(decoder.decode(packet).__class__ is Other for packet in numbered(frames) if len(frames) > 1)
    assert decoder.fragments_given_up == 0


def test_reassembled_segments_read_as_in_wireshark(tmp_path: Path) -> None:
    packets = numbered([*pieces_4([3, 4]), *reversed(pieces_4([2, 2, 2], 8)), *pieces_6([4, 1])])
    decoder = Decoder()
    found = []
    for packet, row in zip(packets, tshark(packets, tmp_path), strict=True):
        unit = decoder.decode(packet)
        assert isinstance(unit, Segment) is (row["tcp.srcport"] != "")
        if isinstance(unit, Segment):
            check_segment(unit, row)
            found.append(unit.number)
    assert found == [3, 7, 10]


def test_of_overlapping_fragments_the_first_copy_counts() -> None:
    first, second, third = pieces_4([4, 4])
    other = second[:-8] + b"OVERLAPS"
    decoder = Decoder()
    units = [decoder.decode(packet) for packet in numbered([first, second, other, third])]
    assert isinstance(units[-1], Segment)
    assert units[-1].payload == DATA


def test_fragments_whose_rest_never_comes_are_counted_and_forgotten() -> None:
    decoder = Decoder()
    first, *_ = pieces_4([4, 4])
    assert decoder.decode(Packet(1, 0, 1, first, len(first))) == Other(1, 0, "fragment")
    assert decoder.fragments_given_up == 1
    late = fragments_module.MAX_AGE_NS + 1
    for number, frame in enumerate(pieces_4([4, 4])[1:], 2):
        assert isinstance(decoder.decode(Packet(number, late, 1, frame, len(frame))), Other)
    assert decoder.fragments_given_up == 2


def test_a_cut_fragment_spoils_its_datagram() -> None:
    decoder = Decoder()
    first, second = pieces_4([4])
    packets = numbered([first, second])
    packets[0] = Packet(1, 1, 1, first[:-3], len(first))
    assert [decoder.decode(packet).__class__ for packet in packets] == [Other, Other]
    assert decoder.fragments_given_up == 1


def test_an_ip_identification_in_use_again_starts_a_new_datagram() -> None:
    decoder = Decoder()
    again = [frame[:-2] + b"!!" for frame in pieces_4([4])]
    units = [decoder.decode(packet) for packet in numbered([*pieces_4([4]), *again])]
    assert [isinstance(unit, Segment) for unit in units] == [False, True, False, True]


def test_fragments_without_end_take_bounded_memory() -> None:
    decoder = Decoder()
    count = fragments_module.MAX_WAITING + 50
    for number in range(count):
        frame = (
            raw(ethernet(type=0x800))
            + struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, number, 0x2000 | 8000, 9, 6, 0, b"aaaa", b"bbbb")
            + bytes(8)
        )
        decoder.decode(Packet(number, number, 1, frame, len(frame)))
    held = decoder._fragments
    assert sum(len(datagram.data) for datagram in held._datagrams.values()) == held._bytes
    assert held._bytes <= fragments_module.MAX_WAITING_BYTES + fragments_module.LARGEST_DATAGRAM
    assert held.waiting <= fragments_module.MAX_WAITING
    assert decoder.fragments_given_up == count


def test_pieces_in_the_worst_order_take_bounded_work() -> None:
    decoder = Decoder()
    header = IP(src="10.0.0.1", dst="10.0.0.2", proto=6, flags="MF")
    for place in range(0, 2 * fragments_module.MAX_HOLES + 4, 2):
        header.frag = place
        frame = raw(ethernet() / header / bytes(8))
        decoder.decode(Packet(1, 1, 1, frame, len(frame)))
        assert all(len(d.holes) <= fragments_module.MAX_HOLES for d in decoder._fragments._datagrams.values())
    assert decoder.fragments_given_up > 0


# --- Checksums ---------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=80), st.sampled_from([ip4, ip6]), st.integers(0, 0xFFFF))
def test_a_checksum_is_good_exactly_when_the_field_is_the_one_that_scapy_works_out(data, wrap, field) -> None:  # type: ignore[no-untyped-def]
    right = build(ethernet() / wrap(data))[TCP].chksum
    unit = decode(raw(ethernet() / wrap(data)))
    assert isinstance(unit, Segment)
    assert unit.checksum_good() is (True if right not in (0, unit.header_sum) else None)
    unit = decode(with_checksum(ethernet() / wrap(data), field))
    assert isinstance(unit, Segment)
    judged = field not in (0, unit.header_sum)
    assert unit.checksum_good() is ((field == right or {field, right} == {0, 0xFFFF}) if judged else None)


@pytest.mark.parametrize(
    "routing",
    [
        IPv6ExtHdrRouting(addresses=["2001:db8::8", "2001:db8::4"]),
        IPv6ExtHdrSegmentRouting(addresses=["2001:db8::4", "2001:db8::8"], segleft=1, lastentry=1),
    ],
    ids=["source routing", "segment routing"],
)
def test_a_packet_on_a_detour_belongs_to_the_address_that_it_goes_to_in_the_end(routing: ScapyPacket) -> None:
    right = build(ethernet() / ip6())[TCP].chksum
    detour = IPv6(src="2001:db8::104", dst="2001:db8::9") / routing / segment()
    detour[TCP].chksum = right
    unit = decode(raw(ethernet() / detour))
    assert isinstance(unit, Segment)
    assert address_text(unit.target) == "2001:db8::4"
    assert unit.checksum_good() is True


def test_what_offload_leaves_is_no_wrong_checksum() -> None:
    unit = decode(with_checksum(ethernet() / ip4(), pseudo_sum(ip4())))
    assert isinstance(unit, Segment)
    assert unit.header_sum == pseudo_sum(ip4())
    assert unit.checksum_good() is None


# --- Bytes that mean nothing -------------------------------------------------------------------------------


def assert_sound(unit: Unit, packet: Packet) -> None:
    assert (unit.number, unit.time_ns) == (packet.number, packet.time_ns)
    if isinstance(unit, Segment | Datagram):
        assert len(unit.payload) <= unit.length < 0x10000 + packet.original_length
        assert len(unit.payload) <= len(packet.data)
    if isinstance(unit, Segment):
        assert unit.checksum_good() in (True, False, None)
        assert unit.whole or unit.checksum_good() is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 300))
def test_any_bytes_under_any_link_type_are_read_without_complaint(data: bytes, missing: int) -> None:
    decoder = Decoder()
    for link_type in [*KNOWN_LINK_TYPES, 147]:
        packet = Packet(3, 4, link_type, data, len(data) + missing)
        assert_sound(decoder.decode(packet), packet)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SEGMENTS), st.data())
def test_damage_to_any_header_is_read_without_complaint(case: Case, data: st.DataObject) -> None:
    damaged = bytearray(case.data)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    packet = Packet(3, 4, case.link_type, bytes(damaged), len(damaged))
    assert_sound(Decoder().decode(packet), packet)


@pytest.mark.parametrize("case", SEGMENTS, ids=lambda case: case.name)
def test_a_packet_cut_anywhere_keeps_its_length_and_the_start_of_its_payload(case: Case) -> None:
    wire = len(case.data) + case.missing
    whole = Decoder().decode(Packet(1, 1, case.link_type, case.data, wire))
    assert isinstance(whole, Segment)
    read = 0
    for size in range(len(case.data)):
        unit = Decoder().decode(Packet(1, 1, case.link_type, case.data[:size], wire))
        if isinstance(unit, Segment):
            read += 1
            assert unit.length == whole.length
            assert whole.payload.startswith(unit.payload)
            assert len(unit.payload) < len(whole.payload) or len(unit.payload) == unit.length or not unit.whole
        elif isinstance(unit, Datagram):
            assert case.name == "VXLAN"  # too little of it to see that it is a tunnel
        else:
            assert isinstance(unit, Other)
            assert unit.kind == "cut"
    assert read


def test_layers_without_end_are_given_up() -> None:
    tag = bytes.fromhex("81000001")
    assert decode(raw(ethernet())[:12] + tag * 10000) == Other(1, 1, "nested")
    label = bytes.fromhex("00000100") + bytes(4)
    inner = b""
    for _ in range(2000):
        inner = raw(ethernet())[:12] + b"\x88\x47" + label + inner
    assert decode(inner) == Other(1, 1, "nested")
    assert isinstance(decode(b"".join([raw(IP(proto=4, len=0))] * 2000), 101), Other)
    chain = raw(IPv6(nh=0, plen=8 * 4000))[:40] + bytes(8) * 4000
    assert decode(chain, 101) == Other(1, 1, "ip")
