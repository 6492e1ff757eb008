"""The plugin's ciphers, hashes and RSA in each Lua, over each way to operate on bits, against Python's own."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import lua_coverage
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st
from lua_engine import VERSIONS, engine, plugin, runtime

from analyzer import rsa
from analyzer.rsa import PrivateNumbers, PublicNumbers

VECTORS: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors" / "vectors.json").read_text())

# -- each Lua with each back end -----------------------------------------------------------------------------------

STUBS: Final = b"""
local function folded(rule, finish)
    return function(first, ...)
        local result = first % 2 ^ 32
        for i = 1, select("#", ...) do
            local other, sum, weight = select(i, ...) % 2 ^ 32, 0, 1
            for _ = 1, 32 do
                if rule(result % 2 == 1, other % 2 == 1) then sum = sum + weight end
                result, other, weight = math.floor(result / 2), math.floor(other / 2), weight * 2
            end
            result = sum
        end
        return finish(result)
    end
end
local function library(finish)
    return {
        band = folded(function(a, b) return a and b end, finish),
        bor = folded(function(a, b) return a or b end, finish),
        bxor = folded(function(a, b) return a ~= b end, finish),
        lshift = function(a, n) return finish(a * 2 ^ n % 2 ^ 32) end,
        rshift = function(a, n) return finish(math.floor(a % 2 ^ 32 / 2 ^ n)) end,
        lrotate = function(a, n) a = a % 2 ^ 32 return finish(a * 2 ^ n % 2 ^ 32 + math.floor(a / 2 ^ (32 - n))) end,
    }
