"""Text that strangers chose is inert wherever it comes out: on a terminal, in a forum, in a spreadsheet, in Wireshark.

Each hostile string stands in each field that a device, a server or a network can fill, and in the names of files.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from capture_files import enhanced, interface, option
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inert import is_inert
from markdown_it import MarkdownIt
from screens import ROOT
from wireshark import tsharks

from analyzer import KeyRing, analyze
from analyzer.cli import main
from analyzer.messages.summary import quote as quoted
from analyzer.simulate import SCENARIOS, finish, make_world
from analyzer.simulate.conversation import Conversation
from analyzer.simulate.messages import answer, message
from analyzer.simulate.scenarios.steps import end_well
from analyzer.simulate.simulation import Simulation
from analyzer.wording import printable, quote

HOSTILE = {
    "escape": b"\x1b[31mred\x1b[0m\x1b[2J",
    "title": b"\x1b]0;owned\x07",
    "link": b"\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "c1": "\x9b31m\x9d0;x\x9c\x90q\x9c".encode(),
    "raw c1": b"\x9b2J\x9d8;;x\x9c",
    "script": b"<script>alert(1)</script><img src=x onerror=alert(1)>",
    "entity": b"&lt;script&gt;&#60;b&#62;",
    "right to left": "gpj.\u202eexe\u202c \u2066isolated\u2069 \u200f\u061c".encode(),
    "zero width": "pay\u200bpal\u200d\u2060\ufeff\u00ad\u3164\ufe0f".encode(),
    "tags": "".join(chr(0xE0000 + ord(char)) for char in "hidden").encode(),
    "pile": ("Z" + "\u0335\u0301\u0302\u0303" * 12).encode(),
    "nul": b"before\x00after",
    "not utf-8": b"\xff\xfe\xc3\x28\xf0\x90",
    "surrogate": "\ud800\udfff".encode("utf-8", "surrogatepass"),
    "newlines": "a\nWORKING\r\n\x85\u2028\u2029\x0b\x0cb".encode(),
    "forged": "\n✓ WORKING\nThe device logs in and stays connected.".encode(),
    "markdown": b"**bold** [x](https://evil.example) ![i](//e.example/i.png) `code` # h | a | b | ~~s~~ _u_",
    "table": b"| a | b |\n|---|---|\n| c | d |",
    "mention": b"@everyone https://evil.example www.evil.example mailto:a@evil.example",
    "fence": b"```\n</details>\n```",
    "formula": b"=cmd|'/C calc'!A0",
    "sum": b"+1+1",
    "minus": b"-2+3+cmd|' /C calc'!A0",
    "at": b"@SUM(1+9)*cmd|' /C calc'!A0",
    "tab": b"\t=1+1",
    "return": b"\r=1+1",
    "separator": b'a;=1+1;"@x\t=2+2,=3+3',
    "full width": "\uff1dcmd|'/C calc'!A0".encode(),
    "quotes": b"\"'`\\\"' OR 1=1 --",
    "format": b"%s%n{0}{x!r}%(y)s$(id)`id`",
    "percent": b"%1b%5b31m",
    "json": b'","owned":true,"x":"',
    "delete": b"\x7f\x08\x08\x08",
    "noncharacter": "\uffff\ufdd0\U0010ffff".encode(),
}
HOSTILE["long"] = b"A\x1b[31m<script>=" * 25
"""Nearly as much as fits twice into the largest frame that the firmware makes."""
LONG = b"A\x1b[31m<script>=" * 4000
"""60,000 characters: what fits into a frame whose length is two bytes. No reader of the protocol takes such a one."""
URI_PATH, URI_QUERY = 11, 15
NON, CON, POST, GET = 0x50, 0x40, 0x02, 0x01


def hostile_session(c: Conversation, text: bytes) -> None:
    """Put a text into each field of a session that is a text."""
    number = c.device.next_message_id
    labels = ((URI_PATH, b"e"), (URI_PATH, text))
    c.device_says(message(NON, POST, number(), options=labels, payload=b"x"), after=0.05)
    c.device_says(message(NON, POST, number(), options=((URI_PATH, b"e"), (URI_PATH, b"n")), payload=text), after=0.05)
    if len(text) > 1000:  # two of them are more than a frame holds
        return
    c.device_says(message(CON, GET, number(), options=(*labels, (URI_QUERY, text))), after=0.05)
    c.server_says(message(NON, POST, c.next_server_id(), options=labels, payload=text), after=0.05)
    c.server_says(message(NON, POST, c.next_server_id(), options=((URI_PATH, text),), payload=text), after=0.05)
    path = ((URI_PATH, b"f"), (URI_PATH, text), (URI_QUERY, text))
    c.server_says(message(CON, POST, c.next_server_id(), token=7, options=path), after=0.05)
    at, token = c.next_server_id(), c.next_server_token()
    c.server_says(message(CON, GET, at, token=token, options=((URI_PATH, b"v"), (URI_PATH, text))), after=0.05)
    c.device_says(answer(at, token, text), after=0.05)
    name = text.decode("utf-8", "replace")
    for described in (json.dumps({"f": [name], "v": {name: 4}}), '{"f":["' + name + '"],"v":{"' + name + '":2}}'):
        at, token = c.next_server_id(), c.next_server_token()
        c.server_says(message(CON, GET, at, token=token, options=((URI_PATH, b"d"),)), after=0.05)
        c.device_says(answer(at, token, described.encode()), after=0.05)


@cache
def played() -> Simulation:
    """One session with every text in every field, name lookups, and a web server that greets with each text."""
    world = make_world(seed=3)
    device = world.add_device()
    at = 0.0
    for text in HOSTILE.values():
        label = text.decode("latin-1").replace(".", "-")[:50]
        at = world.look_up(device, at, f"{label}.example", found=False) + 0.01
    c = Conversation(world, device, at=at + 1)
    c.handshake()
    for text in (*HOSTILE.values(), LONG):
        hostile_session(c, text)
    end_well(c)
    for text in HOSTILE.values():
        web = Conversation(world, device, at=c.now + 2)
        web.connect()
        title = b"<html><head><title>" + text + b"</title></head></html>"
        head = b"HTTP/1.1 302 " + text + b"\r\nServer: " + text + b"\r\nLocation: http://" + text + b"/\r\n\r\n"
        web.tcp.send("server", head + title, after=0.02)
        web.close("server", after=0.05)
        c = web
    return finish(world, SCENARIOS["healthy"])


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The capture, and its keys beside it."""
    desk = tmp_path_factory.mktemp("desk")
    simulation = played()
    (desk / "capture.pcap").write_bytes(simulation.capture())
    (desk / "keys").mkdir()
    for name, content in simulation.keys.items():
        if "stale" not in name:
            (desk / "keys" / name).write_bytes(content)
    return desk


