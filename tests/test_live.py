"""Analysis while packets arrive: what is told when, and that the whole capture bears it out."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import re
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import BAD, NAMES, alarms, captured, shipped, simulate, verdict
from populations import capture, story
from true_findings import TRUE

from analyzer import KeyRing, analyze
from analyzer.capture import Capture, Packet
from analyzer.capture.ledger import LATEST_NS
from analyzer.cells import cells
from analyzer.findings import Confidence
from analyzer.live import Event, Watcher
from analyzer.live.clock import LAG_NS, PacketClock
from analyzer.live.event import Kind
from analyzer.live.interface import Interface, packet_filter
from analyzer.live.lines import TextLines, text_of_day
from analyzer.live.output import Output
from analyzer.live.ring import Ring, RingError
from analyzer.live.screen import Screen, status_block
from analyzer.live.watcher import SETTLE_NS, DeviceNow
from analyzer.pipeline import Analysis
from analyzer.report.redact import Redactor
from analyzer.report.style import Style
from analyzer.report.text import text_report
from analyzer.trace import Trace

NS = 1_000_000_000
KEYS = Path(__file__).parent.parent / "captures" / "keys"


def watched(packets: Sequence[Packet], *, keys: KeyRing | None = None, messages: bool = False) -> list[Event]:
    """All events of packets that come in time."""
    return followed(packets, keys=keys, messages=messages)[0]


def followed(
    packets: Sequence[Packet], *, keys: KeyRing | None = None, messages: bool = False
) -> tuple[list[Event], Trace]:
    """The same, and the verdict at the end."""
    events: list[Event] = []
    watcher = Watcher(events.append, keys=keys, messages=messages)
    for packet in packets:
        watcher.take(packet)
    return events, watcher.finish()


def played(name: str) -> list[Packet]:
    """The packets of a story."""
    told = simulate(name, attempts=5 if name == "retries" else None)
    return captured(told.packets, told.link_type)


def told(events: Sequence[Event], *kinds: Kind) -> list[tuple[Kind, str | None]]:
    """Kind and code of the findings told, in order."""
    wanted = kinds or (Kind.VERDICT, Kind.RAISED, Kind.WITHDRAWN)
    return [(event.kind, event.code) for event in events if event.kind in wanted]


def grave(events: Sequence[Event]) -> set[str]:
    """Codes of the faults that were told."""
    return {
        event.code
        for event in events
        if event.code and event.severity in BAD and event.kind in (Kind.VERDICT, Kind.RAISED)
    }


# -- what is told, of every story -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(TRUE))
def test_of_every_story_only_what_is_true_is_told_and_nothing_is_left_out(name: str) -> None:
    packets = played(name)
    events, trace = followed(packets)
    whole = verdict(packets)
    assert grave(events) <= TRUE[name].bare
    assert alarms(whole) <= grave(events)
    assert text_report(trace, "capture") == text_report(whole, "capture")


@pytest.mark.parametrize("name", NAMES)
def test_the_last_word_is_what_analyze_says_of_every_shipped_capture(name: str) -> None:
    packets = shipped(name)
    events, trace = followed(packets)
    assert text_report(trace, "capture") == text_report(verdict(packets), "capture")
    assert alarms(trace) <= grave(events)


def test_random_captures_of_random_networks_lead_to_hardly_a_word_that_is_taken_back() -> None:
    """What still stands at the end is in the report; and of what was told, hardly anything is withdrawn."""
    said = withdrawn = 0
    names = [name for name in sorted(TRUE) if name != "retries"]
    for name in names[::3]:
        chance = random.Random(f"watch/{name}")
        simulated = story(chance, name)
        if simulated is None:
            continue
        packets = captured(capture(chance, simulated.packets)[0], simulated.link_type)
        events, trace = followed(packets)
        standing = set()
        for event in events:
            if event.kind in (Kind.VERDICT, Kind.RAISED) and event.severity in BAD:
                standing.add((event.conversation, event.code))
                said += event.kind is Kind.VERDICT
            elif event.kind is Kind.WITHDRAWN:
                standing.discard((event.conversation, event.code))
                withdrawn += 1
                # What was certain stays.
                assert event.confidence is not Confidence.CERTAIN
        assert standing <= {(n, f.code) for f in trace.findings if f.severity in BAD for n in f.conversations}
    assert said > 15
    assert withdrawn <= said / 20 + 2  # two stories are about something that comes late


@pytest.mark.parametrize("name", ["key-mismatch", "port-blocked", "no-nonce", "keepalive-lost", "device-silent"])
def test_a_verdict_is_told_no_later_than_by_somebody_who_looks_all_the_time(name: str) -> None:
    packets = played(name)
    first = {e.code: e.time_ns for e in reversed(watched(packets)) if e.kind is Kind.VERDICT and e.severity in BAD}
    events: list[Event] = []
    watcher = Watcher(events.append)
    seen: dict[str, int] = {}
    step, now = NS // 10, packets[0].time_ns
    for packet in packets:
        while (now := now + step) < packet.time_ns:
            view, _ = watcher.analysis.so_far(map(watcher.analysis.as_if_ended, watcher.trace.conversations), now)
            for finding in view.findings:
                if finding.severity in BAD:
                    seen.setdefault(finding.code, now)
        now = packet.time_ns
        watcher.take(packet)
    for code, time_ns in seen.items():
        if code in first:
            assert first[code] <= time_ns + step + NS, code  # a ping has its 10 s, of which 9.5 are enough for an end


# -- the wall clock -------------------------------------------------------------------------------------------------


def test_a_silence_is_told_when_its_time_is_out_although_nothing_comes() -> None:
    packets = shipped("key-mismatch-retries")[:9]  # up to the reply, and what confirms it
    events: list[Event] = []
    watcher = Watcher(events.append)
    for packet in packets:
        watcher.take(packet)
    replied = packets[7].time_ns
    watcher.advance(replied + 4_900_000_000)
    assert told(events) == []
    assert watcher.due_ns is not None
    assert replied + 5 * NS <= watcher.due_ns <= replied + 5 * NS + NS // 2
    watcher.advance(replied + 5_500_000_000)
    assert told(events) == [(Kind.VERDICT, "SPK206")]
    assert next(event.confidence for event in events if event.code == "SPK206") is Confidence.LIKELY
    watcher.advance(replied + 21 * NS)
    assert told(events)[1:] == [(Kind.RAISED, "SPK206")]
    # The packets alone show less: what was told by the clock stays told.
    whole = Analysis()
    for packet in packets:
        whole.take(packet)
    assert "SPK206" not in {finding.code for finding in whole.finish().findings}
    assert next(f.confidence for f in watcher.finish().findings if f.code == "SPK206") is Confidence.STRONG
    assert watcher.silent_ns is not None
    assert watcher.silent_ns >= 21 * NS - (packets[-1].time_ns - replied)


def test_what_comes_late_takes_back_what_was_said() -> None:
    packets = played("http-late")
    order = told(watched(packets))
    assert order[:3] == [(Kind.VERDICT, "SPK104"), (Kind.VERDICT, "SPK103"), (Kind.WITHDRAWN, "SPK104")]


def test_a_ping_has_all_its_time() -> None:
    packets = played("keepalive-lost")
    ping = next(event for event in watched(packets) if event.code == "SPK503")
    conversation = verdict(packets).conversations[0]
    sent = conversation.watch.unanswered
    assert sent is not None
    assert ping.time_ns >= sent.time_ns + 10 * NS or conversation.closings[0].time_ns <= ping.time_ns


def test_the_steps_come_as_they_happen() -> None:
    events: list[Event] = []
    watcher = Watcher(events.append)
    for packet in shipped("healthy-full")[:60]:
        watcher.take(packet)
    steps = [step for event in events if event.kind is Kind.STEP for step in event.steps]
    assert steps == ["connect", "connected", "nonce", "identity", "session", "hello", "established"]
    assert [event.state for event in events if event.kind is Kind.STATE] == ["WORKING"]
    first = events[0]
    assert first.text.startswith("attempt 1: connecting to 54.208.229.4, connected, greeting, who I am, reply")
    assert first.packets == (1, 9)


def test_an_attempt_that_has_begun_does_not_make_the_device_work() -> None:
    states = [event.state for event in watched(played("old-session-key")) if event.kind is Kind.STATE]
    assert states == ["WORKING", "NOT CONNECTING"]  # although the verdict is withdrawn once


def test_keys_tell_what_they_prove_while_it_happens_and_what_is_said() -> None:
    keys = KeyRing.load(str(KEYS))
    packets = shipped("key-mismatch-retries")
    assert (Kind.VERDICT, "SPK301") in told(watched(packets[:30], keys=keys))
    messages = watched(shipped("healthy-full"), keys=keys, messages=True)
    names = [event.text for event in messages if event.kind is Kind.MESSAGE]
    assert names[:3] == ["Hello", "Hello", "Subscribe"]
    assert len(names) == len(analyze(KEYS.parent / "healthy-full.pcap", keys=keys).conversations[0].messages)
    assert [event.kind for event in messages].index(Kind.STEP) < [e.kind for e in messages].index(Kind.MESSAGE)


def test_looking_changes_nothing_of_what_is_found_with_keys() -> None:
    keys = KeyRing.load(str(KEYS))
    for name in ("key-mismatch-retries", "healthy-full", "bad-signature", "lossy-link"):
        trace = followed(shipped(name), keys=keys)[1]
        whole = analyze(KEYS.parent / f"{name}.pcap", keys=keys)
        assert text_report(trace, name) == text_report(whole, name)
        said = [[(m.packet, m.name, m.plaintext) for m in c.messages] for c in trace.conversations]
        assert said == [[(m.packet, m.name, m.plaintext) for m in c.messages] for c in whole.conversations]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_bytes_that_make_no_sense_do_no_harm(data: st.DataObject) -> None:
    packets = []
    for packet in shipped("key-mismatch-retries")[:30]:
        spoilt = bytearray(packet.data)
        for _ in range(data.draw(st.integers(0, 2))):
            spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))
        shift = data.draw(st.sampled_from((0, 0, 0, NS, -NS, 10**15)))
        packets.append(Packet(packet.number, packet.time_ns + shift, 1, bytes(spoilt), packet.original_length))
    events, trace = followed(packets)
    assert trace.packets == len(packets)
    lines = TextLines(Style(), states=True)
    assert all(line.isprintable() and len(line) <= 80 for event in events for line in lines(event))


# -- bounds ---------------------------------------------------------------------------------------------------------


def test_the_oldest_connections_give_way_and_it_is_said() -> None:
    simulated = simulate("retries", attempts=100)
    events: list[Event] = []
    watcher = Watcher(events.append, kept=20)
    first = simulated.packets[0].time_ns
    for packet in captured(simulated.packets, simulated.link_type):
        packet.time_ns = first + 8 * (packet.time_ns - first)  # a patient device
        watcher.take(packet)
        old = [c for c in watcher.trace.conversations if packet.time_ns - c.end_ns > 600 * NS]
        assert len(old) <= 20 + 1  # the others had a packet in the last ten minutes
    assert [event.kind for event in events].count(Kind.NOTICE) == 1
    trace = watcher.finish()
    assert watcher.forgotten == 100 - len(trace.conversations) > 10
    (warning,) = watcher.warnings
    assert f"the first {watcher.forgotten} connections" in warning
    assert trace.findings[0].code == "SPK204"
    assert [c.number for c in trace.conversations] == list(range(1, len(trace.conversations) + 1))
    assert sum("attempt" in event.text for event in events if event.kind is Kind.STEP) == 100


def test_messages_have_a_bound() -> None:
    keys = KeyRing.load(str(KEYS))
    events: list[Event] = []
    watcher = Watcher(events.append, keys=keys, messages_kept=30)
    for packet in shipped("healthy-full"):
        watcher.take(packet)
    trace = watcher.finish()
    assert any(event.kind is Kind.NOTICE for event in events)
    assert list(trace.conversations[0].messages) == []
    assert "SPK001" in {finding.code for finding in trace.findings}


# -- the clock ------------------------------------------------------------------------------------------------------


def test_the_clock_is_that_of_the_packets_and_goes_on_between_them() -> None:
    passed = [0]
    clock = PacketClock(monotonic=lambda: passed[0])
    assert clock.now is None
    clock.see(1000 * NS)
    passed[0] = 2 * NS
    assert clock.now == 1002 * NS - LAG_NS
    clock.see(999 * NS)  # late
    assert clock.now == 1002 * NS - LAG_NS
    clock.see(5000 * NS)
    assert clock.now == 5000 * NS
    assert PacketClock(7, monotonic=lambda: 0).now == 7


# -- keeping the packets --------------------------------------------------------------------------------------------


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.pcapng"))


def test_a_ring_holds_the_packets_as_they_came(tmp_path: Path) -> None:
    packets = shipped("healthy-full")
    ring = Ring(str(tmp_path / "ring"), size=10_000, files=100)
    for packet in packets:
        ring.take(packet, 6)
        last = kept(tmp_path / "ring")[-1]
        assert analyze(last).packets  # readable at any time, as if the process had been killed
    ring.close()
    files = kept(tmp_path / "ring")
    assert len(files) > 1
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 and file.stat().st_size <= 10_000 for file in files)
    again = analyze(tmp_path / "ring")
    assert not again.warnings
    assert again.time_digits == 6
    assert text_report(again, "x") == text_report(verdict(packets), "x")


def test_a_ring_deletes_its_own_files_alone_and_goes_on_counting(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    strange = tmp_path / "sparkshark_00007_20200101000000.pcapng"
    strange.write_bytes(b"an earlier ring's")
    ring = Ring(str(tmp_path), size=2_000, files=2)
    for packet in shipped("healthy-full"):
        ring.take(packet, 9)
    ring.close()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert strange.read_bytes() == b"an earlier ring's"
    own = [path for path in kept(tmp_path) if path != strange]
    assert len(own) == 2
    assert int(own[0].name.split("_")[1]) > 10
    trace = analyze(own)
    assert not trace.warnings
    assert trace.packets < len(shipped("healthy-full"))


@pytest.mark.parametrize("digits", [6, 9])
def test_a_ring_takes_the_times_of_a_damaged_clock(digits: int, tmp_path: Path) -> None:
    ring = Ring(str(tmp_path))
    for number, time_ns in enumerate((0, 1_700_000_000_000_000_000, LATEST_NS), 1):
        ring.take(Packet(number, time_ns, 1, bytes(60), 60), digits)
    ring.close()
    kept = [packet.time_ns for packet in Capture([tmp_path])]
    assert kept[:2] == [0, 1_700_000_000_000_000_000]
    assert kept[2] == (LATEST_NS if digits == 9 else LATEST_NS // 1000 * 1000)


def test_a_ring_keeps_packets_of_several_kinds_of_links_and_those_that_were_cut(tmp_path: Path) -> None:
    packets = [
        Packet(1, 5 * NS + 7, 1, b"abc", 60),
        Packet(2, 6 * NS, 101, b"", 0),
        Packet(3, 7 * NS, 1, bytes(70), 70, 1),
    ]
    ring = Ring(str(tmp_path))
    for packet in packets:
        ring.take(packet, 9)
    ring.close()
    again = list(Capture([str(tmp_path)]))
    assert [(p.time_ns, p.link_type, p.data, p.original_length) for p in again] == [
        (p.time_ns, p.link_type, p.data, p.original_length) for p in packets
    ]


def test_a_folder_that_cannot_be_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RingError, match=r"packets cannot be kept here \(file exists\)"):
        Ring(str(tmp_path / "file"))


def test_a_disk_that_fills_up_is_told_once_and_tried_again_later(tmp_path: Path) -> None:
    said: list[str] = []
    ring = Ring(str(tmp_path / "ring"), trouble=said.append)
    packets = shipped("healthy-full")
    ring.take(packets[0], 6)
    (tmp_path / "ring").rename(tmp_path / "away")  # as a disk that is unplugged
    ring.close()
    for packet in packets[1:5]:
        ring.take(packet, 6)
    assert len(said) == 1
    assert "watching goes on" in said[0]
    (tmp_path / "away").rename(tmp_path / "ring")
    late = packets[5]
    ring.take(Packet(6, late.time_ns + 61 * NS, 1, late.data, late.original_length), 6)
    ring.close()
    assert len(said) == 1
    assert len(kept(tmp_path / "ring")) == 2


# -- what is shown --------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """Acts on what the block needs: text, new lines, the cursor up, and the rest of the screen cleared."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = [""]

    def write(self, text: str) -> int:
        place = 0
        while place < len(text):
            if text.startswith("\x1b[", place):
                end = place + 2
                while not text[end].isalpha():
                    end += 1
                if text[end] == "A":
                    self.row -= int(text[place + 2 : end])
                elif text[end] == "J":
                    del self.lines[self.row + 1 :]
                    self.lines[self.row] = ""
                else:
                    assert text[end] == "m"
                place = end + 1
            elif text[place] == "\n":
                self.row += 1
                if self.row == len(self.lines):
                    self.lines.append("")
                place += 1
            elif text[place] == "\r":
                place += 1
            else:
                self.lines[self.row] += text[place]
                place += 1
        return len(text)

    row = 0


