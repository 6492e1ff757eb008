"""Which key is where, as far as the capture itself proves it, and the range test over all attempts of a device."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Hashable
from typing import TYPE_CHECKING, Final

from analyzer.catalogue import SEALED_KEY_SIZE
from analyzer.conversation import Conversation
from analyzer.rules import words
from analyzer.wording import listing, number, plural, printable

if TYPE_CHECKING:
    from analyzer.keys import Key, KeyRing
    from analyzer.session import RangeTest
    from analyzer.trace import Trace

NAMED_KEYS: Final = 3
MOST_TESTED: Final = 64
"""Public keys of one role that are put to the range test; it says little about any of so many."""


def name(key: Key) -> str:
    """Name a key by its file and its fingerprint."""
    return f"{file_of(key)} ({key.fingerprint})"


def file_of(key: Key) -> str:
    """Return the base name of the file that a key came from."""
    return printable(os.path.basename(key.name))


def names(keys: tuple[Key, ...], noun: str) -> str:
    """Name a few keys, or count many."""
    if len(keys) <= NAMED_KEYS:
        return listing([name(key) for key in keys], "or")
    return f"any of {plural(len(keys), noun)}"


class Places:
    """What one capture proves about who holds which key.

    A device that logged in has opened a reply with its key and has checked the signature with its server key;
    a device whose "who I am" opens has locked it with its server key (PROTOCOL 3.4).
    """

    def __init__(self, trace: Trace) -> None:
        self._ring = trace.keys
        self._inside: dict[int, list[Conversation]] = defaultdict(list)  # device modulus: logins that used it
        self._trusted: dict[Hashable, dict[int, str]] = defaultdict(dict)  # device: server modulus, and by what
        self._signs: dict[Hashable, dict[int, int]] = defaultdict(dict)  # server: modulus, and a packet it signed
        self._identities: dict[Hashable, list[bytes]] = defaultdict(list)
        self._replies: dict[Hashable, list[bytes]] = defaultdict(list)
        self._tests: dict[tuple[Hashable, str, int], RangeTest] = {}
        self._refused: dict[Hashable, dict[str, int]] = defaultdict(dict)  # server: device ID, and when (ns) first
        self._got_through: dict[Hashable, int] = {}  # server: when (ns) the last "who I am" began that it accepted
        for conversation in trace.conversations:
            self._learn(conversation)

    def _learn(self, c: Conversation) -> None:
        device, server, secrets = c.device.address, (c.server.address, c.server.port), c.secrets
        identity, session = c.part("identity"), c.part("session")
        if c.reached == "identity" and identity is not None and identity.data is not None:
            self._identities[device].append(identity.data)
        if c.reached in ("session", "hello") and session is not None and session.data is not None:
            self._replies[device].append(session.data[:SEALED_KEY_SIZE])
        if c.reached in ("session", "hello", "established"):
            self._got_through[server] = max(c.start_ns, self._got_through.get(server, 0))
        if secrets is None:
            return
        found, offer = secrets.identity, secrets.offer
        if c.reached == "identity" and c.closings and found is not None and found.nonce_matches:
            self._refused[server].setdefault(found.device_id or c.device.ip, c.start_ns)
        if found is not None and found.nonce_matches and identity is not None:
            how = words.OPENED_IT.format(packet=number(identity.packet))
            self._trusted[device].setdefault(found.opened_by.n, how)
        if offer is None or session is None:
            return
        if offer.signed_by is not None:
            self._signs[server].setdefault(offer.signed_by.n, session.packet)
        if c.reached == "established":
            if offer.opened_by is not None:
                self._inside[offer.opened_by.n].append(c)
            if offer.signed_by is not None:
                how = words.SIGNED_A_LOGIN.format(packet=number(session.packet))
                self._trusted[device].setdefault(offer.signed_by.n, how)

    # -- device keys ---------------------------------------------------------------------------------------------

    def used_by(self, key: Key, c: Conversation) -> Conversation | None:
        """Return a login of this same device that used this key, None when there is none in the capture."""
        return next((other for other in self._inside.get(key.n, ()) if _same_device(other, c)), None)

    def elsewhere(self, key: Key, c: Conversation) -> bool:
        """Whether this key is the key of another device: by a login of that device, or by its file's name."""
        if self.used_by(key, c) is not None:
            return False
        named = key.device_ids
        if c.device.id is not None and named and c.device.id not in named:
            return True
        return key.n in self._inside

    def candidates(self, keys: tuple[Key, ...], c: Conversation, own_words: Key | None) -> tuple[Key, ...]:
        """Return those of ``keys`` that may be the one inside this device.

        ``own_words`` is the key that the device itself offers, if that is known.
        """
        if own_words is not None:
            return tuple(key for key in keys if key.n == own_words.n)
        left = tuple(key for key in keys if not self.elsewhere(key, c))
        by_name = tuple(key for key in left if c.device.id is not None and c.device.id in key.device_ids)
        return by_name or left

    # -- server keys ---------------------------------------------------------------------------------------------

    def trusted(self, c: Conversation) -> dict[int, str]:
        """Return the server keys that this device is proven to trust: modulus, and by what."""
        return self._trusted.get(c.device.address, {})

    def signs(self, c: Conversation) -> dict[int, int]:
        """Return the keys with which this server has signed replies: modulus, and a packet."""
        return self._signs.get((c.server.address, c.server.port), {})

    def refused_by(self, c: Conversation) -> tuple[int, bool]:
        """Return how many devices this server refuses although it could read them, and whether any got through
        since.
        """
        server = (c.server.address, c.server.port)
        refused = self._refused.get(server, {})
        first = min(refused.values(), default=0)
        return len(refused), len(refused) > 1 and self._got_through.get(server, -1) >= first

    # -- public keys alone ---------------------------------------------------------------------------------------

    def identity_test(self, c: Conversation, key: Key) -> RangeTest:
        """Test a server key against all refused "who I am" of this device."""
        return self._test("identity", self._identities, c.device.address, key)

    def reply_test(self, c: Conversation, key: Key) -> RangeTest:
        """Test a device key against all replies that this device could not use."""
        return self._test("reply", self._replies, c.device.address, key)

    def _test(self, kind: str, blocks: dict[Hashable, list[bytes]], device: Hashable, key: Key) -> RangeTest:
        # One test serves all attempts of a device: a thousand attempts must not be a million steps.
        test = self._tests.get((device, kind, key.n))
        if test is None:
            from analyzer.session import RangeTest  # noqa: PLC0415 - only with keys

            test = self._tests[device, kind, key.n] = RangeTest(key.n)
            for block in blocks.get(device, ()):
                test.add(block)
        return test


def _same_device(one: Conversation, other: Conversation) -> bool:
    if one.device.id is not None and other.device.id is not None:
        return one.device.id == other.device.id
    return one.device.address == other.device.address


def is_registry(ring: KeyRing) -> bool:
    """Whether the keys given look like a server's folder: files named after device ids."""
    return any(key.device_ids for key in ring.device_keys)


def named_in_registry(ring: KeyRing, device_id: str | None) -> tuple[Key, ...]:
    """Return the device keys in files named after this device, as a server keeps them on file."""
    if device_id is None:
        return ()
    return tuple(key for key in ring.keys_of_device(device_id) if key.role == "device")
