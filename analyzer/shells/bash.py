"""Completion for bash, from 3.2 (macOS) on, with or without the package bash-completion.

A listing shows what each word means; bash itself has no place for that, so that words and meanings are told apart by
whether anything is inserted (COMP_TYPE).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from analyzer.shells.model import CAPTURES, PACKED, Argument, Command, Kind, Option, Program

SCRIPT: Final = """\
# Completion of sparkshark for bash. Made by: sparkshark completion bash
# For good:  echo 'source <(sparkshark completion bash)' >> ~/.bashrc

_sparkshark_words() {{  # one line for each word: the word, a tab, what it means
    local line word count=0 only=""
    while IFS= read -r line; do
        word=${{line%%$'\\t'*}}
        if [[ $word == "$cur"* ]]; then
            count=$((count + 1)) only=$word
            # Only where the words are listed and nothing but their common beginning is inserted.
            if [[ ( ${{COMP_TYPE:-9}} == 63 || ${{COMP_TYPE:-9}} == 33 ) && $line == *$'\\t'* ]]; then
                word="$word  (${{line#*$'\\t'}})"
            fi
            COMPREPLY+=("$word")
        fi
    done
    if [[ $count == 1 ]]; then COMPREPLY=("$only"); fi
}}

_sparkshark_files() {{  # $1: what their names match ("" for folders alone)
    local path
    compopt -o filenames 2>/dev/null
    while IFS= read -r path; do COMPREPLY+=("$path"); done < <(compgen -d -- "$cur")
    [[ -n $1 ]] || return
    while IFS= read -r path; do
        if [[ ! -d $path && $path =~ $1 ]]; then COMPREPLY+=("$path"); fi
    done < <(compgen -f -- "$cur")
}}

_sparkshark_interfaces() {{
    if [[ -d /sys/class/net ]]; then
        _sparkshark_words < <(command ls /sys/class/net)
    else
        _sparkshark_words < <(ifconfig -l 2>/dev/null | tr ' ' '\\n')
    fi
}}

_sparkshark_codes() {{
    case $cur in spk*) cur=SPK${{cur#spk}} ;; esac
    _sparkshark_words <<'END'
{codes}
END
}}

_sparkshark_scenarios() {{
    _sparkshark_words <<'END'
{scenarios}
END
}}

_sparkshark() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev="" command=${{COMP_WORDS[1]}} word place=0 at=2 skip=0
    COMPREPLY=()
    if (( COMP_CWORD > 0 )); then prev=${{COMP_WORDS[COMP_CWORD-1]}}; fi
    # "--format=json" comes as three words.
    if [[ $cur == "=" ]]; then cur=""; fi
    if [[ $prev == "=" ]] && (( COMP_CWORD > 1 )); then prev=${{COMP_WORDS[COMP_CWORD-2]}}; fi
    if (( COMP_CWORD <= 1 )); then
        _sparkshark_words <<'END'
{commands}
END
        return
    fi
    case "$command $prev" in
{values}
    esac
    if [[ $cur == -* ]]; then
        case $command in
{options}
        esac
        return
    fi
    # Which argument it is: words that are neither options nor their values.
    while (( at < COMP_CWORD )); do
        word=${{COMP_WORDS[at]}}
        if (( skip )); then skip=0
        elif [[ $word == "=" ]]; then skip=1
        elif [[ $word == -?* ]]; then
            if [[ ${{COMP_WORDS[at+1]}} != "=" ]]; then
                case "$command $word" in
{takes}
                esac
            fi
        else place=$((place + 1))
        fi
        at=$((at + 1))
    done
    case "$command $place" in
{arguments}
    esac
}}

complete -F _sparkshark sparkshark
"""
CAPTURE: Final = rf"'\.({'|'.join(CAPTURES)})(\.({'|'.join(PACKED)}))?$'"


def bash(program: Program) -> str:
    """Return the script."""
    values: list[str] = []
    takes: list[str] = []
    options: list[str] = []
    arguments: list[str] = []
    for command in program.commands:
        for option in command.options:
            if option.value:
                names = "|".join(f'"{command.name} {name}"' for name in option.names)
                values.append(f"        {names}) {_action(option)}; return ;;")
                takes.append(f"                    {names}) skip=1 ;;")
        lines = _lines((name, option.help) for option in command.options for name in option.names)
        options.append(f"        {command.name}) _sparkshark_words <<'END'\n{lines}\nEND\n        ;;")
        arguments += _arguments(command)
    return SCRIPT.format(
        codes=_lines(program.codes),
        scenarios=_lines(program.scenarios),
        commands=_lines((command.name, command.summary) for command in program.commands),
        values="\n".join(values),
        takes="\n".join(takes),
        options="\n".join(options),
        arguments="\n".join(arguments),
    )


def _arguments(command: Command) -> Iterable[str]:
    for place, argument in enumerate(command.arguments):
        pattern = f'"{command.name} "*' if argument.many else f'"{command.name} {place}"'
        yield f"        {pattern}) {_action(argument)} ;;"


def _action(taken: Option | Argument) -> str:
    actions = {
        Kind.CAPTURE: f"_sparkshark_files {CAPTURE}",
        Kind.FILE: "_sparkshark_files .",
        Kind.FOLDER: "_sparkshark_files ''",
        Kind.CODE: "_sparkshark_codes",
        Kind.SCENARIO: "_sparkshark_scenarios",
        Kind.INTERFACE: "_sparkshark_interfaces",
    }
    parts = [actions[taken.kind]] if taken.kind in actions else []
    if taken.words:
        parts.append(f"_sparkshark_words < <(printf '%s\\n' {' '.join(taken.words)})")
    return "; ".join(parts) or ":"


def _lines(words: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"{word}\t{meaning}" for word, meaning in words)
