"""What is behind the ciphers: the handshake's sealed parts and the frames, sealed properly after they were spoilt.

A fuzzer that changes ciphertext finds nothing: it is refused before anybody looks inside.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from functools import cache
from typing import Final

from inert import is_inert
from judging import verdict
from tcp_talk import MS, Talk

from analyzer import rsa
from analyzer.capture.packet import Packet
from analyzer.deadkey import is_whole_coap
from analyzer.keys import SessionKey
from analyzer.messages import MessageReader
from analyzer.network.units import ACK, PSH
from analyzer.pipeline import Analysis
from analyzer.report import jsonreport
from analyzer.report.text import text_report
from analyzer.session import (
    FailurePattern,
    FrameDecryptor,
    Obstacle,
    fitting_session_key,
    open_identity,
    open_offer,
)
from analyzer.simulate.parties import FrameCipher
from analyzer.streams import Sender
from fuzz.base import key, ring
from fuzz.script import Script, written
from fuzz.spoken import spoken
from fuzz.target import target

NONCE: Final = bytes(range(40))
BLOB: Final = bytes(range(100, 140))
DEVICE_ID: Final = bytes.fromhex("53ff6f065067544840551187")
OTHER: Final = bytes(range(1, 41))
"""A session key that is not this session's."""


def _raw(public: rsa.PublicNumbers, block: bytes) -> bytes:
    """RSA without padding of its own: the script has made the whole block."""
    return pow(int.from_bytes(block) % public.n, public.e, public.n).to_bytes(public.size)


def _block(script: Script, message: bytes, size: int, kind: int) -> bytes:
    """A padded block (PKCS #1 v1.5), spoilt where the script says so."""
    fill = size - 3 - len(message)
    pad = b"\xff" if kind == 1 else b"\x5a"
    block = bytearray(bytes((0, kind)) + pad * max(fill, 0) + b"\0" + message)[-size:]
    for _ in range(script.below(3)):
        block[script.number(2) % size] = script.number()
    return bytes(block)


def _blocks() -> Iterator[bytes]:
    spki = key("photon-a.der").spki
    for head in (0, 1, 2, 3):
        yield bytes((head,)) + written(b"", 0, 0)
        yield bytes((head | 4,)) + written(NONCE + DEVICE_ID, 0)
        yield bytes((head | 4,)) + written(NONCE + DEVICE_ID + spki, 0)
        yield bytes((head | 4,)) + written(NONCE + DEVICE_ID + b"\xff" * 162, 1, 0, 2, 7)
        yield bytes((head | 4,)) + written(BLOB, 0, 0)
        yield bytes((head | 4,)) + written(BLOB, 0, b"x" * 19, 1, 0, 1, 2)


@target("the sealed parts of the handshake: RSA blocks whose inside is spoilt", _blocks, longest=600)
def seals(data: bytes) -> None:
    """An identity or a session offer, sealed with the right keys after the script has had its way with the inside."""
    script = Script(data)
    head = script.number()
    message = script.piece()
    server, device = key("server.der"), key("core-a.der")
    assert server.secret is not None
    assert device.secret is not None
    if head & 1:
        plain = message if head & 4 else NONCE + DEVICE_ID
        block = _block(script, plain, 256, 2)
        found = open_identity(_raw(server.public, block), [server], NONCE)
        if block[:2] == b"\0\x02" and len(plain) == 52 and block[-53:] == b"\0" + plain and 0 not in block[2:-53]:
            assert found is not None
            assert found.device_id == plain[40:].hex()
            assert found.nonce_matches is (plain[:40] == NONCE)
        assert found is None or repr(found)
        return
    blob = message if head & 4 else BLOB
    sealed = _raw(device.public, _block(script, blob, 128, 2))
    digest = script.piece() if head & 2 else hmac.digest(blob, sealed, hashlib.sha1)
    inner = _block(script, digest, 256, 1)
    value = int.from_bytes(inner) % server.public.n
    signature = pow(value, server.secret.d, server.public.n).to_bytes(256)
    offer = open_offer(sealed + signature, [device], [server])
    assert offer.tried == 1
    assert offer.signature in ("valid", "invalid", "not-checked")
    if offer.opened:
        assert offer.credentials is not None
        assert len(offer.credentials.blob or b"") == 40
    if offer.signature == "valid" and offer.opened:
        assert offer.credentials is not None
        assert offer.credentials.blob is not None
        assert inner.endswith(hmac.digest(offer.credentials.blob, sealed, hashlib.sha1))
    assert "secret" not in repr(offer)


