"""What captures suffer: packets lost, cut, doubled, out of order, with wrong checksums, seen twice.

Each function takes the packets of a simulation and returns others; none changes what it was given. They
compose, so that a test can ask what an analyzer says about the same story in a worse capture.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Final, Literal

from analyzer.simulate.wire import NO_IP, Packet, Sender

_IPV6_HEADER: Final = 40
_TCP_CHECKSUM: Final = 16
_TCP: Final = 6


def drop_packets(packets: Iterable[Packet], indices: Collection[int]) -> list[Packet]:
    """All but the packets at these positions (from 0)."""
    return [packet for index, packet in enumerate(packets) if index not in indices]


def drop(packets: Iterable[Packet], unwanted: Callable[[Packet], bool]) -> list[Packet]:
    """All but the packets for which `unwanted` says so."""
    return [packet for packet in packets if not unwanted(packet)]


def one_direction(packets: Iterable[Packet], sender: Sender) -> list[Packet]:
    """Keep what this end sent; bystanders stay."""
    return drop(packets, lambda packet: packet.sender not in {sender, ""})


def snaplen(packets: Iterable[Packet], limit: int) -> list[Packet]:
    """Cut every packet after `limit` bytes, as `tcpdump -s` does."""
    return [replace(packet, data=packet.data[:limit]) for packet in packets]


def start_after(packets: Iterable[Packet], seconds: float) -> list[Packet]:
    """Drop the first seconds of the capture."""
    packets = list(packets)
    first = packets[0].time_ns + round(seconds * 1e9) if packets else 0
    return drop(packets, lambda packet: packet.time_ns < first)


def stop_after(packets: Iterable[Packet], seconds: float) -> list[Packet]:
    """Keep the first seconds of the capture only."""
    packets = list(packets)
    last = packets[0].time_ns + round(seconds * 1e9) if packets else 0
    return drop(packets, lambda packet: packet.time_ns > last)


def duplicate(
    packets: Iterable[Packet], kind: Literal["same", "routed"] = "same", *, delay: float = 0.00002
) -> list[Packet]:
    """Double every packet, `delay` seconds apart: exact copies, or with a TTL one lower."""
    copies: list[Packet] = []
    for packet in packets:
        copy = replace(packet, time_ns=packet.time_ns + round(delay * 1e9))
        copies += [packet, _routed(copy) if kind == "routed" else copy]
    return _in_time_order(copies)


def two_interfaces(packets: Iterable[Packet], *, delay: float = 0.01) -> list[Packet]:
    """Show the same traffic at two places `delay` seconds apart, on two interfaces of one file.

    What the device sends passes interface 0 first, what the server sends passes interface 1 first, so the two
    copies come in different orders.
    """
    copies: list[Packet] = []
    for packet in packets:
        shift = round(delay * 1e9) if packet.sender != "server" else -round(delay * 1e9)
        copies += [packet, _routed(replace(packet, time_ns=packet.time_ns + shift, interface=1))]
    return _in_time_order(copies)


def reorder(packets: Iterable[Packet], label: str = "frame") -> list[Packet]:
    """Swap neighbours: each second packet with this label comes before the one of its sender before it."""
    changed = list(packets)
    waiting: dict[str, int] = {}
    for index, packet in enumerate(changed):
        if packet.label != label:
            continue
        earlier = waiting.pop(packet.sender, None)
        if earlier is None:
            waiting[packet.sender] = index
            continue
        before, after = changed[earlier], changed[index]
        changed[earlier] = replace(after, time_ns=before.time_ns)
        changed[index] = replace(before, time_ns=after.time_ns)
    return changed


def damaged_copies(packets: Iterable[Packet], label: str, *, seed: int = 1) -> list[Packet]:
    """Put a copy with a flipped bit and the old checksum before each packet with this label."""
    randomness = random.Random(f"{seed}/damage")
    spoiled: list[Packet] = []
    for packet in packets:
        if packet.label == label:
            data = bytearray(packet.data)
            place = len(data) - 1 - randomness.randrange(8)
            data[place] ^= 1 << randomness.randrange(8)
            spoiled.append(replace(packet, data=bytes(data), time_ns=packet.time_ns - 30_000))
        spoiled.append(packet)
    return _in_time_order(spoiled)


def offload(packets: Iterable[Packet], sender: Sender) -> list[Packet]:
    """Wrong TCP checksums on everything that this end sends, as when its network card fills them in later."""
    return [_wrong_checksum(packet) if packet.sender == sender else packet for packet in packets]


def _wrong_checksum(packet: Packet) -> Packet:
    transport = _transport(packet)
    if transport is None:
        return packet
    data = bytearray(packet.data)
    place = transport + _TCP_CHECKSUM
    data[place] ^= 0xA5
    return replace(packet, data=bytes(data))


def _transport(packet: Packet) -> int | None:
    """Where the TCP header begins, if there is one."""
    if packet.network == NO_IP:
        return None
    header = packet.data[packet.network :]
    if header[0] >> 4 == 6:
        return packet.network + _IPV6_HEADER if header[6] == _TCP else None
    return packet.network + 4 * (header[0] & 15) if header[9] == _TCP else None


def _routed(packet: Packet) -> Packet:
    """Return the same packet one hop further on, or as it is when it holds no IP to be seen."""
    start = packet.network
    if start == NO_IP:
        return packet
    data = bytearray(packet.data)
    if data[start] >> 4 == 6:
        data[start + 7] -= 1
    else:
        size = 4 * (data[start] & 15)
        data[start + 8] -= 1
        data[start + 10 : start + 12] = b"\x00\x00"
        words = struct.unpack_from(f">{size // 2}H", data, start)
        total = sum(words)
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        struct.pack_into(">H", data, start + 10, total ^ 0xFFFF)
    return replace(packet, data=bytes(data))


def _in_time_order(packets: list[Packet]) -> list[Packet]:
    return sorted(packets, key=lambda packet: packet.time_ns)
