"""The plugin in the real Wireshark: every list, every jump and every window says what tshark says."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Final

import pytest
from wireshark import tsharks
from wireshark_gui import FIELDS, LIST_AGAIN, Row, Seen, Step, drive, nothing_wrong, screen, wireshark

CAPTURES: Final = Path("captures")
KEYS: Final = CAPTURES / "keys"
OWN: Final = tsharks()["own"]
KEYED: Final = ("-o", "spark.device_key:keys")
SHOWN: Final = (
    "healthy-full",
    "lossy-link",
    "two-devices-background",
    "key-mismatch-retries",
    "photon-fast-ota",
    "coap-over-tcp",
)
WINDOW_COLUMNS: Final = 72
"""As wide as the window that Wireshark opens, less a scroll bar."""
MESSAGE: Final = FIELDS.index("spark.message")
OPEN_KEYS: Final = 'probe.menus["Spark/Keys"]()'
OPEN_VERDICT: Final = 'probe.menus["Spark/Verdict"]()'
EXPLAIN: Final = 'probe.menus["Spark/Explain this packet (spark)"]'
TO_TOOLS_SPARK: Final = ("Escape", "Escape", "alt+t", "Up", "Right")
"""The last menu under Tools is ours; its first entry is Keys, the second Verdict."""


def answer_keys(device_key: str) -> str:
    """What OK in the key dialog does."""
    return f'probe.dialogs["Spark: keys"][1]({device_key}, "", "")'


def press_button(label: str) -> str:
    """What a click on a button of the last window does."""
    return f'probe.buttons["{label}"]()'


@lru_cache
def listed_by_tshark(name: str, *, keyed: bool) -> list[Row]:
    """What each packet's row holds after two passes."""
    keys = ("-o", "spark.device_key:" + OWN.share(KEYS)) if keyed else ()
    return [tuple(row) for row in OWN.rows(FIELDS, "-2", "-r", OWN.share(CAPTURES / f"{name}.pcap"), *keys)]


def said_by_tshark(name: str) -> str:
    """The verdict that it prints."""
    return OWN.run("-q", "-z", "spark", "-r", OWN.share(CAPTURES / f"{name}.pcap")).stdout


# -- the list --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHOWN)
def test_the_list_is_that_of_tshark_whatever_the_user_does(name: str) -> None:
    steps = (
        LIST_AGAIN,
        Step("filtered", 'set_filter("spark.stage") apply_filter()'),
        Step("unfiltered", 'set_filter("") apply_filter()'),
        Step("read anew", "redissect_packets()"),
        Step("asked for keys", OPEN_KEYS, relists=False),
        Step("keyed", answer_keys('os.getenv("HOME") .. "/keys"')),
        Step("keyed, filtered", 'set_filter("spark.message") apply_filter()'),
        Step("keyed, unfiltered", 'set_filter("") apply_filter()'),
        Step("cleared", answer_keys('""')),
        Step("cleared, listed again", LIST_AGAIN.lua),
    )
    seen = drive(CAPTURES / f"{name}.pcap", steps=steps, files={"keys": KEYS})
    without, keyed = (listed_by_tshark(name, keyed=k) for k in (False, True))
    for step in ("again", "filtered", "unfiltered", "cleared, listed again"):
        assert seen.rows[step] == without, step
    for step in ("keyed, filtered", "keyed, unfiltered"):
        assert seen.rows[step] == keyed, step
    # What is known only at the end of a capture is said when a packet is looked at again, and not before.
    assert seen.rows["loaded"] == seen.rows["read anew"] == seen.rows["cleared"]


def test_the_keys_make_a_difference() -> None:
    opened = {name for name in SHOWN if any(row[MESSAGE] for row in listed_by_tshark(name, keyed=True))}
    assert opened == set(SHOWN) - {"key-mismatch-retries", "coap-over-tcp"}
    assert not any(row[MESSAGE] for name in SHOWN for row in listed_by_tshark(name, keyed=False))


@pytest.mark.parametrize("packet", [8, 18, 60])
def test_a_packet_that_is_opened_first_shows_what_its_row_shows(packet: int) -> None:
    with wireshark(CAPTURES / "healthy-full.pcap", "-g", str(packet), *KEYED, files={"keys": KEYS}) as running:
        running.wait_until(lambda seen: "loaded" in seen.rows and any(row[0] == str(packet) for row in shown(seen)))
        seen = running.settled()
    nothing_wrong(seen)
    assert shown(seen) <= set(listed_by_tshark("healthy-full", keyed=True))


def shown(seen: Seen) -> set[Row]:
    """What packets showed when the capture had been read to its end: while it is read, Wireshark draws what it has."""
    rows, latest, end = set(), 0, len(seen.rows["loaded"])
    for is_first, row in seen.looks:
        latest = int(row[0]) if is_first else latest
        if not is_first and latest == end:
            rows.add(row)
    return rows


