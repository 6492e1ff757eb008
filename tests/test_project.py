"""What the project promises about itself: its shape, its texts, its package, its README."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import readme

import analyzer
from analyzer import rules
from analyzer.cli import COMMANDS
from analyzer.findings import FINDINGS, FindingSpec, Group, Severity

ROOT = readme.ROOT
PACKAGE = ROOT / "analyzer"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
SPECS = pytest.mark.parametrize("spec", FINDINGS.values(), ids=FINDINGS)

LINE = (
    # facts and words
    "catalogue",
    "message_table",
    "cells",
    "wording",
    "outfile",
    "secrecy",
    "fault",
    "version",
    # the other side: what simulate makes is a witness only as long as it shares nothing with what reads it
    "simulate",
    # packets to bytes in order
    "capture",
    "network",
    "copies",
    "spread",
    "streams",
    # what the bytes are, without any key
    "frames",
    "handshake",
    "misparse",
    "sessionwatch",
    # what keys open
    "rsa",
    "keys",
    "deadkey",
    "session",
    "coap",
    "messages",
    # what is known of one connection, and of the whole capture
    "seen",
    "lane",
    "cold",
    "opened",
    "conversation",
    "statistics",
    "decryption",
    "kinds",
    "share",
    "tracker",
    "part",
    "background",
    "limits",
    "expected",
    "findings",
    "devices",
    "gaps",
    "trace",
    # judgement, and views of it
    "causes",
    "recognition",
    "rules",
    "histories",
    "pipeline",
    "jobs",
    "redaction",
    "export",
    "report",
    "live",
    "dataset",
    "scapy_layers",
    "wireshark",
    "shells",
    "cli",
    "commands",
    "__main__",
)
"""The stages in their order: each may import from those before it, and from itself."""


# -- the line of stages ---------------------------------------------------------------------------------------


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of ours by its full name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            path.read_text(encoding="utf-8")
        )
        for path in PACKAGE.rglob("*.py")
    }


def imports(node: ast.AST, *, inside_functions: bool) -> Iterator[str]:
    """The modules of ours that are imported when this runs; what is there for the type checker never runs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not inside_functions:
            continue
        if isinstance(child, ast.Import):
            yield from (name.name for name in child.names if name.name.split(".")[0] == "analyzer")
        elif isinstance(child, ast.ImportFrom) and (child.module or "").split(".")[0] == "analyzer":
            names = [f"{child.module}.{name.name}" for name in child.names]
            yield from (name if name in modules() else str(child.module) for name in names)
        yield from imports(child, inside_functions=inside_functions)


def stage(module: str) -> str:
    return module.split(".")[1]


def test_every_module_has_its_place_in_the_line() -> None:
    assert {stage(name) for name in modules() if name != "analyzer"} == set(LINE)


def test_a_stage_imports_only_from_those_before_it() -> None:
    backwards = [
        f"{name} imports {other}"
        for name, tree in modules().items()
        if name != "analyzer"
        for other in imports(tree, inside_functions=True)
        if LINE.index(stage(other)) > LINE.index(stage(name))
    ]
    assert backwards == []


def test_what_simulates_knows_nothing_of_what_reads() -> None:
    known = {
        stage(other)
        for name, tree in modules().items()
        if stage(f"{name}.") == "simulate"
        for other in imports(tree, inside_functions=True)
    }
    assert known == {"simulate", "catalogue", "outfile"}


def test_no_module_needs_itself_to_be_loaded() -> None:
    graph = {name: set(imports(tree, inside_functions=False)) - {name} for name, tree in modules().items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(modules())


def third_party() -> set[str]:
    """Top-level names of everything imported that is neither ours nor Python's."""
    found = set()
    for tree in modules().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"analyzer"}


