"""The `attnc` command: a subcommand is one function, its docstring is its help.

Results go to stdout, errors to stderr. `--json` prints one JSON object on stdout and nothing else,
errors included. Exit status: 0 done, 1 the user's error or a failed check, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from attnc.arguments import (
    Merge,
    configuration,
    coordinates,
    data_file,
    extents,
    parameter,
    sweep_range,
    tile_sizes,
)
from attnc.errors import AttncError, AttncErrors
from attnc.predict_command import Result, predict_command, predict_options

if TYPE_CHECKING:
    from attnc.api import Attention

# Whatever a command needs is imported inside it: `attnc --help` must not wait for torch.


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except AttncError as e:
        return _fail(args, e)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (`head`) has enough; python must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as e:
        if os.environ.get("ATTNC_DEBUG"):
            raise
        return _fail(args, _bug(e))


def _fail(args: argparse.Namespace, error: AttncError) -> int:
    errors = error.errors if isinstance(error, AttncErrors) else (error,)
    if getattr(args, "json", False):
        _print_json({"ok": False, "errors": [e.to_dict() for e in errors]})
    else:
        print(error, file=sys.stderr)
    return 1


def _bug(e: Exception) -> AttncError:
    """Our mistake, as the user sees it: what happened and where, without a traceback."""
    at = e.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    place = f"{Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}" if at else "?"
    return AttncError(
        "E999",
        f"internal error at {place}: {type(e).__name__}: {str(e)[:200]}",
        hint="this is a bug in attnc, not in your spec; ATTNC_DEBUG=1 shows where it happened",
    )


def _print(args: argparse.Namespace, result: Result) -> None:
    if args.json:
        _print_json(result.to_dict())
    else:
        print(str(result).rstrip("\n"))


def _print_json(result: dict[str, object]) -> None:
    print(json.dumps(_finite(result), indent=2, allow_nan=False))


def _finite(x: object) -> object:
    """JSON has no infinities and no NaN: they become null."""
    match x:
        case dict():
            return {key: _finite(value) for key, value in x.items()}
        case list() | tuple():
            return [_finite(value) for value in x]
        case float() if not isfinite(x):
            return None
        case _:
            return x


# commands ----------------------------------------------------------------------------------------


def cmd_list(args: argparse.Namespace) -> int:
    """List the library by family, one line each."""
    from attnc.library import entries

    found = entries()
    if args.json:
        _print_json({"specs": [asdict(e) for e in found]})
        return 0
    from attnc.tables import print_groups

    families = sorted({e.family for e in found})
    print_groups(
        {f: [(e.name, e.summary, e.citation) for e in found if e.family == f] for f in families}
    )
    return 0


def cmd_new(args: argparse.Namespace) -> int:
    """Write a commented starter spec, NAME.attn, that compiles as it is."""
    from attnc.files import new_spec

    path = new_spec(args.name)
    print(f"{path}: edit it, then `attnc check {path}` and `attnc verify {path}`")
    return 0


def cmd_fmt(args: argparse.Namespace) -> int:
    """Format specs in place; `-` reads stdin and writes stdout."""
    from attnc.files import format_file

    changed = [path for path in args.specs if format_file(path, write=not args.check)]
    if args.check:
        for path in changed:
            print(f"{path}: would be formatted", file=sys.stderr)
    return int(args.check and bool(changed))


def cmd_check(args: argparse.Namespace) -> int:
    """Parse and check a spec; print all its errors."""
    from attnc.dsl import load_text
    from attnc.library import resolve

    cascade = load_text(*resolve(args.spec))
    if args.json:
        _print_json({"ok": True, "errors": []})
    else:
        print(f"{cascade.name}: no errors")
    return 0


def cmd_explain(args: argparse.Namespace) -> int:
    """Show what was derived: ranks, passes, certificates, stages, footprints, formulas."""
    attention = _load(args)
    if args.stages:
        from attnc.stages import show_stages

        print(show_stages(attention.cascade, attention.specialised), end="")
        return 0
    explanation = attention.explain(check=args.check)
    _print(args, explanation)
    return 0 if explanation.ok else 1


def cmd_tiles(args: argparse.Namespace) -> int:
    """Count the tiles that a mask visits, exactly, and bound what it can gain."""
    from attnc.runtime.tensor_file import read_tensor

    attention = _load(args)
    data = {name: read_tensor(file) for name, file in args.data.items()}
    how = {"keys": args.keys, "flat": args.flat}
    found: Result
    if args.orders:
        with _busy(f"comparing orders of {args.spec}"):
            found = attention.tile_orders(args.shape, tile=args.tile, keys=args.keys, **data)
    elif args.sweep:
        found = attention.sweep_tiles(args.shape, args.sweep, tile=args.tile, **how, **data)
    else:
        found = attention.tiles(args.shape, tile=args.tile, **how, **data)
    _print(args, found)
    return 0


def cmd_mask(args: argparse.Namespace) -> int:
    """Draw the mask with the classes of its tiles, as SVG or PNG."""
    from attnc.runtime.tensor_file import read_tensor

    data = {name: read_tensor(file) for name, file in args.data.items()}
    cut = {"tile": args.tile, "keys": args.keys, "flat": args.flat}
    attention = _load(args)
    _print(args, attention.mask(args.out, args.shape, query=args.query, at=args.at, **cut, **data))
    return 0


def cmd_predict(args: argparse.Namespace) -> int:
    """Predict the time on a GPU that need not be there, what limits it, and what a mask gains."""
    with _busy(f"predicting {args.spec}"):
        found = predict_command(args, _load(args))
    _print(args, found)
    return 0


def cmd_compile(args: argparse.Namespace) -> int:
    """Write the standalone module and its report; really compiles it, GPU or not."""
    targets = () if args.source_only else args.target or ("h200",)
    dtype = args.dtype or "bf16"
    how = {"target": targets, "dtype": dtype, "to": args.out, "config": args.config}
    with _busy(f"choosing tiles of {args.spec} and compiling it"):
        made = _load(args).compile(args.shape, **how)
    _print(args, made)
    return 0 if all(kernel.fits for kernel in made.kernels) else 1


def cmd_tune(args: argparse.Namespace) -> int:
    """Measure the model's best configurations on the GPU, and keep the winner."""
    from attnc.runtime.tensor_file import read_tensor

    data = {name: read_tensor(file) for name, file in args.data.items()}
    how = {"dtype": args.dtype or "bf16", "target": args.target}
    with _busy(f"tuning {args.spec}"):
        found = _load(args).tune(args.shape, **how, **data)
    _print(args, found)
    return 0


