"""What the tests of decryption and of the rules with keys share: packets and keys in, trace out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from judging import CAPTURES, captured, truth

from analyzer.capture.packet import Packet
from analyzer.conversation import Conversation
from analyzer.keys import KeyRing
from analyzer.pipeline import Analysis
from analyzer.simulate import Packet as SimulatedPacket
from analyzer.simulate import Simulation
from analyzer.trace import Trace

KEYS = CAPTURES / "keys"
DEAD = ("stale", "dead")
"""Words in the notes of frames that were sent under a key which is not this session's."""


def ring(*names: str, **more: Any) -> KeyRing:
    """Keys of the shipped captures, by file name."""
    return KeyRing.load(*(KEYS / name for name in names), **more)


@cache
def right_keys(name: str) -> KeyRing:
    """The server's key and the device keys that played in a shipped capture."""
    told = truth(name)["keys"]
    named = [told.get("server_private", "keys/server.pem")]
    named += [device["device_private"] for device in told.get("devices", {}).values()]
    return KeyRing.load(*sorted(CAPTURES / path for path in named))


def unlock(packets: Iterable[Packet], keys: KeyRing | None) -> Trace:
    """Analyse packets with keys, as if they were a capture file of their own."""
    analysis = Analysis(keys=keys)
    for number, packet in enumerate(packets, 1):
        analysis.take(
            Packet(number, packet.time_ns, packet.link_type, packet.data, packet.original_length, packet.interface)
        )
    return analysis.finish()


def key_folder(simulation: Simulation, folder: Path, *names: str) -> KeyRing:
    """The keys of a simulation (those named, or all but the stale ones), as if read from files."""
    chosen = names or tuple(name for name in simulation.keys if "stale" not in name)
    for name in chosen:
        (folder / name).write_bytes(simulation.keys[name])
    return KeyRing.load(*(folder / name for name in chosen))


def play(simulation: Simulation, keys: KeyRing | None, packets: Sequence[SimulatedPacket] | None = None) -> Trace:
    """Analyse a simulated capture with keys."""
    return unlock(captured(simulation.packets if packets is None else packets, simulation.link_type), keys)


def conversation_of(trace: Trace, session: dict[str, Any]) -> Conversation:
    """The conversation of a session in a truth file."""
    ends = (session["client"]["ip"], session["client"]["port"])
    (found,) = (c for c in trace.conversations if (c.device.ip, c.device.port) == ends)
    return found


def sent(session: dict[str, Any], sender: str) -> list[str]:
    """The plaintexts that one end sent under this session's key, in order, as hex."""
    lines = session["c2s" if sender == "device" else "s2c"]
    return [line["hex"] for line in lines if not any(word in (line.get("note") or "") for word in DEAD)]


def whole(conversation: Conversation, sender: str) -> list[str]:
    """The plaintexts that opened whole, in order, as hex."""
    return [m.plaintext.hex() for m in conversation.messages if m.direction == sender and m.whole]


def is_part_of(some: Sequence[str], every: Sequence[str]) -> bool:
    """Whether ``some`` is ``every`` with none or several left out."""
    rest = iter(every)
    return all(one in rest for one in some)


def nothing_wrong(trace: Trace, told: dict[str, Any]) -> None:
    """Assert that each message is one that was sent, in its place; and a tail the tail of one."""
    for conversation in trace.conversations:
        ends = (conversation.device.ip, conversation.device.port)
        sessions = [s for s in told["sessions"] if (s["client"]["ip"], s["client"]["port"]) == ends]
        for sender in ("device", "server"):
            every = [line for session in sessions for line in sent(session, sender)]
            got = whole(conversation, sender)
            assert is_part_of(got, every) or is_part_of(sorted(got), sorted(every))
            tails = {line[32:] for line in every if len(line) >= 32}
            for message in conversation.messages:
                if message.direction == sender and not message.whole:
                    assert message.missing == 16
                    assert message.plaintext.hex() in tails
