"""What one connection tells of the server's software, without a key, and the timers that its connections share.

A timer counts once it has shown twice: a proxy, or somebody who restarts the server, can close at any time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from analyzer.catalogue import (
    COMMUNITY_LOGIN_LIMIT,
    COMMUNITY_UPDATE_LIMIT,
    DEVICE_READ_LIMIT,
    LEGACY_LOGIN_LIMIT,
    LEGACY_STEP_LIMIT,
    SERVER_IDLE_LIMIT,
)
from analyzer.conversation import Conversation
from analyzer.findings import Confidence
from analyzer.recognition.device import is_fast
from analyzer.recognition.model import COMMUNITY, LEGACY, OTHER, Clue, Recognised, fits, holes_of
from analyzer.recognition.timers import repeated
from analyzer.seen import Closing
from analyzer.streams import Sender
from analyzer.wording import duration, number

NS: Final = 1_000_000_000
LOGIN_LIMIT: Final = "login limit"
EARLY_CORE: Final = "G1a"
UNFINISHED: Final = ("nonce", "identity", "session")
"""How far a login got that came to nothing, and of which the server still waits for something."""
ON_ITS_OWN: Final = 2 * NS
"""A close this long after the last word of the device is no answer to it."""
NO_ANSWER_TO_ANYTHING: Final = 5.0
"""A timer that is shorter (s) cannot be told from a server that thinks before it closes."""
SLACK, SLACK_LEAST = 0.01, 0.5
"""How far (in parts of itself, and at least in seconds) a timer of the server may seem off."""
MORE_THAN_COMMUNITY: Final = COMMUNITY_LOGIN_LIMIT + 2.0
UPDATE_BEYOND: Final = round((COMMUNITY_UPDATE_LIMIT + 5.0) * NS)


def clues_of(c: Conversation) -> Iterator[Clue]:
    """Yield what one connection tells of its server by itself."""
    nonce = c.part("nonce")
    if c.kind != "spark" or nonce is None or not nonce.complete:
        return  # who says nothing, or something else, is neither
    for clue in (_login_limit(c), _idle_limit(c), _offers(c), _update(c)):
        if clue is not None:
            yield clue


def given_up(c: Conversation) -> Closing | None:
    """The server's close, when it came by itself: the device had said nothing just before."""
    end = c.first_closing
    if end is None or end.sender is not Sender.SERVER or holes_of(c):
        return None
    last = c.sides[Sender.DEVICE].last_data
    said = [f.time_ns for f in (*c.first_frames, *c.last_frames) if f.sender is Sender.DEVICE]
    said += [last.time_ns] if last is not None else []
    return end if all(end.time_ns - heard >= ON_ITS_OWN for heard in said if heard <= end.time_ns) else None


def login_lasted(c: Conversation) -> float | None:
    """How long (s) the server let a login go on that came to nothing, until it closed by itself."""
    end = given_up(c)
    if end is None or c.connected is None or c.reached not in UNFINISHED:
        return None
    return (end.time_ns - c.connected.time_ns) / NS


def _since_last_step(c: Conversation, end: Closing) -> float:
    """How long (s) after the last message of the login the connection was closed."""
    steps = [part.time_ns for kind in ("nonce", "identity", "session") if (part := c.part(kind)) is not None]
    return (end.time_ns - max(steps)) / NS


def _login_limit(c: Conversation) -> Clue | None:
    lasted, end = login_lasted(c), c.first_closing
    if lasted is None or end is None:
        return None
    waited = _since_last_step(c, end)
    is_due = c.reached != "identity"  # with "who I am" in hand it waits for nothing but itself
    at = f"Packet {number(end.packet)}: the server gives the login up"
    if _is_near(lasted, COMMUNITY_LOGIN_LIMIT):
        return Clue(
            LOGIN_LIMIT,
            fits(COMMUNITY),
            Confidence.HINT,
            f"{at} {lasted:.1f} s after the connection began.",
            (end.packet,),
        )
    if is_due and _is_near(waited, LEGACY_STEP_LIMIT):
        told = f"{at} {waited:.1f} s after its own last step."
        return Clue(LOGIN_LIMIT, fits(LEGACY), Confidence.HINT, told, (end.packet,))
    if _is_near(lasted, LEGACY_LOGIN_LIMIT):
        told = f"{at} {lasted:.0f} s after the connection began."
        return Clue(LOGIN_LIMIT, fits(LEGACY), Confidence.HINT, told, (end.packet,))
    if lasted < MORE_THAN_COMMUNITY or _is_near(waited, DEVICE_READ_LIMIT):
        return None  # at 20 s it may be the device that left, in a capture that shows the two in another order
    return Clue(
        "beyond limit",
        fits(LEGACY, OTHER),
        Confidence.LIKELY,
        f"{at} after {lasted:.1f} s; the community server allows {COMMUNITY_LOGIN_LIMIT:.0f} s.",
        (end.packet,),
    )


