"""What is written takes the place of a file only, and is never found there in part."""

from __future__ import annotations

import os
import re
import shlex
import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from capture_files import pcap_header, record

from analyzer.capture import Capture
from analyzer.cli import main
from analyzer.live import ring
from analyzer.outfile import is_disk, new_file, takes_stream
from analyzer.simulate import Conversation, finish, make_world, messages

ROOT = Path(__file__).resolve().parent.parent
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


ODD_NAMES = (
    "../../out",
    "/out",
    "..\\out",
    "C:out",
    "con",
    "nul.",
    "-rf",
    "a\nb",
    "a\x00b",
    "x" * 200,
    "\u202egnp",
    "．．／x",
)
NAME_OF_OURS = re.compile(
    r"sparkshark_\d{5}_\d{14}\.pcapng|firmware-\d+-\d+\.bin(\.partial(\.txt)?)?|date=[0-9-]{10}|sparkshark\.parquet"
    r"|conversations|messages|findings|tables|images|ring|[a-z]+\.out"
)


def odd_talk() -> bytes:
    """A capture with such names wherever a device or its server can choose one, and with the times of broken clocks."""
    world = make_world()
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.handshake()
    for number, name in enumerate(ODD_NAMES):
        c.device_says(messages.event(0x100 + number, name, name), after=0.1)
        c.device_says(messages.subscribe(0x200 + number, name, mine=True), after=0.1)
        c.server_says(messages.function_call(0x300 + number, 0x40 + number, name, name), after=0.1)
    c.close("device", after=1.0)
    simulation = finish(world)
    for name, content in simulation.keys.items():
        Path(name).write_bytes(content)
    times = [0, 1, 2**31, 2**32 - 1]
    return pcap_header() + b"".join(
        record(packet.data, times[number % len(times)] if number > 20 else number, 0)
        for number, packet in enumerate(simulation.packets)
    )


def test_nobody_but_the_user_chooses_the_name_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, work = tmp_path / "keys", tmp_path / "out" / "of" / "here"
    keys.mkdir()
    work.mkdir(parents=True)
    monkeypatch.chdir(keys)
    odd = tmp_path / "odd\n$(name) -x.pcap"
    odd.write_bytes(odd_talk())
    monkeypatch.chdir(work)
    (work / "images").mkdir()
    update = ROOT / "captures" / "photon-fast-ota.pcap"
    shipped = ["--keys", str(update.parent / "keys")]
    for number, words in enumerate(
        (
            ["analyze", str(odd), "--keys", str(keys), "-o", "analyze.out"],
            ["decrypt", str(odd), "--keys", str(keys), "--format", "parquet", "-o", "tables"],
            ["decrypt", str(odd), "--keys", str(keys), "-w", "plain.out", "--keylog-out", "log.out", "-o", "text.out"],
            ["decrypt", str(update), *shipped, "--firmware", "images", "-o", "other.out"],
            ["redact", str(odd), "redacted.out", "--keys", str(keys)],
        )
    ):
        assert main(words) == 0, number
    kept = ring.Ring("ring", size=2000, files=200)
    for packet in Capture([str(odd)]):
        kept.take(packet, 6)
    kept.close()
    names = [path.name for path in (tmp_path / "out").rglob("*")]
    assert len(names) > 20
    assert [name for name in names if NAME_OF_OURS.fullmatch(name) is None] == ["of", "here"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["keys", odd.name, "out"])


@pytest.mark.parametrize(
    ("words", "content"),
    [
        (["analyze"], "captures/keys/core-a.der"),
        (["watch"], "captures/healthy-full.pcap"),
        ([], "captures/healthy-full.pcap"),
        (["decrypt", str(ROOT / "captures/healthy-full.pcap"), "--keys"], "captures/README.md"),
    ],
)
def test_a_command_to_paste_does_nothing_else_whatever_a_file_is_called(
    words: list[str], content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "a;touch pwned;$(touch pwned)`touch pwned`.pcap"
    Path(name).write_bytes((ROOT / content).read_bytes())
    assert main([*words, name]) == 2
    command = re.split(r"Try: |analyse a capture: ", capsys.readouterr().err)[-1]
    assert shlex.split(command)[-1] == name


def test_nor_does_the_one_behind_a_practice_capture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", "port-blocked", "-o", "a;touch pwned.pcapng"]) == 0
    assert shlex.split(capsys.readouterr().out.partition("Try: ")[2])[-1] == "a;touch pwned.pcapng"
