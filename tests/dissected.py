"""What the plugin made of a capture in a real tshark: rows as they are drawn, and the statistics, of one run.

``-T pdml`` keeps what belongs together together, so a message's values are those of that message even where a packet
holds many; ``-z spark`` prints behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from wireshark import Tshark

from analyzer.conversation import Conversation
from analyzer.findings import JUDGED_IN_WIRESHARK
from analyzer.messages import SparkMessage
from analyzer.trace import Trace
from analyzer.wording import endpoint

LAYERS: Final = "spark _ws.lua"
END: Final = "</pdml>"
TITLE: Final = "Spark Core cloud protocol, "
NOT_IN_XML: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
WIRESHARKS_OWN: Final = re.compile(r'<field name="coap\.[^>]*>')


@dataclass
class Item:
    """One handshake message, frame, hole or lost place."""

    text: str
    fields: dict[str, list[str]]
    coap: bool = False  # Wireshark's own dissector drew it, too

    def get(self, name: str) -> str | None:
        """The value of ``spark.NAME``, if it is there."""
        return self.fields.get("spark." + name, [None])[0]


@dataclass
class Row:
    """What one packet shows."""

    number: int
    text: str
    fields: dict[str, list[str]]
    items: list[Item] = field(default_factory=list)
    findings: list[tuple[str, str, str]] = field(default_factory=list)  # code, severity, confidence
    notes: list[str] = field(default_factory=list)  # spark.note, drawn in the tree
    expert_notes: list[str] = field(default_factory=list)

    def get(self, name: str) -> str | None:
        """The value of ``spark.NAME`` of the row itself."""
        return self.fields.get("spark." + name, [None])[0]


@dataclass
class Run:
    """One run of tshark over one capture."""

    rows: list[Row]
    report: str
    packets: int

    @property
    def statistics(self) -> list[dict[str, str]]:
        """The conversations that ``-z spark`` lists: a line for each in two tables."""
        found: dict[str, dict[str, str]] = {}
        header: list[str] = []
        for line in self.report.splitlines():
            cells = re.split(r" {2,}", line.strip())
            if cells[0] == "#":
                header = cells
            elif header and cells[0].isdecimal():
                found.setdefault(cells[0], {}).update(zip(header, cells, strict=True))
            else:
                header = []
        return list(found.values())

    @property
    def items(self) -> Iterator[tuple[Row, Item]]:
        """Every item with its row."""
        return ((row, item) for row in self.rows for item in row.items)

    @property
    def messages(self) -> list[tuple[str, str, str]]:
        """Sender, name and plaintext of every message that opened, in the order of the rows."""
        return [
            (
                item.get("direction") or row.get("direction") or "",
                item.get("message") or "",
                (item.get("plaintext") or "").replace(":", ""),
            )
            for row, item in self.items
            if item.get("message")
        ]

    @property
    def codes(self) -> set[str]:
        """The findings of all rows."""
        return {code for row in self.rows for code, _, _ in row.findings}


def _children(element: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """What stands directly in an element; PDML wraps what a plugin made in elements without meaning."""
    for child in element:
        if child.get("name") in {"", "fake-field-wrapper", None}:
            yield from _children(child)
        else:
            yield child


def _fields(element: ElementTree.Element) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for child in _children(element):
        name = child.get("name") or ""
        if name.startswith(("spark.", "_ws.lua.error")):
            found.setdefault(name, []).append(child.get("show") or "")
    return found


def _row(number: int, element: ElementTree.Element) -> Row:
    row = Row(number, element.get("showname") or "", _fields(element))
    row.notes = row.fields.get("spark.note", [])
    for child in _children(element):
        name = child.get("name")
        if child.tag == "proto" and name == "spark":
            coap = any(inner.get("name") == "coap" for inner in _children(child))
            row.items.append(Item(child.get("showname") or "", _fields(child), coap))
        elif name == "spark.finding":
            said = _fields(child)
            row.findings.append((child.get("show") or "", said["spark.severity"][0], said["spark.confidence"][0]))
        elif name == "_ws.expert":
            row.expert_notes += [
                (inner.get("showname") or "") for inner in _children(child) if inner.get("name") == "spark.expert.note"
            ]
    if not row.items and ("spark.stage" in row.fields or row.notes):
        # A packet of one item has no branch for it.
        coap = any(inner.get("name") == "coap" for inner in _children(element))
        row.items.append(Item(row.text.removeprefix(TITLE), row.fields, coap))
    return row


def well_formed(pdml: str) -> str:
    """Wireshark before 4.0 prints what CoAP options hold as it is, which no XML may. Of our fields all is in order."""
    if not NOT_IN_XML.search(pdml):
        return pdml
    return WIRESHARKS_OWN.sub(lambda field: NOT_IN_XML.sub("?", field[0]), pdml)


def read(output: str) -> Run:
    """Read what tshark printed."""
    pdml, _, report = output.partition(END)
    pdml = well_formed(pdml)
    rows, packets = [], 0
    for packet in ElementTree.fromstring(pdml + END):  # noqa: S314 - our own tshark wrote it
        packets += 1
        number = 0
        for layer in packet:
            if layer.get("name") == "geninfo":
                number = int(next(one.get("show") or "0" for one in layer if one.get("name") == "num"))
            elif layer.get("name") == "spark":
                rows.append(_row(number, layer))
            assert layer.get("name") not in {"_ws.lua", "_ws.lua.error"}, ElementTree.tostring(layer)
    assert "_ws.lua.error" not in pdml
    return Run(rows, report.lstrip("\n"), packets)


@cache
def dissect(tshark: Tshark, path: str, *options: str) -> Run:
    """Run tshark over a capture (a path that it can read). Nothing may go wrong on the way."""
    done = tshark.run("-r", path, *options, "-T", "pdml", "-J", LAYERS, "-z", "spark")
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return read(done.stdout)


# -- what the analyzer says, in the same form ------------------------------------------------------------------


def codes_of(trace: Trace, conversation: Conversation) -> set[str]:
    """The findings of a conversation that the plugin judges."""
    return {f.code for f in trace.findings if conversation.number in f.conversations} & JUDGED_IN_WIRESHARK


def expected_statistics(trace: Trace) -> list[dict[str, object]]:
    """What ``-z spark`` has to list; the findings as a set."""
    return [
        {
            "#": str(c.number),
            "device": endpoint(c.device.ip, c.device.port),
            "id": c.device.id or "-",
            "server": endpoint(c.server.ip, c.server.port),
            "kind": c.kind,
            "reached": c.reached,
            "frames": str(sum(side.frames for side in c.sides.values())),
            "opened": str(c.secrets.opened) if c.secrets else "-",
            "findings": codes_of(trace, c),
        }
        for c in trace.conversations
    ]


def listed_statistics(run: Run) -> list[dict[str, object]]:
    """What it lists."""
    return [row | {"findings": set(row["findings"].split()) - {"-"}} for row in run.statistics]


def expected_messages(trace: Trace) -> list[tuple[str, str, str]]:
    """Sender, name and plaintext of every message."""
    return [_message(message) for message in messages_of(trace)]


def messages_of(trace: Trace) -> Iterator[SparkMessage]:
    """Every message of every conversation."""
    return (message for c in trace.conversations for message in c.messages)


def _message(message: SparkMessage) -> tuple[str, str, str]:
    return message.direction, message.name or "?", message.plaintext.hex()


def value_text(value: object) -> str:
    """A value as the plugin writes it where it is text, before what does not print is escaped."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {value_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(value_text(item) for item in value)
    return value if isinstance(value, str) else repr(value)