@pytest.fixture(autouse=True)
def at_the_desk(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


Screen = pytest.CaptureFixture[str]


def printed(capsys: Screen, *words: str) -> str:
    status = main(words)
    output = capsys.readouterr()
    assert status in (0, 1), output.err
    assert "internal error" not in output.err
    is_inert(output.err)
    return output.out


KEYS = ("--keys", "keys")


def test_the_session_opened_and_every_text_is_in_it(desk: Path) -> None:
    trace = analyze("capture.pcap", keys=KeyRing.load("keys"))
    plain = b"".join(m.plaintext for c in trace.conversations for m in c.messages)
    assert [name for name, text in HOSTILE.items() if text not in plain] == []
    assert LONG not in plain
    assert sum(m.name == "Event" for c in trace.conversations for m in c.messages) == 3 * len(HOSTILE)
    assert len(trace.conversations) == 1 + len(HOSTILE)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_on_a_terminal(width: int, capsys: Screen) -> None:
    for words in (
        ("analyze", "capture.pcap"),
        ("analyze", "capture.pcap", *KEYS, "--statistics"),
        ("analyze", "capture.pcap", "--redact"),
        ("decrypt", "capture.pcap", *KEYS, "--all"),
        ("follow", "capture.pcap", "1"),
    ):
        report = printed(capsys, *words, "--width", str(width))
        is_inert(report)
        assert "\n✓ WORKING\n" not in report
    for number in range(1, 2 + len(HOSTILE), 5):
        is_inert(printed(capsys, "analyze", "capture.pcap", "--conversation", str(number), "--width", str(width)))


def test_with_colour_nothing_but_our_own_escapes(desk: Path) -> None:
    from analyzer.report.style import Style  # noqa: PLC0415
    from analyzer.report.text import text_report  # noqa: PLC0415

    report = text_report(analyze("capture.pcap", keys=KeyRing.load("keys")), "\x1b[2Jx", Style(colour=True))
    is_inert(re.sub(r"\x1b\[(?:0|1|3[1-6])m", "", report))


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_in_json(form: str, capsys: Screen) -> None:
    for command in ("analyze", "decrypt"):
        text = printed(capsys, command, "capture.pcap", *KEYS, "--format", form)
        assert text.isascii()
        is_inert(text)
        documents = [json.loads(line) for line in text.splitlines()] if form == "jsonl" else [json.loads(text)]
        assert documents


@pytest.mark.parametrize("form", ["text", "jsonl"])
def test_in_a_watch(form: str, desk: Path) -> None:
    words = ("watch", "-", *KEYS, "--messages", "--format", form, "--width", "60")
    run = subprocess.run(
        [sys.executable, "-m", "analyzer", *words[: -2 if form == "jsonl" else None]],
        input=(desk / "capture.pcap").read_bytes(),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    )
    told, warned = run.stdout.decode(), run.stderr.decode()
    is_inert(told)
    is_inert(warned)
    assert told.count("Event") >= 3 * len(HOSTILE)
    assert form == "text" or all(json.loads(line) for line in told.splitlines())


def test_in_the_page_and_in_what_is_said_of_a_redacted_capture(tmp_path: Path, capsys: Screen) -> None:
    for command in ("analyze", "decrypt"):
        is_inert(printed(capsys, command, "capture.pcap", *KEYS, "--format", "html"))
    is_inert(printed(capsys, "redact", "capture.pcap", str(tmp_path / "posted.pcapng"), "--with-lookups"))


def rendered(text: str) -> Iterator[tuple[str, str]]:
    """The tokens of Markdown as a forum reads it: with HTML, tables, and addresses made into links."""
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    for token in reader.parse(text):
        yield token.type, token.content
        for child in token.children or ():
            yield child.type, child.content


def test_in_markdown(capsys: Screen) -> None:
    for extra in ((), ("--no-redact",), KEYS, (*KEYS, "--no-redact")):
        numbers = [("--conversation", str(n)) for n in range(1, 2 + len(HOSTILE))] if extra == ("--no-redact",) else []
        for words in ((), *numbers):
            text = printed(capsys, "analyze", "capture.pcap", "--format", "markdown", *extra, *words)
            is_inert(text)
            kinds = list(rendered(text))
            acting = ("html_block", "html_inline", "link_open", "image", "heading_open", "fence", "hr", "s_open")
            assert not [kind for kind in kinds if kind[0] in acting], text
            shown = " ".join(content for kind, content in kinds if kind == "text")
            assert not re.search(r"https?://|www\.|@everyone", shown), text


def test_in_a_spreadsheet(capsys: Screen) -> None:
    text = printed(capsys, "decrypt", "capture.pcap", *KEYS, "--format", "csv")
    is_inert(text)
    rows = list(csv.reader(io.StringIO(text)))
    assert len({len(row) for row in rows}) == 1
    starts = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
    assert not [cell for row in rows for cell in row if cell.startswith(starts)]
    # Where the separator is another one, quotes in the middle of a cell are letters.
    for separator in ";\t":
        cells = [cell.strip("\"' ") for line in text.splitlines() for cell in line.split(separator)]
        told = [cell for line in text.splitlines() for cell in line.split(separator)[1:]]
        assert not [cell for cell in told if cell.lstrip('" ').startswith(starts)]
        assert cells
    trace = analyze("capture.pcap", keys=KeyRing.load("keys"))
    assert [row[-1] for row in rows[1:]] == [m.plaintext.hex() for c in trace.conversations for m in c.messages]


def test_in_parquet_the_text_is_what_was_sent(tmp_path: Path) -> None:
    import pyarrow.parquet as pq  # noqa: PLC0415

    assert main(["decrypt", "capture.pcap", *KEYS, "--format", "parquet", "-o", str(tmp_path / "tables")]) == 0
    subjects: set[str] = set()
    for file in (tmp_path / "tables" / "messages").rglob("*.parquet"):
        subjects |= {cell for cell in pq.read_table(file)["subject"].to_pylist() if cell is not None}
    for name in ("escape", "script", "right to left", "formula", "markdown"):
        assert HOSTILE[name].decode() in subjects, name


def test_in_wireshark_through_the_plain_export(tmp_path: Path) -> None:
    place = tmp_path / "plain.pcapng"
    assert main(["decrypt", "capture.pcap", *KEYS, "-w", str(place), "--quiet"]) == 0
    own = tsharks()["own"]
    rows = own.run("-r", own.share(place), "-T", "fields", "-e", "frame.comment", plugin=False)
    comments = rows.stdout.splitlines()
    assert len(comments) > 5 * len(HOSTILE)
    for comment in comments:
        is_inert(comment)
        assert len(comment) < 1200


def test_in_wireshark_through_the_plugin(desk: Path) -> None:
    own = tsharks()["own"]
    key = own.share(desk / "keys")
    asked = [
        "-T",
        "fields",
        "-e",
        "_ws.col.Info",
        "-e",
        "spark.finding",
        "-e",
        "spark.event.name",
        "-E",
        "separator=/t",
    ]
    done = own.run("-r", own.share(desk / "capture.pcap"), "-o", f"spark.device_key:{key}", "-Y", "spark", *asked)
    lines = done.stdout.splitlines()
    assert len(lines) > 5 * len(HOSTILE)
    for line in lines:
        is_inert(line, "\t\ufffd")
    for line in own.run("-q", "-z", "spark", "-r", own.share(desk / "capture.pcap")).stdout.splitlines():
        is_inert(line)


@pytest.mark.parametrize("name", sorted(set(HOSTILE) - {"nul"}))
def test_in_the_names_of_files(name: str, desk: Path, tmp_path: Path, capsys: Screen) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    text = HOSTILE[name].replace(b"/", b"_")[:100]
    capture = folder.joinpath(str(text, "utf-8", "surrogateescape") + ".pcap")
    capture.write_bytes((ROOT / "captures" / "no-nonce.pcap").read_bytes())
    key = folder.joinpath(str(text, "utf-8", "surrogateescape") + ".der")
    key.write_bytes((ROOT / "captures" / "keys" / "core-a.der").read_bytes())
    spoilt = folder.joinpath(str(text, "utf-8", "surrogateescape") + ".txt")
    spoilt.write_bytes(b"nothing")
    for words in (
        ("analyze", str(capture), "--keys", str(key)),
        ("analyze", str(capture), "--format", "markdown", "--no-redact"),
        ("analyze", str(capture), "--format", "json"),
        ("keys", str(key), str(folder)),
        ("keys", str(folder), "--width", "40"),
        ("keys", str(folder), "--format", "json"),
        ("explain", "--wireshark", "Unknown 178", str(capture)),
    ):
        main(words)
        output = capsys.readouterr()
        is_inert(output.out)
        is_inert(output.err)
        assert "internal error" not in output.err
    for refused in (
        ["analyze", str(spoilt)],
        ["analyze", f"{capture}x"],
        ["analyze", str(capture), "--keys", f"{key}x"],
    ):
        assert main(refused) == 2
        output = capsys.readouterr()
        assert output.out == ""
        is_inert(output.err)
        assert output.err.count("\n") == 1
    for option_name in ("--format", "--port", "--conversation", "--expect-server", "--jobs", "--width", "--zzz"):
        word = str(text, "utf-8", "surrogateescape")
        assert main(["analyze", str(capture), f"{option_name}={word}"]) in (0, 2)
        output = capsys.readouterr()
        is_inert(output.err)


def test_in_the_notes_of_a_capture_file(tmp_path: Path, capsys: Screen) -> None:
    packets = [(p.time_ns, p.data) for p in played().packets[:40]]
    for text in HOSTILE.values():
        notes = option(1, text) + option(0, b"")
        names = option(2, text) + option(3, text) + option(0, b"")
        head = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
        body = head + notes
        shb = struct.pack("<II", 0x0A0D0D0A, len(body) + 12) + body + struct.pack("<I", len(body) + 12)
        content = (
            shb + interface(options=names) + b"".join(enhanced(data, time_ns // 1000) for time_ns, data in packets)
        )
        (tmp_path / "noted.pcapng").write_bytes(content)
        is_inert(printed(capsys, "analyze", str(tmp_path / "noted.pcapng")))


ANY = st.text(st.characters(codec=None), max_size=80) | st.sampled_from(
    [text.decode("utf-8", "surrogateescape") for text in HOSTILE.values()]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANY)
def test_any_text_is_shown_inert_by_each_way_of_quoting(text: str) -> None:
    for shown in (printable(text), quoted(text), quote(text.encode("utf-8", "surrogatepass"))):
        is_inert(shown)
    assert printable(printable(text)) == printable(text)
