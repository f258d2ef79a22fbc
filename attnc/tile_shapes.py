"""The axes that a mask's tiles cut, and the sizes of tiles that nobody has given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import TypeAlias

from attnc.errors import AttncError
from attnc.ir.geometry.tiling import Axis
from attnc.masks import Mask

# Per rank one number per component; a plain number where there is one.
TileSizes: TypeAlias = Mapping[str, int | Sequence[int]]

# Tokens of a tile of queries and of a tile of keys, as FlashAttention's kernels have them.
QUERIES, KEYS = 128, 64


def check_tile_ranks(masks: Iterable[Mask], tile: TileSizes) -> None:
    """Raises AttncError E524 if a tile is given for a rank that no kernel cuts into tiles."""
    cut = dict.fromkeys(r for m in masks for r in (m.visibility.row, m.visibility.swept) if r)
    for rank in tile:
        if rank not in cut:
            known = ", ".join(f"`{r}`" for r in cut) or "none"
            hint = f"ranks that are: {known}"
            raise AttncError("E524", f"no kernel cuts `{rank}` into tiles", hint=hint)


def tile_axes(
    mask: Mask, tile: TileSizes, *, flat: bool
) -> tuple[tuple[Axis, ...], tuple[Axis, ...]]:
    """Axes of the queries and of the keys, with their tiles; `flat`: of the flattened ranks.

    Raises AttncError E524 for a tile that does not fit its rank.
    """
    seen = mask.visibility
    rows = () if seen.row is None else _axes(mask, seen.row, tile, QUERIES, flat)
    return rows, _axes(mask, seen.swept, tile, KEYS, flat)


def _axes(mask: Mask, rank: str, tile: TileSizes, tokens: int, flat: bool) -> tuple[Axis, ...]:
    names = (rank,) if flat else mask.coordinates(rank)
    extents = [mask.extent(name) for name in names]
    given = tile.get(rank)
    sizes = spread(tokens, extents) if given is None else _sizes(given)
    if len(sizes) != len(names):
        shown = "x".join(map(str, sizes))
        whole = "one number: its tiles are flat" if flat else f"({', '.join(names)})"
        example = "x".join(map(str, spread(tokens, extents)))
        raise AttncError(
            "E524",
            f"the tile `{shown}` has {len(sizes)} sizes, rank `{rank}` is {whole}",
            hint=f"like `{rank}={example}`",
        )
    if any(size < 1 for size in sizes):
        raise AttncError("E524", f"a tile of rank `{rank}` holds no token: {sizes}")
    return tuple(Axis(*each) for each in zip(names, extents, sizes, strict=True))


def _sizes(given: int | Sequence[int]) -> tuple[int, ...]:
    sizes = (given,) if isinstance(given, int) else tuple(given)
    if not all(isinstance(size, int) and not isinstance(size, bool) for size in sizes):
        raise AttncError("E524", f"a tile is of whole numbers, not {given!r}")
    return sizes


def spread(tokens: int, extents: Sequence[int]) -> tuple[int, ...]:
    """A power of two of tokens over some axes: the shortest side is doubled, the innermost first.

    A side that covers its axis grows no more.
    """
    sizes = [1] * len(extents)
    while prod(sizes) < tokens:
        short = [i for i, size in enumerate(sizes) if size < extents[i]]
        if not short:
            break
        grown = min(reversed(short), key=lambda i: sizes[i])
        sizes[grown] *= 2
    return tuple(sizes)
