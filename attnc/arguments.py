"""What users type after `--param`, `--shape` and their like: text to values, or wrong usage.

Nothing here evaluates text: a value is `true`, `false`, a number, or a tuple of these.
"""

from __future__ import annotations

import re
from argparse import Action, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from fractions import Fraction
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
_NUMBER = r"-?(?:[0-9]{1,18}(?:\.[0-9]{1,18})?|\.[0-9]{1,18})"
_SETTINGS = re.compile(
    rf"(?P<low>{_NUMBER})(\.\.(?P<high>{_NUMBER})(:(?P<step>{_NUMBER}|double))?)?"
)
_DURATION = re.compile(
    r"(?P<number>[0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18}) *(?P<unit>us|ms|s)"
)
_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
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


def configuration(text: str) -> dict[str, int]:
    """`m=128,n=64,warps=8,stages=2`: parts of a kernel's configuration."""
    found: dict[str, int] = {}
    for part in text.split(","):
        name, value = _split(part)
        if not _INT.fullmatch(value):
            raise ArgumentTypeError(f"`{part[:_SHOWN]}`: a whole number is meant, like `m=128`")
        if name in found:
            raise ArgumentTypeError(f"`{name[:_SHOWN]}` is given twice")
        found[name] = int(value)
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


def settings_range(text: str) -> dict[str, tuple[int | float, ...]]:
    """What a prediction is swept over: `M=1024..1048576`, `window=512..4096:512`, `tau=0.1,0.5`.

    As `sweep_range`, and for numbers of any kind and for extents. A range doubles where it ends in
    `:double`, or where an extent (an upper-case name) has no step; a param counts by one.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not _ITEM.fullmatch(name):
        raise ArgumentTypeError(f"`{text[:_SHOWN]}` is not like `M=1024..65536`")
    doubles = name == name.upper()
    items = value.split("x")
    if len(items) == 1:
        return {name: _settings(value, doubles)}
    if name.endswith("]"):
        raise ArgumentTypeError(f"`{text[:_SHOWN]}`: one item has one range")
    return {f"{name}[{i}]": _settings(item, doubles) for i, item in enumerate(items)}


def _settings(text: str, doubles: bool) -> tuple[int | float, ...]:
    found: list[Fraction] = []
    for part in text.split(","):
        match = _SETTINGS.fullmatch(part.strip())
        if match is None:
            raise ArgumentTypeError(
                f"`{part[:_SHOWN]}` is no range: `1024..65536`, `16..128:16`, `1..64:double` and "
                "`1,2,4` are"
            )
        low = Fraction(match["low"])
        high = Fraction(match["high"] or match["low"])
        step = match["step"] or ("double" if doubles else "1")
        values = _doubled(low, high) if step == "double" else _stepped(low, high, Fraction(step))
        if not values or len(found) + len(values) > _MOST_VALUES:
            what = f"more than {_MOST_VALUES} values" if values else "an empty range"
            raise ArgumentTypeError(f"`{part[:_SHOWN]}`: {what}")
        found += values
    # Exact until here: 0.1..0.3:0.1 has three values.
    return tuple(int(x) if x.denominator == 1 else float(x) for x in dict.fromkeys(found))


def _doubled(low: Fraction, high: Fraction) -> list[Fraction]:
    if low <= 0:
        return [low] if low == high else []
    found = []
    while low <= high:
        found.append(low)
        low *= 2
    return found


def _stepped(low: Fraction, high: Fraction, step: Fraction) -> list[Fraction]:
    if step <= 0 or high < low:
        return []
    count = int((high - low) / step) + 1
    if count > _MOST_VALUES:
        raise ArgumentTypeError(f"`{low}..{high}`: more than {_MOST_VALUES} values")
    return [low + i * step for i in range(count)]


def duration(text: str) -> float:
    """`2ms`, `500us`, `1.5s`: milliseconds."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not (found := float(match["number"]) * _MILLISECONDS[match["unit"]]) > 0:
        raise ArgumentTypeError(f"`{text[:_SHOWN]}` is no time: `2ms`, `500us` and `1.5s` are")
    return found


def share(text: str) -> float:
    """`0.6` or `60%`: a part of a whole."""
    number = text.strip().removesuffix("%")
    value = (
        float(number) / (100 if number != text.strip() else 1) if _FLOAT.fullmatch(number) else -1
    )
    if not 0 < value <= 1:
        raise ArgumentTypeError(f"`{text[:_SHOWN]}` is no share: `0.6` and `60%` are")
    return value


def spec_and_params(text: str) -> tuple[str, dict[str, Value]]:
    """`SPEC`, or `SPEC NAME=VALUE ...` in quotes: a spec with params of its own."""
    spec, given = text.strip(), dict[str, Value]()
    while len(words := spec.rsplit(None, 1)) == 2 and "=" in words[1]:
        given = {**parameter(words[1]), **given}
        spec = words[0]
    return spec, given


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
