"""Text to syntax tree. Any text gives a `Spec` or an `AttncError`, in time linear in its length."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from attnc.dsl import tree
from attnc.dsl.slips import explain_slip
from attnc.errors import AttncError, Span
from attnc.ir.cascade import DType

if TYPE_CHECKING:
    from lark import Lark, Token, Tree

MAX_TEXT = 64 * 1024
MAX_DEPTH = 100
MAX_NAME = 64
MAX_NUMBER = 40

_COMMENT_OR_DOC = re.compile(r'"""(?:.|\n)*?"""|#[^\n]*')
# What a line end does not end: the line before is open, or the next one cannot begin a statement.
_OPEN = frozenset("PLUS MINUS MUL POW COMPARE AND OR NOT COMMA WHERE IF THEN ELSE".split())
_BEGINS = frozenset("ATTENTION CONST PARAM RANK INPUT MASK DEF RETURN OUTPUT".split())


def parse(text: str, file: str = "") -> tree.Spec:
    """Read a spec.

    `file` is only for messages. Raises AttncError (E0xx) at the first place that is not the
    language; names, ranks and types are for `check`.
    """
    spec = parse_file(text, file)
    if spec.name is None:
        raise AttncError(
            "E010",
            "a spec begins with `attention` and its name",
            span=Span(1, 1, 1, 2, file),
            source=spec.text,
            hint="write `attention my_attention` as the first line",
        )
    return spec


def parse_file(text: str, file: str = "") -> tree.Spec:
    """Like `parse`, for a file that may lack the header, such as a collection of macros."""
    from lark.exceptions import UnexpectedInput

    text = _clean(text, file)
    try:
        parsed = lark_parser().parse(text + "\n")
    except UnexpectedInput as e:
        error = explain_slip(e, lark_parser(), text, file)
    else:
        return _Builder(text, file).spec(parsed)
    raise error


def read_text(path: Path) -> str:
    """The text of a spec file; AttncError (E003, E012) if it is too long, unreadable or not UTF-8."""
    try:
        with path.open("rb") as f:
            raw = f.read(4 * MAX_TEXT + 1)
    except OSError as e:
        raise AttncError("E012", f"cannot read `{path}`: {e.strerror}") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        if len(raw) > 4 * MAX_TEXT:
            raise AttncError("E003", f"`{path}` is longer than {MAX_TEXT} characters") from None
        raise AttncError(
            "E012",
            f"`{path}` is not UTF-8 text (byte {e.start})",
            hint="save the file as UTF-8",
        ) from None


@cache
def lark_parser() -> Lark:
    """The parser, built on first use: importing the package stays quick."""
    from lark import Lark

    return Lark(
        (Path(__file__).parent / "grammar.lark").read_text(),
        start="file",
        parser="lalr",
        lexer="basic",
        postlex=Lines(),
        propagate_positions=True,
        maybe_placeholders=True,
    )


class Lines:
    """Lark's hook between lexer and parser: keeps the line ends that end a statement."""

    always_accept = ("_NL",)

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        depth, last, pending = 0, "", None
        for token in stream:
            if token.type == "_NL":
                pending = pending or token
                continue
            # A line that starts like a declaration ends every bracket: the error stays near.
            if pending is not None and token.type in _BEGINS:
                depth = 0
            begins = token.type in _BEGINS or token.type in ("NAME", "DOC")
            if pending is not None and last and not depth and last not in _OPEN and begins:
                yield pending
            pending = None
            if token.type in ("LPAR", "LSQB"):
                depth += 1
            elif token.type in ("RPAR", "RSQB"):
                depth = max(0, depth - 1)
            last = token.type
            yield token
        if pending is not None and last:
            yield pending


