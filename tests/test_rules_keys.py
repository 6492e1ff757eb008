"""What the rules claim with keys: for each finding a case that has it and a near miss that has not, and no more
than the keys at hand can prove (PROTOCOL 3.1, 3.4)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from judging import NAMES, alarms, codes, cut_short, shipped, simulate, the, truth, unchecked
from keyed import KEYS, key_folder, play, right_keys, ring, unlock
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from analyzer.findings import Confidence, Finding, Severity
from analyzer.keys import KeyRing, inspect_key_file
from analyzer.report.text import text_report
from analyzer.simulate import Conversation, Simulation, exchanges, finish, make_world
from analyzer.simulate.keys import SERVER_BITS
from analyzer.simulate.scenarios.steps import (
    WRONG_KEY,
    cannot_use_offer,
    refused,
    repeat,
    until_offer,
)
from analyzer.simulate.wire import Packet
from analyzer.trace import Trace

CERTAIN, STRONG, LIKELY, HINT = Confidence
VECTORS = Path(__file__).parent / "vectors"
FROM_KEYS = ("SPK301", "SPK302", "SPK303", "SPK304", "SPK305", "SPK306", "SPK308")


def said(name: str, *keys: str) -> Trace:
    return unlock(shipped(name), ring(*keys))


def claims(trace: Trace) -> dict[str, str]:
    """The findings that rest on keys, with how sure they are said to be."""
    return {f.code: str(f.confidence) for f in trace.findings if f.code in FROM_KEYS}


def reasons(trace: Trace, code: str) -> str:
    return " ".join(item.because for item in trace.not_checked if item.code == code)


def evidence(finding: Finding) -> str:
    return " ".join(item.text for item in finding.evidence)


def ruled_out(finding: Finding) -> set[str]:
    return {item.code for item in finding.ruled_out}


# -- each finding, and its near miss ---------------------------------------------------------------------------------


def test_301_device_key_does_not_open_the_reply() -> None:
    finding = the(said("key-mismatch-retries", "core-a.der", "server.pub.pem"), "SPK301")
    assert finding.confidence is CERTAIN
    assert finding.because.startswith(", if core-a.der is the key inside this device")
    assert finding.count == 3
    assert {8, 24, 35} <= set(finding.packets)
    assert "do not open with core-a.der (91d4915e)" in evidence(finding)
    assert "signed by server.pub.pem (ec7645ed)" in evidence(finding)
    assert {"SPK303", "SPK306"} <= ruled_out(finding)


def test_not_301_when_the_key_opens_the_reply_and_the_signature_fails() -> None:
    trace = said("bad-signature", "core-a.der", "server.pub.pem")
    assert claims(trace) == {"SPK303": "certain"}
    assert "SPK301" in ruled_out(the(trace, "SPK303"))


def test_301_is_only_likely_with_the_key_that_the_server_has_on_file() -> None:
    trace = said("key-mismatch-retries", "core-a-stale.der", "server.pub.pem")
    finding = the(trace, "SPK301")
    assert finding.confidence is LIKELY
    assert finding.summary == "The server locks its reply for core-a-stale.der; the device has another key."
    assert "SPK306" in ruled_out(finding)


def test_302_server_key_does_not_open_who_i_am() -> None:
    finding = the(said("wrong-server-key", "server.pem"), "SPK302")
    assert finding.confidence is CERTAIN
    assert finding.because == ", if server.pem is the key of the server that was called."
    assert "SPK304" in ruled_out(finding)


def test_304_not_302_when_the_right_server_key_opens_it() -> None:
    trace = said("unknown-device", "server.pem")
    assert claims(trace) == {"SPK304": "likely"}
    assert "SPK302" in ruled_out(the(trace, "SPK304"))
    assert "53ff6c06506b6f3186331b87" in evidence(the(trace, "SPK304"))


def test_304_is_stronger_with_a_folder_that_lacks_the_device(tmp_path: Path) -> None:
    (tmp_path / "48ff6d06507b573081350e87.pub.pem").write_bytes((KEYS / "core-a.pub.pem").read_bytes())
    trace = unlock(shipped("unknown-device"), KeyRing.load(tmp_path, KEYS / "server.pem"))
    assert claims(trace) == {"SPK304": "strong"}
    assert "No file among the keys given is named after device 53ff6c06506b6f3186331b87" in evidence(
        the(trace, "SPK304")
    )


def test_304_is_not_said_of_a_device_that_is_on_file(tmp_path: Path) -> None:
    (tmp_path / "53ff6c06506b6f3186331b87.pub.pem").write_bytes((KEYS / "core-d.pub.pem").read_bytes())
    trace = unlock(shipped("unknown-device"), KeyRing.load(tmp_path, KEYS / "server.pem"))
    assert claims(trace) == {"SPK308": "likely"}
    assert "if 53ff6c06506b6f3186331b87.pub.pem is what it has on file" in the(trace, "SPK308").because


def test_304_is_certain_when_the_device_offers_another_key_than_the_one_on_file(tmp_path: Path) -> None:
    simulation = simulate("offers-other-key", firmware="photon-1.4")
    (device_id,) = {s["device_id"] for s in simulation.truth["sessions"]}
    (tmp_path / f"{device_id}.pub.pem").write_bytes(simulation.keys["photon-a-stale.pub.pem"])
    (tmp_path / "server.pem").write_bytes(simulation.keys["server.pem"])
    trace = play(simulation, KeyRing.load(tmp_path))
    assert claims(trace) == {"SPK304": "certain"}
    assert f"if {device_id}.pub.pem is what the server has on file" in the(trace, "SPK304").because
    # The near miss: the very key that it offers is on file.
    (tmp_path / f"{device_id}.pub.pem").write_bytes(simulation.keys["photon-a.pub.pem"])
    assert claims(play(simulation, KeyRing.load(tmp_path))) == {"SPK308": "likely"}


def test_303_is_not_said_when_the_signature_is_right() -> None:
    assert "SPK303" not in claims(said("key-mismatch-retries", "server.pem", "core-a.der"))
    assert "SPK303" not in claims(said("key-mismatch-retries", "server.pub.pem"))


def test_303_is_proven_by_the_server_key_that_opens_who_i_am() -> None:
    finding = the(said("bad-signature", "server.pem"), "SPK303")
    assert finding.confidence is CERTAIN
    assert "the server key in this device is server.pem (ec7645ed)" in finding.because


def _says(c: Conversation, plaintext: bytes) -> None:
    """Send a "who I am" with this inside."""
    c.tcp.send("device", c.device.trusts.seal(plaintext, c.random), after=0.001, label="identity")


def _offers_rubbish(offered: bytes, story: str) -> Simulation:
    """A Photon that copies other bytes than a modulus out of its key slot; what follows is the same."""
    world = make_world(firmware="photon-1.4", server="community" if story == "refused" else "legacy")
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.connect()
    c.nonce()
    header = bytes.fromhex("30819f300d06092a864886f70d010101050003818d0030818902818100")
    _says(c, c.nonce_bytes + device.device_id + header + offered + b"\x02\x03\x01\x00\x01")
    if story == "refused":
        refused(c, "key passed to device during handshake doesn't match saved public key")
    else:
        c.offer()
        cannot_use_offer(c, WRONG_KEY)
    return finish(world)


def test_306_key_that_the_firmware_misreads(tmp_path: Path) -> None:
    simulation = simulate("short-integer", firmware="photon-1.4")
    trace = play(simulation, key_folder(simulation, tmp_path, "photon-a.der", "server.pub.pem"))
    finding = the(trace, "SPK306")
    assert finding.confidence is CERTAIN
    assert finding.because == ", if photon-a.der is what the device holds."
    assert "127 bytes, not 128" in evidence(finding)
    assert "SPK301" not in claims(trace)
    # With the server's private key the device's own words are known: it is this very key.
    trace = play(simulation, key_folder(simulation, tmp_path, "photon-a.der", "server.pem"))
    assert the(trace, "SPK306").because == ': the device offers this very key in "who I am".'
    # The near miss: the same failure with a key that is read rightly.
    simulation = simulate("key-mismatch", firmware="photon-1.4")
    trace = play(simulation, key_folder(simulation, tmp_path, "photon-a.der", "server.pub.pem"))
    assert claims(trace) == {"SPK301": "certain"}


@pytest.mark.parametrize("firmware", ["core-2014", "photon-1.4"])
def test_308_when_all_devices_of_a_server_are_refused(firmware: str, tmp_path: Path) -> None:
    simulation = simulate("server-broken", firmware=firmware)  # type: ignore[arg-type]
    trace = play(simulation, key_folder(simulation, tmp_path, "server.pem"))
    assert {f.code: f.confidence for f in trace.findings if f.code in FROM_KEYS} == {"SPK308": LIKELY}
    found = [f for f in trace.findings if f.code == "SPK308"]
    assert all("All 2 devices that call this server are refused" in evidence(f) for f in found)
    assert all("SPK302" in ruled_out(f) for f in found)


def test_308_is_not_said_when_another_device_gets_through(tmp_path: Path) -> None:
    world = make_world(firmware="photon-1.4")
    fine, unknown, stranger = world.add_device(), world.add_device(registered=False), world.add_device(registered=False)
    c = Conversation(world, fine, at=3.0)
    c.handshake()
    exchanges.after_hello(c)
    for device in (unknown, stranger):
        c = Conversation(world, device, at=0.5)
        c.connect()
        c.nonce()
        c.identity()
        refused(c, "couldn't find key for core")
    simulation = finish(world)
    trace = play(simulation, key_folder(simulation, tmp_path, "server.pem"))
    assert set(claims(trace)) == {"SPK304"}


def test_501_frames_of_another_cipher(tmp_path: Path) -> None:
    simulation = simulate("wrong-cipher")
    finding = the(play(simulation, key_folder(simulation, tmp_path)), "SPK501")
    assert finding.severity is Severity.MAJOR
    assert finding.confidence is CERTAIN
    assert "does not open under the session key" in evidence(finding)


def test_501_is_not_said_of_a_capture_with_a_hole_or_of_a_bad_link() -> None:
    for name in ("capture-gap", "lossy-link", "mid-session"):
        assert "SPK501" not in codes(unlock(shipped(name), right_keys(name)))
    keys = KeyRing.load(session_keys=[truth("mid-session")["sessions"][0]["session_key"]["hex"]])
    assert "SPK501" not in codes(unlock(shipped("mid-session"), keys))


def test_501_is_minor_when_both_ends_went_on(tmp_path: Path) -> None:
    simulation = simulate("healthy")
    keys = key_folder(simulation, tmp_path)
    packets = _flip(simulation.packets, "device", index=6)
    finding = the(play(simulation, keys, packets), "SPK501")
    assert finding.severity is Severity.MINOR
    assert not alarms(play(simulation, keys, packets))


def _flip(packets: Iterable[Packet], sender: str, *, index: int) -> list[Packet]:
    """Alter one bit of a frame, and the checksum with it, as a router with bad memory does."""
    changed = []
    for packet in packets:
        frame = Ether(packet.data)
        if packet.sender == sender and TCP in frame and len(bytes(frame[TCP].payload)) in (18, 34):
            index -= 1
            if index == 0:
                payload = bytearray(bytes(frame[TCP].payload))
                payload[-1] ^= 1
                frame[TCP].remove_payload()
                frame = frame / bytes(payload)
                del frame[IP].chksum, frame[TCP].chksum
                changed.append(replace(packet, data=bytes(frame)))
                continue
        changed.append(packet)
    return changed


def test_001_becomes_certain_when_both_hellos_open() -> None:
    finding = the(said("healthy-full", "core-a.der"), "SPK001")
    assert finding.confidence is CERTAIN
    assert finding.because == ": both hellos open with core-a.der."
    assert "67 of 67 messages open" in evidence(finding)
    assert the(said("healthy-full", "core-b.der"), "SPK001").confidence is STRONG
    # All messages open, but the hellos are not in the capture.
    session = truth("healthy-full")["sessions"][0]["session_key"]["hex"]
    packets = [p for p in shipped("healthy-full") if p.number not in (9, 10)]
    trace = unlock(packets, KeyRing.load(session_keys=[session]))
    assert all(f.confidence is not CERTAIN for f in trace.findings if f.code == "SPK001")


def test_208_becomes_certain_when_the_hello_opens(tmp_path: Path) -> None:
    simulation = simulate("hello-unanswered", firmware="photon-1.4")
    trace = play(simulation, key_folder(simulation, tmp_path, "photon-a.der"))
    finding = the(trace, "SPK208")
    assert finding.confidence is CERTAIN
    assert "opens with photon-a.der" in finding.because
    trace = play(simulation, key_folder(simulation, tmp_path, "server.pem"))
    assert the(trace, "SPK208").confidence is not CERTAIN
    assert "only the device's private key of device" in reasons(trace, "SPK208")


# -- no more than the keys at hand can prove -------------------------------------------------------------------------

DEVICE, STALE, SERVER, PUBLIC, OTHER = (
    "core-a.der",
    "core-a-stale.der",
    "server.pem",
    "server.pub.pem",
    "other-server.pub.pem",
)
ROLES = (DEVICE, "core-b.der", SERVER, PUBLIC, OTHER, "core-a.pub.pem")

Allowed = dict[frozenset[str], dict[str, str]]


def _subsets(keys: tuple[str, ...]) -> list[frozenset[str]]:
    return [frozenset(some) for size in range(1, len(keys) + 1) for some in combinations(keys, size)]


@pytest.mark.parametrize("keys", _subsets(ROLES), ids=lambda keys: "+".join(sorted(keys)))
def test_bad_signature_claims_only_what_the_keys_prove(keys: frozenset[str]) -> None:
    """The device opens the reply; the signature is other-server's, the device trusts server."""
    trace = said("bad-signature", *sorted(keys))
    got = claims(trace)
    opens, trusted = DEVICE in keys, SERVER in keys
    assert not (opens or trusted) or got.get("SPK301") in (None, "likely")
    if trusted:
        assert got["SPK303"] == "certain"
        assert opens <= ("SPK301" not in got)
    elif opens and PUBLIC in keys and OTHER not in keys:
        assert got == {"SPK303": "certain"}
        assert "if server.pub.pem is the server key in this device" in the(trace, "SPK303").because
    elif opens and OTHER in keys and PUBLIC not in keys:
        # With only the wrong server's key at hand the signature looks right. Then 301 is no more than likely.
        assert got == {"SPK301": "likely"}
        assert "(SPK303)" in evidence(the(trace, "SPK301"))
    elif opens:
        assert got == {}
        assert unchecked(trace) & {"SPK303"}
    if "core-b.der" in keys and not opens and "SPK301" in got:
        assert "if core-b.der is the key inside this device" in the(trace, "SPK301").because
    assert not set(got) & {"SPK302", "SPK304", "SPK305", "SPK306", "SPK308"}


