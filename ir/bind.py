"""Bind a call to a cascade: extents from the tensors' shapes, parameters from the given values."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from math import isnan, prod

from attnc.errors import AttncError
from attnc.ir.cascade import Cascade, Concat, ParamDecl, Rank
from attnc.ir.expr import Extent, Index
from attnc.ir.frame import ParamValue
from attnc.ir.walk import iteration_ranks, operands, subexprs


def bind_extents(
    cascade: Cascade, shapes: Mapping[str, tuple[int, ...]], extra: Mapping[str, int]
) -> dict[str, int]:
    """The extent of every rank and component, from input shapes and extents given by name.

    A grid rank is the product of its components, a concatenated rank the sum of its parts; what is
    missing is solved for. Names in `extra` are rank names, in lower or upper case.
    Raises AttncError E501 .. E505: extents that disagree, wrong number of axes, tensors missing or
    unknown, an extent that nothing gives, a grid or concatenation that does not fit.
    """
    _check_tensors(cascade, shapes)
    extents = named_extents(cascade, extra)
    for tensor in cascade.inputs:
        for rank, size in zip(tensor.ranks, shapes[tensor.name], strict=True):
            if extents.setdefault(rank, size) != size:
                raise AttncError(
                    "E501",
                    f"rank `{rank}` has two extents, {extents[rank]} and {size}: "
                    + _bindings(cascade, shapes, extra),
                )
    broken = complete_extents(cascade, extents)
    if broken:
        raise AttncError("E505", f"{broken}: " + _bindings(cascade, shapes, extra))
    for rank in _needed(cascade):
        if rank not in extents:
            raise AttncError(
                "E504",
                f"nothing gives the extent of rank `{rank}`: " + _bindings(cascade, shapes, extra),
                hint=f"pass {rank.upper()}=...",
            )
    return extents


def named_extents(cascade: Cascade, extra: Mapping[str, int]) -> dict[str, int]:
    """Extents by rank, from extents by name in lower or upper case.

    Raises AttncError E504 for what is no rank, and for what is no length.
    """
    named = {r.name: r for r in cascade.ranks} | {r.extent_name: r for r in cascade.ranks}
    extents: dict[str, int] = {}
    for name, size in extra.items():
        if name not in named:
            raise AttncError(
                "E504", f"`{name}` is no rank of `{cascade.name}`", hint=_nearest(name, named)
            )
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise AttncError("E504", f"the extent `{name}` is a length, not {size!r}")
        extents[named[name].name] = size
    return extents


def complete_extents(cascade: Cascade, extents: dict[str, int]) -> str:
    """Add the extents that follow from others; what does not fit, or nothing.

    A grid rank is the product of its components, a concatenated rank the sum of its parts.
    """
    before = -1
    while len(extents) > before:
        before = len(extents)
        for whole, parts, sign in _relations(cascade):
            if not _solve(whole, parts, sign, extents):
                equation = f"{whole.upper()} = {f' {sign} '.join(p.upper() for p in parts)}"
                return f"`{equation}` does not hold"
    return ""


def with_joined(cascade: Cascade, extents: Mapping[str, int]) -> dict[str, int]:
    """The extents of a spec's ranks, and of those that the compiler joined from them."""
    joined = (r for r in cascade.ranks if cascade.is_joined(r.name))
    return {**extents, **{r.name: prod(extents[c] for c in r.components) for r in joined}}


