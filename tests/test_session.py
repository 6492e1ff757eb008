"""What each key opens, how sure that is, and what a gap, a wrong key or a flipped bit does to the frames."""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dpkt
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer import rsa
from analyzer.deadkey import DeadKeys
from analyzer.keys import Key, KeyRing, SessionKey, inspect_key_file
from analyzer.session import (
    FailurePattern,
    FrameDecryptor,
    Obstacle,
    RangeTest,
    SessionOpener,
    Trouble,
    fitting_session_key,
    open_identity,
    open_offer,
    opening,
)
from analyzer.session.private import open_signature
from analyzer.session.range_test import MOST_RANGE_VALUES

HERE = Path(__file__).parent
CAPTURES = HERE.parent / "captures"
KEYS = CAPTURES / "keys"
VECTORS: dict[str, Any] = json.loads((HERE / "vectors" / "vectors.json").read_text())
SESSIONS = {session["name"]: session for session in VECTORS["sessions"]}
BOTH = ("device->server", "server->device")


def vector_key(name: str, half: str = "private_pem_pkcs1") -> Key:
    return inspect_key_file(VECTORS["keys"][name][half].encode(), name).keys[0]


CORE, OTHER_CORE = vector_key("core"), vector_key("other_core")
SERVER, OTHER_SERVER = vector_key("server"), vector_key("other_server")
SERVER_PUBLIC = vector_key("server", "public_pem_spki")


def bytes_of(session: dict[str, Any], *path: str) -> bytes:
    value: Any = session
    for step in path:
        value = value[step]
    return bytes.fromhex(value)


# --- message 2 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("session", VECTORS["sessions"], ids=lambda session: session["name"])
def test_the_server_s_private_key_reads_the_identity(session: dict[str, Any]) -> None:
    found = open_identity(
        bytes_of(session, "message2", "ciphertext"), [OTHER_SERVER, SERVER_PUBLIC, SERVER], bytes_of(session, "nonce")
    )
    assert found is not None
    assert found.opened_by == SERVER
    assert found.nonce_matches is True
    assert found.device_id == session["device_id"]
    assert found.plaintext_length == session["message2"]["plaintext_len"]
    if found.plaintext_length == 214:
        assert found.device_key is not None
        assert found.device_key.n == CORE.n
    else:
        assert (found.device_key, found.offered, found.key_trouble) == (None, None, None)


def test_another_nonce_is_told_from_no_nonce() -> None:
    block = bytes_of(SESSIONS["core-2014"], "message2", "ciphertext")
    other, unknown = open_identity(block, [SERVER], bytes(40)), open_identity(block, [SERVER], None)
    assert other is not None
    assert other.nonce_matches is False
    assert unknown is not None
    assert unknown.nonce_matches is None
    assert unknown.device_id == VECTORS["sessions"][0]["device_id"]


def test_an_identity_for_another_server_stays_closed() -> None:
    case = VECTORS["wrong_key_cases"][0]
    block, nonce = bytes.fromhex(case["message2"]), bytes.fromhex(case["nonce"])
    assert open_identity(block, [SERVER], nonce) is None
    opened = open_identity(block, [SERVER, OTHER_SERVER], nonce)
    assert opened is not None
    assert opened.opened_by == OTHER_SERVER


def identity_with(modulus_bytes: bytes) -> bytes:
    header = bytes.fromhex("30819f300d06092a864886f70d010101050003818d0030818902818100")
    plaintext = bytes(range(40)) + bytes(12) + header + modulus_bytes + bytes.fromhex("0203010001")
    return rsa.seal_block(SERVER.public, plaintext, b"\x01" * 39)


