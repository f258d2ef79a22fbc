"""A mask as FlexAttention's `BlockMask`, made from our tile classes instead of from M x N points.

Its format is FlexAttention's own and holds, per batch and head, all key blocks of each row of
blocks: the visited ones first, in increasing order, then the others. So it takes rows x key blocks
of memory, four times; our lists do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from attnc.errors import AttncError
from attnc.ir.expr import Apply, Expr, Index, Number
from attnc.ir.geometry.tile_classes import tile_classes
from attnc.ir.geometry.tile_runs import FULL, PARTIAL
from attnc.ir.geometry.tiling import Axis, Bound
from attnc.ir.plan import Plan, SweepStage
from attnc.ir.presence import TRUE
from attnc.ir.visibility import Visibility
from attnc.runtime.mask_mod import Coordinates, mask_mod

if TYPE_CHECKING:
    from attnc.masks import Mask


@dataclass(frozen=True, slots=True)
class Heads:
    """How a mask's grid ranks become FlexAttention's batch and head: the first rank is the batch,
    the others are the heads, row-major. A lone rank is the heads. What no mask depends on has one
    entry, which is broadcast.

    batch, heads: the ranks, `seen` those of them that the mask depends on
    """

    batch: tuple[str, ...]
    heads: tuple[str, ...]
    seen: frozenset[str]

    @staticmethod
    def of(grid: tuple[str, ...], seen: tuple[str, ...]) -> Heads:
        split = min(1, len(grid) - 1)
        return Heads(grid[:split], grid[split:], frozenset(seen))

    def check(self, extents: Mapping[str, int]) -> None:
        """Raises E504 if the extent of a rank that the lists spread over is not known."""
        spread = [ranks for ranks in (self.batch, self.heads) if self.seen & {*ranks}]
        missing = [r.upper() for ranks in spread for r in ranks if r not in extents]
        if missing:
            raise AttncError(
                "E504",
                f"the heads of the mask need the extents {', '.join(missing)}",
                hint="give them in the shape",
            )

    def coordinates(self, extents: Mapping[str, int]) -> dict[str, Expr]:
        """Each grid rank's coordinate in terms of `b` and `h`."""
        found: dict[str, Expr] = {r: Index("b") for r in self.batch}
        for i, rank in enumerate(self.heads):
            if rank not in self.seen:
                continue
            inner = prod(extents[r] for r in self.heads[i + 1 :])
            found[rank] = Apply("floordiv", (Index("h"), Number(max(1, inner))))
            if i > 0:
                found[rank] = Apply("mod", (found[rank], Number(max(1, extents[rank]))))
        return found

    def shape(self, extents: Mapping[str, int]) -> tuple[int, int]:
        """The batch and the heads of the lists."""
        sizes = (
            prod(extents[r] for r in ranks) if self.seen & {*ranks} else 1
            for ranks in (self.batch, self.heads)
        )
        batch, heads = sizes
        return batch, heads

    def spread(self, classes: NDArray[np.int8], extents: Mapping[str, int]) -> NDArray[np.int8]:
        """Classes [seen ranks in order.., rows, keys] as [batch, heads, rows, keys]."""
        batch, heads = self.shape(extents)
        ranks = self.batch + (self.heads if self.seen & {*self.heads} else ())
        tail = classes.shape[-2:]
        apart = [extents[r] if r in self.seen else 1 for r in ranks]
        whole = [extents[r] if r in self.heads else n for r, n in zip(ranks, apart, strict=True)]
        spread = np.broadcast_to(classes.reshape(*apart, *tail), (*whole, *tail))
        return spread.reshape(batch, heads, *tail)


def block_mask(
    plan: Plan,
    found: Sequence[Mask],
    tensors: Mapping[str, Tensor],
    block: int | tuple[int, int],
    device: torch.device | str | None,
) -> BlockMask:
    """What `create_block_mask` makes of the plan's mask, equal in every list.

    found: the masks of the plan's sweeps; tensors: the captured ones; block: tokens, or (queries,
    keys). A block that reaches beyond the last token is partial, as FlexAttention counts it.
    Raises AttncError: E521 a block that is no size, E522 several masks, E504 a missing extent.
    """
    size = _sizes(block)
    name = plan.cascade.name
    mask = _single(found, name)
    seen, extents = mask.visibility, mask.bound.extents
    grid = next(s.grid for s in plan.stages if isinstance(s, SweepStage) and s.name == mask.stage)
    heads = Heads.of(tuple(r for r in grid if r != seen.row), seen.grid)
    heads.check(extents)
    lengths = (1 if seen.row is None else extents[seen.row], extents[seen.swept])
    classes = heads.spread(_classes(seen, mask.bound, lengths, size), extents)
    place = _device(device, tensors)
    lists = [x.to(place) for x in _lists(classes)]
    kept = {n: x.to(place) for n, x in tensors.items() if n in seen.tensors}
    coordinates = _coordinates(seen, heads, mask.bound, lengths)
    return BlockMask(
        seq_lengths=lengths,
        kv_num_blocks=lists[0],
        kv_indices=lists[1],
        full_kv_num_blocks=lists[2],
        full_kv_indices=lists[3],
        q_num_blocks=lists[4],
        q_indices=lists[5],
        full_q_num_blocks=lists[6],
        full_q_indices=lists[7],
        BLOCK_SIZE=size,
        mask_mod=mask_mod(seen.some, coordinates, mask.bound, kept, name),
    )


