"""``sparkshark watch``: the same verdict while packets arrive."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from analyzer.catalogue import SPARK_PORT
from analyzer.cli import EXIT_INTERRUPTED, UsageError, shortened
from analyzer.commands import analyze, common
from analyzer.fault import note
from analyzer.wording import listing, number

if TYPE_CHECKING:
    from analyzer.capture import Packet
    from analyzer.capture.packet import CaptureFile
    from analyzer.live import Watcher
    from analyzer.live.arrivals import Arrivals
    from analyzer.live.clock import PacketClock
    from analyzer.live.output import Output
    from analyzer.live.ring import Ring

FORMATS: Final = ("text", "jsonl")
STANDARD_INPUT: Final = "standard input"
LONGEST_S: Final = 10**9
"""The longest --duration: thirty years."""
IDLE_S: Final = 0.5
"""How long it is waited for a packet before the terminal is looked after."""
SHORTEST_S: Final = 0.001
LARGEST_RING_MB: Final = 100_000
"""A file of 100 GB: more is no ring, and a slip of the hand."""

DESCRIPTION: Final = """\
The verdict of analyze while packets arrive, from an interface of this machine or from a capture on a pipe: each step
as it happens, each verdict as soon as it can be known. Ctrl-C ends it with the report that analyze would print."""
EXAMPLES: Final = """\
examples
  sudo sparkshark watch -i wlan0
  ssh router tcpdump -U -w - port 5683 | sparkshark watch -
  sudo sparkshark watch -i eth0 --ring ring/ --quiet
  sudo sparkshark watch -i eth0 --duration 60 --fail-on critical --format jsonl
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from analyzer.live import ring

    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("capture", metavar="-", nargs="?", help="a capture on standard input (pcap or pcapng)")
    look = parser.add_argument_group("what to look at")
    look.add_argument("-i", "--interface", metavar="IFACE", help="a network interface of this machine")
    look.add_argument(
        "--port", type=common.port, action="append", metavar="N", help=f"server port, repeatable (default {SPARK_PORT})"
    )
    parser.set_defaults(look=look)
    common.add_expected(parser)
    look.add_argument("--count", type=common.whole_number("--count"), metavar="N", help="stop after N packets")
    look.add_argument("--duration", type=seconds, metavar="SECONDS", help="stop after this time")
    common.add_keys(parser)
    keep = parser.add_argument_group("keeping the packets")
    keep.add_argument("--ring", metavar="DIR", help="keep the packets in files in DIR, the oldest giving way")
    keep.add_argument(
        "--ring-size",
        type=ring_size,
        default=ring.SIZE_MB,
        metavar="MB",
        help=f"size of one file (default {ring.SIZE_MB}: opened in Wireshark at once)",
    )
    keep.add_argument(
        "--ring-files",
        type=common.whole_number("--ring-files"),
        default=ring.FILES,
        metavar="N",
        help=f"how many files (default {ring.FILES}: {ring.FILES * ring.SIZE_MB // 1000} GB in all)",
    )
    out = parser.add_argument_group("output")
    out.add_argument("--format", choices=FORMATS, default="text", metavar="FORMAT", help=", ".join(FORMATS))
    out.add_argument("--messages", action="store_true", help="show messages that the keys open, as they come")
    out.add_argument("--redact", action="store_true", help="shorten device IDs and addresses, for posting")
    common.add_screen(out, quiet="verdicts only; at the end state, sentence, first step")
    out.add_argument(
        "--fail-on",
        choices=analyze.LEVELS,
        default="never",
        metavar="LEVEL",
        help="exit 1 at critical, major, minor or never",
    )


def seconds(text: str) -> float:
    """Return a time, or complain in one line."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= LONGEST_S:
        raise UsageError(f"--duration {shortened(text)}: seconds are wanted, such as 60.")
    return value


def ring_size(text: str) -> int:
    """Return megabytes, or complain in one line."""
    value = common.whole_number("--ring-size")(text)
    if value > LARGEST_RING_MB:
        raise UsageError(f"--ring-size {shortened(text)}: at most {number(LARGEST_RING_MB)} (megabytes).")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Watch until it ends or somebody ends it, then print the report."""
    check(arguments)
    keys = common.keys(arguments)
    if arguments.messages and keys is None:
        raise UsageError("--messages: only keys open messages. Try: --keys PATH, or leave out --messages")
    from analyzer.live import Watcher
    from analyzer.live.arrivals import Arrivals
    from analyzer.live.clock import PacketClock
    from analyzer.live.output import Output
    from analyzer.pipeline import collect_rarely
    from analyzer.report.redact import Redactor

    collect_rarely()
    output = Output(sys.stdout, common.style_of(arguments, sys.stdout), form=arguments.format)
    watcher = Watcher(
        output.tell,
        keys=keys,
        ports=common.ports(arguments),
        expect_servers=arguments.expect_server or (),
        messages=arguments.messages,
    )
    source = sniffed(arguments, output) if arguments.interface is not None else piped()
    watcher.trace.captures = source.files
    ring = opened_ring(arguments, output)
    shorten = Redactor(watcher.trace, common.named_paths(arguments)) if arguments.redact else None
    if shorten is not None:
        watcher.met = shorten.meet
    output.begin(watcher, shorten, name_of(arguments))
    arrivals = Arrivals(source.packets)
    clock = PacketClock(time.time_ns() if arguments.interface is not None else None)
    with interruptible(arrivals.stop):
        try:
            follow(Following(arguments, watcher, output, clock, ring), arrivals)
        finally:
            output.end()
        return report(arguments, watcher, output, source.warnings())