end
bit32 = bit32 or library(function(word) return math.floor(word) end)
-- This one answers with signed words.
bit = library(function(word) return math.floor(word >= 2 ^ 31 and word - 2 ^ 32 or word) end)
bit.rol, bit.lrotate = bit.lrotate, nil
"""
"""The libraries `bit` and `bit32` as they behave, for a Lua that comes without them."""

BACKENDS: Final = [
    *((version, name) for version in VERSIONS for name in ("bit32", "bit", "arithmetic")),
    ("lua53", "native"),
    ("lua54", "native"),
]


@cache
def plain(version: str) -> tuple[Any, Any]:
    """The engine in a Lua as it comes."""
    return engine(version)


@cache
def backend(version: str, name: str) -> tuple[Any, Any, Any]:
    """The back end of that name, and AES and the hashes over it."""
    _, spark = engine(version, STUBS)
    operations = spark[b"bits"][b"backend"](name.encode())
    return operations, spark[b"aes"][b"on"](operations), spark[b"hashes"][b"on"](operations)


each_backend = pytest.mark.parametrize(("version", "name"), BACKENDS)
each_lua = pytest.mark.parametrize("version", VERSIONS)


def library_decrypts(key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor().update(ciphertext)


# -- bits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "before", "chosen", "known"),
    [
        ("lua51", b"", b"arithmetic", {b"arithmetic"}),
        ("lua51", STUBS + b"bit32 = nil", b"bit", {b"bit", b"arithmetic"}),
        ("lua52", b"", b"bit32", {b"bit32", b"arithmetic"}),
        ("lua52", STUBS, b"bit32", {b"bit32", b"bit", b"arithmetic"}),
        ("lua53", b"", b"native", {b"native", b"arithmetic"}),
        ("lua54", STUBS + b"bit32 = nil", b"native", {b"native", b"bit", b"arithmetic"}),
    ],
)
def test_the_quickest_operations_that_a_lua_has_are_taken(
    version: str, before: bytes, chosen: bytes, known: set[bytes]
) -> None:
    bits = engine(version, before)[1][b"bits"]
    assert bits[b"name"] == chosen
    assert {name for name in (b"native", b"bit32", b"bit", b"arithmetic") if bits[b"backend"](name)} == known
    assert bits[b"bxor"](0xF0F0F0F0, 0xFF00FF00) == 0x0FF00FF0


@each_backend
def test_operations_answer_with_unsigned_words(version: str, name: str) -> None:
    bits, _, _ = backend(version, name)
    rng = random.Random(32)
    words = [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, *(rng.getrandbits(32) for _ in range(20))]
    for a in words:
        for b in words:
            assert bits[b"band"](a, b) == a & b
            assert bits[b"bor"](a, b) == a | b
            assert bits[b"bxor"](a, b) == a ^ b
        for n in (0, 1, 7, 8, 24, 31):
            assert bits[b"lshift"](a, n) == a << n & 0xFFFFFFFF
            assert bits[b"rshift"](a, n) == a >> n


@each_backend
def test_text_with_macros_becomes_code(version: str, name: str) -> None:
    bits, _, _ = backend(version, name)
    text = b"""return function(x, y, z)
        SPLIT(XOR(x, y), a, b, c, d)
        return ADD(x, AND(y, XOR(x, y, z)), z) .. " " .. ROTATE(x, 5) % 4294967296, a .. " " .. b, (c * 256) + d
    end"""
    text = text.replace(b"SPLIT(XOR(x, y), a", b"local mixed = XOR(x, y) SPLIT(mixed, a")
    run = bits[b"compile"](text, b"test")
    x, y, z = 0x89ABCDEF, 0xFEDCBA98, 0x80000001
    first, second, third = run(x, y, z)
    assert [int(float(number)) for number in first.split()] == [
        (x + (y & (x ^ y ^ z)) + z) % 2**32,
        (x << 5 | x >> 27) & 0xFFFFFFFF,
    ]
    assert [int(float(number)) for number in second.split()] == [(x ^ y) >> 24, (x ^ y) >> 16 & 255]
    assert third == (x ^ y) & 0xFFFF


# -- AES -----------------------------------------------------------------------------------------------------------


@each_backend
def test_aes_answers_the_standard_s_example(version: str, name: str) -> None:
    _, aes, _ = backend(version, name)
    key, block = bytes(range(16)), bytes.fromhex("00112233445566778899aabbccddeeff")  # FIPS 197, C.1
    sealed = bytes.fromhex("69c4e0d86a7b0430d8cdb78070b4c55a")
    assert aes[b"encrypt_block"](key, block) == sealed
    context = aes[b"new"](key)
    assert context[b"decrypt_block"](context, sealed) == block


@each_lua
def test_every_frame_of_the_vectors_decrypts(version: str) -> None:
    _, spark = plain(version)
    for session in VECTORS["sessions"]:
        context = spark[b"aes"][b"new"](bytes.fromhex(session["session"]["aes_key"]))
        for frame in session["frames"]:
            opened = context[b"decrypt_cbc"](context, bytes.fromhex(frame["iv"]), bytes.fromhex(frame["ciphertext"]))
            assert opened.hex() == frame["plaintext_padded"]
    zero_key = spark[b"aes"][b"new"](bytes(16))
    for frame in VECTORS["zero_key_frames"]:
        opened = zero_key[b"decrypt_cbc"](zero_key, bytes.fromhex(frame["iv"]), bytes.fromhex(frame["ciphertext"]))
        assert opened.hex() == frame["plaintext_padded"]


@each_backend
def test_aes_agrees_with_a_crypto_library(version: str, name: str) -> None:
    _, aes, _ = backend(version, name)
    rng = random.Random(197)
    for blocks in (0, 1, 2, 3, 7):
        key, iv, ciphertext = rng.randbytes(16), rng.randbytes(16), rng.randbytes(16 * blocks)
        context = aes[b"new"](key)
        for _ in range(2):  # nothing is left over from the first time
            assert context[b"decrypt_cbc"](context, iv, ciphertext) == library_decrypts(key, iv, ciphertext)
        encryptor = aes[b"encryptor"](key)
        sealed = encryptor[b"encrypt_block"](encryptor, iv)
        assert sealed == Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(iv)  # noqa: S305
        assert context[b"decrypt_block"](context, sealed) == iv


@each_lua
@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16), st.binary(max_size=130))
def test_any_bytes_decrypt_as_far_as_they_are_whole_blocks(version: str, key: bytes, iv: bytes, data: bytes) -> None:
    context = plain(version)[1][b"aes"][b"new"](key)
    whole = data[: len(data) - len(data) % 16]
    assert context[b"decrypt_cbc"](context, iv, data) == library_decrypts(key, iv, whole)


WIRESHARKS_OWN: Final = b"""
GCRY_CIPHER_AES, GCRY_CIPHER_MODE_CBC = 7, 3
ByteArray = {new = function(bytes, raw)
    assert(raw == true)
    return {bytes = bytes, raw = function(self) return self.bytes end}
end}
GcryptCipher = {open = function(algorithm, mode, flags)
    assert(algorithm == 7 and mode == 3 and flags == 0)
    local cipher = {}
    function cipher:setkey(key) self.key = key.bytes end
    function cipher:setiv(iv) self.iv = iv.bytes end
    function cipher:decrypt(array)
        calls = (calls or 0) + 1
        array.bytes = decrypts(self.key, self.iv, array.bytes)
        TRAILER
    end
    return cipher
end}
"""
"""The cipher objects of Wireshark 4.6, as far as they are used here."""


def with_wiresharks_cipher(trailer: bytes) -> tuple[Any, Any]:
    lua = runtime("lua54")
    lua.globals()[b"decrypts"] = library_decrypts
    lua.execute(WIRESHARKS_OWN.replace(b"TRAILER", trailer))
    return lua, lua_coverage.load(lua, plugin())


@pytest.mark.parametrize(
    ("trailer", "used"),
    [
        (b"", True),
        (b"error('not in this build')", False),
        (b"array.bytes = array.bytes:reverse()", False),
        (b"if calls == 2 then array.bytes = '' end", False),
    ],
    ids=["works", "fails", "answers wrong", "answers wrong the second time"],
)
def test_wiresharks_own_cipher_decrypts_where_it_works(trailer: bytes, used: bool) -> None:
    lua, spark = with_wiresharks_cipher(trailer)
    rng = random.Random(46)
    key, iv, ciphertext = rng.randbytes(16), rng.randbytes(16), rng.randbytes(48)
    context = spark[b"aes"][b"new"](key)
    calls_before = lua.globals()[b"calls"]
    for data in (ciphertext, ciphertext + b"rest", b"", b"rest"):
        whole = data[: len(data) - len(data) % 16]
        assert context[b"decrypt_cbc"](context, iv, data) == library_decrypts(key, iv, whole)
    assert context[b"decrypt_block"](context, iv) == library_decrypts(key, bytes(16), iv)
    assert (lua.globals()[b"calls"] > calls_before) is used


# -- hashes --------------------------------------------------------------------------------------------------------


@each_backend
def test_hashes_of_every_length_agree(version: str, name: str) -> None:
    _, _, hashes = backend(version, name)
    rng = random.Random(180)
    lengths = (0, 1, 55, 56, 63, 64, 65, 200) if name != "native" else range(260)
    for length in lengths:
        data = rng.randbytes(length)
        assert hashes[b"sha1"](data) == hashlib.sha1(data).digest()  # noqa: S324
    for length in (0, 20, 40, 63, 64, 65, 150):
        key, data = rng.randbytes(length), rng.randbytes(128)
        assert hashes[b"hmac_sha1"](key, data) == hmac.digest(key, data, "sha1")


@each_lua
def test_the_vectors_hmac_is_made_again(version: str) -> None:
    _, spark = plain(version)
    for session in VECTORS["sessions"]:
        blob, sealed = bytes.fromhex(session["session_blob"]), bytes.fromhex(session["message3"]["ciphertext"])
        assert spark[b"hmac_sha1"](blob, sealed).hex() == session["message3"]["hmac_sha1"]
    assert spark[b"sha1"](b"abc").hex() == "a9993e364706816aba3e25717850c26c9cd0d89d"


# -- RSA -----------------------------------------------------------------------------------------------------------


def from_pem(pem: str) -> PrivateNumbers:
    every: Any = load_pem_private_key(pem.encode(), None).private_numbers()  # type: ignore[union-attr]
    n, e = every.public_numbers.n, every.public_numbers.e
    return PrivateNumbers(n, e, every.d, every.p, every.q, every.dmp1, every.dmq1, every.iqmp)


CORE: Final = from_pem(VECTORS["keys"]["core"]["private_pem_pkcs1"])
SERVER: Final = from_pem(VECTORS["keys"]["server"]["private_pem_pkcs1"])
NAMES: Final = ("n", "e", "d", "p", "q", "dp", "dq", "qinv")

STEPS_TO_PRIME: Final = {
    128: 2, 129: 12, 130: 4, 200: 23, 255: 10, 312: 34, 383: 115, 384: 116, 512: 81, 513: 56, 768: 135, 2048: 196,
}  # fmt: skip
"""Bits → steps of two from a seeded start to the next prime."""


def prime(bits: int) -> int:
    return (random.Random(bits).getrandbits(bits) | 3 << (bits - 2) | 1) + 2 * STEPS_TO_PRIME[bits]


def of_primes(p: int, q: int, e: int = 65537) -> PrivateNumbers:
    d = pow(e, -1, (p - 1) * (q - 1))
    return PrivateNumbers(p * q, e, d, p, q, d % (p - 1), d % (q - 1), pow(q, -1, p))


KEYS: Final = {
    "256 bits": of_primes(prime(129), prime(128)),
    "1024 bits": CORE,
    "512 bits, halves of 200 and 312": of_primes(prime(200), prime(312)),
    "640 bits, halves of 512 and 128": of_primes(prime(512), prime(128), 17),
    "638 bits": of_primes(prime(255), prime(383)),
    "1025 bits": of_primes(prime(513), prime(512), 2**31 - 1),
    "1281 bits": of_primes(prime(768), prime(513)),
    "385 bits, half of them 3": of_primes(3, prime(384)),
    "385 bits, the other half 3": of_primes(prime(384), 3),
    "1128 bits, all set": of_primes(2**607 - 1, 2**521 - 1),
    "2048 bits": SERVER,
}


def big_endian(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def in_lua(version: str, key: PrivateNumbers, names: tuple[str, ...] = NAMES, before: bytes = b"") -> Any:
    lua, spark = plain(version)
    return spark[b"rsa"][b"private_key"](
        lua.table_from({name.encode(): before + big_endian(getattr(key, name)) for name in names})
    )


def public_in_lua(version: str, key: PublicNumbers | PrivateNumbers, before: bytes = b"") -> Any:
    lua, spark = plain(version)
    return spark[b"rsa"][b"public_key"](
        lua.table_from({b"n": before + big_endian(key.n), b"e": before + big_endian(key.e)})
    )


def opened(key: Any, block: bytes) -> bytes | None:
    answer: bytes | None = key[b"open_block"](key, block)
    return answer


def signed(key: Any, signature: bytes) -> bytes | None:
    answer: bytes | None = key[b"open_signature"](key, signature)
    return answer


def sealed_for(key: PrivateNumbers, message: bytes) -> bytes:
    rng = random.Random(message)
    return rsa.seal_block(key.public, message, bytes(rng.randrange(1, 256) for _ in range(key.size - 3 - len(message))))


@each_lua
@pytest.mark.parametrize("session", VECTORS["sessions"], ids=lambda session: session["name"])
def test_both_sealed_parts_of_each_vector_open(version: str, session: dict[str, Any]) -> None:
    message2, message3 = session["message2"], session["message3"]
    assert opened(in_lua(version, SERVER), bytes.fromhex(message2["ciphertext"])) == bytes.fromhex(
        message2["plaintext"]
    )
    blob = opened(in_lua(version, CORE), bytes.fromhex(message3["ciphertext"]))
    assert blob == bytes.fromhex(session["session_blob"])
    server = public_in_lua(version, SERVER)
    assert signed(server, bytes.fromhex(message3["signature"])) == bytes.fromhex(message3["hmac_sha1"])


@each_lua
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_keys_of_many_sizes_open_what_is_sealed_for_them(version: str, key: PrivateNumbers) -> None:
    ours = in_lua(version, key)
    assert ours[b"size"] == key.size
    assert ours[b"consistent"](ours)
    for length in (0, 10, key.size - 11):
        message = random.Random(length).randbytes(length)
        assert opened(ours, sealed_for(key, message)) == message
        assert signed(ours[b"public"], rsa.sign_block(key, message)) == message
    if key.size <= 128:
        assert opened(in_lua(version, key, ("n", "e", "d")), sealed_for(key, b"message")) == b"message"


@cache
def large_key() -> tuple[PrivateNumbers, bytes, bytes]:
    """A key of 4251 bits, a block sealed for it, and a signature."""
    key = of_primes(prime(2048), 2**2203 - 1)
    return key, sealed_for(key, b"message"), rsa.sign_block(key, b"content")


@cache
def huge_key() -> tuple[PrivateNumbers, bytes]:
    """A key with more limbs than any Lua's functions can have local variables, and a signature."""
    key = of_primes(2**4423 - 1, 2**1279 - 1, 17)
    return key, rsa.sign_block(key, b"content")


