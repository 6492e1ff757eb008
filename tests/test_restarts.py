"""SPK508: did a device that comes back restart, or did it only connect anew? What it asks the network for tells."""

from __future__ import annotations

import pytest
from judging import codes, judged, the

from analyzer.findings import Confidence, Finding, Severity
from analyzer.simulate import Conversation, World, exchanges, make_world
from analyzer.simulate.parties import Device
from analyzer.simulate.wire import Host, Link

EVERYBODY = Host("all", "ff:ff:ff:ff:ff:ff", "255.255.255.255")


def asks_for_an_address(world: World, device: Device, at: float, own: bytes = bytes(4)) -> None:
    """A DISCOVER, or with an address of its own the request to keep that."""
    mac = bytes.fromhex(device.host.mac.replace(":", ""))
    head = bytes((1, 1, 6, 0)) + bytes(8) + own + bytes(12) + mac.ljust(16, b"\x00") + bytes(192)
    payload = head + bytes((99, 130, 83, 99)) + b"\x35\x01\x01\xff"
    world.wire.udp(at, device.host, EVERYBODY, ports=(68, 67), payload=payload, label="dhcp")


def comes_back(*starts: float, link: Link = "ethernet", own: bytes = bytes(4)) -> Finding:
    """Three sessions 20 s apart, the first two never closed; the device asks for an address at these times."""
    world = make_world(link=link)
    device = world.add_device()
    for at in starts:
        asks_for_an_address(world, device, at, own)
    for at in (1.0, 21.0, 41.0):
        c = Conversation(world, device, at=at)
        c.handshake()
        exchanges.after_hello(c)
        device.reset()
    trace = judged(world)
    assert codes(trace) >= {"SPK508"}
    return the(trace, "SPK508")


def told(finding: Finding) -> str:
    return " ".join(item.text for item in finding.evidence)


def test_who_asks_for_an_address_before_it_comes_back_has_restarted_or_lost_its_network() -> None:
    finding = comes_back(0.0, 20.0, 40.0)
    assert (finding.severity, finding.confidence, finding.count) == (Severity.MINOR, Confidence.STRONG, 2)
    assert "restarted, or had lost its Wi-Fi" in finding.because
    assert "it asks for an address again (DHCP, packet " in told(finding)


def test_who_asks_at_its_start_only_has_not_restarted_since() -> None:
    finding = comes_back(0.0)
    assert finding.confidence is Confidence.LIKELY
    assert "did not restart" in finding.because
    assert "asks for no address, as it does after a start (DHCP, packet 1)" in told(finding)


@pytest.mark.parametrize("own", [bytes((192, 168, 1, 104))], ids=["keeps its address"])
def test_who_only_keeps_its_address_tells_nothing(own: bytes) -> None:
    assert "DHCP" not in told(comes_back(0.0, 20.0, 40.0, own=own))


def test_without_such_packets_nothing_is_said_of_it() -> None:
    finding = comes_back()
    assert finding.because == ""
    assert "DHCP" not in told(finding)


def test_a_capture_without_the_devices_hardware_address_cannot_tell() -> None:
    assert "DHCP" not in told(comes_back(0.0, 20.0, 40.0, link="raw"))
