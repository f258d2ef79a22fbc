"""The type of an expression: float, int or bool."""

from __future__ import annotations

from attnc.ir.cascade import Cascade, Concat, DType, Select
from attnc.ir.expr import Apply, Expr, Number, Param, Read
from attnc.ir.ops import OPS


def dtype_of(e: Expr, cascade: Cascade) -> DType:
    """The type of a value; a tensor that the cascade does not define is a float."""
    match e:
        case Number(bool()):
            return "bool"
        case Number(int()):
            return "int"
        case Number():
            return "float"
        case Param(name, _):
            params: dict[str, DType] = {p.name: p.dtype for p in cascade.params}
            return params.get(name, "float")
        case Read(tensor, _):
            return _tensor_dtype(tensor, cascade)
        case Apply(op, args):
            declared = OPS[op].result
            if declared != "same":
                return declared
            kept = args[1:] if op == "select" else args[:1] if op == "given" else args
            types = {dtype_of(a, cascade) for a in kept}
            return "float" if "float" in types else "int" if "int" in types else "bool"
        case _:
            return "int"


def _tensor_dtype(tensor: str, cascade: Cascade) -> DType:
    for declared in cascade.inputs:
        if declared.name == tensor:
            return declared.dtype
    for s in cascade.statements:
        if s.tensor == tensor:
            match s:
                case Select():
                    return "bool"
                case Concat():
                    return dtype_of(s.parts[0], cascade)
                case _:
                    return s.dtype
    return "float"
