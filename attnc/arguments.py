"""What users type after `--param`, `--shape` and their like: text to values, or wrong usage.

Nothing here evaluates text: a value is `true`, `false`, a number, or a tuple of these.
"""

from __future__ import annotations

import re
from argparse import Action, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from math import isfinite
from typing import Any, TypeAlias

Scalar: TypeAlias = bool | int | float
Value: TypeAlias = Scalar | tuple[Scalar, ...]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INT = re.compile(r"[+-]?[0-9]{1,18}")
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_ITEM = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\[[0-9]{1,2}\])?")
_RANGE = re.compile(
    r"(?P<low>-?[0-9]{1,18})(\.\.(?P<high>-?[0-9]{1,18})(:(?P<step>[0-9]{1,18}))?)?"
)
_MOST_VALUES = 100_000
# Of what is quoted back to the user; the rest could be megabytes.
_SHOWN = 60


def parameter(text: str) -> dict[str, Value]:
    """`window=4096`, `window=(80,80)`, `causal=true`: one name and its value."""
    name, value = _split(text)
    return {name: _value(value)}


def extents(text: str) -> dict[str, int]:
    """`B=1,H=32,M=8192`: extents by upper-case rank name."""
    found: dict[str, int] = {}
    for part in text.split(","):
        name, value = _split(part)
        if not _INT.fullmatch(value) or int(value) < 0:
            raise ArgumentTypeError(
                f"`{part[:_SHOWN]}`: an extent is a whole number, like `M=8192`"
            )
        if name != name.upper():
            raise ArgumentTypeError(
                f"`{part[:_SHOWN]}`: the extent of rank `{name}` is `{name.upper()}`"
            )
        if name in found:
            raise ArgumentTypeError(f"`{name[:_SHOWN]}` is given twice")
        found[name] = int(value)
    return found


def coordinates(text: str) -> dict[str, int]:
    """`my=3,mx=40`: a point, by the names of ranks or components."""
    found: dict[str, int] = {}
    for part in text.split(","):
        name, value = _split(part)
        if not _INT.fullmatch(value):
            raise ArgumentTypeError(f"`{part[:_SHOWN]}`: a coordinate is a whole number: `mx=40`")
        if name in found:
            raise ArgumentTypeError(f"`{name[:_SHOWN]}` is given twice")
        found[name] = int(value)
    return found


def tile_sizes(text: str) -> dict[str, tuple[int, ...]]:
    """`m=16x16,n=16x8`: the tile of each rank, component by component."""
    found: dict[str, tuple[int, ...]] = {}
    for part in text.split(","):
        name, value = _split(part)
        sizes = value.split("x")
        if not all(_INT.fullmatch(size.strip()) for size in sizes):
            raise ArgumentTypeError(f"`{part[:_SHOWN]}`: a tile is like `m=128` or `m=16x8`")
        if name in found:
            raise ArgumentTypeError(f"`{name[:_SHOWN]}` is given twice")
        found[name] = tuple(map(int, sizes))
    return found


def data_file(text: str) -> dict[str, str]:
    """`doc=FILE.npy`: an input and the file that holds it."""
    name, value = _split(text)
    return {name: value}


def sweep_range(text: str) -> dict[str, tuple[int, ...]]:
    """`stride=1..32`, `stride=1..16x1..8`, `stride[0]=1,2,4`, `window=16..128:16`.

    The values of a param, or of items of one (`stride[1]`): a list, or a range with both its ends,
    by steps after a colon. `x` separates the items of a tuple.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not _ITEM.fullmatch(name):
        raise ArgumentTypeError(f"`{text[:_SHOWN]}` is not like `stride=1..32`")
    items = value.split("x")
    if len(items) == 1:
        return {name: _values(value)}
    if name.endswith("]"):
        raise ArgumentTypeError(f"`{text[:_SHOWN]}`: one item has one range")
    return {f"{name}[{i}]": _values(item) for i, item in enumerate(items)}


def _values(text: str) -> tuple[int, ...]:
    found: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None or match["step"] == "0":
            raise ArgumentTypeError(
                f"`{part[:_SHOWN]}` is no range: `1..32`, `16..128:16` and `1,2,4` are"
            )
        low = int(match["low"])
        values = range(low, int(match["high"] or low) + 1, int(match["step"] or 1))
        if not values or len(found) + len(values) > _MOST_VALUES:
            what = f"more than {_MOST_VALUES} values" if values else "an empty range"
            raise ArgumentTypeError(f"`{part[:_SHOWN]}`: {what}")
        found += values
    return tuple(dict.fromkeys(found))


def _split(text: str) -> tuple[str, str]:
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not _NAME.fullmatch(name):
        raise ArgumentTypeError(f"`{text[:_SHOWN]}` is not like `name=value`")
    return name, value


def _value(text: str) -> Value:
    if text.startswith("(") and text.endswith(")"):
        parts = text[1:-1].removesuffix(",").split(",")
        return tuple(_scalar(part.strip()) for part in parts)
    return _scalar(text)


def _scalar(text: str) -> Scalar:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text)
    if text in ("inf", "+inf", "-inf") or (_FLOAT.fullmatch(text) and isfinite(float(text))):
        return float(text)
    raise ArgumentTypeError(
        f"`{text[:_SHOWN]}` is not a value: numbers, `true`, `false` and `(80,80)` are"
    )


class Merge(Action):
    """Collect the dictionaries of a repeatable option into one; a name given twice is an error."""

    def __call__(
        self,
        parser: ArgumentParser,
        namespace: Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        assert isinstance(values, dict), "the option's type gives a dictionary"
        merged = dict(getattr(namespace, self.dest))
        for name, value in values.items():
            if name in merged:
                parser.error(f"argument {option_string}: `{name[:_SHOWN]}` is given twice")
            merged[name] = value
        setattr(namespace, self.dest, merged)
