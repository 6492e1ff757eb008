"""What a workload holds, written beside it: totals, and a line for each connection."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

from .packets import Flow
from .talk import DEVICE, SERVER


class Session:
    """What happens in one connection; digests grow as it is made, so that nothing of it is kept."""

    def __init__(self, flow: Flow, device_id: bytes, key: int) -> None:
        self.outcome = "complete"
        self.holes = 0
        self.device_id, self.key = device_id, key
        self._flow = flow
        self._frames = [0, 0]
        self._messages = (hashlib.sha256(), hashlib.sha256())
        self._streams = (hashlib.sha256(), hashlib.sha256())

    def message(self, sender: int, plaintext: bytes) -> None:
        """Count a message."""
        self._frames[sender] += 1
        self._messages[sender].update(len(plaintext).to_bytes(2, "big") + plaintext)

    def sent(self, sender: int, data: bytes) -> None:
        """Count bytes of the TCP stream, each once."""
        self._streams[sender].update(data)

    def told(self) -> dict[str, object]:
        """Return the line."""
        return {
            **_ends(self._flow),
            "device_id": self.device_id.hex(),
            "core_key": f"core_{self.key:02}.pem",
            "outcome": self.outcome,
            "holes": self.holes,
            "frames": dict(zip(("device", "server"), self._frames, strict=True)),
            "messages_sha256": {name: self._messages[side].hexdigest() for name, side in SIDES.items()},
            "streams_sha256": {name: self._streams[side].hexdigest() for name, side in SIDES.items()},
        }

    @property
    def frames(self) -> list[int]:
        """Messages so far, from the device and from the server."""
        return self._frames


SIDES = {"device": DEVICE, "server": SERVER}


class Truth:
    """The two files of truth of one workload."""

    def __init__(self, folder: Path, name: str) -> None:
        self._totals = folder / f"{name}.truth.json"
        self._lines = (folder / f"{name}.sessions.jsonl").open("w", encoding="utf-8")
        self._outcomes: Counter[str] = Counter()
        self._frames = [0, 0]

    def session(self, session: Session) -> None:
        """Add one that got as far as a login."""
        self._outcomes[session.outcome] += 1
        for side, frames in enumerate(session.frames):
            self._frames[side] += frames
        self._lines.write(json.dumps(session.told()) + "\n")

    def failed(self, flow: Flow, device_id: bytes, outcome: str) -> None:
        """Add one that did not."""
        self._outcomes[outcome] += 1
        self._lines.write(json.dumps({**_ends(flow), "device_id": device_id.hex(), "outcome": outcome}) + "\n")

    def close(self, totals: dict[str, object]) -> None:
        """Write the totals; ``totals`` come first."""
        self._lines.close()
        outcomes = dict(sorted(self._outcomes.items()))
        frames = {name: self._frames[side] for name, side in SIDES.items()}
        told = {**totals, "sessions": self._outcomes.total(), "outcomes": outcomes, "frames": frames}
        self._totals.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _ends(flow: Flow) -> dict[str, object]:
    device, server = flow.ends
    return {"device": str(device), "server": str(server)}
