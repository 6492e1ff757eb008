"""Which connections are one device's: by its ID where a key or an announcement tells it, else by its address.

An ID at two addresses is one device that moved, unless both were alive at once (SPK507: two units with one ID). An
address with two IDs is two devices: behind one router, or one that took the other's place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from analyzer.conversation import Conversation
from analyzer.findings import Finding

OVERLAP: Final = 2_000_000_000
"""A device that opens its next connection has given up the one before, though it may close it a little later (ns). Who
talks on both for longer is two devices."""
NAMELESS: Final = "{address} (ID not known)"
"""Connections from an address that several devices use, when nothing tells whose they are."""

Who = tuple[str | None, bytes | None]
"""An ID, an address, or both where one of them is not enough to tell two devices apart."""


@dataclass(slots=True)
class Device:
    """One device, as far as the capture tells devices apart. Its addresses and conversations are oldest first."""

    id: str | None
    name: str = ""  # how reports call it
    mac: bytes | None = None
    addresses: list[str] = field(default_factory=list)
    conversations: list[Conversation] = field(default_factory=list)

    @property
    def moved(self) -> bool:
        """Whether it has had several addresses."""
        return len(self.addresses) > 1


def devices_of(conversations: Sequence[Conversation], found: Iterable[Finding]) -> list[Device]:
    """Return the devices in the order in which they first appear. ``found`` may hold SPK507; its order is of no
    matter. The time it takes is linear in the number of conversations.
    """
    apart = {
        address for f in found if f.code == "SPK507" for address in (f.details.get("here"), f.details.get("there"))
    }
    by_address: dict[bytes, list[Conversation]] = {}
    for c in conversations:
        by_address.setdefault(c.device.address, []).append(c)
    whose: dict[int, Who] = {}
    for address, own in by_address.items():
        for c, device_id in zip(own, _ids(own), strict=True):
            alone = device_id is not None and c.device.ip not in apart
            whose[c.number] = (device_id, None if alone else address)
    devices: dict[Who, Device] = {}
    for c in conversations:
        who = whose[c.number]
        device = devices.setdefault(who, Device(who[0]))
        device.conversations.append(c)
        device.mac = c.device.mac or device.mac
    for device in devices.values():
        latest = dict.fromkeys(c.device.ip for c in reversed(device.conversations))
        device.addresses = [*latest][::-1]
    _name(devices.values())
    return list(devices.values())


def _ids(own: Sequence[Conversation]) -> list[str | None]:
    """Whose each connection of one address is. Where there are several IDs, one without belongs to the ID before
    and after it; a connection between two IDs may be either's.
    """
    known = {c.device.id for c in own if c.device.id is not None}
    if len(known) < 2:
        only = next(iter(known), None)
        return [only] * len(own)
    ids = [c.device.id for c in own]
    if _in_turns(ids):
        return ids  # several at once: nothing tells whose the others are
    around = zip(_carried(ids), _carried(ids[::-1])[::-1], strict=True)
    return [before if after in (None, before) else after if before is None else None for before, after in around]


def _in_turns(ids: Iterable[str | None]) -> bool:
    """Whether an ID comes back after another one: both are there at the same time."""
    runs: Counter[str] = Counter()
    last = None
    for device_id in ids:
        if device_id is not None and device_id != last:
            runs[device_id] += 1
            last = device_id
    return max(runs.values(), default=0) > 1


def _carried(ids: Sequence[str | None]) -> list[str | None]:
    carried: list[str | None] = []
    last = None
    for device_id in ids:
        last = device_id or last
        carried.append(last)
    return carried


def _name(devices: Collection[Device]) -> None:
    """Call each by its address, the latest; by its ID where another one has that address too."""
    users = Counter(address for device in devices for address in device.addresses)
    for device in devices:
        address = device.addresses[-1]
        device.name = address if users[address] == 1 else device.id or NAMELESS.format(address=address)
