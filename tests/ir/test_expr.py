"""Expressions are values: equal trees are one key, wherever they were built."""

from __future__ import annotations

import pickle
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace

from attnc.ir.expr import Apply, Expr, Index, Number, Param, Read


def tree(one: Expr) -> Apply:
    inner = Apply("add", (Read("K", (Index("n"),)), one))
    return Apply("mul", (inner, Apply("neg", (Param("w", 1),))))


def test_equal_trees_are_one_key() -> None:
    assert len({tree(Number(1)), tree(Number(1)), tree(Number(1.0)), tree(Number(True))}) == 3
    assert deepcopy(tree(Number(1))) in {tree(Number(1))}


def test_a_changed_node_is_another_key() -> None:
    changed = replace(tree(Number(1)), op="div")
    assert changed != tree(Number(1)) and hash(changed) == hash(Apply("div", changed.args))
    assert repr(changed) == f"Apply(op='div', args={changed.args!r})"


def test_a_tree_of_another_process_is_the_same_key() -> None:
    """Where strings hash otherwise."""
    code = (
        "import pickle, sys; from attnc.ir.expr import *; "
        "x = Apply('neg', (Index('n'),)); sys.stdout.buffer.write(pickle.dumps(x))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert pickle.loads(done.stdout) in {Apply("neg", (Index("n"),))}