def _check_tensors(cascade: Cascade, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name in shapes:
        if name not in cascade.input_names:
            raise AttncError(
                "E503",
                f"`{name}` is no input of `{cascade.name}`",
                hint=_nearest(name, cascade.input_names),
            )
    for tensor in cascade.inputs:
        if tensor.name not in shapes:
            raise AttncError("E503", f"input `{tensor.name}[{', '.join(tensor.ranks)}]` is missing")
        shape = shapes[tensor.name]
        if len(shape) != len(tensor.ranks):
            raise AttncError(
                "E502",
                f"`{tensor.name}[{', '.join(tensor.ranks)}]` has {len(tensor.ranks)} axes, "
                f"the tensor has {len(shape)}: shape {tuple(shape)}",
            )


def _relations(cascade: Cascade) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """(rank, parts, operator): grids are products of components, concatenations sums of parts."""
    for rank in cascade.ranks:
        if rank.components:
            yield rank.name, rank.components, "*"
    for s in cascade.statements:
        if isinstance(s, Concat):
            yield s.rank, s.ranks, "+"


def _solve(whole: str, parts: tuple[str, ...], sign: str, extents: dict[str, int]) -> bool:
    """Add the one extent that is missing, if one is; whether the relation can hold."""
    missing = [p for p in parts if p not in extents]
    sizes = [extents[p] for p in parts if p in extents]
    known = prod(sizes) if sign == "*" else sum(sizes)
    if not missing:
        return extents.setdefault(whole, known) == known
    if len(missing) > 1 or whole not in extents:
        return True
    size = extents[whole]
    if sign == "+":
        extents[missing[0]] = size - known
        return size >= known
    extents[missing[0]] = size // known if known else 0
    return known != 0 and size % known == 0


def _needed(cascade: Cascade) -> tuple[str, ...]:
    """The ranks whose extent some statement uses, in order."""
    found: list[str] = []
    for s in cascade.statements:
        found += iteration_ranks(s)
        for x in (x for e in operands(s) for x in subexprs(e)):
            if isinstance(x, Extent):
                found.append(x.rank)
            elif isinstance(x, Index) and (parent := cascade.rank(x.rank).parent):
                # The coordinates of a flat rank's components follow from all their extents.
                found += cascade.rank(parent).components
    return tuple(dict.fromkeys(found))


def _bindings(
    cascade: Cascade, shapes: Mapping[str, tuple[int, ...]], extra: Mapping[str, int]
) -> str:
    """`Q[b=2, h=8, m=16], K[b=2, g=2, n=16], MY=4`."""
    tensors = [
        f"{t.name}[{', '.join(f'{r}={n}' for r, n in zip(t.ranks, shapes[t.name], strict=True))}]"
        for t in cascade.inputs
    ]
    return ", ".join([*tensors, *(f"{name.upper()}={size}" for name, size in extra.items())])


def _nearest(name: str, names: Mapping[str, Rank] | frozenset[str] | tuple[str, ...]) -> str:
    close = get_close_matches(name, list(names), 1)
    return f"did you mean `{close[0]}`?" if close else "known: " + ", ".join(sorted(names))


def check_params(cascade: Cascade, values: Mapping[str, object]) -> dict[str, ParamValue]:
    """Every parameter's value: given or default, of its type, in its range.

    Raises AttncError E506 (unknown name), E507 (no value), E508 (wrong type or length) and E509
    (out of range).
    """
    names = tuple(p.name for p in cascade.params)
    for name in values:
        if name not in names:
            raise AttncError(
                "E506",
                f"`{name}` is no parameter of `{cascade.name}`",
                hint=_nearest(name, names) if names else "it has none",
            )
    return {p.name: _param(cascade, p, values.get(p.name, p.default)) for p in cascade.params}


def _param(cascade: Cascade, p: ParamDecl, value: object) -> ParamValue:
    kind = p.dtype if p.length is None else f"{p.dtype}[{p.length}]"
    if value is None:
        raise AttncError(
            "E507",
            f"parameter `{p.name}: {kind}` of `{cascade.name}` has no value",
            span=p.span,
            source=cascade.source,
            hint=f"pass {p.name}=...",
        )
    if p.length is None:
        return _item(cascade, p, value, kind)
    if not isinstance(value, tuple | list) or len(value) != p.length:
        raise AttncError("E508", f"parameter `{p.name}` is {kind}, not {value!r}")
    return tuple(_item(cascade, p, v, kind) for v in value)


def _item(cascade: Cascade, p: ParamDecl, value: object, kind: str) -> bool | int | float:
    wrong = AttncError("E508", f"parameter `{p.name}` is {kind}, not {value!r}")
    if p.dtype == "bool":
        if not isinstance(value, bool):
            raise wrong
        return value
    if isinstance(value, bool):
        raise wrong
    x: int | float
    try:
        x = operator.index(value) if p.dtype == "int" else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise wrong from None
    if isinstance(value, str):
        raise wrong
    low, high = p.low, p.high
    below = low is not None and (x < low or (p.low_open and x == low))
    above = high is not None and (x > high or (p.high_open and x == high))
    if below or above or (isnan(x) and (low is not None or high is not None)):
        left = "(-inf" if low is None else f"{'(' if p.low_open else '['}{low:g}"
        right = "inf)" if high is None else f"{high:g}{')' if p.high_open else ']'}"
        raise AttncError("E509", f"parameter `{p.name}` is in {left}, {right}, not {value!r}")
    return x