def _clean(text: str, file: str) -> str:
    """The text with `\\n` line ends; refuses what is too long or cannot be shown."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if len(text) > MAX_TEXT:
        raise AttncError(
            "E003",
            f"the spec has {len(text)} characters, at most {MAX_TEXT} are read",
            hint="a spec describes one attention; constants and tables are inputs",
        )
    for number, line in enumerate(text.split("\n"), 1):
        if line.isprintable():
            continue
        for column, char in enumerate(line, 1):
            if not char.isprintable() and char != "\t":
                raise AttncError(
                    "E002",
                    f"character U+{ord(char):04X} cannot be shown",
                    span=Span(number, column, number, column + 1, file),
                    source=text.encode("utf-8", "replace").decode(),
                    hint="remove it; it may have come along with copied text",
                )
    return text


class _Builder:
    """Lark's tree to ours. Recursion is bounded by `MAX_DEPTH`."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file

    def error(self, code: str, message: str, span: Span, hint: str = "") -> AttncError:
        return AttncError(code, message, span=span, source=self.text, hint=hint)

    def span(self, node: Tree[Token] | Token) -> Span:
        at = getattr(node, "meta", node)
        return Span(at.line, at.column, at.end_line, at.end_column, self.file)

    def spec(self, parsed: Tree[Token]) -> tree.Spec:
        name, doc, doc_span = None, None, tree.NOWHERE
        items = list(parsed.children)
        if items and items[0].data == "header":
            header = items.pop(0)
            name = self.name(header.children[0])
            if header.children[1] is not None:
                doc, doc_span = header.children[1][3:-3], self.span(header.children[1])
        return tree.Spec(
            name=name,
            doc=doc,
            items=tuple(getattr(self, str(item.data))(item) for item in items),
            comments=self.comments(),
            text=self.text,
            file=self.file,
            doc_span=doc_span,
        )

    def comments(self) -> tuple[tree.Comment, ...]:
        found, line, start = [], 1, 0
        for match in _COMMENT_OR_DOC.finditer(self.text):
            line += self.text.count("\n", start, match.start())
            start = match.start()
            if match[0][0] == "#":
                column = start - self.text.rfind("\n", 0, start)
                span = Span(line, column, line, column + len(match[0]), self.file)
                found.append(tree.Comment(match[0].rstrip(), span))
        return tuple(found)

    # Names and numbers.

    def identifier(self, token: Token) -> str:
        text = str(token)
        if len(text) > MAX_NAME:
            raise self.error(
                "E009", f"a name has at most {MAX_NAME} characters", self.span(token), "shorten it"
            )
        if keyword.iskeyword(text) or text.startswith("__"):
            raise self.error(
                "E009",
                f"`{text}` cannot be a name",
                self.span(token),
                "words of Python and names that begin with two underscores are reserved",
            )
        return text

    def name(self, token: Token) -> tree.Name:
        return tree.Name(self.identifier(token), self.span(token))

    def names(self, node: Tree[Token] | None) -> tuple[tree.Name, ...]:
        return () if node is None else tuple(self.name(t) for t in node.children)

    def literal(self, token: Token) -> tree.Literal:
        text, span = str(token), self.span(token)
        if token.type != "NUMBER":
            value = {"inf": float("inf"), "true": True, "false": False}[text]
            return tree.Literal(value, text, span)
        if len(text) > MAX_NUMBER:
            raise self.error("E007", f"a number has at most {MAX_NUMBER} characters", span)
        if text.isdigit():
            if int(text) >= 2**63:
                raise self.error("E007", f"`{text}` is not below 2^63", span, "write it as a float")
            return tree.Literal(int(text), text, span)
        if float(text) == float("inf"):
            raise self.error("E007", f"`{text}` is beyond float64", span, "infinity is `inf`")
        return tree.Literal(float(text), text, span)

    def scalar(self, node: Tree[Token]) -> tree.Literal:
        minus, token = node.children
        literal = self.literal(token)
        if minus is None:
            return literal
        if isinstance(literal.value, bool):
            raise self.error("E004", "a truth value has no sign", self.span(node))
        return tree.Literal(-literal.value, "-" + literal.text, self.span(node))

    # Declarations.

    def param(self, node: Tree[Token]) -> tree.Param:
        const, name, dtype, length, default, bounds = node.children
        several: tree.Literal | tuple[tree.Literal, ...] | None = None
        if default is not None:
            if default.data == "several":
                several = tuple(self.scalar(s) for s in default.children)
            else:
                several = self.scalar(default)
        return tree.Param(
            name=self.name(name),
            dtype=_dtype(dtype),
            length=self.literal(length.children[0]) if length else None,
            default=several,
            range=self.range(bounds) if bounds else None,
            const=const is not None,
            span=self.span(node),
        )

    def range(self, node: Tree[Token]) -> tree.Range:
        opening, low, high, closing = node.children
        return tree.Range(
            self.scalar(low), self.scalar(high), opening == "(", closing == ")", self.span(node)
        )

    def rank(self, node: Tree[Token]) -> tree.Rank:
        return tree.Rank(self.name(node.children[0]), self.names(node.children[1]), self.span(node))

    def input(self, node: Tree[Token]) -> tree.Input:
        name, ranks, dtype = node.children
        return tree.Input(
            self.name(name), self.names(ranks), _dtype(dtype or "float"), self.span(node)
        )

    def mask(self, node: Tree[Token]) -> tree.Mask:
        target, value = node.children
        return tree.Mask(self.access(target, 0), self.expr(value), self.span(node))

    def output(self, node: Tree[Token]) -> tree.Output:
        return tree.Output(tuple(self.access(c, 0) for c in node.children), self.span(node))

    def macro(self, node: Tree[Token]) -> tree.Macro:
        name, formals, argument, *body, result = node.children
        return tree.Macro(
            name=self.name(name),
            formals=tuple(self.formal(f) for f in formals.children) if formals else (),
            argument=self.argument(argument) if argument else None,
            body=tuple(self.assign(a) for a in body),
            result=self.expr(result),
            span=self.span(node),
        )

    def formal(self, node: Tree[Token]) -> tree.Formal:
        name, default = node.children
        value = None if default is None else self.expr(default)
        return tree.Formal(self.identifier(name), value, self.span(node))

    def argument(self, node: Tree[Token]) -> tree.Argument:
        name, ranks = node.children
        return tree.Argument(self.identifier(name), self.names(ranks), self.span(node))

    def assign(self, node: Tree[Token]) -> tree.Assign:
        target, right, where = node.children
        value: tree.Expr | tree.Concat
        if getattr(right, "data", "") == "concat":
            rank, *parts = right.children
            value = tree.Concat(
                self.name(rank), tuple(self.expr(p) for p in parts), self.span(right)
            )
        else:
            value = self.expr(right)
        condition = None if where is None else self.expr(where)
        return tree.Assign(self.access(target, 0), value, condition, self.span(node))

    # Expressions.

    def args(self, node: Tree[Token] | None, depth: int) -> tuple[tree.Expr, ...]:
        return () if node is None else tuple(self.expr(c, depth) for c in node.children)

    def access(self, node: Tree[Token], depth: int) -> tree.Access:
        name, indices = node.children
        return tree.Access(self.identifier(name), self.args(indices, depth + 1), self.span(node))

    def expr(self, node: Tree[Token], depth: int = 0) -> tree.Expr:
        """An expression `depth` levels inside another."""
        span, below = self.span(node), depth + 1
        if depth > MAX_DEPTH:
            raise self.error(
                "E008",
                f"an expression is nested more than {MAX_DEPTH} levels deep",
                span,
                "give a part of it a name of its own",
            )
        parts = node.children
        match str(node.data):
            case "name":
                return tree.Name(self.identifier(parts[0]), span)
            case "number":
                return self.literal(parts[0])
            case "access":
                return self.access(node, depth)
            case "call":
                return tree.Call(self.identifier(parts[0]), self.args(parts[1], below), span)
            case "over":
                fn = self.identifier(parts[0])
                return tree.Over(fn, self.args(parts[1], below), self.expr(parts[2], below), span)
            case "prefix":
                return tree.Prefix(str(parts[0]), self.expr(parts[1], below), span)
            case "binary":
                left, op, right = parts
                return tree.Binary(str(op), self.expr(left, below), self.expr(right, below), span)
            case "chain":
                operands = tuple(self.expr(p, below) for p in parts[::2])
                return tree.Chain(operands, tuple(str(op) for op in parts[1::2]), span)
            case _:
                condition, yes, no = (self.expr(p, below) for p in parts)
                return tree.IfElse(condition, yes, no, span)


def _dtype(word: str) -> DType:
    return "int" if word == "int" else "bool" if word == "bool" else "float"
