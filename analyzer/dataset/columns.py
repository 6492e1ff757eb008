"""The columns of the three tables, as data: where each stands in the JSON report, its type, what it means.

Names and types are promises, as those of the JSON report are: within a schema, columns are added and never renamed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from analyzer.statistics import STEPS

Type: TypeAlias = "str | list[Type] | dict[str, Type]"
"""One of `TYPES`; a list of one type; a record of named types."""

TEXT: Final = "text"
WORD: Final = "word"
JSON: Final = "json"
BYTES: Final = "bytes"
TIME: Final = "time"
SECONDS: Final = "seconds"
NUMBER: Final = "number"
YES_NO: Final = "yes or no"
UINT16: Final = "uint16"
UINT32: Final = "uint32"
UINT64: Final = "uint64"

TYPES: Final = {
    TEXT: "string",
    WORD: "dictionary(string)",
    JSON: "string of JSON",
    BYTES: "binary",
    TIME: "timestamp[ns, UTC]",
    SECONDS: "float64",
    NUMBER: "float64",
    YES_NO: "bool",
    UINT16: "uint16",
    UINT32: "uint32",
    UINT64: "uint64",
}
"""The simple types, as the documentation of the tables writes them."""

DATE: Final = "date"
"""The column that is the name of a folder."""
NO_DATE: Final = "1970-01-01"
"""The day of what has none, and of a table without rows: a real date, because a column in which one folder has none is
no date to DuckDB and an error to pandas."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. ``path`` is its place in the JSON report, names joined by dots; ``own``: it is not in there."""

    path: str
    type: Type
    says: str
    own: bool = False

    @property
    def name(self) -> str:
        """The column's name: its path, joined by underscores."""
        return self.path.replace(".", "_")


def _sides(path: str, kind: Type, says: str) -> list[Column]:
    """The same of both ends."""
    return [Column(path.format(side), kind, says.format(side)) for side in ("device", "server")]


