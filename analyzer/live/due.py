"""When to look at a conversation next although nothing comes: when one of the rules' time limits runs out.

The limits are those of the rules. What is said is up to the rules alone: a look at another time does no harm.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from analyzer.catalogue import DEVICE_READ_LIMIT, PING_ANSWER_LIMIT
from analyzer.conversation import Conversation
from analyzer.rules.connectivity import LONE_SYN
from analyzer.rules.device import ANSWERS_A_FIN, DEAD_SILENCE
from analyzer.rules.facts import NS
from analyzer.rules.handshake import ENOUGH_SILENCE
from analyzer.rules.reply import LATE_HELLO
from analyzer.rules.session import GIVEN_UP_AFTER
from analyzer.seen import Seen
from analyzer.sessionwatch import STALL
from analyzer.streams import Sender

READ_LIMIT: Final = round(DEVICE_READ_LIMIT * NS)
PING_LOST: Final = round(PING_ANSWER_LIMIT * NS)
"""Of a session that has ended a little less is enough (`analyzer.rules.session`); while it is open, the answer may come
in the last moment."""
TOGETHER: Final = NS // 4
"""Limits that run out within this time are looked at together, at the last of them."""


def due(c: Conversation, now_ns: int) -> int | None:
    """Return when (ns) to look at a conversation again if nothing comes, None when time changes nothing any more.

    ``c`` is the conversation as it would be if it ended now.
    """
    times = sorted(time_ns for time_ns in _limits(c) if time_ns > now_ns)
    return max(time_ns for time_ns in times if time_ns <= times[0] + TOGETHER) if times else None


def too_soon(code: str, c: Conversation, now_ns: int) -> bool:
    """Whether a finding holds if the connection ends at ``now_ns``, but may not a moment later if it goes on."""
    ping = c.watch.unanswered
    return code == "SPK503" and not c.closings and ping is not None and now_ns < ping.time_ns + PING_LOST


def _limits(c: Conversation) -> Iterator[int]:
    if c.closings:
        if c.reached == "established":
            yield c.closings[0].time_ns + round(ANSWERS_A_FIN)
        return
    for side in c.sides.values():
        if side.unacked_since is not None:
            yield side.unacked_since.time_ns + round(GIVEN_UP_AFTER)
    if c.reached == "established":
        yield from _session_limits(c)
        return
    yield c.start_ns + READ_LIMIT
    if c.syns and c.syn_ack is None and c.connected is None:
        yield c.syns[0].time_ns + round(LONE_SYN)
    identity, session = c.part("identity"), c.part("session")
    if session is not None and session.complete:
        yield session.time_ns + round(LATE_HELLO)
        yield session.time_ns + READ_LIMIT
        for frame in c.first_frames:
            if frame.sender is Sender.DEVICE:
                yield frame.time_ns + round(LATE_HELLO)
        return
    if identity is not None and identity.complete:
        yield identity.time_ns + round(ENOUGH_SILENCE)
    places: list[Seen | None] = [c.connected, c.sides[Sender.DEVICE].last_data, c.sides[Sender.SERVER].last_data]
    for seen in places:
        if seen is not None:
            yield seen.time_ns + READ_LIMIT


def _session_limits(c: Conversation) -> Iterator[int]:
    if c.watch.unanswered is not None:
        yield c.watch.unanswered.time_ns + PING_LOST
    if c.watch.update is not None:
        yield c.watch.update.last_ns + STALL
    yield c.end_ns + DEAD_SILENCE
