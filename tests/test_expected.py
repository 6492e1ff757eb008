"""`--expect-server`: who calls another server than the user named, or than the dump of its key slot has stored."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import alarms, captured, the, unchecked
from keyed import KEYS

from analyzer import KeyRing
from analyzer.cli import main
from analyzer.expected import ExpectedServer, ExpectedServerError, plain
from analyzer.findings import Confidence, Severity
from analyzer.pipeline import Analysis
from analyzer.report.verdict import verdict_of
from analyzer.simulate import Conversation, Simulation, World, exchanges, finish, make_world, simulate
from analyzer.simulate.scenarios.steps import end_well
from analyzer.trace import Trace

SERVER = "198.51.100.20"


def expecting(story: Simulation, *servers: str, keys: KeyRing | None = None) -> Trace:
    analysis = Analysis(expect_servers=servers, keys=keys)
    for packet in captured(story.packets, story.link_type):
        analysis.take(packet)
    return analysis.finish()


# -- what is typed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address", "name", "port"),
    [
        ("192.168.1.50", "192.168.1.50", None, None),
        ("192.168.1.50:5683", "192.168.1.50", None, 5683),
        ("fd00::50", "fd00::50", None, None),
        ("[fd00::50]", "fd00::50", None, None),
        ("[fd00::50]:8080", "fd00::50", None, 8080),
        ("::ffff:192.168.1.50", "192.168.1.50", None, None),
        ("My.Server", None, "my.server", None),
        ("my_server:65535", None, "my_server", 65535),
        ("device.spark.io.", None, "device.spark.io", None),
    ],
)
def test_reads_addresses_and_names(text: str, address: str | None, name: str | None, port: int | None) -> None:
    server = ExpectedServer.parse(text)
    family = socket.AF_INET6 if address and ":" in address else socket.AF_INET
    assert server.address == (socket.inet_pton(family, address) if address else None)
    assert (server.name, server.port) == (name, port)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no server"),
        ("300.1.2.3", "no server"),
        ("1.2.3", "no server"),
        ("http://my.server", "no server"),
        ("my server", "no server"),
        ("[192.168.1.1]", "no server"),
        ("[::1", "no server"),
        ("my.server:", "no server"),
        ("-x.example", "no server"),
        ("my.server:0", "ports run from 1 to 65535"),
        ("my.server:65536", "ports run from 1 to 65535"),
        ("a" * 300, "no server"),
        ("a\nb", "a?b: no server"),
    ],
)
def test_what_is_no_server_is_told_in_one_line(text: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExpectedServerError, match=re.escape(word)) as told:
        ExpectedServer.parse(text)
    assert "\n" not in str(told.value)
    assert main(["analyze", "never-opened.pcap", f"--expect-server={text}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sparkshark: --expect-server ")
    assert error.count("\n") == 1
    assert len(error) < 300


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("019afz.:[]%/-_ \n\u0661é"), max_size=24))
def test_any_text_is_a_server_or_the_one_error(text: str) -> None:
    try:
        server = ExpectedServer.parse(text)
    except ExpectedServerError:
        return
    assert (server.address is None) != (server.name is None)
    assert ExpectedServer.parse(str(server)) == server


def test_an_ipv4_address_in_ipv6_clothes_is_what_it_is() -> None:
    assert plain(socket.inet_pton(socket.AF_INET6, "::ffff:1.2.3.4")) == bytes((1, 2, 3, 4))
    assert plain(bytes(16)) == bytes(16)


# -- what is said ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("servers", [(SERVER,), (f"{SERVER}:5683",), ("192.168.1.9", SERVER), ("device.spark.io",)])
def test_nothing_is_said_of_who_calls_where_it_should(servers: Sequence[str]) -> None:
    trace = expecting(simulate("healthy"), *servers)
    assert "SPK106" not in {f.code for f in trace.findings} | unchecked(trace)


def test_a_working_device_at_another_server_is_a_remark_with_both_addresses() -> None:
    trace = expecting(simulate("healthy"), "192.168.1.50")
    finding = the(trace, "SPK106")
    assert (finding.severity, finding.confidence) == (Severity.MINOR, Confidence.CERTAIN)
    assert finding.summary == f"The device calls {SERVER}; the server expected is 192.168.1.50."
    assert finding.packets == (3,), "the first one to that address"
    assert not alarms(trace)
    said = verdict_of(trace)
    assert said.state == "WORKING"
    assert finding.summary in said.sentence


def test_the_port_counts_where_one_is_named() -> None:
    finding = the(expecting(simulate("healthy"), f"{SERVER}:8080"), "SPK106")
    assert finding.summary == f"The device calls {SERVER}:5683; the server expected is {SERVER}:8080."


def test_a_device_that_fails_is_not_said_to_fail_for_that() -> None:
    trace = expecting(simulate("key-mismatch"), "192.168.1.50")
    finding = the(trace, "SPK106")
    assert (finding.severity, finding.confidence, finding.count) == (Severity.MAJOR, Confidence.CERTAIN, 3)
    assert "this alone does not say" in finding.because
    assert verdict_of(trace).stories[0].findings[0].code == "SPK207", "the login is what fails"


def test_what_else_is_known_of_the_address_is_told_with_it() -> None:
    finding = the(expecting(simulate("server-moved"), "192.168.1.60"), "SPK106")
    assert (finding.severity, finding.confidence) == (Severity.MAJOR, Confidence.STRONG)
    assert "the server expected is 192.168.1.60" in finding.summary
    assert "the server has moved" in finding.because
    assert any("ICMP" in item.text for item in finding.evidence)


def test_a_name_is_followed_by_answers_in_the_capture_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("no name is ever looked up")

    for function in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "create_connection"):
        monkeypatch.setattr(socket, function, never)
    trace = expecting(simulate("healthy"), "my.server")
    assert "SPK106" not in {f.code for f in trace.findings}
    (item,) = (item for item in trace.not_checked if item.code == "SPK106")
    assert "no answer to a lookup of that name" in item.because
    assert item.conversations == (1,)


def test_a_name_that_the_capture_resolves_is_compared() -> None:
    def told(address: str | None) -> Trace:
        world = make_world()
        device = world.add_device()
        world.look_up(device, 0.0, "my.server", address=address, found=address is not None)
        c = Conversation(world, device, at=1.0)
        c.handshake()
        end_well(c)
        return expecting(finish(world), "MY.server")

    finding = the(told("192.168.1.50"), "SPK106")
    assert finding.confidence is Confidence.STRONG, "a name may have more addresses"
    assert finding.summary == f"The device calls {SERVER}; the server expected is my.server (192.168.1.50)."
    assert 2 in finding.packets, "the answer"
    same = told(SERVER)
    assert "SPK106" not in {f.code for f in same.findings} | unchecked(same)
    assert "SPK106" in unchecked(told(None)), "there is no such name: where it is stays unknown"


def fleet(servers: Sequence[int]) -> World:
    """One device for each number, at the server of that number."""
    world = make_world()
    other = world.add_server("legacy", "other")
    other.host.address, other.registry = "192.168.1.9", world.server.registry
    for at, number in enumerate(servers):
        device = world.add_device()
        server = (world.server, other)[number]
        device.trusts = server.key
        c = Conversation(world, device, at=float(at), server=server)
        c.handshake()
        exchanges.ping(c)
        end_well(c)
    return world


def test_of_several_devices_those_that_call_elsewhere_are_named() -> None:
    trace = expecting(finish(fleet((0, 1, 0))), SERVER)
    assert the(trace, "SPK106").conversations == (2,)
    assert "1 of 3 devices calls another server than expected: 192.168.1.105." in verdict_of(trace).sentence
    many = verdict_of(expecting(finish(fleet((1,) * 6)), SERVER)).sentence
    assert "6 of 6 devices call another server than expected: 192.168.1.104, " in many
    assert many.endswith(", 2 more.")
    assert "another server" not in verdict_of(expecting(finish(fleet((0, 0))), SERVER)).sentence


@pytest.mark.parametrize("name", ["tls-client", "coap-tcp"])
def test_what_is_no_device_is_not_spoken_of(name: str) -> None:
    assert "SPK106" not in {f.code for f in expecting(simulate(name), "192.168.1.50").findings}


# -- what a dump has stored ------------------------------------------------------------------------------------------


def dump(folder: Path, stored: bytes, port: bytes = b"\xff\xff", name: str = "slot.der") -> KeyRing:
    """A dump of the slot of the server key, with an address behind the key (PROTOCOL 8.3)."""
    slot = (KEYS / "server.pub.der").read_bytes().ljust(384, b"\xff") + stored
    slot = slot.ljust(450, b"\xff") + port
    (folder / name).write_bytes(slot.ljust(2048, b"\xff"))
    return KeyRing.load(folder / name)


def test_a_dump_that_has_another_address_stored_is_named(tmp_path: Path) -> None:
    keys = dump(tmp_path, bytes((0, 4, 192, 168, 1, 60)))
    finding = the(expecting(simulate("server-moved"), keys=keys), "SPK106")
    assert finding.summary == "The device calls 192.168.1.50:5683; slot.der has 192.168.1.60:5683 stored."
    assert finding.severity is Severity.MAJOR
    working = the(expecting(simulate("healthy"), keys=keys), "SPK106")
    assert (working.severity, working.confidence) == (Severity.MINOR, Confidence.CERTAIN)
    assert "was not read from this device" in working.because


@pytest.mark.parametrize(
    ("stored", "port"),
    [
        (bytes((0, 4, 198, 51, 100, 20)), b"\xff\xff"),
        (bytes((0, 4, 198, 51, 100, 20)), b"\x16\x33"),
        (b"\x01\x0fdevice.spark.io", b"\xff\xff"),
        (b"\x01\x0bnot.in.here", b"\xff\xff"),
        (b"\xff\xff", b"\xff\xff"),
        (b"\x01\x03...", b"\xff\xff"),
    ],
    ids=["address", "with port", "name", "unknown name", "none", "no name"],
)
def test_a_dump_that_agrees_or_tells_nothing_is_not_named(tmp_path: Path, stored: bytes, port: bytes) -> None:
    trace = expecting(simulate("healthy"), keys=dump(tmp_path, stored, port))
    assert "SPK106" not in {f.code for f in trace.findings}


def test_what_the_user_says_goes_before_what_a_dump_says(tmp_path: Path) -> None:
    keys = dump(tmp_path, bytes((0, 4, 192, 168, 1, 60)))
    assert "SPK106" not in {f.code for f in expecting(simulate("healthy"), SERVER, keys=keys).findings}


# -- on the command line ---------------------------------------------------------------------------------------------


def test_the_option_reaches_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture = tmp_path / "healthy.pcap"
    capture.write_bytes(simulate("healthy").capture())
    options = ["--expect-server", "192.168.1.50", "--expect-server", "my.own.example:5683"]
    assert main(["analyze", str(capture), *options[:2]]) == 0
    text = capsys.readouterr().out
    assert "the server expected is\n192.168.1.50." in text or "the server expected is 192.168.1.50." in text
    assert main(["analyze", str(capture), *options, "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [item["code"] for item in report["not_checked"]] == ["SPK106"], "any of the two may be meant"
    assert "SPK106" not in {finding["code"] for finding in report["findings"]}


def test_a_report_to_be_posted_has_neither_the_address_nor_the_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capture = tmp_path / "healthy.pcap"
    capture.write_bytes(simulate("healthy").capture())
    for server, shown in (("my.own.example", "Name A"), ("fd00::77", "Server B"), ("device.spark.io:80", "spark.io")):
        for options in (["--redact"], ["--redact", "--format", "json"]):
            assert main(["analyze", str(capture), "--expect-server", server, *options]) == 0
            report = " ".join(capsys.readouterr().out.split())
            assert shown in report
            assert server not in report or server.startswith("device.")