# -- the windows -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["key-mismatch-retries", "coap-over-tcp"])
def test_the_verdict_is_the_one_that_tshark_prints(name: str) -> None:
    windows = (
        Step("verdict", OPEN_VERDICT, relists=False),
        Step("a finding", EXPLAIN + '({ name = "spark.finding", value = "SPK206" })', relists=False),
        Step("no finding", EXPLAIN + "()", relists=False),
    )
    seen = drive(CAPTURES / f"{name}.pcap", "-z", "spark", steps=[LIST_AGAIN, *windows])
    assert seen.menus == {"Spark/Verdict", "Spark/Keys", "Spark/Explain this packet (spark)"}
    titles, texts = zip(*seen.windows, strict=True)
    assert titles == ("Spark: verdict",) * 2 + ("Spark: explanation",) * 2
    assert texts[0] == texts[1] == said_by_tshark(name)
    assert texts[2].startswith("SPK206  The device goes silent")
    assert "Do this" in texts[2]
    assert texts[3].startswith("No finding")
    # A line that is longer than the window is wide breaks the tables.
    assert max(map(len, "\n".join(texts).splitlines())) <= WINDOW_COLUMNS


def test_the_buttons_of_the_verdict_filter_copy_and_tell_anew() -> None:
    steps = (
        Step("verdict", OPEN_VERDICT, relists=False),
        Step("filter", press_button("Filter findings")),
        Step("is filtered", 'assert(get_filter() == "spark.finding")', relists=False),
        Step("copy", press_button("Copy"), relists=False),
        Step("asked for keys", OPEN_KEYS, relists=False),
        Step("keyed", answer_keys('os.getenv("HOME") .. "/keys"')),
        Step("refresh", press_button("Refresh"), relists=False),
    )
    seen = drive(CAPTURES / "healthy-full.pcap", steps=steps, files={"keys": KEYS})
    ((title, text),) = seen.windows
    assert title == "Spark: verdict"
    assert "private device key" in text  # which the window could not know when it was opened


# -- with keys and eyes ----------------------------------------------------------------------------------------


def test_jumps_and_reloads_change_nothing() -> None:
    rows = listed_by_tshark("healthy-full", keyed=True)
    with (
        screen() as display,
        wireshark(CAPTURES / "healthy-full.pcap", *KEYED, files={"keys": KEYS}, display=display.name) as running,
    ):

        def looked_at(packet: str, act: Callable[[], None]) -> None:
            count = len(running.settled().looks)
            running.wait_until(lambda seen: any(row[0] == packet for _, row in seen.looks[count:]), act)

        def reloaded(keys: str) -> None:
            inits = running.settled().inits
            running.wait_until(lambda seen: seen.inits > inits, lambda: display.press(keys))

        def go_to(packet: str) -> None:
            def act() -> None:
                display.press("Escape", "ctrl+g")
                display.type(packet)
                display.press("Return")

            looked_at(packet, act)

        display.focus("^healthy-full")
        running.wait_until(lambda seen: "loaded" in seen.rows)
        go_to("131")
        go_to("9")
        go_to("60")
        looked_at("61", lambda: display.press("ctrl+Down"))
        looked_at("60", lambda: display.press("ctrl+Up"))
        reloaded("ctrl+r")
        reloaded("ctrl+shift+l")
        go_to("60")
        seen = running.settled()
    nothing_wrong(seen)
    assert shown(seen) <= set(rows)
    assert {"9", "60", "61", "131"} <= {row[0] for row in shown(seen)}
    first = [row for is_first, row in seen.looks if is_first]
    assert first[: len(rows)] == first[-len(rows) :]


def test_the_menus_open_their_windows_and_the_dialog_opens_the_messages() -> None:
    with (
        screen() as display,
        wireshark(CAPTURES / "healthy-full.pcap", files={"keys": KEYS}, display=display.name) as running,
    ):

        def choose(entry: str) -> Callable[[], None]:
            def act() -> None:
                display.focus("^healthy-full")
                display.press(*TO_TOOLS_SPARK, *({"Keys": (), "Verdict": ("Down",)}[entry]), "Return")

            return act

        def give_a_key() -> None:
            display.focus("Spark: keys")
            display.press("Tab", "Tab")
            display.type("keys/core-a.der")
            display.press("Return")

        display.focus("^healthy-full")
        running.wait_until(lambda seen: "loaded" in seen.rows)
        assert not any(row[MESSAGE] for _, row in running.settled().looks)
        running.wait_until(lambda _: "Wireshark · Spark: keys" in display.windows(), choose("Keys"))
        running.wait_until(lambda seen: any(row[MESSAGE] for _, row in seen.looks), give_a_key)
        running.settled()
        running.wait_until(lambda _: "Wireshark · Spark: verdict" in display.windows(), choose("Verdict"))
        seen = running.settled()
        assert display.windows() == ["healthy-full.pcap", "Wireshark · Spark: verdict"]  # and no box with an error
    nothing_wrong(seen)
    opened = {row for row in shown(seen) if row[MESSAGE]}
    assert opened
    assert opened <= set(listed_by_tshark("healthy-full", keyed=True))


def test_a_window_that_was_closed_is_left_alone() -> None:
    with (
        screen() as display,
        wireshark(CAPTURES / "healthy-full.pcap", "-z", "spark", display=display.name) as running,
    ):
        display.focus("Spark: verdict")
        running.settled()
        running.wait_until(lambda _: display.windows() == ["healthy-full.pcap"], lambda: display.press("Escape"))
        display.focus("^healthy-full")
        inits = running.settled().inits
        running.wait_until(lambda seen: seen.inits > inits, lambda: display.press("ctrl+r"))
        nothing_wrong(running.settled())
