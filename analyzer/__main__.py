"""The process of the command: ``sparkshark``, or ``python -m analyzer``. How it ends when somebody asks for that.

While the program is being loaded there is nothing to clean up, and the system ends it. From then on a request to end is
an exception, so that whatever is unfinished is taken away and no other process is left behind.
"""

import signal
import sys
import time
from types import FrameType
from typing import Final

GRACE_S: Final = 1.0
"""How long cleaning up has, after which another request ends the process at once. A terminal that is closed sends
two in a row."""
AGAIN_S: Final = 0.02
"""When it is tried again after a request came at a moment when Python raises nothing."""


def main() -> int:
    """Run the command line; return the exit status."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from analyzer.cli import main as command  # noqa: PLC0415 - what is above must come before it

    asked = _Requests()
    try:
        return command()
    finally:
        asked.let_go()


class _Requests:
    """Ctrl-C, ``kill``, and a terminal that is closed, as `analyzer.cli.Asked`; those that are ignored stay so."""

    def __init__(self) -> None:
        self._first: float | None = None
        named = (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP"))
        self._signals = [which for which in named if which and signal.getsignal(which) == signal.SIG_DFL]
        for which in self._signals:
            signal.signal(which, self._ask)
        sys.unraisablehook = self._swallowed

    def let_go(self) -> None:
        """Leave the end of the process to the system again: it does not take long."""
        for which in self._signals:
            signal.signal(which, signal.SIG_DFL)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        from analyzer.cli import Asked  # noqa: PLC0415 - loaded by now

        now = time.monotonic()
        if self._first is None:
            self._first = now
            if "logging" in sys.modules:  # libraries that work with others tell at length how these went
                sys.modules["logging"].disable()
            raise Asked(number)
        if now - self._first > GRACE_S:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def _swallowed(self, what: "sys.UnraisableHookArgs") -> None:
        """Ask again when the exception was lost, as those are that arise while Python itself tidies up."""
        from analyzer.cli import Asked  # noqa: PLC0415

        if not isinstance(what.exc_value, Asked):
            if self._first is None:
                sys.__unraisablehook__(what)
            return
        number, self._first = what.exc_value.number, None
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, lambda *_: self._ask(number, None))
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)


if __name__ == "__main__":
    sys.exit(main())
