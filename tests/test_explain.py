"""`sparkshark explain`: every finding has a page, every row of Wireshark an answer."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from judging import captured, simulate
from screens import CAPTURES, shown
from walking import Event, events_of, walk

from analyzer.catalogue import BOARD_SLOTS, SPARK_PORT
from analyzer.cli import main
from analyzer.commands import explain
from analyzer.findings import FINDINGS, SEVERITY_ORDER, FindingSpec, Group
from analyzer.findings.model import Act, LadderStep
from analyzer.findings.steps import GREETING, LOGGED_IN, LOGIN, REPLY, TO_IDENTITY, TO_REPLY, WHO_I_AM
from analyzer.simulate import SCENARIOS
from analyzer.simulate.messages import FirmwareName
from analyzer.streams import Sender

SPECS = pytest.mark.parametrize("spec", FINDINGS.values(), ids=FINDINGS)
PROGRAMS = {
    "dfu-util", "editcap", "nc", "nslookup", "openssl", "particle", "spark", "sparkshark", "ss", "tcpdump", "tshark",
}  # fmt: skip
ABOUT_NO_DEVICE = (Group.CAPTURE, Group.MISPARSE, Group.NOT_SPARK)
LED_TELLS_NOTHING = ("SPK210", "SPK307")
SEEN_BESIDE_ANYTHING = ("SPK001", "SPK701", "SPK702", "SPK703")
"""What is confused with many findings, and names only some of them itself."""
IN_ANOTHER_FORM = {
    "split-identity-fine": '"who I am" in two pieces',
    "missing-syn": "no request to connect in the capture",
    "call-unanswered": "a request of the server is not answered, in place of a ping",
    "ota-not-started": "the offer itself is not answered",
    "ota-refused": "... or refused",
    "ota-crc-wrong": "the server gives up while the device still refuses",
    "ota-flash-fault": "... in the same way",
    "ota-not-taken": "the end of the update is refused",
    "one-way-server": "the other direction",
    "udp-coap": "no TCP",
}
"""Stories that differ from the ladder of their finding, and how."""
STAND_INS = {"SPK305": "unknown-device", "SPK401": "healthy"}
"""Findings that no story is about, and one that looks the same."""
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
    for label in ("LED", "Fix", "Settle", "Keys", "Not it", "Source"):
        assert len(re.findall(rf"^{label}\s+\S", page, re.MULTILINE)) == 1
    assert "{" not in page
    assert not [line for line in lines if line != line.rstrip()]
    assert shown(capsys, "explain", code.lower()) == page


@SPECS
def test_nothing_is_left_to_be_written(spec: FindingSpec) -> None:
    for text in (spec.title, spec.short, spec.says, spec.of, spec.means, spec.looks, spec.settle, spec.engineer):
        assert text.strip() == text != ""
    assert bool(spec.fix) != bool(spec.no_fix)
    assert spec.led or spec.group in ABOUT_NO_DEVICE or spec.code in LED_TELLS_NOTHING
    assert re.fullmatch(r"DIAGNOSES (\d(\.\d)?|(0\.\d, )?" + spec.code + r")(; PROTOCOL \d.*)?", spec.source)
    assert spec.ladder or spec.code == "SPK307"  # a key file is no traffic
    assert spec.not_it


@SPECS
def test_look_alikes_name_each_other(spec: FindingSpec) -> None:
    others = [code for code, _ in spec.not_it]
    assert len(set(others)) == len(others)
    assert spec.code not in others
    for code in others:
        if code not in SEEN_BESIDE_ANYTHING:
            assert spec.code in dict(FINDINGS[code].not_it), f"{code} does not tell itself from {spec.code}"


@SPECS
def test_codes_named_in_a_page_exist(spec: FindingSpec) -> None:
    named = re.findall(r"SPK\d+", repr(spec))
    assert set(named) <= set(FINDINGS)


def test_every_command_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    seen = set()
    for spec in FINDINGS.values():
        lines = shown(capsys, "explain", spec.code).splitlines()
        wanted = [s.strip() for s in spec.fix if s.startswith("  ")] + [c for r in spec.recipes for c in r.commands]
        for command in (w.replace("{server}", "SERVER").replace("{port}", str(SPARK_PORT)) for w in wanted):
            assert [line for line in lines if line.strip() == command and line.startswith(" " * 9)]
            assert command.isascii()
            words = shlex.split(command, comments=True)
            if not command.endswith(";") and "(" not in command:  # a line of a program, not of a shell
                assert words[0] in PROGRAMS
                seen.add(words[0])
    assert seen >= PROGRAMS - {"editcap"}


def test_each_board_and_each_generation_of_the_command_line_has_its_own_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = shown(capsys, "explain", "SPK301")
    for board, (usb, private, _) in BOARD_SLOTS.items():
        assert f"\n           dfu-util -d {usb} -a 1 -s {private} -U device.der  # {board}\n" in page
    for command in (
        "particle keys doctor DEVICE_ID",
        "particle keys doctor DEVICE_ID --protocol tcp  # 2016-2021",
        "spark keys doctor DEVICE_ID  # Core, until 2015",
    ):
        assert f"\n           {command}\n" in page
    for board, (usb, _, server) in BOARD_SLOTS.items():
        line = f"dfu-util -d {usb} -a 1 -s {server} -U server.der  # {board}"
        assert line in shown(capsys, "explain", "SPK106")


def test_colour_and_other_alphabets_change_nothing_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = shown(capsys, "explain", "SPK206")
    spec = FINDINGS["SPK206"]
    coloured = explain.page(spec, explain.Style(colour=True))
    assert re.sub(r"\x1b\[\d+m", "", coloured) == page
    assert "\x1b[1m           particle keys doctor DEVICE_ID\x1b[0m" in coloured
    assert "\x1b[36m│─────\x1b[0m 256 bytes \x1b[36m─────▶\x1b[0m│" in coloured
    assert "│\x1b[35m◀─────\x1b[0m 384 bytes \x1b[35m─────│\x1b[0m" in coloured
    for code in FINDINGS:
        ascii_page = explain.page(FINDINGS[code], explain.Style(unicode=False))
        assert ascii_page.isascii()
        assert max(map(len, ascii_page.splitlines())) <= 80
    assert "                    |<----- 384 bytes -----|  reply, locked for the device\n" in explain.page(
        spec, explain.Style(unicode=False)
    )


@SPECS
def test_the_rails_of_a_ladder_are_straight(spec: FindingSpec, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "explain", spec.code).splitlines()
    rows = [line for line in lines if re.search("[│┊●✕]", line)]
    assert len(rows) >= len(spec.ladder)
    for row in rows:
        assert row[20] in "│┊●✕"
        assert row[43] in "│┊●✕"
        assert not re.search("[│┊●✕]", row[:20] + row[44:])


# -- the ladders, and what the simulator plays -------------------------------------------------------------------


def stories_of(code: str) -> Iterator[str]:
    """The scenarios that a finding is the answer to, with keys or without."""
    yield from (s.name for s in SCENARIOS.values() if code in (s.code, s.without_keys))
    if code in STAND_INS:
        yield STAND_INS[code]


@cache
def played(name: str, firmware: FirmwareName) -> list[Event]:
    # Three of 300 attempts that are all alike tell the same.
    simulation = simulate(name, firmware=firmware, attempts=3 if name == "retries" else None)
    return events_of(captured(simulation.packets, simulation.link_type), (SPARK_PORT,))


@pytest.mark.parametrize("code", [code for code in FINDINGS if code != "SPK307"])
def test_a_capture_of_a_finding_goes_the_way_its_ladder_draws(code: str) -> None:
    ladder = FINDINGS[code].ladder
    found: set[int] = set()
    names = [name for name in stories_of(code) if name not in IN_ANOTHER_FORM]
    assert names
    for name in names:
        firmwares = SCENARIOS[name].firmwares
        for firmware in {firmwares[0], firmwares[-1]}:
            steps = walk(ladder, played(name, firmware))
            assert steps is not None, f"{name}, {firmware}"
            found |= steps
    assert [step for place, step in enumerate(ladder) if place not in found] == []


def test_a_story_in_another_form_really_is() -> None:
    for name in IN_ANOTHER_FORM:
        code = SCENARIOS[name].code
        assert code is not None
        assert walk(FINDINGS[code].ladder, played(name, SCENARIOS[name].firmwares[0])) is None


def test_walking_finds_what_is_wrong_with_a_ladder() -> None:
    events = played("healthy-idle", "core-2014")
    assert walk(LOGIN, events) == frozenset(range(len(LOGIN)))
    assert walk((LOGGED_IN,), events) == frozenset({0})
    device, server = Sender.DEVICE, Sender.SERVER
    for wrong in (
        (*TO_REPLY, REPLY),
        (GREETING, REPLY, WHO_I_AM),
        (LadderStep(Act.BYTES, device, sizes=GREETING.sizes),),
        (*TO_REPLY, LadderStep(Act.SILENCE, device)),
        (*TO_IDENTITY, LadderStep(Act.CLOSE, server)),
        (*TO_IDENTITY, LadderStep(Act.BYTES, device)),
        (LOGGED_IN, LadderStep(Act.BYTES, device, sizes=(530,))),
        (LOGGED_IN, LadderStep(Act.RESET)),
        (LadderStep(Act.HOLE),),
    ):
        assert walk(wrong, events) is None


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
