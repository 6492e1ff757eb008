"""The page in a real browser: Chromium, without a window, at the sizes of a phone and of a desk."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from pages import Opened, chromium, page_on
from screens import CAPTURES, story

if TYPE_CHECKING:
    from playwright.sync_api import Browser

KEYS = CAPTURES / "keys"
PHONE: Final = (360, 640)
CONTRAST: Final = """() => {
  const channel = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const [r, g, b, a] = parse(getComputedStyle(e).backgroundColor);
      if (a === undefined || a > 0) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest("script, title, desc")) continue;
    const style = getComputedStyle(element);
    const fore = parse(element.ownerSVGElement ? style.fill : style.color);
    const [one, other] = [light(fore), light(behind(element))];
    found.push([(Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), walker.currentNode.data.trim()]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pages of some captures and stories."""
    folder = tmp_path_factory.mktemp("pages")
    for name in ("key-mismatch-retries", "two-devices-background", "ota-complete", "healthy-full"):
        (folder / f"{name}.html").write_text(page_on(CAPTURES / f"{name}.pcap", keys=KEYS), encoding="utf-8")
    for name in ("retries", "port-blocked", "no-spark"):
        (folder / f"{name}.html").write_text(page_on(story(name, folder)), encoding="utf-8")
    (folder / "seed.html").write_text(page_on(CAPTURES / "key-mismatch-retries.pcap"), encoding="utf-8")
    return folder


ALL: Final = (
    *("key-mismatch-retries", "two-devices-background", "ota-complete", "healthy-full"),
    *("retries", "port-blocked", "no-spark", "seed"),
)


@pytest.mark.parametrize("name", ALL)
def test_the_console_stays_silent_nothing_is_asked_for_and_all_fits(browser: Browser, pages: Path, name: str) -> None:
    path = pages / f"{name}.html"
    opened = Opened(browser, path)
    opened.page.click("#open-all")
    for width, height in (PHONE, (1000, 800)):
        opened.page.set_viewport_size({"width": width, "height": height})
        assert opened.ask("document.documentElement.scrollWidth") <= width
        drawn = opened.ask(
            "[...document.querySelectorAll('svg')].filter(e => e.checkVisibility()).map(e => e.classList[0])"
        )
        assert set(drawn) <= {"narrow" if (width, height) == PHONE else "wide"}
    assert opened.said == []
    assert opened.asked == [path.as_uri()]
    opened.context.close()


def test_four_hundred_per_cent_leave_nothing_out(browser: Browser, pages: Path) -> None:
    opened = Opened(browser, pages / "two-devices-background.html", (320, 256), device_scale_factor=4)
    assert opened.ask("document.documentElement.scrollWidth") <= 320
    opened.context.close()


@pytest.mark.parametrize("name", ["seed", "key-mismatch-retries", "two-devices-background", "healthy-full"])
def test_the_verdict_stands_on_a_phone_without_scrolling(browser: Browser, pages: Path, name: str) -> None:
    opened = Opened(browser, pages / f"{name}.html", PHONE)
    places = ["h1 .badge", ".sentence", ".sure"]
    if name != "healthy-full":
        places += ["#do", ".do .command"]
    for place in places:
        box = opened.page.locator(place).first.bounding_box()
        assert box is not None
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= PHONE[1], place
    opened.context.close()


def test_messages_are_searched_and_filtered(browser: Browser, pages: Path) -> None:
    opened = Opened(browser, pages / "healthy-full.html")
    page = opened.page
    page.click("#messages > summary")
    rows = "#message-table tbody tr"
    assert len(opened.texts(rows)) == 67
    page.fill("#find", "TEMP event")
    some = opened.texts(rows)
    assert 0 < len(some) < 67
    assert all("temp" in row and "Event" in row for row in some)
    assert page.inner_text("#matches") == f"{len(some)} of 67 rows"
    page.fill("#find", "")
    page.select_option("#which", "Subscribe")
    page.select_option("#from", "device")
    chosen = opened.texts(rows)
    assert chosen
    assert all("Subscribe" in row and "device" in row for row in chosen)
    page.select_option("#from", "server")
    assert opened.texts(rows) == []
    assert page.inner_text("#matches") == "0 of 67 rows"
    opened.context.close()


def test_what_is_copied_is_the_command_and_the_post(browser: Browser, pages: Path) -> None:
    opened = Opened(browser, pages / "seed.html", permissions=["clipboard-read", "clipboard-write"])
    opened.page.click(".do .command button")
    assert opened.ask("navigator.clipboard.readText()") == "particle keys doctor DEVICE_ID"
    opened.page.click("#copy-post")
    opened.page.locator("#copy-post", has_text="Copied").wait_for()
    post = opened.ask("navigator.clipboard.readText()")
    assert post.startswith("**Not connecting: ")
    assert "| 8 | 59 ms | server | 384 |" in post
    assert "192.168." not in post
    assert opened.page.inner_text("#told") == "Copied."
    opened.context.close()


def test_a_link_opens_what_it_leads_to(browser: Browser, pages: Path) -> None:
    opened = Opened(browser, pages / "key-mismatch-retries.html")
    finding = opened.page.locator("#SPK301 > dl")
    assert not finding.is_visible()
    opened.page.click(".facts a")
    finding.wait_for(state="visible")
    opened.context.close()


@pytest.mark.parametrize("name", ["key-mismatch-retries", "healthy-full"])
def test_the_keyboard_reaches_everything_and_shows_where_it_is(browser: Browser, pages: Path, name: str) -> None:
    opened = Opened(browser, pages / f"{name}.html")
    page = opened.page
    page.click("#open-all")
    opened.ask("document.activeElement.blur()")
    wanted = opened.ask(
        "[...document.querySelectorAll('a[href], button, summary, input, select, [tabindex=\"0\"]')]"
        ".filter(e => e.checkVisibility()).map((e, i) => (e.dataset.place = i))"
    )
    reached: set[int] = set()
    for _ in range(len(wanted) + 40):
        page.keyboard.press("Tab")
        place, outline = opened.ask(
            "() => (e => [e.dataset.place ?? null, getComputedStyle(e).outlineStyle])(document.activeElement)"
        )
        if place is not None:
            reached.add(int(place))
            assert outline != "none"
    assert reached == set(wanted)
    opened.context.close()


def test_enter_opens_and_closes(browser: Browser, pages: Path) -> None:
    opened = Opened(browser, pages / "key-mismatch-retries.html")
    opened.page.locator("details > summary").last.focus()
    opened.page.keyboard.press("Enter")
    assert opened.page.locator("#post").is_visible()
    opened.page.keyboard.press("Enter")
    assert not opened.page.locator("#post").is_visible()
    opened.context.close()


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_paper_shows_what_is_folded_and_leaves_out_what_can_be_pressed(
    browser: Browser, pages: Path, *, script: bool
) -> None:
    opened = Opened(browser, pages / "key-mismatch-retries.html", java_script_enabled=script)
    opened.page.emulate_media(media="print", color_scheme="dark")
    for place in ("#post", "#SPK301 > dl", "#SPK401 > dl", "details.attempt .ladder svg.wide"):
        box = opened.page.locator(place).first.bounding_box()
        assert box is not None, place
        assert box["height"] > 20, place
    for place in (".tools", ".command button", "svg.narrow"):
        assert not opened.page.locator(place).first.is_visible()
    assert opened.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert opened.ask("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert opened.page.pdf().count(b"/Type /Page\n") >= 3
    opened.context.close()


def test_without_script_all_is_there_and_nothing_that_would_need_it(browser: Browser, pages: Path) -> None:
    opened = Opened(browser, pages / "healthy-full.html", java_script_enabled=False)
    assert not opened.page.locator("#open-all").is_visible()
    opened.page.click("#messages > summary")
    assert len(opened.texts("#message-table tbody tr")) == 67
    assert not opened.page.locator("#filter").is_visible()
    assert opened.said == []
    opened.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["key-mismatch-retries", "two-devices-background", "healthy-full"])
def test_every_text_has_contrast_enough(browser: Browser, pages: Path, name: str, scheme: Any) -> None:
    opened = Opened(browser, pages / f"{name}.html", color_scheme=scheme)
    opened.page.click("#open-all")
    found = opened.ask(CONTRAST)
    assert len(found) > 100
    assert [(round(ratio, 2), text) for ratio, text in found if ratio < 4.5] == []
    dark = opened.ask("getComputedStyle(document.body).backgroundColor")
    assert dark == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 26)"}[scheme]
    opened.context.close()


@pytest.mark.parametrize("name", ["key-mismatch-retries", "ota-complete"])
def test_headings_go_down_one_by_one_and_every_picture_has_words(browser: Browser, pages: Path, name: str) -> None:
    opened = Opened(browser, pages / f"{name}.html")
    levels = opened.ask("[...document.querySelectorAll('h1, h2, h3, h4')].map(e => Number(e.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    words = opened.ask(
        "[...document.querySelectorAll('svg')].map(e => ['aria-labelledby', 'aria-describedby']"
        ".map(name => document.getElementById(e.getAttribute(name)).textContent.trim().length))"
    )
    assert words
    assert all(min(lengths) > 5 for lengths in words)
    opened.context.close()
