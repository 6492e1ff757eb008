"""``sparkshark keys``: what each key file is, whether the firmware can read it, and which ones pair."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from analyzer.cli import EXIT_DONE
from analyzer.commands import common
from analyzer.secrecy import leave_no_core

DESCRIPTION: Final = """\
What each FILE is by its content, its fingerprint, whether the firmware's own
reader copes with it, which files are one pair, and what to type where one is not
as it should be. Folders are looked through. Secrets are never printed."""
EXAMPLES: Final = """\
examples
  sparkshark keys core.der cloud_public.der
  sparkshark keys backups/
  dfu-util -d 1d50:607f -a 1 -s 0x00002000:1024 -U now.der
  sparkshark keys now.der
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("files", metavar="FILE", nargs="+", help="key files, dumps, or folders of them")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="text (default) or json")
    parser.add_argument("--redact", action="store_true", help="shorten device IDs, addresses and names, for posting")
    common.add_screen(parser, quiet="only files that are not as they should be")
    parser.add_argument("--password-file", metavar="FILE", help="password of an encrypted key, in the first line")


def run(arguments: argparse.Namespace) -> int:
    """Print one row for each file."""
    from analyzer.keys.report import Mark, keys_report, render_keys
    from analyzer.report.text import finish

    leave_no_core()
    rows = keys_report(arguments.files, common.password(arguments))
    shorten = None
    if arguments.redact:
        shorten = common.redactor(None, arguments)
        shorten.learn_hosts(row.file for row in rows if row.file is not None)
    if arguments.format == "json":
        from analyzer.report.exact import pieces

        facts: list[object] = [row.as_dict() for row in rows]
        for piece in pieces(facts if shorten is None else [shorten.value(fact) for fact in facts], indent=1):
            sys.stdout.write(piece)
        sys.stdout.write("\n")
    else:
        style = common.style_of(arguments, sys.stdout)
        if style.quiet:
            rows = [row for row in rows if row.mark is not Mark.GOOD]
            if not rows:
                return EXIT_DONE
        table = render_keys(rows, style.width, ascii_only=not style.unicode)
        lines = (table if shorten is None else shorten.text(table, style.width)).splitlines()
        sys.stdout.write(finish(lines, style, {p.text for row in rows for p in row.paragraphs if p.command}))
    return EXIT_DONE
