"""Captures of any size and shape, with their keys and the truth about them:  python -m tests.benchmarks.workloads

needle    1.3 million packets of other traffic, 20 sessions among them
fleet     10,000 devices, each a login and about 60 messages, one beside the other
long      one session of 500,000 encrypted frames
stalls    50,000 logins that fail, of 50 devices that keep trying, for seven reasons
hostile   1,000 sessions with packets repeated, late, overlapping, lost and repaired; one in twenty has holes
dead      1,000,000 connections, nearly all of which never come to anything

These are the numbers of scale 1. The same workload, scale, seed and options give the same bytes. Nothing here is
shared with what reads captures: bytes, `struct`, the simulator's keys and messages, and ciphers from `cryptography`.

Traps in all of them: some segments hold two frames or a part of one; what devices send is padded to Ethernet's 60
bytes; pairs of devices share one address; many devices share one key; and where devices come back, they come back
from other ports. The random bytes of *needle* hold the two bytes of port 5683 thousands of times, and some of its
UDP goes there.
"""

from .make import FORMATS, LINKS, WORKLOADS, Made, make

__all__ = ["FORMATS", "LINKS", "WORKLOADS", "Made", "make"]
