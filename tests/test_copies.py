"""One packet captured twice is not a packet sent twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tcp_talk import MS, SECOND, SERVER, Talk

from analyzer.copies import COPIES, COPY_NS, COPY_WITH_ID_NS, Headers
from analyzer.network.units import Segment


def packets(count: int = 2) -> list[Segment]:
    talk = Talk().open()
    for _ in range(count):
        talk.send_frames(SERVER, 1)
    return [segment for segment in talk.segments if segment.length]


@pytest.mark.parametrize(
    ("ip_id", "interface", "later_ns", "copy"),
    [
        (7, 0, COPY_NS + 1, True),
        (7, 0, COPY_WITH_ID_NS, True),
        (7, 0, COPY_WITH_ID_NS + 1, False),
        (7, 1, 60 * SECOND, True),
        (0, 0, COPY_NS, True),
        (0, 0, COPY_NS + 1, False),
        (None, 0, COPY_NS, True),
        (None, 0, 200 * MS, False),
        (None, 1, 25 * MS, True),
        (None, 1, -25 * MS, True),
    ],
)
def test_what_a_copy_is(ip_id: int | None, interface: int, later_ns: int, copy: bool) -> None:
    first = replace(packets()[0], ip_id=ip_id)
    again = replace(first, interface=interface, time_ns=first.time_ns + later_ns, ttl=first.ttl - 1)
    headers = Headers()
    assert not headers.repeats(first)
    assert headers.repeats(again) is copy


@pytest.mark.parametrize("field", ["seq", "ack", "flags", "length", "ip_id"])
def test_a_packet_that_differs_is_none(field: str) -> None:
    first, _ = packets()
    headers = Headers()
    assert not headers.repeats(first)
    assert not headers.repeats(replace(first, **{field: getattr(first, field) ^ 1}))


def test_an_identification_that_never_changes_says_nothing() -> None:
    first, second = (replace(segment, ip_id=1) for segment in packets())
    headers = Headers()
    for segment in (first, second):
        assert not headers.repeats(segment)
    assert not headers.repeats(replace(second, time_ns=second.time_ns + 300 * MS))
    assert headers.repeats(replace(second, time_ns=second.time_ns + 300 * MS + COPY_NS))


def test_the_last_packets_are_remembered_and_no_more() -> None:
    headers = Headers()
    many = packets(3 * COPIES)
    for segment in many:
        assert not headers.repeats(segment)
    assert all(headers.repeats(segment) for segment in many[-COPIES:])
    assert not headers.repeats(many[0])