@pytest.mark.parametrize("keys", _subsets((*ROLES, STALE)), ids=lambda keys: "+".join(sorted(keys)))
def test_key_mismatch_claims_only_what_the_keys_prove(keys: frozenset[str]) -> None:
    """The reply is locked for core-a-stale and signed by server; the device holds core-a and trusts server."""
    trace = said("key-mismatch-retries", *sorted(keys))
    got = claims(trace)
    assert not set(got) & {"SPK302", "SPK304", "SPK305", "SPK306", "SPK308"}
    private = keys & {DEVICE, "core-b.der", STALE}
    if SERVER in keys or PUBLIC in keys:
        assert "SPK303" not in got
    elif "SPK303" in got:
        # The only server key given is not this server's. That is said with its premise.
        assert "if other-server.pub.pem" in the(trace, "SPK303").because
    if STALE in private:
        assert got.get("SPK301") in (None, "likely")
    elif private:
        assert got["SPK301"] == "certain"
        because = the(trace, "SPK301").because
        assert because.startswith(", if ")
        assert (next(iter(private)) in because) == (len(private) == 1)
    else:
        assert "SPK301" not in got
        assert "only the device's private key" in reasons(trace, "SPK301")
        assert "packet 8" in reasons(trace, "SPK301")


@pytest.mark.parametrize("keys", _subsets(ROLES), ids=lambda keys: "+".join(sorted(keys)))
def test_wrong_server_key_claims_only_what_the_keys_prove(keys: frozenset[str]) -> None:
    trace = said("wrong-server-key", *sorted(keys))
    if SERVER in keys:
        assert claims(trace) == {"SPK302": "certain"}
        assert the(trace, "SPK302").because == ", if server.pem is the key of the server that was called."
    else:
        assert claims(trace) == {}
        assert "server's private key opens packet 6" in reasons(trace, "SPK302")
    assert the(trace, "SPK204").confidence is STRONG


