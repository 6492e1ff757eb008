"""What the keys at hand told about one conversation: facts for the rules and reports, no cryptography."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from analyzer.messages.gist import Gist
from analyzer.streams import Sender

if TYPE_CHECKING:
    from analyzer.keys import SessionKey
    from analyzer.messages import MessageReader
    from analyzer.session import FailurePattern, Identity, Obstacle, Offer


@dataclass(frozen=True, slots=True)
class BadFrame:
    """A frame that is no message under this session's key.

    ``position`` counts the whole frames of its direction from 0; ``behind_gap`` says that bytes are missing
    between it and the last message that opened.
    """

    sender: Sender
    position: int
    packet: int
    obstacle: Obstacle
    behind_gap: bool


# Of fifty thousand logins that fail none has a message: one of each will do, and nobody changes them.
_NO_PATTERNS: Final[Mapping[Sender, FailurePattern]] = {}
_NO_MESSAGES: Final = Gist()


@dataclass(slots=True)
class Secrets:
    """What the keys at hand told about one conversation. No secret shows when this is printed.

    ``identity_tried`` and ``offer`` say what was tried; ``session_key`` is None when nothing opened.
    ``key_source`` names where it came from. ``hellos`` are the ends whose hello opened; ``gist`` is what the rules ask
    of the messages.
    """

    identity: Identity | None = None
    identity_tried: int = 0
    offer: Offer | None = None
    session_key: SessionKey | None = field(default=None, repr=False)
    key_source: str | None = None
    opened: int = 0
    partly: int = 0
    lost: int = 0  # frames of which a hole left nothing
    patterns: Mapping[Sender, FailurePattern] = field(default_factory=lambda: _NO_PATTERNS)
    bad_frames: Sequence[BadFrame] = ()
    hellos: Set[Sender] = frozenset()
    reader: MessageReader | None = None
    gist: Gist = field(default_factory=lambda: _NO_MESSAGES)
