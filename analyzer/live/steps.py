"""The steps of one connection, in the words of the reports: connected, greeting, who I am, reply, hello, logged in.

All of them were recognised elsewhere; here they are put in order and told once each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from analyzer.conversation import Conversation
from analyzer.live.due import PING_LOST
from analyzer.sessionwatch import CHUNKS_OF_AN_UPDATE
from analyzer.streams import Sender
from analyzer.wording import duration, endpoint, number, plural, with_article

UPDATE_TOLD: Final = (CHUNKS_OF_AN_UPDATE, 10, 30)
"""Chunks after which an update's progress is told first; from then on after each hundred."""
UPDATE_EACH: Final = 100
MANY_DEAD: Final = 3
"""Messages under a dead key that are told one by one."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its name for programs, which is told once; its time (ns), its packets, and what people read."""

    name: str
    time_ns: int
    packets: tuple[int, int]
    text: str
    long: bool = False  # it says itself how long it took


def steps(c: Conversation, *, usual_port: int, now_ns: int) -> list[Step]:
    """Return the steps that a conversation has made, as it stands at ``now_ns``, oldest first."""
    found = [*_connecting(c, usual_port)]
    if c.kind in ("spark", "empty"):
        found += [*_login(c), *_session(c, now_ns)]
    found += _endings(c)
    return sorted(found, key=lambda step: step.time_ns)


def _connecting(c: Conversation, usual_port: int) -> Iterator[Step]:
    server = c.server.ip if c.server.port == usual_port else endpoint(c.server.ip, c.server.port)
    if c.midway:
        once = (c.first_packet, c.first_packet)
        yield Step("midway", c.start_ns, once, f"already connected to {server}: the login is not in the capture")
        return
    if c.syns:
        first = c.syns[0]
        yield Step("connect", first.time_ns, (first.packet, first.packet), f"connecting to {server}")
    for tries, again in enumerate(c.syns[1:], start=2):
        if c.syn_ack is None or again.time_ns < c.syn_ack.time_ns:
            yield Step(
                f"connect {tries}", again.time_ns, (again.packet, again.packet), f"asks again (try {number(tries)})"
            )
    if c.connected is not None:
        yield Step("connected", c.connected.time_ns, (c.connected.packet, c.connected.packet), "connected")


def _login(c: Conversation) -> Iterator[Step]:
    for name, text in (("nonce", "greeting"), ("identity", "who I am"), ("session", "reply")):
        part = c.part(name)
        if part is not None and part.complete:
            yield Step(name, part.time_ns, (part.first_packet, part.packet), text)
    for count, frame in enumerate(c.dead_frames[:MANY_DEAD], start=1):
        yield Step(f"dead {count}", frame.time_ns, (frame.packet, frame.packet), with_article(frame.dead or ""))
    if c.midway:
        return
    if (hello := c.hello) is not None:
        yield Step("hello", hello.time_ns, (hello.packet, hello.packet), "hello")
    answer = c.server_hello
    if answer is not None and c.reached == "established":
        yield Step("established", answer.time_ns, (answer.packet, answer.packet), "hello back: logged in")


def _session(c: Conversation, now_ns: int) -> Iterator[Step]:
    watch, end = c.watch, c.first_closing
    if watch.pings_answered and watch.last_server_ns is not None:
        trip = duration(watch.ping_rtt_ns[0])
        yield Step("ping", watch.last_server_ns, (c.last_packet, c.last_packet), f"a ping, answered in {trip}")
    ping = watch.unanswered
    until = now_ns if end is None else end.time_ns
    if ping is not None and c.reached == "established" and until - ping.time_ns >= PING_LOST:
        lost = f"no answer to the ping of packet {number(ping.packet)} in {duration(PING_LOST)}"
        yield Step(f"ping lost {ping.packet}", ping.time_ns + PING_LOST, (ping.packet, ping.packet), lost, long=True)
    update = watch.update
    if update is not None and update.chunks >= CHUNKS_OF_AN_UPDATE:
        told = max((n for n in UPDATE_TOLD if n <= update.chunks), default=0)
        told = max(told, update.chunks // UPDATE_EACH * UPDATE_EACH)
        text = f"update: {plural(update.chunks, 'chunk')} of {number(update.size)} bytes"
        name = f"update {update.first_packet} {told}"
        yield Step(name, update.last_ns, (update.first_packet, update.last_packet), text)


def _endings(c: Conversation) -> Iterator[Step]:
    for end in c.closings:
        if end is not c.first_closing and end.how == c.closings[0].how:
            continue  # the other side's part of the same
        how = "cut the connection off" if end.how == "rst" else "hung up"
        if end.how == "rst" and not c.connected and end.sender is Sender.SERVER:
            how = "refused"
        after = duration(end.time_ns - c.start_ns)
        name = f"{end.sender} {end.how}"
        text = f"{end.sender} {how} after {after}" if end is c.first_closing else f"{end.sender} {how}"
        yield Step(name, end.time_ns, (end.packet, end.packet), text, long=True)
