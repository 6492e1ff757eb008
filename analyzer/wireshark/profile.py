"""The `Spark` profile for Wireshark: columns, colours, filters and buttons for this protocol.

A profile replaces Wireshark's defaults and the user's own settings while it is chosen, so it sets what this protocol
needs and nothing else, and brings the colour rules of TCP along. A list of digests beside the files tells later
whether they are still as they were written.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping
from typing import Final

from analyzer.findings import Severity
from analyzer.outfile import UNFINISHED
from analyzer.wireshark.install import Condition, Done, InstallError, content_of, make_folder, unlink, write

NAME: Final = "Spark"
DIGESTS: Final = "sparkshark.sha256"
KEPT_BY_WIRESHARK: Final = "recent"
"""What Wireshark writes into a profile that was only looked at: window sizes."""

# -- columns ---------------------------------------------------------------------------------------------------

COLUMNS: Final = (
    ("No.", "%m"),
    ("Time", "%t"),
    ("From", "%Cus:spark.direction:0:R"),
    ("Source", "%s"),
    ("Destination", "%d"),
    ("Protocol", "%p"),
    ("Waited, seconds", "%Cus:spark.time_in_step:0:R"),
    ("Finding", "%Cus:spark.finding:0:R"),
    ("Info", "%i"),
)
"""Few, so that Info, which names step and message, is seen in a window of usual width."""

# -- colours: name, filter, background, text -------------------------------------------------------------------

DARK, WHITE = "#14171a", "#ffffff"
FAILS, WARNS, NETWORK = "#b3261e", "#ffd24d", "#3d2266"
LOGIN, FROM_DEVICE, FROM_SERVER, LOCKED = "#ffe8c2", "#d6e8ff", "#fbdcec", "#d0d7de"
"""A login by its steps in sand; what the device says bluish and what the server says pinkish, as in the reports."""


def _one_of(field: str, values: tuple[str, ...]) -> str:
    return " || ".join(f'{field} == "{value}"' for value in values)


LOGIN_STEPS: Final = 'spark.nonce || spark.identity || spark.session || spark.stage == "hello"'
SERIOUS: Final = _one_of("spark.severity", (Severity.CRITICAL, Severity.MAJOR))
SLIGHT: Final = _one_of("spark.severity", (Severity.MINOR,))
COLOURS: Final = (
    ("Spark: does not connect, or drops", SERIOUS, FAILS, WHITE),
    ("Spark: warning", SLIGHT, WARNS, DARK),
    ("TCP reset", "tcp.flags.reset == 1", NETWORK, "#ffd24d"),
    (
        "TCP trouble",
        "tcp.analysis.flags && !tcp.analysis.window_update && !tcp.analysis.keep_alive && !tcp.analysis.keep_alive_ack",
        NETWORK,
        WHITE,
    ),
    ("Spark: login", LOGIN_STEPS, LOGIN, DARK),
    ("Spark: device says", 'spark.message && spark.direction == "device"', FROM_DEVICE, DARK),
    ("Spark: server says", 'spark.message && spark.direction == "server"', FROM_SERVER, DARK),
    ("Spark: locked", "spark", LOCKED, DARK),
    ("ICMP error", "icmp.type == 3 || icmp.type == 11 || icmpv6.type < 5", NETWORK, WHITE),
    ("TCP SYN or FIN", "tcp.flags.syn == 1 || tcp.flags.fin == 1", "#a0a0a0", DARK),
    ("TCP", "tcp", "#f2f2f7", DARK),
    ("UDP", "udp", "#eef6fa", DARK),
)
"""First match wins. Background and text differ by 4.5 in contrast at least, and no two rules by red and green alone."""

# -- buttons and saved filters ---------------------------------------------------------------------------------

BUTTONS: Final = (
    ("Login", LOGIN_STEPS, "The steps of the login: greeting, who I am, reply, hello"),
    ("Messages", "spark.message", "Messages that a key opened"),
    ("Events", "spark.event.name", "Published events, by their name"),
    ("Calls", "spark.function.name || spark.variable.name", "Function calls and variable requests"),
    ("Update", 'spark.message matches "^(Update|Save|Chunk|Ota)"', "A firmware update over the air"),
    ("Findings", "spark.finding", "What is wrong, at the packets that show it"),
    ("More//Locked", "spark.frame.length && !spark.message", "Messages that no key opened"),
    ("More//Pings", 'spark.message matches "^Ping"', "Signs of life of an idle connection"),
    ("More//Without pings", 'spark && !(spark.message matches "^Ping")', "All but the signs of life"),
    ("More//Connections", "tcp.port == 5683 && (tcp.flags.syn == 1 || tcp.flags.fin == 1 || tcp.flags.reset == 1)",
     "Where connections begin and end"),
)  # fmt: skip


def files() -> dict[str, str]:
    """Return the files of the profile: name and text."""
    buttons = [f'"TRUE","{label}","{_quoted(what)}","{about}"' for label, what, about in BUTTONS]
    saved = [f'"Spark: {label.removeprefix("More//").lower()}" {what}' for label, what, _ in BUTTONS]
    colours = [f"@{name}@{what}@{_rgb(ground)}{_rgb(text)}" for name, what, ground, text in COLOURS]
    columns = [f'\t"{title}", "{content}"' for title, content in COLUMNS]
    return {
        "preferences": "# Wireshark profile for Spark, made by sparkshark.\n"
        + "gui.column.format:\n"
        + ",\n".join(columns)
        # The plugin needs no help with packets out of order; the other protocols beside it do.
        + "\ntcp.reassemble_out_of_order: TRUE\n",
        "colorfilters": "# Colour rules for Spark, made by sparkshark.\n" + "\n".join(colours) + "\n",
        "dfilter_buttons": "# Filter buttons for Spark, made by sparkshark.\n" + "\n".join(buttons) + "\n",
        "dfilters": "\n".join(saved) + "\n",
        "profile_settings": "# Opening a capture with Spark traffic chooses this profile (Wireshark 4.4 and later).\n"
        "auto_switch_filter: spark\n",
    }


def _quoted(text: str) -> str:
    return text.replace('"', "\\x22")


def _rgb(colour: str) -> str:
    """Return ``#rrggbb`` as Wireshark writes it, with 16 bits for each part."""
    parts = (int(colour[at : at + 2], 16) * 257 for at in (1, 3, 5))
    return f"[{','.join(map(str, parts))}]"


