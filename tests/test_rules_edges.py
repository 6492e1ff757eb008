"""The rarer turns of the rules: captures that nearly show a fault, or show it with another proof than usual."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from judging import alarms, codes, judged, simulate, the, unchecked
from keyed import key_folder, play

from analyzer.catalogue import PING_AFTER
from analyzer.findings import Confidence, Finding
from analyzer.keys import KeyRing
from analyzer.simulate import Conversation, Packet, Simulation, World, damage, exchanges, finish, make_world, messages
from analyzer.simulate.keys import DEVICE_BITS, SERVER_BITS, make_key
from analyzer.simulate.messages import FirmwareName
from analyzer.simulate.parties import FrameCipher
from analyzer.simulate.scenarios.steps import LEGACY_HELLO_LIMIT, WRONG_KEY, cannot_use_offer
from analyzer.simulate.wire import Sender
from analyzer.trace import Trace

PATIENCE = 10.0
"""Seconds that a device waits for the answer to a ping."""


def begin(world: World | None = None) -> Conversation:
    """One connection of one device, not yet open; by default of a Core of 2014."""
    world = world or make_world()
    return Conversation(world, world.add_device(), at=0.0)


def greeted(world: World | None = None) -> Conversation:
    """One connection of one device, up to the greeting."""
    c = begin(world)
    c.connect()
    c.nonce()
    return c


def running(world: World | None = None) -> Conversation:
    """One session of one device, as it is in its first second."""
    c = begin(world)
    c.handshake()
    exchanges.after_hello(c)
    return c


def told(c: Conversation, without: str = "") -> Trace:
    """The verdict on all that happened, packets with a certain label left out."""
    story = finish(c.world)
    return judged(story, damage.drop(story.packets, lambda packet: packet.label == without))


def with_all_keys(c: Conversation, folder: Path, *names: str) -> Trace:
    story = finish(c.world)
    return play(story, key_folder(story, folder, *names))


def evidence(finding: Finding) -> str:
    return " ".join(item.text for item in finding.evidence)


def ruled_out(finding: Finding) -> set[str]:
    return {item.code for item in finding.ruled_out}


# -- does a connection come about? -----------------------------------------------------------------------------------


def test_a_connection_that_is_cut_off_later_was_not_refused() -> None:
    c = begin()
    c.connect()
    c.tcp.rst("server", after=3.0)
    assert alarms(told(c)) == {"SPK104"}


@pytest.mark.parametrize(
    ("answer", "service"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\n\r\n", "A web login page"),
        (b"HTTP/1.0 200 OK\r\n\r\n<title>Guest portal</title>", "A web login page"),
        (b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n", "A web server"),
    ],
)
def test_who_sends_on_elsewhere_wants_a_login(answer: bytes, service: str) -> None:
    c = begin()
    c.connect()
    c.tcp.send("server", answer, after=0.01)
    c.close("device", after=20.0)
    assert the(told(c), "SPK103").summary.startswith(service)


# -- greeting and "who I am" -----------------------------------------------------------------------------------------


def test_clocks_that_differ_make_no_server_that_does_not_wait() -> None:
    """Each direction from a capture of its own, in one file: the device's answer seems to come after the reply."""
    story = simulate("healthy")
    late = [replace(p, time_ns=p.time_ns + 300_000_000 * (p.sender == "device")) for p in story.packets]
    trace = judged(story, sorted(late, key=lambda packet: packet.time_ns))
    assert not alarms(trace)
    assert "SPK001" in codes(trace)


def test_a_ping_behind_who_i_am_is_no_part_of_it() -> None:
    """A Core of 2014 that gets no reply pings under a key of its own; 256 bytes and 18 are not one of 274."""
    c = greeted()
    c.identity()
    c.dead_ping(at=c.now + 20.0)
    c.close("server", after=10.0)
    trace = told(c)
    assert "SPK203" not in codes(trace)
    assert the(trace, "SPK204").confidence is Confidence.LIKELY


