"""Which firmware and which server: never wrong, whatever the capture lost; and the timers that follow from it."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import NAMES, cut_short, judged, one_direction, shipped, the, truth, unchecked
from keyed import key_folder, play, right_keys, unlock
from test_lua_rules import compare

from analyzer.catalogue import GENERATIONS, PING_AFTER, SERVERS
from analyzer.cli import main
from analyzer.findings import Confidence, Severity
from analyzer.keys import KeyRing
from analyzer.recognition import OTHER, Recognised, Recognition, Timers, described
from analyzer.recognition.model import ANY_SERVER, Clue, settle
from analyzer.recognition.timers import REPEATS, SPREAD, SPREAD_LEAST, repeated
from analyzer.simulate import (
    FIRMWARES,
    SCENARIOS,
    Conversation,
    Packet,
    Simulation,
    SimulationError,
    World,
    damage,
    exchanges,
    finish,
    make_world,
    messages,
    simulate,
)
from analyzer.simulate.scenarios.steps import LEGACY_HELLO_LIMIT, end_well, give_stale_key, until_offer
from analyzer.trace import Trace

CERTAIN, STRONG, LIKELY, HINT = Confidence.CERTAIN, Confidence.STRONG, Confidence.LIKELY, Confidence.HINT
GENERATION_OF = {"core-2014": "G1a", "core-0.5": "G1b", "photon-0.5": "G2a", "photon-1.4": "G2b", "photon-3": "G2d"}
DEVICE_CODE = {"core-communication-lib": "G1a", "device-os v0.5.5": "G2a"}
SERVER_CODE = {"spark-protocol": "legacy", "@brewskey/spark-protocol": "community"}
"""How the truth files of the shipped captures name what played in them."""
ATTEMPTS = 12
"""Logins of a story that repeats them: enough for the pauses between them to tell something."""
FAILED = ("wrong-server-key", "unknown-device", "bad-signature")

Known = Recognition | None


def keys_of(told: Simulation) -> KeyRing:
    with tempfile.TemporaryDirectory() as folder:
        return key_folder(told, Path(folder))


def opened(told: World | Simulation, packets: Sequence[Packet] | None = None) -> Trace:
    """The trace of a story, with all keys."""
    simulation = finish(told) if isinstance(told, World) else told
    return play(simulation, keys_of(simulation) if simulation.keys else None, packets)


def known(trace: Trace, number: int = 1) -> Recognition:
    """What is recognised on a conversation."""
    found = trace.conversations[number - 1].recognised
    assert found is not None
    return found


def firmware(trace: Trace, number: int = 1) -> Recognised:
    found = known(trace, number).firmware
    assert found is not None
    return found


def server(trace: Trace, number: int = 1) -> Recognised:
    found = known(trace, number).server
    assert found is not None
    return found


def is_true(trace: Trace, generation: str, software: str) -> bool:
    """Nothing wrong is said of any conversation, and nothing of a server that is not of this protocol."""
    for c in trace.conversations:
        found = c.recognised
        assert found is not None
        if c.kind not in ("spark", "empty"):
            assert found.server is None
        if found.firmware is not None:
            assert generation in found.firmware.candidates, (c.number, found.firmware)
            assert found.firmware.only in (None, generation)
            assert len(found.firmware.candidates) < len(GENERATIONS)
        if found.server is not None:
            assert software in found.server.candidates, (c.number, found.server)
            assert found.server.only in (None, software)
        for told in (found.firmware, found.server):
            assert told is None or (told.evidence and all(e.text for e in told.evidence))
    return True


# -- the shipped captures -------------------------------------------------------------------------------------------


def told_code(name: str, key: str, table: dict[str, str]) -> str:
    words = truth(name)[key]
    return next((who for start, who in table.items() if words.startswith(start)), OTHER)


RECOGNISED_WITHOUT_KEYS = {
    "key-mismatch-retries": ("G1a", "legacy"),
    "bad-signature": ("G1a", None),
    "no-nonce": ("G1a", None),
}
"""What the shipped captures show for sure without a key; the rest leaves several."""
NOTHING_TO_OPEN = {"port-blocked", "coap-over-tcp", "no-nonce", "mid-session", "wrong-server-key"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("with_keys", [False, True])
def test_nothing_wrong_is_said_of_a_shipped_capture(name: str, with_keys: bool) -> None:
    trace = unlock(shipped(name), right_keys(name) if with_keys else None)
    generation = told_code(name, "device_implementation", DEVICE_CODE)
    assert is_true(trace, generation, told_code(name, "server_implementation", SERVER_CODE))
    wanted, software = RECOGNISED_WITHOUT_KEYS.get(name, (None, None))
    if wanted is not None:
        assert firmware(trace).only == wanted
    if software is not None:
        assert server(trace).only == software
    if with_keys and name not in NOTHING_TO_OPEN:
        assert firmware(trace).only == generation
        assert firmware(trace).confidence is CERTAIN


def test_sessions_that_open_tell_the_server() -> None:
    for name in ("healthy-full", "ota-complete", "capture-gap", "lossy-link", "keepalive-lost"):
        found = server(unlock(shipped(name), right_keys(name)))
        assert (found.only, found.name, found.confidence) == ("legacy", "legacy spark-server", CERTAIN)
    found = server(unlock(shipped("photon-fast-ota"), right_keys("photon-fast-ota")))
    assert (found.only, found.confidence) == ("community", LIKELY)


def test_a_fast_update_tells_both_ends_without_a_key() -> None:
    trace = unlock(shipped("photon-fast-ota"), None)
    assert firmware(trace).candidates == ("G1b", "G2a")
    assert server(trace).candidates == ("community", OTHER)


@pytest.mark.parametrize("name", ["key-mismatch-retries", "photon-fast-ota", "healthy-full", "two-devices-background"])
@pytest.mark.parametrize("limit", [60, 90, 200])
def test_nothing_wrong_is_said_of_a_shipped_capture_that_was_cut(name: str, limit: int) -> None:
    generation = told_code(name, "device_implementation", DEVICE_CODE)
    software = told_code(name, "server_implementation", SERVER_CODE)
    for packets in (
        cut_short(shipped(name), limit),
        *(one_direction(shipped(name), from_server=x) for x in (False, True)),
    ):
        for keys in (None, right_keys(name)):
            assert is_true(unlock(packets, keys), generation, software)


# -- every story, every firmware, every server ----------------------------------------------------------------------


@cache
def story(name: str, device: str, software: str | None, **options: object) -> Simulation | None:
    try:
        return simulate(name, firmware=device, server=software, **options)  # type: ignore[arg-type]
    except SimulationError:
        return None  # these two do not go together


def pairs(name: str) -> Iterator[tuple[str, str, Simulation]]:
    """Every firmware that can play a story, by turns with one server and the other."""
    scenario = SCENARIOS[name]
    for place, device in enumerate(scenario.firmwares, len(name)):
        software = scenario.server or ("legacy" if device == "core-2014" else SERVERS[place % 2])
        told = story(name, device, software, attempts=ATTEMPTS if name == "retries" else None)
        if told is not None:
            yield device, software, told


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_wrong_is_said_of_a_story(name: str) -> None:
    for device, software, told in pairs(name):
        assert is_true(judged(told), GENERATION_OF[device], software)


@pytest.mark.parametrize("name", ["healthy", "key-mismatch", "fixed", "timed-out", "ota-complete", "hello-unanswered"])
def test_with_keys_each_login_that_opens_tells_the_firmware(name: str) -> None:
    for device, software, told in pairs(name):
        trace = opened(told)
        assert is_true(trace, GENERATION_OF[device], software)
        early = device == "core-2014"
        for number in range(1, len(trace.conversations) + 1):
            if trace.conversations[number - 1].reached == "established":
                assert firmware(trace, number).name is not None  # 1.2 to 1.5 is a name for two generations
                assert firmware(trace, number).confidence is CERTAIN
                assert server(trace, number).candidates[0] == software
            else:
                assert ("G1a" in firmware(trace, number).candidates) == early


def spoilt(chance: random.Random, packets: Sequence[Packet]) -> list[Packet]:
    """What a poor capture holds of it."""
    first, last = packets[0].time_ns, packets[-1].time_ns
    moment = chance.randrange(first, last + 1)
    ways: tuple[Callable[[], list[Packet]], ...] = (
        lambda: [p for p in packets if chance.random() > 0.05],
        lambda: [p for p in packets if p.time_ns >= moment],
        lambda: [p for p in packets if p.time_ns <= moment],
        lambda: damage.one_direction(packets, "device"),
        lambda: damage.one_direction(packets, "server"),
        lambda: damage.snaplen(packets, chance.randrange(54, 300)),
        lambda: damage.duplicate(packets),
        lambda: damage.reorder(packets),
        lambda: damage.two_interfaces(packets),
    )
    return chance.choice(ways)()


@pytest.mark.parametrize("seed", range(90))
def test_a_poor_capture_fakes_nothing(seed: int) -> None:
    chance = random.Random(seed)
    name = chance.choice(tuple(SCENARIOS))
    for device, software, told in chance.sample([*pairs(name)], 1):
        packets = spoilt(chance, told.packets)
        keys = keys_of(told) if told.keys and chance.random() < 0.5 else None
        assert is_true(play(told, keys, packets), GENERATION_OF[device], software)


# -- one clue at a time ---------------------------------------------------------------------------------------------


def test_dead_keys_tell_an_early_core_and_when_its_firmware_was_made() -> None:
    for name, words in (("dead-key", "of April 2014 to early 2015"), ("key-mismatch", "of 2013 or early 2014")):
        found = firmware(judged(simulate(name)))
        assert (found.name, found.confidence) == (f"Spark Core with firmware {words}", CERTAIN)
        assert found.evidence[0].packets


def test_a_hole_leaves_open_which_dead_frame_was_the_first() -> None:
    told = simulate("dead-key", attempts=1)
    lost = [p for p in told.packets if p.label == "dead frame"][:2]
    found = firmware(judged(told, [p for p in told.packets if p not in lost]))
    assert found.name == "Spark Core with firmware up to 0.3"


@pytest.mark.parametrize(("device", "left"), [("photon-3", ("G2d",)), ("photon-1.4", GENERATIONS[:-1])])
def test_the_size_of_the_hello_tells_the_latest_from_the_rest(device: str, left: tuple[str, ...]) -> None:
    found = firmware(judged(simulate("healthy", firmware=device)))  # type: ignore[arg-type]
    assert (found.candidates, found.confidence) == (left, STRONG)


@pytest.mark.parametrize(
    ("device", "left"),
    [("core-0.5", {"G1b", "G2a"}), ("photon-1.4", {"G2b", "G2c", "G2d"}), ("core-2014", {"G1a", "G1b", "G2a"})],
)
def test_the_wait_for_the_servers_hello_tells_the_code_base(device: str, left: set[str]) -> None:
    told = simulate("hello-unanswered", firmware=device, server="legacy")  # type: ignore[arg-type]
    assert set(firmware(judged(told)).candidates) == left
    again = [p for p in told.packets if p.label == "device hello"]
    twice = sorted((*told.packets, *again), key=lambda p: p.time_ns)
    trace = judged(told, twice)  # copies of the capture change nothing
    assert set(firmware(trace).candidates) == left


def test_a_message_longer_than_a_core_has_room_for_is_a_photons() -> None:
    for size, left in ((660, ("G2a", "G2b", "G2c")), (770, ("G2a",)), (600, ("G1a", "G1b", "G2a", "G2b", "G2c"))):
        world = make_world(firmware="photon-0.5")
        c = Conversation(world, world.add_device(), at=0.0)
        c.handshake()
        c.device_says(messages.event(c.device.next_message_id(), "long", "x" * size), after=1.0)
        end_well(c)
        assert firmware(judged(world)).candidates == left
    world = make_world(firmware="photon-3")
    c = Conversation(world, world.add_device(), at=0.0)
    c.handshake()
    c.device_says(messages.event(c.device.next_message_id(), "long", "x" * 860), after=1.0)
    end_well(c)
    assert firmware(judged(world)).only == "G2d"


def test_who_announces_itself_is_no_later_photon() -> None:
    trace = judged(simulate("healthy", firmware="photon-0.5"))
    assert firmware(trace).candidates == ("G1a", "G1b", "G2a")
    assert firmware(trace).confidence is STRONG


def test_who_announces_itself_after_a_failed_login_is_an_early_core() -> None:
    world = make_world(server="legacy")
    device = world.add_device()
    give_stale_key(world, device)
    c = Conversation(world, device, at=0.0)
    until_offer(c)
    c.announce()
    c.close("device", after=1.5)
    found = firmware(judged(world))
    assert (found.only, found.confidence) == ("G1a", STRONG)
    packets = finish(world).packets
    early = [p for p in packets if not p.label.startswith("ack")]
    unproved = judged(world, [p for p in early if "fin" not in p.label])
    assert firmware(unproved).candidates == ("G1a", "G1b", "G2a")  # its end is not in the capture


@pytest.mark.parametrize("name", FAILED)
def test_the_pauses_between_failed_logins_tell_early_from_later(name: str) -> None:
    later = judged(simulate(name, firmware="photon-1.4", attempts=ATTEMPTS))
    assert "G1a" not in firmware(later).candidates
    assert firmware(later).confidence is STRONG
    assert "twice as long" in firmware(later).evidence[0].text
    few = judged(simulate(name, firmware="photon-1.4", attempts=6))
    assert known(few).firmware is None
    early = judged(simulate(name, attempts=ATTEMPTS))
    assert firmware(early).only == "G1a"


def test_a_device_that_never_answers_may_restart_each_time() -> None:
    assert known(judged(simulate("device-silent", firmware="core-0.5", attempts=ATTEMPTS))).firmware is None


def test_a_late_first_message_is_one_under_a_key_of_before() -> None:
    trace = judged(simulate("old-session-key"))
    late = firmware(trace, 2)
    assert (late.only, late.confidence) == ("G1a", LIKELY)


@pytest.mark.parametrize(("software", "limit"), [("legacy", "30.0 s"), ("community", "10.1 s")])
def test_a_servers_timer_tells_it_once_it_repeats(software: str, limit: str) -> None:
    device = "photon-0.5"
    trace = judged(simulate("device-silent", firmware=device, server=software, attempts=2))  # type: ignore[arg-type]
    assert (server(trace).only, server(trace).confidence) == (software, LIKELY)
    assert limit in server(trace).evidence[0].text
    trace = judged(simulate("device-silent", firmware=device, server=software, attempts=3))  # type: ignore[arg-type]
    assert server(trace).confidence is STRONG
    once = judged(simulate("device-silent", firmware=device, server=software, attempts=1))  # type: ignore[arg-type]
    found = known(once).server
    assert found is None or found.only is None


def test_a_session_that_is_timed_out_again_and_again_is_the_community_servers() -> None:
    assert server(judged(simulate("timed-out"))).only == "community"


def test_offers_of_an_update_that_nobody_answers_are_the_legacy_servers() -> None:
    assert server(judged(simulate("ota-not-started"))).only == "legacy"


def test_an_update_of_more_than_a_minute_is_not_the_community_servers() -> None:
    world = make_world(firmware="core-0.5", server="legacy")
    c = Conversation(world, world.add_device(), at=0.0)
    c.handshake()
    exchanges.begin_update(c, 40 * 256)
    for _ in range(40):
        exchanges.send_chunk(c, bytes(256), after=1.9)
    exchanges.finish_update(c)
    end_well(c)
    assert server(judged(world)).candidates == ("legacy", OTHER)


def test_messages_tell_the_firmware_where_the_hello_is_not_in_the_capture() -> None:
    for device, left in (
        ("core-2014", ("G1a", "G1b", "G2a")),
        ("photon-0.5", ("G1b", "G2a")),
        ("photon-1.4", ("G1a", "G1b", "G2a", "G2b")),
        ("photon-3", ("G2c", "G2d")),
    ):
        told = simulate("healthy", firmware=device)  # type: ignore[arg-type]
        session_key = bytes.fromhex(told.truth["sessions"][0]["session_key"]["hex"])
        keys = KeyRing.load(session_keys=[session_key.hex()])
        hello = next(p.time_ns for p in told.packets if p.label == "server hello")
        trace = play(told, keys, [p for p in told.packets if p.time_ns > hello])
        assert firmware(trace).candidates == left, device


# -- whose connections they are -------------------------------------------------------------------------------------


def failing(world: World, device: object, at: float) -> Conversation:
    """A login that an early Core cannot finish, with its dead keys."""
    c = Conversation(world, device, at=at)  # type: ignore[arg-type]
    until_offer(c)
    c.dead_ping(at=c.now + 20.0)
    c.close("server", at=c.now + LEGACY_HELLO_LIMIT - 20.0)
    return c


@pytest.mark.parametrize(("address", "shared"), [("192.168.1.104", True), ("203.0.113.9", False)])
def test_a_public_address_may_be_many_devices(address: str, shared: bool) -> None:
    world = make_world(server="legacy")
    world.addresses = {**world.addresses, "device": address}
    device = world.add_device()
    give_stale_key(world, device)
    c = failing(world, device, 0.0)
    healthy = Conversation(world, device, at=c.now + 5.0)
    healthy.connect()
    healthy.nonce()
    healthy.close("device", after=1.0)
    trace = judged(world)
    assert firmware(trace).only == "G1a"
    later = known(trace, 2).firmware
    assert (later is not None) == shared


def test_two_at_once_at_one_address_are_told_apart() -> None:
    world = make_world(server="legacy")
    world.addresses = {**world.addresses, "device": "192.168.1.50"}
    early, late = world.add_device(), world.add_device(FIRMWARES["photon-3"])
    give_stale_key(world, early)
    late.host.identification = 7
    late.next_port = early.next_port + 500
    failing(world, early, 0.0)
    c = Conversation(world, late, at=1.0)
    c.handshake()
    end_well(c)
    trace = judged(world)
    assert {firmware(trace, 1).only, firmware(trace, 2).only} == {"G1a", "G2d"}


def test_after_an_update_the_firmware_may_be_another() -> None:
    world = make_world(firmware="core-0.5", server="legacy")
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.handshake()
    exchanges.update(c, bytes(5 * 256))
    end_well(c)
    again = Conversation(world, device, at=c.now + 20.0)
    again.connect()
    again.nonce()
    again.close("device", after=1.0)
    trace = judged(world)
    assert known(trace, 1).firmware is not None
    assert known(trace, 2).firmware is None


# -- what clues leave -----------------------------------------------------------------------------------------------

CLUES = st.builds(
    Clue,
    kind=st.sampled_from("ab"),
    fits=st.frozensets(st.sampled_from(GENERATIONS), min_size=1),
    confidence=st.sampled_from(Confidence),
    text=st.just("seen"),
    packets=st.just((1,)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(CLUES, max_size=6))
def test_what_is_left_fits_the_surest_clues(clues: list[Clue]) -> None:
    found = settle(clues, GENERATIONS)
    sure = [clue for clue in clues if clue.confidence is CERTAIN]
    if found is None:
        return
    assert 0 < len(found.candidates) < len(GENERATIONS)
    assert all(set(found.candidates) <= clue.fits for clue in sure)
    assert found.confidence is not HINT
    assert (found.name is None) == (len(found.candidates) > 1)


def clue(fits: str, confidence: Confidence, kind: str = "kind") -> Clue:
    return Clue(kind, frozenset(fits.split()), confidence, "seen", (1,))


def test_of_two_that_contradict_the_surer_has_the_word() -> None:
    assert settle([clue("legacy", LIKELY), clue("community", LIKELY)], ANY_SERVER) is None
    found = settle([clue("legacy", LIKELY), clue("community", CERTAIN)], ANY_SERVER)
    assert found is not None
    assert (found.only, found.confidence) == ("community", CERTAIN)


def test_a_hint_counts_when_it_is_repeated() -> None:
    hint = clue("legacy", HINT)
    assert settle([hint], ANY_SERVER) is None
    for times, confidence in ((2, LIKELY), (3, STRONG), (9, STRONG)):
        found = settle([hint] * times, ANY_SERVER)
        assert found is not None
        assert found.confidence is confidence


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 700, allow_nan=False), max_size=12))
def test_a_time_is_learnt_when_it_comes_often_enough(seconds: list[float]) -> None:
    found = repeated(seconds)
    near = [sum(0 <= other - one <= max(SPREAD_LEAST, SPREAD * other) for other in seconds) for one in set(seconds)]
    assert (found is not None) == (max(near, default=0) >= REPEATS)
    assert found is None or found in seconds


def test_candidates_in_words() -> None:
    assert described(("G1b", "G2a")) == "Spark Core with firmware 0.4 to 1.4, or Photon or P1 with firmware 0.4 to 0.7"
    assert described(GENERATIONS) == "Spark Core, or Photon or P1"
    assert described(("G2b", "G2c", "G2d")) == "Photon or P1 with firmware 0.8 or later"
    assert described(("legacy", OTHER)) == "legacy spark-server or another server"


# -- timers ---------------------------------------------------------------------------------------------------------


def gives_up(allowed: float, pauses: Sequence[float]) -> World:
    """A server of its own make gives each login up after ``allowed`` seconds, although the device is only slow."""
    world = make_world(firmware="photon-1.4", server="community")
    device = world.add_device()
    at = 0.0
    for pause in pauses:
        c = Conversation(world, device, at=at)
        c.connect()
        began = c.now
        c.nonce()
        c.identity(after=pause)
        c.tcp.acknowledge("server")
        c.close("server", at=began + allowed)
        at = c.now + 400.0
    return world


def test_an_unknown_servers_limit_for_a_login_is_learnt() -> None:
    trace = judged(gives_up(15.0, (6.0, 8.0, 10.5)))
    assert known(trace).server is None or server(trace).only is None
    assert known(trace).timers.learnt == pytest.approx((15.0,), abs=0.2)
    found = the(trace, "SPK209")
    assert found.severity is Severity.MAJOR
    assert "allows 15 s" in found.summary
    assert any("on other connections, too" in item.text for item in found.evidence)


@pytest.mark.parametrize("pauses", [(6.0, 8.0), (6.0, 6.0, 6.0)])
def test_a_time_is_not_learnt_from_two_or_where_it_may_be_another_timer(pauses: Sequence[float]) -> None:
    trace = judged(gives_up(15.0, pauses))
    assert known(trace).timers.learnt == ()
    assert "SPK209" not in {f.code for f in trace.findings}


def silent(times: int, limit: float) -> World:
    """Sessions of an early Core on the legacy server that end, by the server's close, after one silence."""
    world = make_world(server="legacy")
    device = world.add_device()
    at = 0.0
    for number in range(times):
        c = Conversation(world, device, at=at)
        c.handshake()
        exchanges.after_hello(c)
        quiet = c.now
        c.tcp.keepalive("server", at=quiet + PING_AFTER)
        c.close("server", at=quiet + limit + 7.0 * number)
        at = c.now + 1.0
    return world


