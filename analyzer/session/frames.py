"""Decrypts one direction's frames, and says what is in the way when one does not open (PROTOCOL 4.4, 4.5).

The chain is unusual: the IV of a frame is the FIRST ciphertext block of the frame before it. So a missing
frame costs 16 bytes of the next and nothing more, and that pattern tells a hole from a wrong key.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from analyzer.catalogue import BLOCK
from analyzer.deadkey import is_whole_coap, without_padding
from analyzer.keys.keylog import SessionKey

UNKNOWN_IV: Final = bytes(BLOCK)
"""Put in the place of an IV that nobody knows; what it opens is counted as lost."""


class Obstacle(Enum):
    """Why a frame is not a whole message."""

    NONE = "none"
    GAP_BEFORE = "gap-before"
    """The frame before it is not in the capture: the first 16 bytes are lost, the rest is as sent."""
    BAD_PADDING = "bad-padding"
    """The end is rubbish: another key, or the frame was altered on its way."""
    BAD_START = "bad-start"
    """The end is right, the start is rubbish: the chain was broken before this frame without a gap to see."""
    NOT_COAP = "not-coap"
    """The padding is right by its bytes, but a frame of one block does not begin as a message."""
    NOT_BLOCKS = "not-blocks"
    """Empty, or no whole number of AES blocks: the framing is lost."""


_NONE, _GAP_BEFORE = Obstacle.NONE, Obstacle.GAP_BEFORE  # looking up a member costs more than the comparison with it
OBSTACLES: Final = Obstacle.__members__
"""Obstacles by name."""


@dataclass(slots=True)
class OpenedFrame:
    """One frame after decryption. Not frozen: one is made per frame, and freezing costs four times as much.

    ``plaintext`` is the CoAP message without padding when ``whole``; after a gap it is what follows the first
    ``missing`` bytes (16), and None when that is nothing, as with each ping. Else it is None.
    """

    plaintext: bytes | None
    whole: bool
    missing: int
    obstacle: Obstacle


class FrameDecryptor:
    """Decrypts the frames of one direction in order, with one AES context for all of them.

    ``in_step`` says that the first frame given is the direction's first of the session, so that the blob's IV
    is its IV. Without it, or when only the AES key is known, the first frame loses its first 16 bytes.
    """

    def __init__(self, session_key: SessionKey, *, in_step: bool = True) -> None:
        iv = session_key.iv if in_step else None
        self._iv_known = iv is not None
        self._next_iv = iv
        self._context: CipherContext = Cipher(algorithms.AES(session_key.key), modes.CBC(iv or UNKNOWN_IV)).decryptor()

    @property
    def next_iv(self) -> bytes | None:
        """The IV of the frame to come, None after a gap. A dead-key chain goes on with it (PROTOCOL 9.2)."""
        return self._next_iv if self._iv_known else None

    def skip(self, first_block: bytes | None = None) -> None:
        """Note that frames are missing here.

        ``first_block`` is the first 16 ciphertext bytes of the last missing frame where the capture still has
        them: then nothing of the next frame is lost.
        """
        if first_block is not None and len(first_block) == BLOCK:
            self._context.update(first_block)
            self._iv_known, self._next_iv = True, first_block
        else:
            self._iv_known = False

    def update(self, ciphertext: bytes) -> OpenedFrame:
        """Decrypt the next frame (without its length bytes). Never raises on bytes."""
        size = len(ciphertext)
        if not size or size % BLOCK:
            self._iv_known = False
            return OpenedFrame(None, False, 0, Obstacle.NOT_BLOCKS)
        first = ciphertext[:BLOCK]
        # After a frame, CBC would go on from its last block; the protocol goes on from its first. Feeding
        # that block again puts it there, and its output is thrown away.
        opened = self._context.update(ciphertext if size == BLOCK else ciphertext + first)[:size]
        in_step, self._iv_known, self._next_iv = self._iv_known, True, first

        if not in_step:
            return _after_gap(opened)
        plaintext = without_padding(opened)
        if plaintext is None:
            return OpenedFrame(None, False, 0, Obstacle.BAD_PADDING)
        if is_whole_coap(plaintext):
            return OpenedFrame(plaintext, True, 0, _NONE)
        return OpenedFrame(None, False, 0, Obstacle.NOT_COAP if size == BLOCK else Obstacle.BAD_START)


def _after_gap(opened: bytes) -> OpenedFrame:
    if len(opened) == BLOCK:
        return OpenedFrame(None, False, BLOCK, Obstacle.GAP_BEFORE)
    rest = without_padding(opened[BLOCK:])
    if rest is None:
        return OpenedFrame(None, False, 0, Obstacle.BAD_PADDING)
    return OpenedFrame(rest, False, BLOCK, Obstacle.GAP_BEFORE)


FRAMES_TRIED: Final = 4
"""Frames of each direction on which a session key has to prove itself."""
ENOUGH_PADDING: Final = 4
"""Right padding bytes that make a session key believed: 2^-32 for a wrong one. A ping alone shows twelve."""
MOST_CANDIDATES: Final = 4_096
"""Session keys tried for one conversation, 20 µs each."""


def fitting_session_key(
    candidates: Iterable[SessionKey], directions: Sequence[Sequence[bytes]], *, in_step: bool = True
) -> SessionKey | None:
    """Return the first session key that opens the first frames of a conversation; None when none does.

    ``directions`` are the ciphertexts of each direction's frames, in order and without gaps; ``in_step`` as for
    `FrameDecryptor`. For session keys that were given or logged; one that came out of message 3 needs no test.
    """
    for key in islice(candidates, MOST_CANDIDATES):
        padding = 0
        for frames in directions:
            decryptor = FrameDecryptor(key, in_step=in_step)
            for ciphertext in frames[:FRAMES_TRIED]:
                opened = decryptor.update(ciphertext)
                if opened.plaintext is not None:
                    padding += len(ciphertext) - opened.missing - len(opened.plaintext)
        if padding >= ENOUGH_PADDING:
            return key
    return None


class Trouble(Enum):
    """What a run of frames that do not open means (PROTOCOL 4.5; DIAGNOSES, SPK501)."""

    WRONG_KEY = "wrong key"
    """Nothing ever opened."""
    LOST = "lost for good"
    """From here on nothing opens any more: the two sides no longer agree, or the framing is wrong."""
    FRAME_MISSING = "one frame missing"
    """One frame's start is rubbish, its end and all that follows are right."""
    DAMAGED = "damaged on the way"
    """One or two frames in a row are rubbish, and the next ones are right: altered ciphertext. One altered
    first block spoils this frame's and the next one's."""
    FRAMING = "framing lost"
    """A length that no sender can have meant."""


