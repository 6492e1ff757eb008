"""What one worker found in its share of a capture, and how the parts become one result again.

The whole is the same, to the byte, as if one had done the work alone: conversations are put in the order in which
they began and numbered anew, and what was counted is added up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from analyzer.conversation import Conversation
from analyzer.tracker import Checksums


@dataclass(slots=True)
class Part:
    """The conversations of one share, finished but not judged. ``begun`` are the packets at which they began.

    Those need not be their first: a connection may be told from the one before it only by a later packet.
    """

    conversations: list[Conversation] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    spark_packets: int = 0
    checksums: dict[bytes, Checksums] = field(default_factory=dict)

    def add(self, others: Iterable[Part]) -> None:
        """Take in what the others found. No two parts have conversations of the same device."""
        together = list(zip(self.begun, self.conversations, strict=True))
        for part in others:
            together += zip(part.begun, part.conversations, strict=True)
            self.spark_packets += part.spark_packets
            for sender, count in part.checksums.items():
                self.checksums.setdefault(sender, Checksums(count.since)).add(count)
        together.sort(key=lambda one: one[0])
        self.begun = [at for at, _ in together]
        self.conversations = [conversation for _, conversation in together]
        for number, conversation in enumerate(self.conversations, start=1):
            conversation.number = number

    @property
    def offloaded(self) -> list[tuple[bytes, int, int]]:
        """Senders most of whose checksums are not those of the wire: (address, such packets, others)."""
        return [
            (sender, count.unfinished + count.bad, count.good)
            for sender, count in sorted(self.checksums.items(), key=lambda item: item[1].since)
            if count.unfinished + count.bad > count.good
        ]
