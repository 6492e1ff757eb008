"""What a device and its server say to each other once the login is done: who, and the bytes of the message."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Final

from analyzer.simulate import messages

DEVICE: Final = 0
SERVER: Final = 1

Said = tuple[int, bytes]
"""Sender and plaintext."""

FIRMWARE: Final = messages.FIRMWARES["core-2014"]
EVENTS: Final = (
    "temperature",
    "door/front",
    "motion",
    "power/usage",
    "a",
    "sensor/humidity/living-room/by-the-window",
    "battery",
)
FUNCTIONS: Final = ("brew", "led", "setMode")
VARIABLES: Final = ("temperature", "uptime", "mode")
DESCRIPTION: Final = b'{"f":["brew","led","setMode"],"v":{"temperature":9,"uptime":2,"mode":4}}'


class Talk:
    """Both ends' counters, and the exchanges they go through (PROTOCOL 4.2, 5.4)."""

    def __init__(self, credentials: bytes, rng: random.Random) -> None:
        self._rng = rng
        self._device_id = int.from_bytes(credentials[32:34], "big")
        self._device_token = credentials[34]
        self._server_id = rng.getrandbits(16)
        self._server_token = 0

    def of_everything(self, length: int) -> Iterator[Said]:
        """Yield about ``length`` messages: what follows a login, then a mixture as a fleet has it."""
        yield from self._greet()
        yield from self._describe()
        yield from self._ask_time()
        yield from self._subscribe()
        yield from self._mix(
            length - 8, (self._publish,) * 11 + (self._ping,) * 5 + (self._call, self._call, self._read)
        )

    def of_events(self, length: int) -> Iterator[Said]:
        """Yield about ``length`` messages, as of a device that reports for weeks: events and pings."""
        yield from self._greet()
        yield from self._mix(length - 2, (self._publish,) * 4 + (self._ping,))

    def _mix(self, length: int, exchanges: tuple[Callable[[], Iterator[Said]], ...]) -> Iterator[Said]:
        done = 0
        while done < length:
            for said in exchanges[int(self._rng.random() * len(exchanges))]():
                yield said
                done += 1

    def _greet(self) -> Iterator[Said]:
        yield DEVICE, messages.device_hello(FIRMWARE, self._from_device())
        yield SERVER, messages.server_hello("legacy", self._from_server())

    def _describe(self) -> Iterator[Said]:
        number, token = self._from_server(), self._asked_by_server()
        yield SERVER, messages.describe_request(number, token)
        yield DEVICE, messages.answer(number, token, DESCRIPTION)

    def _ask_time(self) -> Iterator[Said]:
        number = self._from_device()
        self._device_token = (self._device_token + 1) & 0xFF
        yield DEVICE, messages.time_request(number, self._device_token)
        yield SERVER, messages.time_answer(number, self._device_token, 1_420_070_400 + self._rng.getrandbits(16))

    def _subscribe(self) -> Iterator[Said]:
        number = self._from_device()
        yield DEVICE, messages.subscribe(number, "spark")
        yield SERVER, messages.server_ack("legacy", number)

    def _publish(self) -> Iterator[Said]:
        bits = self._rng.getrandbits(32)
        name = EVENTS[bits % len(EVENTS)]
        value = (bits >> 8) & 0xFFF
        data = f'{{"v":{value},"t":{bits >> 12}}}' if bits & 64 else str(value)
        yield (
            DEVICE,
            messages.event(self._from_device(), name, data, ttl=3600 if bits & 16 else 60, private=bool(bits & 32)),
        )

    def _ping(self) -> Iterator[Said]:
        number = self._from_device()
        yield DEVICE, messages.ping(number)
        yield SERVER, messages.server_ack("legacy", number)

    def _call(self) -> Iterator[Said]:
        number, token, bits = self._from_server(), self._asked_by_server(), self._rng.getrandbits(30)
        yield SERVER, messages.function_call(number, token, FUNCTIONS[bits % len(FUNCTIONS)], f"{bits >> 16},on")
        yield DEVICE, messages.empty_ack(number)
        yield DEVICE, messages.function_return(self._from_device(), token, bits)

    def _read(self) -> Iterator[Said]:
        number, token, bits = self._from_server(), self._asked_by_server(), self._rng.getrandbits(32)
        yield SERVER, messages.variable_request(number, token, VARIABLES[bits % len(VARIABLES)])
        yield DEVICE, messages.answer(number, token, bits.to_bytes(4, "big"))

    def _from_device(self) -> int:
        self._device_id = (self._device_id + 1) & 0xFFFF
        return self._device_id

    def _from_server(self) -> int:
        self._server_id = (self._server_id + 1) & 0xFFFF
        return self._server_id

    def _asked_by_server(self) -> int:
        self._server_token = (self._server_token + 1) % 255
        return self._server_token
