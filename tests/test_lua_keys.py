"""Key files, key logs and handshakes in the plugin's Lua: what the Python finds in them, and no error on any bytes."""

from __future__ import annotations

import hmac
import os
import random
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import NAMES, shipped
from keyed import KEYS, unlock
from lua_engine import INSIDE_WIRESHARK, VERSIONS, engine
from test_keys import (
    CASES,
    CORE_DER,
    CORE_PEM,
    SEEDS,
    SERVER_DER,
    SERVER_PEM,
    VECTORS,
    certificate,
    dct,
    flash,
    made,
    pkcs1,
)
from test_session import CORE, OTHER_CORE, OTHER_SERVER, SERVER, SERVER_PUBLIC, handshake, identity_with

from analyzer import rsa
from analyzer.conversation import Conversation
from analyzer.keys import Key, KeyFile, KeyRing, SessionKey, inspect_key_file, key_log_line, read_key_log
from analyzer.keys.ring import MOST_FILES
from analyzer.keys.structures import read_structure
from analyzer.session import Identity, Offer, SessionOpener, open_identity, open_offer

EVERY = pytest.mark.parametrize("version", VERSIONS)
WIRESHARKS = pytest.mark.parametrize("version", INSIDE_WIRESHARK)
NONCE, BLOB = bytes(range(40)), bytes(range(100, 140))
DEVICE_ID = "48ff6d06507b573081350e87"


@cache
def loaded(version: str) -> tuple[Any, Any]:
    return engine(version)


# --- what the two sides have in common -------------------------------------------------------------------------


def number(text: bytes) -> int:
    assert not text.startswith(b"\x00")
    return int.from_bytes(text, "big")


def items(table: Any) -> list[Any]:
    """A Lua array as a list."""
    return [table[place] for place in range(1, len(table) + 1)]


RSA_ALGORITHM = bytes.fromhex("06092a864886f70d010101")
SECRETS = ("d", "p", "q", "dp", "dq", "qinv")


def key_in_lua(key: Any) -> dict[str, Any]:
    private = key[b"private"]
    return {
        "name": os.fsdecode(key[b"name"]),
        "n": number(key[b"n"]),
        "e": number(key[b"e"]),
        "bits": key[b"bits"],
        "role": key[b"role"].decode(),
        "private": None if private is None else [number(private[name.encode()]) for name in SECRETS],
        "ids": [digits.decode() for digits in items(key[b"device_ids"])],
    }


def key_in_python(key: Key) -> dict[str, Any]:
    return {
        "name": key.name,
        "n": key.n,
        "e": key.e,
        "bits": key.bits,
        "role": key.role,
        "private": None if key.secret is None else [getattr(key.secret, name) for name in SECRETS],
        "ids": list(key.device_ids),
    }


def without_commas(text: str) -> str:
    return re.sub(r"(?<=\d),(?=\d)", "", text)


def check_same(version: str, data: bytes, name: str = "some.file") -> KeyFile:
    """Read bytes on both sides and compare everything that is found."""
    _, spark = loaded(version)
    found, remark, kind = spark[b"keys"][b"read"](data, os.fsencode(name))
    expected = inspect_key_file(data, name)
    assert [key_in_lua(key) for key in items(found)] == [key_in_python(key) for key in expected.keys]
    if not expected.parts:
        assert (kind.decode(), remark.decode()) == (expected.kind, without_commas(expected.remark))
    for key, part in zip(items(found), expected.parts, strict=True):
        assert (key[b"encoding"].decode(), key[b"pem"]) == (part.encoding, part.pem)
    return expected


# --- one file --------------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("path", sorted(KEYS.iterdir()), ids=lambda path: path.name)
def test_each_key_of_the_captures_reads_the_same(version: str, path: Path) -> None:
    assert len(check_same(version, path.read_bytes(), str(path)).keys) == 1


@EVERY
@pytest.mark.parametrize("name", CASES)
def test_each_key_file_of_the_reference_reads_the_same(version: str, name: str) -> None:
    check_same(version, CASES[name], name)


PRIVATE = (("PKCS8", PrivateFormat.PKCS8), ("PKCS1", PrivateFormat.TraditionalOpenSSL))
PUBLIC = (("SPKI", PublicFormat.SubjectPublicKeyInfo), ("PKCS1", PublicFormat.PKCS1))