def test_who_i_am_that_never_arrived_was_not_refused() -> None:
    c = greeted()
    c.identity(delivered=False)
    c.tcp.retransmit("device", 256)
    c.tcp.fin("server", after=25.0)
    trace = told(c)
    assert alarms(trace) == {"SPK505"}
    assert "SPK204" in unchecked(trace)


# -- the reply and the hello -----------------------------------------------------------------------------------------


def test_half_a_reply_that_never_arrived_is_no_wrong_size() -> None:
    c = greeted()
    c.identity()
    c.tcp.send("server", c.offer_bytes()[:200], delivered=False)
    c.tcp.fin("device", after=20.0)
    trace = told(c)
    assert not alarms(trace)
    assert "SPK205" in unchecked(trace)


def test_a_hello_that_was_not_captured_is_no_silence() -> None:
    story = simulate("hello-unanswered", firmware="photon-1.4", attempts=1)
    trace = judged(story, damage.drop(story.packets, lambda packet: packet.label == "device hello"))
    assert not alarms(trace)
    assert "SPK703" in codes(trace)


def after_hello(end: Sender, seconds: float, firmware: FirmwareName = "photon-1.4") -> Conversation:
    """One end hangs up so long after the device's hello."""
    c = greeted(make_world(firmware=firmware))
    c.identity()
    c.offer()
    c.device_hello()
    c.close(end, after=seconds)
    return c


def test_a_device_that_leaves_at_once_has_not_waited_for_a_hello() -> None:
    trace = told(after_hello("device", 0.5))
    assert not alarms(trace)
    assert "SPK208" in unchecked(trace)


@pytest.mark.parametrize(
    ("firmware", "patience"), [("core-0.5", 2.0), ("photon-0.5", 2.0), ("photon-1.4", 4.0), ("photon-3", 4.0)]
)
def test_how_long_a_device_waits_for_a_hello_is_known_by_its_own(
    firmware: FirmwareName, patience: float, tmp_path: Path
) -> None:
    device = "core-a.der" if firmware == "core-0.5" else "photon-a.der"
    trace = with_all_keys(after_hello("device", 0.85 * patience, firmware), tmp_path, device)
    assert not alarms(trace)
    assert "SPK208" in unchecked(trace)
    trace = with_all_keys(after_hello("device", patience, firmware), tmp_path, device)
    assert alarms(trace) == {"SPK208"}


def test_a_server_that_leaves_at_once_has_answered_the_hello_so() -> None:
    trace = told(after_hello("server", 0.01))
    assert alarms(trace) == {"SPK208"}
    assert the(trace, "SPK208").confidence is Confidence.STRONG


# -- a session -------------------------------------------------------------------------------------------------------


def flipped(packets: list[Packet], label: str, place: int, bit: int) -> list[Packet]:
    """One bit of the last packet with this label is wrong in the capture, and the network card had not yet filled in
    any checksum.
    """
    changed = damage.offload(packets, "server")
    index = max(i for i, packet in enumerate(changed) if packet.label == label and packet.sender == "server")
    data = bytearray(changed[index].data)
    data[place] ^= bit
    changed[index] = replace(changed[index], data=bytes(data))
    return changed


@pytest.mark.parametrize(("answers", "is_told"), [(1, True), (3, False)])
def test_who_carries_on_has_not_lost_the_framing(answers: int, is_told: bool) -> None:
    c = running()
    c.server_says(messages.server_event(c.dialect, c.next_server_id(), "greet", "hi"), label="last", after=1.0)
    for number in range(answers):
        c.device_says(messages.event(c.device.next_message_id(), "temp", str(number)), after=1.0)
    c.close("device", after=1.0)
    story = finish(c.world)
    length = len(next(packet for packet in reversed(story.packets) if packet.label == "last").data) - (2 + 32)
    trace = judged(story, flipped(story.packets, "last", length, 0xF0))
    assert ("SPK501" in alarms(trace)) is is_told
    assert ("SPK501" in unchecked(trace)) is not is_told


def test_a_device_that_goes_on_after_ten_seconds_had_not_asked() -> None:
    """An 18-byte message into a silence need not be a ping."""
    c = running()
    exchanges.ping(c, answered_after=None)
    c.device_says(messages.event(c.device.next_message_id(), "temp", "21"), after=14.0)
    c.close("device", after=6.0)
    assert not alarms(told(c))


