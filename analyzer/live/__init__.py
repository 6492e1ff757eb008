"""Analysis while the packets arrive: what happens, what can be said of it by now, and what is kept of it.

Packets come from a pipe or an interface (`arrivals`, `interface`), are followed (`watcher`, by the clock of `clock`,
at the times of `due`), told (`steps`, `screen`, `lines`) and kept (`ring`).
"""

from analyzer.live.event import Event
from analyzer.live.watcher import Watcher

__all__ = ["Event", "Watcher"]
