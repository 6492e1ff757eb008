"""Attacks by what lies among the keys: many files, large ones, key logs, tables of devices."""

from __future__ import annotations

import base64
import random
from itertools import combinations, islice
from pathlib import Path

from attacks.model import Run, attack
from attacks.scene import BYSTANDER, ROOT

RNG = random.Random(5)


def with_keys(*words: str) -> Run:
    return Run(["analyze", str(BYSTANDER), "--format", "jsonl", "--jobs", "1", *words])


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    head = bytes((size,)) if size < 128 else bytes((0x82,)) + size.to_bytes(2, "big")
    return bytes((tag,)) + head + content


def integer(number: int) -> bytes:
    return der(2, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def primes(count: int) -> list[int]:
    """Primes of 512 bits: pairs of them make as many keys as are wanted, at once."""
    found: list[int] = []
    while len(found) < count:
        number = RNG.getrandbits(512) | 3 << 510 | 1
        if number % 65537 != 1 and all(number % p for p in (3, 5, 7, 11, 13, 17)) and pow(2, number - 1, number) == 1:
            found.append(number)
    return found


def private_key(p: int, q: int) -> bytes:
    """PKCS#1 (RFC 8017 A.1.2)."""
    d = pow(65537, -1, (p - 1) * (q - 1))
    numbers = (0, p * q, 65537, d, p, q, d % (p - 1), d % (q - 1), pow(q, -1, p))
    return der(0x30, b"".join(integer(number) for number in numbers))


@attack(
    "key-files",
    "private keys of devices in one folder, each another one, and a public key with each",
    size=10_000,
    unit="files",
    bound="keys.ring.MOST_FILES",
    each=9_000,
)
def key_files(folder: Path, n: int) -> Run:
    keys = folder / "keys"
    keys.mkdir(exist_ok=True)
    few = primes(2 + int((n * 2) ** 0.5))
    for number, (p, q) in enumerate(islice(combinations(few, 2), n // 2)):
        name = f"{number:024x}"
        (keys / f"{name}.der").write_bytes(private_key(p, q))
        inner = der(0x30, integer(p * q) + integer(65537))
        (keys / f"{name}.pub.der").write_bytes(
            der(0x30, bytes.fromhex("300d06092a864886f70d0101010500") + der(3, b"\0" + inner))
        )
    return with_keys("--keys", str(keys))


@attack(
    "one-device",
    "public keys that the names of their files give to one device",
    size=10_000,
    unit="files",
    bound="keys.ring.MOST_FILES",
    each=9_000,
)
def one_device(folder: Path, n: int) -> Run:
    keys = folder / "keys"
    keys.mkdir(exist_ok=True)
    for number in range(n):
        inner = der(0x30, integer(RNG.getrandbits(1024) | 1 << 1023 | 1) + integer(65537))
        content = der(0x30, bytes.fromhex("300d06092a864886f70d0101010500") + der(3, b"\0" + inner))
        (keys / f"48ff6d06507b573081350e87_{number}.der").write_bytes(content)
    return with_keys("--keys", str(keys), "--keys", str(ROOT / "captures" / "keys"))


@attack(
    "large-files",
    "files of 4 MiB among the keys: zeros, DER without end, PEM without end, random bytes",
    size=100,
    unit="files",
    bound="keys.ring.LARGEST_KEY_FILE",
)
def large_files(folder: Path, n: int) -> Run:
    keys = folder / "keys"
    keys.mkdir(exist_ok=True)
    size = 4 << 20
    pem = b"-----BEGIN RSA PRIVATE KEY-----\n" + base64.encodebytes(RNG.randbytes(400))
    forms = (
        bytes(size),
        b"\x30\x80" * (size // 2),
        b"\x30\x83\xff\xff\xff" + b"\x30\x82\xff\xff" * (size // 4 - 2),
        (pem * (size // len(pem)))[:size],
        b"-----BEGIN " * (size // 11),
        RNG.randbytes(size),
        b"\xff" * size,
        bytes.fromhex("30820259020100") * (size // 7),
    )
    for number in range(n):
        (keys / f"{number}.bin").write_bytes(forms[number % len(forms)])
    (keys / "core-a.der").write_bytes((ROOT / "captures" / "keys" / "core-a.der").read_bytes())
    return with_keys("--keys", str(keys))


def key_log(folder: Path, n: int, line: str) -> Run:
    place = folder / "keys.log"
    with place.open("w") as file:
        for number in range(n):
            file.write(line.format(number=f"{number:080x}"))
    return with_keys("--keylog", str(place))


@attack(
    "key-log",
    "a key log, each session of another nonce",
    size=370_000,
    unit="lines",
    bound="keys.keylog.LARGEST_KEY_LOG",
    each=900,
)
def long_log(folder: Path, n: int) -> Run:
    return key_log(folder, n, "SPARK_SESSION {number} {number}\n")


@attack(
    "key-log-no-nonce",
    "a key log without nonces: each key may be that of any session",
    size=370_000,
    unit="lines",
    bound="session.frames.MOST_CANDIDATES",
    each=700,
)
def log_without_nonces(folder: Path, n: int) -> Run:
    return key_log(folder, n, "SPARK_SESSION - {number}\n")


@attack(
    "key-log-one-nonce",
    "a key log whose keys are all of one nonce",
    size=370_000,
    unit="lines",
    bound="session.frames.MOST_CANDIDATES",
    each=700,
)
def log_of_one_nonce(folder: Path, n: int) -> Run:
    nonce = "5cc2a98dbaf953846b6a0066468b4e2d60a4c4f074a6ac5a5ac27b84f27a1f38c2cd0dea7f4468e1"
    return key_log(folder, n, "SPARK_SESSION " + nonce + " {number}\n")


@attack(
    "key-log-lines",
    "a key log of a single line, and of lines that are none",
    size=100,
    unit="MiB",
    bound="keys.keylog.LARGEST_KEY_LOG",
    each=6 << 20,
)
def log_of_anything(folder: Path, n: int) -> Run:
    place = folder / "keys.log"
    half = n << 19
    place.write_bytes(b"x " * (half // 2) + b"\n" + b"y\n" * (half // 2))
    return with_keys("--keylog", str(place), "--keys", str(ROOT / "captures" / "keys" / "core-a.der"))


@attack(
    "device-table",
    "a table of devices, longer than is read, and some rows without end",
    size=500_000,
    unit="rows",
    bound="keys.devicetable.MOST_ROWS",
    each=250,
)
def device_table(folder: Path, n: int) -> Run:
    keys = folder / "keys"
    keys.mkdir(exist_ok=True)
    (keys / "core-a.der").write_bytes((ROOT / "captures" / "keys" / "core-a.der").read_bytes())
    with (keys / "devices.csv").open("w") as file:
        file.write("id,key\n" + "x" * 10_000_000 + "\n")
        for number in range(n):
            file.write(f"{number:024x},core-a.der\n")
    return with_keys("--keys", str(keys))
