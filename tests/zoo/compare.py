"""Where the analyzer and tshark differ about one capture, and why.

Each packet is compared, and each direction of each TCP conversation byte for byte. Every difference gets a cause, which
is looked for in the capture and not guessed; what has none is "unexplained", and wants somebody who looks.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from analyzer.capture.ledger import LATEST_NS, LATEST_YEAR
from analyzer.network.units import RST, SYN
from analyzer.streams import HALF_SPACE, PENDING_BYTES, SEQUENCE_SPACE, HoleReason
from zoo.ours import Ours, Seen, Talk
from zoo.shark import Address, Followed, Packet, Pieces, Told, joined

UNEXPLAINED: Final = "unexplained"
FLAGS: Final = 0xFFF
NINE_DIGITS: Final = 9


@dataclass(slots=True)
class Verdict:
    """What came of the comparison. ``unexplained`` says where."""

    packets: int = 0
    conversations: int = 0
    directions: int = 0
    identical: int = 0
    bytes: int = 0
    not_followed: int = 0
    packet_causes: Counter[str] = field(default_factory=Counter)
    stream_causes: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)

    def packet(self, number: int, cause: str, told: object = "") -> None:
        """Note a difference about one packet."""
        self.packet_causes[cause] += 1
        if cause == UNEXPLAINED:
            self.unexplained.append(f"packet {number}: {told}")

    def stream(self, number: int, cause: str, told: object = "") -> None:
        """Note a difference about one direction of a conversation."""
        self.stream_causes[cause] += 1
        if cause == UNEXPLAINED:
            self.unexplained.append(f"stream {number}: {told}")


def compare(ours: Ours, told: Told) -> Verdict:
    """Compare all that both say of a capture."""
    verdict = Verdict(packets=len(ours.packets), not_followed=told.not_followed)
    _packets(ours, told, verdict)
    _streams(ours, told, verdict)
    return verdict


# -- packets -------------------------------------------------------------------------------------------------------


def _packets(ours: Ours, told: Told, verdict: Verdict) -> None:
    for number in sorted(ours.packets.keys() | told.packets.keys()):
        seen, shown = ours.packets.get(number), told.packets.get(number)
        if seen is None or shown is None:
            if shown is None and "support" in told.error:
                verdict.packet(number, "tshark does not read this version of the format")
            elif shown is None and "isn't a capture file" in told.error:
                verdict.packet(number, "tshark does not read what is packed like this")
            elif shown is not None and not shown.time and not shown.encapsulation:
                verdict.packet(number, "a record that is no packet: tshark shows it, here it only has a number")
            elif ours.file.damage or told.error:
                verdict.packet(number, "the file is damaged: one reads on where the other stops")
            else:
                verdict.packet(number, UNEXPLAINED, "in tshark alone" if seen is None else "here alone")
            continue
        if not shown.time:
            verdict.packet(number, "a packet without a time, which has that of the one before it here")
        elif _nanoseconds(shown.time) != seen.time_ns:
            verdict.packet(number, _clock(shown, seen), f"{shown.time} there, {seen.time_ns} here")
        if (shown.captured, shown.length) != (seen.captured, seen.length):
            cause = _sizes(shown, seen)
            verdict.packet(number, cause, f"{shown.captured}/{shown.length} there, {seen.captured}/{seen.length} here")
        _segment(number, shown, seen, verdict)


def _nanoseconds(text: str) -> int:
    """Return what tshark prints as a time. It has a sign for each half of a time before 1970."""
    seconds, _, fraction = text.partition(".")
    whole = int(seconds or 0) * 1_000_000_000
    part = int(fraction.lstrip("-").ljust(9, "0"))
    return whole - part if seconds.startswith("-") or fraction.startswith("-") else whole + part


def _clock(shown: Packet, seen: Seen) -> str:
    """Say why two times differ."""
    if seen.time_ns == LATEST_NS < _nanoseconds(shown.time):
        return f"a time beyond the year {LATEST_YEAR}, which is kept to it here"
    if not seen.time_ns and _nanoseconds(shown.time) < 0:
        return "a time before 1970, which is kept to it here"
    if len(shown.time.partition(".")[2]) > NINE_DIGITS:
        return "a fraction of more than four seconds: tshark keeps 32 bits of it"
    apart = abs(_nanoseconds(shown.time) - seen.time_ns)
    if apart and not apart % (1 << 32):
        return "a fraction of more than four seconds: tshark keeps 32 bits of it"
    return "a clock finer than a nanosecond: rounded another way" if apart <= 1 else UNEXPLAINED


def _sizes(shown: Packet, seen: Seen) -> str:
    if shown.captured == seen.captured and shown.length == HALF_SPACE - 1 < seen.length:
        return "a length of more than 2 GiB: tshark takes the largest that it can write"
    if shown.captured == seen.captured and shown.length >= shown.captured > seen.length:
        return "the file says that more was captured than was there: tshark corrects it"
    return UNEXPLAINED


def _segment(number: int, shown: Packet, seen: Seen, verdict: Verdict) -> None:
    if shown.numbers is None:
        if seen.said is not None and not shown.streams:
            verdict.packet(number, UNEXPLAINED, f"TCP here alone: {shown.protocols}")
        elif seen.said is None and shown.streams:
            verdict.packet(number, _there_alone(shown, seen), f"TCP in tshark alone: {shown.protocols}")
        return
    if seen.said is None:
        verdict.packet(number, _there_alone(shown, seen), f"TCP in tshark alone: {shown.protocols}")
        return
    mine = (*seen.said[:2], seen.said[2] & FLAGS, seen.said[3])
    if mine[:3] == shown.numbers[:3] and seen.captured == seen.length and mine[3] > shown.numbers[3]:
        verdict.packet(number, "IP's header says more than the frame has: that counts as cut off here")
    elif mine != shown.numbers:
        verdict.packet(number, UNEXPLAINED, f"{shown.numbers} there, {mine} here: {shown.protocols}")


def _there_alone(shown: Packet, seen: Seen) -> str:
    """Say what is around a TCP segment that was not read here."""
    layers = shown.protocols.split(":")
    around = layers[: layers.index("tcp")] if "tcp" in layers else layers
    if "icmp" in around or "icmpv6" in around:
        return "quoted in an ICMP error: no packet of its own"
    if seen.captured < seen.length:
        return "cut off by the capture within its headers"
    return f"not read here: TCP in {'/'.join(layer for layer in around if layer != 'ethertype')}"


# -- streams -------------------------------------------------------------------------------------------------------


def _streams(ours: Ours, told: Told, verdict: Verdict) -> None:
    of_packet = {number: packet.streams for number, packet in told.packets.items()}
    talks: dict[int, list[Talk]] = {}
    shared: dict[int, set[int]] = {}
    for talk in ours.talks:
        streams = {stream for number in talk.packets for stream in of_packet.get(number, ())[-1:]}
        for stream in streams:
            talks.setdefault(stream, []).append(talk)
            shared.setdefault(stream, set()).update(streams)
    numbers: dict[int, list[int]] = {}
    for number, shown in of_packet.items():
        for stream in shown:
            numbers.setdefault(stream, []).append(number)
    verdict.conversations = len(numbers)
    for stream, followed in sorted(told.streams.items()):
        known = talks.get(stream, [])
        for side in (0, 1):
            theirs = followed.sent[side]
            mine = _sent(known, followed, side)
            verdict.directions += 1
            verdict.bytes += sum(len(piece) for piece in theirs if isinstance(piece, bytes))
            if theirs == mine:
                verdict.identical += 1
                continue
            packets = [(ours.packets[n], told.packets[n]) for n in numbers.get(stream, ()) if n in ours.packets]
            together = sorted(shared.get(stream, ()))
            if len(together) > 1 or len(known) > 1:
                cause = _told_apart(told, talks, together, side)
            else:
                cause = _cause(theirs, mine, known, packets, followed.ends and followed.ends[side])
            shapes = " ".join(_shape(pieces) for pieces in (theirs, mine))
            verdict.stream(stream, cause, f"side {side}: {shapes}")


def _sent(talks: list[Talk], followed: Followed, side: int) -> Pieces:
    """Return what one end of a conversation sent, by the conversations here that it consists of."""
    sent: Pieces = []
    for talk in talks:
        mirrored = followed.ends is not None and followed.ends[0] != talk.ends[0]
        sent += talk.sent[side ^ mirrored]
    return joined(sent)


def _shape(pieces: Pieces) -> str:
    shape = [str(len(piece)) if isinstance(piece, bytes) else f"({piece})" for piece in pieces[:6]]
    return "[" + " ".join(shape) + (" ..." if len(pieces) > 6 else "") + "]"


def _bytes(pieces: Pieces) -> bytes:
    return b"".join(piece for piece in pieces if isinstance(piece, bytes))


def _is_given_up(theirs: Pieces, mine: Pieces) -> bool:
    """Whether ours is the same but for holes with more behind them than waits. tshark may end before us, at something
    missing that nobody acknowledged.
    """
    if len(theirs) != 1 or not isinstance(whole := theirs[0], bytes):
        return False
    offset, first = 0, len(whole)
    for piece in mine:
        if isinstance(piece, bytes):
            if whole[offset : offset + len(piece)] != piece[: max(0, len(whole) - offset)]:
                return False
            offset += len(piece)
        else:
            first = min(first, offset + piece)
            offset += piece
    return offset >= len(whole) and offset - first > PENDING_BYTES


def _begins_late(sender: Address, packets: list[Seen]) -> bool:
    """Whether the first packet of an end was captured before one that it sent earlier."""
    numbers = [seen.said[0] for seen in packets if seen.said and seen.sender == sender and not seen.said[2] & RST]
    return any((number - numbers[0]) % SEQUENCE_SPACE >= HALF_SPACE for number in numbers)


def _refuses_first(sender: Address, packets: list[Seen]) -> bool:
    """Whether the first packet of an end is a reset."""
    return next((bool(seen.said[2] & RST) for seen in packets if seen.said and seen.sender == sender), False)


def _probes_first(sender: Address, packets: list[Seen]) -> bool:
    """Whether an end sends first what is one byte short of its next one: an old connection's keep-alive."""
    said = [seen.said for seen in packets if seen.said and seen.sender == sender]
    following = next((one[0] for one in said if one[3]), None)
    return not said[0][2] & SYN and not said[0][3] and following == (said[0][0] + 1) % SEQUENCE_SPACE


