"""What a bound has kept from being looked at: a check that could not be made is told, an attacker's flood or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from analyzer.capture.ledger import LATEST_NS
from analyzer.findings import NotChecked
from analyzer.limits import BY_NAME
from analyzer.trace import Trace


def reached(trace: Trace) -> Iterator[NotChecked]:
    """Tell of each bound that was reached anywhere in the capture."""
    counts = trace.left_out | trace.background.left_out
    if (trace.last_ns or 0) >= LATEST_NS:
        counts["clock"] = 1
    if trace.keys is not None:
        counts |= _untried(trace)
    for name, limit in BY_NAME.items():
        if counts[name]:
            yield NotChecked(limit.code, limit.sentence(counts[name]))


def _untried(trace: Trace) -> Counter[str]:
    """Count the conversations whose keys were not all tried, and that none opened."""
    from analyzer.session.frames import MOST_CANDIDATES  # noqa: PLC0415 - without keys there is nothing to try

    counts: Counter[str] = Counter()
    keys = trace.keys
    for c in trace.conversations:
        secrets = c.secrets
        if keys is None or secrets is None or secrets.session_key is not None:
            continue
        if secrets.offer is not None and secrets.offer.untried:
            counts["key tries"] += 1
        nonce = c.part("nonce") if keys.session_keys else None
        if len(keys.loose_session_keys) > MOST_CANDIDATES or (
            nonce is not None and len(keys.session_keys_for(nonce.data)) > MOST_CANDIDATES
        ):
            counts["session keys"] += 1
    return counts
