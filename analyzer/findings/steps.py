"""Rows that the ladders of several findings share, and sizes and times as their sentences have them."""

from __future__ import annotations

from typing import Final

from analyzer.catalogue import (
    CHUNK_FRAMES,
    DEVICE_READ_LIMIT,
    HELLO_FRAMES,
    IDENTITY_SIZE,
    NONCE_SIZE,
    PING_AFTER,
    SERVER_IDENTITY_LIMITS,
    SESSION_SIZE,
    SMALLEST_FRAME_ON_WIRE,
)
from analyzer.findings.model import Act, LadderStep
from analyzer.sessionwatch import UPDATE_BEGIN_FRAME
from analyzer.streams import Sender

DEVICE, SERVER = Sender.DEVICE, Sender.SERVER

LOGIN_SIZES: Final = f"{NONCE_SIZE}, {IDENTITY_SIZE} and {SESSION_SIZE} bytes"
CHUNK_SIZES: Final = f"{', '.join(map(str, sorted(CHUNK_FRAMES)[:-1]))} or {max(CHUNK_FRAMES)} bytes"
SMALLEST: Final = (SMALLEST_FRAME_ON_WIRE,)
UPDATE_BEGIN: Final = (UPDATE_BEGIN_FRAME,)

AT_ONCE: Final = 0.3
"""Seconds, a round trip included, within which an end reacts that does not wait for a timer."""
FOREVER: Final = float("inf")

CONNECT: Final = LadderStep(Act.CONNECT, DEVICE, "asks to connect")
CONNECTED: Final = LadderStep(Act.CONNECTED)
GREETING: Final = LadderStep(Act.BYTES, SERVER, "greeting: a random number", (NONCE_SIZE,))
WHO_I_AM: Final = LadderStep(Act.BYTES, DEVICE, "who I am, locked for the server", (IDENTITY_SIZE,))
REPLY: Final = LadderStep(Act.BYTES, SERVER, "reply, locked for the device", (SESSION_SIZE,))
HELLO: Final = LadderStep(Act.BYTES, DEVICE, "hello", HELLO_FRAMES)
HELLO_BACK: Final = LadderStep(Act.BYTES, SERVER, "hello back: logged in", SMALLEST)
TO_GREETING: Final = (CONNECTED, GREETING)
TO_IDENTITY: Final = (*TO_GREETING, WHO_I_AM)
TO_REPLY: Final = (*TO_IDENTITY, REPLY)
LOGIN: Final = (*TO_REPLY, HELLO, HELLO_BACK)
LOGGED_IN: Final = LadderStep(Act.LOGGED_IN, note="greeting to hello back, see SPK001")
MESSAGES: Final = LadderStep(Act.MESSAGES)
NO_HELLO: Final = LadderStep(Act.SILENCE, DEVICE, "no hello: the login stops here")
PING: Final = LadderStep(Act.BYTES, DEVICE, "ping", SMALLEST, wait=(PING_AFTER, PING_AFTER))
PONG: Final = LadderStep(Act.BYTES, SERVER, "ping answered", SMALLEST)
OFFER: Final = LadderStep(Act.BYTES, SERVER, "an update is offered", UPDATE_BEGIN)
OFFER_TAKEN: Final = LadderStep(Act.BYTES, DEVICE, "ready", SMALLEST)
CHUNK: Final = LadderStep(Act.BYTES, SERVER, "a chunk", CHUNK_FRAMES)
SERVER_REFUSES: Final = LadderStep(Act.CLOSE, SERVER, "the server hangs up", wait=(0, 1))

COMMUNITY: Final = f"{SERVER_IDENTITY_LIMITS[0]:.0f}"
LEGACY: Final = f"{SERVER_IDENTITY_LIMITS[1]:.0f}"
"""Seconds that the community and the legacy server wait for the next part of a login."""

REPLY_NOT_USED: Final = (
    LadderStep(Act.CLOSE, DEVICE, "later firmware, and dials again", wait=(0, 1), sometimes=True),
    LadderStep(
        Act.BYTES,
        DEVICE,
        "Core of 2014: a ping, locked with an all-zero or an old key",
        SMALLEST,
        (0, DEVICE_READ_LIMIT),
        sometimes=True,
    ),
    LadderStep(
        Act.CLOSE,
        SERVER,
        f"Core of 2014: the server gives up, {COMMUNITY} or {LEGACY} s after its reply",
        sometimes=True,
    ),
)
"""What follows a reply that the device cannot use: by generation of its firmware (2.6, 9.2)."""
