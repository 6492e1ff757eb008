"""Everything that is tried with one capture."""

from __future__ import annotations

import contextlib
import gzip
import json
import resource
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from analyzer.capture import CaptureError
from analyzer.cli import EXIT_DONE, EXIT_FINDINGS, EXIT_UNUSABLE, main
from zoo import ours, shark
from zoo.cages import CAPTURES, head_of
from zoo.compare import Verdict, compare

KEYS: Final = Path(__file__).resolve().parents[2] / "captures/keys"
COMMANDS: Final = (
    ("analyze", "--format", "json"),
    ("analyze", "--format", "text", "--statistics"),
    ("decrypt", "--format", "jsonl", "--keys", str(KEYS)),
)
QUIET_CODES: Final = frozenset(("SPK401",))
SWAPPED: Final = {
    b"\xd4\xc3\xb2\xa1": "<",
    b"\x4d\x3c\xb2\xa1": "<",
    b"\xa1\xb2\xc3\xd4": ">",
    b"\xa1\xb2\x3c\x4d": ">",
}
CONVERTED: Final = {
    # editcap's options that change the file and nothing in it.
    "nanosecond pcap": ("-F", "nsecpcap"),
    "pcapng": ("-F", "pcapng"),
}
CUT: Final = 128


@dataclass(slots=True)
class Commands:
    """How the commands took a capture: complaints about them, and what they claim to be of our protocol."""

    wrong: list[str] = field(default_factory=list)
    refused: str = ""
    connections: int = 0
    claims: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)


# -- the commands --------------------------------------------------------------------------------------------------


def commands(path: Path) -> Commands:
    """Run the commands on a capture as a user would, and hold them to what is documented."""
    told = Commands()
    for words in COMMANDS:
        status, out, err = _command([words[0], str(path), *words[1:], "--jobs", "1"])
        name = " ".join((words[0], words[2]))
        if words[0] == "decrypt" and status == EXIT_FINDINGS:
            status = EXIT_DONE  # there was nothing to open
        if "Traceback" in err or status not in (EXIT_DONE, EXIT_UNUSABLE):
            told.wrong.append(f"{name}: exit status {status}: {err[-500:]}")
        elif status == EXIT_UNUSABLE:
            lines = err.splitlines()
            if len(lines) != 1 or not err.startswith("sparkshark: ") or out:
                told.wrong.append(f"{name}: refused with {len(lines)} lines: {err[:500]}")
            told.refused = told.refused or err.strip() or "refused"
        elif words[2] == "json":
            _claims(json.loads(out), told)
        elif words[2] == "jsonl":
            for line in out.splitlines():
                json.loads(line)
        elif not out.strip() or any(ord(letter) < 32 and letter != "\n" for letter in out):
            told.wrong.append(f"{name}: nothing, or control characters, in the report")
    return told


def warm() -> None:
    """Load what the commands load when they are used, once for all processes that follow."""
    for words in COMMANDS:
        _command([words[0], str(KEYS.parent / "healthy-full.pcap"), *words[1:]])