@pytest.mark.parametrize(
    ("slot", "trouble"),
    [
        (b"\xff" * 128, "an erased slot"),
        (bytes(128), "an erased slot"),
        (bytes.fromhex("77020101042000" "2a8648ce3d030107") + b"\xff" * 113, "part of an elliptic-curve key"),
        (b"\x91" * 100 + b"\xff" * 28, "a slot that ends in erased flash"),
        (b"MIICXQIBAAKBgQDULjj3GZBEiVfRV/ywdZkfXJiC4WHPqpT0\n" * 2 + b"a" * 30, "text"),
        (b"\x91" * 127 + b"\x02", "an even number"),
        (b"\x11" + b"\x91" * 126 + b"\x03", "a number with its top bit clear"),
        (b"\x91" * 128, "a number with small factors"),
    ],
)  # fmt: skip
def test_what_a_device_offers_instead_of_a_key_is_named(slot: bytes, trouble: str) -> None:
    found = open_identity(identity_with(slot), [SERVER], bytes(range(40)))
    assert found is not None
    assert (found.device_key, found.key_trouble) == (None, trouble)


@pytest.mark.parametrize("prime", [3, 5, 7, 11, 13, 17, 19])
def test_each_small_factor_is_found(prime: int) -> None:
    others = {3, 5, 7, 11, 13, 17, 19} - {prime}
    start = int.from_bytes(b"\x91" * 128, "big")
    modulus = next(n for n in range(start, start + 9999, 2) if n % prime == 0 and all(n % other for other in others))
    found = open_identity(identity_with(modulus.to_bytes(128, "big")), [SERVER], None)
    assert found is not None
    assert (found.device_key, found.key_trouble) == (None, "a number with small factors")


def test_a_short_identity_is_believed_only_for_its_nonce() -> None:
    nonce = bytes(range(40))
    block = rsa.seal_block(SERVER.public, nonce + b"short", b"\x01" * (253 - 45))
    opened = open_identity(block, [SERVER], nonce)
    assert opened is not None
    assert (opened.plaintext_length, opened.device_id) == (45, None)
    assert open_identity(block, [SERVER], bytes(40)) is None


# --- message 3 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("session", VECTORS["sessions"], ids=lambda session: session["name"])
def test_the_device_s_private_key_opens_the_offer(session: dict[str, Any]) -> None:
    offer = open_offer(bytes_of(session, "message3", "wire"), [OTHER_CORE, CORE], [OTHER_SERVER, SERVER_PUBLIC])
    assert (offer.opened, offer.opened_by, offer.tried) == (True, CORE, 2)
    assert offer.credentials is not None
    assert offer.credentials.blob == bytes_of(session, "session_blob")
    assert offer.credentials.key == bytes_of(session, "session", "aes_key")
    assert offer.credentials.iv == bytes_of(session, "session", "iv0")
    assert offer.credentials.salt == bytes_of(session, "session", "salt")
    assert (offer.signature, offer.signature_block_ok, offer.signed_by) == ("valid", True, SERVER_PUBLIC)


def test_the_server_s_public_key_alone_proves_who_signed() -> None:
    block = bytes_of(SESSIONS["core-2014"], "message3", "wire")
    offer = open_offer(block, [], [SERVER_PUBLIC])
    assert (offer.opened, offer.tried, offer.signature) == (None, 0, "valid")
    assert open_offer(block, [CORE], []).signature == "not-checked"


def wrong_case(name: str) -> bytes:
    return next(bytes.fromhex(case["message3"]) for case in VECTORS["wrong_key_cases"] if case["name"] == name)


def test_an_offer_for_another_core_does_not_open_although_it_is_well_signed() -> None:
    offer = open_offer(wrong_case("message3-for-another-core"), [CORE], [SERVER])
    assert (offer.opened, offer.credentials, offer.signature) == (False, None, "valid")
    assert open_offer(wrong_case("message3-for-another-core"), [CORE, OTHER_CORE], [SERVER]).opened_by == OTHER_CORE


def test_an_offer_signed_by_another_server_opens_and_is_invalid() -> None:
    block = wrong_case("message3-signed-by-another-server")
    offer = open_offer(block, [CORE], [SERVER])
    assert (offer.opened, offer.signature, offer.signed_by) == (True, "invalid", None)
    known = open_offer(block, [CORE], [SERVER, OTHER_SERVER], expected_signer=SERVER)
    assert (known.signature, known.signed_by) == ("invalid", OTHER_SERVER)
    assert known.signature_note == "signed by another server than the one the device trusts"
    assert open_offer(block, [CORE], [SERVER, OTHER_SERVER]).signature == "valid"


