"""Commands and steps that several findings name, each written once.

The command line has had three generations: ``spark`` for the Core until 2015, ``particle`` of 2016 to 2021, some
releases of which take a device for one of the newer UDP protocol unless told ``--protocol tcp``, and today's.
"""

from __future__ import annotations

from typing import Final

from analyzer.catalogue import BOARD_SLOTS, READ_SLOT, SPARK_PORT
from analyzer.findings.model import Recipe

DOCTOR: Final = "  particle keys doctor DEVICE_ID"
DOCTOR_SENDS: Final = 'Read its output to the end: SENDING the key must succeed, not only "Okay! New keys in place".'
OWN_SERVER: Final = "· Own server, not the Particle cloud: sparkshark explain SPK301"
DFU: Final = "Put the device in DFU mode (blinking yellow) on USB, and type"
STORED_ADDRESS: Final = "  particle keys address"
CLOUD_SERVER_KEY: Final = "  particle keys server"
OWN_SERVER_KEY: Final = "  particle keys server FILE --host ADDRESS"

_TCP: Final = "--protocol tcp  # 2016-2021"
_SPARK: Final = "# Core, until 2015"


def read_key(board: str, file: str) -> str:
    """Return the line that reads the device's private key out of a board."""
    return READ_SLOT.format(usb=BOARD_SLOTS[board][0], slot=BOARD_SLOTS[board][1], file=file)


def _read_server_key(board: str, file: str) -> str:
    return READ_SLOT.format(usb=BOARD_SLOTS[board][0], slot=BOARD_SLOTS[board][2], file=file)


BUTTONS: Final = Recipe(
    "DFU mode: hold both buttons, let go of RESET (Core: RST), and of the other (Core: MODE, Photon and P1: SETUP)"
    " when the LED blinks yellow. RESET alone leaves it."
)
SAFE_MODE: Final = Recipe(
    "Safe mode: hold both buttons, let go of RESET, and of the other when the LED blinks magenta, before it is yellow."
    " Firmware from 0.4.0 on has it."
)
SAVE_KEY: Final = Recipe(
    "First save the key that the device has now:",
    ("particle keys save device", *(f"{read_key(board, 'device.der')}  # {board}" for board in BOARD_SLOTS)),
)
NEW_PAIR: Final = Recipe(
    "Make a new pair, write one half and send the other:",
    (DOCTOR.strip(), f"{DOCTOR.strip()} {_TCP}", f"spark keys doctor DEVICE_ID  {_SPARK}"),
)
PAIR_BY_HAND: Final = Recipe(
    "The same by hand. OpenSSL 3 needs -traditional, or it writes a form that no firmware reads; older ones have no"
    " such option:",
    (
        "openssl genrsa -out device.pem 1024",
        "openssl rsa -in device.pem -traditional -outform DER -out device.der",
        "openssl rsa -in device.pem -pubout -out DEVICE_ID.pub.pem",
        "sparkshark keys device.der DEVICE_ID.pub.pem",
        "particle keys load device.der",
        f"spark keys load device.der  {_SPARK}",
    ),
)
REGISTER: Final = Recipe(
    "Send the public half of the key that is in the device:",
    (
        "particle keys send DEVICE_ID DEVICE_ID.pub.pem",
        f"spark keys send DEVICE_ID DEVICE_ID.pub.pem  {_SPARK}",
    ),
)
OWN_REGISTRY: Final = Recipe(
    "Own server: make the public half, and put it into core_keys/ (old) or data/deviceKeys/ (Brewskey):",
    ("openssl rsa -inform DER -in device.der -pubout -out DEVICE_ID.pub.pem",),
)
CLOUD_KEY: Final = Recipe(
    "The Particle cloud's key and address into the device:",
    (
        CLOUD_SERVER_KEY.strip(),
        f"{CLOUD_SERVER_KEY.strip()} {_TCP}",
        f"spark keys server cloud_public.der  {_SPARK}",
    ),
)
OWN_KEY: Final = Recipe(
    "An own server's key (FILE: its default_key.pub.pem) and address into the device:",
    (
        f"{OWN_SERVER_KEY.strip()} --port {SPARK_PORT}",
        f"{OWN_SERVER_KEY.strip()} {_TCP}",
        f"spark keys server FILE ADDRESS  {_SPARK}",
    ),
)
STORED: Final = Recipe(
    "What the device has stored (key and address of its server):",
    (
        STORED_ADDRESS.strip(),
        f"{STORED_ADDRESS.strip()} {_TCP}",
        *(f"{_read_server_key(board, 'server.der')}  # {board}" for board in BOARD_SLOTS),
        "sparkshark keys server.der",
    ),
)
WHICH_DEVICE: Final = Recipe(
    "The device's ID, on USB while the LED blinks blue:",
    ("particle serial identify", f"spark identify  {_SPARK}"),
)
