"""Completion for PowerShell, 5.1 (Windows) and 7."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from analyzer.shells.model import CAPTURES, PACKED, Argument, Kind, Option, Program

SCRIPT: Final = """\
# Completion of sparkshark for PowerShell. Made by: sparkshark completion powershell
# For good:  sparkshark completion powershell >> $PROFILE

Register-ArgumentCompleter -Native -CommandName sparkshark -ScriptBlock {{
    param($wordToComplete, $commandAst, $cursorPosition)

    $commands = [ordered]@{{
{commands}
    }}
    $codes = [ordered]@{{
{codes}
    }}
    $scenarios = [ordered]@{{
{scenarios}
    }}
    # Of each command: its options with what they mean, what those take that take something, and its arguments.
    $options = @{{
{options}
    }}
    $takes = @{{
{takes}
    }}
    $arguments = @{{
{arguments}
    }}

    function Offer($word, $meaning) {{
        if ($word -like "$wordToComplete*") {{
            $told = if ($meaning) {{ $meaning }} else {{ $word }}
            [System.Management.Automation.CompletionResult]::new($word, $word, 'ParameterValue', $told)
        }}
    }}
    function OfferAll($table) {{
        foreach ($word in $table.Keys) {{ Offer $word $table[$word] }}
    }}
    function OfferPaths($pattern) {{
        $found = [System.Management.Automation.CompletionCompleters]::CompleteFilename($wordToComplete)
        $found | Where-Object {{
            $_.ResultType -eq 'ProviderContainer' -or ($pattern -and $_.ListItemText -match $pattern)
        }}
    }}
    function OfferKind($kind) {{
        $name, $words = $kind -split ' '
        switch ($name) {{
            'capture'   {{ OfferPaths '\\.({captures})(\\.({packed}))?$' }}
            'file'      {{ OfferPaths '.' }}
            'folder'    {{ OfferPaths $null }}
            'code'      {{ OfferAll $codes }}
            'scenario'  {{ OfferAll $scenarios }}
            'interface' {{
                [System.Net.NetworkInformation.NetworkInterface]::GetAllNetworkInterfaces() |
                    ForEach-Object {{ Offer $_.Name $_.Description }}
            }}
        }}
        foreach ($word in $words) {{ Offer $word $null }}
    }}

    $words = @($commandAst.CommandElements | Select-Object -Skip 1 | ForEach-Object {{ $_.ToString() }})
    # The word that is being completed is not one of those before it.
    if ($wordToComplete -and $words.Count -gt 0) {{ $words = @($words | Select-Object -SkipLast 1) }}
    if ($words.Count -eq 0) {{ OfferAll $commands; return }}
    $command = $words[0]
    if (-not $commands.Contains($command)) {{ return }}
    $place = 0
    $waiting = $null
    foreach ($word in $words | Select-Object -Skip 1) {{
        if ($waiting) {{ $waiting = $null }}
        elseif ($takes[$command].ContainsKey($word)) {{ $waiting = $takes[$command][$word] }}
        elseif ($word -notlike '-?*') {{ $place += 1 }}
    }}
    if ($waiting) {{ OfferKind $waiting }}
    elseif ($wordToComplete -like '-*') {{ OfferAll $options[$command] }}
    else {{
        $all = $arguments[$command]
        if ($place -lt $all.Count) {{ OfferKind $all[$place] }}
        elseif ($all.Count -gt 0 -and $all[-1] -like '*...') {{ OfferKind $all[-1].Replace('...', '') }}
    }}
}}
"""


def powershell(program: Program) -> str:
    """Return the script."""
    return SCRIPT.format(
        captures="|".join(CAPTURES),
        packed="|".join(PACKED),
        commands=_table((command.name, command.summary) for command in program.commands),
        codes=_table(program.codes),
        scenarios=_table(program.scenarios),
        options="\n".join(
            f"        {_quoted(c.name)} = [ordered]@{{\n"
            + _table(((name, option.help) for option in c.options for name in option.names), 12)
            + "\n        }"
            for c in program.commands
        ),
        takes="\n".join(
            f"        {_quoted(c.name)} = @{{\n"
            + _table(((name, _kind(option)) for option in c.options if option.value for name in option.names), 12)
            + "\n        }"
            for c in program.commands
        ),
        arguments="\n".join(
            f"        {_quoted(c.name)} = @({', '.join(_quoted(_kind(argument)) for argument in c.arguments)})"
            for c in program.commands
        ),
    )


def _kind(taken: Option | Argument) -> str:
    many = "..." if isinstance(taken, Argument) and taken.many else ""
    kind = Kind.NOTHING if taken.kind is Kind.WORDS else taken.kind
    return " ".join([kind.value, *taken.words]) + many


def _table(words: Iterable[tuple[str, str]], indent: int = 8) -> str:
    return "\n".join(f"{'':{indent}}{_quoted(word)} = {_quoted(meaning)}" for word, meaning in words)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
