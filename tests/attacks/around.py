"""Attacks below and beside TCP: fragments, tunnels, name lookups, announcements, other ports."""

from __future__ import annotations

import random
import struct
from pathlib import Path

from benchmarks.workload import ethernet

from attacks.model import Run, analyzed, attack
from attacks.scene import ACK, ATTACKER, DATA, IPV4, SERVER, SYN, address, framed, from_device, ip, scene, udp

NOISE = random.Random(1).randbytes(1 << 16)
ROUTER = bytes((192, 168, 1, 1))
MORE = 0x2000


@attack(
    "fragments",
    "first pieces of datagrams whose others never come, each of the largest extent",
    size=300_000,
    unit="fragments",
    bound="network.fragments.MAX_WAITING_BYTES",
)
def fragments(folder: Path, n: int) -> Run:
    with scene(folder / "a.pcap", n) as made:
        for number in range(n):
            piece = ip(address(number >> 8), SERVER, 6, NOISE[:8], number=number, place=MORE | 8_100)
            made.add(framed(piece))
    return analyzed(folder / "a.pcap")


@attack(
    "holed-fragments",
    "one datagram after the other, every second eight bytes of each",
    size=200_000,
    unit="fragments",
    bound="network.fragments.MAX_HOLES",
)
def holed_fragments(folder: Path, n: int) -> Run:
    with scene(folder / "a.pcap", n) as made:
        for number in range(n):
            turn, place = divmod(number, 4_000)
            made.add(framed(ip(ATTACKER, SERVER, 6, NOISE[:8], number=turn, place=MORE | 2 * place)))
    return analyzed(folder / "a.pcap")


