"""``sparkshark analyze``: the verdict on a capture."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from analyzer.cli import EXIT_DONE, EXIT_FINDINGS
from analyzer.commands import common
from analyzer.findings import SEVERITY_ORDER, Finding, Severity
from analyzer.report.style import Style
from analyzer.trace import Trace
from analyzer.wording import plural

if TYPE_CHECKING:
    from analyzer.report.redact import Redactor

FORMATS: Final = ("text", "json", "jsonl", "markdown", "html", "parquet")
LEVELS: Final = ("critical", "major", "minor", "never")

DESCRIPTION: Final = f"""\
Verdict, next step and evidence for every device in CAPTURE: {common.CAPTURES}."""
EXAMPLES: Final = """\
examples
  sparkshark analyze capture.pcap
  ssh router tcpdump -U -w - port 5683 | sparkshark analyze -
  sparkshark analyze capture.pcap --keys my-keys/ --format html -o report.html
  sparkshark analyze ring/ --format json -o report.json
  sparkshark analyze ring/ --format parquet -o tables/
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    common.add_capture(parser)
    common.add_keys(parser)
    common.add_conversation(parser)
    common.add_expected(parser)
    out = parser.add_argument_group("output")
    out.add_argument("--format", choices=FORMATS, default="text", metavar="FORMAT", help=", ".join(FORMATS))
    out.add_argument(
        "-o", dest="output", metavar="FILE", help="write there instead of standard output; for parquet a folder"
    )
    out.add_argument("--force", action="store_true", help="overwrite FILE")
    out.add_argument("--redact", action="store_true", default=None, help=common.REDACT)
    out.add_argument("--no-redact", dest="redact", action="store_false", help="do not (Markdown redacts by itself)")
    out.add_argument(
        "--statistics", action="store_true", help="append a table of round trips, login times, repeats and pings"
    )
    common.add_screen(out, quiet="state, sentence and first step only")
    out.add_argument("--show-secrets", action="store_true", help="session keys in JSON")
    out.add_argument(
        "--fail-on", choices=LEVELS, default="never", metavar="LEVEL", help="exit 1 at critical, major, minor or never"
    )


def run(arguments: argparse.Namespace) -> int:
    """Analyse, print, and say by the exit status what ``--fail-on`` asked for."""
    if arguments.format == "parquet":
        common.check_dataset(arguments)
    elif arguments.output is not None:
        common.refuse_existing(arguments.output, force=arguments.force)
    elif arguments.format == "html":
        common.refuse_terminal()
    trace = common.read(arguments, common.keys(arguments))
    if arguments.format == "parquet":
        common.write_dataset(trace, arguments, redactor(trace, arguments))
        return status(trace.findings, arguments.fail_on)
    encoding = "utf-8" if arguments.format == "html" else None
    with common.output(
        arguments.output, force=arguments.force, encoding=encoding, private=arguments.show_secrets
    ) as stream:
        style = common.style_of(arguments, stream)
        for piece in rendered(trace, arguments, style):
            stream.write(piece)
    return status(trace.findings, arguments.fail_on)


def rendered(trace: Trace, arguments: argparse.Namespace, style: Style) -> Iterable[str]:
    """Yield the report in the format asked for."""
    name = common.capture_name(arguments.capture, trace)
    shorten = redactor(trace, arguments)
    redact = shorten is not None
    pieces: Iterable[str]
    secrets = arguments.show_secrets and not redact
    if arguments.format == "text":
        from analyzer.report.text import finish, text_report

        pieces = [text_report(trace, os.path.basename(name) if redact else name, style)]
        if arguments.statistics:
            from analyzer.report.figures import statistics_table

            table = statistics_table(trace, style)
            pieces = [*pieces, finish(["", *table], style)] if table else pieces
    elif arguments.format == "markdown":
        from analyzer.report.markdown import markdown_report

        pieces = [markdown_report(trace, shorten)]
    elif arguments.format == "html":
        from analyzer.report.html import html_report

        return html_report(trace, os.path.basename(name) if redact else name, shorten)
    else:
        from analyzer.report import jsonreport

        write = jsonreport.json_text if arguments.format == "json" else jsonreport.json_lines
        pieces = write(trace, redacted=redact, show_secrets=secrets)
    if shorten is not None and arguments.format != "markdown":
        return (shorten.text("".join(pieces), style.width),)
    return pieces


def redactor(trace: Trace, arguments: argparse.Namespace) -> Redactor | None:
    """Return what shortens the report, when that was asked for or goes without saying."""
    if not (arguments.redact if arguments.redact is not None else arguments.format == "markdown"):
        return None
    return common.redactor(trace, arguments)


def status(findings: Iterable[Finding], level: str) -> int:
    """Return the exit status that ``--fail-on`` asks for, and say why it is not 0."""
    if level == "never":
        return EXIT_DONE
    limit = SEVERITY_ORDER.index(Severity(level))
    count = sum(1 for finding in findings if SEVERITY_ORDER.index(finding.severity) <= limit)
    if not count:
        return EXIT_DONE
    print(f"sparkshark: {plural(count, 'finding')} at or above {level} (--fail-on).", file=sys.stderr)
    return EXIT_FINDINGS