def forms() -> dict[str, bytes]:
    """Every way in which a key comes, and what comes in the place of one."""
    found: dict[str, bytes] = {}
    for who, pem in (("device", CORE_PEM), ("server", SERVER_PEM)):
        public = load_pem_private_key(pem, None).public_key()
        for coding, encoding in (("PEM", Encoding.PEM), ("DER", Encoding.DER)):
            for shape, layout in PRIVATE:
                found[f"{who} {coding} {shape}"] = made(pem, encoding, layout)
            for shape, half in PUBLIC:
                found[f"{who} {coding} public {shape}"] = public.public_bytes(encoding, half)
            found[f"{who} {coding} locked"] = made(pem, encoding, PrivateFormat.PKCS8, b"pw")
        found[f"{who} locked as OpenSSL does"] = made(pem, Encoding.PEM, PrivateFormat.TraditionalOpenSSL, b"pw")
        found[f"{who} CRLF"] = pem.replace(b"\n", b"\r\n")
        found[f"{who} CR"] = pem.replace(b"\n", b"\r")
        found[f"{who} marked UTF-8"] = b"\xef\xbb\xbf" + pem
        found[f"{who} UTF-16 LE"] = b"\xff\xfe" + pem.decode().encode("utf-16-le")
        found[f"{who} UTF-16 BE"] = b"\xfe\xff" + ("schön\n" + pem.decode()).encode("utf-16-be") + b"\x00"
    elliptic = ec.generate_private_key(ec.SECP256R1())
    sec1 = elliptic.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    found |= {
        "two in one text": b"the bench's\n\n" + CORE_PEM + b"and the cloud's:\n" + SERVER_PEM + b"\nend\n",
        "a locked one first": found["device PEM locked"] + SERVER_PEM,
        "one letter lost": CORE_PEM[:100] + CORE_PEM[101:],
        "stray padding": CORE_PEM.replace(b"MII", b"M=II", 1),
        "padding too early": CORE_PEM[:94] + b"==" + CORE_PEM[96:],
        "no end": CORE_PEM[:300],
        "nothing inside": b"-----BEGIN RSA PRIVATE KEY-----\n!!!\n-----END RSA PRIVATE KEY-----\n",
        "text inside": b"-----BEGIN RSA PRIVATE KEY-----\naGVsbG8gd29ybGQ=\n-----END RSA PRIVATE KEY-----\n",
        "parameters alone": b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n",
        "elliptic, DER": sec1,
        "elliptic, slot": sec1.ljust(192, b"\xff"),
        "elliptic, PKCS#8": elliptic.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        "elliptic, public": elliptic.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "elliptic, PEM": elliptic.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "certificate": certificate().public_bytes(Encoding.DER),
        "certificate, PEM": certificate().public_bytes(Encoding.PEM),
        "certificate, elliptic": certificate(elliptic=True).public_bytes(Encoding.DER),
        "slot with leftovers": (CORE_DER + b"\x01\x02\x03").ljust(612, b"\xff"),
        "Core slot": CORE_DER.ljust(1024, b"\xff"),
        "PKCS#8 in a slot": found["device DER PKCS8"].ljust(1024, b"\xff"),
        "server slot": SERVER_DER.ljust(512, b"\xff"),
        "server image": SERVER_DER.ljust(2048, b"\xff"),
        "PEM in a slot": CORE_PEM.ljust(1024, b"\xff"),
        "PEM in a DCT": b"\xff" * 34 + CORE_PEM + b"\xff" * (16_384 - 34 - len(CORE_PEM)),
        "DCT": bytes(dct()),
        "DCT, erased": b"\x4d\x13\x67\x9a".ljust(16_384, b"\xff"),
        "cut to the modulus": CORE_DER[:400],
        "cut short": CORE_DER[:100],
        "empty": b"",
        "page": b"\n <!DOCTYPE html><html></html>",
        "answer": b"HTTP/1.1 404 Not Found\r\n\r\n",
        "blanks": b" " * 3000,
        "text": b"hello\n",
        "rubbish": b"\x89PNG\r\n\x1a\n",
        "capture": b"\xd4\xc3\xb2\xa1" + bytes(20),
        "zeros": bytes(300),
        "erased": b"\xff" * 1024,
    }
    return found


FORMS = forms()


@EVERY
@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_a_key_reads_the_same(version: str, form: str) -> None:
    expected = check_same(version, FORMS[form], f"keys/{DEVICE_ID.upper()}_{form.replace(' ', '-')}.pem")
    assert expected.parts or expected.remark


@WIRESHARKS
@pytest.mark.parametrize("junk", [b"\xff", b"\x00", b"\x30\x82\x02\x5c"], ids=["erased", "zero", "lookalike"])
@pytest.mark.parametrize(
    ("start", "end"), [(0, None), (0x1000, None), (0x2000, None), (0x1000, 0x4000), (0x1F00, 0x3000), (0, 0x10000)]
)
def test_keys_are_carved_out_of_a_core_s_flash(version: str, junk: bytes, start: int, end: int | None) -> None:
    assert check_same(version, flash(junk=junk)[start:end]).parts


@WIRESHARKS
def test_an_erased_slot_beside_a_key_is_said(version: str) -> None:
    chip = bytearray(flash())
    chip[0x2000:0x2400] = b"\xff" * 0x400
    _, spark = loaded(version)
    found, remark, kind = spark[b"keys"][b"read"](bytes(chip), b"dump.bin")
    assert (len(found), kind, remark) == (1, b"flash-dump", b"the slot of the device's private key is erased")


@WIRESHARKS
@settings(max_examples=150, deadline=None)
@given(seed=st.sampled_from([*SEEDS, *FORMS.values()]), data=st.data())
def test_mutated_keys_read_the_same(version: str, seed: bytes, data: st.DataObject) -> None:
    changed = bytearray(seed or b"x")
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
        changed = changed or bytearray(b"x")
    check_same(version, bytes(changed[: data.draw(st.integers(1, len(changed)))]))


@WIRESHARKS
@pytest.mark.parametrize("form", ["device DER PKCS1", "device DER PKCS8", "device DER public SPKI", "certificate"])
def test_each_byte_of_the_headers_may_be_another(version: str, form: str) -> None:
    whole = FORMS[form]
    start = max(0, whole.find(RSA_ALGORITHM) - 40)
    for at in range(start, min(start + 100, len(whole))):
        for value in (0x00, 0x02, 0x04, 0x30, 0x81, 0xFF):
            check_same(version, whole[:at] + bytes((value,)) + whole[at + 1 :])


