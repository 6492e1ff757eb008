"""The command line: arguments, exit status, and the one place where errors become lines for people.

Every command is a module in `analyzer.commands` with ``add`` (its options) and ``run``; it is imported only when
it is asked for.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

EXIT_DONE: Final = 0
EXIT_FINDINGS: Final = 1
EXIT_UNUSABLE: Final = 2
EXIT_INTERNAL: Final = 70
EXIT_INTERRUPTED: Final = 130

COMMANDS: Final = {
    "analyze": "verdict, next step, drawing of the login",
    "decrypt": "every message in the clear, with keys; exports",
    "follow": "the bytes of one connection",
    "keys": "what each key file is, and which ones pair",
    "explain": "a finding (SPK206) or a row seen in Wireshark",
    "simulate": "make a practice capture",
}
"""Command names and their one line in the help, in the order of the help."""

TOP: Final = """\
Says why a Spark Core or Photon does not connect to its cloud, from a packet
capture. No keys needed; nothing is sent anywhere.

Start here:  sparkshark analyze CAPTURE

{commands}

How to make a capture: sparkshark explain capture   All options: COMMAND --help
Exit status: 0 done, 1 findings reached --fail-on, 2 wrong usage or unreadable
"""


class UsageError(ValueError):
    """Wrong usage, told in one line."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line with the nearest right spelling."""

    def error(self, message: str) -> NoReturn:
        """Raise the message as a `UsageError`."""
        raise UsageError(message)

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Parse, and refuse an unknown option with the nearest known one."""
        known, rest = super().parse_known_args(args, namespace)
        if rest:
            options = [o for action in self._actions for o in action.option_strings if o.startswith("--")]
            name = rest[0].split("=")[0]
            if not name.startswith("-"):
                raise UsageError(f"{name}: one argument too many. All options: {self.prog} --help")
            near = difflib.get_close_matches(name, options, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"All options: {self.prog} --help"
            raise UsageError(f"{name}: no such option. {hint}")
        return known, rest


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status. Nothing but `SystemExit` for ``--help`` leaves this function."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _run(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone (head, less): nobody is left to tell, and the interpreter must not try to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (UsageError, ValueError) as error:
        if not isinstance(error, UsageError) and not _is_ours(error):
            return _internal(error)
        return _complain(str(error))
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        return _complain(f"{name}{(error.strerror or str(error)).lower()}.")
    except Exception as error:
        return _internal(error)
    return status


def _run(words: list[str]) -> int:
    if not words:
        sys.stderr.write(top_page())
        return EXIT_UNUSABLE
    name = words[0]
    if name in ("-h", "--help", "help"):
        sys.stdout.write(top_page())
        return EXIT_DONE
    if name == "--version":
        from analyzer.version import version  # noqa: PLC0415 - reads the package metadata

        print(f"sparkshark {version()}")
        return EXIT_DONE
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        if near:
            hint = f"Did you mean {near[0]}?"
        elif os.path.exists(name):
            hint = f"To analyse a capture: sparkshark analyze {name}"
        else:
            hint = "All: sparkshark --help"
        raise UsageError(f"{name}: no such command. {hint}")
    command = importlib.import_module(f"analyzer.commands.{name.replace('-', '_')}")
    parser = Parser(
        prog=f"sparkshark {name}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add(parser)
    arguments = parser.parse_args(words[1:])
    status: int = command.run(arguments)
    return status


def top_page() -> str:
    """Return what ``sparkshark --help`` prints."""
    return TOP.format(commands="\n".join(f"  {name:<15} {text}" for name, text in COMMANDS.items()))


def _is_ours(error: Exception) -> bool:
    """Whether a ValueError is one of ours, made to be read by the user."""
    return type(error).__module__.startswith("analyzer.")


def _complain(text: str) -> int:
    print(f"sparkshark: {text}", file=sys.stderr)
    return EXIT_UNUSABLE


def _internal(error: Exception) -> int:
    if os.environ.get("SPARKSHARK_DEBUG"):
        raise error
    print(
        f"sparkshark: internal error ({type(error).__name__}). Report it with the output of: sparkshark --version",
        file=sys.stderr,
    )
    return EXIT_INTERNAL


if __name__ == "__main__":
    sys.exit(main())
