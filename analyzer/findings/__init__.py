"""The findings, as data: one row a diagnosis, with every word that a person reads about it.

`explain`, the reports, the README's table and the Lua plugin are views of `FINDINGS`. Nothing here knows how a
finding is detected; that is in `analyzer.rules`. Codes go by group and are never used twice; a retired code
keeps its row. Sources are sections of the diagnosis catalogue and of the protocol reference.
"""

from __future__ import annotations

from analyzer.findings.commands import (
    DFU,
    DOCTOR,
    DOCTOR_SENDS,
    OWN_SERVER,
)
from analyzer.findings.found import (
    Evidence,
    Finding,
    NotChecked,
    RuledOut,
)
from analyzer.findings.model import (
    BAD,
    CONFIDENCE_ORDER,
    CONFIDENCE_WORDS,
    SEVERITY_ORDER,
    STATE_OF_GROUP,
    Confidence,
    FindingSpec,
    Group,
    Severity,
    weaker,
)
from analyzer.findings.table import (
    FINDINGS,
    JUDGED_IN_WIRESHARK,
    ON_THE_COMMAND_LINE,
)

__all__ = [
    "BAD",
    "CONFIDENCE_ORDER",
    "CONFIDENCE_WORDS",
    "DFU",
    "DOCTOR",
    "DOCTOR_SENDS",
    "FINDINGS",
    "JUDGED_IN_WIRESHARK",
    "ON_THE_COMMAND_LINE",
    "OWN_SERVER",
    "SEVERITY_ORDER",
    "STATE_OF_GROUP",
    "Confidence",
    "Evidence",
    "Finding",
    "FindingSpec",
    "Group",
    "NotChecked",
    "RuledOut",
    "Severity",
    "weaker",
]