@pytest.mark.parametrize("keys", _subsets(("core-d.der", SERVER, OTHER)), ids=lambda keys: "+".join(sorted(keys)))
def test_unknown_device_claims_only_what_the_keys_prove(keys: frozenset[str]) -> None:
    trace = said("unknown-device", *sorted(keys))
    if SERVER in keys:
        assert claims(trace) == {"SPK304": "likely"}
    else:
        assert claims(trace) == {}
        assert "SPK302" in unchecked(trace)


PHOTON = ("photon-a.der", "photon-a-stale.pub.pem", "server.pem", "server.pub.pem")


@pytest.mark.parametrize("keys", _subsets(PHOTON), ids=lambda keys: "+".join(sorted(keys)))
def test_a_photon_that_offers_another_key_claims_only_what_the_keys_prove(keys: frozenset[str], tmp_path: Path) -> None:
    simulation = simulate("offers-other-key", firmware="photon-1.4")
    trace = play(simulation, key_folder(simulation, tmp_path, *sorted(keys)))
    if "server.pem" in keys:
        # The stale key's file does not say whose it is, so it proves nothing about the server's record.
        assert claims(trace) == {"SPK304": "likely"}
    else:
        assert claims(trace) == {}
        assert "SPK302" in unchecked(trace)


def test_the_key_of_an_unrelated_server_gives_302_with_its_premise_only() -> None:
    for name in ("unknown-device", "wrong-server-key"):
        keys = ring("server.pem" if name == "wrong-server-key" else "other-server.pem")
        finding = the(unlock(shipped(name), keys), "SPK302")
        assert finding.because.startswith(", if ")


