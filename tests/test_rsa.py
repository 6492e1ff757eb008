"""RSA blocks open for the right key and for no other; each rule of the padding is checked."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer import rsa
from analyzer.keys import KeyRing
from analyzer.rsa import PrivateNumbers, PublicNumbers

HERE = Path(__file__).parent
KEYS = HERE.parent / "captures" / "keys"
VECTORS: dict[str, Any] = json.loads((HERE / "vectors" / "vectors.json").read_text())


def numbers(pem: str) -> PrivateNumbers:
    key = load_pem_private_key(pem.encode(), None)
    every = key.private_numbers()  # type: ignore[union-attr]
    return PrivateNumbers(
        every.public_numbers.n,  # type: ignore[union-attr]
        every.public_numbers.e,  # type: ignore[union-attr]
        every.d,  # type: ignore[union-attr]
        every.p,  # type: ignore[union-attr]
        every.q,  # type: ignore[union-attr]
        every.dmp1,  # type: ignore[union-attr]
        every.dmq1,  # type: ignore[union-attr]
        every.iqmp,  # type: ignore[union-attr]
    )


CORE = numbers(VECTORS["keys"]["core"]["private_pem_pkcs1"])
SERVER = numbers(VECTORS["keys"]["server"]["private_pem_pkcs1"])


@pytest.mark.parametrize("session", VECTORS["sessions"], ids=lambda session: session["name"])
def test_both_sealed_parts_of_each_vector_open(session: dict[str, Any]) -> None:
    identity = rsa.open_block(SERVER, bytes.fromhex(session["message2"]["ciphertext"]))
    assert identity is not None
    assert identity.hex() == session["message2"]["plaintext"]
    sealed = bytes.fromhex(session["message3"]["ciphertext"])
    blob = rsa.open_block(CORE, sealed)
    assert blob is not None
    assert blob.hex() == session["session_blob"]
    signed = rsa.open_signature(SERVER.public, bytes.fromhex(session["message3"]["signature"]))
    assert signed == hmac.digest(blob, sealed, hashlib.sha1)
    assert signed is not None
    assert signed.hex() == session["message3"]["hmac_sha1"]


def test_the_signature_of_a_vector_is_made_again_byte_by_byte() -> None:
    message3 = VECTORS["sessions"][0]["message3"]
    assert rsa.sign_block(SERVER, bytes.fromhex(message3["hmac_sha1"])).hex() == message3["signature"]


# Steps of two from each seeded start to the next prime. Looking for them again would take half a minute.
# fmt: off
STEPS_TO_PRIME = {
    512: [81, 198, 127, 384, 89, 93, 227, 88, 102, 396, 366, 289, 242,
          94, 204, 6, 312, 82, 115, 403, 100, 23, 211, 115, 390, 74],
    1024: [136, 530, 110, 686, 491, 182, 760, 229, 788, 191, 212, 394, 3,
           259, 12, 237, 1025, 668, 848, 163, 131, 561, 5, 18, 216, 93],
}
# fmt: on


def other_keys(bits: int, count: int) -> Iterator[PrivateNumbers]:
    """Make keys that are right in themselves, from pairs out of a small pool of primes."""
    half = bits // 2
    rng = random.Random(half)
    pool = [(rng.getrandbits(half) | 3 << (half - 2) | 1) + 2 * steps for steps in STEPS_TO_PRIME[half]]
    pairs = [(p, q) for at, p in enumerate(pool) for q in pool[:at]]
    for p, q in pairs[:count]:
        d = pow(65537, -1, (p - 1) * (q - 1))
        yield PrivateNumbers(p * q, 65537, d, p, q, d % (p - 1), d % (q - 1), pow(q, -1, p))


@pytest.mark.parametrize(("bits", "lengths"), [(1024, (40,)), (2048, (52, 214))])
def test_300_wrong_keys_never_open_a_sealed_part(bits: int, lengths: tuple[int, ...]) -> None:
    session = VECTORS["sessions"][1]
    block = bytes.fromhex(session["message3" if bits == 1024 else "message2"]["ciphertext"])
    wrong = list(other_keys(bits, 300))
    assert len({key.n for key in wrong}) == 300
    assert all(key.n.bit_length() == bits for key in wrong)
    for key in wrong:
        check = rsa.seal_block(key.public, b"right key", bytes([1]) * (key.size - 12))
        assert rsa.open_block(key, check) == b"right key"
        opened = rsa.open_block(key, block)
        assert opened is None or len(opened) not in lengths


def test_300_wrong_signers_are_never_believed() -> None:
    signature = bytes.fromhex(VECTORS["sessions"][0]["message3"]["signature"])
    assert [key for key in other_keys(2048, 300) if rsa.open_signature(key.public, signature)] == []


def test_the_wrong_key_vector_does_not_open() -> None:
    case = VECTORS["wrong_key_cases"][0]
    assert rsa.open_block(SERVER, bytes.fromhex(case["message2"])) is None


def sealed(block: bytes) -> bytes:
    return pow(int.from_bytes(block, "big"), CORE.e, CORE.n).to_bytes(128, "big")


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (b"\x00\x02" + b"\x01" * 85 + b"\x00" + b"m" * 40, b"m" * 40),
        (b"\x00\x02" + b"\x01" * 8 + b"\x00" + b"m" * 117, b"m" * 117),
        (b"\x00\x02" + b"\x01" * 125 + b"\x00", b""),
        (b"\x00\x02" + b"\x01" * 7 + b"\x00" + b"m" * 118, None),  # seven padding bytes
        (b"\x00\x02" + b"\x01" * 126, None),  # no end of the padding
        (b"\x00\x01" + b"\x01" * 85 + b"\x00" + b"m" * 40, None),  # a signature's block
        (b"\x01\x02" + b"\x01" * 85 + b"\x00" + b"m" * 40, None),
        (b"\x00\x02\x00" + b"\x01" * 84 + b"\x00" + b"m" * 40, None),
    ],
)
def test_each_byte_of_an_encryption_block_counts(block: bytes, message: bytes | None) -> None:
    assert rsa.open_block(CORE, sealed(block)) == message


@pytest.mark.parametrize(
    ("block", "content"),
    [
        (b"\x00\x01" + b"\xff" * 233 + b"\x00" + b"h" * 20, b"h" * 20),
        (b"\x00\x01" + b"\xff" * 232 + b"\xfe\x00" + b"h" * 20, None),
        (b"\x00\x01" + b"\xff" * 7 + b"\x00" + b"h" * 246, None),
        (b"\x00\x02" + b"\xff" * 233 + b"\x00" + b"h" * 20, None),
        (b"\x00\x01" + b"\xff" * 254, None),
    ],
)
def test_each_byte_of_a_signature_block_counts(block: bytes, content: bytes | None) -> None:
    signature = pow(int.from_bytes(block, "big"), SERVER.d, SERVER.n).to_bytes(256, "big")
    assert rsa.open_signature(SERVER.public, signature) == content


def test_it_agrees_with_a_crypto_library_in_both_directions() -> None:
    pem = VECTORS["keys"]["core"]["private_pem_pkcs1"].encode()
    library_private: Any = load_pem_private_key(pem, None)
    library_public: Any = load_pem_public_key(VECTORS["keys"]["core"]["public_pem_spki"].encode())
    message = bytes(range(40))
    assert rsa.open_block(CORE, library_public.encrypt(message, padding.PKCS1v15())) == message
    ours = rsa.seal_block(CORE.public, message, b"\x55" * 85)
    assert library_private.decrypt(ours, padding.PKCS1v15()) == message
    theirs = library_private.sign(b"text", padding.PKCS1v15(), hashes.SHA1())  # noqa: S303
    content = rsa.open_signature(CORE.public, theirs)
    assert content is not None
    assert content.endswith(hashlib.sha1(b"text").digest())  # noqa: S324
    assert len(content) == 35


@pytest.mark.parametrize("damaged", ["dp", "dq", "qinv", "p", "q"])
def test_a_damaged_number_for_the_fast_way_leaves_the_slow_way(damaged: str) -> None:
    values = {name: getattr(CORE, name) for name in ("n", "e", "d", "p", "q", "dp", "dq", "qinv")}
    values[damaged] ^= 4
    key = PrivateNumbers(**values)
    assert rsa.open_block(key, sealed(b"\x00\x02" + b"\x01" * 85 + b"\x00" + b"m" * 40)) == b"m" * 40
    values["d"] ^= 4
    assert rsa.open_block(PrivateNumbers(**values), sealed(b"\x00\x02" + b"\x01" * 126)) is None


def test_a_key_of_three_numbers_works_too() -> None:
    block = bytes.fromhex(VECTORS["sessions"][0]["message3"]["ciphertext"])
    assert rsa.open_block(PrivateNumbers(CORE.n, CORE.e, CORE.d), block) == rsa.open_block(CORE, block)


def test_blocks_of_another_size_or_not_below_the_modulus_do_not_open() -> None:
    above = (CORE.n + 5).to_bytes(128, "big")
    for block in (b"", b"\x00" * 127, b"\x00" * 129, b"\x01" * 256, above, b"\xff" * 128):
        assert rsa.open_block(CORE, block) is None
        assert rsa.open_signature(CORE.public, block) is None


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**1100), st.integers(0, 2**80), st.integers(0, 2**1100), st.binary(max_size=140))
def test_any_numbers_and_bytes_are_refused_without_an_error(n: int, e: int, d: int, block: bytes) -> None:
    assert rsa.open_block(PrivateNumbers(n, e, d, d, e, n, e, d), block) is None
    assert rsa.open_signature(PublicNumbers(n, e), block) is None


def test_making_blocks_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="85 nonzero padding bytes"):
        rsa.seal_block(CORE.public, bytes(40), b"\x01" * 84)
    with pytest.raises(ValueError, match="do not fit"):
        rsa.sign_block(CORE, bytes(120))
    with pytest.raises(ValueError, match="contradict"):
        rsa.sign_block(PrivateNumbers(CORE.n, CORE.e, CORE.d ^ 2), bytes(20))


def test_secret_numbers_are_not_printed() -> None:
    printed = repr(CORE)
    for secret in (CORE.d, CORE.p, CORE.q, CORE.dp, CORE.dq, CORE.qinv):
        assert str(secret) not in printed
        assert f"{secret:x}" not in printed


def test_every_key_of_the_captures_opens_what_is_sealed_for_it_and_nothing_else() -> None:
    ring = KeyRing.load(KEYS)
    private = ring.device_private + ring.server_private
    assert len(private) == 12
    for key in private:
        size = key.bits // 8
        block = rsa.seal_block(key.public, b"hello", b"\x07" * (size - 8))
        opening = [other for other in private if other.secret and rsa.open_block(other.secret, block) == b"hello"]
        assert opening == [key]
