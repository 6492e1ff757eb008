"""Where the findings were met in public: threads of the community and issues of the projects concerned."""

from __future__ import annotations

from typing import Final

_TITLES: Final = {
    627: "My Core is flashing yellow/red lights",
    636: "Solid magenta after a few minutes",
    1130: "Flashing blue, can't reset via mode button",
    1322: "Bug bounty: Kill the 'Cyan flash of death'",
    1375: "Core unable to update firmware over the air",
    2323: "Core won't connect, and the usual restore/reset methods aren't working",
    2414: "My core never gets to breathing cyan",
    2662: "Wifi connecting, but connecting to cloud does not succeed",
    3311: "Questions about Firmware in general",
    3793: "Connecting through OSU network",
    7931: "Undocumented flash sequence",
    11247: "Red LED blinks three times",
    12118: "Photon setup flashing cyan with a 'quick red burst'",
    27715: "How Photon connects",
    29445: "SOLVED - Blinking Cyan Bursting Red Flicker",
    36159: "Flashing Cyan Annoyance!",
}


def thread(number: int) -> str:
    """Return the name and place of a thread of the Particle community."""
    return f'"{_TITLES[number]}" (community.particle.io/t/{number})'


_REPOSITORIES: Final = {
    "spark-server": "particle-iot/spark-server",
    "spark-protocol": "particle-iot/spark-protocol",
    "device-os": "particle-iot/device-os",
    "particle-cli": "particle-iot/particle-cli",
    "docs": "particle-iot/docs",
    "docs-old": "particle-iot-archived/docs-old",
    "spark-cli": "particle-iot-archived/spark-cli",
    "core-communication-lib": "particle-iot-archived/core-communication-lib",
    "Brewskey": "Brewskey/spark-server",
    "node": "nodejs/node",
    "openssl": "openssl/openssl",
    "scapy": "secdev/scapy",
    "nDPI": "ntop/nDPI",
}


def issues(project: str, *numbers: int) -> str:
    """Return issues of a project by its short name."""
    return f"{_REPOSITORIES[project]} {', '.join(f'#{number}' for number in numbers)}"
