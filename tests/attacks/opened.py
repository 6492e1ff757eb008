"""Attacks by what is inside the frames, with the keys that open them: CoAP, descriptions, events, updates."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path
from typing import Final

from analyzer.simulate import Conversation, finish, make_world, messages
from analyzer.simulate.scenarios import SCENARIOS
from attacks.model import Run, analyzed, attack
from attacks.scene import DATA, IPV4, Scene, from_device, from_server, scene

NOISE: Final = random.Random(4).randbytes(1 << 16)
EVENT: Final = (11, b"e")
CON, NON, ACK = messages.CON, messages.NON, messages.ACK
LARGEST_PLAIN: Final = 1000
"""Bytes of a message that fit into a frame that the readers of the protocol take."""


class Session:
    """A session whose login is real, and which goes on with whatever an attacker who has its key sends."""

    def __init__(self, made: Scene, folder: Path) -> None:
        self.made = made
        world = make_world(seed=7)
        device = world.add_device()
        self.talk = talk = Conversation(world, device, at=0)
        talk.handshake()
        simulation = finish(world, SCENARIOS["healthy"])
        (folder / "keys").mkdir(exist_ok=True)
        for name, content in simulation.keys.items():
            (folder / "keys" / name).write_bytes(content)
        self.device, self.port = b"", 0
        self.next = {True: 0, False: 0}
        for packet in simulation.packets:
            data = packet.data
            assert data[12:14] == IPV4.to_bytes(2, "big")
            source, target, size = data[26:30], data[30:34], int.from_bytes(data[16:18], "big") - 40
            source_port, target_port, seq = struct.unpack_from(">HHI", data, 34)
            from_the_device = target_port == 5683
            if from_the_device:
                self.device, self.port = source, source_port
            self.server = target if from_the_device else source
            self.next[from_the_device] = seq + max(size, 0) + bool(data[47] & 3)
            made.add(data)
        self.cipher = {True: device.cipher, False: talk.server_cipher}
        self.number = {True: device.message_id, False: talk.server_message_id}

    def number_of(self, *, device: bool) -> int:
        """Count the message numbers up."""
        self.number[device] = (self.number[device] + 1) % 0x10000
        return self.number[device]

    def says(self, message: bytes, *, device: bool) -> None:
        """Send one message of either end."""
        frame = self.cipher[device].seal(message)
        make = from_device if device else from_server
        packet = make(self.device, self.port, self.next[device], self.next[not device], DATA, frame)
        # The other end has another address than the attacks without keys.
        at = 30 if device else 26
        packet = packet[:at] + self.server + packet[at + 4 : 50] + b"\0\0" + packet[52:]
        self.next[device] = (self.next[device] + len(frame)) & 0xFFFFFFFF
        self.made.add(packet)


def keyed(folder: Path, *more: str) -> Run:
    return analyzed(folder / "a.pcap", "--keys", str(folder / "keys"), *more)


@attack(
    "event-names",
    "events, each of another name, in one session that keys open",
    size=1_000_000,
    unit="events",
    bound="messages.gist.MOST_EVENT_NAMES",
    each=90,
)
def event_names(folder: Path, n: int) -> Run:
    with scene(folder / "a.pcap", n) as made:
        session = Session(made, folder)
        for number in range(n):
            event = messages.event(session.number_of(device=True), f"n{number}", "")
            session.says(event, device=True)
    return keyed(folder)


@attack(
    "coap-options",
    "messages that are nothing but options, nine hundred each, of another kind each time",
    size=8_000,
    unit="messages",
    bound="coap.REMEMBERED_RUNS",
    each=1_200,
)
def coap_options(folder: Path, n: int) -> Run:
    with scene(folder / "a.pcap", n) as made:
        session = Session(made, folder)
        for number in range(n):
            options = bytes((number >> shift & 1) << 4 for shift in range(20)) + bytes(880)
            session.says(struct.pack(">BBH", NON, 2, session.number_of(device=True)) + options, device=True)
    return keyed(folder)


@attack(
    "descriptions",
    "answers to Describe: JSON nested as deep as a frame can hold, names without end, numbers of a thousand digits",
    size=10_000,
    unit="answers",
    bound="messages.describe.DEEPEST_DESCRIPTION",
    each=1_200,
)
def descriptions(folder: Path, n: int) -> Run:
    forms = (
        b"[" * LARGEST_PLAIN,
        b'{"f":' + b"[" * 480 + b"]" * 480 + b"}",
        b'{"p":' + b"9" * 980 + b"}",
        b'{"v":{' + b",".join(b'"%d":1' % i for i in range(110)) + b"}}",
        b'{"f":["' + b"\\u0000" * 160 + b'"]}',
        b'"' * LARGEST_PLAIN,
    )
    with scene(folder / "a.pcap", 2 * n) as made:
        session = Session(made, folder)
        for number in range(n):
            at, token = session.number_of(device=False), number & 0xFF
            session.says(messages.describe_request(at, token), device=False)
            session.says(messages.answer(at, token, forms[number % len(forms)]), device=True)
    return keyed(folder)


@attack(
    "unanswered",
    "requests of both ends that nobody answers",
    size=40_000,
    unit="requests",
    bound="messages.reader.MOST_OUTSTANDING",
    each=90,
)
def unanswered(folder: Path, n: int) -> Run:
    with scene(folder / "a.pcap", n) as made:
        session = Session(made, folder)
        for number in range(n):
            device = bool(number % 2)
            token = number >> 1 & 0xFF
            at = session.number_of(device=device)
            what = messages.time_request(at, token) if device else messages.variable_request(at, token, "x")
            session.says(what, device=device)
    return keyed(folder)


@attack(
    "restarts",
    "one update that begins again with every second chunk, and is asked for missed parts in between",
    size=4_000,
    unit="restarts",
    bound="export.firmware.MOST_UPDATES",
    each=1_500,
)
def restarts(folder: Path, n: int) -> Run:
    data = NOISE[:512]
    with scene(folder / "a.pcap", 6 * n) as made:
        session = Session(made, folder)
        for number in range(n):
            at, token = session.number_of(device=False), number & 0xFF
            begin = messages.update_begin("legacy", at, token, chunk_size=512, length=1 << 20)
            session.says(begin, device=False)
            session.says(messages.message(ACK, messages.EMPTY, at), device=True)
            session.says(
                messages.message(NON, messages.CHANGED, session.number_of(device=True), token=token), device=True
            )
            at = session.number_of(device=False)
            session.says(messages.chunk(at, token, data), device=False)
            session.says(messages.chunk_received(session.number_of(device=True), token), device=True)
            session.says(messages.chunk_missed(session.number_of(device=True), (0, 1, 2)), device=True)
    (folder / "images").mkdir(exist_ok=True)
    run = keyed(folder)
    run.words[0] = "decrypt"
    run.words += ["--firmware", str(folder / "images"), "--force"]
    run.bystander = False
    return run


@attack(
    "chunks",
    "one update whose chunks are numbered at random and never fit",
    size=40_000,
    unit="chunks",
    bound="export.transfer.LARGEST_IMAGE",
    each=700,
)
def chunks(folder: Path, n: int) -> Run:
    with scene(folder / "a.pcap", n + 4) as made:
        session = Session(made, folder)
        at = session.number_of(device=False)
        begin = messages.update_begin("community", at, 1, chunk_size=512, length=1 << 30)
        session.says(begin, device=False)
        session.says(messages.message(ACK, messages.EMPTY, at), device=True)
        ready = messages.message(NON, messages.CHANGED, session.number_of(device=True), token=1, payload=b"\1")
        session.says(ready, device=True)
        for number in range(n):
            data = NOISE[number % 60_000 :][:512]
            crc = struct.pack(">I", zlib.crc32(data))
            place = struct.pack(">H", number * 7919 & 0xFFFF)
            options = ((11, b"c"), (15, crc), (15, place))
            session.says(
                messages.message(NON, messages.POST, session.number_of(device=False), options=options, payload=data),
                device=False,
            )
    (folder / "images").mkdir(exist_ok=True)
    run = keyed(folder)
    run.words[0] = "decrypt"
    run.words += ["--firmware", str(folder / "images"), "--force"]
    run.bystander = False
    return run
