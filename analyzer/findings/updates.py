"""Firmware updates that fail (SPK6xx)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from analyzer.catalogue import CHUNK_SILENCE, SERVER_UPDATE_LIMITS, SMALLEST_FRAME_ON_WIRE, UPDATE_OFFER_EVERY
from analyzer.findings.model import Act, FindingSpec, Group, Key, LadderStep, Severity
from analyzer.findings.sources import issues, thread
from analyzer.findings.steps import CHUNK, CHUNK_SIZES, DEVICE, LOGGED_IN, OFFER, OFFER_TAKEN, SERVER, SMALLEST
from analyzer.sessionwatch import UPDATE_BEGIN_FRAME

AGAIN: Final = (CHUNK_SILENCE, CHUNK_SILENCE)
"""A device asks for a chunk at this pace."""

UPDATES: Final = (
    FindingSpec(
        "SPK601",
        "update-stalled",
        Severity.MAJOR,
        Group.UPDATE,
        title="An update stops in the middle",
        short="Stalled update",
        says="A firmware update stops after {chunks} chunks.",
        of="stops in the middle of an update",
        means="The server sends chunks of a new firmware, and then one of the two stops: the device says nothing any more,"
        " or it asks for the next chunk and the server sends none. Or the device does not even take up the offer.",
        looks=f"A run of equal frames of {CHUNK_SIZES}, then for 12 s nothing, or only {SMALLEST_FRAME_ON_WIRE} bytes from the device"
        f" every {CHUNK_SILENCE:.0f} s. An update that never begins:"
        f" three frames of {UPDATE_BEGIN_FRAME} bytes from the server, {UPDATE_OFFER_EVERY:.0f} s apart, and no answer; with a key also: a refusal.",
        led="magenta, solid",
        fix=("Press reset, and update again near the access point, or over USB.",),
        settle="--device-key FILE shows which chunk, and the percentage.",
        not_it=(
            ("SPK602", "there the server first sends the missing chunk again, and again"),
            ("SPK603", "there chunks come at an even pace until the server's time is over"),
        ),
        engineer=f"No device frame after the last chunk; or ChunkMissed at the {CHUNK_SILENCE:.0f} s timer, neither acknowledged nor resent.",
        source="DIAGNOSES SPK601",
        ladder=(
            LOGGED_IN,
            OFFER,
            OFFER_TAKEN,
            CHUNK,
            replace(CHUNK, note="the last one"),
            LadderStep(Act.BYTES, DEVICE, "asks for the next one", SMALLEST, AGAIN, sometimes=True),
            LadderStep(Act.SILENCE, SERVER, "no chunk any more"),
        ),
        keys=(
            (Key.DEVICE_PRIVATE, "chunk n of m, the percentage, and what the device did before"),
            (Key.SESSION, "the same"),
        ),
        seen_in=(
            thread(636),
            thread(1375),
            issues("docs-old", 73),
            issues("device-os", 272, 1280),
            issues("spark-server", 74),
        ),
    ),
    FindingSpec(
        "SPK602",
        "chunks-missed",
        Severity.MAJOR,
        Group.UPDATE,
        title="Parts of an update are asked for again and again",
        short="Missed chunks",
        says="A firmware update fails: the device asks for a missing part again and again, and the server no longer"
        " sends it.",
        of="asks for a part of an update again and again",
        means="The device reports a chunk as missing or damaged, gets it again, and reports it again. The servers give up after"
        " some of these reports.",
        looks=f"After a run of equal chunk frames: {SMALLEST_FRAME_ON_WIRE} bytes from the device every {CHUNK_SILENCE:.0f} s, and no chunk any"
        " more. With a key also: a chunk, or the end of the update, that is refused each time.",
        led="magenta, then back to the old firmware",
        fix=(
            "Press reset, and update again near the access point, or over USB.",
            "Own server: it gives up after 10 reports (old) or more than 10 open chunks (Brewskey).",
        ),
        causes=("radio loss", "flash fault (always the same chunk)", "server gave up"),
        settle="--device-key FILE shows which chunks, and whether their checksums were right.",
        not_it=(
            ("SPK601", "there no chunk is sent again"),
            ("SPK603", "there no chunk is asked for twice"),
        ),
        engineer=f"ChunkMissed at the {CHUNK_SILENCE:.0f} s timer after the last Chunk.",
        specific=1,
        source="DIAGNOSES SPK602; PROTOCOL 5.5",
        ladder=(
            LOGGED_IN,
            OFFER,
            OFFER_TAKEN,
            CHUNK,
            LadderStep(Act.BYTES, DEVICE, "it is missing, or damaged", SMALLEST),
            replace(CHUNK, note="the same one again, some times"),
            LadderStep(Act.BYTES, DEVICE, "missing or damaged all the same", SMALLEST),
            LadderStep(Act.BYTES, SERVER, "acknowledged, but given up", SMALLEST),
            LadderStep(Act.BYTES, DEVICE, "asked for again", SMALLEST, AGAIN),
            LadderStep(Act.BYTES, DEVICE, "and again", SMALLEST, AGAIN),
            LadderStep(Act.SILENCE, SERVER, "no chunk any more"),
        ),
        keys=(
            (
                Key.DEVICE_PRIVATE,
                "a chunk whose checksum is wrong here too: the server; right here: the device's flash",
            ),
            (Key.SESSION, "the same"),
        ),
        seen_in=(issues("Brewskey", 189, 194, 239), issues("device-os", 1240, 1558)),
    ),
    FindingSpec(
        "SPK603",
        "update-too-slow",
        Severity.MAJOR,
        Group.UPDATE,
        title="An update is too slow for the server",
        short="Update over its time limit",
        says="A firmware update goes on steadily but too slowly: the server allows {limit} s for it and stops in the"
        " middle.",
        of="is too slow for an update",
        means=f"No part of it is lost; there are too many for the time. The community server allows {SERVER_UPDATE_LIMITS[0]:.0f} s for a whole update,"
        f" the old one {SERVER_UPDATE_LIMITS[1]:.0f} s.",
        looks=f"Equal frames of {CHUNK_SIZES} at an even pace, each answered, until the server stops or hangs up"
        f" a full {SERVER_UPDATE_LIMITS[0]:.0f} s or {SERVER_UPDATE_LIMITS[1]:.0f} s after it began.",
        led="magenta until the end, then breathing cyan",
        fix=(
            "Update near the access point, or over USB:",
            "  particle flash --usb FILE",
            "Own server: raise its limit, or use larger chunks and fast updates.",
            "No such frames in a capture of an update that fails: the delay lies before the device, in compiling or in the"
            " upload to the server.",
        ),
        causes=("slow link with a long way to the server", "small chunks", "a busy device"),
        settle="--device-key FILE shows how large the update is, and how long it would have taken.",
        not_it=(
            ("SPK601", "there nothing goes on any more before the limit is over"),
            ("SPK602", "there the same parts are asked for again and again"),
        ),
        engineer=f"Chunk rate steady, last chunk within a few intervals of begin + {SERVER_UPDATE_LIMITS[0]:.0f} s or {SERVER_UPDATE_LIMITS[1]:.0f} s, no UpdateDone.",
        specific=2,
        source="DIAGNOSES SPK603; PROTOCOL 5.5",
        ladder=(
            LOGGED_IN,
            OFFER,
            OFFER_TAKEN,
            CHUNK,
            replace(CHUNK, note="at an even pace"),
            LadderStep(
                Act.SILENCE,
                SERVER,
                f"{SERVER_UPDATE_LIMITS[0]:.0f} or {SERVER_UPDATE_LIMITS[1]:.0f} s after the offer",
                sometimes=True,
            ),
        ),
        keys=(
            (Key.DEVICE_PRIVATE, "the size of the update, and how long all of it would take"),
            (Key.SESSION, "the same"),
        ),
        seen_in=(thread(2662), issues("Brewskey", 145, 264)),
    ),
)