def _told_apart(told: Told, talks: dict[int, list[Talk]], together: list[int], side: int) -> str:
    """Say whether connections between the same ends that are told apart another way have the same bytes in all."""
    followed = [told.streams[stream] for stream in together if stream in told.streams]
    ours = list({id(talk): talk for stream in together for talk in talks[stream]}.values())
    theirs = b"".join(_bytes(one.sent[side]) for one in followed)
    if followed and theirs == _bytes(_sent(ours, followed[0], side)):
        return "one connection after the other between the same ends: told apart another way, the bytes are the same"
    return "one connection after the other between the same ends: told apart another way"


def _cause(
    theirs: Pieces,
    mine: Pieces,
    talks: list[Talk],
    packets: list[tuple[Seen, Packet]],
    sender: Address | None,
) -> str:
    """Say why the bytes of one direction differ."""
    unread = next((_there_alone(shown, seen) for seen, shown in packets if seen.said is None), None)
    if unread is not None:
        return unread
    qualities = [quality for talk in talks for quality in talk.conversation.quality]
    if any(quality.set_aside for quality in qualities):
        return "a segment with a wrong checksum is set aside here"
    if any(quality.mismatches for quality in qualities):
        return "sent again with other bytes: the first copy counts here"
    if any(seen.said and seen.said[2] & RST and seen.said[3] for seen, _ in packets):
        return "a remark in a reset is no part of the stream here"
    holes = [hole for talk in talks for hole in talk.conversation.holes]
    if any(hole.reason is HoleReason.CUT for hole in holes):
        return "cut by the capture: tshark does not tell where"
    beginning = mine[1:] if mine and isinstance(mine[0], int) else mine
    if theirs == beginning:
        return "what is missing at the beginning, tshark does not tell"
    if theirs == mine[: len(theirs)] and isinstance(mine[len(theirs)], int):
        return "tshark keeps to itself what follows upon something missing that nobody acknowledged"
    if theirs == beginning[: len(theirs)] and isinstance(beginning[len(theirs)], int):
        return "tshark keeps to itself what follows upon something missing that nobody acknowledged"
    if sender is not None and not theirs and _probes_first(sender, [seen for seen, _ in packets]):
        return "a keep-alive comes first: tshark waits for the byte before the one that it asks for"
    if sender is not None and _refuses_first(sender, [seen for seen, _ in packets]):
        return "a refusal comes first: tshark counts from its number, which is none of the connection's"
    if sender is not None and _begins_late(sender, [seen for seen, _ in packets]):
        return "captured out of order from the first packet on: tshark begins with that one"
    if _is_given_up(theirs, mine):
        return f"more than {PENDING_BYTES >> 10} KiB came behind something missing: its repeat is not waited for here"
    if _bytes(theirs) == _bytes(mine):
        return "the same bytes; what is missing between them is told another way"
    if any(seen.said and seen.said[2] & SYN and seen.said[3] for seen, _ in packets):
        return "bytes in a SYN"
    return UNEXPLAINED
