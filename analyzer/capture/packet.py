"""What a capture file hands on: numbered packets, and an account of the file itself.

Nothing here knows a file format or a network protocol.
"""

from __future__ import annotations

from dataclasses import dataclass, field


class CaptureError(ValueError):
    """A capture that the user named cannot be read at all.

    The text is one line for the user: the file as typed, one fact, and what to do next.
    """


@dataclass(slots=True)
class Packet:
    """One captured packet. Not frozen: one is made for each record, and freezing costs four times as much.

    ``number`` counts from 1 as Wireshark's ``frame.number`` and runs on over several files. ``time_ns`` is
    nanoseconds since 1970 (UTC). ``link_type`` is a LINKTYPE_ value of the pcap registry. ``data`` is what
    was captured, ``original_length`` (bytes) what was on the wire. ``interface`` is the index of the
    capturing interface within the whole run (0 where the format has none).
    """

    number: int
    time_ns: int
    link_type: int
    data: bytes
    original_length: int
    interface: int = 0


@dataclass(frozen=True, slots=True)
class Damage:
    """A place where a capture file is not what its format promises.

    ``offset`` is in bytes from the start of the (unpacked) file, ``packet`` the number of the packet that is
    lost or cut there, or None when the damage lies between packets. ``what`` is a phrase for people.
    """

    offset: int
    packet: int | None
    what: str


@dataclass(slots=True)
class CaptureFile:
    """What one file of the run is, and how far it could be read.

    ``format`` is ``pcap`` or ``pcapng``, followed by the compression if any (``pcap.gz``). ``bytes`` is the
    size as read (unpacked). ``time_digits`` is 6 or 9, the digits after the point that its clock has.
    ``first_number`` is the number of its first packet. ``first_ns``/``last_ns`` are the earliest and latest
    packet times, None without packets. ``link_types`` and ``interfaces`` are those that packets really used.
    """

    path: str
    format: str = ""
    first_number: int = 1
    packets: int = 0
    bytes: int = 0
    time_digits: int = 6
    first_ns: int | None = None
    last_ns: int | None = None
    damage: list[Damage] = field(default_factory=list)
    link_types: set[int] = field(default_factory=set)
    interfaces: int = 1
