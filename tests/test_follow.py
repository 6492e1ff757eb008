"""`sparkshark follow`: the bytes of a connection, compared with what Wireshark's own Follow Stream gives."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from screens import CAPTURES, sparkshark

from analyzer.cli import main

COMPARED = (
    ("healthy-full", 1, 0),
    ("key-mismatch-retries", 3, 2),
    ("encap-sll2", 1, 0),
    ("photon-fast-ota", 1, 0),
    ("wrong-service-http302", 1, 0),
)


def followed(tmp_path: Path, capture: str, number: int, *words: str) -> bytes:
    """The bytes that the command writes."""
    target = tmp_path / f"{capture}-{len(list(tmp_path.iterdir()))}.bin"
    assert main(["follow", str(CAPTURES / f"{capture}.pcap"), str(number), *words, "-o", str(target)]) == 0
    return target.read_bytes()


def wireshark(capture: str, stream: int) -> tuple[bytes, bytes]:
    """What tshark says the device and the server sent, in the order of its Follow Stream."""
    run = subprocess.run(
        ["tshark", "-n", "-q", "-r", str(CAPTURES / f"{capture}.pcap"), "-z", f"follow,tcp,raw,{stream}"],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in run.stdout.splitlines() if re.fullmatch(r"\t?[0-9a-f]+", line)]
    sides = ["".join(line.strip() for line in lines if line.startswith("\t") == inner) for inner in (False, True)]
    device, server = (bytes.fromhex(side) for side in sides)
    first = re.search(r"Node 0: (\S+)", run.stdout)
    assert first is not None
    return (server, device) if first[1].endswith(":5683") else (device, server)


@pytest.mark.parametrize(("capture", "number", "stream"), COMPARED)
def test_the_bytes_are_those_that_wireshark_follows(capture: str, number: int, stream: int, tmp_path: Path) -> None:
    device, server = wireshark(capture, stream)
    assert followed(tmp_path, capture, number, "--raw", "--direction", "device") == device
    assert followed(tmp_path, capture, number, "--raw", "--direction", "server") == server
    both = followed(tmp_path, capture, number, "--raw")
    assert len(both) == len(device) + len(server)
    assert sorted(both) == sorted(device + server)


def test_a_lossy_line_gives_the_bytes_that_were_sent(tmp_path: Path) -> None:
    truth = json.loads((CAPTURES / "lossy-link.truth.json").read_text())
    server = followed(tmp_path, "lossy-link", 1, "--raw", "--direction", "server")
    assert server.startswith(bytes.fromhex(truth["sessions"][0]["nonce"]))
    frames, place = 0, 40 + 384
    while place < len(server):
        place += 2 + int.from_bytes(server[place : place + 2], "big")
        frames += 1
    assert place == len(server)
    assert frames == len(truth["sessions"][0]["s2c"])


def test_hex_lines_and_readable_lines_hold_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = followed(tmp_path, "key-mismatch-retries", 1, "--raw")
    lines = followed(tmp_path, "key-mismatch-retries", 1, "--hex").decode().splitlines()
    assert {line.split()[0] for line in lines} == {"device", "server"}
    assert b"".join(bytes.fromhex(line.split()[1]) for line in lines) == raw
    readable = followed(tmp_path, "key-mismatch-retries", 1).decode()
    rows = re.findall(r"^  [0-9a-f]{4,}  ((?:[0-9a-f]{2} {1,2})+)", readable, re.MULTILINE)
    assert bytes.fromhex("".join("".join(row.split()) for row in rows)) == raw
    assert max(map(len, readable.splitlines())) <= 80
    assert readable.startswith("packet 4  0.112 s  server  greeting, 40 bytes\n  0000  ")
    heads = [line for line in readable.splitlines() if line.startswith("packet")]
    assert [re.sub(r"[\d.]+ s  ", "", head) for head in heads] == [
        "packet 4  server  greeting, 40 bytes",
        "packet 6  device  who I am, 256 bytes",
        "packet 8  server  reply, 384 bytes",
        "packet 12  device  frame 1: length 0010, then 16 bytes",
    ]


def test_a_hole_is_announced_with_its_size_and_not_filled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = followed(tmp_path, "capture-gap", 1, "--raw", "--direction", "device")
    told = capsys.readouterr().err
    document = tmp_path / "whole.json"
    assert main(["analyze", str(CAPTURES / "capture-gap.pcap"), "--format", "json", "-o", str(document)]) == 0
    conversation = json.loads(document.read_text())["conversations"][0]
    hole = next(gap for gap in conversation["gaps"] if gap["direction"] == "device")
    assert (hole["length"], hole["packet"]) == (52, 27)
    assert told == (
        f"sparkshark: 52 bytes from the device are missing at offset {hole['offset']:,} (not captured; seen at packet"
        " 27); not filled.\n"
    )
    server = followed(tmp_path, "capture-gap", 1, "--raw", "--direction", "server")
    assert capsys.readouterr().err.startswith("sparkshark: 18 bytes from the server are missing at offset ")
    counted = conversation["bytes"]
    assert (len(device), len(server)) == (counted["device"], counted["server"])


def test_bytes_go_into_a_pipe_untouched() -> None:
    run = sparkshark("follow", "captures/healthy-full.pcap", "1", "--raw", "--direction", "server")
    assert run.stdout[:16].hex(" ") == "5c c2 a9 8d ba f9 53 84 6b 6a 00 66 46 8b 4e 2d"
    assert (run.returncode, run.stderr) == (0, b"")


def test_any_tcp_connection_can_be_followed(tmp_path: Path) -> None:
    target = tmp_path / "web.bin"
    words = ["follow", str(CAPTURES / "two-devices-background.pcap"), "--port", "80", "--raw", "-o", str(target)]
    found = []
    for number in range(1, 13):
        main([*words, str(number), "--force"])
        found.append(target.read_bytes())
    assert any(data.startswith(b"GET ") for data in found)


def test_there_is_nothing_to_follow_on_another_port(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["follow", str(CAPTURES / "healthy-full.pcap"), "1", "--port", "99"]) == 0
    capsys.readouterr()
    assert main(["follow", str(CAPTURES / "healthy-full.pcap"), "2"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == (
        "sparkshark: connection 2: this capture has 1. List them: sparkshark analyze FILE --format json\n"
    )


def test_redacted_a_session_is_the_same_and_a_web_page_is_not() -> None:
    healthy, portal = (str(CAPTURES / f"{name}.pcap") for name in ("healthy-full", "wrong-service-http302"))
    assert sparkshark("follow", healthy, "1", "--redact").stdout == sparkshark("follow", healthy, "1").stdout
    page = sparkshark("follow", portal, "1", "--redact", "--raw", "--direction", "server").stdout
    assert page.startswith(b"HTTP/1.1 302 xxxxx\r\n")
    assert b"guest" not in page
    assert len(page) == len(sparkshark("follow", portal, "1", "--raw", "--direction", "server").stdout)
    piped = sparkshark("follow", "-", "1", "--redact", "--raw", stdin=Path(portal).read_bytes())
    assert piped.stdout.startswith(page[:40])