def test_an_ordinary_sha1_signature_is_not_what_the_device_accepts() -> None:
    offer = open_offer(wrong_case("message3-signed-with-digestinfo"), [CORE], [SERVER])
    assert (offer.opened, offer.signature, offer.signed_by) == (True, "invalid", SERVER)
    assert offer.signature_note == "it holds 35 bytes, not a bare HMAC of 20"


def test_a_swapped_signature_is_found_by_its_hmac() -> None:
    first, second = (bytes_of(VECTORS["sessions"][at], "message3", "wire") for at in (0, 1))
    offer = open_offer(first[:128] + second[128:], [CORE], [SERVER])
    assert (offer.opened, offer.signature, offer.signature_block_ok) == (True, "invalid", True)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_in_the_place_of_sealed_parts_stay_closed(data: bytes) -> None:
    assert open_identity(data, [SERVER], data[:40]) is None
    offer = open_offer(data.ljust(384, b"\x55")[:384], [CORE], [SERVER])
    assert (offer.opened, offer.credentials, offer.signature) == (False, None, "invalid")
    assert open_offer(data[:383], [CORE], [SERVER]).opened is None


def test_wrong_keys_by_the_hundred_open_nothing() -> None:
    # The library answers wrong keys with random bytes of any length; none of them may be believed.
    rng = random.Random(3)
    for _ in range(300):
        block = bytes([rng.randrange(0x80)]) + rng.randbytes(383)
        assert open_offer(block, [CORE, OTHER_CORE], []).opened is False
        assert open_identity(block[:256], [SERVER], block[300:340]) is None


def test_a_key_that_the_library_refuses_still_opens_by_its_integers() -> None:
    assert CORE.secret is not None
    three_numbers = rsa.PrivateNumbers(CORE.secret.n, CORE.secret.e, CORE.secret.d)
    key = replace(CORE, secret=three_numbers)
    offer = open_offer(bytes_of(SESSIONS["core-2014"], "message3", "wire"), [key], [])
    assert (offer.opened, offer.opened_by) == (True, key)


def test_a_signature_under_a_key_that_the_library_refuses_is_read_by_its_integers() -> None:
    block = b"\0\x01" + b"\xff" * 233 + b"\0" + b"twenty bytes of hmac"
    root = math.isqrt((1 << 2048) - 1) & ~1
    n = root * root - int.from_bytes(block, "big")  # so that the square of the root, modulo n, is the block
    even_exponent = rsa.PublicNumbers(n, 2)
    assert open_signature(even_exponent, root.to_bytes(256, "big")) == block[-20:]


# --- which key first --------------------------------------------------------------------------------------


def test_the_key_in_the_identity_is_tried_first() -> None:
    nonce, identity, session = handshake("photon-fast-ota")
    opener = SessionOpener(KeyRing.load(KEYS))
    known = opener.identity(identity, nonce)
    offer = opener.offer(session, known, "device")
    assert offer.opened_by is not None
    assert "photon-a" in offer.opened_by.name
    assert offer.identity_key_differs is False
    assert offer.tried == 1


def test_a_file_named_after_the_device_id_is_tried_first(tmp_path: Path) -> None:
    for source in KEYS.glob("*.der"):
        if source.name != "core-a.der":  # all others come before it in the folder
            (tmp_path / f"0-{source.name}").write_bytes(source.read_bytes())
    (tmp_path / "48ff6d06507b573081350e87.der").write_bytes((KEYS / "core-a.der").read_bytes())
    nonce, identity, session = handshake("healthy-full")
    opener = SessionOpener(KeyRing.load(tmp_path))
    known = opener.identity(identity, nonce)
    offer = opener.offer(session, known)
    assert (offer.opened, offer.tried) == (True, 1)


