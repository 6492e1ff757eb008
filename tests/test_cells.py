"""Columns of a terminal: East Asian and combining characters count as a terminal draws them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import wcswidth

from analyzer.cells import MARKS, cells, cut, cut_front, fold, left, right
from analyzer.wording import printable, wrap

WORDS = st.text(st.sampled_from("ab é漢字한글\u0301\u0e31\u202e\U0001f600 \t\x9b")).map(printable)


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("temp", 4),
        ("é", 1),
        ("e\u0301", 1),
        ("漢字", 4),
        ("한글", 4),
        ("ｱ", 1),
        ("Ａ", 2),
        ("\U0001f600", 2),
        (MARKS, len(MARKS)),
    ],
)
def test_a_character_takes_what_a_terminal_gives_it(text: str, width: int) -> None:
    assert cells(text) == width
    assert wcswidth(text) == width


@given(WORDS, st.integers(2, 30))
def test_what_is_cut_fits_and_is_as_much_as_fits(text: str, width: int) -> None:
    for kept, rest in ((cut(text, width), 1), (cut_front(text, width), -1)):
        assert cells(kept) <= width
        assert (text.startswith if rest == 1 else text.endswith)(kept)
        assert kept == text or cells(kept) >= width - 1


@given(WORDS, st.integers(8, 40))
def test_no_line_is_wider_than_asked_for_and_nothing_is_lost(text: str, width: int) -> None:
    for lines in (wrap(text, width, first="1. ", then="   "), fold(text, width, "1. ", "   ")):
        assert all(cells(line) <= width for line in lines)
        joined = "".join(lines).replace(" ", "")
        assert joined.removeprefix("1.") == text.replace(" ", "")


@given(WORDS, st.integers(0, 40))
def test_filling_up_counts_columns(text: str, width: int) -> None:
    assert cells(left(text, width)) == cells(right(text, width)) == max(width, cells(text))


def test_a_table_stays_in_its_columns_whatever_a_name_is_made_of() -> None:
    assert left("漢字", 6) + "|" == "漢字  |"
    assert cut("漢字漢字", 5) == "漢字"
    assert cut_front("漢字漢字", 5) == "漢字"
    assert cut("e\u0301e\u0301", 1) == "e\u0301"
    assert fold("漢字漢字漢字", 8) == ["漢字漢字", "漢字"]