def unescaped(text: str) -> str:
    """Shown text as it was. Wireshark may have doubled the backslash of what the plugin had escaped."""
    text = text.replace("\\\\", "\\")
    return re.sub(r"\\(?:x(..)|u(....)|U(.{8}))", lambda found: chr(int(found.group(found.lastindex or 1), 16)), text)


def same_value(shown: str, value: object) -> bool:
    """Whether a field of any type shows this value (Wireshark writes flags as 1 or as True, by version)."""
    if unescaped(shown) == value_text(value).replace("\\\\", "\\"):
        return True
    if isinstance(value, bool):
        return shown in ({"1", "True"} if value else {"0", "False", ""})
    return isinstance(value, float) and bool(shown) and float(shown) == value


def is_that(text: str, name: str, value: object) -> bool:
    """Whether the text of a value without a field of its own is that of this one."""
    return text.startswith(f"{name}: ") and same_value(text[len(name) + 2 :], value)


def differing_values(item: Item, message: SparkMessage) -> list[str]:
    """What an item shows of a message's values that is not what the analyzer says; empty when all is the same."""
    wrong, left = [], {name: list(shown) for name, shown in item.fields.items()}
    for name, value in message.values.items():
        if value is None:
            continue
        own = [
            field
            for field in left
            if field.startswith("spark.")
            and field.count(".") == 2
            and field.endswith("." + name)
            and not field.startswith(("spark.frame.", "spark.session."))
        ]
        if own:
            shown = left[own[0]].pop(0)
            if not same_value(shown, value):
                wrong.append(f"{own[0]} is {shown!r}, not {value!r}")
        elif texts := [text for text in left.get("spark.value", []) if is_that(text, name, value)]:
            left["spark.value"].remove(texts[0])
        else:
            wrong.append(f"no {name} = {value!r}")
    wrong += [f"{field} {shown}" for field, shown in left.items() if shown and field == "spark.value"]
    return wrong


def write_capture(tshark: Tshark, name: str, content: bytes, folder: Path) -> tuple[Path, str]:
    """Write a capture for the analyzer and for tshark; returns both paths."""
    path = folder / name
    path.write_bytes(content)
    return path, tshark.write(name, content)
