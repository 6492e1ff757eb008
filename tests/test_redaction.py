"""A capture that can be posted: the verdict is the same, and nothing of the network is left in it."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import stat
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
from capture_files import block, enhanced, interface, option, pcap_header, record, wireshark, with_checksum
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Ether
from screens import ATTEMPTS, CAPTURES, SHIPPED, shown, sparkshark, story

from analyzer.capture import Capture, Packet
from analyzer.keys import KeyRing
from analyzer.network import Decoder, Segment
from analyzer.pipeline import analyze
from analyzer.redaction import Redacted, redact
from analyzer.redaction.check import leaks
from analyzer.redaction.disguise import Disguise, Role
from analyzer.redaction.filler import blank, blank_opening, is_noise
from analyzer.simulate import SCENARIOS, Conversation, finish, make_world, simulate

RESERVED = tuple(
    map(
        ipaddress.ip_network,
        ("10.0.0.0/8", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "fd00::/64", "fe80::/64"),
    )
)
CONSTANT = "54.208.229.4"
CANARY_ID = "53ff6f065067544840551287"


def redacted(path: Path | list[Path], out: Path, **options: object) -> Redacted:
    with out.open("w+b") as stream:
        return redact(path if isinstance(path, list) else [path], stream, **options)  # type: ignore[arg-type]


def packets_each(done: Redacted) -> tuple[list[int], list[int]]:
    """How many packets each conversation has, before and after."""
    counts = [[sum(q.packets for q in c.quality) for c in t.conversations] for t in (done.before, done.after)]
    return counts[0], counts[1]


def segments(path: Path) -> Iterator[Segment]:
    decoder = Decoder()
    for packet in Capture([path]):
        unit = decoder.decode(packet)
        if isinstance(unit, Segment):
            yield unit


def capture_of(packets: Iterable[tuple[int, bytes]], link_type: int = 1) -> bytes:
    """A pcap file of such packets: times (ns) and bytes."""
    records = (record(data, ns // 10**9, ns % 10**9 // 1000) for ns, data in packets)
    return pcap_header(link_type=link_type) + b"".join(records)


# -- the verdict stays ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_capture_keeps_its_verdict_and_loses_its_network(name: str, tmp_path: Path) -> None:
    path, out = CAPTURES / f"{name}.pcap", tmp_path / "out.pcapng"
    done = redacted(path, out, keys=KeyRing.load(CAPTURES / "keys"))
    assert done.same.same
    assert [f.code for f in done.before.findings] == [f.code for f in done.after.findings]
    assert packets_each(done)[0] == packets_each(done)[1]
    assert [c.secrets and c.secrets.opened for c in done.before.conversations] == [
        c.secrets and c.secrets.opened for c in done.after.conversations
    ]
    fields = (
        "ip.src",
        "ip.dst",
        "tcp.srcport",
        "tcp.dstport",
        "eth.src",
        "eth.dst",
        "_ws.malformed",
        "frame.protocols",
    )
    rows = wireshark(out, *fields)
    assert len(rows) == done.packets
    for source, target, near, far, *macs, malformed, protocols in rows:
        assert "5683" in (near, far)
        assert re.match(r"(eth:ethertype|sll:ethertype|raw):ip:tcp", protocols), protocols
        assert not malformed or "coap" in protocols  # which reads random bytes
        for address in (source, target):
            assert address == CONSTANT or any(ipaddress.ip_address(address) in network for network in RESERVED)
        assert all(re.match(r"(02:00:00|08:00:28|6c:0b:84):00:00:|$", mac) for mac in macs), macs


def lost(name: str) -> set[str]:
    """What of a story's findings rests on packets that are no Spark connection."""
    around = {"dns": "SPK105", "name": "SPK106", "other-than": "SPK106", "clone": "SPK507", "encrypted": "SPK705"}
    said = {code for start, code in around.items() if name.startswith(start)}
    return said | ({"SPK801"} if name in ("udp-coap", "dtls") else set())


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_story_keeps_its_verdict(name: str, tmp_path: Path) -> None:
    done = redacted(story(name, tmp_path), tmp_path / "out.pcapng")
    assert set(done.same.lost) <= lost(name)
    assert set(done.same.gained) <= set(done.same.lost)
    assert packets_each(done)[0] == packets_each(done)[1]


@pytest.mark.parametrize("link", ["vlan", "qinq", "sll", "sll2", "raw", "null", "ipv6", "raw-ipv6"])
@pytest.mark.parametrize("name", ["key-mismatch", "lossy", "snaplen", "http-portal", "mid-session"])
def test_every_link_layer_is_written_anew(name: str, link: str, tmp_path: Path) -> None:
    path, out = tmp_path / "in.pcap", tmp_path / "out.pcapng"
    path.write_bytes(simulate(name, link=link, attempts=ATTEMPTS.get(name)).capture())  # type: ignore[arg-type]
    done = redacted(path, out)
    assert done.same.same
    assert packets_each(done)[0] == packets_each(done)[1]
    assert {packet.link_type for packet in Capture([out])} == {{"s": 113, "r": 101, "n": 101}.get(link[0], 1)}
    assert out.read_bytes().find(b"\x81\x00") < 0 or link not in ("vlan", "qinq") or name != "key-mismatch"


