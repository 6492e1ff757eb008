"""A table of devices in a key folder: it saves tries, and never changes what is found."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import truth

from analyzer.keys import KeyRing
from analyzer.keys.devicetable import MOST_ROWS, read_device_table
from analyzer.pipeline import analyze
from analyzer.report.jsonreport import json_text
from analyzer.session import SessionOpener, opening
from analyzer.trace import Trace

CAPTURES = Path(__file__).parent.parent / "captures"
KEYS = CAPTURES / "keys"
DEVICE = "48ff6d06507b573081350e87"
OTHER = "0123456789abcdef01234567"
PIECES = [DEVICE.encode(), b"a.pem", b'"', b",", b";", b"\t", b"\r", b"\n", b"\0"]


def table(text: str | bytes, *files: str) -> tuple[dict[str, str], list[str]]:
    """What a table says, given a folder with these key files."""
    data = text.encode() if isinstance(text, str) else text
    found, warnings = read_device_table(io.BytesIO(data), "keys/devices.csv", {f"keys/{name}": name for name in files})
    return {device.hex(): key for device, key in found.items()}, warnings


@pytest.mark.parametrize(
    "text",
    [
        f"device_id,core_key\n{DEVICE},a.pem\n{OTHER},b.der\n",
        f"\ufeffKey;Remark;ID\r\na.pem;first;{DEVICE}\r\nb.der;;{OTHER.upper()}\r\n",
        f'{DEVICE}\t"a.pem"\n\n{OTHER}\t ./b.der \n',
    ],
)
def test_columns_are_known_by_what_is_in_them(text: str) -> None:
    assert table(text, "a.pem", "b.der") == ({DEVICE: "a.pem", OTHER: "b.der"}, [])


def test_of_two_rows_about_one_device_the_later_counts() -> None:
    assert table(f"{DEVICE},a.pem\n{DEVICE},b.pem\n", "a.pem", "b.pem") == ({DEVICE: "b.pem"}, [])


def test_rows_that_say_nothing_are_one_warning() -> None:
    text = f"id,key\n{DEVICE},gone.pem\n{OTHER},a.pem\nnonsense\n,\n{OTHER},../a.pem\n"
    assert table(text, "a.pem") == (
        {OTHER: "a.pem"},
        [
            "keys/devices.csv: 3 rows without a device ID and a key file of this folder (first: line 2); passed over.",
        ],
    )
    (warning,) = table(f"{DEVICE},x\n")[1]
    assert "1 row without" in warning


def test_rows_beyond_the_most_are_not_read() -> None:
    found, warnings = table(f"{DEVICE},a.pem\n" * MOST_ROWS + f"{OTHER},a.pem\n", "a.pem")
    assert found == {DEVICE: "a.pem"}
    assert warnings == [f"keys/devices.csv: more than {MOST_ROWS:,} rows; the rest was not looked at."]


@given(st.binary(max_size=300) | st.lists(st.sampled_from(PIECES)).map(b"".join))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read(data: bytes) -> None:
    found, warnings = table(data, "a.pem")
    assert set(found.values()) <= {"a.pem"}
    assert len(warnings) <= 1


# -- what it is good for -------------------------------------------------------------------------------------------


def folder_with(folder: Path, text: str | None) -> Path:
    """All shipped keys, and a table."""
    for path in KEYS.iterdir():
        shutil.copy(path, folder)
    if text is not None:
        (folder / "devices.csv").write_text(text)
    return folder


def report(trace: Trace) -> str:
    return "".join(json_text(trace))


def test_a_wrong_table_changes_no_verdict(tmp_path: Path) -> None:
    device = truth("healthy-full")["sessions"][0]["device_id"]
    texts = {"without": None, "right": f"{device},core-a.pem\n", "wrong": f"{device},core-e.pem\n", "broken": "\0\n"}
    reports = set()
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        for capture in ("healthy-full", "key-mismatch-retries", "two-devices-background"):
            keys = KeyRing.load(folder_with(tmp_path / name, text))
            reports.add(
                (capture, report(analyze(CAPTURES / f"{capture}.pcap", keys=keys)).replace(str(tmp_path / name), ""))
            )
    assert len(reports) == 3


@pytest.mark.parametrize(("named", "tries"), [("core-a.pem", 1), ("core-a.pub.der", 1), ("core-e.pem", 2)])
def test_the_key_that_the_table_names_is_tried_first(tmp_path: Path, named: str, tries: int) -> None:
    device = truth("healthy-full")["sessions"][0]["device_id"]
    keys = KeyRing.load(folder_with(tmp_path, f"device_id,core_key\n{device},{named}\n"))
    assert not keys.warnings
    assert [key.private for key in keys.likely_keys(device.upper())] == [True]
    assert keys.likely_keys(OTHER) == ()
    trace = analyze(CAPTURES / "healthy-full.pcap", keys=keys)
    (c,) = (c for c in trace.conversations if c.messages)
    assert c.secrets is not None
    assert c.secrets.offer is not None
    assert c.secrets.offer.tried == 1 if tries == 1 else c.secrets.offer.tried > 1


def test_a_table_alone_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "devices.csv").write_text(f"{DEVICE},a.pem\n")
    with pytest.raises(ValueError, match="it is no key"):
        KeyRing.load(tmp_path)


def test_a_file_named_after_the_device_points_to_the_private_key_of_its_modulus(tmp_path: Path) -> None:
    device = truth("healthy-full")["sessions"][0]["device_id"]
    folder_with(tmp_path, None)
    shutil.copy(KEYS / "core-a.pub.pem", tmp_path / f"{device}.pub.pem")
    trace = analyze(CAPTURES / "healthy-full.pcap", keys=KeyRing.load(tmp_path))
    (c,) = (c for c in trace.conversations if c.messages)
    assert c.secrets is not None
    assert c.secrets.offer is not None
    assert c.secrets.offer.tried == 1


def test_keys_are_counted_right_when_the_share_of_tries_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MOST_TRIES", 3)
    opener = SessionOpener(KeyRing.load(KEYS))
    every = len(KeyRing.load(KEYS).device_private)
    first, second = opener.offer(b"\1" * 384, None), opener.offer(b"\1" * 384, None)
    assert (first.tried, first.untried) == (3, every - 3)
    assert (second.tried, second.untried) == (0, every)