def test_several_server_keys_settle_nothing_until_one_is_known_to_be_this_servers(tmp_path: Path) -> None:
    trace = said("wrong-server-key", "server.pem", "other-server.pem")
    assert claims(trace) == {"SPK302": "hint", "SPK304": "hint"}
    assert trace.findings[0].code == "SPK204"
    assert "Give that one alone" in reasons(trace, "SPK302")
    # The same, beside a device that logs in: its reply shows which key this server has.
    world = make_world(firmware="photon-1.4")
    fine, lost = world.add_device(), world.add_device()
    lost.trusts_name, lost.trusts = "other-server", world.private_key("other-server", SERVER_BITS)
    c = Conversation(world, fine, at=0.0)
    c.handshake()
    exchanges.after_hello(c)
    c = Conversation(world, lost, at=1.0)
    c.connect()
    c.nonce()
    c.identity()
    refused(c, "decryption failed")
    simulation = finish(world)
    trace = play(simulation, key_folder(simulation, tmp_path, "server.pem", "other-server.pem"))
    assert claims(trace) == {"SPK302": "certain"}
    assert "is not this server's key" in the(trace, "SPK302").because
    # Only the other server's key at hand: it is known not to be this server's only if that one is there as well.
    trace = play(simulation, key_folder(simulation, tmp_path, "server.pub.pem", "other-server.pem"))
    assert claims(trace) == {"SPK302": "certain"}