@pytest.mark.parametrize(("nonce_matches", "signature"), [(True, "invalid"), (False, "valid"), (None, "valid")])
def test_only_who_opened_the_identity_of_this_login_is_expected_to_sign(
    tmp_path: Path, nonce_matches: bool | None, signature: str
) -> None:
    """An identity that echoes another nonce is not from this connection."""
    for name in ("core", "server", "other_server"):
        (tmp_path / f"{name}.pem").write_text(VECTORS["keys"][name]["private_pem_pkcs1"])
    opener = SessionOpener(KeyRing.load(tmp_path))
    identity = opening.Identity(SERVER, 52, bytes(40), nonce_matches, None)
    assert opener.offer(wrong_case("message3-signed-by-another-server"), identity).signature == signature


def test_the_last_success_is_tried_first_next_time() -> None:
    _, _, session = handshake("healthy-full")
    opener = SessionOpener(KeyRing.load(KEYS))
    first = opener.offer(session, None, "device")
    assert opener.offer(session, None, "device") == replace(first, tried=1)
    assert first.tried > 1
    elsewhere = opener.offer(session, None, "device elsewhere")
    assert (elsewhere.opened, elsewhere.tried) == (True, 1)


def test_tries_end_with_the_share_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MOST_TRIES", 25)
    _, _, session = handshake("bad-signature")
    for_nobody = session[:100] + bytes(28) + session[128:]
    opener = SessionOpener(KeyRing.load(KEYS))
    offers = [opener.offer(for_nobody, None, "device") for _ in range(4)]
    assert [(offer.opened, offer.tried, offer.untried) for offer in offers] == [
        (False, 10, 0),
        (False, 10, 0),
        (False, 5, 5),
        (None, 0, 10),
    ]


def test_a_stale_record_shows_when_its_old_key_is_still_there() -> None:
    nonce, identity, _ = handshake("photon-fast-ota")
    ring = KeyRing.load(KEYS)
    stale = next(key for key in ring.device_private if "photon-a-stale" in key.name)
    sealed = rsa.seal_block(stale.public, bytes(range(40)), b"\x01" * 85)
    opener = SessionOpener(ring)
    offer = opener.offer(sealed + bytes(256), opener.identity(identity, nonce), "device")
    assert (offer.opened_by, offer.identity_key_differs) == (stale, True)


# --- real handshakes --------------------------------------------------------------------------------------


def conversations(name: str) -> list[tuple[bytes, bytes]]:
    """Return what server and device sent in each connection of a capture without losses, oldest first."""
    raw = (CAPTURES / f"{name}.pcap").read_bytes()
    found: dict[tuple[bytes, int], list[bytearray]] = {}
    for _, data in dpkt.pcap.Reader(io.BytesIO(raw)):
        packet = dpkt.ethernet.Ethernet(data).data
        segment = packet.data if isinstance(packet, dpkt.ip.IP) else None
        if not isinstance(segment, dpkt.tcp.TCP) or 5683 not in (segment.sport, segment.dport):
            continue
        from_server = segment.sport == 5683
        end = (packet.dst, segment.dport) if from_server else (packet.src, segment.sport)
        found.setdefault(end, [bytearray(), bytearray()])[0 if from_server else 1].extend(segment.data)
    return [(bytes(server), bytes(device)) for server, device in found.values()]


def handshake(name: str, attempt: int = 0) -> tuple[bytes, bytes, bytes]:
    server, device = conversations(name)[attempt]
    return server[:40], device[:256], server[40:424]


def truth(name: str) -> list[dict[str, Any]]:
    sessions: list[dict[str, Any]] = json.loads((CAPTURES / f"{name}.truth.json").read_text())["sessions"]
    return sessions


def frames(stream: bytes) -> Iterator[bytes]:
    at = 0
    while at + 2 <= len(stream):
        size = int.from_bytes(stream[at : at + 2], "big")
        yield stream[at + 2 : at + 2 + size]
        at += 2 + size


