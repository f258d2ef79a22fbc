"""The loops of an emitted kernel's source, and which machine loop runs which of them."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from attnc.codegen.visits import VisitKind
from attnc.runtime.cost.machine_loops import Code, Loop


@dataclass(frozen=True, slots=True)
class SourceLoop:
    """A `for` of a kernel: its first and last line, its inner loops.

    count: what its `range` ends at, if it starts at 0 and its step is 1; a name or a number
    step:  the step of its `range`, likewise
    """

    first: int
    last: int
    count: str | None
    step: str
    inner: tuple[SourceLoop, ...]

    def covers(self, line: int) -> bool:
        return self.first <= line <= self.last


def source_loops(source: str, kernel: str) -> tuple[SourceLoop, ...]:
    """The outermost loops of a kernel of a module, in order."""
    tree = ast.parse(source)
    (function,) = (x for x in tree.body if isinstance(x, ast.FunctionDef) and x.name == kernel)
    return _loops(function)


def _loops(node: ast.AST) -> tuple[SourceLoop, ...]:
    found: list[SourceLoop] = []
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.For):
            found += _loops(child)
            continue
        assert child.end_lineno is not None
        found.append(
            SourceLoop(
                child.lineno,
                child.end_lineno,
                _count(child.iter),
                _step(child.iter),
                _loops(child),
            )
        )
    return tuple(found)


def _count(over: ast.expr) -> str | None:
    """`n` of `range(n)`."""
    if isinstance(over, ast.Call) and len(over.args) == 1:
        return ast.unparse(over.args[0])
    return None


def _step(over: ast.expr) -> str:
    """`s` of `range(a, b, s)`."""
    if isinstance(over, ast.Call) and len(over.args) == 3:
        return ast.unparse(over.args[2])
    return "1"


def loop_pairs(
    loops: Sequence[SourceLoop], kinds: Sequence[VisitKind]
) -> tuple[tuple[SourceLoop, SourceLoop], ...]:
    """For each pass the loop over whole tiles and the one over the others: perhaps the same."""
    rest = iter(loops)
    pairs = []
    for kind in kinds:
        first = next(rest)
        pairs.append((first, first if kind == "all" else next(rest)))
    assert next(rest, None) is None, "a kernel has other loops than over tiles"
    return tuple(pairs)


def machine_loops_of(
    code: Code, loops: Iterable[SourceLoop]
) -> Mapping[SourceLoop, tuple[Loop, ...]]:
    """The machine loops of each source loop: those most of whose instructions are of its lines."""
    known = tuple(loops)
    found: dict[SourceLoop, list[Loop]] = {x: [] for x in known}
    for machine in code.loops():
        votes: Counter[SourceLoop] = Counter()
        for i in code.instructions(machine):
            votes.update(x for x in known if i.line is not None and x.covers(i.line))
        if votes:
            found[votes.most_common(1)[0][0]].append(machine)
    return {x: tuple(m) for x, m in found.items()}
