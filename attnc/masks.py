"""A spec's masks with the numbers put in: what the census, the pictures and block lists start from.

Only what a mask depends on is asked for: the extents of the two ranks that it relates, those of the
ranks along which it varies, and the int and bool tensors that it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnc.errors import AttncError
from attnc.ir.bind import complete_extents, named_extents
from attnc.ir.cascade import Cascade, TensorDecl
from attnc.ir.expr import Extent, Index
from attnc.ir.frame import ParamValue
from attnc.ir.geometry.tiling import Bound
from attnc.ir.plan import Plan, SweepStage
from attnc.ir.visibility import Visibility, joint_visibility
from attnc.ir.walk import subexprs


@dataclass(frozen=True, slots=True)
class Mask:
    """The mask of one kernel, and what its predicates are evaluated with."""

    stage: str
    visibility: Visibility
    bound: Bound

    def coordinates(self, rank: str) -> tuple[str, ...]:
        """The components of a grid, outermost first; a rank that is none is its own coordinate."""
        return self.bound.components.get(rank, (rank,))

    def extent(self, rank: str) -> int:
        return self.bound.extents[rank]


def masks(
    plan: Plan,
    params: Mapping[str, ParamValue],
    shape: Mapping[str, int],
    tensors: Mapping[str, object],
) -> tuple[Mask, ...]:
    """The mask of each sweep of a plan, in order; one that hides nothing is `true`.

    `shape`: extents by name; the captured tensors give theirs, too. Where nothing gives the extent
    of the keys, there are as many as queries, and the other way round. `tensors`: those that a mask
    reads, of torch or numpy. Raises AttncError: E501, E502, E504, E505 extents that disagree or are
    missing, E503 a tensor that is missing or unknown, E513 one of another kind.
    """
    cascade = plan.cascade
    _check_names(plan.written, tensors)
    seen = [
        (s.name, joint_visibility((p.visibility for p in s.passes), cascade))
        for s in plan.stages
        if isinstance(s, SweepStage)
    ]
    captured = _captured(cascade, [v for _, v in seen], tensors)
    extents = given_extents(cascade, shape, captured)
    for _, v in seen:
        share_extents(cascade, v.row, v.swept, extents)
        _check_extents(cascade, v, extents)
    grids = {r.name: r.components for r in cascade.ranks if r.components}
    known = {name: cs for name, cs in grids.items() if all(c in extents for c in cs)}
    bound = Bound(extents, params, captured, known)
    return tuple(Mask(name, v, bound) for name, v in seen)


def _check_names(cascade: Cascade, tensors: Mapping[str, object]) -> None:
    for name in tensors:
        if name not in cascade.input_names:
            near = get_close_matches(name, cascade.input_names, n=1)
            hint = f"did you mean `{near[0]}`?" if near else ""
            raise AttncError("E503", f"`{name}` is no input of `{cascade.name}`", hint=hint)


def _captured(
    cascade: Cascade, seen: list[Visibility], tensors: Mapping[str, object]
) -> dict[str, NDArray[Any]]:
    """The tensors that the masks read, as arrays of int64 or bool."""
    names = dict.fromkeys(t for v in seen for t in v.tensors)
    missing = [cascade.input(t) for t in names if t not in tensors]
    if missing:
        shown = ", ".join(f"`{_declaration(t)}`" for t in missing)
        files = " ".join(f"--data {t.name}=FILE.npy" for t in missing)
        arguments = ", ".join(f"{t.name}=tensor" for t in missing)
        raise AttncError(
            "E503",
            f"the mask of `{cascade.name}` reads {shown}, which nothing gives",
            hint=f"give `{files}`, or `{arguments}` in Python",
        )
    return {t: _array(cascade.input(t), tensors[t]) for t in names}


def captured_arrays(cascade: Cascade, tensors: Mapping[str, object]) -> dict[str, NDArray[Any]]:
    """Captured int and bool tensors as arrays. Raises AttncError E502, E503, E513 for others."""
    _check_names(cascade, tensors)
    for name in tensors:
        if (declared := cascade.input(name)).dtype == "float":
            raise AttncError("E513", f"no mask reads `{_declaration(declared)}`")
    return {name: _array(cascade.input(name), x) for name, x in tensors.items()}


def _array(declared: TensorDecl, value: Any) -> NDArray[Any]:
    found = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if found.ndim != len(declared.ranks):
        raise AttncError(
            "E502",
            f"`{_declaration(declared)}` has {len(declared.ranks)} axes, "
            f"the tensor has {found.ndim}: shape {found.shape}",
        )
    if found.dtype.kind not in {"int": "iu", "bool": "b"}[declared.dtype]:
        raise AttncError(
            "E513", f"`{_declaration(declared)}` holds {declared.dtype}s, not {found.dtype}"
        )
    return found if declared.dtype == "bool" else found.astype(np.int64)


def _declaration(t: TensorDecl) -> str:
    return f"{t.name}[{', '.join(t.ranks)}]: {t.dtype}"


def given_extents(
    cascade: Cascade, shape: Mapping[str, int], captured: Mapping[str, NDArray[Any]]
) -> dict[str, int]:
    """Extents by rank, from those given by name and from the tensors, and what follows from them.

    Raises AttncError E501, E504, E505 where they disagree or name no rank.
    """
    extents = named_extents(cascade, shape)
    for name, array in captured.items():
        for rank, size in zip(cascade.input(name).ranks, array.shape, strict=True):
            if extents.setdefault(rank, size) != size:
                raise AttncError(
                    "E501",
                    f"rank `{rank}` has two extents: `{_declaration(cascade.input(name))}` has "
                    f"{size}, the shape or another tensor says {extents[rank]}",
                )
    _complete(cascade, extents)
    return extents


def _complete(cascade: Cascade, extents: dict[str, int]) -> None:
    broken = complete_extents(cascade, extents)
    if broken:
        given = ", ".join(f"{name.upper()}={size}" for name, size in extents.items())
        raise AttncError("E505", f"{broken}: {given}")


def share_extents(cascade: Cascade, row: str | None, swept: str, extents: dict[str, int]) -> None:
    """Self-attention has as many keys as queries: said once is enough, axis by axis."""
    if row is None:
        return
    rows, keys = (_coordinates(cascade, r) for r in (row, swept))
    axes = ((rows, keys), (keys, rows)) if len(rows) == len(keys) else ()
    for here, there in (*axes, ((row,), (swept,)), ((swept,), (row,))):
        whole = (cascade.rank(c).parent for c in there)
        if not any(name in extents for name in (*there, *whole)):
            shared = zip(there, here, strict=True)
            extents.update((b, extents[a]) for b, a in shared if a in extents)
            _complete(cascade, extents)


def _coordinates(cascade: Cascade, rank: str) -> tuple[str, ...]:
    return cascade.rank(rank).components or (rank,)


def _check_extents(cascade: Cascade, v: Visibility, extents: Mapping[str, int]) -> None:
    inside = [x for e in (v.some, v.every) for x in subexprs(e)]
    indexed = (cascade.rank(x.rank) for x in inside if isinstance(x, Index))
    parts = [c for r in indexed if r.parent for c in cascade.rank(r.parent).components]
    lengths = [x.rank for x in inside if isinstance(x, Extent)]
    split = {cascade.rank(c).parent for c in parts}
    whole = [r for r in (v.row, v.swept, *v.grid) if r is not None and r not in split]
    missing = [n.upper() for n in dict.fromkeys((*parts, *lengths, *whole)) if n not in extents]
    if missing:
        raise AttncError(
            "E504",
            f"the mask of `{cascade.name}` needs the extents {', '.join(missing)}",
            hint=f"give `--shape {','.join(f'{n}=..' for n in missing)}`, or a shape in Python",
        )
