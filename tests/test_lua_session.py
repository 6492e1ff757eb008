"""Frames opened by the plugin's Lua: what the Python opens, to the byte, and the same words for what it does not."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import CAPTURES, NAMES, captured, shipped, simulate, truth
from keyed import KEYS, is_part_of, key_folder, unlock
from lua_engine import INSIDE_WIRESHARK, VERSIONS, engine
from test_lua_streams import hasty

from analyzer import deadkey, streams
from analyzer.capture.packet import Packet
from analyzer.catalogue import SPARK_PORT
from analyzer.conversation import Conversation
from analyzer.deadkey import DeadFrame, DeadKeys, zero_key_constants
from analyzer.decryption import BAD_FRAMES, QUEUED
from analyzer.handshake import TurnReader
from analyzer.keys import KeyRing, SessionKey
from analyzer.keys.keylog import key_log_line
from analyzer.messages import log
from analyzer.network import Decoder
from analyzer.network.units import ACK, FIN, RST, SYN, Segment
from analyzer.session import (
    FailurePattern,
    FrameDecryptor,
    OpenedFrame,
    RangeTest,
    fitting_session_key,
)
from analyzer.simulate import damage, exchanges, finish, make_world
from analyzer.simulate.conversation import Conversation as Told
from analyzer.simulate.keys import SERVER_BITS
from analyzer.simulate.scenarios.steps import BAD_SIGNATURE, cannot_use_offer, until_offer

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "vectors.json").read_text())
BOTH = ("device->server", "server->device")
ZERO = bytes(16)
KEY = SessionKey.from_blob(bytes(range(40)))
WRONG = SessionKey.from_blob(bytes(range(100, 140)))


@cache
def loaded(version: str) -> tuple[Any, Any]:
    """The plugin's parts in one Lua for all tests: none of them keeps anything between calls."""
    return engine(version)


def sealed(key: bytes, iv: bytes, message: bytes) -> bytes:
    count = 16 - len(message) % 16
    context = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return context.update(message + bytes([count]) * count) + context.finalize()


def ping(number: int) -> bytes:
    return b"\x40\x00" + number.to_bytes(2, "big")


def session_keys(lua: Any, keys: Iterable[SessionKey]) -> Any:
    """Session keys as the plugin's key ring holds them."""
    return lua.table_from(
        [lua.table_from({b"key": key.key, b"iv": key.iv, b"salt": key.salt}) for key in keys],
    )


# -- one direction's frames -------------------------------------------------------------------------------------------

Opened = tuple[bytes | None, bool, int, str]
Step = bytes | None | tuple[bytes]
"""A frame's ciphertext; None for frames that are missing; in a tuple, what the capture still has of their last."""


def told(opened: Any) -> Opened:
    if isinstance(opened, OpenedFrame):
        return opened.plaintext, opened.whole, opened.missing, opened.obstacle.value
    return opened[b"plaintext"], opened[b"whole"], opened[b"missing"], opened[b"obstacle"].decode()


def in_python(key: SessionKey, steps: Sequence[Step], *, in_step: bool = True) -> list[Any]:
    """What each step gave, with the next IV behind it; then what the failures mean."""
    decryptor, pattern = FrameDecryptor(key, in_step=in_step), FailurePattern()
    out: list[Any] = []
    for step in steps:
        if isinstance(step, bytes):
            opened = decryptor.update(step)
            pattern.note(opened)
            out.append((told(opened), decryptor.next_iv))
        else:
            decryptor.skip(step[0] if step else None)
            out.append((None, decryptor.next_iv))
    runs = [
        (run.first, run.count, run.recovered, [o.value for o in run.obstacles], meaning.value)
        for run, meaning in pattern.troubles()
    ]
    return [out, runs, pattern.frames, pattern.opened]


def in_lua(version: str, key: SessionKey, steps: Sequence[Step], *, in_step: bool = True) -> list[Any]:
    lua, spark = loaded(version)
    decryptor = spark[b"FrameDecryptor"][b"new"](session_keys(lua, [key])[1], in_step)
    pattern = spark[b"FailurePattern"][b"new"]()
    out: list[Any] = []
    for step in steps:
        if isinstance(step, bytes):
            opened = decryptor[b"update"](decryptor, step)
            pattern[b"note"](pattern, opened)
            out.append((told(opened), decryptor[b"next_iv"]))
        else:
            decryptor[b"skip"](decryptor, step[0] if step else None)
            out.append((None, decryptor[b"next_iv"]))
    runs = []
    for trouble in pattern[b"troubles"](pattern).values():
        run = trouble[b"run"]
        obstacles = [o.decode() for o in run[b"obstacles"].values()]
        runs.append((run[b"first"], run[b"count"], run[b"recovered"], obstacles, trouble[b"trouble"].decode()))
    return [out, runs, pattern[b"frames"], pattern[b"opened"]]