def test_what_is_imported_is_declared() -> None:
    extras = PROJECT["optional-dependencies"]
    declared = [*PROJECT["dependencies"], *extras["compression"], *extras["parquet"], *extras["cluster"]]
    assert third_party() <= {re.split(r"\W", requirement)[0] for requirement in declared}


# -- what a start costs ---------------------------------------------------------------------------------------

HEAVY = {"scapy", "dpkt", "cryptography", "jinja2", "tabulate", "pyarrow", "wcwidth"}


@pytest.mark.parametrize(
    ("code", "loaded"),
    [
        ("import analyzer", set()),
        ("from analyzer import KeyRing, analyze", set()),
        ("main(['--help'])", set()),
        ("main(['explain', 'SPK206'])", set()),
        ("main(['simulate', '--list'])", {"cryptography"}),
        ("main(['analyze', 'captures/port-blocked.pcap'])", set()),
        ("main(['analyze', 'captures/healthy-full.pcap'])", {"cryptography"}),
        ("main(['analyze', 'captures/port-blocked.pcap', '--format', 'html'])", {"jinja2"}),
        ("main(['analyze', 'captures/two-devices-background.pcap'])", {"cryptography", "dpkt", "tabulate", "wcwidth"}),
    ],
)
def test_only_what_is_used_is_loaded(code: str, loaded: set[str]) -> None:
    program = f"import sys\nfrom analyzer.cli import main\n{code}\nprint(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    names = set(ast.literal_eval(done.stderr.splitlines()[-1]))
    assert names & HEAVY <= loaded, "more is loaded than this needs"


def test_the_public_names_are_there() -> None:
    assert {name for name in analyzer.__all__ if getattr(analyzer, name) is None} == set()
    with pytest.raises(AttributeError, match="no attribute 'analyse'"):
        _ = analyzer.analyse


# -- findings -------------------------------------------------------------------------------------------------


def codes_in(tree: ast.AST) -> set[str]:
    texts = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    return {code for text in texts for code in re.findall(r"\bSPK\d+\b", text)}


@pytest.mark.parametrize("where", ["rules", "report", "commands", "findings", "pipeline", "cli"])
def test_every_code_that_is_named_exists(where: str) -> None:
    named = {
        code
        for name, tree in modules().items()
        if f"{name}.".startswith(f"analyzer.{where}.")
        for code in codes_in(tree)
    }
    assert named <= set(FINDINGS)


def test_every_finding_is_found_by_a_rule_or_in_a_key_file() -> None:
    finders = ("analyzer.rules", "analyzer.keys")
    assert set(FINDINGS) <= {
        code for name, tree in modules().items() if name.startswith(finders) for code in codes_in(tree)
    }


def test_every_rule_is_run() -> None:
    assert len(set(rules.RULES)) == len(rules.RULES)


@SPECS
def test_a_row_says_everything_a_person_reads(spec: FindingSpec) -> None:
    texts = [spec.title, spec.short, spec.says, spec.of, spec.means, spec.looks, spec.source, *spec.fix, *spec.causes]
    texts += [how for _, how in spec.not_it]
    assert all(text.strip() for text in texts)
    assert not any(re.search(r"\s$|\n|\bplease\b|\bsimply\b|\bsorry\b", text) for text in texts)
    assert re.fullmatch(r"SPK\d{3}", spec.code)
    assert re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", spec.name)
    assert spec.says.endswith((".", "}"))
    assert spec.means.endswith(".")
    assert not spec.title.endswith(".")


@SPECS
def test_a_row_points_only_to_others(spec: FindingSpec) -> None:
    others = {code for code, _ in spec.not_it}
    assert others <= set(FINDINGS) - {spec.code}
    named = re.findall(r"\bSPK\d{3}\b", " ".join([*spec.causes, *spec.fix, spec.settle, spec.means, spec.looks]))
    assert set(named) <= set(FINDINGS)