# --- frames --------------------------------------------------------------------------------------------------------


def _frames() -> Iterator[bytes]:
    for _, plain in spoken()[::3]:
        yield written(0, plain[:200], 0, plain[:200])
    yield written(
        0, b"x" * 20, 1, b"", 0, b"\x40\0\0\1", 2, 3, 7, b"", 0, b"y" * 33, 3, b"\x40\0\0\2", 4, 200, b"", 5, b""
    )


@target("decryption of frames: lost, changed, cut, under other keys", _frames, longest=2048)
def frames_opened(data: bytes) -> None:
    """Frames of one direction; each that nothing was done to opens to what was sealed."""
    script = Script(data)
    session_key = SessionKey.from_blob(BLOB)
    cipher, other = FrameCipher(BLOB[:16], BLOB[16:32]), FrameCipher(OTHER[:16], OTHER[16:32])
    decryptor, pattern, reader = FrameDecryptor(session_key), FailurePattern(), MessageReader(session_key.salt)
    intact, seen = True, []
    while script:
        how, plain = script.below(7), b""
        if how == 2:
            place, value = script.number(), script.number()
        plain = script.piece()
        sealed = cipher.seal(plain)[2:]
        if how == 1:
            decryptor.skip()
            intact = False
            continue
        if how == 3:
            decryptor.skip(sealed[:16])
            intact = True
            continue
        if how == 2:
            spoilt = bytearray(sealed)
            spoilt[place % len(spoilt)] ^= value
            sealed = bytes(spoilt)
        elif how == 4:
            sealed = other.seal(plain)[2:]
        elif how == 5:
            sealed = sealed[: len(sealed) // 2]
        opened = decryptor.update(sealed)
        pattern.note(opened)
        seen.append(sealed)
        if how in (0, 6):
            if intact and is_whole_coap(plain):
                assert opened.whole
                assert opened.plaintext == plain
            elif not intact and len(plain) > 16:
                assert opened.plaintext == plain[16:]
                assert opened.obstacle is Obstacle.GAP_BEFORE
            intact = True
        elif how == 2:
            intact = place % len(sealed) >= 16
            # The first block of the next message is lost when this frame's was changed.
            if not intact:
                decryptor.skip()
        else:
            decryptor.skip()
            intact = False
        if opened.plaintext is not None:
            message = reader.read("device", opened.plaintext, len(seen), len(seen), opened.missing)
            assert message.whole is (opened.missing == 0)
    for run, trouble in pattern.troubles():
        assert run.count >= 1
        assert trouble
    assert fitting_session_key([SessionKey.from_blob(OTHER), session_key], [seen]) in (
        None,
        SessionKey.from_blob(OTHER),
        session_key,
    )


# --- a whole session -------------------------------------------------------------------------------------------------


@cache
def _login() -> tuple[bytes, bytes]:
    """ "Who I am" and reply, sealed as they should be."""
    server, device = key("server.der"), key("core-a.der")
    assert server.secret is not None
    identity = rsa.seal_block(server.public, NONCE + DEVICE_ID, b"\x5a" * (256 - 3 - 52))
    sealed = rsa.seal_block(device.public, BLOB, b"\x5a" * (128 - 3 - 40))
    return identity, sealed + rsa.sign_block(server.secret, hmac.digest(BLOB, sealed, hashlib.sha1))


def _ethernet(talk: Talk) -> list[Packet]:
    """The segments of a talk as packets, with right checksums."""
    packets = []
    for number, segment in enumerate(talk.segments, 1):
        tcp = b"".join(
            (
                segment.source_port.to_bytes(2), segment.target_port.to_bytes(2), segment.seq.to_bytes(4),
                segment.ack.to_bytes(4), (0x5000 | segment.flags).to_bytes(2), b"\x16\xd0\0\0\0\0", segment.payload,
            )
        )  # fmt: skip
        total = int.from_bytes(
            segment.source + segment.target + b"\0\x06" + len(tcp).to_bytes(2) + tcp + bytes(len(tcp) % 2)
        )
        tcp = tcp[:16] + (0xFFFF - total % 0xFFFF).to_bytes(2) + tcp[18:]
        ip = b"\x45\0" + (20 + len(tcp)).to_bytes(2) + (segment.ip_id or 0).to_bytes(2) + b"\0\0\x40\x06\0\0"
        frame = b"\0\x1d\x7e\xa0\x11\x5e\x6c\x0b\x84\x1f\x72\x0d\x08\0" + ip + segment.source + segment.target + tcp
        packets.append(Packet(number, segment.time_ns, 1, frame, len(frame)))
    return packets


def talk_of(script: Script) -> list[Packet]:
    """A login that works, and the messages that the script has the two ends say, lost and repeated as it likes."""
    identity, offer = _login()
    talk = Talk().open()
    talk.send(Sender.SERVER, NONCE)
    talk.send(Sender.DEVICE, identity)
    talk.send(Sender.SERVER, offer)
    ciphers = {sender: FrameCipher(BLOB[:16], BLOB[16:32]) for sender in Sender}
    while script and len(talk.segments) < 400:
        head = script.number()
        sender = Sender.SERVER if head & 1 else Sender.DEVICE
        plain = script.piece()
        sealed = ciphers[sender].seal(plain)
        how = head >> 1 & 7
        if how == 1:  # sent, but not captured
            talk.send(sender, sealed)
            del talk.segments[-2]
        elif how == 2:  # late
            talk.send(sender, sealed)
            talk.segments[-1], talk.segments[-2] = talk.segments[-2], talk.segments[-1]
        elif how == 3:  # again
            talk.packet(sender, ACK | PSH, sealed)
            talk.send(sender, sealed)
        elif how == 4:  # changed on its way
            talk.send(sender, sealed[:-1] + bytes((sealed[-1] ^ 1 + (head >> 4),)))
        elif how == 5:
            talk.wait((head >> 4) * 3000 * MS)
            talk.send(sender, sealed, cuts=[len(sealed) // 2])
        else:
            talk.send(sender, sealed)
    if script.at % 2:
        talk.close(Sender.SERVER if script.at % 4 == 1 else Sender.DEVICE)
    return _ethernet(talk)


def sessions_of_messages() -> Iterator[bytes]:
    said = spoken()
    for _, plain in said:
        yield b"".join(bytes((sender,)) + written(plain[:255]) for sender in (0, 1))
    for at in range(0, len(said), 5):
        some = said[at : at + 5]
        for how in (0, 2, 4, 6, 8, 10):
            yield b"".join(bytes(((s == "server") | how,)) + written(plain[:120]) for s, plain in some)


@target(
    "a whole session with keys: any messages sealed under its key, packets lost, late, repeated; judged and reported",
    sessions_of_messages,
    longest=2048,
    seconds=10,
)
def session(data: bytes) -> None:
    """A session goes through the analysis with keys and without; the reports say it without a hitch."""
    packets = talk_of(Script(data))
    analysis = Analysis(keys=ring())
    for packet in packets:
        analysis.take(packet)
    trace = analysis.finish()
    without = verdict(packets)
    assert len(trace.conversations) == len(without.conversations)
    secrets = trace.conversations[0].secrets
    assert secrets is not None
    assert secrets.session_key is not None
    text = "".join(jsonreport.json_text(trace))
    is_inert(text)
    assert BLOB[:16].hex() not in text
    is_inert(text_report(trace, "capture.pcap"))
    is_inert(text_report(without, "capture.pcap"))
