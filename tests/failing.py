"""Has functions fail with secrets in hand, and says what a report of the error would show."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from traceback import TracebackException
from types import CodeType, FrameType, TracebackType
from typing import Any, Final

from canaries import Secret, leaks

OURS: Final = "analyzer."
AT_KEYS: Final = tuple(f"analyzer.{name}" for name in ("keys", "session", "decryption", "deadkey", "rsa", "messages"))
"""Modules whose functions have keys in hand. `tests.leaks` asks all of them."""
CALLS: Final = 5
"""Calls of each function that are looked at; the first of them closely."""


class PlantedError(Exception):
    """A fault of ours: nothing in the program expects it."""


def having(
    secrets: list[Secret], work: Callable[[], object], closely: tuple[str, ...] = AT_KEYS
) -> tuple[set[CodeType], dict[type, list[Any]]]:
    """Return the functions of some modules that have a secret in hand when they end, and some objects of each class."""
    calls: Counter[CodeType] = Counter()
    found: set[CodeType] = set()
    objects: dict[type, dict[int, Any]] = {}

    def ends(frame: FrameType, event: str, result: object) -> None:
        code = frame.f_code
        if event != "return" or calls[code] == CALLS or not frame.f_globals.get("__name__", "").startswith(OURS):
            return
        calls[code] += 1
        values = [*frame.f_locals.values(), result]
        for value in values:
            if type(value).__module__.startswith(OURS):
                some = objects.setdefault(type(value), {})
                if len(some) < 2:
                    some[id(value)] = value
        if calls[code] == 1 and frame.f_globals["__name__"].startswith(closely):
            plain = [value for value in values if not type(value).__module__.startswith(OURS)]
            if leaks(b"\n".join(map(shown, plain)), secrets):
                found.add(code)

    sys.setprofile(ends)
    try:
        work()
    finally:
        sys.setprofile(None)
    return found, {kind: list(some.values()) for kind, some in objects.items()}


def failing(code: CodeType, work: Callable[[], object]) -> BaseException | None:
    """Do some work in which a function fails just before it ends; return what comes of that."""

    def ends(frame: FrameType, event: str, result: object) -> None:
        if event == "return" and frame.f_code is code:
            sys.setprofile(None)
            raise PlantedError

    sys.setprofile(ends)
    try:
        work()
    except BaseException as error:
        return error
    finally:
        sys.setprofile(None)
    return None


def report(error: BaseException) -> bytes:
    """Everything that the most talkative report of an error shows of our functions."""
    return b"\n".join(
        "".join(TracebackException(type(one), one, _ours(one.__traceback__), capture_locals=True).format()).encode(
            "utf-8", "surrogateescape"
        )
        + repr((one.args, getattr(one, "__notes__", None), vars(one))).encode("utf-8", "surrogateescape")
        for one in _chain(error)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [other for other in (one.__cause__, one.__context__) if other is not None]


def _ours(traceback: TracebackType | None) -> TracebackType | None:
    """Leave out the frames of the test, which knows all secrets."""
    while traceback is not None and not traceback.tb_frame.f_globals.get("__name__", "").startswith(OURS):
        traceback = traceback.tb_next
    return traceback


def shown(value: object) -> bytes:
    """What is seen of a value when it is printed."""
    return repr(value).encode("utf-8", "surrogateescape")