@pytest.mark.parametrize("name", ["healthy-full", "photon-fast-ota", "ota-complete", "keepalive-lost"])
def test_every_frame_of_a_real_session_opens_to_what_its_sender_wrote(name: str) -> None:
    server, device = conversations(name)[0]
    told = truth(name)[0]
    opener = SessionOpener(KeyRing.load(KEYS))
    identity = opener.identity(device[:256], server[:40])
    assert identity is not None
    assert identity.device_id == told["device_id"]
    offer = opener.offer(server[40:424], identity)
    assert offer.credentials is not None
    assert offer.credentials.blob is not None
    assert offer.credentials.blob.hex() == told["session_key"]["hex"]
    assert offer.signature == "valid"
    for stream, sent in ((device[256:], told["c2s"]), (server[424:], told["s2c"])):
        decryptor = FrameDecryptor(offer.credentials)
        opened = [decryptor.update(frame) for frame in frames(stream)]
        assert all(frame.whole and frame.obstacle is Obstacle.NONE for frame in opened)
        assert [frame.plaintext.hex() for frame in opened if frame.plaintext] == [row["hex"] for row in sent][
            : len(opened)
        ]
        assert len(opened) > 0


@pytest.mark.parametrize("attempt", range(3))
def test_the_mismatch_capture_is_well_signed_and_does_not_open_with_the_device_s_key(attempt: int) -> None:
    nonce, identity, session = handshake("key-mismatch-retries", attempt)
    keys = KeyRing.load(KEYS / "core-a.der", KEYS / "server.pub.pem")
    offer = SessionOpener(keys).offer(session, None)
    assert (offer.opened, offer.untried, offer.signature) == (False, 0, "valid")
    everything = SessionOpener(KeyRing.load(KEYS))
    found = everything.offer(session, everything.identity(identity, nonce))
    assert found.opened_by is not None
    assert "core-a-stale" in found.opened_by.name
    assert found.credentials is not None
    assert found.credentials.blob is not None
    assert found.credentials.blob.hex() == truth("key-mismatch-retries")[attempt]["session_key"]["hex"]


@pytest.mark.parametrize("attempt", range(2))
def test_the_bad_signature_capture_opens_and_its_signature_is_invalid(attempt: int) -> None:
    nonce, identity, session = handshake("bad-signature", attempt)
    opener = SessionOpener(KeyRing.load(KEYS / "core-a.der", KEYS / "server.pub.pem"))
    offer = opener.offer(session, None)
    assert (offer.opened, offer.signature, offer.signature_block_ok) == (True, "invalid", False)
    # With every key at hand the signer is known, and it is not the server that the device trusts.
    opener = SessionOpener(KeyRing.load(KEYS))
    offer = opener.offer(session, opener.identity(identity, nonce))
    assert offer.signature == "invalid"
    assert offer.signed_by is not None
    assert "other-server" in offer.signed_by.name


@pytest.mark.parametrize("attempt", range(3))
def test_the_wrong_server_key_capture_opens_with_the_other_server_s_key_only(attempt: int) -> None:
    nonce, identity, _ = handshake("wrong-server-key", attempt)
    assert SessionOpener(KeyRing.load(KEYS / "server.pem")).identity(identity, nonce) is None
    found = SessionOpener(KeyRing.load(KEYS)).identity(identity, nonce)
    assert found is not None
    assert "other-server" in found.opened_by.name
    assert (found.nonce_matches, found.device_id) == (True, truth("wrong-server-key")[attempt]["device_id"])


# --- frames -----------------------------------------------------------------------------------------------


def session_key(session: dict[str, Any]) -> SessionKey:
    return SessionKey.from_blob(bytes_of(session, "session_blob"))


def wire_frames(session: dict[str, Any], direction: str) -> list[tuple[bytes, bytes]]:
    return [
        (bytes.fromhex(frame["ciphertext"]), bytes.fromhex(frame["coap"]))
        for frame in session["frames"]
        if frame["dir"] == direction
    ]


@pytest.mark.parametrize("direction", BOTH)
@pytest.mark.parametrize("session", VECTORS["sessions"], ids=lambda session: session["name"])
def test_every_frame_of_every_vector_opens(session: dict[str, Any], direction: str) -> None:
    decryptor = FrameDecryptor(session_key(session))
    rows = wire_frames(session, direction)
    assert rows
    for ciphertext, coap in rows:
        opened = decryptor.update(ciphertext)
        assert (opened.plaintext, opened.whole, opened.missing) == (coap, True, 0)
        assert decryptor.next_iv == ciphertext[:16]


