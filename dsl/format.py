"""Print a spec in its one canonical form. Comments and blank lines between groups survive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attnc.dsl import tree

WIDTH = 100

# How tightly each operator binds; an operand that binds less tightly needs parentheses.
_OVER, _OR, _AND, _NOT, _COMPARE, _ADD, _MUL, _NEG, _POW, _ATOM = range(10)
_BINARY = {"or": _OR, "and": _AND, "+": _ADD, "-": _ADD, "*": _MUL, "/": _MUL}
_BINARY |= {"//": _MUL, "%": _MUL, "**": _POW}
# Where a long line is broken: behind these, and before `where`.
_BREAKS = (",", *(f" {op}" for op in "+ - * / < <= > >= == != and or then else".split()))


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


@dataclass(frozen=True, slots=True)
class _Piece:
    """Something that begins a line of its own, with the lines that it had in the source."""

    text: str
    first: int
    last: int
    indent: str = ""

    @property
    def lines(self) -> list[str]:
        """Its lines; a docstring keeps its own."""
        if self.text.startswith('"""'):
            return self.text.split("\n")
        return _wrap(self.text, WIDTH - len(self.indent))


def format_spec(spec: tree.Spec) -> str:
    """A spec in canonical form: it parses to the same tree, and formats to itself."""
    pieces = tuple(_pieces(spec))
    comments = list(spec.comments)
    lines: list[str] = []
    at = 0  # the last line of the source that is printed

    def put(text: list[str], first: int, last: int) -> None:
        nonlocal at
        if lines and first - at > 1:
            lines.append("")
        lines.extend(text)
        at = max(at, last)

    for piece, following in zip(pieces, (*pieces[1:], None), strict=True):
        while comments and comments[0].span.line < max(piece.first, piece.last):
            comment = comments.pop(0)
            line = min(comment.span.line, piece.first)
            put([piece.indent + comment.text], line, line)
        text = [piece.indent + t for t in piece.lines]
        shared = following is not None and following.first == piece.last
        if comments and comments[0].span.line == piece.last and not shared:
            text[-1] += f"  {comments.pop(0).text}"
        put(text, piece.first, piece.last)
    for comment in comments:
        put([comment.text], comment.span.line, comment.span.line)
    return "\n".join(lines) + "\n"


def _pieces(spec: tree.Spec) -> Iterator[_Piece]:
    if spec.name is not None:
        at = spec.name.span
        yield _Piece(f"attention {spec.name.name}", at.line, at.end_line)
    if spec.doc is not None:
        yield _Piece(f'"""{spec.doc}"""', spec.doc_span.line, spec.doc_span.end_line)
    for item in spec.items:
        if isinstance(item, tree.Macro):
            yield from _macro(item)
        else:
            yield _Piece(_item(item), item.span.line, item.span.end_line)


def _macro(item: tree.Macro) -> Iterator[_Piece]:
    formals = ", ".join(
        f.name if f.default is None else f"{f.name} = {show(f.default)}" for f in item.formals
    )
    head = f"def {item.name.name}({formals})"
    if item.argument is not None:
        head += f" {item.argument.name}[{_names(item.argument.ranks)}]"
    spans = [item.name.span, *(f.span for f in item.formals)]
    spans += [item.argument.span] if item.argument is not None else []
    yield _Piece(f"{head}:", item.span.line, spans[-1].end_line)
    for assign in item.body:
        yield _Piece(_item(assign), assign.span.line, assign.span.end_line, "    ")
    result = item.result.span
    yield _Piece(f"return {show(item.result)}", result.line, item.span.end_line, "    ")


def _item(item: tree.Item) -> str:
    match item:
        case tree.Param():
            return _param(item)
        case tree.Rank(name, components):
            return f"rank {name.name} = ({_names(components)})"
        case tree.Input(name, ranks, dtype):
            kind = "" if dtype == "float" else f": {dtype}"
            return f"input {name.name}[{_names(ranks)}]{kind}"
        case tree.Mask(target, value):
            return f"mask {show(target)} = {show(value)}"
        case tree.Output(tensors):
            return f"output {_list(tensors)}"
        case tree.Assign(target, value, where):
            if isinstance(value, tree.Concat):
                right = f"concat({value.rank.name}) {_list(value.parts)}"
            else:
                right = show(value)
            return f"{show(target)} = {right}" + ("" if where is None else f"  where {show(where)}")
        case tree.Macro():
            return ""


def _param(item: tree.Param) -> str:
    text = f"{'const ' if item.const else ''}param {item.name.name}: {item.dtype}"
    if item.length is not None:
        text += f"[{_number(item.length)}]"
    if isinstance(item.default, tuple):
        items = ", ".join(map(_number, item.default))
        text += f" = ({items}{',' if len(item.default) == 1 else ''})"
    elif item.default is not None:
        text += f" = {_number(item.default)}"
    if item.range is not None:
        low, high = _number(item.range.low), _number(item.range.high)
        opening = "(" if item.range.low_open else "["
        text += f" in {opening}{low}, {high}{')' if item.range.high_open else ']'}"
    return text


def _names(names: tuple[tree.Name, ...]) -> str:
    return ", ".join(n.name for n in names)


def _wrap(text: str, width: int) -> list[str]:
    """The lines of a long statement; the language lets it go on behind commas and operators."""
    lines = []
    while len(text) > width and (cut := _cut(text, width)):
        lines.append(text[:cut])
        text = f"    {text[cut:].lstrip()}"
    return [*lines, text]


def _cut(text: str, width: int) -> int:
    """Where to break: in the outermost brackets that reach far enough, as far right as fits."""
    best, least, depth = 0, width, 0
    for at, char in enumerate(text[: width + 1]):
        depth += (char in "([") - (char in ")]")
        if char != " " or at < width // 2:
            continue
        if text[at:].lstrip().startswith("where ") and text[at - 1] != " ":
            return at
        if depth <= least and text[:at].endswith(_BREAKS):
            best, least = at, depth
    return best
