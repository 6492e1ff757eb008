"""What all connections of one device, and of one server, tell together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from analyzer.catalogue import (
    COMMUNITY_LOGIN_LIMIT,
    COMMUNITY_UPDATE_LIMIT,
    GENERATIONS,
    LEGACY_LOGIN_LIMIT,
    LEGACY_UPDATE_LIMIT,
    SERVER_HELLO_WAITS,
    SERVER_IDLE_LIMIT,
)
from analyzer.conversation import Conversation
from analyzer.devices import OVERLAP
from analyzer.network.units import IPV4_SIZE, is_local
from analyzer.recognition import device, opened, server
from analyzer.recognition.model import ANY_SERVER, COMMUNITY, LEGACY, Clues, Recognised, Recognition, fits, settle
from analyzer.recognition.timers import Timers, repeated
from analyzer.streams import Sender

if TYPE_CHECKING:
    from analyzer.trace import Trace

SAME_FIRMWARE: Final = 600_000_000_000
"""A device that was away for longer (ns) may have been given another firmware; its longest pause is 128 s."""
LOGIN_LIMITS: Final = {COMMUNITY: (COMMUNITY_LOGIN_LIMIT,), LEGACY: (LEGACY_LOGIN_LIMIT,)}
IDLE_LIMITS: Final = {COMMUNITY: (SERVER_IDLE_LIMIT,), LEGACY: ()}
UPDATE_LIMITS: Final = {COMMUNITY: (COMMUNITY_UPDATE_LIMIT,), LEGACY: (LEGACY_UPDATE_LIMIT,)}
OURS: Final = ("spark", "empty")
Server = tuple[bytes, int]
HELLO_WAIT: Final = ((fits("G1b", "G2a"), SERVER_HELLO_WAITS[0]), (fits("G2b", "G2c", "G2d"), SERVER_HELLO_WAITS[1]))


def recognise(trace: Trace) -> None:
    """Enter into each conversation what can be told of its two ends. Takes time linear in their number.

    Each is looked at once, for both ends; connections of which the same is known share what says so.
    """
    servers: dict[Server, _Seen] = defaultdict(_Seen)
    for run in _runs(trace):
        clues = Clues()
        for c in run:
            for clue in (*device.clues_of(c), *opened.device_clues(c)):
                clues.add(clue)
            if c.kind in OURS:
                servers[c.server.address, c.server.port].take(c)
        heard = trace.background.heard.get(run[0].device.address, [])
        for clue in (*device.announced(run, heard), *device.pace(run)):
            clues.add(clue)
        firmware = settle(clues, GENERATIONS)
        recognition = Recognition(firmware)
        for c in run:
            c.recognised = recognition
        for c in run if firmware is not None and firmware.only == server.EARLY_CORE else ():
            if c.kind in OURS and (early := server.accepts_early_core(c, firmware)) is not None:
                servers[c.server.address, c.server.port].clues.add(early, c.number)
    found = {end: seen.settled() for end, seen in servers.items()}
    told: dict[tuple[int, Server], Recognition] = {}
    for c in trace.conversations:
        if c.kind in OURS and c.recognised is not None:
            end, firmware = (c.server.address, c.server.port), c.recognised.firmware
            known, learnt = found[end]
            one = told.get((id(firmware), end))
            if one is None:
                one = told[id(firmware), end] = Recognition(firmware, known, _timers(firmware, known, learnt))
            c.recognised = one


class _Seen:
    """What the connections with one server show of it."""

    def __init__(self) -> None:
        self.clues = Clues()
        self._outlasted = False
        self._logins: list[tuple[float, float]] = []
        self._updates: list[float] = []

    def take(self, c: Conversation) -> None:
        """Look at a connection."""
        for clue in (*server.clues_of(c), *opened.server_clues(c)):
            self.clues.add(clue, c.number)
        self._outlasted = self._outlasted or server.outlasts_community(c)
        if (login := server.login_given_up(c)) is not None:
            self._logins.append(login)
        if (update := server.update_cut(c)) is not None:
            self._updates.append(update)

    def settled(self) -> tuple[Recognised | None, Sequence[float | None]]:
        """Return who it can be, and the limits of its own (s) on a login and an update."""
        # Where other logins stay open for longer, 10 s are not the limit of the community server but an accident.
        clues = self.clues.without(server.LOGIN_LIMIT, COMMUNITY) if self._outlasted else self.clues
        found = settle(clues, ANY_SERVER)
        if found is not None and found.only:
            return found, ()
        return found, (server.learnt_login(self._logins), repeated(self._updates))


def _timers(firmware: Recognised | None, found: Recognised | None, learnt: Sequence[float | None]) -> Timers:
    """The timers of this pair; those of everybody where it is not known, and with them what was learnt."""
    known = Timers()
    able = frozenset(firmware.candidates) if firmware is not None else frozenset(GENERATIONS)
    wait = next((seconds for generations, seconds in HELLO_WAIT if able <= generations), None)
    who = found.only if found is not None else None
    if who in LOGIN_LIMITS:
        return Timers(LOGIN_LIMITS[who], IDLE_LIMITS[who], UPDATE_LIMITS[who], wait)
    new = tuple(seconds for seconds in learnt if seconds is not None)
    login, update = learnt if learnt else (None, None)
    return Timers(
        login=(*known.login, login) if login is not None else known.login,
        update=(*known.update, update) if update is not None else known.update,
        hello_wait=wait,
        learnt=new,
    )


# -- whose connections these are ------------------------------------------------------------------------------------


def _runs(trace: Trace) -> Iterator[list[Conversation]]:
    """Connections in a row of one device with one firmware; one by one where an address may be several devices'."""
    for one in trace.devices:
        by_address: dict[bytes, list[Conversation]] = defaultdict(list)
        for c in one.conversations:
            by_address[c.device.address].append(c)
        for address, own in by_address.items():
            # Behind a public IPv4 address there may be many devices.
            shared = one.id is None and len(address) == IPV4_SIZE and not is_local(address)
            if shared or _in_parallel(own):
                yield from ([c] for c in own)
            else:
                yield from _one_firmware(own)


def _in_parallel(own: Sequence[Conversation]) -> bool:
    return any(_last_word(earlier) - later.start_ns > OVERLAP for earlier, later in pairwise(own))


def _last_word(c: Conversation) -> int:
    last = c.sides[Sender.DEVICE].last_data
    return last.time_ns if last is not None else c.start_ns


def _one_firmware(own: Sequence[Conversation]) -> Iterator[list[Conversation]]:
    run: list[Conversation] = []
    for c in own:
        if run and (run[-1].watch.update is not None or c.start_ns - run[-1].end_ns > SAME_FIRMWARE):
            yield run
            run = []
        run.append(c)
    if run:
        yield run
