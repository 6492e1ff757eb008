"""What the keys make of a conversation: handshake opened, frames decrypted, messages named.

One `Decryption` serves a whole capture, because keys that worked once are tried first again and dead keys go on
across connections. It is told of each frame as it is cut; what it learns is kept in the conversation's `Secrets`
and `messages`. It is imported only when there are keys.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import lru_cache
from typing import Final, NamedTuple

from analyzer.conversation import Conversation
from analyzer.frames import Frame
from analyzer.keys import KeyRing, SessionKey
from analyzer.messages import MessageLog
from analyzer.opened import BadFrame, Secrets
from analyzer.secrecy import forgetful
from analyzer.session import (
    FailurePattern,
    FrameDecryptor,
    Obstacle,
    SessionOpener,
    fitting_session_key,
)
from analyzer.streams import Sender

QUEUED: Final = 512
"""Frames that wait, per conversation, until it is known which key opens them."""
PROOF: Final = 4
"""Frames after which a session key that was given is put to the test; again each time their number has doubled,
because the first few may have too little padding to prove anything."""
BAD_FRAMES: Final = 32
"""Frames that did not open, listed per conversation."""
KEY_GIVEN: Final = "the session key given"
KEY_LOGGED: Final = "the key log"
"""What a session key that came out of no handshake is called."""


class OpenedMessage(NamedTuple):
    """A message as it was opened; ``missing`` bytes at its front are lost."""

    direction: str
    plaintext: bytes
    packet: int
    time_ns: int
    missing: int


Opened = Callable[[Conversation, OpenedMessage], None]


class _Direction:
    """What is in progress in one direction."""

    __slots__ = ("decryptor", "gap", "name", "pattern", "primed")

    def __init__(self, name: str, decryptor: FrameDecryptor, pattern: FailurePattern) -> None:
        self.name = name
        self.decryptor = decryptor
        self.pattern = pattern
        self.primed = False  # the IV of the frame behind the hole is known
        self.gap = False  # bytes are missing since the last message


class _Opening:
    """The work on one conversation while its packets come."""

    __slots__ = ("decided", "directions", "log", "queue", "test_at")

    def __init__(self) -> None:
        self.decided = False
        self.directions: dict[Sender, _Direction] | None = None
        self.log: MessageLog | None = None
        self.test_at = PROOF
        self.queue: list[Frame] = []


class Decryption:
    """Opens the conversations of one capture with the keys of a ring."""

    def __init__(self, keys: KeyRing, opened: Opened | None = None) -> None:
        """``opened`` is told of each message as it is opened."""
        self.keys = keys
        self._told_of = opened
        self._opener = SessionOpener(keys)
        self._work: dict[int, _Opening] = {}
        self._sessions: dict[bytes, list[Conversation]] = {}  # by device: those in use, not finished
        self._told: dict[bytes, tuple[int, bytes]] = {}  # by device: what `left_behind` said last

    def begin(self, conversation: Conversation) -> None:
        """Take charge of a new conversation."""
        conversation.secrets = Secrets()
        self._work[conversation.number] = _Opening()

    def frame(self, conversation: Conversation, frame: Frame) -> None:
        """Take its next frame (not a dead-key frame)."""
        work, secrets = self._work[conversation.number], conversation.secrets
        if secrets is None:
            return
        if work.directions is not None and work.log is not None:
            self._decrypt(conversation, work.directions[frame.sender], work.log, secrets, frame)
            return
        if work.decided:
            return
        work.queue.append(frame)
        session = conversation.part("session")
        # A full queue is decided as it is: left waiting, it would lose frames in its middle.
        full = len(work.queue) >= QUEUED
        if full or (session is not None and session.complete) or conversation.midway:
            self._decide(conversation, work, secrets, final=full)

    def end(self, conversation: Conversation) -> tuple[SessionKey, bytes] | None:
        """Finish a conversation: open what has waited. Return its AES key and the IV that the device's next
        frame would have had, if both are known and not told yet: a device that fails its next login goes on
        with them.
        """
        work, secrets = self._work[conversation.number], conversation.secrets
        if secrets is not None and not work.decided:
            self._decide(conversation, work, secrets, final=True)
        if secrets is not None and secrets.identity is None:
            self._open_identity(conversation, secrets)  # it came behind the reply: capture begun between SYN and nonce
        if work.log is not None and secrets is not None:
            work.log.close()
            secrets.hellos = _ends(*(sender for sender in Sender if secrets.gist.counts[sender].get("Hello")))
        chain = self._chain(conversation)
        del self._work[conversation.number]
        address = conversation.device.address
        live = self._sessions.get(address, [])
        if conversation in live:
            live.remove(conversation)
        if not live:
            self._sessions.pop(address, None)
            self._told.pop(address, None)
        return chain

    def so_far(self, c: Conversation, finished: Conversation) -> None:
        """Give ``finished``, which is what ``c`` would be if nothing followed, what the keys tell of it by now."""
        work, secrets = self._work.get(c.number), c.secrets
        if work is None or secrets is None:
            return
        session = c.part("session")
        if not work.decided and secrets.offer is None and session is not None and session.complete:
            self._open_handshake(c, secrets)  # it will not be tried again
        told = finished.secrets = copy(secrets)
        if told.identity is None:
            self._open_identity(finished, told)
        if work.log is not None:
            log = work.log.so_far()
            finished.messages = log  # type: ignore[assignment]  # as in `_decide`
            told.reader, told.gist = log.reader, log.gist
            told.hellos = {sender for sender in Sender if told.gist.counts[sender].get("Hello")}

    def left_behind(self, conversation: Conversation) -> tuple[SessionKey, bytes] | None:
        """Return the same as `end` for the device's connection before this one, when that is not finished yet.

        A device that dials again is done with it, long before the capture shows that.
        """
        for earlier in reversed(self._sessions.get(conversation.device.address, [])):
            if earlier.number < conversation.number:
                return self._chain(earlier)
        return None

    def _chain(self, c: Conversation) -> tuple[SessionKey, bytes] | None:
        """The AES key and next IV of the device's direction, unless they are what was told last.

        None, too, of a session in which nothing was said: a device that could not use the offer still holds the key
        of the session before.
        """
        work, secrets = self._work[c.number], c.secrets
        if work.directions is None or secrets is None or secrets.session_key is None or not secrets.opened:
            return None
        next_iv = work.directions[Sender.DEVICE].decryptor.next_iv
        if next_iv is None or self._told.get(c.device.address) == (c.number, next_iv):
            return None
        self._told[c.device.address] = c.number, next_iv
        return secrets.session_key, next_iv

    # -- which key -----------------------------------------------------------------------------------------------

    @forgetful
    def _decide(self, c: Conversation, work: _Opening, secrets: Secrets, *, final: bool) -> None:
        """Open the handshake, or find a given session key that fits; then decrypt what has waited."""
        if secrets.offer is None:
            self._open_handshake(c, secrets)
        if secrets.session_key is None:
            nonce = c.part("nonce")
            candidates = self.keys.session_keys_for(nonce.data if nonce is not None else None)
            if candidates and len(work.queue) < work.test_at and not final:
                return
            if candidates:
                self._try_session_keys(c, work, secrets, candidates)
                work.test_at *= 2
                if secrets.session_key is None and not final:
                    return
        work.decided = True
        queue, work.queue = work.queue, []
        if secrets.session_key is None:
            return
        in_step = not c.midway or c.part("session") is not None
        key = secrets.session_key
        patterns = secrets.patterns = {sender: FailurePattern() for sender in Sender}
        directions = work.directions = {
            sender: _Direction(sender.value, FrameDecryptor(key, in_step=in_step), pattern)
            for sender, pattern in patterns.items()
        }
        log = work.log = MessageLog(key.salt)
        secrets.reader, secrets.gist = log.reader, log.gist
        c.messages = log  # type: ignore[assignment]  # a sequence is all that anybody needs
        for frame in queue:
            self._decrypt(c, directions[frame.sender], log, secrets, frame)

    def _open_identity(self, c: Conversation, secrets: Secrets) -> None:
        nonce, identity = c.part("nonce"), c.part("identity")
        block = identity.data if identity is not None and not secrets.identity_tried else None
        if block is not None and self.keys.server_private:
            secrets.identity_tried = len(self.keys.server_private)
            secrets.identity = self._opener.identity(block, nonce.data if nonce is not None else None)
            if (
                secrets.identity is not None
                and secrets.identity.device_id
                and secrets.identity.nonce_matches is not False
            ):
                c.device.id = secrets.identity.device_id

    def _open_handshake(self, c: Conversation, secrets: Secrets) -> None:
        self._open_identity(c, secrets)
        session = c.part("session")
        if session is None or session.data is None:
            return
        secrets.offer = self._opener.offer(session.data, secrets.identity, c.device.address)
        if secrets.offer.credentials is not None and secrets.offer.opened_by is not None:
            secrets.session_key = secrets.offer.credentials
            secrets.key_source = secrets.offer.opened_by.name

    def _try_session_keys(
        self, c: Conversation, work: _Opening, secrets: Secrets, candidates: tuple[SessionKey, ...]
    ) -> None:
        runs = [_longest_run(work.queue, sender) for sender in Sender]
        in_step = not c.midway and all(first for first, _ in runs)
        fitting = fitting_session_key(candidates, [frames for _, frames in runs], in_step=in_step)
        if fitting is None:
            return
        secrets.session_key = fitting
        given = fitting in self.keys.loose_session_keys
        secrets.key_source = KEY_GIVEN if given else KEY_LOGGED

    # -- frames and messages -------------------------------------------------------------------------------------

    def _decrypt(self, c: Conversation, direction: _Direction, log: MessageLog, secrets: Secrets, frame: Frame) -> None:
        decryptor = direction.decryptor
        if frame.follows_gap:
            direction.gap = True
            if not direction.primed:
                decryptor.skip()
        direction.primed = False
        if frame.ciphertext is None:
            # Its first block is the next frame's IV, so a hole behind it costs this frame alone.
            decryptor.skip(frame.head)
            direction.primed = direction.gap = True
            secrets.lost += 1
            return
        opened = decryptor.update(frame.ciphertext)
        pattern = direction.pattern
        pattern.note(opened)
        if opened.plaintext is None:
            if opened.obstacle is Obstacle.GAP_BEFORE:
                secrets.lost += 1
            elif len(secrets.bad_frames) < BAD_FRAMES:
                position, behind_gap = pattern.frames - 1, direction.gap
                bad = BadFrame(frame.sender, position, frame.packet, opened.obstacle, behind_gap)
                secrets.bad_frames = (*secrets.bad_frames, bad)
            return
        direction.gap = False
        if opened.whole:
            if not secrets.opened:
                self._sessions.setdefault(c.device.address, []).append(c)
            secrets.opened += 1
        else:
            secrets.partly += 1
        log.append(direction.name, opened.plaintext, frame.packet, frame.time_ns, opened.missing)
        if self._told_of is not None:
            message = OpenedMessage(direction.name, opened.plaintext, frame.packet, frame.time_ns, opened.missing)
            self._told_of(c, message)


@lru_cache(maxsize=4)  # one for all sessions
def _ends(*senders: Sender) -> frozenset[Sender]:
    return frozenset(senders)


def _longest_run(queue: list[Frame], sender: Sender) -> tuple[bool, list[bytes]]:
    """Return the longest run of one direction's frames without a gap, and whether it begins with the first."""
    best: tuple[bool, list[bytes]] = (True, [])
    run: list[bytes] = []
    first = True
    for frame in queue:
        if frame.sender is not sender:
            continue
        if frame.ciphertext is None or frame.follows_gap:
            first, run = False, []
        if frame.ciphertext is not None:
            run.append(frame.ciphertext)
            if len(run) > len(best[1]):
                best = first, run
    return best
