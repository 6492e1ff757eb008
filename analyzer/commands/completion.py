"""``sparkshark completion``: the script that makes a shell complete commands, options and values; the manual page."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from analyzer.cli import COMMANDS, EXIT_DONE, Parser, command_of, top_page
from analyzer.shells import Argument, Command, Kind, Option, Program
from analyzer.shells.model import KINDS

SHELLS: Final = ("bash", "zsh", "fish", "powershell", "man")
DESCRIPTION: Final = """\
Prints what makes a shell complete commands, options, their values, captures, finding
codes and scenarios; or the manual page. The script itself needs no sparkshark."""
EXAMPLES: Final = """\
examples
  source <(sparkshark completion bash)
  sparkshark completion fish > ~/.config/fish/completions/sparkshark.fish
  sparkshark completion powershell >> $PROFILE
  sparkshark completion man > sparkshark.1
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    from analyzer import shells

    write = {
        "bash": shells.bash,
        "zsh": shells.zsh,
        "fish": shells.fish,
        "powershell": shells.powershell,
        "man": shells.manpage,
    }[arguments.shell]
    sys.stdout.write(write(program()))
    return EXIT_DONE


def program() -> Program:
    """Return all that can be typed, from the tables that the commands themselves are read with."""
    from analyzer.findings import FINDINGS
    from analyzer.simulate import SCENARIOS
    from analyzer.version import version

    page = top_page()
    return Program(
        version(),
        " ".join(page.partition("\n\n")[0].split()),
        tuple(_command(name, summary) for name, summary in COMMANDS.items()),
        tuple((spec.code, spec.title) for spec in FINDINGS.values()),
        tuple((scenario.name, scenario.title) for scenario in SCENARIOS.values()),
        page.rpartition("Exit status: ")[2].strip().capitalize() + ".",
    )


def _command(name: str, summary: str) -> Command:
    _, parser = command_of(name)
    actions = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    examples = (parser.epilog or "").partition("examples\n")[2]
    return Command(
        name,
        summary,
        " ".join((parser.description or "").split()),
        " ".join(parser.format_usage().removeprefix("usage: ").split()),
        tuple(_option(parser, action) for action in actions if action.option_strings),
        tuple(_argument(parser, action) for action in actions if not action.option_strings),
        tuple(line.strip() for line in examples.splitlines() if line.startswith("  ")),
    )


def _option(parser: Parser, action: argparse.Action) -> Option:
    takes = action.nargs != 0
    value = _metavar(action) if takes else ""
    return Option(
        tuple(action.option_strings),
        _help(parser, action),
        value,
        _kind(action) if takes else Kind.NOTHING,
        _words(action),
        isinstance(action, argparse._AppendAction),
    )


def _argument(parser: Parser, action: argparse.Action) -> Argument:
    name = _metavar(action)
    words = tuple(word for word in (part.strip(" '") for part in name.split("|")) if word.islower())
    many = action.nargs in ("+", "*")
    return Argument(name, _help(parser, action), _kind(action), _words(action) or words, many)


def _metavar(action: argparse.Action) -> str:
    return action.metavar if isinstance(action.metavar, str) else action.dest.upper()


def _kind(action: argparse.Action) -> Kind:
    """What a value is, by its name in the help; of ``CODE | 'ROW TEXT' | capture`` by the first."""
    if action.choices is not None:
        return Kind.WORDS
    return KINDS.get(_metavar(action).partition(" ")[0], Kind.NOTHING)


def _words(action: argparse.Action) -> tuple[str, ...]:
    return tuple(map(str, action.choices or ()))


def _help(parser: Parser, action: argparse.Action) -> str:
    return " ".join(parser._get_formatter()._expand_help(action).split()) if action.help else ""
