"""The reports: each screen whole, as a file to read; its width, its ASCII form, its colour; the JSON's promises.

The screens are in `tests/golden`. To write them anew after a change that is meant, and then to read what has
changed:  SPARKSHARK_REGENERATE=1 python -m pytest tests/test_reports.py && git diff tests/golden
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import screens
from fleets import no_use, nobody
from judging import captured, judged
from screens import CAPTURES, SHIPPED, shown, story

from analyzer.cells import cells
from analyzer.findings import FINDINGS, Confidence, Severity
from analyzer.pipeline import Analysis, analyze
from analyzer.report.ladder import WITH_ROWS
from analyzer.report.layout import numbered
from analyzer.report.style import Style
from analyzer.report.text import text_report
from analyzer.simulate import SCENARIOS, make_world, simulate
from analyzer.streams import Sender

GOLDEN = Path(__file__).parent / "golden"
REGENERATE = os.environ.get("SPARKSHARK_REGENERATE") == "1"
STORIES = (
    "port-blocked",
    "blocked-icmp",
    "refused",
    "late-nonce",
    "http-late",
    "ssh-banner",
    "split-identity",
    "long-nonce",
    "device-silent",
    "wrong-reply-size",
    "hello-unanswered",
    "dead-key",
    "old-session-key",
    "short-capture",
    "not-enough-time",
    "missing-syn",
    "one-way-device",
    "snaplen",
    "gap-in-handshake",
    "fixed",
    "worked-then-fails",
    "retries",
    "two-devices",
    "server-broken",
    "crash-loop",
    "reply-lost",
    "no-spark",
    "other-port",
    "encrypted-wifi",
    "dtls",
    "udp-coap",
    "tls-client",
    "announcements-only",
)
MARKDOWN = ("key-mismatch-retries", "healthy-full", "two-devices-background", "wrong-service-http302", "port-blocked")
DOCUMENTS = ("key-mismatch-retries", "wrong-service-http302", "mid-session", "capture-gap")
COMMAND = re.compile(r" *(sparkshark|particle|spark|openssl|dfu-util|nc|ss|tcpdump|tshark) ")
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run where the captures are, in a UTF-8 locale."""
    monkeypatch.chdir(screens.ROOT)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stories")


def same_as_golden(name: str, found: str, read: Callable[[str], object] = str) -> None:
    file = GOLDEN / name
    if REGENERATE:
        file.write_text(found, encoding="utf-8")
    assert read(found) == read(file.read_text(encoding="utf-8")), f"not as in {file}"


def is_tidy(report: str, width: int = 80) -> None:
    """No line too long, none with blanks at its end, no two blank lines, no block twice."""
    lines = report.splitlines()
    assert report.endswith("\n")
    # A command stays in one piece so that it can be pasted; nothing fits beside it.
    assert not [line for line in lines if cells(line) > width and not COMMAND.match(line)]
    assert not [line for line in lines if line != line.rstrip()]
    assert "\n\n\n" not in report
    blocks = [block for block in report.split("\n\n") if block.strip()]
    assert len(blocks) == len(set(blocks))
    assert re.search(r"\b1 (?:packets|bytes|attempts|messages|devices|times)\b", report) is None
    assert re.search(r"packets \d[\d,]*[:;)]", report) is None  # "packets 7)" of a single packet


def is_straight(report: str) -> None:
    """The rails of each drawing stand below each other."""
    drawings = re.split(r"^ *packet .*DEVICE", report, flags=re.MULTILINE)[1:]
    for drawing in drawings:
        rails = [
            tuple(found.start() for found in re.finditer("[│┊●✕]", line))
            for line in drawing.splitlines()[1:]
            if re.match(r".{14,} [│┊●✕]", line)
        ]
        assert rails
        assert len(set(rails)) == 1, drawing


def words_of(report: str) -> set[str]:
    return set(re.findall(r"[A-Za-z][a-z]{3,}", report))