def test_a_server_without_an_idle_limit_is_not_said_to_have_had_one() -> None:
    world = silent(1, 31.0)
    assert the(judged(world), "SPK504")  # it may be the community server's
    trace = opened(world)
    assert server(trace).only == "legacy"
    assert known(trace).timers.idle == ()
    assert not [f for f in trace.findings if f.code == "SPK504"]


def test_an_unknown_servers_limit_for_an_update_is_learnt() -> None:
    def updates(times: int) -> World:
        world = make_world(firmware="core-0.5", server="community")
        device = world.add_device()
        at = 0.0
        for number in range(times):
            c = Conversation(world, device, at=at)
            c.handshake()
            began = c.now + 0.5
            exchanges.begin_update(c, 90 * 256)
            while c.now + 1.5 < began + 40.0:
                exchanges.send_chunk(c, bytes(256), after=1.0 + 0.1 * number)
            c.close("server", at=began + 40.0)
            at = c.now + 700.0
        return world

    trace = judged(updates(3))
    assert known(trace).timers.update[-1] == pytest.approx(40.0, abs=0.3)
    found = the(trace, "SPK603")
    assert any("On other connections, too" in item.text for item in found.evidence)
    assert "SPK603" not in {f.code for f in judged(updates(2)).findings}


@pytest.mark.parametrize(("stays", "said"), [(2.6, False), (4.0, True)])
def test_a_device_that_leaves_before_its_wait_is_over_left_for_another_reason(stays: float, said: bool) -> None:
    world = make_world(firmware="photon-1.4", server="legacy")
    c = Conversation(world, world.add_device(), at=0.0)
    until_offer(c)
    c.device_hello()
    c.close("device", at=c.now + stays)
    trace = opened(world)
    assert known(trace).timers.hello_wait == 4.0
    assert ("SPK208" in {f.code for f in trace.findings}) == said
    assert ("SPK208" in unchecked(trace)) != said
    compare(trace, "lua52")  # the plugin knows as much from the hello


