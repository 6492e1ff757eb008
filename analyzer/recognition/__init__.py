"""Which firmware a device can have and which software its server is, by what they did: most of it without a key.

What is said must exclude the others: a clue is the set of those that can have done what was seen, and what is
recognised is what all clues of one device, or of one server, leave. Two equally good clues that contradict each other
leave nothing known. A silence or a timer is a clue only where the capture has no hole that could explain it.

Not used, although the firmware differs there: how soon a device closes after a login that failed (those that run the
protocol on another system do not show the LED first), and that it keeps the socket (so does one that hangs).
"""

from analyzer.recognition.model import OTHER, Recognised, Recognition, described
from analyzer.recognition.timers import Timers
from analyzer.recognition.together import recognise

__all__ = ["OTHER", "Recognised", "Recognition", "Timers", "described", "recognise"]
