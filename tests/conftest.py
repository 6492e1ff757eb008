"""What holds for all tests: none is ever skipped, and each has the same name in every process."""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

import pytest

LONGEST_BYTES_IN_A_NAME: Final = 16


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
