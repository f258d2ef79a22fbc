"""Which tiles a kernel visits: hidden ones never, full ones without the mask."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from attnc import library
from attnc.codegen import emit
from attnc.compilation import complete_shape
from attnc.dsl import load_text
from attnc.ir.pipeline import plan
from attnc.runtime.launches import find_launches
from attnc.runtime.machine_code import compile_kernel, machine_code, specialise
from attnc.runtime.modules import load_module
from attnc.runtime.targets import load_target

Load = Callable[[str], ModuleType]
Exact = Callable[..., tuple[Tensor, ...]]
Mask = NDArray[np.bool_]

# the tiles of the fixture `load`
TILE = 16
# a row tile and a bit; key tiles before, between and behind what is seen
M, N, H = 20, 150, 2
EDGES = {"window": np.array([5, 60]), "begin": np.zeros(M, int), "end": np.zeros(M, int)}
EDGES["begin"][:] = 40 + np.arange(M) * 7 % 23
EDGES["end"][:] = EDGES["begin"] + np.arange(M) * 5 % 60
EDGES["end"][[3, 17]] = 0

CASES = {
    "causal": "n <= m",
    "shifted": "n <= m + 60 and m + 50 - n < 30",
    "one_key": "n <= m + 33 and m + 33 - n < 1",
    "nothing": "n <= m - 100",
    "everything": "m - n < 1000",
    "after": "n >= m + 40",
    "per_head": "n <= m + 90 and m + 90 - n < window[h]",
    "per_row": "begin[m] <= n and n < end[m]",
    "lengths": "n < window[h]",
    "blocks": "n // 4 == m // 4 + 10",
}


def _spec(name: str, where: str) -> str:
    reads = "\n".join(f"input {x}[{'h' if x == 'window' else 'm'}]: int" for x in _used(where))
    return f"""attention {name}
