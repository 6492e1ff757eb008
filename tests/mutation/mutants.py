"""All small faults that are put into a module, one at a time, each with a name that stays the same when lines move.

What is left out, and why:

- Texts, and what is joined to them: sentences have tests of their own, and a misspelt identifier is seen by mypy.
- Annotations, base classes, decorators, ``__slots__``, ``__all__``: they do nothing while the program runs, or it does
  not start without them.
- ``assert``: it tells mypy what holds, and never fails.
- Whether a limit of time itself is within the limit (``<`` for ``<=``): 20 s to the nanosecond mean nothing on a
  network, and a test of it would test the test. These comparisons are turned round instead (``>=`` for ``<``).
- Assignments to plain names are not left out of the program: without them it stops with a NameError.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

TIMES: Final = ("_ns", "NS", "waited", "silence", "patience", "rtt", "after", "AFTER", "LIMIT")
"""What the name of a time contains."""
SWAPPED: Final[dict[type[ast.AST], type[ast.AST]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.Pow: ast.Mult,
}
TURNED: Final[dict[type[ast.AST], type[ast.AST]]] = {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt}
CALLS: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}
UNTOUCHED_FIELDS: Final = ("annotation", "returns", "decorator_list", "bases")
UNTOUCHED_NAMES: Final = ("__slots__", "__all__")
LONGEST_SHOWN: Final = 90
"""A longer expression is shown by the part that changes."""
Place = tuple[ast.AST, str, int | None]
"""Where a node hangs: its parent, the field of that, and the place in the field if that is a list."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Mutant:
    """One fault; ``place`` is its number in the module as it is now.

    ``key`` names it within its module. ``function`` is the function or method of the module that it is in, by Python's
    ``co_qualname``, with its first line, and None for what runs when the module is imported. ``lines`` are those of
    the changed code, first and last.
    """

    module: str
    key: str
    function: tuple[str, int] | None
    lines: tuple[int, int]
    place: int

    @property
    def name(self) -> str:
        """What it is called among the mutants of all modules."""
        return f"{self.module} {self.key}"


def mutants_of(module: str, source: str) -> list[Mutant]:
    """Return all mutants of a module, in the order of its text."""
    seen: Counter[str] = Counter()
    found = []
    for place, fault in enumerate(_faults(ast.parse(source))):
        text = f"{fault.scope or '(module)'}: {fault.shown()}"
        seen[text] += 1
        key = text if seen[text] == 1 else f"{text} ({seen[text]})"
        found.append(Mutant(module, key, fault.function, fault.lines, place))
    return found


def mutated(source: str, mutant: Mutant) -> ast.Module:
    """Return the module with this fault."""
    tree = ast.parse(source)
    for place, fault in enumerate(_faults(tree)):
        if place == mutant.place:
            fault.put(fault.new)
            return ast.fix_missing_locations(tree)
    raise LookupError(mutant.name)


@dataclass
class _Fault:
    """The node ``new`` takes the place of ``old``, which is what ``parent`` has in its field (at a place in it)."""

    parent: ast.AST
    field: str
    at: int | None
    old: ast.AST
    new: ast.AST
    scope: str
    function: tuple[str, int] | None
    statement: ast.stmt

    def put(self, node: ast.AST) -> None:
        if self.at is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.at] = node

    @property
    def lines(self) -> tuple[int, int]:
        node = self.old if isinstance(self.old, ast.expr | ast.stmt) else self.parent
        if not isinstance(node, ast.expr | ast.stmt):
            node = self.statement
        # Of a statement that has others in it, only the head is meant.
        return node.lineno, (node.end_lineno or node.lineno) if isinstance(node, ast.expr) else node.lineno

    def shown(self) -> str:
        """Return the code before and after, with as much around it as fits."""
        around = self.parent if isinstance(self.parent, ast.expr) else self.old
        if not isinstance(around, ast.expr | ast.stmt) or len(ast.unparse(around)) > LONGEST_SHOWN:
            around = self.old
        before = ast.unparse(around)
        if around is self.old:
            after = ast.unparse(self.new)
        else:
            self.put(self.new)
            after = ast.unparse(around)
            self.put(self.old)
        return " ".join(f"{before} => {after}".split())