def _command(words: list[str]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out, tempfile.TemporaryFile("w+", encoding="utf-8") as err:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(words)
        out.seek(0)
        err.seek(0)
        return status, out.read(), err.read()


def _claims(report: dict[str, Any], told: Commands) -> None:
    told.connections = len(report["conversations"])
    told.codes = sorted({finding["code"] for finding in report["findings"]} - QUIET_CODES)
    for one in report["conversations"]:
        if one["kind"] == "spark":
            ends = f"{one['device']['ip']}:{one['device']['port']} to {one['server']['ip']}:{one['server']['port']}"
            told.claims.append(f"connection {one['number']}, {ends}: {one['reached']}")


# -- beside tshark -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Outcome:
    """What came of everything that was tried. ``memory`` is what the commands needed, in bytes."""

    commands: Commands
    memory: int
    verdict: Verdict | None
    on_any_port: list[str]
    converted: int = 0
    wrong: list[str] = field(default_factory=list)


def everything(jobs: list[tuple[Path, shark.Told, bool]]) -> list[Outcome]:
    """Try everything with some captures: each with what tshark says of it, and whether to write it in other formats."""
    outcomes = []
    for path, told, in_others in jobs:
        ran = commands(path)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        outcome = Outcome(ran, memory, *beside_tshark(path, told))
        if in_others and outcome.verdict is not None and not outcome.verdict.packet_causes:
            outcome.converted, outcome.wrong = in_other_clothes(path)
        outcomes.append(outcome)
    return outcomes


def beside_tshark(path: Path, told: shark.Told) -> tuple[Verdict | None, list[str]]:
    """Compare with what tshark says; None for what is no capture to us. Also return what would be called ours on any
    port.
    """
    try:
        mine = ours.look(path)
    except CaptureError:
        return None, []
    return compare(mine, told), [
        f"connection {talk.conversation.number} to port {talk.conversation.server.port}: {talk.conversation.reached}"
        for talk in mine.talks
        if talk.conversation.kind == "spark" and talk.conversation.reached not in ("syn", "connected")
    ]


# -- the same in other clothes -------------------------------------------------------------------------------------


def in_other_clothes(path: Path) -> tuple[int, list[str]]:
    """Write a capture in other formats, which have to give the same result; return how many, and which did not."""
    try:
        plain, put_together = _result(path), ours.look(path).put_together
    except CaptureError:
        return 0, []
    wrong, tried = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for name, copy in _copies(path, Path(folder)):
            tried += 1
            if (other := _result(copy)) != plain:
                wrong.append(f"{name}: {_first_difference(plain, other)}")
        cut = Path(folder) / "cut"
        if not put_together and _editcap(path, cut, "-s", str(CUT)):
            tried += 1
            short = _result(cut)
            # What the capture cut must be missed, and not a byte more.
            if [talk[:2] for talk in short[2]] != [talk[:2] for talk in plain[2]]:
                wrong.append(f"cut to {CUT} bytes: {_first_difference(plain, short)}")
    return tried, wrong


def _copies(path: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    for name, options in CONVERTED.items():
        copy = folder / name.replace(" ", "-")
        if _editcap(path, copy, *options):
            yield name, copy
    data = path.read_bytes()
    if data.startswith(CAPTURES):
        packed = folder / "packed.gz"
        packed.write_bytes(gzip.compress(data, 1))
        yield "gzip", packed
    if (swapped := _swapped(data)) is not None:
        other = folder / "swapped"
        other.write_bytes(swapped)
        yield "the other byte order", other


def _editcap(path: Path, copy: Path, *options: str) -> bool:
    """Convert with editcap; False where it cannot (several link types in a pcap, damage)."""
    command = ["editcap", *options, str(path), str(copy)]
    return subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL).returncode == 0


def _swapped(data: bytes) -> bytes | None:
    """Return a pcap with all numbers of its headers in the other byte order; None for anything else, or damage."""
    mine = SWAPPED.get(data[:4])
    if mine is None:
        return None
    theirs = "<" if mine == ">" else ">"
    out, at = [struct.pack(theirs + "IHHiIII", *struct.unpack_from(mine + "IHHiIII", data))], 24
    while at + 16 <= len(data):
        header = struct.unpack_from(mine + "IIII", data, at)
        if at + 16 + header[2] > len(data):
            return None
        out += [struct.pack(theirs + "IIII", *header), data[at + 16 : at + 16 + header[2]]]
        at += 16 + header[2]
    return b"".join(out) if at == len(data) else None


Result = tuple[int, tuple[int | None, int | None], list[tuple[object, object, object]]]


def _result(path: Path) -> Result:
    """Return packets, first and last time, and of each conversation its ends, how much was sent, and the bytes."""
    mine = ours.look(path)
    trace = mine.trace
    talks: list[tuple[object, object, object]] = []
    for talk in mine.talks:
        lengths = [sum(len(p) if isinstance(p, bytes) else p for p in sent) for sent in talk.sent]
        talks.append((talk.ends, lengths, (talk.sent, talk.conversation.kind, talk.conversation.reached)))
    return len(mine.packets), (trace.first_ns, trace.last_ns), talks


def _first_difference(one: Result, other: Result) -> str:
    for a, b in zip(one[2], other[2], strict=False):
        if a != b:
            return f"{a!r:.200} became {b!r:.200}"
    return f"{one[:2]}, {len(one[2])} conversations became {other[:2]}, {len(other[2])}"


def is_ours(path: Path) -> bool:
    """Whether a file is pcap or pcapng, packed or not: what we promise to read."""
    return head_of(path.read_bytes()).startswith(CAPTURES)
