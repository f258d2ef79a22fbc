"""Names and strings of a spec never become code, whatever they are."""

from __future__ import annotations

import ast
from collections.abc import Callable

import pytest

# Not a name that the emitted module or Triton would leave alone.
NAMES = [
    "tl", "torch", "triton", "math", "re", "pid", "lambda_", "print", "max", "self", "M", "BLOCK_M",
    "extents", "tiles", "programs", "grid", "num_warps", "stride_qb", "offs_m", "tanh", "_check",
    "WARP_SIZE", "LOG2E", "O_ptrs", "n0_wide", "sink_kernel", "attention_kernel",
]  # fmt: skip

DOCS = [
    'ends with a quote "',
    "a \\ backslash \\n and \\N{BULLET} \\x41 \\",
    "'''; import os; os.system('false')  # '''",
    "{{ 7 * 7 }} {% raw %} {# #} ${x} %s {0}",
    "b\u0000ell \u0007 \u2028 line \u2029 para \u202e bidi \u00e9 \U0001f600",
]


def _spec(tensor: str = "X", param: str = "p", name: str = "hostile", doc: str = "doc") -> str:
    return f'''attention {name}
"""{doc}"""
param {param}: float = 1.0
input Q[b, m, d]
input K[b, n, d]
input V[b, n, e]
input {tensor}[b, m]
S[b, m, n] = (sum(d) Q[b, m, d] * K[b, n, d]) * tanh({tensor}[b, m]) * {param}
P[b, m, n] = softmax(n) S[b, m, n]
O[b, m, e] = sum(n) P[b, m, n] * V[b, n, e]
output O[b, m, e]
'''


def _statements(text: str) -> list[str]:
    """What a module consists of."""
    return [type(x).__name__ for x in ast.parse(text).body]


def _shadows(function: ast.FunctionDef) -> set[str]:
    bound = [a.arg for a in (*function.args.args, *function.args.kwonlyargs)]
    bound += [n.id for n in ast.walk(function) if isinstance(n, ast.Name) and _is_store(n)]
    return set(bound) & {"tl", "torch", "triton", "math", "range", "max", "min", "next", "float"}


def _is_store(n: ast.Name) -> bool:
    return isinstance(n.ctx, ast.Store)


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str, source: Callable[[str], str]) -> None:
    for spec in (_spec(tensor=name), _spec(param=name), _spec(name=name)):
        try:
            text = source(spec)
        except Exception as e:
            if type(e).__name__ in ("AttncError", "AttncErrors"):
                continue  # the language refuses the name
            raise
        for function in (x for x in ast.walk(ast.parse(text)) if isinstance(x, ast.FunctionDef)):
            assert not _shadows(function), function.name
            arguments = [a.arg for a in function.args.args]
            assert len(set(arguments)) == len(arguments)


@pytest.mark.parametrize("doc", DOCS)
def test_strings(doc: str, source: Callable[[str], str]) -> None:
    try:
        text = source(_spec(doc=doc))
    except Exception as e:
        assert type(e).__name__ in ("AttncError", "AttncErrors")
        return
    assert text.isascii()
    assert _statements(text) == _statements(source(_spec()))


def test_comments_stay_comments(source: Callable[[str], str]) -> None:
    spec = _spec().replace("\nS[b", '\n# """ \\ \n# } import os\nS[b', 1)
    assert _statements(source(spec)) == _statements(source(_spec()))