def test_a_server_key_that_is_known_not_to_be_this_servers_settles_nothing(tmp_path: Path) -> None:
    world = make_world(firmware="photon-1.4")
    fine, lost = world.add_device(), world.add_device()
    lost.trusts_name, lost.trusts = "third-server", world.private_key("third-server", SERVER_BITS)
    c = Conversation(world, fine, at=0.0)
    c.handshake()
    exchanges.after_hello(c)
    c = Conversation(world, lost, at=1.0)
    c.connect()
    c.nonce()
    c.identity()
    refused(c, "decryption failed")
    simulation = finish(world)
    key_folder(simulation, tmp_path, "server.pub.pem")
    keys = KeyRing.load(tmp_path / "server.pub.pem", KEYS / "other-server.pem")
    trace = play(simulation, keys)
    assert "SPK302" not in claims(trace)
    assert "other-server.pem (" in reasons(trace, "SPK302")
    assert "not this server's key, which signed packet" in reasons(trace, "SPK302")


# -- keys of other devices -------------------------------------------------------------------------------------------


def test_a_key_that_is_known_to_be_another_devices_proves_nothing() -> None:
    trace = said("two-devices-background", "core-b.der")
    assert claims(trace) == {}
    assert "core-b.der (e990f45f) is another device's key" in reasons(trace, "SPK301")


def test_a_key_named_after_another_device_proves_nothing(tmp_path: Path) -> None:
    (tmp_path / "53ff6c06506b6f3186331b87.der").write_bytes((KEYS / "core-b.der").read_bytes())
    trace = unlock(shipped("key-mismatch-retries"), KeyRing.load(tmp_path, KEYS / "server.pem"))
    assert claims(trace) == {}
    assert "only the private key of device 48ff6d06507b573081350e87 opens packet 8" in reasons(trace, "SPK301")
    # Without the server's private key nobody knows which device it is: then the premise is said.
    trace = unlock(shipped("key-mismatch-retries"), KeyRing.load(tmp_path))
    assert the(trace, "SPK301").because.startswith(", if 53ff6c06506b6f3186331b87.der is the key inside this device")


