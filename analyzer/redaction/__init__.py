"""Captures that can be posted: the Spark conversations alone, under other addresses, and nothing copied unread.

Two readings of the capture. The first (`survey`) analyses it and notes of every byte whether it is one of a login or
of a sealed message, as TCP delivered it. The second (`rewrite`) makes each packet anew from what was understood of
it. Then the result is analysed and looked through (`check`) before anybody gets it.
"""

from analyzer.redaction.redact import LeakError, Redacted, plans_of, redact
from analyzer.redaction.survey import UNKNOWN, Plan

__all__ = ["UNKNOWN", "LeakError", "Plan", "Redacted", "plans_of", "redact"]
