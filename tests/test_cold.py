"""Finished conversations that are packed meanwhile are what they were, whoever asks, and take little room."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer import cold
from analyzer.catalogue import GENERATIONS
from analyzer.conversation import Conversation
from analyzer.findings import CONFIDENCE_ORDER
from analyzer.jobs import analyze
from analyzer.keys import KeyRing
from analyzer.recognition.model import Clue, Clues, Recognised, settle
from analyzer.report.jsonreport import json_text
from analyzer.report.style import Style
from analyzer.report.text import text_report
from analyzer.rules import lifetime
from analyzer.rules.facts import AllFacts
from analyzer.seen import Kept, Side
from analyzer.trace import Trace

CAPTURES = sorted(Path("captures").glob("*.pcap*"))
KEYS = Path("captures/keys")


def told(kept: Kept) -> list[object]:
    """All that is kept of a conversation, in a form that can be compared."""
    values = [getattr(kept, field.name) for field in fields(Kept)]
    return [tuple(side_of(value)) if isinstance(value, Side) else value for value in values]


def side_of(side: Side) -> Iterator[object]:
    for field in fields(Side):
        value = getattr(side, field.name)
        yield value.packed() if field.name == "round_trips" else value


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_what_is_packed_comes_back_whole(path: Path) -> None:
    for c in analyze(path).conversations:
        before = told(c.kept)
        assert told(cold.unpacked(cold.packed(c), c.first_packet, c.start_ns)) == before


@pytest.mark.parametrize("keys", [None, KEYS], ids=["alone", "with keys"])
def test_no_report_shows_what_was_packed_meanwhile(keys: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every capture there is, with hardly a conversation that is not packed, and the same reports."""
    ring = KeyRing.load(keys) if keys is not None else None

    def reports() -> list[str]:
        traces = [analyze(path, keys=ring) for path in CAPTURES]
        return ["".join(json_text(trace)) + text_report(trace, "capture", Style()) for trace in traces]

    usual = reports()
    monkeypatch.setattr(cold, "WARM", 1)
    monkeypatch.setattr(cold, "WARM_SESSIONS", 1)
    assert reports() == usual


def test_failed_logins_take_little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt takes what random bytes it has, and some hundred bytes more."""
    monkeypatch.setattr(cold, "WARM", 0)
    conversations = analyze("captures/key-mismatch-retries.pcap").conversations
    assert len(conversations) > 1
    for c in conversations:
        random = sum(len(part.data or b"") for side in c.sides.values() for part in side.parts)
        assert len(cold.packed(c)) < random + 800


def test_a_conversation_travels_packed() -> None:
    conversations = analyze(CAPTURES[0]).conversations
    for c in conversations:
        again: Conversation = pickle.loads(pickle.dumps(c))  # noqa: S301 - just written
        assert told(again.kept) == told(c.kept)
        assert (again.reached, again.device, again.start_ns) == (c.reached, c.device, c.start_ns)


def test_what_is_not_there_is_said_so() -> None:
    """An attribute that no conversation has is no reason to unpack anything."""
    (c, *_) = analyze(CAPTURES[0]).conversations
    c.cool()
    with pytest.raises(AttributeError, match="nonsense"):
        c.nonsense  # type: ignore[attr-defined]  # noqa: B018
    assert c.closed_by in ("device-fin", "device-rst", "server-fin", "server-rst", "none")


# -- clues as they come -------------------------------------------------------------------------------------------

CLUES = st.lists(
    st.builds(
        Clue,
        st.sampled_from(("hello", "pace", "habit")),
        st.sampled_from([frozenset(GENERATIONS[:n]) for n in (1, 2, 4)] + [frozenset(GENERATIONS[2:])]),
        st.sampled_from(CONFIDENCE_ORDER),
        st.text("abc", max_size=2),
        st.just((1,)),
        st.sampled_from((None, "A Core", "A Photon")),
    ),
    max_size=14,
)


@settings(max_examples=400, deadline=None)
@given(CLUES, st.integers(0, 2**32))
def test_clues_that_are_let_go_would_have_changed_nothing(clues: list[Clue], seed: int) -> None:
    """Nor does it matter in which order they come, when they say what their place is."""
    assert settle(clues, GENERATIONS) == settle_all(clues, GENERATIONS)
    places = list(enumerate(clues))
    Random(seed).shuffle(places)
    shuffled = Clues()
    for place, clue in places:
        shuffled.add(clue, place)
    assert settle(shuffled, GENERATIONS) == settle_all(clues, GENERATIONS)


def settle_all(clues: Sequence[Clue], names: Sequence[str]) -> Recognised | None:
    """The same with all clues at hand."""
    every = Clues()
    every._kept = {(place,): [(place, place, clue)] for place, clue in enumerate(clues)}
    every._alike = Counter((clue.kind, clue.fits) for clue in clues)
    return settle(every, names)


# -- sessions by their ends ---------------------------------------------------------------------------------------


def test_one_look_at_each_session_tells_what_several_rules_ask() -> None:
    """Of the capture with two devices, those that came up, under the ends that they have."""
    trace: Trace = analyze("captures/two-devices-background.pcap")
    found = lifetime.by_ends(AllFacts(trace))
    for (device, server, port), sessions in found.items():
        for session in sessions:
            c = trace.conversations[session.place]
            assert (c.device.address, c.server.address, c.server.port) == (device, server, port)
            assert c.reached == "established"
    assert sum(map(len, found.values())) == sum(c.reached == "established" for c in trace.conversations)


def test_what_was_changed_is_packed_anew() -> None:
    """What a redacted report takes out stays out, however many connections are packed meanwhile."""
    (c,) = analyze("captures/wrong-service-http302.pcap").conversations[:1]
    c.cool()
    assert c.server_side.opening
    c.server_side.opening = b"nothing"
    c.has_changed()
    c.cool()
    assert c.server_side.opening == b"nothing"
