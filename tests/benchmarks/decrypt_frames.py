"""How fast frames open: ``python -m tests.benchmarks.decrypt_frames [FRAMES]`` (100,000 when nothing is said).

Prints three figures for a session of small and chunk-sized frames, in frames a second: opened with one AES-CBC
context for the whole direction, as `FrameDecryptor` does; opened with a cipher object for each frame; and all the
way from frame to named message, as `Decryption` does for a capture. Nothing is asserted: machines differ.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from analyzer.conversation import Conversation
from analyzer.deadkey import is_whole_coap, without_padding
from analyzer.decryption import Decryption
from analyzer.frames import Frame
from analyzer.keys import KeyRing, SessionKey
from analyzer.network.units import SYN, Segment
from analyzer.seen import Endpoint
from analyzer.session import FrameDecryptor
from analyzer.streams import Sender

FRAMES: Final = 100_000
BLOB: Final = bytes(range(40))
BLOCK: Final = 16
NS: Final = 1_000_000_000


def plaintexts(count: int) -> Iterator[bytes]:
    """Events and chunks, nine to one, with rising message ids."""
    noise = random.Random(1).randbytes(256)
    for index in range(count):
        number = (index & 0xFFFF).to_bytes(2, "big")
        if index % 10:
            yield b"\x50\x02" + number + b"\xb1E\x04temp\xff21.5"
        else:
            yield b"\x41\x02" + number + b"\x05\xb1c\x44\x00\x00\x00\x00\xff" + noise


def sealed(count: int) -> list[bytes]:
    """The frames' ciphertexts, chained as on the wire (PROTOCOL 4.4)."""
    frames, iv = [], BLOB[16:32]
    for plaintext in plaintexts(count):
        fill = BLOCK - len(plaintext) % BLOCK
        context = Cipher(algorithms.AES(BLOB[:16]), modes.CBC(iv)).encryptor()
        ciphertext = context.update(plaintext + bytes([fill]) * fill)
        frames.append(ciphertext)
        iv = ciphertext[:BLOCK]
    return frames


def one_context(frames: Sequence[bytes]) -> int:
    """Open with one context for all frames."""
    decryptor = FrameDecryptor(SessionKey.from_blob(BLOB))
    return sum(decryptor.update(frame).whole for frame in frames)


def one_cipher_each(frames: Sequence[bytes]) -> int:
    """Open with a new cipher object for each frame, with the same checks."""
    key, iv, whole = BLOB[:16], BLOB[16:32], 0
    for frame in frames:
        opened = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor().update(frame)
        plaintext = without_padding(opened)
        whole += plaintext is not None and is_whole_coap(plaintext)
        iv = frame[:BLOCK]
    return whole


def to_messages(frames: Sequence[bytes]) -> int:
    """Open and name, as for a capture."""
    ring = KeyRing.load(session_keys=[BLOB.hex()])
    device, server = Endpoint(b"\x0a\x00\x00\x01", 40_000), Endpoint(b"\x0a\x00\x00\x02", 5683)
    ends = (device.address, device.port, server.address, server.port)
    syn = Segment(1, NS, 0, *ends, 0, 0, SYN, 0, 0, b"", 64, None, None, None, b"", True)
    conversation = Conversation(1, device, server, syn)
    decryption = Decryption(ring)
    decryption.begin(conversation)
    offset = 0
    for index, ciphertext in enumerate(frames):
        frame = Frame(
            Sender.DEVICE, index, offset, len(ciphertext), ciphertext, b"", index + 1, index + 1, NS + index, False
        )
        decryption.frame(conversation, frame)
        offset += 2 + len(ciphertext)
    decryption.end(conversation)
    return len(conversation.messages)


def measure(name: str, work: Callable[[Sequence[bytes]], int], frames: Sequence[bytes]) -> None:
    """Print one figure."""
    begun = time.perf_counter()
    opened = work(frames)
    took = time.perf_counter() - begun
    print(f"{name:<34}{opened:>9,} opened  {took:6.2f} s  {opened / took:>10,.0f} a second")


def main() -> None:
    """Make the frames once and open them in each way."""
    frames = sealed(int(sys.argv[1]) if len(sys.argv) > 1 else FRAMES)
    measure("one context for all frames", one_context, frames)
    measure("a cipher object for each frame", one_cipher_each, frames)
    measure("from frame to named message", to_messages, frames)


if __name__ == "__main__":
    main()
