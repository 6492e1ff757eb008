"""Every command on every width of a screen, and what `--quiet` leaves of each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from screens import CAPTURES, ROOT

from analyzer.cells import cells
from analyzer.cli import COMMANDS, command_of, main
from analyzer.findings import FINDINGS

Screen = pytest.CaptureFixture[str]
KEYS = ("--keys", "captures/keys")
PLAYED = (
    ("decrypt", "captures/healthy-full.pcap", *KEYS),
    ("decrypt", "captures/ota-complete.pcap", *KEYS),
    ("keys", "captures/keys"),
    ("follow", "captures/healthy-full.pcap", "1"),
    ("follow", "captures/healthy-full.pcap", "1", "--direction", "device"),
    ("explain",),
    ("explain", "capture"),
    ("explain", "Reset, 5.05 Proxying Not Supported, TID:24199", "captures/nonce-looks-like-coap.pcap"),
    ("analyze", "captures/two-devices-background.pcap", "--statistics"),
)
PASTED = re.compile(
    r"\s*(?:(?:sudo )?(?:sparkshark|particle|spark|openssl|dfu-util|nc|ss|tcpdump|tshark|ssh|echo|mv|cp|chmod|ls|cat"
    r"|head|sha256sum|node|npm|git|systemctl|ip|dig|getent|nslookup|ping|arp|iw|xxd|editcap|mergecap|timedatectl|\$)\b"
    r"|[a-z].* # )"
)
"""What is to be pasted stays in one piece."""


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.delenv("COLUMNS", raising=False)


def printed(capsys: Screen, *words: str) -> list[str]:
    assert main(words) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [40, 57, 69, 70, 80, 100, 120])
@pytest.mark.parametrize("words", PLAYED, ids=" ".join)
def test_a_screen_fits(words: tuple[str, ...], width: int, capsys: Screen) -> None:
    lines = printed(capsys, *words, "--width", str(width))
    assert [line for line in lines if cells(line) > width and not PASTED.match(line)] == []
    assert [line for line in lines if line != line.rstrip()] == []


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_page_of_every_finding_fits(width: int, capsys: Screen) -> None:
    wide = []
    for code, spec in FINDINGS.items():
        commands = {step.strip() for step in spec.fix if step.startswith("  ")}
        commands |= {re.sub(r"\{(\w+)\}", "", c).split(" ")[0] for r in spec.recipes for c in r.commands}
        for line in printed(capsys, "explain", code, "--width", str(width)):
            pasted = PASTED.match(line) or line.strip().split(" ")[0] in commands or "community.particle.io" in line
            wide += [(code, line)] if cells(line) > width and not pasted else []
    assert wide == []


def test_the_same_is_said_on_every_width(capsys: Screen) -> None:
    for words in PLAYED[2:]:
        told = [
            set(re.findall(r"[A-Za-z]{5,}", " ".join(printed(capsys, *words, "--width", str(width)))))
            for width in (60, 80, 120)
        ]
        assert len(told[0] ^ told[1]) <= 3, words
        assert len(told[1] ^ told[2]) <= 3, words


def test_every_command_that_says_more_than_its_answer_can_be_quiet() -> None:
    for name in COMMANDS:
        _, parser = command_of(name)
        options = {option for action in parser._actions for option in action.option_strings}
        assert "--quiet" in options or name == "completion"


def test_quiet_leaves_the_answer(capsys: Screen, tmp_path: Path) -> None:
    assert printed(capsys, "analyze", "captures/healthy-full.pcap", "--quiet")[0].startswith("✓ WORKING")
    assert printed(capsys, "decrypt", "captures/healthy-full.pcap", *KEYS, "--quiet") == [
        "✓ 67 of 67 messages opened · device 48ff6d06507b573081350e87 · core-a.der"
    ]
    page = printed(capsys, "explain", "SPK206", "--quiet")
    assert "Engineer" not in "\n".join(page)
    assert any(line.startswith("Fix") for line in page)
    assert printed(capsys, "keys", "captures/keys/core-a.der", "--quiet") == []
    (tmp_path / "text.der").write_text("no key")
    assert any("text.der" in line for line in printed(capsys, "keys", str(tmp_path / "text.der"), "--quiet"))
    raw = printed(capsys, "follow", "captures/healthy-full.pcap", "1", "--quiet")
    assert raw[0].startswith("  0000  ")
    assert not [line for line in raw if line.startswith("packet")]
    assert printed(capsys, "simulate", "port-blocked", "-o", str(tmp_path / "x.pcap"), "--quiet") == []
    assert (tmp_path / "x.pcap").exists()
    assert printed(capsys, "install-plugin", "--directory", str(tmp_path), "--quiet") == []
    assert (tmp_path / "sparkshark.lua").exists()
    assert CAPTURES.exists()