def long_chain(key: SessionKey, count: int, seed: int = 1) -> list[tuple[bytes, bytes]]:
    """Make frames of many sizes as a sender does."""
    rng, iv, made = random.Random(seed), key.iv or bytes(16), []
    for number in range(count):
        payload = rng.randbytes(rng.choice((0, 3, 6, 7, 8, 40, 300)))
        message = b"\x50\x02" + number.to_bytes(2, "big") + b"\xb1e" + (b"\xff" + payload if payload else b"")
        pad = 16 - len(message) % 16
        context = Cipher(algorithms.AES(key.key), modes.CBC(iv)).encryptor()
        ciphertext = context.update(message + bytes([pad]) * pad)
        iv = ciphertext[:16]
        made.append((ciphertext, message))
    return made


KEY = SessionKey.from_blob(bytes(range(40)))
FRAMES = long_chain(KEY, 60)


def test_a_lost_frame_costs_the_next_one_16_bytes_and_no_more() -> None:
    decryptor = FrameDecryptor(KEY)
    for index, (ciphertext, message) in enumerate(FRAMES):
        if index % 7 == 3:
            decryptor.skip()
            assert decryptor.next_iv is None
            continue
        opened = decryptor.update(ciphertext)
        if index % 7 != 4:
            assert (opened.plaintext, opened.whole) == (message, True)
        elif len(ciphertext) == 16:
            assert (opened.plaintext, opened.whole, opened.missing) == (None, False, 16)
            assert opened.obstacle is Obstacle.GAP_BEFORE
        else:
            assert (opened.plaintext, opened.whole, opened.missing) == (message[16:], False, 16)


def test_the_first_block_of_a_lost_frame_saves_the_next_one() -> None:
    decryptor = FrameDecryptor(KEY)
    decryptor.skip(FRAMES[4][0][:16])
    assert decryptor.update(FRAMES[5][0]).plaintext == FRAMES[5][1]


def test_the_gap_of_the_reference_recovers_as_it_says() -> None:
    gap = VECTORS["gap_recovery"]
    lost = bytes.fromhex(gap["lost_wire"])[2:]
    for session in VECTORS["sessions"]:
        decryptor = FrameDecryptor(session_key(session))
        for ciphertext, _ in wire_frames(session, BOTH[0]) + wire_frames(session, BOTH[1]):
            if ciphertext == lost:
                decryptor.skip()
                after = decryptor.update(bytes.fromhex(gap["next_wire"])[2:])
                following = decryptor.update(bytes.fromhex(gap["following_wire"])[2:])
                padded = bytes.fromhex(gap["next_blocks_1_plaintext"])
                assert (after.plaintext, after.missing) == (padded[: -padded[-1]], 16)
                expected = bytes.fromhex(gap["following_plaintext"])
                assert following.plaintext == expected[: -expected[-1]]
                return
    pytest.fail("the lost frame belongs to none of the sessions")


def test_a_capture_begun_mid_session_loses_only_the_first_16_bytes() -> None:
    decryptor = FrameDecryptor(KEY, in_step=False)
    opened = [decryptor.update(ciphertext) for ciphertext, _ in FRAMES[20:]]
    assert opened[0].obstacle is Obstacle.GAP_BEFORE
    assert [frame.plaintext for frame in opened[1:]] == [message for _, message in FRAMES[21:]]


def test_the_aes_key_alone_opens_all_but_the_first_16_bytes() -> None:
    decryptor = FrameDecryptor(SessionKey(KEY.key))
    opened = [decryptor.update(ciphertext) for ciphertext, _ in FRAMES]
    assert (opened[0].whole, opened[0].missing) == (False, 16)
    assert all(frame.whole for frame in opened[1:])


def test_four_right_bytes_of_padding_are_enough() -> None:
    key = SessionKey.from_blob(bytes(range(40)))
    message = b"\x50\x02\x00\x01\xb1e\xff" + b"12345"
    context = Cipher(algorithms.AES(key.key), modes.CBC(key.iv or b"")).encryptor()
    assert fitting_session_key([key], [[context.update(message + b"\4" * 4)]]) == key


