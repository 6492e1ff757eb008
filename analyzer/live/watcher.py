"""Follows a capture that is still going on, and tells what happens and what can be said by now.

What can be said is what the rules say if the capture ended at this moment. Only conversations of which something came
are judged, a moment later so that a handshake is told in one line, and those for which a time limit has run out. A
finding is told when it first holds, when it becomes surer, and when it does not hold any more.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from analyzer.capture import Packet
from analyzer.catalogue import SPARK_PORT
from analyzer.conversation import Conversation
from analyzer.expected import ExpectedServer
from analyzer.findings import BAD, CONFIDENCE_ORDER, CONFIDENCE_WORDS, SEVERITY_ORDER, Confidence, Finding, Severity
from analyzer.live.due import due, too_soon
from analyzer.live.event import Event, Kind
from analyzer.live.steps import Step, steps
from analyzer.pipeline import Analysis
from analyzer.report.story import CANNOT_TELL, STEP_NAMES, Mark
from analyzer.report.verdict import stories_of
from analyzer.rules import judge
from analyzer.trace import Trace
from analyzer.wording import duration, moment, plural

if TYPE_CHECKING:
    from analyzer.decryption import OpenedMessage
    from analyzer.keys import KeyRing
    from analyzer.messages import MessageReader

SETTLE_NS: Final = 200_000_000
"""A login is looked at this long after a packet: what belongs together has come by then, on most links."""
SESSION_NS: Final = 2_000_000_000
"""A session is looked at once in this time while packets come; what matters in it has limits of 10 s and more."""
INCOMPLETE_NS: Final = 3_000_000_000
"""As long as packets are missing before others that have come, nothing is concluded, but for this long at most: a
repeat comes within 1 to 3 s. (What is not in the capture is waited for as long by TCP itself.)"""
TOGETHER: Final = 6
"""Connections of one device that are judged together: enough to see that it restarts, or is always cut off."""
KEPT: Final = 20_000
"""Connections that are kept for the final report. At some 10 kB each, which a failed login or a session with few
messages takes, these are 200 MB, and a week of a device that tries every 30 s."""
LET_GO: Final = 20
"""The part of them, a twentieth, that is let go when there are too many: each time costs a walk through all."""
SILENT_NS: Final = 600_000_000_000
"""Nothing is let go of which something was heard within this time: living devices ping after 15 s."""
MESSAGES: Final = 2_000_000
"""Messages that are kept for the final report (some 18 bytes each); beyond it those of the oldest connections go."""
UNTOLD: Final = ("SPK001", "SPK401", "SPK704")
"""That it works is told as a step, and how Wireshark shows it is of no interest while it happens."""
WAITS: Final = ("SPK702", "SPK703")
"""What a packet that is under way would undo: told only when the next look finds it again."""

Tell = Callable[[Event], None]


@dataclass(slots=True)
class _Followed:
    """A conversation while its packets come."""

    conversation: Conversation
    attempt: int
    due_ns: int | None = None
    looked_ns: int | None = None
    heard_ns: int = 0
    logged_in: bool = False
    closed: bool = False
    told: set[str] = field(default_factory=set)
    said: dict[str, Finding] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    reader: MessageReader | None = None
    seen: Conversation | None = None  # as if it had ended behind its last packet


@dataclass(slots=True)
class DeviceNow:
    """What is known of one device by now, for its line in the summary."""

    address: str
    attempts: int = 0
    worked: int = 0
    state: str = ""
    told: str = ""  # the state that was told last
    mark: Mark = Mark.UNKNOWN
    sentence: str = ""
    code: str | None = None
    step: str = ""
    live: bool = False
    heard_ns: int = 0
    recent: deque[Conversation] = field(default_factory=lambda: deque(maxlen=TOGETHER))
    remarks: set[str] = field(default_factory=set)


class Watcher:
    """Takes packets one by one and tells events. Times are those of the packets (ns).

    ``tell`` gets each event as it becomes known. With ``messages``, those that the keys open are events, too.
    """

    def __init__(
        self,
        tell: Tell,
        *,
        keys: KeyRing | None = None,
        ports: Iterable[int] = (SPARK_PORT,),
        expect_servers: Iterable[str | ExpectedServer] = (),
        messages: bool = False,
        kept: int = KEPT,
        messages_kept: int = MESSAGES,
    ) -> None:
        """``kept`` and ``messages_kept`` bound what the final report is made of."""
        self._tell = tell
        self._messages = messages
        self._kept, self._messages_kept = kept, messages_kept
        self.analysis = Analysis(keys=keys, ports=ports, expect_servers=expect_servers, live=self)
        self.devices: dict[bytes, DeviceNow] = {}
        """In the order in which they appeared."""
        self.met: Callable[[Conversation], None] | None = None
        """Told of each new conversation, before anything else is told of it."""
        self._followed: dict[int, _Followed] = {}
        self._agenda: list[tuple[int, int]] = []  # a heap: when to look, at which conversation
        self._now = 0
        self.silent_ns: int | None = None
        """How long (ns) nothing came in the end, when the verdict rests on that."""
        self._number = 0
        self._opened = 0
        self._unread: list[tuple[Conversation, OpenedMessage]] = []
        self._giving_up = False  # conversations are ended by us, not by what came
        self.forgotten = 0
        """Connections that are not in the final report."""
        self.behind = False
        """Set while packets come faster than they are judged: then only what comes is told, not what does not."""

    @property
    def trace(self) -> Trace:
        """What is known so far, not judged."""
        return self.analysis.trace

    # -- packets and time ---------------------------------------------------------------------------------------

    def take(self, packet: Packet) -> None:
        """Take the next packet; what was due before it is told first."""
        self.advance(packet.time_ns)
        self._number = packet.number
        self.analysis.take(packet)
        if self._unread:
            self._tell_messages()

    def advance(self, now_ns: int) -> None:
        """Look at everything that is due by now. A time before the latest one changes nothing."""
        agenda = self._agenda
        while agenda and agenda[0][0] <= now_ns:
            due_ns, number = heapq.heappop(agenda)
            followed = self._followed.get(number)
            if followed is not None and followed.due_ns == due_ns:
                self._now = max(self._now, due_ns)
                if self.behind:
                    self._put(followed, due_ns + SESSION_NS)
                else:
                    self._look(followed)
        self._now = max(self._now, now_ns)

    @property
    def due_ns(self) -> int | None:
        """When something is due next, None when nothing is."""
        while self._agenda:
            due_ns, number = self._agenda[0]
            followed = self._followed.get(number)
            if followed is not None and followed.due_ns == due_ns:
                return due_ns
            heapq.heappop(self._agenda)
        return None

    def finish(self) -> Trace:
        """Tell what is still to tell, and return the verdict. Nothing can be taken after that.

        It is the verdict of `analyze` on the packets, unless a silence behind the last of them was told: then that
        counts, and `silent_ns` says how long it was.
        """
        for followed in list(self._followed.values()):
            if followed.due_ns is not None and followed.due_ns - self._now <= SETTLE_NS:
                self._look(followed)
        told = {
            (finding.code, number)
            for number, followed in self._followed.items()
            for finding in followed.said.values()
            if finding.severity in BAD
        }
        self._giving_up = True
        trace = self.analysis.finish()
        last_ns = trace.last_ns or 0
        if self._now > last_ns and told - {(f.code, number) for f in trace.findings for number in f.conversations}:
            self.silent_ns = self._now - last_ns
            trace.last_ns = self._now
            judge(trace)
        return trace

    # -- what the analysis tells --------------------------------------------------------------------------------

    def heard(self, conversations: list[Conversation]) -> None:
        """Plan a look at the conversation that the last packet belongs to."""
        for c in conversations:
            if c.last_packet != self._number:
                continue
            followed = self._followed.get(c.number) or self._follow(c)
            followed.heard_ns, followed.seen = max(self._now, c.end_ns), None
            fast = not followed.logged_in or bool(c.closings) != followed.closed
            at = followed.heard_ns + SETTLE_NS
            if not fast and followed.looked_ns is not None:
                at = max(at, followed.looked_ns + SESSION_NS)
            if followed.due_ns is None or followed.due_ns > at:
                self._put(followed, at)

    def ended(self, conversation: Conversation) -> None:
        """Look at a conversation for the last time: it is let go."""
        followed = self._followed.get(conversation.number)
        unchanged = followed is not None and followed.seen is not None and followed.due_ns is None
        if followed is not None and not unchanged and not self._giving_up:
            self._look(followed)
        self._followed.pop(conversation.number, None)

    def opened(self, c: Conversation, message: OpenedMessage) -> None:
        """Tell of a message that was opened."""
        self._opened += 1
        if self._opened > self._messages_kept:
            self._drop_messages()
        if self._messages:
            self._unread.append((c, message))

    def _tell_messages(self) -> None:
        """Tell of the messages of the last packet, behind the steps that led to them."""
        unread, self._unread = self._unread, []
        for c, message in unread:
            followed = self._followed.get(c.number) or self._follow(c)
            if not followed.logged_in and not c.finished:
                self._look(followed)
            self._tell(self._message(followed, message))

    def _message(self, followed: _Followed, opened: OpenedMessage) -> Event:
        from analyzer.messages import MessageReader, label  # noqa: PLC0415 - only with keys

        c = followed.conversation
        if followed.reader is None:
            key = c.secrets.session_key if c.secrets is not None else None
            followed.reader = MessageReader(key.salt if key is not None else None)
        message = followed.reader.read(*opened)
        return Event(
            Kind.MESSAGE,
            message.time_ns,
            label(message),
            c.device.ip,
            c.number,
            followed.attempt,
            packets=(message.packet, message.packet),
            details={"message": message},
        )

    # -- looking ------------------------------------------------------------------------------------------------

    def _follow(self, c: Conversation) -> _Followed:
        device = self.devices.get(c.device.address)
        if device is None:
            device = self.devices[c.device.address] = DeviceNow(c.device.ip)
        device.attempts += 1
        if len(device.recent) == TOGETHER and (oldest := self._followed.get(device.recent[0].number)) is not None:
            oldest.seen = None  # it will not be looked at together with others any more
        device.recent.append(c)
        followed = self._followed[c.number] = _Followed(c, device.attempts)
        if self.met is not None:
            self.met(c)
        if len(self.trace.conversations) > self._kept:
            self._forget()
        return followed

    def _put(self, followed: _Followed, at: int) -> None:
        followed.due_ns = at
        heapq.heappush(self._agenda, (at, followed.conversation.number))

    def _look(self, followed: _Followed) -> None:
        """Tell what is new of one conversation, and of the others of its device."""
        now, c = self._now, followed.conversation
        followed.due_ns, followed.looked_ns, followed.closed = None, now, bool(c.closings)
        device = self.devices[c.device.address]
        together = {earlier.number: earlier for earlier in (*device.recent, c)}
        trace, found = self.analysis.so_far([self._seen(together[n]) for n in sorted(together)], now)
        by_number = {seen.number: seen for seen in trace.conversations}
        seen = by_number[c.number]
        for number, other_seen in by_number.items():
            if (other := self._followed.get(number)) is not None:
                self._tell_steps(other, steps(other_seen, usual_port=SPARK_PORT, now_ns=now))
        if not followed.logged_in and seen.reached == "established":
            followed.logged_in = True
            device.worked += 1
        if c.incomplete and now - followed.heard_ns < INCOMPLETE_NS and not c.closings:
            self._put(followed, now + SETTLE_NS)
            return
        own: dict[int, list[Finding]] = {}
        for finding in found:
            for number in finding.conversations:
                if number in by_number and too_soon(finding.code, by_number[number], now):
                    continue
                own.setdefault(number, []).append(finding)
        for number in by_number:
            other = self._followed.get(number)
            if other is not None:
                self._tell_findings(other, own.get(number, []), device, final=other.conversation.finished)
        self._tell_state(device, trace, by_number[max(by_number)])
        again = None if c.finished else due(seen, now)
        if followed.waiting and not c.finished:
            again = min(again or now + INCOMPLETE_NS, now + INCOMPLETE_NS)
        if again is not None and (followed.due_ns is None or followed.due_ns > again):
            self._put(followed, again)

    def _seen(self, c: Conversation) -> Conversation:
        """Return a conversation as if it had ended; what nothing came of since then need not be made again."""
        followed = self._followed.get(c.number)
        if followed is None:
            return self.analysis.as_if_ended(c)
        if followed.seen is None or c.finished:
            followed.seen = self.analysis.as_if_ended(c)
        return followed.seen

    def _tell_steps(self, followed: _Followed, made: list[Step]) -> None:
        c, new = followed.conversation, [step for step in made if step.name not in followed.told]
        if not new:
            return
        begins = not followed.told
        followed.told.update(step.name for step in new)
        first, last = new[0], new[-1]
        text = ", ".join(step.text for step in new)
        took = last.time_ns - first.time_ns
        if len(new) > 1 and not last.long and took > 0:
            text += f" in {duration(took)}"
        self._tell(
            Event(
                Kind.STEP,
                last.time_ns,
                f"attempt {followed.attempt}: {text}" if begins else text,
                c.device.ip,
                c.number,
                followed.attempt,
                steps=tuple(step.name.split(" ")[0] if not step.long else step.name for step in new),
                packets=(min(s.packets[0] for s in new), max(s.packets[1] for s in new)),
            )
        )

    def _tell_findings(self, followed: _Followed, found: list[Finding], device: DeviceNow, *, final: bool) -> None:
        now: dict[str, Finding] = {}
        for finding in sorted(found, key=lambda f: f.rank):
            if finding.code not in UNTOLD:
                now.setdefault(finding.code, finding)
        for code, finding in now.items():
            before = followed.said.get(code)
            if before is None and code in WAITS and not final and code not in followed.waiting:
                followed.waiting.add(code)
                continue
            grave = finding.severity in BAD
            if before is not None:
                raised = _surer(finding.confidence, before.confidence) or _graver(finding.severity, before.severity)
                followed.said[code] = finding
                if raised and grave:
                    self._tell(self._verdict(Kind.RAISED, followed, finding))
                continue
            followed.said[code] = finding
            if not grave and code in device.remarks:
                continue  # of the same device it was told already
            device.remarks.add(code)
            self._tell(self._verdict(Kind.VERDICT, followed, finding))
        followed.waiting &= now.keys() - followed.said.keys()
        for code in [code for code in followed.said if code not in now]:
            gone = followed.said.pop(code)
            if gone.severity in BAD:
                self._tell(self._verdict(Kind.WITHDRAWN, followed, gone))

    def _verdict(self, kind: Kind, followed: _Followed, finding: Finding) -> Event:
        c, sure = followed.conversation, CONFIDENCE_WORDS[finding.confidence]
        again = kind is Kind.VERDICT and any(
            other.predicate == finding.predicate and other is not finding for other in followed.said.values()
        )
        text = {
            Kind.VERDICT: f"{sure}{' now' if again else ''}: {finding.predicate}",
            Kind.RAISED: f"{sure} now: {finding.predicate}",
            Kind.WITHDRAWN: f"Withdrawn: {finding.predicate}",
        }[kind]
        return Event(
            kind,
            self._now,
            text,
            c.device.ip,
            c.number,
            followed.attempt,
            packets=(finding.packets[0], finding.packets[-1]) if finding.packets else None,
            code=finding.code,
            confidence=finding.confidence,
            severity=finding.severity,
            mark=Mark.FAILS if finding.severity in BAD else Mark.WARNS,
            details={"summary": finding.summary},
        )

    def _tell_state(self, device: DeviceNow, trace: Trace, seen: Conversation) -> None:
        story = next(story for story in stories_of(trace) if seen in story.conversations)
        device.step = STEP_NAMES[seen.reached]
        device.live, device.heard_ns = not seen.closings, seen.end_ns
        device.sentence = story.sentence
        device.code = story.lead.code if story.lead is not None and story.mark is not Mark.UNKNOWN else None
        if story.mark is Mark.WORKS and seen.reached != "established":
            # That the attempt before worked says nothing of this one; nor does what was said of it any more.
            device.state, device.mark = "", Mark.UNKNOWN
            return
        if story.state == CANNOT_TELL and device.state:
            return  # an attempt that has begun says nothing yet against what is known
        device.state, device.mark = story.state, story.mark
        if story.state not in (CANNOT_TELL, device.told):
            device.told = story.state
            self._tell(
                Event(
                    Kind.STATE,
                    self._now,
                    story.sentence,
                    device.address,
                    seen.number,
                    device.attempts,
                    code=device.code,
                    state=story.state,
                    mark=story.mark,
                )
            )

    # -- bounds -------------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        self._giving_up = True
        gone = self.analysis.forget(max(1, self._kept // LET_GO), self._now - SILENT_NS)
        self._giving_up = False
        if not gone:
            return
        held = {c.number for c in self.trace.conversations}
        for number in [number for number in self._followed if number not in held]:
            del self._followed[number]
        for device in self.devices.values():
            for old in [c for c in device.recent if c.number not in held]:
                device.recent.remove(old)
        needed = {followed.conversation.device.address for followed in self._followed.values()}
        for address in [a for a, device in self.devices.items() if not device.recent and a not in needed]:
            del self.devices[address]
        if not self.forgotten:
            self.notice(
                f"more than {plural(self._kept, 'connection')} since watching began: the oldest are let go and will"
                " not be in the final report."
            )
        self.forgotten += gone

    def _drop_messages(self) -> None:
        """Let go of the messages of the older half of the connections that have any."""
        keeping = [c for c in self.trace.conversations if c.messages]
        for c in keeping[: max(1, len(keeping) // 2)]:
            self._opened -= len(c.messages)
            c.messages.let_go()  # type: ignore[attr-defined]  # a log, since there are keys
        self.notice(
            f"more than {plural(self._messages_kept, 'message')} since watching began: those of the oldest connections"
            " will not be listed in the final report."
        )

    def notice(self, text: str) -> None:
        """Tell something about the watching itself."""
        self._tell(Event(Kind.NOTICE, self._now, text))

    @property
    def warnings(self) -> list[str]:
        """What the final report cannot know of."""
        if not self.forgotten:
            return []
        first = self.trace.conversations[0].start_ns if self.trace.conversations else self._now
        return [
            f"the first {plural(self.forgotten, 'connection')}, those before {moment(first)}, are not in this report:"
            f" watching keeps {plural(self._kept, 'connection')}."
        ]


def _surer(one: Confidence, other: Confidence) -> bool:
    return CONFIDENCE_ORDER.index(one) < CONFIDENCE_ORDER.index(other)


def _graver(one: Severity, other: Severity) -> bool:
    return SEVERITY_ORDER.index(one) < SEVERITY_ORDER.index(other)
