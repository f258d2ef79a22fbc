"""Read a tensor at any index expressions: slices where coordinates run along, gathers elsewhere."""

from __future__ import annotations

from collections.abc import Callable

from attnc.errors import AttncError
from attnc.ir.arrays import Array, is_scalar
from attnc.ir.expr import Apply, Expr, Index, Number, Read
from attnc.ir.frame import Code, Frame, Pair, Value, meet
from attnc.ir.walk import subexprs


def shifted(index: Expr) -> tuple[str, Expr, int] | None:
    """(r, c, sign) for an index that is a rank's coordinate plus or minus a constant."""
    match index:
        case Index(rank):
            return rank, Number(0), 1
        case Apply("add", (Index(rank), c)) | Apply("add", (c, Index(rank))) if _constant(c):
            return rank, c, 1
        case Apply("sub", (Index(rank), c)) if _constant(c):
            return rank, c, -1
        case _:
            return None


def _constant(e: Expr) -> bool:
    return not any(isinstance(s, Index | Read) for s in subexprs(e))


def read(e: Read, build: Callable[[Expr], Code]) -> Code:
    """Slices where the index is a rank's coordinate, shifted perhaps; else a gather."""
    shifts = []
    for index in e.indices:
        shift = shifted(index)
        shifts.append(None if shift is None else (shift[0], build(shift[1]), shift[2]))
    codes = tuple(map(build, e.indices))
    name = e.tensor

    def run(frame: Frame) -> Pair:
        tensor = frame.scope.tensors[name]
        picks: list[slice | Array] = []
        ranks: list[str] = []
        present: Array | None = None
        for i, (shift, size) in enumerate(zip(shifts, tensor.data.shape, strict=True)):
            origin = tensor.start(i)
            if shift is not None and shift[0] in frame.axis and shift[0] not in ranks:
                span = frame.box[shift[0]]
                low = span.start + shift[2] * shift[1](frame)[0] - origin
                if 0 <= low and low + len(span) <= size:
                    picks.append(slice(low, low + len(span)))
                    ranks.append(shift[0])
                    continue
            index, known = codes[i](frame)
            picks.append(_inside(frame, name, tensor, i, index, known))
            ranks.append("")
            present = meet(present, known)
        data = _pick(frame, tensor.data, picks, ranks)
        if tensor.present is not None:
            mask = tensor.present
            if any(not isinstance(p, slice) for p in picks):
                mask = frame.arrays.broadcast(mask, tensor.data.shape)
            picks = [
                slice(0, 1) if isinstance(p, slice) and n == 1 else p
                for p, n in zip(picks, mask.shape, strict=True)
            ]
            present = meet(present, _pick(frame, mask, picks, ranks))
        return data, present

    return run


def _inside(
    frame: Frame, name: str, tensor: Value, axis: int, index: Array, known: Array | None
) -> Array:
    """The index relative to the tensor's origin, clamped where the point does not count.

    Raises AttncError E601 if it leaves the tensor at a point that counts.
    """
    size, origin = tensor.data.shape[axis], tensor.start(axis)
    local = index - origin
    if is_scalar(local):
        outside = not 0 <= local < size
    else:
        outside = 0 not in local.shape and not (0 <= local.min() and local.max() < size)
    if not outside:
        return local
    mask = (frame.lift(local) < 0) | (frame.lift(local) >= size)
    wrong = meet(meet(mask, known), frame.guard)
    assert wrong is not None
    if 0 not in frame.shape and bool(wrong.any()):
        places = frame.arrays.broadcast(frame.lift(index), wrong.shape)
        rank = tensor.axes[axis]
        raise AttncError(
            "E601",
            f"`{name}` is read at {rank or 'an index'} = {int(places[wrong].reshape(-1)[0])}, "
            f"but holds {rank or 'the axis'} = {origin} .. {origin + size - 1}"
            if size
            else f"`{name}` is read along {rank or 'an axis'}, which has length 0",
            hint="restrict the statement with `where`, or the index with `clamp`",
        )
    clamped = frame.arrays.minimum(frame.arrays.maximum(frame.lift(local), 0), max(size - 1, 0))
    return int(clamped.reshape(-1)[0]) if is_scalar(local) else clamped


def _pick(frame: Frame, x: Array, picks: list[slice | Array], ranks: list[str]) -> Array:
    """x at slices along ranks, at integers, and at index arrays, laid out on the frame's axes."""
    if 0 in x.shape and any(
        n == 0 and not isinstance(p, slice) for n, p in zip(x.shape, picks, strict=True)
    ):
        # Every point reads outside an empty axis, and none of them counts.
        return frame.arrays.zeros_like(x, (1,) * len(frame.shape))
    if any(not isinstance(p, slice | int) for p in picks):
        x, ranks = _gather(frame, x, picks, ranks)
    else:
        if any(isinstance(p, int) or p != slice(0, n) for p, n in zip(picks, x.shape, strict=True)):
            x = x[tuple(picks)]
        ranks = [r for p, r in zip(picks, ranks, strict=True) if isinstance(p, slice)]
    places = [frame.axis[r] for r in ranks]
    if places != sorted(places):
        order = sorted(range(len(places)), key=places.__getitem__)
        x = frame.arrays.permute(x, order)
        places.sort()
    if len(places) == len(frame.shape):
        return x
    shape = [1] * len(frame.shape)
    for place, size in zip(places, x.shape, strict=True):
        shape[place] = size
    return x.reshape(shape)


def _gather(
    frame: Frame, x: Array, picks: list[slice | Array], ranks: list[str]
) -> tuple[Array, list[str]]:
    """x at the picks, and the rank of each axis of the result."""
    arrays = [p for p in picks if not isinstance(p, slice | int)]
    joint = [a for a in range(len(frame.shape)) if any(p.shape[a] != 1 for p in arrays)]
    names = list(frame.box)
    slices = [frame.axis[r] for p, r in zip(picks, ranks, strict=True) if isinstance(p, slice)]
    if len(arrays) == len(joint) == 1 and joint[0] not in slices:
        return _take(frame, x, picks, ranks, names[joint[0]])
    gathered: list[int] = []
    indices: list[Array] = []
    rest: list[int] = []
    for i, (pick, rank) in enumerate(zip(picks, ranks, strict=True)):
        if isinstance(pick, slice) and frame.axis[rank] not in joint:
            rest.append(i)
            continue
        if isinstance(pick, slice):
            # The rank also occurs in an index: its coordinates have to move along with it.
            pick = frame.coordinate(rank) + (pick.start - frame.box[rank].start)
        gathered.append(i)
        indices.append(
            pick if isinstance(pick, int) else pick.reshape([pick.shape[a] for a in joint])
        )
    if gathered != list(range(len(gathered))):
        x = frame.arrays.permute(x, gathered + rest)
    x = x[(*indices, *(picks[i] for i in rest))]
    return x, [names[a] for a in joint] + [ranks[i] for i in rest]


def _take(
    frame: Frame, x: Array, picks: list[slice | Array], ranks: list[str], rank: str
) -> tuple[Array, list[str]]:
    """x at the picks where one of them is an index array, and along a single rank."""
    x = x[tuple(p if isinstance(p, slice | int) else slice(None) for p in picks)]
    kept = [(p, r) for p, r in zip(picks, ranks, strict=True) if not isinstance(p, int)]
    ((axis, index),) = [(i, p) for i, (p, _) in enumerate(kept) if not isinstance(p, slice)]
    x = frame.arrays.take(x, index.reshape(-1), axis)
    return x, [r or rank for _, r in kept]
