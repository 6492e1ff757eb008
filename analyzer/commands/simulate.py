"""``sparkshark simulate``: a practice capture of a known story, with its keys and the truth about it."""

from __future__ import annotations

import argparse
import difflib
import shlex
import sys
from typing import Final

from analyzer.cli import EXIT_DONE, UsageError
from analyzer.commands import common
from analyzer.findings import FINDINGS
from analyzer.wording import plural, printable

DESCRIPTION: Final = """\
Writes a synthetic capture of SCENARIO with real cryptography, beside it the keys
(keys/) and what really happened (.truth.json). The same seed gives the same bytes."""
EXAMPLES: Final = """\
examples
  sparkshark simulate --list
  sparkshark simulate key-mismatch -o practice.pcap
  mkdir new && sparkshark simulate healthy --firmware photon-1.4 -o new/a.pcapng
"""
FIRMWARES: Final = ("core-2014", "core-0.5", "photon-0.5", "photon-1.4", "photon-3")
SERVERS: Final = ("legacy", "community")
LINKS: Final = ("ethernet", "vlan", "qinq", "sll", "sll2", "raw", "null", "ipv6", "raw-ipv6")


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("scenario", metavar="SCENARIO", nargs="?", help="name of a story (see --list)")
    parser.add_argument("--list", action="store_true", help="all stories, what they show, and the finding to expect")
    parser.add_argument("-o", dest="output", metavar="FILE", help="capture to write (.pcap or .pcapng)")
    parser.add_argument("--force", action="store_true", help="overwrite files")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another seed, another capture (default 1)")
    parser.add_argument("--firmware", choices=FIRMWARES, metavar="NAME", help=", ".join(FIRMWARES))
    parser.add_argument("--server", choices=SERVERS, metavar="NAME", help=", ".join(SERVERS))
    parser.add_argument("--link", choices=LINKS, default="ethernet", metavar="NAME", help=", ".join(LINKS))
    parser.add_argument("--attempts", type=common.whole_number("--attempts"), metavar="N", help="number of logins")
    parser.add_argument("--quiet", action="store_true", help="say nothing but what went wrong")


def run(arguments: argparse.Namespace) -> int:
    """Write the capture, or the list."""
    from analyzer.simulate import SCENARIOS, simulate

    if arguments.list:
        style = common.style_of(arguments, sys.stdout)
        for scenario in SCENARIOS.values():
            code = scenario.code if scenario.code in FINDINGS else "-"
            line = f"{scenario.name:<22}{scenario.title:<32}{code}"
            print("\n".join([line] if len(line) <= style.width else [scenario.name, f"  {scenario.title}, {code}"]))
        return EXIT_DONE
    name = arguments.scenario
    if name is None:
        raise UsageError("simulate: which SCENARIO? All: sparkshark simulate --list")
    if name not in SCENARIOS:
        near = difflib.get_close_matches(name, SCENARIOS, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise UsageError(f"{name}: no such scenario. {hint}All: sparkshark simulate --list")
    if arguments.output is None:
        raise UsageError(f"simulate: where to? Try: sparkshark simulate {name} -o {name}.pcap")
    common.refuse_missing_folder(arguments.output)
    simulation = simulate(
        name,
        seed=arguments.seed,
        firmware=arguments.firmware,
        server=arguments.server,
        link=arguments.link,
        attempts=arguments.attempts,
    )
    try:
        written = simulation.write(arguments.output, force=arguments.force)
    except FileExistsError as error:
        raise UsageError(f"{error}. Nothing was written. Try: another name, or --force") from error
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UsageError(
            f"{arguments.output}: cannot be written ({why}), or not all of it. Try: another folder"
        ) from error
    if arguments.quiet:
        return EXIT_DONE
    path, packets = str(written[0]), plural(len(simulation.packets), "packet")
    print(f"{printable(path)}: {packets}, and {plural(len(written) - 1, 'file')} beside it")
    print(f"Try: sparkshark analyze {printable(shlex.quote(path))}")
    return EXIT_DONE
