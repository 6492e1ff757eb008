"""What a device and its server do over one TCP connection: the handshake in steps, then frames.

Each step can be left out or spoilt by a scenario. A `Conversation` keeps the record that becomes the truth file: what
both ends meant, whatever the capture shows of it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any, Final

from analyzer.catalogue import BLOCK, NONCE_SIZE, SESSION_KEY_SIZE
from analyzer.simulate import messages
from analyzer.simulate.keys import RsaKey
from analyzer.simulate.messages import Dialect
from analyzer.simulate.parties import Device, FrameCipher, Server
from analyzer.simulate.tcp import TcpSession, initial_sequence_numbers
from analyzer.simulate.wire import Sender
from analyzer.simulate.world import World

DEAD_KEY_NOTE: Final = (
    "sent although the handshake had failed, encrypted under a stale or empty key, not this session's key"
)


class Conversation:
    """One connection of a device: the handshake in steps, then frames; `options` go to `TcpSession`."""

    def __init__(
        self, world: World, device: Device, *, at: float, server: Server | None = None, **options: Any
    ) -> None:
        device.attempts += 1
        self.world = world
        self.device = device
        self.server = server = server or world.server
        self.random = world.random("session", device.host.name, device.attempts)
        isn = initial_sequence_numbers(self.random)
        port = options.pop("device_port", None)
        if port is None:
            port = device.next_port
            device.next_port = port + 1 if port < 65535 else 49152
        self.tcp = TcpSession(
            world.wire,
            device.host,
            server.host,
            start=at,
            device_port=port,
            **{"isn": world.isn or isn, "server_port": world.port, **options},
        )
        self.nonce_bytes = self.random.randbytes(NONCE_SIZE)
        self.blob = self.random.randbytes(SESSION_KEY_SIZE)
        self.server_cipher = FrameCipher(self.blob[:16], self.blob[16:32])
        self.server_message_id = self.random.randrange(1, 0x10000)
        self.server_token = 0
        self.record: dict[str, Any] = {
            "device": device.name,
            "client": {"ip": device.host.address, "port": self.tcp.ends["device"].port},
            "server": {"ip": server.host.address, "port": self.tcp.ends["server"].port},
            "attempt": device.attempts,
            "t_start": world.unix_time(at),
            "tcp_connected": False,
            "device_id": None,
            "nonce": None,
            "session_key": None,
            "handshake": [],
            "device_outcome": None,
            "server_outcome": None,
            "c2s": [],
            "s2c": [],
        }
        world.records.append(self.record)

    @property
    def now(self) -> float:
        """When the last packet passed, in seconds of the simulation."""
        return self.tcp.now

    @property
    def dialect(self) -> Dialect:
        """Which of the two open servers this is."""
        return self.server.dialect

    def next_server_id(self) -> int:
        """Count up by one (PROTOCOL 4.2)."""
        self.server_message_id = (self.server_message_id + 1) % 0x10000
        return self.server_message_id

    def next_server_token(self) -> int:
        """Count up by one; the legacy server's range is one smaller (PROTOCOL 4.2)."""
        self.server_token = (self.server_token + 1) % (255 if self.dialect == "legacy" else 256)
        return self.server_token

    # -- handshake (PROTOCOL 2.1) ------------------------------------------------------------------

    def connect(self) -> None:
        """Open the TCP connection."""
        self.tcp.connect()
        self.record["tcp_connected"] = True

    def nonce(self, *, after: float = 0.006, cut: Sequence[int] = (), **options: Any) -> None:
        """Message 1."""
        self.record["nonce"] = self.nonce_bytes.hex()
        self.tcp.send("server", self.nonce_bytes, after=after, cut=cut, label="nonce", **options)

    def identity_bytes(self) -> bytes:
        """Message 2 as this device makes it (PROTOCOL 2.2)."""
        inside = self.nonce_bytes + self.device.device_id
        if self.device.firmware.key_in_identity:
            inside += self.device.key.public_der()
            self.record["device_public_key_in_answer"] = self.device.key.public_der().hex()
        self.record["device_id"] = self.device.device_id.hex()
        return self.device.trusts.seal(inside, self.random)

    def identity(self, *, after: float | None = None, cut: Sequence[int] = (), **options: Any) -> None:
        """Message 2; a Core takes a tenth of a second for it, a Photon less."""
        after = self._device_work(0.12, 0.04) if after is None else after
        self.tcp.send("device", self.identity_bytes(), after=after, cut=cut, label="identity", **options)

    def offer_bytes(self, device_key: RsaKey | None = None, signer: RsaKey | None = None) -> bytes:
        """Message 3: the sealed session key and its signature (PROTOCOL 2.3)."""
        on_file = device_key or self.server.registry[self.device.device_id][1]
        sealed = on_file.seal(self.blob, self.random)
        digest = hmac.new(self.blob, sealed, hashlib.sha1).digest()
        self.record["session_key"] = {
            "hex": self.blob.hex(),
            "aes_key": self.blob[:16].hex(),
            "iv": self.blob[16:32].hex(),
            "salt": self.blob[32:].hex(),
        }
        return sealed + (signer or self.server.signer).sign(digest)

    def offer(self, *, after: float = 0.007, cut: Sequence[int] = (), **options: Any) -> None:
        """Message 3, after the server has looked the device up."""
        self.tcp.send("server", self.offer_bytes(), after=after, cut=cut, label="offer", **options)

    def device_hello(self, *, after: float | None = None, **options: Any) -> None:
        """Message 4: the device has opened the offer and takes the session key over."""
        self.device.use(self.blob, self.random)
        self.device.failures = 0
        self.result(0)
        hello = messages.device_hello(self.device.firmware, self.device.next_message_id())
        after = self._device_work(0.9, 0.25) if after is None else after
        self.device_says(hello, after=after, label="device hello", **options)

    def server_hello(self, *, after: float = 0.004, **options: Any) -> None:
        """Message 5."""
        hello = messages.server_hello(self.dialect, self.next_server_id())
        self.server_says(hello, after=after, label="server hello", **options)

    def handshake(self) -> None:
        """All of it, as it should be, from the SYN on."""
        self.connect()
        self.nonce()
        self.identity()
        self.offer()
        self.device_hello()
        self.server_hello()

    def _device_work(self, core: float, photon: float) -> float:
        return core if self.device.firmware.device.startswith("core") else photon

    # -- frames (PROTOCOL 4) -----------------------------------------------------------------------

    def device_says(
        self, *coap: bytes, note: str | None = None, after: float = 0.0, label: str = "frame", **options: Any
    ) -> None:
        """Send messages of the device, one frame each, all in one go."""
        sealed = b"".join(self.device.cipher.seal(message) for message in coap)
        self.tcp.send("device", sealed, after=after, label=label, **options)
        self.remember("c2s", coap, note)

    def server_says(
        self, *coap: bytes, note: str | None = None, after: float = 0.0, label: str = "frame", **options: Any
    ) -> None:
        """Send messages of the server, one frame each, all in one go."""
        sealed = b"".join(self.server_cipher.seal(message) for message in coap)
        self.tcp.send("server", sealed, after=after, label=label, **options)
        self.remember("s2c", coap, note)

    def dead_ping(self, **options: Any) -> None:
        """Ping under a key that belongs to no session of this server (PROTOCOL 9.2)."""
        self.device.unanswered_ping = True
        ping = messages.ping(self.device.next_message_id())
        self.device_says(ping, note=DEAD_KEY_NOTE, label="dead frame", **options)

    def dead_time_request(self, **options: Any) -> None:
        """Ask for the time under such a key."""
        request = messages.time_request(self.device.next_message_id(), self.device.next_token())
        self.device_says(request, note=DEAD_KEY_NOTE, label="dead frame", **options)

    def remember(self, direction: str, coap: Sequence[bytes], note: str | None = None) -> None:
        """Enter messages into the record that `device_says` and `server_says` did not send."""
        for message in coap:
            entry: dict[str, Any] = {
                "t": self.world.unix_time(self.tcp.now),
                "hex": message.hex(),
                "ciphertext_len": len(message) + BLOCK - len(message) % BLOCK,
            }
            if note:
                entry["note"] = note
            self.record[direction].append(entry)

    # -- ends --------------------------------------------------------------------------------------

    def result(self, code: int) -> None:
        """Note what the device's handshake function returned: 0 fine, 1 sealed for another key, ..."""
        if code:
            self.device.failures += 1
        self.record["handshake"].append({"t": self.world.unix_time(self.tcp.now), "device_return_code": code})

    def outcome(self, device: str, server: str | None = None) -> None:
        """Note why each end ended the connection."""
        self.record["device_outcome"] = device
        self.record["server_outcome"] = server

    def close(self, first: Sender, **options: Any) -> None:
        """FIN from one end, answered by the other."""
        self.tcp.close(first, **options)

    def announce(self, *, after: float = 0.003) -> None:
        """Send the presence datagram, as often as this generation repeats it (PROTOCOL 2.7)."""
        for copy in range(self.device.firmware.announcements):
            datagram = messages.presence(self.device.device_id)
            self.world.wire.announce(self.tcp.now + after + 0.004 * copy, self.device.host, datagram)
