"""Lark's tree to ours."""

from __future__ import annotations

import keyword
import re
from typing import Any, TypeAlias

from attnc.dsl import tree
from attnc.errors import AttncError, Span
from attnc.ir.cascade import DType

MAX_DEPTH = 100
MAX_NAME = 64
MAX_NUMBER = 40

# A lark tree or token, or None for an optional part that is not there: the grammar says which.
Raw: TypeAlias = Any

_COMMENT_OR_DOC = re.compile(r'"""(?:.|\n)*?"""|#[^\n]*')


class Builder:
    """Builds the tree of one text. Recursion is bounded by `MAX_DEPTH`."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file

    def error(self, code: str, message: str, span: Span, hint: str = "") -> AttncError:
        return AttncError(code, message, span=span, source=self.text, hint=hint)

    def span(self, node: Raw) -> Span:
        at: Any = getattr(node, "meta", node)
        return Span(at.line, at.column, at.end_line, at.end_column, self.file)

    def spec(self, parsed: Raw) -> tree.Spec:
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
                found.append(tree.Comment(match[0].rstrip(), span=span))
        return tuple(found)

    # Names and numbers.

    def identifier(self, token: Raw) -> str:
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

    def name(self, token: Raw) -> tree.Name:
        return tree.Name(self.identifier(token), span=self.span(token))

    def names(self, node: Raw) -> tuple[tree.Name, ...]:
        return () if node is None else tuple(self.name(t) for t in node.children)

    def literal(self, token: Raw) -> tree.Literal:
        text, span = str(token), self.span(token)
        if token.type != "NUMBER":
            value = {"inf": float("inf"), "true": True, "false": False}[text]
            return tree.Literal(value, text, span=span)
        if len(text) > MAX_NUMBER:
            raise self.error("E007", f"a number has at most {MAX_NUMBER} characters", span)
        if text.isdigit():
            if int(text) >= 2**63:
                raise self.error("E007", f"`{text}` is not below 2^63", span, "write it as a float")
            return tree.Literal(int(text), text, span=span)
        if float(text) == float("inf"):
            raise self.error("E007", f"`{text}` is beyond float64", span, "infinity is `inf`")
        return tree.Literal(float(text), text, span=span)

    def scalar(self, node: Raw) -> tree.Literal:
        minus, token = node.children
        literal = self.literal(token)
        if minus is None:
            return literal
        if isinstance(literal.value, bool):
            raise self.error("E004", "a truth value has no sign", span=self.span(node))
        return tree.Literal(-literal.value, "-" + literal.text, span=self.span(node))

    # Declarations.

    def param(self, node: Raw) -> tree.Param:
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

    def range(self, node: Raw) -> tree.Range:
        opening, low, high, closing = node.children
        return tree.Range(
            self.scalar(low),
            self.scalar(high),
            opening == "(",
            closing == ")",
            span=self.span(node),
        )

    def rank(self, node: Raw) -> tree.Rank:
        return tree.Rank(
            self.name(node.children[0]), self.names(node.children[1]), span=self.span(node)
        )

    def input(self, node: Raw) -> tree.Input:
        name, ranks, dtype = node.children
        return tree.Input(
            self.name(name), self.names(ranks), _dtype(dtype or "float"), span=self.span(node)
        )

    def mask(self, node: Raw) -> tree.Mask:
        target, value = node.children
        return tree.Mask(self.access(target, 0), self.expr(value), span=self.span(node))

    def output(self, node: Raw) -> tree.Output:
        return tree.Output(tuple(self.access(c, 0) for c in node.children), span=self.span(node))

    def macro(self, node: Raw) -> tree.Macro:
        name, formals, argument, *body, result = node.children
        return tree.Macro(
            name=self.name(name),
            formals=tuple(self.formal(f) for f in formals.children) if formals else (),
            argument=self.argument(argument) if argument else None,
            body=tuple(self.assign(a) for a in body),
            result=self.expr(result),
            span=self.span(node),
        )

    def formal(self, node: Raw) -> tree.Formal:
        name, default = node.children
        value = None if default is None else self.expr(default)
        return tree.Formal(self.identifier(name), value, span=self.span(node))

    def argument(self, node: Raw) -> tree.Argument:
        name, ranks = node.children
        return tree.Argument(self.identifier(name), self.names(ranks), span=self.span(node))

    def assign(self, node: Raw) -> tree.Assign:
        target, right, where = node.children
        value: tree.Expr | tree.Concat
        if getattr(right, "data", "") == "concat":
            rank, *parts = right.children
            value = tree.Concat(
                self.name(rank), tuple(self.expr(p) for p in parts), span=self.span(right)
            )
        else:
            value = self.expr(right)
        condition = None if where is None else self.expr(where)
        return tree.Assign(self.access(target, 0), value, condition, span=self.span(node))

    # Expressions.

    def args(self, node: Raw, depth: int) -> tuple[tree.Expr, ...]:
        return () if node is None else tuple(self.expr(c, depth) for c in node.children)

    def access(self, node: Raw, depth: int) -> tree.Access:
        name, indices = node.children
        return tree.Access(
            self.identifier(name), self.args(indices, depth + 1), span=self.span(node)
        )

    def expr(self, node: Raw, depth: int = 0) -> tree.Expr:
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
                return tree.Name(self.identifier(parts[0]), span=span)
            case "number":
                return self.literal(parts[0])
            case "access":
                return self.access(node, depth)
            case "call":
                return tree.Call(self.identifier(parts[0]), self.args(parts[1], below), span=span)
            case "over":
                fn = self.identifier(parts[0])
                return tree.Over(
                    fn, self.args(parts[1], below), self.expr(parts[2], below), span=span
                )
            case "prefix":
                return tree.Prefix(str(parts[0]), self.expr(parts[1], below), span=span)
            case "binary":
                left, op, right = parts
                return tree.Binary(
                    str(op), self.expr(left, below), self.expr(right, below), span=span
                )
            case "chain":
                operands = tuple(self.expr(p, below) for p in parts[::2])
                return tree.Chain(operands, tuple(str(op) for op in parts[1::2]), span=span)
            case _:
                condition, yes, no = (self.expr(p, below) for p in parts)
                return tree.IfElse(condition, yes, no, span=span)


def _dtype(word: str) -> DType:
    return "int" if word == "int" else "bool" if word == "bool" else "float"
