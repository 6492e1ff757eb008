"""Key files are told by their content, secrets stay out of everything that is printed."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
import random
import re
import stat
import traceback
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.keys import (
    KeyFile,
    KeyFileError,
    KeyRing,
    ServerAddress,
    SessionKey,
    firmware_reads,
    inspect_key_file,
    key_log_line,
    parse_session_key,
    read_key_log,
    write_key_log,
)
from analyzer.keys import ring as ring_module
from analyzer.keys.report import Mark, keys_report, render_keys
from analyzer.keys.structures import read_structure

HERE = Path(__file__).parent
KEYS = HERE.parent / "captures" / "keys"
VECTORS: dict[str, Any] = json.loads((HERE / "vectors" / "vectors.json").read_text())
CASES = {case["name"]: bytes.fromhex(case["hex"]) for case in VECTORS["key_file_cases"]}
CORE_DER, SERVER_DER = (KEYS / "core-a.der").read_bytes(), (KEYS / "server.pub.der").read_bytes()
CORE_PEM, SERVER_PEM = (KEYS / "core-a.pem").read_bytes(), (KEYS / "server.pem").read_bytes()
CORE_PRINT, SERVER_PRINT = "91d4915e", "ec7645ed"


def spki_of(file: KeyFile) -> list[str]:
    return [key.fingerprint for key in file.keys]


# --- single files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(KEYS.iterdir()), ids=lambda path: path.name)
def test_each_key_of_the_captures_is_what_its_makers_say(path: Path) -> None:
    file = inspect_key_file(path.read_bytes(), path.name)
    (part,) = file.parts
    public = (KEYS / (path.name.partition(".")[0] + ".pub.der")).read_bytes()
    assert part.key.sha256 == hashlib.sha256(public).hexdigest()
    assert part.key.spki == public
    assert part.key.role == ("server" if "server" in path.name else "device")
    assert part.key.private is ("pub" not in path.name)
    assert part.pem is (path.suffix == ".pem")
    assert (file.kind, file.reasons) == ("key", ())
    if part.key.role == "device" and part.key.private:
        assert part.firmware is not None
        assert part.firmware.ok


def test_fingerprints_are_those_of_the_examples() -> None:
    assert spki_of(inspect_key_file(CORE_DER, "x")) == [CORE_PRINT]
    assert spki_of(inspect_key_file(SERVER_DER, "x")) == [SERVER_PRINT]


CORE_SHA, SHORT_SHA, SERVER_SHA = (
    VECTORS["keys"][name]["public_der_sha256"] for name in ("core", "core_short_integer", "server")
)


@pytest.mark.parametrize(
    ("name", "kind", "key", "reads", "reasons"),
    [
        ("core-private-pkcs1.der", "key", (CORE_SHA, True), True, ()),
        ("core-private-pkcs1-even.der", "key", (CORE_SHA, True), True, ()),
        ("core-private-read-612.der", "slot-dump", (CORE_SHA, True), True, ("slot_dump",)),
        ("core-private-read-1024.der", "slot-dump", (CORE_SHA, True), True, ("slot_dump",)),
        ("core-private-pkcs8.der", "key", (CORE_SHA, True), False, ("pkcs8",)),
        ("core-private-pkcs8-truncated-612.der", "truncated", (CORE_SHA, False), False, ("truncated", "pkcs8")),
        ("core-private-photon-generated.der", "key", (CORE_SHA, True), True, ()),
        ("core-private-short-integer.der", "key", (SHORT_SHA, True), False, ()),
        ("server-public-spki.der", "key", (SERVER_SHA, False), True, ()),
        ("server-public-512-domain-port.der", "server-image", (SERVER_SHA, False), True, ("slot_dump",)),
        ("server-public-512-ip.der", "server-image", (SERVER_SHA, False), True, ("slot_dump",)),
        ("server-public-pkcs1.der", "key", (SERVER_SHA, False), False, ()),
        ("server-public-pem-text.der", "key", (SERVER_SHA, False), False, ("pem_in_der",)),
    ],
)
def test_each_key_file_of_the_reference(
    name: str, kind: str, key: tuple[str, bool], reads: bool, reasons: tuple[str, ...]
) -> None:
    file = inspect_key_file(CASES[name], name)
    assert [(found.sha256, found.private) for found in file.keys] == [key]
    assert (file.kind, file.reasons) == (kind, reasons)
    assert firmware_reads(CASES[name]).ok is reads


def test_an_erased_slot_is_called_one() -> None:
    data = CASES["core-private-erased-612.der"]
    file = inspect_key_file(data, "x.der")
    assert (file.kind, file.parts, file.reasons) == ("blank", (), ("blank",))
    assert firmware_reads(data).differences == ("the slot is erased",)


def test_the_unlucky_key_is_named_number_by_number() -> None:
    reading = firmware_reads(CASES["core-private-short-integer.der"])
    assert (reading.ok, reading.differences) == (False, ("dP is 63 bytes, not 64",))


def test_what_the_firmware_s_steps_find_is_checked_on_many_keys() -> None:
    # Keys with each number short in turn: the steps must fail for exactly these.
    numbers = read_structure(CORE_DER)
    assert numbers is not None
    assert numbers.secret is not None
    secret = numbers.secret
    values = [0, secret.n, secret.e, secret.d, secret.p, secret.q, secret.dp, secret.dq, secret.qinv]
    names = ["", "n", "e", "d", "p", "q", "dP", "dQ", "qInv"]
    for at in (3, 6, 7, 8):
        shorter = values.copy()
        shorter[at] >>= 12
        reading = firmware_reads(pkcs1(shorter))
        assert not reading.ok
        size = 128 if at == 3 else 64
        assert re.fullmatch(rf"{names[at]} is \d+ bytes, not {size}", reading.differences[0])
    assert firmware_reads(pkcs1(values)).ok
    other_exponent = values.copy()
    other_exponent[2] = 3
    assert firmware_reads(pkcs1(other_exponent)).differences[0].startswith("e is 3")


def pkcs1(values: list[int]) -> bytes:
    body = b"".join(tlv(2, value.to_bytes(value.bit_length() // 8 + 1, "big")) for value in values)
    return tlv(0x30, body)


def tlv(tag: int, value: bytes) -> bytes:
    size = len(value)
    length = bytes([size]) if size < 128 else bytes([0x82]) + size.to_bytes(2, "big")
    if 128 <= size < 256:
        length = bytes([0x81, size])
    return bytes([tag]) + length + value


def test_a_damaged_private_key_is_not_called_correct() -> None:
    data = bytearray(CORE_DER)
    data[200] ^= 1
    file = inspect_key_file(bytes(data), "core.der")
    assert "damaged" in file.reasons
    assert firmware_reads(bytes(data)).differences == ("its numbers contradict each other",)


def test_an_unlucky_key_is_found_in_any_form(tmp_path: Path) -> None:
    pem = VECTORS["keys"]["core_short_integer"]["private_pem_pkcs1"].encode()
    forms = {
        "a.pem": pem,
        "b.der": CASES["core-private-short-integer.der"],
        "c.der": made(pem, Encoding.DER, PrivateFormat.PKCS8),
        "d.pem": made(pem, Encoding.PEM, PrivateFormat.PKCS8),
    }
    for name, data in forms.items():
        (tmp_path / name).write_bytes(data)
        ring = KeyRing.load(tmp_path / name)
        reading = ring.firmware_reading(ring.device_keys[0])
        assert reading is not None
        assert reading.differences == ("dP is 63 bytes, not 64",)
        (row,) = keys_report([tmp_path / name])
        assert row.mark is Mark.BAD
        assert "dP is 63 bytes" in row.paragraphs[0].text
    ring = KeyRing.load(KEYS)
    readings = [ring.firmware_reading(key) for key in ring.device_keys]
    assert all(reading is not None and reading.ok for reading in readings)
    public = KeyRing.load(KEYS / "core-a.pub.der")
    assert public.firmware_reading(public.device_keys[0]) is None


# --- addresses --------------------------------------------------------------------------------------------


def image(address: bytes, port: bytes = b"", size: int = 0) -> bytes:
    data = SERVER_DER.ljust(384, b"\xff") + address
    if port:
        data = data.ljust(450, b"\xff") + port
    return data.ljust(size, b"\xff")


DOMAIN = b"\x01\x0fdevice.spark.io"


@pytest.mark.parametrize(
    ("data", "address"),
    [
        (image(b"\x00\x04\xc0\xa8\x01\x0a"), ServerAddress("192.168.1.10", None)),
        (image(b"\x00\x04\xc0\xa8\x01\x0a", size=512), ServerAddress("192.168.1.10", None)),
        (image(DOMAIN + b"\x00"), ServerAddress("device.spark.io", None)),
        (image(DOMAIN, b"\x16\x33", 512), ServerAddress("device.spark.io", 5683)),
        (image(DOMAIN, b"\x22\xb8", 2048), ServerAddress("device.spark.io", 8888)),
        (image(DOMAIN, b"\xff\xff", 2048), ServerAddress("device.spark.io", None)),
        (image(DOMAIN, b"\x00\x00", 1024), ServerAddress("device.spark.io", None)),
        (image(b"\xff\xff", size=512), None),
        (image(b"\x01\x40short"), None),
        (image(b"\x01\x05a b\x1b[", size=512), None),
        (image(b"\x01\x00", size=512), None),
        (image(b"\x00\x05abcde", size=512), None),
        (SERVER_DER, None),
    ],
)
def test_the_address_in_a_server_image_says_where_the_device_goes(data: bytes, address: ServerAddress | None) -> None:
    file = inspect_key_file(data, "image.bin")
    assert spki_of(file) == [SERVER_PRINT]
    assert file.parts[0].server_address == address
    assert firmware_reads(data).ok


def test_the_reference_images_carry_their_addresses() -> None:
    domain, ip = (inspect_key_file(CASES[f"server-public-512-{end}.der"], "x") for end in ("domain-port", "ip"))
    assert domain.parts[0].server_address == ServerAddress("cloud.example.test", 5683)
    assert ip.parts[0].server_address == ServerAddress("192.168.1.10", None)


# --- dumps ------------------------------------------------------------------------------------------------


def flash(*, junk: bytes = b"\xff") -> bytes:
    chip = bytearray(junk * (2_097_152 // len(junk)))
    chip[0x1000 : 0x1000 + 2048] = image(DOMAIN, b"\x22\xb8", 2048)
    chip[0x2000 : 0x2000 + 1024] = CORE_DER.ljust(1024, b"\xff")
    return bytes(chip)


@pytest.mark.parametrize(
    ("start", "end", "places"),
    [
        (0, None, [(0x2000, CORE_PRINT), (0x1000, SERVER_PRINT)]),
        (0x1000, None, [(0x2000, CORE_PRINT), (0x1000, SERVER_PRINT)]),
        (0x2000, None, [(0x2000, CORE_PRINT)]),
        (0x1000, 0x4000, [(None, SERVER_PRINT), (None, CORE_PRINT)]),
        (0x1F00, 0x3000, [(None, CORE_PRINT)]),
        (0, 0x10000, [(None, SERVER_PRINT), (None, CORE_PRINT)]),
    ],
)
@pytest.mark.parametrize("junk", [b"\xff", b"\x00", b"\x30\x82\x02\x5c"], ids=["erased", "zero", "lookalike"])
def test_keys_are_carved_out_of_a_core_s_flash(
    start: int, end: int | None, places: list[tuple[int | None, str]], junk: bytes
) -> None:
    file = inspect_key_file(flash(junk=junk)[start:end], "dump.bin")
    assert file.kind == "flash-dump"
    assert [(part.address, part.key.fingerprint) for part in file.parts] == places
    assert file.reasons == ("flash_dump",)
    server = [part for part in file.parts if part.key.role == "server"]
    assert all(part.server_address == ServerAddress("device.spark.io", 8888) for part in server)
    assert file.commands == ("dfu-util -d 1d50:607f -a 1 -s 0x00002000:1024 -U FILE",)


def test_an_erased_key_slot_in_a_flash_dump_is_said() -> None:
    chip = bytearray(flash())
    chip[0x2000:0x2400] = b"\xff" * 0x400
    file = inspect_key_file(bytes(chip), "dump.bin")
    assert spki_of(file) == [SERVER_PRINT]
    assert file.remark == "the slot of the device's private key is erased"


def dct() -> bytearray:
    data = bytearray(b"\xff" * 16_384)
    data[:4] = b"\x4d\x13\x67\x9a"
    data[34 : 34 + len(CORE_DER)] = CORE_DER
    data[2082 : 2082 + 512] = image(DOMAIN, b"\x16\x33", 512)
    private = ec.generate_private_key(ec.SECP256R1())
    sec1 = private.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    data[3106 : 3106 + len(sec1)] = sec1
    return data


def test_a_photon_s_dct_gives_both_keys_and_names_the_third() -> None:
    file = inspect_key_file(bytes(dct()), "dct.bin")
    assert file.kind == "dct-dump"
    assert [(part.address, part.key.fingerprint) for part in file.parts] == [(34, CORE_PRINT), (2082, SERVER_PRINT)]
    assert file.remark == "an elliptic-curve key at 3106, for UDP only"
    assert file.parts[0].firmware is not None
    assert file.parts[0].firmware.ok


def test_a_dct_without_a_device_key_says_so() -> None:
    data = dct()
    data[34:1250] = b"\xff" * 1216
    file = inspect_key_file(bytes(data), "dct.bin")
    assert spki_of(file) == [SERVER_PRINT]
    assert "the slot of the device's private key is erased" in file.remark


def test_leftovers_behind_the_key_in_a_slot_do_not_matter() -> None:
    slot = (CORE_DER + b"\x01\x02\x03").ljust(612, b"\xff")
    file = inspect_key_file(slot, "slot.bin")
    assert (spki_of(file), file.kind) == ([CORE_PRINT], "slot-dump")
    assert firmware_reads(slot).ok


def test_pem_text_written_into_a_slot_is_found_and_called_that() -> None:
    for slot in (CORE_PEM.ljust(1024, b"\xff"), b"\xff" * 34 + CORE_PEM + b"\xff" * (16_384 - 34 - len(CORE_PEM))):
        file = inspect_key_file(slot, "slot.bin")
        assert spki_of(file) == [CORE_PRINT]
        assert file.reasons == ("pem_in_der",)
    assert firmware_reads(CORE_PEM).differences == ("PEM text, where the firmware wants DER",)


# --- other encodings --------------------------------------------------------------------------------------


def made(pem: bytes, encoding: Encoding, layout: PrivateFormat, password: bytes | None = None) -> bytes:
    key = load_pem_private_key(pem, None)
    return key.private_bytes(encoding, layout, BestAvailableEncryption(password) if password else NoEncryption())


@pytest.mark.parametrize("pem", [CORE_PEM, SERVER_PEM], ids=["device", "server"])
@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
@pytest.mark.parametrize("layout", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_each_plain_private_form_reads_the_same(pem: bytes, encoding: Encoding, layout: PrivateFormat) -> None:
    (key,) = inspect_key_file(made(pem, encoding, layout), "key").keys
    (expected,) = inspect_key_file(pem, "key").keys
    assert key == expected
    assert key.secret == expected.secret


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_a_locked_pkcs8_key_opens_with_its_password(encoding: Encoding) -> None:
    locked = made(SERVER_PEM, encoding, PrivateFormat.PKCS8, b"pass word")
    closed = inspect_key_file(locked, "server.pem")
    assert (closed.kind, closed.parts) == ("encrypted", ())
    asked: list[str] = []

    def ask(name: str) -> str:
        asked.append(name)
        return "pass word"

    for password in ("pass word", b"pass word", ask):
        assert spki_of(inspect_key_file(locked, "server.pem", password)) == [SERVER_PRINT]
    assert asked == ["server.pem"]
    assert inspect_key_file(locked, "server.pem", lambda name: None).kind == "encrypted"


def test_a_locked_traditional_pem_key_opens_with_its_password() -> None:
    locked = made(CORE_PEM, Encoding.PEM, PrivateFormat.TraditionalOpenSSL, b"pw")
    assert b"Proc-Type: 4,ENCRYPTED" in locked
    file = inspect_key_file(locked, "core.pem", "pw")
    assert (spki_of(file), file.reasons) == ([CORE_PRINT], ("encrypted_pem",))


@pytest.mark.parametrize("password", ["wrong", "", b"\xff\x00"])
def test_a_wrong_password_is_one_line_without_the_key_in_it(password: str | bytes) -> None:
    locked = made(CORE_PEM, Encoding.PEM, PrivateFormat.PKCS8, b"right")
    with pytest.raises(KeyFileError) as caught:
        inspect_key_file(locked, "core.pem", password)
    assert str(caught.value) == (
        "core.pem: the password does not open this key. Try again, or: openssl rsa -in core.pem -out plain.pem"
    )
    assert caught.value.__context__ is None


def test_a_damaged_locked_key_is_one_line_too(capfd: pytest.CaptureFixture[str]) -> None:
    locked = made(CORE_PEM, Encoding.PEM, PrivateFormat.TraditionalOpenSSL, b"pw")
    header = re.search(rb"DEK-Info: [A-Z0-9-]+,([0-9A-F]+)", locked)
    assert header is not None
    for vector in (b"", b"00", header[1][:-2], header[1] + b"00", b"zz"):
        with pytest.raises(KeyFileError, match="does not open this key"):
            inspect_key_file(locked.replace(header[1], vector), "core.pem", "pw")
    with pytest.raises(KeyFileError, match="does not open this key"):
        inspect_key_file(locked.replace(header[0], b"X: y"), "core.pem", "pw")
    assert capfd.readouterr() == ("", "")


def certificate(*, elliptic: bool = False) -> x509.Certificate:
    signer: Any = ec.generate_private_key(ec.SECP256R1()) if elliptic else load_pem_private_key(SERVER_PEM, None)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
    start = datetime.datetime(2014, 1, 1)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(signer.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=9))
        .sign(signer, hashes.SHA256())
    )


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_a_certificate_gives_its_key_and_is_no_key_file(encoding: Encoding) -> None:
    file = inspect_key_file(certificate().public_bytes(encoding), "server.crt")
    assert spki_of(file) == [SERVER_PRINT]
    assert "certificate" in file.reasons
    assert not firmware_reads(certificate().public_bytes(encoding)).ok


def test_a_certificate_without_an_rsa_key_holds_nothing_usable() -> None:
    file = inspect_key_file(certificate(elliptic=True).public_bytes(Encoding.DER), "server.cer")
    assert file.parts == ()
    assert file.kind in ("certificate", "elliptic-curve")


def test_elliptic_curve_keys_are_recognised_as_such() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    forms = [
        private.private_bytes(encoding, layout, NoEncryption())
        for encoding in (Encoding.PEM, Encoding.DER)
        for layout in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL)
    ]
    forms += [
        private.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
        for encoding in (Encoding.PEM, Encoding.DER)
    ]
    forms.append(forms[3].ljust(192, b"\xff"))
    forms.append(made_locked(private))
    for form in forms:
        password = "pw" if b"ENCRYPTED" in form else None
        file = inspect_key_file(form, "device.der", password)
        assert (file.kind, file.reasons[-1]) == ("elliptic-curve", "elliptic_curve")
        assert not firmware_reads(form).ok


def made_locked(private: ec.EllipticCurvePrivateKey) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw"))


def test_a_cer_file_that_is_a_plain_key_is_harmless() -> None:
    file = inspect_key_file(SERVER_DER, "cloud_public.cer")
    assert (spki_of(file), file.reasons) == ([SERVER_PRINT], ("cer_is_der",))
    assert firmware_reads(SERVER_DER).ok


def test_der_in_a_pem_file_is_said() -> None:
    assert inspect_key_file(CORE_DER, "core.pem").reasons == ("der_in_pem",)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_pem_text_saved_by_windows_tools_reads(encoding: str) -> None:
    text = CORE_PEM.decode().replace("\n", "\r\n").encode(encoding)
    assert spki_of(inspect_key_file(text, "core.pem")) == [CORE_PRINT]


def test_several_keys_and_talk_around_them_in_one_pem_file() -> None:
    text = b"Bag Attributes\n  name: x\n" + CORE_PEM + b"\n" + (KEYS / "server.pub.pem").read_bytes()
    assert spki_of(inspect_key_file(text, "both.pem")) == [CORE_PRINT, SERVER_PRINT]


def test_accents_around_pem_text_make_no_slot_of_it() -> None:
    text = "friendlyName: Küche\n".encode() + CORE_PEM
    assert inspect_key_file(text, "core.pem").reasons == ()


def test_a_key_of_another_size_belongs_to_nobody(tmp_path: Path) -> None:
    other = rsa.generate_private_key(65537, 3072)
    data = other.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (tmp_path / "odd.der").write_bytes(data)
    ring = KeyRing.load(tmp_path)
    assert (ring.device_keys, ring.server_keys, len(ring.other_keys)) == ((), (), 1)
    assert firmware_reads(data).differences == ("the key has 3072 bits, not 1024",)
    (row,) = keys_report([tmp_path])
    assert row.mark is Mark.BAD


def test_a_device_s_public_key_in_its_slot_is_not_what_it_needs() -> None:
    slot = (KEYS / "core-a.pub.der").read_bytes().ljust(612, b"\xff")
    file = inspect_key_file(slot, "slot.bin")
    assert (file.kind, spki_of(file)) == ("slot-dump", [CORE_PRINT])
    assert firmware_reads(slot).differences == ("a public key, where the device needs its private one",)


def test_no_key_of_the_captures_is_taken_for_the_particle_cloud_s() -> None:
    (key,) = inspect_key_file(SERVER_DER, "x").keys
    assert not key.is_production
    assert not inspect_key_file(CORE_DER, "x").keys[0].is_production


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "html"),
        (b"\n <html>", "html"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "html"),
        (b"hello\n", "text"),
        (b"\x00" * 300, "blank"),
        (b"\xff" * 1024, "blank"),
        (b"\xd4\xc3\xb2\xa1" + bytes(20), "capture"),
        (b"\x0a\x0d\x0d\x0a" + bytes(20), "capture"),
        (b"\x89PNG\r\n\x1a\n", "unknown"),
        (CORE_PEM[:300], "truncated"),
        (SERVER_DER[:100], "truncated"),
        (CORE_DER[:100], "truncated"),
        (CORE_DER[:400], "truncated"),
        (b"-----BEGIN RSA PRIVATE KEY-----\n!!!\n-----END RSA PRIVATE KEY-----\n", "unknown"),
    ],
)
def test_what_is_no_usable_key_says_what_it_is(data: bytes, kind: str) -> None:
    file = inspect_key_file(data, "file")
    assert file.kind == kind
    assert file.size == len(data)
    assert not any(key.private for key in file.keys)
    assert file.remark or kind == "unknown"


def test_a_cut_private_key_still_shows_which_key_it_was() -> None:
    file = inspect_key_file(CORE_DER[:400], "core.der")
    assert spki_of(file) == [CORE_PRINT]
    assert file.remark == "cut short: 400 of 607 bytes"


# --- fuzzing ----------------------------------------------------------------------------------------------

SEEDS = [CORE_DER, SERVER_DER, CORE_PEM, SERVER_PEM, *CASES.values()]
SEEDS += [certificate().public_bytes(encoding) for encoding in (Encoding.PEM, Encoding.DER)]
SEEDS += [made(CORE_PEM, Encoding.DER, PrivateFormat.PKCS8, b"pw"), bytes(dct()), flash()[0x1000:0x2800]]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SEEDS), st.data())
def test_mutated_keys_never_raise(seed: bytes, data: st.DataObject) -> None:
    changed = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
        changed = changed or bytearray(b"x")
    looked_at(bytes(changed[: data.draw(st.integers(1, len(changed)))]))


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=600),
    st.sampled_from([b"", b"\x30\x82\x02\x5b\x02\x01\x00", b"-----BEGIN X-----\n", b"\xff\xfe"]),
)
def test_arbitrary_bytes_never_raise(data: bytes, start: bytes) -> None:
    looked_at(start + data)


def looked_at(data: bytes) -> None:
    file = inspect_key_file(data, "f.der")
    reading = firmware_reads(data)
    assert reading.ok is not bool(reading.differences)
    for part in file.parts:
        assert part.key.n % 2 == 1
        assert len(part.key.fingerprint) == 8
    repr(file)


def test_hostile_files_cost_no_more_than_their_size() -> None:
    begins = b"-----BEGIN RSA PRIVATE KEY-----\n" * 100_000
    assert inspect_key_file(begins, "x").parts == ()
    heads = CORE_DER[:12] * 200_000
    assert len(inspect_key_file(heads, "x").parts) <= 16
    nested = b"\x30\x82\xff\xff" * 500_000
    assert inspect_key_file(nested, "x").parts == ()


# --- secrets ----------------------------------------------------------------------------------------------


def secrets_of(pem: bytes) -> list[str]:
    numbers: Any = load_pem_private_key(pem, None)
    every = numbers.private_numbers()
    found = []
    for value in (every.d, every.p, every.q, every.dmp1, every.dmq1, every.iqmp):
        digits = f"{value:x}"
        found += [str(value)[5:40], digits[5:40], digits[-40:-5]]
        packed = value.to_bytes(value.bit_length() // 8 + 1, "big")
        found += [base64.b64encode(packed[1 : 1 + 24]).decode(), repr(packed[8:16])[2:-1]]
    return found


def test_no_secret_is_ever_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, data in (
        ("a.der", CORE_DER),
        ("b.pem", SERVER_PEM),
        ("c.bin", flash()),
        ("d.der", CORE_DER[:500]),
        ("e.pem", CORE_PEM[:-60]),
        ("f.pem", made(CORE_PEM, Encoding.PEM, PrivateFormat.PKCS8, b"canary-password")),
        ("g.log", b"SPARK_SESSION - " + b"c0ffee" * 13),
        ("h.pem", CORE_PEM.replace(b"M", b"!", 3)),
    ):
        (tmp_path / name).write_bytes(data)
    printed = []
    for path in sorted(tmp_path.iterdir()):
        for password in (None, "wrong-canary"):
            try:
                file = inspect_key_file(path.read_bytes(), path.name, password)
                printed += [repr(file), str(file), repr(file.parts)]
                ring = KeyRing.load(path, password=password)
                printed += [repr(ring), repr(ring.device_keys), repr(vars(ring)), str(ring.warnings)]
            except KeyFileError as error:
                printed += [str(error), "".join(traceback.format_exception(error))]
    rows = keys_report([tmp_path])
    printed += [render_keys(rows), repr(rows), json.dumps([row.as_dict() for row in rows])]
    printed += [repr(read_key_log((tmp_path / "g.log").read_text()))]
    printed += [*capsys.readouterr()]
    everything = "\n".join(printed)
    for secret in (*secrets_of(CORE_PEM), *secrets_of(SERVER_PEM), "canary", "c0ffeec0ffee"):
        assert secret not in everything
    body = CORE_PEM.decode().splitlines()[3:-1] + SERVER_PEM.decode().splitlines()[6:-1]
    assert not any(line in everything for line in body)


# --- the key ring -----------------------------------------------------------------------------------------


def test_a_folder_gives_each_key_once_with_all_its_files() -> None:
    ring = KeyRing.load(KEYS)
    assert len(ring.device_keys) == len(ring.device_private) == 10
    assert len(ring.server_keys) == len(ring.server_private) == 2
    assert (len(ring.files), ring.skipped, ring.warnings, bool(ring)) == (48, (), (), True)
    core = next(key for key in ring.device_keys if key.fingerprint == CORE_PRINT)
    assert sorted(os.path.basename(source) for source in core.sources) == [
        "core-a.der",
        "core-a.pem",
        "core-a.pub.der",
        "core-a.pub.pem",
    ]
    assert len(ring.pairs()) == 12
    assert ring.mismatched_pairs() == ()


def test_the_private_half_wins_whichever_comes_first() -> None:
    names = ["core-a.pub.pem", "core-a.der"]
    for order in (names, names[::-1]):
        (key,) = KeyRing.load(*(KEYS / name for name in order)).device_keys
        assert key.private
        assert os.path.basename(key.name) == "core-a.der"
        assert len(key.sources) == 2


def test_files_that_are_no_keys_are_passed_over_with_their_reason(tmp_path: Path) -> None:
    (tmp_path / "core.der").write_bytes(CORE_DER)
    (tmp_path / "notes.txt").write_text("remember")
    (tmp_path / "page.der").write_text("<html>404</html>")
    (tmp_path / "movie.bin").write_bytes(random.Random(1).randbytes(1000))
    (tmp_path / "huge.pcap").write_bytes(bytes((4 << 20) + 10))
    (tmp_path / "locked.pem").write_bytes(made(CORE_PEM, Encoding.PEM, PrivateFormat.PKCS8, b"pw"))
    (tmp_path / "sub").mkdir()
    ring = KeyRing.load(tmp_path)
    assert len(ring.files) == 1
    assert {os.path.basename(file.name): file.kind for file in ring.skipped} == {
        "huge.pcap": "unknown",
        "locked.pem": "encrypted",
        "movie.bin": "unknown",
        "notes.txt": "text",
        "page.der": "html",
    }


def test_a_password_opens_what_it_fits_and_the_rest_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_bytes(made(CORE_PEM, Encoding.PEM, PrivateFormat.PKCS8, b"one"))
    (tmp_path / "b.pem").write_bytes(made(SERVER_PEM, Encoding.PEM, PrivateFormat.PKCS8, b"two"))
    ring = KeyRing.load(tmp_path, password=lambda name: "one")
    assert (len(ring.device_private), len(ring.server_private)) == (1, 0)
    (warning,) = ring.warnings
    assert "b.pem: the password does not open this key." in warning


def test_device_ids_in_file_names_find_their_keys(tmp_path: Path) -> None:
    device = "48ff6d06507b573081350e87"
    (tmp_path / f"{device.upper()}.pub.pem").write_bytes((KEYS / "core-a-stale.pub.pem").read_bytes())
    (tmp_path / f"{device}_handshake.pub.pem").write_bytes((KEYS / "core-a.pub.pem").read_bytes())
    (tmp_path / "core-a.der").write_bytes(CORE_DER)
    ring = KeyRing.load(tmp_path)
    assert {key.fingerprint for key in ring.keys_of_device(device)} == {CORE_PRINT, "7159fa88"}
    assert ring.keys_of_device("0" * 24) == ()
    assert [key.private for key in ring.keys_of_device(device) if key.fingerprint == CORE_PRINT] == [True]


def test_files_named_as_a_pair_that_are_none_are_found(tmp_path: Path) -> None:
    (tmp_path / "device.der").write_bytes(CORE_DER)
    (tmp_path / "device.pub.pem").write_bytes((KEYS / "core-a-stale.pub.pem").read_bytes())
    (pair,) = KeyRing.load(tmp_path).mismatched_pairs()
    assert [os.path.basename(name) for name in (pair.private_file, pair.public_file)] == [
        "device.der",
        "device.pub.pem",
    ]


def test_a_key_given_for_the_wrong_role_is_used_and_warned_about() -> None:
    ring = KeyRing.load(device_keys=[KEYS / "server.pem"], server_keys=[KEYS / "core-a.der"])
    assert (len(ring.device_private), len(ring.server_private)) == (1, 1)
    assert all("role_swapped" in file.reasons for file in ring.files)
    assert "--device-key was given a 2048-bit key, a server's" in ring.warnings[0]
    public = KeyRing.load(device_keys=[KEYS / "core-a.pub.pem"])
    assert "public_given_private_wanted" in public.files[0].reasons
    assert "opens nothing" in public.warnings[0]


def error_of(*paths: str | Path, **more: Any) -> str:
    with pytest.raises(KeyFileError) as caught:
        KeyRing.load(*paths, **more)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_errors_name_the_file_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "core.der").write_bytes(CORE_DER)
    assert error_of("core.dre") == "core.dre: no such file. Did you mean core.der?"
    assert error_of("zzzzzzzz") == "zzzzzzzz: no such file. See what is there: ls ."
    backups = tmp_path / "backups"
    backups.mkdir()
    assert error_of("backups/") == "--keys backups/: no files in it. Without --keys there is still a verdict."
    for name in ("notes.txt", "other.txt", "third.md"):
        (backups / name).write_text("text")
    assert error_of("backups/") == (
        "--keys backups/: 3 files, none of them a key (first: notes.txt). Without --keys there is still a verdict."
    )
    assert error_of("backups/notes.txt") == (
        "backups/notes.txt: text, not a key. Try: sparkshark keys backups/notes.txt"
    )
    (tmp_path / "locked.pem").write_bytes(made(CORE_PEM, Encoding.PEM, PrivateFormat.PKCS8, b"pw"))
    assert error_of("locked.pem") == (
        "locked.pem: locked with a password. Try: --password-file FILE, or: openssl rsa -in locked.pem -out plain.pem"
    )
    assert error_of("core.der/x").startswith("core.der/x: ")


def test_one_bad_file_beside_a_good_one_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "erased.der").write_bytes(b"\xff" * 612)
    ring = KeyRing.load(KEYS / "core-a.der", tmp_path / "erased.der")
    assert len(ring.device_private) == 1
    assert "an erased slot: 612 bytes without a key" in ring.warnings[0]


def test_an_empty_ring_has_nothing_to_try() -> None:
    ring = KeyRing.load()
    assert not ring
    assert (ring.device_keys, ring.session_keys_for(b"x" * 40)) == ((), ())


# --- session keys -----------------------------------------------------------------------------------------

BLOB = bytes(range(100, 140))
NONCE = bytes(range(40))


def test_session_key_digits_are_read_in_both_lengths() -> None:
    whole = parse_session_key(BLOB.hex())
    assert (whole.key, whole.iv, whole.salt, whole.blob) == (BLOB[:16], BLOB[16:32], BLOB[32:], BLOB)
    spaced = parse_session_key(":".join(f"{byte:02X}" for byte in BLOB))
    assert spaced == whole
    alone = parse_session_key(BLOB[:16].hex())
    assert (alone.key, alone.iv, alone.blob, alone.first_message_ids) == (BLOB[:16], None, None, None)


WANTED = "80 digits are wanted (or 32 for the AES key alone)."


@pytest.mark.parametrize(
    ("digits", "message"),
    [
        ("00" * 8 + "g0", f'--session-key: character 17 is "g", not a hex digit. {WANTED}'),
        ("\x1b", f'--session-key: character 1 is "\\x1b", not a hex digit. {WANTED}'),
        ("\u034f", f'--session-key: character 1 is "\\u034f", not a hex digit. {WANTED}'),
        ("0x" + "00" * 40, f'--session-key: character 2 is "x", not a hex digit. {WANTED}'),
        ("00" * 39, f"--session-key: 78 hex digits. {WANTED}"),
        ("", f"--session-key: 0 hex digits. {WANTED}"),
    ],
)
def test_wrong_session_key_digits_are_named_by_their_place(digits: str, message: str) -> None:
    with pytest.raises(KeyFileError) as caught:
        parse_session_key(digits)
    assert str(caught.value) == message


def test_the_hello_s_first_id_follows_from_the_salt() -> None:
    for session in VECTORS["sessions"]:
        key = SessionKey.from_blob(bytes.fromhex(session["session_blob"]))
        hello = bytes.fromhex(session["frames"][0]["coap"])
        assert key.first_message_ids is not None
        assert int.from_bytes(hello[2:4], "big") in key.first_message_ids


def test_a_key_log_survives_its_way_through_a_file(tmp_path: Path) -> None:
    key, other = SessionKey.from_blob(BLOB), SessionKey.from_blob(NONCE)
    path = tmp_path / "keys.log"
    write_key_log(path, [(NONCE, key), (None, other)])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ring = KeyRing.load(keylogs=[path], session_keys=[BLOB[:16].hex()])
    assert ring.session_keys_for(NONCE) == (key, other, SessionKey(BLOB[:16]))
    assert ring.session_keys_for(None) == (other, SessionKey(BLOB[:16]))
    with pytest.raises(KeyFileError, match="exists already"):
        write_key_log(path, [])
    path.chmod(0o644)
    write_key_log(path, [(NONCE, other)], force=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KeyRing.load(keylogs=[path]).session_keys_for(NONCE) == (other,)


def test_bad_key_log_lines_are_reported_by_number_and_passed_over() -> None:
    good = key_log_line(NONCE, SessionKey.from_blob(BLOB))
    log = read_key_log(
        f"# made by hand\n\n{good} # desk\nCLIENT_RANDOM 00 11\nSPARK_SESSION - 00\nSPARK_SESSION -\n"
        f"SPARK_SESSION {'0' * 79}g {'0' * 80}\nSPARK_SESSION - {BLOB.hex().upper()}\n{good}\n"
    )
    assert log.by_nonce == {NONCE: (SessionKey.from_blob(BLOB),)}
    assert log.without_nonce == (SessionKey.from_blob(BLOB),)
    assert log.bad_lines == (
        (4, "does not begin with SPARK_SESSION"),
        (5, "the session key has 2 hex digits, not 80"),
        (6, "SPARK_SESSION is followed by 1 fields, not 2"),
        (7, "the nonce has no hex digit at character 80"),
    )


def test_a_mark_that_an_editor_put_before_a_key_log_costs_no_line(tmp_path: Path) -> None:
    path = tmp_path / "keys.log"
    path.write_text(key_log_line(NONCE, SessionKey.from_blob(BLOB)) + "\n", encoding="utf-8-sig")
    ring = KeyRing.load(keylogs=[path])
    assert ring.session_keys_for(NONCE) == (SessionKey.from_blob(BLOB),)
    assert ring.warnings == ()


def test_two_keys_for_one_nonce_are_both_kept() -> None:
    keys = [SessionKey.from_blob(BLOB), SessionKey.from_blob(NONCE)]
    log = read_key_log("\n".join(key_log_line(NONCE, key) for key in keys))
    assert log.by_nonce == {NONCE: tuple(keys)}


def test_a_key_log_without_keys_is_an_error_when_nothing_else_is_given(tmp_path: Path) -> None:
    (tmp_path / "keys.log").write_text("# nothing yet\n")
    assert "no session key in it" in error_of(keylogs=[tmp_path / "keys.log"])
    assert error_of(keylogs=[tmp_path / "key.log"]).endswith(f"no such file. Did you mean {tmp_path / 'keys.log'}?")


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=300) | st.text(alphabet="SPARK_ESION -#0123abc\n", max_size=300))
def test_any_key_log_text_is_read_without_an_error(text: str) -> None:
    log = read_key_log("SPARK_SESSION " + text)
    assert len(log.bad_lines) <= 100
    with pytest.raises(KeyFileError, match=r"^--session-key: [^\n]*$"):
        parse_session_key(text + "!")


def test_a_log_line_needs_the_whole_key() -> None:
    with pytest.raises(ValueError, match="all 40 bytes"):
        key_log_line(None, SessionKey(BLOB[:16]))


# --- the screen -------------------------------------------------------------------------------------------

SCREEN = """\
  file              what it is                                        key
