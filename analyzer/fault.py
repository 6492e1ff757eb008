"""Where the work was when something of our own broke, in words that can be posted.

They are numbers and names of our own code: what a capture or a key holds is never among them, and neither is an error's
own text, which may quote both.
"""

from __future__ import annotations

import os
from traceback import walk_tb
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analyzer.capture import Capture, Packet

_HERE: Final = os.path.dirname(__file__)
_NEAR, _IN = "sparkshark was near ", "sparkshark was in "
"""How the notes begin that an error carries: they go with it from one process to another, its traceback does not."""


def note(error: BaseException, where: str) -> None:
    """Note at an error what was worked on, unless something nearer has been noted; ``where`` is our own words."""
    if next(_noted(error, _NEAR), None) is None:
        error.add_note(_NEAR + where)


def note_reading(error: BaseException, capture: Capture, packet: Packet | None) -> None:
    """Note how far into the captures reading had come; ``packet`` was the last one."""
    at = capture.position
    file = f", file {at.place} of {at.files}" if at.files > 1 else ""
    note(error, f"{'the first packet' if packet is None else f'packet {packet.number}'}{file}, {at.done} bytes read")


def note_code(error: BaseException) -> None:
    """Note the place in our code, for an error that leaves this process."""
    if (where := _place(error)) is not None:
        error.add_note(_IN + where)


def told(error: BaseException) -> str:
    """Return an error's kind, the place in our code where it arose, and what was worked on."""
    code = next(_noted(error, _IN), None) or _place(error)
    near = next(_noted(error, _NEAR), None)
    return type(error).__name__ + (f" in {code}" if code else "") + (f", near {near}" if near else "")


def _noted(error: BaseException, begins: str) -> Iterator[str]:
    for text in getattr(error, "__notes__", ()):
        if isinstance(text, str) and text.startswith(begins):
            yield text.removeprefix(begins)


def _place(error: BaseException) -> str | None:
    """Return file and line of the innermost frame that is ours."""
    place = None
    for frame, line in walk_tb(error.__traceback__):
        path = frame.f_code.co_filename
        if path.startswith(_HERE + os.sep):
            name = os.path.relpath(path, os.path.dirname(_HERE)).replace(os.sep, "/")
            place = f"{name}:{line}"
    return place