def _single(found: Sequence[Mask], name: str) -> Mask:
    """The one mask of a plan, or of those of its sweeps that hide something."""
    hiding = [m for m in found if m.visibility.some != TRUE] or list(found)
    seen = {(m.visibility.row, m.visibility.swept, m.visibility.some) for m in hiding}
    if len(seen) == 1 and hiding[0].visibility.some == hiding[0].visibility.every:
        return hiding[0]
    what = "several masks" if hiding else "no sweep that a mask could restrict"
    raise AttncError("E522", f"`{name}` has {what}: it is not one block mask")


def _sizes(block: int | tuple[int, int]) -> tuple[int, int]:
    size = tuple(block) if isinstance(block, tuple | list) else (block, block)
    if len(size) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in size):
        raise AttncError("E521", f"a block is a length or (queries, keys), not {block!r}")
    return size[0], size[1]


def _device(device: torch.device | str | None, tensors: Mapping[str, Tensor]) -> torch.device:
    """As given, else where the captured tensors are, else as `create_block_mask` chooses."""
    if device is not None:
        return torch.device(device)
    first = next(iter(tensors.values()), None)
    if first is not None:
        return first.device
    return torch.accelerator.current_accelerator() or torch.device("cpu")


def _classes(
    seen: Visibility, bound: Bound, lengths: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.int8]:
    """[grid points, rows, keys]: the class of each block; full ones hold only tokens."""
    rows = [Axis(r, bound.extents[r], 1) for r in seen.grid]
    rows.append(Axis(seen.row or "q_idx", lengths[0], size[0]))
    keys = (Axis(seen.swept, lengths[1], size[1]),)
    found = tile_classes(seen.some, tuple(rows), keys, bound).runs().classes()
    classes = found.reshape(-1, rows[-1].tiles, keys[0].tiles)
    if lengths[0] % size[0]:
        np.minimum(classes[:, -1:], PARTIAL, out=classes[:, -1:])
    if lengths[1] % size[1]:
        np.minimum(classes[..., -1:], PARTIAL, out=classes[..., -1:])
    return classes


def _coordinates(
    seen: Visibility, heads: Heads, bound: Bound, lengths: tuple[int, int]
) -> Coordinates:
    extents = bound.extents
    ranks = heads.coordinates(extents)
    for rank, argument in ((seen.row, "q_idx"), (seen.swept, "kv_idx")):
        if rank is None:
            continue
        ranks[rank] = Index(argument)
        parts = bound.components.get(rank, ())
        for i, part in enumerate(parts):
            inner = Number(max(1, prod(extents[p] for p in parts[i + 1 :])))
            place: Expr = Apply("floordiv", (Index(argument), inner))
            ranks[part] = place if i == 0 else Apply("mod", (place, Number(max(1, extents[part]))))
    batch, each = heads.shape(extents)
    return Coordinates(ranks, {"b": batch, "h": each, "q_idx": lengths[0], "kv_idx": lengths[1]})


def _lists(classes: NDArray[np.int8]) -> Iterator[Tensor]:
    """Counts and indices: partial and full key blocks per row, then rows per key block."""
    for by in (classes, classes.swapaxes(-1, -2)):
        for kind in (PARTIAL, FULL):
            yield from _ordered(by == kind)


def _ordered(chosen: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """How many are chosen in each row, and all columns, the chosen ones first: int32."""
    chosen = np.ascontiguousarray(chosen)
    count = chosen.sum(-1, dtype=np.int32)
    columns = np.arange(chosen.shape[-1], dtype=np.int32)
    first = columns < count[..., None]
    every = np.broadcast_to(columns, chosen.shape)
    order = np.empty(chosen.shape, np.int32)
    order[first] = every[chosen]
    order[~first] = every[~chosen]
    return torch.from_numpy(count), torch.from_numpy(order)
