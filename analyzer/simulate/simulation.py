"""The result of a simulation and its files: the capture, the truth about it, and the keys."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from analyzer.outfile import new_file
from analyzer.simulate.wire import Packet
from analyzer.simulate.world import World

_SNAPLEN: Final = 262144
_PCAP_MAGIC: Final = 0xA1B2C3D4
_SECTION: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
_ENHANCED_PACKET: Final = 6
_BYTE_ORDER: Final = 0x1A2B3C4D


@dataclass(slots=True)
class Simulation:
    """A synthetic capture with everything that is known about it.

    `truth` has the form of the truth files in `captures/`; `keys` maps file names to their contents.
    """

    name: str
    packets: list[Packet] = field(repr=False)
    link_type: int
    truth: dict[str, Any] = field(repr=False)
    keys: dict[str, bytes] = field(default_factory=dict, repr=False)

    def capture(self, suffix: str = ".pcap") -> bytes:
        """Return the capture file; `.pcapng` keeps interfaces apart, `.pcap` cannot."""
        if suffix == ".pcapng":
            return pcapng(self.packets, self.link_type)
        return pcap(self.packets, self.link_type)

    def write(self, path: str | Path, *, force: bool = False) -> list[Path]:
        """Write capture, truth file and a folder `keys` beside them; returns what was written.

        Keys, and the truth, which has the session keys, are readable by their owner alone. The suffix of `path` chooses
        pcap or pcapng. Raises FileExistsError, with the name, before anything is written when a file of other content
        is in the way and `force` is not set; OSError when it cannot be written.
        """
        path = Path(path)
        truth = {**self.truth, "capture": path.name}
        files = {
            path: self.capture(path.suffix),
            path.with_suffix(".truth.json"): json.dumps(truth, indent=1).encode() + b"\n",
            **{path.parent / "keys" / name: content for name, content in sorted(self.keys.items())},
        }
        for file, content in files.items():
            # Simulations of one seed share their keys, so a key that is there already is no conflict.
            same = file.parent.name == "keys" and file.is_file() and file.read_bytes() == content
            if os.path.lexists(file) and not same and not force:
                raise FileExistsError(f"{file}: exists already")
        with ExitStack() as written:  # all of them, or none
            for file, content in files.items():
                if not file.parent.is_dir():
                    file.parent.mkdir(mode=0o700, parents=True)
                    written.callback(_remove_empty, file.parent)
                stream = written.enter_context(new_file(file, private=file != path))
                stream.write(content)
                stream.flush()
        return list(files)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def pcap(packets: Sequence[Packet], link_type: int) -> bytes:
    """Return a classic capture file with microseconds."""
    parts = [struct.pack("<IHHiIII", _PCAP_MAGIC, 2, 4, 0, 0, _SNAPLEN, link_type)]
    for packet in packets:
        seconds, rest = divmod(packet.time_ns, 10**9)
        sizes = (len(packet.data), packet.original_length)
        parts += [struct.pack("<IIII", seconds, rest // 1000, *sizes), packet.data]
    return b"".join(parts)


def pcapng(packets: Sequence[Packet], link_type: int) -> bytes:
    """Return a pcapng file with a block for each interface, microseconds."""
    parts = [_block(_SECTION, struct.pack("<IHHq", _BYTE_ORDER, 1, 0, -1))]
    interfaces = 1 + max((packet.interface for packet in packets), default=0)
    for number in range(interfaces):
        name = f"eth{number}".encode()
        options = struct.pack("<HH", 2, len(name)) + name.ljust(-(-len(name) // 4) * 4, b"\x00") + bytes(4)
        parts.append(_block(_INTERFACE, struct.pack("<HHI", link_type, 0, _SNAPLEN) + options))
    for packet in packets:
        time = packet.time_ns // 1000
        header = (packet.interface, time >> 32, time & 0xFFFFFFFF, len(packet.data), packet.original_length)
        padding = bytes(-len(packet.data) % 4)
        parts.append(_block(_ENHANCED_PACKET, struct.pack("<IIIII", *header) + packet.data + padding))
    return b"".join(parts)


def _block(kind: int, body: bytes) -> bytes:
    size = 12 + len(body)
    return struct.pack("<II", kind, size) + body + struct.pack("<I", size)


def truth(world: World, name: str, *, what_happened: str, correct_analysis: dict[str, Any]) -> dict[str, Any]:
    """Everything both ends knew, in the form of the truth files in `captures/`."""
    for record in world.records:
        record["counts"] = {"c2s": len(record["c2s"]), "s2c": len(record["s2c"])}
    return {
        "name": name,
        "capture": f"{name}.pcap",
        "scenario": name,
        "what_happened": what_happened,
        "correct_analysis": correct_analysis,
        "capture_notes": world.notes,
        "protocol": "spark-core-cloud" if world.records else "none",
        "server_implementation": f"simulated, {world.server.dialect} server",
        "device_implementation": f"simulated, {world.firmware.described}",
        "keys": _keys(world) if world.records else {},
        "sessions": sorted(world.records, key=lambda record: record["t_start"]),
        "server_log": [],
    }


def _keys(world: World) -> dict[str, Any]:
    server = world.server
    keys: dict[str, Any] = {"server_private": f"keys/{server.name}.pem"}
    if server.signer is not server.key:
        keys["server_signs_with"] = f"keys/{server.signer_name}.pem"
    keys["server_registry"] = {
        device_id.hex(): f"keys/{name}.pub.pem" for device_id, (name, _) in server.registry.items()
    }
    keys["devices"] = {
        device.device_id.hex(): {
            "device_private": f"keys/{device.name}.pem",
            "server_public_on_device": f"keys/{device.trusts_name}.pub.pem",
        }
        for device in world.devices
    }
    return keys