@pytest.mark.parametrize("name", ["dns-failed", "name-astray", "dns-fallback-works", "clone", "blocked-icmp"])
@pytest.mark.parametrize("link", ["ethernet", "raw-ipv6"])
def test_lookups_keep_what_rests_on_them(name: str, link: str, tmp_path: Path) -> None:
    path, out = tmp_path / "in.pcap", tmp_path / "out.pcapng"
    path.write_bytes(simulate(name, link=link).capture())  # type: ignore[arg-type]
    done = redacted(path, out, lookups=True)
    assert done.same.same
    rows = wireshark(out, "dns.qry.name", "_ws.malformed", "ip.checksum.status", "udp.checksum.status")
    assert {row[0] for row in rows} <= {"", "device.spark.io"}
    assert not any(row[1] for row in rows if row[0])


def test_announced_ids_and_dhcp_are_made_anew(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    for name in ("clone", "announcements-only", "restarts", "power-cycle", "two-devices"):
        if name not in SCENARIOS:
            continue
        path, out = story(name, tmp_path), tmp_path / f"{name}.pcapng"
        done = redacted(path, out, lookups=True)
        seen.update(done.written)
        before = {told.device_id for heard in done.before.background.heard.values() for told in heard}
        after = {told.device_id for heard in done.after.background.heard.values() for told in heard}
        assert len(before) == len(after)
        assert not before & after
        assert {(i[:4], i[-4:]) for i in before} == {(i[:4], i[-4:]) for i in after}
        assert not any(bytes.fromhex(own) in out.read_bytes() for own in before)
    assert seen["announcements"]


def test_who_asks_for_whom_beside_a_connection_is_told_with_other_names(tmp_path: Path) -> None:
    """ARP, the question of a machine for an address, and a name of the cloud with an ID in it."""
    router, stranger, path, out = "192.168.1.1", "192.168.1.77", tmp_path / "in.pcap", tmp_path / "out.pcapng"
    login = Capture([CAPTURES / "key-mismatch-retries.pcap"])
    packets = [(packet.time_ns, packet.data) for packet in login]
    end = analyze(CAPTURES / "key-mismatch-retries.pcap").conversations[0].device
    own, mac = end.address, end.mac
    assert mac is not None
    source, device = str(ipaddress.ip_address(own)), mac.hex(":")
    ether = Ether(src=device, dst="ff:ff:ff:ff:ff:ff")
    options = [("message-type", "discover"), ("hostname", b"CANARYHOST"), "end"]
    join = BOOTP(op=1, chaddr=mac) / DHCP(options=options)
    around = [
        ether / IP(src=str(ipaddress.ip_address(0)), dst="255.255.255.255") / UDP(sport=68, dport=67) / join,
        ether / ARP(op=1, hwsrc=device, psrc=source, pdst=router),
        ether / ARP(op=1, hwsrc=device, psrc=stranger, pdst=router),
        ether / IP(src=source, dst=router) / UDP(sport=5000) / DNS(qd=DNSQR(qname=f"{CANARY_ID}.udp.particle.io")),
    ]
    start = packets[0][0]
    asked = [(start - 10**9 + n * 10**6, bytes(packet)) for n, packet in enumerate(around)]
    path.write_bytes(capture_of([*asked, *packets]))
    done = redacted(path, out, lookups=True)
    assert done.same.same
    assert done.written == {"DHCP questions": 1, "ARP questions": 1, "name lookups": 1}
    shown = wireshark(out, "arp.src.proto_ipv4", "arp.src.hw_mac", "dns.qry.name", "dhcp.hw.mac_addr", "_ws.malformed")
    assert not any(row[4] for row in shown if any(row[:4]))
    (question,) = (row for row in shown if row[0])
    assert question[0] != source
    assert question[1] != device
    assert [row[2] for row in shown if row[2]] == [f"{'x' * len(CANARY_ID)}.xxx.particle.io"]
    assert [row[3] for row in shown if row[3]] == [question[1]]
    assert list(leaks(str(out), done.disguise)) == []
    for canary in (b"CANARYHOST", CANARY_ID.encode(), ipaddress.ip_address(stranger).packed, own, mac):
        assert canary not in out.read_bytes()


def test_who_asks_for_whom_over_ipv6_is_told_with_other_names(tmp_path: Path) -> None:
    path, out = tmp_path / "in.pcap", tmp_path / "out.pcapng"
    told = simulate("healthy", link="ipv6")
    path.write_bytes(told.capture())
    packets = [(packet.time_ns, packet.data) for packet in Capture([path])]
    end = analyze(path).conversations[0].device
    assert end.mac is not None
    source = str(ipaddress.ip_address(end.address))
    question = Ether(src=end.mac.hex(":"), dst="33:33:ff:00:00:01") / IPv6(src=source, dst="ff02::1:ff00:1")
    asked = bytes(question / ICMPv6ND_NS(tgt="fe80::1d7e:a0ff:fe11:1"))
    path.write_bytes(capture_of([(packets[0][0] - 10**6, asked), *packets]))
    done = redacted(path, out, lookups=True)
    assert done.same.same
    assert done.written["ARP questions"] == 1
    ((asker, wanted, good, malformed),) = (
        row
        for row in wireshark(out, "ipv6.src", "icmpv6.nd.ns.target_address", "icmpv6.checksum.status", "_ws.malformed")
        if row[1]
    )
    assert (good, malformed) == ("1", "")
    assert asker != source
    assert wanted.startswith("fe80::")
    assert wanted != "fe80::1d7e:a0ff:fe11:1"
    assert end.address not in out.read_bytes()


def test_a_connection_on_another_port_is_kept_and_told_the_same(tmp_path: Path) -> None:
    done = redacted(story("other-port", tmp_path), tmp_path / "out.pcapng")
    assert done.before.background.lookalikes
    assert done.before.background.lookalikes.keys() == done.after.background.lookalikes.keys()
    assert done.conversations == 1
    (port,) = done.before.background.lookalikes
    open_, posted = (analyze(p, ports=(port,)) for p in (tmp_path / "other-port.pcap", tmp_path / "out.pcapng"))
    assert [f.code for f in open_.findings] == [f.code for f in posted.findings]


def test_other_connections_of_that_port_stay_behind(tmp_path: Path) -> None:
    packets = list(Capture([story("other-port", tmp_path)]))
    mixed = [(packet.time_ns, packet.data) for packet in packets]
    (port,) = analyze(tmp_path / "other-port.pcap").background.lookalikes
    stranger = bytes.fromhex("02000000000102000000000208004500002a000100004006")
    for n in range(9):
        tcp = struct.pack(">HHIIHHHH", 4000, port, 1 + 2 * n, 1, 0x5018, 9, 0, 0) + b"\x8e\x91"
        mixed.append((packets[-1].time_ns + n, stranger + bytes((0, 0, 10, 7, 7, 7, 93, 184, 216, 34)) + tcp))
    path, out = tmp_path / "mixed.pcap", tmp_path / "out.pcapng"
    path.write_bytes(capture_of(mixed))
    done = redacted(path, out)
    assert done.conversations == 1
    assert {s.source_port for s in segments(out)} & {4000} == set()
    assert {s.source_port for s in segments(out)} & {port}


# -- what is copied, and what is not -------------------------------------------------------------------------------


def test_times_numbers_and_sealed_bytes_stay_and_checksums_keep_their_meaning(tmp_path: Path) -> None:
    kinds: Counter[bool | None] = Counter()
    for name in ("lossy-link", "healthy-full", "capture-gap"):
        path, out = CAPTURES / f"{name}.pcap", tmp_path / f"{name}.pcapng"
        redacted(path, out)
        for old, new in zip(segments(path), segments(out), strict=True):
            assert (old.time_ns, old.seq, old.ack, old.flags, old.window, old.ttl, old.ip_id) == (
                *(new.time_ns, new.seq, new.ack, new.flags, new.window, new.ttl, new.ip_id),
            )
            assert (old.payload, old.length, old.whole) == (new.payload, new.length, new.whole)
            assert old.checksum_good() == new.checksum_good()
            kinds[old.checksum_good()] += 1
    assert kinds[True]
    path, out = tmp_path / "checks.pcap", tmp_path / "checks.pcapng"
    packets = list(Capture([CAPTURES / "healthy-full.pcap"]))
    fields: dict[str, Callable[[bytes], bytes]] = {
        "wrong": lambda data: data[:50] + bytes((data[50] ^ 0x5A, data[51])) + data[52:],
        "none": lambda data: data[:50] + b"\0\0" + data[52:],
        "cut": lambda data: data[:60],
    }
    for name, change in fields.items():
        path.write_bytes(capture_of((p.time_ns, change(p.data)) for p in packets))
        done = redacted(path, out)
        olds, news = list(segments(path)), list(segments(out))
        assert [s.checksum_good() for s in olds] == [s.checksum_good() for s in news], name
        assert [(s.length, len(s.payload), s.whole) for s in olds] == [
            (s.length, len(s.payload), s.whole) for s in news
        ]
        assert done.same.same, name


CANARIES = (
    b"canary-host.lan",
    b"KANARI",
    bytes.fromhex("deadbeefcafe"),
    ipaddress.ip_address("192.168.77.201").packed,
    ipaddress.ip_address("203.0.113.77").packed,
    b"192.168.77.201",
    b"48ff6d065067555026311387",
)


def with_canaries(tmp_path: Path) -> Path:
    """A login with a stranger's words, unknown options, padding, comments and names wherever they can stand."""
    path = tmp_path / "canaries.pcapng"
    (host, word, mac, address, public, *_) = CANARIES
    packets = list(Capture([CAPTURES / "key-mismatch-retries.pcap"]))
    options = option(1, b"comment " + word) + option(2, b"wlan " + host) + option(3, b"seen by " + word)
    parts = [
        block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + option(4, host) + option(1, word)),
        interface(options=options),
        block(
            4,
            struct.pack("<HH", 1, 4 + len(host) + 1) + address + host + b"\0" + bytes(-(len(host) + 1) % 4) + bytes(4),
        ),
        block(10, struct.pack("<II", 0x544C534B, len(word)) + word),
        block(0x0BAD, struct.pack("<I", 32473) + word),
    ]
    for packet in packets:
        data = packet.data
        data = data.replace(ipaddress.ip_address("192.168.1.104").packed, address)
        data = mac + data[6:] if data[:3] != b"\x08\x00\x28" else data[:6] + mac + data[12:]
        # A VLAN tag in front, Ethernet padding behind, TCP timestamps and an unknown option inside the SYN.
        data = data[:12] + b"\x81\x00\x0c\xa7" + data[12:] + word
        parts.append(enhanced(data, packet.time_ns // 1000))
        udp = (
            bytes.fromhex("ffffffffffff")
            + mac
            + b"\x08\x00"
            + bytes.fromhex("4500")
            + struct.pack(">H", 28 + len(host))
            + bytes.fromhex("0000000040110000")
            + address
            + public
            + struct.pack(">HHHH", 5353, 5353, 8 + len(host), 0)
            + host
        )
    parts.append(enhanced(udp, packets[-1].time_ns // 1000))
    path.write_bytes(b"".join(parts))
    return path


def test_nothing_beside_the_conversations_comes_through(tmp_path: Path) -> None:
    path, out = with_canaries(tmp_path), tmp_path / "out.pcapng"
    original = path.read_bytes()
    assert all(canary in original for canary in CANARIES[:5])
    for options in ({}, {"lookups": True}):
        done = redacted(path, out, **options)
        assert done.conversations == 3
        written = out.read_bytes()
        for canary in CANARIES:
            for spelling in (canary, canary.hex().encode(), canary[::-1], canary.lower(), canary.upper()):
                assert spelling not in written, canary


def test_tcp_options_that_tell_of_a_machine_become_nothing(tmp_path: Path) -> None:
    world = make_world()
    conversation = Conversation(world, world.add_device(), at=0.0)
    conversation.handshake()
    path, out = tmp_path / "in.pcap", tmp_path / "out.pcapng"
    packets = []
    telling = b"\x08\x0aKANARI!!" + b"\xfd\x08CANARY" + b"\x01\x01"
    for packet in finish(world).packets:
        data = bytearray(packet.data)
        if data[12:14] != b"\x08\x00" or data[23] != 6:
            continue
        header = (data[46] >> 4) * 4
        data[46] = (header + len(telling)) // 4 << 4
        data[16:18] = (int.from_bytes(data[16:18]) + len(telling)).to_bytes(2)
        data[34 + header : 34 + header] = telling
        packets.append((packet.time_ns, bytes(data)))
    path.write_bytes(capture_of(packets))
    done = redacted(path, out)
    assert done.same.same
    written = out.read_bytes()
    assert b"KANARI" not in written
    assert b"CANARY" not in written
    (syn, *_) = segments(out)
    assert syn.tcp[20:24] == b"\x02\x04\x05\xb4"  # the size of segments is needed, and stays
    assert len(syn.tcp) == len(next(segments(path)).tcp)


def talk(*said: tuple[str, bytes], midway: bool = False) -> bytes:
    """A capture in which the two ends say such things."""
    world = make_world()
    conversation = Conversation(world, world.add_device(), at=0.0)
    if midway:
        conversation.handshake()
    else:
        conversation.connect()
    for sender, data in said:
        conversation.tcp.send(sender, data, after=0.01, label="x")  # type: ignore[arg-type]
    conversation.close("server", after=1.0)
    return finish(world).capture()


NOISE = bytes(range(256)) * 2
PORTAL = (
    b"HTTP/1.1 302 Found\r\nLocation: http://my-router.canary.lan/login?user=Waldtraut\r\nServer: canarybox/2.1\r\n\r\n"
)
TALKS = {
    "a web page": [("server", PORTAL)],
    "a request": [("device", b"GET /canary/private HTTP/1.1\r\nHost: canary.lan\r\nCookie: canary=1\r\n\r\n")],
    "ssh": [("server", b"SSH-2.0-canary_8.9 Waldtraut@canary.lan\r\n"), ("device", b"SSH-2.0-canary\r\n")],
    "tls": [("device", b"\x16\x03\x01\x00\xf0\x01\x00\x00\xec\x03\x03" + NOISE[40:72] + b"canary.lan" + bytes(200))],
    "plain CoAP": [
        ("device", b"\x00\xe1" + b"\xd0\x08\x02\xb6canary\xff" + b"canary.lan is")[:40],
        ("server", b"\x00\xe1" + b"\x50\x45\xffcan"),
        ("device", b"\xd0\x0d\x02" + b"\xb6canary\xff" + b"canary.lan is"),
    ],
    "text": [
        ("server", b"220 canary.lan ESMTP Waldtraut's own mail server, welcome\r\n"),
        ("device", b"EHLO canary\r\n"),
    ],
    "bytes": [("device", NOISE), ("server", b"\x05\x00" + b"\0\1\2canary\xff" * 40)],
}


@pytest.mark.parametrize("name", TALKS)
def test_what_strangers_say_becomes_filler_of_the_same_length(name: str, tmp_path: Path) -> None:
    path, out = tmp_path / "in.pcap", tmp_path / "out.pcapng"
    path.write_bytes(talk(*TALKS[name]))
    done = redacted(path, out)
    assert done.same.same
    assert [c.kind for c in done.before.conversations] == [c.kind for c in done.after.conversations]
    assert [(s.length, len(s.payload)) for s in segments(path)] == [(s.length, len(s.payload)) for s in segments(out)]
    assert not re.search(rb"canary|waldtraut|router|private", out.read_bytes(), re.IGNORECASE)
    sentences = [f.summary for t in (done.before, done.after) for f in t.findings if f.code == "SPK103"]
    assert len({re.sub(r"[0-9.]+", "", sentence) for sentence in sentences}) <= 1


def test_a_word_of_a_protocol_in_somebodys_text_is_no_leak(tmp_path: Path) -> None:
    path, out = tmp_path / "in.pcap", tmp_path / "out.pcapng"
    page = b"HTTP/1.1 302 Found\r\nLocation: http://canary.example/\r\n\r\n<p>this location has a login"
    path.write_bytes(talk(("server", page)))
    assert redacted(path, out).same.same
    assert b"canary" not in out.read_bytes()


INJECTED = {
    "behind the login": [("server", b"HTTP/1.1 302 canary.lan Waldtraut\r\n\r\n" * 4)],
    "as frames": [("device", b"\x00\x30" + b"canary.lan: Waldtraut is at home at 8:00 pm today"[:48])] * 4,
    "as short frames": [("device", b"\x00\x10" + b"canary Waldtraut")] * 9,
    "as frames padded": [("server", b"\x00\x20" + b"\x40\x02canary.lan" + b"\0" * 20)] * 4,
    "between frames": [("device", b"\x00\x10" + NOISE[100:116]), ("device", b"\xff\xff canary.lan " * 30)],
}


@pytest.mark.parametrize("name", INJECTED)
def test_what_is_no_sealed_message_of_a_session_is_not_copied(name: str, tmp_path: Path) -> None:
    path, out = tmp_path / "in.pcap", tmp_path / "out.pcapng"
    path.write_bytes(talk(*INJECTED[name], midway=True))
    done = redacted(path, out)
    assert done.blanked
    assert not re.search(rb"canary|waldtraut", out.read_bytes(), re.IGNORECASE)
    assert packets_each(done)[0] == packets_each(done)[1]


def test_a_repeat_is_copied_only_when_it_is_one(tmp_path: Path) -> None:
    path, out = tmp_path / "in.pcap", tmp_path / "out.pcapng"
    packets = [(p.time_ns, p.data) for p in Capture([CAPTURES / "healthy-full.pcap"])]
    place = next(i for i, (_, data) in enumerate(packets) if len(data) > 54 + 300)  # the reply
    time_ns, data = packets[place]
    honest = data[:18] + b"\x77\x77" + data[20:]
    forged = data[:18] + b"\x77\x78" + data[20:54] + (b"canary.lan Waldtraut " * 40)[: len(data) - 54]
    forged = with_checksum(forged)
    packets[place + 1 : place + 1] = [(time_ns + 5_000_000, honest), (time_ns + 6_000_000, forged)]
    path.write_bytes(capture_of(packets))
    done = redacted(path, out)
    news = list(segments(out))
    assert news[place + 1].payload == data[54:]
    assert news[place + 2].payload == blank(forged[54:])
    assert b"canary" not in out.read_bytes()
    assert done.blanked == 1
    mismatches = [[q.mismatches for c in t.conversations for q in c.quality] for t in (done.before, done.after)]
    assert mismatches[0] == mismatches[1]
    assert sum(mismatches[0]) == 1
    assert done.same.same


def test_bytes_that_come_late_are_known_as_well(tmp_path: Path) -> None:
    path, out = tmp_path / "in.pcap", tmp_path / "out.pcapng"
    packets = [(p.time_ns, p.data) for p in Capture([CAPTURES / "photon-fast-ota.pcap"])]
    times, contents = [time_ns for time_ns, _ in packets], [data for _, data in packets]
    chunks = [i for i, data in enumerate(contents) if len(data) > 500]
    for i, j in zip(chunks[4::2], chunks[5::2], strict=False):  # overtaken on the way
        contents[i], contents[j] = contents[j], contents[i]
    path.write_bytes(capture_of(zip(times, contents, strict=True)))
    done = redacted(path, out, keys=KeyRing.load(CAPTURES / "keys"))
    assert done.before.conversations[0].quality[1].out_of_order > 3
    assert done.blanked == 0
    assert done.same.same


# -- tunnels, fragments, Wi-Fi -------------------------------------------------------------------------------------


def ip_packets() -> list[tuple[int, bytes]]:
    return [(p.time_ns, p.data[14:]) for p in Capture([CAPTURES / "key-mismatch-retries.pcap"])]


def fragmented(data: bytes) -> Iterator[bytes]:
    """An IPv4 packet in pieces of 96 bytes."""
    if len(data) < 140:
        yield data
        return
    for at in range(20, len(data), 96):
        piece = data[at : at + 96]
        more = 0x2000 if at + 96 < len(data) else 0
        header = data[:2] + (20 + len(piece)).to_bytes(2) + data[4:6] + (more | (at - 20) // 8).to_bytes(2) + data[8:20]
        yield header + piece


def outer(data: bytes, protocol: int) -> bytes:
    return (
        bytes((0x45, 0))
        + (20 + len(data)).to_bytes(2)
        + bytes((0, 1, 0, 0, 64, protocol, 0, 0))
        + bytes((192, 168, 77, 201))
        + bytes((203, 0, 113, 77))
        + data
    )


WIFI = (
    b"\0\0\x08\0\0\0\0\0"
    + b"\x08\x01\0\0"
    + bytes.fromhex("deadbeefcafe") * 2
    + bytes.fromhex("c0ffeec0ffee")
    + b"\0\0"
    + b"\xaa\xaa\x03\0\0\0\x08\x00"
)
BEACON = b"\0\0\x08\0\0\0\0\0" + b"\x80\0\0\0" + b"\xff" * 6 + bytes.fromhex("deadbeefcafe") * 2 + b"\0\0" + bytes(12)
WRAPPED: dict[str, tuple[int, Callable[[bytes], Iterable[bytes]]]] = {
    "fragments": (101, fragmented),
    "IP in IP": (101, lambda data: [outer(data, 4)]),
    "GRE": (101, lambda data: [outer(b"\0\0\x08\0" + data, 47)]),
    "VXLAN": (
        101,
        lambda data: [
            outer(
                struct.pack(">HHHH", 5000, 4789, 30 + len(data), 0)
                + b"\x08"
                + bytes(7)
                + bytes.fromhex("deadbeefcafec0ffeec0ffee0800")
                + data,
                17,
            )
        ],
    ),
    "PPPoE": (
        1,
        lambda data: [
            bytes.fromhex("deadbeefcafec0ffeec0ffee8864")
            + b"\x11\0\0\x09"
            + (len(data) + 2).to_bytes(2)
            + b"\0\x21"
            + data
        ],
    ),
    "PPP": (9, lambda data: [b"\xff\x03\0\x21" + data]),
    "MPLS": (1, lambda data: [bytes.fromhex("deadbeefcafec0ffeec0ffee8847") + b"\0\x01\x01\x40" + data]),
    "Wi-Fi": (127, lambda data: [WIFI + data, BEACON + b"\0\x0acanarySSID!"]),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_only_what_is_inside_comes_through(name: str, tmp_path: Path) -> None:
    path, out = tmp_path / "in.pcap", tmp_path / "out.pcapng"
    link_type, wrap = WRAPPED[name]
    path.write_bytes(
        capture_of([(time_ns, piece) for time_ns, data in ip_packets() for piece in wrap(data)], link_type)
    )
    done = redacted(path, out)
    assert done.segments == len(ip_packets())
    assert packets_each(done)[0] == packets_each(done)[1]
    assert {"SPK207", "SPK206"} <= set(done.same.kept)
    written = out.read_bytes()
    for canary in ("deadbeefcafe", "c0ffeec0ffee", "c0a84dc9", "cb00714d"):
        assert bytes.fromhex(canary) not in written
    assert b"canary" not in written
    if name == "fragments":
        assert done.before.packets > done.packets


def test_ipv6_extension_headers_and_quoted_packets_are_made_anew(tmp_path: Path) -> None:
    path, out = tmp_path / "in.pcap", tmp_path / "out.pcapng"
    packets = list(Capture([story("blocked-icmp", tmp_path)]))
    done = redacted(tmp_path / "blocked-icmp.pcap", out)
    assert done.written == {"error messages about them": len(done.before.background.complaints)}
    assert packets
    assert done.same.same
    raw = simulate("key-mismatch", link="raw-ipv6").packets
    routing = bytes((6, 4, 0, 1, 0, 0, 0, 0)) + bytes.fromhex("20010db8deadbeefcafe00000000c0de") * 2
    routed = [
        (
            p.time_ns,
            p.data[:4]
            + (int.from_bytes(p.data[4:6]) + len(routing)).to_bytes(2)
            + b"\x2b"
            + p.data[7:40]
            + routing
            + p.data[40:],
        )
        for p in raw
        if p.data[6] == 6
    ]
    path.write_bytes(capture_of(routed, 101))
    redacted(path, out)
    assert bytes.fromhex("deadbeefcafe") not in out.read_bytes()
    assert {s.tcp[12] >> 4 for s in segments(out)}


# -- the same again ------------------------------------------------------------------------------------------------


def shape(path: Path) -> list[tuple[object, ...]]:
    """All of a capture but its addresses."""
    return [
        (s.time_ns, s.interface, s.source_port, s.target_port, s.seq, s.ack, s.flags, s.window, s.length, s.payload)
        for s in segments(path)
    ]


@pytest.mark.parametrize("name", ["two-devices-background", "wrong-service-http302", "coap-over-tcp", "encap-sll2"])
def test_it_is_the_same_each_time_and_twice_changes_names_alone(name: str, tmp_path: Path) -> None:
    path, first, again, twice = CAPTURES / f"{name}.pcap", *(tmp_path / f"{n}.pcapng" for n in range(3))
    redacted(path, first)
    redacted(path, again)
    assert first.read_bytes() == again.read_bytes()
    done = redacted(first, twice)
    assert done.same.same
    assert done.before.packets == done.packets
    assert first.stat().st_size == twice.stat().st_size
    assert shape(first) == shape(twice)


def test_several_files_become_one(tmp_path: Path) -> None:
    packets = [(p.time_ns, p.data) for p in Capture([CAPTURES / "ota-complete.pcap"])]
    ring = tmp_path / "ring"
    ring.mkdir()
    for part in range(4):
        (ring / f"r{part}.pcap").write_bytes(capture_of(packets[part * 260 : (part + 1) * 260]))
    one = redacted(CAPTURES / "ota-complete.pcap", tmp_path / "one.pcapng")
    many = redacted([ring], ring / "posted.pcapng")  # beside its own sources
    assert one.packets == many.packets == len(packets)
    assert (tmp_path / "one.pcapng").read_bytes() == (ring / "posted.pcapng").read_bytes()


# -- names ---------------------------------------------------------------------------------------------------------


@given(st.sets(st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)), max_size=60))
def test_no_two_machines_get_one_name_and_none_gets_anothers(addresses: set[bytes]) -> None:
    disguise = Disguise(addresses)
    for role, address in zip([*Role] * 30, sorted(addresses), strict=False):
        disguise.address(address, role)
    changed = {old: new for old, new in disguise.addresses.items() if old != new}
    assert len(set(disguise.addresses.values())) == len(disguise.addresses)
    assert not set(changed.values()) & addresses or all(len(a) == 16 for a in set(changed.values()) & addresses)
    for old, new in changed.items():
        was, became = ipaddress.ip_address(old), ipaddress.ip_address(new)
        assert was.version == became.version
        assert was.is_multicast == became.is_multicast
        assert was.is_link_local == became.is_link_local
        assert was.is_loopback == became.is_loopback


def test_an_address_keeps_what_kind_of_address_it_is() -> None:
    disguise = Disguise()
    inside = ipaddress.ip_address("::ffff:192.168.1.104").packed
    plain = disguise.address(inside[-4:], Role.DEVICE)
    assert disguise.address(inside, Role.DEVICE) == inside[:-4] + plain
    local = ipaddress.ip_address(disguise.address(ipaddress.ip_address("fe80::1:2").packed, Role.DEVICE))
    assert local.is_link_local
    assert disguise.address(bytes(16), Role.DEVICE) == bytes(16), "no address at all"


def test_more_machines_than_a_range_has_still_have_names_of_their_own() -> None:
    disguise = Disguise()
    public = [bytes((8, 8, n >> 8, n & 255)) for n in range(1200)]
    names = [disguise.address(address, [*Role][n % 3]) for n, address in enumerate(public)]
    assert len(set(names)) == len(names)
    assert not any(ipaddress.ip_address(name).is_global for name in names)


@given(st.sets(st.binary(min_size=6, max_size=6), min_size=1, max_size=40), st.binary(min_size=12, max_size=12))
def test_hardware_addresses_and_ids_are_named_apart(macs: set[bytes], device_id: bytes) -> None:
    disguise = Disguise(macs)
    names = {mac: disguise.mac(mac, vendor=True) for mac in sorted(macs)}
    single = {mac: name for mac, name in names.items() if not mac[0] & 1 and any(mac)}
    assert len(set(single.values())) == len(single)
    assert not set(single.values()) & macs
    other = disguise.device_id(device_id)
    assert other != device_id
    assert (other[:2], other[-2:], len(other)) == (device_id[:2], device_id[-2:], 12)


@given(st.binary(max_size=2000), st.sampled_from(["http", "tls", "ssh", "other", "coap-tcp", "empty"]))
def test_filler_has_the_same_length_and_stays_what_it_is(data: bytes, kind: str) -> None:
    opening = blank_opening(kind, data)
    assert len(opening) == len(blank(data)) == len(data)
    assert blank(blank(data)) == blank(data)
    assert blank_opening(kind, opening) == opening


@given(st.binary(min_size=16, max_size=16), st.text(alphabet="abcdefgh ", min_size=16, max_size=900))
def test_text_is_no_noise(noise: bytes, text: str) -> None:
    assert not is_noise(text.encode())
    assert is_noise(noise) or len(noise.translate(None, bytes(range(32, 127)))) < 2 or noise.count(noise[-1]) > 4


# -- hostile input -------------------------------------------------------------------------------------------------


@cache
def bases() -> list[bytes]:
    names = ("wrong-service-http302", "no-nonce", "nonce-looks-like-coap", "bad-signature")
    return [(CAPTURES / f"{name}.pcap").read_bytes() for name in names]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_damaged_captures_are_redacted_or_refused_and_never_leak(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(bases())))
    for _ in range(data.draw(st.integers(1, 12))):
        at = data.draw(st.integers(24, len(content) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=6))
        content[at : at + len(piece)] = piece
    path, out = tmp_path / "in.pcap", tmp_path / "out.pcapng"
    path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2, 100]))])
    done = redacted(path, out, lookups=data.draw(st.booleans()))
    assert packets_each(done)[0] == packets_each(done)[1]
    for segment in segments(out):
        assert ipaddress.ip_address("192.168.1.104").packed not in (segment.source, segment.target)


