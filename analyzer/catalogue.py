"""Facts of the protocol, as data: ports, sizes, timers, constants. It imports nothing of ours.

Everything that the decoder, the reports, the simulator and the Lua plugin need to agree on stands here once.
Section numbers refer to the protocol reference that the README names.
"""

from __future__ import annotations

from typing import Final

SPARK_PORT: Final = 5683
"""TCP port of the device protocol; UDP 5683 carries the presence announcement (2.7)."""
DTLS_PORT: Final = 5684
"""UDP port of the later devices (DTLS), which this protocol is not (1.3)."""

# The handshake (2.1): who sends what, in this order. All sizes in bytes.
NONCE_SIZE: Final = 40
IDENTITY_SIZE: Final = 256
SEALED_KEY_SIZE: Final = 128
SIGNATURE_SIZE: Final = 256
SESSION_SIZE: Final = SEALED_KEY_SIZE + SIGNATURE_SIZE
SESSION_KEY_SIZE: Final = 40

# Frames (4.3): two bytes of length, then ciphertext in whole AES blocks.
LENGTH_PREFIX: Final = 2
BLOCK: Final = 16
LARGEST_FRAME: Final = 1024
"""Sanity bound for a frame's ciphertext; the largest that any known device accepts is 928."""
SMALLEST_FRAME_ON_WIRE: Final = LENGTH_PREFIX + BLOCK
HELLO_FRAMES: Final = (18, 34)
"""Sizes on the wire that a device's hello can have: all generations, and those from 3.x on (7.1)."""

# Timers (6), in seconds.
DEVICE_READ_LIMIT: Final = 20.0
HELLO_WAIT: Final = 5.0
"""A device that has accepted the session offer says hello within this time (DIAGNOSES 206)."""
PING_AFTER: Final = 15.0
PING_ANSWER_LIMIT: Final = 10.0
CHUNK_SILENCE: Final = 3.0
SERVER_IDENTITY_LIMITS: Final = (10.0, 30.0, 120.0)
SERVER_LOGIN_LIMITS: Final = (10.0, 120.0)
"""What the community and the legacy server allow for the whole login (2.5)."""

FALLBACK_ADDRESS: Final = "54.208.229.4"
"""Built into the firmware of 2013-2016 as a last resort when the name lookup fails (1.4)."""
CLOUD_NAME: Final = "device.spark.io"
PRESENCE_GROUP: Final = "224.0.1.187"
PRESENCE_PREFIX: Final = bytes.fromhex("50020000b168ff")
PRESENCE_SIZE: Final = 19
DEVICE_ID_SIZE: Final = 12
CHUNK_FRAMES: Final = (274, 290, 530, 546)
"""Sizes on the wire of an update's chunk: 256 or 512 bytes, slow or fast form (DIAGNOSES 0.2)."""

# Around the connection (1.4).
PROBE_ADDRESS: Final = "8.8.8.8"
PROBE_PORT: Final = 53
"""What a device tries to connect to, without sending anything, to learn whether there is an internet at all."""

# Limits of the two open servers once a session is up (2.5, 5.5, 6), in seconds.
SERVER_IDLE_LIMIT: Final = 31.0
"""The community server hangs up on a device that has said nothing for this long; the legacy server has no limit."""
SERVER_UPDATE_LIMITS: Final = (60.0, 600.0)
"""What the community and the legacy server allow for a whole update."""
UPDATE_OFFER_EVERY: Final = 6.0
UPDATE_OFFERS: Final = 3
"""The legacy server offers an update so often, and then once more without saying how large it is."""
