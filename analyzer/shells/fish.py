"""Completion for fish, from 3.0 on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from analyzer.shells.model import CAPTURES, PACKED, Argument, Command, Kind, Option, Program

SCRIPT: Final = """\
# Completion of sparkshark for fish. Made by: sparkshark completion fish
# For good:  sparkshark completion fish > ~/.config/fish/completions/sparkshark.fish

function __sparkshark_paths --description 'what the shell itself would offer for the word'
    complete -C"__fish_command_without_completions "(commandline -ct)
end

function __sparkshark_captures
    __sparkshark_paths | string match -r -- '^.*(?:/|\\.(?:{captures})(?:\\.(?:{packed}))?)(?:\\t.*)?$'
end

function __sparkshark_folders
    __sparkshark_paths | string match -r -- '^.*/(?:\\t.*)?$'
end

function __sparkshark_codes
    printf '%s\\t%s\\n' {codes}
end

function __sparkshark_scenarios
    printf '%s\\t%s\\n' {scenarios}
end

function __sparkshark_interfaces
    if test -d /sys/class/net
        command ls /sys/class/net
    else
        ifconfig -l 2>/dev/null | string split ' '
    end
end

function __sparkshark_command
    set -l words (commandline -opc)
    test "$words[2]" = $argv[1]
end

function __sparkshark_at --description 'whether this is the argument at a place, or behind it, of a command'
    set -l words (commandline -opc)
    test "$words[2]" = $argv[1]; or return 1
    set -l place 0
    set -l skip 0
    for word in $words[3..-1]
        if test $skip = 1
            set skip 0
        else if contains -- "$argv[1] $word" {takes}
            set skip 1
        else if not string match -q -- '-?*' $word
            set place (math $place + 1)
        end
    end
    test $skip = 0; and test $place -ge $argv[2] -a $place -le $argv[3]
end

complete -c sparkshark -f
{lines}
"""


def fish(program: Program) -> str:
    """Return the script."""
    lines: list[str] = []
    for command in program.commands:
        lines.append(f"complete -c sparkshark -n __fish_use_subcommand -a {command.name} -d {_quoted(command.summary)}")
        lines += [_option(command, option) for option in command.options]
        for place, argument in enumerate(command.arguments):
            last = 9999 if argument.many else place
            offered = _offered(argument)
            if offered:
                here = f"__sparkshark_at {command.name} {place} {last}"
                lines.append(f"complete -c sparkshark -n {_quoted(here)} -a {_quoted(offered)}")
    takes = [
        _quoted(f"{command.name} {name}")
        for command in program.commands
        for option in command.options
        if option.value
        for name in option.names
    ]
    return SCRIPT.format(
        captures="|".join(CAPTURES),
        packed="|".join(PACKED),
        codes=_pairs(program.codes),
        scenarios=_pairs(program.scenarios),
        takes=" ".join(takes),
        lines="\n".join(lines),
    )


def _option(command: Command, option: Option) -> str:
    parts = [f"complete -c sparkshark -n {_quoted(f'__sparkshark_command {command.name}')}"]
    parts += [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names]
    if option.value:
        parts.append("-r -F" if option.kind is Kind.FILE else "-x")
        offered = _offered(option)
        parts += [f"-a {_quoted(offered)}"] if offered else []
    return " ".join([*parts, f"-d {_quoted(option.help)}"])


def _offered(taken: Option | Argument) -> str:
    offered = {
        Kind.CAPTURE: "(__sparkshark_captures)",
        Kind.FILE: "(__sparkshark_paths)" if isinstance(taken, Argument) else "",
        Kind.FOLDER: "(__sparkshark_folders)",
        Kind.CODE: "(__sparkshark_codes)",
        Kind.SCENARIO: "(__sparkshark_scenarios)",
        Kind.INTERFACE: "(__sparkshark_interfaces)",
    }.get(taken.kind, "")
    return " ".join(part for part in (offered, *taken.words) if part)


def _pairs(words: Iterable[tuple[str, str]]) -> str:
    return " \\\n        ".join(f"{_quoted(word)} {_quoted(meaning)}" for word, meaning in words)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