def vector_frames(session: dict[str, Any], direction: str) -> list[tuple[bytes, bytes]]:
    rows = [row for row in session["frames"] if row["dir"] == direction]
    return [(bytes.fromhex(row["ciphertext"]), bytes.fromhex(row["coap"])) for row in rows]


@pytest.mark.parametrize("session", VECTORS["sessions"], ids=lambda session: session["name"])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_frame_of_every_vector_opens(version: str, session: dict[str, Any]) -> None:
    key = SessionKey.from_blob(bytes.fromhex(session["session_blob"]))
    for direction in BOTH:
        rows = vector_frames(session, direction)
        out, runs, frames, opened = in_lua(version, key, [ciphertext for ciphertext, _ in rows])
        assert [item[0] for item in out] == [(coap, True, 0, "none") for _, coap in rows]
        assert [item[1] for item in out] == [ciphertext[:16] for ciphertext, _ in rows]
        assert (runs, frames, opened) == ([], len(rows), len(rows))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_gap_of_the_reference_recovers_as_it_says(version: str) -> None:
    gap = VECTORS["gap_recovery"]
    lost, after, following = (bytes.fromhex(gap[f"{name}_wire"])[2:] for name in ("lost", "next", "following"))
    (session,) = (s for s in VECTORS["sessions"] if any(row["ciphertext"] == lost.hex() for row in s["frames"]))
    key = SessionKey.from_blob(bytes.fromhex(session["session_blob"]))
    rest, whole = (bytes.fromhex(gap[name]) for name in ("next_blocks_1_plaintext", "following_plaintext"))
    rest, whole = rest[: -rest[-1]], whole[: -whole[-1]]
    (_, first, second), *_ = in_lua(version, key, [None, after, following])
    assert first[0] == (rest, False, 16, "gap-before")
    assert second[0] == (whole, True, 0, "none")
    # The capture still has the first block of the frame that is lost: then nothing more is.
    (_, first, _), *_ = in_lua(version, key, [(lost[:16],), after, following])
    assert first[0][1:] == (True, 0, "none")
    assert first[0][0].endswith(rest)


def long_chain(key: SessionKey, count: int, seed: int) -> list[bytes]:
    """Frames of many sizes, as a sender makes them."""
    rng, iv, made = random.Random(seed), key.iv or ZERO, []
    for number in range(count):
        payload = rng.randbytes(rng.choice((0, 3, 6, 7, 8, 40, 300)))
        message = b"\x50\x02" + number.to_bytes(2, "big") + b"\xb1e" + (b"\xff" + payload if payload else b"")
        made.append(sealed(key.key, iv, message))
        iv = made[-1][:16]
    return made


FRAMES = long_chain(KEY, 60, 1)


@st.composite
def damaged_runs(draw: st.DrawFn) -> list[Step]:
    """A direction's frames with holes, flipped bits, foreign frames and rubbish among them."""
    start = draw(st.integers(0, 40))
    steps: list[Step] = []
    for frame in FRAMES[start : start + draw(st.integers(1, 20))]:
        what = draw(
            st.sampled_from(["as sent"] * 6 + ["flipped", "lost", "head left", "swallowed", "foreign", "bytes"])
        )
        if what == "flipped":
            at, bit = draw(st.integers(0, len(frame) - 1)), draw(st.integers(0, 7))
            steps.append(frame[:at] + bytes([frame[at] ^ 1 << bit]) + frame[at + 1 :])
        elif what == "lost":
            steps.append(None)
        elif what == "head left":
            steps.append((frame[: draw(st.integers(0, 16))],))
        elif what == "foreign":
            steps.append(sealed(WRONG.key, ZERO, frame[:20]))
        elif what == "bytes":
            steps.append(draw(st.binary(max_size=50)))
        elif what == "as sent":
            steps.append(frame)
    return steps


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
@settings(max_examples=120, deadline=None)
@given(steps=damaged_runs(), in_step=st.booleans(), key=st.sampled_from([KEY, SessionKey(KEY.key), WRONG]))
def test_damaged_frames_give_what_they_give_in_python(
    version: str, steps: list[Step], in_step: bool, key: SessionKey
) -> None:
    assert in_lua(version, key, steps, in_step=in_step) == in_python(key, steps, in_step=in_step)