@cache
def honest() -> list[tuple[int, bytes]]:
    return [(p.time_ns, p.data) for p in Capture([CAPTURES / "healthy-full.pcap"])]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_bad_capture_of_a_good_connection_keeps_its_verdict(tmp_path: Path, data: st.DataObject) -> None:
    """Packets lost, overtaken, repeated, captured twice, cut: what TCP makes of them, it makes of the redacted ones."""
    times, contents = [time_ns for time_ns, _ in honest()], [content for _, content in honest()]
    for _ in range(data.draw(st.integers(1, 10))):
        at = data.draw(st.integers(3, len(contents) - 12))
        match data.draw(st.sampled_from(["lose", "overtake", "repeat", "copy", "cut"])):
            case "lose":
                del times[at], contents[at]
            case "overtake":
                other = at + data.draw(st.integers(1, 6))
                contents[at], contents[other] = contents[other], contents[at]
            case "repeat":  # with another identification, as a packet that is sent again has it
                again = contents[at][:18] + data.draw(st.binary(min_size=2, max_size=2)) + contents[at][20:]
                contents.insert(at + 3, again)
                times.insert(at + 3, times[at + 3])
            case "copy":
                contents.insert(at + 1, contents[at])
                times.insert(at + 1, times[at])
            case "cut":
                contents[at] = contents[at][: data.draw(st.integers(54, 120))]
    path, out = tmp_path / "in.pcap", tmp_path / "out.pcapng"
    path.write_bytes(pcap_header() + b"".join(map(cut_record, times, contents)))
    done = redacted(path, out, keys=KeyRing.load(CAPTURES / "keys"))
    assert done.same.same
    for before, after in zip(done.before.conversations, done.after.conversations, strict=True):
        assert [q.counts for q in before.quality] == [q.counts for q in after.quality]
        assert before.secrets is not None
        assert after.secrets is not None
        assert before.secrets.opened == after.secrets.opened
        assert [m.plaintext for m in before.messages if m.whole] == [m.plaintext for m in after.messages if m.whole]


