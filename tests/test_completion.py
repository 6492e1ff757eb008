"""Completion in the shells themselves, the examples of each page of help, and the manual page.

The shells run without any Python in their PATH: what is offered is in the script.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from screens import CAPTURES, ROOT, sparkshark

from analyzer.cli import COMMANDS, command_of, main
from analyzer.commands.completion import program
from analyzer.findings import FINDINGS
from analyzer.shells import Argument, Command, Kind, Option, Program, bash, fish, zsh
from analyzer.simulate import SCENARIOS, simulate

SHELLS = ("bash", "zsh", "fish")
TOOLS = ("cat", "ls", "tr", "grep", "sed", "printf", "test", "uname", "tty", "mkdir", "rm", "dirname", "awk", "sort")
WORD_BREAKS = re.compile(r"(=)")
"""What else parts words in bash."""

Complete = Callable[[str], set[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    here = tmp_path / "here"
    here.mkdir()
    for name in ("a.pcap", "b.pcapng", "c.cap", "d.pcap.gz", "e.pcapng.zst", "it's mine.pcap", "notes.txt", "core.der"):
        (here / name).write_bytes(b"")
    (here / "ring").mkdir()
    (here / "ring" / "deep.pcap").write_bytes(b"")
    return here


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment with nothing but what a shell needs."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in (*SHELLS, *TOOLS):
        if where := shutil.which(name):
            (tools / name).symlink_to(where)
    return {"PATH": str(tools), "HOME": str(tmp_path), "LC_ALL": "C.UTF-8", "TERM": "dumb"}


def written(name: str, folder: Path, made: Program | None = None) -> Path:
    script = folder.parent / f"script.{name}"
    write = {"bash": bash, "zsh": zsh, "fish": fish}[name]
    script.write_text(write(made or program()), encoding="utf-8")
    return script


def in_bash(script: Path, folder: Path, bare: dict[str, str], line: str, kind: int = 9) -> set[str]:
    words = [part for word in line.split(" ") for part in (WORD_BREAKS.split(word) if "=" in word else [word])]
    if words[-1] == "" and words[-2:-1] == ["="]:
        words.pop()
    program = (
        'source "$1"; shift; complete -p sparkshark >/dev/null || exit 1\n'
        f'COMP_TYPE={kind}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _sparkshark\n'
        'for word in "${COMPREPLY[@]}"; do printf "%s\\n" "$word"; done'
    )
    command = ["bash", "--norc", "--noprofile", "-c", program, "bash", str(script), *words]
    done = subprocess.run(command, cwd=folder, env=bare, capture_output=True, text=True, check=True, timeout=20)
    assert done.stderr == ""
    return set(done.stdout.splitlines())


def in_fish(script: Path, folder: Path, bare: dict[str, str], line: str) -> set[str]:
    command = ["fish", "--no-config", "-c", 'source $argv[1]; complete -C"$argv[2]"', str(script), line]
    done = subprocess.run(command, cwd=folder, env=bare, capture_output=True, text=True, check=True, timeout=20)
    assert done.stderr == ""
    return {offer.partition("\t")[0].rpartition("=")[2] for offer in done.stdout.splitlines()}


ZSH_START = """\
PS1='ready> '; PROMPT_EOL_MARK=''; unset zle_bracketed_paste
autoload -U compinit; compinit -u -D; source "$SCRIPT"
zstyle ':completion:*' menu no
compadd() {
    if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\\ * ]]; then builtin compadd "$@"; return $?; fi
    typeset -a hits; builtin compadd -A hits "$@"; print -rl -- $hits >> $OFFERED; builtin compadd "$@"
}
offer() { zle list-choices; print -r -- '--end--' >> $OFFERED; zle kill-whole-line; zle send-break }
zle -N offer; bindkey '^T' offer
"""


class Terminal:
    """A shell on a terminal of its own, for what it does only there."""

    def __init__(self, command: list[str], folder: Path, env: dict[str, str]) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            command, cwd=folder, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def read_until(self, wanted: Callable[[str], bool], seconds: float = 20) -> str:
        seen, end = b"", time.monotonic() + seconds
        while not wanted(seen.decode(errors="replace")) and time.monotonic() < end:
            if select.select([self.master], [], [], 0.05)[0]:
                try:
                    seen += os.read(self.master, 65536)
                except OSError:
                    break
        return seen.decode(errors="replace")

    def close(self) -> None:
        self.process.kill()
        self.process.wait(20)
        os.close(self.master)


def in_zsh(script: Path, folder: Path, bare: dict[str, str], line: str) -> set[str]:
    offered = folder.parent / "offered"
    offered.write_text("")
    start = folder.parent / "start.zsh"
    start.write_text(ZSH_START)
    terminal = Terminal(["zsh", "-f", "-i"], folder, {**bare, "SCRIPT": str(script), "OFFERED": str(offered)})
    try:
        terminal.type(f"source {start}\n")
        terminal.read_until(lambda seen: "ready> " in seen)
        terminal.type(line + "\x14")
        terminal.read_until(lambda _: "--end--" in offered.read_text())
    finally:
        terminal.close()
    lines = offered.read_text().splitlines()
    assert lines[-1:] == ["--end--"], "zsh has not answered"
    return set(lines[:-1]) - {""}


@pytest.fixture(params=SHELLS)
def complete(request: pytest.FixtureRequest, folder: Path, bare: dict[str, str]) -> Complete:
    script = written(request.param, folder)
    run = {"bash": in_bash, "zsh": in_zsh, "fish": in_fish}[request.param]
    return lambda line: {offer.strip("/") for offer in run(script, folder, bare, line)}


CAPTURES_HERE = {"a.pcap", "b.pcapng", "c.cap", "d.pcap.gz", "e.pcapng.zst", "it's mine.pcap", "ring"}


def test_commands_options_and_their_values(complete: Complete) -> None:
    assert complete("sparkshark ") >= set(COMMANDS)
    assert complete("sparkshark ana") == {"analyze"}
    assert complete("sparkshark analyze --for") >= {"--format"}
    assert complete("sparkshark analyze --format ") >= {"text", "json", "jsonl", "markdown", "parquet"}
    assert complete("sparkshark analyze --format=js") == {"json", "jsonl"}
    assert complete("sparkshark analyze a.pcap --fail-on ma") == {"major"}
    assert complete("sparkshark completion fi") == {"fish"}


def test_captures_keys_and_folders(complete: Complete) -> None:
    assert {name.replace("\\", "") for name in complete("sparkshark analyze ")} == CAPTURES_HERE
    assert {name.replace("\\", "") for name in complete("sparkshark analyze a.pcap ")} == CAPTURES_HERE
    assert {name.rpartition("/")[2] for name in complete("sparkshark analyze ring/")} == {"deep.pcap"}
    assert "core.der" in complete("sparkshark decrypt a.pcap --keys ")
    assert complete("sparkshark decrypt a.pcap --firmware ") == {"ring"}
    assert "core.der" in complete("sparkshark keys ")


def test_codes_and_scenarios(complete: Complete) -> None:
    assert complete("sparkshark explain SPK20") == {code for code in FINDINGS if code.startswith("SPK20")}
    assert complete("sparkshark explain cap") >= {"capture"}
    assert "a.pcap" in complete("sparkshark explain SPK206 ")
    assert complete("sparkshark simulate healthy") >= {name for name in SCENARIOS if name.startswith("healthy")}
    assert complete("sparkshark simulate healthy --firmware photon-") == {"photon-0.5", "photon-1.4", "photon-3"}


@pytest.mark.parametrize("shell", SHELLS)
def test_an_option_that_takes_an_interface_completes_interfaces(shell: str, folder: Path, bare: dict[str, str]) -> None:
    option = Option(("-i", "--interface"), "where", "IFACE", Kind.INTERFACE)
    watch = Command("watch", "live", "", "", (option,), (Argument("IFACE", "where", Kind.INTERFACE),), ())
    script = written(shell, folder, Program("1", "", (watch,), (("SPK1", "a"),), (("story", "b"),), ""))
    run = {"bash": in_bash, "zsh": in_zsh, "fish": in_fish}[shell]
    interfaces = set(os.listdir("/sys/class/net"))
    assert run(script, folder, bare, "sparkshark watch -i ") == interfaces
    assert run(script, folder, bare, "sparkshark watch ") == interfaces


def test_bash_tells_meanings_where_it_lists_and_inserts_words_alone(folder: Path, bare: dict[str, str]) -> None:
    script = written("bash", folder)
    listed = in_bash(script, folder, bare, "sparkshark explain SPK20", kind=63)
    assert f"SPK206  ({FINDINGS['SPK206'].title})" in listed
    assert in_bash(script, folder, bare, "sparkshark explain SPK206", kind=63) == {"SPK206"}
    assert in_bash(script, folder, bare, "sparkshark explain spk206") == {"SPK206"}


def typed(shell: list[str], begin: str, line: str, wanted: str, place: tuple[Path, dict[str, str]]) -> str:
    """What a terminal shows when somebody types a line with tabs into a shell that has begun so."""
    folder, bare = place
    terminal = Terminal(shell, folder, {**bare, "PS1": "ready> "})
    try:
        terminal.type(begin)
        terminal.read_until(lambda seen: seen.count("ready> ") >= 2)
        terminal.type(line)
        return terminal.read_until(lambda seen: wanted in seen)
    finally:
        terminal.close()


def test_a_bash_that_somebody_types_into_completes(folder: Path, bare: dict[str, str]) -> None:
    script = written("bash", folder)
    begin = f"bind 'set bell-style none'; source {script}; sparkshark() {{ printf '<%s>' \"$@\"; }}\n"
    line = "sparkshark anal\tit\t--forma\tmarkd\t\n"
    seen = typed(["bash", "--norc", "--noprofile", "-i"], begin, line, "<markdown>", (folder, bare))
    assert "<analyze><it's mine.pcap><--format><markdown>" in seen


def test_a_zsh_that_somebody_types_into_completes(folder: Path, bare: dict[str, str]) -> None:
    script = written("zsh", folder)
    begin = f"autoload -U compinit; compinit -u -D; source {script}; sparkshark() {{ printf '<%s>' $@ }}\n"
    seen = typed(["zsh", "-f", "-i"], begin, "sparkshark anal\tit\t--quie\t\n", "<--quiet>", (folder, bare))
    assert "<analyze><it's mine.pcap><--quiet>" in seen


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell", "man"])
def test_each_script_has_every_command_option_code_and_scenario(shell: str) -> None:
    run = sparkshark("completion", shell)
    assert (run.returncode, run.stderr) == (0, b"")
    text = run.stdout.decode().replace("\\-", "-")
    everything = program()
    for command in everything.commands:
        assert command.name in text
        for name in (name for option in command.options for name in option.names):
            assert name in text or (f"-l {name[2:]} " in text or f"-s {name[1:]} " in text)
    if shell != "man":
        assert all(word in text for word, _ in (*everything.codes, *everything.scenarios))


def test_the_powershell_script_is_balanced_and_quotes_as_powershell_does() -> None:
    text = sparkshark("completion", "powershell").stdout.decode()
    bare = re.sub(r"#.*", "", re.sub(r"'(?:[^']|'')*'", "''", text))
    for left, right in ("()", "{}", "[]"):
        assert bare.count(left) == bare.count(right)
    assert "'the device''s private key (also: --core-key)'" in text
    assert "Register-ArgumentCompleter -Native -CommandName sparkshark" in text


# -- the manual page ------------------------------------------------------------------------------------------------


def test_the_manual_page_is_the_one_of_this_version() -> None:
    made = sparkshark("completion", "man").stdout.decode()
    shipped = (ROOT / "analyzer" / "shells" / "sparkshark.1").read_text(encoding="utf-8")
    assert made == shipped, "out of date: sparkshark completion man > analyzer/shells/sparkshark.1"


def test_the_manual_page_is_well_made() -> None:
    page = str(ROOT / "analyzer" / "shells" / "sparkshark.1")
    lint = subprocess.run(["mandoc", "-Tlint", "-Wstyle", page], capture_output=True, text=True, check=False)
    assert (lint.returncode, lint.stdout, lint.stderr) == (0, "", "")
    text = subprocess.run(["mandoc", "-Tascii", page], capture_output=True, text=True, check=True).stdout
    plain = re.sub(".\b", "", text)
    assert "sparkshark analyze [-h] [--port N]" in plain
    assert "ssh router tcpdump -U -w - port 5683 | sparkshark analyze -" in plain


# -- examples -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples speak of, made of the shipped captures."""
    desk = tmp_path_factory.mktemp("desk")
    for name in ("capture.pcap", "update.pcap", "plain.pcap"):
        shutil.copy(CAPTURES / ("ota-complete.pcap" if name == "update.pcap" else "healthy-full.pcap"), desk / name)
    shutil.copy(CAPTURES / "nonce-looks-like-coap.pcap", desk / "seed.pcap")
    (desk / "ring").mkdir()
    shutil.copy(CAPTURES / "key-mismatch-retries.pcap", desk / "ring")
    for name in ("my-keys", "backups", "images", "bin", ".config/fish/completions"):
        (desk / name).mkdir(parents=True)
    for place in ("core.der", "my-keys/core-a.der", "backups/core-a.der", "now.der"):
        shutil.copy(CAPTURES / "keys" / "core-a.der", desk / place)
    for place in ("cloud_public.der", "my-keys/server.pub.pem"):
        shutil.copy(CAPTURES / "keys" / "server.pub.pem", desk / place)
    programs = {
        "ssh": f'exec cat "{desk}/capture.pcap"',
        "sudo": 'exec "$@"',
        "tcpdump": f'exec cat "{desk}/capture.pcap"',
        "dfu-util": ":",
        "sparkshark": f'exec "{sys.executable}" -P -m analyzer "$@"',
    }
    for name, does in programs.items():
        (desk / "bin" / name).write_text(f"#!/bin/sh\n{does}\n")
        (desk / "bin" / name).chmod(0o755)
    return desk