@WIRESHARKS
def test_odd_structures_read_the_same(version: str) -> None:
    def der(tag: int, *inside: bytes) -> bytes:
        content = b"".join(inside)
        return bytes((tag, 0x82)) + len(content).to_bytes(2, "big") + content

    one, odd = der(2, b"\1"), der(4, bytes(33))
    check_same(version, der(0x30, one, odd).ljust(192, b"\xff"))  # an elliptic key of no size that there is
    check_same(version, der(0x30, one, der(4, bytes(32))).ljust(192, b"\xff"))
    check_same(version, (b"\xff" * 4096 + FORMS["device DER public SPKI"]).ljust(16_384, b"\xff"))
    check_same(version, b"\xff" * 4096 + (CORE_DER + FORMS["device DER PKCS8"] + b"\xff" * 64) * 20)


STARTS = [b"", b"\x30\x82\x02\x5b\x02\x01\x00", b"-----BEGIN X-----\n", b"\xff\xfe", b"\x30\x82\x00\x10\x30\x03\x06"]


@EVERY
@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=600), start=st.sampled_from(STARTS))
def test_arbitrary_bytes_read_the_same(version: str, data: bytes, start: bytes) -> None:
    check_same(version, start + data)


@WIRESHARKS
def test_hostile_files_cost_no_more_than_their_size(version: str) -> None:
    _, spark = loaded(version)
    read = spark[b"keys"][b"read"]
    begins = b"-----BEGIN RSA PRIVATE KEY-----\n" * 100_000
    heads = CORE_DER[:12] * 200_000
    nested = b"\x30\x82\xff\xff" * 500_000
    assert [len(read(data, b"x")[0]) for data in (begins, heads, nested)] == [0, 0, 0]
    inspected = inspect_key_file(CORE_DER * 20, "x")
    assert len(read(CORE_DER * 20, b"x")[0]) == len(inspected.parts) == 16


# --- how the firmware reads it -----------------------------------------------------------------------------------


def shortened(place: int) -> bytes:
    """A device key with one of its numbers a byte and a half shorter, or with the exponent 3."""
    found = read_structure(CORE_DER)
    assert found is not None
    assert found.secret is not None
    values = [0, found.secret.n, found.secret.e, *(getattr(found.secret, name) for name in SECRETS)]
    values[place] = 3 if place == 2 else values[place] >> 12
    return pkcs1(values)


def damaged(at: int) -> bytes:
    data = bytearray(CORE_DER)
    data[at] ^= 1
    return bytes(data)


FIRMWARE = {
    **{f"short {place}": shortened(place) for place in (2, 3, 4, 6, 7, 8)},
    **{f"damaged {at}": damaged(at) for at in (200, 280, 400, 420, 500, 570)},
    "as it should be": CORE_DER,
    "server": (KEYS / "server.der").read_bytes(),
    "PKCS#8": FORMS["device DER PKCS8"],
    "unlucky PKCS#8": made(
        VECTORS["keys"]["core_short_integer"]["private_pem_pkcs1"].encode(), Encoding.DER, PrivateFormat.PKCS8
    ),
    "unlucky": CASES["core-private-short-integer.der"],
    "by a Photon": next(data for name, data in CASES.items() if "photon" in name and "private" in name),
    "public": (KEYS / "core-a.pub.der").read_bytes(),
    "moved": b"\x30\x83\x00" + CORE_DER[2:],
}


