"""How text is put on a screen or into a file; small, because every command asks for it before it reads anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from analyzer.cells import NARROW, WIDTH

NARROWEST: Final = 40
"""A terminal in a split window, or a phone. Below that the terminal folds the lines."""
WIDEST: Final = 120
"""Longer lines of prose lose the eye on its way back; tables of messages take what there is."""


@dataclass(frozen=True, slots=True)
class Style:
    """Width in columns, colour on or off, more than ASCII or not, and whether only the answer is wanted."""

    width: int = WIDTH
    colour: bool = False
    unicode: bool = True
    quiet: bool = False
    moves: bool = True  # a terminal's cursor can be moved

    @property
    def narrow(self) -> bool:
        """Whether what else stands side by side is stacked."""
        return self.width < NARROW
