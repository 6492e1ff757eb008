"""The JSON document (schema 1) and its line-by-line form. Names and shapes are promises: extend, never rename."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from analyzer.conversation import Conversation
from analyzer.devices import Device
from analyzer.findings import Finding, NotChecked
from analyzer.handshake import Part
from analyzer.histories import Attempt, History, Outcome, ServerHistory, histories, servers
from analyzer.recognition import Recognised
from analyzer.report.exact import Instant, Written, line, pieces
from analyzer.report.figures import conversation_json, device_json
from analyzer.report.messageline import fields
from analyzer.report.story import in_order
from analyzer.seen import Endpoint
from analyzer.streams import Sender
from analyzer.trace import Trace
from analyzer.version import version

if TYPE_CHECKING:
    from analyzer.messages import SparkMessage
    from analyzer.opened import Secrets

SCHEMA: Final = 1

Json = dict[str, object]


def document(trace: Trace, *, redacted: bool = False, show_secrets: bool = False) -> Json:
    """Return the whole report as data for `exact.pieces`; its lists are generators and can be walked once.

    Each message is a line: so it is read more easily, and written several times as fast.
    """
    digits = trace.time_digits
    return {
        **_head(redacted),
        "captures": captures(trace),
        "conversations": (
            conversation(c, trace, (Written("{" + _fields(m, digits)) for m in c.messages), show_secrets=show_secrets)
            for c in trace.conversations
        ),
        **_population(trace),
        "findings": (finding(f, trace) for f in trace.findings),
        "not_checked": [not_checked(item) for item in trace.not_checked],
    }


def _head(redacted: bool) -> Json:
    head: Json = {"schema": SCHEMA, "version": version()}
    return {**head, "redacted": True} if redacted else head


def json_text(trace: Trace, *, redacted: bool = False, show_secrets: bool = False) -> Iterator[str]:
    """Yield the document as indented JSON, each message on a line."""
    yield from pieces(document(trace, redacted=redacted, show_secrets=show_secrets), indent=1)
    yield "\n"


def json_lines(trace: Trace, *, redacted: bool = False, show_secrets: bool = False) -> Iterator[str]:
    """Yield one line per capture, conversation (with its messages after it), device, server, finding and unmade
    check.
    """
    head = _head(redacted)
    for item in captures(trace):
        yield _line("capture", {**head, **item})
    for c in trace.conversations:
        data = conversation(c, trace, (), show_secrets=show_secrets)
        del data["messages"]  # on lines of their own
        data["protocol"] = data.pop("kind")  # a line's own "kind" says what the line is
        yield _line("conversation", data)
        begin = f'{{"kind": "message", "conversation": {c.number}, '
        for m in c.messages:
            yield f"{begin}{_fields(m, trace.time_digits)}\n"
    for kind, items in _population(trace).items():
        for item in items:
            yield _line(kind.removesuffix("s"), item)
    for f in trace.findings:
        yield _line("finding", finding(f, trace))
    for unmade in trace.not_checked:
        yield _line("not_checked", not_checked(unmade))


def _line(kind: str, data: Json) -> str:
    return line({"kind": kind, **data}) + "\n"


def captures(trace: Trace) -> list[Json]:
    """Return the account of each file."""
    digits = trace.time_digits
    return [
        {
            "path": file.path,
            "format": file.format,
            "packets": file.packets,
            "first_number": file.first_number,
            "bytes": file.bytes,
            "first": _instant(file.first_ns, digits),
            "last": _instant(file.last_ns, digits),
            "damage": [{"offset": d.offset, "packet": d.packet, "what": d.what} for d in file.damage],
        }
        for file in trace.captures
    ]


def conversation(c: Conversation, trace: Trace, messages: Iterable[object], *, show_secrets: bool = False) -> Json:
    """Return one conversation, with its messages in the form given."""
    digits = trace.time_digits
    device, server = c.sides[Sender.DEVICE], c.sides[Sender.SERVER]
    return {
        "number": c.number,
        "device": _endpoint(c.device, full=True),
        "server": _endpoint(c.server, full=False),
        "first_packet": c.first_packet,
        "last_packet": c.last_packet,
        "start": Instant(c.start_ns, digits),
        "duration_s": Instant(c.end_ns - c.start_ns, digits),
        "packets": {"device": device.quality.packets, "server": server.quality.packets},
        "bytes": {"device": device.captured, "server": server.captured},
        "kind": c.kind,
        "reached": c.reached,
        "closed_by": c.closed_by,
        "handshake": _handshake(c, digits, show_secrets=show_secrets),
        "frames": {
            "device": device.frames,
            "server": server.frames,
            "opened": c.secrets.opened if c.secrets is not None else 0,
        },
        "gaps": [
            {"direction": str(h.sender), "offset": h.offset, "length": h.length, "packet": h.packet} for h in c.holes
        ],
        "messages": messages,
        "firmware": _firmware(c),
        "recognised": _recognised(c),
        "statistics": conversation_json(c, digits),
    }


def _recognised(c: Conversation) -> Json:
    """Return who the two ends can be; null for an end of which nothing is known."""
    known = c.recognised
    return {
        "firmware": _candidates(known.firmware) if known is not None and known.firmware is not None else None,
        "server": _candidates(known.server) if known is not None and known.server is not None else None,
    }


def _candidates(found: Recognised) -> Json:
    return {
        "name": found.name,
        "candidates": list(found.candidates),
        "confidence": str(found.confidence),
        "evidence": [{"text": e.text, "packets": list(e.packets)} for e in found.evidence],
    }


def _firmware(c: Conversation) -> list[Json]:
    """Return what each over-the-air update transferred; ``missing`` lists (first byte, byte behind the last)."""
    if c.secrets is None or not c.secrets.gist.count("Chunk"):
        return []
    from analyzer.export.firmware import collect_images  # noqa: PLC0415 - only with keys

    return [
        {
            "size": image.size,
            "sha256": image.sha256,
            "complete": image.complete,
            "chunks": image.chunks,
            "missing": [list(part) for part in image.missing],
        }
        for image in collect_images(c.messages)
    ]


def _endpoint(end: Endpoint, *, full: bool) -> Json:
    data: Json = {"ip": end.ip, "port": end.port}
    if full:
        data |= {"mac": end.mac.hex(":") if end.mac else None, "id": end.id}
    return data


def message(m: SparkMessage, digits: int) -> Json:
    """Return one decrypted message. What a hole took from it is null."""
    return {
        "index": m.index,
        "packet": m.packet,
        "time": Instant(m.time_ns, digits),
        "direction": m.direction,
        "name": m.name,
        "type": m.type,
        "code": m.code,
        "message_id": m.message_id,
        "token": None if m.token is None else m.token.hex(),
        "path": m.path,
        "query": None if m.query is None else [q.hex() for q in m.query],
        "payload": None if m.payload is None else m.payload.hex(),
        "plaintext": m.plaintext.hex(),
        "whole": m.whole,
        "missing": m.missing,
        "answers": m.answers,
        "values": m.values,
    }


def _fields(m: SparkMessage, digits: int) -> str:
    """Return one decrypted message as JSON, without the brace before it."""
    return fields(m, digits) or line(message(m, digits))[1:]


def _handshake(c: Conversation, digits: int, *, show_secrets: bool) -> Json:
    if c.kind not in ("spark", "empty"):
        return {"nonce": None, "identity": None, "session": None}
    nonce, identity, session = (_whole(c.part(kind)) for kind in ("nonce", "identity", "session"))
    return {
        "nonce": nonce and {**_place(nonce, digits), "hex": nonce.data.hex() if nonce.data else None},
        "identity": identity and {**_place(identity, digits), "bytes": identity.sent, **_identity_opened(c.secrets)},
        "session": session
        and {
            **_place(session, digits),
            "bytes": session.sent,
            **_offer_opened(c.secrets, established=c.reached == "established", show_secrets=show_secrets),
        },
    }


def _identity_opened(secrets: Secrets | None) -> Json:
    if secrets is None or not secrets.identity_tried:
        return {"opened": None, "nonce_matches": None}
    found = secrets.identity
    return {"opened": found is not None, "nonce_matches": None if found is None else found.nonce_matches}


def _offer_opened(secrets: Secrets | None, *, established: bool, show_secrets: bool) -> Json:
    offer = secrets.offer if secrets is not None else None
    signature = "not-checked" if offer is None else offer.signature
    if signature == "invalid" and established and offer is not None and offer.signed_by is None:
        signature = "not-checked"  # the device accepted it, so the keys given are those of other servers
    shown = secrets.session_key if secrets is not None and show_secrets else None
    key = shown.blob if shown is not None else None
    return {
        "opened": None if offer is None else offer.opened,
        "signature": signature,
        "key": key.hex() if key is not None else None,
    }


def _whole(part: Part | None) -> Part | None:
    return part if part is not None and part.complete else None


def _place(part: Part, digits: int) -> Json:
    return {"packet": part.packet, "time": Instant(part.time_ns, digits)}


def finding(f: Finding, trace: Trace) -> Json:
    """Return one finding."""
    digits = trace.time_digits
    spec = f.spec
    return {
        "code": f.code,
        "name": spec.name,
        "severity": str(f.severity),
        "confidence": str(f.confidence),
        "because": f.because.lstrip(",: ") or None,
        "title": spec.title,
        "summary": f.summary,
        "evidence": [{"text": e.text, "packets": list(e.packets)} for e in f.evidence],
        "ruled_out": [{"code": r.code, "because": r.because} for r in f.ruled_out],
        "would_settle_it": list(f.settle),
        "fix": list(f.fix),
        "wireshark_shows": f.wireshark_shows,
        "led": spec.led or None,
        "conversations": list(f.conversations),
        "packets": list(f.packets),
        "count": f.count,
        "first_seen": _instant(f.first_ns, digits),
        "last_seen": _instant(f.last_ns, digits),
        "cadence_s": f.cadence_s,
        "device": f.device,
        "caused_by": f.caused_by,
    }


def _population(trace: Trace) -> dict[str, list[Json]]:
    every = histories(trace)
    digits = trace.time_digits
    return {
        "devices": [device(history, digits) for history in every],
        "servers": [server(history, digits) for history in servers(every)],
    }


def device(history: History, digits: int) -> Json:
    """Return what became of one device over the whole capture."""
    own, conversations, pattern = history.device, history.device.conversations, history.pattern
    lead = next(iter(in_order(history.findings)), None)
    return {
        "device": {**_device(own), "ips": own.addresses},
        "state": str(history.course),
        "attempts": len(history.attempts),
        **{str(outcome): history.count(outcome) for outcome in Outcome},
        "first_seen": Instant(conversations[0].start_ns, digits),
        "last_seen": Instant(max(c.end_ns for c in conversations), digits),
        "pattern": pattern
        and {
            "kind": pattern.kind,
            "pauses": pattern.count,
            "first_s": Instant(pattern.first_ns, digits),
            "shortest_s": Instant(pattern.shortest_ns, digits),
            "median_s": Instant(pattern.median_ns, digits),
            "longest_s": Instant(pattern.longest_ns, digits),
        },
        "changes": [
            {
                "after": {"time": Instant(change.before_ns, digits), "packet": change.before_packet},
                "time": Instant(change.time_ns, digits),
                "packet": change.packet,
                "from": str(change.was),
                "to": str(change.became),
                "finding": change.code,
            }
            for change in history.changes
        ],
        "conversations": [c.number for c in conversations],
        "leads": lead.code if lead is not None else None,
        "statistics": device_json(conversations, digits),
    }


def server(history: ServerHistory, digits: int) -> Json:
    """Return how the devices fare that call one server; ``together`` are those that fail for one reason."""
    together = history.together
    return {
        "ip": history.ip,
        "port": history.port,
        "devices": len(history.members),
        "failing": len(history.failing),
        "since": together and _place_of(together.since, digits),
        "together": together
        and {
            "devices": [_device(member.history.device) for member in together.members],
            "finding": together.look,
            "worked_before": together.worked_before,
            "last_success": together.last_success and _place_of(together.last_success, digits),
        },
    }


def _device(own: Device) -> Json:
    return {"ip": own.addresses[-1], "mac": own.mac.hex(":") if own.mac else None, "id": own.id}


def _place_of(attempt: Attempt, digits: int) -> Json:
    return {"time": Instant(attempt.time_ns, digits), "packet": attempt.packet}


def not_checked(item: NotChecked) -> Json:
    """Return one check that could not be made."""
    return {"code": item.code, "because": item.because, "conversations": list(item.conversations)}


def _instant(time_ns: int | None, digits: int) -> Instant | None:
    return None if time_ns is None else Instant(time_ns, digits)