@WIRESHARKS
@pytest.mark.parametrize("name", FIRMWARE)
def test_what_the_firmware_makes_of_a_key_is_said_alike(version: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(FIRMWARE[name])
    expected = KeyRing.load(tmp_path / "key")
    ring = load(version, device_key=tmp_path / "key")
    (key,) = items(ring[b"found"])
    (known,) = (*expected.device_keys, *expected.server_keys)
    reading, wanted = ring[b"firmware_reading"](ring, key), expected.firmware_reading(known)
    if wanted is None:
        assert reading is None
    else:
        differences = tuple(text.decode() for text in items(reading[b"differences"]))
        assert (reading[b"ok"], differences) == (wanted.ok, wanted.differences)


@WIRESHARKS
def test_a_second_file_of_a_key_tells_whose_it_is(version: str, tmp_path: Path) -> None:
    (tmp_path / "0.der").write_bytes(CORE_DER)
    (tmp_path / f"{DEVICE_ID}.pub.der").write_bytes(FORMS["device DER public SPKI"])
    ring = load(version, device_key=tmp_path)
    (key,) = items(ring[b"device_private"])
    assert items(key[b"device_ids"]) == [DEVICE_ID.lower().encode()]
    assert len(items(ring[b"keys_of_device"](ring, DEVICE_ID.encode()))) == 1


@WIRESHARKS
def test_the_file_most_like_the_slot_speaks_for_the_device(version: str, tmp_path: Path) -> None:
    for name, form in (("a.der", "PKCS#8"), ("b.der", "public"), ("c.der", "as it should be"), ("d.der", "PKCS#8")):
        (tmp_path / name).write_bytes(FIRMWARE[form])
    ring = load(version, device_key=tmp_path)
    (key,) = items(ring[b"device_private"])
    assert (os.path.basename(key[b"name"]), key[b"encoding"]) == (b"a.der", b"pkcs1")
    assert ring[b"firmware_reading"](ring, key)[b"ok"]
    stranger = loaded(version)[0].table_from({b"n": b"\x03"})
    assert ring[b"firmware_reading"](ring, stranger) is None


# --- the ring ----------------------------------------------------------------------------------------------------

DIR = b"""
return function(list, log)
  Dir = { open = function(path)
    local names, at = list(path), 0
    if not names then error("must be a directory") end
    local entries = { close = function() log.closed = (log.closed or 0) + 1 end }
    return setmetatable(entries, { __call = function() at = at + 1; return names[at] end })
  end }
end
"""


def load(version: str, **named: object) -> Any:
    """Load a ring as Wireshark's Lua would, with a `Dir` like Wireshark's."""
    lua, spark = loaded(version)

    def entries(path: bytes) -> Any:
        return lua.table_from(os.listdir(path)) if os.path.isdir(path) else None

    log = lua.table()
    lua.execute(DIR)(entries, log)
    wanted = {name: os.fsencode(str(named.get(name, ""))) for name in ("device_key", "server_key", "keylog")}
    return spark[b"KeyRing"][b"load"](lua.table_from({name.encode(): path for name, path in wanted.items()}))


def notes(ring: Any) -> list[str]:
    return [note.decode() for note in items(ring[b"notes"])]


def problems(ring: Any) -> list[str]:
    """Those of the notes that are told in the list of packets."""
    return [note.decode() for note in items(ring[b"problems"])]


@EVERY
def test_a_folder_gives_each_key_once_with_its_private_half(version: str) -> None:
    ring, expected = load(version, device_key=KEYS), KeyRing.load(KEYS)
    for field in ("device_keys", "server_keys", "device_private", "server_private"):
        got = {(number(key[b"n"]), key[b"private"] is not None) for key in items(ring[field.encode()])}
        assert got == {(key.n, key.private) for key in getattr(expected, field)}
        assert len(got) == len(ring[field.encode()]) > 0
    assert notes(ring) == [f"spark.device_key: {KEYS}: {len(expected.files)} of {len(expected.files)} files hold keys."]
    assert problems(ring) == []
    assert not ring[b"empty"]
    key = expected.device_keys[0]
    n = key.n.to_bytes(128, "big")
    assert ring[b"key_with_modulus"](ring, n)[b"n"] == n
    assert ring[b"key_with_modulus"](ring, b"\x05") is None


@WIRESHARKS
def test_both_preferences_take_any_key_and_say_when_it_is_the_other_s(version: str) -> None:
    server, device = KEYS / "server.pem", KEYS / "core-a.pub.pem"
    ring = load(version, device_key=f'  "{server}" ', server_key=f"'{device}'")
    assert (len(ring[b"server_private"]), len(ring[b"device_keys"]), len(ring[b"device_private"])) == (1, 1, 0)
    assert notes(ring) == [
        f"{server}: spark.device_key was given a 2048-bit key, a server's; it is used as that.",
        f"{device}: spark.server_key was given a 1024-bit key, a device's; it is used as that.",
    ]
    assert notes(load(version, device_key=device)) == [
        f"{device}: the public half of a device key opens nothing. The private key is wanted."
    ]
    once = load(version, device_key=KEYS / "core-a.der", server_key=KEYS / "core-a.der")
    assert (len(once[b"device_private"]), notes(once)) == (1, [])


@WIRESHARKS
def test_what_is_wrong_with_a_named_file_is_one_note(version: str, tmp_path: Path) -> None:
    files = {"locked.pem": FORMS["device PEM locked"], "page.der": b"<html>", "cut.der": CORE_DER[:400], "no.der": b""}
    files["big.bin"] = bytes((4 << 20) + 1)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)

    def said(name: str) -> str:
        ring = load(version, device_key=tmp_path / name)
        return "\n".join(notes(ring)).replace(f"{tmp_path}/", "")

    assert said("gone.der") == "spark.device_key: gone.der: No such file or directory"
    assert said("page.der") == "spark.device_key: page.der: a web page, not a key: the download went wrong."
    assert said("no.der") == "spark.device_key: no.der: empty (0 bytes)."
    assert said("big.bin") == "spark.device_key: big.bin: larger than any key file or flash dump."
    assert said("locked.pem") == (
        "spark.device_key: locked.pem: a private key locked with a password, which Wireshark cannot open."
        " Take it off: openssl rsa -in locked.pem -out plain.pem"
    )
    assert said("cut.der") == (
        "spark.device_key: cut.der: cut short: 400 of 607 bytes.\n"
        "cut.der: the public half of a device key opens nothing. The private key is wanted."
    )
    assert load(version, device_key=tmp_path / "page.der")[b"empty"]


@WIRESHARKS
def test_a_folder_is_summed_up_in_one_note(version: str, tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "core-b.der").write_bytes((KEYS / "core-b.der").read_bytes())
    for name, data in {"a.der": CORE_DER, "b.pem": FORMS["device PEM locked"], "c.txt": b"hello"}.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "d.der").symlink_to(tmp_path / "gone")
    ring = load(version, device_key=f"{tmp_path}/")
    assert len(ring[b"device_private"]) == 1
    assert notes(ring) == [
        f"spark.device_key: {tmp_path}/d.der: No such file or directory",
        f"spark.device_key: {tmp_path}/: 1 of 4 files hold keys, 1 locked with a password.",
    ]
    assert problems(ring) == notes(ring)


@WIRESHARKS
def test_without_wireshark_s_dir_a_folder_is_a_note(version: str, tmp_path: Path) -> None:
    lua, spark = engine(version)
    wanted = {b"device_key": os.fsencode(tmp_path), b"server_key": b"", b"keylog": os.fsencode(tmp_path)}
    ring = spark[b"KeyRing"][b"load"](lua.table_from(wanted))
    assert notes(ring) == [
        f"spark.device_key: {tmp_path}: Is a directory",
        f"spark.keylog: {tmp_path}: Is a directory",
    ]