def test_of_a_frame_that_does_not_open_nothing_is_said_to_be_missing() -> None:
    for in_step in (True, False):
        opened = FrameDecryptor(KEY, in_step=in_step).update(bytes(32))
        assert (opened.plaintext, opened.missing, opened.obstacle) == (None, 0, Obstacle.BAD_PADDING)


def test_the_session_key_that_fits_is_found_among_many() -> None:
    rng = random.Random(9)
    wrong = [SessionKey.from_blob(rng.randbytes(40)) for _ in range(3000)]
    ciphertexts = [ciphertext for ciphertext, _ in FRAMES]
    assert fitting_session_key([*wrong, KEY], [ciphertexts, []]) == KEY
    assert fitting_session_key(wrong, [ciphertexts, ciphertexts[3:]]) is None
    assert fitting_session_key([*wrong, SessionKey(KEY.key)], [ciphertexts[20:]], in_step=False) == SessionKey(KEY.key)
    for session in VECTORS["sessions"]:
        directions = [[ciphertext for ciphertext, _ in wire_frames(session, direction)] for direction in BOTH]
        assert fitting_session_key([*wrong[:9], session_key(session)], directions) == session_key(session)


def troubles(key: SessionKey, ciphertexts: list[bytes]) -> list[tuple[int, int, Trouble]]:
    decryptor, pattern = FrameDecryptor(key), FailurePattern()
    for ciphertext in ciphertexts:
        pattern.note(decryptor.update(ciphertext))
    return [(run.first, run.count, meaning) for run, meaning in pattern.troubles()]


def test_a_healthy_direction_has_no_trouble() -> None:
    assert troubles(KEY, [ciphertext for ciphertext, _ in FRAMES]) == []


def test_a_wrong_key_opens_nothing_at_all() -> None:
    wrong = SessionKey.from_blob(bytes(40))
    assert troubles(wrong, [ciphertext for ciphertext, _ in FRAMES]) == [(0, 60, Trouble.WRONG_KEY)]


def test_a_frame_that_is_missing_unseen_spoils_one_start_only() -> None:
    ciphertexts = [ciphertext for ciphertext, _ in FRAMES]
    at = next(index for index in range(5, 60) if len(ciphertexts[index]) > 32)
    assert troubles(KEY, ciphertexts[: at - 1] + ciphertexts[at:]) == [(at - 1, 1, Trouble.FRAME_MISSING)]


def test_a_flipped_bit_is_damage_that_passes() -> None:
    ciphertexts = [bytearray(ciphertext) for ciphertext, _ in FRAMES]
    at = next(index for index in range(5, 50) if len(ciphertexts[index]) > 32)
    ciphertexts[at][-1] ^= 1
    assert troubles(KEY, [bytes(frame) for frame in ciphertexts]) == [(at, 1, Trouble.DAMAGED)]


def test_from_another_key_on_it_is_lost_for_good() -> None:
    ciphertexts = [ciphertext for ciphertext, _ in FRAMES]
    foreign = [ciphertext for ciphertext, _ in long_chain(SessionKey.from_blob(bytes(40)), 20)]
    assert troubles(KEY, ciphertexts[:30] + foreign) == [(30, 20, Trouble.LOST)]


def test_lengths_that_are_no_blocks_are_lost_framing() -> None:
    assert troubles(KEY, [FRAMES[0][0], b"x" * 17, b""]) == [(1, 2, Trouble.FRAMING)]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=70), max_size=12), st.booleans())
def test_any_frames_are_only_ever_refused(pieces: list[bytes], in_step: bool) -> None:
    decryptor, pattern = FrameDecryptor(KEY, in_step=in_step), FailurePattern()
    for piece in pieces:
        pattern.note(decryptor.update(piece))
    assert pattern.frames == len(pieces)
    assert sum(run.count for run, _ in pattern.troubles()) <= len(pieces)


