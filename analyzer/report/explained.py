"""What the page of a finding says where the table of findings leaves a blank."""

from __future__ import annotations

import re
from typing import Final

from analyzer.findings import FindingSpec

ANY_SERVER: Final = {"server": "SERVER", "port": "5683", "mac": ""}
"""What stands in the steps of a finding where no capture is at hand."""
LED_TELLS_NOTHING: Final = "It tells nothing of this."
NO_KEY_HELPS: Final = "None is needed, and none would tell more."


def filled(text: str) -> str:
    """Put what stands for a name where no capture gives it."""
    return re.sub(r"\{(\w+)\}", lambda found: ANY_SERVER.get(found[1], found[1].upper()), text)


def led_of(spec: FindingSpec) -> str:
    """What the device's LED tells."""
    return spec.led or LED_TELLS_NOTHING