CONVERSATIONS: Final = (
    Column("number", UINT32, "number of the connection, from 1; `conversation` in messages"),
    Column("device.ip", TEXT, "address of the device"),
    Column("device.port", UINT16, "its TCP port"),
    Column("device.mac", TEXT, "its hardware address; null outside its own network"),
    Column("device.id", TEXT, "its ID; null unless a key or an announcement tells it"),
    Column("server.ip", TEXT, "address of the server"),
    Column("server.port", UINT16, "its TCP port"),
    Column("first_packet", UINT64, "its first packet, as in Wireshark (`frame.number`)"),
    Column("last_packet", UINT64, "its last packet"),
    Column("start", TIME, "time of the first packet"),
    Column("duration_s", SECONDS, "from the first to the last packet"),
    *_sides("packets.{}", UINT64, "packets of the {}"),
    *_sides("bytes.{}", UINT64, "stream bytes of the {} in the capture"),
    Column("kind", WORD, "what is spoken: `spark`, `empty`, `http` and others"),
    Column(
        "reached", WORD, "how far it got: `syn`, `connected`, `nonce`, `identity`, `session`, `hello`, `established`"
    ),
    Column("closed_by", WORD, "the first FIN or RST: `device-fin`, `server-rst`, ..., or `none`"),
    Column("handshake.nonce.packet", UINT64, "packet that completed the greeting"),
    Column("handshake.nonce.time", TIME, "its time"),
    Column("handshake.identity.packet", UINT64, 'packet that completed "who I am"'),
    Column("handshake.identity.time", TIME, "its time"),
    Column("handshake.identity.opened", YES_NO, "whether a key opened it; null when none was tried"),
    Column("handshake.identity.nonce_matches", YES_NO, "whether the greeting's bytes came back in it"),
    Column("handshake.session.packet", UINT64, "packet that completed the server's reply"),
    Column("handshake.session.time", TIME, "its time"),
    Column("handshake.session.opened", YES_NO, "whether a key opened it; null when none was tried"),
    Column("handshake.session.signature", WORD, "`valid`, `invalid`, `not-checked`"),
    *_sides("frames.{}", UINT64, "encrypted messages of the {}"),
    Column("frames.opened", UINT64, "of both, those that a key opened"),
    Column(
        "gaps",
        [{"direction": TEXT, "offset": UINT64, "length": UINT64, "packet": UINT64}],
        "holes in the capture: sender, place in its stream, bytes missing, packet behind",
    ),
    Column(
        "firmware",
        [{"size": UINT64, "sha256": TEXT, "complete": YES_NO, "chunks": UINT64, "missing": [[UINT64]]}],
        "over-the-air updates; `missing` is first byte and byte behind the last",
    ),
    Column("recognised.firmware.name", TEXT, "which firmware the device can have"),
    Column("recognised.firmware.confidence", WORD, "how sure that is"),
    Column("recognised.server.name", TEXT, "which program the server can be"),
    Column("recognised.server.confidence", WORD, "how sure that is"),
    *_sides("statistics.rtt_s.{}.min", SECONDS, "shortest round trip from the capture point to the {}"),
    *_sides("statistics.rtt_s.{}.median", SECONDS, "median of these"),
    Column("statistics.rtt_s.path", SECONDS, "round trip of the whole way"),
    *(Column(f"statistics.steps_s.{step}", SECONDS, "a step of the login, see `--statistics`") for step in STEPS),
    *_sides("statistics.retransmitted.{}.segments", UINT64, "packets with data that the {} sent again"),
    *_sides("statistics.retransmitted.{}.of_segments", UINT64, "of so many"),
    Column("statistics.pings.sent", UINT64, "pings of the device; null when they cannot be told"),
    Column("statistics.pings.answered", UINT64, "of these, answered"),
    Column("statistics.pings.answer_s.median", SECONDS, "median time of the answers"),
    *_sides("statistics.rates.frames_per_minute.{}", NUMBER, "encrypted messages of the {} per minute"),
)
MESSAGES: Final = (
    Column("conversation", UINT32, "number of its conversation: `number` in conversations"),
    Column("index", UINT32, "number of the message in its conversation, from 0"),
    Column("packet", UINT64, "packet that completed it, as in Wireshark (`frame.number`)"),
    Column("time", TIME, "time of that packet"),
    Column("device.ip", TEXT, "address of the conversation's device", own=True),
    Column("device.id", TEXT, "its ID; null when no key tells it", own=True),
    Column("direction", WORD, "who sent it: `device` or `server`"),
    Column("name", WORD, "name of the message: `Event`, `FunctionCall`, ...; null when no row of the table fits"),
    Column("type", WORD, "`CON`, `NON`, `ACK`, `RST`"),
    Column("code", WORD, 'CoAP code: `"2.05"`'),
    Column("message_id", UINT16, "CoAP message ID"),
    Column("token", BYTES, "CoAP token"),
    Column("path", TEXT, "Uri-Path, joined with `/`"),
    Column("query", [BYTES], "Uri-Query options"),
    Column("subject", TEXT, "name of the event, function or variable; prefix of a subscription", own=True),
    Column("value_text", TEXT, "its data, value, argument, return value, or the time; null when it has none", own=True),
    Column("value_number", NUMBER, "the same where it is a number, also one written as text", own=True),
    Column("values", JSON, "all that it says, by name"),
    Column("payload", BYTES, "CoAP payload"),
    Column("plaintext", BYTES, "the whole message as it was encrypted"),
    Column("plaintext_bytes", UINT32, "its length, which stays when the rest is redacted", own=True),
    Column("whole", YES_NO, "false when a hole took its front"),
    Column("missing", UINT32, "bytes that are lost at its front; what was in them is null"),
    Column("answers", UINT32, "`index` of the request that it answers"),
    Column("answer_s", SECONDS, "time from that request to it", own=True),
)
FINDINGS: Final = (
    Column("code", WORD, "`SPK206`: `sparkshark explain` has the page of it"),
    Column("name", WORD, "its name in words"),
    Column("severity", WORD, "`critical`, `major`, `minor`, `info`, `ok`"),
    Column("confidence", WORD, "`certain`, `strong`, `likely`, `hint`"),
    Column("because", TEXT, "on what that rests, where it needs saying"),
    Column("title", TEXT, "headline"),
    Column("summary", TEXT, "the sentence"),
    Column("evidence", [{"text": TEXT, "packets": [UINT64]}], "observations, and the packets that show them"),
    Column("ruled_out", [{"code": TEXT, "because": TEXT}], "look-alikes, and what excludes them"),
    Column("would_settle_it", [TEXT], "what would make it certain"),
    Column("fix", [TEXT], "what to do"),
    Column("wireshark_shows", TEXT, "what Wireshark calls it"),
    Column("led", TEXT, "what the device's LED does"),
    Column("conversations", [UINT32], "numbers of the conversations that show it"),
    Column("packets", [UINT64], "packets that matter"),
    Column("count", UINT64, "attempts that end like this"),
    Column("first_seen", TIME, "when it was first seen"),
    Column("last_seen", TIME, "and last"),
    Column("cadence_s", SECONDS, "median time between the starts of the attempts"),
    Column("device", TEXT, "whose it is: address or ID"),
    Column("caused_by", WORD, "code of another finding that explains it"),
)
COLUMNS: Final = {"conversations": CONVERSATIONS, "messages": MESSAGES, "findings": FINDINGS}
"""The tables by name, in the order in which they are written."""
