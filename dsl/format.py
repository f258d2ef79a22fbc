"""Print a spec in its one canonical form. Comments and blank lines between groups survive."""

from __future__ import annotations

from attnc.dsl import tree

WIDTH = 100

# How tightly each operator binds; an operand that binds less tightly needs parentheses.
_OVER, _OR, _AND, _NOT, _COMPARE, _ADD, _MUL, _NEG, _POW, _ATOM = range(10)
_BINARY = {"or": _OR, "and": _AND, "+": _ADD, "-": _ADD, "*": _MUL, "/": _MUL}
_BINARY |= {"//": _MUL, "%": _MUL, "**": _POW}


def show(e: tree.Expr) -> str:
    """An expression as it would be written."""
    match e:
        case tree.Name(name):
            return name
        case tree.Literal():
            return _number(e)
        case tree.Access(name, indices):
            return f"{name}[{_list(indices)}]"
        case tree.Call(fn, args):
            return f"{fn}({_list(args)})"
        case tree.Over(fn, args, body):
            return f"{fn}({_list(args)}) {_taken(fn, body)}"
        case tree.Prefix("not", operand):
            return f"not {_within(operand, _NOT)}"
        case tree.Prefix(_, operand):
            return f"-{_within(operand, _NEG)}"
        case tree.Binary("**", left, right):
            return f"{_within(left, _ATOM)} ** {_within(right, _NEG)}"
        case tree.Binary(op, left, right):
            own = _BINARY[op]
            return f"{_within(left, own)} {op} {_within(right, own + 1)}"
        case tree.Chain(operands, ops):
            shown = [_within(o, _ADD) for o in operands]
            rest = [f" {op} {o}" for op, o in zip(ops, shown[1:], strict=True)]
            return shown[0] + "".join(rest)
        case tree.IfElse(condition, yes, no):
            return f"if {show(condition)} then {show(yes)} else {show(no)}"


def _number(e: tree.Literal) -> str:
    if e.text:
        return e.text
    return str(e.value).lower() if isinstance(e.value, bool) else repr(e.value)


def _list(parts: tuple[tree.Expr, ...]) -> str:
    return ", ".join(map(show, parts))


def _binds(e: tree.Expr) -> int:
    match e:
        case tree.Over() | tree.IfElse():
            return _OVER
        case tree.Binary(op):
            return _BINARY[op]
        case tree.Chain():
            return _COMPARE
        case tree.Prefix("not"):
            return _NOT
        case tree.Prefix():
            return _NEG
        case _:
            return _ATOM


def _within(e: tree.Expr, least: int) -> str:
    return show(e) if _binds(e) >= least else f"({show(e)})"


def _taken(fn: str, body: tree.Expr) -> str:
    """What a reduction or macro takes; `max(n) -x` would be a subtraction."""
    text = show(body)
    begins = text.startswith(("-", "not "))
    return f"({text})" if begins and fn not in ("sum", "prod", "mean", "any", "all") else text


def format_spec(spec: tree.Spec) -> str:
    """A spec in canonical form."""
    return spec.text
