"""Is what sparkshark prints what was sent? Its JSON lines against the truth of a workload."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..workloads import Made
from .runs import Setting, sparkshark

SIDES: Final = ("device", "server")


class Share(NamedTuple):
    """So many of so many."""

    right: int
    of: int

    def __str__(self) -> str:
        return f"{self.right:,} of {self.of:,}" if self.of else "–"


@dataclass(slots=True)
class Seen:
    """What the lines say about one connection."""

    reached: str
    closed_by: str
    nonce_matches: bool | None
    gaps: int
    codes: frozenset[str] = frozenset()

    def is_found(self, outcome: str) -> bool:
        """Whether this is what such a connection must be told to be."""
        return VERDICTS[outcome](self)


VERDICTS: Final[dict[str, Callable[[Seen], bool]]] = {
    "device key mismatch": lambda seen: "SPK301" in seen.codes,
    "server key mismatch": lambda seen: "SPK302" in seen.codes,
    "bad signature": lambda seen: "SPK303" in seen.codes,
    "unknown device": lambda seen: "SPK304" in seen.codes,
    "nonce mismatch": lambda seen: seen.nonce_matches is False,
    "no identity": lambda seen: seen.reached == "nonce",
    "no nonce": lambda seen: seen.reached == "connected",
    "no answer": lambda seen: (seen.reached, seen.closed_by) == ("syn", "none"),
    "refused": lambda seen: (seen.reached, seen.closed_by) == ("syn", "server-rst"),
}
"""What the lines must say for each way to fail."""
TOLD_BY_CODE: Final = frozenset({"SPK301", "SPK302", "SPK303", "SPK304"})


class Correctness(NamedTuple):
    """How much of a workload was understood, and the digest of everything printed."""

    complete: Share
    """Sessions without holes whose messages are the ones that were sent, byte for byte, both directions."""
    holes: Share
    """Sessions with holes that are said to have holes."""
    verdicts: Share
    """Connections that failed, and are told to have failed for the right reason."""
    frames: int
    """Messages that were printed whole."""
    output: str


class _Reading:
    """Takes the lines in, in whatever order they come."""

    def __init__(self) -> None:
        self.connections: dict[str, Seen] = {}
        self.digests: dict[str, tuple[Any, Any]] = {}
        self.frames = 0
        self._numbers: dict[int, str] = {}
        self._messages: dict[int, tuple[Any, Any]] = {}
        self._codes: dict[int, set[str]] = {}

    def line(self, told: dict[str, Any]) -> None:
        match told["kind"]:
            case "conversation":
                device, handshake = told["device"], told["handshake"] or {}
                name = f"{device['ip']}:{device['port']}"
                self._numbers[told["number"]] = name
                matches = (handshake.get("identity") or {}).get("nonce_matches")
                self.connections[name] = Seen(told["reached"], told["closed_by"], matches, len(told["gaps"]))
            case "message":
                number = told["conversation"]
                both = self._messages.get(number)
                if both is None:
                    both = self._messages[number] = (hashlib.sha256(), hashlib.sha256())
                if told["whole"]:
                    plaintext = bytes.fromhex(told["plaintext"])
                    both[SIDES.index(told["direction"])].update(len(plaintext).to_bytes(2, "big") + plaintext)
                    self.frames += 1
            case "finding" if told["code"] in TOLD_BY_CODE:
                for number in told["conversations"]:
                    self._codes.setdefault(number, set()).add(told["code"])

    def finish(self) -> None:
        for number, codes in self._codes.items():
            self.connections[self._numbers[number]].codes |= codes
        self.digests = {self._numbers[number]: both for number, both in self._messages.items()}


def correctness(lines: Iterable[bytes], sessions: Path) -> Correctness:
    """Compare the lines of ``--format jsonl`` with the truth about the connections."""
    reading, everything = _Reading(), hashlib.sha256()
    for line in lines:
        everything.update(line)
        reading.line(json.loads(line))
    reading.finish()
    tallies = {"complete": [0, 0], "complete with holes": [0, 0], "failed": [0, 0]}
    for true in _truth(sessions):
        seen = reading.connections.get(true["device"])
        tally = tallies.get(true["outcome"], tallies["failed"])
        tally[1] += 1
        if seen is None:
            continue
        if true["outcome"] == "complete":
            both = reading.digests.get(true["device"], (hashlib.sha256(), hashlib.sha256()))
            sent = [true["messages_sha256"][side] for side in SIDES]
            tally[0] += not seen.gaps and [digest.hexdigest() for digest in both] == sent
        elif true["outcome"] == "complete with holes":
            tally[0] += seen.gaps > 0
        else:
            tally[0] += seen.is_found(true["outcome"])
    complete, holes, verdicts = (Share(*tally) for tally in tallies.values())
    return Correctness(complete, holes, verdicts, reading.frames, everything.hexdigest())


def _truth(sessions: Path) -> Iterator[dict[str, Any]]:
    with sessions.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def of_sparkshark(verb: str, made: Made, options: list[str], where: Setting) -> Correctness:
    """Run ``sparkshark VERB --format jsonl`` and compare while it prints: its output may be larger than the capture."""
    captures = [str(path) for path in made.captures]
    command = sparkshark(verb, *captures, "--keys", str(made.keys), "--format", "jsonl", *options)
    try:
        found, status = _compared(command, made, where)
    except ValueError as cut_off:
        raise RuntimeError(f"{shlex.join(command)}: {cut_off}") from cut_off
    if status:
        raise RuntimeError(f"{shlex.join(command)}: exit status {status}")
    return found


def _compared(command: list[str], made: Made, where: Setting) -> tuple[Correctness, int]:
    with (
        (where.scratch / "stderr").open("wb") as complaints,
        subprocess.Popen(command, env=where.environment, stdout=subprocess.PIPE, stderr=complaints) as process,
    ):
        assert process.stdout is not None
        found = correctness(process.stdout, made.sessions)
    return found, process.returncode


def of_tcpflow(folder: Path, sessions: Path) -> dict[str, Share]:
    """Compare what tcpflow wrote with the streams of the sessions without holes, for each sender."""
    right, of = dict.fromkeys(SIDES, 0), 0
    for true in _truth(sessions):
        if true["outcome"] != "complete":
            continue
        of += 1
        device, server = (_in_a_file_name(true[side]) for side in SIDES)
        for side, name in (("device", f"{device}-{server}"), ("server", f"{server}-{device}")):
            path = folder / name
            if path.exists():
                right[side] += hashlib.sha256(path.read_bytes()).hexdigest() == true["streams_sha256"][side]
    return {side: Share(right[side], of) for side in SIDES}


def _in_a_file_name(end: str) -> str:
    address, port = end.split(":")
    return f"{'.'.join(f'{int(byte):03}' for byte in address.split('.'))}.{int(port):05}"
