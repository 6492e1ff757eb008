"""Reports that can be posted: what points at a person's network is shortened, what proves the verdict stays.

Works on finished reports, by the addresses, hardware addresses and device IDs that the capture really holds and
by whatever else has their form, so that no report can forget one of its own places.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from analyzer.background import CLOUD_NAMES
from analyzer.catalogue import FALLBACK_ADDRESS
from analyzer.cells import WIDTH
from analyzer.conversation import Conversation
from analyzer.keys.model import KeyFile
from analyzer.messages import quote
from analyzer.messages.extent import extent, values_extent
from analyzer.network.units import address_text
from analyzer.redaction.filler import blank_opening
from analyzer.report.exact import Digits, dumps
from analyzer.rules import judge
from analyzer.trace import Trace
from analyzer.wording import listing, plural, printable, wrap

PUBLIC: Final = "198.51.x.x"
KEPT: Final = frozenset((FALLBACK_ADDRESS,))
"""A constant of the firmware, the same for everybody."""


SHAPES: Final = (
    r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}",  # an IPv4 address
    r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}",  # a hardware address
    r"[0-9a-fA-F]{24}",  # a device ID
    r"(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}",  # an IPv6 address in full, and one with zeros left out
    r"(?:[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4}){0,6})?::(?:[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4}){0,6})?",
)
"""What is shortened wherever it stands, known or not."""
MESSAGE: Final = "plaintext"
SIGNATURE: Final = "signature"
"""Names that only a message and only a session offer have."""
STRANGERS: Final = "what others wrote"
MESSAGES: Final = "what messages say"
QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
MISREAD: Final = re.compile(r"(TKN:|coap://)[^,;\"\n]+")
"""What Wireshark makes of text: its first bytes in another spelling."""
COLONS_OF_HARDWARE: Final = 5
CONTENTS: Final = ("payload", "plaintext", "token", "query", "path", "values")
EVENT: Final = "busiest_event"
"""Name of the one thing among the statistics that a device chose."""
SESSION_KEY: Final = ("key",)
"""What a decrypted message says, and the key it was opened with: only its extent is told."""


def device_letter(index: int) -> str:
    """Return ``A``, ``B`` … ``Z``, ``AA`` …"""
    letters = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        letters = chr(65 + rest) + letters
    return letters


class Redactor:
    """Replaces what a capture says about its network. ``told`` lists what kinds of it were met and shortened."""

    def __init__(self, trace: Trace | None = None, paths: Iterable[str] = ()) -> None:
        """``paths`` are files and folders as the user named them: of them base names are left."""
        self._replace: dict[str, str] = {}
        self._kind: dict[str, str] = {}
        self._named: Counter[str] = Counter()
        self.told: list[str] = []
        self._folders = folders(paths)
        if trace is not None:
            self._learn(trace)
        self._prepare()

    def _prepare(self) -> None:
        known = [_unbroken(key) for key in sorted(self._replace, key=len, reverse=True)]
        # A part of a longer number or address is none: not inside digits, letters, or dots with digits.
        self._pattern = re.compile(
            rf"(?<![0-9A-Za-z])(?<![0-9]\.)({'|'.join((*known, *SHAPES))})(?![0-9A-Za-z]|\.[0-9])( {{2,}})?"
        )

    def _learn(self, trace: Trace) -> None:
        """Name what the capture holds: devices first, then servers, each in the order of their connections."""
        for c in trace.conversations:
            self._address(address_text(c.device.address), "Device")
        for c in trace.conversations:
            self._address(address_text(c.server.address), "Server")
        around = trace.background
        for address in around.announcements:
            self._address(address_text(address), "Device")
        for lookup in around.lookups.values():
            self._address(lookup.asker, "Device")
        for error in around.complaints:
            self._address(address_text(error.reporter), "Router")
        for place in (*trace.expected, *(place for _, place in trace.stored)):
            if place.address is not None:
                self._address(address_text(place.address), "Server")
            elif place.name is not None and not place.name.endswith(CLOUD_NAMES):
                self._name(place.name)
        ids = [c.device.id for c in trace.conversations] + [a.device_id for a in around.announcements.values()]
        for device_id in filter(None, ids):
            self._device_id(device_id)
        for c in trace.conversations:
            if c.device.mac:
                self._hardware(c.device.mac.hex(":"))
        for _, name in around.lookups:
            if not name.endswith(tuple(f".{cloud}" for cloud in CLOUD_NAMES)):
                self._name(name)
        for file in trace.captures:
            base = re.split(r"[\\/]", file.path)[-1]
            if base != file.path:
                self._keep(file.path, printable(base), "file names")
                self._keep(printable(file.path), printable(base), "file names")
        self._learn_quotes((item.text for f in trace.findings for item in f.evidence), trace.conversations)

    def _learn_quotes(self, sentences: Iterable[str], conversations: Iterable[Conversation]) -> bool:
        """Name what messages name and sentences quote: names of functions and events. Return whether there was any."""
        quoted = set(QUOTED.findall(" ".join(sentences)))
        known = len(self._replace)
        for c in conversations if quoted else ():
            for word in {str(m.values["name"]) for m in c.messages if m.values.get("name") is not None}:
                if quote(word) in quoted:
                    self._keep(quote(word), f'"{plural(len(word), "character")}"', MESSAGES)
        return len(self._replace) > known

    def meet_quotes(self, sentences: Iterable[str], conversations: Iterable[Conversation]) -> None:
        """Take note of what is said of conversations, before it is told."""
        if self._learn_quotes(sentences, conversations):
            self._prepare()

    def meet(self, c: Conversation) -> None:
        """Take note of one more conversation: of a capture that is still going on."""
        known = len(self._replace)
        self._address(address_text(c.device.address), "Device")
        self._address(address_text(c.server.address), "Server")
        if c.device.mac:
            self._hardware(c.device.mac.hex(":"))
        if len(self._replace) > known:
            self._prepare()

    def learn_hosts(self, files: Iterable[KeyFile]) -> None:
        """Name the servers that images among the key files lead to."""
        for file in files:
            for part in file.parts:
                host = part.server_address.host if part.server_address is not None else ""
                if host and not host.endswith(CLOUD_NAMES) and not re.fullmatch(r"[0-9.]+|[0-9a-fA-F:]+", host):
                    self._name(host)
        self._prepare()

    def text(self, report: str, width: int = WIDTH) -> str:
        """Return a whole report, text or JSON, with everything shortened; text ends with what it was."""
        if report.startswith("{"):
            return self._json(report)
        shown = self.shorten(report)
        return shown + "".join(f"{line}\n" for line in wrap(self.closing(), width))

    def closing(self, *, contents: bool = False) -> str:
        """Return the sentence that says what was shortened, empty if nothing was; ``contents`` when messages were."""
        told = sorted({*self.told, *((MESSAGES,) if contents else ())})
        return f"Shortened: {listing(told)}." if told else ""

    def shorten(self, text: str) -> str:
        """Return one piece of text with everything shortened; columns stay where they are."""
        if self._folders is not None and (bare := self._folders.sub("", text)) != text:
            text = bare
            self._tell("file names")
        text = self._pattern.sub(self._shortened, text)
        return MISREAD.sub(r"\1…", text) if STRANGERS in self.told else text

    def withhold(self, trace: Trace) -> Redactor:
        """Take out of a trace, for good, what strangers wrote in the place of our protocol; judge it anew.

        What is left of it is the same as in a redacted capture.
        """
        found = False
        for c in trace.conversations:
            for side in c.sides.values() if c.kind != "spark" else ():
                found = found or bool(side.opening)
                if side.opening:
                    side.opening = blank_opening(c.kind, side.opening)
                for part in side.parts:
                    part.data = None if part.data is None else blank_opening(c.kind, part.data)
            if c.kind != "spark":
                c.has_changed()
        if found:
            self._tell(STRANGERS)
            trace.devices = []
            judge(trace)
        return self

    # -- what becomes of each -----------------------------------------------------------------------------------

    def _shortened(self, found: re.Match[str]) -> str:
        old, gap = found[1], found[2] or ""
        new = self._replace.get(old) or self._replace.get(" ".join(old.split())) or self._unknown(old)
        if (kind := self._kind.get(old)) is not None:
            self._tell(kind)
        return new + " " * max(min(2, len(gap)), len(old) + len(gap) - len(new)) if gap else new

    def _tell(self, kind: str) -> None:
        if kind not in self.told:
            self.told.append(kind)

    def _unknown(self, text: str) -> str:
        """Shorten what merely has the form of an address or an ID."""
        if text in KEPT:
            return text
        if "." in text or "::" in text or text.count(":") > COLONS_OF_HARDWARE:
            return self._address(text, "Host")
        return self._hardware(text) if ":" in text else self._device_id(text)

    def _address(self, text: str, name: str) -> str:
        if text in KEPT or text in self._replace:
            return self._replace.get(text, text)
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return text
        if address.is_global:
            return self._keep(text, PUBLIC, "addresses")
        letter = device_letter(self._named[name])
        self._named[name] += 1
        return self._keep(text, f"{name} {letter}", "addresses")

    def _name(self, text: str) -> None:
        if text not in self._replace:
            self._keep(text, f"Name {device_letter(self._named['Name'])}", "names")
            self._named["Name"] += 1

    def _device_id(self, text: str) -> str:
        return self._keep(text, f"{text[:4]}…{text[-4:]}", "device IDs")

    def _hardware(self, text: str) -> str:
        return self._keep(text, f"{text[:8]}:…", "hardware addresses")

    def _keep(self, text: str, shown: str, kind: str) -> str:
        self._replace[text], self._kind[text] = shown, kind
        return shown

    # -- JSON: value by value, because its strings are escaped ----------------------------------------------------

    def _json(self, report: str) -> str:
        """Return the document, or the lines, with every string shortened and message contents left out."""
        if '"kind"' in report.partition("\n")[0]:
            return "".join(dumps(self.value(_parsed(line))) + "\n" for line in report.splitlines())
        return dumps(self.value(_parsed(report)), indent=1) + "\n"

    def value(self, value: Any) -> Any:
        """Return a part of the JSON document, as data, with every string shortened and message contents left out."""
        if isinstance(value, dict):
            secret = CONTENTS if MESSAGE in value else SESSION_KEY if SIGNATURE in value else ()
            return {
                name: _event(inner) if name == EVENT else _extent(inner) if name in secret else self.value(inner)
                for name, inner in value.items()
            }
        if isinstance(value, list):
            return [self.value(inner) for inner in value]
        return self.shorten(value) if type(value) is str else value


def folders(paths: Iterable[str]) -> re.Pattern[str] | None:
    """Match the folders of what a user named, whatever is said of the files in them."""
    found = set()
    for path in paths:
        folder = path.rstrip("/\\") if os.path.isdir(path) else re.split(r"[^/\\]*$", path)[0].rstrip("/\\")
        if folder.strip("./\\~"):
            found |= {folder, printable(folder)}
    if not found:
        return None
    known = "|".join(_unbroken(folder) for folder in sorted(found, key=len, reverse=True))
    return re.compile(rf"(?<![0-9A-Za-z])(?:{known})[/\\]")


def _unbroken(text: str) -> str:
    """Return a pattern for text that may have been wrapped at its spaces."""
    return r"\s+".join(map(re.escape, text.split(" ")))


def _parsed(text: str) -> object:
    return json.loads(text, parse_float=Digits)


def _event(value: Any) -> object:
    """Return the busiest event with only the length of its name."""
    return {**value, "name": _extent(value["name"])} if isinstance(value, dict) and "name" in value else value


def _extent(value: object) -> object:
    """Say how much there was of what is left out: bytes where it is written in hex digits."""
    if isinstance(value, dict):
        return values_extent(value)
    if isinstance(value, list):
        return [_extent(inner) for inner in value]
    if type(value) is str and len(value) % 2 == 0 and re.fullmatch(r"[0-9a-f]*", value) is not None:
        return plural(len(value) // 2, "byte")
    return extent(value)