@each_lua
def test_large_keys_open_too(version: str) -> None:
    key, block, signature = large_key()
    assert opened(in_lua(version, key), block) == b"message"
    assert signed(public_in_lua(version, key), signature) == b"content"


@each_lua
def test_a_key_of_more_limbs_than_a_function_has_variables_checks_a_signature(version: str) -> None:
    key, signature = huge_key()
    assert signed(public_in_lua(version, key), signature) == b"content"
    beyond = PublicNumbers((2**4423 - 1) * (2**4253 - 1), 3)
    assert signed(public_in_lua(version, beyond), b"\x00\x01" + bytes(beyond.size - 2)) is None


@pytest.mark.parametrize("version", ["lua51", "lua54"])
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_block_is_judged_as_in_python(version: str, data: st.DataObject) -> None:
    key = KEYS[data.draw(st.sampled_from(["256 bits", "638 bits", "385 bits, half of them 3"]))]
    head = data.draw(st.sampled_from([b"\x00\x02", b"\x00\x01", b"\x01\x02", b"\x00\x00"]))
    padding = data.draw(st.sampled_from([b"\x01", b"\xff", b"\xfe"])) * data.draw(st.integers(5, key.size))
    block = (head + padding + b"\x00" + data.draw(st.binary(max_size=20)) + bytes(key.size))[: key.size]
    value = int.from_bytes(block, "big") % key.n
    ciphertext = pow(value, key.e, key.n).to_bytes(key.size, "big")
    assert opened(in_lua(version, key), ciphertext) == rsa.open_block(key, ciphertext)
    signature = pow(value, key.d, key.n).to_bytes(key.size, "big")
    assert signed(public_in_lua(version, key), signature) == rsa.open_signature(key.public, signature)