def cut_record(time_ns: int, data: bytes) -> bytes:
    """A record that says how long its packet was, by the length in its IP header."""
    length = 14 + int.from_bytes(data[16:18])
    return record(data, time_ns // 10**9, time_ns % 10**9 // 1000, max(length, len(data)))


# -- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def in_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


def test_the_command_says_what_is_the_same_and_what_can_still_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "posted.pcapng"
    said = shown(capsys, "redact", str(CAPTURES / "two-devices-background.pcap"), str(out))
    flat = " ".join(said.split())
    assert "91 packets of 4 Spark connections" in flat
    assert "The same: SPK206, SPK401 and SPK001." in flat
    assert "Device A is 10.0.0.1 and Device B is 10.0.0.2, as in a redacted report" in flat
    assert "241 packets of other traffic" in flat
    assert "private key of the device or of the server can read" in flat
    assert max(map(len, said.splitlines()[1:])) <= 80
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    report = shown(capsys, "analyze", "--redact", str(CAPTURES / "two-devices-background.pcap"))
    posted = shown(capsys, "analyze", str(out))
    for line in report.splitlines():
        if line.startswith("  Device "):
            name = line.split("  ")[1]
            address = {"Device A": "10.0.0.1", "Device B": "10.0.0.2"}[name]
            assert re.search(rf"^  {address} +{line.split()[2]}", posted, re.MULTILINE)


def test_what_is_lost_is_said_with_the_way_to_keep_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(story("dns-failed", tmp_path))
    said = " ".join(shown(capsys, "redact", path, str(tmp_path / "a.pcapng")).split())
    assert "Not to be seen any more: SPK105" in said
    assert "--with-lookups" in said
    said = " ".join(shown(capsys, "redact", "--with-lookups", path, str(tmp_path / "b.pcapng")).split())
    assert "Not to be seen" not in said
    assert "of name lookups" in said
    quiet = shown(capsys, "redact", "--quiet", path, str(tmp_path / "c.pcapng"))
    assert quiet.startswith("Verdict")


def test_times_of_day_can_be_hidden(tmp_path: Path) -> None:
    path, out = CAPTURES / "healthy-full.pcap", tmp_path / "out.pcapng"
    done = redacted(path, out, shift_time=True)
    assert done.same.same
    times = [[s.time_ns for s in segments(p)] for p in (path, out)]
    assert [t - times[0][0] for t in times[0]] == [t - times[1][0] for t in times[1]]
    assert times[1][0] == 946_684_800 * 10**9


def test_pipes_on_either_side(tmp_path: Path) -> None:
    data = (CAPTURES / "key-mismatch-retries.pcap").read_bytes()
    done = sparkshark("redact", "-", "-", stdin=data, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"The same: SPK207" in done.stderr
    (tmp_path / "x.pcapng").write_bytes(done.stdout)
    direct = sparkshark("redact", str(CAPTURES / "key-mismatch-retries.pcap"), "y.pcapng", cwd=tmp_path)
    assert direct.returncode == 0
    assert (tmp_path / "y.pcapng").read_bytes() == done.stdout
    assert sorted(os.listdir(tmp_path)) == ["x.pcapng", "y.pcapng"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["{mismatch}", "there.pcapng"], "there.pcapng: exists already. Nothing was written"),
        (["{mismatch}", "no/x.pcapng"], "the folder no does not exist"),
        (["{mismatch}", "."], "a folder, and OUT is one file"),
        (["own.pcap", "own.pcap", "--force"], "is IN as well"),
        ([".", "there.pcapng", "--force"], "is IN as well"),
        (["nothing.pcap", "x.pcapng"], "nothing.pcap: no such file"),
        (["{mismatch}"], "redact: OUT is missing"),
        (["{other}", "x.pcapng"], "no Spark connection in it. Nothing was written"),
        (["{mismatch}", "--with-lookup", "x.pcapng"], "Did you mean --with-lookups?"),
    ],
)
def test_what_cannot_be_done_is_one_line(words: list[str], line: str, tmp_path: Path) -> None:
    (tmp_path / "there.pcapng").write_bytes(b"mine")
    own = (CAPTURES / "key-mismatch-retries.pcap").read_bytes()
    (tmp_path / "own.pcap").write_bytes(own)
    names = {"mismatch": CAPTURES / "key-mismatch-retries.pcap", "other": story("no-spark", tmp_path)}
    before = sorted(os.listdir(tmp_path))
    done = sparkshark("redact", *(word.format(**names) for word in words), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert line in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "there.pcapng").read_bytes() == b"mine"
    assert (tmp_path / "own.pcap").read_bytes() == own