✓ core-a.der        device private key; this firmware can read it     91d4915e
✓ core-a.pub.pem    its public half: what the server needs            91d4915e
~ backup.bin        whole flash chip, 2,097,152 bytes. Usable; holds
                    a device private key at 0x2000                    91d4915e
                    a server public key at 0x1000                     ec7645ed
                    A device with this image goes to device.spark.io:8888.
                    Next time:
                      dfu-util -d 1d50:607f -a 1 -s 0x00002000:1024 -U FILE
✓ cloud_public.cer  server public key, 294 bytes; .cer is harmless,
                    the content is that of a .der file                ec7645ed
✕ unlucky.der       device private key, correct, but this firmware
                    misreads it: dP is 63 bytes, not 64 (SPK306)      9cf14abd
                    Make another: particle keys doctor DEVICE_ID
✕ device.pub.pem    device public key; no private key here fits it.
                    Is core-a.der in that device? Then SPK301 applies 7159fa88
"""


def backups(folder: Path) -> list[Path]:
    files = {
        "core-a.der": CORE_DER,
        "core-a.pub.pem": (KEYS / "core-a.pub.pem").read_bytes(),
        "backup.bin": flash(),
        "cloud_public.cer": SERVER_DER,
        "unlucky.der": CASES["core-private-short-integer.der"],
        "device.pub.pem": (KEYS / "core-a-stale.pub.pem").read_bytes(),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


def test_the_screen_of_a_folder_of_backups(tmp_path: Path) -> None:
    rows = keys_report(backups(tmp_path))
    assert render_keys(rows) == SCREEN
    assert all(len(line) <= 80 for line in render_keys(rows).splitlines())
    ascii_only = render_keys(rows, ascii_only=True)
    assert ascii_only.isascii()
    assert "x  unlucky.der" in ascii_only


def test_rows_are_data_for_json_too(tmp_path: Path) -> None:
    rows = {os.path.basename(row.name): row.as_dict() for row in keys_report(backups(tmp_path))}
    dump: Any = rows["backup.bin"]["keys"]
    assert [(key["role"], key["address"], key["firmware_reads"]) for key in dump] == [
        ("device", 0x2000, True),
        ("server", 0x1000, True),
    ]
    assert dump[1]["server"] == {"host": "device.spark.io", "port": 8888}
    assert rows["unlucky.der"]["state"] == "bad"
    assert json.loads(json.dumps(rows)) == rows


def test_a_folder_s_other_files_share_one_row(tmp_path: Path) -> None:
    backups(tmp_path)
    for number in range(7):
        (tmp_path / f"note{number}.txt").write_text("text")
    rows = keys_report([tmp_path])
    assert len(rows) == 7
    assert rows[-1].name == "7 other files"
    assert rows[-1].paragraphs[0].text == ("no keys: note0.txt, note1.txt, note2.txt, note3.txt, note4.txt and 2 more")
    names = [os.path.basename(row.name) for row in rows]
    assert names.index("core-a.pub.pem") == names.index("core-a.der") + 1


def test_every_reference_file_gets_a_row_and_each_command_is_whole(tmp_path: Path) -> None:
    for name, data in CASES.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "server.crt").write_bytes(certificate().public_bytes(Encoding.DER))
    (tmp_path / "locked.pem").write_bytes(made(CORE_PEM, Encoding.PEM, PrivateFormat.PKCS8, b"pw"))
    rows = {os.path.basename(row.name): row for row in keys_report([tmp_path])}
    assert len(rows) == len(CASES) + 2
    marks = {name: row.mark for name, row in rows.items()}
    assert marks["core-private-pkcs8.der"] is Mark.WARNING
    assert marks["server-public-pkcs1.der"] is Mark.WARNING
    assert marks["core-private-erased-612.der"] is Mark.BAD
    assert marks["server.crt"] is Mark.BAD
    assert marks["locked.pem"] is Mark.UNKNOWN
    assert marks["server-public-512-ip.der"] is Mark.GOOD
    text = render_keys(rows.values())
    for row in rows.values():
        for paragraph in row.paragraphs:
            if paragraph.command:
                assert f"  {paragraph.text}\n" in text
    assert "goes to 192.168.1.10:5683." in text


def test_a_file_name_cannot_move_the_cursor(tmp_path: Path) -> None:
    (tmp_path / "a\x1b[31m.der").write_bytes(CORE_DER)
    assert "\x1b" not in render_keys(keys_report([tmp_path]))


def test_the_keys_screen_of_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="no such file"):
        keys_report([tmp_path / "gone.der"])


def test_two_named_files_with_one_private_key_are_told_and_used_once() -> None:
    ring = KeyRing.load(KEYS / "core-a.der", KEYS / "core-a.pem", KEYS / "core-a.pub.pem", KEYS / "core-b.der")
    assert [key.fingerprint for key in ring.device_private] == ["91d4915e", "e990f45f"]
    (line,) = ring.warnings
    assert line == f"{KEYS / 'core-a.pem'}: the same private key as {KEYS / 'core-a.der'} (91d4915e); used once."
    assert KeyRing.load(KEYS).warnings == (), "a folder holds each key in several forms on purpose"


# --- keys that something else than their bytes is wrong with ------------------------------------------------


def algorithm(*members: bytes) -> bytes:
    return tlv(0x30, b"".join(members))


RSA_ID = tlv(6, bytes.fromhex("2a864886f70d010101"))
DSA_ID = tlv(6, bytes.fromhex("2a8648ce380401"))
HALF_A_KEY = {
    "PKCS#8 without an algorithm": (b"\x02\x01\x00", algorithm(), tlv(4, bytes(99))),
    "PKCS#8 of another kind": (b"\x02\x01\x00", algorithm(DSA_ID), tlv(4, bytes(99))),
    "PKCS#8 without a key": (b"\x02\x01\x00", algorithm(RSA_ID)),
    "PKCS#8 around rubbish": (b"\x02\x01\x00", algorithm(RSA_ID), tlv(4, b"\x05" * 600)),
    "public without an algorithm": (algorithm(), tlv(3, bytes(200))),
    "public of another kind": (algorithm(DSA_ID), tlv(3, bytes(200))),
    "a list of one": (tlv(0x30, tlv(0x30, b"")), tlv(0x30, b"")),
}


@pytest.mark.parametrize("members", HALF_A_KEY.values(), ids=HALF_A_KEY)
def test_what_only_begins_like_a_key_is_none(members: tuple[bytes, ...]) -> None:
    file = inspect_key_file(tlv(0x30, b"".join(members)), "core.der")
    assert file.parts == ()
    assert not firmware_reads(tlv(0x30, b"".join(members))).ok


def test_a_certificate_around_another_kind_of_key_holds_no_key() -> None:
    parts = [b"\x02\x01\x01", *[tlv(0x30, b"")] * 4, algorithm(algorithm(DSA_ID), tlv(3, bytes(99)))]
    file = inspect_key_file(tlv(0x30, tlv(0x30, b"".join(parts)) + algorithm(DSA_ID)), "server.crt")
    assert (file.kind, file.parts) == ("certificate", ())
    assert "certificate" in file.remark


def test_a_server_key_with_an_odd_exponent_is_named() -> None:
    key = rsa.RSAPublicNumbers(3, int.from_bytes(SERVER_DER[33:289], "big")).public_key()
    data = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert "3" in " ".join(firmware_reads(data.ljust(294, b"\0")).differences)


def test_parameters_beside_a_key_and_broken_base64_do_not_matter() -> None:
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    broken = b"-----BEGIN RSA PRIVATE KEY-----\nAAAAA\n-----END RSA PRIVATE KEY-----\n"
    assert spki_of(inspect_key_file(parameters + CORE_PEM, "core.pem")) == [CORE_PRINT]
    assert spki_of(inspect_key_file(broken + CORE_PEM, "core.pem")) == [CORE_PRINT]
    assert inspect_key_file(broken, "core.pem").parts == ()


def test_the_screen_tells_what_is_wrong_with_each_key(tmp_path: Path) -> None:
    damaged = bytearray(CORE_DER)
    damaged[200] ^= 1
    unlucky = CASES["core-private-short-integer.der"]
    dump = bytearray(b"\xff" * 2_097_152)
    dump[0x2000 : 0x2000 + len(unlucky)] = unlucky
    other = rsa.RSAPublicNumbers(65537, (1 << 1535) + 1).public_key()
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    files = {
        "damaged.der": bytes(damaged),
        "text.der": CORE_PEM,
        "flash.bin": bytes(dump),
        "cut.der": (KEYS / "server.der").read_bytes()[:700],
        "other.der": other.public_bytes(*form),
    }
    told = {}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        told[name] = " ".join(render_keys(keys_report([tmp_path / name]), width=200).split())
    assert "damaged: its numbers contradict each other" in told["damaged.der"]
    assert "but as PEM text, which a device misreads. Convert it before loading:" in told["text.der"]
    assert "this firmware misreads it:" in told["flash.bin"]
    assert "(SPK306)" in told["flash.bin"]
    assert "server private key, cut short: 700 of 1,191 bytes; only its public half can be seen" in told["cut.der"]
    assert "RSA key of 1,536 bits" in told["other.der"]
    narrow = render_keys(keys_report([tmp_path / "text.der"]), width=40)
    assert any(line.strip().startswith("openssl ") and line.endswith("-out NEW.der") for line in narrow.splitlines())


def test_a_public_key_is_told_with_what_lies_beside_it(tmp_path: Path) -> None:
    public = (KEYS / "core-a.pub.pem").read_bytes()
    (tmp_path / "core-a.pub.pem").write_bytes(public)
    assert "device public key: what the server needs" in render_keys(keys_report([tmp_path]))
    (tmp_path / "core-a.der").write_bytes((KEYS / "core-b.der").read_bytes())
    assert "Is core-a.der in that device?" in " ".join(render_keys(keys_report([tmp_path])).split())
    (tmp_path / "core-a.der").rename(tmp_path / "x.der")
    (tmp_path / "y.der").write_bytes((KEYS / "core-c.der").read_bytes())
    told = " ".join(render_keys(keys_report([tmp_path])).split())
    assert "no private key here fits it." in told
    assert "in that device?" not in told, "with two keys that a device could use nobody knows"


def test_one_locked_file_of_a_folder_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_bytes(made(CORE_PEM, Encoding.PEM, PrivateFormat.PKCS8, b"pw"))
    (tmp_path / "b.der").write_bytes(CORE_DER)
    told = render_keys(keys_report([tmp_path], lambda name: b"wrong"))
    assert "the password does not open this key" in " ".join(told.split())
    assert CORE_PRINT in told


def test_a_folder_with_more_files_than_are_looked_at_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_module, "MOST_FILES", 2)
    for name in "abc":
        (tmp_path / f"{name}.der").write_bytes(CORE_DER)
    assert f"{tmp_path}: more than 2 files; the rest was not looked at." in KeyRing.load(tmp_path).warnings


def test_a_session_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="has 40 bytes, not 39"):
        SessionKey.from_blob(bytes(39))