def test_the_block_stays_at_the_bottom_and_events_scroll_above_it() -> None:
    terminal = Terminal()
    screen = Screen(terminal, Style(colour=True), shorten=lambda text: text, clock=lambda: 0.0)
    screen.write(["one"], [("block 1", None)])
    screen.write(["two", "three"], [("block 2", None), ("device " * 30, None)])
    assert terminal.lines[:4] == ["one", "two", "three", "block 2"]
    assert len(terminal.lines[4]) == 79
    screen.wipe()
    assert terminal.lines == ["one", "two", "three", ""]


def test_the_block_tells_how_things_stand_the_worst_first() -> None:
    events: list[Event] = []
    watcher = Watcher(events.append)
    packets = shipped("two-devices-background")
    for packet in packets:
        watcher.take(packet)
    last = packets[-1].time_ns
    watcher.advance(last + 20 * NS)
    lines = status_block(
        watcher.devices.values(), packets=332, spark=91, now_ns=last + 20 * NS, begun_ns=packets[0].time_ns, rows=24
    )
    texts = [text for text, _ in lines]
    assert texts[0] == "── 27.3 s · 332 packets, 91 of them Spark · Ctrl-C: the verdict ──"
    assert texts[1].startswith("✕ 192.168.1.104  NOT CONNECTING  3 attempts · last: reply · SPK206 · quiet 21 s")
    assert texts[2].startswith("✓ 192.168.1.105  WORKING         1 attempt · last: logged in · quiet 20 s")