def test_a_photon_says_itself_which_key_is_its_own(tmp_path: Path) -> None:
    simulation = simulate("key-mismatch", firmware="photon-1.4")
    trace = play(simulation, key_folder(simulation, tmp_path, "photon-a.der", "server.pem"))
    finding = the(trace, "SPK301")
    assert finding.confidence is CERTAIN
    assert finding.because.startswith(': the device itself says in "who I am"')
    # An unrelated key beside its words: the words win.
    (tmp_path / "other.der").write_bytes((KEYS / "photon-b.der").read_bytes())
    trace = play(simulation, KeyRing.load(tmp_path / "other.der", tmp_path / "server.pem"))
    assert claims(trace) == {}
    assert "It offers key" in reasons(trace, "SPK301")


def test_a_photon_and_the_key_that_the_server_has_on_file_prove_it_together(tmp_path: Path) -> None:
    simulation = simulate("key-mismatch", firmware="photon-1.4")
    key_folder(simulation, tmp_path, "photon-a-stale.pub.pem", "server.pem")
    (own,) = {c.device.id for c in play(simulation, KeyRing.load(tmp_path / "server.pem")).conversations}
    public = (tmp_path / "photon-a-stale.pub.pem").rename(tmp_path / f"{own}.pub.pem")
    finding = the(play(simulation, KeyRing.load(public, tmp_path / "server.pem")), "SPK301")
    assert finding.confidence is CERTAIN
    assert f"on file is {public.name}" in evidence(finding)


def test_swapped_records_of_two_devices_show_in_whose_key_opens_the_reply(tmp_path: Path) -> None:
    world = make_world(server="legacy", firmware="core-0.5")
    one, two = world.add_device(), world.add_device()
    registry = world.server.registry
    registry[one.device_id], registry[two.device_id] = registry[two.device_id], registry[one.device_id]
    for device in (one, two):
        repeat(world, device, _mismatch, default=1)
    simulation = finish(world)
    trace = play(simulation, key_folder(simulation, tmp_path, f"{one.name}.der", f"{two.name}.der", "server.pub.pem"))
    found = {f.device: f for f in trace.findings if f.code == "SPK301"}
    assert len(found) == 2
    assert f"for {two.name}.der" in found[one.host.address].summary
    assert f"for {one.name}.der" in found[two.host.address].summary
    assert all(f.confidence is LIKELY for f in found.values())


def test_an_earlier_login_proves_which_key_is_inside_the_device(tmp_path: Path) -> None:
    simulation = simulate("old-session-key")
    trace = play(simulation, key_folder(simulation, tmp_path, "core-a.der"))
    finding = the(trace, "SPK301")
    assert finding.confidence is CERTAIN
    assert ": the device logged in with core-a.der" in finding.because


# -- public keys only ------------------------------------------------------------------------------------------------


def test_many_attempts_exclude_a_public_server_key_or_say_that_they_cannot(tmp_path: Path) -> None:
    simulation = simulate("retries", attempts=60)
    outcomes = []
    for candidate in (
        simulation.keys["other-server.pub.pem"],
        simulation.keys["server.pub.pem"],
        *(f.read_bytes() for f in sorted(KEYS.glob("*server.pub.pem"))),
    ):
        given = tmp_path / "given.pub.pem"
        given.write_bytes(candidate)
        trace = play(simulation, KeyRing.load(given))
        allowed = _range_allows(trace, candidate)
        outcomes.append(allowed)
        if allowed is None:
            assert claims(trace) == {}
            assert "a public key can only exclude itself" in reasons(trace, "SPK302")
        else:
            assert claims(trace) == {"SPK302": allowed}
            assert "if given.pub.pem is the key of the server that was called" in the(trace, "SPK302").because
            assert "60 attempts" in evidence(the(trace, "SPK302"))
    # The key that the device does use is never excluded.
    assert outcomes[0] is None
    assert "certain" in outcomes


