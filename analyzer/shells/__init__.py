"""Completion for shells, and the manual page: all from one description of the commands and their options."""

from analyzer.shells.bash import bash
from analyzer.shells.fish import fish
from analyzer.shells.manpage import manpage
from analyzer.shells.model import Argument, Command, Kind, Option, Program
from analyzer.shells.powershell import powershell
from analyzer.shells.zsh import zsh

__all__ = ["Argument", "Command", "Kind", "Option", "Program", "bash", "fish", "manpage", "powershell", "zsh"]
