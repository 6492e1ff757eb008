"""Workers who may die: what one leaves undone is done here."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from analyzer.fault import note_code

T = TypeVar("T")


@dataclass(slots=True)
class Pending(Generic[T]):
    """Work that somebody has in hand; ``future`` is None when there is nobody."""

    future: Future[T] | None
    work: Callable[..., T]
    arguments: tuple[Any, ...]

    def result(self) -> T:
        """Wait for it. When its worker has died (the system kills them for want of memory), do it here."""
        if self.future is not None:
            try:
                return self.future.result()
            except BrokenExecutor:
                pass
        return self.work(*self.arguments)


@dataclass(slots=True)
class Hands:
    """The workers of an executor."""

    executor: Executor

    def do(self, work: Callable[..., T], *arguments: Any) -> Pending[T]:
        """Hand out work."""
        try:
            future = self.executor.submit(_noting, work, *arguments)
        except BrokenExecutor:
            future = None
        return Pending(future, work, arguments)


def _noting(work: Callable[..., T], *arguments: Any) -> T:
    """Do the work elsewhere; an error that comes back knows in which line it arose."""
    try:
        return work(*arguments)
    except Exception as error:
        note_code(error)
        raise
