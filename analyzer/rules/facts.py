"""What every rule asks of a conversation: how long was it watched, and what can this capture not tell?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, overload

from analyzer.catalogue import DEVICE_READ_LIMIT
from analyzer.conversation import Conversation
from analyzer.findings import FINDINGS, Confidence, Evidence, Finding, NotChecked, RuledOut, Severity, weaker
from analyzer.gaps import Gap
from analyzer.handshake import Part
from analyzer.recognition.timers import Timers
from analyzer.rules import words
from analyzer.seen import Closing, Side
from analyzer.streams import HoleReason, Sender
from analyzer.trace import Trace
from analyzer.wording import duration, number, packets

NS: Final = 1_000_000_000
AT_ONCE: Final = NS
"""A close within this time of a message is an answer to it: a round trip, and the time to check a message."""


@dataclass
class Facts:
    """One conversation with the questions that several rules ask of it."""

    conversation: Conversation
    trace: Trace
    dialled_again: int | None = None  # when (ns) the device began its next connection to this server

    @cached_property
    def nonce(self) -> Part | None:
        """The greeting, as far as it got."""
        return self.conversation.part("nonce")

    @cached_property
    def identity(self) -> Part | None:
        """The device's "who I am", as far as it got."""
        return self.conversation.part("identity")

    @cached_property
    def session(self) -> Part | None:
        """The reply, as far as it got."""
        return self.conversation.part("session")

    @cached_property
    def device(self) -> Side:
        """What the device did."""
        return self.conversation.device_side

    @cached_property
    def server(self) -> Side:
        """What the server did."""
        return self.conversation.server_side

    @cached_property
    def unseen(self) -> Sender | None:
        """The end none of whose packets were captured although the other's prove that there were some."""
        for sender in Sender:
            seen, other = (self.device, self.server) if sender is Sender.DEVICE else (self.server, self.device)
            if not seen.quality.packets and other.quality.packets and (seen.acked or seen.sent):
                return sender
            if not seen.quality.packets and other.quality.data_segments > 0:
                return sender  # it cannot have sent data on a connection that was never accepted
        return None

    @cached_property
    def reached(self) -> str:
        """How far the connection got."""
        return self.conversation.reached

    @cached_property
    def watched_until(self) -> int:
        """Time (ns) up to which a silence can be claimed: the first close, else the capture's last packet.

        A device that dials again has left its connection, though the capture may not show how.
        """
        c = self.conversation
        if c.closings:
            return c.closings[0].time_ns
        last = self.capture_ends
        again = self.dialled_again
        return min(last, again) if again is not None and again > c.end_ns else last

    @cached_property
    def capture_ends(self) -> int:
        """Time (ns) up to which the capture shows what becomes of this connection: its end, or a gap before that."""
        gap = self.trace.gaps.behind(self.conversation)
        return max(gap.from_ns, self.conversation.end_ns) if gap else self.trace.last_ns or self.conversation.end_ns

    @property
    def stops(self) -> str:
        """What the capture does at that time."""
        return "has a gap" if self.trace.gaps.behind(self.conversation) else "ends"

    @cached_property
    def torn(self) -> Gap | None:
        """The first gap of the capture between packets of this connection."""
        c = self.conversation
        return self.trace.gaps.within(c, c.first_packet, c.last_packet)

    @cached_property
    def came_up(self) -> bool | None:
        """Whether the session came up; None where the capture is too short or too one-sided to tell."""
        c = self.conversation
        if self.reached == "established":
            return True
        if self.torn is not None:
            return None
        ended = bool(c.closings) or self.dialled_again is not None
        if self.unseen is not None or not (ended or self.watched_until - c.start_ns >= DEVICE_READ_LIMIT * NS):
            return None
        return False

    @property
    def timers(self) -> Timers:
        """The limits of this device and this server, as far as they are recognised or learnt."""
        recognised = self.conversation.recognised
        return recognised.timers if recognised is not None else Timers()

    @property
    def round_trip(self) -> int:
        """Time (ns) from the device's first SYN until it was connected; 0 where the beginning was not captured."""
        c = self.conversation
        return c.connected.time_ns - c.syns[0].time_ns if c.connected is not None and c.syns else 0

    def closing(self, sender: Sender) -> Closing | None:
        """The first FIN or RST of that end."""
        return next((c for c in self.conversation.closings if c.sender is sender), None)

    @property
    def first_closing(self) -> Closing | None:
        """The first FIN or RST of either end."""
        return self.conversation.first_closing

    @cached_property
    def cut(self) -> bool:
        """Whether the capture kept only the start of packets (snaplen)."""
        return any(hole.reason is HoleReason.CUT for hole in self.conversation.holes)

    @cached_property
    def cap(self) -> Confidence:
        """The most that may be claimed from silences in this conversation."""
        if self.unseen is not None or self.cut:
            return Confidence.LIKELY
        parts = [p for p in (self.nonce, self.identity, self.session) if p is not None]
        return Confidence.STRONG if any(p.missing for p in parts) else Confidence.CERTAIN

    def delivered(self, sender: Sender) -> bool:
        """Whether the other end acknowledged all that this one is known to have sent.

        Where the other end was not captured, data that were not repeated count as delivered.
        """
        side = self.conversation.sides[sender]
        if self.unseen is sender.peer:
            return not side.quality.retransmitted
        return side.acked >= side.sent

    @property
    def ending(self) -> Evidence:
        """How the attempt ended."""
        end = self.first_closing
        if end is None:
            return Evidence(f"The capture {self.stops} before either side closes.")
        how = "cut the connection off" if end.how == "rst" else "closed"
        return Evidence(f"The {end.sender} {how} in {packets([end.packet])}.", (end.packet,))

    @cached_property
    def passed(self) -> tuple[RuledOut, ...]:
        """What a login that got as far as this one excludes."""
        parts = (self.nonce, self.identity, self.session)
        done = [part for part in parts if part is not None and part.complete and part.received]
        ruled = []
        if len(done) > 1:
            whole = done[-1].time_ns - done[0].first_ns
            came = words.RULED_IN_TIME.format(packets=packets([p.packet for p in done]), duration=duration(whole))
            ruled.append(RuledOut("SPK101", came))
        if self.nonce is not None and self.nonce.data is not None:
            ruled.append(RuledOut("SPK103", words.RULED_RANDOM.format(packet=number(self.nonce.packet))))
        return tuple(ruled)

    @property
    def is_spark(self) -> bool:
        """Whether the handshake or frames of this protocol were seen."""
        return self.conversation.kind == "spark"

    @property
    def address(self) -> str:
        """The server as the user would type it."""
        return self.conversation.server.ip

    def not_checked(self, code: str, because: str) -> NotChecked:
        """Say that this finding cannot be judged in this conversation, and why."""
        return NotChecked(code, because, (self.conversation.number,))

    def finding(
        self,
        code: str,
        confidence: Confidence,
        *evidence: Evidence,
        summary: str | None = None,
        because: str = "",
        ruled_out: tuple[RuledOut, ...] = (),
        silence: bool = False,
        severity: Severity | None = None,
        **details: object,
    ) -> Finding:
        """Make a finding about this conversation.

        ``silence`` says that it rests on nothing having come; ``severity`` is given where the harm seen is not the
        usual one.
        """
        spec = FINDINGS[code]
        words = {"server": self.address, "port": self.conversation.server.port, "mac": "", **details}
        return Finding(
            code=code,
            confidence=weaker(confidence, self.cap) if silence else confidence,
            summary=summary or spec.says.format(**words),
            severity=severity or spec.severity,
            evidence=evidence,
            ruled_out=ruled_out,
            settle=(spec.settle,) if spec.settle else (),
            fix=tuple(step.format(**words) if "{" in step else step for step in spec.fix),
            conversations=(self.conversation.number,),
            packets=tuple(sorted({n for item in evidence for n in item.packets})),
            first_ns=self.conversation.start_ns,
            last_ns=self.conversation.start_ns,
            device=self.conversation.device.ip,
            exemplar=self.conversation.number,
            because=because,
            predicate=spec.of.format(**words),
            details=dict(details),
            silence=silence,
        )