BLOCKS: Final = [
    (b"\x00\x02" + b"\x01" * 85 + b"\x00" + b"m" * 40, b"m" * 40),
    (b"\x00\x02" + b"\x01" * 8 + b"\x00" + b"m" * 117, b"m" * 117),
    (b"\x00\x02" + b"\x01" * 125 + b"\x00", b""),
    (b"\x00\x02" + b"\x01" * 7 + b"\x00" + b"m" * 118, None),  # seven padding bytes
    (b"\x00\x02" + b"\x01" * 126, None),  # no end of the padding
    (b"\x00\x01" + b"\x01" * 85 + b"\x00" + b"m" * 40, None),  # a signature's block
    (b"\x01\x02" + b"\x01" * 85 + b"\x00" + b"m" * 40, None),
    (b"\x00\x02\x00" + b"\x01" * 84 + b"\x00" + b"m" * 40, None),
    (bytes(128), None),
]


@each_lua
def test_each_byte_of_an_encryption_block_counts(version: str) -> None:
    key = in_lua(version, CORE)
    for block, message in BLOCKS:
        ciphertext = pow(int.from_bytes(block, "big"), CORE.e, CORE.n).to_bytes(128, "big")
        assert opened(key, ciphertext) == message


@each_lua
def test_each_byte_of_a_signature_block_counts(version: str) -> None:
    key = public_in_lua(version, CORE)
    for block, content in [
        (b"\x00\x01" + b"\xff" * 105 + b"\x00" + b"h" * 20, b"h" * 20),
        (b"\x00\x01" + b"\xff" * 104 + b"\xfe\x00" + b"h" * 20, None),
        (b"\x00\x01" + b"\xff" * 7 + b"\x00" + b"h" * 118, None),
        (b"\x00\x02" + b"\xff" * 105 + b"\x00" + b"h" * 20, None),
        (b"\x00\x01" + b"\xff" * 126, None),
    ]:
        signature = pow(int.from_bytes(block, "big"), CORE.d, CORE.n).to_bytes(128, "big")
        assert signed(key, signature) == content


