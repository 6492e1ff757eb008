"""The stories that can be simulated, in the order in which they are listed."""

from analyzer.simulate.scenarios import handshake, session, network, addresses, times_sizes  # isort: skip
from analyzer.simulate.scenarios import updates, lifetimes, repeats, capture, elsewhere  # isort: skip
from analyzer.simulate.scenarios.registry import SCENARIOS, Scenario

__all__ = [
    "SCENARIOS",
    "Scenario",
    "addresses",
    "capture",
    "elsewhere",
    "handshake",
    "lifetimes",
    "network",
    "repeats",
    "session",
    "times_sizes",
    "updates",
]
