"""``sparkshark install-plugin`` as a user runs it, with the tshark of this machine as the judge.

What other systems look like is told by tables: a `Machine` answers for them.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from screens import CAPTURES, sparkshark

from analyzer.cli import main
from analyzer.wireshark import folders, install, profile
from analyzer.wireshark.folders import Answer, Folders, Kind, Machine, Wireshark, documented, find
from analyzer.wireshark.generate import MARK, plugin_text
from analyzer.wireshark.install import Condition, Done, InstallError

NOBODY = 65534
PROGRAM = shutil.which("tshark") or "tshark"
VERSION_ANSWER = folders.run((PROGRAM, "--version"), os.environ)  # asked once: it says the same to every test
assert VERSION_ANSWER
VERSION = re.findall(r"\d+\.\d+\.\d+", VERSION_ANSWER.output)[0]
PLUGIN = f"""\
{MARK}Wireshark plugin for the tests, version 0.2.0
local p = Proto("spark", "Spark")
function p.dissector(tvb) return tvb:len() end
DissectorTable.get("tcp.port"):add(5683, p)
"""
OLDER = PLUGIN.replace("version 0.2.0", "version 0.1.9")
NEWER = PLUGIN.replace("version 0.2.0", "version 0.10.0")
FOREIGN = "-- my own dissector\n"
BEHAVES = "~/.local/lib/wireshark/plugins/sparkshark.lua"
HOME = "/people/ada"
PLUGINS = f"{HOME}/.local/lib/wireshark/plugins"
SAID = """\
Temp:                	/tmp
Personal configuration:	/people/ada/.config/wireshark
Global Plugins:      	/usr/lib/wireshark/plugins/4.4
Personal Lua Plugins:	/people/ada/.local/lib/wireshark/plugins
Global Lua Plugins:  	/usr/lib/wireshark/plugins
"""
Run = Callable[..., tuple[int, str, str]]
On = Callable[[Machine], Run]


def as_a_user(command: Sequence[str], variables: Mapping[str, str]) -> Answer | None:
    """Run as nobody when the tests run as root: Wireshark 4.2 and later load no personal plugin as root."""
    if command == (PROGRAM, "--version"):
        return VERSION_ANSWER
    drop = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups") if os.geteuid() == 0 else ()
    return folders.run((*drop, *command), variables)


@pytest.fixture
def home() -> Iterator[Path]:
    """A home folder that another user may use; pytest's own folders are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)  # noqa: S103
        yield Path(name)


def stage(
    *,
    system: str = "linux",
    home: str | Path = HOME,
    variables: Mapping[str, str] | None = None,
    files: Sequence[str] = (),
    folders: Sequence[str] = (),
    version: str = "4.4.3",
    said: str | None = None,
    loaded: Answer | None = None,
    superuser: bool = False,
) -> Machine:
    """A machine with these programs; they say that they are ``version``, a tshark names the folders ``said`` and
    lists the plugins ``loaded``.
    """

    def answer(command: Sequence[str], variables: Mapping[str, str]) -> Answer | None:
        if command[-1] == "--version":
            return Answer(f"TShark (Wireshark) {version} (v{version}-0-gabc).\n\nCopyright 1998-2025\n")
        if command[-1] == "folders":
            return None if said is None else Answer(said)
        return loaded

    return Machine(
        system,
        str(home),
        {"PATH": "/usr/bin", **(variables or {})},
        superuser,
        is_file=set(files).__contains__,
        is_folder=set(folders).__contains__,
        real=str,
        run=answer,
    )