def test_many_devices_have_their_worst_shown_and_the_rest_counted() -> None:
    events: list[Event] = []
    watcher = Watcher(events.append)
    for number in range(50):
        watcher.devices[bytes([10, 0, 0, number])] = DeviceNow(f"10.0.0.{number}")
    lines = status_block(watcher.devices.values(), packets=1, spark=1, now_ns=0, begun_ns=0, rows=24)
    assert len(lines) == 9
    assert lines[-1][0] == "  and 43 devices more"


def test_lines_are_80_columns_of_ascii_or_more_and_name_the_device_once() -> None:
    for unicode in (True, False):
        lines = TextLines(Style(unicode=unicode), states=True)
        shown = [line for event in watched(shipped("key-mismatch-retries")) for line in lines(event)]
        assert all(len(line) <= 80 + 4 * (not unicode) for line in shown)
        assert all(line.isascii() for line in shown) or unicode
        assert sum("192.168.1.104" in line for line in shown) == 3  # once for each attempt
        assert shown[0].startswith("03:08:23.3  192.168.1.104  attempt 1: connecting to 54.208.229.4")


@pytest.mark.parametrize("width", [40, 57, 69, 70, 80, 120])
def test_lines_fit_every_width(width: int) -> None:
    lines = TextLines(Style(width=width), states=True)
    for name in ("key-mismatch-retries", "lossy-link", "ota-server-gives-up", "two-devices-background"):
        shown = [line for event in watched(shipped(name)) for line in lines(event)]
        assert [line for line in shown if cells(line) > width or line != line.rstrip()] == []
        assert shown