def test_of_a_known_pair_only_its_own_timers_count() -> None:
    timers = known(opened(simulate("healthy", firmware="photon-0.5", server="legacy"))).timers
    assert (timers.login, timers.idle, timers.update, timers.hello_wait) == ((120.0,), (), (600.0,), 2.0)
    timers = known(opened(simulate("healthy", firmware="photon-3", server="community"))).timers
    assert (timers.login, timers.idle, timers.update, timers.hello_wait) == ((10.0,), (31.0,), (60.0,), 4.0)
    assert known(judged(simulate("healthy"))).timers == Timers()


# -- what is printed ------------------------------------------------------------------------------------------------


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    main(["analyze", *words])
    return capsys.readouterr().out


def test_the_reports_tell_who_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(__file__).parent.parent / "captures"
    capture = str(folder / "key-mismatch-retries.pcap")
    text = " ".join(printed(capsys, capture).split())
    assert "Recognised Spark Core with firmware of 2013 or early 2014 (certain, packets 12, 39). Legacy" in text
    assert "- Recognised: Spark Core" in printed(capsys, capture, "--format", "markdown")
    document = json.loads(printed(capsys, capture, "--format", "json"))
    told = document["conversations"][0]["recognised"]
    assert told["firmware"]["candidates"] == ["G1a"]
    assert told["firmware"]["confidence"] == "certain"
    assert told["server"]["name"] == "legacy spark-server"
    assert told["server"]["evidence"][0]["packets"]


def test_the_reports_are_silent_where_little_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    capture = str(Path(__file__).parent.parent / "captures" / "healthy-full.pcap")
    assert "Recognised" not in printed(capsys, capture)
    document = json.loads(printed(capsys, capture, "--format", "json"))
    told = document["conversations"][0]["recognised"]
    assert told["server"] is None
    assert (told["firmware"]["name"], told["firmware"]["candidates"]) == (None, [*GENERATIONS[:-1]])
