"""What holds for all tests: none is ever skipped, and each has the same name in every process."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from typing import Any, Final

import pytest
from lua_coverage import JUDGING

from analyzer import pipeline
from analyzer.trace import Trace

LONGEST_BYTES_IN_A_NAME: Final = 16


def pytest_configure() -> None:
    """Whoever runs the tests in the background has some signals ignored, which all programs that they start inherit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A check that did not run must not look like one that passed."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped; sh tests/run installs what tests need.\n{report.longrepr}"
    return report


def pytest_make_parametrize_id(val: object) -> str | None:
    """Long bytes make no good names, and packed ones may hold the time, so that two processes would not agree."""
    if isinstance(val, bytes) and len(val) > LONGEST_BYTES_IN_A_NAME:
        return f"{len(val)} bytes from {val[:4].hex()}"
    return None


@pytest.fixture(autouse=True)
def the_plugin_says_the_same(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever the rules are tested with, the Wireshark plugin's rules are asked as well, and must agree."""
    judged: list[Trace] = []
    if request.module.__name__ not in JUDGING:
        yield
        return

    def judge(trace: Trace) -> None:
        real(trace)
        judged.append(trace)

    real: Any = vars(pipeline)["judge"]
    monkeypatch.setattr(pipeline, "judge", judge)
    yield
    from test_lua_rules import compare  # noqa: PLC0415 - brings up Lua, which other tests do without

    for trace in judged:
        background, qualities = trace.background, [(side, side.quality) for side in sides(trace)]
        compare(trace, "lua52")
        trace.background = background
        for side, quality in qualities:
            side.quality = quality


def sides(trace: Trace) -> Iterator[Any]:
    """Both sides of all conversations."""
    for conversation in trace.conversations:
        yield from conversation.sides.values()