# -- each screen whole --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", SHIPPED)
def test_the_report_on_a_shipped_capture_reads_as_agreed(
    name: str, width: int, capsys: pytest.CaptureFixture[str]
) -> None:
    report = shown(capsys, "analyze", f"captures/{name}.pcap", "--width", str(width))
    is_tidy(report, width)
    same_as_golden(f"{name}.txt" if width == 80 else f"{name}-{width}.txt", report)


@pytest.mark.parametrize("width", [40, 60])
@pytest.mark.parametrize("name", ["key-mismatch-retries", "two-devices-background"])
def test_the_report_on_a_narrow_screen_reads_as_agreed(
    name: str, width: int, capsys: pytest.CaptureFixture[str]
) -> None:
    report = shown(capsys, "analyze", f"captures/{name}.pcap", "--width", str(width))
    is_tidy(report, width)
    same_as_golden(f"{name}-{width}.txt", report)


@pytest.mark.parametrize("name", STORIES)
def test_the_report_on_a_story_reads_as_agreed(name: str, stories: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = shown(capsys, "analyze", str(story(name, stories)))
    is_tidy(report)
    same_as_golden(f"story-{name}.txt", report)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "mid-session"])
def test_the_report_with_keys_is_as_tidy(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    is_tidy(shown(capsys, "analyze", f"captures/{name}.pcap", "--keys", "captures/keys"))


def test_a_command_is_never_cut_in_two() -> None:
    command = "particle keys send 48ff6d06507b573081350e87 48ff6d06507b573081350e87.pub.pem"
    for steps in (("One:", f"  {command}"), ("One:", f"  {command}", "Two."), (f"  {command}",)):
        lines = numbered("Do this", steps)
        assert [line for line in lines if line.strip().endswith(command)]
        assert max(map(len, lines)) <= 80 or steps[0].startswith("  ")


@pytest.mark.parametrize("name", MARKDOWN)
def test_the_markdown_form_reads_as_agreed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    same_as_golden(f"{name}.md", shown(capsys, "analyze", "--format", "markdown", f"captures/{name}.pcap"))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_json_document_says_what_was_agreed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    def read(text: str) -> object:
        document = json.loads(text, parse_float=Decimal)
        del document["version"]
        return document

    same_as_golden(f"{name}.json", shown(capsys, "analyze", "--format", "json", f"captures/{name}.pcap"), read)


def test_three_thousand_attempts_are_one_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = screens.ring(tmp_path / "ring")
    os.chdir(tmp_path)
    report = shown(capsys, "analyze", "ring/")
    is_tidy(report)
    assert len(report.splitlines()) < 70
    same_as_golden("ring.txt", report)
    assert len(list(folder.iterdir())) == screens.RING_FILES


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_story_makes_an_untidy_report(name: str, stories: Path) -> None:
    trace = analyze(story(name, stories))
    whole = text_report(trace, f"{name}.pcap")
    # What is told on every screen, however it is laid out; rows for Wireshark, names and times are fitted.
    said = words_of(whole.partition("In Wireshark")[0].partition("\nAttempt ")[0]) - words_of(whole.splitlines()[0])
    short = text_report(trace, f"{name}.pcap", Style(quiet=True))
    assert len(short.splitlines()) <= 12 + len({c.device.ip for c in trace.conversations})
    for width in (40, 41, 60, 69, 70, 80, 109, 110, 120, 200):
        report = text_report(trace, f"{name}.pcap", Style(width))
        is_tidy(report, width)
        is_straight(report)
        assert words_of(report) >= said, f"less is told at {width}"
        plain = text_report(trace, f"{name}.pcap", Style(width, unicode=False))
        assert plain.isascii()
        is_tidy(plain, width)
        assert "\\u" not in plain
        if "In Wireshark" not in report:
            assert "In Wireshark" not in whole or width >= WITH_ROWS


# -- the same on every screen -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_colour_adds_nothing_but_colour(name: str) -> None:
    trace = analyze(CAPTURES / f"{name}.pcap")
    plain = text_report(trace, f"{name}.pcap")
    coloured = text_report(trace, f"{name}.pcap", Style(colour=True))
    assert coloured != plain
    assert ESCAPES.sub("", coloured) == plain
    assert coloured.count("\x1b[0m") == len(ESCAPES.findall(coloured)) / 2


@pytest.mark.parametrize("name", ["key-mismatch-retries", "healthy-full", "mid-session", "coap-over-tcp"])
def test_the_ascii_form_differs_only_in_its_marks(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    trace = analyze(CAPTURES / f"{name}.pcap")
    plain = text_report(trace, f"{name}.pcap", Style(unicode=False))
    lines, ours = plain.splitlines(), text_report(trace, f"{name}.pcap").splitlines()
    assert plain.isascii()
    assert [line.count("packet") for line in lines] == [line.count("packet") for line in ours]
    assert lines[0].split()[0] in ("x", "~", "ok", "?")
    assert max(map(len, lines)) <= 80


def test_genuine_coap_is_not_to_be_ignored(capsys: pytest.CaptureFixture[str]) -> None:
    assert "WIRESHARK SHOWS" not in shown(capsys, "analyze", "captures/coap-over-tcp.pcap", "--width", "120")
    assert "WIRESHARK SHOWS" in shown(capsys, "analyze", "captures/no-nonce.pcap", "--width", "120")


def test_quiet_is_state_sentence_and_first_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "analyze", "--quiet", "captures/port-blocked.pcap").splitlines() == [
        "✕ NOT CONNECTING                                               port-blocked.pcap",
        "Nothing answers at 54.208.229.4 port 5683. No key can cause this.",
        "Do this      On a computer in the same Wi-Fi:  nc -vz 54.208.229.4 5683",
    ]


def test_a_long_name_is_cut_at_its_front(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / ("long-" * 40 + "name.pcap")
    path.write_bytes((CAPTURES / "no-nonce.pcap").read_bytes())
    first = shown(capsys, "analyze", str(path)).splitlines()[0]
    assert len(first) == 80
    assert "…" in first
    assert first.endswith("name.pcap")


# -- JSON: names and shapes are promises ------------------------------------------------------------------------------

COUNT, TEXT, MAYBE_TEXT, MAYBE_COUNT, FLAG, MAYBE_FLAG = "count", "text", "text?", "count?", "flag", "flag?"
TIME, MAYBE_TIME, HEX, MAYBE_HEX = "time", "time?", "hex", "hex?"
DOCUMENT: dict[str, Any] = {
    "schema": COUNT,
    "version": TEXT,
    "captures": [
        {
            "path": TEXT,
            "format": TEXT,
            "packets": COUNT,
            "first_number": COUNT,
            "bytes": COUNT,
            "first": MAYBE_TIME,
            "last": MAYBE_TIME,
            "damage": [{"offset": COUNT, "packet": MAYBE_COUNT, "what": TEXT}],
        }
    ],
    "conversations": [
        {
            "number": COUNT,
            "device": {"ip": TEXT, "port": COUNT, "mac": MAYBE_TEXT, "id": MAYBE_TEXT},
            "server": {"ip": TEXT, "port": COUNT},
            "first_packet": COUNT,
            "last_packet": COUNT,
            "start": TIME,
            "duration_s": TIME,
            "packets": {"device": COUNT, "server": COUNT},
            "bytes": {"device": COUNT, "server": COUNT},
            "kind": {"spark", "coap-tcp", "tls", "http", "ssh", "other", "empty"},
            "reached": {"syn", "connected", "nonce", "identity", "session", "hello", "established"},
            "closed_by": {"device-fin", "device-rst", "server-fin", "server-rst", "none"},
            "handshake": {
                "nonce": ({"packet": COUNT, "time": TIME, "hex": MAYBE_HEX},),
                "identity": (
                    {"packet": COUNT, "time": TIME, "bytes": COUNT, "opened": MAYBE_FLAG, "nonce_matches": MAYBE_FLAG},
                ),
                "session": (
                    {
                        "packet": COUNT,
                        "time": TIME,
                        "bytes": COUNT,
                        "opened": MAYBE_FLAG,
                        "signature": {"valid", "invalid", "not-checked"},
                        "key": MAYBE_HEX,
                    },
                ),
            },
            "frames": {"device": COUNT, "server": COUNT, "opened": COUNT},
            "gaps": [{"direction": {"device", "server"}, "offset": COUNT, "length": COUNT, "packet": COUNT}],
            "messages": [
                {
                    "index": COUNT,
                    "packet": COUNT,
                    "time": TIME,
                    "direction": {"device", "server"},
                    "name": MAYBE_TEXT,
                    "type": ({"CON", "NON", "ACK", "RST"},),
                    "code": MAYBE_TEXT,
                    "message_id": MAYBE_COUNT,
                    "token": MAYBE_HEX,
                    "path": MAYBE_TEXT,
                    "query": ([HEX],),
                    "payload": MAYBE_HEX,
                    "plaintext": MAYBE_HEX,
                    "whole": FLAG,
                    "missing": COUNT,
                    "answers": MAYBE_COUNT,
                    "values": dict,
                }
            ],
            "firmware": [
                {"size": MAYBE_COUNT, "sha256": MAYBE_HEX, "complete": FLAG, "chunks": COUNT, "missing": list}
            ],
        }
    ],
    "findings": [
        {
            "code": set(FINDINGS),
            "name": {spec.name for spec in FINDINGS.values()},
            "severity": {str(s) for s in Severity},
            "confidence": {str(c) for c in Confidence},
            "title": TEXT,
            "summary": TEXT,
            "evidence": [{"text": TEXT, "packets": [COUNT]}],
            "ruled_out": [{"code": set(FINDINGS), "because": TEXT}],
            "would_settle_it": [TEXT],
            "fix": [TEXT],
            "wireshark_shows": MAYBE_TEXT,
            "led": MAYBE_TEXT,
            "conversations": [COUNT],
            "packets": [COUNT],
            "count": COUNT,
            "first_seen": MAYBE_TIME,
            "last_seen": MAYBE_TIME,
        }
    ],
    "not_checked": [{"code": set(FINDINGS), "because": TEXT}],
}


def check(value: object, shape: Any, where: str) -> None:
    """Compare a value with a shape: a set lists words, a tuple means "or null", names may be added, never missing."""
    if isinstance(shape, tuple):
        if value is not None:
            check(value, shape[0], where)
    elif isinstance(shape, dict):
        assert isinstance(value, dict), where
        for name, inner in shape.items():
            assert name in value, f"{where}.{name} is missing"
            check(value[name], inner, f"{where}.{name}")
    elif isinstance(shape, list):
        assert isinstance(value, list), where
        for place, item in enumerate(value):
            check(item, shape[0], f"{where}[{place}]")
    elif isinstance(shape, set):
        assert value in shape, f"{where} is {value!r}"
    elif isinstance(shape, type):
        assert isinstance(value, shape), where
    elif value is None:
        assert shape.endswith("?"), f"{where} is null"
    else:
        kinds: dict[str, Any] = {"count": int, "text": str, "flag": bool, "time": Decimal, "hex": str}
        kind = shape.removesuffix("?")
        assert type(value) is kinds[kind], f"{where} is {value!r}"
        assert kind != "hex" or re.fullmatch(r"(?:[0-9a-f]{2})*", str(value)), where
        assert kind != "count" or int(str(value)) >= 0, where


@pytest.mark.parametrize("name", SHIPPED)
def test_the_json_document_has_the_promised_shape(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    keys = ["--keys", "captures/keys"] if name != "mid-session" else []
    for extra in ([], keys):
        text = shown(capsys, "analyze", "--format", "json", *extra, f"captures/{name}.pcap")
        assert text.isascii()
        check(json.loads(text, parse_float=Decimal), DOCUMENT, name)


@pytest.mark.parametrize("name", STORIES)
def test_the_json_document_of_a_story_has_the_promised_shape(
    name: str, stories: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(capsys, "analyze", "--format", "json", str(story(name, stories)))
    check(json.loads(text, parse_float=Decimal), DOCUMENT, name)


def test_times_have_exactly_the_digits_of_the_capture(capsys: pytest.CaptureFixture[str]) -> None:
    name = "captures/key-mismatch-retries.pcap"
    text = shown(capsys, "analyze", "--format", "json", name)
    trace = analyze(name)
    document = json.loads(text, parse_float=Decimal)
    for told, c in zip(document["conversations"], trace.conversations, strict=True):
        assert told["start"] * 10**9 == c.start_ns
        assert told["duration_s"] * 10**9 == c.end_ns - c.start_ns
        nonce = c.part("nonce")
        assert nonce is not None
        assert told["handshake"]["nonce"]["time"] * 10**9 == nonce.time_ns
        assert told["bytes"]["device"] == c.sides[Sender.DEVICE].captured
    assert document["captures"][0]["first"] * 10**9 == trace.first_ns
    for digits in re.findall(r'"(?:time|start|first|last|first_seen|last_seen)": \d+\.(\d+)', text):
        assert len(digits) == 6
    assert '"first": 1795403303.' in text


def test_lines_hold_the_same_as_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["analyze", "captures/healthy-full.pcap", "--device-key", "captures/keys/core-a.der"]
    document = json.loads(shown(capsys, *words, "--format", "json"), parse_float=Decimal)
    lines = [json.loads(line, parse_float=Decimal) for line in shown(capsys, *words, "--format", "jsonl").splitlines()]
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_kind.setdefault(line.pop("kind"), []).append(line)
    assert set(by_kind) <= {"capture", "conversation", "message", "device", "server", "finding", "not_checked"}
    messages = document["conversations"][0].pop("messages")
    for line in by_kind["conversation"]:
        line["kind"] = line.pop("protocol")  # its own "kind" says that it is a conversation
    assert by_kind["conversation"] == document["conversations"]
    assert by_kind["message"] == [{"conversation": 1, **message} for message in messages]
    assert len(messages) == 67
    assert by_kind["device"] == document["devices"]
    assert by_kind["server"] == document["servers"]
    assert by_kind["finding"] == document["findings"]
    assert by_kind.get("not_checked", []) == document["not_checked"]
    assert [line["path"] for line in by_kind["capture"]] == ["captures/healthy-full.pcap"]


def test_attempts_whose_clock_was_set_back_are_one_report() -> None:
    told = simulate("retries", attempts=40)
    third = len(told.packets) // 3
    behind = [replace(packet, time_ns=packet.time_ns - 7_000_000_000_000) for packet in told.packets[third:-third]]
    trace = judged(told, [*told.packets[:third], *behind, *told.packets[-third:]])
    report = text_report(trace, "clock.pcap")
    is_tidy(report)
    assert "40 attempts" in report


def test_several_devices_that_fail_in_different_ways_have_their_reasons_apart() -> None:
    world = make_world(seed=2)
    first, second = world.add_device(), world.add_device()
    for n in range(3):
        nobody(world, first, n * 60.0)
        no_use(world, second, n * 60.0 + 20)
    report = text_report(judged(world), "capture.pcap", Style(width=80))
    is_tidy(report)
    assert len(re.findall(r"^(?:Why)? +192\.168\.1\.\d+.*:$", report, re.MULTILINE)) == 2, report


def test_packets_of_many_digits_have_a_row_of_their_own_on_a_narrow_screen() -> None:
    packets = captured(simulate("port-blocked").packets, 1)
    analysis = Analysis()
    for packet in packets:
        analysis.take(replace(packet, number=packet.number + 123_456_789))
    trace = analysis.finish()
    report = text_report(trace, "capture.pcap", Style(width=40))
    assert all(len(line) <= 40 for line in report.splitlines() if not line.startswith("  "))
    assert "123,456,7" in report or "1234567" in report
