"""How the page for a browser bears many conversations:  python -m tests.benchmarks.htmlreport [--scale S]

Makes the workloads *fleet* (10,000 sessions, with their keys) and *stalls* (50,000 failed attempts), or takes them from
the folder that ``--from`` names, analyses them, makes the page, and opens it in Chromium without a window, at the size
of a desk, and of a phone whose processor is slowed down to a quarter. What was measured goes into RESULTS-HTML.md;
nothing is asserted.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tabulate import tabulate

from analyzer.jobs import analyze
from analyzer.keys import KeyRing
from analyzer.report.html import html_report

from .measure import ROOT
from .workloads import make

if TYPE_CHECKING:
    from playwright.sync_api import Browser

RESULTS: Final = Path(__file__).with_name("RESULTS-HTML.md")
WORKLOADS: Final = {"fleet": True, "stalls": False}
"""Which are measured, and whether with keys: nothing that stalls can be opened."""
ROUNDS: Final = 3
SCREENS: Final = {"desk": ((1280, 800), 1), "phone": ((360, 640), 4)}
"""Size of the window, and by how much its processor is slowed down."""
PAINT: Final = "(performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0)"
LOADED: Final = "performance.getEntriesByType('navigation')[0].loadEventEnd"
ELEMENTS: Final = "document.getElementsByTagName('*').length"


class Took(NamedTuple):
    """Of one page: how many attempts it is about, times in seconds, its size in bytes, its elements."""

    attempts: int
    analysis: float
    page: float
    size: int
    elements: int
    paint: dict[str, float]
    loaded: dict[str, float]


def opened(browser: Browser, page: Path, screen: str) -> tuple[float, float, int]:
    """Return when the first text was painted and when all was loaded (s), medians, and the elements."""
    (width, height), slower = SCREENS[screen]
    paints, loads, elements = [], [], 0
    for _ in range(ROUNDS):
        context = browser.new_context(viewport={"width": width, "height": height})
        tab = context.new_page()
        context.new_cdp_session(tab).send("Emulation.setCPUThrottlingRate", {"rate": slower})
        tab.goto(page.as_uri())
        while not tab.evaluate(f"{PAINT} > 0 && {LOADED} > 0"):
            time.sleep(0.05)
        paints.append(float(tab.evaluate(PAINT)) / 1000)
        loads.append(float(tab.evaluate(LOADED)) / 1000)
        elements = int(tab.evaluate(ELEMENTS))
        context.close()
    return statistics.median(paints), statistics.median(loads), elements


def measure(capture: Path, keys: Path | None, folder: Path) -> Took:
    """Make the page on a capture and open it."""
    sys.path.insert(0, str(ROOT / "tests"))  # where pytest finds it
    from pages import chromium  # noqa: PLC0415 - loads the browser's library

    begun = time.perf_counter()
    trace = analyze(str(capture), keys=None if keys is None else KeyRing.load(keys))
    analysed = time.perf_counter()
    page, elements = folder / "report.html", 0
    page.write_text("".join(html_report(trace, capture.name)), encoding="utf-8")
    made = time.perf_counter()
    attempts = len(trace.conversations)
    paint, loaded = {}, {}
    with chromium() as browser:
        for screen in SCREENS:
            paint[screen], loaded[screen], elements = opened(browser, page, screen)
    return Took(attempts, analysed - begun, made - analysed, page.stat().st_size, elements, paint, loaded)


def results(rows: list[list[Any]], command: str) -> str:
    """Return the page of results."""
    headers = ["capture", "attempts", "analysis, s", "page, s", "page, kB", "elements"]
    headers += [f"{what}, {screen}, s" for screen in SCREENS for what in ("first paint", "loaded")]
    table = tabulate(rows, headers, tablefmt="github", floatfmt=".2f", intfmt=",", disable_numparse=True)
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    return f"""\
# What the page for a browser costs

Measured by `{command}` on {day}: {os.cpu_count()} shared cores, Python {platform.python_version()}, Chromium without a
window, median of {ROUNDS}. The phone's processor is slowed down to a quarter. *Analysis* is what every format needs,
*page* what this one adds. Aims: a page under 2 MB, and first paint within 2 s.

{table}
"""


def main() -> None:
    """Measure and write down."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.htmlreport", description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="of the workloads (default 1)")
    parser.add_argument("--from", type=Path, dest="folder", metavar="DIR", help="where the workloads are already")
    wanted = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        captures: list[tuple[str, Path, Path | None]] = [
            ("key-mismatch-retries", ROOT / "captures/key-mismatch-retries.pcap", ROOT / "captures/keys")
        ]
        for kind, with_keys in WORKLOADS.items():
            folder = (wanted.folder or temporary) / kind
            if not (folder / f"{kind}.pcap").exists():
                make(kind, folder, scale=wanted.scale)
            captures.append((kind, folder / f"{kind}.pcap", folder / "keys" if with_keys else None))
        for kind, capture, keys in captures:
            took = measure(capture, keys, temporary)
            seconds = [f"{value:.2f}" for s in SCREENS for value in (took.paint[s], took.loaded[s])]
            size, elements = f"{took.size / 1000:,.0f}", f"{took.elements:,}"
            rows.append(
                [kind, f"{took.attempts:,}", f"{took.analysis:.1f}", f"{took.page:.1f}", size, elements, *seconds]
            )
            print(*rows[-1], flush=True)
    scale = "" if wanted.scale == 1 else f" --scale {wanted.scale}"
    RESULTS.write_text(results(rows, f"python -m tests.benchmarks.htmlreport{scale}"), encoding="utf-8")


if __name__ == "__main__":
    main()
