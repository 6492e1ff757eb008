"""Facts of the protocol, as data: ports, sizes, timers, constants. It imports nothing of ours.

Everything that the decoder, the reports, the simulator and the Lua plugin need to agree on stands here once.
Section numbers refer to the protocol reference that the README names.
"""

from __future__ import annotations

from typing import Final

SPARK_PORT: Final = 5683
"""TCP port of the device protocol; UDP 5683 carries the presence announcement (2.7)."""
LARGEST_PORT: Final = 65_535
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
DNS_PORT: Final = 53
PROBE_ADDRESS: Final = "8.8.8.8"
PROBE_PORT: Final = DNS_PORT
"""What a device tries to connect to, without sending anything, to learn whether there is an internet at all."""

# Limits of the two open servers once a session is up (2.5, 5.5, 6), in seconds.
SERVER_IDLE_LIMIT: Final = 31.0
"""The community server hangs up on a device that has said nothing for this long; the legacy server has no limit."""
SERVER_UPDATE_LIMITS: Final = (60.0, 600.0)
"""What the community and the legacy server allow for a whole update."""
UPDATE_OFFER_EVERY: Final = 6.0
UPDATE_OFFERS: Final = 3
"""The legacy server offers an update so often, and then once more without saying how large it is."""

# Where a board keeps its keys, as `dfu-util` reads it (8.2): USB id in DFU mode, place and length of the device's
# private key, place and length of the server's public key with its address.
BOARD_SLOTS: Final = {
    "Core": ("1d50:607f", "0x00002000:1024", "0x00001000:2048"),
    "Photon": ("2b04:d006", "34:612", "2082:512"),
    "P1": ("2b04:d008", "34:612", "2082:512"),
}
READ_SLOT: Final = "dfu-util -d {usb} -a 1 -s {slot} -U {file}"

# Who the two ends can be (1.2, 2.5), and what tells them apart without a key (2.4-2.6, 4.3, 5.5), in seconds and bytes.
GENERATIONS: Final = ("G1a", "G1b", "G2a", "G2b", "G2c", "G2d")
"""Generations of firmware that speak this protocol: two of the Core, four of the Photon and P1, oldest first."""
SERVERS: Final = ("legacy", "community")
"""The two open servers: spark-server, and Brewskey's fork of it. What the hosted cloud does is not known."""
SERVER_HELLO_WAITS: Final = (2.0, 4.0)
"""How long later firmware waits for the server's hello: Core from 0.4.9 on and Photon 0.4.9 to 0.7; Photon from 0.8."""
RETRY_PAUSE: Final = 1.0
RETRIES_EACH: Final = 5
RETRY_DOUBLINGS: Final = 7
"""Later firmware waits 1 s after each of five failed logins, 2 s after each of the next five, and so on up to 128 s."""
LARGEST_FROM_CORE: Final = 640
LARGEST_FROM_EARLY_PHOTON: Final = 800
LARGEST_FROM_PHOTON: Final = 768
"""The longest ciphertext of a Core, of a Photon to 0.7, and of one to 2.x."""
LEGACY_STEP_LIMIT: Final = 30.0
"""The legacy server waits so long for "who I am", and again for the hello."""
COMMUNITY_LOGIN_LIMIT, LEGACY_LOGIN_LIMIT = SERVER_LOGIN_LIMITS
COMMUNITY_UPDATE_LIMIT, LEGACY_UPDATE_LIMIT = SERVER_UPDATE_LIMITS
FAST_CHUNK_FRAMES: Final = (290, 546)
"""Those of `CHUNK_FRAMES` that are of the fast form."""

# A login is slow when one end takes longer for its part of it, or all of it longer (DIAGNOSES 209), in seconds.
SLOW_DEVICE: Final = 5.0
SLOW_SERVER: Final = 2.0
SLOW_LOGIN: Final = 8.0
