"""What is written takes the place of a file only, and is never found there in part."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from analyzer.cli import main
from analyzer.outfile import is_disk, new_file, takes_stream

CAPTURE, KEYS = "captures/healthy-full.pcap", "captures/keys"
WRITERS = {
    "analyze": ["analyze", CAPTURE, "-o"],
    "analyze as json": ["analyze", CAPTURE, "--format", "json", "-o"],
    "analyze as html": ["analyze", CAPTURE, "--format", "html", "-o"],
    "decrypt": ["decrypt", CAPTURE, "--keys", KEYS, "-o"],
    "plain capture": ["decrypt", CAPTURE, "--keys", KEYS, "-w"],
    "key log": ["decrypt", CAPTURE, "--keys", KEYS, "--keylog-out"],
    "raw bytes": ["follow", CAPTURE, "1", "--raw", "-o"],
    "redact": ["redact", CAPTURE],
}
"""Everything that writes one file under a name that the user gives."""


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("words", WRITERS.values(), ids=WRITERS)
def test_a_pipe_gets_the_bytes_and_stays_a_pipe(words: list[str], force: bool, tmp_path: Path) -> None:
    pipe, came = tmp_path / "pipe", []
    os.mkfifo(pipe)
    mode = stat.S_IMODE(pipe.stat().st_mode)
    reader = threading.Thread(target=lambda: came.append(pipe.read_bytes()), daemon=True)
    reader.start()
    assert main([*words, str(pipe), *(["--force"] if force else [])]) == 0
    reader.join(30)
    assert came[0]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert stat.S_IMODE(pipe.stat().st_mode) == mode
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.parametrize("words", WRITERS.values(), ids=WRITERS)
def test_the_null_device_stays_one(words: list[str]) -> None:
    before = os.stat(os.devnull)
    assert main([*words, os.devnull, "--force"]) == 0
    after = os.stat(os.devnull)
    assert stat.S_ISCHR(after.st_mode)
    assert (after.st_ino, after.st_mode, after.st_uid) == (before.st_ino, before.st_mode, before.st_uid)


def test_a_name_for_standard_output_is_written_to_and_not_replaced() -> None:
    assert takes_stream("/dev/stdout")
    assert not is_disk("/dev/stdout")


def test_a_disk_is_never_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk"
    try:
        os.mknod(disk, 0o600 | stat.S_IFBLK, os.makedev(7, 7777))
    except OSError:  # not as root, or in a container: then any other disk, which nothing is going to touch
        disk.write_bytes(b"")
        monkeypatch.setattr("analyzer.commands.common.is_disk", lambda path: path == str(disk))
    assert main(["analyze", CAPTURE, "-o", str(disk), "--force"]) == 2
    assert f"{disk}: a disk, and not a file. Nothing was written." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [disk]


def test_a_link_is_replaced_and_what_it_leads_to_is_left(tmp_path: Path) -> None:
    kept, link = tmp_path / "kept", tmp_path / "link"
    kept.write_bytes(b"kept")
    link.symlink_to(kept)
    with new_file(link, private=True) as stream:
        stream.write(b"new")
    assert (kept.read_bytes(), link.read_bytes()) == (b"kept", b"new")
    assert not link.is_symlink()
    assert stat.S_IMODE(link.stat().st_mode) == 0o600


def test_half_a_file_is_never_found_there(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_bytes(b"old")
    with suppress(RuntimeError), new_file(path) as stream:
        stream.write(b"new")
        raise RuntimeError("the power is gone")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
