"""Every kind of mistake has its line: the subject, one fact, and what to do next. Each line is compared whole."""

from __future__ import annotations

import gzip
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from screens import CAPTURES, sparkshark

SEED = CAPTURES / "key-mismatch-retries.pcap"


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    shutil.copy(SEED, tmp_path / "seed.pcap")
    shutil.copy(CAPTURES / "keys" / "core-a.der", tmp_path / "core.der")
    (tmp_path / "empty.pcap").write_bytes(b"")
    (tmp_path / "cut.pcap").write_bytes(SEED.read_bytes()[:-34])
    (tmp_path / "seed.pcap.gz").write_bytes(gzip.compress(SEED.read_bytes(), mtime=0)[:3000])
    odd = bytearray(SEED.read_bytes())
    odd[20:24] = struct.pack("<I", 147)
    (tmp_path / "odd.pcap").write_bytes(odd)
    (tmp_path / "backups").mkdir()
    for name in ("notes.txt", "old.txt", "zebra.txt"):
        (tmp_path / "backups" / name).write_text("nothing of interest\n")
    (tmp_path / "report.html").write_text("precious")
    (tmp_path / "wrong").write_text("not it\n")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "sparkshark.lua").write_text("-- somebody else's\n")
    make = ["openssl", "genrsa", "-traditional", "-aes128", "-passout", "pass:x", "-out", "core.pem", "1024"]
    subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


ROWS = (
    ("analyze seed.pcpa", "seed.pcpa: no such file. Did you mean seed.pcap?"),
    ("analyze core.der", "core.der: not a capture but a key (RSA private, 607 bytes). Try: sparkshark keys core.der"),
    (
        "analyze empty.pcap",
        "empty.pcap: empty (0 bytes). The capture program has not written anything yet; stop it first.",
    ),
    (
        "analyze odd.pcap",
        "odd.pcap: link type 147 (private use) is not known; no packet can be read. Capture on an ordinary network"
        " interface.",
    ),
    (
        "analyze seed.pcap -o report.html",
        "report.html: exists already. Nothing was written. Try: another name, or --force",
    ),
    (
        "analyze seed.pcap --session-key 0123456789abcdefg",
        '--session-key: character 17 is "g", not a hex digit. 80 digits are wanted (or 32 for the AES key alone).',
    ),
    (
        "analyze seed.pcap --conversation 4",
        "--conversation 4: this capture has 3 (1–3). List them: sparkshark analyze FILE --format json",
    ),
    (
        "decrypt seed.pcap --keys core.pem --password-file wrong",
        "core.pem: the password does not open this key. Try again, or: openssl rsa -in core.pem -out plain.pem",
    ),
    (
        "install-plugin --directory plugins",
        "{desk}/plugins/sparkshark.lua: not written by sparkshark; left alone. Replace it: --force",
    ),
    ("analyze seed.pcap --port 70000", "--port 70000: ports run from 1 to 65535. Spark devices use 5683."),
    (
        "analyze seed.pcap --keys backups/",
        "--keys backups/: 3 files, none of them a key (first: notes.txt). Without --keys there is still a verdict.",
    ),
    ("follow seed.pcap 1 --raw --hex", "--raw and --hex exclude each other; leave out both for the readable form."),
    ("explain SPK260", "SPK260: no such finding. Did you mean SPK206? All: sparkshark explain"),
    ("analyse seed.pcap", "analyse: no such command. Did you mean analyze?"),
    # beyond the agreed ones
    ("keys core.dre", "core.dre: no such file. Did you mean core.der?"),
    ("keys nowhere/core.der", "nowhere/core.der: no such file; the folder nowhere cannot be listed either."),
    ("keys zzz", "zzz: no such file. See what is there: ls ."),
    (
        "decrypt seed.pcap --keys core.pem",
        "core.pem: locked with a password. Try: --password-file FILE, or: openssl rsa -in core.pem -out plain.pem",
    ),
    (
        "decrypt seed.pcap --keys core.pem --password-file rwong",
        "rwong: no such file. Did you mean wrong?",
    ),
    (
        "decrypt seed.pcap",
        "decrypt: no key was given. Try: --keys FOLDER, --device-key FILE, --keylog FILE or --session-key HEX."
        " Without keys there is still a verdict: sparkshark analyze",
    ),
    (
        "decrypt seed.pcap --keys core.der --firmware a;b",
        "a;b: the folder does not exist. Make it first: mkdir -p 'a;b'",
    ),
    (
        "decrypt seed.pcap --keylog seed.pcap",
        "seed.pcap: no session key in it. Make one: sparkshark decrypt --keylog-out FILE",
    ),
    (
        "follow seed.pcap 1 --port 70000",
        "--port 70000: ports run from 1 to 65535. Spark devices use 5683.",
    ),
    ("completion tcsh", "SHELL tcsh: no such choice. All: bash, zsh, fish, powershell, man"),
    (
        "simulate healthy --firmware core-2014 --server community -o x.pcap",
        'community: this server takes no core-2014 (it wants the device\'s key in "who I am"). Try: another firmware,'
        " or the legacy server",
    ),
    ("analyze seed.pcap --format parquet", "--format parquet: it makes a folder of tables. Say which: -o DIR"),
)


@pytest.mark.parametrize(("words", "line"), ROWS, ids=[words[:50] for words, _ in ROWS])
def test_a_mistake_has_its_line(words: str, line: str, desk: Path) -> None:
    before = sorted(desk.rglob("*"))
    run = sparkshark(*words.split(), cwd=desk)
    assert run.stderr.decode() == f"sparkshark: {line.format(desk=desk)}\n"
    assert (run.returncode, run.stdout) == (2, b"")
    assert sorted(desk.rglob("*")) == before


def test_an_empty_name_is_told() -> None:
    run = sparkshark("analyze", "")
    assert run.stderr == b'sparkshark: "": no file name. Name a file, a folder, or - for standard input.\n'


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("cut.pcap", "cut.pcap: ends inside packet 43, at byte 5,100; packets 1–42 are analysed."),
        ("seed.pcap.gz", "seed.pcap.gz: the gzip data ends early, after {size} bytes unpacked; analysed up to there."),
    ],
)
def test_a_capture_that_ends_early_is_a_warning(name: str, line: str, desk: Path) -> None:
    run = sparkshark("analyze", name, "--quiet", cwd=desk)
    assert run.returncode == 0
    told = run.stderr.decode()
    size = told.partition("after ")[2].partition(" bytes")[0]
    assert told == f"sparkshark: warning: {line.format(size=size)}\n"
    assert "NOT CONNECTING" in run.stdout.decode()


def test_no_permission_names_the_owner_and_the_way_out(desk: Path) -> None:
    (desk / "seed.pcap").chmod(0)
    # Root may read everything, so that somebody else has to try.
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"] if os.geteuid() == 0 else []
    desk.chmod(0o755)
    for parent in list(desk.parents)[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    run = sparkshark("analyze", "seed.pcap", cwd=desk, before=command)
    owner = (desk / "seed.pcap").owner()
    assert run.stderr.decode() == (
        f"sparkshark: seed.pcap: no permission to read (owner {owner}). Try: sudo chown $USER seed.pcap\n"
    )
    assert run.returncode == 2
