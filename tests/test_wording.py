"""Numbers, spans, plurals and foreign text read the same in every report."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.findings import FINDINGS, FindingSpec
from analyzer.wording import (
    ASCII,
    clock,
    duration,
    endpoint,
    listing,
    moment,
    number,
    packets,
    plain,
    plural,
    printable,
    quote,
    size,
    span,
    wrap,
)

GOLDEN = Path(__file__).parent / "golden"
MS, S = 1_000_000, 1_000_000_000


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 µs"),
        (42_000, "42 µs"),
        (99_499, "99 µs"),
        (200_000, "0.2 ms"),
        (9_949_000, "9.9 ms"),
        (9_951_000, "10 ms"),
        (59 * MS, "59 ms"),
        (999 * MS, "999 ms"),
        (1100 * MS, "1.1 s"),
        (20 * S, "20.0 s"),
        (63 * S, "63.0 s"),
        (99_949 * MS, "99.9 s"),
        (250 * S, "4 min 10 s"),
        (3599 * S, "59 min 59 s"),
        (3600 * S, "1 h 0 min"),
        (63_960 * S, "17 h 46 min"),
        (76 * 3600 * S, "3 d 4 h"),
        (-20 * S, "−20.0 s"),
    ],
)
def test_spans_have_three_digits_at_most(nanoseconds: int, text: str) -> None:
    assert duration(nanoseconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (1, "1 byte"),
        (9_999, "9,999 bytes"),
        (10_000, "10.0 kB"),
        (62_000, "62.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (1_100_000_000, "1.1 GB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)
def test_sizes_are_exact_up_to_9999(count: int, text: str) -> None:
    assert size(count) == text


def test_numbers_plurals_and_lists() -> None:
    assert number(43_000) == "43,000"
    assert [plural(n, "packet") for n in (0, 1, 2_000)] == ["0 packets", "1 packet", "2,000 packets"]
    assert plural(2, "copy", "copies") == "2 copies"
    assert packets([24, 8, 8]) == "packets 8, 24"
    assert packets([8]) == "packet 8"
    assert packets(range(1, 1001)) == "packets 1, 2, 3, 4, 5, 6 and 994 more"
    assert (span(8, 8), span(8, 1014)) == ("8", "8–1,014")
    assert [listing(["a", "b", "c"][:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert endpoint("192.168.1.104", 5683) == "192.168.1.104:5683"
    assert endpoint("fe80::1", 5683) == "[fe80::1]:5683"


def test_moments_are_utc_and_never_fail() -> None:
    assert moment(1_795_403_303 * S + 5) == "2026-11-23 03:08:23 UTC"
    assert clock(1_795_403_303 * S) == "03:08"
    assert moment(2**63) != ""
    assert moment(10**30).endswith("s after 1970")
    assert clock(10**30) == "--:--"


# -- foreign text ---------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(), max_size=80))
def test_nothing_foreign_acts_on_a_terminal(text: str) -> None:
    for shown in (printable(text), *wrap(text, 30)):
        assert all(c.isprintable() and unicodedata.category(c) not in ("Cf", "Cc", "Cs", "Co", "Cn") for c in shown)
    assert plain(text).isascii()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_quoted_bytes_are_short_and_inert(data: bytes) -> None:
    text = quote(data)
    assert text.startswith('"')
    assert text.endswith('"')
    assert len(text) <= 60 + 3 + 10
    assert text.isprintable()
    assert not re.search(r"\\(?:x.?|u.{0,3})?…", text)  # no escape is cut in two


def test_what_is_quoted_stays_recognisable() -> None:
    assert quote(b"HTTP/1.1 302 Found") == '"HTTP/1.1 302 Found"'
    assert quote(b"\x1b[2J\x1b]0;gotcha\x07") == '"\\x1b[2J\\x1b]0;gotcha\\x07"'
    assert quote("ab\u202ecd".encode()) == '"ab\\u202ecd"'
    assert quote(b"\x16\x03\x01\xff") == '"\\x16\\x03\\x01\\xff"'
    assert quote(b'say "hi"') == '"say \\"hi\\""'
    assert quote(b"a" * 100) == '"' + "a" * 60 + '…"'


# -- lines -----------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(alphabet='abc 12"(),.–', min_size=1, max_size=20), max_size=30), st.integers(25, 90))
def test_lines_are_never_too_long_and_lose_nothing(words: list[str], width: int) -> None:
    text = " ".join(words)
    lines = wrap(text, width)
    assert all(len(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


@pytest.mark.parametrize(
    "held", ["7 min 44 s", "20.0 s", "packet 27", "384 bytes", '"Unknown 178"', "code 13", "--port 8000", "42 µs"]
)
def test_a_number_is_not_parted_from_what_it_counts(held: str) -> None:
    for width in range(30, 60):
        lines = wrap(f"some words that come before it and then {held} and then some words that come behind it", width)
        assert any(held in line for line in lines)


def test_every_mark_of_ours_has_an_ascii_form() -> None:
    for mark in "✕✓│┊─▶◀●–−·…µ×▇→←≥’“”":
        assert ord(mark) in ASCII
        assert plain(mark).isascii()
        assert "\\" not in plain(mark)


# -- words that no text says -----------------------------------------------------------------------------------------

NEVER = (
    r"\byou\b",
    r"\byour\b",
    r"\bplease\b",
    r"\bsorry\b",
    r"\boops\b",
    r"\billegal\b",
    r"\bsimply\b",
    r"\bjust\b(?!\s+checked)",
    r"\bobviously\b",
    r"\bhacked\b",
    r"\bunknown error\b",
    r"\buser error\b",
    r"\bbad keys?\b",
    r"\bhandshake error\b",
    r"\bclient\b",
    r"\bpeer\b",
    r"!(?!\")",
)
"""Vocabulary of section 8: the ends are device and server, causes are named, nobody is addressed or blamed."""


def said_badly(text: str) -> list[str]:
    """What of it is not said here; a quotation of another program's output is not ours."""
    own = re.sub(r"\S+\.pcap|\bpeer/door\b", "", re.sub(r'"[^"]*"', "", text))  # the latter: a name in the captures
    return [found[0] for word in NEVER if (found := re.search(word, own, re.IGNORECASE))]


@pytest.mark.parametrize("spec", FINDINGS.values(), ids=FINDINGS)
def test_no_finding_says_what_must_not_be_said(spec: FindingSpec) -> None:
    for name in ("title", "short", "says", "of", "means", "looks", "led", "fix", "causes", "settle"):
        value = getattr(spec, name)
        for text in [value] if isinstance(value, str) else value:
            assert not said_badly(text), text
    for _, how in spec.not_it:
        assert not said_badly(how)


@pytest.mark.parametrize("file", [*GOLDEN.glob("*.txt"), *GOLDEN.glob("*.md")], ids=lambda file: file.name)
def test_no_report_says_what_must_not_be_said(file: Path) -> None:
    assert not said_badly(file.read_text(encoding="utf-8"))


def test_what_is_not_seen_or_covers_other_lines_is_escaped() -> None:
    assert printable("pile\u0301\u0302\u0303\u0304\u0305") == "pile\u0301\u0302\u0303\\u0304\\u0305"
    assert printable('"\u0301 \u0301') == '"\\u0301 \\u0301'
    assert printable("a\u3164b\ufe0fc\u2800d\U000e0100") == "a\\u3164b\\ufe0fc\\u2800d\\U000e0100"
    assert printable("ที่นี่ नमस्ते Việt 漢字") == "ที่นี่ नमस्ते Việt 漢字"
