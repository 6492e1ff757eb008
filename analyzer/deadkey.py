"""Frames of a device whose login failed and which talks on all the same, under a key nobody agreed on.

Cores of 2014 ignore the result of the handshake (PROTOCOL 9.2): they encrypt with whatever key, IV and
counters are in RAM. After power-up these are all zero, so the first frames are constants; later they are
those of the session before. Key, IV chain and counters go on across reconnects. Recognising such a frame
proves that the login failed, and it needs no key of the user's.

The only names here that know AES are at the bottom of the page; nothing here knows RSA, files or TCP.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from analyzer.catalogue import BLOCK, LARGEST_FRAME
from analyzer.secrecy import forgetful

ZERO_KEY: Final = bytes(BLOCK)
ZERO_IV: Final = bytes(BLOCK)

CHAIN_LENGTH: Final = 64
"""Frames computed of each chain. At one idle ping in 20 s it covers the first 20 minutes after power-up; a
capture that starts later is caught only from its second dead frame on, by the chain itself."""

MOST_DEVICES: Final = 4096
"""Devices whose chain is remembered; the one heard longest ago is forgotten first. About 400 bytes each."""

REMEMBERED_RUNS: Final = 2_048
"""Runs of options known to be whole: a capture has few, and the memo is emptied when full. Below 300 kB."""
LONGEST_REMEMBERED_RUN: Final = 64
_runs: set[bytes] = {b""}

COAP_VERSION: Final = 1
OPTION_LENGTH_RESERVED: Final = 15
PAYLOAD_MARKER: Final = 0xFF
GET: Final = 1
POST: Final = 2

# What a device sends by itself, without being asked, in the state after a failed login (PROTOCOL 2.8, 5.3).
PING: Final = "ping"
TIME_REQUEST: Final = "time request"
EVENT: Final = "event"
SUBSCRIPTION: Final = "subscription"
UNASKED_GETS: Final = {b"\xb1t": TIME_REQUEST, b"\xb1e": SUBSCRIPTION}
UNASKED_POSTS: Final = {b"\xb1e": EVENT, b"\xb1E": EVENT}
"""What they are by code and by the first bytes of the path."""

UNDER_ZERO_KEY: Final = "zero key"
UNDER_EARLIER_KEY: Final = "key of an earlier session"
AS_CONSTANT: Final = "constant"
AS_CHAIN: Final = "chain"

FIRST_BLOCK_HEADS: Final = {PING: b"\x40\x00", TIME_REQUEST: b"\x41\x01", EVENT: b"\x50\x02"}
FIRST_BLOCK_RESTS: Final = {PING: b"\x0c" * 12, TIME_REQUEST: b"\xb1t" + b"\x09" * 9, EVENT: b"\xb1E\x0d\x0dspark/cc"}
"""The first 16 plaintext bytes before and behind message id and token. Of the event they are the same for each
CC3000 version."""

PADDINGS: Final = tuple(bytes([count]) * count for count in range(BLOCK + 1))
"""The padding of each length (PKCS#7)."""

BOOT_SEQUENCES: Final = (
    ((), (PING,)),
    ((TIME_REQUEST,), (PING,)),
    ((TIME_REQUEST, EVENT), (PING,)),
    ((), (TIME_REQUEST,)),
    ((), (TIME_REQUEST, PING)),
    ((), (TIME_REQUEST, EVENT)),
    ((), (TIME_REQUEST, EVENT, PING)),
)
"""What a freshly booted device can send: once, then again and again."""


@dataclass(frozen=True, slots=True)
class DeadFrame:
    """One frame opened with a key that no login of this connection agreed on.

    ``plaintext`` is the CoAP message without padding; ``message`` names it (ping, time request, event,
    subscription); ``under`` is "zero key" or "key of an earlier session"; ``how`` is "constant" when the
    bytes are among those every freshly booted device sends, "chain" when they continue this device's frames.
    """

    plaintext: bytes
    message: str
    under: str
    how: str


class DeadKeys:
    """Recognises dead-key frames and keeps each device's IV chain across its connections (PROTOCOL 9.2)."""

    def __init__(self) -> None:
        self._zero_key = _BlockDecryptor(ZERO_KEY)
        self._devices: OrderedDict[Hashable, _Chains] = OrderedDict()

    def recognise(self, device: Hashable, frame_ciphertext: bytes) -> DeadFrame | None:
        """Return what the frame says when it is a dead-key frame of ``device``, else None.

        ``device`` is whatever tells one device from another (its IP address, say); ``frame_ciphertext`` is
        the frame without its two length bytes. A frame of another size than AES-CBC makes is never one. Odds
        that a frame under any other key passes are below one in 10^8: padding, CoAP header and first option
        must all be those of a message which a device sends unasked.
        """
        size = len(frame_ciphertext)
        if not BLOCK <= size <= LARGEST_FRAME or size % BLOCK:
            return None
        first = frame_ciphertext[:BLOCK]
        chains = self._devices.get(device)

        constant_iv = zero_key_constants().get(first)
        attempts: list[tuple[str, str, _BlockDecryptor, bytes]] = []
        if constant_iv is not None:
            attempts.append((UNDER_ZERO_KEY, AS_CONSTANT, self._zero_key, constant_iv))
        if chains is not None and chains.zero_iv is not None:
            attempts.append((UNDER_ZERO_KEY, AS_CHAIN, self._zero_key, chains.zero_iv))
        attempts.append((UNDER_ZERO_KEY, AS_CHAIN, self._zero_key, ZERO_IV))
        if chains is not None and chains.session_cipher is not None:
            attempts.append((UNDER_EARLIER_KEY, AS_CHAIN, chains.session_cipher, chains.session_iv))

        for under, how, cipher, iv in attempts:
            plaintext = _open_unasked(cipher, iv, frame_ciphertext)
            if plaintext is None:
                continue
            chains = self._chains_of(device)
            if cipher is self._zero_key:
                chains.zero_iv = first
            else:
                chains.session_iv = first
            return DeadFrame(plaintext, _unasked_message(plaintext) or "", under, how)
        return None

    @forgetful
    def remember_session(self, device: Hashable, key: bytes, next_iv: bytes) -> None:
        """Note the AES key of a session that worked, and the IV its next device frame would have had.

        ``next_iv`` is the first ciphertext block of the device's last frame (both 16 bytes). A device that
        fails its next login goes on with these.
        """
        chains = self._chains_of(device)
        chains.session_cipher, chains.session_iv = _BlockDecryptor(key), next_iv
        chains.zero_iv = None

    def _chains_of(self, device: Hashable) -> _Chains:
        chains = self._devices.setdefault(device, _Chains())
        self._devices.move_to_end(device)
        if len(self._devices) > MOST_DEVICES:
            self._devices.popitem(last=False)
        return chains


@dataclass(slots=True)
class _Chains:
    """Where a device's own IV chains stand: under the zero key, and under its last good session's key."""

    zero_iv: bytes | None = None
    session_cipher: _BlockDecryptor | None = field(default=None, repr=False)
    session_iv: bytes = field(default=ZERO_IV, repr=False)


@lru_cache(maxsize=1)
def zero_key_constants() -> dict[bytes, bytes]:
    """Return first ciphertext block → IV, for each frame a freshly booted device can send (PROTOCOL 9.2).

    The chains differ in what one pass of the handshake function adds: nothing (pings alone), a time request
    (firmware of April 2014 on), or a time request and the CC3000 event; and in whether that function runs
    once or again and again between the pings.
    """
    constants: dict[bytes, bytes] = {}
    for opening, repeated in BOOT_SEQUENCES:
        for block, iv in islice(_chain(opening, repeated), CHAIN_LENGTH):
            constants.setdefault(block, iv)
    return constants


def _chain(opening: tuple[str, ...], repeated: tuple[str, ...]) -> Iterator[tuple[bytes, bytes]]:
    """Yield (first ciphertext block, IV) of each frame of one boot sequence, without end."""
    encrypt = _BlockEncryptor(ZERO_KEY)
    iv, number, token = ZERO_IV, 0, 0

    def messages() -> Iterator[str]:
        yield from opening
        while True:
            yield from repeated

    for message in messages():
        number = (number + 1) & 0xFFFF
        if message == TIME_REQUEST:
            token = (token + 1) & 0xFF
        block = encrypt.one(_xor(_first_block(message, number, token), iv))
        yield block, iv
        iv = block


def _first_block(message: str, number: int, token: int) -> bytes:
    """Return the first 16 plaintext bytes."""
    own_token = bytes([token]) if message == TIME_REQUEST else b""
    return FIRST_BLOCK_HEADS[message] + number.to_bytes(2, "big") + own_token + FIRST_BLOCK_RESTS[message]


def _open_unasked(cipher: _BlockDecryptor, iv: bytes, ciphertext: bytes) -> bytes | None:
    """Decrypt, and return the message only if it is whole and one that a device sends unasked."""
    # One block tells nearly every other frame apart, so long frames cost no more than short ones.
    first = _xor(cipher.update(ciphertext[:BLOCK]), iv)
    if first[0] >> 6 != COAP_VERSION:
        return None
    rest = ciphertext[BLOCK:]
    opened = first + _xor(cipher.update(rest), ciphertext[: len(rest)]) if rest else first
    plaintext = without_padding(opened)
    if plaintext is None or _unasked_message(plaintext) is None:
        return None
    return plaintext


def _unasked_message(plaintext: bytes) -> str | None:
    """Name a message that devices send by themselves; None for any other, well formed or not."""
    if not is_whole_coap(plaintext):
        return None
    if plaintext[:2] == b"\x40\x00" and len(plaintext) == 4:
        return PING
    kind, token_size, code = plaintext[0] >> 4 & 3, plaintext[0] & 15, plaintext[1]
    if kind > 1 or token_size > 1:
        return None
    path = plaintext[4 + token_size : 6 + token_size]
    if code == GET:
        return UNASKED_GETS.get(path)
    return UNASKED_POSTS.get(path) if code == POST else None


def without_padding(opened: bytes) -> bytes | None:
    """Return the plaintext without its PKCS#7 padding, or None unless every padding byte is right.

    Devices look at the last byte only; servers check all of them, and only all of them make a test (PROTOCOL
    4.4).
    """
    if not opened:
        return None
    count = opened[-1]
    if not 1 <= count <= BLOCK or not opened.endswith(PADDINGS[count]):
        return None
    return opened[:-count]


def is_whole_coap(message: bytes) -> bool:
    """Return whether the bytes are one CoAP message, version 1, whose options end where they should.

    It judges a decryption, so it allows what the servers' own builders get wrong: an empty message with a
    token (PROTOCOL 5.4.2), a payload marker with nothing behind it, codes that RFC 7252 reserves.
    """
    size = len(message)
    if size < 4 or message[0] >> 6 != COAP_VERSION:
        return False
    at = 4 + (message[0] & 15)
    if at > size or at > 12:
        return False
    end = message.find(PAYLOAD_MARKER, at)
    run = message[at : size if end < 0 else end]
    if run in _runs:
        return True
    ends = _end_of_options(message, at)
    # Only what was read to the first FF is remembered: elsewhere that byte lies inside an option.
    if ends == at + len(run) and len(run) <= LONGEST_REMEMBERED_RUN:
        if len(_runs) >= REMEMBERED_RUNS:
            _runs.clear()
        _runs.add(run)
    return ends is not None


def _end_of_options(message: bytes, at: int) -> int | None:
    """Return where the options end: at the payload marker or with the message; None when they do not."""
    size = len(message)
    while at < size:
        head = message[at]
        if head == PAYLOAD_MARKER:
            return at
        at += 1
        delta, length = head >> 4, head & 15
        if OPTION_LENGTH_RESERVED in (delta, length):
            return None
        at += {13: 1, 14: 2}.get(delta, 0)
        extra = {13: 1, 14: 2}.get(length, 0)
        if at + extra > size:
            return None
        if extra:
            length = int.from_bytes(message[at : at + extra], "big") + (13 if extra == 1 else 269)
        at += extra + length
    return at if at == size else None


class _BlockDecryptor:
    """AES-128 block by block; the chaining is done by hand, because one frame may have several IVs to try.

    The cipher mode the protocol uses is CBC; ECB is only the way to ask the library for the bare block
    function.
    """

    def __init__(self, key: bytes) -> None:
        self._context: CipherContext = Cipher(algorithms.AES(key), modes.ECB()).decryptor()  # noqa: S305

    def update(self, blocks: bytes) -> bytes:
        """Return the block function's inverse of each 16 bytes, not chained."""
        return self._context.update(blocks)


class _BlockEncryptor:
    """The other direction, one block at a time."""

    def __init__(self, key: bytes) -> None:
        self._context: CipherContext = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305

    def one(self, block: bytes) -> bytes:
        return self._context.update(block)


def _xor(left: bytes, right: bytes) -> bytes:
    size = len(left)
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(size, "big")