@WIRESHARKS
def test_a_folder_of_other_things_ends_with_its_bounds(version: str) -> None:
    lua, spark = engine(version)
    asked: list[bytes] = []
    sizes: dict[str, int] = {"size": 0}

    def read(path: bytes, limit: int) -> bytes:
        asked.append(path)
        return bytes(sizes["size"])

    names = [b"%05d" % place for place in range(6000)]
    spark[b"files"][b"read"] = read
    spark[b"files"][b"list"] = lambda path: lua.table_from(names)
    for size, looked in ((1, 5000), (4 << 20, 17)):
        sizes["size"] = size
        asked.clear()
        wanted = lua.table_from({b"device_key": b"C:\\keys\\", b"server_key": b"", b"keylog": b""})
        ring = spark[b"KeyRing"][b"load"](wanted)
        assert len(asked) == looked < MOST_FILES
        assert asked[0] == b"C:\\keys\\00000"
        assert "more than 5000 files; the rest was not looked at." in notes(ring)[0]
        assert notes(ring)[-1].endswith(f"0 of {looked} files hold keys.")
        assert problems(ring) == notes(ring)
    assert notes(ring)[1] == "spark.device_key: C:\\keys\\: more than 64 MB; from 00017 on it was not looked at."


@WIRESHARKS
@pytest.mark.parametrize("home", ["HOME", "USERPROFILE"])
def test_the_home_folder_may_be_written_as_a_wave(
    version: str, home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setenv(home, str(tmp_path))
    (tmp_path / "core.der").write_bytes(CORE_DER)
    assert len(load(version, device_key="~/core.der")[b"device_private"]) == 1
    assert len(load(version, server_key="~")[b"device_private"]) == 1
    assert "~core.der" in notes(load(version, device_key="~core.der"))[0]


@WIRESHARKS
def test_file_names_carry_device_ids(version: str, tmp_path: Path) -> None:
    (tmp_path / f"{DEVICE_ID.upper()}.pub.pem").write_bytes((KEYS / "core-a.pub.pem").read_bytes())
    (tmp_path / f"{DEVICE_ID}_handshake.pub.pem").write_bytes((KEYS / "core-b.pub.pem").read_bytes())
    (tmp_path / f"{DEVICE_ID}0.der").write_bytes((KEYS / "core-c.der").read_bytes())
    (tmp_path / "core-a.der").write_bytes(CORE_DER)
    ring, expected = load(version, device_key=tmp_path), KeyRing.load(tmp_path)
    found = items(ring[b"keys_of_device"](ring, DEVICE_ID.upper().encode()))
    assert {number(key[b"n"]) for key in found} == {key.n for key in expected.keys_of_device(DEVICE_ID)}
    assert [bool(key[b"private"]) for key in found] == [True, False]
    assert [key[b"device_ids"][1] for key in found] == [DEVICE_ID.encode()] * 2
    assert len(ring[b"keys_of_device"](ring, b"0" * 24)) == 0


# --- the key log -------------------------------------------------------------------------------------------------


def session_keys(found: Any) -> list[SessionKey]:
    """Session keys of Lua as those of Python, with their fields checked."""
    keys = []
    for key in items(found):
        made_of = SessionKey.from_blob(key[b"blob"])
        assert (key[b"key"], key[b"iv"], key[b"salt"]) == (made_of.key, made_of.iv, made_of.salt)
        assert tuple(items(key[b"first_message_ids"])) == made_of.first_message_ids
        keys.append(made_of)
    return keys


def check_key_log(version: str, text: bytes) -> None:
    _, spark = loaded(version)
    log, expected = spark[b"read_key_log"](text), read_key_log(text.decode("utf-8", "replace"))
    assert [(line[b"number"], line[b"reason"].decode()) for line in items(log[b"bad_lines"])] == list(
        expected.bad_lines
    )
    by_nonce = {
        bytes.fromhex(nonce.decode()): tuple(SessionKey.from_blob(bytes.fromhex(blob.decode())) for blob in items(keys))
        for nonce, keys in log[b"by_nonce"].items()
    }
    assert by_nonce == expected.by_nonce
    loose = [SessionKey.from_blob(bytes.fromhex(blob.decode())) for blob in items(log[b"without_nonce"])]
    assert tuple(loose) == expected.without_nonce


GOOD = key_log_line(NONCE, SessionKey.from_blob(BLOB)).encode()
LINES = [
    GOOD,
    GOOD.upper().replace(b"SPARK_SESSION", b"\tSPARK_SESSION") + b" # desk",
    key_log_line(NONCE, SessionKey.from_blob(NONCE)).encode(),
    key_log_line(None, SessionKey.from_blob(BLOB)).encode(),
    b"# SPARK_SESSION",
    b"CLIENT_RANDOM 00 11",
    b"SPARK_SESSION - 00",
    b"SPARK_SESSION -",
    b"SPARK_SESSION \xff\xfe 00",
    b"SPARK_SESSION " + b"0" * 79 + b"g " + b"0" * 80,
    b"",
]
ENDS = [b"\n", b"\r\n", b"\r", b"\x0b", b"\x0c", b"\x1d"]


@EVERY
@settings(max_examples=100, deadline=None)
@given(
    parts=st.lists(
        st.tuples(
            st.sampled_from(LINES) | st.binary(max_size=60).map(lambda data: bytes(byte & 0x7F for byte in data)),
            st.sampled_from(ENDS),
        ),
        max_size=12,
    )
)
def test_a_key_log_reads_the_same(version: str, parts: list[tuple[bytes, bytes]]) -> None:
    check_key_log(version, b"".join(line + end for line, end in parts))


@WIRESHARKS
def test_complaints_about_a_key_log_end(version: str) -> None:
    check_key_log(version, b"rubbish\n" * 300)


@WIRESHARKS
def test_the_ring_has_the_session_keys_of_a_log(version: str, tmp_path: Path) -> None:
    text = b"\xef\xbb\xbf" + b"\n".join([LINES[2], LINES[0], LINES[3], LINES[3], *[b"rubbish"] * 7])
    (tmp_path / "keys.log").write_bytes(text)
    ring = load(version, keylog=tmp_path / "keys.log")
    nonce_key, blob_key = SessionKey.from_blob(NONCE), SessionKey.from_blob(BLOB)
    assert session_keys(ring[b"session_keys_for"](ring, NONCE)) == [nonce_key, blob_key, blob_key]
    assert session_keys(ring[b"session_keys_for"](ring, BLOB)) == [blob_key]
    assert session_keys(ring[b"session_keys_for"](ring, None)) == [blob_key]
    assert session_keys(ring[b"loose_session_keys"]) == [blob_key]
    name = f"spark.keylog: {tmp_path / 'keys.log'}"
    bad = "does not begin with SPARK_SESSION; passed over."
    assert notes(ring) == [
        *(f"{name}: line {line}: {bad}" for line in range(5, 10)),
        f"{name}: more lines like that, the next is line 10.",
    ]
    assert not ring[b"empty"]


@WIRESHARKS
def test_a_key_log_without_keys_says_how_to_make_one(version: str, tmp_path: Path) -> None:
    (tmp_path / "keys.log").write_bytes(b"# nothing yet\n")
    ring = load(version, keylog=tmp_path / "keys.log")
    assert ring[b"empty"]
    assert notes(ring) == [
        f"spark.keylog: {tmp_path / 'keys.log'}: no session key in it. Make one: sparkshark decrypt --keylog-out FILE"
    ]
    gone = load(version, keylog=tmp_path / "gone.log")
    assert notes(gone) == [f"spark.keylog: {tmp_path / 'gone.log'}: No such file or directory"]
    assert load(version)[b"empty"]


# --- opening handshakes ------------------------------------------------------------------------------------------


def named(key: Any) -> int | None:
    return None if key is None else number(key[b"n"])


def text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def check_identity(found: Any, expected: Identity | None) -> None:
    if expected is None:
        assert found is None
        return
    assert named(found[b"opened_by"]) == expected.opened_by.n
    for field in ("plaintext_length", "nonce", "nonce_matches", "offered"):
        assert found[field.encode()] == getattr(expected, field)
    assert text(found[b"device_id"]) == expected.device_id
    assert text(found[b"key_trouble"]) == expected.key_trouble
    if expected.device_key is None:
        assert found[b"device_key"] is None
    else:
        assert key_in_lua(found[b"device_key"]) == key_in_python(expected.device_key)


def check_offer(found: Any, expected: Offer) -> None:
    for field in ("opened", "tried", "untried", "signature_block_ok", "identity_key_differs"):
        assert found[field.encode()] == getattr(expected, field), field
    assert text(found[b"signature"]) == expected.signature
    assert text(found[b"signature_note"]) == expected.signature_note
    for field in ("opened_by", "signed_by"):
        key = getattr(expected, field)
        assert named(found[field.encode()]) == (None if key is None else key.n)
    credentials = found[b"credentials"]
    assert (None if credentials is None else credentials[b"blob"]) == (
        None if expected.credentials is None else expected.credentials.blob
    )


def key_for(version: str, key: Key, *, public: bool = False) -> Any:
    """A key of Python as one of Lua."""
    lua, _ = loaded(version)

    def trimmed(value: int) -> bytes:
        return value.to_bytes((value.bit_length() + 7) // 8, "big")

    table = {b"name": key.name.encode(), b"n": trimmed(key.n), b"e": trimmed(key.e)}
    if key.secret is not None and not public:
        fields = ("n", "e", *SECRETS)
        table[b"private"] = lua.table_from({name.encode(): trimmed(getattr(key.secret, name)) for name in fields})
    return lua.table_from(table)


@cache
def handshakes(name: str) -> tuple[tuple[bytes | None, bytes | None, bytes | None, str], ...]:
    """Nonce, identity, session offer and device of each conversation of a shipped capture."""
    trace = unlock(shipped(name), None)

    def whole(conversation: Conversation, kind: str) -> bytes | None:
        part = conversation.part(kind)
        return None if part is None else part.data

    return tuple(
        (whole(c, "nonce"), whole(c, "identity"), whole(c, "session"), str(c.device.address))
        for c in trace.conversations
    )


@WIRESHARKS
@pytest.mark.parametrize("name", NAMES)
def test_each_handshake_of_the_captures_opens_alike(version: str, name: str) -> None:
    _, spark = loaded(version)
    ring, expected_ring = load(version, device_key=KEYS), KeyRing.load(KEYS)
    opener, expected = spark[b"SessionOpener"][b"new"](ring), SessionOpener(expected_ring)
    for nonce, identity, session, device in handshakes(name):
        known, expected_known = None, None
        if identity is not None:
            known, _ = opener[b"identity"](opener, identity, nonce)
            expected_known = expected.identity(identity, nonce)
            check_identity(known, expected_known)
        if session is not None:
            offer = opener[b"offer"](opener, session, known, device.encode())
            wanted = expected.offer(session, expected_known, device)
            check_offer(offer, wanted)


SESSIONS = VECTORS["sessions"]
WRONG = {case["name"]: case for case in VECTORS["wrong_key_cases"]}


def sealed_offer(content: Callable[[bytes], bytes], signer: Key = SERVER) -> bytes:
    """An offer of `BLOB` to the device of the reference, with anything in the place of the HMAC."""
    assert signer.secret is not None
    block = rsa.seal_block(CORE.public, BLOB, b"\x01" * 85)
    return block + rsa.sign_block(signer.secret, content(block))


def right(block: bytes) -> bytes:
    return hmac.digest(BLOB, block, "sha1")


OFFERS: dict[str, tuple[bytes, list[Key], list[Key], Key | None]] = {
    **{s["name"]: (bytes.fromhex(s["message3"]["wire"]), [OTHER_CORE, CORE], [SERVER_PUBLIC], None) for s in SESSIONS},
    **{
        name: (bytes.fromhex(case["message3"]), [CORE], [SERVER], None)
        for name, case in WRONG.items()
        if "message3" in case
    },
    "whole": (sealed_offer(right), [OTHER_CORE, CORE], [OTHER_SERVER, SERVER_PUBLIC], SERVER),
    "signed by another": (sealed_offer(right, OTHER_SERVER), [CORE], [SERVER, OTHER_SERVER], SERVER),
    "signed by another, expected unknown": (sealed_offer(right, OTHER_SERVER), [CORE], [OTHER_SERVER], SERVER),
    "signed by nobody known": (sealed_offer(right, OTHER_SERVER), [CORE], [SERVER], None),
    "signed, nobody named": (sealed_offer(right), [CORE], [], SERVER),
    "another HMAC": (sealed_offer(lambda block: bytes(20)), [CORE], [SERVER], None),
    "too much signed": (sealed_offer(lambda block: bytes(35)), [CORE], [SERVER], None),
    "no device key": (sealed_offer(lambda block: bytes(20)), [], [SERVER], None),
    "public device key": (sealed_offer(right), [SERVER_PUBLIC], [SERVER], None),
    "no key": (sealed_offer(right), [], [], None),
    "wrong key": (sealed_offer(right), [OTHER_CORE], [], None),
    "another length": (bytes(383), [CORE], [SERVER], None),
}


@WIRESHARKS
@pytest.mark.parametrize("name", OFFERS)
def test_an_offer_is_judged_alike(version: str, name: str) -> None:
    lua, spark = loaded(version)
    block, devices, servers, signer = OFFERS[name]
    found = spark[b"open_offer"](
        block,
        lua.table_from([key_for(version, key) for key in devices]),
        lua.table_from([key_for(version, key, public=True) for key in servers]),
        None if signer is None else key_for(version, signer, public=True),
        3,
    )
    check_offer(found, open_offer(block, devices, servers, expected_signer=signer, untried=3))


IDENTITIES: dict[str, tuple[bytes, bytes | None]] = {
    **{s["name"]: (bytes.fromhex(s["message2"]["ciphertext"]), bytes.fromhex(s["nonce"])) for s in SESSIONS},
    "another nonce": (bytes.fromhex(SESSIONS[0]["message2"]["ciphertext"]), bytes(40)),
    "no nonce": (bytes.fromhex(SESSIONS[0]["message2"]["ciphertext"]), None),
    "for another server": (bytes.fromhex(VECTORS["wrong_key_cases"][0]["message2"]), NONCE),
    "short": (rsa.seal_block(SERVER.public, NONCE + b"short", b"\x01" * 208), NONCE),
    "short, another nonce": (rsa.seal_block(SERVER.public, NONCE + b"short", b"\x01" * 208), bytes(40)),
    "a byte too many": (rsa.seal_block(SERVER.public, NONCE + bytes(13), b"\x01" * 200), NONCE),
    "another length": (bytes(255), NONCE),
    "erased slot": (identity_with(b"\xff" * 128), NONCE),
    "slot of zeros": (identity_with(bytes(128)), NONCE),
    "elliptic": (identity_with(bytes.fromhex("770201010420002a8648ce3d030107") + b"\xff" * 113), NONCE),
    "elliptic, inside": (identity_with(bytes(9) + bytes.fromhex("2a8648ce3d030107") + b"\x91" * 111), NONCE),
    "ends erased": (identity_with(b"\x91" * 100 + b"\xff" * 28), NONCE),
    "text": (identity_with(b"MIICXQIBAAKBgQDULjj3GZBEiVfRV/ywdZkfXJiC4WHPqpT0\n" * 2 + b"a" * 30), NONCE),
    "even": (identity_with(b"\x91" * 127 + b"\x02"), NONCE),
    "no key": (rsa.seal_block(SERVER.public, NONCE + bytes(12) + b"\x91" * 162, b"\x01" * 39), NONCE),
    "top bit": (identity_with(b"\x11" + b"\x91" * 126 + b"\x03"), NONCE),
    "small factors": (identity_with(b"\x91" * 128), NONCE),
}


@WIRESHARKS
@pytest.mark.parametrize("name", IDENTITIES)
def test_an_identity_is_judged_alike(version: str, name: str) -> None:
    lua, spark = loaded(version)
    block, nonce = IDENTITIES[name]
    keys = [SERVER_PUBLIC, OTHER_SERVER, SERVER]
    found = spark[b"open_identity"](block, lua.table_from([key_for(version, key) for key in keys]), nonce)
    check_identity(found, open_identity(block, keys, nonce))


def opener_of(version: str, ring: Any) -> Any:
    return loaded(version)[1][b"SessionOpener"][b"new"](ring)


@WIRESHARKS
def test_the_last_success_is_tried_first_next_time(version: str) -> None:
    _, _, session = handshake("healthy-full")
    opener = opener_of(version, load(version, device_key=KEYS))
    expected = SessionOpener(KeyRing.load(KEYS))
    for device in ("a", "a", "b", None):
        offer = opener[b"offer"](opener, session, None, None if device is None else device.encode())
        check_offer(offer, expected.offer(session, None, device))


@WIRESHARKS
def test_a_file_named_after_the_device_is_tried_first(version: str, tmp_path: Path) -> None:
    for source in KEYS.glob("*.der"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    (tmp_path / f"{DEVICE_ID}.der").write_bytes(CORE_DER)
    nonce, identity, session = handshake("healthy-full")
    opener = opener_of(version, load(version, device_key=tmp_path))
    known, tried = opener[b"identity"](opener, identity, nonce)
    assert (known[b"device_id"].decode(), tried) == (DEVICE_ID, 2)
    offer = opener[b"offer"](opener, session, known, b"device")
    assert (offer[b"opened"], offer[b"tried"]) == (True, 1)


@WIRESHARKS
def test_a_stale_record_shows_when_its_old_key_is_still_there(version: str) -> None:
    nonce, identity, _ = handshake("photon-fast-ota")
    ring = KeyRing.load(KEYS)
    stale = next(key for key in ring.device_private if "photon-a-stale" in key.name)
    block = rsa.seal_block(stale.public, BLOB, b"\x01" * 85) + bytes(256)
    opener, expected = opener_of(version, load(version, device_key=KEYS)), SessionOpener(ring)
    known, _ = opener[b"identity"](opener, identity, nonce)
    offer = opener[b"offer"](opener, block, known, b"device")
    check_offer(offer, expected.offer(block, expected.identity(identity, nonce), "device"))
    assert offer[b"identity_key_differs"] is True


def crowd(version: str, devices: int, servers: int) -> Any:
    """A ring of made-up keys: each refuses a block of FF at once, as no number is that large."""
    lua, _ = loaded(version)
    randomness = random.Random(1)

    def some(count: int, size: int) -> Any:
        keys = []
        for _ in range(count):
            n = bytes([0x80]) + randomness.randbytes(size - 2) + b"\x01"
            private = {name.encode(): b"\x03" for name in SECRETS} | {b"n": n, b"e": b"\x03"}
            keys.append(lua.table_from({b"n": n, b"e": b"\x03", b"private": lua.table_from(private)}))
        return lua.table_from(keys)

    ring = {b"device_private": some(devices, 128), b"server_private": some(servers, 256)}
    return lua.table_from(ring | {b"server_keys": ring[b"server_private"]})


NOBODY = b"\xff" * 384


@WIRESHARKS
def test_tries_end_with_the_share_and_a_few_keys_are_always_tried(version: str) -> None:
    ring = crowd(version, 1200, 0)
    opener = opener_of(version, ring)
    offers = [opener[b"offer"](opener, NOBODY, None, b"device") for _ in range(12)]
    tried = [offer[b"tried"] for offer in offers]
    assert tried[:3] == [1000, 500, 250]
    assert tried[-2:] == [8, 8]
    assert all(offer[b"tried"] + offer[b"untried"] == 1200 for offer in offers)
    assert all(offer[b"opened"] is False for offer in offers)
    # Python tries them all: it is ten times as fast.
    few = opener_of(version, crowd(version, 8, 0))
    assert {few[b"offer"](few, NOBODY, None, b"device")[b"untried"] for _ in range(300)} == {0}


@WIRESHARKS
def test_server_keys_share_the_tries(version: str) -> None:
    opener = opener_of(version, crowd(version, 0, 300))
    results = [opener[b"identity"](opener, NOBODY[:256], NONCE) for _ in range(12)]
    assert {found for found, _ in results} == {None}
    tried = [tried for _, tried in results]
    assert (tried[:2], tried[-1]) == ([166, 83], 1)


@WIRESHARKS
def test_a_signature_that_too_many_could_have_made_is_not_called_bad(version: str) -> None:
    known = opener_of(version, crowd(version, 0, 32))
    unknown = opener_of(version, crowd(version, 0, 33))
    assert known[b"offer"](known, NOBODY, None, b"device")[b"signature"] == b"invalid"
    offer = unknown[b"offer"](unknown, NOBODY, None, b"device")
    assert (offer[b"signature"], offer[b"signature_block_ok"]) == (b"not-checked", None)


@WIRESHARKS
def test_what_is_remembered_of_blocks_and_devices_stays_bounded(version: str) -> None:
    lua, spark = loaded(version)
    wrong = lua.table_from([crowd(version, 1, 0)[b"device_private"][1]])

    def used() -> float:
        """Kilobytes."""
        lua.execute(b"collectgarbage() collectgarbage()")
        kilobytes: float = lua.eval(b"(collectgarbage('count'))")
        return kilobytes

    before = used()
    for place in range(20_000):
        block = place.to_bytes(4, "big").rjust(128, b"\xff")
        assert spark[b"open_offer"](block + bytes(256), wrong, lua.table())[b"opened"] is False
    assert used() - before < 8_000
    # With one key of its own, each of many devices still opens.
    opener = opener_of(version, load(version, device_key=KEYS / "core-a.der"))
    _, _, session = handshake("healthy-full")
    for place in range(4_200):
        assert opener[b"offer"](opener, session, None, b"device %d" % place)[b"opened"]
    assert opener[b"devices"] == 4_200 - 4_096