class AllFacts(Sequence[Facts]):
    """The facts of all conversations, made when they are asked for: they take more room than what they tell of."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._again = dialled_again(trace)
        self._places = {} if len(trace.conversations) > 1 else {c.number: 0 for c in trace.conversations}

    def of(self, number: int) -> Facts:
        """Return the facts of the conversation with this number."""
        return self[self._places.get(number, number - 1)]

    def __len__(self) -> int:
        return len(self._again)

    @overload
    def __getitem__(self, index: int) -> Facts: ...

    @overload
    def __getitem__(self, index: slice) -> list[Facts]: ...

    def __getitem__(self, index: int | slice) -> Facts | list[Facts]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return Facts(self.trace.conversations[index], self.trace, self._again[index])

    def __iter__(self) -> Iterator[Facts]:
        for c, again in zip(self.trace.conversations, self._again, strict=True):
            yield Facts(c, self.trace, again)


def dialled_again(trace: Trace) -> list[int | None]:
    """When (ns) each conversation's device began its next one with the same server.

    That tells how a conversation ended only where the capture has all that came between them.
    """
    later: dict[tuple[bytes, bytes, int], int] = {}
    times: list[int | None] = []
    for c in reversed(trace.conversations):
        ends = c.device.address, c.server.address, c.server.port
        again = later.get(ends)
        times.append(None if trace.gaps.behind(c, again) else again)
        later[ends] = c.start_ns
    return times[::-1]