@attack(
    "whole-fragments",
    "a datagram of 64 KiB, then its first piece with other bytes, again and again",
    size=200_000,
    unit="fragments",
    bound="network.fragments.LARGEST_DATAGRAM",
)
def whole_fragments(folder: Path, n: int) -> Run:
    pieces = [(MORE if at < 64_000 else 0) | at // 8 for at in range(0, 65_000, 1_000)]
    with scene(folder / "a.pcap", n) as made:
        for number in range(n):
            place = pieces[number % len(pieces)]
            at = number // len(pieces) % 60_000
            made.add(framed(ip(ATTACKER, SERVER, 17, NOISE[at : at + 1000], number=1, place=place)))
    return analyzed(folder / "a.pcap")


@attack(
    "tunnels",
    "packets with 65 IP headers, one inside the other, the last with a Spark segment",
    size=100_000,
    unit="packets",
    bound="network.frame.MAX_LAYERS",
)
def tunnels(folder: Path, n: int) -> Run:
    inner = ip(ATTACKER, SERVER, 6, from_device(ATTACKER, 4000, 1, 0, SYN)[34:])
    for _ in range(64):
        inner = ip(ATTACKER, SERVER, 4, inner)
    with scene(folder / "a.pcap", n) as made:
        for _ in range(n):
            made.add(framed(inner))
    return analyzed(folder / "a.pcap")


@attack(
    "extension-headers",
    "IPv6 packets with 170 extension headers in front of a Spark segment",
    size=100_000,
    unit="packets",
    bound="network.ip.MAX_EXTENSION_HEADERS",
)
def extension_headers(folder: Path, n: int) -> Run:
    rest = b"\x3c\0" + bytes(6)
    payload = rest * 169 + b"\x06\0" + bytes(6) + from_device(ATTACKER, 4000, 1, 0, SYN)[34:]
    packet = b"\x60\0\0\0" + struct.pack(">HBB", len(payload), 60, 64) + bytes(15) + b"\1" + bytes(15) + b"\2" + payload
    with scene(folder / "a.pcap", n) as made:
        for _ in range(n):
            made.add(framed(packet, kind=0x86DD))
    return analyzed(folder / "a.pcap")


def question(number: int, name: bytes) -> bytes:
    labels = b"".join(bytes((len(part),)) + part for part in name.split(b"."))
    return struct.pack(">HHHHHH", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"


@attack(
    "names",
    "name lookups of the cloud, another name from another address each time",
    size=1_000_000,
    unit="lookups",
    bound="background.LOOKUPS",
)
def names(folder: Path, n: int) -> Run:
    with scene(folder / "a.pcap", n) as made:
        for number in range(n):
            payload = question(number, b"n%d.spark.io" % number)
            made.add(udp(address(number), 40_000, ROUTER, 53, payload))
    return analyzed(folder / "a.pcap")


@attack(
    "answers",
    "answers to name lookups whose names are chains of pointers and loops of them",
    size=20_000,
    unit="answers",
    bound="background.LOOKUP_PACKETS",
)
def answers(folder: Path, n: int) -> Run:
    chain = b"".join(struct.pack(">H", 0xC000 | 12 + 18 + 2 * i) for i in range(400))
    records = b"".join(struct.pack(">HHHIH", 0xC000 | 820, 1, 1, 60, 4) + b"\1\2\3\4" for _ in range(30))
    with scene(folder / "a.pcap", n) as made:
        for number in range(n):
            asked = question(number, b"device.spark.io")
            head = struct.pack(">HHHHHH", number & 0xFFFF, 0x8180, 1, 30, 0, 0)
            made.add(udp(ROUTER, 53, address(number % 200), 40_000, head + asked[12:] + chain + records))
    return analyzed(folder / "a.pcap")


@attack(
    "announcements",
    "announcements of devices, another ID from another address each time",
    size=300_000,
    unit="announcements",
    bound="background.ANNOUNCERS",
)
def announcements(folder: Path, n: int) -> Run:
    from analyzer.simulate.messages import presence  # noqa: PLC0415

    with scene(folder / "a.pcap", n) as made:
        for number in range(n):
            datagram = presence(number.to_bytes(12, "big"))
            made.add(udp(address(number), 5683, bytes((224, 0, 1, 187)), 5683, datagram))
    return analyzed(folder / "a.pcap")


@attack(
    "asked-for",
    "ARP questions, DHCP requests and ICMP errors, of another machine each time",
    size=300_000,
    unit="packets",
    bound="background.QUESTIONS",
)
def asked_for(folder: Path, n: int) -> Run:
    cookie = bytes((99, 130, 83, 99))
    with scene(folder / "a.pcap", n) as made:
        for number in range(n):
            own = address(number)
            mac = b"\x02\0" + own
            if number % 3 == 0:
                arp = struct.pack(">HHBBH", 1, IPV4, 6, 4, 1) + mac + own + bytes(6) + ROUTER
                made.add(framed(arp, own, 0x0806))
            elif number % 3 == 1:
                body = b"\1\1\6\0" + bytes(24) + mac + bytes(202) + cookie + b"\x35\1\1\xff"
                made.add(udp(own, 68, b"\xff" * 4, 67, body))
            else:
                quoted = ip(own, SERVER, 6, struct.pack(">HHI", 4000, 5683, number))
                made.add(framed(ip(ROUTER, own, 1, struct.pack(">BBHI", 3, 1, 0, 0) + quoted), ROUTER))
    return analyzed(folder / "a.pcap")


@attack(
    "other-ports",
    "connections to another port each time, each with a segment of our greeting's size",
    size=300_000,
    unit="packets",
    bound="background.FLOWS",
)
def other_ports(folder: Path, n: int) -> Run:
    with scene(folder / "a.pcap", n) as made:
        for number in range(n):
            flow, step = divmod(number, 2)
            ends = (address(flow), 40_000), (SERVER, 1 + flow % 5_000)
            if step:
                made.add(ethernet(*ends[::-1], (1, 1), DATA, NOISE[:40]))
            else:
                made.add(ethernet(*ends, (1, 0), SYN, b""))
    return analyzed(folder / "a.pcap")


@attack(
    "passed-by",
    "segments of running connections on other ports, each of another one",
    size=600_000,
    unit="segments",
    bound="network.sieve.MOST_CONNECTIONS",
)
def passed_by(folder: Path, n: int) -> Run:
    with scene(folder / "a.pcap", n) as made:
        for number in range(n):
            ends = (address(number // 3), 40_000), (SERVER, 443)
            made.add(ethernet(*ends, (number % 3 * 100, 1), ACK | DATA, NOISE[:100]))
    return analyzed(folder / "a.pcap")