def test_a_failed_login_goes_on_with_the_chain_of_the_session_before() -> None:
    decryptor = FrameDecryptor(KEY)
    for ciphertext, _ in FRAMES:
        decryptor.update(ciphertext)
    assert decryptor.next_iv is not None
    dead = DeadKeys()
    dead.remember_session("device", KEY.key, decryptor.next_iv)
    context = Cipher(algorithms.AES(KEY.key), modes.CBC(decryptor.next_iv)).encryptor()
    found = dead.recognise("device", context.update(b"\x40\x00\x12\x34" + b"\x0c" * 12))
    assert found is not None
    assert found.under == "key of an earlier session"


# --- the range test ---------------------------------------------------------------------------------------


def blocks_below(n: int, count: int, seed: int) -> list[bytes]:
    rng = random.Random(seed)
    return [rng.randrange(n).to_bytes(256, "big") for _ in range(count)]


def test_one_block_above_the_modulus_excludes_a_key_for_certain() -> None:
    smaller, larger = sorted((SERVER, OTHER_SERVER), key=lambda key: key.n, reverse=False)
    test = RangeTest(smaller.n)
    assert (test.count, test.excluded, test.p_value) == (0, False, 1.0)
    test.add((smaller.n - 1).to_bytes(256, "big"))
    assert not test.excluded
    test.add((smaller.n + 2).to_bytes(256, "big"))
    assert (test.excluded, test.p_value, test.unlikely) == (True, 0.0, True)
    assert larger.n > smaller.n


def test_a_single_block_above_the_modulus_is_enough() -> None:
    test = RangeTest(SERVER.n)
    test.add(SERVER.n.to_bytes(256, "big"))  # a block is below it
    assert (test.count, test.excluded) == (1, True)


def test_blocks_are_counted_up_to_a_bound() -> None:
    test = RangeTest(SERVER.n)
    for number in range(MOST_RANGE_VALUES + 10):
        test.add(number.to_bytes(256, "big"))
    assert test.count == MOST_RANGE_VALUES


def test_many_blocks_far_below_a_larger_modulus_make_it_unlikely() -> None:
    test = RangeTest(OTHER_SERVER.n * 11 // 10)
    for block in blocks_below(OTHER_SERVER.n, 200, 7):
        test.add(block)
    assert not test.excluded
    assert test.unlikely


def test_the_right_key_is_neither_excluded_nor_unlikely() -> None:
    false_alarms = 0
    for seed in range(200):
        test = RangeTest(SERVER.n)
        for block in blocks_below(SERVER.n, 5, seed):
            test.add(block)
        assert not test.excluded
        false_alarms += test.unlikely
    assert false_alarms <= 8


def test_a_retransmitted_block_and_a_cut_one_do_not_count() -> None:
    test = RangeTest(SERVER.n)
    block = blocks_below(SERVER.n // 2, 1, 3)[0]
    for _ in range(50):
        test.add(block)
    test.add(block[:200])
    assert test.count == 1
    assert not test.unlikely


def test_the_wrong_server_key_capture_excludes_or_spares_by_public_keys_alone() -> None:
    ring = KeyRing.load(KEYS)
    right = next(key for key in ring.server_keys if "other-server" in key.name)
    test = RangeTest(right.n)
    for attempt in range(3):
        test.add(handshake("wrong-server-key", attempt)[1])
    assert (test.count, test.excluded) == (3, False)


def test_no_key_material_is_printed() -> None:
    canary = bytes.fromhex("c0ffee0011223344556677889900aabbccddeeff0123456789abcdef0badcafedeadbeef0badf00d")
    key = SessionKey.from_blob(canary)
    offer = open_offer(rsa.seal_block(CORE.public, canary, b"\x01" * 85) + bytes(256), [CORE], [SERVER])
    assert offer.credentials == key
    printed = repr(key) + repr(offer) + repr(FrameDecryptor(key)) + str(offer.credentials)
    for start in range(0, 40, 8):
        assert canary[start : start + 8].hex() not in printed
        assert repr(canary[start : start + 8])[2:-1] not in printed
    assert CORE.secret is not None
    assert str(CORE.secret.d) not in printed