@each_lua
def test_a_wrong_key_opens_nothing(version: str) -> None:
    session = VECTORS["sessions"][0]
    other_core = from_pem(VECTORS["keys"]["other_core"]["private_pem_pkcs1"])
    other_server = from_pem(VECTORS["keys"]["other_server"]["private_pem_pkcs1"])
    assert opened(in_lua(version, other_core), bytes.fromhex(session["message3"]["ciphertext"])) is None
    assert signed(public_in_lua(version, other_server), bytes.fromhex(session["message3"]["signature"])) is None
    assert opened(in_lua(version, CORE), bytes.fromhex(session["message2"]["ciphertext"])) is None


@each_lua
@pytest.mark.parametrize("damaged", ["dp", "dq", "qinv", "p", "q", "d"])
def test_one_damaged_number_leaves_another_way(version: str, damaged: str) -> None:
    key = KEYS["638 bits"]
    hurt = replace(key, **{damaged: getattr(key, damaged) ^ 4})
    ours = in_lua(version, hurt)
    assert not ours[b"consistent"](ours)
    assert opened(ours, sealed_for(key, b"message")) == b"message"
    if damaged != "d":
        without = in_lua(version, replace(hurt, d=hurt.d ^ 4))
        assert opened(without, sealed_for(key, b"message")) is None


