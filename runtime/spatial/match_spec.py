"""Whether a spec computes what a modelled accelerator computes, and the shape that it asks for.

An accelerator runs a cascade of its own. Another spec may stand for it if nothing is masked and
both give the same outputs: it is the maths that is compared, at random points, never a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnc.dsl import load_text
from attnc.errors import AttncError
from attnc.ir.cascade import Cascade
from attnc.ir.frame import ParamValue
from attnc.ir.interpret import interpret
from attnc.ir.plan import Plan, SweepStage
from attnc.ir.presence import TRUE
from attnc.ir.walk import output_ranks
from attnc.library import text
from attnc.runtime.spatial.designs import Design
from attnc.runtime.spatial.models import Model

# Queries [b, h, m, d], keys [b, h, n, d], values [b, h, n, e]: lengths and widths that differ.
_SHAPES = ((1, 2, 3, 3), (1, 2, 4, 3), (1, 2, 4, 2))
_TRIES = 3
_CLOSE = 1e-9


@dataclass(frozen=True, slots=True)
class Roles:
    """What the ranks of a spec are on an array; `grid` are batch and heads, heads last.

    inputs: the spec's names of queries, keys and values
    """

    grid: tuple[str, ...]
    row: str
    swept: str
    inner: str
    column: str
    inputs: tuple[str, str, str]

    @property
    def axes(self) -> tuple[tuple[str, str], ...]:
        """(tokens, features) of each input."""
        return (self.row, self.inner), (self.swept, self.inner), (self.swept, self.column)


def match_spec(plan: Plan, params: Mapping[str, ParamValue], design: Design) -> Roles:
    """The roles of a spec's ranks. Raises E845 for a spec that the accelerator does not run."""
    roles = _roles(plan, design)
    own = load_text(text(design.spec), f"{design.spec}.attn")
    random = np.random.default_rng(0)
    for _ in range(_TRIES):
        tensors = [random.normal(size=shape) for shape in _SHAPES]
        expected = _run(own, _roles_of_design(own), tensors, {})
        try:
            found = _run(plan.written, roles, tensors, params)
        except AttncError as e:
            raise _refused(plan, design, e.message) from None
        if found.shape != expected.shape or not np.allclose(found, expected, _CLOSE, _CLOSE):
            raise _refused(plan, design, "its maths is another")
    return roles


def model_of(roles: Roles, extents: Mapping[str, int], cascade: Cascade) -> tuple[Model, int]:
    """Batch, heads and width of a shape as a model, and its length.

    Nothing is known of the layers around it. Raises E845 for a shape that is not modelled.
    """
    rows, keys = extents[roles.row], extents[roles.swept]
    width, values = extents[roles.inner], extents[roles.column]
    if rows != keys:
        raise _shape(f"{rows} queries and {keys} keys", "as many keys as queries")
    if width != values:
        raise _shape(f"keys of {width} and values of {values}", "values as wide as keys")
    *batch, heads = (extents[r] for r in roles.grid) if roles.grid else (1,)
    for name, own in zip(roles.inputs, roles.axes, strict=True):
        served = prod(extents[r] for r in cascade.input(name).ranks if r not in own)
        if served != prod(batch) * heads:
            raise _shape(f"`{name}` is shared by several heads", "keys and values per head")
    size = heads * width
    return Model("own", size, heads, width, 4 * size, prod(batch)), rows


def _roles(plan: Plan, design: Design) -> Roles:
    cascade, stages = plan.written, plan.stages
    if len(stages) != 1 or not isinstance(stages[0], SweepStage) or stages[0].row is None:
        raise _refused(plan, design, "it is no single sweep over the keys")
    (stage,) = stages
    assert isinstance(stage, SweepStage) and stage.row is not None
    if any(x != TRUE for p in stage.passes for x in (p.visibility.some, p.visibility.every)):
        raise _refused(plan, design, "it has a mask")
    if (len(stage.inner), len(stage.columns), len(cascade.outputs)) != (1, 1, 1):
        raise _refused(plan, design, "its maths is another")
    roles = Roles(
        stage.grid, stage.row, stage.swept, stage.inner[0], stage.columns[0], ("", "", "")
    )
    read = [[t.name for t in cascade.inputs if set(own) <= set(t.ranks)] for own in roles.axes]
    if len(cascade.inputs) != 3 or any(len(names) != 1 for names in read):
        raise _refused(plan, design, "it reads other tensors than queries, keys and values")
    (q,), (k,), (v,) = read
    return Roles(roles.grid, roles.row, roles.swept, roles.inner, roles.column, (q, k, v))


def _roles_of_design(own: Cascade) -> Roles:
    q, k, v = (t.name for t in own.inputs)
    return Roles(("b", "h"), "m", "n", "d", "e", (q, k, v))


def _run(
    cascade: Cascade,
    roles: Roles,
    tensors: list[NDArray[np.float64]],
    params: Mapping[str, ParamValue],
) -> NDArray[np.float64]:
    """The output as [head, m, e] for tensors [1, head, token, feature], put in the spec's layout.

    All heads lie on the last of the ranks that are neither tokens nor features.
    """
    given: dict[str, Any] = {}
    extents: dict[str, int] = {}
    for name, x, own in zip(roles.inputs, tensors, roles.axes, strict=True):
        axes = cascade.input(name).ranks
        outer = [r for r in axes if r not in own]
        order = [*outer, *own]
        heads = (*[1] * (len(outer) - 1), x.shape[1]) if outer else ()
        laid = x.reshape(*heads, *x.shape[2:]) if outer else x[0, 0]
        given[name] = laid.transpose([order.index(r) for r in axes])
        extents.update(zip(order, laid.shape, strict=True))
    for rank in cascade.ranks:
        if rank.components and rank.name in extents:
            extents |= {
                **dict.fromkeys(rank.components, 1),
                rank.components[-1]: extents[rank.name],
            }
    (out,) = interpret(cascade, given, params=params, extents=extents).values()
    axes = output_ranks(cascade.producers(cascade.outputs[0])[-1])
    order = [*(r for r in axes if r not in (roles.row, roles.column)), roles.row, roles.column]
    whole = np.asarray(out).transpose([axes.index(r) for r in order])
    return whole.reshape(-1, *whole.shape[-2:])


def _refused(plan: Plan, design: Design, why: str) -> AttncError:
    return AttncError(
        "E845",
        f"{design.name} does not run `{plan.written.name}`: {why}",
        hint="the modelled arrays run softmax attention without a mask, like `sdpa`",
    )


def _shape(what: str, takes: str) -> AttncError:
    return AttncError("E845", f"the modelled arrays take {takes}: {what}")
