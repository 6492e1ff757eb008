"""Several files are one capture; pipes deliver as they are written; what is no capture gets one clear line."""

from __future__ import annotations

import gzip
import io
import os
import pty
import resource
import shutil
import struct
import subprocess
import sys
import zlib
from itertools import islice
from pathlib import Path

import pytest
from capture_files import START, enhanced, interface, payloads, pcap, pcapng, record, section

from analyzer.capture import Capture, CaptureError

CAPTURES = Path(__file__).parent.parent / "captures"
TEN = payloads(10)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that names are relative to."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def numbers_and_data(capture: Capture) -> list[tuple[int, bytes]]:
    return [(packet.number, packet.data) for packet in capture]


# Several files.


def test_files_are_sorted_by_time_and_numbers_run_on(folder: Path) -> None:
    for name, part in (("z", 0), ("b", 1), ("a", 2)):
        (folder / name).write_bytes(pcap(TEN[part * 3 : part * 3 + 3], start=START + part * 3))
    capture = Capture(["a", "b", "z"])
    assert numbers_and_data(capture) == list(enumerate(TEN[:9], 1))
    assert [(f.path, f.first_number, f.packets) for f in capture.files] == [("z", 1, 3), ("b", 4, 3), ("a", 7, 3)]


def test_overlapping_files_are_merged_and_keep_their_own_numbers(folder: Path) -> None:
    (folder / "even").write_bytes(pcap(TEN[::2], start=START, step=2))
    (folder / "odd").write_bytes(
        pcapng([]) + b"".join(enhanced(data, (START + 1 + 2 * i) * 1_000_000) for i, data in enumerate(TEN[1::2]))
    )
    capture = Capture(["odd", "even"])
    packets = list(capture)
    assert [packet.data for packet in packets] == TEN
    assert [packet.number for packet in packets] == [1, 6, 2, 7, 3, 8, 4, 9, 5, 10]
    assert [(f.path, f.first_number, f.packets) for f in capture.files] == [("even", 1, 5), ("odd", 6, 5)]


def test_at_equal_times_the_earlier_file_comes_first(folder: Path) -> None:
    (folder / "a").write_bytes(pcap(TEN[:3], step=0))
    (folder / "b").write_bytes(pcap(TEN[3:6], step=0))
    (folder / "c").write_bytes(pcap(TEN[6:9], start=START - 1))
    order = [TEN.index(packet.data) for packet in Capture(["a", "b", "c"])]
    assert order == [6, 0, 3, 7, 1, 4, 2, 5, 8]


def test_within_a_file_the_order_is_that_of_the_file(folder: Path) -> None:
    (folder / "a").write_bytes(pcap(TEN[:5], start=START + 10, step=-1))
    (folder / "b").write_bytes(pcap(TEN[5:], start=START + 20, step=-1))
    assert numbers_and_data(Capture(["b", "a"])) == list(enumerate(TEN, 1))


def test_a_damaged_clock_in_one_file_does_not_lose_or_double_a_packet(folder: Path) -> None:
    odd = pcap(TEN[:2]) + record(TEN[2], 0xFFFF_0000) + record(TEN[3], START + 3)
    (folder / "a").write_bytes(odd)
    (folder / "b").write_bytes(pcap(TEN[4:7], start=START + 10))
    (folder / "c").write_bytes(pcap(TEN[7:], start=START + 20))
    found = numbers_and_data(Capture(["a", "b", "c"]))
    assert sorted(found) == list(enumerate(TEN, 1))