def test_the_check_finds_what_should_not_be_there(tmp_path: Path) -> None:
    path, out = CAPTURES / "key-mismatch-retries.pcap", tmp_path / "out.pcapng"
    done = redacted(path, out)
    assert list(leaks(str(out), done.disguise)) == []
    assert list(leaks(str(path), done.disguise)), "the original itself"
    told = talk(("server", b"220 a mail server of 192.168.1.104 it is, and of 08:00:28:57:3a:c1\r\n"))
    (tmp_path / "told.pcap").write_bytes(told)
    found = list(leaks(str(tmp_path / "told.pcap"), done.disguise, [b"MAIL"]))
    assert any("192.168.1.104" in leak for leak in found)
    assert any("mail" in leak for leak in found)
    asked = Ether(src="02:00:00:00:00:01") / ARP(op=1, hwsrc="02:00:00:00:00:01", psrc="192.168.1.77", pdst="10.0.0.1")
    (tmp_path / "asked.pcap").write_bytes(capture_of([(10**9, bytes(asked))]))
    assert "packet 1: c0a8014d" in list(leaks(str(tmp_path / "asked.pcap"), done.disguise))
    inside = talk(("server", b"\x01\x02" + bytes.fromhex("080028573ac1") + b"\x03"))
    (tmp_path / "inside.pcap").write_bytes(inside)
    assert any(leak.endswith(": 080028573ac1") for leak in leaks(str(tmp_path / "inside.pcap"), done.disguise))


def test_a_packet_keeps_its_place(tmp_path: Path) -> None:
    """Truth about the shipped captures holds for the redacted ones, packet by packet."""
    path = CAPTURES / "key-mismatch-retries.pcap"
    truth = json.loads(path.with_suffix("").with_suffix(".truth.json").read_text())
    assert truth
    redacted(path, tmp_path / "out.pcapng")
    old: list[Packet] = list(Capture([path]))
    new: list[Packet] = list(Capture([tmp_path / "out.pcapng"]))
    assert [p.number for p in old] == [p.number for p in new]
    assert [len(p.data) for p in old] == [len(p.data) for p in new]
