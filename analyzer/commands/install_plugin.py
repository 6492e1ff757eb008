"""``sparkshark install-plugin``: puts the plugin where this user's Wireshark looks, checks it, and takes it away."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from analyzer.cli import EXIT_DONE, EXIT_UNUSABLE, UsageError
from analyzer.commands import common
from analyzer.wording import printable, wrap

if TYPE_CHECKING:
    from analyzer.wireshark.folders import Machine, Wireshark
    from analyzer.wireshark.install import Copy

DESCRIPTION: Final = """\
Copies the plugin to where each Wireshark of this user looks: installed, Flatpak or
Snap. It then shows greetings, logins, messages and findings in its own windows.
A file that sparkshark did not write is never overwritten. Nothing is downloaded."""
EXAMPLES: Final = """\
examples
  sparkshark install-plugin --profile
  sparkshark install-plugin --check
  sparkshark install-plugin --uninstall
  sparkshark install-plugin --directory /srv/wireshark/plugins
"""
NOWHERE: Final = (
    "no Wireshark found in the usual places. Try: sparkshark install-plugin --directory DIR"
    " (Help > About > Folders > Personal Lua Plugins)"
)
NOT_CHECKED: Final = "? Not checked: whether Wireshark loads it. tshark -G plugins must list it."
SELF: Final = "sparkshark install-plugin"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="change nothing; say what is there and if it is loaded")
    what.add_argument("--uninstall", action="store_true", help="remove what sparkshark installed, and only that")
    what.add_argument("--print", action="store_true", help="write the plugin to standard output, nowhere else")
    parser.add_argument("--directory", metavar="DIR", help="this folder only, wherever Wireshark looks")
    parser.add_argument("--profile", action="store_true", help="also the profile Spark: columns, colours, buttons")
    parser.add_argument("--force", action="store_true", help="replace a file or profile of somebody else")
    common.add_screen(parser, quiet="only what went wrong or is not as it should be")


def run(arguments: argparse.Namespace) -> int:
    """Install, check, remove or print the plugin."""
    from analyzer.wireshark.folders import Machine
    from analyzer.wireshark.generate import plugin_text

    if arguments.directory is not None and (arguments.print or arguments.profile):
        other = "--print" if arguments.print else "--profile"
        raise UsageError(f"--directory and {other} exclude each other. All options: {SELF} --help")
    text = plugin_text()
    if arguments.print:
        sys.stdout.write(text)
        return EXIT_DONE
    work = _Work(arguments, Machine.here(), text)
    lines = work.check() if arguments.check else work.uninstall() if arguments.uninstall else work.install()
    return work.tell(lines)


class _Work:
    """One run: what was found on this machine, and what went wrong so far."""

    def __init__(self, arguments: argparse.Namespace, machine: Machine, text: str) -> None:
        from analyzer.wireshark.folders import documented, find

        self.arguments, self.machine, self.text = arguments, machine, text
        self.style = common.style_of(arguments, sys.stdout)
        self.errors: list[str] = []
        directory = arguments.directory
        self.wiresharks: list[Wireshark] = [] if directory is not None else find(machine)
        self.folders = [w.folders for w in self.wiresharks if w.folders] or [documented(machine)]
        if directory is None:
            self.targets = _unique(f.plugins for f in self.folders)
        else:
            self.targets = [os.path.abspath(os.path.expanduser(directory))]

    def tell(self, lines: Iterator[str]) -> int:
        """Print the answer, then what could not be done; return the exit status."""
        from analyzer.report.text import finish

        shown = list(lines)
        if self.style.quiet:
            shown = _amiss(shown)
        if shown:
            sys.stdout.write(finish(shown, self.style))
        for error in self.errors:
            print(f"sparkshark: {printable(error)}", file=sys.stderr)
        return EXIT_UNUSABLE if self.errors else EXIT_DONE

    # -- install ------------------------------------------------------------------------------------------------

    def install(self) -> Iterator[str]:
        """Put the plugin, and the profile if wanted, into every folder; go on after an error."""
        from analyzer.wireshark.install import Done, InstallError, loading, look, put

        common.warn(self._warnings())
        written = False
        for path in self._files():
            before = look(path, self.text)
            try:
                done = put(path, self.text, force=self.arguments.force)
            except InstallError as error:
                self.errors.append(str(error))
                continue
            was = f" (version {before.version})" if before.version and done is Done.UPDATED else ""
            yield {
                Done.INSTALLED: f"Installed {self._shown(path)}",
                Done.UPDATED: f"Updated {self._shown(path)}{was}",
                Done.REPLACED: f"Replaced {self._shown(path)}",
                Done.NOTHING: f"{self._shown(path)} is already current.",
            }[done]
            written = written or done is not Done.NOTHING
        if self.arguments.profile:
            yield from self._install_profile()
        if self.errors and not written:
            return
        for wireshark in self.wiresharks:
            found = loading(self.machine, wireshark)
            if found is not None and found.path is not None and self._is_target(found.path):
                yield f"Checked: {wireshark.name} loads it."
            elif found is not None:
                common.warn([f"{self._trouble(wireshark, found.path, found.complaint)} Details: {SELF} --check"])
        if written:
            mac = self.machine.system == "darwin"
            yield f"Restart Wireshark, or: Analyze > Reload Lua Plugins ({'Cmd' if mac else 'Ctrl'}+Shift+L)."
        yield "Keys: Preferences > Protocols > SPARK."
        yield f"Undo: {SELF} --uninstall{self._directory()}"

    def _install_profile(self) -> Iterator[str]:
        from analyzer.wireshark import profile
        from analyzer.wireshark.install import Done, InstallError

        written = False
        for folder in self._profiles():
            try:
                done = profile.put(folder, force=self.arguments.force)
            except InstallError as error:
                self.errors.append(str(error))
                continue
            written = written or done is not Done.NOTHING
            yield {
                Done.INSTALLED: f"Installed profile {self._shown(folder)}",
                Done.UPDATED: f"Updated profile {self._shown(folder)}",
                Done.REPLACED: f"Replaced profile {self._shown(folder)}",
                Done.NOTHING: f"Profile {self._shown(folder)} is already current.",
            }[done]
        if written:
            yield "Choose it: right-click the profile's name, bottom right of the window, or"
            yield f"wireshark -C {profile.NAME}. From 4.4 on a Spark capture chooses it by itself."

    def _warnings(self) -> Iterator[str]:
        """What makes it likely that the plugin does not end up where it is wanted."""
        from analyzer.wireshark.folders import ROOT_IGNORED_FROM

        if self.arguments.directory is not None:
            return
        if not self.wiresharks:
            yield NOWHERE
        for wireshark in self.wiresharks:
            if wireshark.folders is None:
                yield f"the Snap of Wireshark has no folder before its first start. Start it once, then: {SELF}"
        if self._root_matters():
            since = ".".join(map(str, ROOT_IGNORED_FROM))
            better = "without sudo" if "SUDO_USER" in self.machine.variables else "as the user who runs Wireshark"
            yield f"installed for root, but as root Wireshark {since} and later load no personal plugin. Try: {better}"

    # -- uninstall ----------------------------------------------------------------------------------------------

    def uninstall(self) -> Iterator[str]:
        """Remove every copy of ours from the personal folders, and the profile."""
        from analyzer.wireshark import profile
        from analyzer.wireshark.install import InstallError, copies, remove

        directory = self.arguments.directory is not None
        found = [p for p in self._files() if os.path.lexists(p)] if directory else copies(self._personal())
        removed, left = False, []
        for path in found:
            try:
                gone = remove(path, self.text)
            except InstallError as error:
                self.errors.append(str(error))
                continue
            removed = removed or gone
            if gone:
                yield f"Removed {self._shown(path)}"
            else:
                left += [f"Left alone {self._shown(path)}", "  It was not written by sparkshark."]
        for folder in [] if directory else self._profiles():
            try:
                gone = profile.remove(folder, force=self.arguments.force)
            except InstallError as error:
                self.errors.append(str(error))
                continue
            removed = removed or gone
            if gone:
                yield f"Removed profile {self._shown(folder)}"
        yield from left
        for path in [] if directory else copies(self._shared()):
            yield f"Left alone {self._shown(path)}"
            yield "  It is in the folder of all users."
            yield f"  Remove it: {SELF} --uninstall --directory {self._quoted(os.path.dirname(path))}"
        if removed:
            yield "Restart Wireshark to be without it."
        elif not self.errors:
            yield "Nothing of sparkshark is installed there." if directory else "Nothing to remove."

    # -- check --------------------------------------------------------------------------------------------------

    def check(self) -> Iterator[str]:
        """Say what was found, what lies where, and whether Wireshark loads it."""
        from analyzer.wireshark.install import Condition, copies, look, spot

        if self.arguments.directory is None:
            yield from self._versions()
        there = [look(path, self.text) for path in self._files()]
        for copy in there:
            yield from self._file(copy)
        if self.arguments.directory is None:
            known = set(map(spot, self._files()))
            others = [p for p in copies((*self._personal(), *self._shared())) if spot(p) not in known]
            for path in others:
                yield f"~ {self._shown(path)} is another copy"
                yield "  Of files with one name Wireshark loads one and says nothing. Remove it:"
                yield f"    {'del' if self.machine.system == 'win32' else 'rm'} {self._quoted(path)}"
            yield from self._profile_state()
            yield from self._surroundings()
            if others or any(copy.condition is not Condition.MISSING for copy in there):
                yield from self._loads()
        else:
            yield NOT_CHECKED

    def _versions(self) -> Iterator[str]:
        from analyzer.wireshark.folders import NEWEST, OLDEST, Kind

        oldest, newest = (".".join(map(str, release)) for release in (OLDEST, NEWEST))
        if not self.wiresharks:
            yield from wrap(f"? Not found: {NOWHERE}", self.style.width, then="  ")
        several = sum(w.kind is Kind.INSTALLED for w in self.wiresharks) > 1
        for wireshark in self.wiresharks:
            program = os.path.basename(wireshark.place).removesuffix(".exe")
            how = wireshark.kind if wireshark.kind is not Kind.INSTALLED else wireshark.place if several else program
            named = f"{wireshark.name} ({how})"
            release = wireshark.release
            if not wireshark.has_lua:
                yield f"✕ {named} was built without Lua; it can load no such plugin"
            elif release is None:
                yield f"? {named}, version not known; supported: {oldest} to {newest}"
            elif OLDEST <= release <= NEWEST:
                yield f"✓ {named}, supported: {oldest} to {newest}"
            else:
                yield f"~ {named} was not tried; supported: {oldest} to {newest}"
            if wireshark.folders is None:
                yield f"~ The Snap has no folder before its first start. Start it once, then: {SELF}"

    def _file(self, copy: Copy) -> Iterator[str]:
        from analyzer.wireshark.install import Condition

        path, again = self._shown(copy.path), f"{SELF}{self._directory()}"
        if copy.condition is Condition.CURRENT:
            yield f"✓ {path} is current"
        elif copy.condition is Condition.OLDER:
            yield f"~ {path} is older than this sparkshark"
            yield f"  Update: {again}"
        elif copy.condition is Condition.NEWER:
            yield f"~ {path} is newer than this sparkshark"
            yield f"  It is of sparkshark {copy.version}."
        elif copy.condition is Condition.MISSING:
            yield f"✕ {path} is missing"
            yield f"  Install: {again}"
        else:
            yield f"✕ {path} was not written by sparkshark"
            yield f"  Replace it: {again} --force"

    def _profile_state(self) -> Iterator[str]:
        from analyzer.wireshark import profile
        from analyzer.wireshark.install import Condition

        for folder in self._profiles():
            condition = profile.look(folder)
            says = {
                Condition.CURRENT: "✓ Profile {} is current",
                Condition.OLDER: "~ Profile {} is older than this sparkshark",
                Condition.CHANGED: "~ Profile {} was changed since sparkshark wrote it",
                Condition.FOREIGN: "~ Profile {} was not written by sparkshark",
            }.get(condition)
            if says is not None:
                yield says.format(self._shown(folder))
            if condition is Condition.OLDER:
                yield f"  Update: {SELF} --profile"
            if condition is Condition.MISSING and self.arguments.profile:
                yield f"✕ Profile {self._shown(folder)} is missing"
                yield f"  Install: {SELF} --profile"

    def _surroundings(self) -> Iterator[str]:
        from analyzer.wireshark.folders import ROOT_IGNORED_FROM

        folder = self.machine.variables.get("WIRESHARK_PLUGIN_DIR")
        if folder:
            yield f"~ WIRESHARK_PLUGIN_DIR is set: {self._shown(folder)}"
            yield "  stands for Wireshark's folder of plugins for all users."
        if self._root_matters():
            since = ".".join(map(str, ROOT_IGNORED_FROM))
            yield f"~ Running as root: Wireshark {since} and later then load no personal plugin"
            yield "  and say nothing. Check again as the user who runs Wireshark."

    def _loads(self) -> Iterator[str]:
        """Say of each Wireshark whether it loads the plugin, having run it."""
        from analyzer.wireshark.install import loading

        unasked = not self.wiresharks
        for wireshark in self.wiresharks:
            found = loading(self.machine, wireshark)
            if found is None:
                unasked = True
            elif found.path is not None and self._is_target(found.path):
                yield f"✓ {wireshark.name} loads it: tshark -G plugins lists it"
            else:
                yield from wrap(
                    f"✕ {self._trouble(wireshark, found.path, found.complaint)}", self.style.width, then="  "
                )
        if unasked:
            yield NOT_CHECKED

    def _trouble(self, wireshark: Wireshark, path: str | None, complaint: str | None) -> str:
        if path is not None:
            return f"{wireshark.name} loads another copy instead: {self._shown(path)}."
        if not wireshark.has_lua:
            return f"{wireshark.name} was built without Lua."
        return f"{wireshark.name} does not load it{f': {complaint}' if complaint else ''}."

    # -- places -------------------------------------------------------------------------------------------------

    def _files(self) -> list[str]:
        from analyzer.wireshark.generate import FILE_NAME

        return [os.path.join(folder, FILE_NAME) for folder in self.targets]

    def _is_target(self, path: str) -> bool:
        from analyzer.wireshark.install import spot

        return spot(path) in map(spot, self._files())

    def _personal(self) -> list[str]:
        """The folders that a Wireshark of this user reads, with the old ones beside the configuration."""
        from analyzer.wireshark.folders import documented

        every = (*self.folders, documented(self.machine))
        return _unique(p for f in every for p in (f.plugins, os.path.join(f.configuration, "plugins")))

    def _shared(self) -> list[str]:
        return _unique(f.shared for f in self.folders if f.shared)

    def _profiles(self) -> list[str]:
        from analyzer.wireshark import profile

        return _unique(profile.folder_in(f.configuration) for f in self.folders)

    def _root_matters(self) -> bool:
        from analyzer.wireshark.folders import ROOT_IGNORED_FROM

        releases = [w.release for w in self.wiresharks]
        return self.machine.superuser and (not releases or any(r is None or r >= ROOT_IGNORED_FROM for r in releases))

    def _directory(self) -> str:
        directory = self.arguments.directory
        return "" if directory is None else f" --directory {self._quoted(directory)}"

    def _shown(self, path: str) -> str:
        return self.machine.shown(path)

    def _quoted(self, path: str) -> str:
        return f'"{path}"' if self.machine.system == "win32" else shlex.quote(path)


def _amiss(lines: list[str]) -> list[str]:
    """Keep what is marked as missing or doubtful, with the lines below it."""
    kept: list[str] = []
    keep = False
    for line in lines:
        keep = keep if line.startswith(" ") else line.startswith(("✕", "~"))
        kept += [line] if keep else []
    return kept


def _unique(paths: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(paths))
