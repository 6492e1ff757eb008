"""Attacks by TCP: connections, sequence numbers, segments."""

from __future__ import annotations

import random
import struct
from pathlib import Path

from attacks.model import Run, analyzed, attack
from attacks.scene import ACK, ATTACKER, DATA, RST, SYN, SYN_ACK, Scene, address, from_device, from_server, scene

NOISE = random.Random(5683).randbytes(1 << 16)


def opened(made: Scene, device: bytes = ATTACKER, port: int = 4000) -> None:
    """A connection that comes up, and nothing more."""
    made.add(from_device(device, port, 999, 0, SYN))
    made.add(from_server(device, port, 4999, 1000, SYN_ACK))
    made.add(from_device(device, port, 1000, 5000, ACK))


def logged_in(made: Scene, device: bytes = ATTACKER, port: int = 4000) -> None:
    """... and a login of random bytes: the device's next number is 1256, the server's 5424."""
    opened(made, device, port)
    made.add(from_server(device, port, 5000, 1000, DATA, NOISE[:40]))
    made.add(from_device(device, port, 1000, 5040, DATA, NOISE[40:296]))
    made.add(from_server(device, port, 5040, 1256, DATA, NOISE[296:680]))


@attack(
    "half-open",
    "a connection request from a new address each time",
    size=1_000_000,
    unit="connections",
    bound="tracker.READY",
    each=1_600,
)
def half_open(folder: Path, n: int) -> Run:
    with scene(folder / "a.pcap", n) as made:
        for number in range(n):
            made.add(from_device(address(number), 1024 + number % 60_000, number * 77_777, 0, SYN))
    return Run(["analyze", str(folder / "a.pcap"), "--jobs", "1"], bystander=False)


@attack(
    "doubted",
    "connections whose server sends a second greeting in the midst of frames, and then nothing",
    size=24_000,
    unit="connections",
    bound="tracker.READY",
    each=6_000,
)
def doubted(folder: Path, n: int) -> Run:
    with scene(folder / "a.pcap", n * 7) as made:
        for number in range(n):
            device = address(number)
            logged_in(made, device)
            made.add(from_server(device, 4000, 5424, 1256, DATA, NOISE[:40]))
    return Run(["analyze", str(folder / "a.pcap"), "--jobs", "1"], bystander=False)


@attack(
    "by-turns",
    "more open connections than are held ready, each with a segment when all others had one",
    size=24_000,
    unit="connections",
    bound="tracker.READY",
    each=3_500,
)
def by_turns(folder: Path, n: int) -> Run:
    with scene(folder / "a.pcap", n * 5) as made:
        for number in range(n):
            opened(made, address(number))
        for turn in range(2):
            for number in range(n):
                made.add(from_device(address(number), 4000, 1000 + turn, 5000, DATA, b"x"))
    return Run(["analyze", str(folder / "a.pcap"), "--jobs", "1"], bystander=False)


@attack(
    "same-port",
    "a connection request with another sequence number each time, from one port",
    size=24_000,
    unit="connections",
    bound="tracker.READY",
    each=2_000,
)
def same_port(folder: Path, n: int) -> Run:
    with scene(folder / "a.pcap", n) as made:
        for number in range(n):
            made.add(from_device(ATTACKER, 4000, number * 7_777_777, 0, SYN))
    return Run(["analyze", str(folder / "a.pcap"), "--jobs", "1"], bystander=False)


@attack(
    "out-of-order",
    "one connection, each segment one byte beyond the one before, the hole in front never filled",
    size=300_000,
    unit="segments",
    bound="streams.PENDING_PIECES",
)
def out_of_order(folder: Path, n: int) -> Run:
    with scene(folder / "a.pcap", n + 6) as made:
        logged_in(made)
        for number in range(n):
            made.add(from_device(ATTACKER, 4000, 1257 + 2 * number, 5424, DATA, b"x"))
    return analyzed(folder / "a.pcap")