def test_many_files_are_read_with_few_open(folder: Path) -> None:
    """Ring buffers have thousands of files; overlapping ones as many interfaces."""
    ring = folder / "ring"
    ring.mkdir()
    for i in range(300):
        (ring / f"{i:04}").write_bytes(pcap([TEN[i % 10]] * 2, start=START + 2 * i))
    together = folder / "together"
    together.mkdir()
    for i in range(100):
        (together / f"{i:04}").write_bytes(pcap([TEN[i % 10]] * 2, start=START + i, step=1000))
    in_use = len(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 24, hard))
    try:
        assert [packet.number for packet in Capture(["ring"])] == list(range(1, 601))
        merged = list(Capture(["together"]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sorted(packet.number for packet in merged) == list(range(1, 201))
    times = [packet.time_ns for packet in merged]
    assert times == sorted(times)


def test_a_folder_is_read_by_content_and_not_by_name(folder: Path) -> None:
    (folder / "ring").mkdir()
    (folder / "ring" / "one.txt").write_bytes(pcap(TEN[:5]))
    (folder / "ring" / "two.jpg").write_bytes(gzip.compress(pcap(TEN[5:], start=START + 5)))
    (folder / "ring" / "key.pcap").write_bytes((CAPTURES / "keys" / "core-a.der").read_bytes())
    (folder / "ring" / "empty.pcap").write_bytes(b"")
    (folder / "ring" / "deeper").mkdir()
    capture = Capture(["ring"])
    assert numbers_and_data(capture) == list(enumerate(TEN, 1))
    assert capture.warnings == []
    assert [file.path for file in capture.files] == ["ring/one.txt", "ring/two.jpg"]


def test_a_pattern_stands_for_the_files_that_it_fits(folder: Path) -> None:
    for name, part in (("cap_2.pcap", 0), ("cap_1.pcap", 1), ("other.pcap", 2)):
        (folder / name).write_bytes(pcap(TEN[part * 3 : part * 3 + 3], start=START + part * 3))
    capture = Capture(["cap_*.pcap"])
    assert numbers_and_data(capture) == list(enumerate(TEN[:6], 1))
    assert [file.path for file in capture.files] == ["cap_2.pcap", "cap_1.pcap"]
    with pytest.raises(CaptureError, match=r"^nothing_\*: no such file"):
        Capture(["nothing_*"])


def test_a_name_that_looks_like_a_pattern_is_a_name_first(folder: Path) -> None:
    for place, name in enumerate(("a[1].pcap", "a1.pcap")):
        (folder / name).write_bytes(pcap(TEN[place : place + 1]))
    assert numbers_and_data(Capture(["a[1].pcap"])) == [(1, TEN[0])]


def test_the_same_file_under_two_names_is_read_once(folder: Path) -> None:
    (folder / "a.pcap").write_bytes(pcap(TEN))
    (folder / "link.pcap").symlink_to("a.pcap")
    assert len(list(Capture([".", "a.pcap", "link.pcap"]))) == 10


def test_files_without_packets_are_part_of_the_account(folder: Path) -> None:
    (folder / "none").write_bytes(pcap([]))
    (folder / "some").write_bytes(pcap(TEN))
    capture = Capture(["some", "none"])
    assert len(list(capture)) == 10
    assert [(f.path, f.packets, f.first_ns) for f in capture.files] == [("none", 0, None), ("some", 10, START * 10**9)]


def test_a_capture_can_be_read_twice(folder: Path) -> None:
    (folder / "a").write_bytes(pcap(TEN)[:-3])
    capture = Capture(["a"])
    assert list(capture) == list(capture)
    assert (len(capture.files), len(capture.warnings)) == (1, 1)


def test_the_account_is_right_when_reading_stops_half_way(folder: Path) -> None:
    for writer in (pcap, pcapng):
        (folder / "a").write_bytes(writer(TEN))
        capture = Capture(["a"])
        assert len(list(islice(capture, 4))) == 4
        (file,) = capture.files
        assert (file.packets, file.last_ns) == (4, (START + 3) * 10**9 + 3000)


def test_progress_goes_from_nothing_to_all(folder: Path) -> None:
    (folder / "a").write_bytes(pcap(payloads(3000, 1000)))
    (folder / "b").write_bytes(pcap(payloads(3000, 1000), start=START + 9000))
    capture = Capture(["a", "b"])
    assert list(capture.position) == [0, 6_096_048, "", 0, 2]
    seen = [capture.position for _ in islice(capture, 0, None, 500)]
    assert seen == sorted(seen, key=lambda position: position.done)
    assert (seen[0].path, seen[-1].path) == ("a", "b")
    assert capture.position.done == capture.position.total == 6_096_048


def test_an_unreadable_file_among_others_is_a_warning(folder: Path) -> None:
    (folder / "a").write_bytes(pcap(TEN))
    shutil.copy(CAPTURES / "keys" / "core-a.der", "core.der")
    capture = Capture(["core.der", "a"])
    assert len(list(capture)) == 10
    assert [warning.partition(":")[0] for warning in capture.warnings] == ["core.der"]
    with pytest.raises(CaptureError, match=r"core\.der"):
        list(Capture(["core.der", "core.der"]))


def test_damage_is_told_with_the_numbers_of_the_whole_run(folder: Path) -> None:
    (folder / "a").write_bytes(pcap(TEN[:5]))
    (folder / "b").write_bytes(pcap(TEN[5:], start=START + 5)[:-1])
    capture = Capture(["a", "b"])
    assert len(list(capture)) == 9
    assert capture.warnings == ["b: ends inside packet 10, at byte 403; packets 6–9 are analysed."]


# Pipes.


@pytest.mark.parametrize("kind", ["pcap", "pcapng", "gzip"])
def test_a_pipe_delivers_each_packet_as_it_is_written(kind: str) -> None:
    """The writer waits for each packet to have arrived before it writes the next."""
    read_end, write_end = os.pipe()
    packed = zlib.compressobj(wbits=31) if kind == "gzip" else None

    def write(data: bytes) -> None:
        os.write(write_end, packed.compress(data) + packed.flush(zlib.Z_SYNC_FLUSH) if packed else data)

    ng = kind == "pcapng"
    with open(read_end, "rb") as stream:
        capture = Capture(["-"], stdin=stream)
        write(section() + interface() if ng else pcap([]))
        packets = iter(capture)
        for i, data in enumerate(TEN):
            write(enhanced(data, (START + i) * 1_000_000) if ng else record(data, START + i))
            packet = next(packets)
            assert (packet.number, packet.data) == (i + 1, data)
        if packed:
            os.write(write_end, packed.flush())
        os.close(write_end)
        assert next(packets, None) is None
    assert capture.warnings == []
    assert (capture.files[0].path, capture.files[0].packets, capture.position.total) == ("-", 10, None)


def test_standard_input_of_a_process_is_read_while_it_is_open() -> None:
    program = (
        "from analyzer.capture import Capture\n"
        "for packet in Capture(['-']):\n"
        "    print(packet.number, len(packet.data), flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=CAPTURES.parent
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(pcap(TEN[:1]))
        process.stdin.flush()
        assert process.stdout.readline() == b"1 60\n"
        process.stdin.write(record(TEN[1], START + 1))
        process.stdin.close()
        assert process.stdout.read() == b"2 60\n"
    assert process.returncode == 0


def test_a_named_pipe_is_read_after_all_files(folder: Path) -> None:
    os.mkfifo("fifo")
    (folder / "file").write_bytes(pcap(TEN[:5], start=START + 100))
    with subprocess.Popen(["tee", "fifo"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as tee:
        assert tee.stdin
        tee.stdin.write(pcap(TEN[5:]))
        tee.stdin.close()
        assert numbers_and_data(Capture(["fifo", "file"])) == list(enumerate(TEN, 1))


def test_a_pipe_that_ends_inside_a_packet_is_told() -> None:
    capture = Capture(["-"], stdin=io.BytesIO(pcap(TEN)[:110]))
    assert len(list(capture)) == 1
    assert capture.warnings == ["standard input: ends inside packet 2, at byte 110; packet 1 is analysed."]


# What is no capture.


def refusal(*paths: str) -> str:
    with pytest.raises(CaptureError) as error:
        list(Capture(paths))
    return str(error.value)


def test_a_missing_file_brings_the_similar_name(folder: Path) -> None:
    (folder / "seed.pcap").write_bytes(pcap(TEN))
    (folder / "sub").mkdir()
    (folder / "sub" / "ring.pcap").write_bytes(pcap(TEN))
    assert refusal("seed.pcpa") == "seed.pcpa: no such file. Did you mean seed.pcap?"
    assert refusal("sub/rinq.pcap") == "sub/rinq.pcap: no such file. Did you mean sub/ring.pcap?"
    assert refusal("zzz") == "zzz: no such file. See what is there: ls ."
    assert refusal("no/where") == "no/where: no such file; the folder no cannot be listed either."
    assert refusal("seed.pcap/x").startswith("seed.pcap/x: no such file")


def test_a_misspelt_name_among_others_is_an_error_before_anything_is_read(folder: Path) -> None:
    (folder / "seed.pcap").write_bytes(pcap(TEN))
    with pytest.raises(CaptureError, match=r"Did you mean seed\.pcap"):
        Capture(["seed.pcap", "sead.pcap"])


def test_no_permission_names_the_owner(folder: Path) -> None:
    (folder / "seed.pcap").write_bytes(pcap(TEN))
    (folder / "seed.pcap").chmod(0)
    folder.chmod(0o755)
    owner = (folder / "seed.pcap").owner()
    me = os.geteuid()
    if me == 0:
        os.seteuid(65_534)  # nothing is forbidden to root
    try:
        assert refusal("seed.pcap") == (
            f"seed.pcap: no permission to read (owner {owner}). Try: sudo chown $USER seed.pcap"
        )
    finally:
        if me == 0:
            os.seteuid(0)


def test_an_empty_file(folder: Path) -> None:
    (folder / "seed.pcap").write_bytes(b"")
    assert refusal("seed.pcap") == (
        "seed.pcap: empty (0 bytes). The capture program has not written anything yet; stop it first."
    )
    (folder / "seed.pcap").write_bytes(b"\xd4\xc3\xb2")
    assert refusal("seed.pcap").startswith("seed.pcap: almost empty (3 bytes). ")


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("core-a.der", "a key (RSA private, 607 bytes)"),
        ("core-a.pem", "a key (RSA private, 887 bytes)"),
        ("core-b.pub.der", "a key (RSA public, 162 bytes)"),
        ("server.pub.der", "a key (RSA public, 294 bytes)"),
        ("server.pub.pem", "a key (public, 451 bytes)"),
    ],
)
def test_a_key_is_named_as_one(folder: Path, source: str, kind: str) -> None:
    shutil.copy(CAPTURES / "keys" / source, "core.der")
    size = (folder / "core.der").stat().st_size
    assert refusal("core.der") == f"core.der: not a capture but {kind}. Try: sparkshark keys core.der"
    assert f"{size:,} bytes" in kind


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (b"hello, this is no capture at all\n", 'not a capture but text (starts "hello, this is no captur...").'),
        (b'{"schema": 1}', 'not a capture but JSON (starts "{"schema": 1}").'),
        (b"\n<!DOCTYPE html><html>", "not a capture but a web page (HTML)."),
        (b"PK\x03\x04rest of the archive", "not a capture but a zip archive."),
        (b"\x7fELF\x02\x01\x01\x00", "not a capture but a program (ELF)."),
        (b"snoop\x00\x00\x00\x00\x00\x00\x02", "not a capture but a snoop file."),
        (b"\n\r\r\n\x1c\x00\x00\x00\x00\x00\x00\x00", "not a capture (starts with 0a 0d 0d 0a)."),
        (b"\x00\x01\x02\x03\x04", "not a capture (starts with 00 01 02 03)."),
        (b"\xd4\xc3\xb2\xa2" + bytes(40), "not a capture (starts with d4 c3 b2 a2)."),
        (gzip.compress(b"just text"), 'not a capture but text (starts "just text").'),
        (b"-----BEGIN CERTIFICATE-----\nMII", "not a capture but a certificate (31 bytes)."),
    ],
)
def test_what_is_no_capture_is_told_by_its_content(folder: Path, content: bytes, fact: str) -> None:
    (folder / "odd.pcap").write_bytes(content)
    line = refusal("odd.pcap")
    assert line.startswith(f"odd.pcap: {fact} ")
    assert line.splitlines() == [line]


def test_a_folder_without_captures(folder: Path) -> None:
    (folder / "backups").mkdir()
    assert refusal("backups") == "backups: an empty folder. Name one with captures in it."
    for name in ("notes.txt", "z"):
        (folder / "backups" / name).write_text("nothing")
    assert refusal("backups") == (
        "backups: 2 files, none of them a capture (first: notes.txt). "
        "Name a file that tcpdump, dumpcap or Wireshark has written."
    )


def test_a_terminal_as_standard_input() -> None:
    controller, terminal = pty.openpty()
    with os.fdopen(terminal, "rb") as stream, pytest.raises(CaptureError) as error:
        Capture(["-"], stdin=stream)
    os.close(controller)
    assert str(error.value) == (
        '"-" reads a capture from a pipe, but nothing is piped. Try: tcpdump -U -w - port 5683 | sparkshark analyze -'
    )


def test_a_name_of_any_characters_stays_on_one_line(folder: Path) -> None:
    (folder / "odd\n\x1b[31mname").write_bytes(struct.pack(">I", 5))
    assert refusal("odd\n\x1b[31mname").startswith("odd\\n\\x1b[31mname: not a capture")
    assert "\n" not in refusal("no\nname")
    assert "no such file" in refusal("nul\0name")