@pytest.fixture
def machine(home: Path) -> Machine:
    """This machine's tshark, in a home of the test's own."""
    path = os.path.dirname(PROGRAM)
    variables = {"HOME": str(home), "PATH": f"{path}:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    return Machine("linux", str(home), variables, run=as_a_user)


@pytest.fixture
def run_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> On:
    """The command as that machine's user runs it, with a plugin of our own."""
    monkeypatch.setattr("analyzer.wireshark.generate.plugin_text", lambda: PLUGIN)

    def on(machine: Machine) -> Run:
        def run(*words: str) -> tuple[int, str, str]:
            monkeypatch.setattr(Machine, "here", lambda: machine)
            status = main(["install-plugin", *words])
            out, err = capsys.readouterr()
            return status, out, err

        return run

    return on


@pytest.fixture
def run(run_on: On, home: Path) -> Run:
    """The command where Wireshark is there, but no tshark that could be asked."""
    return run_on(stage(home=home, files=["/usr/bin/wireshark"]))


@pytest.fixture
def run_truly(run_on: On, machine: Machine) -> Run:
    """The command with this machine's tshark."""
    return run_on(machine)


def plugin(home: Path, *inner: str) -> Path:
    return home.joinpath(".local/lib/wireshark/plugins", *inner, "sparkshark.lua")


def place(path: Path, text: str = PLUGIN) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def tshark(machine: Machine, *words: str) -> Answer:
    answer = machine.run((PROGRAM, *words), machine.variables)
    assert answer is not None
    return answer


# -- install ---------------------------------------------------------------------------------------------------


def test_wireshark_loads_what_was_installed(run_truly: Run, home: Path, machine: Machine) -> None:
    status, out, err = run_truly()
    assert (status, err) == (0, "")
    assert out == (
        f"Installed {BEHAVES}\n"
        f"Checked: Wireshark {VERSION} loads it.\n"
        "Restart Wireshark, or: Analyze > Reload Lua Plugins (Ctrl+Shift+L).\n"
        "Keys: Preferences > Protocols > SPARK.\n"
        "Undo: sparkshark install-plugin --uninstall\n"
    )
    assert plugin(home).read_text() == PLUGIN
    assert str(plugin(home)) in tshark(machine, "-G", "plugins").output
    assert "Spark\tSPARK\tspark" in tshark(machine, "-G", "protocols").output.splitlines()


def test_the_plugin_that_is_shipped_is_loaded(
    run_truly: Run, machine: Machine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analyzer.wireshark.generate.plugin_text", plugin_text)
    status, out, err = run_truly()
    assert (status, err) == (0, "")
    assert f"Checked: Wireshark {VERSION} loads it." in out
    assert "sparkshark.lua" not in tshark(machine, "-G", "protocols").complaints


def test_installing_twice_changes_nothing(run: Run, home: Path) -> None:
    run()
    before = plugin(home).stat()
    status, out, _ = run()
    assert status == 0
    assert out.splitlines()[0] == f"{BEHAVES} is already current."
    assert "Restart" not in out
    assert (plugin(home).stat().st_mtime_ns, plugin(home).stat().st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.parametrize("old", [OLDER, NEWER, PLUGIN + "-- more\n"])
def test_another_version_of_ours_is_replaced(run: Run, home: Path, old: str) -> None:
    place(plugin(home), old)
    status, out, _ = run()
    version = old.splitlines()[0].rpartition(" ")[2]
    assert (status, out.splitlines()[0]) == (0, f"Updated {BEHAVES} (version {version})")
    assert plugin(home).read_text() == PLUGIN


def test_a_foreign_file_is_left_alone_until_force(run: Run, home: Path) -> None:
    place(plugin(home), FOREIGN)
    status, out, err = run()
    assert (status, out) == (2, "")
    assert err == f"sparkshark: {plugin(home)}: not written by sparkshark; left alone. Replace it: --force\n"
    assert plugin(home).read_text() == FOREIGN
    status, out, err = run("--force")
    assert (status, out.splitlines()[0]) == (0, f"Replaced {BEHAVES}")
    assert plugin(home).read_text() == PLUGIN


def test_a_link_is_never_written_through(run: Run, home: Path) -> None:
    target = place(home / "elsewhere" / "mine.lua", OLDER)
    plugin(home).parent.mkdir(parents=True)
    plugin(home).symlink_to(target)
    assert run()[0] == 2
    assert run("--force")[0] == 0
    assert (target.read_text(), plugin(home).read_text()) == (OLDER, PLUGIN)
    assert not plugin(home).is_symlink()


def test_a_linked_folder_is_used_as_it_is(run_truly: Run, home: Path) -> None:
    (home / "dotfiles").mkdir()
    plugin(home).parent.parent.mkdir(parents=True)
    plugin(home).parent.symlink_to(home / "dotfiles")
    assert f"Wireshark {VERSION} loads it" in run_truly()[1]
    assert (home / "dotfiles" / "sparkshark.lua").read_text() == PLUGIN


def test_a_folder_in_the_files_place_is_told_in_one_line(run: Run, home: Path) -> None:
    plugin(home).mkdir(parents=True)
    for words in ((), ("--force",)):
        status, out, err = run(*words)
        assert (status, out) == (2, "")
        assert err == (
            f"sparkshark: {plugin(home)}: a folder has this name. Nothing was written. Remove or rename it first\n"
        )


def test_a_pipe_of_that_name_does_not_hang(run: Run, home: Path) -> None:
    plugin(home).parent.mkdir(parents=True)
    os.mkfifo(plugin(home))
    assert run()[0] == 2


def test_the_file_is_readable_whatever_the_umask_and_nothing_stays_beside_it(run: Run, home: Path) -> None:
    plugin(home).parent.mkdir(parents=True)
    before = os.umask(0o077)
    try:
        run()
    finally:
        os.umask(before)
    assert stat.S_IMODE(plugin(home).stat().st_mode) == 0o644
    assert os.listdir(plugin(home).parent) == ["sparkshark.lua"]


@pytest.mark.parametrize(
    ("folder", "what"),
    [
        ("/proc/self/plugins", "cannot be made"),
        ("/proc/self", "cannot be written"),
        ("{home}/file/plugins", "cannot be made"),
    ],
)
def test_a_folder_that_cannot_be_written_is_one_line(run: Run, home: Path, folder: str, what: str) -> None:
    (home / "file").write_text("")
    status, out, err = run("--directory", folder.format(home=home))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert re.fullmatch(
        rf"sparkshark: /\S+: {what} \([a-z ]+\)\. Nothing was written\. This user needs the right to write there\n", err
    )


def test_a_disk_that_is_full_leaves_what_was_there(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(plugin(home), OLDER)

    def full(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", source)

    monkeypatch.setattr(os, "replace", full)
    status, out, err = run()
    assert (status, out) == (2, "")
    assert "cannot be written (no space left on device). Nothing was written." in err
    assert plugin(home).read_text() == OLDER
    assert os.listdir(plugin(home).parent) == ["sparkshark.lua"]


def test_a_directory_is_used_alone(run: Run, home: Path) -> None:
    folder = home / "my plugins"
    status, out, err = run("--directory", str(folder))
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == "Installed ~/my plugins/sparkshark.lua"
    assert out.splitlines()[-1] == f"Undo: sparkshark install-plugin --uninstall --directory '{folder}'"
    assert (folder / "sparkshark.lua").read_text() == PLUGIN
    assert not (home / ".local").exists()
    status, out, _ = run("--check", "--directory", str(folder))
    assert out.splitlines()[0] == "✓ ~/my plugins/sparkshark.lua is current"
    status, out, _ = run("--uninstall", "--directory", str(folder))
    assert (status, out.splitlines()[0]) == (0, "Removed ~/my plugins/sparkshark.lua")
    assert run("--uninstall", "--directory", str(folder))[1] == "Nothing of sparkshark is installed there.\n"


def test_printing_writes_the_plugin_and_nothing_else(run: Run, home: Path) -> None:
    assert run("--print") == (0, PLUGIN, "")
    assert os.listdir(home) == []


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--check", "--print"], "--print and --check exclude each other"),
        (["--directory", "x", "--print"], "--directory and --print exclude each other"),
        (["--directory", "x", "--profile"], "--directory and --profile exclude each other"),
    ],
)
def test_what_excludes_each_other(run: Run, home: Path, words: list[str], line: str) -> None:
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert err == f"sparkshark: {line}. All options: sparkshark install-plugin --help\n"


def test_without_wireshark_it_is_installed_where_one_would_look(run_on: On, home: Path, machine: Machine) -> None:
    bare = Machine("linux", str(home), {"PATH": "/nowhere"}, is_file=lambda path: False)
    run = run_on(bare)
    status, out, err = run()
    assert (status, out.splitlines()[0]) == (0, f"Installed {BEHAVES}")
    assert err == (
        "sparkshark: warning: no Wireshark found in the usual places. Try: sparkshark install-plugin --directory DIR"
        " (Help > About > Folders > Personal Lua Plugins)\n"
    )
    assert plugin(home).read_text() == PLUGIN
    _, out, _ = run("--check")
    assert out.startswith("? Not found: no Wireshark found in the usual places. Try:")
    assert out.endswith("? Not checked: whether Wireshark loads it. tshark -G plugins must list it.\n")


def test_it_runs_as_a_program_of_its_own(home: Path) -> None:
    done = sparkshark("install-plugin", env={"HOME": str(home)})
    assert done.returncode == 0
    assert done.stdout.startswith(f"Installed {BEHAVES}\n".encode())
    assert plugin(home).read_text(encoding="utf-8") == plugin_text()
    printed = sparkshark("install-plugin", "--print", env={"HOME": str(home), "LC_ALL": "C"})
    assert printed.stdout.startswith(MARK.encode())


# -- check -----------------------------------------------------------------------------------------------------


def test_the_screen_when_all_is_well(run_truly: Run, home: Path) -> None:
    run_truly("--profile")
    assert run_truly("--check") == (
        0,
        f"✓ Wireshark {VERSION} (tshark), supported: 3.6 to 4.6\n"
        f"✓ {BEHAVES} is current\n"
        "✓ Profile ~/.config/wireshark/profiles/Spark is current\n"
        f"✓ Wireshark {VERSION} loads it: tshark -G plugins lists it\n",
        "",
    )


def test_the_screen_when_it_is_old(run_truly: Run, home: Path) -> None:
    place(plugin(home), OLDER)
    assert run_truly("--check")[1] == (
        f"✓ Wireshark {VERSION} (tshark), supported: 3.6 to 4.6\n"
        f"~ {BEHAVES} is older than this sparkshark\n"
        "  Update: sparkshark install-plugin\n"
        f"✓ Wireshark {VERSION} loads it: tshark -G plugins lists it\n"
    )
    assert plugin(home).read_text() == OLDER


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (None, [f"✕ {BEHAVES} is missing", "  Install: sparkshark install-plugin"]),
        (NEWER, [f"~ {BEHAVES} is newer than this sparkshark", "  It is of sparkshark 0.10.0."]),
        (FOREIGN, [f"✕ {BEHAVES} was not written by sparkshark", "  Replace it: sparkshark install-plugin --force"]),
    ],
)
def test_what_lies_there_is_named(run: Run, home: Path, text: str | None, lines: list[str]) -> None:
    if text is not None:
        place(plugin(home), text)
    status, out, err = run("--check")
    assert (status, err) == (0, "")
    assert out.splitlines()[1 : 1 + len(lines)] == lines
    assert plugin(home).exists() == (text is not None)


def test_a_plugin_that_breaks_is_found_out_by_running_it(run_truly: Run, home: Path) -> None:
    place(plugin(home), PLUGIN.replace("tcp.port", "no.such.table"))
    out = run_truly("--check")[1]
    assert f"✕ Wireshark {VERSION} does not load it: sparkshark.lua:" in out


@pytest.mark.parametrize(
    "other",
    [
        ".local/lib/wireshark/plugins/sub",
        ".local/lib/wireshark/plugins/4.0",
        ".config/wireshark/plugins",
        "shared",
    ],
)
def test_copies_that_get_in_each_others_way_are_named(run_on: On, home: Path, machine: Machine, other: str) -> None:
    said = SAID.replace(HOME, str(home)).replace("/usr/lib/wireshark/plugins\n", f"{home}/shared\n")

    def answers(command: Sequence[str], variables: Mapping[str, str]) -> Answer | None:
        # The global folder is not for tests to write to, so it is another here; what is loaded is true.
        return Answer(said) if command[-1] == "folders" else as_a_user(command, variables)

    run = run_on(Machine("linux", machine.home, machine.variables, run=answers))
    place(plugin(home))
    copy = place(home / other / "sparkshark.lua", OLDER)
    out = run("--check")[1]
    assert f"~ ~/{other}/sparkshark.lua is another copy\n" in out
    assert f"    rm {copy}\n" in out
    loads_ours = f"✓ Wireshark {VERSION} loads it"
    assert (loads_ours in out) == (other in (".config/wireshark/plugins", "shared"))


def test_a_copy_that_wins_is_named_when_installing(run_truly: Run, home: Path) -> None:
    place(plugin(home, "sub"), OLDER)
    status, out, err = run_truly()
    assert status == 0
    assert "Checked" not in out
    assert err == (
        f"sparkshark: warning: Wireshark {VERSION} loads another copy instead:"
        " ~/.local/lib/wireshark/plugins/sub/sparkshark.lua. Details: sparkshark install-plugin --check\n"
    )


@pytest.mark.parametrize(
    ("version", "root", "told"),
    [("4.0.17", True, False), ("4.2.0", True, True), ("4.6.1", False, False), ("what", True, True)],
)
def test_root_is_told_where_it_matters(run_on: On, home: Path, version: str, root: bool, told: bool) -> None:
    theirs = stage(home=home, files=["/usr/bin/tshark"], version=version, superuser=root)
    run = run_on(theirs)
    assert ("~ Running as root: Wireshark 4.2 and later" in run("--check")[1]) == told
    assert ("warning: installed for root" in run()[2]) == told


def test_the_variable_that_moves_the_shared_folder_is_named(run_on: On, home: Path) -> None:
    run = run_on(stage(home=home, variables={"WIRESHARK_PLUGIN_DIR": f"{home}/lab"}))
    assert "~ WIRESHARK_PLUGIN_DIR is set: ~/lab\n" in run("--check")[1]


@pytest.mark.parametrize(
    ("version", "line"),
    [
        ("2.6.20", "~ Wireshark 2.6.20 (tshark) was not tried; supported: 3.6 to 4.6"),
        ("3.6.2", "✓ Wireshark 3.6.2 (tshark), supported: 3.6 to 4.6"),
        ("4.6.9", "✓ Wireshark 4.6.9 (tshark), supported: 3.6 to 4.6"),
        ("4.10.0", "~ Wireshark 4.10.0 (tshark) was not tried; supported: 3.6 to 4.6"),
        ("what", "? Wireshark (tshark), version not known; supported: 3.6 to 4.6"),
    ],
)
def test_versions_are_judged(run_on: On, home: Path, version: str, line: str) -> None:
    theirs = stage(home=home, files=["/usr/bin/tshark"], version=version)
    run = run_on(theirs)
    assert run("--check")[1].splitlines()[0] == line


def test_every_line_fits_the_screen(run_on: On, home: Path) -> None:
    place(plugin(home), NEWER)
    place(plugin(home, "sub"), FOREIGN)
    loaded = Answer(
        "", f"tshark: Lua: syntax error: {plugin(home)}:1: unexpected symbol near 'a name of some length'\n"
    )
    said = SAID.replace(HOME, str(home))
    run = run_on(stage(home=home, files=["/usr/bin/tshark"], version="4.6.9", said=said, loaded=loaded, superuser=True))
    for words in (["--check", "--profile"], ["--profile"], ["--uninstall"]):
        assert max(map(len, run(*words)[1].replace(str(home), "~").splitlines())) <= 80


# -- uninstall -------------------------------------------------------------------------------------------------


def test_uninstalling_removes_every_copy_of_ours_and_only_those(run: Run, home: Path, machine: Machine) -> None:
    run("--profile")
    ours = [plugin(home), place(plugin(home, "4.0"), OLDER), place(home / ".config/wireshark/plugins/sparkshark.lua")]
    foreign = place(plugin(home, "mine"), FOREIGN)
    neighbour = place(plugin(home).with_name("other.lua"), FOREIGN)
    status, out, err = run("--uninstall")
    assert (status, err) == (0, "")
    assert out == (
        f"Removed {BEHAVES}\n"
        "Removed ~/.local/lib/wireshark/plugins/4.0/sparkshark.lua\n"
        "Removed ~/.config/wireshark/plugins/sparkshark.lua\n"
        "Removed profile ~/.config/wireshark/profiles/Spark\n"
        "Left alone ~/.local/lib/wireshark/plugins/mine/sparkshark.lua\n"
        "  It was not written by sparkshark.\n"
        "Restart Wireshark to be without it.\n"
    )
    assert not any(path.exists() for path in ours)
    assert foreign.exists()
    assert neighbour.exists()
    assert not (home / ".config/wireshark/profiles/Spark").exists()


def test_the_folder_of_all_users_is_left_alone(run_on: On, home: Path) -> None:
    shared = place(home / "all users" / "sparkshark.lua")
    said = SAID.replace(HOME, str(home)).replace("/usr/lib/wireshark/plugins\n", f"{shared.parent}\n")
    assert run_on(stage(home=home, files=["/usr/bin/tshark"], said=said))("--uninstall") == (
        0,
        "Left alone ~/all users/sparkshark.lua\n"
        "  It is in the folder of all users.\n"
        f"  Remove it: sparkshark install-plugin --uninstall --directory '{shared.parent}'\n"
        "Nothing to remove.\n",
        "",
    )
    assert shared.exists()


def test_what_cannot_be_removed_is_told(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("--profile")

    def refuse(path: str) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", path)

    with monkeypatch.context() as now:
        now.setattr(os, "unlink", refuse)
        status, out, err = run("--uninstall")
    assert (status, out) == (2, "")
    assert err.splitlines()[0] == (
        f"sparkshark: {plugin(home)}: cannot be removed (operation not permitted). Remove it as the user it belongs to"
    )
    assert err.count("\n") == 2  # one for the profile


def test_a_search_for_copies_ends(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        place(home / f"sub{number}" / "sparkshark.lua")
    assert len(install.copies([str(home)])) == 5
    monkeypatch.setattr(install, "MOST_FOLDERS", 3)
    assert len(install.copies([str(home)])) == 2  # the folder itself and the first two below it


def test_nothing_to_remove_is_fine(run: Run, home: Path) -> None:
    assert run("--uninstall") == (0, "Nothing to remove.\n", "")


def test_what_is_a_link_is_not_removed(run: Run, home: Path) -> None:
    target = place(home / "elsewhere" / "sparkshark.lua")
    plugin(home).parent.mkdir(parents=True)
    plugin(home).symlink_to(target)
    assert run("--uninstall")[1].startswith(f"Left alone {BEHAVES}")
    assert plugin(home).is_symlink()
    assert target.exists()


# -- the profile -----------------------------------------------------------------------------------------------


def test_wireshark_takes_the_profile_as_it_is(run_truly: Run, home: Path, machine: Machine) -> None:
    status, out, err = run_truly("--profile")
    assert (status, err) == (0, "")
    assert "Installed profile ~/.config/wireshark/profiles/Spark" in out.splitlines()
    place(plugin(home), plugin_text())
    capture, key = home / "c.pcap", home / "k.der"
    capture.write_bytes((CAPTURES / "healthy-full.pcap").read_bytes())
    key.write_bytes((CAPTURES / "keys" / "core-a.der").read_bytes())
    with_profile = ("-C", "Spark", "-r", str(capture), "-o", f"spark.device_key:{key}")
    rows = tshark(machine, *with_profile)
    assert [line for line in rows.complaints.splitlines() if "Running as user" not in line] == []
    assert re.search(r"(?m)^ +4 +[\d.]+ server .* Spark +[\d.]+ +Nonce", rows.output)
    assert re.search(r"(?m)^ +12 +[\d.]+ device .* Spark +[\d.]+ +Subscribe greet", rows.output)
    rules = tshark(machine, *with_profile, "--color", "-T", "fields", "-e", "frame.coloring_rule.name")
    by_packet = dict(enumerate(rules.output.splitlines(), start=1))
    assert [by_packet[n] for n in (1, 3, 4, 9, 12, 13)] == [
        "TCP SYN or FIN",
        "TCP",
        "Spark: login",
        "Spark: login",
        "Spark: device says",
        "Spark: server says",
    ]
    told = tshark(machine, "-G", "currentprefs", "-C", "Spark").output
    assert "\ntcp.reassemble_out_of_order: TRUE\n" in told


def test_findings_are_seen_in_the_list(home: Path, machine: Machine) -> None:
    place(plugin(home), plugin_text())
    profile.put(profile.folder_in(str(home / ".config/wireshark")))
    os.chmod(home / ".config/wireshark", 0o777)  # noqa: S103 - as if nobody had made it
    capture = home / "c.pcap"
    capture.write_bytes((CAPTURES / "key-mismatch-retries.pcap").read_bytes())
    rules = tshark(
        machine, "-C", "Spark", "-r", str(capture), "--color", "-T", "fields", "-e", "frame.coloring_rule.name"
    )
    assert "Spark: does not connect, or drops" in rules.output.splitlines()


def filters() -> list[str]:
    return [what for _, what, *_ in (*profile.COLOURS, *profile.BUTTONS)]


def test_every_filter_of_the_profile_is_one(home: Path, machine: Machine) -> None:
    place(plugin(home), plugin_text())
    capture = home / "c.pcap"
    capture.write_bytes((CAPTURES / "port-blocked.pcap").read_bytes())
    together = " || ".join(f"({what})" for what in filters())
    answer = tshark(machine, "-r", str(capture), "-Y", together)  # a filter that is none ends with a failure
    assert "eprecated" not in answer.complaints


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("ground", "text"), [(ground, text) for _, _, ground, text in profile.COLOURS])
def test_colours_can_be_read(ground: str, text: str) -> None:
    darker, lighter = sorted([luminance(ground), luminance(text)])
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def test_a_profile_stays_as_the_user_changed_it(run: Run, home: Path) -> None:
    run("--profile")
    folder = home / ".config/wireshark/profiles/Spark"
    (folder / "preferences").write_text("# mine\n")
    status, out, err = run("--profile")
    line = f"sparkshark: {folder}: changed since sparkshark wrote it; left alone."
    assert (status, err) == (2, f"{line} Replace it: --force\n")
    assert f"{BEHAVES} is already current." in out
    assert "~ Profile ~/.config/wireshark/profiles/Spark was changed since sparkshark wrote it" in run("--check")[1]
    status, out, err = run("--uninstall")
    assert (status, err) == (2, f"{line} Remove it: --force\n")
    assert f"Removed {BEHAVES}" in out
    assert (folder / "preferences").read_text() == "# mine\n"
    assert "Replaced profile" in run("--profile", "--force")[1]
    assert (folder / "preferences").read_text() == profile.files()["preferences"]


def test_a_profile_of_somebody_else_is_left_alone(run: Run, home: Path) -> None:
    folder = home / ".config/wireshark/profiles/Spark"
    place(folder / "preferences", "# mine\n")
    status, _, err = run("--profile")
    assert (status, err) == (2, f"sparkshark: {folder}: not written by sparkshark; left alone. Replace it: --force\n")
    assert "~ Profile ~/.config/wireshark/profiles/Spark was not written by sparkshark" in run("--check")[1]
    run("--uninstall", "--force")
    assert os.listdir(folder) == ["preferences"]


def test_an_old_profile_that_nobody_changed_is_updated(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as then:
        then.setattr(profile, "files", lambda: {"preferences": "# of old\n", "cfilters": "# gone since\n"})
        run("--profile")
    folder = home / ".config/wireshark/profiles/Spark"
    (folder / "recent").write_text("# Wireshark writes this by itself\n")
    assert "~ Profile ~/.config/wireshark/profiles/Spark is older than this sparkshark" in run("--check")[1]
    assert "Updated profile ~/.config/wireshark/profiles/Spark" in run("--profile")[1].splitlines()
    assert set(os.listdir(folder)) == {*profile.files(), "recent", "sparkshark.sha256"}
    assert "Removed profile" in run("--uninstall")[1]
    assert not folder.exists()


def test_a_profile_is_installed_once(run: Run, home: Path) -> None:
    run("--profile")
    folder = home / ".config/wireshark/profiles/Spark"
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    status, out, _ = run("--profile")
    assert (status, out.splitlines()[1]) == (0, "Profile ~/.config/wireshark/profiles/Spark is already current.")
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_missing_profile_is_told_when_it_is_asked_for(run: Run, home: Path) -> None:
    assert "rofile" not in run("--check")[1]
    assert "✕ Profile ~/.config/wireshark/profiles/Spark is missing\n" in run("--check", "--profile")[1]


@settings(max_examples=100, deadline=None)
@given(listed=st.binary(max_size=200) | st.lists(st.sampled_from(["a" * 64, "..", "/etc/x", "  ", "\n", "x"])))
def test_whatever_the_list_of_digests_says_nothing_outside_is_touched(listed: bytes | list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        outside = Path(name, "x")
        outside.write_text("mine")
        folder = Path(name, "Spark")
        place(folder / "preferences", "# mine\n")
        (folder / "sparkshark.sha256").write_bytes(listed if isinstance(listed, bytes) else "".join(listed).encode())
        assert profile.look(str(folder)) is Condition.CHANGED
        profile.remove(str(folder), force=True)
        assert outside.read_text() == "mine"


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=100), ours=st.booleans())
def test_whatever_a_file_holds_it_is_told_what_it_is(content: bytes, ours: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "sparkshark.lua")
        path.write_bytes((MARK.encode() if ours else b"") + content)
        wanted = {Condition.OLDER, Condition.NEWER} if ours else {Condition.FOREIGN}
        assert install.look(str(path), PLUGIN).condition in wanted
        assert install.remove(str(path), PLUGIN) == ours


# -- other systems ---------------------------------------------------------------------------------------------

WINDOWS = {
    "PATH": r"C:\Windows;D:\Tools\Wireshark;.",
    "APPDATA": r"C:\Users\ada\AppData\Roaming",
    "PROGRAMFILES": r"C:\Program Files",
}


@pytest.mark.parametrize(
    ("machine", "plugins", "configuration"),
    [
        (stage(), PLUGINS, f"{HOME}/.config/wireshark"),
        (stage(variables={"XDG_CONFIG_HOME": "/etc/ada"}), PLUGINS, "/etc/ada/wireshark"),
        (stage(variables={"WIRESHARK_CONFIG_DIR": "/lab"}), PLUGINS, "/lab"),
        (stage(system="darwin"), PLUGINS, f"{HOME}/.config/wireshark"),
        (
            stage(system="win32", home=r"C:\Users\ada", variables=WINDOWS),
            r"C:\Users\ada\AppData\Roaming\Wireshark\plugins",
            r"C:\Users\ada\AppData\Roaming\Wireshark",
        ),
        (
            stage(system="win32", home=r"C:\Users\ada"),
            r"C:\Users\ada\AppData\Roaming\Wireshark\plugins",
            r"C:\Users\ada\AppData\Roaming\Wireshark",
        ),
        (
            stage(system="win32", home=r"C:\Users\ada", variables={"WIRESHARK_CONFIG_DIR": r"D:\lab"}),
            r"D:\lab\plugins",
            r"D:\lab",
        ),
    ],
)
def test_the_folders_that_wireshark_documents(machine: Machine, plugins: str, configuration: str) -> None:
    assert documented(machine) == Folders(plugins, configuration)


def test_a_tshark_that_answers_is_believed() -> None:
    said = SAID.replace(HOME, "/moved")
    found = find(stage(files=["/usr/bin/tshark", "/usr/bin/wireshark"], said=said))
    assert found == [
        Wireshark(
            Kind.INSTALLED,
            "/usr/bin/tshark",
            "4.4.3",
            Folders("/moved/.local/lib/wireshark/plugins", "/moved/.config/wireshark", "/usr/lib/wireshark/plugins"),
            ("/usr/bin/tshark",),
        )
    ]


def test_one_without_lua_is_known(run_on: On, home: Path) -> None:
    said = "\n".join(line for line in SAID.splitlines() if "Lua" not in line)
    (found,) = find(stage(files=["/usr/bin/tshark"], said=said))
    assert not found.has_lua
    assert found.folders == Folders(PLUGINS, f"{HOME}/.config/wireshark")
    said = said.replace(HOME, str(home))
    run = run_on(stage(home=home, files=["/usr/bin/tshark"], said=said, loaded=Answer("")))
    assert run()[2].startswith("sparkshark: warning: Wireshark 4.4.3 was built without Lua. Details:")
    screen = run("--check")[1].splitlines()
    assert screen[0] == "✕ Wireshark 4.4.3 (tshark) was built without Lua; it can load no such plugin"
    assert screen[-1] == "✕ Wireshark 4.4.3 was built without Lua."


def test_one_that_cannot_be_asked_has_the_documented_folders() -> None:
    (found,) = find(stage(files=["/usr/bin/wireshark"]))
    assert (found.version, found.tshark) == ("4.4.3", ())
    assert found.folders == Folders(PLUGINS, f"{HOME}/.config/wireshark")


def test_two_names_of_one_program_are_one_and_two_programs_are_two() -> None:
    files = ["/bin/tshark", "/usr/bin/tshark", "/opt/ws/tshark"]
    machine = stage(variables={"PATH": "/bin:/usr/bin:/opt/ws"}, files=files)
    linked = Machine(
        machine.system,
        machine.home,
        machine.variables,
        is_file=machine.is_file,
        is_folder=machine.is_folder,
        real=lambda path: path.replace("/usr/bin", "/bin"),
        run=machine.run,
    )
    assert [w.place for w in find(linked)] == ["/bin/tshark", "/opt/ws/tshark"]


def test_nothing_is_run_from_a_relative_folder() -> None:
    assert find(stage(variables={"PATH": ".:bin::"}, files=["./tshark", "bin/tshark", "tshark"])) == []


def test_the_mac_application_is_found() -> None:
    app = "/Applications/Wireshark.app/Contents/MacOS"
    (found,) = find(stage(system="darwin", files=[f"{app}/Wireshark", f"{app}/tshark"], said=SAID))
    assert (found.tshark, found.version) == ((f"{app}/tshark",), "4.4.3")
    own = f"{HOME}{app}/Wireshark"
    assert [w.place for w in find(stage(system="darwin", files=[own]))] == [own]


def test_windows_is_found_and_its_window_is_never_opened() -> None:
    tool = r"C:\Program Files\Wireshark\tshark.exe"
    said = "Personal configuration:\tC:\\Users\\ada\\AppData\\Roaming\\Wireshark\\\nPersonal Lua Plugins:\tD:\\lua\n"
    (found,) = find(stage(system="win32", home=r"C:\Users\ada", variables=WINDOWS, files=[tool], said=said))
    assert found.folders == Folders("D:\\lua", "C:\\Users\\ada\\AppData\\Roaming\\Wireshark\\")
    window = r"D:\Tools\Wireshark\wireshark.exe"
    (found,) = find(stage(system="win32", home=r"C:\Users\ada", variables=WINDOWS, files=[window]))
    assert (found.place, found.version, found.tshark) == (window, None, ())


@pytest.mark.parametrize("root", ["/var/lib/flatpak", f"{HOME}/.local/share/flatpak"])
def test_the_flatpak_reads_plugins_from_the_home_and_settings_from_its_own_folder(root: str) -> None:
    place = f"{root}/app/org.wireshark.Wireshark"
    (found,) = find(stage(files=["/usr/bin/flatpak"], folders=[place]))
    assert found.kind is Kind.FLATPAK
    assert found.folders == Folders(PLUGINS, f"{HOME}/.var/app/org.wireshark.Wireshark/config/wireshark")
    (found,) = find(stage(files=["/usr/bin/flatpak"], folders=[place], said=SAID))
    assert found.tshark == ("/usr/bin/flatpak", "run", "--command=tshark", "org.wireshark.Wireshark")


def test_the_snap_has_a_home_of_its_own() -> None:
    current = f"{HOME}/snap/wireshark/current"
    (found,) = find(stage(variables={"PATH": "/snap/bin"}, files=["/snap/bin/wireshark"], folders=[current]))
    assert found.kind is Kind.SNAP
    assert found.folders == Folders(f"{current}/.local/lib/wireshark/plugins", f"{current}/.config/wireshark")


def test_a_snap_that_was_never_started_gets_no_folder_made(run_on: On, home: Path) -> None:
    theirs = stage(home=home, files=["/snap/bin/wireshark", "/snap/bin/tshark"])
    run = run_on(theirs)
    assert "the Snap of Wireshark has no folder before its first start" in run()[2]
    assert not (home / "snap").exists()
    assert "~ The Snap has no folder before its first start" in run("--check")[1]


def test_a_profile_goes_to_each_configuration_and_a_plugin_once_to_a_shared_folder(run_on: On, home: Path) -> None:
    theirs = stage(
        home=home,
        files=["/usr/bin/wireshark"],
        folders=["/var/lib/flatpak/app/org.wireshark.Wireshark"],
    )
    run = run_on(theirs)
    out = run("--profile")[1]
    assert out.count("Installed ~") == 1
    assert out.count("Installed profile ~") == 2
    assert "? Wireshark (Flatpak), version not known; supported: 3.6 to 4.6" in run("--check")[1]


def test_on_a_mac_the_key_is_named_as_it_is_there(run_on: On, home: Path) -> None:
    theirs = stage(system="darwin", home=home, files=["/usr/local/bin/wireshark"])
    run = run_on(theirs)
    assert "(Cmd+Shift+L)" in run()[1]


def test_this_machine_is_described_as_it_is(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("HOME", str(home))
    here = Machine.here()
    assert (here.system, here.home, here.superuser) == ("linux", str(home), os.geteuid() == 0)
    assert here.variables["HOME"] == str(home)


def test_what_cannot_be_run_has_no_answer(tmp_path: Path) -> None:
    assert folders.run(["/nowhere/tshark"], {}) is None
    assert folders.run([PROGRAM, "--no-such-option"], {}) is None


def test_done_and_errors_are_told_apart(tmp_path: Path) -> None:
    path = str(tmp_path / "sparkshark.lua")
    assert [install.put(path, OLDER), install.put(path, PLUGIN), install.put(path, PLUGIN)] == [
        Done.INSTALLED,
        Done.UPDATED,
        Done.NOTHING,
    ]
    Path(path).write_text(FOREIGN)
    with pytest.raises(InstallError, match="not written by sparkshark"):
        install.put(path, PLUGIN)