@pytest.mark.parametrize("arrived", [True, False])
def test_an_answer_that_is_not_in_the_capture_is_an_answer(arrived: bool) -> None:
    """An answer in two packets: the capture lacks both, or the second, which was lost on the way to it."""
    c = running()
    exchanges.ping(c, answered_after=None)
    answer = c.server_cipher.seal(messages.server_ack(c.dialect, c.device.message_id))
    c.tcp.send("server", answer[:7], after=0.002, label="lost" if arrived else "data")
    c.tcp.send("server", answer[7:], label="lost", delivered=arrived)
    c.tcp.fin("device", after=PATIENCE)
    trace = told(c, without="lost")
    assert not alarms(trace)
    assert "SPK503" in unchecked(trace)


def test_in_an_update_the_device_need_not_ping() -> None:
    """Only packets with data were kept, and the first chunk is missing: that the others had come before the device
    wrote again shows late.
    """
    c = running()
    quiet = c.now
    for index in range(4):
        c.tcp.silence(0.0 if index else 2.5)
        number, token = c.next_server_id(), c.next_server_token()
        chunk = messages.chunk(number, token, bytes([index]) * exchanges.SLOW_CHUNK)
        c.server_says(chunk, label="chunk" if index else "lost")
    c.device_says(messages.empty_ack(1), at=quiet + 0.95 * PING_AFTER)
    c.close("device", after=PATIENCE)
    story = finish(c.world)
    trace = judged(story, damage.drop(story.packets, lambda packet: packet.label in {"ack", "lost"}))
    assert "SPK503" not in codes(trace) | unchecked(trace)


# -- with keys: the reply --------------------------------------------------------------------------------------------


def test_many_keys_that_do_not_open_are_counted(tmp_path: Path) -> None:
    story = simulate("key-mismatch")
    for number in range(4):
        (tmp_path / f"core-{number}.der").write_bytes(make_key(9, f"core-{number}", DEVICE_BITS).private_der())
    finding = the(play(story, KeyRing.load(tmp_path)), "SPK301")
    assert "do not open with any of 4 device keys" in evidence(finding)
    assert finding.because == ", if this device's key is among those given."


def test_a_file_named_after_the_device_is_its_key(tmp_path: Path) -> None:
    """With the server's key the device is known by its ID; then only the file of that name can be its own."""
    story = simulate("key-mismatch")
    (device_id,) = {session["device_id"] for session in story.truth["sessions"]}
    for name in (f"{device_id}.der", "spare.der"):
        (tmp_path / name).write_bytes(make_key(9, name, DEVICE_BITS).private_der())
    (tmp_path / "server.pem").write_bytes(story.keys["server.pem"])
    finding = the(play(story, KeyRing.load(tmp_path)), "SPK301")
    assert "spare.der" not in evidence(finding)
    assert finding.because.startswith(f", if {device_id}.der is the key inside this device")


def test_a_signature_over_something_else_is_a_forgery(tmp_path: Path) -> None:
    c = greeted()
    c.identity()
    sealed = c.offer_bytes()[:128]
    c.tcp.send("server", sealed + c.server.signer.sign(bytes(20)), after=0.01, label="offer")
    cannot_use_offer(c, WRONG_KEY)
    finding = the(with_all_keys(c, tmp_path, "core-a.der", "server.pub.pem"), "SPK303")
    assert finding.confidence is Confidence.CERTAIN
    assert finding.because.startswith(": its HMAC is not that of")
    assert "SPK301" in ruled_out(finding)


def test_who_i_am_may_be_too_large_a_number_for_the_key_that_signs(tmp_path: Path) -> None:
    """A server that signs with another key than it is called with; the signer's public half excludes itself."""
    seed = next(n for n in count(1) if _ratio(n) < 0.8)
    world = make_world(seed=seed)
    world.server.signer = world.private_key("other-server", SERVER_BITS)
    c = greeted(world)
    sealed = next(block for block in iter(c.identity_bytes, b"") if int.from_bytes(block, "big") > _signer(world))
    c.tcp.send("device", sealed, after=0.12, label="identity")
    c.offer()
    cannot_use_offer(c, WRONG_KEY)
    finding = the(with_all_keys(c, tmp_path, "other-server.pub.pem"), "SPK303")
    assert finding.confidence is Confidence.CERTAIN
    assert "too large a number for that" in finding.because


