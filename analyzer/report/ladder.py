"""The drawing of one connection: who sent what when, who was silent, who closed.

`ladder` makes rows of plain data, of one connection, and `drawing_of` of what a finding looks like; `draw` puts them
between two rails, fitted to a width. Bare acknowledgements and keep-alives are not drawn; what came in several tries or
pieces is one row that says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from analyzer.cells import NARROW, WIDTH, left
from analyzer.conversation import Conversation
from analyzer.findings.model import Act, LadderStep
from analyzer.findings.steps import GREETING, REPLY, WHO_I_AM
from analyzer.handshake import Part
from analyzer.report.story import Mark
from analyzer.seen import FrameSeen
from analyzer.streams import Sender
from analyzer.wording import duration, number, plural, size, span, wrap

NS: Final = 1_000_000_000
SILENCE: Final = NS
"""A pause at least this long, where something was due, is drawn."""
LATE_HELLO: Final = 5 * NS
"""A message that comes this long after the reply is no hello any more."""
INNER: Final = 22
"""Columns between the rails. On a narrow screen the meanings stand there, and take what there is ..."""
WIDEST_INNER: Final = 40
"""... up to this."""
PACKETS: Final = 8
WAITED: Final = 18
NARROW_WAITED: Final = 14
"""Columns up to the end of the packet numbers, and of what was waited."""
WITH_ROWS: Final = 110
"""From this width on there is room for what Wireshark shows, behind a meaning that has so many columns:"""
MEANING: Final = 34
SHOWS: Final = "WIRESHARK SHOWS (IGNORE IT)"
MEANINGS: Final = {"nonce": GREETING.note, "identity": WHO_I_AM.note, "session": REPLY.note}
DRAWN_DEAD: Final = 3


@dataclass(slots=True)
class Row:
    """One row. ``sender`` None: both ends (connected, a run of messages). Of a silence it is the end that is silent,
    None where neither speaks."""

    packets: str
    time_ns: int | None
    label: str
    meaning: str
    sender: Sender | None = None
    closes: bool = False
    silence: bool = False
    waited_ns: int | None = None
    end_ns: int | None = None  # of a row that stands for several packets
    usually: str = ""  # in place of what was waited, where no one connection is drawn

    @property
    def number(self) -> int:
        """The first of the packets, 0 of none."""
        first = self.packets.partition("–")[0].replace(",", "")
        return int(first or 0)


def ladder(c: Conversation) -> list[Row]:
    """Return the rows of one connection, each with the time since the row above."""
    rows = [*_connecting(c), *_login(c), *_messages(c)]
    rows += _closing(c, rows)
    rows.sort(key=lambda row: row.time_ns or 0)
    drawn: list[Row] = []
    before: int | None = None
    for row in rows:
        if before is not None and row.time_ns is not None and not (drawn and row.packets == drawn[-1].packets):
            waited = max(0, row.time_ns - before)
            row.waited_ns = waited or None
            due = _due(c, drawn) if waited >= SILENCE and c.reached != "established" else None
            if due is not None:
                drawn.append(Row("", None, f"silence {duration(waited)}", due[1], due[0], silence=True))
        drawn.append(row)
        before = row.end_ns or row.time_ns or before
    return drawn


def _due(c: Conversation, drawn: list[Row]) -> tuple[Sender, str] | None:
    """Who should have said what in the place of a silence."""
    if any(row.silence for row in drawn):
        return None
    if c.kind not in ("spark", "empty"):
        return None
    labels = {row.meaning.split(":")[0].split(",")[0] for row in drawn}
    if "reply" in labels:
        if "hello" in labels:
            return Sender.SERVER, "no hello back"
        return Sender.DEVICE, "no hello: the login stops here"
    if "who I am" in labels:
        return Sender.SERVER, "no reply"
    if "greeting" in labels:
        return Sender.DEVICE, "no answer to the greeting"
    return (Sender.SERVER, "no greeting") if c.connected is not None else None


def _connecting(c: Conversation) -> list[Row]:
    if not c.syns:
        return []
    first = c.syns[0]
    if c.connected is None or c.syn_ack is None:
        rows = [Row(number(first.packet), first.time_ns, "connect", "asks to connect", Sender.DEVICE)]
        if c.syn_count > 1:
            again = c.syns[1]
            last = c.syns[-1]
            many = plural(c.syn_count - 1, "repeat")
            if c.closings:
                meaning = f"in {duration(last.time_ns - again.time_ns)}"
            else:
                meaning = f"in {duration(last.time_ns - again.time_ns)}, not one answer"
            rows.append(
                Row(span(again.packet, last.packet), again.time_ns, many, meaning, Sender.DEVICE, end_ns=last.time_ns)
            )
        return rows
    tries = f" ({c.syn_count} tries)" if c.syn_count > 1 else ""
    return [
        Row(
            span(first.packet, max(c.connected.packet, first.packet)),
            c.connected.time_ns,
            "connected",
            f"after {duration(c.connected.time_ns - first.time_ns)}{tries}",
        )
    ]


def _login(c: Conversation) -> list[Row]:
    rows: list[Row] = []
    if c.kind not in ("spark", "empty"):
        return _foreign(c)
    for kind in ("nonce", "identity", "session"):
        part = c.part(kind)
        if part is None:
            continue
        early = kind == "session" and not part.complete and _before_answer(c, part)
        meaning = "more than a greeting has" if early else _meaning(part)
        rows.append(Row(_packets(part), part.time_ns, size(part.sent), meaning, part.sender))
    for frame in c.dead_frames[:DRAWN_DEAD]:
        rows.append(Row(number(frame.packet), frame.time_ns, size(frame.size), _dead(frame), frame.sender))
    return rows


def _before_answer(c: Conversation, reply: Part) -> bool:
    """Whether these bytes came before the device had said who it is."""
    identity = c.part("identity")
    return identity is None or reply.time_ns < identity.time_ns


def _packets(part: Part) -> str:
    return span(min(part.first_packet, part.packet), part.packet)


def _meaning(part: Part) -> str:
    text = MEANINGS[part.kind]
    if not part.complete:
        return f"{text.split(',')[0].split(':')[0]}, {size(part.size - part.sent)} short"
    if part.missing:
        return (
            f"{text.split(',')[0].split(':')[0]}, not captured" if not part.received else f"{text.split(',')[0]}, cut"
        )
    if len(part.cuts) > 1:
        return f"{text.split(',')[0].split(':')[0]}, in {len(part.cuts)} packets"
    return text


def _dead(frame: FrameSeen) -> str:
    what = (frame.dead or "").split(" under ")[0]
    return f"{what}, locked with an all-zero key" if "zero" in (frame.dead or "") else f"{what}, locked with an old key"


def _foreign(c: Conversation) -> list[Row]:
    """Another protocol: the first bytes of each end."""
    names = {"http": "a web page", "tls": "TLS (https)", "ssh": "an SSH banner", "coap-tcp": "CoAP over TCP"}
    device, server = (c.sides[sender].first_data for sender in (Sender.DEVICE, Sender.SERVER))
    asked = device is not None and (server is None or device.time_ns < server.time_ns)
    rows = []
    for sender in (Sender.SERVER, Sender.DEVICE):
        side = c.sides[sender]
        if side.first_data is None:
            continue
        name = names.get(c.kind, "text" if sender is Sender.SERVER else "")
        if c.kind == "coap-tcp" or asked:
            meaning = "a request" if c.kind == "http" and sender is Sender.DEVICE else name
        elif sender is Sender.SERVER:
            meaning = f"{name}, not a greeting"
        else:
            meaning = "who I am (sent all the same)" if c.part("identity") else ""
        rows.append(
            Row(number(side.first_data.packet), side.first_data.time_ns, size(side.first_size), meaning, sender)
        )
    return rows


def _messages(c: Conversation) -> list[Row]:
    """Both hellos, and all messages after them in one row."""
    frames = [f for f in c.first_frames if not f.dead]
    if not frames or c.kind != "spark":
        return []
    rows = []
    total = {sender: c.live_frames(sender) for sender in Sender}
    hello = c.hello if c.reached in ("hello", "established") else None
    if hello is not None:
        reply = c.part("session")
        late = reply is not None and c.reached == "hello" and hello.time_ns - reply.time_ns >= LATE_HELLO
        meaning = "a message, too late for a hello" if late else "hello"
        rows.append(Row(number(hello.packet), hello.time_ns, size(hello.size), meaning, Sender.DEVICE))
        total[Sender.DEVICE] -= 1
        answer = c.server_hello
        if answer is not None and answer.index == 0 and c.part("session"):
            rows.append(
                Row(number(answer.packet), answer.time_ns, size(answer.size), "hello back: logged in", Sender.SERVER)
            )
            total[Sender.SERVER] -= 1
    many = sum(total.values())
    rest = [f for f in (*frames, *c.last_frames) if not f.dead and f not in (hello, c.server_hello)]
    if c.part("session") and c.reached == "session":
        odd = frames[0]
        return [Row(number(odd.packet), odd.time_ns, size(odd.size), "a message, but no hello", odd.sender)]
    if not many or not rest:
        return rows
    ordered = sorted(rest, key=lambda f: f.time_ns)
    first, last = ordered[0], ordered[-1]
    unseen = next((end for end in Sender if not c.sides[end].quality.packets), None)
    if unseen is None:
        told = f"{number(total[Sender.DEVICE])} sent, {number(total[Sender.SERVER])} received"
    else:
        told = f"{number(many)} from the {unseen.peer}"
    if last.time_ns > first.time_ns:
        told += f", in {duration(last.time_ns - first.time_ns)}"
    packets = span(min(first.packet, last.packet), max(first.packet, last.packet))
    # On a bad line the first message can overtake the hello; the login is told first all the same.
    begun = max(first.time_ns, *(row.time_ns or 0 for row in rows)) if rows else first.time_ns
    return [*rows, Row(packets, begun, plural(many, "message"), told, end_ns=max(begun, last.time_ns))]


def _closing(c: Conversation, rows: list[Row]) -> list[Row]:
    if not c.closings:
        return []
    end = c.closings[0]
    last = max((row.time_ns or 0 for row in rows), default=c.start_ns)
    if c.last_frames and c.reached == "established":
        last = max(last, c.last_frames[-1].time_ns)
    cut = end.how == "rst"
    if c.connected is None:
        meaning = f"{end.sender} refused"
    elif c.kind not in ("spark", "empty"):
        who = "web server" if c.kind == "http" and end.sender is Sender.SERVER else str(end.sender)
        meaning = f"{who} {'cut the connection off' if cut else 'hung up'}"
    elif c.reached == "established":
        meaning = f"{end.sender} {'cut the connection off' if cut else 'hung up'}"
    else:
        due = _last_turn(c)
        waited = end.time_ns - due if due else 0
        gave_up = waited >= NS
        meaning = (
            f"{end.sender} gave up after {duration(waited)}"
            if gave_up
            else f"{end.sender} {'cut the connection off' if cut else 'hung up'}"
        )
    return [Row(number(end.packet), end.time_ns, "reset" if cut else "close", meaning, end.sender, closes=True)]


def _last_turn(c: Conversation) -> int | None:
    """When the last step of the login was done: what a giving-up is counted from."""
    for kind in ("session", "identity", "nonce"):
        part = c.part(kind)
        if part is not None:
            return part.time_ns
    return c.connected.time_ns if c.connected else None


def drawing_of(steps: Iterable[LadderStep]) -> list[Row]:
    """Return the rows of a finding's own ladder: the same drawing, of no connection in particular. What is not part of
    every such connection stands in brackets."""
    return [_row_of(step) for step in steps]


def _row_of(step: LadderStep) -> Row:
    label = step.label or (_sizes(step.sizes) if step.sizes else str(step.act))
    label = f"({label})" if step.sometimes else label
    row = Row("", None, label, step.note, step.sender, usually=_usual(step.wait))
    row.closes = step.act in (Act.CLOSE, Act.RESET)
    row.silence = step.act in (Act.SILENCE, Act.HOLE)
    return row


def _sizes(sizes: Sequence[int]) -> str:
    """Return ``18 or 34 bytes``; of more than two the least and the largest."""
    ordered = sorted(sizes)
    if len(ordered) > 2:
        return f"{number(ordered[0])} to {size(ordered[-1])}"
    return " or ".join([*map(number, ordered[:-1]), size(ordered[-1])])


def _usual(wait: tuple[float, float] | None) -> str:
    """Return what passes before a step: ``15 s``, ``under 1 s``, ``over 5 s``, ``10–30 s``."""
    if wait is None:
        return ""
    least, most = (f"{seconds:g}" for seconds in wait)
    if wait[0] == wait[1]:
        return f"{least} s"
    if not wait[0]:
        return f"under {most} s"
    return f"over {least} s" if wait[1] == float("inf") else f"{least}–{most} s"


def draw(
    rows: list[Row],
    width: int = WIDTH,
    label: str = f"{'packet':>{PACKETS}}",
    *,
    shows: Mapping[int, str] | None = None,
) -> list[str]:
    """Return the rows as text between two rails; ``label`` stands before the headings.

    ``shows`` is what Wireshark writes about packets by their number: drawn where there is room.
    """
    if width < NARROW:
        return _draw_narrow(rows, width, label.strip())
    heads = [_waited(row) for row in rows]
    lead = max([WAITED, *(len(row.packets) + 1 + len(waited) for row, waited in zip(rows, heads, strict=True))])
    meant = width - lead - INNER - 6
    beside = {row.packets: shows[row.number] for row in rows if shows and row.sender and row.number in shows}
    titles = f"{label}{'waited':>{lead - len(label)}}  DEVICE{'SERVER':>{INNER - 4}}"
    if beside:
        meant = MEANING
        titles += f"{'':{meant + 4}}{SHOWS}"
    lines = [titles]
    behind = width - lead - INNER - 6 - meant - 2
    for row, waited in zip(rows, heads, strict=True):
        packets = f"{row.packets:>{PACKETS}}" if row.packets else ""
        head = f"{packets}{waited:>{lead - len(packets)}}"
        meaning = wrap(row.meaning, meant) or [""]
        shown = wrap(beside[row.packets], behind) if row.packets in beside and row.sender else []
        rail = "┊" if row.silence else "│"
        for index, (more, wireshark) in enumerate(zip_longest(meaning, shown, fillvalue="")):
            front = f"{head}  {_rails(row, INNER)}" if index == 0 else f"{'':{lead + 2}}{rail}{'':{INNER}}{rail}"
            lines.append(f"{front}  {more:<{meant + 2 if wireshark else 0}}{wireshark}".rstrip())
    return lines


def _draw_narrow(rows: list[Row], width: int, label: str) -> list[str]:
    """The same where no meaning fits beside the rails: it stands between them."""
    lead = NARROW_WAITED
    inner = min(WIDEST_INNER, width - lead - 4)
    lines = [f"{label:<6}{'waited':>{lead - 6}}  DEVICE{'SERVER':>{inner - 4}}"]
    for row in rows:
        waited, meaning = _waited(row), wrap(row.meaning, inner - 2)
        rail = "┊" if row.silence else "│"
        packets = f"{row.packets:>6}" if row.packets else ""
        head, later = f"{packets}{waited:>{max(0, lead - len(packets))}}", ""
        if len(packets) + bool(packets) + len(waited) > lead:
            head, later = f"{row.packets:<{lead}}", waited
            if len(head) > lead:
                lines.append(f"{head}  {rail}{'':{inner}}{rail}"[:width].rstrip())
                head = ""
        lines.append(f"{head:<{lead}}  {_rails(row, inner)}")
        for index, text in enumerate(meaning or [""] * bool(later)):
            lines.append(f"{later if index == 0 else '':>{lead}}  {rail} {left(text, inner - 2)} {rail}")
    return lines


def _waited(row: Row) -> str:
    return duration(row.waited_ns) if row.waited_ns is not None else row.usually


def _rails(row: Row, inner: int) -> str:
    if row.silence:
        return f"┊{row.label.center(inner)}┊"
    near, far = "│", "│"
    if row.sender is None:
        near = far = str(Mark.FAILS) if row.closes else "●"
        body = _dashes(f" {row.label} ", inner)
    elif row.sender is Sender.DEVICE:
        body = _dashes(f" {row.label} ", inner - 1) + "▶"
        near = str(Mark.FAILS) if row.closes else near
    else:
        body = "◀" + _dashes(f" {row.label} ", inner - 1)
        far = str(Mark.FAILS) if row.closes else far
    return near + body + far


def _dashes(label: str, width: int) -> str:
    room = max(0, width - len(label))
    return "─" * (room // 2) + label + "─" * (room - room // 2)
