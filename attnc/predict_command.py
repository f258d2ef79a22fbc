"""`attnc predict` as a user types it: its options, and which question they ask."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from attnc.arguments import Merge, duration, settings_range, share, spec_and_params
from attnc.errors import AttncError

if TYPE_CHECKING:
    from attnc.api import Attention
    from attnc.predict_setup import Setup

# Whatever a prediction needs is imported where it is made: `attnc --help` must not wait for it.
_DEFAULT_TARGET = "h200"


class Result(Protocol):
    """Text for people, a dictionary for programs."""

    def __str__(self) -> str: ...
    def to_dict(self) -> dict[str, object]: ...


def predict_options(p: ArgumentParser) -> None:
    """The options of `attnc predict`, without those that other commands have, too."""
    p.add_argument(
        "--target",
        action="append",
        metavar="GPU",
        help="its name, a file that describes it, or a modelled array: fusemax, fusemax_arch, "
        "fusemax_cascade, flat, unfused, `spatial` for all; may be repeated (default: h200)",
    )
    p.add_argument(
        "--fidelity",
        choices=("tiles", "roofline", "machine-code"),
        default="machine-code",
        help="what is counted (default: the compiled kernel; the others compile nothing)",
    )
    p.add_argument("--calibration", metavar="FILE", help="what was measured on the GPU, as JSON")
    p.add_argument(
        "--share", type=share, metavar="0.6", help="attention's share of a model: end to end"
    )
    p.add_argument("--budget", type=duration, metavar="2ms", help="which settings fit in this time")
    p.add_argument(
        "--model",
        action="append",
        metavar="NAME",
        help="on modelled arrays: a layer of BERT, TrXL, T5, XLM, or of `all`; may be repeated",
    )
    what = p.add_mutually_exclusive_group()
    what.add_argument(
        "--explain", action="store_true", help="all three fidelities, and why they differ"
    )
    what.add_argument(
        "--versus",
        action="append",
        metavar="SPEC",
        type=spec_and_params,
        help="another spec at the same shape, with params of its own in quotes: "
        "`'sliding_window window=1024'`; may be repeated",
    )
    what.add_argument(
        "--sweep",
        metavar="NAME=RANGE",
        type=settings_range,
        action=Merge,
        default={},
        help="for each value of an extent or param: `M=1024..65536` doubles, "
        "`window=512..4096:512` steps, `window=1..64:double`, `stride=1..4x1,8`, `tau=0.1,0.5`",
    )
    p.add_argument("-o", "--out", metavar="FILE", help="draw the sweep: out.svg or out.png")


def predict_command(args: Namespace, attention: Attention) -> Result:
    """The answer to the question that the options ask. Raises AttncError, E854 for nonsense."""
    from attnc.figure import check_suffix
    from attnc.runtime.spatial.designs import named_designs

    targets = args.target or [_DEFAULT_TARGET]
    if args.out is not None:
        check_suffix(Path(args.out))
        if not args.sweep:
            raise AttncError("E854", "a picture is drawn of a sweep", hint="add `--sweep`")
    if designs := named_designs(targets):
        from attnc.predict_arrays import predict_arrays

        _check_array_options(args)
        models = tuple(args.model or ())
        return predict_arrays(
            attention, args.shape, designs, models=models, sweep=args.sweep, share=args.share
        )
    if args.model:
        hint = "`--target fusemax` is one"
        raise AttncError("E854", "layers of models are predicted on modelled arrays", hint=hint)
    return _on_gpus(args, attention, targets)


def _on_gpus(args: Namespace, attention: Attention, targets: list[str]) -> Result:
    from attnc.predict_setup import make_setup
    from attnc.runtime.tensor_file import read_tensor

    setups = [
        make_setup(
            _known(target),
            dtype=args.dtype or "bf16",
            fidelity=args.fidelity,
            calibration=args.calibration,
            config=args.config,
            share=args.share,
            budget_ms=args.budget,
        )
        for target in dict.fromkeys(targets)
    ]
    data = {name: read_tensor(file) for name, file in args.data.items()}
    if args.sweep or (len(setups) > 1 and not (args.versus or args.explain)):
        return _sweep(args, attention, setups, data)
    if len(setups) > 1:
        raise AttncError("E854", "specs and fidelities are compared on one GPU")
    if args.versus:
        from attnc.api import load
        from attnc.predict_versus import predict_versus

        others = [load(spec, **params) for spec, params in args.versus]
        return predict_versus(attention, others, args.shape, setups[0], data)
    if args.explain:
        from attnc.predict_fidelities import predict_fidelities

        return predict_fidelities(attention, args.shape, setups[0], data)
    from attnc.predict import predict_attention

    return predict_attention(attention, args.shape, setups[0], data)


def _known(target: str) -> str:
    """The target, unless its name is close to that of a modelled array and no other."""
    from attnc.runtime.spatial.designs import design_names
    from attnc.runtime.targets import target_names

    near = get_close_matches(target.lower(), (*target_names(), *design_names()), n=1, cutoff=0.75)
    if near and near[0] in design_names():
        raise AttncError(
            "E801", f"unknown target `{target[:60]}`", hint=f"did you mean `{near[0]}`?"
        )
    return target


def _sweep(
    args: Namespace, attention: Attention, setups: list[Setup], data: dict[str, object]
) -> Result:
    from attnc.predict_sweep import predict_sweep

    found = predict_sweep(attention, args.shape, args.sweep, setups, data)
    if args.out is None:
        return found
    from attnc.predict_plot import draw_sweep

    return draw_sweep(found, Path(args.out))


def _check_array_options(args: Namespace) -> None:
    """Raises E854 for what makes no sense on a modelled array."""
    given = {
        "--versus": args.versus,
        "--explain": args.explain,
        "--budget": args.budget,
        "--calibration": args.calibration,
        "--config": args.config,
        "--data": args.data,
        "-o": args.out,
    }
    if args.dtype == "fp32":
        raise AttncError("E854", "the words of modelled arrays have two bytes: not fp32")
    for name, value in given.items():
        if value:
            raise AttncError("E854", f"`{name}` does not go with modelled arrays")