def _signer(world: World) -> int:
    return world.server.signer.n


def _ratio(seed: int) -> float:
    return make_key(seed, "other-server", SERVER_BITS).n / make_key(seed, "server", SERVER_BITS).n


def test_a_reply_may_be_too_large_a_number_for_the_key_that_the_device_offers(tmp_path: Path) -> None:
    """The server's key alone: a Photon offers its key, and that one cannot have been used."""
    seed = next(
        n for n in count(1) if make_key(n, "photon-a", DEVICE_BITS).n < 0.8 * make_key(n, "stale", DEVICE_BITS).n
    )
    world = make_world(seed=seed, firmware="photon-1.4", server="legacy")
    c = greeted(world)
    c.identity()
    stale, blocks = make_key(seed, "stale", DEVICE_BITS), iter(lambda: c.offer_bytes(stale), b"")
    c.tcp.send("server", next(b for b in blocks if int.from_bytes(b[:128], "big") > c.device.key.n), after=0.01)
    cannot_use_offer(c, WRONG_KEY)
    finding = the(with_all_keys(c, tmp_path, "server.pem"), "SPK301")
    assert finding.confidence is Confidence.CERTAIN
    assert "too large a number for the device's own key" in evidence(finding)
    assert finding.because.endswith(" that the device itself offers.")


# -- with keys: "who I am" and messages ------------------------------------------------------------------------------


def test_several_server_keys_that_do_not_open_leave_a_premise(tmp_path: Path) -> None:
    story = simulate("wrong-server-key")
    (tmp_path / "spare.pem").write_bytes(make_key(9, "spare", SERVER_BITS).private_pem())
    finding = the(play(story, KeyRing.load(tmp_path, key_file(story, tmp_path, "server.pem"))), "SPK302")
    assert finding.because == ", if the key of the server that was called is among those given."


def key_file(story: Simulation, folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(story.keys[name])
    return path


def test_a_message_that_does_not_open_is_no_hello(tmp_path: Path) -> None:
    """In time and of the right size, but under another key: the device did not take the new one."""
    c = greeted()
    c.identity()
    c.offer()
    c.device.cipher = FrameCipher(b"another key, not", b"that of the offe")
    c.device_says(messages.device_hello(c.device.firmware, 1), after=0.9)
    c.close("server", after=LEGACY_HELLO_LIMIT)
    assert "SPK208" in alarms(told(c))
    trace = with_all_keys(c, tmp_path, "core-a.der")
    assert "SPK208" not in codes(trace)
    assert "SPK208" in ruled_out(the(trace, "SPK206"))


@pytest.mark.parametrize(("length", "is_told"), [(64, True), (63, False)])
def test_an_early_core_hangs_up_on_a_long_argument(length: int, is_told: bool, tmp_path: Path) -> None:
    c = running()
    call = messages.function_call(c.next_server_id(), c.next_server_token(), "led", "x" * length)
    c.server_says(call, after=1.0)
    c.close("device", after=0.02)
    trace = with_all_keys(c, tmp_path, "core-a.der")
    assert ("SPK509" in codes(trace)) is is_told
    if is_told:
        assert "64 bytes or more" in the(trace, "SPK509").because


def test_a_reply_without_its_device_and_its_beginning_says_nothing_of_the_device() -> None:
    story = simulate("key-mismatch")
    kept = [packet for packet in story.packets if packet.sender != "device"]
    begun = next(place for place, packet in enumerate(kept) if packet.label == "offer")
    trace = judged(story, kept[begun:])
    assert codes(trace) == {"SPK701", "SPK702", "SPK401"}
    assert any("The device's packets and the beginning" in item.because for item in trace.not_checked)
