"""Tries mutants in copies of one warm process: pytest has collected, every module is loaded, and each copy is changed,
runs the tests that enter the changed code until one fails, and goes.

A fault inside a function is put in by exchanging that function's code, wherever the function is already in use. One
that changes what a module does when it is imported needs all modules that come after it anew; there the copy forgets
them and collects again, which takes seconds instead of hundredths.
"""

from __future__ import annotations

import ast
import difflib
import functools
import gc
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import shutil
import signal
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

import coverage
import pytest
from _pytest.runner import runtestprotocol
from hypothesis import HealthCheck, Phase, settings

from mutation.mutants import Mutant, mutated
from mutation.stories import Stories

ROOT: Final = Path(__file__).resolve().parent.parent.parent
KEEP: Final = ROOT / ".mutation"
"""What was found so far; not part of the repository, and made again when it is not there."""
MODULES: Final = (
    "analyzer/handshake.py",
    "analyzer/session/**/*.py",
    "analyzer/streams.py",
    "analyzer/lane.py",
    "analyzer/rules/**/*.py",
)
OPTIONS: Final = (
    *("-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
    *("-o", "addopts=", "-o", "tmp_path_retention_policy=none"),
    # By this the module range_test is no test, in which pytest would word the assertions anew.
    *("-o", "python_files=test_*.py"),
    *("--rootdir", str(ROOT)),
)
SLOWER: Final = 10
"""A test that needs this many times its usual processor time, and `LEAST_SECONDS`, goes round in circles."""
LEAST_SECONDS: Final = 3.0
STUCK_SECONDS: Final = 120.0
"""Who does nothing for this long waits for something that does not come."""
EXAMPLES: Final = 40
"""Examples of each property; a fault that is noticed at all is nearly always noticed by one of the first."""
MOST_MEMORY: Final = 6 << 30
STORIES: Final = (
    "played",
    "shipped",
    "keys_of",
    "right_keys",
    "story",
    "strangers",
    "loaded",
    "plugin",
    "lua",
    "plain",
)
"""Caches of the tests that hold nothing which the code under test has made; all others are emptied in each copy."""


@dataclass(frozen=True)
class Result:
    """What became of a mutant. ``code`` is a digest of the code it was made of, ``by`` the test that noticed it,
    ``tried`` how many tests were run, ``cpu`` their processor time in seconds."""

    name: str
    code: str
    status: str  # killed, timed out, survived, not reached
    by: str | None
    tried: int
    cpu: float


@dataclass(slots=True)
class Test:
    """One test: processor time in seconds, and the lines of each module under test that it enters."""

    name: str
    seconds: float
    lines: dict[str, set[int]]


class Campaign:
    """A pytest plugin, which takes the place of the loop over all tests."""

    def __init__(self, mutants: Sequence[Mutant], budget: float, done: Callable[[int, Result], bool]) -> None:
        self.mutants = mutants
        self.budget = budget  # seconds of tests for a mutant that none of them notices
        self.done = done  # is given each result with its place; False when that was enough
        self.killers: dict[str, Counter[str]] = defaultdict(Counter)
        self.tests: dict[str, Test] = {}
        self.items: dict[str, pytest.Item] = {}
        self.functions: dict[tuple[str, str, int], list[FunctionType]] = {}
        self.caches: list[Any] = []
        self.room = KEEP  # for the files of the tests
        self.stories = Stories(KEEP / "stories.pickle")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Measure the tests, if that was not done, then try the mutants."""
        self.items = {item.nodeid: item for item in session.items}
        self.tests = measured(session.items, self.stories)
        self.functions = _functions({mutant.module for mutant in self.mutants})
        self.caches = list(_caches())
        self.room = Path(session.config.option.basetemp)
        self.room.mkdir(exist_ok=True)
        gc.collect()
        gc.freeze()
        for place, mutant in enumerate(self.mutants, 1):
            chosen = self.choose(mutant)
            status, by, tried, cpu = "not reached", None, 0, 0.0
            if chosen:
                copy = Copy(mutant, chosen, self)
                status, by, tried, cpu = copy.outcome()
                for left in self.room.iterdir():
                    shutil.rmtree(left, ignore_errors=True)
            if by is not None:
                self.killers[_where(mutant)][by] += 1
            if not self.done(place, Result(mutant.name, digest_of(mutant), status, by, tried, round(cpu, 2))):
                break
        return True

    def choose(self, mutant: Mutant) -> list[Test]:
        """Return the tests that enter the changed code: those first that noticed changes near it, then quick ones."""
        first, last = mutant.lines
        wanted = set(range(first, last + 1))
        if mutant.function is None:
            wanted = _lines_using(mutant) or set(range(1, 1 << 16))
        killers = self.killers[_where(mutant)]
        chosen: list[Test] = []
        spent = 0.0
        entering = (test for test in self.tests.values() if not wanted.isdisjoint(test.lines.get(mutant.module, ())))
        for test in sorted(entering, key=lambda test: (-killers[test.name], test.seconds)):
            if chosen and spent + test.seconds > self.budget:
                continue
            chosen.append(test)
            spent += test.seconds
        return chosen


class Copy:
    """The copy of this process in which a mutant is tried."""

    def __init__(self, mutant: Mutant, tests: Sequence[Test], campaign: Campaign) -> None:
        self.mutant = mutant
        self.tests = tests
        self.budget = campaign.budget
        self.items = campaign.items
        self.functions = campaign.functions
        self.caches = campaign.caches
        self.room = campaign.room

    def outcome(self) -> tuple[str, str | None, int, float]:
        """Return what became of the mutant, which test noticed it, how many were tried, and the processor time."""
        reading, writing = os.pipe()
        process = os.fork()
        if not process:
            os.close(reading)
            self._be_it(writing)
        os.close(writing)
        told = self._listen(reading, process)
        os.close(reading)
        _, state, usage = os.wait4(process, 0)
        with suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)  # what its tests have started
        begun = told.split()
        cpu = usage.ru_utime + usage.ru_stime
        last = self.tests[int(begun[-1])].name if begun else self.tests[0].name
        if os.WIFSIGNALED(state):
            return "timed out", last, len(begun), cpu
        if os.WEXITSTATUS(state) == 0:
            return "survived", None, len(begun), cpu
        return "killed", last, len(begun), cpu

    def _listen(self, reading: int, process: int) -> str:
        """Read the numbers of the tests that are begun, until the copy has gone or does nothing any more."""
        import select  # noqa: PLC0415

        told = b""
        while True:
            ready, _, _ = select.select([reading], [], [], STUCK_SECONDS)
            if not ready:
                with suppress(ProcessLookupError):
                    os.killpg(process, signal.SIGKILL)
                return told.decode()
            data = os.read(reading, 4096)
            if not data:
                return told.decode()
            told += data

    def _be_it(self, writing: int) -> None:
        status = 1
        try:
            os.setpgid(0, 0)
            os.set_inheritable(writing, False)
            nothing = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(nothing, number)
            resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            for cache in self.caches:
                cache.cache_clear()
            if self.mutant.function is not None and self._exchange():
                status = self._run(writing)
            else:
                status = self._run_anew(writing)
        except BaseException:
            status = 1
        finally:
            os._exit(status)

    def _exchange(self) -> bool:
        """Put the changed code into the function; return False where that is not possible."""
        assert self.mutant.function is not None
        path = ROOT / self.mutant.module
        code = compile(mutated(path.read_text(encoding="utf-8"), self.mutant), str(path), "exec")
        qualname, first_line = self.mutant.function
        new = next((c for c in _codes(code) if c.co_qualname == qualname and c.co_firstlineno == first_line), None)
        living = self.functions.get((str(path), qualname, first_line), [])
        if new is None or not living:
            return False
        for function in living:
            if len(new.co_freevars) != len(function.__code__.co_freevars):
                return False
            function.__code__ = new
        return True

    def _run(self, writing: int) -> int:
        for place, test in enumerate(self.tests):
            if _spent() > self.budget:
                break
            os.write(writing, f"{place} ".encode())
            signal.setitimer(signal.ITIMER_PROF, max(LEAST_SECONDS, SLOWER * test.seconds))
            after = self.items[self.tests[place + 1].name] if place + 1 < len(self.tests) else None
            if any(report.failed for report in runtestprotocol(self.items[test.name], log=False, nextitem=after)):
                return 1
        return 0

    def _run_anew(self, writing: int) -> int:
        """Forget all that comes after the module, and collect again."""
        tests = str(ROOT / "tests")
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None) or ""
            ours = name == "analyzer" or name.startswith("analyzer.") or file.startswith(tests)
            if ours and not name.startswith(("mutation", "analyzer.simulate", "analyzer.catalogue")):
                del sys.modules[name]
        sys.meta_path.insert(0, _Finder(self.mutant))
        signal.setitimer(signal.ITIMER_PROF, self.budget + 20)
        order = {test.name: place for place, test in enumerate(self.tests)}
        files = {name.partition("::")[0]: None for name in order}
        return int(
            pytest.main([*OPTIONS, "-x", "--basetemp", str(self.room), *files], plugins=[_Chosen(order, writing)])
        )


class _Chosen:
    """Runs only these tests, in this order."""

    def __init__(self, order: dict[str, int], writing: int) -> None:
        self.order = order
        self.writing = writing

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.order), key=lambda item: self.order[item.nodeid])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        os.write(self.writing, f"{self.order[nodeid]} ".encode())


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives the changed module in the place of the one in the file."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant
        self.path = ROOT / mutant.module
        parts = Path(mutant.module).with_suffix("").parts
        self.is_package = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.is_package else parts)

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> Any:
        if fullname != self.name:
            return None
        places = [str(self.path.parent)] if self.is_package else None
        return importlib.util.spec_from_file_location(
            fullname, self.path, loader=self, submodule_search_locations=places
        )

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """An ordinary one will do."""

    def exec_module(self, module: ModuleType) -> None:
        tree = mutated(self.path.read_text(encoding="utf-8"), self.mutant)
        exec(compile(tree, str(self.path), "exec"), vars(module))  # noqa: S102


def prepare() -> None:
    """Make hypothesis try the same examples each time, not too many, and stop at the first that fails."""
    KEEP.mkdir(exist_ok=True)
    whole = settings.__init__

    def fewer(self: settings, *given: Any, **asked: Any) -> None:
        whole(self, *given, **asked)
        self._max_examples = min(self.max_examples, EXAMPLES)

    settings.__init__ = fewer  # type: ignore[method-assign]
    settings.register_profile(
        "mutation",
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("mutation")


def digest_of(mutant: Mutant) -> str:
    """Return a digest of the code the mutant is made of: its function, or what a module does when it is imported."""
    return _digests(mutant.module)[mutant.function]


@functools.cache
def _digests(module: str) -> dict[tuple[str, int] | None, str]:
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    found: dict[tuple[str, int] | None, str] = {}

    def look(node: ast.Module | ast.ClassDef, scope: str) -> None:
        for child in node.body:
            if isinstance(child, ast.ClassDef):
                look(child, f"{scope}{child.name}.")
            elif isinstance(child, ast.FunctionDef):
                line = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
                found[f"{scope}{child.name}", line] = _digest(ast.unparse(child))
                child.body = []

    look(tree, "")
    found[None] = _digest(ast.dump(tree))
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def measured(items: Sequence[pytest.Item], stories: Stories) -> dict[str, Test]:
    """Return the tests by name, each with its time and what it enters. What is known from before is not run again.

    The lines were counted in the modules as they were then, of which copies are kept.
    """
    helpers = _digest("".join(p.read_text() for p in sorted((ROOT / "tests").glob("*.py")) if "test_" not in p.name))
    kept = KEEP / "measured.json"
    known = json.loads(kept.read_text()) if kept.exists() else {}
    files: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        files[item.nodeid.partition("::")[0]].append(item)
    tests = {}
    now = {str(p.relative_to(ROOT)): p.read_text(encoding="utf-8") for m in MODULES for p in sorted(ROOT.glob(m))}
    moved: dict[tuple[str, str], dict[int, int]] = {}
    for file, inside in files.items():
        digest = _digest((ROOT / file).read_text(encoding="utf-8") + helpers)
        if known.get(file, {}).get("digest") != digest:
            began = time.process_time()
            sources = {}
            for module, text in now.items():
                sources[module] = _digest(text)
                (KEEP / f"{sources[module]}.py").write_text(text, encoding="utf-8")
            known[file] = {"digest": digest, "sources": sources, "tests": _measure(inside)}
            print(f"{file}: {len(inside)} tests, {time.process_time() - began:.1f} s", flush=True)
            kept.write_text(json.dumps(known))
            stories.save()
        for name, (seconds, lines) in known[file]["tests"].items():
            if lines is None:
                continue
            entered = {}
            for module, held in lines.items():
                place = module, known[file]["sources"][module]
                if place not in moved:
                    old = (KEEP / f"{place[1]}.py").read_text(encoding="utf-8")
                    moved[place] = _moved(old, now.get(module, ""))
                entered[module] = {moved[place].get(line, 0) for line in held}
            tests[name] = Test(name, seconds, entered)
    return tests


def _moved(old: str, new: str) -> dict[int, int]:
    """Return where the lines of a text are now; those that have changed are in the place of the old ones."""
    matcher = difflib.SequenceMatcher(None, old.splitlines(), new.splitlines(), autojunk=False)
    found = {}
    for _, i, end, j, stop in matcher.get_opcodes():
        for line in range(i, end):
            if stop > j:
                found[line + 1] = min(j + line - i, stop - 1) + 1
    return found


def _measure(items: Sequence[pytest.Item]) -> dict[str, tuple[float, dict[str, list[int]] | None]]:
    """Run each test; one that fails is told by None in the place of its lines."""
    include = [str(path) for pattern in MODULES for path in ROOT.glob(pattern)]
    watch = coverage.Coverage(data_file=None, include=include, config_file=False)
    watch.start()
    seconds = {}
    for place, item in enumerate(items):
        watch.switch_context(item.nodeid)
        began = _spent()
        after = items[place + 1] if place + 1 < len(items) else None
        failed = any(report.failed for report in runtestprotocol(item, log=False, nextitem=after))
        seconds[item.nodeid] = None if failed else _spent() - began
    watch.stop()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a file may enter none of them
        data = watch.get_data()
    entered: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for path in data.measured_files():
        module = str(Path(path).relative_to(ROOT))
        for line, names in data.contexts_by_lineno(path).items():
            for name in names:
                entered[name][module].append(line)
    return {
        name: (0.0, None) if taken is None else (round(taken, 4), dict(entered[name]))
        for name, taken in seconds.items()
    }


def _spent() -> float:
    """Return the processor time of this process and of those that it waited for, in seconds."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _where(mutant: Mutant) -> str:
    return mutant.name.partition(":")[0]


def _lines_using(mutant: Mutant) -> set[int]:
    """Return the lines of the module that use the constant which the mutant changes."""
    tree = ast.parse((ROOT / mutant.module).read_text(encoding="utf-8"))
    first = mutant.lines[0]
    names = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.lineno <= first <= (node.end_lineno or 0)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    return {n.lineno for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id in names and n.lineno != first}


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _functions(modules: Iterable[str]) -> dict[tuple[str, str, int], list[FunctionType]]:
    """Return the functions that live in this process, by file, name and line."""
    paths = {str(ROOT / module) for module in modules}
    found: dict[tuple[str, str, int], list[FunctionType]] = defaultdict(list)
    for thing in gc.get_objects():
        if isinstance(thing, FunctionType) and (code := thing.__code__).co_filename in paths:
            found[code.co_filename, code.co_qualname, code.co_firstlineno].append(thing)
    return found


def _caches() -> Iterator[Any]:
    for thing in gc.get_objects():
        if isinstance(thing, functools._lru_cache_wrapper):
            name, module = getattr(thing, "__name__", ""), str(getattr(thing, "__module__", ""))
            file = str(getattr(sys.modules.get(module), "__file__", ""))
            is_story = module.startswith("analyzer.simulate") or (not module.startswith("analyzer") and name in STORIES)
            if file.startswith(str(ROOT)) and not is_story:
                yield thing


def as_line(result: Result) -> str:
    """Return a result as it is kept."""
    return json.dumps(asdict(result)) + "\n"