def check(arguments: argparse.Namespace) -> None:
    """Complain when it is not said, or not clear, what to watch."""
    if arguments.capture is None and arguments.interface is None:
        from analyzer.live.interface import interfaces

        there = f" There are: {listing(interfaces())}." if interfaces() else ""
        raise UsageError(f"watch: say what to watch: -i IFACE, or - for a capture on a pipe.{there}")
    if arguments.capture is not None and arguments.interface is not None:
        raise UsageError(f"-i and {shortened(arguments.capture)} exclude each other; leave out one of them.")
    if arguments.capture not in (None, "-"):
        raise UsageError(
            f"{shortened(arguments.capture)}: watch takes what is still coming: -i IFACE, or - for a pipe. Try:"
            f" sparkshark analyze {shlex.quote(arguments.capture)}"
        )
    if arguments.capture == "-" and sys.stdin.isatty():
        raise UsageError(
            '"-" reads a capture from a pipe, but nothing is piped. Try: tcpdump -U -w - port 5683 | sparkshark watch -'
        )


class Source(NamedTuple):
    """Where packets come from: they, the account of the file that they make up, and what is to be told in the end."""

    packets: Iterator[Packet]
    files: list[CaptureFile]
    warnings: Callable[[], Sequence[str]]


def sniffed(arguments: argparse.Namespace, output: Output) -> Source:
    """Open an interface."""
    from analyzer.live.interface import Interface

    interface = Interface(arguments.interface, common.ports(arguments), lost=output.notice)
    return Source(iter(interface), [interface.file], lambda: interface.warnings)


def piped() -> Source:
    """Read standard input."""
    from analyzer.capture import Capture

    # Unbuffered: a thread that waits inside a buffer would hold its lock when the process ends.
    stream = os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    capture = Capture(["-"], stdin=stream)
    return Source(iter(capture), capture.files, lambda: capture.warnings)


def opened_ring(arguments: argparse.Namespace, output: Output) -> Ring | None:
    """Return where packets are kept, None when they are not."""
    if arguments.ring is None:
        return None
    from analyzer.live.ring import Ring

    size = arguments.ring_size * 1_000_000
    return Ring(arguments.ring, size=size, files=arguments.ring_files, trouble=output.notice)


def name_of(arguments: argparse.Namespace) -> str:
    """Return how people are told what is watched."""
    return arguments.interface or "standard input"


@contextmanager
def interruptible(stop: Callable[[], None]) -> Iterator[None]:
    """Have the first Ctrl-C, or a request to terminate, end the watching, and a second one the process."""
    asked = False

    def ask(number_: int, frame: object) -> None:
        nonlocal asked
        if asked:
            os._exit(EXIT_INTERRUPTED)
        asked = True
        stop()

    before = {which: signal.signal(which, ask) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


class Following(NamedTuple):
    """What goes on while packets come."""

    arguments: argparse.Namespace
    watcher: Watcher
    output: Output
    clock: PacketClock
    ring: Ring | None


def follow(going: Following, arrivals: Arrivals) -> None:
    """Take packets, and let time pass while none comes, until they end or enough have come."""
    from analyzer.live.arrivals import Stopped

    arguments, watcher, output, clock, ring = going
    sniffing = arguments.interface is not None
    until = None if arguments.duration is None else time.monotonic() + arguments.duration
    try:
        while until is None or time.monotonic() < until:
            packet = arrivals.next(wait(going, until))
            if packet is None:
                if clock.now is not None:
                    watcher.advance(clock.now)
            else:
                clock.see(packet.time_ns)
                if ring is not None:
                    ring.take(packet, watcher.trace.captures[-1].time_digits)
                watcher.behind = sniffing and arrivals.behind
                try:
                    watcher.take(packet)
                except Exception as error:
                    note(error, f"packet {packet.number}")
                    raise
            output.refresh(clock.now)
            if arguments.count is not None and watcher.trace.packets >= arguments.count:
                return
    except (StopIteration, Stopped):
        pass
    finally:
        if ring is not None:
            ring.close()


def wait(going: Following, until: float | None) -> float:
    """Return how long (s) to wait for a packet: no longer than to what happens next without one."""
    now, due = going.clock.now, going.watcher.due_ns
    times = [IDLE_S]
    if until is not None:
        times.append(until - time.monotonic())
    if now is not None and due is not None:
        times.append((due - now) / 1e9)
    return max(SHORTEST_S, min(times))


def report(arguments: argparse.Namespace, watcher: Watcher, output: Output, warnings: Sequence[str]) -> int:
    """Print what analyze says of the packets, and of a silence behind them; return the exit status."""
    trace = watcher.finish()
    common.refuse_unknown_links(trace, arguments.interface or "-")
    common.warn(common.without_folders([*trace.warnings, *warnings, *watcher.warnings], arguments))
    as_analyze = {"capture": [arguments.interface or "-"], "statistics": False, "show_secrets": False}
    options = argparse.Namespace(**vars(arguments) | as_analyze)
    output.report(analyze.rendered(trace, options, common.style_of(arguments, sys.stdout)))
    if watcher.silent_ns is not None:
        output.silence(watcher.silent_ns)
    return analyze.status(trace.findings, arguments.fail_on)