# -- on the disk -----------------------------------------------------------------------------------------------


def folder_in(configuration: str) -> str:
    """Return the profile's folder below a personal configuration folder."""
    return os.path.join(configuration, "profiles", NAME)


def look(folder: str) -> Condition:
    """Return what lies in the profile's folder, compared with the profile as this sparkshark has it."""
    if not os.path.lexists(folder):
        return Condition.MISSING
    written, ours = _digests_in(folder), _digests_of(files())
    names = {name for name in os.listdir(folder) if not UNFINISHED.fullmatch(name)} - {DIGESTS, KEPT_BY_WIRESHARK}
    there = _digests(folder, names)
    if there == written:
        return Condition.CURRENT if written == ours else Condition.OLDER
    if written is None and not there:
        return Condition.MISSING  # a folder with nothing in it
    # Writing it may have been cut short: then each file is either as it was or as it is to be.
    before = written or {}
    whole = before.keys() & ours.keys() <= there.keys()
    if whole and all(digest in (before.get(name), ours.get(name)) for name, digest in there.items()):
        return Condition.OLDER
    return Condition.FOREIGN if written is None else Condition.CHANGED


def put(folder: str, *, force: bool = False) -> Done:
    """Write the profile. `InstallError` when somebody else's profile, or a changed one, is there."""
    there = look(folder)
    if there is Condition.CURRENT:
        return Done.NOTHING
    if there in (Condition.FOREIGN, Condition.CHANGED) and not force:
        raise InstallError(f"{folder}: {SAYS[there]}; left alone. Replace it: --force")
    make_folder(folder)
    texts = files()
    old = _digests_in(folder) or {}
    for name, text in texts.items():
        write(os.path.join(folder, name), text.encode())
    for name in old.keys() - texts.keys():
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name))
    # Last, so that a half-written profile never counts as a whole one.
    sums = "".join(f"{digest}  {name}\n" for name, digest in _digests_of(texts).items())
    write(os.path.join(folder, DIGESTS), sums.encode())
    if there is Condition.MISSING:
        return Done.INSTALLED
    return Done.UPDATED if there is Condition.OLDER else Done.REPLACED


def remove(folder: str, *, force: bool = False) -> bool:
    """Remove the profile if sparkshark wrote it and nobody changed it since; return whether it did."""
    there = look(folder)
    if there in (Condition.MISSING, Condition.FOREIGN) or os.path.islink(folder):
        return False
    if there is Condition.CHANGED and not force:
        raise InstallError(f"{folder}: {SAYS[there]}; left alone. Remove it: --force")
    for name in (*(_digests_in(folder) or {}), KEPT_BY_WIRESHARK, DIGESTS):
        if os.path.lexists(path := os.path.join(folder, name)):
            unlink(path)
    with contextlib.suppress(OSError):  # what the user has put there beside our files stays
        os.rmdir(folder)
    return True


SAYS: Final = {
    Condition.FOREIGN: "not written by sparkshark",
    Condition.CHANGED: "changed since sparkshark wrote it",
}


def _digests(folder: str, names: set[str]) -> dict[str, str]:
    contents = {name: content_of(os.path.join(folder, name)) for name in sorted(names)}
    return {name: "" if content is None else _digest(content) for name, content in contents.items()}


def _digests_of(texts: Mapping[str, str]) -> dict[str, str]:
    return {name: _digest(texts[name].encode()) for name in sorted(texts)}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digests_in(folder: str) -> dict[str, str] | None:
    """Return the digests of the files as they were written: ``sha256sum`` lines; None without such a list."""
    content = content_of(os.path.join(folder, DIGESTS))
    if content is None:
        return None
    # Names as Wireshark's own are: nothing that could reach outside the profile.
    return {name: digest for digest, name in re.findall(r"(?m)^([0-9a-f]{64})  ([a-z_]+)$", content.decode("latin-1"))}
