"""What may be posted: nothing of a person's network in it, and nothing a stranger wrote that acts on a reader."""

from __future__ import annotations

import ipaddress
import json
import re
import unicodedata
from functools import cache
from pathlib import Path

import pytest
from capture_files import wireshark
from screens import CAPTURES, SHIPPED, shown, story

from analyzer.catalogue import FALLBACK_ADDRESS
from analyzer.pipeline import analyze
from analyzer.report.redact import Redactor, device_letter
from analyzer.simulate import Conversation, finish, make_world

FORMATS = (["--redact"], ["--redact", "--format", "json"], ["--redact", "--format", "jsonl"], ["--format", "markdown"])
STORIES = ("two-devices", "blocked-icmp", "announcements-only", "dtls", "other-port", "dns-failed", "http-portal")


@pytest.fixture(autouse=True)
def in_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


@cache
def private(path: Path) -> frozenset[str]:
    """What of a capture must not be in a report: its addresses, as Wireshark lists them, and its devices' IDs."""
    fields = ("ip.src", "ip.dst", "arp.src.proto_ipv4", "arp.dst.proto_ipv4", "eth.src", "eth.dst", "dns.a")
    found = {value for row in wireshark(path, *fields) for cell in row for value in cell.split(",") if value}
    truth = path.with_suffix(".truth.json")
    if truth.exists():
        found |= set(re.findall(r"\b[0-9a-f]{24}\b", truth.read_text()))
    found |= {text.decode() for text in re.findall(rb"(?<![0-9A-Za-z])[0-9a-f]{24}(?![0-9A-Za-z])", path.read_bytes())}
    return frozenset(found - {FALLBACK_ADDRESS, "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"})


def tells_nothing(report: str, path: Path) -> None:
    for value in private(path):
        whole = rf"(?<![0-9A-Za-z])(?<![0-9]\.){re.escape(value)}(?![0-9A-Za-z]|\.[0-9])"
        assert not re.search(whole, report), value
    assert str(path.parent) not in report
    assert str(Path.home()) not in report or str(Path.home()) == "/"


