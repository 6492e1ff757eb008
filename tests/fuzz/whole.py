"""The whole command over captures that were changed packet by packet: every report, every export, every view."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import capture_files
from inert import is_inert
from judging import verdict

from analyzer.capture.packet import CaptureFile, Packet
from analyzer.cli import main
from analyzer.findings import FINDINGS
from analyzer.live import Watcher
from analyzer.redaction.redact import redact
from analyzer.report import jsonreport
from fuzz import mutate
from fuzz.base import KEYS, ring
from fuzz.script import Script, written
from fuzz.sealed import talk_of
from fuzz.target import target

DOCUMENT: Final = "capture.pcapng"
CODE: Final = re.compile(r"\bSPK[0-9]{3}\b")
TAG: Final = re.compile(r"<\s*/?\s*([a-zA-Z0-9!]+)([^>]*)>")
HANDLER: Final = re.compile(r"""\son[a-z]+\s*=""")


@cache
def desk() -> Path:
    """A folder for what the command reads and writes."""
    return Path(tempfile.mkdtemp(prefix="sparkshark-fuzz-"))


def file_of(packets: Sequence[Packet]) -> bytes:
    """A pcapng file of these packets, each on the interface that it came by."""
    links: list[tuple[int, int]] = []
    for packet in packets:
        if (packet.link_type, packet.interface) not in links:
            links.append((packet.link_type, packet.interface))
    nanoseconds = capture_files.option(9, b"\x09") + capture_files.option(0, b"")
    parts = [capture_files.section()]
    parts += [capture_files.interface(link_type=link, options=nanoseconds) for link, _ in links]
    for packet in packets:
        place = links.index((packet.link_type, packet.interface))
        parts.append(capture_files.enhanced(packet.data, packet.time_ns, place, packet.original_length))
    return b"".join(parts)


def run(*words: str) -> tuple[int, str, str]:
    """Run the command; whatever goes wrong inside it is raised, and what it says on the way is harmless."""
    told, warned = io.StringIO(), io.StringIO()
    before = dict(os.environ)
    os.environ |= {"SPARKSHARK_DEBUG": "1", "COLUMNS": "80", "LC_ALL": "C.UTF-8"}
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(warned):
            status = main(words)
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert status in (0, 1, 2), (status, warned.getvalue())
    assert "internal error" not in warned.getvalue()
    is_inert(warned.getvalue())
    return status, told.getvalue(), warned.getvalue()


def changes() -> Iterator[bytes]:
    for number in range(mutate.COUNT):
        yield bytes((0x3F, number))
        yield bytes((number, number)) + b"".join(
            bytes(((number * 7 + at) % 20, number * 5 + at * 11 & 255, at * 37 & 255, 3, at)) for at in range(4)
        )


REPORTS: Final[tuple[tuple[str, ...], ...]] = (
    ("--width", "80"),
    ("--format", "json"),
    ("--format", "jsonl"),
    ("--format", "markdown"),
    ("--format", "html", "-o"),
    ("--statistics", "--redact", "--width", "40"),
    ("--format", "parquet", "-o"),
    ("--conversation", "1", "--width", "120"),
)


@target(
    "the verdict on real captures changed packet by packet, in every report; held against the packets one by one",
    changes,
    longest=400,
    seconds=20,
)
def analyze(data: bytes) -> None:
    """Analyse a changed capture, out of its file; what the file's sieve passes over must change nothing."""
    script = Script(data)
    head = script.number()
    packets = mutate.mutated(script)
    if not packets:
        return
    place = desk() / DOCUMENT
    place.write_bytes(file_of(packets))
    trace = verdict(packets)
    trace.captures = [CaptureFile(str(place), "pcapng", time_digits=9)]
    direct = json.loads("".join(jsonreport.json_text(trace)))
    status, text, _ = run("analyze", str(place), "--format", "json")
    assert status != 2
    document = json.loads(text)
    for part in ("conversations", "findings", "not_checked", "devices", "servers"):
        assert document[part] == direct[part], part
    consistent(document, len(packets))
    codes = {finding["code"] for finding in document["findings"]}
    _report(place, REPORTS[head % len(REPORTS)], codes)


def _report(place: Path, words: Sequence[str], codes: set[str]) -> None:
    form = words[1]
    output = desk() / ("tables" if form == "parquet" else "page.html")
    more = (str(output), "--force") if "-o" in words else ()
    status, text, warned = run("analyze", str(place), *words, *more)
    if words[0] == "--conversation" and status == 2:
        assert "conversation" in warned
        return
    assert status == 0, warned
    if form == "html":
        harmless_page(output.read_text(encoding="utf-8"))
        return
    is_inert(text)
    if form == "jsonl":
        lines = [json.loads(line) for line in text.splitlines()]
        assert {line["code"] for line in lines if line.get("kind") == "finding"} <= codes
    elif form == "80":
        assert max(map(len, text.splitlines())) <= 80 or not text.isascii()
        assert set(CODE.findall(text)) <= set(FINDINGS)
        assert text.count("\n") < 2000


