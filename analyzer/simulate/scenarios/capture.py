"""The same logins and sessions in captures that miss, repeat or bend something."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from analyzer.simulate import damage, exchanges, messages
from analyzer.simulate.conversation import Conversation
from analyzer.simulate.scenarios.handshake import key_mismatch
from analyzer.simulate.scenarios.registry import scenario
from analyzer.simulate.scenarios.steps import HEALTHY, end_well, healthy_session, repeat, until_offer
from analyzer.simulate.tcp import RETRANSMISSIONS
from analyzer.simulate.wire import IEEE_802_11, Packet
from analyzer.simulate.world import World


def _spoil(world: World, note: str, *steps: Callable[[list[Packet]], list[Packet]]) -> None:
    world.damage.extend(steps)
    world.notes = note


@scenario(
    "mid-session",
    "capture starts too late",
    "SPK701",
    verdict="mid_session",
    say="The capture starts inside a running session: no handshake, so no key can be derived; the "
    "frames can be recognised and counted, not decrypted.",
    near_miss="SPK801",
    story="A healthy session of which the first 2 s are not in the capture.",
)
def _mid_session(world: World) -> None:
    healthy_session(world)
    _spoil(world, "The first 2 s are missing.", partial(damage.start_after, seconds=2.0))


@scenario(
    "missing-syn",
    "only the SYN is missing",
    "SPK001",
    verdict="healthy",
    say=HEALTHY,
    near_miss="SPK104",
    story="A healthy session whose three TCP opening packets are missing; everything from the nonce on is there.",
)
def _missing_syn(world: World) -> None:
    healthy_session(world)
    opening = {"syn", "syn-ack", "ack"}

    def cut(packets: list[Packet]) -> list[Packet]:
        first = next(index for index, packet in enumerate(packets) if packet.label == "nonce")
        unwanted = {index for index in range(first) if packets[index].label in opening}
        return damage.drop_packets(packets, unwanted)

    _spoil(world, "SYN, SYN-ACK and the first ACK are missing.", cut)


@scenario(
    "one-way-device",
    "only the device's packets",
    "SPK702",
    verdict="one_direction",
    say="Only what the device sent was captured; its acknowledgements show that the server did answer.",
    near_miss="SPK104",
    story="A healthy session, captured where only the device's packets pass.",
)
def _one_way_device(world: World) -> None:
    healthy_session(world)
    _spoil(world, "The server's packets are missing.", partial(damage.one_direction, sender="device"))


@scenario(
    "one-way-server",
    "only the server's packets",
    "SPK702",
    verdict="one_direction",
    say="Only what the server sent was captured; its acknowledgements show that the device did answer.",
    near_miss="SPK202",
    story="A healthy session, captured where only the server's packets pass.",
)
def _one_way_server(world: World) -> None:
    healthy_session(world)
    _spoil(world, "The device's packets are missing.", partial(damage.one_direction, sender="server"))


@scenario(
    "gap",
    "packets missing in the file",
    "SPK703",
    verdict="healthy_with_capture_gap",
    say="Healthy session, but the capture lacks packets: the peer acknowledged data that is not in the file. "
    "Decryption goes on after each gap, with the first block of the next frame lost.",
    near_miss="SPK501",
    story="A healthy session; two device frames and one server frame in the middle were not captured.",
)
def _gap(world: World) -> None:
    healthy_session(world)

    def cut(packets: list[Packet]) -> list[Packet]:
        frames = [index for index, packet in enumerate(packets) if packet.label == "frame"]
        device = [index for index in frames if packets[index].sender == "device"]
        server = [index for index in frames if packets[index].sender == "server"]
        return damage.drop_packets(packets, {device[3], device[5], server[4]})

    _spoil(world, "Two device frames and one server frame are missing.", cut)


@scenario(
    "gap-in-handshake",
    "the 384 bytes are missing",
    "SPK703",
    verdict="healthy_with_capture_gap",
    say="The session works, although the 384 bytes are not in the file: the device acknowledged them. "
    "Without them no key opens the session.",
    near_miss="SPK204",
    story="A healthy session; the packet with the 384 bytes was not captured.",
)
def _gap_in_handshake(world: World) -> None:
    healthy_session(world)
    cut = partial(damage.drop, unwanted=lambda packet: packet.label == "offer")
    _spoil(world, "The packet with the 384 bytes is missing.", cut)


@scenario(
    "snaplen",
    "packets cut at 96 bytes",
    "SPK703",
    verdict="cut_packets",
    say="The packets were cut at 96 bytes: sizes and order show a working session, keys can open nothing.",
    near_miss="SPK205",
    story="A healthy session captured with `tcpdump -s 96`.",
)
def _snaplen(world: World) -> None:
    healthy_session(world)
    _spoil(world, "Every packet is cut at 96 bytes.", partial(damage.snaplen, limit=96))


@scenario(
    "snaplen-mismatch",
    "reply not usable, packets cut",
    "SPK206",
    server="legacy",
    verdict="device_key_mismatch",
    say="The packets are cut at 96 bytes, but the sizes show it: after the 384 bytes the device goes silent.",
    near_miss="SPK301",
    story="The key mismatch captured with `tcpdump -s 96`: sizes are known, contents are not.",
)
def _snaplen_mismatch(world: World) -> None:
    key_mismatch(world)
    _spoil(world, "Every packet is cut at 96 bytes.", partial(damage.snaplen, limit=96))


@scenario(
    "short-capture",
    "capture ends too early",
    None,
    verdict="cannot_tell",
    say="The capture ends 2 s after the 384 bytes: too early to say that the device does not answer.",
    near_miss="SPK206",
    story="A login whose capture was stopped 2 s after the 384 bytes, before a slow device could have said hello.",
)
def _short_capture(world: World) -> None:
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    until_offer(c)
    c.tcp.silence(1.9)
    c.outcome("not known")


@scenario(
    "duplicates",
    "each packet twice",
    "SPK704",
    verdict="healthy",
    say=HEALTHY,
    near_miss="SPK505",
    story="A healthy session captured on a bridge: each packet twice, 20 microseconds apart.",
)
def _duplicates(world: World) -> None:
    healthy_session(world)
    _spoil(world, "Each packet is there twice.", damage.duplicate)


@scenario(
    "routed-duplicates",
    "before and after the router",
    "SPK704",
    verdict="healthy",
    say=HEALTHY,
    near_miss="SPK505",
    story="A healthy session captured on all interfaces of a router: each packet twice, the second time "
    "with a TTL one lower.",
)
def _routed_duplicates(world: World) -> None:
    healthy_session(world)
    routed = partial(damage.duplicate, kind="routed", delay=0.00008)
    _spoil(world, "Each packet is there before and after routing.", routed)


@scenario(
    "two-interfaces",
    "two capture points in one file",
    "SPK704",
    verdict="healthy",
    say=HEALTHY,
    near_miss="SPK505",
    story="A healthy session seen at two points 10 ms apart; the copies come in different orders. Only "
    "a pcapng file keeps the two interfaces apart.",
)
def _two_interfaces(world: World) -> None:
    healthy_session(world)
    _spoil(world, "Two capture points, 10 ms apart.", damage.two_interfaces)


@scenario(
    "offload",
    "checksums by the network card",
    "SPK704",
    verdict="healthy",
    say=HEALTHY,
    near_miss="SPK703",
    story="A healthy session captured on the server host, whose network card computes the checksums "
    "later: all of the server's are wrong in the file.",
)
def _offload(world: World) -> None:
    healthy_session(world)
    wrong = partial(damage.offload, sender="server")
    _spoil(world, "The TCP checksums of the server's packets are wrong.", wrong)


@scenario(
    "damaged-copy",
    "bad copies before good ones",
    "SPK704",
    verdict="healthy",
    say=HEALTHY,
    near_miss="SPK501",
    story="A healthy session; before the identity and before each frame comes a copy with a flipped bit "
    "and a checksum that does not match.",
)
def _damaged_copy(world: World) -> None:
    healthy_session(world)
    copies = [partial(damage.damaged_copies, label=label, seed=world.seed) for label in ("identity", "frame")]
    _spoil(world, "Damaged copies come before the good packets.", *copies)


@scenario(
    "lossy",
    "packets lost and sent again",
    "SPK001",
    verdict="healthy",
    say=HEALTHY,
    near_miss="SPK501",
    story="A healthy session over a bad link: the identity and some frames are sent twice or arrive out "
    "of order, one repetition brings new data along.",
)
def _lossy(world: World) -> None:
    device = world.add_device()
    c = Conversation(world, device, at=0.0)
    c.connect()
    c.nonce()
    c.identity(delivered=False)
    c.tcp.retransmit("device", 256, RETRANSMISSIONS[:2], delivered=True)
    c.offer()
    c.tcp.retransmit("server", 384, [0.2], delivered=True)
    c.device_hello()
    c.server_hello()
    exchanges.everyday(c)
    event = messages.server_event(c.dialect, c.next_server_id(), "greet/all", "overlap")
    c.tcp.overlap("server", 11, c.server_cipher.seal(event), after=0.3)
    c.remember("s2c", [event])
    end_well(c)
    world.damage.append(damage.reorder)


@scenario(
    "reply-lost",
    "the 384 bytes never arrive",
    "SPK505",
    verdict="link_lost",
    say="The 384 bytes were sent again and again and never acknowledged: the link to the device is dead.",
    near_miss="SPK206",
    story="The device's radio fails after its 256 bytes: the 384 are retransmitted five times and never "
    "acknowledged; the device comes back with a new connection, and it happens again.",
)
def _reply_lost(world: World) -> None:
    device = world.add_device()

    def story(c: Conversation) -> None:
        c.connect()
        c.nonce()
        c.identity()
        c.offer(delivered=False)
        c.tcp.retransmit("server", 384, (*RETRANSMISSIONS, 4.8))
        c.tcp.silence(10.0)
        c.result(-1)
        c.outcome("radio lost", "connection lost: timed out")

    repeat(world, device, story, default=2)


@scenario(
    "seq-wrap",
    "sequence numbers wrap around",
    "SPK001",
    verdict="healthy",
    say=HEALTHY,
    near_miss="SPK703",
    story="A healthy session whose TCP sequence numbers pass 2^32 within the handshake, on both sides.",
)
def _seq_wrap(world: World) -> None:
    world.isn = (2**32 - 100, 2**32 - 200)
    healthy_session(world)


@scenario(
    "port-reuse",
    "same ports used twice",
    "SPK001",
    verdict="healthy",
    say="Two healthy sessions, one after the other, over the same pair of ports.",
    near_miss="SPK501",
    story="A Core restarts and dials from the port it had before: two healthy sessions with the same "
    "addresses and ports, and other sequence numbers.",
)
def _port_reuse(world: World) -> None:
    device = world.add_device()
    at = 0.0
    for _ in range(2):
        c = Conversation(world, device, at=at, device_port=50123)
        c.handshake()
        exchanges.after_hello(c)
        end_well(c)
        at = c.now + 3.0


@scenario(
    "encrypted-wifi",
    "Wi-Fi frames, still encrypted",
    "SPK705",
    verdict="encrypted_wifi",
    say="Monitor mode: every frame is encrypted by Wi-Fi, no IP packet can be seen.",
    near_miss="SPK101",
    story="A Wi-Fi capture in monitor mode: 60 WPA2 data frames, addresses in clear, contents encrypted.",
)
def _encrypted_wifi(world: World) -> None:
    randomness = world.random("wifi")
    world.link_type = IEEE_802_11
    for number in range(1, 61):
        sealed = randomness.randbytes(randomness.choice((56, 74, 96, 312, 440)))
        frame = world.wire.layers.protected_80211(
            "02:00:00:00:01:68", world.router.mac, "02:00:00:00:00:01", number, sealed
        )
        time = world.wire.nanoseconds(0.11 * number)
        world.wire.packets.append(Packet(time, frame, len(frame), label="wifi"))
