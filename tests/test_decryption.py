"""Every message of a capture against what its two ends recorded: all that can open opens, and nothing else does."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import CAPTURES, NAMES, cut_short, damage, shipped, simulate, truth
from keyed import (
    KEYS,
    conversation_of,
    is_part_of,
    key_folder,
    nothing_wrong,
    play,
    right_keys,
    ring,
    sent,
    unlock,
    whole,
)

from analyzer.decryption import PROOF
from analyzer.keys import KeyRing
from analyzer.pipeline import analyze
from analyzer.session import SessionOpener
from analyzer.simulate import FIRMWARES, SCENARIOS, Packet, exchanges, finish, make_world
from analyzer.simulate.conversation import Conversation as Told
from analyzer.simulate.keys import SERVER_BITS
from analyzer.simulate.messages import FirmwareName
from analyzer.simulate.scenarios.steps import BAD_SIGNATURE, cannot_use_offer, until_offer
from analyzer.streams import Sender
from analyzer.trace import Trace

HEALTHY = [name for name in NAMES if truth(name)["correct_analysis"]["verdict"] == "healthy"]
REORDERED = ("lossy-link",)
"""Captures in which a repeat came late: a message sent before another one stands in a later packet than it."""
INCOMPLETE = ("capture-gap", "mid-session")
WITH_LOGIN = [
    name for name in NAMES if any(s["session_key"] for s in truth(name)["sessions"]) and name != "mid-session"
]
BLOCK = 16


def opened(name: str, keys: KeyRing | None = None) -> Trace:
    return unlock(shipped(name), keys or right_keys(name))


def sessions(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = truth(name)["sessions"]
    return found


def messages(trace: Trace) -> list[list[str]]:
    return [[m.plaintext.hex() for m in c.messages] for c in trace.conversations]


# -- every capture, with its keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NAMES if name not in INCOMPLETE])
def test_all_that_was_sent_under_the_session_key_opens_to_the_byte_and_nothing_else(name: str) -> None:
    trace = opened(name)
    for session in sessions(name):
        conversation = conversation_of(trace, session)
        for sender in ("device", "server"):
            told, got = sent(session, sender), whole(conversation, sender)
            assert got == told
        assert all(m.whole and m.missing == 0 for m in conversation.messages)
        if name not in REORDERED:
            assert [m.packet for m in conversation.messages] == sorted(m.packet for m in conversation.messages)
        assert [m.index for m in conversation.messages] == list(range(len(conversation.messages)))


def test_healthy_captures_open_completely() -> None:
    total = count = 0
    for name in HEALTHY:
        trace = opened(name)
        total += sum(len(sent(s, sender)) for s in sessions(name) for sender in ("device", "server"))
        count += sum(c.secrets.opened for c in trace.conversations if c.secrets is not None)
        assert all(
            not c.secrets.bad_frames and not c.secrets.lost for c in trace.conversations if c.secrets is not None
        )
    assert count == total == 1185


@pytest.mark.parametrize("name", WITH_LOGIN)
def test_session_key_id_and_nonce_are_those_that_the_server_knew(name: str) -> None:
    trace = opened(name, ring("server.pem", *(key for key in _private_names() if key != "other-server.pem")))
    for session in sessions(name):
        secrets = conversation_of(trace, session).secrets
        assert secrets is not None
        if session["session_key"] is None or secrets.identity is None:
            continue
        assert secrets.identity.nonce.hex() == session["nonce"]
        assert secrets.identity.nonce_matches is True
        assert secrets.identity.device_id == session["device_id"]
        assert conversation_of(trace, session).device.id == session["device_id"]
        assert secrets.session_key is not None
        assert secrets.session_key.blob is not None
        # The fleet's folder also holds the stale keys, so even an offer locked for the wrong key opens.
        assert secrets.session_key.blob.hex() == session["session_key"]["hex"]


@pytest.mark.parametrize("name", WITH_LOGIN)
def test_the_signature_is_judged_as_the_device_judged_it(name: str) -> None:
    trace = opened(name)
    for session in sessions(name):
        check, secrets = session.get("device_signature_check"), conversation_of(trace, session).secrets
        if check is None or secrets is None or secrets.offer is None:
            continue
        assert secrets.offer.signature == ("valid" if check["ok"] else "invalid")
        assert secrets.offer.opened is session["device_rsa_decrypt"]["ok"]


def test_dead_key_frames_are_no_messages() -> None:
    for name in ("key-mismatch-retries", "bad-signature", "no-nonce"):
        trace = opened(name)
        assert any(line.get("note") for s in sessions(name) for line in s["c2s"])
        assert any(c.dead_frames for c in trace.conversations)
        assert all(not c.messages for c in trace.conversations)


def _private_names() -> list[str]:
    return sorted(p.name for p in KEYS.glob("*.pem") if not p.name.endswith(".pub.pem"))


# -- keys that do and do not fit -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HEALTHY)
def test_a_folder_with_all_keys_of_a_fleet_gives_the_same_as_the_right_two(name: str) -> None:
    assert messages(opened(name, KeyRing.load(KEYS))) == messages(opened(name))


@pytest.mark.parametrize("name", HEALTHY)
def test_wrong_keys_open_nothing(name: str) -> None:
    right = {Path(d["device_private"]).name for d in truth(name)["keys"]["devices"].values()}
    wrong = [key for key in _private_names() if key not in right and not key.startswith("server")]
    trace = opened(name, ring(*wrong))
    assert messages(trace) == [[] for _ in trace.conversations]
    for conversation in trace.conversations:
        assert conversation.secrets is not None
        assert conversation.secrets.session_key is None
        assert conversation.device.id is None
        if conversation.secrets.offer is not None:
            assert conversation.secrets.offer.opened is False


@pytest.mark.parametrize("keys", [("server.pem",), ("server.pub.pem",), ("core-a.pub.der", "server.pub.der")])
def test_no_key_but_the_devices_private_one_opens_messages(keys: tuple[str, ...]) -> None:
    (conversation,) = opened("healthy-full", ring(*keys)).conversations
    secrets = conversation.secrets
    assert secrets is not None
    assert not conversation.messages
    assert secrets.offer is not None
    assert secrets.offer.opened is None
    assert secrets.offer.signature == "valid"
    assert conversation.device.id == ("48ff6d06507b573081350e87" if keys == ("server.pem",) else None)


def test_the_devices_key_alone_opens_all_messages_but_not_the_identity() -> None:
    (conversation,) = opened("healthy-full", ring("core-a.der")).conversations
    assert whole(conversation, "device") == sent(sessions("healthy-full")[0], "device")
    assert conversation.secrets is not None
    assert conversation.secrets.identity is None
    assert conversation.secrets.offer is not None
    assert conversation.secrets.offer.signature == "not-checked"
    assert conversation.device.id is None


@pytest.mark.parametrize("nonce", [True, False])
@pytest.mark.parametrize("name", HEALTHY)
def test_a_key_log_gives_the_same_messages_as_the_rsa_keys(name: str, nonce: bool, tmp_path: Path) -> None:
    log = tmp_path / "keys.log"
    lines = [
        f"SPARK_SESSION {s['nonce'] if nonce else '-'} {s['session_key']['hex']}"
        for s in sessions(name)
        if s["session_key"]
    ]
    log.write_text("# made by a test\n" + "\n".join(lines) + "\n")
    trace = opened(name, KeyRing.load(keylogs=[log]))
    assert messages(trace) == messages(opened(name))
    assert {c.secrets.key_source for c in trace.conversations if c.secrets and c.messages} <= {
        "the key log",
        "the session key given",
    }


def test_a_session_key_of_another_session_opens_nothing() -> None:
    other = sessions("ota-complete")[0]["session_key"]["hex"]
    for digits in (other, other[:32]):
        (conversation,) = opened("healthy-full", KeyRing.load(session_keys=[digits])).conversations
        assert not conversation.messages
        assert conversation.secrets is not None
        assert not conversation.secrets.bad_frames


def test_the_aes_key_alone_loses_the_front_of_the_first_message_each_way() -> None:
    session = sessions("healthy-full")[0]
    (conversation,) = opened(
        "healthy-full", KeyRing.load(session_keys=[session["session_key"]["aes_key"]])
    ).conversations
    for sender in ("device", "server"):
        assert whole(conversation, sender) == sent(session, sender)[1:]


# -- captures with holes ---------------------------------------------------------------------------------------------


def test_a_hole_costs_the_frames_in_it_and_the_front_of_the_next_one() -> None:
    (session,) = sessions("capture-gap")
    removed = truth("capture-gap")["frames_removed_from_capture"]
    (conversation,) = opened("capture-gap").conversations
    total = 0
    for sender, direction, login in (("device", "c2s", 1), ("server", "s2c", 2)):
        told = sent(session, sender)
        # The truth file counts the messages of the login, too.
        gone = {frame["data_frame_index"] - login for frame in removed if frame["dir"] == direction}
        # All frames behind a hole are one block long here, so the lost front is all of them.
        headless = {index + 1 for index in gone} - gone
        assert gone
        assert all(len(told[index]) < 2 * BLOCK for index in headless)
        assert whole(conversation, sender) == [line for i, line in enumerate(told) if i not in gone | headless]
        total += len(told) - len(gone)
    assert total == 58
    assert conversation.secrets is not None
    assert conversation.secrets.opened == 56
    assert conversation.secrets.lost == 2
    assert not conversation.secrets.bad_frames


@pytest.mark.parametrize("part", ["hex", "aes_key"])
def test_a_session_key_opens_a_capture_that_begins_in_the_middle(part: str) -> None:
    (session,) = sessions("mid-session")
    trace = opened("mid-session", KeyRing.load(session_keys=[session["session_key"][part]]))
    (conversation,) = trace.conversations
    for sender, frames in (("device", 10), ("server", 11)):
        assert whole(conversation, sender) == sent(session, sender)[-frames + 1 :]
    nothing_wrong(trace, truth("mid-session"))


def test_rsa_keys_do_not_open_a_capture_that_begins_in_the_middle() -> None:
    assert messages(opened("mid-session", KeyRing.load(KEYS))) == [[]]


@pytest.mark.parametrize("limit", [60, 96, 200, 300, 400])
@pytest.mark.parametrize("name", ["healthy-full", "photon-fast-ota", "key-mismatch-retries"])
def test_packets_cut_short_give_fewer_messages_and_no_wrong_one(name: str, limit: int) -> None:
    session_keys = [s["session_key"]["hex"] for s in sessions(name)]
    for keys in (right_keys(name), KeyRing.load(session_keys=session_keys)):
        trace = unlock(cut_short(shipped(name), limit), keys)
        nothing_wrong(trace, truth(name))
        for conversation in trace.conversations:
            assert conversation.secrets is not None
            # What does not open lies behind a cut, so it says nothing about the session.
            assert all(bad.behind_gap for bad in conversation.secrets.bad_frames)


@pytest.mark.parametrize("way", ["device", "server"])
def test_one_direction_opens_by_itself(way: str, tmp_path: Path) -> None:
    simulation = simulate("healthy")
    keys = key_folder(simulation, tmp_path)
    (session,) = simulation.truth["sessions"]
    packets = damage.one_direction(simulation.packets, way)  # type: ignore[arg-type]
    if way == "device":
        # Message 3, and the session key in it, went the other way.
        (conversation,) = play(simulation, keys, packets).conversations
        assert not conversation.messages
        keys = KeyRing.load(session_keys=[session["session_key"]["hex"]])
    (conversation,) = play(simulation, keys, packets).conversations
    assert whole(conversation, way) == sent(session, way)
    assert whole(conversation, "server" if way == "device" else "device") == []


def test_many_frames_before_the_key_is_known_lose_none_of_their_order() -> None:
    """More frames than may wait: with the login missing, each is tried as soon as there is enough to try."""
    name = "ota-complete"
    (session,) = sessions(name)
    packets = [p for p in shipped(name) if p.number > 8]  # without the login
    keys = KeyRing.load(session_keys=["00" * 40, session["session_key"]["hex"]])
    (conversation,) = unlock(packets, keys).conversations
    for sender in ("device", "server"):
        assert is_part_of(whole(conversation, sender), sent(session, sender))
        assert len(whole(conversation, sender)) >= len(sent(session, sender)) - 1
    assert conversation.secrets is not None
    assert not conversation.secrets.bad_frames


# -- simulated sessions ----------------------------------------------------------------------------------------------


def _plays() -> list[tuple[str, FirmwareName]]:
    """Each scenario with one firmware, each firmware about equally often."""
    return [(s.name, s.firmwares[index % len(s.firmwares)]) for index, s in enumerate(SCENARIOS.values())]


@pytest.mark.parametrize(("name", "firmware"), _plays())
def test_nothing_wrong_comes_out_of_any_scenario(name: str, firmware: FirmwareName, tmp_path: Path) -> None:
    simulation = simulate(name, firmware=firmware, attempts=3 if name == "retries" else None)
    if simulation.keys:
        nothing_wrong(play(simulation, key_folder(simulation, tmp_path)), simulation.truth)


@pytest.mark.parametrize("server", ["legacy", "community"])
@pytest.mark.parametrize("firmware", FIRMWARES)
@pytest.mark.parametrize("name", ["healthy", "id-wraps", "ota-complete"])
def test_each_firmware_with_each_server_opens_completely(
    name: str, firmware: FirmwareName, server: Any, tmp_path: Path
) -> None:
    if (firmware, server) == ("core-2014", "community"):
        return  # they do not work with each other (PROTOCOL 9.10)
    simulation = simulate(name, firmware=firmware, server=server)
    trace = play(simulation, key_folder(simulation, tmp_path))
    for session in simulation.truth["sessions"]:
        conversation = conversation_of(trace, session)
        assert whole(conversation, "device") == sent(session, "device")
        assert whole(conversation, "server") == sent(session, "server")
        assert conversation.device.id == session["device_id"]
        assert conversation.secrets is not None
        assert len(conversation.secrets.hellos) == 2
        if session.get("device_public_key_in_answer"):
            assert conversation.secrets.identity is not None
            assert conversation.secrets.identity.offered is not None
            assert conversation.secrets.identity.offered.hex() == session["device_public_key_in_answer"]


@pytest.mark.parametrize("name", ["dead-key", "old-session-key"])
def test_frames_of_a_dead_key_stay_out_of_the_messages(name: str, tmp_path: Path) -> None:
    simulation = simulate(name)
    trace = play(simulation, key_folder(simulation, tmp_path))
    noted = sum(bool(line.get("note")) for s in simulation.truth["sessions"] for line in s["c2s"])
    assert noted == sum(len(c.dead_frames) for c in trace.conversations) > 0
    for session in simulation.truth["sessions"]:
        assert whole(conversation_of(trace, session), "device") == sent(session, "device")


def test_a_login_without_a_word_leaves_the_key_of_the_session_before(tmp_path: Path) -> None:
    """The device refuses the server's signature and never takes the key that it was offered; long after, and in the
    connections that follow, it pings under the one that it holds.
    """
    world = make_world()
    device = world.add_device()
    told = Told(world, device, at=0.0)
    told.handshake()
    exchanges.after_hello(told)
    told.close("device", after=2.0)
    told.outcome("planned", "disconnect: socket close")
    world.server.signer_name = "other-server"
    world.server.signer = world.private_key("other-server", SERVER_BITS)
    for _ in range(4):
        told = Told(world, device, at=told.now + 400.0)
        until_offer(told)
        cannot_use_offer(told, BAD_SIGNATURE)
    simulation = finish(world)
    trace = play(simulation, key_folder(simulation, tmp_path, "core-a.pem", "server.pem"))
    dead = "ping under the key of an earlier session"
    assert [[frame.dead for frame in c.dead_frames] for c in trace.conversations] == [[], [dead], [], [dead], []]
    assert [c.reached for c in trace.conversations] == ["established"] + ["session"] * 4
    assert [bool(c.messages) for c in trace.conversations] == [True] + [False] * 4


def test_an_identity_is_opened_once_while_frames_wait_for_a_session_key(tmp_path: Path) -> None:
    simulation = simulate("healthy")
    key_folder(simulation, tmp_path)
    keys = KeyRing.load(*sorted(tmp_path.iterdir()), session_keys=["00" * 40])
    assert keys.server_private
    without_offer = [packet for packet in simulation.packets if packet.label != "offer"]
    with patch.object(SessionOpener, "identity", autospec=True, side_effect=SessionOpener.identity) as opening:
        [conversation] = play(simulation, keys, without_offer).conversations
    assert opening.call_count == 1
    assert conversation.device.id
    assert conversation.live_frames(Sender.SERVER) > PROOF


def test_frames_of_another_cipher_do_not_open_and_spoil_no_other(tmp_path: Path) -> None:
    simulation = simulate("wrong-cipher")
    (session,) = simulation.truth["sessions"]
    conversation = conversation_of(play(simulation, key_folder(simulation, tmp_path)), session)
    assert whole(conversation, "device") == sent(session, "device")
    assert conversation.secrets is not None
    bad = len(conversation.secrets.bad_frames)
    assert bad > 0
    assert is_part_of(whole(conversation, "server"), sent(session, "server"))
    assert len(whole(conversation, "server")) + bad == len(sent(session, "server"))


# -- damage ----------------------------------------------------------------------------------------------------------

DAMAGE: dict[str, Callable[[Iterable[Packet]], list[Packet]]] = {
    "copies": damage.duplicate,
    "routed copies": lambda packets: damage.duplicate(packets, "routed"),
    "two interfaces": damage.two_interfaces,
    "late start": lambda packets: damage.start_after(packets, 1.0),
    "early end": lambda packets: damage.stop_after(packets, 4.0),
    "cut short": lambda packets: damage.snaplen(packets, 68),
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", ["healthy", "key-mismatch", "ota-complete"])
def test_a_damaged_copy_gives_fewer_messages_and_no_wrong_one(name: str, how: str, tmp_path: Path) -> None:
    simulation = simulate(name)
    keys = key_folder(simulation, tmp_path)
    for more in (keys, KeyRing.load(session_keys=[s["session_key"]["hex"] for s in simulation.truth["sessions"]])):
        trace = play(simulation, more, DAMAGE[how](simulation.packets))
        nothing_wrong(trace, simulation.truth)
        if how in ("copies", "routed copies", "two interfaces"):
            for session in simulation.truth["sessions"]:
                assert whole(conversation_of(trace, session), "device") == sent(session, "device")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_dropping_any_packets_never_gives_a_wrong_message(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["healthy-full", "capture-gap", "lossy-link", "two-devices-background"]))
    packets = shipped(name)
    share = data.draw(st.sampled_from([0.01, 0.05, 0.2, 0.5]))
    chance = random.Random(data.draw(st.integers(0, 1 << 30)))
    kept = [packet for packet in packets if chance.random() >= share]
    keys = right_keys(name)
    if data.draw(st.booleans()):
        found = [s["session_key"]["hex"] for s in sessions(name) if s["session_key"]]
        keys = KeyRing.load(session_keys=found)
    nothing_wrong(unlock(kept, keys), truth(name))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 6))
def test_altered_bytes_never_raise(seed: int, flips: int) -> None:
    chance = random.Random(seed)
    simulation_packets = list(shipped("healthy-full"))
    for _ in range(flips):
        at = chance.randrange(len(simulation_packets))
        packet = simulation_packets[at]
        raw = bytearray(packet.data)
        raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        simulation_packets[at] = type(packet)(
            packet.number, packet.time_ns, packet.link_type, bytes(raw), packet.original_length, packet.interface
        )
    trace = unlock(simulation_packets, right_keys("healthy-full"))
    for conversation in trace.conversations:
        assert len(conversation.messages) <= sum(side.frames for side in conversation.sides.values())


# -- what must not show ----------------------------------------------------------------------------------------------


def test_no_secret_shows_when_a_trace_is_printed() -> None:
    trace = opened("healthy-full")
    (conversation,) = trace.conversations
    secret = bytes.fromhex(sessions("healthy-full")[0]["session_key"]["hex"])
    kept = [getattr(conversation, name, None) for name in conversation.__slots__]
    shown = repr(trace) + repr(conversation.secrets) + repr(conversation) + repr(kept) + repr(trace.keys)
    for part in (secret, secret[:16], secret[16:32], secret[32:]):
        assert part.hex() not in shown
        assert repr(part)[2:-1] not in shown
    assert conversation.secrets is not None
    assert conversation.secrets.session_key is not None


def test_a_capture_file_gives_the_same_as_its_packets() -> None:
    trace = analyze(CAPTURES / "healthy-full.pcap", keys=right_keys("healthy-full"))
    assert messages(trace) == messages(opened("healthy-full"))
