"""What the tests of the page for a browser share: pages made, read with an HTML parser, and opened in Chromium."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.etree.ElementTree import Element

import html5lib

from analyzer.keys import KeyRing
from analyzer.pipeline import analyze
from analyzer.report.html import html_report
from analyzer.report.redact import Redactor
from analyzer.trace import Trace

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SVG: Final = "{http://www.w3.org/2000/svg}"
FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CHECKER: Final = Path(sys.prefix) / "htmlcheck" / "node_modules" / "html-validate" / "bin" / "html-validate.mjs"


def page_of(trace: Trace, name: str = "capture.pcap", *, redact: bool = False) -> str:
    """Return the page on a trace."""
    return "".join(html_report(trace, name, Redactor(trace) if redact else None))


def page_on(path: Path, *, keys: Path | None = None, redact: bool = False) -> str:
    """Return the page on a capture."""
    trace = analyze(str(path), keys=None if keys is None else KeyRing.load(keys))
    return page_of(trace, path.name, redact=redact)


def parsed(page: str) -> Element:
    """Read a page as a browser does; the first error of syntax raises."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page)  # type: ignore[no-any-return]


def text_of(element: Element) -> str:
    """All text inside an element."""
    return "".join(element.itertext())


def by_class(root: Element, name: str) -> list[Element]:
    """The elements that have a class."""
    return [e for e in root.iter() if isinstance(e.tag, str) and name in e.get("class", "").split()]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium without a window; it ends with the block."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - slow to import

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Opened:
    """A page opened in Chromium, with what its console said and what it asked for."""

    def __init__(
        self,
        browser: Browser,
        path: Path,
        size: tuple[int, int] = (1000, 800),
        **options: Any,
    ) -> None:
        viewport: Any = {"width": size[0], "height": size[1]}
        self.context = browser.new_context(viewport=viewport, **options)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def ask(self, script: str, *arguments: object) -> Any:
        """Return what a script finds out in the page."""
        return self.page.evaluate(script, *arguments)

    def texts(self, selector: str) -> Sequence[str]:
        """The texts of the elements that can be seen."""
        return [e.inner_text() for e in self.page.query_selector_all(selector) if e.is_visible()]