def _range_allows(trace: Trace, key_file: bytes) -> str | None:
    """What the range test may say of a public server key, from the numbers themselves (PROTOCOL 3.3)."""
    (key,) = inspect_key_file(key_file, "key").keys
    numbers = {int.from_bytes(p.data, "big") for c in trace.conversations if (p := c.part("identity")) and p.data}
    if max(numbers) >= key.n:
        return "certain"
    return "strong" if (max(numbers) / key.n) ** len(numbers) < 0.01 else None


def test_many_replies_exclude_a_public_device_key(tmp_path: Path) -> None:
    world = make_world(firmware="core-0.5", server="legacy")
    one, two = world.add_device(), world.add_device()
    registry = world.server.registry
    registry[one.device_id], registry[two.device_id] = registry[two.device_id], registry[one.device_id]
    for device in (one, two):
        repeat(world, device, _mismatch, default=40)
    simulation = finish(world)
    outcomes = {}
    for device, other in ((one, two), (two, one)):
        # Each device's own public half against replies locked with the other's.
        trace = play(simulation, key_folder(simulation, tmp_path, f"{device.name}.pub.pem"))
        outcomes[device.key.n] = {f.device: str(f.confidence) for f in trace.findings if f.code == "SPK301"}
        assert other.host.address not in outcomes[device.key.n]
    smaller, larger = sorted(outcomes)
    # A number can prove only the smaller one wrong; the larger one grows unlikely.
    assert set(outcomes[smaller].values()) == {"certain"}
    assert set(outcomes[larger].values()) == {"strong"}


def _mismatch(c: Conversation) -> None:
    until_offer(c)
    cannot_use_offer(c, WRONG_KEY)


# -- cut and incomplete captures -------------------------------------------------------------------------------------


def test_blocks_cut_by_the_snap_length_are_not_checked() -> None:
    for name, code in (("wrong-server-key", "SPK302"), ("key-mismatch-retries", "SPK301")):
        trace = unlock(cut_short(shipped(name), 150), right_keys(name))
        assert claims(trace) == {}
        assert "not whole in the capture, so no key can be tried on it" in reasons(trace, code)


def test_another_greeting_inside_who_i_am_is_no_proof_of_anything() -> None:
    world = make_world()
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.connect()
    c.nonce()
    _says(c, bytes(40) + device.device_id)
    refused(c, "nonces didn't match")
    simulation = finish(world)
    trace = play(simulation, _load(simulation, "server.pem"))
    assert claims(trace) == {}
    assert "answers another greeting" in reasons(trace, "SPK304")


def _load(simulation: Simulation, *names: str) -> KeyRing:
    with tempfile.TemporaryDirectory() as folder:
        return key_folder(simulation, Path(folder), *names)


@pytest.mark.parametrize("story", ["refused", "not used"])
@pytest.mark.parametrize(
    ("offered", "word"), [(b"\xff" * 128, "erased"), (b"\x77\x02\x01\x01\x04\x20" + bytes(122), "elliptic")]
)
def test_305_slot_without_an_rsa_key(offered: bytes, word: str, story: str) -> None:
    simulation = _offers_rubbish(offered, story)
    trace = play(simulation, _load(simulation, "server.pem"))
    finding = the(trace, "SPK305")
    assert finding.confidence is CERTAIN
    assert word in evidence(finding)
    assert set(claims(trace)) == {"SPK305"}


def test_pieces_are_the_cause_when_the_whole_opens(tmp_path: Path) -> None:
    simulation = simulate("split-identity")
    without = the(play(simulation, None), "SPK203")
    trace = play(simulation, key_folder(simulation, tmp_path, "server.pem"))
    finding = the(trace, "SPK203")
    assert without.confidence is LIKELY
    assert finding.confidence is STRONG
    assert finding.count == without.count
    assert set(claims(trace)) <= {"SPK302"} - {"SPK302"}


# -- sessions that work ----------------------------------------------------------------------------------------------

UNRELATED = (
    ("core-c.der",),
    ("other-server.pem",),
    ("other-server.pub.pem",),
    ("core-c.der", "other-server.pem"),
    ("core-c.pub.pem",),
    ("core-c.der", "core-d.der", "core-e.der", "other-server.pub.pem"),
)


@pytest.mark.parametrize("keys", UNRELATED)
@pytest.mark.parametrize("name", [n for n in NAMES if truth(n)["correct_analysis"]["verdict"].startswith("healthy")])
def test_unrelated_keys_make_no_fault_of_a_session_that_works(name: str, keys: tuple[str, ...]) -> None:
    trace = said(name, *keys)
    assert not alarms(trace)
    assert claims(trace) == {}
    assert "Content" in reasons(trace, "SPK501")