def examples() -> Iterator[tuple[str, str]]:
    for command in program().commands:
        for example in command.examples:
            yield command.name, example


@pytest.mark.parametrize("name", COMMANDS)
def test_each_page_of_help_ends_with_examples(name: str) -> None:
    _, parser = command_of(name)
    assert (parser.epilog or "").startswith("examples\n  ")
    assert f"sparkshark {name}" in (parser.epilog or "")


@pytest.mark.parametrize(("name", "example"), list(examples()))
def test_an_example_does_what_it_says(name: str, example: str, desk: Path) -> None:
    if re.search(r" -i \w+", example) or "/srv/" in example:  # needs a network, or writes outside of this folder
        assert main([name, "--help"]) == 0
        return
    environment = {**os.environ, "PATH": f"{desk}/bin:{os.environ['PATH']}", "HOME": str(desk), "PYTHONPATH": str(ROOT)}
    environment |= {"PROFILE": str(desk / "profile.ps1"), "XDG_CONFIG_HOME": str(desk / ".config"), "LC_ALL": "C.UTF-8"}
    command = ["bash", "-o", "pipefail", "-c", example]
    run = subprocess.run(command, cwd=desk, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    assert "internal error" not in run.stderr


def test_stories_that_examples_name_exist() -> None:
    found = (re.search(r"simulate ([a-z]\S+)", example) for _, example in examples())
    names = [match[1] for match in found if match]
    assert names
    for name in names:
        assert simulate(name).packets
