"""Reports that can be posted: what points at a person's network is shortened, what proves the verdict stays.

Works on finished text, by the addresses, hardware addresses and device IDs that the capture really holds, so
that no report can forget one of its own places.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from analyzer.catalogue import FALLBACK_ADDRESS
from analyzer.network.units import address_text
from analyzer.trace import Trace

PUBLIC: Final = "198.51.x.x"
KEPT: Final = frozenset((FALLBACK_ADDRESS,))
"""A constant of the firmware, the same for everybody."""


def device_letter(index: int) -> str:
    """Return ``A``, ``B`` … ``Z``, ``AA`` …"""
    letters = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        letters = chr(65 + rest) + letters
    return letters


class Redactor:
    """Replaces what a capture says about its network. ``told`` lists what kinds were shortened."""

    def __init__(self, trace: Trace) -> None:
        self._replace: dict[str, str] = {}
        self.told: list[str] = []
        servers = {c.server.address for c in trace.conversations}
        addresses = [c.device.address for c in trace.conversations]
        addresses += [c.server.address for c in trace.conversations]
        around = trace.background
        addresses += list(around.announcements) + [e.reporter for e in around.complaints]
        texts = [address_text(a) for a in addresses]
        texts += [x.asker for x in around.lookups.values()]
        devices = 0
        for text in texts:
            if text in self._replace or text in KEPT:
                continue
            address = ipaddress.ip_address(text)
            if not address.is_global:
                name = "Server" if address.packed in servers else "Device"
                self._replace[text] = f"{name} {device_letter(devices)}"
                devices += 1
            else:
                self._replace[text] = PUBLIC
            self._tell("addresses")
        ids = [c.device.id for c in trace.conversations] + [a.device_id for a in around.announcements.values()]
        for device_id in ids:
            if device_id:
                self._replace[device_id] = f"{device_id[:4]}…{device_id[-4:]}"
                self._tell("device IDs")
        for c in trace.conversations:
            if c.device.mac:
                mac = c.device.mac.hex(":")
                self._replace[mac] = f"{mac[:8]}:…"
                self._tell("hardware addresses")
        for file in trace.captures:
            base = re.split(r"[\\/]", file.path)[-1]
            if base != file.path:
                self._replace[file.path] = base
                self._tell("file names")
        keys = sorted(self._replace, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, keys)) + r"(?![\w])") if keys else None

    def _tell(self, what: str) -> None:
        if what not in self.told:
            self.told.append(what)

    def text(self, text: str) -> str:
        """Return the text with everything shortened."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda found: self._replace[found[0]], text)
