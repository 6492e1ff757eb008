"""`sparkshark explain`: every finding has a page, every row of Wireshark an answer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from screens import CAPTURES, shown

from analyzer.cli import main
from analyzer.findings import FINDINGS, SEVERITY_ORDER

ROW = "Reset, 5.05 Proxying Not Supported, TID:24199"


@pytest.fixture(autouse=True)
def in_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


@pytest.mark.parametrize("code", FINDINGS)
def test_every_finding_has_a_page(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = shown(capsys, "explain", code)
    spec = FINDINGS[code]
    lines = page.splitlines()
    assert lines[0].startswith(f"{code}  {spec.title}")
    assert lines[0].endswith(spec.severity)
    assert max(map(len, lines)) <= 80
    assert len(lines[0]) == 80
    for label, text in (("Means", spec.means), ("Looks", spec.looks), ("Engineer", spec.engineer)):
        assert re.search(rf"^{label}\s", page, re.MULTILINE)
        assert " ".join(text.split()) in " ".join(page.replace(label, " ").split())
    assert "{" not in page
    assert not [line for line in lines if line != line.rstrip()]
    assert shown(capsys, "explain", code.lower()) == page


@pytest.mark.parametrize("spec", FINDINGS.values(), ids=FINDINGS)
def test_codes_named_in_a_page_exist(spec: object) -> None:
    named = re.findall(r"SPK\d+", repr(spec))
    assert set(named) <= set(FINDINGS)


def test_without_a_word_all_findings_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    page = shown(capsys, "explain")
    rows = [line.split(None, 2) for line in page.splitlines() if line.startswith("SPK")]
    assert [row[0] for row in rows] == list(FINDINGS)
    assert {row[1] for row in rows} <= {str(s) for s in SEVERITY_ORDER}
    assert max(map(len, page.splitlines())) <= 80


def test_how_to_capture(capsys: pytest.CaptureFixture[str]) -> None:
    page = shown(capsys, "explain", "capture")
    assert "tcpdump -i any -s 0 -U -w spark.pcap port 5683" in page
    assert "sparkshark analyze spark.pcap" in page
    assert max(map(len, page.splitlines())) <= 80


def test_a_row_is_taken_apart_byte_by_byte(capsys: pytest.CaptureFixture[str]) -> None:
    page = shown(capsys, "explain", ROW)
    assert page.startswith("That is no message. Wireshark read random bytes as CoAP. Ignore it.\n")
    for part in ("a5", "5e 87", '"5.05"', '"TID:24199"', '"Reset"'):
        assert part in page
    assert "Which packet: add a CAPTURE." in page
    assert max(map(len, page.splitlines())) <= 80


def test_a_capture_shows_the_packet_that_made_the_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CAPTURES)
    page = shown(capsys, "explain", ROW, "nonce-looks-like-coap.pcap")
    assert "nonce-looks-like-coap.pcap, packet 4: 70 a5 5e 87 " in page
    assert "the server's greeting" in page
    assert "The real trouble is SPK206: sparkshark analyze nonce-looks-like-coap.pcap" in page
    none = shown(capsys, "explain", ROW, "healthy-full.pcap")
    assert "No packet of healthy-full.pcap makes such a row" in none


@pytest.mark.parametrize("row", ["Unknown 178", "5.02 Bad Gateway", "Malformed Packet", "7.01 CSM", "Unknown 16"])
def test_rows_of_any_wireshark_are_answered(row: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = shown(capsys, "explain", "--wireshark", row)
    assert page.startswith("That is no message.")
    assert max(map(len, page.splitlines())) <= 80


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("SPK260", "SPK260: no such finding. Did you mean SPK206? All: sparkshark explain"),
        ("spk999", "spk999: no such finding. All: sparkshark explain"),
        ("SPK10", "SPK10: no such finding. Did you mean SPK101? All: sparkshark explain"),
        (
            "good morning",
            '"good morning": not a row that Wireshark writes for CoAP, and no finding. Copy it from the Info column,'
            " or: sparkshark explain",
        ),
    ],
)
def test_what_is_not_known_gets_the_nearest(what: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", what]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"sparkshark: {line.partition(' Did')[0].partition(' All')[0]}")
    if what != "spk999":
        assert output.err == f"sparkshark: {line}\n"


def test_text_of_a_stranger_is_not_acted_upon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "Unknown \x1b[31m 178 \u202e"]) in (0, 2)
    output = capsys.readouterr()
    assert "\x1b" not in output.out + output.err
    assert "\u202e" not in output.out + output.err
