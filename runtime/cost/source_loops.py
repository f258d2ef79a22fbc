"""The loops of an emitted kernel's source, and which machine loop runs which of them."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from attnc.runtime.cost.machine_loops import Code, Loop

# Written by `codegen.visits` above a loop that is followed by one over the other tiles.
_FULL_TILES = "# tiles in which nothing is hidden"


@dataclass(frozen=True, slots=True)
class SourceLoop:
    """A `for` of a kernel: its first and last line, its inner loops.

    count: what its `range` ends at, if it starts at 0 and its step is 1; a name or a number
    step:  the step of its `range`, likewise
    full:  whether the loop after it has the tiles that are not whole
    """

    first: int
    last: int
    count: str | None
    step: str
    inner: tuple[SourceLoop, ...]
    full: bool = False

    def covers(self, line: int) -> bool:
        return self.first <= line <= self.last


def kernel_names(source: str) -> tuple[str, ...]:
    """The kernels of an emitted module, in order; its helpers are not among them."""
    tree = ast.parse(source)
    functions = [x for x in tree.body if isinstance(x, ast.FunctionDef)]
    return tuple(x.name for x in functions if any(map(_is_launched, x.decorator_list)))


def _is_launched(decorator: ast.expr) -> bool:
    """Whether it is `triton.jit(..)` with what is told about arguments."""
    return isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "triton.jit"


def source_loops(source: str, kernel: str) -> tuple[SourceLoop, ...]:
    """The outermost loops of a kernel of a module, in order."""
    tree = ast.parse(source)
    (function,) = (x for x in tree.body if isinstance(x, ast.FunctionDef) and x.name == kernel)
    return _loops(function, source.splitlines())


def _loops(node: ast.AST, lines: list[str]) -> tuple[SourceLoop, ...]:
    found: list[SourceLoop] = []
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.For):
            found += _loops(child, lines)
            continue
        assert child.end_lineno is not None
        found.append(
            SourceLoop(
                child.lineno,
                child.end_lineno,
                _count(child.iter),
                _step(child.iter),
                _loops(child, lines),
                lines[child.lineno - 2].strip() == _FULL_TILES,
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


def loop_pairs(loops: Iterable[SourceLoop]) -> tuple[tuple[SourceLoop, SourceLoop], ...]:
    """For each pass the loop over whole tiles and the one over the others: perhaps the same."""
    found = []
    rest = iter(loops)
    for loop in rest:
        found.append((loop, next(rest) if loop.full else loop))
    return tuple(found)


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