@pytest.mark.parametrize("version", VERSIONS)
def test_each_meaning_of_a_failure_is_told_as_in_python(version: str) -> None:
    long = next(at for at in range(5, 50) if len(FRAMES[at]) > 32)
    flipped = FRAMES[long][:-1] + bytes([FRAMES[long][-1] ^ 1])
    meanings = set()
    for key, steps in (
        (WRONG, FRAMES),
        (KEY, FRAMES[: long - 1] + FRAMES[long:]),
        (KEY, [*FRAMES[:long], flipped, *FRAMES[long + 1 :]]),
        (KEY, FRAMES[:30] + long_chain(WRONG, 20, 2)),
        (KEY, [FRAMES[0], b"x" * 17, b""]),
        # More frames in a run, and more runs, than are kept.
        (KEY, [*FRAMES[:3], *[b"x" * 16] * 20, *FRAMES[:3]]),
        (KEY, [f[:-1] + bytes([f[-1] ^ at % 3 // 2]) for at, f in enumerate(long_chain(KEY, 240, 3))]),
    ):
        found = in_lua(version, key, steps)
        assert found == in_python(key, steps)
        meanings |= {run[-1] for run in found[1]}
    assert meanings == {"wrong key", "one frame missing", "damaged on the way", "lost for good", "framing lost"}


# -- which session key ------------------------------------------------------------------------------------------------


def fitting_in_lua(
    version: str, candidates: Sequence[SessionKey], directions: Sequence[Sequence[bytes]], *, in_step: bool = True
) -> SessionKey | None:
    lua, spark = loaded(version)
    frames = lua.table_from([lua.table_from(list(ciphertexts)) for ciphertexts in directions])
    found = spark[b"fitting_session_key"](session_keys(lua, candidates), frames, in_step)
    return found and SessionKey(found[b"key"], found[b"iv"], found[b"salt"])


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
def test_the_session_key_that_fits_is_found_among_many(version: str) -> None:
    rng = random.Random(9)
    wrong = [SessionKey.from_blob(rng.randbytes(40)) for _ in range(300)]
    assert fitting_in_lua(version, [*wrong, KEY], [FRAMES, []]) == KEY
    assert fitting_in_lua(version, wrong, [FRAMES, FRAMES[3:]]) is None
    alone = SessionKey(KEY.key)
    assert fitting_in_lua(version, [*wrong, alone], [FRAMES[20:]], in_step=False) == alone
    for session in VECTORS["sessions"]:
        key = SessionKey.from_blob(bytes.fromhex(session["session_blob"]))
        directions = [[ciphertext for ciphertext, _ in vector_frames(session, direction)] for direction in BOTH]
        assert fitting_in_lua(version, [*wrong[:9], key], directions) == key


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_same_key_fits_as_in_python(version: str, data: st.DataObject) -> None:
    keys = data.draw(st.lists(st.sampled_from([KEY, SessionKey(KEY.key), WRONG]), max_size=3))
    frames = st.one_of(st.sampled_from(FRAMES), st.binary(max_size=40))
    directions = data.draw(st.lists(st.lists(frames, max_size=6), max_size=2))
    start = data.draw(st.integers(0, 50))
    directions.append(FRAMES[start : start + data.draw(st.integers(0, 4))])
    in_step = data.draw(st.booleans())
    expected = fitting_session_key(keys, directions, in_step=in_step)
    assert fitting_in_lua(version, keys, directions, in_step=in_step) == expected


# -- dead keys --------------------------------------------------------------------------------------------------------

DEAD = [bytes.fromhex(row["wire"])[2:] for row in VECTORS["zero_key_frames"]]


class LuaDeadKeys:
    """The plugin's `DeadKeys`, with the answers of Python's."""

    def __init__(self, version: str) -> None:
        self._own = loaded(version)[1][b"DeadKeys"][b"new"]()

    def recognise(self, device: bytes, ciphertext: bytes) -> DeadFrame | None:
        found = self._own[b"recognise"](self._own, device, ciphertext)
        if found is None:
            return None
        words = (found[name].decode() for name in (b"message", b"under", b"how"))
        return DeadFrame(found[b"plaintext"], *words)

    def remember_session(self, device: bytes, key: bytes, next_iv: bytes) -> None:
        self._own[b"remember_session"](self._own, device, key, next_iv)

    @property
    def remembered(self) -> int:
        count: int = self._own[b"_devices"][b"count"]
        return count


@pytest.mark.parametrize("version", VERSIONS)
def test_the_constants_of_the_zero_key_are_those_of_python(version: str) -> None:
    assert dict(loaded(version)[1][b"zero_key_constants"]().items()) == zero_key_constants()


@pytest.mark.parametrize("version", VERSIONS)
def test_each_constant_of_the_reference_is_recognised_even_as_the_first_frame_seen(version: str) -> None:
    for row, ciphertext in zip(VECTORS["zero_key_frames"], DEAD, strict=True):
        found = LuaDeadKeys(version).recognise(b"device", ciphertext)
        assert found == DeadKeys().recognise(b"device", ciphertext)
        assert found is not None
        assert found.plaintext.hex() == row["coap"]


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
def test_a_chain_goes_on_past_the_computed_constants_and_a_session_s_key_after_it(version: str) -> None:
    ours, python, iv = LuaDeadKeys(version), DeadKeys(), ZERO
    how = []
    for number in range(1, 150):
        frame = sealed(ZERO, iv, ping(number))
        found = ours.recognise(b"device", frame)
        assert found == python.recognise(b"device", frame)
        how.append(found and found.how)
        iv = frame[:16]
    assert (how[0], how[-1]) == ("constant", "chain")
    beyond = sealed(ZERO, iv, ping(150))
    assert ours.recognise(b"another", beyond) is None

    ours.remember_session(b"device", KEY.key, WRONG.key)
    assert ours.recognise(b"device", beyond) is None  # the device has had another key since
    iv = WRONG.key
    for number in (77, 78):
        frame = sealed(KEY.key, iv, ping(number))
        assert ours.recognise(b"another", frame) is None
        found = ours.recognise(b"device", frame)
        assert found == DeadFrame(ping(number), "ping", "key of an earlier session", "chain")
        iv = frame[:16]


UNASKED = [
    ping(7),
    b"\x41\x01\x00\x01\x05\xb1t",
    b"\x50\x02\x00\x02\xb1E\x04temp\xff21.5" + b"x" * 90,
    b"\x40\x02\x00\x03\xb1e\x03abc",
    b"\x40\x01\x00\x04\xb1e\x02hi",
]
ASKED = [
    b"\x60\x00\x00\x01",  # an acknowledgement
    b"\x51\x02\x70\x01\x01\xb1h",  # a hello
    b"\x42\x01\x00\x01\x05\x06\xb1t",  # a token of two bytes
    b"\x40\x00\x00\x01\xff",  # a ping with something behind it
    b"\x40\x03\x00\x01\xb1e",  # no GET, no POST
    b"\x80\x00\x00\x01",  # version 2
    b"\x50\x02\x00\x02\xb9E",  # an option beyond the end
    b"",
]


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_story_of_dead_keys_is_recognised_as_in_python(version: str, data: st.DataObject) -> None:
    ours, python = LuaDeadKeys(version), DeadKeys()
    chains = {b"one": (ZERO, ZERO), b"two": (ZERO, ZERO)}  # key and IV that each device goes on with
    for _ in range(data.draw(st.integers(1, 12))):
        device = data.draw(st.sampled_from(sorted(chains)))
        key, iv = chains[device]
        what = data.draw(st.sampled_from(["frame"] * 4 + ["login", "boot", "constant", "foreign", "bytes"]))
        if what == "login":
            key, iv = data.draw(st.sampled_from([KEY.key, WRONG.key])), data.draw(st.sampled_from([KEY.key, WRONG.key]))
            ours.remember_session(device, key, iv)
            python.remember_session(device, key, iv)
            chains[device] = key, iv
            continue
        if what == "boot":
            chains[device] = ZERO, ZERO
            continue
        if what == "frame":
            frame = sealed(key, iv, data.draw(st.sampled_from(UNASKED + ASKED)))
            chains[device] = key, frame[:16]
        elif what == "constant":
            frame = data.draw(st.sampled_from(DEAD))
        elif what == "foreign":
            frame = sealed(KEY.key, WRONG.key, UNASKED[0])
        else:
            frame = data.draw(st.binary(max_size=70))
        assert ours.recognise(device, frame) == python.recognise(device, frame)


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
def test_what_is_remembered_of_devices_does_not_grow_and_the_one_heard_last_stays(version: str) -> None:
    ours, python = LuaDeadKeys(version), DeadKeys()
    second = sealed(ZERO, DEAD[2][:16], UNASKED[2])
    for dead in (ours, python):
        dead.recognise(b"first", DEAD[2])
        dead.recognise(b"second", DEAD[2])
        for number in range(deadkey.MOST_DEVICES - 2):
            dead.recognise(b"%d" % number, DEAD[2])
        dead.recognise(b"first", DEAD[2])  # heard again, so the second is forgotten for the next
        dead.recognise(b"one more", DEAD[2])
    assert ours.remembered == len(python._devices) == deadkey.MOST_DEVICES
    for device in (b"first", b"second", b"0", b"one more"):
        assert (ours.recognise(device, second) is None) == (device == b"second")
        assert (python.recognise(device, second) is None) == (device == b"second")


# -- the range test ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_range_test_says_the_same_of_a_modulus(version: str, data: st.DataObject) -> None:
    n = data.draw(st.integers(1 << 1023, (1 << 1024) - 1))
    near = st.integers(max(0, n - 2), min(n + 2, (1 << 1024) - 1))
    blocks = data.draw(st.lists(st.one_of(st.integers(0, (1 << 1024) - 1), st.integers(0, n - 1), near), max_size=6))
    python, lua = RangeTest(n), loaded(version)[1][b"RangeTest"][b"new"](n.to_bytes(128, "big"))
    for block in blocks + blocks[:1]:
        sent = block.to_bytes(128, "big")
        for cut in (sent, sent[:100]):
            python.add(cut)
            lua[b"add"](lua, cut)
    assert (lua[b"count"], lua[b"excluded"]) == (python.count, python.excluded)
    assert lua[b"p_value"] == pytest.approx(python.p_value, rel=1e-9)
    assert lua[b"unlikely"] == python.unlikely


# -- whole conversations ----------------------------------------------------------------------------------------------


class Plugin:
    """The plugin's parts from the segment to the message, over one capture."""

    def __init__(self, version: str, **keys: str) -> None:
        self.lua, spark = loaded(version)
        named = {b"device_key": b"", b"server_key": b"", b"keylog": b""}
        named |= {name.encode(): path.encode() for name, path in keys.items()}
        spark[b"files"][b"list"] = self._list
        ring = spark[b"KeyRing"][b"load"](self.lua.table_from(named))
        ports = self.lua.table_from({SPARK_PORT: True})
        self.analysis = spark[b"Analysis"][b"new"](self.lua.table_from({b"ports": ports, b"keys": ring}))
        self.analysis[b"late"] = self._late
        self.frames: list[dict[bytes, Any]] = []  # items of frames, in the order in which they were told
        self.late: list[dict[bytes, Any]] = []  # those that had to wait, with what opened in the end
        self._decode = Decoder().decode
        self.taken = 0

    def _list(self, path: bytes) -> Any:
        return self.lua.table_from(sorted(os.listdir(path))) if os.path.isdir(path) else None

    def _late(self, conversation: Any, frame: Any, opened: Any, message: Any) -> None:
        self.late.append({b"conversation": conversation, b"frame": frame, b"opened": opened, b"message": message})

    def take(self, packets: Iterable[Packet]) -> Plugin:
        for packet in packets:
            self.taken += 1
            unit = self._decode(packet)
            if isinstance(unit, Segment) and SPARK_PORT in (unit.source_port, unit.target_port):
                segment = self.lua.table_from(self._segment(self.taken, unit))
                _, items = self.analysis[b"take"](self.analysis, segment)
                self.frames += [dict(item.items()) for item in items.values() if item[b"what"] == b"frame"]
        return self

    @staticmethod
    def _segment(number: int, unit: Segment) -> dict[bytes, Any]:
        names = ("source", "target", "source_port", "target_port", "seq", "ack", "length", "payload", "ip_id", "ttl")
        segment = {name.encode(): getattr(unit, name) for name in names}
        flags = {b"syn": SYN, b"fin": FIN, b"rst": RST, b"acks": ACK}
        segment |= {name: bool(unit.flags & bit) for name, bit in flags.items()}
        return segment | {b"number": number, b"time": unit.time_ns / 1e9, b"window": unit.window}

    def told(self) -> dict[Any, Any]:
        """All that is known of each connection, by its ends, in the words of `of_python`."""
        found = {}
        for c in self.analysis[b"trace"][b"conversations"].values():
            secrets = c[b"secrets"]
            own = [item for item in [*self.late, *self.frames] if item[b"conversation"][b"number"] == c[b"number"]]
            named = [item[b"message"] for item in own if item.get(b"message") is not None]
            messages = [(m[b"direction"], (m[b"plaintext"], m[b"missing"], _text(m[b"name"]))) for m in named]
            dead = [item for item in own if item.get(b"dead")]
            identity, offer, key = secrets[b"identity"], secrets[b"offer"], secrets[b"session_key"]
            found[c[b"device"][b"ip"].decode(), c[b"device"][b"port"]] = {
                "device id": _text(c[b"device"][b"id"]),
                "dead": [(item[b"frame"][b"packet"], item[b"dead"].decode()) for item in dead],
                "device": [message for sender, message in messages if sender == b"device"],
                "server": [message for sender, message in messages if sender == b"server"],
                "identity": identity and (identity[b"device_id"].decode(), identity[b"nonce_matches"]),
                "offer": offer and (offer[b"opened"], offer[b"signature"].decode(), offer[b"identity_key_differs"]),
                "key": key and (key[b"key"], Path(secrets[b"key_source"].decode()).stem),
                "counts": tuple(secrets[name] for name in (b"opened", b"partly", b"lost")),
                "bad": [
                    (
                        bad[b"sender"].decode(),
                        bad[b"position"],
                        bad[b"packet"],
                        bad[b"obstacle"].decode(),
                        bad[b"behind_gap"],
                    )
                    for bad in secrets[b"bad_frames"].values()
                ],
                "patterns": {
                    sender.decode(): (
                        pattern[b"frames"],
                        pattern[b"opened"],
                        [t[b"trouble"].decode() for t in pattern[b"troubles"](pattern).values()],
                    )
                    for sender, pattern in secrets[b"patterns"].items()
                    if pattern[b"frames"]
                },
                "hellos": {sender.decode() for sender in secrets[b"hellos"]},
            }
        return found


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def of_python(c: Conversation) -> dict[str, Any]:
    secrets = c.secrets
    assert secrets is not None
    identity, offer, key = secrets.identity, secrets.offer, secrets.session_key
    named = [(m.direction, (m.plaintext, m.missing, m.name)) for m in c.messages]
    return {
        "device id": c.device.id if identity else None,  # announcements tell it, too
        "dead": [(frame.packet, frame.dead) for frame in c.dead_frames],
        "device": [message for sender, message in named if sender == "device"],
        "server": [message for sender, message in named if sender == "server"],
        "identity": identity and (identity.device_id, identity.nonce_matches),
        "offer": offer and (offer.opened, offer.signature, offer.identity_key_differs),
        "key": key and (key.key, Path(secrets.key_source or "").stem),  # x.der and x.pem are one key
        "counts": (secrets.opened, secrets.partly, secrets.lost),
        "bad": [(b.sender.value, b.position, b.packet, b.obstacle.value, b.behind_gap) for b in secrets.bad_frames],
        "patterns": {
            sender.value: (pattern.frames, pattern.opened, [trouble.value for _, trouble in pattern.troubles()])
            for sender, pattern in secrets.patterns.items()
            if pattern.frames
        },
        "hellos": {sender.value for sender in secrets.hellos},
    }


def told_by_python(packets: Iterable[Packet], keys: KeyRing) -> dict[Any, Any]:
    """The same of the analyzer, which for once is as the plugin is on purpose: it waits as little for a hole, brings
    no messages into the order of their packets, and makes nothing of what is still open when the capture ends.
    """
    with ExitStack() as stack:
        stack.enter_context(hasty())
        stack.enter_context(patch.object(log, "REORDERED", 0))
        stack.enter_context(patch.object(streams.Stream, "finish"))
        stack.enter_context(patch.object(TurnReader, "finish"))
        trace = unlock(packets, keys)
    return {(c.device.ip, c.device.port): of_python(c) for c in trace.conversations}


WITH_LOGIN = [name for name in NAMES if any(s["session_key"] for s in truth(name)["sessions"])]


def key_files(name: str) -> dict[str, str]:
    """The keys that played in a shipped capture, as the plugin's preferences name them."""
    devices = [device["device_private"] for device in truth(name)["keys"]["devices"].values()]
    device = str(CAPTURES / devices[0]) if len(devices) == 1 else str(KEYS)
    return {"device_key": device, "server_key": str(KEYS / "server.pem")}


@cache
def ring(*paths: str) -> KeyRing:
    return KeyRing.load(*paths)


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
@pytest.mark.parametrize("name", WITH_LOGIN)
def test_a_shipped_capture_opens_as_in_python(version: str, name: str) -> None:
    keys = key_files(name)
    found = Plugin(version, **keys).take(shipped(name)).told()
    assert found == told_by_python(shipped(name), ring(*keys.values()))


@pytest.mark.parametrize("name", ["key-mismatch-retries", "bad-signature", "photon-fast-ota"])
def test_a_fleet_s_folder_of_keys_tells_of_a_shipped_capture_what_it_tells_in_python(name: str) -> None:
    found = Plugin("lua54", device_key=str(KEYS)).take(shipped(name)).told()
    assert found == told_by_python(shipped(name), ring(str(KEYS)))


KEYED_STORIES = [
    "dead-key",
    "framing-lost",
    "gap",
    "gap-in-handshake",
    "lossy",
    "mid-session",
    "missing-syn",
    "no-nonce-ping",
    "offers-other-key",
    "old-session-key",
    "one-way-device",
    "one-way-server",
    "port-reuse",
    "reply-lost",
    "seq-wrap",
    "snaplen",
    "wrong-cipher",
]


def key_log(folder: Path, session_keys: Iterable[tuple[str | None, str]]) -> str:
    """Write a key log of (nonce, session key), both as digits."""
    path = folder / "keys.log"
    lines = [
        key_log_line(None if nonce is None else bytes.fromhex(nonce), SessionKey.from_blob(bytes.fromhex(digits)))
        for nonce, digits in session_keys
    ]
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


@pytest.mark.parametrize("name", KEYED_STORIES)
def test_a_story_opens_as_in_python_with_key_files_and_with_session_keys(name: str, tmp_path: Path) -> None:
    story = simulate(name)
    packets = captured(story.packets, story.link_type)
    keys = key_folder(story, tmp_path)
    assert Plugin("lua52", device_key=str(tmp_path)).take(packets).told() == told_by_python(packets, keys)
    for nonces in (True, False):
        logged = [
            (s["nonce"] if nonces else None, s["session_key"]["hex"])
            for s in story.truth["sessions"]
            if s["session_key"]
        ]
        if logged:
            log = key_log(tmp_path, logged)
            found = Plugin("lua54", keylog=log).take(packets).told()
            assert found == told_by_python(packets, KeyRing.load(keylogs=[log]))


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_capture_with_packets_missing_opens_as_far_as_in_python(version: str, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["healthy-full", "capture-gap", "lossy-link", "mid-session", "keepalive-lost"]))
    chance, share = random.Random(data.draw(st.integers(0, 1 << 30))), data.draw(st.sampled_from([0.02, 0.1, 0.4]))
    packets = [packet for packet in shipped(name) if chance.random() >= share]
    keys = key_files(name)
    found = Plugin(version, **keys).take(packets).told()
    assert found == told_by_python(packets, ring(*keys.values()))
    sent = truth(name)["sessions"]
    for (_, port), connection in found.items():
        for sender, lines in (("device", "c2s"), ("server", "s2c")):
            every = [line["hex"] for s in sent if s["client"]["port"] == port for line in s[lines]]
            whole = [plaintext.hex() for plaintext, missing, _ in connection[sender] if not missing]
            assert is_part_of(whole, every) or is_part_of(sorted(whole), sorted(every))


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1 << 30), flips=st.integers(1, 6))
def test_altered_ciphertext_gives_the_same_failures_as_in_python(version: str, seed: int, flips: int) -> None:
    chance, packets = random.Random(seed), list(shipped("healthy-full"))
    big = [at for at, packet in enumerate(packets) if len(packet.data) > 80][6:]
    for at in chance.sample(big, flips):
        packet, raw = packets[at], bytearray(packets[at].data)
        raw[chance.randrange(60, len(raw))] ^= 1 << chance.randrange(8)
        # No checksum is verified there, so none shall be wrong here.
        raw[50:52] = bytes(2)
        packets[at] = Packet(
            packet.number, packet.time_ns, packet.link_type, bytes(raw), packet.original_length, packet.interface
        )
    keys = key_files("healthy-full")
    assert Plugin(version, **keys).take(packets).told() == told_by_python(packets, ring(*keys.values()))


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
def test_of_many_bad_frames_the_first_are_listed_and_those_behind_a_hole_are_told_apart(version: str) -> None:
    packets: list[Packet] = []
    big = 0
    for packet in shipped("ota-complete"):
        data = packet.data
        if len(data) > 200 and len(packets) > 40:
            big += 1
            if big % 20 == 0:
                continue
            data = data[:50] + bytes(2) + data[52:-1] + bytes([data[-1] ^ 1])
        packets.append(
            Packet(packet.number, packet.time_ns, packet.link_type, data, packet.original_length, packet.interface)
        )
    keys = key_files("ota-complete")
    found = Plugin(version, **keys).take(packets).told()
    assert found == told_by_python(packets, ring(*keys.values()))
    (bad,) = (connection["bad"] for connection in found.values())
    assert len(bad) == BAD_FRAMES
    assert {behind_gap for *_, behind_gap in bad} == {True, False}


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
def test_the_handshake_is_opened_at_its_own_packets_before_any_frame(version: str) -> None:
    plugin = Plugin(version, **key_files("healthy-full"))
    sizes = [len(packet.data) for packet in shipped("healthy-full")]
    identity, reply = (next(at for at, size in enumerate(sizes) if size >= 54 + wanted) for wanted in (256, 384))
    plugin.take(shipped("healthy-full")[: identity + 1])
    (conversation,) = plugin.analysis[b"trace"][b"conversations"].values()
    secrets = conversation[b"secrets"]
    assert conversation[b"device"][b"id"].decode() == truth("healthy-full")["sessions"][0]["device_id"]
    assert b"offer" not in dict(secrets.items())
    plugin.take(shipped("healthy-full")[identity + 1 : reply + 1])
    assert not plugin.frames
    assert secrets[b"offer"][b"opened"] is True
    assert secrets[b"offer"][b"signature"] == b"valid"
    assert Path(secrets[b"key_source"].decode()).stem == "core-a"


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
@pytest.mark.parametrize("name", ["healthy-full", "mid-session"])
def test_frames_that_waited_for_a_session_key_are_handed_out_late_and_once(
    version: str, name: str, tmp_path: Path
) -> None:
    session = truth(name)["sessions"][0]
    plugin = Plugin(version, keylog=key_log(tmp_path, [(None, WRONG_DIGITS), (None, session["session_key"]["hex"])]))
    plugin.take(shipped(name))
    at_once = [item for item in plugin.frames if item.get(b"opened") is not None]
    assert plugin.late
    assert len(plugin.late) + len(at_once) == len(plugin.frames)
    packets = [item[b"frame"][b"packet"] for item in [*plugin.late, *at_once]]
    assert packets == sorted(item[b"frame"][b"packet"] for item in plugin.frames)
    # What waits is little: a few frames prove a key.
    assert len(plugin.late) < 8
    for item in [*plugin.late, *at_once]:
        message = item.get(b"message")
        assert (message and message[b"plaintext"]) == item[b"opened"][b"plaintext"]
    assert found_keys(plugin) == [(bytes.fromhex(session["session_key"]["hex"])[:16], b"the session key given")]


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
def test_frames_that_wait_are_tried_from_behind_a_hole_on(version: str, tmp_path: Path) -> None:
    """The server's hello and the device's next message are not in the capture, and its hello alone proves no key."""
    story = simulate("healthy")
    digits = story.truth["sessions"][0]["session_key"]["hex"]
    hello = next(at for at, packet in enumerate(story.packets) if packet.label == "server hello")
    asked = next(at for at, packet in enumerate(story.packets) if packet.label == "frame")
    packets = captured(damage.drop_packets(story.packets, {hello, asked}), story.link_type)
    log = key_log(tmp_path, [(None, WRONG_DIGITS), (None, digits)])
    plugin = Plugin(version, keylog=log).take(packets)
    assert plugin.late
    assert found_keys(plugin) == [(bytes.fromhex(digits)[:16], b"the session key given")]
    assert plugin.told() == told_by_python(packets, KeyRing.load(keylogs=[log]))


WRONG_DIGITS = (b"wrong" * 8).hex()


def found_keys(plugin: Plugin) -> list[tuple[bytes, bytes] | None]:
    secrets = [c[b"secrets"] for c in plugin.analysis[b"trace"][b"conversations"].values()]
    return [s[b"session_key"] and (s[b"session_key"][b"key"], s[b"key_source"]) for s in secrets]


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
def test_a_session_key_logged_with_its_nonce_is_found_for_its_own_session_only(version: str, tmp_path: Path) -> None:
    first, second = (truth(name)["sessions"][0] for name in ("healthy-full", "keepalive-lost"))
    keys = [(first["nonce"], first["session_key"]["hex"]), (second["nonce"], WRONG_DIGITS)]
    log = key_log(tmp_path, keys)
    plugin = Plugin(version, keylog=log).take(shipped("healthy-full"))
    assert found_keys(plugin) == [(bytes.fromhex(first["session_key"]["hex"])[:16], b"the key log")]
    assert found_keys(Plugin(version, keylog=log).take(shipped("keepalive-lost"))) == [None]


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
def test_keys_that_do_not_fit_open_nothing_and_what_waits_is_bounded(version: str, tmp_path: Path) -> None:
    world = make_world()
    told = Told(world, world.add_device(), at=0.0)
    told.handshake()
    for _ in range(QUEUED // 2 + 10):
        exchanges.ping(told)
    story = finish(world)
    packets = captured(story.packets, story.link_type)
    for keys in ({"keylog": key_log(tmp_path, [(None, WRONG_DIGITS)])}, {"device_key": str(KEYS / "core-c.der")}):
        plugin = Plugin(version, **keys).take(packets)
        assert len(plugin.frames) > QUEUED
        assert not plugin.late
        assert not any(item.get(b"opened") or item.get(b"message") for item in plugin.frames)
        assert found_keys(plugin) == [None]
        (conversation,) = plugin.analysis[b"trace"][b"conversations"].values()
        assert conversation[b"secrets"][b"_work"][b"queue"] is None


@pytest.mark.parametrize("version", INSIDE_WIRESHARK)
def test_the_key_of_a_session_that_worked_is_known_through_all_the_logins_that_fail_after_it(
    version: str, tmp_path: Path
) -> None:
    # Each of these replies opens with the device's key, and none of their keys is ever used: the signature is wrong.
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
    story = finish(world)
    key_folder(story, tmp_path, "core-a.pem", "server.pem")
    plugin = Plugin(version, device_key=str(tmp_path)).take(captured(story.packets, story.link_type))
    connections = list(plugin.told().values())
    ping = "ping under the key of an earlier session"
    assert [[words for _, words in c["dead"]] for c in connections] == [[], [ping], [], [ping], []]
    assert [len(c["device"]) > 0 for c in connections] == [True, False, False, False, False]
    assert [c["offer"][:2] for c in connections] == [(True, "valid")] + [(True, "invalid")] * 4