def test_redacted_lines_have_no_address_and_the_letters_of_the_report() -> None:
    events: list[Event] = []
    watcher = Watcher(events.append)
    redactor = Redactor(watcher.trace)
    watcher.met = redactor.meet
    lines = TextLines(Style(), states=True, shorten=redactor)
    shown: list[str] = []
    for packet in shipped("two-devices-background"):
        watcher.take(packet)
        shown += [line for event in events for line in lines(event)]
        events.clear()
    text = "\n".join(shown)
    assert "192.168" not in text
    trace = watcher.finish()
    report = Redactor(trace).text(text_report(trace, "x"))
    (failing,) = {line[2:10] for line in report.splitlines() if line[12:].strip().startswith("NOT CONNECTING")}
    assert failing in next(line for line in shown if "attempt 3" in line)


def test_the_kernel_lets_through_what_the_verdict_needs() -> None:
    text = packet_filter([5683, 9000])
    for part in ("tcp port 5683", "tcp port 9000", "udp port 53", "udp port 67", "udp port 68", "arp", "icmp6"):
        assert f"({part})" in text


def test_a_look_is_a_moment_after_the_packet_that_it_is_about() -> None:
    packets = shipped("key-mismatch-retries")
    events: list[Event] = []
    watcher = Watcher(events.append)
    watcher.take(packets[0])
    assert watcher.due_ns == packets[0].time_ns + SETTLE_NS
    assert events == []


