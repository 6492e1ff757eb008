"""Text that strangers chose does nothing where it is shown."""

from __future__ import annotations

import re
import unicodedata

from analyzer.wording import UNSEEN

DIRECTION = set("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def is_inert(text: str, also: str = "\n") -> None:
    """Nothing acts on a terminal, changes a direction, or is not seen."""
    for place, char in enumerate(text):
        if " " <= char <= "~":
            continue
        told = f"{char!r} in {text[max(0, place - 40) : place + 40]!r}"
        assert char in also or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"), told
        assert char not in DIRECTION, told
        assert char not in UNSEEN, told
    assert re.search(r"[\u0300-\u036f]{4}", text) is None
