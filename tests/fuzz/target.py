"""What is fuzzed: a plain function of bytes, and the bytes to begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One parser, or several that belong together.

    ``run`` takes any bytes; an exception of whatever kind is a bug. ``seeds`` makes inputs that mean something, out of
    what is in the repository. ``longest`` bounds an input (bytes), ``seconds`` the CPU time that one may take under
    instrumentation, some fifty times what the slowest honest one needs.
    """

    name: str
    about: str
    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    longest: int = 4096
    seconds: float = 2.0


TARGETS: dict[str, Target] = {}
"""All of them, by name, in the order in which they are defined."""


def target(
    about: str, seeds: Callable[[], Iterable[bytes]], *, longest: int = 4096, seconds: float = 2.0
) -> Callable[[Callable[[bytes], None]], Callable[[bytes], None]]:
    """Enter a function among the targets; its name is the target's, with hyphens."""

    def enter(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
        name = run.__name__.replace("_", "-")
        TARGETS[name] = Target(name, about, run, seeds, longest, seconds)
        return run

    return enter
