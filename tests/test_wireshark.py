"""The plugin in the real tshark: it must say what the analyzer says, packet by packet, in every pass."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import pytest
from dissected import (
    Item,
    Run,
    differing_values,
    dissect,
    expected_messages,
    expected_statistics,
    listed_statistics,
    messages_of,
)
from wireshark import Tshark, tsharks

from analyzer import KeyRing, analyze
from analyzer.findings import JUDGED_IN_WIRESHARK, Severity
from analyzer.messages import SparkMessage
from analyzer.trace import Trace

CAPTURES: Final = sorted(Path("captures").glob("*.pcap"))
KEYS: Final = Path("captures/keys")
EACH_TSHARK: Final = pytest.mark.parametrize("tshark", tsharks().values(), ids=tsharks().keys())
EACH_CAPTURE: Final = pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.stem)
WITH_AND_WITHOUT_KEYS: Final = pytest.mark.parametrize("keyed", [False, True], ids=["no-keys", "keys"])
TWO_PASSES: Final = "-2"
TOLD: Final = {Severity.CRITICAL, Severity.MAJOR, Severity.MINOR}


@cache
def truth(capture: Path, keyed: bool) -> Trace:
    """What the analyzer says."""
    return analyze(capture, keys=KeyRing.load(str(KEYS)) if keyed else None)


def run(tshark: Tshark, capture: Path, keyed: bool, *options: str) -> Run:
    """What the plugin says."""
    keys = ("-o", "spark.device_key:" + tshark.share(KEYS)) if keyed else ()
    return dissect(tshark, tshark.share(capture), *options, *keys)


@EACH_TSHARK
@EACH_CAPTURE
@WITH_AND_WITHOUT_KEYS
def test_the_plugin_says_what_the_analyzer_says(tshark: Tshark, capture: Path, keyed: bool) -> None:
    trace = truth(capture, keyed)
    one, two = run(tshark, capture, keyed), run(tshark, capture, keyed, TWO_PASSES)
    for done in (one, two):
        assert listed_statistics(done) == expected_statistics(trace)
        messages_are_in_their_packets(done, trace)
        parts_are_in_their_packets(done, trace)
        ids_and_keys_are_told(done, trace)
    assert one.report == two.report
    findings_are_told_in_rows(two, trace)
    # What is known only at the end stands in the last rows of the second pass; all else is drawn alike.
    assert one.codes <= two.codes


def messages_are_in_their_packets(done: Run, trace: Trace) -> None:
    """Every message is in the row of the packet that completed it, with all its values."""
    assert sorted(done.messages) == sorted(expected_messages(trace))
    shown: dict[tuple[str, str, str], list[tuple[int, Item]]] = {}
    for (row, item), key in zip(((r, i) for r, i in done.items if i.get("message")), done.messages, strict=True):
        shown.setdefault(key, []).append((row.number, item))
    late = any(
        side.quality.retransmitted or side.quality.out_of_order
        for c in trace.conversations
        for side in c.sides.values()
    )
    for key, messages in by_content(trace).items():
        for (number, item), message in zip(shown[key], messages, strict=True):
            # A message whose bytes came ahead of others is in the row that filled the hole before it.
            assert number == message.packet or (late and number > message.packet)
            assert not differing_values(item, message), (number, differing_values(item, message))
            assert item.coap == (message.whole and bool(message.plaintext))
            if message.answers_packet is not None and not late:
                assert item.get("answers") == str(message.answers_packet)


def by_content(trace: Trace) -> dict[tuple[str, str, str], list[SparkMessage]]:
    found: dict[tuple[str, str, str], list[SparkMessage]] = {}
    for message in sorted(messages_of(trace), key=lambda one: one.packet):
        found.setdefault((message.direction, message.name or "?", message.plaintext.hex()), []).append(message)
    return found


def parts_are_in_their_packets(done: Run, trace: Trace) -> None:
    """Nonce, identity and session offer stand in the packet that completed each, whole, with what keys tell."""
    got = {
        (row.get("conversation"), item.get("stage"), row.number)
        for row, item in done.items
        if item.get("stage") in {"nonce", "identity", "session"} and "missing in the capture" not in item.text
    }
    expected = {
        (str(c.number), kind, part.packet)
        for c in trace.conversations
        if c.kind != "coap-tcp"
        for kind in ("nonce", "identity", "session")
        if (part := c.part(kind)) is not None and part.complete
    }
    assert got == expected
    for row, item in done.items:
        stage = item.get("stage")
        if stage in {"nonce", "identity", "session"} and item.get(stage):
            conversation = trace.conversations[int(row.get("conversation") or 0) - 1]
            part = conversation.part(stage)
            assert part is not None
            assert part.data is not None
            assert (item.get(stage) or "").replace(":", "") == part.data.hex()
            secrets = conversation.secrets
            if stage == "session" and secrets and secrets.offer:
                assert item.get("signature") == secrets.offer.signature


def ids_and_keys_are_told(done: Run, trace: Trace) -> None:
    """The device's id, and where the key of each opened message came from."""
    for row, item in done.items:
        conversation = trace.conversations[int(row.get("conversation") or 0) - 1]
        if row.get("device_id"):
            assert row.get("device_id") == conversation.device.id
        secrets = conversation.secrets
        if secrets and secrets.key_source:
            by_offer = secrets.offer is not None and bool(secrets.offer.opened)
            if item.get("stage") == "session" if by_offer else item.get("message"):
                assert Path(item.get("key_source") or "").name == Path(secrets.key_source).name
    told = {(row.get("conversation"), row.get("device_id")) for row in done.rows if row.get("device_id")}
    for c in trace.conversations:
        if c.device.id and c.part("identity"):
            assert (str(c.number), c.device.id) in told


def findings_are_told_in_rows(done: Run, trace: Trace) -> None:
    """All findings that matter stand in some row, no other does, as severe and at last as sure as the analyzer's."""
    expected = {
        (f.code, f.severity.value, f.confidence.value)
        for f in trace.findings
        if f.code in JUDGED_IN_WIRESHARK and f.severity in TOLD
    }
    got = {finding for row in done.rows for finding in row.findings if Severity(finding[1]) in TOLD}
    assert expected <= got
    assert {finding[:2] for finding in got} == {finding[:2] for finding in expected}
