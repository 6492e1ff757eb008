"""What a gap between two files takes from a verdict: what it hides cannot be called missing or silent.

A finding that something did not come is withdrawn when it may have come in the gap; so is one that puts together
what lies on both sides of it. What one packet proves by itself stands.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from analyzer.findings import Confidence, Finding, Group, NotChecked, Severity
from analyzer.gaps import Gap
from analyzer.rules.facts import AllFacts, Facts
from analyzer.wording import plural

STANDS: Final = (Severity.OK, Severity.INFO)
"""Remarks, and what works: seen on both sides of a gap it has worked all the while."""


OF_THE_LOGIN: Final = (Group.CONNECTIVITY, Group.HANDSHAKE, Group.KEYS)


def withdraw(facts: Facts, found: Iterable[Finding], unchecked: list[NotChecked]) -> list[Finding]:
    """Return what can be said of one connection in spite of the gaps; the rest is added to ``unchecked``."""
    if not facts.trace.gaps.all:
        return list(found)
    kept = []
    for finding in found:
        gap = None if finding.severity in STANDS else _gap_in(facts, finding)
        if gap is None:
            kept.append(finding)
        else:
            unchecked.append(facts.not_checked(finding.code, hidden(gap)))
    return kept


def withdraw_each(every: AllFacts, found: Iterable[Finding], unchecked: list[NotChecked]) -> list[Finding]:
    """The same for findings of several connections, one each."""
    if not every.trace.gaps.all:
        return list(found)
    return [one for f in found for one in withdraw(every.of(f.conversations[0]), [f], unchecked)]


def hidden(gap: Gap) -> str:
    """Say that what seems to be lacking may be in the gap."""
    what = plural(gap.files, "file") + " of the capture" if gap.files else "a part of the capture"
    return (
        f"Between {gap.span.removeprefix('between ')} {what} {'are' if gap.files > 1 else 'is'} missing: what this"
        " connection seems to lack may be there."
    )


def _gap_in(facts: Facts, finding: Finding) -> Gap | None:
    """The gap that may hold what the finding has not seen."""
    if not finding.packets or (finding.confidence is Confidence.CERTAIN and not finding.silence):
        return None
    c, first, last = facts.conversation, finding.packets[0], finding.packets[-1]
    if finding.spec.group in OF_THE_LOGIN or facts.reached != "established":
        # Each step rests on those before it; without a SYN, they may lie in a gap ahead of the first packet.
        first = 0 if c.midway else min(first, c.first_packet)
    if finding.silence or facts.reached == "syn":
        last = max(last, c.last_packet)  # it lasts so long, if no later packet is named that ended it
    return facts.trace.gaps.within(c, first, last)
