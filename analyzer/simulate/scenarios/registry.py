"""The table of scenarios, filled by the modules beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from analyzer.simulate.messages import FIRMWARES, Dialect, FirmwareName
from analyzer.simulate.world import World

SCENARIOS: Final[dict[str, Scenario]] = {}
"""Every scenario by name, in the order in which `sparkshark simulate --list` shows them."""

EVERY_FIRMWARE: Final[tuple[FirmwareName, ...]] = tuple(FIRMWARES)
LATER: Final = EVERY_FIRMWARE[1:]
"""Firmware that closes after a failed handshake; what came before goes on talking (PROTOCOL 9.2)."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A story to simulate, and what a correct analysis says about it.

    `title` has at most 30 characters. `code` is the finding that a correct analysis reports when it has the
    keys, `without_keys` the one when it has none (None: it cannot tell); `near_miss` is the one that it
    must not report. `story` tells what happens; it, `verdict` and `say` go into the truth file. Only the
    `firmwares` named can play it, the first of them if none is asked for; `server` is the one it needs.
    """

    name: str
    title: str
    code: str | None
    near_miss: str | None
    verdict: str
    say: str
    story: str
    build: Callable[[World], None]
    without_keys: str | None
    firmwares: tuple[FirmwareName, ...] = EVERY_FIRMWARE
    server: Dialect | None = None


def scenario(
    name: str,
    title: str,
    code: str | None,
    *,
    verdict: str,
    say: str,
    story: str,
    near_miss: str | None = None,
    without_keys: str | None = None,
    firmwares: tuple[FirmwareName, ...] = EVERY_FIRMWARE,
    server: Dialect | None = None,
) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    """Enter a builder into the table."""

    def enter(build: Callable[[World], None]) -> Callable[[World], None]:
        SCENARIOS[name] = Scenario(
            name=name,
            title=title,
            code=code,
            near_miss=near_miss,
            verdict=verdict,
            say=say,
            story=story,
            build=build,
            without_keys=without_keys or code,
            firmwares=firmwares,
            server=server,
        )
        return build

    return enter