def test_what_stays_closed_names_the_key_that_would_open_it() -> None:
    assert "packet 8 opens with the device's private key of device 48ff6d06507b573081350e87 only" in reasons(
        said("healthy-full", "server.pem"), "SPK501"
    )
    closed = reasons(said("healthy-full", "core-b.der"), "SPK501")
    assert "packet 8 does not open with core-b.der (e990f45f), so that is not the key inside this device" in closed
    assert "No RSA key can open it" in reasons(said("mid-session", "core-a.der", "server.pem"), "SPK501")
    signature = reasons(said("healthy-full", "core-a.der", "other-server.pub.pem"), "SPK303")
    assert "The device accepted it" in signature


def test_a_login_cut_off_by_the_end_of_the_capture_is_no_fault_whatever_keys_are_given() -> None:
    packets = [p for p in shipped("healthy-full") if p.number <= 8]
    for keys in UNRELATED:
        assert not alarms(unlock(packets, ring(*keys)))


def test_keys_never_take_a_finding_away() -> None:
    for name in NAMES:
        without = unlock(shipped(name), None)
        trace = unlock(shipped(name), ring("core-c.der", "other-server.pub.pem"))
        assert codes(without) <= codes(trace)


def test_the_devices_id_is_put_into_the_commands_once_it_is_known() -> None:
    assert any(
        "particle keys doctor 48ff6d06507b573081350e87" in step
        for step in the(said("key-mismatch-retries", "server.pem", "core-a.der"), "SPK301").fix
    )
    assert any("DEVICE_ID" in step for step in the(said("key-mismatch-retries", "core-a.der"), "SPK301").fix)


SCREEN = """\
✕ NOT CONNECTING                                       key-mismatch-retries.pcap
The server locks its reply with a key that is not this device's key.

How sure     Certain, if core-a.der is the key inside this device (step 1 checks
             that). Certain that it cannot use the reply.
Do this      1. Check that core-a.der is the key inside this device. In DFU mode
                (blinking yellow) on USB (Core; a Photon: -d 2b04:d006 -a 1
                -s 34:612):
                  dfu-util -d 1d50:607f -a 1 -s 0x00002000:1024 -U now.der
                  sparkshark keys now.der core-a.der
             2. One key in both: make a new pair and send it, still in DFU mode.
                  particle keys doctor DEVICE_ID
                Read its output to the end: SENDING the key must succeed, not
                only "Okay! New keys in place".
             Own server: give it this device's public key as DEVICE_ID.pub.pem
             instead:
                  openssl rsa -inform DER -in core-a.der -pubout
"""

WHY = """\
Why          Packet 8: the first 128 bytes do not open with core-a.der
             (91d4915e); the other 256 are signed by server.pub.pem (ec7645ed).
             The same in 2 other attempts (packets 24, 35).
             Packet 12 is a ping under an all-zero key: the device has no key,
             because its login failed. The same in 1 other attempt (packet 39).
"""


def test_the_screen_of_a_key_mismatch_reads_as_promised() -> None:
    out = text_report(said("key-mismatch-retries", "core-a.der", "server.pub.pem"), "key-mismatch-retries.pcap")
    assert out.startswith(SCREEN)
    assert WHY in out
    assert "Ruled out    Impostor server        the signature opens with server.pub.pem" in out
    assert "Unlucky key            the firmware can read core-a.der (91d4915e)" in out
    assert "Not checked  The device's ID: only the server's private key opens packet 6." in out
    assert "because the key on file" not in out


def test_the_command_for_the_public_half_fits_the_file() -> None:
    fix = the(said("key-mismatch-retries", "core-a.pem", "server.pub.pem"), "SPK301").fix
    assert "  openssl rsa -in core-a.pem -pubout" in fix


@pytest.mark.parametrize("keys", [("server.pem",), ("server.pub.pem",), ("core-a.pem", "server.pem")])
def test_no_key_is_tried_on_a_who_i_am_of_another_size(keys: tuple[str, ...], tmp_path: Path) -> None:
    """Of 512 bytes, the first 256 open with no key: that shows nothing about whose key locked them."""
    story = simulate("wrong-identity-size")
    assert alarms(play(story, key_folder(story, tmp_path, *keys))) == {"SPK203"}
