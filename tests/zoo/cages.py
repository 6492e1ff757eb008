"""Which packages bring captures, and how they are fetched and searched for them.

Everything comes through the clients of the registries: `apt-get source` with lists and caches of its own, `pip
download` and `npm pack`. Of each package only the captures are kept, found by how they begin and not by their names.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from analyzer.capture import CaptureError
from analyzer.capture.source import Source

DEBIAN: Final = {
    # Source packages, and the release from which each is taken.
    "bookworm": (
        *("arp-scan", "diffoscope", "dnscap", "libbtbb", "libnet-pcap-perl", "libpcap", "ndpi", "ns3", "pcapy"),
        *("python-dpkt", "tcpflow", "termshark", "umockdev", "wireshark", "wolfssl"),
    ),
    "trixie": ("aircrack-ng", "dnsjit", "fq", "golang-github-gopacket-gopacket", "netw-ib-ox-ag", "packetq"),
    "sid": ("oarc-dsc", "suricata", "tcpdump"),
}
PYPI: Final = (
    "joyfuljay==0.1.6.1",
    "libpcap==1.11.0b29",
    "mptcpanalyzer==0.3.2",
    "pktcap==0.1.3",
    "pycapng==0.19.7",
    "pypacker==5.4",
    "python-pcapng==2.1.1",
)
NPM: Final = ("pcap-parser@0.2.1",)

CAPTURES: Final = (
    *(b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d"),
    b"\x0a\x0d\x0d\x0a",
)
FOREIGN: Final = {
    # Captures of other programs, by how they begin. Each has to be refused with one line.
    b"snoop\0\0\0": "snoop",
    b"btsnoop\0": "btsnoop",
    b"TRSNIFF data": "Sniffer",
    b"XCP\0": "NetXRay",
    b"GMBU": "Network Monitor 2",
    b"RTSS": "Network Monitor 1",
    b"iptrace ": "iptrace",
    b"\x05VNF": "Visual Networks",
    b"\x7fver": "Peek",
    b"ObserverPktBuffe": "Observer",
    b"\x34\xcd\xb2\xa1": "pcap, modified",
    b"\xa1\xb2\xcd\x34": "pcap, modified",
    b"\x1c\x00\x01\xac": "Ixia",
    b"\x1c\x00\x01\xab": "Ixia",
}
FOREIGN_NAMES: Final = (".erf", ".5vw", ".acp", ".rf5", ".ntl", ".log.pcap")
"""Endings of captures that begin in no way of their own."""
ARCHIVES: Final = (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".zip")
PACKED: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
HEAD: Final = 16
LARGEST: Final = 64 << 20
"""Bytes of the largest member of a package that is looked at."""
SAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Cage:
    """One package with captures. ``fetch`` puts its archives into a folder."""

    name: str
    registry: str
    fetch: Callable[[Path], None]


def cages(folder: Path) -> list[Cage]:
    """Return all packages; ``folder`` is where apt may keep its lists."""
    found = [
        Cage(name, "Debian", lambda to, n=name, s=suite: _from_debian(folder, to, n, s))  # type: ignore[misc]
        for suite, names in DEBIAN.items()
        for name in names
    ]
    found += [Cage(spec.partition("==")[0], "PyPI", lambda to, s=spec: _from_pypi(to, s)) for spec in PYPI]  # type: ignore[misc]
    found += [Cage(spec.partition("@")[0], "npm", lambda to, s=spec: _from_npm(to, s)) for spec in NPM]  # type: ignore[misc]
    return sorted(found, key=lambda cage: (cage.registry, cage.name))


def captures_of(cage: Cage, folder: Path) -> list[Path]:
    """Return the captures of a package, which is fetched and unpacked if it has not been."""
    kept = folder / "captures" / cage.registry / cage.name
    if not (kept / ".whole").exists():
        archives = folder / "packages" / cage.registry / cage.name
        archives.mkdir(parents=True, exist_ok=True)
        if not (archives / ".whole").exists():
            print(f"fetching {cage.name} ({cage.registry})", file=sys.stderr)
            cage.fetch(archives)
            (archives / ".whole").touch()
        kept.mkdir(parents=True, exist_ok=True)
        for archive in sorted(path for path in archives.iterdir() if path.name.endswith(ARCHIVES)):
            for name, data in _members(archive):
                if _is_capture(name, data):
                    digest = hashlib.sha256(data).hexdigest()[:12]
                    safe = SAFE.sub("_", os.path.basename(name))[-80:]
                    (kept / f"{digest}-{safe}").write_bytes(data)
        (kept / ".whole").touch()
    return sorted(path for path in kept.iterdir() if path.name != ".whole")


# -- the registries ------------------------------------------------------------------------------------------------


def _from_debian(folder: Path, to: Path, name: str, suite: str) -> None:
    """Fetch a source package of whatever release, and leave the lists of this machine's own apt alone."""
    root = folder.resolve() / "apt"
    sources = root / "sources.list"
    options = [
        *("-o", f"Dir::Etc::SourceList={sources}", "-o", "Dir::Etc::SourceParts=/dev/null"),
        *("-o", f"Dir::State::Lists={root / 'lists'}", "-o", f"Dir::Cache={root / 'cache'}"),
        *("-o", "APT::Sandbox::User=root", "-qq"),
    ]
    if not (root / "lists").exists():
        (root / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
        key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
        lines = (f"deb-src {key} http://deb.debian.org/debian {release} main\n" for release in DEBIAN)
        sources.write_text("".join(lines), encoding="utf-8")
        (root / "lists/partial").mkdir(parents=True)
        subprocess.run(["apt-get", *options, "update"], check=True)
    # What Debian itself adds to a package holds no captures: it does not matter when that part cannot be had.
    subprocess.run(["apt-get", *options, "source", "--download-only", f"{name}/{suite}"], cwd=to, check=False)
    if not any(".tar." in path.name and ".debian." not in path.name for path in to.iterdir()):
        raise OSError(f"{name}: no archive of it could be fetched from Debian")


def _from_pypi(to: Path, spec: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", str(to), spec]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _from_npm(to: Path, spec: str) -> None:
    subprocess.run(["npm", "pack", "--silent", spec], cwd=to, check=True, stdout=subprocess.DEVNULL)


# -- what is in an archive -----------------------------------------------------------------------------------------


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                if 0 < info.file_size <= LARGEST:
                    yield info.filename, packed.read(info)
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and 0 < member.size <= LARGEST:
                file: IO[bytes] | None = tar.extractfile(member)
                if file is not None:
                    yield member.name, file.read()


def head_of(data: bytes) -> bytes:
    """Return how a file begins, unpacked if it is packed; b"" when it cannot be unpacked."""
    if not data.startswith(PACKED):
        return data[:HEAD]
    try:
        return Source("-", io.BytesIO(data)).extend(b"", HEAD)[:HEAD]
    except CaptureError:
        return b""


def _is_capture(name: str, data: bytes) -> bool:
    return head_of(data).startswith((*CAPTURES, *FOREIGN)) or name.endswith(FOREIGN_NAMES)
