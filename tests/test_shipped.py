"""The captures in `captures/`: the verdict that their truth files ask for, and the handshake to the byte."""

from __future__ import annotations

from typing import Any

import pytest
from judging import NAMES, alarms, codes, shipped, truth, verdict

from analyzer.conversation import Conversation

# verdict of the truth file -> codes of which one must be said without keys; whether nothing critical or major may be
EXPECTED: dict[str, tuple[set[str], bool]] = {
    "healthy": ({"SPK001"}, True),
    "healthy_with_capture_gap": ({"SPK703", "SPK701"}, True),
    "mid_session": ({"SPK701"}, True),
    "not_spark": ({"SPK801"}, True),
    "device_key_mismatch": ({"SPK206", "SPK207"}, False),
    "bad_server_signature": ({"SPK206", "SPK207"}, False),
    "mixed": ({"SPK206", "SPK207"}, False),
    "wrong_server_key_on_device": ({"SPK204"}, False),
    "unknown_device": ({"SPK204"}, False),
    "no_nonce": ({"SPK104"}, False),
    "not_a_spark_cloud": ({"SPK103"}, False),
    "port_blocked": ({"SPK101"}, False),
    "keepalive_lost": ({"SPK503"}, False),
    "ota_failed": ({"SPK602"}, False),
}
BEGUN_BEFORE = {"mid-session"}
SESSIONS = [
    (name, index)
    for name in NAMES
    if name not in BEGUN_BEFORE
    for index, session in enumerate(truth(name)["sessions"])
    if session["nonce"] or session["tcp_connected"]
]


@pytest.mark.parametrize("name", NAMES)
def test_says_what_is_true_of_a_shipped_capture(name: str) -> None:
    wanted, nothing_bad = EXPECTED[truth(name)["correct_analysis"]["verdict"]]
    trace = verdict(shipped(name))
    assert codes(trace) & wanted
    assert not (alarms(trace) - wanted if not nothing_bad else alarms(trace))


@pytest.mark.parametrize(("name", "index"), SESSIONS)
def test_reads_the_handshake_of_each_session_as_both_ends_recorded_it(name: str, index: int) -> None:
    told, conversation = truth(name)["sessions"][index], conversation_of(name, index)
    assert conversation.device.ip == told["client"]["ip"]
    assert conversation.server.ip == told["server"]["ip"]
    assert abs(conversation.start_ns / 1e9 - told["t_start"]) < 0.5
    nonce = conversation.part("nonce")
    if told["nonce"] is None:
        assert nonce is None
        return
    assert nonce is not None
    assert nonce.data == bytes.fromhex(told["nonce"])
    assert told["t_start"] - 0.5 < nonce.time_ns / 1e9 < told["t_start"] + 5
    if conversation.kind != "spark":
        return  # the truth file calls the first 40 bytes of a web page what the device took for a nonce
    parts = [conversation.part(kind) for kind in ("nonce", "identity", "session")]
    seen = [part for part in parts if part is not None]
    assert [part.packet for part in seen] == sorted(part.packet for part in seen)
    assert [part.time_ns for part in seen] == sorted(part.time_ns for part in seen)
    assert (parts[2] is not None) == (told["session_key"] is not None)
    assert all(part.complete for part in seen)


@pytest.mark.parametrize(("name", "index"), SESSIONS)
def test_says_how_far_each_session_came(name: str, index: int) -> None:
    told, conversation = truth(name)["sessions"][index], conversation_of(name, index)
    assert conversation.reached == reached_by(told, name)


def reached_by(told: dict[str, Any], name: str) -> str:
    """What the truth file says of how far it came: frames with a note were sent under a dead key."""
    if told["nonce"] is None or name == "wrong-service-http302":
        return "connected"
    if told["session_key"] is None:
        return "identity"
    return "established" if told["s2c"] else "session"


def conversation_of(name: str, index: int) -> Conversation:
    told = truth(name)["sessions"][index]
    (found,) = (
        c
        for c in verdict(shipped(name)).conversations
        if (c.device.ip, c.device.port) == (told["client"]["ip"], told["client"]["port"])
        and abs(c.start_ns / 1e9 - told["t_start"]) < 1
    )
    return found


CLOSED_BY = {
    "healthy-full": ["device-fin"],
    "lossy-link": ["device-fin"],
    "wrong-server-key": ["server-fin"] * 3,
    "unknown-device": ["server-fin"] * 2,
    "key-mismatch-retries": ["server-fin", "device-fin", "server-fin"],
    "keepalive-lost": ["device-fin"],
    "port-blocked": ["none"] * 2,
    "wrong-service-http302": ["server-fin"],
    "nonce-looks-like-coap": ["device-fin"],
}


@pytest.mark.parametrize("name", sorted(CLOSED_BY))
def test_says_who_closed_first(name: str) -> None:
    assert [c.closed_by for c in verdict(shipped(name)).conversations] == CLOSED_BY[name]


def test_the_packets_of_a_handshake_are_those_that_wireshark_numbers() -> None:
    (conversation,) = verdict(shipped("healthy-full")).conversations
    assert [conversation.part(kind).packet for kind in ("nonce", "identity", "session")] == [4, 6, 8]  # type: ignore[union-attr]
    assert conversation.hello is not None
    assert conversation.server_hello is not None


def test_three_failed_attempts_are_one_finding_with_a_count() -> None:
    trace = verdict(shipped("wrong-server-key"))
    (found,) = (f for f in trace.findings if f.code == "SPK204")
    assert (found.count, found.conversations) == (3, (1, 2, 3))


def test_two_devices_get_a_verdict_each() -> None:
    trace = verdict(shipped("two-devices-background"))
    told = {f.code: f.device for f in trace.findings if f.code in ("SPK001", "SPK206")}
    assert set(told) == {"SPK001", "SPK206"}
    assert told["SPK001"] != told["SPK206"]
