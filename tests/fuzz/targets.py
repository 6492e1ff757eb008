"""All targets, in the order in which a byte meets the parsers."""

from fuzz import containers, keyfiles, packets, sealed, spoken, tcp, twins, whole  # noqa: F401 - each enters its own
from fuzz.target import TARGETS

__all__ = ["TARGETS"]
