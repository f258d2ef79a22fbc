"""Bind the arguments of a call to a cascade's inputs; mistakes show the binding of each rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from attnc.errors import AttncError
from attnc.ir.bind import bind_extents
from attnc.ir.cascade import Cascade, TensorDecl

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Call:
    """One call's tensors by input name, and the extent of every rank and component."""

    tensors: Mapping[str, Tensor]
    extents: Mapping[str, int]


def bind_call(cascade: Cascade, tensors: Sequence[object], named: Mapping[str, object]) -> Call:
    """Positional tensors in the spec's order, the others and extents (`MY=48`) by name.

    Raises AttncError: E501 .. E505 ranks that do not fit, E511 too many tensors or one given twice,
    E512 no tensor where one is needed, E513 of another kind than declared, E514 several devices.
    """
    given = _by_name(cascade, tensors, named)
    found: dict[str, Tensor] = {}
    for declared in cascade.inputs:
        if declared.name in given:
            found[declared.name] = _checked(cascade, declared, given.pop(declared.name))
    shapes = {name: tuple(x.shape) for name, x in found.items()}
    # What names no input is an extent, or a mistake that `bind_extents` explains.
    sizes = {name: _extent(cascade, name, value) for name, value in given.items()}
    extents = bind_extents(cascade, shapes, sizes)
    _check_devices(cascade, found)
    return Call(found, extents)


def signature(cascade: Cascade) -> str:
    """`sliding_window(Q[b, h, m, d], K[b, g, n, d], V[b, g, n, e])`."""
    return f"{cascade.name}({', '.join(map(_declaration, cascade.inputs))})"


def _declaration(t: TensorDecl) -> str:
    kind = "" if t.dtype == "float" else f": {t.dtype}"
    return f"{t.name}[{', '.join(t.ranks)}]{kind}"


def _by_name(
    cascade: Cascade, tensors: Sequence[object], named: Mapping[str, object]
) -> dict[str, object]:
    order = [t.name for t in cascade.inputs]
    if len(tensors) > len(order):
        shapes = ", ".join(str(tuple(getattr(x, "shape", ()))) for x in tensors)
        raise AttncError(
            "E511",
            f"{signature(cascade)} takes {len(order)} tensors, {len(tensors)} are given: {shapes}",
        )
    given = dict(zip(order, tensors, strict=False))
    for name in named:
        if name in given:
            raise AttncError(
                "E511", f"`{name}` is given twice to {signature(cascade)}: by position and by name"
            )
    return {**given, **named}


def _checked(cascade: Cascade, declared: TensorDecl, value: object) -> Tensor:
    """The value, if it is a tensor of the declared kind."""
    if not (hasattr(value, "shape") and hasattr(value, "is_floating_point")):
        raise AttncError(
            "E512",
            f"`{_declaration(declared)}` is given {type(value).__name__}, not a torch tensor",
            hint=f"call {signature(cascade)}",
        )
    tensor: Tensor = value  # type: ignore[assignment]
    kind = _kind(tensor)
    if kind != declared.dtype:
        raise AttncError(
            "E513",
            f"`{_declaration(declared)}` holds {declared.dtype}s, the tensor is {tensor.dtype}",
            hint=f"call {signature(cascade)}",
        )
    return tensor


def _kind(tensor: Tensor) -> str:
    """What a spec calls the tensor's type; a type that no spec has by its own name."""
    name = str(tensor.dtype).removeprefix("torch.")
    if name in ("float16", "bfloat16", "float32", "float64"):
        return "float"
    return "int" if name.startswith(("int", "uint")) else name


def _extent(cascade: Cascade, name: str, value: object) -> int:
    if any(name == p.name for p in cascade.params):
        hint = f"a parameter is set when loading: `attnc.load({cascade.name!r}, {name}=...)`"
        raise AttncError("E503", f"`{name}` is no input of `{cascade.name}`", hint=hint)
    if isinstance(value, bool) or not isinstance(value, int):
        near = get_close_matches(name.upper(), cascade.input_names, n=1)
        raise AttncError(
            "E503",
            f"`{name}` is no input of `{cascade.name}`",
            hint=f"did you mean `{near[0]}`?" if near else f"call {signature(cascade)}",
        )
    return value


def _check_devices(cascade: Cascade, tensors: Mapping[str, Tensor]) -> None:
    devices = {str(x.device) for x in tensors.values()}
    if len(devices) > 1:
        places = ", ".join(f"{name} on {x.device}" for name, x in tensors.items())
        raise AttncError(
            "E514", f"the tensors of `{cascade.name}` are on several devices: {places}"
        )
