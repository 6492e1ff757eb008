"""What the tests of the screens share: a command run as a user runs it, and the captures it is run on."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from analyzer.cli import main
from analyzer.simulate import simulate

ROOT = Path(__file__).parent.parent
CAPTURES = ROOT / "captures"
SHIPPED = sorted(path.stem for path in CAPTURES.glob("*.pcap"))
ATTEMPTS = {"retries": 40}
"""Scenarios of which fewer attempts than usual show the same."""
RING_TURNS = 1000
RING_FILES = 12
RING_STEP_S = 64
SCREEN = ("LC_ALL", "LC_CTYPE", "LANG", "NO_COLOR", "TERM", "COLUMNS")
"""Variables that say how a screen looks: the tests choose."""


def sparkshark(
    *words: str | bytes,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    before: list[str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own, with a UTF-8 locale unless ``env`` says otherwise."""
    settings = {
        **{
            k: v
            for k, v in os.environ.items()
            if k not in ("LC_ALL", "LC_CTYPE", "LANG", "NO_COLOR", "TERM", "COLUMNS")
        },
        "PYTHONPATH": str(ROOT),
        "LC_ALL": "C.UTF-8",
        "TERM": "xterm",
        **(env or {}),
    }
    command = [*(before or []), sys.executable, "-P", "-m", "analyzer", *words]
    return subprocess.run(
        command, cwd=cwd, env=settings, input=stdin or b"", capture_output=True, check=False, timeout=60
    )


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run the command in this process; return what it wrote to standard output."""
    status = main(words)
    output = capsys.readouterr()
    assert status == 0, output.err
    assert "internal error" not in output.err
    return output.out


def story(name: str, folder: Path) -> Path:
    """Write the capture of a scenario."""
    path = folder / f"{name}.pcap"
    if not path.exists():
        path.write_bytes(simulate(name, attempts=ATTEMPTS.get(name)).capture())
    return path


def ring(folder: Path) -> Path:
    """Write a ring buffer of 12 files: the three attempts of the shipped capture 1,000 times, 64 s apart, each
    time from other ports of the device.
    """
    header, packets = _packets((CAPTURES / "key-mismatch-retries.pcap").read_bytes())
    folder.mkdir()
    for place in range(RING_FILES):
        turns = range(place * RING_TURNS // RING_FILES, (place + 1) * RING_TURNS // RING_FILES)
        content = [header]
        for turn in turns:
            for seconds, fraction, data in packets:
                moved = _from_port(data, turn)
                content.append(
                    struct.pack("<IIII", seconds + turn * RING_STEP_S, fraction, len(moved), len(moved)) + moved
                )
        (folder / f"ring_{place:05}.pcap").write_bytes(b"".join(content))
    return folder


def _packets(capture: bytes) -> tuple[bytes, list[tuple[int, int, bytes]]]:
    """Take a little-endian pcap file of whole packets apart."""
    packets, place = [], 24
    while place < len(capture):
        seconds, fraction, length, _ = struct.unpack_from("<IIII", capture, place)
        packets.append((seconds, fraction, capture[place + 16 : place + 16 + length]))
        place += 16 + length
    return capture[:24], packets


def _from_port(packet: bytes, turn: int) -> bytes:
    """Move the device's TCP port by ``turn``, and the checksum with it (RFC 1624)."""
    if packet[12:14] != b"\x08\x00" or packet[23] != 6:
        return packet
    tcp = 14 + 4 * (packet[14] & 15)
    source, target = struct.unpack_from("!HH", packet, tcp)
    at = tcp if target == 5683 else tcp + 2
    old = source if target == 5683 else target
    new = 20_000 + (old + 3 * turn) % 40_000
    (checksum,) = struct.unpack_from("!H", packet, tcp + 16)
    total = (~checksum & 0xFFFF) + (~old & 0xFFFF) + new
    total = (total & 0xFFFF) + (total >> 16)
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    moved = bytearray(packet)
    struct.pack_into("!H", moved, at, new)
    struct.pack_into("!H", moved, tcp + 16, total)
    return bytes(moved)
