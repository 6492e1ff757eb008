"""Strings that must not be in anything that is posted, planted wherever a capture, a key file or a path has room."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from canaries import contents, spelled
from capture_files import pcap_header, record, with_checksum

from analyzer.cli import main
from analyzer.simulate import Conversation, finish, make_world, messages

PERSON = "Waldtraut"
NAMES = {
    "event": "zwiebelkuchen",
    "data": "quarkstrudel 17",
    "private event": "heidelbeere",
    "prefix": "pflaumenmus",
    "variable": "kirschtorte",
    "value": "nussecke",
    "number": "-48151623",
    "function": "butterkeks",
    "argument": "mandelsplitter",
    "portal host": "lebkuchen.example",
    "portal page": "zimtstern",
    "portal server": "marzipan",
    "banner": "dominostein",
    "request": "spekulatius",
    "folder": "pfeffernuss",
    "server": "printen.example",
    "unanswered": "schnecke",
    "image": "krapfen.example",
}
DEVICE_ADDRESS, SERVER_ADDRESS = "192.168.77.201", "93.184.216.34"
DEVICE_MAC = "0a:de:ad:be:ef:01"
FORMATS = ("text", "json", "jsonl", "markdown", "html", "parquet")
TABLES = ("text", "json", "jsonl", "csv", "html", "parquet")


def address(text: str) -> bytes:
    return bytes(map(int, text.split(".")))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a person's name in it, and there a capture and keys."""
    home = tmp_path_factory.mktemp(PERSON) / NAMES["folder"]
    (home / "keys").mkdir(parents=True)
    world = make_world()
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.announce()
    c.handshake()
    c.server_says(messages.describe_request(c.next_server_id(), 0x21), after=0.1)
    description = {"f": [NAMES["function"]], "v": {NAMES["variable"]: 4, "zahl": 2}, NAMES["data"]: [1, NAMES["value"]]}
    c.device_says(messages.answer(0x31, 0x21, json.dumps(description).encode()), after=0.1)
    c.device_says(messages.event(0x100, NAMES["event"], NAMES["data"]), after=0.1)
    c.device_says(messages.event(0x101, NAMES["private event"], NAMES["data"], private=True), after=0.1)
    c.device_says(messages.subscribe(0x102, NAMES["prefix"], mine=True), after=0.1)
    for number, (name, value) in enumerate(
        ((NAMES["variable"], NAMES["value"].encode()), ("zahl", (-48151623 & 0xFFFFFFFF).to_bytes(4)))
    ):
        c.server_says(messages.variable_request(0x200 + number, 0x41 + number, name), after=0.1)
        c.device_says(messages.answer(0x200 + number, 0x41 + number, value), after=0.1)
    c.server_says(messages.function_call(0x210, 0x51, NAMES["function"], NAMES["argument"]), after=0.1)
    c.device_says(messages.function_return(0x110, 0x51, -48151623), after=0.1)
    c.server_says(messages.function_call(0x220, 0x52, NAMES["unanswered"], NAMES["argument"]), after=0.1)
    for number in range(4):
        c.device_says(messages.event(0x120 + number, NAMES["event"], NAMES["data"]), after=9.0)
    c.close("device", after=1.0)
    page = (
        f"HTTP/1.1 302 {NAMES['portal page']}\r\nLocation: http://{NAMES['portal host']}/{NAMES['portal page']}"
        f"?{PERSON}\r\nServer: {NAMES['portal server']}\r\n\r\n"
    )
    for at, (end, said) in enumerate(
        (
            ("server", page),
            ("server", f"220 {NAMES['banner']} {PERSON} {DEVICE_ADDRESS} mail\r\n"),
            ("server", f"SSH-2.0-{NAMES['banner']}\r\n"),
            ("device", f"GET /{NAMES['request']} HTTP/1.1\r\nHost: {NAMES['portal host']}\r\n\r\n"),
        )
    ):
        stranger = Conversation(world, world.add_device(), at=20.0 + 10 * at)
        stranger.connect()
        stranger.tcp.send(end, said.encode(), after=0.01, label="x")  # type: ignore[arg-type]
        stranger.close("server", after=1.0)
    simulation = finish(world)
    moved = {
        address("192.168.1.104"): address(DEVICE_ADDRESS),
        address(world.addresses["server"]): address(SERVER_ADDRESS),
        bytes.fromhex(device.host.mac.replace(":", "")): bytes.fromhex(DEVICE_MAC.replace(":", "")),
    }
    packets = []
    for packet in simulation.packets:
        data = packet.data
        for old, new in moved.items():
            data = data.replace(old, new)
        data = with_checksum(data) if data[12:14] == b"\x08\x00" and data[23] == 6 else data
        packets.append(record(data, packet.time_ns // 10**9, packet.time_ns % 10**9 // 1000))
    (home / "capture.pcap").write_bytes(pcap_header() + b"".join(packets))
    for name, content in simulation.keys.items():
        # A server's image names the server as well.
        (home / "keys" / (f"{device.device_id.hex()}.der" if name == f"{device.name}.der" else name)).write_bytes(
            content
        )
    image = (home / "keys" / "server.pub.der").read_bytes().ljust(384, b"\xff")
    host = NAMES["image"].encode()
    (home / "keys" / "image.bin").write_bytes((image + b"\x01" + bytes((len(host),)) + host).ljust(512, b"\xff"))
    return home


def canaries(place: Path) -> dict[str, list[bytes]]:
    device_id = next(path.stem for path in (place / "keys").iterdir() if len(path.stem) == 24)
    known: dict[str, list[bytes]] = {what: list(spelled(name)) for what, name in {**NAMES, "person": PERSON}.items()}
    known["ID"] = [device_id.encode(), base64.b64encode(bytes.fromhex(device_id)).lower()]
    for what in (DEVICE_ADDRESS, SERVER_ADDRESS):
        raw = address(what)
        known[what] = [what.encode(), ".".join(map(str, raw[::-1])).encode(), raw.hex().encode(), raw.hex(" ").encode()]
    mac = bytes.fromhex(DEVICE_MAC.replace(":", ""))
    known["MAC"] = [DEVICE_MAC.encode(), mac.hex().encode(), mac.hex(" ").encode(), mac.hex("-").encode()]
    return known


def nothing_in(output: bytes, place: Path) -> None:
    lower = output.lower()
    for what, spellings in canaries(place).items():
        for spelling in spellings:
            assert spelling not in lower, (what, lower[max(0, lower.index(spelling) - 200) :][:400])


def said(capsys: pytest.CaptureFixture[str], *words: str | Path) -> bytes:
    """All that a command writes to either stream. None of it may be a fault of ours."""
    status = main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert status == 0, err
    return (out + err).encode()


@pytest.fixture(autouse=True)
def in_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


def test_the_canaries_are_there(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_ = said(capsys, "analyze", place / "capture.pcap", "--keys", place / "keys", "--format", "json").lower()
    open_ += said(capsys, "decrypt", place / "capture.pcap", "--keys", place / "keys").lower()
    open_ += said(capsys, "keys", place / "keys").lower()
    missing = [what for what, spellings in canaries(place).items() if not any(s in open_ for s in spellings)]
    assert missing == ["server"]


@pytest.mark.parametrize("keyed", [False, True], ids=["plain", "keyed"])
@pytest.mark.parametrize("form", FORMATS)
def test_no_report_holds_one(
    form: str, keyed: bool, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words: list[str | Path] = ["analyze", place / "capture.pcap", "--redact", "--format", form, "--show-secrets"]
    words += ["--keys", place / "keys"] if keyed else []
    words += ["-o", tmp_path / "tables"] if form == "parquet" else []
    output = said(capsys, *words)
    assert keyed or form == "parquet" or b"SPK103" in output
    nothing_in(output + b"".join(tables(tmp_path / "tables")), place)
    if form in ("text", "markdown", "html"):
        assert b"Shortened: " in output
    elif form == "json":
        assert json.loads(output.partition(b"\nsparkshark:")[0])["redacted"] is True


@pytest.mark.parametrize(
    "more", [["--statistics"], ["--quiet"], ["--conversation", "2"], ["--expect-server", NAMES["server"]]]
)
def test_no_option_brings_one_back(more: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing_in(said(capsys, "analyze", place / "capture.pcap", "--redact", "--keys", place / "keys", *more), place)


@pytest.mark.parametrize("form", TABLES)
def test_no_table_of_messages_holds_one(
    form: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words: list[str | Path] = [
        "decrypt",
        place / "capture.pcap",
        "--keys",
        place / "keys",
        "--redact",
        "--format",
        form,
    ]
    words += ["-o", tmp_path / "tables"] if form == "parquet" else []
    output = said(capsys, *words, "--show-secrets")
    nothing_in(output + b"".join(tables(tmp_path / "tables")), place)
    assert b"FunctionReturn" in output + b"".join(tables(tmp_path / "tables"))


def tables(folder: Path) -> Iterator[bytes]:
    """All of a data set: its files, and what is in them when they are unpacked."""
    return (content for _, content in contents(folder))


@pytest.mark.parametrize("form", ["text", "jsonl"])
def test_no_line_of_a_watch_holds_one(form: str, place: Path) -> None:
    words = ["watch", "-", "--redact", "--format", form, "--messages", "--keys", str(place / "keys")]
    run = subprocess.run(
        [sys.executable, "-m", "analyzer", *words, "--expect-server", NAMES["server"]],
        input=(place / "capture.pcap").read_bytes(),
        capture_output=True,
        check=True,
    )
    nothing_in(run.stdout + run.stderr, place)
    assert b"FunctionReturn" in run.stdout


@pytest.mark.parametrize("form", [[], ["--hex"], ["--direction", "server"]])
@pytest.mark.parametrize("number", range(1, 6))
def test_no_stream_holds_one(number: int, form: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = said(capsys, "follow", place / "capture.pcap", str(number), "--redact", *form)
    nothing_in(output, place)
    # What is cut into rows is one text again.
    nothing_in(b"".join(line.rpartition(b"  ")[2] for line in output.splitlines()), place)


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_list_of_keys_holds_one(form: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = said(capsys, "keys", place / "keys", place / "keys" / "server.pub.pem", "--redact", "--format", form)
    nothing_in(output, place)
    assert b"server.pub.pem" in output


@pytest.mark.parametrize("lookups", [[], ["--with-lookups"]])
def test_no_capture_holds_one(
    lookups: list[str], place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "posted.pcapng"
    said(capsys, "redact", place / "capture.pcap", out, "--keys", place / "keys", *lookups)
    written = out.read_bytes()
    nothing_in(written, place)
    for raw in (address(DEVICE_ADDRESS), bytes.fromhex(DEVICE_MAC.replace(":", ""))):
        assert raw not in written


def test_exports_that_are_all_content_are_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("-w", "--keylog-out", "--firmware"):
        words = [
            "decrypt",
            str(place / "capture.pcap"),
            "--keys",
            str(place / "keys"),
            "--redact",
            option,
            str(tmp_path / "x"),
        ]
        assert main(words) == 2
        assert f"{option} and --redact exclude each other" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
