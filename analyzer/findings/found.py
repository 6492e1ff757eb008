"""What the rules say: one finding with its evidence, and a check that could not be made."""

from __future__ import annotations

from dataclasses import dataclass, field

from analyzer.findings.model import CONFIDENCE_ORDER, SEVERITY_ORDER, Confidence, FindingSpec, Severity
from analyzer.findings.table import FINDINGS


@dataclass(frozen=True, slots=True)
class Evidence:
    """One observation: a sentence, and the packets it rests on (Wireshark's numbers)."""

    text: str
    packets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RuledOut:
    """A look-alike that this capture excludes, and by what."""

    code: str
    because: str


@dataclass(slots=True)
class Finding:
    """One diagnosis that this capture supports. ``count`` conversations end the same way (folded into one)."""

    code: str
    confidence: Confidence
    summary: str
    severity: Severity
    evidence: tuple[Evidence, ...] = ()
    ruled_out: tuple[RuledOut, ...] = ()
    settle: tuple[str, ...] = ()
    fix: tuple[str, ...] = ()
    wireshark_shows: str | None = None
    conversations: tuple[int, ...] = ()
    packets: tuple[int, ...] = ()
    count: int = 1
    first_ns: int | None = None
    last_ns: int | None = None
    cadence_s: float | None = None  # median time between the starts of the attempts folded here
    device: str | None = None
    exemplar: int | None = None  # the conversation that shows it most clearly
    predicate: str = ""  # what the device does, behind its address
    because: str = ""  # the half-sentence behind the word of confidence
    details: dict[str, object] = field(default_factory=dict)
    caused_by: str | None = None  # code of another finding, of the same connections, that explains this one
    silence: bool = False  # it rests on nothing having come

    @property
    def spec(self) -> FindingSpec:
        """The row of the table."""
        return FINDINGS[self.code]

    @property
    def rank(self) -> tuple[int, int, int]:
        """Sorts what to show first: most severe, then most sure, then most specific."""
        return (
            SEVERITY_ORDER.index(self.severity),
            CONFIDENCE_ORDER.index(self.confidence),
            -self.spec.specific,
        )


@dataclass(frozen=True, slots=True)
class NotChecked:
    """A check that could not be made: a different thing from one that passed."""

    code: str
    because: str
    conversations: tuple[int, ...] = ()