@each_lua
def test_leading_zeros_of_numbers_change_nothing(version: str) -> None:
    key = in_lua(version, CORE, before=b"\x00\x00")
    assert key[b"size"] == 128
    assert key[b"n"] == big_endian(CORE.n)
    assert opened(key, sealed_for(CORE, b"message")) == b"message"
    assert signed(public_in_lua(version, CORE, b"\x00"), rsa.sign_block(CORE, b"content")) == b"content"
    assert key[b"consistent"](key)


@each_lua
def test_keys_that_are_none_and_blocks_that_do_not_fit_are_refused_without_an_error(version: str) -> None:
    block = sealed_for(CORE, b"message")
    for key in (
        replace(CORE, n=CORE.n + 1),  # even
        replace(CORE, n=0),
        replace(CORE, n=2**200 + 1),
        replace(CORE, n=2**8200 + 1),
        replace(CORE, e=1),
        replace(CORE, e=0),
        replace(CORE, e=CORE.n),
        replace(CORE, d=0, p=0),
        replace(CORE, d=CORE.n, dp=0),
        replace(CORE, d=0, q=2),
        replace(CORE, d=0, p=1, q=CORE.n),
    ):
        fitting = block if key.size == 128 else bytes(key.size)
        assert opened(in_lua(version, key), fitting) is None
        ours = in_lua(version, key)
        assert bool(ours[b"consistent"](ours)) is key.consistent
        if key.e != CORE.e or key.n != CORE.n:
            assert signed(public_in_lua(version, key), fitting) is None
    assert opened(in_lua(version, CORE, ("n", "e")), block) is None
    ours = in_lua(version, CORE)
    above = (CORE.n + 5).to_bytes(128, "big")
    for other in (b"", block[1:], block + b"\x00", b"\x00" + block, above, b"\xff" * 128, CORE.n.to_bytes(128, "big")):
        assert opened(ours, other) is None
        assert signed(ours[b"public"], other) is None


@each_lua
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**600), st.integers(0, 2**80), st.integers(0, 2**330), st.binary(max_size=80))
def test_any_numbers_and_bytes_are_refused_without_an_error(version: str, n: int, e: int, d: int, block: bytes) -> None:
    ours = in_lua(version, PrivateNumbers(n, e, d, d, e, n, e, d))
    assert opened(ours, block) is None
    assert opened(ours, bytes((n.bit_length() + 7) // 8)) is None
    assert signed(ours[b"public"], block) is None
    assert not ours[b"consistent"](ours)


@each_lua
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**140), st.integers(3, 2**70), st.integers(3, 2**70), st.integers(0, 2**140))
def test_consistency_is_judged_as_in_python(version: str, d: int, p: int, q: int, qinv: int) -> None:
    # Numbers that nearly fit: whatever p and q are, d, dp and dq are made to follow.
    for e in (1, 65537):
        key = PrivateNumbers(p * q, e, d, p, q, d % (p - 1), d % (q - 1), qinv % p)
        fitting = PrivateNumbers(p * q, e, 1, p, q, 1 % (p - 1), 1 % (q - 1), 1)
        for each in (key, fitting):
            ours = in_lua(version, each)
            assert bool(ours[b"consistent"](ours)) is each.consistent


@each_lua
@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=6), st.binary(max_size=6))
def test_numbers_as_bytes_are_measured_and_compared(version: str, a: bytes, b: bytes) -> None:
    lua_rsa = plain(version)[1][b"rsa"]
    assert lua_rsa[b"size"](a) == len(a.lstrip(b"\x00"))
    assert bool(lua_rsa[b"less"](a, b)) is (int.from_bytes(a, "big") < int.from_bytes(b, "big"))