def _faults(tree: ast.Module) -> Iterator[_Fault]:
    for statement in range(len(tree.body)):
        yield from _below((tree, "body", statement), "", None, tree.body[statement])


def _below(place: Place, scope: str, function: tuple[str, int] | None, statement: ast.stmt) -> Iterator[_Fault]:
    """All faults in one node, first those of the node itself."""
    parent, field, at = place
    node: ast.AST = getattr(parent, field) if at is None else getattr(parent, field)[at]
    if _is_untouched(node):
        return
    if isinstance(node, ast.stmt):
        statement = node
    for new in _changes(node, parent):
        yield _Fault(parent, field, at, node, ast.copy_location(new, node), scope, function, statement)
    body_function = function
    if function is None and isinstance(node, Function | ast.ClassDef):
        scope = f"{scope}.{node.name}" if scope else node.name
        if isinstance(node, Function):
            body_function = scope, min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    for name, value in ast.iter_fields(node):
        if name in UNTOUCHED_FIELDS:
            continue
        # Default values are made when the module is imported.
        inside = body_function if name == "body" else function
        for number, child in enumerate(value) if isinstance(value, list) else ((None, value),):
            if isinstance(child, ast.AST):
                yield from _below((node, name, number), scope, inside, statement)


def _is_untouched(node: ast.AST) -> bool:
    match node:
        case ast.JoinedStr() | ast.Assert() | ast.Import() | ast.ImportFrom() | ast.alias():
            return True
        case ast.Constant(value=value):
            return not isinstance(value, int | float)
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name in UNTOUCHED_NAMES
        case ast.Subscript(value=ast.Name(id="tuple" | "list" | "dict" | "Callable" | "Iterator")):
            return True  # a type
    return False


def _changes(node: ast.AST, parent: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)) | ast.Constant(value=float(value)):
            yield ast.Constant(value + 1)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.Compare(ops=operators):
            swaps = TURNED if any(name in ast.unparse(node) for name in TIMES) else {}
            for place, operator in enumerate(operators):
                new = copy.deepcopy(node)
                new.ops[place] = (swaps.get(type(operator)) or SWAPPED[type(operator)])()  # type: ignore[call-overload]
                yield new
        case ast.BoolOp(op=operator, values=values):
            for place in range(len(values)):
                left = [copy.deepcopy(value) for other, value in enumerate(values) if other != place]
                yield left[0] if len(left) == 1 else ast.BoolOp(operator, left)
        case ast.BinOp(left=left, op=operator, right=right) if not (_is_text(left) or _is_text(right)):
            if type(operator) in SWAPPED:
                yield ast.BinOp(left, SWAPPED[type(operator)](), right)  # type: ignore[arg-type]
        case ast.AugAssign(target=target, op=operator, value=value):
            if type(operator) in SWAPPED and not _is_text(value):
                yield ast.AugAssign(target, SWAPPED[type(operator)](), value)  # type: ignore[arg-type]
            yield ast.Pass()
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if name in CALLS:
            yield ast.Call(ast.Name(CALLS[name], ast.Load()), args, keywords)
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]) | ast.Delete() | ast.Raise():
            yield ast.Pass()
        case ast.Expr(value=ast.Call() | ast.Yield() | ast.YieldFrom()):
            yield ast.Pass()
        case ast.Continue() | ast.Break() | ast.Return(value=None | ast.Constant(value=None)):
            yield ast.Pass()
        case ast.Return(value=ast.Constant()):
            pass  # the constant itself is changed
        case ast.Return():
            yield ast.Return(ast.Constant(None))
    asks = isinstance(parent, ast.If | ast.While | ast.IfExp | ast.comprehension) and node in (
        parent.ifs if isinstance(parent, ast.comprehension) else [parent.test]
    )
    if asks and not isinstance(node, ast.Compare | ast.BoolOp | ast.UnaryOp):
        yield ast.UnaryOp(ast.Not(), copy.deepcopy(node))  # type: ignore[arg-type]


def _is_text(node: ast.AST) -> bool:
    match node:
        case ast.JoinedStr() | ast.Constant(value=str()):
            return True
        case ast.BinOp(left=left, right=right):
            return _is_text(left) or _is_text(right)
        case ast.IfExp(body=body, orelse=other):
            return _is_text(body) or _is_text(other)
    return False
