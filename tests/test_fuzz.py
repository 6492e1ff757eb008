"""The fuzz targets hold without a fuzzer, too: over what they begin with, and over what hypothesis makes of that."""

from __future__ import annotations

import json
import random
from functools import cache
from itertools import islice
from pathlib import Path

import pytest
from fuzz import command, tally
from fuzz.script import Script, written
from fuzz.targets import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SLOW = {"analyze", "commands", "decrypt", "session", "twin-rules"}
"""Targets of which one input takes a tenth of a second."""
SLOWEST = "plugin"
"""It starts tshark for each input."""


@cache
def seeds(name: str) -> list[bytes]:
    """Some of a target's seeds, from all over the list."""
    every = list(islice(TARGETS[name].seeds(), 100))
    return random.Random(name).sample(every, min(len(every), 1 if name == SLOWEST else 3 if name in SLOW else 20))


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_over_its_seeds(name: str) -> None:
    target = TARGETS[name]
    assert seeds(name)
    for seed in seeds(name):
        assert 0 < len(seed) <= target.longest
        target.run(seed)


@pytest.mark.parametrize("name", sorted(set(TARGETS) - SLOW - {SLOWEST}))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_target_holds_over_what_is_made_of_its_seeds(name: str, data: st.DataObject) -> None:
    changed = bytearray(data.draw(st.sampled_from(seeds(name))))
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(0, len(changed)))
        changed[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=12))
    TARGETS[name].run(bytes(changed))


def test_a_script_that_is_out_of_bytes_decides_for_nothing() -> None:
    script = Script(written(7, b"abc", 2))
    assert (script.number(), script.piece(), script.pick("xyz"), bool(script)) == (7, b"abc", "z", False)
    assert (script.number(4), script.piece(), script.rest(), script.pick("xyz")) == (0, b"", b"", "x")


def test_what_the_command_says(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines()] == list(TARGETS)
    assert command.main(["nothing-of-ours"]) == 2
    assert "nothing-of-ours" in capsys.readouterr().err
    place = tmp_path / "one.bin"
    place.write_bytes(b"\x40\x01\0\7")
    assert command.main(["coap", "--reproduce", str(tmp_path)]) == 0
    assert "nothing wrong" in capsys.readouterr().out


def test_runs_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "PLACE", tmp_path / "fuzz.json")
    tally.add("coap", tally.Run(cpu_s=1800, inputs=10, edges=5, features=7, corpus=3))
    tally.add("coap", tally.Run(cpu_s=1800, inputs=20, edges=6, features=9, corpus=4))
    tally.add_all(tmp_path / "fuzz.json")
    page = json.loads((tmp_path / "fuzz.json").read_text())
    assert [row[0] for row in page["rows"]] == list(TARGETS)
    assert [row for row in page["rows"] if row[1]] == [["coap", 60, 2.0, 6, 9, 4, 0]]
    assert tally.least_first(["coap", "frames"]) == ["frames", "coap"]
    assert "60 inputs" in tally.told("coap")


def test_the_record_is_of_these_targets() -> None:
    page = tally.read()
    assert [row[0] for row in page["rows"]] == list(TARGETS)
    assert set(page["totals"]) <= set(TARGETS)
    assert {bug["target"] for bug in page["found"]} <= set(TARGETS)
