"""What Wireshark says of one capture: its packets one by one, and the bytes of each TCP conversation.

Small captures are shown to `sharkd`, which is tshark that stays, since starting it costs more than they do; large ones
to `tshark`, which follows all their conversations at once.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import selectors
import subprocess
from base64 import b64decode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from analyzer.outfile import new_file

FIELDS: Final = (
    *("frame.time_epoch", "frame.cap_len", "frame.len", "frame.encap_type", "frame.protocols"),
    *("tcp.stream", "tcp.seq_raw", "tcp.ack_raw", "tcp.flags", "tcp.len"),
)
MISSING: Final = re.compile(rb"\[(\d+) bytes missing in capture file\]\0")
"""What stands in a stream for bytes that are not in the capture."""
SMALL: Final = 2_000_000
"""Bytes of a capture up to which sharkd is asked."""
FEW_LOOKS: Final = 200_000
"""Packets times conversations up to which sharkd is asked to follow them: it goes through all packets for each."""
AT_ONCE: Final = 100
"""Questions that are asked before an answer is read: they have to fit into a pipe."""
MOST_STREAMS: Final = 1000
MOST_LOOKS: Final = 40_000_000
"""Conversations of one capture that are followed, and packets times conversations: tshark looks for each in each."""
SECONDS: Final = 240
"""What either is given for one capture, or one question about it."""

Address = tuple[bytes, int]
Pieces = list[bytes | int]
"""Bytes in order; a number stands for so many that are missing."""


@dataclass(slots=True)
class Packet:
    """One packet. ``time`` is as it is shown, "" where a record has none."""

    time: str
    captured: int
    length: int
    encapsulation: str
    protocols: str
    streams: tuple[int, ...]
    numbers: tuple[int, int, int, int] | None  # sequence, acknowledgement, flags, length of TCP; None if not one TCP


@dataclass(slots=True)
class Followed:
    """One TCP conversation: its two ends, and what each of them sent."""

    ends: tuple[Address, Address] | None
    sent: tuple[Pieces, Pieces]


@dataclass(slots=True)
class Told:
    """All that is said of one capture. ``error`` is the complaint about it, "" of none."""

    packets: dict[int, Packet] = field(default_factory=dict)
    streams: dict[int, Followed] = field(default_factory=dict)
    not_followed: int = 0
    error: str = ""


class Sharkd:
    """Answers questions about one capture after the other; started anew when it has died or hangs."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = 0
        self._rest = [b""]

    def ask(self, *questions: tuple[str, dict[str, str]]) -> list[Any]:
        """Return the answers to some questions, each a method and its parameters; None for an error.

        A damaged file is loaded without an answer, so behind them all comes a question that is always answered.
        """
        if self._process is None:
            self._process = subprocess.Popen(
                ["sharkd", "-"],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        assert self._process.stdin is not None
        first = self._asked + 1
        self._asked += len(questions) + 1
        asked = [*questions, ("status", {})]
        lines = [
            json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": parameters}) + "\n"
            for number, (method, parameters) in enumerate(asked, first)
        ]
        answers: dict[int, Any] = {}
        try:
            self._process.stdin.write("".join(lines).encode())
            while self._asked not in answers:
                answer = json.loads(self._line(self._process))
                answers[answer["id"]] = answer.get("result")
        except (OSError, ValueError, KeyError):
            self.close()
        return [answers.get(number) for number in range(first, self._asked)]

    def _line(self, process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._rest[-1]:
                if not selector.select(SECONDS):
                    raise TimeoutError
                self._rest.append(os.read(process.stdout.fileno(), 1 << 20))
                if not self._rest[-1]:
                    raise OSError("sharkd has died")
        line, _, rest = b"".join(self._rest).partition(b"\n")
        self._rest = [rest]
        return line

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self._rest = [b""]


def tell(path: Path, kept: Path, sharkd: Sharkd) -> Told:
    """Ask about a capture. What is said is kept in the folder ``kept``: it does not depend on us."""
    file = kept / path.name
    if file.exists():
        told: Told = pickle.loads(file.read_bytes())  # noqa: S301 - our own, of an earlier run
        return told
    told = Told()
    if path.stat().st_size > SMALL or not _ask(path, told, sharkd):
        told = Told()
        _run(path, told, ())
        count = _count(told)
        room = min(count, MOST_STREAMS, MOST_LOOKS // max(1, len(told.packets)))
        if room:
            _run(path, told, range(room))
        told.not_followed = count - len(told.streams)
    kept.mkdir(parents=True, exist_ok=True)
    with new_file(file) as stream:
        pickle.dump(told, stream)
    return told


def _count(told: Told) -> int:
    return max((stream for packet in told.packets.values() for stream in packet.streams), default=-1) + 1


def _ask(path: Path, told: Told, sharkd: Sharkd) -> bool:
    """Ask sharkd, and return False when tshark has to be asked."""
    # The number of the first layer that shows a field is 1; 0 is for all of them.
    columns = {f"column{n}": f"{name}:{int(name.startswith('frame.'))}" for n, name in enumerate(FIELDS)}
    loaded, frames = sharkd.ask(("load", {"file": str(path.resolve())}), ("frames", {**columns}))
    if not loaded or loaded.get("status") != "OK" or frames is None:
        return False
    for frame in frames:
        told.packets[frame["num"]] = _packet(frame["c"])
    count = _count(told)
    if count * len(told.packets) > FEW_LOOKS:
        return False
    wanted = [("follow", {"follow": "TCP", "filter": f"tcp.stream=={stream}"}) for stream in range(count)]
    followed = [answer for some in range(0, count, AT_ONCE) for answer in sharkd.ask(*wanted[some : some + AT_ONCE])]
    for stream, answer in enumerate(followed):
        if answer is None:
            return False
        ends = _address(f"{answer['chost']}:{answer['cport']}"), _address(f"{answer['shost']}:{answer['sport']}")
        sent: tuple[Pieces, Pieces] = ([], [])
        for piece in answer.get("payloads", ()):
            sent[piece.get("s", 0)].append(_piece(b64decode(piece["d"])))
        both = (ends[0], ends[1]) if ends[0] and ends[1] else None
        told.streams[stream] = Followed(both, (joined(sent[0]), joined(sent[1])))
    return True


def _run(path: Path, told: Told, streams: Iterable[int]) -> None:
    """Ask tshark about all packets, and have it follow some conversations."""
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=,"]
    command += [word for name in ("frame.number", *FIELDS) for word in ("-e", name)]
    command += [word for number in streams for word in ("-z", f"follow,tcp,raw,{number}")]
    try:
        ran = subprocess.run(command, capture_output=True, check=False, timeout=SECONDS, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        told.error = "tshark did not end"
        return
    lines = iter(ran.stdout.decode("ascii", "replace").splitlines())
    complaints = ran.stderr.decode("utf-8", "replace").splitlines()
    told.error = " ".join(line for line in complaints if "Running as user" not in line)
    for line in lines:
        if line.startswith("==="):
            break
        number, *cells = line.split("\t")
        if len(cells) == len(FIELDS) and number.isdigit():
            told.packets[int(number)] = _packet(cells)
    told.streams.update(_followed(lines))


def _packet(cells: list[str]) -> Packet:
    time, captured, length, encapsulation, protocols, stream, *tcp = cells
    streams = tuple(int(cell) for cell in stream.split(",") if cell)
    numbers = None
    if len(streams) == 1 and all(tcp) and "," not in "".join(tcp):
        numbers = int(tcp[0]), int(tcp[1]), int(tcp[2], 16), int(tcp[3])
    return Packet(time, int(captured or 0), int(length or 0), encapsulation, protocols, streams, numbers)


def _followed(lines: Iterator[str]) -> Iterator[tuple[int, Followed]]:
    """Read the blocks behind the packets, which come in any order; the line that opens the first has been read."""
    number = 0
    ends: list[Address | None] = []
    sent: tuple[Pieces, Pieces] = ([], [])
    for line in lines:
        if line.startswith("Node "):
            ends.append(_address(line.partition(": ")[2]))
        elif line.startswith("Filter: "):
            number = int(line.rpartition(" ")[2])
        elif line.startswith("==="):
            if ends:
                both = (ends[0], ends[1]) if ends[0] and ends[1] else None
                yield number, Followed(both, (joined(sent[0]), joined(sent[1])))
            ends, sent = [], ([], [])
        elif line and not line.startswith("Follow: "):
            sent[line.startswith("\t")].append(_piece(bytes.fromhex(line.strip())))


def _piece(data: bytes) -> bytes | int:
    gap = MISSING.fullmatch(data)
    return int(gap[1]) if gap else data


def _address(text: str) -> Address | None:
    host, _, port = text.rpartition(":")
    try:
        return ip_address(host.strip("[]")).packed, int(port)
    except ValueError:
        return None


def joined(pieces: Pieces) -> Pieces:
    """Put together what follows upon each other: bytes with bytes, missing ones with missing ones."""
    whole: Pieces = []
    for kind, group in groupby(filter(None, pieces), type):
        run: list[Any] = list(group)
        whole.append(b"".join(run) if kind is bytes else sum(run))
    return whole
