"""The plugin's file as a text: it is what the parts make, every Lua reads it, and luacheck has nothing to say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from lua_engine import VERSIONS, plugin, runtime

from analyzer.wireshark import generate as generate_module
from analyzer.wireshark.generate import GENERATED, PARTS, SOURCES, WIRESHARK_PARTS, GenerateError, generate

LONGEST_LINE: Final = 120
STANDARDS: Final = "lua51+lua52+lua54"
WIRESHARK: Final = [
    "ByteArray",
    "Dir",
    "Dissector",
    "DissectorTable",
    "GCRY_CIPHER_AES",
    "GCRY_CIPHER_MODE_CBC",
    "GcryptCipher",
    "Listener",
    "MENU_TOOLS_UNSORTED",
    "NSTime",
    "Pref",
    "Proto",
    "ProtoExpert",
    "ProtoField",
    "TextWindow",
    "apply_filter",
    "apply_preferences",
    "base",
    "bit",
    "copy_to_clipboard",
    "expert",
    "frametype",
    "gui_enabled",
    "new_dialog",
    "redissect_packets",
    "register_menu",
    "register_packet_menu",
    "register_postdissector",
    "register_stat_cmd_arg",
    "retap_packets",
    "set_filter",
    "set_preference",
]
"""What Wireshark puts beside Lua's own names. `bit` and the ciphers are not in all versions; the parts ask first."""


def test_the_committed_file_is_what_the_parts_make() -> None:
    assert GENERATED.read_text(encoding="utf-8") == generate()


def test_another_process_makes_the_same_file() -> None:
    """Whatever the order of its sets: hash seeds differ."""
    program = "import sys; from analyzer.wireshark.generate import generate; sys.stdout.write(generate())"
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            encoding="utf-8",
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path), "PYTHONUTF8": "1"},
        )
        assert done.stdout == generate()


def test_every_part_is_used_and_in_its_place() -> None:
    assert {path.stem for path in SOURCES.glob("*.lua")} == {*PARTS, *WIRESHARK_PARTS}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_lua_reads_it(version: str) -> None:
    load = runtime(version).eval(b"function(text) return (loadstring or load)(text) end")
    assert not isinstance(load(plugin()), tuple), load(plugin())


def test_luacheck_has_nothing_to_say(tmp_path: Path) -> None:
    path = tmp_path / GENERATED.name
    path.write_bytes(plugin())
    done = subprocess.run(
        [
            *("luacheck", "--no-color", "--no-config", "--no-cache", "--no-max-line-length", "--std", STANDARDS),
            *("--read-globals", *WIRESHARK, "--", str(path)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_lines_are_no_longer_than_python_s() -> None:
    long = [
        f"{path.name}:{number}"
        for path in sorted(SOURCES.glob("*.lua"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > LONGEST_LINE or line != line.rstrip() or "\t" in line
    ]
    assert not long


def test_the_command_that_makes_the_plugin_says_whether_it_is_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / GENERATED.name
    monkeypatch.setattr(generate_module, "GENERATED", file)
    monkeypatch.setattr(generate_module, "generate", lambda: "made")
    assert generate_module.main(["--check"]) == 1
    assert capsys.readouterr().out.endswith(": python -m analyzer.wireshark.generate\n")
    assert generate_module.main([]) == 0
    assert file.read_text() == "made"
    assert generate_module.main(["--check"]) == 0


@pytest.mark.parametrize("value", [float("inf"), 1j], ids=["infinite", "complex"])
def test_what_lua_has_no_form_for_stops_the_making(value: object) -> None:
    with pytest.raises(GenerateError, match="has no place in the plugin"):
        "".join(vars(generate_module)["_lua"](value, 0))


def test_a_part_that_asks_for_what_does_not_exist_stops_the_making() -> None:
    with pytest.raises(GenerateError, match=r"analyzer\.catalogue has no NOT_THERE"):
        vars(generate_module)["_tree"]("constants.catalogue.NOT_THERE")