def outlasts_community(c: Conversation) -> bool:
    """Whether a login that came to nothing was open for longer than the community server bears, whoever ended it."""
    end = c.first_closing
    if end is None or c.connected is None or c.reached not in UNFINISHED or holes_of(c):
        return False
    return (end.time_ns - c.connected.time_ns) / NS >= MORE_THAN_COMMUNITY


def _is_near(seconds: float, limit: float) -> bool:
    return abs(seconds - limit) <= max(SLACK * limit, SLACK_LEAST)


def _idle_limit(c: Conversation) -> Clue | None:
    """The community server bears a silence of 31 s in a session, the legacy server any (2.5)."""
    end, last = given_up(c), c.sides[Sender.DEVICE].last_data
    if end is None or last is None or c.reached != "established":
        return None
    silence = (end.time_ns - last.time_ns) / NS
    if not _is_near(silence, SERVER_IDLE_LIMIT):
        return None
    return Clue(
        "idle limit",
        fits(COMMUNITY),
        Confidence.HINT,
        f"Packet {number(end.packet)}: the server closes {silence:.1f} s after the device's last message.",
        (last.packet, end.packet),
    )


def _offers(c: Conversation) -> Clue | None:
    """An update offered three times, and once more without saying how large it is (5.5)."""
    if not c.watch.offers or holes_of(c):
        return None
    places = tuple(packet for packet, _ in c.watch.offers)
    return Clue(
        "offers",
        fits(LEGACY),
        Confidence.STRONG,
        f"Packets {number(places[0])} to {number(places[-1])}: an update is offered three times, and once shorter.",
        places,
    )


def _update(c: Conversation) -> Clue | None:
    """Fast updates never start on the legacy server; the community server allows a minute for all (5.5, 9.6)."""
    update = c.watch.update
    if update is None or update.begun_ns is None or holes_of(c):
        return None
    where = (update.first_packet, update.last_packet)
    if is_fast(c, update):
        return Clue(
            "fast update",
            fits(COMMUNITY, OTHER),
            Confidence.LIKELY,
            f"Packets {number(where[0])} to {number(where[1])}: an update in the fast form, which the legacy server"
            " never begins.",
            where,
        )
    took = update.last_ns - update.first_ns
    if took <= UPDATE_BEYOND or update.answered < update.chunks - 1:
        return None
    return Clue(
        "long update",
        fits(LEGACY, OTHER),
        Confidence.LIKELY,
        f"Packets {number(where[0])} to {number(where[1])}: chunks for {duration(took)}; the community"
        f" server allows {COMMUNITY_UPDATE_LIMIT:.0f} s.",
        where,
    )


def accepts_early_core(c: Conversation, firmware: Recognised | None) -> Clue | None:
    """The community server replies to no device without a key in "who I am" (9.10)."""
    session = c.part("session")
    if firmware is None or firmware.only != EARLY_CORE or session is None or not session.complete:
        return None
    return Clue(
        "early core",
        fits(LEGACY, OTHER),
        firmware.confidence,
        f"Packet {number(session.packet)}: the server replies to a Core with firmware up to 0.3, which the community"
        " server refuses.",
        (session.packet,),
    )


# -- timers that repeat ---------------------------------------------------------------------------------------------


def login_given_up(c: Conversation) -> tuple[float, float] | None:
    """How long (s) a login lasted that the server gave up, and how long since its last step."""
    lasted, end = login_lasted(c), c.first_closing
    if lasted is None or end is None or lasted < NO_ANSWER_TO_ANYTHING:
        return None
    return lasted, _since_last_step(c, end)


def learnt_login(given_up: Sequence[tuple[float, float]]) -> float | None:
    """The time (s) after which this server gives a login up, when it is the same again and again.

    Where the time since the last step is the same as well, nothing tells which of the two it measures.
    """
    since = repeated([step for _, step in given_up])
    return repeated([login for login, _ in given_up]) if since is None else None


def update_cut(c: Conversation) -> float | None:
    """The time (s) after which the server closed in the middle of an update."""
    end, update = c.first_closing, c.watch.update
    if end is None or end.sender is not Sender.SERVER or update is None or update.begun_ns is None or holes_of(c):
        return None
    return (end.time_ns - update.begun_ns) / NS if not update.server_since and not update.asked else None
