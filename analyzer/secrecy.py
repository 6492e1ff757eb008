"""What keeps keys out of sight when something goes wrong.

Each class that holds a key shows nothing of it when printed. But key files are bytes before they are keys, and the
variables of every function that had them in hand stay with an error for as long as it is looked at: notebooks and
crash reporters print them. And a process that crashes may leave all its memory in a file.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Hidden(str):
    """Text that is a secret: an argument of a command, say. It does not show where its holder is printed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<hidden>"


def forgetful(work: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that has secrets in hand: what it raises has none of its variables with it."""

    @wraps(work)
    def working(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return work(*args, **kwargs)
        except BaseException as error:
            del args, kwargs
            forget(error)
            raise

    return working


def forget(error: BaseException) -> None:
    """Empty the variables of all functions that an error, or one that led to it, has left."""
    from traceback import clear_frames  # noqa: PLC0415 - takes long to load, and most goes well

    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            clear_frames(one.__traceback__)
            waiting += [one.__context__, one.__cause__]


def leave_no_core() -> None:
    """Have the system write no memory of this process, and of those it starts, to a file when it crashes."""
    with suppress(ImportError, OSError, ValueError):
        import resource  # noqa: PLC0415 - not on Windows, where nothing is written unless somebody asks for it

        _, most = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, most))
