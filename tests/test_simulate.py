"""Simulated captures: the same bytes each time, TCP that is right, and cryptography that opens with the keys."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from analyzer.simulate import (
    FIRMWARES,
    LINK_TYPES,
    SCENARIOS,
    Conversation,
    Packet,
    Simulation,
    SimulationError,
    damage,
    exchanges,
    finish,
    make_world,
    messages,
    simulate,
)
from analyzer.simulate.keys import make_key
from analyzer.simulate.messages import Dialect, FirmwareName
from analyzer.simulate.simulation import pcap
from analyzer.simulate.wire import Link

PAIRS: list[tuple[FirmwareName, Dialect]] = [
    ("core-2014", "legacy"),
    ("core-0.5", "community"),
    ("core-0.5", "legacy"),
    ("photon-0.5", "community"),
    ("photon-1.4", "community"),
    ("photon-1.4", "legacy"),
    ("photon-3", "community"),
]
WRONG_CHECKSUMS = {"offload", "damaged-copy"}
PAYLOADS = ["tcp.port==5683", "tcp.port==8000", "udp.port==5683", "udp.port==5684"]


def tshark(path: Path, *options: str) -> list[str]:
    """Lines that tshark prints; the device protocol counts as plain data, which tshark would misread."""
    plain = [part for payload in PAYLOADS for part in ("-d", f"{payload},echo")]
    checked = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
    command = ["tshark", "-r", str(path), *checked, *plain, *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def tcp_fields(packet: Packet) -> tuple[int, int, int, str, bytes]:
    """Sequence and acknowledgement number, window, flags, payload; IPv4 without options, written out by hand."""
    header = packet.data[packet.network :]
    segment = header[20 : int.from_bytes(header[2:4], "big")]
    flags = "".join(name for bit, name in enumerate("FSRPA") if segment[13] >> bit & 1)
    return (
        int.from_bytes(segment[4:8], "big"),
        int.from_bytes(segment[8:12], "big"),
        int.from_bytes(segment[14:16], "big"),
        flags,
        segment[4 * (segment[12] >> 4) :],
    )


def is_tcp(packet: Packet) -> bool:
    return packet.sender != ""


def stream(packets: Iterable[Packet], sender: str) -> bytes:
    """The bytes of one sender, in order; for captures without repetitions."""
    return b"".join(tcp_fields(packet)[4] for packet in packets if packet.sender == sender)


def when(simulation: Simulation, sender: str, label: str) -> list[float]:
    """Times of the packets of one kind, in seconds from the first packet on."""
    first = simulation.packets[0].time_ns
    return [
        (packet.time_ns - first) / 1e9
        for packet in simulation.packets
        if (packet.sender, packet.label) == (sender, label)
    ]


def raw_rsa(value: bytes, exponent: int, modulus: int) -> bytes:
    return pow(int.from_bytes(value, "big"), exponent, modulus).to_bytes(len(value), "big")


def private(simulation: Simulation, name: str) -> rsa.RSAPrivateNumbers:
    key = load_pem_private_key(simulation.keys[f"{name}.pem"], None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key.private_numbers()


def opened(sealed: bytes, key: rsa.RSAPrivateNumbers) -> bytes:
    block = raw_rsa(sealed, key.d, key.public_numbers.n)
    assert block[:2] == b"\x00\x02"
    return block[2:].split(b"\x00", 1)[1]


def decrypted(data: bytes, key: bytes, iv: bytes) -> list[str]:
    """All frames of one direction, block by block with AES alone: the chain is the one of the reference."""
    aes = Cipher(algorithms.AES128(key), modes.ECB()).decryptor()  # noqa: S305 - one block at a time
    plain: list[str] = []
    while data:
        length = int.from_bytes(data[:2], "big")
        ciphertext, data = data[2 : 2 + length], data[2 + length :]
        assert len(ciphertext) == length
        assert length % 16 == 0
        text, previous = b"", iv
        for offset in range(0, length, 16):
            block = ciphertext[offset : offset + 16]
            text += bytes(a ^ b for a, b in zip(aes.update(block), previous, strict=True))
            previous = block
        iv = ciphertext[:16]
        assert text.endswith(bytes([text[-1]]) * text[-1])
        plain.append(text[: -text[-1]].hex())
    return plain


def digest(simulation: Simulation) -> str:
    parts = [simulation.capture(), json.dumps(simulation.truth).encode(), *map(bytes, simulation.keys.values())]
    return hashlib.sha256(b"".join(parts)).hexdigest()


# -- the table ---------------------------------------------------------------------------------------------


def test_listing_needs_no_scapy() -> None:
    code = "import sys, analyzer.simulate as s; assert s.SCENARIOS; print('scapy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", SCENARIOS)
def test_table_says_what_to_report_and_what_not(name: str) -> None:
    scenario = SCENARIOS[name]
    assert scenario.name == name
    assert len(scenario.title) <= 30
    for code in (scenario.code, scenario.without_keys, scenario.near_miss):
        assert code is None or re.fullmatch(r"SPK\d{3}", code)
    assert scenario.near_miss not in {scenario.code, scenario.without_keys}
    assert scenario.story.endswith(".")
    assert scenario.say.endswith(".")


def test_names_of_real_captures_keep_their_verdict() -> None:
    captures = Path(__file__).parent.parent / "captures"
    shared = [name for name in SCENARIOS if (captures / f"{name}.truth.json").exists()]
    assert {"keepalive-lost", "port-blocked", "wrong-server-key"} <= set(shared)
    for name in shared:
        truth = json.loads((captures / f"{name}.truth.json").read_text())
        assert SCENARIOS[name].verdict == truth["correct_analysis"]["verdict"]


@pytest.mark.parametrize(
    "options",
    [
        {"name": "no-such-story"},
        {"name": "healthy", "firmware": "core-1.0"},
        {"name": "healthy", "server": "production"},
        {"name": "healthy", "link": "token-ring"},
        {"name": "healthy", "attempts": 0},
        {"name": "healthy", "rtt": -1.0},
        {"name": "healthy", "firmware": "core-2014", "server": "community"},
        {"name": "dead-key", "firmware": "photon-3"},
    ],
)
def test_wrong_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(SimulationError):
        simulate(**options)


# -- the same bytes ----------------------------------------------------------------------------------------

REPEATED = [("healthy", "core-2014"), ("key-mismatch", "photon-1.4"), ("damaged-copy", "photon-3")]


def test_same_seed_same_bytes_also_in_another_process() -> None:
    here = [digest(simulate(name, firmware=firmware)) for name, firmware in REPEATED]  # type: ignore[arg-type]
    assert here == [digest(simulate(name, firmware=firmware)) for name, firmware in REPEATED]  # type: ignore[arg-type]
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from test_simulate import REPEATED, digest, simulate\n"
        "print(*(digest(simulate(name, firmware=firmware)) for name, firmware in REPEATED))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "PYTHONHASHSEED": "4711"},
    )
    assert done.stdout.split() == here


def test_another_seed_is_another_capture() -> None:
    one, two = simulate("unknown-device"), simulate("unknown-device", seed=2)
    assert one.truth["sessions"][0]["nonce"] != two.truth["sessions"][0]["nonce"]
    assert one.keys["server.pem"] != two.keys["server.pem"]
    assert two.packets[0].time_ns - one.packets[0].time_ns == 1_000_000_000


@pytest.mark.parametrize(("bits", "public"), [(1024, 162), (2048, 294)])
def test_keys_are_what_devices_and_servers_use(bits: int, public: int) -> None:
    key = make_key(5, "any", bits)
    assert key.n.bit_length() == bits
    assert len(key.public_der()) == public
    for read in (load_der_private_key(key.private_der(), None), load_pem_private_key(key.private_pem(), None)):
        assert isinstance(read, rsa.RSAPrivateKey)
        assert read.private_numbers().d == key.d
    for shown in (load_der_public_key(key.public_der()), load_pem_public_key(key.public_pem())):
        assert isinstance(shown, rsa.RSAPublicKey)
        assert shown.public_numbers().n == key.n
    if bits == 1024:
        assert 605 <= len(key.private_der()) <= 611


# -- the network -------------------------------------------------------------------------------------------


def test_every_scenario_is_sound_down_to_tcp(tmp_path: Path) -> None:
    """All scenarios in one file for one run of tshark; which one a packet is from is told by its number."""
    owners: list[str] = []
    everything: list[Packet] = []
    for name in SCENARIOS:
        simulation = simulate(name, attempts=5 if name == "retries" else None)
        if simulation.link_type != 1 or name in WRONG_CHECKSUMS:
            continue
        owners += [name] * len(simulation.packets)
        everything += simulation.packets
    assert len(set(owners)) > 70
    path = tmp_path / "all.pcap"
    path.write_bytes(pcap(everything, 1))
    wrong = "_ws.malformed or ip.checksum.status == 0 or tcp.checksum.status == 0 or udp.checksum.status == 0"
    lines = tshark(path, "-Y", wrong, "-T", "fields", "-e", "frame.number")
    assert {owners[int(line) - 1] for line in lines} == set()
    assert len(tshark(path, "-T", "fields", "-e", "frame.number")) == len(everything)


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_healthy_tcp_has_nothing_to_remark(firmware: FirmwareName, tmp_path: Path) -> None:
    path = tmp_path / "healthy.pcap"
    simulate("healthy", firmware=firmware).write(path)
    remarked = "tcp.analysis.flags or _ws.malformed or tcp.flags.fin == 1"
    fields = ("-T", "fields", "-e", "tcp.flags.fin", "-e", "tcp.analysis.flags", "-e", "_ws.malformed")
    assert tshark(path, "-Y", remarked, *fields) == ["1\t\t", "1\t\t"]


@pytest.mark.parametrize("link", LINK_TYPES)
def test_every_link_type_is_read(link: Link, tmp_path: Path) -> None:
    path = tmp_path / f"{link}.pcap"
    simulation = simulate("healthy", link=link)
    simulation.write(path)
    wanted = ("tcp.port", "tcp.analysis.flags", "_ws.malformed", "tcp.checksum.status")
    rows = [line.split("\t") for line in tshark(path, "-T", "fields", *(x for f in wanted for x in ("-e", f)))]
    sessions = [row for row in rows if row[0]]
    assert len(sessions) == sum(is_tcp(packet) for packet in simulation.packets)
    assert {tuple(row[1:]) for row in sessions} == {("", "", "1")}


@pytest.mark.parametrize("isn", [(2**32 - 20, 2**32 - 30), (2**32 - 300, 2**32 - 60)])
def test_sequence_numbers_wrap(isn: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "wrap.pcap"
    simulation = simulate("healthy", isn=isn)
    simulation.write(path)
    assert tshark(path, "-Y", "tcp.analysis.flags") == []
    syn = next(packet for packet in simulation.packets if packet.label == "syn")
    assert tcp_fields(syn)[0] == isn[0]


def test_nothing_is_acknowledged_before_it_can_have_arrived() -> None:
    """Half a round trip each way: an acknowledgement of the server comes a whole one after the data."""
    simulation = simulate("ota-complete", rtt=0.2)
    sent: list[tuple[int, int]] = []
    for packet in filter(is_tcp, simulation.packets):
        seq, ack, _, flags, payload = tcp_fields(packet)
        if packet.sender == "device":
            sent.append((packet.time_ns, (seq + len(payload) + ("S" in flags) + ("F" in flags)) % 2**32))
        else:
            reached = [end for time, end in sent if time <= packet.time_ns - 197_000_000]
            assert ack in reached


def test_addresses_numbers_and_hops() -> None:
    simulation = simulate("healthy")
    session = simulation.truth["sessions"][0]
    device = [p for p in simulation.packets if p.sender == "device"]
    server = [p for p in simulation.packets if p.sender == "server"]
    assert session["client"]["ip"] == "192.168.1.104"
    assert {p.data[p.network + 8] for p in device} == {64}
    assert {p.data[p.network + 8] for p in server} == {52}
    numbers = [int.from_bytes(p.data[p.network + 4 : p.network + 6], "big") for p in server]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


# -- the protocol ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("firmware", "server"), PAIRS)
@pytest.mark.parametrize("name", ["healthy", "ota-chunk-again"])
def test_everything_opens_with_the_keys(name: str, firmware: FirmwareName, server: Dialect) -> None:
    simulation = simulate(name, firmware=firmware, server=server)
    session = simulation.truth["sessions"][0]
    to_server, to_device = (stream(simulation.packets, sender) for sender in ("device", "server"))
    server_key, device_key = private(simulation, "server"), private(simulation, session["device"])

    assert to_device[:40].hex() == session["nonce"]
    identity = opened(to_server[:256], server_key)
    assert identity[:52].hex() == session["nonce"] + session["device_id"]
    shown = identity[52:]
    assert shown == (simulation.keys[f"{session['device']}.pub.der"] if FIRMWARES[firmware].key_in_identity else b"")

    blob = opened(to_device[40:168], device_key)
    assert blob.hex() == session["session_key"]["hex"]
    signed = raw_rsa(to_device[168:424], 65537, server_key.public_numbers.n)
    proof = hmac.new(blob, to_device[40:168], hashlib.sha1).digest()
    assert signed == b"\x00\x01" + b"\xff" * 233 + b"\x00" + proof

    for data, direction in ((to_server[256:], "c2s"), (to_device[424:], "s2c")):
        said = [message["hex"] for message in session[direction]]
        assert decrypted(data, blob[:16], blob[16:32]) == said
        assert len(said) == session["counts"][direction] >= 10


@pytest.mark.parametrize("firmware", FIRMWARES)
def test_hello_and_counters_tell_the_generation(firmware: FirmwareName) -> None:
    session = simulate("healthy", firmware=firmware).truth["sessions"][0]
    said = [bytes.fromhex(message["hex"]) for message in session["c2s"]]
    seed = bytes.fromhex(session["session_key"]["salt"])[:2]
    order = "little" if firmware in {"photon-1.4", "photon-3"} else "big"
    first = (int.from_bytes(seed, order) + 1) % 65536  # type: ignore[arg-type]
    assert int.from_bytes(said[0][2:4], "big") == first
    assert len(said[0]) == {"core-2014": 13, "photon-3": 27}.get(firmware, 15)
    own = [int.from_bytes(message[2:4], "big") for message in said if message[0] & 0x30 != 0x20]
    assert own == [(first + step) % 65536 for step in range(len(own))]


def test_messages_are_those_of_real_implementations() -> None:
    """Byte strings recorded from the firmware's and the servers' own code."""
    said = {
        messages.device_hello(FIRMWARES["core-0.5"], 0x0102): "50020102b168ff0000ffff00000000",
        messages.device_hello(FIRMWARES["photon-0.5"], 0x80D7): "500280d7b168ff0006ffff00000006",
        messages.server_hello("legacy", 0xBCA7): "5102bca701b168",
        messages.server_hello("community", 0x5632): "50025632b168",
        messages.server_ack("legacy", 0x4151): "6100415100",
        messages.event_ack("legacy", 0x4154, "temp"): "6180415400",
        messages.event_ack("community", 0x80E0, "temp"): "600080e0",
        messages.subscribe(0x4152, "alarm", mine=True): "40014152b16505616c61726d4175",
        messages.event(0x4155, "status", "ok", ttl=3600, private=True): "50024155b1450673746174757333000e10ff6f6b",
        messages.event(0x4159, "spark/cc3000-patch-version", "1.29", private=True): (
            "50024159b1450d0d737061726b2f6363333030302d70617463682d76657273696f6eff312e3239"
        ),
        messages.server_event("legacy", 0xBCB4, "greet/all", "hi"): "5002bcb4b16505677265657403616c6c313cff6869",
        messages.variable_request(0xBCAA, 4, "count"): "4101bcaa04b17605636f756e74",
        messages.function_call(0xBCB0, 10, "led", "on"): "4102bcb00ab166036c6564426f6e",
        messages.function_call(0xBCB3, 13, "slow", "x" * 13): "4102bcb30db16604736c6f774d00" + "78" * 13,
        messages.function_return(0x415A, 10, 3002): "5144415a0aff00000bba",
        messages.signal(0xBCB6, 14, on=True): "4103bcb60eb1734101",
        messages.time_request(0x4158, 0xD2): "41014158d2b174",
        messages.update_begin("legacy", 0x0861, 3, chunk_size=256, length=62000): (
            "4102086103b175ff0001000000f2300000000000"
        ),
        messages.chunk_missed(0xECEE, (30,)): "4001eceeb163ff001e",
        messages.update_done(0x0955, 0xF7): "41030955f7b175",
        messages.goodbye(0x0001): "50020001b178d0eaff00",
    }
    assert {built.hex() for built in said} == set(said.values())


def test_healthy_first_frames_are_the_published_vectors() -> None:
    world = make_world()
    c = Conversation(world, world.add_device(), at=0.0)
    c.blob = bytes(range(16)) + bytes.fromhex("f0e1d2c3b4a5968778695a4b3c2d1e0f123456789abcdef0")
    c.server_cipher.key, c.server_cipher.iv = c.blob[:16], c.blob[16:32]
    c.server_message_id = 0x7000
    c.handshake()
    exchanges.ask_time(c)
    packets = finish(world).packets
    assert stream(packets, "device")[256:].hex() == (
        "0010cc231d3967b7a54d41fbb58ced3ce10b001031097041b6fcf5b0b276d43ba9d62f34"
    )
    assert stream(packets, "server")[424:442].hex() == "0010629d8159e52c2b24a99094f3fbb1752f"


def test_dead_frames_are_the_known_constants() -> None:
    def dead(name: str) -> list[str]:
        packets = simulate(name, firmware="core-2014").packets
        return [tcp_fields(packet)[4].hex()[4:36] for packet in packets if packet.label == "dead frame"]

    only_pings = ["d495951e50f38d7362594d4bb629a0e8", "01fb0e34619d150275e283ca6cd37d05"]
    assert dead("key-mismatch") == only_pings
    assert dead("no-nonce-ping") == only_pings
    assert dead("dead-key")[:3] == [
        "b2ff31c80a941ca33849da8343f3851b",
        "7e198d66d6f2edf244bf90b8881ae055",
        "bf67a3148a010f2bc3b7e0321d3b39ea",
    ]


def test_dead_frame_under_the_key_of_the_session_before() -> None:
    simulation = simulate("old-session-key")
    before, after = simulation.truth["sessions"]
    key = bytes.fromhex(before["session_key"]["hex"])
    frames = [p for p in simulation.packets if p.sender == "device" and p.label not in {"identity", "ack"}]
    data = b"".join(tcp_fields(packet)[4] for packet in frames)
    said = [message["hex"] for message in before["c2s"] + after["c2s"]]
    assert decrypted(data, key[:16], key[16:32]) == said


def test_key_mismatch_cannot_be_opened_by_the_device() -> None:
    for firmware in FIRMWARES:
        simulation = simulate("key-mismatch", firmware=firmware)
        name = simulation.truth["sessions"][0]["device"]
        key = private(simulation, name)
        offers = [tcp_fields(p)[4] for p in simulation.packets if p.label == "offer"]
        assert len(offers) == 3
        for offer in offers:
            assert raw_rsa(offer[:128], key.d, key.public_numbers.n)[:2] != b"\x00\x02"
        assert f"{name}-stale.pub.pem" in simulation.keys
        assert f"{name}-stale.pem" not in simulation.keys


def test_bad_signature_opens_but_is_signed_by_another() -> None:
    simulation = simulate("bad-signature")
    offer = next(tcp_fields(p)[4] for p in simulation.packets if p.label == "offer")
    assert len(opened(offer[:128], private(simulation, "core-a"))) == 40
    for name, right in (("server", False), ("other-server", True)):
        modulus = private(simulation, name).public_numbers.n
        assert raw_rsa(offer[128:], 65537, modulus).startswith(b"\x00\x01\xff") is right


# -- times and sizes ---------------------------------------------------------------------------------------


def test_timers_of_a_failed_handshake() -> None:
    core = simulate("key-mismatch", firmware="core-2014", attempts=1)
    offered = when(core, "server", "offer")[0]
    assert when(core, "device", "dead frame")[0] - offered == pytest.approx(20.0)
    assert when(core, "server", "fin")[0] - offered == pytest.approx(30.0)
    photon = simulate("key-mismatch", firmware="photon-1.4", attempts=12)
    ends = [a - b for a, b in zip(when(photon, "device", "fin"), when(photon, "server", "offer"), strict=True)]
    assert ends == pytest.approx([0.252] * 12)
    closed, dialled = when(photon, "device", "fin"), when(photon, "device", "syn")
    pauses = [round(dial - close) for close, dial in zip(closed, dialled[1:], strict=False)]
    assert pauses == [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 4]


def test_near_misses_keep_their_distance() -> None:
    slow = simulate("slow-hello")
    hello, offer = when(slow, "device", "device hello")[0], when(slow, "server", "offer")[0]
    assert 4.0 < hello - offer < 5.0
    ping = simulate("keepalive-slow")
    assert 9.0 < when(ping, "server", "ping answer")[0] - when(ping, "device", "ping")[0] < 10.0
    short = simulate("short-capture")
    end = (short.packets[-1].time_ns - short.packets[0].time_ns) / 1e9
    assert end - when(short, "server", "offer")[0] < 2.0
    split = simulate("split-identity-fine")
    assert [len(tcp_fields(p)[4]) for p in split.packets if p.label == "identity"] == [200, 56]
    lost = simulate("reply-lost", attempts=1)
    nonce = next(p for p in lost.packets if p.label == "nonce")
    seen = max(tcp_fields(p)[1] for p in lost.packets if p.sender == "device")
    assert seen == tcp_fields(nonce)[0] + 40


def test_pings_of_an_idle_session_come_every_15_seconds() -> None:
    pings = when(simulate("healthy-idle"), "device", "ping")
    gaps = [b - a for a, b in itertools.pairwise(pings)]
    assert len(gaps) == 7
    assert gaps == pytest.approx([15.05] * 7, abs=0.05)


def test_retries_are_300_and_can_be_fewer() -> None:
    assert len(simulate("retries").truth["sessions"]) == 300
    assert len(simulate("retries", attempts=4).truth["sessions"]) == 4


# -- damage ------------------------------------------------------------------------------------------------


def test_damage_changes_only_what_it_says(tmp_path: Path) -> None:
    packets = simulate("healthy").packets
    before = list(packets)
    assert damage.drop_packets(packets, {0, 2}) == [packets[1], *packets[3:]]
    assert {p.sender for p in damage.one_direction(packets, "server")} == {"server", ""}
    assert max(len(p.data) for p in damage.snaplen(packets, 60)) == 60
    assert [p.original_length for p in damage.snaplen(packets, 60)] == [p.original_length for p in packets]
    late, early = damage.start_after(packets, 3.0), damage.stop_after(packets, 3.0)
    assert late
    assert early
    assert sorted(map(id, late + early)) == sorted(map(id, packets))
    assert len(damage.duplicate(packets)) == 2 * len(packets)
    swapped = damage.reorder(packets)
    assert [p.time_ns for p in swapped] == [p.time_ns for p in packets]
    assert swapped != packets
    assert {replace(p, time_ns=0) for p in swapped} == {replace(p, time_ns=0) for p in packets}
    assert packets == before

    path = tmp_path / "damaged.pcap"
    path.write_bytes(pcap(damage.offload(packets, "server"), 1))
    wrong = tshark(path, "-Y", "tcp.checksum.status == 0", "-T", "fields", "-e", "ip.src")
    assert wrong == ["198.51.100.20"] * sum(p.sender == "server" for p in packets)
    path.write_bytes(pcap(damage.duplicate(packets, "routed"), 1))
    assert tshark(path, "-Y", "ip.checksum.status == 0 or tcp.checksum.status == 0") == []
    assert len(tshark(path, "-Y", "ip.ttl == 51")) == sum(p.sender == "server" for p in packets)
    spoiled = damage.damaged_copies(packets, "identity")
    path.write_bytes(pcap(spoiled, 1))
    first = next(index for index, p in enumerate(spoiled) if p.label == "identity")
    bad = tshark(path, "-Y", "tcp.checksum.status == 0", "-T", "fields", "-e", "frame.number")
    assert bad == [str(first + 1)]
    assert spoiled[first + 1] in packets


def test_packets_without_ip_to_be_seen_suffer_only_what_they_can() -> None:
    packets = simulate("encrypted-wifi").packets
    contents = [packet.data for packet in packets]
    assert sorted(p.data for p in damage.two_interfaces(packets)) == sorted(2 * contents)
    assert sorted(p.data for p in damage.duplicate(packets, "routed")) == sorted(2 * contents)
    sent = [replace(packet, sender="device") for packet in packets]
    assert damage.offload(sent, "device") == sent


def test_two_interfaces_stay_apart_in_pcapng(tmp_path: Path) -> None:
    path = tmp_path / "two.pcapng"
    simulation = simulate("two-interfaces")
    simulation.write(path)
    seen = tshark(path, "-T", "fields", "-e", "frame.interface_id")
    assert seen.count("0") == seen.count("1") == len(simulation.packets) / 2
    sides = [p.interface for p in simulation.packets if p.label == "nonce"]
    assert sides == [1, 0]
    assert [p.interface for p in simulation.packets if p.label == "identity"] == [0, 1]


def test_wifi_is_encrypted(tmp_path: Path) -> None:
    path = tmp_path / "wifi.pcap"
    simulate("encrypted-wifi").write(path)
    assert len(tshark(path, "-Y", "wlan.fc.protected == 1 and not ip")) == 60


# -- files -------------------------------------------------------------------------------------------------


def test_files_and_refusal_to_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "story.pcap"
    simulation = simulate("wrong-server-key")
    written = simulation.write(path)
    assert {file.relative_to(tmp_path).as_posix() for file in written} == {
        "story.pcap",
        "story.truth.json",
        *(f"keys/server.{form}" for form in ("pem", "der", "pub.pem", "pub.der")),
        *(f"keys/core-a.{form}" for form in ("pem", "der", "pub.pem", "pub.der")),
        "keys/other-server.pub.pem",
        "keys/other-server.pub.der",
    }
    truth = json.loads((tmp_path / "story.truth.json").read_text())
    assert truth["capture"] == "story.pcap"
    named = [truth["keys"]["server_private"], *truth["keys"]["server_registry"].values()]
    named += [file for device in truth["keys"]["devices"].values() for file in device.values()]
    assert all((tmp_path / file).is_file() for file in named)

    with pytest.raises(FileExistsError, match=r"story\.pcap"):
        simulation.write(path)
    simulation.write(tmp_path / "other.pcap")  # the same keys are no conflict
    with pytest.raises(FileExistsError, match="keys"):
        simulate("wrong-server-key", seed=2).write(tmp_path / "third.pcap")
    assert not (tmp_path / "third.pcap").exists()
    changed = simulate("healthy")
    changed.write(path, force=True)
    assert path.read_bytes() == changed.capture()


def test_truth_has_the_form_of_the_real_captures() -> None:
    captures = Path(__file__).parent.parent / "captures"
    real = json.loads((captures / "wrong-server-key.truth.json").read_text())
    ours = simulate("wrong-server-key").truth
    assert set(real) == set(ours)
    assert set(real["keys"]) == set(ours["keys"])
    needed = {"device", "client", "server", "attempt", "t_start", "tcp_connected", "device_id", "nonce"}
    needed |= {"session_key", "handshake", "c2s", "s2c", "counts", "device_outcome", "server_outcome"}
    assert needed <= set(real["sessions"][0]) & set(ours["sessions"][0])


# -- own stories -------------------------------------------------------------------------------------------


def test_a_story_of_ones_own(tmp_path: Path) -> None:
    world = make_world(seed=9, firmware="photon-0.5")
    device = world.add_device()
    c = Conversation(world, device, at=0.0, mss=536)
    c.connect()
    c.nonce(cut=(1, 2, 39))
    c.identity(cut=(255,), spacing=0.5)
    c.offer()
    c.device_hello(after=1.0)
    c.server_hello()
    exchanges.everyday(c)
    c.tcp.keepalive("server", after=3.0)
    c.close("server", answer=0.5)
    simulation = finish(world, name="mine")
    assert simulation.truth["name"] == "mine"
    assert simulation.truth["correct_analysis"] == {}
    assert [len(tcp_fields(p)[4]) for p in simulation.packets if p.label == "nonce"] == [1, 1, 37, 1]
    path = tmp_path / "mine.pcap"
    simulation.write(path)
    flags = tshark(path, "-Y", "tcp.analysis.flags and not tcp.analysis.keep_alive")
    assert [line for line in flags if "Keep-Alive ACK" not in line] == []


def test_a_step_cannot_be_in_the_past() -> None:
    world = make_world()
    c = Conversation(world, world.add_device(), at=5.0)
    c.connect()
    with pytest.raises(ValueError, match="before the last packet"):
        c.nonce(at=1.0)


# -- some stories in particular ----------------------------------------------------------------------------


def test_the_short_integer_is_in_the_key_file_and_the_pair_is_right() -> None:
    simulation = simulate("short-integer")
    key = private(simulation, "core-a")
    sizes = [number.bit_length() for number in (key.dmp1, key.dmq1, key.iqmp)]
    assert key.d.bit_length() <= 1016 or min(sizes) <= 504
    offer = next(tcp_fields(p)[4] for p in simulation.packets if p.label == "offer")
    assert opened(offer[:128], key).hex() == simulation.truth["sessions"][0]["session_key"]["hex"]


def test_a_clone_has_the_same_identity_and_other_nonces() -> None:
    simulation = simulate("clone")
    sessions = simulation.truth["sessions"]
    assert len({session["device_id"] for session in sessions}) == 1
    assert len({session["client"]["ip"] for session in sessions}) == 2
    assert len({session["nonce"] for session in sessions}) == len(sessions) == 6


def test_a_story_brings_its_own_firmware_and_server() -> None:
    simulation = simulate("event-refused")
    assert "legacy" in simulation.truth["server_implementation"]
    refused = [m["hex"] for m in simulation.truth["sessions"][0]["s2c"] if m["hex"].startswith("6180")]
    assert len(refused) == 1
    # The community server compares keys before it replies, so this story cannot happen there.
    with pytest.raises(SimulationError, match="legacy"):
        simulate("key-mismatch", firmware="photon-1.4", server="community")
    with pytest.raises(SimulationError, match="legacy"):
        simulate("event-refused", server="community")
    with pytest.raises(SimulationError, match="photon"):
        simulate("late-nonce", firmware="core-2014")


@pytest.mark.parametrize("name", ["blocked-icmp", "routed-duplicates", "dns-failed", "background"])
def test_ipv6_has_right_checksums_everywhere(name: str, tmp_path: Path) -> None:
    path = tmp_path / "six.pcap"
    simulate(name, link="ipv6").write(path)
    wrong = "_ws.malformed or tcp.checksum.status == 0 or udp.checksum.status == 0 or icmpv6.checksum.status == 0"
    assert tshark(path, "-Y", wrong) == []
    assert tshark(path, "-Y", "ip") == []


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("ssh-banner", b"SSH-2.0-"),
        ("http-portal", b"HTTP/1.1 302"),
        ("http-late", b"HTTP/1.1 400"),
        ("tls-service", b"\x15\x03\x01"),
    ],
)
def test_other_services_speak_their_own_protocol(name: str, what: bytes) -> None:
    packets = [p for p in simulate(name, attempts=1).packets if p.sender == "server"]
    assert stream(packets, "server").startswith(what)


def test_coap_over_tcp_is_read_as_such(tmp_path: Path) -> None:
    path = tmp_path / "coap.pcap"
    simulate("coap-tcp").write(path)
    command = ["tshark", "-r", str(path), "-Y", "coap", "-T", "fields", "-e", "_ws.col.Info"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    words = [line.split(",")[0] for line in lines]
    assert words == [
        *["7.01 CSM"] * 2,
        *["GET", "2.05 Content"] * 3,
        *["7.02 Ping", "7.03 Pong", "7.04 Release"],
    ]