def cmd_verify(args: argparse.Namespace) -> int:
    """Run the emitted kernels and compare with the float64 reference."""
    with _busy(f"verifying {args.spec}"):
        verification = _load(args).verify(args.shape or None, dtype=args.dtype or "fp32")
    _print(args, verification)
    return 0 if verification.ok else 1


def _busy(what: str) -> AbstractContextManager[object]:
    """A sign of life on the terminal while a slow command runs; nothing in a file or a pipe."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(what)


def _load(args: argparse.Namespace) -> Attention:
    from attnc.api import load

    return load(args.spec, **args.param)


# arguments ---------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="attnc",
        description="Write attention as the maths of its paper, get a verified Triton kernel.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for run, options in _COMMANDS:
        assert run.__doc__ is not None
        name = run.__name__.removeprefix("cmd_")
        sub = commands.add_parser(
            name, help=run.__doc__.split("\n")[0], description=run.__doc__, allow_abbrev=False
        )
        sub.set_defaults(run=run, json=False)
        for option in options:
            option(sub)
    return parser


def _spec(p: argparse.ArgumentParser) -> None:
    p.add_argument("spec", metavar="SPEC", help="a library name (`attnc list`) or a path")


def _params(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--param",
        metavar="NAME=VALUE",
        type=parameter,
        action=Merge,
        default={},
        help="set a parameter, `window=4096` or `window=(80,80)`; may be repeated",
    )


def _shape(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--shape",
        metavar="B=1,H=32,...",
        type=extents,
        action=Merge,
        default={},
        help="the extents of ranks and components",
    )
    p.add_argument("--dtype", choices=("fp32", "fp16", "bf16"), help="of the floating tensors")


def _json(p: argparse._ActionsContainer) -> None:
    p.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def _new(p: argparse.ArgumentParser) -> None:
    p.add_argument("name", metavar="NAME", help="of the attention; NAME.attn is written")


def _fmt(p: argparse.ArgumentParser) -> None:
    p.add_argument("specs", metavar="SPEC", nargs="+", help="paths, or `-` for stdin")
    p.add_argument("--check", action="store_true", help="write nothing; exit 1 if one would change")


def _explain(p: argparse.ArgumentParser) -> None:
    form = p.add_mutually_exclusive_group()
    form.add_argument("--stages", action="store_true", help="show the spec after each stage")
    _json(form)
    p.add_argument("--check", action="store_true", help="prove and try every law again")


def _target(p: argparse.ArgumentParser) -> None:
    p.add_argument("-o", "--out", metavar="DIR", default=".", help="where to write (default: here)")
    how = p.add_mutually_exclusive_group()
    how.add_argument(
        "--target",
        action="append",
        metavar="GPU",
        help="its name, or a file that describes it; may be repeated (default: h200)",
    )
    how.add_argument("--source-only", action="store_true", help="do not run a GPU's compiler")


def _config(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--config",
        metavar="m=128,n=64,warps=8,stages=2",
        type=configuration,
        action=Merge,
        default={},
        help="fix the tile, warps, load stages, or some of them (default: the model's choice)",
    )


def _device(p: argparse.ArgumentParser) -> None:
    p.add_argument("--target", metavar="GPU", help="what the GPU is (default: as it says itself)")


def _tiles(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--tile",
        metavar="m=16x16,n=16x8",
        type=tile_sizes,
        action=Merge,
        default={},
        help="the tile of each rank, component by component (default: 128 queries, 64 keys)",
    )
    p.add_argument(
        "--keys",
        choices=("static", "dynamic"),
        default="static",
        help="key tiles lie on a fixed grid (default), or start at the window",
    )
    p.add_argument("--flat", action="store_true", help="tiles of the flattened ranks")


def _data(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--data",
        metavar="NAME=FILE",
        type=data_file,
        action=Merge,
        default={},
        help="an int or bool tensor that the mask reads, `.npy` or `.pt`; may be repeated",
    )


def _sweep(p: argparse.ArgumentParser) -> None:
    what = p.add_mutually_exclusive_group()
    what.add_argument(
        "--orders", action="store_true", help="compare orders of the tokens of a plane or volume"
    )
    what.add_argument(
        "--sweep",
        metavar="PARAM=RANGE",
        type=sweep_range,
        action=Merge,
        default={},
        help="count for each value: `stride=1..32`, `stride=1..16x1..8`, `window=64..512:64`",
    )


def _picture(p: argparse.ArgumentParser) -> None:
    p.add_argument("-o", "--out", metavar="FILE", required=True, help="out.svg or out.png")
    p.add_argument(
        "--query",
        metavar="my=3,mx=40",
        type=coordinates,
        action=Merge,
        default={},
        help="the query to show, where ranks have components (default: the middle)",
    )
    p.add_argument(
        "--at",
        metavar="h=3",
        type=coordinates,
        action=Merge,
        default={},
        help="the head, batch, .. to show, where masks differ (default: the first)",
    )


_Options = Callable[[argparse.ArgumentParser], None]
_COMMANDS: tuple[tuple[Callable[[argparse.Namespace], int], tuple[_Options, ...]], ...] = (
    (cmd_list, (_json,)),
    (cmd_new, (_new,)),
    (cmd_fmt, (_fmt,)),
    (cmd_check, (_spec, _json)),
    (cmd_explain, (_spec, _params, _explain)),
    (cmd_tiles, (_spec, _params, _shape, _tiles, _data, _sweep, _json)),
    (cmd_mask, (_spec, _picture, _params, _shape, _tiles, _data, _json)),
    (cmd_predict, (_spec, _params, _shape, predict_options, _config, _data, _json)),
    (cmd_compile, (_spec, _params, _shape, _target, _config, _json)),
    (cmd_tune, (_spec, _params, _shape, _device, _data, _json)),
    (cmd_verify, (_spec, _params, _shape, _json)),
)