TROUBLES: Final = Trouble.__members__
"""Troubles by name."""


@dataclass(slots=True)
class FailedRun:
    """Frames in a row that did not open: index of the first in its direction, how many, whether it ended."""

    first: int
    obstacles: list[Obstacle] = field(default_factory=list)
    count: int = 0
    recovered: bool = False


KEPT_OBSTACLES: Final = 8
"""Obstacles kept of one run; what a run means shows in its first two."""
KEPT_RUNS: Final = 64
"""Runs kept of one direction; more mean a link that alters data all the time, which these show as well."""


class FailurePattern:
    """Follows one direction's frames and says what the failures among them mean."""

    __slots__ = ("_open_run", "frames", "opened", "runs")

    def __init__(self) -> None:
        self.frames = 0
        self.opened = 0
        self.runs: list[FailedRun] = []
        self._open_run: FailedRun | None = None

    def note(self, frame: OpenedFrame) -> None:
        """Count one frame, in order."""
        index, self.frames = self.frames, self.frames + 1
        obstacle = frame.obstacle
        if obstacle is _NONE and self._open_run is None:  # nearly always
            self.opened += 1
            return
        if obstacle is _NONE or obstacle is _GAP_BEFORE:
            # A one-block frame behind a gap opens for any key, so it proves nothing and ends no run.
            if obstacle is _NONE or frame.plaintext is not None:
                self.opened += 1
                if self._open_run is not None:
                    self._open_run.recovered, self._open_run = True, None
            return
        if self._open_run is None:
            self._open_run = FailedRun(index)
            if len(self.runs) < KEPT_RUNS:
                self.runs.append(self._open_run)
        run = self._open_run
        run.count += 1
        if len(run.obstacles) < KEPT_OBSTACLES:
            run.obstacles.append(obstacle)

    def troubles(self) -> Iterable[tuple[FailedRun, Trouble]]:
        """Yield each run with its meaning, oldest first."""
        for run in self.runs:
            yield run, self._meaning(run)

    def _meaning(self, run: FailedRun) -> Trouble:
        if not self.opened:
            return Trouble.WRONG_KEY
        if run.obstacles == [Obstacle.BAD_START]:
            return Trouble.FRAME_MISSING
        if not run.recovered:
            return Trouble.FRAMING if Obstacle.NOT_BLOCKS in run.obstacles else Trouble.LOST
        return Trouble.DAMAGED
