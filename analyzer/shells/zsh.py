"""Completion for zsh: a function for its completion system."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from analyzer.shells.model import CAPTURES, PACKED, Argument, Command, Kind, Option, Program

SCRIPT: Final = """\
#compdef sparkshark
# Completion of sparkshark for zsh. Made by: sparkshark completion zsh
# For good:  echo 'source <(sparkshark completion zsh)' >> ~/.zshrc   (below compinit)

_sparkshark_captures() {{
    _files -g '{captures}'
}}

_sparkshark_codes() {{
    local -a words
    words=(
{codes}
    )
    # Codes may be typed in small letters.
    _describe -t codes finding words -M 'm:{{a-z}}={{A-Z}}'
}}

_sparkshark_scenarios() {{
    local -a words
    words=(
{scenarios}
    )
    _describe -t scenarios scenario words
}}

_sparkshark_interfaces() {{
    local -a words
    if [[ -d /sys/class/net ]]; then
        words=(/sys/class/net/*(N:t))
    else
        words=(${{=$(ifconfig -l 2>/dev/null)}})
    fi
    _describe -t interfaces interface words
}}

{more}_sparkshark() {{
    local curcontext=$curcontext
    local -a words_
    if (( CURRENT == 2 )); then
        words_=(
{commands}
        )
        _describe -t commands command words_
        return
    fi
    local command=$words[2]
    shift words
    (( CURRENT-- ))
    case $command in
{cases}
    esac
}}

if [[ $funcstack[1] == _sparkshark ]]; then
    _sparkshark "$@"
elif (( $+functions[compdef] )); then
    compdef _sparkshark sparkshark
fi
"""


def zsh(program: Program) -> str:
    """Return the script."""
    packed = "|".join(f".{ending}" for ending in PACKED)
    return SCRIPT.format(
        captures=f"*.({'|'.join(CAPTURES)})(|{packed})(-.)",
        codes=_described(program.codes),
        scenarios=_described(program.scenarios),
        commands=_described((command.name, command.summary) for command in program.commands),
        more="".join(_both(command, argument) for command in program.commands for argument in command.arguments),
        cases="\n".join(_case(command) for command in program.commands),
    )


def _case(command: Command) -> str:
    specs = [_option(option, name) for option in command.options for name in option.names]
    for place, argument in enumerate(command.arguments, 1):
        where = "*" if argument.many else str(place)
        specs.append(_quoted(f"{where}:{_inside(argument.name)}:{_action(command, argument)}"))
    lines = " \\\n".join(f"            {spec}" for spec in specs)
    return f"        {command.name}) _arguments -S \\\n{lines}\n        ;;"


def _option(option: Option, name: str) -> str:
    again = "*" if option.again else ""
    told = f"[{_inside(option.help)}]"
    if not option.value:
        return _quoted(f"{again}{name}{told}")
    joint = "=" if name.startswith("--") else ""
    return _quoted(f"{again}{name}{joint}{told}:{_inside(option.value)}:{_action(None, option)}")


def _action(command: Command | None, taken: Option | Argument) -> str:
    if command is not None and isinstance(taken, Argument) and taken.words and taken.kind is not Kind.WORDS:
        return _name(command, taken)
    if taken.words:
        return f"({' '.join(taken.words)})"
    return {
        Kind.CAPTURE: "_sparkshark_captures",
        Kind.FILE: "_files",
        Kind.FOLDER: "_files -/",
        Kind.CODE: "_sparkshark_codes",
        Kind.SCENARIO: "_sparkshark_scenarios",
        Kind.INTERFACE: "_sparkshark_interfaces",
    }.get(taken.kind, "")


def _name(command: Command, argument: Argument) -> str:
    return f"_sparkshark_{command.name.replace('-', '_')}_{argument.kind.value}"


def _both(command: Command, argument: Argument) -> str:
    """A function for an argument that is a word or something else."""
    if not argument.words or argument.kind is Kind.WORDS:
        return ""
    words = " ".join(argument.words)
    other = _action(None, Argument(argument.name, "", argument.kind))
    return f"{_name(command, argument)}() {{\n    {other}\n    compadd -- {words}\n}}\n\n"


def _described(words: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"        {_quoted(f'{_colons(word)}:{meaning}')}" for word, meaning in words)


def _colons(text: str) -> str:
    return text.replace(":", "\\:")


def _inside(text: str) -> str:
    """Return text as `_arguments` takes it between brackets or colons."""
    for char in "\\[]:":
        text = text.replace(char, f"\\{char}")
    return text


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