input Q[h, m, d]
input K[h, n, d]
input V[h, n, e]
{reads}
S[h, m, n] = sum(d) Q[h, m, d] * K[h, n, d]
LSE[h, m] = logsumexp(n) S[h, m, n]  where {where}
P[h, m, n] = softmax(n) S[h, m, n]  where {where}
O[h, m, e] = sum(n) P[h, m, n] * V[h, n, e]
output O[h, m, e], LSE[h, m]
"""


def _used(where: str) -> list[str]:
    return [x for x in EDGES if x in where]


def _seen(where: str) -> Mask:
    """The mask over (h, m, n)."""
    h, m, n = np.ogrid[:H, :M, :N]
    names = {"h": h, "m": m, "n": n, **EDGES}
    code = " & ".join(f"({part})" for part in where.split(" and "))
    return np.broadcast_to(eval(code, {}, names), (H, M, N))


def _tensors(where: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    shapes = {"Q": (H, M, 16), "K": (H, N, 16), "V": (H, N, 16)}
    found = {x: torch.randn(s, generator=generator) for x, s in shapes.items()}
    return found | {x: torch.tensor(EDGES[x], dtype=torch.int32) for x in _used(where)}


@pytest.mark.parametrize("name", CASES)
def test_tiles_that_nobody_sees_are_not_read(name: str, load: Load, exact: Exact) -> None:
    spec, seen = _spec(name, CASES[name]), _seen(CASES[name])
    tensors = _tensors(CASES[name])
    wanted = exact(spec, tensors)
    unseen = [slice(n, n + TILE) for n in range(0, N, TILE) if not seen[:, :, n : n + TILE].any()]
    assert unseen or name in ("everything", "lengths", "after")
    for tile in unseen:
        tensors["K"][:, tile] = tensors["V"][:, tile] = torch.nan
    found = getattr(load(spec), name)(*tensors.values())
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("window", [1, 15, 16, 40, 1000, 2**31 - 1, 2**62])
@pytest.mark.parametrize(("m", "n"), [(1, 37), (37, 1), (50, 50), (33, 0), (20, 64)])
def test_windows_and_lengths(m: int, n: int, window: int, load: Load, exact: Exact) -> None:
    generator = torch.Generator().manual_seed(m + n)
    q, k, v = (torch.randn(1, 1, x, 16, generator=generator) for x in (m, n, n))
    got = load("sliding_window").sliding_window(q, k, v, window=window)
    back = torch.arange(m)[:, None] - torch.arange(n)
    scores = (q.double() @ k.double().mT) / 4
    weights = scores.masked_fill((back < 0) | (back >= window), -torch.inf).softmax(-1)
    wanted = weights.nan_to_num(0.0) @ v.double()
    torch.testing.assert_close(got.double(), wanted, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["sdpa", "causal", "sliding_window", "prefix_lm", "softmax1"])
def test_full_tiles_have_no_mask_in_the_source(name: str, source: Callable[[str], str]) -> None:
    loops = list(_source_loops(source(name)))
    full = [body for head, body in loops if "num_stages" not in head]
    rest = [body for head, body in loops if "num_stages" in head]
    assert full and len(full) == len(rest)
    assert not any(re.search(r"in_n|visible|offs_m", body) for body in full)
    assert all("in_n" in body for body in rest)


def _source_loops(text: str) -> Iterator[tuple[str, str]]:
    for found in re.finditer(r"^    (for n0 .*)\n((?: {8}.*\n)+)", text, re.MULTILINE):
        yield found[1], found[2]


def test_later_rows_come_first_where_they_see_more(source: Callable[[str], str]) -> None:
    last_first = "m0 = (tiles_m - 1 - pid % tiles_m) * BLOCK_M"
    assert last_first in source("causal")
    assert last_first not in source("sdpa") + source("sliding_window")


def test_machine_code_of_full_tiles_has_no_mask(tmp_path: Path) -> None:
    """On Hopper: one loop of products with a select per score, one with some per row."""
    made = plan(load_text(library.text("sliding_window")))
    path = tmp_path / "sliding_window.py"
    path.write_text(emit(made))
    target = load_target("h100")
    extents = complete_shape(made, {"D": 64, "E": 64})
    (launch,) = find_launches(
        load_module(path), made.cascade, extents, {"window": 1024}, torch.bfloat16, 32, 90
    )
    fn = getattr(load_module(path), launch.kernel)
    special = specialise(fn, launch.arguments, target)
    compiled = compile_kernel(
        fn,
        signature=special.signature,
        constexprs=special.constexprs,
        attrs=special.attrs,
        target=target,
        num_warps=launch.num_warps,
        num_stages=launch.num_stages,
        maxnreg=launch.maxnreg,
    )
    assert compiled.resources.spills == 0
    products = [x for x in _machine_loops(machine_code(compiled)) if x["HGMMA"]]
    full, border = sorted(products, key=lambda x: x["ISETP"])
    scores = launch.config["BLOCK_M"] * launch.config["BLOCK_N"] // (32 * launch.num_warps)
    # a guard for each of the two rows of a thread; counters and the pipeline's place
    assert full["FSEL"] <= 2 and full["ISETP"] <= 8
    assert border["FSEL"] >= scores and border["ISETP"] >= scores


def _machine_loops(text: str) -> Iterator[Counter[str]]:
    """The instructions of each loop: from a label to a branch back to it."""
    lines = text.splitlines()
    labels = {x.strip().rstrip(":"): i for i, x in enumerate(lines) if re.match(r"\s*\.L_\w+:", x)}
    for i, line in enumerate(lines):
        back = re.search(r"\bBRA\b.*`\((\.L_\w+)\)", line)
        if back and labels[back[1]] < i:
            body = "\n".join(lines[labels[back[1]] : i])
            yield Counter(re.findall(r"\*/\s+(?:@!?U?P\d+ )?([A-Z0-9]+)", body))
