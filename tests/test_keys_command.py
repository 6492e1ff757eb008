"""``sparkshark keys`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from keyed import KEYS

from analyzer.cli import main
from analyzer.keys import KeyRing

VECTORS = json.loads((Path(__file__).parent / "vectors" / "vectors.json").read_text())
Screen = pytest.CaptureFixture[str]


def keys(screen: Screen, *words: str | Path) -> tuple[int, str, str]:
    status = main(["keys", *map(str, words)])
    out, err = screen.readouterr()
    return status, out, err


@pytest.fixture
def backups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the example: good files, a flash dump, a renamed download, an unlucky key, half a pair."""
    folder = tmp_path / "backups"
    folder.mkdir()
    flash = bytearray(b"\xff" * 2_097_152)
    core, server = (KEYS / "core-a.der").read_bytes(), (KEYS / "server.pub.der").read_bytes()
    flash[0x1000 : 0x1000 + len(server)] = server
    flash[0x2000 : 0x2000 + len(core)] = core
    for name, content in {
        "backup.bin": bytes(flash),
        "cloud_public.cer": server,
        "core-a.der": core,
        "core-a.pub.pem": (KEYS / "core-a.pub.pem").read_bytes(),
        "device.pub.pem": (KEYS / "core-a-stale.pub.pem").read_bytes(),
        "unlucky.der": bytes.fromhex(VECTORS["keys"]["core_short_integer"]["private_der_pkcs1_hex"]),
    }.items():
        (folder / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    return folder


def test_the_screen_tells_what_each_file_is(backups: Path, capsys: Screen) -> None:
    status, out, err = keys(capsys, "backups/")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "  file              what it is                                        key"
    assert "✓ core-a.der        device private key; this firmware can read it     91d4915e" in lines
    assert "✓ core-a.pub.pem    its public half: what the server needs            91d4915e" in lines
    assert "~ backup.bin        whole flash chip, 2,097,152 bytes. Usable; holds" in lines
    assert "                    a device private key at 0x2000                    91d4915e" in lines
    assert "                    a server public key at 0x1000                     ec7645ed" in lines
    assert any(line.startswith("✓ cloud_public.cer  server public key, 294 bytes; .cer is harmless") for line in lines)
    unlucky = out[out.index("✕ unlucky.der") :]
    assert "device private key, correct, but this firmware" in unlucky
    assert "(SPK306)" in unlucky
    assert "particle keys doctor DEVICE_ID" in unlucky
    assert any(line.startswith("✕ device.pub.pem") for line in lines)
    assert max(map(len, lines)) <= 80


def test_the_same_as_json(backups: Path, capsys: Screen) -> None:
    status, out, _ = keys(capsys, "backups/", "--format", "json")
    assert status == 0
    rows = json.loads(out)
    assert isinstance(rows, list)
    assert len(rows) == 6
    text = json.dumps(rows)
    assert "91d4915e" in text
    assert "SPK306" in text or "short" in text


def test_comparing_a_dump_with_a_file_shows_one_key_in_both(tmp_path: Path, capsys: Screen) -> None:
    core = (KEYS / "core-a.der").read_bytes()
    dump = tmp_path / "now.der"
    dump.write_bytes(core.ljust(1024, b"\xff"))
    _, out, _ = keys(capsys, dump, KEYS / "core-a.der")
    assert out.count("91d4915e") == 2
    dump.write_bytes((KEYS / "core-b.der").read_bytes().ljust(1024, b"\xff"))
    _, out, _ = keys(capsys, dump, KEYS / "core-a.der")
    assert (out.count("91d4915e"), out.count("e990f45f")) == (1, 1)


@pytest.mark.parametrize("words", [("no-such-file",), ("no/such/folder/",)])
def test_a_path_that_is_not_there_is_one_line(words: tuple[str, ...], capsys: Screen) -> None:
    status, out, err = keys(capsys, *words)
    assert (status, out) == (2, "")
    assert err.startswith(f"sparkshark: {words[0]}: no such file")
    assert err.count("\n") == 1


def test_without_a_file_the_usage_is_told(capsys: Screen) -> None:
    status, out, err = keys(capsys)
    assert (status, out) == (2, "")
    assert err.startswith("sparkshark: ")
    assert err.count("\n") == 1


def test_no_private_number_is_printed(backups: Path, capsys: Screen) -> None:
    numbers = KeyRing.load(KEYS / "core-a.der").device_private[0].secret
    assert numbers is not None
    for form in ("text", "json"):
        _, out, err = keys(capsys, "backups/", "--format", form)
        for value in (numbers.d, numbers.p, numbers.q, numbers.dp):
            assert f"{value:x}" not in out + err
            assert str(value) not in out + err


def test_names_and_rubbish_cannot_act_on_a_terminal(tmp_path: Path, capsys: Screen) -> None:
    nasty = tmp_path / "key\x1b[31m\n.der"
    nasty.write_bytes((KEYS / "core-a.der").read_bytes())
    (tmp_path / "page.html").write_text("<html><title>\x1b]0;x\x07</title>")
    status, out, err = keys(capsys, tmp_path)
    assert status == 0
    assert "\x1b" not in out + err
    assert "\x07" not in out + err