def consistent(document: Any, packets: int) -> None:
    """What is claimed points at what there is."""
    numbers = {conversation["number"] for conversation in document["conversations"]}
    for finding in document["findings"]:
        assert finding["code"] in FINDINGS
        assert set(finding["conversations"]) <= numbers
        assert all(1 <= packet <= packets for packet in finding["packets"])
    for conversation in document["conversations"]:
        assert 1 <= conversation["first_packet"] <= conversation["last_packet"] <= packets


def harmless_page(page: str) -> None:
    """Nothing in a page acts but its own scripts."""
    is_inert(page)
    body = re.sub(r"(?s)<(script|style)\b.*?</\1>", "", page)
    for tag, attributes in TAG.findall(body):
        assert tag.lower() not in ("iframe", "object", "embed", "base", "form", "img"), tag
        assert not HANDLER.search(re.sub(r'"[^"]*"', '""', attributes)), attributes


# --- with keys ---------------------------------------------------------------------------------------------------


def _talks() -> Iterator[bytes]:
    from fuzz.spoken import spoken  # noqa: PLC0415

    said = spoken()
    for at in range(0, len(said), 4):
        lines = b"".join(bytes((s == "server",)) + written(plain[:200]) for s, plain in said[at : at + 4])
        yield bytes((at // 4,)) + lines
    yield from (bytes((at,)) + b"\xfe" + changed[1:] for at, changed in enumerate(changes()))


DECRYPTS: Final[tuple[tuple[str, ...], ...]] = (
    ("--width", "100"),
    ("--format", "json"),
    ("--format", "jsonl", "--redact"),
    ("--format", "csv"),
    ("--format", "html", "-o"),
    ("--all", "--redact", "--width", "50"),
    ("--quiet", "-w"),
)


WITH: Final = ("core-a.der", "photon-a.der", "server.der", "other-server.pub.der")
"""Keys that open what is played, and one that opens nothing."""


@target(
    "decrypt in every format and with every export: sessions of any messages, and changed captures",
    _talks,
    longest=800,
    seconds=20,
)
def decrypt(data: bytes) -> None:
    """Decrypt a session that the script plays, or a changed capture."""
    script = Script(data)
    head = script.number()
    packets = mutate.mutated(Script(data[2:])) if data[1:2] == b"\xfe" else talk_of(script)
    place = desk() / DOCUMENT
    place.write_bytes(file_of(packets))
    words = DECRYPTS[head % len(DECRYPTS)]
    page, log, plain = desk() / "page.html", desk() / "log", desk() / "plain.pcapng"
    more: tuple[str, ...] = ()
    if words[-1] == "-o":
        more = (str(page), "--force")
    elif words[-1] == "-w":
        (desk() / "firmware").mkdir(exist_ok=True)
        more = (str(plain), "--force", "--firmware", str(desk() / "firmware"), "--keylog-out", str(log))
    keys = [word for name in WITH for word in ("--keys", str(KEYS / name))]
    status, text, warned = run("decrypt", str(place), *keys, *words, *more)
    assert status in (0, 1), warned
    is_inert(text, "\r\n")
    if "html" in words:
        harmless_page(page.read_text(encoding="utf-8"))
    elif "csv" in words:
        rows = list(csv.reader(io.StringIO(text)))
        assert len({len(row) for row in rows}) <= 1
    elif "json" in words:
        json.loads(text)
    elif "jsonl" in words:
        assert all(json.loads(line) for line in text.splitlines())
    elif "-w" in words and log.exists():
        assert log.stat().st_mode & 0o777 == 0o600


# --- the other commands --------------------------------------------------------------------------------------------


@target("redact, watch, follow and explain on changed captures", changes, longest=300, seconds=20)
def commands(data: bytes) -> None:
    """Each of them takes any capture; what redact writes holds no old address, what a watch says in the end is what
    analyze says.
    """
    script = Script(data)
    head = script.number()
    packets = mutate.mutated(script)
    if not packets:
        return
    place = desk() / DOCUMENT
    place.write_bytes(file_of(packets))
    if head & 1:
        with tempfile.NamedTemporaryFile(dir=desk(), suffix=".pcapng") as out:
            redact([str(place)], out, keys=ring() if head & 8 else None, lookups=bool(head & 16))  # type: ignore[arg-type]
    if head & 2:
        told: list[object] = []
        watcher = Watcher(told.append, keys=ring() if head & 8 else None, messages=True)
        for packet in packets:
            watcher.take(packet)
        watched = watcher.finish()
        if watcher.silent_ns is None and not head & 8:
            assert {f.code for f in watched.findings} == {f.code for f in verdict(packets).findings}
    if head & 4:
        for number in ("1", "2"):
            status, text, _ = run("follow", str(place), number)
            assert status in (0, 1, 2)
            is_inert(text)
    if head & 32:
        status, text, _ = run("explain", "Reset, 5.05 Proxying Not Supported, TID:24199", str(place))
        is_inert(text)
