"""Pings and updates, told from sizes and times alone."""

from __future__ import annotations

from analyzer.frames import Frame
from analyzer.sessionwatch import SessionWatch
from analyzer.streams import Sender

Told = tuple[float, Sender, int]
D, S = Sender.DEVICE, Sender.SERVER


def watched(*frames: Told) -> SessionWatch:
    """Watch frames told as (seconds, sender, bytes on the wire)."""
    watch = SessionWatch()
    for packet, (seconds, sender, size) in enumerate(frames, 1):
        length = size - 2
        watch.take(
            Frame(sender, packet, 0, length, bytes(length), bytes(16), packet, packet, int(seconds * 1e9), False)
        )
    watch.finish()
    return watch


def chunks(start: float, count: int, size: int = 274, step: float = 0.1) -> list[Told]:
    return [told for n in range(count) for told in ((start + n * step, S, size), (start + n * step + step / 2, D, 18))]


def test_a_ping_comes_after_fifteen_seconds_of_silence_and_is_answered() -> None:
    watch = watched((0, D, 18), (0.1, S, 18), (15.1, D, 18), (15.15, S, 18), (30.2, D, 18), (30.4, S, 18))
    assert (watch.pings, watch.pings_answered, watch.unanswered) == (2, 2, None)
    assert [round(rtt / 1e6) for rtt in watch.ping_rtt_ns] == [50, 200]


def test_a_small_message_in_a_busy_session_is_no_ping() -> None:
    watch = watched((0, S, 18), (8, D, 18), (8.1, S, 18), (16, D, 18))
    assert (watch.pings, watch.unanswered) == (0, None)


def test_a_large_message_is_no_ping() -> None:
    assert watched((0, S, 18), (15.1, D, 50)).pings == 0


def test_the_ping_without_an_answer_stays() -> None:
    unanswered = watched((0, S, 18), (15.1, D, 18)).unanswered
    assert unanswered is not None
    assert unanswered.packet == 2


def test_a_run_of_frames_of_one_chunk_size_is_an_update() -> None:
    update = watched((0, S, 34), (0.1, D, 18), (0.2, D, 18), *chunks(1, 5)).update
    assert update is not None
    assert (update.chunks, update.size, update.begun_packet, update.answered) == (5, 274, 1, 5)


def test_two_events_of_that_size_are_no_update() -> None:
    assert watched(*chunks(1, 2)).update is None


def test_events_of_that_size_once_a_minute_are_no_update() -> None:
    assert watched(*((60.0 * n, S, 274) for n in range(10))).update is None


def test_a_call_long_before_is_no_beginning_of_an_update() -> None:
    update = watched((0, S, 34), *chunks(100, 5)).update
    assert update is not None
    assert update.begun_packet is None


def test_asking_every_three_seconds_is_counted_and_ends_with_the_next_chunk() -> None:
    asked = watched(*chunks(1, 5), (4.4, D, 18), (7.4, D, 18), (10.4, D, 18)).update
    assert asked is not None
    assert asked.asked == 3
    served = watched(*chunks(1, 5), (4.4, D, 18), (4.5, S, 274)).update
    assert served is not None
    assert (served.asked, served.chunks) == (0, 6)


def offers(start: float, count: int = 3, pause: float = 6.0) -> list[Told]:
    """The old server's offers of an update, and the last one, which is shorter."""
    return [(start + n * pause, S, 34) for n in range(count)] + [(start + count * pause, S, 18)]


def test_three_offers_and_a_short_one_at_the_servers_pace_are_offers_of_an_update() -> None:
    watch = watched((0, D, 18), *offers(1), (34, D, 18), (34.1, S, 18))
    assert [packet for packet, _ in watch.offers] == [2, 3, 4, 5]
    assert watched(*offers(1)).offers != ()


def test_what_is_answered_or_has_another_pace_or_number_is_no_offer() -> None:
    assert watched(*offers(1), (19.3, D, 18), (19.4, D, 18)).offers == ()
    assert watched(*offers(1)[:2], (8, D, 18), *offers(1)[2:]).offers == ()
    assert watched(*offers(1)[:2], (8, S, 50), *offers(1)[2:]).offers == ()
    assert watched(*offers(1, pause=5.0)).offers == ()
    assert watched(*offers(1, count=2)).offers == ()
    assert watched(*offers(1, count=4)).offers == ()


def test_the_beginning_of_an_update_is_known_with_its_time() -> None:
    update = watched((0, S, 34), (0.1, D, 18), (0.2, D, 18), *chunks(1, 5)).update
    assert update is not None
    assert update.begun_ns == 0
