"""The other tools: which are installed, in which version, and how they do their part of each work."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from ..workloads import Made
from .floors import node, rsa_of_logins
from .runs import Setting, Took, sparkshark, took

TOOLS: Final = ("tcpdump", "tshark", "tcpflow", "node")
JOBS: Final = (1, 2)


class Peer(NamedTuple):
    """Another program, and what it is asked for with ``{capture}`` and an empty ``{folder}``."""

    says: str
    command: tuple[str, ...]


TCPDUMP: Final = Peer(
    "tcpdump, keeping port 5683", ("tcpdump", "-n", "-r", "{capture}", "-w", "/dev/null", "tcp port 5683")
)
TSHARK: Final = Peer("tshark, showing port 5683", ("tshark", "-n", "-r", "{capture}", "-Y", "tcp.port==5683"))
TCPFLOW: Final = Peer(
    "tcpflow, reassembling into files", ("tcpflow", "-q", "-r", "{capture}", "-o", "{folder}", "tcp port 5683")
)
FIELDS: Final = Peer(
    "tshark, payloads as fields, sealed",
    ("tshark", "-n", "-r", "{capture}", "-T", "fields", "-e", "ip.src", "-e", "tcp.stream", "-e", "tcp.payload"),
)
FOLLOW: Final = Peer(
    "tshark, following the stream, sealed",
    ("tshark", "-n", "-q", "-r", "{capture}", "--disable-protocol", "coap", "-z", "follow,tcp,raw,0"),
)
"""Without its CoAP, which the frames are not, and whose time grows with the square of a stream: here, hours."""
NODE: Final = "Node, deciphering alone"
FLOOR: Final = "RSA of the logins alone"


def installed() -> dict[str, str]:
    """Return the tools that are here, with their versions."""
    return {name: _version(name) for name in TOOLS if shutil.which(name)}


def _version(name: str) -> str:
    done = subprocess.run([name, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+[.\d]*", done.stdout + done.stderr)
    return found[0] if found else "?"


def jobs_of(verb: str, where: Setting) -> dict[str, list[str]]:
    """Return the options for one job and for two, named; only the plain command where it has no ``--jobs``."""
    told = subprocess.run(sparkshark(verb, "--help"), env=where.environment, capture_output=True, text=True, check=True)
    if "--jobs" not in told.stdout:
        return {job_name(1): []}
    return {job_name(jobs): ["--jobs", str(jobs)] for jobs in JOBS}


def job_name(jobs: int) -> str:
    """Return what a run of ours is called in the tables."""
    return f"sparkshark, {jobs} job{'s' if jobs > 1 else ''}"


def runner(peer: Peer, made: Made, where: Setting) -> Callable[[], Took] | None:
    """Return what runs a peer, or None where it is not installed."""
    if not shutil.which(peer.command[0]):
        return None
    return partial(_fresh, peer, made.captures[0], where)


def output_folder(where: Setting) -> Path:
    """Where a peer writes files; what it wrote stays until the next one runs."""
    return where.scratch / "written"


def _fresh(peer: Peer, capture: Path, where: Setting) -> Took:
    folder = output_folder(where)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return took([word.format(capture=capture, folder=folder) for word in peer.command], where)


def ours(verb: str, made: Made, options: list[str]) -> list[str]:
    """Return the command that does the work with keys, all of it: messages or findings, and the report."""
    form = ["--format", "jsonl"] if verb == "decrypt" else []
    return sparkshark(verb, *map(str, made.captures), "--keys", str(made.keys), *form, *options)


def floor(logins: int) -> Callable[[], Took]:
    """Return what measures the RSA of so many logins."""
    return partial(rsa_of_logins, logins)


def deciphering(frames: int) -> Callable[[], Took] | None:
    """Return what lets Node decipher so many frames, or None where there is no Node."""
    return partial(node, frames) if shutil.which("node") else None