def said(event: Event, *, colour: bool = False, form: str = "text") -> str:
    stream = io.StringIO()
    Output(stream, Style(colour=colour), form=form).tell(event)
    return stream.getvalue()


def test_what_is_lost_on_the_way_is_told_beside_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    lost = Event(Kind.NOTICE, 5 * NS, "eth0 has gone\x1b[2J.")
    assert said(lost) == ""
    assert capsys.readouterr().err == "sparkshark: warning: eth0 has gone\\x1b[2J.\n"
    told = {"kind": "notice", "time": 5.0, "text": "eth0 has gone\x1b[2J."}
    assert json.loads(said(lost, form="jsonl")) == told
    for form in ("text", "jsonl"):
        stream = io.StringIO()
        output = Output(stream, Style(), form=form)
        output.notice("eth0 has gone.")
        output.refresh(None)
        assert "eth0 has gone." in stream.getvalue() + capsys.readouterr().err


def test_lines_have_colour_where_it_is_wanted() -> None:
    plain = TextLines(Style(), states=True)
    coloured = TextLines(Style(colour=True), states=True)
    seen = set()
    for event in watched(shipped("key-mismatch-retries")):
        bright = coloured(event)
        assert re.sub(r"\x1b\[\d+m", "", "\n".join(bright)) == "\n".join(plain(event))
        seen |= {event.kind for line in bright if "\x1b[" in line}
    assert Kind.STATE in seen
    assert len(seen) > 1


def test_a_clock_beyond_all_calendars_stops_nothing(tmp_path: Path) -> None:
    assert text_of_day(1 << 62) == "23:53:38.4"
    assert text_of_day(10**30) == "--:--:--.-"
    first = shipped("healthy-full")[0]
    ring = Ring(str(tmp_path / "ring"))
    ring.take(Packet(1, 10**18 * 300, 1, first.data, first.original_length), 6)
    ring.close()
    assert [path.name for path in kept(tmp_path / "ring")] == ["sparkshark_00001_00000000000000.pcapng"]


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (errno.ENETDOWN, "eth9: this interface is down. Try: sudo ip link set eth9 up"),
        (errno.EBUSY, "eth9: cannot be captured on (device or resource busy). There are: "),
    ],
)
def test_an_interface_that_cannot_be_used_says_why(number: int, line: str) -> None:
    interface = Interface.__new__(Interface)
    interface.name = "eth9"
    assert str(interface._unusable(OSError(number, os.strerror(number)))).startswith(line)
