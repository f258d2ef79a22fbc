"""FLAT's mappings: outcomes of a search over fusion, blocks and stationary operands, as data."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from attnc.errors import AttncError
from attnc.runtime.spatial.counts import KEYS, ROWS, Problem, fold, tile_ranks
from attnc.runtime.spatial.models import show_length

_FILE = Path(__file__).parent / "flat_mappings.csv"

# The file's names for the tensors of the library's `sdpa`.
_TENSORS = {"Q": "Q", "K": "K", "QK": "S", "A": "P", "V": "V", "AV": "O"}
_SHAPE = {"B": "b", "H": "h", "P": ROWS, "M": KEYS, "E": "d", "F": "e"}


@dataclass(frozen=True, slots=True)
class Found:
    """One mapping.

    rows:       queries per block; the outermost loop goes over the blocks
    spilled:    the share of what is on chip that does not fit after all
    on_chip:    the tensors that stay on chip
    stationary: per product, the tensor whose elements stay in the array
    """

    rows: int
    spilled: float
    on_chip: frozenset[str]
    stationary: Mapping[str, str]

    def spatial(self, problem: Problem, product: str) -> frozenset[str]:
        """The ranks on the sides of the array: those of the stationary tensor."""
        return tile_ranks(problem.attention.ranks[self.stationary[product]])

    def times(self, problem: Problem, product: str, tensor: str) -> int:
        """How often a product reads an operand, or writes its result.

        Once per piece of the rank that the tensor lacks: pieces lie on the array, or are the
        blocks of queries. A result lacks the rank that is summed over.
        """
        ranks = problem.attention.ranks
        both = set().union(*(ranks[t] for t in (product, *problem.attention.operands(product))))
        (lacking,) = tile_ranks(both) - set(ranks[tensor])
        if lacking in self.spatial(problem, product):
            return fold(problem, lacking)
        return problem.extents[ROWS] // self.rows if lacking == ROWS else 1


def find_mapping(problem: Problem) -> Found:
    """The mapping for this shape. Raises E844 if none was searched for."""
    shape = tuple(problem.extents[_SHAPE[c]] for c in _SHAPE)
    if (row := _rows().get(shape)) is not None:
        return _mapping(problem, row)
    known = sorted({s[list(_SHAPE).index("P")] for s in _rows()})
    lengths = ", ".join(map(show_length, known))
    raise AttncError(
        "E844",
        f"no mapping of FLAT is known for {problem.extents[ROWS]} tokens of this model: "
        "they are found by a search, which attnc does not repeat",
        hint=f"known are BERT, TrXL, T5 and XLM at {lengths}",
    )


@cache
def _rows() -> Mapping[tuple[int, ...], Mapping[str, str]]:
    lines = _FILE.read_text(encoding="utf-8").splitlines()
    table = csv.DictReader(line for line in lines if not line.startswith("#"))
    return {tuple(int(row[c]) for c in _SHAPE): row for row in table}


def _mapping(problem: Problem, row: Mapping[str, str]) -> Found:
    stationary = {}
    for column in ("QK", "AV"):
        product = _TENSORS[column]
        left, right = problem.attention.operands(product)
        kinds = {"output": product, "input": left, "weight": right}
        stationary[product] = kinds[row[f"{column}_stationarity"]]
    by_row = row["fusion_granularity"] == "row"
    return Found(
        int(row["P1"]) if by_row else problem.extents[ROWS],
        float(row["proportion_spilled"]),
        frozenset(t for column, t in _TENSORS.items() if row[f"{column}_loc"] == "onchip"),
        stationary,
    )