@SPECS
def test_what_is_bad_says_what_to_do(spec: FindingSpec) -> None:
    if spec.severity in (Severity.CRITICAL, Severity.MAJOR):
        assert spec.fix
    if spec.fix:
        assert not spec.fix[0].startswith((" ", "·")), "the first step is a step, not a command or an aside"


def test_codes_and_names_are_used_once_and_go_by_group() -> None:
    assert list(FINDINGS) == sorted(FINDINGS)
    assert len({spec.name for spec in FINDINGS.values()}) == len(FINDINGS)
    hundreds = {
        spec.group: {code[3] for code in FINDINGS if FINDINGS[code].group is spec.group} for spec in FINDINGS.values()
    }
    assert {group: len(digits) for group, digits in hundreds.items()} == dict.fromkeys(Group, 1)


# -- the repository -------------------------------------------------------------------------------------------

TOP_LEVEL = {
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "analyzer",
    "lua",
    "tests",
    "captures",
}
MADE = re.compile(r"^\.|^build$|^dist$|^__pycache__$|\.egg-info$")


def test_nothing_else_lies_at_the_top() -> None:
    assert {path.name for path in ROOT.iterdir() if not MADE.search(path.name)} <= TOP_LEVEL


def texts() -> Iterator[tuple[Path, str]]:
    """Every text of the project but this file, which has to spell what it looks for."""
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if not MADE.search(name) or name == ".ci"]
        for path in (Path(folder) / name for name in files):
            if path != Path(__file__) and path.suffix not in {".pcap", ".pcapng", ".der", ".pem", ".gz", ".pyc"}:
                yield path, path.read_text(encoding="utf-8")


def test_no_text_names_a_machine_or_leaves_something_undone() -> None:
    elsewhere = re.compile(r"/root/|/home/\w|/Users/\w|\bTODO\b|\bFIXME\b|\bXXX\b")
    found = {str(path.relative_to(ROOT)): match[0] for path, text in texts() if (match := elsewhere.search(text))}
    assert found == {}


def test_the_changelog_knows_this_version() -> None:
    versions = re.findall(r"^## \[(.+?)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert versions[0][0] == PROJECT["version"]
    assert re.fullmatch(r"unreleased|\d{4}-\d\d-\d\d", versions[0][1])


def test_the_metadata_names_what_is_there() -> None:
    assert (ROOT / PROJECT["readme"]).is_file()
    assert "GNU GENERAL PUBLIC LICENSE" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["license"] == "GPL-2.0-or-later"
    assert PROJECT["requires-python"] == ">=3.11"
    assert (PACKAGE / "py.typed").is_file()
    assert PROJECT["scripts"] == {"sparkshark": "analyzer.__main__:main"}


# -- the README -----------------------------------------------------------------------------------------------

README = readme.README.read_text(encoding="utf-8")


def test_the_readme_shows_what_the_program_prints() -> None:
    assert readme.refreshed(README) == README, "python -m tests.readme makes it anew"


def test_the_readme_begins_with_the_sentence_the_command_and_its_output() -> None:
    sentence, command, output = (
        README.split("\n\n")[1],
        README.index("\n$ python3 -m venv"),
        README.index("NOT CONNECTING"),
    )
    assert sentence.count(".") == 1
    assert sentence.endswith(".")
    assert README.index(sentence) < command < output < README.index("sh tests/run") < README.index("\n## ")


def test_the_readme_and_the_checks_run_the_same_tests() -> None:
    assert re.search(r"^sh tests/run$", README, re.MULTILINE)
    assert re.search(r"^sh tests/run$", (ROOT / ".ci/run").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_has_a_section_for_each_command(command: str) -> None:
    assert re.search(rf"^### {command}: ", README, re.MULTILINE)


def test_the_readme_names_every_module() -> None:
    table = README[README.index("## A map of the code") :]
    missing = [name for name in LINE if name not in ("version", "__main__") and f"`{name}" not in table]
    assert missing == []


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#:]+)\)", README))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / target).exists()