@attack(
    "backwards",
    "one connection, its segments in falling order before a hole, again and again",
    size=100_000,
    unit="segments",
    bound="streams.PENDING_PIECES",
)
def backwards(folder: Path, n: int) -> Run:
    with scene(folder / "a.pcap", n + 6) as made:
        logged_in(made)
        for number in range(n):
            turn, place = divmod(number, 1000)
            made.add(from_device(ATTACKER, 4000, 1256 + 40_000 * turn + 20 * (1000 - place), 5424, DATA, b"0123456789"))
    return analyzed(folder / "a.pcap")


@attack(
    "overlaps",
    "one connection, segments that overlap each other with other bytes, before a hole and behind it",
    size=100_000,
    unit="segments",
    bound="streams.RECENT",
)
def overlaps(folder: Path, n: int) -> Run:
    rng = random.Random(1)
    with scene(folder / "a.pcap", n + 6) as made:
        logged_in(made)
        for number in range(n):
            at, size = rng.randrange(4000), rng.randrange(1, 1400)
            data = NOISE[number % 1000 : number % 1000 + size]
            made.add(from_device(ATTACKER, 4000, 1258 + number // 8 + at, 5424, DATA, data))
    return analyzed(folder / "a.pcap")


@attack(
    "acknowledged",
    "one connection, acknowledgements of bytes that are never seen, a byte more each time",
    size=200_000,
    unit="segments",
    bound="streams.STEPS",
)
def acknowledged(folder: Path, n: int) -> Run:
    with scene(folder / "a.pcap", n + 6) as made:
        logged_in(made)
        for number in range(n):
            made.add(from_device(ATTACKER, 4000, 1256, 5425 + number, ACK))
    return analyzed(folder / "a.pcap")


@attack(
    "bytes",
    "one connection, a byte in each segment, its frames never whole",
    size=200_000,
    unit="segments",
    bound="frames.SEARCH_WINDOW",
)
def single_bytes(folder: Path, n: int) -> Run:
    with scene(folder / "a.pcap", n + 6) as made:
        logged_in(made)
        for number in range(n):
            made.add(from_device(ATTACKER, 4000, 1256 + number, 5424, DATA, NOISE[number & 0xFFFF :][:1]))
    return analyzed(folder / "a.pcap")


@attack(
    "lost-framing",
    "one connection, full segments of random bytes in the place of frames",
    size=30_000,
    unit="segments",
    bound="frames.SEARCH_WINDOW",
)
def lost_framing(folder: Path, n: int) -> Run:
    with scene(folder / "a.pcap", n + 6) as made:
        logged_in(made)
        for number in range(n):
            data = NOISE[number * 17 % 60_000 :][:1400]
            made.add(from_device(ATTACKER, 4000, 1256 + 1400 * number, 5424, DATA, data))
    return analyzed(folder / "a.pcap")


@attack(
    "short-frames",
    "one connection, segments full of frames that look right and end in one that does not",
    size=20_000,
    unit="segments",
    bound="frames.LOST_LISTED",
)
def short_frames(folder: Path, n: int) -> Run:
    frames = b"".join(b"\0\x10" + NOISE[16 * i : 16 * i + 16] for i in range(75)) + b"\xff\xff"
    with scene(folder / "a.pcap", n + 6) as made:
        logged_in(made)
        for number in range(n):
            made.add(from_device(ATTACKER, 4000, 1256 + len(frames) * number, 5424, DATA, frames))
    return analyzed(folder / "a.pcap")


@attack(
    "holes",
    "one connection, a frame and a hole that was acknowledged, again and again",
    size=60_000,
    unit="holes",
    bound="conversation.HOLES",
)
def holes(folder: Path, n: int) -> Run:
    frame = b"\0\x10" + NOISE[:16]
    with scene(folder / "a.pcap", 2 * n + 6) as made:
        logged_in(made)
        for number in range(n):
            made.add(from_device(ATTACKER, 4000, 1274 + 36 * number, 5424, DATA, frame))
            made.add(from_server(ATTACKER, 4000, 5424, 1292 + 36 * number, ACK))
    return analyzed(folder / "a.pcap")


@attack(
    "cut",
    "one connection, segments that claim 64 KiB each, of which nothing was captured",
    size=100_000,
    unit="segments",
    bound="streams.PENDING_PIECES",
)
def cut(folder: Path, n: int) -> Run:
    with scene(folder / "a.pcap", n + 6) as made:
        logged_in(made)
        for number in range(n):
            packet = from_device(ATTACKER, 4000, 1258 + 7 * number, 5424, DATA)
            made.add(packet[:16] + struct.pack(">H", 65_535) + packet[18:])
    return analyzed(folder / "a.pcap")


@attack(
    "resets",
    "one connection, nothing but resets and repeats of its first request",
    size=100_000,
    unit="segments",
    bound="conversation.CLOSINGS",
)
def resets(folder: Path, n: int) -> Run:
    with scene(folder / "a.pcap", n + 6) as made:
        logged_in(made)
        for number in range(n):
            if number % 2:
                made.add(from_device(ATTACKER, 4000, 1256 + number // 100_000, 5424, RST))
            else:
                made.add(from_device(ATTACKER, 4000, 999, 0, SYN))
    return analyzed(folder / "a.pcap")


@attack(
    "dead-frames",
    "devices that only ever send pings under an all-zero key",
    size=50_000,
    unit="frames",
    bound="conversation.DEAD_FRAMES",
)
def dead_frames(folder: Path, n: int) -> Run:
    from analyzer.simulate.messages import ping  # noqa: PLC0415
    from analyzer.simulate.parties import FrameCipher  # noqa: PLC0415

    with scene(folder / "a.pcap", n + 6) as made:
        logged_in(made)
        cipher = FrameCipher(bytes(16), bytes(16))
        for number in range(n):
            frame = cipher.seal(ping(number & 0xFFFF))
            made.add(from_device(ATTACKER, 4000, 1256 + 18 * number, 5424, DATA, frame))
    return analyzed(folder / "a.pcap")


@attack(
    "random-frames",
    "frames that no key opens, with keys given",
    size=100_000,
    unit="frames",
    bound="decryption.BAD_FRAMES",
)
def random_frames(folder: Path, n: int) -> Run:
    from attacks.scene import ROOT  # noqa: PLC0415

    with scene(folder / "a.pcap", n + 6) as made:
        logged_in(made)
        for number in range(n):
            frame = b"\0\x10" + NOISE[number * 16 % 60_000 :][:16]
            made.add(from_device(ATTACKER, 4000, 1256 + 18 * number, 5424, DATA, frame))
    run = analyzed(folder / "a.pcap", "--keys", str(ROOT / "captures" / "keys"))
    run.words += ["--session-key", "00" * 40]
    return run


@attack(
    "random-logins",
    "logins that no key opens, with forty keys given",
    size=2_000,
    unit="logins",
    bound="session.opening.MOST_TRIES",
    each=8_000,
)
def random_logins(folder: Path, n: int) -> Run:
    from attacks.scene import ROOT  # noqa: PLC0415

    with scene(folder / "a.pcap", 6 * n) as made:
        for number in range(n):
            device = address(number)
            opened(made, device)
            made.add(from_server(device, 4000, 5000, 1000, DATA, NOISE[number : number + 40]))
            made.add(from_device(device, 4000, 1000, 5040, DATA, b"\0" + NOISE[number : number + 255]))
            made.add(from_server(device, 4000, 5040, 1256, DATA, b"\0" + NOISE[number : number + 383]))
    return analyzed(folder / "a.pcap", "--keys", str(ROOT / "captures" / "keys"))
