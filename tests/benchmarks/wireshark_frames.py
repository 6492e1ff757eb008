"""What the plugin costs inside tshark: ``python -m tests.benchmarks.wireshark_frames [FRAMES]`` (100,000 if not said).

Makes a capture of logins and encrypted frames, and lets the machine's tshark print its packet list: without the
plugin, with it, and with it and the device's key; in one pass and in two. Runs go in turns, the best of each counts.
Printed are wall time, the plugin's share of it for each frame, and peak memory; nothing is asserted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from tabulate import tabulate

from analyzer.simulate import exchanges, finish, make_world
from analyzer.simulate.conversation import Conversation
from analyzer.wireshark.generate import FILE_NAME, plugin_text

FRAMES: Final = 100_000
SESSIONS: Final = 20
ROUNDS: Final = 3
NS: Final = 1_000_000_000
PORTS: Final = slice(34, 38)
CHECKSUM: Final = slice(50, 52)
"""Where an Ethernet frame with IPv4 has the two ports of TCP, and TCP's checksum."""
DEVICE_KEY: Final = "core-a.der"
"""The one key that decrypts. The server's private key, which lies beside it, would open each login's 2048 bits, too."""
FRAMES_OF_A_ROUND: Final = 8
"""Frames that `_talk` makes in one go."""


class Cost(NamedTuple):
    """Wall time in seconds and peak memory in MiB."""

    wall: float
    peak: float


def write_capture(path: Path, frames: int) -> int:
    """Write the capture and its keys beside it; return the number of encrypted frames.

    One session is played; the others are the same bytes from other ports, one after the other.
    """
    world = make_world(seed=1)
    c = Conversation(world, world.add_device(), at=0.0)
    c.handshake()
    for number in range(frames // SESSIONS // FRAMES_OF_A_ROUND):
        _talk(c, number)
    c.close("device")
    played = finish(world)
    length = played.packets[-1].time_ns - played.packets[0].time_ns + NS
    port = c.tcp.ends["device"].port
    played.packets = [
        replace(packet, time_ns=packet.time_ns + session * length, data=_from_port(packet.data, port, port + session))
        for session in range(SESSIONS)
        for packet in played.packets
    ]
    played.write(path, force=True)
    return SESSIONS * sum(len(record["c2s"]) + len(record["s2c"]) for record in world.records)


def _from_port(frame: bytes, old: int, new: int) -> bytes:
    """Exchange the device's port in an Ethernet frame, and keep the checksum right (RFC 1624)."""
    ports = frame[PORTS].replace(old.to_bytes(2, "big"), new.to_bytes(2, "big"), 1)
    checksum = int.from_bytes(frame[CHECKSUM], "big") - (new - old)
    checksum = checksum + 0xFFFF if checksum < 0 else checksum
    return (
        frame[: PORTS.start]
        + ports
        + frame[PORTS.stop : CHECKSUM.start]
        + checksum.to_bytes(2, "big")
        + frame[CHECKSUM.stop :]
    )


def _talk(c: Conversation, number: int) -> None:
    """Four questions and their answers: one or two AES blocks each, as most traffic is."""
    exchanges.publish(c, "temp", f"{number % 40}.5", after=0.01)
    exchanges.publish(c, "greenhouse/humidity", f"{number % 100}", after=0.01)
    exchanges.read_variable(c, "count", number.to_bytes(4, "big"), after=0.01)
    exchanges.read_variable(c, "temperature", bytes(8), after=0.01)


def cost(command: list[str]) -> Cost:
    """Run one command, its output thrown away."""
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said = process.stderr.read() if process.stderr else b""
    wall = time.perf_counter() - begun
    if process.returncode or said:
        raise RuntimeError(said.decode() or f"exit status {process.returncode}")
    return Cost(wall, used.ru_maxrss / 1024)


def main(arguments: list[str]) -> int:
    """Measure and print."""
    frames = int(arguments[0]) if arguments else FRAMES
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        capture, plugin = Path(folder) / "frames.pcap", Path(folder) / FILE_NAME
        count = write_capture(capture, frames)
        plugin.write_text(plugin_text(), encoding="utf-8")
        script = ["-X", f"lua_script:{plugin}"]
        key = ["-o", f"spark.device_key:{folder}/keys/{DEVICE_KEY}"]
        kinds = {"no plugin": [], "plugin": script, "plugin and key": [*script, *key]}
        # As root, newer Wiresharks skip scripts, and all of them complain.
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
        user += ["env", "-i", f"HOME={folder}/nobody", f"PATH={os.environ['PATH']}"]
        runs = {
            (kind, passes): [*user, "tshark", "-n", *options, *(["-2"] if passes == "two" else []), "-r", str(capture)]
            for kind, options in kinds.items()
            for passes in ("one", "two")
        }
        best: dict[tuple[str, str], Cost] = {}
        for _ in range(ROUNDS):
            for name, command in runs.items():
                taken = cost(command)
                best[name] = min(best.get(name, taken), taken)
    rows = []
    for (kind, passes), taken in best.items():
        bare = best["no plugin", passes]
        share = (taken.wall - bare.wall) / count * 1e6
        memory = (taken.peak - bare.peak) / count * 1024
        rows.append((kind, passes, f"{taken.wall:.2f}", f"{share:.1f}", f"{taken.peak:.0f}", f"{memory:.2f}"))
    version = subprocess.run(["tshark", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    print(f"{count:,} encrypted frames in {SESSIONS} sessions; {version}; best of {ROUNDS}, in turns\n")
    header = ["tshark with", "passes", "s", "µs a frame", "peak MiB", "KiB a frame"]
    print(tabulate(rows, header, disable_numparse=True))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