@pytest.mark.parametrize("name", SHIPPED)
def test_no_redacted_report_names_an_address(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = CAPTURES / f"{name}.pcap"
    assert len(private(path)) >= 3
    for words in FORMATS:
        tells_nothing(shown(capsys, "analyze", *words, str(path)), path)
    open_report = shown(capsys, "analyze", "--format", "json", str(path))
    assert "192.168.1." in open_report


@pytest.mark.parametrize("name", STORIES)
def test_no_redacted_report_on_a_story_names_an_address(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = story(name, tmp_path)
    for words in FORMATS:
        report = shown(capsys, "analyze", *words, str(path))
        tells_nothing(report, path)
        assert max(map(len, report.splitlines())) <= 80 or words != ["--redact"]


def test_the_firmwares_own_constant_stays(capsys: pytest.CaptureFixture[str]) -> None:
    for words in FORMATS:
        assert FALLBACK_ADDRESS in shown(capsys, "analyze", *words, str(CAPTURES / "port-blocked.pcap"))


def test_json_says_that_it_is_redacted_and_keeps_its_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(CAPTURES / "key-mismatch-retries.pcap")
    plain = shown(capsys, "analyze", "--format", "json", path)
    redacted = shown(capsys, "analyze", "--format", "json", "--redact", path)
    assert json.loads(redacted)["redacted"] is True
    assert "redacted" not in json.loads(plain)
    assert re.findall(r"\d+\.\d{6,9}", redacted) == re.findall(r"\d+\.\d{6,9}", plain)
    assert json.loads(redacted)["captures"][0]["path"] == "key-mismatch-retries.pcap"
    device = json.loads(redacted)["conversations"][0]["device"]
    assert (device["ip"], device["mac"], device["id"]) == ("Device A", "08:00:28:…", None)
    first = json.loads(shown(capsys, "analyze", "--format", "jsonl", "--redact", path).splitlines()[0])
    assert first["redacted"] is True


def test_messages_keep_their_shape_and_lose_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["analyze", str(CAPTURES / "healthy-full.pcap"), "--keys", str(CAPTURES / "keys"), "--show-secrets"]
    plain = json.loads(shown(capsys, *words, "--format", "json"))["conversations"][0]
    text = shown(capsys, *words, "--format", "json", "--redact")
    redacted = json.loads(text)["conversations"][0]
    assert len(plain["messages"]) == len(redacted["messages"]) == 67
    assert [m["name"] for m in plain["messages"]] == [m["name"] for m in redacted["messages"]]
    for message, told in zip(plain["messages"], redacted["messages"], strict=True):
        length = len(message["plaintext"]) // 2
        assert told["plaintext"] == f"{length} byte{'s' * (length != 1)}"
        for value in filter(None, (message["payload"], message["path"])):
            assert f'"{value}"' not in text
    key = plain["handshake"]["session"]["key"]
    assert len(key) == 80
    assert key not in text
    assert plain["handshake"]["nonce"]["hex"] in text
    device_id = "48ff6d06507b573081350e87"
    assert device_id not in text


def test_a_table_of_messages_tells_lengths(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["decrypt", str(CAPTURES / "healthy-full.pcap"), "--keys", str(CAPTURES / "keys")]
    plain, redacted = shown(capsys, *words).splitlines(), shown(capsys, *words, "--redact").splitlines()
    assert plain[0].replace("48ff6d06507b573081350e87", "48ff…0e87") == redacted[0]
    assert [line[:39] for line in plain[1:]] == [line[:39] for line in redacted[1 : len(plain)]]
    rows = {line[:7].strip(): line[39:] for line in redacted[2:]}
    assert rows["9"] == "product 0, firmware 65535"  # words and numbers of the protocol stay
    assert rows["18"] == "5 functions, 6 variables       16, 0.1 ms"
    assert rows["28"].startswith("name (5), value withheld")
    assert rows["30"] == "name (4), data (4)"
    assert redacted[-1] == "Shortened: device IDs and what messages say."


def test_a_number_that_a_message_says_is_left_out_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["analyze", str(CAPTURES / "healthy-full.pcap"), "--keys", str(CAPTURES / "keys"), "--format", "json"]
    plain, redacted = (json.loads(shown(capsys, *words, *more)) for more in ([], ["--redact"]))
    kinds = set()
    for open_, told in zip(*(c["conversations"][0]["messages"] for c in (plain, redacted)), strict=True):
        for name in {"value", "return_value"} & open_["values"].keys():
            value, left = open_["values"][name], told["values"][name]
            kinds.add(type(value))
            assert left == (f"{len(value)} characters" if isinstance(value, str) else "withheld")
        if open_["values"].get("variables"):
            assert told["values"]["variables"] == "6 entries"  # their names are the keys
    assert {int, float} & kinds


def test_text_ends_with_what_was_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(CAPTURES / "wrong-service-http302.pcap")
    report = shown(capsys, "analyze", "--redact", path)
    assert report.splitlines()[-1] == "Shortened: addresses, hardware addresses and what others wrote."
    assert "08:00:28:…" in report
    assert "Shortened" not in shown(capsys, "analyze", path)


def test_columns_stay_where_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(CAPTURES / "two-devices-background.pcap")
    plain = shown(capsys, "analyze", path).splitlines()
    redacted = shown(capsys, "analyze", "--redact", path).splitlines()
    row = next(i for i, line in enumerate(plain) if line.startswith("  192.168.1.104"))
    assert redacted[row].index("NOT CONNECTING") == plain[row].index("NOT CONNECTING")
    assert redacted[row].startswith("  Device B  ")


def test_letters_go_on_behind_z() -> None:
    assert [device_letter(i) for i in (0, 25, 26, 51, 52, 701, 702)] == ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]


def test_addresses_are_shortened_whole_and_only_where_they_are_addresses() -> None:
    redactor = Redactor(analyze(CAPTURES / "healthy-full.pcap"))
    assert redactor.shorten("192.168.1.104:5683 and 192.168.1.1044 and 1.2.3.4.5") == (
        "Device A:5683 and 192.168.1.1044 and 1.2.3.4.5"
    )
    assert redactor.shorten("from 8.8.8.8 to 10.0.0.7, 999.1.1.1") == "from 198.51.x.x to Host A, 999.1.1.1"
    assert redactor.shorten("48FF6d06507b573081350e87") == "48FF…0e87"
    long = "ab" * 40
    assert redactor.shorten(long) == long


# -- Markdown --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_markdown_can_be_posted_whole(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = shown(capsys, "analyze", "--format", "markdown", str(CAPTURES / f"{name}.pcap"))
    lines = report.splitlines()
    assert len(lines) <= 30
    assert lines[0].startswith("**")
    rows = [line for line in lines if line.startswith("|")]
    assert {line.count("|") - 2 * line.count("\\|") for line in rows} <= {6}
    assert "\n\n\n" not in report


def test_markdown_shows_addresses_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    report = shown(capsys, "analyze", "--format", "markdown", "--no-redact", str(CAPTURES / "no-nonce.pcap"))
    assert "192.168.1.104 to 54.208.229.4:5683" in report
    assert "Shortened" not in report


# -- what a stranger wrote -------------------------------------------------------------------------------------------

HOSTILE = {
    "escapes": b"HTTP/1.1 302 \x1b[2J\x1b]0;owned\x07\x9b31m\r\nLocation: http://a\x1b[31mb/\r\n\r\n" + b"x" * 40,
    "direction": "HTTP/1.1 302 \u202egnp.exe\u2066\u200f\r\nServer: \u202dx\r\n\r\n".encode() + b"x" * 40,
    "markdown": b"HTTP/1.1 302 **bold** [a](javascript:alert(1)) `c` | d |\r\nServer: @everyone #1 ~~x~~\r\n\r\n"
    + b"x" * 40,
    "html": b"HTTP/1.1 302 <script>alert(1)</script> <img src=x onerror=1>\r\nServer: <b>&amp;\r\n\r\n" + b"x" * 40,
    "link": b"HTTP/1.1 302 http://evil.example/ www.evil.example me@evil.example\r\n\r\n" + b"x" * 40,
    "lines": b"SSH-2.0-a\x0bb\x0cc\x85d\xe2\x80\xa8e\xe2\x80\xa9f" + b"x" * 40,
    "nul": b"HTTP/1.1 \x00\x01\x02\x7f\xff\xfe" + b"x" * 60,
    "long": b"SSH-2.0-" + b"A" * 3000,
    "wide": b"HTTP/1.1 200 " + "漢字\U0001f4a9".encode() * 30 + b"\r\n",
}


@pytest.fixture(params=HOSTILE, ids=str)
def hostile(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A capture in which something answers with such bytes."""
    world = make_world()
    c = Conversation(world, world.add_device(), at=0.0)
    c.connect()
    c.tcp.send("server", HOSTILE[request.param], after=0.004, label="greeting")
    c.close("server", after=1.0)
    path = tmp_path / "hostile.pcap"
    path.write_bytes(finish(world).capture())
    return path


def is_inert(text: str) -> None:
    for char in text:
        assert char == "\n" or (char.isprintable() and unicodedata.category(char) not in ("Cf", "Co", "Cs")), repr(char)


def test_a_report_quotes_a_stranger_without_effect(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = shown(capsys, "analyze", str(hostile))
    assert "SPK103" in report
    is_inert(report)
    assert max(map(len, report.splitlines())) <= 80


def test_json_quotes_a_stranger_without_effect(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("json", "jsonl"):
        document = shown(capsys, "analyze", "--format", form, str(hostile))
        assert document.isascii()
        is_inert(document)
        for line in document.splitlines() if form == "jsonl" else [document]:
            for text in re.findall(r'"text": "[^"]*', json.dumps(json.loads(line), ensure_ascii=False)):
                is_inert(text)


def test_markdown_quotes_a_stranger_without_effect(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = shown(capsys, "analyze", "--format", "markdown", str(hostile))
    is_inert(report)
    assert len(report.splitlines()) <= 30
    assert "<" not in report
    outside = re.sub(r"`[^`]*`", "", report)
    assert "://" not in outside
    assert "@" not in outside
    assert "www." not in outside
    assert not re.search(r"(?<!\\)\]\(", outside)
    assert not re.search(r"(?<!\\)[\[~#]", outside)
    assert not re.search(r"(?<![\\*])\*\*bold", outside)


def test_redaction_survives_a_stranger(hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in FORMATS:
        report = shown(capsys, "analyze", *words, str(hostile))
        assert "192.168.1.104" not in report
        is_inert(report)


def test_a_documentation_address_is_not_mistaken_for_a_public_one() -> None:
    assert not ipaddress.ip_address("198.51.100.20").is_global
